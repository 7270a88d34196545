"""The published data sets with every kind of damage in each of their layouts: each is one line that names the file."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointnet.datasets import S3DIS, MeshFolder, ModelNet, PointCloudFileError, ScanObjectNN, ShapeNetPart
from pointnet.datasets.s3dis import POINTS
from pointnet.datasets.shapes import Shapes
from pointnet.points.read import DatasetNotFoundError
from tests.helpers import LIST, listed, make_room, rows, write
from tests.releases import (
    edit_hdf5,
    write_hdf5_blocks,
    write_npy_rooms,
    write_own_parts,
    write_published_parts,
    write_release,
    write_scans,
    write_text_rooms,
)


def without(name: str):
    return lambda folder: (folder / name).unlink()


SHAPES = "ply_data_train1.h5"


def a_group(folder: Path) -> None:
    with h5py.File(folder / SHAPES, "r+") as file:
        del file["data"]
        file.create_group("data")


def claim(shape: tuple[int, ...], **settings):
    def change(folder: Path) -> None:
        with h5py.File(folder / SHAPES, "r+") as file:
            del file["data"]
            file.create_dataset("data", shape, "f8", **settings)

    return change


MODELNET = [
    (without(SHAPES), f"{SHAPES}: no such file"),
    (write(SHAPES, "404: not found"), f"{SHAPES}: is not a readable HDF5 file"),
    (write(SHAPES, "<html>404</html>"), f"{SHAPES}: is a web page, not the file"),
    (edit_hdf5(SHAPES, data=None), r"has no data set 'data'; it holds \['label'\]"),
    (edit_hdf5(SHAPES, data=np.zeros((3, 8, 2))), r"data set 'data' must be \(any, any, 3\), got \(3, 8, 2\)"),
    (edit_hdf5(SHAPES, label=np.zeros((4, 1), int)), "must have a label for each shape, got 3 and 4"),
    (edit_hdf5(SHAPES, label=np.array([[0], [1], [9]])), "labels must be whole numbers from 0 to 2, got 9"),
    (edit_hdf5(SHAPES, data=np.full((3, 8, 3), 1e39)), "shape 0 holds a number that is not finite"),
    (edit_hdf5(SHAPES, data=np.zeros((3, 4, 3), np.float32)), "has 4 points per shape, fewer than num_points=8"),
    (edit_hdf5(SHAPES, data=np.full((3, 8, 3), b"x")), "'data' must be a data set of numbers"),
    (edit_hdf5(SHAPES, data=h5py.Empty("f4")), "'data' must be a data set of numbers"),
    (a_group, "'data' must be a data set of numbers"),
    (edit_hdf5(SHAPES, data=h5py.ExternalLink("ply_data_train0.h5", "data")), "'data' is a link, which is not"),
    (claim((10**9, 1024, 3)), r"declares \(1000000000, 1024, 3\), more than the file holds"),
    (claim((10**10, 2048, 3), chunks=(1, 2048, 3), compression="gzip"), "more than the file holds"),
    (write("shape_names.txt", "chair\nlamp\nchari\n"), "'chari' is not a class"),
    (write("shape_names.txt", b"\xff\xff\xff"), "shape_names.txt: cannot be read"),
    (write("train_files.txt", ""), "train_files.txt: names no file"),
]

ROOM = "Area_5_office_1.npy"


def saved(array: np.ndarray, allow_pickle: bool = False):
    return lambda folder: np.save(folder / ROOM, array, allow_pickle=allow_pickle)


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


ROOMS = [
    (saved(np.array([{}]), allow_pickle=True), f"{ROOM}: holds Python objects, which are not loaded"),
    (saved(make_room()[:, :6]), f"{ROOM}: must have 7 numbers a row, got 6"),
    (saved(make_room()[:0]), f"{ROOM}: holds no points"),
    (put(4, 2, np.nan), f"{ROOM}: point 5 holds a number that is not finite"),
    (put(4, 0, -1001), "must be a room in metres, at most 1000 of them, got 100"),
    (put(4, 3, 256), "colours must be 0 to 255, got 0 to 256"),
    (put(4, 6, 13), "classes must be whole numbers from 0 to 12, got 13"),
    (put(4, 6, 2.5), "classes must be whole numbers from 0 to 12, got 2.5"),
    (sparse, "must cut into at most 2000 blocks, got"),
]

OBJECT = "Area_5/office_1/Annotations/chair_1.txt"


def no_objects(folder: Path) -> None:
    for path in (folder / OBJECT).parent.iterdir():
        path.unlink()


OBJECTS = [
    (no_objects, "Annotations: holds no text of an object"),
    (write(OBJECT, ""), "Annotations: chair_1.txt is empty"),
    (write(OBJECT, "1 2 3 4 5 6 7\n"), "Annotations: chair_1.txt must have 6 numbers a row, got 7"),
    (write(OBJECT, "1 2 3 4 5 six\n"), "chair_1.txt line 1 has 'six' in column 6, not a number"),
    (write(OBJECT, "1 2 3 4 5 666\n"), "Annotations: .*colours must be 0 to 255, got 0 to 666"),
    (write(OBJECT, "1 2 inf 4 5 6\n"), "Annotations: .*point 1 holds a number that is not finite"),
]

CUT = "ply_data_all_2.h5"
LABELS = np.zeros((2, POINTS))

BLOCKS = [
    (without(CUT), f"{CUT}: cannot be read: No such file"),
    (write("room_filelist.txt", "Area_5_office_1\n" * 10), "room_filelist.txt: must name the room of each of 11 blo"),
    (write("all_files.txt", ""), "all_files.txt: names no file"),
    (edit_hdf5(CUT, data=np.full((2, POINTS, 9), 1e39)), f"{CUT}: block 0 holds a number that is not finite"),
    (edit_hdf5(CUT, data=np.zeros((2, 9, 9))), rf"{CUT}: data set 'data' must be \(any, 4096, 9\), got \(2, 9, 9\)"),
    (edit_hdf5(CUT, label=np.zeros((3, POINTS), int)), f"{CUT}: must have labels for each block, got 2 and 3"),
    (edit_hdf5(CUT, label=LABELS.astype(int) + 13), "labels must be whole numbers from 0 to 12, got 13"),
    (edit_hdf5(CUT, label=LABELS + 0.5), "labels must be whole numbers from 0 to 12, got 0.5"),
    (edit_hdf5(CUT, label=h5py.ExternalLink("ply_data_all_0.h5", "label")), "'label' is a link, which is not followed"),
]

SHAPE = "01/train0.txt"
NAMES = "synsetoffset2category.txt"
WHOLE = "parts must be whole numbers from 0 to 9999"

PART_TEXTS = [
    (without(SHAPE), f"{SHAPE}: no such file; 1 of 6 listed are missing"),
    (write(SHAPE, ""), f"{SHAPE}: is empty"),
    (write(SHAPE, "1 2 3 0 5\n"), f"{SHAPE}: must have 7 or 4 numbers a row, got 5"),
    (write(SHAPE, "1 2 3 0 0 1 leg\n"), f"{SHAPE}: line 1 has 'leg' in column 7, not a number"),
    (write(SHAPE, "1 2 3 0 0 1 0\n1 nan 3 0 0 1 0\n"), f"{SHAPE}: row 2 holds a number that is not finite"),
    (write(SHAPE, "1 2 3 0 0 1 1.5\n"), f"{SHAPE}: {WHOLE}, got 1.5"),
    (write(SHAPE, "1e308 2 3 0 0 1 0\n-1e308 2 3 0 0 1 0\n"), f"{SHAPE}: is too wide to scale"),
    (write(SHAPE, "1 2 3 0 0 1 0\n" * 9), f"{SHAPE}: has no extent"),
    (write(NAMES, "Tree\n"), f"{NAMES}: each line must name a category and its folder, .*, got 'Tree'"),
    (write(NAMES, "Tree ../01\n"), f"{NAMES}: each line must name a category and its folder"),
    (write(NAMES, "Tree 01\nBench 01\n"), f"{NAMES}: each line must name a category and its folder, neither"),
    (write(NAMES, b"\xff\xff"), f"{NAMES}: cannot be read"),
    (write(NAMES, "Bush 03\n"), "its train split holds no shape"),
    (without(LIST), f"{LIST}: cannot be read: .*No such file"),
    (write(LIST, "[" * 100_000), f"{LIST}: cannot be read"),
    (listed(), "its train split holds no shape"),
    (listed(3), f"{LIST}: must list 'shape_data/<folder>/<shape>', got '3'"),
    (listed("shape_data/01/.."), f"{LIST}: must list 'shape_data/<folder>/<shape>', got 'shape_data/01/..'"),
    (listed("shape_data/01/..\\..\\a"), f"{LIST}: must list"),
    (write("parts.json", "[]"), "parts.json: must hold the parts of each category and their labels"),
    (write("parts.json", '{"Tree": {"crown": 0}}'), "parts.json: names no part of 'Park bench'"),
    (write("parts.json", '{"Tree": {"crown": true}}'), "labels must be whole .*, got 'True' for 'crown'"),
    (write("parts.json", '{"Tree": {"crown": 0}, "Park bench": {"seat": 1}}'), "/02/.*txt: .* from 0 to 1, got 2"),
]

IDS = np.zeros((32, 32))

PART_HDF5 = [
    (without(SHAPES), f"{SHAPES}: no such file"),
    (write("train_hdf5_file_list.txt", ""), "train_hdf5_file_list.txt: names no file"),
    (edit_hdf5(SHAPES, pid=IDS[:, 1:]), r"data set 'pid' must be \(32, 32\), got \(32, 31\)"),
    (edit_hdf5(SHAPES, pid=IDS.astype(int) + 50), "'pid' must be whole numbers from 0 to 49, got 50"),
    (edit_hdf5(SHAPES, label=np.full((32, 1), 16)), "labels must be whole numbers from 0 to 15, got 16"),
    (edit_hdf5(SHAPES, data=np.zeros((32, 9, 3)), pid=IDS[:, :9]), "must have 32 points per shape, .*, got 9"),
    (edit_hdf5(SHAPES, pid=h5py.ExternalLink("ply_data_train0.h5", "pid")), "'pid' is a link, which is not followed"),
]

SCANS = "main_split/test_objectdataset.h5"
POINT = np.full((2, 32, 3), 5.0)
CLOUDS = np.random.default_rng(0).standard_normal((3, 32, 3))

SCANNED = [
    (without(SCANS), f"{SCANS}: no such file"),
    (edit_hdf5(SCANS, data=CLOUDS), f"{SCANS}: must have a label for each shape, got 3 and 5"),
    (edit_hdf5(SCANS, data=np.concatenate([CLOUDS, POINT])), f"{SCANS}: cloud 3 has no extent"),
    (edit_hdf5(SCANS, label=np.array([0, 1, 2, 3, 15])), "labels must be whole numbers from 0 to 14, got 15"),
]

# Layout -> what writes it into a folder, what reads it, and what is damaged in it.
LAYOUTS = {
    "modelnet": (write_release, lambda folder: ModelNet(folder, num_points=8), MODELNET),
    "rooms": (write_npy_rooms, lambda folder: S3DIS(folder, "test"), ROOMS),
    "objects": (write_text_rooms, lambda folder: S3DIS(folder, "test"), OBJECTS),
    "blocks": (write_hdf5_blocks, lambda folder: S3DIS(folder, "test"), BLOCKS),
    "part texts": (write_own_parts, lambda folder: ShapeNetPart(folder, "train", 8), PART_TEXTS),
    "part hdf5": (write_published_parts, lambda folder: ShapeNetPart(folder, "train", 8), PART_HDF5),
    "scans": (write_scans, lambda folder: ScanObjectNN(folder, "test", 8, variant="objects"), SCANNED),
}


@pytest.mark.parametrize(
    ("layout", "damage", "reason"), [(layout, *case) for layout, (*_, cases) in LAYOUTS.items() for case in cases]
)
def test_a_damaged_release_is_one_clear_line_with_the_path(tmp_path, layout, damage, reason):
    make, read, _ = LAYOUTS[layout]
    folder = make(tmp_path)
    damage(folder)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def test_a_list_of_shapes_leads_to_no_other_folder_even_where_the_file_is_there(tmp_path):
    own = write_own_parts(tmp_path)
    np.savetxt(tmp_path / "secret.txt", rows(9, [0]))
    os.symlink(tmp_path, own / "03")
    write(LIST, json.dumps(["shape_data/03/secret"]))(own)
    with pytest.raises(PointCloudFileError, match="holds no shape"):
        ShapeNetPart(own, "train", 8)


SETS = {
    ModelNet: "holds no ModelNet40: looked for",
    S3DIS: "holds no S3DIS: looked for indoor3d_sem_seg_hdf5_data/ or stan",
    ScanObjectNN: "holds no ScanObjectNN: .*form, https://hkust-vgd.github.io/scanobjectnn/$",
    ShapeNetPart: "holds no ShapeNetPart: looked for shapenetcore_partanno_segmentation_b",
    MeshFolder: r"holds no folder with files to read .*wanted root/<class>/<files>",
}


@pytest.mark.parametrize("kind", SETS)
def test_where_a_set_is_missing_the_error_says_what_was_looked_for(tmp_path, kind):
    for root, reason in ((tmp_path, SETS[kind]), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(DatasetNotFoundError, match=reason):
            kind(root)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (ModelNet, {"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        (ModelNet, {"num_classes": 20}, "num_classes must be one of 40, 10, got 20"),
        (ModelNet, {"form": "ply"}, "form must be one of None, 'hdf5', 'text', 'off', got 'ply'"),
        (ModelNet, {"up": "w"}, "up must be one of z, y, -y, x, -x, -z, got 'w'"),
        (ModelNet, {"num_points": 0}, "num_points must be at least 1, got 0"),
        (S3DIS, {"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        (S3DIS, {"form": "ply"}, "form must be one of None, 'hdf5', 'npy', 'text', got 'ply'"),
        (S3DIS, {"num_points": 4097}, "num_points must be 1 to 4,096, got 4097"),
        (ScanObjectNN, {"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        (ScanObjectNN, {"variant": "pb_t25"}, "variant must be one of 'objects', 'pb_t50_rs', got 'pb_t25'"),
        (ShapeNetPart, {"split": "valid"}, "split must be one of 'train', 'val', 'test', 'trainval', got 'valid'"),
        (ShapeNetPart, {"form": "ply"}, "form must be one of None, 'text', 'hdf5', got 'ply'"),
        (ShapeNetPart, {"num_points": 0}, "num_points must be at least 1, got 0"),
        (MeshFolder, {"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        (MeshFolder, {"num_points": 0}, "num_points must be 1 to 1,000,000, got 0"),
        (MeshFolder, {"test_fraction": 1}, r"test_fraction must be in \[0, 1\), got 1"),
        (Shapes, {"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        (Shapes, {"num_points": 2049}, "num_points must be 1 to 2,048, got 2049"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_and_nothing_is_made(tmp_path, kind, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(tmp_path, **arguments)
    assert not any(tmp_path.iterdir())
