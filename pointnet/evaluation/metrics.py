"""Metrics over a whole split. Counts stay on the device until `result` is called, so no batch waits for it."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pointnet.ops.masked import check_range


class ConfusionMatrix:
    """Counts of (true class, predicted class).

    `titles` says how people call each metric of `result`; training chooses the epoch by the first. `sums` are the
    accumulators: added up over the processes of a run, they are those of the whole split.
    """

    titles: ClassVar[Mapping[str, str]] = {"overall_accuracy": "overall", "mean_class_accuracy": "mean class"}

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.sums = [self.counts]

    def update(self, predicted: Tensor, true: Tensor, valid: Tensor | None = None) -> None:
        """Adds a batch of predicted and true labels, (B,) or (B, N); only where `valid` is True, if it is given."""
        self.counts += pair_counts(predicted, true, valid, len(self.counts))[0]

    def result(self) -> dict[str, float | int]:
        """Overall accuracy, mean class accuracy (over the classes that occur) and the count; fractions in [0, 1]."""
        counts = self.counts.cpu().double()
        of_class, right = counts.sum(1), counts.diagonal()
        return {
            "overall_accuracy": float(right.sum() / of_class.sum()),
            "mean_class_accuracy": float((right / of_class).nanmean()),
            "count": int(of_class.sum()),
        }

    def of_class(self) -> Tensor:
        """The accuracy of each class (classes,); NaN of one that does not occur."""
        counts = self.counts.cpu().double()
        return counts.diagonal() / counts.sum(1)


class SceneScores(ConfusionMatrix):
    """Metrics of scene segmentation, over all points of a split as if they were one scene."""

    titles: ClassVar = {
        "mean_class_iou": "mean class IoU", "point_accuracy": "points", "mean_class_accuracy": "mean class"
    }  # fmt: skip

    def result(self) -> dict[str, float | int]:
        """The mean IoU over the classes that occur or are predicted, the accuracy over points, its mean over the
        classes that occur, and the number of points; fractions in [0, 1].

        The IoU of a class: points that have it and are predicted to, over points that have it or are predicted to.
        """
        iou, found = self.of_class(), super().result()
        return {"mean_class_iou": float(iou.nanmean()), "point_accuracy": found.pop("overall_accuracy"), **found}

    def of_class(self) -> Tensor:
        """The IoU of each class (classes,); NaN of one that neither occurs nor is predicted."""
        return intersection_over_union(self.counts.cpu().double())


class PartScores:
    """Metrics of part segmentation by the published protocol (PointNet, section 5.1).

    The IoU of a part of a shape: points that have it and are predicted to, over points that have it or are predicted
    to; 1 where there are none. The IoU of a shape: the mean over all parts of its category, occurring or not. A shape
    without a valid point does not count.

    Args:
        parts_of: (categories, parts) bool, which parts a category has.

    `titles` and `sums` as of `ConfusionMatrix`.
    """

    titles: ClassVar = {"instance_miou": "instance mIoU", "class_miou": "class mIoU", "point_accuracy": "points"}

    def __init__(self, parts_of: Tensor, device: torch.device | str = "cpu"):
        self.parts_of = parts_of.to(device)
        self.iou = torch.zeros(len(parts_of), dtype=torch.float64, device=device)  # summed over a category's shapes
        self.shapes = torch.zeros(len(parts_of), dtype=torch.int64, device=device)
        self.points = torch.zeros(2, dtype=torch.int64, device=device)  # right, and all
        self.sums = [self.iou, self.shapes, self.points]

    def update(self, predicted: Tensor, true: Tensor, valid: Tensor | None, category: Tensor) -> None:
        """Adds a batch of predicted and true parts (B, N), only where `valid` (B, N) is True, if it is given, of shapes
        of these categories (B,).

        Raises:
            ValueError: as of `pair_counts`; or categories that are not B integers, or (on a CPU) not of `parts_of`.
        """
        if category.shape != true.shape[:1] or category.dtype.is_floating_point or category.dtype == torch.bool:
            got = f"{tuple(category.shape)} {category.dtype}"
            raise ValueError(f"category must be ({len(true)},) integers, one per shape, got {got}")
        check_range("category", category, 0, len(self.shapes) - 1)
        counts = pair_counts(predicted, true, valid, self.parts_of.shape[1], clouds=len(true)).double()
        iou = intersection_over_union(counts).nan_to_num(1.0)
        belongs = self.parts_of[category].double()
        shape_iou = (iou * belongs).sum(1) / belongs.sum(1)
        its = (category.unsqueeze(1) == torch.arange(len(self.shapes), device=category.device)).double()
        one_hot = its * (counts.sum((1, 2)) > 0).unsqueeze(1)
        self.iou += (shape_iou.unsqueeze(1) * one_hot).sum(0)
        self.shapes += one_hot.sum(0).long()
        self.points += torch.stack([counts.diagonal(dim1=1, dim2=2).sum(), counts.sum()]).long()

    def result(self) -> dict[str, float | int]:
        """The mean IoU over all shapes, the mean of the categories' mean IoUs, the accuracy over points, and the number
        of shapes; fractions in [0, 1]."""
        return {
            "instance_miou": float(self.iou.sum() / self.shapes.sum()),
            "class_miou": float(self.of_class().nanmean()),
            "point_accuracy": float(self.points[0].double() / self.points[1]),
            "count": int(self.shapes.sum()),
        }

    def of_class(self) -> Tensor:
        """The mean IoU of each category's shapes (categories,); NaN of one without shapes."""
        return (self.iou / self.shapes).cpu()


