"""The sections of a report: each as the HTML below its heading."""

import dataclasses
import hashlib
import math
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pointnet.devices import environment
from pointnet.evaluation.analysis import CLEAN, ORDERS, SHARES, Analysis
from pointnet.evaluation.corrupted import POINTS, PUBLISHED, SEVERITIES
from pointnet.evaluation.metrics import ConfusionMatrix, likely
from pointnet.models import Pretrained
from pointnet.training.recipes import to_flags
from pointnet.training.run_folder import CONFIG, Result, chooser, chosen_epoch, folder_again
from pointnet.training.seeds import seeds_rows, summarize
from pointnet.training.settings import TrainConfig

from .charts import Chart, Curve, legend
from .curves import headline, training_charts
from .viewer import View, viewer

SPLIT_NAMES = {"test": "test", "val": "validation"}
STYLES = dict(zip(ORDERS, ("plain", "three", "two"), strict=True))  # of the curves with points dropped
MOST_MISTAKES, MOST_POINTS = 24, 50_000  # on the page
MATRIX = 880  # pixels that a confusion matrix may take, about
SCROLLING = '<div class="scrolling" tabindex="0" role="region" aria-label="table">{}</div>'  # by the keyboard too


class TrainedRun(NamedTuple):
    """The contents of a run folder, and the results of the same run with other seeds."""

    path: Path
    config: TrainConfig
    lines: list[dict[str, Any]]  # of metrics.jsonl
    result: Result | None  # None where the run is not finished
    seeds: dict[int, Result]  # by seed, those of the runs beside it and its own; empty where it is alone
    model: Pretrained


class Report(NamedTuple):
    """A page that was written, and its data."""

    page: Path
    run: TrainedRun
    split: str  # test or val; empty where nothing was evaluated
    analysis: Analysis | None
    missing: str  # why nothing was evaluated
    lines: Sequence[str] = ()  # `lines_on_test_set`


def sections(report: Report, device: torch.device) -> dict[str, str]:
    """The HTML of each section of a report, by its heading."""
    given = report.run.lines, report.run.config.choose_by
    charts, headed = training_charts(*given), escape(headline(*given))
    figures = "".join(chart.figure() for chart in charts)
    training = f'<p>{headed}.</p>{legend(charts[0].curves)}<div class="charts">{figures}</div>'
    found = {"Result": _result(report), "Training": training}
    if report.analysis is not None:
        analysis, split = report.analysis, SPLIT_NAMES[report.split]
        found |= {"Classes": _classes(analysis), "Confusion": _confusion(analysis)}
        found |= {"Worst mistakes": _mistakes(analysis, split), "Points dropped": _dropped(analysis, split)}
        found |= {"Corrupted clouds": _corrupted(report, analysis)} if analysis.corrupted else {}
    return found | {"Settings": _settings(report.run, device), "How to reproduce it": _commands(report)}


def _result(report: Report) -> str:
    """How good the run is, on which split, and how certain that is."""
    run, result = report.run, report.run.result
    tiles, texts = [], []
    if report.analysis is not None:
        name, scores = SPLIT_NAMES[report.split], report.analysis.confusion.result()
        share, count = scores["overall_accuracy"], int(scores["count"])
        tiles.append((f"{share:.2%}", f"of {count:,} {name} shapes right"))
        tiles.append((f"{scores['mean_class_accuracy']:.2%}", "mean over classes"))
        low, high = likely(share, count)
        bounds = f"{count:,} shapes tell no more than that the accuracy is between {low:.1%} and {high:.1%}"
        texts.append(f"{_origin(report)} {bounds} (95% interval). {_agreement(report)}")
    else:
        texts.append(f"Nothing was evaluated for this page: {escape(report.missing)}")
        for split, name in SPLIT_NAMES.items():
            if result and result[split]:
                tiles.append((f"{result[split]['overall_accuracy']:.2%}", f"right on {name}, as the run reported"))
    given = run.lines, run.config.choose_by
    kept, (name, title) = chosen_epoch(*given), chooser(*given)
    val = next(line for line in run.lines if line["epoch"] == kept).get(name)
    metric = "" if title == "overall" else f" {title}"
    reason = "the last" if val is None else f"the best on validation, {val:.2%}{metric}"
    tiles.append((f"{kept} of {len(run.lines)}", f"epoch kept, {reason}"))
    if result and "seconds" in result:
        tiles.append((_duration(result["seconds"]), f"of training, {result['samples_per_second']:,.0f} clouds/s"))
    if not result:
        texts.append(f"The run is not finished: {len(run.lines)} of its {run.config.epochs} epochs are done.")
    seed, seeds = run.config.seed, ""
    if len(run.seeds) < 2:
        texts.append(f"It is one run, of seed {seed}. Another seed gives another result.")
    else:
        text = f"{len(run.seeds)} runs differ in their seed alone. Everything else on this page is of seed {seed}."
        rows = seeds_rows(summarize(dict(sorted(run.seeds.items()))))
        seeds = f"<p><strong>{text}</strong></p>{html_table(rows, 'figures')}"
    shown = "".join(f"<div><b>{value}</b>{escape(words)}</div>" for value, words in tiles)
    return f'<div class="tiles">{shown}</div>{"".join(f"<p>{text}</p>" for text in texts)}{seeds}'


