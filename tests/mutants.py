"""Damaged files by the thousand: a seeded mutator, small whole files of every format, and a child process to read them.

    python -m tests.mutants FORMAT FIRST LAST      reads those mutants, a line of JSON each (what `read_mutants` runs)

Mutant i of a format is always the same file. The child may take ten times the file's size and 200 MB, and ten seconds a
file, or it dies: so that a crash, a hang or a greedy reader is seen, and which file it was.
"""

from __future__ import annotations

import base64
import io
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

ROOT = Path(__file__).parents[1]
SECONDS = 10  # a mutant
NUMBERS = (
    b"-1 0 1 2 3 4 65536 2147483647 2147483648 4294967295 4294967296 9223372036854775807 99999999999999999999 "
    b"-2147483649 1e38 1e39 -1e308 1e400 1e-400 nan -nan inf -inf 0x10 1_0 1,5 --1 1e 3.5"
).split()
WORD = re.compile(rb"[-+.\w]*\d[-+.\w]*")


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


def ply_cloud() -> bytes:
    return ply_header("binary_little_endian", 0).encode() + attributes().tobytes()


def obj() -> bytes:
    faces = "".join(f"f {a}/1/1 {b}//2 {c}\n" for a, b, c in triangles() + 1)
    return f"# made\nmtllib a.mtl\n{rows(vertices(), 'v ')}{rows(vertices(), 'vn ')}{faces}f -1 -2 -3 -4\n".encode()


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
    table = "".join(
        " ".join(f"{value!r}" for value in [*(float(v) for v in list(row)[:7]), int(row[7]), 0, 0, 0, 0]) + "\n"
        for row in pcd_table()
    )
    return pcd_header("ascii") + table.encode()


def pcd_bytes() -> bytes:
    return pcd_header("binary") + pcd_table().tobytes()


def lzf_compress(data: bytes) -> bytes:
    """A plain LZF packer: copies where the same three bytes were met before, plain bytes elsewhere."""
    out, plain, at = bytearray(), bytearray(), 0
    met: dict[bytes, int] = {}

    def flush() -> None:
        for start in range(0, len(plain), 32):
            out.append(len(plain[start : start + 32]) - 1)
            out.extend(plain[start : start + 32])
        plain.clear()

    while at < len(data):
        key, length = data[at : at + 3], 0
        before = met.get(key, -1)
        met[key] = at
        if before >= 0 and at - before <= 8192 and len(key) == 3:
            while at + length < len(data) and length < 264 and data[before + length] == data[at + length]:
                length += 1
        if length < 3:
            plain.append(data[at])
            at += 1
            continue
        flush()
        back, short = at - before - 1, length - 2
        head = [short << 5 | back >> 8] if short < 7 else [7 << 5 | back >> 8, short - 7]
        out.extend([*head, back & 255])
        at += length
    flush()
    return bytes(out)


def pcd_compressed() -> bytes:
    table = pcd_table()
    plain = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in table.dtype.names or ())
    packed = lzf_compress(plain)
    sizes = len(packed).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return pcd_header("binary_compressed") + sizes + packed


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, vertices())
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, points=vertices(), normals=vertices(), labels=np.arange(40))
    return stream.getvalue()


def zipped(array: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", array)
    return stream.getvalue()


def npz_plain() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, xyz=vertices(), colors=np.full((40, 3), 9, np.uint8))
    return stream.getvalue()


def hdf5(**settings: Any) -> bytes:
    import h5py

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
    stream = io.BytesIO()
    np.save(stream, labelled_rows(300))
    return stream.getvalue()


def blocks() -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        data = np.resize(labelled_rows(4096).astype(np.float32), (2, 4096, 9))
        file.create_dataset("data", data=data, compression="gzip", chunks=(1, 4096, 9))
        file["label"] = np.arange(2 * 4096).reshape(2, 4096).astype(np.uint8) % 13
    return stream.getvalue()


# Format -> suffix and what makes its whole files, in turn.
FORMATS: dict[str, tuple[str, tuple[Callable[[], bytes], ...]]] = {
    "OFF": (".off", (off, off_polygons)),
    "PLY": (".ply", (ply_text, ply_bytes, ply_polygons, ply_cloud)),
    "OBJ": (".obj", (obj,)),
    "STL": (".stl", (stl_bytes, stl_text)),
    "GLB": (".glb", (glb,)),
    "GLTF": (".gltf", (gltf,)),
    "PCD": (".pcd", (pcd_text, pcd_bytes, pcd_compressed)),
    "XYZ": (".xyz", (text,)),
    "CSV": (".csv", (text_named,)),
    "NPY": (".npy", (npy,)),
    "NPZ": (".npz", (npz, npz_plain)),
    "HDF5": (".h5", (hdf5, hdf5_packed)),
    "PART": (".txt", (part,)),
    "ROOM": (".npy", (room,)),
    "BLOCKS": (".h5", (blocks,)),
}


