"""Clouds of different sizes, padded to one: the operations that must not see the padding.

Padding may hold anything, NaN included. It is filled, never multiplied, away: 0 * NaN is NaN, in a value and in a
gradient alike. Nothing here waits for the device, so lengths on a GPU are checked where batches are made
(`pad_clouds`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .hooks import goes_by, warn_of_hooks
from .ranks import check_count, group_of, totals
from .tracing import makes_a_graph

Lengths = Tensor | None  # (B,) integers: only the first lengths[b] points of cloud b exist; None: all of them
Mask = Tensor | None  # (B, 1, N), True where a point exists; None: everywhere


def point_mask(lengths: Tensor, points: Tensor) -> Tensor:
    """Which points are real: lengths (B,), points (B, C, N) -> (B, 1, N) bool.

    Raises:
        ValueError: lengths are not B integers from 1 to N; of those on a GPU only their shape and dtype are checked.
    """
    if not isinstance(lengths, Tensor):
        raise ValueError(f"lengths must be a tensor ({points.shape[0]},) of integers, got {type(lengths).__name__}")
    if lengths.shape != points.shape[:1] or lengths.dtype.is_floating_point or lengths.dtype == torch.bool:
        raise ValueError(
            f"lengths must be ({points.shape[0]},) integers, one per cloud, got {tuple(lengths.shape)} {lengths.dtype}"
        )
    check_range("lengths", lengths, 1, points.shape[2])
    positions = torch.arange(points.shape[2], device=points.device)
    return (positions < lengths.to(points.device).long().unsqueeze(1)).unsqueeze(1)


def check_tensor(name: str, x: Any) -> None:
    """TypeError for what is no tensor."""
    if not isinstance(x, Tensor):
        hint = f"; torch.from_numpy({name}) makes one" if type(x).__module__ == "numpy" else ""
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}{hint}")


def check_range(name: str, numbers: Tensor, low: int, high: int) -> None:
    """ValueError where whole numbers on a CPU are outside; those on a GPU, which would be waited for, are not read."""
    if torch.compiler.is_compiling() or makes_a_graph():  # first, as a graph is not to know how many there are
        return
    if numbers.device.type == "cpu" and len(numbers):
        least, most = numbers.long().aminmax()
        if least < low or most > high:
            raise ValueError(f"{name} must be from {low} to {high}, got {int(least)} to {int(most)}")


def fill_padding(points: Tensor, mask: Mask, value: float = 0.0) -> Tensor:
    """(B, C, N) with `value` wherever `mask` (B, 1, N) is False; gradients there are exactly 0."""
    return points if mask is None else points.masked_fill(~mask, value)


def stored_as_rows(x: Tensor) -> bool:
    """Whether the channels of a point lie side by side in memory, (B, N, C) transposed, and no other way."""
    return x.dim() == 3 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous()


def takes_statistics(norm: _NormBase | None) -> bool:
    """Whether the norm goes by the mean and variance of its batch, and not by running ones."""
    return norm is not None and (norm.training or norm.running_mean is None)


def sees_other_points(norm: nn.Module) -> bool:
    """Whether what a norm makes of a point depends on others; so it is taken to be of norms that are not PyTorch's."""
    return takes_statistics(norm) if isinstance(norm, _NormBase) else type(norm) is not nn.Identity


def batch_norm(z: Tensor, norm: nn.BatchNorm1d, mask: Mask = None) -> Tensor:
    """What `norm` makes of z (B, D, N) when the points outside `mask` (B, 1, N) do not exist -> (B, D, N).

    Statistics, running statistics (momentum or cumulative average) and gradients are those of `norm` on the valid
    points alone; the padding itself comes out as some finite number. One valid point in the whole batch has
    variance 0 here, where `BatchNorm1d` raises: telling would mean waiting for the device. A norm that is synchronized
    takes its statistics over all ranks: 2 D + 1 numbers travel forward, and as many back.

    Raises:
        ValueError: a mask, and another norm that would count the padding.
    """
    if not goes_by(norm, nn.BatchNorm1d):
        if mask is not None and sees_other_points(norm):
            instead = "; use synchronize_norms" if isinstance(norm, nn.SyncBatchNorm) else ""
            raise ValueError(f"lengths need BatchNorm1d: {type(norm).__name__} would count the padding{instead}")
        return norm(z)
    group = group_of(norm)
    if (mask is None and group is None) or not takes_statistics(norm):
        if not stored_as_rows(z):
            return norm(z)
        rows = z.transpose(1, 2)  # PyTorch takes these several times faster
        return norm(rows.flatten(0, 1)).view(rows.shape).transpose(1, 2)
    warn_of_hooks(norm, "the statistics of padded or shared batches are taken without it")
    values = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    count = values.new_full((), z.shape[0] * z.shape[2]) if mask is None else mask.sum().to(values.dtype)
    total = fill_padding(values, mask).sum((0, 2))
    if group is not None:
        count, total = totals(group, count, total)
        check_count(count, z)
    mean = total / count
    centred = fill_padding(values - mean.unsqueeze(1), mask)
    squares = centred.square().sum((0, 2))
    if group is not None:
        (squares,) = totals(group, squares)
    variance = squares / count
    if norm.training and norm.track_running_stats:
        update_running_statistics(norm, mean, variance, count)
    y = centred * (variance + norm.eps).rsqrt().unsqueeze(1)
    if norm.weight is not None:
        y = y * norm.weight.unsqueeze(1)
    if norm.bias is not None:
        y = y + norm.bias.unsqueeze(1)
    return y.to(z.dtype)


@torch.no_grad()
def update_running_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    batches = norm.num_batches_tracked
    if batches is not None:  # else whoever took the counter counts
        batches += 1
    momentum = 1 / batches.to(mean.dtype) if norm.momentum is None and batches is not None else norm.momentum
    assert momentum is not None
    unbiased = variance * count / (count - 1).clamp(min=1)
    for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running += momentum * (new - running)
