"""Error analysis of a classifier: its mistakes, its critical points, and its accuracy with points dropped.

The network runs folded (identity 8), and a cloud that keeps its critical points (identity 10) is not run again.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from pointnet.datasets import LabelledClouds
from pointnet.models import PointNetModel, Pretrained, critical_points

from .evaluate import EVALUATION_BATCH
from .metrics import ConfusionMatrix

SHARES = (0.0, 0.25, 0.5, 0.75, 0.875, 0.9375, 0.96875)  # of a cloud's points that are dropped
ORDERS = ("at random", "critical first", "critical last")  # in which they are dropped


class Analysis(NamedTuple):
    """The answers of a network on S clouds of N points, and how they depend on the points."""

    data: LabelledClouds
    probabilities: Tensor  # (S, classes)
    critical: Tensor | None  # (S, N) bool; None of a network whose points see each other, which has none
    changed: int  # answers that differ when only the critical points are left
    dropped: dict[str, list[float]]  # accuracy with each of SHARES dropped, by order, if only at random

    @property
    def predicted(self) -> Tensor:
        """(S,)."""
        return self.probabilities.argmax(1)

    @property
    def confusion(self) -> ConfusionMatrix:
        counts = ConfusionMatrix(len(self.data.classes))
        counts.update(self.predicted, self.data.labels)
        return counts

    @property
    def mistakes(self) -> Tensor:
        """The indices of the misclassified clouds, the lowest probability of the true class first."""
        truth = self.probabilities.gather(1, self.data.labels.unsqueeze(1)).squeeze(1)
        wrong = (self.predicted != self.data.labels).nonzero().squeeze(1)
        return wrong[truth[wrong].argsort(stable=True)]


@torch.no_grad()
def analyse(model: Pretrained, data: LabelledClouds, device: torch.device | str = "cpu") -> Analysis:
    """The analysis of a classifier on all clouds of a data set, in one pass."""
    folded = model.to(device).fold()
    generator = torch.Generator().manual_seed(0)
    probabilities, critical, changed = [], [], 0
    right = {order: [0] * len(SHARES) for order in (ORDERS if isinstance(model, PointNetModel) else ORDERS[:1])}
    for rows in tqdm(torch.arange(len(data)).split(EVALUATION_BATCH), desc="analysing", leave=False, disable=None):
        points, labels = data.batch(rows)
        x, labels = points[:, :, : data.num_points].to(device), labels.to(device)
        logits, chance, most = folded(x), torch.rand(len(x), data.num_points, generator=generator).to(device), 0
        ranks = [chance]
        if isinstance(folded, PointNetModel):
            marked = critical_points(folded, x)
            counts, ranks = marked.sum(1), [chance, chance + ~marked, chance + marked]
            most = int(counts.max())
            alone = _take(x, marked.byte().argsort(dim=1, descending=True, stable=True)[:, :most])
            changed += int((folded(alone, lengths=counts).argmax(1) != logits.argmax(1)).sum())
            critical.append(marked.cpu())
        for order, rank in zip(right, ranks, strict=True):
            leaving = rank.argsort(1)
            enough = most if order == "critical last" else data.num_points  # points that change nothing
            for i, share in enumerate(SHARES):
                kept = leaving[:, min(round(share * data.num_points), data.num_points - 1) :]
                left = logits if kept.shape[1] >= enough else folded(_take(x, kept))
                right[order][i] += int((left.argmax(1) == labels).sum())
        probabilities.append(logits.softmax(1).cpu())
    dropped = {order: [count / len(data) for count in counts] for order, counts in right.items()}
    return Analysis(data, torch.cat(probabilities), torch.cat(critical) if critical else None, changed, dropped)


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """Points of each cloud: (B, C, N), (B, K) -> (B, C, K)."""
    return x.gather(2, indices.unsqueeze(1).expand(-1, x.shape[1], -1))
