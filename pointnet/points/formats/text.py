"""Text, one point per line: XYZ, TXT, CSV, PTS, ASC, as scanners, CloudCompare and the point-cloud data sets write it.

Numbers are separated by spaces, tabs, commas, semicolons or bars; where commas do not separate, they are decimal
points, or stand between thousands. The first lines may name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B`) or count
them (`0,1,2`), or give the number of points (PTS). Lines are read in blocks: by NumPy where all are alike, else one by
one.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import Refusal
from .by_numbers import ENOUGH
from .columns import from_named, from_table
from .commas import GROUPED, WITH_COMMA, what_commas_mean
from .contents import EXTRAS, Array, Contents, Extras
from .names import COLUMNS, FLAG, SKIPPED, check_count, check_shape, counting, left_out, places
from .scan import FORTRAN, MARK, NOT_FINITE, cells_per_line, decoded, quoted, unix_lines

LONGEST_LINE = 100_000
MOST_ABOVE = 20  # lines above the names of columns
BLOCK = 1 << 14  # rows looked at together
BYTES = 1 << 16  # of lines that are read together
# A line that begins so is no row; behind a semicolon there is no other, which would separate cells.
COMMENT = re.compile(rb'^[ \t]*(?:#|//|%|!|"?sep=|;(?=[^;\n]*$))', re.IGNORECASE | re.MULTILINE)
COUNT = re.compile(rb"\s*\d{1,18}\s*")
IN_QUOTES = re.compile(rb'"([^"\n]*)"')
WORDS = {
    **dict.fromkeys((b"", b"-", b"--", b"?", b".", b"na", b"n/a", b"<na>", b"null", b"none"), np.nan),
    b"true": 1.0,
    b"false": 0.0,
}


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


def parse_table(data: bytes) -> Array:
    """A text of nothing but numbers and spaces, the same count on each line: (N, K)."""
    width = len(next((line for line in io.BytesIO(data) if not line.isspace()), b"").split())
    return _table(io.BytesIO(data), Opening(0, 1, None, width, width, [], [], None), range(width), [])


def parse_text(path: Path, extras: Extras = EXTRAS, columns: Sequence[str] = (), usual: Sequence[str] = ()) -> Contents:
    """A text's points; columns are known by the names in its first lines, else recognised by `recognised`.

    Args:
        columns: the names of the columns, by hand; those in the file do not count.
        usual: what a file of this suffix has, if so many columns have no names.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_LINE)
        if b"\0" in head:
            raise Refusal("is not text of one byte a letter; save it as UTF-8")
        source: BinaryIO = file
        if re.search(rb"\r[^\n]", head):
            source = io.BytesIO(unix_lines(head + file.read()))
        source.seek(len(MARK) if head.startswith(MARK) else 0)
        opening = _opening(source, columns)
        source.seek(opening.start)
        some = source.read(LONGEST_LINE)
        opening, notes = _with_commas(some, opening)
        if above := opening.above:
            notes.append(f"lines above the names of columns left out: {len(above)}, from {quoted(above[0].strip())} on")
        words = _of_words(some, opening) - {i for i, name in enumerate(columns) if name != SKIPPED}
        names = opening.names or list(usual if len(usual) == opening.width else [])
        all_columns, asked = set(range(opening.width)), set().union(*places(names, extras).values())
        if lost := words if set(extras) >= set(EXTRAS) else words & asked:
            known = names or [f"column {i + 1}" for i in range(opening.width)]
            notes += [f"{note}, not numbers" for note in left_out(known, all_columns - lost)]
        names = ["" if i in words else name for i, name in enumerate(names)]
        wanted = [i for i in opening.columns if i not in words]
        if names:
            wanted = list(dict.fromkeys(place for group in places(names, extras).values() for place in group))
        elif not extras:
            wanted = wanted[:ENOUGH]
        counts = [] if opening.declared is None else [opening.declared]
        source.seek(opening.start)
        rows = _table(source, opening, wanted, counts)
    rows, of_counts = _without_counts(rows, opening)
    if counts and sum(counts) != len(rows):
        raise Refusal(f"declares {sum(counts)} points, holds {len(rows)}")
    if names:
        contents = from_named({names[i]: rows[:, k] for k, i in enumerate(wanted)}, extras, names)
    else:
        check_shape(len(rows), opening.width)
        is_pts = opening.declared is not None or path.suffix.lower() == ".pts"
        contents = from_table(rows, extras, is_pts=is_pts)
    return contents._replace(notes=(*notes, *of_counts, *contents.notes))


