"""Curves and scalars: they show what metrics.jsonl holds, are no part of a run, and say what they need."""

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import train
from pointnet.evaluation.tasks import TASKS
from pointnet.extras import MissingExtraError
from pointnet.training import curves
from pointnet.training import tensorboard as scalars
from pointnet.training.curves import chosen_epoch, draw_curves, read_metrics
from pointnet.training.tensorboard import TAGS, ScalarLog
from tests.helpers import QUICK, SAMPLES, error_of

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "records" / "modelnet40_dev_seed0"
SMALL = ["--dataset", "modelnet40", "--root", SAMPLES, *QUICK]


def line(epoch: int, **more) -> dict:
    """A line of metrics.jsonl, without validation unless `more` has it."""
    known = {"epoch": epoch, "num_points": 64, "lr": 1e-3, "train_loss": 3 / epoch, "train_accuracy": 1 - 1 / epoch}
    return {**known, "seconds": 1.5, "samples_per_second": 20.0, **more}


def write_metrics(folder, *lines) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    with path.open("rb") as file:
        return imread(file, format="png")


def panels(folder) -> dict:
    """The panels of a folder's picture by their titles."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    curves.fill_figure(figure, read_metrics(folder), "name")
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def drawn(axes, label: str) -> tuple[list, list]:
    curve = next(each for each in axes.lines if each.get_label() == label)
    return list(curve.get_xdata()), list(curve.get_ydata())


def test_the_curves_are_the_lines_of_the_metrics():
    lines = read_metrics(RECORD)
    epochs = list(range(1, 31))
    found = panels(RECORD)
    assert list(found)[:2] == ["loss", "accuracy, %"]
    loss, accuracy, rate, points = found.values()
    assert drawn(loss, "train (while learning)") == (epochs, [each["train_loss"] for each in lines])
    assert drawn(loss, "validation") == (epochs, [each["val_loss"] for each in lines])
    assert drawn(accuracy, "validation") == (epochs, [100 * each["val_overall_accuracy"] for each in lines])
    assert list(rate.lines[-1].get_ydata()) == [each["lr"] for each in lines]
    assert list(points.lines[-1].get_ydata()) == [256] * 24 + [1024] * 6


def test_a_ring_marks_the_epoch_that_the_run_kept():
    kept = json.loads((RECORD / "result.json").read_text(encoding="utf-8"))["selected_epoch"]
    assert chosen_epoch(read_metrics(RECORD)) == kept == 29
    rings = [each for each in panels(RECORD)["accuracy, %"].lines if each.get_marker() == "o"]
    assert [list(ring.get_xdata()) for ring in rings] == [[29]]
    assert rings[0].get_ydata()[0] == pytest.approx(88.786, abs=1e-3)


@pytest.mark.parametrize(
    ("val", "wanted"),
    [
        ([(0.5, 1.0), (0.7, 1.0), (0.6, 0.1)], 2),
        ([(0.5, 1.0), (0.7, 0.9), (0.7, 0.8)], 3),  # alike: the lower loss
        ([(0.7, 0.8), (0.7, 0.8), (0.7, 0.8)], 1),  # alike in both: the first
    ],
)
def test_the_chosen_epoch_is_chosen_as_the_loop_does(val, wanted):
    lines = [line(i + 1, val_overall_accuracy=a, val_loss=b) for i, (a, b) in enumerate(val)]
    assert chosen_epoch(lines) == wanted
    assert chosen_epoch([line(1), line(2), line(3)]) == 3


def test_a_picture_is_drawn_of_any_run_and_twice_the_same(tmp_path):
    pytest.importorskip("matplotlib")
    for count in (1, 2, 7):
        write_metrics(tmp_path, *[line(epoch) for epoch in range(1, count + 1)])
        path = draw_curves(tmp_path)
        assert path == tmp_path / "curves.png"
        first = path.read_bytes()
        picture = pixels(path)
        assert picture.shape == (696, 1200, 4)
        assert 0.5 < (picture[..., :3] == 1).mean() < 0.99, "neither empty nor full"
        assert draw_curves(tmp_path).read_bytes() == first


def test_an_epoch_that_skipped_steps_is_an_epoch(tmp_path):
    skipped = line(2, skipped_steps=1, steps=9, broken_samples=[3, 40])
    write_metrics(tmp_path, line(1), skipped)
    assert read_metrics(tmp_path) == [line(1), skipped]


def test_a_folder_of_any_name_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    write_metrics(
        tmp_path / "椅子 $x_1 $", line(1, val_overall_accuracy=0.5, val_loss=1.0, val_mean_class_accuracy=0.5)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_curves(tmp_path / "椅子 $x_1 $").stat().st_size > 1000


WRONG = '{"epoch": 1, "num_points": 64, "lr": "fast", "train_loss": null, "train_accuracy": 0.5}\n'


@pytest.mark.parametrize("content", ["", "{", "3\n", '{"epoch": 1}\n', "null\n", WRONG])
def test_damaged_metrics_are_one_clear_line(tmp_path, content):
    with pytest.raises(ValueError, match="no metrics here"):
        draw_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match="metrics.jsonl: damaged"):
        draw_curves(tmp_path)
    assert not (tmp_path / "curves.png").exists()


def test_a_run_ends_with_its_curves_and_so_does_a_resumed_one(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "x"
    assert train.main([*SMALL, "--out", str(out)]) == 0
    assert "curves.png" in capsys.readouterr().out
    assert (out / "curves.png").is_file()
    (out / "curves.png").unlink()
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert (out / "curves.png").is_file()


def test_without_matplotlib_a_run_ends_well_and_says_how_to_get_curves(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    out = tmp_path / "x"
    assert train.main([*SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    said = [each for each in printed.out.splitlines() if "curves" in each]
    wanted = "no curves: drawing curves.png needs matplotlib: pip install 'pointnet-shared-mlp[view]'"
    assert said == [wanted]
    assert "test: " in printed.out
    assert printed.err == ""
    assert not (out / "curves.png").exists()


def test_a_run_whose_curves_cannot_be_drawn_still_ends_well(tmp_path, capsys, monkeypatch):
    def fail(folder):
        raise OSError("disk full")

    monkeypatch.setattr(train, "draw_curves", fail)
    assert train.main([*SMALL, "--out", str(tmp_path / "x")]) == 0
    assert "no curves: disk full" in capsys.readouterr().out


def test_without_tensorboard_nothing_begins_and_one_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    out = tmp_path / "x"
    said = error_of(capsys, train.main, [*SMALL, "--tensorboard", "--out", str(out)])
    assert said == "train.py: error: --tensorboard needs tensorboard: pip install 'pointnet-shared-mlp[tensorboard]'"
    assert not out.exists()
    with pytest.raises(MissingExtraError, match=r"pip install 'pointnet-shared-mlp\[tensorboard\]'"):
        ScalarLog(out)


class Writer:
    """Stands in for TensorBoard's writer, and remembers what it was told."""

    def __init__(self):
        self.told = []

    def add_scalar(self, tag, value, step):
        self.told.append((tag, value, step))

    def flush(self):
        pass


