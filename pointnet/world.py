"""The processes of one run, as torchrun starts them: who writes, what all agree on, and sums over all."""

from __future__ import annotations

import importlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from pointnet.extras import MissingExtraError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

PATIENCE = timedelta(hours=2)  # one process may fetch and cache a data set while the others wait
MUSTER = timedelta(minutes=5)  # within which all processes of a start must have come up


class AgreedError(ValueError):
    """Raised by every process where one of them failed; it is enough that one says so."""


@dataclass(frozen=True)
class World:
    """The processes that train one model together; on its own a process is a world of one, where nothing travels."""

    rank: int = 0
    size: int = 1
    restarts: int = 0  # how often torchrun has started it again, after a process died or a machine came or went

    @classmethod
    def current(cls) -> World:
        """That of the process group this process is in, if it is in one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def writes(self) -> bool:
        """Whether this process writes files and says how the run goes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, by rank."""
        gathered = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(gathered, value)
        return gathered

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Makes each tensor its sum over the processes, in place and in one message; the same bits everywhere.

        All are of one type and on one device. The order of the sum is fixed, unlike that of
        `DistributedDataParallel`, whose buckets change after the first step: a resumed run repeats it bit for bit.
        """
        if self.size > 1:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            pieces = flat.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(
                list(tensors), [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]
            )

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give. It waits for the other processes, not for a device."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Makes each tensor that of rank 0, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process raises within, all raise, in the words of the lowest rank.

        Raises:
            AgreedError: some process raised ValueError, OSError or MissingExtraError, and there are several.
        """
        failure: Exception | None = None
        try:
            yield
        except (ValueError, OSError, MissingExtraError) as error:
            if self.size == 1:
                raise
            failure = error
        words = self.gather(None if failure is None else str(failure))
        said = next((each for each in words if each is not None), None)
        if said is not None:
            raise AgreedError(said) from failure

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Within it the first process of each machine goes ahead; what it makes or fetches the others then find."""
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        try:
            if not first:
                self.gather(None)
            yield
        finally:
            if first:
                self.gather(None)


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """The world that torchrun has started this process in; a world of one without it.

    Each process takes the CUDA device of its number on the machine, or shares the CPU.

    Raises:
        ValueError: a device named by number, or fewer of them than processes.
        AgreedError: the processes ended by one, and torchrun has started them again: it would only come once more.
    """
    if not launched_by_torchrun():
        yield World()
        return
    on_cuda = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    if on_cuda:
        if ":" in device:
            raise ValueError(
                f"under torchrun each process has a device of its own: device must be cuda, got '{device}'"
            )
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= found:
            raise ValueError(f"process {local} of this machine has no CUDA device of its own: {found} found")
        torch.cuda.set_device(local)
    # Functions there take the process group of their import as a default. Imported later, as the optimizers do, they
    # would keep the group past its end, and gloo's threads abort a process that ends while they live.
    importlib.import_module("torch.distributed.nn.functional")
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    kept, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    if kept.check(["failed"]):
        raise AgreedError(kept.get("failed").decode())
    start = agree_on_start(kept, rank, size)
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    store = PrefixStore(f"start-{start}", kept)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(rank, size, restarts=start - 1)
    except AgreedError as error:
        kept.set("failed", str(error))
        raise
    finally:
        dist.destroy_process_group()


def agree_on_start(store: Store, rank: int, size: int) -> int:
    """The number of this start of the processes, 1 for the first, the same for all of them.

    torchrun's store outlives a restart, and with it the addresses of processes that are gone; each machine counts only
    the restarts that it called for itself (TORCHELASTIC_RESTART_COUNT). So rank 0 takes the next number, and tells it
    to those who ask under a name that nobody has had before, until all have been heard.

    Raises:
        DistStoreError: not all were there within `MUSTER`; torchrun then starts all again.
    """
    if rank:
        name = uuid.uuid4().hex
        store.set(f"asks-{rank}", name)
        store.wait([f"start-of-{name}"], MUSTER)
        start = int(store.get(f"start-of-{name}"))
        store.set(f"heard-{start}-{rank}", "")
        return start
    start = store.add("starts", 1)
    missing, deadline = set(range(1, size)), time.monotonic() + MUSTER.total_seconds()
    while missing:
        for other in list(missing):
            if store.check([f"heard-{start}-{other}"]):
                missing.remove(other)
            elif store.check([f"asks-{other}"]):  # perhaps one that is gone: only the living are heard
                store.set(f"start-of-{store.get(f'asks-{other}').decode()}", str(start))
        if time.monotonic() > deadline:
            raise dist.DistStoreError(f"rank 0 waited {MUSTER} for ranks {sorted(missing)}")
        time.sleep(0.01)
    return start


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process is gone; gloo says so in words alone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def launched_by_torchrun() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched()
