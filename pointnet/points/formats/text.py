"""Text, one point per line: XYZ, TXT, CSV, PTS, ASC, as scanners, CloudCompare and the point-cloud data sets write it.

Numbers are separated by spaces, tabs, commas, semicolons or bars; where commas do not separate, they are decimal
points. The first line may name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B`) or count them (`0,1,2`), or give the
number of points (PTS).
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import Refusal
from .by_numbers import ENOUGH
from .columns import from_named, from_table
from .contents import EXTRAS, Array, Contents, Extras
from .names import FLAG, SKIPPED, check_count, check_shape, counting, places
from .scan import MARK, NOT_FINITE, quoted, unix_lines

LONGEST_LINE = 100_000
BLOCK = 1 << 14  # rows parsed at once
BYTES = 1 << 16  # of lines that are cleaned at once
QUOTES, DECIMAL_COMMAS = bytes.maketrans(b'"', b" "), bytes.maketrans(b',"', b". ")
WITH_COMMA = re.compile(rb"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
QUOTED_COMMA = re.compile(rb'"\s*([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)\s*"')
IN_QUOTES = re.compile(rb'"[^"\n]*"')


class Opening(NamedTuple):
    """What precedes the points of a text, and how they are written."""

    start: int  # the byte where the rows begin
    separator: str | None  # of the fields; None: spaces and tabs
    decimal_commas: bool  # in quotes, where commas separate too
    width: int  # of a row
    names: list[str]  # of the columns; none if there is no header
    columns: list[int]  # to read; none: all
    declared: int | None  # the number of points
    counts: bool = False  # whether the first row counts the columns: 0 1 2


def parse_table(data: bytes) -> Array:
    """A text of nothing but numbers and spaces, the same count on each line: (N, K)."""
    return _table(io.BytesIO(data), None, [], comments=None)


def parse_text(path: Path, extras: Extras = EXTRAS, columns: Sequence[str] = (), usual: Sequence[str] = ()) -> Contents:
    """A text's points; columns are known by the names in its first line, else recognised by `recognised`.

    Args:
        columns: the names of the columns, by hand; those in the file do not count.
        usual: what a file of this suffix has, if so many columns have no names.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_LINE)
        if b"\0" in head:
            raise Refusal("is not text of one byte a letter; save it as UTF-8")
        source: BinaryIO = file
        if b"\r" in head and b"\n" not in head:
            source = io.BytesIO(unix_lines(head + file.read()))
        source.seek(len(MARK) if head.startswith(MARK) else 0)
        opening = _opening(source, columns)
        names = opening.names or (usual if len(usual) == opening.width else [])
        wanted = opening.columns
        if names:
            wanted = list(dict.fromkeys(place for group in places(names, extras).values() for place in group))
        source.seek(opening.start)
        counts = [] if opening.declared is None else [opening.declared]
        lines = _cleaned(source, opening, counts)
        rows = _table(lines, opening.separator, wanted, comments="#", most=None if names or extras else ENOUGH)
    rows, notes = _without_counts(rows, opening)
    if counts and sum(counts) != len(rows):
        raise Refusal(f"declares {sum(counts)} points, holds {len(rows)}")
    if names:
        contents = from_named({names[i]: rows[:, k] for k, i in enumerate(wanted)}, extras, names)
    else:
        check_shape(len(rows), opening.width)
        is_pts = opening.declared is not None or path.suffix.lower() == ".pts"
        contents = from_table(rows, extras, is_pts=is_pts)
    return contents._replace(notes=(*notes, *contents.notes))


def _opening(file: BinaryIO, by_hand: Sequence[str]) -> Opening:
    """What precedes the points, from the current position of the file."""
    header = b""
    declared: int | None = None
    skipped = ""
    start = file.tell()
    while line := file.readline(LONGEST_LINE):
        line = NOT_FINITE.sub(b"nan", line)
        separator, fields = _row(line, bool(header or by_hand))
        numbers = [_is_number(field) for field in fields]
        words = [field.decode("latin-1") for field in fields]
        if len(fields) == 1 and declared is None and fields[0].isdigit() and len(fields[0]) < 19:
            declared = int(fields[0])
        elif fields and _is_row(numbers, words, bool(header), by_hand):
            full = words if fields[-1] else words[:-1]  # rows may end with a separator
            names = list(by_hand) or _names_of(header, (len(full), len(words)))
            columns = list(range(len(full))) if full != words else []
            if by_hand:
                check_count(by_hand, len(full))
            elif names and not places(names):
                names, columns = [], list(range(counting(names) or 0, len(full)))
            counts = not header and declared is None and all(numbers) and counting(full) == 0
            return Opening(
                start, separator, bool(QUOTED_COMMA.search(line)), len(full), names, columns, declared, counts
            )
        elif by_hand and len(fields) == len(by_hand) and any(numbers) and not skipped:
            missing = [name for n, name in zip(numbers, by_hand, strict=True) if not n and name != SKIPPED]
            skipped = f"{quoted(line.strip())} has no number for {', '.join(missing)}"
        elif line.strip() and not header and not by_hand:
            header = line if _names(line) else b""
        start = file.tell()
    raise Refusal(skipped or "holds no points")


def _is_row(numbers: Sequence[bool], words: Sequence[str], has_header: bool, by_hand: Sequence[str]) -> bool:
    """Whether a line is one of the rows, by which of its words are numbers."""
    if by_hand:
        return counting(words) != 1 and all(n for n, name in zip(numbers, by_hand, strict=False) if name != SKIPPED)
    return any(numbers) if has_header else all(numbers[:3])


