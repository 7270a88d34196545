"""The training loop: epochs of a run, the best one chosen on validation, and a stop wherever it is asked for."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pointnet.datasets import LabelledClouds, split_validation
from pointnet.datasets.clouds import spread
from pointnet.devices import deterministic_algorithms, environment, find_device
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.tasks import TASKS
from pointnet.files import write_atomically
from pointnet.models import load_model
from pointnet.models.weights import save_config
from pointnet.world import World

from .feed import count_batches, make_feed
from .run import Run, model_arguments
from .run_folder import write_config
from .settings import TrainConfig


class Stopped(Exception):
    """The run was asked to stop by a signal; where it stood is saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}, and saved: resume goes on from there")
        self.signum = signum


def fit(
    config: TrainConfig,
    train: LabelledClouds,
    test: LabelledClouds | None = None,
    resume: bool = False,
    log: Callable[[str], None] = print,
    after_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains `config.model` on `train`, writes the run folder `config.out`, and returns what `result.json` holds.

    A validation part is carved from `train`; the epoch that is best on it, by the first of the task's scores, is the
    one kept (the last epoch where `config.val_fraction` is 0). `test` is looked at once, at the end, with that epoch's
    weights.

    Within a process group every process calls it, with the same arguments and an `out` that all see; they train as one
    with the whole batch, and rank 0 writes and logs.

    Args:
        resume: go on with the run in `config.out` from where it was saved; it ends as if it had never stopped.
        log: told one line an epoch.
        after_epoch: called with each line of `metrics.jsonl` once the epoch is safe on disk.

    Raises:
        ValueError: data that cannot train a network, a run folder that is taken, or not there to resume, more steps
            than `config.skip_limit` that were not finite, or more processes than a batch has clouds.
        Stopped: SIGTERM or SIGINT came; the run is saved as it was between two steps.
        OSError: the run folder cannot be written; the last checkpoint is still good.
        AgreedError: in place of the others, where several processes train: one of them had such an error.
    """
    world = World.current()
    with world.together():
        device = find_device(config.device)
        out = Path(config.out)
        train_part, val_part = training_parts(train, config)
        check_trainable(train_part, config, world)
    run = Run.start(config, train_part, device)
    with world.together():
        if not resume and world.writes:
            _open_run_folder(out, config, train)
    with world.together():
        _check_shared(run, out)
        if resume:
            run.restore(out / "checkpoint.pt")
        feed = make_feed(train_part, device, config.feed)
    if not world.writes:
        log = say_nothing

    processes = f", {world.size} processes" if world.size > 1 else ""
    parts = f"{len(train_part):,} to train on, {len(val_part):,} to choose the epoch"
    log(f"{parts}; {device}{processes}, {config.precision}; {out}/")
    with deterministic_algorithms(config.deterministic), _stop_between_steps(world) as check:
        while run.epoch < config.epochs:
            try:
                run.train_epoch(feed, check)
                started = time.perf_counter()
                # It is done every epoch, so on no more points of a cloud than are trained on.
                measure = partial(evaluate, check=check, world=world, num_points=config.num_points)
                val = measure(run.evaluated, val_part, device) if len(val_part) else {}
                evaluation_seconds = time.perf_counter() - started if val else 0.0
            except Stopped:
                run.save(out)
                raise
            metrics = run.end_epoch() | {f"val_{name}": value for name, value in val.items() if name != "count"}
            metrics["evaluation_seconds"] = round(evaluation_seconds, 3)
            run.seconds += metrics["seconds"] + time.perf_counter() - started
            run.finish_epoch(metrics, out)
            log(_epoch_line(metrics, run))
            with world.together():
                _check_skipped(run, train_part, log)
                if after_epoch is not None:
                    after_epoch(metrics)
        result: dict[str, Any] = {
            "test": None,
            "val": run.best.get("val"),
            "selected_epoch": run.best["epoch"],
            "seconds": round(run.seconds, 3),
            "samples_per_second": round(len(run.history) * len(train_part) / sum(e["seconds"] for e in run.history), 1),
            "shares": _shares(run),
            "environment": environment(device) | {"processes": world.size},
        }
        with world.together():
            best = load_model(out).to(device)
        if len(val_part) and run.task.measured(val_part) != config.num_points:
            scores = evaluate(best, val_part, device, check, world)
            result["val"] = {name: scores[name] for name in run.task.titles}
        if test is not None and not config.overfit_batches:
            scores = evaluate(best, test, device, check, world)
            result["test"] = {name: value for name, value in scores.items() if name != "loss"}
    with world.together():
        if world.writes:
            write_atomically(out / "result.json", json.dumps(result, indent=2).encode())
    return result


def training_parts(train: LabelledClouds, config: TrainConfig) -> tuple[LabelledClouds, LabelledClouds]:
    """What of the training set a run trains on, and what it chooses the epoch on."""
    train_part, val_part = split_validation(train, config.seed, config.val_fraction)
    if config.overfit_batches:
        train_part = val_part = spread(train_part, config.overfit_batches * config.batch_size)
    return train_part, val_part


@contextmanager
def _stop_between_steps(world: World) -> Iterator[Callable[[], None]]:
    """Within it SIGTERM and SIGINT wait for the next call of what it gives, raising `Stopped`; a second does not.

    In a world of several all stop after the same step. There a second signal waits too: torchrun sends on what the
    terminal has already sent, and kills a process that does not end.
    """
    came: list[int] = []

    def check() -> None:
        signum = world.largest(came[0] if came else 0)
        if signum:
            raise Stopped(signum)

    if threading.current_thread() is not threading.main_thread():  # which alone may take signals
        yield check
        return

    def remember(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        if world.size == 1:
            signal.signal(signum, before[signum])

    before: dict[int, Any] = {signum: signal.signal(signum, remember) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield check
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _open_run_folder(out: Path, config: TrainConfig, train: LabelledClouds) -> None:
    if (out / "checkpoint.pt").exists():
        raise ValueError(f"{out}: already holds a run; go on with it by --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    task = TASKS[config.task]
    preprocessing = task.preprocessing(train) | {"num_points": config.num_points, "normals": config.normals}
    save_config(out, config.network, model_arguments(config, train), task.answers(train), preprocessing)
    write_config(out, config)


def check_trainable(train: LabelledClouds, config: TrainConfig, world: World) -> None:
    """Raises ValueError, in one line, unless a network can be trained on these clouds by so many processes."""
    TASKS[config.task].check(train)
    if train.num_points != config.num_points:
        raise ValueError(f"num_points must be {train.num_points}, as the data has, got {config.num_points}")
    smallest = len(train) // count_batches(len(train), config.batch_size)
    if smallest < world.size:
        raise ValueError(
            f"a step has {smallest} clouds, and each of {world.size} processes needs one; more --batch_size"
        )


def _check_shared(run: Run, out: Path) -> None:
    """Raises ValueError where the processes do not see the same samples and the same run folder."""
    if len(set(run.world.gather(run.data))) > 1:
        raise ValueError("the processes of the run do not have the same data; all need the same --root")
    if not run.world.writes and not (out / "config.yaml").exists():
        raise ValueError(
            f"{out}: rank {run.world.rank} does not see it; the processes of a run need a folder they share"
        )


def say_nothing(line: str) -> None:
    """Every process but the first."""


def _shares(run: Run) -> dict[str, float]:
    """Which part of the run's time each thing took; what is missing to 1 went into files."""
    names = dict.fromkeys(name for epoch in run.history for name in epoch if name.endswith("_seconds"))
    totals = {name: sum(epoch.get(name, 0.0) for epoch in run.history) for name in names}
    return {name.removesuffix("_seconds"): round(total / run.seconds, 4) for name, total in totals.items() if total}


def _check_skipped(run: Run, train: LabelledClouds, log: Callable[[str], None]) -> None:
    """Says which samples made the last epoch skip steps, and ends the run if there were too many in all."""
    metrics = run.history[-1]
    if "skipped_steps" not in metrics:
        return
    broken = metrics["broken_samples"]
    shown = [f"{train.name_of(i)} ({train.classes[int(train.labels[i])]})" for i in broken[:5]]
    cause = f"not finite: samples {', '.join(shown)}" if broken else "the loss was not finite; try a lower --lr"
    more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
    line = f"epoch {metrics['epoch']}: {metrics['skipped_steps']} of {metrics['steps']} steps skipped, {cause}{more}"
    skipped = sum(epoch.get("skipped_steps", 0) for epoch in run.history)
    if skipped > run.config.skip_limit:
        raise ValueError(f"{line}; that makes {skipped}, more than --skip_limit {run.config.skip_limit}")
    log(line)


def _epoch_line(metrics: Mapping[str, Any], run: Run) -> str:
    config = run.config
    points_left = sum(config.points_in_epoch(epoch) for epoch in range(run.epoch, config.epochs))
    minutes_left = metrics["seconds"] * points_left / metrics["num_points"] / 60
    val = metrics.get(f"val_{next(iter(run.task.titles))}")
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
