"""Counting right answers, on the device, over every sample."""

from __future__ import annotations

import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts of (true class, predicted class), kept on the device until they are asked for."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

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
