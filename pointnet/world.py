"""The processes of one run, as torchrun starts them: who writes, what all agree on, and sums over all."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .extras import MissingExtraError

PATIENCE = timedelta(hours=2)  # one process may download and cache a data set while the others wait


class AgreedError(ValueError):
    """Raised by every process where one of them failed; only one needs to print it."""


@dataclass(frozen=True)
class World:
    """The processes that train one model; one process on its own is a world of one, which sends nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The world of this process's group; a world of one without a group."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def writes(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        gathered = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(gathered, value)
        return gathered

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes, in one message; the same bits everywhere.

        All are of one type and on one device. The order of the sum is fixed, unlike that of
        `DistributedDataParallel`, whose buckets change after the first step: a resumed run repeats it bit for bit.
        """
        if self.size > 1:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            pieces = zip(flat.split([tensor.numel() for tensor in tensors]), tensors, strict=True)
            torch._foreach_copy_(list(tensors), [piece.view_as(tensor) for piece, tensor in pieces])

    def largest(self, number: int) -> int:
        """The largest of the numbers of all processes. It waits for the other processes, not for a device."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by that of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process raises within it, all raise, with the message of the lowest rank.

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
        messages = self.gather(None if failure is None else str(failure))
        first = next((message for message in messages if message is not None), None)
        if first is not None:
            raise AgreedError(first) from failure

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Within it the first process of each machine goes ahead; the others then find what it made or downloaded."""
        first = place_on_machine()[0] == 0
        try:
            if not first:
                self.gather(None)
            yield
        finally:
            if first:
                self.gather(None)


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """The world that torchrun has started this process in; a world of one without torchrun.

    Each process takes the CUDA device of its number on the machine, or shares the CPU.

    Raises:
        ValueError: a device named by number, or fewer devices than processes.
    """
    if not launched_by_torchrun():
        yield World()
        return
    on_cuda = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    if on_cuda:
        if ":" in device:
            raise ValueError(f"under torchrun each process has its own device: device must be cuda, got '{device}'")
        local, found = place_on_machine()[0], torch.cuda.device_count()
        if local >= found:
            raise ValueError(f"process {local} of this machine has no CUDA device of its own: {found} found")
        torch.cuda.set_device(local)
    # Functions of this module take the process group at its import as a default. Imported later, as the optimizers do,
    # they would keep the group alive after its end, and gloo's threads abort a process that exits while they live.
    importlib.import_module("torch.distributed.nn.functional")
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun's store outlives a restart, and with it the addresses of processes that have ended.
    store = PrefixStore(f"start-{restart_count()}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World.current()
    finally:
        dist.destroy_process_group()


def place_on_machine() -> tuple[int, int]:
    """Which of torchrun's processes of this machine this one is, and how many there are; 0 and 1 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_lost_process(error: RuntimeError) -> bool:
    """Whether a message failed because another process has ended; gloo says so only in its text."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def launched_by_torchrun() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched()


def restart_count() -> int:
    """How often torchrun has started this process again, after a process of the run ended (`--max_restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
