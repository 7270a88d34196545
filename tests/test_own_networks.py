"""Networks, losses and labels of one's own in unusual forms: trained as they are meant, or refused in one line."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from pointnet import (
    PointNetClassifier,
    PointNetPartSegmenter,
    SharedMLP,
    critical_points,
    embed,
    label_points,
    load_model,
    predict,
)  # fmt: skip
from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.evaluation.analysis import analyse
from pointnet.evaluation.metrics import ConfusionMatrix
from pointnet.evaluation.trust import UNUSUAL
from pointnet.layers import FeaturePropagation, SetAbstraction
from pointnet.layers.folding import fold_norms
from pointnet.models import PointNetEncoder, own, pretrained
from pointnet.training import TrainConfig, fit
from tests.helpers import halves, quiet, tiny, trained_looking, two_shapes


class TwoDepths(nn.Module):
    """The max of some layers' points and of some more: the first layers are in it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.all = SharedMLP([3, 8, 16])
        self.early = self.all[:1]
        self.logits = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(torch.cat([self.early.max_pool(x), self.all.max_pool(x)], 1))


def test_a_network_with_shared_weights_is_saved_and_loaded(tmp_path):
    model = TwoDepths()
    fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, model=model)
    again = load_model(tmp_path, model=TwoDepths())
    assert again.early[0].conv.weight is again.all[0].conv.weight
    x = torch.randn(2, 3, 9)
    assert torch.equal(again.eval()(x), model.eval()(x))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_frozen_part_keeps_its_running_statistics_however_deep_it_is(tmp_path, wrapped):
    model = PointNetClassifier(2, 3, False, False, widths=((8,), (16,)), head_widths=(4,))
    frozen, learning = model.encoder.mlp1, model.encoder.mlp2[0].norm
    frozen.requires_grad_(False)
    kept, changed = frozen[0].norm.running_mean.clone(), learning.running_mean.clone()
    fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, model=nn.Sequential(model) if wrapped else model)
    assert torch.equal(frozen[0].norm.running_mean, kept)
    assert not torch.equal(learning.running_mean, changed)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits * self.scale, labels)


def test_a_loss_whose_parameters_would_not_be_trained_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="loss has parameters, which would not be trained; make them the network's, or"
    ):
        fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, loss=Scaled())
    fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, loss=Scaled().requires_grad_(False))


@pytest.mark.slow
def test_points_of_ones_own_need_no_name_of_a_data_set(tmp_path):
    config = TrainConfig(task="scene", num_points=32, batch_size=8, epochs=1, width=0.125, out=str(tmp_path))
    fit(config, halves("scene"), log=quiet)


def test_a_loss_that_is_no_tensor_is_refused(tmp_path):
    with pytest.raises(ValueError, match="loss must give one number, a tensor .*, got float"):
        fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, loss=lambda logits, labels: 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "edgenet"}, r"model must be a module, got 'edgenet'; .*: TrainConfig\(...\)"),
        ({"model": TwoDepths}, r"model must be a module, got the class TwoDepths; make one: TwoDepths\(...\)"),
        ({"loss": "mse"}, "loss must be a function of logits and labels, got 'mse'; one of the library's"),
        ({"loss": nn.CrossEntropyLoss}, r"got the class CrossEntropyLoss; make one: CrossEntropyLoss\(...\)"),
    ],
)
def test_what_is_no_module_or_no_function_is_refused(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        fit(tiny(tmp_path / "x"), two_shapes(), log=quiet, **given)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_is_refused(tmp_path, mode):
    with mode(), pytest.raises(ValueError, match=r"training needs gradients; leave torch.no_grad\(\) or"):
        fit(tiny(tmp_path / "x"), two_shapes(), log=quiet)
    assert not (tmp_path / "x").exists()


def test_a_loss_without_a_gradient_is_refused(tmp_path):
    def errors(logits, labels):
        return (logits.argmax(1) != labels).float().mean()

    with pytest.raises(ValueError, match="the loss has no gradient of the network's weights; an argmax"):
        fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, loss=errors)


class WithState(TwoDepths):
    """Keeps what no parameter and no buffer is."""

    def __init__(self, state: object) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state


def test_extra_state_is_saved_if_it_is_a_tensor_and_refused_before_training_if_not(tmp_path):
    message = "_extra_state in the network's state is of type dict, which model.safetensors cannot hold"
    with pytest.raises(ValueError, match=message):
        fit(tiny(tmp_path / "x"), two_shapes(), log=quiet, model=WithState({"step": 3}))
    assert not (tmp_path / "x").exists()
    fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, model=WithState(torch.tensor([3.0])))
    assert load_model(tmp_path, model=WithState(torch.zeros(1))).state == 3


