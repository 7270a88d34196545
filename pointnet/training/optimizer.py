"""The optimizer, the learning rate by the step, and the moving average of the weights."""

import copy
import itertools
import math
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from pointnet.models import PointNetModel
from pointnet.models.own import is_own

from .settings import Optimization


def make_optimizer(model: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """An optimizer of all that is not frozen. It decays matrices only: no norms, no biases. Where `trunk_lr` is not 1
    the encoder has a learning rate of its own, in the last groups."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    encoder = getattr(model, "encoder", None) if settings.trunk_lr != 1 else None
    trunk = set() if encoder is None else {id(p) for p in encoder.parameters()}
    groups: list[dict[str, Any]] = []
    for of_trunk, decays in itertools.product((False, True), (True, False)):
        those = [p for p in parameters if (id(p) in trunk, p.dim() > 1) == (of_trunk, decays)]
        rate = settings.lr * (settings.trunk_lr if of_trunk else 1.0)
        groups += [{"params": those, "lr": rate, "weight_decay": settings.weight_decay * decays}] if those else []
    # Fused: one pass over the weights, and it skips a step by a flag on the device, without a sync.
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, settings.lr, momentum=0.9, fused=True)
        for parameter in parameters:  # a skipped first step would leave the momentum uninitialized
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, settings.lr, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Optimization, steps: int) -> LRScheduler:
    """The learning rate of each of a run's steps."""
    if settings.schedule == "onecycle":
        # One step more than the run has: the schedule also advances after the last step.
        return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1)
    warm = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if settings.schedule == "constant":
            return 1.0
        if settings.schedule == "step":
            decays = step * settings.epochs // (steps * settings.decay_epochs)
            return max(settings.decay_rate**decays, 0.01)
        return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2

    return LambdaLR(optimizer, factor)


class MovingAverage:
    """A copy of a model whose weights and running statistics are a moving average of the model's.

    Args:
        kept: the share of the average that a step keeps. Early on it keeps less, min(kept, (1 + n) / (10 + n)) at step
            n, so that a short run forgets its first steps: their batch norm statistics would fit no network. Source:
            TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: PointNetModel, kept: float):
        self.of, self.model, self.kept = model, copy.deepcopy(model).requires_grad_(False), kept
        # One's own may replace its buffers; those of the library stay, and asking for them takes as long as a step.
        self.tensors = None if is_own(model) else self._tensors()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the model after step n, from 1."""
        share = max(1 - self.kept, 9 / (step + 10))
        (means, floats), (copies, others) = self.tensors or self._tensors()
        torch._foreach_lerp_(means, floats, share)
        if others:
            torch._foreach_copy_(copies, others)

    def _tensors(self) -> Sequence[tuple[list[Tensor], list[Tensor]]]:
        """The floats of the average and of the model, and what else they hold, such as counters; shared ones once."""
        states = (model.state_dict(keep_vars=True).values() for model in (self.model, self.of))
        own, theirs = zip(*{id(pair[0]): pair for pair in zip(*states, strict=True)}.values(), strict=True)
        kinds = [each.is_floating_point() for each in own]
        return [([*compress(own, kept)], [*compress(theirs, kept)]) for kept in (kinds, [not kind for kind in kinds])]
