"""Farthest point sampling as one launch: a program per cloud, which keeps the distances to what was taken in registers.

The square of a distance is summed channel by channel without fused multiply-adds, so that the indices are those of the
definition to the last bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointnet.ops.masked import Lengths

from .parts import padded

MOST_POINTS, MOST_CHANNELS = 16_384, 8  # what the registers of one program hold, and what its loop is unrolled for


def fits(points: Tensor, count: int, lengths: Lengths, first: Tensor) -> bool:
    small = points.shape[1] <= MOST_CHANNELS and points.shape[2] <= MOST_POINTS
    return small and points.dtype == torch.float32 and len(points) > 0


def farthest_point_sampling(points: Tensor, count: int, lengths: Lengths, first: Tensor) -> Tensor:
    clouds, channels, size = points.shape
    taken = first.new_empty(clouds, count)
    block = padded(size)
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
