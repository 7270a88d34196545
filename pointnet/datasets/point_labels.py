"""How labels of points are stored: as the last channel of a cloud, so that what chooses points chooses their labels."""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

UNLABELLED = 2**24 - 1  # as the label of a stored point: it has none; float32 holds every whole number up to it
IGNORED = -100  # as its label in a batch: the `ignore_index` of PyTorch's losses
LEAST_LABELLED = 8  # an eighth of the points of a cloud, where so many have a label


def split_parts(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of `LabelledPoints` (B, C + 1, N) -> points (B, C, N), parts (B, N) int64, own (B, N) bool.

    A part is -100 where a point has none. `own` is False on repeated (padding) points. Evaluation that counts every
    point of a cloud once runs on all K and counts the own ones: in eval mode a repeated point changes no other's
    prediction where points meet in a max alone. It does in a mean, and among nearest neighbours, whose places it takes.
    """
    stored = batch[..., -1, :].long()
    own = stored >= 0
    parts = torch.where(own, stored, -1 - stored)
    return batch[..., :-1, :], parts.where(parts != UNLABELLED, IGNORED), own


def draw_labelled(
    channels: NDArray[np.floating], labels: NDArray[np.integer], count: int, generator: Generator
) -> NDArray[np.float32]:
    """A cloud's n points (n, C) and their labels (n,), as `LabelledPoints` has them: -> (C + 1, count).

    In random order, so that the first of them are a fair sample; no point is repeated before all are in. Of a cloud in
    which few points have a label so many of these stand in for others that an eighth of those drawn have one.
    """
    there = len(channels)
    rows = np.concatenate([generator.permutation(there) for _ in range(-(-count // there))])
    has = labels[rows[:there]] != UNLABELLED
    late, free = np.flatnonzero(has[count:]) + count, np.flatnonzero(~has[:count])
    missing = min(max(count // LEAST_LABELLED - int(has[:count].sum()), 0), len(late), len(free))
    places = free[np.linspace(0, len(free) - 1, missing).astype(int)]
    rows[places], rows[late[:missing]] = rows[late[:missing]], rows[places]
    rows = rows[:count]
    drawn = np.empty((channels.shape[1] + 1, count), np.float32)
    drawn[:-1] = channels[rows].T
    drawn[-1] = np.where(np.arange(count) < there, labels[rows], -1 - labels[rows])
    return drawn
