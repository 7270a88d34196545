"""Whether a module's weights may be used without calling it: not if it has hooks or a forward of its own."""

import warnings

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether something reads or changes what the module takes or gives; that runs only when the module is called."""
    m = module
    hooks = m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
    return bool(hooks) or "forward" in vars(m)


def goes_by(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the module computes what the kind does from its weights, also where these are parametrized."""
    return type(module) is kind or type(module).forward is kind.forward


def must_call(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module of this kind is more than its weights: a hook, or a forward of its own."""
    return has_hooks(module) or not goes_by(module, kind)


def warn_of_hooks(module: nn.Module, reason: str) -> None:
    """Says in one line that the module is not called, if it has hooks."""
    if has_hooks(module):
        warnings.warn(f"hooks on this {type(module).__name__} do not run: {reason}", stacklevel=2)
