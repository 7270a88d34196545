"""What precedes the rows of a text: names of the columns, their units, a count, comments and other lines."""

import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

from ..errors import Refusal
from .cells import COMMENT, WITH_COMMA, WORDS, hint_on, is_number, plain, split
from .names import COLUMNS, FLAG, are_units, check_width, counting, places
from .scan import NOT_FINITE, decoded, quoted

LONGEST_LINE = 100_000
MOST_BESIDE = 20  # lines above or below the names of columns
COUNT = re.compile(rb"\s*\d{1,18}\s*")
MARKS = (";", ",", "\t", "|")  # that may separate cells


class Opening(NamedTuple):
    """What precedes the points of a text, and how they are written."""

    start: int  # the byte where the rows begin
    line: int  # its number, from 1
    separator: str | None  # of the cells; None: spaces and tabs
    cells: int  # of the first row, with an empty one where it ends with a separator
    width: int  # of a row
    names: list[str]  # of the columns; none if there is no header
    columns: list[int]  # that may be read: all, or without the one that numbers the rows
    declared: int | None  # the number of points
    counts: bool = False  # whether the first row counts the columns: 0 1 2
    comma: bytes = b","  # what stands for a comma in a number
    grouped: bool = False  # whether points stand between thousands
    above: Sequence[bytes] = ()  # lines above the names of columns that are no comments
    below: Sequence[bytes] = ()  # and those between the names and the rows

    @property
    def notes(self) -> list[str]:
        """Of the lines that are left out."""
        beside = (("above", self.above), ("below", self.below))
        what = "lines {} the names of columns left out: {}, from {} on"
        return [what.format(where, len(lines), quoted(lines[0].strip())) for where, lines in beside if lines]


def opening_of(file: BinaryIO, by_hand: Sequence[str]) -> Opening:
    """What precedes the points, from the current position of the file."""
    headers, above, below = list[bytes](), list[bytes](), list[bytes]()  # lines with names; others above and below
    widths, declared, wrong = set[tuple[str | None, int]](), None, ""  # of what the headers name
    start, number = file.tell(), 0
    while max(len(above), len(below)) <= MOST_BESIDE and (line := file.readline(LONGEST_LINE)):
        number += 1
        check_length(line, number)
        separator, cells = _row(line, widths, bool(headers or by_hand))
        if declared is None and COUNT.fullmatch(line):
            declared = int(line)
        elif cells and _is_row(cells, bool(headers), by_hand):
            words = [decoded(cell) for cell in cells]
            full = words if cells[-1] else words[:-1]  # rows may end with a separator
            names = list(by_hand) or _names_of(headers, (len(full), len(words)))
            if above and not names:
                raise _no_names(above[0], len(full) > 2)
            columns = list(range(len(full)))
            if by_hand:
                check_width(by_hand, len(full))
            elif names and not places(names):
                names, columns = [], columns[counting(names) or 0 :]
            counts, width = not headers and declared is None and counting(full) == 0, len(names) or len(full)
            opening = Opening(start, number, separator, len(words), width, names, columns, declared, counts)
            return opening._replace(above=above, below=_without_units(names, below))
        elif line.strip() and not by_hand and (not headers or COMMENT.match(line)):
            readings = _names(line)
            widths |= {(mark, len(names)) for mark, names in readings}
            if readings or not COMMENT.match(line):
                (headers if readings else above).append(line)
        elif not all(cell.lower() in WORDS for cell in cells):  # nor blank, nor a comment
            below += [] if by_hand else [line]
            is_wrong = not by_hand or re.search(rb"\d", line)  # else names
            said = f"line {number} is {quoted(line.strip())}, not a row of numbers{hint_on(line)}"
            wrong = wrong or (said if is_wrong else "")
        start = file.tell()
    if above and not headers:
        raise _no_names(above[0], len(above) > MOST_BESIDE)
    raise Refusal(wrong or "holds no points")


