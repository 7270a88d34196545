"""Which points: farthest point sampling as one launch, and the lowest of rows of distances.

A program samples from one cloud and keeps the distances to what was taken in registers. The square of a distance is
summed channel by channel without fused multiply-adds, so that the indices are those of the definition to the last bit.
Of rows of distances a program takes the lowest, again and again, without sorting the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointnet.ops.masked import Lengths

from .parts import padded

MOST_POINTS, MOST_CHANNELS = 16_384, 8  # what the registers of one program hold, and what its loop is unrolled for
MOST_COLUMNS, MOST_LOWEST = 4096, 32


def fits(points: Tensor, count: int, lengths: Lengths, first: Tensor) -> bool:
    small = points.shape[1] <= MOST_CHANNELS and points.shape[2] <= MOST_POINTS
    return small and points.dtype == torch.float32 and len(points) > 0


def farthest_point_sampling(points: Tensor, count: int, lengths: Lengths, first: Tensor) -> Tensor:
    clouds, channels, size = points.shape
    taken = first.new_empty(clouds, count)
    block = padded(size)
    lengths = None if lengths is None else lengths.contiguous()
    _farthest[(clouds,)](
        points, lengths, first.contiguous(), taken, count, size, *points.stride(), channels, block,
        num_warps=max(1, min(32, block // 256)), enable_fp_fusion=False,
    )  # fmt: skip
    return taken


@triton.jit
def _farthest(
    points, lengths, first, taken, count, size, x_cloud, x_channel, x_point,
    CHANNELS: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    cloud = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, POINTS)
    exists = n < (size if lengths is None else tl.load(lengths + cloud))
    own = points + cloud * x_cloud
    nearest = tl.where(exists, float("inf"), -1.0)
    latest = tl.load(first + cloud)
    for i in range(count):
        tl.store(taken + cloud * count + i, latest)
        distance = tl.zeros((POINTS,), tl.float32)
        for c in tl.static_range(CHANNELS):
            plane = own + c * x_channel
            away = tl.load(plane + latest * x_point) - tl.load(plane + n * x_point, mask=exists, other=0.0)
            distance += away * away
        nearest = tl.minimum(nearest, distance)
        latest = tl.minimum(tl.argmax(nearest, 0), size - 1).to(tl.int64)


def fits_lowest(values: Tensor, count: int) -> bool:
    """Each of the `count` is a pass over the row, which the registers of a program hold."""
    small = count <= MOST_LOWEST and values.shape[-1] <= MOST_COLUMNS
    return small and values.dtype == torch.float32 and values.numel() > 0


def lowest(values: Tensor, count: int) -> Tensor:
    rows, size = values.flatten(0, -2).contiguous(), values.shape[-1]
    found = torch.empty(len(rows), count, dtype=torch.int64, device=values.device)
    columns = padded(size)
    block = MOST_COLUMNS // columns
    _lowest[(triton.cdiv(len(rows), block),)](rows, found, len(rows), size, count, block, columns)
    return found.view(*values.shape[:-1], count)


@triton.jit
def _lowest(values, found, rows, size, count, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    r, c = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    there = (r < rows)[:, None] & (c < size)[None, :]
    numbers = tl.load(values + r[:, None].to(tl.int64) * size + c[None, :], mask=there, other=0.0)
    bits = numbers.to(tl.int32, bitcast=True)
    taken: tl.constexpr = 0x7FFFFFFF  # which is a GPU's NaN, too
    bits = tl.where((numbers != numbers) & (bits > 0), 0x7FC00000, bits)
    keys = tl.where(there, bits ^ ((bits >> 31) & taken), taken)  # ordered as the numbers are
    for k in range(count):
        at = tl.min(tl.where(keys == tl.min(keys, 1)[:, None], c[None, :], COLUMNS), 1)
        keys = tl.where(c[None, :] == at[:, None], taken, keys)
        tl.store(found + r.to(tl.int64) * count + k, tl.minimum(at, size - 1).to(tl.int64), mask=r < rows)
