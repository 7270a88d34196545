"""linear -> norm -> activation -> max over the K points of each group, without its (B, D, S, K) output (identity 11).

A group is a small cloud, so this is `pooled` once more, for clouds so small that a product's rows are what is fast: the
points of a group are K rows of (B * S * K, C). `groups_definition` says what is computed. A block of z = W x is in the
cache while its extremes, sums and squares are taken, and is gone then. The points that `ball_query` repeats are points
of the group: they count in statistics, and the first of them wins. They need not be there to count: see `bins`.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .edges import first_with, rows_summed, slot_type
from .masked import batch_norm, takes_statistics
from .neighbours import check_clouds, check_indices, gather, of_all_clouds
from .operators import refuse_second, register, save_nothing
from .pooled import FALLING_THEN_RISING, Activation, Norm, is_poolable, of_extremes, signs
from .products import add_map, multiply, no_autocast, rounded, rounding_of, sum_of_outer
from .ranks import check_count, moments_over_ranks
from .rows import Moments, made_of, moments_of_all
from .tracing import makes_a_graph


def grouped(x: Tensor, neighbours: Tensor) -> Tensor:
    """The points of each group: (B, C, N), (B, S, K) -> (B, C, S, K), equal to `gather`, stored as rows.

    That is what `pooled_groups` is fastest on, and its gradient is a sum of rows.

    Raises:
        ValueError: indices of another number of clouds, or (on a CPU) of no point.
    """
    check_clouds(neighbours, x)
    check_indices(neighbours, x.shape[2])
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
        activation: any; fast if it `is_poolable`.
    """
    if makes_a_graph() or not is_poolable(norm, activation):
        return groups_definition(x, weight, bias, norm, activation)
    clouds, channels, centres, most = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).to(weight.dtype)
    parts = [rows]
    if takes_statistics(norm):
        near = rows[:2048].detach().mean(0)  # any guess near the data will do: about it nothing cancels
        parts, shift = [rows, near], weight @ near
        bias = shift if bias is None else bias + shift
    y = pooled_rows([Lot(parts, most, 0)], weight, bias, norm, activation, rounding_of(x))
    return y.unflatten(0, (clouds, centres)).transpose(1, 2)


class Lot(NamedTuple):
    """The points of groups, `size` rows each in turn; the first of each counts `more` times more in statistics.

    They are made of rows x (G * size, C); or of x and `near` (C,), which gets no gradient, as x - near; or of a, b and
    neighbours, as relu(a_i + b_j), or with a `slope` as a LeakyReLU of that; or of z (G * size, C) and mean, gain and
    shift (C,), as relu((z - mean) * gain + shift). What is made is made a block at a time, and again in the backward
    pass.
    """

    parts: Sequence[Tensor]
    size: int
    more: int
    slope: float = 0.0


