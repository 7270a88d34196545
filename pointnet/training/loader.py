"""Batches on the device: from clouds that all fit there, or streamed by threads that read ahead; the same batches."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from pointnet.datasets import LabelledClouds
from pointnet.devices import free_memory

Batch = tuple[Tensor, Tensor]
AHEAD = 4  # batches that each thread reads before they are asked for


class ResidentLoader:
    """All clouds on the device: a batch is one gather there."""

    def __init__(self, data: LabelledClouds, device: torch.device):
        data.expect(torch.arange(len(data)))
        self.points, self.labels = (each.to(device) for each in data.batch(slice(None)))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """For each tensor of indices (B,): points (B, C, K), labels (B,)."""
        for rows in indices:
            yield self.points[rows], self.labels[rows]


class StreamedLoader:
    """Clouds stay where they are, perhaps in files or far away; so many threads read batches ahead of the step.

    They read what they are asked for and decide nothing, so their number changes no batch.
    """

    def __init__(self, data: LabelledClouds, device: torch.device, workers: int = 1):
        self.data, self.device, self.workers = data, device, workers

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """As of `ResidentLoader`. ValueError, naming the samples, where a batch could not be read."""
        wanted = [rows.cpu() for rows in indices]  # all at once: a copy at each step would wait for the device
        unread, reading = iter(wanted), deque[Future[Batch]]()
        if wanted:
            self.data.expect(torch.cat(wanted))
        threads = ThreadPoolExecutor(self.workers, "loader")
        try:
            for rows in wanted:
                while len(reading) < AHEAD * self.workers and (following := next(unread, None)) is not None:
                    reading.append(threads.submit(self._read, following))
                try:
                    points, labels = reading.popleft().result()
                except (OSError, RuntimeError, ValueError) as error:
                    raise ValueError(f"samples {rows.tolist()} could not be read: {error}") from error
                yield points.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        finally:
            threads.shutdown(cancel_futures=True)

    def _read(self, rows: Tensor) -> Batch:
        points, labels = self.data.batch(rows)
        # From pinned memory the copy to a GPU does not wait either.
        return (points.pin_memory(), labels.pin_memory()) if self.device.type == "cuda" else (points, labels)


Loader = ResidentLoader | StreamedLoader


def make_loader(data: LabelledClouds, device: torch.device, kind: str = "auto", workers: int = 1) -> Loader:
    """A loader: "resident", "stream" by so many threads, or "auto": resident where the clouds take at most half of the
    free memory."""
    if kind == "auto":
        size = len(data) * data.batch(torch.arange(1))[0].nbytes
        kind = "resident" if size <= free_memory(device) / 2 else "stream"
    return ResidentLoader(data, device) if kind == "resident" else StreamedLoader(data, device, workers)


def cut_batches(order: Tensor, batch_size: int, rank: int = 0, ranks: int = 1) -> Sequence[Tensor]:
    """`order` (S,) cut into even batches of about `batch_size`, and of each the share of one rank."""
    batches = order.tensor_split(count_batches(len(order), batch_size))
    return [batch.tensor_split(ranks)[rank] for batch in batches]


def cut_epoch(passes: Sequence[Tensor], batch_size: int, least: int, rank: int = 0, ranks: int = 1) -> list[Tensor]:
    """The batches of an epoch: those of the first pass (S,), and of further ones until there are `least`."""
    batches = [batch for order in passes for batch in cut_batches(order, batch_size, rank, ranks)]
    return batches[: count_steps(len(passes[0]), batch_size, least)]


def count_steps(samples: int, batch_size: int, least: int) -> int:
    """The steps of an epoch: a pass over the samples, repeated where it has fewer than `least` batches."""
    return max(count_batches(samples, batch_size), least)


def count_batches(samples: int, batch_size: int) -> int:
    """How many even batches of about `batch_size`, never of one cloud: batch norm cannot train on one."""
    return max(1, min(math.ceil(samples / batch_size), samples // 2))
