"""What the columns of a table without names are, by their numbers: the one place for these rules."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import Refusal
from .column import SMALL, SOME_ROWS, Column, columns_of, finite_columns, highest
from .contents import EXTRAS, Array, Extras, blocks_of_rows
from .names import COLUMNS, FLAG, MOST_ROWS, SKIPPED
from .values import FULL

MOST_BESIDE = 8  # columns of one kind that may be colours and more; of more they are some features
MOST_RETURNS = 15  # of one pulse of a scanner
TOGETHER = 0.5  # the least correlation of colours that tells them from other columns of their kind
CLOSEST = 1 - 1e-6  # of correlations: that of a column with itself has no arctanh
FARTHEST = 1e8  # more than any coordinate; times since 1970 or 1980 are beyond
ENOUGH = 6  # columns that tell which are x y z
PTS = ["x", "y", "z", "intensity", "r", "g", "b"]  # what its format says
RETURN = "return"  # in names: the number of a return, or of returns, which is skipped


class Recognised(NamedTuple):
    """What the columns of a table are, as for `from_table`; whether x, or a wanted extra but normals, was guessed; and
    a note on what they may be too."""

    names: list[str]
    is_guess: bool
    doubt: str = ""


def _are_bytes(three: Sequence[Column]) -> bool:
    return all(c.whole and c.low >= 0 and c.high <= 255 for c in three) and highest(three) > 1 and not _count(three)


def _are_words(three: Sequence[Column]) -> bool:
    return all(c.whole and c.low >= 0 and c.high <= 65535 for c in three) and not _count(three)


def _count(three: Sequence[Column]) -> bool:
    """Whether the last two are small numbers, such as that of a return and a label, but not both zero."""
    return all(c.is_small for c in three[1:]) and highest(three[1:]) > 0


# What three columns side by side must be to be colours, the surest first, and whether nothing else is likely.
KINDS: tuple[tuple[Callable[[Sequence[Column]], bool], bool], ...] = (
    (_are_bytes, True),
    (lambda three: all(c.low >= 0 and c.high <= 1 for c in three), True),
    (_are_words, False),
    (lambda three: all(c.low >= 0 and c.high <= 255 and (not c.whole or c.low == c.high) for c in three), False),
)


def recognised(rows: Array, extras: Extras = EXTRAS, is_pts: bool = False) -> Recognised:
    """The names of the columns of a table without names (N, K), by the numbers of all its rows.

    Columns 0 to 2 are x y z, unless some precede x (`_before_x`, `_check_x`). Then, side by side:

    1. nx ny nz: the first three that have length 1 (a minority may be 0), but not `_are_pure` colours.
    2. Two that are the numbers of returns (`_are_returns`) are skipped.
    3. r g b: the first three of the surest kind that is there: whole numbers to 255; numbers to 1; whole numbers to
       65535; numbers to 255 that are not whole; none whose last two are small numbers (`_count`). Of four of a kind
       those three that are correlated clearly better; they are refused if others are as well. If none are, they are
       intensity r g b; but where the last may be a label (`Column.is_label`), r g b label if it has few numbers, and
       nothing speaks for an intensity in front, else they are refused. Of five, the last three are if they go together
       behind an intensity and a label (`_are_behind_a_label`). Of five or more a label is the fourth, or the fifth
       behind an intensity; or they are threes: the first counts; others of more than eight are no colours.
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
    columns = columns_of(rows)
    skipped = _before_x(rows, columns)
    _check_x(rows[:, skipped:], columns[skipped:], width)
    names = [*[SKIPPED] * skipped, *names[: width - skipped]]
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
    elif not is_sure and "colors" in extras:
        raise Refusal(f"has {width} columns, and it is not clear which of them are colours; {FLAG}")
    _name_the_rest(columns, names, is_pts)
    used = any(COLUMNS[what][0] in names for what in extras if what != "normals")  # whose length tells them
    is_guess = skipped > 0 or (used and not (is_pts and names == PTS))
    doubt = _other_label(columns, names) if "labels" in extras else ""
    return Recognised([SKIPPED if name == RETURN else name for name in names], is_guess, doubt)


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
    if len(rows) > MOST_ROWS and first.whole and first.values == first.rows and not any(c.whole for c in columns[1:4]):
        raise Refusal(f"has {len(columns)} columns, and the first is x, or a number of the row; {FLAG}")
    is_map = min(c.low for c in columns[1:3]) > 1e5 and last < 1e4  # easting, northing, elevation
    if first.rises and len(rows) > 2 and (is_map or first.low > 50 * max(y, z, last, 100)):
        raise Refusal(f"has {len(columns)} columns, and the first is x, or a time; {FLAG}")
    if not _are_pixels(rows, columns):
        return 0
    if not any(c.rises for c in columns[:2]) or any(c.low == c.high for c in columns[:2]):
        raise Refusal(f"has {len(columns)} columns, and the first two are x and y, or a pixel's row and column; {FLAG}")
    return 2


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
    if len(rows) <= MOST_ROWS or len(columns) < 5:
        return False
    if not all(c.whole and 0 <= c.low <= c.high <= 65535 for c in columns[:2]) or any(c.whole for c in columns[2:5]):
        return False
    return not _is_known_fourth(rows, columns)


