"""Tables of points: columns known by their names, by hand, or by their numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Refusal
from .contents import EXTRAS, Array, Contents, Extras
from .names import COLUMNS, SKIPPED, left_out, places
from .values import as_labels, as_unit_colors, unpacked_colors

SOME_ROWS = 10_000  # evenly spaced; how many different values a column has is counted in these
BLOCK = 1 << 14  # rows looked at together
FEW = 64  # different labels in a cloud, at most; whole numbers to this are labels too if any occurs twice,
SMALL = 20  # and to this if none does
MOST_BESIDE = 8  # columns of one kind that may be colours and more; of more they are some features
FULL = (1, 255, 65535)  # the largest number of a colour
FLAG = "name the columns with --columns (columns= in Python), such as x,y,z,intensity,r,g,b,_"


def from_named(columns: Mapping[str, Array], extras: Extras = EXTRAS, every: Iterable[str] | None = None) -> Contents:
    """Contents from named columns, each (N,).

    Args:
        every: the names of all columns of the file, including those that were not read; None: those of `columns`.
            What is not used is mentioned in a note, if all extras are wanted.

    Raises:
        Refusal: no x, y and z.
    """
    names = list(columns)
    found, every = places(names, extras), names if every is None else list(every)
    if not found:
        raise Refusal(f"names no columns x, y and z, only {', '.join(sorted(names)[:8]) or 'none'}")
    packed = found.pop("packed", None)
    parts = {what: _side_by_side([columns[names[i]] for i in group]) for what, group in found.items()}
    notes: tuple[str, ...] = ()
    if packed:
        colors, notes = unpacked_colors(columns[names[packed[0]]])
        parts |= {} if colors is None else {"colors": colors}
    if set(extras) >= set(EXTRAS):
        notes += left_out(every, [i for group in places(every).values() for i in group])
    return from_parts(parts, notes)


def _side_by_side(columns: list[Array]) -> Array:
    """(N, K) from K columns (N,); a view without a copy where they are evenly spaced in one table, as is usual."""
    first = columns[0]
    alike = {(id(column.base), column.dtype, column.strides, column.shape) for column in columns}
    steps = set(np.diff([column.__array_interface__["data"][0] for column in columns]).tolist())
    if first.base is None or len(alike) > 1 or len(steps) != 1:
        return np.stack(columns, axis=1)
    shape, strides = (*first.shape, len(columns)), (*first.strides, *steps)
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)


def from_table(
    rows: Array, extras: Extras = EXTRAS, names: Sequence[str] = (), is_pts: bool = False, beside: Extras = ()
) -> Contents:
    """Contents from a table (N, K), whose columns are named by hand or recognised by their numbers.

    Args:
        names: by hand, one for each column, of `COLUMNS`, or "_" to skip it; none: `recognised`.
        is_pts: of seven columns the fourth is an intensity, and colours follow.
        beside: extras that are elsewhere in the file, and not looked for here.

    Raises:
        Refusal: fewer than 3 columns, or colours are wanted and it is not clear which they are.
    """
    notes: tuple[str, ...] = ()
    are_all = set(extras) >= set(EXTRAS)
    extras = [what for what in extras if what not in beside]
    if not names:
        rows = rows if extras else rows[:, :4]  # one more than points, in case the first counts the rows
        found = recognised(rows, extras, is_pts)
        names = found.names
        if found.is_guess or (len(names) > 3 and are_all):
            notes = (f"columns taken as {','.join(names)}",)
    parts = {}
    for what in ("points", *extras):
        if COLUMNS[what][0] in names:
            parts[what] = _side_by_side([rows[:, names.index(name)] for name in COLUMNS[what]])
    return from_parts(parts, notes)


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

    @property
    def is_label(self) -> bool:
        """Whether it has whole numbers from -1 on, few different or small ones."""
        most = SMALL if self.values == self.rows else FEW
        return self.whole and self.low >= -1 and (self.high <= most or self.values <= min(FEW, self.rows / 4))

    @property
    def is_full(self) -> bool:
        """Whether it may be the opacity of a colour: the same largest value in every row."""
        return self.low == self.high and self.high in FULL

    @property
    def is_no_color(self) -> bool:
        """Whether it is rather a label or an opacity behind colours of its kind."""
        return self.is_label or self.is_full


# What three columns side by side must be to be colours, the surest first, and whether nothing else is likely.
KINDS: tuple[tuple[Callable[[Sequence[Column]], bool], bool], ...] = (
    (lambda three: all(c.whole and c.low >= 0 and c.high <= 255 for c in three) and _highest(three) > 1, True),
    (lambda three: all(c.low >= 0 and c.high <= 1 for c in three), True),
    (lambda three: all(c.whole and c.low >= 0 and c.high <= 65535 for c in three), False),
    (lambda three: all(c.low >= 0 and c.high <= 255 for c in three), False),
)


def recognised(rows: Array, extras: Extras = EXTRAS, is_pts: bool = False) -> Recognised:
    """The names of the columns of a table without names (N, K), by the numbers of all its rows.

    Columns 0 to 2 are x y z; if column 0 counts the rows, it is skipped, and 1 to 3 are. Then, side by side:

    1. nx ny nz: the first three that have length 1 (a minority may be 0).
    2. r g b: the first three of the surest kind that is there: whole numbers to 255; numbers to 1; whole numbers to
       65535; numbers to 255. Of four of a kind those three that are correlated clearly better. If neither are, they
       are intensity r g b; but where the last may be a label (`Column.is_label`), r g b label if it has few numbers,
       and nothing speaks for an intensity in front, else they are refused. Of five or more a label is the fourth, or
       the fifth behind an intensity; or they are threes: the first counts; others of more than eight are no colours.
    3. The column before r g b is intensity. One behind them that is the same, and full, in all rows is the opacity.
    4. One or two that are left are a label, an intensity, both, or a label and an instance, which is skipped.

    Raises:
        Refusal: fewer than 3 columns; or colours are wanted, and it is not clear which columns they are.
    """
    width = rows.shape[1]
    if width < 3:
        raise Refusal(f"must have at least 3 columns, x, y and z, got {width}")
    names = ["x", "y", "z", *[SKIPPED] * (width - 3)]
    if width == 3:
        return Recognised(names, False)
    columns = _described(rows)
    if is_guess := _counts_rows(rows, columns):
        names = [SKIPPED, *names[:-1]]
    for i in _free(names):
        if _are_normals(rows[:, i : i + 3], columns[i : i + 3]):
            names[i : i + 3] = COLUMNS["normals"]
            break
    colors, is_sure = _colors(rows, columns, names, is_pts)
    if colors is not None:
        names[colors : colors + 3] = COLUMNS["colors"]
        is_guess |= not is_sure and "colors" in extras
    elif not is_sure and "colors" in extras:
        raise Refusal(f"has {width} columns, and it is not clear which of them are colours; {FLAG}")
    _name_the_rest(columns, names)
    return Recognised(names, is_guess)


def _described(rows: Array) -> list[Column]:
    low, high, whole = np.full(rows.shape[1], np.inf), np.full(rows.shape[1], -np.inf), np.full(rows.shape[1], True)
    for start in range(0, len(rows), BLOCK):
        block = _finite_columns(rows[start : start + BLOCK])
        low = np.fmin(low, np.fmin.reduce(block, axis=1, initial=np.inf))
        high = np.fmax(high, np.fmax.reduce(block, axis=1, initial=-np.inf))
        whole &= ((block == np.rint(block)) | np.isnan(block)).all(1)
    some = _finite_columns(rows[:: len(rows) // SOME_ROWS + 1])
    values = [_different(column[~np.isnan(column)]) for column in some]
    found = zip(low.tolist(), high.tolist(), whole.tolist(), values, strict=True)
    return [Column(*each, some.shape[1]) for each in found]


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


def _counts_rows(rows: Array, columns: Sequence[Column]) -> bool:
    """Whether column 0 is 0, 1, 2 … or 1, 2, 3 …, and what follows are not all whole numbers too."""
    first = columns[0]
    if not (len(rows) > 2 and first.low in (0, 1) and first.high == first.low + len(rows) - 1):
        return False
    return not all(c.whole for c in columns[1:4]) and bool((rows[:, 0] == np.arange(len(rows)) + first.low).all())


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
    if is_pts and len(names) == 7 and 4 in free and any(kind(columns[4:7]) for kind, _ in KINDS):
        return 4, True
    fitting = (([i for i in free if kind(columns[i : i + 3])], is_likely) for kind, is_likely in KINDS)
    starts, is_likely = next(((starts, is_likely) for starts, is_likely in fitting if starts), ([], False))
    if not starts:
        return None, True
    first = starts[0]
    stop = first + 3 + next((k for k, i in enumerate(starts[1:]) if i != first + k + 1), len(starts) - 1)
    if stop < len(names) and names[stop] == SKIPPED and _highest(columns[first + 1 : stop + 1]) == 0:
        stop += 1  # an intensity, and black
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


def _name_the_rest(columns: Sequence[Column], names: list[str]) -> None:
    """Names the columns that are left, group by group: intensity and label."""
    begin, colors = names.index("z") + 1, names.index("r") if "r" in names else None
    groups: list[list[int]] = []
    for i in (i for i in range(begin, len(names)) if names[i] == SKIPPED):
        if groups and groups[-1][-1] == i - 1:
            groups[-1].append(i)
        else:
            groups.append([i])
    for group in groups:
        if colors is not None and group[-1] == colors - 1:
            names[group.pop()] = "intensity"
        elif colors is not None and group[0] == colors + 3 and columns[group[0]].is_full:
            full = next(most for most in FULL if _highest(columns[colors : colors + 3]) <= most)
            group = group[columns[group[0]].high == full :]
        for i in group if len(group) < 3 else group[: group[0] > begin]:
            if "label" not in names and columns[i].is_label:
                names[i] = "label"
            elif "label" in names[group[0] : i] and columns[i].whole:
                continue  # an instance
            elif "intensity" not in names and len(group) < 3 and -65536 < columns[i].low <= columns[i].high < 65536:
                names[i] = "intensity"


def _highest(columns: Sequence[Column]) -> float:
    return max(column.high for column in columns)


def from_parts(parts: Mapping[str, Array], notes: Iterable[str] = ()) -> Contents:
    """Contents of a cloud: points, normals, colors (N, 3), labels, intensity (N, 1); all but points may be missing."""
    colors, labels, intensity = parts.get("colors"), parts.get("labels"), parts.get("intensity")
    notes = tuple(notes)
    if labels is not None and (labels := as_labels(labels[:, 0])) is None:
        notes = (*notes, "labels left out: they are not whole numbers")
    return Contents(
        parts["points"],
        normals=parts.get("normals"),
        colors=None if colors is None else as_unit_colors(colors),
        labels=labels,
        intensity=None if intensity is None else intensity[:, 0],
        notes=notes,
    )
