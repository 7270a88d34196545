"""A hash of what a file holds that is the same for a copy of it in another order or another format, and a sketch of a
cloud by which thinned and cropped copies are known."""

import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .formats.contents import Array, Contents, blocks_of_rows
from .frame import few_points, rotated_to_z_up

HASH = "hash"  # among the extras: `PointCloud.points_hash` is wanted
NONE = np.zeros(1, np.uint64)  # what the hash of a row begins with
SKETCH = 128  # hashes of points in a sketch
LEAST = 6  # of them that two sketches must share: of a cloud thinned to a tenth about 13 are also in the whole one's
MOST = 0.9  # of the points of one of them
DIFFERENT = 0.75  # of the coordinates of a sketch's points, on each axis
T = TypeVar("T")


def hash_of(contents: Contents, up: str = "z") -> str:
    """A hash of a cloud's points, or of a mesh's faces: of float32 coordinates with z up, and of all else that was read
    of them but labels. Of a cloud, its sketch follows (`with_copies`).

    The order of the points does not matter. It is empty for a cloud of few points, since those may be the same in two
    files by chance.
    """
    if up != "z":
        contents = contents._replace(
            vertices=rotated_to_z_up(contents.vertices[:], up),
            normals=None if contents.normals is None else rotated_to_z_up(contents.normals[:], up),
        )
    vertices, faces = contents.vertices, contents.faces
    if faces is None and few_points(vertices):
        return ""
    columns = [vertices, contents.normals if faces is None else None, contents.colors, contents.intensity]
    blocks = zip(*(blocks_of_rows(column) for column in columns if column is not None), strict=True)
    if faces is None:
        total, sketch = 0, _Sketch()
        for block in blocks:
            counted = _counts(block[0])
            hashes = _hashes(block)[counted]
            total += int(hashes.sum())
            sketch.add(hashes, block[0][counted])
        return f"points {total % 2**64:016x} {sketch}".rstrip()
    corners = np.concatenate([np.where(_counts(block[0]), _hashes(block), np.uint64(0)) for block in blocks])
    of_faces = [faces] if contents.face_colors is None else [faces, contents.face_colors]
    rows = zip(*map(blocks_of_rows, of_faces), strict=True)
    return f"faces {_added(_hashes(its_colors, _mixed(corners[its].sum(1))) for its, *its_colors in rows)}"


def without_sketch(points_hash: str) -> str:
    """The hash alone; equal for the same points, also where one was made before there were sketches."""
    return " ".join(points_hash.split()[:2])


def with_copies(hashes: Mapping[T, str]) -> dict[T, str]:
    """Each `hash_of` without its sketch; clouds that share nine tenths of the points of one of them get one hash, also
    by way of a third: thinned and cropped copies, unmoved."""
    joined = {key: without_sketch(its) for key, its in hashes.items()}
    above: dict[str, str] = {}

    def first(its: str) -> str:
        while its in above:
            its = above[its]
        return its

    for one, other in _sharing(hashes):
        if (a := first(joined[one])) != (b := first(joined[other])):
            above[b] = a
    return {key: first(its) for key, its in joined.items()}


def copies_of(known: Iterable[str], hashes: Mapping[T, str]) -> set[T]:
    """The clouds, by their `hash_of`, that have the points of a known one, or share nine tenths of the points of one of
    the two with it."""
    known = set(known)
    exact, sketches = {*map(without_sketch, known)}, [sketch for its in known if len(sketch := _sketch_of(its))]
    found = {key for key, its in hashes.items() if without_sketch(its) in exact}
    if not sketches:
        return found
    points, owners = _by_point(sketches)
    for key in hashes.keys() - found:
        sketch = _sketch_of(hashes[key])
        begin, end = (np.searchsorted(points, sketch, side) for side in ("left", "right"))
        of_each = [owners[:0], *(owners[a:b] for a, b in zip(begin, end, strict=True))]
        likely, shared = np.unique(np.concatenate(of_each), return_counts=True)
        if any(_has_most(sketches[i], sketch) for i in likely[shared >= LEAST]):
            found.add(key)
    return found


