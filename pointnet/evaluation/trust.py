"""How far an answer can be trusted: calibrated probabilities of a classifier, and whether an input is familiar.

Both are measured once, on the validation split when training is over, and kept in the model's contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pointnet.datasets import LabelledClouds
from pointnet.datasets.clouds import UNIT_SPHERE, spread
from pointnet.models import PointNetClassifier
from pointnet.points.frame import few_points, on_a_line, other_ups, stray_points, with_other_up

from .cloud_measures import OF_POINTS, measures_of_points, share_beyond
from .contract import Contract

M = TypeVar("M")
BATCH = 32
BINS = 15  # of the calibration error
LEAST_CLOUDS = 40  # of validation, and of all clouds where only their points tell; fewer tell nothing
TEMPERATURES = torch.logspace(-1.0, 0.7, 86, dtype=torch.float64)  # 0.1 to 5, each 1.05 times the last
PER_CLASS = 20  # clouds of training, on average, that tell what is usual
PASSING = 0.95  # share of validation that is familiar, at least
PASSING_BY_POINTS = 0.98  # where only the points tell, which training cannot make look more usual than they are

# What is measured of a cloud and its logits, and what it means if it is larger than in nearly all of validation.
UNUSUAL = {
    "distance": "unlike the shapes of the training set",
    "energy": "unlike the shapes of the training set",
    **{name: OF_POINTS[name] for name in ("filled", "dense", "flat", "thin")},
}
# How many of validation may be beyond each, relative to each other: what is measured of the points finds junk that is
# far beyond any shape, and what is measured of the logits finds objects that are nearly like those of training. Without
# logits, the floor is what is nearly like true objects.
SHARES = torch.tensor([1.0, 0.7, 0.2, 0.1, 0.1, 0.1])
SHARES_OF_POINTS = torch.tensor([0.2, 0.1, 0.1, 0.1, 1.0])
FLOOR = "points at its bottom lie beyond all above them; if that is a floor or a table, leave it out"
# The share of a class's clouds that is usual, and the least limit of any class. At 0.9 one sure and right answer in 70
# becomes unsure on the validation split of ModelNet40; at 1 many objects on a floor stay sure tents.
OF_CLASS, LEAST_BEYOND = 0.9, 0.02


def least_probability(classes: int) -> float:
    """The probability below which no answer is sure: 50 %, and three times the mean of the other classes', which of two
    classes is 75 %, of three 60 %. One of two always has 50 %."""
    return max(0.5, 3 / (classes + 2)) if classes > 1 else 0.5


class Familiar(NamedTuple):
    """What a classifier of K classes was shown, and how far from that validation goes.

    Args:
        means: (K, K), the mean logits of each class.
        precision: (K, K), the inverse of the logits' covariance within a class.
        limits: the largest usual value of each of `UNUSUAL`.
        other_up: by so much a cloud's energy is usually lower with another axis up, at most; measured with y in place
            of z, or with z.
        beyond: of each class the largest usual share of points beyond, see `share_beyond`; () in older networks, where
            it was not measured.
    """

    means: Tensor
    precision: Tensor
    limits: dict[str, float]
    other_up: float
    beyond: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, held: Any) -> Familiar:
        """ValueError unless it is what `as_json` gives."""
        try:
            means, precision = (torch.tensor(held[name], dtype=torch.float64) for name in ("means", "precision"))
            limits = {name: float(held["limits"][name]) for name in UNUSUAL}
            other_up = float(held["other_up"])
            beyond = tuple(map(float, held.get("beyond", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the model's 'familiar' is damaged: {error}") from error
        square = means.dim() == 2 and means.shape == precision.shape == (len(means), len(means))
        if not square or len(beyond) not in (0, len(means)):
            shapes = f"{tuple(means.shape)}, {tuple(precision.shape)}, {len(beyond)}"
            raise ValueError(f"the model's 'familiar' is damaged: {shapes}")
        return cls(means, precision, limits, other_up, beyond)

    def as_json(self) -> dict[str, Any]:
        def rounded(matrix: Tensor) -> list[list[float]]:
            return [[float(f"{value:.5g}") for value in row] for row in matrix.tolist()]

        return self._asdict() | {"means": rounded(self.means), "precision": rounded(self.precision)}

    def reasons(self, x: Tensor, logits: Tensor) -> list[list[str]]:
        """What is unusual about each of B clouds (B, C, N), with logits (B, K) of temperature 1.

        Raises:
            ValueError: another K.
        """
        if logits.shape[1] != len(self.means):
            then = "set model.preprocessing['familiar'] to None if the last layer is new"
            raise ValueError(f"the model's 'familiar' is of {len(self.means)} classes, not {logits.shape[1]}; {then}")
        limits = torch.tensor([self.limits[name] for name in UNUSUAL], dtype=torch.float64)
        over = (measures(x, logits, self.means, self.precision) > limits).tolist()
        found = [
            dict.fromkeys(why for why, is_over in zip(UNUSUAL.values(), row, strict=True) if is_over) for row in over
        ]
        if self.beyond:
            usual = torch.tensor(self.beyond, dtype=torch.float64)[logits.argmax(1).cpu()]
            for each, is_over in zip(found, (share_beyond(x) > usual).tolist(), strict=True):
                each |= {FLOOR: None} if is_over else {}
        return [[*each] for each in found]


class Usual(NamedTuple):
    """What is usual of the points of a network's clouds: the largest usual value of each of `OF_POINTS`."""

    limits: dict[str, float]

    @classmethod
    def from_json(cls, held: Any) -> Usual:
        """ValueError unless it is what `as_json` gives."""
        try:
            return cls({name: float(held["limits"][name]) for name in OF_POINTS})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the model's 'familiar' is damaged: {error}") from error

    def as_json(self) -> dict[str, Any]:
        return self._asdict()

    def reasons(self, x: Tensor) -> list[list[str]]:
        """What is unusual about each of B clouds (B, C, N)."""
        over = (measures_of_points(x) > torch.tensor([*self.limits.values()], dtype=torch.float64)).tolist()
        return [self._reasons({name for name, is_over in zip(OF_POINTS, row, strict=True) if is_over}) for row in over]

    @staticmethod
    def _reasons(over: set[str]) -> list[str]:
        """What is thin is flat too, and where it lies its points are in one layer."""
        implied = {"flat", "floor"} if "thin" in over else set()
        return [why for name, why in OF_POINTS.items() if name in over - implied]


