"""Arrays: NPY, NPZ. Their headers are judged against the bytes that are there before memory is taken; no pickle."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection, Mapping
from itertools import islice

import numpy as np

from .columns import as_labels, as_unit_colors, from_named, from_rows
from .contents import EXTRAS, Array, Contents, Extras, Refusal, most_bytes

# Data sets, or members, that may hold a cloud's parts, in order of preference.
NAMES = {
    "points": ("points", "xyz", "pos", "data", "vertices", "arr_0"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "color", "rgb"),
    "labels": ("labels", "label", "parts", "seg", "pid"),
}
MOST_COLUMNS = 100
MOST_MEMBERS = 1000


def parse_npy(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """One array (N, 3 or more), or structured with fields x, y and z.

    Raises:
        Refusal: not NPY, an array of objects, one larger than the file, or of another shape.
    """
    array = _npy(data)
    if array.dtype.names:
        return from_named({name: array[name].reshape(-1) for name in array.dtype.names}, extras)
    return from_rows(_as_rows(array, "the array"), extras)


def parse_npy_table(data: bytes) -> Array:
    """One array of numbers (N, K), without a copy.

    Raises:
        Refusal: not NPY, an array of objects, one larger than the file, or of another shape.
    """
    return _as_rows(_npy(data), "the array", 1)


def parse_npz(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An archive of arrays: points (or xyz, pos, data), and normals, colors and labels where there are some.

    Raises:
        Refusal: not NPZ, nothing named like points, a member that unpacks to more than a file of this size may, rows
            that do not match.
    """
    if data.count(b"PK\1\2") > MOST_MEMBERS:
        raise Refusal(f"holds more than {MOST_MEMBERS} members")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        limit, arrays = most_bytes(len(data)), {}
        for what, name in find_arrays(members, extras).items():
            unpacked = _unpacked(archive, members[name], limit)
            limit -= len(unpacked)
            arrays[what] = _npy(unpacked)
    return from_arrays(arrays, extras)


def find_arrays(there: Collection[str], extras: Extras) -> dict[str, str]:
    """Which of the names there are those of the points, and of what else is wanted.

    Raises:
        Refusal: none is that of points.
    """
    found = {what: next((name for name in NAMES[what] if name in there), "") for what in ("points", *extras)}
    if not found["points"]:
        names = ", ".join(map(ascii, sorted(islice(there, 8)))) or "nothing"
        raise Refusal(f"holds no array named {', '.join(NAMES['points'][:4])}, only {names[:200]}")
    return {what: name for what, name in found.items() if name}


def from_arrays(arrays: Mapping[str, Array], extras: Extras) -> Contents:
    """Contents from arrays by what they are.

    Raises:
        Refusal: rows that do not match.
    """
    normals, colors, labels = map(arrays.get, EXTRAS)
    contents = from_rows(_as_rows(arrays["points"], "points"), extras)
    if normals is not None:
        contents = contents._replace(normals=_matched(normals, contents, "normals")[:, :3])
    if colors is not None:
        contents = contents._replace(colors=as_unit_colors(_matched(colors, contents, "colors")))
    if labels is not None:
        contents = contents._replace(labels=as_labels(_matched(labels.reshape(-1, 1), contents, "labels", 1)[:, 0]))
    return contents


def _matched(array: Array, contents: Contents, name: str, width: int = 3) -> Array:
    rows = _as_rows(array, name, width)
    if len(rows) != len(contents.vertices):
        raise Refusal(f"holds {len(contents.vertices)} points but {len(rows)} {name}")
    return rows


def _as_rows(array: Array, name: str, width: int = 3) -> Array:
    """An array of numbers as (N, K), K at least `width`."""
    if array.dtype.kind not in "fiub":
        raise Refusal(f"{name} must be numbers, got {str(array.dtype)[:40]}")
    if array.ndim != 2 or not width <= array.shape[1] <= MOST_COLUMNS:
        raise Refusal(f"{name} must be (N, {width}) or a little wider, got {array.shape}")
    return array


def _npy(data: bytes) -> Array:
    """The array of an NPY file, without a copy."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise Refusal(f"is NPY of version {version[0]}.{version[1]}, which is not known")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read_header(stream)
    if dtype.hasobject:
        raise Refusal("holds Python objects, which are not loaded, since that can run anything")
    size = math.prod(shape) * dtype.itemsize
    if size > len(data) - stream.tell() or dtype.itemsize == 0:
        raise Refusal(f"declares an array of {shape}, {size} bytes, but holds {len(data) - stream.tell()}")
    array = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    return array.reshape(shape, order="F" if by_columns else "C")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """A member's bytes, at most `limit`, whatever it says of itself."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise Refusal(f"{member.filename[:40]!a} is packed in a way numpy does not write")
    if member.file_size > limit:
        raise Refusal(f"{member.filename[:40]!a} unpacks to {member.file_size} bytes, more than is allowed here")
    with archive.open(member) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise Refusal(f"{member.filename[:40]!a} unpacks to more than it declares")
    return data
