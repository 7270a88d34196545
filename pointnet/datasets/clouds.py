"""What every data set here is: labelled clouds of one size, held in memory, and how they are split and batched."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .readers import PointCloudFileError

Clouds = TypeVar("Clouds", bound="LabelledClouds")


class LabelledClouds(Dataset[tuple[Tensor, int]]):
    """S clouds of N points with a label each.

    Args:
        points: (S, C, K) float32, in memory or memory-mapped; the first three channels are xyz in the library's frame
            (z up, right-handed). K may be more than N: points to draw from afresh in training.
        labels: (S,) int64, indices into `classes`.
        classes: the class names, in label order.
        num_points: N; None for K.

    `data[i]` gives ((C, N) float32, int), always the first N points. `data.points` and `data.labels` give everything at
    once, `data.batch(indices)` some of it, with all K. `data.bad` lists the files that could not be read.
    """

    def __init__(self, points: Tensor, labels: Tensor, classes: Sequence[str], num_points: int | None = None):
        if points.dim() != 3 or labels.shape != points.shape[:1]:
            raise ValueError(
                f"points must be (S, C, K) with labels (S,), got {tuple(points.shape)} and {tuple(labels.shape)}"
            )
        self.num_points = points.shape[2] if num_points is None else num_points
        if not 1 <= self.num_points <= points.shape[2]:
            raise ValueError(f"num_points must be 1 to {points.shape[2]}, got {num_points}")
        self.labels = labels
        self.classes = tuple(classes)
        self.bad: list[PointCloudFileError] = []
        self._stored = points
        self._rows: Tensor | None = None  # of the stored clouds, those that are here; None for all

    @property
    def points(self) -> Tensor:
        """(S, C, K)."""
        return self._stored if self._rows is None else self._stored[self._rows]

    @property
    def channels(self) -> int:
        """C."""
        return self._stored.shape[1]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = index if self._rows is None else int(self._rows[index])
        return self._stored[row][:, : self.num_points], int(self.labels[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The clouds at `indices` (B,), with all their points, and their labels: (B, C, K), (B,)."""
        return self._stored[indices if self._rows is None else self._rows[indices]], self.labels[indices]

    def subset(self: Clouds, indices: Tensor) -> Clouds:
        """The clouds at `indices` (S',), in that order, with the same classes; nothing is copied."""
        chosen = copy.copy(self)
        chosen._rows = indices if self._rows is None else self._rows[indices]
        chosen.labels = self.labels[indices]
        return chosen


def split_validation(data: Clouds, seed: int, fraction: float = 0.1) -> tuple[Clouds, Clouds]:
    """Carves a validation part out of a training set, class by class: -> (train, validation).

    Each class gives `fraction` of its clouds, rounded, and never its last one. The same seed gives the same split.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), got {fraction}")
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique().tolist():
        members = (data.labels == label).nonzero().squeeze(1)
        count = min(round(len(members) * fraction), len(members) - 1)
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return data.subset((~held_out).nonzero().squeeze(1)), data.subset(held_out.nonzero().squeeze(1))


def spread(data: Clouds, count: int) -> Clouds:
    """About `count` clouds, of as many classes as that allows; all of them where there are no more."""
    by_class = data.labels.argsort(stable=True)
    return data.subset(by_class[torch.linspace(0, len(data) - 1, min(count, len(data))).round().long()])


def pad_clouds(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clouds of different sizes as one batch: B tensors (C, N_b) -> points (B, C, max N_b), lengths (B,).

    This is where lengths are checked: a model trusts them, so that its forward never waits for the device.

    Raises:
        ValueError: no clouds, an empty one, or clouds that differ in channels.
    """
    if not clouds:
        raise ValueError("a batch needs at least one cloud, got none")
    for i, cloud in enumerate(clouds):
        if cloud.dim() != 2 or cloud.shape[0] != clouds[0].shape[0] or cloud.shape[1] == 0:
            wanted = clouds[0].shape[0] if clouds[0].dim() == 2 else "C"
            raise ValueError(f"cloud {i} must be ({wanted}, N) with N >= 1, got {tuple(cloud.shape)}")
    lengths = torch.tensor([cloud.shape[1] for cloud in clouds], device=clouds[0].device)
    points = clouds[0].new_zeros(len(clouds), clouds[0].shape[0], int(lengths.max()))
    for row, cloud in zip(points, clouds, strict=True):
        row[:, : cloud.shape[1]] = cloud
    return points, lengths
