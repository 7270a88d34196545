"""The cache of sampled files: right after every change, whole after every accident."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pointnet.datasets import PointCloudFileError, cache, known, workers
from pointnet.datasets.cache import cached_clouds
from pointnet.datasets.known import read_known
from pointnet.files import content_hash, read_json, write_json
from tests.forms import forms

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


def test_a_set_that_moves_is_not_hashed_again_and_files_that_are_gone_are_forgotten(files, tmp_path, monkeypatch):
    root, hashed = files[0].parent, []
    cached_clouds(files, numbered, (3, 4), "a", root)
    moved = root.rename(tmp_path / "moved")
    files = [moved / file.name for file in files]
    files.pop().unlink()
    (new := moved / "new.bin").write_bytes(b"7")
    monkeypatch.setattr(known, "content_hash", lambda file: hashed.append(file) or content_hash(file))
    cached_clouds([*files, new], numbered, (3, 4), "a", moved)
    assert hashed == [new]
    assert read_known(moved, "contents").keys() == {file.name for file in (*files, new)}


def test_transient_failures_are_reported_but_not_cached(files, tmp_path, monkeypatch):
    root, status = files[0].parent, known.status_of
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

    monkeypatch.setattr(known, "status_of", hidden)
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
        np.testing.assert_array_equal(made.points[:, 0, 0], expected)
        assert made.files == [files[i] for i in expected]
        assert len(log.read_text().split()) == sampled


def listed(folder: Path) -> np.ndarray:
    """Stands for reading a folder: how many files it has, and the sum of their first bytes."""
    content = [len(list(folder.iterdir())), sum(file.read_bytes()[0] for file in folder.iterdir()), 0, 0]
    return np.tile(np.array(content, np.float32), (3, 1))


def with_hash(file: Path) -> tuple[np.ndarray, tuple[str, ...], str]:
    return numbered(file), (), f"points {file.stem}" if file.stem[-1] != "0" else ""


def test_hashes_of_points_are_kept_and_known_of_the_files_of_other_caches(files):
    root, first, second = files[0].parent, files[1:7], files[5:12]
    wanted = {file: f"points {file.stem}" for file in files[1:12] if file.stem[-1] != "0"}
    of_first = {file: its for file, its in wanted.items() if file in first}
    for _ in range(2):
        made = cached_clouds(first, with_hash, (3, 4), "a", root, others=[files[20]])
        assert made.points_hashes == of_first
    assert cached_clouds(second, with_hash, (3, 4), "a", root, others=files).points_hashes == wanted
    assert {*cached_clouds(files[20:23], with_hash, (3, 4), "b", root, others=files).points_hashes} < {*files[20:23]}


def test_a_cache_of_the_version_without_hashes_of_points_is_read(files):
    root, log = files[0].parent, files[0].parent / "log"
    wanted = cached_clouds(files, numbered, (3, 4), "a", root).points.copy()
    (listing,) = (root / ".cache").glob("?" * 16 + ".json")
    write_json(listing, {name: held for name, held in read_json(listing).items() if name != "points_hashes"})
    again = cached_clouds(files, partial(numbered, log=log), (3, 4), "a", root)
    np.testing.assert_array_equal(again.points, wanted)
    assert not log.exists()
    assert again.points_hashes == {}


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
    before = content_hash(folders[2])
    (folders[2] / "table.txt").rename(folders[2] / "sofa.txt")  # what a file is called may say what it holds
    assert content_hash(folders[2]) != before


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]), "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(), "a list": lambda path: path.write_bytes(b"[]"),
    "other keys": lambda path: path.write_bytes(b'{"keys": 3}'), "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "open": lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"{")),
}  # fmt: skip


@pytest.mark.parametrize("name", forms(DAMAGE, "cut", "a list"))
@pytest.mark.parametrize("which", forms(["*.npy", "?" * 16 + ".json", "contents.json"], "*.npy"))
def test_a_damaged_cache_is_made_again(files, which, name):
    root = files[0].parent
    wanted = cached_clouds(files, numbered, (3, 4), "a", root).points.copy()
    for path in (root / ".cache").glob(which):
        DAMAGE[name](path)
    np.testing.assert_array_equal(cached_clouds(files, numbered, (3, 4), "a", root).points, wanted)


def test_what_is_written_to_the_points_stays_out_of_the_cache(files):
    points = cached_clouds(files, numbered, (3, 4), "a", files[0].parent).points
    points[:] = -1
    assert (cached_clouds(files, numbered, (3, 4), "a", files[0].parent).points >= 0).all()


def slow(file: Path, log: Path) -> np.ndarray:
    time.sleep(0.05)
    return numbered(file, log)


def wait_until_alone(group: int) -> None:
    """Waits until no process of a group is left."""
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("a worker outlived its parent")


def in_a_group(function, *arguments) -> None:
    os.setsid()
    function(*arguments)


@pytest.mark.slow
def test_a_cache_that_was_killed_half_way_leaves_no_process_and_what_is_whole_is_kept(files, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "free_cores", lambda: 2)
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    sampler = partial(slow, log=log)
    process = context.Process(target=in_a_group, args=(cached_clouds, files, sampler, (3, 4), "a", files[0].parent))
    process.start()
    cached = files[0].parent / ".cache"
    while len(list(cached.glob("*.pieces/*"))) < 5:
        assert process.is_alive()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    wait_until_alone(process.pid)
    done = [path for path in cached.glob("*.pieces/*") if len(path.name) == 64]
    assert 5 <= len(done) < len(files)
    assert not list(cached.glob("*.npy"))
    log.unlink()
    for piece, content in zip(done, (b"", b"+", b"\0" * 81, done[3].read_bytes()[:-1]), strict=False):
        piece.write_bytes(content)
    made = cached_clouds(files, partial(numbered, log=log), (3, 4), "a", files[0].parent)
    assert len(log.read_text().split()) == len(files) - len(done) + 4
    np.testing.assert_array_equal(made.points[:, 0, 0], kept(files))
    assert not list(cached.glob("*.pieces"))


def dies(file: Path) -> np.ndarray:
    if file.name == "0010.bin":
        os._exit(1)
    if int(file.stem) == 9:
        time.sleep(0.5)  # is ended by then
    return numbered(file)


def test_a_process_that_dies_ends_it_at_once_in_one_line_that_names_the_file(files, monkeypatch):
    monkeypatch.setattr(workers, "free_cores", lambda: 2)
    with pytest.raises(PointCloudFileError, match=r"a process died \(out of memory\?\) while") as caught:
        cached_clouds(files, dies, (3, 4), "a", files[0].parent)
    assert "0010.bin" in str(caught.value)
    assert "0030.bin" not in str(caught.value)


def breaks(file: Path) -> np.ndarray:
    raise KeyError(file.name)


def test_a_samplers_own_mistake_comes_through(files, monkeypatch):
    monkeypatch.setattr(workers, "free_cores", lambda: 2)
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
