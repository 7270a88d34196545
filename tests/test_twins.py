"""Files of one object: which they are, that they are on one side, and what is said where they are not."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet.datasets import MeshFolder, split_validation
from pointnet.datasets.blocks import first_blocks
from pointnet.datasets.own_objects import objects_of
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.datasets.packed import open_packed
from pointnet.datasets.packing import pack_split
from pointnet.points.formats import contents
from pointnet.points.formats.contents import Contents
from pointnet.points.hashing import hash_of
from tests.forms import forms
from tests.own_points import both, make_object, save, write_clouds, write_objects, write_yards


def test_files_of_one_object_are_those_of_one_stem_or_content():
    together = (
        *("chair.off", "chair.XYZ", "Chair.ply", "chair (copy).off", "chair (2nd copy).off", "chair - Copy (3).off"),
        *("chair copy 2.off", "copy_of_chair.off", "chair_copy.off", "Copy (2) of chair.off"),
    )
    apart = ("chair (1).off", "chair (2).off", "chair2.off", "photocopy.off", "copy.off", "copy machine.off")
    found = objects_of([Path(name) for name in (*together, *apart)], {})
    assert [len(one) for one in found] == [len(together), *[1] * len(apart)]
    contents = dict.fromkeys(map(Path, ("x.off", "chair.ply", "y.off")), "same") | {Path("z.off"): "other"}
    found = objects_of([Path(name) for name in ("x.off", "y.off", "z.off", "chair.off", "chair.ply")], contents)
    assert [[file.name for file in one] for one in found] == [["x.off", "y.off", "chair.off", "chair.ply"], ["z.off"]]


@pytest.mark.slow
def test_copies_change_nothing_of_the_draw_and_are_with_their_twins(tmp_path):
    alone, mixed = write_clouds(tmp_path / "alone"), write_clouds(tmp_path / "mixed")
    for file in sorted(mixed.rglob("*.xyz")):
        shutil.copy(file, file.with_stem(f"{file.stem} (copy)"))
        shutil.copy(file, file.parent / f"another name {file.stem[-1]}.xyz")
        np.save(file.with_name(f"{file.stem}_copy.npy"), np.loadtxt(file))
    for seed in range(5):
        for before, after in zip(both(alone, seed=seed), both(mixed, seed=seed), strict=True):
            assert before <= after
            assert {re.sub(r"/.*(\d).*", r"\1", name) for name in after} == {name[0] + name[-5] for name in before}
            assert len(after) == 4 * len(before)
    assert MeshFolder(mixed, num_points=16).notes == []


def test_copies_are_on_one_side_of_validation_too_and_never_a_whole_class(tmp_path):
    alone, mixed = write_clouds(tmp_path / "alone"), write_clouds(tmp_path / "mixed")
    before = MeshFolder(alone, num_points=16)
    for seed in range(5):
        wanted = super(MeshFolder, before).held_out(seed, 0.3)
        assert torch.equal(before.held_out(seed, 0.3), wanted)
    for file in sorted(mixed.rglob("*.xyz")):
        shutil.copy(file, file.with_stem(f"{file.stem} (copy)"))
    save(mixed / "c" / "c_0.xyz", make_object("pin", 7, 20)[:, :3])
    shutil.copy(mixed / "c" / "c_0.xyz", mixed / "c" / "c_0.csv")
    data = MeshFolder(mixed, num_points=16, test_fraction=0)
    for seed in range(5):
        train, val = split_validation(data, seed, 0.3)
        stems = [{file.stem.split()[0] for file in part.files} for part in (train, val)]
        assert not stems[0] & stems[1]
        assert len(val) > 0
        assert set(train.labels.tolist()) == {0, 1, 2}


def test_validation_leaves_two_clouds_or_more_unless_a_folder_says_otherwise(tmp_path):
    for count in (1, 2, 3):
        root = write_clouds(tmp_path / str(count), ("a",), count)
        train, val = split_validation(MeshFolder(root, num_points=16, test_fraction=0), 0, 0.4)
        assert (len(train), len(val)) == (min(count, 2), max(count - 2, 0))
    for split, i in (("val", 0), ("val", 1), ("train", 2)):
        (root / "a" / split).mkdir(exist_ok=True)
        (root / "a" / f"a_{i}.xyz").rename(root / "a" / split / f"a_{i}.xyz")
    assert len(split_validation(MeshFolder(root, num_points=16, test_fraction=0), 0, 0.4)[1]) == 2


def test_files_of_one_name_in_two_classes_are_two_objects_and_each_class_is_validated_on(tmp_path):
    for name in "abc":
        for i in range(5):
            save(tmp_path / name / f"{i}.xyz", make_object("pin", 99 * ord(name) + i, 20)[:, :3])
    data = MeshFolder(tmp_path, num_points=16, test_fraction=0)
    for seed in range(9):
        assert torch.equal(data.held_out(seed, 0.3), super(MeshFolder, data).held_out(seed, 0.3))
        assert split_validation(data, seed, 0.1)[1].labels.tolist() == [0, 1, 2]


def test_a_scan_and_its_copy_are_both_for_validation_or_neither(tmp_path):
    root = write_yards(tmp_path, 4, size=1500)
    for i in range(4):
        shutil.copy(root / f"yard_{i}.txt", root / f"yard_{i} (copy).txt")
    data = SceneFolder(root, num_points=16, block=5, test_fraction=0)
    for seed in range(4):
        train, val = ({file.stem.split()[0] for file in part.files} for part in split_validation(data, seed, 0.3))
        assert train | val == {f"yard_{i}" for i in range(4)}
        assert not train & val


def test_blocks_of_a_room_are_of_one_object():
    assert first_blocks(torch.tensor([3, 3, 1, 3, 1])).tolist() == [0, 0, 2, 0, 2]


@pytest.mark.parametrize("task", ["classification", "scene"])
def test_copies_are_for_validation_together_in_a_packed_set_too(tmp_path, task):
    if task == "scene":
        root = write_yards(tmp_path, 4, size=1500)
        for file in sorted(root.glob("yard_*.txt")):
            shutil.copy(file, file.with_stem(f"other {file.stem}"))
        data = SceneFolder(root, num_points=16, block=5, test_fraction=0)
    else:
        root = write_clouds(tmp_path)
        for file in sorted(root.rglob("*.xyz")):
            shutil.copy(file, file.with_stem(f"other {file.stem}"))
        data = MeshFolder(root, num_points=16, test_fraction=0)
    pack_split(data, tmp_path / "packed" / "train", task, root)
    packed = open_packed(tmp_path / "packed", "train", 16, task)
    for fraction in (0.01, 0.2, 0.5):
        parts = split_validation(packed, 0, fraction)
        names = [[part.name_of(i) for i in range(len(part))] for part in parts]
        objects = [{re.sub(r"other |#\d+$", "", name) for name in its} for its in names]
        assert all(objects), fraction
        assert not objects[0] & objects[1]


@pytest.mark.slow
def test_a_copy_moves_no_object_of_a_packed_set(tmp_path):
    root, held = write_clouds(tmp_path), list[set[str]]()
    for name in ("before", "after"):
        data = MeshFolder(root, num_points=16, test_fraction=0)
        pack_split(data, tmp_path / name / "train", "classification", root)
        val = split_validation(open_packed(tmp_path / name, "train", 16), 0, 0.4)[1]
        held.append({val.name_of(i) for i in range(len(val))})
        for file in sorted(root.rglob("*.xyz")):
            shutil.copy(file, file.with_stem(f"a copy of {file.stem}"))  # which is before it
    assert held[0] < held[1]
    assert len(held[1]) == 2 * len(held[0])


def test_twins_that_an_earlier_version_tore_apart_are_joined_again(tmp_path):
    root = write_clouds(tmp_path, ("a",))
    first = both(root)
    for file in sorted(root.rglob("*.xyz")):
        shutil.copy(file, file.with_stem(f"{file.stem} (copy)"))
    note = next((root / ".cache").glob("split-*.json"))
    known = json.loads(note.read_text().splitlines()[1])
    text = json.dumps(known | {f"a/a_{i} (copy).xyz": not known[f"a/a_{i}.xyz"] for i in range(6)})
    note.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    train, test = both(root)
    assert {name for name in test if "copy" not in name} == first[1]
    assert len(test) == 2


def test_files_of_the_same_content_on_both_sides_of_folders_are_counted_and_two_named(tmp_path, capsys):
    for within, first in (("train", 0), ("val", 2), ("test", 4)):
        for i in range(first, first + 3):
            save(tmp_path / within / "a" / f"{within}{i}.xyz", make_object("a", i, 20)[:, :3])
    shutil.copy(tmp_path / "train" / "a" / "train0.xyz", tmp_path / "test" / "a" / "again.xyz")
    said = "files for {} with the same content as files for training: {}, such as {} and {}; remove one of each"
    wanted = [
        said.format("testing", 2, "test/a/again.xyz", "train/a/train0.xyz"),
        said.format("validation", 1, "val/a/val2.xyz", "train/a/train2.xyz"),
    ]
    assert MeshFolder(tmp_path, num_points=16).notes == wanted
    assert MeshFolder(tmp_path, "test", num_points=16).notes == wanted[:1]
    words = ["show", "folder", "--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert command_line.main(words) == 0
    assert wanted[0] in capsys.readouterr().out


@pytest.mark.parametrize("kind", [MeshFolder, PartFolder])
@pytest.mark.parametrize(
    "sides", forms([("train", "train"), ("train", "test"), ("test", "val"), ("", "")], ("train", "test"))
)
def test_copies_in_two_classes_are_one_line_whichever_split_they_are_in(tmp_path, kind, sides):
    for seed, within in enumerate({"train", "test", *sides} if any(sides) else {""}):
        write_objects(tmp_path, ["pin", "table"], 3, within, 10 * seed)
    one, *others = (tmp_path / name / side / "copy.txt" for name, side in zip(("pin", "table"), sides, strict=True))
    save(one, make_object("pin", 99))
    for other in (*others, one.with_name("again.txt")):
        shutil.copy(one, other)
    for broken in ("pin", "table"):
        (tmp_path / broken / sides[0] / "empty.xyz").write_text("")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in (*others, one.with_name("again.txt")))
    said = f"files with the same content as files of another class: 1, such as {names[0]} and {names[1]}"
    notes = [note for split in ("train", "test") for note in kind(tmp_path, split, num_points=16).notes]
    assert {note for note in notes if "same content" in note} == {f"{said}; remove one of each"}


def test_the_hash_of_points_knows_no_order_and_every_number(monkeypatch):
    monkeypatch.setattr(contents, "BLOCK", 32)  # so that there are several blocks
    draw = np.random.default_rng(0)
    points, colors, corners = draw.normal(size=(100, 3)), draw.random((100, 3)), np.arange(99).reshape(33, 3)
    cloud, mesh = Contents(points, colors=colors), Contents(points, corners, colors=colors)
    order, not_measured = draw.permutation(100), np.float64([[0, 0, 0], [np.nan, 1, 1], [0, 0, -0.0]])
    crossed, tinted = points.copy(), colors.copy()
    crossed[[0, 1], 0] = crossed[[1, 0], 0]  # the same numbers at other points
    tinted[7, 1] += 0.1
    with_gaps = Contents(np.insert(points, 50, not_measured, 0), colors=np.insert(colors, 50, np.ones((3, 3)), 0))
    for other in (Contents(points[order], colors=colors[order]), with_gaps, cloud._replace(labels=corners)):
        assert hash_of(other) == hash_of(cloud)
    with_y_up = Contents(points[:, [0, 2, 1]] * [1, 1, -1], normals=points[:, [0, 2, 1]] * [1, 1, -1])
    assert hash_of(with_y_up, "y") == hash_of(Contents(points, normals=points)) != hash_of(with_y_up)
    turned = corners[draw.permutation(33)][:, [1, 2, 0]]
    elsewhere = Contents(points[order], np.argsort(order)[turned], colors=colors[order])
    for other in (elsewhere, mesh._replace(normals=points)):
        assert hash_of(other) == hash_of(mesh)
    others = [of._replace(**what) for of in (cloud, mesh) for what in ({"vertices": crossed}, {"colors": tinted})]
    others += [mesh._replace(faces=np.roll(corners, 1)), mesh._replace(face_colors=colors[:33]), Contents(points)]
    assert len({hash_of(one) for one in (cloud, mesh, *others)}) == 2 + len(others)


def other_bytes(saved: Path, path: Path, how: int) -> None:
    """The points of a text in another file, in four ways."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names, *lines = saved.read_text().removeprefix("//").splitlines()
    rows = np.float32([line.split() for line in lines])
    if how == 0:
        np.save(path.with_suffix(".npy"), rows)
    elif how == 1:
        header = ["ply", "format binary_little_endian 1.0", "comment of today", f"element vertex {len(rows)}"]
        header += [*(f"property float {name}" for name in names.split()), "end_header\n"]
        path.with_suffix(".ply").write_bytes("\n".join(header).encode() + rows.tobytes())
    else:
        lines = lines[::-1] if how == 2 else [*lines, "", ""]
        path.with_suffix(".txt").write_text("\n".join([names, *lines]))


