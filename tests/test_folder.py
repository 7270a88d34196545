"""A folder of anyone's files: which are read, how they are split, sampled and cached."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pointnet.datasets import LabelledClouds, MeshFolder, PointCloudFileError, cache, open_dataset, read_points
from pointnet.datasets.cache import cached_clouds
from pointnet.datasets.folder import KEPT, sample_file

FILES = Path(__file__).parents[1] / "data" / "samples" / "files"


def write_meshes(root: Path, classes=("ball", "box"), count: int = 5) -> Path:
    """`root/<class>/<class>_<i>.off`, balls and boxes of their own sizes."""
    for name in classes:
        folder = root / name
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
        shutil.copy(root / "ball" / "ball_0.off", root / "ball" / f"ball_{i}.off")
    (root / "box" / "box_3.off").unlink()
    after = {split: {file.name for file in MeshFolder(root, split).files} for split in ("train", "test")}
    assert not after["train"] & parts["test"]
    assert not after["test"] & parts["train"]
    assert sum(name.startswith("ball") for name in after["test"]) == 4


def test_train_and_test_may_stand_above_the_classes(tmp_path):
    write_meshes(tmp_path / "train", count=3)
    write_meshes(tmp_path / "test", ("box",), count=2)
    assert MeshFolder(tmp_path, "train").labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert MeshFolder(tmp_path, "test").labels.tolist() == [1, 1]


def test_files_elsewhere_are_told_not_passed_over(tmp_path):
    root = write_meshes(tmp_path)
    (root / "ball" / "more").mkdir()
    for stray in (root / "loose.off", root / "ball" / "more" / "deep.OFF"):
        shutil.copy(root / "ball" / "ball_0.off", stray)
    shutil.copy(root / "ball" / "ball_0.off", root / "ball" / "CAPITAL.OFF")
    data = MeshFolder(root, test_fraction=0)
    assert "CAPITAL.OFF" in {file.name for file in data.files}
    assert [(error.path.name, error.reason.split(":")[0]) for error in data.bad] == [
        ("deep.OFF", "not looked at"), ("loose.off", "not looked at"),
    ]  # fmt: skip


def test_far_from_the_origin_and_of_any_size_a_shape_is_the_same(tmp_path):
    x = np.random.default_rng(0).standard_normal((300, 3))
    wanted = None
    for i, made in enumerate((x, x + np.array([500_000, 5_400_000, 100]), 1e25 * x, 1e-25 * x)):
        folder = tmp_path / str(i)
        folder.mkdir()
        np.save(folder / "same.npy", made)
        got = sample_file(folder / "same.npy", 300)
        wanted = got if wanted is None else wanted
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_a_class_of_one_or_two_files_is_trained_on(tmp_path):
    write_meshes(tmp_path, ("ball",), count=1)
    write_meshes(tmp_path, ("box",), count=2)
    assert sorted(MeshFolder(tmp_path, "train").labels.tolist()) == [0, 1]
    assert MeshFolder(tmp_path, "test").labels.tolist() == [1]


def test_folders_named_train_and_test_are_the_split(tmp_path):
    for name in ("ball", "box"):
        for split, count in (("train", 3), ("test", 2)):
            write_meshes(tmp_path / "made", (name,), count=count)
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / "made" / name).rename(tmp_path / name / split)
    (tmp_path / "made").rmdir()
    shutil.rmtree(tmp_path / "box" / "test")
    train, test = MeshFolder(tmp_path, "train"), MeshFolder(tmp_path, "test")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0]
    assert train.classes == test.classes == ("ball", "box")


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


def test_a_folder_of_nothing_is_one_clear_line(tmp_path):
    with pytest.raises(
        PointCloudFileError, match="no such folder; --root must name one with a folder of files for each"
    ):
        MeshFolder(tmp_path / "nowhere")
    with pytest.raises(PointCloudFileError, match=r"holds no folder with files to read .*wanted root/<class>/<files>"):
        MeshFolder(tmp_path)
    write_meshes(tmp_path, count=1)
    with pytest.raises(PointCloudFileError, match="has no file for its test split: a class needs two files or more"):
        MeshFolder(tmp_path, "test")
    for arguments, message in (
        ({"split": "val"}, "split must be one of 'train', 'test', got 'val'"),
        ({"num_points": 0}, "num_points must be 1 to 1,000,000, got 0"),
        ({"test_fraction": 1}, r"test_fraction must be in \[0, 1\), got 1"),
        ({"up": "x"}, "up must be one of None, 'z', 'y', got 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            MeshFolder(tmp_path, **arguments)


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


# The cache.


BAD = (0, 33)


def numbered(file: Path, log: Path | None = None) -> np.ndarray:
    """Stands for sampling: the file's first byte, everywhere; what it does is written down."""
    if log is not None:
        with log.open("a") as stream:
            stream.write(f"{file.name}\n")
    content = file.read_bytes()
    if content.startswith(b"bad"):
        raise PointCloudFileError(file, "is bad")
    return np.full((3, 4), content[0], np.float32)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    root = tmp_path / "set"
    root.mkdir()
    made = [root / f"{i:04d}.bin" for i in range(60)]
    for i, file in enumerate(made):
        file.write_bytes(b"bad" if i in BAD else bytes([i]))
    return made


