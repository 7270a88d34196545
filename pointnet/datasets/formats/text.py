"""Text, a point a line: XYZ, TXT, CSV, PTS, ASC, as scanners, CloudCompare and the point-cloud data sets write it.

Numbers stand between spaces, tabs, commas or semicolons (with semicolons, a comma is a decimal point). A first line may
name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B`) or say how many points there are (PTS).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from .columns import from_named, from_rows, known_columns, plain
from .contents import Array, Contents, Refusal
from .scan import quoted

LONGEST_LINE = 100_000
COMMAS = bytes.maketrans(b",", b" ")
SEMICOLONS = bytes.maketrans(b";,", b" .")


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


def parse_text(data: bytes) -> Contents:
    """A text's points; their columns are what the first line calls them, or else what `from_rows` makes of them.

    Raises:
        Refusal: not text, no points, lines of different lengths, something that is no number, fewer than 3 columns.
    """
    if b"\0" in data[:LONGEST_LINE]:
        raise Refusal("is not text of one byte a letter; save it as UTF-8")
    table = SEMICOLONS if b";" in data[:LONGEST_LINE] else COMMAS
    opening = _opening(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf").translate(table, delete=b'"')))
    names = opening.names or []
    kept = [i for i, name in enumerate(names) if name in known_columns(names)]
    rows = _table(opening.rows, kept, comments=b"#" in data)
    if opening.declared not in (None, len(rows)):
        raise Refusal(f"declares {opening.declared} points, holds {len(rows)}")
    return from_named({names[i]: rows[:, k] for k, i in enumerate(kept)}) if names else from_rows(rows)


def _opening(stream: io.BytesIO) -> Opening:
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


def _table(lines: Iterator[bytes], kept: list[int], comments: bool) -> Array:
    """The numbers of all lines, or of the kept columns if there are any: (N, K)."""
    try:
        return np.loadtxt(lines, usecols=kept or None, ndmin=2, comments="#" if comments else None, encoding="latin-1")
    except ValueError as error:
        raise Refusal(f"is not a table of numbers: {str(error).split(';')[0]}") from error
