"""PointNet's encoder, and what all networks with one share (Qi, Su, Mo, Guibas, CVPR 2017, figure 2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count
from typing import NamedTuple

from torch import Tensor, nn

from pointnet.layers.chain import Chain
from pointnet.layers.folding import fold_norms
from pointnet.layers.shared_layer import max_of_points
from pointnet.layers.shared_mlp import SharedMLP
from pointnet.layers.tnet import TNET_WIDTHS, TNet, orthogonality_loss
from pointnet.ops.aligned import Transform
from pointnet.ops.hooks import warn_of_hooks
from pointnet.ops.masked import Lengths, fill_padding, point_mask

from .pretrained import Pretrained, check_sizes

ENCODER_WIDTHS = ((64, 64), (64, 128, 1024))  # as published: before and after the feature transform


class Transforms(NamedTuple):
    """The T-Nets' matrices, (B, dim, dim) each; None where a network has no such T-Net."""

    input: Transform
    feature: Transform


Output = Tensor | tuple[Tensor, Transforms]  # of a network: with its T-Nets' matrices where they are asked for


class Encoding(NamedTuple):
    """An encoder's results: a feature (B, D) per cloud, the T-Nets' matrices, and the outputs (B, D_i, N) of those
    shared layers that were asked for."""

    feature: Tensor
    transforms: Transforms
    per_point: tuple[Tensor, ...]


class PointNetEncoder(nn.Module):
    """One feature vector per cloud, whatever the order of its points: (B, C, N) -> (B, 1024).

    Five shared layers, 64, 64 | 64, 128, 1024, all with batch norm and ReLU, then the max over the points. The input
    T-Net's matrix multiplies xyz before the first layer, the feature T-Net's the 64 channels between the second and
    the third. Popular ports have three layers, 64 | 128, 1024, without the last ReLU:
    `widths=((64,), (128, 1024)), last_activation=False`.

    Args:
        in_channels: C >= 3; xyz first. Further channels are seen by the input T-Net but not multiplied by its matrix.
        input_transform, feature_transform: whether there is such a T-Net.
        widths: of the shared layers before and after the feature transform; the last is that of the feature.
        last_activation: whether a ReLU stands before the max.
        tnet_widths: of the T-Nets' layers before their max and after it.

    Raises:
        ValueError: fewer than three channels, or widths that are not in two groups.
    """

    def __init__(
        self,
        in_channels: int = 3,
        input_transform: bool = True,
        feature_transform: bool = True,
        widths: Sequence[Sequence[int]] = ENCODER_WIDTHS,
        last_activation: bool = True,
        tnet_widths: Sequence[Sequence[int]] = TNET_WIDTHS,
    ):
        super().__init__()
        check_sizes(in_channels=in_channels)
        if len(widths) != 2 or not all(widths):
            raise ValueError(f"widths must be those before and those after the feature transform, got {widths!r}")
        before, after = widths
        self.input_tnet = TNet(3, in_channels, tnet_widths) if input_transform else None
        self.feature_tnet = TNet(before[-1], widths=tnet_widths) if feature_transform else None
        self.mlp1 = SharedMLP([in_channels, *before])
        self.mlp2 = SharedMLP([before[-1], *after], last_activation=last_activation)

    def forward(
        self,
        x: Tensor,
        lengths: Lengths = None,
        return_transforms: bool = False,
        keep: Collection[int] | None = None,
    ) -> Output | Encoding:
        """(B, C, N) -> (B, 1024), and the T-Nets' matrices if asked for; lengths and errors as of `SharedMLP.forward`.

        With `keep` it returns all that `encode` does.
        """
        encoding = self.encode(x, lengths, keep or ())
        if keep is not None:
            return encoding
        return encoding[:2] if return_transforms else encoding.feature

    def encode(
        self, x: Tensor, lengths: Lengths = None, keep: Collection[int] = (), of: Encoding | None = None
    ) -> Encoding:
        """(B, C, N) -> all that a head may want.

        Args:
            keep: the layers whose outputs it wants, the first being 1. If the pooled one is among them, its output
                exists whole.
            of: the encoding of the whole clouds, where x holds only some of their points: its feature and its matrices
                are taken, and none is computed from x.
        """
        self.mlp1[0].check(x)
        for mlp in (self.mlp1, self.mlp2):
            warn_of_hooks(mlp, "the encoder calls its layers one by one; hook those")
        mask = None if lengths is None else point_mask(lengths, x)
        points = Chain(fill_padding(x, mask), mask)
        transforms: list[Tensor | None] = []
        per_point: list[Tensor] = []
        numbers = count(1)
        *most, last = self.mlp2
        known = of.transforms if of else (None, None)
        for tnet, transform, layers in ((self.input_tnet, known[0], self.mlp1), (self.feature_tnet, known[1], most)):
            if tnet is not None and transform is None:
                transform = tnet.of(points, lengths)
            transforms.append(transform)
            for layer in layers:
                points, transform = points.through(layer, transform), None
                if next(numbers) in keep:
                    points = points.run()
                    per_point.append(points.x)
        if next(numbers) in keep:
            per_point.append(last(points.run().x, mask=mask, transform=transform))
            feature = of.feature if of else max_of_points(per_point[-1], mask)
        else:
            feature = of.feature if of else points.max_pool([last], transform)
        return Encoding(feature, Transforms(*transforms), tuple(per_point))

    fold = fold_norms  # a copy for inference: `encoder.fold()`


class PointNetModel(Pretrained):
    """A network with an encoder, and the loss of the encoder's feature transform.

    Args:
        regularization_weight: of the orthogonality loss in `regularization`. The default is the published 1e-3 of
            half the batch's sum, at batch 32, for our mean over clouds.
    """

    def __init__(self, encoder: PointNetEncoder, regularization_weight: float = 0.016):
        super().__init__()
        self.regularization_weight = regularization_weight
        self.encoder = encoder

    def regularization(self, transforms: Transforms) -> Tensor:
        """The weighted orthogonality loss of the feature transform, a scalar in float32 or better; 0 without one."""
        if transforms.feature is None:
            return next(self.parameters()).new_zeros(())
        return self.regularization_weight * orthogonality_loss(transforms.feature)


class PointNetEmbedder(PointNetModel, name="pointnet_encoder"):
    """A cloud's feature and no more, such as an encoder that was trained elsewhere: (B, C, N) -> (B, 1024).

    It has no logits and is of no task; a network for one can begin with its encoder. Arguments: see `PointNetEncoder`.
    """

    num_outputs = 0

    def __init__(
        self,
        in_channels: int = 3,
        input_transform: bool = True,
        feature_transform: bool = True,
        widths: Sequence[Sequence[int]] = ENCODER_WIDTHS,
        last_activation: bool = True,
        tnet_widths: Sequence[Sequence[int]] = TNET_WIDTHS,
    ):
        transforms = input_transform, feature_transform
        super().__init__(PointNetEncoder(in_channels, *transforms, widths, last_activation, tnet_widths))

    def forward(self, x: Tensor, lengths: Lengths = None, return_transforms: bool = False) -> Output:
        """As of `PointNetEncoder`."""
        return self.encoder(x, lengths, return_transforms)
