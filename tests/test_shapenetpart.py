"""ShapeNetPart in both of its layouts: which shapes, parts and points; frame and splits."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pointnet.datasets import (
    LabelledPoints,
    PointCloudFileError,
    ShapeNetPart,
    open_dataset,
    split_parts,
    split_validation,
)
from pointnet.datasets import shapenetpart as module
from pointnet.datasets.shapenetpart import KEPT, PUBLISHED
from pointnet.points.read import DatasetNotFoundError
from tests.helpers import OWN, SHARED_DATA, SPLITS, linked, write_text
from tests.releases import PUBLISHED_LABELS, write_hdf5_parts, write_own_parts, write_published_parts


@pytest.fixture
def text(tmp_path) -> Path:
    return write_text(tmp_path, PUBLISHED, PUBLISHED_LABELS)


@pytest.fixture
def hdf5(tmp_path) -> Path:
    return write_published_parts(tmp_path)


@pytest.fixture
def own(tmp_path) -> Path:
    return write_own_parts(tmp_path)


@pytest.fixture(scope="module")
def real_parts(tmp_path_factory) -> Path:
    """Real shapes in the text layout, where there are some."""
    shared = SHARED_DATA / "psb_parts_dev"
    if not shared.is_dir():
        pytest.skip(f"needs {shared}")
    return linked(shared, tmp_path_factory.mktemp("real") / "psb")


def as_read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A text's points (N, 3) in the unit sphere and z up, and their labels, in plain numpy."""
    table = np.loadtxt(path)
    points = table[:, :3] - table[:, :3].mean(0)
    x, y, z = (points / np.sqrt((points**2).sum(1)).max()).T
    return np.stack([x, -z, y], 1), table[:, 6]


def same_points(data: ShapeNetPart, index: int, path: Path) -> bool:
    """Whether a cloud's own points, in any order, are those of a file, each with its label."""
    points, parts, own = (each[0] for each in split_parts(data.batch(torch.tensor([index]))[0]))
    found = np.column_stack([points[:3].T[own].double(), parts[own]])
    wanted = np.column_stack(as_read(path))
    found, wanted = (table[np.lexsort(table.round(4).T)] for table in (found, wanted))
    return found.shape == wanted.shape and np.allclose(found, wanted, atol=2e-6)


def test_the_published_categories_and_parts_are_in_their_order(text):
    data = ShapeNetPart(text, "test", 8)
    assert data.classes == tuple(sorted(PUBLISHED_LABELS))
    assert len(data.part_names) == len(set(data.part_names)) == 50
    for label, name in enumerate(data.classes):
        assert data.parts_of[label].nonzero()[:, 0].tolist() == PUBLISHED_LABELS[name]
        assert {data.part_names[part].split("/")[0] for part in PUBLISHED_LABELS[name]} == {name}
    assert data.part_names[:4] == ("Airplane/body", "Airplane/wing", "Airplane/tail", "Airplane/engine")
    points, parts, category = data[0]
    assert isinstance(data, LabelledPoints)
    assert points.shape == (3, 8)
    assert set(parts.tolist()) <= set(PUBLISHED_LABELS[data.classes[category]])


def test_every_point_of_a_text_is_there_once_with_its_part_in_the_unit_sphere_z_up(text):
    for split, size in zip(SPLITS, (40, 7, 64), strict=True):
        data = ShapeNetPart(text, split, 5)
        listing = json.loads((text / "train_test_split" / f"shuffled_{split}_file_list.json").read_text())
        assert len(data) == len(listing) == 16
        assert data.points.shape == (16, 3, KEPT)
        for i, name in enumerate(listing):
            _, synset, shape = name.split("/")
            assert data.classes[data[i][2]] == PUBLISHED[synset]
            assert same_points(data, i, text / synset / f"{shape}.txt")
        stored, _ = data.batch(slice(None))
        assert (split_parts(stored)[2].sum(1) == size).all()


