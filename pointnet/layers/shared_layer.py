"""One layer of a shared MLP: a kernel-1 convolution, batch norm, an activation and dropout; its norm across ranks."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pointnet.ops.aligned import Transform, align, check_transform, fold_transform
from pointnet.ops.hooks import has_hooks, must_call
from pointnet.ops.masked import Mask, batch_norm, check_tensor, fill_padding, stored_as_rows
from pointnet.ops.pooled import Norm, is_poolable, pooled, pooled_winners
from pointnet.ops.products import autocast_dtype, linear_map
from pointnet.ops.ranks import MARK, Ranks, group_of
from pointnet.ops.tracing import makes_a_graph

from .views import conv1d_to_linear

M = TypeVar("M", bound=nn.Module)
HALF = (torch.float16, torch.bfloat16)
Context = Tensor | Sequence[Tensor] | None


def refuse_script(module: nn.Module) -> nn.Module:
    """What `torch.jit.script` calls first: its language lacks what the layers are written in."""
    raise TypeError("torch.jit.script is not supported; use torch.export.export or python -m pointnet export")


class SharedLayer(nn.Module):
    """One layer of a shared MLP, (B, C, N) -> (B, D, N): kernel-1 convolution, norm, activation, dropout.

    Each but the convolution may be None.
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self, conv: nn.Conv1d, norm: Norm = None, activation: nn.Module | None = None, dropout: nn.Dropout | None = None
    ):
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.activation = activation
        self.dropout = dropout

    def forward(self, x: Tensor, context: Context = None, mask: Mask = None, transform: Transform = None) -> Tensor:
        """(B, C, N) -> (B, D, N), as `SharedMLP.forward`; mask (B, 1, N) is True where a point exists."""
        self.check(x, context, transform)
        z = self.project(x, context, transform)
        if self.norm is not None:
            z = batch_norm(z, self.norm, mask)
        if type(self.activation) is nn.ReLU and not stored_as_rows(z) and not self.must_call_modules():
            z = z.relu_()  # in place: z is this layer's own, and nothing before it needs its values again
        elif self.activation is not None:
            z = self.activation(z)
        if self.dropout is not None:
            z = self.dropout(z.contiguous())  # it draws in the order of memory, which is to change nothing
        return fill_padding(z, mask)

    def project(self, x: Tensor, context: Context = None, transform: Transform = None) -> Tensor:
        """The linear map alone: (B, C, N) -> (B, D, N)."""
        extra = [each if each.dim() == 3 else each.unsqueeze(2) for each in as_sequence(context)]
        if self.must_call_conv():
            aligned = x if transform is None else align(x, transform)
            return self.conv(torch.cat([aligned, *(each.expand(-1, -1, x.shape[2]) for each in extra)], 1))
        if not extra and transform is None:
            return linear_map(x, self.conv.weight.squeeze(2), self.conv.bias)
        weight, *of_extra = self.conv.weight.squeeze(2).split([each.shape[1] for each in (x, *extra)], 1)
        if transform is not None:
            weight = fold_transform(weight, transform)
        for each, columns in zip(extra, of_extra, strict=True):
            if each is x:
                weight = weight + columns
        z = linear_map(x, weight) if transform is None else weight @ x
        for each, columns in zip(extra, of_extra, strict=True):
            if each is not x:
                z = z + linear_map(each, columns)
        return z if self.conv.bias is None else z + self.conv.bias.unsqueeze(1)

    def max_pool(self, x: Tensor, context: Context = None, mask: Mask = None, transform: Transform = None) -> Tensor:
        """The max over the points of each cloud: (B, C, N) -> (B, D)."""
        self.check(x, context, transform)
        fast = context is None and transform is None and self.is_poolable()
        if not fast or makes_a_graph():
            return max_of_points(self(x, context, mask, transform), mask)
        return pooled(x, self.conv.weight.squeeze(2), self.conv.bias, self.norm, self.activation, mask)

    def winners(self, x: Tensor, mask: Mask = None, transform: Transform = None) -> Tensor:
        """Which points `max_pool` would take: (B, C, N) -> (B, K) indices."""
        self.check(x)
        if transform is not None or not self.is_poolable():
            return fill_padding(self(x, None, mask, transform), mask, -torch.inf).max(2).indices
        return pooled_winners(x, self.conv.weight.squeeze(2), self.norm, self.activation, mask)

    def is_poolable(self) -> bool:
        """Whether the max can be taken before the norm and the activation."""
        fast = self.dropout is None and is_poolable(self.norm, self.activation)
        return fast and not has_hooks(self) and not self.must_call_modules()

    def must_call_modules(self) -> bool:
        """Whether a hook reads or changes the inputs or outputs of the layer's modules, or the convolution is one of
        another kind."""
        others = any(each is not None and has_hooks(each) for each in (self.norm, self.activation))
        return others or self.must_call_conv()

    def must_call_conv(self) -> bool:
        """Whether the convolution is more than its weight and bias: a hook, or a forward of its own."""
        return must_call(self.conv, nn.Conv1d)

    def check(self, x: Tensor, context: Context = None, transform: Transform = None) -> None:
        """Raises ValueError (shapes) or TypeError (dtypes) for what the layer cannot take, in one line."""
        extra = as_sequence(context)
        check_tensor("points", x)
        for tensor in extra:
            check_tensor("context", tensor)
        channels, got = self.conv.in_channels - self._check_context(x, extra), tuple(x.shape)
        if x.dim() != 3 or x.shape[1] != channels:
            beside = f" beside a context of {self.conv.in_channels - channels} channels" if extra else ""
            raise ValueError(f"points must be (B, {channels}, N){beside}, got {got}{shape_hint(got, channels)}")
        if x.shape[2] == 0:
            raise ValueError(f"points must be (B, {channels}, N) with N >= 1, got {got}")
        if transform is not None:
            check_transform(transform, x.shape[0], channels)
        for tensor in (x, *extra):
            check_dtype("points" if tensor is x else "context", tensor, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, without computing one that a hook or a parametrization makes of others."""
        weight = self.conv._parameters.get("weight")
        weight = next(self.conv.parameters(), None) if weight is None else weight
        return self.conv.weight.dtype if weight is None else weight.dtype

    def _check_context(self, x: Tensor, extra: Sequence[Tensor]) -> int:
        """How many channels the context has."""
        for each in extra:
            fits = each.dim() in (2, 3) and each.shape[:1] == x.shape[:1] and each.shape[2:] in ((), x.shape[2:])
            if not fits or each.shape[1] == 0:
                end = f", {x.shape[-1]}), one vector per point" if each.dim() == 3 else "), one vector per cloud"
                raise ValueError(f"context must be ({x.shape[0]}, E{end}, got {tuple(each.shape)}")
        count = sum(each.shape[1] for each in extra)
        if count >= self.conv.in_channels:
            wanted = f"(B, E) with E below the {self.conv.in_channels} channels of the first layer"
            raise ValueError(f"context must be {wanted}, got {', '.join(str(tuple(each.shape)) for each in extra)}")
        return count

    def to_linear(self) -> list[nn.Module]:
        """Copies of the layer's modules for (..., C), in order.

        Raises:
            ValueError: a norm that is not one of each channel, such as GroupNorm; a hook on the layer or its
                convolution, which the copies would lose.
        """
        if has_hooks(self) or has_hooks(self.conv):
            raise ValueError("a hook is on the layer or its convolution, which the copies would lose; remove it first")
        if self.norm is not None and not isinstance(self.norm, _BatchNorm | nn.Identity):
            raise ValueError(f"norm must be BatchNorm1d for Linears on (..., C), got {type(self.norm).__name__}")
        norm = None if self.norm is None else BatchNormLast(self.norm)
        following = [module for module in (norm, self.activation, self.dropout) if module is not None]
        return [conv1d_to_linear(self.conv), *copy.deepcopy(following)]


def check_dtype(name: str, x: Tensor, dtype: torch.dtype) -> None:
    """Raises TypeError unless x has the dtype of the weights, or one that autocast takes."""
    taken = (dtype, *HALF, torch.float32) if autocast_dtype(x) else (dtype,)
    if x.dtype not in taken:
        raise TypeError(f"{name} must be {dtype} like the weights, got {x.dtype}; convert with .to({dtype})")


class BatchNormLast(nn.Module):
    """Batch norm of (..., D) over all leading dimensions; `norm` itself reads (B, N, D) as N channels."""

    __prepare_scriptable__ = refuse_script

    def __init__(self, norm: nn.BatchNorm1d):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        alone = group_of(self.norm) is None
        y = self.norm(rows) if alone else batch_norm(rows.unsqueeze(2), self.norm).squeeze(2)
        return y.reshape(x.shape)


def max_of_points(y: Tensor, mask: Mask = None) -> Tensor:
    """The largest value of each channel over the points that exist, by definition: (B, D, N) -> (B, D)."""
    y = fill_padding(y, mask, -torch.inf)
    return y.amax(2) if torch.compiler.is_exporting() else y.max(2).values


def as_sequence(context: Context) -> Sequence[Tensor]:
    return () if context is None else (context,) if isinstance(context, Tensor) else context


def check_points(x: Tensor, channels: int) -> None:
    """Raises TypeError unless points are a tensor, ValueError unless (B, channels, N), and there are some."""
    check_tensor("points", x)
    if x.dim() != 3 or x.shape[1] != channels or not x.shape[2]:
        got = f"{tuple(x.shape)}{shape_hint(tuple(x.shape), channels)}"
        raise ValueError(f"points must be (B, {channels}, N) with N >= 1, got {got}")


def is_whole(number: object) -> bool:
    """Whether a size is a whole number of at least 1."""
    return isinstance(number, int | np.integer) and number is not True and bool(number > 0)


def shape_hint(shape: tuple[int, ...], channels: int) -> str:
    """What may be wrong with points of this shape, to end a message with; empty where nothing is known."""
    if len(shape) == 3 and shape[2] == channels:
        return "; points go last: transpose with x.transpose(1, 2)"
    if len(shape) == 2 and channels in shape:
        return f"; add the batch: {'x[None]' if shape[0] == channels else 'x.T[None]'}"
    return ""


def synchronize_norms(model: M, group: dist.ProcessGroup | None = None) -> M:
    """Lets every batch norm of `model` take its training statistics over all ranks; returns the same model.

    Values, gradients and running statistics are then those of one process with all ranks' clouds in its batch, which
    may be of different numbers and lengths, and the running statistics are the same bits on every rank. No norm is
    replaced, and the state dict stays as it is. In eval, or with one process, nothing travels and nothing changes.
    Every rank must run every training step, forward and backward.

    Gradients are those of the *sum* of the ranks' losses, each rank holding its share. `DistributedDataParallel`
    averages them over the R ranks, so R ranks equal one process with the mean loss over the whole batch if each rank's
    loss is the mean over its clouds, where shares are equal, and in general R * (sum over its clouds) / (clouds of all
    ranks).

    Args:
        model: a network whose norms are those of `SharedMLP`s and their `to_linear()`, or `nn.SyncBatchNorm`, which is
            left as it is.
        group: the ranks; None: all of them. It may be created later than the call.

    Raises:
        ValueError: a batch norm that is called from elsewhere, or a group that this process is not in.
    """
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise ValueError(f"group must be a process group that this process is in, got {group!r}")
    ours = [module.norm for module in model.modules() if isinstance(module, SharedLayer | BatchNormLast)]
    for name, module in model.named_modules():
        known = type(module) is nn.BatchNorm1d and any(module is norm for norm in ours)
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and not known:
            raise ValueError(f"{name or 'the model'}: {type(module).__name__} must be of a SharedMLP or its Linears")
    for norm in ours:
        if norm is not None:
            setattr(norm, MARK, Ranks(group))
    return model