def measures(x: Tensor, logits: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """Each of `UNUSUAL`, of B clouds (B, C, N) with these logits (B, K): (B, 6) float64.

    distance: of the logits from their class's mean (Mahalanobis; Lee et al., 2018). energy: minus the log of the sum of
    their exponentials (Liu et al., 2020). The others are of the points, and do not depend on the cloud's size.
    """
    logits = logits.double().cpu()
    gap = logits - means[logits.argmax(1)]
    of_logits = [((gap @ precision) * gap).sum(1).clamp(min=0).sqrt(), -logits.logsumexp(1)]
    return torch.cat([torch.stack(of_logits, 1), measures_of_points(x)[:, :4]], 1)


def measure_beyond(contract: Contract, shown: LabelledClouds) -> tuple[float, ...]:
    """`Familiar.beyond`, by the clouds of each class that training shows."""
    rows = torch.arange(len(shown)).split(BATCH)
    shares = torch.cat([share_beyond(shown.batch(some)[0][:, :, : contract.num_points]) for some in rows])
    of_class = (shares[shown.labels == label] for label in range(len(shown.classes)))
    return tuple(max(LEAST_BEYOND, float(each.quantile(OF_CLASS))) if len(each) else LEAST_BEYOND for each in of_class)


def unfit(points: Any, contract: Contract) -> str | None:
    """Why no answer on points (N, 3) is sure, for a network with this contract: there are few points, or on one line, a
    few of them set the size of all others, or the cloud is far smaller or larger than those of training, or far from
    them. Else None."""
    set_size = stray_points if contract.scale == UNIT_SPHERE else contract.unlike_place
    return few_points(points) or set_size(points) or on_a_line(points)


@torch.no_grad()
def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which logits (S, K) are least surprised by labels (S,) (Guo et al., 2017)."""
    losses = [F.cross_entropy(logits.double() / temperature, labels) for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(torch.stack(losses).argmin())])


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """The expected calibration error of S answers: over `BINS` even bins of confidence, the mean difference between it
    and the share that is right, weighted by their answers (Guo et al., 2017, equation 3)."""
    bins = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    sums = torch.zeros(2, BINS, dtype=torch.float64)
    sums[0].index_add_(0, bins, confidence.double())
    sums[1].index_add_(0, bins, right.double())
    return float((sums[0] - sums[1]).abs().sum() / len(right))


def folded_if_it_can(model: M) -> M:
    """A copy for inference, or the model itself, whose layers may be others than the library's."""
    try:
        return model.fold() if hasattr(model, "fold") else model
    except ValueError:
        return model


@torch.no_grad()
def measure_trust(
    model: PointNetClassifier, contract: Contract, train: LabelledClouds, val: LabelledClouds, device: torch.device
) -> tuple[float, Familiar | None]:
    """The temperature of a trained network, and what it was shown; 1 and None where validation is too small to tell."""
    shown, val = (_finite(data) for data in (spread(train, PER_CLASS * len(train.classes)), val))
    if len(val) < LEAST_CLOUDS or not len(shown):
        return 1.0, None
    network = folded_if_it_can(model.to(device))

    def scores(x: Tensor) -> Tensor:
        return network(x.to(device)).double().cpu()

    def clouds(data: LabelledClouds) -> Iterator[Tensor]:
        return (data.batch(rows)[0][:, :, : contract.num_points] for rows in torch.arange(len(data)).split(BATCH))

    logits = torch.cat([scores(x) for x in clouds(shown)])
    if not logits.isfinite().all():  # training has failed
        return 1.0, None
    means, precision = _within_classes(logits, shown.labels, len(train.classes))
    of_val, turned, values, up = [], [], [], contract.up or "z"
    for x in clouds(val):
        of_val.append(scores(x))
        values.append(measures(x, of_val[-1], means, precision))
        others = [with_other_up(cloud, up, other_ups(up)[0], contract.normals) for cloud in x.numpy()]
        turned.append(scores(torch.from_numpy(np.stack(others))))
    logits, limits = torch.cat(of_val), limits_of(torch.cat(values)).tolist()
    lower = torch.cat(turned).logsumexp(1) - logits.logsumexp(1)
    other_up = max(float(lower.quantile(PASSING)), 0.0)
    usual = dict(zip(UNUSUAL, limits, strict=True))
    familiar = Familiar(means, precision, usual, other_up, measure_beyond(contract, shown))
    return best_temperature(logits, val.labels), familiar


def measure_usual(contract: Contract, train: LabelledClouds, val: LabelledClouds) -> Usual | None:
    """What is usual of the points that a network is given, of both: no network has learned it; None where there are
    too few clouds to tell."""
    shown = spread(train, max(PER_CLASS * len(train.classes), LEAST_CLOUDS))
    both = [_finite(data) for data in (shown, val)]
    if sum(map(len, both)) < LEAST_CLOUDS or contract.scale != UNIT_SPHERE:
        return None
    rows = ((data, some) for data in both if len(data) for some in torch.arange(len(data)).split(BATCH))
    values = [measures_of_points(data.batch(some)[0][:, :, : contract.num_points]) for data, some in rows]
    limits = limits_of(torch.cat(values), SHARES_OF_POINTS, PASSING_BY_POINTS).tolist()
    return Usual(dict(zip(OF_POINTS, limits, strict=True)))


def _finite(data: LabelledClouds) -> LabelledClouds:
    """The clouds without a number that is not finite, which training skips too."""
    kept = [data.batch(rows)[0].isfinite().flatten(1).all(1) for rows in torch.arange(len(data)).split(BATCH)]
    return data.subset(torch.cat(kept).nonzero()[:, 0]) if kept else data


def _within_classes(logits: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The mean logits of each class, and the inverse of their covariance within a class."""
    counts = torch.bincount(labels, minlength=classes).double()
    sums = torch.zeros(classes, classes, dtype=torch.float64).index_add_(0, labels, logits)
    means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], logits.mean(0))
    gap = logits - means[labels]
    covariance = gap.T @ gap / len(gap)
    covariance += 1e-3 * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(classes, dtype=torch.float64)
    return means, torch.linalg.inv(covariance)


def limits_of(values: Tensor, shares: Tensor = SHARES, passing: float = PASSING) -> Tensor:
    """Limits (M,) such that at least this share of S rows (S, M) is within all of them.

    As many rows are beyond each limit as `shares` (M,) say, relative to each other.
    """
    ordered, found = values.sort(0).values, values.max(0).values
    for beyond in range(1, len(values)):
        limits = ordered.gather(0, (len(values) - 1 - (beyond * shares).long())[None])[0]
        if (values <= limits).all(1).double().mean() < passing:
            break
        found = limits
    return found
