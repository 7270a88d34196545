"""The metrics, against plain counting one point at a time; evaluation, and its votes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pointnet import PointNetClassifier
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.metrics import ConfusionMatrix, PartScores, SceneScores, likely
from tests.helpers import assert_equal_states, two_shapes

DRAWS = {
    "clouds": st.integers(1, 6),
    "points": st.integers(1, 12),
    "labels": st.integers(1, 6),
    "ragged": st.booleans(),
    "seed": st.integers(0, 10_000),
}


class Labels:
    """Predicted and true labels (B, N) at random, agreeing on about half of the points."""

    def __init__(self, clouds: int, points: int, labels: int, ragged: bool, seed: int):
        torch.manual_seed(seed)
        self.true = torch.randint(0, labels, (clouds, points))
        self.predicted = torch.where(
            torch.rand(clouds, points) < 0.5, self.true, torch.randint(0, labels, (clouds, points))
        )
        self.valid = torch.rand(clouds, points) < 0.7 if ragged else None
        if ragged:
            self.valid[0, 0] = True
        self.clouds = []  # of each cloud its pairs (predicted, true)
        for b in range(clouds):
            kept = torch.ones(points).bool() if self.valid is None else self.valid[b]
            self.clouds.append(list(zip(self.predicted[b, kept].tolist(), self.true[b, kept].tolist(), strict=True)))
            for tensor in (self.predicted, self.true):  # where there is no point, there may be anything
                tensor[b, ~kept] = torch.randint(-5, 100, (int((~kept).sum()),))

    def update(self, scores: PartScores | SceneScores, batch: int, *more: Tensor) -> None:
        for rows in torch.arange(len(self.true)).split(batch):
            given = (None if self.valid is None else self.valid[rows],)
            scores.update(self.predicted[rows], self.true[rows], *given, *(tensor[rows] for tensor in more))


def table(parts_of: list[list[int]], num_parts: int) -> Tensor:
    return torch.tensor([[part in parts for part in range(num_parts)] for parts in parts_of])


def intersection_over_union(pairs: list[tuple[int, int]], label: int) -> float | None:
    """None where no point is predicted to have the label or has it."""
    predicted = {n for n, (guess, _) in enumerate(pairs) if guess == label}
    true = {n for n, (_, truth) in enumerate(pairs) if truth == label}
    return len(predicted & true) / len(predicted | true) if predicted | true else None


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def share_right(pairs: list[tuple[int, int]]) -> float:
    return mean([guess == truth for guess, truth in pairs])


@given(**DRAWS, categories=st.integers(1, 4), batch=st.integers(1, 6))
def test_part_scores_are_those_of_counting_by_hand(categories, batch, **draws):
    data = Labels(**draws)
    parts_of = [sorted(set(torch.randint(0, draws["labels"], (3,)).tolist())) for _ in range(categories)]
    category = torch.randint(0, categories, (draws["clouds"],))
    scores = PartScores(table(parts_of, draws["labels"]))
    data.update(scores, batch, category)
    ious: list[list[float]] = [[] for _ in parts_of]
    for pairs, kind in zip(data.clouds, category.tolist(), strict=True):
        of_parts = [intersection_over_union(pairs, part) for part in parts_of[kind]]
        ious[kind].append(mean([1.0 if iou is None else iou for iou in of_parts]))
    assert scores.result() == {
        "instance_miou": pytest.approx(mean([iou for of_category in ious for iou in of_category]), abs=1e-12),
        "class_miou": pytest.approx(mean([mean(of_category) for of_category in ious if of_category]), abs=1e-12),
        "point_accuracy": pytest.approx(share_right([pair for pairs in data.clouds for pair in pairs]), abs=1e-12),
        "count": draws["clouds"],
    }


@given(**DRAWS, unused=st.integers(0, 2), batch=st.integers(1, 6))
def test_scene_scores_are_those_of_counting_by_hand(unused, batch, **draws):
    data = Labels(**draws)
    classes = draws["labels"] + unused
    scores = SceneScores(classes)
    data.update(scores, batch)
    pairs = [pair for cloud in data.clouds for pair in cloud]
    ious = [intersection_over_union(pairs, label) for label in range(classes)]
    by_class = [[pair for pair in pairs if pair[1] == label] for label in range(classes)]
    assert scores.result() == {
        "point_accuracy": pytest.approx(share_right(pairs), abs=1e-12),
        "mean_class_accuracy": pytest.approx(mean([share_right(of) for of in by_class if of]), abs=1e-12),
        "mean_class_iou": pytest.approx(mean([iou for iou in ious if iou is not None]), abs=1e-12),
        "count": len(pairs),
    }


def test_nothing_waits_for_the_device_before_the_result():
    parts, scenes = PartScores(torch.ones(1, 2).bool(), "meta"), SceneScores(2, "meta")
    labels = torch.zeros(3, 4, dtype=torch.int64, device="meta")
    for valid in (None, labels == 0):  # a meta tensor has no number to wait for
        parts.update(labels, labels, valid, labels[:, 0])
        scenes.update(labels, labels, valid)


def test_labels_of_another_shape_are_one_clear_line():
    labels = torch.zeros(2, 5).long()
    for scores, more in ((SceneScores(2), ()), (PartScores(torch.ones(1, 1).bool()), (None, torch.zeros(2).long()))):
        for wrong in (labels[0], labels[:1], labels[:, :4]):
            with pytest.raises(ValueError, match="predicted and true labels must have one shape, got"):
                scores.update(wrong, labels, *more)


@pytest.mark.parametrize("wrong", [-1, 2, 255])
def test_labels_that_are_none_of_the_classes_are_refused_where_they_count(wrong):
    labels, valid = torch.tensor([[0, 1, wrong]]), torch.tensor([[True, True, False]])
    for scores, more in ((SceneScores(2), ()), (PartScores(torch.ones(1, 2).bool()), (torch.zeros(1).long(),))):
        scores.update(labels, labels, valid, *more)
        for name, pair in (("predicted", (labels, labels * 0)), ("true", (labels * 0, labels))):
            with pytest.raises(ValueError, match=f"{name} labels must be 0 to 1, got {wrong}"):
                scores.update(*pair, None, *more)


def test_answers_that_are_not_finite_are_wrong():
    class Lost(torch.nn.Module):
        def forward(self, x):
            logits = torch.stack([1 - 2 * (x[:, 2].std(1) > 0.2).float(), torch.zeros(len(x))], 1)
            return logits.masked_fill((torch.arange(len(x)) == 0).unsqueeze(1), torch.nan)

    scores = evaluate(Lost(), two_shapes(per_class=8))
    assert scores["overall_accuracy"] == 15 / 16
    assert scores["loss"] != scores["loss"]


def test_accuracies_count_every_sample_once_and_every_occurring_class_alike():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]))
    confusion.update(torch.tensor([1]), torch.tensor([1]))
    assert confusion.result() == {
        "overall_accuracy": 0.75,
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
        "count": 4,
    }


def test_evaluation_leaves_the_model_in_its_mode_and_does_not_depend_on_the_batch():
    model = PointNetClassifier(2, input_transform=False, feature_transform=False, widths=[[8], [16]]).train()
    data = two_shapes(per_class=20)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = evaluate(model, data)
    assert all(module.training for module in model.modules())
    assert_equal_states(model.state_dict(), state)
    frozen = {name: name != "" and not name.startswith("encoder") for name, _ in model.named_modules()}
    for name, module in model.named_modules():
        module.training = frozen[name]
    evaluate(model, data)
    assert {name: module.training for name, module in model.named_modules()} == frozen
    model.eval()
    alone = sum(int(model(points[None]).argmax()) == label for points, label in (data[i] for i in range(len(data))))
    assert scores["overall_accuracy"] == alone / len(data)


class Compass(torch.nn.Module):
    """Scores two classes by which way the mean point lies, east or west; it is as sure as it is far out."""

    def forward(self, x):
        east = x[:, 0].mean(1)
        return torch.stack([4 * east, -4 * east], 1)


def test_votes_are_the_mean_probability_over_even_rotations():
    data = two_shapes()
    data.points[:, 0] += 0.3
    x, y = data.points[:, 0].mean(1), data.points[:, 1].mean(1)
    degrees = torch.tensor([0.0, 120.0, 240.0]).deg2rad()
    easts = degrees.cos()[:, None] * x - degrees.sin()[:, None] * y
    wanted = torch.stack([4 * easts, -4 * easts], -1).softmax(-1).mean(0)
    scores = evaluate(Compass(), data, votes=3)
    right = wanted.argmax(1) == data.labels
    assert scores["overall_accuracy"] == pytest.approx(float(right.float().mean()))
    picked = wanted[torch.arange(len(data)), data.labels]
    assert scores["loss"] == pytest.approx(float(-picked.log().mean()), rel=1e-5)
    assert evaluate(Compass(), data)["loss"] != pytest.approx(scores["loss"], rel=1e-2)
    with pytest.raises(ValueError, match="votes must be a whole number of at least 1, got 0"):
        evaluate(Compass(), data, votes=0)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (6, 6), (0, 6), (3, 7), (1110, 1231)])
def test_the_likely_shares_end_where_what_was_found_is_unlikely(right, count):
    """By the definition: there the found share is 1.96 standard deviations away; but none is beyond 0 and 1."""
    share, (low, high) = right / count, likely(right / count, count)
    assert 0 <= low < high <= 1
    for end, share_beyond in ((low, 0), (high, 1)):
        if share == share_beyond:
            assert end == pytest.approx(share)
        else:
            assert abs(share - end) == pytest.approx(1.96 * (end * (1 - end) / count) ** 0.5, rel=1e-4)
    assert likely(1 - share, count) == pytest.approx((1 - high, 1 - low))
