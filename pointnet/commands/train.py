"""`python train.py` and `python -m pointnet train`: open the data, train, say how good the network is."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.datasets.lines import lines_about, skipped_files
from pointnet.devices import find_device, keep_freed_memory, use_threads
from pointnet.evaluation.tasks import TASKS
from pointnet.extras import MissingExtraError
from pointnet.names import printable, say
from pointnet.pages.curves import draw_curves
from pointnet.training import Stopped, fit, run_folder
from pointnet.training.fit import discard
from pointnet.training.previews import dry_run, profile
from pointnet.training.run_folder import CHECKPOINT, CONFIG, CURVES, METRICS, RESULT, Result, seed_folder
from pointnet.training.seeds import run_seeds, seeds_table
from pointnet.training.settings import TrainConfig
from pointnet.training.tensorboard import ScalarLog, check_tensorboard
from pointnet.world import AgreedError, World, is_lost_process, joined_world, launched_by_torchrun, restart_count

from .program import one_line, stopped, whole_program
from .train_flags import Command, parse_command, taught_by


@whole_program
def main(words: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Runs the command line; returns the exit code. `prog` is the program in messages."""
    command = parse_command(words, prog)
    if not (command.config.out or launched_by_torchrun()):
        command = command._replace(config=run_folder.placed(command.config))
    with ExitStack() as stack:
        try:
            stack.enter_context(joined_world(command.config.device))
            train(command)
            return 0
        except BrokenPipeError:
            raise
        # Caught within the world, as torchrun ends all processes when the first has left it.
        except (ValueError, OSError, MissingExtraError, RuntimeError, Stopped, KeyboardInterrupt) as error:
            code, line = ending(error, command)
            if line:
                say(line, sys.stderr)
            return code


def ending(error: BaseException, command: Command) -> tuple[int, str]:
    """The exit code of a run that ended early, and the line to print; it is empty where another process prints it."""
    world = World.current()
    if isinstance(error, Stopped | KeyboardInterrupt):
        following = "nothing was saved yet"
        if not command.preview and run_folder.has_checkpoint(command.config.out):
            call = f"torchrun as before, with {command.prog}" if launched_by_torchrun() else command.call
            following = f"to continue: {call} --resume --out {shlex.quote(command.config.out)}"
        return stopped(error), f"\nstopped; {following}" if world.writes else ""
    if isinstance(error, RuntimeError):
        if not (launched_by_torchrun() and is_lost_process(error)):
            raise error
        return 1, f"{command.prog}: rank {world.rank}: another process of the run is gone"
    printed = world.writes or not isinstance(error, AgreedError)
    return 2, f"{command.prog}: error: {one_line(error)}" if printed else ""


def train(command: Command) -> None:
    """Does what the command asks for. Every process of a run under torchrun calls it."""
    config, resume = command.config, command.resume
    world = World.current()
    log = say if world.writes else discard
    keep_freed_memory()
    log(f"{config.dataset} in {printable(config.root)}; {use_threads(config.threads)}")
    with world.together():
        if not config.out:
            raise ValueError("under torchrun --out is needed: the folder that all processes write to and resume from")
        resume = resume or (restart_count() > 0 and began_here(command))
        if not command.seeds and run_folder.seed_folders(config.out):
            raise ValueError(f"{config.out}: holds runs of several seeds; choose another --out")
    with world.together(), world.one_by_one():  # what cannot work is refused first
        find_device(config.device)
        if config.tensorboard:
            check_tensorboard()
        if command.brought:
            log(command.brought)
        opening = config.opening | ({"intensity": taught_by(config.init).intensity} if config.init else {})
        training = open_dataset(config.dataset, config.root, "train", **opening)
        test = open_dataset(config.dataset, config.root, "test", **opening) if config.test else None
    opened = [data for data in (training, test) if data is not None]
    skipped = skipped_files(opened)
    for line in lines_about(opened):
        log(line)
    files = f"{len(skipped)} file{'s' * (len(skipped) != 1)} skipped"
    if skipped:
        log(f"{files}; listed at the end")
    try:
        log(outcome(command, training, test, resume, log))
    finally:
        if skipped:
            log("\n".join(["", f"{files}:", *(f"  {error}" for error in skipped)]))


