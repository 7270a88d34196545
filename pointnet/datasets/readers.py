"""Files to arrays, behind one error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


class PointCloudFileError(ValueError):
    """A file of points, or a folder of them, that cannot be used: one line with the path and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = Path(path)
        self.reason = reason


def read_hdf5(path: str | os.PathLike[str], names: tuple[str, ...], rows: int | None = None) -> list[np.ndarray]:
    """The data sets `names` of one HDF5 file, each whole, or cut to `rows` along its second axis.

    Only bytes stored in the file itself are read: links to other files, external storage and virtual data sets
    are refused.

    Raises:
        PointCloudFileError: the file is missing, is not HDF5, is cut short, or lacks one of the data sets.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise PointCloudFileError(path, "no such file")
    try:
        with h5py.File(path, "r") as file:
            return [_read_array(file, path, name, rows) for name in names]
    except PointCloudFileError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = "not a readable HDF5 file (damaged, cut short or of another format)"
        raise PointCloudFileError(path, f"{reason}: {error}") from error


def _read_array(file: Any, path: Path, name: str, rows: int | None) -> np.ndarray:
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise PointCloudFileError(path, f"has no data set '{name}'; it holds {sorted(file) or 'nothing'}")
    array = file[name]
    if array.external is not None or array.is_virtual:
        raise PointCloudFileError(path, f"data set '{name}' is stored in other files, which are not opened")
    if array.dtype.kind not in "fiu":
        raise PointCloudFileError(path, f"data set '{name}' must hold numbers, got {array.dtype}")
    kept = array.shape if rows is None or array.ndim < 2 else (array.shape[0], min(rows, array.shape[1]))
    if array.chunks is None and array.size * array.dtype.itemsize > path.stat().st_size:
        raise PointCloudFileError(path, f"data set '{name}' declares {array.shape}, more than the file holds")
    return np.asarray(array[tuple(slice(n) for n in kept)])
