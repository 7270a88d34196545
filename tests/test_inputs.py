"""Models, files and arrays as callers hand them in: what is refused, and in which words."""

import os
import pickle
import re

import numpy as np
import pytest
import torch
import trimesh

from pointnet import PointNetClassifier, embed, label_points, load_model, predict
from pointnet import __main__ as command_line
from pointnet.datasets import PointCloudFileError
from pointnet.evaluation.contract import XYZ, Contract
from pointnet.inference.inputs import find_files
from pointnet.models import DEFAULTS
from pointnet.points.read import read_points
from tests.helpers import ROOT, SMALL, described, error_of

CHAIR = ROOT / "data" / "samples" / "files" / "chair.off"


def small() -> PointNetClassifier:
    return described(PointNetClassifier(3, **SMALL))


@pytest.fixture(scope="module")
def model() -> PointNetClassifier:
    return small()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 100)), r"points must be numbers (N, 3), or (N, 6) with normals, got float64 (3, 100)"),
        (np.zeros((2, 50, 3)), "got float64 (2, 50, 3)"),
        (np.zeros((0, 3)), "got float64 (0, 3)"),
        (np.array([["a", "b", "c"]]), "got <U1 (1, 3)"),
        (np.full((5, 3), np.nan), "points (5, 3): has no point whose coordinates are finite"),
        (np.ones((5, 3)), "points (5, 3): has no extent: all its points are one"),
    ],
)
def test_an_array_that_is_no_cloud_is_met_at_the_door(model, array, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        predict([CHAIR, array], model)
    assert not isinstance(caught.value, PointCloudFileError)


def test_an_array_for_a_network_of_colours_is_said_to_lack_these():
    model = described(PointNetClassifier(3, **SMALL | {"in_channels": 6}))
    model.preprocessing["channels"] = [*"xyzrgb"]
    del model.preprocessing["normals"]
    with pytest.raises(ValueError, match=r"must be numbers \(N, 6\) of x, y, z, r, g, b, got float64 \(9, 7\)"):
        predict(np.random.default_rng(0).random((9, 7)), model)


def test_a_wrapped_network_is_asked_for_by_what_is_inside(model):
    compiled = torch.nn.Module()  # as `torch.compile` wraps it
    compiled._orig_mod = model
    for wrapped in (compiled, torch.nn.DataParallel(model)):
        with pytest.raises(ValueError, match="is not known here; give the network inside it"):
            predict(CHAIR, wrapped)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"up": "w"}, "up must be one of z, y, -y, x, -x, -z, auto, got 'w'"),
        ({"num_points": 0}, "num_points must be at least 1, got 0"),
        ({"model": "nowhere"}, "nowhere/config.json: no model here"),
    ],
)
def test_a_wrong_argument_is_a_value_error(model, settings, message):
    with pytest.raises(ValueError, match=message):
        predict(CHAIR, **({"model": model} | settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": "y up"}, "the model expects points of frame 'y up', known here is 'z up, right-handed'"),
        ({"normalization": "none"}, "the model expects points of normalization 'none'"),
        ({"normals": True}, "the model takes 3 channels per point, not x, y, z, nx, ny, nz"),
    ],
)
def test_weights_that_expect_other_points_are_refused(change, message):
    model = small()
    model.preprocessing |= change
    with pytest.raises(ValueError, match=message):
        predict(CHAIR, model)


def test_a_file_that_cannot_be_read_is_its_own_error(model, tmp_path):
    (tmp_path / "broken.off").write_text("OFF\n3 1 0\n0 0 zero\n")
    (tmp_path / "point.xyz").write_text("1 2 3\n1 2 3\n")
    with pytest.raises(PointCloudFileError, match="broken.off: "):
        predict([CHAIR, tmp_path / "broken.off"], model)
    with pytest.raises(PointCloudFileError, match="point.xyz: has no extent: all its points are one"):
        predict(tmp_path / "point.xyz", model)
    with pytest.raises(PointCloudFileError, match=r"brokn.off: no such file; did you mean 'broken.off'\?"):
        predict(tmp_path / "brokn.off", model)
    with pytest.raises(PointCloudFileError, match=r"no such file$"):
        predict(tmp_path / "nowhere" / "x.off", model)
    (tmp_path / "link.off").symlink_to("link.off")
    with pytest.raises(PointCloudFileError, match=r"link.off: no such file$"):
        predict(tmp_path / "link.off", model)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_no_file(model, tmp_path):
    os.mkfifo(tmp_path / "a.xyz")
    with pytest.raises(PointCloudFileError, match="is a pipe or a device, not a file; save its output to a file$"):
        predict(tmp_path / "a.xyz", model)