def outcome(
    command: Command, training: LabelledClouds, test: LabelledClouds | None, resume: bool, log: Callable[[str], None]
) -> str:
    """Trains, or previews it, as the command asks for; returns what is printed at the end."""
    config = command.config
    if command.preview == "dry_run":
        return dry_run(config, training, test)
    if command.preview == "profile":
        return profile(config, training)
    if command.seeds:
        data = training.fingerprint()
        results = run_seeds(
            config, command.seeds, lambda one, go_on: run(one, training, test, go_on), resume, log, data
        )
        return summary_of_seeds(config, command.seeds, results, command.call)
    return summary(config, run(config, training, test, resume), command.call)


def run(config: TrainConfig, training: LabelledClouds, test: LabelledClouds | None, resume: bool) -> Result:
    """Trains once and draws the curves; returns what `result.json` holds."""
    writes = World.current().writes
    scalars = ScalarLog(config.out) if config.tensorboard and writes else None
    with closing(scalars) if scalars else nullcontext():
        result = fit(config, training, test, resume, say, scalars)
    if writes:
        try:
            draw_curves(config.out)
        except (ValueError, OSError) as error:  # the run is complete without them
            say(f"no curves: {one_line(error)}")
    return result


def began_here(command: Command) -> bool:
    """Whether the run folder holds what this command began, before torchrun started it again."""
    out = command.config.out
    return run_folder.has_checkpoint(out) and run_folder.read_config(out) == command.config


def summary(config: TrainConfig, result: Result, call: str) -> str:
    """How good the run is, how long it took, and what its folder holds; `call` is how training is called."""
    out = shlex.quote(config.out)
    if config.overfit_batches:
        tested = f"not tested: the network was trained to overfit {config.overfit_batches} batches"
    elif result["test"] is None:
        tested = "the test split was not opened"
    else:
        tested = f"test: {TASKS[config.task].summary(result['test'])}"
    val, chooser = result["val"], config.chooser
    metric = f" {TASKS[config.task].titles[chooser]}" if config.choose_by else ""
    chosen = f"chosen on validation ({val[chooser]:.2%}{metric} there)" if val else "the last"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result["shares"].items())
    files = {
        "model.safetensors, config.json": f'the model: pointnet.load_model("{config.out}")',
        f"{RESULT}, {METRICS}": "the figures above, and one line per epoch",
        **({CURVES: "loss, accuracy and learning rate by epoch"} if (Path(config.out) / CURVES).exists() else {}),
        CONFIG: "the settings",
        CHECKPOINT: "what --resume needs",
    }
    return f"""
{tested}
epoch {result["selected_epoch"]} of {config.epochs}, {chosen}
{result["seconds"]:,.0f} s, {result["samples_per_second"]:,.0f} clouds/s in training; {shares}

{folder_and_next(config, files, config.out)}
      {call} --config {out}/{CONFIG} --out {run_folder.folder_again()}"""


def summary_of_seeds(config: TrainConfig, seeds: Sequence[int], results: Result, call: str) -> str:
    """Where the runs of several seeds are, and how good each is."""
    first = seed_folder(config.out, seeds[0])
    files = {
        f"{first.name}, ...": f'a run folder per seed: pointnet.load_model("{first}")',
        RESULT: "the figures below, with those of each seed",
        CONFIG: f"the settings; to add seeds: {call} --resume --out {shlex.quote(config.out)} --seeds ...",
    }
    return f"""
{folder_and_next(config, files, str(first))}

{seeds_table(results)}"""


def folder_and_next(config: TrainConfig, files: Mapping[str, str], run: str) -> str:
    """The files of the folder, and what to do with the run in `run`; a report is of a classifier only, of all seeds.
    There may be no test split to evaluate where none was opened, and then nothing to report on without validation."""
    listed = [f"{config.out}/", *(f"  {name:30}   {text}" for name, text in files.items())]
    run, out = shlex.quote(run), shlex.quote(config.out)
    category = " --category NAME" if config.task == "part" and not config.unknown_category else ""
    commands = [f"predict FILE --model {run}{category}", *[f"evaluate {run}"] * config.test]
    if config.task == "classification" and (config.test or config.val_fraction):
        commands = [f"report {out}", *commands]
    following = "\n      ".join(f"python -m pointnet {command}" for command in commands)
    return "\n".join([*listed, "", f"next: {following}"])
