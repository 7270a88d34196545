"""The operators of this library, as PyTorch knows them: what each computes, the shapes of that, and its gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
# Not `torch.library.custom_op`: its first call imports torch._dynamo, 2 s in each process that predicts.
OPERATORS = torch.library.Library("pointnet", "DEF")
DEFINITIONS: dict[str, Function] = {}  # by operator: what runs where no kernel does


def define(schema: str, function: Function, fake: Function) -> str:
    """Defines an operator without a gradient, for all devices, by what it computes and the shapes of that; -> its
    name."""
    OPERATORS.define(schema)
    name = schema.partition("(")[0]
    OPERATORS.impl(name, function, "CompositeExplicitAutograd")
    DEFINITIONS[name] = function
    torch.library.register_fake(f"pointnet::{name}", fake, lib=OPERATORS)
    return name


def register(schema: str, function: Function, fake: Function, backward: Function, save: Function) -> None:
    """Defines an operator with a gradient: `save` keeps for `backward` what it needs."""
    name = define(schema, function, fake)
    torch.library.register_autograd(f"pointnet::{name}", backward, setup_context=save, lib=OPERATORS)


def refuse_second(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
    """The gradient of an operator that is itself a gradient."""
    raise RuntimeError("gradients of gradients do not pass through operators on neighbours; torch.func.grad has them")


def save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """What such an operator keeps."""
