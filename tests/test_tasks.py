"""Segmentation is trained as classification is: the same loop, files and stops, with labels of points."""

import copy
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet import PointNetClassifier, PointNetPartSegmenter, PointNetSegmenter, load_model
from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.datasets import LabelledPoints
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.tasks import TASKS
from pointnet.training import TrainConfig, fit
from pointnet.training.losses import label_loss, point_loss, soft_iou
from pointnet.training.network import check_trains_alone, make_model
from pointnet.training.run_folder import chosen_epoch, read_metrics
from pointnet.training.step import Step
from pointnet.world import World
from tests.forms import forms
from tests.helpers import (
    OWN,
    PARTS,
    ROOT,
    assert_ends_as,
    error_of,
    fit_in_two,
    halves,
    make_room,
    quiet,
    small,
    two_shapes,
    write_text,
)

MODELS = {"classification": PointNetClassifier, "part": PointNetPartSegmenter, "scene": PointNetSegmenter}
SEGMENTATION = ["part", "scene"]


def data_of(task: str) -> tuple:
    if task == "classification":
        return two_shapes(per_class=8), two_shapes(per_class=8, seed=1)
    return halves(task, per_class=8), halves(task, per_class=8, seed=1)


@pytest.fixture(scope="module", params=TASKS)
def finished(request, tmp_path_factory):
    """One finished run of each task: (its folder, its config, what fit returned)."""
    out = tmp_path_factory.mktemp("runs") / request.param
    config = small(out, request.param)
    return out, config, fit(config, *data_of(request.param), log=quiet)


def test_a_run_learns_and_leaves_the_files_of_the_contract(finished):
    out, config, result = finished
    names = {"config.yaml", "config.json", "metrics.jsonl", "model.safetensors", "checkpoint.pt", "result.json"}
    assert {path.name for path in out.iterdir()} == names | {".lock"}
    assert json.loads((out / "result.json").read_text()) == result
    titles, chooser = TASKS[config.task].titles, TASKS[config.task].chooser
    assert list(result["test"]) == [*titles, "count"]
    assert list(result["val"]) == list(titles)
    assert result["test"]["count"] == (16 * 32 if config.task == "scene" else 16)
    least = {"classification": 0.9, "part": 0.75, "scene": 0.25}  # of scenes one answer for all has 0.06
    assert result["test"][chooser] >= least[config.task]
    more = {"selected_epoch", "seconds", "samples_per_second", "shares", "environment", "data", "test_data"}
    assert set(result) == {"test", "val"} | more
    lines = read_metrics(out)
    assert [(line["epoch"], line["num_points"]) for line in lines] == [(1, 16), (2, 16), (3, 32), (4, 32)]
    best = max(lines, key=lambda line: (line[f"val_{chooser}"], -line["val_loss"]))
    assert result["selected_epoch"] == best["epoch"] == chosen_epoch(lines)
    assert all(0 < line["train_accuracy"] <= 1 for line in lines)


def test_the_loaded_model_repeats_the_number_exactly(finished):
    out, config, result = finished
    model = load_model(out)
    assert type(model) is MODELS[config.task]
    assert model.classes == (("disc", "rod") if config.task == "classification" else tuple(PARTS))
    assert not model.training
    assert model.preprocessing["num_points"] == 32
    scores = evaluate(model, data_of(config.task)[1])
    assert {name: scores[name] for name in result["test"]} == result["test"]
    if config.task == "part":
        assert model.preprocessing["categories"] == ["plate", "rod"]
        assert model.parts_of == [[0, 1], [2, 3]]


def test_a_stopped_and_resumed_run_ends_with_the_weights_of_the_unbroken_one(finished, tmp_path):
    out, config, result = finished
    config = dataclasses.replace(config, out=str(tmp_path / "run"), feed="stream")
    resumed = fit_in_two(config, *data_of(config.task))
    assert_ends_as(tmp_path / "run", out)
    assert [resumed[name] for name in ("test", "selected_epoch")] == [result["test"], result["selected_epoch"]]


@pytest.fixture
def batches(monkeypatch) -> list[tuple]:
    """What the steps of a run are called with."""
    seen = []

    def look(step: Step, *given, call=Step.__call__):
        seen.append(given)
        return call(step, *given)

    monkeypatch.setattr(Step, "__call__", look)
    return seen


