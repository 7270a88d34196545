"""A label for every point by PointNet++ (Qi, Yi, Su, Guibas, NIPS 2017, section 3.4 and supplement B; released code:
github.com/charlesq34/pointnet2, models/): what its centres know goes back to the points, level by level.

Departures beside those of `pointnet2`: the category is given to the network of one scale too, as it is to that of
several.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pointnet.layers.feature_propagation import FeaturePropagation
from pointnet.layers.shared_layer import check_points
from pointnet.layers.shared_mlp import SharedMLP, scaled
from pointnet.ops.masked import Lengths

from .pointnet2 import ALL_WIDTHS, SCALES, Levels, PointNet2Classifier, abstractions_of
from .pretrained import Pretrained, check_sizes
from .segmentation import Category, PartLabels

# By level: centres, and radius, neighbours and widths of each scale; then the widths of the way back, the last level's
# first.
PART_LEVELS: dict[str, Levels] = {
    "single": [
        (512, [(0.2, 64, [64, 64, 128])]),
        (128, [(0.4, 64, [128, 128, 256])]),
    ],
    "multi": [
        (512, [(0.1, 32, [32, 32, 64]), (0.2, 64, [64, 64, 128]), (0.4, 128, [64, 96, 128])]),
        (128, [(0.4, 64, [128, 128, 256]), (0.8, 128, [128, 196, 256])]),
    ],
}  # fmt: skip
PART_BACK = {"single": [[256, 256], [256, 128], [128, 128, 128]], "multi": [[256, 256], [256, 128], [128, 128]]}
SCENE_LEVELS: Levels = [
    (1024, [(0.1, 32, [32, 32, 64])]),
    (256, [(0.2, 32, [64, 64, 128])]),
    (64, [(0.4, 32, [128, 128, 256])]),
    (16, [(0.8, 32, [256, 256, 512])]),
]
SCENE_BACK = [[256, 256], [256, 256], [256, 128], [128, 128, 128]]
HEAD_WIDTH = 128
Centres = tuple[Tensor, Tensor]  # of the first level: (B, 3, S) and their features (B, D, S)


class PointNet2Labeller(Pretrained):
    """Set abstractions, feature propagations back to the points, and a head that scores each point.

    Args:
        levels: of the set abstractions.
        all_widths: of one more, over all centres; none if empty.
        back: widths of the propagations, from the last level to the points.
        in_channels: C >= 3; xyz first.
        beside: how many channels each point brings to the last propagation.
        num_outputs: how many logits of a point.
        dropout: after the head's hidden layer.
        width: of all layers, relative to the published; multiples of 8.
    """

    source = PointNet2Classifier.source
    not_exported = PointNet2Classifier.not_exported
    scores_each_point = True

    def __init__(
        self,
        levels: Levels,
        all_widths: Sequence[int],
        back: Sequence[Sequence[int]],
        in_channels: int,
        beside: int,
        num_outputs: int,
        dropout: float,
        width: float,
    ):
        super().__init__()
        check_sizes(in_channels=in_channels)
        abstractions = abstractions_of(levels, all_widths, in_channels - 3, width)
        self.abstractions = nn.ModuleList(abstractions)
        *own, channels = [beside, *(layer.out_channels for layer in abstractions)]
        layers = []
        for of_points, widths in zip(reversed(own), back, strict=True):
            layers.append(FeaturePropagation(channels + of_points, scaled(widths, width)))
            channels = scaled(widths, width)[-1]
        self.propagations = nn.ModuleList(layers)
        self.head = SharedMLP([channels, *scaled([HEAD_WIDTH], width)], dropout=dropout)
        self.logits = SharedMLP([*scaled([HEAD_WIDTH], width), num_outputs], norm=None, activation=None)

    def centres(self, x: Tensor, lengths: Lengths = None) -> Centres:
        """What the centres of the first level know of their clouds: (B, C, N) -> (B, 3, S), (B, D, S)."""
        channels = self.arguments["in_channels"]
        check_points(x, channels)
        points, features = x[:, :3], x[:, 3:] if channels > 3 else None
        levels = []
        for layer in self.abstractions:
            points, features = layer(points, features, lengths)
            lengths = None  # all centres exist
            levels.append((points, features))
        found = levels.pop()
        for layer in list(self.propagations)[:-1]:
            points, features = levels.pop()
            found = points, layer(points, features, *found)
        return found

    def score(self, x: Tensor, own: Sequence[Tensor] | None, centres: Centres, lengths: Lengths = None) -> Tensor:
        """The logits of points (B, C, N), which bring `own` to what the centres know: (B, num_outputs, N)."""
        carried = self.propagations[-1](x[:, :3], own, *centres, lengths)
        return self.logits(self.head(carried, lengths=lengths), lengths=lengths)


class PointNet2PartSegmenter(PartLabels, PointNet2Labeller, name="pointnet2_part"):
    """Scores each point of an object for each part: (B, C, N) -> (B, num_parts, N) logits.

    Two set abstractions, 512 and then 128 centres, one over all of those, and three propagations back to the points,
    which bring their category, one-hot, their coordinates and other channels to the last (pointnet2_part_seg.py and
    pointnet2_part_seg_msg_one_hot.py; the first does not give the category). Then 128 with dropout, and the logits. The
    radii are for clouds in the unit sphere. 1,406,706 parameters at 50 parts and 16 categories, and 1,311.1 M
    multiply-adds per cloud of 2,048 points, each pair counted (with several scales and normals 1,736,122 and
    4,725.0 M). Published: a mean IoU of 85.1 % on ShapeNetPart with normals.

    Args:
        num_parts, num_categories, parts_of: see `PointNetPartSegmenter`.
        in_channels: C >= 3; xyz first. Further channels are features of the points.
        scales: "single" (SSG) or "multi" (MSG).
        dropout: after the head's hidden layer.
        width: of all layers, relative to the published; multiples of 8.

    Raises:
        ValueError: an argument outside the values above.
    """

    def __init__(
        self,
        num_parts: int = 50,
        num_categories: int = 16,
        in_channels: int = 3,
        parts_of: Sequence[Sequence[int]] | None = None,
        scales: str = "single",
        dropout: float = 0.5,
        width: float = 1.0,
    ):
        if scales not in SCALES:
            raise ValueError(f"scales must be {' or '.join(SCALES)}, got {scales!r}")
        self.know(num_parts, num_categories, parts_of)
        sizes = in_channels, num_categories + in_channels, num_parts
        super().__init__(PART_LEVELS[scales], ALL_WIDTHS, PART_BACK[scales], *sizes, dropout, width)

    def forward(self, x: Tensor, category: Category = None, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, num_parts, N) logits.

        Args:
            category, lengths: as of `PointNetPartSegmenter.forward`.
        """
        return self.score_chunk(x, category, self.centres(x, lengths), lengths)

    def see(self, x: Tensor) -> Centres:
        return self.centres(x)

    def score_chunk(self, x: Tensor, category: Category, seen: Centres, lengths: Lengths = None) -> Tensor:
        return self.score(x, [self.one_hot(category, x), x], seen, lengths)


