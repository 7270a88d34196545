"""Looks at a run before it is long: whether everything works, and where the time goes."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from pointnet.datasets import LabelledClouds, split_validation
from pointnet.datasets.clouds import spread

from .config import TrainConfig
from .feed import count_batches, make_feed
from .loop import EVALUATION_BATCH, check_trainable, find_device, fit, say_nothing
from .run import Run
from .world import World

WARM_UP, MEASURED, RECORDED = 3, 10, 3  # steps


class _EnoughError(Exception):
    """Ends a look at a run."""


def dry_run(config: TrainConfig, train: LabelledClouds, test: LabelledClouds | None = None) -> str:
    """Does all that a run does on a few clouds, and removes what it wrote: -> what the whole run should take.

    Two epochs of two steps, an early and a late one, of full batches; stopped and resumed between the two, measured on
    validation and on test, written to and read from the disk that `config.out` is on.

    Raises:
        ValueError, OSError: what the run itself would raise.
    """
    world = World.current()
    with world.together():
        check_trainable(train, config, world)
        if (Path(config.out) / "checkpoint.pt").exists():
            raise ValueError(f"{config.out}: already holds a run; go on with it by --resume, or choose another --out")
        disk = next(folder for folder in Path(config.out).absolute().parents if folder.is_dir())
        made = tempfile.mkdtemp(prefix=".dry-run-", dir=disk) if world.writes else None
    folder = world.gather(made)[0]
    few = spread(train, config.batch_size * (4 if config.val_fraction else 2))
    few_tests = None if test is None else spread(test, EVALUATION_BATCH)
    short = dataclasses.replace(
        config, out=folder, epochs=2, early_share=0.5, skip_limit=0, val_fraction=0.5 if config.val_fraction else 0.0
    )
    epochs: list[Mapping[str, Any]] = []

    def stop_once(metrics: Mapping[str, Any]) -> None:
        epochs.append(metrics)
        if len(epochs) == 1:
            raise _EnoughError

    try:
        with contextlib.suppress(_EnoughError):
            fit(short, few, few_tests, log=say_nothing, after_epoch=stop_once)
        fit(short, few, few_tests, resume=True, log=say_nothing, after_epoch=epochs.append)
    finally:
        if world.writes:
            shutil.rmtree(folder, ignore_errors=True)
    return _forecast(config, train, epochs, find_device(config.device).type == "cuda")


def profile(config: TrainConfig, train: LabelledClouds) -> str:
    """Where the time of a step goes: -> a table by part of the step, and one by operator. Nothing is written.

    The parts are timed by themselves; the operators in further steps, as being watched slows each down.
    """
    device = find_device(config.device)
    check_trainable(train, config, World())
    run = Run.start(config, train, device)
    run.epoch = config.epochs - 1  # all points
    feed = make_feed(train, device, config.feed)

    def take(steps: int) -> dict[str, float]:
        """Seconds by part of the step."""
        taken = 0

        def count() -> None:
            nonlocal taken
            taken += 1
            if taken == steps:
                raise _EnoughError

        while taken < steps:
            run.progress, run.position = {}, 0
            try:
                run.train_epoch(feed, count)
            except _EnoughError:
                break
        return dict(run.progress["seconds"])

    steps = min(MEASURED, count_batches(len(train), config.batch_size))
    take(min(WARM_UP, steps))
    parts = take(steps)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with record(activities=activities, acc_events=True) as recorded:
        take(min(RECORDED, steps))
    whole = sum(parts.values())
    clouds = len(train) / count_batches(len(train), config.batch_size)
    lines = [
        f"a step of {clouds:.0f} clouds of {config.num_points:,} points: {whole / steps * 1000:,.1f} ms, "
        f"{clouds * steps / whole:,.0f} clouds/s, the mean of {steps}; {device}, {config.precision}",
        "",
        *(f"{name:>10} {seconds / steps * 1000:9,.1f} ms {seconds / whole:6.1%}" for name, seconds in parts.items()),
        "",
        *_operators(recorded.key_averages(), device),
    ]
    return "\n".join(lines)


def _operators(found: Any, device: torch.device) -> list[str]:
    """The operators that took most time themselves."""
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = [(row.key, getattr(row, name), row.count) for row in found if not row.key.startswith("ProfilerStep")]
    whole = sum(time for _, time, _ in rows) or 1
    rows = sorted(rows, key=lambda row: -row[1])[:12]
    lines = [f"{'of the time':>12} {'calls a step':>13}  operator"]
    return lines + [f"{time / whole:12.1%} {count / RECORDED:13.0f}  {key}" for key, time, count in rows]


def _forecast(config: TrainConfig, train: LabelledClouds, epochs: list[Mapping[str, Any]], on_cuda: bool) -> str:
    samples = len(split_validation(train, config.seed, config.val_fraction)[0])
    early, late = (epoch["seconds"] for epoch in epochs)
    few = epochs[0]["samples_per_second"] * early
    of_early = sum(config.points_in_epoch(epoch) != config.num_points for epoch in range(config.epochs))
    seconds = (early * of_early + late * (config.epochs - of_early)) * samples / few
    memory = f", in {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB of the device" if on_cuda else ""
    return (
        f"dry run: trained, stopped, resumed, measured and loaded, on a few clouds. {config.epochs} epochs of "
        f"{samples:,.0f} clouds should train in about {_span(seconds)}{memory}"
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
