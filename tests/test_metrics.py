"""Scores of segmentation by the published protocols, against plain counting, one point at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pointnet.evaluation.metrics import PartScores, SceneScores

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
        self.counted = torch.rand(clouds, points) < 0.7 if ragged else None
        if ragged:
            self.counted[0, 0] = True
        self.clouds = []  # of each cloud its pairs (predicted, true)
        for b in range(clouds):
            kept = torch.ones(points).bool() if self.counted is None else self.counted[b]
            self.clouds.append(list(zip(self.predicted[b, kept].tolist(), self.true[b, kept].tolist(), strict=True)))
            for tensor in (self.predicted, self.true):  # where there is no point, there may be anything
                tensor[b, ~kept] = torch.randint(-5, 100, (int((~kept).sum()),))

    def update(self, scores: PartScores | SceneScores, batch: int, *more: Tensor) -> None:
        for rows in torch.arange(len(self.true)).split(batch):
            given = () if self.counted is None else (self.counted[rows],)
            scores.update(self.predicted[rows], self.true[rows], *(tensor[rows] for tensor in more), *given)


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


@settings(max_examples=100)
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
    wanted = [mean(of_category) if of_category else math.nan for of_category in ious]
    assert scores.of_categories() == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@settings(max_examples=100)
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
    wanted = [math.nan if iou is None else iou for iou in ious]
    assert scores.of_classes() == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_a_part_that_is_neither_there_nor_predicted_counts_as_right():
    scores = PartScores(table([[0, 1], [2, 3, 4]], 5))
    scores.update(torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 0]]), torch.tensor([0]))
    assert scores.result()["instance_miou"] == 1
    # Part 2: 1 of 3; part 3: 0 of 1, and 4 neither there nor predicted: (1/3 + 0 + 1) / 3.
    scores.update(torch.tensor([[2, 2, 3, 0]]), torch.tensor([[2, 0, 2, 0]]), torch.tensor([1]))
    assert scores.of_categories() == [1, pytest.approx(4 / 9)]
    assert scores.result() == {
        "instance_miou": pytest.approx(13 / 18),
        "class_miou": pytest.approx(13 / 18),
        "point_accuracy": 6 / 8,
        "count": 2,
    }


def test_instances_count_alike_and_so_do_categories():
    scores = PartScores(table([[0], [1]], 2))
    wrong, right = torch.zeros(1, 4).long(), torch.ones(1, 4).long()
    scores.update(wrong, right, torch.tensor([1]))
    for _ in range(3):
        scores.update(wrong, wrong, torch.tensor([0]))
    assert scores.result()["instance_miou"] == 0.75
    assert scores.result()["class_miou"] == 0.5


def test_nothing_waits_for_the_device_before_the_result():
    parts, scenes = PartScores(torch.ones(1, 2).bool(), "meta"), SceneScores(2, "meta")
    labels = torch.zeros(3, 4, dtype=torch.int64, device="meta")
    for known in ((), (labels == 0,)):  # a meta tensor has no number to wait for
        parts.update(labels, labels, labels[:, 0], *known)
        scenes.update(labels, labels, *known)


def test_labels_of_another_shape_are_met_with_one_clear_line():
    labels = torch.zeros(2, 5).long()
    for scores, more in ((SceneScores(2), ()), (PartScores(torch.ones(1, 1).bool()), (torch.zeros(2).long(),))):
        for wrong in (labels[0], labels[:1], labels[:, :4]):
            with pytest.raises(ValueError, match=r"labels must be \(B, N\), both alike, got"):
                scores.update(wrong, labels, *more)
