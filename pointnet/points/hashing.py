"""A hash of what a file holds that is the same for a copy of it in another order or another format."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .formats.contents import Array, Contents, blocks_of_rows
from .frame import few_points, rotated_to_z_up

HASH = "hash"  # among the extras: `PointCloud.points_hash` is wanted
NONE = np.zeros(1, np.uint64)  # what the hash of a row begins with


def hash_of(contents: Contents, up: str = "z") -> str:
    """A hash of a cloud's points, or of a mesh's faces: of float32 coordinates with z up, and of all else that was read
    of them but labels.

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
        return f"points {_added(_hashes(block)[_counts(block[0])] for block in blocks)}"
    corners = np.concatenate([np.where(_counts(block[0]), _hashes(block), np.uint64(0)) for block in blocks])
    of_faces = [faces] if contents.face_colors is None else [faces, contents.face_colors]
    rows = zip(*map(blocks_of_rows, of_faces), strict=True)
    return f"faces {_added(_hashes(its_colors, _mixed(corners[its].sum(1))) for its, *its_colors in rows)}"


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
