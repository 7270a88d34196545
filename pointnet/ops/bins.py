"""Neighbourhoods of about as many points, together, so that what a ball query repeats is hardly computed.

A ball of fewer than K points repeats its first. No max notices, and in statistics it is one point that counts several
times. So the balls go into bins by how many points they have: those of a bin hold K' of their K points, and their first
counts for the K - K' that are left out too. Points count as rows of all clouds, one below the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .neighbours import of_all_clouds

BINS = 8  # of at most so many sizes; in the mean a sixteenth of K is then still computed again


class Bin(NamedTuple):
    """Neighbourhoods of K' points and how many more times the first of each counts."""

    neighbours: Tensor  # (B, G, K') rows of points
    more: int

    @property
    def size(self) -> int:
        """K'."""
        return self.neighbours.shape[2]

    @property
    def pairs(self) -> int:
        """How many pairs of a centre and a point count."""
        return self.neighbours.numel() // self.size * (self.size + self.more)


def binned(neighbours: Tensor, points: int) -> tuple[Tensor, list[Bin]]:
    """(B, S, K) of clouds of so many points -> an order of the B * S centres, and bins of rows of B * points, in which
    the centres come in this order. The points of a neighbourhood come first, then its first again. Waits for a GPU."""
    most = neighbours.shape[2]
    rows = of_all_clouds(neighbours, points)
    step = -(-most // BINS)
    of_bin = (rows != rows[:, :1]).sum(1) // step  # one less than how many, so that `step` of them are in bin 0
    order = of_bin.argsort(stable=True)
    some = zip(range(step, most + step, step), order.split(of_bin.bincount().tolist()), strict=False)
    return order, [Bin(rows[which, :size].unsqueeze(0), max(most - size, 0)) for size, which in some if len(which)]


SUMMED = 2048  # rows that are summed in their own type; the sums of more are added in float64


class Moments:
    """The mean of rows and the sum of squares about it, of rows that come a block at a time."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.means: list[Tensor] = []
        self.squares: list[Tensor] = []

    def add(self, rows: Tensor, times: int = 1) -> None:
        """Rows (R, D) that count so many times each."""
        for some in rows.split(SUMMED if rows.device.type == "cpu" else max(1, len(rows))):
            if rows.device.type == "cpu":  # two passes, in place of the slower one of `var_mean`
                mean, variance = torch.batch_norm_update_stats(some, None, None, 0.0)
            else:
                variance, mean = torch.var_mean(some, 0, correction=0)
            self.counts.append(times * len(some))
            self.means.append(mean)
            self.squares.append(variance * self.counts[-1])

    def of_all(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(D,) and (D,) in float64; 0 of no rows."""
        if not self.counts:
            zero = torch.zeros(width, dtype=torch.float64, device=device)
            return zero, zero.clone()
        return moments_of_all(self.counts, self.means, self.squares)


def moments_of_all(counts: Sequence[int], means: Sequence[Tensor], squares: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean (D,) of several lots of rows and the squares about it (D,) in float64, from those of each."""
    mean = torch.stack([*means]).double()
    count = torch.cat([mean.new_full((1, 1), each) for each in counts])  # of a list a GPU would be waited for
    overall = (count * mean).sum(0) / count.sum()
    return overall, torch.stack([*squares]).double().sum(0) + (count * (mean - overall).square()).sum(0)
