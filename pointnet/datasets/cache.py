"""Many files, each made into clouds of K points once, kept as one memory-mapped array.

What is made of a file is named after its name and content and what was done to it; the array after its files, in order.
So a cache is never stale, a file that is added or changed is the only one that is made again, and an interrupted cache
goes on with the next file. All is written beside and renamed, so that processes that make the same do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pointnet.files import write_atomically
from pointnet.points.read import PointCloudFileError

DIGEST = 32  # bytes of a sha256
ATTEMPTS = 5  # other processes may clear away what this one is about to use
Sampler = Callable[[Path], NDArray[np.float32]]
Shape = tuple[int, int]


class CachedClouds(NamedTuple):
    """The clouds of the files that could be read, and why the others could not."""

    points: NDArray[np.float32]  # (S, C, K), mapped: pages are read from disk as they are used
    files: list[Path]  # S of them, the one that each cloud was made of
    bad: list[PointCloudFileError]

    def strict(self) -> CachedClouds:
        """Itself; raises the first error if a file could not be read."""
        if self.bad:
            raise self.bad[0]
        return self


def cached_clouds(files: Sequence[Path], sampler: Sampler, shape: Shape, settings: str, root: Path) -> CachedClouds:
    """`sampler(file)`, (C, K) or several of them (n, C, K), of each file: from the cache, or made on all cores.

    Args:
        files: all under `root`, in the order of the result, none twice; a folder stands for the files in it.
        sampler: picklable, and deterministic; its PointCloudFileErrors are collected.
        shape: (C, K).
        settings: whatever else the sampler's result depends on.
        root: the data set's folder; the cache is `root/.cache`, or in the user's where that cannot be written.

    Raises:
        OSError: neither can be written, or the disk is full.
        PointCloudFileError: a process died; the message names the file that it was reading.
    """
    folders = _folders(root)
    stats, passing = _contents(files, root, folders)
    readable = [file for file in files if file not in passing]
    keys = {file: _key(f"{settings} {shape}", file, root, stats[file]) for file in readable}
    for _ in range(ATTEMPTS):
        name = hashlib.sha256("".join(keys[file] for file in readable).encode()).hexdigest()[:16]
        whole = _opened(readable, [keys[file] for file in readable], shape, [folder / name for folder in folders])
        if whole is not None:
            return whole._replace(bad=sorted([*whole.bad, *passing.values()], key=lambda error: str(error.path)))
        folder = _writable(folders, root)
        failed = _make({keys[file]: file for file in readable}, stats, sampler, shape, folder, folder / name)
        passing |= failed  # what may be otherwise tomorrow is told, and not kept
        readable = [file for file in readable if file not in failed]
    raise OSError(f"the cache of {root} is gone as soon as it is made: {folder / name}.npy")


def _folders(root: Path) -> list[Path]:
    """Where caches of this data set may be: beside it, or with the user."""
    folders = [root / ".cache"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pointnet-shared-mlp")
    return folders


def cache_folder(root: Path) -> Path:
    """Where what belongs to this data set is kept: beside it if that can be written, or else with the user."""
    for folder in _folders(root):
        if os.access(folder if folder.exists() else folder.parent, os.W_OK):
            return folder
    return root / ".cache"


def _writable(folders: Sequence[Path], root: Path) -> Path:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise PermissionError(f"no place for a cache of {root}: cannot write {' or '.join(map(str, folders))}")


def _contents(
    files: Sequence[Path], root: Path, folders: Sequence[Path]
) -> tuple[dict[Path, list[Any]], dict[Path, PointCloudFileError]]:
    """[status, sha256] of each file, and why some could not be read. A file whose status is known is not read again."""
    name = f"contents-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]}.json"
    known: dict[str, Any] = {}
    for folder in reversed(folders):
        with contextlib.suppress(OSError, ValueError, TypeError):
            known |= json.loads((folder / name).read_text(encoding="utf-8"))
    found: dict[Path, list[Any]] = {}
    bad: dict[Path, PointCloudFileError] = {}

    def look(file: Path) -> None:
        try:
            status, held = _status(file), known.get(str(os.fsencode(file)))
            current = isinstance(held, list) and held[:-1] == status
            found[file] = held if current and isinstance(held, list) else [*status, _hash(file)]
        except OSError as error:
            bad[file] = PointCloudFileError(file, f"cannot be read: {error.strerror}")

    with ThreadPoolExecutor() as pool, tqdm(total=len(files), desc="looking", disable=None, leave=False) as bar:
        for _ in pool.map(look, files):
            bar.update()
    listing = {str(os.fsencode(file)): entry for file, entry in found.items()}
    if any(known.get(file) != entry for file, entry in listing.items()):
        with contextlib.suppress(OSError):
            write_atomically(_writable(folders, root) / name, json.dumps(known | listing).encode())
    return found, bad


def _status(file: Path) -> list[int]:
    """What changes whenever a file's content does, copies that keep its time included."""
    stats = [one.stat() for one in _within(file)]
    return [
        sum(status.st_size for status in stats),
        max((status.st_mtime_ns for status in stats), default=0),
        max((status.st_ctime_ns for status in stats), default=0),
        sum(status.st_ino for status in stats),
    ]


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    for one in _within(file):
        if one != file:
            digest.update(os.fsencode(one.name) + b"/" + str(one.stat().st_size).encode() + b"/")
        with one.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _within(file: Path) -> list[Path]:
    """The file itself, or the files of a folder."""
    return sorted(one for one in file.iterdir() if one.is_file()) if file.is_dir() else [file]


