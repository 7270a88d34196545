"""Structures that a network finds in clouds: once per cloud, of the right one, with the same results as each time."""

import pytest
import torch
from torch import Tensor, nn

from pointnet.datasets import LabelledClouds
from pointnet.evaluation import structures
from pointnet.evaluation.structures import Structures
from pointnet.models.edgenet import EdgeNetClassifier
from pointnet.training import fit
from tests.helpers import assert_ends_as, fit_in_two, quiet, started, tiny, two_shapes


def stored(per_class: int = 4) -> LabelledClouds:
    """Clouds of more than twice the points that are taken."""
    data = two_shapes(per_class, points=70)
    return LabelledClouds(data.points, data.labels, data.classes, num_points=32)


def trained(out, **changes):
    fit(tiny(out, **({"model": "edgenet", "early_points": 0, "epochs": 2} | changes)), stored(), log=quiet)
    return out


@pytest.fixture
def searches(monkeypatch) -> list[int]:
    """How many clouds each search is for."""
    sizes, find = [], EdgeNetClassifier.find_structure
    monkeypatch.setattr(EdgeNetClassifier, "find_structure", lambda self, x: (sizes.append(len(x)), find(self, x))[1])
    return sizes


def test_kept_or_found_at_each_step_the_weights_are_the_same_bit_for_bit(tmp_path, searches, monkeypatch):
    kept = trained(tmp_path / "kept", rotate=30.0, ema=0.9)
    assert sum(searches) == 2 * 6 + 2 + 2  # two views to train on, one of validation; and one each to see its size
    searches.clear()
    monkeypatch.setattr(structures, "free_memory", lambda device: 0.0)
    assert_ends_as(trained(tmp_path / "not kept", rotate=30.0, ema=0.9), kept)
    assert sum(searches) == 2 * (6 + 2) + 2


@pytest.mark.slow
def test_where_no_point_moves_the_weights_are_those_of_a_network_that_finds_it_itself(tmp_path, searches, monkeypatch):
    kept = trained(tmp_path / "kept", scale=1.0, shift=0.0)
    of = Structures.of
    monkeypatch.setattr(Structures, "of", lambda *given, **named: (of(*given, **named)[0], None))
    assert_ends_as(trained(tmp_path / "itself", scale=1.0, shift=0.0), kept)


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_unbroken_one(tmp_path):
    unbroken = trained(tmp_path / "unbroken", early_points=16)
    config = tiny(tmp_path / "resumed", model="edgenet", early_points=16, epochs=2)
    fit_in_two(config, stored())
    assert_ends_as(tmp_path / "resumed", unbroken)


class Rightmost(nn.Module):
    """A network whose structure is the point with the largest x, which stretching and moving leave the largest."""

    def __init__(self):
        super().__init__()
        self.score, self.seen = nn.Linear(3, 2), 0

    def find_structure(self, x: Tensor) -> Tensor:
        return x[:, 0].argmax(1, keepdim=True).short()

    def forward(self, x: Tensor, structure: Tensor | None = None) -> Tensor:
        if structure is not None:
            self.seen += len(x)
            assert torch.equal(structure.long(), x[:, 0].argmax(1, keepdim=True))
        return self.score(x.square().mean(2))


@pytest.mark.parametrize("min_steps", [1, 9])
def test_each_cloud_gets_its_own_in_training_measuring_norms_and_validation(tmp_path, min_steps):
    network = Rightmost()
    fit(tiny(tmp_path, scale=1.5, shift=0.3, epochs=3, min_steps=min_steps), stored(), model=network, log=quiet)
    # 6 clouds to train on and 2 of validation; 9 steps of 3 are 27 clouds, and then 6 to measure norms on.
    assert network.seen == 3 * (6 + 2 if min_steps == 1 else 27 + 6 + 2)


def test_views_come_by_turns_and_a_cloud_is_searched_once():
    clouds, searched = stored().points, []
    kept = Structures(lambda x: (searched.append(len(x)), x[:, 0].argmax(1, keepdim=True))[1], len(clouds), views=3)
    for rows, turn, count in (([3, 1], 0, 32), ([1, 2, 3], 1, 32), ([2], 2, 32), ([5, 2], 4, 15)):
        x, structure = kept.of(clouds[rows], torch.tensor(rows), count, turn)
        views = min(3, 70 // count)
        assert torch.equal(x, clouds[rows][:, :, turn % views * count :][:, :, :count])
        assert torch.equal(structure[:, 0], x[:, 0].argmax(1))
    assert searched == [1, 2, 2, 1, 1, 1, 2, 2, 2]


def test_points_that_may_be_dropped_and_networks_that_search_for_nothing_have_none():
    assert started(stored(), model="edgenet").structures is not None
    assert started(stored(), model="edgenet", point_dropout=0.5).structures is None
    assert started(stored()).structures is None
