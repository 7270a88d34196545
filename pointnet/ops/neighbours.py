"""Which points: farthest point sampling, balls, nearest neighbours, and interpolation from the nearest.

Each is its definition first. The fast twins give the same indices: on a CPU a block of distances stays in the cache,
and nothing of (B, S, N) is sorted; on a GPU nothing waits for the device. A traced or exported graph holds the
definitions, since they are standard operators. On ties the lowest index comes first.

What decides at the rim. Sampling and balls take squared differences, summed channel by channel, as the code released
with PointNet++ does; a ball is what lies *nearer* than its radius. (Many PyTorch ports take |x|^2 - 2xy + |y|^2 and
include the rim.) Nearest neighbours are found by |y|^2 - 2xy about the cloud's first point, one matrix product, as
DGCNN's released code does about the origin: points whose distances differ by less than the rounding of that product
may change places. On a CPU these differ by a hundredth at most: queries whose neighbours are nearer than that rounding
allows, as in a scan of a street or beside a stray first point, get squared differences. Not so on a GPU, where they
would be waited for, and in an exported graph, where a difference per channel would be thousands of operators: there
the first point should not be far from the others. Where points are not numbers, neighbours are any of the padded cloud.
Indices carry no gradient.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .blocked import (
    balls,
    balls_on_cpu,
    farthest_on_cpu,
    filled,
    nearest,
    nearest_on_cpu,
    only_existing,
    padded_by_first,
    squared_distances,
)  # fmt: skip
from .masked import Lengths, check_tensor, fill_padding, point_mask
from .operators import OPERATORS, define, refuse_second
from .tracing import is_transformed, makes_a_graph

First = Tensor | int | None


def gather(x: Tensor, indices: Tensor) -> Tensor:
    """The points at some indices: (B, C, N), (B, S) or (B, S, K) -> (B, C, S) or (B, C, S, K). ValueError for indices
    of another number of clouds."""
    check_clouds(indices, x)
    taken = x.gather(2, indices.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1))
    return taken.unflatten(2, indices.shape[1:])


def of_all_clouds(indices: Tensor, size: int) -> Tensor:
    """Indices (B, S, ...) of points of each cloud, as those among B * size points in turn: (B * S, ...)."""
    firsts = torch.arange(0, len(indices) * size, size, device=indices.device)
    return (indices + firsts.view(-1, *[1] * (indices.dim() - 1))).flatten(0, 1)


def check_clouds(indices: Tensor, x: Tensor) -> None:
    """ValueError unless indices (B, ...) are of as many clouds as x (B, C, N) has."""
    if not makes_a_graph() and len(indices) != len(x):
        raise ValueError(f"indices must be of {len(x)} clouds, as the points are, got {tuple(indices.shape)}")


def check_indices(indices: Tensor, size: int) -> None:
    """ValueError for indices that are of none of so many points, on a CPU; elsewhere they would be waited for."""
    if indices.device.type != "cpu" or not indices.numel() or torch.compiler.is_compiling() or makes_a_graph():
        return
    low, high = indices.aminmax()
    if low < 0 or high >= size:
        raise ValueError(f"indices must be of {size} points, from 0 to {size - 1}, got {int(low)} to {int(high)}")


def farthest_point_sampling(points: Tensor, count: int, lengths: Lengths = None, first: First = None) -> Tensor:
    """The points that are each the farthest from those before it: (B, C, N) -> (B, S) indices.

    PointNet++, section 3.2 and its released code. Where a cloud has fewer different points than `count`, all distances
    are 0 in the end and index 0 repeats, as there.

    Args:
        points: (B, C, N).
        count: S.
        lengths: (B,) integers; only the first lengths[b] points of cloud b exist, and only they are taken.
        first: where to begin, an index for all clouds or (B,) of them; None: 0.

    Raises:
        ValueError: a wrong shape, a count below 1, or a first index that is not there (on a GPU only that of an int).
    """
    points, lengths = _checked(points, lengths, count=count)
    clouds, _, size = points.shape
    if first is None or isinstance(first, int):
        if not 0 <= (first or 0) < size:
            raise ValueError(f"first must be an index below {size}, the number of points, got {first}")
        first = torch.full((clouds,), first or 0, dtype=torch.int64, device=points.device)
    if first.shape != (clouds,) or first.dtype != torch.int64:
        raise ValueError(f"first must be ({clouds},) int64, one per cloud, got {tuple(first.shape)} {first.dtype}")
    fast = torch.ops.pointnet.farthest_point_sampling
    return (farthest_definition if makes_a_graph() else fast)(points, count, lengths, first)


def farthest_definition(points: Tensor, count: int, lengths: Lengths, first: Tensor) -> Tensor:
    points, mask = filled(points, lengths)
    nearest = torch.full_like(points[:, 0], torch.inf)  # the squared distance to the nearest point taken so far
    nearest = nearest if mask is None else nearest.masked_fill(~mask[:, 0], -1)
    taken = [first]
    for _ in range(count - 1):
        distances = squared_distances(points, gather(points, taken[-1].unsqueeze(1)))
        nearest = torch.minimum(nearest, distances[:, 0])
        taken.append(nearest.argmax(1))
    return torch.stack(taken, 1)


def ball_query(points: Tensor, centres: Tensor, radius: float, neighbours: int, lengths: Lengths = None) -> Tensor:
    """The first K points, in the order of their indices, nearer than `radius` to each centre: -> (B, S, K) indices.

    PointNet++, section 3.2 and its released code: where fewer are, the first of them repeats. Where none is, which no
    centre meets that is a point itself, all are index 0.

    Args:
        points: (B, C, N).
        centres: (B, C, S).
        radius: above 0.
        neighbours: K.
        lengths: (B,) integers; only the first lengths[b] points of cloud b exist, and only they are found.

    Raises:
        ValueError: a wrong shape, or a radius or number that is not positive.
    """
    points, lengths = _checked(points, lengths, neighbours=neighbours)
    centres = _checked_queries(points, centres, "centres")
    if not radius > 0:
        raise ValueError(f"radius must be above 0, got {radius}")
    fast = torch.ops.pointnet.ball_query
    return (ball_definition if makes_a_graph() else fast)(points, centres, radius, neighbours, lengths)


def ball_definition(points: Tensor, centres: Tensor, radius: float, neighbours: int, lengths: Lengths) -> Tensor:
    points, mask = filled(points, lengths)
    size = points.shape[2]
    inside = squared_distances(points, centres).sqrt() < radius
    inside = inside if mask is None else inside & mask
    indices = torch.arange(size, device=points.device).where(inside, size)
    return padded_by_first(indices.sort(2).values[:, :, :neighbours], neighbours, size)


def knn(points: Tensor, neighbours: int, queries: Tensor | None = None, lengths: Lengths = None) -> Tensor:
    """The K points nearest to each query, the nearest first: (B, C, N), (B, C, S) -> (B, S, K) indices.

    Where a cloud has fewer than K points, the nearest repeats (DGCNN's released code, section 3.1 of the paper, fails
    there). A query that is a point itself is its own nearest, but for rounding (see above).

    Args:
        points: (B, C, N), of any number of channels.
        neighbours: K.
        queries: (B, C, S); None: the points.
        lengths: (B,) integers; only the first lengths[b] points of cloud b exist, and only they are found. Queries
            that are padding find points that exist.

    Raises:
        ValueError: a wrong shape, or a number of neighbours below 1.
    """
    own = queries is None
    points, lengths = _checked(points, lengths, neighbours=neighbours)
    if own and lengths is not None:
        points = fill_padding(points, point_mask(lengths, points))
    queries = points if queries is None else _checked_queries(points, queries, "queries")
    fast = torch.ops.pointnet.knn
    return (knn_definition if makes_a_graph() else fast)(points, queries, neighbours, lengths)


def knn_definition(points: Tensor, queries: Tensor, neighbours: int, lengths: Lengths) -> Tensor:
    exporting, origin = torch.compiler.is_exporting(), points[:, :, :1]
    points, mask = filled(points - origin if exporting else points, lengths)
    if exporting:
        products = (queries - origin).transpose(1, 2) @ points
        distances = points.square().sum(1, keepdim=True) - 2 * products
    else:
        distances = squared_distances(points, queries)
    distances = distances if mask is None else distances.masked_fill(~mask, torch.inf)
    if exporting:  # ONNX knows no stable sort, and its TopK gives ties the lowest index first
        order = distances.topk(neighbours, 2, largest=False).indices  # of a cloud with as many points
    else:
        order = distances.sort(dim=2, stable=True).indices[:, :, :neighbours]
    return only_existing(order, neighbours, points, lengths)


def interpolate(features: Tensor, points: Tensor, queries: Tensor, lengths: Lengths = None) -> Tensor:
    """Features at the queries, from the three nearest points, by 1 / squared distance: -> (B, D, S).

    PointNet++, section 3.4 and its released code: squared distances of at least 1e-10, weights that sum to 1. Where a
    cloud has fewer than three points, those it has. The gradient is that of the features alone, as there.

    Args:
        features: (B, D, N), of the points.
        points: (B, C, N).
        queries: (B, C, S).
        lengths: (B,) integers; only the first lengths[b] points of cloud b exist.

    Raises:
        ValueError: a wrong shape.
    """
    if is_transformed():
        return interpolate_definition(features, points, queries, lengths)
    table, index, weights = _interpolation(features, points, queries, lengths)
    if table.requires_grad and not makes_a_graph():
        table = _OnceOnly.apply(table)
    index = index + torch.arange(index.shape[0], device=index.device)[:, None, None] * features.shape[2]
    rows = F.embedding_bag(
        index.flatten(0, 1), table.transpose(1, 2).flatten(0, 1), mode="sum", per_sample_weights=weights.flatten(0, 1)
    )
    return rows.unflatten(0, index.shape[:2]).transpose(1, 2)


def interpolate_definition(features: Tensor, points: Tensor, queries: Tensor, lengths: Lengths = None) -> Tensor:
    table, index, weights = _interpolation(features, points, queries, lengths)
    return (gather(table, index) * weights.unsqueeze(1)).sum(3)


class _OnceOnly(torch.autograd.Function):
    """Its input, whose gradient has no gradient: `embedding_bag` has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Refused.apply(grad)


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    backward = staticmethod(refuse_second)


