"""`python -m pointnet export`: a trained model as one file that runs without this library."""

from argparse import Namespace
from pathlib import Path

from pointnet.files import replacing
from pointnet.inference.cases import kinds_of
from pointnet.inference.export import SIZES, SUFFIXES, TOLERANCE, export_model, what_it_takes
from pointnet.models import load_model
from pointnet.names import check_name, say


def run(flags: Namespace) -> int:
    """Writes the file, into the run folder unless --out says where; prints what it takes and what was compared."""
    check_name("format", flags.format, SUFFIXES)
    model, folder = load_model(flags.run), Path(flags.run)
    stem = folder / "model" if folder.is_dir() else folder
    path = Path(flags.out or f"{stem}{SUFFIXES[flags.format]}")
    if path.suffix != SUFFIXES[flags.format]:  # so that it is no file of the run either
        raise ValueError(f"{path}: --out must end in {SUFFIXES[flags.format]} with --format {flags.format}")
    replaced = replacing(path)
    largest = export_model(model, path, flags.format)
    sizes = ", ".join(f"({clouds}, {max(points, model.least_points):,})" for clouds, points in SIZES)
    say(f"{path}{replaced}: {path.stat().st_size / 1e6:.1f} MB, for any number of clouds and points")
    say(f"it takes {what_it_takes(model)}")
    solids, ties = len(kinds_of(model)), largest > TOLERANCE
    most = min(largest, TOLERANCE)
    say(f"its logits at {sizes} differ from the model's by at most {most:.0e} ({TOLERANCE:.0e} allowed)")
    if ties:
        say(f"except for a few clouds in which two neighbours are equally far within rounding: by up to {largest:.0e}")
    if solids:
        near = "as near" if ties else f"within {TOLERANCE:.0e}"
        say(f"for {solids} solids it answers as the library does: the same labels, logits {near}")
    else:
        say("its answers were not compared: no file of points has the model's channels")
    return 0
