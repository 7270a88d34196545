"""What of one's own labelled files is lost, changed, moved or unlike what was taught is said, or refused."""

import copy
import re
import shutil

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet import label_points, load_model, predict
from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.datasets.packed import open_packed
from pointnet.points.read import read_cloud
from pointnet.training import TrainConfig, fit
from pointnet.training.small_sets import lines_on_data, lines_on_result
from tests.helpers import SAMPLES, error_of, halves, quiet, small, tiny, two_shapes
from tests.own_points import make_object, make_yard, save, write_objects, write_yards


def test_every_label_its_name_and_its_number_count_in_the_fingerprint():
    stored = torch.zeros(2, 4, 6)
    stored[:, 3] = torch.arange(6) % 2
    other = stored.clone()
    other[1, 3, 5] = 0
    prints = [
        LabelledPoints(points, torch.tensor([0, 0]), ["a"], names).fingerprint()
        for points, names in ((stored, "xy"), (stored, "xy"), (other, "xy"), (stored, "yx"))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    numbered = LabelledPoints(stored, torch.tensor([0, 0]), ["a"], "xy")
    numbered.label_numbers = (2, 7)
    assert numbered.fingerprint() not in prints
    assert numbered.subset(torch.tensor([1])).fingerprint() != numbered.subset(torch.tensor([0, 1])).fingerprint()


def test_a_run_does_not_go_on_with_other_labels(tmp_path):
    config, data = small(tmp_path, "part", epochs=1), halves("part")
    fit(config, data, log=quiet)
    changed = copy.copy(data)
    changed._stored = data._stored.clone()
    changed._stored[3, -1, 7] = 1 - changed._stored[3, -1, 7]
    with pytest.raises(ValueError, match="the run had other data to train on: .*; undo that, or start a new run"):
        fit(config, changed, log=quiet, resume=True)


def test_intensity_unlike_what_a_network_was_taught_is_said(tmp_path):
    root = write_yards(tmp_path, size=3000)
    assert not [note for note in SceneFolder(root, features="intensity").notes if "training" in note]
    taught = SceneFolder(root, features="intensity", intensity=(0.1, 0.9)).notes
    (line,) = [note for note in taught if "training" in note]
    assert line.startswith("intensity is 100 to 899, and was 0.1 to 0.9 in training: yard_0.txt, ")
    near = SceneFolder(root, features="intensity", intensity=(50, 700)).notes
    assert not [note for note in near if "training" in note]


def test_points_in_blocks_of_too_few_are_counted_and_a_label_that_is_only_there_is_named(tmp_path):
    for i in range(4):
        yard, lamps = make_yard(i, 6000), make_yard(i, 600)
        lamps[:, :3] = (1010, -500, 30) + np.random.default_rng(i).random((600, 3)) * (40, 40, 3)
        lamps[:, 4] = 5
        save(tmp_path / f"{i}.txt", np.vstack([yard, lamps]))
    (tmp_path / "classes.txt").write_text("2 floor\n6 wall\n11 pole\n5 lamp\n")
    data = SceneFolder(tmp_path, block=2.0)
    note = next(note for notes in data.file_notes.values() for note in notes if "blocks" in note)
    assert note.endswith("% of its points are in blocks of 2 with fewer than 100 points, and left out")
    assert 5 < float(note.partition("%")[0]) < 9.5
    assert "labels that are named, and drawn from no file: lamp" in data.notes


@pytest.mark.slow
def test_a_data_set_that_is_copied_keeps_its_draw(tmp_path):
    root = write_yards(tmp_path / "a", 6, size=3000)
    tested = SceneFolder(root, "test").files
    shutil.copytree(root, tmp_path / "b")
    for i in range(6):
        save(tmp_path / "b" / f"x_{i}.txt", make_yard(6 + i, 3000))
    shutil.copytree(tmp_path / "b", tmp_path / "c", ignore=shutil.ignore_patterns(".cache"))
    anew = {file.name for file in SceneFolder(tmp_path / "c", "test").files}
    assert not {file.name for file in tested} & anew, "a new draw would keep it too; choose other names"
    again = {file.name for file in SceneFolder(tmp_path / "b", "test").files}
    assert {file.name for file in tested} < again
    assert not again & {file.name for file in SceneFolder(root, "train").files}


@pytest.mark.slow
def test_evaluate_says_which_files_the_network_was_trained_on(tmp_path, capsys):
    root, run = write_yards(tmp_path / "a", 5, size=3000), tmp_path / "run"
    config = small(run, "scene", dataset="scenes", root=str(root), num_points=64, epochs=1)
    fit(config, SceneFolder(root, num_points=64), log=quiet)
    tested = SceneFolder(root, "test", num_points=64).files
    words = ["evaluate", str(run), "--device", "cpu"]
    assert command_line.main(words) == 0
    assert "trained on" not in capsys.readouterr().err
    shutil.copytree(root, tmp_path / "b", ignore=shutil.ignore_patterns(".cache", *(file.name for file in tested)))
    (tmp_path / "b" / "yard_9.txt").write_bytes(tested[0].read_bytes())
    assert command_line.main([*words, "--root", str(tmp_path / "b")]) == 0
    seen = [name for name in capsys.readouterr().err.splitlines() if "trained on" in name]
    again = {file.name for file in SceneFolder(tmp_path / "b", "test", num_points=64).files} - {"yard_9.txt"}
    assert len(seen) == bool(again)
    assert all(line.startswith(f"files that the network was trained on: {len(again)}, such as yard_") for line in seen)
    assert again, "the draw left nothing that was trained on; choose other names"
    new = write_yards(tmp_path / "c", 3, seed=20, size=3000)
    config = small(tmp_path / "new", "scene", dataset="scenes", root=str(new), num_points=64, epochs=1, init=str(run))
    fit(config, SceneFolder(new, num_points=64), log=quiet)
    assert command_line.main(["evaluate", str(tmp_path / "new"), "--device", "cpu", "--root", str(tmp_path / "b")]) == 0
    assert seen == [name for name in capsys.readouterr().err.splitlines() if "trained on" in name]
    (tmp_path / "b" / "classes.txt").unlink()
    message = error_of(capsys, command_line.main, [*words, "--root", str(tmp_path / "b")])
    assert "classes.txt (of parts, parts.txt) in its folder names labels, also those of no point" in message


@pytest.mark.slow
def test_evaluate_knows_what_was_trained_on_as_a_copy_in_another_format(tmp_path, capsys):
    root, packed, words = write_objects(tmp_path / "own", count=8), tmp_path / "packed", ["--device", "cpu"]
    how = ["--num_points", "32", "--dataset", "parts", "--task", "part"]
    assert command_line.main(["pack", str(root), str(packed), *how]) == 0
    for name, data in (
        ("folder", PartFolder(root, num_points=32)),
        ("packed", open_packed(packed, "train", 32, "part")),
    ):
        fit(small(tmp_path / name, "part", dataset="parts", epochs=1), data, log=quiet)
    tested = PartFolder(root, "test", num_points=32).files
    trained = PartFolder(root, num_points=32).files
    again = [next(file for file in trained if file.parent.name == name) for name in ("pin", "table")]
    for i, path in enumerate((*again, tested[0])):
        cloud = read_cloud(path)
        rows = np.column_stack([cloud.points, cloud.labels])[:: -1 if i else 1]
        other = tmp_path / "copies" / "test" / path.parent.name / f"{i}.npz"
        other.parent.mkdir(parents=True, exist_ok=True)
        np.savez(other, points=rows[:, :3], label=rows[:, 3].astype(int))
    capsys.readouterr()
    for name in ("folder", "packed"):
        assert command_line.main(["evaluate", str(tmp_path / name), "--root", str(tmp_path / "copies"), *words]) == 0
        assert "files that the network was trained on: 2, such as " in capsys.readouterr().err
    data, listed = open_packed(packed, "train", 32, "part"), packed / "train" / "files.json"
    assert len(data.file_hashes()) == len(trained)
    listed.write_bytes(listed.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(OSError, match="files.json: damaged: it does not match the hash in the index"):
        data.file_hashes()


@pytest.mark.slow
def test_labels_that_predict_wrote_beside_its_files_are_said_and_on_their_side(tmp_path):
    root = write_yards(tmp_path, 4, size=3000)
    for i in range(4):
        save(root / f"yard_{i}.txt.scene.ply", make_yard(i, 3000), "x y z intensity label")
    train, test = (SceneFolder(root, split) for split in ("train", "test"))
    said = "files with labels that predict wrote: 4, such as yard_0.txt.scene.ply; move them out unless they are meant"
    assert said in train.notes
    trained, tested = ({file.name.removesuffix(".scene.ply") for file in data.files} for data in (train, test))
    assert not trained & tested


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("channel_names", [("x", "y", "z"), ("x", "z", "y")]),
        ("scale", ["unit sphere", "as given"]),
    ],
)
def test_what_is_tested_is_of_the_kind_that_was_trained_on(tmp_path, name, values):
    train, test = two_shapes(), two_shapes(seed=1)
    for data, value in zip((train, test), values, strict=True):
        setattr(data, name, value)
    with pytest.raises(ValueError, match=f"test must have the {name} of train, .*, got "):
        fit(tiny(tmp_path), train, test, log=quiet)