def _interpolation(
    features: Tensor, points: Tensor, queries: Tensor, lengths: Lengths
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, indices (B, S, 3) and weights (B, S, 3) of an interpolation."""
    if features.dim() != 3 or features.shape[::2] != points.shape[::2]:
        wanted = f"({points.shape[0]}, D, {points.shape[-1]}), one column per point"
        raise ValueError(f"features must be {wanted}, got {tuple(features.shape)}")
    index = knn(points, min(3, points.shape[2]), queries, lengths)
    single = torch.promote_types(points.dtype, torch.float32)  # half precision has no 1e-10
    near, centres = gather(points.detach(), index).to(single), queries.detach().to(single)
    squares = (near - centres.unsqueeze(3)).square().sum(1)
    weights = 1 / squares.clamp(min=1e-10)
    if lengths is not None:
        slots = torch.arange(index.shape[2], device=index.device)
        weights = weights * (slots < lengths.to(index.device).long()[:, None, None])
        features = fill_padding(features, point_mask(lengths, features))
    return features, index, (weights / weights.sum(2, keepdim=True)).to(features.dtype)


def _checked(points: Tensor, lengths: Lengths, **counts: int) -> tuple[Tensor, Lengths]:
    """Points without gradient, of at least single precision, and lengths on their device; ValueError for others, and
    TypeError for what is no tensor or no whole number."""
    check_tensor("points", points)
    if points.dim() != 3 or 0 in points.shape[1:] or not points.is_floating_point():
        raise ValueError(f"points must be (B, C, N) numbers with N >= 1, got {tuple(points.shape)} {points.dtype}")
    for name, count in counts.items():
        # In a trace (`torch.jit.trace`) a number of points is a tensor.
        if not isinstance(count, int | np.integer | torch.SymInt | Tensor):
            raise TypeError(f"{name} must be a whole number, got {count!r}")
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if lengths is not None:
        point_mask(lengths, points)
    single = torch.promote_types(points.dtype, torch.float32)
    return points.detach().to(single), None if lengths is None else lengths.to(points.device).long()


def _checked_queries(points: Tensor, queries: Tensor, name: str) -> Tensor:
    if queries.dim() != 3 or queries.shape[:2] != points.shape[:2]:
        wanted = f"({points.shape[0]}, {points.shape[1]}, S) as the points are"
        raise ValueError(f"{name} must be {wanted}, got {tuple(queries.shape)}")
    return queries.detach().to(points.dtype)


def _indices(points: Tensor, *shape: int) -> Tensor:
    return points.new_empty((points.shape[0], *shape), dtype=torch.int64)


for schema, on_cpu, anywhere, shapes in (
    ("farthest_point_sampling(Tensor points, int count, Tensor? lengths, Tensor first) -> Tensor",
     farthest_on_cpu, farthest_definition,
     lambda points, count, *_: _indices(points, count)),
    ("ball_query(Tensor points, Tensor centres, float radius, int neighbours, Tensor? lengths) -> Tensor",
     balls_on_cpu, balls, lambda points, centres, _, neighbours, *__: _indices(points, centres.shape[2], neighbours)),
    ("knn(Tensor points, Tensor queries, int neighbours, Tensor? lengths) -> Tensor", nearest_on_cpu, nearest,
     lambda points, queries, neighbours, _: _indices(points, queries.shape[2], neighbours)),
):  # fmt: skip
    OPERATORS.impl(define(schema, anywhere, shapes), on_cpu, "CPU")
