"""What the tests of the nine views share: layers in float64, how two spellings are compared, and how one is broken."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.laws import assert_close


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def linear(c: int, d: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(c, d, bias=bias, dtype=torch.float64)


def weights(layer: nn.Module) -> int:
    """How many, without biases."""
    return layer.weight.numel()


def multiply_adds(layer, *shape: int) -> int:
    """As PyTorch counts them in a forward pass, biases not included."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(numbers(*shape))
    return counter.get_total_flops() // 2


def assert_same(one, other, x, layers) -> None:
    """Equal outputs and, for the same random slope, equal gradients of the input, the weight and the bias.

    `layers` are the two that hold the weights, the same numbers in shapes that may differ.
    """
    results = []
    for call, layer in zip((one, other), layers, strict=True):
        points = x.clone().requires_grad_()
        y = call(points)
        slope = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(y, [points, *layer.parameters()], slope)
        results.append([y, gradients[0], *(each.flatten(1) if each.dim() > 1 else each for each in gradients[1:])])
    for i, (got, wanted) in enumerate(zip(*results, strict=True)):
        assert_close(got, wanted, "output" if i == 0 else "gradient")


def slid(layer: nn.Linear, conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The Linear on every patch that the convolution looks at: (B, C, H, W) -> (B, D, L)."""
    columns = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return layer(columns.transpose(1, 2)).transpose(1, 2)


# Broken on purpose.


def changed(name, change):
    """A layer with its weight or bias changed: `change` gives the numbers in another order, or other numbers."""

    def broken(layer):
        tensor = getattr(layer, name)
        tensor.data = change(tensor.detach()).reshape(tensor.shape).contiguous()
        return layer

    return broken


weight_as, bias_as = partial(changed, "weight"), partial(changed, "bias")