@pytest.mark.parametrize(("size", "num_points", "kept", "there"), [(3100, 64, 3000, 3000), (3100, 3200, 3200, 3100)])
def test_a_shape_of_many_points_keeps_3000_or_as_many_as_are_asked_for(tmp_path, size, num_points, kept, there):
    folder = write_text(tmp_path, {"01": "Tree"}, {"Tree": [0, 1]}, sizes=(size, 4, 4))
    data = ShapeNetPart(folder, "train", num_points)
    stored, _ = data.batch(slice(None))
    assert stored.shape == (1, 4, kept)
    assert int(split_parts(stored)[2].sum()) == there


def test_up_and_normals(text):
    turned, as_is, down = (ShapeNetPart(text, "train", 8, up=up, normals=True) for up in (None, "z", "-y"))
    assert turned.channels == 6
    for first in (0, 3):
        x, y, z = as_is.points[:, first : first + 3].unbind(1)
        assert torch.equal(turned.points[:, first : first + 3], torch.stack([x, -z, y], 1))
        assert torch.equal(down.points[:, first : first + 3], torch.stack([x, z, -y], 1))
    torch.testing.assert_close(turned.points[:, 3:].norm(dim=1), torch.ones(16, KEPT))
    assert torch.equal(turned.points[:, :3], ShapeNetPart(text, "train", 8).points)
    path = text / "04379243" / "train15.txt"
    normal_of = dict(zip(map(tuple, as_read(path)[0].round(3)), np.loadtxt(path)[:, 3:6], strict=True))
    expected = [normal_of[tuple(point)] for point in turned.points[0, :3].T.double().numpy().round(3)]
    np.testing.assert_allclose(as_is.points[0, 3:].T, expected, atol=1e-4)


@pytest.mark.slow
def test_rows_without_normals_are_the_same_shapes(text):
    wanted = ShapeNetPart(text, "train", 8)
    for file in text.glob("*/*.txt"):
        words = (line.split() for line in file.read_text().splitlines())
        file.write_text("".join(f"{' '.join([*row[:3], row[6]])}\n" for row in words))
    found = ShapeNetPart(text, "train", 8)
    assert torch.equal(found.points, wanted.points)
    assert torch.equal(found.parts, wanted.parts)
    with pytest.raises(PointCloudFileError, match="has no normals: 4 numbers a row"):
        ShapeNetPart(text, "train", 8, normals=True)


def test_the_splits_are_the_released_ones_and_validation_is_the_sets_own(text):
    train, val, test, both = (ShapeNetPart(text, split, 8) for split in (*SPLITS, "trainval"))
    assert torch.equal(both.points, torch.cat([train.points, val.points]))
    assert both.validation.tolist() == [False] * 16 + [True] * 16
    assert not test.validation.any()
    rest, held_out = split_validation(both, seed=3, fraction=0.1)
    assert torch.equal(rest.points, train.points)
    assert torch.equal(held_out.points, val.points)
    assert held_out.validation.all()
    assert torch.equal(held_out[3][1], val[3][1])
    assert len(split_validation(both, seed=3, fraction=0)[1]) == 0
    assert len(split_validation(ShapeNetPart(text, "train", 8), seed=3, fraction=0.5)[1]) == 0  # one of each category


def test_it_is_opened_for_the_task_of_parts_with_val_held_out(text):
    data = open_dataset("shapenetpart", text.parent, "train", 8, normals=True, task="part")
    assert len(data) == 32
    assert data[0][0].shape == (6, 8)
    with pytest.raises(ValueError, match="shapenetpart is not for the task classification, only shapes, modelnet40"):
        open_dataset("shapenetpart", text, "test", 8)
    with pytest.raises(ValueError, match="task must be one of 'classification', 'part', 'scene', got 'parts'"):
        open_dataset("shapenetpart", text, "test", 8, task="parts")


