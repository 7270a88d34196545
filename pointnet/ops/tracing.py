"""When the definitions run in place of their fast twins, since only standard operators are known."""

import torch
from torch.autograd import forward_ad


def makes_a_graph() -> bool:
    """Whether a graph is being made, traced or exported, or a transform of `torch.func` or forward-mode
    differentiation runs: they get the definitions."""
    tracing = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return tracing or is_transformed()


def is_transformed() -> bool:
    """Whether `vmap`, `grad` or another transform of `torch.func` runs, or tensors may be dual numbers."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
