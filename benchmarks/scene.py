"""Time and memory to label a whole scene, from a file of points to a file of labels.

python -m benchmarks.scene [--points 2000000] [--device cuda]
python -m benchmarks.scene --las 100000000 [--labelled 10000000] [--width 0.25]

The scene is made here: a hall with walls, tables and random colours. The network is as published, or narrower by
`--width`, with initial weights: time and memory do not depend on the labels. `--las` writes a LAS of that many points,
and runs the commands `show` on it and `predict` on one of `--labelled` points (none: as many; 0: not at all).
"""

import subprocess
import sys
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
from pointnet.models.encoder import ENCODER_WIDTHS
from pointnet.models.segmentation import SCENE_HEAD_WIDTHS
from tests.las_files import las_header, las_records

BLOCK = 1_000_000  # points made at once
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


def write_las(path: Path, count: int) -> None:
    """A hall of so many points as a LAS: whole millimetres at survey coordinates, classes, colours of 8 bits."""
    with path.open("wb") as file:
        file.write(las_header(count, scale=0.001, offset=500_000.0))
        for start in range(0, count, BLOCK):
            rows = make_hall(min(BLOCK, count - start), np.random.default_rng(start))
            xyz = np.rint(rows[:, :3].astype(np.float64) * 1000)
            file.write(las_records(xyz, rows[:, 3:6], rows[:, 6]))


def segmenter(width: float = 1.0) -> PointNetSegmenter:
    """The network of scenes with all widths times `width`, and initial weights."""
    torch.manual_seed(0)

    def narrower(widths: Sequence[int]) -> list[int]:
        return [max(round(width * channels), 1) for channels in widths]

    aligned = width == 1
    model = PointNetSegmenter(
        len(CLASSES),
        input_transform=aligned,
        feature_transform=aligned,
        widths=[narrower(widths) for widths in ENCODER_WIDTHS],
        head_widths=narrower(SCENE_HEAD_WIDTHS),
    )
    model.classes, model.preprocessing = CLASSES, {"num_points": 4096}
    return model.eval()


def measured(*words: str) -> None:
    """Runs a command of the package, and prints its first line, its time and the memory that it took at most."""
    start, own, all_pages = time.perf_counter(), 0, 0
    with tempfile.TemporaryFile("w+") as printed:
        child = subprocess.Popen([sys.executable, "-m", "pointnet", *words], stdout=printed)
        while child.poll() is None:
            try:
                status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
                own = max(own, int(status["RssAnon"].split()[0]))
                all_pages = max(all_pages, int(status["VmHWM"].split()[0]))
            except (KeyError, OSError):  # it has just ended
                break
            time.sleep(0.05)
        if child.wait():
            raise SystemExit(f"{words[0]} ended with {child.returncode}")
        printed.seek(0)
        print(printed.read().rstrip())
    print(
        f"{words[0]}: {time.perf_counter() - start:,.0f} s; at most {own / 1024:,.0f} MiB of its own, "
        f"{all_pages / 1024:,.0f} MiB with pages of the mapped file, which the system may drop",
        flush=True,
    )


def run_commands(count: int, labelled: int, width: float, threads: int) -> None:
    """`show` on a LAS of `count` points, and `predict` on one of `labelled`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        segmenter(width).save_pretrained(folder / "network")
        for points in dict.fromkeys((count, labelled)):
            if points:
                write_las(folder / f"{points}.las", points)
                print(f"{points:,} points: {(folder / f'{points}.las').stat().st_size / 1e9:,.2f} GB", flush=True)
        measured("show", str(folder / f"{count}.las"), "--out", str(folder / "show"))
        if labelled:
            out = ["--out", str(folder / "labels"), "--threads", str(threads)]
            measured("predict", str(folder / f"{labelled}.las"), "--model", str(folder / "network"), *out)
            (ply,) = (folder / "labels").glob("*.ply")
            print(f"{ply.stat().st_size / 1e9:,.2f} GB of labelled points")


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--points", type=int, default=2_000_000)
    flags.add_argument("--las", type=int, help="points of a LAS for the commands show and predict")
    flags.add_argument("--labelled", type=int, help="points of the LAS for predict")
    flags.add_argument("--width", type=float, default=1.0)
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.las:
        print(machine(args.device))
        run_commands(args.las, args.las if args.labelled is None else args.labelled, args.width, args.threads)
        return
    model = segmenter(args.width).to(args.device)
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
        taken = max(peak() - before, 0)
        said = np.load(result)
    assert said.shape == (args.points,)
    print(
        f"{machine(args.device)}\n{args.points:,} points, each in up to four blocks: {seconds:,.0f} s, "
        f"{args.points / seconds:,.0f} points/s; at most {taken:,.0f} MiB over the resting process's {before:,.0f}"
    )


if __name__ == "__main__":
    main()
