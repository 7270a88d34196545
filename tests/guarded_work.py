"""Work for the kept process of `pointnet.points.guard`."""

import os
import re
import signal
from pathlib import Path

from pointnet.points.guard import guarded


def whose(path, send) -> int:
    return os.getpid()


def ask_whose(answers) -> None:
    """What a worker does."""
    answers.put(guarded(whose, "json", Path(__file__), size=0)[0])


def crashes(path, send) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def stalls(path, send) -> None:
    """In C, with the interpreter's lock held."""
    re.match("(a+)+$", "a" * 99 + "b")


def takes(path, send, size: int) -> int:
    return len(bytearray(size))


def echoes(path, send, sizes: list[int]) -> str:
    print("not an answer", flush=True)
    for size in sizes:
        send(bytes([size % 256]) * size)
    return path.name
