"""Sums over the ranks of a process group, and which norms take their statistics over one.

Batch statistics are sums over points, so those of every rank's points follow from sums over ranks. They go in two
rounds, first the count and the sum, then the squares about the common mean: in one round, those of points far from the
origin would cancel. Every rank gets the same bits, and with them the same running statistics.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

MARK = "ranks"


class Ranks:
    """The processes whose points are one batch to a norm; group None: all of them, once there are several.

    A copy of a norm shares them: a process group cannot be copied.
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self


def group_of(norm: nn.BatchNorm1d) -> dist.ProcessGroup | None:
    """The ranks that `norm` takes batch statistics over; None where those are this process's own, as in eval."""
    ranks = getattr(norm, MARK, None)
    if ranks is None or not norm.training or not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if ranks.group is None else ranks.group
    return group if group is not None and group.size() > 1 else None


def totals(group: dist.ProcessGroup, *parts: Tensor) -> list[Tensor]:
    """The sum over ranks of each tensor, in one exchange forward and one of the same size back.

    The gradient is that of the sum of all ranks' losses, so every rank must go backward if one does.
    """
    sums = _Total.apply(torch.cat([part.flatten() for part in parts]), group)
    return [total.view(part.shape) for total, part in zip(sums.split([p.numel() for p in parts]), parts, strict=True)]


def moments_over_ranks(
    norm: nn.BatchNorm1d, count: Tensor, mean: Tensor, scatter: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean (C,) and scatter (C, C), or its diagonal (C,), of the points of all ranks of `norm` from those of
    each rank's own; these as they are where there are no other ranks."""
    group = group_of(norm)
    if group is None:
        return count, mean, scatter
    everyone, total = totals(group, count, count * mean)
    overall = total / everyone
    shift = mean - overall
    spread = shift.square() if scatter.dim() == 1 else shift.outer(shift)
    return everyone, overall, totals(group, scatter + count * spread)[0]


def check_count(count: Tensor, x: Tensor) -> None:
    """Refuses statistics of fewer than two points; waits for the device only where x (B, C, N) alone cannot tell."""
    if x.shape[0] * x.shape[2] < 2 and count < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got {tuple(x.shape)} points")


class _Total(torch.autograd.Function):
    """Every rank's loss depends on the sum, so the gradient of each rank's part is the sum over ranks again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Total.apply(grads[0], ctx.group), None