def read(kind: str, path: Path) -> Any:
    """What the reader of a format makes of a file, as a cloud."""
    from pointnet.datasets import read_cloud, s3dis, shapenetpart
    from pointnet.points.read import PointCloud

    if kind == "PART":
        shape = shapenetpart._read_shape(path, 60, 50, "y", normals=True)
        return PointCloud(shape[:3].T, shape[3:6].T, None, shape[6].astype(np.int64))
    if kind == "ROOM":
        s3dis._cut(path)
        return s3dis.read_room(path)
    if kind == "BLOCKS":
        rows = s3dis._read_blocks(path).transpose(0, 2, 1).reshape(-1, 10)
        return PointCloud(rows[:, :3], None, rows[:, 3:6], rows[:, 9].astype(np.int64))
    return read_cloud(path)


# Where lengths and checksums around it would hide nearly every change: what is within, and what packs it soundly again.
WITHIN: dict[str, tuple[Callable[[], bytes], Callable[[bytes], bytes]]] = {
    "GLB": (lambda: json.dumps(gltf_tree(None)[0]).encode(), lambda text: as_glb(text, gltf_tree(None)[1])),
    "NPZ": (npy, zipped),
}


def mutant(kind: str, index: int) -> bytes:
    """Mutant `index` of a format."""
    rng = np.random.default_rng([*f"{kind}/{index}".encode()])
    makers = FORMATS[kind][1]
    if kind in WITHIN and rng.random() < 0.6:
        inner, wrap = WITHIN[kind]
        return wrap(changed(inner(), rng))
    return changed(makers[index % len(makers)](), rng)


def changed(data: bytes, rng: Generator) -> bytes:
    changes = (change_json,) if data.startswith(b"{") and rng.random() < 0.7 else CHANGES
    for _ in range(min(rng.geometric(0.5), 5)):
        data = changes[rng.integers(len(changes))](data, rng)
    return swell(data, rng) if rng.random() < 0.02 else data


def place(data: bytes, rng: Generator) -> int:
    """Anywhere, every other time in what is a header in most formats."""
    return int(rng.integers(0, max(min(len(data), 400) if rng.random() < 0.5 else len(data), 1)))


def flip_bits(data: bytes, rng: Generator) -> bytes:
    out = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        if out:
            out[place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwrite(data: bytes, rng: Generator) -> bytes:
    at, size = place(data, rng), int(rng.integers(1, 65))
    run = (rng.bytes(size), b"\xff" * size, b"\0" * size, b"\n" * size, b"9" * size)[rng.integers(5)]
    return data[:at] + run + data[at + size :]


def truncate(data: bytes, rng: Generator) -> bytes:
    return data[: place(data, rng)]


def drop(data: bytes, rng: Generator) -> bytes:
    at = place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 200)) :]


def repeat(data: bytes, rng: Generator) -> bytes:
    at, size, times = place(data, rng), int(rng.integers(1, 400)), int(rng.integers(2, 20))
    return data[:at] + data[at : at + size] * times + data[at:]


def swell(data: bytes, rng: Generator) -> bytes:
    """A slice repeated up to a megabyte."""
    at, size = place(data, rng), int(rng.integers(1, 400))
    return data[:at] + data[at : at + size] * int(rng.integers(1, 1_000_000) // size) + data[at:]


def splice(data: bytes, rng: Generator) -> bytes:
    makers = [maker for _, group in FORMATS.values() for maker in group]
    other = makers[rng.integers(len(makers))]()
    return data[: place(data, rng)] + other[place(other, rng) :]


def change_number(data: bytes, rng: Generator) -> bytes:
    words = list(WORD.finditer(data))
    if not words:
        return data
    word = words[rng.integers(len(words) if rng.random() < 0.5 else min(len(words), 20))]
    return data[: word.start()] + NUMBERS[rng.integers(len(NUMBERS))] + data[word.end() :]


def multiply_number(data: bytes, rng: Generator) -> bytes:
    words = [word for word in WORD.finditer(data[:2000]) if word[0].isdigit()]
    if not words:
        return data
    word = words[rng.integers(len(words))]
    product = int(word[0][:20]) * int(10 ** rng.integers(1, 10)) + int(rng.integers(-1, 2))
    return data[: word.start()] + str(product).encode() + data[word.end() :]


def change_integer(data: bytes, rng: Generator) -> bytes:
    at, size = place(data, rng), int((1, 2, 4, 8)[rng.integers(4)])
    value = int.from_bytes(data[at : at + size], "little")
    value = (value * int(rng.integers(2, 1 << 20)), value + 1, value - 1, -1, 0, 1 << (8 * size - 1))[rng.integers(6)]
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, "little") + data[at + size :]


