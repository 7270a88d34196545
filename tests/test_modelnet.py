"""ModelNet from the public HDF5 layout: frame, order and forms."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pointnet.datasets import ModelNet, PointCloudFileError
from pointnet.datasets.folder import sample_file
from pointnet.datasets.modelnet import MODELNET10, MODELNET40, released_rows
from pointnet.datasets.releases import to_channels
from pointnet.points.read import read_hdf5
from tests.forms import forms
from tests.helpers import SAMPLES
from tests.releases import write_release


def test_it_reads_the_release_into_the_mesh_frame_and_the_canonical_order(tmp_path):
    folder = write_release(tmp_path)
    data = ModelNet(folder, num_points=5)
    assert len(data) == 6
    assert data.classes == MODELNET40
    assert [data.classes[label] for label in data.labels] == ["chair", "lamp", "sofa"] * 2
    with h5py.File(folder / "ply_data_train0.h5") as file:
        released = torch.from_numpy(file["data"][1, :5])
    points, label = data[1]
    assert points.shape == (3, 5)
    assert points.dtype == torch.float32
    assert isinstance(label, int)
    assert torch.equal(points, released[:, [0, 2, 1]].T)


def test_up_says_how_the_axes_are_read(tmp_path):
    folder = write_release(tmp_path)
    default, as_is, turned, down = (ModelNet(folder, num_points=8, up=up).points for up in (None, "z", "y", "-y"))
    assert torch.equal(default, as_is[:, [0, 2, 1]])
    assert torch.equal(turned[:, 2], as_is[:, 1])
    assert torch.equal(turned[:, 1], -as_is[:, 2])
    assert torch.equal(down, turned * torch.tensor([[1.0], [-1.0], [-1.0]]))
    assert torch.linalg.det(turned[0, :, :3]) == pytest.approx(torch.linalg.det(as_is[0, :, :3]).item(), rel=1e-4)


def test_the_root_is_the_folder_or_its_parent_and_the_split_as_released(tmp_path):
    folder = write_release(tmp_path)
    assert torch.equal(ModelNet(tmp_path, num_points=8).points, ModelNet(folder, num_points=8).points)
    assert len(ModelNet(tmp_path, "test", num_points=8)) == 3
    for split in ("train", "test"):
        (folder / f"{split}_files.txt").unlink()
    unlisted = ModelNet(tmp_path, "train", num_points=8)
    with h5py.File(folder / "ply_data_train0.h5") as file:
        assert torch.equal(unlisted.points[0], torch.from_numpy(file["data"][0])[:, [0, 2, 1]].T)
    assert len(unlisted) == 6
    renamed = folder.rename(tmp_path / "my copy")
    assert torch.equal(ModelNet(tmp_path, num_points=8).points, ModelNet(renamed, num_points=8).points)


def test_modelnet10_keeps_its_own_classes(tmp_path):
    folder = write_release(tmp_path)
    data = ModelNet(tmp_path, num_classes=10, num_points=8)
    assert data.classes == MODELNET10
    assert sorted({data.classes[label] for label in data.labels}) == ["chair", "sofa"]
    (folder / "shape_names.txt").write_text("lamp\ncup\ncar\n")
    with pytest.raises(PointCloudFileError, match="holds no shape of ModelNet10"):
        ModelNet(tmp_path, num_classes=10, num_points=8)


def test_the_real_set_has_its_published_order(real_modelnet):
    data = ModelNet(real_modelnet, "test")
    assert data.points.shape == (1231, 3, 1024)
    assert len(data.labels.unique()) == 40
    assert data.points.norm(dim=1).max() <= 1.001
    # Bottles, cones, persons and guitars stand along z, the library's up.
    for name in ("bottle", "person", "wardrobe", "door"):
        extent = np.ptp(data.points[data.labels == MODELNET40.index(name)].numpy(), axis=2).mean(0)
        assert extent.argmax() == 2, name


def nearest(points, others):
    """Mean distance from each of points (3, N) to the nearest of others (3, M)."""
    return torch.cdist(points.T, others.T).amin(1).mean().item()


MIRRORED = torch.tensor([[1.0], [-1.0], [1.0]])


@pytest.fixture
def samples(tmp_path) -> Path:
    """A copy, since caches are kept beside the data."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "samples"))


@pytest.mark.parametrize("split", forms(["train", "test"], "test"))
def test_the_three_forms_are_one_data_set(samples, split):
    hdf5, text, meshes = (ModelNet(samples, split, num_points=256, form=form) for form in ("hdf5", "text", "off"))
    order = torch.argsort(hdf5.labels, stable=True)
    assert hdf5.classes == text.classes == meshes.classes == MODELNET40
    assert torch.equal(hdf5.labels[order], meshes.labels)
    assert torch.equal(text.labels, hdf5.labels)
    ratios = []
    for i, j in enumerate(order.tolist()):
        assert torch.equal(text.points[j], hdf5.points[j].round(decimals=4)) or nearest(text[j][0], hdf5[j][0]) < 1e-3
        cloud, surface = hdf5[j][0], meshes.points[i]
        assert nearest(cloud, surface) < 0.04
        ratios.append(nearest(cloud * MIRRORED, surface) / nearest(cloud, surface))
    # A chair knows left from right as little as we do, so of all shapes some must tell a mirror image.
    assert max(ratios) > 2


