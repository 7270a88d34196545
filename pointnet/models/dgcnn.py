"""DGCNN as published: Wang, Sun, Liu, Sarma, Bronstein, Solomon, "Dynamic Graph CNN for Learning on Point Clouds" (ACM
Transactions on Graphics 2019), sections 5.1 and 5.4 and figure 3, and its code in PyTorch: pytorch/model.py of
github.com/WangYueFt/dgcnn to classify, model.py of github.com/AnTao97/dgcnn.pytorch for parts.

Where paper and code differ, the code is followed: to classify, the last shared layer is pooled by max and mean (the
paper says max and sum). The spatial transformer that the classifier of the first version (arXiv 2018) had is in the
network for parts alone.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pointnet.layers.edge_conv import LEAKY_RELU, EdgeConv
from pointnet.layers.shared_layer import check_points, max_of_points
from pointnet.layers.shared_mlp import SharedMLP, scaled
from pointnet.layers.tnet import TNet
from pointnet.ops.aligned import align
from pointnet.ops.masked import Lengths, fill_padding, point_mask

from .pretrained import Pretrained, check_sizes
from .segmentation import Category, PartLabels

EDGE_WIDTHS, LAST_WIDTHS = (64, 64, 128, 256), (1024, 512, 256)
PART_EDGES, PART_FEATURE = ((64, 64), (64, 64), (64,)), 1024  # the widths of each EdgeConv's layers
PART_CATEGORY, PART_HEAD, PART_LAST = 64, (256, 256), 128
PART_TNET = (64, 128), (1024,), (512, 256)  # of the EdgeConv, and before and after the max over the points


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


class SeenByDGCNN(NamedTuple):
    """What the logits of a point depend on beside the point.

    inputs: what each EdgeConv is given, (B, C, N), (B, 64, N), (B, 64, N).
    transform: (B, 3, 3), which aligns the coordinates.
    feature: (B, 1024), the cloud's.
    """

    inputs: tuple[Tensor, ...]
    transform: Tensor
    feature: Tensor


class DGCNNPartSegmenter(PartLabels, name="dgcnn_part"):
    """Scores each point of an object for each part: (B, C, N) -> (B, num_parts, N) logits (section 5.4).

    A T-Net whose first two layers are an EdgeConv, 64, 128 | 1024, max, 512, 256, aligns the coordinates. Three
    EdgeConvs of 64, 64, then 64, 64, then 64, each on the graph of the nearest neighbours among the features before it;
    a shared layer of 1,024 on all their outputs and the max over the points. Each point brings the outputs of the
    EdgeConvs (192), the cloud's feature and its category through a layer of 64 to a head of 256, 256 with dropout and
    128, then the logits. All with batch norm and LeakyReLU 0.2. 1,460,361 parameters at 50 parts and 16 categories, and
    2,364.4 M multiply-adds per cloud of 2,048 points, as usually written 4,304.5 M. Published: a mean IoU of 85.2 % on
    ShapeNetPart.

    A point's logits depend on its nearest points, which are nearer among more points: clouds should have about as many
    as in training. Of a cloud that is labelled in chunks the neighbours are among the points that were seen.

    Args:
        num_parts, num_categories, parts_of: see `PointNetPartSegmenter`.
        in_channels: C >= 3; xyz first. Further channels are neither aligned nor seen by the T-Net (published: xyz).
        neighbours: K of each graph; a point is its own nearest.
        dropout: after each of the head's layers of 256.
        width: of all layers, relative to the published; multiples of 8.

    Raises:
        ValueError: an argument outside the values above.
    """

    source = DGCNNClassifier.source
    scores_each_point = needs_density = True

    def __init__(
        self,
        num_parts: int = 50,
        num_categories: int = 16,
        in_channels: int = 3,
        parts_of: Sequence[Sequence[int]] | None = None,
        neighbours: int = 40,
        dropout: float = 0.5,
        width: float = 1.0,
    ):
        self.know(num_parts, num_categories, parts_of)
        super().__init__()
        check_sizes(in_channels=in_channels)
        self.least_points = neighbours + 1
        (hidden, out), *after = (scaled(each, width) for each in PART_TNET)
        self.tnet_edges = EdgeConv(3, out, neighbours, hidden_channels=hidden)
        self.tnet = TNet(3, out, after, LEAKY_RELU)
        edges, channels = [], in_channels
        for *before, last in (scaled(each, width) for each in PART_EDGES):
            edges.append(EdgeConv(channels, last, neighbours, hidden_channels=before[0] if before else None))
            channels = last
        self.edges = nn.ModuleList(edges)
        feature, kind, *head, last = scaled([PART_FEATURE, PART_CATEGORY, *PART_HEAD, PART_LAST], width)
        channels *= len(edges)  # of all of them together
        self.mlp = SharedMLP([channels, feature], activation=LEAKY_RELU)
        self.category = SharedMLP([num_categories, kind], activation=LEAKY_RELU).to_linear()
        self.head = SharedMLP([channels + feature + kind, *head], activation=LEAKY_RELU, dropout=dropout)
        self.last = SharedMLP([head[-1], last], activation=LEAKY_RELU)
        self.logits = SharedMLP([last, num_parts], norm=None, activation=None, bias=False)

    def forward(self, x: Tensor, category: Category = None, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, num_parts, N) logits.

        Args:
            category, lengths: as of `PointNetPartSegmenter.forward`; lengths as of `EdgeConv.forward` too.
        """
        seen, found = self._see(x, lengths)
        return self._score(found, seen.feature, category, lengths)

    def see(self, x: Tensor) -> SeenByDGCNN:
        return self._see(x)[0]

    def score_chunk(self, x: Tensor, category: Category, seen: SeenByDGCNN) -> Tensor:
        x, found = align(x, seen.transform), list[Tensor]()
        for edge_conv, among in zip(self.edges, seen.inputs, strict=True):
            x = edge_conv(x, among=among)
            found.append(x)
        return self._score(found, seen.feature, category)

    def _see(self, x: Tensor, lengths: Lengths = None) -> tuple[SeenByDGCNN, list[Tensor]]:
        """With the outputs of the EdgeConvs."""
        check_points(x, self.arguments["in_channels"])
        x = fill_padding(x, None if lengths is None else point_mask(lengths, x))
        transform = self.tnet(self.tnet_edges(x[:, :3], lengths), lengths)
        points = [align(x, transform)]
        for edge_conv in self.edges:
            points.append(edge_conv(points[-1], lengths))
        *inputs, _ = points
        feature = self.mlp.max_pool(torch.cat(points[1:], 1), lengths=lengths)
        return SeenByDGCNN(tuple(inputs), transform, feature), points[1:]

    def _score(self, found: Sequence[Tensor], feature: Tensor, category: Category, lengths: Lengths = None) -> Tensor:
        first, *others = found
        context = [*others, feature, self.category(self.one_hot(category, feature))]
        return self.logits(self.last(self.head(first, context, lengths), lengths=lengths), lengths=lengths)
