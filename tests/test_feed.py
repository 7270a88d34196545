"""From a data set to batches: the same ones however they are fed, every sample once; and a run on one's own files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet.datasets import LabelledClouds, LabelledPoints, split_validation
from pointnet.evaluation.evaluate import evaluate
from pointnet.models import load_model
from pointnet.training import feed, fit
from pointnet.training.feed import ResidentFeed, StreamedFeed, cut_batches, make_feed
from pointnet.training.run import augment
from tests.helpers import SHARED_DATA, assert_equal_states, quiet, tiny, two_shapes, weights

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def mapped(tmp_path: Path, samples: int = 11, kept: int = 20) -> LabelledClouds:
    """Clouds in a memory-mapped file, more points kept than used; cloud i is full of i."""
    points = np.lib.format.open_memmap(tmp_path / "points.npy", "w+", np.float32, (samples, 3, kept))
    points[:] = np.arange(samples)[:, None, None]
    return LabelledClouds(torch.from_numpy(points), torch.arange(samples) % 2, ["even", "odd"], num_points=8)


def test_more_points_may_be_kept_than_are_used(tmp_path):
    data = mapped(tmp_path)
    assert data[3][0].shape == (3, 8)
    part = data.subset(torch.tensor([7, 2, 5]))
    assert [float(part[i][0].mean()) for i in range(3)] == [7, 2, 5]
    assert part.subset(torch.tensor([1])).points.mean() == 2
    points, labels = part.batch(torch.tensor([0, 2]))
    assert points.shape == (2, 3, 20)
    assert (points[:, 0, 0].tolist(), labels.tolist()) == ([7, 5], [1, 1])
    assert part.num_points == 8
    with pytest.raises(ValueError, match="num_points must be 1 to 20, got 21"):
        LabelledClouds(data.points, data.labels, data.classes, num_points=21)


@pytest.mark.parametrize("make", [ResidentFeed, StreamedFeed, lambda data, device: StreamedFeed(data, device, 0)])
def test_every_feed_gives_the_batches_asked_for_epoch_after_epoch(tmp_path, make):
    data = mapped(tmp_path).subset(torch.arange(10, -1, -1))
    fed = make(data, CPU)
    for seed in range(3):
        order = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
        batches = list(fed.batches(cut_batches(order, 4)))
        assert [len(labels) for _, labels in batches] == [4, 4, 3]
        assert [int(x) for points, _ in batches for x in points[:, 0, 0]] == (10 - order).tolist()
        assert [int(y) for _, labels in batches for y in labels] == ((10 - order) % 2).tolist()


@pytest.mark.parametrize("make", [ResidentFeed, StreamedFeed])
def test_labels_of_points_are_fed_among_their_channels(make):
    stored = torch.randint(-5, 5, (11, 4, 20)).float()
    data = LabelledPoints(stored, torch.arange(11) % 2, ["even", "odd"], list("abcde")).subset(torch.arange(10, -1, -1))
    fed = make(data, CPU)
    ((points, labels),) = fed.batches([torch.tensor([0, 3])])
    assert torch.equal(points, stored[[10, 7]])
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("samples", "batch_size"), [(11, 4), (64, 32), (2, 2), (65, 32)])
def test_ranks_share_every_batch_and_take_each_sample_once(samples, batch_size, ranks):
    order = torch.randperm(samples)
    shares = [cut_batches(order, batch_size, rank, ranks) for rank in range(ranks)]
    assert torch.cat([torch.cat(list(share)) for share in shares]).sort().values.tolist() == list(range(samples))
    for parts in zip(*shares, strict=True):  # a step's parts are its global batch, and as even as can be
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    whole = cut_batches(order, batch_size)
    assert [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)] == [batch.tolist() for batch in whole]


def test_what_fits_is_resident_and_what_does_not_is_streamed(tmp_path, monkeypatch):
    data = mapped(tmp_path)
    size = data.points.nbytes
    for free, kind in ((2 * size, ResidentFeed), (2 * size - 1, StreamedFeed)):
        monkeypatch.setattr(feed, "free_memory", lambda device, free=free: free)
        assert type(make_feed(data, CPU)) is kind
        assert type(make_feed(data, CPU, "resident")) is ResidentFeed
        assert type(make_feed(data, CPU, "stream")) is StreamedFeed


def test_free_memory_is_read_or_taken_to_be_there(tmp_path, monkeypatch):
    assert feed.free_memory(CPU) > 0
    for name, size in (("memory.max", 5000), ("memory.current", 3000)):
        (tmp_path / name).write_text(f"{size}\n")
    monkeypatch.setattr(feed, "CGROUP", tmp_path)
    assert feed.free_memory(CPU) == 2000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert feed.free_memory(CPU) == 500
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    (tmp_path / "memory.max").write_text("max\n")
    assert feed.free_memory(CPU) > 2000
    monkeypatch.setattr(feed.Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert feed.free_memory(CPU) == float("inf")


def test_a_run_ends_with_the_same_weights_however_it_is_fed(tmp_path):
    for kind in ("resident", "stream"):
        fit(tiny(tmp_path / kind, epochs=2, feed=kind), two_shapes(), log=quiet)
    assert_equal_states(weights(tmp_path / "stream"), weights(tmp_path / "resident"))


def test_training_draws_from_all_points_and_evaluation_takes_the_first(tmp_path):
    base = two_shapes(points=64)
    data = LabelledClouds(base.points, base.labels, base.classes, num_points=32)
    fit(tiny(tmp_path / "all", epochs=2), data, data, log=quiet)
    first = LabelledClouds(base.points[:, :, :32], base.labels, base.classes)
    fit(tiny(tmp_path / "first", epochs=2), first, log=quiet)
    one, other = (weights(tmp_path / name) for name in ("all", "first"))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    model = load_model(tmp_path / "all")
    assert evaluate(model, data) == evaluate(model, first)
    assert evaluate(model, split_validation(data, 0)[1])["count"] == 4


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    def stop(metrics):
        raise KeyboardInterrupt

    data = two_shapes()
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(tmp_path), data, log=quiet, after_epoch=stop)
    swapped = LabelledClouds(data.points, 1 - data.labels, data.classes)
    renamed = LabelledClouds(data.points, data.labels, ["disc", "stick"])
    moved = LabelledClouds(data.points + 1, data.labels, data.classes)
    for other in (swapped, renamed, moved):
        with pytest.raises(
            ValueError, match="the run had data [0-9a-f]{16}, got [0-9a-f]{16}; it cannot go on with that"
        ):
            fit(tiny(tmp_path), other, resume=True, log=quiet)
    fit(tiny(tmp_path), data, resume=True, log=quiet)


def test_normals_are_turned_with_their_points_in_training():
    x = torch.randn(4, 3, 16).repeat(1, 2, 1)
    config = tiny("unused", normals=True, rotate=180.0, scale=1.0, shift=0.0)
    y = augment(x, config, torch.Generator().manual_seed(0))
    assert not torch.equal(y, x)
    torch.testing.assert_close(y[:, 3:], y[:, :3])
    stretched = augment(x, tiny("unused", normals=True, scale=1.5, shift=0.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(stretched[:, 3:].norm(dim=1), torch.ones(4, 16))


def resampled_by_class(folder: Path) -> Path:
    """A folder of the few real meshes, each class given several times, so that there is something to learn."""
    meshes = SHARED_DATA / "modelnet_off_samples" / "ModelNet40"
    if not meshes.is_dir():
        pytest.skip(f"needs {meshes}")
    for mesh in meshes.rglob("*.off"):
        name = mesh.parent.parent.name
        if name in ("chair", "person", "table", "airplane"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(10):
                shutil.copy(mesh, folder / name / f"{mesh.stem}_{i}.off")
    (folder / "chair" / "broken.off").write_text("OFF\n9 9 9\n0 0 0\n")
    return folder


def test_a_classifier_is_trained_on_a_folder_of_real_meshes_from_the_command_line(tmp_path):
    root, out = resampled_by_class(tmp_path / "my_meshes"), tmp_path / "run"
    command = [
        sys.executable,
        "train.py",
        "--dataset",
        "folder",
        "--root",
        str(root),
        "--out",
        str(out),
        "--epochs",
        "12",
    ]
    command += ["--num_points", "128", "--early_points", "0", "--batch_size", "8", "--rotate", "20", "--scale", "1.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\n1 file skipped; listed at the end\n" in "\n" + done.stdout
    assert "\n1 file skipped:\n" in done.stdout
    assert "broken.off: declares 9 vertices" in done.stdout
    assert json.loads((out / "result.json").read_text())["test"]["overall_accuracy"] > 0.6
    model = load_model(out)
    assert model.classes == ("airplane", "chair", "person", "table")
    again = [
        sys.executable,
        "-m",
        "pointnet",
        "evaluate",
        str(out),
        "--dataset",
        "folder",
        "--root",
        str(root),
        "--json",
    ]
    said = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (
        json.loads(said)["overall_accuracy"]
        == json.loads((out / "result.json").read_text())["test"]["overall_accuracy"]
    )
    strict = subprocess.run([*command, "--strict"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert strict.returncode == 2
    assert strict.stderr.startswith("train.py: error: ")
    assert strict.stderr.count("\n") == 1
