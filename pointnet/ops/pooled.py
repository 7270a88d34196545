"""linear -> norm -> activation -> max over the points: the widest layer of a PointNet, without its (B, D, N) output.

`pooled_definition` says what is computed. `pooled` computes the same from two things that need far less memory:

- `extremes`: for each cloud and channel the largest (or smallest) z = W x and the point that won it. Norm and
  activation are monotone on either side of the norm's sign, so they can wait until after the max (identity 2).
- `moments`: the mean and the C x C scatter of the points, from which batch norm's statistics of z follow (identity 3).

What lies between them and the result is (B, D), (D, C) or (C, C) and plain PyTorch, so autograd composes identity 4,
the analytic backward, from the gradients of these two.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .masked import Mask, batch_norm, fill_padding, takes_statistics, update_running_statistics
from .operators import register
from .products import linear_map, no_autocast, products_kept
from .ranks import check_count, moments_over_ranks
from .winners import TILE, groups_of, through_extremes, values_at

Norm = nn.BatchNorm1d | None
Activation = nn.Module | None
# The count of all z, their mean (D,) and the sum of squares about it (D,), over all ranks of a norm.
TakeMoments = Callable[[nn.BatchNorm1d], tuple[Tensor, Tensor, Tensor]]
# f(max y) = max f(y).
NON_DECREASING = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.SELU,
    nn.Softsign, nn.LogSigmoid,
)  # fmt: skip
NO_STEP = 15  # from this threshold on Softplus falls there by less than 1e-7 of itself, which is rounding
# These fall and then rise, so max f(y) = max(f(max y), f(min y)).
FALLING_THEN_RISING = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)


def is_poolable(norm: nn.Module | None, activation: nn.Module | None) -> bool:
    """Whether `pooled` knows how this norm and this activation change places with the max."""
    if norm is not None and type(norm) is not nn.BatchNorm1d:
        return False
    # By exact type: a subclass may compute anything.
    if type(activation) is nn.LeakyReLU:
        return activation.negative_slope >= 0
    if isinstance(activation, nn.ELU | nn.CELU) and type(activation) in (nn.ELU, nn.CELU):
        return activation.alpha > 0
    if isinstance(activation, nn.Softplus) and activation.threshold < NO_STEP:
        return False
    return activation is None or type(activation) in NON_DECREASING + FALLING_THEN_RISING


def pooled_definition(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, activation: Activation, mask: Mask = None
) -> Tensor:
    """max_n activation(norm(W x_n + b)): (B, C, N) -> (B, D), over the points where `mask` (B, 1, N) is True."""
    z = F.conv1d(x, weight.unsqueeze(2), bias)
    if norm is not None:
        z = batch_norm(z, norm, mask)
    y = z if activation is None else activation(z)
    return fill_padding(y, mask, -torch.inf).max(2).values


def pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, activation: Activation, mask: Mask = None
) -> Tensor:
    """`pooled_definition` by identities 2, 3 and 4: equal in value, running statistics and, where the winner is
    unique, gradient; on ties the lowest index wins.

    Args:
        x: (B, C, N).
        weight, bias: (D, C), (D,) or None.
        norm: batch norm of z, in training, eval or frozen; or None.
        activation: any; fast if it `is_poolable`.
    """
    if not is_poolable(norm, activation):
        return pooled_definition(x, weight, bias, norm, activation, mask)
    rising, both = signs(weight, norm), type(activation) in FALLING_THEN_RISING
    z = extremes(x, rising.unsqueeze(1) * weight, mask, both) * rising
    if bias is not None:
        z = z + bias
    return of_extremes(z, norm, activation, partial(_moments_of_linear, x, weight, bias, mask))


def pooled_winners(x: Tensor, weight: Tensor, norm: Norm, activation: Activation, mask: Mask = None) -> Tensor:
    """The points `pooled` takes its values from: (B, C, N) -> (B, D), or (B, 2 D) where either end may win."""
    rising, both = signs(weight, norm), type(activation) in FALLING_THEN_RISING
    return torch.ops.pointnet.extremes(x, rising.unsqueeze(1) * weight, mask, both)[1].transpose(0, 1).flatten(1)


def signs(channels: Tensor, norm: Norm) -> Tensor:
    """(D,) of 1 where the norm is rising in z, -1 where it falls, for D channels; a scale of 0 counts as rising.
    ValueError for a norm of another number of channels."""
    if norm is not None and norm.num_features != len(channels):
        raise ValueError(f"norm must be of {len(channels)} channels, got {norm.num_features}")
    if norm is None or norm.weight is None:
        return channels.new_ones(len(channels))
    return (norm.weight.detach() >= 0).to(channels.dtype) * 2 - 1


def of_extremes(z: Tensor, norm: Norm, activation: Activation, take_moments: TakeMoments) -> Tensor:
    """The max of activation(norm(z)) over many z, from their extremes alone (identity 2): (1 or 2, ..., D) -> (..., D).

    Args:
        z: the largest, the smallest where the norm falls; and with two planes the other end.
        take_moments: is called where the norm takes the statistics of its batch.
    """
    y = z if norm is None else _normalize(z, norm, take_moments)
    if activation is not None:
        y = activation(y)
    return y.amax(0) if len(y) > 1 else y.squeeze(0)


def _normalize(z: Tensor, norm: nn.BatchNorm1d, take_moments: TakeMoments) -> Tensor:
    mean, variance = statistics(norm, take_moments)
    y = (z - mean.to(z.dtype)) * (variance + norm.eps).rsqrt().to(z.dtype)
    if norm.weight is not None:
        y = y * norm.weight
    return (y if norm.bias is None else y + norm.bias).to(z.dtype)  # a norm may be in float32 beside half


def statistics(norm: nn.BatchNorm1d, take_moments: TakeMoments) -> tuple[Tensor, Tensor]:
    """The mean and variance (D,) that `norm` goes by: its running ones, or those of its batch, which it then adds to
    its running ones."""
    if not takes_statistics(norm):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return norm.running_mean, norm.running_var
    count, mean, squares = take_moments(norm)
    variance = squares / count
    if norm.training and norm.track_running_stats:
        update_running_statistics(norm, mean, variance, count)
    return mean, variance


def _moments_of_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Mask, norm: nn.BatchNorm1d
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and squares of W x + b over all points of all ranks.

    Over several ranks, either the moments of x or those of W x travel, whichever are fewer numbers: C * C + C + 1 or
    2 D + 1 forward, and as many back.
    """
    narrow = x.shape[1] * (x.shape[1] + 1) <= 2 * len(weight)
    full = x.new_full((), x.shape[0] * x.shape[2], dtype=torch.float64)
    count = full if mask is None else mask.sum().double()
    point_mean, scatter = moments(x, mask)
    if narrow:
        count, point_mean, scatter = moments_over_ranks(norm, count, point_mean, scatter)
    w = weight.double()
    mean = w @ point_mean
    squares = ((w @ scatter) * w).sum(1).clamp(min=0)
    if not narrow:
        count, mean, squares = moments_over_ranks(norm, count, mean, squares)
    check_count(count, x)
    return count, mean if bias is None else mean + bias, squares