def kept(files: list[Path]) -> list[int]:
    return [i for i in range(len(files)) if i not in BAD]


def test_files_are_sampled_once_in_order(files, tmp_path):
    sampler = partial(numbered, log=tmp_path / "log")
    first = cached_clouds(files, sampler, (3, 4), "a", files[0].parent)
    assert [error.path for error in first.bad] == [files[i] for i in BAD]
    assert first.files == [files[i] for i in kept(files)]
    np.testing.assert_array_equal(first.points[:, 0, 0], kept(files))
    assert sorted((tmp_path / "log").read_text().split()) == [file.name for file in files]
    again = cached_clouds(files, sampler, (3, 4), "a", files[0].parent)
    assert len((tmp_path / "log").read_text().split()) == len(files)
    np.testing.assert_array_equal(again.points, first.points)
    assert [str(error) for error in again.bad] == [str(error) for error in first.bad]
    assert isinstance(again.points, np.memmap)
    assert {path.suffix for path in (files[0].parent / ".cache").iterdir()} == {".npy", ".json"}
    turned = cached_clouds(files[::-1], sampler, (3, 4), "a", files[0].parent)
    np.testing.assert_array_equal(turned.points[:, 0, 0], kept(files)[::-1])


def test_only_what_is_new_or_changed_is_sampled_and_caches_do_not_pile_up(files, tmp_path):
    root, log = files[0].parent, tmp_path / "log"
    sampler = partial(numbered, log=log)
    log.touch()

    def sampled(chosen, settings="a"):
        log.write_text("")
        made = cached_clouds(chosen, sampler, (3, 4), settings, root)
        np.testing.assert_array_equal(made.points[:, 0, 0], [file.read_bytes()[0] for file in made.files])
        return sorted(log.read_text().split())

    assert sampled(files[:20]) == [file.name for file in files[:20]]
    bad = ["0000.bin"]  # what is bad is looked at again whenever a cache is made
    assert sampled(files[:22]) == [*bad, "0020.bin", "0021.bin"]
    assert len(list((root / ".cache").glob("*.npy"))) == 1
    assert sampled(files[:3]) == bad
    assert sampled(files[:22], "b") == [file.name for file in files[:22]]
    times = files[5].stat()
    files[5].write_bytes(b"z")
    os.utime(files[5], ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size and time, and another
    assert sampled(files[:22]) == [*bad, "0005.bin"]
    os.utime(files[5])  # touched, and the same
    assert sampled(files[:22]) == []


def test_what_may_be_otherwise_tomorrow_is_told_and_not_kept(files, tmp_path, monkeypatch):
    root, status = files[0].parent, cache._status
    tired = tmp_path / "tired"
    tired.touch()

    def sampler(file: Path) -> np.ndarray:
        if tired.exists() and file == files[7]:
            raise PointCloudFileError(file, "cannot be read: Input/output error") from OSError(5, "Input/output error")
        return numbered(file)

    def hidden(file: Path) -> list[int]:
        if tired.exists() and file == files[9]:
            raise PermissionError(13, "Permission denied")
        return status(file)

    monkeypatch.setattr(cache, "_status", hidden)
    first = cached_clouds(files, sampler, (3, 4), "a", root)
    assert [error.path for error in first.bad] == [files[0], files[7], files[9], files[33]]
    assert len(first.files) == len(files) - 4
    tired.unlink()
    assert len(cached_clouds(files, sampler, (3, 4), "a", root).files) == len(files) - 2


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_what_it_was(files):
    def sampler(file: Path) -> np.ndarray:
        if file == files[7] and file.read_bytes() != b"longer":
            file.write_bytes(b"longer")
        return numbered(file)

    first = cached_clouds(files[:9], sampler, (3, 4), "a", files[0].parent)
    assert "0007.bin: changed while it was read" in str(first.bad[1])
    again = cached_clouds(files[:9], sampler, (3, 4), "a", files[0].parent)
    assert again.points[6, 0, 0] == ord("l")


def in_turn(file: Path, log: Path | None = None) -> np.ndarray:
    """As many clouds as the file's first byte over 3 leaves: none, one or two."""
    cloud = numbered(file, log)
    return np.stack([cloud] * 2)[: int(cloud[0, 0]) % 3]


def test_a_file_may_give_several_clouds_or_none(files, tmp_path):
    root, log = files[0].parent, tmp_path / "log"
    wanted = [i for i in kept(files) for _ in range(i % 3)]
    for chosen, sampled in ((files[:40], 40), (files, 22), (files, 0)):  # what was bad is tried again with what is new
        log.write_text("")
        made = cached_clouds(chosen, partial(in_turn, log=log), (3, 4), "a", root)
        expected = [i for i in wanted if i < len(chosen)]
        np.testing.assert_array_equal(
            made.points, np.broadcast_to(np.array(expected)[:, None, None], (len(expected), 3, 4))
        )
        assert made.files == [files[i] for i in expected]
        assert len(log.read_text().split()) == sampled


def test_a_cache_from_before_files_gave_several_clouds_is_used(files):
    root = files[0].parent
    wanted = cached_clouds(files, numbered, (3, 4), "a", root).points
    (array,) = (root / ".cache").glob("*.npy")
    listing = array.with_suffix(".json")
    held = json.loads(listing.read_text())
    del held["counts"]
    listing.write_text(json.dumps(held))
    np.testing.assert_array_equal(cached_clouds(files, breaks, (3, 4), "a", root).points, wanted)


def listed(folder: Path) -> np.ndarray:
    """Stands for reading a folder: how many files it has, and the sum of their first bytes."""
    content = [len(list(folder.iterdir())), sum(file.read_bytes()[0] for file in folder.iterdir()), 0, 0]
    return np.tile(np.array(content, np.float32), (3, 1))


def test_a_folder_stands_for_the_files_in_it(tmp_path):
    folders = [tmp_path / f"room_{i}" for i in range(3)]
    for i, folder in enumerate(folders):
        folder.mkdir()
        (folder / "chair.txt").write_bytes(bytes([i]))

    def read():
        return cached_clouds(folders, listed, (3, 4), "a", tmp_path).points[:, 0, :2].tolist()

    assert read() == [[1, 0], [1, 1], [1, 2]]
    (folders[1] / "chair.txt").write_bytes(bytes([7]))
    assert read() == [[1, 0], [1, 7], [1, 2]]
    (folders[2] / "table.txt").write_bytes(bytes([9]))
    assert read() == [[1, 0], [1, 7], [2, 11]]
    (folders[2] / "chair.txt").unlink()
    assert read() == [[1, 0], [1, 7], [1, 9]]
    before = cache._hash(folders[2])
    (folders[2] / "table.txt").rename(folders[2] / "sofa.txt")  # what a file is called may say what it holds
    assert cache._hash(folders[2]) != before


def test_what_is_not_whole_of_an_interrupted_cache_is_made_again(files, tmp_path, monkeypatch):
    root, log = files[0].parent, tmp_path / "log"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            cached_clouds(files, numbered, (3, 4), "a", root)
    halves = sorted((root / ".cache").glob("*.parts/*"))
    assert len(halves) == len(files)
    for half, content in zip(halves, (b"", b"+", b"\0" * 81, halves[3].read_bytes()[:-1]), strict=False):
        half.write_bytes(content)
    made = cached_clouds(files, partial(numbered, log=log), (3, 4), "a", root)
    np.testing.assert_array_equal(made.points[:, 0, 0], kept(files))
    assert len(log.read_text().split()) == 4


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:-7]), lambda path: path.write_bytes(b""),
    lambda path: path.unlink(), lambda path: path.write_bytes(b"[]"), lambda path: path.write_bytes(b'{"keys": 3}'),
])  # fmt: skip
@pytest.mark.parametrize("which", ["*.npy", "[0-9a-f]*.json", "contents-*.json"])
def test_a_damaged_cache_is_made_again(files, which, damage):
    root = files[0].parent
    wanted = cached_clouds(files, numbered, (3, 4), "a", root).points.copy()
    for path in (root / ".cache").glob(which):
        damage(path)
    np.testing.assert_array_equal(cached_clouds(files, numbered, (3, 4), "a", root).points, wanted)


