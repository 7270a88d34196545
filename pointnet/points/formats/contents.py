"""What a parser gives, and what it raises."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

# Numbers of any type: what a parser finds. The door makes them those of `PointCloud`.
Array = NDArray[Any]
# What a point may have beside its place. A parser is told which of it is wanted, and makes no more.
Extras = Collection[str]
EXTRAS = ("normals", "colors", "labels")


class PointCloudFileError(ValueError):
    """A file of points, or a folder of them, that cannot be used: one line with the path and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        name = os.fspath(path).replace("\n", "\\n")
        super().__init__(f"{name}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:  # so that it can come from another process
        return type(self), (self.path, self.reason)


class Refusal(ValueError):
    """Why a file cannot be used, as told to the user; the door adds the path."""


class Contents(NamedTuple):
    """A file's V vertices, in its own frame, and its F triangles; `faces` is None for a cloud.

    Parsers see to it that rows match and that indices are in range; values may still be anything, NaN included.
    """

    vertices: Array  # (V, 3)
    faces: Array | None = None  # (F, 3)
    normals: Array | None = None  # (V, 3), of any length
    colors: Array | None = None  # (V, 3) in [0, 1]
    labels: Array | None = None  # (V,)
    face_colors: Array | None = None  # (F, 3) in [0, 1]


def most_bytes(file_size: int) -> int:
    """What a file's arrays may declare, all together.

    Checked, and made those of the library, they take two or three times as much: in all no more than ten times the
    file's size and 200 MB.
    """
    return 3 * file_size + 60_000_000
