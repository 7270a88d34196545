"""The curves of a run show what metrics.jsonl holds, and stand in its folder at the end."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from pointnet.commands import train
from pointnet.evaluation.metrics import PartScores
from pointnet.pages.curves import draw_curves, headline, training_charts
from pointnet.training.run_folder import chosen_epoch, read_metrics
from tests.chromium import needs_chromium, visit
from tests.helpers import ON_SAMPLES, ROOT, metrics_line, write_metrics

RECORD = ROOT / "docs" / "records" / "modelnet40_dev_seed0"


def elements(svg: Path, tag: str, style: str = "") -> list[ElementTree.Element]:
    found = ElementTree.parse(svg).getroot().iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    return [each for each in found if style in each.get("class", "").split() or not style]


def test_the_curves_are_the_lines_of_the_metrics():
    lines = read_metrics(RECORD)
    charts = training_charts(lines)
    assert [chart.title for chart in charts][:2] == ["loss", "accuracy, %"]
    found = {(chart.title.split(",")[0], curve.name.split()[0]): curve for chart in charts for curve in chart.curves}
    for (title, name), key, scale in (
        (("loss", "training"), "train_loss", 1),
        (("loss", "validation"), "val_loss", 1),
        (("accuracy", "training"), "train_accuracy", 100),
        (("accuracy", "validation"), "val_overall_accuracy", 100),
        (("learning rate", "learning"), "lr", 1),
    ):
        curve = found[title, name]
        assert list(curve.x) == list(range(1, 31))
        assert list(curve.y) == [scale * line[key] for line in lines]
    (points,) = charts[3].curves
    assert (list(points.y), points.steps) == ([256] * 24 + [1024] * 6, True)


def test_a_ring_marks_the_epoch_that_the_run_kept(tmp_path):
    lines = read_metrics(RECORD)
    kept = json.loads((RECORD / "result.json").read_text(encoding="utf-8"))["selected_epoch"]
    assert chosen_epoch(lines) == kept == 29
    assert headline(lines) == "30 epochs; kept (dotted line): epoch 29, the best on validation, 88.79% accuracy"
    write_metrics(tmp_path / "run", *lines)
    hints = ["".join(ring.itertext()) for ring in elements(draw_curves(tmp_path / "run"), "circle", "ring")]
    assert hints == ["validation: 0.5525 at epoch 29", "validation: 88.79 at epoch 29"]


def test_the_metric_of_another_task_has_its_name():
    scores = {f"val_{name}": 0.5 for name in PartScores.titles}
    lines = [metrics_line(1, val_loss=1.0, **scores)]
    metric = next(iter(PartScores.titles.values()))
    assert training_charts(lines)[1].title == f"accuracy in training and {metric} on validation, %"
    assert headline(lines).endswith(f"50.00% {metric}")


@pytest.mark.parametrize(
    ("val", "wanted"),
    [
        ([(0.5, 1.0), (0.7, 1.0), (0.6, 0.1)], 2),
        ([(0.5, 1.0), (0.7, 0.9), (0.7, 0.8)], 3),  # alike: the lower loss
        ([(0.7, 0.8), (0.7, 0.8), (0.6, 0.8)], 2),  # alike in both: the later
        ([(0.7, math.nan), (0.7, 0.8), (0.7, math.nan)], 2),
    ],
)
def test_the_chosen_epoch_is_chosen_as_the_loop_does(val, wanted):
    lines = [metrics_line(i + 1, val_overall_accuracy=a, val_loss=b) for i, (a, b) in enumerate(val)]
    assert chosen_epoch(lines) == wanted
    assert chosen_epoch([metrics_line(1), metrics_line(2), metrics_line(3)]) == 3


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_run_of_any_length_is_drawn_and_twice_the_same(tmp_path, count):
    write_metrics(tmp_path, *[metrics_line(epoch) for epoch in range(1, count + 1)])
    path = draw_curves(tmp_path)
    assert path == tmp_path / "curves.svg"
    first = path.read_bytes()
    assert len(elements(path, "circle", "dot")) == 4 * count
    assert "nan" not in first.decode()
    assert draw_curves(tmp_path).read_bytes() == first


def test_a_folder_of_any_name_is_drawn(tmp_path):
    name = "椅子 <script>&\x1b $x_1 $"
    write_metrics(tmp_path / name, metrics_line(1))
    (title,) = elements(draw_curves(tmp_path / name), "text", "title")
    assert title.text == name.replace("\x1b", "�")


WRONG = '{"epoch": 1, "num_points": 64, "lr": "fast", "train_loss": null, "train_accuracy": 0.5}\n'


@pytest.mark.parametrize("content", ["", "{", "3\n", '{"epoch": 1}\n', "null\n", WRONG, "[" * 100_000])
def test_damaged_metrics_are_one_clear_line(tmp_path, content):
    with pytest.raises(ValueError, match="metrics.jsonl: "):
        draw_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match="metrics.jsonl: damaged"):
        draw_curves(tmp_path)
    assert not (tmp_path / "curves.svg").exists()


def test_a_run_ends_with_its_curves_also_when_resumed_and_ends_well_without(tmp_path, capsys, monkeypatch):
    out = tmp_path / "x"
    assert train.main([*ON_SAMPLES, "--out", str(out)]) == 0
    assert "curves.svg" in capsys.readouterr().out
    (out / "curves.svg").unlink()
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert (out / "curves.svg").is_file()
    monkeypatch.setattr(train, "draw_curves", Mock(side_effect=OSError("disk full")))
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert "no curves: disk full" in capsys.readouterr().out


@needs_chromium
def test_a_browser_shows_the_file_on_white_with_ink_in_every_chart(tmp_path):
    write_metrics(tmp_path / "run", *read_metrics(RECORD))
    seen = visit(draw_curves(tmp_path / "run"), tmp_path, (1010, 545))
    assert (seen.console, seen.requests) == ([], [])
    assert (seen.picture[5, 5] == 1).all()
    for rows in (slice(100, 300), slice(380, 480)):
        for columns in (slice(80, 470), slice(570, 960)):
            chart = seen.picture[rows, columns]
            assert 0.01 < (np.ptp(chart, axis=2) + (1 - chart).max(2) > 0.3).mean() < 0.2
