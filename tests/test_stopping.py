"""A run stops anywhere and goes on exactly: killed, ended by a signal, or with its last checkpoint damaged."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pointnet.training import Stopped, fit
from pointnet.training.checkpoint import load_checkpoint, save_checkpoint
from pointnet.training.stopping import signals_deferred
from pointnet.world import World
from tests.forms import forms
from tests.helpers import ROOT, assert_ends_as, quiet, tiny, two_shapes
from tests.stopped import fit_until_stopped

DATA, TEST = two_shapes(per_class=6), two_shapes(per_class=6, seed=1)
SETTINGS = {"epochs": 2, "batch_size": 2, "ema": 0.9, "jitter": 0.01}
STEPS = 4  # per epoch, of 8 clouds


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, one_thread):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    fit(tiny(out, **SETTINGS), DATA, TEST, log=quiet)
    return out


@pytest.mark.parametrize("stop_at", forms([1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS], 1, STEPS))
def test_a_signal_between_any_two_steps_is_answered_and_the_run_goes_on(unbroken, tmp_path, stop_at, monkeypatch):
    config = tiny(tmp_path / "run", **SETTINGS)
    before = signal.getsignal(signal.SIGTERM)
    fit_until_stopped(config, stop_at, monkeypatch, DATA)
    assert signal.getsignal(signal.SIGTERM) is before
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert saved["epoch"] * STEPS + saved["position"] == stop_at
    fit(config, DATA, TEST, resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", unbroken)


OPTIONS = {
    "published": {"optimizer": "adam", "schedule": "step", "decay_epochs": 1, "norm_decay_rate": 0.5, "rotate": 180.0},
    "repeated": {"min_steps": 7, "class_weights": "balanced"},
    "taught": {"teacher": ("one", "two"), "distill": 0.7, "point_dropout": 0.5, "mirror": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_with_each_option_stopped_within_an_epoch_ends_as_the_unbroken_one(options, tmp_path, monkeypatch):
    config = tiny(tmp_path / "unbroken", **SETTINGS | OPTIONS[options])
    if config.teacher:
        config = dataclasses.replace(config, teacher=tuple(str(tmp_path / name) for name in config.teacher))
        for seed, name in enumerate(config.teacher):
            fit(tiny(name, epochs=1, seed=seed, input_transform=bool(seed)), DATA, log=quiet)
    fit(config, DATA, log=quiet)
    config = dataclasses.replace(config, out=str(tmp_path / "run"))
    fit_until_stopped(config, STEPS + 1 if config.min_steps > 1 else 3, monkeypatch, DATA)
    torch.manual_seed(7)
    fit(config, DATA, resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", tmp_path / "unbroken")


@pytest.fixture
def interrupts():
    """SIGINT raises KeyboardInterrupt, although a shell starts programs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_at_once_and_another_thread_takes_none(interrupts):
    with signals_deferred(World()) as check:
        check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped, match="stopped by SIGINT, and saved"):
            check()
    inside = []

    def enter():
        with signals_deferred(World()):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGINT)]


@pytest.mark.slow
def test_the_command_saves_says_how_to_go_on_and_ends_with_the_signals_code(tmp_path):
    out = Path("runs", "modelnet40-1")  # as --out is where it is not given
    command = [sys.executable, ROOT / "train.py", "--dataset", "modelnet40", "--root", ROOT / "data" / "samples"]
    command += ["--epochs", "500", "--batch_size", "8", "--num_points", "64", "--early_points", "0", "--width", "0.1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "/500 " not in process.stdout.readline():  # an epoch's row
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)  # seconds on a quiet machine
    assert process.returncode == 128 + signal.SIGTERM
    assert said.strip() == f"stopped; to continue: python train.py --resume --out {out}"
    assert load_checkpoint(tmp_path / out / "checkpoint.pt")["epoch"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0005, 0.01, 0.05])
def test_a_second_interrupt_while_the_command_ends_shows_no_traceback(tmp_path, gap):
    words = ["--dataset", "modelnet40", "--root", "data/samples", "--num_points", "64", "--batch_size", "8"]
    words += ["--epochs", "999", "--width", "0.1", "--early_points", "0", "--out", str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT, **pipes)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(gap)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said


def test_a_checkpoint_that_was_cut_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {"weight": torch.randn(10, 10)}, "epoch": 3})
    good = path.read_bytes()
    for size in (0, 1, 100, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match="damaged or not a checkpoint"):
            load_checkpoint(path)
    path.write_bytes(good)
    assert load_checkpoint(path)["epoch"] == 3


def test_what_may_be_code_in_a_checkpoint_is_refused_in_one_plain_line(tmp_path):
    """PyTorch's own error says in bold how to run it."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": Path("x")})
    with pytest.raises(
        ValueError, match="checkpoint.pt: damaged or not a checkpoint: it holds what may be code"
    ) as error:
        load_checkpoint(path)
    assert str(error.value).isprintable()


def test_a_write_that_fails_leaves_the_last_checkpoint_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"\(No space left on device\); there is none yet"):
            save_checkpoint(path, {"epoch": 1})
    save_checkpoint(path, {"epoch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="the one before it is still good"):
            save_checkpoint(path, {"epoch": 2})
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"bad": lambda: 0})
    assert load_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
