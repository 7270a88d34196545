"""Networks, losses and data sets of one's own, in fit() and by the flags."""

import copy
import json
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointnet import PointNetClassifier, load_model, predict
from pointnet import __main__ as command_line
from pointnet.datasets import DATASETS_OF, LabelledClouds, register_dataset
from pointnet.evaluation.tasks import TASKS
from pointnet.models import MODELS, PointNetModel
from pointnet.models.own import registered_as
from pointnet.training import evaluate, fit, register_model
from pointnet.training.run_folder import read_metrics
from tests.helpers import (
    ON_SAMPLES,
    ROOT,
    SAMPLES,
    assert_equal_states,
    error_of,
    halves,
    quiet,
    small,
    tiny,
    two_shapes,
)


class Max(nn.Module):
    """The max over the points of one layer, then another."""

    def __init__(self, num_classes: int = 2, in_channels: int = 3, dropout: float = 0.1):
        super().__init__()
        self.each = nn.Sequential(nn.Conv1d(in_channels, 16, 1), nn.BatchNorm1d(16, momentum=0.3), nn.ReLU())
        self.cloud = nn.Sequential(nn.Dropout(dropout), nn.Linear(16, num_classes))

    def forward(self, points):
        return self.cloud(self.each(points).amax(2))


class PerPoint(nn.Module):
    """Scores for each point from its channels, and from its category if it gets one."""

    def __init__(self, num_parts: int = 4, in_channels: int = 4):
        super().__init__()
        self.each = nn.Conv1d(in_channels + 2, num_parts, 1)

    def forward(self, points, category=None):
        known = points.new_zeros(len(points), 2) if category is None else F.one_hot(category, 2).to(points)
        return self.each(torch.cat([points, known.unsqueeze(2).expand(-1, -1, points.shape[2])], 1))


@pytest.fixture(autouse=True)
def names_as_before():
    kept = [dict(known) for known in (MODELS, *(task.networks for task in TASKS.values()), *DATASETS_OF.values())]
    yield
    for known, before in zip((MODELS, *(t.networks for t in TASKS.values()), *DATASETS_OF.values()), kept, strict=True):
        known.clear()
        known.update(before)


def new(seed: int = 3) -> Max:
    torch.manual_seed(seed)
    return Max()


def test_fit_trains_any_module_with_any_loss_and_its_folder_gives_it_back(tmp_path):
    data, lines, seen, model = two_shapes(), [], [], new()
    weight = model.cloud[1].weight

    def loss(logits, labels):
        seen.append((tuple(logits.shape[1:]), labels.dtype))
        return F.multi_margin_loss(logits, labels)

    config = tiny(tmp_path, norm_momentum=0.1)
    result = fit(config, data, two_shapes(seed=1), log=lines.append, model=model, loss=loss)
    assert result["test"]["overall_accuracy"] > 0.9
    assert set(seen) == {((2,), torch.int64)}
    assert any(
        "a network of your own, Max: " in line and f'load_model("{tmp_path}", model=Max(' in line for line in lines
    )
    assert any(line.startswith("a loss of your own: ") for line in lines)
    assert model.cloud[1].weight is weight, "a caller may hold its parameters"
    again = load_model(tmp_path, model=Max())
    assert_equal_states(again.state_dict(), model.state_dict())
    assert (again.classes, again.training) == (("disc", "rod"), False)
    assert evaluate(again, two_shapes(seed=1))["overall_accuracy"] == result["test"]["overall_accuracy"]
    assert model.each[1].momentum == 0.3, "a norm of one's own keeps its momentum"
    with pytest.raises(
        ValueError, match=r"got 'Max'; register_model makes one of your own known, load_model\(..., model"
    ):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="does not fit the model in config.json: there is no weight"):
        load_model(tmp_path, model=nn.Linear(3, 2))


