"""HDF5. Nothing but the file itself is opened, and what it declares is checked against its bytes.

h5py runs in the kept process of `guard`, since damaged files can crash it or stall it; its arrays come back in a pipe.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Refusal, check_file, file_errors
from ..guard import Send, guarded
from .arrays import from_arrays
from .behind import bytes_behind
from .contents import EXTRAS, Budget, Contents, Extras, most_bytes, size_in_memory, wants_all
from .names import array_names, check_units, known_columns, left_out
from .scan import quoted

Shape = Sequence[int | None]
Sent = tuple[list[str], list[tuple[str, str, tuple[int, ...]]]]  # notes, and of each array its name, type and shape
BLOCK_BYTES, ALIGNED = 1 << 20, 16  # sent at once; where an array begins
SIGNATURE, LONGEST_SUPERBLOCK = b"\x89HDF\r\n\x1a\n", 64
# The most bytes that deflate, the tightest of HDF5's usual filters, can make of one.
MOST_FROM_A_BYTE = 1032
# Filters that HDF5 and h5py bring along (deflate, shuffle, fletcher32, szip, nbit, scaleoffset, LZF); for any other the
# library would look for a plug-in to load.
FILTERS = {1, 2, 3, 4, 5, 6, 32000}
# Attributes of a packed data set (CF conventions 1.11, sections 8.1 and 2.5.1), and words in names of others that move
# points.
SCALE, OFFSET, MISSING = "scale_factor", "add_offset", ("_FillValue", "missing_value")
MOVING = ("scale", "offset", "origin", "shift", "transform")


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
    path = Path(path)
    with file_errors(path):
        check_file(path)
        return list(_guarded(path, send_data_sets, dict(shapes), rows)[1].values())


def send_data_sets(path: Path, send: Send, shapes: Mapping[str, Shape | None], rows: int | None) -> Sent:
    """The work of `read_hdf5`, in the kept process."""
    budget = Budget(path.stat().st_size)
    with _opened(path) as file:
        return [], [_sent(name, _read_array(file, name, budget, shape, rows), send) for name, shape in shapes.items()]


def parse_hdf5(path: Path, extras: Extras = EXTRAS) -> Contents:
    """One cloud of an HDF5 file: data sets with names that `array_names` knows, or one table with names of columns.

    They are in the file itself, or in the only one of its groups that holds points.

    Raises:
        PointCloudFileError: as `read_hdf5`, no data set named like points, or larger than a file of this size may
            declare; rows that do not match.
    """
    notes, arrays = _guarded(path, send_contents, list(extras))
    return Contents(**arrays, notes=(*notes, *_behind(path)))


def _behind(path: Path) -> tuple[str, ...]:
    """A note of the bytes behind the end that the superblock declares, where that is at the beginning of the file."""
    with path.open("rb") as file:
        head = file.read(LONGEST_SUPERBLOCK)
        # Where the size of an address is, and how many bytes precede the addresses, of which the third is the end.
        size_at, begin = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}.get(head[8], (0, 0))
        size = head[size_at]
        file.seek(end := int.from_bytes(head[begin + 2 * size : begin + 3 * size], "little"))
        is_known = head.startswith(SIGNATURE) and begin and not any(head[begin : begin + size])  # from the file's begin
        return bytes_behind(file.read(), "declared byte") if is_known and end else ()


def send_contents(path: Path, send: Send, extras: Extras) -> Sent:
    """The work of `parse_hdf5`, in the kept process."""
    budget = Budget(path.stat().st_size)
    with _opened(path) as file:
        group, beside = _group_of_points(file)
        arrays = _arrays(group)
        words = [name for name in group if name not in arrays.values()]
        moving, units = _moving(file), dict[str, str]()
        moving += [f"{attribute} of {group.name}" for attribute in _moving(group) if group is not file]

        def read(given: str) -> np.ndarray:
            name = arrays.get(given, given)
            array = _read_array(group, name, budget, kinds="fiubV")
            words.extend(field for field in group[name].dtype.names or () if field not in (array.dtype.names or ()))
            moving.extend(f"{attribute} of {name}" for attribute in _moving(group[name]))
            if given.lower() in ("x", "y", "z") and isinstance(unit := group[name].attrs.get("units"), str):
                units[given] = f"{given} [{unit}]"
            return _unpacked(name, array, group[name].attrs, budget)

        contents = from_arrays(list(arrays or group), read, extras)
        check_units(units.values())
    if wants_all(extras):
        attributes = (f"{note}, an attribute" for note in left_out(moving))
        words_out = (f"{note}, not numbers" for note in left_out(words))
        contents = contents.noted(*left_out(beside), *attributes, *words_out)
    fields = contents._asdict().items()
    return list(contents.notes), [_sent(name, part, send) for name, part in fields if isinstance(part, np.ndarray)]


def _guarded(path: Path, work: Callable[..., Sent], *given: Any) -> tuple[list[str], dict[str, np.ndarray]]:
    """The notes and the arrays that `work` sends, by name."""
    (notes, sent), data = guarded(work, "h5py", path, *given, size=most_bytes(path.stat().st_size))
    arrays, at = dict[str, np.ndarray](), 0
    for name, kind, shape in sent:
        arrays[name] = np.ndarray(shape, kind, data.getbuffer(), at)  # type: ignore[attr-defined]
        at += -(-arrays[name].nbytes // ALIGNED) * ALIGNED
    return notes, arrays


def _sent(name: str, array: np.ndarray, send: Send) -> tuple[str, str, tuple[int, ...]]:
    """An array's name, type and shape, once its bytes are sent, in blocks."""
    rows = array.reshape(-1) if array.ndim == 0 else array
    for start in range(0, len(rows), step := max(1, BLOCK_BYTES // max(1, rows[:1].nbytes))):
        if block := rows[start : start + step].tobytes():
            send(block)
    if rest := -array.nbytes % ALIGNED:
        send(bytes(rest))
    return name, array.dtype.str, array.shape


def _group_of_points(file: Any) -> tuple[Any, list[str]]:
    """The file itself, or the only one of its groups with points where it has none, and the names beside that."""
    if _holds_points(_arrays(file)):
        return file, []
    groups = [name for name in file if _is_hard(file, name) and _holds_points(_arrays(file[name]))]
    if len(groups) > 1:
        raise Refusal(f"holds points in the groups {quoted(', '.join(groups))}; save one of them in a file of its own")
    return (file[groups[0]], [name for name in file if name != groups[0]]) if groups else (file, [])


def _arrays(group: Any) -> dict[str, str]:
    """The data sets of numbers and the links in a group, by their names; without others, a table is "points"."""
    import h5py

    if not isinstance(group, h5py.Group):
        return {}
    hard = {name: group[name] for name in group if _is_hard(group, name)}
    others = {name for name, array in hard.items() if not isinstance(array, h5py.Dataset) or not _numbers(array.dtype)}
    arrays = {name: name for name in group if name not in others}
    tables = [name for name in arrays if name in hard and _holds_points(hard[name].dtype.names or ())]
    if len(tables) == 1 and not _holds_points(arrays):
        arrays = {"points" if name == tables[0] else name: name for name in arrays}
    return arrays


def _holds_points(names: Collection[str]) -> bool:
    return bool(array_names(names, ()) or known_columns(names, ()))


def _is_hard(group: Any, name: str) -> bool:
    import h5py

    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _numbers(dtype: np.dtype) -> list[str]:
    """The fields of a table that are numbers; of an array of numbers its type, and nothing of another."""
    if dtype.names is None:
        return [str(dtype)] if dtype.kind in "fiub" else []
    return [name for name in dtype.names if dtype[name].base.kind in "fiub"]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py  # 0.1 s, and most files are of other formats

    with h5py.File(path, "r") as file:
        yield file


def _read_array(
    file: Any,
    name: str,
    budget: Budget,
    wanted: Shape | None = None,
    rows: int | None = None,
    kinds: str = "fiub",
) -> np.ndarray:
    """The data set of this name, once it is certain that its numbers are in the file and have the wanted shape."""
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise Refusal(f"has no data set '{name}'; it holds {sorted(file) or 'nothing'}")
    if not isinstance(link, h5py.HardLink):
        raise Refusal(f"'{name}' is a link, which is not followed")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in kinds:
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
    filters = [stored.get_filter(i)[0] for i in range(stored.get_nfilters())]
    if unknown := set(filters) - FILTERS:
        raise Refusal(f"data set '{name}' is packed with filter {min(unknown)}, which is not read")
    if len(set(filters)) < len(filters):
        raise Refusal(f"data set '{name}' is packed several times over, which is not read")
    # A chunk is unpacked whole, however little of it is wanted.
    unpacked = max(array.size, math.prod(array.chunks or ())) * array.dtype.itemsize
    budget.charge(f"data set '{name}'", max(unpacked, array.size * size_in_memory(array.dtype)))
    if array.dtype.names:  # other fields may be words of any length, stored elsewhere in the file
        array = array.fields(_numbers(array.dtype))
    return np.asarray(array[(slice(None), slice(rows)) if len(array.shape) > 1 else ()])


def _moving(holder: Any) -> list[str]:
    """The names of attributes that seem to say where points are, and that nothing here goes by."""
    return [
        name for name in holder.attrs if name not in (SCALE, OFFSET) and any(word in name.lower() for word in MOVING)
    ]


def _unpacked(name: str, array: np.ndarray, attributes: Mapping[str, Any], budget: Budget) -> np.ndarray:
    """What the numbers of a packed data set stand for: scale_factor n + add_offset, NaN where nothing was measured."""
    scale, offset = (_number(name, each, attributes) for each in (SCALE, OFFSET))
    if array.dtype.kind != "f" and scale is None and offset is None:
        return array
    if array.dtype.names:
        raise Refusal(f"table '{name}' is packed by {SCALE} or {OFFSET}, which only a data set of numbers can be")
    missing = np.zeros(array.shape, bool)
    for each in MISSING:
        if (number := _number(name, each, attributes)) is not None:
            missing |= array == number
    if scale is None and offset is None and not missing.any():
        return array
    budget.charge(f"data set '{name}'", array.size * np.dtype(np.float64).itemsize)
    numbers = array * np.float64(1 if scale is None else scale) + np.float64(offset or 0)
    return np.where(missing, np.nan, numbers)


def _number(name: str, attribute: str, attributes: Mapping[str, Any]) -> float | None:
    """An attribute that is one number; None if it is not there."""
    if attribute not in attributes:
        return None
    value = np.asarray(attributes[attribute])
    if value.size != 1 or value.dtype.kind not in "fiu":
        raise Refusal(f"{attribute} of data set '{name}' must be a number")
    return float(value.reshape(-1)[0])
