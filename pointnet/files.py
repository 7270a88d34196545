"""Writing files so that a reader never sees half of one."""

import os
import tempfile
from pathlib import Path

AnyPath = str | os.PathLike[str]


def write_atomically(path: AnyPath, data: bytes, durable: bool = True) -> None:
    """Writes beside `path` and renames into place: whatever happens, the old file or the new one is there, whole.

    Not `durable`, it does not wait for the disk, which is most of the time that a small file takes; if then the power
    fails, the new one may be there in part.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; the old file is untouched.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