def boxed(points):
    """(3, N) in the middle of its bounding box, which a different density of points leaves alone."""
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    return (2 * points - low - high) / (high - low).max()


def released(root: Path, name: str) -> torch.Tensor:
    """A shape of the HDF5 release, by its name, in the library's frame: (3, N)."""
    for listing in sorted(root.rglob("*_id2file.json")):
        names = [Path(file).stem for file in json.loads(listing.read_text())]
        if name in names:
            part = re.sub(r"_(\d)_id2file.json$", r"\1.h5", listing.name)
            (points,) = read_hdf5(listing.parent / part, {"data": None})
            return torch.from_numpy(to_channels(points[names.index(name)][None], None)[0])
    raise KeyError(name)


@pytest.mark.parametrize(
    "name",
    forms(
        ("person_0082 chair_0027 bed_0043 chair_0391 laptop_0061 bench_0011 toilet_0287 guitar_0084").split(),
        *("person_0082", "chair_0391"),
    ),
)
def test_the_real_forms_are_in_one_frame(real_modelnet, name):
    root = real_modelnet.parent
    found = [
        *root.glob(f"modelnet_off_samples/*/*/*/{name}.off"),
        *root.glob(f"modelnet40_normal_resampled_sample/*/*/{name}.txt"),
    ]
    if not found:
        pytest.skip(f"needs {name} in {root}")
    cloud = released(real_modelnet, name)
    other = sample_file(found[0], 8192)[0] if found[0].suffix == ".off" else released_rows(found[0], 8192, None, False)
    other = boxed(torch.from_numpy(other))
    right, mirrored, turned = (nearest(boxed(each), other) for each in (cloud, cloud * MIRRORED, cloud[[1, 0, 2]]))
    assert right < 0.05
    assert mirrored > 1.8 * right
    assert turned > 1.8 * right


def test_a_listing_leads_to_no_file_outside(samples):
    folder = samples / "modelnet40_normal_resampled"
    (folder / "chair" / "chair_").mkdir()
    (samples / "secret.txt").write_text("0 0 1 0 0 1\n")
    (folder / "modelnet40_train.txt").write_text("chair_/../../../secret\n")
    with pytest.raises(PointCloudFileError, match=r"must list '<class>_<number>', got 'chair_/\.\./"):
        ModelNet(folder, num_points=1)


def test_text_gives_the_first_rows_as_released_with_their_normals(samples):
    data = ModelNet(samples, "train", num_points=100, form="text", normals=True)
    assert data.points.shape == (16, 6, 100)
    rows = np.loadtxt(samples / "modelnet40_normal_resampled" / "chair" / "chair_0001.txt", delimiter=",")
    chair = data.points[(data.labels == MODELNET40.index("chair")).nonzero()[0, 0]]
    np.testing.assert_allclose(chair.T, rows[:100][:, [0, 2, 1, 3, 5, 4]], atol=1e-3)
    np.testing.assert_allclose(chair[:3].T, rows[:100][:, [0, 2, 1]], atol=1e-6)
    with pytest.raises(PointCloudFileError, match="has 256 points, fewer than num_points=257"):
        ModelNet(samples, num_points=257, form="text")
    (samples / "modelnet40_normal_resampled" / "chair" / "chair_0002.txt").unlink()
    with pytest.raises(PointCloudFileError, match=r"chair_0002.txt: no such file; 1 of 16 listed are missing"):
        ModelNet(samples, num_points=100, form="text")


def test_meshes_are_sampled_by_area_from_their_files_name(samples):
    data, again = (ModelNet(samples, "train", num_points=64, form="off", normals=True) for _ in range(2))
    assert torch.equal(data.points, again.points)
    assert data[0][0].shape == (6, 64)
    assert data.num_points == 64 < data.points.shape[2]
    path = samples / "ModelNet40" / "bottle" / "train" / "bottle_0001.off"
    assert path.read_text().startswith("OFF") and "\n" not in path.read_text()[:5]  # noqa: PT018
    np.testing.assert_array_equal(data.points[0], sample_file(path, data.points.shape[2], ("normals",))[0])
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n")
    with pytest.raises(PointCloudFileError, match=r"bottle_0001.off: a face names vertex 7"):
        ModelNet(samples, form="off")


def test_hdf5_gives_its_normals_where_it_has_some(tmp_path):
    folder = write_release(tmp_path)
    with pytest.raises(PointCloudFileError, match="has no data set 'normal'"):
        ModelNet(tmp_path, num_points=8, normals=True)
    for path in folder.glob("*.h5"):
        with h5py.File(path, "a") as file:
            file["normal"] = -file["data"][...]
    data = ModelNet(tmp_path, num_points=5, normals=True)
    assert torch.equal(data.points[:, 3:], -data.points[:, :3])
    assert torch.equal(data.points[:, :3], ModelNet(tmp_path, num_points=5).points)
