"""Many files, each sampled to clouds of K points once, kept as one memory-mapped array.

What a file gave is named after its name, its content and the settings; the array after its files, in order. So a cache
is never stale, a file that is added or changed is the only one that is sampled again, and an interrupted cache goes on
with the next file. Everything is written beside its place and renamed, so that processes that make the same cache at
once do no harm. What is read back is checked by its hash: what is damaged, or no file, is made again, and reported.

    <name>.npy           the clouds of some files in order, (S, C, K) float32
    <name>.json          what is in it: a `Listing`
    <name>.pieces/       of a cache that is being made, what each file gave
    contents-*.json      the sha256 of each file, and the status that it had then

Each JSON has a line before it, its sha256.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pointnet.files import (
    DAY,
    check_regular,
    read_file,
    read_json,
    write_atomically,
    write_json,
)
from pointnet.names import say
from pointnet.points.read import PointCloudFileError

from .known import Errors, FileStates, cache_folders, hashed_contents, remove_folder, status_of, writable_folder
from .workers import WorkerDiedError, on_all_cores

DIGEST = 32  # bytes of a sha256
WEEK = 7 * DAY  # after which the pieces of a cache that nobody finished are removed
ATTEMPTS = 5  # another process may remove what this one is about to use
Notes = tuple[str, ...]  # what of a file was guessed or left out, as `PointCloud.notes`
Whole = tuple[NDArray[np.float32], Notes, str]  # the clouds of a file, its notes, and the hash of its points or ""
Sampled = NDArray[np.float32] | tuple[NDArray[np.float32], Notes] | Whole
Sampler = Callable[[Path], Sampled]
CloudShape = tuple[int, int]


class CachedClouds(NamedTuple):
    """The clouds of the files that could be read, and why the others could not."""

    points: NDArray[np.float32]  # (S, C, K), mapped: pages are read from disk as they are used
    files: list[Path]  # S, the file that each cloud was made of
    bad: list[PointCloudFileError]
    notes: dict[Path, Notes]  # by file; only files with notes
    points_hashes: dict[Path, str]  # by file; only where the sampler gives one

    def strict(self) -> CachedClouds:
        """Itself; raises the first error if a file could not be read."""
        if self.bad:
            raise self.bad[0]
        return self


def cached_clouds(
    files: Sequence[Path], sampler: Sampler, shape: CloudShape, settings: str, root: Path, others: Collection[Path] = ()
) -> CachedClouds:
    """`sampler(file)` of each file, one cloud (C, K) or several (n, C, K), with its notes and the hash of its points:
    from the cache, or made.

    Args:
        files: all under `root`, in the order of the result, none twice; a folder stands for the files in it.
        sampler: picklable and deterministic; its PointCloudFileErrors are collected.
        shape: (C, K).
        settings: whatever else the sampler's result depends on.
        root: the data set's folder; the cache is `root/.cache`, or in the user's cache where that cannot be written.
        others: files whose `points_hashes` are wanted too, where a cache has them.

    Raises:
        OSError: neither can be written, or the disk is full.
        PointCloudFileError: a process died; the message names the files that it may have died of.
    """
    contents, failing = hashed_contents(files, root)
    by_key = _by_key(contents, f"{settings} {shape}", root)
    for _ in range(ATTEMPTS):
        name = hashlib.sha256("".join(by_key).encode()).hexdigest()[:16]
        for folder in cache_folders(root):
            held = _opened(folder / name, shape)
            if held is not None and held.keys == list(by_key) and not held.damaged():
                bad = [PointCloudFileError(by_key[key], reason) for key, reason in held.bad.items()]
                bad = sorted([*bad, *failing.values()], key=lambda error: str(error.path))
                made_of = [by_key[key] for key, clouds in held.clouds().items() for _ in range(len(clouds))]
                notes = {by_key[key]: tuple(its) for key, its in zip(held.good, held.notes, strict=True) if its}
                hashes = {by_key[key]: its for key, its in held.of_points().items()}
                if left := {*others} - {*files}:
                    others_by_key = _by_key(hashed_contents(left, root)[0], f"{settings} {shape}", root)
                    hashes |= _known_hashes(others_by_key, shape, root)
                return CachedClouds(held.points, made_of, bad, notes, hashes)
            if held is None and os.path.lexists(array := f"{folder / name}.npy"):
                say(f"{array}: damaged, or of an earlier version; made again", sys.stderr)
        folder = writable_folder(root)
        failed = _make(by_key, contents, sampler, shape, folder / name)
        failing |= failed  # transient failures are reported but not cached
        by_key = {key: file for key, file in by_key.items() if file not in failed}
    raise OSError(f"the cache of {root} is removed as soon as it is made: {folder / name}.npy")


def _by_key(contents: FileStates, settings: str, root: Path) -> dict[str, Path]:
    """The files by their keys in a cache."""
    by_key = {}
    for file, (*_, content) in contents.items():
        named = settings.encode(), os.fsencode(file.relative_to(root)), content.encode()
        by_key[hashlib.sha256(b"\n".join(named)).hexdigest()] = file
    return by_key


class Held(NamedTuple):
    """A cached array and its listing, the other six."""

    points: np.memmap[Any, np.dtype[np.float32]]  # (S, C, K)
    keys: list[str]  # of the files, in order
    bad: dict[str, str]  # why there are no clouds of some of them
    counts: list[int]  # how many clouds there are of each of the others
    hashes: list[int]  # and the hash of these
    notes: list[list[str]]  # the notes of each file
    points_hashes: Sequence[str] = ()  # and the hash of its points, "" for none; earlier versions had none

    @property
    def good(self) -> list[str]:
        """The keys of the files that could be read."""
        return [key for key in self.keys if key not in self.bad]

    def clouds(self) -> dict[str, NDArray[np.float32]]:
        """The clouds (n, C, K) of each file that could be read, by its key."""
        return dict(zip(self.good, np.split(self.points, np.cumsum(self.counts)), strict=False))

    def of_points(self) -> dict[str, str]:
        """The hash of the points of each file that has one, by its key."""
        return {key: its for key, its in zip(self.good, self.points_hashes, strict=False) if its}

    def damaged(self) -> set[str]:
        """The keys of the files whose clouds are not as they were written."""
        # Read, not mapped: mapped pages would count as memory in use.
        with open(str(self.points.filename), "rb") as file:
            file.seek(self.points.offset)
            pieces = zip(self.clouds().items(), self.hashes, strict=True)
            return {key for (key, clouds), wanted in pieces if piece_hash(file.read(clouds.nbytes)) != wanted}


# Of accidents: who can write the array can write its hashes too. SHA-256 takes twice as long, BLAKE2b five times.
piece_hash = zlib.crc32


def _opened(path: Path, shape: CloudShape) -> Held | None:
    """The cache of this name, or None where it is missing, damaged, or of another shape."""
    array = path.with_suffix(".npy")
    try:
        check_regular(array)
        listing = read_json(path.with_suffix(".json"))
        whole = (sum(listing["counts"]), *shape)
        header = _header(whole)  # compared, as NumPy's parser raises any error where it is damaged
        with array.open("rb") as file:
            if file.read(len(header)) != header:
                return None
        # Copy on write: PyTorch wants memory it may write to, and nothing must reach the file.
        held = Held(np.memmap(array, "<f4", "c", len(header), whole), **listing)
        count = len(held.keys) - len(held.bad)
        right = len(held.clouds()) == len(held.counts) == len(held.hashes) == len(held.notes) == count
        right &= isinstance(held.bad, dict) and len(held.points_hashes) in (0, count)
        right &= all(isinstance(its, str) for its in held.points_hashes)
        return held if right and all(isinstance(its, list) for its in held.notes) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _header(shape: tuple[int, ...]) -> bytes:
    """What an NPY file of float32 begins with."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _known_hashes(files: Mapping[str, Path], shape: CloudShape, root: Path) -> dict[Path, str]:
    """`CachedClouds.points_hashes` of files, by their keys, from whichever cache has them."""
    paths = [path for folder in cache_folders(root) for path in folder.glob("*.json")]
    caches = [held for path in paths if (held := _opened(path, shape)) is not None]
    return {files[key]: its for held in caches for key, its in held.of_points().items() if key in files}


