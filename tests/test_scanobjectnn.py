"""ScanObjectNN from files in the published layout: which file, frame and normalisation."""

from pathlib import Path

import h5py
import pytest
import torch

from pointnet.datasets import DATASETS_OF, ScanObjectNN, open_dataset
from pointnet.datasets.scanobjectnn import SCANOBJECTNN
from tests.releases import write_scans


@pytest.fixture
def h5_files(tmp_path) -> Path:
    return write_scans(tmp_path)


def released(h5_files, folder, name, key="data"):
    with h5py.File(h5_files / folder / name) as file:
        return torch.from_numpy(file[key][()])


def test_its_classes_are_in_the_published_order():
    assert (
        *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door"),
        *("shelf", "table", "bed", "pillow", "sink", "sofa", "toilet"),
    ) == SCANOBJECTNN


@pytest.mark.parametrize(
    ("arguments", "folder", "name"),
    [
        ({}, "main_split", "training_objectdataset_augmentedrot_scale75.h5"),
        ({"split": "test"}, "main_split", "test_objectdataset_augmentedrot_scale75.h5"),
        ({"background": False}, "main_split_nobg", "training_objectdataset_augmentedrot_scale75.h5"),
        ({"variant": "objects"}, "main_split", "training_objectdataset.h5"),
        ({"variant": "objects", "background": False, "split": "test"}, "main_split_nobg", "test_objectdataset.h5"),
    ],
)
def test_each_variant_is_its_file_centred_in_the_unit_sphere_and_z_up(h5_files, arguments, folder, name):
    data = ScanObjectNN(h5_files, num_points=32, **arguments)
    points = released(h5_files, folder, name).double()
    points = points - points.mean(1, keepdim=True)
    x, y, z = (points / points.norm(dim=2).amax(1)[:, None, None]).unbind(2)
    assert torch.allclose(data.points.double(), torch.stack([x, -z, y], 1), atol=1e-5)
    assert data.points.dtype == torch.float32
    assert data.points.is_contiguous()
    assert torch.equal(data.labels, released(h5_files, folder, name, "label").long())
    assert data.classes == SCANOBJECTNN
    few = ScanObjectNN(h5_files, num_points=7, **arguments)
    assert torch.equal(few.points, data.points[:, :, :7])


def test_the_root_is_the_set_or_a_folder_around_it(h5_files):
    wanted = ScanObjectNN(h5_files, "test", 8).points
    assert torch.equal(ScanObjectNN(h5_files.parent, "test", 8).points, wanted)
    (h5_files.parent / "data" / "ScanObjectNN").mkdir(parents=True)
    moved = h5_files.rename(h5_files.parent / "data" / "ScanObjectNN" / "h5_files")
    assert torch.equal(open_dataset("scanobjectnn", moved.parents[1], "test", 8).points, wanted)
    moved.rename(moved.parents[1] / "mine")
    assert torch.equal(DATASETS_OF["classification"]["scanobjectnn"](moved.parents[1], "test", 8).points, wanted)
