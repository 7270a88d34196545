"""Copies the network of a training run to the weights that come with the library, and measures it as shipped.

    python -m tools.publish runs/modelnet40 pointnet_modelnet40 [--twin runs/twin]

Matrices are stored in half precision, and the stored network is measured: on the test split, once, with one vote, and
its logits on `data/samples` (for parts, their mean over the points). Both are written to `scores.json` beside the
weights, for `tests/test_weights.py` to reproduce, and the scores to the model card.

A network that was trained on all shapes has no validation to be calibrated on. `--twin` names a run of the same
settings that kept a validation split: its temperature and its limits of what is usual are taken, and the card says what
the twin reaches.
"""

import argparse
import copy
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointnet.commands.evaluate import all_scores
from pointnet.datasets import LabelledClouds, ModelNet, open_dataset, split_parts, split_validation
from pointnet.datasets.clouds import spread
from pointnet.devices import keep_freed_memory
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.tasks import TASKS, task_of
from pointnet.evaluation.trust import LEAST_CLOUDS, measure_trust
from pointnet.models import WEIGHTS, PartLabels, Pretrained, load_model
from pointnet.training import TrainConfig
from pointnet.training.leaks import same_clouds
from pointnet.training.recipes import to_flags
from pointnet.training.run_folder import read_config, read_result

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
ANGLES = (0, 45, 90, 180)  # by which the test split is rotated about the up axis
USE = "## Intended use"
SOURCES = {
    "modelnet40": "ModelNet40 (Wu et al., CVPR 2015), as 1,024 points per shape",
    "shapes": "Shapes, the data set that this library makes (16 classes of furniture and vessels)",
    "shapenetpart": "Meshes of the Princeton Segmentation Benchmark (Chen, Golovinskiy, Funkhouser, SIGGRAPH 2009), "
    "2,500 points with normals on each, in the layout of ShapeNetPart",
}
LICENCES = {
    "modelnet40": "The weights are under the library's licence. ModelNet's models belong to their authors and were "
    "collected for academic research: consider that before you use these weights.",
    "shapes": "The weights and the data are under the library's licence.",
    "shapenetpart": "The weights are under the library's licence. The meshes belong to their authors.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("name", help="the name of the weights")
    parser.add_argument("--twin", type=Path, help="a run of the same settings with a validation split")
    parser.add_argument("--note", default="", help="a sentence for the card on how the settings were chosen")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    config, result, model = read_config(args.run), read_result(args.run), load_model(args.run)
    train, test = opened(config)
    if args.twin:
        take_trust(model, args.twin, train)
    published, folder = WEIGHTS / args.name, WEIGHTS / f".{args.name}"  # until it is whole
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, half=True, notes="")
    model = load_model(folder)
    scores = measure(model, test)
    (folder / "scores.json").write_text(json.dumps(scores) + "\n")
    (folder / "README.md").unlink()
    notes = card(config, result, scores, train, test, args.note)
    if classifies(model):
        trust = trust_section(model, scores, args.run, args.twin, train, test)
        notes = notes.replace(USE, trust + USE)
    model.save_pretrained(folder, half=True, notes=notes)
    shutil.rmtree(published, ignore_errors=True)
    folder.rename(published)
    print((published / "README.md").read_text())
    print(f"{published}: {(published / 'model.safetensors').stat().st_size / 1e6:.2f} MB")
    return 0


def classifies(model: Pretrained) -> bool:
    """Whether it gives one class for a cloud, of which it may be sure."""
    return task_of(model).name == "classification"


def opened(config: TrainConfig) -> tuple[LabelledClouds, LabelledClouds]:
    """The training split and the test split of a run."""
    train, test = (open_dataset(config.dataset, config.root, split, **config.opening) for split in ("train", "test"))
    return train, test


def take_trust(model: Pretrained, twin: Path, train: LabelledClouds) -> None:
    """Gives a classifier the twin's temperature and limits, with the class means of its own logits."""
    taught = load_model(twin).preprocessing
    assert classifies(model)
    few = spread(train, LEAST_CLOUDS)  # what is measured on these is the twin's
    shown = measure_trust(model, Contract.of(model), train, few, torch.device("cpu"))[1]
    assert shown is not None
    own = {name: shown.as_json()[name] for name in ("means", "precision")}
    contract = Contract.of(model).as_json() | {"temperature": taught["temperature"]}
    model.preprocessing = contract | {"familiar": taught["familiar"] | own}


