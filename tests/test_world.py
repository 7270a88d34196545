"""Several processes of torchrun train one model as a single process would.

`python -m tests.test_world FOLDER` is what each of two processes runs; it leaves what it found in FOLDER.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pointnet import world as world_module
from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.tasks import TASKS
from pointnet.models import load_model
from pointnet.training import fit, run
from pointnet.training.checkpoint import load_checkpoint
from pointnet.training.fit import check_trainable
from pointnet.training.run import Run
from pointnet.training.run_folder import write_config
from pointnet.world import AgreedError, World, agree_on_start, is_lost_process, joined_world
from tests.helpers import assert_equal_states, halves, quiet, tiny, two_shapes

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
TRAINED = ["classification", "part"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}
EXACT = {"epochs": 3, "batch_size": 5, "optimizer": "sgd", "lr": 0.02, "clip": 1.0, "ema": 0.9, "val_fraction": 0.2}
NOTHING_RANDOM = {"scale": 1.0, "shift": 0.0, "jitter": 0.0, "early_points": 0}


def fit_without_dropout(out: Path, task: str = "classification") -> dict:
    """Trains with nothing random but the order; in float64 but for the loss, so that roundings stay small."""
    # All points at a step: which are left out is random.
    make = two_shapes if task == "classification" else partial(halves, task, points=32)
    settings = {"task": task, "width": 1.0 if task == "classification" else 0.1, **EXACT, **NOTHING_RANDOM}

    def start(*arguments, start=Run.start):
        run = start(*arguments)
        for part in run.model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        return run

    torch.set_default_dtype(torch.float64)
    try:
        in_float64 = patch.object(
            sys.modules["pointnet.training.fit"], "load_model", lambda folder: load_model(folder).double()
        )
        with patch.object(Run, "start", start), in_float64:
            return fit(tiny(out, **settings), make(), make(seed=1), log=quiet)
    finally:
        torch.set_default_dtype(torch.float32)


def main(folder: Path) -> None:
    with joined_world("cpu") as world:
        results = {task: fit_without_dropout(folder / task, task) for task in TRAINED}
        errors = []
        for failing in (0, 1):
            try:
                with world.together(), world.one_by_one():
                    if world.rank == failing:
                        raise OSError(f"rank {failing} cannot")
            except AgreedError as error:
                errors.append(str(error))
        not_finite = two_shapes()
        not_finite.points[:] = torch.nan
        full = Mock(side_effect=OSError("the disk is full"))  # which rank 0 alone writes to
        for data in (two_shapes(seed=world.rank), not_finite, two_shapes()):
            try:
                with patch.object(run, "save_checkpoint", full) if len(errors) == 4 else nullcontext():
                    fit(tiny(folder / f"run{len(errors)}"), data, log=quiet)
            except AgreedError as error:
                errors.append(str(error))
    threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    found = {"world": [world.rank, world.size], "results": results, "errors": errors}
    found["left"] = [name for name in threads if "gloo" in name]
    (folder / f"rank{world.rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(the folder that two processes trained in, what each of them found)."""
    folder = tmp_path_factory.mktemp("pair")
    command = [*TORCHRUN, "-m", "tests.test_world", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=QUIET, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("task", TRAINED)
def test_two_processes_end_with_the_weights_of_one_with_the_same_batches(pair, tmp_path, task):
    folder, (first, second) = pair
    assert first["world"] == [0, 2]
    assert second["world"] == [1, 2]
    result = fit_without_dropout(tmp_path / "one", task)
    assert first["results"][task]["test"] == second["results"][task]["test"]
    chooser = next(iter(TASKS[task].titles))
    for part, name in (("test", "count"), ("test", chooser), ("val", chooser)):
        assert first["results"][task][part][name] == pytest.approx(result[part][name], rel=1e-12)
    one, two = (load_checkpoint(run / "checkpoint.pt") for run in (tmp_path / "one", folder / task))
    for state in ("model", "averaged"):
        for name, wanted in one[state].items():
            torch.testing.assert_close(two[state][name], wanted, rtol=1e-5, atol=1e-6, msg=name)
    for line, other in zip(one["history"], two["history"], strict=True):
        for name in ("train_loss", "train_accuracy", f"val_{chooser}", "val_loss"):
            assert other[name] == pytest.approx(line[name], rel=1e-5)


def test_what_fails_on_one_fails_on_all_in_the_same_words(pair):
    _, (first, second) = pair
    assert first["errors"] == second["errors"]
    assert first["errors"][:2] == ["rank 0 cannot", "rank 1 cannot"]
    assert first["errors"][2].startswith("the processes of the run do not have the same data")
    assert first["errors"][3].startswith("epoch 1: 12 of 12 steps skipped, not finite: samples no. 0 (disc)")
    assert first["errors"][4:] == ["the disk is full"]


def test_nothing_of_the_group_outlives_it(pair):
    """Threads of gloo that live on abort the process at its end, now and then."""
    _, found = pair
    assert [each["left"] for each in found] == [[], []]


def command(out: Path, *more: str) -> list[str]:
    sample = ["--dataset", "modelnet40", "--root", "data/samples", "--num_points", "64", "--batch_size", "8"]
    sample += ["--early_points", "0", "--epochs", "12", "--ema", "0.9"]
    sample += ["--input_transform", "false", "--feature_transform", "false"]
    return [*TORCHRUN, "--max_restarts=1", "train.py", *sample, "--out", str(out), *more]


def wait_for_epochs(out: Path, count: int, process: subprocess.Popen) -> None:
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert process.poll() is None, "\n".join(process.communicate())
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_killed_rank_is_restarted_and_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(whole), cwd=ROOT, env=QUIET, check=True, capture_output=True, timeout=120)

    process = subprocess.Popen(
        command(broken), cwd=ROOT, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_epochs(broken, 2, process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    wait_for_epochs(broken, 6, process)
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.count("16 to train on") == 2  # once more after the restart
    assert "another process of the run is gone" in complained
    assert "stopped; to go on: torchrun as before, with train.py --resume --out" in complained
    assert load_checkpoint(broken / "checkpoint.pt")["epoch"] < 12

    done = subprocess.run(command(broken, "--resume"), cwd=ROOT, env=QUIET, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test: ") == 1
    one, other = (load_checkpoint(out / "checkpoint.pt") for out in (whole, broken))
    assert_equal_states(other["model"], one["model"])
    assert_equal_states(other["averaged"], one["averaged"])
    assert_equal_states(load_model(broken).state_dict(), load_model(whole).state_dict())


def test_what_cannot_start_is_said_once_and_a_restart_does_not_go_on_with_the_run_of_another(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    words = command(tmp_path / "run")
    done = subprocess.run(words, cwd=ROOT, env=QUIET, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert len(said) == 1
    assert "already holds a run" in said[0]


def test_a_restart_goes_on_with_what_it_began_and_nothing_else(tmp_path):
    began = parse_command(["--dataset", "shapes", "--out", str(tmp_path), "--lr", "0.003"])
    assert not train.began_here(began)
    write_config(tmp_path, began.config)
    assert not train.began_here(began)
    (tmp_path / "checkpoint.pt").touch()
    assert train.began_here(began)
    other = dataclasses.replace(began.config, lr=0.004)
    assert not train.began_here(began._replace(config=other))


def starts(store, ranks, size):
    """What each of these ranks, started at once on one store, takes as the number of the start."""
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(lambda rank: agree_on_start(store, rank, size), ranks))


def test_all_processes_take_the_same_number_whatever_earlier_ones_left_behind():
    store = dist.HashStore()
    for count, size in enumerate((3, 1, 5, 2), 1):
        assert starts(store, range(size), size) == [count] * size
        # a process of this start came up again for the next one, and was gone before it was answered
        store.set(f"asks-{size - 1}", "gone")
        store.set("asks-4", "gone too")
    assert starts(store, reversed(range(5)), 5) == [5] * 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_in_vain_for_the_others_says_so(rank, monkeypatch):
    monkeypatch.setattr(world_module, "MUSTER", timedelta(seconds=0.1))
    with pytest.raises(RuntimeError) as caught:
        agree_on_start(dist.HashStore(), rank, 2)
    assert is_lost_process(caught.value)


def test_each_process_needs_a_cloud_of_every_batch(tmp_path):
    with pytest.raises(ValueError, match="a step has 2 clouds, and each of 3 processes needs one; more --batch_size"):
        check_trainable(two_shapes(), tiny(tmp_path, batch_size=2), World(0, 3))


def test_under_torchrun_the_run_folder_must_be_named(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(train, "joined_world", lambda device: nullcontext(World()))
    assert train.main(["--dataset", "shapes"]) == 2
    assert "under torchrun --out is needed" in capsys.readouterr().err


def test_a_process_on_its_own_is_a_world_of_one():
    world = World.current()
    assert (world, world.writes, world.gather("mine"), world.largest(3)) == (World(0, 1), True, ["mine"], 3)
    tensor = torch.ones(2)
    world.add_up([tensor])
    world.take_from_first([tensor])
    assert tensor.tolist() == [1, 1]
    with pytest.raises(OSError, match="as it came"), world.together():
        raise OSError("as it came")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
