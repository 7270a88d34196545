"""Draws docs/accuracy.svg, accuracy against multiply-adds and against seconds of training, and writes the tables of
accuracy in docs/benchmarks.md: python -m tools.accuracy

A mark is a run of docs/records that was measured on the test part of ModelNet40's development split: its colour is the
network, its form the machine. Seconds are those that the run's result holds; none is scaled to another machine.
"""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

from pointnet.datasets import LabelledClouds
from pointnet.models import MODELS
from pointnet.training.network import model_arguments
from pointnet.training.run_folder import read_config, read_result
from pointnet.training.settings import TrainConfig
from tests.helpers import count_multiply_adds
from tools.accuracy_table import Record, write_tables
from tools.drawing import FAINT, Drawing

DOCS = Path(__file__).parents[1] / "docs"
SPLIT = "modelnet40_dev_"
NETWORKS = {
    "pointnet": ("PointNet", "#2f6f9f"),
    "pointnet2": ("PointNet++", "#c4483c"),
    "pointnet2_msg": ("PointNet++ MSG", "#8f2d00"),
    "dgcnn": ("DGCNN", "#3c8f4a"),
    "pointnext_s": ("PointNeXt-S", "#7d4aa8"),
    "edgenet": ("EdgeNet", "#cf7a1c"),
}
MACHINES = ("two CPU cores", "one CPU thread", "one NVIDIA H200")
# Of runs from before results had an environment, as docs/records/README.md says.
MACHINES_BEFORE = {f"{SPLIT}seed0": MACHINES[0], f"{SPLIT}60_epochs_seed0": MACHINES[1]}
MACHINES_BEFORE |= {f"{SPLIT}60_epochs_seed1": MACHINES[1]}
LEFT, TOP, WIDTH, HEIGHT, BETWEEN = 56, 112, 430, 380, 44  # of the first panel, and between both
SIZE = 5.5  # half of a mark
COUNTS = {10**6: "1 M", 10**7: "10 M", 10**8: "100 M", 10**9: "1 G", 10**10: "10 G"}
TIMES = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 14400: "4 h", 86400: "1 day"}


class Panel(NamedTuple):
    """A logarithmic axis over one range of accuracy."""

    left: float
    low: float
    high: float
    bottom: float  # per cent
    top: float

    def at(self, x: float, accuracy: float) -> tuple[float, float]:
        share = math.log(x / self.low) / math.log(self.high / self.low)
        down = (self.top - accuracy) / (self.top - self.bottom)
        return round(self.left + share * WIDTH, 1), round(TOP + down * HEIGHT, 1)


def records(folder: Path) -> list[Record]:
    """The measured runs of a folder of records, by name."""
    found, counted = [], dict[tuple[object, ...], int]()
    for run in sorted(folder.glob(f"{SPLIT}*")):
        config, result = read_config(run), read_result(run)
        if result["test"] is None:
            continue
        shape = (config.network, config.width, config.tnet_width, config.input_transform, config.feature_transform)
        counted[shape] = counted.get(shape) or multiply_adds(config)
        seconds, test = result["seconds"], result["test"]
        machine = MACHINES_BEFORE.get(run.name) or machine_of(run.name, result.get("environment", {}))
        scores = 100 * test["overall_accuracy"], 100 * test["mean_class_accuracy"]
        words = words_of(run.name, config)
        found.append(Record(run.name, words, config.network, machine, counted[shape], seconds, *scores))
    return found


def machine_of(name: str, environment: dict[str, object]) -> str:
    """ValueError where a result does not say it, or says one that has no mark."""
    device, threads = environment.get("device"), environment.get("threads")
    known = {"cpu": {1: MACHINES[1], 2: MACHINES[0]}.get(threads), "NVIDIA H200": MACHINES[2]}.get(device)
    if known is None:
        raise ValueError(f"{name}: no mark for {device} with {threads} threads")
    return known


def words_of(name: str, config: TrainConfig) -> str:
    """What a run differs in, by the name of its folder, else its epochs."""
    other = [word for word in name.removeprefix(SPLIT).split("_") if word != "gpu" and not word.startswith("seed")]
    words = " ".join(other).removeprefix(config.network.replace("_", " ")).strip() or f"{config.epochs} epochs"
    return words if config.network == "pointnet" else f"{NETWORKS[config.network][0]}, {words}"


def multiply_adds(config: TrainConfig) -> int:
    """Of a cloud of 1,024 points so dense that every ball of PointNet++ is full."""
    x = 0.01 * torch.randn(1, 3, 1024, generator=torch.Generator().manual_seed(0))
    data = LabelledClouds(x, torch.zeros(1, dtype=torch.long), [f"class {i}" for i in range(40)])
    return count_multiply_adds(MODELS[config.network](**model_arguments(config, data)), x)


