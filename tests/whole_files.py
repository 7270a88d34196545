"""Small whole files of every format, as bytes, made without the package: what is damaged in `mutants.py`."""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.las_files import HAS_LASPY, kitti, las, las_extra, las_new, laz, laz_new, nuscenes

FILES = Path(__file__).parents[1] / "data" / "samples" / "files"  # one shape in each common format


def vertices(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)


def triangles(count: int = 60) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 40, (count, 3)).astype(np.int32)


def rows(table: np.ndarray, before: str = "", separator: str = " ") -> str:
    return "".join(before + separator.join(f"{value:g}" for value in row) + "\n" for row in table)


def attributes() -> np.ndarray:
    """Points with a normal, a colour in bytes and a label."""
    kinds = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    kinds += [(name, "u1") for name in ("red", "green", "blue")] + [("label", "<i4")]
    table = np.zeros(40, kinds)
    normals = vertices() / np.linalg.norm(vertices(), axis=1, keepdims=True)
    for name, column in zip("x y z nx ny nz".split(), np.hstack([vertices(), normals]).T, strict=True):
        table[name] = column
    for name in ("red", "green", "blue", "label"):
        table[name] = np.random.default_rng(2).integers(0, 255, 40)
    return table


def off() -> bytes:
    return f"OFF\n40 60 0\n{rows(vertices())}{rows(triangles(), '3 ')}".encode()


def off_polygons() -> bytes:
    return f"COFF # colours\n40 61 0\n{rows(np.hstack([vertices(), np.ones((40, 4))]))}5 0 1 2 3 4\n".encode() + (
        rows(triangles(), "3 ").encode()
    )


def ply_header(encoding: str, faces: int) -> str:
    names = {"<f4": "float", "|u1": "uchar", "<i4": "int"}
    table = attributes()
    properties = "".join(f"property {names[table.dtype[name].str]} {name}\n" for name in table.dtype.names or ())
    face = f"element face {faces}\nproperty list uchar int vertex_indices\n" if faces else ""
    return f"ply\nformat {encoding} 1.0\ncomment made\nelement vertex 40\n{properties}{face}end_header\n"


def ply_text() -> bytes:
    table = "".join(" ".join(f"{value:g}" for value in row) + "\n" for row in attributes().tolist())
    return (ply_header("ascii", 61) + table + rows(triangles(), "3 ") + "4 0 1 2 3\n").encode()


def ply_bytes() -> bytes:
    faces = np.zeros(60, [("size", "u1"), ("corners", "<i4", 3)])
    faces["size"], faces["corners"] = 3, triangles()
    return ply_header("binary_little_endian", 60).encode() + attributes().tobytes() + faces.tobytes()


def ply_polygons() -> bytes:
    polygons = b"\x04" + np.arange(4, dtype="<i4").tobytes() + b"\x03" + np.arange(3, dtype="<i4").tobytes()
    return ply_header("binary_little_endian", 2).encode() + attributes().tobytes() + polygons


def ply_lists() -> bytes:
    """With a list of another length at each vertex."""
    names = "property list uchar short near\nproperty uchar label\n"
    header = f"element vertex 40\nproperty float x\n{names}property float y\nproperty float z\nelement face 1\n{LIST}"
    rows = (
        (row[:1].tobytes(), bytes([i % 3, *[0] * (i % 3 * 2), 7]), row[1:].tobytes())
        for i, row in enumerate(vertices())
    )
    body = b"".join(b"".join(row) for row in rows) + b"\6" + np.arange(6, dtype="<i4").tobytes()
    return ply(header, body, "binary_little_endian")


def ply_cloud() -> bytes:
    return ply_header("binary_little_endian", 0).encode() + attributes().tobytes()


def obj() -> bytes:
    faces = "".join(f"f {a}/1/1 {b}//2 {c}\n" for a, b, c in triangles() + 1)
    return f"# made\nmtllib a.mtl\n{rows(vertices(), 'v ')}{rows(vertices(), 'vn ')}{faces}f -1 -2 -3 -4\n".encode() + (
        b"#MRGB " + b"ff8040c0" * 40
    )


