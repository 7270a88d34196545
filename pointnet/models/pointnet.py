"""PointNet as published: Qi, Su, Mo, Guibas, "PointNet: Deep Learning on Point Sets for 3D Classification and
Segmentation" (CVPR 2017), figure 2."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, overload

import torch
from torch import Tensor, nn

from pointnet.layers.folding import fold_norms
from pointnet.layers.shared_mlp import SharedMLP
from pointnet.layers.tnet import PUBLISHED_TNET, TNet, orthogonality_loss
from pointnet.ops.masked import fill_padding, point_mask

from .pretrained import Pretrained

M = TypeVar("M", bound="PointNetModel")
# The widths of the shared layers, before and after the feature transform, and of the head's hidden layers.
PUBLISHED, PUBLISHED_CLASSIFIER_HEAD = ((64, 64), (64, 128, 1024)), (512, 256)


class Transforms(NamedTuple):
    """What the T-Nets predicted, (B, dim, dim) each; None where a network has no such T-Net."""

    input: Tensor | None
    feature: Tensor | None


class Encoding(NamedTuple):
    """What an encoder makes of points: a feature (B, D) for each cloud, the matrices of its T-Nets, and the outputs
    (B, D_i, N) of the shared layers that were asked for."""

    feature: Tensor
    transforms: Transforms
    per_point: tuple[Tensor, ...]


class PointNetEncoder(nn.Module):
    """One feature vector a cloud, whatever the order of its points: (B, C, N) -> (B, 1024).

    Five shared layers, 64, 64 | 64, 128, 1024, all with batch norm and ReLU, then the max over the points. The input
    T-Net turns xyz before the first layer, the feature T-Net turns the 64 channels between the second and the third.
    Popular ports have three, 64 | 128, 1024, without the last ReLU: `widths=((64,), (128, 1024)),
    last_activation=False`.

    Args:
        in_channels: C >= 3; xyz first. Further channels are seen by the input T-Net but not turned by it.
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
        widths: Sequence[Sequence[int]] = PUBLISHED,
        last_activation: bool = True,
        tnet_widths: Sequence[Sequence[int]] = PUBLISHED_TNET,
    ):
        super().__init__()
        if in_channels < 3:
            raise ValueError(f"in_channels must be 3 (xyz) or more, got {in_channels}")
        if len(widths) != 2 or not all(widths):
            raise ValueError(f"widths must be those before and those after the feature transform, got {widths!r}")
        before, after = widths
        self.tnet_widths = [list(widths) for widths in tnet_widths]
        self.input_tnet = TNet(3, in_channels, tnet_widths) if input_transform else None
        self.feature_tnet = TNet(before[-1], widths=tnet_widths) if feature_transform else None
        self.mlp1 = SharedMLP([in_channels, *before])
        self.mlp2 = SharedMLP([before[-1], *after], last_activation=last_activation)

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
        feature, transforms, _ = self.encode(x, lengths)
        return (feature, transforms) if return_transforms else feature

    def encode(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        keep: Collection[int] = (),
        of: Encoding | None = None,
    ) -> Encoding:
        """(B, C, N) -> all that a head may want.

        Args:
            keep: the layers whose outputs it wants, the first being 1.
            of: what was made of the clouds that the points are of, if they are not the whole of them; its feature and
                its matrices are taken, and none is made of x.
        """
        self.mlp1[0].check(x)
        mask = None if lengths is None else point_mask(lengths, x)
        x = fill_padding(x, mask)
        transforms: list[Tensor | None] = []
        per_point: list[Tensor] = []
        number = 0
        *most, last = self.mlp2
        known = of.transforms if of else (None, None)
        for tnet, transform, layers in (
            (self.input_tnet, known[0], self.mlp1),
            (self.feature_tnet, known[1], most),
        ):
            if tnet is not None and transform is None:
                transform = tnet(x, lengths)
            transforms.append(transform)
            for layer in layers:
                x, transform = layer(x, mask=mask, transform=transform), None
                number += 1
                if number in keep:
                    per_point.append(x)
        feature = of.feature if of else last.max_pool(x, mask=mask, transform=transform)
        return Encoding(feature, Transforms(*transforms), tuple(per_point))

    @torch.no_grad()
    def pool_chunks(self, chunks: Iterable[Tensor]) -> Tensor:
        """The feature of clouds of any size, in the memory of one chunk (identity 9): -> (B, 1024).

        The max over a cloud is the max over its chunks' maxes, so one pass over the chunks gives each of the
        network's maxes: one for the encoder's and one more for each T-Net. Equal to the cloud given whole.

        Args:
            chunks: (B, C, N_i) each, of the same B clouds; iterated over afresh for each pass.

        Raises:
            ValueError: in training mode or without running statistics, where the norms would need the whole cloud; no
                chunks, or of different numbers of clouds; or an iterator that can be read only once while there are
                T-Nets.
        """
        check_points_are_independent(self)
        if iter(chunks) is chunks and (self.input_tnet is not None or self.feature_tnet is not None):
            raise ValueError("chunks must be readable more than once, as a list is: each T-Net takes a pass of its own")
        input_transform = feature_transform = None
        if self.input_tnet is not None:
            input_transform = self.input_tnet.matrix_of(_max_of_chunks(self.input_tnet.mlp.max_pool, chunks))

        def features(chunk: Tensor) -> Tensor:
            return self.mlp1(chunk, transform=input_transform)

        if self.feature_tnet is not None:
            tnet = self.feature_tnet
            pooled = _max_of_chunks(lambda chunk: tnet.mlp.max_pool(features(chunk)), chunks)
            feature_transform = tnet.matrix_of(pooled)
        return _max_of_chunks(lambda chunk: self.mlp2.max_pool(features(chunk), transform=feature_transform), chunks)

    def fold(self) -> PointNetEncoder:
        """A copy for inference with every batch norm folded into the weights before it (identity 8)."""
        return fold_norms(self)


