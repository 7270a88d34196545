"""PointNet++ as published: Qi, Yi, Su, Guibas, "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a
Metric Space" (NIPS 2017), section 3 and supplement B; released code: github.com/charlesq34/pointnet2, models/.

Departures: no biases before norms, which cancel them; coordinates come before other channels at every scale; PyTorch's
initial weights and epsilon of the norms.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pointnet.layers.set_abstraction import SetAbstraction
from pointnet.layers.shared_layer import check_points
from pointnet.layers.shared_mlp import SharedMLP, scaled
from pointnet.ops.masked import Lengths

from .pretrained import CENTRES_IN_TURN, Pretrained, check_sizes

SCALES = ("single", "multi")
Levels = list[tuple[int, list[tuple[float, int, list[int]]]]]
# Of the classifier, by level: centres, and radius, neighbours and widths of each scale. A last level sees all points.
LEVELS: dict[str, Levels] = {
    "single": [
        (512, [(0.2, 32, [64, 64, 128])]),
        (128, [(0.4, 64, [128, 128, 256])]),
    ],
    "multi": [
        (512, [(0.1, 16, [32, 32, 64]), (0.2, 32, [64, 64, 128]), (0.4, 128, [64, 96, 128])]),
        (128, [(0.2, 32, [64, 64, 128]), (0.4, 64, [128, 128, 256]), (0.8, 128, [128, 128, 256])]),
    ],
}  # fmt: skip
ALL_WIDTHS, HEAD_WIDTHS = [256, 512, 1024], [512, 256]
DROPOUT = {"single": 0.5, "multi": 0.6}


def abstractions_of(levels: Levels, all_widths: Sequence[int], channels: int, width: float) -> list[SetAbstraction]:
    """The set abstractions of these levels, and with `all_widths` one over all; of points with so many channels."""
    layers: list[SetAbstraction] = []
    for centres, scale in levels:
        radii, neighbours, widths = zip(*scale, strict=True)
        of_each = [scaled(w, width) for w in widths]
        layers.append(SetAbstraction(channels, of_each, centres, radii, neighbours, in_order=bool(layers)))
        channels = layers[-1].out_channels
    if all_widths:
        layers.append(SetAbstraction(channels, [scaled(all_widths, width)]))
    return layers


class PointNet2Classifier(Pretrained, name="pointnet2"):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    Two set abstractions, 512 and then 128 centres, a third over all of those, then 512, 256 with dropout and one
    Linear (pointnet2_cls_ssg.py, pointnet2_cls_msg.py). The radii are for clouds in the unit sphere. 1,472,360
    parameters at 40 classes, and 837.5 M multiply-adds per cloud of any size, each pair counted (with several scales
    1,742,856 and 3,915.6 M). Published: 90.7 % on ModelNet40 with 1,024 points, and 91.9 % with 5,000 and normals.

    The first point is the first centre (see `SetAbstraction`). A cloud of fewer different points than centres repeats
    its first.

    Args:
        num_classes: how many classes.
        in_channels: C >= 3; xyz first. Further channels are features of the points.
        scales: "single" (SSG) or "multi" (MSG).
        dropout: after each hidden layer of the head; None: 0.5, or 0.6 with several scales, as in the released code.
        width: of all layers, relative to the published; multiples of 8.

    Raises:
        ValueError: an argument outside the values above.
    """

    source = "PointNet++ (Qi, Yi, Su, Guibas, NIPS 2017)"
    not_exported = CENTRES_IN_TURN

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 3,
        scales: str = "single",
        dropout: float | None = None,
        width: float = 1.0,
    ):
        super().__init__()
        check_sizes(num_classes, in_channels)
        if scales not in SCALES:
            raise ValueError(f"scales must be {' or '.join(SCALES)}, got {scales!r}")
        self.abstractions = nn.ModuleList(abstractions_of(LEVELS[scales], ALL_WIDTHS, in_channels - 3, width))
        head = [scaled(ALL_WIDTHS, width)[-1], *scaled(HEAD_WIDTHS, width)]
        self.head = SharedMLP(head, dropout=DROPOUT[scales] if dropout is None else dropout).to_linear()
        self.logits = nn.Linear(head[-1], num_classes)

    def forward(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, num_classes) logits; only the first lengths[b] points of cloud b exist."""
        channels: Any = self.arguments["in_channels"]
        check_points(x, channels)
        points, features = x[:, :3], x[:, 3:] if channels > 3 else None
        for layer in self.abstractions:
            points, features = layer(points, features, lengths)
            lengths = None  # all centres exist
        assert features is not None
        return self.logits(self.head(features.squeeze(2)))


class PointNet2MultiScale(PointNet2Classifier, name="pointnet2_msg"):
    """`PointNet2Classifier(scales="multi")` under a name of its own."""

    def __init__(
        self, num_classes: int = 40, in_channels: int = 3, dropout: float = DROPOUT["multi"], width: float = 1.0
    ):
        super().__init__(num_classes, in_channels, "multi", dropout, width)
