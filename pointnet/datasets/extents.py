"""How large clouds are whose units matter: a cloud in another unit than those of training is far smaller or larger."""

from __future__ import annotations

from typing import Any

import torch

from pointnet.points.features import Range
from pointnet.points.frame import bounds

from .clouds import LabelledClouds, spread

BATCH = 256  # clouds that are measured together
MOST_CLOUDS = 10_000  # of a set whose extents are looked at
UNLIKE = 2.0  # heights or extents this many times those of training, or less than one over it, get a note


def extent_of(points: Any) -> float:
    """The longest side of the bounding box of a cloud (N, 3), an array or `Rows`."""
    low, high = bounds(points)
    return float((high - low).max())


def extents_of(data: LabelledClouds) -> Range | None:
    """The smallest and the largest extent of clouds, as `data.extents` says, or from some of them where there are many;
    None where none is finite or has an extent."""
    if data.extents is not None:
        return data.extents
    some, sides = spread(data, MOST_CLOUDS), []
    for rows in torch.arange(len(some)).split(BATCH):
        points = some.batch(rows)[0][:, :3].double()
        sides.append((points.amax(2) - points.amin(2)).amax(1))
    side = torch.cat(sides)
    side = side[side.isfinite() & (side > 0)]
    return (float(side.min()), float(side.max())) if len(side) else None


def unlike_extents(taught: Range, found: Range | None) -> str | None:
    """A note on the smallest and the largest extent that was found, if one is far from those of training; else None."""
    if found is None:
        return None
    (least, most), (low, high) = taught, found
    if least <= UNLIKE * low and high <= UNLIKE * most:
        return None
    is_small = least > UNLIKE * low
    times = f"{least / low:,.0f} times smaller" if is_small else f"{high / most:,.0f} times larger"
    extent = f"extent is {low:.4g}" if low == high else f"extents are {low:.4g} to {high:.4g}"
    return f"{extent}, {times} than in training ({least:.4g} to {most:.4g}); is the unit the same?"
