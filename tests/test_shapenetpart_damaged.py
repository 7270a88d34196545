"""ShapeNetPart with every kind of damage in both of its layouts: each is one line that names the file."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointnet.datasets import PointCloudFileError, ShapeNetPart
from pointnet.datasets.shapenetpart import PUBLISHED
from tests.helpers import LIST, OWN, listed, rows, write, write_text
from tests.releases import PUBLISHED_LABELS, edit_hdf5, write_hdf5_parts

FILE = "ply_data_train1.h5"


@pytest.fixture
def hdf5(tmp_path) -> Path:
    return write_hdf5_parts(tmp_path, PUBLISHED, PUBLISHED_LABELS)


@pytest.fixture
def own(tmp_path) -> Path:
    return write_text(tmp_path, OWN, {"Tree": [0, 1], "Park bench": [0, 1, 2]})


SHAPE = "01/train0.txt"
NAMES = "synsetoffset2category.txt"


def put(row: int, column: int, value: str, name: str = SHAPE):
    def change(folder: Path) -> None:
        lines = [line.split() for line in (folder / name).read_text().splitlines()]
        lines[row][column] = value
        (folder / name).write_text("\n".join(" ".join(line) for line in lines))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / SHAPE).unlink(), r"01/train0.txt: no such file; 1 of 6 listed are missing"),
        (write(SHAPE, ""), "01/train0.txt: is empty"),
        (write(SHAPE, "\n \n"), "01/train0.txt: holds no points"),
        (write(SHAPE, "1 2 3 0\n"), "01/train0.txt: must have 7 numbers a row, got 4"),
        (write(SHAPE, "1 2 3 0 0 1 0\n1 2 3\n"), "01/train0.txt: is not a table of numbers: the number of columns"),
        (write(SHAPE, "1 2 3 0 0 1 leg\n"), "01/train0.txt: is not a table of numbers: could not convert"),
        (write(SHAPE, b"\x93NUMPY\0\1"), "01/train0.txt: is not a table"),
        (put(4, 1, "nan"), "01/train0.txt: row 5 holds a number that is not finite"),
        (put(39, 5, "-inf"), "01/train0.txt: row 40 holds a number that is not finite"),
        (put(4, 6, "1.5"), "01/train0.txt: parts must be whole numbers from 0 to 9999, got 1.5"),
        (put(4, 6, "-1"), "01/train0.txt: parts must be whole numbers from 0 to 9999, got -1"),
        (put(4, 6, "1e300"), r"01/train0.txt: parts must be whole numbers from 0 to 9999, got 1e\+300"),
        (put(4, 0, "1e308"), "01/train0.txt: is too wide to scale"),
        (write(SHAPE, "1 2 3 0 0 1 0\n" * 9), "01/train0.txt: has no extent"),
        (write(NAMES, "Tree\n"), f"{NAMES}: each line must name a category and its folder, .*, got 'Tree'"),
        (write(NAMES, "Tree ../01\n"), f"{NAMES}: each line must name a category and its folder"),
        (write(NAMES, "Tree /\n"), f"{NAMES}: each line must name a category and its folder"),
        (write(NAMES, "Tree 01\nTree 02\n"), f"{NAMES}: each line must name a category and its folder, neither of"),
        (write(NAMES, "Tree 01\nBench 01\n"), f"{NAMES}: each line must name a category and its folder, neither"),
        (write(NAMES, "\n\n"), f"{NAMES}: names no category"),
        (write(NAMES, b"\xff\xfe"), f"{NAMES}: cannot be read"),
        (write(NAMES, "Bush 03\n"), "its train split holds no shape"),
        (lambda folder: (folder / LIST).unlink(), f"{LIST}: cannot be read: .*No such file"),
        (write(LIST, "[1,"), f"{LIST}: cannot be read"),
        (write(LIST, "[" * 100_000), f"{LIST}: cannot be read"),
        (write(LIST, '{"a": 1}'), f"{LIST}: must be a list of shapes"),
        (listed(), "its train split holds no shape"),
        (listed(3), f"{LIST}: must list 'shape_data/<folder>/<shape>', got '3'"),
        (listed("train0"), f"{LIST}: must list 'shape_data/<folder>/<shape>', got 'train0'"),
        (listed("shape_data/01/.."), f"{LIST}: must list 'shape_data/<folder>/<shape>', got 'shape_data/01/..'"),
        (listed("shape_data/../.."), f"{LIST}: must list"),
        (listed("shape_data/01/a\0b"), f"{LIST}: must list"),
        (listed("shape_data/01/..\\..\\a"), f"{LIST}: must list"),
        (write("parts.json", "[]"), "parts.json: must hold the parts of each category and their labels"),
        (write("parts.json", '{"Tree": 3}'), "parts.json: must hold the parts of each category and their labels"),
        (write("parts.json", '{"Tree": {"crown": 0}}'), "parts.json: names no part of 'Park bench'"),
        (write("parts.json", '{"Tree": {"crown": -1}}'), "labels must be whole numbers from 0 to 9999, got '-1' for"),
        (write("parts.json", '{"Tree": {"crown": true}}'), "labels must be whole .*, got 'True' for 'crown'"),
        (write("parts.json", '{"Tree": {"crown": 1e9}}'), "parts.json: labels must be whole numbers"),
        (
            write("parts.json", '{"Tree": {"crown": 0}, "Park bench": {"seat": 1}}'),
            "/02/.*txt: parts must be whole numbers from 0 to 1, got 2",
        ),
    ],
)  # fmt: skip
def test_a_damaged_text_release_is_one_clear_line_with_the_path(own, damage, reason):
    damage(own)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        ShapeNetPart(own, "train", 8)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(own))


def link_the_parts(folder: Path) -> None:
    with h5py.File(folder / "ply_data_train1.h5", "r+") as file:
        del file["pid"]
        file["pid"] = h5py.ExternalLink("ply_data_train0.h5", "pid")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "ply_data_train1.h5").unlink(), "train1.h5: no such file"),
        (write("train_hdf5_file_list.txt", ""), "train_hdf5_file_list.txt: names no file"),
        (edit_hdf5(FILE, pid=None), "train1.h5: has no data set 'pid'"),
        (edit_hdf5(FILE, pid=np.zeros((32, 31), int)), r"data set 'pid' must be \(32, 32\), got \(32, 31\)"),
        (edit_hdf5(FILE, pid=np.full((32, 32), 50)), "'pid' must be whole numbers from 0 to 49, got 50"),
        (edit_hdf5(FILE, pid=np.full((32, 32), -1)), "'pid' must be whole numbers from 0 to 49, got -1"),
        (edit_hdf5(FILE, pid=np.full((32, 32), 0.5)), "'pid' must be whole numbers from 0 to 49, got 0.5"),
        (edit_hdf5(FILE, label=np.full((32, 1), 16)), "labels must be 0 to 15, got 16 to 16"),
        (edit_hdf5(FILE, data=np.zeros((32, 4, 3)), pid=np.zeros((32, 4), int)), "has 4 points a shape, fewer"),
        (
            edit_hdf5(FILE, data=np.zeros((32, 9, 3)), pid=np.zeros((32, 9), int)),
            "must have 32 points a shape, as the others have, got 9",
        ),
        (edit_hdf5(FILE, data=np.full((32, 32, 3), np.nan)), "shape 0 has numbers that are not finite"),
        (link_the_parts, "'pid' is a link, which is not followed"),
    ],
)  # fmt: skip
def test_a_damaged_hdf5_release_is_one_clear_line_with_the_path(hdf5, damage, reason):
    damage(hdf5)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        ShapeNetPart(hdf5, "train", 8)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(hdf5))


def test_hdf5_has_no_normals(hdf5):
    with pytest.raises(PointCloudFileError, match="has no data set 'normal'"):
        ShapeNetPart(hdf5, "train", 8, normals=True)


def test_a_list_leads_to_no_other_folder(own, tmp_path):
    """Even where the file is there."""
    np.savetxt(tmp_path / "secret.txt", rows(9, [0]))
    os.symlink(tmp_path, own / "03")
    write(LIST, json.dumps(["shape_data/03/secret"]))(own)
    with pytest.raises(PointCloudFileError, match="holds no shape"):
        ShapeNetPart(own, "train", 8)
