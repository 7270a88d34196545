"""Multiplying each cloud's points by a matrix of its own: the definition, and folded into the next weights."""

import torch
from torch import Tensor

from .masked import check_tensor
from .tracing import makes_a_graph

Transform = Tensor | None  # (B, dim, dim), a matrix of each cloud's own; None: the identity


def check_transform(transform: Tensor, clouds: int, channels: int) -> None:
    """TypeError for what is no tensor, ValueError for what is no matrix of each cloud, of at most so many channels."""
    check_tensor("transform", transform)
    dim = transform.shape[-1] if transform.dim() else 0
    if transform.shape != (clouds, dim, dim) or dim > channels:
        raise ValueError(
            f"transform must be ({clouds}, dim, dim) with dim at most {channels}, got {tuple(transform.shape)}"
        )


def align(x: Tensor, transform: Tensor) -> Tensor:
    """Multiplies each point, as a row, by its cloud's matrix, as published: x'^T = x^T T, so x' = T^T x.

    Args:
        x: (B, C, N). If C is more than dim, the first dim channels are multiplied and the others kept.
        transform: (B, dim, dim).

    Raises:
        ValueError: a transform of another shape, or of more than C dimensions.
    """
    if not makes_a_graph():
        check_transform(transform, *x.shape[:2])
    dim = transform.shape[1]
    if x.shape[1] == dim:
        return transform.transpose(1, 2) @ x
    return torch.cat([transform.transpose(1, 2) @ x[:, :dim], x[:, dim:]], 1)


def fold_transform(weight: Tensor, transform: Tensor) -> Tensor:
    """Weights that take the points as they are in place of aligned ones: (D, C), (B, dim, dim) -> (B, D, C).

    W [T^T x; rest] = [W_dim T^T | W_rest] [x; rest] (identity 6).
    """
    clouds, dim = transform.shape[:2]
    folded = weight[:, :dim] @ transform.transpose(1, 2)
    if dim == weight.shape[1]:
        return folded
    return torch.cat([folded, weight[:, dim:].to(folded.dtype).expand(clouds, -1, -1)], 2)
