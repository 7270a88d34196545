"""The run folder: every file that a training run leaves, its name, its reader and its writer.

`model.safetensors` and `config.json`, the model, are read and written by `pointnet.models`.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pointnet.datasets import LabelledClouds
from pointnet.evaluation.tasks import titles_of
from pointnet.files import AnyPath, read_file, strict_json, write_atomically
from pointnet.models.weights import CONFIG_FILE, WEIGHTS_FILE
from pointnet.names import did_you_mean_path
from pointnet.points.hashing import copies_of
from pointnet.world import World

from .settings import FIELDS, MAY_CHANGE, TrainConfig, with_values

CONFIG = "config.yaml"  # how the network is trained
METRICS = "metrics.jsonl"  # one line per epoch
CHECKPOINT = "checkpoint.pt"  # all that --resume needs
RESULT = "result.json"  # how good the chosen epoch is
CURVES = "curves.svg"  # the metrics, drawn
TESTED = "test_data"  # of the result, `hash_of_data`; older results have none
FILES = "files.json"  # those of one's own that it was trained on, each with its hashes

WRITTEN = (CONFIG, CONFIG_FILE, METRICS, RESULT, CURVES, FILES)  # beside the weights and the checkpoint

# Settings that were removed, as old files have them whose runs would compute the same today.
REMOVED = {"mix": ("none",), "mix_share": (0.5,), "mix_beta": (1.0,), "cuda_graph": (False, True)}

EpochMetrics = Mapping[str, Any]  # the metrics of an epoch
Result = dict[str, Any]


def placed(config: TrainConfig, resume: bool = False) -> TrainConfig:
    """The settings with the folder of a run: where `out` is empty, the first of runs/shapes-1, runs/shapes-2, ... that
    does not exist. ValueError where only the caller can choose it."""
    if config.out:
        return config
    if resume:
        raise ValueError("resume needs out, the folder of the run to go on with")
    if World.current().size > 1:
        raise ValueError("several processes need out: the folder that all of them write to and resume from")
    name = config.dataset if config.task == "classification" else f"{config.dataset}-{config.task}"
    folders = (f"runs/{name}-{i}" for i in itertools.count(1))
    return dataclasses.replace(config, out=next(folder for folder in folders if not Path(folder).exists()))


def seed_folder(out: AnyPath, seed: int) -> Path:
    """The run folder of one seed, within that of a run with several."""
    return Path(out) / f"seed-{seed}"


def seed_folders(out: AnyPath) -> dict[int, Path]:
    """The run folders of the seeds in `out`, by seed; empty for a single run."""
    folders = {path.parent.name.removeprefix("seed-"): path.parent for path in Path(out).glob(f"seed-*/{CONFIG}")}
    return {int(seed): folder for seed, folder in folders.items() if seed.isdecimal()}


def folder_again() -> str:
    """Where a run is made again: the first of runs/again, runs/again-2, runs/again-3, ... that does not exist."""
    folders = itertools.chain(["runs/again"], (f"runs/again-{i}" for i in itertools.count(2)))
    return next(folder for folder in folders if not Path(folder).exists())


def has_checkpoint(out: AnyPath) -> bool:
    """Whether a run, or one of several seeds, has been saved in the folder."""
    return any((folder / CHECKPOINT).exists() for folder in (Path(out), *seed_folders(out).values()))


def check_folder(out: AnyPath) -> None:
    """Raises ValueError if it is a file."""
    if Path(out).is_file():
        raise ValueError(f"{out}: is a file; choose a folder as --out")


def check_free(out: AnyPath) -> None:
    """Raises ValueError if a run, or one of several seeds, has been saved in the folder, or a model without one, or if
    it holds files that a run would overwrite. A run that was stopped before its first checkpoint may begin again."""
    check_folder(out)
    if has_checkpoint(out):
        raise ValueError(f"{out}: already holds a run; continue it with --resume, or choose another --out")
    is_begun = _has_settings(out) and not (Path(out) / RESULT).exists()
    if (Path(out) / WEIGHTS_FILE).exists() and not is_begun:
        raise ValueError(f"{out}: already holds a model, without the {CHECKPOINT} to resume from; choose another --out")
    if taken := [name for name in WRITTEN if (Path(out) / name).exists() and not is_begun]:
        raise ValueError(f"{out}: already holds {taken[0]}, which a run would overwrite; choose another --out")


def _has_settings(out: AnyPath) -> bool:
    """Whether the folder has the settings of a run, which it writes first."""
    try:
        read_config(out)
        return True
    except ValueError:
        return False


def write_config(out: AnyPath, config: TrainConfig, seeds: Sequence[int] = ()) -> None:
    """Writes the settings as YAML that --config reads, and the seeds where there are several."""
    values = dataclasses.asdict(config) | {"teacher": list(config.teacher)} | ({"seeds": list(seeds)} if seeds else {})
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=float("inf"))
    write_atomically(Path(out) / CONFIG, text.encode())


def read_config(out: AnyPath) -> TrainConfig:
    """The settings of the run in a folder. ValueError, naming the file, where it is missing or damaged."""
    return read_settings(Path(out) / CONFIG)[0]


def read_settings(path: AnyPath) -> tuple[TrainConfig, list[int]]:
    """The settings in a YAML file, the others at their defaults, and the seeds where there are several.

    Raises:
        ValueError: no such file, not YAML, an unknown or removed setting, or a value that cannot be; it names the file.
    """
    path = Path(path)
    if not path.is_file():
        reason = "is a folder, not a settings file" if path.is_dir() else "no such settings file"
        raise ValueError(f"{path}: {reason}{'' if path.is_dir() else did_you_mean_path(path)}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("must hold settings, each as 'name: value'")
        seeds = values.pop("seeds", None) or []
        if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
            raise ValueError("seeds must be a list of whole numbers")
        kept = {name: value for name, value in values.items() if value not in REMOVED.get(name, ())}
        return with_values(TrainConfig(), kept), seeds
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(" ".join(f"{path}: {error}".split())) from error


def write_files(out: AnyPath, data: LabelledClouds, others: Sequence[str] = ()) -> None:
    """Writes which files a run is trained on, by their names in the set, where that is one of one's own files; with
    those of other runs: the one that it begins from, and its teachers."""
    named = {f"{run}: {name}": content for run in others for name, content in _files_of(run).items()}
    if named := named | data.file_hashes():
        write_atomically(Path(out) / FILES, (strict_json(named, indent=1) + "\n").encode())


def trained_on(out: AnyPath, data: LabelledClouds) -> list[str]:
    """The files of a set that the run was trained on, by name: of the same bytes or points, or copies that were thinned
    or cropped; none where its folder does not say."""
    if not (known := [each for hashes in _files_of(out).values() for each in hashes]):
        return []
    named = data.file_hashes()
    seen = {
        name for name, _ in copies_of(known, {(name, its): its for name, hashes in named.items() for its in hashes})
    }
    return [name for name in named if name in seen]


def hash_of_data(data: LabelledClouds) -> str:
    """What a result says that it was tested on: a hash of the files, whatever their names, or of the clouds."""
    contents = sorted(first for first, *_ in data.file_hashes().values())
    return hashlib.sha256("".join(contents).encode()).hexdigest()[:16] if contents else data.fingerprint()


def was_tested_on(out: AnyPath, data: LabelledClouds) -> bool:
    """Whether a finished run was tested on this data; True where its folder does not say."""
    try:
        was = read_result(out).get(TESTED)
    except (OSError, ValueError):
        return True
    return was is None or was == hash_of_data(data)


def _files_of(out: AnyPath) -> dict[str, list[str]]:
    """What `write_files` wrote, `LabelledClouds.file_hashes` of them; empty where it is missing or damaged."""
    try:
        named = json.loads((Path(out) / FILES).read_text(encoding="utf-8"))
        held = ((name, [its] if isinstance(its, str) else its) for name, its in named.items())  # older runs: one hash
        return {name: its for name, its in held if isinstance(its, list) and all(isinstance(one, str) for one in its)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def write_metrics(out: AnyPath, lines: Iterable[EpochMetrics]) -> None:
    write_atomically(Path(out) / METRICS, "".join(strict_json(line) + "\n" for line in lines).encode())


def read_metrics(out: AnyPath) -> list[dict[str, Any]]:
    """The metrics of a run, one mapping per epoch; NaN for null. ValueError, naming the file, where it is missing or
    damaged."""
    path = Path(out) / METRICS
    if not path.is_file():
        raise ValueError(f"{path}: no metrics here; no epoch of a run is finished")
    needed = {"epoch", "num_points", "lr", "train_loss", "train_accuracy"}
    try:
        lines = [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [{name: math.nan if value is None else value for name, value in line.items()} for line in lines]
        figures = [value for line in lines for name, value in line.items() if name != "broken_samples"]
        whole = lines and all(needed.issubset(line) for line in lines)
        if not whole or not all(isinstance(value, int | float) for value in figures):
            raise TypeError("each line must hold the metrics of an epoch")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    return lines


def chooser(lines: Sequence[EpochMetrics], choose_by: str = "") -> tuple[str, str]:
    """The validation metric that selects the epoch, as its name in `metrics.jsonl` and its title."""
    try:
        titles = titles_of({name for line in lines for name in line}, "val_")
    except KeyError:  # there is no validation split
        return "val_overall_accuracy", "overall"
    name = choose_by or next(iter(titles))
    return f"val_{name}", titles[name]


def score_of(line: EpochMetrics, name: str) -> tuple[float, float, int]:
    """What epochs are compared by: this metric of validation, then its loss, then which is later."""
    loss = line.get("val_loss", 0.0)
    return line.get(name, line["epoch"]), -math.inf if math.isnan(loss) else -loss, line["epoch"]


def chosen_epoch(lines: Sequence[EpochMetrics], choose_by: str = "") -> int:
    """The epoch that a run keeps: the best on validation, or the last where there is none."""
    name, _ = chooser(lines, choose_by)
    return int(max(lines, key=lambda line: score_of(line, name))["epoch"])


def check_kept(was: TrainConfig, now: TrainConfig) -> None:
    """Raises ValueError where a resumed run is given other settings than its own, but for its epochs."""
    for name in FIELDS:
        own, value = getattr(was, name), getattr(now, name)
        if value != own and name not in (*MAY_CHANGE, "epochs"):
            raise ValueError(f"--{name} {value} differs from the run's own {own}; resume cannot change it")


def check_epochs(out: AnyPath, epochs: int) -> None:
    """Raises ValueError unless the run in a folder can end after so many epochs in place of its own number."""
    was = read_config(out)
    done = len(read_metrics(out)) if (Path(out) / METRICS).is_file() else 0
    if epochs != was.epochs and was.schedule in ("onecycle", "cosine"):
        differs = f"--epochs {epochs} differs from the run's own {was.epochs}; resume cannot change it"
        raise ValueError(f"{differs}, as --schedule {was.schedule} was made for that number; start a new run")
    if epochs < done:
        raise ValueError(f"--epochs {epochs} is less than the {done} that are done; resume cannot take them back")


def is_finished(out: AnyPath, epochs: int | None = None) -> bool:
    """Whether the run has its result; with `epochs`, that of so many, as a finished run may go on to more."""
    goes_on = epochs is not None and (Path(out) / CONFIG).is_file() and read_config(out).epochs != epochs
    return (Path(out) / RESULT).is_file() and not goes_on


def write_result(out: AnyPath, result: Result) -> None:
    write_atomically(Path(out) / RESULT, strict_json(result, 2).encode())


def read_result(out: AnyPath) -> Result:
    """How good a finished run turned out. ValueError, naming the file, where it is missing or damaged."""
    path = Path(out) / RESULT
    kinds = {"seconds": int | float, "samples_per_second": int | float, "environment": dict}
    try:
        result = dict(json.loads(read_file(path)))
        scores = [result[split] for split in ("test", "val") if result[split] is not None]
        for value in (score[name] for score in scores for name in titles_of(score)):
            float(value)
        if not all(isinstance(result[name], kind) for name, kind in kinds.items() if name in result):
            raise TypeError("a value of another type")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or not the result of a run; delete it to make it again") from error
    return result
