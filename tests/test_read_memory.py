"""The memory that reading takes: few points of a large cloud, and files greedy for their size."""

import contextlib
import io
import json
import struct
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointnet.points.formats import contents
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from tests import whole_files
from tests.forms import forms
from tests.whole_files import FILES, LIST, XYZ, npy_of, npz_of, pcd, ply, written

LARGE = 120_000

SCANNED = np.dtype([(name, "<f8") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
                   + [(name, "<f4") for name in ("nx", "ny", "nz")])  # fmt: skip


def scan() -> np.ndarray:
    """As a scanner has it: in double precision, far from the origin, with colours and normals."""
    table = np.zeros(LARGE, SCANNED)
    for i, name in enumerate("xyz"):
        table[name] = np.linspace(0, i + 1, LARGE) ** 2 + 5000
    table["nz"] = 1
    return table


def lines(row: bytes, before: bytes = b"") -> bytes:
    return before + row * LARGE


def scanned_ply() -> bytes:
    kinds = {"<f8": "double", "|u1": "uchar", "<f4": "float"}
    properties = "".join(f"property {kinds[SCANNED[name].str]} {name}\n" for name in SCANNED.names)
    return ply(f"element vertex {LARGE}\n{properties}", scan().tobytes(), "binary_little_endian")


def cloud_glb() -> bytes:
    points = np.ones((LARGE, 3), "<f4")
    tree = {
        "asset": {"version": "2.0"},
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": LARGE, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": points.nbytes}],
        "buffers": [{"byteLength": points.nbytes}],
    }
    return whole_files.as_glb(json.dumps(tree).encode(), points.tobytes())


ROW = b"512.125 480.250 101.375\n"

CLOUDS = {
    "double.npy": lambda: npy_of(np.stack([scan()[name] for name in "xyz"], 1)),
    "named.npy": lambda: npy_of(scan()),
    "double.npz": lambda: npz_of(points=npy_of(np.ones((LARGE, 3))), normals=npy_of(np.ones((LARGE, 3)))),
    "scanned.ply": scanned_ply,
    "text.ply": lambda: ply(f"element vertex {LARGE}\n{XYZ}", lines(ROW)),
    "text.pcd": lambda: pcd(WIDTH=str(LARGE), POINTS=str(LARGE))[:-12] + lines(ROW),
    "cloud.off": lambda: lines(ROW, f"OFF\n{LARGE} 0 0\n".encode()),
    "cloud.obj": lambda: lines(b"v " + ROW),
    "seven.txt": lambda: lines(ROW[:-1] + b" 311 120 33 9\n"),
    "named.csv": lambda: lines(ROW.replace(b" ", b",")[:-1] + b",120,33,9\n", b"x,y,z,r,g,b\n"),
    "cloud.glb": cloud_glb,
}


@pytest.mark.parametrize("name", forms(CLOUDS, "text.ply", "cloud.glb"))
def test_a_few_points_of_five_million_take_less_than_285_mb(tmp_path, name):
    """57 bytes a point, and a little for what is looked at together: read within 600 MB by a process of 315 MB."""
    path = written(tmp_path, name, CLOUDS[name]())
    read_points(FILES / "chair.off", 9)  # which imports what is imported when it is first needed
    tracemalloc.start()
    assert len(read_cloud(path, 100, repeat=True, normalize=True, extras=()).points) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 57 * LARGE + 4_000_000, peak


# The most memory for their size: the shortest lines and the smallest numbers that are possible.
GREEDY = {
    "polygons.off": lambda: "OFF\n75000 125000 0\n" + "0 0 0\n" * 75_000 + "1 0\n" * 125_000,
    "triangles.off": lambda: "OFF\n3 125000 0\n0 0 0\n1 0 0\n0 1 0\n" + "3 0 1 2\n" * 125_000,
    "blank.off": lambda: "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n" + "\n" * 1_000_000 + "3 0 1 2\n",
    "vertices.obj": lambda: "v 0 0 0\n" * 125_000,
    "faces.obj": lambda: "v 0 0 0\nv 1 0 0\nv 0 1 0\n" + "f 1 2 3\n" * 125_000,
    "darts.obj": lambda: "v 0 0 0\nv 1 1 0\nv 2 0 0\nv 1 3 0\n" + "f 4 1 2 3\n" * 60_000,
    "zigzag.off": lambda: (
        "OFF\n32000 1 0\n"
        + "".join(f"{i} {i % 2}e5 0\n" for i in range(32_000))
        + f"32000 {' '.join(map(str, range(32_000)))}\n"
    ),
    "facets.stl": lambda: "solid\n" + "vertex 0 1 0\nvertex 1 0 0\nvertex 0 0 0\n" * 25_000 + "endsolid",
    "mixed.ply": lambda: ply(
        f"element vertex 3\n{XYZ}element face 75001\n{LIST}",
        np.eye(3, dtype="<f4").tobytes() + b"\2" + bytes(8) + (b"\3" + np.arange(3, dtype="<i4").tobytes()) * 75_000,
        "binary_little_endian",
    ),
    "zeros.xyz": lambda: "0 0 0\n" * 150_000,
    "named.csv": lambda: "x,y,z,nx,ny,nz,r,g,b,label\n" + "0,0,0,0,0,1,0,0,0,1\n" * 50_000,
    "zeros.pcd": lambda: pcd(WIDTH="125000", POINTS="125000")[:-12] + b"0 0 0\n" * 125_000,
    "bytes.npy": lambda: npy_of(np.ones((300_000, 3), np.int8)),
}


