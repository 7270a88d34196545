"""PointNet's encoder (Qi, Su, Mo, Guibas, CVPR 2017, figure 2), what all networks with one share, and loading one.

In eval mode no point sees another: so clouds may be of any size (identity 9), and a few points decide (identity 10).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pointnet.files import AnyPath
from pointnet.layers.folding import fold_norms
from pointnet.layers.shared_mlp import SharedMLP
from pointnet.layers.tnet import TNET_WIDTHS, TNet, orthogonality_loss
from pointnet.ops.aligned import Transform
from pointnet.ops.masked import Lengths, fill_padding, point_mask

from .pretrained import Pretrained, load_folder

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
        if in_channels < 3:
            raise ValueError(f"in_channels must be 3 (xyz) or more, got {in_channels}")
        if len(widths) != 2 or not all(widths):
            raise ValueError(f"widths must be those before and those after the feature transform, got {widths!r}")
        before, after = widths
        self.input_tnet = TNet(3, in_channels, tnet_widths) if input_transform else None
        self.feature_tnet = TNet(before[-1], widths=tnet_widths) if feature_transform else None
        self.mlp1 = SharedMLP([in_channels, *before])
        self.mlp2 = SharedMLP([before[-1], *after], last_activation=last_activation)

    def forward(self, x: Tensor, lengths: Lengths = None, return_transforms: bool = False) -> Output:
        """(B, C, N) -> (B, 1024), and the T-Nets' matrices if asked for; lengths as of `SharedMLP.forward`."""
        feature, transforms, _ = self.encode(x, lengths)
        return (feature, transforms) if return_transforms else feature

    def encode(
        self, x: Tensor, lengths: Lengths = None, keep: Collection[int] = (), of: Encoding | None = None
    ) -> Encoding:
        """(B, C, N) -> all that a head may want.

        Args:
            keep: the layers whose outputs it wants, the first being 1.
            of: the encoding of the whole clouds, where x holds only some of their points: its feature and its matrices
                are taken, and none is computed from x.
        """
        self.mlp1[0].check(x)
        mask = None if lengths is None else point_mask(lengths, x)
        x = fill_padding(x, mask)
        transforms: list[Tensor | None] = []
        per_point: list[Tensor] = []
        numbers = count(1)
        *most, last = self.mlp2
        known = of.transforms if of else (None, None)
        for tnet, transform, layers in ((self.input_tnet, known[0], self.mlp1), (self.feature_tnet, known[1], most)):
            if tnet is not None and transform is None:
                transform = tnet(x, lengths)
            transforms.append(transform)
            for layer in layers:
                x, transform = layer(x, mask=mask, transform=transform), None
                if next(numbers) in keep:
                    per_point.append(x)
        feature = of.feature if of else last.max_pool(x, mask=mask, transform=transform)
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

    fold = fold_norms  # a copy for inference: `model.fold()`

    def regularization(self, transforms: Transforms) -> Tensor:
        """The weighted orthogonality loss of the feature transform, float32; 0 without one."""
        if transforms.feature is None:
            return next(self.parameters()).new_zeros(())
        return self.regularization_weight * orthogonality_loss(transforms.feature)


def load_model(path: AnyPath) -> PointNetModel:
    """The model of a run folder, or of shipped weights by their name; in eval mode, in float32, on the CPU.

    It has `.classes`, a tuple of names in the order of its logits, and `.preprocessing`, what it expects of points.

    Raises:
        ValueError: the folder holds no model, or a file of it is damaged; the message names the file.
    """
    return load_folder(path)


@torch.no_grad()
def pool_chunks(encoder: PointNetEncoder, chunks: Iterable[Tensor]) -> Tensor:
    """The feature of clouds of any size, in the memory of one chunk: -> (B, 1024).

    The max over a cloud is the max over its chunks' maxes, so one pass over the chunks gives each of the network's
    maxes: one for the encoder's and one more for each T-Net. Equal to the encoder's output for the whole clouds.

    Args:
        chunks: (B, C, N_i) each, of the same B clouds; iterated over afresh for each pass.

    Raises:
        ValueError: in training mode or without running statistics, where the norms would need the whole cloud; no
            chunks, or of different numbers of clouds; or an iterator that can be read only once while there are
            T-Nets.
    """
    check_points_are_independent(encoder)
    input_tnet, feature_tnet = encoder.input_tnet, encoder.feature_tnet
    if iter(chunks) is chunks and (input_tnet is not None or feature_tnet is not None):
        raise ValueError("chunks must be readable more than once, as a list is: each T-Net takes a pass of its own")
    input_transform = feature_transform = None
    if input_tnet is not None:
        input_transform = input_tnet.matrix_of(max_of_chunks(input_tnet.mlp.max_pool, chunks))

    def features(chunk: Tensor) -> Tensor:
        return encoder.mlp1(chunk, transform=input_transform)

    if feature_tnet is not None:
        pool = feature_tnet.mlp.max_pool
        feature_transform = feature_tnet.matrix_of(max_of_chunks(lambda chunk: pool(features(chunk)), chunks))
    return max_of_chunks(lambda chunk: encoder.mlp2.max_pool(features(chunk), transform=feature_transform), chunks)


def max_of_chunks(pool: Callable[[Tensor], Tensor], chunks: Iterable[Tensor]) -> Tensor:
    largest: Tensor | None = None
    for pooled in map(pool, chunks):
        if largest is not None and largest.shape != pooled.shape:
            raise ValueError(f"every chunk must be of the same {len(largest)} clouds, got {len(pooled)}")
        largest = pooled if largest is None else torch.maximum(largest, pooled)
    if largest is None:
        raise ValueError("a cloud needs at least one chunk of points, got none")
    return largest


@torch.no_grad()
def critical_points(model: PointNetModel | PointNetEncoder, x: Tensor, lengths: Lengths = None) -> Tensor:
    """The points that decide: (B, C, N) -> (B, N) bool, the winners of every max of the network.

    In eval mode the feature, and with it a classifier's logits, depends on these alone: dropping any others leaves it
    unchanged within rounding. It is the critical set of PointNet's theorem 2, with the T-Nets' maxes included.

    Raises:
        ValueError: in training mode or without running statistics, where every point takes part in the norms.
    """
    check_points_are_independent(model)
    encoder = model.encoder if isinstance(model, PointNetModel) else model
    _, transforms, (features,) = encoder.encode(x, lengths, keep=[len(encoder.mlp1)])
    critical = torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
    for tnet, points in ((encoder.input_tnet, x), (encoder.feature_tnet, features)):
        if tnet is not None:
            critical.scatter_(1, tnet.mlp.winners(points, lengths), True)
    return critical.scatter_(1, encoder.mlp2.winners(features, lengths, transforms.feature), True)


def check_points_are_independent(model: nn.Module) -> None:
    """Raises ValueError unless every norm has fixed statistics, so that no point sees another."""
    if model.training:
        raise ValueError("this needs a network in eval mode; call model.eval() first")
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d) and (module.training or module.running_mean is None):
            raise ValueError(f"{name} takes its statistics from the batch, so no point is independent of the others")
