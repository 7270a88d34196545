"""Whether a classifier knows what it does not know: shapes of its validation split against junk and unknown classes.

python -m benchmarks.trust pointnet_modelnet40_upright --root ../shared/data/modelnet40_dev
    [--unknown ../shared/data/psb_parts_dev]

For each kind of input: the area under the ROC curve (1: told apart in every case, 0.5: not at all) of the probability,
of each measure of `pointnet.evaluation.trust`, and of all measures together (the largest share of validation that is
below); then the share of answers that are unsure, as `predict` says. `--unknown` names a set of parts, whose
categories that the network does not know are shapes of classes held out of training.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.scene import make_hall
from pointnet import PointNetClassifier, load_model
from pointnet.datasets import ShapeNetPart, open_dataset, split_validation
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import EVEN_CHANCE, LEAST_POINTS, UNUSUAL, Familiar, calibration_error, measures
from pointnet.points.frame import in_unit_sphere

EACH = 40  # inputs of a kind
Make = Callable[[np.random.Generator, int], NDArray[np.floating]]


def _line(generator: np.random.Generator, count: int) -> NDArray[np.floating]:
    return np.outer(generator.random(count), generator.normal(size=3))


def _plane(generator: np.random.Generator, count: int) -> NDArray[np.floating]:
    return generator.random((count, 2)) @ generator.normal(size=(2, 3))


def _room(generator: np.random.Generator, count: int) -> NDArray[np.floating]:
    return make_hall(count, generator)[:, :3]


def _clusters(generator: np.random.Generator, count: int) -> NDArray[np.floating]:
    return generator.normal(size=(4, 3))[generator.integers(0, 4, count)] + 0.05 * generator.normal(size=(count, 3))


def _terrain(generator: np.random.Generator, count: int) -> NDArray[np.floating]:
    flat = generator.uniform(-1, 1, (count, 2))
    return np.column_stack([flat, 0.1 * np.sin(flat @ generator.normal(size=(2, 3)) * 4).sum(1)])


# Some points of a kind of junk, as many as are asked for, or fewer.
JUNK: Mapping[str, Make] = {
    "a line": _line,
    "a plane": _plane,
    "noise, normal": lambda generator, count: generator.normal(size=(count, 3)),
    "noise in a box": lambda generator, count: generator.random((count, 3)),
    "three points": lambda generator, count: generator.normal(size=(3, 3)),
    "five points": lambda generator, count: generator.normal(size=(5, 3)),
    "twenty points": lambda generator, count: generator.normal(size=(20, 3)),
    "four clusters": _clusters,
    "a hall": _room,
    "terrain": _terrain,
}


def as_input(points: NDArray[np.floating], count: int, generator: np.random.Generator) -> Tensor:
    """Points as a network is given them: (1, 3, count), in the unit sphere, repeated where there are fewer."""
    rows = np.concatenate([generator.permutation(len(points)) for _ in range(-(-count // len(points)))])[:count]
    return torch.tensor(in_unit_sphere(points[rows].astype(np.float64)).T[None], dtype=torch.float32)


def auroc(usual: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The share of pairs whose other is the larger; half of those that are even."""
    below = np.searchsorted(np.sort(usual), other, side="left") + np.searchsorted(np.sort(usual), other, side="right")
    return float(below.mean() / (2 * len(usual)))


class Judged:
    """What is measured of clouds (S, C, N), and whether their answers are sure."""

    def __init__(self, network: PointNetClassifier, contract: Contract, x: Tensor):
        assert contract.familiar is not None
        familiar = Familiar.from_json(contract.familiar)
        with torch.no_grad():
            logits = torch.cat([network(batch) for batch in x.split(32)])
        values = torch.cat(
            [
                measures(*each, familiar.means, familiar.precision)
                for each in zip(x.split(32), logits.split(32), strict=True)
            ]
        )
        confidence, self.predicted = (logits / contract.temperature).softmax(1).max(1)
        self.confidence = confidence.numpy()
        self.scores = {"probability": -self.confidence, **dict(zip(UNUSUAL, values.numpy().T, strict=True))}
        limits = np.array([familiar.limits[name] for name in UNUSUAL])
        places = np.array([len(np.unique(cloud, axis=0)) for cloud in x.transpose(1, 2).numpy()])
        usual = (values.numpy() <= limits).all(1)
        self.sure = usual & (self.confidence >= EVEN_CHANCE) & (places >= LEAST_POINTS)

    def together(self, usual: "Judged") -> NDArray[np.floating]:
        """The largest share of usual clouds that is below, over all measures."""
        shares = [np.searchsorted(np.sort(usual.scores[name]), self.scores[name]) / len(usual.sure) for name in UNUSUAL]
        return np.max(shares, 0)


def main(arguments: Sequence[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("model")
    parser.add_argument("--dataset", default="modelnet40")
    parser.add_argument("--root", default="data")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the run, which chose its validation split")
    parser.add_argument("--unknown", help="a set of parts, some of whose categories are not among the classes")
    flags = parser.parse_args(arguments)
    model = load_model(flags.model)
    assert isinstance(model, PointNetClassifier)
    contract, network = Contract.of(model), model.fold()
    generator, count = np.random.default_rng(0), contract.num_points
    train, test = (open_dataset(flags.dataset, flags.root, split, count) for split in ("train", "test"))
    _, val = split_validation(train, flags.seed)
    usual = Judged(network, contract, val.batch(slice(None))[0][:, :, :count])
    kinds = {"test": test.batch(slice(None))[0][:, :, :count]}
    for name, make in JUNK.items():
        kinds[name] = torch.cat([as_input(make(generator, count), count, generator) for _ in range(EACH)])
    for name, order in (("lying on their back", [0, 2, 1]), ("upside down", [0, 1, 2])):
        turned = kinds["test"][::10, order].clone()
        turned[:, 1:] *= torch.tensor([[1.0], [-1.0]]) if order[1] == 2 else -1
        kinds[name] = turned
    if flags.unknown:
        parts = [ShapeNetPart(flags.unknown, split, count) for split in ("train", "val", "test")]
        known = {name.lower() for name in (*train.classes, "human", "mug", "glasses")}
        each = (data[i] for data in parts for i in range(len(data)))
        chosen = [x for x, _, label in each if parts[0].classes[label].lower() not in known]
        kinds["classes it was not taught"] = torch.stack(chosen)
    names = ["probability", *UNUSUAL]
    print(f"{'':26}{''.join(f'{name:>13}' for name in (*names, 'together', 'unsure'))}")
    for kind, x in kinds.items():
        judged = Judged(network, contract, x)
        figures = [auroc(usual.scores[name], judged.scores[name]) for name in names]
        figures.append(auroc(usual.together(usual), judged.together(usual)))
        print(f"{kind:26}{''.join(f'{figure:13.2f}' for figure in figures)}{1 - judged.sure.mean():13.0%}", flush=True)
    for name, data, judged in (("validation", val, usual), ("test", test, Judged(network, contract, kinds["test"]))):
        right = judged.predicted == data.labels
        error = calibration_error(torch.tensor(judged.confidence), right)
        accuracy = float(right.double().mean())
        print(f"{name}: {accuracy:.2%} right, calibration error {error:.3f}, {judged.sure.mean():.1%} sure")


if __name__ == "__main__":
    main()
