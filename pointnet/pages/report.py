"""A run as one page that any browser shows offline: how it learned, how good it is, where it errs, how to repeat it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import shlex
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.devices import environment, find_device
from pointnet.evaluation.evaluate import check_same_classes
from pointnet.evaluation.metrics import ConfusionMatrix
from pointnet.models import PointNetClassifier, load_model
from pointnet.names import did_you_mean_path
from pointnet.training.curves import chosen_epoch, column, headline, read_metrics
from pointnet.training.fit import training_parts
from pointnet.training.seeds import Result, read_result, seeds_rows, summarize
from pointnet.training.settings import TrainConfig, load_config, to_words

from .charts import Curve, legend, line_chart, matrix, table
from .measure import ORDERS, SHARES, Measured, measure
from .viewer import View, viewer, write_html

STYLES = dict(zip(ORDERS, ("plain", "three", "two"), strict=True))  # of their curves
MOST_MISTAKES, MOST_POINTS = 24, 50_000  # on the page
PARTS = {"test": "test", "val": "validation"}


# What there is of a run.


class RunFolder(NamedTuple):
    """What a run has left, and what of runs like it with other seeds."""

    path: Path
    config: TrainConfig
    lines: list[dict[str, Any]]  # of metrics.jsonl
    result: Result | None  # None of a run that is not finished
    seeds: dict[int, Result]  # of the runs beside it, itself included, by their seeds; empty where it is alone
    model: PointNetClassifier


def read_run(path: str | os.PathLike[str]) -> RunFolder:
    """A run folder, or of a folder with several seeds the first that is finished.

    Raises:
        ValueError: it holds no run, or a damaged one; the message names the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; a report is of a run folder{did_you_mean_path(path)}")
    within, beside = _seeds_in(path), _seeds_in(path.resolve().parent)
    seeds = within or (beside if path.resolve() in beside.values() else {})
    finished = {seed: read_result(folder) for seed, folder in seeds.items() if (folder / "result.json").is_file()}
    if within:
        path = within[min(finished or within)]
    lines, settings = read_metrics(path), path / "config.yaml"
    if not settings.is_file():
        raise ValueError(f"{settings}: no settings of a run here")
    result = read_result(path) if (path / "result.json").is_file() else None
    model = load_model(path)
    if not isinstance(model, PointNetClassifier):
        wanted = f"a report is of a classifier, got a {type(model).__name__}"
        raise ValueError(f"{path}: {wanted}; python -m pointnet evaluate measures it, and predict shows what it says")
    return RunFolder(path, load_config(settings), lines, result, finished, model)


def _seeds_in(path: Path) -> dict[int, Path]:
    """The folders of the seeds of a run of several."""
    folders = [settings.parent for settings in path.glob("seed-*/config.yaml")]
    numbers = {folder.name.removeprefix("seed-"): folder for folder in folders}
    return {int(number): folder for number, folder in numbers.items() if number.isdecimal()}


def open_part(
    run: RunFolder, root: str | os.PathLike[str] | None = None, download: bool = False
) -> tuple[str, LabelledClouds]:
    """The part that a run is judged on: test where the run itself measured it, else validation.

    A run that was told to leave the test part unopened, or has not come to it, leaves it so here too.

    Raises:
        ValueError: the data set is not there or is another, or the run held nothing out.
        OSError: it cannot be read.
    """
    config, name = run.config, "test" if run.result and run.result["test"] else "val"
    root = config.root if root is None else root
    split = "test" if name == "test" else "train"
    data = open_dataset(config.dataset, root, split, config.num_points, config.normals, config.strict, download)
    check_same_classes(run.model, data, run.path, f"{config.dataset} in {root}")
    part = data if name == "test" else training_parts(data, config)[1]
    if not len(part):
        raise ValueError(f"{run.path}: the run held nothing out to measure it on, and did not open the test part")
    return name, part


# The page.


