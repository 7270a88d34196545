"""Which of one's own files are for testing, and what is said where they cannot be judged fairly."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet.datasets import LabelledPoints, MeshFolder, PointCloudFileError
from pointnet.datasets.own_objects import _drawn
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.points.features import intensity_scales
from pointnet.training import TrainConfig
from pointnet.training.small_sets import lines_on_data
from tests.forms import forms
from tests.helpers import error_of
from tests.own_points import both, make_object, make_yard, save, write_clouds, write_objects, write_yards

# What can be read and has labels is drawn.


def test_files_without_twins_are_drawn_as_ever():
    for seed in range(20):
        found = [f"c/{i}.off" for i in range(3 + seed)]
        ranked = sorted(found, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        wanted = set(ranked[: max(1, round(len(found) * 0.2))])
        in_test = _drawn([[name] for name in found], {}, 0.2, seed)
        assert {name for name, its in zip(found, in_test, strict=True) if its} == wanted


@pytest.mark.slow
def test_a_set_names_the_files_whose_split_no_folder_says(tmp_path):
    root = write_clouds(tmp_path, ("a", "b", "c"))
    (root / "b" / "broken.off").write_text("OFF\n")
    for i in range(6):
        split = root / "a" / ("test" if i < 2 else "train")
        split.mkdir(exist_ok=True)
        (root / "a" / f"a_{i}.xyz").rename(split / f"a_{i}.xyz")
    for split in ("train", "test"):
        assert MeshFolder(root, split, num_points=16).split_by_chance == {*root.glob("[bc]/*.xyz")}
    shutil.rmtree(root / "b")
    shutil.rmtree(root / "c")
    assert not MeshFolder(root, num_points=16).split_by_chance
    objects = write_objects(tmp_path / "objects")
    assert PartFolder(objects, num_points=16).split_by_chance == {*objects.glob("*/?.*")}


def test_a_file_that_cannot_be_read_changes_nothing_of_the_draw(tmp_path):
    alone = write_clouds(tmp_path / "alone")
    mixed = write_clouds(tmp_path / "mixed")
    for i in range(6):
        (mixed / "b" / f"README{i}.txt").write_text(f"made by hand, {i}\n")
    for seed in range(6):
        assert both(alone, seed=seed) == both(mixed, seed=seed)
    data = MeshFolder(mixed, num_points=16)
    assert [error.path.name for error in data.bad] == [f"README{i}.txt" for i in range(6)]
    assert MeshFolder(mixed, "test", num_points=16).bad == []


@pytest.mark.parametrize("kind", forms([PartFolder, SceneFolder], PartFolder))
def test_a_file_without_labels_is_not_held_out(tmp_path, kind):
    write = {PartFolder: write_objects, SceneFolder: write_yards}[kind]
    alone, mixed = write(tmp_path / "alone", count=3), write(tmp_path / "mixed", count=3)
    place = mixed / "pin" if kind is PartFolder else mixed
    for i in range(6):
        save(place / f"bare{i}.txt", make_object("pin", i)[:, :3])
    for seed in range(6):
        assert both(alone, kind, seed=seed) == both(mixed, kind, seed=seed)


def test_a_single_labelled_file_is_trained_on(tmp_path):
    save(tmp_path / "scan.txt", make_yard(0, 1500), "X Y Z Intensity Classification")
    for i in range(6):
        save(tmp_path / f"bare{i}.txt", make_yard(i, 200)[:, :3])
    for seed in range(4):
        assert {file.name for file in SceneFolder(tmp_path, seed=seed).files} == {"scan.txt"}
    with pytest.raises(PointCloudFileError, match="two files or more that can be read, .*; --test false trains"):
        SceneFolder(tmp_path, "test")


def test_what_an_unreadable_file_was_drawn_for_goes_to_another(tmp_path):
    root = write_clouds(tmp_path)
    (root / "b" / "README.txt").write_text("made by hand\n")
    train, test = both(root)
    note = next((root / ".cache").glob("split-*.json"))
    known = json.loads(note.read_text().splitlines()[1])
    assert sum(known.values()) == 2
    text = json.dumps({name: name in ("b/README.txt", "a/a_0.xyz") for name in [*known, "b/README.txt"]})
    note.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")  # as an earlier version drew them
    again, tested = both(root)
    assert {"a/a_0.xyz"} | {name for name in test if name[0] == "b"} == tested
    assert len(again) == 10


def test_a_file_that_becomes_unreadable_moves_no_other_while_there_is_one_to_test_on(tmp_path):
    root = write_clouds(tmp_path, ("a",), 12)
    train, test = both(root)
    gone = sorted(test)[0]
    (root / gone).write_text("no points\n")
    assert both(root) == (train, test - {gone})


# Classes that cannot be tested.


def test_a_class_that_cannot_be_tested_is_named(tmp_path):
    root = write_clouds(tmp_path, ("a", "b"))
    for file in sorted((root / "b").glob("*"))[1:]:
        file.unlink()
    train, test = (MeshFolder(root, split, num_points=16) for split in ("train", "test"))
    lines = lines_on_data(TrainConfig(), train, train.subset(torch.tensor([], dtype=torch.long)), test)
    assert "no cloud to test on: b. The test score says nothing of it; add files" in lines
    assert not any(
        "to test on" in line
        for line in lines_on_data(TrainConfig(), train, train.subset(torch.tensor([], dtype=torch.long)))
    )


def test_a_class_without_clouds_is_named_with_the_class_of_nearly_its_name(tmp_path):
    for i, place in enumerate(("train/rods", "train/box", "train/lamp", "test/rod", "test/bxo", "test/cup")):
        save(tmp_path / place / "cloud.xyz", make_object("pin", i, 80)[:, :3])
    data = MeshFolder(tmp_path, num_points=16)
    none = data.subset(torch.arange(0))
    said = "no cloud to learn from: bxo (nearly 'box'), cup, rod (nearly 'rods'). An answer of it tells nothing; "
    assert f"{said}add files, remove it, or give both folders one name" in lines_on_data(TrainConfig(), data, none)
    shutil.rmtree(tmp_path / "train" / "rods")
    shutil.rmtree(tmp_path / "test" / "bxo")
    data = MeshFolder(tmp_path, num_points=16)
    said = "no cloud to learn from: cup, rod. An answer of it tells nothing; add files or remove it"
    assert said in lines_on_data(TrainConfig(), data, data.subset(torch.arange(0)))


@pytest.mark.parametrize("kind", [PartFolder, SceneFolder, LabelledPoints])
def test_a_label_that_only_clouds_of_validation_have_is_named(tmp_path, kind):
    for i in range(5):
        rows = make_object("pin", i, 200)
        rows[:, 3] = np.where(rows[:, 3] == 0, 0, 1 + (i == 2))
        save(tmp_path / "pin" / f"{i}.txt" if kind is PartFolder else tmp_path / f"{i}.txt", rows, "x y z label")
    how = {} if kind is PartFolder else {"block": 5.0}
    data = (PartFolder if kind is PartFolder else SceneFolder)(tmp_path, num_points=16, test_fraction=0, **how)
    of_2 = torch.tensor([file.stem == "2" for file in data.files])
    if kind is LabelledPoints:
        data = LabelledPoints(data.batch(slice(None))[0], data.labels, data.classes, data.part_names)
    train, val = (data.subset(rows.nonzero()[:, 0]) for rows in (~of_2, of_2))
    config = TrainConfig(task="part" if kind is PartFolder else "scene")
    said = "labels that only clouds of validation have, so never learned: 2. Add files"
    assert said in lines_on_data(config, train, val)
    assert said not in lines_on_data(config, val, train)
    assert not any("only clouds of validation" in line for line in lines_on_data(config, data, val))


# Scales of intensity.


def test_files_whose_intensity_is_in_another_unit_are_named_with_how_far_it_goes():
    generator = np.random.default_rng(0)
    tops = {"a": 65535, "b": 1, "c": 255, "d": 65535, "e": 1, "f": 60000, "g": 0}
    values = np.stack([np.append(top * generator.random(999), top) for top in tops.values()]).astype(np.float32)
    twice, names = np.tile(values, (2, 1)), [*tops, *tops]
    said = "intensity of g goes to 0, of b, e to 1, of c to 255, of others to 65,535; bring all files to one scale"
    assert intensity_scales(twice, names) == intensity_scales(values, [*tops]) == [said]
    assert intensity_scales(-values[:3], [*tops][:3])[0].startswith("intensity of b goes to 1, of c to 255, of others")
    many = intensity_scales(np.repeat(values[:2], (8, 7), 0), list("abcdefghijklmno"))
    assert many[0].startswith("intensity of i, j, k, l, m and 2 more goes to 1, of others to 65,535;")


def test_one_unit_is_one_whatever_the_files_reflect():
    generator = np.random.default_rng(0)
    values = (generator.random((6, 500)) * np.array([[3000, 4095, 900, 600, 2000, 4095]]).T).astype(np.float32)
    values[2, 7] = 4095.0  # a reflector in a dark file
    assert intensity_scales(values, list("abcdef")) == []
    assert intensity_scales(np.zeros((3, 9), np.float32), list("abc")) == []


@pytest.mark.parametrize("kind", [SceneFolder, PartFolder, MeshFolder])
def test_scales_of_intensity_that_differ_are_a_note_of_every_set(tmp_path, kind):
    root = tmp_path if kind is SceneFolder else tmp_path / "yard"
    for i in range(4):
        rows = make_yard(i, 1500)
        rows[0, 3] = 900
        save(root / f"{i}.txt", rows * (1, 1, 1, 1 / 900 if i == 2 else 1, 1), "X Y Z Intensity Classification")
    how = {"block": 5} if kind is SceneFolder else {}
    for split in ("train", "test"):
        notes = kind(tmp_path, split, num_points=16, features="intensity", **how).notes
        name = "2.txt" if kind is SceneFolder else "yard/2.txt"
        assert f"intensity of {name} goes to 1, of others to 900; bring all files to one scale" in notes
        assert not any("goes to" in note for note in kind(tmp_path, split, num_points=16, **how).notes)


# What is said in `show`.


def test_show_takes_the_settings_that_a_set_of_ones_own_is_trained_with(tmp_path, capsys):
    root = write_yards(tmp_path / "set", 2, size=1500)
    words = ["show", "scenes", "--root", str(root), "--num_points", "512", "--out", str(tmp_path / "out"), "--block"]
    heights = {}
    for up in ("z", "y"):
        assert command_line.main([*words, "50", "--up", up]) == 0
        printed = capsys.readouterr().out
        assert "each file is one block of 50, of 4,096 points" in printed
        heights[up] = 50 * float(re.search(r"extent z +([\d.]+)", printed)[1])
    assert heights["z"] < 2.6 < 2.9 < heights["y"], "a yard is 2.5 high, and 3 deep or more"
    assert "train with a larger --block" in error_of(capsys, command_line.main, [*words, "0.001"])
    assert "has no colours" in error_of(capsys, command_line.main, [*words, "50", "--features", "rgb"])


def test_where_no_file_is_left_for_a_split_it_says_why_the_others_cannot_be_read(tmp_path):
    for i in range(3):
        save(tmp_path / "yards" / f"{i}.txt", make_yard(i, 300)[:, :3])
        save(tmp_path / "folder" / "c" / f"{i}.txt", np.full((4, 3), np.nan))
    save(tmp_path / "yards" / "3.txt", make_yard(3), "X Y Z I label")
    wanted = r"has no file for its test split: .*; 3 cannot be read: 3 files, such as 0\.txt: has no labels: "
    with pytest.raises(PointCloudFileError, match=wanted):
        SceneFolder(tmp_path / "yards", "test", num_points=16, block=2)
    with pytest.raises(PointCloudFileError, match=r"; 3 cannot be read: 3 files, such as c/0\.txt: has no point whose"):
        MeshFolder(tmp_path / "folder", "test", num_points=16)


@pytest.mark.parametrize("within", ["", "train"])
def test_where_none_can_be_read_the_commonest_reason_comes_first_with_how_many_have_it(tmp_path, within):
    write_objects(tmp_path, within=within)
    (tmp_path / "parts.txt").write_text("8 stick\n9 ball\n")
    save(tmp_path / "pin" / within / "bare.txt", make_object("pin", 1)[:, :3])
    if within:
        write_objects(tmp_path, ["pin"], 20, "test", seed=50)
    unnamed = r"12 files, such as pin/.*: has label 0, which parts.txt does not name \(8, 9\)"
    wanted = rf": its train split holds no file that can be read: {unnamed}; pin/.*bare.txt: has no labels: [^;]*$"
    with pytest.raises(PointCloudFileError, match=wanted):
        PartFolder(tmp_path, num_points=16)


def test_folders_that_are_no_classes_and_classes_that_may_be_none_are_said(tmp_path):
    generator = np.random.default_rng(0)

    def write(*places):
        for place in places:
            (tmp_path / place).mkdir(parents=True)
            for i in range(3):
                np.savetxt(tmp_path / place / f"{i}.txt", generator.random((40, 3)))

    write("one/bolt", "one/pipe", "one/test")
    (tmp_path / "one" / "washer").symlink_to(tmp_path / "nowhere")
    data = MeshFolder(tmp_path / "one", num_points=16)
    assert data.notes == [
        "no class, as the link leads nowhere: washer",
        "a class, though named like a split, as it holds files and no folders of classes: test",
    ]
    write("two/train/bolt", "two/train/pipe", "two/test/bolt", "two/test/pipe", "two/nut")
    (tmp_path / "two" / "test" / "screw").symlink_to(tmp_path / "nowhere")
    data = MeshFolder(tmp_path / "two", num_points=16)
    assert data.notes == [
        "1 link or folder that cannot be opened, such as test/screw",
        "not read, as it is in none of train, val and test, which hold the classes: nut",
    ]
    assert data.classes == ("bolt", "pipe")


def test_a_set_of_copies_is_refused_with_the_reason(tmp_path):
    for kind in ("bolt", "pipe"):
        (tmp_path / kind).mkdir()
        for i in range(4):
            np.savetxt(tmp_path / kind / f"{i}.txt", np.random.default_rng(len(kind)).random((40, 3)))
    with pytest.raises(PointCloudFileError, match="has no file for its test split: .* copies of one count as one"):
        MeshFolder(tmp_path, "test", num_points=16)
