"""A training run between two steps: what changes while it goes, one step of it, and all of it to a file and back."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from pointnet.datasets import LabelledClouds
from pointnet.datasets.transforms import (
    random_jitter,
    random_mirror,
    random_point_dropout,
    random_rotation,
    random_scale,
    random_shift,
    random_subset,
)
from pointnet.evaluation.tasks import TASKS, Classification
from pointnet.files import write_atomically
from pointnet.layers import synchronize_norms
from pointnet.layers.tnet import TNET_WIDTHS
from pointnet.models import MODELS, PointNetModel
from pointnet.models.weights import save_weights
from pointnet.world import World

from .capture import CapturedGradients
from .checkpoint import load_checkpoint, save_checkpoint
from .distillation import Teacher, distillation_loss
from .feed import Batch, ResidentFeed, StreamedFeed, count_batches, cut_batches
from .settings import TrainConfig
from .stopwatch import Stopwatch

RANKS_APART = 1_000_003  # between the seeds of two processes of a run


@dataclass
class Run:
    """A training run between two steps: all that changes while it goes.

    Nothing in a step waits for the device. A step whose loss or gradient is not finite changes neither weights nor
    running statistics: the optimizer is told on the device (`found_inf`), and buffers are put back.

    Several processes (`world`) each take their share of every batch and hold the same weights; norms, gradients and
    sums are those of the whole batch. What differs between them is random: augmentation and dropout.
    """

    config: TrainConfig
    model: PointNetModel
    averaged: PointNetModel | None  # the moving average of the model, where there is one
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: Generator
    device: torch.device
    samples: int
    data: str  # which data it is
    world: World
    forward: Callable[..., Any]  # the model, compiled if it is to be
    watch: Stopwatch
    teacher: Teacher | None  # whom it learns from too, where there is one
    captured: CapturedGradients | None = None
    epoch: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    position: int = 0  # steps of this epoch that are done
    progress: dict[str, Any] = field(default_factory=dict)  # of this epoch: its order, sums and seconds

    @classmethod
    def start(cls, config: TrainConfig, train: LabelledClouds, device: torch.device) -> Run:
        world = World.current()
        if device.index is not None:  # streams, events and graphs are those of the current one
            torch.cuda.set_device(device)
        with world.together():  # first: building a network draws random numbers
            teacher = Teacher(config.teacher, train.classes, config.normals, device) if config.teacher else None
        torch.manual_seed(config.seed)
        model = synchronize_norms(MODELS[config.network](**model_arguments(config, train)).to(device))
        world.take_from_first(list(model.state_dict().values()))
        averaged = copy.deepcopy(model).requires_grad_(False) if config.ema else None
        optimizer = make_optimizer(model, config)
        schedule = make_schedule(optimizer, config, config.epochs * count_batches(len(train), config.batch_size))
        generator = Generator(device).manual_seed(config.seed + RANKS_APART * world.rank)
        if world.rank:
            torch.manual_seed(config.seed + RANKS_APART * world.rank)
        data = fingerprint(train)
        # Sizes are few and known, so each is compiled for itself; on a GPU launches become CUDA graphs.
        mode = "reduce-overhead" if device.type == "cuda" else None
        forward = torch.compile(model, dynamic=False, mode=mode) if config.compile else model
        watch, samples = Stopwatch(device), len(train)
        return cls(
            config,
            model,
            averaged,
            optimizer,
            schedule,
            generator,
            device,
            samples,
            data,
            world,
            forward,
            watch,
            teacher,
        )

    @property
    def task(self) -> Classification:
        return TASKS[self.config.task]

    @property
    def evaluated(self) -> PointNetModel:
        """The network that is measured and kept."""
        return self.model if self.averaged is None else self.averaged

    def train_epoch(self, feed: ResidentFeed | StreamedFeed, check: Callable[[], None]) -> None:
        """The steps of an epoch that are not done yet. `check` is called after each and may raise."""
        self.model.train()
        set_norm_momentum(self.model, self.config.norm_momentum_in_epoch(self.epoch))
        if not self.progress:
            self._begin_epoch()
        progress = self.progress
        count = self.config.points_in_epoch(self.epoch)
        batches = cut_batches(progress["order"], self.config.batch_size)[self.position :]
        shares = cut_batches(progress["order"], self.config.batch_size, self.world.rank, self.world.size)[
            self.position :
        ]
        title = f"epoch {self.epoch + 1}/{self.config.epochs}" if self.world.writes else ""
        try:
            self.watch.start()
            for batch, rows, (points, labels) in zip(
                batches, shares, _progress(feed.batches(shares), sum(map(len, shares)), title, progress), strict=True
            ):
                x = augment(random_subset(points, count, self.generator), self.config, self.generator)
                (x, *more), labels, _ = self.task.examples(x, labels)
                more = [withhold(category, self.config, self.generator) for category in more]
                targets = labels
                self.watch.lap("data")
                loss, logits, good = self.step(x, targets, *more, share=len(rows) / len(batch))
                finite = points.isfinite().flatten(1).all(1)
                progress["skipped"] += ~good
                progress["broken"][rows] |= ~finite
                progress["seen"] += good * labels.numel()
                progress["loss_sum"] += torch.where(good, loss * labels.numel(), 0.0)
                answers = self.task.answer(self.model, logits, *more)
                most = targets.argmax(1) if targets.is_floating_point() else targets
                progress["right"] += torch.where(good, (answers == most).sum(), 0)
                self.position += 1
                self.watch.lap("optimizer")
                check()
        finally:
            for name, seconds in self.watch.stop().items():
                progress["seconds"][name] = progress["seconds"].get(name, 0.0) + seconds

    def _begin_epoch(self) -> None:
        # Summed on the device, so that no step waits for its own loss.
        zero = torch.zeros((), dtype=torch.int64, device=self.device)
        # Of the seed and the epoch alone: all processes have it, and runs with other settings see the same batches.
        order = torch.randperm(self.samples, generator=Generator().manual_seed((self.config.seed << 20) + self.epoch))
        self.progress = {
            "order": order.to(self.device),
            "loss_sum": torch.zeros((), device=self.device),
            "right": zero.clone(),
            "seen": zero.clone(),
            "skipped": zero.clone(),
            "broken": torch.zeros(self.samples, dtype=torch.bool, device=self.device),
            "seconds": {},
        }
        self.position = 0

    def end_epoch(self) -> dict[str, Any]:
        """What the epoch came to; the first time that the host looks at a number of it."""
        count, steps = self.config.points_in_epoch(self.epoch), self.position
        progress, self.progress, self.position = self.progress, {}, 0
        sums = torch.stack([progress[name].double() for name in ("loss_sum", "right", "seen")])
        broken = progress["broken"].int()
        self.world.add_up([sums])
        self.world.add_up([broken])
        loss_sum, right, seen = sums.tolist()
        skipped, seconds = int(progress["skipped"]), sum(progress["seconds"].values())
        self.epoch += 1
        metrics = {
            "epoch": self.epoch,
            "num_points": count,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss_sum / max(seen, 1),
            "train_accuracy": right / max(seen, 1),
            "seconds": round(seconds, 3),
            "samples_per_second": round(self.samples / seconds, 1),
            **{f"{name}_seconds": round(value, 3) for name, value in progress["seconds"].items()},
        }
        if skipped:
            metrics |= {
                "skipped_steps": skipped,
                "steps": steps,
                "broken_samples": broken.nonzero()[:, 0].tolist(),
            }
        return metrics

    def step(self, x: Tensor, targets: Tensor, *more: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """One training step on x (B, C, N): -> loss, logits (B, classes) or (B, classes, N), and whether it was finite.

        Args:
            targets: labels (B,) or (B, N), or shares of the classes (B, classes).
            more: what else the network takes.
            share: which part of the whole batch's clouds these are; the loss is that of the whole batch.
        """
        if self.captured is None:
            loss, logits, good = self._find_gradients(x, targets, *more, share=share)
        else:
            loss, logits, good = self.captured(x, targets, *more)
        self.watch.lap("backward")
        # The fused optimizers read this, as they do a gradient scaler's: where it is 1 they leave all as it is.
        self.optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.schedule.step()
        if self.averaged is not None:
            self._average()
        return loss, logits, good

    def _find_gradients(
        self, x: Tensor, targets: Tensor, *more: Tensor, share: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Leaves the gradients in the parameters; running statistics are as before where it was not finite."""
        buffers = list(self.model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits, transforms = self.forward(x, *more, return_transforms=True)
            wanted = None if self.teacher is None else self.teacher.probabilities(x, self.config.temperature)
        logits = logits.float()
        loss = self.task.loss(self.config, self.model, logits, targets, *more)
        if wanted is not None:
            loss = torch.lerp(loss, distillation_loss(logits, wanted, self.config.temperature), self.config.distill)
        loss = (loss + self.model.regularization(transforms)) * share
        self.watch.lap("forward")
        loss.backward()
        loss = loss.detach()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.world.add_up([*gradients, loss])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        good = loss.isfinite() & norm.isfinite()
        if self.config.clip:
            torch._foreach_mul_(gradients, (self.config.clip / (norm + 1e-6)).clamp(max=1.0))
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(torch.where(good, buffer, before))
        return loss, logits.detach(), good

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the average towards the model; early on faster, min(ema, (1 + n) / (10 + n)) of it kept at step n.

        So that a short run forgets its first steps: averaged with theirs, batch norm's statistics fit no network. The
        formula is that of TensorFlow's ExponentialMovingAverage.
        """
        assert self.averaged is not None
        taken = self.schedule.last_epoch  # steps
        share = max(1 - self.config.ema, 9 / (taken + 10))
        pairs = list(zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True))
        floats = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floats], [now for _, now in floats], share)
        for mean, now in pairs:
            if not mean.is_floating_point():
                mean.copy_(now)

    def finish_epoch(self, metrics: dict[str, Any], out: Path) -> None:
        """Keeps the weights if they are the best so far, then writes the checkpoint and the metrics."""
        chooser = next(iter(self.task.titles))
        score = (metrics.get(f"val_{chooser}", self.epoch), -metrics.get("val_loss", 0.0))
        better = not self.best or score > tuple(self.best["score"])
        if better:
            val = {name: metrics[f"val_{name}"] for name in self.task.titles if f"val_{name}" in metrics}
            self.best = {"epoch": self.epoch, "score": list(score), "val": val or None}
        self.history.append(metrics)
        state = self.state()
        with self.world.together():
            if self.world.writes:
                if better:
                    save_weights(out, self.evaluated.state_dict())
                lines = "".join(json.dumps(line) + "\n" for line in self.history)
                write_atomically(out / "metrics.jsonl", lines.encode())
                # Last: with it the epoch is over; stopped before, it is done again and writes the same.
                save_checkpoint(out / "checkpoint.pt", state)

    def save(self, out: Path) -> None:
        """Writes the checkpoint, in the middle of an epoch or between two. Every process of the run calls it."""
        state = self.state()
        with self.world.together():
            if self.world.writes:
                save_checkpoint(out / "checkpoint.pt", state)

    def state(self) -> dict[str, Any]:
        random_state = {"augmentation": self.generator.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.device)
        progress = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in self.progress.items()}
        return {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "position": self.position,
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
            "device": self.device.type,
            "samples": self.samples,
            "data": self.data,
            "processes": self.world.size,
            "teacher": self.teacher and self.teacher.digest,
            "each": self.world.gather({"random": random_state, "progress": progress}),
        }

    def restore(self, path: Path) -> None:
        """Takes up the state saved at `path`. ValueError, in one line, if it is not of this run."""
        state = load_checkpoint(path)
        own = {
            "device": self.device.type, "samples": self.samples, "data": self.data, "processes": self.world.size,
            "teacher": self.teacher and self.teacher.digest,
        }  # fmt: skip
        for name, now in own.items():
            if state.get(name) != now:
                raise ValueError(f"{path}: the run had {name} {state.get(name)}, got {now}; it cannot go on with that")
        try:
            self.model.load_state_dict(state["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            mine = state["each"][self.world.rank]
            self.generator.set_state(mine["random"]["augmentation"])
            torch.set_rng_state(mine["random"]["cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(mine["random"]["cuda"], self.device)
            for name in ("epoch", "position", "seconds", "best", "history"):
                setattr(self, name, state[name])
            self.progress = {
                name: value.to(self.device) if isinstance(value, Tensor) else value
                for name, value in mine["progress"].items()
            }
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(" ".join(f"{path}: does not fit this run: {error}".split())) from error


def fingerprint(data: LabelledClouds) -> str:
    """Tells data sets apart: a hash of the classes, the labels, and of each cloud its first point."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    digest.update(data.labels.numpy().tobytes())
    for rows in torch.arange(len(data)).split(1024):
        digest.update(data.batch(rows)[0][:, :, 0].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def model_arguments(config: TrainConfig, data: LabelledClouds) -> dict[str, Any]:
    """What `MODELS[config.network]` is built with."""
    task = TASKS[config.task]
    return {
        **task.arguments(data),
        "input_transform": config.input_transform,
        "feature_transform": config.feature_transform,
        "regularization_weight": config.regularization_weight,
        "widths": [scaled(widths, config.width) for widths in task.widths],
        "head_widths": scaled(task.head_widths, config.width),
        "tnet_widths": [scaled(widths, config.tnet_width) for widths in TNET_WIDTHS],
        "dropout": config.dropout,
    }


def scaled(widths: Sequence[int], share: float) -> list[int]:
    """That share of the widths, in eights: others take longer than they are worth."""
    return [max(8, 8 * round(width * share / 8)) for width in widths]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of the config; only matrices are decayed, norms and biases are not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    # Fused: one pass over the weights, and a step that is not to be taken is told on the device.
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, config.lr, momentum=0.9, fused=True)
        for parameter in parameters:  # of its own it would leave them unset by a first step that is not taken
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, config.lr, fused=True)
    return torch.optim.AdamW(groups, config.lr, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by the step, over the whole run."""
    if config.schedule == "onecycle":
        # One step more than are taken: the schedule is also advanced after the last.
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps + 1)
    warm = round(config.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if config.schedule == "constant":
            return 1.0
        if config.schedule == "step":
            decays = step * config.epochs // (steps * config.decay_epochs)
            return max(config.decay_rate**decays, 0.01)
        return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def augment(points: Tensor, config: TrainConfig, generator: Generator) -> Tensor:
    """A batch (B, C, N), changed at random as the config says."""
    if config.overfit_batches:
        return points
    if config.point_dropout:
        points = random_point_dropout(points, config.point_dropout, generator)
    if config.rotate:
        points = random_rotation(points, config.rotate, generator, config.normals)
    if config.mirror:
        points = random_mirror(points, generator, config.normals)
    if config.scale > 1:
        points = random_scale(points, config.scale, generator, config.normals)
    if config.shift:
        points = random_shift(points, config.shift, generator)
    if config.jitter:
        points = random_jitter(points, config.jitter, generator)
    return points


def withhold(category: Tensor, config: TrainConfig, generator: Generator) -> Tensor:
    """Categories (B,), some of them -1, not known, as the config says."""
    if not config.unknown_category or config.overfit_batches:
        return category
    drawn = torch.rand(category.shape, generator=generator, device=category.device)
    return category.masked_fill(drawn < config.unknown_category, -1)


def set_norm_momentum(model: nn.Module, momentum: float) -> None:
    """Says how much of a batch's statistics every batch norm's running ones take."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = momentum


def _progress(batches: Iterator[Batch], total: int, title: str, progress: Mapping[str, Any]) -> Iterator[Batch]:
    """The batches, with a bar on a terminal; it reads the sums, and so waits for the device, at most twice a second.

    Without a title there is no bar.
    """
    hidden = None if title else True
    with tqdm(total=total, desc=title, unit=" clouds", leave=False, disable=hidden, mininterval=0.5) as bar:
        shown = time.monotonic()
        for points, labels in batches:
            yield points, labels
            bar.update(len(labels))
            if not bar.disable and time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                seen = max(int(progress["seen"]), 1)
                bar.set_postfix(
                    loss=f"{float(progress['loss_sum']) / seen:.3f}", accuracy=f"{int(progress['right']) / seen:.3f}"
                )
