"""ScanObjectNN from files in the published layout: which file, frame, normalisation, masks, and what can be wrong."""

import h5py
import numpy as np
import pytest
import torch

from pointnet.datasets import DATASETS_OF, PointCloudFileError, ScanObjectNN, open_dataset
from pointnet.datasets.scanobjectnn import SCANOBJECTNN
from pointnet.points.read import DatasetNotFoundError
from tests.releases import edit_hdf5

NAMES = [
    f"{prefix}_objectdataset{suffix}.h5" for prefix in ("training", "test") for suffix in ("", "_augmentedrot_scale75")
]
COUNTS = {"training": 17, "test": 5}


@pytest.fixture
def h5_files(tmp_path):
    """The published layout, with 32 points a cloud, far from the origin and of many sizes."""
    generator = np.random.default_rng(0)
    for folder in ("main_split", "main_split_nobg"):
        (tmp_path / "h5_files" / folder).mkdir(parents=True)
        for name in NAMES:
            count = COUNTS[name.split("_")[0]]
            with h5py.File(tmp_path / "h5_files" / folder / name, "w") as file:
                points = generator.standard_normal((count, 32, 3)) * generator.uniform(0.1, 9, (count, 1, 1)) + 5
                file["data"] = points.astype(np.float32)
                file["label"] = (np.arange(count) % 15).astype(np.int32)
                file["mask"] = generator.integers(-1, 3, (count, 32)).astype(np.int32)
    return tmp_path / "h5_files"


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
    assert torch.equal(data.masks, released(h5_files, folder, name, "mask") >= 0)
    assert data.classes == SCANOBJECTNN
    assert data[16 % len(data)][0].shape == (3, 32)


def test_fewer_points_are_the_first_of_the_same_clouds(h5_files):
    whole, few = (ScanObjectNN(h5_files, "test", num_points) for num_points in (32, 7))
    assert torch.equal(few.points, whole.points[:, :, :7])
    assert torch.equal(few.masks, whole.masks[:, :7])


def test_the_root_is_the_set_or_a_folder_around_it(h5_files):
    wanted = ScanObjectNN(h5_files, "test", 8).points
    assert torch.equal(ScanObjectNN(h5_files.parent, "test", 8).points, wanted)
    (h5_files.parent / "data" / "ScanObjectNN").mkdir(parents=True)
    moved = h5_files.rename(h5_files.parent / "data" / "ScanObjectNN" / "h5_files")
    assert torch.equal(open_dataset("scanobjectnn", moved.parents[1], "test", 8).points, wanted)
    moved.rename(moved.parents[1] / "mine")
    assert torch.equal(DATASETS_OF["classification"]["scanobjectnn"](moved.parents[1], "test", 8).points, wanted)


def test_a_subset_keeps_its_masks(h5_files):
    data = ScanObjectNN(h5_files, "test", 8)
    part = data.subset(torch.tensor([3, 1]))
    assert torch.equal(part.masks, data.masks[[3, 1]])
    assert torch.equal(part.points, data.points[[3, 1]])
    assert len(data) == 5


def test_a_file_without_masks_has_none(h5_files):
    edit_hdf5(mask=None)(h5_files / "main_split" / "test_objectdataset.h5")
    data = ScanObjectNN(h5_files, "test", 8, variant="objects")
    assert data.masks is None
    assert data.subset(torch.tensor([0])).masks is None


def link_the_mask(path):
    with h5py.File(path, "r+") as file:
        del file["mask"]
        file["mask"] = h5py.ExternalLink("test_objectdataset_augmentedrot_scale75.h5", "mask")


POINTS = np.random.default_rng(0).standard_normal((5, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not a readable HDF5 file"),
        (edit_hdf5(data=None), "has no data set 'data'"),
        (edit_hdf5(data=POINTS[:, :4]), "has 4 points a shape, fewer than num_points=8"),
        (edit_hdf5(data=POINTS[:4]), "must have a label for each shape, got 4 and 5"),
        (edit_hdf5(data=POINTS * [[[np.nan]]]), "shape 0 has numbers that are not finite"),
        (edit_hdf5(data=np.concatenate([POINTS[:3], POINTS[3:] * 0 + 5])), "cloud 3 has no extent"),
        (edit_hdf5(label=np.array([0, 1, 2, 3, 15])), "labels must be 0 to 14, got 0 to 15"),
        (edit_hdf5(mask=np.zeros((4, 32), int)), r"data set 'mask' must be \(5, any\), got \(4, 32\)"),
        (edit_hdf5(mask=np.zeros((5, 4), int)), "'mask' has 4 points a cloud, fewer than 8"),
        (link_the_mask, "'mask' is a link, which is not followed"),
    ],
)
def test_a_damaged_file_is_one_clear_line_with_the_path(h5_files, damage, reason):
    path = h5_files / "main_split" / "test_objectdataset.h5"
    damage(path)
    with pytest.raises(PointCloudFileError, match=reason) as caught:
        ScanObjectNN(h5_files, "test", 8, variant="objects")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_where_it_is_missing_the_error_says_who_gives_it(tmp_path):
    for root, reason in ((tmp_path, "holds no ScanObjectNN"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(DatasetNotFoundError, match=f"{reason}.*form, https://hkust-vgd.github.io/scanobjectnn/$"):
            ScanObjectNN(root)


def test_wrong_arguments_are_one_clear_line(tmp_path):
    for arguments, message in (
        ({"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        ({"variant": "pb_t25"}, "variant must be one of 'objects', 'pb_t50_rs', got 'pb_t25'"),
        ({"num_points": 0}, "num_points must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ScanObjectNN(tmp_path, **arguments)
