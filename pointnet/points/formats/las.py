"""LAS and LAZ, what laser scanners and surveys give: a header and records of points, plain or packed with LASzip.

Records are mapped into memory, not read, and converted where they are taken, so that a file may be of any size. LAZ is
first unpacked into a temporary file, by lazrs in a process of its own (`unpack_laz.py`), within a time and a size.

Source: ASPRS, LAS Specification 1.4-R15; github.com/LASzip/LASzip, laszip.cpp (the record 22204).
"""

import struct
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from pointnet.extras import MissingExtraError

from ..errors import Refusal
from .contents import BLOCK, EXTRAS, Array, Contents, Extras, Rows
from .scan import quoted

HEADER = struct.Struct("<4s20xBB68xHIIBHI20x3d3d")  # of version 1.0, from the signature to the offsets of coordinates
FIRST_SIZE, NEW_SIZE = 227, 375  # bytes of a header before version 1.4, and of one from there
RECORDS = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)  # the least bytes of a point, by format
COLORS = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}  # where red, green and blue are, in the formats that have them
NEW_FORMAT = 6  # from here on a class has a byte of its own
PACKED = 0x80  # the bit of the format that says LAZ
DESCRIPTION = struct.Struct("<2x16sHH32x")  # of a variable-length record
LASZIP, LONGEST_LASZIP = (b"laszip encoded", 22204), 1000
# The most points and bytes that a LAZ may unpack to, and how many more for each of its own bytes.
MOST_POINTS, POINTS_OF_A_BYTE = 2_000_000, 1
MOST_BYTES, BYTES_OF_A_BYTE = 100_000_000, 100
SECONDS, POINTS_PER_SECOND = 20, 100_000  # for unpacking: lazrs does some millions per second
LARGEST = float(np.finfo(np.float32).max)


class Header(NamedTuple):
    """What a file says of its points."""

    packed: bool
    kind: int  # the point format, 0 to 10
    record: int  # bytes of a point
    points: int
    start: int  # of the points
    scale: Array  # (3,)
    offset: Array  # (3,)
    laszip: bytes  # how the points are packed; empty for LAS
    notes: tuple[str, ...]


