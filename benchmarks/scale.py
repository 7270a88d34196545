"""Packed sets at scale: how long packing, the start and an epoch take, how memory grows, and how well shards mix.

python -m benchmarks.scale [--clouds 1000000] [--points 64] [--workers 1] [--out FOLDER]

The clouds are made, not read, so that the disk need not hold them twice. Each row is of a process of its own, the first
epoch with none of the shards in the system's memory.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import machine, parser, resident
from pointnet.datasets import LabelledClouds, split_validation
from pointnet.datasets.packed import open_packed
from pointnet.datasets.packing import pack_split
from pointnet.training.loader import StreamedLoader, cut_batches
from pointnet.training.progress import epoch_order

CLASSES, PROTOTYPES, BATCH = 40, 512, 32
CPU = torch.device("cpu")


class Made(LabelledClouds):
    """S clouds of N points in the unit sphere, each made when it is asked for: a prototype, shrunk by its number."""

    def __init__(self, clouds: int, points: int):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(PROTOTYPES, 3, points, generator=generator)
        self.prototypes = x / x.norm(dim=1).amax(1)[:, None, None]
        names = [f"class {i}" for i in range(CLASSES)]
        super().__init__(self.prototypes[:CLASSES], torch.arange(CLASSES), names)
        self.labels = torch.arange(clouds) * CLASSES // clouds  # by class, as folders are read
        self.channel_names, self.scale, self.centre = ("x", "y", "z"), "unit sphere", True

    def _taken(self, stored: Tensor | slice | int) -> Tensor:
        rows = torch.arange(len(self))[stored] if isinstance(stored, slice) else torch.as_tensor(stored)
        shrunk = 1 - (rows % 1000).float() / 2000
        return self.prototypes[rows % PROTOTYPES] * shrunk[..., None, None]


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--clouds", type=int, default=1_000_000)
    flags.add_argument("--points", type=int, default=64)
    flags.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    flags.add_argument("--out", type=Path, help="where to pack; a temporary folder by default")
    flags.add_argument("--measure", type=Path, help="used by the benchmark itself")
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measured(args.measure, args.points, args.workers[0])))
        return
    print(f"{machine('cpu')}\n")
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder)
        started = time.perf_counter()
        packed = pack_split(Made(args.clouds, args.points), out / "train", "classification", out)
        seconds = time.perf_counter() - started
        print("| packing | s | clouds/s | MB | shards | bytes per cloud |\n|-|-|-|-|-|-|")
        row = f"{seconds:.1f} | {args.clouds / seconds:,.0f} | {packed.size / 1e6:,.1f} | {packed.shards:,}"
        print(f"| {args.clouds:,} clouds of {args.points:,} points | {row} | {packed.size / args.clouds:,.0f} |\n")
        found = {}
        for name in ("none in memory", "in memory"):
            for workers in args.workers:
                if name == "none in memory":
                    forget(out / "train")
                found[name, workers] = in_a_process(out, args.points, workers, args.threads)
        mixing(open_packed(out, "train", args.points))
    print("\n| start, s | import | index and split | order of the epoch | first batch | in all |\n|-|-|-|-|-|-|")
    for (name, workers), each in found.items():
        steps = [each[step] for step in ("import", "open", "order", "first")]
        row = " | ".join(f"{step:.2f}" for step in (*steps, sum(steps)))
        print(f"| shards {name}, {workers} worker{'s' * (workers != 1)} | {row} |")
    print("\n| epoch | clouds/s | per second of processor time | MiB after a tenth | at most | at the end |")
    print("|-|-|-|-|-|-|")
    for (name, workers), each in found.items():
        memory = each["memory"]
        row = " | ".join(f"{value:,.0f}" for value in (each["rate"], each["of_processor"], memory[0], max(memory)))
        print(f"| shards {name}, {workers} worker{'s' * (workers != 1)} | {row} | {memory[-1]:,.0f} |")


def in_a_process(out: Path, points: int, workers: int, threads: int) -> dict[str, Any]:
    """What `measured` finds in a process of its own, and what importing took it."""
    words = ["--measure", str(out), "--points", str(points), "--workers", str(workers), "--threads", str(threads)]
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"import": found["began"] - started}


def measured(out: Path, points: int, workers: int) -> dict[str, Any]:
    """Seconds of each part of the start, clouds per second over the rest of an epoch, and MiB at its tenths."""
    began, marks = time.time(), [time.perf_counter()]
    train, _ = split_validation(open_packed(out, "train", points), 0, 0.1)
    train.fingerprint()
    marks.append(time.perf_counter())
    batches = cut_batches(epoch_order(train, 0, 0), BATCH)
    marks.append(time.perf_counter())
    loaded = StreamedLoader(train, CPU, workers).batches(batches)
    seen = len(next(loaded)[1])
    marks.append(time.perf_counter())
    memory, first, worked = [], seen, time.process_time()
    for i, (_, labels) in enumerate(loaded, 1):
        seen += len(labels)
        if 10 * i // len(batches) > 10 * (i - 1) // len(batches):
            memory.append(resident())
    rate, of_processor = ((seen - first) / s for s in (time.perf_counter() - marks[-1], time.process_time() - worked))
    assert seen == len(train)
    memory.append(resident())
    seconds = dict(zip(("open", "order", "first"), np.diff(marks).tolist(), strict=True))
    return {"began": began, "import": 0.0, "rate": rate, "of_processor": of_processor, "memory": memory, **seconds}


def forget(folder: Path) -> None:
    """Drops the files of a folder from the system's memory, where it can."""
    for path in folder.iterdir() if hasattr(os, "posix_fadvise") else ():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def mixing(data: LabelledClouds) -> None:
    """Prints how even the classes of a batch are, in the order of shards and in one that mixes everything."""
    order, perfect = epoch_order(data, 0, 0), torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    size = 256
    print(f"| batches of {size} | classes in one | spread of a class's share, of what chance gives |\n|-|-|-|")
    for name, rows in (("in the order of shards", order), ("everything mixed", perfect)):
        labels = data.labels[rows[: len(rows) // size * size]].view(-1, size)
        counts = torch.stack([labels.eq(label).sum(1) for label in range(CLASSES)], 1).double()
        chance = (size * (1 / CLASSES) * (1 - 1 / CLASSES)) ** 0.5
        spread = float((counts - size / CLASSES).square().mean().sqrt() / chance)
        print(f"| {name} | {float((counts > 0).sum(1).double().mean()):.2f} | {spread:.3f} |")


if __name__ == "__main__":
    main()
