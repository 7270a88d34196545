"""Arrays: NPY, NPZ. Headers are checked against the bytes that are there before memory is taken; no pickle."""

import io
import math
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import Refusal
from .behind import bytes_behind, check_behind, rows_behind
from .columns import from_named, from_parts, from_table, lacks_labels
from .contents import EXTRAS, Array, Budget, Contents, Extras, size_in_memory, wants_all
from .names import MOST_ROWS, array_names, check_width, known_columns, left_out
from .scan import quoted

MOST_COLUMNS = 100
MOST_MEMBERS = 1000
END_OF_ARCHIVE = 22  # bytes of the record that ends a ZIP, before its comment
LONGEST_HEADER = 1 << 16  # of an NPY
BLOCK_BYTES = 1 << 20  # unpacked at once
NAMES_OF_POINTS = ("points", "xyz", "pos", "data")  # some of them, for a message
WIDTHS = {"normals": 3, "colors": 3, "labels": 1, "intensity": 1}


def parse_npy(data: bytes, extras: Extras = EXTRAS, columns: Sequence[str] = ()) -> Contents:
    """One array (N, 3 or more), or structured with fields x, y and z, or with fields that are such arrays.

    Args:
        columns: the names of the columns, by hand.
    """
    array, notes = _npy(data)
    contents = _from_array(array, "the array", extras, columns)
    return contents.noted(*notes)


def parse_npy_table(data: bytes) -> Array:
    """One array of numbers (N, K), without a copy."""
    return _as_rows(_npy(data)[0], "the array", 1)


def parse_npz(data: bytes, extras: Extras = EXTRAS, columns: Sequence[str] = ()) -> Contents:
    """An archive of arrays with names that `array_names` knows; `columns` are of the points."""
    if data.count(b"PK\1\2") > MOST_MEMBERS:
        raise Refusal(f"holds more than {MOST_MEMBERS} members")
    budget, notes = Budget(len(data)), list[str]()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in reversed(archive.infolist())}

        def read(name: str) -> Array:
            array, more = _npy(_unpacked(archive, members[name], budget), quoted(name)[1:-1])
            notes.extend(more)
            budget.charge(quoted(name), max(0, array.size * size_in_memory(array.dtype) - array.nbytes))
            return array

        before = min((info.header_offset for info in members.values()), default=0)
        notes += [f"{before:,} bytes before its archive left out"] * (before > 0)
        end = data.rfind(b"PK\5\6") + END_OF_ARCHIVE + len(archive.comment)
        notes += bytes_behind(data[end:], "member")
        names = list(reversed(members))
        if len(names) == 1 and not array_names(names) and (only := read(names[0])).dtype.names:
            return _from_array(only, names[0], extras, columns).noted(*notes)
        return from_arrays(names, read, extras, columns).noted(*notes)


def from_arrays(
    there: Sequence[str], read: Callable[[str], Array], extras: Extras, columns: Sequence[str] = ()
) -> Contents:
    """Contents from arrays of these names: one of points, or x, y and z; of any extras too, else those are looked for
    in the columns of the points.

    Args:
        read: gives an array by its name.
        columns: the names of the columns of the points, by hand.

    Raises:
        Refusal: none is named like points, or rows do not match.
    """
    names = array_names(there, extras)
    if "points" not in names:
        if found := known_columns(there, extras):
            _check_unnamed(columns, there)
            arrays, unlike = _columns(there, found, read)
            return from_named(arrays, extras, [name for name in there if name not in unlike]).noted(*unlike.values())
        held = ", ".join(map(ascii, sorted(there)[:8])) or "nothing"
        raise Refusal(f"holds no array named {', '.join(NAMES_OF_POINTS)}, only {held[:200]}")
    points, *_ = names.pop("points")
    contents = _from_array(read(points), "points", extras, columns, names)
    notes, parts, used = contents.notes, dict[str, Array](), [points]
    for what, likely in names.items():
        part, some, known = _part(likely, read, what, len(contents.vertices))
        notes, used = (*notes, *some), used + known
        parts |= {} if part is None else {what: part}
    if wants_all(extras) or (contents.labels is None and lacks_labels(parts, extras)):
        notes += left_out(there, [there.index(name) for name in used])
    elif "labels" in parts and (others := [name for name in names["labels"] if name not in used]):
        taken = [name for name in names["labels"] if name in used][-1]  # those before it are none
        notes += tuple(f"labels are those of {taken}; {note}" for note in left_out(others))
    own = from_parts({"points": contents.vertices, **parts}, notes)
    return contents._replace(notes=own.notes, **{what: getattr(own, what) for what in parts})


