"""What callers hand to a data set: arguments, points, labels and names, in the library's types, or refused."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


def as_indices(name: str, labels: Tensor, count: int) -> Tensor:
    """Labels as int64. ValueError, with the name, unless they are whole numbers from 0 to below `count`."""
    if labels.is_floating_point() and bool((labels != labels.round()).any()):
        raise ValueError(f"{name} must be whole numbers, got {float(labels[labels != labels.round()][0]):g}")
    labels = labels.long()
    low, high = map(int, labels.aminmax()) if labels.numel() else (0, count - 1)
    if low < 0 or high >= count:
        hint = "; subtract 1" if low >= 1 and high == count else ""
        raise ValueError(f"{name} must be 0 to {count - 1}, indices into the names, got {low} to {high}{hint}")
    return labels


def as_names(what: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as a tuple. ValueError unless each is a string, and there once."""
    if odd := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"{what} must be names, strings, got {odd[0]!r}")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{what} must be named once each, got '{twice}' twice")
    return tuple(names)
