"""max over neighbours of activation(norm(a_i + b_j)): a one-layer edge map without a tensor of pairs (identity 12).

`edges_definition` says what is computed. Norm and activation can wait until after the max (identity 2) and a_i is the
same for all pairs of a centre, so `edge_extremes` is all that is left of the pairs: for each centre and channel the
largest (or smallest) b_j, and the neighbour that has it. Batch norm's statistics of the pairs come from the sums of the
neighbours' b: `edge_moments`. What lies between them and the result is (B, S, D) and plain PyTorch.

An EdgeConv of DGCNN, W [x_i; x_j - x_i], has a = (W1 - W2) x and b = W2 x. For relative coordinates,
W [p_j - c_i; f_j], a_i = -W_p c_i and b_j = W_p p_j + W_f f_j. Far from the origin both lose digits: centre first.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .masked import Mask, batch_norm, fill_padding
from .neighbours import check_indices, gather, of_all_clouds
from .operators import refuse_second, register, save_nothing
from .pooled import FALLING_THEN_RISING, Activation, Norm, is_poolable, of_extremes, signs
from .ranks import check_count, moments_over_ranks
from .tracing import makes_a_graph

# Numbers of a block of centres on a CPU: a few such blocks stay in a core's cache.
BLOCK = 2**17


def edges_definition(
    a: Tensor, b: Tensor, neighbours: Tensor, norm: Norm, activation: Activation, mask: Mask = None
) -> Tensor:
    """max_k activation(norm(a_i + b_j)), j = neighbours[i, k]: (B, D, S), (B, D, N), (B, S, K) -> (B, D, S).

    Where `mask` (B, 1, S) is False there is no centre: its pairs do not count, and the result is 0.
    """
    pairs = None if mask is None else mask.repeat_interleave(neighbours.shape[2], 2)
    z = fill_padding((a.unsqueeze(3) + gather(b, neighbours)).flatten(2), pairs)
    if norm is not None:
        z = batch_norm(z, norm, pairs)
    y = z if activation is None else activation(z)
    return fill_padding(y.unflatten(2, neighbours.shape[1:]).max(3).values, mask)


def pooled_edges(
    a: Tensor, b: Tensor, neighbours: Tensor, norm: Norm, activation: Activation, mask: Mask = None
) -> Tensor:
    """`edges_definition` by identity 12: equal in value, running statistics and, where the winner is unique, gradient;
    on ties the first of the neighbours wins.

    Args:
        a, b: (B, D, S) of the centres and (B, D, N) of the points; fastest where stored as rows, (B, S, D) transposed.
        neighbours: (B, S, K) indices of points, as `knn` and `ball_query` give them.
        norm: batch norm of all pairs, in training, eval or frozen; or None.
        activation: any; fast if it `is_poolable`.
        mask: (B, 1, S), where a centre exists; what lies elsewhere may be anything.

    Raises:
        ValueError: other shapes, or an index that is of no point (on a CPU).
    """
    _check_shapes(a, b, neighbours, mask)
    check_indices(neighbours, b.shape[2])
    if makes_a_graph() or not neighbours.numel() or not is_poolable(norm, activation):
        return edges_definition(a, b, neighbours, norm, activation, mask)
    single = torch.promote_types(a.dtype, torch.float32)
    a, b = fill_padding(a, mask).to(single), b.to(single)
    both = type(activation) in FALLING_THEN_RISING
    ends = edge_extremes(b, neighbours, both, None if norm is None else signs(a[0], norm))
    z = a.transpose(1, 2) + (ends if mask is None else ends.masked_fill(~mask.transpose(1, 2), 0))
    y = of_extremes(z, norm, activation, partial(_statistics, a, b, neighbours, mask))
    return fill_padding(y.transpose(1, 2), mask)


def _check_shapes(a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask) -> None:
    if makes_a_graph():
        return
    shapes = [tuple(each.shape) for each in (a, b, neighbours)]
    fit = [len(shape) for shape in shapes] == [3, 3, 3]
    if not (fit and shapes[0][:2] == shapes[1][:2] and shapes[2][:2] == shapes[0][::2]):
        raise ValueError(f"a, b, neighbours must be (B, D, S), (B, D, N), (B, S, K), got {shapes}")
    if mask is not None and mask.shape != (wanted := (len(a), 1, a.shape[2])):
        raise ValueError(f"mask must be {wanted}, got {tuple(mask.shape)}")


def _statistics(
    a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask, norm: nn.BatchNorm1d
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and squares about it of all pairs, over all ranks."""
    full = a.new_full((), neighbours.numel(), dtype=torch.float64)
    count = full if mask is None else mask.sum().double() * neighbours.shape[2]
    mean, squares = edge_moments(a, b, neighbours, mask)
    count, mean, squares = moments_over_ranks(norm, count, mean, squares)
    check_count(count, neighbours.reshape(1, 1, -1))
    return count, mean, squares


