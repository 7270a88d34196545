"""The first two layers of a small network at each centre: act(norm(a_i + b_j)), and its next linear map.

The first linear map of a relative neighbourhood splits, W [p_j - c_i; f_j] = a_i + b_j with a_i = -W_p c_i and
b_j = W_p p_j + W_f f_j (identity 7): it runs once per point and once per centre, not once per pair. Its batch norm is
affine and goes into both tables, whose statistics over all pairs are `edges.edge_moments`. So what is left of the first
layer is a gathered row, a sum and a ReLU, and its output is not kept: it is made again in the backward pass.

Rows are pairs, (B * S * K, D), the K of a centre in turn. A block of them is in the cache while it is worked on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .neighbours import gather
from .operators import refuse_second, register, save_nothing
from .pooled import Norm, statistics
from .products import multiply, no_autocast, rounded, sum_of_outer
from .ranks import check_count, moments_over_ranks
from .rows import Moments, Pairs


def pairs_definition(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, near: Tensor | None = None, more: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Of z = W relu(a_i + b_j) - near, j = neighbours[i, k]: (B, S, D), (B, N, D), (B, S, K), (E, D), (E,) ->
    z (B * S * K, E), and over all pairs its mean and the sum of squares about it, (E,) each in float64; there the first
    of the K counts `more` times more."""
    gathered = gather(b.transpose(1, 2), neighbours).permute(0, 2, 3, 1)
    z = (a.unsqueeze(2) + gathered).relu() @ weight.T
    z = z if near is None else z - near
    every = torch.cat([z, z[:, :, :1].expand(-1, -1, more, -1)], 2).flatten(0, 2).double()
    mean = every.mean(0)
    return z.flatten(0, 2), mean, (every - mean).square().sum(0)


def pairs_linear(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, near: Tensor | None = None, more: int = 0,
    rounding: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`pairs_definition` in blocks. Without `near`, which gets no gradient, it is 0, and mean and squares are not
    computed. Products have factors that are rounded."""
    return torch.ops.pointnet.pairs_linear(a, b, neighbours, weight, near, more, rounding)


@torch.no_grad()
def near_mean(a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor) -> Tensor:
    """Numbers (E,) near the mean of W relu(a_i + b_j), that of some centres: about them no digits are lost."""
    return pairs_definition(a[:1, :32], b[:1], neighbours[:1, :32], weight)[1].to(weight.dtype)


def affine_of(
    norm: Norm, bias: Tensor | None, count: int, like: Tensor, moments: Sequence[Tensor], near: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the norm makes of z + near + bias, as (z - mean) * gain + shift: -> (D,) each, of the dtype of `like`.

    Args:
        count, moments: how many z there are, and their mean and squares about it, (D,) each. Both are used only where
            the norm takes statistics.
        near: (D,); None: 0.
    """
    if norm is None:
        zero = like.new_zeros(like.shape[-1])
        return zero if bias is None else -bias, torch.ones_like(zero), zero

    def of_all_ranks(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor, Tensor]:
        mean, squares = moments
        mean = mean if near is None else mean + near
        own = like.new_full((), count, dtype=torch.float64), mean if bias is None else mean + bias, squares
        found = moments_over_ranks(norm, *own)
        check_count(found[0], like.view(1, 1, -1))
        return found

    mean, variance = statistics(norm, of_all_ranks)
    gain = (variance + norm.eps).rsqrt().to(like.dtype)
    gain = gain if norm.weight is None else gain * norm.weight
    mean = (mean if near is None else mean - near).to(like.dtype)
    mean = mean if bias is None else mean - bias
    return mean, gain, torch.zeros_like(gain) if norm.bias is None else norm.bias


def _pairs_linear(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, near: Tensor | None, more: int,
    rounding: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    z, pairs = a.new_empty(neighbours.numel(), len(weight)), Pairs(a, b, neighbours)
    moments = Moments()
    for some, rows in pairs.blocks():
        kept = z[rows]
        of_block = multiply(pairs.make(some, rows), weight, rounding, kept)  # which may be elsewhere
        if near is None:
            kept.copy_(of_block)
            continue
        moments.add(torch.sub(of_block, near, out=kept))
        if more:
            moments.add(kept[:: pairs.size], more)
    return z, *moments.of_all(len(weight), z.device)


def _pairs_linear_backward(
    grad: Tensor, grad_mean: Tensor, grad_squares: Tensor, a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor,
    near: Tensor | None, z: Tensor, mean: Tensor, more: int, rounding: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of a row the gradient is that of z, g / M + 2 h (z - mean) for those of the mean, g, and of the squares, h."""
    pairs, grad_weight = Pairs(a, b, neighbours), weight.new_zeros(weight.shape)
    pairs.start()
    count = neighbours.numel() // pairs.size * (pairs.size + more)
    constant = (grad_mean / count - 2 * grad_squares * mean).to(z.dtype)
    double = (2 * grad_squares).to(z.dtype)
    of_z, above = z.new_empty(len(pairs.kept), len(weight)), torch.empty_like(pairs.kept)
    for some, rows in pairs.blocks():
        x, g = pairs.make(some, rows), grad[rows]
        if near is not None:
            g = torch.addcmul(constant, z[rows], double, out=of_z[: len(x)])
            if more:
                g[:: pairs.size] *= 1 + more
            g += grad[rows]
        g = rounded(g, rounding)
        grad_weight += sum_of_outer(g, rounded(x, rounding))
        pairs.give(some, rows, x, multiply(g, weight.T, rounding, above[: len(x)]))
    grad_a, grad_b = pairs.gradients()
    return grad_a, grad_b, grad_weight


def _save_pairs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.more, ctx.rounding = inputs[5:]
    ctx.save_for_backward(*inputs[:5], *output[:2])


def _backward_of_pairs(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    given = (*grads, *ctx.saved_tensors, ctx.more, ctx.rounding)
    with no_autocast(grads[0]):  # in which whoever calls backward may be
        grad_a, grad_b, grad_weight = torch.ops.pointnet.pairs_linear_backward(*given)
    return grad_a, grad_b, None, grad_weight, None, None, None


def _fake_pairs(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, near: Tensor | None, more: int, _: Any
) -> tuple[Tensor, Tensor, Tensor]:
    double = a.new_empty(len(weight), dtype=torch.float64)
    z = a.new_empty(neighbours.shape[0] * neighbours.shape[1] * neighbours.shape[2], len(weight))
    return z, double, torch.empty_like(double)


register(
    "pairs_linear(Tensor a, Tensor b, Tensor neighbours, Tensor weight, Tensor? near, int more,"
    " ScalarType? rounding) -> (Tensor, Tensor, Tensor)",
    _pairs_linear, _fake_pairs, _backward_of_pairs, _save_pairs,
)  # fmt: skip
register(
    "pairs_linear_backward(Tensor grad, Tensor grad_mean, Tensor grad_squares, Tensor a, Tensor b, Tensor neighbours,"
    " Tensor weight, Tensor? near, Tensor z, Tensor mean, int more, ScalarType? rounding) -> (Tensor, Tensor, Tensor)",
    _pairs_linear_backward,
    lambda _, __, ___, a, b, ____, weight, *more: tuple(each.new_empty(each.shape) for each in (a, b, weight)),
    refuse_second, save_nothing,
)  # fmt: skip
