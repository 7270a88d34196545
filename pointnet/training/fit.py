"""The training loop: epochs of a run, the best one chosen on validation, and everything saved on the way."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import nn

from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.datasets.lines import of_each_kind
from pointnet.devices import deterministic_algorithms, environment, find_device, precision_in_words, precision_on
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import check_read, evaluate
from pointnet.evaluation.structures import Structures
from pointnet.evaluation.trust import measure_trust, measure_usual
from pointnet.models import load_model
from pointnet.models.weights import read_model_config, save_config
from pointnet.names import say
from pointnet.world import World

from .claim import check_unclaimed, claimed
from .data import check_data, check_trainable, training_parts
from .leaks import lines_on_leaks
from .network import Loss, Own, has_name, lines_on_network
from .recipes import lines_on_idle
from .run import Run
from .run_folder import (
    CHECKPOINT,
    CONFIG,
    TESTED,
    Result,
    check_epochs,
    check_free,
    check_kept,
    hash_of_data,
    placed,
    read_config,
    write_config,
    write_files,
    write_result,
)
from .settings import TrainConfig
from .small_sets import lines_on_data, lines_on_result
from .stopping import Stopped, signals_deferred

Log = Callable[[str], None]


def fit(
    config: TrainConfig,
    train: LabelledClouds,
    test: LabelledClouds | None = None,
    resume: bool = False,
    log: Log = say,
    after_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    model: nn.Module | None = None,
    loss: Loss | None = None,
) -> Result:
    """Trains `config.model`, or a network of your own, on `train` and writes the run folder `config.out`, where that is
    empty a new one under runs/; returns the content of `result.json`.

    A validation split is held out from `train`; the epoch that is best on it, by `config.chooser`, then by its loss,
    then the later one, is kept (the last epoch where `config.val_fraction` is 0). `test` is evaluated once, at the end,
    with that epoch's weights. An epoch has `config.min_steps` steps at least: fewer clouds are repeated, and norms take
    their statistics over up to 8 whole batches of them before an epoch is evaluated.

    Within a process group every process calls it, with the same arguments and an `out` that all of them see; they train
    one model with the whole batch, and rank 0 writes and logs.

    Settings that open data or set up a process (`dataset`, `test`, `threads`, `tensorboard`) change nothing here.

    Args:
        resume: continue the run in `config.out` from where it was saved; it ends as if it had never stopped.
            `config.epochs` may differ if the schedule does not depend on their number; of other settings only where
            data and weights are and how they are loaded. A loss of your own must hold the same values.
        log: called with one line per epoch, and with lines on data that are too few to learn from or to judge by.
        after_epoch: called with each line of `metrics.jsonl` once the epoch is safe on disk.
        model: a network of your own in place of the settings', (B, C, N) -> logits (B, K), or (B, K, N) where the task
            labels points; for parts it also takes category (B,). It is trained in place, and ends with the weights of
            the chosen epoch. `load_model(out, model=...)` and `resume` load them into a new one. A changed network of
            the library counts as your own.
        loss: your own, of logits and labels, their mean, in place of the settings'. The label of a point without one is
            -100, which PyTorch's losses ignore.

    Raises:
        ValueError: data that cannot train a network, a `model` whose logits are not as above, a `loss` with parameters
            of its own or without a gradient, a run folder that is taken, that another process writes, or missing with
            `resume`, more skipped steps than `config.skip_limit`, or more processes than a batch has clouds.
        Stopped: SIGTERM or SIGINT came; the run is saved as it was between two steps.
        OSError: the run folder cannot be written; the last checkpoint is still good.
        AgreedError: in place of the others, where several processes train: one of them had such an error.
    """
    world = World.current()
    log = log if world.writes else discard
    own = Own(model, loss)
    with world.together():
        config = placed(config, resume)
        check_data(config, train, test)
        check_read(train, *([] if test is None else [test]))
        own.check()
    run, val = open_run(config, train, resume, world, own)
    with claimed(config.out, world):
        begin(run, resume)
        with world.together():
            if world.writes and not resume:
                write_files(config.out, train, [*filter(None, [config.init]), *config.teacher])
        for line in first_lines(run, val, test, resume):
            log(line)
        with deterministic_algorithms(config.deterministic), signals_deferred(world) as check:
            for metrics in train_epochs(run, val, check, log):
                with world.together():
                    if after_epoch is not None:
                        after_epoch(metrics)
            result = final_result(run, val, test, check) | {"data": train.fingerprint()}
            with world.together():
                if world.writes:
                    write_result(config.out, result)
            check()
    chosen = run.history[result["selected_epoch"] - 1]
    for line in lines_on_result(config, val, run.history[-1], chosen, test, result["test"]):
        log(line)
    return result


def first_lines(run: Run, val: LabelledClouds, test: LabelledClouds | None, resume: bool) -> Iterator[str]:
    """Lines on what is about to be trained, on what, and where to."""
    config, size = run.config, run.world.size
    device = f"{run.device}, {size} processes" if size > 1 else run.device
    samples = f"{len(run.train):,} to train on, {len(val):,} to choose the epoch"
    yield f"{samples}; {device}, {precision_in_words(run.device, config.precision)}; {config.out}/"
    of_teacher = run.teacher.lines if run.teacher else []
    on_network = lines_on_network(config, run.step.model, run.own, run.train)
    of_network = [] if resume else [run.origin, *of_teacher, *on_network, *lines_on_idle(config)]
    leaks = lines_on_leaks(config, run.train, val, test)
    yield from filter(None, [*of_network, *lines_on_data(config, run.train, val, test), *leaks])
    opened = [data for data in (run.train, val, test) if data is not None]
    yield from of_each_kind([note for data in opened for note in run.contract.notes_on_files(data)])
    for name, data in (("validation", val), ("test", test)):
        yield from run.contract.lines_on_clouds(data, name) if data is not None else ()


def open_run(
    config: TrainConfig,
    train: LabelledClouds,
    resume: bool,
    world: World,
    own: Own = Own(),  # noqa: B008  # it is immutable
) -> tuple[Run, LabelledClouds]:
    """The run of these settings as it is before its first step, and its validation split; nothing is written."""
    out = Path(config.out)
    with world.together():
        device = find_device(config.device)
        train, val = training_parts(train, config)
        check_trainable(train, config, world)
        if not resume:
            if world.writes:
                check_unclaimed(out)
            check_free(out)
        elif (out / CONFIG).is_file():
            check_kept(read_config(out), config)
            check_epochs(out, config.epochs)
    run = Run.start(config, train, device, world, own)
    with world.together():
        if len(set(world.gather(run.identity["data"]))) > 1:
            raise ValueError("the processes of the run do not have the same data; all need the same --root")
    return run, val


def begin(run: Run, resume: bool) -> None:
    """Writes the run folder, which is claimed, or takes the run up from it."""
    config, world, out = run.config, run.world, Path(run.config.out)
    with world.together():
        if world.writes and not resume:
            check_free(out)  # once more: another run may have ended here in the meantime
            create_run_folder(run)
    with world.together():
        if not world.writes and not (out / CONFIG).exists():
            reason = f"rank {world.rank} does not see it; the processes of a run need a folder they share"
            raise ValueError(f"{out}: {reason}")
        if resume:
            run.restore(out / CHECKPOINT)
            if world.writes and (out / CONFIG).is_file():
                write_config(out, dataclasses.replace(read_config(out), epochs=config.epochs))


def train_epochs(run: Run, val: LabelledClouds, check: Callable[[], None], log: Log) -> Iterator[dict[str, Any]]:
    """Trains the epochs that are not done yet; yields the metrics of each once it is saved.

    `check` is called between two steps, and two batches of validation; if it raises Stopped, the run is saved.
    """
    structures = Structures.by(run.step.model, len(val))
    if run.epoch < run.config.epochs:
        log(log_heading(len(val) > 0))
        started = time.perf_counter()
        try:
            for _ in run.ask_teacher():
                check()
        except Stopped:
            run.save()
            raise
        asked = time.perf_counter() - started
    while run.epoch < run.config.epochs:
        try:
            with closing(run.steps()) as steps:
                for _ in steps:
                    check()
            run.measure_norms(check)
            started = time.perf_counter()
            # Validation repeats every epoch, so it takes no more points of a cloud than training does.
            # Of few clouds the loss often decides; it is smoothed as in training: such a network is never certain.
            smoothing = run.config.label_smoothing if run.passes > 1 and run.own.loss is None else 0.0
            how: Any = {"num_points": run.config.num_points, "task": run.task}
            how |= {"smoothing": smoothing, "structures": structures, "after_batch": check, "world": run.world}
            scores = evaluate(run.evaluated, val, run.device, **how) if len(val) else {}
            validated = time.perf_counter() - started if len(val) else 0.0
        except Stopped:
            run.save()
            raise
        metrics = run.end_epoch() | {f"val_{name}": value for name, value in scores.items() if name != "count"}
        metrics["evaluation_seconds"] = round(validated, 3)
        if run.teacher is not None:  # which is asked once
            metrics["teacher_seconds"], asked = round(asked, 3), 0.0
        run.seconds += metrics["seconds"] + metrics.get("teacher_seconds", 0.0) + time.perf_counter() - started
        run.finish_epoch(metrics)
        log(epoch_line(metrics, run))
        with run.world.together():
            check_skipped(run, log)
        yield metrics


def final_result(run: Run, val: LabelledClouds, test: LabelledClouds | None, check: Callable[[], None]) -> Result:
    """The content of `result.json`, with the chosen epoch evaluated on the test split."""
    config, world = run.config, run.world
    parts = dict.fromkeys(name for epoch in run.history for name in epoch if name.endswith("_seconds"))
    seconds = {name: sum(epoch.get(name, 0.0) for epoch in run.history) for name in parts}
    clouds, computed_in = len(run.history) * len(run.train) * run.passes, precision_on(run.device, config.precision)
    result: Result = {
        "test": None,
        "val": run.best.get("val"),
        "selected_epoch": run.best["epoch"],
        "seconds": round(run.seconds, 3),
        "samples_per_second": round(clouds / sum(epoch["seconds"] for epoch in run.history), 1),
        # Of the run's time; the rest to 1 was writing files.
        "shares": {name.removesuffix("_seconds"): round(s / run.seconds, 4) for name, s in seconds.items() if s},
        "environment": environment(run.device) | {"processes": world.size, "precision": computed_in},
    }
    with world.together():
        best: Any = load_model(config.out, model=run.own.model).to(run.device)
        if world.writes and run.task.name == "classification":
            temperature, familiar = measure_trust(best, run.contract, run.train, val, run.device)
            held = familiar and familiar.as_json()
            contract = dataclasses.replace(run.contract, temperature=temperature, familiar=held)
            describe_model(run, contract)
        elif world.writes and run.task.name == "part" and (usual := measure_usual(run.contract, run.train, val)):
            describe_model(run, dataclasses.replace(run.contract, familiar=usual.as_json()))
        if world.writes:
            best.preprocessing = dict(read_model_config(Path(config.out))["preprocessing"])
    check()
    if len(val) and isinstance(val, LabelledPoints):  # all points now
        scores = evaluate(best, val, run.device, after_batch=check, world=world, task=run.task)
        result["val"] = {name: scores[name] for name in run.task.titles}
    if test is not None and not config.overfit_batches:
        scores = evaluate(best, test, run.device, after_batch=check, world=world, task=run.task)
        result["test"] = {name: value for name, value in scores.items() if name != "loss"}
        result[TESTED] = hash_of_data(test)
    return result


def create_run_folder(run: Run) -> None:
    """Creates the folder with all that is known before the first step: settings, and how to build the model."""
    Path(run.config.out).mkdir(parents=True, exist_ok=True)
    write_config(run.config.out, run.config)  # first: it says that the other files are a run's
    describe_model(run, run.contract)


def describe_model(run: Run, contract: Contract) -> None:
    """Writes `config.json`: how to build the model, its classes, and its contract."""
    model: Any = run.step.model
    name, arguments = type(model).__name__, {"in_channels": run.train.channels}
    if has_name(model, run.own):
        name, arguments = model.model_name, model.arguments
    described = {"arguments": arguments, "classes": run.task.class_names(run.train)}
    save_config(run.config.out, model=name, **described, preprocessing=contract.as_json())


def discard(line: str) -> None:
    """A log function that discards its line; used on ranks above 0."""


def check_skipped(run: Run, log: Log) -> None:
    """Logs which samples made the last epoch skip steps. ValueError if the run has skipped too many in all."""
    metrics, train = run.history[-1], run.train
    if "skipped_steps" not in metrics:
        return
    broken = metrics["broken_samples"]
    # Of five alone: the name of a packed cloud is read from its shard.
    shown = [f"{train.name_of(i)} ({train.classes[int(train.labels[i])]})" for i in broken[:5]]
    cause = f"not finite: samples {', '.join(shown)}" if broken else "the loss was not finite; try a lower --lr"
    more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
    line = f"epoch {metrics['epoch']}: {metrics['skipped_steps']} of {metrics['steps']} steps skipped, {cause}{more}"
    skipped = sum(epoch.get("skipped_steps", 0) for epoch in run.history)
    if skipped > run.config.skip_limit:
        raise ValueError(f"{line}; that makes {skipped}, more than --skip_limit {run.config.skip_limit}")
    log(line)


def log_heading(validates: bool) -> str:
    """The line above those of the epochs."""
    val, kept = (f"{'val':>9} ", "   * best so far") if validates else ("", "")
    return f"{'epoch':8} {'points':>6} {'loss':>7}  {'train':>6}{val}  clouds/s  min left{kept}"


def epoch_line(metrics: Mapping[str, Any], run: Run) -> str:
    """The metrics of an epoch in one line of the log, below `log_heading`."""
    config = run.config
    points_left = sum(config.points_in_epoch(epoch) for epoch in range(run.epoch, config.epochs))
    minutes_left = metrics["seconds"] * points_left / metrics["num_points"] / 60
    val = metrics.get(f"val_{config.chooser}")
    kept = "*" if run.best["epoch"] == run.epoch else " "
    validated = "" if val is None else f"{f'{val:.2%}':>9}{kept}"
    return (
        f"{run.epoch:3d}/{config.epochs:<4d} {metrics['num_points']:6,d} {metrics['train_loss']:7.3f}  "
        f"{metrics['train_accuracy']:6.1%}{validated}  {metrics['samples_per_second']:8,.0f}  {minutes_left:8.1f}"
    )
