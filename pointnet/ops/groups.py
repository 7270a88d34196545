"""linear -> norm -> activation -> max over the K points of each group, without its (B, D, S, K) output (identity 11).

A group is a small cloud, so this is `pooled` once more, for clouds so small that a product's rows are what is fast: the
points of a group are K rows of (B * S * K, C). `groups_definition` says what is computed. A block of z = W x is in the
cache while its extremes, sums and squares are taken, and is gone then. The points that `ball_query` repeats are points
of the group: they count in statistics, and the first of them wins. They need not be there to count: see `bins`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .bins import moments_of_all
from .edges import first_of, refuse_second, rows_summed, save_nothing, slot_type
from .masked import batch_norm
from .neighbours import gather, of_all_clouds
from .pooled import FALLING_THEN_RISING, Activation, Norm, makes_a_graph, normalize, register, signs
from .ranks import check_count, group_of, moments_over_ranks

# Rows whose z are computed at a time: on a CPU (ROWS, D) floats stay in a core's cache; a GPU needs more work.
ROWS = {"cpu": 2048}


def grouped(x: Tensor, neighbours: Tensor) -> Tensor:
    """The points of each group: (B, C, N), (B, S, K) -> (B, C, S, K), equal to `gather`, stored as rows.

    That is what `pooled_groups` is fastest on, and its gradient is a sum of rows.
    """
    if makes_a_graph():
        return gather(x, neighbours)
    rows = torch.ops.pointnet.rows_taken(x.transpose(1, 2), neighbours.flatten(1))
    return rows.unflatten(1, neighbours.shape[1:]).permute(0, 3, 1, 2)


def groups_definition(x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, activation: Activation) -> Tensor:
    """max_k activation(norm(W x_sk + b)): (B, C, S, K), (D, C), (D,) -> (B, D, S)."""
    z = F.conv1d(x.flatten(2), weight.unsqueeze(2), bias)
    if norm is not None:
        z = batch_norm(z, norm)
    y = z if activation is None else activation(z)
    return y.unflatten(2, x.shape[2:]).max(3).values


def pooled_groups(x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, activation: Activation) -> Tensor:
    """`groups_definition` by identity 11: equal in value, running statistics and, where the winner is unique, gradient;
    on ties the first of the group wins.

    Args:
        x: (B, C, S, K); fastest where stored as rows, (B, S, K, C) permuted, which is `torch.channels_last`.
        weight, bias: (D, C), (D,) or None.
        norm: batch norm of z, in training, eval or frozen; or None.
        activation: one that `is_poolable`.
    """
    if makes_a_graph():
        return groups_definition(x, weight, bias, norm, activation)
    clouds, channels, centres, most = x.shape
    lots = [Rows(x.permute(0, 2, 3, 1).reshape(-1, channels), most, 0)]
    return pooled_rows(lots, weight, bias, norm, activation).unflatten(0, (clouds, centres)).transpose(1, 2)


class Rows(NamedTuple):
    """The points of groups, `size` rows each in turn; the first of each counts `more` times more in statistics."""

    points: Tensor  # (G * size, C)
    size: int
    more: int


def pooled_rows(
    lots: Sequence[Rows], weight: Tensor, bias: Tensor | None, norm: Norm, activation: Activation
) -> Tensor:
    """`pooled_groups` for groups of several sizes, lot after lot: -> (G, D) of all groups."""
    rising, both = signs(weight, norm), type(activation) in FALLING_THEN_RISING
    batch = norm is not None and (norm.training or norm.running_mean is None)
    learns = torch.is_grad_enabled() and (weight.requires_grad or any(lot.points.requires_grad for lot in lots))
    signed = rising.unsqueeze(1) * weight
    found = [torch.ops.pointnet.group_extremes(lot.points, signed, *lot[1:], both, batch, learns) for lot in lots]
    z = (found[0][0] if len(found) == 1 else torch.cat([each[0] for each in found], 1)) * rising

    def of_all_ranks() -> tuple[Tensor, Tensor, Tensor]:
        counts = [len(lot.points) // lot.size * (lot.size + lot.more) for lot in lots]
        mean, squares = moments_of_all(counts, [each[2] for each in found], [each[3] for each in found])
        mean = mean * rising if bias is None else mean * rising + bias
        moments = mean.new_full((), sum(counts)), mean, squares
        group = None if norm is None else group_of(norm)
        if group is not None:
            moments = moments_over_ranks(group, *moments)
        check_count(moments[0], lots[0].points.T.unsqueeze(0))
        return moments

    z = z if bias is None else z + bias
    y = z if norm is None else normalize(z, norm, of_all_ranks)
    if activation is not None:
        y = activation(y)
    return y.amax(0) if both else y.squeeze(0)


def _group_extremes(
    rows: Tensor, weight: Tensor, size: int, more: int, both: bool, batch: bool, learns: bool
) -> tuple[Tensor, ...]:
    """-> values (1 or 2, G, D); which point of its group won, the same of small integers; mean and squares (D,) of z in
    float64; a guess of the mean point (C,), and what it lacks (C,). Without `learns` or `batch` theirs are nothing."""
    groups, out, step = len(rows) // size, len(weight), _step(rows, size)
    count = max(groups, 1) * (size + more)
    # Any guess near the data will do: about it nothing cancels in the squares.
    near = rows[: step * size].mean(0) if batch else rows.new_zeros(rows.shape[1])
    values = weight.new_empty(1 + both, groups, out)
    slots = torch.empty(values.shape if learns else (0,), dtype=slot_type(size), device=rows.device)
    lack, squares = (weight.new_zeros(n, dtype=torch.float64) for n in (rows.shape[1], out))
    kernel = weight.to(rows.dtype).T
    kept_x, kept_z = (rows.new_empty(min(step, groups) * size, n) for n in (rows.shape[1], out))
    for first in range(0, groups, step):
        some = slice(first, first + step)
        x = rows[first * size : (first + step) * size]
        if batch:
            x = torch.sub(x, near, out=kept_x[: len(x)])
            lack += x.sum(0).double()
            if more:
                lack += more * x[::size].sum(0).double()
        z = torch.mm(x, kernel, out=kept_z[: len(x)]).to(weight.dtype).unflatten(0, (-1, size))
        if batch:
            squares += _squares(z).sum(0, dtype=torch.float64)
            if more:
                squares += more * _squares(z[:, :1]).sum(0, dtype=torch.float64)
        for plane in range(1 + both):
            best = values[plane, some]
            (torch.amin if plane else torch.amax)(z, 1, out=best)
            if learns:
                slots[plane, some] = first_of(z, best)
    near, lack, double = near.to(weight.dtype), lack / count, weight.double()
    shift = double @ lack
    if batch:
        values += (double @ near.double()).to(weight.dtype)
    squares = (squares - count * shift.square()).clamp(min=0)
    return values, slots, double @ near.double() + shift, squares, near, lack


def _step(rows: Tensor, size: int) -> int:
    """Groups that are worked on together."""
    return max(1, ROWS.get(rows.device.type, 2**18) // size)


def _squares(z: Tensor) -> Tensor:
    """The sum of squares of each group: (G, K, D) -> (G, D)."""
    if z.device.type != "cpu":
        return z.square().sum(1)
    return torch.from_numpy(np.einsum("gkd,gkd->gd", z.numpy(), z.numpy()))  # without the squares in memory


def _group_extremes_backward(
    grad: Tensor, grad_mean: Tensor, grad_squares: Tensor, rows: Tensor, weight: Tensor, slots: Tensor, near: Tensor,
    lack: Tensor, size: int, more: int, batch: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Identity 4: the winners' gradient, and an affine map of x for that of the mean, g, and of the squares, h."""
    kind, step = weight.dtype, _step(rows, size)
    count = len(rows) // size * (size + more)
    grad_rows = torch.empty_like(rows, dtype=kind)
    double = 2 * grad_squares.unsqueeze(1) * weight
    affine = weight.double().T @ double
    constant, affine = (grad_mean @ weight.double() / count - lack @ affine).to(kind), affine.to(kind)
    scatter, grad_weight = lack.new_zeros(len(lack), len(lack)), torch.zeros_like(weight)
    firsts = torch.arange(0, step * size, size, dtype=torch.int32, device=rows.device).unsqueeze(1)
    for first in range(0, len(slots[0]), step):
        block = slice(first * size, (first + step) * size)
        x = rows[block].to(kind)
        x = x - near if batch else x
        target = grad_rows[block]
        if batch:
            scatter += x.T @ x
        if batch and more:
            scatter += more * (x[::size].T @ x[::size])
        winners = slots[:, first : first + step].int()
        winners += firsts[: winners.shape[1]]
        for plane, of_plane in enumerate(grad[:, first : first + step]):
            of_rows, of_weight = through_winners(of_plane, winners[plane], weight, x)
            torch.add(of_rows, target if plane else constant, out=target)
            grad_weight += of_weight
        if batch:
            target.addmm_(x, affine)
        if batch and more:
            target[::size] += more * torch.addmm(constant, x[::size], affine)
    if batch:
        scatter -= count * lack.outer(lack)
        whole = grad.sum((0, 1), dtype=torch.float64) + grad_mean
        grad_weight += (grad_mean.outer(lack) + whole.outer(near.double()) + double @ scatter).to(kind)
    return grad_rows.to(rows.dtype), grad_weight