def pair_counts(predicted: Tensor, true: Tensor, valid: Tensor | None, size: int, clouds: int = 1) -> Tensor:
    """How often each pair of labels (true, predicted) is there, where `valid` is True: -> (clouds, size, size) int64.

    `clouds`: 1 to count all together, or the first size of the labels' shape.

    Raises:
        ValueError: labels of two shapes, or that are no integers; `valid` of another shape, or not bool; or, on a CPU,
            where that waits for nothing, a label that is not 0 to size - 1.
    """
    if predicted.shape != true.shape:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true labels must have one shape, got {shapes}")
    if predicted.is_floating_point() or true.is_floating_point():
        raise ValueError(f"labels must be integers, got {predicted.dtype} and {true.dtype}")
    predicted, true = predicted.long(), true.long()
    valid = torch.ones_like(true, dtype=torch.bool) if valid is None else valid
    if valid.shape != true.shape or valid.dtype != torch.bool:
        raise ValueError(f"valid must be {tuple(true.shape)} bool, got {tuple(valid.shape)} {valid.dtype}")
    if true.device.type == "cpu":
        for name, labels in (("predicted", predicted), ("true", true)):
            if (outside := valid & ((labels < 0) | (labels >= size))).any():
                raise ValueError(f"{name} labels must be 0 to {size - 1}, got {int(labels[outside][0])}")
    pairs = torch.where(valid, true * size + predicted, 0).reshape(clouds, -1)
    counts = torch.zeros(clouds, size * size, dtype=torch.int64, device=true.device)
    return counts.scatter_add_(1, pairs, valid.long().reshape(clouds, -1)).view(clouds, size, size)


def intersection_over_union(counts: Tensor) -> Tensor:
    """The IoU of each label from counts of pairs (..., size, size) -> (..., size); NaN where nothing has the label."""
    both = counts.diagonal(dim1=-2, dim2=-1)
    return both / (counts.sum(-1) + counts.sum(-2) - both)


def likely(share: float, count: int) -> tuple[float, float]:
    """Between what the true share is, with 95 % certainty, where `share` of `count` answers were right.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference". Unlike a standard error
    it is right for few answers too, and for shares of 0 and 1.
    """
    square = 1.959964**2 / count  # of the standard normal's 97.5 % point
    middle, width = share + square / 2, math.sqrt(square * (share * (1 - share) + square / 4))
    low, high = ((middle + side) / (1 + square) for side in (-width, width))
    return max(low, 0.0), min(high, 1.0)
