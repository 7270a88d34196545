"""Scenes cut into square blocks, one every half side, as networks of scenes take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pointnet.points.formats.contents import BLOCK, blocks_of_rows
from pointnet.points.frame import MOST_STRAY, bounds

from .point_labels import draw_labelled

POINTS = 4096  # of a block, in the published data
CHANNEL_NAMES = ("x", "y", "z", "r", "g", "b", "x share", "y share", "z share")
CHANNELS = len(CHANNEL_NAMES)
SIDE, STRIDE = 1.0, 0.5  # of the published blocks, in metres: a block is two by two cells
WIDEST = 1000  # blocks; a wider scene is probably in another unit
SOME, ENDS = 4096, (0.01, 0.99)  # points that tell how far a scene reaches, but for those at its ends
FLOOR_GAP = 0.1  # of a scene's height, or of a block: an empty gap of that size tells stray points from a floor
FEWEST = 100  # points; a block of fewer is dropped
MOST_COUNTED = 1_000_000  # points, evenly spaced, that tell how many blocks have few
LOWEST = 0.05  # of a block's points are below its ground
MOST_GROUNDS = 256  # blocks, about, whose ground is looked at in a large scene
MOST_ON_GROUNDS = 2**18  # points, about, that tell it
SPECK = 0.05  # of a block's side: a narrower scene is probably in another unit
MESH_POINTS = 100_000  # drawn from the mesh of a scene


class Cells(NamedTuple):
    """Points by the square cells of half a block's side that they are in, row by row; a block is two by two cells."""

    order: NDArray[np.integer]  # (N,), the points
    starts: NDArray[np.int64]  # where in it those of each cell begin, and N
    across: int  # blocks in x
    along: int  # blocks in y

    @classmethod
    def of(cls, points: Any, side: float = SIDE) -> Cells:
        """Of points (N, 3), an array or `Rows` of float32 from 0 upwards. They are looked at block by block."""
        starts_of_blocks, stride = range(0, len(points), BLOCK), side / 2
        widest = np.max([block[:, :2].max(0) for block in blocks_of_rows(points)], axis=0)
        across, along = np.maximum(np.ceil((widest - side) / stride).astype(int) + 1, 1).tolist()

        def cells_of(start: int) -> NDArray[np.int64]:
            at = (points[start : start + BLOCK][:, :2] / stride).astype(int)
            return np.minimum(at, (across, along)) @ (along + 1, 1)

        counts = np.zeros((across + 1) * (along + 1), np.int64)
        for start in starts_of_blocks:
            cells, held = np.unique(cells_of(start), return_counts=True)
            counts[cells] += held
        starts = np.append(0, counts.cumsum())
        order: NDArray[np.integer] = np.empty(len(points), np.int32 if len(points) < 2**31 else np.int64)
        free = starts.copy()
        for start in starts_of_blocks:
            of_points = cells_of(start)
            by_cell = np.argsort(of_points, kind="stable")
            cells, first, held = np.unique(of_points[by_cell], return_index=True, return_counts=True)
            order[np.arange(len(by_cell)) + np.repeat(free[cells] - first, held)] = start + by_cell
            free[cells] += held
        return cls(order, starts, across, along)

    def row(self, i: int) -> int:
        """Where in the order the points of a row of cells begin."""
        return int(self.starts[i * (self.along + 1)])

    def block(self, i: int, j: int) -> list[slice]:
        """Where in the order the points of a block are."""
        cells = (i * (self.along + 1) + j, (i + 1) * (self.along + 1) + j)
        return [slice(int(self.starts[cell]), int(self.starts[cell + 2])) for cell in cells]

    def counts(self) -> NDArray[np.int64]:
        """(across, along), how many points each block has."""
        grid = self.grid()
        return grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:]

    def grid(self) -> NDArray[np.int64]:
        """(across + 1, along + 1), how many points each cell has."""
        return np.diff(self.starts).reshape(self.across + 1, self.along + 1)


