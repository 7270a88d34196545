"""Tables of points: columns known by their names, by hand, or by their numbers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import Refusal
from .by_numbers import ENOUGH, recognised
from .column import FEW, has_few
from .contents import EXTRAS, Array, Contents, Extras, wants_all
from .names import COLUMNS, check_units, left_out, places
from .values import as_labels, as_unit_colors, unpacked_colors


def from_named(columns: Mapping[str, Array], extras: Extras = EXTRAS, every: Iterable[str] | None = None) -> Contents:
    """Contents from named columns, each (N,).

    Args:
        every: the names of all columns of the file, including those that were not read; None: those of `columns`.
            What is not used is mentioned in a note, if all extras are wanted, or labels and there are none.

    Raises:
        Refusal: no x, y and z, or in different units.
    """
    names = list(columns)
    found, every = places(names, extras), names if every is None else list(every)
    if not found:
        raise Refusal(f"names no columns x, y and z, only {', '.join(sorted(names)[:8]) or 'none'}")
    check_units(names[i] for i in found["points"])
    notes: tuple[str, ...] = ()
    if several := found.get("labels", ())[1:]:
        likeliest = found["labels"][0]
        label = next((i for i in found["labels"] if has_few(columns[names[i]])), likeliest)
        found["labels"] = (label,)
        if label in several:
            notes = (f"{names[label]} taken as label, since {names[likeliest]} has more than {FEW} different numbers",)
        if not wants_all(extras):  # else it is among all that is left out
            taken, others = columns[names[label]], [names[i] for i in (likeliest, *several)]
            unlike = [name for name in others if has_few(columns[name]) and (columns[name] != taken).any()]
            notes += tuple(f"labels are those of {names[label]}; {note}" for note in left_out(unlike))
    parts = {what: _side_by_side([columns[names[i]] for i in group]) for what, group in found.items()}
    if "packed" in parts:
        colors, lost = unpacked_colors(parts.pop("packed")[:, 0])
        notes += lost
        parts |= {} if colors is None else {"colors": colors}
    if (
        "normals" in found
        and names[found["normals"][0]].lower() == "i"
        and np.abs(parts["normals"]).max(initial=0) > 1.01
    ):
        del found["normals"], parts["normals"]  # they number voxels
    if wants_all(extras) or lacks_labels(parts, extras):
        notes += left_out(every, [every.index(names[i]) for group in found.values() for i in group])
    return from_parts(parts, notes)


def lacks_labels(parts: Iterable[str], extras: Extras) -> bool:
    """Whether labels are wanted and not among the parts that were found: they may have a name that is not known."""
    return "labels" in extras and "labels" not in parts


def _side_by_side(columns: list[Array]) -> Array:
    """(N, K) from K columns (N,); a view without a copy where they are evenly spaced in one table, as is usual."""
    first = columns[0]
    alike = {(id(column.base), column.dtype, column.strides, column.shape) for column in columns}
    steps = set(np.diff([column.__array_interface__["data"][0] for column in columns]).tolist())
    if first.base is None or len(alike) > 1 or len(steps) != 1:
        return np.stack(columns, axis=1)
    shape, strides = (*first.shape, len(columns)), (*first.strides, *steps)
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False)


def from_table(
    rows: Array, extras: Extras = EXTRAS, names: Sequence[str] = (), is_pts: bool = False, beside: Extras = ()
) -> Contents:
    """Contents from a table (N, K), whose columns are named by hand or recognised by their numbers.

    Args:
        names: by hand, one for each column, of `COLUMNS`, or "_" to skip it; none: `recognised`.
        is_pts: of seven columns the fourth is an intensity, and colours follow.
        beside: extras that are elsewhere in the file, and not looked for here.

    Raises:
        Refusal: fewer than 3 columns, or colours are wanted and it is not clear which they are.
    """
    notes: tuple[str, ...] = ()
    are_all = wants_all(extras)
    extras = [what for what in extras if what not in beside]
    if not names:
        rows = rows if extras else rows[:, :ENOUGH]
        found = recognised(rows, extras, is_pts)
        names = found.names if extras else found.names[: found.names.index("z") + 1]
        if found.is_guess or (len(names) > 3 and are_all):
            notes = (f"columns taken as {','.join(names)}", *filter(None, [found.doubt]))
    parts = {}
    for what in ("points", *extras):
        if COLUMNS[what][0] in names:
            parts[what] = _side_by_side([rows[:, names.index(name)] for name in COLUMNS[what]])
    return from_parts(parts, notes)


def from_parts(parts: Mapping[str, Array], notes: Iterable[str] = ()) -> Contents:
    """Contents of a cloud: points, normals, colors (N, 3), labels, intensity (N, 1); all but points may be missing."""
    colors, labels, intensity = parts.get("colors"), parts.get("labels"), parts.get("intensity")
    if colors is not None:
        colors, of_colors = as_unit_colors(colors, parts["points"])
        notes = (*notes, *of_colors)
    if labels is not None and (labels := as_labels(labels[:, 0])) is None:
        notes = (*notes, "labels left out: they are not whole numbers")
    return Contents(
        parts["points"],
        normals=parts.get("normals"),
        colors=colors,
        labels=labels,
        intensity=None if intensity is None else intensity[:, 0],
        notes=(*notes,),
    )