def stl_bytes() -> bytes:
    records = np.zeros(60, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    records["corners"] = vertices()[triangles()]
    return b"made".ljust(80) + (60).to_bytes(4, "little") + records.tobytes()


def stl_text() -> bytes:
    facets = "".join(
        f"facet normal 0 0 0\nouter loop\n{rows(corners, 'vertex ')}endloop\nendfacet\n"
        for corners in vertices()[triangles()]
    )
    return f"solid made\n{facets}endsolid made\n".encode()


def stl_trailing() -> bytes:
    return b"solid COLOR=1234" + stl_bytes()[16:] + b"more"


def gltf_tree(uri: str | None) -> tuple[dict[str, Any], bytes]:
    binary = vertices().tobytes() + triangles().astype("<u2").tobytes() + np.full((40, 4), 200, np.uint8).tobytes()
    views = [(0, 480), (480, 360), (840, 160)]
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"mesh": 0, "translation": [1, 2, 3]},
            {"children": [2], "translation": [0, 9, 0], "scale": [2, 1, 1]},
            {"mesh": 0, "rotation": [0, 0, 1, 0]},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 2}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 40, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 180, "type": "SCALAR"},
            {"bufferView": 2, "componentType": 5121, "count": 40, "type": "VEC4", "normalized": True},
        ],
        "bufferViews": [{"buffer": 0, "byteOffset": start, "byteLength": size} for start, size in views],
        "buffers": [{"byteLength": len(binary), **({"uri": uri} if uri else {})}],
    }, binary


def gltf() -> bytes:
    binary = gltf_tree(None)[1]
    uri = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    return json.dumps(gltf_tree(uri)[0]).encode()


def gltf_beside() -> bytes:
    tree = gltf_tree("a.bin")[0] | {"materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0, 1, 0, 1]}}]}
    tree["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]
    return json.dumps(tree).encode()


def as_glb(text: bytes, binary: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    chunks = len(text).to_bytes(4, "little") + b"JSON" + text + len(binary).to_bytes(4, "little") + b"BIN\0" + binary
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunks)).to_bytes(4, "little") + chunks


def glb() -> bytes:
    tree, binary = gltf_tree(None)
    return as_glb(json.dumps(tree).encode(), binary)


def text() -> bytes:
    return rows(np.hstack([vertices(), np.arange(40)[:, None]])).encode()


def text_named() -> bytes:
    return ("x,y,z,r,g,b,label\n" + rows(np.hstack([vertices(), np.full((40, 4), 7)]), separator=",")).encode()


def pcd_header(encoding: str) -> bytes:
    return (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z normal_x normal_y normal_z rgb label _\nSIZE 4 4 4 4 4 4 4 4 1\n"
        "TYPE F F F F F F F U U\nCOUNT 1 1 1 1 1 1 1 1 4\nWIDTH 40\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 40\n"
        f"DATA {encoding}\n"
    ).encode()


def pcd_table() -> np.ndarray:
    kinds = [(name, "<f4") for name in "x y z nx ny nz rgb".split()] + [("label", "<u4"), ("_", "u1", 4)]
    table = np.zeros(40, kinds)
    for name in "x y z nx ny nz label".split():
        table[name] = attributes()[name]
    table["rgb"] = np.full(40, 0x00FF8000, np.uint32).view(np.float32)
    return table


def pcd_text() -> bytes:
    table = "".join(" ".join(map(repr, [*row[:8], 0, 0, 0, 0])) + "\n" for row in pcd_table().tolist())
    return pcd_header("ascii") + table.encode()


def pcd_bytes() -> bytes:
    return pcd_header("binary") + pcd_table().tobytes()


def lzf_compress(data: bytes) -> bytes:
    """A plain LZF packer: a copy where the same three bytes were met before, else a run of one byte."""
    out, at = bytearray(), 0
    met: dict[bytes, int] = {}
    while at < len(data):
        key, length = data[at : at + 3], 0
        before = met.get(key, -1)
        met[key] = at
        if before >= 0 and at - before <= 8192 and len(key) == 3:
            while at + length < len(data) and length < 264 and data[before + length] == data[at + length]:
                length += 1
        if length < 3:
            out.extend([0, data[at]])
            at += 1
            continue
        back, short = at - before - 1, length - 2
        head = [short << 5 | back >> 8] if short < 7 else [7 << 5 | back >> 8, short - 7]
        out.extend([*head, back & 255])
        at += length
    return bytes(out)


def pcd_compressed() -> bytes:
    table = pcd_table()
    plain = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in table.dtype.names or ())
    packed = lzf_compress(plain)
    sizes = len(packed).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return pcd_header("binary_compressed") + sizes + packed


