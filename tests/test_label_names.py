"""The texts that name labels, and the comments of PLY files: numbers stay with their names."""

import re

import numpy as np
import pytest
import torch

from pointnet.datasets import PointCloudFileError, SceneFolder
from pointnet.datasets.label_names import Labels
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.point_labels import IGNORED
from pointnet.inference.label import LabelledCloud
from pointnet.points.read import read_cloud
from tests.forms import forms
from tests.own_points import FLOOR, POLE, WALL, write_objects, write_yards


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("\ufeff1 ground\n2 building\n0 pole\n", {0: "pole", 1: "ground", 2: "building"}),
        ("-1 unlabelled\n0 ground\n1 building\n", {0: "ground", 1: "building"}),
        ("# my classes\nground\npole\n", {0: "ground", 1: "pole"}),
        ("2 story house\nground\n", {0: "2 story house", 1: "ground"}),
        (
            "0 - ground\n7: pole\n9; a wall\n11) roof\n12. tree\n",
            {0: "ground", 7: "pole", 9: "a wall", 11: "roof", 12: "tree"},
        ),
        ("3-seater\n2-seater\n", {0: "3-seater", 1: "2-seater"}),
        ("room 1\nroom 2\n", {0: "room 1", 1: "room 2"}),
        ("3 <2m\n4 >2m vegetation\n5=wall\n", {3: "<2m", 4: ">2m vegetation", 5: "wall"}),
        ("bolt (8)\nnut (8)\n", {0: "bolt (8)", 1: "nut (8)"}),
        ("Track 1\nSiding 2\nPlatform\n", {0: "Track 1", 1: "Siding 2", 2: "Platform"}),
        ("Boeing 747\nAirbus 320\n", {0: "Boeing 747", 1: "Airbus 320"}),
        ('"2","ground"\n"6","a wall"\n', {2: "ground", 6: "a wall"}),
        ('2,"ground"\n6;"-"\n7: 2" pipe\n', {2: "ground", 7: '2" pipe'}),
        ("0 zone 1\n1 zone 2\n2 zone 3\n", {0: "zone 1", 1: "zone 2", 2: "zone 3"}),
        ("1 \u2013\n2 \u2014\n3 pole\n", {3: "pole"}),
        ("0 - ground\n1 -\n2 pole\n", {0: "ground", 2: "pole"}),
        ("0::ground\n1,,pole\n2 => car\n3 | roof\n", {0: "ground", 1: "pole", 2: "car", 3: "roof"}),
    ],
)
def test_names_keep_their_numbers_behind_a_mark_a_comment_and_a_negative_one(tmp_path, text, names):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    found = Labels.named_in(tmp_path / "classes.txt")
    assert found is not None
    assert dict(zip(found.numbers, found.names, strict=True)) == names


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ('[\n  "floor",\n  "wall"\n]\n', "["),
        ('{\n"floor": 0,\n"wall": 1\n}\n', "{"),
        ("names:\n  - floor\n  - wall\n", "names:"),
        ("- floor\n- wall\n", "- floor"),
        ("// my classes\nfloor\nwall\n", "// my classes"),
        ("floor,\nwall\n", "floor,"),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path, text, odd):
    """Each of its lines was a name, so that all others were one off."""
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(PointCloudFileError, match=re.escape(f"classes.txt: has {odd!r} as a name")):
        Labels.named_in(tmp_path / "classes.txt")


