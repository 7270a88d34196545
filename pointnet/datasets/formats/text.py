"""Text, a point a line: XYZ, TXT, CSV, PTS, ASC, as scanners, CloudCompare and the point-cloud data sets write it.

Numbers stand between spaces, tabs, commas or semicolons (with semicolons, a comma is a decimal point). A first line may
name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B`) or say how many points there are (PTS).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .columns import from_named, from_rows, known_columns, plain
from .contents import EXTRAS, Array, Contents, Extras, Refusal
from .scan import quoted

LONGEST_LINE = 100_000
PIECE = 1 << 18  # bytes read at once
BLOCK = 1 << 14  # rows made numbers at once
COMMAS = bytes.maketrans(b',"', b"  ")
SEMICOLONS = bytes.maketrans(b';,"', b" . ")
MARK = b"\xef\xbb\xbf"  # of UTF-8, which some editors begin a file with


def parse_table(data: bytes) -> Array:
    """A text of numbers between spaces, as many on each line, and nothing else: (N, K).

    Raises:
        Refusal: lines of different lengths, or something that is no number.
    """
    return _table(iter(io.BytesIO(data)), [], comments=False)


class Opening(NamedTuple):
    names: list[str] | None  # of the columns
    declared: int | None  # points
    rows: Iterator[bytes]


def parse_text(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A text's points; their columns are what the first line calls them, or else what `from_rows` makes of them.

    Raises:
        Refusal: not text, no points, lines of different lengths, something that is no number, fewer than 3 columns.
    """
    with path.open("rb") as file:
        start = file.read(LONGEST_LINE)
        if b"\0" in start:
            raise Refusal("is not text of one byte a letter; save it as UTF-8")
        file.seek(len(MARK) if start.startswith(MARK) else 0)
        opening = _opening(io.BufferedReader(_Translated(file, SEMICOLONS if b";" in start else COMMAS), PIECE))
        names = opening.names or []
        known = known_columns(names, extras)
        kept = [i for i, name in enumerate(names) if name in known]
        rows = _table(opening.rows, kept, comments=True, most=None if names or extras else 3)
    if opening.declared not in (None, len(rows)):
        raise Refusal(f"declares {opening.declared} points, holds {len(rows)}")
    return from_named({names[i]: rows[:, k] for k, i in enumerate(kept)}, extras) if names else from_rows(rows, extras)


class _Translated(io.RawIOBase):
    """A file's bytes, each exchanged for another as the table has it, read piece by piece."""

    def __init__(self, file: BinaryIO, table: bytes):
        self.file, self.table = file, table

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer)).translate(self.table)
        buffer[: len(data)] = data
        return len(data)


def _opening(stream: BinaryIO) -> Opening:
    """What stands before the points, and the lines from there on."""
    names: list[str] | None = None
    declared: int | None = None
    while line := stream.readline(LONGEST_LINE):
        words = line.split()
        if not words:
            continue
        if len(words) == 1 and declared is None and words[0].isdigit() and len(words[0]) < 19:
            declared = int(words[0])
        elif all(map(_is_number, words[:3])):
            return Opening(names, declared, chain([line + stream.readline()] if line[-1:] != b"\n" else [line], stream))
        else:
            names = names or _names(line)
    raise Refusal("holds no points")


def _names(line: bytes) -> list[str] | None:
    """The columns a line names, or None if it is a comment that does not.

    Raises:
        Refusal: it is neither.
    """
    text = line.decode("latin-1").strip()
    names = [plain(word) for word in text.removeprefix("#").removeprefix("//").split()]
    if known_columns(names):
        return names
    if text.startswith(("#", "//")):
        return None
    raise Refusal(f"begins with {quoted(text)}, neither numbers nor names of columns with x, y and z")


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _table(lines: Iterator[bytes], kept: list[int], comments: bool, most: int | None = None) -> Array:
    """The numbers of all lines, or of the kept columns if there are any, and of these the first `most`: (N, K)."""
    sign, found = "#" if comments else None, bytearray()  # which grows where it is
    width = rows = 0
    try:
        while True:
            block = np.loadtxt(lines, usecols=kept or None, ndmin=2, comments=sign, encoding="latin-1", max_rows=BLOCK)
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