def change_digits(data: bytes, rng: Generator) -> bytes:
    """The gentlest: what is read stays a number."""
    out = bytearray(data)
    digits = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    for _ in range(rng.integers(1, 20) if digits else 0):
        out[digits[rng.integers(len(digits))]] = rng.choice(list(b"0123456789"))
    return bytes(out)


VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 3, -1, 39, 41, 180, 5121, 5125, 2**31, 10**30, 1.5, 1e308),
    *(True, None, "", "a.bin", [], {}, [0]),
)


def change_json(data: bytes, rng: Generator) -> bytes:
    """A tree that is still one: a branch replaced, removed, repeated or moved elsewhere."""
    try:
        tree = json.loads(data)
    except ValueError:
        return flip_bits(data, rng)
    branches = list(_branches(tree))
    (parent, key), (other, place) = (branches[i] for i in rng.integers(len(branches), size=2))
    change = rng.integers(5)
    if change == 0:
        del parent[key]
    elif change == 1 and isinstance(parent, list):
        parent.append(parent[key])
    elif change == 2:
        parent[key] = json.loads(json.dumps(other[place]))
    else:
        parent[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(tree).encode()


def _branches(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    for key in keys:
        yield tree, key
        yield from _branches(tree[key])


CHANGES = (
    *(flip_bits, overwrite, truncate, drop, repeat, splice, change_digits, change_digits),
    *(change_number, change_number, multiply_number, change_integer),
)


class Report(NamedTuple):
    read: int
    refused: int
    slowest: float  # seconds
    memory: int  # bytes, the most any took
    failures: list[str]


def read_mutants(kind: str, count: int) -> Report:
    """Reads mutants 0 to `count` of a format in child processes: one, and another after each that one dies of."""
    lines: list[dict[str, Any]] = []
    failures: list[str] = []
    while len(lines) < count:
        child = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.mutants", kind, str(len(lines)), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        lines += [json.loads(line) for line in child.stdout.splitlines()]
        if child.returncode != 0:
            failures.append(f"{kind} mutant {len(lines)}: child ended with {child.returncode} {child.stderr[-500:]}")
            lines.append({"outcome": "failed", "seconds": 0.0, "memory": 0})
    outcomes = [line["outcome"] for line in lines]
    failures += [
        f"{kind} mutant {i}: {outcome}"
        for i, outcome in enumerate(outcomes)
        if outcome not in ("read", "refused", "failed")
    ]
    slowest, memory = (max(line[key] for line in lines) for key in ("seconds", "memory"))
    return Report(outcomes.count("read"), outcomes.count("refused"), slowest, memory, failures)


def outcome_of(kind: str, path: Path) -> str:
    """ "read", "refused", or what is wrong."""
    from pointnet.datasets import PointCloudFileError

    try:
        cloud = read(kind, path)
    except PointCloudFileError as error:
        message = str(error)
        if not message.startswith(f"{path}: ") or "\n" in message or not message.isprintable():
            return f"message {message!r}"
        return f"took too much memory: {message}" if isinstance(error.__cause__, MemoryError) else "refused"
    except BaseException as error:
        return f"raised {error!r}"
    if cloud.points.dtype != np.float32 or cloud.points.shape[1:] != (3,) or not np.isfinite(cloud.points).all():
        return f"gave {cloud.points.dtype} {cloud.points.shape}, finite: {np.isfinite(cloud.points).all()}"
    wrong = [column.shape for column in cloud[1:] if column is not None and len(column) != len(cloud.points)]
    return f"gave columns {wrong}" if wrong else "read" if len(cloud.points) else "gave no points"


def virtual_memory() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 1 << 40


def peak_memory(reset: bool = False) -> int:
    """The most bytes held at once since the last reset; where there is no /proc, since the start."""
    if Path("/proc/self/clear_refs").exists():
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(kind: str, first: int, last: int) -> None:
    """The child: a line for each mutant, as soon as it is done."""
    suffix, makers = FORMATS[kind]
    opened: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mutant{suffix}"
        for maker in makers:  # what is imported or set up once is no mutant's doing
            path.write_bytes(maker())
            assert outcome_of(kind, path) == "read", outcome_of(kind, path)
        sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
        for index in range(first, last):
            print(json.dumps(_measured(kind, path, mutant(kind, index), opened)), flush=True)


def _measured(kind: str, path: Path, data: bytes, opened: list[str]) -> dict[str, Any]:
    path.write_bytes(data)
    before, hard = virtual_memory(), resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (before + 10 * len(data) + 200_000_000, hard))
    resident = peak_memory(reset=True)
    signal.alarm(SECONDS)  # nobody handles it: the process dies, wherever it hangs
    opened.clear()
    start = time.perf_counter()
    outcome = outcome_of(kind, path)
    seconds = time.perf_counter() - start
    others = set(opened) - {str(path)}
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    memory = peak_memory() - resident
    return {"outcome": f"opened {others}" if others else outcome, "seconds": seconds, "memory": memory}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
