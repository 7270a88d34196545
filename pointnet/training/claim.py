"""The claim of a run folder: one process writes it at a time, whoever else was started there."""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from pointnet.files import AnyPath, read_file, write_atomically
from pointnet.names import printable
from pointnet.world import World

from .run_folder import check_folder

LOCK = ".lock"  # locked by the system, which frees it when the process ends, however it ends
HOLDER = ".locked_by"  # which process that is, for people
SOFT_LOCK = ".lock_file"  # is the lock itself, on a file system that has no locks
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def claimed(out: AnyPath, world: World) -> Iterator[None]:
    """Within it the first process of this world alone writes the run folder, which is made where it is missing.

    Network file systems pass locks on to other machines (NFS 4, SMB, Lustre mounted with flock). Where there are none,
    a file stands for the lock; if its process was killed on another machine, a person must remove it.

    Raises:
        ValueError: it is a file, or another process writes it; the message says which, and on what machine.
        OSError: the folder cannot be written.
    """
    folder = Path(out)
    with ExitStack() as held:
        with world.together():
            if world.writes:
                check_folder(folder)
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(_locked(folder))
        yield


def check_unclaimed(out: AnyPath) -> None:
    """Raises ValueError, as `claimed` does, if another process writes the run folder; it is not claimed."""
    folder = Path(out)
    if (folder / LOCK).exists() or (folder / SOFT_LOCK).exists():
        with suppress(OSError), _claim_of(folder):
            pass


@contextmanager
def _claim_of(folder: Path) -> Iterator[None]:
    try:
        lock = _acquired(folder)
    except Timeout as error:
        raise ValueError(f"{folder}: {_holder(folder)}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _claim_of(folder):
        try:
            write_atomically(folder / HOLDER, f"process {os.getpid()} on {platform.node()}".encode(), durable=False)
            yield
        finally:
            with suppress(OSError):
                (folder / HOLDER).unlink()
                if [path.name for path in folder.iterdir()] == [LOCK]:  # nothing was written
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _acquired(folder: Path) -> FileLock | SoftFileLock:
    """The lock of the folder; Timeout where another process has it."""
    try:
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
        return lock
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
    soft = SoftFileLock(folder / SOFT_LOCK)
    soft.acquire(timeout=0)
    return soft


def _holder(folder: Path) -> str:
    """Who writes the folder, and what can be done."""
    try:
        holder = printable(read_file(folder / HOLDER).decode(errors="replace"))
    except OSError:  # it has just begun
        holder = "another process"
    soft = folder / SOFT_LOCK
    gone = f" (if that process is gone, remove {soft})" if soft.exists() else ""
    return f"{holder} is training here{gone}; wait until it ends, or choose another --out"
