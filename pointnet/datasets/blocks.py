"""Rooms cut into blocks of a metre by a metre, one every half metre, as networks of scenes take them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointnet.points.frame import BLOCK

POINTS = 4096  # of a block, in the published data
CHANNEL_NAMES = ("x", "y", "z", "r", "g", "b", "x share", "y share", "z share")
CHANNELS = len(CHANNEL_NAMES)
SIDE, STRIDE = 1.0, 0.5  # of the blocks, in metres: a block is two by two cells
WIDEST = 1000  # metres; a wider room is probably not in metres


class Cells(NamedTuple):
    """Points by the square cells of `STRIDE` that they are in, row by row; a block is two by two cells."""

    order: NDArray[np.integer]  # (N,), the points
    starts: NDArray[np.int64]  # where in it those of each cell begin, and N
    across: int  # blocks in x
    along: int  # blocks in y

    @classmethod
    def of(cls, points: Any) -> Cells:
        """Of points (N, 3), an array or `Rows` of float32 from 0 upwards. They are looked at block by block."""
        blocks = range(0, len(points), BLOCK)
        widest = np.max([points[start : start + BLOCK][:, :2].max(0) for start in blocks], axis=0)
        across, along = np.maximum(np.ceil((widest - SIDE) / STRIDE).astype(int) + 1, 1).tolist()

        def cells_of(start: int) -> NDArray[np.int64]:
            at = (points[start : start + BLOCK][:, :2] / STRIDE).astype(int)
            return np.minimum(at, (across, along)) @ (along + 1, 1)

        counts = np.zeros((across + 1) * (along + 1), np.int64)
        for start in blocks:
            cells, held = np.unique(cells_of(start), return_counts=True)
            counts[cells] += held
        starts = np.append(0, counts.cumsum())
        order: NDArray[np.integer] = np.empty(len(points), np.int32 if len(points) < 2**31 else np.int64)
        free = starts.copy()
        for start in blocks:
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
        grid = np.diff(self.starts).reshape(self.across + 1, self.along + 1)
        return grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:]


def block_channels(
    points: NDArray[np.float32], colors: NDArray[np.float32], extent: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The nine channels of a block's points: (n, 3), (n, 3), and how far the room reaches (3,) -> (n, CHANNELS).

    The middle of a block is half a side beyond the least x and y of its points; z stays. Source: PointNet,
    sem_seg/indoor3d_util.py, room2blocks_plus_normalized (which takes the least of the points drawn, not of all).
    """
    middle = np.append(points[:, :2].min(0) + np.float32(SIDE / 2), np.float32(0))
    return np.hstack([points - middle, colors, points / np.where(extent > 0, extent, 1)], dtype=np.float32)
