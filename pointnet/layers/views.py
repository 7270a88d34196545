"""Linear and convolution: the same weights under other names. Each function returns a copy; nothing is shared."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def linear_to_conv1d(linear: nn.Linear) -> nn.Conv1d:
    """The kernel-1 convolution over (B, C, N) that applies `linear` to each point: weight (D, C) -> (D, C, 1)."""
    return carry_state(
        linear,
        nn.utils.skip_init(
            nn.Conv1d,
            linear.in_features,
            linear.out_features,
            1,
            bias=linear.bias is not None,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        ),
    )


def conv1d_to_linear(conv: nn.Conv1d) -> nn.Linear:
    """The layer that a kernel-1 convolution applies to each point: weight (D, C, 1) -> (D, C).

    Raises:
        ValueError: the convolution looks at more than one point, skips some, pads, or splits its channels.
    """
    settings = {"kernel_size": (1,), "stride": (1,), "padding": (0,), "groups": 1}
    for name, wanted in settings.items():
        if (got := getattr(conv, name)) != wanted:
            raise ValueError(f"conv must have {name}={wanted} to be one Linear on each point, got {got}")
    return carry_state(
        conv,
        nn.utils.skip_init(
            nn.Linear,
            conv.in_channels,
            conv.out_channels,
            bias=conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        ),
    )


def carry_state(source: nn.Module, twin: M) -> M:
    """Copies what `source` has learned into `twin`, bit for bit: parameters, buffers, what is frozen, and the mode.

    The two hold the same numbers under the same names, perhaps in other shapes.
    """
    with torch.no_grad():
        for name, tensor in source.state_dict(keep_vars=True).items():
            target = twin.get_parameter(name) if isinstance(tensor, nn.Parameter) else twin.get_buffer(name)
            target.copy_(tensor.view_as(target)).requires_grad_(tensor.requires_grad)
    return twin.train(source.training)
