"""What `metrics.jsonl` of a run says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pointnet.evaluation.tasks import titles_of

Line = Mapping[str, Any]


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


def column(lines: Sequence[Line], name: str, scale: float = 1) -> tuple[list[int], list[float]]:
    """The epochs that have this figure, and the figure."""
    having = [line for line in lines if name in line]
    return [line["epoch"] for line in having], [line[name] * scale for line in having]