@pytest.mark.parametrize("kind", [MeshFolder, PartFolder, SceneFolder])
def test_the_same_points_in_other_bytes_on_both_sides_of_folders_are_counted(tmp_path, kind):
    what, place = ({"block": 5}, "") if kind is SceneFolder else ({}, "pin")
    for i in range(6):
        train, test = (tmp_path / split / place for split in ("train", "test"))
        save(train / f"a{i}.txt", make_object("pin", i, 300), "x y z label")
        if i < 4:
            other_bytes(train / f"a{i}.txt", test / f"b{i}", i)
    save(test / "new.txt", make_object("pin", 9, 300), "x y z label")
    names = [file.relative_to(tmp_path).as_posix() for file in (test / "b0.npy", train / "a0.txt")]
    wanted = f"files for testing with the same points as files for training: 4, such as {names[0]} and {names[1]}"
    what |= {"num_points": 16, "columns": "x,y,z,label"}
    opened = [kind(tmp_path, split, **what) for split in ("train", "test", "train")]
    for data in opened[1:]:  # when the first was opened, the other split was not yet sampled
        assert [note for note in data.notes if "the same" in note] == [f"{wanted}; remove one of each"]


def test_the_same_points_in_other_bytes_are_drawn_for_one_side_and_reported_in_two_classes(tmp_path):
    for i in range(8):
        save(tmp_path / "a" / f"first{i}.txt", make_object("pin", i, 100)[:, :3], "x y z")
        save(tmp_path / "b" / f"b{i}.txt", make_object("pin", 50 + i, 100)[:, :3], "x y z")
        other_bytes(tmp_path / "a" / f"first{i}.txt", tmp_path / "a" / f"again{i}", i % 4)
    other_bytes(tmp_path / "b" / "b3.txt", tmp_path / "a" / "strange", 2)
    for seed in range(4):
        for side in both(tmp_path, seed=seed):
            first, again = ({name[7] for name in side if name.startswith(f"a/{of}")} for of in ("first", "again"))
            assert first == again != set()
    data = MeshFolder(tmp_path, num_points=16, test_fraction=0)
    said = "files with the same points as files of another class: 1, such as a/strange.txt and b/b3.txt"
    assert data.notes == [f"{said}; remove one of each"]
    held = [data.files[row].stem for row in data.held_out(0, 0.3).nonzero().flatten().tolist()]
    first, again = ({stem[5:] for stem in held if stem.startswith(name)} for name in ("first", "again"))
    assert first == again != set()