@pytest.mark.parametrize("restrict", [True, False])
def test_ones_own_network_for_parts_answers_among_those_of_the_category(tmp_path, restrict):
    """By the data, as the network says nothing of them; so does the restricted loss."""
    data, model = halves("part"), PerPoint()
    fit(small(tmp_path, "part", restrict=restrict, epochs=1, val_fraction=0.0), data, log=quiet, model=model)
    model.each.bias.data[2:] += 100  # every point a part of a rod, if a plate had those
    x, category, parts, valid = TASKS["part"].examples(*data.batch(torch.arange(len(data))))
    of_category = model(x, category).masked_fill(~data.parts_of[category].unsqueeze(2), -torch.inf)
    wanted = float((of_category.argmax(1) == parts)[valid].float().mean())
    assert evaluate(model, data, task=TASKS["part"])["point_accuracy"] == pytest.approx(wanted)
    assert wanted > 0.4
    first = read_metrics(tmp_path)[0]["train_loss"]
    assert (first < 0.75) == restrict, "log 2 by two parts, log 4 by four"


@pytest.mark.slow
def test_a_stopped_run_of_ones_own_network_ends_as_an_unbroken_one(tmp_path):
    def stop(metrics):
        raise InterruptedError

    whole = new()
    fit(tiny(tmp_path / "a"), two_shapes(), log=quiet, model=whole)
    with pytest.raises(InterruptedError):
        fit(tiny(tmp_path / "b"), two_shapes(), log=quiet, model=new(), after_epoch=stop)
    resumed = new(seed=9)
    fit(tiny(tmp_path / "b"), two_shapes(), log=quiet, model=resumed, resume=True)
    assert_equal_states(resumed.state_dict(), whole.state_dict())
    with pytest.raises(ValueError, match="the run had network Max, got None; it cannot resume with that"):
        fit(tiny(tmp_path / "b"), two_shapes(), log=quiet, resume=True)
    fit(tiny(tmp_path / "c", epochs=1), two_shapes(), log=quiet, loss=F.cross_entropy)
    with pytest.raises(ValueError, match="the run had loss cross_entropy, got None; it cannot resume with that"):
        fit(tiny(tmp_path / "c", epochs=1), two_shapes(), log=quiet, resume=True)


def focal(gamma: float) -> nn.Module:
    loss = nn.CrossEntropyLoss()
    loss.gamma = gamma
    return loss


@pytest.mark.parametrize(
    ("loss", "other", "message"),
    [
        (nn.CrossEntropyLoss(torch.ones(2)), nn.CrossEntropyLoss(torch.tensor([1.0, 2])), "weight=[0-9a-f]{8}, got .*"),
        (focal(2.0), focal(3.0), "gamma=2.0, got .*gamma=3.0"),
        (
            partial(F.cross_entropy, label_smoothing=0.1),
            partial(F.cross_entropy, label_smoothing=0.2),
            "0.1, got .*0.2",
        ),
    ],
    ids=["tensor", "attribute", "keyword"],
)
def test_a_run_does_not_go_on_with_a_loss_of_other_values(tmp_path, loss, other, message):
    config = tiny(tmp_path, epochs=1)
    fit(config, two_shapes(), log=quiet, loss=loss)
    with pytest.raises(ValueError, match=f"the run had loss_values .*{message}; it cannot resume with that"):
        fit(config, two_shapes(), log=quiet, resume=True, loss=other)
    fit(config, two_shapes(), log=quiet, resume=True, loss=copy.deepcopy(loss))


class Noisy(LabelledClouds):
    def __getitem__(self, index):
        points, label = super().__getitem__(index)
        return points + 0.1 * torch.randn_like(points), label


def test_a_getitem_of_ones_own_which_nothing_would_call_is_refused(tmp_path):
    plain = two_shapes()
    noisy = Noisy(plain.points, plain.labels, plain.classes)
    line = r"^Noisy has a __getitem__ of its own, which is never called, as clouds are read by batch\(\); .* augment by"
    for sets in ((noisy,), (plain, noisy)):
        with pytest.raises(ValueError, match=line):
            fit(tiny(tmp_path / "x"), *sets, log=quiet)
    with pytest.raises(ValueError, match=line):
        evaluate(PointNetClassifier(2), noisy)
    Noisy.batch = lambda self, indices: LabelledClouds.batch(self, indices)  # it says how it is read
    try:
        fit(tiny(tmp_path / "x", epochs=1), noisy, log=quiet)
    finally:
        del Noisy.batch


