"""Shared layers on the edges of a graph of nearest neighbours (DGCNN), without a tensor of edges."""

import torch
from torch import Tensor, nn

from pointnet.ops.edges import edge_moments, pooled_edges
from pointnet.ops.groups import Lot, pooled_rows
from pointnet.ops.masked import Lengths, Mask, fill_padding, point_mask, takes_statistics
from pointnet.ops.neighbours import gather, knn, of_all_clouds
from pointnet.ops.products import map_rows, no_autocast, rounding_of
from pointnet.ops.relative import affine_of
from pointnet.ops.tracing import makes_a_graph

from .shared_layer import HALF, SharedLayer, check_points, is_whole
from .shared_mlp import ActivationLike, SharedMLP

LEAKY_RELU = nn.LeakyReLU(0.2)  # DGCNN's


class EdgeConv(nn.Module):
    """max_j f(norm(W [x_i; x_j - x_i])) over the K points j nearest to i, itself among them: (B, C, N) -> (B, D, N).

    Wang et al., "Dynamic Graph CNN for Learning on Point Clouds" (ACM Transactions on Graphics 2019), equations 7 and
    8, of one layer or two. Points are near where their features are: the graph is that of x itself.

    With W = [W1 | W2] an edge is a sum of two points' numbers, (W1 - W2) x_i + W2 x_j: so W is applied once to each
    point and not to each of its K edges, and what is left of the edges is a max over K rows (identity 12, see
    `pointnet.ops.edges`). A second layer sees the edges, but neither its input nor its output is held for all of them
    (identity 11, see `pointnet.ops.groups`). What these do not know (a hook, an unknown activation) takes the edges.

    Args:
        in_channels: C; the first layer has 2 C channels in, those of x_i first.
        out_channels: D.
        neighbours: K. Of a cloud with fewer points the nearest repeats.
        activation: as of `SharedMLP`.
        hidden_channels: those of a layer before the one whose max is taken; None: there is none.

    Raises:
        ValueError: fewer than one neighbour, or as of `SharedMLP`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        neighbours: int = 20,
        activation: ActivationLike = LEAKY_RELU,
        hidden_channels: int | None = None,
    ):
        super().__init__()
        if not is_whole(neighbours):
            raise ValueError(f"neighbours must be a whole number of at least 1, got {neighbours!r}")
        self.neighbours = neighbours
        hidden = [] if hidden_channels is None else [hidden_channels]
        *before, last = SharedMLP([2 * in_channels, *hidden, out_channels], activation=activation)
        self.hidden = before[0] if before else None
        self.layer = last

    def extra_repr(self) -> str:
        return f"neighbours={self.neighbours}"

    def forward(self, x: Tensor, lengths: Lengths = None, among: Tensor | None = None) -> Tensor:
        """(B, C, N) -> (B, D, N), stored as rows.

        Args:
            x: (B, C, N).
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist. The rest are nobody's neighbour,
                may hold anything and come out 0.
            among: (B, C, M), all points of clouds of which x are some: their neighbours are of these. None: of x.

        Raises:
            ValueError, TypeError: as of `SharedMLP.forward`; `among` with lengths.
        """
        first = self.layer if self.hidden is None else self.hidden
        channels = first.conv.in_channels // 2
        for points in (x,) if among is None else (x, among):
            check_points(points, channels)
        if among is not None and lengths is not None:
            raise ValueError("points among others must all exist; give no lengths")
        first.check(x, x)
        if among is not None:
            first.check(among, among)
        mask = None if lengths is None else point_mask(lengths, x)
        x = fill_padding(x, mask)
        points = x if among is None else among
        neighbours = knn(points, self.neighbours, None if among is None else x, lengths)
        if not (self.layer.is_poolable() if self.hidden is None else _is_fast(self.hidden, self.layer, x)):
            return self.by_definition(x, points, neighbours, mask)
        if self.hidden is not None:
            return self._pooled_pairs(self.hidden, x, points, neighbours, mask)
        a, b = _halves(first, x, points)
        y = pooled_edges(a.transpose(1, 2), b.transpose(1, 2), neighbours, first.norm, first.activation, mask)
        return y.to(first.dtype)  # of half precision the maxima are in single

    def _pooled_pairs(self, hidden: SharedLayer, x: Tensor, points: Tensor, neighbours: Tensor, mask: Mask) -> Tensor:
        """The two layers on the edges of each point, then the max, by identities 7 and 11."""
        rounding, kind = rounding_of(x), hidden.dtype
        with no_autocast(x):  # as of set abstractions, sums of near points want their digits
            a, b = (each.contiguous() for each in _halves(hidden, x.to(kind), points.to(kind)))
            exist = None if mask is None else mask.flatten().nonzero().squeeze(1)
            if exist is not None:  # all clouds are one, of the points that exist
                neighbours = of_all_clouds(neighbours, b.shape[1]).index_select(0, exist).unsqueeze(0)
                a, b = a.flatten(0, 1).index_select(0, exist).unsqueeze(0), b.flatten(0, 1).unsqueeze(0)
            tables = a.transpose(1, 2), b.transpose(1, 2)
            found = edge_moments(*tables, neighbours) if takes_statistics(hidden.norm) else ()
            mean, gain, shift = affine_of(hidden.norm, None, neighbours.numel(), b, found)
            parts, size = [(a - mean) * gain + shift, b * gain, neighbours], neighbours.shape[2]
            lots = [Lot(parts, size, 0, getattr(hidden.activation, "negative_slope", 0.0))]
            last = self.layer
            weight = last.conv.weight.squeeze(2)
            y = pooled_rows(lots, weight, last.conv.bias, last.norm, last.activation, rounding)
        if exist is not None:
            y = y.new_zeros(x.shape[0] * x.shape[2], y.shape[1]).index_copy(0, exist, y)
        return y.view(x.shape[0], x.shape[2], -1).transpose(1, 2).to(last.dtype)

    def by_definition(self, x: Tensor, points: Tensor, neighbours: Tensor, mask: Mask) -> Tensor:
        """The layers on all edges, then the max over those of a point."""
        centres = x.unsqueeze(3).expand(-1, -1, -1, neighbours.shape[2])
        y = torch.cat([centres, gather(points, neighbours) - centres], 1).flatten(2)
        pairs = None if mask is None else mask.repeat_interleave(neighbours.shape[2], 2)
        for layer in (self.layer,) if self.hidden is None else (self.hidden, self.layer):
            y = layer(y, mask=pairs)
        return y.unflatten(2, neighbours.shape[1:]).amax(3)


def _halves(layer: SharedLayer, x: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """a (B, N, D) of the points and b (B, M, D) of their neighbours: what the layer's map makes of an edge is
    a_i + b_j."""
    of_centre, of_edge = layer.conv.weight.squeeze(2).chunk(2, 1)
    weight, out = torch.cat([of_centre - of_edge, of_edge]), layer.conv.out_channels
    if points is x:
        a, b = map_rows(x.transpose(1, 2), weight).split(out, 2)
    else:
        a, b = (map_rows(each.transpose(1, 2), w) for each, w in zip((x, points), weight.split(out), strict=True))
    return (a if layer.conv.bias is None else a + layer.conv.bias), b  # a bias is of a folded norm


def _is_fast(hidden: SharedLayer, last: SharedLayer, x: Tensor) -> bool:
    """Whether the edges of two layers need not be held."""
    if makes_a_graph() or not x.numel() or (torch.is_grad_enabled() and hidden.dtype in HALF):
        return False
    return type(hidden.activation) in (nn.ReLU, nn.LeakyReLU) and hidden.is_poolable() and last.is_poolable()
