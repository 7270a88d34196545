"""The last lines of a training run: how good it is, where everything is, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from pointnet.evaluation.tasks import TASKS
from pointnet.training.run_folder import CHECKPOINT, CONFIG, CURVES, METRICS, RESULT, Result, seed_folder
from pointnet.training.seeds import seeds_table
from pointnet.training.settings import TrainConfig


def summary(config: TrainConfig, result: Result, call: str) -> str:
    """How good the run is, how long it took, and what its folder holds; `call` is how training is called."""
    out = shlex.quote(config.out)
    val, chooser = result["val"], next(iter(TASKS[config.task].titles))
    chosen = f"chosen on validation ({val[chooser]:.2%} there)" if val else "the last"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result["shares"].items())
    drawn = {CURVES: "loss, accuracy and learning rate by epoch"} if (Path(config.out) / CURVES).exists() else {}
    files = {
        "model.safetensors, config.json": f'the model: pointnet.load_model("{config.out}")',
        f"{RESULT}, {METRICS}": "the figures above, and one line per epoch",
        **drawn,
        CONFIG: f"the settings: {call} --config {out}/{CONFIG} --out runs/again",
        CHECKPOINT: f"to go on with a run that was stopped: {call} --resume --out {out}",
    }
    return f"""
{accuracy(config, result)}
epoch {result["selected_epoch"]} of {config.epochs}, {chosen}
{result["seconds"]:,.0f} s, {result["samples_per_second"]:,.0f} clouds/s in training; {shares}

{listing(config.out, files)}

{next_commands(config, config.out)}"""


def accuracy(config: TrainConfig, result: Result) -> str:
    """The scores on the test split, or why there are none."""
    if config.overfit_batches:
        return f"not tested: the network was trained to overfit {config.overfit_batches} batches"
    if result["test"] is None:
        return "the test split was not opened"
    return f"test: {TASKS[config.task].summary(result['test'])}"


def summary_of_seeds(config: TrainConfig, seeds: Sequence[int], results: Result, call: str) -> str:
    """Where the runs of several seeds are, and how good each is."""
    first = seed_folder(config.out, seeds[0])
    files = {
        f"{first.name}, ...": f'a run folder per seed: pointnet.load_model("{first}")',
        RESULT: "the figures below, with those of each seed",
        CONFIG: f"the settings; to add seeds: {call} --resume --out {shlex.quote(config.out)} --seeds ...",
    }
    return f"""
{listing(config.out, files)}

{next_commands(config, str(first))}

{seeds_table(results)}"""


def listing(folder: str, files: Mapping[str, str]) -> str:
    """The files of a folder, each with what it holds."""
    return "\n".join([f"{folder}/", *(f"  {name:30}   {text}" for name, text in files.items())])


def next_commands(config: TrainConfig, run: str) -> str:
    """What to do with a run whose folder is `run`; a report is of a classifier only, and of all seeds."""
    run, out, root = (shlex.quote(path) for path in (run, config.out, config.root))
    commands = [f"evaluate {run} --dataset {config.dataset} --root {root}"]
    if config.task == "classification":
        commands = [f"report {out}", f"predict FILE --model {run}", *commands]
    return "next: " + "\n      ".join(f"python -m pointnet {command}" for command in commands)