def parse_las(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A file's points; classification as labels, intensity, and colours of 8 or 16 bits. The suffix does not matter."""
    with path.open("rb") as file:
        header = _header(file, path.stat().st_size)
        records = _unpacked(path, header) if header.packed else _mapped(file, header, header.start)
    scale, offset, notes, colors = header.scale, header.offset, header.notes, None
    if "colors" in extras and header.kind in COLORS:
        colors, more = _colors(records["rgb"])
        notes += more
    labels, bits = records["class"], 255 if header.kind >= NEW_FORMAT else 31
    return Contents(
        cast(Array, Rows(records["xyz"], lambda xyz: xyz * scale + offset)),
        colors=colors,
        labels=cast(Array, Rows(labels, lambda byte: byte & bits)) if "labels" in extras else None,
        intensity=records["intensity"] if "intensity" in extras else None,
        notes=notes,
    )


def _header(file: BinaryIO, size: int) -> Header:
    """The header, once what it says fits the size of the file.

    Raises:
        Refusal: it does not, or it is of another format.
    """
    data = file.read(NEW_SIZE)
    if data[:4] != b"LASF":
        raise Refusal(f"does not begin with LASF, but with {quoted(data[:4])}")
    if len(data) < FIRST_SIZE:
        raise Refusal(f"is cut short in its header, after {size} bytes")
    _, major, minor, length, start, _, kind, record, count, *numbers = HEADER.unpack_from(data)
    is_new = minor >= 4
    if major != 1 or minor > 5:
        raise Refusal(f"is LAS of version {major}.{minor}, which is not known")
    if not (NEW_SIZE if is_new else FIRST_SIZE) <= length <= start <= size:
        raise Refusal(f"declares a header of {length} bytes and points from {start} on, holds {size} bytes")
    if is_new:
        count = struct.unpack_from("<Q", data, 247)[0] or count
    packed, kind = bool(kind & PACKED), kind & ~PACKED
    if kind >= len(RECORDS) or record < RECORDS[kind]:
        raise Refusal(f"declares points of format {kind} in {record} bytes, which is not known")
    scale, offset = np.array(numbers).reshape(2, 3)
    largest = 2.0**31 * np.abs(scale) + np.abs(offset)
    if not (np.isfinite(largest).all() and (largest < LARGEST).all() and scale.all()):
        raise Refusal(f"must scale coordinates by finite numbers but 0, got {scale.tolist()} and {offset.tolist()}")
    there, notes, laszip = size - start, tuple[str, ...](), b""
    if packed:
        laszip = _laszip(file, length, start)
        if count > MOST_POINTS + POINTS_OF_A_BYTE * size or count * record > MOST_BYTES + BYTES_OF_A_BYTE * size:
            raise Refusal(f"declares {count} points of {record} bytes, packed into {there}, more than is allowed here")
    elif count * record > there or (not count and there >= record):
        raise Refusal(f"declares {count} points of {record} bytes, holds {there} bytes of them")
    elif there - count * record >= record and not _has_more(data, minor):
        notes = (f"{there - count * record:,} bytes after the last declared point left out",)
    return Header(packed, kind, record, count, start, scale, offset, laszip, notes)


def _has_more(data: bytes, minor: int) -> bool:
    """Whether the header names something that may lie behind the points: waveforms or extended records."""
    return minor >= 3 and any(struct.unpack_from("<Q", data, at)[0] for at in ((227, 235) if minor >= 4 else (227,)))


def _laszip(file: BinaryIO, at: int, end: int) -> bytes:
    """The record, among those between a header and the points, that says how the points are packed."""
    while at + DESCRIPTION.size <= end:
        file.seek(at)
        user, number, length = DESCRIPTION.unpack(file.read(DESCRIPTION.size))
        if (user.rstrip(b"\0"), number) == LASZIP and length <= LONGEST_LASZIP:
            return file.read(length)
        at += DESCRIPTION.size + length
    raise Refusal("is packed, but has no record that says how")


def _mapped(file: BinaryIO | Any, header: Header, start: int) -> Array:
    """(N,) records of xyz, intensity, class and, where the format has them, colours."""
    fields: dict[str, tuple[Any, int]] = {
        "xyz": (("<i4", 3), 0),
        "intensity": ("<u2", 12),
        "class": ("u1", 16 if header.kind >= NEW_FORMAT else 15),
    }
    if header.kind in COLORS:
        fields["rgb"] = (("<u2", 3), COLORS[header.kind])
    formats, offsets = zip(*fields.values(), strict=True)
    kind = np.dtype({"names": [*fields], "formats": formats, "offsets": offsets, "itemsize": header.record})
    if not header.points:
        return np.empty(0, kind)
    return np.memmap(file, kind, "r", start, header.points).view(np.ndarray)


def _unpacked(path: Path, header: Header) -> Array:
    """The records of a LAZ, in a temporary file that is gone when they are.

    Raises:
        Refusal: lazrs is not installed, or cannot unpack them.
    """
    found = find_spec("lazrs")
    if found is None or found.origin is None:
        raise Refusal(str(MissingExtraError("LAZ", "lazrs", "las")))
    given = (Path(found.origin).parents[1], path, header.start, header.laszip.hex(), header.record, header.points)
    script, limit = Path(__file__).with_name("unpack_laz.py"), SECONDS + header.points / POINTS_PER_SECOND
    with tempfile.TemporaryFile() as unpacked:
        try:
            command = [sys.executable, "-S", "-E", *map(str, (script, *given))]
            streams: Any = {"stdin": subprocess.DEVNULL, "stdout": unpacked, "stderr": subprocess.PIPE}
            done = subprocess.run(command, timeout=limit, **streams)
        except subprocess.TimeoutExpired as error:
            raise Refusal(f"cannot be unpacked in {limit:.0f} s") from error
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"code {done.returncode}"]
            is_ours = why[0].startswith("OSError")  # such as a full disk
            damage = "" if is_ours else " (damaged, cut short or packed in a way that is not known)"
            raise Refusal(f"cannot be unpacked{damage}: {why[0]}")
        return _mapped(unpacked, header, 0)


def _colors(rgb: Array) -> tuple[Array | None, tuple[str, ...]]:
    """(N, 3) in [0, 1], and what is to be said: fields of 16 bits often hold 8, or nothing."""
    most = max((int(rgb[start : start + BLOCK].max()) for start in range(0, len(rgb), BLOCK)), default=0)
    if not most:
        return None, ("colours are all 0, left out",) if len(rgb) else ()
    whole = np.float32(255 if most <= 255 else 65535)
    notes = ("colours never exceed 255, taken as 8 bits",) if most <= 255 else ()
    return cast(Array, Rows(rgb, lambda values: values.astype(np.float32) / whole)), notes
