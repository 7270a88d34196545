"""What a reader of the pages has: their commands in order, and a folder with small data where the commands look."""

import re
import shutil
from pathlib import Path

import numpy as np
import torch

from pointnet.datasets.modelnet import HDF5_FOLDER
from tests.helpers import ROOT, write_text
from tests.ports import PortClassifier, trained

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = r"^```(?:bash|sh)\n(.*?)^```"
INLINE = r"`(python [^`]+|torchrun [^`]+)`"
A_NAME = re.compile(r"python -m pointnet( \w+)?|torchrun --nproc_per_node=\d( train.py)?")  # not a command yet
A_FORM = re.compile(r"\b[A-Z]{3,}\b(?!=)|\.\.\.|…")  # has words to replace: RUN, ...
SHARED = Path("..", "shared", "data")


def commands_of(page: str, inline: bool = True) -> list[str]:
    """Each command of a page in order: the lines of its shell blocks and, with `inline`, those between backticks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block, code in re.findall(f"{BLOCK}|{INLINE}", text, re.DOTALL | re.MULTILINE):
        code = " ".join(code.split())
        if block:
            found += block.splitlines()
        elif inline and code and not A_NAME.fullmatch(code) and not A_FORM.search(code):
            found.append(code)
    return found


def reader_folder(folder: Path) -> Path:
    """A clone with the samples in every place that the pages name, in the formats that belong there; -> the clone."""
    clone, shared = folder / "clone", folder / "clone" / SHARED
    samples = ROOT / "data" / "samples"
    shutil.copytree(samples, clone / "data" / "samples")
    for place in (clone / "data", shared / "modelnet40_dev"):
        shutil.copytree(samples / HDF5_FOLDER, place / HDF5_FOLDER)
    shutil.copytree(samples / "ModelNet40", shared / "modelnet_off_samples")
    shutil.copytree(samples / "modelnet40_normal_resampled", shared / "modelnet40_normal_resampled_sample" / "set")
    shutil.copytree(samples / "ModelNet40", clone / "my_meshes")
    shutil.copytree(samples / "files", clone / "scans")
    shutil.copy(samples / "files" / "bottle.ply", clone / "new.ply")
    parts = write_text(folder / "parts", {"01": "Tree", "02": "Bench"}, {"Tree": [0, 1], "Bench": [0, 1, 2]})
    parts.rename(shared / "psb_parts_dev")
    write_scans(clone)
    (clone / "names.txt").write_text("".join(f"class {i}\n" for i in range(40)))
    torch.save(trained(PortClassifier(40)).state_dict(), clone / "best_model.pth")
    (clone / "docs").symlink_to(ROOT / "docs")
    return clone


def write_scans(clone: Path) -> None:
    """`scan.txt`, of eight columns; `my_scans`, two classes of tables with all features; `my_tables`, with normals."""
    generator = np.random.default_rng(0)
    columns = generator.integers(0, (100, 100, 100, 250, 250, 250, 250, 4), (200, 8))
    np.savetxt(clone / "scan.txt", columns, "%d")
    for i in range(12):
        points, normals = generator.standard_normal((2, 100, 3)) * [[[1, 1, 1 + 9 * (i % 2)]], [[1, 1, 1]]]
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        features = generator.integers(0, 256, (100, 4))
        for name, table in (("my_scans", [points, normals, features]), ("my_tables", [points, normals])):
            path = clone / name / ("rod" if i % 2 else "ball") / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, np.column_stack(table), "%.5f")