def npy() -> bytes:
    return npy_of(vertices())


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, points=vertices(), normals=vertices(), labels=np.arange(40))
    return stream.getvalue()


def npz_plain() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, xyz=vertices(), colors=np.full((40, 3), 9, np.uint8))
    return stream.getvalue()


def hdf5(**settings: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("points", data=vertices(), **settings)
        file.create_dataset("normals", data=vertices(), **settings)
        file["label"] = np.arange(40)
    return stream.getvalue()


def hdf5_packed() -> bytes:
    return hdf5(chunks=(16, 3), compression="gzip", shuffle=True, fletcher32=False)


def labelled_rows(count: int) -> np.ndarray:
    """x y z, six more numbers of the kind that a part or a room wants, and a label."""
    generator = np.random.default_rng(3)
    return np.column_stack([generator.random((count, 3)), generator.integers(0, 9, (count, 4))])


def part() -> bytes:
    return rows(labelled_rows(40)).encode()


def room() -> bytes:
    return npy_of(labelled_rows(300))


def blocks() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        data = np.resize(labelled_rows(4096).astype(np.float32), (2, 4096, 9))
        file.create_dataset("data", data=data, compression="gzip", chunks=(1, 4096, 9))
        file["label"] = np.arange(2 * 4096).reshape(2, 4096).astype(np.uint8) % 13
    return stream.getvalue()


# Format -> suffix and what makes its whole files, in turn.
FORMATS: dict[str, tuple[str, tuple[Callable[[], bytes], ...]]] = {
    "OFF": (".off", (off, off_polygons)),
    "PLY": (".ply", (ply_text, ply_bytes, ply_polygons, ply_lists, ply_cloud)),
    "OBJ": (".obj", (obj,)),
    "STL": (".stl", (stl_bytes, stl_text, stl_trailing)),
    "GLB": (".glb", (glb,)),
    "GLTF": (".gltf", (gltf, gltf_beside)),
    "PCD": (".pcd", (pcd_text, pcd_bytes, pcd_compressed)),
    "XYZ": (".xyz", (text,)),
    "CSV": (".csv", (text_named,)),
    "NPY": (".npy", (npy,)),
    "NPZ": (".npz", (npz, npz_plain)),
    "HDF5": (".h5", (hdf5, hdf5_packed)),
    "LAS": (".las", (las, las_new, las_extra)),
    **({"LAZ": (".laz", (laz, laz_new))} if HAS_LASPY else {}),
    "BIN": (".bin", (kitti, nuscenes)),
    "PART": (".txt", (part,)),
    "ROOM": (".npy", (room,)),
    "BLOCKS": (".h5", (blocks,)),
}

# Files that others need beside them.
BESIDE: dict[str, Callable[[], bytes]] = {"a.bin": lambda: gltf_tree(None)[1]}

# Where lengths and checksums around it would hide nearly every change: what is within, and what packs it soundly again.
WITHIN: dict[str, tuple[Callable[[], bytes], Callable[[bytes], bytes]]] = {
    "GLB": (lambda: json.dumps(gltf_tree(None)[0]).encode(), lambda text: as_glb(text, gltf_tree(None)[1])),
    "NPZ": (npy, lambda array: npz_of(points=array)),
}


# Files in a few words, for tests that change one thing.

XYZ = "property float x\nproperty float y\nproperty float z\n"
LIST = "property list uchar int vertex_indices\n"
TRIANGLE = "0 0 0\n1 0 0\n0 1 0\n"


def written(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def ply(elements: str, body: bytes = b"", encoding: str = "ascii") -> bytes:
    return f"ply\nformat {encoding} 1.0\n{elements}end_header\n".encode() + body


def pcd(**changes: str) -> bytes:
    header = {"FIELDS": "x y z", "SIZE": "4 4 4", "TYPE": "F F F", "COUNT": "1 1 1", "WIDTH": "2", "HEIGHT": "1"}
    header |= {"POINTS": "2", "DATA": "ascii"} | changes
    return "".join(f"{key} {value}\n" for key, value in header.items()).encode() + b"1 2 3\n4 5 6\n"


def npy_of(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz_of(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, method)  # of 1980: the same bytes every time
    return stream.getvalue()
