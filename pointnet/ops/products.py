"""W x + b at every point, by the product that is fastest on this processor."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pointnet.devices import capabilities

from .masked import stored_as_rows

LEAST_WEIGHT = 1024  # numbers in the weight of a convolution of rows: with fewer, a product of matrices is faster
MOST_CHANNELS = 512  # of rows that are convolved: the more channels it sums, the more digits a convolution loses


def linear_map(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, N), (D, C), (D,) -> (B, D, N): `F.conv1d(x, weight.unsqueeze(2), bias)`.

    A convolution does not reach the matrix units of a processor that has them (AMX). On others too it is slower than a
    product of matrices: in bfloat16, on Intel's, and on AMD's without AVX-512. What is taken depends on the processor,
    the number of threads and the tensors' dtype, sizes and layout, so runs repeat bit by bit. What is stored as rows,
    (B, N, C) transposed, stays so.
    """
    if x.device.type != "cpu" or is_traced():
        return F.conv1d(x, weight.unsqueeze(2), bias)
    if stored_as_rows(x):
        return map_rows(x.transpose(1, 2), weight, bias).transpose(1, 2)
    if multiplies_matrices(x) and x.shape[2] == 1:
        return map_rows(x.transpose(1, 2), weight, bias).transpose(1, 2)
    if multiplies_matrices(x) and has_many_points(x, weight):
        each = weight.expand(len(x), -1, -1)
        return torch.bmm(each, x) if bias is None else torch.baddbmm(bias.unsqueeze(1), each, x)
    # Alone on its thread a small batch goes to a BLAS that on some processors is half as fast as oneDNN, unless the
    # kernel is dilated, which at size one changes nothing.
    alone = x.dtype == torch.float32 and torch.get_num_threads() == 1
    return F.conv1d(x, weight.unsqueeze(2), bias, dilation=2 if alone else 1)


def map_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C), (D, C), (D,) -> (..., D): `F.linear(rows, weight, bias)`.

    Where products of matrices are slow (`has_slow_products`), as the convolution that it is: of images whose pixels are
    the rows and whose channels lie side by side.
    """
    if not convolves_rows(rows, len(weight)):
        return F.linear(rows, weight, bias)
    # The gradient of a bias loses more digits in a convolution than in a sum.
    after = bias if bias is not None and bias.requires_grad and torch.is_grad_enabled() else None
    images = F.conv2d(_pixels(rows), weight[:, :, None, None], bias if after is None else None, dilation=2)
    z = images.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], len(weight))
    return z if after is None else z + after


def sum_of_outer(a: Tensor, b: Tensor) -> Tensor:
    """a^T b, the sum over the rows r of a_r b_r^T: (R, D), (R, C) -> (D, C).

    As a convolution it is the gradient of the weight.
    """
    if not convolves_rows(b, a.shape[1]):
        return a.T @ b
    return conv2d_weight(_pixels(b), [a.shape[1], b.shape[1], 1, 1], _pixels(a), dilation=2)[:, :, 0, 0]


def _pixels(rows: Tensor) -> Tensor:
    """(..., C) -> (R / P, C, 1, P), P rows to an image."""
    channels = rows.shape[-1]
    return rows.reshape(-1, 1, rows_of_an_image(rows.numel() // channels), channels).permute(0, 3, 1, 2)


@functools.lru_cache(1024)
def rows_of_an_image(count: int) -> int:
    """A divisor of the number of rows. The gradient of a weight is summed one row after the other within an image, and
    of longer ones it loses digits."""
    return next((size for size in range(256, 31, -1) if count % size == 0), count)


def products_kept() -> Callable[[Tensor, Tensor], Tensor]:
    """A function as `linear_map` of x and weight, whose result holds until its next call: a product of matrices is
    written to memory that is kept, as new memory takes longer to get than to fill."""
    memory: dict[tuple[torch.Size, torch.Size], Tensor] = {}

    def product(x: Tensor, weight: Tensor) -> Tensor:
        by_matrices = x.device.type == "cpu" and multiplies_matrices(x) and has_many_points(x, weight)
        if stored_as_rows(x) or not by_matrices:
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


def multiply(x: Tensor, weight: Tensor, rounding: torch.dtype | None, kept: Tensor) -> Tensor:
    """x W^T of rounded factors, as autocast rounds sums too: (R, C), (D, C) -> (R, D), in `kept` or in new memory."""
    if rounding is not None:
        return kept.copy_(torch.mm(rounded(x, rounding), rounded(weight, rounding).T))
    return map_rows(x, weight) if convolves_rows(x, len(weight)) else torch.mm(x, weight.T, out=kept)


def add_map(total: Tensor, x: Tensor, weight: Tensor, constant: Tensor, rounding: torch.dtype | None) -> Tensor:
    """Adds x W^T + constant, of rounded factors, to (R, D), in place."""
    if rounding is not None:
        return total.add_(torch.mm(rounded(x, rounding), rounded(weight, rounding).T)).add_(constant)
    if convolves_rows(x, len(weight)):
        return total.add_(map_rows(x, weight, constant))
    return total.addmm_(x, weight.T).add_(constant)


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which products of x have its own dtype, whoever calls."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def takes_tf32() -> bool:
    """Whether convolutions of float32 on a GPU, as which PyTorch writes these products, have TF32's 10 bits."""
    if torch.compiler.is_compiling():  # which cannot trace the setting of convolutions alone
        return bool(torch.backends.cudnn.allow_tf32)
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def is_traced() -> bool:
    """Whether a compiler or an exporter records what is called."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def multiplies_matrices(x: Tensor) -> bool:
    """Whether products of matrices are faster than convolutions of (B, C, N) like x on this processor: where it has
    units for matrices; in bfloat16, where it has instructions for that; else where MKL uses all that it has."""
    dtype, found = autocast_dtype(x) or x.dtype, capabilities()
    if found.get("amx_bf16"):
        return True
    if dtype == torch.bfloat16:
        return bool(found.get("avx512_bf16"))
    mkl_multiplies = dtype in (torch.float32, torch.float64) and torch.backends.mkl.is_available()
    known = any(maker in str(found.get("cpu_name")) for maker in ("Intel", "AMD"))
    return mkl_multiplies and known and not has_slow_products()


def has_many_points(x: Tensor, weight: Tensor) -> bool:
    """Whether the clouds of x are large enough for a product of matrices each: of fewer points it is slower than a
    convolution, and the gradient of the weight, which it makes for each cloud, takes more memory than these do."""
    return weight.numel() <= x.shape[2] * sum(weight.shape)


def convolves_rows(rows: Tensor, out: int) -> bool:
    """Whether a linear map of these rows to so many channels is faster as a convolution."""
    if rows.device.type != "cpu" or is_traced() or not has_slow_products() or not rows.numel():
        return False
    wide = rows.shape[-1] <= MOST_CHANNELS and rows.shape[-1] * out >= LEAST_WEIGHT
    return wide and rows.dtype == torch.float32 and autocast_dtype(rows) is None


def has_slow_products() -> bool:
    """Whether products of float32 matrices run at half of this processor's rate: those of MKL, which uses AVX-512 on
    Intel's processors alone. oneDNN, which convolutions run on, uses it on AMD's too."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and bool(capabilities().get("avx512_f")) and "AMD" in str(capabilities().get("cpu_name"))
