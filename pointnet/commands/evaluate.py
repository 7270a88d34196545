"""`python -m pointnet evaluate`: the scores of a trained model on one split of a data set."""

import json
import sys
from argparse import Namespace

from pointnet.datasets.catalog import check_dataset, open_dataset
from pointnet.devices import find_device, keep_freed_memory, use_threads
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import check_same_classes, evaluate
from pointnet.evaluation.tasks import task_of
from pointnet.models import load_model


def run(flags: Namespace) -> int:
    """Prints the scores; files of the data set that cannot be read are skipped, each with a line on stderr."""
    device = find_device(flags.device)
    threads = use_threads(flags.threads)
    keep_freed_memory()
    model = load_model(flags.run)
    task = task_of(model)
    check_dataset(flags.dataset, task.name)
    contract = Contract.of(model)
    data = open_dataset(
        flags.dataset,
        flags.root,
        flags.split,
        contract.num_points,
        "normals" in contract.features,
        download=flags.download,
        task=task.name,
        columns=flags.columns or contract.columns,
        up=contract.up or "" if flags.dataset in ("folder", "shapenetpart") else "",
    )
    check_same_classes(model, data, flags.run, f"{flags.dataset} in {flags.root}")
    if not flags.json:
        print(threads, flush=True)
    scores = evaluate(model.to(device), data, device, votes=flags.votes)
    for line in data.left_out():
        print(line, file=sys.stderr)
    if data.bad:
        scores["left_out"] = len(data.bad)
    print(json.dumps(scores) if flags.json else task.summary(scores))
    return 0