def test_text_is_read_once_whatever_the_split(text, monkeypatch):
    wanted = ShapeNetPart(text, "trainval", 8).points
    monkeypatch.setattr(module, "_read_shape", print)  # which gives no clouds
    assert torch.equal(ShapeNetPart(text, "trainval", 16).points, wanted)
    assert len(ShapeNetPart(text, "test", 8)) == 16


def test_a_folder_of_a_few_of_the_categories_keeps_all_labels(tmp_path):
    few = {"03001627": "chairs", "04379243": "tables"}
    folder = write_text(tmp_path, few, {"chairs": [12, 15], "tables": [47]})
    data = ShapeNetPart(folder, "train", 8)
    assert len(data.classes) == 16
    assert [data.classes[label] for label in data.labels] == ["Table", "Chair"]
    (folder / "synsetoffset2category.txt").write_text("chairs 03001627\n")
    assert [data.classes[label] for label in ShapeNetPart(folder, "train", 8).labels] == ["Chair"]


def test_categories_and_parts_of_ones_own_come_from_the_folder(own):
    data = ShapeNetPart(own, "train", 8)
    assert data.classes == ("Tree", "Park bench")
    assert data.parts_of.tolist() == [[True, True, False], [True, True, True]]
    assert data.part_names == ("Park bench/0", "Park bench/1", "Park bench/2")
    parts = {"Tree": {"crown": 0, "trunk": 4}, "Park bench": {"seat": 1, "leg": 2}, "Lantern": {"pole": 9}}
    (own / "parts.json").write_text(json.dumps(parts))
    for file in own.glob("0*/*.txt"):
        table = np.loadtxt(file)
        table[:, 6] = np.where(table[:, 6] == 0, 4, table[:, 6])
        np.savetxt(file, table)
    data = ShapeNetPart(own, "train", 8)
    assert data.part_names == ("Tree/crown", "Park bench/seat", "Park bench/leg", "3", "Tree/trunk")
    assert data.parts_of.int().tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    assert same_points(data, 1, own / "01" / "train0.txt")


def test_hdf5_is_read_as_released_z_up_with_the_published_labels(hdf5):
    (hdf5 / "all_object_categories.txt").write_text("".join(f"any\xa0{s} {s}\n" for s in PUBLISHED), encoding="utf-8")
    data = ShapeNetPart(hdf5, "train", 9)
    with h5py.File(hdf5 / "ply_data_train1.h5") as file:
        released, label, ids = (torch.from_numpy(file[key][()]) for key in ("data", "label", "pid"))
    x, y, z = released.unbind(2)
    assert torch.equal(data.points[32:], torch.stack([x, -z, y], 1))
    assert torch.equal(data.parts[32:], ids.long())
    assert torch.equal(data.labels[32:], label[:, 0].long())
    assert data.classes == tuple(sorted(PUBLISHED_LABELS))
    assert split_parts(data.batch(slice(None))[0])[2].all()
    points, parts, category = data[33]
    assert torch.equal(points, data.points[33, :, :9])
    assert torch.equal(parts, ids[1, :9].long())
    assert category == 1
    with pytest.raises(PointCloudFileError, match="has no data set 'normal'"):
        ShapeNetPart(hdf5, "train", 9, normals=True)
    assert len(ShapeNetPart(hdf5, "val", 9)) == len(ShapeNetPart(hdf5, "test", 9)) == 32
    both = ShapeNetPart(hdf5.parent, "trainval", 9)
    assert int(both.validation.sum()) == 32
    for split in SPLITS:
        (hdf5 / f"{split}_hdf5_file_list.txt").unlink()
    assert torch.equal(ShapeNetPart(hdf5, "trainval", 9).points, both.points)


def test_hdf5_categories_in_another_order_are_still_the_published_ones(tmp_path):
    turned = dict(reversed(PUBLISHED.items()))
    data = ShapeNetPart(write_hdf5_parts(tmp_path, turned, PUBLISHED_LABELS), "test", 4)
    assert data.classes == tuple(sorted(PUBLISHED_LABELS))
    for _, parts, category in (data[i] for i in range(len(data))):
        assert set(parts.tolist()) <= set(PUBLISHED_LABELS[data.classes[category]])