def edge_extremes(b: Tensor, neighbours: Tensor, both: bool = False, rising: Tensor | None = None) -> Tensor:
    """The largest b_j over the neighbours of each centre: (B, D, N), (B, S, K) -> (1, B, S, D).

    With `both`, the smallest too: (2, B, S, D). Where `rising` (D,) is -1 and not 1, the smallest comes first. On ties
    the first of the neighbours wins.
    """
    learns = torch.is_grad_enabled() and b.requires_grad
    return torch.ops.pointnet.edge_extremes(b, neighbours, rising, both, learns)[0]


def edge_moments(a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask = None) -> tuple[Tensor, Tensor]:
    """Mean (D,) and sum of squares about it (D,) of a_i + b_j over all pairs, in float64."""
    return torch.ops.pointnet.edge_moments(a, b, neighbours, mask)[:2]


def _edge_extremes(
    b: Tensor, neighbours: Tensor, rising: Tensor | None, both: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    """-> values (1 or 2, B, S, D), and which of the K neighbours won, the same of small integers, if it `learns`."""
    (clouds, channels, points), (centres, most) = b.shape, neighbours.shape[1:]
    values = b.new_empty(1 + both, clouds, centres, channels)
    slots = torch.zeros(values.shape if learns else (0,), dtype=slot_type(most), device=b.device)
    rows = (b if rising is None else b * rising.unsqueeze(1)).transpose(1, 2).reshape(-1, channels)
    indices = of_all_clouds(neighbours, points)
    ends, won = values.flatten(1, 2), slots.view(-1, clouds * centres, channels) if learns else None
    if b.device.type == "cpu":
        _extremes_by_slot(rows, indices, ends, won)
    else:
        step = max(1, 2**26 // (most * channels))
        for first in range(0, len(indices), step):
            some = slice(first, first + step)
            gathered = rows.index_select(0, indices[some].flatten()).view(-1, most, channels)
            for plane in range(1 + both):
                ends[plane, some] = gathered.amin(1) if plane else gathered.amax(1)
                if won is not None:
                    won[plane, some] = first_with(gathered, ends[plane, some])
    return values if rising is None else values.mul_(rising), slots


def _extremes_by_slot(rows: Tensor, indices: Tensor, ends: Tensor, won: Tensor | None) -> None:
    """Writes the largest, and with two planes the smallest, of the rows (R, D) at indices (P, K) to ends (1 or 2, P, D)
    and the first slot that has it to `won`, which is 0.

    A block of centres sees one neighbour after the other. NumPy compares several times as fast as PyTorch, and numbers
    of a byte are fast; slots rise, so the last that was better is the largest.
    """
    # Of rows that are a part of wider ones, NumPy would copy all before each `take`.
    table, of_slots, best = rows.contiguous().numpy(), indices.T.contiguous().numpy(), ends.numpy()
    slots = None if won is None else won.numpy()
    step = max(1, BLOCK // table.shape[1])
    kept, kept_better = np.empty((step, table.shape[1]), table.dtype), np.empty((step, table.shape[1]), np.bool_)
    for first in range(0, of_slots.shape[1], step):
        some = slice(first, first + step)
        table.take(of_slots[0, some], 0, best[0, some], "clip")
        best[1:, some] = best[0, some]
        for slot, taken in enumerate(of_slots[1:, some], 1):
            row, better = kept[: len(taken)], kept_better[: len(taken)]
            table.take(taken, 0, row, "clip")
            for plane, end in enumerate(best[:, some]):
                if slots is not None:
                    (np.less if plane else np.greater)(row, end, out=better)
                    of_better = better.view(np.uint8).astype(slots.dtype, copy=False)
                    of_better *= slots.dtype.type(slot)
                    np.maximum(slots[plane, some], of_better, out=slots[plane, some])
                (np.minimum if plane else np.maximum)(row, end, out=end)


def slot_type(most: int) -> torch.dtype:
    """The smallest integers that number K things."""
    return torch.uint8 if most < 256 else torch.int16


def first_with(gathered: Tensor, values: Tensor) -> Tensor:
    """Which of the K rows is the first to have the value: (R, K, D), (R, D) -> (R, D) of small integers."""
    most, kind = gathered.shape[1], slot_type(gathered.shape[1])
    ranks = torch.arange(most, 0, -1, dtype=kind, device=gathered.device).unsqueeze(1)
    return (most - ((gathered == values.unsqueeze(1)) * ranks).amax(1)).clamp_(max=most - 1)


def _edge_extremes_backward(grad: Tensor, b: Tensor, neighbours: Tensor, slots: Tensor) -> Tensor:
    """-> the gradient of b (B, D, N), stored as rows: S * D numbers of each plane go to their winners."""
    clouds, channels, points = b.shape
    total = b.new_zeros(clouds * points * channels)
    places = of_all_clouds(neighbours, points).mul_(channels)  # where rows begin
    for plane, won in zip(grad, slots, strict=True):
        winners = places.gather(1, won.view(-1, channels).long())
        winners += torch.arange(channels, device=b.device)
        total.scatter_add_(0, winners.flatten(), plane.reshape(-1))
    return total.view(clouds, points, channels).transpose(1, 2)


def _edge_moments(a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask) -> tuple[Tensor, ...]:
    """-> mean and squares (D,) in float64; for the backward pass the sums (B, S, D) of each centre's pairs, about
    guesses of both means (D,), these guesses, and what they lack together (D,)."""
    single, most = torch.promote_types(a.dtype, torch.float32), neighbours.shape[2]
    times = _times(b, neighbours, mask, single)
    pairs = times.sum(dtype=torch.float64).clamp(min=1)
    near_a, near_b = first_guesses(a, b, neighbours)
    sums = near_a.new_empty(*neighbours.shape[:2], a.shape[1])
    lack, squares = near_a.new_zeros(2, len(near_a), dtype=torch.float64)
    for cloud in range(len(a)):  # while it is in the cache, and no more than a cloud in float64
        weights, rows_b = times[cloud, 0].double(), _centred(b[cloud], near_b, times[cloud] > 0)
        x = _centred(a[cloud], near_a, None if mask is None else mask[cloud]).double()
        y, summed = rows_b.double(), _sums(rows_b, neighbours[cloud])
        summed = summed if mask is None else summed.masked_fill_(~mask[cloud].T, 0)
        summed += most * x
        sums[cloud] = summed
        lack += summed.sum(0)
        squares += (x * (summed.mul_(2) - most * x)).sum(0) + weights @ y.square()
    return of_pairs(pairs, lack, squares, sums, near_a, near_b)


def first_guesses(a: Tensor, b: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (D,) near the means of a and b: any will do. The first centre of a cloud exists, and its neighbours
    do."""
    single = torch.promote_types(a.dtype, torch.float32)
    return a[:, :, 0].mean(0, dtype=single), gather(b, neighbours[:, 0]).mean((0, 2), dtype=single)


def of_pairs(
    pairs: Tensor, lack: Tensor, squares: Tensor, sums: Tensor, near_a: Tensor, near_b: Tensor
) -> tuple[Tensor, ...]:
    """The results of the operator `edge_moments`, from the number of pairs, and the sums of a_i + b_j and of its
    square, both about the guesses."""
    lack = lack / pairs
    squares = (squares - pairs * lack.square()).clamp(min=0)
    return near_a.double() + near_b.double() + lack, squares, sums, near_a, near_b, lack


def _times(b: Tensor, neighbours: Tensor, mask: Mask, dtype: torch.dtype) -> Tensor:
    """How often each point is a neighbour of a centre that exists, (B, 1, N)."""
    one = torch.ones((), dtype=dtype, device=b.device)
    there = one.expand(neighbours.shape) if mask is None else mask.transpose(1, 2).to(dtype).expand(neighbours.shape)
    counts = one.new_zeros(b.shape[0], b.shape[2]).scatter_add_(1, neighbours.flatten(1), there.flatten(1))
    return counts.unsqueeze(1)


def _centred(x: Tensor, near: Tensor, mask: Mask) -> Tensor:
    """Rows (N, D) of x - near for x (D, N), 0 where the mask (1, N) is False."""
    rows = x.T.contiguous() - near  # two fast passes in place of one that strides
    return rows if mask is None else rows.masked_fill_(~mask.T, 0)


def _sums(rows: Tensor, neighbours: Tensor) -> Tensor:
    """The sum of each centre's neighbours, (N, D), (S, K) -> (S, D) in float64.

    In float32 its rounding would be a large part of pairs whose halves cancel. So the rows are split: their upper 17
    bits add up without rounding for any K up to 128, and of the rest rounding is nothing.
    """
    if rows.dtype == torch.float64:
        return F.embedding_bag(neighbours, rows, mode="sum")
    grain = torch.exp2(torch.floor(torch.log2(rows.abs().amax().clamp(min=1e-30))) - 16)
    upper = (rows / grain).round_() * grain
    sums = [F.embedding_bag(neighbours, part, mode="sum").double() for part in (upper, rows - upper)]
    return sums[0] + sums[1]


def rows_summed(rows: Tensor, targets: Tensor, size: int) -> Tensor:
    """Each row added to its K targets: (S, D), (S, K) indices below `size` -> (size, D)."""
    most, flat = targets.shape[1], targets.flatten()
    if rows.device.type != "cpu":
        return rows.new_zeros(size, rows.shape[1]).index_add_(0, flat, rows.repeat_interleave(most, 0))
    # By target, each a sum of rows with nothing written in between; NumPy sorts 16 bits by their digits.
    order = flat.numpy().astype(np.uint16 if size <= 2**16 else np.int64).argsort(kind="stable")
    ends = np.bincount(flat.numpy(), minlength=size).cumsum()
    starts = torch.from_numpy(np.append(0, ends[:-1]))
    return F.embedding_bag(torch.from_numpy(order // most), rows, starts, mode="sum")


def _edge_moments_backward(
    grad_mean: Tensor, grad_squares: Tensor, a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask, sums: Tensor,
    near_a: Tensor, near_b: Tensor, lack: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Of each pair the gradient is g / M + 2 h (z - mean), for the gradients g of the mean and h of the squares:
    distances from the mean sum to 0, so no other term is left."""
    most, single = neighbours.shape[2], sums.dtype
    times = _times(b, neighbours, mask, single)
    constant = grad_mean / times.sum(dtype=torch.float64).clamp(min=1) - 2 * grad_squares * lack
    constant, double = constant.to(single), (2 * grad_squares).to(single)
    grad_a = torch.addcmul(most * constant, sums, double)
    grad_a = fill_padding(grad_a.transpose(1, 2), mask)
    grad_b = sums.new_empty(len(b), b.shape[2], b.shape[1])
    for cloud in range(len(a)):
        weights = times[cloud].T
        rows_a = _centred(a[cloud], near_a, None if mask is None else mask[cloud])
        summed = rows_summed(rows_a, neighbours[cloud], b.shape[2])
        summed.addcmul_(_centred(b[cloud], near_b, times[cloud] > 0), weights)
        torch.addcmul(weights * constant, summed, double, out=grad_b[cloud])
    return grad_a.to(a.dtype), grad_b.transpose(1, 2).to(b.dtype)


def _save_moments(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*inputs, *output[2:])


def _fake_edge_extremes(
    b: Tensor, neighbours: Tensor, rising: Tensor | None, both: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    values = b.new_empty(1 + both, b.shape[0], neighbours.shape[1], b.shape[1])
    kind = slot_type(neighbours.shape[2])
    return values, torch.empty_like(values, dtype=kind) if learns else values.new_empty(0, dtype=kind)


def _fake_edge_moments(a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask) -> tuple[Tensor, ...]:
    single, channels = torch.promote_types(a.dtype, torch.float32), a.shape[1]
    double, sums = torch.float64, a.new_empty(*neighbours.shape[:2], channels, dtype=single)
    return (*(a.new_empty(channels, dtype=kind) for kind in (double, double)), sums,
            *(a.new_empty(channels, dtype=kind) for kind in (single, single, double)))  # fmt: skip


register(
    "edge_extremes(Tensor b, Tensor neighbours, Tensor? rising, bool both, bool learns) -> (Tensor, Tensor)",
    _edge_extremes, _fake_edge_extremes,
    lambda ctx, grad, _: (torch.ops.pointnet.edge_extremes_backward(grad, *ctx.saved_tensors), *[None] * 4),
    lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2], output[1]),
)  # fmt: skip
register(
    "edge_extremes_backward(Tensor grad, Tensor b, Tensor neighbours, Tensor slots) -> Tensor", _edge_extremes_backward,
    lambda grad, b, neighbours, slots: torch.empty_like(b), refuse_second, save_nothing,
)  # fmt: skip
register(
    "edge_moments(Tensor a, Tensor b, Tensor neighbours, Tensor? mask)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _edge_moments, _fake_edge_moments,
    lambda ctx, *grads: (*torch.ops.pointnet.edge_moments_backward(*grads[:2], *ctx.saved_tensors), None, None),
    _save_moments,
)  # fmt: skip
register(
    "edge_moments_backward(Tensor grad_mean, Tensor grad_squares, Tensor a, Tensor b, Tensor neighbours, Tensor? mask,"
    " Tensor sums, Tensor near_a, Tensor near_b, Tensor lack) -> (Tensor, Tensor)",
    _edge_moments_backward, lambda _, __, a, b, *more: (torch.empty_like(a), torch.empty_like(b)),
    refuse_second, save_nothing,
)  # fmt: skip
