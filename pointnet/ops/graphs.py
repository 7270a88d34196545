"""When the definitions run in place of their fast twins, since only standard operators are known."""

import torch


def makes_a_graph() -> bool:
    """Whether a graph is being made, traced or exported, or a transform of `torch.func` runs: they get the
    definitions."""
    tracing = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return tracing or is_transformed()


def is_transformed() -> bool:
    """Whether `vmap`, `grad` or another transform of `torch.func` runs."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
