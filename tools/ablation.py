"""Compares variations of a training run on validation alone; the test split is never opened.

    python -m tools.ablation variations.txt --out runs/ablation --seeds 0 1 2 --recipe fast --dataset modelnet40

Each line of the file is a variation's name and the flags of `train.py` in which it differs; # begins a comment:

    as it is:
    no smoothing: --label_smoothing 0
    no T-Nets: --input_transform false --feature_transform false

All other flags are passed to `train.py` in every run. The runs follow one another, each in its own folder under --out.
Called again, it skips finished runs, resumes the one that was stopped, and prints the table again; seeds can be added.
"""

import shlex
import statistics
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence
from pathlib import Path

from pointnet.commands import train
from pointnet.commands.flags import OneLineParser, whole_number
from pointnet.commands.program import one_line
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.tasks import TASKS
from pointnet.training import TrainConfig
from pointnet.training.recipes import to_flags
from pointnet.training.run_folder import CONFIG, is_finished, read_config, read_metrics, read_result, seed_folder
from pointnet.training.settings import FIELDS, MAY_CHANGE


def main(arguments: Sequence[str] | None = None) -> int:
    flags = OneLineParser(prog="tools.ablation", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    flags.add_argument("variations", type=Path)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--seeds", type=whole_number, nargs="+", default=[0])
    args, shared = ArgumentParser.parse_known_args(flags, arguments)
    try:
        differing = read_variations(args.variations)
        folders = {name: args.out / folder_of(name) for name in differing}
        words = {name: [*shared, *differing[name], "--test", "false", "--out", str(folders[name])] for name in folders}
        configs = {name: parse_command(words[name]).config for name in folders}
        for name, folder in folders.items():  # all before the first is run
            check(name, configs[name], folder)
        tasks = {config.task for config in configs.values()}
        if len(tasks) > 1:
            raise ValueError(
                f"{args.variations}: tasks cannot be compared with each other, got {', '.join(sorted(tasks))}"
            )
    except (ValueError, OSError) as error:
        flags.error(one_line(error))
    code = 0
    for name, folder in folders.items():
        if len(finished(folder, args.seeds)) < len(args.seeds):
            print(f"\n{name}: {shlex.join(differing[name])}", flush=True)
            chosen = ["--resume", *to_flags(configs[name])] if (folder / CONFIG).exists() else words[name]
            code = max(code, train.main([*chosen, "--seeds", *map(str, args.seeds)]))
            if code > 2:  # stopped; one that failed does not keep the others from running
                break
    titles = TASKS[tasks.pop()].titles
    heads = " | ".join(["variation", "seeds", *(f"{title}, %" for title in titles.values()), "loss", "minutes"])
    print(f"\n| {heads} |\n{'|-' * (len(titles) + 4)}|")
    for name, folder in folders.items():
        print(row(name, finished(folder, args.seeds), titles))
    return code


def read_variations(path: Path) -> dict[str, list[str]]:
    """Name -> flags, for each line. Raises ValueError for a line without a name, or with a name that is taken."""
    variations: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        line = line.partition("#")[0].strip()
        name, colon, words = line.partition(":")
        taken = folder_of(name.strip()) in map(folder_of, variations)
        if line and (not colon or not name.strip() or taken):
            raise ValueError(f"{path}, line {number}: must be a new name, a colon and flags, got '{line}'")
        if line:
            variations[name.strip()] = shlex.split(words)
    return variations


def folder_of(name: str) -> str:
    return name.replace(" ", "_")


def check(name: str, config: TrainConfig, folder: Path) -> None:
    """Raises ValueError if the run has no validation, or if the folder holds runs with other settings."""
    if not config.val_fraction:
        raise ValueError(f"{name}: is compared on validation, so --val_fraction must be above 0, got 0")
    if (folder / CONFIG).exists():
        saved = read_config(folder)
        for setting in set(FIELDS) - set(MAY_CHANGE):
            was, now = getattr(saved, setting), getattr(config, setting)
            if was != now:
                raise ValueError(f"{name}: {folder} was run with {setting} {was}, got {now}; give it another name")


def finished(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """The run folders of those seeds that have a result."""
    return [each for each in (seed_folder(folder, seed) for seed in seeds) if is_finished(each)]


def row(name: str, runs: Sequence[Path], titles: Collection[str]) -> str:
    """A row of the table: the validation scores of the chosen epochs, over the seeds, and their loss unsmoothed."""
    results = [read_result(run) for run in runs]
    chosen = [read_metrics(run)[result["selected_epoch"] - 1] for run, result in zip(runs, results, strict=True)]
    cells = [spread([100 * line[f"val_{score}"] for line in chosen]) for score in titles]
    cells.append(spread([line.get("val_cross_entropy", line["val_loss"]) for line in chosen]))
    minutes = f"{statistics.fmean(result['seconds'] for result in results) / 60:.1f}" if results else ""
    return f"| {name} | {len(runs)} | {' | '.join(cells)} | {minutes} |"


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; the mean alone for one value, nothing for none."""
    mean = f"{statistics.fmean(values):.3f}" if values else ""
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


if __name__ == "__main__":
    sys.exit(main())
