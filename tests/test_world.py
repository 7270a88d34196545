"""Several processes, as torchrun starts them, train one model as a single process would.

`python -m tests.test_world FOLDER` is what each of two processes runs; it leaves what it found in FOLDER.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
import torch

from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.datasets import packing
from pointnet.datasets.packed import open_packed
from pointnet.evaluation.tasks import TASKS
from pointnet.models import load_model
from pointnet.training import fit, run
from pointnet.training.checkpoint import load_checkpoint
from pointnet.training.data import check_trainable
from pointnet.training.run_folder import write_config
from pointnet.world import AgreedError, World, joined_world
from tests.helpers import ROOT, assert_ends_as, halves, pack, quiet, tiny, two_shapes
from tests.own_points import some_labels

# Runs and their tasks.
TRAINED = dict.fromkeys(("classification", "frozen", "packed", "taught"), "classification")
TRAINED |= dict.fromkeys(("part", "unlabelled"), "part")
EXACT = {
    "epochs": 2,
    "min_steps": 5,
    "batch_size": 5,
    "optimizer": "sgd",
    "lr": 0.02,
    "clip": 1.0,
    "ema": 0.9,
    "val_fraction": 0.2,
}
NOTHING_RANDOM = {"scale": 1.0, "shift": 0.0, "jitter": 0.0, "early_points": 0, "dropout": 0.0}


def fit_exactly(out: Path, name: str, folder: Path) -> dict:
    """Trains with nothing random but the order; in float64 but for the loss, so that roundings stay small. A frozen
    encoder is that of the classifier in the folder, which is a teacher too, and packed clouds are in shards there."""
    first = str(folder / "classification")
    starts = {"frozen": {"init": first, "freeze": True}, "taught": {"teacher": (first,)}}
    task, start = TRAINED[name], starts.get(name, {})
    make = two_shapes if task == "classification" else partial(halves, task, points=32)
    loading = [f"pointnet.training.{module}.load_model" for module in ("fit", "teacher")]
    torch.set_default_dtype(torch.float64)
    try:
        data = make(per_class=8), make(per_class=8, seed=1)
        if name == "packed":
            data = tuple(open_packed(folder / "shards", split, 32) for split in ("train", "test"))
            start = {"feed": "stream", "workers": 2}
        if name == "unlabelled":  # most points of a few clouds, with each part of the loss
            start = {"overlap": 0.5, "feature_transform": True, "label_smoothing": 0.1}
            data = tuple(some_labels(each) for each in data)
        with ExitStack() as stack:
            for each in loading:
                stack.enter_context(patch(each, lambda folder, **how: load_model(folder, **how).double()))
            return fit(tiny(out, task=task, **EXACT, **NOTHING_RANDOM, **start), *data, log=quiet)
    finally:
        torch.set_default_dtype(torch.float32)


def pack_shapes(out: Path, per_class: int) -> None:
    """Both splits of `two_shapes`, a few clouds a shard."""
    with patch.object(packing, "SHARD_BYTES", 5 * 3 * 32 * 2):
        for seed, split in enumerate(("train", "test")):
            pack(two_shapes(per_class=per_class, seed=seed), out, split)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined_world("cpu") as world:
        results = {name: fit_exactly(folder / name, name, folder) for name in TRAINED}
        errors = []
        for failing in (0, 1):
            try:
                with world.together(), world.one_by_one():
                    if world.rank == failing:
                        raise OSError(f"rank {failing} cannot")
            except AgreedError as error:
                errors.append(str(error))
        data = two_shapes(per_class=8)
        not_finite = two_shapes(per_class=8)
        not_finite.points[:] = torch.nan
        full = Mock(side_effect=OSError("the disk is full"))  # which rank 0 alone writes to
        for each in (two_shapes(per_class=8, seed=world.rank), not_finite, data):
            try:
                with patch.object(run, "save_checkpoint", full) if each is data else nullcontext():
                    fit(tiny(folder / f"run{len(errors)}", epochs=1, skip_limit=2), each, log=quiet)
            except AgreedError as error:
                errors.append(str(error))
    threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    found = {"world": [world.rank, world.size], "results": results, "errors": errors}
    found["left"] = [name for name in threads if "gloo" in name]
    (folder / f"rank{world.rank}.json").write_text(json.dumps(found))


def start_pair(*words: object) -> list[subprocess.Popen]:
    """Two processes with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    env |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "tests"}
    command = [sys.executable, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))
    return [subprocess.Popen(command, cwd=ROOT, env=env | rank, **pipes) for rank in ranks]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(the folder that two processes trained in, what each of them found)."""
    folder = tmp_path_factory.mktemp("pair")
    pack_shapes(folder / "shards", 12)
    processes = start_pair("-m", "tests.test_world", folder)
    complaints = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(complaints)
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_end_with_the_weights_of_one_with_the_same_batches(pair, tmp_path, name):
    folder, (first, second) = pair
    assert first["world"] == [0, 2]
    assert second["world"] == [1, 2]
    result = fit_exactly(tmp_path / "one", name, folder)
    assert first["results"][name]["test"] == second["results"][name]["test"]
    chooser = TASKS[TRAINED[name]].chooser
    for split, key in (("test", "count"), ("test", chooser), ("val", chooser)):
        assert first["results"][name][split][key] == pytest.approx(result[split][key], rel=1e-12)
    one, two = (load_checkpoint(run / "checkpoint.pt") for run in (tmp_path / "one", folder / name))
    for state in ("model", "averaged"):
        for key, wanted in one[state].items():
            torch.testing.assert_close(two[state][key], wanted, rtol=1e-5, atol=1e-6, msg=key)
    for line, other in zip(one["history"], two["history"], strict=True):
        for key in ("train_loss", "train_accuracy", f"val_{chooser}", "val_loss"):
            assert other[key] == pytest.approx(line[key], rel=1e-5)


@pytest.mark.slow
def test_what_fails_on_one_fails_on_all_in_the_same_words(pair):
    _, (first, second) = pair
    assert first["errors"] == second["errors"]
    assert first["errors"][:2] == ["rank 0 cannot", "rank 1 cannot"]
    assert first["errors"][2].startswith("the processes of the run do not have the same data")
    assert first["errors"][3].startswith("epoch 1: 4 of 4 steps skipped, not finite: samples no. 1 (disc)")
    assert first["errors"][4:] == ["the disk is full"]


@pytest.mark.slow
def test_nothing_of_the_group_outlives_it(pair):
    """Threads of gloo that live on abort the process at its end, now and then."""
    _, found = pair
    assert [each["left"] for each in found] == [[], []]


def command(out: Path, epochs: int, packed: Path | None = None) -> list[str]:
    sample = ["--dataset", "modelnet40", "--root", "data/samples", "--num_points", "64", "--batch_size", "8"]
    if packed:
        sample = ["--dataset", "packed", "--root", str(packed), "--num_points", "32", "--batch_size", "4"]
        sample += ["--feed", "stream", "--workers", "2"]
    sample += ["--early_points", "0", "--epochs", str(epochs), "--ema", "0.9", "--width", "0.1"]
    sample += ["--input_transform", "false", "--feature_transform", "false"]
    return ["train.py", *sample, "--out", str(out)]


def wait_for_epochs(out: Path, count: int, process: subprocess.Popen) -> None:
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert process.poll() is None, "\n".join(process.communicate())
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_which_says_so_in_one_line(tmp_path):
    first, second = start_pair(*command(tmp_path / "run", 2000))
    wait_for_epochs(tmp_path / "run", 1, first)
    second.kill()
    _, complaint = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "train.py: rank 0: another process of the run is gone" in complaint.splitlines()
    second.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("from_shards", [False, True])
def test_a_killed_rank_is_restarted_and_a_stopped_run_goes_on_to_the_same_weights(tmp_path, from_shards):
    whole, broken, packed = tmp_path / "whole", tmp_path / "broken", tmp_path / "shards" if from_shards else None
    if packed:
        pack_shapes(packed, 8)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max_restarts=1"]
    options = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}
    subprocess.run([*torchrun, *command(whole, 12, packed)], **options, check=True, capture_output=True, timeout=120)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*torchrun, *command(broken, 12, packed)], **options, **pipes)
    wait_for_epochs(broken, 2, process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    wait_for_epochs(broken, 6, process)
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=120)  # torchrun waits 30 s for each that does not end
    assert process.returncode != 0
    assert said.count(" to train on") == 2  # once more after the restart
    assert "another process of the run is gone" in complained
    assert "stopped; to continue: torchrun as before, with train.py --resume --out" in complained
    assert load_checkpoint(broken / "checkpoint.pt")["epoch"] < 12

    again = [*torchrun, *command(broken, 12, packed), "--resume"]
    done = subprocess.run(again, **options, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test: ") == 1
    assert_ends_as(broken, whole)


@pytest.mark.slow
def test_what_cannot_start_is_said_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    complaints = []
    for process in start_pair(*command(tmp_path / "run", 1)):
        complaints.append(process.communicate(timeout=120)[1].splitlines())
        assert process.returncode == 2
    assert [[line for line in lines if line.startswith("train.py: ")] for lines in complaints][1] == []
    assert "already holds a run" in complaints[0][-1]


def test_a_restart_goes_on_with_what_it_began_and_nothing_else(tmp_path):
    began = parse_command(["--dataset", "shapes", "--out", str(tmp_path), "--lr", "0.003"])
    assert not train.began_here(began)
    write_config(tmp_path, began.config)
    assert not train.began_here(began)
    (tmp_path / "checkpoint.pt").touch()
    assert train.began_here(began)
    other = dataclasses.replace(began.config, lr=0.004)
    assert not train.began_here(began._replace(config=other))


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
