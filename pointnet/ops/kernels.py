"""Where a kernel runs in place of PyTorch's operators: those of `ops.triton`, on GPUs of NVIDIA.

They compute what the definitions of the operators do, to the rounding of the dtype, on compute capability 8.0 or more.
What a kernel does not take, by shape or dtype, or where PyTorch's operators were measured to be faster, goes to the
definition (docs/benchmarks.md). `POINTNET_KERNELS=none` turns all of them off; `POINTNET_KERNELS=triton` asks for them:
an error where Triton is missing, and with `TRITON_INTERPRET=1` they run on the CPU too, slowly, for tests.

Raises:
    ValueError: another value of `POINTNET_KERNELS`.
    MissingExtraError: it is `triton`, which is not installed.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointnet.extras import MissingExtraError

from .pooled import DEFINITIONS, OPERATORS

CHOICE = os.environ.get("POINTNET_KERNELS", "")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
ON_CPU_TOO = (  # where kernels are interpreted; sampling keeps its own implementation there
    "mlp_max", "extremes", "edge_extremes", "edge_extremes_backward", "edge_moments", "edge_moments_backward", "lowest",
)  # fmt: skip
NAMES = (*ON_CPU_TOO, "farthest_point_sampling")


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
    if CHOICE == "none" or not HAS_TRITON:
        return False
    if x.is_cuda:
        return torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return CHOICE == "triton" and INTERPRETED and x.device.type == "cpu"


def offer(name: str) -> None:
    """Lets an operator of this library run its kernel. The first call loads the kernels, and Triton, which takes a
    second."""

    def chosen(*given: Any) -> Any:
        if run_on(given[0]):
            importlib.import_module("pointnet.ops.triton")
            kernel = KERNELS[name]
            if kernel.fits(*given):
                return kernel.run(*given)
        return DEFINITIONS[name](*given)

    for device in ("CUDA", "CPU") if INTERPRETED and name in ON_CPU_TOO else ("CUDA",):
        OPERATORS.impl(name, chosen, device)