class Report(NamedTuple):
    """What was written, and what of."""

    page: Path
    run: RunFolder
    part: str  # that was measured: test or val
    measured: Measured | None
    missing: str  # why nothing was measured


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    device: str = "auto",
    download: bool = False,
) -> Report:
    """Measures a trained run and writes `out/index.html`, one page that asks for nothing outside itself.

    Where its data set is not there, the page has what the run folder itself holds, and says why no more.

    Args:
        run: a run folder, or one of several seeds; then the page is of the first, with the accuracies of all.
        out: the folder of the page; None: `report` in the run's own.
        root: the folder the data set is in; None: where it was in training.
        device: as `find_device` takes it.
        download: fetch the data set where it is not there and may be fetched.

    Raises:
        ValueError: the folder holds no run, or a damaged one, or there is no such device.
        OSError: the page cannot be written.
    """
    chosen, found = find_device(device), read_run(run)
    page = Path(Path(run) / "report" if out is None else out) / "index.html"
    try:
        part, data = open_part(found, root, download)
    except (ValueError, OSError) as error:
        report = Report(page, found, "", None, str(error))
    else:
        report = Report(page, found, part, measure(found.model, data, chosen), "")
    write_html(page, _title(found), _notes(found), _body(report, chosen))
    return report


def _title(run: RunFolder) -> str:
    if len(run.seeds) < 2:
        return run.path.resolve().name
    return f"{run.path.resolve().parent.name}, seed {run.config.seed} of {len(run.seeds)} seeds"


def _notes(run: RunFolder) -> str:
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    points = f"{run.config.num_points:,} points a cloud{', with normals' if run.config.normals else ''}"
    return f"PointNet, {parameters:,} parameters, on {run.config.dataset}: {len(run.model.classes)} classes, {points}"


def _body(report: Report, device: torch.device) -> str:
    run, measured, part = report.run, report.measured, PARTS.get(report.part, "")
    sections = {"Result": _result(report), "Training": _training(run)}
    if measured is not None:
        sections["Classes"] = _classes(measured)
        sections["Confusion"] = _confusion(measured)
        sections["Worst mistakes"] = _mistakes(measured, part)
        sections["Points dropped"] = _dropped(measured, part)
    sections["Settings"] = _settings(run, device)
    sections["How to make it again"] = _again(report)
    anchors = {heading: heading.lower().replace(" ", "-") for heading in sections}
    links = "".join(f'<a href="#{anchor}">{heading}</a>' for heading, anchor in anchors.items())
    parts = (f'<section id="{anchors[name]}"><h2>{name}</h2>{content}</section>' for name, content in sections.items())
    return f'<main><nav aria-label="sections">{links}</nav>{"".join(parts)}</main>'


def _result(report: Report) -> str:
    """How good it is, on what, and how sure that is."""
    run, result = report.run, report.run.result
    tiles, texts = [], []
    if report.measured is not None:
        name, scores = PARTS[report.part], report.measured.confusion.result()
        share, count = scores["overall_accuracy"], int(scores["count"])
        tiles.append((f"{share:.2%}", f"of {count:,} {name} shapes right"))
        tiles.append((f"{scores['mean_class_accuracy']:.2%}", "mean over classes"))
        error = math.sqrt(share * (1 - share) / count)
        texts.append(f"{_origin(report)} {count:,} shapes leave a standard error of {error:.2%}. {_agreement(report)}")
    else:
        texts.append(f"Nothing was measured for this page: {escape(report.missing)}")
        for part, name in PARTS.items():
            if result and result[part]:
                tiles.append((f"{result[part]['overall_accuracy']:.2%}", f"right on {name}, as the run measured it"))
    kept = chosen_epoch(run.lines)
    val = next(line for line in run.lines if line["epoch"] == kept).get("val_overall_accuracy")
    reason = "the last" if val is None else f"the best on validation, {val:.2%}"
    tiles.append((f"{kept} of {len(run.lines)}", f"epoch kept, {reason}"))
    if result and "seconds" in result:
        tiles.append((duration(result["seconds"]), f"of training, {result['samples_per_second']:,.0f} clouds a second"))
    if not result:
        texts.append(f"The run is not finished: {len(run.lines)} of its {run.config.epochs} epochs are over.")
    if len(run.seeds) < 2:
        texts.append(f"It is one run, of seed {run.config.seed}. Another seed ends elsewhere.")
    shown = "".join(f"<div><b>{value}</b>{escape(words)}</div>" for value, words in tiles)
    return f'<div class="tiles">{shown}</div>{"".join(f"<p>{text}</p>" for text in texts)}{_seeds(run)}'


