"""Poisoned caches."""

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from pointnet.datasets import workers
from pointnet.datasets.cache import cached_clouds
from pointnet.files import write_atomically, write_json

from .pickles import Malice
from .trial import FAILED, Read, Trials, refused_or


def numbered(file: Path) -> np.ndarray[Any, Any]:
    """Stands for sampling: the file's first byte, everywhere."""
    return np.full((3, 4), file.read_bytes()[0], np.float32)


def numbered_files(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i:04d}.bin" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]))
    return files


def read_numbered(files: list[Path]) -> list[float]:
    with patch.object(workers, "free_cores", lambda: 1), contextlib.redirect_stderr(io.StringIO()):
        found = cached_clouds(files, numbered, (3, 4), "a", files[0].parent)
    assert not found.bad, found.bad
    return list(found.points.ravel().tolist())


def make_pipe(path: Path, *_: Any) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path, *_: Any) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


def link_to(target: str) -> Callable[..., None]:
    def make(path: Path, *_: Any) -> None:
        path.unlink()
        path.symlink_to(target)

    return make


def forge(path: Path, choice: random.Random, _: Path) -> None:
    """JSON of other values under a right hash, and any bytes in place of an array."""
    if path.suffix != ".json":
        path.write_bytes(choice.randbytes(choice.randrange(2000)))
        return
    known = json.loads(path.read_bytes().partition(b"\n")[2])
    key = choice.choice(list(known))
    known[key] = choice.choice([None, -1, 10**30, [], {}, "x", [[0]] * 20, [10**9] * 20, [-1] * 20, ["x"] * 20])
    path.unlink()
    write_json(path, known)


def pickled(path: Path, _: random.Random, ran: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Malice(os.mkdir, str(ran))] * 20), allow_pickle=True)


def from_another(path: Path, choice: random.Random, _: Path) -> None:
    """The same file of a cache of other files."""
    others = numbered_files(path.parents[2] / "others")
    for file in others:
        file.write_bytes(bytes([choice.randrange(256)]))
    read_numbered(others)
    kind = "contents" if "contents" in path.name else "?" * 16
    (other,) = (others[0].parent / ".cache").glob(f"{kind}{path.suffix}")
    shutil.copy(other, path)


POISONS: dict[str, Callable[[Path, random.Random, Path], None]] = {
    "cut": lambda path, choice, _: os.truncate(path, choice.randrange(path.stat().st_size)),
    "empty": lambda path, *_: os.truncate(path, 0),
    "deep": lambda path, choice, _: write_atomically(path, b"[" * choice.randrange(100_000)),
    "pipe": make_pipe,
    "folder": make_folder,
    "endless": link_to("/dev/zero"),
    "nowhere": link_to("nowhere"),
    "itself": link_to("."),
    "forged": forge,
    "pickle": pickled,
    "another's": from_another,
}


def caches(count: int, folder: Path) -> Trials:
    """Puts something else in the place of a file of a cache, and reads the clouds."""
    choice, ran = random.Random(0), folder / "ran"
    files = numbered_files(folder / "set")
    wanted = read_numbered(files)
    for _ in range(count):
        pattern = choice.choice(["?" * 16 + ".npy", "?" * 16 + ".json", "contents.json"])
        (path,) = (folder / "set" / ".cache").glob(pattern)
        poison = choice.choice(list(POISONS))
        POISONS[poison](path, choice, ran)
        found = refused_or(partial(read_numbered, files), folder)
        is_right = isinstance(found, Read) and found.value == wanted and path.is_file() and not path.is_symlink()
        yield "made again" if is_right and not ran.exists() else f"{FAILED}: {poison} {path.suffix}: {found}"
        shutil.rmtree(folder / "others", ignore_errors=True)
        if not is_right:
            shutil.rmtree(folder / "set" / ".cache")
            read_numbered(files)
