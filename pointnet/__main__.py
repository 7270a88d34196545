"""The command line: python -m pointnet evaluate RUN --dataset ... --root ..., python -m pointnet show DATA|FILE..."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pointnet.datasets import DATASETS, PointCloudFileError, open_dataset
from pointnet.inference.pictures import printable
from pointnet.inference.show import show_data, show_files
from pointnet.models import load_model
from pointnet.training.config import OneLineParser, check_name, did_you_mean
from pointnet.training.loop import evaluate, find_device, keep_freed_memory


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m pointnet", description="Use a trained point-cloud model.")
    commands = parser.add_subcommands()
    commands.add_subcommand("evaluate", _evaluate_parser(), help="measure a trained model on a data set")
    commands.add_subcommand("show", _show_parser(), help="say what a data set or files hold, and draw it")
    parsed = parser.parse_args(arguments)
    run = {"evaluate": _evaluate, "show": _show}[parsed.subcommand]
    try:
        return run(parsed[parsed.subcommand])
    except (ValueError, OSError) as error:
        print(f"python -m pointnet: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _evaluate_parser() -> OneLineParser:
    parser = OneLineParser(description="Measure a trained model on one split of a data set.")
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--dataset", default="shapes", help=", ".join(DATASETS))
    parser.add_argument("--root", default="data", help="the folder the data set is in")
    parser.add_argument("--download", action="store_true", help="fetch the data set if it is not there")
    parser.add_argument("--split", default="test", help="test or train")
    parser.add_argument("--device", default="auto", help="auto (cuda where there is one), cpu, cuda or cuda:N")
    text = "rotations about the up axis to vote over (the paper's 12); of use where training turned clouds too"
    parser.add_argument("--votes", type=int, default=1, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _evaluate(flags: Any) -> int:
    check_name("dataset", flags.dataset, DATASETS)
    device = find_device(flags.device)
    model = load_model(flags.run)
    keep_freed_memory()
    wanted = model.preprocessing
    data = open_dataset(
        flags.dataset,
        flags.root,
        flags.split,
        wanted["num_points"],
        normals=wanted.get("normals", False),
        download=flags.download,
    )
    if data.classes != model.classes:
        other = sorted(set(data.classes) ^ set(model.classes))
        which = f"'{other[0]}' is in one alone" if other else "they are in another order"
        raise ValueError(f"{flags.run}: its classes are not those of {flags.dataset} in {flags.root}: {which}")
    scores = evaluate(model.to(device), data, device, votes=flags.votes)
    for error in data.bad:
        print(f"left out: {printable(str(error))}", file=sys.stderr)
    if data.bad:
        scores["left_out"] = len(data.bad)
    if flags.json:
        print(json.dumps(scores))
        return 0
    print(
        f"{scores['overall_accuracy']:.2%} overall, {scores['mean_class_accuracy']:.2%} mean over classes, "
        f"{scores['count']:,} shapes"
    )
    return 0


def _show_parser() -> OneLineParser:
    parser = OneLineParser(description="Say what a data set or files of points hold, and draw samples of it.")
    parser.add_argument("what", nargs="+", help=f"{', '.join(DATASETS)}, or files and folders of points")
    parser.add_argument("--root", default="data", help="the folder the data set is in")
    parser.add_argument("--split", default="both", help="train, test or both")
    parser.add_argument("--num_points", type=int | None, help="points a cloud (default: 1024; files whole)")
    parser.add_argument("--per_class", type=int, default=1, help="samples of each class")
    parser.add_argument("--up", type=str | None, help="the files' up axis, y or z (default: as known of the format)")
    parser.add_argument("--out", default="show", help="the folder for the picture and the page")
    return parser


def _show(flags: Any) -> int:
    """Prints what is there; a file that cannot be read is a line on stderr and makes the exit code 1."""
    if len(flags.what) == 1 and flags.what[0] in DATASETS:
        count = 1024 if flags.num_points is None else flags.num_points
        for text in show_data(flags.what[0], flags.root, flags.split, count, flags.per_class, flags.out):
            print(text, flush=True)
        return 0
    for word in flags.what:
        if not Path(word).exists():
            known = f"{did_you_mean(word, DATASETS)} (data sets: {', '.join(DATASETS)})"
            raise ValueError(f"'{word}' is neither a data set nor a file{known}")
    code = 0
    for found in show_files([Path(word) for word in flags.what], flags.num_points, flags.up, flags.out):
        if isinstance(found, PointCloudFileError):
            code = 1
        print(
            printable(str(found)), file=sys.stderr if isinstance(found, PointCloudFileError) else sys.stdout, flush=True
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
