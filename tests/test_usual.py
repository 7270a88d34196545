"""What is usual of the points of objects whose parts are labelled: a floor left below one is said."""

import dataclasses

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet import embed, label_points, load_model
from pointnet.commands import train
from pointnet.datasets import split_validation
from pointnet.datasets.shape_classes import make_shape
from pointnet.datasets.shapes import shape_parts
from pointnet.evaluation.cloud_measures import OF_POINTS, measures_of_points
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import Usual, measure_usual
from pointnet.inference.inputs import NOT_MARKED
from tests.forms import forms
from tests.helpers import QUICK, halves
from tests.own_points import write_objects

MODEL = "pointnet_shapes_part"
FLOOR = OF_POINTS["floor"]


def ball_on_layer(share: float, count: int = 1000, seed: int = 0) -> np.ndarray:
    """Points of a ball, of which this share is in a layer at its lowest point."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    layer = round(share * count)
    points[:layer] = [0, 0, -1] + generator.uniform(-1, 1, (layer, 3)) * [0.5, 0.5, 1e-3]
    return points


def measured(points: np.ndarray) -> np.ndarray:
    return measures_of_points(torch.from_numpy(points.T.copy())[None])[0].numpy()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_floor_is_the_share_of_points_in_a_layer_at_the_bottom(share):
    points = ball_on_layer(share)
    lowest = float((ball_on_layer(0)[:, 2] < -0.98).mean())
    assert share - 1e-9 <= measured(points)[-1] <= share + 2 * lowest
    assert measured(points * [1, 1, -1])[-1] < 0.03  # a ceiling is none
    beside = points.copy()
    beside[: round(share * 1000), 2] += 0.3  # nor is a layer higher up
    assert measured(beside)[-1] < 0.03


def test_measures_do_not_depend_on_size_order_or_direction():
    points = ball_on_layer(0)
    turned = points[np.random.default_rng(1).permutation(1000)] @ np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
    np.testing.assert_allclose(measured(7 * turned), measured(points), rtol=0.1)


def made(kind: str, seed: int = 6, count: int = 2048) -> tuple[np.ndarray, float]:
    """Points of an object, and its area."""
    mesh, _ = make_shape(kind, np.random.default_rng(seed))
    return np.asarray(mesh.sample(count, seed=seed)), mesh.area


def with_floor(points: np.ndarray, area: float, times: float) -> np.ndarray:
    """An object of this area on a floor that is so many times as wide, and as dense."""
    low, high = points.min(0), points.max(0)
    side = times * (high - low)[:2].max()
    generator = np.random.default_rng(0)
    floor = np.zeros((round(len(points) * side**2 / area), 3))
    floor[:, :2] = generator.uniform(-0.5, 0.5, (len(floor), 2)) * side
    return np.vstack([points, floor + [*(low + high)[:2] / 2, low[2]] + generator.normal(size=floor.shape) * 0.002])


def said_of(points: np.ndarray, **how) -> set[str]:
    notes = label_points(points, MODEL, **how).notes
    return {reason for note in notes for reason in OF_POINTS.values() if reason in note}


@pytest.mark.parametrize("kind", forms(["chair", "stool", "table", "desk", "bench"], "chair"))
def test_a_floor_below_an_object_with_legs_is_said_and_the_object_alone_is_usual(kind):
    points, area = made(kind)
    assert said_of(points) == said_of(7 * points + [40, -3, 9]) == set()
    for times in (2, 3, 6):
        assert FLOOR in said_of(with_floor(points, area, times)), times
    floored = with_floor(points, area, 3)
    assert FLOOR in said_of(floored, category=kind)
    assert FLOOR in said_of(floored[:, [0, 2, 1]] * [1, 1, -1], up="y")


def test_noise_is_said_and_stray_points_alone_are_said_where_they_set_the_scale():
    noise = np.random.default_rng(0).uniform(-1, 1, (3000, 3))
    assert said_of(noise) == {OF_POINTS["filled"]}
    notes = label_points(np.vstack([noise, [[90, 0, 0]]]), MODEL).notes
    assert any("1 of 3,001 points is" in note for note in notes)
    assert not set(notes) & set(OF_POINTS.values())


@pytest.mark.parametrize("sides", [(0.05, 0.05, 1), (1, 0.04, 0.04)])
def test_a_rod_is_thin_and_nothing_else_is_said_of_its_directions(sides):
    box = np.random.default_rng(0).uniform(-1, 1, (3000, 3))
    face = np.random.default_rng(1).integers(3, size=3000)
    box[np.arange(3000), face] = np.sign(box[np.arange(3000), face])
    assert {OF_POINTS["flat"], OF_POINTS["thin"], FLOOR} & said_of(box * sides) == {OF_POINTS["thin"]}


def test_limits_pass_nearly_all_of_what_they_are_measured_on_and_few_clouds_tell_nothing():
    data = halves("part", per_class=20)
    contract = Contract(32)
    usual = measure_usual(contract, data, data.subset(torch.arange(0)))
    reasons = usual.reasons(data.points[:, :, :32])
    assert len(reasons) == 40
    assert not any(reasons)
    few = data.subset(torch.arange(20))
    assert measure_usual(contract, few, few.subset(torch.arange(19))) is None
    assert measure_usual(contract, few, few) is not None
    assert measure_usual(dataclasses.replace(contract, scale="as given"), data, few) is None
    plates = halves("part", per_class=40).subset(torch.arange(40))
    plates.classes = plates.classes[:1]
    assert measure_usual(contract, plates, plates.subset(torch.arange(0))) is not None


def test_a_network_for_which_what_is_usual_was_measured_marks_unusual_inputs(tmp_path, capsys):
    np.savetxt(tmp_path / "chair.txt", made("chair")[0])
    words = ["predict", str(tmp_path / "chair.txt"), "--model", MODEL, "--out", str(tmp_path)]
    assert command_line.main(words) == 0
    assert NOT_MARKED not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_keeps_them_and_damaged_ones_are_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objects(tmp_path / "set", count=26)
    assert train.main(["--task", "part", "--dataset", "parts", "--root", "set", *QUICK, "--out", "run"]) == 0
    model = load_model("run")
    usual = Usual.from_json(Contract.of(model).familiar)
    assert set(usual.limits) == set(OF_POINTS)
    assert embed(made("chair")[0], model).notes == ()  # which knows classifiers alone
    again = load_model("run", num_classes=3)
    assert Contract.of(again).familiar is None
    for damaged in ({}, {"limits": {"floor": 1}}, {"limits": 7}):
        model.preprocessing["familiar"] = damaged
        with pytest.raises(ValueError, match="the model's 'familiar' is damaged: "):
            label_points(made("chair")[0], model)


@pytest.mark.slow
def test_the_shipped_limits_are_those_of_shapes_and_pass_95_in_100_of_validation_and_test(tmp_path):
    contract = Contract.of(load_model(MODEL))
    learned, val = split_validation(shape_parts(tmp_path, "train", 1024), 0)
    usual = Usual.from_json(contract.familiar)
    assert measure_usual(contract, learned, val).limits == pytest.approx(usual.limits, rel=1e-3)
    for data in (val, shape_parts(tmp_path, "test", 1024)):
        reasons = usual.reasons(data.batch(torch.arange(len(data)))[0][:, :, :1024])
        assert sum(map(bool, reasons)) <= 0.05 * len(data)
