"""PointNet's classifier as published: Qi, Su, Mo, Guibas, "PointNet: Deep Learning on Point Sets for 3D Classification
and Segmentation" (CVPR 2017), figure 2."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pointnet.layers.shared_mlp import SharedMLP
from pointnet.layers.tnet import TNET_WIDTHS
from pointnet.ops.hooks import warn_of_hooks
from pointnet.ops.masked import Lengths

from .chunks import CHUNKED, pool_chunks
from .encoder import ENCODER_WIDTHS, Output, PointNetEncoder, PointNetModel
from .pretrained import check_sizes

CLASSIFIER_HEAD_WIDTHS = (512, 256)  # as published: of the hidden layers


class PointNetClassifier(PointNetModel, name="pointnet"):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    The encoder, then 512, 256 with dropout 0.3 each, then one Linear. 3,473,969 parameters at 40 classes, 817,512
    without T-Nets; 448.0 M multiply-adds per cloud of 1,024 points.

    Args:
        num_classes: how many classes.
        in_channels, input_transform, feature_transform, widths, last_activation, tnet_widths: see `PointNetEncoder`.
        regularization_weight: see `PointNetModel`.
        head_widths: of the hidden layers of the head.
        dropout: after each of those.

    Raises:
        ValueError: fewer than one class or three channels, or widths that are not as of `PointNetEncoder`.
    """

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 3,
        input_transform: bool = True,
        feature_transform: bool = True,
        regularization_weight: float = 0.016,
        widths: Sequence[Sequence[int]] = ENCODER_WIDTHS,
        last_activation: bool = True,
        head_widths: Sequence[int] = CLASSIFIER_HEAD_WIDTHS,
        dropout: float = 0.3,
        tnet_widths: Sequence[Sequence[int]] = TNET_WIDTHS,
    ):
        check_sizes(num_classes)
        transforms = input_transform, feature_transform
        encoder = PointNetEncoder(in_channels, *transforms, widths, last_activation, tnet_widths)
        super().__init__(encoder, regularization_weight)
        self.head = SharedMLP([widths[1][-1], *head_widths], dropout=dropout).to_linear()
        self.logits = nn.Linear(head_widths[-1], num_classes)

    def forward(self, x: Tensor, lengths: Lengths = None, return_transforms: bool = False) -> Output:
        """(B, C, N) -> (B, num_classes) logits, and the T-Nets' matrices if asked for; lengths and errors: as of the
        encoder."""
        feature, transforms = self.encoder(x, lengths, return_transforms=True)
        logits = self.logits(self.head(feature))
        return (logits, transforms) if return_transforms else logits

    @torch.no_grad()
    def classify_chunks(self, chunks: Iterable[Tensor]) -> Tensor:
        """The logits (B, num_classes) of clouds of any size, given in chunks as to `pool_chunks`."""
        warn_of_hooks(self, CHUNKED)
        return self.logits(self.head(pool_chunks(self.encoder, chunks)))
