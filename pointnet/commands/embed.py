"""`python -m pointnet embed`: the features of files, as one NPZ."""

import io
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from pointnet.devices import find_device, use_threads
from pointnet.files import check_apart, replacing, write_atomically
from pointnet.inference.embed import Embedding, embed_each, with_encoder
from pointnet.inference.inputs import Reading, find_files, lines_of_folders
from pointnet.models import DEFAULTS
from pointnet.names import printable, say
from pointnet.points.read import PointCloudFileError


def run(flags: Namespace) -> int:
    """Writes the features; a file that cannot be read is a line on stderr, and makes the exit code 1."""
    out = Path(flags.out)
    if out.suffix != ".npz":
        raise ValueError(f"{out}: --out must end in .npz")
    device, threads = find_device(flags.device), use_threads(flags.threads)
    files, model = find_files(flags.files), with_encoder(flags.model).to(device)
    check_apart([out], files)
    found = list[Embedding]()
    for line in lines_of_folders(flags.files):
        say(printable(line), sys.stderr)
    reading = Reading(flags.up, flags.num_points, flags.columns, flags.vertices)
    for each in embed_each(files, model, reading):
        if isinstance(each, PointCloudFileError):
            say(printable(str(each)), sys.stderr)
            continue
        found.append(each)
        for note in each.notes:
            say(printable(f"{each.file}: {note}"), sys.stderr)
    if not found:
        raise ValueError(f"{out}: not written: no file could be read")
    arrays: dict[str, Any] = {
        "files": np.array([str(each.file) for each in found]),
        "feature": np.stack([each.feature for each in found]),
        "hidden": np.stack([each.hidden for each in found]),
        "notes": np.array(["; ".join(each.notes) for each in found]),
        "model": np.array(flags.model or DEFAULTS["classification"]),
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    out.parent.mkdir(parents=True, exist_ok=True)
    replaced = replacing(out)
    write_atomically(out, stream.getvalue())
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items() if array.shape)
    say(f"wrote {out}{replaced}: {shapes}; {threads}")
    return 0 if len(found) == len(files) else 1