@pytest.mark.parametrize("task", SEGMENTATION)
def test_labels_go_with_their_points_whatever_becomes_of_them(tmp_path, task, batches):
    moves = {"rotate": 180.0, "shift": 0.2, "point_dropout": 0.5, "mirror": True, "epochs": 2}
    fit(small(tmp_path / "run", task, **moves), data_of(task)[0], log=quiet)
    for x, labels, category, share, *_ in batches:
        assert torch.equal(x[:, 3], labels.float())
        assert (category is None) == (task == "scene")
        assert category is None or torch.equal(category, (labels >= 2).long()[:, 0])
        assert share == 1
    assert {x.shape[2] for x, *_ in batches} == {16, 32}
    assert any(x[0].unique(dim=1).shape[1] < x.shape[2] for x, *_ in batches), "none was dropped"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_category_is_kept_from_the_network_as_often_as_asked(tmp_path, share, batches):
    fit(small(tmp_path / "run", "part", epochs=6, unknown_category=share), halves("part"), log=quiet)
    given, true = torch.cat([torch.stack([each, labels[:, 0] // 2]) for _, labels, each, *_ in batches], 1)
    unknown = given == -1
    assert torch.equal(given[~unknown], true[~unknown])
    assert unknown.double().mean() == pytest.approx(share, abs=0.1)
    assert not 0 < share < 1 or any(0 < (each == -1).sum() < len(each) for _, _, each, *_ in batches)


@pytest.mark.parametrize("task", SEGMENTATION)
def test_each_point_is_measured_once_however_often_it_is_there(task):
    torch.manual_seed(0)
    data = halves(task)
    stored = data.batch(slice(None))[0][:, :, :32]
    once = LabelledPoints(stored, data.labels, data.classes, data.part_names, data.parts_of)
    model = MODELS[task](**TASKS[task].arguments(data), widths=[[4, 8], [8, 16]], head_widths=[8])
    wanted, found = (evaluate(model, each) for each in (once, data))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_an_objects_parts_are_those_of_its_category():
    class Contrary(PointNetPartSegmenter):
        """Finds parts of the other category likelier."""

        def forward(self, x, category):
            logits = torch.tensor([[2.0, 1, 9, 9], [9, 9, 1, 2]])[category]
            return logits.unsqueeze(2).expand(-1, -1, x.shape[2])

    data = halves("part")
    scores = evaluate(Contrary(**TASKS["part"].arguments(data), widths=[[4], [4]], head_widths=[4]), data)
    first = data.parts[:, :32] == torch.tensor([0, 3]).repeat_interleave(16)[:, None]
    assert scores["point_accuracy"] == pytest.approx(float(first.double().mean()))
    assert scores["instance_miou"] == pytest.approx(scores["point_accuracy"] / 2)
    assert scores["loss"] > 7


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_points_is_cross_entropy_among_the_labels_that_are_not_left_out(smoothing):
    targets = torch.randint(0, 3, (5, 7))
    kept = torch.randn(5, 3, 7, dtype=torch.float64, requires_grad=True)
    logits = torch.cat([kept, torch.full((5, 2, 7), -torch.inf, dtype=torch.float64)], 1)
    wanted = F.cross_entropy(kept, targets, label_smoothing=smoothing)
    for given in (kept, logits):
        found = point_loss(given, targets, smoothing)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(*(torch.autograd.grad(loss, kept, retain_graph=True)[0] for loss in (found, wanted)))


@pytest.mark.parametrize("restrict", [True, False])
def test_a_part_of_another_category_costs_nothing_where_the_loss_is_restricted(tmp_path, restrict):
    parts_of, config = halves("part").parts_of, small(tmp_path, "part", restrict=restrict)
    logits = torch.zeros(2, 4, 5)
    logits[0, 2:] = 9  # a plate with parts of a rod
    targets, category = torch.tensor([[0] * 5, [3] * 5]), torch.tensor([0, 1])
    loss = label_loss(config, logits, targets, category, parts_of)
    assert float(loss) == pytest.approx(math.log(2), rel=1e-6) if restrict else float(loss) > 4


def slow_iou(probabilities: Tensor, targets: Tensor) -> float:
    """The mean over clouds and labels, each label of each cloud with one point more that is right."""
    ious = []
    for shares, labels in zip(probabilities, targets, strict=True):
        for label, share in enumerate(shares):
            true = labels == label
            ious.append((share[true].sum() + 1) / (true.sum() + share[~true].sum() + 1))
    return float(torch.stack(ious).mean())


def test_the_soft_iou_is_of_probabilities_and_leaves_out_what_is_left_out():
    targets = torch.tensor([[0, 1, 1, 0, 1, 0, 0], [2, 2, 2, 2, 2, 2, 2]])
    kept = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    wanted = slow_iou(kept.detach().softmax(1), targets)
    more = torch.cat([kept, torch.full((2, 2, 7), -torch.inf, dtype=torch.float64)], 1)
    for logits in (kept, more):
        found = soft_iou(logits, targets)
        (gradient,) = torch.autograd.grad(found, kept)
        assert float(found.detach()) == pytest.approx(wanted, rel=1e-12)
        assert gradient[1, :2].all()  # of labels that no point of the cloud has
    assert torch.autograd.gradcheck(lambda x: soft_iou(x, targets), kept)
    right = 1000 * F.one_hot(targets, 3).mT.double()
    assert float(soft_iou(right, targets)) == 1


def test_overlap_is_the_share_of_the_soft_iou_in_the_loss_of_parts(tmp_path):
    task, data = TASKS["part"], halves("part")
    model = PointNetPartSegmenter(**task.arguments(data))
    logits, targets, category = torch.randn(2, 4, 5), torch.tensor([[0] * 5, [3] * 5]), torch.tensor([0, 1])
    plain, mixed, alone = (
        float(label_loss(small(tmp_path, "part", overlap=share), logits, targets, category, data.parts_of))
        for share in (0.0, 0.25, 1.0)
    )
    assert alone == pytest.approx(1 - float(soft_iou(model.restrict(logits, category), targets)), rel=1e-6)
    assert mixed == pytest.approx(0.75 * plain + 0.25 * alone, rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_width_and_dropout_are_the_networks(tmp_path, task):
    dataset = {"classification": "shapes", "part": "shapes", "scene": "s3dis"}[task]
    shares = {"width": 0.25, "tnet_width": 0.125}
    config = TrainConfig(task=task, dataset=dataset, **shares, dropout=0.4, input_transform=False, device="cpu")
    model = make_model(config, halves(task), torch.device("cpu"), World())
    published = type(model)()
    for name, times in (("widths", 4), ("head_widths", 4), ("tnet_widths", 8)):
        wide, narrow = (torch.tensor(each.arguments[name][-1]) for each in (published, model))
        assert torch.equal(narrow * times, wide)
    assert {part.p for part in model.modules() if isinstance(part, nn.Dropout)} == {0.4}


def own_files(task: str, root: Path) -> list[str]:
    """A few files of a task in the layout that the command reads: the words that name them."""
    if task == "classification":
        for mesh in (ROOT / "data" / "samples" / "ModelNet40").rglob("*.off"):
            (root / mesh.parent.parent.name).mkdir(exist_ok=True)
            for i in range(4):
                shutil.copy(mesh, root / mesh.parent.parent.name / f"{mesh.stem}_{i}.off")
        (root / "chair" / "broken.off").write_text("OFF\n9 9 9\n0 0 0\n")
        return ["--dataset", "folder"]
    if task == "part":
        write_text(root, OWN, {"Tree": [0, 1], "Park bench": [0, 1, 2]}, sizes=(40, 40, 40))
        return ["--dataset", "shapenetpart"]
    (root / "stanford_indoor3d").mkdir()
    for seed, name in enumerate(("Area_1_office_1", "Area_1_office_2", "Area_5_office_1")):
        np.save(root / "stanford_indoor3d" / f"{name}.npy", make_room(800, (1.4, 0.9, 2), seed))
    return ["--dataset", "s3dis"]


@pytest.mark.parametrize("task", forms(TASKS, "classification"))
def test_the_commands_train_and_measure_ones_own_files(task, tmp_path, capsys):
    (tmp_path / "root").mkdir()
    data = [*own_files(task, tmp_path / "root"), "--root", str(tmp_path / "root")]
    few = ["--width", "0.05", "--epochs", "2", "--num_points", "64", "--early_points", "32", "--batch_size", "2"]
    few += ["--input_transform", "false", "--feature_transform", "false", "--device", "cpu"]
    out = tmp_path / "run"
    assert train.main(["--task", task, *data, *few, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    test = json.loads((out / "result.json").read_text())["test"]
    assert f"test: {TASKS[task].summary(test)}" in printed
    told = " --category NAME" if task == "part" else ""
    assert f"python -m pointnet predict FILE --model {out}{told}\n" in printed
    if task == "classification":
        assert "\n1 file skipped; listed at the end\n" in printed
        assert "broken.off: declares 9 vertices" in printed
        assert "broken.off" in error_of(capsys, train.main, [*data, *few, "--strict", "--out", str(tmp_path / "x")])
        broken = tmp_path / "broken" / "rod"
        broken.mkdir(parents=True)
        (broken / "a.off").write_text("OFF\n")
        shutil.copytree(tmp_path / "root" / "chair", tmp_path / "broken" / "chair")
        refused = ["--dataset", "folder", "--root", str(tmp_path / "broken"), *few, "--out", str(tmp_path / "y")]
        assert train.main(refused) == 2
        captured = capsys.readouterr()
        assert "needs shapes of at least two classes" in captured.err
        assert "a.off: must give" in captured.out
    assert command_line.main(["evaluate", str(out), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(TASKS[task].summary(test))
    if task != "classification":
        wrong = ["evaluate", str(out), "--dataset", "modelnet40"]
        assert "the data set modelnet40 is not for the task" in error_of(capsys, command_line.main, wrong)


def test_what_segmentation_cannot_do_is_one_line(capsys):
    for words, message in (
        (["--task", "scene", "--teacher", "x"], "teacher is for the task classification, not scene"),
        (["--task", "part", "--dataset", "modelnet40"], "not for the task part, only shapes, shapenetpart"),
        (["--task", "scene", "--dataset", "s3dis_area7"], "did you mean 's3dis_area"),
        (["--task", "part", "--model", "pointnet_part"], "no model 'pointnet_part'; did you mean 'pointnet'?"),
    ):
        assert message in error_of(capsys, train.main, words)


def test_to_try_whether_a_single_cloud_trains_a_network_leaves_it_as_it_is():
    data, task = halves("part").subset(torch.arange(1)), TASKS["part"]
    plain = {"input_transform": False, "feature_transform": False}
    model = PointNetPartSegmenter(**task.arguments(data), **plain, widths=[[4], [4]], head_widths=[4]).eval()
    before = copy.deepcopy(model.state_dict())
    check_trains_alone(model, task, data, torch.device("cpu"), has_tnets_to_choose=True)
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