def extremes(x: Tensor, weight: Tensor, mask: Mask = None, both: bool = False) -> Tensor:
    """The largest of z = W x over the points of each cloud: (B, C, N), (D, C) -> (1, B, D).

    With `both`, the smallest too: (2, B, D). The search is in the dtype of x, the values are in that of the weight.
    On ties the lowest index wins. (B, D, N) is computed tile by tile and never held.
    """
    return torch.ops.pointnet.extremes(x, weight, mask, both)[0]


def moments(x: Tensor, mask: Mask = None) -> tuple[Tensor, Tensor]:
    """Mean (C,) and scatter (C, C), the sum of (x - mean)(x - mean)^T, over all points of x (B, C, N), in float64.

    In float32 the scatter would be useless for a channel orthogonal to a dominant direction: see docs/identities.md. Of
    points of 16 bits on a CPU a tile's is in float32: it loses less than they have lost.
    """
    return torch.ops.pointnet.moments(x, mask)


# Rows of a scatter that are computed at a time, from the diagonal on: what lies below it is what lies above.
STRIP = {"cpu": 64}


def _extremes(x: Tensor, weight: Tensor, mask: Mask, both: bool) -> tuple[Tensor, Tensor]:
    """-> values (1 or 2, B, D), winners (1 or 2, B, D) int64."""
    clouds, _, points = x.shape
    signs = (1, -1) if both else (1,)
    kernel = weight.to(x.dtype)
    values = weight.new_full((len(signs), clouds, len(weight)), -torch.inf)
    winners = torch.zeros(values.shape, dtype=torch.int64, device=x.device)
    size = TILE.get(x.device.type, 1024)
    product = products_kept()
    # As whole numbers, which those of 16 bits are compared as on a CPU, a NaN may be less than others.
    safe = x.element_size() > 2 or bool(x.sum().isfinite() and kernel.sum().isfinite())
    for group in groups_of(x):
        for start in range(0, points, size):
            tile = slice(start, start + size)
            with no_autocast(x):
                z = product(x[group, :, tile], kernel)
                z = z if safe else z.to(weight.dtype)
            for plane, sign in enumerate(signs):
                there = None if mask is None else mask[group, :, tile]
                filled = fill_padding(z if sign > 0 else -z, there, -torch.inf)
                if points <= size and x.dtype != weight.dtype:
                    winners[plane, group] = _first_max(filled, False)[1]
                elif points <= size:
                    values[plane, group], winners[plane, group] = _first_max(filled)
                else:
                    value, winner = _first_max(filled)
                    better = (value > values[plane, group]) | value.isnan()
                    values[plane, group] = torch.where(better, value, values[plane, group])
                    winners[plane, group] = torch.where(better, winner + start, winners[plane, group])
    if x.dtype != weight.dtype:
        return values_at(winners, x, weight), winners
    values[1:].neg_()
    return values, winners


