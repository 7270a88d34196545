"""Distances by blocks: the fast twins of the definitions in `neighbours.py`, on a CPU and on any device.

On a CPU a block stays in a core's cache, and NumPy does what PyTorch's operators do slowly there: small steps, finding
what is True, sorting and partitioning short rows. On other devices nothing waits for the device.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .masked import Lengths, Mask, fill_padding, point_mask
from .operators import define
from .products import multiply

# Distances that are computed at a time on a CPU: 1 MiB of float32 stays in a core's cache. A GPU needs more work.
BLOCK = {"cpu": 2**18}
# How many roundings of |q|^2 the squared distance to the K-th nearest of q must be, for products to find it: where it
# is less, points that are farther by a hundredth or more could be taken for nearer.
ROUNDINGS = 2**8
NEAREST_BLOCK = 2**19  # of nearest neighbours: fewer calls of NumPy weigh more than what no longer fits
FARTHEST_BLOCK = 2**15  # points that are sampled from together, for each of which some eight numbers are at hand


def squared_distances(points: Tensor, queries: Tensor) -> Tensor:
    """(B, C, N), (B, C, S) -> (B, S, N): squared differences, summed in the order of the channels."""
    total = (queries[:, 0, :, None] - points[:, 0, None]).square_()
    for channel in range(1, points.shape[1]):
        total += (queries[:, channel, :, None] - points[:, channel, None]).square_()
    return total


def filled(points: Tensor, lengths: Lengths) -> tuple[Tensor, Mask]:
    """The points with 0 where none exists, and where they exist."""
    mask = None if lengths is None else point_mask(lengths, points)
    return fill_padding(points, mask), mask


def padded_by_first(found: Tensor, neighbours: int, size: int) -> Tensor:
    """(B, S, up to K) -> (B, S, K): slots that are missing, or hold `size`, repeat the first; if that does too, 0."""
    first = found[:, :, :1]
    first = first.where(first < size, 0)
    # Not with `size`, which would be a constant of an exported graph.
    found = F.pad(found.where(found < size, -1), (0, neighbours - found.shape[2]), value=-1)
    return found.where(found >= 0, first)


def only_existing(found: Tensor, neighbours: int, points: Tensor, lengths: Lengths) -> Tensor:
    """(B, S, up to K) -> (B, S, K), where slots beyond the number of points repeat the first."""
    found = F.pad(found, (0, neighbours - found.shape[2]))
    sizes = points.new_full((1,), points.shape[2], dtype=torch.int64) if lengths is None else lengths.to(points.device)
    slots = torch.arange(neighbours, device=points.device)
    return found.where(slots < sizes[:, None, None], found[:, :, :1])


def farthest_on_cpu(points: Tensor, count: int, lengths: Lengths, first: Tensor) -> Tensor:
    """In NumPy, whose calls cost a third of PyTorch's and whose argmax is vectorised: a step is eight small calls."""
    clouds, channels, size = points.shape
    if bool(((first < 0) | (first >= (size if lengths is None else lengths))).any()):
        raise ValueError(f"first must be indices of points that exist, got {first.tolist()}")
    taken = np.empty((count, clouds), np.int64)
    step = max(1, FARTHEST_BLOCK // size)
    for start in range(0, clouds, step):
        some = slice(start, start + step)
        present, mask = filled(points[some], None if lengths is None else lengths[some])
        planes = present.transpose(0, 1).contiguous().numpy()
        nearest = np.full(planes.shape[1:], np.inf, planes.dtype)
        if mask is not None:
            nearest[~mask[:, 0].numpy()] = -1
        rows, offsets = planes.reshape(channels, -1), np.arange(len(nearest)) * size
        squares, distance, latest = np.empty_like(planes), np.empty_like(nearest), first[some].numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # as PyTorch does
            for at in range(count):
                taken[at, some] = latest
                np.subtract(planes, rows.take(latest + offsets, 1)[:, :, None], out=squares)
                np.multiply(squares, squares, out=squares)
                summed = squares[0]
                for plane in squares[1:]:
                    summed = np.add(summed, plane, out=distance)
                np.minimum(nearest, summed, out=nearest)
                latest = nearest.argmax(1)
    return torch.from_numpy(taken.T.copy())


def balls(points: Tensor, centres: Tensor, radius: float, neighbours: int, lengths: Lengths) -> Tensor:
    """On any device: the k-th point of a ball is where the count of points inside first reaches k."""
    points, mask = filled(points, lengths)
    limit, size = _square_below(radius, points.dtype), points.shape[2]
    wanted = torch.arange(1, neighbours + 1, dtype=torch.int32, device=points.device)
    found = torch.empty(*centres.shape[::2], neighbours, dtype=torch.int64, device=points.device)
    for clouds, some in _blocks(points, centres.shape[2]):
        inside = squared_distances(points[clouds], centres[clouds, :, some]) < limit
        inside = inside if mask is None else inside & mask[clouds]
        counts = inside.cumsum(2, dtype=torch.int32)
        each = wanted.expand(*counts.shape[:2], -1).contiguous()
        found[clouds, some] = torch.searchsorted(counts, each)
    return padded_by_first(found, neighbours, size)


def balls_on_cpu(points: Tensor, centres: Tensor, radius: float, neighbours: int, lengths: Lengths) -> Tensor:
    points, mask = filled(points, lengths)
    limit, size = _square_below(radius, points.dtype), points.shape[2]
    found = np.empty((*centres.shape[::2], neighbours), np.int64)
    for clouds, some in _blocks(points, centres.shape[2]):
        inside = squared_distances(points[clouds], centres[clouds, :, some]).numpy() < limit
        if mask is not None:
            inside &= mask[clouds].numpy()
        rows = inside.reshape(-1, size)
        places, there = _places_of(rows, neighbours)
        columns = np.where(there, places - np.arange(len(rows))[:, None] * size, size)
        found[clouds, some] = columns.reshape(*inside.shape[:2], -1)
    return padded_by_first(torch.from_numpy(found), neighbours, size)


def _square_below(radius: float, dtype: torch.dtype) -> float:
    """The least number whose root reaches the radius: `root < radius` without a root, to the last bit."""
    wanted = torch.tensor(radius, dtype=dtype, device="cpu").numpy()
    with np.errstate(over="ignore"):
        limit = wanted * wanted
    if np.isinf(limit):
        return float(limit)
    while np.sqrt(limit) < wanted:
        limit = np.nextafter(limit, limit + 1)
    while np.sqrt(np.nextafter(limit, limit * 0)) >= wanted:
        limit = np.nextafter(limit, limit * 0)
    return float(limit)


def _places_of(chosen: np.ndarray, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where each row of (R, N) is True: -> places (R, W) in R * N, in order, and which of them are there.

    W is `most`, or the largest count of a row.
    """
    rows, size = chosen.shape
    flat = _true_places(chosen)
    starts = np.searchsorted(flat, np.arange(rows + 1) * size)
    slots = starts[:-1, None] + np.arange(np.diff(starts).max(initial=1) if most is None else most)
    places = flat.take(slots, mode="clip") if len(flat) else np.zeros_like(slots)
    return places, slots < starts[1:, None]


def _true_places(chosen: np.ndarray) -> np.ndarray:
    """`np.flatnonzero`, faster where few of many are True: words of eight are passed over first."""
    flat = chosen.ravel()
    if flat.size % 8 or np.count_nonzero(flat) > flat.size // 16:
        return np.flatnonzero(flat)
    words = flat.view(np.uint64)
    some = np.flatnonzero(words != 0)
    inside = np.flatnonzero(words.take(some).view(np.bool_))
    return some.take(inside >> 3) * 8 + (inside & 7)


def nearest(points: Tensor, queries: Tensor, neighbours: int, lengths: Lengths) -> Tensor:
    """On any device."""
    table, rows = _factors(points, queries, lengths)
    kept = min(neighbours, points.shape[2])
    found = torch.empty(*queries.shape[::2], kept, dtype=torch.int64, device=points.device)
    for clouds, some in _blocks(points, queries.shape[2]):
        x, y = rows[clouds, some], table[clouds]
        # Into given memory, as autocast leaves such a product as precise as it is.
        distances = torch.bmm(x, y, out=x.new_empty(*x.shape[:2], y.shape[2]))
        found[clouds, some] = torch.ops.pointnet.lowest(distances, kept)
    return only_existing(found, neighbours, points, lengths)


def lowest_definition(values: Tensor, count: int) -> Tensor:
    """The columns of the lowest values of each row, the lowest first, and of equal ones: (..., N) -> (..., count)."""
    if values.dtype != torch.float32:
        return values.sort(dim=-1, stable=True).indices[..., :count].contiguous()
    columns = torch.arange(values.shape[-1], device=values.device)
    keys = (_ordered(values.view(torch.int32)).long() << 32) + columns
    return keys.topk(count, largest=False).values & 0xFFFFFFFF


def nearest_on_cpu(points: Tensor, queries: Tensor, neighbours: int, lengths: Lengths) -> Tensor:
    """No row is sorted, only what may be among its K nearest: all that is as near as the K-th nearest *run* of points.

    The least of each run takes one pass; K of them at least are within the K-th least, and hardly more points than K.
    Queries whose neighbours are so near that the products' rounding would decide get squared differences.
    """
    runs = 2 ** max(5, (3 * neighbours - 1).bit_length())
    size = points.shape[2] if points.shape[2] < 2 * runs else -(-points.shape[2] // runs) * runs
    kept = min(neighbours, points.shape[2])
    found = np.empty((*queries.shape[::2], kept), np.int64)
    step = max(1, min(queries.shape[2], NEAREST_BLOCK // size))
    block = points.new_empty(step, size)
    for cloud in range(len(points)):
        one = slice(cloud, cloud + 1)
        of_one = None if lengths is None else lengths[one]
        table, rows = _factors(points[one], queries[one], of_one, size)
        squares = rows[0, :, :-1].square().sum(1) / 4
        grain = (ROUNDINGS * torch.finfo(rows.dtype).eps * squares - squares).numpy()
        for first in range(0, queries.shape[2], step):
            some = rows[0, first : first + step]
            distances = multiply(some, table[0].T, None, block[: len(some)])
            limits = _limits(distances, runs, kept)
            near = limits[:, 0] < grain[first : first + step]
            if near.any():
                which = torch.from_numpy(near.nonzero()[0])
                exact = squared_distances(points[one], queries[one, :, first + which])
                there = table[:, -1:, : points.shape[2]] < torch.inf
                distances[which, : points.shape[2]] = fill_padding(exact, there, torch.inf)[0]
                limits = _limits(distances, runs, kept)
            found[cloud, first : first + step] = _lowest(distances.numpy(), limits, kept, points.shape[2])
    return only_existing(torch.from_numpy(found), neighbours, points, lengths)


def _limits(distances: Tensor, runs: int, count: int) -> np.ndarray:
    """Of each row (R, N) a number that `count` of its own at least are not above, (R, 1)."""
    least = distances if distances.shape[1] < 2 * runs else distances.unflatten(1, (-1, runs)).amin(1)
    return np.sort(least.numpy(), 1)[:, count - 1, None]  # vectorised, unlike a partition of such short rows


def _factors(points: Tensor, queries: Tensor, lengths: Lengths, size: int = 0) -> tuple[Tensor, Tensor]:
    """Two factors whose product is |y|^2 - 2xy: (B, C + 1, N), (B, S, C + 1), about each cloud's first point.

    What is not there, up to `size` columns, is infinitely far from everything.
    """
    origin = points[:, :, :1]
    table, mask = filled(points - origin, lengths)
    # By rows, so that the sums of equal points are equal wherever they stand.
    squares = table.transpose(1, 2).contiguous().square().sum(2).unsqueeze(1)
    squares = squares if mask is None else squares.masked_fill(~mask, torch.inf)
    missing = max(size - points.shape[2], 0)
    table = torch.cat([F.pad(table, (0, missing)), F.pad(squares, (0, missing), value=torch.inf)], 1)
    return table, F.pad(-2 * (queries - origin).transpose(1, 2), (0, 1), value=1.0)


def _lowest(values: np.ndarray, limits: np.ndarray, count: int, size: int) -> np.ndarray:
    """The columns of the lowest values of each row of (R, N), none of them above its limit: -> (R, count), below
    `size`."""
    places, there = _places_of(values <= limits)
    if there.shape[1] < count or not there[:, count - 1].all():  # what is not a number is above every limit
        return values[:, :size].argsort(1, kind="stable")[:, :count]
    chosen = np.where(there, values.ravel().take(places), np.inf).astype(values.dtype, copy=False)
    if values.dtype == np.float32:
        keys = (_ordered(chosen.view(np.int32)).astype(np.int64) << 32) + places
        keys.sort(1)
        places = keys[:, :count] & 0xFFFFFFFF
    else:
        places = np.take_along_axis(places, chosen.argsort(1, kind="stable")[:, :count], 1)
    return places - np.arange(len(values))[:, None] * values.shape[1]


def _ordered(bits: Any) -> Any:
    """The bits of float32 numbers, as int32 that are ordered as the numbers are."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _blocks(points: Tensor, queries: int) -> list[tuple[slice, slice]]:
    """Clouds and queries whose distances to the points (B, C, N) fill a block."""
    most = max(1, BLOCK.get(points.device.type, 2**24) // points.shape[2])
    step = max(1, most // max(queries, 1))
    return [
        (slice(cloud, cloud + step), slice(first, first + most))
        for cloud in range(0, points.shape[0], step)
        for first in range(0, queries, most)
    ]


define(
    "lowest(Tensor values, int count) -> Tensor", lowest_definition,
    lambda values, count: values.new_empty(*values.shape[:-1], count, dtype=torch.int64),
)  # fmt: skip
