"""The weights that come with the library give the figures of their cards."""

import json

import pytest
import torch

from benchmarks.publish import measure, on_samples
from pointnet.datasets import open_dataset
from pointnet.models import load_model, zoo
from pointnet.training.run import fingerprint

SIZES = {"pointnet_modelnet40": 8e6, "pointnet_shapes": 2e6}  # bytes at most


def recorded(name: str) -> dict:
    return json.loads((zoo.WEIGHTS / name / "scores.json").read_text())


def test_they_are_those_that_are_promised():
    assert zoo.shipped() == sorted(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_they_are_small_and_their_card_says_what_they_reach(name):
    folder = zoo.WEIGHTS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= SIZES[name]
    text, scores = (folder / "README.md").read_text(), recorded(name)
    assert f"{scores['overall_accuracy']:.2%} | {scores['mean_class_accuracy']:.2%}" in text
    for label, share in zip(load_model(name).classes, scores["of_class"], strict=True):
        assert f"| {label} | {share:.1%} |" in text


@pytest.mark.parametrize("name", SIZES)
def test_their_logits_on_the_samples_are_those_recorded(name):
    logits = on_samples(load_model(name))
    torch.testing.assert_close(logits.double(), torch.tensor(recorded(name)["samples"]).double(), rtol=0, atol=1e-3)


def check_scores(name, test):
    wanted = recorded(name)
    assert fingerprint(test) == wanted["data"]
    found = measure(load_model(name), test)
    assert found.keys() == wanted.keys()
    for score in found.keys() - {"samples"}:
        assert found[score] == wanted[score], score


def test_the_shapes_weights_reach_what_is_recorded(tmp_path):
    check_scores("pointnet_shapes", open_dataset("shapes", tmp_path, "test", 1024))


def test_the_modelnet_weights_reach_what_is_recorded(real_modelnet):
    check_scores("pointnet_modelnet40", open_dataset("modelnet40", real_modelnet, "test", 1024))
