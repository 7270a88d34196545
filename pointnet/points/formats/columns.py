"""Tables of points, with named columns or without: the one place for the names of columns and arrays."""

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import Refusal
from .contents import EXTRAS, Array, Contents, Extras

Group = tuple[str, ...]

# Names of columns, in order of preference, as `plain` spells them: normal_x, //X and "R" become normalx, x and r.
COLUMNS: dict[str, tuple[Group, ...]] = {
    "points": (("x", "y", "z"), ("px", "py", "pz")),
    "normals": (("nx", "ny", "nz"), ("normalx", "normaly", "normalz")),
    "colors": (("r", "g", "b"), ("red", "green", "blue"), ("diffusered", "diffusegreen", "diffuseblue")),
    "labels": (
        *((f"{before}{name}",) for before in ("", "scalar") for name in ("label", "labels", "class", "part")),
        ("classification",),
        ("scalarclassification",),
    ),
    "intensity": (("intensity",), ("scalarintensity",), ("reflectance",), ("scalarreflectance",)),
}
# Names of whole arrays: HDF5 data sets and members of an NPZ, in order of preference.
ARRAYS: dict[str, Group] = {
    "points": ("points", "xyz", "pos", "data", "vertices", "arr_0"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "color", "rgb"),
    "labels": ("labels", "label", "parts", "seg", "pid"),
    "intensity": ("intensity", "reflectance"),
}
SOME_ROWS = 10_000  # evenly spaced; columns without names are recognised by these


def plain(name: str) -> str:
    """A column's name as `COLUMNS` spells it: lower case, letters only."""
    return re.sub(r"[^a-z]", "", name.lower())


def known_columns(names: Iterable[str], extras: Extras = EXTRAS) -> set[str]:
    """The names that belong to wanted columns; empty where x, y and z are not among them."""
    found = _groups({plain(name) for name in names}, extras)
    return {name for group in found.values() for name in group} if "points" in found else set()


def _groups(there: Collection[str], extras: Extras) -> dict[str, Group]:
    """The names of the points' columns, and of the wanted extras'; only those that are there."""
    groups = {what: [group for group in COLUMNS[what] if set(group) <= set(there)] for what in ("points", *extras)}
    return {what: found[0] for what, found in groups.items() if found}


def from_named(columns: Mapping[str, Array], extras: Extras = EXTRAS) -> Contents:
    """Contents from named columns, each (N,).

    Raises:
        Refusal: no x, y and z.
    """
    # Of two columns of one name the first counts.
    columns = {plain(name): column for name, column in reversed(list(columns.items()))}
    groups = _groups(columns, extras)
    if "points" not in groups:
        raise Refusal(f"names no columns x, y and z, only {', '.join(sorted(columns)[:8]) or 'none'}")
    return from_parts({what: _side_by_side([columns[name] for name in group]) for what, group in groups.items()})


def _side_by_side(columns: list[Array]) -> Array:
    """(N, K) from K columns (N,); a view without a copy where they are evenly spaced in one table, as is usual."""
    first = columns[0]
    alike = {(id(column.base), column.dtype, column.strides, column.shape) for column in columns}
    steps = set(np.diff([column.__array_interface__["data"][0] for column in columns]).tolist())
    if first.base is None or len(alike) > 1 or len(steps) != 1:
        return np.stack(columns, axis=1)
    shape, strides = (*first.shape, len(columns)), (*first.strides, *steps)
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)


def recognised(rows: Array, extras: Extras = EXTRAS) -> dict[str, Array]:
    """The columns of a table without names (N, K), recognised by their numbers: points, and the wanted extras.

    Columns 0 to 2 are xyz. Of the next two blocks of three columns each is a normal, if of length 1, or a colour, if
    within 0..255. The last of 4 columns, or of 7 or 10 with a normal, is a label. Other columns are skipped.

    Raises:
        Refusal: fewer than 3 columns.
    """
    width, some = rows.shape[1], rows[:: len(rows) // SOME_ROWS + 1]
    if width < 3:
        raise Refusal(f"must have at least 3 columns, x, y and z, got {width}")
    found = {"points": rows[:, :3]}
    for start in range(3, min(width, 9) - 2, 3):
        block = slice(start, start + 3)
        if "normals" not in found and _are_normals(some[:, block]):
            found["normals"] = rows[:, block]
        elif "colors" not in found and _are_colors(some[:, block]):
            found["colors"] = rows[:, block]
    if width == 4 or (width in (7, 10) and "normals" in found):
        found["labels"] = rows[:, -1:]
    return {what: columns for what, columns in found.items() if what in ("points", *extras)}


def from_parts(parts: Mapping[str, Array]) -> Contents:
    """Contents of a cloud: points, normals, colors (N, 3), labels, intensity (N, 1); all but points may be missing."""
    colors, labels, intensity = parts.get("colors"), parts.get("labels"), parts.get("intensity")
    return Contents(
        parts["points"],
        normals=parts.get("normals"),
        colors=None if colors is None else as_unit_colors(colors),
        labels=None if labels is None else as_labels(labels[:, 0]),
        intensity=None if intensity is None else intensity[:, 0],
    )


def as_labels(column: Array) -> NDArray[np.int64] | None:
    """(N,) as int64, or None where they are not whole numbers."""
    if column.dtype.kind in "iub":
        return column.astype(np.int64)
    whole = np.isfinite(column).all() and (np.abs(column) < 2**53).all() and (column == np.rint(column)).all()
    return column.astype(np.int64) if whole else None


def _are_normals(block: Array) -> bool:
    """Whether the rows have length 1, as closely as three digits show; a minority of zeros is allowed."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(block.astype(np.float64), axis=1)
    length = length[np.isfinite(length)]
    unit = np.abs(length - 1) < 0.01
    return bool((unit | (length == 0)).all() and unit.sum() > len(length) / 2)


def _are_colors(block: Array) -> bool:
    return bool(((block >= 0) & (block <= 255)).all())


def as_unit_colors(colors: Array) -> Array:
    """(n, 3 or more), in [0, 1] or in 0..255 -> (n, 3) float32 in [0, 1].

    Integers are always of 255 (16 bits: of 65535); other numbers are where one of them exceeds 1.
    """
    rgb = np.asarray(colors[:, :3])
    scaled = rgb.astype(np.float32)
    if rgb.dtype.kind in "iu" or (np.nan_to_num(scaled) > 1).any():
        scaled /= np.float32(65535 if rgb.dtype == np.uint16 else 255)
    return np.clip(np.nan_to_num(scaled), 0, 1)
