"""One kept process for what damaged files can crash, stall or fill memory with: the libraries of HDF5 and LAZ.

It is started when it is first needed, in time and memory that follow from the file's size, and what ends it is a
`Refusal`; the next file starts another. It is a plain Python that imports this file and runs `serve`, so that it can be
started from any process: a daemon, a fork, a notebook. It ends with its parent, whose end closes its input.

A request is a line of JSON. The answer is blocks of bytes, each behind its length, an empty one, and a block of JSON.
"""

import atexit
import contextlib
import faulthandler
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pointnet

from .errors import PointCloudFileError, Refusal, file_errors, unreadable

SECONDS, BYTES_PER_SECOND = 20, 10_000_000  # for a file, and for what is made of it: usual ones take a hundredth
MEMORY, MEMORY_PER_BYTE = 140_000_000, 6  # of a file, beside what the process has before
PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from pointnet.points.guard import serve; serve()"
LENGTH = 8  # bytes of a block's length
PIPE = 1 << 20  # bytes that may wait in the pipe, where the system lets us choose

Send = Callable[[Any], None]


class _Reader:
    """The process, as its parent sees it."""

    def __init__(self) -> None:
        path = [str(Path(pointnet.__file__).parents[1]), *sys.path]
        names = f"utf8={sys.flags.utf8_mode}"  # of files, in the same letters as here
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", names, "-c", PROGRAM, *path],
            bufsize=0,
            pipesize=PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # whose buffers would count as memory taken
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            **streams,
        )
        self.answers = 0

    def answer(self, request: bytes, sink: BinaryIO) -> Any:
        """Writes the blocks to `sink`, and returns the JSON. Raises EOFError if the process ends before."""
        try:
            while request:
                request = request[self.process.stdin.write(request) :]  # type: ignore[union-attr]
        except OSError as error:
            raise EOFError from error
        while block := self._block():
            sink.write(block)
        self.answers += 1
        return json.loads(self._block())

    def _block(self) -> bytearray:
        return self._read(int.from_bytes(self._read(LENGTH), "little"))

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while len(view):
            count = self.process.stdout.readinto(view)  # type: ignore[union-attr]
            if not count:
                raise EOFError
            view = view[count:]
        return data

    def close(self) -> None:
        """Closes the pipes, by which the process ends as soon as it waits for a request."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def stop(self, patience: float = 0.0) -> int:
        """Ends the process, if it does not end by itself, and returns its code."""
        self.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience)
        self.process.kill()
        return self.process.wait()


_reader: _Reader | None = None
_lock = threading.Lock()
_is_registered = False


def guarded(
    work: Callable[..., Any],
    library: str,
    path: Path,
    *given: Any,
    size: int,
    sink: Callable[[], BinaryIO] = io.BytesIO,
) -> tuple[Any, BinaryIO]:
    """What `work(path, send, *given)` returns and sends in the kept process: JSON, and bytes in a new `sink`.

    Args:
        work: a function at the top of a module.
        library: imported before the limits count.
        given: what JSON can hold.
        size: how many bytes may be made of the file, by which it has time.

    Raises:
        Refusal: of `work`, or the process ended: by a crash, after its time, or since it needs too much memory.
    """
    seconds, memory = SECONDS + size / BYTES_PER_SECOND, MEMORY + MEMORY_PER_BYTE * path.stat().st_size
    asked = [work.__module__, work.__name__, library, seconds, memory, os.path.abspath(path), given]
    request = json.dumps(asked).encode() + b"\n"
    with _lock:
        while True:
            is_fresh, begun, taken = not _started().answers, time.monotonic(), sink()
            try:
                said = _answer(request, taken)
                if "refused" in said:
                    raise Refusal(said["refused"])
                return said["returned"], taken
            except ChildProcessError as ended:
                taken.close()
                if time.monotonic() - begun >= seconds:
                    raise Refusal(f"cannot be read in {seconds:.0f} s") from None
                if is_fresh:  # else it may have died of a file before this one
                    raise Refusal(unreadable(path, f"reading it ended {ended}")) from None
            except BaseException:
                taken.close()
                raise


def _answer(request: bytes, sink: BinaryIO) -> Any:
    """The JSON of an answer, whose blocks are written to `sink`.

    Raises:
        ChildProcessError: the process ended; the message says how.
    """
    global _reader
    reader = _started()
    try:
        return reader.answer(request, sink)
    except BaseException as error:  # such as Ctrl-C or a full disk: the rest of the answer is not wanted
        _reader = None
        code = reader.stop(patience=1.0 if isinstance(error, EOFError) else 0.0)
        if isinstance(error, EOFError):
            names = {-each: f"by {each.name}" for each in signal.Signals}
            raise ChildProcessError(names.get(code, f"with code {code}")) from error
        raise


def _started() -> _Reader:
    global _reader, _is_registered
    if not _is_registered:
        _is_registered = True
        atexit.register(_stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forget)
    if _reader is None:
        _reader = _Reader()
    return _reader


def _stop() -> None:
    global _reader
    if _reader is not None:
        _reader.stop(patience=1.0)
        _reader = None


def _forget() -> None:
    """In a fork, which starts a process of its own: without its parent's pipes, so that they close with the parent."""
    global _reader, _lock
    _lock = threading.Lock()
    if _reader is not None:
        _reader.close()
        _reader.process.returncode = 0  # no child of this process, so nothing to wait for
        _reader = None


def serve() -> None:
    """Answers requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what a library prints is no answer

    def send(block: Any) -> None:
        view = memoryview(block).cast("B")
        for part in (memoryview(len(view).to_bytes(LENGTH, "little")), view):
            while len(part):
                part = part[answers.write(part) :]

    for line in sys.stdin.buffer:
        module, name, library, seconds, memory, path, given = json.loads(line)
        said: dict[str, Any]
        try:
            with file_errors(Path(path)):
                work = getattr(importlib.import_module(module), name)
                importlib.import_module(library)
                with _limits(seconds, memory):
                    said = {"returned": work(Path(path), send, *given)}
        except PointCloudFileError as error:
            said = {"refused": error.reason}
        except BaseException as error:  # lazrs panics with one that is no Exception
            said = {"refused": unreadable(Path(path), f"{type(error).__name__}: {error}")}
        send(b"")
        send(json.dumps(said).encode())
    os._exit(0)


@contextlib.contextmanager
def _limits(seconds: float, memory: int) -> Iterator[None]:
    """Ends this process after so many seconds, also within a library, and lets it take so many bytes more."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    before = limit_memory(memory)
    try:
        yield
    except MemoryError as error:
        raise Refusal("needs more memory than a file of its size may take") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        before()


def limit_memory(more: int) -> Callable[[], None]:
    """Lets this process take so many bytes more, where the system can do so; a function that takes that back."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (min([limit, *(x for x in (soft, hard) if x >= 0)]), hard))
    except (ImportError, ValueError, OSError):  # Windows has no limits, and macOS refuses this one
        return lambda: None
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