def check_extent(points: Any, extent: NDArray[np.floating], side: float, hint: str) -> None:
    """Raises ValueError where a scene is wider than `WIDEST` blocks: its message ends with how many of its points
    (N, 3), an array or `Rows`, are far from all others, or, where those are not few, with the hint."""
    if extent.max() > WIDEST * side:
        got, size = f"{extent.max() / side:,.0f} of them", len(points)
        middle = np.median(points[:: size // BLOCK + 1], axis=0)
        far = sum(int((np.abs(block - middle) > WIDEST * side / 2).any(1).sum()) for block in blocks_of_rows(points))
        if far <= max(1, MOST_STRAY * size):
            hint = f"{_points_are(far)} far from the other {size - far:,}: leave out what is stray"
        raise ValueError(f"must be at most {WIDEST:,} blocks of {side:g} wide, got {got}; {hint}")


class Heights(NamedTuple):
    """How far the points of a scene are above its floor: the lowest, but for a few below an empty gap. A network knows
    no other height: where the ground rises, it takes what stands there for something high."""

    floor: float  # its z
    half: float  # half of the points are below it
    top: float  # 99 % are below it
    stray: str | None  # how many are below it, and how far; None if none are
    grounds: NDArray[np.float64] = np.empty(0)  # of some blocks: 5 % of a block's points are below its own; if measured

    @classmethod
    def of(cls, points: Any, side: float) -> Heights:
        """Of points (N, 3), z up, an array or `Rows`, that are cut into blocks of this side."""
        low, size = _lowest(points), len(points)
        some = np.sort(np.asarray(points[:: size // SOME + 1][:, 2], np.float64))
        top = some[round(ENDS[1] * (len(some) - 1))]
        apart = np.flatnonzero(np.diff(low) > FLOOR_GAP * max(top - low[-1], side))
        count = 0 if not len(apart) or size < FEWEST else int(apart[-1]) + 1
        floor, stray = low[count], None
        if count:
            reach = f"{floor - low[0]:.3g}" if count == 1 else f"up to {floor - low[0]:.3g}"
            stray = f"{_points_are(count)} {reach} below the other {size - count:,}"
        return cls(float(floor), float(some[len(some) // 2] - floor), float(top - floor), stray)


def frame_of_scene(points: Any, side: float, shares: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Where the channels of a scene count from, (3,): its least x and y, and its floor (`Heights`), in S3DIS's channels
    (`shares`) its least z, as published; and how far it reaches from there, (3,).

    Of points (N, 3), z up, an array or `Rows`, that are cut into blocks of this side.
    """
    low, high = (np.asarray(end, np.float64) for end in bounds(points))
    low = low if shares else np.append(low[:2], Heights.of(points, side).floor)
    return low, (high - low).astype(np.float32)


def said_of_stray(heights: Heights, shares: bool = False) -> str | None:
    """A note on the points below a scene's floor, and on what the network's heights count from; None if there are
    none."""
    of_these = ", and heights count from there" if shares else "; heights count from these"
    return heights.stray and heights.stray + of_these


def _lowest(points: Any) -> NDArray[np.float64]:
    """The least z of points (N, 3), an array or `Rows`, ascending: of one more than may be stray."""
    most = min(max(1, int(MOST_STRAY * len(points))), BLOCK) + 1
    low = np.empty(0)
    for block in blocks_of_rows(points):
        low = np.append(low, np.asarray(block[:, 2], np.float64))
        low = np.partition(low, most - 1)[:most] if len(low) > most else low
    return np.sort(low)


def far_outside(points: Any, side: float, shares: bool) -> str | None:
    """A note if a few points of a scene (N, 3), z up, an array or `Rows`, are above or beside all others, beyond an
    empty gap that is wider than the extent of these; else None.

    Args:
        side: of a block, the least width of a gap.
        shares: the network sees places as shares of the scene's sides: along each it is a gap if it is wider than the
            others reach there; else it must be wider than they reach along any, as a power line over a field is none.
    """
    size = len(points)
    low, high = np.quantile(np.asarray(points[:: size // SOME + 1], np.float64), ENDS, axis=0)
    gap = np.maximum(high - low if shares else np.full(3, (high - low).max()), side)
    least, most = bounds(points)
    if (least[:2] >= (low - gap)[:2]).all() and (most <= high + gap).all():
        return None
    few, inner = min(max(1, int(MOST_STRAY * size)), BLOCK), dict[tuple[int, int], float]()
    for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1), (2, 1)):  # not below: `Heights` has those
        outermost = np.empty(0)
        for block in blocks_of_rows(points):
            outermost = np.append(outermost, sign * np.asarray(block[:, axis], np.float64))
            outermost = np.sort(outermost)[-few - 1 :]
        if len(apart := np.flatnonzero(np.diff(outermost) > gap[axis])):
            inner[axis, sign] = outermost[apart[0]]
    count = 0
    for block in blocks_of_rows(points):
        rows = np.asarray(block, np.float64)
        is_far = np.zeros(len(rows), bool)
        for (axis, sign), last in inner.items():
            is_far |= sign * rows[:, axis] > last
        count += int(is_far.sum())
    if not 0 < count <= few:
        return None
    where = " or ".join(["above"] * ((2, 1) in inner) + ["beside"] * (len(inner) > ((2, 1) in inner)))
    counted = "; places in the room are shares of its sides, which reach to there" if shares else ""
    return f"{_points_are(count)} far {where} the other {size - count:,}{counted}"


def speck(width: float, side: float) -> str | None:
    """A note on a scene of this width that is far narrower than a block; else None."""
    return f"it is {width:.2g} wide, and a block {side:g}: is it in another unit?" if width < SPECK * side else None


def sparse(points: Any, side: float) -> str | None:
    """A note on a scene (N, 3), z up, an array or `Rows`, that is far narrower than a block of this side, or that has
    most of its points in squares of this side with fewer than `FEWEST`, as blocks of training have none; else None.

    Of more than `MOST_COUNTED` points it counts every second, third or so.
    """
    low, high = (each[:2] for each in bounds(points))
    extent, stride = high - low, -(-len(points) // MOST_COUNTED)
    if (note := speck(float(extent.max()), side)) or extent.max() > WIDEST * side:  # `check_extent` refuses it
        return note
    places = ((points[::stride][:, :2] - low) / side).astype(np.int64) @ (int(extent[1] / side) + 1, 1)
    counts = np.unique(places, return_counts=True)[1]
    if 2 * counts[counts * stride < FEWEST].sum() <= len(places):
        return None
    return f"most of its points are in blocks of {side:g} with fewer than {FEWEST} points, as were none of training"


def grounds_of(points: Any, side: float, floor: float) -> NDArray[np.float64]:
    """`Heights.grounds` of a scene (N, 3), z up, an array or `Rows`: of squares of this side with enough points."""
    low, high = bounds(points)
    across, along = (int(each) + 1 for each in ((high - low) / side)[:2])
    # Of many squares one in so many, at random; then of many points one in so many.
    skip = max(1, min(len(points) // MOST_ON_GROUNDS, across * along // MOST_GROUNDS))
    stride, looked_at = -(-len(points) // (skip * MOST_ON_GROUNDS)), np.random.default_rng(0).permutation(skip)
    squares, heights = list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    for block in blocks_of_rows(points):
        rows = np.asarray(block[::stride], np.float64)
        i, j = ((rows - low)[:, :2] / side).astype(np.int64).T
        chosen = (i + looked_at[j % skip]) % skip == 0
        squares.append((i * along + j)[chosen])
        heights.append(rows[chosen, 2] - floor)
    square, height = np.concatenate(squares), np.concatenate(heights)
    order = np.lexsort((height, square))
    _, starts, counts = np.unique(square[order], return_index=True, return_counts=True)
    enough = (counts * stride >= FEWEST) & (counts * LOWEST >= 1)
    found: NDArray[np.float64] = height[order[(starts + LOWEST * counts).astype(np.int64)[enough]]]
    return found


def _points_are(count: int) -> str:
    return f"{count:,} {'point is' if count == 1 else 'points are'}"


def block_channels(
    points: NDArray[np.float32],
    features: NDArray[np.float32],
    extent: NDArray[np.float32],
    side: float = SIDE,
    shares: bool = True,
) -> NDArray[np.float32]:
    """The channels of a block's points: (n, 3), (n, F), how far the scene reaches (3,) -> (n, 3 + F, or 6 + F).

    x and y are from the middle of the block, z from where `frame_of_scene` has it, in sides of a block; then the
    features; then x, y and z as shares of the scene's extent, if these are wanted. With colours these are the published
    nine.

    The middle of a block is half a side beyond the least x and y of its points; z stays. Source: PointNet,
    sem_seg/indoor3d_util.py, room2blocks_plus_normalized (which takes the least of the points drawn, not of all).
    """
    middle = np.append(points[:, :2].min(0) + np.float32(side / 2), np.float32(0))
    of_scene = [points / np.where(extent > 0, extent, 1)] if shares else []
    return np.hstack([(points - middle) / np.float32(side), features, *of_scene], dtype=np.float32)


def cut_blocks(
    points: Any,
    features: Callable[[NDArray[np.integer]], NDArray[np.float32]],
    labels: NDArray[np.int64],
    cells: Cells,
    corners: NDArray[np.integer],
    shape: tuple[int, int],
    generator: Generator,
    **how: Any,
) -> NDArray[np.float32]:
    """The blocks at these corners (n, 2) as `LabelledPoints` has them: -> (n, *shape), shape (C + 1, K).

    Args:
        points: (N, 3) from 0 upwards, an array or `Rows`.
        features: gives those of rows of the points.
        how: the extent, and what else `block_channels` takes.
    """
    blocks = np.empty((len(corners), *shape), np.float32)
    for block, (i, j) in zip(blocks, corners, strict=True):
        rows = np.concatenate([cells.order[part] for part in cells.block(i, j)])
        channels = block_channels(points[rows], features(rows), **how)
        block[:] = draw_labelled(channels, labels[rows], shape[1], generator)
    return blocks


def held_out_scenes(of_block: Tensor, seed: int, fraction: float) -> Tensor:
    """(S,) bool, the blocks of some scenes, never of all, given the scene of each (S,): blocks of one overlap."""
    scenes = of_block.unique()
    count = min(max(round(len(scenes) * fraction), fraction > 0), len(scenes) - 1)
    chosen = torch.randperm(len(scenes), generator=torch.Generator().manual_seed(seed))[:count]
    return torch.isin(of_block, scenes[chosen])


def first_blocks(of_block: Tensor) -> Tensor:
    """(S,) the first block of each block's scene, an index, given the scene of each (S,)."""
    first = {scene: i for i, scene in reversed([*enumerate(of_block.tolist())])}
    return torch.tensor([first[scene] for scene in of_block.tolist()], dtype=torch.int64)
