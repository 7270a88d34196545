"""Points, labels and names as callers hand them in: kept as they are meant, or refused."""

import numpy as np
import pytest
import torch

from pointnet import EdgeNetClassifier, PointNet2Classifier, PointNextClassifier, predict
from pointnet.datasets import LabelledClouds, LabelledPoints, pad_clouds
from pointnet.datasets.transforms import random_jitter, random_rotation, random_scale, random_shift
from pointnet.models import PointNetClassifier
from tests.helpers import SMALL, described

CLOUD = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["chair", "table", "chair"], "classes must be named once each, got 'chair' twice"),
        (["chair", 1, "table"], "classes must be names, strings, got 1"),
    ],
)
def test_classes_have_names_of_their_own(classes, message):
    with pytest.raises(ValueError, match=message):
        LabelledClouds(torch.zeros(2, 3, 4), torch.tensor([0, 2]), classes)
    with pytest.raises(ValueError, match=message.replace("classes", "part_names")):
        LabelledPoints(torch.zeros(2, 4, 4), torch.tensor([0, 0]), ["a"], classes)


def test_a_part_that_a_category_may_not_have_is_named():
    stored = torch.zeros(2, 4, 6)
    stored[1, 3, 5] = -1 - 2  # a repeated point counts too
    parts_of = torch.tensor([[True, True, False], [True, True, True]])
    data = [stored, torch.tensor([0, 1]), ["chair", "lamp"], ["leg", "seat", "shade"], parts_of]
    assert LabelledPoints(*data).parts[1, 5] == 2
    data[1] = torch.tensor([1, 0])
    with pytest.raises(
        ValueError, match="a cloud of class 'chair' has points of 'shade', which parts_of says it has not"
    ):
        LabelledPoints(*data)


def test_padded_clouds_have_a_type_that_holds_them_all():
    whole, half = torch.arange(12).reshape(3, 4), torch.full((3, 2), 0.5)
    for clouds in ([whole, half], [half, whole]):
        points, lengths = pad_clouds(clouds)
        assert points.dtype == torch.float32
        assert all(torch.equal(row[:, :n], cloud) for row, n, cloud in zip(points, lengths, clouds, strict=True))


@pytest.mark.parametrize("change", [random_scale, random_shift, random_jitter, random_rotation])
def test_whole_numbers_are_not_moved(change):
    with pytest.raises(ValueError, match="points must be floats to be moved, got torch.int64"):
        change(torch.ones(2, 3, 5, dtype=torch.int64), 1.5, torch.Generator())


def test_masked_points_are_left_out_and_bfloat16_is_taken():
    model, hidden = described(PointNetClassifier(3, **SMALL)), CLOUD.copy()
    hidden[::4] += 100
    masked = np.ma.masked_array(hidden, np.broadcast_to((np.arange(40) % 4 == 0)[:, None], CLOUD.shape))
    seen = np.delete(CLOUD, np.s_[::4], 0)
    assert predict(masked, model).probabilities == predict(seen, model).probabilities
    assert predict(np.ma.masked_array(CLOUD), model).probabilities == predict(CLOUD, model).probabilities
    rounded = torch.from_numpy(CLOUD).bfloat16()
    assert predict(rounded, model).probabilities == predict(rounded.float(), model).probabilities


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32])
@pytest.mark.parametrize("kind", [PointNetClassifier, PointNet2Classifier, PointNextClassifier, EdgeNetClassifier])
def test_lengths_may_be_of_any_whole_numbers(kind, dtype):
    network, x = kind(3, width=0.125) if kind is not PointNetClassifier else kind(3, **SMALL), torch.randn(2, 3, 40)
    lengths = torch.tensor([40, 17])
    assert torch.equal(network.eval()(x, lengths=lengths.to(dtype)), network(x, lengths=lengths))


def test_edgenet_names_the_type_that_its_points_must_have():
    with pytest.raises(TypeError, match=r"points must be torch.float32 like the weights, got torch.float64; convert"):
        EdgeNetClassifier(3, width=0.125)(torch.zeros(2, 3, 9).double())
