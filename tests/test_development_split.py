"""The development split of ModelNet40, made from a small release."""

import json

import h5py
import numpy as np
import pytest

from pointnet.datasets import ModelNet
from pointnet.datasets.modelnet import HDF5_FOLDER, MODELNET40
from tests.helpers import SHARED_DATA, error_of
from tools import development_split


def write_release(root, *files: list[str]):
    """A release of 1,030 points a shape; the first coordinate is the shape's number."""
    folder, count = root / HDF5_FOLDER, 0
    folder.mkdir(parents=True)
    for number, names in enumerate(files):
        points = np.random.default_rng(number).random((len(names), 1030, 3), np.float32)
        points[:, 0, 0] = np.arange(count, count + len(names))
        count += len(names)
        labels = [[MODELNET40.index(name.rpartition("_")[0])] for name in names]
        with h5py.File(folder / f"ply_data_train{number}.h5", "w") as file:
            file["data"], file["label"], file["normal"] = points, np.array(labels, np.uint8), points
        listed = [f"{name.rpartition('_')[0]}/{name}.ply" for name in names]
        (folder / f"ply_data_train_{number}_id2file.json").write_text(json.dumps(listed))
    (folder / "train_files.txt").write_text("".join(f"data/{HDF5_FOLDER}/ply_data_train{i}.h5\n" for i in (0, 1)))
    return folder


def test_listed_shapes_are_the_test_split_and_all_others_are_for_training(tmp_path, capsys):
    listed = sorted(development_split.listed_names())
    others = [f"{name}_9999" for name in ("night_stand", "chair")]
    write_release(tmp_path / "data", [listed[0], others[0]], [others[1], listed[700], listed[-1]])
    words = ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "dev")]
    assert development_split.main(words) == 0
    assert capsys.readouterr().out.endswith("dev: 2 shapes to train on, 3 of the 1,231 test shapes\n")
    for split, numbers in (("train", [1, 2]), ("test", [0, 3, 4])):
        data = ModelNet(tmp_path / "dev", split=split)
        assert [int(points[0, 0]) for points, _ in data] == numbers
        names = [[listed[0], *others, listed[700], listed[-1]][i] for i in numbers]
        assert [data.classes[label] for _, label in data] == [name.rpartition("_")[0] for name in names]
        assert data[0][0].shape == (3, 1024)
    assert error_of(capsys, development_split.main, words).endswith("exists; delete it to make it again")


def test_a_list_of_another_length_is_refused_and_nothing_is_written(tmp_path, capsys):
    folder = write_release(tmp_path / "data", ["chair_0001", "bed_0002"], ["bed_0003"])
    (folder / "ply_data_train_0_id2file.json").write_text('["chair/chair_0001.ply"]')
    said = error_of(capsys, development_split.main, ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "dev")])
    assert said.endswith("ply_data_train_0_id2file.json: must name 2 shapes, got 1")
    assert not (tmp_path / "dev" / HDF5_FOLDER).exists()


def test_a_release_without_listed_shapes_is_refused(tmp_path, capsys):
    write_release(tmp_path / "data", ["chair_9998"], ["bed_9999"])
    said = error_of(capsys, development_split.main, ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "dev")])
    assert "holds no shape of the test split" in said


def test_the_listed_shapes_are_those_of_the_split_that_the_figures_are_of():
    listing = SHARED_DATA / "modelnet40_dev" / HDF5_FOLDER / "ply_data_test_0_id2file.json"
    if not listing.is_file():
        pytest.skip(f"needs {listing}")
    names = {file.rpartition("/")[2].removesuffix(".ply") for file in json.loads(listing.read_text())}
    assert names == development_split.listed_names()
    assert len(names) == 1231
