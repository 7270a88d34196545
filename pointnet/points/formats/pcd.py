"""PCD, the Point Cloud Library's format: ascii, binary, binary_compressed.

Source: pcl.readthedocs.io, "The PCD (Point Cloud Data) file format"; LZF as in Marc Lehmann's liblzf, lzf_d.c.
"""

import re
from typing import Any

import numpy as np

from ..errors import Refusal
from .behind import bytes_behind, check_behind, lines_behind, rows_behind
from .columns import from_named
from .contents import EXTRAS, Array, Budget, Contents, Extras, size_in_memory
from .names import first_of_each
from .scan import decoded, numbers_of_lines, quoted

LONGEST_HEADER = 100_000
MOST_VALUES = 10_000  # per point
TYPES = {f"{kind}{size}" for kind in "IU" for size in (1, 2, 4, 8)} | {"F4", "F8"}
PACKED_COLORS = ("rgb", "rgba")
ROTATION = 3  # w of a viewpoint x y z w qx qy qz: if all others are 0, nothing moves
PcdHeader = dict[str, list[str]]
Columns = dict[str, Array]
# Names, and the types of what a point has of each: arrays (values,). Only fields of one value are columns.
Fields = list[tuple[str, np.dtype[Any]]]
ONE = (1,)


def parse_pcd(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """A PCD file's points, with the normals, colours and labels its fields name."""
    header, start = _header(data)
    count, fields = _count(header), _fields(header)
    encoding = header["DATA"][0].lower()
    if encoding == "ascii":
        columns, end = _from_text(data, start, count, fields)
    elif encoding == "binary":
        columns, end = _from_bytes(data, start, count, fields)
    elif encoding == "binary_compressed":
        columns, end = _from_compressed(data, start, count, fields, Budget(len(data)))
    else:
        raise Refusal(f"DATA must be ascii, binary or binary_compressed, got {quoted(encoding)}")
    contents = from_named(columns, extras, [name for name, _ in fields])
    rest = data[end:]
    if encoding == "binary" and rest:
        more, _ = _from_bytes(rows_behind(rest, _row(fields)).tobytes(), 0, None, fields)
        check_behind(from_named(more, ()).vertices, contents.vertices, "points", len(rest) // _row(fields).itemsize)
    contents = contents.noted(*bytes_behind(rest, "point"))
    viewpoint = header.get("VIEWPOINT", [])
    if all(not word.strip("+-0.") for i, word in enumerate(viewpoint) if i != ROTATION):
        return contents
    given = quoted(" ".join(viewpoint))
    return contents.noted(f"points are in the sensor's frame, as in the file: VIEWPOINT {given} is not applied")


def _header(data: bytes) -> tuple[PcdHeader, int]:
    """The words after each of the header's keys, and where the data begin."""
    data = data[:LONGEST_HEADER]
    last = re.search(rb"^[ \t]*DATA\b.*\n?", data, re.MULTILINE)
    start = last.end() if last else len(data)
    lines = (line.split("#")[0].split() for line in decoded(data[:start]).split("\n"))
    header: PcdHeader = {key: words for key, *words in filter(None, lines)}
    header.setdefault("FIELDS", header.get("COLUMNS", []))
    for key in ("FIELDS", "SIZE", "TYPE", "DATA"):
        if not header.get(key):
            raise Refusal(f"has no {key} in its header")
    return header, start


def _count(header: PcdHeader) -> int:
    """The number of points, which the header states twice."""
    sides = [_whole(header, key, 1)[0] for key in ("WIDTH", "HEIGHT") if key in header]
    area = sides[0] * sides[1] if len(sides) == 2 else None
    count = _whole(header, "POINTS", 1)[0] if "POINTS" in header else area
    if count is None:
        raise Refusal("has neither POINTS nor WIDTH and HEIGHT")
    if area not in (None, count):
        raise Refusal(f"declares {count} points, but WIDTH x HEIGHT is {area}")
    if count == 0:
        raise Refusal("declares no points")
    return count


def _whole(header: PcdHeader, key: str, count: int) -> list[int]:
    words = header[key]
    if len(words) != count or not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
        raise Refusal(f"{key} must be {count} whole numbers, got {quoted(' '.join(words))}")
    return [int(word) for word in words]


def _fields(header: PcdHeader) -> Fields:
    names = header["FIELDS"]
    sizes, counts = (_whole({"COUNT": ["1"] * len(names), **header}, key, len(names)) for key in ("SIZE", "COUNT"))
    if len(header["TYPE"]) != len(names):
        raise Refusal(f"TYPE must be {len(names)} letters, got {quoted(' '.join(header['TYPE']))}")
    kinds = [f"{kind}{size}" for kind, size in zip(header["TYPE"], sizes, strict=True)]
    if unknown := set(kinds) - TYPES:
        raise Refusal(f"TYPE and SIZE must be I or U of 1, 2, 4 or 8, or F of 4 or 8, got {quoted(min(unknown))}")
    if sum(counts) > MOST_VALUES:
        raise Refusal(f"declares {sum(counts)} values per point")
    fields = zip(names, kinds, counts, strict=True)
    return [(name, np.dtype((f"<{kind.lower()}", (count,)))) for name, kind, count in fields]


def _from_text(text: bytes, start: int, count: int, fields: Fields) -> tuple[Columns, int]:
    """The columns, and where the last point's line ends."""
    width = sum(kind.shape[0] for _, kind in fields)
    if count * width * 2 > len(text) - start + 1:
        raise Refusal(f"declares {count} points of {width} values, more than the file holds")
    values, end = numbers_of_lines(text, start, count)
    if values.size != count * width:
        raise Refusal(f"declares {count} points of {width} values, a line each, holds {values.size} values")
    lines_behind(text[end:], "points", count, width)
    values, columns, at = values.reshape(count, width), Columns(), 0
    for name, kind in fields:
        if kind.shape == ONE:
            stays = kind.base.kind == "f" and name not in PACKED_COLORS
            columns.setdefault(name, values[:, at] if stays else values[:, at].astype(kind.base))
        at += kind.shape[0]
    return columns, end


def _row(fields: Fields) -> np.dtype[Any]:
    """A point's record, its fields numbered, since padding is called "_", more than once."""
    return np.dtype([(f"{i}", kind) for i, (_, kind) in enumerate(fields)])


def _from_bytes(data: bytes, start: int, count: int | None, fields: Fields) -> tuple[Columns, int]:
    """The columns of `count` points (None: of all that are there), and where the last one ends."""
    row, there = _row(fields), len(data) - start
    count = there // row.itemsize if count is None else count
    if count * row.itemsize > there:
        raise Refusal(f"declares {count} points of {row.itemsize} bytes, holds {there} bytes of them")
    table = np.frombuffer(data, row, count, start)
    columns = first_of_each((name, table[f"{i}"][:, 0]) for i, (name, kind) in enumerate(fields) if kind.shape == ONE)
    return columns, start + count * row.itemsize


def _from_compressed(data: bytes, start: int, count: int, fields: Fields, budget: Budget) -> tuple[Columns, int]:
    """The columns of fields one after another, each of all points, packed with LZF behind both sizes; and their end."""
    point = sum(kind.itemsize for _, kind in fields)
    packed, size = (int.from_bytes(data[i : i + 4], "little") for i in (start, start + 4))
    begin, end = start + 8, start + 8 + packed
    if size != count * point:
        raise Refusal(f"declares {count} points of {point} bytes, but {size} bytes of them")
    if end > len(data) or size > budget.left:
        raise Refusal(f"declares {packed} bytes that unpack to {size}, more than the file holds")
    budget.charge("its points", count * sum(size_in_memory(kind) for _, kind in fields))
    unpacked = lzf_decompress(data[begin:end], size)
    columns, at = Columns(), 0
    for name, kind in fields:
        if kind.shape == ONE:
            columns.setdefault(name, np.frombuffer(unpacked, kind.base, count, at))
        at += count * kind.itemsize
    return columns, end


def lzf_decompress(packed: bytes, size: int) -> bytes:
    """The `size` bytes that LZF packed into these.

    A byte below 32 is followed by one more than that many plain bytes. Any other is a copy of earlier output: its upper
    three bits give the length (7: the next byte is added), its lower five and the next byte the distance back.

    Raises:
        Refusal: cut short, a copy from before the beginning, or another size.
    """
    out, at = bytearray(), 0
    try:
        while at < len(packed) and len(out) <= size:
            control = packed[at]
            at += 1
            if control < 32:
                out += packed[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[at]
                at += 1
            back = ((control & 31) << 8) + packed[at] + 1
            at += 1
            start, length = len(out) - back, length + 2
            if start < 0:
                raise Refusal("its packed data refer to what comes before their beginning")
            # A copy may overlap its own output, which it then repeats.
            out += (out[start : start + length] * (length // back + 1))[:length]
    except IndexError as error:
        raise Refusal("its packed data are cut short") from error
    if at > len(packed) or len(out) != size:
        raise Refusal(f"its packed data unpack to {len(out)} bytes, not to {size}")
    return bytes(out)
