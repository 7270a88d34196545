"""One training step on tensors, and a watch that tells where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pointnet.devices import autocast
from pointnet.models import PointNetModel
from pointnet.models.own import is_own
from pointnet.world import World

from .cuda_graph import GraphedGradients
from .losses import label_loss
from .network import Loss
from .optimizer import MovingAverage
from .settings import TrainConfig
from .teacher import distillation_loss


class StepResult(NamedTuple):
    """loss (); logits (B, classes) or (B, classes, N); finite () bool, False where the step was skipped."""

    loss: Tensor
    logits: Tensor
    finite: Tensor


@dataclass
class Step:
    """Trains a model on one batch: forward, loss, backward, optimizer, schedule, moving average.

    Nothing in it waits for the device, but for a loss of one's own for points. A step whose loss or gradient is not
    finite changes neither weights nor running statistics: a flag on the device stops the optimizer, and the buffers are
    restored.

    On a GPU forward and backward are recorded once and then replayed, with the same results (`GraphedGradients`).

    Several processes (`world`) each take their share of a batch and hold the same weights; norms, gradients and loss
    are those of the whole batch. Only the randomness differs between processes: augmentation and dropout.

    Args:
        forward: the model, or its compiled form.
        average: None for no moving average.
        parts_of: (categories, parts) bool, which parts an object may get; None where labels are not parts.
        class_weights: (classes,), of the loss of each class; None for 1.
        own_loss: of logits and labels, in place of that of the settings; the label of a point without one is -100.
            Where no point has one, it is not called, as PyTorch's mean over none is NaN.
    """

    config: TrainConfig
    model: Any
    forward: Callable[..., Any]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: MovingAverage | None
    parts_of: Tensor | None
    class_weights: Tensor | None
    world: World
    watch: Stopwatch
    own_loss: Loss | None = None

    def __post_init__(self) -> None:
        # One process alone: what ranks send each other is not recorded, nor what others wrote, which may do anything.
        on_gpu = next(self.model.parameters()).is_cuda and self.world.size == 1
        on_gpu &= self.own_loss is None and not is_own(self.model)
        self.graphed = GraphedGradients(self._gradients, list(self.model.parameters())) if on_gpu else None

    def set_norm_momentum(self, momentum: float, own: bool = False) -> None:
        """Sets the momentum of every batch norm; a network that was handed over (`own`), or is of one's own class,
        keeps its own where none was chosen. Recorded graphs hold the one they were recorded with."""
        if (own or is_own(self.model)) and momentum == TrainConfig.norm_momentum:
            return
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
        for module in self.model.modules():
            if isinstance(module, norms) and module.momentum != momentum:
                module.momentum = momentum
                if self.graphed:
                    self.graphed.recordings.clear()

    def __call__(
        self,
        x: Tensor,
        labels: Tensor,
        category: Tensor | None = None,
        share: float = 1.0,
        structure: Tensor | None = None,
        taught: Tensor | None = None,
    ) -> StepResult:
        """x (B, C, N); labels (B,) or (B, N); category (B,), of parts; share: of the whole batch's clouds, these;
        structure (B, M), of networks that take it; taught (B, classes), a teacher's probabilities."""
        if self.graphed:
            given = {"category": category, "structure": structure, "taught": taught}
            present = {name: each for name, each in given.items() if each is not None}
            loss, logits, finite = self.graphed(x, labels, **present)
            self.watch.lap("forward_backward")
        else:
            count = self._count(labels, share)
            loss, logits, finite = self._gradients(x, labels, category, structure, taught, share, count)
            self.watch.lap("backward")
        # The fused optimizers read this flag, which is a gradient scaler's: where it is 1 they change nothing.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.schedule.last_epoch)  # which counts steps
        return StepResult(loss, logits, finite)

    def _count(self, labels: Tensor, share: float) -> Tensor | None:
        """Of several processes, what the sum of the losses of points here is divided by, so that, times `share`, it is
        this process's part of the mean over all labels of the batch: some points may have none."""
        if self.world.size == 1 or labels.dim() == 1:
            return None
        count = (labels >= 0).sum(dtype=torch.float64)
        self.world.add_up([count])
        return count * share

    def _gradients(
        self,
        x: Tensor,
        labels: Tensor,
        category: Tensor | None = None,
        structure: Tensor | None = None,
        taught: Tensor | None = None,
        share: float = 1.0,
        count: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forward and backward: -> loss, logits and whether all is finite; if not, the buffers are as before."""
        self.optimizer.zero_grad(set_to_none=True)
        with Statistics(self.model) as statistics:
            loss, logits = self._loss(x, labels, category, structure, taught, count)
            loss = loss * share
            if not loss.requires_grad:
                cut = "an argmax, .item(), .detach() or torch.no_grad() cuts it off"
                raise ValueError(f"the loss has no gradient of the network's weights; {cut}")
            if not self.graphed:
                self.watch.lap("forward")
            loss.backward()
        loss = loss.detach()
        finite = self._finish_gradients(loss)
        statistics.settle(finite)
        return loss, logits.detach(), finite

    def _loss(
        self,
        x: Tensor,
        labels: Tensor,
        category: Tensor | None,
        structure: Tensor | None,
        taught: Tensor | None,
        count: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The loss () of these clouds, and the logits in float32."""
        config, inputs = self.config, (x,) if category is None else (x, category)
        found = {} if structure is None else {"structure": structure}
        with autocast(x.device, config.precision):
            if isinstance(self.model, PointNetModel):
                logits, transforms = self.forward(*inputs, return_transforms=True)
            else:
                logits, transforms = self.forward(*inputs, **found), None
        logits = logits.float()
        if self.own_loss is None:
            loss = label_loss(config, logits, labels, category, self.parts_of, self.class_weights, count)
        elif labels.dim() > 1 and not bool((labels >= 0).any()):
            loss = (logits * 0).sum()
        elif not isinstance(loss := self.own_loss(logits, labels), Tensor) or loss.dim():
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"loss must give one number, a tensor with the mean over the labels, got {got}")
        if taught is not None:
            loss = torch.lerp(loss, distillation_loss(logits, taught, config.temperature), config.distill)
        return loss if transforms is None else loss + self.model.regularization(transforms), logits

    def _finish_gradients(self, loss: Tensor) -> Tensor:
        """Sums gradients and loss over the processes, clips the gradients; -> whether all of them are finite, ()."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.world.add_up([*gradients, loss])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.config.clip:
            torch._foreach_mul_(gradients, (self.config.clip / (norm + 1e-6)).clamp(max=1.0))
        return loss * 0 + norm * 0 == 0  # 0 times what is not finite is NaN; `isfinite` takes four kernels for each


class Statistics:
    """The buffers of a network in a step, which may have to be as before it.

    All of one dtype are handled together, as their number is what a step on a GPU takes its time for. Likewise the
    counters of its batch norms, by which nothing is computed but where a norm has no momentum: they stand still, and
    count the step at its end.
    """

    def __init__(self, model: nn.Module):
        norms = [] if is_own(model) else [each for each in model.modules() if isinstance(each, nn.BatchNorm1d)]
        self.counting = [norm for norm in norms if norm.training and norm.momentum is not None]
        self.model = model

    def __enter__(self) -> Statistics:
        self.counters = [norm.num_batches_tracked for norm in self.counting]
        for norm in self.counting:
            norm.num_batches_tracked = None
        self.kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self.model.buffers():
            self.kinds.setdefault(buffer.dtype, []).append(buffer)
        self.before = [together(buffers) for buffers in self.kinds.values()]
        return self

    def __exit__(self, *_: object) -> None:
        for norm, counter in zip(self.counting, self.counters, strict=True):
            norm.num_batches_tracked = counter

    @torch.no_grad()
    def settle(self, finite: Tensor) -> None:
        """Counts the step, or restores what it changed if it was not finite."""
        for buffers, old in zip(self.kinds.values(), self.before, strict=True):
            kept = torch.where(finite, together(buffers), old).split([each.numel() for each in buffers])
            torch._foreach_copy_(buffers, [each.view_as(own) for each, own in zip(kept, buffers, strict=True)])
        if counters := [each for each in self.counters if each is not None]:
            torch._foreach_add_(counters, [finite.to(torch.int64)] * len(counters))


def together(tensors: list[Tensor]) -> Tensor:
    """All their numbers, as one vector."""
    return torch.cat([each.flatten() for each in tensors])


class Stopwatch:
    """Seconds by name. On a GPU events in its queue measure them, so that only `stop` waits for the device."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.laps: list[tuple[str, Any]] = []  # each with its end: an event on a GPU, else a time in seconds

    def start(self) -> None:
        """The first lap begins now."""
        self.lap("")

    def lap(self, name: str) -> None:
        """The time since the last lap belongs to `name`."""
        now: Any = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            now.record()
        self.laps.append((name, now))

    def stop(self) -> dict[str, float]:
        """Seconds by name, since the start."""
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, before), (name, now) in pairwise(self.laps):
            passed = before.elapsed_time(now) / 1000 if self.on_gpu else now - before
            seconds[name] = seconds.get(name, 0.0) + passed
        self.laps = []
        return seconds
