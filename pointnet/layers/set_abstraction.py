"""PointNet++'s layer: a small PointNet at each centre (Qi, Yi, Su, Guibas, NIPS 2017, sections 3.2 and 3.3; released
code: github.com/charlesq34/pointnet2, utils/pointnet_util.py)."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.ops.groups import pooled_groups
from pointnet.ops.masked import Lengths, check_tensor, fill_padding, point_mask
from pointnet.ops.neighbours import ball_query, farthest_point_sampling, gather, of_all_clouds
from pointnet.ops.products import autocast_dtype
from pointnet.ops.tracing import makes_a_graph

from .neighbourhoods import Features, is_fast, neighbourhoods_definition, pooled_neighbourhoods
from .shared_layer import check_dtype, check_points, is_whole, max_of_points, refuse_script
from .shared_mlp import SharedMLP

Pool = Callable[..., Tensor]  # of an MLP, points, features, centres, neighbours and a unit
WHOLE = 1024  # points of a cloud whose max is one of rows
FEW = 8  # points are very few if there are so many times more channels; under autocast, if there are as many


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
        ValueError: widths, radii or neighbours that are no lists; numbers of radii, neighbours and MLPs that differ;
            both `centres` and `stride`; sizes that are no whole numbers above 0, or a radius that is not above 0;
            `residual` without features or centres; `by_radius` or `in_order` without centres.
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
        _check_sizes(widths, centres, stride, radii, neighbours)
        whole = centres is None and stride is None
        if whole and (by_radius or in_order):
            raise ValueError("by_radius and in_order are for balls about centres, and there are no centres")
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
    def in_channels(self) -> int:
        """C."""
        return self._mlps[0].widths[0] - 3

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
            TypeError: no tensor, or a dtype other than the weights' (outside autocast).
        """
        check_points(points, 3)
        self._check_features(features, points)
        if self.centres is None and self.stride is None:
            x = points if features is None else torch.cat([points, features], 1)
            return points.new_zeros(points.shape[0], 3, 1), _pooled_whole(self._mlps[0], x, lengths).unsqueeze(2)
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
            assert features is not None  # which was checked
            y = fill_padding(F.relu(y + self.skip(gather(features, chosen))), exist)
        return centres, y

    def _check_features(self, features: Features, points: Tensor) -> None:
        if features is None and not self.in_channels:
            return
        if features is not None:
            check_tensor("features", features)
        channels = features.shape[1] if features is not None and features.dim() == 3 else 0
        if features is None or channels != self.in_channels or features.shape[::2] != points.shape[::2]:
            wanted = f"({points.shape[0]}, {self.in_channels}, {points.shape[2]}), one column per point"
            got = None if features is None else tuple(features.shape)
            raise ValueError(f"features must be {wanted if self.in_channels else 'None'}, got {got}")
        check_dtype("features", features, self._mlps[0][0].dtype)


def _check_sizes(
    widths: Sequence[Sequence[int]],
    centres: int | None,
    stride: int | None,
    radii: Sequence[float],
    neighbours: Sequence[int],
) -> None:
    if not isinstance(widths, Sequence) or not all(isinstance(each, Sequence) for each in widths):
        raise ValueError(f"widths must be a list of lists, one for each MLP, such as [[8, 16]], got {widths!r}")
    for name, each in {"radii": radii, "neighbours": neighbours}.items():
        if not hasattr(each, "__len__"):
            raise ValueError(f"{name} must be a list with an entry for each MLP, got {each!r}")
    whole = centres is None and stride is None
    scales = 0 if whole else len(widths)
    if centres is not None and stride is not None:
        raise ValueError(f"centres and stride exclude each other, got {centres} and {stride}")
    if not all(each is None or is_whole(each) for each in (centres, stride)):
        raise ValueError(f"centres and stride must be whole numbers of at least 1, got {centres!r} and {stride!r}")
    if not widths or (whole and len(widths) > 1) or not len(radii) == len(neighbours) == scales:
        got = f"{len(radii)} radii, {len(neighbours)} numbers of neighbours and {len(widths)} MLPs"
        raise ValueError(f"each MLP must have a radius and a number of neighbours, without centres one none; {got}")
    if not all(map(is_whole, neighbours)):
        raise ValueError(f"neighbours must be whole numbers of at least 1, got {list(neighbours)}")
    if not all(isinstance(each, int | float | np.number) and each > 0 for each in radii):
        raise ValueError(f"radii must be numbers above 0, got {list(radii)}")


def _pooled_whole(mlp: SharedMLP, x: Tensor, lengths: Lengths) -> Tensor:
    """`mlp.max_pool`: (B, C, N) -> (B, D). On a CPU points of small clouds are rows where it learns: faster. Of very
    few points it is faster to hold what is pooled.
    """
    fast = torch.is_grad_enabled() and x.device.type == "cpu" and not makes_a_graph() and x.shape[2] <= WHOLE
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
