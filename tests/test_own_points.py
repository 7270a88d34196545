"""Labelled files of one's own as parts and as scenes: what is read, named, split, cut, trained on and labelled."""

import re
import shutil

import numpy as np
import pytest
import torch

from pointnet import label_points, load_model
from pointnet.datasets import PointCloudFileError, open_dataset, split_parts, split_validation
from pointnet.datasets.blocks import sparse
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.evaluation.contract import Contract
from pointnet.inference.cases import cases_of
from pointnet.points.formats.contents import Rows
from pointnet.points.read import read_cloud
from pointnet.training import evaluate, fit
from tests.helpers import SHARED_DATA, quiet, small
from tests.own_points import CLASSES, FLOOR, POLE, WALL, make_object, make_yard, save, write_objects, write_yards


def own_points(data, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one cloud its own points (n, C) and their labels (n,)."""
    points, parts, own = (each[0] for each in split_parts(data.batch(torch.tensor([i]))[0]))
    return points.T[own].numpy(), parts[own].numpy()


def in_order(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.column_stack([points, labels])
    return rows[np.lexsort(rows.round(3).T)]


# Parts.


def test_every_point_of_a_labelled_file_is_there_once_with_its_label_in_the_unit_sphere(tmp_path):
    data = PartFolder(write_objects(tmp_path), num_points=32)
    assert data.classes == ("pin", "table")
    assert data.part_names == ("0", "1", "3")
    assert data.label_numbers == (0, 1, 3)
    assert data.parts_of.tolist() == [[True, True, False], [True, False, True]]
    assert {file.suffix for file in data.files} == {".txt", ".npy", ".ply"}
    assert data[0][0].shape == (3, 32)
    assert data.bad == []
    for i, file in enumerate(data.files):
        rows = make_object(file.parent.name, int(file.stem))
        points = rows[:, :3] - rows[:, :3].mean(0)
        points /= np.linalg.norm(points, axis=1).max()
        found = in_order(*own_points(data, i))
        np.testing.assert_allclose(found, in_order(points, np.searchsorted((0, 1, 3), rows[:, 3])), atol=1e-5)


@pytest.mark.parametrize(
    "text", ["stick\nball\nnothing\nplate\n", "0 stick\n3 plate\n1 ball\n", "0: stick\n1, ball\n3:plate\n"]
)
def test_a_text_names_the_labels_by_line_or_by_number(tmp_path, text):
    root = write_objects(tmp_path)
    (root / "parts.txt").write_text(text)
    data = open_dataset("parts", root, "train", 32, task="part")
    by_line = text.startswith("stick")
    assert data.part_names == (("stick", "ball", "nothing", "plate") if by_line else ("stick", "ball", "plate"))
    assert data.label_numbers == (() if by_line else (0, 1, 3))
    assert [data.part_names[i] for i in data.parts_of[1].nonzero()[:, 0]] == ["stick", "plate"]


def test_what_labels_cannot_be_is_one_line_that_names_it(tmp_path):
    root = write_objects(tmp_path)
    for text, message in (
        ("stick\nball\n", r"table.*: has label 3, which parts.txt does not name \(0, 1\)"),
        ("stick\nstick\n", "parts.txt: has the name 'stick' twice"),
        ("0 stick\n0 ball\n", "parts.txt: has the number '0' twice"),
        ("\n", "parts.txt: names no label"),
    ):
        (root / "parts.txt").write_text(text)
        with pytest.raises(PointCloudFileError, match=message):
            raise PartFolder(root, num_points=32).bad[-1]
    (root / "parts.txt").unlink()
    save(root / "pin" / "bare.txt", make_object("pin", 9)[:, :3])
    (root / "pin" / "words.csv").write_text("x,y,z,label,kind\n1,2,3,head,a\n" + "4,5,6,head,a\n" * 9)
    save(root / "pin" / "none.ply", make_object("pin", 9) * (1, 1, 1, 0) - (0, 0, 0, 1), "x y z label")
    data = PartFolder(root, num_points=32, test_fraction=0)
    assert [str(error).partition(str(root))[2] for error in data.bad] == [
        "/pin/bare.txt: has no labels: a label for each point is wanted, as a column or property 'label'",
        "/pin/none.ply: has no labelled point: all labels are negative, such as -1",
        "/pin/words.csv: has no labels: a label for each point is wanted, as a column or property 'label' (left out: "
        "label, not numbers)",
    ]
    with pytest.raises(PointCloudFileError, match="bare.txt: has no labels"):
        PartFolder(root, num_points=32, test_fraction=0, strict=True)
    rows = make_object("pin", 0, 4000)
    rows[:, 3] = np.arange(4000)
    save(root / "pin" / "instances.ply", rows, "x y z label")
    with pytest.raises(
        PointCloudFileError, match="have 4,000 different labels, which are no classes; if they are, name"
    ):
        PartFolder(root, num_points=32)


def test_one_label_is_nothing_to_learn(tmp_path):
    save(tmp_path / "set" / "pin" / "0.txt", make_object("pin", 0) * (1, 1, 1, 0))
    save(tmp_path / "set" / "pin" / "1.txt", make_object("pin", 1) * (1, 1, 1, 0))
    data = PartFolder(tmp_path / "set", num_points=32, test_fraction=0)
    with pytest.raises(ValueError, match="points must have at least two different labels, got only '0'"):
        fit(small(tmp_path / "run", "part", dataset="parts"), data, log=quiet)


def test_points_without_a_label_are_left_out_and_counted(tmp_path):
    rows = make_object("pin", 0)
    rows[:50, 3] = -1
    save(tmp_path / "pin" / "a.ply", rows, "x y z label")
    save(tmp_path / "pin" / "b.ply", make_object("pin", 1), "x y z label")
    data = PartFolder(tmp_path, num_points=32, test_fraction=0)
    assert data.notes == ["12.5% of the points drawn have no label (a negative one), and are left out"]
    assert data.part_names == ("0", "1")
    points, labels = own_points(data, 0)
    centred = rows[:, :3] - rows[:, :3].mean(0)  # of all points, as a new file is seen
    wanted = in_order((centred / np.linalg.norm(centred, axis=1).max())[50:], rows[50:, 3])
    np.testing.assert_allclose(in_order(points, labels), wanted, atol=1e-5)


def test_labels_that_some_files_lack_or_that_mean_none_are_said(tmp_path):
    def notes(labels: dict[str, tuple[int, ...]], names: str = "", split: str = "train") -> list[str]:
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        for i, (name, kinds) in enumerate(labels.items()):
            rows = make_object("pin", i)
            rows[:, 3] = np.resize(kinds, len(rows))
            save(tmp_path / "a" / name, rows)
        if names:
            (tmp_path / "a" / "parts.txt").write_text(names)
        return PartFolder(tmp_path / "a", split, num_points=16).notes

    files = [f"pin/train/{i}.txt" for i in range(3)] + ["pin/test/4.txt"]
    assert notes(dict.fromkeys(files, (0, 1))) == []
    for split in ("train", "test"):
        assert notes(dict.fromkeys(files[:3], (0, 1)) | {files[3]: (0, 2)}, split=split) == [
            "labels that are drawn from no file for training, so never learned: pin: 2",
            "labels that are drawn from no file for testing: pin: 1",
            "labels that are drawn from one file alone: pin: 2 in pin/test/4.txt",
        ]
    filler = "trained like any other label: {}; if it means that a point has none, write -1, or this into parts.txt: {}"
    assert notes(dict.fromkeys(files, (0, 1, 255))) == [filler.format(255, "255 -")]
    assert notes(dict.fromkeys(files, (0, 200, 255))) == []
    named = "0 head\n1 shaft\n255 Unlabelled\n7 void\n"
    lost = "labels that are named, and drawn from no file: void"
    assert notes(dict.fromkeys(files, (0, 1, 255)), named) == [filler.format("void, Unlabelled", "7 -; 255 -"), lost]
    with pytest.raises(PointCloudFileError, match=r"has label 255, .*name \(0, 1\); a point without a label has -1"):
        notes(dict.fromkeys(files, (0, 1, 255)), "head\nshaft\n")


def test_of_a_large_cloud_the_labelled_points_are_drawn_first(tmp_path):
    rows = make_object("pin", 0, 9000)
    rows[100:, 3] = -1
    save(tmp_path / "pin" / "a.ply", rows, "x y z label")
    save(tmp_path / "pin" / "b.ply", make_object("pin", 1), "x y z label")
    data = PartFolder(tmp_path, num_points=32, test_fraction=0)
    assert len(own_points(data, 0)[0]) == 100


def test_folders_are_the_split_and_val_is_for_validation(tmp_path):
    for within in ("train", "val", "test"):
        write_objects(tmp_path / "a", count=2, within=within)
        write_objects(tmp_path / "b" / within, count=2)
    for root in (tmp_path / "a", tmp_path / "b"):
        data, test = (PartFolder(root, split, 32) for split in ("train", "test"))
        assert (len(data), len(test)) == (8, 4)
        train, val = split_validation(data, seed=0, fraction=0.1)
        assert {("val" in str(file.relative_to(root))) for file in val.files} == {True}
        assert {("val" in str(file.relative_to(root))) for file in train.files} == {False}
        assert len(split_validation(data, seed=0, fraction=0)[1]) == 0


def test_one_category_needs_no_folder(tmp_path):
    write_objects(tmp_path, ("pin",), count=5)
    alone = PartFolder(tmp_path, num_points=32)
    flat = PartFolder(tmp_path / "pin", num_points=32)
    assert alone.classes == flat.classes == ("pin",)
    assert len(flat) == 4
    (tmp_path / "notes.txt").write_text("1 2 3\n")  # does not make the root a category
    assert PartFolder(tmp_path, num_points=32).classes == ("pin",)
    assert torch.equal(flat.points[:1].sort(2)[0], PartFolder(tmp_path / "pin", num_points=32).points[:1].sort(2)[0])
    assert flat.part_names == ("0", "1")


def test_real_shapes_with_normals_are_read_whole(tmp_path):
    folder = SHARED_DATA / "psb_parts_dev" / "00000001"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    for file in sorted(folder.iterdir())[:3]:
        (tmp_path / file.name).symlink_to(file)
    data = PartFolder(tmp_path, num_points=64, normals=True, up="y", test_fraction=0)
    assert (len(data), data.part_names) == (3, ("0", "1", "2", "3", "4"))
    for i, file in enumerate(data.files):
        rows = np.loadtxt(file)
        x, y, z = (rows[:, :3] - rows[:, :3].mean(0)).T
        points = np.column_stack([x, -z, y]) / np.sqrt(x**2 + y**2 + z**2).max()
        normals = rows[:, [3, 5, 4]] * (1, -1, 1) / np.linalg.norm(rows[:, 3:6], axis=1, keepdims=True)
        found, wanted = np.column_stack(own_points(data, i)), np.column_stack([points, normals, rows[:, 6]])
        found, wanted = (table[np.lexsort(table[:, 2::-1].T)] for table in (found, wanted))  # by x, then y, then z
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"up": "y"}, {"features": "intensity", "columns": "x,y,z,intensity,label"}])
def test_a_file_of_ones_own_is_labelled_as_in_evaluation(tmp_path, options):
    for i in range(4):
        rows = make_object("pin", i)
        more = [np.random.default_rng(i).integers(0, 999, len(rows))] if options.get("features") else []
        save(tmp_path / "set" / "pin" / f"{i}.txt", np.column_stack([rows[:, :3], *more, rows[:, 3]]))
    data = PartFolder(tmp_path / "set", num_points=32, **options)
    columns = options.get("columns", "")
    fit(small(tmp_path / "run", "part", dataset="parts", epochs=1, columns=columns), data, log=quiet)
    model = load_model(tmp_path / "run")
    contract = Contract.of(model)
    assert (contract.up, contract.intensity) == (options.get("up"), data.intensity)
    for i, file in enumerate(data.files):
        found = label_points(file, model, category="pin")
        x, _, own = split_parts(data.batch(torch.tensor([i]))[0])
        with torch.no_grad():
            kind = torch.tensor([0])
            wanted = model.restrict(model(x, kind), kind)[0].softmax(0).amax(0)[own[0]]
        np.testing.assert_allclose(np.sort(found.probability), np.sort(wanted.numpy()), atol=1e-5)


# Scenes.


def assert_cases_are_answered(model) -> None:
    """That an exported file, which is held to them, can answer as the library does."""
    cases = list(cases_of(model))
    assert len(cases) == 2
    for case in cases:
        with torch.no_grad():
            shares = model(*case.inputs).softmax(1)
        torch.testing.assert_close(shares.amax(1), case.probability, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("side", "features"), [(1.0, ""), (2.5, "intensity")])
def test_a_scan_is_cut_into_blocks_of_any_side(tmp_path, side, features):
    root = write_yards(tmp_path, 2, size=3000)
    data = SceneFolder(root, test_fraction=0, num_points=64, features=features, block=side)
    assert data.part_names == ("floor", "wall", "pole")
    assert data.label_numbers == (FLOOR, WALL, POLE)
    assert data.channel_names == ("x", "y", "z", *filter(None, [features]))
    assert data.classes == ("yard_0.txt", "yard_1.txt")
    assert data.bad == []
    low_high, at = data.intensity, 0
    for seed in range(2):
        rows = make_yard(seed, 3000).round(6)
        xyz = (rows[:, :3] - rows[:, :3].min(0)).astype(np.float32)
        last = np.maximum(np.ceil((xyz.max(0)[:2] - np.float32(side)) / (side / 2)).astype(int), 0)
        cells = np.minimum((xyz[:, :2] / (side / 2)).astype(int), last + 1)
        for corner in np.ndindex(*(last + 1)):
            inside = ((cells >= corner) & (cells <= np.add(corner, 1))).all(1)
            if inside.sum() < 100:
                continue
            middle = np.append(xyz[inside, :2].min(0) + side / 2, 0)
            wanted = (xyz[inside] - middle) / side
            if features:
                scaled = (rows[inside, 3:4] - low_high[0]) / (low_high[1] - low_high[0])
                wanted = np.hstack([wanted, scaled])
            labels = np.searchsorted((FLOOR, WALL, POLE), rows[inside, 4])
            assert data.labels[at] == seed
            np.testing.assert_allclose(in_order(*own_points(data, at)), in_order(wanted, labels), atol=1e-4)
            at += 1
    assert at == len(data)


def test_whole_scans_are_held_out(tmp_path):
    data = SceneFolder(write_yards(tmp_path / "a", 5, size=1500), num_points=64, block=2)
    test = SceneFolder(tmp_path / "a", "test", num_points=64, block=2)
    assert len(set(data.files)) == 4
    assert len(set(test.files)) == 1
    assert not set(data.files) & set(test.files)
    train, val = split_validation(data, seed=0, fraction=0.1)
    assert len(set(val.files)) == 1
    assert not set(train.files) & set(val.files)
    for within in ("train", "val", "test"):
        write_yards(tmp_path / "b" / within, 1, seed=len(within), size=1500)
    (tmp_path / "b" / "classes.txt").write_text(CLASSES)
    for file in (tmp_path / "b").glob("*/classes.txt"):
        file.unlink()
    data = SceneFolder(tmp_path / "b", num_points=64, block=2)
    assert data.classes == ("train/yard_0.txt", "val/yard_0.txt", "test/yard_0.txt")
    _, val = split_validation(data, seed=0, fraction=0.5)
    assert {file.parent.name for file in val.files} == {"val"}
    with pytest.raises(PointCloudFileError, match="has no file for its test split: a set needs two files or more"):
        SceneFolder(tmp_path / "b" / "val", "test")


def test_a_wrong_size_of_block_is_said_with_what_to_do(tmp_path):
    write_yards(tmp_path, 2, size=1500)
    for side, message in (
        (0.1, r"has most of its points in blocks of 0\.1 that have fewer than 100 points; give a larger"),
        (0.001, r"must be at most 1,000 blocks of 0\.001 wide, got \d,\d\d\d of them; give a larger --block"),
    ):
        with pytest.raises(PointCloudFileError, match=message):
            SceneFolder(tmp_path, block=side)
    with pytest.raises(ValueError, match="block must be a size above 0, in the unit of the files, got 0"):
        SceneFolder(tmp_path, block=0)
    with pytest.raises(ValueError, match="parts is not cut into blocks of 2, which --block or the network asks for"):
        open_dataset("parts", tmp_path, "train", 32, task="part", block=2)
    data = SceneFolder(tmp_path, block=50, test_fraction=0)
    assert data.notes == ["each file is one block of 50, of 4,096 points; a smaller --block has more"]


@pytest.mark.parametrize("side", [1.0, 500.0])
def test_a_scene_in_another_unit_than_blocks_is_said_by_its_width_or_its_sparse_blocks(side):
    points = np.random.default_rng(0).random((4000, 3)) * side * (4, 5, 1) + 1e6  # 200 points to a square
    moved = points - points.min(0)
    specks = {"degrees": 1e-5, "km": 1e-3}
    for found in (lambda x: sparse(x, side), lambda x: sparse(Rows(x, lambda rows: rows), side)):
        assert found(points) is None
        for factor in (0.2, 0.05 / 4.9, 0.045 / 5):
            width = 5 * side * factor
            assert (found(moved * factor) is None) == (width > 0.05 * side), factor
        for factor in specks.values():
            assert re.fullmatch(rf"it is .* wide, and a block {side:g}: is it in another unit\?", found(moved * factor))
        few = f"most of its points are in blocks of {side:g} with fewer than 100 points, as were none of training"
        assert found(moved * (100, 100, 1)) == found(moved[::3]) == few
        assert found(moved * 1e4) is None  # which is refused
        most = np.vstack([moved[:3000], moved[3000:] * 50])
        assert found(most) is None


def test_a_tile_in_degrees_is_said_in_training(tmp_path):
    root = write_yards(tmp_path, 2, size=3000)
    file = root / "yard_0.txt"
    rows = np.loadtxt(file, skiprows=1)
    rows[:, :2] /= 111_000
    header = file.read_text().splitlines()[0]
    np.savetxt(file, rows, fmt="%.9g", header=header, comments="")
    data = SceneFolder(root, block=2, test_fraction=0)
    assert data.file_notes["yard_0.txt"] == ("it is 3.6e-05 wide, and a block 2: is it in another unit?",)
    assert "yard_1.txt" not in data.file_notes


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_a_scan_is_labelled_by_the_mean_of_all_blocks_in_the_units_of_training(tmp_path, unit):
    root = write_yards(tmp_path / "set", 3, unit=unit, size=1500)
    data = SceneFolder(root, num_points=64, features="intensity", block=2 * unit)
    settings = {"dataset": "scenes", "num_points": 64, "early_points": 0, "epochs": 1}
    fit(small(tmp_path / "run", "scene", **settings), data, log=quiet)
    model = load_model(tmp_path / "run")
    contract = Contract.of(model)
    assert (contract.block, contract.scale, contract.channels) == (2 * unit, "blocks", ("x", "y", "z", "intensity"))
    assert contract.label_numbers == (FLOOR, WALL, POLE)
    assert_cases_are_answered(model)
    low_high = {"intensity": contract.intensity}
    assert evaluate(model, SceneFolder(root, num_points=64, features="intensity", block=2 * unit, **low_high))
    for how, said in (
        ({"block": unit, "features": "intensity"} | low_high, f"its block is scaled by {2 * unit}, that of the data"),
        ({"block": 2 * unit, "features": "intensity", "intensity": (0.0, 65535.0)}, "its intensity is scaled by"),
        ({"block": 2 * unit}, "it was trained on points of x, y, z, intensity; the data has x, y, z"),
    ):
        with pytest.raises(ValueError, match=f"the network: {said}"):
            evaluate(model, SceneFolder(root, num_points=64, **how))
    file, whole_blocks = data.files[0], contract.as_json() | {"num_points": 5000}
    model.preprocessing = whole_blocks | {"temperature": 2.0}
    found = label_points(file, model)
    model.preprocessing = whole_blocks
    votes = {}
    whole = SceneFolder(root, num_points=4096, features="intensity", block=2 * unit)
    for i in (whole.labels == whole.labels[0]).nonzero()[:, 0].tolist():
        x, _, own = split_parts(whole.batch(torch.tensor([i]))[0])
        with torch.no_grad():
            shares = (model(x[:, :, own[0]]) / 2).softmax(1)[0].T
        for intensity, share in zip(x[0, 3, own[0]].tolist(), shares.numpy(), strict=True):
            votes.setdefault(round(intensity, 4), []).append(share)
    rows = read_cloud(file)
    low, high = contract.intensity
    alone = [k for k, value in enumerate(rows.intensity) if (rows.intensity == value).sum() == 1]
    assert len(alone) > 20
    for k in alone:
        wanted = np.mean(votes[round(float((rows.intensity[k] - low) / (high - low)), 4)], axis=0)
        assert found.probability[k] == pytest.approx(wanted.max(), abs=1e-4)
    found.write_ply(tmp_path / "labelled.ply")
    written = read_cloud(tmp_path / "labelled.ply", precise=True)
    assert np.array_equal(written.labels, np.array(contract.label_numbers)[found.labels])
    assert f"comment label {POLE} is pole" in (tmp_path / "labelled.ply").read_bytes()[:600].decode("latin-1")
    assert_cases_are_answered(model)
    array = np.column_stack([rows.points, rows.intensity])
    assert (label_points(array, model).labels == found.labels).mean() > 0.99
    with pytest.raises(ValueError, match="has no intensity, which the model was trained with"):
        label_points(array[:, :3], model)
