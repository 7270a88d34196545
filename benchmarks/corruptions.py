"""Error rates of classifiers on clouds with the fifteen corruptions of ModelNet40-C (`pointnet.evaluation.corrupted`).

python -m benchmarks.corruptions [NAME|RUN ...] --root ../shared/data/modelnet40_dev [--clouds 50] [--renormalize]

For each network the share of the test split that it gets wrong: of clean clouds, with each corruption (the mean of five
severities), and the mean of these, beside PointNet's published one. A cloud is corrupted alike for every network,
whatever else is measured.

As released, noise and transformations leave clouds in the box [-1, 1], which networks that were trained in the unit
sphere also have to bear; `--renormalize` brings every cloud, clean ones too, into the unit sphere, as `predict` does.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import machine
from pointnet import load_model
from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.datasets.clouds import spread
from pointnet.evaluation.analysis import misclassified, takes_corrupted
from pointnet.evaluation.corrupted import CORRUPTIONS, POINTS, PUBLISHED, SEVERITIES
from pointnet.evaluation.tasks import task_of
from pointnet.models import Pretrained
from pointnet.models.weights import shipped


def load(name: str, data: LabelledClouds) -> Pretrained:
    """A classifier of the data's classes that takes x y z in the unit sphere.

    Raises:
        ValueError: it is something else.
    """
    model = load_model(name)
    fits = task_of(model).name == "classification" and model.classes == data.classes
    if not fits or not takes_corrupted(model):
        raise ValueError(f"{name}: wanted a classifier of x y z in the unit sphere, with the classes of the data")
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("models", nargs="*", help="names or runs; none: all shipped networks of ModelNet40")
    parser.add_argument("--dataset", default="modelnet40")
    parser.add_argument("--root", default="data")
    parser.add_argument("--clouds", type=int, help="so many of the test split, spread over the classes; none: all")
    parser.add_argument("--renormalize", action="store_true", help="every cloud into the unit sphere, as predict does")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args(arguments)
    torch.set_num_threads(flags.threads)
    data = open_dataset(flags.dataset, flags.root, "test", POINTS)
    data = spread(data, flags.clouds) if flags.clouds else data
    names = flags.models or [name for name in shipped() if "modelnet40" in name.split("_")]
    models, start = [load(name, data) for name in names], time.perf_counter()

    def rates(name: str, severity: int) -> NDArray[np.float64]:
        return 100 * misclassified(models, data, name, severity, flags.renormalize, flags.seed).mean(1)

    def row(title: str, values: Sequence[float] | NDArray[np.float64], published: str) -> None:
        print(f"| {title} | {' | '.join(f'{value:.1f}' for value in values)} | {published} |", flush=True)

    print(f"error rate, %, of {len(data):,} clouds; mean of the five severities\n")
    print(f"| | {' | '.join(names)} | PointNet, published |\n|{'-|' * (len(names) + 2)}")
    row("clean", rates("uniform", 0), f"{100 * PUBLISHED[0]:.1f}")
    means = []
    for name in CORRUPTIONS:
        means.append(np.mean([rates(name, severity) for severity in SEVERITIES], 0))
        row(name, means[-1], "")
    row("mean of the corruptions", np.mean(means, 0), f"{100 * PUBLISHED[1]:.1f}")
    print(f"\n{time.perf_counter() - start:.0f} s, {machine('cpu')}")


if __name__ == "__main__":
    main()
