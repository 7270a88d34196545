"""What a classifier does on clouds beside its accuracy: which are wrong, what they rest on, what is left without some.

It runs folded (identity 8), and by the critical points (identity 10) it knows what need not be run at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from pointnet.datasets import LabelledClouds
from pointnet.evaluation.evaluate import EVALUATION_BATCH
from pointnet.evaluation.metrics import ConfusionMatrix
from pointnet.models import PointNetClassifier, critical_points

SHARES = (0.0, 0.25, 0.5, 0.75, 0.875, 0.9375, 0.96875)  # of a cloud's points that are dropped
ORDERS = ("at random", "critical first", "critical last")  # in which they are


class Measured(NamedTuple):
    """What a network does on S clouds of N points."""

    data: LabelledClouds
    probabilities: Tensor  # (S, classes)
    critical: Tensor  # (S, N) bool
    changed: int  # answers that are others once the critical points stand alone
    dropped: dict[str, list[float]]  # accuracy with the SHARES of the points dropped, in each of the ORDERS

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
        """The clouds that are wrong, those whose own class was thought least likely first."""
        truth = self.probabilities.gather(1, self.data.labels.unsqueeze(1)).squeeze(1)
        wrong = (self.predicted != self.data.labels).nonzero().squeeze(1)
        return wrong[truth[wrong].argsort(stable=True)]


@torch.no_grad()
def measure(model: PointNetClassifier, data: LabelledClouds, device: torch.device | str = "cpu") -> Measured:
    """One pass over the clouds: what they are taken for, their critical points, and what is left without some."""
    folded = model.to(device).fold()
    generator = torch.Generator().manual_seed(0)
    probabilities, critical, changed = [], [], 0
    right = {order: [0] * len(SHARES) for order in ORDERS}
    for rows in tqdm(torch.arange(len(data)).split(EVALUATION_BATCH), desc="measuring", leave=False, disable=None):
        points, labels = data.batch(rows)
        x, labels = points[:, :, : data.num_points].to(device), labels.to(device)
        marked, whole = critical_points(folded, x), folded(x)
        counts = marked.sum(1)
        alone = _take(x, marked.byte().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())])
        changed += int((folded(alone, lengths=counts).argmax(1) != whole.argmax(1)).sum())
        chance = torch.rand(marked.shape, generator=generator).to(device)
        for order, turn in zip(ORDERS, (chance, chance + ~marked, chance + marked), strict=True):
            leaving = turn.argsort(1)
            least = int(counts.max()) if order == "critical last" else data.num_points  # that change nothing
            for i, share in enumerate(SHARES):
                kept = leaving[:, min(round(share * data.num_points), data.num_points - 1) :]
                logits = whole if kept.shape[1] >= least else folded(_take(x, kept))
                right[order][i] += int((logits.argmax(1) == labels).sum())
        probabilities.append(whole.softmax(1).cpu())
        critical.append(marked.cpu())
    dropped = {order: [count / len(data) for count in counts] for order, counts in right.items()}
    return Measured(data, torch.cat(probabilities), torch.cat(critical), changed, dropped)


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """Points of each cloud: (B, C, N), (B, K) -> (B, C, K)."""
    return x.gather(2, indices.unsqueeze(1).expand(-1, x.shape[1], -1))