def test_meshes_of_other_faces_clouds_of_other_colours_and_a_few_points_are_not_the_same(tmp_path):
    corners = make_object("pin", 0, 90)[:, :3]
    for name, first in (("a", 0), ("b", 1)):  # each corner is in one face, as in the other mesh
        faces = np.roll(np.arange(90), first).reshape(30, 3)
        text = "\n".join(["OFF", "90 30 0", *(" ".join(map(str, row)) for row in corners)])
        (tmp_path / name).mkdir()
        (tmp_path / name / "mesh.off").write_text(
            "\n".join([text, *(" ".join(map(str, (3, *face))) for face in faces)])
        )
        rows = np.c_[corners, np.full((90, 3), 200 * first + 3)]
        save(tmp_path / name / "coloured.txt", rows, "x y z r g b")
        save(tmp_path / name / "few.txt", rows[:40], "x y z r g b")
    notes = MeshFolder(tmp_path, num_points=16, test_fraction=0).notes
    (note,) = [note for note in notes if "the same" in note]
    assert "same points as files of another class: 1, such as a/coloured.txt and b/coloured.txt" in note
    (tmp_path / "a" / "mesh.off").unlink()
    (tmp_path / "b" / "mesh.off").unlink()
    assert MeshFolder(tmp_path, num_points=16, test_fraction=0, features="rgb").notes == []
