"""Error analysis of a classifier: mistakes, critical points, accuracy with points dropped, errors on corrupted clouds.

The network runs folded (identity 8), and a cloud that keeps its critical points (identity 10) is not run again.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pointnet.datasets import LabelledClouds
from pointnet.datasets.clouds import UNIT_SPHERE, spread
from pointnet.datasets.given import pad_clouds
from pointnet.models import Pretrained, critical_points, has_critical_points
from pointnet.points.frame import in_unit_sphere

from .contract import XYZ, Contract
from .corrupted import CORRUPTIONS, SEVERITIES, corrupted
from .evaluate import EVALUATION_BATCH
from .metrics import ConfusionMatrix

SHARES = (0.0, 0.25, 0.5, 0.75, 0.875, 0.9375, 0.96875)  # of a cloud's points that are dropped
ORDERS = ("at random", "critical first", "critical last")  # in which they are dropped
CLEAN = "clean"


class Analysis(NamedTuple):
    """The answers of a network on S clouds of N points, and how they depend on the points."""

    data: LabelledClouds
    probabilities: Tensor  # (S, classes), calibrated where the network's are, as `predict` gives them
    critical: Tensor | None  # (S, N) bool; None of a network whose points see each other, which has none
    changed: int  # answers that differ when only the critical points are left
    dropped: dict[str, list[float]]  # accuracy with each of SHARES dropped, by order, if only at random
    corrupted: Mapping[str, NDArray[np.bool_]] = {}  # (severities, S'), which are wrong, by corruption; clean first

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
def analyse(
    model: Pretrained, data: LabelledClouds, device: torch.device | str = "cpu", corruptions: int = 0
) -> Analysis:
    """The analysis of a classifier on all clouds of a data set, and on so many of them with each corruption."""
    folded, temperature = model.to(device).fold(), model.preprocessing.get("temperature", 1.0)
    generator = torch.Generator().manual_seed(0)
    probabilities, critical, changed = [], [], 0
    right = {order: [0] * len(SHARES) for order in (ORDERS if has_critical_points(model) else ORDERS[:1])}
    for rows in tqdm(torch.arange(len(data)).split(EVALUATION_BATCH), desc="analysing", leave=False, disable=None):
        points, labels = data.batch(rows)
        x, labels = points[:, :, : data.num_points].to(device), labels.to(device)
        logits, chance, most = folded(x), torch.rand(len(x), data.num_points, generator=generator).to(device), 0
        ranks = [chance]
        if has_critical_points(folded):
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
        probabilities.append((logits / temperature).softmax(1).cpu())
    dropped = {order: [count / len(data) for count in counts] for order, counts in right.items()}
    marks = torch.cat(critical) if critical else None
    found = corruption_errors(folded, spread(data, corruptions), device) if corruptions else {}
    return Analysis(data, torch.cat(probabilities), marks, changed, dropped, found)


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """Points of each cloud: (B, C, N), (B, K) -> (B, C, K)."""
    return x.gather(2, indices.unsqueeze(1).expand(-1, x.shape[1], -1))


def takes_corrupted(model: Pretrained) -> bool:
    """Whether a network takes what the corruptions make: x y z of clouds that were in the unit sphere."""
    contract = Contract.of(model)
    return (contract.channels, contract.scale) == (XYZ, UNIT_SPHERE)


def corruption_errors(
    model: Pretrained, data: LabelledClouds, device: torch.device | str = "cpu"
) -> dict[str, NDArray[np.bool_]]:
    """Which clouds a classifier in eval mode, on the device, gets wrong with each corruption, (severities, S), and
    clean, (1, S)."""
    models = [model]
    found = {CLEAN: misclassified(models, data, "uniform", 0, device=device)}
    for name in tqdm(CORRUPTIONS, desc="corrupting", leave=False, disable=None):
        rows = [misclassified(models, data, name, severity, device=device) for severity in SEVERITIES]
        found[name] = np.concatenate(rows)
    return found


@torch.no_grad()
def misclassified(
    models: Sequence[Pretrained],
    data: LabelledClouds,
    name: str,
    severity: int,
    renormalize: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NDArray[np.bool_]:
    """Which clouds each network gets wrong, corrupted in one way: (models, S).

    A cloud is corrupted alike for every network, whatever else is measured.

    Args:
        models: in evaluation mode, on the device, `takes_corrupted`.
        name: of a corruption (`evaluation.corrupted`).
        severity: 1 to 5; 0 for clean clouds.
        renormalize: bring every cloud into the unit sphere afterwards, clean ones too.
    """
    wrong = np.empty((len(models), len(data)), bool)
    for rows in torch.arange(len(data)).split(EVALUATION_BATCH):
        x, labels = data.batch(rows)
        clouds = []
        for row, cloud in zip(rows.tolist(), x.double().numpy(), strict=True):
            generator = np.random.default_rng([seed, zlib.crc32(name.encode()), severity, row])
            points = corrupted(cloud.T, name, severity, generator)
            clouds.append(torch.from_numpy((in_unit_sphere(points) if renormalize else points).T).float())
        batch, lengths = (each.to(device) for each in pad_clouds(clouds))
        for i, model in enumerate(models):
            wrong[i, rows] = (model(batch, lengths).argmax(1).cpu() != labels).numpy()
    return wrong
