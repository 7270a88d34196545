"""Whether a classifier knows what it does not know: shapes of its validation split against junk and unknown classes.

python -m benchmarks.trust pointnet_modelnet40_upright --root ../shared/data/modelnet40_dev
    [--unknown ../shared/data/psb_parts_dev] [--frames]
python -m benchmarks.trust runs/held_out --root ../shared/data/modelnet40_dev --recipe fast --hold_out chair lamp sofa

For each kind of input: the area under the ROC curve (1: told apart in every case, 0.5: not at all) of the probability,
of each measure of `pointnet.evaluation.trust`, and of all measures together (the largest share of validation that is
below); then the share of answers that are unsure, as `predict` says, also for a floor, which has no column.
`--hold_out` first trains a network without some classes, and then asks it about them. `--unknown` names a set of parts,
and asks about those of its categories that are not among the network's classes. `--frames` asks `predict` about the
test split with z, y and -y up.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.scene import make_hall
from pointnet import load_model, predict
from pointnet.datasets import LabelledClouds, ShapeNetPart, open_dataset, split_validation
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import UNUSUAL, Familiar, calibration_error, least_probability, measures
from pointnet.models import Pretrained
from pointnet.points.frame import DOWN, LEAST_POINTS, in_unit_sphere, with_other_up
from pointnet.training import fit
from pointnet.training.recipes import RECIPES

EACH = 40  # inputs of a kind
POINTS = 1024  # of a cloud in training
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


def _boxes(generator: np.random.Generator, count: int) -> NDArray[np.floating]:
    """The sides of a room and of five boxes on its floor."""
    corners = np.vstack([np.zeros(3), np.column_stack([generator.uniform(0, 0.8, (5, 2)), np.zeros(5)])])
    sizes = np.vstack([np.ones(3), generator.uniform(0.1, 0.3, (5, 3))])
    which = np.where(generator.random(count) < 0.5, 0, generator.integers(1, 6, count))
    points, rows = generator.random((count, 3)), np.arange(count)
    points[rows, generator.integers(0, 3, count)] = generator.integers(0, 2, count)
    return (corners[which] + points * sizes[which]) * (5, 4, 2.6)


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
    "a room of boxes": _boxes,
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

    def __init__(self, network: Pretrained, contract: Contract, x: Tensor):
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
        places = np.array([len(np.unique(cloud, axis=0)) for cloud in x.transpose(1, 2).numpy()])
        usual = np.array([not reasons for reasons in familiar.reasons(x, logits)])
        self.sure = usual & (self.confidence >= least_probability(logits.shape[1])) & (places >= LEAST_POINTS)

    def together(self, usual: "Judged") -> NDArray[np.floating]:
        """The largest share of usual clouds that is below, over all measures."""
        shares = [np.searchsorted(np.sort(usual.scores[name]), self.scores[name]) / len(usual.sure) for name in UNUSUAL]
        return np.max(shares, 0)


def of_classes(data: LabelledClouds, names: Sequence[str]) -> LabelledClouds:
    """The clouds of these classes alone."""
    labels = torch.tensor([names.index(name) if name in names else -1 for name in data.classes])[data.labels]
    rows = (labels >= 0).nonzero()[:, 0]
    return LabelledClouds(data.batch(rows)[0], labels[rows], names, data.num_points)


def others_than(names: Sequence[str], root: str, count: int) -> Tensor:
    """The clouds of a set of parts whose category has none of these names."""
    sets = [ShapeNetPart(root, split, count) for split in ("train", "val", "test")]
    known = {name.lower() for name in (*names, "human")}  # a person
    each = (data[i] for data in sets for i in range(len(data)))
    return torch.stack([x for x, _, label in each if sets[0].classes[label].lower() not in known])


def on_floor(cloud: Tensor, share: float, generator: np.random.Generator) -> Tensor:
    """A cloud (3, N) on a square floor twice as wide as it is, which gets this share of the points: (1, 3, N)."""
    points, count = cloud.numpy().T.astype(np.float64), int(share * cloud.shape[1])
    low, high = points.min(0), points.max(0)
    flat = (low + high)[:2] / 2 + generator.uniform(-1, 1, (count, 2)) * (high - low)[:2].max()
    floor = np.column_stack([flat, low[2] + 0.003 * generator.normal(size=count)])
    return as_input(np.vstack([points[count:], floor]), len(points), generator)


def inputs_of(test: Tensor, count: int) -> dict[str, Tensor]:
    """Clouds (S, 3, count) by kind: of the test split, junk, and the test split's in other frames and on a floor."""
    generator, kinds = np.random.default_rng(0), {"test": test}
    for name, make in JUNK.items():
        kinds[name] = torch.cat([as_input(make(generator, count), count, generator) for _ in range(EACH)])
    for name, order in (("lying on their back", [0, 2, 1]), ("upside down", [0, 1, 2])):
        turned = test[::10, order].clone()
        turned[:, 1:] *= torch.tensor([[1.0], [-1.0]]) if order[1] == 2 else -1
        kinds[name] = turned
    for share in (0.15, 0.3, 0.5):
        kinds[f"{share:.0%} are a floor"] = torch.cat([on_floor(cloud, share, generator) for cloud in test[::10]])
    return kinds


