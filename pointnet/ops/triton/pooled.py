"""The pooled layer's operators: `extremes` and its gradient, and `moments`.

`extremes`: a program keeps the best of each place of its tile while it goes over the points, and looks for the winner
once, at the end. Its gradient is summed by target, in one order. `moments`: every product is in float64, on chip, and
so are the sums over the programs; so it is as exact as the definition.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointnet.ops.kernels import use
from pointnet.ops.masked import Mask
from pointnet.ops.pooled import about_mean, first_guess, values_at

from .parts import FLOATS, PROGRAMS, by_target, first_max, padded, precision


def fits(x: Tensor, weight: Tensor, *more: object) -> bool:
    return x.dtype in FLOATS and weight.dtype in FLOATS and x.numel() > 0


def extremes(x: Tensor, weight: Tensor, mask: Mask, both: bool) -> tuple[Tensor, Tensor]:
    (clouds, width, points), channels = x.shape, len(weight)
    block, wide, deep = min(64, padded(points)), 64, min(64, padded(width))
    across, tiles = triton.cdiv(channels, wide), triton.cdiv(points, block)
    parts = min(tiles, triton.cdiv(PROGRAMS, clouds * across))
    each = triton.cdiv(tiles, parts)
    values = x.new_empty(1 + both, clouds, parts, channels, dtype=torch.float32)
    winners = torch.empty_like(values, dtype=torch.int32)
    _extremes[(clouds * parts * across,)](
        x, weight.to(x.dtype).contiguous(), None if mask is None else mask.contiguous(), values, winners,
        clouds, points, channels, parts, each, *x.stride(),
        width, both, block, wide, deep, precision(), num_warps=8 if both else 4, num_stages=2,
    )  # fmt: skip
    best, part = values.max(2)
    found = winners.gather(2, part.unsqueeze(2)).squeeze(2).long()
    if x.dtype != weight.dtype:
        return values_at(found, x, weight), found
    best[1:].neg_()
    return best.to(weight.dtype), found


@triton.jit
def _product(
    weight, own, d, there, exists, x_channel, WIDTH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr
):
    """W x of some channels and points, whose first channels are at `own`."""
    z = tl.zeros((d.shape[0], exists.shape[0]), tl.float32)
    for first in range(0, WIDTH, DEPTH):
        c = first + tl.arange(0, DEPTH)
        inside = c < WIDTH
        w = tl.load(weight + d[:, None] * WIDTH + c[None, :], mask=there[:, None] & inside[None, :], other=0.0)
        places = own + c[:, None].to(tl.int64) * x_channel
        p = tl.load(places, mask=inside[:, None] & exists[None, :], other=0.0)
        z = tl.dot(w, p, z, input_precision=PRECISION)
    return z


@triton.jit
def _extremes(
    x, weight, mask, values, winners, clouds, points, channels, parts, each, x_cloud, x_channel, x_point,
    WIDTH: tl.constexpr, BOTH: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(channels, CHANNELS)
    row = (tl.program_id(0) // across).to(tl.int64)  # of a cloud and a part of its points
    cloud, part = row // parts, (row % parts).to(tl.int32)
    d = (tl.program_id(0) % across) * CHANNELS + tl.arange(0, CHANNELS)
    there = d < channels
    lanes = tl.arange(0, POINTS)
    best = tl.full((CHANNELS, POINTS), float("-inf"), tl.float32)
    least, at = best, tl.zeros((CHANNELS, POINTS), tl.int32)
    at_least = at
    for tile in range(part * each, part * each + each):
        n = tile * POINTS + lanes
        exists = n < points
        own = x + cloud * x_cloud + n[None, :].to(tl.int64) * x_point
        z = _product(weight, own, d, there, exists, x_channel, WIDTH, DEPTH, PRECISION)
        if mask is not None:
            exists = exists & (tl.load(mask + cloud * points + n, mask=exists, other=0) != 0)
        up = tl.where(exists[None, :], z, float("-inf"))
        better = (best == best) & ~(up <= best)  # NaN too, the first of them
        best, at = tl.where(better, up, best), tl.where(better, tile, at)
        if BOTH:
            down = tl.where(exists[None, :], -z, float("-inf"))
            better = (least == least) & ~(down <= least)
            least, at_least = tl.where(better, down, least), tl.where(better, tile, at_least)
    none = parts * each * POINTS
    value, winner = first_max(best, at * POINTS + lanes[None, :], none, 1)
    tl.store(values + row * channels + d, value, mask=there)
    tl.store(winners + row * channels + d, winner, mask=there)
    if BOTH:
        value, winner = first_max(least, at_least * POINTS + lanes[None, :], none, 1)
        row += parts * clouds
        tl.store(values + row * channels + d, value, mask=there)
        tl.store(winners + row * channels + d, winner, mask=there)


def fits_backward(grad: Tensor, x: Tensor, weight: Tensor, winners: Tensor) -> bool:
    return grad.dtype in FLOATS and fits(x, weight)


def extremes_backward(grad: Tensor, x: Tensor, weight: Tensor, winners: Tensor) -> tuple[Tensor, Tensor]:
    (clouds, width, points), channels = x.shape, len(weight)
    won = winners.transpose(0, 1).flatten(1)  # (B, planes * D)
    share = grad.transpose(0, 1).flatten(1).contiguous()
    order, starts = by_target(won, points)
    kept, block, deep = weight.contiguous(), 32, min(64, padded(width))
    grad_x, grad_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    across = triton.cdiv(width, deep)
    _to_points[(clouds * triton.cdiv(points, block) * across,)](
        share, order, starts, kept, grad_x, points, channels, won.shape[1], width, block, deep
    )
    _to_weights[(triton.cdiv(channels, block) * across,)](
        share, won.contiguous(), x, grad_weight, clouds, channels, won.shape[1], *x.stride(), width, block, deep
    )
    return grad_x, grad_weight


@triton.jit
def _to_points(
    share, order, starts, weight, grad_x, points, channels, many,
    WIDTH: tl.constexpr, POINTS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """grad_x (B, C, N): each point's winning channels, the lowest first."""
    across: tl.constexpr = (WIDTH + DEPTH - 1) // DEPTH
    blocks = tl.cdiv(points, POINTS)
    row = tl.program_id(0) // across
    cloud, n = (row // blocks).to(tl.int64), (row % blocks) * POINTS + tl.arange(0, POINTS)
    c = (tl.program_id(0) % across) * DEPTH + tl.arange(0, DEPTH)
    exists, there = n < points, c < WIDTH
    start = tl.load(starts + cloud * (points + 1) + n, mask=exists, other=0)
    count = tl.load(starts + cloud * (points + 1) + n + 1, mask=exists, other=0) - start
    total = tl.zeros((POINTS, DEPTH), tl.float32)
    for i in range(tl.max(count, 0)):
        some = i < count
        k = tl.load(order + cloud * many + start + i, mask=some, other=0)
        g = tl.load(share + cloud * many + k, mask=some, other=0.0).to(tl.float32)
        rows = weight + (k % channels)[:, None] * WIDTH + c[None, :]
        total += g[:, None] * tl.load(rows, mask=some[:, None] & there[None, :], other=0.0).to(tl.float32)
    places = grad_x + (cloud * WIDTH + c[None, :]) * points + n[:, None]
    tl.store(places, total.to(grad_x.dtype.element_ty), mask=exists[:, None] & there[None, :])


@triton.jit
def _to_weights(
    share, won, x, grad_weight, clouds, channels, many, x_cloud, x_channel, x_point,
    WIDTH: tl.constexpr, CHANNELS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """grad_weight (D, C): each channel's winning points, cloud by cloud."""
    across: tl.constexpr = (WIDTH + DEPTH - 1) // DEPTH
    d = (tl.program_id(0) // across) * CHANNELS + tl.arange(0, CHANNELS)
    c = (tl.program_id(0) % across) * DEPTH + tl.arange(0, DEPTH)
    inside, there = d < channels, c < WIDTH
    total = tl.zeros((CHANNELS, DEPTH), tl.float32)
    own = x + c[None, :].to(tl.int64) * x_channel
    for _ in range(clouds):
        for first in range(0, many, channels):
            n = tl.load(won + first + d, mask=inside, other=0)
            g = tl.load(share + first + d, mask=inside, other=0.0).to(tl.float32)
            rows = own + n[:, None] * x_point
            total += g[:, None] * tl.load(rows, mask=inside[:, None] & there[None, :], other=0.0).to(tl.float32)
        won, share, own = won + many, share + many, own + x_cloud
    places = grad_weight + d[:, None] * WIDTH + c[None, :]
    tl.store(places, total.to(grad_weight.dtype.element_ty), mask=inside[:, None] & there[None, :])


def fits_moments(x: Tensor, mask: Mask) -> bool:
    return x.dtype in FLOATS and x.numel() > 0


def moments(x: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    clouds, width, points = x.shape
    guess = first_guess(x, mask)
    deep = min(32, padded(width))
    across, count = triton.cdiv(width, deep), clouds * points
    parts = min(triton.cdiv(count, 32), triton.cdiv(PROGRAMS, across))
    total = guess.new_zeros(parts, width)
    scatter = guess.new_zeros(parts, width, width)
    _moments[(parts, across, across)](
        x, None if mask is None else mask.contiguous(), guess, total, scatter, points, count,
        triton.cdiv(count, parts), *x.stride(), width, deep,
    )  # fmt: skip
    return about_mean(x, mask, guess, total.sum(0), scatter.sum(0))


@triton.jit
def _moments(
    x, mask, guess, total, scatter, points, count, each, x_cloud, x_channel, x_point,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The upper blocks of the scatter about the guess, and the sums, of a part of the points.

    One point at a time: for float64 the compiler's products of matrices take no operands that were float32.
    """
    part, above, below = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    if above <= below:
        rows, columns = above * DEPTH + tl.arange(0, DEPTH), below * DEPTH + tl.arange(0, DEPTH)
        near_rows = tl.load(guess + rows, mask=rows < WIDTH, other=0.0)
        near_columns = tl.load(guess + columns, mask=columns < WIDTH, other=0.0)
        x_rows, x_columns = rows.to(tl.int64) * x_channel, columns.to(tl.int64) * x_channel
        products = tl.zeros((DEPTH, DEPTH), tl.float64)
        sums = tl.zeros((DEPTH,), tl.float64)
        for i in range(part * each, tl.minimum(part * each + each, count)):
            own, exists = x + (i // points) * x_cloud + (i % points) * x_point, True
            if mask is not None:
                exists = tl.load(mask + i) != 0
            one = tl.load(own + x_rows, mask=exists & (rows < WIDTH), other=0.0).to(tl.float64)
            one = tl.where(exists & (rows < WIDTH), one - near_rows, 0.0)
            other = tl.load(own + x_columns, mask=exists & (columns < WIDTH), other=0.0).to(tl.float64)
            other = tl.where(exists & (columns < WIDTH), other - near_columns, 0.0)
            products += one[:, None] * other[None, :]
            sums += one
        inside = (rows < WIDTH)[:, None] & (columns < WIDTH)[None, :]
        tl.store(scatter + (part * WIDTH + rows[:, None]) * WIDTH + columns[None, :], products, mask=inside)
        if above == below:
            tl.store(total + part * WIDTH + rows, sums, mask=rows < WIDTH)


use("extremes", extremes, fits)
use("extremes_backward", extremes_backward, fits_backward)
use("moments", moments, fits_moments)