class PointNet2Segmenter(PointNet2Labeller, name="pointnet2_scene"):
    """Scores each point of a scene for each class: (B, C, N) -> (B, num_classes, N) logits.

    Four set abstractions, 1,024, 256, 64 and 16 centres, four propagations back to the points, 128 with dropout, and
    the logits (pointnet2_sem_seg.py). 964,141 parameters at 13 classes and xyz alone, and 823.0 M multiply-adds per
    cloud of 2,048 points, each pair counted. The radii are in the unit of the blocks: metres for blocks of 1.5 m, as
    published for ScanNet.

    Args:
        num_classes: how many classes.
        in_channels: C >= 3; xyz first. The released network takes xyz alone; further channels are features of the
            points, which also go to the last propagation.
        dropout: after the head's hidden layer.
        width: of all layers, relative to the published; multiples of 8.

    Raises:
        ValueError: an argument outside the values above.
    """

    def __init__(self, num_classes: int = 13, in_channels: int = 9, dropout: float = 0.5, width: float = 1.0):
        check_sizes(num_classes)
        sizes = in_channels, in_channels - 3, num_classes
        super().__init__(SCENE_LEVELS, (), SCENE_BACK, *sizes, dropout, width)

    def forward(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, num_classes, N) logits; only the first lengths[b] points of cloud b exist."""
        return self.score(x, [x[:, 3:]] if x.shape[1] > 3 else None, self.centres(x, lengths), lengths)
