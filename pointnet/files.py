"""Writing files so that a reader never sees half of one, and naming what they hold."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

AnyPath = str | os.PathLike[str]


def write_atomically(path: AnyPath, data: bytes | Iterable[bytes], durable: bool = True) -> None:
    """Writes beside `path` and renames into place: whatever happens, the old file or the new one is there, whole.

    Args:
        data: the bytes, whole or piece by piece.
        durable: wait for the disk, which is most of the time that a small file takes. If not, and then the power fails,
            the new file may be there in part.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; the old file is untouched.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
