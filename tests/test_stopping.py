"""A run stops anywhere and goes on exactly: killed, told to end, or with its last checkpoint damaged."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pointnet.datasets import LabelledClouds
from pointnet.models import load_model
from pointnet.training import Stopped, fit, run
from pointnet.training.checkpoint import load_checkpoint, save_checkpoint
from pointnet.training.feed import StreamedFeed
from tests.helpers import assert_equal_states, quiet, tiny, two_shapes

ROOT = Path(__file__).parents[1]
SETTINGS = {"epochs": 3, "batch_size": 2, "ema": 0.9, "jitter": 0.01}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A forked process cannot use its parent's thread pool, and sums differ with the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, one_thread):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("unbroken") / "run"
    fit(tiny(out, **SETTINGS), two_shapes(), two_shapes(seed=1), log=quiet)
    return out


def assert_ends_as(out, unbroken):
    one, other = (load_checkpoint(folder / "checkpoint.pt") for folder in (out, unbroken))
    assert_equal_states(one["model"], other["model"])
    assert_equal_states(one["averaged"], other["averaged"])
    assert_equal_states(load_model(out).state_dict(), load_model(unbroken).state_dict())
    for ours, theirs in zip(one["each"], other["each"], strict=True):
        assert_equal_states(ours["random"], theirs["random"])


def go_on(out):
    torch.set_num_threads(1)
    resume = (out / "checkpoint.pt").exists()
    fit(tiny(out, **SETTINGS), two_shapes(), two_shapes(seed=1), resume=resume, log=quiet)


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_killed_at_any_moment_again_and_again_it_ends_as_the_unbroken_run(unbroken, tmp_path, feed):
    """As often as KILLS says (20): the long form is KILLS=200 python -m pytest tests/test_stopping.py."""
    moments, context = random.Random(0), multiprocessing.get_context("fork")
    kills, runs = int(os.environ.get("KILLS", "20")) // 2, 0
    while kills > 0:
        out, runs = tmp_path / f"run{runs}", runs + 1
        ended = False
        while not ended:
            process = context.Process(target=go_on, args=(out,))
            process.start()
            process.join(moments.uniform(0.05, 0.6) if kills > 0 else None)
            ended = process.exitcode is not None
            if not ended:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                kills -= 1
        assert process.exitcode == 0
        assert_ends_as(out, unbroken)


@pytest.mark.parametrize("stop_at", [1, 7, 18, 19, 20, 36])
def test_a_signal_between_any_two_steps_is_answered_and_the_run_goes_on_from_there(
    unbroken, tmp_path, stop_at, monkeypatch
):
    steps = []

    def send(*arguments, step=run.Run.step, **options):
        steps.append(step(*arguments, **options))
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return steps[-1]

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "step", send)
        with pytest.raises(Stopped) as stopped:
            fit(tiny(tmp_path / "run", **SETTINGS), two_shapes(), log=quiet)
    assert stopped.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert (saved["epoch"], saved["position"]) in (divmod(stop_at, 18), (stop_at // 18 - 1, 18))
    fit(tiny(tmp_path / "run", **SETTINGS), two_shapes(), two_shapes(seed=1), resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", unbroken)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_saves_says_how_to_go_on_and_ends_with_the_signals_code(tmp_path, number, code):
    out = Path("runs", "modelnet40-1")  # as --out is where it is not given
    command = [sys.executable, ROOT / "train.py", "--dataset", "modelnet40", "--root", ROOT / "data" / "samples"]
    command += ["--epochs", "500", "--batch_size", "8", "--num_points", "64", "--early_points", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.stdout.readline()[:5] != "epoch":
        assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=30)  # seconds on a quiet machine
    assert process.returncode == code
    assert said.strip() == f"stopped; to go on: python train.py --resume --out {out}"
    assert load_checkpoint(tmp_path / out / "checkpoint.pt")["epoch"] >= 1


def test_a_flipped_bit_in_a_checkpoint_is_noticed_a_thousand_times_of_a_thousand(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {"weight": torch.randn(50, 50)}, "epoch": 3})
    good, flips = path.read_bytes(), random.Random(0)
    for _ in range(1000):
        damaged = bytearray(good)
        damaged[flips.randrange(len(good))] ^= 1 << flips.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or not a checkpoint"):
            load_checkpoint(path)
    path.write_bytes(good)
    assert load_checkpoint(path)["epoch"] == 3


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"no checkpoint could be written \(No space left on device\); there is none yet"):
        save_checkpoint(path, {"epoch": 1})
    monkeypatch.undo()
    save_checkpoint(path, {"epoch": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="the one before it is still good"):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


class Deadly(LabelledClouds):
    """Its sample 5 kills whoever reads it."""

    def batch(self, indices):
        if 5 in indices.tolist():
            time.sleep(0.3)  # so that what was read before has been sent
            os._exit(1)
        return super().batch(indices)


def test_a_worker_that_dies_ends_the_run_naming_the_samples():
    base = two_shapes()
    feed = StreamedFeed(Deadly(base.points, base.labels, base.classes), torch.device("cpu"), 1)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a worker died \(out of memory\?\) while it read samples \[4, 5, 6\]: "):
        list(feed.batches([torch.tensor([0, 1]), torch.tensor([4, 5, 6])]))
    assert time.monotonic() - start < 30


def test_a_worker_that_dies_while_a_step_runs_does_not_break_the_step():
    base = two_shapes()
    feed = StreamedFeed(Deadly(base.points, base.labels, base.classes), torch.device("cpu"), 1)
    batches = feed.batches([torch.tensor([0, 1]), torch.tensor([5])])
    next(batches)
    end = time.monotonic() + 10
    while any(process.is_alive() for process in multiprocessing.active_children()) and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(ValueError, match="a worker died"):
        next(batches)
