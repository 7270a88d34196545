"""Many files, each made into a cloud of K points once, kept as one memory-mapped array.

A cache is named after the content of its files and what was done to them, so that it is never stale; it is made in
parts, so that one that was interrupted goes on; parts and whole are renamed into place, so that processes that make it
at once write the same and do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pointnet.files import write_atomically

from .readers import PointCloudFileError

PART = 64  # files; 3 MB of clouds at 3 x 4,096 points
Sampler = Callable[[Path], NDArray[np.float32]]


class CachedClouds(NamedTuple):
    """The clouds of the files that could be read, and why the others could not."""

    points: NDArray[np.float32]  # (S, C, K), mapped: pages are read from disk as they are used
    files: list[Path]  # S of them
    bad: list[PointCloudFileError]


def cached_clouds(
    files: Sequence[Path], sampler: Sampler, shape: tuple[int, int], settings: str, root: Path
) -> CachedClouds:
    """`sampler(file)`, (C, K), of each file: from the cache, or made on all cores and kept there.

    Args:
        files: all under `root`, in the order of the result.
        sampler: picklable, and deterministic; its PointCloudFileErrors are collected.
        shape: (C, K).
        settings: whatever else the sampler's result depends on.
        root: the data set's folder; the cache is `root/.cache`, or in the user's where that cannot be written.

    Raises:
        OSError: neither can be written, or the disk is full.
        PointCloudFileError: a process died; the message names the files that it was reading.
    """
    folder = _writable(root)
    name = _digest(files, f"{settings} {shape}", root, folder)
    whole = folder / f"{name}.npy"
    if not whole.exists():
        _make(files, sampler, shape, folder / f"{name}.parts", whole)
    bad = json.loads(whole.with_suffix(".json").read_text(encoding="utf-8"))
    # Copy on write: PyTorch wants memory it may write to, and nothing must reach the file.
    points: NDArray[np.float32] = np.load(whole, mmap_mode="c")
    kept = [file for i, file in enumerate(files) if str(i) not in bad]
    return CachedClouds(points, kept, [PointCloudFileError(files[int(i)], reason) for i, reason in bad.items()])


def _writable(root: Path) -> Path:
    folders = [root / ".cache"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pointnet-shared-mlp")
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise PermissionError(f"no place for a cache of {root}: cannot write {' or '.join(map(str, folders))}")


def _digest(files: Sequence[Path], settings: str, root: Path, folder: Path) -> str:
    """Of what a cache depends on: settings, and the name and content of each file, in order."""
    listing = folder / f"contents-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}.json"
    try:
        known = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    names = [str(file.relative_to(root)) for file in files]
    # As make and git do: a file of the same size and time of writing is the same.
    stats = [[file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    changed = [i for i, name in enumerate(names) if known.get(name, [None])[:2] != stats[i]]
    with ThreadPoolExecutor() as pool:
        for i, content in zip(changed, pool.map(_hash, [files[i] for i in changed]), strict=True):
            known[names[i]] = [*stats[i], content]
    if changed:
        write_atomically(listing, json.dumps(known).encode())
    lines = [settings, *(f"{name} {known[name][2]}" for name in names)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:  # the sampler will say so
        return str(error)
    return digest.hexdigest()


def _make(files: Sequence[Path], sampler: Sampler, shape: tuple[int, int], parts: Path, whole: Path) -> None:
    parts.mkdir(exist_ok=True)
    starts = range(0, len(files), PART)
    missing = [start for start in starts if not (parts / f"{start}.npz").exists()]
    make_part = partial(_make_part, files=files, sampler=sampler, shape=shape, parts=parts)
    with tqdm(total=len(files), desc="sampling once", unit=" files", disable=None, leave=False) as bar:
        bar.update(len(files) - sum(min(PART, len(files) - start) for start in missing))
        try:
            for done in _on_all_cores(make_part, missing):
                bar.update(done)
        except ProcessDiedError as error:
            reason = f"a process died (out of memory?) while reading this or one of the {PART - 1} files after it"
            raise PointCloudFileError(files[error.start], reason) from error
    try:
        _join([parts / f"{start}.npz" for start in starts], shape, whole)
    except FileNotFoundError:
        if not whole.exists():  # or another process was quicker, and has cleared the parts away
            raise
    shutil.rmtree(parts, ignore_errors=True)


def _make_part(start: int, files: Sequence[Path], sampler: Sampler, shape: tuple[int, int], parts: Path) -> int:
    clouds, bad = [np.empty((0, *shape), np.float32)], {}
    for i, file in enumerate(files[start : start + PART], start):
        try:
            clouds.append(sampler(file)[None])
        except PointCloudFileError as error:
            bad[str(i)] = error.reason
    buffer = io.BytesIO()
    np.savez(buffer, points=np.concatenate(clouds), bad=np.frombuffer(json.dumps(bad).encode(), np.uint8))
    with contextlib.suppress(FileNotFoundError):  # another process has joined the parts, this one among them
        write_atomically(parts / f"{start}.npz", buffer.getvalue())
    return len(files[start : start + PART])


def _on_all_cores(make_part: Callable[[int], int], starts: Sequence[int]) -> Iterator[int]:
    """`make_part(start)` for each, as they are done; a process a core, each with its share of them."""
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(starts))
    if cores < 2:
        yield from map(make_part, starts)
        return
    # Forked where that can be: the children need only numpy, have all modules, and a script needs no main guard.
    context: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    shares = [starts[i::cores] for i in range(cores)]
    pipes = [context.Pipe(duplex=False) for _ in shares]
    processes = [
        context.Process(target=_make_share, args=(make_part, share, sender, os.getpid()), daemon=True)
        for share, (_, sender) in zip(shares, pipes, strict=True)
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which children do not use
            for process in processes:
                process.start()
        for _, sender in pipes:
            sender.close()  # so that a process that dies ends its pipe
        yield from _received({receiver: list(share) for share, (receiver, _) in zip(shares, pipes, strict=True)})
    finally:
        for process in processes:
            process.terminate()
            process.join()


class ProcessDiedError(Exception):
    """A process ended without a word, while it made the part that begins at `start`."""

    def __init__(self, start: int):
        super().__init__(start)
        self.start = start


def _make_share(make_part: Callable[[int], int], share: Sequence[int], sender: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    for start in share:
        try:
            sender.send(make_part(start))
        except Exception as error:
            sender.send(error)
            return
        if os.getppid() != parent:  # killed; whoever goes on finds this part made
            return


def _received(expected: dict[Any, list[int]]) -> Iterator[int]:
    """What the processes send, by their pipes: the number of files of each part, in the order of their shares.

    Raises:
        ProcessDiedError: one ended before its share.
        Exception: what one raised.
    """
    while expected:
        for receiver in cast("list[Any]", wait(list(expected))):
            share = expected[receiver]
            try:
                done = receiver.recv()
            except EOFError as error:
                raise ProcessDiedError(share[0]) from error
            if isinstance(done, Exception):
                raise done
            yield done
            del share[0]
            if not share:
                del expected[receiver]


def _join(parts: Sequence[Path], shape: tuple[int, int], whole: Path) -> None:
    """The parts as one array, a part at a time in memory; the list of bad files is there before the array is."""
    bad: dict[str, str] = {}
    counts = []
    for part in parts:
        with part.open("rb") as stream, np.load(stream) as held:
            bad |= json.loads(held["bad"].tobytes())
            counts.append(len(held["points"]))
    write_atomically(whole.with_suffix(".json"), json.dumps(bad).encode())
    temporary = whole.with_name(f".{whole.name}.{os.getpid()}")
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(counts), *shape)}
    try:
        with temporary.open("wb") as file:  # written, not mapped: mapped pages would count as memory in use
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                with part.open("rb") as stream, np.load(stream) as held:
                    file.write(held["points"].astype("<f4", copy=False).tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, whole)
    finally:
        temporary.unlink(missing_ok=True)
