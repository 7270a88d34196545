"""Everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from pointnet.files import write_atomically


def save_checkpoint(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and dicts of them, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU.

    Raises:
        ValueError: the file is missing or damaged; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no checkpoint to resume from")
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        raise ValueError(f"{path}: damaged or not a checkpoint: {error}".splitlines()[0]) from error