def pooled_rows(
    lots: Sequence[Lot], weight: Tensor, bias: Tensor | None, norm: Norm, activation: Activation,
    rounding: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """`pooled_groups` for groups of several sizes, lot after lot: -> (G, D) of all groups. Products have factors that
    are rounded."""
    rising, both = signs(weight, norm), type(activation) in FALLING_THEN_RISING
    batch = takes_statistics(norm)
    tensors = (weight, *itertools.chain.from_iterable(lot.parts for lot in lots))
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
    signed = rising.unsqueeze(1) * weight
    given = both, batch, learns, rounding
    found = [torch.ops.pointnet.group_extremes(lot.parts, signed, *lot[1:3], *given, lot.slope) for lot in lots]
    z = (found[0][0] if len(found) == 1 else torch.cat([each[0] for each in found], 1)) * rising

    def of_all_ranks(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor, Tensor]:
        counts = [each[0].shape[1] * (lot.size + lot.more) for each, lot in zip(found, lots, strict=True)]
        mean, squares = moments_of_all(counts, [each[2] for each in found], [each[3] for each in found])
        mean = mean * rising if bias is None else mean * rising + bias
        moments = moments_over_ranks(norm, mean.new_full((), sum(counts)), mean, squares)
        check_count(moments[0], z[:1].transpose(1, 2))
        return moments

    return of_extremes(z if bias is None else z + bias, norm, activation, of_all_ranks)


def _group_extremes(
    parts: Sequence[Tensor], weight: Tensor, size: int, more: int, both: bool, batch: bool, learns: bool,
    rounding: torch.dtype | None, slope: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """-> values (1 or 2, G, D); which point of its group won, the same of small integers; mean and squares (D,) of z in
    float64, and the mean point (C,). Which point won is empty unless it `learns`; moments are 0 unless `batch`."""
    made, out = made_of(parts, size, slope), len(weight)
    values, point = weight.new_empty(1 + both, made.groups, out), weight.new_zeros(made.channels, dtype=torch.float64)
    slots = torch.empty(values.shape if learns else (0,), dtype=slot_type(size), device=weight.device)
    moments = Moments()
    kept = weight.new_empty(len(made.kept), out)
    for some, rows in made.blocks():
        x = made.make(some, rows)
        if batch:
            point += x.sum(0)
        if batch and more:
            point += more * x[::size].sum(0)
        z = multiply(x, weight, rounding, kept[: len(x)])
        if batch:
            moments.add(z)
        if batch and more:
            moments.add(z[::size], more)
        for plane in range(1 + both):
            best, first = _largest((z.neg_() if plane else z).view(-1, size, out), learns)
            values[plane, some] = -best if plane else best
            if first is not None:
                slots[plane, some] = first
    point /= max(made.groups, 1) * (size + more)
    return values, slots, weight.double() @ point, moments.of_all(out, weight.device)[1], point


def _largest(z: Tensor, learns: bool) -> tuple[Tensor, Tensor | None]:
    """The largest value of each channel of each group and, if it `learns`, which row is the first to have it:
    (G, K, D) -> (G, D), (G, D)."""
    if not learns:
        return z.amax(1), None
    if z.device.type != "cpu":
        values = z.amax(1)
        return values, first_with(z, values)
    # As an image of G x K pixels with D channels, whose pooling finds both at once.
    image, (groups, size, _) = z.unsqueeze(0).permute(0, 3, 1, 2), z.shape
    values, pixels = F.max_pool2d(image, (1, size), return_indices=True)
    return values[0, :, :, 0].T, pixels[0, :, :, 0].T - torch.arange(0, groups * size, size).unsqueeze(1)


def _group_extremes_backward(
    grad: Tensor, grad_mean: Tensor, grad_squares: Tensor, parts: Sequence[Tensor], weight: Tensor, slots: Tensor,
    point: Tensor, size: int, more: int, batch: bool, rounding: torch.dtype | None, slope: float,
) -> tuple[list[Tensor], Tensor]:  # fmt: skip
    """Identity 4: the winners' gradient, and an affine map of x for that of the mean, g, and of the squares, h."""
    made, kind = made_of(parts, size, slope), weight.dtype
    single = torch.promote_types(kind, torch.float32)  # sums over all rows are too large for float16
    wide = rounding or single
    made.start()
    count = made.groups * (size + more)
    double = (2 * grad_squares).to(kind).unsqueeze(1) * weight
    affine = weight.T @ double
    constant = (grad_mean @ weight.double() / count - point @ affine.double()).to(kind)
    scatter, grad_weight = point.new_zeros(len(point), len(point)), torch.zeros_like(weight)
    for some, rows in made.blocks():
        x = made.make(some, rows)
        of_rows, of_weight = through_winners(grad[0, some], slots[0, some], weight, x)
        if len(grad) > 1:
            of_others = through_winners(grad[1, some], slots[1, some], weight, x)
            of_rows, of_weight = of_rows + of_others[0], of_weight + of_others[1]
        grad_weight += of_weight
        if batch:
            once = counted = rounded(x, rounding)
            if more:
                counted = once.clone()
                counted[::size] *= 1 + more
                of_rows[::size] += more * constant
            scatter += sum_of_outer(counted.to(wide), once.to(wide))
            add_map(of_rows, counted, affine.T, constant, rounding)
        made.give(some, rows, x, of_rows)
    if batch:
        scatter -= count * point.outer(point)
        of_batch = grad_mean.to(single).outer(point.to(single)) + double.to(single) @ scatter.to(single)
        grad_weight += of_batch.to(kind)
    return made.gradients(), grad_weight


def through_winners(grad: Tensor, slots: Tensor, weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of g W_d over the channels d that a row won, and of g x over the rows that won a channel: (G, D), (G, D)
    rows of their group, (D, C), (G * K, C) -> (G * K, C), (D, C)."""
    (size, _), (groups, out) = x.shape, slots.shape
    winners = slots.int() + torch.arange(0, size, size // groups, dtype=torch.int32, device=x.device).unsqueeze(1)
    if grad.device.type != "cpu":
        sparse = grad.new_zeros(size, out).scatter_(0, winners.long(), grad)
        return sparse @ weight, sparse.T @ x
    of_weight = F.embedding_bag(winners.T.contiguous(), x, mode="sum", per_sample_weights=grad.T.contiguous())
    # By winner, so that each is a sum of a few rows of W: the product above is of zeros, but for one in K. NumPy sorts
    # whole numbers, channels in their lowest bits, much faster than their order.
    bits = np.uint32(out.bit_length())
    channels = slots.numpy().astype(np.uint32) << bits | np.arange(out, dtype=np.uint32)
    channels.sort(1)
    channels &= (np.uint32(1) << bits) - np.uint32(1)
    order = torch.from_numpy(channels.view(np.int32))
    share = grad.gather(1, order.long()).flatten()
    counts = np.bincount(winners.flatten().numpy(), minlength=size)
    starts = torch.from_numpy((counts.cumsum() - counts).astype(np.int32))
    return F.embedding_bag(order.flatten(), weight, starts, mode="sum", per_sample_weights=share), of_weight


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
    parts, weight, ctx.size, ctx.more, _, ctx.batch, _, *ctx.rounding_and_slope = inputs
    ctx.mark_non_differentiable(output[1], output[4])
    ctx.save_for_backward(weight, output[1], output[4], *parts)


def _backward(
    ctx: Any, grad: Tensor, _: Tensor, grad_mean: Tensor, grad_squares: Tensor, __: Tensor
) -> tuple[list[Tensor | None] | Tensor | None, ...]:
    weight, slots, point, *parts = ctx.saved_tensors
    given = grad, grad_mean, grad_squares, parts, weight, slots, point, ctx.size, ctx.more, ctx.batch
    with no_autocast(grad):  # in which whoever calls backward may be
        of_rows, of_weight = torch.ops.pointnet.group_extremes_backward(*given, *ctx.rounding_and_slope)
    return [*of_rows, *[None] * (len(parts) - len(of_rows))], of_weight, *[None] * 7


def _fake(
    parts: Sequence[Tensor], weight: Tensor, size: int, more: int, both: bool, batch: bool, learns: bool, *_: Any
) -> tuple[Tensor, ...]:
    first, double = parts[0], torch.float64
    groups = first.shape[0] * first.shape[1] if len(parts) == 3 else first.shape[0] // size
    values = weight.new_empty(1 + both, groups, len(weight))
    slots = weight.new_empty(values.shape if learns else (0,), dtype=slot_type(size))
    mean = weight.new_empty(len(weight), dtype=double)
    return values, slots, mean, torch.empty_like(mean), mean.new_empty(weight.shape[1])


def _fake_backward(_: Any, __: Any, ___: Any, parts: Sequence[Tensor], weight: Tensor, *given: Any) -> Any:
    learned = parts[: (1, 1, 2, 4)[len(parts) - 1]]
    return [each.new_empty(each.shape) for each in learned], torch.empty_like(weight)


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
    "group_extremes(Tensor[] parts, Tensor weight, int size, int more, bool both, bool batch, bool learns,"
    " ScalarType? rounding, float slope) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _group_extremes, _fake, _backward, _save,
)  # fmt: skip
register(
    "group_extremes_backward(Tensor grad, Tensor grad_mean, Tensor grad_squares, Tensor[] parts, Tensor weight,"
    " Tensor slots, Tensor point, int size, int more, bool batch, ScalarType? rounding, float slope)"
    " -> (Tensor[], Tensor)",
    _group_extremes_backward, _fake_backward, refuse_second, save_nothing,
)  # fmt: skip
