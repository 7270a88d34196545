"""The error analysis of a classifier is what the network itself answers on the points that are left."""

import numpy as np
import pytest
import torch

from benchmarks import corruptions as benchmark
from pointnet import PointNetClassifier, predict
from pointnet.datasets import LabelledClouds
from pointnet.datasets.clouds import spread
from pointnet.evaluation import analysis
from pointnet.evaluation.analysis import CLEAN, ORDERS, SHARES, analyse, misclassified
from pointnet.evaluation.evaluate import evaluate
from tests.helpers import analysed_network

CLOUDS, POINTS = 40, 48  # more clouds than a batch


@pytest.fixture(scope="module")
def analysed():
    """A network that looks trained, T-Nets included, the clouds it is analysed on, and the analysis."""
    return analysed_network(CLOUDS, POINTS)


def test_the_accuracies_are_those_of_evaluate(analysed):
    model, data, found = analysed
    wanted = evaluate(model, data)
    assert {name: wanted[name] for name in found.confusion.result()} == found.confusion.result()
    assert 0 < wanted["overall_accuracy"] < 1


@pytest.mark.slow
def test_the_probabilities_are_calibrated_as_those_of_predict_are(analysed, monkeypatch):
    model, data, found = analysed
    monkeypatch.setattr(model, "classes", data.classes)
    how = {"num_points": POINTS, "scale": "as given", "centre": False, "temperature": 0.25}
    monkeypatch.setattr(model, "preprocessing", how)
    again = analyse(model, data)
    assert (again.probabilities.max(1).values > found.probabilities.max(1).values).all()
    for i in range(0, CLOUDS, 5):
        shares = predict(data.points[i].T.numpy(), model).probabilities
        np.testing.assert_allclose(again.probabilities[i], [shares[name] for name in data.classes], atol=1e-4)
    truth = again.probabilities[again.mistakes, data.labels[again.mistakes]]
    assert (truth.diff() >= 0).all()


def test_the_critical_points_alone_change_no_answer_and_others_do(analysed, monkeypatch):
    model, data, found = analysed
    assert found.changed == 0
    assert found.critical.any(1).all()
    assert not found.critical.all(1).any()
    monkeypatch.setattr(analysis, "critical_points", lambda model, x: torch.rand(x.shape[0], x.shape[2]) < 0.1)
    assert analyse(model, data).changed > 0


@pytest.mark.slow
def test_the_accuracy_is_that_of_the_points_which_the_order_leaves(analysed):
    """By the definition: the network itself, in float64, on the points of each cloud that a mask keeps."""
    model, data, found = analysed
    exact = PointNetClassifier(5).double().eval()
    exact.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    batches = torch.arange(CLOUDS).split(analysis.EVALUATION_BATCH)
    chance = torch.cat([torch.rand(len(rows), POINTS, generator=generator) for rows in batches])
    last = {"at random": 0 * found.critical, "critical first": ~found.critical, "critical last": found.critical}
    for order in ORDERS:
        ranks = torch.from_numpy(np.lexsort((chance.numpy(), last[order].numpy())))
        for share, accuracy in zip(SHARES, found.dropped[order], strict=True):
            kept = ranks[:, round(POINTS * share) :].sort(1).values
            left = data.points.double().gather(2, kept.unsqueeze(1).expand(-1, 3, -1))
            with torch.no_grad():
                right = (exact(left).argmax(1) == data.labels).sum()
            assert accuracy == int(right) / CLOUDS, (order, share)
    assert [found.dropped[order][0] for order in ORDERS] == [found.confusion.result()["overall_accuracy"]] * 3
    assert len({tuple(accuracies) for accuracies in found.dropped.values()}) == 3


@pytest.mark.slow
def test_an_analysis_is_repeated_exactly_and_leaves_the_model_as_it_was(analysed):
    model, data, found = analysed
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = analyse(model, data)
    assert again.dropped == found.dropped
    assert torch.equal(again.probabilities, found.probabilities)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_errors_on_corrupted_clouds_are_those_of_the_benchmark(analysed, monkeypatch, capsys):
    model, data, _ = analysed
    found = analyse(model, data, corruptions=8).corrupted
    assert all(wrong.shape == (1 if name == CLEAN else 5, 8) for name, wrong in found.items())
    clean = spread(data, 8)
    assert (found[CLEAN][0] == (model(clean.points).argmax(1) != clean.labels).numpy()).all()
    assert (found["rotation"][4] == misclassified([model], clean, "rotation", 5)[0]).all()
    assert len({wrong.mean() for wrong in found.values()}) > 5

    monkeypatch.setattr(benchmark, "open_dataset", lambda *arguments: data)
    monkeypatch.setattr(benchmark, "load", lambda *arguments: model)
    benchmark.main(["trained", "--clouds", "8", "--threads", f"{torch.get_num_threads()}"])
    _, *table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line[:2] == "| "]
    means = [100 * wrong.mean() for wrong in found.values()]
    assert [row[:2] for row in table[:-1]] == [[name, f"{mean:.1f}"] for name, mean in zip(found, means, strict=True)]
    assert table[-1][1] == f"{np.mean(means[1:]):.1f}"


@pytest.mark.parametrize("points", [1, 2, 7])
def test_clouds_of_few_points_keep_at_least_one(analysed, points):
    model, data, _ = analysed
    found = analyse(model, LabelledClouds(data.points[:3], data.labels[:3], data.classes, points))
    assert found.critical.shape == (3, points)
    assert found.changed == 0
    if points == 1:
        assert len({accuracy for order in ORDERS for accuracy in found.dropped[order]}) == 1


def test_the_worst_mistakes_come_first(analysed):
    _, data, found = analysed
    worst = found.mistakes
    assert set(worst.tolist()) == set((found.predicted != data.labels).nonzero()[:, 0].tolist())
    truth = found.probabilities[worst, data.labels[worst]]
    assert (truth.diff() >= 0).all()