def _sharing(hashes: Mapping[T, str]) -> list[tuple[T, T]]:
    """Pairs of clouds that share nine tenths of the points of one of them: each copy of a cloud is in one with it.

    A sketch has the least of the hashes of a cloud's points (Broder 1997, "On the resemblance and containment of
    documents"), so those of two clouds have the same points where both clouds have them.
    """
    known = {key: sketch for key, its in hashes.items() if len(sketch := _sketch_of(its))}
    keys = sorted(known, key=lambda key: int(known[key][-1]))  # the densest first: others are parts of it
    if len(keys) < 2:
        return []
    points, owners = _by_point([known[key] for key in keys])
    same = np.r_[False, points[1:] == points[:-1]]
    firsts = owners[np.maximum.accumulate(np.where(same, 0, np.arange(len(points))))]
    with_first, with_last = firsts * len(keys) + owners, np.r_[0, owners[:-1]] * len(keys) + owners
    pairs = np.concatenate([with_first[same], with_last[same & (np.r_[0, owners[:-1]] != firsts)]])
    likely, shared = np.unique(pairs, return_counts=True)
    named = [(keys[pair // len(keys)], keys[pair % len(keys)]) for pair in likely[shared >= LEAST].tolist()]
    return [(a, b) for a, b in named if _has_most(known[a], known[b])]


def _by_point(sketches: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The points of all sketches in order, and of which sketch each is, in order too."""
    points, owners = np.concatenate(sketches), np.repeat(np.arange(len(sketches)), list(map(len, sketches)))
    order = np.argsort(points, kind="stable")
    return points[order], owners[order]


def _has_most(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> bool:
    """Whether nearly all points of one cloud, by their sketches, are in the other."""
    limit = min((its[-1] for its in (one, other) if len(its) == SKETCH), default=max(one[-1], other[-1]))
    one, other = one[one <= limit], other[other <= limit]
    shared = len(np.intersect1d(one, other))
    return shared >= max(LEAST, MOST * min(len(one), len(other)))


class _Sketch:
    """The least hashes of a cloud's points, as text; empty of a cloud whose points repeat their coordinates, as on a
    coarse grid or a plane: another may have them by chance."""

    def __init__(self) -> None:
        self.hashes, self.points = np.empty(0, np.uint64), np.empty((0, 3))

    def add(self, hashes: NDArray[np.uint64], points: Array) -> None:
        """Takes more points (n, 3), with the hash of each."""
        if len(self.hashes) == SKETCH:
            lower = hashes < self.hashes[-1]
            hashes, points = hashes[lower], points[lower]
        both, at = np.unique(np.concatenate([self.hashes, hashes]), return_index=True)
        self.hashes, self.points = both[:SKETCH], np.concatenate([self.points, points])[at[:SKETCH]]

    def __str__(self) -> str:
        if min(len(np.unique(axis)) for axis in self.points.T) < DIFFERENT * len(self.points):
            return ""
        return binascii.b2a_base64(self.hashes.astype(">u8").tobytes(), newline=False).decode()


def _sketch_of(points_hash: str) -> NDArray[np.uint64]:
    """The sketch that a hash ends with; empty where it has none, or a damaged one."""
    try:
        _, _, sketch = points_hash.split()
        return np.unique(np.frombuffer(binascii.a2b_base64(sketch), ">u8").astype(np.uint64))
    except ValueError:
        return np.empty(0, np.uint64)


def _counts(vertices: Array) -> NDArray[np.bool_]:
    """Whether each is finite and not at the origin, where scanners put what they did not measure."""
    return np.logical_and(np.isfinite(vertices).all(1), vertices.any(1))


def _hashes(columns: Sequence[Array], begun: NDArray[np.uint64] = NONE) -> NDArray[np.uint64]:
    """A hash of all numbers in each row (n,), which goes on from another where there is one."""
    for column in columns:
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = column.astype(np.float32) + np.float32(0)  # -0 becomes 0
        for of_rows in numbers.reshape(len(numbers), -1).view(np.uint32).T.astype(np.uint64):
            begun = _mixed(begun + of_rows)
    return begun


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Other numbers, of which each bit depends on all bits of the given one (SplitMix64)."""
    hashes = hashes + np.uint64(0x9E3779B97F4A7C15)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _added(blocks: Iterable[NDArray[np.uint64]]) -> str:
    """The sum of all, which has no order."""
    return f"{sum(int(hashes.sum()) for hashes in blocks) % 2**64:016x}"