def through_winners(grad: Tensor, winners: Tensor, weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of g W_d over the channels d that a row won, and of g x over the rows that won a channel: (G, D), (G, D)
    rows below R, (D, C), (R, C) -> (R, C), (D, C)."""
    size = len(x)
    if grad.device.type != "cpu":
        sparse = grad.new_zeros(size, len(weight)).scatter_(0, winners.long(), grad)
        return sparse @ weight, sparse.T @ x
    of_weight = F.embedding_bag(winners.T.contiguous(), x, mode="sum", per_sample_weights=grad.T.contiguous())
    # By winner, so that each is a sum of a few rows of W: the product above is of zeros, but for one in K.
    rows = winners.flatten().numpy()
    order = rows.astype(np.uint16 if size <= 2**16 else np.int32).argsort(kind="stable")
    channels = torch.arange(len(weight)).repeat(len(grad)).index_select(0, torch.from_numpy(order))
    ends = np.bincount(rows, minlength=size).cumsum()
    starts, share = torch.from_numpy(np.append(0, ends[:-1])), grad.flatten().index_select(0, torch.from_numpy(order))
    return F.embedding_bag(channels, weight, starts, mode="sum", per_sample_weights=share), of_weight


def _rows_taken(rows: Tensor, indices: Tensor) -> Tensor:
    """(B, N, C), (B, E) -> (B, E, C)."""
    taken = rows.flatten(0, 1).index_select(0, of_all_clouds(indices, rows.shape[1]))
    return taken.unflatten(0, indices.shape)


def _rows_given(rows: Tensor, indices: Tensor, size: int) -> Tensor:
    """`_rows_taken` transposed: (B, E, C), (B, E) below `size` -> (B, size, C)."""
    if rows.device.type != "cpu":
        given = rows.new_zeros(len(rows) * size, rows.shape[2])
        given.index_add_(0, of_all_clouds(indices, size), rows.flatten(0, 1))
        return given.unflatten(0, (-1, size))
    return torch.stack([rows_summed(*each, size) for each in zip(rows, indices.unsqueeze(2), strict=True)])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, weight, ctx.size, ctx.more, _, ctx.batch, _ = inputs
    ctx.mark_non_differentiable(output[1], *output[4:])
    ctx.save_for_backward(rows, weight, output[1], *output[4:])


def _backward(
    ctx: Any, grad: Tensor, _: Tensor, grad_mean: Tensor, grad_squares: Tensor, *__: Tensor
) -> tuple[Tensor | None, ...]:
    given = (grad, grad_mean, grad_squares, *ctx.saved_tensors, ctx.size, ctx.more, ctx.batch)
    return *torch.ops.pointnet.group_extremes_backward(*given), None, None, None, None, None


def _fake(
    rows: Tensor, weight: Tensor, size: int, more: int, both: bool, batch: bool, learns: bool
) -> tuple[Tensor, ...]:
    values, double = weight.new_empty(1 + both, len(rows) // size, len(weight)), torch.float64
    slots = weight.new_empty(values.shape if learns else (0,), dtype=slot_type(size))
    mean, near = weight.new_empty(len(weight), dtype=double), weight.new_empty(rows.shape[1])
    return values, slots, mean, torch.empty_like(mean), near, torch.empty_like(near, dtype=double)


def _save_indices(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.size = inputs[0].shape[1]
    ctx.save_for_backward(inputs[1])


register(
    "rows_taken(Tensor rows, Tensor indices) -> Tensor",
    _rows_taken, lambda rows, indices: rows.new_empty(*indices.shape, rows.shape[2]),
    lambda ctx, grad: (torch.ops.pointnet.rows_given(grad, *ctx.saved_tensors, ctx.size), None), _save_indices,
)  # fmt: skip
register(
    "rows_given(Tensor rows, Tensor indices, int size) -> Tensor",
    _rows_given, lambda rows, indices, size: rows.new_empty(len(rows), size, rows.shape[2]),
    lambda ctx, grad: (torch.ops.pointnet.rows_taken(grad, *ctx.saved_tensors), None, None), _save_indices,
)  # fmt: skip
register(
    "group_extremes(Tensor rows, Tensor weight, int size, int more, bool both, bool batch, bool learns)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _group_extremes, _fake, _backward, _save,
)  # fmt: skip
register(
    "group_extremes_backward(Tensor grad, Tensor grad_mean, Tensor grad_squares, Tensor rows, Tensor weight,"
    " Tensor slots, Tensor near, Tensor lack, int size, int more, bool batch) -> (Tensor, Tensor)",
    _group_extremes_backward, lambda *given: (torch.empty_like(given[3]), torch.empty_like(given[4])),
    refuse_second, save_nothing,
)  # fmt: skip
