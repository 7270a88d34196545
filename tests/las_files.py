"""LAS, LAZ and BIN files, as bytes, made without the package: LAS by hand, LAZ by laspy."""

import datetime
import importlib.util
import io
import struct
from functools import lru_cache

import numpy as np

HAS_LASPY = all(importlib.util.find_spec(name) for name in ("laspy", "lazrs"))
SIZES = {2: 26, 3: 34, 7: 36, 8: 38}  # bytes of a point, by format


def las_header(
    count: int, kind: int = 2, minor: int = 2, record: int = 0, scale: float = 0.001, offset: float = 0.0
) -> bytes:
    """A header with nothing between it and the points."""
    size = 375 if minor >= 4 else 235 if minor == 3 else 227
    header = bytearray(size)
    header[:4] = b"LASF"
    struct.pack_into("<BB", header, 24, 1, minor)
    struct.pack_into("<HIIBHI", header, 94, size, size, 0, kind, record or SIZES[kind], count if minor < 4 else 0)
    struct.pack_into("<6d", header, 131, *[scale] * 3, *[offset] * 3)
    if minor >= 4:
        struct.pack_into("<Q", header, 247, count)
    return bytes(header)


def las_records(xyz: np.ndarray, rgb: np.ndarray, classes: np.ndarray, kind: int = 2) -> bytes:
    """Records of whole numbers xyz and rgb (N, 3), and classes (N,); intensity is the row's number."""
    at_class, at_rgb = (16, 30) if kind >= 6 else (15, {2: 20, 3: 28}[kind])
    offsets = {"xyz": 0, "intensity": 12, "class": at_class, "rgb": at_rgb}
    formats = [("<i4", 3), "<u2", "u1", ("<u2", 3)]
    table = np.zeros(
        len(xyz),
        np.dtype({"names": [*offsets], "formats": formats, "offsets": [*offsets.values()], "itemsize": SIZES[kind]}),
    )
    table["xyz"], table["rgb"], table["class"] = xyz, rgb, classes
    table["intensity"] = np.arange(len(xyz)) % 65536
    return table.tobytes()


def las(kind: int = 2, minor: int = 2, most: int = 255) -> bytes:
    generator = np.random.default_rng(4)
    xyz, rgb = generator.integers(-9999, 9999, (40, 3)), generator.integers(0, most + 1, (40, 3))
    return las_header(40, kind, minor) + las_records(xyz, rgb, np.arange(40) % 20, kind)


def las_new() -> bytes:
    return las(7, 4, 65535)


def las_extra() -> bytes:
    """With a normal and another number behind those of its format."""
    columns = np.random.default_rng(5).normal(size=(40, 4)).astype("<f4")
    return las_with(dict(zip(("NormalX", "NormalY", "NormalZ", "height"), columns.T, strict=True)))


def las_with(columns: dict[str, np.ndarray], classes: np.ndarray | None = None) -> bytes:
    """The 40 points, over and over, with these numbers (N,) as float32 in extra bytes, and perhaps other classes."""
    count = len(next(iter(columns.values())))
    described = b"".join(bytes([0, 0, 9, 0]) + name.encode().ljust(188, b"\0") for name in columns)
    between = struct.pack("<2x16sHH32x", b"LASF_Spec", 4, len(described)) + described
    header = bytearray(las_header(count, 2, 2, SIZES[2] + 4 * len(columns)))
    struct.pack_into("<I", header, 96, len(header) + len(between))
    records = np.frombuffer(las()[len(header) :], np.uint8).reshape(40, -1)
    records = np.resize(records, (count, records.shape[1]))
    records[:, 15] = records[:, 15] if classes is None else classes
    extra = np.stack([*columns.values()], axis=1).astype("<f4")
    return bytes(header) + between + np.hstack([records, extra.view(np.uint8)]).tobytes()


@lru_cache
def laz(kind: int = 2) -> bytes:
    import laspy

    las_file = laspy.read(io.BytesIO(las() if kind == 2 else las_new()))
    las_file.header.creation_date = datetime.date(2020, 1, 1)  # the same bytes every day
    stream = io.BytesIO()
    las_file.write(stream, do_compress=True)
    return stream.getvalue()


def laz_new() -> bytes:
    return laz(7)


def kitti() -> bytes:
    """KITTI's four numbers per point."""
    generator = np.random.default_rng(5)
    return np.hstack([generator.normal(0, 20, (40, 3)), generator.random((40, 1))]).astype("<f4").tobytes()


def nuscenes() -> bytes:
    """nuScenes' five: with an intensity to 255, and a ring."""
    generator = np.random.default_rng(6)
    more = [generator.integers(0, 256, (41, 1)), np.arange(41)[:, None] % 32]
    return np.hstack([generator.normal(0, 20, (41, 3)), *more]).astype("<f4").tobytes()