def trust_section(
    model: Pretrained,
    scores: dict[str, Any],
    run: Path,
    twin: Path | None,
    train: LabelledClouds,
    test: LabelledClouds,
) -> str:
    """The part of the card on how sure the answers are, and how they depend on the way a shape faces."""
    config, kind, opening = read_config(twin or run), "", ""
    if twin is not None:
        model, kind = load_model(twin), "twin, "
        train, test = opened(config)
        scores = all_scores(model, test, rotations=ANGLES)
        opening = f"""These weights have seen all shapes. So their temperature and their limits, and the figures here,
are those of a twin: the same settings and `--val_fraction {config.val_fraction}`.

"""
    learned, val = split_validation(train, config.seed, config.val_fraction)
    judged = {f"{kind}test, {len(test):,} shapes": scores}
    if len(val):
        title = f"{kind}validation, {len(val):,} shapes, beside {len(learned):,} of training"
        judged = {title: all_scores(model, val)} | judged
    columns = ("overall_accuracy", "calibration_error", "sure")
    rows = [[name, *(f"{each[column]:.2%}" for column in columns)] for name, each in judged.items()]
    rotated = [[f"{kind}test", *(f"{share:.2%}" for share in scores["rotated"].values())]]
    temperature = f"{Contract.of(model).temperature:.3g}"
    return f"""## How sure

{opening}Probabilities are softmax(logits / {temperature}), as fits validation best. An answer is sure if its class has
a probability of 50 % or more and the cloud is not unusual beside validation.

{markdown(["", "overall", "calibration error", "sure"], rows)}

Overall accuracy with all shapes rotated about the up axis:

{markdown(["", *(f"{degrees}°" for degrees in ANGLES)], rotated)}

"""


def measure(model: Pretrained, test: LabelledClouds) -> dict[str, Any]:
    """Contents of `scores.json`: the data's fingerprint, the scores on it, the first score of each class, the logits
    on the samples."""
    scores = all_scores(model, test, rotations=ANGLES if classifies(model) else ())
    of_class = scores.pop("of_class")
    return {
        "data": test.fingerprint(),
        **{name: value for name, value in scores.items() if name != "loss"},
        **({"unknown_category": without_category(model, test)} if isinstance(model, PartLabels) else {}),
        "of_class": [*of_class.values()],
        "samples": on_samples(model).double().round(decimals=5).tolist(),
    }


@torch.no_grad()
def without_category(model: Pretrained, test: LabelledClouds) -> float:
    """The share of points whose part is right if the category is not given."""
    right = torch.zeros(2, dtype=torch.int64)
    for rows in torch.arange(len(test)).split(32):
        x, parts, own = split_parts(test.batch(rows)[0])
        right += torch.stack([(own & (model(x).argmax(1) == parts)).sum(), own.sum()])
    return float(right[0] / right[1])


@torch.no_grad()
def on_samples(model: Pretrained) -> Tensor:
    """The logits (clouds, classes) of the model on the samples; for labels of points, their mean over the points.

    In float64, in which no rounding decides between two neighbours that are almost as far.
    """
    data = samples(normals=len(Contract.of(model).channels) > 3)
    logits = copy.deepcopy(model).double()(data.batch(slice(None))[0][:, :, : data.num_points].double())
    return logits if logits.dim() == 2 else logits.mean(2)


def samples(normals: bool) -> LabelledClouds:
    """The clouds that come with the repository, in the library's frame; those with normals have 256 points."""
    if normals:
        return ModelNet(SAMPLES / "modelnet40_normal_resampled", "test", num_points=256, normals=True)
    return ModelNet(SAMPLES, "test", num_points=1024)


def card(
    config: TrainConfig,
    result: dict[str, Any],
    scores: dict[str, Any],
    train: LabelledClouds,
    test: LabelledClouds,
    note: str,
) -> str:
    """The notes of the model card."""
    local = {
        name: getattr(TrainConfig(), name)
        for name in ("root", "out", "device", "threads", "feed", "workers", "cache_gb", "test")
    }
    command = " ".join(["python train.py", *to_flags(dataclasses.replace(config, **local))])
    held = len(split_validation(train, config.seed, config.val_fraction)[1]) / len(train)
    chosen = f"{held:.0%} of which chose the epoch" if held else "the last epoch kept"
    all_seen = same_clouds(test, train) == len(test)
    which = "shapes, all of them trained on" if all_seen else "shapes, one vote"
    caution = " This figure is for reproduction; it says nothing about other shapes." if all_seen else ""
    titles = TASKS[config.task].titles
    rows = [[f"test, {scores['count']:,} {which}", *(f"{scores[name]:.2%}" for name in titles)]]
    if result["val"]:
        rows.append(["validation, which chose the epoch", *(f"{result['val'][name]:.2%}" for name in titles)])
    unknown = scores.get("unknown_category")
    kind, kinds, category = "class", "classes", ""
    if unknown is not None:
        kind, kinds = "category", "categories"
        category = " The category is given, `model(points, category)`; without it, "
        category += f"{unknown:.2%} of the points are right."
    of_class = [[name, f"{share:.1%}"] for name, share in zip(test.classes, scores["of_class"], strict=True)]
    return f"""## Training

{SOURCES[config.dataset]}: the training split, {len(train):,} shapes, {chosen}.{note and f" {note}"}

```bash
{command}
```

Epoch {result["selected_epoch"]} of {config.epochs}.

## Accuracy

{markdown(["", *titles.values()], rows)}

Measured on these weights, with matrices in half precision.{caution}{category}

{markdown([kind, f"test, {next(iter(titles.values()))}"], of_class)}

{USE}

To try the library, to compare with, to start from. It knows single, whole, upright shapes of these {kinds}, and answers
with one of its names for any input. It was not trained on pieces of shapes, scans with clutter or shapes lying down.
{LICENCES[config.dataset]}"""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["-"] * len(header), *rows))


if __name__ == "__main__":
    raise SystemExit(main())
