"""Points in memory: arrays, and tables that name their columns."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cloud import BFLOAT16, Drawing, PointCloud, check_drawing, cloud_from
from .errors import Refusal
from .formats.columns import from_named
from .formats.contents import EXTRAS, Contents
from .formats.names import COLUMNS, left_out, places
from .formats.scan import quoted

NUMBERED = re.compile(r"(?:column_?)?(\d+)")  # what a table calls columns without a name


def rows_of(source: Any) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """An array, tensor or list as an array, NaN where NumPy's is masked; of a structured array, or of a table of
    pandas or polars, the columns by name, but for a table whose columns have none of their own.

    Raises:
        ValueError: two columns have one name, or none of them is x, y or z.
    """
    if isinstance(source, np.ndarray) and source.dtype.names:
        return {name: _filled(source[name]) for name in source.dtype.names}
    if hasattr(source, "to_numpy") and (names := [*getattr(source, "columns", ())]):
        if places([*map(str, names)], ()):
            if len(set(names)) < len(names):
                raise ValueError(f"points of columns {quoted(', '.join(names))}: two have one name")
            return {name: source[name].to_numpy() for name in names}
        if not _are_numbered([*map(str, names)]):
            wanted = "rename them, or give its to_numpy() with x, y and z first"
            raise ValueError(f"points of columns {quoted(', '.join(map(str, names)))}: not x, y and z; {wanted}")
        source = source.to_numpy()
    if isinstance(source, Tensor):
        try:
            return (source.float() if source.dtype == torch.bfloat16 else source).numpy(force=True)
        except (TypeError, RuntimeError) as error:
            kind = f"a tensor that NumPy cannot take ({source.layout}, {source.dtype}, on {source.device})"
            raise ValueError(f"points of {kind}; give a dense one of float32") from error
    return _filled(source)


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether names are those of a table whose columns have none: one number after the other."""
    found = [NUMBERED.fullmatch(name) for name in names]
    numbers = [int(each[1]) for each in found if each]
    return len(numbers) == len(names) and numbers == [*range(numbers[0], numbers[0] + len(names))]


def came_as(source: Any) -> str:
    """The type of a tensor's numbers, where `rows_of` gives them in another; "" for all else."""
    return BFLOAT16 if isinstance(source, Tensor) and source.dtype == torch.bfloat16 else ""


def _filled(source: Any) -> NDArray[Any]:
    if isinstance(source, np.ma.MaskedArray) and source.dtype.kind in "fiu":
        return np.ma.filled(source.astype(np.result_type(source.dtype, np.float16)), np.nan)
    return np.asarray(source)


def cloud_of(
    rows: NDArray[Any] | Mapping[str, NDArray[Any]],
    num_points: int | None = None,
    seed: int = 0,
    up: str | None = None,
    repeat: bool = False,
    normalize: bool = False,
    precise: bool = False,
    columns: Sequence[str] = (),
    came_as: str = "",
) -> PointCloud:
    """The cloud that `read_cloud` gives for a file of these rows: points (N, 3), or points and normals (N, 6), or
    columns by name, (N,) each, as of a file that names them.

    Args:
        columns: of rows (N, K) the names of K columns, x, y and z first; colours are taken as they are.
        came_as: the type of their numbers before, as the function of this name has it.

    Raises:
        ValueError: rows of another shape or not of numbers, or that `read_cloud` would refuse in a file; an argument
            outside `read_cloud`'s.
    """
    check_drawing(num_points, up)
    drawing = Drawing(num_points, np.random.default_rng(seed), repeat, normalize, precise, came_as=came_as)
    try:
        _check_overflow(rows)
        with np.errstate(all="ignore"):
            contents = _named(rows) if isinstance(rows, Mapping) else _unnamed(rows, columns)
            return cloud_from(contents, drawing, EXTRAS).in_library_frame(up or "z")
    except Refusal as refusal:
        raise ValueError(f"points {shown(rows)}: {refusal}") from refusal


def _check_overflow(rows: NDArray[Any] | Mapping[str, NDArray[Any]]) -> None:
    """Raises Refusal where numbers are infinite because their type holds no larger ones."""
    arrays = rows.values() if isinstance(rows, Mapping) else [rows]
    if any(each.dtype == np.float16 and np.isinf(each).any() for each in arrays):
        raise Refusal("some are infinite, as float16 holds no more than 65,504; give float32")


def shown(rows: NDArray[Any] | Mapping[str, NDArray[Any]]) -> str:
    """Their shape, or the names of their columns, for a message."""
    return f"of columns {quoted(', '.join(rows))}" if isinstance(rows, Mapping) else str(tuple(rows.shape))


def _named(columns: Mapping[str, NDArray[Any]]) -> Contents:
    if any(column.ndim != 1 for column in columns.values()):
        raise Refusal("each column must be one number for each point")
    numbers = {name: column for name, column in columns.items() if column.dtype.kind in "fiub"}
    if places([*columns], ()) and not places([*numbers], ()):
        raise Refusal("columns of x, y and z must hold numbers")
    contents = from_named(numbers, EXTRAS, list(numbers))
    others = left_out([name for name in columns if name not in numbers])
    return contents.noted(*(f"{note}, not numbers" for note in others))


def _unnamed(rows: NDArray[Any], columns: Sequence[str]) -> Contents:
    width = rows.shape[1] if rows.ndim == 2 else 0
    names = tuple(columns) if len(columns) == width else ("x", "y", "z", "nx", "ny", "nz")[:width]
    if width not in (3, 6, len(columns)) or not len(rows) or rows.dtype.kind not in "fiu":
        wanted = "numbers (N, 3), or (N, 6) with normals"
        if tuple(columns) not in (tuple(names[:3]), ()) and "nx" not in columns:
            wanted = f"numbers (N, {len(columns)}) of {', '.join(columns)}"
        several = "; give several clouds as a list" if rows.ndim == 3 else ""
        raise ValueError(f"points must be {wanted}, got {rows.dtype} {tuple(rows.shape)}{several}")
    parts: dict[str, Any] = {}
    for part, group in COLUMNS.items():
        if group[0] in names:
            at = names.index(group[0])
            parts[part] = rows[:, at : at + len(group)] if len(group) > 1 else rows[:, at]
    return Contents(parts.pop("points"), **parts)
