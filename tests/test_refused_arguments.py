"""What operators, layers and metrics are given in other shapes or kinds is refused in one line, and never broadcast."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from pointnet.datasets import LabelledClouds
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.metrics import ConfusionMatrix, PartScores
from pointnet.layers import EdgeConv, FeaturePropagation, SetAbstraction, SharedMLP
from pointnet.ops.aligned import align
from pointnet.ops.edges import pooled_edges
from pointnet.ops.groups import grouped, pooled_groups
from pointnet.ops.neighbours import gather
from pointnet.ops.pooled import pooled

X, A, B = torch.randn(4, 3, 20), torch.randn(4, 6, 5), torch.randn(4, 6, 20)
NEAR = torch.randint(0, 20, (4, 5, 3))
FEW = torch.zeros(2, 5, 3, dtype=torch.int64)
LABELS = torch.zeros(2, 5, dtype=torch.int64)
EDGES = "a, b, neighbours must be (B, D, S), (B, D, N), (B, S, K), got"
SMALL: dict = {"centres": 4, "radii": [0.5], "neighbours": [4]}


def edges(a=A, b=B, neighbours=NEAR, norm=None, mask=None):
    return pooled_edges(a, b, neighbours, norm, nn.ReLU(), mask)


def abstraction(**changes):
    return SetAbstraction(0, [[8]], **SMALL | changes)


def parts():
    return PartScores(torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edges(a=A[:1]), f"{EDGES} [(1, 6, 5), (4, 6, 20), (4, 5, 3)]"),
        (lambda: edges(a=A[:, :1]), EDGES),
        (lambda: edges(a=A[:, :, :1]), EDGES),
        (lambda: edges(b=B[:1]), EDGES),
        (lambda: edges(neighbours=NEAR[:1]), EDGES),
        (lambda: edges(neighbours=NEAR[:, :, 0]), EDGES),
        (lambda: edges(mask=torch.ones(4, 5).bool()), "mask must be (4, 1, 5), got (4, 5)"),
        (lambda: edges(norm=nn.BatchNorm1d(1).eval()), "norm must be of 6 channels, got 1"),
        (lambda: pooled(X, A[0, :, :3], None, nn.BatchNorm1d(1).eval(), None), "norm must be of 6 channels, got 1"),
        (
            lambda: pooled_groups(X.unsqueeze(3), A[0, :, :3], None, nn.BatchNorm1d(1).eval(), None),
            "norm must be of 6 channels, got 1",
        ),
        (lambda: gather(X, FEW), "indices must be of 4 clouds, as the points are, got (2, 5, 3)"),
        (lambda: gather(X[:1], FEW[:, :, 0]), "indices must be of 1 clouds, as the points are, got (2, 5)"),
        (lambda: grouped(X, FEW), "indices must be of 4 clouds, as the points are, got (2, 5, 3)"),
        (lambda: align(X, torch.eye(3)), "transform must be (4, dim, dim) with dim at most 3, got (3, 3)"),
        (lambda: align(X, torch.randn(1, 3, 3)), "transform must be (4, dim, dim) with dim at most 3, got (1, 3, 3)"),
        (lambda: align(X[:1], torch.randn(4, 3, 3)), "transform must be (1, dim, dim)"),
        (lambda: align(X, torch.randn(4, 3, 5)), "transform must be (4, dim, dim)"),
        (lambda: align(X, torch.randn(4, 5, 5)), "transform must be (4, dim, dim)"),
        (lambda: abstraction(centres=4.5), "centres and stride must be whole numbers of at least 1, got 4.5 and None"),
        (
            lambda: abstraction(centres=True),
            "centres and stride must be whole numbers of at least 1, got True",
        ),
        (lambda: abstraction(centres=None, stride=0), "centres and stride must be whole numbers of at least 1"),
        (lambda: abstraction(neighbours=[2.5]), "neighbours must be whole numbers of at least 1, got [2.5]"),
        (lambda: abstraction(radii=[-1.0]), "radii must be numbers above 0, got [-1.0]"),
        (lambda: abstraction(radii=["a"]), "radii must be numbers above 0, got ['a']"),
        (lambda: SetAbstraction(0, [[8]], by_radius=True), "by_radius and in_order are for balls about centres"),
        (lambda: SetAbstraction(0, [[8]], in_order=True), "by_radius and in_order are for balls about centres"),
        (lambda: abstraction()(X, X), "features must be None, got (4, 3, 20)"),
        (lambda: SetAbstraction(2, [[8]])(X), "features must be (4, 2, 20), one column per point, got None"),
        (lambda: SetAbstraction(2, [[8]])(X, X), "features must be (4, 2, 20), one column per point, got (4, 3, 20)"),
        (lambda: SetAbstraction(3, [[8]])(X, X[:, :, :9]), "features must be (4, 3, 20), one column per point"),
        (lambda: SetAbstraction(3, [[8]])(X, X.double()), "features must be torch.float32 like the weights"),
        (
            lambda: FeaturePropagation(7, [8])(X, None, X, B),
            "features must have 7 channels together, got 6 of the centres and 0 of the points",
        ),
        (lambda: FeaturePropagation(9, [8])(X, [torch.zeros(4)], X, B), "context must be (4, E), one vector per cloud"),
        (lambda: FeaturePropagation(9, [8])(X.numpy(), X, X, B), "points must be a tensor, got ndarray"),
        (lambda: FeaturePropagation(9, [8])(X, X, X, B.numpy()), "of_centres must be a tensor, got ndarray"),
        (lambda: EdgeConv(3, 8, 2.5), "neighbours must be a whole number of at least 1, got 2.5"),
        (lambda: SharedMLP([3, 8], last_activation="no"), "last_activation must be True or False, got 'no'"),
        (lambda: SharedMLP([3, 8], bias="no"), "bias must be True, False or None, got 'no'"),
        (lambda: SharedMLP([3, 8])(X, transform=[1]), "transform must be a tensor, got list"),
        (
            lambda: parts().update(LABELS, LABELS, None, torch.tensor([0])),
            "category must be (2,) integers, one per shape, got (1,) torch.int64",
        ),
        (
            lambda: parts().update(LABELS, LABELS, None, torch.tensor([-1, 1])),
            "category must be from 0 to 1, got -1",
        ),
        (lambda: ConfusionMatrix(3).update(LABELS, LABELS.float()), "labels must be integers, got torch.int64 and"),
        (
            lambda: ConfusionMatrix(3).update(LABELS, LABELS, LABELS),
            "valid must be (2, 5) bool, got (2, 5)",
        ),
        (lambda: ConfusionMatrix(3).update(LABELS, LABELS, LABELS[:1].bool()), "valid must be (2, 5) bool, got (1, 5)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}"):
        call()


def test_numbers_of_numpy_are_numbers():
    layer = abstraction(centres=np.int64(4), radii=[np.float32(0.5)], neighbours=[np.int32(4)])
    assert layer(X)[1].shape == (4, 8, 4)
    assert SharedMLP([3, 8], last_activation=np.False_, bias=np.True_)[0].activation is None


def test_labels_of_eight_bits_are_counted_up_to_255():
    counts, labels = ConfusionMatrix(256), torch.tensor([200, 255], dtype=torch.uint8)
    counts.update(labels, labels)
    assert counts.result() == {"overall_accuracy": 1.0, "mean_class_accuracy": 1.0, "count": 2}


@pytest.mark.parametrize(
    ("scores", "rows", "more", "message"),
    [
        (2, 6, {}, "the network gives 2 scores, fewer than the 3 that the data names"),
        (3, 0, {}, "there are no clouds to evaluate on"),
        (3, 6, {"degrees": float("nan")}, "degrees must be a number and smoothing from 0 to below 1, got nan and 0.0"),
        (3, 6, {"smoothing": 2.0}, "degrees must be a number and smoothing from 0 to below 1, got 0.0 and 2.0"),
        (3, 6, {"votes": 2.5}, "votes must be a whole number of at least 1, got 2.5"),
    ],
)
def test_an_evaluation_that_means_nothing_is_refused(scores, rows, more, message):
    class Means(nn.Module):
        def forward(self, x):
            return x.mean(2)[:, [0] * scores]

    data = LabelledClouds(torch.randn(6, 3, 9), torch.arange(6) % 3, ["a", "b", "c"])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(Means(), data.subset(torch.arange(rows)), **more)
