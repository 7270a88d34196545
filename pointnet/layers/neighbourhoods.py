"""A small network on the points around each centre, and its max: the definition, and by identities 7 and 11."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.ops.bins import Bin, binned
from pointnet.ops.edges import edge_moments, pooled_edges
from pointnet.ops.groups import Lot, pooled_rows
from pointnet.ops.hooks import has_hooks
from pointnet.ops.masked import takes_statistics
from pointnet.ops.neighbours import gather
from pointnet.ops.products import map_rows, no_autocast, rounding_of
from pointnet.ops.relative import affine_of, near_mean, pairs_linear
from pointnet.ops.rows import moments_of_all
from pointnet.ops.tracing import makes_a_graph

from .shared_layer import HALF, SharedLayer
from .shared_mlp import SharedMLP

Features = Tensor | None  # (B, C, N), beside the coordinates; None where C is 0
ROWS = {"cpu": 8192}  # pairs that go through all layers together where nothing is learned, so that few are at hand


def neighbourhoods_definition(
    mlp: SharedMLP, points: Tensor, features: Features, centres: Tensor, neighbours: Tensor, unit: float = 1.0
) -> Tensor:
    """max_k mlp([(p_j - c_i) / unit; f_j]), j = neighbours[i, k]: (B, 3, N), (B, C, N), (B, 3, S), (B, S, K) ->
    (B, D, S)."""
    clouds, some, most = neighbours.shape
    groups = (gather(points, neighbours) - centres.unsqueeze(3)) / unit
    if features is not None:
        groups = torch.cat([groups, gather(features, neighbours)], 1)
    small_clouds = groups.transpose(1, 2).reshape(clouds * some, groups.shape[1], most)
    return mlp.max_pool(small_clouds).unflatten(0, (clouds, some)).transpose(1, 2)


def pooled_neighbourhoods(
    mlp: SharedMLP, points: Tensor, features: Features, centres: Tensor, neighbours: Tensor, unit: float = 1.0
) -> Tensor:
    """`neighbourhoods_definition` by identities 7 and 11, of an MLP that `is_fast`."""
    mlp[0].check(points if features is None else torch.cat([points[:, :, :1], features[:, :, :1]], 1))
    rounding = rounding_of(points)
    with no_autocast(points):  # differences of near coordinates want their digits
        weight, bias = mlp[0].conv.weight.squeeze(2), mlp[0].conv.bias  # once, as each reading may compute it anew
        # Nothing but differences of coordinates counts, and near the origin they lose no digits.
        origin = centres.detach().mean(2, keepdim=True)
        rows = ((points - origin) / unit).transpose(1, 2)
        if features is not None:
            rows = torch.cat([rows, features.to(weight.dtype).transpose(1, 2)], 2)
        of_points = map_rows(rows, weight)
        of_centres = map_rows(((centres - origin) / unit).transpose(1, 2), -weight[:, :3], bias)
        if len(mlp) == 1:
            tables = of_centres.transpose(1, 2), of_points.transpose(1, 2)
            return pooled_edges(*tables, neighbours, mlp[0].norm, mlp[0].activation)
        found: Sequence[Tensor] = ()
        learns = torch.is_grad_enabled() and (points.requires_grad or centres.requires_grad)
        few = features is None and not learns and points.device.type == "cpu"  # a GPU has a kernel for all
        if takes_statistics(mlp[0].norm) and few:
            around = (points - origin) / unit, (centres - origin) / unit
            found = _moments_of_coordinates(*around, neighbours, weight, bias)
        elif takes_statistics(mlp[0].norm):
            found = edge_moments(of_centres.transpose(1, 2), of_points.transpose(1, 2), neighbours)
        mean, gain, shift = affine_of(mlp[0].norm, None, neighbours.numel(), of_points, found)
        of_centres, of_points = (of_centres - mean) * gain + shift, of_points * gain
        parts, of_points, order = _parts(mlp, of_centres, of_points, neighbours)
        if torch.is_grad_enabled() or any(takes_statistics(layer.norm) for layer in mlp):
            y = _pooled_pairs(mlp, parts, of_points, rounding)
        else:
            small = itertools.chain.from_iterable(map(_cut, parts))
            y = torch.cat([_pooled_pairs(mlp, [part], of_points, rounding) for part in small])
        y = y if order is None else y.index_select(0, order.argsort())
        return y.unflatten(0, neighbours.shape[:2]).transpose(1, 2)


def _moments_of_coordinates(
    points: Tensor, centres: Tensor, neighbours: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`edge_moments` of what a linear map makes of relative coordinates, from theirs, which are fewer (identity 3)."""
    relative = (gather(points.double(), neighbours) - centres.double().unsqueeze(3)).transpose(0, 1).flatten(1)
    mean = relative.mean(1)
    centred = relative - mean.unsqueeze(1)
    weight = weight.double()
    squares = ((weight @ (centred @ centred.T)) * weight).sum(1)
    return weight @ mean if bias is None else weight @ mean + bias, squares