def _first_max(z: Tensor, valued: bool = True) -> tuple[Tensor, Tensor]:
    """`z.max(2)` of (B, D, N), the lowest index on ties; the values may be nothing where they are not `valued`."""
    if z.device.type == "cpu":  # NumPy vectorises it
        winner = torch.from_numpy(_first_of_bits(bits_of(z).numpy()) if z.element_size() == 2 else z.numpy().argmax(2))
        return z.gather(2, winner.unsqueeze(2)).squeeze(2) if valued else z[:0], winner
    run = 64  # points, whose max is taken first, as that vectorises
    if z.shape[2] % run:
        value, winner = z.max(2)
        return value, winner
    runs = z.unflatten(2, (-1, run))
    value, best = runs.amax(3).max(2)
    starts = torch.arange(best.numel(), device=z.device) * runs.shape[2]
    inside = runs.reshape(-1, run).index_select(0, starts + best.flatten()).max(1).indices
    return value, best * run + inside.view_as(best)


def bits_of(z: Tensor) -> Tensor:
    """Numbers of 16 bits as whole ones, which are compared several times as fast; others as they are.

    Those of negative numbers are negative, in reverse order; those of other numbers are in order.
    """
    return z.view(torch.int16) if z.element_size() == 2 else z


def _first_of_bits(bits: np.ndarray) -> np.ndarray:
    """Where the largest numbers are, the lowest index on ties, from their `bits_of`: (B, D, N) -> (B, D)."""
    winners = bits.argmax(2)
    negative = np.take_along_axis(bits, winners[:, :, None], 2)[:, :, 0] < 0
    if negative.any():
        winners[negative] = bits[negative].argmin(1)
    return winners


def _fake_extremes(x: Tensor, weight: Tensor, mask: Mask, both: bool) -> tuple[Tensor, Tensor]:
    values = weight.new_empty(1 + both, x.shape[0], weight.shape[0])
    return values, torch.empty_like(values, dtype=torch.int64)


