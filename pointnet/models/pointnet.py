"""PointNet as published: Qi, Su, Mo, Guibas, "PointNet: Deep Learning on Point Sets for 3D Classification and
Segmentation" (CVPR 2017), figure 2."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

from torch import Tensor, nn

from pointnet.layers.shared_mlp import SharedMLP
from pointnet.layers.tnet import TNet, orthogonality_loss
from pointnet.ops.masked import fill_padding, point_mask


class Transforms(NamedTuple):
    """What the T-Nets predicted, (B, dim, dim) each; None where a network has no such T-Net."""

    input: Tensor | None
    feature: Tensor | None


class PointNetEncoder(nn.Module):
    """One feature vector a cloud, whatever the order of its points: (B, C, N) -> (B, 1024).

    Five shared layers, 64, 64 | 64, 128, 1024, all with batch norm and ReLU, then the max over the points. The input
    T-Net turns xyz before the first layer, the feature T-Net turns the 64 channels between the second and the third.

    Args:
        in_channels: C >= 3; xyz first. Further channels are seen by the input T-Net but not turned by it.
        input_transform, feature_transform: whether there is such a T-Net.
    """

    def __init__(self, in_channels: int = 3, input_transform: bool = True, feature_transform: bool = True):
        super().__init__()
        if in_channels < 3:
            raise ValueError(f"in_channels must be 3 (xyz) or more, got {in_channels}")
        self.input_tnet = TNet(3, in_channels) if input_transform else None
        self.feature_tnet = TNet(64) if feature_transform else None
        self.mlp1 = SharedMLP([in_channels, 64, 64])
        self.mlp2 = SharedMLP([64, 64, 128, 1024])

    @overload
    def forward(self, x: Tensor, lengths: Tensor | None = ..., return_transforms: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, lengths: Tensor | None = ..., *, return_transforms: Literal[True]
    ) -> tuple[Tensor, Transforms]: ...
    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_transforms: bool = False
    ) -> Tensor | tuple[Tensor, Transforms]:
        """(B, C, N) -> (B, 1024), and the T-Nets' matrices if asked for.

        Args:
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist.
        """
        self.mlp1[0].check(x)
        if lengths is not None:
            x = fill_padding(x, point_mask(lengths, x))
        input_transform = feature_transform = None
        if self.input_tnet is not None:
            input_transform = self.input_tnet(x, lengths)
        x = self.mlp1(x, lengths=lengths, transform=input_transform)
        if self.feature_tnet is not None:
            feature_transform = self.feature_tnet(x, lengths)
        feature = self.mlp2.max_pool(x, lengths=lengths, transform=feature_transform)
        return (feature, Transforms(input_transform, feature_transform)) if return_transforms else feature


class PointNetClassifier(nn.Module):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    The encoder, then 512, 256 with dropout 0.3 each, then one Linear. 3,473,969 parameters at 40 classes, 817,512
    without T-Nets; 448.0 M multiply-adds a cloud of 1,024 points.

    Args:
        num_classes: how many classes.
        in_channels, input_transform, feature_transform: as of `PointNetEncoder`.
        regularization_weight: of the orthogonality loss in `regularization`. The default is the published 1e-3 of
            half the batch's sum, at batch 32, for our mean over clouds.

    `classes` and `preprocessing` are empty until `load_model` fills them in: the names of the logits, and what the
    weights expect of points.
    """

    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any]

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 3,
        input_transform: bool = True,
        feature_transform: bool = True,
        regularization_weight: float = 0.016,
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.preprocessing = {}
        self.regularization_weight = regularization_weight
        self.encoder = PointNetEncoder(in_channels, input_transform, feature_transform)
        self.head = SharedMLP([1024, 512, 256], dropout=0.3).to_linear()
        self.logits = nn.Linear(256, num_classes)

    @overload
    def forward(self, x: Tensor, lengths: Tensor | None = ..., return_transforms: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, lengths: Tensor | None = ..., *, return_transforms: Literal[True]
    ) -> tuple[Tensor, Transforms]: ...
    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_transforms: bool = False
    ) -> Tensor | tuple[Tensor, Transforms]:
        """(B, C, N) -> (B, num_classes) logits, and the T-Nets' matrices if asked for.

        Args:
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist.
        """
        feature, transforms = self.encoder(x, lengths, return_transforms=True)
        logits = self.logits(self.head(feature))
        return (logits, transforms) if return_transforms else logits

    def regularization(self, transforms: Transforms) -> Tensor:
        """The weighted orthogonality loss of the feature transform, float32; 0 without one."""
        if transforms.feature is None:
            return self.logits.weight.new_zeros(())
        return self.regularization_weight * orthogonality_loss(transforms.feature)