def test_clouds_have_x_y_and_z_and_may_want_gradients(tmp_path):
    labels = torch.arange(24) % 2
    with pytest.raises(ValueError, match="train must have x, y and z as its first channels, got 2 in all"):
        fit(tiny(tmp_path, epochs=1), LabelledClouds(torch.randn(24, 2, 32), labels, ["a", "b"]), log=quiet)
    data = LabelledClouds(torch.randn(24, 3, 32, requires_grad=True), labels, ["a", "b"])
    fit(tiny(tmp_path / "b", epochs=1), data, log=quiet)


def test_points_without_a_label_are_not_taken_for_repeated_ones():
    stored = torch.randn(2, 4, 6)
    stored[:, 3] = torch.tensor([1.0, 2, 1, 2, -1, -1])
    wanted = "marks a point that repeats another of its cloud, got others; a point without a label has UNLABELLED"
    with pytest.raises(ValueError, match=wanted):
        LabelledPoints(stored, torch.tensor([0, 0]), ["a"], ["low", "mid", "high"])
    stored[:, :3, 4:] = stored[:, :3, :2]
    stored[:, 3, 4:] = torch.tensor([-2.0, -3])
    assert LabelledPoints(stored, torch.tensor([0, 0]), ["a"], ["low", "mid", "high"]).parts[0].tolist() == [1, 2] * 3


def test_pruned_weights_are_not_folded_and_small_integers_are_counted():
    mlp = SharedMLP([3, 8, 4])
    prune.l1_unstructured(mlp[0].conv, "weight", 0.5)
    mlp(torch.randn(2, 3, 5)).sum().backward()
    with pytest.raises(ValueError, match="a weight is computed by something else and cannot be copied|a hook is on it"):
        fold_norms(mlp)
    counts = ConfusionMatrix(3)
    counts.update(torch.tensor([0, 1, 2], dtype=torch.uint8), torch.tensor([0, 1, 1], dtype=torch.uint8))
    assert counts.counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_a_cloud_that_is_written_to_changes_no_data(tmp_path):
    np.save(tmp_path / "points.npy", np.ones((4, 3, 5), np.float32))
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    for points in (torch.ones(4, 3, 5), mapped):
        data = LabelledClouds(points, torch.arange(4) % 2, ["a", "b"])
        data[1][0].zero_()
        data.subset(torch.tensor([2, 1]))[0][0].zero_()
        assert bool((points == 1).all())
        assert (data.points == 1).all()


def test_centres_that_do_not_exist_are_no_neighbours_on_the_way_back():
    down = trained_looking(SetAbstraction(4, [[16]], None, [0.6], [8], stride=2)).eval()
    back = trained_looking(FeaturePropagation(20, [16])).eval()
    points, features, lengths = torch.randn(2, 3, 20).double(), torch.randn(2, 4, 20).double(), torch.tensor([20, 9])
    padded = [F.pad(each, (0, 20)) for each in (points, features)]
    given = *padded, *down(*padded, lengths), lengths, down.existing_centres(lengths)
    for i, count in enumerate(lengths.tolist()):
        alone = [each[i : i + 1, :, :count] for each in (points, features)]
        wanted = back(*alone, *down(*alone))[0]
        torch.testing.assert_close(back(*given)[i, :, :count], wanted, rtol=1e-10, atol=1e-10)


