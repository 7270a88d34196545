"""The training loop: batches augmented on the device, the epoch chosen on validation."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pointnet.datasets import LabelledClouds, split_validation
from pointnet.datasets.transforms import (
    random_jitter,
    random_point_dropout,
    random_rotation,
    random_scale,
    random_shift,
    random_subset,
)
from pointnet.files import write_atomically
from pointnet.models import MODELS, PointNetClassifier, load_model
from pointnet.models.zoo import save_config, save_weights

from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig, save_config_yaml
from .feed import Batch, ResidentFeed, StreamedFeed, count_batches, cut_batches, make_feed
from .metrics import ConfusionMatrix

PREPROCESSING = {"frame": "z up, right-handed", "normalization": "centred, in the unit sphere"}
EVALUATION_BATCH = 32


def fit(
    config: TrainConfig,
    train: LabelledClouds,
    test: LabelledClouds | None = None,
    resume: bool = False,
    log: Callable[[str], None] = print,
    after_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains `config.model` on `train`, writes the run folder `config.out`, and returns what `result.json` holds.

    A validation part is carved from `train`; the epoch with the best accuracy on it is the one kept (the last epoch
    where `config.val_fraction` is 0). `test` is looked at once, at the end, with that epoch's weights.

    Args:
        resume: go on with the run in `config.out` from its last finished epoch; it ends as if it had never stopped.
        log: told one line an epoch.
        after_epoch: called with each line of `metrics.jsonl` once the epoch is safe on disk.

    Raises:
        ValueError: data that cannot train a classifier, or a run folder that is taken, or not there to resume.
    """
    device = find_device(config.device)
    out = Path(config.out)
    train_part, val_part = split_validation(train, config.seed, config.val_fraction)
    _check_trainable(train_part, config)

    run = _Run.start(config, train_part, device)
    if resume:
        run.restore(out / "checkpoint.pt")
    else:
        _open_run_folder(out, config, train)
    feed = make_feed(train_part, device, config.feed)

    log(f"{len(train_part):,} to train on, {len(val_part):,} to choose the epoch; {device}, {config.precision}; {out}/")
    while run.epoch < config.epochs:
        started = time.perf_counter()
        metrics = run.train_epoch(feed)
        if len(val_part):
            val = evaluate(run.model, val_part, device)
            metrics |= {f"val_{name}": value for name, value in val.items() if name != "count"}
        run.seconds += time.perf_counter() - started
        run.finish_epoch(metrics, out)
        log(_epoch_line(metrics, run))
        if after_epoch is not None:
            after_epoch(metrics)

    result: dict[str, Any] = {
        "test": None,
        "val": run.best.get("val"),
        "selected_epoch": run.best["epoch"],
        "seconds": round(run.seconds, 3),
        "samples_per_second": round(len(run.history) * len(train_part) / sum(e["seconds"] for e in run.history), 1),
    }
    if test is not None:
        scores = evaluate(load_model(out).to(device), test, device)
        result["test"] = {name: value for name, value in scores.items() if name != "loss"}
    write_atomically(out / "result.json", json.dumps(result, indent=2).encode())
    return result


