"""The first two layers of a small network at each centre: act(norm(a_i + b_j)), and its next linear map.

The first linear map of a relative neighbourhood splits, W [p_j - c_i; f_j] = a_i + b_j with a_i = -W_p c_i and
b_j = W_p p_j + W_f f_j (identity 7): it runs once per point and once per centre, not once per pair. Its batch norm is
affine and goes into both tables, whose statistics over all pairs are `edges.edge_moments`. So what is left of the first
layer is a gathered row, a sum and a ReLU, and its output need not be kept: it is made again in the backward pass.

Rows are pairs, (B * S * K, D), the K of a centre in turn. A block of them is in the cache while it is worked on.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .edges import refuse_second, save_nothing
from .neighbours import gather, of_all_clouds
from .pooled import Norm, register, statistics
from .ranks import check_count, group_of, moments_over_ranks

# Rows that are worked on together: on a CPU a block of floats stays in a core's cache; a GPU needs more work.
ROWS = {"cpu": 1024}
Block = tuple[slice, slice]  # some centres of all clouds, and the rows of their pairs


def pairs_definition(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, more: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Of z = W relu(a_i + b_j), j = neighbours[i, k]: (B, S, D), (B, N, D), (B, S, K), (E, D) -> z (B * S * K, E),
    and over all pairs its mean and the sum of squares about it, (E,) each in float64; there the first of the K counts
    `more` times more."""
    gathered = gather(b.transpose(1, 2), neighbours).permute(0, 2, 3, 1)
    z = (a.unsqueeze(2) + gathered).relu() @ weight.T
    every = torch.cat([z, z[:, :, :1].expand(-1, -1, more, -1)], 2).flatten(0, 2).double()
    mean = every.mean(0)
    return z.flatten(0, 2), mean, (every - mean).square().sum(0)


