"""A whole folded shared MLP with its max in one kernel: the operator `mlp_max`.

A program takes a tile of a cloud's points through all layers; their values stay on chip. The last layer goes by blocks
of channels, each reduced to its max and winner at once. What is written is one row of D numbers per tile.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointnet.ops.masked import Mask

from .parts import first_max, padded, precision


def mlp_max(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask, relu: bool, find: bool
) -> tuple[Tensor, Tensor]:
    clouds, _, points = x.shape
    widths = (x.shape[1], *(weight.shape[-2] for weight in weights))
    block = min(64 if x.dtype == torch.float32 else 128, padded(points))
    tiles = triton.cdiv(points, block)
    values = x.new_empty(clouds, tiles, widths[-1], dtype=torch.float32)
    winners = values.new_empty(values.shape if find else (0,), dtype=torch.int32)
    kept = tuple(weight.contiguous() for weight in weights)
    _mlp_max[(clouds * tiles,)](
        x, None if mask is None else mask.contiguous(), kept, tuple(biases), values, winners, points, *x.stride(),
        tuple(weight.stride(0) if weight.dim() == 3 else 0 for weight in kept), widths, tuple(map(padded, widths)),
        find, block, 64, precision(), num_warps=4 if block <= 64 else 8, num_stages=2,
    )  # fmt: skip
    best, tile = values.max(1)
    if biases[-1] is not None:
        best = best + biases[-1]
    found = winners.gather(1, tile.unsqueeze(1)).squeeze(1).long() if find else tile.new_empty(0)
    return (best.relu() if relu else best).to(x.dtype), found


@triton.jit
def _matrix(weight, d, c, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Some of the weights (D, C), transposed; 0 beyond."""
    there = (c < COLUMNS)[:, None] & (d < ROWS)[None, :]
    return tl.load(weight + d[None, :] * COLUMNS + c[:, None], mask=there, other=0.0)


@triton.jit
def _mlp_max(
    x, mask, weights, biases, values, winners, points, x_cloud, x_channel, x_point,
    per_cloud, WIDTHS: tl.constexpr, SIZES: tl.constexpr,
    FIND: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(points, POINTS)
    row = tl.program_id(0).to(tl.int64)
    cloud, n = row // tiles, (row % tiles) * POINTS + tl.arange(0, POINTS)
    exists = n < points
    if mask is not None:
        exists = exists & (tl.load(mask + cloud * points + n, mask=exists, other=0) != 0)
    c = tl.arange(0, SIZES[0]).to(tl.int64)
    h = tl.load(
        x + cloud * x_cloud + n[:, None] * x_point + c[None, :] * x_channel,
        mask=exists[:, None] & (c < WIDTHS[0])[None, :],
        other=0.0,
    )
    last: tl.constexpr = len(WIDTHS) - 2
    for i in tl.static_range(last):
        c, d = tl.arange(0, SIZES[i]), tl.arange(0, SIZES[i + 1])
        w = _matrix(weights[i] + cloud * per_cloud[i], d, c, WIDTHS[i + 1], WIDTHS[i])
        z = tl.dot(h, w, input_precision=PRECISION)
        if biases[i] is not None:
            z += tl.load(biases[i] + d, mask=d < WIDTHS[i + 1], other=0.0)[None, :]
        h = tl.where(z < 0, 0.0, z).to(h.dtype)  # not tl.maximum, which drops NaN
    c = tl.arange(0, SIZES[last])
    for first in range(0, WIDTHS[last + 1], CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        there = channel < WIDTHS[last + 1]
        matrix = _matrix(weights[last] + cloud * per_cloud[last], channel, c, WIDTHS[last + 1], WIDTHS[last])
        y = tl.where(exists[:, None], tl.dot(h, matrix, input_precision=PRECISION), float("-inf"))
        best, winner = first_max(y, n[:, None], points, 0)
        tl.store(values + row * WIDTHS[last + 1] + channel, best, mask=there)
        if FIND:
            tl.store(winners + row * WIDTHS[last + 1] + channel, winner.to(tl.int32), mask=there)