def _origin(report: Report) -> str:
    """What part the figures are of, and what that makes of them."""
    if report.part == "test":
        return "The test part took part in no choice."
    if report.run.config.overfit_batches:
        return "These are the very shapes it was trained on, to learn them by heart."
    return "The test part was not opened. The epoch was chosen on these shapes, so the figures are somewhat too good."


def _agreement(report: Report) -> str:
    """Whether what was measured here is what the run measured."""
    stored = report.run.result and report.run.result[report.part]
    if not stored or report.measured is None:
        return ""
    if all(math.isclose(report.measured.confusion.result()[name], stored[name]) for name in ConfusionMatrix.titles):
        return "Measured anew for this page, they are what the run itself found."
    return f"The run itself found {stored['overall_accuracy']:.2%}: other data, or other rounding."


def _seeds(run: RunFolder) -> str:
    """The accuracies of all seeds, where there are several."""
    if len(run.seeds) < 2:
        return ""
    rows = seeds_rows(summarize(dict(sorted(run.seeds.items()))))
    text = (
        f"{len(run.seeds)} runs differ in their seed alone. Everything else on this page is of seed {run.config.seed}."
    )
    return f"<p><strong>{text}</strong></p>{table(rows, 'figures')}"


def _training(run: RunFolder) -> str:
    """The curves of `curves.png`, for the page."""
    kept = chosen_epoch(run.lines)
    pairs = {"loss": ("train_loss", "val_loss", 1), "accuracy, %": ("train_accuracy", "val_overall_accuracy", 100)}
    charts, curves = [], []
    for title, (train, val, scale) in pairs.items():
        curves = [Curve("training part, while learning", *column(run.lines, train, scale), "two")]
        if any(val in line for line in run.lines):
            curves.append(Curve("validation part", *column(run.lines, val, scale), "one"))
        charts.append(line_chart(title, curves, "epoch", mark=kept))
    settings = {"learning rate, at the end of each epoch": "lr", "points a cloud, in training": "num_points"}
    for title, name in settings.items():
        curve = Curve(title, *column(run.lines, name), "plain", steps=name == "num_points")
        charts.append(line_chart(title, [curve], "epoch", y_span=(0, max(curve.y) * 1.1 or 1), mark=kept, height=150))
    text = escape(headline(run.lines, kept))
    return f'<p>{text}, marked by a dotted line.</p>{legend(curves)}<div class="charts">{"".join(charts)}</div>'


def _classes(measured: Measured) -> str:
    """Each class: how much of it is right, and what the rest was taken for; the worst first."""
    counts, names = measured.confusion.counts, measured.data.classes
    rows = []
    for true, row in enumerate(counts.tolist()):
        others = sorted((-n, name) for j, (n, name) in enumerate(zip(row, names, strict=True)) if n and j != true)
        if sum(row):
            taken = ", ".join(f"{escape(name)} {-n}" for n, name in others[:3])
            rows.append((row[true] / sum(row), sum(row), names[true], row[true], taken))
    cells = [
        [escape(name), f'<span><i style="width:{share:.0%}"></i></span>{share:.0%}', f"{right} of {total}", taken]
        for share, total, name, right, taken in sorted(rows)
    ]
    heads = ["class", "right", "shapes", "most often taken for"]
    absent = [escape(name) for name, row in zip(names, counts, strict=True) if not row.sum()]
    text = f"<p>There is no shape of {', '.join(absent)}.</p>" if absent else ""
    return text + table([heads, *cells], "classes")


def _confusion(measured: Measured) -> str:
    text = "A row is what the shapes are, a column what they were taken for; the tint is the share of the row."
    return f"<p>{text}</p>{matrix(measured.confusion.counts.tolist(), measured.data.classes)}"


