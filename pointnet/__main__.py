"""The command line: python -m pointnet evaluate RUN --dataset ... --root ..."""

from __future__ import annotations

import json
import sys
from typing import Any

from pointnet.datasets import DATASETS, open_dataset
from pointnet.models import load_model
from pointnet.training.config import OneLineParser, check_name
from pointnet.training.loop import evaluate, find_device, keep_freed_memory


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m pointnet", description="Use a trained point-cloud model.")
    commands = parser.add_subcommands()
    commands.add_subcommand("evaluate", _evaluate_parser(), help="measure a trained model on a data set")
    parsed = parser.parse_args(arguments)
    try:
        print(_evaluate(parsed.evaluate))
    except (ValueError, OSError) as error:
        print(f"python -m pointnet: error: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluate_parser() -> OneLineParser:
    parser = OneLineParser(description="Measure a trained model on one split of a data set.")
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--dataset", default="shapes", help=", ".join(DATASETS))
    parser.add_argument("--root", default="data", help="the folder the data set is in")
    parser.add_argument("--split", default="test", help="test or train")
    parser.add_argument("--device", default="auto", help="auto (cuda where there is one), cpu, cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _evaluate(flags: Any) -> str:
    check_name("dataset", flags.dataset, DATASETS)
    device = find_device(flags.device)
    model = load_model(flags.run)
    keep_freed_memory()
    data = open_dataset(flags.dataset, flags.root, flags.split, model.preprocessing["num_points"])
    if data.classes != model.classes:
        raise ValueError(f"{flags.run}: its {len(model.classes)} classes are not those of {flags.dataset}")
    scores = evaluate(model.to(device), data, device)
    if flags.json:
        return json.dumps(scores)
    return (
        f"{scores['overall_accuracy']:.2%} overall, {scores['mean_class_accuracy']:.2%} mean over classes, "
        f"{scores['count']:,} shapes"
    )


if __name__ == "__main__":
    sys.exit(main())
