"""Files as depth cameras and their tools write them: what they hold is used, or its loss is said in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointnet import PointNetClassifier, embed, predict
from pointnet import __main__ as command_line
from pointnet.datasets import MeshFolder
from pointnet.datasets.own_objects import series_in
from pointnet.evaluation.contract import Contract
from pointnet.inference.judge import Judge, Opinion
from pointnet.inference.predict import Seen, answer
from pointnet.points.formats.values import as_unit_colors, unpacked_colors
from pointnet.points.read import PointCloudFileError, read_cloud
from tests.helpers import SAMPLES, SMALL, described
from tests.own_points import save

UPRIGHT = "pointnet_modelnet40_upright"

RED = np.resize(np.array([0.9, 0.1, 0.1]), (400, 3))
XYZ = np.random.default_rng(0).normal(size=(400, 3))


@pytest.mark.parametrize(("value", "cut"), [(1.02, 1.0), (-0.02, 0.0), (1.9, 1.0)])
@pytest.mark.parametrize("count", [1, 20])
def test_fractions_barely_outside_0_to_1_are_cut_and_change_no_other(value, cut, count):
    colors = RED.copy()
    colors[:count, 0] = value
    found, notes = as_unit_colors(colors)
    np.testing.assert_allclose(found[count:], RED[count:], atol=1e-6)
    np.testing.assert_allclose(found[:count, 0], cut)
    assert notes == (f"colours outside 0 to 1, cut to that range: {count}",)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1)])
def test_fractions_of_another_range_are_of_it(low, high):
    colors = low + (high - low) * np.random.default_rng(0).random((400, 3))
    found, notes = as_unit_colors(colors)
    np.testing.assert_allclose(found, (colors - low) / (high - low), atol=1e-6)
    assert notes == ()


def test_a_packed_colour_is_a_number_where_its_bits_would_be_none():
    number = np.full(3, 200 << 16 | 30 << 8 | 9)
    for column in (number, number.astype(np.float64), number.astype(np.float32), number.astype("u4").view("f4")):
        assert unpacked_colors(column)[0].tolist() == [[200, 30, 9]] * 3
    assert unpacked_colors(np.zeros(3, np.float32))[0].tolist() == [[0, 0, 0]] * 3


def test_comments_of_a_ply_on_what_its_numbers_mean_are_said(tmp_path):
    header = "ply\nformat ascii 1.0\ncomment made by a tool of ours\ncomment scale 0.001\ncomment Unit: mm \r\n"
    header += "comment TextureFile tex.png\nelement vertex 400\nproperty float x\nproperty float y\nproperty float z\n"
    (tmp_path / "a.ply").write_text(header + "end_header\n" + "\n".join(" ".join(map(str, row)) for row in XYZ) + "\n")
    assert read_cloud(tmp_path / "a.ply").notes == (
        "left out: comment scale 0.001, comment Unit: mm, comment TextureFile tex.png",
    )


def test_a_pcd_of_too_few_types_is_refused_in_words(tmp_path):
    header = (
        "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F\nCOUNT 1 1 1\nWIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA ascii\n1 2 3\n"
    )
    (tmp_path / "a.pcd").write_text(header)
    with pytest.raises(PointCloudFileError, match="TYPE must be 3 letters, got 'F F'"):
        read_cloud(tmp_path / "a.pcd")


def write_series(root, names):
    generator = np.random.default_rng(len(str(root)))
    for kind in ("good", "defect"):
        for name in names:
            save(root / kind / f"{kind}{name}.xyz", generator.normal(size=(60, 3)), "")


@pytest.mark.parametrize(("names", "said"), [
    ([f"{i}_frame_{k:04d}" for i in range(4) for k in range(5)], True),
    pytest.param([f"_{k:04d}" for k in range(20)], False, marks=pytest.mark.slow),
    ([f"{i}_frame_0000" for i in range(20)], False),
])  # fmt: skip
def test_series_of_files_on_both_sides_are_said(tmp_path, names, said):
    write_series(tmp_path, names)
    lines = [line for line in MeshFolder(tmp_path, num_points=16).notes if line.startswith("series of files")]
    assert len(lines) == said
    assert not said or "on both sides of the drawn split: " in lines[0]
    assert not said or lines[0].endswith("give them their side: folders train/ and test/")


def test_series_are_several_most_of_the_files_and_on_both_sides():
    files = [Path(f"good{i}_frame_{k}.ply") for i in range(3) for k in range(4)]
    others = [Path(f"good{i}_frame.ply") for i in range(13)]
    assert len(series_in(files, files[2:6])) == 1
    assert "2, such as good0_frame_* (4)" in series_in(files, files[2:6])[0]
    for found, tested in ((files, files[:4]), (files, []), (files[:4], files[:2]), (files + others, files[2:6])):
        assert series_in(found, tested) == []


def test_a_series_that_folders_divide_is_as_its_owner_wants(tmp_path):
    for split in ("train", "test"):
        write_series(tmp_path / split, [f"{i}_frame_{k}{split}{k}" for i in range(4) for k in range(3)])
    assert not [line for line in MeshFolder(tmp_path, num_points=16).notes if line.startswith("series of files")]


@pytest.mark.parametrize(("own", "taken"), [([0.9, 0.05, 0.05, 0.0], "z"), ([0.3, 0.3, 0.2, 0.2], "y")])
def test_the_axis_that_is_more_like_training_is_taken_unless_it_alone_has_doubts(own, taken):
    class Model:
        classes = ("a", "b", "c", "d")

    cloud = Seen(np.zeros((3, 9), np.float32), None, ())
    first, other = Opinion(own, [], -2.0), Opinion([0.4, 0.3, 0.2, 0.1], [], -5.0)
    judge = Judge(described(PointNetClassifier(4, **SMALL), num_points=9), Contract(9), 1)
    found = answer(None, cloud, "z", first, judge.rival(first, {"y": other}, None, True), None, Model)
    assert (found.up, found.sure) == (taken, taken == "z")


@pytest.mark.slow
def test_the_frame_of_a_camera_whose_y_points_down_is_taken_or_advised(tmp_path, capsys):
    x, y, z = read_cloud(f"{SAMPLES}/files/chair.off", 2048).points.T
    path = save(tmp_path / "a.xyz", np.stack([x, -z, y], 1), "")
    wanted = predict(np.stack([x, y, z], 1), UPRIGHT)
    assert (wanted.class_name, wanted.notes) == ("chair", ())
    plain, told, guessed = (predict(path, UPRIGHT, up=up) for up in (None, "-y", "auto"))
    assert (plain.up, plain.surer_up, plain.sure) == ("z", "-y", False)
    assert any(note.startswith("with -y up it would be chair ") and note.endswith("--up -y") for note in plain.notes)
    for found in (told, guessed):
        assert (found.class_name, found.up, found.sure) == ("chair", "-y", True)
    for words in (["--up", "-y"], ["--up=-y"]):
        assert command_line.main(["predict", str(path), "--model", UPRIGHT, "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)[0]["class"] == "chair"


def test_a_glb_is_asked_about_too_where_the_caller_wants_to_know(tmp_path):
    """Its standard says that y is up, and not every program turns its objects."""
    points = read_cloud(f"{SAMPLES}/files/chair.off", 2048).points
    trimesh.PointCloud(points).export(tmp_path / "a.glb")
    assert predict(tmp_path / "a.glb", UPRIGHT).up == "y"
    found = predict(tmp_path / "a.glb", UPRIGHT, up="auto")
    assert (found.class_name, found.up, found.sure) == ("chair", "z", True)
    assert "taken with z up, which is more like training" in found.notes


def test_an_array_without_names_is_said_to_be_taken_as_x_y_z_where_tables_had_other_columns(tmp_path, capsys):
    model, table = described(PointNetClassifier(3, **SMALL), num_points=40), np.zeros(400, "f4,f4,f4")
    table.dtype.names = ("z", "y", "x")
    for name, column in zip("xyz", XYZ.T, strict=True):
        table[name] = column
    save(tmp_path / "a.xyz", XYZ[:, ::-1], "")
    for columns in ("z,y,x", "x,y,z", ""):
        model.preprocessing = Contract(num_points=40, columns=columns).as_json()
        said = f"columns taken as x, y, z; the tables of training had {columns}"
        for source in (XYZ, table, tmp_path / "a.xyz"):
            wanted = source is XYZ and columns == "z,y,x"
            assert (said in predict(source, model).notes) == (said in embed(source, model).notes) == wanted
        assert ("tables have the columns" in str(Contract.of(model))) == bool(columns)
    model.preprocessing = Contract(num_points=40, columns="z,y,x").as_json()
    model.classes = ("a", "b", "c")
    model.save_pretrained(tmp_path / "run")
    for words in ([], ["--columns", "x,y,z"]):
        capsys.readouterr()
        assert command_line.main(["predict", str(tmp_path / "a.xyz"), "--model", str(tmp_path / "run"), *words]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"tables have the columns {words[1] if words else 'z,y,x'}" in said


@pytest.mark.parametrize("up", [None, "y", "auto"])
def test_an_array_is_said_to_be_taken_with_z_up_where_files_had_y_up(tmp_path, up):
    model = described(PointNetClassifier(3, **SMALL), num_points=40)
    for taught in ("y", None):
        model.preprocessing = Contract(num_points=40, up=taught).as_json()
        save(tmp_path / "a.xyz", XYZ, "")
        for source in (XYZ, tmp_path / "a.xyz"):
            said = [note for note in predict(source, model, up=up).notes if "as arrays are" in note]
            assert len(said) == (source is XYZ and taught == "y" and up is None)
