"""What the columns of a table without names are, by their numbers: the one place for these rules."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Refusal
from .contents import EXTRAS, Array, Extras
from .names import COLUMNS, FLAG, MOST_ROWS, SKIPPED
from .values import FULL

SOME_ROWS = 10_000  # evenly spaced; how many different values a column has is counted in these
BLOCK = 1 << 14  # rows looked at together
FEW = 64  # different labels in a cloud, at most; whole numbers to this are labels too if any occurs twice,
SMALL = 20  # and to this if none does; colours are larger
IGNORED = -100  # a label that some give to points without one
MOST_BESIDE = 8  # columns of one kind that may be colours and more; of more they are some features
MOST_RETURNS = 15  # of one pulse of a scanner
FARTHEST = 1e8  # more than any coordinate; times since 1970 or 1980 are beyond
ENOUGH = 6  # columns that tell which are x y z
RETURN = "return"  # in names: the number of a return, or of returns, which is skipped


class Recognised(NamedTuple):
    """What the columns of a table are, as for `from_table`; whether a wanted one was guessed."""

    names: list[str]
    is_guess: bool


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


def _are_bytes(three: Sequence[Column]) -> bool:
    return all(c.whole and c.low >= 0 and c.high <= 255 for c in three) and _highest(three) > 1 and not _count(three)


def _are_words(three: Sequence[Column]) -> bool:
    return all(c.whole and c.low >= 0 and c.high <= 65535 for c in three) and not _count(three)


def _count(three: Sequence[Column]) -> bool:
    """Whether the last two are small numbers, such as that of a return and a label, but not both zero."""
    return all(c.is_small for c in three[1:]) and _highest(three[1:]) > 0


# What three columns side by side must be to be colours, the surest first, and whether nothing else is likely.
KINDS: tuple[tuple[Callable[[Sequence[Column]], bool], bool], ...] = (
    (_are_bytes, True),
    (lambda three: all(c.low >= 0 and c.high <= 1 for c in three), True),
    (_are_words, False),
    (lambda three: all(c.low >= 0 and c.high <= 255 and (not c.whole or c.low == c.high) for c in three), False),
)


def recognised(rows: Array, extras: Extras = EXTRAS, is_pts: bool = False) -> Recognised:
    """The names of the columns of a table without names (N, K), by the numbers of all its rows.

    Columns 0 to 2 are x y z, unless some precede x (`_before_x`). Then, side by side:

    1. nx ny nz: the first three that have length 1 (a minority may be 0), but not `_are_pure` colours.
    2. Two that are the numbers of returns (`_are_returns`) are skipped.
    3. r g b: the first three of the surest kind that is there: whole numbers to 255; numbers to 1; whole numbers to
       65535; numbers to 255 that are not whole; none whose last two are small numbers (`_count`). Of four of a kind
       those three that are correlated clearly better. If neither are, they are intensity r g b; but where the last may
       be a label (`Column.is_label`), r g b label if it has few numbers, and nothing speaks for an intensity in front,
       else they are refused. Of five or more a label is the fourth, or the fifth behind an intensity; or they are
       threes: the first counts; others of more than eight are no colours.
    4. The column before r g b or the returns is an intensity, or a label of small numbers. One behind r g b that is the
       same, and full, in all rows is the opacity. A column of 1 and no other is skipped.
    5. One or two that are left are a label, an intensity, both, or a label and an instance, which is skipped; of more,
       without colours, the first is an intensity and the last a label, if the others are labels or times.

    Raises:
        Refusal: fewer than 3 columns; it is not clear which is x, or which are colours, if they are wanted.
    """
    width = rows.shape[1]
    if width < 3:
        raise Refusal(f"must have at least 3 columns, x, y and z, got {width}")
    names = ["x", "y", "z", *[SKIPPED] * (width - 3)]
    if width == 3:
        return Recognised(names, False)
    columns = _described(rows)
    skipped = _before_x(rows, columns)
    is_guess, names = skipped > 0, [*[SKIPPED] * skipped, *names[: width - skipped]]
    for i in _free(names):
        if _are_normals(rows[:, i : i + 3], columns[i : i + 3]) and not _are_pure(columns, i):
            names[i : i + 3] = COLUMNS["normals"]
            break
    is_white = sum(c.low == c.high == 1 for c in columns) > 2
    for i in range(names.index("z") + 1, 0 if is_white else width - 1):
        if names[i : i + 2] == [SKIPPED] * 2 and _are_returns(rows[:, i : i + 2], columns[i : i + 2]):
            names[i : i + 2] = [RETURN] * 2
            break
    colors, is_sure = _colors(rows, columns, names, is_pts)
    if colors is not None:
        names[colors : colors + 3] = COLUMNS["colors"]
        is_guess |= not is_sure and "colors" in extras
    elif not is_sure and "colors" in extras:
        raise Refusal(f"has {width} columns, and it is not clear which of them are colours; {FLAG}")
    _name_the_rest(columns, names, is_pts)
    return Recognised([SKIPPED if name == RETURN else name for name in names], is_guess)


def _described(rows: Array) -> list[Column]:
    low, high, whole = np.full(rows.shape[1], np.inf), np.full(rows.shape[1], -np.inf), np.full(rows.shape[1], True)
    last, rises = high, whole.copy()
    for start in range(0, len(rows), BLOCK):
        block = _finite_columns(rows[start : start + BLOCK])
        low = np.fmin(low, np.fmin.reduce(block, axis=1, initial=np.inf))
        high = np.fmax(high, np.fmax.reduce(block, axis=1, initial=-np.inf))
        whole &= ((block == np.rint(block)) | np.isnan(block)).all(1)
        if block.shape[1]:
            rises &= (block[:, 1:] >= block[:, :-1]).all(1) & ~(last > block[:, 0])
            last = block[:, -1]
    some = _finite_columns(rows[:: len(rows) // SOME_ROWS + 1])
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


def _finite_columns(rows: Array) -> NDArray[np.float64]:
    """A copy of the columns (K, n), of rows with finite coordinates; what else is not finite is NaN."""
    columns = np.array(rows.T, np.float64, order="C")
    finite = np.isfinite(columns)
    if not finite.all():
        columns[~finite] = np.nan
        columns = columns[:, finite[:3].all(0)]
    return columns


def _free(names: Sequence[str]) -> list[int]:
    """Where three columns begin that have no name yet, behind x y z."""
    return [i for i in range(names.index("z") + 1, len(names) - 2) if set(names[i : i + 3]) == {SKIPPED}]


def _before_x(rows: Array, columns: Sequence[Column]) -> int:
    """How many columns precede x: one that counts the rows or is a time, or the row and column of a scan's pixels.

    Raises:
        Refusal: the first may be x, or such a column.
    """
    if len(columns) < 4:
        return 0
    first, _, _, fourth = columns[:4]
    y, z, last = (max(abs(c.low), abs(c.high)) for c in columns[1:4])
    if first.low > FARTHEST > max(y, z, last):
        return 1
    if _counts_rows(rows, columns):
        is_fraction = 0 <= fourth.low < fourth.high <= 1 and max(y, z) > 1.01
        are_whole = columns[1].whole == columns[2].whole and fourth.whole
        if is_fraction or (are_whole and fourth.low < fourth.high):
            raise Refusal(f"has {len(columns)} columns, and the first is x, or counts the rows; {FLAG}")
        return 1
    is_map = min(c.low for c in columns[1:3]) > 1e5 and last < 1e4  # easting, northing, elevation
    if first.rises and len(rows) > 2 and (is_map or first.low > 50 * max(y, z, last, 100)):
        raise Refusal(f"has {len(columns)} columns, and the first is x, or a time; {FLAG}")
    return 2 * _are_pixels(rows, columns)


def _counts_rows(rows: Array, columns: Sequence[Column]) -> bool:
    """Whether column 0 is 0, 1, 2 … or 1, 2, 3 …, and what follows are not a few rows of whole numbers too."""
    first = columns[0]
    if not (len(rows) > 2 and first.low in (0, 1) and first.high == first.low + len(rows) - 1):
        return False
    if len(rows) <= MOST_ROWS and all(c.whole for c in columns[1:4]):
        return False
    return bool((rows[:, 0] == np.arange(len(rows)) + first.low).all())


def _are_pixels(rows: Array, columns: Sequence[Column]) -> bool:
    """Whether two columns that number rows and columns precede x y z, and not a normal or colours follow x y z."""
    if not (len(rows) > MOST_ROWS and any(c.rises for c in columns[:2]) and len(columns) > 4):
        return False
    if not all(c.whole and 0 <= c.low < c.high <= 65535 for c in columns[:2]) or any(c.whole for c in columns[2:5]):
        return False
    third = columns[3:6]
    return len(third) < 3 or not (_are_normals(rows[:, 3:6], third) or KINDS[1][0](third))


def _are_returns(rows: Array, columns: Sequence[Column]) -> bool:
    """Whether they are the number of a return and of all returns of its pulse, each counted from 1."""
    if not all(c.whole and c.low == 1 and c.high <= MOST_RETURNS for c in columns):
        return False
    return not (rows[:, 0] > rows[:, 1]).any()


def _are_pure(columns: Sequence[Column], at: int) -> bool:
    """Whether three columns of 0 and 1 that differ are pure colours, no normal; not if other columns are colours."""
    three = columns[at : at + 3]
    if three[0].rows <= MOST_ROWS or all(c.low == c.high for c in three):
        return False
    beside = any(_are_bytes(columns[i : i + 3]) for i in range(3, len(columns) - 2) if abs(i - at) > 2)
    return not beside and all(c.whole and c.low >= 0 for c in three)


def _are_normals(rows: Array, columns: Sequence[Column]) -> bool:
    """Whether the rows have length 1, as closely as three digits show; a minority of zeros is allowed."""
    if any(c.low < -1.01 or c.high > 1.01 for c in columns):
        return False
    units = total = 0
    for start in range(0, len(rows), BLOCK):
        length = np.linalg.norm(rows[start : start + BLOCK].astype(np.float64), axis=1)
        length = length[np.isfinite(length)]
        unit = np.abs(length - 1) < 0.01
        if not (unit | (length == 0)).all():
            return False
        units, total = units + int(unit.sum()), total + len(length)
    return units > total / 2


def _colors(rows: Array, columns: Sequence[Column], names: Sequence[str], is_pts: bool) -> tuple[int | None, bool]:
    """Where red, green and blue begin (None: nowhere), and whether that is sure."""
    free = _free(names)
    if is_pts and len(names) == 7 and 4 in free and all(0 <= c.low <= c.high <= 65535 for c in columns[4:7]):
        return 4, True
    fitting = (([i for i in free if kind(columns[i : i + 3])], is_likely) for kind, is_likely in KINDS)
    starts, is_likely = next(((starts, is_likely) for starts, is_likely in fitting if starts), ([], False))
    if not starts:  # small numbers may be dark colours, or labels
        are_small = bool(free) and all(c.is_small for c in columns[free[0] : free[0] + 3])
        return None, not are_small or len(free) > MOST_BESIDE - 2
    first = starts[0]
    stop = first + 3 + next((k for k, i in enumerate(starts[1:]) if i != first + k + 1), len(starts) - 1)
    if stop < len(names) and names[stop] == SKIPPED and columns[stop].is_small:
        stop += _highest(columns[first + 1 : stop]) == 0  # perhaps an intensity, and black
    if stop - first == 3:
        return first, is_likely and (_highest(columns[first:stop]) > SMALL or not columns[first].whole)
    behind = _colors_of_four(rows[:, first : first + 4], columns[first : first + 4])
    end = next((i for i in range(first + 3 + (behind or 0), stop) if columns[i].is_no_color), stop)
    if behind is not None and end - first in (3, 4):
        return first + behind, False
    if end == stop and (stop - first) % 3 == 0:
        return first, False
    return None, not is_likely or stop - first > MOST_BESIDE


def _colors_of_four(rows: Array, four: Sequence[Column]) -> int | None:
    """Which three of four columns of one kind are colours: 0, the first, or 1, the last; None: it is not clear."""
    some = _finite_columns(rows[:: len(rows) // SOME_ROWS + 1])
    related, margin = np.zeros((4, 4)), np.inf
    if some.shape[1] > 2:
        with np.errstate(invalid="ignore", divide="ignore"):  # of a column of one number
            related, margin = np.nan_to_num(np.asarray(np.corrcoef(some))), 0.3 + 9 / np.sqrt(some.shape[1])
    first, last = related[0, 1:3].sum(), related[3, 1:3].sum()
    if abs(first - last) > margin:
        return int(last > first)
    if not (end := four[3]).is_no_color:
        return 1
    if four[0].values > 2 * max(column.values for column in four[1:]):  # an intensity and few colours, or one tint
        return 1 if all(c.low == c.high for c in four[1:]) and (end.high > SMALL or _highest(four[1:]) == 0) else None
    is_short = end.is_full or end.high <= SMALL or end.values <= min(SMALL, end.rows * 2 / 3)
    return 0 if is_short and max(last, 2 * related[1, 2] - first) <= margin else None


def _name_the_rest(columns: Sequence[Column], names: list[str], is_pts: bool) -> None:
    """Names the columns that are left, group by group: intensity and label."""
    begin, colors = names.index("z") + 1, names.index("r") if "r" in names else None
    groups: list[list[int]] = []
    for i in (i for i in range(begin, len(names)) if names[i] == SKIPPED):
        if groups and groups[-1][-1] == i - 1:
            groups[-1].append(i)
        else:
            groups.append([i])
    for group in groups:
        is_before = names[group[-1] + 1 :][:1] in (["r"], [RETURN])
        group = [i for i in group if columns[i].is_intensity or columns[i].is_label] or group  # without times
        first = columns[group[0]]
        if len(columns) == 4 and first.low == first.high == 1 and first.rows > 1:
            continue  # homogeneous coordinates
        if is_before:
            before = columns[i := group.pop()]
            name = "label" if before.is_small and before.low < before.high and not is_pts else "intensity"
            names[i] = SKIPPED if name in names else name
        elif (
            len(group) > 2
            and colors is None
            and first.is_measure
            and not any(columns[i].is_measure and not columns[i].is_label for i in group[1:])
        ):
            names[group[0]], group = "intensity", group[-1:]
        elif colors is not None and group[0] == colors + 3 and first.is_full:
            full = next(most for most in FULL if _highest(columns[colors : colors + 3]) <= most)
            group = group[first.high == full :]
        for i in group if len(group) < 3 else group[: group[0] > begin]:
            if "label" not in names and columns[i].is_label:
                names[i] = "label"
            elif "label" in names[group[0] : i] and columns[i].whole:
                continue  # an instance
            elif "intensity" not in names and len(group) < 3 and columns[i].is_intensity:
                names[i] = "intensity"


def _highest(columns: Sequence[Column]) -> float:
    return max(column.high for column in columns)
