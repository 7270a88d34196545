"""W x + b at every point, by the product that is fastest on this processor."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from .masked import stored_as_rows


def linear_map(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, N), (D, C), (D,) -> (B, D, N): `F.conv1d(x, weight.unsqueeze(2), bias)`.

    A convolution does not reach the matrix units of a processor that has them (AMX); a product of matrices does, and
    there it is faster in float32 too. Which of them is taken depends on the processor alone, so runs repeat bit by bit.
    What is stored as rows, (B, N, C) transposed, stays so.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return F.conv1d(x, weight.unsqueeze(2), bias)
    if stored_as_rows(x):
        return F.linear(x.transpose(1, 2), weight, bias).transpose(1, 2)
    if has_matrix_units():
        each = weight.expand(len(x), -1, -1)
        return torch.bmm(each, x) if bias is None else torch.baddbmm(bias.unsqueeze(1), each, x)
    # Alone on its thread a small batch goes to a BLAS that on some processors is half as fast as oneDNN, unless the
    # kernel is dilated, which at size one changes nothing.
    alone = x.dtype == torch.float32 and torch.get_num_threads() == 1
    return F.conv1d(x, weight.unsqueeze(2), bias, dilation=2 if alone else 1)


def products_kept() -> Callable[[Tensor, Tensor], Tensor]:
    """A function as `linear_map` of x and weight, whose result holds until its next call: on a processor with matrix
    units it is written to memory that is kept, as new memory takes longer to get than to fill."""
    memory: dict[tuple[torch.Size, torch.Size], Tensor] = {}

    def product(x: Tensor, weight: Tensor) -> Tensor:
        if x.device.type != "cpu" or stored_as_rows(x) or not has_matrix_units():
            return linear_map(x, weight)
        sizes = x.shape, weight.shape
        if sizes not in memory:
            memory[sizes] = x.new_empty(len(x), len(weight), x.shape[2])
        return torch.bmm(weight.expand(len(x), -1, -1), x, out=memory[sizes])

    return product


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives products of x, or None outside it; tensors of the device "meta" know none."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def rounding_of(x: Tensor) -> torch.dtype | None:
    """What factors of products over all pairs are rounded to: bfloat16 under its autocast on a CPU; None: nothing.

    For float16's range sums over all pairs are too large. On a GPU it was not measured whether the products, which wait
    for memory, gain what rounding costs.
    """
    leaves = x.device.type != "cpu" or x.dtype == torch.float64  # which autocast leaves
    return None if leaves or autocast_dtype(x) != torch.bfloat16 else torch.bfloat16


def rounded(x: Tensor, rounding: torch.dtype | None) -> Tensor:
    """A factor of a product, in the dtype of its `rounding`."""
    return x if rounding is None else x.to(rounding)


def multiply(x: Tensor, weight: Tensor, rounding: torch.dtype | None, out: Tensor) -> Tensor:
    """x @ weight of rounded factors, as autocast rounds sums too, in `out`: (R, C), (C, D) -> (R, D)."""
    if rounding is None:
        return torch.mm(x, weight, out=out)
    return out.copy_(torch.mm(rounded(x, rounding), rounded(weight, rounding)))


def add_product(total: Tensor, x: Tensor, weight: Tensor, rounding: torch.dtype | None) -> Tensor:
    """Adds x @ weight of rounded factors to (R, D), in place."""
    if rounding is None:
        return total.addmm_(x, weight)
    return total.add_(torch.mm(rounded(x, rounding), rounded(weight, rounding)))


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which products of x have its own dtype, whoever calls."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def takes_tf32() -> bool:
    """Whether convolutions of float32 on a GPU, as which PyTorch writes these products, have TF32's 10 bits."""
    if torch.compiler.is_compiling():  # which cannot trace the setting of convolutions alone
        return bool(torch.backends.cudnn.allow_tf32)
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


@functools.cache
def has_matrix_units() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in units of their own."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
