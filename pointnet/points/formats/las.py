"""LAS and LAZ, what laser scanners and surveys give: a header and records of points, plain or packed with LASzip.

Records are mapped into memory, not read, and converted where they are taken, so that a file may be of any size. LAZ is
first unpacked into a temporary file, by lazrs in the kept process of `guard`, within a time and a size.

Source: ASPRS, LAS Specification 1.4-R15; github.com/LASzip/LASzip, laszip.cpp (the record 22204).
"""

import importlib
import struct
import tempfile
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from pointnet.extras import MissingExtraError

from ..errors import Refusal
from ..guard import Send, guarded
from ..sampling import unit_or_zero
from .behind import bytes_behind, check_behind, rows_behind
from .contents import BLOCK, EXTRAS, Array, Contents, Extras, Rows, blocks_of_rows, wants_all
from .names import extra_places, left_out
from .scan import decoded, quoted
from .values import FULL, are_whole, range_of

HEADER = struct.Struct("<4s20xBB68xHIIBHI20x3d3d")  # of version 1.0, from the signature to the offsets of coordinates
FIRST_SIZE, NEW_SIZE = 227, 375  # bytes of a header before version 1.4, and of one from there
RECORDS = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)  # the least bytes of a point, by format
COLORS = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}  # where red, green and blue are, in the formats that have them
NEW_FORMAT = 6  # from here on a class has a byte of its own
OLD_CLASS = 31  # the bits of a class before
FLAGS, WITHHELD, OLD_WITHHELD = 15, 4, 128  # the byte of flags, and the bit of it that says withheld
# What is not used of a point: name, bytes, and formats.
OTHERS = (
    ("returns", 14, 15, range(11)), ("flags", 15, 16, range(11)), ("user_data", 17, 18, range(11)),
    ("scan_angle", 16, 17, range(6)), ("point_source", 18, 20, range(6)), ("gps_time", 20, 28, (1, 3, 4, 5)),
    ("scan_angle", 18, 20, range(6, 11)), ("point_source", 20, 22, range(6, 11)), ("gps_time", 22, 30, range(6, 11)),
    ("nir", 36, 38, (8, 10)), ("waveforms", 28, 57, (4,)), ("waveforms", 34, 63, (5,)), ("waveforms", 30, 59, (9,)),
    ("waveforms", 38, 67, (10,)),
)  # fmt: skip
PACKED = 0x80  # the bit of the format that says LAZ
DESCRIPTION = struct.Struct("<2x16sHH32x")  # of a variable-length record
LASZIP, LONGEST_LASZIP = (b"laszip encoded", 22204), 1000
EXTRA_BYTES, EXTRA = (b"LASF_Spec", 4), struct.Struct("<2xBB32s156x")  # one of the dimensions behind a format's own
TYPES = ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")  # of them, from 1 on; then twos and threes
MOST_EXTRA = 100
SCALED = 8 | 16  # the bits that say so
# The most points and bytes that a LAZ may unpack to, and how many more for each of its own bytes.
MOST_POINTS, POINTS_OF_A_BYTE = 2_000_000, 1
MOST_BYTES, BYTES_OF_A_BYTE = 100_000_000, 100
TAKEN = "{} taken as label, since the classification is the same everywhere"
UNCLASSIFIED = "no point is classified: all have the class {}"
NO_CLASS = ("0, never classified", "1, unclassified")  # in the words of the standard
LARGEST = float(np.finfo(np.float32).max)


class Dimension(NamedTuple):
    """What extra bytes of a point are."""

    name: str
    start: int
    stop: int
    kind: str  # "" where it is more than a plain number


class LasHeader(NamedTuple):
    """What a file says of its points."""

    packed: bool
    kind: int  # the point format, 0 to 10
    record: int  # bytes of a point
    points: int
    start: int  # of the points
    scale: Array  # (3,)
    offset: Array  # (3,)
    laszip: bytes  # how the points are packed; empty for LAS
    behind: int  # bytes after the points that the header does not name
    extra: list[Dimension]  # what is behind the numbers of the format
    normals: list[Dimension]  # those of them that are, or none
    labels: list[Dimension]  # those of them that are named as labels, the likeliest first


