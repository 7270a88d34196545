"""`python -m pointnet convert`: the weights of another PyTorch PointNet or of its family as a model folder."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from pointnet.datasets.clouds import UNIT_SPHERE
from pointnet.datasets.shapenetpart import SHAPENETPART
from pointnet.evaluation.contract import Contract
from pointnet.models import (
    DGCNNClassifier,
    PointNet2Classifier,
    PointNetClassifier,
    PointNetEmbedder,
    PointNetPartSegmenter,
    PointNetSegmenter,
    PointNextClassifier,
    Pretrained,
)
from pointnet.models.ports import load_port
from pointnet.models.weights import CONFIG_FILE, WEIGHTS_FILE, digest, read_weights
from pointnet.names import printable, say
from pointnet.points.read import SUFFIXES

TAKEN = "already holds a model; choose another --out"


def run(flags: Namespace) -> int:
    """Writes the folder, and prints what the model takes."""
    file = Path(flags.file)
    out = Path(flags.out) if flags.out else file.parent / file.stem
    if out == file:
        raise ValueError(f"{file}: has no suffix to remove; --out must name the folder to write")
    if (out / CONFIG_FILE).exists():
        raise ValueError(f"{out}: {TAKEN}")
    try:
        lines = Path(flags.classes).read_text(encoding="utf-8-sig").splitlines() if flags.classes else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{flags.classes}: must be UTF-8 text, one class name per line") from error
    try:
        classes = [line.strip() for line in lines if line.strip()]
        model = load_port(file, classes, flags.up, dict(SHAPENETPART.values()), flags.normalize_dp == "true")
    except ValueError as error:
        if not (file.is_dir() or file.suffix.lower() in SUFFIXES):
            raise
        wanted = "convert takes the weights of another PointNet; show and predict take files of points, and folders"
        raise ValueError(f"{error}; {wanted}") from error
    if (out / WEIGHTS_FILE).exists() and not _holds_its_weights(out, model):
        raise ValueError(f"{out}: {TAKEN}")
    model.preprocessing = Contract.of(model).as_json()
    model.save_pretrained(out, notes=f"Converted from `{printable(file.name)}`.")
    say("\n".join([f"{out}/: {what_it_is(model)}", *what_was_assumed(model, flags)]))
    return 0


def _holds_its_weights(folder: Path, model: Pretrained) -> bool:
    """Whether the folder holds the weights of this model, as a conversion that was stopped leaves them."""
    try:
        return digest(read_weights(folder)) == digest(model.state_dict())
    except ValueError:
        return False


def what_it_is(model: Pretrained) -> str:
    """The network, its input and its size."""
    contract = Contract.of(model)
    count, categories = len(model.classes), len(contract.categories)
    kinds: dict[type[Pretrained], str] = {
        PointNet2Classifier: f"a PointNet++ of {count} classes",
        DGCNNClassifier: f"a DGCNN of {count} classes",
        PointNextClassifier: f"a PointNeXt of {count} classes",
        PointNetClassifier: f"a model of {count} classes",
        PointNetPartSegmenter: f"a model of {count} parts of {f'{categories} categories' if categories else 'objects'}",
        PointNetSegmenter: f"a model of {count} classes of points in scenes",
        PointNetEmbedder: "an encoder alone, without classes",
    }
    parameters = sum(p.numel() for p in model.parameters())
    return f"{kinds[type(model)]}, {parameters:,} parameters; it takes {', '.join(contract.channels)}, with z up"


def what_was_assumed(model: Pretrained, flags: Namespace) -> Iterator[str]:
    """Lines about what the file does not say and was assumed."""
    contract = Contract.of(model)
    if flags.up == "z" and contract.scale == UNIT_SPHERE:
        known = "ModelNet's HDF5 and text, and ShapeNetPart, have"
        yield f"if it was trained on clouds with y up, as {known}, convert it with --up y"
    if isinstance(model, DGCNNClassifier):
        yield f"its graphs have {model.arguments['neighbours']} neighbours, the port's --k where it is not given"
    if isinstance(model, PointNextClassifier):
        yield "its radii and neighbours are those of pointnext-s.yaml, which the file does not hold"
    if isinstance(model, PointNextClassifier) and flags.normalize_dp == "true":
        yield "if its settings do not say normalize_dp: True (normalize_xyz is ignored), add --normalize_dp false"
    if contract.categories:
        yield f"it needs each object's category, as its place in this list: {', '.join(contract.categories)}"
    if model.classes and not flags.classes:
        names = f"'{model.classes[0]}' and so on"
        yield f"its classes are named {names}; --classes NAMES.txt gives their names"
