"""The data of a report: a trained run, the split it is evaluated on, and the analysis of its answers there."""

from pathlib import Path
from typing import Any, NamedTuple

from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.evaluation.analysis import Analysis
from pointnet.evaluation.evaluate import check_same_classes
from pointnet.files import AnyPath
from pointnet.models import PointNetClassifier, load_model
from pointnet.names import did_you_mean_path
from pointnet.training.fit import training_parts
from pointnet.training.run_folder import Result, is_finished, read_config, read_metrics, read_result, seed_folders
from pointnet.training.settings import TrainConfig

SPLIT_NAMES = {"test": "test", "val": "validation"}


class TrainedRun(NamedTuple):
    """The contents of a run folder, and the results of the same run with other seeds."""

    path: Path
    config: TrainConfig
    lines: list[dict[str, Any]]  # of metrics.jsonl
    result: Result | None  # None where the run is not finished
    seeds: dict[int, Result]  # by seed, those of the runs beside it and its own; empty where it is alone
    model: PointNetClassifier


class Report(NamedTuple):
    """A page that was written, and its data."""

    page: Path
    run: TrainedRun
    split: str  # test or val; empty where nothing was evaluated
    analysis: Analysis | None
    missing: str  # why nothing was evaluated


def read_run(path: AnyPath) -> TrainedRun:
    """The run of a folder; in a folder with several seeds, the first that is finished.

    Raises:
        ValueError: it holds no run, or a damaged one; the message names the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; a report is of a run folder{did_you_mean_path(path)}")
    within, beside = seed_folders(path), seed_folders(path.resolve().parent)
    seeds = within or (beside if path.resolve() in beside.values() else {})
    finished = {seed: read_result(folder) for seed, folder in seeds.items() if is_finished(folder)}
    if within:
        path = within[min(finished or within)]
    lines, config = read_metrics(path), read_config(path)
    result = read_result(path) if is_finished(path) else None
    model = load_model(path)
    if not isinstance(model, PointNetClassifier):
        wanted = f"a report is of a classifier, got a {type(model).__name__}"
        raise ValueError(f"{path}: {wanted}; python -m pointnet evaluate scores it, and predict shows its answers")
    return TrainedRun(path, config, lines, result, finished, model)


def evaluation_data(run: TrainedRun, root: AnyPath | None, download: bool) -> tuple[str, LabelledClouds]:
    """The split to evaluate a run on, and its clouds: test where the run was tested, else validation.

    The test split of a run that has not opened it stays unopened.

    Raises:
        ValueError: the data set is not there or is another, or the run held nothing out.
        OSError: it cannot be read.
    """
    config, tested = run.config, bool(run.result and run.result["test"])
    root = config.root if root is None else root
    split = "test" if tested else "train"
    data = open_dataset(config.dataset, root, split, config.num_points, config.normals, config.strict, download)
    check_same_classes(run.model, data, run.path, f"{config.dataset} in {root}")
    held_out = data if tested else training_parts(data, config)[1]
    if not len(held_out):
        raise ValueError(f"{run.path}: the run held out no validation split, and did not open the test split")
    return "test" if tested else "val", held_out
