"""Flipped bits in what the library writes."""

import contextlib
import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from pointnet import load_model
from pointnet.datasets import shapes, workers
from pointnet.datasets.known import read_known, write_known
from pointnet.datasets.packed import open_packed
from pointnet.datasets.shape_classes import BUILDERS
from pointnet.inference.label import label_points
from pointnet.points.read import read_cloud
from pointnet.training.checkpoint import load_checkpoint, save_checkpoint
from pointnet.training.run_folder import read_config, read_metrics, read_result
from tests.helpers import pack, two_shapes
from tests.whole_files import FILES

from .caches import numbered_files, read_numbered
from .trial import FAILED, Trials, model_folder, refused_or, run_folder, whole


def answers(folder: Path) -> Any:
    """What a model folder holds, as it can be compared."""
    model = load_model(folder)
    state = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return state, model.arguments, model.classes, model.preprocessing


def in_run(name: str, read: Callable[[Path], Any]) -> Callable[[Path], tuple[Path, Callable[[], Any]]]:
    return lambda folder: (run_folder(folder) / name, partial(read, folder))


def in_cache(pattern: str) -> Callable[[Path], tuple[Path, Callable[[], Any]]]:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        files = numbered_files(folder)
        read_numbered(files)
        (path,) = (folder / ".cache").glob(pattern)
        return path, partial(read_numbered, files)

    return make


def checkpoint(folder: Path) -> tuple[Path, Callable[[], Any]]:
    folder.mkdir()
    save_checkpoint(folder / "a.pt", {"model": {"weight": torch.arange(999.0)}, "epoch": 3})
    return folder / "a.pt", lambda: str(load_checkpoint(folder / "a.pt"))


def note(folder: Path) -> tuple[Path, Callable[[], Any]]:
    write_known(known := {"chair_1.off": True, "chair_2.off": False}, folder, "split")
    (path,) = (folder / ".cache").iterdir()

    def read() -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return read_known(folder, "split") or known  # which is made again

    return path, read


def made_shapes(folder: Path) -> tuple[Path, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    points = rng.random((len(BUILDERS) * 2, 3, shapes.NUM_POINTS), np.float32)
    whole = points, np.zeros_like(points[:, 0], np.uint8)

    def read() -> Any:
        with patch.object(shapes, "_generate", lambda _: whole), patch.dict(shapes.COUNTS, train=2):
            return [array.tobytes() for array in shapes._cached(folder / "a.npz", "train")]

    read()
    return folder / "a.npz", read


def labels_ply(folder: Path) -> tuple[Path, Callable[[], Any]]:
    (labelled,) = label_points([FILES / "stool.xyz"], num_points=64)
    labelled.write_ply(folder / "a.ply")
    return folder / "a.ply", lambda: [np.asarray(part).tobytes() for part in read_cloud(folder / "a.ply")[:4]]


def packed_set(folder: Path) -> Path:
    with contextlib.redirect_stderr(io.StringIO()), patch.object(workers, "free_cores", lambda: 1):
        pack(two_shapes(per_class=6), folder)
    return folder


def in_packed(name: str) -> Callable[[Path], tuple[Path, Callable[[], Any]]]:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        def read() -> Any:
            data = open_packed(folder, "train", 32)
            points, labels = data.batch(torch.arange(len(data)))
            return points.numpy().tobytes(), labels.tolist(), data.classes, [*map(data.name_of, range(len(data)))]

        return packed_set(folder) / "train" / name, read

    return make


def half_packed(folder: Path) -> tuple[Path, Callable[[], Any]]:
    return packed_set(folder) / "train" / "shard-00000.npy", lambda: whole(packed_set(folder))


CHECKED, TEXT = True, False
# What is written, how it is made and read, and whether it has a checksum, which notices every bit.
WRITTEN: dict[str, tuple[Callable[[Path], tuple[Path, Callable[[], Any]]], bool]] = {
    "checkpoint.pt": (checkpoint, CHECKED),
    "model.safetensors": (
        lambda folder: (model_folder(folder) / "model.safetensors", partial(answers, folder)),
        CHECKED,
    ),
    "model.safetensors of a run": (in_run("model.safetensors", answers), CHECKED),
    "cached clouds": (in_cache("*.npy"), CHECKED),
    "listing of a cache": (in_cache(f"{'?' * 16}.json"), CHECKED),
    "hashes of a cache": (in_cache("contents.json"), CHECKED),
    "note": (note, CHECKED),
    "shapes.npz": (made_shapes, CHECKED),
    "packed shard": (in_packed("shard-00000.npy"), CHECKED),
    "packed samples": (in_packed("samples.npy"), CHECKED),
    "packed index": (in_packed("index.json"), CHECKED),
    "shard of an earlier pack": (half_packed, CHECKED),
    "config.json": (lambda folder: (model_folder(folder) / "config.json", partial(answers, folder)), TEXT),
    "config.yaml": (in_run("config.yaml", read_config), TEXT),
    "metrics.jsonl": (in_run("metrics.jsonl", read_metrics), TEXT),
    "result.json": (in_run("result.json", read_result), TEXT),
    "labels.ply": (labels_ply, TEXT),
}


def bits(kind: str, count: int, folder: Path) -> Trials:
    """Flips one bit anywhere in a file that we write, and reads it."""
    make, is_checked = WRITTEN[kind]
    path, read = make(folder / "written")
    good, wanted, flips = path.read_bytes(), read(), random.Random(0)
    for _ in range(count):
        damaged = bytearray(good)
        damaged[at := flips.randrange(len(good))] ^= 1 << (bit := flips.randrange(8))
        path.write_bytes(damaged)
        outcome = refused_or(read, path.parent)
        if isinstance(outcome, str):
            yield outcome if not outcome.startswith(FAILED) else f"{outcome} (bit {bit} of byte {at})"
        elif outcome.value == wanted:
            yield "nothing lost"
        else:
            yield "read as other text" if not is_checked else f"{FAILED}: bit {bit} of byte {at} goes through"
