"""`python -m pointnet convert`: the weights of another PyTorch PointNet as a model folder."""

from argparse import Namespace
from pathlib import Path

from pointnet.evaluation.contract import Contract
from pointnet.models.ports import load_port
from pointnet.names import printable
from pointnet.points.read import SUFFIXES


def run(flags: Namespace) -> int:
    """Writes the folder, and prints what the model takes."""
    file = Path(flags.file)
    out = Path(flags.out) if flags.out else file.parent / file.stem
    if out == file:
        raise ValueError(f"{file}: has no suffix to remove; --out must name the folder to write")
    if (out / "config.json").exists():
        raise ValueError(f"{out}: already holds a model; choose another --out")
    try:
        lines = Path(flags.classes).read_text(encoding="utf-8").splitlines() if flags.classes else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{flags.classes}: must be UTF-8 text, one class name a line") from error
    try:
        model = load_port(file, [line.strip() for line in lines if line.strip()], flags.up)
    except ValueError as error:
        if not (file.is_dir() or file.suffix.lower() in SUFFIXES):
            raise
        wanted = "convert takes the weights of another PointNet; show and predict take files of points, and folders"
        raise ValueError(f"{error}; {wanted}") from error
    model.preprocessing = Contract.of(model).as_json()
    model.save_pretrained(out, notes=f"Converted from `{printable(file.name)}`.")
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{out}/: a model of {len(model.classes)} classes, {parameters:,} parameters; it takes points with z up")
    if flags.up == "z":
        print("if it was trained on clouds with y up, as ModelNet's HDF5 and text have, convert it with --up y")
    if not flags.classes:
        print(f"its classes are named '{model.classes[0]}' and so on; --classes NAMES.txt gives their names")
    return 0
