"""A trained classifier as one page that any browser shows offline: `python -m pointnet report`."""

import os
from collections.abc import Mapping
from pathlib import Path

from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.devices import find_device
from pointnet.evaluation.analysis import analyse, takes_corrupted
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import check_taught
from pointnet.evaluation.tasks import task_of
from pointnet.files import AnyPath
from pointnet.models import load_model
from pointnet.names import did_you_mean_path, no_folder
from pointnet.points.features import FEATURES
from pointnet.training.data import training_parts
from pointnet.training.leaks import lines_on_test_set
from pointnet.training.run_folder import is_finished, read_config, read_metrics, read_result, seed_folders

from .report_sections import Report, TrainedRun, sections
from .viewer import write_html


def write_report(
    run: AnyPath,
    out: AnyPath | None = None,
    root: AnyPath | None = None,
    device: str = "auto",
    download: bool = False,
    corruptions: int = 0,
) -> Report:
    """Evaluates a trained run and writes `out/index.html`, one page that requests nothing.

    Where its data set is not there, the page shows the rest and says why.

    Args:
        run: a run folder, or one of several seeds; then the page is of the first, with the accuracies of all.
        out: the folder of the page; None: `report` in the run's own.
        root: the folder the data set is in; None: where it was in training.
        device: as `find_device` takes it.
        download: download the data set where it is missing and allowed.
        corruptions: corrupt so many of the clouds in fifteen ways at five severities, and show the error rates.

    Raises:
        ValueError: `root` holds no data that the run can be scored on, and the page is there; the folder holds no run,
            or a damaged one, or there is no such device; the network does not take corrupted clouds, or there are less
            than 0.
        OSError: the page cannot be written.
    """
    if corruptions < 0:
        raise ValueError(f"corruptions must be at least 0, got {corruptions}")
    chosen, found = find_device(device), read_run(run)
    if corruptions and not takes_corrupted(found.model):
        raise ValueError(f"{found.path}: corruptions are of x y z in the unit sphere; its network takes others")
    page = Path(Path(run) / "report" if out is None else out) / "index.html"
    try:
        split, data, lines = evaluation_data(found, root, download)
    except (ValueError, OSError) as error:
        if root is not None and page.is_file():
            raise ValueError(f"{error}; the page is left as it is: {page}") from error
        report = Report(page, found, "", None, str(error))
    else:
        report = Report(page, found, split, analyse(found.model, data, chosen, corruptions), "", lines)
    write_html(page, *_title_and_notes(found), _body(sections(report, chosen)))
    return report


def _body(contents: Mapping[str, str]) -> str:
    """The sections by their headings, below links to them."""
    anchors = {heading: heading.lower().replace(" ", "-") for heading in contents}
    links = "".join(f'<a href="#{anchor}">{heading}</a>' for heading, anchor in anchors.items())
    parts = (f'<section id="{anchors[name]}"><h2>{name}</h2>{content}</section>' for name, content in contents.items())
    return f'<main><nav aria-label="sections">{links}</nav>{"".join(parts)}</main>'


def _title_and_notes(run: TrainedRun) -> tuple[str, str]:
    """The name of the run, and a line about its network and data."""
    path, config, model, seeds = run.path.resolve(), run.config, run.model, len(run.seeds)
    title = path.name if seeds < 2 else f"{path.parent.name}, seed {config.seed} of {seeds} seeds"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with_features = ", ".join(f"with {FEATURES[name]}" for name in Contract.of(model).features)
    points = f"{config.num_points:,} points per cloud{with_features and ', '}{with_features}"
    network, classes = f"{type(model).__name__}, {parameters:,} parameters", f"{len(model.classes)} classes"
    return title, f"{network}, on {config.dataset}: {classes}, {points}"


def read_run(path: AnyPath) -> TrainedRun:
    """The run of a folder; in a folder with several seeds, the first that is finished.

    Raises:
        ValueError: it holds no run, or a damaged one; the message names the file.
    """
    path = Path(path)
    if not path.is_dir():
        near = "" if path.exists() else did_you_mean_path(path)
        raise ValueError(f"{path}: {no_folder(path)}; a report is of a run folder{near}")
    within, beside = seed_folders(path), seed_folders(path.resolve().parent)
    seeds = within or (beside if path.resolve() in beside.values() else {})
    finished = {seed: read_result(folder) for seed, folder in seeds.items() if is_finished(folder)}
    if within:
        path = within[min(finished or within)]
    lines, config = read_metrics(path), read_config(path)
    result = read_result(path) if is_finished(path) else None
    model = load_model(path)
    if task_of(model).name != "classification":
        wanted = f"a report is of a classifier, got a {type(model).__name__}"
        raise ValueError(f"{path}: {wanted}; python -m pointnet evaluate scores it, and predict shows its answers")
    return TrainedRun(path, config, lines, result, finished, model)


def evaluation_data(run: TrainedRun, root: AnyPath | None, download: bool) -> tuple[str, LabelledClouds, list[str]]:
    """The split to evaluate a run on, its clouds, and lines on it: test where the run was tested, else validation.

    The test split of a run that has not opened it stays unopened.

    Raises:
        ValueError: the data set is not there or is another, or the run held nothing out.
        OSError: it cannot be read.
    """
    config, tested = run.config, bool(run.result and run.result["test"])
    root = config.root if root is None else root
    split = "test" if tested else "train"
    how = config.opening | {"download": download, "intensity": Contract.of(run.model).intensity}
    data = open_dataset(config.dataset, root, split, **how)
    check_taught(run.model, data, run.path, f"{config.dataset} in {root}")
    held_out = data if tested else training_parts(data, config)[1]
    if not len(held_out):
        raise ValueError(f"{run.path}: the run held out no validation split, and did not open the test split")
    lines = lines_on_test_set(run.path, data) if tested else []
    held_out.files = [Path(os.path.relpath(file, root)) for file in held_out.files]  # as the page names them
    return "test" if tested else "val", held_out, lines
