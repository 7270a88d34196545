"""A run at a glance: its curves, from `metrics.jsonl`, as one PNG."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointnet.evaluation.tasks import titles_of
from pointnet.extras import MissingExtraError
from pointnet.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = Mapping[str, Any]

# Told apart by lightness and by dashes too, so that neither a screen nor eyes need to tell their colours.
TRAIN: dict[str, Any] = {"color": "#4fa0b8", "linestyle": (0, (4, 1.6)), "linewidth": 1.6}
VALIDATION: dict[str, Any] = {"color": "#8f2d00", "linestyle": "-", "linewidth": 1.9}
RING: dict[str, Any] = {
    "color": "#8f2d00", "linestyle": "", "marker": "o", "markersize": 8, "markerfacecolor": "white",
    "markeredgewidth": 1.9,
}  # fmt: skip
INK, PALE, GRID = "#1f2933", "#7b8794", "#e4e7eb"


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run folder's `metrics.jsonl`, one an epoch.

    Raises:
        ValueError: it is not there, empty or damaged; the message names it.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{path}: no metrics here, so no epoch of a run is over")
    try:
        lines = [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        complete = all({"epoch", "num_points", "lr", "train_loss", "train_accuracy"} <= set(line) for line in lines)
        figures = [value for line in lines for name, value in line.items() if name != "broken_samples"]
        complete &= all(isinstance(value, int | float) for value in figures)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if not lines or not complete:
        raise ValueError(f"{path}: damaged: wanted a line of metrics an epoch")
    return lines


def chosen_epoch(lines: Sequence[Line]) -> int:
    """The epoch that a run keeps: the first of the best on validation, or the last where there is none."""

    name, _ = chooser(lines)

    def score(line: Line) -> tuple[float, float]:
        return line.get(name, line["epoch"]), -line.get("val_loss", 0.0)

    return int(max(lines, key=score)["epoch"])


def chooser(lines: Sequence[Line]) -> tuple[str, str]:
    """The figure on validation that the epoch is chosen by, and its title; where there is none, it is accuracy."""
    names = {name for line in lines for name in line}
    try:
        name, title = next(iter(titles_of(names, "val_").items()))
    except KeyError:
        return "val_overall_accuracy", "overall"
    return f"val_{name}", title


def draw_curves(folder: str | os.PathLike[str]) -> Path:
    """Draws `metrics.jsonl` of a run folder into its `curves.png`, and returns where that is.

    Loss and accuracy on the training and the validation part, with the epoch that was kept; below them the learning
    rate and the points a cloud has. All share one axis, the epochs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: there are no metrics, or damaged ones.
        OSError: the picture cannot be written.
    """
    lines = read_metrics(folder)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing curves.png", "matplotlib", "view") from error

    path = Path(folder) / "curves.png"
    stream = io.BytesIO()
    with warnings.catch_warnings():  # a folder's name in a script that the font lacks is drawn with boxes
        warnings.filterwarnings("ignore", message=".*Glyph.*")
        figure = Figure(figsize=(10, 5.8), dpi=120, facecolor="white")
        fill_figure(figure, lines, Path(folder).resolve().name)
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    write_atomically(path, stream.getvalue())
    return path


def fill_figure(figure: Figure, lines: Sequence[Line], name: str) -> None:
    """Draws the four panels and the line above them."""
    (loss, accuracy), (rate, points) = figure.subplots(
        2, 2, sharex=True, height_ratios=(3, 1), squeeze=False,
        gridspec_kw={"left": 0.065, "right": 0.975, "top": 0.845, "bottom": 0.095, "hspace": 0.3, "wspace": 0.16},
    )  # fmt: skip
    chosen, (val, title) = chosen_epoch(lines), chooser(lines)
    shares = "accuracy, %" if title == "overall" else f"accuracy in training and {title} on validation, %"
    for axes, title in (
        (loss, "loss"), (accuracy, shares), (rate, "learning rate, at the end of each epoch"),
        (points, "points a cloud, in training"),
    ):  # fmt: skip
        dress(axes, title, lines, chosen)
    draw_pair(loss, lines, "train_loss", "val_loss", chosen)
    draw_pair(accuracy, lines, "train_accuracy", val, chosen, scale=100)
    draw_setting(rate, lines, "lr")
    draw_setting(points, lines, "num_points", drawstyle="steps-mid")
    for axes in (rate, points):
        axes.set_xlabel("epoch", fontsize=9.5, color=PALE)
    figure.text(0.065, 0.945, name, fontsize=13, weight="bold", color=INK, parse_math=False)
    figure.text(0.065, 0.91, headline(lines, chosen), fontsize=9.5, color=PALE)
    figure.legend(*loss.get_legend_handles_labels(), loc="upper right", ncols=2, bbox_to_anchor=(0.98, 0.985),
                  frameon=False, fontsize=9.5, labelcolor=INK, handlelength=2.6)  # fmt: skip


def headline(lines: Sequence[Line], chosen: int) -> str:
    """What the picture shows, in a line."""
    name, title = chooser(lines)
    score = next(line for line in lines if line["epoch"] == chosen).get(name)
    what = "right" if title == "overall" else title
    end = "the last" if score is None else f"the best on validation, {score:.2%} {what}"
    return f"{lines[-1]['epoch']} epoch{'s' * (lines[-1]['epoch'] > 1)};  kept: epoch {chosen}, {end}"


def dress(axes: Axes, title: str, lines: Sequence[Line], chosen: int) -> None:
    """An empty panel: its title, a quiet grid, whole epochs, and a line at the one that was kept."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=PALE, labelsize=9, length=0, labelbottom=True)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    first, last = lines[0]["epoch"], lines[-1]["epoch"]
    margin = max(0.5, (last - first) * 0.02)
    axes.set_xlim(first - margin, last + margin)
    axes.axvline(chosen, color=PALE, linewidth=0.9, linestyle=(0, (1, 2)))


def draw_pair(axes: Axes, lines: Sequence[Line], train: str, val: str, chosen: int, scale: float = 1) -> None:
    """One figure on both parts, a ring at the epoch that was kept."""
    axes.plot(*column(lines, train, scale), **TRAIN, **dots(lines), label="train (while learning)")
    epochs, values = column(lines, val, scale)
    if epochs:
        axes.plot(epochs, values, **VALIDATION, **dots(lines), label="validation")
        axes.plot([chosen], [values[epochs.index(chosen)]], **RING)


def draw_setting(axes: Axes, lines: Sequence[Line], name: str, **style: Any) -> None:
    """What the run was told, by the epoch, from 0 up."""
    epochs, values = column(lines, name)
    axes.plot(epochs, values, color=INK, linewidth=1.3, **dots(lines), **style)
    axes.fill_between(epochs, values, step="mid" if style else None, color=GRID, alpha=0.6, linewidth=0)
    axes.set_ylim(0, max(values) * 1.15 or 1)
    axes.locator_params(axis="y", nbins=3)


def column(lines: Sequence[Line], name: str, scale: float = 1) -> tuple[list[int], list[float]]:
    """The epochs that have this figure, and the figure."""
    having = [line for line in lines if name in line]
    return [line["epoch"] for line in having], [line[name] * scale for line in having]


def dots(lines: Sequence[Line]) -> dict[str, Any]:
    """A run of a few epochs is drawn with dots: a line through one point cannot be seen."""
    return {"marker": "o", "markersize": 4} if len(lines) <= 5 else {}
