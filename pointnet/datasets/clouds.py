"""What every data set here is: labelled clouds of one size, held in memory, and how they are split and batched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset


class LabelledClouds(Dataset[tuple[Tensor, int]]):
    """S clouds of N points with a label each, resident in memory.

    Args:
        points: (S, C, N) float32; the first three channels are xyz in the library's frame (z up, right-handed).
        labels: (S,) int64, indices into `classes`.
        classes: the class names, in label order.

    `data[i]` gives ((C, N) float32, int); `data.points` and `data.labels` give everything at once,
    which is what a training loop that keeps its data on the device wants.
    """

    def __init__(self, points: Tensor, labels: Tensor, classes: Sequence[str]):
        if points.dim() != 3 or labels.shape != points.shape[:1]:
            raise ValueError(
                f"points must be (S, C, N) with labels (S,), got {tuple(points.shape)} and {tuple(labels.shape)}"
            )
        self.points = points
        self.labels = labels
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.points[index], int(self.labels[index])

    def subset(self, indices: Tensor) -> LabelledClouds:
        """The clouds at `indices` (K,), in that order, with the same classes."""
        return LabelledClouds(self.points[indices], self.labels[indices], self.classes)


def split_validation(data: LabelledClouds, seed: int, fraction: float = 0.1) -> tuple[LabelledClouds, LabelledClouds]:
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