def draw(runs: Sequence[Record]) -> Drawing:
    drawing = Drawing(LEFT + 2 * WIDTH + BETWEEN + 20, TOP + HEIGHT + 56, "Accuracy against cost of a network")
    key(drawing, {run.network for run in runs})
    accuracies = [run.accuracy for run in runs]
    span = (math.floor(2 * min(accuracies) - 0.2) / 2, math.ceil(2 * max(accuracies) + 0.2) / 2)
    by_adds, by_seconds = [run.multiply_adds for run in runs], [run.seconds for run in runs]
    axes = [("multiply-adds per cloud of 1,024 points", by_adds, COUNTS), ("training, on the clock", by_seconds, TIMES)]
    for i, (name, costs, ticks) in enumerate(axes):
        low, high = max(x for x in ticks if x <= min(costs)), min(x for x in ticks if x >= max(costs))
        panel = Panel(LEFT + i * (WIDTH + BETWEEN), low, high, *span)
        scales(drawing, panel, name, ticks)
        places = [panel.at(cost, accuracy) for cost, accuracy in zip(costs, accuracies, strict=True)]
        for run, (x, y) in zip(runs, places, strict=True):
            mark(drawing, x, y, run.machine, NETWORKS[run.network][1])
    labels(drawing, panel, runs, places)
    return drawing


def key(drawing: Drawing, networks: set[str]) -> None:
    title = "Accuracy on the test part of ModelNet40's development split, one vote, %"
    drawing.text(LEFT, 30, title, 15, "start", bold=True)
    colours = [(*value, MACHINES[0]) for name, value in NETWORKS.items() if name in networks]
    for y, entries in ((54, colours), (78, [(name, FAINT, name) for name in MACHINES])):
        x = LEFT + SIZE
        for name, colour, machine in entries:
            mark(drawing, x, y, machine, colour)
            drawing.text(x + 12, y + 5, name, 13, "start")
            x += 40 + 7.6 * len(name)


def scales(drawing: Drawing, panel: Panel, name: str, ticks: dict[int, str]) -> None:
    for half in range(round(2 * panel.bottom), round(2 * panel.top) + 1):
        _, y = panel.at(panel.low, half / 2)
        drawing.line(panel.left, y, panel.left + WIDTH, y, "#e3e8ec")
        if panel.left == LEFT:
            drawing.text(LEFT - 8, y + 4, f"{half / 2:g}", 12, "end", FAINT)
    for value, text in ((value, text) for value, text in ticks.items() if panel.low <= value <= panel.high):
        x, y = panel.at(value, panel.bottom)
        drawing.line(x, y, x, y + 5, FAINT)
        drawing.text(x, y + 20, text, 12, colour=FAINT)
    drawing.line(panel.left, TOP + HEIGHT, panel.left + WIDTH, TOP + HEIGHT, FAINT)
    drawing.text(panel.left + WIDTH / 2, TOP + HEIGHT + 42, name, 13)


def mark(drawing: Drawing, x: float, y: float, machine: str, colour: str) -> None:
    """A disc, a triangle or a square, by machine."""
    if machine == MACHINES[1]:
        drawing.polygon([(x, y - SIZE - 1), (x + SIZE + 1, y + SIZE), (x - SIZE - 1, y + SIZE)], colour)
    else:
        round = SIZE if machine == MACHINES[0] else 0
        drawing.box(x - SIZE, y - SIZE, 2 * SIZE, 2 * SIZE, ("#ffffff", colour), round=round)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def labels(drawing: Drawing, panel: Panel, runs: Sequence[Record], places: Sequence[tuple[float, float]]) -> None:
    """Names the best of the runs that differ in their seed alone, where there is room beside its mark and none touches
    another's."""
    side = SIZE + 3
    taken = [(x - side, y - SIZE, x + side, y + SIZE) for x, y in places]
    named = set[tuple[str, str]]()
    for run, (x, y) in sorted(zip(runs, places, strict=True), key=lambda each: each[1][1]):
        if (run.words, run.machine) in named:
            continue
        named.add((run.words, run.machine))
        width = 6.3 * len(run.words)
        right, left = x + 10, x - 10 - width
        above = min(x - width / 2, panel.left + WIDTH - width)
        for start, down in [(right, 4), (left, 4), (above, -10), (above, 19), *product((right, left), (15, -7))]:
            box = (start, y + down - 9, start + width, y + down + 2)
            inside = panel.left <= start and start + width <= panel.left + WIDTH
            if inside and not any(overlap(box, other) for other in taken):
                anchor, at = ("end", start + width) if start == left else ("start", start)
                drawing.text(at, y + down, run.words, 11, anchor, NETWORKS[run.network][1])
                taken.append(box)
                break


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


if __name__ == "__main__":
    measured = records(DOCS / "records")
    draw(measured).save(DOCS / "accuracy.svg")
    write_tables(DOCS, measured, [(name, words) for name, (words, _) in NETWORKS.items()])
