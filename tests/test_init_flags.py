"""`train.py --init`: which settings it begins with, how it reads files, and what it refuses."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pointnet import load_model
from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.contract import Contract
from pointnet.models import MODELS, PointNetModel, shipped
from pointnet.training import fit
from pointnet.training.recipes import RECIPES, to_flags
from pointnet.training.run_folder import read_config, read_metrics
from tests.helpers import (
    ON_SAMPLES,
    QUICK,
    ROOT,
    SMALL,
    described,
    error_of,
    quiet,
    tiny,
    two_shapes,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """The folder of a short run on discs and rods."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("trained") / "run"
    fit(tiny(out, epochs=3), two_shapes(), log=quiet)
    return str(out)


def part_of(model: PointNetModel, name: str) -> dict[str, Tensor]:
    return dict(model.get_submodule(name).state_dict())


def same(one: PointNetModel, other: PointNetModel, name: str) -> bool:
    """Whether this part of two networks has the same weights."""
    first, second = part_of(one, name), part_of(other, name)
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def with_intensity(folder: Path) -> str:
    """The folder of weights that were taught intensities from 100 to 300, in tables that have y up."""
    model = described(MODELS["pointnet"](3, **SMALL, in_channels=4))
    model.preprocessing = {"num_points": 32, "channels": ["x", "y", "z", "intensity"], "intensity": [100.0, 300.0]}
    model.preprocessing |= {"scale": "unit sphere", "up": "y", "columns": "x,y,z,intensity", "rotations": 90.0}
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_files_are_read_as_those_that_the_weights_were_taught_to_the_scale_of_intensity(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for name in ("dark", "bright"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5):
            np.savetxt(tmp_path / "data" / name / f"{i}.txt", generator.uniform(0, 900, (40, 4)))
    words = [*QUICK[: QUICK.index("--width")], "--dataset", "folder", "--root", str(tmp_path / "data")]
    weights = with_intensity(tmp_path / "weights")
    assert train.main([*words, "--init", weights, "--out", str(tmp_path / "run")]) == 0
    given, kept = (Contract.of(load_model(folder)) for folder in (weights, tmp_path / "run"))
    for name in ("channels", "intensity", "up", "columns", "scale", "rotations"):
        assert getattr(kept, name) == getattr(given, name), name
    own = error_of(capsys, train.main, [*words, "--init", weights, "--features", "", "--out", str(tmp_path / "no")])
    assert "it was trained on points of x, y, z, intensity; the data set has x, y, z" in own


def test_init_begins_with_its_own_recipe_and_with_the_points_and_files_of_the_weights(tmp_path, trained, capsys):
    recipe = RECIPES["finetune"]
    assert recipe.init in shipped()
    assert 0 < recipe.trunk_lr < 1
    assert parse_command(["--recipe", "finetune"]).config == dataclasses.replace(recipe, rotate=180.0)
    one = dataclasses.replace(recipe, init=trained, dataset="folder")
    words = ["--init", trained, "--dataset", "folder"]
    assert parse_command(words).config == dataclasses.replace(one, num_points=32)
    assert parse_command([*words, "--num_points", "64"]).config == dataclasses.replace(one, num_points=64)
    parts = parse_command(["--task", "part", "--init", trained]).config
    assert parts == dataclasses.replace(RECIPES["part"], init=trained, num_points=32)
    y = with_intensity(tmp_path / "y")
    turned = parse_command(["--init", y, "--dataset", "folder"]).config
    assert (turned.up, turned.columns, turned.features) == ("y", "x,y,z,intensity", "intensity")
    assert (turned.rotate, parse_command(["--init", y, "--rotate", "9"]).config.rotate) == (90.0, 9.0)
    other = parse_command(["--init", y, "--dataset", "modelnet40"]).config
    assert (other.up, other.columns, other.features) == ("", "", "")
    given = parse_command(["--init", y, "--dataset", "folder", "--up", "z", "--columns", ""]).config
    assert (given.up, given.columns) == ("z", "")
    for config in (one, turned, given, parts):
        assert parse_command(to_flags(config)).config == config


def test_flags_that_cannot_be_are_one_line_with_what_to_do(capsys, tmp_path, trained):
    for words, wanted in (
        (["--pretrained", "pointnet_modelnet40"], "--pretrained pointnet_modelnet40; did you mean '--init'?"),
        (["--freeze"], "freeze is for the encoder of trained weights; name them: --init"),
        (["--trunk_lr", "0.5"], "trunk_lr 0.5 is for the encoder of trained weights; name them: --init"),
        (["--init", trained, "--freeze", "--trunk_lr", "0.5"], "--trunk_lr is for an encoder that learns,"),
        (["--init", "pointnet_modelnet4"], "did you mean 'pointnet_modelnet40'?"),
        (["--init", trained, "--width", "0.5"], "--width is for a new encoder; that of --init has its own"),
        (["--init", trained, "--input_transform", "false"], "--input_transform is for a new encoder"),
    ):
        assert wanted in error_of(capsys, train.main, words), words


def test_the_pages_python_runs():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "num_classes" in block]
    held: dict = {}
    exec(compile(block, "training.md", "exec"), held)
    assert held["model"].num_outputs == len(held["model"].classes)


@pytest.mark.slow
def test_the_command_starts_from_weights_with_several_seeds_and_keeps_what_is_frozen(tmp_path, trained, capsys):
    words = [word for word in ON_SAMPLES if word not in ("--width", "0.1")]
    words = words[: words.index("--input_transform")]
    out = tmp_path / "runs"
    assert train.main([*words, "--init", trained, "--freeze", "--seeds", "0", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count(f"weights of {trained}: encoder (frozen), head taken, last layer new") == 2
    one, other = (load_model(out / f"seed-{seed}") for seed in (0, 1))
    assert same(one, other, "encoder")
    assert same(one, load_model(trained), "encoder")
    assert not same(one, other, "logits")
    assert read_config(out).init == trained
    assert read_metrics(out / "seed-0")[0]["num_points"] == 64
    assert train.main([*words, "--init", trained, "--freeze", "--dry_run", "--out", str(tmp_path / "dry")]) == 0
