"""A whole shared MLP with its max, in inference: linear maps and ReLUs, then the max over the points (identity 8).

Folded layers hold no norm, so nothing of one point depends on another until the max. A kernel takes the points from
their coordinates to the max without writing a layer's output to memory (`ops.triton.mlp`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .masked import Mask, fill_padding
from .pooled import DEFINITIONS, OPERATORS
from .products import takes_tf32

MOST_CHANNELS = 128  # of every layer but the last: what a tile of points holds on chip


def mlp_max(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask = None, relu: bool = True
) -> Tensor:
    """The largest value of each channel over the points of each cloud: (B, C, N) -> (B, D). It has no gradient.

    Args:
        x: the points.
        weights, biases: of each layer, (D, C) or one per cloud, (B, D, C); (D,) or None. A ReLU follows each layer.
        mask: (B, 1, N), where a point exists.
        relu: whether a ReLU follows the last layer too.
    """
    return torch.ops.pointnet.mlp_max(x, weights, biases, mask, relu, False)[0]


def fits(x: Tensor, weights: Sequence[Tensor], *more: object) -> bool:
    """Whether a kernel takes these: one dtype that tensor cores multiply, and no wide layer but the last."""
    same = all(weight.dtype == x.dtype for weight in weights)
    narrow = max(weight.shape[-1] for weight in weights) <= MOST_CHANNELS
    quick = x.dtype in (torch.float16, torch.bfloat16) or (x.dtype == torch.float32 and takes_tf32())
    return same and narrow and quick and x.numel() > 0


def mlp_max_definition(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask, relu: bool, find: bool
) -> tuple[Tensor, Tensor]:
    """-> values (B, D) and, if asked to `find` them, winners (B, D) int64 before the last ReLU, the lowest on ties."""
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = weight @ (x if i == 0 else x.relu())
        x = x if bias is None else x + bias.unsqueeze(1)
    values, winners = fill_padding(x, mask, -torch.inf).max(2)
    return values.relu() if relu else values, winners if find else winners.new_empty(0)


def _shapes(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask, relu: bool, find: bool
) -> tuple[Tensor, Tensor]:
    values = x.new_empty(x.shape[0], weights[-1].shape[-2])
    return values, torch.empty_like(values, dtype=torch.int64) if find else values.new_empty(0, dtype=torch.int64)


OPERATORS.define(
    "mlp_max(Tensor x, Tensor[] weights, Tensor?[] biases, Tensor? mask, bool relu, bool find) -> (Tensor, Tensor)"
)
OPERATORS.impl("mlp_max", mlp_max_definition, "CompositeExplicitAutograd")
torch.library.register_fake("pointnet::mlp_max", _shapes, lib=OPERATORS)
DEFINITIONS["mlp_max"] = mlp_max_definition
