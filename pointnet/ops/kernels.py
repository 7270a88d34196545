"""Where a kernel runs in place of PyTorch's operators: those of `ops.triton`, on GPUs of NVIDIA.

They compute what the definitions of the operators do, to the rounding of the dtype and of the products, whose
precision is that of PyTorch's convolutions (`torch.backends.cudnn.conv.fp32_precision`), on compute capability 8.0 or
more. What a kernel does not take, by shape or dtype, goes to the definition, and so does what PyTorch's operators did
faster on an H200 (docs/benchmarks.md). `POINTNET_KERNELS=none` turns all of them off; `POINTNET_KERNELS=triton` asks
for them: an error where Triton is missing, and with `TRITON_INTERPRET=1` they run on the CPU too, slowly, for tests.

Raises:
    ValueError: another value of `POINTNET_KERNELS`.
    MissingExtraError: it is `triton`, which is not installed.
"""

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointnet.extras import MissingExtraError

from .operators import DEFINITIONS, OPERATORS

CHOICE = os.environ.get("POINTNET_KERNELS", "")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_COMPILER = bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))  # for Triton's launchers
ON_CPU_TOO = (  # where kernels are interpreted; sampling and neighbours have their own implementations there
    "mlp_max", "extremes", "edge_extremes", "edge_extremes_backward", "edge_moments", "edge_moments_backward",
)  # fmt: skip
NAMES = (*ON_CPU_TOO, "lowest", "farthest_point_sampling")


class Kernel(NamedTuple):
    """What runs in place of an operator's definition where it `fits` the arguments, of which a tensor comes first."""

    run: Callable[..., Any]
    fits: Callable[..., bool]


KERNELS: dict[str, Kernel] = {}  # by operator, once the kernels are loaded


if CHOICE not in ("", "none", "triton"):
    raise ValueError(f"POINTNET_KERNELS must be none, triton or empty, got {CHOICE}")
if CHOICE == "triton" and not HAS_TRITON:
    raise MissingExtraError("POINTNET_KERNELS=triton", "triton", "triton")


def run_on(x: Tensor) -> bool:
    """Whether kernels run on the device of x."""
    if CHOICE == "none" or not HAS_TRITON or not (HAS_COMPILER or CHOICE):
        return False
    if x.is_cuda:
        return torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return CHOICE == "triton" and INTERPRETED and x.device.type == "cpu"


def offer_all() -> None:
    """Lets the operators of this library run their kernels. The first call of one loads them, and Triton, which takes a
    second."""
    for name in NAMES:
        _offer(name)


def _offer(name: str) -> None:

    def chosen(*given: Any) -> Any:
        if run_on(given[0]):
            importlib.import_module("pointnet.ops.triton")
            kernel = KERNELS[name]
            if kernel.fits(*given):
                with torch.cuda.device_of(given[0]):  # Triton launches on the current device
                    return kernel.run(*given)
        return DEFINITIONS[name](*given)

    for device in ("CUDA", "CPU") if INTERPRETED and name in ON_CPU_TOO else ("CUDA",):
        OPERATORS.impl(name, chosen, device)
