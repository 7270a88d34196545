"""The ground of a scene's blocks, which a network sees from the floor of the whole scene."""

import dataclasses
import re

import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet.datasets import SceneFolder, blocks
from pointnet.datasets.blocks import Heights, grounds_of
from pointnet.datasets.catalog import open_dataset
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.points.read import PointCloud, Rows
from pointnet.training import fit
from tests.helpers import quiet, small
from tests.own_points import save

NAMES = "X Y Z I label"


def yard(seed: int, points: int = 3000) -> np.ndarray:
    """A flat floor of 8 by 8, a wall along one side, and four poles."""
    generator, third = np.random.default_rng(seed), points // 3
    floor = generator.uniform((0, 0, 0), (8, 8, 0.02), (third, 3))
    wall = generator.uniform((0, 0.5, 0), (8, 0.6, 2.5), (third, 3))
    poles = generator.uniform((-0.1, -0.1, 0), (0.1, 0.1, 3), (third, 3))
    poles[:, :2] += generator.uniform(2, 7, (4, 2))[generator.integers(4, size=third)]
    labels = np.repeat([0, 1, 2], third)
    return np.column_stack([np.concatenate([floor, wall, poles]), np.ones(len(labels)), labels])


def changed(rows: np.ndarray, how: str) -> np.ndarray:
    """The points (N, 3) of a yard on a slope, with a ditch along one side, or other than that."""
    points, is_floor = rows[:, :3].copy(), rows[:, 4] == 0
    if how == "slope":
        points[:, 2] += 0.1 * points[:, 0]
    elif how == "ditch":
        points[is_floor & (points[:, 0] > 7), 2] -= 1.5
    elif how == "down":
        points[:, 2] *= -1
    elif how == "noise":
        points[:, 2] += np.random.default_rng(0).normal(0, 0.25, len(points))
    elif how == "no floor":
        points = points[~is_floor]
    elif how == "cropped":
        points = points[points[:, 0] < 3]
    return points


def folder(root, count: int = 3, **odd) -> SceneFolder:
    for i in range(count):
        rows = yard(i)
        rows[:, 2] *= odd.get("times", 1) if i == 1 else 1
        save(root / f"{i}.txt", rows, NAMES)
    return SceneFolder(root, num_points=64, block=2.0, test_fraction=0)


@pytest.mark.parametrize("how", ["", "slope", "ditch", "down", "noise", "no floor", "cropped"])
def test_ground_that_rises_is_said(tmp_path, how):
    contract = contract_of_data(folder(tmp_path), num_points=64)
    assert 0.005 < contract.ground < 0.1
    points = changed(yard(9), how)
    notes = contract.notes_of(PointCloud(points, None, None, None))
    rows = Rows(points, lambda rows: rows)
    assert contract.notes_of(PointCloud(rows, None, None, None)) == notes
    of_ground = [note for note in notes if "ground" in note]
    if how in ("slope", "ditch", "down", "noise"):
        at = {"slope": r"0\.\d+ to 0\.\d+", "ditch": r"1\.5"}.get(how, r"\S+ to \S+")
        usual = re.escape(f"{contract.ground:.2g}")
        end = rf"in training at most {usual}; a slope, a ditch, noise or z down\?"
        assert re.fullmatch(rf"in \d+% of its blocks the ground is {at} above the floor, {end}", of_ground[0])
    else:
        assert of_ground == []
    assert not [note for note in dataclasses.replace(contract, ground=None).notes_of(
        PointCloud(points, None, None, None)) if "ground" in note]  # fmt: skip


@pytest.mark.parametrize("times", [100, -1])
def test_a_scan_in_another_unit_or_with_z_down_does_not_set_the_ground(tmp_path, times):
    even, odd = (contract_of_data(folder(tmp_path / str(each), times=each), num_points=64) for each in (1, times))
    assert odd.ground == pytest.approx(even.ground, abs=0.05)


