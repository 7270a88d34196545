"""What is wrong with a cache is noticed by its hashes and made again; what is no file is never waited for."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pointnet.datasets import PointCloudFileError, cache
from pointnet.datasets.cache import cached_clouds
from pointnet.datasets.known import read_known, write_known
from pointnet.files import read_json, write_json
from tests.forms import forms
from tests.helpers import before_long

LISTING = f"{'?' * 16}.json"  # of a cache


def numbered(file: Path, log: Path | None = None) -> np.ndarray:
    """Stands for sampling: the file's first byte, everywhere; what it does is written down."""
    if log is not None:
        with log.open("a") as stream:
            stream.write(f"{file.name}\n")
    return np.full((3, 4), file.read_bytes()[0], np.float32)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    root = tmp_path / "set"
    root.mkdir()
    made = [root / f"{i:04d}.bin" for i in range(31)]
    for i, file in enumerate(made):
        file.write_bytes(bytes([i]))
    return made


def test_of_a_damaged_cache_the_damaged_piece_alone_is_made_again(files, tmp_path, capsys):
    root, log = files[0].parent, tmp_path / "log"
    sampler = partial(numbered, log=log)
    wanted = cached_clouds(files[1:], sampler, (3, 4), "a", root).points.copy()
    (path,) = (root / ".cache").glob("*.npy")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    log.unlink()
    capsys.readouterr()
    np.testing.assert_array_equal(cached_clouds(files[1:], sampler, (3, 4), "a", root).points, wanted)
    assert log.read_text() == "0030.bin\n"
    assert capsys.readouterr().err == f"{path}: 1 of 30 damaged; made again\n"


def test_a_damaged_note_is_not_believed_and_one_of_an_earlier_version_is(tmp_path, capsys):
    write_known({"chair_1.off": True, "chair_2.off": False}, tmp_path, "split")
    (path,) = (tmp_path / ".cache").iterdir()
    good = path.read_bytes()
    path.write_bytes(good.replace(b"chair_2", b"chair_3"))
    assert read_known(tmp_path, "split") == {}
    assert capsys.readouterr().err == f"{path}: damaged; made again\n"
    path.write_bytes(good.partition(b"\n")[2])
    assert read_known(tmp_path, "split") == {"chair_1.off": True, "chair_2.off": False}


@pytest.mark.parametrize(
    "forged",
    forms(
        [
            {"keys": ["x"] * 31},
            {"bad": {"x": ""}},
            {"counts": [31]},
            {"hashes": []},
            {"bad": 0},
            {"notes": []},
            {"notes": ["x"] * 30},
        ],
        {"counts": [31]},
        {"notes": []},
    ),
)
def test_a_listing_that_contradicts_itself_is_made_again_even_with_a_right_hash(files, forged):
    root = files[0].parent
    wanted = cached_clouds(files, numbered, (3, 4), "a", root).points.copy()
    (path,) = (root / ".cache").glob(LISTING)
    write_json(path, read_json(path) | forged)
    np.testing.assert_array_equal(cached_clouds(files, numbered, (3, 4), "a", root).points, wanted)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


@pytest.mark.parametrize("instead", [pipe, endless, folder])
@pytest.mark.parametrize("which", forms(["*.npy", LISTING, "contents.json"], "*.npy"))
def test_what_is_no_file_in_the_place_of_one_is_never_read_and_made_again(files, which, instead):
    root = files[0].parent
    wanted = cached_clouds(files, numbered, (3, 4), "a", root).points.copy()
    (path,) = (root / ".cache").glob(which)
    instead(path)
    with before_long():
        np.testing.assert_array_equal(cached_clouds(files, numbered, (3, 4), "a", root).points, wanted)
    assert path.is_file()
    assert not path.is_symlink()


def test_pieces_that_are_no_files_are_made_again_and_those_that_nobody_goes_on_with_are_removed(files, monkeypatch):
    root, pieces = files[0].parent, []

    def sampler(file: Path) -> np.ndarray:
        if file == files[9]:
            raise PointCloudFileError(file, "cannot be read") from OSError(5, "Input/output error")
        return numbered(file)

    monkeypatch.setattr(cache, "_remove_pieces", lambda whole: pieces.append(whole.with_suffix(".pieces")))
    cached_clouds(files, sampler, (3, 4), "a", root)
    monkeypatch.undo()
    (root / ".cache" / "0123456789abcdef.pieces").mkdir()
    os.utime(root / ".cache" / "0123456789abcdef.pieces", (0, 0))
    first, second, third = sorted((root / ".cache").glob("*.pieces/*"))[:3]
    pipe(first)
    endless(second)
    third.unlink()
    (third / "x").mkdir(parents=True)
    with before_long():
        assert len(cached_clouds(files, numbered, (3, 4), "a", root).files) == len(files)
    assert not list((root / ".cache").glob("0123456789abcdef.pieces"))
