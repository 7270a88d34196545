"""DGCNN's classifier as published: Wang, Sun, Liu, Sarma, Bronstein, Solomon, "Dynamic Graph CNN for Learning on Point
Clouds" (ACM Transactions on Graphics 2019), section 5.1 and figure 3, and its released code, pytorch/model.py of
github.com/WangYueFt/dgcnn.

Where the two differ, the code is followed: the last shared layer is pooled by max and mean (the paper says max and
sum). Neither has the spatial transformer of the first version (arXiv 2018).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from pointnet.layers.edge_conv import LEAKY_RELU, EdgeConv
from pointnet.layers.shared_layer import max_of_points
from pointnet.layers.shared_mlp import SharedMLP, scaled
from pointnet.ops.masked import Lengths, point_mask

from .pretrained import Pretrained, check_sizes

EDGE_WIDTHS, LAST_WIDTHS = (64, 64, 128, 256), (1024, 512, 256)


class DGCNNClassifier(Pretrained, name="dgcnn"):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    Four EdgeConvs, 64, 64, 128, 256, each on the graph of the nearest neighbours among the features before it; a shared
    layer of 1,024 on all their outputs together, pooled by max and by mean; then 512, 256 with dropout 0.5 each, then
    one Linear. All with batch norm and LeakyReLU 0.2. 1,809,320 parameters at 40 classes: the released code has 256
    more, a bias before a norm, which cancels it; and the two halves of an edge are the other way round there.

    At 1,024 points 630.7 M multiply-adds per cloud and 275.8 M to find neighbours; on edges, as it is usually written,
    2,391.4 M and 271.6 M.

    The mean over points is that of LeakyReLU(y) = 0.2 y + 0.8 relu(y), and relu has no shortcut, so the last layer's
    (B, 1024, N) is held. No point is independent of the others: there are no critical points.

    Args:
        num_classes: how many classes.
        in_channels: C; xyz first.
        neighbours: K of each graph; a point is its own nearest.
        dropout: after each hidden layer of the head.
        width: of all layers, relative to the published; multiples of 8.

    Raises:
        ValueError: fewer than one class, channel or neighbour.
    """

    source = "DGCNN (Wang et al., ACM Transactions on Graphics 2019)"

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 3,
        neighbours: int = 20,
        dropout: float = 0.5,
        width: float = 1.0,
    ):
        super().__init__()
        self.least_points = neighbours + 1
        check_sizes(num_classes)
        edges, (feature, *head) = scaled(EDGE_WIDTHS, width), scaled(LAST_WIDTHS, width)
        self.edges = nn.ModuleList(EdgeConv(c, d, neighbours) for c, d in pairwise([in_channels, *edges]))
        self.mlp = SharedMLP([sum(edges), feature], activation=LEAKY_RELU)
        self.head = SharedMLP([2 * feature, *head], activation=LEAKY_RELU, dropout=dropout).to_linear()
        self.logits = nn.Linear(head[-1], num_classes)

    def forward(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, num_classes) logits; lengths as of `EdgeConv.forward`."""
        found = []
        for edge_conv in self.edges:
            x = edge_conv(x, lengths)
            found.append(x)
        y = self.mlp(torch.cat(found, 1), lengths=lengths)
        mask = None if lengths is None else point_mask(lengths, y)
        count = y.shape[2] if lengths is None else lengths.to(y.device).unsqueeze(1)
        return self.logits(self.head(torch.cat([max_of_points(y, mask), y.sum(2) / count], 1)))
