"""Points without a label: a network sees them, in training, in evaluation and in `predict`, and nothing counts them."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pointnet import __main__ as command_line
from pointnet import label_points, load_model
from pointnet.datasets import UNLABELLED, LabelledPoints, SceneFolder, split_parts
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.packed import open_packed
from pointnet.datasets.packing import pack_split
from pointnet.datasets.point_labels import IGNORED, draw_labelled
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.metrics import PartScores
from pointnet.evaluation.tasks import TASKS
from pointnet.training import fit
from pointnet.training.losses import balanced_weights, label_loss, point_loss, soft_iou
from pointnet.training.network import Own
from pointnet.training.run import Run
from pointnet.training.run_folder import read_metrics
from pointnet.training.settings import TrainConfig
from pointnet.training.small_sets import accuracy_by_chance, lines_on_data
from pointnet.world import World
from tests.helpers import halves, quiet, small
from tests.own_points import CLASSES, make_object, make_yard, own_points, save, some_labels


def write_pins(root, seed: int = 0, count: int = 4) -> dict:
    """Files of which half of the points of one label have none -> the true labels, -1 of such points, by file."""
    truth = {}
    for i in range(count):
        rows = make_object("pin", seed + i)
        rows[np.flatnonzero(rows[:, 3] == 1)[::2], 3] = -1
        truth[save(root / "pin" / f"{i}.ply", rows, "x y z label").name] = rows[:, 3]
    return truth


# The loss.


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)])
def test_the_loss_is_that_of_the_labelled_points(smoothing, weights):
    logits = torch.randn(4, 3, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (4, 7))
    labels[0], labels[1, 2:] = IGNORED, IGNORED
    each = F.cross_entropy(logits, labels.clamp(min=0), label_smoothing=0, reduction="none")
    evenly = -logits.log_softmax(1).mean(1)
    scale = 1.0 if weights is None else weights[labels.clamp(min=0)]
    wanted = (torch.lerp(each, evenly, smoothing) * scale)[labels >= 0].mean()
    found = point_loss(logits, labels, smoothing, weights)
    torch.testing.assert_close(found, wanted)
    if weights is None:
        torch.testing.assert_close(found, F.cross_entropy(logits, labels, label_smoothing=smoothing))
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, logits)[0])
    assert not gradient[0].any()
    assert not gradient[1, :, 2:].any()


def test_the_losses_of_shares_of_a_batch_add_up_however_few_labels_each_has():
    logits, labels = torch.randn(6, 3, 9, dtype=torch.float64), torch.full((6, 9), IGNORED)
    labels[0, 4], labels[1, :2], labels[4, 3] = 1, 2, 0
    whole = point_loss(logits, labels, 0.1)
    for cut in (1, 2, 3, 5):
        losses = []
        for rows, share in ((slice(cut), cut / 6), (slice(cut, 6), 1 - cut / 6)):
            losses.append(share * point_loss(logits[rows], labels[rows], 0.1, None, torch.tensor(4 * share)))
        torch.testing.assert_close(sum(losses), whole, rtol=1e-6, atol=0)
    assert float(point_loss(logits[2:4], labels[2:4], 0.1, None, torch.tensor(0.0))) == 0


def test_where_no_point_has_a_label_there_is_nothing_to_learn():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = label_loss(TrainConfig(label_smoothing=0.1), logits, torch.full((2, 5), IGNORED), None)
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_the_soft_iou_is_that_of_the_labelled_points():
    logits, labels = torch.randn(3, 4, 9), torch.randint(0, 4, (3, 9))
    unlabelled = labels.clone()
    unlabelled[:, 5:] = IGNORED
    torch.testing.assert_close(soft_iou(logits, unlabelled), soft_iou(logits[:, :, :5], labels[:, :5]))


def test_labels_are_weighted_and_guessed_by_the_points_that_have_one():
    data = some_labels(halves("part", per_class=3))
    points, parts, own = split_parts(data.batch(slice(None))[0])
    assert points.isfinite().all()
    counts = parts[own & (parts != IGNORED)].bincount(minlength=4)
    assert counts.sum() == 2 * 4 + 4 * 21
    torch.testing.assert_close(balanced_weights(data), counts.sum() / (4 * counts))
    both = [parts[rows][parts[rows] >= 0].bincount().max() for rows in (slice(3), slice(3, 6))]
    assert accuracy_by_chance(TASKS["part"], data) == int(sum(both)) / int((parts >= 0).sum())


def test_a_shape_without_a_labelled_point_does_not_count():
    scores = PartScores(torch.ones(2, 2, dtype=torch.bool))
    true, predicted = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]), torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0]])
    scores.update(predicted, true, torch.tensor([[True] * 4, [False] * 4]), torch.tensor([0, 1]))
    found = scores.result()
    assert found["count"] == 1
    assert found["instance_miou"] == found["class_miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["point_accuracy"] == 0.75


def test_arrays_whose_clouds_have_no_label_or_another_sign_of_none_are_refused():
    stored, names = halves("part").batch(slice(None))[0].clone(), ["a", "b", "c", "d"]
    stored[3, -1, :32], stored[3, -1, 32:] = UNLABELLED, -1 - UNLABELLED
    with pytest.raises(ValueError, match="cloud 3 has no labelled point; leave out such clouds"):
        LabelledPoints(stored, torch.zeros(len(stored)), ["one"], names)
    stored[3, -1] = IGNORED
    with pytest.raises(ValueError, match="a point without a label has UNLABELLED, 16777215, and not -100$"):
        LabelledPoints(stored, torch.zeros(len(stored)), ["one"], names)


@pytest.mark.parametrize("task", ["part", "scene"])
def test_only_own_points_with_a_label_are_valid(task):
    data = some_labels(halves(task, per_class=3))
    _, _, labels, valid = TASKS[task].examples(*data.batch(slice(None)))
    assert valid.sum(1).tolist() == [4, 4, 21, 21, 21, 21]
    assert (labels[valid] >= 0).all()
    assert not valid[:, 32:].any()


def test_no_label_is_no_label_that_only_validation_has():
    every = halves("part", per_class=12)
    assert not any("labels that" in line for line in lines_on_data(TrainConfig(task="part"), every, some_labels(every)))


# Files.


def test_of_files_the_network_sees_the_same_points_whether_they_have_labels_or_not(tmp_path):
    for name, drop in (("all", False), ("some", True)):
        for i in range(2):
            rows, yard = make_object("pin", i), make_yard(i)
            if drop:
                rows[np.flatnonzero(rows[:, 3] == 1)[::2], 3] = -1
                yard[::3, 4] = -7
            save(tmp_path / name / "parts" / "pin" / f"{i}.ply", rows, "x y z label")
            save(tmp_path / name / "yards" / f"{i}.txt", yard, "X Y Z Intensity Classification")
    for kind, folder, share in ((PartFolder, "parts", (0.2, 0.3)), (SceneFolder, "yards", (0.32, 0.35))):
        every, some = (kind(tmp_path / name / folder, num_points=32, test_fraction=0) for name in ("all", "some"))
        assert torch.equal(some.points, every.points)
        has = some.parts != IGNORED
        assert torch.equal(some.parts[has], every.parts[has])
        _, parts, own = split_parts(some.batch(slice(None))[0])
        lost = float((parts[own] == IGNORED).double().mean())
        assert not any("left out" in note for note in some.notes)
        assert share[0] < lost < share[1]
        assert next(note for note in some.notes if "label" in note) == (
            f"{lost:.1%} of the points drawn have no label (a negative one): the network sees them, and they are "
            "neither learned nor scored"
        )


def test_a_score_is_that_of_the_answers_of_predict_on_the_labelled_points(tmp_path):
    truth = write_pins(tmp_path / "set")
    data = PartFolder(tmp_path / "set", num_points=64, test_fraction=0)
    fit(small(tmp_path / "run", "part", dataset="parts", epochs=2, num_points=64), data, log=quiet)
    model = load_model(tmp_path / "run")
    scores = evaluate(model, data, contract=None)
    right = total = 0
    for file in data.files:
        found, labels = label_points(file, model, "pin").labels, truth[file.name]
        right, total = right + int((found == labels)[labels >= 0].sum()), total + int((labels >= 0).sum())
    assert 0 < right < total
    assert scores["point_accuracy"] == right / total


def test_where_few_points_have_a_label_an_eighth_of_those_drawn_has_one():
    labels = np.full(5000, UNLABELLED)
    labels[:900] = np.arange(900) % 5
    rows = np.arange(5000.0)[:, None] * (1, 1, 1)
    for count, few, wanted in ((800, 400, 100), (800, 60, 60), (4000, 900, 720)):
        its = np.where(np.arange(5000) < few, labels, UNLABELLED)
        points, parts, own = split_parts(torch.from_numpy(draw_labelled(rows, its, count, np.random.default_rng(0))))
        chosen = points[0].long()
        assert own.all()
        assert len(chosen.unique()) == count
        assert torch.equal(parts, torch.from_numpy(np.where(its == UNLABELLED, IGNORED, its))[chosen])
        there = (parts >= 0).nonzero()[:, 0]
        assert abs(len(there) - wanted) < (40 if count == 4000 else 1)
        assert abs(float(there.double().mean()) - count / 2) < count / 10  # the first of them are a fair sample


def test_however_it_is_said_that_points_have_none_an_eighth_has_one_and_blocks_without_are_counted(tmp_path):
    found, drawn = [], []
    for filler in (-1, 255):
        yard = make_yard(0, 40_000)
        yard[(yard[:, 0] > 1001) | (np.arange(40_000) % 20 > 0), 4] = filler  # all but a few of the first metre
        root = save(tmp_path / str(filler) / "0.txt", yard, "X Y Z Intensity Classification").parent
        (root / "classes.txt").write_text(f"{CLASSES}255 -\n")
        found.append(data := SceneFolder(root, num_points=512, test_fraction=0, block=2.0))
        drawn.append([int((split_parts(cloud)[1] >= 0).sum()) for cloud in data.batch(slice(None))[0]])
    assert torch.equal(found[0].parts, found[1].parts)
    assert drawn[0] == drawn[1]
    assert min(drawn[0]) > 120  # where a fair sample has a third
    assert found[0].notes == found[1].notes
    (note,) = (note for note in found[0].notes if "left out" in note)
    lost, of_all = re.fullmatch(r"(\d+) of (\d+) blocks left out: no point that was drawn has a label", note).groups()
    assert 0 < int(lost) == int(of_all) - len(found[0])


def test_a_file_without_a_labelled_point_is_named(tmp_path):
    write_pins(tmp_path, count=2)
    rows = make_object("pin", 9)
    rows[:, 3] = 255
    save(tmp_path / "pin" / "none.ply", rows, "x y z label")
    (tmp_path / "parts.txt").write_text("0 stick\n1 ball\n255 other\n")
    assert PartFolder(tmp_path, num_points=32, test_fraction=0).bad == []  # as it is cached
    many = make_object("pin", 8, 9000)
    many[40:, 3] = 255
    save(tmp_path / "pin" / "few.ply", many, "x y z label")
    PartFolder(tmp_path, num_points=32, test_fraction=0)
    (tmp_path / "parts.txt").write_text("0 stick\n1 ball\n255 -\n")
    data = PartFolder(tmp_path, num_points=32, test_fraction=0)
    few = next(i for i, file in enumerate(data.files) if file.stem == "few")
    assert (own_points(data, few)[1] != IGNORED).sum() == 40  # of 9,000, of which 4,096 are drawn
    assert len(data) == 3
    assert [error.reason for error in data.bad] == ["none of the points that were drawn has a label"]
    assert all(set(own_points(data, i)[1]) == {0, 1, IGNORED} for i in range(3))


# Arrays.


def test_arrays_may_have_points_without_a_label(tmp_path):
    data, seen = some_labels(halves("part")), []
    assert set(data[0][1].tolist()) > {IGNORED}

    def loss(logits, labels):
        seen.append(labels)
        return F.cross_entropy(logits, labels)

    fit(small(tmp_path / "own", "part", epochs=1), data, loss=loss, log=quiet)
    assert any((labels == IGNORED).any() for labels in seen)
    result = fit(small(tmp_path / "run", "part", epochs=8), data, log=quiet)
    assert 0.85 < read_metrics(tmp_path / "run")[-1]["train_accuracy"] <= 1  # two thirds of the points have a label
    assert result["val"]["point_accuracy"] > 0.9
    model = load_model(tmp_path / "run")
    scores = evaluate(model, data)
    with torch.no_grad():
        x, parts, own = split_parts(data.batch(slice(None))[0])
        found = model.restrict(model(x, data.labels), data.labels).argmax(1)
    counted = own & (parts >= 0)
    assert scores["point_accuracy"] == pytest.approx(float((found == parts)[counted].double().mean()))
    assert np.isfinite(scores["loss"])


def test_a_loss_of_ones_own_is_not_asked_where_no_point_has_a_label(tmp_path):
    """The mean over none is NaN, and the step would be skipped."""
    data = some_labels(halves("part"))
    own = Own(None, F.cross_entropy)
    run = Run.start(small(tmp_path, "part"), data, torch.device("cpu"), World(), own)
    x, parts, _ = split_parts(data.batch(slice(8))[0])
    assert run.step(x, parts, data.labels[:8]).loss > 0
    loss, _, finite = run.step(x, torch.full_like(parts, IGNORED), data.labels[:8])
    assert finite
    assert loss == 0
    assert not any(weight.grad.any() for weight in run.step.model.parameters())


def test_what_is_packed_and_numbered_anew_keeps_them(tmp_path):
    data = some_labels(halves("part", per_class=6))
    data.channel_names, data.scale, data.centre = ("x", "y", "z", "label"), "unit sphere", True
    pack_split(data, tmp_path / "train", "part", tmp_path)
    packed = open_packed(tmp_path, "train", 32, task="part")
    order = [[*map(tuple, data.points[:, 0].tolist())].index(row) for row in map(tuple, packed.points[:, 0].tolist())]
    assert torch.equal(packed.parts, data.parts[order])
    packed.number_as(packed.classes, packed.part_names[::-1])
    assert torch.equal(packed.parts, torch.where(data.parts < 0, IGNORED, 3 - data.parts)[order])


def test_show_counts_them(tmp_path, capsys):
    for i in range(3):
        yard = make_yard(i)
        yard[::3, 4] = -1
        save(tmp_path / "yards" / f"{i}.txt", yard, "X Y Z Intensity Classification")
    assert command_line.main(["show", "scenes", "--root", str(tmp_path / "yards"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (row,) = (line.split() for line in printed.splitlines() if line.startswith("no label"))
    opened = [SceneFolder(tmp_path / "yards", split) for split in ("train", "test")]
    counts = []
    for data in opened:
        _, parts, own = split_parts(data.batch(slice(None))[0])
        counts.append(int((parts[own] == IGNORED).sum()))
    assert [int(each.replace(",", "")) for each in row[2:]] == counts
    assert '"no label"' in (tmp_path / "scenes.html").read_text()
