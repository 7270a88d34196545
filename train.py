"""Trains PointNet on a data set and says how good it is.

    python train.py --dataset shapes
    python train.py --task part
    python train.py --dataset modelnet40 --root data --epochs 200 --out runs/modelnet40
    python train.py --dataset modelnet40 --root data --recipe paper
    python train.py --resume --out runs/modelnet40
    python train.py --dataset shapes --seeds 0 1 2 3
    torchrun --nproc_per_node=4 train.py --dataset modelnet40 --root data --out runs/modelnet40

All flags: python train.py --help. What a run folder holds: README.md.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from pointnet.commands.train_flags import Command, parse_command
from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.devices import find_device, keep_freed_memory
from pointnet.evaluation.tasks import TASKS
from pointnet.extras import MissingExtraError
from pointnet.names import printable
from pointnet.pages.curves import draw_curves
from pointnet.training import Stopped, TrainConfig, fit
from pointnet.training.checks import dry_run, profile
from pointnet.training.fit import say_nothing
from pointnet.training.run_folder import CONFIG, read_config, seed_folder, seed_folders
from pointnet.training.seeds import run_seeds, seeds_table
from pointnet.training.tensorboard import ScalarLog, check_tensorboard
from pointnet.world import (
    AgreedError,
    World,
    is_lost_process,
    joined_world,
    launched_by_torchrun,
)


def main(arguments: list[str] | None = None) -> int:
    command = parse_command(arguments)
    if not (command.config.out or launched_by_torchrun()):
        out = new_run_folder(command.config)
        command = command._replace(config=dataclasses.replace(command.config, out=out))
    keep_freed_memory()
    world = World()
    try:
        with joined_world(command.config.device) as world:
            try:
                return train_as_told(command, world)
            except AgreedError as error:
                if world.writes:  # before it leaves the others, as torchrun ends all when one has ended
                    print(f"train.py: error: {error}", file=sys.stderr)
                raise
    except AgreedError:
        return 2
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except (Stopped, KeyboardInterrupt) as stopped:
        if world.writes:
            print(f"\nstopped; {how_to_go_on(command)}", file=sys.stderr)
        return 128 + (stopped.signum if isinstance(stopped, Stopped) else signal.SIGINT)
    except RuntimeError as error:
        if not (launched_by_torchrun() and is_lost_process(error)):
            raise
        print(f"train.py: rank {os.environ['RANK']}: another process of the run is gone", file=sys.stderr)
        return 1


def train_as_told(command: Command, world: World) -> int:
    config, resume, seeds, look, _ = command
    log = print if world.writes else say_nothing
    with world.together():
        if not config.out:
            raise ValueError(
                "under torchrun --out is needed: the folder that all its processes write to and go on from"
            )
        if world.restarts:
            resume = resume or began_here(command)
    with world.together(), world.one_by_one():
        find_device(config.device)
        if config.tensorboard:
            check_tensorboard()
        options: dict[str, Any] = {"normals": config.normals, "strict": config.strict, "download": config.download}
        options["task"] = config.task
        parts = {
            split: open_dataset(config.dataset, config.root, split, config.num_points, **options)
            for split in (("train", "test") if config.test else ("train",))
        }
        if not seeds and seed_folders(config.out):
            raise ValueError(f"{config.out}: already holds runs of several seeds; choose another --out")
    train, test = parts["train"], parts.get("test")
    bad = list(dict.fromkeys(str(error) for part in parts.values() for error in part.bad))
    if bad:
        log(f"{left_out(bad)}, and told at the end")
    if look:
        log(dry_run(config, train, test) if look == "dry_run" else profile(config, train))
    elif seeds:
        results = run_seeds(config, seeds, lambda one, resume: run(one, train, test, resume, world), resume, log)
        log(summary_of_seeds(config, seeds, results))
    else:
        log(summary(config, run(config, train, test, resume, world)))
    if bad:
        log("\n".join(["", f"{left_out(bad)}:", *(f"  {printable(error)}" for error in bad)]))
    return 0


def run(
    config: TrainConfig, train: LabelledClouds, test: LabelledClouds | None, resume: bool, world: World
) -> dict[str, Any]:
    """Trains once and draws the curves: -> what `result.json` holds."""
    scalars = ScalarLog(config.out) if config.tensorboard and world.writes else None
    with closing(scalars) if scalars else nullcontext():
        result = fit(config, train, test, resume, print, scalars)
    if world.writes:
        try:
            draw_curves(config.out)
        except (ValueError, OSError) as error:  # the run is over and safe; curves are a look at it
            print(f"no curves: {error}")
    return result


def began_here(command: Command) -> bool:
    """Whether the run folder holds what this command, which torchrun has started again, had begun before."""
    settings = Path(command.config.out) / CONFIG
    saved = any(path.exists() for path in checkpoints(command))
    return saved and settings.is_file() and read_config(command.config.out) == command.config


def how_to_go_on(command: Command) -> str:
    """What to say when a run is stopped by hand."""
    if command.preview or not any(path.exists() for path in checkpoints(command)):
        return "before anything was saved"
    if launched_by_torchrun():
        return f"to go on: torchrun as before, with train.py --resume --out {command.config.out}"
    return f"to go on: python train.py --resume --out {command.config.out}"


def checkpoints(command: Command) -> list[Path]:
    """Where those of the runs may be."""
    out = command.config.out
    folders = [seed_folder(out, seed) for seed in command.seeds] or [Path(out)]
    return [folder / "checkpoint.pt" for folder in folders]


def new_run_folder(config: TrainConfig) -> str:
    """The first of runs/shapes-1, runs/shapes-2, ... that is not there yet."""
    name, number = config.dataset, 1
    if config.task != "classification":
        name = f"{name}-{config.task}"
    while Path(f"runs/{name}-{number}").exists():
        number += 1
    return f"runs/{name}-{number}"


def summary(config: TrainConfig, result: dict[str, Any]) -> str:
    """The last lines of a run: how good, how long, where everything is, what to run next."""
    test, val = result["test"], result["val"]
    task = TASKS[config.task]
    chosen = f"chosen on validation ({val[next(iter(task.titles))]:.2%} there)" if val else "the last"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result["shares"].items())
    measured = "the test part was not opened"
    if config.overfit_batches:
        measured = f"not tested: trained on {config.overfit_batches} of its batches alone, to learn them by heart"
    if test:
        measured = f"test: {task.told(test)}"
    drawn = (Path(config.out) / "curves.svg").exists()
    curves = "curves.svg                       loss, accuracy, learning rate by the epoch\n  " if drawn else ""
    return f"""
{measured}
epoch {result["selected_epoch"]} of {config.epochs}, {chosen}
{result["seconds"]:,.0f} s, {result["samples_per_second"]:,.0f} clouds/s in training; {shares}

