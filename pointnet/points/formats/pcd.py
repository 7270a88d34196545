"""PCD, the Point Cloud Library's format: ascii, binary, binary_compressed.

Source: pcl.readthedocs.io, "The PCD (Point Cloud Data) file format"; LZF as in Marc Lehmann's liblzf, lzf_d.c.
"""

from __future__ import annotations

import numpy as np

from ..errors import Refusal
from .columns import from_named
from .contents import EXTRAS, Array, Contents, Extras, most_bytes
from .scan import numbers, numbers_of_lines, quoted

LONGEST_HEADER = 100_000
MOST_VALUES = 10_000  # a point
TYPES = {f"{kind}{size}" for kind in "IU" for size in (1, 2, 4, 8)} | {"F4", "F8"}
PACKED_COLORS = ("rgb", "rgba")
Header = dict[str, list[str]]


def parse_pcd(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """A PCD file's points, with the normals, colours and labels its fields name.

    Raises:
        Refusal: a header that is not PCD's or that lies about the size, or data that are no numbers.
    """
    header, start = _header(data)
    count, dtype = _count(header), _dtype(header)
    encoding = header["DATA"][0].lower()
    if encoding == "ascii":
        table = _from_text(data, start, count, dtype)
    elif encoding == "binary":
        table = _from_bytes(data, start, count, dtype)
    elif encoding == "binary_compressed":
        table = _from_compressed(data[start:], count, dtype, most_bytes(len(data)))
    else:
        raise Refusal(f"DATA must be ascii, binary or binary_compressed, got {quoted(encoding)}")
    return from_named(_with_unpacked_colors(table) if "colors" in extras else table, extras)


def _header(data: bytes) -> tuple[Header, int]:
    """The words after each of the header's keys, and where the data begin."""
    header: Header = {}
    start = 0
    while start < min(len(data), LONGEST_HEADER):
        end = data.find(b"\n", start) + 1 or len(data)
        words = data[start:end].split(b"#")[0].decode("latin-1").split()
        start = end
        if words:
            header["FIELDS" if words[0] == "COLUMNS" else words[0]] = words[1:]
        if words and words[0] == "DATA":
            break
    for key in ("FIELDS", "SIZE", "TYPE", "DATA"):
        if not header.get(key):
            raise Refusal(f"has no {key} in its header")
    return header, start


def _count(header: Header) -> int:
    """The number of points, which is said twice."""
    sides = [_whole(header, key, 1)[0] for key in ("WIDTH", "HEIGHT") if key in header]
    area = sides[0] * sides[1] if len(sides) == 2 else None
    count = _whole(header, "POINTS", 1)[0] if "POINTS" in header else area
    if count is None:
        raise Refusal("says neither POINTS nor WIDTH and HEIGHT")
    if area not in (None, count):
        raise Refusal(f"declares {count} points, but WIDTH x HEIGHT is {area}")
    if count == 0:
        raise Refusal("declares no points")
    return count


def _whole(header: Header, key: str, count: int) -> list[int]:
    words = header[key]
    if len(words) != count or not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
        raise Refusal(f"{key} must be {count} whole numbers, got {quoted(' '.join(words))}")
    return [int(word) for word in words]


def _dtype(header: Header) -> np.dtype[np.void]:
    """A point as the header describes it."""
    names = header["FIELDS"]
    sizes, counts = (_whole({"COUNT": ["1"] * len(names), **header}, key, len(names)) for key in ("SIZE", "COUNT"))
    kinds = [f"{kind}{size}" for kind, size in zip(header["TYPE"], sizes, strict=True)]
    if unknown := set(kinds) - TYPES:
        raise Refusal(f"TYPE and SIZE must be I or U of 1, 2, 4 or 8, or F of 4 or 8, got {quoted(min(unknown))}")
    if sum(counts) > MOST_VALUES:
        raise Refusal(f"declares {sum(counts)} values a point")
    fields = []
    for i, (name, kind, count) in enumerate(zip(names, kinds, counts, strict=True)):
        # Padding is called "_", more than once.
        fields.append((f"{name} {i}", f"<{kind.lower()}", (count,)))
    return np.dtype(fields)


def _columns(table: Array) -> dict[str, Array]:
    """The fields of one value, by their names."""
    names = [name for name in table.dtype.names or () if table.dtype[name].shape == (1,)]
    return {name.rsplit(" ", 1)[0]: table[name][:, 0] for name in reversed(names)}


def _from_text(text: bytes, start: int, count: int, dtype: np.dtype[np.void]) -> dict[str, Array]:
    width = sum(dtype[name].shape[0] for name in dtype.names or ())
    if count * width * 2 > len(text) - start + 1:
        raise Refusal(f"declares {count} points of {width} values, more than the file holds")
    values, end = numbers_of_lines(text, start, count)
    beyond = text[end:].strip()
    if values.size != count * width or beyond:
        there = values.size + numbers(beyond).size
        raise Refusal(f"declares {count} points of {width} values, a line each, holds {there} values")
    values = values.reshape(count, width)
    columns, at = {}, 0
    for field in dtype.names or ():
        (size,), kind, name = dtype[field].shape, dtype[field].base, field.rsplit(" ", 1)[0]
        if size == 1:
            packed = name in PACKED_COLORS
            columns[name] = values[:, at] if kind.kind == "f" and not packed else values[:, at].astype(kind)
        at += size
    return columns


def _from_bytes(data: bytes, start: int, count: int, dtype: np.dtype[np.void]) -> dict[str, Array]:
    there = len(data) - start
    if count * dtype.itemsize > there:
        raise Refusal(f"declares {count} points of {dtype.itemsize} bytes, holds {there} bytes of them")
    return _columns(np.frombuffer(data, dtype, count, start))


def _from_compressed(data: bytes, count: int, dtype: np.dtype[np.void], limit: int) -> dict[str, Array]:
    """Fields one after another, all points' each, packed with LZF behind both sizes."""
    packed, size = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4))
    if size != count * dtype.itemsize:
        raise Refusal(f"declares {count} points of {dtype.itemsize} bytes, but {size} bytes of them")
    if packed > len(data) - 8 or size > limit:
        raise Refusal(f"declares {packed} bytes that unpack to {size}, more than the file holds")
    unpacked = lzf_decompress(data[8 : 8 + packed], size)
    columns, start = {}, 0
    for name in dtype.names or ():
        field = dtype[name]
        if field.shape == (1,):
            columns[name.rsplit(" ", 1)[0]] = np.frombuffer(unpacked, field.base, count, start)
        start += count * field.itemsize
    return columns


