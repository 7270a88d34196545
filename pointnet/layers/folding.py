"""Batch norm folded into the weights before it (identity 8): in eval it is affine, so inference needs none."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from .shared_mlp import BatchNormLast, SharedLayer, SharedMLP

M = TypeVar("M", bound=nn.Module)


def fold_norms(module: M) -> M:
    """A copy of `module`, in eval mode, whose shared MLPs and stacks of Linears hold no batch norm.

    W' = g W and b' = beta + g (b - mean), g = gamma / sqrt(variance + eps), of the running statistics; computed in
    float64. Equal to `module` in eval mode within rounding.

    Raises:
        ValueError: a norm without running statistics (`track_running_stats=False`): it has no fixed affine form.
    """
    folded = copy.deepcopy(module).eval()
    for name, part in folded.named_modules():
        if isinstance(part, SharedLayer):
            _fold_layer(part, name)
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Sequential) and any(isinstance(part, BatchNormLast) for part in child):
                setattr(parent, name, fold_norms(SharedMLP.from_linear(child)).to_linear())
    return folded


def _fold_layer(layer: SharedLayer, name: str) -> None:
    norm, conv = layer.norm, layer.conv
    if norm is None:
        return
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{name or 'the layer'}.norm has no running statistics to fold (track_running_stats=False)")
    with torch.no_grad():
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            gain = gain * norm.weight.double()
        bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
        bias = gain * bias
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        dtype = conv.weight.dtype
        conv.weight = nn.Parameter((conv.weight.double() * gain[:, None, None]).to(dtype), conv.weight.requires_grad)
        conv.bias = nn.Parameter(bias.to(dtype), conv.weight.requires_grad)
    layer.norm = None
