"""Pickles that call something."""

import builtins
import io
import os
import pickle
import random
import shutil
import subprocess
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointnet import load_model
from pointnet.models.ports import load_port
from pointnet.points.read import read_cloud
from pointnet.training.checkpoint import header, load_checkpoint
from pointnet.training.run_folder import read_config
from tests.whole_files import FILES

from .trial import FAILED, Trials, model_folder, refused_or, run_folder


class Malice:
    """A pickle of it calls a function when it is opened."""

    def __init__(self, function: Callable[..., Any], *given: Any):
        self.call = function, given

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def payloads(ran: Path) -> list[Malice]:
    """What makes a folder when its pickle is opened, by functions that lists of known dangers have and have not."""
    there, script = str(ran), ran.with_suffix(".py")
    code = f"__import__('os').makedirs({there!r}, exist_ok=True)"
    script.write_text(code)
    plain = Malice(os.makedirs, there, 0o777, True)
    return [
        plain,
        Malice(os.system, f"mkdir -p {there}"),
        Malice(subprocess.call, ["mkdir", "-p", there]),
        Malice(builtins.exec, code),
        Malice(builtins.eval, code),
        Malice(timeit.timeit, code, "pass", time.perf_counter, 1),
        Malice(Path.mkdir, ran, 0o777, True, True),
        Malice(shutil.copytree, FILES, there),
        Malice(pickle.loads, pickle.dumps(plain)),
        Malice(torch.hub._import_module, "x", str(script)),
    ]


def in_checkpoint(path: Path, content: bytes) -> None:
    path.write_bytes(header(content) + content)


def pickles(count: int, folder: Path) -> Trials:
    """Opens a pickle that calls a function, in a place where weights, arrays or settings should be."""
    choice, ran = random.Random(0), folder / "ran"
    run, malices = run_folder(folder / "run"), payloads(ran)
    model_folder(folder / "model")
    settings = (run / "config.yaml").read_text()

    def yaml(path: Path, _: bytes) -> None:
        tag = choice.choice(["object/apply:os.mkdir", "object/new:os.mkdir", "object/apply:subprocess.call"])
        path.write_text(f"{settings}out: !!python/{tag} [{ran}]\n")

    places: dict[str, tuple[Callable[[Path, bytes], Any], Callable[[Path], Any]]] = {
        "model/model.safetensors": (Path.write_bytes, lambda path: load_model(path.parent)),
        "model/config.json": (Path.write_bytes, lambda path: load_model(path.parent)),
        "a.pth": (Path.write_bytes, load_port),
        "a.pt": (in_checkpoint, load_checkpoint),
        "b.pt": (Path.write_bytes, load_checkpoint),
        "run/config.yaml": (yaml, lambda path: read_config(path.parent)),
        **{f"a{suffix}": (Path.write_bytes, read_cloud) for suffix in (".npy", ".npz", ".h5", ".txt", ".ply", ".pcd")},
    }
    for _ in range(count):
        name = choice.choice(list(places))
        malice, stream = choice.choice(malices), io.BytesIO()
        held_by = choice.choice([malice, [malice], {"x": malice}, {"state_dict": {"x": malice}}])
        kind, protocol = choice.choice(["zip", "legacy", "bare", "npy", "npz"]), choice.randint(0, 5)
        if kind in ("npy", "npz"):
            array = np.array([[malice] * 3] * 4)
            np.save(stream, array, allow_pickle=True) if kind == "npy" else np.savez(stream, points=array)
        elif kind == "bare":
            pickle.dump(held_by, stream, protocol)
        else:
            torch.save(held_by, stream, pickle_protocol=max(protocol, 1), _use_new_zipfile_serialization=kind == "zip")
        write, read = places[name]
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        write(path, stream.getvalue())
        found = refused_or(partial(read, path), path.parent)
        yield found if found == "refused" and not ran.exists() else f"{FAILED}: {kind} as {name}: {malice.call} {found}"
        shutil.rmtree(ran, ignore_errors=True)
        path.unlink() if before is None else path.write_bytes(before)
