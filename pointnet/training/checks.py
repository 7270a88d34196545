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

from pointnet.datasets import LabelledClouds
from pointnet.datasets.clouds import spread
from pointnet.devices import deterministic_algorithms, find_device
from pointnet.evaluation.evaluate import EVALUATION_BATCH
from pointnet.world import World

from . import capture
from .feed import count_batches, make_feed
from .fit import check_trainable, fit, say_nothing, training_parts
from .run import Run
from .settings import TrainConfig

WARM_UP, MEASURED, RECORDED = capture.WARM_UP + 2, 10, 3  # steps


class _EnoughError(Exception):
    """Ends a look at a run."""


def dry_run(config: TrainConfig, train: LabelledClouds, test: LabelledClouds | None = None) -> str:
    """Does all that a run does on a few clouds, and removes what it wrote: -> what the whole run should take.

    Two early and two late epochs of a few steps, of full batches; stopped and resumed in between, measured on
    validation and on test, written to and read from the disk that `config.out` is on. The second epoch of each two is
    timed: in the first, kernels are compiled and memory is found.

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
    # Batches may be of two sizes; in so many steps one of them is recorded as a graph.
    steps = 2
    few = spread(train, config.batch_size * steps * (2 if config.val_fraction else 1))
    few_tests = None if test is None else spread(test, EVALUATION_BATCH)
    short = dataclasses.replace(
        config, out=folder, epochs=4, early_share=0.5, skip_limit=0, val_fraction=0.5 if config.val_fraction else 0.0
    )
    epochs: list[Mapping[str, Any]] = []

    def stop_once(metrics: Mapping[str, Any]) -> None:
        epochs.append(metrics)
        if len(epochs) == 2:
            raise _EnoughError

    try:
        with contextlib.suppress(_EnoughError):
            fit(short, few, few_tests, log=say_nothing, after_epoch=stop_once)
        fit(short, few, few_tests, resume=True, log=say_nothing, after_epoch=epochs.append)
    finally:
        if world.writes:
            shutil.rmtree(folder, ignore_errors=True)
    early, late = epochs[1], epochs[3]
    seconds_each = {
        "early": 1 / early["samples_per_second"],
        "late": 1 / late["samples_per_second"],
        "validated": late["evaluation_seconds"] / max(len(training_parts(few, short)[1]), 1),
    }
    return _forecast(config, train, seconds_each, find_device(config.device).type == "cuda")


def profile(config: TrainConfig, train: LabelledClouds) -> str:
    """Where the time of a step goes: -> a table by part of the step, and one by operator. Nothing is written.

    The parts are timed by themselves; the operators in further steps, as being watched slows each down.
    """
    world = World.current()
    with world.together():
        device = find_device(config.device)
        # Full batches alone: another size would be compiled, or recorded, while the time is taken.
        few = spread(train, len(train) // config.batch_size * config.batch_size or len(train))
        check_trainable(few, config, world)
    # So long that its schedule has all the steps that are taken.
    config = dataclasses.replace(config, epochs=max(config.epochs, WARM_UP + MEASURED + RECORDED))
    run = Run.start(config, few, device)
    run.epoch = config.epochs - 1  # all points
    feed = make_feed(few, device, config.feed)

    def take(steps: int) -> dict[str, float]:
        """Seconds by part of the step."""
        left = steps

        def count() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise _EnoughError

        run.progress = {}
        with contextlib.suppress(_EnoughError), deterministic_algorithms(config.deterministic):
            while True:
                run.position = 0
                run.train_epoch(feed, count)
        return dict(run.progress["seconds"])

    take(WARM_UP)
    parts = take(MEASURED)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with record(activities=activities, acc_events=True) as recorded:
        take(RECORDED)
    whole = sum(parts.values())
    clouds = len(few) / count_batches(len(few), config.batch_size)
    lines = [
        f"a step of {clouds:.0f} clouds of {config.num_points:,} points: {whole / MEASURED * 1000:,.1f} ms, "
        f"{clouds * MEASURED / whole:,.0f} clouds/s, the mean of {MEASURED}; {device}, {config.precision}",
        "",
        *(f"{name:>10} {seconds / MEASURED * 1000:9,.1f} ms {seconds / whole:6.1%}" for name, seconds in parts.items()),
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


def _forecast(config: TrainConfig, train: LabelledClouds, seconds_each: Mapping[str, float], on_cuda: bool) -> str:
    samples, validated = map(len, training_parts(train, config))
    late = sum(config.points_in_epoch(epoch) == config.num_points for epoch in range(config.epochs))
    seconds = samples * ((config.epochs - late) * seconds_each["early"] + late * seconds_each["late"])
    seconds += config.epochs * validated * seconds_each["validated"]
    memory = f", in {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB of the device" if on_cuda else ""
    return (
        f"dry run: trained, stopped, resumed, measured and loaded, on a few clouds. {config.epochs} epochs of "
        f"{samples:,.0f} clouds should train in about {_span(seconds)}{memory}"
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
