"""A shared layer on the edges of a graph of nearest neighbours (DGCNN), without a tensor of edges."""

import torch
from torch import Tensor, nn

from pointnet.ops.edges import pooled_edges
from pointnet.ops.masked import Lengths, Mask, fill_padding, point_mask
from pointnet.ops.neighbours import gather, knn
from pointnet.ops.products import map_rows

from .shared_layer import shape_hint
from .shared_mlp import Activation, SharedMLP

LEAKY_RELU = nn.LeakyReLU(0.2)  # DGCNN's


class EdgeConv(nn.Module):
    """max_j f(norm(W [x_i; x_j - x_i])) over the K points j nearest to i, itself among them: (B, C, N) -> (B, D, N).

    Wang et al., "Dynamic Graph CNN for Learning on Point Clouds" (ACM Transactions on Graphics 2019), equations 7 and
    8, of one layer. Points are near where their features are: the graph is that of x itself.

    With W = [W1 | W2] an edge is a sum of two points' numbers, (W1 - W2) x_i + W2 x_j: so W is applied once to each
    point and not to each of its K edges, and what is left of the edges is a max over K rows (identity 12, see
    `pointnet.ops.edges`). What that does not know (a hook, an unknown activation) takes the edges.

    Args:
        in_channels: C; the layer has 2 C channels in, those of x_i first.
        out_channels: D.
        neighbours: K. Of a cloud with fewer points the nearest repeats.
        activation: as of `SharedMLP`.

    Raises:
        ValueError: fewer than one neighbour, or as of `SharedMLP`.
    """

    def __init__(self, in_channels: int, out_channels: int, neighbours: int = 20, activation: Activation = LEAKY_RELU):
        super().__init__()
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.neighbours = neighbours
        self.layer = SharedMLP([2 * in_channels, out_channels], activation=activation)[0]

    def extra_repr(self) -> str:
        return f"neighbours={self.neighbours}"

    def forward(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, D, N), stored as rows.

        Args:
            x: (B, C, N).
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist. The rest are nobody's neighbour,
                may hold anything and come out 0.

        Raises:
            ValueError, TypeError: as of `SharedMLP.forward`.
        """
        channels = self.layer.conv.in_channels // 2
        if x.dim() != 3 or x.shape[1] != channels:
            raise ValueError(f"points must be (B, {channels}, N), got {tuple(x.shape)}{shape_hint(x.shape, channels)}")
        self.layer.check(x, x)
        mask = None if lengths is None else point_mask(lengths, x)
        x = fill_padding(x, mask)
        neighbours = knn(x, self.neighbours, lengths=lengths)
        if not self.layer.is_poolable():
            return self.by_definition(x, neighbours, mask)
        of_centre, of_edge = self.layer.conv.weight.squeeze(2).chunk(2, 1)
        rows = map_rows(x.transpose(1, 2), torch.cat([of_centre - of_edge, of_edge]))
        a, b = rows.transpose(1, 2).chunk(2, 1)
        if self.layer.conv.bias is not None:  # of a folded norm
            a = a + self.layer.conv.bias.unsqueeze(1)
        y = pooled_edges(a, b, neighbours, self.layer.norm, self.layer.activation, mask)
        return y.to(self.layer.dtype)  # of half precision the maxima are in single

    def by_definition(self, x: Tensor, neighbours: Tensor, mask: Mask) -> Tensor:
        """The layer on all edges, then the max over those of a point."""
        centres = x.unsqueeze(3).expand(-1, -1, -1, neighbours.shape[2])
        edges = torch.cat([centres, gather(x, neighbours) - centres], 1)
        pairs = None if mask is None else mask.repeat_interleave(neighbours.shape[2], 2)
        return self.layer(edges.flatten(2), mask=pairs).unflatten(2, neighbours.shape[1:]).amax(3)
