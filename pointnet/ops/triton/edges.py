"""The operators of identity 12: the extremes over neighbours, the moments of all pairs, and their gradients.

A program gathers the rows of a block of centres' neighbours, one slot after the other; no tensor of pairs exists. Sums
are in float64. Gradients are summed by target, in one order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointnet.ops.edges import first_guesses, of_pairs, slot_type
from pointnet.ops.masked import Mask, fill_padding

from .parts import FLOATS, PROGRAMS, padded

BLOCK, MOST_WIDE = 16, 128  # centres or points, and channels, of a program


def fits(b: Tensor, neighbours: Tensor, *more: object) -> bool:
    return b.dtype in FLOATS and neighbours.dtype == torch.int64 and b.numel() > 0 and neighbours.numel() > 0


def by_target(targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Who goes to each target: (B, K) integers below `size` -> their order (B, K) and its starts (B, size + 1), int32.

    Those of target t are order[starts[t] : starts[t + 1]], the lowest first. So what is summed by target is summed in
    one order, without atomics, and repeats bit for bit.
    """
    ordered, order = targets.sort(dim=1, stable=True)
    edges = torch.arange(size + 1, device=targets.device, dtype=targets.dtype).expand(len(targets), -1).contiguous()
    return order.int(), torch.searchsorted(ordered, edges, out_int32=True)


