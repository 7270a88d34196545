"""Seconds from random weights to an accuracy: it trains ModelNet40 until its validation split says that it is there.

python -m benchmarks.speedrun --root data --out runs/speedrun [--target 0.892] [--recipe fast] [--epochs 24]
    [--batch_size 32] [--lr 2e-3]

The clock runs from the first line of training, with evaluations of the validation split. The test split is looked at
once, after it. Without a CUDA device it says so and ends (`--device cpu` runs it on one).
"""

import contextlib
import dataclasses
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.common import machine
from pointnet import load_model
from pointnet.datasets import LabelledClouds
from pointnet.datasets.catalog import open_dataset
from pointnet.training import TrainConfig, evaluate, fit
from pointnet.training.recipes import RECIPES


class Reached(Exception):
    """Validation is at the target."""


def main(arguments: Sequence[str] | None = None) -> None:
    flags = ArgumentParser(description=__doc__)
    flags.add_argument("--root", default="data")
    flags.add_argument("--out", default="runs/speedrun")
    flags.add_argument("--target", type=float, default=0.892, help="overall accuracy")
    flags.add_argument(
        "--recipe", default="fast", choices=[name for name, each in RECIPES.items() if each.task == "classification"]
    )
    flags.add_argument("--epochs", type=int, help="at most; as in the recipe")
    flags.add_argument("--batch_size", type=int, help="as in the recipe")
    flags.add_argument("--lr", type=float, help="as in the recipe")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--device", default="cuda")
    args = flags.parse_args(arguments)
    if args.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return
    config = dataclasses.replace(
        RECIPES[args.recipe], dataset="modelnet40", root=args.root, out=args.out, device=args.device, seed=args.seed
    )
    given = {name: getattr(args, name) for name in ("epochs", "batch_size", "lr") if getattr(args, name) is not None}
    config = dataclasses.replace(config, **given)
    train, test = (open_dataset(config.dataset, config.root, split, **config.opening) for split in ("train", "test"))
    seconds, epochs = timed(config, train, args.target)
    score = evaluate(load_model(args.out).to(args.device), test, args.device)["overall_accuracy"]
    end = f"{args.target:.1%} on validation" if epochs else "the end, below the target on validation"
    print(f"{machine(args.device)}; {seconds:.1f} s to {end}; {score:.2%} on test")


def timed(config: TrainConfig, train: LabelledClouds, target: float) -> tuple[float, int]:
    """Seconds until validation is at the target, and epochs; 0 epochs where it never is."""
    epochs = 0

    def look(metrics: Mapping[str, Any]) -> None:
        nonlocal epochs
        if metrics["val_overall_accuracy"] >= target:
            epochs = metrics["epoch"]
            raise Reached

    start = time.perf_counter()
    with contextlib.suppress(Reached):
        fit(config, train, after_epoch=look)
    return time.perf_counter() - start, epochs


if __name__ == "__main__":
    main()