def _origin(report: Report) -> str:
    """How the split was used before, which decides how far its figures can be trusted."""
    if report.lines:
        return " ".join(escape(f"{line[0].upper()}{line[1:]}.") for line in report.lines)
    if report.split == "test":
        return "The test split was used for no choice."
    if report.run.config.overfit_batches:
        return "The network was trained on these very shapes, to see that it can overfit them."
    return "The test split was not opened. The epoch was chosen on these shapes, so the figures are slightly too good."


def _agreement(report: Report) -> str:
    """Whether this page and the run report the same figures."""
    stored = report.run.result and report.run.result[report.split]
    if not stored or report.analysis is None:
        return ""
    if all(math.isclose(report.analysis.confusion.result()[name], stored[name]) for name in ConfusionMatrix.titles):
        return "Computed again for this page, the figures are those that the run reported."
    return f"The run itself reported {stored['overall_accuracy']:.2%}: the data or the rounding differ."


def _classes(analysis: Analysis) -> str:
    """Each class: the share that is right, and what the rest was predicted as; the worst class first."""
    counts, names = analysis.confusion.counts, analysis.data.classes
    rows = []
    for true, row in enumerate(counts.tolist()):
        others = sorted((-n, name) for j, (n, name) in enumerate(zip(row, names, strict=True)) if n and j != true)
        if sum(row):
            predicted = ", ".join(f"{escape(name)} {-n}" for n, name in others[:3])
            rows.append((row[true] / sum(row), sum(row), names[true], row[true], predicted))
    cells = [
        [escape(name), f'<span><i style="width:{share:.0%}"></i></span>{share:.0%}', f"{right} of {total}", predicted]
        for share, total, name, right, predicted in sorted(rows)
    ]
    heads = ["class", "right", "shapes", "most often predicted as"]
    absent = [escape(name) for name, row in zip(names, counts, strict=True) if not row.sum()]
    text = f"<p>There is no shape of {', '.join(absent)}.</p>" if absent else ""
    return text + html_table([heads, *cells], "classes")


