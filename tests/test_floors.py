"""A floor or a table below an object is told from what objects have themselves, and makes an answer unsure."""

import numpy as np
import pytest
import torch

from pointnet import load_model, predict
from pointnet.datasets import LabelledClouds
from pointnet.evaluation.cloud_measures import share_beyond
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import FLOOR, LEAST_BEYOND, Familiar, measure_beyond
from pointnet.points.read import read_cloud
from tests.helpers import SAMPLES

UPRIGHT = "pointnet_modelnet40_upright"


def floor_below(points: np.ndarray, share: float, width: float = 2.0, seed: int = 0) -> np.ndarray:
    """As many points, of which this share is now a square floor, `width` times as wide as the object."""
    generator, count = np.random.default_rng(seed), int(share * len(points))
    low, high = points.min(0), points.max(0)
    flat = (low + high)[:2] / 2 + generator.uniform(-width / 2, width / 2, (count, 2)) * (high - low)[:2].max()
    return np.vstack([points[count:], np.column_stack([flat, np.full(count, low[2])])])


def tower(count: int = 1000, generator: np.random.Generator | None = None) -> np.ndarray:
    """The sides and the base of a box: points in the lowest layer are no farther out than those above."""
    generator = generator or np.random.default_rng(3)
    points = generator.uniform(-1, 1, (count, 3))
    face = generator.integers(3, size=count)
    points[np.arange(count), face] = np.sign(points[np.arange(count), face])
    return points


def beyond(points: np.ndarray) -> float:
    return float(share_beyond(torch.from_numpy(points.T.copy())[None])[0])


def test_points_beyond_are_those_of_a_floor_in_any_unit_place_order_and_direction():
    assert beyond(tower()) == 0
    for share, width in ((0.2, 2.0), (0.4, 1.5)):
        points = floor_below(tower(), share, width)
        within = (np.abs(points[:, :2]) <= 1.0).all(1) | (points[:, 2] > -1)
        found = beyond(points)
        assert (~within).mean() - 0.03 < found <= (~within).mean()
        angle = np.radians(35)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        for other in (points * 50, points + np.array([3, -7, 9]), points[::-1], points @ turn.T):
            assert beyond(other) == pytest.approx(found, abs=0.04)
    flat = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * [1, 1, 0]
    assert beyond(flat) == beyond(np.zeros((50, 3))) == 0


def test_what_is_usual_is_measured_for_each_class():
    """Nine of ten discs have a floor, and no tower has."""
    generator = np.random.default_rng(1)
    clouds = [tower(300, generator) for _ in range(20)]
    clouds += [floor_below(tower(300, generator), 0.3 if i % 10 else 0) for i in range(20)]
    data = LabelledClouds(torch.tensor(np.stack(clouds)).float().transpose(1, 2), [0] * 20 + [1] * 20, "ab", 300)
    plain, floored = measure_beyond(Contract(300), data)
    assert plain == LEAST_BEYOND
    assert 0.1 < floored < 0.3


def test_an_object_on_a_floor_is_unsure_where_its_class_has_none():
    points = read_cloud(f"{SAMPLES}/files/chair.off", 2048).points
    assert predict(points, UPRIGHT).sure
    on_floor = predict(floor_below(points, 0.3), UPRIGHT)
    assert not on_floor.sure
    assert any(FLOOR in note for note in on_floor.notes)
    model = load_model(UPRIGHT)
    usual = dict(model.preprocessing["familiar"], beyond=[float(on_floor.class_name == each) for each in model.classes])
    for held in (usual, {name: its for name, its in usual.items() if name != "beyond"}):  # as of older networks
        model.preprocessing["familiar"] = held
        assert not any(FLOOR in note for note in predict(floor_below(points, 0.3), model).notes)


def test_it_is_kept_with_the_network_and_damage_is_refused():
    held = load_model(UPRIGHT).preprocessing["familiar"]
    familiar = Familiar.from_json(held)
    assert len(familiar.beyond) == 40
    assert Familiar.from_json(familiar.as_json()).beyond == familiar.beyond
    for damaged in ([0.1], ["a"] * 40, 7):
        with pytest.raises(ValueError, match="the model's 'familiar' is damaged"):
            Familiar.from_json(held | {"beyond": damaged})
