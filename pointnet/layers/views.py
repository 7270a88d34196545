"""Linear and convolution: the same weights under other names (docs/shared_mlp.md explains and draws each view).

A convolution applies one Linear to each patch of its input. Its kernel says how much that Linear sees: a single point
(kernel 1, the shared MLP), a patch, or everything there is. Each function returns a copy; nothing is shared.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def linear_to_conv1d(linear: nn.Linear) -> nn.Conv1d:
    """The kernel-1 convolution over (B, C, N) that applies `linear` to each point: weight (D, C) -> (D, C, 1)."""
    _check_type("linear", linear, nn.Linear)
    return _copy_as(nn.Conv1d, linear, linear.in_features, linear.out_features, 1)


def conv1d_to_linear(conv: nn.Conv1d) -> nn.Linear:
    """The layer that a kernel-1 convolution applies to each point: weight (D, C, 1) -> (D, C).

    Raises:
        ValueError: the convolution looks at more than one point, skips some, pads, or splits its channels.
    """
    _check_type("conv", conv, nn.Conv1d)
    _check_settings(conv, "one Linear on each point", kernel_size=(1,), stride=(1,), padding=(0,), groups=1)
    return _copy_as(nn.Linear, conv, conv.in_channels, conv.out_channels)


def linear_to_full_conv2d(linear: nn.Linear, shape: tuple[int, int, int]) -> nn.Conv2d:
    """The convolution whose kernel covers a whole (C, H, W) input: weight (D, C H W) -> (D, C, H, W).

    `conv(x)` is `linear(x.flatten(1))` as D maps of one pixel, (B, C, H, W) -> (B, D, 1, 1). On a larger input it
    slides: pixel (i, j) of its output is `linear` of the crop `x[:, :, i : i + H, j : j + W]`, so that a dense
    classifier of crops, its later Linears as `linear_to_pointwise_conv2d`, gives a map of scores in one pass.
    Undoes `conv2d_to_linear`, given the shape of its patch.

    Raises:
        ValueError: (C, H, W) does not hold as many numbers as `linear` takes.
    """
    _check_type("linear", linear, nn.Linear)
    c, h, w = shape
    if min(shape) < 1 or c * h * w != linear.in_features:
        raise ValueError(f"shape must be (C, H, W) with C H W = {linear.in_features}, got {tuple(shape)}")
    return _copy_as(nn.Conv2d, linear, c, linear.out_features, (h, w))


def linear_to_pointwise_conv2d(linear: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution over (B, C, H, W) that applies `linear` to each pixel: weight (D, C) -> (D, C, 1, 1).

    `conv2d_to_linear` undoes it.
    """
    _check_type("linear", linear, nn.Linear)
    return linear_to_full_conv2d(linear, (linear.in_features, 1, 1))


def conv2d_to_linear(conv: nn.Conv2d) -> nn.Linear:
    """The layer that a convolution applies to each patch: weight (D, C, kh, kw) -> (D, C kh kw).

    It maps the columns of `F.unfold`, which takes the kernel size, stride, padding and dilation; padding other than
    with zeros is the caller's, before. With a 1x1 kernel it maps each pixel's channels:

        columns = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # (B, C kh kw, L)
        conv(x).flatten(2) == linear(columns.transpose(1, 2)).transpose(1, 2)  # (B, D, L)

    Raises:
        ValueError: the convolution splits its channels into groups, and so is several Linears.
    """
    _check_type("conv", conv, nn.Conv2d)
    _check_settings(conv, "one Linear on each patch", groups=1)
    return _copy_as(nn.Linear, conv, conv.weight[0].numel(), conv.out_channels)


def summed_conv2d_to_linear(conv: nn.Conv2d, size: tuple[int, int]) -> nn.Linear:
    """The layer that sums a 1x1 convolution's maps over an (H, W) image: weight (D, C, 1, 1) -> (D, C H W).

    `conv(x).sum((2, 3))` is this Linear of `x.flatten(1)`: W sum(x) + H W b. Every position has the same weights, so
    there is no way back from a Linear in general; trained, the copy would become one whose weights differ.

    Raises:
        ValueError: the convolution looks at more than one pixel, skips some, pads, or splits its channels; no image.
    """
    _check_type("conv", conv, nn.Conv2d)
    settings = {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0), "groups": 1}
    _check_settings(conv, "one Linear on each pixel", **settings)
    if min(size) < 1:
        raise ValueError(f"size must be (H, W), each at least 1, got {tuple(size)}")
    h, w = size
    spread = linear_to_pointwise_conv2d(conv2d_to_linear(conv))
    with torch.no_grad():
        spread.weight = nn.Parameter(spread.weight.expand(-1, -1, h, w).contiguous(), spread.weight.requires_grad)
        if spread.bias is not None:
            spread.bias *= h * w
    return _copy_as(nn.Linear, spread, conv.in_channels * h * w, conv.out_channels)


def _copy_as(kind: type[M], source: nn.Linear | nn.Conv1d | nn.Conv2d, *shape: int | tuple[int, int]) -> M:
    """A layer kind(*shape) that holds what `source` has learned, bit for bit, frozen where it is, in the same mode.

    Raises:
        ValueError: the source computes its weight, by a parametrization or a hook.
    """
    if {name for name, _ in source.named_parameters()} - {"weight", "bias"}:
        kind_of_source = type(source).__name__
        raise ValueError(f"the {kind_of_source}'s weight is computed by a hook or a parametrization; remove that first")
    bias, weight = source.bias is not None, source.weight
    twin = cast(M, nn.utils.skip_init(kind, *shape, bias=bias, device=weight.device, dtype=weight.dtype))
    with torch.no_grad():
        for name, tensor in source.named_parameters():
            target = twin.get_parameter(name)
            target.copy_(tensor.reshape(target.shape)).requires_grad_(tensor.requires_grad)
    return twin.train(source.training)


def _check_type(name: str, layer: nn.Module, wanted: type[nn.Module]) -> None:
    if not isinstance(layer, wanted):
        raise TypeError(f"{name} must be a {wanted.__name__}, got {type(layer).__name__}")


def _check_settings(conv: nn.Conv1d | nn.Conv2d, what: str, **settings: object) -> None:
    for name, wanted in settings.items():
        if (got := getattr(conv, name)) != wanted:
            raise ValueError(f"conv must have {name}={wanted} to be {what}, got {got}")
