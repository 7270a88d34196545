"""PointNet++'s layer: a small PointNet at each centre (Qi, Yi, Su, Guibas, NIPS 2017, sections 3.2 and 3.3; released
code: github.com/charlesq34/pointnet2, utils/pointnet_util.py)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.ops.bins import Bin, binned, moments_of_all
from pointnet.ops.edges import edge_moments, pooled_edges
from pointnet.ops.graphs import makes_a_graph
from pointnet.ops.groups import Rows, pooled_groups, pooled_rows
from pointnet.ops.masked import Lengths, fill_padding, has_hooks, point_mask, takes_statistics
from pointnet.ops.neighbours import ball_query, farthest_point_sampling, gather, of_all_clouds
from pointnet.ops.products import autocast_dtype, no_autocast, rounding_of
from pointnet.ops.relative import affine_of, near_mean, pairs_linear

from .shared_layer import HALF, SharedLayer, max_of_points, refuse_script
from .shared_mlp import SharedMLP

Features = Tensor | None  # (B, C, N), beside the coordinates; None where C is 0
Pool = Callable[..., Tensor]  # of an MLP, points, features, centres, neighbours and a unit
ROWS = {"cpu": 8192}  # pairs that go through all layers together where nothing is learned, so that few are at hand
WHOLE = 1024  # points of a cloud whose max is one of rows
FEW = 8  # so many times fewer points than channels are very few; under autocast no more points than channels


class SetAbstraction(nn.Module):
    """Features of neighbourhoods: points (B, 3, N), features (B, C, N) -> centres (B, 3, S), features (B, D, S).

    Farthest point sampling, which begins at the first point, takes the centres. About each a ball takes its first K
    points; a shared MLP sees their coordinates relative to the centre and their features, and the max over the K is
    the centre's feature. With several radii each has an MLP of its own, and D is the sum of their widths (MSG). Without
    centres all points are one neighbourhood, about the origin: S = 1. With a stride each cloud has one centre for so
    many of its points: in a padded batch only `existing_centres` of the S exist and count (a GPU is waited for).

    The first linear map runs once per point and once per centre (identity 7), and the last layer's output over all
    pairs is never held (identity 11). Where the MLPs hold what that does not know (hooks, other activations, dropout),
    and where a graph is exported, each neighbourhood is a cloud of K points for `SharedMLP.max_pool`: the definition.

    As in PointNeXt (Qian et al., NeurIPS 2022, section 3) coordinates may be in units of the radius, and a centre's own
    feature may be added to the max: relu(max + V f_i + v), where the last layer of the MLPs then ends with its norm.

    Which point comes first decides which points are centres, so permuting the others changes nothing but the choice
    among balls with more than K points, which take those that come first.

    Args:
        in_channels: C, without the coordinates.
        widths: of each MLP's layers; the first takes 3 + C channels, coordinates first.
        centres: S; None: all points are one neighbourhood, and there is one MLP.
        stride: instead of `centres`: S is N // stride, at least 1.
        in_order: the points are the centres of another set abstraction, as it gives them: the first S of them are then
            the farthest (identity 13), and nothing is sampled.
        radii, neighbours: of the balls, and K, for each MLP.
        by_radius: relative coordinates are divided by the radius.
        residual: adds a linear map of the centre's feature, or the feature itself if C is D.

    Raises:
        ValueError: numbers of radii, neighbours and MLPs that differ; both `centres` and `stride`, or one below 1;
            `residual` without features or centres.
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[Sequence[int]],
        centres: int | None = None,
        radii: Sequence[float] = (),
        neighbours: Sequence[int] = (),
        by_radius: bool = False,
        residual: bool = False,
        stride: int | None = None,
        in_order: bool = False,
    ):
        super().__init__()
        whole = centres is None and stride is None
        scales = 0 if whole else len(widths)
        if centres is not None and stride is not None:
            raise ValueError(f"centres and stride exclude each other, got {centres} and {stride}")
        if min(1 if centres is None else centres, 1 if stride is None else stride) < 1:
            raise ValueError(f"centres and stride must be at least 1, got {centres} and {stride}")
        if not widths or (whole and len(widths) > 1) or not len(radii) == len(neighbours) == scales:
            got = f"{len(radii)} radii, {len(neighbours)} numbers of neighbours and {len(widths)} MLPs"
            raise ValueError(f"each MLP must have a radius and a number of neighbours, without centres one none; {got}")
        if residual and (whole or in_channels < 1):
            raise ValueError(
                f"residual must have features of centres, got in_channels {in_channels}, centres {centres}"
            )
        self.centres, self.stride, self.radii, self.neighbours = centres, stride, tuple(radii), tuple(neighbours)
        self.by_radius, self.in_order = by_radius, in_order
        self.mlps = nn.ModuleList(SharedMLP([3 + in_channels, *each], last_activation=not residual) for each in widths)
        self.skip: nn.Module | None = None
        if residual:
            same = in_channels == self.out_channels
            self.skip = nn.Identity() if same else SharedMLP([in_channels, self.out_channels], None, None)

    def extra_repr(self) -> str:
        names = ("centres", "stride", "radii", "neighbours", "by_radius", "in_order")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    @property
    def out_channels(self) -> int:
        """D."""
        return sum(mlp[-1].conv.out_channels for mlp in self._mlps)

    def number_of_centres(self, points: int) -> int:
        """S for so many points."""
        return max(points // self.stride, 1) if self.stride else self.centres or 1

    def existing_centres(self, lengths: Lengths) -> Lengths:
        """How many centres of each cloud exist (B,), the lengths of what comes next; None: all of them."""
        return None if lengths is None or not self.stride else (lengths.long() // self.stride).clamp(min=1)

    def chosen(self, points: Tensor, lengths: Lengths = None) -> Tensor:
        """Which points are centres: (B, C, N) -> (B, S) indices; that of one that does not exist may be any."""
        count = self.number_of_centres(points.shape[2])
        if self.in_order and count <= points.shape[2]:
            places = torch.arange(count, device=points.device).expand(len(points), -1)
            # As in sampling, the first repeats where a cloud has fewer.
            return places if lengths is None else places.where(places < lengths.to(places.device).unsqueeze(1), 0)
        return farthest_point_sampling(points, count, lengths)

    @property
    def _mlps(self) -> list[SharedMLP]:
        return [mlp for mlp in self.mlps if isinstance(mlp, SharedMLP)]

    def forward(self, points: Tensor, features: Features = None, lengths: Lengths = None) -> tuple[Tensor, Tensor]:
        """(B, 3, N), (B, C, N) -> (B, 3, S), (B, D, S), which is 0 where no centre exists; only the first lengths[b]
        points of cloud b exist.

        Raises:
            ValueError: a wrong shape, or no points.
            TypeError: a dtype other than the weights' (outside autocast).
        """
        if points.dim() != 3 or points.shape[1] != 3:
            raise ValueError(f"points must be (B, 3, N), got {tuple(points.shape)}")
        if features is not None and (features.dim() != 3 or features.shape[::2] != points.shape[::2]):
            wanted = f"({points.shape[0]}, C, {points.shape[2]}), one column per point"
            raise ValueError(f"features must be {wanted}, got {tuple(features.shape)}")
        if self.centres is None and self.stride is None:
            x = points if features is None else torch.cat([points, features], 1)
            return points.new_zeros(len(points), 3, 1), _pooled_whole(self._mlps[0], x, lengths).unsqueeze(2)
        if lengths is not None:
            mask = point_mask(lengths, points)
            points = fill_padding(points, mask)
            features = None if features is None else fill_padding(features, mask)
        chosen = self.chosen(points, lengths)
        centres = gather(points, chosen)
        some = self.existing_centres(lengths)
        exist = None if some is None else point_mask(some, centres)
        found = []
        for mlp, radius, most in zip(self._mlps, self.radii, self.neighbours, strict=True):
            neighbours = ball_query(points, centres, radius, most, lengths)
            pool = pooled_neighbourhoods if is_fast(mlp) and len(points) else neighbourhoods_definition
            pool = pool if exist is None else partial(_of_existing, pool, exist)
            found.append(pool(mlp, points, features, centres, neighbours, radius if self.by_radius else 1.0))
        y = found[0] if len(found) == 1 else torch.cat(found, 1)
        if self.skip is not None:
            assert features is not None  # the MLPs have checked that
            y = fill_padding(F.relu(y + self.skip(gather(features, chosen))), exist)
        return centres, y


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


def _pooled_whole(mlp: SharedMLP, x: Tensor, lengths: Lengths) -> Tensor:
    """`mlp.max_pool`: (B, C, N) -> (B, D). On a CPU points of small clouds are rows where it learns: faster. Of very
    few points it is faster to hold what is pooled.
    """
    fast = torch.is_grad_enabled() and x.device.type == "cpu" and x.shape[2] <= WHOLE
    if not fast or lengths is not None or not is_fast(mlp):
        return mlp.max_pool(x, lengths=lengths)
    mlp[0].check(x)
    *before, last = mlp
    x = x.mT.contiguous().mT  # stored as rows, which the layers leave so
    for layer in before:
        x = layer(x)
    last.check(x)
    weight, (channels, points) = last.conv.weight.squeeze(2), x.shape[1:]
    if points * (1 if autocast_dtype(x) else FEW) <= channels:
        return max_of_points(last(x))
    if x.dtype != weight.dtype:  # under autocast, whose products of bfloat16 a processor may have units for
        return last.max_pool(x)
    return pooled_groups(x.unsqueeze(2), weight, last.conv.bias, last.norm, last.activation).squeeze(2)


def _of_existing(
    pool: Pool, exist: Tensor, mlp: SharedMLP, points: Tensor, features: Features, centres: Tensor, neighbours: Tensor,
    unit: float,
) -> Tensor:  # fmt: skip
    """`pool` as if those centres alone were there, (B, 1, S) bool; 0 for others: all clouds are one."""

    def as_one(x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1).unsqueeze(0)

    rows = exist.flatten().nonzero().squeeze(1)
    near = of_all_clouds(neighbours, points.shape[2]).index_select(0, rows).unsqueeze(0)
    features = None if features is None else as_one(features)
    y = pool(mlp, as_one(points), features, as_one(centres).index_select(2, rows), near, unit)
    whole = y.new_zeros(y.shape[1], exist.numel()).index_copy(1, rows, y.squeeze(0))
    return whole.unflatten(1, neighbours.shape[:2]).transpose(0, 1)


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
        of_points = F.linear(rows, weight)
        of_centres = F.linear(((centres - origin) / unit).transpose(1, 2), -weight[:, :3], bias)
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


class Part(NamedTuple):
    """Some neighbourhoods: what the first layer makes of their centres, and which points they hold."""

    of_centres: Tensor  # (B, G, D)
    bin: Bin


def _parts(mlp: SharedMLP, a: Tensor, b: Tensor, neighbours: Tensor) -> tuple[list[Part], Tensor, Tensor | None]:
    """All neighbourhoods in parts, the points that these take, and which centres of all clouds come in which order.

    On a CPU in bins, so that repeated points are hardly computed; to sort them, a GPU would have to be waited for.
    Layers after the second see rows of points alone, which they would not count as often as they come.
    """
    if neighbours.device.type != "cpu" or len(mlp) > 3:
        return [Part(a, Bin(neighbours, 0))], b, None
    order, bins = binned(neighbours, b.shape[1])
    in_order = a.flatten(0, 1).index_select(0, order).split([each.neighbours.shape[1] for each in bins])
    parts = [Part(rows.unsqueeze(0), each) for rows, each in zip(in_order, bins, strict=True)]
    return parts, b.flatten(0, 1).unsqueeze(0), order


def _cut(part: Part) -> Iterator[Part]:
    """The part in pieces that stay in a cache, through all layers."""
    most = part.bin.neighbours.shape[2]
    step = max(1, ROWS.get(part.of_centres.device.type, part.bin.neighbours.numel()) // most)
    pieces = zip(part.of_centres.split(step, 1), part.bin.neighbours.split(step, 1), strict=True)
    return (Part(a, Bin(near, part.bin.more)) for a, near in pieces)


def _pooled_pairs(mlp: SharedMLP, parts: Sequence[Part], b: Tensor, rounding: torch.dtype | None) -> Tensor:
    """The layers after the first, for what it makes of pairs, relu(a_i + b_j): (B, N, D) -> (G, E), G of all parts."""
    _, *middle, last = mlp
    sizes = [(each.neighbours.shape[2], each.more) for _, each in parts]
    rows: list[list[Tensor]] = [[a, b, each.neighbours] for a, each in parts]
    for layer in middle[:1]:
        weight = layer.conv.weight.squeeze(2)
        first, its = parts[0]
        near = near_mean(first, b, its.neighbours, weight) if takes_statistics(layer.norm) else None
        found = [pairs_linear(a, b, each.neighbours, weight, near, each.more, rounding) for a, each in parts]
        counts = [len(z) // size * (size + more) for (z, *_), (size, more) in zip(found, sizes, strict=True)]
        moments = moments_of_all(counts, [each[1] for each in found], [each[2] for each in found])
        affine = affine_of(layer.norm, layer.conv.bias, sum(counts), found[0][0], moments, near)
        rows = [[z, *affine] for z, *_ in found]
    for layer in middle[1:]:
        made = (z if not affine else F.relu((z - affine[0]) * affine[1] + affine[2]) for z, *affine in rows)
        rows = [[layer(x.T.unsqueeze(0)).squeeze(0).T] for x in made]
    lots = [Rows(made_of, *each) for made_of, each in zip(rows, sizes, strict=True)]
    return pooled_rows(lots, last.conv.weight.squeeze(2), last.conv.bias, last.norm, last.activation, rounding)


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
