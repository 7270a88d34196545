"""How a program of this library ends: with an exit code and at most one line, never with a traceback."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any

from pointnet.names import printable, say

PROG = "python -m pointnet"  # works wherever the library does; the script `pointnet` and it are the same
REFUSED, NO_READER = 2, 141  # exit codes; 128 + SIGPIPE, which Windows does not have
SIGNALLED = 128  # and the number of a signal: an exit code


class Terminated(KeyboardInterrupt):
    """SIGTERM came: as Ctrl-C, it ends the command where it is, and what is half done is put away on the way out."""

    signum = signal.SIGTERM


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated`, unless somebody else answers it.

    Processes of torchrun are left as they are: while they wait for each other, no Python would run to raise it.
    """
    in_main, by_torchrun = threading.current_thread() is threading.main_thread(), "TORCHELASTIC_RUN_ID" in os.environ
    if not in_main or by_torchrun or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def whole_program(main: Callable[..., int]) -> Callable[..., int]:
    """The same command, which ends without a traceback: stopped by a signal, it says so; where the reader closed the
    pipe, as `| head` does, it says nothing."""

    @wraps(main)
    def wrapped(*words: Any) -> int:
        code = 0
        try:
            try:
                with terminated_as_interrupted():
                    code = main(*words)
                if code > SIGNALLED and not words:
                    _answer_no_more()
            except KeyboardInterrupt as error:
                if not words:
                    _answer_no_more()
                code = stopped(error)
                say("\nstopped", sys.stderr)
            finally:  # what is still held back, while an error can be caught
                if sys.stdout is not None:
                    sys.stdout.flush()
            return code
        except BrokenPipeError:
            code = NO_READER
        except OSError as error:  # a full disk
            if code != REFUSED:
                say(f"{PROG}: error: {one_line(error)}", sys.stderr)
            code = REFUSED
        for stream in (sys.stdout, sys.stderr):  # Python flushes both once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return code

    return wrapped


def _answer_no_more() -> None:
    """The program, which was called without arguments and so is the process, ends: another Ctrl-C would show where."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def stopped(error: BaseException) -> int:
    """The exit code of a command that a signal stopped."""
    return SIGNALLED + int(getattr(error, "signum", signal.SIGINT))


def one_line(error: BaseException) -> str:
    """An error in one printable line; where the system refused a file, which one and why."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{error.filename2 or error.filename}: {error.strerror}")
    return printable(str(error))
