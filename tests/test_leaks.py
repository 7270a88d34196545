"""A score that says nothing of new clouds is said to: what was trained on, what any answer would reach."""

import copy
import shutil

import pytest
import torch
from torch import nn

from pointnet import PointNetClassifier
from pointnet import __main__ as command_line
from pointnet.datasets import LabelledClouds, LabelledPoints, MeshFolder
from pointnet.datasets.own_files import OwnFiles
from pointnet.datasets.own_layout import layout_of
from pointnet.evaluation.evaluate import of_single_parts
from pointnet.evaluation.tasks import TASKS
from pointnet.models import MODELS
from pointnet.training import fit
from pointnet.training.leaks import lines_on_leaks, same_clouds
from pointnet.training.network import gives_probabilities
from pointnet.training.run_folder import hash_of_data
from pointnet.training.small_sets import lines_on_data, lines_on_test
from tests.forms import forms
from tests.helpers import SMALL, assert_equal_states, halves, quiet, tiny, two_shapes
from tests.own_points import write_clouds, write_yards

CLOUDS = {"num_points": 16, "early_points": 0, "batch_size": 4, "epochs": 1}


def said_by(out, *data, **changes) -> list[str]:
    """The lines of a run."""
    lines = list[str]()
    fit(tiny(out, epochs=1), *data, log=lines.append, **changes)
    return lines


def turned(data: LabelledClouds) -> LabelledClouds:
    """The same clouds, their points in another order, and one that is new."""
    clouds = data.batch(slice(None))[0][:, :, torch.randperm(data.points.shape[2])]
    clouds[3] *= 1.001
    return LabelledClouds(clouds, data.labels, data.classes)


def test_clouds_of_arrays_that_are_trained_and_tested_on_are_counted(tmp_path):
    data, other = two_shapes(per_class=8), two_shapes(seed=1, per_class=8)
    line = "clouds to test on that are also among those of training: {} of 16; the test score says nothing of others"
    assert line.format(16) in said_by(tmp_path / "a", data, data)
    assert line.format(15) in said_by(tmp_path / "b", data, turned(data))
    assert same_clouds(data, other) == 0
    assert same_clouds(halves("part"), halves("part"), halves("part")) == 32
    moved = copy.deepcopy(data)
    cloud = moved._stored[0]
    inner = next(
        i for i in range(cloud.shape[1]) if (cloud[:, i] > cloud.amin(1)).all() and (cloud[:, i] < cloud.amax(1)).all()
    )
    cloud[:, inner] = cloud.mean(1)  # in the same box
    assert same_clouds(data, moved) == 15
    assert not lines_on_leaks(tiny(tmp_path / "c", overfit_batches=1), data, data, data)


@pytest.mark.parametrize("how", forms(["init", "teacher"], "init"))
def test_files_that_another_network_was_trained_on_are_counted_where_it_teaches(tmp_path, capsys, how):
    root = write_clouds(tmp_path / "set")
    train = MeshFolder(root, num_points=16, test_fraction=0)
    fit(tiny(tmp_path / "taught", **CLOUDS), train, log=quiet)
    leak = tmp_path / "leak"
    for i, file in enumerate(sorted(root.rglob("*.xyz"))):
        place = leak / ("test" if i % 3 == 0 else "train") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    data = [MeshFolder(leak, split, num_points=16) for split in ("train", "test")]
    name = str(tmp_path / "taught")
    lines, given = list[str](), {"init": name} if how == "init" else {"teacher": [name], "distill": 0.5}
    fit(tiny(tmp_path / "x", **CLOUDS, **given), *data, log=lines.append)
    said = f"files to test on that --{how} {name} was trained on: 4, such as "
    assert [line for line in lines if line.startswith(said)]
    words = ["evaluate", str(tmp_path / "x"), "--dataset", "folder", "--root", str(leak), "--device", "cpu"]
    assert command_line.main(words) == 0
    assert "files that the network was trained on: 4, such as" in capsys.readouterr().err


def test_a_category_of_one_part_is_right_by_itself_and_said(tmp_path):
    data, task = halves("part"), TASKS["part"]
    assert not of_single_parts(task, data)
    clouds = data.batch(slice(None))[0]
    clouds[data.labels == 0, -1] = torch.where(clouds[data.labels == 0, -1] < 0, -1.0, 0.0)
    data = LabelledPoints(clouds, data.labels, data.classes, data.part_names, num_points=32)
    data.parts_of[0], data.parts_of[1] = torch.tensor([True, False, False, False]), torch.arange(4) > 1
    line = "categories of a single part: plate; their IoU is 100 % whatever is answered"
    assert of_single_parts(task, data) == [line]
    assert not of_single_parts(task, data.subset(data.labels == 1))
    model = MODELS["pointnet_part"](**task.arguments(data), **SMALL)
    assert of_single_parts(task, data, model) == [line]
    model.parts_of = [[0, 1], [2, 3]]
    assert not of_single_parts(task, data, model)
    assert line in lines_on_data(tiny(tmp_path, task="part"), data, data)