def _without_units(names: Sequence[str], lines: Iterable[bytes]) -> list[bytes]:
    """Those lines below the names that do not give their units."""

    def may_be(line: bytes) -> list[list[str]]:
        text = decoded(line).strip("\r\n")
        return [*(cells for _, cells in _marked(text)), text.split()]

    return [line for line in lines if not any(are_units(cells, names) for cells in may_be(line))]


def _is_row(cells: Sequence[bytes], has_header: bool, by_hand: Sequence[str]) -> bool:
    """Whether a line is one of the rows, by which of its cells are numbers, or words for one that is missing."""
    known = [is_number(cell) and cell not in (b"", b"-") for cell in cells]
    numbers = [is_known and cell.lower() not in WORDS for is_known, cell in zip(known, cells, strict=True)]
    if by_hand:
        axes = [number for number, name in zip(numbers, by_hand, strict=False) if name in COLUMNS["points"]]
        return sum(axes) > 1 and counting([decoded(cell) for cell in cells]) != 1
    return any(numbers) or all(known) if has_header else all(known[:3])


def _row(line: bytes, widths: set[tuple[str | None, int]], has_names: bool) -> tuple[str | None, list[bytes]]:
    """The separator and the cells of a line; a comment has none."""
    line = NOT_FINITE.sub(b"nan", line)
    if COMMENT.match(line):
        return None, []
    if b"#" in line and len(_separated(line, widths, has_names)[1]) not in {width for _, width in widths}:
        line = line.partition(b"#")[0]
    return _separated(line, widths, has_names)


def _separated(line: bytes, widths: set[tuple[str | None, int]], has_names: bool) -> tuple[str | None, list[bytes]]:
    line = line.strip(b" \r\n")
    words = split(plain(line, None, b"."), None)
    cells = re.split(rb"[\t|]", line) if b"\t" in line or b"|" in line else line.split()
    is_decimal = b";" in line or any(WITH_COMMA.fullmatch(cell.strip()) for cell in cells if len(cells) > 1)
    for mark in MARKS:
        fields = split(plain(line, mark, b"."), mark)
        # Tabs beside spaces, or several in a row, count as spaces.
        is_tab = has_names and (fields == words or (mark, len(fields)) in widths)
        is_separator = not is_decimal if mark == "," else is_tab if mark == "\t" else True
        if len(fields) > 1 and is_separator:
            return mark, fields
    return None, words


def _names(line: bytes) -> list[tuple[str | None, list[str]]]:
    """The columns that a line names or counts, one reading for each separator in it; none if it does neither."""
    text = decoded(line).rstrip("\r\n")
    bare = text.strip().lstrip("#/%!;") if COMMENT.match(line) else text
    words = [word.strip('"') for word in re.sub(r"[(\[][^)\]\d]*[)\]]", "", bare).split()]
    readings = [*_marked(bare), (None, words)]
    return [(mark, names) for mark, names in readings if places(names) or counting(names) is not None]


def _marked(line: str) -> list[tuple[str | None, list[str]]]:
    """A line's cells by each mark in it that may separate them."""
    marks = (mark for mark in MARKS if mark in line)
    return [(mark, [word.strip(' "') for word in line.split(mark)]) for mark in marks]


def _no_names(line: bytes, rows_follow: bool) -> Refusal:
    hint = hint_on(line) or (f"; {FLAG}" if rows_follow else "")
    return Refusal(f"begins with {quoted(line.strip())}, neither numbers nor names of columns with x, y and z{hint}")


def _names_of(headers: Sequence[bytes], widths: tuple[int, ...]) -> list[str]:
    """The names in the last header that has one for each column; none if all others are comments."""
    for header in reversed(headers):
        readings = [names for _, names in _names(header)]
        if fitting := [names for names in readings if len(names) in widths]:
            return fitting[0]
        if not COMMENT.match(header):
            raise Refusal(f"names {len(readings[0])} columns, but its first row has {widths[0]}")
    return []


def check_length(line: bytes, number: int) -> None:
    if len(line) == LONGEST_LINE and line[-1:] != b"\n":
        raise Refusal(f"line {number} is longer than {LONGEST_LINE:,} characters")
