"""The same training with several seeds: one run folder each, and one summary of them all."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pointnet.evaluation.tasks import titles_of
from pointnet.names import say
from pointnet.world import AgreedError, World

from . import run_folder
from .claim import HOLDER, LOCK, claimed
from .run_folder import CHECKPOINT, CONFIG, Result, check_free, placed, seed_folder
from .settings import TrainConfig

OneRun = Callable[[TrainConfig, bool], Result]


def run_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    run: OneRun,
    resume: bool = False,
    log: Callable[[str], None] = say,
    data: str | None = None,
) -> Result:
    """Calls `run(config, resume)` once per seed, and writes the summary of the results to `config.out`/result.json.

    Seed 7 runs in the folder `config.out`/seed-7, a run folder like any other. `config.yaml` holds the settings that
    they share, and the seeds.

    Args:
        seeds: each of them once.
        run: trains once and returns what its `result.json` holds, as `fit` does.
        resume: keep the seeds that have a result of so many epochs, go on with those that were stopped, begin others.
        log: is given a line before each seed.
        data: the fingerprint of the training set, which those that are kept must share.

    Raises:
        ValueError: a folder that is taken, seeds that are kept and were trained on other data, or what `run` raises,
            with the seed.
    """
    world = World.current()
    with world.together():
        config = placed(config, resume)
    with claimed(config.out, world):
        if resume:
            with world.together():
                _check_alike(config, seeds, data)
        return _run_claimed(config, seeds, run, resume, log, world)


def _check_alike(config: TrainConfig, seeds: Sequence[int], data: str | None) -> None:
    """Raises ValueError where a finished seed was trained on other data, or with other settings, than the others will
    be: their mean and deviation would say nothing. Older results do not say on what data."""
    if (Path(config.out) / CONFIG).is_file():
        run_folder.check_kept(run_folder.read_config(config.out), config)
    for seed in seeds:
        folder = seed_folder(config.out, seed)
        if data and run_folder.is_finished(folder, config.epochs):
            try:
                had = run_folder.read_result(folder).get("data", data)
            except ValueError as error:
                raise ValueError(f"seed {seed}: {error}") from error
            if had != data:
                raise ValueError(f"seed {seed}: was trained on other data; all seeds need the same: another --out")


def _run_claimed(
    config: TrainConfig, seeds: Sequence[int], run: OneRun, resume: bool, log: Callable[[str], None], world: World
) -> Result:
    """As `run_seeds`, in a folder that no other process writes."""
    out, results = Path(config.out), {}
    with world.together():
        if world.writes:
            if not resume:
                check_free(out)
            run_folder.write_config(out, config, seeds)
    for count, seed in enumerate(seeds, 1):
        folder = seed_folder(out, seed)
        finished = resume and run_folder.is_finished(folder, config.epochs)
        log(f"\nseed {seed}, {count} of {len(seeds)}{': finished before' if finished else ''}")
        one = dataclasses.replace(config, seed=seed, out=str(folder))
        try:
            with world.together():
                done = run_folder.read_result(folder) if finished else None
            results[seed] = done or run(one, (folder / CHECKPOINT).exists())
        except ValueError as error:
            if world.writes and {path.name for path in out.iterdir()} <= {CONFIG, LOCK, HOLDER}:  # no run has begun
                (out / CONFIG).unlink()
            kind = AgreedError if isinstance(error, AgreedError) else ValueError
            raise kind(f"seed {seed}: {error}") from error
    summary = summarize(results)
    if world.writes:
        run_folder.write_result(out, summary)
    return summary


def summarize(results: Mapping[int, Result]) -> Result:
    """Results by seed -> those, and mean and sample standard deviation of their scores on the test and validation
    splits: None for a split that some run lacks, or the standard deviation of a single seed."""
    summary: Result = {"seeds": {str(seed): result for seed, result in results.items()}}
    for split in ("test", "val"):
        scores = [result[split] for result in results.values()]
        names = titles_of(scores[0]) if scores and all(scores) else ()
        values = {name: [float(score[name]) for score in scores] for name in names}
        spread = {name: statistics.stdev(each) if len(each) > 1 else None for name, each in values.items()}
        summary[split] = {name: {"mean": statistics.fmean(values[name]), "std": spread[name]} for name in names} or None
    return summary


def seeds_rows(summary: Result) -> list[list[str]]:
    """Rows of words, a heading first: the scores of each seed in per cent, then their mean and standard deviation."""
    splits = {split: name for split, name in (("test", "test"), ("val", "validation")) if summary[split]}
    titles = titles_of(summary[next(iter(splits))]) if splits else {}
    rows = [["seed", *(f"{split}, {title}" for split in splits.values() for title in titles.values())]]
    for seed, result in summary["seeds"].items():
        rows.append([seed, *(f"{result[split][name]:.2%}" for split in splits for name in titles)])
    return [*rows, ["mean ± std", *(percent(**summary[split][name]) for split in splits for name in titles)]]


def percent(mean: float, std: float | None) -> str:
    """As "87.50 ± 1.20%", or "87.50%" where there is no standard deviation."""
    return f"{mean:.2%}" if std is None else f"{mean * 100:.2f} ± {std:.2%}"


def seeds_table(summary: Result) -> str:
    """Those rows as lines of text, in columns."""
    rows = seeds_rows(summary)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