def test_what_is_written_to_the_points_stays_out_of_the_cache(files):
    points = cached_clouds(files, numbered, (3, 4), "a", files[0].parent).points
    points[:] = -1
    assert (cached_clouds(files, numbered, (3, 4), "a", files[0].parent).points >= 0).all()


def slow(file: Path, log: Path) -> np.ndarray:
    time.sleep(0.05)
    return numbered(file, log)


def test_a_cache_that_was_killed_half_way_goes_on(files, tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    process = context.Process(target=cached_clouds, args=(files, partial(slow, log=log), (3, 4), "a", files[0].parent))
    process.start()
    parts = files[0].parent / ".cache"
    while len(list(parts.glob("*.parts/*"))) < 5:
        assert process.is_alive()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    lines = -1
    while lines != (lines := len(log.read_text().split())):  # its children end with the file they are at
        time.sleep(0.2)
    done = [path for path in parts.glob("*.parts/*") if len(path.name) == 64]
    assert 5 <= len(done) < len(files)
    assert not list(parts.glob("*.npy"))
    log.unlink()
    made = cached_clouds(files, partial(numbered, log=log), (3, 4), "a", files[0].parent)
    assert len(log.read_text().split()) == len(files) - len(done)
    np.testing.assert_array_equal(made.points[:, 0, 0], kept(files))
    assert not list(parts.glob("*.parts"))


def test_processes_that_cache_at_once_do_no_harm(files):
    context = multiprocessing.get_context("fork")
    work = partial(cached_clouds, files, numbered, (3, 4), "a", files[0].parent)
    processes = [context.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    np.testing.assert_array_equal(work().points[:, 0, 0], kept(files))


def dies(file: Path) -> np.ndarray:
    if file.name == "0010.bin":
        os._exit(1)
    if int(file.stem) % 2:
        time.sleep(1)  # the other process's
    return numbered(file)


def test_a_process_that_dies_ends_it_at_once_in_one_line(files, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    start = time.monotonic()
    with pytest.raises(
        PointCloudFileError, match=r"0010\.bin: a process died \(out of memory\?\) while it read this file"
    ):
        cached_clouds(files, dies, (3, 4), "a", files[0].parent)
    assert time.monotonic() - start < 15  # and not the half minute that the other has work for


def breaks(file: Path) -> np.ndarray:
    raise KeyError(file.name)


def test_a_samplers_own_mistake_comes_through(files, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(KeyError, match=r"\.bin"):
        cached_clouds(files, breaks, (3, 4), "a", files[0].parent)


def test_a_ready_cache_is_used_where_nothing_can_be_written(files, tmp_path, monkeypatch):
    wanted = cached_clouds(files, numbered, (3, 4), "a", files[0].parent).points
    monkeypatch.setattr(cache.os, "access", lambda *_: False)
    np.testing.assert_array_equal(cached_clouds(files, breaks, (3, 4), "a", files[0].parent).points, wanted)


def test_a_folder_that_cannot_be_written_is_cached_with_the_user(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    monkeypatch.setattr(cache.os, "access", lambda path, _: "mine" in str(path))
    cached_clouds(files, numbered, (3, 4), "a", files[0].parent)
    assert list((tmp_path / "mine" / "pointnet-shared-mlp").glob("*.npy"))
    monkeypatch.setattr(cache.os, "access", lambda path, _: False)
    with pytest.raises(PermissionError, match="no place for a cache of"):
        cached_clouds(files, numbered, (3, 4), "b", files[0].parent)


def test_a_file_is_sampled_the_same_each_time_and_by_its_name(tmp_path):
    root = write_meshes(tmp_path)
    one, again, other = (sample_file(root / "ball" / f"ball_{i}.off", 64) for i in (0, 0, 1))
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