@pytest.mark.parametrize("name", forms(GREEDY, "polygons.off", "faces.obj", "named.csv"))
def test_no_file_takes_more_than_ten_times_its_size(tmp_path, name):
    content = GREEDY[name]()
    path = written(tmp_path, name, content)
    tracemalloc.start()
    with contextlib.suppress(PointCloudFileError):
        read_points(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 500_000 < len(content) < peak < 10 * len(content) + 13_000_000, peak


@pytest.mark.parametrize("suffix", forms([".npz", ".h5"], ".npz"))
def test_all_arrays_of_a_file_share_what_it_may_ask_for(tmp_path, suffix):
    path, rows = tmp_path / f"a{suffix}", np.ones((1_000_000, 3))
    names = ("points", "normals", "colors")
    if suffix == ".npz":
        np.savez_compressed(path, **dict.fromkeys(names, rows))
    else:
        with h5py.File(path, "w") as file:
            for name in names:
                file.create_dataset(name, data=rows, compression="gzip")
    assert len(read_cloud(path, 9, extras=("normals",)).points) == 9
    with pytest.raises(PointCloudFileError, match="24000(128|000) bytes, more than"):
        read_cloud(path, 9)


def peak_of(path: Path) -> tuple[int, str]:
    """The most memory that reading a file takes, or that refusing it takes, and why it is refused."""
    reason = ""
    tracemalloc.start()
    try:
        read_cloud(path)
    except PointCloudFileError as error:
        reason = error.reason
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, reason


def ply_of_bytes(faces: int, lists: bytes, length: str = "uchar") -> bytes:
    elements = f"element vertex 3\n{XYZ}element face {faces}\nproperty list {length} uchar vertex_indices\n"
    return ply(elements, np.eye(3, dtype="<f4").tobytes() + lists, "binary_little_endian")


def npz_packed(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def glb_of_empty_chunks(count: int) -> bytes:
    whole = whole_files.as_glb(b'{"asset": {"version": "2.0"}}', b"")
    chunks = b"".join(struct.pack("<II", 0, kind) for kind in range(count))
    return whole[:8] + struct.pack("<I", len(whole) + len(chunks)) + whole[12:] + chunks


MILLION = np.tile(np.arange(60, dtype=np.int8).reshape(-1, 3), (50_000, 1))
ASKED = "more than a file of its size may ask for"
# Each takes far more than ten times its size if it is not refused, and why it is.
BOMBS = {
    "polygon.ply": (lambda: ply_of_bytes(1, struct.pack("<I", 600_000) + b"\0\1\2" * 200_000, "uint"), ASKED),
    "mixed.ply": (lambda: ply_of_bytes(200_001, b"\4\0\1\2\0" + b"\3\0\1\2" * 200_000), ASKED),
    "empty.ply": (lambda: ply_of_bytes(600_001, b"\3\0\1\2" + bytes(600_000)), ASKED),
    "polygons.off": (lambda: "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n450000 " + "0 1 2 " * 150_000, ASKED),
    "polygons.obj": (lambda: "v 0 0 0\nv 1 0 0\nv 0 1 0\nf " + "1 2 3 " * 150_000, ASKED),
    "chunks.glb": (lambda: glb_of_empty_chunks(50_000), "has no triangles or points"),
    "packed.npz": (lambda: npz_packed(points=MILLION, colors=MILLION, normals=MILLION, labels=MILLION[:, 0]), ASKED),
}


@pytest.mark.parametrize("name", BOMBS)
def test_triangles_chunks_and_copies_are_charged_before_they_are_made(tmp_path, monkeypatch, name):
    """With a hundredth of what any file may take, so that small ones show it."""
    monkeypatch.setattr(contents, "FREE", 600_000)
    make, wanted = BOMBS[name]
    content = make()
    peak, reason = peak_of(written(tmp_path, name, content))
    assert wanted in reason
    assert peak < 10 * len(content) + 13_000_000, peak


def test_normals_of_a_byte_each_take_no_more_than_ten_times_their_size(tmp_path):
    count, names = 600_000, ("x", "y", "z", "nx", "ny", "nz")
    elements = f"element vertex {count}\n" + "".join(f"property char {name}\n" for name in names)
    table = np.random.default_rng(0).integers(0, 100, (count, len(names)), np.int8)
    content = ply(elements, table.tobytes(), "binary_little_endian")
    peak, reason = peak_of(written(tmp_path, "a.ply", content))
    assert not reason
    assert peak < 10 * len(content) + 4_000_000, peak


def test_numbers_of_a_byte_count_as_they_are_held():
    """An archive of bytes may not unpack to four times as much as one of floats."""
    kinds = np.dtype([("xyz", "i1", 3), ("normal", "<f8", 3), ("flag", "?"), ("name", "S9")])
    assert contents.size_in_memory(kinds) == 3 * 4 + 3 * 8 + 4 + 9
    assert contents.size_in_memory(np.dtype(np.uint8)) == 4
