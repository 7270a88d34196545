"""What a command reads or finds is not written over, no output takes another's place, and JSON is as its standard."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import save_file

from pointnet import __main__ as command_line
from pointnet.files import check_apart, strict_json
from pointnet.inference.label import LabelledCloud
from pointnet.points.read import read_cloud
from pointnet.training import fit
from pointnet.training.run_folder import read_metrics
from tests.forms import forms
from tests.helpers import ROOT, error_of, quiet, tiny, two_shapes
from tests.own_points import write_objects, write_yards
from tests.pages import views_of
from tests.ports import PortClassifier

FILES = ROOT / "data" / "samples" / "files"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(capsys, folder: Path, main, words: list[object], message: str) -> None:
    """In one line with this message, and every file of the folder is as it was."""
    before = contents(folder)
    assert message in error_of(capsys, main, [str(word) for word in words])
    assert {path: content for path, content in contents(folder).items() if path in before} == before


@pytest.mark.parametrize("name", ["bowl.npz", "link.npz"])
def test_features_are_not_written_over_a_file_that_is_read(tmp_path, capsys, name):
    shutil.copy(FILES / "bowl.npz", tmp_path)
    (tmp_path / "link.npz").hardlink_to(tmp_path / "bowl.npz")
    words = ["embed", FILES / "stool.xyz", tmp_path / "bowl.npz", "--out", tmp_path / name]
    assert_refused(capsys, tmp_path, command_line.main, words, f"{name}: is one of the files to read, and would be")


def test_labels_are_not_written_over_a_cloud_that_is_read(tmp_path, capsys):
    """As where clouds are labelled into their own folder, twice."""
    shutil.copy(FILES / "stool.xyz", tmp_path)
    words = ["predict", tmp_path / "stool*", "--task", "part", "--out", tmp_path]
    assert command_line.main([str(word) for word in words]) == 0
    capsys.readouterr()
    assert_refused(capsys, tmp_path, command_line.main, words, "stool.xyz.parts.ply: is one of the files to read")
    words = ["predict", tmp_path / "stool.xyz", "--task", "part", "--out", tmp_path]
    assert command_line.main([str(word) for word in words]) == 0, "over labels of an earlier call"


def test_files_that_are_not_there_are_apart():
    check_apart(["none", "nul\0"], ["none", "nul\0"])


def test_names_that_differ_in_their_case_have_outputs_of_their_own_on_any_disk(tmp_path):
    for name in ("a/Stool.xyz", "b/stool.XYZ", "c/other.xyz"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(FILES / "stool.xyz", tmp_path / name)
    words = ["predict", tmp_path, "--task", "part", "--out", tmp_path / "out"]
    assert command_line.main([str(word) for word in words]) == 0
    names = [path.relative_to(tmp_path / "out").as_posix().casefold() for path in (tmp_path / "out").rglob("*.ply")]
    assert sorted(names) == ["a/stool.xyz.parts.ply", "b/stool.xyz.parts.ply", "other.xyz.parts.ply"]


@pytest.mark.slow
def test_converted_weights_are_not_written_over_those_that_are_read(tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in PortClassifier(k=4).state_dict().items()}, file)
    words = ["convert", file, "--out", tmp_path]
    assert_refused(capsys, tmp_path, command_line.main, words, "already holds a model; choose another --out")
    words = [str(word) for word in [*words[:3], tmp_path / "out"]]
    assert command_line.main(words) == 0
    (tmp_path / "out" / "config.json").unlink()  # as of a conversion that was stopped, which can be made again
    assert command_line.main(words) == 0
    (tmp_path / "out" / "config.json").unlink()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"not weights")
    assert command_line.main(words) == 2
    assert "already holds a model; choose another --out" in capsys.readouterr().err


def test_a_run_is_not_begun_over_a_model(tmp_path, capsys):
    """Of a run whose checkpoint was removed, as it is the larger part, and of a folder that is no run."""
    out, train = tmp_path / "run", two_shapes(per_class=8)
    config = tiny(out, epochs=1)
    fit(config, train, log=quiet)
    for name in ("checkpoint.pt", "config.yaml"):
        (out / name).unlink()
        before = contents(out)
        with pytest.raises(ValueError, match=r"already holds a model, without the checkpoint\.pt to resume from"):
            fit(config, train, log=quiet)
        assert contents(out) == before
    shutil.copy(out / "model.safetensors", tmp_path)
    shutil.rmtree(out)
    fit(dataclasses.replace(config, epochs=2), train, log=quiet)
    for name in ("checkpoint.pt", "result.json"):  # as of a run that was stopped before its first checkpoint
        (out / name).unlink()
    fit(config, train, log=quiet)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("below", ["", "packed"])
def test_a_set_of_ones_own_files_is_not_packed_into_itself(tmp_path, capsys, below):
    """Its shards would be read as its clouds."""
    root = write_objects(tmp_path / "own")
    words = ["pack", root, root / below, "--dataset", "parts", "--task", "part", "--num_points", 64]
    assert_refused(capsys, tmp_path, command_line.main, words, "where shards would be read as files of the set")


def test_packing_removes_no_file_of_another_maker(tmp_path):
    root, out = write_yards(tmp_path / "yards"), tmp_path / "out"
    (out / "train").mkdir(parents=True)
    np.save(out / "train" / "shard-7.npy", torch.eye(3).numpy())
    kept = (out / "train" / "shard-7.npy").read_bytes()
    words = ["pack", root, out, "--dataset", "scenes", "--task", "scene", "--num_points", 64, "--block", 2]
    assert command_line.main([str(word) for word in words]) == 0
    assert (out / "train" / "shard-7.npy").read_bytes() == kept


def test_clouds_of_one_name_are_told_apart_on_a_page(tmp_path):
    for name in ("old/stool.xyz", "new/stool.xyz", "new/other.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FILES / "stool.xyz", tmp_path / name)
    for command, page in (("show", tmp_path.stem), ("predict", "classes")):
        assert command_line.main([command, str(tmp_path), "--out", str(tmp_path / command)]) == 0
        names = [view["name"] for view in views_of(tmp_path / command / f"{page}.html")]
        assert names == ["other.xyz", "new/stool.xyz", "old/stool.xyz"]


@pytest.mark.parametrize("command", forms(["show", "embed", "export"], "show", "embed"))
def test_an_earlier_output_is_said_to_be_replaced(tmp_path, capsys, command):
    (tmp_path / "b").mkdir()
    shutil.copy(FILES / "stool.xyz", tmp_path / "b")
    words = {
        "show": [["show", file, "--out", tmp_path] for file in (FILES / "stool.xyz", tmp_path / "b" / "stool.xyz")],
        "embed": 2 * [["embed", FILES / "stool.xyz", "--out", tmp_path / "x.npz"]],
        "export": 2 * [["export", "pointnet_shapes", "--format", "torch", "--out", tmp_path / "x.pt2"]],
    }[command]
    for call, wanted in zip(words, (False, True), strict=True):
        assert command_line.main([str(word) for word in call]) == 0
        assert (", over an earlier one" in capsys.readouterr().out) == wanted


def test_numbers_that_are_not_finite_are_null_in_json():
    value = {"a": [math.nan, 1.5, (math.inf, None)], "b": {"c": -math.inf, "d": "NaN"}, "e": True}
    assert json.loads(strict_json(value, 2)) == {
        "a": [None, 1.5, [None, None]], "b": {"c": None, "d": "NaN"}, "e": True
    }  # fmt: skip


def test_epochs_whose_steps_were_all_skipped_have_no_loss_and_no_accuracy(tmp_path):
    """They had a loss of 0, as of a network that errs nowhere, beside NaN, which few readers of JSON take."""
    train = two_shapes(per_class=8)
    train.points.fill_(math.nan)
    with pytest.raises(ValueError, match="that makes 4, more than --skip_limit 3"):
        fit(tiny(tmp_path, epochs=1, batch_size=3, skip_limit=3), train, log=quiet)
    (line,) = read_metrics(tmp_path)
    assert all(math.isnan(line[name]) for name in ("train_loss", "train_accuracy", "val_loss"))
    written = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert written["train_loss"] is written["val_loss"] is None


def test_a_labelled_ply_says_which_rows_are_there_where_some_are_not(tmp_path):
    rows, points = np.array([1, 4, 5]), np.random.default_rng(0).normal(size=(3, 3))
    labelled = LabelledCloud(None, points, "z", np.array([0, 1, 1]), np.ones(3, np.float32), ("a", "b"), rows=rows)
    labelled.write_ply(tmp_path / "some.ply")
    dataclasses.replace(labelled, rows=None).write_ply(tmp_path / "all.ply")
    columns = trimesh.load(tmp_path / "some.ply").metadata["_ply_raw"]["vertex"]["data"]
    assert columns["row"].tolist() == rows.tolist()
    assert columns["label"].tolist() == [0, 1, 1]
    assert np.array_equal(read_cloud(tmp_path / "some.ply", precise=True).points, points)
    assert b"row" not in (tmp_path / "all.ply").read_bytes().split(b"end_header")[0]


def test_labels_are_not_written_where_a_file_is(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    words = ["predict", "--task", "part", FILES / "stool.xyz", "--out", tmp_path / "file"]
    assert_refused(
        capsys, tmp_path, command_line.main, words, f"{tmp_path / 'file'}: is a file; --out must name a folder"
    )