def _row(line: bytes, has_names: bool) -> tuple[str | None, list[bytes]]:
    """The separator and the fields of a line; a comment has no fields."""
    line = QUOTED_COMMA.sub(rb"\1.\2", line).partition(b"#")[0].strip(b" \r\n")
    if line.startswith(b"//"):
        return None, []
    words = line.translate(DECIMAL_COMMAS).split()
    cells = line.split(b"\t") if b"\t" in line else line.split()
    is_decimal = b";" in line or any(WITH_COMMA.fullmatch(cell.strip()) for cell in cells if len(cells) > 1)
    for mark, table in ((b";", DECIMAL_COMMAS), (b",", QUOTES), (b"\t", DECIMAL_COMMAS), (b"|", DECIMAL_COMMAS)):
        fields = [field.strip() for field in _quoted_apart(line, mark).translate(table).split(mark)]
        # Tabs beside spaces, or several in a row, count as spaces.
        is_separator = not is_decimal if mark == b"," else has_names and fields == words if mark == b"\t" else True
        if len(fields) > 1 and is_separator:
            return mark.decode(), fields
    return None, words


def _names(line: bytes) -> list[list[str]]:
    """The columns that a line names or counts, one reading for each separator in it; none if it is only a comment."""
    text = line.decode("latin-1").rstrip("\r\n")
    bare = text.strip().removeprefix("#").removeprefix("//") if text.strip().startswith(("#", "//")) else text
    there = [mark for mark in (";", ",", "\t", "|") if mark in bare]
    readings = [[word.strip(' "') for word in bare.split(mark)] for mark in there]
    readings.append([word.strip('"') for word in re.sub(r"[(\[][^)\]\d]*[)\]]", "", bare).split()])
    if found := [names for names in readings if places(names) or counting(names) is not None]:
        return found
    if bare != text:
        return []
    hint = f"; {FLAG}" if any(len(names) > 2 for names in readings) else ""
    raise Refusal(f"begins with {quoted(text.strip())}, neither numbers nor names of columns with x, y and z{hint}")


def _names_of(header: bytes, widths: tuple[int, ...]) -> list[str]:
    """The names in a header, one for each column; none if there is no header, or it is only a comment."""
    readings = _names(header) if header else []
    fitting = [names for names in readings if len(names) in widths]
    if readings and not fitting and not header.strip().startswith((b"#", b"//")):
        raise Refusal(f"names {len(readings[0])} columns, but its first row has {widths[0]}")
    return fitting[0] if fitting else []


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _quoted_apart(text: bytes, separator: bytes) -> bytes:
    """The text without the separators that are in quotes, and belong to a word."""
    return IN_QUOTES.sub(lambda word: word[0].replace(separator, b" "), text) if b'"' in text else text


def _filled(lines: list[bytes], separator: bytes, width: int) -> list[bytes]:
    """The lines with NaN in the cells that are empty. Refusal where one has another number of cells."""
    filled = []
    for line in lines:
        cells = line.split(separator)
        if len(cells) != width and not (len(cells) == width + 1 and not cells[-1].strip()) and b"#" not in line:
            raise Refusal(f"has a row of {len(cells)} columns, not {width}: {quoted(line.strip())}")
        empty = any(not cell or cell.isspace() for cell in cells[:width])
        filled.append(separator.join(cell if cell.strip() else b"nan" for cell in cells) if empty else line)
    return filled


def _cleaned(file: BinaryIO, opening: Opening, counts: list[int]) -> Iterator[bytes]:
    """The lines that are not blank, as `np.loadtxt` reads them; a later number of points goes to the counts, if any."""
    table = QUOTES if opening.separator == "," else DECIMAL_COMMAS
    while block := file.read(BYTES) + file.readline():
        if b"#" in block or b"(" in block:
            block = NOT_FINITE.sub(b"nan", block)
        if opening.decimal_commas:
            block = QUOTED_COMMA.sub(rb"\1.\2", block)
        if opening.separator:
            block = _quoted_apart(block, opening.separator.encode())
        lines = [line for line in block.translate(table).split(b"\n") if line.strip()]
        if counts:
            counts += [int(line) for line in lines if line.strip().isdigit()]
            lines = [line for line in lines if not line.strip().isdigit()]
        width = len(opening.names) or opening.width
        yield from _filled(lines, opening.separator.encode(), width) if opening.separator else lines


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


def _table(
    lines: Iterable[bytes], separator: str | None, columns: list[int], comments: str | None, most: int | None = None
) -> Array:
    """The numbers of these columns (of all, if the list is empty), and of those the first `most`: (N, K)."""
    found, width, rows = bytearray(), 0, 0  # a bytearray grows in place
    try:
        while True:
            block = np.loadtxt(
                lines, float, comments, separator, usecols=columns or None, ndmin=2, encoding="latin-1", max_rows=BLOCK
            )
            if rows and len(block) and block.shape[1] != width:
                raise ValueError(f"the number of columns changed from {width} to {block.shape[1]} at row 1")
            width = block.shape[1] if len(block) else width
            found += block[:, :most].tobytes()
            rows += len(block)
            if len(block) < BLOCK:
                return np.frombuffer(found).reshape(rows, -1) if rows else np.empty((0, 3))
    except ValueError as error:
        reason = re.sub(r"(?<=at row )\d+", lambda row: str(int(row[0]) + rows), str(error).split(";")[0])
        raise Refusal(f"is not a table of numbers: {reason}") from error
