"""PointNeXt-S for classes as published: Qian, Li, Peng, Mai, Hammoud, Elhoseiny, Ghanem, "PointNeXt: Revisiting
PointNet++ with Improved Training and Scaling Strategies" (NeurIPS 2022), section 3; released code:
github.com/guochengqian/PointNeXt, cfgs/modelnet40ply2048/pointnext-s.yaml and openpoints/models/backbone/pointnext.py.

Each level takes half of the points before it, 512 centres of 1,024 points. Relative coordinates are divided by the
radius, as the paper says (relative position normalization): some versions of those settings spell that `normalize_xyz`,
which the code ignores, as it reads `normalize_dp`.
"""

from torch import Tensor, nn

from pointnet.layers.set_abstraction import SetAbstraction
from pointnet.layers.shared_mlp import SharedMLP, scaled
from pointnet.ops.masked import Lengths

from .pretrained import CENTRES_IN_TURN, Pretrained, check_sizes

# Radius and neighbours of each level; it has half the centres of the one before, and twice the width.
LEVELS = [(0.15, 32), (0.225, 32), (0.3375, 32), (0.50625, 32)]
STEM_WIDTH, HEAD_WIDTHS = 32, [512, 256]


class PointNextClassifier(Pretrained, name="pointnext_s"):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    A stem, one linear map of each point's channels to 32; four residual set abstractions of two layers, to 64, 128, 256
    and 512, each with half as many centres as there were points; one of 512, 512 over all the last, not residual; then
    512, 256 with dropout and one Linear. S has no InvResMLP blocks. The radii are for clouds in the unit sphere.

    1,373,512 parameters at 40 classes, and 811.1 M multiply-adds per cloud of 1,024 points, each pair counted; with
    `width=2`, the published stem of 64, 4,523,112 and 3,230.7 M. Published for that one: 93.7 ± 0.3 % on ModelNet40.

    The first point is the first centre (see `SetAbstraction`). The stem and the last set abstraction see coordinates as
    they are, so moving a cloud changes its logits.

    Args:
        num_classes: how many classes.
        in_channels: C >= 3; xyz first. The stem sees all of them.
        dropout: after each hidden layer of the head.
        width: of the stem and the set abstractions, relative to a stem of 32, which has a multiple of 8 channels; 2 for
            the published stem of 64. Below 1 the head is narrower too.

    Raises:
        ValueError: an argument outside the values above.
    """

    source = "PointNeXt-S (Qian et al., NeurIPS 2022)"
    not_exported = CENTRES_IN_TURN

    def __init__(self, num_classes: int = 40, in_channels: int = 3, dropout: float = 0.5, width: float = 1.0):
        super().__init__()
        check_sizes(num_classes, in_channels)
        (channels,) = scaled([STEM_WIDTH], width)
        self.stem = SharedMLP([in_channels, channels], norm=None, activation=None)
        layers: list[SetAbstraction] = []
        for radius, most in LEVELS:
            widths = [channels, 2 * channels]
            follows = bool(layers)
            layers.append(SetAbstraction(channels, [widths], None, [radius], [most], True, True, 2, follows))
            channels *= 2
        self.abstractions = nn.ModuleList([*layers, SetAbstraction(channels, [[channels, channels]])])
        head = [channels, *scaled(HEAD_WIDTHS, min(width, 1))]
        self.head = SharedMLP(head, dropout=dropout).to_linear()
        self.logits = nn.Linear(head[-1], num_classes)

    def forward(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """(B, C, N) -> (B, num_classes) logits; only the first lengths[b] points of cloud b exist."""
        features = self.stem(x, lengths=lengths)
        points = x[:, :3]
        for layer in self.abstractions:
            assert isinstance(layer, SetAbstraction)
            points, features = layer(points, features, lengths)
            lengths = layer.existing_centres(lengths)
        return self.logits(self.head(features.squeeze(2)))