class Neighbourhoods(NamedTuple):
    """Some neighbourhoods: what the first layer makes of their centres, and which points they hold."""

    of_centres: Tensor  # (B, G, D)
    bin: Bin


def _parts(
    mlp: SharedMLP, a: Tensor, b: Tensor, neighbours: Tensor
) -> tuple[list[Neighbourhoods], Tensor, Tensor | None]:
    """All neighbourhoods in parts, the points that these take, and which centres of all clouds come in which order.

    On a CPU in bins, so that repeated points are hardly computed; to sort them, a GPU would have to be waited for.
    Layers after the second see rows of points alone, which they would not count as often as they come.
    """
    if neighbours.device.type != "cpu" or len(mlp) > 3:
        return [Neighbourhoods(a, Bin(neighbours, 0))], b, None
    order, bins = binned(neighbours, b.shape[1])
    in_order = a.flatten(0, 1).index_select(0, order).split([each.neighbours.shape[1] for each in bins])
    parts = [Neighbourhoods(rows.unsqueeze(0), each) for rows, each in zip(in_order, bins, strict=True)]
    return parts, b.flatten(0, 1).unsqueeze(0), order


def _cut(part: Neighbourhoods) -> Iterator[Neighbourhoods]:
    """The part in pieces that stay in a cache, through all layers."""
    step = max(1, ROWS.get(part.of_centres.device.type, part.bin.neighbours.numel()) // part.bin.size)
    pieces = zip(part.of_centres.split(step, 1), part.bin.neighbours.split(step, 1), strict=True)
    return (Neighbourhoods(a, Bin(near, part.bin.more)) for a, near in pieces)


def _pooled_pairs(mlp: SharedMLP, parts: Sequence[Neighbourhoods], b: Tensor, rounding: torch.dtype | None) -> Tensor:
    """The layers after the first, for what it makes of pairs, relu(a_i + b_j): (B, N, D) -> (G, E), G of all parts."""
    _, *middle, last = mlp
    made_of = [[a, b, each.neighbours] for a, each in parts]  # as `Lot` says
    if middle:
        made_of = _behind_second(middle[0], parts, b, rounding)
    for layer in middle[1:]:
        made = (z if not affine else F.relu((z - affine[0]) * affine[1] + affine[2]) for z, *affine in made_of)
        made_of = [[layer(x.T.unsqueeze(0)).squeeze(0).T] for x in made]
    lots = [Lot(its, each.size, each.more) for its, (_, each) in zip(made_of, parts, strict=True)]
    return pooled_rows(lots, last.conv.weight.squeeze(2), last.conv.bias, last.norm, last.activation, rounding)


def _behind_second(
    layer: SharedLayer, parts: Sequence[Neighbourhoods], b: Tensor, rounding: torch.dtype | None
) -> list[list[Tensor]]:
    """What the second layer makes of pairs: of each part its z, mean, gain and shift, as `Lot` takes them."""
    weight, (a, first) = layer.conv.weight.squeeze(2), parts[0]
    near = near_mean(a, b, first.neighbours, weight) if takes_statistics(layer.norm) else None
    found = [pairs_linear(a, b, each.neighbours, weight, near, each.more, rounding) for a, each in parts]
    counts = [each.pairs for _, each in parts]
    moments = moments_of_all(counts, [each[1] for each in found], [each[2] for each in found])
    affine = affine_of(layer.norm, layer.conv.bias, sum(counts), found[0][0], moments, near)
    return [[z, *affine] for z, *_ in found]


def is_fast(mlp: SharedMLP) -> bool:
    """Whether `pooled_neighbourhoods` knows what the layers hold, and no graph of standard operators is made."""
    if makes_a_graph():
        return False
    if torch.is_grad_enabled() and mlp[0].dtype in HALF:  # its sums over pairs would lose the gradients
        return False
    return not has_hooks(mlp) and all(map(_is_plain, list(mlp)[:-1])) and mlp[-1].is_poolable()


def _is_plain(layer: SharedLayer) -> bool:
    """Whether a layer is a linear map, batch norm or none, and ReLU."""
    return layer.is_poolable() and type(layer.activation) is nn.ReLU