def test_padding_is_no_centre_among_points_in_order():
    first = trained_looking(SetAbstraction(0, [[16]], None, [0.6], [8], stride=2)).eval()
    anew = trained_looking(SetAbstraction(16, [[16]], 16, [1.0], [8])).eval()
    points, lengths = torch.randn(2, 3, 40).double(), torch.tensor([40, 9])
    found = *first(points, None, lengths), first.existing_centres(lengths)
    wanted = anew(*found)
    anew.in_order = True
    for ours, theirs in zip(anew(*found), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# What goes around a network's forward must not, where that is of one's own.

POINTS = np.random.default_rng(0).normal(size=(90, 3))


SMALL = {"in_channels": 3, "widths": ((8,), (16,)), "tnet_widths": ((8,), (8,)), "head_widths": (8,)}


def described(model):
    model.eval().classes = ("a", "b", "c")
    model.preprocessing = {
        "num_points": 90,
        "scale": "unit sphere",
        "channels": ["x", "y", "z"],
        "categories": ["d", "e"],
    }
    return trained_looking(model).float()


class FromAbove(PointNetClassifier):
    def forward(self, x: Tensor, lengths: Tensor | None = None, return_transforms: bool = False) -> Tensor:
        return super().forward(x * torch.tensor([1.0, 1.0, 0.0])[:, None], lengths, return_transforms)


class PartsFromAbove(PointNetPartSegmenter):
    def forward(self, x: Tensor, *given: Tensor, **named: Tensor) -> Tensor:
        return super().forward(x * torch.tensor([1.0, 1.0, 0.0])[:, None], *given, **named)


def test_predict_asks_the_forward_of_a_subclass_as_evaluate_does():
    model = described(FromAbove(3, **SMALL))
    model.logits.weight.data *= 30  # so that answers differ
    unit = POINTS - POINTS.mean(0)
    x = torch.from_numpy((unit / np.linalg.norm(unit, axis=1).max()).T[None]).float()
    wanted, plain = (kind.forward(model, x).log_softmax(1)[0] for kind in (FromAbove, PointNetClassifier))
    found = predict(POINTS, model).probabilities
    found = torch.tensor([found[name] for name in model.classes]).log()
    assert (found - wanted).abs().max() < 1e-3 < 0.01 < (found - plain).abs().max()


def test_a_subclass_with_a_forward_of_its_own_gives_no_features_and_no_labels_of_parts():
    with pytest.raises(ValueError, match="a FromAbove has a forward of its own, so its encoder may see other points"):
        embed(POINTS, described(FromAbove(3, **SMALL)))
    parts = described(PartsFromAbove(3, 2, **SMALL))
    with pytest.raises(ValueError, match="a PartsFromAbove is of your own; files are labelled by the library's"):
        label_points(POINTS, parts)


class SecondHalf(PointNetClassifier):
    def forward(self, x: Tensor, lengths: Tensor | None = None, return_transforms: bool = False) -> Tensor:
        return super().forward(x[:, :, x.shape[2] // 2 :], lengths, return_transforms)


def test_points_that_a_forward_of_ones_own_never_sees_are_not_called_critical():
    model, encoder = described(SecondHalf(3, **SMALL)), copy.deepcopy(described(PointNetClassifier(3, **SMALL)).encoder)
    data = LabelledClouds(np.tile(POINTS.T, (6, 1, 1)), [0, 1, 2, 0, 1, 2], ("a", "b", "c"))
    with pytest.raises(ValueError, match="a SecondHalf has a forward of its own, which may see other points"):
        critical_points(model, data.points)
    with pytest.raises(TypeError, match="must be a network, got str; load_model gives one by its name"):
        critical_points("pointnet_modelnet40", data.points)
    found = analyse(model, data)
    assert found.critical is None
    assert list(found.dropped) == ["at random"]
    encoder.__class__ = type("Halved", (PointNetEncoder,), {"forward": lambda self, x, *more: None})
    with pytest.raises(ValueError, match="a Halved has a forward of its own"):
        critical_points(encoder, data.points)


def test_an_answer_that_is_no_number_is_not_sure_and_no_label():
    model = described(PointNetClassifier(3, **SMALL))
    model.encoder.mlp1[0].norm.running_var.fill_(-1)
    found = predict(POINTS, model)
    assert not found.sure
    assert "unsure: the network's logits are not finite" in found.notes
    parts = described(PointNetPartSegmenter(3, 2, parts_of=[[0, 1], [2]], **SMALL))
    parts.encoder.mlp1[0].norm.running_var.fill_(-1)
    for category in (None, "e"):
        with pytest.raises(ValueError, match="the network's logits are not finite at 90 of 90 points"):
            label_points(POINTS, parts, category)


def test_names_of_classes_differ_and_what_is_usual_is_of_all_of_them():
    model = described(PointNetClassifier(3, **SMALL))
    means, limits = torch.eye(4).tolist(), dict.fromkeys(UNUSUAL, 9.0)
    model.preprocessing["familiar"] = {"means": means, "precision": means, "limits": limits, "other_up": 0.0}
    with pytest.raises(
        ValueError, match="the model's 'familiar' is of 4 classes, not 3; set .* None if the last layer"
    ):
        predict(POINTS, model)
    model.classes = ("a", "b", "a")
    with pytest.raises(ValueError, match="^model.classes must be different names, got 'a', 'b', 'a'$"):
        predict(POINTS, model)


class Least(nn.Module):
    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.last = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.amin(2))


@pytest.mark.parametrize("known", [True, False])
def test_a_registered_network_is_pickled_and_copied_also_to_where_it_is_not_registered(monkeypatch, known):
    monkeypatch.setattr(own, "MODELS", models := dict(own.MODELS))
    monkeypatch.setattr(pretrained, "MODELS", models)
    model = described(own.own_network("least", Least, "num_classes")(3)).train()
    copies = [copy.deepcopy(model)]
    written = pickle.dumps(model)
    if not known:
        models.pop("least")
    copies.append(pickle.loads(written))
    for each in copies:
        assert (type(each).__name__, each.classes, each.preprocessing) == ("Least", model.classes, model.preprocessing)
        assert each.training
        assert each.num_outputs == 3
        assert torch.equal(each(torch.ones(2, 3, 4)), model(torch.ones(2, 3, 4)))
    assert models["least"] is type(copies[1])