def say_frames(model: Pretrained, test: LabelledClouds) -> None:
    """Of clouds with each axis up, with nobody saying which: what `predict` answers, and with `up="auto"`."""
    x, names = test.points[:, :3].numpy(), [test.classes[label] for label in test.labels.tolist()]
    print(f"{'axis up':10}{'sure, right':>13}{'sure, wrong':>13}{'advised':>13}{'auto: right':>13}")
    for axis, back in (("z", "z"), ("y", DOWN), (DOWN, "y")):
        clouds = [with_other_up(cloud, "z", back, False).T for cloud in x]
        plain, auto = (predict(clouds, model, up=up) for up in (None, "auto"))
        right, of_auto = (np.array([p.class_name for p in each]) == names for each in (plain, auto))
        sure, advised = (np.array(each) for each in ([p.sure for p in plain], [p.surer_up == axis for p in plain]))
        figures = np.mean([sure & right, sure & ~right, advised, of_auto], 1)
        print(f"{axis:10}{''.join(f'{figure:13.1%}' for figure in figures)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("model", help="a name or a run; with --hold_out the folder to train in")
    parser.add_argument("--dataset", default="modelnet40")
    parser.add_argument("--root", default="data")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the run, which chose its validation split")
    parser.add_argument("--unknown", help="a set of parts, some of whose categories are not among the classes")
    parser.add_argument("--hold_out", nargs="+", default=[], help="train a network without these classes")
    parser.add_argument("--recipe", default="fast", help="how it is trained")
    parser.add_argument("--frames", action="store_true", help="also ask about the test split with other axes up")
    flags = parser.parse_args(arguments)
    train, test = (open_dataset(flags.dataset, flags.root, split, POINTS) for split in ("train", "test"))
    held_out = torch.cat([of_classes(data, flags.hold_out).points for data in (train, test)])
    if flags.hold_out:
        kept = [name for name in train.classes if name not in flags.hold_out]
        train, test = of_classes(train, kept), of_classes(test, kept)
        config = dataclasses.replace(RECIPES[flags.recipe], dataset=flags.dataset, seed=flags.seed, out=flags.model)
        fit(config, train)
    model = load_model(flags.model)
    contract, network = Contract.of(model), model.fold()
    count, (_, val) = contract.num_points, split_validation(train, flags.seed)
    usual = Judged(network, contract, val.points[:, :, :count])
    kinds = inputs_of(test.points[:, :, :count], count)
    kinds |= {"classes held out": held_out[:, :, :count]} if flags.hold_out else {}
    kinds |= {"other categories": others_than(train.classes, flags.unknown, count)} if flags.unknown else {}
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
    if flags.frames:
        say_frames(model, test)


if __name__ == "__main__":
    main()
