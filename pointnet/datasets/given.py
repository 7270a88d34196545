"""What callers hand to a data set or a network: arguments, points, labels, rows and names, in the library's types, or
refused."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .point_labels import UNLABELLED

SOME_CLOUDS = 8  # whose repeated points are looked at
MOST_LOST = 1e-3  # share of a cloud's width that its points may move in float32


def check_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raises ValueError unless the argument of this name has one of the allowed values."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_num_points(num_points: int, most: int | None = None) -> None:
    """Raises ValueError unless there is at least one point, and at most `most`."""
    if num_points < 1 or (most is not None and num_points > most):
        wanted = "at least 1" if most is None else f"1 to {most:,}"
        raise ValueError(f"num_points must be {wanted}, got {num_points}")


def as_tensor(name: str, values: Any) -> Tensor:
    """A tensor, an array or a list as a tensor, without a copy where there can be none. ValueError, with the name."""
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of memory-mapped files that cannot be written; nothing here writes
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a tensor or an array of numbers: {error}".splitlines()[0]) from error


def as_floats(points: Tensor) -> Tensor:
    """Clouds (S, C, K) of any numbers in PyTorch's default type, float32. ValueError where that loses one's shape."""
    kind = torch.get_default_dtype()
    if points.dtype != kind and points.numel():
        xyz = points[:, :3].double()
        away, side = xyz.abs().amax((1, 2)), (xyz.amax(2) - xyz.amin(2)).amax(1)
        if (lost := ((side > 0) & (away * torch.finfo(kind).eps > side * MOST_LOST)).nonzero()).numel():
            i = int(lost[0])
            where = f"cloud {i} is {float(away[i]):g} away and {float(side[i]):g} wide"
            raise ValueError(f"points must be near the origin, to keep their shape in {kind}: {where}; centre each")
    return points.to(kind)


def as_indices(name: str, labels: Tensor, count: int, hint: str = "") -> Tensor:
    """Labels as int64. ValueError, with name and hint, unless they are whole numbers from 0 to below `count`."""
    if labels.is_floating_point() and bool((labels != labels.round()).any()):
        raise ValueError(f"{name} must be whole numbers, got {float(labels[labels != labels.round()][0]):g}")
    labels = labels.long()
    low, high = map(int, labels.aminmax()) if labels.numel() else (0, count - 1)
    if low < 0 or high >= count:
        hint = hint or ("; subtract 1" if low >= 1 and high == count else "")
        raise ValueError(f"{name} must be 0 to {count - 1}, indices into the names, got {low} to {high}{hint}")
    return labels


def as_rows(indices: Any, count: int) -> Tensor:
    """Which of `count` clouds, by their numbers (S',) or by a mask (count,) bool, as int64. ValueError for others."""
    rows = as_tensor("indices", indices)
    if rows.dtype == torch.bool and rows.shape == (count,):
        return rows.nonzero().squeeze(1)
    rows = rows.long() if not rows.numel() else rows  # an empty list is one of floats
    whole = rows.dtype != torch.bool and not rows.is_floating_point()
    if rows.dim() != 1 or not whole or (rows.numel() and not -count <= int(rows.min()) <= int(rows.max()) < count):
        got = f"{str(rows.dtype).removeprefix('torch.')} {tuple(rows.shape)}"
        raise ValueError(f"indices must be whole numbers below {count}, or a mask ({count},) of them, got {got}")
    return rows.long()


def as_names(what: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as a tuple. ValueError unless each is a string, and there once."""
    if odd := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"{what} must be names, strings, got {odd[0]!r}")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{what} must be named once each, got '{twice}' twice")
    return tuple(names)


def check_repeats(stored: Tensor) -> None:
    """Raises ValueError where points of the first clouds (S, C + 1, K) are marked as repeated and repeat none."""
    for cloud in stored[(stored[:, -1] < 0).any(1).nonzero()[:SOME_CLOUDS, 0]]:
        own = cloud[-1] >= 0
        there, again = ({row.tobytes() for row in cloud[:-1, some].T.numpy()} for some in (own, ~own))
        if not again <= there:
            wanted = "-1 - label marks a point that repeats another of its cloud"
            raise ValueError(f"{wanted}, got others; a point without a label has UNLABELLED, {UNLABELLED}")


def check_belonging(
    parts: Tensor, labels: Tensor, parts_of: Tensor, classes: Sequence[str], part_names: Sequence[str]
) -> None:
    """Raises ValueError where a cloud has a part (S, K) that its class (S,) may not have; a negative one is none."""
    occurs, has = torch.zeros_like(parts_of), parts >= 0
    occurs[labels.unsqueeze(1).expand_as(parts)[has], parts[has]] = True
    for label, part in (occurs & ~parts_of).nonzero().tolist():
        what = f"'{part_names[part]}', which parts_of says it has not"
        raise ValueError(f"a cloud of class '{classes[label]}' has points of {what}")


def pad_clouds(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clouds of different sizes as one batch: B tensors (C, N_b) -> points (B, C, max N_b), lengths (B,).

    This is where lengths are checked: a model trusts them, so that its forward never waits for the device.

    Raises:
        ValueError: no clouds, an empty one, or clouds that differ in channels.
    """
    if not clouds:
        raise ValueError("a batch needs at least one cloud, got none")
    for i, cloud in enumerate(clouds):
        if not isinstance(cloud, Tensor):
            raise ValueError(
                f"cloud {i} must be a tensor, got {type(cloud).__name__}; torch.from_numpy(array) makes one"
            )
        if cloud.dim() != 2 or cloud.shape[0] != clouds[0].shape[0] or cloud.shape[1] == 0:
            wanted = clouds[0].shape[0] if clouds[0].dim() == 2 else "C"
            raise ValueError(f"cloud {i} must be ({wanted}, N) with N >= 1, got {tuple(cloud.shape)}")
    lengths = torch.tensor([cloud.shape[1] for cloud in clouds], device=clouds[0].device)
    dtype = functools.reduce(torch.promote_types, [cloud.dtype for cloud in clouds])
    points = clouds[0].new_zeros(len(clouds), clouds[0].shape[0], int(lengths.max()), dtype=dtype)
    for row, cloud in zip(points, clouds, strict=True):
        row[:, : cloud.shape[1]] = cloud
    return points, lengths
