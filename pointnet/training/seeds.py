"""The same training with several seeds: one run folder each, one summary of them all."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pointnet.evaluation.tasks import titles_of
from pointnet.files import write_atomically
from pointnet.world import AgreedError, World

from .settings import TrainConfig, check_seeds, save_config_yaml

Result = dict[str, Any]


def seed_folder(out: str | os.PathLike[str], seed: int) -> Path:
    return Path(out) / f"seed-{seed}"


def check_not_seeds(out: str | os.PathLike[str]) -> None:
    """Raises ValueError if a folder for a single run holds runs of several seeds."""
    if next(Path(out).glob("seed-*/config.yaml"), None):
        raise ValueError(f"{out}: already holds runs of several seeds; choose another --out")


def run_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    run: Callable[[TrainConfig, bool], Result],
    resume: bool = False,
    log: Callable[[str], None] = print,
) -> Result:
    """Calls `run(settings, resume)` for one seed after the other, and writes their summary to `config.out`/result.json.

    Seed 7 runs in the folder `config.out`/seed-7, a run folder like any other. `config.yaml` holds what they share,
    and the seeds.

    Args:
        run: trains once and returns what `result.json` holds, as `fit` does.
        resume: leave the seeds that have a result as they are, go on with the one that was stopped, begin the rest.
        log: told which seed is next.

    Raises:
        ValueError: seeds that cannot be, a folder that is taken, or what `run` raises, with the seed.
    """
    check_seeds(seeds)
    world = World.current()
    with world.together():
        if world.writes:
            _open_folder(config, seeds, resume)
    results = {}
    for count, seed in enumerate(seeds, 1):
        folder = seed_folder(config.out, seed)
        finished = resume and (folder / "result.json").is_file()
        log(f"\nseed {seed}, {count} of {len(seeds)}{': finished before' if finished else ''}")
        one = dataclasses.replace(config, seed=seed, out=str(folder))
        try:
            with world.together():
                done = read_result(folder) if finished else None
            results[seed] = done or run(one, (folder / "checkpoint.pt").exists())
        except ValueError as error:
            if world.writes:
                _drop_if_unused(Path(config.out))
            kind = AgreedError if isinstance(error, AgreedError) else ValueError
            raise kind(f"seed {seed}: {error}") from error
    summary = summarize(results)
    if world.writes:
        write_atomically(Path(config.out) / "result.json", json.dumps(summary, indent=2).encode())
    return summary


def summarize(results: Mapping[int, Result]) -> Result:
    """Results by seed -> those, and mean and spread over the seeds of their scores on test and validation.

    The spread is the sample standard deviation (divisor n - 1); of a single seed there is none: None.
    """
    spread = {part: _spread([result[part] for result in results.values()]) for part in ("test", "val")}
    return {"seeds": {str(seed): result for seed, result in results.items()}, **spread}


def seeds_rows(summary: Result) -> list[list[str]]:
    """The scores of each seed and their mean and spread, in percent, as rows of words below their headings."""
    parts = {part: name for part, name in (("test", "test"), ("val", "validation")) if summary[part]}
    titles = titles_of(summary[next(iter(parts))]) if parts else {}
    rows = [["seed", *(f"{name}, {title}" for name in parts.values() for title in titles.values())]]
    for seed, result in summary["seeds"].items():
        rows.append([seed, *(f"{result[part][name]:.2%}" for part in parts for name in titles)])
    return [*rows, ["mean ± std", *(_percent(**summary[part][name]) for part in parts for name in titles)]]


def seeds_table(summary: Result) -> str:
    """Those rows as lines of text."""
    rows = seeds_rows(summary)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def read_result(folder: Path) -> Result:
    """The `result.json` of a finished run. ValueError, naming it, where it is not one."""
    path = folder / "result.json"
    try:
        result = dict(json.loads(path.read_text(encoding="utf-8")))
        for part in ("test", "val"):
            if result[part] is not None:
                _spread([result[part]])
        wanted = {"seconds": int | float, "samples_per_second": int | float, "environment": dict}
        if not all(isinstance(result[name], kind) for name, kind in wanted.items() if name in result):
            raise TypeError("a value of another kind")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged, or not the result of a run; delete it to make it again") from error
    return result


def _spread(scores: Iterable[Result | None]) -> Result | None:
    """Mean and standard deviation of each score, or None where some run has none."""
    known = list(scores)
    if not all(known):
        return None
    return {name: _mean_and_std([float(score[name]) for score in known if score]) for name in titles_of(known[0] or {})}


def _mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def _percent(mean: float, std: float | None) -> str:
    return f"{mean:.2%}" if std is None else f"{mean * 100:.2f} ± {std:.2%}"


def _open_folder(config: TrainConfig, seeds: Sequence[int], resume: bool) -> None:
    out = Path(config.out)
    if not resume and ((out / "checkpoint.pt").exists() or next(out.glob("seed-*/checkpoint.pt"), None)):
        raise ValueError(f"{out}: already holds a run; go on with it by --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    save_config_yaml(config, out / "config.yaml", seeds)


def _drop_if_unused(out: Path) -> None:
    """Takes the settings away again where no run has begun."""
    if [path.name for path in out.iterdir()] == ["config.yaml"]:
        (out / "config.yaml").unlink()
        out.rmdir()
