"""Killed runs."""

import contextlib
import io
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pointnet.training import fit
from pointnet.world import joined_world
from tests.helpers import assert_ends_as, quiet, tiny, two_shapes

from .trial import FAILED, FORK, PATIENCE, SECONDS, Trials, held


def trains(out: Path, feed: str, rank: int, ranks: int, port: int) -> None:
    """Goes on with the run in a process that may be killed: it must not hold tqdm's lock, which forks share."""
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    if ranks > 1:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {name: str(value) for name, value in told.items()} | {"TORCHELASTIC_RUN_ID": "faults"}
    config = tiny(out, epochs=2, batch_size=4, ema=0.9, jitter=0.01, feed=feed)
    resume = (out / "checkpoint.pt").exists()
    with joined_world("cpu"):
        fit(config, two_shapes(per_class=8), two_shapes(per_class=6, seed=1), resume=resume, log=quiet)


def warm(folder: Path) -> None:
    """Trains once in this process, so that forks need not load again what training loads."""
    torch.set_num_threads(1)
    with contextlib.redirect_stderr(io.StringIO()):
        fit(tiny(folder, epochs=1), two_shapes(per_class=6), log=quiet)


def start(out: Path, feed: str, ranks: int) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=trains, args=(out, feed, rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def end(processes: list[Any], patience: float) -> list[int]:
    """The exit codes of processes, which are killed where they do not end in time, as torchrun does."""
    before = time.monotonic()
    for process in processes:
        process.join(max(before + patience - time.monotonic(), 0))
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def kills(feed: str, ranks: int, count: int, folder: Path) -> Trials:
    """Kills a process of a run at a random moment, and goes on; a run that ended is compared with the unbroken one."""
    moments, done, unbroken = random.Random(0), 0, folder / "unbroken"
    warm(folder / "first")
    begun = time.monotonic()
    assert end(start(unbroken, feed, ranks), SECONDS) == [0] * ranks
    length = time.monotonic() - begun
    while done < count:
        out, killed = folder / f"after{done}", 0
        while True:
            processes = start(out, feed, ranks)
            victim = processes[moments.randrange(ranks)]
            if done + killed < count:
                victim.join(moments.uniform(0, length))
                victim.kill()
                victim.join()
            codes = end(processes, PATIENCE if victim.exitcode else SECONDS)
            if victim.exitcode != -signal.SIGKILL:
                break
            killed += 1
        same = held(partial(assert_ends_as, out, unbroken), "ended as the unbroken run, bit for bit")
        yield from [f"{FAILED}: ended with {codes}" if any(codes) else same] * max(killed, any(codes))
        done += max(killed, any(codes))
        shutil.rmtree(out)