def _confusion(analysis: Analysis) -> str:
    names, counts = analysis.data.classes, analysis.confusion.counts.tolist()
    text = "<p>A row is the true class, a column the predicted one; the tint is the share of the row.</p>"
    heads = "".join(f'<th scope="col"><span>{escape(name)}</span>' for name in names)
    body = ""
    for true, (row, name) in enumerate(zip(counts, names, strict=True)):
        body += f'<tr><th scope="row">{escape(name)}'
        for predicted, count in enumerate(row):
            style = "right" if true == predicted else "wrong"
            hint = escape(f"{name}, predicted as {names[predicted]}: {count} of {sum(row)}")
            cell = f'<td class="{style}" style="--share:{count / (sum(row) or 1):.2f}" title="{hint}">{count}'
            body += cell if count else "<td>"
    size = min(max(MATRIX // len(names), 21), 34)
    tinted = f'<table class="matrix" style="--cell:{size}px"><thead><tr><td>{heads}<tbody>{body}</table>'
    return text + SCROLLING.format(tinted)


def _mistakes(analysis: Analysis, split: str) -> str:
    worst, total = analysis.mistakes, len(analysis.data)
    if not len(worst):
        return f"<p>There are none: all {total:,} {split} shapes are right.</p>"
    shown = worst[: max(1, min(MOST_MISTAKES, MOST_POINTS // analysis.data.num_points))]
    text = (
        f"{len(worst):,} of {total:,} {split} shapes are wrong. Shown are the {len(shown)} whose true class got the "
        "lowest probability: true class → predicted class, and the probabilities of the predicted and of the true "
        "class."
    )
    if analysis.critical is not None:
        text += " Highlighted are the critical points, those that won a max of the network; the answer depends on them "
        text += "alone."
    views, data = [], analysis.data
    for index in shown.tolist():
        probabilities, true, predicted = analysis.probabilities[index], data.labels[index], analysis.predicted[index]
        shares = f"{probabilities[predicted]:.0%}, not {probabilities[true]:.0%}"
        name = f"{data.classes[true]} → {data.classes[predicted]}: {shares} ({data.name_of(index)})"
        critical = None if analysis.critical is None else analysis.critical[index].numpy()
        views.append(View(name, data[index][0][:3].T.numpy(), critical=critical))
    return f"<p>{text}</p>{viewer(views)}"


def _dropped(analysis: Analysis, split: str) -> str:
    """Accuracy with points dropped: Qi et al. 2017, figure 6 and section 5.3."""
    shares = [100 * share for share in SHARES]
    curves = [
        Curve(order, shares, [100 * accuracy for accuracy in found], STYLES[order])
        for order, found in analysis.dropped.items()
    ]
    chart = Chart("accuracy, %", curves, "points dropped, %", (0, 100), (0, 100)).figure()
    text = (
        f"The network was evaluated again with points of each {split} shape dropped (as in Qi et al. 2017, figure 6)."
    )
    if analysis.critical is not None:
        critical, clouds = analysis.critical.float().mean(1), len(analysis.data)
        text += (
            f" Of a cloud, {critical.mean():.0%} of the points are critical, from {critical.min():.0%} to "
            f"{critical.max():.0%}. With all other points dropped, {analysis.changed:,} of {clouds:,} answers change."
        )
    rows = [["dropped", *analysis.dropped]]
    for i, share in enumerate(SHARES):
        rows.append([f"{100 * share:.3g}%", *(f"{found[i]:.2%}" for found in analysis.dropped.values())])
    return f'<p>{text}</p><div class="charts"><div>{legend(curves)}{chart}</div>{html_table(rows, "figures")}</div>'


def _corrupted(report: Report, analysis: Analysis) -> str:
    """Error rates with the corruptions of ModelNet40-C: Sun et al. 2022."""
    clean, *each = analysis.corrupted.values()
    clouds, of_cloud = clean.shape[1], np.mean(each, axis=(0, 1))
    within = f" (± {1.96 * of_cloud.std(ddof=1) / math.sqrt(clouds):.1%}, 95% interval)" if clouds > 1 else ""
    text = (
        f"{clouds:,} of the {len(analysis.data):,} {SPLIT_NAMES[report.split]} shapes, spread over the classes, were "
        "corrupted in the fifteen ways of ModelNet40-C (Sun et al. 2022), at five severities each. Of the clean "
        f"shapes {clean.mean():.1%} are wrong, of the corrupted ones {of_cloud.mean():.1%}{within}. The severities of "
        f"occlusion and lidar are sides to look from. A clean shape has {POINTS:,} points, or all if fewer are stored. "
        "Noise and transformations leave shapes in the box [-1, 1], as released, which is more than the unit sphere."
    )
    if report.run.config.dataset == "modelnet40":
        text += " PointNet's published error rates, on the official test split, are {:.1%} and {:.1%}.".format(
            *PUBLISHED
        )
    rows = [["corruption", "wrong, mean", *(f"severity {severity}" for severity in SEVERITIES)]]
    for name, wrong in analysis.corrupted.items():
        share, severities = wrong.mean(), wrong.mean(1) if name != CLEAN else []
        bar = f'<span><i style="width:{share:.0%}"></i></span>{share:.0%}'
        rows.append([name, bar, *(f"{each:.0%}" for each in severities)])
    return f"<p>{text}</p>{html_table(rows, 'classes')}"


def _settings(run: TrainedRun, device: torch.device) -> str:
    defaults = TrainConfig()
    rows = [["setting", "here", "default"]]
    for field in dataclasses.fields(TrainConfig):
        value, default = getattr(run.config, field.name), getattr(defaults, field.name)
        if value != default and field.name != "out":
            rows.append([field.name, escape(str(value)), escape(str(default))])
    all_of_them = escape((run.path / CONFIG).read_text(encoding="utf-8"))
    changed = html_table(rows, "words") if len(rows) > 1 else "<p>They are the defaults.</p>"
    here = environment(device)
    there = (run.result or {}).get("environment", {})
    where = [["", "training", "this page"]]
    here["precision"] = "fp32"
    where += [[name, escape(str(there.get(name, "not recorded"))), escape(str(here[name]))] for name in here]
    return (
        f"{changed}<details><summary>All settings, as in config.yaml</summary><pre>{all_of_them}</pre></details>"
        f"<h3>Where it ran</h3>{html_table(where, 'words')}"
    )


def _commands(report: Report) -> str:
    run, out = report.run, folder_again()
    commands = [["python", "train.py", *to_flags(dataclasses.replace(run.config, out=out))]]
    if report.split == "test":
        commands.append(["python", "-m", "pointnet", "evaluate", out])
    corrupted = report.analysis.corrupted if report.analysis else {}
    count = ["--corruptions", str(corrupted[CLEAN].shape[1])] if corrupted else []
    commands.append(["python", "-m", "pointnet", "report", out, *count])
    lines = "\n".join(shlex.join(words) for words in commands)
    digest = hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()
    text = (
        "On a CPU of the same kind, with the same versions and threads, the weights are the same, bit for bit. "
        "Elsewhere sums are rounded in another order, and the result differs. These weights, "
        f"<code>model.safetensors</code>, have the sha256 <code>{digest}</code>."
    )
    return f"<pre>{escape(lines)}</pre><p>{text}</p>"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def html_table(rows: Sequence[Sequence[str]], style: str) -> str:
    """Rows of HTML as a table, the first of them headings."""
    heads = "".join(f'<th scope="col">{cell}' for cell in rows[0])
    body = "".join(f'<tr><th scope="row">{row[0]}{"".join(f"<td>{cell}" for cell in row[1:])}' for row in rows[1:])
    return SCROLLING.format(f'<table class="{style}"><thead><tr>{heads}<tbody>{body}</table>')