def _is_known_fourth(rows: Array, columns: Sequence[Column]) -> bool:
    """Whether a normal, or colours up to 1, begin with column 3, so that columns 0 to 2 are x y z."""
    three = columns[3:6]
    return len(three) == 3 and (_are_normals(rows[:, 3:6], three) or KINDS[1][0](three))


def _check_x(rows: Array, columns: Sequence[Column], width: int) -> None:
    """Checks that column 0 is no label, nor the number of a frame, of a batch or of a part of the table.

    Raises:
        Refusal: it may be: it has whole numbers that repeat, before three columns of others; or small ones before three
            of whole numbers, of which the last is negative somewhere, as no intensity beside such an x is.
    """
    if len(rows) <= MOST_ROWS or len(columns) < 4:
        return
    first, *three = columns[:4]
    is_small = first.is_small and all(c.whole for c in three) and three[2].low < -1 and not three[2].is_label
    are_open = first.whole and first.values < first.rows and (is_small or not any(c.whole for c in three))
    if are_open and not _is_known_fourth(rows, columns):
        place = "the first" if width == len(columns) else "the first behind a count or a time"
        raise Refusal(f"has {width} columns, and {place} is x, or a label; {FLAG}")


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
    for block in blocks_of_rows(rows):
        length = np.linalg.norm(block.astype(np.float64), axis=1)
        length = length[np.isfinite(length)]
        unit = np.abs(length - 1) < 0.01
        if not (unit | (length == 0)).all():
            return False
        units, total = units + int(unit.sum()), total + len(length)
    return units > total / 2


def _colors(rows: Array, columns: Sequence[Column], names: Sequence[str], is_pts: bool) -> tuple[int | None, bool]:
    """Where red, green and blue begin (None: nowhere), and whether that is sure."""
    free = _free(names)
    are_pts = is_pts and len(names) == 7 and 4 in free and not _are_labelled(rows[:, 3:7], columns[3:7])
    if are_pts and all(0 <= c.low <= c.high <= 65535 for c in columns[4:7]):
        return 4, True
    fitting = (([i for i in free if kind(columns[i : i + 3])], is_likely) for kind, is_likely in KINDS)
    starts, is_likely = next(((starts, is_likely) for starts, is_likely in fitting if starts), ([], False))
    if not starts:  # small numbers may be dark colours, or labels
        are_small = bool(free) and all(c.is_small for c in columns[free[0] : free[0] + 3])
        return None, not are_small or len(free) > MOST_BESIDE - 2
    first = starts[0]
    stop = first + 3 + next((k for k, i in enumerate(starts[1:]) if i != first + k + 1), len(starts) - 1)
    if stop < len(names) and names[stop] == SKIPPED and columns[stop].is_small:
        stop += highest(columns[first + 1 : stop]) == 0  # perhaps an intensity, and black
    while stop - first > 4 and columns[first].is_small and highest(columns[first:stop]) > SMALL:
        first += 1  # counts, and a label, before colours
    if stop - first == 3:
        return first, is_likely and (highest(columns[first:stop]) > SMALL or not columns[first].whole)
    if _are_behind_a_label(rows[:, first:stop], columns[first:stop]):
        return stop - 3, False
    behind = _colors_of_four(rows[:, first : first + 4], columns[first : first + 4])
    end = next((i for i in range(first + 3 + (behind or 0), stop) if columns[i].is_no_color), stop)
    if behind is not None and end - first in (3, 4):
        return first + behind, False
    if end == stop and (stop - first) % 3 == 0:
        return first, False
    return None, not is_likely or stop - first > MOST_BESIDE


