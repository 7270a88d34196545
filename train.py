"""Trains PointNet on a data set and says how good it is.

    python train.py --dataset shapes
    python train.py --dataset modelnet40 --root data --epochs 200 --out runs/modelnet40
    python train.py --resume --out runs/modelnet40

All flags: python train.py --help. What a run folder holds: README.md.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from pointnet.datasets import open_dataset
from pointnet.inference.pictures import printable
from pointnet.training import Stopped, TrainConfig, find_device, fit, keep_freed_memory, parse_config


def main(arguments: list[str] | None = None) -> int:
    config, resume = parse_config(arguments)
    config = dataclasses.replace(config, out=config.out or new_run_folder(config))
    keep_freed_memory()
    try:
        find_device(config.device)
        options = {"normals": config.normals, "strict": config.strict, "download": config.download}
        train, test = (
            open_dataset(config.dataset, config.root, split, config.num_points, **options)
            for split in ("train", "test")
        )
        bad = list(dict.fromkeys(map(str, [*train.bad, *test.bad])))
        if bad:
            print(f"{left_out(bad)}, and told at the end")
        result = fit(config, train, test, resume)
    except (ValueError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"\nstopped; to go on: python train.py --resume --out {config.out}", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print("\nstopped before training began", file=sys.stderr)
        return 130
    print(summary(config, result))
    if bad:
        print("\n".join(["", f"{left_out(bad)}:", *(f"  {printable(error)}" for error in bad)]))
    return 0


def new_run_folder(config: TrainConfig) -> str:
    """The first of runs/shapes-1, runs/shapes-2, ... that is not there yet."""
    number = 1
    while Path(f"runs/{config.dataset}-{number}").exists():
        number += 1
    return f"runs/{config.dataset}-{number}"


def summary(config: TrainConfig, result: dict[str, Any]) -> str:
    """The last lines of a run: how good, how long, where everything is, what to run next."""
    test, val = result["test"], result["val"]
    chosen = f"chosen on validation ({val['overall_accuracy']:.2%} there)" if val else "the last"
    where = f"--dataset {config.dataset} --root {config.root}"
    return f"""
test accuracy {test["overall_accuracy"]:.2%} overall, {test["mean_class_accuracy"]:.2%} mean over classes, \
{test["count"]:,} shapes
epoch {result["selected_epoch"]} of {config.epochs}, {chosen}
{result["seconds"]:,.0f} s, {result["samples_per_second"]:,.0f} clouds/s in training

{config.out}/
  model.safetensors, config.json   the model: pointnet.load_model("{config.out}")
  result.json, metrics.jsonl       the figures above, and one line an epoch
  config.yaml                      the settings: python train.py --config {config.out}/config.yaml --out runs/again
  checkpoint.pt                    to go on with a run that was stopped: python train.py --resume --out {config.out}

next: python -m pointnet evaluate {config.out} {where}"""


def left_out(bad: list[str]) -> str:
    return f"{len(bad)} file{'s' * (len(bad) > 1)} left out"


if __name__ == "__main__":
    sys.exit(main())