def _part(
    names: Sequence[str], read: Callable[[str], Array], what: str, count: int
) -> tuple[Array | None, tuple[str, ...], list[str]]:
    """The first of these arrays that has a row for each point, notes, and the names that need no other note."""
    width, notes, known, misfit = WIDTHS[what], tuple[str, ...](), list[str](), ""
    for name in names:
        array = read(name)
        if unlike := _unlike(array, count, width):
            notes, known = (*notes, f"left out: {name}, {unlike}"), [*known, name]
        else:
            rows = _as_rows(array.reshape(-1, 1) if width == 1 else array, what, width)[:, :width]
            if len(rows) == count:
                return rows, notes, [*known, name]
            misfit = misfit or f"holds {count} points but {len(rows)} {what}"
    if misfit:
        raise Refusal(misfit)
    return None, notes, known


def _columns(
    there: Iterable[str], found: Collection[str], read: Callable[[str], Array]
) -> tuple[dict[str, Array], dict[str, str]]:
    """The found arrays that have a number for each point, (N,) each, and notes of the others, by name."""
    arrays, axes = {name: read(name) for name in there if name in found}, known_columns(found, ())
    count, *others = {arrays[name].size for name in axes}
    if others:
        lengths = ", ".join(f"{arrays[name].size} of {name}" for name in arrays if name in axes)
        raise Refusal(f"x, y and z must be of one length, got {lengths}")
    unlike = {name: why for name, array in arrays.items() if (why := _unlike(array, count, 1))}
    fitting = {name for name, array in arrays.items() if name not in unlike and array.size == count}
    labels = known_columns(found, ("labels",)) - axes
    for name in [name for name in arrays if name not in fitting | unlike.keys()]:
        if name not in labels or not labels & fitting:
            raise Refusal(f"holds {count} points but {arrays[name].size} of {name}")
        unlike[name] = f"of shape {arrays[name].shape}"
    notes = {name: f"left out: {name}, {why}" for name, why in unlike.items()}
    return {name: array.reshape(-1) for name, array in arrays.items() if name in fitting}, notes


def _unlike(array: Array, count: int, width: int) -> str:
    """Why an array belongs to something other than so many points, such as their image; "" where it has rows of this
    width, however many."""
    if array.dtype.kind in "SU":
        return "not numbers"
    if array.size == width and count > 1:  # such as the class of the object
        return "one for all points"
    if width == 1:
        has_rows = array.size in (count, max(array.shape, default=1))
    else:
        wide = array.shape[1] if array.ndim == 2 else 0
        has_rows = width <= wide <= width + 1 or (width <= wide and count in array.shape)  # or is transposed
    return "" if has_rows else f"of shape {array.shape}"


def _from_array(array: Array, name: str, extras: Extras, columns: Sequence[str], beside: Extras = ()) -> Contents:
    """Contents of one array: a table, or structured; extras `beside` it have arrays of their own."""
    if not array.dtype.names:
        rows = _as_rows(array, name)
        if columns:
            check_width(columns, rows.shape[1])
        return from_table(rows, extras, columns, beside=beside)
    fields = {field: array[field] for field in array.dtype.names}
    if not known_columns(fields) and "points" in array_names(fields):
        return from_arrays(list(fields), fields.__getitem__, extras, columns)
    _check_unnamed(columns, fields)
    single = {field: column.reshape(-1) for field, column in fields.items() if column.ndim == array.ndim}
    numbers = {field: column for field, column in single.items() if column.dtype.kind in "fiub"}
    contents = from_named(numbers, extras, numbers)
    others = [field for field in fields if field not in numbers] if wants_all(extras) else []
    return contents.noted(*(f"{note}, not numbers" for note in left_out(others)))


def _check_unnamed(columns: Sequence[str], names: Iterable[str]) -> None:
    """Raises Refusal where columns are named by hand, but have names of their own."""
    if columns:
        raise Refusal(f"has names of its own, {quoted(', '.join(names))}; leave out --columns (columns= in Python)")