def edge_extremes(
    b: Tensor, neighbours: Tensor, rising: Tensor | None, both: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    (clouds, channels, points), (centres, most) = b.shape, neighbours.shape[1:]
    values = b.new_empty(1 + both, clouds, centres, channels)
    slots = torch.empty(values.shape if learns else (0,), dtype=slot_type(most), device=b.device)
    wide = min(MOST_WIDE, padded(channels))
    _extremes[(clouds * triton.cdiv(centres, BLOCK), triton.cdiv(channels, wide))](
        b.transpose(1, 2).contiguous(), neighbours.contiguous(), rising, values, slots,
        clouds, centres, points, channels, most, both, learns, BLOCK, wide,
    )  # fmt: skip
    return values, slots


@triton.jit(do_not_specialize=["clouds"])  # a 1 would be Python's, which has no dtype
def _extremes(
    rows, neighbours, rising, values, slots, clouds, centres, points, channels, most,
    BOTH: tl.constexpr, LEARNS: tl.constexpr, CENTRES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(centres, CENTRES)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    s = (tl.program_id(0) % blocks) * CENTRES + tl.arange(0, CENTRES)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside, there = s < centres, d < channels
    both = inside[:, None] & there[None, :]
    sign = tl.full((CHANNELS,), 1.0, tl.float32)
    if rising is not None:
        sign = tl.load(rising + d, mask=there, other=1.0).to(tl.float32)
    best = tl.full((CENTRES, CHANNELS), float("-inf"), tl.float32)
    least, at = best, tl.zeros((CENTRES, CHANNELS), tl.int32)
    at_least = at
    for k in range(most):
        j = tl.load(neighbours + (cloud * centres + s) * most + k, mask=inside, other=0)
        v = tl.load(rows + (cloud * points + j)[:, None] * channels + d[None, :], mask=both, other=0.0)
        v = v.to(tl.float32) * sign[None, :]
        better = (best == best) & ~(v <= best)  # NaN too
        best, at = tl.where(better, v, best), tl.where(better, k, at)
        if BOTH:
            better = (least == least) & ~(-v <= least)
            least, at_least = tl.where(better, -v, least), tl.where(better, k, at_least)
    places = (cloud * centres + s)[:, None] * channels + d[None, :]
    tl.store(values + places, (best * sign[None, :]).to(values.dtype.element_ty), mask=both)
    if LEARNS:
        tl.store(slots + places, at.to(slots.dtype.element_ty), mask=both)
    if BOTH:
        places += clouds.to(tl.int64) * centres * channels
        tl.store(values + places, (-least * sign[None, :]).to(values.dtype.element_ty), mask=both)
        if LEARNS:
            tl.store(slots + places, at_least.to(slots.dtype.element_ty), mask=both)


def fits_backward(grad: Tensor, b: Tensor, neighbours: Tensor, slots: Tensor) -> bool:
    return grad.dtype in FLOATS and fits(b, neighbours)


def edge_extremes_backward(grad: Tensor, b: Tensor, neighbours: Tensor, slots: Tensor) -> Tensor:
    (clouds, channels, points), (centres, most) = b.shape, neighbours.shape[1:]
    order, starts = by_target(neighbours.flatten(1), points)
    rows = b.new_empty(clouds, points, channels)
    wide = min(MOST_WIDE, padded(channels))
    _to_points[(clouds * triton.cdiv(points, BLOCK), triton.cdiv(channels, wide))](
        grad.contiguous(), slots, order, starts, rows, clouds, centres, points, channels, most, len(grad), BLOCK, wide
    )
    return rows.transpose(1, 2)


@triton.jit
def _to_points(
    grad, slots, order, starts, rows, clouds, centres, points, channels, most,
    PLANES: tl.constexpr, POINTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Each point's pairs, the lowest first: what it won of their gradients (B, S, D) for each plane; or with no slots
    all of them."""
    blocks = tl.cdiv(points, POINTS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * POINTS + tl.arange(0, POINTS)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists, there = n < points, d < channels
    start = tl.load(starts + cloud * (points + 1) + n, mask=exists, other=0)
    count = tl.load(starts + cloud * (points + 1) + n + 1, mask=exists, other=0) - start
    total = tl.zeros((POINTS, CHANNELS), tl.float32)
    for i in range(tl.max(count, 0)):
        some = i < count
        pair = tl.load(order + cloud * centres * most + start + i, mask=some, other=0)
        both = some[:, None] & there[None, :]
        for plane in tl.static_range(PLANES):
            row = (plane * clouds + cloud) * centres + pair // most
            places = row[:, None] * channels + d[None, :]
            share = tl.load(grad + places, mask=both, other=0.0).to(tl.float32)
            if slots is not None:
                won = tl.load(slots + places, mask=both, other=0).to(tl.int32) == (pair % most)[:, None]
                share = tl.where(won, share, 0.0)
            total += share
    places = (cloud * points + n)[:, None] * channels + d[None, :]
    tl.store(rows + places, total.to(rows.dtype.element_ty), mask=exists[:, None] & there[None, :])


def fits_moments(a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask) -> bool:
    return a.dtype in FLOATS and fits(b, neighbours)


def edge_moments(a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask) -> tuple[Tensor, ...]:
    (clouds, channels, points), (centres, most) = b.shape, neighbours.shape[1:]
    near_a, near_b = first_guesses(a, b, neighbours)
    sums = near_a.new_empty(clouds, centres, channels)
    wide = min(32, padded(channels))
    tiles = clouds * triton.cdiv(centres, BLOCK)
    parts = min(tiles, PROGRAMS)
    lack, squares = near_a.new_empty(2, parts, channels, dtype=torch.float64)
    _moments[(parts, triton.cdiv(channels, wide))](
        a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous(), neighbours.contiguous(),
        None if mask is None else mask.contiguous(), near_a, near_b, sums, lack, squares,
        centres, points, channels, most, tiles, triton.cdiv(tiles, parts), BLOCK, wide,
    )  # fmt: skip
    pairs = most * (sums.new_full((), clouds * centres) if mask is None else mask.sum()).double().clamp(min=1)
    return of_pairs(pairs, lack.sum(0), squares.sum(0), sums, near_a, near_b)


@triton.jit(do_not_specialize=["centres", "points"])
def _moments(
    rows_a, rows_b, neighbours, mask, near_a, near_b, sums, lack, squares,
    centres, points, channels, most, tiles, each, CENTRES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums of a_i + b_j about the guesses: of each centre's pairs, and of a part of the centres, with their squares."""
    blocks = tl.cdiv(centres, CENTRES)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = d < channels
    middle_a = tl.load(near_a + d, mask=there, other=0.0).to(tl.float64)
    middle_b = tl.load(near_b + d, mask=there, other=0.0).to(tl.float64)
    of_all, of_squares = tl.zeros((CHANNELS,), tl.float64), tl.zeros((CHANNELS,), tl.float64)
    first = tl.program_id(0) * each
    for tile in range(first, tl.minimum(first + each, tiles)):
        s = (tile % blocks) * CENTRES + tl.arange(0, CENTRES)
        row = (tile // blocks) * centres.to(tl.int64) + s
        inside = s < centres
        exists = inside
        if mask is not None:
            exists = inside & (tl.load(mask + row, mask=inside, other=0) != 0)
        both = exists[:, None] & there[None, :]
        places = row[:, None] * channels + d[None, :]
        own = tl.load(rows_a + places, mask=both, other=0.0).to(tl.float64) - middle_a[None, :]
        total = tl.zeros((CENTRES, CHANNELS), tl.float64)
        for k in range(most):
            j = (tile // blocks) * points.to(tl.int64) + tl.load(neighbours + row * most + k, mask=exists, other=0)
            other = tl.load(rows_b + j[:, None] * channels + d[None, :], mask=both, other=0.0).to(tl.float64)
            z = tl.where(both, own + (other - middle_b[None, :]), 0.0)
            total += z
            of_squares += tl.sum(z * z, 0)
        of_all += tl.sum(total, 0)
        tl.store(sums + places, total.to(tl.float32), mask=inside[:, None] & there[None, :])
    part = tl.program_id(0).to(tl.int64) * channels
    tl.store(lack + part + d, of_all, mask=there)
    tl.store(squares + part + d, of_squares, mask=there)


def fits_moments_backward(grad_mean: Tensor, grad_squares: Tensor, a: Tensor, b: Tensor, *more: Tensor) -> bool:
    return a.dtype in FLOATS and fits(b, more[0])


def edge_moments_backward(
    grad_mean: Tensor, grad_squares: Tensor, a: Tensor, b: Tensor, neighbours: Tensor, mask: Mask, sums: Tensor,
    near_a: Tensor, near_b: Tensor, lack: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As in the definition; the pairs of each point come from one sorted list."""
    (clouds, channels, points), (centres, most) = b.shape, neighbours.shape[1:]
    # Pairs of a centre that is not there go beyond the last point.
    targets = neighbours if mask is None else neighbours.masked_fill(~mask.transpose(1, 2), points)
    order, starts = by_target(targets.flatten(1), points)
    times = starts.diff(dim=1).unsqueeze(2).to(sums.dtype)
    rows_a = (a.transpose(1, 2) - near_a).contiguous()
    summed = sums.new_empty(clouds, points, channels)
    wide = min(MOST_WIDE, padded(channels))
    _to_points[(clouds * triton.cdiv(points, BLOCK), triton.cdiv(channels, wide))](
        rows_a, None, order, starts, summed, clouds, centres, points, channels, most, 1, BLOCK, wide
    )
    constant = grad_mean / times.sum(dtype=torch.float64).clamp(min=1) - 2 * grad_squares * lack
    constant, double = constant.to(sums.dtype), (2 * grad_squares).to(sums.dtype)
    grad_a = fill_padding(torch.addcmul(most * constant, sums, double).transpose(1, 2), mask)
    rows_b = (b.transpose(1, 2) - near_b).masked_fill(times == 0, 0)
    grad_b = torch.addcmul(times * constant, summed.addcmul_(rows_b, times), double)
    return grad_a.to(a.dtype), grad_b.transpose(1, 2).to(b.dtype)