def test_folders_and_patterns_are_the_files_they_name_once_each(tmp_path):
    for name in ("a/chair.off", "a/b/c.PLY", "a/.cache/d.npy", "a/notes.md", "e.xyz", "[f].xyz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*words):
        return [str(path.relative_to(tmp_path)) for path in find_files([str(tmp_path / word) for word in words])]

    assert found("a") == ["a/b/c.PLY", "a/chair.off"]
    assert found("*.xyz", "e.xyz") == ["[f].xyz", "e.xyz"]
    assert found("[f].xyz") == ["[f].xyz"]
    assert found("**/c.PLY", "a", "gone.off") == ["a/b/c.PLY", "a/chair.off", "gone.off"]
    with pytest.raises(ValueError, match=r"\*.glb: matches no file"):
        found("a", "*.glb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no file of points"):
        found("empty")


@pytest.mark.parametrize(("task", "ask"), [("classification", predict), ("part", label_points)])
def test_an_error_says_which_array_of_a_list(task, ask):
    good, flat = np.random.default_rng(0).normal(size=(50, 3)), np.ones((5, 3))
    model = load_model(DEFAULTS[task])
    for bad in (np.zeros((3, 100)), flat):
        with pytest.raises(ValueError, match="points") as alone:
            ask(bad, model)
        with pytest.raises(ValueError, match="points") as among:
            ask([good, CHAIR, bad, bad], model)
        assert str(among.value) == f"array at [2] of the list: {alone.value}"
        for error in (alone.value, among.value):  # as a pool of processes sends it
            assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_dtype_is_refused_in_one_line(dtype):
    for task, ask in (("classification", predict), ("classification", embed), ("part", label_points)):
        model = load_model(DEFAULTS[task]).to(dtype)
        with pytest.raises(ValueError, match=f"the model must be float32, got {dtype}; give model.float()"):
            ask(np.random.default_rng(0).normal(size=(50, 3)), model=model)


def test_the_columns_of_training_are_for_tables_without_names(tmp_path):
    model = described(PointNetClassifier(3, **SMALL), num_points=300)
    model.preprocessing = Contract.of(model).as_json() | {"columns": "_,z,y,x"}
    rows = np.random.default_rng(0).normal(size=(300, 3))
    wanted = predict(rows, model).probabilities
    turned = rows[:, ::-1]
    np.savetxt(tmp_path / "bare.txt", np.column_stack([np.arange(300), turned]))
    np.savetxt(
        tmp_path / "named.csv", np.column_stack([turned, np.arange(300)]), delimiter=",", header="z,y,x,t", comments=""
    )
    np.savetxt(tmp_path / "plain.csv", rows, delimiter=",", header="x,y,z", comments="")
    np.save(tmp_path / "named.npy", np.rec.fromarrays(turned.T, names="z,y,x"))
    names = {"bare.txt": "", "named.csv": "z,y,x,t", "plain.csv": "x,y,z", "named.npy": "z,y,x"}
    for name, own in names.items():
        found = predict(tmp_path / name, model)
        assert found.probabilities == pytest.approx(wanted, abs=1e-4), name
        said = f"columns taken as it names them, '{own}'; the tables of training had _,z,y,x"
        assert [note for note in found.notes if "taken as" in note] == [said] * bool(own)
    assert said not in predict(tmp_path / "plain.csv", model, columns="x,y,z").notes
    np.savetxt(tmp_path / "as_taught.csv", np.column_stack([np.arange(300), turned]), header="i z y x", comments="")
    found = predict(tmp_path / "as_taught.csv", model)
    assert found.probabilities == pytest.approx(wanted, abs=1e-4)
    assert not [note for note in found.notes if "taken as" in note]


def test_a_table_may_lack_columns_of_training_that_the_network_does_not_take(tmp_path):
    model = described(PointNetClassifier(3, **SMALL), num_points=300)
    model.preprocessing = Contract.of(model).as_json() | {"columns": "y,x,z,intensity,label"}
    rows = np.random.default_rng(0).normal(size=(300, 3))
    wanted = predict(rows[:, [1, 0, 2]], model).probabilities
    np.savetxt(tmp_path / "a.xyz", rows)
    np.save(tmp_path / "a.npy", np.column_stack([rows, rows[:, 0]]))
    for name in ("a.xyz", "a.npy"):
        assert predict(tmp_path / name, model).probabilities == pytest.approx(wanted, abs=1e-4), name
    with_intensity = described(PointNetClassifier(3, in_channels=4, **SMALL), num_points=300)
    contract = Contract(300, (*XYZ, "intensity"), (0.0, 1.0), columns="x,y,z,label,intensity")
    with_intensity.preprocessing = contract.as_json()
    with pytest.raises(PointCloudFileError, match="has no intensity, which the model was trained with"):
        predict(tmp_path / "a.xyz", with_intensity)
    model.preprocessing |= {"columns": "intensity,y,x,z,label"}
    with pytest.raises(PointCloudFileError, match="has 3 columns, but columns names 5"):
        predict(tmp_path / "a.xyz", model)


def test_a_file_that_says_its_up_axis_is_taken_as_in_training_with_a_note(tmp_path):
    model = described(PointNetClassifier(3, **SMALL), num_points=300)
    model.preprocessing = Contract.of(model).as_json() | {"up": "z"}
    mesh = trimesh.creation.box((1, 2, 3))
    for name in ("a.glb", "a.stl"):
        mesh.export(tmp_path / name)
    said = "taken with z up, as the files of training were; it says y itself: --up y"
    answers = {name: predict(tmp_path / name, model) for name in ("a.glb", "a.stl")}
    assert {name: said in found.notes for name, found in answers.items()} == {"a.glb": True, "a.stl": False}
    assert said not in predict(tmp_path / "a.glb", model, up="y").notes
    assert answers["a.glb"].up == "z"
    model.preprocessing |= {"up": "y"}
    assert not any("taken with" in note for note in predict(tmp_path / "a.glb", model).notes)


def test_a_damaged_table_or_a_pipe_is_one_error_to_a_network_with_columns_too(tmp_path):
    model = described(PointNetClassifier(3, **SMALL), num_points=300)
    model.preprocessing = Contract.of(model).as_json() | {"columns": "x,y,z,_"}
    np.savez_compressed(tmp_path / "a.npz", points=np.random.default_rng(0).normal(size=(300, 3)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[60:90] = bytes(30)
    (tmp_path / "a.npz").write_bytes(data)
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((  ")
    (tmp_path / "c.txt").write_bytes(b"1 2 3\0")
    names = ["a.npz", "b.npy", "c.txt"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "d.xyz")
        names.append("d.xyz")
    for name in names:
        with pytest.raises(PointCloudFileError, match=name):
            predict(tmp_path / name, model)


@pytest.mark.parametrize("given", ["", {}, 3])
def test_what_names_no_model_is_refused_and_not_the_shipped_one(given, capsys):
    points = np.random.default_rng(0).normal(size=(60, 3))
    for ask in (predict, label_points, embed):
        with pytest.raises(ValueError, match="the model must be a network, a run folder or the name of shipped"):
            ask(points, given)
    if given == "":
        line = error_of(
            capsys, command_line.main, ["predict", str(ROOT / "data/samples/files/bowl.npz"), "--model", ""]
        )
        assert line.endswith("got an empty name")


def test_columns_by_hand_are_of_files_alone(model):
    points = np.random.default_rng(0).normal(size=(60, 3))
    for ask in (predict, embed):
        with pytest.raises(
            ValueError, match="columns name those of files; of an array or a table x, y and z come first"
        ):
            ask(points, model, columns="z,x,y")
    file = ROOT / "data/samples/files/bowl.npz"
    assert len(predict([file, points], model, columns="z,x,y")) == 2


def test_half_precision_that_overflowed_is_refused(model):
    points = read_points(CHAIR, num_points=64) * 90_000
    line = r"\(64, 3\): some are infinite, as float16 holds no more than 65,504; give float32"
    with np.errstate(over="ignore"):
        arrays = points.astype(np.float16), torch.from_numpy(points).half()
    for array in arrays:
        with pytest.raises(ValueError, match=line):
            predict(array, model)
    array = (points / 90_000).astype(np.float16)
    array[3] = np.nan  # which was not measured
    assert predict(array, model).class_name


@pytest.mark.parametrize("make", [
    lambda points: points.to_sparse(), lambda points: points.to("meta"), lambda points: points.to(torch.float8_e5m2),
])  # fmt: skip
def test_a_tensor_that_numpy_cannot_take_is_refused_in_a_line(model, make):
    with pytest.raises(ValueError, match=r"array at \[0\] of the list: points of a tensor that NumPy cannot take"):
        predict([make(torch.rand(64, 3))], model)


def test_a_number_of_points_is_a_whole_one(model):
    for answer in (lambda: predict(CHAIR, model, num_points=64.0), lambda: label_points(CHAIR, num_points=64.0)):
        with pytest.raises(ValueError, match=r"num_points must be a whole number, got 64\.0"):
            answer()


def test_an_answer_from_fewer_points_than_in_training_is_not_sure_where_they_are_few():
    model = described(PointNetClassifier(3, **SMALL), num_points=300)
    for count, few in ((3, True), (63, True), (64, False)):
        notes = predict(CHAIR, model, num_points=count).notes
        assert (f"unsure: only {count} different points" in notes) == few, notes
    model = described(PointNetClassifier(3, **SMALL), num_points=32)
    assert not any("different points" in note for note in predict(CHAIR, model).notes)


def test_brackets_may_be_of_a_pattern_or_of_a_name(tmp_path):
    for name in ("part [new]", "part n"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.xyz").write_text("0 0 0\n")
    found = [[file.parent.name for file in find_files([str(tmp_path / word)])] for word in ("part [new]/*", "part ?/*")]
    assert found == [["part n"], ["part n"]]
    assert [file.parent.name for file in find_files([str(tmp_path / "part [new]")])] == ["part [new]"]
    (tmp_path / "part n" / "a.xyz").unlink()
    assert [file.parent.name for file in find_files([str(tmp_path / "part [new]/*.xyz")])] == ["part [new]"]
