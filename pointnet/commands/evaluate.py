"""`python -m pointnet evaluate`: the scores of a trained model on one split of a data set."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from pointnet.datasets import LabelledClouds
from pointnet.datasets.blocks import CHANNEL_NAMES
from pointnet.datasets.catalog import DATASETS_OF, OWN_FILES, check_dataset, open_dataset
from pointnet.datasets.lines import all_lines, of_each_kind
from pointnet.devices import autocast, find_device, keep_freed_memory, lines_on_precision, use_threads
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import (
    check_taught,
    evaluate,
    never_answered,
    numbered_as_taught,
    of_single_parts,
)
from pointnet.evaluation.tasks import Task, task_of
from pointnet.files import strict_json
from pointnet.inference.judge import Judge, Trust
from pointnet.models import PointNetClassifier, PointNetModel, load_model
from pointnet.names import printable, say
from pointnet.training.leaks import lines_on_test_set
from pointnet.training.run_folder import CONFIG, read_config

WIDTH = 79  # of the table


OF_TRAINING = "the network was trained on this split, so its scores say little about other data"


def run(flags: Namespace) -> int:
    """Prints the scores; files of the data set that cannot be read are skipped, each with a line on stderr."""
    device = find_device(flags.device)
    threads = use_threads(flags.threads)
    keep_freed_memory()
    model = load_model(flags.run)
    task, contract = task_of(model), Contract.of(model)
    if flags.rotate and contract.channels == CHANNEL_NAMES:
        raise ValueError("blocks of rooms have shares of the room's sides, which cannot be rotated; leave out --rotate")
    data, where = open_data(flags, task, contract)
    fewer = numbered_as_taught(model, data)
    check_taught(model, data, flags.run, where)
    if not flags.json:
        say(f"{where}; {threads}")
        if fewer:
            say(f"{where} has {fewer}")
        names_data, drawn = flags.dataset or flags.root, data.split_by_chance
        if names_data and drawn:
            some, other = len(drawn.intersection(data.files)), "train" if flags.split == "test" else "test"
            say(f"the {flags.split} split was drawn: {some:,} of {len(drawn):,} files; --split {other} has the others")
        if names_data and data.files and data.up and data.up == contract.up and not flags.up:
            say(f"files are taken with {data.up} up, as in training; --up names another axis")
    with autocast(device, flags.precision):
        scores = all_scores(model.to(device), data, device, flags.votes, flags.rotate or ())
    for line in [
        *lines_on_precision(device, flags.precision),
        *lines_on_split(flags, data),
        *never_answered(model, data),
        *of_single_parts(task, data, model),
        *all_lines(data),
        *of_each_kind(contract.notes_on_files(data)),
        *contract.lines_on_clouds(data, where),
    ]:
        say(line, sys.stderr)
    if data.bad:
        scores["left_out"] = len(data.bad)
    say(strict_json(scores) if flags.json else text_of(scores, task))
    return 0


def lines_on_split(flags: Namespace, data: LabelledClouds) -> list[str]:
    """Lines where the network was trained on what it is scored on, or is not scored on the test set of its run."""
    its_own = not (flags.dataset or flags.columns or flags.up)
    if flags.split == "test":
        return lines_on_test_set(flags.run, data, its_own)
    return [OF_TRAINING] if its_own and not flags.root else []


def all_scores(
    model: PointNetModel,
    data: LabelledClouds,
    device: torch.device | str = "cpu",
    votes: int = 1,
    rotations: Sequence[int] = (),
) -> dict[str, Any]:
    """As `evaluate` with "of_class"; of a classifier also what `Trust` gives.

    Where there are `rotations`, "rotated" has the task's first metric with all clouds rotated about the up axis by each
    of these angles, in degrees.
    """
    task, contract = task_of(model), Contract.of(model)
    score = partial(evaluate, model, data, device, votes=votes, contract=contract)
    if task.name == "classification":
        trust = Trust(Judge(cast(PointNetClassifier, model), contract, votes))
        scores = score(by_class=True, look=trust.look) | trust.result()
    else:
        scores = score(by_class=True)
    if rotations:
        of_rotated = {str(degrees): score(degrees=degrees) if degrees else scores for degrees in rotations}
        scores["rotated"] = {degrees: each[task.chooser] for degrees, each in of_rotated.items()}
    return scores


def open_data(flags: Namespace, task: Task, contract: Contract) -> tuple[LabelledClouds, str]:
    """The split to score a model on, of the data set that the flags name, else of the run's own; and where it is.

    Raises:
        ValueError: there is neither, or no such data set.
        OSError: it cannot be read.
    """
    name, root, columns, up = flags.dataset, "data", contract.columns, ""
    if name is None:
        if not (Path(flags.run) / CONFIG).is_file():
            known = [each for each in DATASETS_OF[task.name] if each in Path(flags.run).name.split("_")]  # shipped
            wanted = f"--dataset {known[0] if known else 'NAME'} --root FOLDER"
            raise ValueError(f"{flags.run}: its folder does not say what it was trained on; name it: {wanted}")
        config = read_config(flags.run)
        name, root, columns, up = config.dataset, config.root, config.columns, config.up
    elif name in (*OWN_FILES, "shapenetpart"):
        up = contract.up or ""
    elif name == "packed":
        columns = ""
    check_dataset(name, task.name)
    root = flags.root or root
    how = {"download": flags.download, "task": task.name, "columns": flags.columns or columns, "up": flags.up or up}
    features = () if contract.channels == CHANNEL_NAMES else contract.features  # those of S3DIS are its own
    how |= {"features": features, "intensity": contract.intensity, "block": contract.block}
    data = open_dataset(name, root, flags.split, contract.num_points, **how)
    return data, f"{name} in {root}"


def text_of(scores: Mapping[str, Any], task: Task) -> str:
    """The scores as lines: those of each class in columns, those by angle, and last a summary."""
    width = max(len(printable(name)) for name in scores["of_class"])
    cells = [f"{printable(name):{width}}  {share:6.1%}" for name, share in scores["of_class"].items()]
    across = max(1, (WIDTH + 3) // (width + 11))
    rows = ("   ".join(cells[start : start + across]) for start in range(0, len(cells), across))
    lines = [f"{task.of_class}:", *rows]
    title = next(iter(task.titles.values()))
    lines += [f"rotated by {degrees}°: {share:.2%} {title}" for degrees, share in scores.get("rotated", {}).items()]
    trust = ""
    if "sure" in scores:
        trust = f"; calibration error {scores['calibration_error']:.2%}, {scores['sure']:.1%} sure"
    return "\n".join([*lines, f"{task.summary(scores)}{trust}"])
