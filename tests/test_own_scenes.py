"""Labelled scans of one's own: what is cut into blocks, said, held out, trained on and labelled."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import label_points, load_model
from pointnet.datasets import PointCloudFileError, blocks, open_dataset, split_parts, split_validation
from pointnet.datasets.blocks import frame_of_scene, sparse
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.evaluation.contract import Contract
from pointnet.inference.cases import cases_of
from pointnet.inference.scenes import label_blocks
from pointnet.models import PointNetSegmenter
from pointnet.pages.show import show_data
from pointnet.points.formats.contents import Rows
from pointnet.points.read import PointCloud, read_cloud
from pointnet.training import evaluate, fit
from pointnet.training.small_sets import lines_on_data
from tests.forms import forms
from tests.helpers import quiet, small
from tests.own_points import (
    CLASSES,
    FLOOR,
    POLE,
    WALL,
    in_order,
    make_yard,
    own_points,
    save,
    write_yards,
)


def assert_cases_are_answered(model) -> None:
    """That an exported file, which is held to them, can answer as the library does."""
    cases = list(cases_of(model))
    assert len(cases) == 2
    for case in cases:
        with torch.no_grad():
            shares = model(*case.inputs).softmax(1)
        torch.testing.assert_close(shares.amax(1), case.probability, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("side", "features"), [(1.0, ""), (2.5, "intensity")])
def test_a_scan_is_cut_into_blocks_of_any_side(tmp_path, side, features):
    root = write_yards(tmp_path, 2, size=3000)
    data = SceneFolder(root, test_fraction=0, num_points=64, features=features, block=side)
    assert data.part_names == ("floor", "wall", "pole")
    assert data.label_numbers == (FLOOR, WALL, POLE)
    assert data.channel_names == ("x", "y", "z", *filter(None, [features]))
    assert data.classes == ("yard_0.txt", "yard_1.txt")
    assert data.bad == []
    low_high, at = data.intensity, 0
    for seed in range(2):
        rows = make_yard(seed, 3000).round(6)
        xyz = (rows[:, :3] - rows[:, :3].min(0)).astype(np.float32)
        last = np.maximum(np.ceil((xyz.max(0)[:2] - np.float32(side)) / (side / 2)).astype(int), 0)
        cells = np.minimum((xyz[:, :2] / (side / 2)).astype(int), last + 1)
        for corner in np.ndindex(*(last + 1)):
            inside = ((cells >= corner) & (cells <= np.add(corner, 1))).all(1)
            if inside.sum() < 100:
                continue
            middle = np.append(xyz[inside, :2].min(0) + side / 2, 0)
            wanted = (xyz[inside] - middle) / side
            if features:
                scaled = (rows[inside, 3:4] - low_high[0]) / (low_high[1] - low_high[0])
                wanted = np.hstack([wanted, scaled])
            labels = np.searchsorted((FLOOR, WALL, POLE), rows[inside, 4])
            assert data.labels[at] == seed
            np.testing.assert_allclose(in_order(*own_points(data, at)), in_order(wanted, labels), atol=1e-4)
            at += 1
    assert at == len(data)


def test_whole_scans_are_held_out(tmp_path):
    data = SceneFolder(write_yards(tmp_path / "a", 5, size=1500), num_points=64, block=2)
    test = SceneFolder(tmp_path / "a", "test", num_points=64, block=2)
    assert len(set(data.files)) == 4
    assert len(set(test.files)) == 1
    assert not set(data.files) & set(test.files)
    train, val = split_validation(data, seed=0, fraction=0.1)
    assert len(set(val.files)) == 1
    assert not set(train.files) & set(val.files)
    for within in ("train", "val", "test"):
        write_yards(tmp_path / "b" / within, 1, seed=len(within), size=1500)
    (tmp_path / "b" / "classes.txt").write_text(CLASSES)
    for file in (tmp_path / "b").glob("*/classes.txt"):
        file.unlink()
    data = SceneFolder(tmp_path / "b", num_points=64, block=2)
    assert data.classes == ("train/yard_0.txt", "val/yard_0.txt", "test/yard_0.txt")
    _, val = split_validation(data, seed=0, fraction=0.5)
    assert {file.parent.name for file in val.files} == {"val"}
    with pytest.raises(PointCloudFileError, match="has no file for its test split: a set needs two files or more"):
        SceneFolder(tmp_path / "b" / "val", "test")


def test_a_wrong_size_of_block_is_said_with_what_to_do(tmp_path):
    write_yards(tmp_path, 2, size=1500)
    for side, message in (
        (0.1, r"has most of its points in blocks of 0\.1 that have fewer than 100 points; is it in another unit\? "),
        (0.001, r"must be at most 1,000 blocks of 0\.001 wide, got \d,\d\d\d of them; is it in another unit\? Else "),
    ):
        with pytest.raises(PointCloudFileError, match=message):
            SceneFolder(tmp_path, block=side)
    with pytest.raises(ValueError, match="block must be a size above 0, in the unit of the files, got 0"):
        SceneFolder(tmp_path, block=0)
    with pytest.raises(ValueError, match="parts is not cut into blocks of 2, which --block or the network asks for"):
        open_dataset("parts", tmp_path, "train", 32, task="part", block=2)
    data = SceneFolder(tmp_path, block=50, test_fraction=0)
    assert data.notes[1:] == ["each file is one block of 50, of 4,096 points; a smaller --block has more"]


@pytest.mark.parametrize("side", [1.0, 500.0])
def test_a_scene_in_another_unit_than_blocks_is_said_by_its_width_or_its_sparse_blocks(side):
    points = np.random.default_rng(0).random((4000, 3)) * side * (4, 5, 1) + 1e6  # 200 points to a square
    moved = points - points.min(0)
    specks = {"degrees": 1e-5, "km": 1e-3}
    for found in (lambda x: sparse(x, side), lambda x: sparse(Rows(x, lambda rows: rows), side)):
        assert found(points) is None
        for factor in (0.2, 0.05 / 4.9, 0.045 / 5):
            width = 5 * side * factor
            assert (found(moved * factor) is None) == (width > 0.05 * side), factor
        for factor in specks.values():
            assert re.fullmatch(rf"it is .* wide, and a block {side:g}: is it in another unit\?", found(moved * factor))
        few = f"most of its points are in blocks of {side:g} with fewer than 100 points, as were none of training"
        assert found(moved * (100, 100, 1)) == found(moved[::3]) == few
        assert found(moved * 1e4) is None  # which is refused
        most = np.vstack([moved[:3000], moved[3000:] * 50])
        assert found(most) is None
        assert found(np.vstack([moved[:1600], moved[1600:] * 50])) == few


def test_of_very_many_points_some_tell_how_many_a_block_has(monkeypatch):
    points = np.random.default_rng(0).random((4000, 3)) * (4, 5, 1)
    monkeypatch.setattr(blocks, "MOST_COUNTED", 1000)
    assert sparse(points, 1.0) is None
    assert sparse(points[::3], 1.0) is not None


def test_a_tile_in_degrees_is_said_in_training(tmp_path):
    root = write_yards(tmp_path, 2, size=3000)
    file = root / "yard_0.txt"
    rows = np.loadtxt(file, skiprows=1)
    rows[:, :2] /= 111_000
    header = file.read_text().splitlines()[0]
    np.savetxt(file, rows, fmt="%.9g", header=header, comments="")
    data = SceneFolder(root, block=2, test_fraction=0)
    assert data.file_notes["yard_0.txt"] == ("it is 3.6e-05 wide, and a block 2: is it in another unit?",)
    assert "yard_1.txt" not in data.file_notes


def assert_other_data_is_refused(model, root: Path, block: float) -> None:
    """By `evaluate`, for a network of intensities and these blocks."""
    own = {"block": block, "features": "intensity", "intensity": Contract.of(model).intensity}
    assert evaluate(model, SceneFolder(root, num_points=64, **own))
    for how, said in (
        (own | {"block": block / 2}, f"its block is scaled by {block}, that of the data by {block / 2}"),
        (own | {"intensity": (0.0, 65535.0)}, "its intensity is scaled by"),
        ({"block": block}, "it was trained on points of x, y, z, intensity; the data has x, y, z"),
    ):
        with pytest.raises(ValueError, match=f"the network: {said}"):
            evaluate(model, SceneFolder(root, num_points=64, **how))


@pytest.mark.parametrize("unit", forms([1.0, 1000.0], 1000.0))
def test_a_scan_is_labelled_by_the_mean_of_all_blocks_in_the_units_of_training(tmp_path, unit):
    root = write_yards(tmp_path / "set", 3, unit=unit, size=1500)
    data = SceneFolder(root, num_points=64, features="intensity", block=2 * unit)
    settings = {"dataset": "scenes", "num_points": 64, "early_points": 0, "epochs": 1}
    fit(small(tmp_path / "run", "scene", **settings), data, log=quiet)
    model = load_model(tmp_path / "run")
    contract = Contract.of(model)
    assert (contract.block, contract.scale, contract.channels) == (2 * unit, "blocks", ("x", "y", "z", "intensity"))
    assert contract.label_numbers == (FLOOR, WALL, POLE)
    assert_cases_are_answered(model)
    assert_other_data_is_refused(model, root, 2 * unit)
    file, whole_blocks = data.files[0], contract.as_json() | {"num_points": 5000}
    model.preprocessing = whole_blocks | {"temperature": 2.0}
    found = label_points(file, model)
    model.preprocessing = whole_blocks
    votes = {}
    whole = SceneFolder(root, num_points=4096, features="intensity", block=2 * unit)
    for i in (whole.labels == whole.labels[0]).nonzero()[:, 0].tolist():
        x, _, own = split_parts(whole.batch(torch.tensor([i]))[0])
        with torch.no_grad():
            shares = (model(x[:, :, own[0]]) / 2).softmax(1)[0].T
        for intensity, share in zip(x[0, 3, own[0]].tolist(), shares.numpy(), strict=True):
            votes.setdefault(round(intensity, 4), []).append(share)
    rows = read_cloud(file)
    low, high = contract.intensity
    alone = [k for k, value in enumerate(rows.intensity) if (rows.intensity == value).sum() == 1]
    assert len(alone) > 20
    for k in alone:
        wanted = np.mean(votes[round(float((rows.intensity[k] - low) / (high - low)), 4)], axis=0)
        assert found.probability[k] == pytest.approx(wanted.max(), abs=1e-4)
    found.write_ply(tmp_path / "labelled.ply")
    written = read_cloud(tmp_path / "labelled.ply", precise=True)
    assert np.array_equal(written.labels, np.array(contract.label_numbers)[found.labels])
    assert f"comment label {POLE} is pole" in (tmp_path / "labelled.ply").read_bytes()[:600].decode("latin-1")
    assert_cases_are_answered(model)
    array = np.column_stack([rows.points, rows.intensity])
    assert (label_points(array, model).labels == found.labels).mean() > 0.99
    with pytest.raises(ValueError, match="has no intensity, which the model was trained with"):
        label_points(array[:, :3], model)


def test_show_counts_the_blocks_of_scans_as_such(tmp_path):
    root = write_yards(tmp_path / "yards", 2, size=3000)
    title = next(iter(show_data("scenes", root, num_points=64, out=tmp_path)))
    assert re.match(r"scenes: 2 scans, [\d,]+ blocks of 64 points", title)


def test_what_validation_cannot_judge_is_said_and_blocks_are_not_called_scans(tmp_path):
    for split, seed in (("train", 0), ("val", 7)):
        write_yards(tmp_path / split, 1, seed, size=3000)
        (tmp_path / split / "classes.txt").rename(tmp_path / "classes.txt")
    file = tmp_path / "val" / "yard_0.txt"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *(row for row in rows if float(row.split()[-1]) != POLE)]))
    data = SceneFolder(tmp_path, num_points=64, block=2, test_fraction=0)
    train, val = split_validation(data, 0, 0.1)
    assert set(val.files) == {file}
    lines = lines_on_data(small(tmp_path / "run", "scene", val_fraction=0.1), train, val)
    assert "labels that no cloud of validation has, so the epoch is chosen without them: pole" in lines
    assert any(line.startswith(f"{len(val)} clouds (blocks of 1 scan) to validate on: each is ") for line in lines)


class ByHeight(PointNetSegmenter):
    """Labels what is above half a block."""

    def fold(self):
        return self

    def forward(self, x, lengths=None):
        return torch.stack([torch.zeros_like(x[:, 2]), x[:, 2] - 0.5], 1)


def test_stray_points_below_move_no_other_in_training_and_change_no_other_label(tmp_path):
    model, heights, labels = ByHeight(2, 3, widths=((8,), (8, 16)), head_widths=(8,)).eval(), [], []
    model.preprocessing = Contract(num_points=64, scale="blocks", block=2.0).as_json()
    for name, depth in ("even", 0.0), ("stray", 40.0):
        yard = make_yard(0, 1500)
        yard[[7, 70], 2] -= depth
        data = SceneFolder(save(tmp_path / name / "0.txt", yard, "X Y Z I label").parent, block=2.0, test_fraction=0)
        heights.append(data.points[:, 2])
        labels.append(label_blocks(model, PointCloud(yard[:, :3], None, None, None)).labels)
    moved = heights[0] - heights[1]
    assert set(moved[moved.abs() > 1e-4].round().tolist()) == {20.0}  # in blocks of 2
    assert 0 < (moved.abs() > 1e-4).float().mean() < 0.01
    assert set(np.flatnonzero(labels[0] != labels[1])) <= {7, 70}
    assert 0.2 < labels[0].mean() < 0.8
    few = np.random.default_rng(0).random((50, 3))
    few[0, 2] -= 9  # of so few points one says nothing
    assert frame_of_scene(few, 2.0)[0][2] == few[:, 2].min()
    for shares, floor in ((False, 0.0), (True, -40.0)):  # S3DIS's channels count from the lowest point, as published
        low, extent = frame_of_scene(yard[:, :3], 2.0, shares)
        assert low[2] == pytest.approx(30 + floor, abs=2.6)
        assert low[2] + extent[2] == pytest.approx(yard[:, 2].max(), abs=1e-3)
