"""HDF5. Nothing but the file itself is opened, and what it declares is checked against its bytes."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Refusal, check_file, file_errors
from .arrays import from_arrays
from .contents import EXTRAS, Contents, Extras, most_bytes

Shape = tuple[int | None, ...]
# The most bytes that deflate, the tightest of HDF5's usual filters, can make of one.
MOST_FROM_A_BYTE = 1032
# Filters that HDF5 and h5py bring along (deflate, shuffle, fletcher32, szip, nbit, scaleoffset, LZF); for any other the
# library would look for a plug-in to load.
FILTERS = {1, 2, 3, 4, 5, 6, 32000}


def read_hdf5(
    path: str | os.PathLike[str], shapes: Mapping[str, Shape | None], rows: int | None = None
) -> list[np.ndarray]:
    """The named data sets of one HDF5 file, each whole, or cut to `rows` along its second axis.

    Only bytes stored in the file itself are read: links, external storage and virtual data sets are refused. What a
    data set declares is checked before memory is taken for it, against `shapes` (None: any size, or any shape) and
    against the bytes that are there.

    Raises:
        PointCloudFileError: the file is missing, is not HDF5, is cut short, or lacks one of the data sets.
    """
    with _opened(Path(path)) as file:
        return [_read_array(file, name, shape, rows) for name, shape in shapes.items()]


def parse_hdf5(path: Path, extras: Extras = EXTRAS) -> Contents:
    """One cloud of an HDF5 file: its data sets with names that `array_names` knows.

    Raises:
        PointCloudFileError: as `read_hdf5`, no data set named like points, or larger than a file of this size may
            declare; rows that do not match.
    """
    limit = most_bytes(path.stat().st_size)
    with _opened(path) as file:

        def read(name: str) -> np.ndarray:
            nonlocal limit
            array = _read_array(file, name, limit=limit)
            limit -= array.nbytes
            return array

        return from_arrays(list(file), read, extras)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py  # 0.1 s, and most files are of other formats

    with file_errors(path):
        check_file(path)
        with h5py.File(path, "r") as file:
            yield file


def _read_array(
    file: Any, name: str, wanted: Shape | None = None, rows: int | None = None, limit: int | None = None
) -> np.ndarray:
    """The data set of this name, once it is certain that its numbers are in the file and have the wanted shape."""
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise Refusal(f"has no data set '{name}'; it holds {sorted(file) or 'nothing'}")
    if not isinstance(link, h5py.HardLink):
        raise Refusal(f"'{name}' is a link, which is not followed")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in "fiu":
        raise Refusal(f"'{name}' must be a data set of numbers")
    if array.external is not None or array.is_virtual:
        raise Refusal(f"data set '{name}' is stored in other files, which are not opened")
    if wanted is not None and not (
        len(wanted) == array.ndim and all(w in (None, n) for w, n in zip(wanted, array.shape, strict=True))
    ):
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise Refusal(f"data set '{name}' must be ({sizes}), got {array.shape}")
    if array.size * array.dtype.itemsize > MOST_FROM_A_BYTE * array.id.get_storage_size():
        raise Refusal(f"data set '{name}' declares {array.shape}, more than the file holds")
    stored = array.id.get_create_plist()
    if unknown := {stored.get_filter(i)[0] for i in range(stored.get_nfilters())} - FILTERS:
        raise Refusal(f"data set '{name}' is packed with filter {min(unknown)}, which is not read")
    # A chunk is unpacked whole, however little of it is wanted.
    needed = max(array.size, math.prod(array.chunks or ())) * array.dtype.itemsize
    if limit is not None and needed > limit:
        raise Refusal(f"data set '{name}' takes {needed} bytes, more than its file may declare")
    return np.asarray(array[(slice(None), slice(rows)) if array.ndim > 1 else ()])