def _are_behind_a_label(rows: Array, five: Sequence[Column]) -> bool:
    """Whether five columns of one kind are an intensity, a label of small numbers, and colours that go together."""
    if len(five) != 5 or five[0].is_small or not five[1].is_small or any(c.is_small or c.is_full for c in five[2:]):
        return False
    with np.errstate(invalid="ignore", divide="ignore"):
        related = np.nan_to_num(np.corrcoef(finite_columns(rows[:: len(rows) // SOME_ROWS + 1])[2:]))
    return bool(related.min() > TOGETHER)


def _colors_of_four(rows: Array, four: Sequence[Column]) -> int | None:
    """Which three of four columns of one kind are colours: 0, the first, or 1, the last; None: it is not clear."""
    some = finite_columns(rows[:: len(rows) // SOME_ROWS + 1])
    related, margin = np.zeros((4, 4)), np.inf
    if some.shape[1] > 2:
        with np.errstate(invalid="ignore", divide="ignore"):  # of a column of one number
            related, margin = np.nan_to_num(np.asarray(np.corrcoef(some))), 0.3 + 9 / np.sqrt(some.shape[1])
    # Of a correlation r, arctanh(r) errs by 1 / sqrt(rows), however close the columns are.
    near = np.arctanh(related.clip(-CLOSEST, CLOSEST))
    first, last, middle = near[0, 1:3].sum(), near[3, 1:3].sum(), 2 * near[1, 2]
    if abs(first - last) > margin:
        # The third colour goes with the middle two as these with each other: an intensity of their mean goes better.
        is_like = abs(max(first, last) - middle) <= abs(min(first, last) - middle)
        return int(last > first) if is_like or (last <= margin and four[3].is_no_color) else None
    if not (end := four[3]).is_no_color:
        is_open = max(min(first, last), middle) > margin and not (some == some[0]).all()
        return None if is_open else 1
    first, last = related[0, 1:3].sum(), related[3, 1:3].sum()
    if four[0].values > 2 * max(column.values for column in four[1:]):  # an intensity and few colours, or one tint
        return 1 if all(c.low == c.high for c in four[1:]) and (end.high > SMALL or highest(four[1:]) == 0) else None
    is_short = end.is_full or end.high <= SMALL or end.values <= min(SMALL, end.rows * 2 / 3)
    return 0 if is_short and max(last, 2 * related[1, 2] - first) <= margin else None


def _are_labelled(rows: Array, four: Sequence[Column]) -> bool:
    """Whether four columns are bright bytes and different labels that do not go with them."""
    differ = four[3].is_label and four[3].low < four[3].high
    return (
        differ and _are_bytes(four[:3]) and min(c.high for c in four[:3]) > SMALL and _colors_of_four(rows, four) == 0
    )


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
        is_before, last = names[group[-1] + 1 :][:1] in (["r"], [RETURN]), group[-1]
        group = [i for i in group if columns[i].is_intensity or columns[i].is_label] or group  # without times
        first = columns[group[0]]
        if len(columns) == 4 and first.low == first.high == 1 and first.rows > 1:
            continue  # homogeneous coordinates
        if is_before and (group[-1] == last or len(group) == 1):
            before = columns[i := group.pop()]
            name = "label" if before.is_small and before.low < before.high and not is_pts else "intensity"
            names[i] = SKIPPED if name in names else name
        elif colors is not None and group[0] == colors + 3 and first.is_full:
            full = next(most for most in FULL if highest(columns[colors : colors + 3]) <= most)
            group = group[first.high == full :]
        others = [columns[i] for i in group[1:]]
        is_alone = not any(c.is_measure and not c.is_label and c.whole == first.whole for c in others)
        if len(others) > 1 and (colors is None or is_before) and first.is_measure and is_alone:
            names[group[0]], group = SKIPPED if "intensity" in names else "intensity", group[-1:]
        for i in group if len(group) < 3 else group[: group[0] > begin]:
            if "label" not in names and columns[i].is_label:
                names[i] = "label"
            elif "label" in names[group[0] : i] and columns[i].whole:
                continue  # an instance
            elif "intensity" not in names and len(group) < 3 and columns[i].is_intensity:
                names[i] = "intensity"


def _other_label(columns: Sequence[Column], names: Sequence[str]) -> str:
    """A note if the column behind the label looks like one too and has fewer different numbers, as it has where the
    first is an intensity of few; an instance number has more, or is the same everywhere. "" if not."""
    behind = names.index("label") + 1 if "label" in names else len(names)
    if names[behind : behind + 1] != [SKIPPED] or "r" in names or "intensity" in names:
        return ""
    label, other = columns[behind - 1 : behind + 1]
    if not (other.is_label and 1 < other.values < label.values):
        return ""
    return f"column {behind + 1} may be the label, as it has fewer different numbers than column {behind}; {FLAG}"