@torch.no_grad()
def evaluate(model: nn.Module, data: LabelledClouds, device: torch.device | str = "cpu") -> dict[str, float | int]:
    """Overall and mean class accuracy over every sample, the mean cross-entropy loss, and the count; in float32."""
    was_training = model.training
    model.eval()
    confusion = ConfusionMatrix(len(data.classes), device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for rows in torch.arange(len(data)).split(EVALUATION_BATCH):
        points, labels = data.batch(rows)
        labels = labels.to(device)
        logits = model(points[:, :, : data.num_points].to(device))
        confusion.update(logits.argmax(1), labels)
        loss += F.cross_entropy(logits, labels, reduction="sum")
    model.train(was_training)
    scores = confusion.result()
    return {"loss": float(loss) / scores["count"], **scores}


@dataclass
class _Run:
    """A training run between two steps: all that changes while it goes."""

    config: TrainConfig
    model: PointNetClassifier
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: Generator
    device: torch.device
    samples: int
    data: str  # which data it is
    epoch: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, config: TrainConfig, train: LabelledClouds, device: torch.device) -> _Run:
        torch.manual_seed(config.seed)
        model = MODELS[config.model](**model_arguments(config, train)).to(device)
        optimizer = make_optimizer(model, config)
        schedule = make_schedule(optimizer, config, config.epochs * count_batches(len(train), config.batch_size))
        generator = Generator(device).manual_seed(config.seed)
        return cls(config, model, optimizer, schedule, generator, device, len(train), fingerprint(train))

    def train_epoch(self, feed: ResidentFeed | StreamedFeed) -> dict[str, Any]:
        """One pass over all clouds of the feed: -> what there is to report."""
        started = time.perf_counter()
        self.model.train()
        count = self.config.points_in_epoch(self.epoch)
        order = torch.randperm(self.samples, device=self.device, generator=self.generator)
        batches = feed.batches(cut_batches(order, self.config.batch_size))
        # Summed on the device, so that no step waits for its own loss.
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        for points, labels in _progress(batches, self.samples, title, loss_sum, right):
            x = augment(random_subset(points, count, self.generator), self.config, self.generator)
            loss, logits = self.step(x, labels)
            loss_sum += loss * len(labels)
            right += (logits.argmax(1) == labels).sum()
        train_loss, train_accuracy = float(loss_sum) / self.samples, int(right) / self.samples
        if not math.isfinite(train_loss):
            raise ValueError(
                f"epoch {self.epoch + 1}: the loss is {train_loss}; try a lower --lr, or look for bad points"
            )
        seconds = time.perf_counter() - started
        self.epoch += 1
        return {
            "epoch": self.epoch,
            "num_points": count,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "seconds": round(seconds, 3),
            "samples_per_second": round(self.samples / seconds, 1),
        }

    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One training step on x (B, C, N) and labels (B,): -> loss, logits (B, classes), both detached."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits, transforms = self.model(x, return_transforms=True)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        loss = loss + self.model.regularization(transforms)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach(), logits.detach()

    def finish_epoch(self, metrics: dict[str, Any], out: Path) -> None:
        """Keeps the weights if they are the best so far, then writes the checkpoint and the metrics."""
        score = (metrics.get("val_overall_accuracy", self.epoch), -metrics.get("val_loss", 0.0))
        if not self.best or score > tuple(self.best["score"]):
            names = ("overall_accuracy", "mean_class_accuracy")
            val = {name: metrics[f"val_{name}"] for name in names if f"val_{name}" in metrics}
            self.best = {"epoch": self.epoch, "score": list(score), "val": val or None}
            save_weights(out, self.model.state_dict())
        self.history.append(metrics)
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        write_atomically(out / "metrics.jsonl", lines.encode())
        # Last: with it the epoch is over; stopped before, it is done again and writes the same.
        save_checkpoint(out / "checkpoint.pt", self.state())

    def state(self) -> dict[str, Any]:
        random_state = {"augmentation": self.generator.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random_state,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
            "device": self.device.type,
            "samples": self.samples,
            "data": self.data,
        }

    def restore(self, path: Path) -> None:
        """Takes up the state saved at `path`. ValueError, in one line, if it is not of this run."""
        state = load_checkpoint(path)
        for name, now in (("device", self.device.type), ("samples", self.samples), ("data", self.data)):
            if state.get(name) != now:
                raise ValueError(f"{path}: the run had {name} {state.get(name)}, got {now}; it cannot go on with that")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.generator.set_state(state["random"]["augmentation"])
            torch.set_rng_state(state["random"]["cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
            for name in ("epoch", "seconds", "best", "history"):
                setattr(self, name, state[name])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(" ".join(f"{path}: does not fit this run: {error}".split())) from error


def fingerprint(data: LabelledClouds) -> str:
    """Tells data sets apart: a hash of the classes, the labels, and of each cloud its first point."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    digest.update(data.labels.numpy().tobytes())
    for rows in torch.arange(len(data)).split(1024):
        digest.update(data.batch(rows)[0][:, :, 0].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def model_arguments(config: TrainConfig, data: LabelledClouds) -> dict[str, Any]:
    """What `MODELS[config.model]` is built with."""
    return {
        "num_classes": len(data.classes),
        "in_channels": data.channels,
        "input_transform": config.input_transform,
        "feature_transform": config.feature_transform,
        "regularization_weight": config.regularization_weight,
    }


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of the config; only matrices are decayed, norms and biases are not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, config.lr)


def make_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by the step, over the whole run."""
    if config.schedule == "onecycle":
        # One step more than are taken: the schedule is also advanced after the last.
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps + 1)
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def augment(points: Tensor, config: TrainConfig, generator: Generator) -> Tensor:
    """A batch (B, C, N), changed at random as the config says."""
    if config.point_dropout:
        points = random_point_dropout(points, config.point_dropout, generator)
    if config.rotate:
        points = random_rotation(points, config.rotate, generator, config.normals)
    if config.scale > 1:
        points = random_scale(points, config.scale, generator, config.normals)
    if config.shift:
        points = random_shift(points, config.shift, generator)
    if config.jitter:
        points = random_jitter(points, config.jitter, generator)
    return points


def find_device(name: str) -> torch.device:
    """The device of this name, "auto" being CUDA where there is one. ValueError if it is unknown or not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got '{name}'") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got '{name}'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device '{name}' is not there: {torch.cuda.device_count()} CUDA devices found")
    return device


def keep_freed_memory() -> None:
    """Makes glibc keep the large blocks it is given back, instead of returning each to the kernel.

    On a CPU every activation is such a block, and faulting its pages in again costs more than the arithmetic: the
    training step is some times faster with this. It changes no result, but the whole process, so programs call it and
    the library does not. Elsewhere than on glibc it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def _open_run_folder(out: Path, config: TrainConfig, train: LabelledClouds) -> None:
    if (out / "checkpoint.pt").exists():
        raise ValueError(f"{out}: already holds a run; go on with it by --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    preprocessing = {**PREPROCESSING, "num_points": config.num_points, "normals": config.normals}
    save_config(out, config.model, model_arguments(config, train), train.classes, preprocessing)
    save_config_yaml(config, out / "config.yaml")


def _check_trainable(train: LabelledClouds, config: TrainConfig) -> None:
    present = train.labels.unique()
    if len(present) < 2:
        found = f"only '{train.classes[int(present[0])]}'" if len(present) else "no shapes"
        raise ValueError(f"a classifier needs shapes of at least two classes to train on, got {found}")
    if train.num_points != config.num_points:
        raise ValueError(f"num_points must be {train.num_points}, as the data has, got {config.num_points}")


def _progress(batches: Iterator[Batch], total: int, title: str, loss_sum: Tensor, right: Tensor) -> Iterator[Batch]:
    """The batches, with a bar on a terminal; it reads the sums, and so waits for the device, at most twice a second."""
    with tqdm(total=total, desc=title, unit=" clouds", leave=False, disable=None, mininterval=0.5) as bar:
        shown, done = time.monotonic(), 0
        for points, labels in batches:
            yield points, labels
            done += len(labels)
            bar.update(len(labels))
            if not bar.disable and time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.set_postfix(loss=f"{float(loss_sum) / done:.3f}", accuracy=f"{int(right) / done:.3f}")


def _epoch_line(metrics: Mapping[str, Any], run: _Run) -> str:
    config = run.config
    points_left = sum(config.points_in_epoch(epoch) for epoch in range(run.epoch, config.epochs))
    minutes_left = metrics["seconds"] * points_left / metrics["num_points"] / 60
    val = metrics.get("val_overall_accuracy")
    kept = "*" if run.best["epoch"] == run.epoch else " "
    return "  ".join(
        [
            f"epoch {run.epoch:3d}/{config.epochs}",
            f"{metrics['num_points']:5d} points",
            f"loss {metrics['train_loss']:.3f}",
            f"train {metrics['train_accuracy']:.3f}",
            *([] if val is None else [f"val {val:.4f}{kept}"]),
            f"{metrics['samples_per_second']:6,.0f} clouds/s",
            f"{minutes_left:.1f} min left",
        ]
    )