def sized(size: float, seed: int = 0):
    data = two_shapes(per_class=8, seed=seed)
    data.points[:] *= size
    return data


def test_arrays_to_test_on_have_the_scale_that_those_trained_on_are_found_to_have(tmp_path):
    for train, test, found in [(1, 700, "unit sphere, got as given"), (700, 1, "as given, got unit sphere")]:
        message = rf"test must have the scale of train, {found}: extents are .*; is the unit the same\?"
        with pytest.raises(ValueError, match=message):
            fit(tiny(tmp_path / "run"), sized(train), sized(test, 1), log=quiet)
        assert not (tmp_path / "run").exists()
    lines = []
    for number, (train, test) in enumerate([(1, 1), (700, 700), (1, 0.8), (700, 0.7)]):
        fit(tiny(tmp_path / f"{number}", epochs=1), sized(train), sized(test, 1), log=lines.append)
    (line,) = (line for line in lines if "extents" in line)
    assert re.fullmatch(r"test: extents are \S+ to 1.\d+, 1,\d{3} times smaller than in training .*", line)
    train = sized(700)
    train.points[:, 0, 5] = torch.nan  # which says nothing of scale: training names the clouds
    with pytest.raises(ValueError, match="steps skipped, not finite: samples no"):
        fit(tiny(tmp_path / "broken", skip_limit=0), train, sized(1), log=quiet)


