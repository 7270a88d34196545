"""Labelled files of one's own as parts: what is read, named, split, trained on and labelled."""

import shutil

import numpy as np
import pytest
import torch

from pointnet import label_points, load_model
from pointnet.datasets import PointCloudFileError, open_dataset, split_parts, split_validation
from pointnet.datasets.own_parts import PartFolder
from pointnet.evaluation.contract import Contract
from pointnet.training import fit
from tests.helpers import SHARED_DATA, quiet, small
from tests.own_points import in_order, make_object, own_points, save, write_objects


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
    rows = make_object("pin", 9)
    save(root / "pin" / "named.ply", rows, "x y z kind")
    np.savez(root / "pin" / "named.npz", points=rows[:, :3], kind=rows[:, 3])
    save(root / "pin" / "none.ply", make_object("pin", 9) * (1, 1, 1, 0) - (0, 0, 0, 1), "x y z label")
    data = PartFolder(root, num_points=32, test_fraction=0)
    assert [str(error).partition(str(root))[2] for error in data.bad] == [
        "/pin/bare.txt: has no labels: a label for each point is wanted, as a column or property 'label'",
        *(
            f"/pin/named.{suffix}: has no labels: a label for each point is wanted, as a column or property 'label' "
            "(left out: kind)"
            for suffix in ("npz", "ply")
        ),
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
    filler = (
        "trained like any other label: {}; if it means that a point has none, write -1, or a line into parts.txt: {}"
    )
    assert notes(dict.fromkeys(files, (0, 1, 255))) == [filler.format(255, "'255 -'")]
    assert notes(dict.fromkeys(files, (0, 200, 255))) == []
    named = "0 head\n1 shaft\n255 Unlabelled\n7 void\n"
    lost = "labels that are named, and drawn from no file: void"
    assert notes(dict.fromkeys(files, (0, 1, 255)), named) == [
        filler.format("void, Unlabelled", "'7 -', '255 -'"),
        lost,
    ]
    with pytest.raises(PointCloudFileError, match=r"has label 255, .*name \(0, 1\); a point without a label has -1"):
        notes(dict.fromkeys(files, (0, 1, 255)), "head\nshaft\n")


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
