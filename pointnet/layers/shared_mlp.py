"""The shared MLP: one small network applied to every point alike (PointNet, section 4.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import cast, overload

from torch import Tensor, nn

from pointnet.ops.aligned import Transform
from pointnet.ops.hooks import has_hooks
from pointnet.ops.masked import Lengths, Mask, fill_padding, point_mask

from .chain import Chain
from .shared_layer import BatchNormLast, Context, SharedLayer, as_sequence, max_of_points
from .views import linear_to_conv1d

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish,
    "hardswish": nn.Hardswish, "softplus": nn.Softplus, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
}  # fmt: skip
ActivationLike = str | type[nn.Module] | nn.Module | Callable[[Tensor], Tensor] | None


class SharedMLP(nn.Module):
    """Applies the same stack of layers to each point: (B, C, N) -> (B, D, N).

    A layer is a convolution of kernel size 1, which *is* one Linear applied to each point, then batch norm over all
    points of the batch, an activation and dropout. `to_linear()` gives the same network as a stack of Linears.

    Args:
        widths: [C, ..., D], the channels in, between the layers, and out.
        norm: "batch" or None.
        activation: a name ("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "softplus", "sigmoid",
            "tanh"), a module class, a module (copied for each layer), an elementwise function, or None.
        last_activation: False ends the last layer after its norm, without activation and dropout.
        dropout: probability of dropping each number after each activation, in [0, 1).
        bias: whether the convolutions have one; None: only where no norm follows, since batch norm cancels it.

    `len(mlp)`, `mlp[i]` and `mlp[i:j]` work as on `nn.Sequential`; what they return shares weights with `mlp`.
    State-dict keys are `layers.0.conv.weight`, `layers.0.norm.running_mean`, ...

    Raises:
        ValueError: an argument outside the values above.
    """

    def __init__(
        self,
        widths: Sequence[int],
        norm: str | None = "batch",
        activation: ActivationLike = "relu",
        last_activation: bool = True,
        dropout: float = 0.0,
        bias: bool | None = None,
    ):
        super().__init__()
        whole = isinstance(widths, Sequence) and all(isinstance(width, int) and width > 0 for width in widths)
        if not whole or len(widths) < 2:
            raise ValueError(f"widths must be [C, ..., D], two or more positive integers, got {widths!r}")
        if norm not in ("batch", None):
            raise ValueError(f"norm must be 'batch' or None, got {norm!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
        if last_activation not in (True, False):
            raise ValueError(f"last_activation must be True or False, got {last_activation!r}")
        if bias not in (True, False, None):
            raise ValueError(f"bias must be True, False or None, got {bias!r}")
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            SharedLayer(
                nn.Conv1d(c, d, 1, bias=norm is None if bias is None else bias),
                nn.BatchNorm1d(d) if norm == "batch" else None,
                make_activation(activation) if last_activation or i < last else None,
                nn.Dropout(dropout) if dropout and (last_activation or i < last) else None,
            )
            for i, (c, d) in enumerate(pairwise(widths))
        )

    def forward(
        self, x: Tensor, context: Context = None, lengths: Lengths = None, transform: Transform = None
    ) -> Tensor:
        """(B, C, N) -> (B, D, N).

        Args:
            x: the points, (B, C, N).
            context: (B, E), one vector per cloud, whose E numbers are further channels of each of its points. The first
                layer then has C + E channels in, columns [x | context], and adds W2 g as a per-cloud bias
                (identity 5: W [x; g] = W1 x + W2 g), so that the concatenation is never built. Channels that differ
                from point to point, (B, E, N), add a product of their own. A sequence holds several of either, columns
                in its order; if x is among them (because the first columns see it transformed), both are one product.
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist. The rest may hold anything
                and come out 0.
            transform: (B, dim, dim), by which the first dim channels of each point are multiplied first, as by
                `align`. It is folded into the first weight (identity 6: W (T^T x) = (W T^T) x).

        Raises:
            ValueError: a wrong shape, or no points.
            TypeError: no tensor, or a dtype other than the weights' (outside autocast).
        """
        return self[-1](*self._to_last(x, context, lengths, transform))

    def max_pool(
        self, x: Tensor, context: Context = None, lengths: Lengths = None, transform: Transform = None
    ) -> Tensor:
        """The largest value of each channel over the points of each cloud: (B, C, N) -> (B, D).

        Equal to `mlp(x, context, lengths, transform).max(-1).values` over the points that exist, in value, running
        statistics and, where the winner is unique, gradient; but the last layer's (B, D, N) is not held (identities 2
        to 4, see `pointnet.ops.pooled`), unless that layer has a hook, a dropout, an unknown norm or activation, or,
        being the only one, a context or a transform. Arguments and errors are those of `forward`.
        """
        if has_hooks(self):  # they run only if it is called: by definition
            mask = None if lengths is None else point_mask(lengths, x)
            return max_of_points(self(x, context, lengths, transform), mask)
        if context is not None:
            return self[-1].max_pool(*self._to_last(x, context, lengths, transform))
        self[0].check(x)
        mask = None if lengths is None else point_mask(lengths, x)
        return Chain(fill_padding(x, mask), mask).max_pool(self, transform)

    def winners(self, x: Tensor, lengths: Lengths = None, transform: Transform = None) -> Tensor:
        """Which points `max_pool` would take, (B, K) indices into the N points, with repetitions.

        K is D, or 2 D for an activation that falls and then rises, where a max may come from either end. Shapes and
        errors are those of `forward`.
        """
        x, _, mask, transform = self._to_last(x, None, lengths, transform)
        return self[-1].winners(x, mask, transform)

    def _to_last(
        self, x: Tensor, context: Context, lengths: Lengths, transform: Transform
    ) -> tuple[Tensor, Context, Mask, Transform]:
        """What the last layer takes: its input, the context and transform if it is also the first, and the mask."""
        self[0].check(x, context)
        mask = None
        if lengths is not None:
            given, mask = x, point_mask(lengths, x)
            x = fill_padding(given, mask)
            parts = (x if each is given else each for each in as_sequence(context))
            context = [each if each.dim() == 2 or each is x else fill_padding(each, mask) for each in parts]
        for layer in list(self)[:-1]:
            x = layer(x, context, mask, transform)
            context = transform = None
        return x, context, mask, transform

    def to_linear(self) -> nn.Sequential:
        """A copy as Linears on (..., C) -> (..., D): the small network itself.

        Raises:
            ValueError: a norm that is not one of each channel; a hook on the MLP, a layer or a convolution.
        """
        if has_hooks(self):
            raise ValueError("a hook is on the shared MLP, which the copy would lose; remove it first")
        modules = [module for layer in self for module in layer.to_linear()]
        return nn.Sequential(*modules).train(self.training)

    @classmethod
    def from_linear(cls, network: nn.Sequential) -> SharedMLP:
        """A copy of a stack of Linears, as the shared MLP that applies it to each point; undoes `to_linear`.

        `network` holds, for each layer, a Linear, then optionally a BatchNorm1d, an activation and a Dropout.

        Raises:
            ValueError: anything else, or layers whose widths do not follow on each other.
        """
        layers: list[SharedLayer] = []
        rest: tuple[str, ...] = ()  # what the last layer may still get
        for i, module in enumerate(network):
            if isinstance(module, nn.Linear):
                layers.append(SharedLayer(linear_to_conv1d(module)))
                rest = ("norm", "activation", "dropout")
                continue
            slot = _slot_of(module)
            if slot not in rest:
                order = "Linear, BatchNorm1d, activation, Dropout, in that order"
                raise ValueError(f"network must be {order}; module {i} is {type(module).__name__}")
            setattr(layers[-1], slot, copy.deepcopy(module.norm if isinstance(module, BatchNormLast) else module))
            rest = rest[rest.index(slot) + 1 :]
        for i, (layer, following) in enumerate(pairwise(layers)):
            if layer.conv.out_channels != following.conv.in_channels:
                wanted, got = layer.conv.out_channels, following.conv.in_channels
                raise ValueError(f"layer {i + 1} must take {wanted} channels, got {got}")
        return cls._of(layers).train(network.training)

    @classmethod
    def _of(cls, layers: Sequence[SharedLayer]) -> SharedMLP:
        if not layers:
            raise ValueError("a SharedMLP must have at least one layer, got none")
        mlp = cls.__new__(cls)
        nn.Module.__init__(mlp)
        mlp.layers = nn.ModuleList(layers)
        return mlp

    @property
    def widths(self) -> list[int]:
        """[C, ..., D]."""
        return [self[0].conv.in_channels] + [layer.conv.out_channels for layer in self]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[SharedLayer]:
        return (cast(SharedLayer, layer) for layer in self.layers)

    @overload
    def __getitem__(self, index: int) -> SharedLayer: ...
    @overload
    def __getitem__(self, index: slice) -> SharedMLP: ...
    def __getitem__(self, index: int | slice) -> SharedLayer | SharedMLP:
        if isinstance(index, slice):
            return self._of(list(self)[index]).train(self.training)
        return cast(SharedLayer, self.layers[index])


def scaled(widths: Sequence[int], share: float) -> list[int]:
    """That share of the widths, in multiples of 8: other widths run slower than their size suggests. A share of 1
    leaves them as they are.

    Raises:
        ValueError: a share of 0 or less.
    """
    if not 0 < share < math.inf:
        raise ValueError(f"width must be above 0, got {share:g}")
    return [width if share == 1 else max(8, 8 * round(width * share / 8)) for width in widths]


class Elementwise(nn.Module):
    """A function of one number, applied to each: (...) -> (...)."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def make_activation(activation: ActivationLike) -> nn.Module | None:
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
        if not _is_elementwise(activation):
            raise ValueError(f"activation must treat each number alike, got {activation!r}")
        return copy.deepcopy(activation)
    if not callable(activation):
        raise ValueError(f"activation must be a name, a module, a function or None, got {activation!r}")
    return Elementwise(cast(Callable[[Tensor], Tensor], activation))


def _slot_of(module: nn.Module) -> str:
    """Which part of a `SharedLayer` the module is, beside the convolution; empty where it is none."""
    if isinstance(module, nn.BatchNorm1d | BatchNormLast):
        return "norm"
    if isinstance(module, nn.Dropout):
        return "dropout"
    return "activation" if _is_elementwise(module) else ""


def _is_elementwise(module: nn.Module) -> bool:
    """False for PyTorch's own modules that mix channels or points; any other module is assumed to be elementwise."""
    kind = type(module)
    if not kind.__module__.startswith("torch.nn"):
        return True
    if isinstance(module, nn.PReLU):
        return module.num_parameters == 1
    mixing = (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d, nn.GLU, nn.MultiheadAttention)
    return kind is nn.Identity or (kind.__module__ == nn.ReLU.__module__ and kind not in mixing)