def _opening(file: BinaryIO, by_hand: Sequence[str]) -> Opening:
    """What precedes the points, from the current position of the file."""
    headers, above, below = list[bytes](), list[bytes](), ""  # lines with names; others above them; one below
    declared: int | None = None
    start, number = file.tell(), 0
    while len(above) <= MOST_ABOVE and (line := file.readline(LONGEST_LINE)):
        number += 1
        _check_length(line, number)
        widths = {(mark, len(names)) for header in headers for mark, names in _names(header)}
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
                check_count(by_hand, len(full))
            elif names and not places(names):
                names, columns = [], columns[counting(names) or 0 :]
            counts, width = not headers and declared is None and counting(full) == 0, len(names) or len(full)
            return Opening(start, number, separator, len(words), width, names, columns, declared, counts, above=above)
        elif line.strip() and not by_hand and (not headers or COMMENT.match(line)):
            if (is_named := bool(_names(line))) or not COMMENT.match(line):
                (headers if is_named else above).append(line)
        elif re.search(rb"\d", line) and not COMMENT.match(line):
            below = below or f"line {number} is {quoted(line.strip())}, not a row of numbers"
        start = file.tell()
    if above and not headers:
        raise _no_names(above[0], len(above) > MOST_ABOVE)
    raise Refusal(below or "holds no points")


def _is_row(cells: Sequence[bytes], has_header: bool, by_hand: Sequence[str]) -> bool:
    """Whether a line is one of the rows, by which of its cells are numbers, or words for one that is missing."""
    known = [_is_number(cell) and cell not in (b"", b"-") for cell in cells]
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
    words = _split(_plain(line, None, b"."), None)
    cells = re.split(rb"[\t|]", line) if b"\t" in line or b"|" in line else line.split()
    is_decimal = b";" in line or any(WITH_COMMA.fullmatch(cell.strip()) for cell in cells if len(cells) > 1)
    for mark in (";", ",", "\t", "|"):
        fields = _split(_plain(line, mark, b"."), mark)
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
    there = [mark for mark in (";", ",", "\t", "|") if mark in bare]
    words = [word.strip('"') for word in re.sub(r"[(\[][^)\]\d]*[)\]]", "", bare).split()]
    readings = [*((mark, [word.strip(' "') for word in bare.split(mark)]) for mark in there), (None, words)]
    return [(mark, names) for mark, names in readings if places(names) or counting(names) is not None]


def _no_names(line: bytes, rows_follow: bool) -> Refusal:
    hint = f"; {FLAG}" if rows_follow else ""
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


def _with_commas(lines: bytes, opening: Opening) -> tuple[Opening, list[str]]:
    """What commas in numbers mean, by the first lines, and a note if they might mean either.

    With no comma in a number there, a later one is refused.
    """
    if b"," not in lines:
        return opening, []
    cells = IN_QUOTES.findall(lines) if opening.separator == "," else re.split(rb'[\s;|"]+', lines)
    found = [cell for cell in map(bytes.strip, cells) if WITH_COMMA.fullmatch(cell)]
    if not found:
        return opening, []
    comma, is_grouped, is_sure = what_commas_mean(found, b"" if re.search(rb"\d\.\d", lines) else b".")
    note = f"numbers such as {found[0].decode()} taken as {found[0].replace(b',', comma).decode()}"
    return opening._replace(comma=comma, grouped=is_grouped), [] if is_sure else [note]


def _of_words(lines: bytes, opening: Opening) -> set[int]:
    """The columns whose first cell that holds something is a word; those of the coordinates are read nevertheless."""
    words, unknown = set[int](), set(range(opening.width)) - set(places(opening.names, ()).get("points", (0, 1, 2)))
    for line in _plain(lines, opening.separator, opening.comma, opening.grouped).split(b"\n"):
        cells = _split(line, opening.separator)
        if len(cells) < opening.width or COMMENT.match(line):
            continue
        known = {i for i in unknown if (value := _number(cells[i])) is None or value == value}
        words |= {i for i in known if _number(cells[i]) is None}
        unknown -= known
        if not unknown:
            break
    return words


def _is_number(cell: bytes) -> bool:
    """Whether a cell is a number or says that there is none; points may stand for commas between thousands."""
    return _number(cell.replace(b".", b"", cell.count(b".") - 1)) is not None


def _number(cell: bytes) -> float | None:
    """A cell's number, NaN for one that is missing, or None for a word."""
    try:
        return None if b"_" in cell else float(cell)
    except ValueError:
        return WORDS.get(cell.lower())


