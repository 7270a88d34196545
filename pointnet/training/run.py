"""A training run between two steps: what changes while it goes, and how it is saved and resumed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pointnet.datasets import LabelledClouds
from pointnet.datasets.transforms import random_subset
from pointnet.devices import autocast
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.structures import Structures
from pointnet.evaluation.tasks import TASKS, Task
from pointnet.models import MODELS
from pointnet.models.weights import save_weights
from pointnet.world import World

from .augment import augment, hide_categories
from .checkpoint import load_checkpoint, save_checkpoint
from .loader import Loader, count_batches, count_steps, cut_batches, cut_epoch, make_loader
from .losses import balanced_weights
from .network import Own, StartingWeights, contract_of, make_model, set_training
from .optimizer import MovingAverage, make_optimizer, make_schedule
from .progress import Progress, with_bar
from .run_folder import CHECKPOINT, score_of, write_metrics
from .settings import TrainConfig
from .step import Step, Stopwatch
from .teacher import Teacher

RANKS_APART = 1_000_003  # between the seeds of two processes of a run
NORM_BATCHES = 8  # batches that norms are measured on, at most
VIEWS = 2  # of a cloud, where its structure is found once


@dataclass
class Run:
    """A training run between two steps. Several processes (`world`) train one model, each on its share of a batch."""

    config: TrainConfig
    device: torch.device
    world: World
    train: LabelledClouds
    contract: Contract
    loader: Loader
    step: Step
    structures: Structures | None  # of the training split, if its network takes them
    teacher: Teacher | None  # None to learn from labels alone
    generator: torch.Generator
    origin: str  # a line about the weights that it began with; empty for new ones
    own: Own
    identity: dict[str, Any]  # what a run must share with a checkpoint to go on from it
    taught: Tensor | None = None  # (S, classes), what the teacher says of the training split, once it was asked
    # What changes, beside the state of model, optimizer, schedule and random numbers.
    epoch: int = 0  # epochs done
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)  # epoch, score and validation metrics of the best epoch so far
    history: list[dict[str, Any]] = field(default_factory=list)  # the metrics of each epoch
    progress: Progress | None = None  # None between two epochs

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        train: LabelledClouds,
        device: torch.device,
        world: World,
        own: Own = Own(),  # noqa: B008  # it is immutable
    ) -> Run:
        """A new run. ValueError for a teacher or a network of one's own that does not fit."""
        if device.index is not None:  # streams, events and graphs belong to the current device
            torch.cuda.set_device(device)
        contract = contract_of(config, train)
        with world.together():  # first, as building a network draws random numbers
            teacher = Teacher(config.teacher, train.classes, contract, device) if config.teacher else None
            if config.init and own.model is not None:
                raise ValueError("init is for a network that is made here; load weights into your model before fit")
            start = StartingWeights(config.init, MODELS[config.network], contract) if config.init else None
            loader = make_loader(train, device, config.feed, config.workers)
        torch.manual_seed(config.seed)
        model = make_model(config, train, device, world, start, own.model)
        average = MovingAverage(model, config.ema) if config.ema else None
        optimizer = make_optimizer(model, config)
        steps = count_steps(len(train), config.batch_size, config.min_steps)
        schedule = make_schedule(optimizer, config, config.epochs * steps)
        seed = config.seed + RANKS_APART * world.rank
        if world.rank:
            torch.manual_seed(seed)
        # Batches have few sizes, so each is compiled for itself.
        forward = torch.compile(model, dynamic=False) if config.compile else model
        weights = balanced_weights(train).to(device) if config.class_weights == "balanced" else None
        parts_of, watch = TASKS[config.task].parts_of(model, train, device), Stopwatch(device)
        step = Step(config, model, forward, optimizer, schedule, average, parts_of, weights, world, watch, own.loss)
        identity = {
            "device": device.type, "samples": len(train), "data": train.fingerprint(), "processes": world.size,
            "teacher": teacher and teacher.digest, "init": start and start.digest, "steps_per_epoch": steps,
            "network": own.name, "loss": own.loss_name, "loss_values": own.loss_values,
        }  # fmt: skip
        generator = torch.Generator(device).manual_seed(seed)
        origin = start.line if start else ""
        # Dropped points have no structure; the network finds that of the others.
        structures = None if config.point_dropout else Structures.by(model, len(train), VIEWS)
        parts: Any = train, contract, loader, step, structures, teacher, generator, origin, own, identity
        return cls(config, device, world, *parts)

    @property
    def task(self) -> Task:
        return TASKS[self.config.task]

    @property
    def evaluated(self) -> Any:
        """The network that is evaluated and kept: the moving average, or the model where there is none."""
        return self.step.average.model if self.step.average else self.step.model

    @property
    def passes(self) -> float:
        """How often an epoch goes over the training split: once, or more often where that is too few steps."""
        return self.identity["steps_per_epoch"] / count_batches(len(self.train), self.config.batch_size)

    @torch.no_grad()
    def ask_teacher(self) -> Generator[None, None, None]:
        """Asks the teacher, if there is one, about each cloud as it is stored, once; yields after each batch."""
        if self.teacher is None or self.taught is not None:
            return
        config, classes = self.config, len(self.train.classes)
        shares = cut_batches(torch.arange(len(self.train)), config.batch_size, self.world.rank, self.world.size)
        taught = torch.zeros(len(self.train), classes, dtype=torch.float32, device=self.device)
        title = "asking the teacher" if self.world.writes else ""
        loaded = with_bar(self.loader.batches(shares), sum(map(len, shares)), title)
        for rows, (points, _) in zip(shares, loaded, strict=True):
            with autocast(self.device, config.precision):
                taught[rows] = self.teacher.probabilities(points[:, :, : config.num_points], config.temperature)
            yield
        self.world.add_up([taught])
        self.taught = taught

    def steps(self) -> Generator[None, None, None]:
        """Trains the steps of the epoch that are not done yet; yields after each. Close it before using the run.

        The teacher must have been asked.
        """
        assert self.teacher is None or self.taught is not None
        config, model = self.config, self.step.model
        set_training(model)
        self.step.set_norm_momentum(config.norm_momentum_in_epoch(self.epoch), self.own.model is not None)
        progress = self.progress = self.progress or self._begun()
        how = progress.order.split(len(self.train)), config.batch_size, config.min_steps
        batches = cut_epoch(*how)[progress.position :]
        shares = cut_epoch(*how, self.world.rank, self.world.size)[progress.position :]
        on_host = [rows.cpu() for rows in shares] if self.structures else shares
        title = f"epoch {self.epoch + 1}/{config.epochs}" if self.world.writes else ""
        watch = self.step.watch
        try:
            watch.start()
            loaded = with_bar(self.loader.batches(shares), sum(map(len, shares)), title, progress)
            for batch, rows, host_rows, (points, labels) in zip(batches, shares, on_host, loaded, strict=True):
                self._train_on(points, labels, rows, host_rows, len(rows) / len(batch), progress)
                progress.position += 1
                watch.lap("optimizer")
                yield
        finally:
            for name, seconds in watch.stop().items():
                progress.seconds[name] = progress.seconds.get(name, 0.0) + seconds

    def _begun(self) -> Progress:
        """The epoch before its first step."""
        return Progress.begin(self.train, self.config.seed, self.epoch, self.device, math.ceil(self.passes))

    def _train_on(
        self, points: Tensor, labels: Tensor, rows: Tensor, host_rows: Tensor, share: float, progress: Progress
    ) -> None:
        """One step on this process's share of a batch, the samples `rows`, added to the progress."""
        config, generator, structure = self.config, self.generator, None
        if self.structures:
            x, structure = self.structures.of(points, host_rows, config.points_in_epoch(self.epoch), turn=self.epoch)
        else:
            x = random_subset(points, config.points_in_epoch(self.epoch), generator)
        if not config.overfit_batches:
            x = augment(x, config, self.contract.normals, generator)
        x, category, labels, _ = self.task.examples(x, labels)
        if category is not None and not config.overfit_batches:
            category = hide_categories(category, config.unknown_category, generator)
        self.step.watch.lap("data")
        taught, count = None if self.taught is None else self.taught[rows], (labels >= 0).sum()
        loss, logits, finite = self.step(x, labels, category, share, structure, taught)
        predicted = self.task.predict(logits, category, self.step.parts_of)
        progress.skipped += ~finite
        progress.broken[rows] |= ~points.isfinite().flatten(1).all(1)
        progress.seen += finite * count
        progress.loss_sum += torch.where(finite, loss * count, 0.0)
        progress.right += torch.where(finite, (predicted == labels).sum(), 0)

    @torch.no_grad()
    def measure_norms(self, check: Callable[[], None]) -> None:
        """Gives the evaluated network's norms the statistics of training clouds as evaluation would see them.

        Only where epochs are short, as there running statistics lag behind the weights, and enough clouds are finite.
        `check` may raise, to stop.
        Source: "precise batch norm", Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3.
        """
        if self.passes == 1:
            return
        assert self.progress is not None
        pairs = zip(self.evaluated.modules(), self.step.model.modules(), strict=True)
        norms = {norm: norm.momentum for norm, own in pairs if isinstance(norm, _BatchNorm) and own.training}
        model, watch, broken = self.evaluated.eval(), self.step.watch, self.progress.broken.int()
        self.world.add_up([broken])
        order = self.progress.order[: len(self.train)]
        whole = order[broken[order] == 0]
        if len(whole) // count_batches(len(whole), self.config.batch_size) < max(2, self.world.size):
            return  # a norm needs two clouds, each process one; `check_skipped` names the others
        shares = cut_batches(whole, self.config.batch_size, self.world.rank, self.world.size)
        watch.start()
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.train().momentum = None  # the mean over all batches
            shares = shares[:NORM_BATCHES]
            for rows, (points, labels) in zip(shares, self.loader.batches(shares), strict=True):
                count = self.config.num_points
                found = {"structure": self.structures.of(points, rows.cpu(), count)[1]} if self.structures else {}
                x, category, _, _ = self.task.examples(points[:, :, :count], labels)
                model(x, *(() if category is None else (category,)), **found)
                check()
        finally:
            for norm, momentum in norms.items():
                norm.eval().momentum = momentum
            watch.lap("norms")
            self.progress.seconds |= watch.stop()

    def end_epoch(self) -> dict[str, Any]:
        """The metrics of the epoch, whose steps are all done; the first time that the host reads its sums."""
        assert self.progress is not None
        progress, self.progress = self.progress, None
        sums = torch.stack([each.double() for each in (progress.loss_sum, progress.right, progress.seen)])
        broken = progress.broken.int()
        self.world.add_up([sums])
        self.world.add_up([broken])
        loss_sum, right, seen = sums.tolist()
        skipped, seconds = int(progress.skipped), sum(progress.seconds.values())
        count = self.config.points_in_epoch(self.epoch)
        self.epoch += 1
        metrics = {
            "epoch": self.epoch,
            "num_points": count,
            "lr": self.step.optimizer.param_groups[0]["lr"],
            "train_loss": loss_sum / seen if seen else math.nan,  # where every step was skipped
            "train_accuracy": right / seen if seen else math.nan,
            "seconds": round(seconds, 3),
            "samples_per_second": round(len(self.train) * self.passes / seconds, 1),
            **{f"{name}_seconds": round(value, 3) for name, value in progress.seconds.items()},
        }
        if skipped:
            samples = broken.nonzero()[:, 0].tolist()
            metrics |= {"skipped_steps": skipped, "steps": progress.position, "broken_samples": samples}
        return metrics

    def finish_epoch(self, metrics: dict[str, Any]) -> None:
        """Saves the weights if they are the best so far, then metrics and checkpoint."""
        score = score_of(metrics, f"val_{self.config.chooser}")
        better = not self.best or score > tuple(self.best["score"])
        if better:
            val = {name: metrics[f"val_{name}"] for name in self.task.titles if f"val_{name}" in metrics}
            self.best = {"epoch": self.epoch, "score": list(score), "val": val or None}
        self.history.append(metrics)
        with self.world.together():
            if self.world.writes:
                if better:
                    save_weights(self.config.out, self.evaluated.state_dict())
                write_metrics(self.config.out, self.history)
        self.save()  # last: a run that stops before it repeats the epoch and writes the same

    def save(self) -> None:
        """Writes the checkpoint, within an epoch or between two. Every process of the run calls it."""
        state = self.state()
        with self.world.together():
            if self.world.writes:
                save_checkpoint(Path(self.config.out) / CHECKPOINT, state)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs. Every process of the run calls it."""
        random = {"augmentation": self.generator.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        fields = vars(self.progress) if self.progress else {}
        progress = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in fields.items()}
        if self.progress:  # of many samples and ranks the checkpoint would be all this
            del progress["order"]  # it is made again
            progress["broken"] = progress["broken"].nonzero()[:, 0]
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            **{name: getattr(self, name) for name in ("epoch", "seconds", "best", "history")},
            **self.identity,
            "taught": self.taught,
            "position": progress.pop("position", 0),
            "each": self.world.gather({"random": random, "progress": progress}),
        }

    def restore(self, path: Path) -> None:
        """Restores the state saved at `path`. ValueError, in one line, if it is of another run."""
        of_older = {"steps_per_epoch": count_batches(len(self.train), self.config.batch_size)}  # they do not say
        of_older |= {name: self.identity[name] for name in ("loss", "loss_values")}
        state = of_older | load_checkpoint(path)
        for name, now in self.identity.items():
            if state.get(name) != now and name in ("data", "samples"):
                was = "the run had other data to train on: a file or a class was added, removed, renamed or changed"
                raise ValueError(f"{path}: {was}, or is read otherwise; undo that, or start a new run")
            if state.get(name) != now:
                raise ValueError(f"{path}: the run had {name} {state.get(name)}, got {now}; it cannot resume with that")
        try:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            mine = state["each"][self.world.rank]
            self.generator.set_state(mine["random"]["augmentation"])
            torch.set_rng_state(mine["random"]["cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(mine["random"]["cuda"], self.device)
            for name in ("epoch", "seconds", "best", "history"):
                setattr(self, name, state[name])
            taught = state.get("taught")  # older ones do not say
            self.taught = None if taught is None else taught.to(self.device)
            saved = mine["progress"].items()
            fields: Any = {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in saved}
            self.progress = None
            if fields:
                begun = self._begun()
                begun.broken[fields.pop("broken")] = True  # indices; in older checkpoints a mask
                self.progress = dataclasses.replace(begun, **fields, position=state["position"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(" ".join(f"{path}: does not fit this run: {error}".split())) from error

    def _parts(self) -> dict[str, Any]:
        """What has a state dict, by its name in the checkpoint."""
        step = self.step
        parts = {"model": step.model, "optimizer": step.optimizer, "schedule": step.schedule}
        return parts | ({"averaged": step.average.model} if step.average else {})
