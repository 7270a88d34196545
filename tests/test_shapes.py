"""What holds of the embedded data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pointnet.datasets import LabelledClouds, shapes, split_validation
from pointnet.datasets.modelnet import MODELNET40
from pointnet.datasets.shapes import Shapes, make_shape


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def train(root: Path) -> Shapes:
    return Shapes(root, "train", 2048)


@pytest.fixture(scope="module")
def test(root: Path) -> Shapes:
    return Shapes(root, "test", 2048)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shapes a class, for tests that have the set made anew."""
    monkeypatch.setattr(shapes, "COUNTS", {"train": 2, "test": 2})


def heights(data: Shapes, index: int, part: str) -> Tensor:
    """z of the points of one cloud that lie on a part."""
    return data.points[index, 2, data.parts[index] == data.part_names.index(part)]


def test_it_is_labelled_clouds_with_parts(train: Shapes):
    assert isinstance(train, LabelledClouds)
    points, label = train[5]
    assert points.shape == (3, 2048)
    assert points.dtype == torch.float32
    assert label == 0
    assert train.parts.shape == (len(train), 2048)
    assert train.parts.dtype == torch.int64


def test_every_class_has_as_many_and_is_one_of_modelnet40(train: Shapes, test: Shapes):
    for data, count in ((train, 80), (test, 25)):
        assert data.labels.bincount().tolist() == [count] * 16
        assert list(data.classes) == sorted(data.classes)
        assert set(data.classes) <= set(MODELNET40)


def test_the_cache_changes_nothing(root: Path, test: Shapes, tmp_path: Path):
    fresh = Shapes(tmp_path, "test", 2048)
    cached = Shapes(root, "test", 2048)
    for data in (fresh, cached):
        assert torch.equal(data.points, test.points)
        assert torch.equal(data.labels, test.labels)
        assert torch.equal(data.parts, test.parts)


@pytest.mark.usefixtures("few")
def test_a_shape_does_not_depend_on_how_many_are_made(test: Shapes, tmp_path: Path):
    two = Shapes(tmp_path, "test", 2048)
    assert torch.equal(two.points, test.points.unflatten(0, (16, 25))[:, :2].flatten(0, 1))


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
    assert present[train.part_names.index("chair/seat")] == 80
    assert 0 < present[train.part_names.index("chair/arm")] < 80


def test_z_is_up(train: Shapes):
    above = [("chair/back", "chair/seat"), ("chair/seat", "chair/leg"), ("table/top", "table/leg")]
    above += [("lamp/shade", "lamp/base"), ("stool/seat", "stool/leg"), ("desk/top", "desk/leg")]
    for upper, lower in above:
        label = train.classes.index(upper.split("/")[0])
        for index in (train.labels == label).nonzero().flatten().tolist():
            low = heights(train, index, lower)
            if len(low):
                assert heights(train, index, upper).mean() > low.mean(), (upper, lower, index)


def test_part_labels_are_exact(train: Shapes):
    """No point of a table's top lies below its legs, but for the rim of a splayed one."""
    for index in (train.labels == train.classes.index("table")).nonzero().flatten().tolist():
        assert heights(train, index, "table/top").min() >= heights(train, index, "table/leg").max() - 0.05, index


def test_meshes_are_closed_and_face_outwards():
    for name, recipe in shapes.RECIPES.items():
        for index in range(5):
            for part, mesh in recipe(np.random.default_rng(index)):
                assert mesh.is_watertight, (name, part)
                assert mesh.volume > 0, (name, part)


def test_make_shape_names_the_part_of_each_face():
    mesh, parts = make_shape("chair", np.random.default_rng(0))
    assert parts.shape == (len(mesh.faces),)
    assert {"chair/seat", "chair/leg", "chair/back"} <= {shapes.PART_NAMES[part] for part in parts}


def test_a_subset_keeps_its_parts(test: Shapes):
    indices = torch.tensor([399, 0, 7])
    chosen = test.subset(indices)
    assert torch.equal(chosen.points, test.points[indices])
    assert torch.equal(chosen.labels, test.labels[indices])
    assert torch.equal(chosen.parts, test.parts[indices])
    assert len(test) == len(test.parts) == 400
    rest, held_out = split_validation(test, seed=0)
    assert isinstance(rest, Shapes)
    assert isinstance(held_out, Shapes)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def garble(content: bytes) -> bytes:
    return b"not an archive" + content[14:]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("damage", [cut, empty, flip, garble])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage):
    whole = Shapes(tmp_path, "test")
    (path,) = (tmp_path / "shapes").iterdir()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert torch.equal(Shapes(tmp_path, "test").points, whole.points)
    assert path.read_bytes() == content


@pytest.mark.usefixtures("few")
def test_a_cache_of_something_else_is_made_again(tmp_path: Path):
    whole = Shapes(tmp_path, "test")
    (path,) = (tmp_path / "shapes").iterdir()
    for other in ({"points": np.zeros((2, 3, 4))}, {"points": np.zeros(3), "parts": np.array([{}], dtype=object)}):
        with path.open("wb") as stream:
            np.savez(stream, **other)
        assert torch.equal(Shapes(tmp_path, "test").points, whole.points)


@pytest.mark.usefixtures("few")
def test_a_whole_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = Shapes(tmp_path, "test")
    monkeypatch.setattr(shapes, "_generate", None)
    assert torch.equal(Shapes(tmp_path, "test").points, whole.points)


@pytest.mark.usefixtures("few")
def test_a_root_that_cannot_be_written_does_no_harm(tmp_path: Path):
    root = tmp_path / "file"
    root.write_text("in the way")
    assert len(Shapes(root, "test")) == 32
    assert root.read_text() == "in the way"


@pytest.mark.parametrize("count", [0, -1, 2049])
def test_a_wrong_number_of_points_is_one_clear_line(tmp_path: Path, count: int):
    with pytest.raises(ValueError, match=f"^num_points must be from 1 to 2048, got {count}$"):
        Shapes(tmp_path, "test", count)


def test_a_wrong_split_is_one_clear_line(tmp_path: Path):
    with pytest.raises(ValueError, match=r'^split must be "train" or "test", got \'val\'$'):
        Shapes(tmp_path, "val")
    assert not any(tmp_path.iterdir())
