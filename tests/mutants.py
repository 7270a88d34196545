"""Damaged files by the thousand: a seeded mutator of the whole files, and a child process to read them.

    python -m tests.mutants FORMAT FIRST LAST      reads those mutants, a line of JSON each (what `read_mutants` runs)

Mutant i of a format is always the same file. The child may take ten times the file's size and 200 MB, and ten seconds a
file, or it dies: so that a crash, a hang or a greedy reader is seen, and which file it was.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from pointnet.points import guard
from pointnet.points import read as points
from tests import hostile_hdf5, whole_files
from tests.whole_files import BESIDE, FORMATS, WITHIN

ROOT = Path(__file__).parents[1]
SECONDS = 10  # a mutant
WITH_TORCH = ("PART", "ROOM", "BLOCKS")  # which their readers load, and a child for one of the others does not
# A LAZ is unpacked into a temporary file, which has no name; a process that died is started anew.
GUARDED = (tempfile.gettempdir(), os.devnull)
NUMBERS = (
    b"-1 0 1 2 3 4 65536 2147483647 2147483648 4294967295 4294967296 9223372036854775807 99999999999999999999 "
    b"-2147483649 1e38 1e39 -1e308 1e400 1e-400 nan -nan inf -inf 0x10 1_0 1,5 --1 1e 3.5"
).split()
WORD = re.compile(rb"[-+.\w]*\d[-+.\w]*")


def read(kind: str, path: Path) -> Any:
    """What the reader of a format makes of a file, as a cloud."""
    if kind not in WITH_TORCH:
        return points.read_cloud(path)
    from pointnet.datasets import s3dis, shapenetpart

    if kind == "PART":
        shape = shapenetpart._read_shape(path, 60, 50, {}, "y", normals=True)
        return points.PointCloud(shape[:3].T, shape[3:6].T, None, shape[6].astype(np.int64))
    if kind == "ROOM":
        s3dis._cut(path)
        return s3dis.read_room(path)
    rows = s3dis._read_blocks(path).transpose(0, 2, 1).reshape(-1, 10)
    return points.PointCloud(rows[:, :3], None, rows[:, 3:6], rows[:, 9].astype(np.int64))


def mutant(kind: str, index: int) -> bytes:
    """Mutant `index` of a format."""
    rng = np.random.default_rng([*f"{kind}/{index}".encode()])
    makers = FORMATS[kind][1]
    if kind in BOMBS and rng.random() < 0.01:
        bombs = BOMBS[kind]
        bomb = bombs[rng.integers(len(bombs))](rng)
        return bomb if rng.random() < 0.5 else changed(bomb, rng)
    if kind in WITHIN and rng.random() < 0.8:
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


def redirect(data: bytes, rng: Generator) -> bytes:
    """A number that may be an offset or a count in the file becomes another such number, itself, or the file's end."""
    size = int((4, 8)[rng.integers(2)])
    words = np.frombuffer(data[: len(data) // size * size], f"<u{size}")
    inside = np.flatnonzero((words > 0) & (words <= len(data)))
    if not len(inside):
        return change_integer(data, rng)
    at, other = (int(i) for i in rng.choice(inside, 2))
    value = (int(words[other]), size * at, size * other, len(data), len(data) - 1, 0)[rng.integers(6)]
    return data[: size * at] + value.to_bytes(size, "little") + data[size * (at + 1) :]


def change_digits(data: bytes, rng: Generator) -> bytes:
    """The gentlest: what is read stays a number."""
    out = bytearray(data)
    digits = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    for _ in range(rng.integers(1, 20) if digits else 0):
        out[digits[rng.integers(len(digits))]] = rng.choice(list(b"0123456789"))
    return bytes(out)


VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 3, -1, 39, 41, 180, 5121, 5125, 2**31, 10**30, 1.5, 1e308),
    *(True, None, "", "a.bin", [], {}, [0], [[0]], {"children": [0]}),
)
NESTED = b'"nested"'


def change_json(data: bytes, rng: Generator) -> bytes:
    """A tree that is still one: a branch replaced, removed, repeated, moved elsewhere or within many others."""
    try:
        return _with_another_branch(json.loads(data), rng)
    except (ValueError, RecursionError):  # no tree, or one that is too deep already
        return flip_bits(data, rng)


def _with_another_branch(tree: Any, rng: Generator) -> bytes:
    branches = list(_branches(tree))
    (parent, key), (other, place) = (branches[i] for i in rng.integers(len(branches), size=2))
    change, depth = rng.integers(6), int(10 ** rng.uniform(0, 5))
    if change == 5:
        parent[key] = "nested"
        opening, closing = ((b"[", b"]"), (b'{"children": ', b"}"))[rng.integers(2)]
        return json.dumps(tree).encode().replace(NESTED, opening * depth + b"0" + closing * depth)
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
    *(change_number, change_number, multiply_number, change_integer, redirect),
)