def _mistakes(measured: Measured, part: str) -> str:
    """The worst of them, to turn, with their critical points."""
    worst = measured.mistakes
    if not len(worst):
        return f"<p>There are none: all {len(measured.data):,} {part} shapes are right.</p>"
    shown = worst[: max(1, min(MOST_MISTAKES, MOST_POINTS // measured.data.num_points))]
    views = [_mistake(measured, index) for index in shown.tolist()]
    text = (
        f"{len(worst):,} of {len(measured.data):,} {part} shapes are wrong; these are the {len(shown)} whose own class "
        "was thought least likely: what each is → what it was taken for, and the probabilities of the second and the "
        "first. Marked are its critical points, those that won a max of the network; the answer depends on them alone."
    )
    return f"<p>{text}</p>{viewer(views)}"


def _mistake(measured: Measured, index: int) -> View:
    data, probabilities = measured.data, measured.probabilities[index]
    true, predicted = int(data.labels[index]), int(measured.predicted[index])
    name = (
        f"{data.classes[true]} → {data.classes[predicted]}: {probabilities[predicted]:.0%}, not "
        f"{probabilities[true]:.0%} ({data.name_of(index)})"
    )
    points = data[index][0][:3].T
    there = points.isfinite().all(1)
    critical = measured.critical[index][there]
    return View(name, points[there].numpy(), highlight=critical.numpy(), highlight_name="critical points")


def _dropped(measured: Measured, part: str) -> str:
    """Accuracy without some of the points: Qi et al. 2017, figure 6 and section 5.3."""
    shares = [100 * share for share in SHARES]
    curves = [
        Curve(order, shares, [100 * accuracy for accuracy in measured.dropped[order]], style)
        for order, style in STYLES.items()
    ]
    chart = line_chart("accuracy, %", curves, "points dropped, %", (0, 100), (0, 100))
    of_cloud, clouds = measured.critical.float().mean(1), len(measured.data)
    text = (
        f"The network was asked again with points of each {part} shape missing (as in Qi et al. 2017, figure 6). "
        f"Critical points are {of_cloud.mean():.0%} of a cloud, from {of_cloud.min():.0%} to {of_cloud.max():.0%}. "
        f"Left alone, they change {measured.changed:,} of {clouds:,} answers: dropping the others costs nothing."
    )
    rows = [["dropped", *ORDERS]]
    for i, share in enumerate(SHARES):
        rows.append([f"{100 * share:.3g}%", *(f"{measured.dropped[order][i]:.2%}" for order in ORDERS)])
    figures = table(rows, "figures")
    return f'<p>{text}</p><div class="charts"><div>{legend(curves)}{chart}</div>{figures}</div>'


def _settings(run: RunFolder, device: torch.device) -> str:
    """What the run was told, where it ran, and where this page was made."""
    defaults = TrainConfig()
    rows = [["setting", "here", "default"]]
    for field in dataclasses.fields(TrainConfig):
        value, default = getattr(run.config, field.name), getattr(defaults, field.name)
        if value != default and field.name != "out":
            rows.append([field.name, escape(str(value)), escape(str(default))])
    all_of_them = escape((run.path / "config.yaml").read_text(encoding="utf-8"))
    changed = table(rows, "words") if len(rows) > 1 else "<p>They are the defaults.</p>"
    here = environment(device)
    there = (run.result or {}).get("environment", {})
    where = [["", "training", "this page"]]
    where += [[name, escape(str(there.get(name, "not recorded"))), escape(str(here[name]))] for name in here]
    return (
        f"{changed}<details><summary>All settings, as in config.yaml</summary><pre>{all_of_them}</pre></details>"
        f"<h3>Where it ran</h3>{table(where, 'words')}"
    )


def _again(report: Report) -> str:
    """The commands that make the run, its figure and this page again."""
    run, config = report.run, report.run.config
    where = ["--dataset", config.dataset, "--root", config.root]
    commands = [["python", "train.py", *to_words(dataclasses.replace(config, out="runs/again"))]]
    if report.part == "test":
        commands.append(["python", "-m", "pointnet", "evaluate", "runs/again", *where])
    commands.append(["python", "-m", "pointnet", "report", "runs/again"])
    lines = "\n".join(shlex.join(words) for words in commands)
    digest = hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()
    text = (
        "On a CPU of the same kind, with the same versions and threads, the weights come out the same, bit for bit. "
        "Elsewhere sums are rounded in another order, and a run ends elsewhere too. These weights, "
        f"<code>model.safetensors</code>, have the sha256 <code>{digest}</code>."
    )
    return f"<pre>{escape(lines)}</pre><p>{text}</p>"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
