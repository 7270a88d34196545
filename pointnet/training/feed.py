"""From a data set to batches on the device: resident where it fits, streamed where it does not, the same batches."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pointnet.datasets import LabelledClouds
from pointnet.devices import free_memory

Batch = tuple[Tensor, Tensor]


class ResidentFeed:
    """All clouds on the device: a batch is one gather there."""

    def __init__(self, data: LabelledClouds, device: torch.device):
        self.points, self.labels = (each.to(device) for each in data.batch(slice(None)))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """For each tensor of indices (B,): points (B, C, K), labels (B,)."""
        for rows in indices:
            yield self.points[rows], self.labels[rows]


class StreamedFeed:
    """Clouds stay where they are, perhaps on disk; worker processes gather batches ahead of the step."""

    def __init__(self, data: LabelledClouds, device: torch.device, workers: int = 2):
        self.device = device
        self.order: Sequence[Tensor] = []
        self.gathered = _Gathered(data, workers)
        self.loader: DataLoader[Any] = DataLoader(
            self.gathered,
            batch_size=None,  # an "index" is a whole batch of them
            sampler=self,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # Forked, workers share a memory map; sent to them, it would be copied whole.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=_take_no_signals,
            generator=torch.Generator(),  # else it would draw from the one that dropout draws from
        )

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def _being_read(self) -> str:
        firsts = self.gathered.reading.tolist()
        return " or ".join(f"samples {rows.tolist()}" for rows in self.order if int(rows[0]) in firsts) or "a batch"

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """For each tensor of indices (B,): points (B, C, K), labels (B,).

        Raises:
            ValueError: a worker died; the message names the samples it was reading.
        """
        self.order = [rows.cpu() for rows in indices]
        taken = 0
        batches = iter(self.loader)
        _find_dead_workers_when_asked()
        while taken < len(self.order):
            try:
                points, labels = next(batches)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise ValueError(
                    f"a worker died (out of memory?) while it read {self._being_read()}: {error}"
                ) from error
            taken += 1
            yield points.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _find_dead_workers_when_asked() -> None:
    """PyTorch raises wherever the program stands when a worker dies; without that, the next batch asked for raises."""
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread and getattr(handler, "__module__", "") == "torch.utils.data._utils.signal_handling":
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _take_no_signals(worker: int) -> None:
    """Ctrl-C is the parent's to answer, and what it does at SIGTERM is not for its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Gathered(Dataset[Batch]):
    """Batches by their indices; the first sample of what each worker is reading can be seen from outside."""

    def __init__(self, data: LabelledClouds, workers: int):
        self.data = data
        self.reading = torch.full((max(workers, 1),), -1).share_memory_()

    def __getitem__(self, indices: Any) -> Batch:
        info = get_worker_info()
        worker = 0 if info is None else info.id
        self.reading[worker] = indices[0]
        batch = self.data.batch(indices)
        self.reading[worker] = -1
        return batch


def make_feed(data: LabelledClouds, device: torch.device, kind: str = "auto") -> ResidentFeed | StreamedFeed:
    """The feed of this kind; "auto" is resident where the clouds take at most half of the free memory."""
    if kind == "auto":
        size = len(data) * data.batch(torch.arange(1))[0].nbytes
        kind = "resident" if size <= free_memory(device) / 2 else "stream"
    return ResidentFeed(data, device) if kind == "resident" else StreamedFeed(data, device)


def cut_batches(order: Tensor, batch_size: int, rank: int = 0, ranks: int = 1) -> Sequence[Tensor]:
    """`order` (S,) in even batches of about `batch_size`, and of each one rank's share: every sample once in all."""
    batches = order.tensor_split(count_batches(len(order), batch_size))
    return [batch.tensor_split(ranks)[rank] for batch in batches]


def count_batches(samples: int, batch_size: int) -> int:
    """How many even batches of about `batch_size` and never of one: batch norm cannot train on a single cloud."""
    return max(1, min(math.ceil(samples / batch_size), samples // 2))
