"""What several kernels share: sizes, the precision of products, and a max with its first winner."""

import torch
import triton
import triton.language as tl

from pointnet.ops.products import takes_tf32

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
PROGRAMS = 512  # that a launch has at least, if there is as much to divide: a few for each core of a large GPU


def padded(size: int) -> int:
    """The power of 2 that holds `size`, and at least 16: what a block and a product of tensor cores can be."""
    return max(16, triton.next_power_of_2(size))


def precision() -> str:
    """Of products of float32: TF32 where PyTorch's own setting for convolutions asks for it."""
    return "tf32" if takes_tf32() else "ieee"


@triton.jit
def first_max(z, numbers, none, axis: tl.constexpr):
    """The largest of z along an axis and the lowest of the numbers that have it; NaN is the largest.

    `none` is above all numbers.
    """
    bad = z != z
    best = tl.max(tl.where(bad, float("-inf"), z), axis)
    best = tl.where(tl.max(bad.to(tl.int32), axis) > 0, float("nan"), best)
    return best, tl.min(tl.where(bad | (z == tl.expand_dims(best, axis)), numbers, none), axis)
