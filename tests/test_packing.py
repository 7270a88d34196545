"""Packing: stopped anywhere, of every task, with bad files; damage of a packed set is found."""

import dataclasses
import errno
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch

from pointnet import __main__ as command_line
from pointnet import load_model, predict
from pointnet.commands import train
from pointnet.datasets import LabelledClouds, LabelledPoints, open_dataset, packing, shards
from pointnet.datasets.clouds import AS_GIVEN
from pointnet.datasets.packed import open_packed
from pointnet.datasets.packing import pack_split
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.files import read_json, write_json
from pointnet.training.loader import StreamedLoader
from tests.helpers import QUICK, error_of, pack, two_shapes
from tests.own_points import make_object, save, write_objects, write_yards
from tests.packs import assert_same_clouds, packed_pair

CPU = torch.device("cpu")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_packing_stopped_anywhere_goes_on_to_the_same_bytes(tmp_path, small_shards, monkeypatch):
    data = two_shapes(per_class=15)  # six shards: no processes are started
    pack(data, tmp_path / "whole")
    written, write = [], packing.write_atomically

    def until_full(path, content, **how):
        if len(written) == stop:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content, **how)
        written.append(path.name)

    for stop in (0, 3, 6):
        with monkeypatch.context() as patch:
            patch.setattr(packing, "write_atomically", until_full)
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
        patch.setattr(packing, "write_atomically", until_full)
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
    monkeypatch.setattr(packing, "on_all_cores", map)
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
    capsys.readouterr()
    assert run("evaluate", tmp_path / "run", "--dataset", "folder", "--root", root) == 0
    assert run("evaluate", tmp_path / "run", "--dataset", "packed", "--root", out) == 0
    assert "trained on" not in capsys.readouterr().err
    assert "leave out the features" in error_of(
        capsys, train.main, [*words[:-1], str(tmp_path / "b"), "--features", "normals"]
    )
    assert "no such folder" in error_of(
        capsys, train.main, ["--dataset", "packed", "--root", str(tmp_path / "none"), *QUICK]
    )
    assert "is packed already" in error_of(capsys, run, "pack", out, tmp_path / "x", "--dataset", "packed")


@pytest.mark.slow
def test_columns_by_hand_are_packed_for_the_networks_contract(tmp_path, capsys):
    root, out = tmp_path / "own", tmp_path / "out"
    for name in ("pin", "table"):
        for i in range(6):
            save(root / name / f"{i}.xyz", make_object(name, i)[:, [2, 1, 0]])
    assert run("pack", root, out, "--num_points", 64, "--columns", "z,y,x") == 0
    words = ["--dataset", "packed", "--root", str(out), *QUICK, "--out", str(tmp_path / "run")]
    assert train.main(words) == 0
    packed, told = load_model(tmp_path / "run"), open_dataset("folder", root, "train", 64, columns="z,y,x")
    assert packed.preprocessing["columns"] == told.columns == "z,y,x"
    for i in range(6):  # as if the names were not told, the cloud stands on another axis
        turned = predict(root / "pin" / f"{i}.xyz", packed, columns="x,y,z").probabilities
        assert predict(root / "pin" / f"{i}.xyz", packed).probabilities != turned
    index = read_json(out / "train" / "index.json")
    del index["columns"]  # as sets that were packed before
    write_json(out / "train" / "index.json", index)
    assert open_packed(out, "train", 64).columns == ""


@pytest.mark.slow
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
    found, wanted = (contract_of_data(data, num_points=64) for data in (got, scenes))
    half_precise = {"heights": wanted.heights, "ground": wanted.ground}
    for name, value in half_precise.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-3)
    assert dataclasses.replace(found, **half_precise) == wanted
    with pytest.raises(ValueError, match="was packed with blocks of 2, not of 3; pack it anew"):
        open_packed(tmp_path / "b", "train", 64, "scene", block=3.0)


def assert_same_clouds_by_root(got: LabelledPoints, data: LabelledPoints, root: Path) -> None:
    place = {name: i for i, name in enumerate(packing.names_of(data, root))}
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
    wanted = contract_of_data(data, num_points=32)
    assert (contract.extents, contract.reach) == (wanted.extents, wanted.reach)
    assert wanted.reach > 0
    assert got.fingerprint() != got.subset(torch.arange(5)).fingerprint()


def test_the_folder_may_be_moved(tmp_path):
    pack(two_shapes(), tmp_path / "out")
    before = open_packed(tmp_path / "out", "train", 32).fingerprint()
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert open_packed(tmp_path / "moved", "train", 32).fingerprint() == before
