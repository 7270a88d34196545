"""The training curves of a run, for its folder and for its report."""

from collections.abc import Sequence
from pathlib import Path

from pointnet.files import AnyPath, write_atomically
from pointnet.names import printable
from pointnet.training.run_folder import CONFIG, CURVES, EpochMetrics, chooser, chosen_epoch, read_config, read_metrics

from .charts import Chart, Curve, picture


def draw_curves(folder: AnyPath) -> Path:
    """Draws `metrics.jsonl` of a run folder into its `curves.svg`, and returns the path of that.

    Raises:
        ValueError: there are no metrics, or damaged ones.
        OSError: the file cannot be written.
    """
    lines = read_metrics(folder)
    path = Path(folder) / CURVES
    by = read_config(folder).choose_by if (Path(folder) / CONFIG).exists() else ""
    svg = picture(printable(Path(folder).resolve().name), headline(lines, by), training_charts(lines, by))
    write_atomically(path, svg.encode())
    return path


def training_charts(lines: Sequence[EpochMetrics], choose_by: str = "") -> list[Chart]:
    """Loss and accuracy on training and validation, learning rate and points per cloud, all by the epoch.

    A dotted line marks the epoch that the run keeps, by the setting `choose_by`.
    """
    kept, (val, title) = chosen_epoch(lines, choose_by), chooser(lines, choose_by)
    accuracy = "accuracy, %" if title == "overall" else f"accuracy in training and {title} on validation, %"

    def pair(title: str, train: str, val: str, scale: int) -> Chart:
        curves = [Curve("training (during the epoch)", *column(lines, train, scale), "two")]
        if any(val in line for line in lines):
            curves.append(Curve("validation", *column(lines, val, scale), "one"))
        return Chart(title, curves, "epoch", mark=kept)

    def setting(title: str, name: str, steps: bool) -> Chart:
        curve = Curve(title, *column(lines, name), "plain", steps)
        return Chart(title, [curve], "epoch", y_span=(0, max(curve.y) * 1.1 or 1), mark=kept, height=150)

    return [
        pair("loss", "train_loss", "val_loss", 1),
        pair(accuracy, "train_accuracy", val, 100),
        setting("learning rate, at the end of each epoch", "lr", steps=False),
        setting("points per cloud, in training", "num_points", steps=True),
    ]


def headline(lines: Sequence[EpochMetrics], choose_by: str = "") -> str:
    """The number of epochs, which one the run keeps, and why."""
    kept, (name, title) = chosen_epoch(lines, choose_by), chooser(lines, choose_by)
    score = next(line for line in lines if line["epoch"] == kept).get(name)
    metric = "accuracy" if title == "overall" else title
    reason = "the last" if score is None else f"the best on validation, {score:.2%} {metric}"
    count = lines[-1]["epoch"]
    return f"{count} epoch{'s' * (count > 1)}; kept (dotted line): epoch {kept}, {reason}"


def column(lines: Sequence[EpochMetrics], name: str, scale: float = 1) -> tuple[list[int], list[float]]:
    """The epochs that have this metric, and its values."""
    having = [line for line in lines if name in line]
    return [line["epoch"] for line in having], [line[name] * scale for line in having]