@pytest.mark.parametrize(("share", "says"), [(0.75, True), (0.7501, False), (0.2, True)])
def test_a_test_score_that_one_answer_would_reach_is_said(tmp_path, share, says):
    data = two_shapes(per_class=8)
    few = data.subset(torch.tensor([0, 1, 2, 3, 4, 5, 8, 9]))
    lines = lines_on_test(tiny(tmp_path), few, {"overall_accuracy": share})
    line = f"test: {share:.2%} overall is no more than one answer for all, the commonest, would reach (75.00%)"
    assert lines == [line] * says
    assert not lines_on_test(tiny(tmp_path), data.subset(torch.arange(8)), {"overall_accuracy": 1.0})
    assert not lines_on_test(tiny(tmp_path), None, None)


def test_scans_that_are_all_what_predict_wrote_are_said(tmp_path):
    root = write_yards(tmp_path / "made", 2, size=1500)
    for file in sorted(root.glob("yard_*.txt")):
        file.rename(file.with_suffix(".scene.ply"))
    files = OwnFiles(root, *layout_of(root, True), 0.2, 0)
    line = "all 2 files have labels that predict wrote: scores on them are of answers, not of the truth"
    assert line in files._labelled()


def test_test_clouds_that_are_elsewhere_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(16, 3, 40, generator=generator) * torch.rand(16, 1, 1, generator=generator).add(5)
    points -= points.mean(2, keepdim=True)
    train = LabelledClouds(points, torch.arange(16) % 2, ["a", "b"], 32)
    far = LabelledClouds(points + 3.0, train.labels, train.classes, 32)
    with pytest.raises(ValueError, match="test must have its clouds about the origin, as train has"):
        fit(tiny(tmp_path / "x"), train, far, log=quiet)
    near = LabelledClouds(points * 1.01, train.labels, train.classes, 32)
    fit(tiny(tmp_path / "y", epochs=1), train, near, log=quiet)


class Beside(nn.Module):
    """Scores clouds by what is less in others."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        pooled = x.amax(2)
        return self.linear(pooled - pooled.mean(0))


class Several(nn.Module):
    """Loses the batch of a single cloud."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x.amax(2).squeeze())


def test_a_network_that_mixes_the_clouds_of_a_batch_is_said(tmp_path):
    data = two_shapes(per_class=8)
    line = "does not score a cloud alone as beside others: figures here are of batches, predict's of one"
    assert f"Beside {line}" in said_by(tmp_path / "a", data, model=Beside())
    assert f"Several {line}" in said_by(tmp_path / "c", data, model=Several())
    own = nn.Sequential(PointNetClassifier(2, **SMALL))
    assert not [each for each in said_by(tmp_path / "b", data, model=own) if "as beside others" in each]


def test_a_network_whose_scores_are_probabilities_is_told(tmp_path):
    data, line = two_shapes(per_class=8), "the scores of Sequential are probabilities; the loss expects logits"
    own = PointNetClassifier(2, **SMALL)
    for i, (end, is_said) in enumerate([(nn.Softmax(1), True), (nn.LogSoftmax(1), False), (nn.Identity(), False)]):
        lines = said_by(tmp_path / f"{i}", data, model=nn.Sequential(copy.deepcopy(own), end))
        assert any(each.startswith(line) for each in lines) == is_said
    at_last = type("AtLast", (nn.Module,), {"forward": lambda self, x: x if self.training else x.softmax(1)})
    lines = said_by(tmp_path / "eval", data, model=nn.Sequential(copy.deepcopy(own), at_last()))
    assert not any(each.startswith(line) for each in lines)
    losses = {"model": nn.Sequential(own, nn.Softmax(1)), "loss": lambda scores, labels: -scores.log().mean()}
    assert not any(each.startswith(line) for each in said_by(tmp_path / "own", data, **losses))


def test_a_look_at_scores_in_training_changes_nothing():
    model, data = PointNetClassifier(2, **SMALL).train(), two_shapes(per_class=8)
    model.encoder.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    drawn = torch.random.get_rng_state()
    assert not gives_probabilities(model, TASKS["classification"], data)
    assert [module.training for module in model.modules()] == modes
    assert_equal_states(model.state_dict(), before)
    assert torch.equal(torch.random.get_rng_state(), drawn)


@pytest.mark.slow
def test_a_test_set_that_changed_since_training_is_said(tmp_path, capsys):
    root = write_clouds(tmp_path / "set")
    data = [MeshFolder(root, split, num_points=16) for split in ("train", "test")]
    settings = tiny(tmp_path / "run", dataset="folder", root=str(root), **CLOUDS)
    fit(settings, *data, log=quiet)
    line = "the test set differs from that at the end of training"
    assert hash_of_data(data[1].subset(torch.arange(len(data[1])).flip(0))) == hash_of_data(data[1])
    for more, is_said in (("", False), ("0.1 0.2 0.3\n", True)):
        data[1].files[0].write_text(data[1].files[0].read_text() + more)
        assert command_line.main(["evaluate", settings.out]) == 0
        assert (line in capsys.readouterr().err.splitlines()) == is_said
        assert command_line.main(["report", settings.out]) == 0
        assert (line in capsys.readouterr().err.splitlines()) == is_said
    moved = shutil.move(root, tmp_path / "moved")
    assert command_line.main(["evaluate", settings.out, "--root", str(moved)]) == 0
    assert line in capsys.readouterr().err.splitlines()
    assert command_line.main(["report", settings.out, "--root", str(moved)]) == 0
    assert line in capsys.readouterr().err.splitlines()
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert line in page.lower()
    assert "used for no choice" not in page
