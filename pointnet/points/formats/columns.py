"""Tables of points, with names for their columns or without."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from .contents import EXTRAS, Array, Contents, Extras, Refusal

# What a column may be called, in any case and with anything but letters left out: normal_x, //X, "R".
POINTS = (("x", "y", "z"), ("px", "py", "pz"))
NORMALS = (("nx", "ny", "nz"), ("normalx", "normaly", "normalz"))
COLORS = (("r", "g", "b"), ("red", "green", "blue"), ("diffusered", "diffusegreen", "diffuseblue"))
LABELS = tuple((f"{before}{name}",) for before in ("", "scalar") for name in ("label", "labels", "class", "part"))
LABELS += (("classification",), ("scalarclassification",))


def plain(name: str) -> str:
    """A column's name as the tables above spell it."""
    return re.sub(r"[^a-z]", "", name.lower())


def known_columns(names: Iterable[str], extras: Extras = EXTRAS) -> set[str]:
    """Which of the names say what a column that is wanted is; empty where xyz is not among them."""
    found = _groups({plain(name) for name in names}, extras)
    return {name for group in found for name in group} if found[0] else set()


def _groups(there: Collection[str], extras: Extras) -> list[tuple[str, ...]]:
    """What x, y and z are called, and each of `EXTRAS`: (), if it is not there or not wanted."""
    wanted = [what in ("points", *extras) for what in ("points", *EXTRAS)]
    found = [next((group for group in groups if set(group) <= set(there)), ()) for groups in _GROUPS]
    return [group if is_wanted else () for group, is_wanted in zip(found, wanted, strict=True)]


# Rows looked at, evenly spaced, to tell what columns without names are.
ENOUGH_ROWS = 10_000
_GROUPS: tuple[tuple[tuple[str, ...], ...], ...] = (POINTS, NORMALS, COLORS, LABELS)


def from_named(columns: Mapping[str, Array], extras: Extras = EXTRAS) -> Contents:
    """Contents from named columns, each (N,).

    Raises:
        Refusal: no x, y and z.
    """
    # Of two alike, the first stands.
    columns = {plain(name): column for name, column in reversed(list(columns.items()))}
    points, normals, colors, labels = ([columns[name] for name in group] for group in _groups(columns, extras))
    if not points:
        raise Refusal(f"names no columns x, y and z, only {', '.join(sorted(columns)[:8]) or 'none'}")
    return Contents(
        _side_by_side(points),
        normals=_side_by_side(normals) if normals else None,
        colors=as_unit_colors(_side_by_side(colors)) if colors else None,
        labels=as_labels(labels[0]) if labels else None,
    )


def _side_by_side(columns: list[Array]) -> Array:
    """(N, K) from K columns (N,): where they lie evenly in one table, as in most files, that part of it, not copied."""
    first = columns[0]
    alike = {(id(column.base), column.dtype, column.strides, column.shape) for column in columns}
    steps = set(np.diff([column.__array_interface__["data"][0] for column in columns]).tolist())
    if first.base is None or len(alike) > 1 or len(steps) > 1:
        return np.stack(columns, axis=1)
    shape, strides = (*first.shape, len(columns)), (*first.strides, *steps)
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)


def from_rows(rows: Array, extras: Extras = EXTRAS) -> Contents:
    """Contents from a table without names (N, K), by what the numbers can be.

    xyz, then in each next three columns a normal, if of length 1, or a colour, if within 0..255; the last of 4 columns,
    or of 7 or 10 with a normal, is a label, if of whole numbers. What is none of these is left out.

    Raises:
        Refusal: fewer than 3 columns.
    """
    width, some = rows.shape[1], rows[:: len(rows) // ENOUGH_ROWS + 1]
    if width < 3:
        raise Refusal(f"must have at least 3 columns, x, y and z, got {width}")
    normals = colors = labels = None
    for start in range(3, min(width, 9) - 2, 3):
        block = slice(start, start + 3)
        if normals is None and _are_normals(some[:, block]):
            normals = rows[:, block]
        elif colors is None and _are_colors(some[:, block]):
            colors = rows[:, block]
    if width == 4 or (width in (7, 10) and normals is not None):
        labels = rows[:, -1]
    return Contents(
        rows[:, :3],
        normals=normals if "normals" in extras else None,
        colors=as_unit_colors(colors) if colors is not None and "colors" in extras else None,
        labels=as_labels(labels) if labels is not None and "labels" in extras else None,
    )


def as_labels(column: Array) -> NDArray[np.int64] | None:
    """(N,) as int64, or None where they are no whole numbers."""
    if column.dtype.kind in "iub":
        return column.astype(np.int64)
    whole = np.isfinite(column).all() and (np.abs(column) < 2**53).all() and (column == np.rint(column)).all()
    return column.astype(np.int64) if whole else None


def _are_normals(block: Array) -> bool:
    """Whether all rows, but for a few of zeros, are of length 1, as closely as three digits show."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(block.astype(np.float64), axis=1)
    length = length[np.isfinite(length)]
    unit = np.abs(length - 1) < 0.01
    return bool((unit | (length == 0)).all() and unit.sum() > len(length) / 2)


def _are_colors(block: Array) -> bool:
    return bool(((block >= 0) & (block <= 255)).all())


def as_unit_colors(colors: Array) -> Array:
    """(n, 3 or more), in [0, 1] or in 0..255 -> (n, 3) float32 in [0, 1].

    Integers are always of 255; other numbers are where one of them exceeds 1.
    """
    rgb = np.asarray(colors[:, :3])
    scaled = rgb.astype(np.float32)
    if rgb.dtype.kind in "iu" or (np.nan_to_num(scaled) > 1).any():
        scaled /= np.float32(65535 if rgb.dtype == np.uint16 else 255)
    return np.clip(np.nan_to_num(scaled), 0, 1)
