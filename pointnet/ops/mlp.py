"""A whole shared MLP with its max, in inference: linear maps and ReLUs, then the max over the points (identity 8).

Folded layers hold no norm, so nothing of one point depends on another until the max. A kernel takes the points from
their coordinates to the max without writing a layer's output to memory (`ops.triton.mlp`). A processor that is fastest
with rows takes a tile of them through all layers while it is in the cache; through the last layer, the widest, in
smaller tiles.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .kernels import run_on
from .masked import Mask, fill_padding
from .operators import define
from .pooled import bits_of
from .products import has_slow_products, map_rows, multiplies_matrices, multiply, takes_tf32

MOST_CHANNELS = 128  # of every layer but the last: what a tile of points holds on chip
NARROW = 4096  # rows on a CPU that go through the layers before the last
TILE = 1024  # rows on a CPU that go through the last
FEWEST = 128  # points of clouds with a mask, which go one by one: of fewer the calls of operators take longer


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


def may_take(x: Tensor, mask: Mask) -> bool:
    """Whether `mlp_max` may take points like x, faster than layer after layer: a kernel, or a CPU by rows."""
    return run_on(x) or goes_by_rows(x, mask)


def goes_by_rows(x: Tensor, mask: Mask) -> bool:
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    enough = x.numel() > 0 and (mask is None or x.shape[2] >= FEWEST)
    if x.dtype not in (torch.bfloat16, torch.float32):
        return False
    return enough and (multiplies_matrices(x) or has_slow_products())


def takes(x: Tensor, weights: Sequence[Tensor], mask: Mask) -> bool:
    """Whether `mlp_max` takes these points and weights, of which it `may_take` the points."""
    return goes_by_rows(x, mask) or fits(x, weights)


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


def _mlp_max(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask, relu: bool, find: bool
) -> tuple[Tensor, Tensor]:
    given = (x, *weights, *(bias for bias in biases if bias is not None))
    # As whole numbers, which bfloat16 is compared as, a NaN may be less than others.
    if find or not goes_by_rows(x, mask) or not all(bool(each.sum().isfinite()) for each in given):
        return mlp_max_definition(x, weights, biases, mask, relu, find)
    with torch.autocast("cpu", enabled=False):
        values = _by_rows(x, weights, biases, mask)
    values = values if biases[-1] is None else values + biases[-1]
    return values.relu() if relu else values, x.new_empty(0, dtype=torch.int64)


def _by_rows(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask) -> Tensor:
    """The largest values (B, D) before the last bias, a tile of points at a time through all layers.

    Without a mask a tile holds several small clouds: calling an operator takes longer than a narrow layer of one cloud.
    With a mask it holds one.
    """
    *narrow, last = weights
    values = x.new_full((len(x), last.shape[-2]), -torch.inf)
    together = max(1, min(len(x), NARROW // x.shape[2])) if mask is None else 1
    kept = x.new_empty(min(TILE, together * x.shape[2]), values.shape[1])
    for start in range(0, len(x), together):
        some = slice(start, start + together)
        points = x[some] if mask is None else x[some, :, mask[start, 0]]
        for tile in points.split(NARROW, 2):
            rows = tile.mT.contiguous()
            for weight, bias in zip(narrow, biases, strict=False):
                rows = _layer(rows, weight if weight.dim() == 2 else weight[some], bias)
                bits_of(rows).clamp_min_(0)
            _keep_largest(rows, last if last.dim() == 2 else last[some], kept, values[some])
    return values


def _layer(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The linear map of (B, N, C), with one weight or one per cloud."""
    if weight.dim() == 2:
        return map_rows(rows, weight, bias)
    return torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias, rows, weight.mT)


def _keep_largest(rows: Tensor, weight: Tensor, kept: Tensor, values: Tensor) -> None:
    """Updates the values (B, D) with the max of the last map of (B, N, C), whose products `kept` may hold."""
    each = max(1, TILE // rows.shape[1]) if weight.dim() == 2 else 1
    for i, (clouds, largest) in enumerate(zip(rows.split(each), values.split(each), strict=True)):
        for tile in clouds.split(TILE, 1):
            flat = tile.flatten(0, 1)
            z = multiply(flat, weight if weight.dim() == 2 else weight[i], None, kept[: len(flat)])
            torch.maximum(largest, _largest(z.unflatten(0, tile.shape[:2])), out=largest)


def _largest(z: Tensor) -> Tensor:
    """`z.amax(1)` of (B, N, D) without NaN."""
    bits = bits_of(z)
    highest = bits.amax(1)
    return highest if bits is z else highest.where(highest >= 0, bits.amin(1)).view(z.dtype)


def _shapes(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], mask: Mask, relu: bool, find: bool
) -> tuple[Tensor, Tensor]:
    values = x.new_empty(x.shape[0], weights[-1].shape[-2])
    return values, torch.empty_like(values, dtype=torch.int64) if find else values.new_empty(0, dtype=torch.int64)


define(
    "mlp_max(Tensor x, Tensor[] weights, Tensor?[] biases, Tensor? mask, bool relu, bool find) -> (Tensor, Tensor)",
    _mlp_max, _shapes,
)  # fmt: skip
