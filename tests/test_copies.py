"""Thinned and cropped copies of a cloud: known by its points, on one side, and reported where they are not."""

import numpy as np

from pointnet.datasets import MeshFolder
from pointnet.points.formats import contents
from pointnet.points.formats.contents import Contents
from pointnet.points.hashing import copies_of, hash_of, with_copies, without_sketch
from pointnet.training.run_folder import trained_on, write_files
from tests.own_points import both, make_object, save


def test_thinned_and_cropped_copies_on_both_sides_are_counted(tmp_path):
    for i in range(4):
        rows = make_object("pin", i, 2000).round(6)
        save(tmp_path / "train" / "pin" / f"a{i}.txt", rows, "x y z label")
        parts = rows[::10], rows[rows[:, 0] > np.median(rows[:, 0])], rows, make_object("pin", 9, 2000)
        save(tmp_path / "test" / "pin" / f"b{i}.npy", parts[i][::-1])
    said = (
        "files for testing that share points with files for training: 2, such as test/pin/b0.npy and train/pin/a0.txt"
    )
    for split in ("train", "test"):  # of a split that was not opened yet, hashes are not known
        notes = MeshFolder(tmp_path, split, num_points=16, columns="x,y,z,label").notes
    assert [note for note in notes if "share points" in note] == [f"{said}; remove one of each"]


def test_thinned_copies_are_drawn_for_one_side_and_known_to_a_run(tmp_path):
    for i in range(8):
        rows = make_object("pin", i, 1000)[:, :3]
        save(tmp_path / "all" / "a" / f"first{i}.txt", rows, "x y z")
        save(tmp_path / "all" / "a" / f"thin{i}.txt", rows[::5], "x y z")
        save(tmp_path / "new" / "a" / f"half{i}.txt", rows[:500] if i < 3 else rows + 0.1, "x y z")
    for seed in range(4):
        for side in both(tmp_path / "all", seed=seed):
            first, thin = ({name[-5] for name in side if name.startswith(f"a/{of}")} for of in ("first", "thin"))
            assert first == thin != set()
    data = MeshFolder(tmp_path / "all", num_points=16, test_fraction=0)
    first = data.first_clouds()
    assert len(first.unique()) == 8
    assert [data.files[row].stem[-1] for row in first] == [f.stem[-1] for f in data.files]
    write_files(tmp_path, data)
    new = MeshFolder(tmp_path / "new", num_points=16, test_fraction=0)
    assert trained_on(tmp_path, new) == [f"a/half{i}.txt" for i in range(3)]


def test_a_cloud_is_known_in_every_copy_of_it_and_in_no_other_part(monkeypatch):
    draw = np.random.default_rng(0)
    cloud = draw.normal(size=(4000, 3))
    whole = hash_of(Contents(cloud))
    with monkeypatch.context() as patched:
        patched.setattr(contents, "BLOCK", 300)
        assert hash_of(Contents(cloud)) == whole
    thinned = {i: hash_of(Contents(cloud[draw.random(4000) < 0.5])) for i in range(40)}
    for several in ({-1: whole} | thinned, thinned | {-1: whole}):
        assert len({*with_copies(several).values()}) == 1
    assert len({*with_copies(thinned).values()}) == 40  # which share half of their points
    assert copies_of([whole], thinned) == {*range(40)}
    low, high, both = (hash_of(Contents(cloud[of])) for of in (cloud[:, 0] < 0, cloud[:, 0] > 0, slice(None)))
    assert copies_of([low], {"low": low, "high": high, "both": both}) == {"low", "both"}
    assert copies_of([without_sketch(low)], {"low": low, "both": both}) == {"low"}  # of an earlier version


def test_points_that_repeat_their_coordinates_are_no_copies_of_others():
    draw = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(16.0)] * 3), -1).reshape(-1, 3)
    plane = draw.normal(size=(4096, 3)) * [1, 0, 1] + [0, 7, 0]
    for points in (grid, plane):
        order = draw.permutation(points)
        some = {share: hash_of(Contents(order[: int(share * len(grid))])) for share in (0.5, 0.99, 1)}
        assert len({*with_copies(some).values()}) == 3


def test_files_that_all_share_most_points_are_drawn_all_the_same_and_said(tmp_path):
    background = make_object("pin", 0, 1000)[:, :3]
    for i in range(10):
        save(tmp_path / "a" / f"{i}.txt", np.vstack([background, 3 + make_object("pin", i, 30)[:, :3]]), "x y z")
        save(tmp_path / "b" / f"{i}.txt", make_object("pin", 50 + i, 100)[:, :3], "x y z")
    data = [MeshFolder(tmp_path, split, num_points=16) for split in ("train", "test")]
    assert [len(each) for each in data] == [16, 4]
    (note,) = [note for note in data[1].notes if "share points" in note]
    assert note.startswith("files for testing that share points with files for training: 2, such as a/")


def test_files_of_two_classes_that_share_points_are_said_and_not_to_be_removed(tmp_path):
    for i in range(4):
        whole = make_object("pin", i, 1000)[:, :3]
        save(tmp_path / "good" / f"{i}.txt", whole, "x y z")
        save(
            tmp_path / "dented" / f"{i}.txt", np.where(whole[:, 2:] > np.quantile(whole[:, 2], 0.95), 2, whole), "x y z"
        )
    notes = MeshFolder(tmp_path, num_points=16, test_fraction=0).notes
    said = "files that share points with files of another class: 4, such as dented/0.txt and good/0.txt"
    assert notes == [f"{said}; are both classes meant?"]
