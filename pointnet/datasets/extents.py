"""How large clouds are whose units matter, how far from the origin where they are not centred, and how bright. In
another unit or frame, or in other light, they are unlike those of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointnet.points.features import SOME_POINTS, Range
from pointnet.points.formats.names import COLUMNS
from pointnet.points.frame import bounds

from .blocks import LOWEST, Heights
from .clouds import BLOCKS, IN_BLOCKS, LabelledClouds, spread

BATCH = 256  # clouds that are measured together
MOST_CLOUDS = 10_000  # of a set whose extents are looked at
SOME_COLOURED = 512  # whose colours are
HALF_OFF = 0.6  # share of the height of training: if half of the points are higher or lower by it, a note says so
RAISED = 0.25  # of a scene's blocks have their ground above that of training by `SLACK` of the height: a note says so
SLACK = 0.1
UNLIKE = 2.0  # heights or extents this many times those of training, or less than one over it, get a note


def place_of(points: Any) -> tuple[Range, float]:
    """Of a cloud (N, 3), an array or `Rows`, the longest side of the bounding box, twice, as of `extents_of` a single
    cloud; and how far the middle of that box is from the origin."""
    low, high = bounds(points)
    side = float((high - low).max())
    return (side, side), float((((low + high) / 2) ** 2).sum() ** 0.5)


def extents_of(data: LabelledClouds) -> Range | None:
    """The smallest and the largest extent of clouds, as `data.extents` says, or from some of them where there are many;
    None where none is finite or has an extent."""
    if data.extents is not None:
        return data.extents
    low, high = _boxes(data)
    side = (high - low).amax(1)
    side = side[side.isfinite() & (side > 0)]
    return (float(side.min()), float(side.max())) if len(side) else None


def reach_of(data: LabelledClouds) -> float | None:
    """How far from the origin the middle of a cloud is at most, as `data.reach` says, or from some of the clouds where
    there are many; None where none is finite."""
    if data.reach is not None:
        return data.reach
    low, high = _boxes(data)
    far = ((low + high) / 2).norm(dim=1)
    far = far[far.isfinite()]
    return float(far.max()) if len(far) else None


def brightness_of(data: LabelledClouds) -> Range | None:
    """The least and the greatest mean colour, from 0 to 1, as `data.colors` says, or of clouds, of scenes of all their
    blocks, or of some where there are many; None where they have no colours, or a set that is not at hand has not said
    so."""
    if data.colors is not None or not data.is_at_hand:
        return data.colors
    names = data.channel_names or ()
    if not (places := [names.index(name) for name in COLUMNS["colors"] if name in names]) or not len(data):
        return None
    some = spread(data, SOME_COLOURED)
    batches = (some.batch(rows)[0][:, places].double() for rows in torch.arange(len(some)).split(BATCH))
    means = torch.cat([colors.mean((1, 2)) for colors in batches])
    if data.scale in (IN_BLOCKS, BLOCKS):
        means = torch.stack([means[some.labels == scene].mean() for scene in some.labels.unique()])
    means = means[means.isfinite()]
    return (float(means.min()), float(means.max())) if len(means) else None


def unlike_colors(taught: Range | None, found: Range | None) -> str | None:
    """A note on the least and the greatest mean colour that were found, if one is far darker or brighter than those of
    training; else None."""
    if taught is None or found is None:
        return None
    (dark, bright), (low, high) = taught, found
    sides = ["darker"] * (low < dark / UNLIKE) + ["brighter"] * (1 - high < (1 - bright) / UNLIKE)
    how = " and ".join(sides) or None
    means = f"the mean colour is {low:.2g}" if low == high else f"mean colours are {low:.2g} to {high:.2g}"
    return how and f"{means} of 1, {how} than in training ({dark:.2g} to {bright:.2g})"


def _boxes(data: LabelledClouds) -> tuple[Tensor, Tensor]:
    """The lowest and the highest coordinates (S, 3) of clouds, of some of them where there are many."""
    some, low, high = spread(data, MOST_CLOUDS), list[Tensor](), list[Tensor]()
    for rows in torch.arange(len(some)).split(BATCH):
        points = some.batch(rows)[0][:, :3].double()
        low.append(points.amin(2))
        high.append(points.amax(2))
    return torch.cat(low), torch.cat(high)


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


def unlike_place(taught: Range, reach: float | None, extents: Range | None, far: float | None) -> str | None:
    """A note on the extents that were found, or on how far from the origin: if one is far from those of training."""
    note = unlike_extents(taught, extents)
    if note or reach is None or far is None or far <= UNLIKE * (reach + taught[1]):
        return note
    return f"it lies {far:.4g} from the origin, in training at most {reach:.4g}; is the origin the same?"


def unlike_heights(usual: Range, found: Heights) -> str | None:
    """A note on a scene if its heights are far from those of training, below which half and 99 % of the points were."""
    half, top = usual
    if not 1 / UNLIKE <= found.top / top <= UNLIKE:
        return f"heights are 0 to {found.top:.3g}, and were usually 0 to {top:.3g} in training"
    if abs(found.half - half) > HALF_OFF * top:
        were = f"in training usually below {half:.3g}; is z up?"
        return f"half of the points are below a height of {found.half:.3g}, {were}"
    return None


def raised_ground(usual: float, found: Heights) -> str | None:
    """A note on a scene if the ground of many of its blocks is higher above the floor than that of nearly all blocks of
    training."""
    above = found.grounds[found.grounds > usual + SLACK * found.top]
    if len(above) <= RAISED * len(found.grounds):
        return None
    low, high = np.quantile(above, (0.05, 0.95))
    where = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    share, why = len(above) / len(found.grounds), "a slope, a ditch, noise or z down?"
    return f"in {share:.0%} of its blocks the ground is {where} above the floor, in training at most {usual:.2g}; {why}"


def heights_of_scenes(data: LabelledClouds, most: int | None = None) -> dict[int, Heights]:
    """The heights of scenes, at most so many, by their label, from some points of each of their blocks."""
    scenes = data.labels.unique()
    if most is not None and len(scenes) > most:
        scenes = scenes[torch.linspace(0, len(scenes) - 1, most).round().long()]
    found = dict[int, Heights]()
    for scene in scenes.tolist():
        rows = (data.labels == scene).nonzero()[:, 0]
        blocks = data.points[rows, :3, :SOME_POINTS].double() * data.block
        points = blocks.transpose(1, 2).flatten(0, 1)
        if len(points := points[points.isfinite().all(1)]):
            heights = Heights.of(points.numpy(), data.block)
            grounds = blocks[:, 2].sort(1).values[:, int(LOWEST * blocks.shape[2])]
            found[scene] = heights._replace(grounds=grounds[grounds.isfinite()].numpy())
    return found