@pytest.mark.slow
def test_scenes_to_test_on_have_the_intensity_and_the_blocks_of_those_trained_on(tmp_path):
    root, config = write_yards(tmp_path, 4, size=3000), small(tmp_path / "run", "scene", num_points=64, epochs=1)
    how = {"num_points": 64, "features": "intensity"}
    train = SceneFolder(root, **how)
    for other, message in (
        (
            {"intensity": (0.25, 700)},
            "the intensity of train, scaled by .* to 8.*, got 0.25 to 700; make",
        ),
        ({"intensity": train.intensity, "block": 2.0}, "the block of train, 1, got 2$"),
    ):
        with pytest.raises(ValueError, match=f"test must have {message}"):
            fit(config, train, SceneFolder(root, "test", **how, **other), log=quiet)
    fit(config, train, SceneFolder(root, "test", intensity=train.intensity, **how), log=quiet)


def test_columns_of_training_are_for_tables_alone(tmp_path):
    for i in range(6):
        save(tmp_path / "set" / "pin" / f"{i}.txt", make_object("pin", i, 400))
    data = PartFolder(tmp_path / "set", num_points=64, columns="x,y,z,label")
    fit(
        small(tmp_path / "run", "part", dataset="parts", num_points=64, columns="x,y,z,label", epochs=1),
        data,
        log=quiet,
    )
    model = load_model(tmp_path / "run")
    rows = make_object("pin", 9, 400)
    text, ply = save(tmp_path / "a.txt", rows), save(tmp_path / "a.ply", rows, "x y z label")
    found = [label_points(path, model, "pin") for path in (text, ply)]
    np.testing.assert_allclose(found[0].points, found[1].points, atol=1e-5)
    found[1].write_ply(tmp_path / "b.ply")
    assert np.array_equal(label_points(tmp_path / "b.ply", model, "pin").labels, found[1].labels)


@pytest.mark.slow
def test_columns_of_training_leave_files_of_other_formats_their_own(tmp_path, capsys):
    for i in range(10):
        rows, is_table = make_object("pin", i, 400), i % 2
        save(tmp_path / "both" / "pin" / f"{i}.{'txt' if is_table else 'ply'}", rows, "" if is_table else "x y z label")
        save(tmp_path / "ply" / "pin" / f"{i}.ply", rows, "x y z label")
    how = {"columns": "x,y,z,label", "num_points": 64}
    data, run = PartFolder(tmp_path / "both", strict=True, **how), str(tmp_path / "run")
    fit(small(run, "part", dataset="parts", epochs=1, **how), data, log=quiet)
    said = "no file is a table, so columns x,y,z,label are not used: each names its own"
    assert said not in data.notes
    of_ply = ["--dataset", "parts", "--root", str(tmp_path / "ply"), "--device", "cpu"]
    new = ["--task", "part", "--epochs", "1", "--out", str(tmp_path / "new")]
    for words in (["evaluate", run, *of_ply], ["train", "--init", run, *of_ply, *new]):
        assert command_line.main(words) == 0
        assert said in "".join(capsys.readouterr())


