"""What holds of the embedded data set."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh.sample

from pointnet.datasets import (
    LabelledPoints,
    MeshFolder,
    PointCloudFileError,
    open_dataset,
    shapes,
    split_parts,
    split_validation,
)
from pointnet.datasets.modelnet import MODELNET40
from pointnet.datasets.shape_classes import BUILDERS, make_shape
from pointnet.datasets.shapes import Shapes, shape_parts
from pointnet.datasets.solids import box, join
from tests.forms import forms
from tests.own_points import make_object, save

MANY = {"train": 12, "test": 6}  # shapes per class that are enough here; a shape does not depend on how many are made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "COUNTS", MANY)
        yield tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def train(root: Path) -> Shapes:
    return Shapes(root, "train", 2048)


@pytest.fixture(scope="module")
def test(root: Path) -> Shapes:
    return Shapes(root, "test", 2048)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape per class, for tests that have the set made anew."""
    monkeypatch.setattr(shapes, "COUNTS", {"train": 1, "test": 1})


@pytest.mark.slow
def test_every_class_has_as_many_and_is_one_of_modelnet40(train: Shapes, test: Shapes):
    for data, count in ((train, 12), (test, 6)):
        assert data.labels.bincount().tolist() == [count] * 16
        assert list(data.classes) == sorted(data.classes)
        assert set(data.classes) <= set(MODELNET40)


@pytest.mark.usefixtures("few")
def test_the_clouds_are_the_same_on_every_machine(tmp_path: Path):
    """To four digits: the last bits are the machine's, and models that were trained on the set need no more."""
    data = Shapes(tmp_path, "test", 2048)
    found = data.points[:, 0, 7].sum(), data.points[:, 2].std(), data.points[3, 1, 1]
    np.testing.assert_allclose(found, (1.9410, 0.3967, -0.1848), atol=2e-4)
    assert abs(int(data.parts.sum()) - 747_526) < 100


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_shape_does_not_depend_on_how_many_are_made(test: Shapes, tmp_path: Path):
    one = Shapes(tmp_path, "test", 2048)
    assert torch.equal(one.points, test.points.unflatten(0, (16, 6))[:, 0])


@pytest.mark.usefixtures("few")
def test_generation_leaves_global_randomness_alone(tmp_path: Path):
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    Shapes(tmp_path, "test")
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize("count", [1, 2, 257, 1000])
def test_a_smaller_set_is_the_start_of_a_larger_one(root: Path, test: Shapes, count: int):
    fewer = Shapes(root, "test", count)
    assert torch.equal(fewer.points, test.points[:, :, :count])
    assert torch.equal(fewer.parts, test.parts[:, :count])


def test_the_first_points_are_a_fair_sample(test: Shapes):
    """Each half of the points has the same mean, as near as chance allows."""
    first, second = test.points[:, :, :1024], test.points[:, :, 1024:]
    error = first.std(-1) * (2 / 1024) ** 0.5
    assert ((first.mean(-1) - second.mean(-1)).abs() < 5 * error).all()


def test_no_two_clouds_are_alike(train: Shapes, test: Shapes):
    clouds = torch.cat([train.points, test.points]).flatten(1)
    assert len({row.tobytes() for row in clouds.numpy()}) == len(clouds)