def test_every_figure_is_written_once_by_the_epoch_whatever_was_there_before(tmp_path, monkeypatch):
    monkeypatch.setattr(scalars, "check_tensorboard", lambda: None)
    monkeypatch.setattr(ScalarLog, "open", lambda self: Writer())
    lines = [line(1), line(2), line(3, val_overall_accuracy=0.25)]
    log = ScalarLog(tmp_path)
    write_metrics(tmp_path, *lines[:2])
    log(lines[1])  # resumed after the first epoch
    write_metrics(tmp_path, *lines)
    log(lines[2])
    assert [each for each in log.writer.told if each[0] == "loss/train"] == [
        ("loss/train", each["train_loss"], each["epoch"]) for each in lines
    ]
    assert ("accuracy/validation", 0.25, 3) in log.writer.told
    assert len({(tag, step) for tag, _, step in log.writer.told}) == len(log.writer.told)


def test_every_figure_of_a_run_has_a_tag():
    titles = [f"val_{name}" for task in TASKS.values() for name in task.titles]
    assert set(read_metrics(RECORD)[0]) - {"epoch"} | set(titles) == set(TAGS)
    assert len(set(TAGS.values())) == len(TAGS)


def test_tensorboard_reads_each_epoch_once_also_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not part of the extra test: it pulls grpcio")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [line(epoch) for epoch in (1, 2, 3)]
    for count in (1, 2, 3):  # three processes, each stopped after an epoch
        write_metrics(tmp_path, *lines[:count])
        log = ScalarLog(tmp_path)
        log(lines[count - 1])
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss/train")
    assert [(event.step, round(event.value, 4)) for event in events] == [(1, 3.0), (2, 1.5), (3, 1.0)]


def command(*words) -> list[str]:
    return [sys.executable, "train.py", *SMALL, *words]


def test_output_in_a_file_has_a_line_an_epoch_and_no_bars(tmp_path):
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            command("--out", str(tmp_path / "x"), "--epochs", "3"), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    printed = (tmp_path / "log").read_text(encoding="utf-8")
    assert done.returncode == 0, printed
    assert "\r" not in printed
    assert "it/s" not in printed
    assert "%|" not in printed
    assert sum(each.startswith("epoch ") and "clouds/s" in each for each in printed.splitlines()) == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_runs_and_is_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert train.main([*SMALL, "--out", str(tmp_path / "x")]) == 0
    shown = sys.stderr.getvalue()
    assert "epoch 1/1" in shown
    assert shown.split("\r")[-2].strip() == "", "the bar is wiped"
    assert shown.endswith("\r")