{config.out}/
  model.safetensors, config.json   the model: pointnet.load_model("{config.out}")
  result.json, metrics.jsonl       the figures above, and one line an epoch
  {curves}\
config.yaml                      the settings: python train.py --config {config.out}/config.yaml --out runs/again
  checkpoint.pt                    to go on with a run that was stopped: python train.py --resume --out {config.out}

{next_commands(config, config.out)}"""


def summary_of_seeds(config: TrainConfig, seeds: Sequence[int], results: dict[str, Any]) -> str:
    """The last lines of runs with several seeds: where everything is, how good each is, and all of them."""
    first = seed_folder(config.out, seeds[0])
    return f"""
{config.out}/
  seed-{seeds[0]}, ...{" " * (23 - len(str(seeds[0])))}a run folder for each seed: pointnet.load_model("{first}")
  result.json                      the figures below, with every seed's own
  config.yaml                      the settings; to add seeds: python train.py --resume --out {config.out} --seeds ...

{next_commands(config, str(first))}

{seeds_table(results)}"""


def next_commands(config: TrainConfig, run: str) -> str:
    """What to do with a run whose folder is `run`; a report is of a classifier alone, and of all seeds."""
    commands = [f"evaluate {run} --dataset {config.dataset} --root {config.root}"]
    if config.task == "classification":
        commands = [f"report {config.out}", f"predict FILE --model {run}", *commands]
    return "next: " + "\n      ".join(f"python -m pointnet {command}" for command in commands)


def left_out(bad: list[str]) -> str:
    return f"{len(bad)} file{'s' * (len(bad) > 1)} left out"


if __name__ == "__main__":
    sys.exit(main())
