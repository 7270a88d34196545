"""Batch norm folded into the weights before it (identity 8): in eval it is affine, so inference needs none."""

import copy
from typing import TypeVar, cast

import torch
from torch import nn

from pointnet.ops.hooks import goes_by, has_hooks

from .shared_layer import BatchNormLast, SharedLayer
from .shared_mlp import SharedMLP

M = TypeVar("M", bound=nn.Module)


def fold_norms(module: M) -> M:
    """A copy of `module`, in eval mode, without the batch norms of shared MLPs and those that follow a Linear.

    W' = g W and b' = beta + g (b - mean), g = gamma / sqrt(variance + eps), of the running statistics; computed in
    float64. Equal to `module` in eval mode within rounding; a BatchNorm1d after a Linear is taken to be of
    vectors (B, D). Other norms stay, but for those of shared MLPs.

    Raises:
        ValueError: a norm without running statistics (`track_running_stats=False`), or in a shared MLP one of another
            kind, which have no fixed affine form; or a layer whose weight is computed by something else (a
            parametrization or a hook).
    """
    try:
        folded = copy.deepcopy(module).eval()
    except RuntimeError as error:  # as of pruned weights, which are computed in each step
        raise ValueError("a weight is computed by something else and cannot be copied; make it a parameter") from error
    if isinstance(folded, nn.Sequential):
        folded = cast(M, _fold_linears(folded, ""))
    for name, each in folded.named_modules():
        if isinstance(each, SharedLayer):
            fold_layer(each, name)
        for child_name, child in each.named_children():
            if isinstance(child, nn.Sequential):
                setattr(each, child_name, _fold_linears(child, f"{name}.{child_name}".lstrip(".")))
    return folded


def _fold_linears(network: nn.Sequential, name: str) -> nn.Sequential:
    if not any(isinstance(module, BatchNormLast | nn.BatchNorm1d) for module in network):
        return network
    if any(has_hooks(module) for module in network.modules()):
        where = name or "the network"
        raise ValueError(
            f"{where}: a hook is on it or on one of its modules, which the copy would lose; remove it first"
        )
    folded, rest = list[nn.Module](), [*network]
    while rest:
        module = rest.pop(0)
        if isinstance(module, nn.Linear) and rest and isinstance(rest[0], BatchNormLast | nn.BatchNorm1d):
            layers = SharedMLP.from_linear(nn.Sequential(module, rest.pop(0)))
            fold_layer(layers[0], f"{name}, layer {len(folded)}".lstrip(", "))
            (module,) = layers.to_linear()
        folded.append(module)
    return nn.Sequential(*folded).train(network.training)


def fold_layer(layer: SharedLayer, name: str) -> None:
    norm, conv = layer.norm, layer.conv
    if norm is None or isinstance(norm, nn.Identity):
        return
    name = name or "the layer"
    if not any(goes_by(norm, kind) for kind in (nn.BatchNorm1d, nn.SyncBatchNorm)):
        raise ValueError(f"{name}: its norm must be BatchNorm1d to be folded, got {type(norm).__name__}")
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{name}: its norm has no running statistics to fold (track_running_stats=False)")
    if "weight" not in conv._parameters or layer.must_call_modules():
        raise ValueError(
            f"{name}: its weight is computed by a hook, a parametrization or a layer of another kind; remove that first"
        )
    with torch.no_grad():
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            gain = gain * norm.weight.double()
        bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
        bias = gain * bias
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        dtype, learns = conv.weight.dtype, conv.weight.requires_grad
        layer.conv = copy.deepcopy(conv)  # it may be shared by layers with norms of their own
        layer.conv.weight = nn.Parameter((conv.weight.double() * gain[:, None, None]).to(dtype), learns)
        layer.conv.bias = nn.Parameter(bias.to(dtype), learns)
    layer.norm = None
