"""The shared MLP: one small network applied to every point alike (PointNet, section 4.2)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import cast, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.ops.aligned import align, fold_transform
from pointnet.ops.masked import batch_norm, batch_norm_last, fill_padding, point_mask
from pointnet.ops.pooled import is_poolable, pooled, pooled_winners

from .views import conv1d_to_linear, linear_to_conv1d

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
HALF = (torch.float16, torch.bfloat16)
Activation = str | type[nn.Module] | nn.Module | Callable[[Tensor], Tensor] | None
Context = Tensor | Sequence[Tensor] | None


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

    `len(mlp)`, `mlp[i]` and `mlp[i:j]` work as on `nn.Sequential`; what they give shares weights with `mlp`.
    State-dict keys are `layers.0.conv.weight`, `layers.0.norm.running_mean`, ...

    Raises:
        ValueError: an argument outside the values above.
    """

    def __init__(
        self,
        widths: Sequence[int],
        norm: str | None = "batch",
        activation: Activation = "relu",
        last_activation: bool = True,
        dropout: float = 0.0,
        bias: bool | None = None,
    ):
        super().__init__()
        if len(widths) < 2 or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(f"widths must be [C, ..., D], two or more positive integers, got {widths!r}")
        if norm not in ("batch", None):
            raise ValueError(f"norm must be 'batch' or None, got {norm!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
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
        self,
        x: Tensor,
        context: Context = None,
        lengths: Tensor | None = None,
        transform: Tensor | None = None,
    ) -> Tensor:
        """(B, C, N) -> (B, D, N).

        Args:
            x: the points, (B, C, N).
            context: (B, E), a vector that every point of its cloud is given as E further channels. The first layer
                then has C + E channels in, columns [x | context], and adds its part as a per-cloud bias
                (identity 5: W [x; g] = W1 x + W2 g), so that the concatenation is never built. Channels that differ
                by the point, (B, E, N), add a product of their own. A sequence holds several of either, columns in its
                order; if x is among them (because the first columns see it transformed), both are one product.
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist. The rest may hold anything
                and come out 0.
            transform: (B, dim, dim), by which the first dim channels of each point are multiplied first, as by
                `align`. It is folded into the first weight (identity 6: W (T^T x) = (W T^T) x).

        Raises:
            ValueError: a wrong shape, or no points.
            TypeError: a dtype other than the weights' (outside autocast).
        """
        x, context, mask = self._enter(x, context, lengths)
        for layer in self:
            x = layer(x, context, mask, transform)
            context = transform = None
        return x

    def max_pool(
        self,
        x: Tensor,
        context: Context = None,
        lengths: Tensor | None = None,
        transform: Tensor | None = None,
    ) -> Tensor:
        """The largest value of each channel over the points of each cloud: (B, C, N) -> (B, D).

        Equal to `mlp(x, context, lengths, transform).max(-1).values` over the points that exist, in value, running
        statistics and, where the winner is unique, gradient; but the last layer's (B, D, N) is never held
        (identities 2 to 4, see `pointnet.ops.pooled`). Arguments and errors are those of `forward`.
        """
        x, context, mask = self._enter(x, context, lengths)
        *most, last = self
        for layer in most:
            x = layer(x, context, mask, transform)
            context = transform = None
        return last.max_pool(x, context, mask, transform)

    def _enter(self, x: Tensor, context: Context, lengths: Tensor | None) -> tuple[Tensor, Context, Tensor | None]:
        """The points and their context, checked, with 0 in place of the padding, and the mask of those that exist."""
        self[0].check(x, context)
        if lengths is None:
            return x, context, None
        mask = point_mask(lengths, x)
        points = fill_padding(x, mask)
        given = _as_sequence(context)
        filled = [part if part.dim() == 2 else points if part is x else fill_padding(part, mask) for part in given]
        return points, filled, mask

    def winners(self, x: Tensor, lengths: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
        """Which points `max_pool` would take, (B, K) indices into the N points, with repetitions.

        K is D, or 2 D for an activation that falls and then rises, where a max may come from either end.
        """
        x, _, mask = self._enter(x, None, lengths)
        *most, last = self
        for layer in most:
            x = layer(x, None, mask, transform)
            transform = None
        return last.winners(x, mask, transform)

    def to_linear(self) -> nn.Sequential:
        """A copy as Linears on (..., C) -> (..., D): the small network itself, no longer slid over points."""
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
        for i, module in enumerate(network):
            if isinstance(module, nn.Linear):
                layers.append(SharedLayer(linear_to_conv1d(module)))
                continue
            slot = _slot(module)
            if slot is None or not layers or not layers[-1].has_room_for(slot):
                kind = type(module).__name__
                raise ValueError(
                    f"network must be Linear, BatchNorm1d, activation, Dropout, in that order; module {i} is {kind}"
                )
            setattr(layers[-1], slot, copy.deepcopy(module.norm if isinstance(module, BatchNormLast) else module))
        for i, (layer, following) in enumerate(pairwise(layers)):
            if layer.conv.out_channels != following.conv.in_channels:
                raise ValueError(
                    f"layer {i + 1} must take {layer.conv.out_channels} channels, got {following.conv.in_channels}"
                )
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


class SharedLayer(nn.Module):
    """One layer of a shared MLP, (B, C, N) -> (B, D, N): kernel-1 convolution, norm, activation, dropout.

    Each but the convolution may be None.
    """

    def __init__(
        self,
        conv: nn.Conv1d,
        norm: nn.BatchNorm1d | None = None,
        activation: nn.Module | None = None,
        dropout: nn.Dropout | None = None,
    ):
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.activation = activation
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        context: Context = None,
        mask: Tensor | None = None,
        transform: Tensor | None = None,
    ) -> Tensor:
        """(B, C, N) -> (B, D, N), as `SharedMLP.forward`; mask (B, 1, N) is True where a point exists."""
        self.check(x, context, transform)
        z = self.project(x, context, transform)
        if self.norm is not None:
            z = batch_norm(z, self.norm, mask)
        if type(self.activation) is nn.ReLU and not self.has_hooks():
            z = z.relu_()  # in place: z is this layer's own, and nothing before it needs its values again
        elif self.activation is not None:
            z = self.activation(z)
        if self.dropout is not None:
            z = self.dropout(z)
        return fill_padding(z, mask)

    def project(self, x: Tensor, context: Context = None, transform: Tensor | None = None) -> Tensor:
        """The linear map alone: (B, C, N) -> (B, D, N)."""
        parts = [part if part.dim() == 3 else part.unsqueeze(2) for part in _as_sequence(context)]
        if self.conv._forward_hooks or self.conv._forward_pre_hooks:  # they run only if it is called: by definition
            turned = x if transform is None else align(x, transform)
            return self.conv(torch.cat([turned, *(part.expand(-1, -1, x.shape[2]) for part in parts)], 1))
        if not parts and transform is None:
            return self.conv(x)
        weight, *of_parts = self.conv.weight.squeeze(2).split([part.shape[1] for part in (x, *parts)], 1)
        if transform is not None:
            weight = fold_transform(weight, transform)
        for part, columns in zip(parts, of_parts, strict=True):
            if part is x:
                weight = weight + columns
        z = F.conv1d(x, weight.unsqueeze(2)) if transform is None else weight @ x
        for part, columns in zip(parts, of_parts, strict=True):
            if part is not x:
                z = z + F.conv1d(part, columns.unsqueeze(2))
        return z if self.conv.bias is None else z + self.conv.bias.unsqueeze(1)

    def max_pool(
        self,
        x: Tensor,
        context: Context = None,
        mask: Tensor | None = None,
        transform: Tensor | None = None,
    ) -> Tensor:
        """The max over the points of each cloud: (B, C, N) -> (B, D)."""
        self.check(x, context, transform)
        fast = context is None and transform is None and self.is_poolable()
        if not fast or torch.compiler.is_exporting():  # an exported graph holds standard operators only
            y = fill_padding(self(x, context, mask, transform), mask, -torch.inf)
            return y.amax(2) if torch.compiler.is_exporting() else y.max(2).values
        return pooled(x, self.conv.weight.squeeze(2), self.conv.bias, self.norm, self.activation, mask)

    def winners(self, x: Tensor, mask: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
        """Which points `max_pool` would take: (B, C, N) -> (B, K) indices."""
        self.check(x)
        if transform is not None or not self.is_poolable():
            return fill_padding(self(x, None, mask, transform), mask, -torch.inf).max(2).indices
        return pooled_winners(x, self.conv.weight.squeeze(2), self.norm, self.activation, mask)

    def is_poolable(self) -> bool:
        """Whether the max can be taken before the norm and the activation."""
        return self.dropout is None and is_poolable(self.norm, self.activation) and not self.has_hooks()

    def has_hooks(self) -> bool:
        """Whether somebody looks at, or changes, what goes into or comes out of the layer's modules."""
        parts = (self.conv, self.norm, self.activation)
        return any(part is not None and (part._forward_hooks or part._forward_pre_hooks) for part in parts)

    def check(self, x: Tensor, context: Context = None, transform: Tensor | None = None) -> None:
        """Refuses what the layer cannot take, in one line that says what it wanted and what came."""
        given = _as_sequence(context)
        for part in given:
            fits = part.dim() in (2, 3) and part.shape[:1] == x.shape[:1] and part.shape[2:] in ((), x.shape[2:])
            if not fits or part.shape[1] == 0:
                point = f", {x.shape[-1]}), one vector a point" if part.dim() == 3 else "), one vector a cloud"
                raise ValueError(f"context must be ({x.shape[0]}, E{point}, got {tuple(part.shape)}")
        extra = sum(part.shape[1] for part in given)
        if extra >= self.conv.in_channels:
            wanted = f"(B, E) with E below the {self.conv.in_channels} channels of the first layer"
            raise ValueError(f"context must be {wanted}, got {', '.join(str(tuple(part.shape)) for part in given)}")
        channels, got = self.conv.in_channels - extra, tuple(x.shape)
        if x.dim() != 3 or x.shape[1] != channels:
            raise ValueError(f"points must be (B, {channels}, N), got {got}{_shape_hint(got, channels)}")
        if x.shape[2] == 0:
            raise ValueError(f"points must be (B, {channels}, N) with N >= 1, got {got}")
        if transform is not None:
            dim = transform.shape[-1]
            if transform.shape != (x.shape[0], dim, dim) or dim > channels:
                wanted = f"({x.shape[0]}, dim, dim) with dim at most {channels}"
                raise ValueError(f"transform must be {wanted}, got {tuple(transform.shape)}")
        dtype = self.conv.weight.dtype
        taken = (dtype, *HALF, torch.float32) if torch.is_autocast_enabled(x.device.type) else (dtype,)
        for name, tensor in (("points", x), *(("context", part) for part in given)):
            if tensor.dtype not in taken:
                raise TypeError(
                    f"{name} must be {dtype} like the weights, got {tensor.dtype}; convert with .to({dtype})"
                )

    def to_linear(self) -> list[nn.Module]:
        """Copies of the layer's modules for (..., C), in order."""
        norm = None if self.norm is None else BatchNormLast(self.norm)
        following = [module for module in (norm, self.activation, self.dropout) if module is not None]
        return [conv1d_to_linear(self.conv), *copy.deepcopy(following)]

    def has_room_for(self, slot: str) -> bool:
        slots = ("norm", "activation", "dropout")
        return all(getattr(self, later) is None for later in slots[slots.index(slot) :])


class BatchNormLast(nn.Module):
    """Batch norm of (..., D) over all leading dimensions."""

    def __init__(self, norm: nn.BatchNorm1d):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm_last(x, self.norm)


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
    """A fresh module of the activation, as `SharedMLP` takes it."""
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


def _as_sequence(context: Context) -> Sequence[Tensor]:
    return () if context is None else (context,) if isinstance(context, Tensor) else context


def _slot(module: nn.Module) -> str | None:
    """Where in a layer a module of a stack of Linears belongs; None for what no shared MLP has."""
    if isinstance(module, nn.BatchNorm1d | BatchNormLast):
        return "norm"
    if isinstance(module, nn.Dropout):
        return "dropout"
    return "activation" if _is_elementwise(module) else None


def _is_elementwise(module: nn.Module) -> bool:
    """False for PyTorch's own modules that mix channels or points; a module from elsewhere is taken at its word."""
    kind = type(module)
    if not kind.__module__.startswith("torch.nn"):
        return True
    if isinstance(module, nn.PReLU):
        return module.num_parameters == 1
    mixing = (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d, nn.GLU, nn.MultiheadAttention)
    return kind is nn.Identity or (kind.__module__ == nn.ReLU.__module__ and kind not in mixing)


def _shape_hint(shape: tuple[int, ...], channels: int) -> str:
    if len(shape) == 3 and shape[2] == channels:
        return "; points go last: transpose with x.transpose(1, 2)"
    if len(shape) == 2 and channels in shape:
        return f"; add the batch: {'x[None]' if shape[0] == channels else 'x.T[None]'}"
    return ""
