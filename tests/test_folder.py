"""A folder of anyone's files: which are read, how they are split and sampled."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pointnet import __main__ as command_line
from pointnet.datasets import (
    LabelledClouds,
    MeshFolder,
    PointCloudFileError,
    open_dataset,
    read_points,
    split_validation,
)
from pointnet.datasets.folder import KEPT, sample_file
from pointnet.points.read import files_in
from tests.helpers import QUICK, error_of

FILES = Path(__file__).parents[1] / "data" / "samples" / "files"


def write_meshes(root: Path, classes=("ball", "box"), count: int = 5, within: str = "") -> Path:
    """`root/<class>/<within>/<class>_<i>.off`, balls and boxes of their own sizes."""
    for name in classes:
        folder = root / name / within
        folder.mkdir(parents=True)
        for i in range(count):
            size = 1 + 0.1 * i
            mesh = trimesh.creation.icosphere(2, size) if name == "ball" else trimesh.creation.box((size, 1, 2))
            mesh.export(folder / f"{name}_{i}.off")
    return root


def test_classes_are_folders_and_clouds_stand_in_the_unit_sphere(tmp_path):
    data = MeshFolder(write_meshes(tmp_path), num_points=100)
    assert data.classes == ("ball", "box")
    assert len(data) == 8
    points, label = data[0]
    assert points.shape == (3, 100)
    assert (points.dtype, label) == (torch.float32, 0)
    assert data.points.shape == (8, 3, KEPT)
    torch.testing.assert_close(data.points.mean(2), torch.zeros(8, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.points.norm(dim=1).amax(1), torch.ones(8))
    balls = data.points[data.labels == 0].norm(dim=1)
    assert balls.min() > 0.9


def test_a_folder_without_a_split_gets_a_seeded_stratified_one(tmp_path):
    root = write_meshes(tmp_path, count=10)
    parts = {split: {file.name for file in MeshFolder(root, split, seed=1).files} for split in ("train", "test")}
    assert not parts["train"] & parts["test"]
    assert len(parts["train"] | parts["test"]) == 20
    assert sorted(name.split("_")[0] for name in parts["test"]) == ["ball", "ball", "box", "box"]
    assert {file.name for file in MeshFolder(root, "test", seed=1).files} == parts["test"]
    assert {file.name for file in MeshFolder(root, "test", seed=2).files} != parts["test"]
    shutil.copy(root / "ball" / "ball_0.off", root / "ball" / "ball_new.off")
    assert len(MeshFolder(root, "train", test_fraction=0.0)) == 21


def test_a_part_of_a_folder_knows_its_files(tmp_path):
    data = MeshFolder(write_meshes(tmp_path), num_points=16)
    chosen = data.subset(torch.tensor([5, 0, 7])).subset(torch.tensor([2, 0]))
    assert chosen.files == [data.files[7], data.files[5]]
    assert chosen.name_of(1) == str(data.files[5])
    bare = LabelledClouds(data.points, data.labels, data.classes).subset(torch.tensor([5, 0, 7]))
    assert (bare.name_of(0), bare.files) == ("no. 5", [])


def test_files_that_come_and_go_never_move_another_from_one_part_to_the_other(tmp_path):
    root = write_meshes(tmp_path, count=10)
    parts = {split: {file.name for file in MeshFolder(root, split).files} for split in ("train", "test")}
    for i in range(10, 20):
        trimesh.creation.icosphere(2, 1 + 0.1 * i).export(root / "ball" / f"ball_{i}.off")
    (root / "box" / "box_3.off").unlink()
    after = {split: {file.name for file in MeshFolder(root, split).files} for split in ("train", "test")}
    assert not after["train"] & parts["test"]
    assert not after["test"] & parts["train"]
    assert sum(name.startswith("ball") for name in after["test"]) == 4


def test_folders_named_train_and_test_are_the_split_above_the_classes_or_in_them(tmp_path):
    above, below = tmp_path / "above", tmp_path / "below"
    write_meshes(above / "train", count=3)
    write_meshes(above / "test", ("box",), count=2)
    write_meshes(below, count=3, within="train")
    write_meshes(below, ("box",), count=2, within="test")
    for root in (above, below):
        train, test = MeshFolder(root, "train"), MeshFolder(root, "test")
        assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert test.labels.tolist() == [1, 1]
        assert train.classes == test.classes == ("ball", "box")
    write_meshes(above / "val", ("ball",), count=2)
    rest, held_out = split_validation(MeshFolder(above), seed=0, fraction=0.1)
    assert {file.parents[1].name for file in held_out.files} == {"val"}
    assert rest.files == MeshFolder(above).files[:3] + MeshFolder(above).files[5:]


def test_files_elsewhere_are_told_not_passed_over(tmp_path):
    root = write_meshes(tmp_path)
    (root / "ball" / "more").mkdir()
    for stray in (root / "loose.off", root / "ball" / "more" / "deep.OFF"):
        shutil.copy(root / "ball" / "ball_0.off", stray)
    shutil.copy(root / "ball" / "ball_0.off", root / "ball" / "CAPITAL.OFF")
    data = MeshFolder(root, test_fraction=0)
    assert "CAPITAL.OFF" in {file.name for file in data.files}
    assert [(error.path.name, error.reason.split(":")[0]) for error in data.bad] == [
        ("deep.OFF", "not read"), ("loose.off", "not read"),
    ]  # fmt: skip


def test_far_from_the_origin_and_of_any_size_a_shape_is_the_same(tmp_path):
    x, sampled = np.random.default_rng(0).standard_normal((300, 3)), []
    for made in (x, x + np.array([500_000, 5_400_000, 100]), 1e25 * x, 1e-25 * x):
        np.save(tmp_path / "same.npy", made)
        sampled.append(sample_file(tmp_path / "same.npy", 300)[0])
        np.testing.assert_allclose(sampled[-1], sampled[0], atol=1e-6)


def test_a_class_of_one_or_two_files_is_trained_on(tmp_path):
    write_meshes(tmp_path, ("ball",), count=1)
    with pytest.raises(PointCloudFileError, match="has no file for its test split: a class needs two files or more"):
        MeshFolder(tmp_path, "test")
    write_meshes(tmp_path, ("box",), count=2)
    assert sorted(MeshFolder(tmp_path, "train").labels.tolist()) == [0, 1]
    assert MeshFolder(tmp_path, "test").labels.tolist() == [1]


def test_every_format_is_read_and_others_are_not_looked_at(tmp_path):
    (tmp_path / "thing").mkdir()
    for file in FILES.iterdir():
        shutil.copy(file, tmp_path / "thing" / file.name)
    for stray in ("notes.md", "texture.png", ".hidden.off"):
        (tmp_path / "thing" / stray).write_bytes(b"not points")
    (tmp_path / "empty").mkdir()
    data = MeshFolder(tmp_path, test_fraction=0)
    assert data.classes == ("thing",)
    assert {file.name for file in data.files} == {file.name for file in FILES.iterdir()}
    assert data.bad == []
    empty = "no class, as there is no file to read: empty"
    assert data.notes == ["2 files passed over for the suffix: 1 .md, 1 .png", empty]
    cloud = data.points[[file.suffix for file in data.files].index(".npy")]
    released = torch.from_numpy(read_points(FILES / "cup.npy")).T
    assert len(torch.unique(cloud[:, :1024], dim=1).T) == 1024  # each once, before any comes again
    assert len(torch.unique(cloud, dim=1).T) == 1024
    torch.testing.assert_close(cloud.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    assert torch.cdist(cloud[:, :1024].T, released.T).amin(1).max() < 0.05


def test_bad_files_are_listed_or_with_strict_refused(tmp_path):
    root = write_meshes(tmp_path)
    (root / "ball" / "ball_1.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n")
    (root / "box" / "broken.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9999999999\n")
    data = MeshFolder(root, test_fraction=0)
    assert [error.path.name for error in data.bad] == ["ball_1.off", "broken.ply"]
    assert len(data) == 9
    assert data.labels.tolist() == [0] * 4 + [1] * 5
    with pytest.raises(PointCloudFileError, match=r"ball_1\.off: "):
        MeshFolder(root, test_fraction=0, strict=True)
    for file in root.rglob("*.*"):
        if file.suffix in (".off", ".ply"):
            file.write_bytes(b"")
    with pytest.raises(PointCloudFileError, match=r"its train split holds no file that can be read: .*ball_"):
        MeshFolder(root)


def test_up_and_normals_reach_the_files(tmp_path):
    root = write_meshes(tmp_path, count=2)
    as_is, turned = (MeshFolder(root, test_fraction=0, normals=True, up=up) for up in (None, "y"))
    x, y, z = as_is.points[-1, :3]
    torch.testing.assert_close(turned.points[-1, :3], torch.stack([x, -z, y]))
    torch.testing.assert_close(turned.points[-1, 3:].norm(dim=0), torch.ones(KEPT))
    ball = as_is.points[0]
    assert (torch.nn.functional.normalize(ball[:3], dim=0) * ball[3:]).sum(0).min() > 0.9  # outward
    np.savetxt(root / "box" / "bare.xyz", np.random.default_rng(0).standard_normal((50, 3)))
    data = MeshFolder(root, test_fraction=0, normals=True)
    assert [str(error).endswith("bare.xyz: has no normals") for error in data.bad] == [True]


def test_a_file_is_sampled_the_same_each_time_and_by_its_name(tmp_path):
    root = write_meshes(tmp_path)
    one, again, other = (sample_file(root / "ball" / f"ball_{i}.off", 64)[0] for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    (tmp_path / "point.xyz").write_text("1 2 3\n1 2 3\n")
    with pytest.raises(PointCloudFileError, match=r"point\.xyz: has no extent: all its points are one"):
        sample_file(tmp_path / "point.xyz", 8)


def test_open_dataset_passes_on_what_a_set_can_do(tmp_path):
    root = write_meshes(tmp_path)
    assert open_dataset("folder", root, "train", 64, normals=True)[0][0].shape == (6, 64)
    (root / "ball" / "ball_0.off").write_text("")
    part = next(split for split in ("train", "test") if open_dataset("folder", root, split, 64).bad)
    with pytest.raises(PointCloudFileError, match="ball_0"):
        open_dataset("folder", root, part, 64, strict=True)
    with pytest.raises(ValueError, match="the data set shapes has no normals"):
        open_dataset("shapes", tmp_path, "train", 64, normals=True)
    with pytest.raises(ValueError, match="the data set shapes has columns of its own"):
        open_dataset("shapes", tmp_path, "train", 64, columns="x,y,z")


def test_the_columns_of_tables_may_be_named_by_hand(tmp_path):
    rows = np.random.default_rng(0).standard_normal((50, 4))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savetxt(tmp_path / name / "cloud.txt", rows)
    for columns, places in (("", [0, 1, 2]), ("_,z,y,x", [3, 2, 1]), ("", [0, 1, 2])):  # not one cache for all
        data = open_dataset("folder", tmp_path, "train", 50, columns=columns) if columns else MeshFolder(tmp_path)
        extent = np.ptp(rows[:, places], axis=0)
        found = np.ptp(data.points[0].numpy(), axis=1)
        np.testing.assert_allclose(found / found[0], extent / extent[0], rtol=1e-4)
    with pytest.raises(ValueError, match="no column 'red'"):
        MeshFolder(tmp_path, columns="x,y,z,red")


def test_files_that_are_passed_over_are_one_line_however_many_they_are(tmp_path, capsys, monkeypatch):
    root = write_meshes(tmp_path / "own", count=3)
    (root / "README").write_text("not in a class")
    (root / "tree").mkdir()
    for i, suffix in enumerate((".fls", ".FLS", ".e57", ".a", ".b", ".c", "", ".d", ".fls")):
        (root / "tree" / f"{i}{suffix}").touch()
    (root / "ball" / ".DS_Store").touch()
    line = "9 files passed over for the suffix: 3 .fls, 1 without, 1 .a, 1 .b, 1 .c and 2 more kinds"
    (root / "box" / "box_0.off").write_text("OFF\n")
    (root / "Validation" / "ball").mkdir(parents=True)
    others = ["no class, as there is no file to read: tree"]
    others.append("not read, as folders of splits are named train, val and test: Validation")
    assert MeshFolder(root).notes == MeshFolder(root, "test").notes == [line, *others]
    words = ["--dataset", "folder", "--root", str(root), *QUICK, "--out", str(tmp_path / "run")]
    assert command_line.main(["train", *words]) == 0
    assert capsys.readouterr().out.count(line) == 1
    assert command_line.main(["evaluate", str(tmp_path / "run"), *words[:4], "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count(line) == 1
    assert command_line.main(["show", "folder", "--root", str(root), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(line) == 1
    assert printed.count("skipped: ") == 1
    for command in ("show", "predict"):
        monkeypatch.chdir(tmp_path)
        assert command_line.main([command, str(root)]) == 1
        printed = capsys.readouterr()
        assert f"{root}: 10 files passed over for the suffix: 3 .fls, 2 without, 1 .a" in "".join(printed)
    command_line.main(["predict", f"{tmp_path}/ow*", f"{root}/*"])
    printed = capsys.readouterr().err
    assert printed.count("passed over") == printed.count(f"{root}: 10 files passed over for the suffix: 3 .fls") == 1
    shutil.copytree(root / "tree", tmp_path / "only" / "tree")
    for command in ("show", "predict"):
        line = error_of(capsys, command_line.main, [command, str(tmp_path / "only")])
        assert "holds no file of points; 9 files passed over for the suffix: 3 .fls" in line
    with pytest.raises(PointCloudFileError, match="; wanted root/<class>/<files>; 9 files passed over for"):
        MeshFolder(tmp_path / "only")


def test_links_that_lead_nowhere_are_counted_and_linked_folders_are_read(tmp_path, capsys):
    root = write_meshes(tmp_path / "own", count=3)
    (root / "ball" / "gone.off").symlink_to(tmp_path / "annex" / "gone.off")
    (root / "box" / "also").symlink_to("nothing")
    (root / "box" / "not.png").symlink_to("nothing")
    (root / "box" / "round").symlink_to(root)
    line = "2 links or folders that cannot be opened, such as ball/gone.off"
    assert MeshFolder(root).notes == [line]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "all").symlink_to(root)
    for name in ("ball", "box"):
        (tmp_path / "linked" / name).symlink_to(root / name)
        (root / name / "out").symlink_to(tmp_path)
    assert len(files_in(tmp_path / "linked")) == len(files_in(root)) == 6
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.ply").symlink_to("nothing")
    message = error_of(capsys, command_line.main, ["predict", str(tmp_path / "empty")])
    assert "holds no file of points; 1 link or folder that cannot be opened, such as a.ply" in message


def test_one_name_in_both_spellings_of_unicode_is_one_class_and_nearly_the_same_names_are_said(tmp_path):
    write_meshes(tmp_path / "train", (unicodedata.normalize("NFD", "Tür"), "ball"), 2)
    write_meshes(tmp_path / "test", (unicodedata.normalize("NFC", "Tür"), "ball"), 1)
    train, test = (MeshFolder(tmp_path, split, num_points=16) for split in ("train", "test"))
    assert train.classes == test.classes == (unicodedata.normalize("NFC", "Tür"), "ball")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    assert not any(note.startswith("classes of") for note in train.notes)
    flat = write_meshes(tmp_path / "flat", (unicodedata.normalize("NFD", "Tür"), unicodedata.normalize("NFC", "Tür")))
    assert len(MeshFolder(flat, num_points=16, test_fraction=0)) == 10
    names = ("Night Stand", "ball", "night_stand ", "stand")
    said = "classes of nearly the same name: 'Night Stand', 'night_stand '; give their folders one name if they are one"
    alike = MeshFolder(write_meshes(tmp_path / "alike", names, 2), num_points=16, test_fraction=0)
    assert [note for note in alike.notes if note.startswith("classes of")] == [f"{said} class"]


def test_names_of_splits_are_no_classes_and_other_spellings_of_them_are_found(tmp_path):
    for name, splits in (("a", ("train", "test")), ("b", ("Train", "Test")), ("c", ("training", "validation"))):
        with pytest.raises(PointCloudFileError, match=f"holds files in .*{splits[0]}.*no classes; wanted root/train/"):
            MeshFolder(write_meshes(tmp_path / name, splits, 2))
        deeper = tmp_path / name / "deeper"
        for split in ("Train", "Test"):
            write_meshes(deeper / split, count=3)
        with pytest.raises(
            PointCloudFileError, match="12 elsewhere, such as Test/ball/.*: folders of splits are named t"
        ):
            MeshFolder(deeper)
    alone = write_meshes(tmp_path / "alone" / "test", ("box", "ball"), 2).parent
    assert (MeshFolder(alone, "test", num_points=16).classes, len(MeshFolder(alone, "test"))) == (("ball", "box"), 4)
    with pytest.raises(PointCloudFileError, match="has no file for its train split"):
        MeshFolder(alone)
    write_meshes(alone / "val", ("box", "ball"), 2)  # which is not trained on either
    with pytest.raises(PointCloudFileError, match="has no file for its train split"):
        MeshFolder(alone)
    assert len(MeshFolder(alone, "test", num_points=16)) == 4
    half = write_meshes(tmp_path / "half" / "train", count=1).parent
    write_meshes(half / "Test", count=1)
    with pytest.raises(PointCloudFileError, match="no file for its test split.* 2 elsewhere, such as Test/ball"):
        MeshFolder(half, "test")
    assert MeshFolder(write_meshes(tmp_path / "vehicles", ("train", "car")), num_points=16).classes == ("car", "train")


def test_a_class_of_nothing_but_what_predict_wrote_is_said(tmp_path):
    for name in ("chair/a.xyz", "chair/b.parts.ply", "labels/a.xyz.parts.ply"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    for name in ("chair/a.xyz", "chair/b.xyz"):
        (tmp_path / name).write_text("0 0 0\n1 0 0\n0 1 0\n")
    header = (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    for name in ("chair/b.parts.ply", "labels/a.xyz.parts.ply"):
        (tmp_path / name).write_text(header + "0 0 0\n")
    said = [note for note in MeshFolder(tmp_path).notes if "predict" in note]
    beside = "files with labels that predict wrote: 1, such as chair/b.parts.ply; move them out unless they are meant"
    assert said == ["class labels holds only what predict writes; if it is none, move it out", beside]