def test_hdf5_of_ones_own_tells_its_parts_in_its_list_of_labels(tmp_path):
    folder = write_hdf5_parts(tmp_path, OWN, {"Tree": [0, 1], "Park bench": [2, 3]})
    with pytest.raises(PointCloudFileError, match=r"catid_partid_to_overallid.json: cannot be read"):
        ShapeNetPart(folder, "train", 8)
    ids = {"01_1": 0, "01_2": 1, "02_1": 2, "02_2": 3}
    (folder / "catid_partid_to_overallid.json").write_text(json.dumps(ids))
    data = ShapeNetPart(folder, "train", 8)
    assert data.part_names == ("Tree/1", "Tree/2", "Park bench/1", "Park bench/2")
    assert data.parts_of.int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_the_form_is_told_from_the_folder_or_named(text, hdf5):
    assert text.parent == hdf5.parent
    assert len(ShapeNetPart(text.parent, "test", 8)) == 16
    assert len(ShapeNetPart(text.parent, "test", 8, form="hdf5")) == 32
    with pytest.raises(DatasetNotFoundError, match="holds no ShapeNetPart: looked for hdf5_data/, here"):
        ShapeNetPart(text, "test", 8, form="hdf5")
    renamed = text.rename(text.parent / "mine")
    assert len(ShapeNetPart(renamed.parent, "test", 8)) == 16


@pytest.mark.slow
def test_the_real_set_has_its_categories_parts_and_splits(real_parts):
    train, val, test = (ShapeNetPart(real_parts, split) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (190, 38, 76)
    known = json.loads((real_parts / "parts.json").read_text())
    assert train.classes == tuple(known)
    assert train.part_names == tuple(f"{name}/{part}" for name, parts in known.items() for part in parts)
    assert train.parts_of.sum(1).tolist() == [len(parts) for parts in known.values()]
    assert train.part_names == val.part_names == test.part_names
    for data in (train, val, test):
        assert all(data.parts_of[data.labels[i], data.parts[i]].all() for i in range(len(data)))
        stored, _ = data.batch(slice(None))
        assert (split_parts(stored)[2].sum(1) == 2500).all()
        torch.testing.assert_close(data.points.norm(dim=1).amax(1), torch.ones(len(data)))
    listing = json.loads((real_parts / "train_test_split" / "shuffled_test_file_list.json").read_text())
    for i in range(0, 76, 9):
        assert same_points(test, i, real_parts / f"{listing[i].removeprefix('shape_data/')}.txt")


STANDING = [("Chair/backsupport", "Chair/leg"), ("Table/support", "Table/leg"), ("Teddy/head", "Teddy/leg")]


@pytest.mark.slow
@pytest.mark.parametrize(("upper", "lower"), STANDING)
def test_the_real_shapes_stand_along_z(real_parts, upper, lower):
    data = ShapeNetPart(real_parts, "trainval")
    heights = [[data.points[i][:, data.parts[i] == data.part_names.index(part)].mean(1)
                for i in (data.labels == data.classes.index(part.split("/")[0])).nonzero()[:, 0].tolist()]
               for part in (upper, lower)]  # fmt: skip
    difference = torch.stack([above - below for above, below in zip(*heights, strict=True)]).nanmean(0)
    assert difference.argmax() == 2
    assert difference[2] > 0.2


def older(text: Path, root: Path) -> Path:
    """The same shapes in the older layout: points and parts in files of their own, parts counted from 1."""
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0"
    shutil.copytree(text / "train_test_split", folder / "train_test_split")
    shutil.copy(text / "synsetoffset2category.txt", folder)
    for path in text.glob("*/*.txt"):
        table, within = np.loadtxt(path), folder / path.parent.name
        first = PUBLISHED_LABELS[PUBLISHED[path.parent.name]][0] if path.parent.name in PUBLISHED else 0
        for inner in ("points", "points_label"):
            (within / inner).mkdir(parents=True, exist_ok=True)
        np.savetxt(within / "points" / f"{path.stem}.pts", table[:, :3], fmt="%.5f")
        np.savetxt(within / "points_label" / f"{path.stem}.seg", table[:, 6] - first + 1, fmt="%d")
    return folder


@pytest.mark.slow
def test_the_older_layout_holds_the_same_shapes_and_parts(text, tmp_path, monkeypatch):
    folder = older(text, tmp_path / "v0")
    for split in SPLITS:
        data = ShapeNetPart(tmp_path / "v0", split, 8)
        wanted = ShapeNetPart(text, split, 8)
        assert data.part_names == wanted.part_names
        assert torch.equal(data.labels, wanted.labels)
        listing = json.loads((folder / "train_test_split" / f"shuffled_{split}_file_list.json").read_text())
        for i, name in enumerate(listing):
            assert same_points(data, i, text / f"{name.removeprefix('shape_data/')}.txt")
    monkeypatch.setattr(module, "cached_clouds", None)  # no file is read
    with pytest.raises(PointCloudFileError, match=r"\.pts: has no normals; shapenetcore_.*_v0_normal has them"):
        ShapeNetPart(folder, "train", 8, normals=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("points_label/train0.seg", "1\n2\n", "must have a part for each point, got 2 for 40"),
        ("points_label/train1.seg", "1\n0\n" * 20, r"parts in train1\.seg must be whole numbers from 1 to 2, got 0"),
        ("points_label/train1.seg", "2\n3\n" * 20, r"parts in train1\.seg must be whole numbers from 1 to 2, got 3"),
        ("points_label/train0.seg", None, r"train0\.seg: no such file; 1 of 48 listed are missing"),
        ("points/train0.pts", "1 2\n" * 40, "must have 3 numbers a row, got 2"),
        ("points/train0.pts", None, r"train0\.pts: no such file; 1 of 48 listed are missing"),
    ],
)
def test_a_damaged_shape_of_the_older_layout_is_refused(text, tmp_path, name, content, message):
    folder = older(text, tmp_path / "v0")
    path = folder / ("02773838" if "train1" in name else "02691156") / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PointCloudFileError, match=message):
        ShapeNetPart(folder, "train", 8)