class PointNetModel(Pretrained):
    """What the networks have in common: an encoder, and the loss of its feature transform.

    Args:
        regularization_weight: of the orthogonality loss in `regularization`. The default is the published 1e-3 of
            half the batch's sum, at batch 32, for our mean over clouds.
    """

    def __init__(self, encoder: PointNetEncoder, regularization_weight: float = 0.016):
        super().__init__()
        self.regularization_weight = regularization_weight
        self.encoder = encoder

    @property
    def arguments(self) -> dict[str, Any]:
        encoder = self.encoder
        return {
            "in_channels": encoder.mlp1.widths[0],
            "input_transform": encoder.input_tnet is not None,
            "feature_transform": encoder.feature_tnet is not None,
            "regularization_weight": self.regularization_weight,
            "widths": [encoder.mlp1.widths[1:], encoder.mlp2.widths[1:]],
            "tnet_widths": encoder.tnet_widths,
        }

    def fold(self: M) -> M:
        """A copy for inference with every batch norm folded into the weights before it (identity 8)."""
        return fold_norms(self)

    def regularization(self, transforms: Transforms) -> Tensor:
        """The weighted orthogonality loss of the feature transform, float32; 0 without one."""
        if transforms.feature is None:
            return next(self.parameters()).new_zeros(())
        return self.regularization_weight * orthogonality_loss(transforms.feature)


class PointNetClassifier(PointNetModel):
    """Scores a cloud for each class: (B, C, N) -> (B, num_classes) logits.

    The encoder, then 512, 256 with dropout 0.3 each, then one Linear. 3,473,969 parameters at 40 classes, 817,512
    without T-Nets; 448.0 M multiply-adds a cloud of 1,024 points.

    Args:
        num_classes: how many classes.
        in_channels, input_transform, feature_transform, widths, last_activation, tnet_widths: as of `PointNetEncoder`.
        regularization_weight: as of `PointNetModel`.
        head_widths: of the hidden layers of the head.
        dropout: after each of those.
    """

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 3,
        input_transform: bool = True,
        feature_transform: bool = True,
        regularization_weight: float = 0.016,
        widths: Sequence[Sequence[int]] = PUBLISHED,
        last_activation: bool = True,
        head_widths: Sequence[int] = PUBLISHED_CLASSIFIER_HEAD,
        dropout: float = 0.3,
        tnet_widths: Sequence[Sequence[int]] = PUBLISHED_TNET,
    ):
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        transforms = input_transform, feature_transform
        encoder = PointNetEncoder(in_channels, *transforms, widths, last_activation, tnet_widths)
        super().__init__(encoder, regularization_weight)
        self.head = SharedMLP([widths[1][-1], *head_widths], dropout=dropout).to_linear()
        self.logits = nn.Linear(head_widths[-1], num_classes)

    @property
    def arguments(self) -> dict[str, Any]:
        own = {
            "num_classes": self.num_outputs,
            "last_activation": self.encoder.mlp2[-1].activation is not None,
            "head_widths": [part.out_features for part in self.head if isinstance(part, nn.Linear)],
            "dropout": next((part.p for part in self.head if isinstance(part, nn.Dropout)), 0.0),
        }
        return {**super().arguments, **own}

    @property
    def num_outputs(self) -> int:
        return self.logits.out_features

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

    @torch.no_grad()
    def classify_chunks(self, chunks: Iterable[Tensor]) -> Tensor:
        """The logits (B, num_classes) of clouds of any size, given in chunks as to `PointNetEncoder.pool_chunks`."""
        return self.logits(self.head(self.encoder.pool_chunks(chunks)))


@torch.no_grad()
def critical_points(model: PointNetClassifier | PointNetEncoder, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The points that decide: (B, C, N) -> (B, N) bool, the winners of every max of the network (identity 10).

    In eval mode the output depends on these alone: dropping any others leaves it unchanged within rounding. It is the
    critical set of PointNet's theorem 2, with the T-Nets' maxes included.

    Raises:
        ValueError: in training mode or without running statistics, where every point takes part in the norms.
    """
    check_points_are_independent(model)
    encoder = model.encoder if isinstance(model, PointNetClassifier) else model
    _, transforms = encoder(x, lengths, return_transforms=True)
    critical = torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
    if encoder.input_tnet is not None:
        critical.scatter_(1, encoder.input_tnet.mlp.winners(x, lengths), True)
    x = encoder.mlp1(x, lengths=lengths, transform=transforms.input)
    if encoder.feature_tnet is not None:
        critical.scatter_(1, encoder.feature_tnet.mlp.winners(x, lengths), True)
    return critical.scatter_(1, encoder.mlp2.winners(x, lengths, transforms.feature), True)


def check_points_are_independent(model: nn.Module) -> None:
    """Raises unless every norm has fixed statistics, so that no point sees another."""
    if model.training:
        raise ValueError("this needs a network in eval mode; call model.eval() first")
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d) and (module.training or module.running_mean is None):
            raise ValueError(f"{name} takes its statistics from the batch, so no point stands alone")


def _max_of_chunks(pool: Callable[[Tensor], Tensor], chunks: Iterable[Tensor]) -> Tensor:
    pooled: Tensor | None = None
    for chunk in chunks:
        of_chunk = pool(chunk)
        if pooled is not None and pooled.shape != of_chunk.shape:
            raise ValueError(f"every chunk must be of the same {len(pooled)} clouds, got {len(of_chunk)}")
        pooled = of_chunk if pooled is None else torch.maximum(pooled, of_chunk)
    if pooled is None:
        raise ValueError("a cloud needs at least one chunk of points, got none")
    return pooled
