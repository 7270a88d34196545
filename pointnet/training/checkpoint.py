"""The checkpoint file: all that a run needs to go on as if it had never stopped, with its sha256."""

import hashlib
import io
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pointnet.files import write_atomically
from pointnet.names import printable

# The header names the format and the sha256 of the rest, so that any flipped bit is noticed.
HEADER = b"pointnet checkpoint, sha256 "
HEADER_SIZE = len(HEADER) + 64 + 1


def save_checkpoint(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and dicts of them, whole or not at all.

    OSError where that cannot be done; the last checkpoint is still there, and the message says so.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    try:
        write_atomically(path, header(payload) + payload)
    except OSError as error:
        kept = "the one before it is still good" if Path(path).exists() else "there is none yet"
        reason = f"no checkpoint could be written ({error.strerror}); {kept}"
        raise OSError(error.errno, reason, os.fspath(path)) from error


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. ValueError, naming the file, where it is missing or damaged."""
    path = Path(path)
    if not path.is_file():
        hint = "a run that was killed in its first epoch starts again without --resume"
        raise ValueError(f"{path}: no checkpoint to resume from; {hint}")
    data = path.read_bytes()
    payload = data[HEADER_SIZE:]
    if data[:HEADER_SIZE] != header(payload):
        raise ValueError(f"{path}: damaged or not a checkpoint: it does not match the sha256 stored in it")
    try:
        return dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
    except UnpicklingError as error:  # whose message says how to run it all the same
        raise ValueError(f"{path}: damaged or not a checkpoint: it holds what may be code, which is not run") from error
    except Exception as error:  # undamaged, but of another kind: the unpickler may raise anything
        reason = printable(" ".join(str(error).split()))
        raise ValueError(f"{path}: damaged or not a checkpoint: {reason}") from error


def header(payload: bytes) -> bytes:
    return HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n"
