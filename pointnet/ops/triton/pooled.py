"""The pooled layer's operator `extremes`.

A program keeps the best of each place of its tile while it goes over the points, and looks for the winner once, at the
end. Kernels for its gradient and for `moments` were slower than PyTorch's operators, and were removed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointnet.ops.masked import Mask
from pointnet.ops.winners import values_at

from .parts import FLOATS, PROGRAMS, first_max, padded, precision


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