def test_a_network_of_the_library_that_fit_is_given_is_rebuilt_from_its_folder(tmp_path):
    model, lines = PointNetClassifier(2, 3, False, False, widths=((8,), (16,)), head_widths=(4,)), []
    fit(tiny(tmp_path, epochs=1), two_shapes(), log=lines.append, model=model)
    again = load_model(tmp_path)
    assert again.arguments == model.arguments
    assert_equal_states(again.state_dict(), model.state_dict())
    assert any(line.endswith(f'it is loaded by load_model("{tmp_path}")') for line in lines)
    with pytest.raises(ValueError, match=r"PointNetClassifier must make \(2, 2\) logits of .*, got \(2, 40\)"):
        fit(tiny(tmp_path / "x"), two_shapes(), log=quiet, model=PointNetClassifier())


def test_a_changed_network_of_the_library_counts_as_ones_own(tmp_path):
    def new():
        model = PointNetClassifier(2, 3, False, False, widths=((8,), (16,)), head_widths=(4,))
        model.encoder.mlp1[0].activation = nn.GELU()
        return model

    fit(tiny(tmp_path, epochs=1), two_shapes(), log=quiet, model=(model := new()))
    with pytest.raises(
        ValueError, match=r"model must be one of .*, got 'PointNetClassifier'; .*load_model\(..., model="
    ):
        load_model(tmp_path)
    x = torch.randn(2, 3, 9)
    assert torch.equal(load_model(tmp_path, model=new())(x), model.eval()(x))


@pytest.mark.parametrize("task", ["part", "scene"])
def test_fit_trains_a_module_that_labels_points(tmp_path, task):
    data = halves(task)
    result = fit(small(tmp_path, task, epochs=6), data, halves(task, seed=1), log=quiet, model=PerPoint())
    chooser = TASKS[task].chooser
    assert result["test"][chooser] > 0.5
    scores = evaluate(load_model(tmp_path, model=PerPoint()), halves(task, seed=1), task=TASKS[task])
    assert scores[chooser] == result["test"][chooser]