def _key(settings: str, file: Path, root: Path, entry: Sequence[Any]) -> str:
    return hashlib.sha256(
        b"\n".join([settings.encode(), os.fsencode(file.relative_to(root)), entry[-1].encode()])
    ).hexdigest()


def _opened(files: Sequence[Path], keys: Sequence[str], shape: Shape, wholes: Sequence[Path]) -> CachedClouds | None:
    """The first cache that is there and whole."""
    for whole in wholes:
        try:
            held = json.loads(whole.with_suffix(".json").read_text(encoding="utf-8"))
            # Copy on write: PyTorch wants memory it may write to, and nothing must reach the file.
            points: NDArray[np.float32] = np.load(whole.with_suffix(".npy"), mmap_mode="c")
            bad = {keys.index(key): str(reason) for key, reason in held["bad"].items()}
            made = zip((file for i, file in enumerate(files) if i not in bad), _counts(held), strict=True)
            kept = [file for file, count in made for _ in range(count)]
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
            continue  # not there, or damaged: it is made again
        if held["keys"] == list(keys) and points.shape == (len(kept), *shape) and points.dtype == np.float32:
            return CachedClouds(points, kept, [PointCloudFileError(files[i], reason) for i, reason in bad.items()])
    return None


def _make(
    files: dict[str, Path], stats: dict[Path, list[Any]], sampler: Sampler, shape: Shape, folder: Path, whole: Path
) -> dict[Path, PointCloudFileError]:
    """Makes the cache at `whole` of the files by their keys; or returns those that cannot be read just now."""
    parts = whole.with_suffix(".parts")
    parts.mkdir(exist_ok=True)
    earlier = _earlier(folder, shape)
    missing = [key for key in files if key not in earlier and _read_part(parts / key) is None]
    make = partial(_make_one, files=files, stats=stats, sampler=sampler, shape=shape, parts=parts)
    failed: dict[Path, PointCloudFileError] = {}
    with tqdm(total=len(files), desc="sampling once", unit=" files", disable=None, leave=False) as bar:
        bar.update(len(files) - len(missing))
        try:
            for error in _on_all_cores(make, missing):
                bar.update()
                if error is not None:
                    failed[error.path] = error
        except ProcessDiedError as error:
            reason = "a process died (out of memory?) while it read this file"
            raise PointCloudFileError(files[error.item], reason) from error
    if not failed:
        with contextlib.suppress(FileNotFoundError):  # another process was quicker, and has cleared parts away
            _join(list(files), earlier, shape, parts, whole)
        shutil.rmtree(parts, ignore_errors=True)
        _forget_superseded(folder, whole, set(files))
    return failed


def _counts(held: dict[str, Any]) -> list[int]:
    """How many clouds each file of a listing gave that is not bad; where it does not say, one."""
    counts: list[int] = held.get("counts") or [1] * (len(held["keys"]) - len(held["bad"]))
    return counts


# What was made of a file begins with this byte if it is clouds, and with the other if it is why there are none. It ends
# with its hash, since it is not worth the wait for the disk: what is not whole is made again.
GOOD, BAD = b"+", b"-"


def _read_part(path: Path) -> bytes | None:
    """What `_make_one` left there, if it is there and whole."""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
        if data[-DIGEST:] == hashlib.sha256(data[:-DIGEST]).digest():
            return data[:-DIGEST]
    return None


def _make_one(
    key: str, files: dict[str, Path], stats: dict[Path, list[Any]], sampler: Sampler, shape: Shape, parts: Path
) -> PointCloudFileError | None:
    """Samples one file into `parts`; returns an error that is not the content's fault."""
    file = files[key]
    try:
        cloud = sampler(file).astype("<f4", copy=False)
        assert cloud.shape[-2:] == shape
        content = GOOD + cloud.tobytes()
    except PointCloudFileError as error:
        if isinstance(error.__cause__, OSError | MemoryError):
            return error
        content = BAD + error.reason.encode(errors="replace")
    try:
        if _status(file) != stats[file][:-1]:
            return PointCloudFileError(file, "changed while it was read")
    except OSError as error:
        return PointCloudFileError(file, f"cannot be read: {error.strerror}")
    with contextlib.suppress(FileNotFoundError):  # another process has joined the parts, this one among them
        write_atomically(parts / key, content + hashlib.sha256(content).digest(), durable=False)
    return None


