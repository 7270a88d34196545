"""What may follow a linear map of each point: functions of single numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
Activation = str | type[nn.Module] | nn.Module | Callable[[Tensor], Tensor] | None


class Elementwise(nn.Module):
    """A function of one number, applied to each: (...) -> (...)."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def make_activation(activation: Activation) -> nn.Module | None:
    """A new module of the activation, given in one of the forms that `SharedMLP` takes.

    Raises:
        ValueError: none of those forms, or a module of PyTorch that mixes channels or points.
    """
    if activation is None:
        return None
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        activation = ACTIVATIONS[activation]
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        activation = activation()
    if isinstance(activation, nn.Module):
        if not is_elementwise(activation):
            raise ValueError(f"activation must treat each number alike, got {activation!r}")
        return copy.deepcopy(activation)
    if not callable(activation):
        raise ValueError(f"activation must be a name, a module, a function or None, got {activation!r}")
    return Elementwise(cast(Callable[[Tensor], Tensor], activation))


def is_elementwise(module: nn.Module) -> bool:
    """False for PyTorch's own modules that mix channels or points; any other module is assumed to be elementwise."""
    kind = type(module)
    if not kind.__module__.startswith("torch.nn"):
        return True
    if isinstance(module, nn.PReLU):
        return module.num_parameters == 1
    mixing = (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d, nn.GLU, nn.MultiheadAttention)
    return kind is nn.Identity or (kind.__module__ == nn.ReLU.__module__ and kind not in mixing)