def pairs_linear(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, moments: bool, more: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """`pairs_definition` in blocks; without `moments` mean and squares are not computed."""
    return torch.ops.pointnet.pairs_linear(a, b, neighbours, weight, moments, more)


def pairs_rectified(a: Tensor, b: Tensor, neighbours: Tensor) -> Tensor:
    """relu(a_i + b_j) of all pairs: (B, S, D), (B, N, D), (B, S, K) -> (B * S * K, D)."""
    return torch.ops.pointnet.pairs_rectified(a, b, neighbours)


def affine_of(
    norm: Norm, bias: Tensor | None, count: int, like: Tensor, moments: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """What the norm makes of z + bias, as (z - mean) * gain + shift: -> (D,) each, of the dtype of `like`.

    Args:
        count, moments: where the norm takes statistics: of so many z, their mean and squares about it, (D,) each.
    """
    if norm is None:
        zero = like.new_zeros(like.shape[-1])
        return zero if bias is None else -bias, torch.ones_like(zero), zero

    def of_all_ranks() -> tuple[Tensor, Tensor, Tensor]:
        mean, squares = moments
        found = like.new_full((), count, dtype=torch.float64), mean if bias is None else mean + bias, squares
        if (group := group_of(norm)) is not None:
            found = moments_over_ranks(group, *found)
        check_count(found[0], like.view(1, 1, -1))
        return found

    mean, variance = statistics(norm, of_all_ranks)
    gain = (variance + norm.eps).rsqrt().to(like.dtype)
    gain = gain if norm.weight is None else gain * norm.weight
    mean = mean.to(like.dtype) if bias is None else mean.to(like.dtype) - bias
    return mean, gain, torch.zeros_like(gain) if norm.bias is None else norm.bias


def rectified(z: Tensor, mean: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """relu((z - mean) * gain + shift) of rows (R, D); not kept for the backward pass, which makes it again."""
    if not torch.is_grad_enabled():
        return z.mul_(gain).add_(shift - mean * gain).relu_()  # z is nobody's any more
    return torch.ops.pointnet.rectified(z, mean, gain, shift)


def _blocks(neighbours: Tensor) -> Iterator[Block]:
    centres, most = neighbours.shape[0] * neighbours.shape[1], neighbours.shape[2]
    step = max(1, ROWS.get(neighbours.device.type, 2**18) // most)
    for first in range(0, centres, step):
        some = slice(first, min(first + step, centres))
        yield some, slice(some.start * most, some.stop * most)


def _first_layer(a: Tensor, b: Tensor, flat: Tensor, block: Block, kept: Tensor) -> Tensor:
    """relu(a_i + b_j) of a block, of the tables of all clouds: (R, D), in the memory of `kept`."""
    some, rows = block
    x = torch.index_select(b, 0, flat[some].flatten(), out=kept[: rows.stop - rows.start])
    x.unflatten(0, (-1, flat.shape[1])).add_(a[some].unsqueeze(1))
    return x.relu_()


def _tables(a: Tensor, b: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both tables and the neighbours, of all clouds: (B * S, D), (B * N, D), (B * S, K)."""
    return a.flatten(0, 1), b.flatten(0, 1), of_all_clouds(neighbours, b.shape[1])


def _count(neighbours: Tensor, more: int) -> int:
    """Pairs, the first of each neighbourhood counted `more` times more."""
    return neighbours.shape[0] * neighbours.shape[1] * (neighbours.shape[2] + more)


def _kept(neighbours: Tensor, like: Tensor, width: int) -> Tensor:
    """Memory for the rows of a block."""
    most = neighbours.shape[2]
    return like.new_empty(max(1, ROWS.get(neighbours.device.type, 2**18) // most) * most, width)


def _pairs_rectified(a: Tensor, b: Tensor, neighbours: Tensor) -> Tensor:
    y, tables = a.new_empty(neighbours.numel(), a.shape[2]), _tables(a, b, neighbours)
    for block in _blocks(neighbours):
        _first_layer(*tables, block, y[block[1]])
    return y


def _pairs_rectified_backward(grad: Tensor, y: Tensor, a: Tensor, b: Tensor, neighbours: Tensor) -> list[Tensor]:
    grad_a, grad_b, kept = a.new_empty(a.shape), b.new_zeros(b.shape), _kept(neighbours, y, y.shape[1])
    tables = grad_a.flatten(0, 1), grad_b.flatten(0, 1), of_all_clouds(neighbours, b.shape[1])
    for block in _blocks(neighbours):
        rows = block[1]
        _to_tables(_through_relu(grad[rows], y[rows], out=kept[: rows.stop - rows.start]), block, *tables)
    return [grad_a, grad_b]


def _to_tables(grad: Tensor, block: Block, grad_a: Tensor, grad_b: Tensor, flat: Tensor) -> None:
    """Gives the gradient of a_i + b_j of a block's pairs to both tables, of all clouds."""
    some = block[0]
    torch.sum(grad.unflatten(0, (-1, flat.shape[1])), 1, out=grad_a[some])
    grad_b.index_add_(0, flat[some].flatten(), grad)


def _pairs_linear(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, moments: bool, more: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As `pairs_linear`; sums and squares are about a guess, the mean of the first block."""
    most, count = neighbours.shape[2], _count(neighbours, more)
    z = a.new_empty(neighbours.numel(), len(weight))
    lack, squares = z.new_zeros(2, len(weight), dtype=torch.float64)
    near: Tensor | None = None
    kept, centred, w = _kept(neighbours, b, b.shape[2]), _kept(neighbours, z, len(weight)), weight.T
    tables = _tables(a, b, neighbours)
    for block in _blocks(neighbours):
        of_block = z[block[1]]
        torch.mm(_first_layer(*tables, block, kept), w, out=of_block)
        if moments:
            near = of_block.mean(0) if near is None else near
            about = torch.sub(of_block, near, out=centred[: len(of_block)])
            lack += about.sum(0)
            squares += _dots(about, about)
            if more:
                lack += more * about[::most].sum(0)
                squares += more * _dots(about[::most], about[::most])
    lack = lack / count
    squares = (squares - count * lack.square()).clamp(min=0)
    return z, lack if near is None else near.double() + lack, squares


def _pairs_linear_backward(
    grad: Tensor, grad_mean: Tensor, grad_squares: Tensor, a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor,
    z: Tensor, mean: Tensor, moments: bool, more: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of a row the gradient is that of z, g / M + 2 h (z - mean) for those of the mean, g, and of the squares, h."""
    most = neighbours.shape[2]
    grad_a, grad_b, grad_weight = a.new_empty(a.shape), b.new_zeros(b.shape), weight.new_zeros(weight.shape)
    tables = _tables(a, b, neighbours)
    of_tables = grad_a.flatten(0, 1), grad_b.flatten(0, 1), tables[2]
    near = mean.to(z.dtype)  # in two parts, so that its rounding loses nothing
    constant = (grad_mean / _count(neighbours, more) - 2 * grad_squares * (mean - near)).to(z.dtype)
    double = (2 * grad_squares).to(z.dtype)
    kept, above = _kept(neighbours, b, b.shape[2]), _kept(neighbours, b, b.shape[2])
    of_z = _kept(neighbours, z, len(weight))
    for block in _blocks(neighbours):
        rows = block[1]
        x, g = _first_layer(*tables, block, kept), grad[rows]
        if moments:
            g = torch.sub(z[rows], near, out=of_z[: len(g)]).mul_(double).add_(constant)
            g[::most] *= 1 + more
            g += grad[rows]
        grad_weight.addmm_(g.T, x)
        back = _through_relu(torch.mm(g, weight, out=above[: len(g)]), x)
        _to_tables(back, block, *of_tables)
    return grad_a, grad_b, grad_weight


def _save_pairs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.moments, ctx.more = inputs[4:]
    ctx.save_for_backward(*inputs[:4], *output[:2])


def _backward_of_pairs(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    given = (*grads, *ctx.saved_tensors, ctx.moments, ctx.more)
    grad_a, grad_b, grad_weight = torch.ops.pointnet.pairs_linear_backward(*given)
    return grad_a, grad_b, None, grad_weight, None, None


def _fake_pairs(
    a: Tensor, b: Tensor, neighbours: Tensor, weight: Tensor, moments: bool, more: int
) -> tuple[Tensor, Tensor, Tensor]:
    double = a.new_empty(len(weight), dtype=torch.float64)
    z = a.new_empty(neighbours.shape[0] * neighbours.shape[1] * neighbours.shape[2], len(weight))
    return z, double, torch.empty_like(double)


def _rectified(z: Tensor, mean: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    y, constant = torch.empty_like(z), shift - mean * gain
    for rows in _row_blocks(z):
        torch.addcmul(constant, z[rows], gain, out=y[rows]).relu_()
    return y


def _through_relu(grad: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient where y, what is given to a ReLU or what it gives, is above 0, else 0; in place without `out`."""
    return torch.ops.aten.threshold_backward(grad, y, 0, grad_input=grad if out is None else out)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """The sum over rows of a * b: (R, D), (R, D) -> (D,)."""
    if a.device.type != "cpu":
        return (a * b).sum(0)
    return torch.from_numpy(np.einsum("rd,rd->d", a.numpy(), b.numpy()))  # without the products in memory


def _row_blocks(z: Tensor) -> Iterator[slice]:
    step = ROWS.get(z.device.type, 2**18)
    return (slice(first, first + step) for first in range(0, len(z), step))


def _rectified_backward(
    grad: Tensor, z: Tensor, mean: Tensor, gain: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """-> the gradients of z (R, D), of the gain and of the shift (D,)."""
    grad_z, constant = torch.empty_like(z), shift - mean * gain
    grad_gain, grad_shift = gain.new_zeros(2, len(gain), dtype=torch.float64)
    kept = z.new_empty(min(len(z), ROWS.get(z.device.type, 2**18)), z.shape[1])
    for rows in _row_blocks(z):
        g = torch.addcmul(constant, z[rows], gain, out=grad_z[rows])
        g = _through_relu(grad[rows], g, out=g)
        grad_shift += g.sum(0)
        grad_gain += _dots(torch.sub(z[rows], mean, out=kept[: len(g)]), g)
        g *= gain
    return grad_z, grad_gain.to(gain.dtype), grad_shift.to(gain.dtype)


def _backward_of_rectified(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    z, mean, gain, shift = ctx.saved_tensors
    grad_z, grad_gain, grad_shift = torch.ops.pointnet.rectified_backward(grad, z, mean, gain, shift)
    return grad_z, -gain * grad_shift, grad_gain, grad_shift


register(
    "pairs_rectified(Tensor a, Tensor b, Tensor neighbours) -> Tensor",
    _pairs_rectified, lambda a, b, neighbours: a.new_empty(neighbours.numel(), a.shape[2]),
    lambda ctx, grad: (*torch.ops.pointnet.pairs_rectified_backward(grad, *ctx.saved_tensors), None),
    lambda ctx, inputs, output: ctx.save_for_backward(output, *inputs),
)  # fmt: skip
register(
    "pairs_rectified_backward(Tensor grad, Tensor y, Tensor a, Tensor b, Tensor neighbours) -> Tensor[]",
    _pairs_rectified_backward, lambda grad, y, a, b, neighbours: [a.new_empty(a.shape), b.new_empty(b.shape)],
    refuse_second, save_nothing,
)  # fmt: skip
register(
    "pairs_linear(Tensor a, Tensor b, Tensor neighbours, Tensor weight, bool moments, int more)"
    " -> (Tensor, Tensor, Tensor)",
    _pairs_linear, _fake_pairs, _backward_of_pairs, _save_pairs,
)  # fmt: skip
register(
    "pairs_linear_backward(Tensor grad, Tensor grad_mean, Tensor grad_squares, Tensor a, Tensor b, Tensor neighbours,"
    " Tensor weight, Tensor z, Tensor mean, bool moments, int more) -> (Tensor, Tensor, Tensor)",
    _pairs_linear_backward,
    lambda _, __, ___, a, b, ____, weight, *more: tuple(each.new_empty(each.shape) for each in (a, b, weight)),
    refuse_second, save_nothing,
)  # fmt: skip
register(
    "rectified(Tensor z, Tensor mean, Tensor gain, Tensor shift) -> Tensor",
    _rectified, lambda z, *_: torch.empty_like(z), _backward_of_rectified,
    lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)  # fmt: skip
register(
    "rectified_backward(Tensor grad, Tensor z, Tensor mean, Tensor gain, Tensor shift) -> (Tensor, Tensor, Tensor)",
    _rectified_backward,
    lambda grad, z, mean, gain, shift: (torch.empty_like(z), torch.empty_like(gain), torch.empty_like(gain)),
    refuse_second, save_nothing,
)  # fmt: skip