def _whole_pieces(folder: Path, shape: CloudShape) -> tuple[dict[Path, Held], dict[str, Whole]]:
    """The caches in a folder, and the clouds in them and their notes by their keys, without those that are damaged."""
    others = {path: held for path in folder.glob("*.json") if (held := _opened(path, shape)) is not None}
    whole: dict[str, Whole] = {}
    for path, held in others.items():
        if damaged := held.damaged():
            say(f"{path.with_suffix('.npy')}: {len(damaged)} of {len(held.counts)} damaged; made again", sys.stderr)
        known, of_points = zip(held.clouds().items(), held.notes, strict=True), held.of_points()
        its = {key: (clouds, tuple(notes), of_points.get(key, "")) for (key, clouds), notes in known}
        whole |= {key: one for key, one in its.items() if key not in damaged}
    return others, whole


def _make(files: Mapping[str, Path], contents: FileStates, sampler: Sampler, shape: CloudShape, whole: Path) -> Errors:
    """Makes the cache `whole` of the files by their keys; or returns those that cannot be read just now."""
    pieces = whole.with_suffix(".pieces")
    pieces.mkdir(exist_ok=True)
    others, earlier = _whole_pieces(whole.parent, shape)
    missing = [key for key in files if key not in earlier and not _is_whole(pieces / key)]
    make = partial(_make_piece, files=files, contents=contents, sampler=sampler, shape=shape, pieces=pieces)
    there, made = len(files) - len(missing), on_all_cores(make, missing)
    bar = tqdm(made, "sampling once", len(files), initial=there, unit=" files", leave=False, disable=None)
    try:
        failed = {error.path: error for error in bar if error is not None}
    except WorkerDiedError as error:
        first, *others_read = (files[key] for key in error.args)
        names = ", ".join(file.name for file in others_read)
        reason = f"a process died (out of memory?) while it read this file or one of {names}"
        raise PointCloudFileError(first, reason) from error
    if not failed:
        with contextlib.suppress(FileNotFoundError):  # another process was quicker, and has removed the pieces
            _join(list(files), earlier, shape, pieces, whole)
        _remove_pieces(whole)
        for path, held in others.items():
            if set(held.keys) < set(files):  # the new cache has all that is in it
                path.with_suffix(".npy").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
    return failed


