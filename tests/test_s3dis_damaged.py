"""S3DIS with every kind of damage in each of its forms: each is one line that names the file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pointnet.datasets import S3DIS, PointCloudFileError
from pointnet.datasets.s3dis import POINTS
from tests.helpers import make_room
from tests.releases import edit_hdf5, write_hdf5_blocks, write_npy_rooms, write_text_rooms

BLOCKS = "ply_data_all_2.h5"


@pytest.fixture
def npy(tmp_path) -> Path:
    return write_npy_rooms(tmp_path)


@pytest.fixture
def text(tmp_path) -> Path:
    return write_text_rooms(tmp_path)


@pytest.fixture
def hdf5(tmp_path) -> Path:
    return write_hdf5_blocks(tmp_path)


ROOM = "Area_5_office_1.npy"


def saved(array, allow_pickle: bool = False):
    def change(folder: Path) -> None:
        np.save(folder / ROOM, array, allow_pickle=allow_pickle)

    return change


def put(row: int, column: int, value: float):
    room = make_room()
    room[row, column] = value
    return saved(room)


def sparse(folder: Path) -> None:
    """A room as wide as a town, with enough points in each of its blocks."""
    corners = np.stack(np.meshgrid(np.arange(60), np.arange(60)), 2).reshape(-1, 2)
    room = np.zeros((len(corners) * 100, 7), np.float32)
    room[:, :2] = np.repeat(corners, 100, 0) + 0.25
    np.save(folder / ROOM, room)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / ROOM).write_bytes(b""), "is empty"),
        (lambda folder: (folder / ROOM).write_bytes((folder / ROOM).read_bytes()[:-9]), "declares an array of"),
        (lambda folder: (folder / ROOM).write_bytes(b"PK\3\4" * 99), "is not a readable NPY file"),
        (saved(np.array([{}]), allow_pickle=True), "holds Python objects, which are not loaded"),
        (saved(make_room()[:, :6]), "must have 7 numbers a row, got 6"),
        (saved(make_room()[:0]), "holds no points"),
        (saved(np.zeros((9, 7), "U1")), "the array must be numbers, got <U1"),
        (put(4, 2, np.nan), "point 5 holds a number that is not finite"),
        (put(4, 2, 1e308), r"must be a room in metres, at most 1000 of them, got 1e\+308"),
        (put(4, 0, -1001), "must be a room in metres, at most 1000 of them, got 100"),
        (put(4, 3, 256), "colours must be 0 to 255, got 0 to 256"),
        (put(4, 5, -1), "colours must be 0 to 255, got -1 to"),
        (put(4, 6, 13), "classes must be whole numbers from 0 to 12, got 13"),
        (put(4, 6, 2.5), "classes must be whole numbers from 0 to 12, got 2.5"),
        (put(4, 6, -1), "classes must be whole numbers from 0 to 12, got -1"),
        (sparse, "must cut into at most 2000 blocks, got"),
    ],
)
def test_a_damaged_room_is_one_clear_line_with_the_path(npy, damage, reason):
    damage(npy)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        S3DIS(npy, "test")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{npy / ROOM}: ")


def write(content: bytes):
    def change(folder: Path) -> None:
        (folder / "chair_1.txt").write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no text of an object"),
        (write(b""), "chair_1.txt is empty"),
        (write(b"1 2 3 4 5 6 7\n"), "chair_1.txt must have 6 numbers a row, got 7"),
        (write(b"1 2 3 4 5 6\n1 2 3\n"), "chair_1.txt is not a table of numbers: the number of columns"),
        (write(b"1 2 3 4 5 six\n"), "chair_1.txt is not a table of numbers: could not convert"),
        (write(b"1 2 3 4 5 666\n"), "colours must be 0 to 255, got 0 to 666"),
        (write(b"1 2 inf 4 5 6\n"), "point 1 holds a number that is not finite"),
        (write(b"\x1a\x0b" * 500), "chair_1.txt is not a table of numbers"),
    ],
)
def test_a_damaged_object_is_one_clear_line_with_its_name(text, damage, reason):
    folder = text / "Area_5" / "office_1" / "Annotations"
    damage(folder)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        S3DIS(text, "test")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{folder}: ")


def claim(folder: Path) -> None:
    with h5py.File(folder / BLOCKS, "r+") as file:
        del file["data"]
        file.create_dataset("data", (10**9, POINTS, 9), "f4", chunks=(1, POINTS, 9), compression="gzip")


def link(folder: Path) -> None:
    with h5py.File(folder / BLOCKS, "r+") as file:
        del file["label"]
        file["label"] = h5py.ExternalLink("ply_data_all_0.h5", "label")


NAN = np.full((2, POINTS, 9), np.nan, np.float32)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / BLOCKS).unlink(), "all_2.h5: cannot be read: No such file"),
        (lambda folder: (folder / BLOCKS).write_bytes(b"<html>"), "all_2.h5: is not a readable HDF5 file"),
        (lambda folder: (folder / "room_filelist.txt").write_bytes(b"\xff"), "room_filelist.txt: cannot be read"),
        (
            lambda folder: (folder / "room_filelist.txt").write_text("Area_5_office_1\n" * 10),
            "room_filelist.txt: must name the room of each of 11 blocks, got 10",
        ),
        (lambda folder: (folder / "all_files.txt").write_text(""), "all_files.txt: names no file"),
        (edit_hdf5(BLOCKS, data=None), "all_2.h5: has no data set 'data'"),
        (edit_hdf5(BLOCKS, data=NAN), "all_2.h5: block 0 has numbers that are not finite"),
        (edit_hdf5(BLOCKS, data=np.full((2, POINTS, 9), 1e39)), "all_2.h5: block 0 has numbers that are not finite"),
        (edit_hdf5(BLOCKS, data=NAN[:, :9]), r"all_2.h5: data set 'data' must be \(any, 4096, 9\), got \(2, 9, 9\)"),
        (
            edit_hdf5(BLOCKS, data=NAN[:, :, :6]),
            r"all_2.h5: data set .data. must be .*, got \(2, 4096, 6\)",
        ),
        (edit_hdf5(BLOCKS, label=np.zeros((3, POINTS), int)), "all_2.h5: must have labels for each block, got 2 and 3"),
        (edit_hdf5(BLOCKS, label=np.full((2, POINTS), 13)), "labels must be whole numbers from 0 to 12, got 13"),
        (edit_hdf5(BLOCKS, label=np.full((2, POINTS), -1)), "labels must be whole numbers from 0 to 12, got -1"),
        (edit_hdf5(BLOCKS, label=np.full((2, POINTS), 0.5)), "labels must be whole numbers from 0 to 12, got 0.5"),
        (claim, "more than the file holds"),
        (link, "'label' is a link, which is not followed"),
    ],
)
def test_damaged_blocks_are_one_clear_line_with_the_path(hdf5, damage, reason):
    damage(hdf5)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        S3DIS(hdf5, "test")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(hdf5))