def _moments(x: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    if x.device.type != "cpu" and x.numel():
        return moments_at_once(x, mask)
    channels, points, count = *x.shape[1:], _count(x, mask)
    one, its_mask = x[:1], None if mask is None else mask[:1]
    # The mean of one cloud; about any point near the data nothing cancels that float64 would miss.
    guess = fill_padding(one, its_mask).sum((0, 2), dtype=torch.float64) / _count(one, its_mask)
    total, scatter = guess.new_zeros(channels), guess.new_zeros(channels, channels)
    size, strip = TILE.get(x.device.type, 1024), STRIP.get(x.device.type, channels)
    wide = torch.float32 if x.element_size() == 2 else torch.float64
    for group in groups_of(x):
        for start in range(0, points, size):
            tile = slice(start, start + size)
            centred = x[group, :, tile].to(wide, copy=True).sub_(guess.to(wide).unsqueeze(1))
            centred = fill_padding(centred, None if mask is None else mask[group, :, tile])
            total += centred.sum((0, 2))
            for first in range(0, channels, strip):
                rows, columns = centred[:, first : first + strip], centred[:, first:]
                scatter[first : first + strip, first:] += torch.matmul(rows, columns.transpose(1, 2)).sum(0)
    correction, whole = total / count, scatter.triu() + scatter.triu(1).T
    return guess + correction, whole - count * correction.outer(correction)


def moments_at_once(x: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """`moments` in few operators, each of which a GPU takes microseconds to launch."""
    size, count = TILE.get(x.device.type, 1024), _count(x, mask)
    tiles = [(group, ..., slice(start, start + size)) for group in groups_of(x) for start in range(0, x.shape[2], size)]
    kept = [(x[tile], None if mask is None else mask[tile]) for tile in tiles]
    sums = (fill_padding(each, there).sum((0, 2), dtype=torch.float64) for each, there in kept)
    mean = reduce(torch.add, sums) / count
    centred = (fill_padding(each - mean.unsqueeze(1), there) for each, there in kept)
    return mean, reduce(torch.add, ((each @ each.transpose(1, 2)).sum(0) for each in centred))


def _count(x: Tensor, mask: Mask) -> int | Tensor:
    """How many points there are; 1 of none, whose sums are 0."""
    return max(x.shape[0] * x.shape[2], 1) if mask is None else mask.sum().clamp(min=1)


def _fake_moments(x: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=torch.float64)
    return mean, mean.new_empty(x.shape[1], x.shape[1])


def _backward_of_moments(ctx: Any, grad_mean: Tensor, grad_scatter: Tensor) -> tuple[Tensor, None]:
    """dx_n = (G + G^T)(x_n - mean) + g / M: distances from the mean sum to 0, so no other term is left."""
    x, mask, mean = ctx.saved_tensors
    count = _count(x, mask)
    affine = grad_scatter + grad_scatter.T
    # The mean in two parts, so that points far from the origin lose nothing to its rounding.
    near = mean.to(x.dtype)
    constant = grad_mean / count - affine @ (mean - near)
    centred = fill_padding(x - near.unsqueeze(1), mask)
    return fill_padding(linear_map(centred, affine.to(x.dtype), constant.to(x.dtype)), mask), None


def _backward_of_extremes_backward(ctx: Any, grad_x: Tensor, grad_weight: Tensor) -> tuple[Tensor | None, ...]:
    """Both gradients are linear in grad, the winners' points and their weights: here each meets the other two."""
    grad, x, weight, winners = ctx.saved_tensors
    of_grad = values_at(winners, grad_x, weight) + values_at(winners, x, grad_weight)
    of_x = torch.ops.pointnet.extremes_backward(grad, x, grad_weight, winners)[0]
    return of_grad, of_x, torch.ops.pointnet.extremes_backward(grad, grad_x, weight, winners)[1], None


register(
    "extremes(Tensor x, Tensor weight, Tensor? mask, bool both) -> (Tensor, Tensor)", _extremes, _fake_extremes,
    lambda ctx, grad, _: (*torch.ops.pointnet.extremes_backward(grad, *ctx.saved_tensors), None, None),
    lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2], output[1]),
)  # fmt: skip
register(
    "extremes_backward(Tensor grad, Tensor x, Tensor weight, Tensor winners) -> (Tensor, Tensor)", through_extremes,
    lambda grad, x, weight, winners: (torch.empty_like(x), torch.empty_like(weight)),
    _backward_of_extremes_backward, lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)  # fmt: skip
register(
    "moments(Tensor x, Tensor? mask) -> (Tensor, Tensor)", _moments, _fake_moments, _backward_of_moments,
    lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output[0]),
)  # fmt: skip