@pytest.mark.parametrize(("model", "message"), [
    (Max(5), r"Max must make \(2, 2\) logits of \(2, 3, 32\), got \(2, 5\)"),
    (Max(2, 4), r"Max does not take \(2, 3, 32\): "),
    (nn.Identity(), r"Identity must make \(2, 2\) logits of \(2, 3, 32\), got \(2, 3, 32\)"),
    (Max().requires_grad_(False), "Max has no parameter to train"),
], ids=str)  # fmt: skip
def test_a_module_that_does_not_fit_the_data_is_refused_before_anything_is_written(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        fit(tiny(tmp_path / "x"), two_shapes(), log=quiet, model=model)
    assert not (tmp_path / "x").exists()


def test_a_loss_of_many_numbers_is_refused(tmp_path):
    def loss(logits, labels):
        return F.cross_entropy(logits, labels, reduction="none")

    with pytest.raises(
        ValueError, match=r"loss must give one number, a tensor with the mean over the labels, got \(\d,\)"
    ):
        fit(tiny(tmp_path), two_shapes(), log=quiet, loss=loss)


@pytest.mark.slow
def test_a_registered_network_is_trained_evaluated_asked_and_loaded_by_its_name(tmp_path, capsys):
    register_model("max", Max)
    register_model("max", Max)  # a notebook's cell runs twice
    out = tmp_path / "x"
    assert command_line.main(["train", *ON_SAMPLES, "--model", "max", "--dropout", "0.2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    idle = re.findall(r"^(\w+) changes nothing: Max does not take it$", printed, re.MULTILINE)
    assert idle == ["feature_transform", "input_transform", "width"]  # those that the command gives
    model = load_model(out)
    assert isinstance(model, Max)
    assert (model.arguments, len(model.classes)) == ({"num_classes": 40, "in_channels": 3, "dropout": 0.2}, 40)
    assert set(model.state_dict()) == set(Max(40).state_dict())
    wanted = json.loads((out / "result.json").read_text())["test"]["overall_accuracy"]
    assert command_line.main(["evaluate", str(out), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["overall_accuracy"] == wanted
    assert "calibration_error" in scores
    assert predict(f"{SAMPLES}/files/chair.off", model).class_name in model.classes
    model.save_pretrained(tmp_path / "y")
    assert_equal_states(load_model(tmp_path / "y").state_dict(), model.state_dict())
    assert command_line.main(["report", str(out)]) == 0
    code = "import sys; from pointnet.__main__ import main; sys.exit(main(sys.argv[1:]))"
    elsewhere = [sys.executable, "-c", code, "evaluate", str(out)]
    done = subprocess.run(elsewhere, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "got 'max'; register_model makes one of your own known" in done.stderr


def test_a_network_with_our_encoder_needs_no_more_than_its_head(tmp_path):
    class Counts(PointNetModel):
        num_outputs = 2

        def __init__(self, num_classes: int, in_channels: int):
            super().__init__(PointNetClassifier(num_classes, in_channels, False, False).encoder)
            self.logits = nn.Linear(1024, num_classes)

        def forward(self, x, lengths=None, return_transforms=False):
            feature, transforms = self.encoder(x, lengths, return_transforms=True)
            return (self.logits(feature), transforms) if return_transforms else self.logits(feature)

    register_model("counts", Counts)
    fit(tiny(tmp_path, model="counts", epochs=1), two_shapes(), log=quiet)
    assert isinstance(load_model(tmp_path), Counts)


def test_a_class_that_is_registered_and_made_by_hand_is_told_from_one_made_by_its_name(tmp_path):
    register_model("max", Max)
    lines = list[str]()
    fit(tiny(tmp_path / "x", epochs=1), two_shapes(), log=lines.append, model=Max(2))
    fit(tiny(tmp_path / "y", epochs=1, model="max"), two_shapes(), log=lines.append)
    said = 'one that TrainConfig(model="max") makes is loaded without model=, and predict takes it'
    assert lines.count(said) == 1
    register_model("own pointnet", type("Child", (PointNetClassifier,), {}))
    assert registered_as(PointNetClassifier(2)) == ""  # its parent
    predict(f"{SAMPLES}/files/chair.off", tmp_path / "y")
    with pytest.raises(ValueError, match=r"got 'Max'; register_model makes one"):
        predict(f"{SAMPLES}/files/chair.off", tmp_path / "x")


@pytest.mark.parametrize(("name", "kind", "task", "message"), [
    ("pointnet", Max, "classification", "there is a network 'pointnet' already; choose another name"),
    ("pointnet_part", Max, "classification", "there is a network 'pointnet_part' already"),
    ("max", Max(), "classification", "the network 'max' must be a class of nn.Module, got Max"),
    ("max", nn.Linear, "classification", "Linear, the network 'max', must take in_channels and num_classes"),
    ("max", Max, "part", "Max, the network 'max', must take num_parts"),
    ("max", Max, "parts", "no task 'parts'; did you mean 'part'?"),
])  # fmt: skip
def test_what_cannot_be_registered_is_refused_by_name(name, kind, task, message):
    with pytest.raises(ValueError, match=message):
        register_model(name, kind, task)


def solids(root, split, num_points):
    data = two_shapes(16, num_points, seed=int(split == "test"))
    data.scale = "as given"
    return data


@pytest.mark.slow
def test_a_registered_data_set_is_trained_on_and_its_runs_are_evaluated(tmp_path, capsys):
    register_dataset("solids", solids)
    out = tmp_path / "x"
    words = ["--dataset", "solids", "--num-points", "32", "--early_points", "0", "--width", "0.1", "--epochs", "2"]
    assert command_line.main(["train", *words, "--device", "cpu", "--out", str(out)]) == 0
    assert command_line.main(["evaluate", str(out), "--json"]) == 0
    assert command_line.main(["show", "solids", "--out", str(tmp_path / "show"), "--num_points", "32"]) == 0
    capsys.readouterr()
    line = error_of(capsys, command_line.main, ["train", *words, "--features", "rgb"])
    assert "the data set solids has no rgb" in line
    assert "the data set solids has columns of its own" in error_of(
        capsys, command_line.main, ["train", *words, "--columns", "x,y,z"]
    )


@pytest.mark.parametrize(("name", "opener", "task", "message"), [
    ("shapes", solids, "classification", "there is a data set 'shapes' already"),
    ("s3dis", solids, "classification", "there is a data set 's3dis' already"),
    ("mine", two_shapes(4), "classification", "'mine' must be opened by a function, got"),
    ("mine", lambda root: LabelledClouds, "classification", "must take num_points, split"),
    ("mine", solids, "scenes", "no task 'scenes'; did you mean 'scene'?"),
])  # fmt: skip
def test_a_data_set_that_cannot_be_registered_is_refused_by_name(name, opener, task, message):
    with pytest.raises(ValueError, match=message):
        register_dataset(name, opener, task)