@pytest.mark.slow
def test_labels_of_a_file_are_read_back_with_the_same_axis_up(tmp_path):
    root = write_objects(tmp_path / "set", count=4)
    fit(small(tmp_path / "run", "part", dataset="parts", epochs=1), PartFolder(root, num_points=32), log=quiet)
    model, path = load_model(tmp_path / "run"), save(tmp_path / "a.txt", make_object("pin", 9, 400))
    for up in ("z", "y", "-y", "-x"):
        found = label_points(path, model, "pin", up=up)
        found.write_ply(tmp_path / f"{up}.ply")
        assert np.array_equal(read_cloud(tmp_path / f"{up}.ply").points, read_cloud(path, up=up).points)
        assert np.array_equal(label_points(tmp_path / f"{up}.ply", model, "pin").labels, found.labels)


def test_a_ply_that_says_which_axis_is_up_is_not_advised_to_take_another(tmp_path):
    x, y, z = read_cloud(f"{SAMPLES}/files/chair.off", 2048).points.T
    path = save(tmp_path / "a.ply", np.stack([x, z, -y], 1), "x y z")
    note, *_ = predict(path, "pointnet_modelnet40_upright").notes
    assert note.startswith("with y up it would be chair ")
    path.write_bytes(path.read_bytes().replace(b"element", b"comment up y\nelement", 1))
    answer = predict(path, "pointnet_modelnet40_upright")
    assert (answer.class_name, answer.up, answer.notes) == ("chair", "y", ())


def test_one_object_to_validate_on_is_no_reason_to_speak_of_guessing(tmp_path):
    data, config = halves("part"), TrainConfig(task="part", out=str(tmp_path))
    one = data.subset(torch.tensor([0]))
    for accuracy, lines in ((0.98, 0), (0.3, 1)):
        assert len(lines_on_result(config, one, {"train_accuracy": 0.97}, {"val_point_accuracy": accuracy})) == lines
    none = data.subset(torch.tensor([], dtype=torch.int64))
    kept = "no cloud to validate on: the last epoch is kept. Add files"
    assert kept in lines_on_data(config, data, none)
    assert kept not in lines_on_data(TrainConfig(task="part", val_fraction=0, out=str(tmp_path)), data, none)


def test_coordinates_that_float32_rounds_far_away_are_said():
    rows = np.random.default_rng(0).random((500, 3)) * 30
    far = np.array([500_000, 5_400_000, 100]) + rows
    grid = np.argwhere(np.ones((25, 20))) + far.astype(int)[0, :2]
    raster = np.hstack([grid, rows[:, 2:]])
    kept = (rows, far, rows.astype(np.float32), raster.astype(np.float32), np.round(far).astype(np.float32))
    for points, said in (*((points, False) for points in kept), (far.astype(np.float32), True)):
        notes = predict(points, "pointnet_shapes").notes
        assert ("coordinates are in steps of 0.5: float32 holds no more so far from the origin" in notes) == said


@pytest.mark.parametrize(("place", "changes", "is_far"), [
    ((1000, 2000, 100), {}, True),
    ((4, 0, 0), {"scale": 1.0, "mirror": True}, True),
    ((4, 0, 0), {"scale": 1.0}, False),
    ((0, 0, 1), {}, False),
])  # fmt: skip
def test_clouds_that_augmentation_would_move_far_are_named(tmp_path, place, changes, is_far):
    near = two_shapes()
    data = LabelledClouds(near.points + torch.tensor(place)[:, None], near.labels, near.classes)
    lines = []
    fit(tiny(tmp_path, epochs=1, **changes), data, log=lines.append)
    found = [line for line in lines if "from the origin" in line]
    assert len(found) == is_far
    if is_far:
        used = "--mirror" if "mirror" in changes else "--scale"
        times = {1000: "2,238", 4: "4"}[place[0]]  # clouds have radius 1
        moved = f"{used} would move them about it. Centre each: points - points.mean(2, keepdims=True)"
        assert found == [f"clouds are {times} times their radius from the origin: {moved}"]


@pytest.mark.parametrize(
    ("kind", "step"), [(torch.float16, 32), (torch.bfloat16, 256), (torch.float32, None), (torch.float64, None)]
)
def test_the_steps_of_coordinates_are_those_of_the_type_in_which_they_came(kind, step):
    points = torch.from_numpy(np.random.default_rng(0).random((500, 3)) * 3000 + 50_000).to(kind)
    near = torch.from_numpy(np.random.default_rng(0).random((500, 3))).to(kind)  # up to 1
    arrays = [points] if kind == torch.bfloat16 else [points, points.numpy(), np.ma.masked_array(points.numpy())]
    name = str(kind).removeprefix("torch.")
    for array in arrays:
        coarse = [note for note in predict(array, "pointnet_shapes").notes if "in steps of" in note]
        wanted = f"coordinates are in steps of {step}: {name} holds no more so far from the origin"
        assert coarse == ([wanted] if step else [])
    assert not [note for note in predict(near, "pointnet_shapes").notes if "in steps of" in note]