def test_parts_that_change_are_read_again(text, tmp_path):
    folder = older(text, tmp_path / "v0")
    assert len(ShapeNetPart(folder, "train", 8)[-1][1].unique()) > 1
    for path in folder.glob("*/points_label/*.seg"):
        path.write_text("1\n" * len(path.read_text().split()) + "\n")
    assert all(len(ShapeNetPart(folder, "train", 8)[i][1].unique()) == 1 for i in range(16))


def test_a_set_of_ones_own_in_the_older_layout_says_its_parts_in_parts_json(own, tmp_path):
    folder = older(own, tmp_path / "v0")
    with pytest.raises(PointCloudFileError, match=r"parts\.json: cannot be read"):
        ShapeNetPart(folder, "train", 8)
    for shift in (0, 3):  # and what changes in it is read again
        parts = {"Tree": {"trunk": 1, "crown": 0}, "Park bench": {"leg": 4 + shift, "seat": 2, "back": 3}}
        (folder / "parts.json").write_text(json.dumps(parts))
        data, wanted = ShapeNetPart(folder, "train", 8), ShapeNetPart(own, "train", 8)
        assert data.part_names[:4] == ("Tree/crown", "Tree/trunk", "Park bench/seat", "Park bench/back")
        for category, labels in (("Park bench", [2, 3, 4 + shift]), ("Tree", [0, 1])):
            row = data.classes.index(category)
            found, counted = (each.parts[each.labels == row].ravel().bincount() for each in (data, wanted))
            assert found.nonzero()[:, 0].tolist() == labels
            assert torch.equal(found[labels], counted)
