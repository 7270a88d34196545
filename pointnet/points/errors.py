"""The one error of files of points, and the context managers that turn other errors into it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

LONGEST_REASON = 300
PAGE = "is a web page, not the file that should be here; download it again"
# What servers send and Git stores in place of a file, by how it begins in lower case.
IN_PLACE_OF_FILES = {
    b"version https://git-lfs": "is a pointer to a file in Git LFS, not the file; get it with git lfs pull",
    **dict.fromkeys((b"<!", b"<html", b"<?xml"), PAGE),
}


class PointCloudFileError(ValueError):
    """A file or folder of points that cannot be used: one line with the path and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        name = os.fspath(path).replace("\n", "\\n")
        super().__init__(f"{name}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:  # so that another process can send it
        return type(self), (self.path, self.reason)


class DatasetNotFoundError(PointCloudFileError):
    """A folder that holds nothing of the data set it should hold."""


class Refusal(ValueError):
    """Why a file cannot be used, for the user; `file_errors` adds the path."""


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Whatever is raised inside leaves as a `PointCloudFileError` of one line; warnings are silenced."""
    try:
        # Libraries warn about what they repair or skip; what counts here is the result.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except PointCloudFileError:
        raise
    except Refusal as refusal:
        raise PointCloudFileError(path, _one_line(str(refusal))) from (refusal.__cause__ or refusal)
    except Exception as error:  # parsers and libraries do not promise which errors they raise
        raise PointCloudFileError(path, _one_line(_reason(error, path))) from error


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Raises a ValueError of the block again as a `PointCloudFileError` that names the file; all else as it is."""
    try:
        yield
    except ValueError as error:
        raise PointCloudFileError(path, str(error)) from error


def check_file(path: Path) -> None:
    """Raises Refusal unless there is a file at this path that holds something, and not what came in its place."""
    if not path.is_file():
        is_other = "is a pipe or a device, not a file; save its output to a file" if path.exists() else "no such file"
        raise Refusal("is a folder, not a file" if path.is_dir() else is_other)
    if path.stat().st_size == 0:
        raise Refusal("is empty")
    with path.open("rb") as file:
        head = file.read(LONGEST_REASON).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for begins, what in IN_PLACE_OF_FILES.items():
        if head.startswith(begins):
            raise Refusal(what)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return unreadable(path, f"{type(error).__name__}: {error}")


def unreadable(path: Path, why: str) -> str:
    """The reason of an error that nobody foresaw."""
    kind = path.suffix.lstrip(".").upper()
    kind = "HDF5" if kind in ("H5", "HDF") else kind
    return f"is not a readable {kind} file (damaged, cut short or of another format): {why}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."
