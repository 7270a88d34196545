"""Two short looks at a run before it is long: does everything work, and where does the time go."""

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from pointnet.datasets import LabelledClouds
from pointnet.datasets.clouds import spread
from pointnet.devices import deterministic_algorithms, find_device, precision_in_words
from pointnet.evaluation.evaluate import EVALUATION_BATCH
from pointnet.files import sweep, temporary_prefix
from pointnet.world import World

from .data import check_trainable, training_parts
from .fit import begin, discard, fit, open_run, train_epochs
from .loader import count_batches, count_steps
from .progress import Progress
from .run import Run
from .run_folder import check_free, placed
from .settings import TrainConfig
from .small_sets import lines_on_data
from .stopping import signals_deferred

WARM_UP, MEASURED, RECORDED = 5, 10, 3  # steps


def dry_run(config: TrainConfig, train: LabelledClouds, test: LabelledClouds | None = None) -> str:
    """Does all that a run does, on a few clouds, and removes what it wrote; returns how long the run should take.

    Two early and two late epochs of two full batches: stopped and resumed in between, validated and tested, written to
    and read from the disk of `config.out`. The second epoch of each pair is timed: in the first, kernels are compiled
    and memory is found.

    Raises:
        ValueError, OSError: what the run itself would raise.
    """
    world = World.current()
    with world.together():
        config = placed(config)
        check_trainable(train, config, world)
        check_free(config.out)
        disk = next(folder for folder in Path(config.out).absolute().parents if folder.is_dir())
        sweep(disk)
        made = tempfile.mkdtemp(".part", temporary_prefix(), disk) if world.writes else None
    folder = world.gather(made)[0]
    held_out = 0.5 if config.val_fraction else 0.0
    few = spread(train, config.batch_size * (4 if held_out else 2))
    few_tests = None if test is None else spread(test, EVALUATION_BATCH)
    repeated = count_batches(len(training_parts(train, config)[0]), config.batch_size) < config.min_steps
    short = dataclasses.replace(
        config, out=folder, epochs=4, early_share=0.5, skip_limit=0, val_fraction=held_out, min_steps=1 + 2 * repeated
    )
    try:
        with deterministic_algorithms(config.deterministic), signals_deferred(world) as check:
            run, val = open_run(short, few, False, world)
            begin(run, resume=False)
            epochs: list[Mapping[str, Any]] = list(islice(train_epochs(run, val, check, discard), 2))
        fit(short, few, few_tests, resume=True, log=discard, after_epoch=epochs.append)
    finally:
        if world.writes:
            shutil.rmtree(folder, ignore_errors=True)
    early, late = epochs[1], epochs[3]
    seconds = (1 / early["samples_per_second"], 1 / late["samples_per_second"])
    once = {"validation": late["evaluation_seconds"] / max(len(val), 1)}
    once["teacher"] = epochs[0].get("teacher_seconds", 0.0) / len(run.train)
    time = forecast(config, train, *seconds, **once)
    return "\n".join([*lines_on_data(config, *training_parts(train, config), test), time])


def forecast(
    config: TrainConfig, train: LabelledClouds, early: float, late: float, validation: float, teacher: float = 0.0
) -> str:
    """How long the run should take, from seconds per cloud."""
    parts = training_parts(train, config)
    samples, validated = map(len, parts)
    batches = count_batches(samples, config.batch_size)
    clouds = samples * count_steps(samples, config.batch_size, config.min_steps) / batches  # of an epoch
    late_epochs = sum(config.points_in_epoch(epoch) == config.num_points for epoch in range(config.epochs))
    seconds = clouds * ((config.epochs - late_epochs) * early + late_epochs * late)
    seconds += config.epochs * validated * validation + samples * teacher
    minutes = f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    time = f"{seconds:.0f} s" if seconds < 120 else minutes
    on_gpu = find_device(config.device).type == "cuda"
    memory = f", in {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB of the device" if on_gpu else ""
    return (
        f"dry run: trained, stopped, resumed, measured and loaded, on a few clouds. {config.epochs} epochs of "
        f"{clouds:,.0f} clouds should train in about {time}{memory}"
    )


def profile(config: TrainConfig, train: LabelledClouds) -> str:
    """Where the time of a step goes: two tables, by part of the step and by operator. Nothing is written.

    The operators are recorded in further steps, as recording slows each down.
    """
    world = World.current()
    with world.together():
        device = find_device(config.device)
        # Full batches alone: another size would be compiled while the time is taken.
        few = spread(train, len(train) // config.batch_size * config.batch_size or len(train))
        check_trainable(few, config, world)
    # So many epochs that the schedule has all the steps that are taken.
    config = dataclasses.replace(config, epochs=max(config.epochs, WARM_UP + MEASURED + RECORDED))
    run = Run.start(config, few, device, world)
    if run.teacher is not None:  # whatever it says takes a step as long
        run.taught = torch.full((len(few), len(few.classes)), 1 / len(few.classes), device=device)
    run.epoch = config.epochs - 1  # which has all points, unless the early epochs are all there are
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with deterministic_algorithms(config.deterministic):
        # Where structures are kept, all of them: only the first epoch finds them.
        seconds_of(run, max(WARM_UP, count_batches(len(few), config.batch_size)) if run.structures else WARM_UP)
        parts = seconds_of(run, MEASURED)
        with record(activities=activities, acc_events=True) as recorded:
            seconds_of(run, RECORDED)
    whole = sum(parts.values())
    clouds, points = len(few) / count_batches(len(few), config.batch_size), config.points_in_epoch(run.epoch)
    first = (
        f"a step of {clouds:.0f} clouds of {points:,} points: {whole / MEASURED * 1000:,.1f} ms, "
        f"{clouds * MEASURED / whole:,.0f} clouds/s, the mean of {MEASURED}; {device}, "
        f"{precision_in_words(device, config.precision)}"
    )
    rows = [f"{name:>16} {time / MEASURED * 1000:9,.1f} ms {time / whole:6.1%}" for name, time in parts.items()]
    return "\n".join([first, "", *rows, "", *operator_lines(recorded.key_averages(), device)])


def seconds_of(run: Run, steps: int) -> Mapping[str, float]:
    """Trains so many steps, over and over the same epoch; returns their seconds by part of the step."""
    run.progress = progress = Progress.begin(run.train, run.config.seed, run.epoch, run.device)
    while steps:
        with closing(run.steps()) as epoch:
            steps -= sum(1 for _ in islice(epoch, steps))
        progress.position = 0
    return progress.seconds


def operator_lines(found: Any, device: torch.device) -> list[str]:
    """A table of the operators that took the most time themselves."""
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = [(row.key, getattr(row, name), row.count) for row in found if not row.key.startswith("ProfilerStep")]
    whole = sum(time for _, time, _ in rows) or 1
    rows = sorted(rows, key=lambda row: -row[1])[:12]
    lines = [f"{'of the time':>12} {'calls a step':>13}  operator"]
    return lines + [f"{time / whole:12.1%} {count / RECORDED:13.0f}  {key}" for key, time, count in rows]
