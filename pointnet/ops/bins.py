"""Neighbourhoods of about as many points, together, so that what a ball query repeats is hardly computed.

A ball of fewer than K points repeats its first. No max notices, and in statistics it is one point that counts several
times. So the balls go into bins by how many points they have: those of a bin hold K' of their K points, and their first
counts for the K - K' that are left out too. Points count as rows of all clouds, one below the other.
"""

from typing import NamedTuple

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
    """(B, S, K) of clouds of so many points -> an order of the B * S centres, and bins that hold them in it.

    In a neighbourhood its different points come first, then the first of them repeats. Waits for a GPU.
    """
    most = neighbours.shape[2]
    rows = of_all_clouds(neighbours, points)
    step = -(-most // BINS)
    of_bin = (rows != rows[:, :1]).sum(1) // step  # one less than how many, so that `step` of them are in bin 0
    order = of_bin.argsort(stable=True)
    some = zip(range(step, most + step, step), order.split(of_bin.bincount().tolist()), strict=False)
    return order, [Bin(rows[which, :size].unsqueeze(0), max(most - size, 0)) for size, which in some if len(which)]
