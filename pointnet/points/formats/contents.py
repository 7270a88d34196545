"""What a parser is asked for and what it returns, block by block where that is long, and how much memory it takes."""

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import Refusal

# Numbers of any type, as a parser finds them; `cloud.py` converts them to the types of `PointCloud`.
Array = NDArray[Any]
# What a point may have beside its coordinates. A parser gets the names of those that are wanted and skips the rest.
Extras = Collection[str]
EXTRAS = ("normals", "colors", "labels", "intensity")
FREE, PER_BYTE = 60_000_000, 3  # bytes that arrays may declare: for any file, and for each of its bytes
BLOCK = 1 << 16  # rows looked at together
NONE = np.empty(0, np.int64)


class Rows:
    """Rows of a file that are converted when they are taken, so that a table of any size takes no memory.

    It stands for an array (N, ...) where only its length, shape, `[rows]` and `astype` are asked for.

    Args:
        raw: the rows as they are in the file, mapped into memory, or other `Rows`.
        converted: what some of them mean; it keeps their number.
        left_out: which of the raw rows do not count, in order.
    """

    def __init__(self, raw: Any, converted: Callable[[Array], Array], left_out: NDArray[np.int64] = NONE):
        self.raw, self.converted = raw, converted
        self.shape, self.ndim = (len(raw) - len(left_out), *raw.shape[1:]), raw.ndim
        self.before = left_out - np.arange(len(left_out))  # how many rows are kept before each that is left out

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice | NDArray[Any]) -> Array:
        if len(self.before):
            rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
            rows = rows + np.searchsorted(self.before, rows, "right")
        return self.converted(self.raw[rows])

    def astype(self, dtype: DTypeLike) -> Array:
        """All rows as an array."""
        whole = np.empty(self.shape, dtype)
        for place, block in zip(blocks_of_rows(whole), blocks_of_rows(self), strict=True):
            place[:] = block
        return whole


class EveryRow:
    """0 to count - 1 as an array of them, for `Rows`: it takes no memory."""

    ndim = 1

    def __init__(self, count: int):
        self.shape = (count,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[Any]) -> Array:
        return np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows


def wants_all(extras: Extras) -> bool:
    """Whether nothing is skipped, so that a note must say what else a file has."""
    return set(extras) >= set(EXTRAS)


def blocks_of_rows(rows: Any) -> Iterator[Array]:
    """An array or `Rows` (N, ...) in blocks, so that temporary arrays stay small; those of an array are views."""
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


class Contents(NamedTuple):
    """A file's V vertices, in its own frame, and its F triangles; `faces` is None for a cloud.

    Parsers check that rows match and that indices are in range; values may still be anything, NaN included.
    """

    vertices: Array  # (V, 3)
    faces: Array | None = None  # (F, 3)
    normals: Array | None = None  # (V, 3), of any length
    colors: Array | None = None  # (V, 3) in [0, 1]
    labels: Array | None = None  # (V,)
    intensity: Array | None = None  # (V,), of any range
    face_colors: Array | None = None  # (F, 3) in [0, 1]
    face_labels: Array | None = None  # (F,)
    notes: tuple[str, ...] = ()  # short sentences: what was guessed, skipped or left out

    def noted(self, *notes: str) -> "Contents":
        """These contents with more notes."""
        return self._replace(notes=(*self.notes, *notes))


def most_bytes(file_size: int) -> int:
    """The most bytes that the arrays of a file of this size may declare, all together.

    Checking and converting them takes two or three times as much memory; the sum stays below ten times the file's size
    and 200 MB.
    """
    return PER_BYTE * file_size + FREE


class Budget:
    """What the arrays of a file may still take of `most_bytes`; they are charged before they are made."""

    def __init__(self, file_size: int):
        self.left = most_bytes(file_size)

    def charge(self, what: str, size: int) -> None:
        """Raises Refusal if `what` takes more than is left."""
        if size > self.left:
            raise Refusal(f"{what} takes {size} bytes, more than a file of its size may ask for")
        self.left -= size


def size_in_memory(dtype: np.dtype[Any]) -> int:
    """The bytes of a row of this type as the library holds it: numbers take at least four."""
    if dtype.names is not None:
        return sum(size_in_memory(dtype[name]) for name in dtype.names)
    return math.prod(dtype.shape) * (
        max(dtype.base.itemsize, 4) if dtype.base.names is None else size_in_memory(dtype.base)
    )
