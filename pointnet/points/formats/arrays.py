"""Arrays: NPY, NPZ. Headers are checked against the bytes that are there before memory is taken; no pickle."""

import io
import math
import zipfile
from collections.abc import Collection, Mapping
from itertools import islice

import numpy as np

from ..errors import Refusal
from .columns import ARRAYS, from_named, from_parts, recognised
from .contents import EXTRAS, Array, Contents, Extras, most_bytes
from .scan import quoted

MOST_COLUMNS = 100
MOST_MEMBERS = 1000
WIDTHS = {"normals": 3, "colors": 3, "labels": 1, "intensity": 1}


def parse_npy(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """One array (N, 3 or more), or structured with fields x, y and z."""
    array = _npy(data)
    if array.dtype.names:
        return from_named({name: array[name].reshape(-1) for name in array.dtype.names}, extras)
    return from_parts(recognised(_as_rows(array, "the array"), extras))


def parse_npy_table(data: bytes) -> Array:
    """One array of numbers (N, K), without a copy."""
    return _as_rows(_npy(data), "the array", 1)


def parse_npz(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An archive of arrays with the names of `ARRAYS`."""
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
    """The names of the points and of the wanted extras among those that are there.

    Raises:
        Refusal: none is a name of points.
    """
    found = {what: next((name for name in ARRAYS[what] if name in there), "") for what in ("points", *extras)}
    if not found["points"]:
        names = ", ".join(map(ascii, sorted(islice(there, 8)))) or "nothing"
        raise Refusal(f"holds no array named {', '.join(ARRAYS['points'][:4])}, only {names[:200]}")
    return {what: name for what, name in found.items() if name}


def from_arrays(arrays: Mapping[str, Array], extras: Extras) -> Contents:
    """Contents from arrays; an extra without an array of its own is looked for in the columns of the points.

    Raises:
        Refusal: rows that do not match.
    """
    points = _as_rows(arrays["points"], "points")
    parts = recognised(points, extras)
    for name, width in WIDTHS.items():
        if name in arrays:
            array = arrays[name].reshape(-1, 1) if width == 1 else arrays[name]
            parts[name] = _as_rows(array, name, width)[:, :width]
            if len(array) != len(points):
                raise Refusal(f"holds {len(points)} points but {len(array)} {name}")
    return from_parts(parts)


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
    there = len(data) - stream.tell()
    size = math.prod(shape) * dtype.itemsize
    if size > there or dtype.itemsize == 0:
        raise Refusal(f"declares an array of {shape}, {size} bytes, but holds {there}")
    array = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    return array.reshape(shape, order="F" if by_columns else "C")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """A member's bytes, at most `limit`, whatever size it declares."""
    name = quoted(member.filename)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise Refusal(f"{name} is packed in a way numpy does not write")
    if member.file_size > limit:
        raise Refusal(f"{name} unpacks to {member.file_size} bytes, more than is allowed here")
    with archive.open(member) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise Refusal(f"{name} unpacks to more than it declares")
    return data
