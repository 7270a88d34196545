"""Text, one point per line: XYZ, TXT, CSV, PTS, ASC, as scanners, CloudCompare and the point-cloud data sets write it.

Numbers are separated by spaces, tabs, commas or semicolons (with semicolons, a comma is a decimal point). The first
line may name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B`) or give the number of points (PTS).
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import Refusal
from .columns import from_named, from_parts, known_columns, plain, recognised
from .contents import EXTRAS, Array, Contents, Extras
from .scan import quoted

LONGEST_LINE = 100_000
BLOCK = 1 << 14  # rows parsed at once
QUOTES, SEMICOLONS = bytes.maketrans(b'"', b" "), bytes.maketrans(b',"', b". ")
MARK = b"\xef\xbb\xbf"  # some editors begin a UTF-8 file with it
PTS = ["x", "y", "z", "intensity", "r", "g", "b"]  # the seven columns of a file that declares its number of points


def parse_table(data: bytes) -> Array:
    """A text of nothing but numbers and spaces, the same count on each line: (N, K)."""
    return _table(io.BytesIO(data), None, [], comments=None)


def parse_text(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A text's points; columns are known by the names in its first line, else recognised by `from_rows`."""
    with path.open("rb") as file:
        head = file.read(LONGEST_LINE)
        if b"\0" in head:
            raise Refusal("is not text of one byte a letter; save it as UTF-8")
        file.seek(len(MARK) if head.startswith(MARK) else 0)
        start, separator, names, columns, declared = _opening(file)
        file.seek(start)
        if names:
            # Of two columns of one name the first counts.
            columns = sorted(names.index(name) for name in known_columns(names, extras))
        table = SEMICOLONS if separator == ";" else QUOTES
        lines = (line.translate(table) for line in file if not line.isspace())
        rows = _table(lines, separator, columns, comments="#", most=None if names or extras else 3)
    if declared not in (None, len(rows)):
        raise Refusal(f"declares {declared} points, holds {len(rows)}")
    if not names:
        return from_parts(recognised(rows, extras))
    return from_named({names[i]: rows[:, k] for k, i in enumerate(columns)}, extras)


def _opening(file: BinaryIO) -> tuple[int, str | None, list[str], list[int], int | None]:
    """What precedes the points, from the current position of the file.

    Returns:
        The byte where the rows begin; the separator of the fields (None: spaces and tabs); the names of the columns, if
        there is a header; the columns to read (none: all); the number of points, if declared.
    """
    header = b""
    declared: int | None = None
    start = file.tell()
    while line := file.readline(LONGEST_LINE):
        separator, fields = _row(line, bool(header))
        if len(fields) == 1 and declared is None and fields[0].isdigit() and len(fields[0]) < 19:
            declared = int(fields[0])
        elif fields and (any(map(_is_number, fields)) if header else all(map(_is_number, fields[:3]))):
            full = fields[:-1] if not fields[-1] else fields  # rows may end with a separator
            names = _names_of(header, (len(full), len(fields)))
            if not names and declared is not None and len(full) == len(PTS):
                names = PTS
            return start, separator, names, list(range(len(full))) if full != fields else [], declared
        elif line.strip() and not header:
            header = line if _names(line) else b""
        start += len(line)
    raise Refusal("holds no points")


def _row(line: bytes, has_names: bool) -> tuple[str | None, list[bytes]]:
    """The separator and the fields of a line; a comment has no fields."""
    line = line.partition(b"#")[0].strip(b" \r\n")
    if line.startswith(b"//"):
        return None, []
    words = line.translate(QUOTES).split()
    for mark, table in ((b";", SEMICOLONS), (b",", QUOTES), (b"\t", QUOTES)):
        fields = [field.strip() for field in line.translate(table).split(mark)]
        # Tabs beside spaces, or several in a row, count as spaces.
        if len(fields) > 1 and (mark != b"\t" or (has_names and fields == words)):
            return mark.decode(), fields
    return None, words


def _names(line: bytes) -> list[list[str]]:
    """The columns that a line names, one reading for each separator in it; none if it is a comment without names."""
    text = line.decode("latin-1").rstrip("\r\n")
    bare = text.strip().removeprefix("#").removeprefix("//") if text.strip().startswith(("#", "//")) else text
    there = [mark for mark in (";", ",", "\t") if mark in bare]
    readings = [[plain(word) for word in bare.split(mark)] for mark in (*there, None)]
    if found := [names for names in readings if known_columns(names)]:
        return found
    if bare != text:
        return []
    raise Refusal(f"begins with {quoted(text.strip())}, neither numbers nor names of columns with x, y and z")


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
