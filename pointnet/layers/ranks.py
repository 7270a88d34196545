"""Exact batch norm across ranks: several processes train as one with all their points."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pointnet.ops.ranks import MARK, Ranks

from .shared_layer import BatchNormLast, SharedLayer

M = TypeVar("M", bound=nn.Module)


def synchronize_norms(model: M, group: dist.ProcessGroup | None = None) -> M:
    """Lets every batch norm of `model` take its training statistics over all ranks; returns the same model.

    Values, gradients and running statistics are then those of one process with all ranks' clouds in its batch, which
    may be of different numbers and lengths, and the running statistics are the same bits on every rank. No norm is
    replaced, and the state dict stays as it is. In eval, or with one process, nothing travels and nothing changes.
    Every rank must run every training step, forward and backward.

    Gradients are those of the *sum* of the ranks' losses, each rank holding its share. `DistributedDataParallel`
    averages them over the R ranks, so R ranks equal one process with the mean loss over the whole batch if each rank's
    loss is the mean over its clouds, where shares are equal, and in general R * (sum over its clouds) / (clouds of all
    ranks).

    Args:
        model: a network whose norms are those of `SharedMLP`s and their `to_linear()`.
        group: the ranks; None: all of them. It may be created later than the call.

    Raises:
        ValueError: a batch norm that is called from elsewhere, or a group that this process is not in.
    """
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise ValueError(f"group must be a process group that this process is in, got {group!r}")
    ours = [module.norm for module in model.modules() if isinstance(module, SharedLayer | BatchNormLast)]
    for name, module in model.named_modules():
        known = type(module) is nn.BatchNorm1d and any(module is norm for norm in ours)
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and not known:
            raise ValueError(f"{name or 'the model'}: {type(module).__name__} must be of a SharedMLP or its Linears")
    for norm in ours:
        if norm is not None:
            setattr(norm, MARK, Ranks(group))
    return model
