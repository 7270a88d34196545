"""What a classifier says of clouds: probabilities, and what is unusual about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import vote
from pointnet.evaluation.trust import Familiar, calibration_error, folded_if_it_can, least_probability, unfit
from pointnet.models import PointNetClassifier
from pointnet.points.frame import DOWN

NO_NUMBERS = "the network's logits are not finite"
BATCH_POINTS = 32_768  # that go through the network together: of many small clouds, or of a part of one
# Of energy. By hand, on every second cloud of ModelNet40's validation split, the answer with the least energy was right
# for 84.3, 83.8 and 79.7 % of clouds with z, y and -y up; without a margin for 83.1, 83.4 and 82.9 %.
LEAST_CLEAR = 0.25
AUTO = "auto"  # the up axis whose answer is surest


class Opinion(NamedTuple):
    """What a network says of one cloud."""

    probabilities: list[float]  # by class
    reasons: list[str]  # what is unusual about the cloud
    energy: float  # the lower, the more like the shapes of the training set

    @property
    def label(self) -> int:
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        return self.probabilities[self.label]

    def doubts(self, unfit: str | None) -> list[str]:
        """The reasons why the answer is not sure; none if it is. `unfit` is what that function says of the cloud."""
        if unfit is not None or not math.isfinite(self.probability):
            return [unfit or NO_NUMBERS]
        least = least_probability(len(self.probabilities))
        even = [f"no class has a probability of {100 * least:.0f} %"] if self.probability < least else []
        return [*self.reasons, *even]


class Rival(NamedTuple):
    """What a network says of a cloud when it is taken with another axis up."""

    up: str
    opinion: Opinion
    surer_by: float  # of energy, than with the first axis


class Judge:
    """A classifier with its contract, and what it says of clouds that are in it."""

    def __init__(self, model: PointNetClassifier, contract: Contract, votes: int):
        self.network, self.contract, self.votes = folded_if_it_can(model), contract, votes
        self.familiar = None if contract.familiar is None else Familiar.from_json(contract.familiar)
        self.clearly = self.familiar.other_up if self.familiar else float("inf")  # of energies

    def asks_others(self, up: str | None) -> bool:
        """Whether clouds whose `up=` of `predict` is this are also asked for with other axes up."""
        return up == AUTO or (up is None and self.familiar is not None)

    def rival(
        self, first: Opinion, others: Mapping[str, Opinion], unfit: str | None = None, is_taken: bool = False
    ) -> Rival | None:
        """Of opinions by up axis, the one that is most like training; None without any. Few files have y pointing down,
        so that must be clearly surer, of what looks alike upside down too.

        Args:
            unfit: what that function says of the cloud.
            is_taken: the rival would be taken: where the first has no doubts, those that have some are none.
        """
        if is_taken and not first.doubts(unfit):
            others = {up: each for up, each in others.items() if not each.doubts(unfit)}
        margin = max(self.familiar.other_up if self.familiar else 0.0, LEAST_CLEAR)
        energies = {up: each.energy + (margin if up == DOWN else 0) for up, each in others.items()}
        up = min(energies, key=energies.__getitem__, default=None)
        return None if up is None else Rival(up, others[up], first.energy - energies[up])

    def opinions(self, clouds: Sequence[NDArray[np.float32]]) -> list[Opinion]:
        """Of clouds (C, N) of one size."""
        if not clouds:
            return []
        x = torch.from_numpy(np.stack(clouds)).to(next(self.network.parameters()).device)
        chunk = -(-BATCH_POINTS // len(x))

        def scores(rotated: Tensor) -> Tensor:
            return self.network.classify_chunks(rotated.split(chunk, 2))

        return self.opinions_of(x, *vote(scores, x, self.votes, self.contract.normals, self.contract.temperature))

    def opinions_of(self, x: Tensor, logits: Tensor, logs: Tensor) -> list[Opinion]:
        """Of clouds (B, C, N), from their logits of temperature 1 and the logarithms of their probabilities."""
        few = at_most(x, self.contract.num_points)
        reasons = [list[str]() for _ in x] if self.familiar is None else self.familiar.reasons(few, logits)
        energies = (-logits.logsumexp(1)).tolist()
        return [Opinion(*each) for each in zip(logs.exp().tolist(), reasons, energies, strict=True)]


class Trust:
    """How far a judge's answers on a whole split can be trusted."""

    def __init__(self, judge: Judge):
        self.judge = judge
        self.probability, self.right, self.sure = list[float](), list[bool](), list[bool]()

    def look(self, points: Tensor, logits: Tensor, logs: Tensor, labels: Tensor) -> None:
        """Adds a batch, as `evaluate` shows it. Answers on clouds that are not finite are not sure."""
        whole = points.isfinite().flatten(1).all(1)
        self.sure += [False] * int((~whole).sum())
        if not whole.any():
            return
        points, logits, logs, labels = (each[whole] for each in (points, logits, logs, labels))
        opinions = self.judge.opinions_of(points[:, :, : self.judge.contract.num_points], logits, logs)
        for cloud, opinion, label in zip(points.numpy(force=True), opinions, labels.tolist(), strict=True):
            self.probability.append(opinion.probability)
            self.right.append(opinion.label == label)
            contract = self.judge.contract
            self.sure.append(not opinion.doubts(unfit(cloud[:3].T, contract) or contract.unlike_channels(cloud)))

    def result(self) -> dict[str, float]:
        """The expected calibration error, of clouds that are finite, and the share of answers that are sure."""
        error = calibration_error(torch.tensor(self.probability), torch.tensor(self.right))
        return {"calibration_error": error, "sure": sum(self.sure) / len(self.sure)}


def at_most(x: Tensor, count: int) -> Tensor:
    """So many points of clouds (B, C, N), drawn at random, or all where there are fewer. What is usual was measured on
    as many points as training had; among more of them, other distances are usual."""
    if x.shape[2] <= count:
        return x
    return x[:, :, np.random.default_rng(0).permutation(x.shape[2])[:count]]


def clouds_together(count: int) -> int:
    """How many clouds of so many points are read and judged at once."""
    return max(1, BATCH_POINTS // count)
