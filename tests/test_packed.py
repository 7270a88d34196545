"""Packed sets: every cloud once and as it was, the same run from shards as ever again, and damage that is found."""

import dataclasses
import errno
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.datasets import LabelledClouds, LabelledPoints, open_dataset, packed, shards, split_validation
from pointnet.datasets.clouds import AS_GIVEN, UNLABELLED
from pointnet.datasets.packed import open_packed
from pointnet.datasets.shards import halved_clouds, keys_of, pack_split
from pointnet.evaluation.contract import contract_of_data
from pointnet.evaluation.evaluate import evaluate
from pointnet.files import read_json, write_json
from pointnet.models import load_model
from pointnet.training import fit
from pointnet.training.checkpoint import load_checkpoint
from pointnet.training.loader import StreamedLoader, cut_batches
from pointnet.training.run import epoch_order
from tests.helpers import QUICK, assert_ends_as, error_of, halves, pack, quiet, tiny, two_shapes
from tests.own_points import write_objects, write_yards
from tests.test_stopping import fit_until_stopped

CPU = torch.device("cpu")
EACH = 3 * 32 * 2  # bytes of a cloud of `two_shapes` in half precision


@pytest.fixture
def small_shards(monkeypatch):
    """Five clouds a shard, three shards mixed at a time."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * EACH)
    monkeypatch.setattr(packed, "WINDOW", 3)


def packed_pair(out: Path, **options) -> tuple[LabelledClouds, LabelledClouds]:
    """Training and test split of `two_shapes`, from shards."""
    pack(two_shapes(**options), out)
    pack(two_shapes(**options, seed=1), out, "test")
    return open_packed(out, "train", 32), open_packed(out, "test", 32)


def assert_same_clouds(got: LabelledClouds, data: LabelledClouds, lost: float = 1e-3) -> None:
    """Each cloud once, with its own label, and its points where they were, but for a share of its width."""
    assert len(got) == len(data)
    names = [got.name_of(i) for i in range(len(got))]
    place = {name: i for i, name in enumerate(shards.names_of(data, Path("/")))}
    assert sorted(names) == sorted(place)
    rows = torch.tensor([place[name] for name in names])
    points, labels = got.batch(torch.arange(len(got)))
    wanted, wanted_labels = data.batch(rows)
    assert torch.equal(labels, wanted_labels)
    assert (points - wanted).abs().max() <= lost * wanted.abs().max()
    assert got.classes == data.classes


def test_a_packed_set_has_each_cloud_once_as_it_was(tmp_path, small_shards):
    data = two_shapes(per_class=12)
    result = pack(data, tmp_path / "out")
    assert (result.clouds, result.shards, result.half) == (24, 5, 5)
    assert 0 < result.moved < 1e-3
    got = open_packed(tmp_path / "out", "train", 20)
    assert_same_clouds(got, data)
    assert got[3][0].shape == (3, 20)
    assert torch.equal(got.points[3], got.batch(torch.tensor([3]))[0][0])
    part = got.subset(torch.tensor([7, 2])).subset(torch.tensor([1]))
    assert torch.equal(part.points[0], got.points[2])
    assert part.name_of(0) == got.name_of(2)
    assert contract_of_data(got, num_points=20) == contract_of_data(data, num_points=20)
    number, array = 0, np.load(tmp_path / "out/train/shard-00000.npy")
    assert torch.equal(torch.from_numpy(array).float(), got.points[number : len(array)])


@pytest.mark.parametrize("task", ["part", "scene"])
def test_labels_of_points_are_packed_exactly(tmp_path, task):
    data = halves(task)
    data.channel_names, data.scale, data.centre = tuple("xyza"), "unit sphere", True
    pack_split(data, tmp_path / "train", task, tmp_path)
    got = open_packed(tmp_path, "train", 32, task)
    assert isinstance(got, LabelledPoints)
    assert_same_clouds(got, data)
    assert got.part_names == data.part_names
    assert torch.equal(got.parts_of, data.parts_of)
    points, parts, _ = got[5]
    assert torch.equal(points[3].long(), parts)
    with pytest.raises(ValueError, match=f"was packed for the task {task}; give --task {task}"):
        open_packed(tmp_path, "train", 32)


CASES = {
    "in the unit sphere": (lambda x: x, True),
    "far away": (lambda x: x + 8, False),
    "as wide as far away": (lambda x: 1000 * x, True),
    "too large for half precision": (lambda x: 1e5 * x, False),
    "one point": (lambda x: x[:, :, :1] * 0, True),
}


@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_for_clouds_that_keep_their_shape(case):
    change, enough = CASES[case]
    clouds = change(two_shapes().points).numpy()
    halved, moved = halved_clouds(clouds, labelled=False)
    assert (halved is not None) == enough
    if halved is not None:
        lost = np.abs(halved.astype(np.float64) - clouds)
        assert lost.max() <= 1e-3 * max(np.ptp(clouds, axis=2).max(1).min(), 0)
        assert moved <= 1e-3


def test_half_precision_changes_no_label_and_no_feature_much():
    clouds = np.random.default_rng(0).random((4, 5, 30), np.float32)
    clouds[:, 4] = 2048
    assert halved_clouds(clouds, labelled=True)[0] is not None
    for label in (2049, UNLABELLED, -1 - 4097):
        clouds[1, 4, 2] = label
        assert halved_clouds(clouds, labelled=True)[0] is None
    clouds[:, 4], clouds[:, 3] = 0, 1000 + clouds[:, 3]
    assert halved_clouds(clouds, labelled=True)[0] is None, "an intensity that differs little"
    clouds[:, 3], clouds[0, 0, 0] = 0, np.nan
    assert halved_clouds(clouds, labelled=True)[0] is None, "not a number is kept as it is, and training reports it"


@pytest.mark.slow
def test_half_precision_changes_no_answer_of_shipped_weights(tmp_path):
    data, model = open_dataset("shapes", tmp_path / "data", "test", 1024), load_model("pointnet_shapes")
    few = data.subset(torch.arange(0, len(data), 25))
    pack(few, tmp_path / "out", "test")
    got = open_packed(tmp_path / "out", "test", 1024)
    assert evaluate(model, got)["overall_accuracy"] == evaluate(model, few)["overall_accuracy"]


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_has_every_cloud_once_and_mixes_a_few_shards_at_a_time(clouds, size, window, seed):
    class Set(packed._Packed):
        def __init__(self):
            parts = [range(i, min(i + size, clouds)) for i in range(0, clouds, size)]
            entries = [shards.Shard(f"{i}", len(part), 0, 0) for i, part in enumerate(parts)]
            self._hold(shards.Shards(None, entries, (3, 4)), torch.zeros(clouds).long(), ["one"], 4)

    data, before = Set(), packed.WINDOW
    packed.WINDOW = window
    try:
        order = epoch_order(data, 7, seed)
        assert torch.equal(order, epoch_order(data, 7, seed))
    finally:
        packed.WINDOW = before
    assert order.sort().values.tolist() == list(range(clouds))
    numbers = data._stored.numbers_of(order.numpy()).tolist()
    first, last = {n: numbers.index(n) for n in numbers}, {n: i for i, n in enumerate(numbers)}
    for at in range(clouds):
        assert sum(first[n] <= at <= last[n] for n in first) <= window


def test_orders_of_epochs_and_seeds_differ(tmp_path, small_shards):
    data, _ = packed_pair(tmp_path / "out")
    orders = [epoch_order(data, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_and_workers_read_each_cloud_of_an_epoch_once(tmp_path, small_shards, ranks):
    data, _ = packed_pair(tmp_path / "out")
    order = epoch_order(data, 0, 0)
    seen = []
    for rank in range(ranks):
        wanted = cut_batches(order, 6, rank, ranks)
        one, four = (list(StreamedLoader(data, CPU, workers).batches(wanted)) for workers in (1, 4))
        for (points, labels), (others, their_labels), rows in zip(one, four, wanted, strict=True):
            assert torch.equal(points, others)
            assert torch.equal(points, data.points[rows])
            assert torch.equal(labels, their_labels)
        seen += torch.cat(list(wanted)).tolist()
    assert sorted(seen) == list(range(len(data)))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_stopped_within_an_epoch_ends_as_the_unbroken_one_whatever_the_workers(
    tmp_path, small_shards, workers, monkeypatch
):
    data, test = packed_pair(tmp_path / "out", per_class=12)
    how = {"epochs": 2, "batch_size": 4, "ema": 0.9, "jitter": 0.01, "feed": "stream"}
    fit(tiny(tmp_path / "unbroken", **how), data, test, log=quiet)
    config = tiny(tmp_path / "run", **how, workers=workers)
    fit_until_stopped(config, 2, monkeypatch, data)
    torch.manual_seed(5)
    again = open_packed(tmp_path / "out", "train", 32), open_packed(tmp_path / "out", "test", 32)
    fit(dataclasses.replace(config, workers=4 - workers), *again, resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", tmp_path / "unbroken")
    fit(tiny(tmp_path / "resident", **how | {"feed": "resident"}), data, test, log=quiet)
    assert_ends_as(tmp_path / "resident", tmp_path / "unbroken")


def test_a_checkpoint_within_an_epoch_does_not_grow_with_its_order(tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", epochs=1, batch_size=2)
    fit_until_stopped(config, 2, monkeypatch)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["each"][0]["progress"]
    assert "broken" in saved
    assert "order" not in saved


def test_validation_is_chosen_by_the_name_alone(tmp_path, small_shards):
    few, many = two_shapes(per_class=8), two_shapes(per_class=40)
    for data, name in ((few, "few"), (many, "many")):
        of_class = [0, 0]
        data.files = []
        for label in data.labels.tolist():
            data.files.append(tmp_path / data.classes[label] / f"{of_class[label]}.off")
            of_class[label] += 1
        pack(data, tmp_path / name)
    opened = [open_packed(tmp_path / name, "train", 32) for name in ("few", "many")]
    held = []
    for data in opened:
        ours, val = split_validation(data, 3, 0.3)
        assert len(ours) + len(val) == len(data)
        assert {val.name_of(i) for i in range(len(val))} == {
            split_validation(data, 4, 0.3)[1].name_of(i) for i in range(len(val))
        }
        held.append({val.name_of(i) for i in range(len(val))})
        places = val._rows.tolist()
        assert places == list(range(len(val))), "they are in the first shards"
    names = {opened[0].name_of(i) for i in range(len(opened[0]))}
    assert names & held[1] == held[0]
    assert 0.15 < len(held[1]) / 80 < 0.45
    assert all(keys_of([name])[0] < 0.3 * 2**64 for name in held[1])


def test_a_set_with_a_validation_split_of_its_own_keeps_it(tmp_path, small_shards):
    data = two_shapes(per_class=8)
    data.validation = torch.arange(16) % 5 == 0
    pack(data, tmp_path / "out")
    _, val = split_validation(open_packed(tmp_path / "out", "train", 32), 0, 0.1)
    assert {val.name_of(i).split(".")[-1] for i in range(len(val))} == {" 0", " 5", " 10", " 15"}


def test_rooms_are_held_out_whole(tmp_path):
    data = halves("scene")
    data.classes, data.labels = tuple(f"room {i}" for i in range(8)), torch.arange(32) % 8
    data.parts_of = torch.ones(8, 4, dtype=torch.bool)
    data.channel_names, data.scale, data.centre = tuple("xyza"), "blocks", False
    pack_split(data, tmp_path / "train", "scene", tmp_path)
    ours, val = split_validation(open_packed(tmp_path, "train", 32, "scene"), 0, 0.4)
    assert len(val)
    assert not set(ours.labels.tolist()) & set(val.labels.tolist())


# Writing.


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_packing_stopped_anywhere_goes_on_to_the_same_bytes(tmp_path, small_shards, monkeypatch):
    data = two_shapes(per_class=15)  # six shards: no processes are started
    pack(data, tmp_path / "whole")
    written, write = [], shards.write_atomically

    def until_full(path, content, **how):
        if len(written) == stop:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content, **how)
        written.append(path.name)

    for stop in (0, 3, 6):
        with monkeypatch.context() as patch:
            patch.setattr(shards, "write_atomically", until_full)
            with pytest.raises(OSError, match="No space left"):
                pack(data, tmp_path / "out")
        assert not (tmp_path / "out/train/index.json").exists()
        with pytest.raises(ValueError, match=r"holds no train/index.json: no train split was packed here, or not to"):
            open_packed(tmp_path / "out", "train", 32)
        assert len(written) == stop
        if stop == 3:  # what is there is kept, if it is undamaged
            (tmp_path / "out/train/shard-00001.npy").write_bytes(b"damaged")
            written.remove("shard-00001.npy")
        written, before = written[:], len(written)
        del written[before:]
    with monkeypatch.context() as patch:
        stop = -1
        patch.setattr(shards, "write_atomically", until_full)
        written.clear()
        pack(data, tmp_path / "out")
    assert written == ["samples.npy"]
    assert contents(tmp_path / "out/train") == contents(tmp_path / "whole/train")


@pytest.mark.parametrize("change", [(b'"half"', b'"hall"'), (b"true", b"null"), (b"}", b"{"), (b"descr", b"desc\xff")])
def test_of_an_earlier_call_a_shard_that_is_damaged_anywhere_is_written_again(tmp_path, change):
    data, path = two_shapes(per_class=6), tmp_path / "out/train/shard-00000.npy"
    pack(data, tmp_path / "out")
    good = path.read_bytes()
    path.write_bytes(good.replace(*change))
    assert path.read_bytes() != good
    pack(data, tmp_path / "out")
    assert path.read_bytes() == good


def test_on_several_processes_the_same_bytes_are_packed(tmp_path, small_shards, monkeypatch):
    data = two_shapes(per_class=50)
    pack(data, tmp_path / "many")
    monkeypatch.setattr(shards, "on_all_cores", map)
    pack(data, tmp_path / "one")
    assert len(contents(tmp_path / "one/train")) == 22
    assert contents(tmp_path / "many/train") == contents(tmp_path / "one/train")


def test_a_folder_of_another_set_is_refused_and_a_stale_shard_is_not_believed(tmp_path, small_shards):
    pack(two_shapes(per_class=10), tmp_path / "out")
    with pytest.raises(ValueError, match="already holds another packed set"):
        pack(two_shapes(per_class=10, seed=2), tmp_path / "out")
    (tmp_path / "out/train/index.json").unlink()  # as if it had been stopped
    data = two_shapes(per_class=8, seed=2)
    pack(data, tmp_path / "out")
    assert_same_clouds(open_packed(tmp_path / "out", "train", 32), data)
    assert len(list((tmp_path / "out/train").glob("shard-*"))) == 4


def test_fewer_points_may_be_packed(tmp_path):
    pack(of_points(two_shapes(), 16), tmp_path / "out", count=20)
    assert open_packed(tmp_path / "out", "train", 16).points.shape[2] == 20
    for count in (8, 33):
        with pytest.raises(ValueError, match=f"points must be 16 to 32, as many as are stored of a cloud, got {count}"):
            pack(of_points(two_shapes(), 16), tmp_path / "other", count=count)
    with pytest.raises(ValueError, match="num_points must be 1 to 20, as many as were packed, got 21"):
        open_packed(tmp_path / "out", "train", 21)


def of_points(data: LabelledClouds, num_points: int) -> LabelledClouds:
    return LabelledClouds(data.points, data.labels, data.classes, num_points)


# Damage.


@pytest.mark.parametrize("name", ["index.json", "samples.npy", "shard-00001.npy"])
@pytest.mark.parametrize("flips", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_file_is_found(tmp_path, small_shards, name, flips):
    pack(two_shapes(per_class=8), tmp_path / "out")
    path, generator = tmp_path / "out/train" / name, random.Random(0)
    good = path.read_bytes()
    for _ in range(flips):
        damaged = bytearray(good)
        damaged[generator.randrange(len(good))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises((OSError, ValueError), match=name) as raised:
            open_packed(tmp_path / "out", "train", 32).batch(torch.arange(16))
        assert len(str(raised.value).splitlines()) == 1
    path.write_bytes(good)
    open_packed(tmp_path / "out", "train", 32).batch(torch.arange(16))


def test_a_shard_that_is_cut_or_taken_away_while_it_is_read_is_an_error_in_one_line(tmp_path, small_shards):
    pack(two_shapes(per_class=8), tmp_path / "out")
    data, path = open_packed(tmp_path / "out", "train", 32), tmp_path / "out/train/shard-00000.npy"
    data.batch(torch.arange(5))
    os.truncate(path, 500)
    batches = StreamedLoader(data, CPU).batches([torch.arange(5)])
    with pytest.raises(ValueError, match=r"could not be read: .*shard-00000.npy: ends too early"):
        next(batches)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="is a folder, not a file"):
        open_packed(tmp_path / "out", "train", 32).batch(torch.arange(5))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(OSError, match="is a pipe, not a file"):
        open_packed(tmp_path / "out", "train", 32).batch(torch.arange(5))


LIES = {
    "no classes": {"classes": None},
    "fewer classes": {"classes": ["disc"]},
    "another version": {"version": 9},
    "a shard elsewhere": {"shards": [["../../secret.npy", 16, 10, 0]]},
    "a shard of nothing": {"shards": [["shard-00000.npy", -1, 10, 0]]},
    "more clouds": {"shards": [["shard-00000.npy", 10**15, 10, 0]]},
    "huge clouds": {"shape": [3, 10**12]},
    "no shape": {"shape": "none"},
    "a word for a list": {"parts_of": "x", "part_names": 3},
    "no samples": {"samples": [0, 0, 0]},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_refused_in_one_line(tmp_path, small_shards, lie):
    pack(two_shapes(per_class=8), tmp_path / "out")
    path = tmp_path / "out/train/index.json"
    write_json(path, read_json(path) | LIES[lie])
    with pytest.raises((OSError, ValueError)) as raised:
        open_packed(tmp_path / "out", "train", 32).batch(torch.arange(16))
    assert len(str(raised.value).splitlines()) == 1


def test_few_files_are_open_at_once(tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(shards, "OPEN", 2)
    data, _ = packed_pair(tmp_path / "out")
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    loaded = list(StreamedLoader(data, CPU, 4).batches(torch.randperm(48).split(8)))
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert sum(len(labels) for _, labels in loaded) == 48


# By the command line.


def run(*words: object) -> int:
    return command_line.main([*map(str, words)])


def test_a_folder_is_packed_trained_on_and_evaluated_and_bad_files_are_listed(tmp_path, capsys):
    root, out = write_objects(tmp_path / "own", count=8), tmp_path / "out"
    (root / "pin" / "bad.ply").write_text("nonsense")
    assert run("pack", root, out, "--num_points", 64, "--keep", 100) == 1
    said = capsys.readouterr().out
    assert "1 file skipped:" in said
    assert f"{root / 'pin' / 'bad.ply'}: " in said
    assert f"train.py --dataset packed --root {out} --task classification --num_points 64" in said
    assert run("pack", root, out, "--num_points", 64, "--keep", 100) == 1
    data = open_packed(out, "train", 64)
    assert data.points.shape == (12, 3, 100)
    assert {data.name_of(i).split("/")[0] for i in range(12)} == {"pin", "table"}
    words = ["--dataset", "packed", "--root", str(out), *QUICK, "--out", str(tmp_path / "run")]
    assert train.main(words) == 0
    assert run("evaluate", tmp_path / "run") == 0
    assert run("evaluate", tmp_path / "run", "--dataset", "folder", "--root", root) == 0
    assert run("evaluate", tmp_path / "run", "--dataset", "packed", "--root", out) == 0
    capsys.readouterr()
    assert "leave out the features" in error_of(
        capsys, train.main, [*words[:-1], str(tmp_path / "b"), "--features", "normals"]
    )
    assert "no such folder" in error_of(
        capsys, train.main, ["--dataset", "packed", "--root", str(tmp_path / "none"), *QUICK]
    )
    assert "is packed already" in error_of(capsys, run, "pack", out, tmp_path / "x", "--dataset", "packed")


def test_parts_and_scenes_are_packed_with_all_that_a_network_learns_of_them(tmp_path, capsys):
    objects, yards = write_objects(tmp_path / "objects"), write_yards(tmp_path / "yards")
    assert run("pack", objects, tmp_path / "a", "--dataset", "parts", "--task", "part", "--num_points", 64) == 0
    how = ["--dataset", "scenes", "--task", "scene", "--num_points", 64, "--features", "intensity", "--block", 2]
    assert run("pack", yards, tmp_path / "b", *how) == 0
    parts = open_dataset("parts", objects, "train", 64, task="part")
    assert_same_clouds_by_root(open_packed(tmp_path / "a", "train", 64, "part"), parts, objects)
    scenes = open_dataset("scenes", yards, "train", 64, task="scene", features="intensity", block=2.0)
    got = open_packed(tmp_path / "b", "train", 64, "scene")
    assert_same_clouds_by_root(got, scenes, yards)
    assert contract_of_data(got, num_points=64) == contract_of_data(scenes, num_points=64)
    with pytest.raises(ValueError, match="was packed with blocks of 2; leave out --block"):
        open_packed(tmp_path / "b", "train", 64, "scene", block=3.0)


def assert_same_clouds_by_root(got: LabelledPoints, data: LabelledPoints, root: Path) -> None:
    place = {name: i for i, name in enumerate(shards.names_of(data, root))}
    rows = torch.tensor([place[got.name_of(i)] for i in range(len(got))])
    points, wanted = got.batch(torch.arange(len(got)))[0], data.batch(rows)[0]
    assert len(rows) == len(data)
    assert torch.equal(points[:, -1], wanted[:, -1])
    assert (points - wanted).abs().max() <= 1e-3 * wanted.abs().max()
    assert (got.part_names, got.label_numbers, got.classes) == (data.part_names, data.label_numbers, data.classes)


def test_clouds_in_units_that_matter_are_not_measured_again(tmp_path, monkeypatch):
    data = two_shapes()
    data.channel_names, data.scale, data.centre = tuple("xyz"), AS_GIVEN, False
    pack_split(data, tmp_path / "train", "classification", tmp_path)
    got = open_packed(tmp_path, "train", 32)
    monkeypatch.setattr(shards.Shards, "__getitem__", lambda *_: pytest.fail("a shard was read"))
    contract = contract_of_data(got, num_points=32)
    assert (contract.scale, contract.centre) == (AS_GIVEN, False)
    assert got.fingerprint() != got.subset(torch.arange(5)).fingerprint()


def test_the_folder_may_be_moved(tmp_path):
    pack(two_shapes(), tmp_path / "out")
    before = open_packed(tmp_path / "out", "train", 32).fingerprint()
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert open_packed(tmp_path / "moved", "train", 32).fingerprint() == before
