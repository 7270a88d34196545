"""Counting right answers, on the device, over every sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts of (true class, predicted class), kept on the device until they are asked for.

    `titles` says what each figure of `result` is called; the first is what a training run chooses its epoch by. `sums`
    are the tensors that hold all: added up over processes, they are those of all samples.
    """

    titles: ClassVar[Mapping[str, str]] = {"overall_accuracy": "overall", "mean_class_accuracy": "mean class"}

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.sums = [self.counts]

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Adds a batch of (B,) predicted and true labels."""
        self.counts.view(-1).scatter_add_(0, true * len(self.counts) + predicted, torch.ones_like(true))

    def result(self) -> dict[str, float | int]:
        """Overall accuracy, mean class accuracy (over the classes that occur) and the count; fractions in [0, 1]."""
        counts = self.counts.cpu().double()
        of_class, right = counts.sum(1), counts.diagonal()
        occurs = of_class > 0
        return {
            "overall_accuracy": float(right.sum() / of_class.sum()),
            "mean_class_accuracy": float((right[occurs] / of_class[occurs]).mean()),
            "count": int(of_class.sum()),
        }


class SceneScores(ConfusionMatrix):
    """Scores of scene segmentation, over all points of a set as if of one scene; kept on the device likewise."""

    titles: ClassVar[Mapping[str, str]] = {
        "mean_class_iou": "mean class IoU",
        "point_accuracy": "points",
        "mean_class_accuracy": "mean class",
    }

    def update(self, predicted: Tensor, true: Tensor, counted: Tensor | None = None) -> None:
        """Adds a batch of predicted and true classes (B, N); of its points those that `counted` (B, N) says, or all."""
        counted = _checked(predicted, true, counted)
        pairs = torch.where(counted, true * len(self.counts) + predicted, 0)
        self.counts.view(-1).scatter_add_(0, pairs.flatten(), counted.flatten().to(torch.int64))

    def of_classes(self) -> list[float]:
        """The IoU of each class: of the points that are of it or predicted to be, the share that are both.

        NaN for a class that neither occurs nor is predicted.
        """
        counts = self.counts.cpu().double()
        both = counts.diagonal()
        return (both / (counts.sum(0) + counts.sum(1) - both)).tolist()

    def result(self) -> dict[str, float | int]:
        """The mean IoU over the classes that have one, the share of points that are right, the mean of that share over
        the classes that occur, and the number of points; fractions in [0, 1]."""
        scores = super().result()
        return {
            "mean_class_iou": float(torch.tensor(self.of_classes(), dtype=torch.float64).nanmean()),
            "point_accuracy": scores["overall_accuracy"],
            "mean_class_accuracy": scores["mean_class_accuracy"],
            "count": scores["count"],
        }


class PartScores:
    """Scores of part segmentation by the published protocol (PointNet, section 5.1), kept on the device likewise.

    The IoU of a part of a shape is, of the points that are of it or predicted to be, the share that are both; 1 where
    there are none. The IoU of a shape is the mean over all parts of its category, whether it has them or not.

    Args:
        parts_of: (categories, parts) bool, which parts a category has.

    `titles` and `sums` as of `ConfusionMatrix`.
    """

    titles: ClassVar[Mapping[str, str]] = {
        "instance_miou": "instance mIoU", "class_miou": "class mIoU", "point_accuracy": "points"
    }  # fmt: skip

    def __init__(self, parts_of: Tensor, device: torch.device | str = "cpu"):
        self.parts_of = parts_of.to(device)
        self.iou = torch.zeros(len(parts_of), dtype=torch.float64, device=device)  # the sum over a category's shapes
        self.shapes = torch.zeros(len(parts_of), dtype=torch.int64, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.points = torch.zeros((), dtype=torch.int64, device=device)
        self.sums = [self.iou, self.shapes, self.right, self.points]

    def update(self, predicted: Tensor, true: Tensor, category: Tensor, counted: Tensor | None = None) -> None:
        """Adds a batch of shapes of these categories (B,), with predicted and true parts (B, N); of its points those
        that `counted` (B, N) says, or all."""
        counted = _checked(predicted, true, counted)
        hit = counted & (predicted == true)
        both = self._count(true, hit)
        either = self._count(true, counted) + self._count(predicted, counted & ~hit)
        iou = torch.where(either > 0, both / either.clamp(min=1), 1.0)
        belongs = self.parts_of[category].double()
        of_shape = (iou * belongs).sum(1) / belongs.sum(1)
        is_of = (category.unsqueeze(1) == torch.arange(len(self.shapes), device=category.device)).double()
        self.iou += (of_shape.unsqueeze(1) * is_of).sum(0)
        self.shapes += is_of.sum(0).long()
        self.right += hit.sum()
        self.points += counted.sum()

    def _count(self, parts: Tensor, among: Tensor) -> Tensor:
        """How many points of each shape have each part: (B, N), (B, N) bool -> (B, num_parts) float64."""
        counts = torch.zeros(len(parts), self.parts_of.shape[1], dtype=torch.float64, device=parts.device)
        return counts.scatter_add_(1, torch.where(among, parts, 0), among.double())

    def of_categories(self) -> list[float]:
        """The mean IoU of the shapes of each category; NaN where there are none."""
        return (self.iou / self.shapes).tolist()

    def result(self) -> dict[str, float | int]:
        """The mean IoU of all shapes, the mean of `of_categories`, the share of all points that are right, and the
        number of shapes; fractions in [0, 1]."""
        return {
            "instance_miou": float(self.iou.sum() / self.shapes.sum()),
            "class_miou": float((self.iou / self.shapes).nanmean()),
            "point_accuracy": float(self.right.double() / self.points),
            "count": int(self.shapes.sum()),
        }


def _checked(predicted: Tensor, true: Tensor, counted: Tensor | None) -> Tensor:
    """(B, N) bool: the points that count. ValueError unless both are (B, N)."""
    if predicted.dim() != 2 or predicted.shape != true.shape:
        raise ValueError(f"labels must be (B, N), both alike, got {tuple(predicted.shape)} and {tuple(true.shape)}")
    return torch.ones_like(true, dtype=torch.bool) if counted is None else counted
