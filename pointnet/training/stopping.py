"""Stopping a run by a signal, between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pointnet.world import World


class Stopped(Exception):
    """A signal asked the run to stop; its state between two steps is saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}, and saved: --resume continues from there")
        self.signum = signum


@contextmanager
def signals_deferred(world: World) -> Iterator[Callable[[], None]]:
    """Within it SIGTERM and SIGINT wait for the next call of the function it gives, which raises `Stopped`.

    A second signal acts at once. In a world of several, all processes stop after the same step, and a second signal
    waits too: torchrun repeats what the terminal has already sent, and kills a process that does not end.
    """
    received: list[int] = []

    def check() -> None:
        signum = world.largest(received[0] if received else 0)
        if signum:
            raise Stopped(signum)

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield check
        return

    def remember(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if world.size == 1:
            signal.signal(signum, before[signum])

    before: dict[int, Any] = {signum: signal.signal(signum, remember) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield check
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
