"""Time and memory to label a whole scene, from a file of points to a file of labels.

python -m benchmarks.scene [--points 2000000] [--device cuda]

The scene is made here: a hall with walls, tables and random colours. The network is as published, with initial weights:
time and memory do not depend on the labels.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import forget_peak, machine, parser, peak, resident
from pointnet import PointNetSegmenter
from pointnet.datasets.s3dis import CLASSES, read_room
from pointnet.inference.scenes import label_scene

HALL = (40.0, 30.0, 4.0)  # metres


def make_hall(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Rows x y z r g b class of `count` points in a hall: floor, ceiling, walls and tables."""
    wide, deep, high = HALL
    rows = np.empty((count, 7), np.float32)
    rows[:, :3] = generator.random((count, 3)) * (wide, deep, high)
    kind = generator.integers(0, 5, count)
    rows[kind == 0, 2], rows[kind == 1, 2] = 0, high
    rows[kind == 2, 0], rows[kind == 3, 1] = 0, deep
    tables = kind == 4
    rows[tables, :2] = np.floor(rows[tables, :2] / 2) * 2 + rows[tables, :2] % 0.8
    rows[tables, 2] = 0.75
    rows[:, 3:6] = generator.integers(0, 256, (count, 3))
    rows[:, 6] = np.array([CLASSES.index(name) for name in ("floor", "ceiling", "wall", "wall", "table")])[kind]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--points", type=int, default=2_000_000)
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = PointNetSegmenter(len(CLASSES)).eval().to(args.device)
    with torch.no_grad():  # libraries that load on first use are not the scene's memory
        model(torch.zeros(1, 9, 64, device=args.device))
    with tempfile.TemporaryDirectory() as folder:
        scene, result = Path(folder) / "hall.npy", Path(folder) / "labels.npy"
        np.save(scene, make_hall(args.points, np.random.default_rng(0)))
        before = resident()
        forget_peak()
        start = time.perf_counter()
        room = read_room(scene)
        assert room.colors is not None
        found = label_scene(model, room.points, room.colors)
        np.save(result, found.labels.astype(np.uint8))
        seconds = time.perf_counter() - start
        taken = peak() - before
        said = np.load(result)
    assert said.shape == (args.points,)
    print(
        f"{machine(args.device)}\n{args.points:,} points, each in up to four blocks: {seconds:,.0f} s, "
        f"{args.points / seconds:,.0f} points/s; at most {taken:,.0f} MiB over the resting process's {before:,.0f}"
    )


if __name__ == "__main__":
    main()
