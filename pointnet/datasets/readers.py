"""Files to arrays, behind one error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class PointCloudFileError(ValueError):
    """A file of points, or a folder of them, that cannot be used: one line with the path and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = Path(path)
        self.reason = reason


Shape = tuple[int | None, ...]


def read_hdf5(
    path: str | os.PathLike[str], shapes: Mapping[str, Shape | None], rows: int | None = None
) -> list[np.ndarray]:
    """The named data sets of one HDF5 file, each whole, or cut to `rows` along its second axis.

    Only bytes stored in the file itself are read: links, external storage and virtual data sets are refused. What a
    data set declares is checked, against `shapes` (None: any size, or any shape) and against the bytes that are
    there, before memory is taken for it.

    Raises:
        PointCloudFileError: the file is missing, is not HDF5, is cut short, or lacks one of the data sets.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise PointCloudFileError(path, "no such file")
    try:
        with h5py.File(path, "r") as file:
            return [_read_array(file, path, name, shape, rows) for name, shape in shapes.items()]
    except PointCloudFileError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = "not a readable HDF5 file (damaged, cut short or of another format)"
        raise PointCloudFileError(path, " ".join(f"{reason}: {error}".split())) from error


# What deflate, the tightest of HDF5's usual filters, can make of one byte.
MOST_FROM_A_BYTE = 1032


def _read_array(file: Any, path: Path, name: str, wanted: Shape | None, rows: int | None) -> np.ndarray:
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise PointCloudFileError(path, f"has no data set '{name}'; it holds {sorted(file) or 'nothing'}")
    if not isinstance(link, h5py.HardLink):
        raise PointCloudFileError(path, f"'{name}' is a link, which is not followed")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in "fiu":
        raise PointCloudFileError(path, f"'{name}' must be a data set of numbers")
    if array.external is not None or array.is_virtual:
        raise PointCloudFileError(path, f"data set '{name}' is stored in other files, which are not opened")
    if wanted is not None and not (
        len(wanted) == array.ndim and all(w in (None, n) for w, n in zip(wanted, array.shape, strict=True))
    ):
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise PointCloudFileError(path, f"data set '{name}' must be ({sizes}), got {array.shape}")
    if array.size * array.dtype.itemsize > MOST_FROM_A_BYTE * array.id.get_storage_size():
        raise PointCloudFileError(path, f"data set '{name}' declares {array.shape}, more than the file holds")
    cut = (slice(None), slice(rows)) if array.ndim > 1 else ()
    return np.asarray(array[cut])
