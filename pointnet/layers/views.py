"""Linear and convolution: the same weights under other names (docs/shared_mlp.md explains and draws each view).

A convolution applies one Linear to each patch of its input. Its kernel says how much that Linear sees: a single point
(kernel 1, the shared MLP), a patch, or everything there is. Each function returns a copy; nothing is shared.

Another kind of layer than the one named is refused with a TypeError, and one that is more than its weight and bias (a
hook, a parametrization, a subclass with a forward of its own) with a ValueError.
"""

from typing import TypeVar

import torch
from torch import nn

from pointnet.ops.hooks import must_call

M = TypeVar("M", bound=nn.Module)


def linear_to_conv1d(linear: nn.Linear) -> nn.Conv1d:
    """The kernel-1 convolution over (B, C, N) that applies `linear` to each point: weight (D, C) -> (D, C, 1)."""
    _check(linear, nn.Linear)
    return _copy_as(nn.Conv1d, linear, linear.in_features, linear.out_features, 1)


def conv1d_to_linear(conv: nn.Conv1d) -> nn.Linear:
    """The layer that a kernel-1 convolution applies to each point: weight (D, C, 1) -> (D, C).

    Raises:
        ValueError: the convolution looks at more than one point, skips some, pads, or splits its channels.
    """
    _check(conv, nn.Conv1d, "one Linear on each point", kernel_size=(1,), stride=(1,), padding=(0,), groups=1)
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
    _check(linear, nn.Linear)
    _check_sizes("shape", "(C, H, W)", shape, 3)
    c, h, w = shape
    if c * h * w != linear.in_features:
        raise ValueError(f"shape must be (C, H, W) with C H W = {linear.in_features}, got {tuple(shape)}")
    return _copy_as(nn.Conv2d, linear, c, linear.out_features, (h, w))


def linear_to_pointwise_conv2d(linear: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution over (B, C, H, W) that applies `linear` to each pixel: weight (D, C) -> (D, C, 1, 1).

    `conv2d_to_linear` undoes it.
    """
    _check(linear, nn.Linear)
    return _copy_as(nn.Conv2d, linear, linear.in_features, linear.out_features, 1)


def conv2d_to_linear(conv: nn.Conv2d) -> nn.Linear:
    """The layer that a convolution applies to each patch: weight (D, C, kh, kw) -> (D, C kh kw).

    It maps the columns of `F.unfold`, which takes the kernel size, stride, padding and dilation (as numbers; where
    padding is "same" or not of zeros, pad the image first and unfold without). With a 1x1 kernel it maps each
    pixel's channels:

        columns = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # (B, C kh kw, L)
        conv(x).flatten(2) == linear(columns.transpose(1, 2)).transpose(1, 2)  # (B, D, L)

    Raises:
        ValueError: the convolution splits its channels into groups, and so is several Linears.
    """
    _check(conv, nn.Conv2d, "one Linear on each patch", groups=1)
    return _copy_as(nn.Linear, conv, conv.weight.flatten(1).shape[1], conv.out_channels)


def summed_conv2d_to_linear(conv: nn.Conv2d, size: tuple[int, int]) -> nn.Linear:
    """The layer that sums a 1x1 convolution's maps over an (H, W) image: weight (D, C, 1, 1) -> (D, C H W).

    `conv(x).sum((2, 3))` is this Linear of `x.flatten(1)`: W sum(x) + H W b. Every position has the same weights, so
    there is no way back from a Linear in general; trained, the copy would become one whose weights differ.

    Raises:
        ValueError: the convolution looks at more than one pixel, skips some, pads, or splits its channels; no image.
    """
    _check(conv, nn.Conv2d, "one Linear on each pixel", kernel_size=(1, 1), stride=(1, 1), padding=(0, 0), groups=1)
    _check_sizes("size", "(H, W)", size, 2)
    h, w = size
    summed = conv2d_to_linear(conv)
    with torch.no_grad():
        weight = summed.weight.repeat_interleave(h * w, dim=1)
        summed.weight, summed.in_features = nn.Parameter(weight, summed.weight.requires_grad), weight.shape[1]
        if summed.bias is not None:
            summed.bias.mul_(h * w)
    return summed


def _copy_as(kind: type[M], source: nn.Linear | nn.Conv1d | nn.Conv2d, *shape: int | tuple[int, int]) -> M:
    """A layer kind(*shape) that holds what `source` has learned, bit for bit, frozen where it is, in the same mode."""
    twin = kind(*shape, bias=source.bias is not None, device="meta")
    for name, tensor in source.named_parameters():
        copied = tensor.detach().reshape(twin.get_parameter(name).shape).clone(memory_format=torch.contiguous_format)
        twin.register_parameter(name, nn.Parameter(copied, tensor.requires_grad))
    return twin.train(source.training)


def _check(layer: nn.Module, wanted: type[nn.Module], what: str = "", **settings: object) -> None:
    """Refuses another kind of layer, one whose numbers are not all in its weight and bias, and other settings."""
    name, kind = "linear" if wanted is nn.Linear else "conv", wanted.__name__
    if not isinstance(layer, wanted):
        raise TypeError(f"{name} must be a {kind}, got {type(layer).__name__}")
    held = {"weight"} if layer.bias is None else {"weight", "bias"}
    if {each for each, _ in layer.named_parameters()} != held or must_call(layer, wanted):
        plain = "with weight and bias its parameters and no hook, parametrization or forward of its own"
        raise ValueError(f"{name} must be a plain {kind}, {plain}; got {type(layer).__name__}")
    for setting, value in settings.items():
        got = getattr(layer, setting)
        # With a kernel of 1 both "valid" and "same" are no padding.
        if got != value and not (setting == "padding" and isinstance(got, str)):
            raise ValueError(f"{name} must have {setting}={value} to be {what}, got {got}")


def _check_sizes(name: str, meaning: str, sizes: tuple[int, ...], count: int) -> None:
    if not isinstance(sizes, tuple | list) or [type(size) for size in sizes] != [int] * count or min(sizes) < 1:
        raise ValueError(f"{name} must be {meaning}, {count} integers of at least 1, got {sizes!r}")
