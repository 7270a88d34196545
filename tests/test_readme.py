"""The commands of README.md and of docs/files.md, run in the order they stand there; the quick ones always.

Training takes one epoch of few points per cloud (`QUICK`), Shapes has two shapes per class. Nothing is installed here.
"""

import re
import shlex
import shutil

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.datasets import shapes
from pointnet.models import MODELS
from tests.helpers import QUICK, ROOT, count_multiply_adds

TRAINING = ("--epochs", "1", "--num_points", "64", "--early_points", "0", "--batch_size", "8", "--device", "cpu")


def commands(page: str) -> list[str]:
    """Each shell command of a page but those that install, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in lines if not line.startswith("pip ")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what a reader has: the samples, meshes, a scan with eight columns."""
    shutil.copytree(ROOT / "data" / "samples", tmp_path / "data" / "samples")
    shutil.copytree(ROOT / "data" / "samples" / "ModelNet40", tmp_path / "my_meshes")
    shutil.copy(ROOT / "data" / "samples" / "files" / "bottle.ply", tmp_path / "new.ply")
    columns = np.random.default_rng(0).integers(0, (100, 100, 100, 250, 250, 250, 250, 4), (200, 8))
    np.savetxt(tmp_path / "scan.txt", columns, "%d")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shapes, "COUNTS", {"train": 2, "test": 2})
    return tmp_path


def run(line: str) -> int:
    """The exit code of a command."""
    words = shlex.split(line)
    if words[:2] == ["python", "train.py"]:
        more = [] if "--resume" in words else TRAINING if "--init" in words else QUICK
        return train.main([*words[2:], *more])
    assert words[:3] == ["python", "-m", "pointnet"], line
    return command_line.main(words[3:])


def test_the_commands_that_are_quick(place, capsys):
    quick = [line for line in commands("README.md") if "data/samples/files" in line] + commands("docs/files.md")
    assert len(quick) == 4
    for line in quick:
        assert run(line) == 0, line
    printed = capsys.readouterr().out
    assert "unsure: its points fill space, as noise does" in printed
    assert (place / "labels" / "parts.html").is_file()


@pytest.mark.slow
def test_the_readmes_commands_in_order(place):
    lines = commands("README.md")
    assert len(lines) == 11
    for line in lines:
        assert run(line) == 0, line
    assert (place / "model.onnx").is_file()


@pytest.mark.slow
def test_the_table_of_models_holds_their_parameters_and_multiply_adds():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| `--model` |")[2].partition("\n\n")[0]
    rows = [row.strip("|").split("|")[:3] for row in table.splitlines()[2:]]
    shown = [(re.findall(r"`(\w+)`", names), *(cell.strip().split(", ") for cell in more)) for names, *more in rows]
    cloud = 0.01 * torch.randn(1, 3, 1024)  # so dense that every ball is full
    assert sum(len(names) for names, *_ in shown) == 6
    for names, parameters, multiply_adds in shown:
        for name, count, adds in zip(names, parameters, multiply_adds, strict=True):
            model = MODELS[name](num_classes=40)
            assert count == f"{sum(each.numel() for each in model.parameters()) / 1e6:.2f} M", name
            assert adds == f"{count_multiply_adds(model, cloud) / 1e6:,.0f} M", name
