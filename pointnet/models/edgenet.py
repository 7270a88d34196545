"""EdgeNet, a network of this library: every neighbourhood is a max over sums of two points' numbers, so that nothing is
computed for a pair of points, and no tensor of pairs exists (identity 12, `pointnet.ops.edges`).

Where its ideas come from:

- centres are farthest points, and each level sees fewer of them: PointNet++ (Qi et al. 2017), section 3.2 and 3.3;
- relative coordinates beside features, one layer and a max: PointNet++, and PointNeXt (Qian et al. 2022), section 3.2,
  which divides them by a radius;
- a map of x_j - x_i as an edge, on a graph of nearest neighbours: EdgeConv of DGCNN (Wang et al. 2019), section 3;
- residual layers of twice the width between two levels: PointNeXt's InvResMLP;
- one layer and not several before each max: what identity 12 asks for. The norm comes after the max, of S centres.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.layers.shared_layer import BatchNormLast, check_dtype, check_points
from pointnet.layers.shared_mlp import SharedMLP, scaled
from pointnet.ops.edges import pooled_edges
from pointnet.ops.hooks import has_hooks, must_call, warn_of_hooks
from pointnet.ops.masked import Lengths, Mask, batch_norm, fill_padding, point_mask, sees_other_points
from pointnet.ops.neighbours import check_indices, farthest_point_sampling, gather, knn, of_all_clouds
from pointnet.ops.products import map_rows

from .pretrained import CENTRES_IN_TURN, Pretrained, check_sizes

CENTRES = (512, 128, 32)  # of the levels
NEIGHBOURS = (16, 24, 16, 24)  # of the centres of each level among the points of the one before, and 128 among 128
AMONG = ((0, 1), (1, 2), (2, 2), (2, 3))  # the levels of those points, 0 being all of them, and of those centres
RADII = (0.09, 0.16, 0.25, 0.32)  # the mean distance of these neighbours, of 1,024 points of ModelNet40
WIDTHS, LAST_WIDTHS = (32, 96, 256), (512, 512, 256)


class Structure(NamedTuple):
    """Which points of a cloud are centres, and whose neighbours; it has no gradient.

    centres: (B, 512) indices of points; those of the other levels are the first 128 and 32 of them.
    neighbours: (B, S, K) each, of `NEIGHBOURS`.
    """

    centres: Tensor
    neighbours: tuple[Tensor, ...]

    def packed(self, points: int) -> Tensor:
        """As one tensor (B, M), of the smallest integers that count so many points: 29 kB per cloud of 1,024."""
        rows = torch.cat([self.centres, *(each.flatten(1) for each in self.neighbours)], 1)
        return rows.to(torch.int16 if points <= 2**15 else torch.int32)

    @classmethod
    def unpacked(cls, rows: Tensor, points: int) -> "Structure":
        """Of clouds of so many points. ValueError for another size or (on a CPU) an index of no point."""
        some = [min(size, points) for size in CENTRES]
        shapes = [(some[level - 1], k) for k, (_, level) in zip(NEIGHBOURS, AMONG, strict=True)]
        sizes = [some[0], *(s * k for s, k in shapes)]
        if rows.dim() != 2 or rows.shape[1] != sum(sizes):
            raise ValueError(f"structure must be (B, {sum(sizes)}) for {points} points, got {tuple(rows.shape)}")
        check_indices(rows, points)
        centres, *neighbours = rows.long().split(sizes, 1)
        return cls(centres, tuple(each.unflatten(1, shape) for each, shape in zip(neighbours, shapes, strict=True)))


@torch.no_grad()
def structure_of(points: Tensor, lengths: Lengths = None) -> Structure:
    """The structure of clouds (B, 3, N). Where there are fewer points than centres, each is one; so the centres that
    exist are the first lengths[b] of each level, as the points are.

    Sampling begins at the point that is the farthest from the mean, so it does not depend on the order of the points.
    """
    mask = None if lengths is None else point_mask(lengths, points)
    points = fill_padding(points, mask)
    count = points.shape[2] if mask is None else mask.sum(2, keepdim=True)
    squares = (points - points.sum(2, keepdim=True) / count).square().sum(1, keepdim=True)
    first = fill_padding(squares, mask, -1)[:, 0].argmax(1)
    centres = farthest_point_sampling(points, min(CENTRES[0], points.shape[2]), lengths, first)
    taken = gather(points, centres)
    levels = [points, *(taken[:, :, :size] for size in CENTRES)]
    found = (
        knn(levels[i], k, levels[j], _at_most(lengths, levels[i])) for k, (i, j) in zip(NEIGHBOURS, AMONG, strict=True)
    )
    return Structure(centres, tuple(found))


def _at_most(lengths: Lengths, points: Tensor) -> Lengths:
    """How many of these points exist, which are the first of the clouds with so many."""
    return None if lengths is None else lengths.long().clamp(max=points.shape[2])


class EdgeMax(nn.Module):
    """max_j W [(p_j - c_i) / radius; f_j] + V f_i of centres i, then norm and ReLU: (B, C, N) -> (B, D, S).

    W is applied to the N points, and to no pair. A residual one has D = C, subtracts f_i from f_j too, has no V, and
    adds what the norm gives to f_i.

    Args:
        channels: C of the features beside the coordinates; 0 for none.
        out_channels: D.
        radius: what coordinates are divided by.
        residual: see above.
    """

    def __init__(self, channels: int, out_channels: int, radius: float, residual: bool = False):
        super().__init__()
        self.radius, self.residual = radius, residual
        self.edge = nn.Linear(3 + channels, out_channels, bias=False)
        self.skip = nn.Linear(channels, out_channels, bias=False) if channels and not residual else None
        self.norm = BatchNormLast(nn.BatchNorm1d(out_channels))

    def extra_repr(self) -> str:
        return f"radius={self.radius}"

    def forward(
        self, points: Tensor, features: Tensor, centres: Tensor | None, neighbours: Tensor, mask: Mask
    ) -> Tensor:
        """-> (B, D, S), stored as rows; fastest where points and features are.

        Args:
            points, features: (B, 3, N), (B, C, N).
            centres: (B, S) indices of points; None: the first S of them.
            neighbours: (B, S, K).
            mask: of centres, (B, 1, S).
        """
        near = torch.cat([points.transpose(1, 2) / self.radius, features.transpose(1, 2)], 2)
        weight, bias, size = self.edge.weight, self.edge.bias, neighbours.shape[1]
        bias = bias() if callable(bias) else bias  # a quantized map's is a method
        called = any(each is not None and must_call(each, nn.Linear) for each in (self.edge, self.skip))
        b = self.edge(near) if called else map_rows(near, weight)
        if self.residual:
            a = -of_centres(b, centres, size)
        elif called:
            own = of_centres(near, centres, size)
            a = -self.edge(torch.cat([own[:, :, :3], torch.zeros_like(own[:, :, 3:])], 2))
            a = a if self.skip is None else a + self.skip(own[:, :, 3:])
        else:
            of_own = -weight[:, :3] if self.skip is None else torch.cat([-weight[:, :3], self.skip.weight], 1)
            a = map_rows(of_centres(near, centres, size), of_own, None if self.skip is None else self.skip.bias)
        z = pooled_edges(a.transpose(1, 2), b.transpose(1, 2), neighbours, None, None, mask).to(near.dtype)
        if bias is not None:  # of another map than its own; from a + b it is gone
            z = z + bias.unsqueeze(1)
        if has_hooks(self.norm) and (mask is None or not sees_other_points(self.norm.norm)):
            y = self.norm(z.transpose(1, 2)).transpose(1, 2)
        else:
            warn_of_hooks(self.norm, "the statistics of padded batches are taken without it")
            y = batch_norm(z, self.norm.norm, mask)
        if self.residual:
            y = y + of_centres(features.transpose(1, 2), centres, size).transpose(1, 2)
        return fill_padding(F.relu(y), mask)


def of_centres(rows: Tensor, centres: Tensor | None, count: int) -> Tensor:
    """The rows (B, N, C) at the centres (B, S), or the first so many: (B, S, C)."""
    if centres is None:
        return rows[:, :count].contiguous()
    return rows.flatten(0, 1).index_select(0, of_all_clouds(centres, rows.shape[1])).unflatten(0, centres.shape)


class EdgeNetClassifier(Pretrained, name="edgenet"):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    Levels of 512, 128 and 32 centres with 32, 96 and 256 channels, each an `EdgeMax` on 16 to 24 neighbours; at 128
    also a residual one; then residual shared layers. One shared layer of 512 and a max over the 32, then 512, 256 with
    dropout and one Linear. 906,696 parameters at 40 classes and 25.3 M multiply-adds per cloud of 1,024 points, an
    eighteenth of PointNet's; to find centres and neighbours takes longer than these do. Training finds them once per
    cloud (`find_structure`). The radii are for clouds in the unit sphere.

    Args:
        num_classes: how many classes.
        in_channels: C >= 3; xyz first. Further channels are features of the points.
        dropout: after each hidden layer of the head.
        width: of all layers; in multiples of 8.

    Raises:
        ValueError: fewer than one class or three channels.
    """

    source = "EdgeNet, a network of this library,"
    not_exported = CENTRES_IN_TURN

    def __init__(self, num_classes: int = 40, in_channels: int = 3, dropout: float = 0.4, width: float = 1.0):
        super().__init__()
        check_sizes(num_classes, in_channels)
        (one, two, three), (last, *head) = scaled(WIDTHS, width), scaled(LAST_WIDTHS, width)
        self.level1 = EdgeMax(in_channels - 3, one, RADII[0])
        self.level2 = EdgeMax(one, two, RADII[1])
        self.within2 = EdgeMax(two, two, RADII[2], residual=True)
        self.mlp2 = SharedMLP([two, 2 * two, two], last_activation=False)
        self.level3 = EdgeMax(two, three, RADII[3])
        self.mlp3 = SharedMLP([three, 2 * three, three], last_activation=False)
        self.mlp = SharedMLP([three + 3, last])
        self.head = SharedMLP([last, *head], dropout=dropout).to_linear()
        self.logits = nn.Linear(head[-1], num_classes)

    def find_structure(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """The centres of clouds (B, C, N) and their neighbours, of coordinates alone: (B, M) small integers."""
        return structure_of(x[:, :3], lengths).packed(x.shape[2])

    def forward(self, x: Tensor, lengths: Lengths = None, structure: Tensor | None = None) -> Tensor:
        """(B, C, N) -> (B, num_classes) logits.

        Args:
            x: (B, C, N).
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist.
            structure: `find_structure` of these points, or of others in the same order, such as before an
                augmentation; None: it is found.

        Raises:
            ValueError: a wrong shape, or no points.
            TypeError: a dtype other than the weights' (outside autocast).
        """
        check_points(x, self.arguments["in_channels"])
        weight = self.level1.edge.weight  # a quantized map's is a method
        check_dtype("points", x, weight.dtype if isinstance(weight, Tensor) else torch.float32)
        x = fill_padding(x, None if lengths is None else point_mask(lengths, x))
        points, features = x[:, :3], x[:, 3:]
        given = structure_of(points, lengths) if structure is None else Structure.unpacked(structure, x.shape[2])
        centres, (near1, near2, near22, near3) = given
        one = gather(points, centres)
        two, three = one[:, :, : CENTRES[1]], one[:, :, : CENTRES[2]]
        of_two, of_three = _at_most(lengths, two), _at_most(lengths, three)
        some = ((_at_most(lengths, one), one), (of_two, two), (of_three, three))
        mask1, mask2, mask3 = (None if count is None else point_mask(count, each) for count, each in some)
        f = self.level1(points, features, centres, near1, mask1)
        f = self.level2(one, f, None, near2, mask2)
        f = self.within2(two, f, None, near22, mask2)
        f = F.relu(f + self.mlp2(f, lengths=of_two))
        f = self.level3(two, f, None, near3, mask3)
        f = F.relu(f + self.mlp3(f, lengths=of_three))
        last = torch.cat([f.transpose(1, 2), three.transpose(1, 2)], 2).transpose(1, 2)
        # With so few points, what is pooled is no larger than what came before.
        pooled = fill_padding(self.mlp(last, lengths=of_three), mask3, -torch.inf).amax(2)
        return self.logits(self.head(pooled))
