"""HDF5, read so that nothing but the file itself is opened and nothing is believed that its bytes do not bear out."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import find_arrays, from_arrays
from .contents import EXTRAS, Contents, Extras, PointCloudFileError, most_bytes

Shape = tuple[int | None, ...]
SHAPES: dict[str, Shape | None] = {"points": (None, None), "normals": (None, 3), "colors": (None, None), "labels": None}


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
    with _opened(Path(path)) as file:
        return [_read_array(file, Path(path), name, shape, rows) for name, shape in shapes.items()]


def hdf5_names(path: str | os.PathLike[str]) -> list[str]:
    """The names in one HDF5 file, sorted.

    Raises:
        PointCloudFileError: the file is missing, is not HDF5, or is cut short.
    """
    with _opened(Path(path)) as file:
        return sorted(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file; whatever goes wrong in the block is one error that names it."""
    import h5py

    if not path.is_file():
        raise PointCloudFileError(path, "no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PointCloudFileError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = "not a readable HDF5 file (damaged, cut short or of another format)"
        raise PointCloudFileError(path, " ".join(f"{reason}: {error}".split())) from error


def parse_hdf5(path: Path, extras: Extras = EXTRAS) -> Contents:
    """One cloud of an HDF5 file: its data set points, xyz, pos or data, and normals, colors and labels if there.

    Raises:
        PointCloudFileError: not HDF5, nothing named like points, data stored elsewhere, packed in a way that needs a
            plug-in, or larger than a file of this size may ask for; rows that do not match.
    """
    import h5py

    limit = most_bytes(path.stat().st_size)
    with h5py.File(path, "r") as file:
        arrays = {}
        for what, name in find_arrays(file, extras).items():
            arrays[what] = _read_array(file, path, name, SHAPES[what], None, limit)
            limit -= arrays[what].nbytes
        return from_arrays(arrays, extras)


# What deflate, the tightest of HDF5's usual filters, can make of one byte.
MOST_FROM_A_BYTE = 1032
# What HDF5 and h5py bring along (deflate, shuffle, fletcher32, szip, nbit, scaleoffset, LZF): for any other, the
# library would look for a plug-in to load.
FILTERS = {1, 2, 3, 4, 5, 6, 32000}


def _read_array(
    file: Any, path: Path, name: str, wanted: Shape | None, rows: int | None, limit: int | None = None
) -> np.ndarray:
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
    stored = array.id.get_create_plist()
    if unknown := {stored.get_filter(i)[0] for i in range(stored.get_nfilters())} - FILTERS:
        raise PointCloudFileError(path, f"data set '{name}' is packed with filter {min(unknown)}, which is not read")
    # A chunk is unpacked whole, however little of it is wanted.
    needed = max(array.size, math.prod(array.chunks or ())) * array.dtype.itemsize
    if limit is not None and needed > limit:
        raise PointCloudFileError(path, f"data set '{name}' takes {needed} bytes, more than its file may ask for")
    cut = (slice(None), slice(rows)) if array.ndim > 1 else ()
    return np.asarray(array[cut])
