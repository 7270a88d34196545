"""Scalars for TensorBoard are the lines of metrics.jsonl; progress is a line per epoch, or a bar on a terminal."""

import io
import re
import subprocess
import sys

import pytest

from pointnet.commands import train
from pointnet.training.tensorboard import ScalarLog
from tests.helpers import ON_SAMPLES, ROOT, error_of, metrics_line, write_metrics


def test_without_tensorboard_nothing_begins_and_one_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    out = tmp_path / "x"
    said = error_of(capsys, train.main, [*ON_SAMPLES, "--tensorboard", "--out", str(out)])
    assert said == "train.py: error: --tensorboard needs tensorboard: pip install tensorboard"
    assert not out.exists()


class Writer:
    """Stands in for TensorBoard's writer, and remembers what it was told."""

    def __init__(self):
        self.told = []

    def add_scalar(self, tag, value, step):
        self.told.append((tag, value, step))

    def flush(self):
        pass


def test_every_figure_is_written_once_by_the_epoch_whatever_was_there_before(tmp_path, monkeypatch):
    monkeypatch.setattr(ScalarLog, "open", lambda self: Writer())
    lines = [metrics_line(1), metrics_line(2), metrics_line(3, val_overall_accuracy=0.25)]
    log = ScalarLog(tmp_path)
    write_metrics(tmp_path, *lines[:2])
    log(lines[1])  # resumed after the first epoch
    write_metrics(tmp_path, *lines)
    log(lines[2])
    assert [each for each in log.writer.told if each[0] == "loss/train"] == [
        ("loss/train", each["train_loss"], each["epoch"]) for each in lines
    ]
    assert ("overall_accuracy/val", 0.25, 3) in log.writer.told
    assert {"loss/train", "accuracy/train", "lr", "seconds"} < {tag for tag, *_ in log.writer.told}
    assert len({(tag, step) for tag, _, step in log.writer.told}) == len(log.writer.told)


def test_tensorboard_reads_each_epoch_once_also_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not part of the extra test: it pulls grpcio")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [metrics_line(epoch) for epoch in (1, 2, 3)]
    for count in (1, 2, 3):  # three processes, each stopped after an epoch
        write_metrics(tmp_path, *lines[:count])
        log = ScalarLog(tmp_path)
        log(lines[count - 1])
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss/train")
    assert [(event.step, round(event.value, 4)) for event in events] == [(1, 3.0), (2, 1.5), (3, 1.0)]


def command(*words) -> list[str]:
    return [sys.executable, "train.py", *ON_SAMPLES, *words]


@pytest.mark.slow
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
    legend, *epochs = [line for line in printed.splitlines() if re.match(r"epoch  |\s*\d+/3 ", line)]
    assert legend.split()[:4] == ["epoch", "points", "loss", "train"]
    assert [line.split()[0] for line in epochs] == ["1/3", "2/3", "3/3"]
    assert all("%" in line and len(line) <= len(legend) <= 79 for line in epochs)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_runs_and_is_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert train.main([*ON_SAMPLES, "--out", str(tmp_path / "x")]) == 0
    shown = sys.stderr.getvalue()
    assert "epoch 1/1" in shown
    assert shown.split("\r")[-2].strip() == "", "the bar is wiped"
    assert shown.endswith("\r")
