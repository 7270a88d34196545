"""Puts the network of a training run among the weights that come with the library, measured as it is shipped.

    python -m benchmarks.publish runs/modelnet40 pointnet_modelnet40

Its matrices are stored in half precision, and what is measured is what is read back: the test part, once, with one
vote, and the logits on the samples in `data/samples`. Both go to `scores.json` beside the weights, for a test to find
again (`tests/test_weights.py`), and to the model card.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointnet.datasets import LabelledClouds, ModelNet, open_dataset
from pointnet.models import PointNetModel, load_model
from pointnet.models.zoo import WEIGHTS
from pointnet.training import TrainConfig, keep_freed_memory
from pointnet.training.config import load_config, to_words
from pointnet.training.run import fingerprint

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
SOURCES = {
    "modelnet40": "ModelNet40 (Wu et al., CVPR 2015), as 1,024 points a shape",
    "shapes": "Shapes, the data set this library makes: 16 classes of furniture and vessels",
}
LICENCES = {
    "modelnet40": "The weights are under the library's licence. ModelNet's models belong to their authors and were "
    "gathered for academic research: mind that where you use what was learnt from them.",
    "shapes": "The weights and the data are under the library's licence.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("name", help="of the weights")
    parser.add_argument("--note", default="", help="a sentence for the card on how the settings were chosen")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    config = load_config(args.run / "config.yaml")
    result = json.loads((args.run / "result.json").read_text())
    test = open_dataset(config.dataset, config.root, "test", config.num_points, normals=config.normals)
    folder = WEIGHTS / args.name
    shutil.rmtree(folder, ignore_errors=True)
    load_model(args.run).save_pretrained(folder, half=True, notes="")
    scores = measure(load_model(folder), test)
    (folder / "scores.json").write_text(json.dumps(scores) + "\n")
    (folder / "README.md").unlink()
    load_model(folder).save_pretrained(folder, half=True, notes=card(config, result, scores, test.classes, args.note))
    print((folder / "README.md").read_text())
    print(f"{folder}: {(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB")
    return 0


def measure(model: PointNetModel, test: LabelledClouds) -> dict[str, Any]:
    """What is found again: -> the data's fingerprint, accuracies on it, and logits on samples."""
    logits = predict(model, test)
    right = (logits.argmax(1) == test.labels).double()
    of_class = [float(right[test.labels == label].mean()) for label in range(len(test.classes))]
    return {
        "data": fingerprint(test),
        "count": len(test),
        "right": int(right.sum()),
        "overall_accuracy": float(right.mean()),
        "mean_class_accuracy": sum(of_class) / len(of_class),
        "of_class": of_class,
        "samples": predict(model, samples()).double().round(decimals=5).tolist(),
    }


@torch.no_grad()
def predict(model: PointNetModel, data: LabelledClouds) -> Tensor:
    """The logits (len(data), classes) of the model on whole clouds."""
    return torch.cat(
        [model(data.batch(rows)[0][:, :, : data.num_points]) for rows in torch.arange(len(data)).split(32)]
    )


def samples() -> LabelledClouds:
    """Clouds that come with the repository; of one frame with all others."""
    return ModelNet(SAMPLES, "test", num_points=1024)


def card(config: TrainConfig, result: dict[str, Any], scores: dict[str, Any], classes: Sequence[str], note: str) -> str:
    """The notes of the model card."""
    own = {name: getattr(TrainConfig(), name) for name in ("dataset", "root", "out", "device", "feed", "test")}
    flags = " ".join(to_words(dataclasses.replace(config, **own)))
    val = result["val"]
    rows = "\n".join(f"| {name} | {share:.1%} |" for name, share in zip(classes, scores["of_class"], strict=True))
    return f"""## Training

{SOURCES[config.dataset]}; the train part alone, a tenth of which chose the epoch.{note and f" {note}"}

```bash
python train.py --dataset {config.dataset} {flags}
```

Epoch {result["selected_epoch"]} of {config.epochs}.

## Accuracy

| | overall | mean over classes |
|-|-|-|
| test, {scores["count"]:,} shapes, one vote | {scores["overall_accuracy"]:.2%} | {scores["mean_class_accuracy"]:.2%} |
| validation, which chose the epoch | {val["overall_accuracy"]:.2%} | {val["mean_class_accuracy"]:.2%} |

Measured on the weights as they are here, matrices in half precision.

| class | test accuracy |
|-|-|
{rows}

## Intended use

To try the library, to compare with, to start from. It knows whole, upright shapes, alone, of these classes; it names
one of them for anything it is given. Parts of shapes, scans with clutter and shapes lying down are none of what it was
trained on. {LICENCES[config.dataset]}"""


if __name__ == "__main__":
    raise SystemExit(main())
