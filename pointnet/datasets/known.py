"""What is known of a data set, kept as JSON with its cached clouds, and where that is."""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pointnet.files import content_hash, files_of, name_in, read_json, user_cache, write_json
from pointnet.names import say
from pointnet.points.read import PointCloudFileError, read_beside

FileStates = dict[Path, list[Any]]  # of each file its status (`status_of`), then its sha256
Errors = dict[Path, PointCloudFileError]


def cache_folders(root: Path) -> list[Path]:
    """Where caches are: beside the data set, or in the user's cache, where each file is named after its data set."""
    folders = [root / ".cache"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        folders.append(user_cache())
    return folders


def writable_folder(root: Path) -> Path:
    """The first of them that can be written; PermissionError if none can."""
    folders = cache_folders(root)
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise PermissionError(f"no place for a cache of {root}: cannot write {' or '.join(map(str, folders))}")


def read_known(root: Path, kind: str, settings: str = "") -> dict[str, Any]:
    """What `write_known` has kept for the data set in `root`; empty if that is nothing, or damaged."""
    known: dict[str, Any] = {}
    for folder in reversed(cache_folders(root)):
        for path in (folder / _of_this_place(root, kind, settings), _path(folder, root, kind, settings)):
            try:
                known |= read_json(path)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            except (OSError, ValueError, TypeError):
                say(f"{path}: damaged; made again", sys.stderr)
    return known


def write_known(known: dict[str, Any], root: Path, kind: str, settings: str = "") -> None:
    """Keeps it with the caches, if they can be written."""
    with contextlib.suppress(OSError):
        path = _path(writable_folder(root), root, kind, settings)
        remove_folder(path)
        write_json(path, known)


def remove_folder(path: Path) -> None:
    """Removes a folder in the place of a file of the cache, which no file can replace."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


def _path(folder: Path, root: Path, kind: str, settings: str) -> Path:
    """Beside the data set a file goes where the data set goes; elsewhere its name distinguishes data sets."""
    own = folder == cache_folders(root)[0]
    return folder / (f"{kind}{settings}.json" if own else _of_this_place(root, kind, settings))


def _of_this_place(root: Path, kind: str, settings: str) -> str:
    return f"{kind}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]}{settings}.json"


def hashes_of(files: Collection[Path], root: Path) -> dict[Path, str]:
    """The sha256 of each file that can be read; those that the cache knows are not read again."""
    return {file: content for file, (*_, content) in hashed_contents(files, root)[0].items()}


def hashed_contents(files: Collection[Path], root: Path) -> tuple[FileStates, Errors]:
    """The status and hash of each file, and why some could not be read; one of known status is not hashed again."""
    known = read_known(root, "contents")

    def look(file: Path) -> list[Any] | PointCloudFileError:
        try:
            status, held = status_of(file), known.get(name_in(file, root))
            return held if isinstance(held, list) and held[:-1] == status else [*status, _hash(file)]
        except OSError as error:
            return PointCloudFileError(file, f"cannot be read: {error.strerror}")

    with ThreadPoolExecutor() as pool:
        looks = tqdm(pool.map(look, files), "looking", len(files), leave=False, disable=None)
        found = dict(zip(files, looks, strict=True))
    contents = {file: entry for file, entry in found.items() if isinstance(entry, list)}
    listing = {name_in(file, root): entry for file, entry in contents.items()}
    if not listing.items() <= known.items():
        there = {name: entry for name, entry in known.items() if os.path.lexists(root / name)}
        write_known(there | listing, root, "contents")
    return contents, {file: error for file, error in found.items() if isinstance(error, PointCloudFileError)}


def _hash(file: Path) -> str:
    """The sha256 of a file; of one that others are read with, of their sha256s."""
    own, *more = map(content_hash, (file, *read_beside(file)))
    return hashlib.sha256("".join((own, *more)).encode()).hexdigest() if more else own


def status_of(file: Path) -> list[int]:
    """What changes whenever the content of a file, or of one that is read with it, does, copies that keep its time
    included."""
    stats = [one.stat() for one in (*files_of(file), *read_beside(file))]
    return [n for status in stats for n in (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)]
