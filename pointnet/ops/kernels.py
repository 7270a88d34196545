"""Whether a kernel runs in place of PyTorch's operators: `POINTNET_KERNELS=triton` asks for those of `ops.triton`.

They compute what the definitions of the operators do, to the rounding of the dtype, on NVIDIA GPUs of compute
capability 8.0 or more. What a kernel does not take, by shape or dtype, goes to the definition. No kernel has been
measured on a GPU yet, so none runs unasked. With `TRITON_INTERPRET=1` they run on the CPU too, slowly, for tests.

Raises:
    ValueError: another value of `POINTNET_KERNELS`.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .pooled import DEFINITIONS, OPERATORS

ASKED = os.environ.get("POINTNET_KERNELS", "")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if ASKED not in ("", "triton"):
    raise ValueError(f"POINTNET_KERNELS must be triton, or empty, got {ASKED}")


def run_on(x: Tensor) -> bool:
    """Whether kernels are asked for, and the device of x runs them."""
    if ASKED and x.is_cuda:
        return torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return bool(ASKED) and INTERPRETED and x.device.type == "cpu"


def use(name: str, kernel: Callable[..., Any], fits: Callable[..., bool], own_on_cpu: bool = False) -> None:
    """Lets an operator of this library run a kernel where it `fits` the arguments, of which a tensor comes first.

    On a CPU, where kernels are interpreted, an operator that has an implementation of its `own_on_cpu` keeps it.
    """
    definition = DEFINITIONS[name]

    def chosen(*given: Any) -> Any:
        return (kernel if run_on(given[0]) and fits(*given) else definition)(*given)

    for device in ("CUDA", "CPU") if INTERPRETED and not own_on_cpu else ("CUDA",):
        OPERATORS.impl(name, chosen, device)