# What one file gave begins with one of these bytes: its notes and the hash of its points, a line of JSON, and its
# clouds follow, or the reason why there are none. It ends with its hash, since it is not worth the wait for the disk: a
# piece that is damaged is made again, and so is one of earlier versions, which began with a plus or a star.
GOOD, BAD = b"=", b"-"


def _make_piece(
    key: str, files: Mapping[str, Path], contents: FileStates, sampler: Sampler, shape: CloudShape, pieces: Path
) -> PointCloudFileError | None:
    """Samples one file into `pieces`; returns an error that is not the content's fault."""
    file = files[key]
    try:
        sampled = sampler(file)
        clouds, *rest = sampled if isinstance(sampled, tuple) else (sampled,)
        clouds = clouds.astype("<f4", copy=False)
        assert clouds.shape[-2:] == shape
        content = GOOD + json.dumps([*rest, *((), "")[len(rest) :]]).encode() + b"\n" + clouds.tobytes()
    except PointCloudFileError as error:
        if isinstance(error.__cause__, OSError | MemoryError):
            return error
        content = BAD + error.reason.encode(errors="replace")
    try:
        if status_of(file) != contents[file][:-1]:
            return PointCloudFileError(file, "changed while it was read")
    except OSError as error:
        return PointCloudFileError(file, f"cannot be read: {error.strerror}")
    with contextlib.suppress(FileNotFoundError):  # another process has joined the pieces, this one among them
        write_atomically(pieces / key, content + hashlib.sha256(content).digest(), durable=False)
    return None


def _content(piece: Path) -> bytes:
    """What `_make_piece` wrote, without its hash. OSError where it is missing or damaged."""
    data = read_file(piece)
    if data[-DIGEST:] != hashlib.sha256(data[:-DIGEST]).digest():
        raise FileNotFoundError(piece)
    return data[:-DIGEST]


def _is_whole(piece: Path) -> bool:
    """Whether what `_make_piece` wrote is there, undamaged; a folder in its place is removed."""
    try:
        return _content(piece)[:1] in (GOOD, BAD)
    except FileNotFoundError:
        return False
    except OSError:
        remove_folder(piece)
        return False


def _remove_pieces(whole: Path) -> None:
    """Removes the pieces of a cache that is made, and those of others that nobody has gone on with for a week."""
    shutil.rmtree(whole.with_suffix(".pieces"), ignore_errors=True)
    for pieces in whole.parent.glob("*.pieces"):
        with contextlib.suppress(OSError):
            if time.time() - pieces.stat().st_mtime > WEEK:
                shutil.rmtree(pieces, ignore_errors=True)


def _join(keys: list[str], earlier: Mapping[str, Whole], shape: CloudShape, pieces: Path, whole: Path) -> None:
    """Writes the clouds as one array, those of one file at a time in memory; its listing before the array."""
    bad: dict[str, str] = {}
    counts: dict[str, int] = {}
    notes: list[Notes] = []
    of_points: list[str] = []
    hashes: list[int] = []
    for key in keys:
        if key in earlier:
            counts[key] = len(earlier[key][0])
            notes.append(earlier[key][1])
            of_points.append(earlier[key][2])
        elif (content := _content(pieces / key)).startswith(BAD):
            bad[key] = content[1:].decode(errors="replace")
        else:
            clouds, its_notes, its_hash = _parts_of(content)
            counts[key] = len(clouds) // (4 * shape[0] * shape[1])
            notes.append(its_notes)
            of_points.append(its_hash)
    with tempfile.NamedTemporaryFile(dir=pieces, delete=False) as file:
        file.write(_header((sum(counts.values()), *shape)))
        for key in counts:  # written, not mapped: mapped pages would count as memory in use
            written = earlier[key][0].tobytes() if key in earlier else _parts_of(_content(pieces / key))[0]
            hashes.append(piece_hash(written))
            file.write(written)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    listing = {"keys": keys, "bad": bad, "counts": list(counts.values()), "hashes": hashes, "notes": notes}
    listing["points_hashes"] = of_points
    for path in (whole.with_suffix(".json"), whole.with_suffix(".npy")):
        remove_folder(path)
    write_json(whole.with_suffix(".json"), listing)
    os.replace(file.name, whole.with_suffix(".npy"))


def _parts_of(content: bytes) -> tuple[memoryview, Notes, str]:
    """What a good piece holds, its clouds as bytes."""
    end = content.index(b"\n")
    notes, points_hash = json.loads(content[1:end])
    return memoryview(content)[end + 1 :], tuple(notes), points_hash