def lzf_decompress(packed: bytes, size: int) -> bytes:
    """What LZF packed into these bytes: `size` of them.

    A byte below 32 is followed by one more than that many plain bytes. Any other is a copy from what came before: its
    upper three bits say how long (7: the next byte is added), its lower five and the next byte from how far back.

    Raises:
        Refusal: it is cut short, refers to what is not there, or unpacks to another size.
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
            # A copy may run into what it writes itself, and then repeats it.
            out += (out[start : start + length] * (length // back + 1))[:length]
    except IndexError as error:
        raise Refusal("its packed data are cut short") from error
    if at > len(packed) or len(out) != size:
        raise Refusal(f"its packed data unpack to {len(out)} bytes, not to {size}")
    return bytes(out)


def _with_unpacked_colors(columns: dict[str, Array]) -> dict[str, Array]:
    """Replaces `rgb` or `rgba`, 0xAARRGGBB in the bits of an integer or of a float, by r, g and b."""
    for name in PACKED_COLORS:
        if name in columns and columns[name].dtype.itemsize == 4:
            packed = np.ascontiguousarray(columns[name]).view(np.uint32)
            columns |= {key: (packed >> shift & 255).astype(np.uint8) for key, shift in (("r", 16), ("g", 8), ("b", 0))}
    return columns
