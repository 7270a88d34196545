"""Clouds of any size (identity 9), and the points that decide (identity 10): in eval mode no point sees another."""

from collections.abc import Callable, Iterable
from typing import TypeGuard

import torch
from torch import Tensor, nn

from pointnet.layers.shared_layer import SharedLayer
from pointnet.ops.hooks import warn_of_hooks
from pointnet.ops.masked import Lengths, sees_other_points, takes_statistics

from .encoder import PointNetEncoder, PointNetModel
from .own import has_own_forward

CHUNKED = "its layers are called on a part of the points at a time"  # why its hooks do not run


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
        ValueError: in training mode or without running statistics, where every point takes part in the norms; or a
            network without `has_critical_points`.
        TypeError: no network, such as the name of one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a network, got {type(model).__name__}; load_model gives one by its name")
    check_points_are_independent(model)
    encoder = model.encoder if isinstance(model, PointNetModel) else model
    if not isinstance(encoder, PointNetEncoder):
        raise ValueError(
            f"a {type(model).__name__} has no critical points: it is no PointNet, its points see each other"
        )
    if not has_critical_points(model):
        raise ValueError(f"a {type(model).__name__} has a forward of its own, which may see other points")
    _, transforms, (features,) = encoder.encode(x, lengths, keep=[len(encoder.mlp1)])
    critical = torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
    for tnet, points in ((encoder.input_tnet, x), (encoder.feature_tnet, features)):
        if tnet is not None:
            critical.scatter_(1, tnet.mlp.winners(points, lengths), True)
    return critical.scatter_(1, encoder.mlp2.winners(features, lengths, transforms.feature), True)


def has_critical_points(model: nn.Module) -> TypeGuard[PointNetModel | PointNetEncoder]:
    """Whether it is a PointNet, with the library's own `forward`."""
    own = has_own_forward(model) or (isinstance(model, PointNetModel) and has_own_forward(model.encoder))
    return isinstance(model, PointNetModel | PointNetEncoder) and not own


def points_are_independent(model: nn.Module) -> bool:
    """Whether every norm has fixed statistics, so that no point sees another."""
    try:
        check_points_are_independent(model)
    except ValueError:
        return False
    return True


def check_points_are_independent(model: nn.Module) -> None:
    """Raises ValueError unless every norm has fixed statistics, so that no point sees another."""
    if model.training:
        raise ValueError("this needs a network in eval mode; call model.eval() first")
    for name, module in model.named_modules():
        if module is model or isinstance(module, PointNetEncoder):
            warn_of_hooks(module, CHUNKED)
        if isinstance(module, nn.BatchNorm1d) and takes_statistics(module):
            raise ValueError(f"{name} takes its statistics from the batch, so no point is independent of the others")
        norm: nn.Module | None = module.norm if isinstance(module, SharedLayer) else None
        if norm is not None and not isinstance(norm, nn.BatchNorm1d) and sees_other_points(norm):
            raise ValueError(f"{name}.norm is a {type(norm).__name__}: no point is independent of the others")
