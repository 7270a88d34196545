"""Writing files so that a reader never sees half of one, reading them back, naming them and what they hold."""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

AnyPath = str | os.PathLike[str]

HOST = re.sub(r"\W", "-", platform.node())[:64]
TEMPORARY = re.compile(r"\.pointnet-(\d+)-(.*)-\w{8}\.part")  # the process that makes it, and its machine
DAY = 24 * 60 * 60  # seconds; nobody writes one file for so long


def write_atomically(path: AnyPath, data: bytes | Iterable[bytes], durable: bool = True) -> None:
    """Writes beside `path` and renames into place: whatever happens, the old file or the new one is there, whole.

    The first write to a folder removes what killed processes left in it (`sweep`).

    Args:
        data: the bytes, whole or piece by piece.
        durable: wait for the disk, which is most of the time that a small file takes. If not, and then the power fails,
            the new file may be there in part.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; the old file is untouched.
    """
    path = Path(path)
    sweep(path.parent)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(), suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:  # of the file that is wanted, whatever the temporary one is called
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def temporary_prefix() -> str:
    """How the name of a temporary file or folder of this process begins; it ends with eight letters and ".part"."""
    return f".pointnet-{os.getpid()}-{HOST}-"


@functools.cache
def sweep(folder: Path) -> None:
    """Removes the temporary files and folders in it whose process was killed; of other machines those a day old.

    Once per folder and process.
    """
    for path in folder.glob(".pointnet-*.part"):
        with contextlib.suppress(OSError):  # another process is quicker, or the folder is read-only
            found, status = TEMPORARY.fullmatch(path.name), path.lstat()
            if found is None or not (_is_gone(*found.groups()) or time.time() - status.st_mtime > DAY):
                continue
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _is_gone(pid: str, host: str) -> bool:
    """Whether a process of this machine has ended; False where that cannot be known."""
    if host != HOST or sys.platform == "win32":  # there os.kill ends the process that it asks for
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def check_regular(path: AnyPath) -> None:
    """OSError unless it is a regular file or a link to one: a pipe or a device could be read for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        raise OSError(errno.EINVAL, f"is {kind}, not a file", os.fspath(path))


def check_apart(written: Iterable[AnyPath], read: Iterable[AnyPath]) -> None:
    """ValueError if a file that will be written is one of those that are read, by whatever name."""
    sources = {found for path in read if (found := _identity(path))}
    for path in written:
        if _identity(path) in sources:
            raise ValueError(f"{path}: is one of the files to read, and would be written over; choose another --out")


def replacing(path: AnyPath) -> str:
    """The end of a line about a file that will be written: that it is over an earlier one; empty if it is not."""
    return ", over an earlier one" if os.path.lexists(path) else ""


def _identity(path: AnyPath) -> tuple[int, int] | None:
    """What is the same for all names of a file; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def read_file(path: AnyPath) -> bytes:
    """The bytes of a file that `check_regular` lets pass. OSError where it cannot be read."""
    check_regular(path)
    return Path(path).read_bytes()


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON as its standard has it, which any reader takes: null for numbers that are not finite."""

    def plain(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: plain(held) for name, held in each.items()}
        if isinstance(each, list | tuple):
            return [plain(held) for held in each]
        return None if isinstance(each, float) and not math.isfinite(each) else each

    return json.dumps(plain(value), allow_nan=False, indent=indent)


def write_json(path: AnyPath, value: dict[str, Any]) -> None:
    """Writes a line with the sha256 of the next, then JSON."""
    content = json.dumps(value).encode()
    write_atomically(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_json(path: AnyPath) -> dict[str, Any]:
    """What `write_json` wrote. OSError or ValueError where it is missing or damaged."""
    return checked_json(read_file(path), path)


def checked_json(written: bytes, path: AnyPath) -> dict[str, Any]:
    """What `write_json` wrote to `path`. ValueError or TypeError where that is damaged."""
    first, newline, content = written.partition(b"\n")
    if newline and first != hashlib.sha256(content).hexdigest().encode():
        raise ValueError(f"{path}: does not match its sha256")
    try:
        return dict(json.loads(content if newline else first))  # earlier versions wrote JSON alone
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deep") from error


def content_hash(path: Path) -> str:
    """The sha256 of a file; of a folder, that of the names, sizes and bytes of the files in it."""
    digest = hashlib.sha256()
    for file in files_of(path):
        if file != path:
            digest.update(os.fsencode(file.name) + b"/" + str(file.stat().st_size).encode() + b"/")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a folder by name, without those of folders in it."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def user_cache() -> Path:
    """The folder of what the library keeps for this user. RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pointnet-shared-mlp"


def name_in(file: Path, root: Path) -> str:
    """A file's path in a folder, with bytes that are no text spelled out, so that it can be written in any JSON."""
    return os.fsencode(file.relative_to(root)).decode(errors="backslashreplace")