def _plain(lines: bytes, separator: str | None, comma: bytes, grouped: bool = False) -> bytes:
    """The lines with numbers as Python writes them, and words without quotes and separators."""
    if grouped:
        lines = GROUPED.sub(lambda number: number[0].replace(b".", b""), lines)
    if b"#" in lines or b"(" in lines:
        lines = NOT_FINITE.sub(b"nan", lines)
    if b"D" in lines or b"d" in lines:
        lines = FORTRAN.sub(rb"\1e\2", lines)
    if b'"' in lines:
        mark = (separator or " ").encode()

        def bare(quotes: re.Match[bytes]) -> bytes:
            word = quotes[1].strip()
            return word.replace(b",", comma) if WITH_COMMA.fullmatch(word) else word.replace(mark, b"_") or b"-"

        lines = IN_QUOTES.sub(bare, lines).replace(b'"', b" ")
    return (lines if separator == "," else lines.replace(b",", comma)).replace(b"\r", b" ")


def _split(line: bytes, separator: str | None) -> list[bytes]:
    return [cell.strip() for cell in line.split(separator.encode())] if separator else line.split()


def _table(file: BinaryIO, opening: Opening, wanted: Sequence[int], counts: list[int]) -> Array:
    """The numbers of these columns, from the current position of the file: (N, K).

    Later numbers of points are added to the counts, if there are any.
    """
    found, line = bytearray(), opening.line  # a bytearray grows in place
    while block := file.read(BYTES) + (rest := file.readline(LONGEST_LINE)):
        _check_length(rest, line + block.count(b"\n"))
        lines = _plain(block, opening.separator, opening.comma, opening.grouped)
        rows = _alike(lines, opening, wanted)
        found += (_one_by_one(lines, line, opening, wanted, counts) if rows is None else rows).tobytes()
        line += block.count(b"\n")
    return np.frombuffer(found).reshape(-1, len(wanted)) if found else np.empty((0, 3))


def _check_length(line: bytes, number: int) -> None:
    if len(line) == LONGEST_LINE and line[-1:] != b"\n":
        raise Refusal(f"line {number} is longer than {LONGEST_LINE:,} characters")


def _alike(lines: bytes, opening: Opening, wanted: Sequence[int]) -> Array | None:
    """The numbers of lines that are rows or blank, or None if any is something else."""
    cells = cells_per_line(lines, opening.separator)
    if not ((cells == opening.cells) | (cells <= 1)).all() or (0 not in wanted and COMMENT.search(lines)):
        return None
    rows = [line for line in lines.split(b"\n") if line.strip()]
    try:
        return np.loadtxt(rows, float, None, opening.separator, usecols=wanted, ndmin=2, encoding="ascii")
    except ValueError:
        return None


def _one_by_one(lines: bytes, first: int, opening: Opening, wanted: Sequence[int], counts: list[int]) -> Array:
    """The numbers of lines, whose first has this number in the file.

    Raises:
        Refusal: one has another number of cells, or a word.
    """
    rows = list[Sequence[float | None]]()
    for number, line in enumerate(lines.split(b"\n"), first):
        if not line.strip() or COMMENT.match(line):
            continue
        if counts and COUNT.fullmatch(line):
            counts.append(int(line))
            continue
        for text in (line, line.partition(b"#")[0]):
            cells = _split(text, opening.separator)
            if opening.separator is None and len(cells) < opening.width == text.count(b"\t") + 1:
                cells = _split(text, "\t")  # some are empty
            fits = len(cells) == opening.width or (len(cells) == opening.width + 1 and not cells[-1])
            values = [_number(cells[i]) for i in wanted] if fits else [None]
            if None not in values:
                break
        else:
            if not fits:
                raise Refusal(f"line {number} has {len(cells)} columns, not {opening.width}: {quoted(line.strip())}")
            wrong = wanted[values.index(None)]
            raise Refusal(f"line {number} has {quoted(cells[wrong])} in column {wrong + 1}, not a number")
        rows.append(values)
    return np.array(rows, float).reshape(len(rows), len(wanted))


def _without_counts(rows: Array, opening: Opening) -> tuple[Array, tuple[str, ...]]:
    """The rows without a first one that counts the columns, as pandas writes a table without names.

    Where the first three columns, the coordinates, hold nothing but whole numbers, it stays a point.
    """
    if not opening.counts or len(rows) < 2:
        return rows, ()
    line = f"its first line, {' '.join(map(str, range(opening.width)))},"
    blocks = (rows[start : start + BLOCK, :3] for start in range(1, len(rows), BLOCK))
    if all((block == np.rint(block)).all() for block in blocks):
        return rows, (f"{line} taken as a point, since all coordinates are whole numbers",)
    return rows[1:], (f"{line} taken as a header that counts the columns",)