def _earlier(folder: Path, shape: Shape) -> dict[str, tuple[Path, slice]]:
    """What is in caches that are there already, by its key: the cache, and which of its clouds."""
    found: dict[str, tuple[Path, slice]] = {}
    for listing in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
            held = json.loads(listing.read_text(encoding="utf-8"))
            good = [key for key in held["keys"] if key not in held["bad"]]
            array = listing.with_suffix(".npy")
            ends = [0, *accumulate(_counts(held))]
            if np.load(array, mmap_mode="r").shape == (ends[-1], *shape):
                found |= {key: (array, slice(*ends[i : i + 2])) for i, key in enumerate(good)}
    return found


def _on_all_cores(work: Callable[[str], Any], items: Sequence[str]) -> Iterator[Any]:
    """`work(item)` for each, as they are done; a process a core, each with its share of them."""
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(items))
    if cores < 2 or len(items) < 8 or multiprocessing.current_process().daemon:  # which may have no children
        yield from map(work, items)
        return
    # Forked where that is safe: the children need only numpy, have all modules, and a script needs no main guard.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    shares = [items[i::cores] for i in range(cores)]
    pipes = [context.Pipe(duplex=False) for _ in shares]
    processes = [
        context.Process(target=_work_through, args=(work, share, sender, os.getpid()), daemon=True)
        for share, (_, sender) in zip(shares, pipes, strict=True)
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which children do not use
            for process in processes:
                process.start()
        yield from _received(
            {pipe[0]: (process, list(share)) for pipe, process, share in zip(pipes, processes, shares, strict=True)}
        )
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()


class ProcessDiedError(Exception):
    """A process ended without a word, while it was at `item`."""

    def __init__(self, item: str):
        super().__init__(item)
        self.item = item


def _work_through(work: Callable[[str], Any], share: Sequence[str], sender: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for item in share:
        try:
            sender.send(work(item))
        except Exception as error:
            sender.send(error)
            return
        if os.getppid() != parent:  # killed; whoever goes on finds what was made
            return


def _received(expected: dict[Any, tuple[Any, list[str]]]) -> Iterator[Any]:
    """What the processes send, by their pipes, in the order of their shares.

    Raises:
        ProcessDiedError: one ended before its share.
        Exception: what one raised.
    """
    while expected:
        wait([*expected, *(process.sentinel for process, _ in expected.values())])
        for receiver, (process, share) in list(expected.items()):
            ended = not process.is_alive()  # asked first: what it sent before its end is still in the pipe
            while share and receiver.poll():
                done = receiver.recv()
                if isinstance(done, Exception) and not isinstance(done, PointCloudFileError):
                    raise done
                yield done
                del share[0]
            if not share:
                del expected[receiver]
            elif ended:
                raise ProcessDiedError(share[0])


def _join(keys: Sequence[str], earlier: dict[str, tuple[Path, slice]], shape: Shape, parts: Path, whole: Path) -> None:
    """The clouds as one array, those of a file at a time in memory; its listing is there before the array is."""
    bad: dict[str, str] = {}
    counts: dict[str, int] = {}  # how many clouds each of the others gave
    for key in keys:
        if key in earlier:
            counts[key] = earlier[key][1].stop - earlier[key][1].start
        elif (content := (parts / key).read_bytes()[:-DIGEST]).startswith(BAD):
            bad[key] = content[1:].decode(errors="replace")
        else:
            counts[key] = (len(content) - 1) // (4 * shape[0] * shape[1])
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(counts.values()), *shape)}
    arrays = {array: np.load(array, mmap_mode="r") for array, _ in earlier.values()}
    with tempfile.NamedTemporaryFile(dir=parts, delete=False) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for key in counts:  # written, not mapped: mapped pages would count as memory in use
            if key in earlier:
                array, rows = earlier[key]
                file.write(arrays[array][rows].tobytes())
            else:
                file.write((parts / key).read_bytes()[1:-DIGEST])
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    listing = {"keys": list(keys), "bad": bad, "counts": list(counts.values())}
    write_atomically(whole.with_suffix(".json"), json.dumps(listing).encode())
    os.replace(file.name, whole.with_suffix(".npy"))


def _forget_superseded(folder: Path, whole: Path, keys: set[str]) -> None:
    """Removes caches that hold nothing which the new one does not: it has grown out of them."""
    for listing in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            if listing.stem != whole.name and set(json.loads(listing.read_text(encoding="utf-8"))["keys"]) < keys:
                listing.with_suffix(".npy").unlink(missing_ok=True)
                listing.unlink(missing_ok=True)
