"""ModelNet's HDF5 release with every kind of damage: each is one line that names the file."""

import h5py
import numpy as np
import pytest

from pointnet.datasets import ModelNet, PointCloudFileError
from tests.releases import edit_hdf5, write_release

FILE = "ply_data_train1.h5"


def truncate(folder):
    path = folder / FILE
    path.write_bytes(path.read_bytes()[:-600])


def not_hdf5(folder):
    (folder / FILE).write_text("<html>404</html>")


def link_elsewhere(folder):
    with h5py.File(folder / FILE, "r+") as file:
        del file["data"]
        file["data"] = h5py.ExternalLink("ply_data_train0.h5", "data")


def store_elsewhere(folder):
    with h5py.File(folder / FILE, "r+") as file:
        del file["data"]
        file.create_dataset("data", (3, 8, 3), "f4", external=[(folder / "secret", 0, 400)])


def link_within(folder):
    with h5py.File(folder / FILE, "r+") as file:
        file.move("data", "other")
        file["data"] = h5py.SoftLink("/other")


def made_of_others(folder):
    layout = h5py.VirtualLayout((3, 8, 3), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "ply_data_train0.h5"), "data", shape=(3, 8, 3))
    with h5py.File(folder / FILE, "r+") as file:
        del file["data"]
        file.create_virtual_dataset("data", layout)


def claim(shape, **settings):
    def change(folder):
        with h5py.File(folder / FILE, "r+") as file:
            del file["data"]
            file.create_dataset("data", shape, "f8", **settings)

    return change


def no_shape(folder):
    with h5py.File(folder / FILE, "r+") as file:
        del file["data"]
        file["data"] = h5py.Empty("f4")


def a_group(folder):
    with h5py.File(folder / FILE, "r+") as file:
        del file["data"]
        file.create_group("data")


NAN = np.full((3, 8, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / FILE).unlink(), "ply_data_train1.h5: no such file"),
        (not_hdf5, "ply_data_train1.h5: is not a readable HDF5 file"),
        (truncate, "ply_data_train1.h5: is not a readable HDF5 file"),
        (edit_hdf5(FILE, data=None), r"has no data set 'data'; it holds \['label'\]"),
        (edit_hdf5(FILE, label=None), "has no data set 'label'"),
        (edit_hdf5(FILE, data=np.zeros((3, 8, 2))), r"data set 'data' must be \(any, any, 3\), got \(3, 8, 2\)"),
        (edit_hdf5(FILE, label=np.zeros((4, 1), int)), "must have a label for each shape, got 3 and 4"),
        (edit_hdf5(FILE, label=np.full((3, 1), 1.7)), "labels must be integers, got float64"),
        (edit_hdf5(FILE, data=np.full((3, 8, 3), 1e39)), "shape 0 has numbers that are not finite"),
        (edit_hdf5(FILE, label=np.array([[0], [1], [9]])), "labels must be 0 to 2, got 0 to 9"),
        (edit_hdf5(FILE, data=NAN), "shape 0 has numbers that are not finite"),
        (edit_hdf5(FILE, data=np.zeros((3, 4, 3), np.float32)), "has 4 points a shape, fewer than num_points=8"),
        (edit_hdf5(FILE, data=np.full((3, 8, 3), b"x")), "'data' must be a data set of numbers"),
        (a_group, "'data' must be a data set of numbers"),
        (no_shape, "'data' must be a data set of numbers"),
        (link_elsewhere, "'data' is a link, which is not followed"),
        (link_within, "'data' is a link, which is not followed"),
        (made_of_others, "stored in other files"),
        (store_elsewhere, "stored in other files"),
        (claim((10**9, 1024, 3)), r"declares \(1000000000, 1024, 3\), more than the file holds"),
        (claim((10**10, 2048, 3), chunks=(1, 2048, 3), compression="gzip"), "more than the file holds"),
        (claim((300, 8, 150000), chunks=(1, 8, 1000), compression="gzip"), r"must be \(any, any, 3\)"),
        (lambda folder: (folder / "shape_names.txt").write_text("chair\nlamp\nchari\n"), "'chari' is not a class"),
        (lambda folder: (folder / "shape_names.txt").write_bytes(b"\xff\xfe\xff"), "shape_names.txt: cannot be read"),
        (lambda folder: (folder / "train_files.txt").write_text(""), "train_files.txt: names no file"),
    ],
)
def test_a_damaged_release_is_one_clear_line_with_the_path(tmp_path, damage, reason):
    folder = write_release(tmp_path)
    damage(folder)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        ModelNet(tmp_path, num_points=8)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def test_a_folder_without_the_set_is_one_clear_line(tmp_path):
    with pytest.raises(PointCloudFileError, match="holds no ModelNet40: looked for"):
        ModelNet(tmp_path)
    with pytest.raises(PointCloudFileError, match="no such folder"):
        ModelNet(tmp_path / "nowhere")
    write_release(tmp_path, names=["lamp"])
    with pytest.raises(PointCloudFileError, match="holds no shape of ModelNet10"):
        ModelNet(tmp_path, num_classes=10, num_points=8)