def test_names_of_which_one_lacks_its_number_are_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("id name\n0 ground\n1 building\n")
    with pytest.raises(PointCloudFileError, match="most lines begin with the label's number, 'id name' does not"):
        Labels.named_in(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "text",
    [
        *("ground 0\npole 1\n", "ground 2\npole 1\n", "ground: 0\npole: 9\n", "ground (2)\npole (5)\n"),
        *("name id\nground 0\npole 1\n", "name,id\nground,0\npole,1\n"),
        *("ground | 3\npole | 4\n", "ground [7]\npole [8]\nother\n"),
    ],
)
def test_names_before_their_numbers_are_refused(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(PointCloudFileError, match="has numbers behind its names, as in 'ground.*'; put them in front"):
        Labels.named_in(tmp_path / "classes.txt")


def test_a_number_with_a_name_and_with_none_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("1 -\n1 ground\n")
    with pytest.raises(PointCloudFileError, match="has the number '1' twice"):
        Labels.named_in(tmp_path / "classes.txt")


def test_names_that_end_with_the_labels_of_the_files_are_refused(tmp_path):
    write_yards(tmp_path, count=2)
    for names in ("ground 2\nwall 6\npole 11\n", "no class 1\nground 2\nwall 6\nbridge 17\npole 11\n"):
        (tmp_path / "classes.txt").write_text(names)
        why = r"has numbers behind its names, as in '.* \d', which are the labels of the files; put them in front$"
        with pytest.raises(PointCloudFileError, match=why):
            SceneFolder(tmp_path, block=2.0)
    for ordered in ("2 zone 6\n6 zone 11\n11 zone 2\n", "".join(f"zone {i}\n" for i in range(12))):
        (tmp_path / "classes.txt").write_text(ordered)
        assert "zone 11" in SceneFolder(tmp_path, block=2.0, test_fraction=0).part_names
    (tmp_path / "classes.txt").write_text("Boeing 747\nAirbus 320\n")
    with pytest.raises(PointCloudFileError, match=r"which classes.txt does not name \(0, 1\)"):
        SceneFolder(tmp_path, block=2.0)


@pytest.mark.parametrize("encoding", forms(["utf-8", "utf-8-sig", "utf-16"], "utf-8"))
def test_a_name_of_a_dash_says_that_points_have_no_label(tmp_path, encoding):
    write_yards(tmp_path, count=2)
    every = SceneFolder(tmp_path, block=2.0, test_fraction=0)
    (tmp_path / "classes.txt").write_text(f"{FLOOR} Böden\n{WALL} -\n{POLE} pole\n", encoding=encoding)
    some = SceneFolder(tmp_path, block=2.0, test_fraction=0)
    assert (some.part_names, some.label_numbers) == (("Böden", "pole"), (FLOOR, POLE))
    wall = every.label_numbers.index(WALL)
    for i in range(len(some)):
        (points, labels), (whole, of_all) = some[i][:2], every[i][:2]
        assert torch.equal(points, whole)
        assert torch.equal(labels == IGNORED, of_all == wall)
    assert any("of the points drawn have no label" in note for note in some.notes)


def write_labelled(path, names: dict[int, str], seed: int = 0):
    """Points of boxes beside each other, one of each label, as `label_points` writes them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(names), 300)
    points = generator.random((300, 3)) + labels[:, None] * [1.0, 0, 0]
    probability = np.ones(300, np.float32)
    cloud = LabelledCloud(None, points, "z", labels, probability, tuple(names.values()), numbers=tuple(names))
    cloud.write_ply(path)


NAMES = {2: "ground", 6: "Gebäude, alt", 11: "pole"}


def test_the_names_in_comments_of_a_ply_are_those_of_its_labels(tmp_path):
    write_labelled(tmp_path / "a.ply", NAMES)
    write_labelled(tmp_path / "b.ply", {2: "Ground", 4: "tree", 6: "6"}, 1)
    np.savetxt(tmp_path / "c.txt", np.column_stack([np.random.default_rng(2).random((300, 3)), [6] * 299 + [9]]))
    data = SceneFolder(tmp_path, num_points=32, block=2.0)
    assert data.label_numbers == (2, 4, 6, 9, 11)
    assert data.part_names == ("ground", "tree", "Gebäude, alt", "9", "pole")
    assert not [note for note in data.notes if "taken as" in note]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({2: "floor"}, "b.ply: calls label 2 'floor', another file calls it 'ground'; name them in classes.txt"),
        (
            {3: "pole"},
            "b.ply: calls label 3 'pole', another file gives this name to label 11; name them in classes.txt",
        ),
    ],
)
def test_names_that_contradict_each_other_are_refused_or_said_where_a_text_decides(tmp_path, other, said):
    write_labelled(tmp_path / "a.ply", NAMES)
    write_labelled(tmp_path / "b.ply", other | {4: "tree"})
    with pytest.raises(PointCloudFileError, match=re.escape(said)):
        SceneFolder(tmp_path, num_points=32, block=2.0)
    (tmp_path / "classes.txt").write_text("2 Ground\n3 rock\n4 tree\n6 house\n11 pole\n")
    data = SceneFolder(tmp_path, num_points=32, block=2.0)
    (note,) = (note for note in data.notes if "taken as" in note)
    assert note == "label 6 is taken as 'house'; a.ply calls it 'Gebäude, alt'"


def test_colours_that_were_given_to_labels_are_no_colours_of_the_points(tmp_path):
    write_labelled(path := tmp_path / "a.ply", NAMES)
    note = "colours left out: they are those that predict gave to labels"
    cloud = read_cloud(path)
    assert cloud.colors is None
    assert note in cloud.notes
    assert note not in read_cloud(path, extras=("labels",)).notes
    data = path.read_bytes()
    data = re.sub(rb"comment .*\n", b"", data).replace(
        b" probability", b" scalar_probability"
    )  # as CloudCompare saves it
    path.write_bytes(data)
    assert read_cloud(path).colors is None
    with pytest.raises(PointCloudFileError, match=f"has no colours.*{note}"):
        SceneFolder(tmp_path, num_points=32, block=2.0, features="rgb")
    path.write_bytes(data.replace(b"scalar_probability", b"scalar_quality"))
    assert read_cloud(path).colors is not None
    last = len(data) - 9  # of the last point's blue, before its label and probability
    path.write_bytes(data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :])
    assert read_cloud(path).colors is not None


@pytest.mark.parametrize("place", ["classes.txt", "train/parts.txt", "train/pin/parts.txt"])
def test_names_of_labels_in_another_place_or_text_are_named(tmp_path, place):
    write_objects(tmp_path / "train", count=3)
    (root := write_objects(tmp_path / "test", count=3).parent).joinpath(place).write_text(
        "stick\nball\nnothing\nplate\n"
    )
    said = f"not read: {place}; names of labels are in parts.txt in the root"
    assert said in PartFolder(root, num_points=16).notes
    (root / "parts.txt").write_text("stick\nball\nnothing\nplate\n")
    assert said in PartFolder(root, num_points=16).notes
    (root / place).unlink()
    assert not any("not read" in note for note in PartFolder(root, num_points=16).notes)
