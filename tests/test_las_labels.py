"""The labels of a LAS: its classification, or extra bytes of such a name; none where no point was classified."""

from pathlib import Path

import numpy as np
import pytest

from pointnet.datasets import PointCloudFileError, SceneFolder
from pointnet.points.formats.contents import BLOCK
from pointnet.points.formats.las import NO_CLASS, UNCLASSIFIED
from pointnet.points.read import read_cloud
from tests.las_files import las_header, las_records, las_with
from tests.own_points import FLOOR, POLE, WALL, make_yard, save
from tests.whole_files import written


def test_extra_bytes_named_as_a_label_count_where_nothing_was_classified(tmp_path):
    wanted = np.arange(40) % 3 - 1.0
    classes, taken = np.arange(40) % 20, "{} taken as label, since the classification is the same everywhere"
    for name, column, its, labels, note in (
        ("label", wanted, np.zeros(40), wanted, taken.format("label")),
        ("scalar_Label", np.where(wanted < 0, np.nan, wanted), np.ones(40), wanted, taken.format("scalar_Label")),
        ("label", wanted, None, classes, "left out: label"),
        ("label", wanted + 0.5, np.full(40, 2.0), np.full(40, 2.0), "left out: label"),
        ("label", np.full(40, 3.0), np.full(40, 2.0), np.full(40, 2.0), "left out: label"),
        ("label", np.full(40, np.nan), np.full(40, 2.0), np.full(40, 2.0), "left out: label"),
        ("height", wanted, np.full(40, 2.0), np.full(40, 2.0), "left out: height"),
    ):
        path = written(tmp_path, "a.las", las_with({"time": np.zeros(40), name: column}, its))
        cloud = read_cloud(path)
        assert (cloud.labels.tolist(), cloud.notes[1:]) == (labels.tolist(), (note,))
        mapped = read_cloud(path, None, mapped=True, extras=("labels",))
        assert mapped.labels[:].tolist() == labels.tolist()
    many = np.repeat([np.nan, 2.0, 0.0], [3 * BLOCK, 9, 1])  # more than are read at a time have no label
    path = written(tmp_path, "a.las", las_with({"label": many}, np.zeros(len(many))))
    wanted = np.nan_to_num(many, nan=-1)
    assert np.array_equal(read_cloud(path).labels, wanted)
    mapped = read_cloud(path, None, mapped=True, extras=("labels",))
    assert np.array_equal(mapped.labels[:], wanted)
    assert mapped.labels[:9].tolist() == [-1] * 9


def test_labels_in_extra_bytes_that_are_not_taken_are_said_in_training(tmp_path):
    classes, other = np.arange(40) % 20, np.arange(40) % 3
    for columns, its, wanted in (
        ({"label": other}, None, "labels are those of classification; left out: label"),
        ({"scalar_Class": other + 0.5}, None, "labels are those of classification; left out: scalar_Class"),
        ({"label": other + 0.5}, np.full(40, 2), "labels are those of classification; left out: label"),
        ({"label": classes, "height": other}, None, None),
        ({"class": other, "label": other + 1}, np.ones(40), "labels are those of label; left out: class"),
        ({"class": other, "label": other}, np.ones(40), None),
    ):
        path = written(tmp_path, "a.las", las_with(columns, its))
        for mapped in (False, True):
            notes = read_cloud(path, mapped=mapped, extras=("labels",)).notes
            assert tuple(note for note in notes if "left out" in note) == ((wanted,) if wanted else ())
        assert read_cloud(path, extras=("intensity",)).notes == ()
    count = 3 * BLOCK
    one_differs = np.resize(classes, count)
    one_differs[-1] += 1
    path = written(tmp_path, "a.las", las_with({"label": one_differs}, np.resize(classes, count)))
    assert read_cloud(path, extras=("labels",)).notes == ("labels are those of classification; left out: label",)


def test_where_no_point_is_classified_there_are_no_labels(tmp_path):
    other = np.arange(40) % 3
    for columns, number, label in (
        ({"height": other}, 0, None),
        ({"label": other + 0.5}, 0, "label"),
        ({"label": other * 0}, 0, None),
        ({"height": other}, 1, None),
    ):
        path = written(tmp_path, "a.las", las_with(columns, np.full(40, 32 + number)))  # 32 is synthetic, no class
        for mapped in (False, True):
            cloud = read_cloud(path, mapped=mapped, extras=("labels",))
            assert cloud.labels is None
            assert cloud.notes == (UNCLASSIFIED.format(NO_CLASS[number]), *([f"left out: {label}"] if label else []))
        assert read_cloud(path, extras=("intensity",)).notes == ()
    classes = np.zeros(3 * BLOCK)
    classes[-1] = 2
    path = written(tmp_path, "a.las", las_with({"label": classes}, classes))
    assert read_cloud(path, extras=("labels",)).labels.tolist() == classes.tolist()


def write_tile(folder: Path, seed: int, is_classified: bool | np.ndarray) -> None:
    """A yard whose points have the class 0 where they are not classified."""
    rows = make_yard(seed, 4000)
    xyz, classes = np.rint(1000 * rows[:, :3]).astype(int), rows[:, 4].astype(int) * is_classified
    folder.mkdir(exist_ok=True)
    (folder / f"tile_{seed}.las").write_bytes(las_header(len(rows)) + las_records(xyz, xyz % 256, classes))


def test_points_of_tiles_that_nobody_classified_are_said_to_be_trained_until_a_text_says_otherwise(tmp_path):
    for seed in range(2):
        write_tile(tmp_path / "a", seed, np.arange(4000) % 2)
    data = SceneFolder(tmp_path / "a", block=2.0, test_fraction=0)
    assert data.part_names == tuple(map(str, (0, FLOOR, WALL, POLE)))
    none = "if it means that a point has none, write -1, or a line into classes.txt: '0 -'"
    assert f"trained like any other label: 0; {none}" in data.notes
    for text, names in (
        ("0 -\n", tuple(map(str, (FLOOR, WALL, POLE)))),
        (f"0 -\n{FLOOR} floor\n{WALL} wall\n{POLE} pole\n", ("floor", "wall", "pole")),
    ):
        (tmp_path / "a" / "classes.txt").write_text(text)
        data = SceneFolder(tmp_path / "a", block=2.0, test_fraction=0)
        assert (data.part_names, data.label_numbers) == (names, (FLOOR, WALL, POLE))
        assert not [note for note in data.notes if "trained like" in note]


def test_a_tile_that_nobody_classified_is_skipped_and_listed(tmp_path):
    for seed in range(3):
        write_tile(tmp_path / "some", seed, seed > 0)
        write_tile(tmp_path / "none", seed, False)
    why = f"({UNCLASSIFIED.format(NO_CLASS[0])})"
    data = SceneFolder(tmp_path / "some", block=2.0, test_fraction=0)
    assert data.label_numbers == (FLOOR, WALL, POLE)
    (error,) = data.bad
    assert str(error).startswith(f"{tmp_path / 'some' / 'tile_0.las'}: has no labels: ")
    assert str(error).endswith(why)
    with pytest.raises(PointCloudFileError) as caught:
        SceneFolder(tmp_path / "none", block=2.0, test_fraction=0)
    assert why in str(caught.value)
    save(tmp_path / "none" / "other.txt", np.delete(make_yard(9, 4000) * (1, 1, 1, 1, 0), 3, 1), "X Y Z Class")
    assert SceneFolder(tmp_path / "none", block=2.0, test_fraction=0).part_names == ("0",)  # in text 0 is a label
