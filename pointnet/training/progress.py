"""One epoch of a run: the order of its samples, the sums of its steps, and the bar that shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from pointnet.datasets import LabelledClouds

from .loader import Batch


def epoch_order(data: LabelledClouds, seed: int, epoch: int, passes: int = 1) -> Tensor:
    """The samples of an epoch, (passes * S,), by data, seed and epoch alone: the same for all processes and all other
    settings. So a run that is resumed within an epoch needs no more than how many steps were done."""
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return torch.cat([data.order(generator) for _ in range(passes)])


@dataclass
class Progress:
    """One epoch of S samples: its order, and the sums of a process's steps, on the device so that no step waits."""

    order: Tensor  # (passes * S,)
    broken: Tensor  # (S,) bool, samples with points that are not finite
    loss_sum: Tensor  # over labels
    right: Tensor  # labels predicted right
    seen: Tensor  # labels
    skipped: Tensor  # steps
    seconds: dict[str, float] = field(default_factory=dict)  # by part of the step
    position: int = 0  # steps done

    @classmethod
    def begin(cls, data: LabelledClouds, seed: int, epoch: int, device: torch.device, passes: int = 1) -> Progress:
        """An epoch of `data` in the order of `epoch_order`."""
        order = epoch_order(data, seed, epoch, passes)
        broken = torch.zeros(len(data), dtype=torch.bool, device=device)
        right, seen, skipped = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
        return cls(order.to(device), broken, torch.zeros((), device=device), right, seen, skipped)


def with_bar(batches: Iterator[Batch], total: int, title: str, progress: Progress | None = None) -> Iterator[Batch]:
    """The batches, with a bar on a terminal if it has a title. Figures of the progress wait for the device, twice a
    second."""
    hidden = None if title else True
    with tqdm(total=total, desc=title, unit=" clouds", leave=False, disable=hidden, mininterval=0.5) as bar:
        shown = time.monotonic()
        for points, labels in batches:
            yield points, labels
            bar.update(len(labels))
            if progress and not bar.disable and time.monotonic() - shown > 0.5:
                shown, seen = time.monotonic(), max(int(progress.seen), 1)
                loss, right = float(progress.loss_sum), int(progress.right)
                bar.set_postfix(loss=f"{loss / seen:.3f}", accuracy=f"{right / seen:.1%}")