def parse_las(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A file's points; classification as labels, or extra bytes named as a label where it is one number everywhere, or
    else none where that is 0 or 1, unclassified; intensity, colours of 8 to 16 bits, normals of extra bytes, and notes
    of what else some points hold and how many are withheld. The suffix does not matter."""
    with path.open("rb") as file:
        header = _header(file, path.stat().st_size)
        records = _unpacked(path, header) if header.packed else _mapped(file, header, header.start)
        notes = _behind(file, header, records["xyz"]) + _withheld(header, records)
    scale, offset, colors, has_normals = header.scale, header.offset, None, False
    if "colors" in extras and header.kind in COLORS:
        colors, more = _colors(records["rgb"])
        notes += more
    labels, label = None, None
    if "labels" in extras:
        labels, label, more = _labels(header, records, extras)
        notes += more
    if "normals" in extras:
        held = np.bitwise_or.reduce(records["bytes"][:: len(records) // BLOCK + 1], axis=0)  # (R,) of some records
        if header.kind < NEW_FORMAT:
            held[FLAGS] &= 255 - OLD_CLASS
        has_normals = any(held[each.start : each.stop].any() for each in header.normals)
        if wants_all(extras):
            others = [Dimension(name, start, stop, "") for name, start, stop, kinds in OTHERS if header.kind in kinds]
            others += [each for each in header.extra if each not in (*header.normals, label)]
            notes += left_out([each.name for each in others if held[each.start : each.stop].any()])
    return Contents(
        cast(Array, Rows(records["xyz"], lambda xyz: xyz * scale + offset)),
        normals=cast(Array, Rows(records["normals"], unit_or_zero)) if has_normals else None,
        colors=colors,
        labels=labels,
        intensity=records["intensity"] if "intensity" in extras else None,
        notes=notes,
    )


def _withheld(header: LasHeader, records: Array) -> tuple[str, ...]:
    """A note of how many points are flagged as withheld, the standard's word for deleted; none where there are none."""
    bit = WITHHELD if header.kind >= NEW_FORMAT else OLD_WITHHELD
    flags = _column(records, Dimension("flags", FLAGS, FLAGS + 1, "u1"))
    count = sum(int(np.count_nonzero(block & bit)) for block in blocks_of_rows(flags))
    what, verb = ("points", "are") if count > 1 else ("point", "is")
    return (f"{count:,} {what} {verb} flagged as withheld (deleted), and {verb} used",) if count else ()


def _labels(
    header: LasHeader, records: Array, extras: Extras
) -> tuple[Array | None, Dimension | None, tuple[str, ...]]:
    """The labels of points, None where no point was classified; the extra bytes that they are of, None for the
    classification; and what is to be said."""
    bits = 255 if header.kind >= NEW_FORMAT else OLD_CLASS
    labels = cast(Array, Rows(records["class"], lambda byte: byte & bits))
    taken, is_one = next((each for each in header.labels if each.kind), None), _is_one(labels)
    notes, of = tuple[str, ...](), "labels are those of classification; "
    if taken and is_one and _are_labels(column := _column(records, taken)):
        labels = cast(Array, Rows(column, lambda values: _numbered(values).astype(np.int64)))
        notes, of = (TAKEN.format(taken.name),), f"labels are those of {taken.name}; "
    else:
        taken = None
    if are_none := len(labels) > 0 and is_one and not taken and labels[0] < len(NO_CLASS):
        notes, of = (UNCLASSIFIED.format(NO_CLASS[labels[0]]),), ""
    if not wants_all(extras):  # else they are among all that is left out
        unlike = [each.name for each in header.labels if each != taken and _differ(_column(records, each), labels)]
        notes = (*notes, *(f"{of}{note}" for note in left_out(unlike)))
    return None if are_none else labels, taken, notes


def _column(records: Array, dimension: Dimension) -> Array:
    """(N,) numbers of a dimension; (N, B) bytes where it is more than plain numbers."""
    at, kind = dimension.start, cast(Any, dimension.kind or ("u1", (dimension.stop - dimension.start,)))
    row = np.dtype({"names": ["column"], "formats": [kind], "offsets": [at], "itemsize": records.itemsize})
    return records.view(row)["column"]


def _differ(column: Array, labels: Array) -> bool:
    """Whether these numbers (N,) are others than the labels somewhere, or these bytes (N, B) other than 0."""
    if column.ndim == 2:
        return any(block.any() for block in blocks_of_rows(column))
    pairs = zip(blocks_of_rows(column), blocks_of_rows(labels), strict=True)
    return any((_numbered(block) != its).any() for block, its in pairs)


def _is_one(classes: Array) -> bool:
    """Whether they are the same number at all points, as where nothing was classified."""
    return all((block == classes[:1]).all() for block in blocks_of_rows(classes))


def _are_labels(column: Array) -> bool:
    """Whether they are whole numbers where there is one, and not the same at all points."""
    numbered = cast(Array, Rows(column, _numbered))
    return not _is_one(numbered) and all(map(are_whole, blocks_of_rows(numbered)))


def _numbered(column: Array) -> Array:
    """With -1 in place of NaN, as programs mark points without a label."""
    return np.where(np.isnan(column), -1, column) if column.dtype.kind == "f" else column


def _behind(file: BinaryIO, header: LasHeader, xyz: Array) -> tuple[str, ...]:
    """A note of what lies behind the points (N, 3). Raises Refusal where it is more of them."""
    file.seek(header.start + header.points * header.record)
    rest = file.read(min(header.behind, BLOCK * header.record))
    kind = np.dtype({"names": ["xyz"], "formats": [("<i4", 3)], "offsets": [0], "itemsize": header.record})
    check_behind(rows_behind(rest, kind)["xyz"], xyz, "points", header.behind // header.record)
    return bytes_behind(rest, "declared point", header.behind)


def _header(file: BinaryIO, size: int) -> LasHeader:
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
    there, laszip, behind = size - start, b"", 0
    if packed:
        laszip = _described(file, length, start, LASZIP, LONGEST_LASZIP)
        if not laszip:
            raise Refusal("is packed, but has no record that says how")
        if count > MOST_POINTS + POINTS_OF_A_BYTE * size or count * record > MOST_BYTES + BYTES_OF_A_BYTE * size:
            raise Refusal(f"declares {count} points of {record} bytes, packed into {there}, more than is allowed here")
    elif count * record > there or (not count and there >= record):
        raise Refusal(f"declares {count} points of {record} bytes, holds {there} bytes of them")
    elif not _has_more(data, minor):
        behind = there - count * record
    extra = _extra(_described(file, length, start, EXTRA_BYTES, MOST_EXTRA * EXTRA.size), RECORDS[kind], record)
    named = extra_places([each.name for each in extra], ("labels",)).get("labels", ())
    more = _normals(extra), [extra[i] for i in named]
    return LasHeader(packed, kind, record, count, start, scale, offset, laszip, behind, extra, *more)


def _has_more(data: bytes, minor: int) -> bool:
    """Whether the header names something that may lie behind the points: waveforms or extended records."""
    return minor >= 3 and any(struct.unpack_from("<Q", data, at)[0] for at in ((227, 235) if minor >= 4 else (227,)))


def _described(file: BinaryIO, at: int, end: int, wanted: tuple[bytes, int], longest: int) -> bytes:
    """The record of this name and number among those between a header and the points; empty if there is none."""
    while at + DESCRIPTION.size <= end:
        file.seek(at)
        user, number, length = DESCRIPTION.unpack(file.read(DESCRIPTION.size))
        if (user.rstrip(b"\0"), number) == wanted and length <= longest:
            return file.read(length)
        at += DESCRIPTION.size + length
    return b""


def _extra(described: bytes, at: int, record: int) -> list[Dimension]:
    """The dimensions of the bytes of a record from `at` on."""
    found = list[Dimension]()
    for number, options, name in EXTRA.iter_unpack(described[: len(described) // EXTRA.size * EXTRA.size]):
        kind = TYPES[(number - 1) % len(TYPES)] if number else "u1"
        count = (number - 1) // len(TYPES) + 1 if number else options
        stop = at + count * np.dtype(kind).itemsize
        if stop > record:
            break
        is_plain = count == 1 and number and not options & SCALED
        found.append(Dimension(decoded(name.split(b"\0")[0]), at, stop, kind if is_plain else ""))
        at = stop
    return [*found, Dimension("extra bytes", at, record, "")]


def _normals(extra: list[Dimension]) -> list[Dimension]:
    """Three dimensions that are named as normals and stand side by side as plain numbers of one type, or none."""
    three = [extra[i] for i in extra_places([each.name for each in extra], ("normals",)).get("normals", ())]
    are_one = all(a.stop == b.start and a.kind == b.kind != "" for a, b in pairwise(three))
    return three if are_one else []


def _mapped(file: BinaryIO | Any, header: LasHeader, start: int) -> Array:
    """(N,) records of xyz, intensity, class, all their bytes and, where there are, colours and normals."""
    fields: dict[str, tuple[Any, int]] = {
        "xyz": (("<i4", 3), 0),
        "intensity": ("<u2", 12),
        "class": ("u1", 16 if header.kind >= NEW_FORMAT else 15),
        "bytes": (("u1", header.record), 0),
    }
    if header.kind in COLORS:
        fields["rgb"] = (("<u2", 3), COLORS[header.kind])
    if header.normals:
        fields["normals"] = ((header.normals[0].kind, 3), header.normals[0].start)
    formats, offsets = zip(*fields.values(), strict=True)
    kind = np.dtype({"names": [*fields], "formats": formats, "offsets": offsets, "itemsize": header.record})
    if not header.points:
        return np.empty(0, kind)
    return np.memmap(file, kind, "r", start, header.points).view(np.ndarray)


def _unpacked(path: Path, header: LasHeader) -> Array:
    """The records of a LAZ, in a temporary file that is gone when they are.

    Raises:
        Refusal: lazrs is not installed, or cannot unpack them.
    """
    if find_spec("lazrs") is None:
        raise Refusal(str(MissingExtraError("LAZ", "lazrs", "las")))
    given = (header.start, header.laszip.hex(), header.record, header.points)
    size = header.record * header.points
    _, unpacked = guarded(send_unpacked, "lazrs", path, *given, size=size, sink=tempfile.TemporaryFile)
    with unpacked:
        unpacked.flush()
        return _mapped(unpacked, header, 0)


def send_unpacked(path: Path, send: Send, start: int, laszip: str, record: int, left: int) -> None:
    """Sends `left` records of `record` bytes, in the kept process; the packed ones begin at `start`.

    Args:
        laszip: the record of the file that describes its packing, in hexadecimal digits.
    """
    lazrs: Any = importlib.import_module("lazrs")
    described = bytes.fromhex(laszip)
    packed = lazrs.LazVlr(described).item_size()
    if packed != record:
        raise Refusal(f"its records are of {record} bytes, but {packed} are packed")
    with path.open("rb") as file:
        file.seek(start)
        unpacker = lazrs.LasZipDecompressor(file, described)
        while left:
            block = bytearray(min(left, BLOCK) * record)
            unpacker.decompress_many(block)
            send(block)
            left -= len(block) // record


def _colors(rgb: Array) -> tuple[Array | None, tuple[str, ...]]:
    """(N, 3) in [0, 1], and what is to be said: fields of 16 bits often hold 8 or 12, or nothing."""
    if not any(block.any() for block in blocks_of_rows(rgb)):
        return None, ("colours are all 0, left out",) if len(rgb) else ()
    full, of_range = range_of(blocks_of_rows(rgb), 255)
    colors = Rows(rgb, lambda values: np.minimum(values.astype(np.float32) / np.float32(full), np.float32(1)))
    return cast(Array, colors), (of_range,) if full < FULL[-1] else ()