def _as_rows(array: Array, name: str, width: int = 3) -> Array:
    """An array of numbers as (N, K), K at least `width`."""
    if array.dtype.kind not in "fiub":
        raise Refusal(f"{name} must be numbers, got {str(array.dtype)[:40]}")
    rows, wide = array.shape if array.ndim == 2 else (0, 0)
    if not width <= wide <= MOST_COLUMNS or rows < wide > MOST_ROWS:
        raise Refusal(f"{name} must be (N, {width}) or a little wider, got {array.shape}{_what_to_do(array.shape)}")
    return array


def _what_to_do(shape: tuple[int, ...]) -> str:
    """With an array that is transposed, or has several clouds, (S, N, 3 or more) or (S, 3 or more, N), or pixels."""
    if len(shape) == 2 and 3 <= shape[0] <= MOST_ROWS:
        return "; give array.T if it is transposed"
    if len(shape) != 3 or not 3 <= min(shape[1:]) <= MOST_COLUMNS:
        return ""
    is_last = shape[2] <= min(MOST_ROWS, shape[1])
    if shape[0] == 1:
        return f"; save {f'array.reshape(-1, {shape[2]})' if is_last else 'array[0].T'}"
    wanted = "give the set's name and folder (--dataset and --root of train and evaluate; show NAME --root)"
    many = f": {shape[0]:,} clouds, as in a file of a data set; {wanted}, or save one of them as NPY"
    return f"{many}; if it is one cloud, save array.reshape(-1, {shape[2]})" if is_last else many


def _npy(data: bytes | bytearray, name: str = "number") -> tuple[Array, tuple[str, ...]]:
    """The array of an NPY file, without a copy, and a note of what lies behind it.

    Raises:
        Refusal: it is damaged, or more rows of the array lie behind it.
    """
    stream = io.BytesIO(data[:LONGEST_HEADER])
    shape, by_columns, dtype = _header(stream)
    if dtype.hasobject:
        raise Refusal("holds Python objects, which are not loaded, since that can run anything")
    start = stream.tell()
    there = len(data) - start
    size = math.prod(shape) * dtype.itemsize
    if size > there or dtype.itemsize == 0:
        raise Refusal(f"declares an array of {shape}, {size} bytes, but holds {there}")
    array = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape, order="F" if by_columns else "C")
    rest = bytes(data[start + size :])
    if rest and dtype.kind in "iuf" and len(shape) == 2 and not by_columns:
        more = rows_behind(rest, row := np.dtype((dtype, shape[1:])))
        check_behind(more, array, "rows", len(rest) // row.itemsize)
    return array, bytes_behind(rest, name)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape of the array, whether its columns lie one behind another, and its type."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise Refusal(f"is NPY of version {version[0]}.{version[1]}, which is not known")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read_header(stream)
    return found


def own_columns(path: Path) -> tuple[list[str], int]:
    """The names of an NPY's columns, if x, y and z are among them, and how many it has; none of an NPZ."""
    if path.suffix.lower() != ".npy":
        return [], 0
    with path.open("rb") as file:
        shape, _, dtype = _header(file)
    names = list(dtype.names or ())
    return names if known_columns(names) else [], len(names) or (shape[-1] if len(shape) == 2 else 0)


def names_columns(path: Path, count: int) -> bool:
    """Whether an NPY, or an NPZ, names its columns x, y and z, or its only array does; or an NPZ has points of three
    columns beside other arrays that it names, to which so many names by hand do not belong."""
    with path.open("rb") as file:
        if path.suffix.lower() == ".npy":
            return bool(_header(file)[2].names)
        with zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()[:MOST_MEMBERS]}
            if len(names) == 1:
                with archive.open(archive.namelist()[0]) as only:
                    return bool(_header(only)[2].names)
            known = array_names(names)
            if "points" not in known:
                return bool(known_columns(names))
            with archive.open(names[known["points"][0]]) as points:
                return len(known) > 1 and count != _header(points)[0][-1] == 3


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: Budget) -> bytearray:
    """A member's bytes, at most as many as it declares, which are charged."""
    name = quoted(member.filename)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise Refusal(f"{name} is packed in a way numpy does not write")
    budget.charge(name, member.file_size)
    data = bytearray()  # grows in place
    with archive.open(member) as stream:
        while block := stream.read(BLOCK_BYTES):
            data += block
            if len(data) > member.file_size:
                raise Refusal(f"{name} unpacks to more than it declares")
    return data