def npz_bomb(rng: Generator) -> bytes:
    """A few kilobytes that unpack to as many megabytes."""
    kind = rng.choice(["i1", "<f4", "<f8"])
    return whole_files.npz_of(points=whole_files.npy_of(np.ones((int(10 ** rng.uniform(4, 7)), 3), kind)))


def lzf_pcd(rng: Generator) -> bytes:
    """A PCD whose columns are copies of copies."""
    count = int(10 ** rng.uniform(2, 5))
    packed, plain = b"\0\0" + b"\xe0\xff\0" * count, 1 + 264 * count
    header = whole_files.pcd(WIDTH=str(plain // 12), POINTS=str(plain // 12), DATA="binary_compressed")[:-12]
    return header + len(packed).to_bytes(4, "little") + (plain // 12 * 12).to_bytes(4, "little") + packed


# What unpacks to far more than its size, or leads a library in circles.
BOMBS: dict[str, tuple[Callable[[Generator], bytes], ...]] = {
    "NPZ": (npz_bomb,),
    "PCD": (lzf_pcd,),
    "HDF5": (
        lambda rng: hostile_hdf5.deflate_bomb(int(rng.integers(1, 100))),
        lambda rng: hostile_hdf5.deflated(int(rng.integers(1, 5))),
        lambda rng: hostile_hdf5.lzf_bomb(int(rng.integers(3, 100_000))),
        lambda rng: hostile_hdf5.fletcher(int(rng.integers(0, 60))),
        lambda rng: hostile_hdf5.nbit_without_parameters(),
        lambda rng: hostile_hdf5.tree_in_itself(),
        lambda rng: hostile_hdf5.names_in_a_loop(),
    ),
}


class Report(NamedTuple):
    read: int
    refused: int
    failures: list[str]


def read_mutants(kind: str, count: int) -> Report:
    """Reads mutants 0 to `count` of a format in child processes: one, and another after each that one dies of."""
    outcomes: list[str] = []
    failures: list[str] = []
    while len(outcomes) < count:
        child = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.mutants", kind, str(len(outcomes)), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        outcomes += [json.loads(line) for line in child.stdout.splitlines()]
        if child.returncode != 0:
            failures.append(f"{kind} mutant {len(outcomes)}: child ended with {child.returncode} {child.stderr[-500:]}")
            outcomes.append("failed")
    failures += [
        f"{kind} mutant {i}: {outcome}"
        for i, outcome in enumerate(outcomes)
        if outcome not in ("read", "refused", "failed")
    ]
    return Report(outcomes.count("read"), outcomes.count("refused"), failures)


def outcome_of(kind: str, path: Path) -> str:
    """ "read", "refused", or what is wrong."""
    try:
        cloud = read(kind, path)
    except points.PointCloudFileError as error:
        message = str(error)
        if not message.startswith(f"{path}: ") or "\n" in message or not message.isprintable():
            return f"message {message!r}"
        return f"took too much memory: {message}" if isinstance(error.__cause__, MemoryError) else "refused"
    except BaseException as error:
        return f"raised {error!r}"
    whole = cloud.points.dtype in (np.float32, np.float64) and cloud.points.shape[1:] == (3,)
    if not whole or not np.isfinite(cloud.points).all():
        return f"gave {cloud.points.dtype} {cloud.points.shape}, finite: {np.isfinite(cloud.points).all()}"
    wrong = [
        column.shape for column in (*cloud[1:5], cloud.rows) if column is not None and len(column) != len(cloud.points)
    ]
    return f"gave columns {wrong}" if wrong else "read" if len(cloud.points) else "gave no points"


def beside(path: Path) -> list[str]:
    return [str(path.resolve().parent / name) for name in BESIDE]


def virtual_memory() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 1 << 40


def main(kind: str, first: int, last: int) -> None:
    """The child: a line for each mutant, as soon as it is done."""
    suffix, makers = FORMATS[kind]
    guard.SECONDS = 2  # and 6 for the bytes that any file may become
    opened: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mutant{suffix}"
        for name, make in BESIDE.items():
            (Path(folder) / name).write_bytes(make())
        for maker in makers:  # what is imported or set up once is no mutant's doing
            path.write_bytes(maker())
            assert outcome_of(kind, path) == "read", outcome_of(kind, path)
        sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
        for index in range(first, last):
            print(json.dumps(_limited(kind, path, mutant(kind, index), opened)), flush=True)


def _limited(kind: str, path: Path, data: bytes, opened: list[str]) -> str:
    path.write_bytes(data)
    before, hard = virtual_memory(), resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (before + 10 * len(data) + 200_000_000, hard))
    signal.alarm(SECONDS)  # nobody handles it: the process dies, wherever it hangs
    opened.clear()
    outcome = outcome_of(kind, path)
    allowed = {**dict.fromkeys(("LAZ", "HDF5", "BLOCKS"), GUARDED), "GLB": beside(path), "GLTF": beside(path)}.get(
        kind, ()
    )
    others = {name for name in opened if not name.isdigit()} - {str(path), *allowed}
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return f"opened {others}" if others else outcome


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