def test_a_few_blocks_and_points_of_a_large_scene_tell_its_ground(monkeypatch):
    rows = yard(0, 60_000)
    points = rows[:, :3] * (5, 20, 1) + (500, -700, 30)
    whole = grounds_of(points, 2.0, 30.0)
    monkeypatch.setattr(blocks, "MOST_GROUNDS", 200)
    monkeypatch.setattr(blocks, "MOST_ON_GROUNDS", 20_000)
    some = grounds_of(Rows(points, lambda rows: rows), 2.0, 30.0)
    assert 0.2 * len(whole) < len(some) < 0.6 * len(whole)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(some, share) == pytest.approx(np.quantile(whole, share), abs=0.05)


def test_a_ground_is_that_of_the_lowest_points_of_each_block(monkeypatch):
    """Of 19 in 20 points, and of squares with at least 100."""
    steps = np.repeat([0.0, 0.5, 1.0], 200)
    x = np.concatenate([np.full(200, 0.1), np.full(200, 1.1), np.full(200, 2.1)])
    points = np.column_stack([x, np.linspace(0, 0.9, 600), steps])
    points[::50, 2] -= 0.3  # four of each 200
    assert np.array_equal(grounds_of(points, 1.0, 0.0), [0.0, 0.5, 1.0])
    points[::25, 2] -= 0.3
    points[12::20, 2] -= 0.3
    assert (grounds_of(points, 1.0, 0.0) < [0.0, 0.5, 1.0]).all()
    assert len(grounds_of(points[100:], 1.0, 0.0)) == 3
    assert len(grounds_of(points[101:], 1.0, 0.0)) == 2
    monkeypatch.setattr(blocks, "MOST_ON_GROUNDS", 60)
    assert len(grounds_of(points, 1.0, 0.0)) == 3
    monkeypatch.setattr(blocks, "MOST_ON_GROUNDS", 50)  # which leaves 17 of each
    assert len(grounds_of(points, 1.0, 0.0)) == 0
    assert Heights.of(points, 1.0).grounds.size == 0  # not measured there


@pytest.mark.parametrize("sizes", [(2, 5), (5, 2)])
def test_each_square_has_a_ground_of_its_own(sizes):
    i, j = (each.repeat(150) + 0.5 for each in np.indices(sizes).reshape(2, -1))
    grounds = grounds_of(np.column_stack([i, j, 10 * i + j]), 1.0, 5.5)
    assert grounds.tolist() == [10.0 * i + j for i in range(sizes[0]) for j in range(sizes[1])]


def test_a_network_of_s3dis_sees_the_ground_from_the_lowest_point_stray_or_not():
    points = yard(0)[:, :3]
    points[7] = (4, 4, -2)
    seen = {}
    for scale, channels in (("blocks", ("x", "y", "z")), ("blocks of a metre", blocks.CHANNEL_NAMES)):
        contract = Contract(num_points=64, channels=channels, scale=scale, heights=(0.6, 2.9), ground=0.02)
        seen[scale] = [note for note in contract.notes_of(PointCloud(points, None, None, None)) if "ground" in note]
    assert seen["blocks"] == []
    assert re.match(r"in \d+% of its blocks the ground is 2(\.\d)? to 2", seen["blocks of a metre"][0])


def test_files_of_a_set_whose_ground_rises_are_said(tmp_path, capsys):
    root, out = tmp_path / "yards", tmp_path / "run"
    for i in range(4):
        rows = yard(i)
        rows[:, :3] = changed(rows, "slope") if i == 3 else rows[:, :3]
        save(root / ("train" if i < 3 else "test") / f"{i}.txt", rows, NAMES)
    config = small(out, "scene", dataset="scenes", root=str(root), block=2.0, epochs=1, min_steps=1)
    fit(config, open_dataset("scenes", root, "train", **config.opening), log=quiet)
    for split, wanted in (("test", 1), ("train", 0)):
        assert command_line.main(["evaluate", str(out), "--split", split]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "the ground is" in line]
        assert len(said) == wanted
        assert all(line.startswith("test/3.txt: in ") for line in said)
