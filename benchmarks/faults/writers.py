"""Several writers at once."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from pointnet.files import write_atomically
from pointnet.training import fit
from pointnet.training.claim import claimed
from pointnet.world import World
from tests.helpers import quiet, tiny, two_shapes

from .caches import numbered_files, read_numbered
from .kills import warm
from .trial import FAILED, FORK, Trials


def claims(out: Path) -> str:
    try:
        with claimed(out, World()):
            time.sleep(0.2)  # until the others have seen it
            return ""
    except ValueError as error:
        return str(error)


def fits(out: Path) -> str:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())
    try:
        fit(tiny(out, epochs=1), two_shapes(per_class=6), log=quiet)
        return ""
    except ValueError as error:
        return str(error)


def caching(folder: Path) -> str:
    return "" if read_numbered([*folder.glob("*.bin")]) else "nothing"


def rewrites(path: Path) -> str:
    """Writes a file again and again, and reads it, whole, whoever wrote it last."""
    for i in range(20):
        write_atomically(path, bytes([i]) * 10_000, durable=False)
        if len(set(found := path.read_bytes())) != 1 or len(found) != 10_000:
            return "half a file"
    return ""


def at_once(work: Callable[[Path], str], path: Path, processes: int) -> list[str]:
    """What processes say that begin together, the silent ones first."""
    barrier, ends = FORK.Barrier(processes), FORK.SimpleQueue()

    def run() -> None:
        barrier.wait()
        try:
            ends.put(work(path))
        except BaseException as error:
            ends.put(f"raised {error!r}")

    started = [FORK.Process(target=run) for _ in range(processes)]
    for process in started:
        process.start()
    said = sorted(ends.get() for _ in started)
    for process in started:
        process.join()
    return said


def claiming(work: Callable[[Path], str], processes: int, count: int, folder: Path) -> Trials:
    """Of processes that begin in one folder together one has it, and the others say why not."""
    warm(folder / "first")
    for i in range(count):
        said = at_once(work, out := folder / str(i), processes)
        known = (line.startswith(f"{out}: ") and ("process" in line or "already holds" in line) for line in said[1:])
        yield "one wrote, the others were refused" if not said[0] and all(known) else f"{FAILED}: {said}"


def writing(count: int, folder: Path) -> Trials:
    """Processes write the same file, or cache the same files, at once."""
    for i in range(count):
        path = folder / str(i)
        is_cache = i % 2
        if is_cache:
            files = numbered_files(path)
        said = at_once(caching if is_cache else rewrites, path, 4)
        is_whole = not any(said) and (not is_cache or read_numbered(files)[::12] == [*range(20)])
        yield "whole" if is_whole else f"{FAILED}: {said}"
