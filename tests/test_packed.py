"""Packed sets: every cloud once and as it was, the same run from shards as ever again."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointnet.datasets import LabelledClouds, LabelledPoints, open_dataset, packed, shards, split_validation
from pointnet.datasets.packed import open_packed
from pointnet.datasets.packing import halved_clouds, keys_of, pack_split
from pointnet.datasets.point_labels import UNLABELLED
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.evaluation.evaluate import evaluate
from pointnet.models import load_model
from pointnet.training import fit
from pointnet.training.checkpoint import load_checkpoint
from pointnet.training.loader import StreamedLoader, cut_batches
from pointnet.training.progress import epoch_order
from tests.forms import forms
from tests.helpers import assert_ends_as, halves, pack, quiet, tiny, two_shapes
from tests.packs import assert_same_clouds, packed_pair
from tests.stopped import fit_until_stopped

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("workers", forms([1, 3], 3))
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
    fit_until_stopped(config, 2, monkeypatch, two_shapes(per_class=6))
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
    packed = open_packed(tmp_path, "train", 32, "scene")
    for fraction in (1e-6, 0.4, 0.999):  # at least one room, and never all
        ours, val = split_validation(packed, 0, fraction)
        assert 0 < len(val) < 32
        assert not set(ours.labels.tolist()) & set(val.labels.tolist())
    assert [len(part) for part in split_validation(packed.subset(torch.arange(0)), 0, 0.4)] == [0, 0]
    assert not len(split_validation(packed, 0, 0)[1])


@pytest.mark.parametrize("is_packed", [True, False])
def test_labels_of_points_are_numbered_as_a_network_has_them(tmp_path, is_packed):
    before = data = halves("part")
    if is_packed:
        data.channel_names, data.scale, data.centre = tuple("xyza"), "unit sphere", True
        pack_split(data, tmp_path / "train", "part", tmp_path)
        before, data = (open_packed(tmp_path, "train", 32, "part") for _ in range(2))
    (wanted, labels), parts = before.batch(slice(None)), before.parts
    data.number_as(["slab", "rod", "plate"], ["other", *reversed(data.part_names)])
    data.number_as(["rod", "slab", "plate", "pin"], data.part_names)
    (found, _), rows = data.batch(slice(None)), torch.tensor([9, 0])
    assert data.labels.tolist() == [{0: 2, 1: 0}[label] for label in labels.tolist()]
    assert torch.equal(data.parts, 4 - parts)
    assert torch.equal(data.subset(rows).parts, 4 - parts[rows])
    assert torch.equal(found[:, :-1], wanted[:, :-1])
    assert torch.equal(found[:, -1] < 0, wanted[:, -1] < 0)
    assert torch.equal(data[3][1], data.parts[3, :32])
    assert data.parts_of.nonzero().tolist() == [[0, 1], [0, 2], [2, 3], [2, 4]]


def test_colours_are_measured_when_a_set_is_packed_and_no_shard_is_read_for_them(tmp_path, monkeypatch):
    points = torch.rand(20, 6, 32)
    data = LabelledClouds(points, torch.arange(20) % 2, ["a", "b"])
    data.channel_names, data.scale, data.centre = ("x", "y", "z", "r", "g", "b"), "unit sphere", True
    means = points[:, 3:].double().mean((1, 2))
    pack_split(data, tmp_path / "train", "classification", tmp_path)
    monkeypatch.setattr(shards.Shards, "_read", None)
    again = open_packed(tmp_path, "train", 32)
    assert contract_of_data(again, num_points=32).colors == pytest.approx((float(means.min()), float(means.max())))
    again.colors = None  # as of a set that was packed before
    assert contract_of_data(again, num_points=32).colors is None
