"""What is known of the columns of a table by their numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .contents import Array
from .values import FULL

SOME_ROWS = 10_000  # evenly spaced; how many different values a column has is counted in these
BLOCK = 1 << 14  # rows looked at together
FEW = 64  # different labels in a cloud, at most; whole numbers to this are labels too if any occurs twice,
SMALL = 20  # and to this if none does; colours are larger
IGNORED = -100  # a label that some give to points without one


class Column(NamedTuple):
    """What is known of a column by its finite numbers in rows with finite coordinates."""

    low: float
    high: float
    whole: bool  # all are whole numbers
    values: int  # how many different ones there are in some rows
    rows: int  # how many rows those are
    rises: bool  # from row to row, or stays; not the same in all

    @property
    def is_label(self) -> bool:
        """Whether it has whole numbers from -1 on, few different or small ones; -100 may be one of the few."""
        most, is_few = SMALL if self.values == self.rows else FEW, self.values <= min(FEW, self.rows / 4)
        return self.whole and (is_few if self.low == IGNORED else self.low >= -1 and (self.high <= most or is_few))

    @property
    def is_small(self) -> bool:
        """Whether it has small numbers, some of them twice, as counts and labels are."""
        return self.whole and self.low >= 0 and self.high <= SMALL and self.values < self.rows

    @property
    def is_intensity(self) -> bool:
        """Whether it may be an intensity, and no time."""
        return -65536 < self.low <= self.high < 65536

    @property
    def is_measure(self) -> bool:
        """Whether it may be an intensity, and no count either."""
        return self.is_intensity and not self.rises and not self.is_small

    @property
    def is_full(self) -> bool:
        """Whether it may be the opacity of a colour: the same largest value in every row."""
        return self.low == self.high and self.high in FULL

    @property
    def is_no_color(self) -> bool:
        """Whether it is rather a label or an opacity behind colours of its kind."""
        return self.is_label or self.is_full


def columns_of(rows: Array) -> list[Column]:
    low, high, whole = np.full(rows.shape[1], np.inf), np.full(rows.shape[1], -np.inf), np.full(rows.shape[1], True)
    last, rises = high, whole.copy()
    for start in range(0, len(rows), BLOCK):
        block = finite_columns(rows[start : start + BLOCK])
        low = np.fmin(low, np.fmin.reduce(block, axis=1, initial=np.inf))
        high = np.fmax(high, np.fmax.reduce(block, axis=1, initial=-np.inf))
        whole &= ((block == np.rint(block)) | np.isnan(block)).all(1)
        if block.shape[1]:
            rises &= (block[:, 1:] >= block[:, :-1]).all(1) & ~(last > block[:, 0])
            last = block[:, -1]
    some = finite_columns(rows[:: len(rows) // SOME_ROWS + 1])
    values = [_different(column[~np.isnan(column)]) for column in some]
    rises &= low < high
    found = zip(low.tolist(), high.tolist(), whole.tolist(), values, rises.tolist(), strict=True)
    return [Column(*each[:4], some.shape[1], each[4]) for each in found]


def has_few(column: Array) -> bool:
    """Whether a column has few different numbers, as far as some rows tell."""
    some = column[:: len(column) // SOME_ROWS + 1]
    return _different(some[some == some]) <= FEW


def _different(column: Array) -> int:
    """How many different numbers there are; `np.unique` would load numpy.ma."""
    ordered = np.sort(column)
    return int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered))


def finite_columns(rows: Array) -> NDArray[np.float64]:
    """A copy of the columns (K, n), of rows with finite coordinates; what else is not finite is NaN."""
    columns = np.array(rows.T, np.float64, order="C")
    finite = np.isfinite(columns)
    if not finite.all():
        columns[~finite] = np.nan
        columns = columns[:, finite[:3].all(0)]
    return columns


def highest(columns: Sequence[Column]) -> float:
    return max(column.high for column in columns)