def test_clouds_are_centred_and_reach_the_unit_sphere(train: Shapes):
    assert train.points.isfinite().all()
    torch.testing.assert_close(train.points.mean(-1), torch.zeros(len(train), 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.points.norm(dim=1).amax(-1), torch.ones(len(train)))


def test_parts_belong_to_the_class_of_their_cloud(train: Shapes):
    assert len(set(train.part_names)) == len(train.part_names)
    owners = torch.tensor([train.classes.index(name.split("/")[0]) for name in train.part_names])
    assert torch.equal(owners[train.parts], train.labels[:, None].expand_as(train.parts))


def test_every_part_is_met_and_optional_ones_are_at_times_absent(train: Shapes):
    present = torch.zeros(len(train), len(train.part_names)).scatter_(1, train.parts, 1).sum(0)
    assert present.min() > 0
    assert present[train.part_names.index("chair/seat")] == 12
    assert 0 < present[train.part_names.index("chair/arm")] < 12


def test_z_is_up(train: Shapes):
    above = [("chair/back", "chair/seat"), ("chair/seat", "chair/leg"), ("table/top", "table/leg")]
    above += [("lamp/shade", "lamp/base"), ("stool/seat", "stool/leg"), ("desk/top", "desk/leg")]
    for upper, lower in above:
        label = train.classes.index(upper.split("/")[0])
        for index in (train.labels == label).nonzero().flatten().tolist():
            z, parts = train.points[index, 2], train.parts[index]
            high, low = (z[parts == train.part_names.index(part)] for part in (upper, lower))
            assert not len(low) or high.mean() > low.mean(), (upper, lower, index)


def solid_angles(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """How often closed surfaces enclose points, by the angles that their triangles fill: (n, 3), (F, 3, 3) -> (n,)."""
    a, b, c = (triangles[None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(side, axis=2) for side in (a, b, c))
    volume = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
    spread = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
    return 2 * np.arctan2(volume, spread).sum(1) / (4 * np.pi)


@pytest.mark.parametrize("name", BUILDERS)
def test_points_within_a_solid_are_told_from_those_without(name: str):
    mesh, parts = make_shape(name, np.random.default_rng(5))
    rng = np.random.default_rng(0)
    points = rng.uniform(*mesh.bounds, (300, 3))
    for part in np.unique(parts):
        triangles = np.asarray(mesh.triangles[parts == part])
        np.testing.assert_array_equal(shapes.inside(points, triangles), solid_angles(points, triangles) > 0.5)


def test_a_point_where_parts_meet_is_of_the_last_of_them():
    """A slab on a block: their common face, of both, is the slab's; so is what of the block reaches into it."""
    block, slab = box(1, 1, 1), box(2, 2, 0.2, at=(0, 0, 0.9))
    mesh = join([block, slab])
    parts = np.repeat([3, 5], 12)
    points, faces = trimesh.sample.sample_surface(mesh, 4000, seed=0)
    found = shapes.parts_at(np.asarray(points), faces, mesh, parts)
    height = np.asarray(points)[:, 2]
    of_block = faces < 12
    assert (found[~of_block] == 5).all()
    np.testing.assert_array_equal(found[of_block], np.where(height[of_block] > 0.9, 5, 3))
    flush = join([block, box(0.5, 0.5, 0.3, at=(0, 0, 0.7))])
    points, faces = trimesh.sample.sample_surface(flush, 4000, seed=0)
    x, y, z = np.asarray(points).T
    found = shapes.parts_at(np.asarray(points), faces, flush, parts)
    np.testing.assert_array_equal(found == 5, (np.abs(x) < 0.25 + 1e-6) & (np.abs(y) < 0.25 + 1e-6) & (z > 0.7 - 1e-6))


def test_a_set_of_parts_is_the_same_shapes_with_all_their_points(root: Path, test: Shapes):
    data = shape_parts(root, "test", 512)
    assert isinstance(data, LabelledPoints)
    points, parts, label = data[77]
    assert torch.equal(points, test.points[77, :, :512])
    assert torch.equal(parts, test.parts[77, :512])
    assert label == test.labels[77]
    assert split_parts(data.batch(slice(None))[0])[2].all()
    assert data.part_names == test.part_names
    owners = [name.split("/")[0] for name in data.part_names]
    assert data.parts_of.tolist() == [[owner == name for owner in owners] for name in data.classes]
    assert torch.equal(open_dataset("shapes", root, "test", 512, task="part").parts, data.parts)


def test_meshes_are_closed_and_face_outwards():
    for name, recipe in BUILDERS.items():
        for index in range(5):
            for part, mesh in recipe(np.random.default_rng(index)):
                assert mesh.is_watertight, (name, part)
                assert mesh.volume > 0, (name, part)


def test_a_subset_keeps_its_parts(test: Shapes):
    indices = torch.tensor([95, 0, 7])
    chosen = test.subset(indices)
    assert torch.equal(chosen.points, test.points[indices])
    assert torch.equal(chosen.labels, test.labels[indices])
    assert torch.equal(chosen.parts, test.parts[indices])
    assert all(isinstance(part, Shapes) for part in split_validation(test, seed=0))


@pytest.mark.usefixtures("few")
def test_a_whole_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = Shapes(tmp_path, "test")
    monkeypatch.setattr(shapes, "_generate", None)
    cached = Shapes(tmp_path, "test")
    for name in ("points", "labels", "parts"):
        assert torch.equal(getattr(cached, name), getattr(whole, name))


def saved(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "with another bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "no archive": lambda content: b"not an archive" + content[14:],
    "of other arrays": lambda content: saved(points=np.zeros((2, 3, 4))),
    "of Python objects": lambda content: saved(points=np.zeros(3), parts=np.array([{}], dtype=object)),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", forms(DAMAGE, "cut short", "with another bit"))
def test_a_damaged_cache_is_made_again(tmp_path: Path, name):
    whole = Shapes(tmp_path, "test")
    (path,) = (tmp_path / "shapes").iterdir()
    content = path.read_bytes()
    path.write_bytes(DAMAGE[name](content))
    assert torch.equal(Shapes(tmp_path, "test").points, whole.points)
    assert path.read_bytes() == content


@pytest.mark.usefixtures("few")
def test_a_root_that_cannot_be_written_does_no_harm(tmp_path: Path):
    root = tmp_path / "file"
    root.write_text("in the way")
    assert len(Shapes(root, "test")) == 16
    assert root.read_text() == "in the way"


# Where it is made.


@pytest.mark.parametrize(("task", "own"), [("classification", "folder"), ("part", "parts"), ("scene", "scenes")])
@pytest.mark.parametrize("within", ["", "pin", "pin/train", "test/pin"])
def test_no_data_set_is_made_among_files_of_ones_own_and_theirs_is_named(tmp_path: Path, task, own, within):
    save(tmp_path / within / "1.txt", make_object("pin", 1))
    there, name = sorted(tmp_path.rglob("*")), "s3dis" if task == "scene" else "shapes"
    way = " from a folder for each class" if (task, within) == ("classification", "") else ""
    with pytest.raises(
        PointCloudFileError, match=rf"holds .*; --dataset {own} reads files such as {within}/?1\.txt{way}$"
    ):
        open_dataset(name, tmp_path, "train", 64, task=task)
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.usefixtures("few")
def test_the_default_root_and_the_folders_of_releases_may_hold_other_files(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("data/pin/1.txt"), make_object("pin", 1))
    save(Path("sets/stanford_indoor3d/Area_1_hall.npy"), make_object("pin", 1))
    for root in ("data", Path("data").resolve(), "sets/../data", "sets"):
        assert len(open_dataset("shapes", root, "test", 64)) == 16
    save(Path("packed/train/samples.npy"), make_object("pin", 1))
    Path("packed/train/index.json").write_text("{}")
    with pytest.raises(PointCloudFileError, match="; --dataset packed reads the packed set in it$"):
        open_dataset("shapes", "packed", "test", 64)


@pytest.mark.usefixtures("few")
def test_beside_files_of_ones_own_it_is_opened_where_it_was_made_and_is_no_class(tmp_path: Path):
    Shapes(tmp_path, "test")
    save(tmp_path / "pin" / "1.txt", make_object("pin", 1)[:, :3])
    assert len(open_dataset("shapes", tmp_path, "test", 64)) == 16
    data = MeshFolder(tmp_path, num_points=16, test_fraction=0)
    assert data.classes == ("pin",)
    (error,) = data.bad
    assert error.path.parent == tmp_path / "shapes"
    assert error.reason == "not read: of the data set shapes, which the library makes"
