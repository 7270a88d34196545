"""Speed of data: HDF5 to the first batch, meshes to cached points, and each loader beside the training step.

python -m benchmarks.data [--root ../shared/data/modelnet40_dev] [--meshes ../shared/data/modelnet_off_samples]
                          [--parts ../shared/data/psb_parts_dev]
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
import trimesh
from torch import Generator, Tensor

from benchmarks.common import loss_of, machine, pair, parser, peak_memory, side_by_side, synchronize
from pointnet.datasets import LabelledClouds, ModelNet, ShapeNetPart
from pointnet.datasets.folder import sample_files
from pointnet.datasets.transforms import random_subset
from pointnet.devices import keep_freed_memory
from pointnet.points.sampling import KEPT
from pointnet.training import TrainConfig
from pointnet.training.augment import augment
from pointnet.training.loader import Loader, ResidentLoader, StreamedLoader, cut_batches

SAMPLES = Path("data/samples")
CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--root", type=Path, default=SAMPLES, help="a folder with ModelNet40 as HDF5")
    flags.add_argument(
        "--meshes", type=Path, default=SAMPLES / "ModelNet40", help="a folder with OFF files, at any depth"
    )
    flags.add_argument("--parts", type=Path, help="a folder in the text layout of ShapeNetPart")
    flags.add_argument("--repeat", type=int, default=40, help="copies of each mesh")
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(machine(args.device))
    first_batch(args.root, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        if args.parts:
            parts_to_batch(args.parts, Path(folder) / "parts", args.rounds)
        meshes_to_points(args.meshes, Path(folder), args.repeat)
        loaders(ModelNet(args.root), Path(folder), torch.device(args.device), args.rounds)


def first_batch(root: Path, rounds: int) -> None:
    """Times the way from disk to the first batch, and h5py alone on the same bytes; the disk cache may be warm."""

    def ours() -> Tensor:
        data = ModelNet(root)
        points, _ = next(ResidentLoader(data, CPU).batches([torch.arange(min(32, len(data)))]))
        return points

    def bare() -> list[np.ndarray]:
        read = []
        for path in sorted(root.rglob("ply_data_train*.h5")):
            with h5py.File(path) as file:
                read += [file["data"][:, :1024], file["label"][:]]
        return read

    seconds = side_by_side({"`ModelNet(root)` to the first batch": ours, "bare `h5py` read": bare}, rounds)
    print(f"\n| HDF5, {len(ModelNet(root)):,} clouds x 1,024 points | s | ratio |\n|-|-|-|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.3f} | {taken / seconds['bare `h5py` read']:.2f} |", flush=True)


def parts_to_batch(root: Path, folder: Path, rounds: int) -> None:
    """Times the way from text files with a part per point to the first batch, and numpy alone on the same files."""
    folder.mkdir()
    for path in root.resolve().iterdir():  # the cache is written beside the data set
        (folder / path.name).symlink_to(path)
    files = sorted(folder.glob("*/*.txt"))

    def cached() -> Tensor:
        points, _ = ShapeNetPart(folder, "trainval").batch(torch.arange(16))
        return points

    def cold() -> Tensor:
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        return cached()

    seconds = side_by_side({"`np.loadtxt`, file by file": lambda: [np.loadtxt(file) for file in files],
                            "ours, into the cache": cold}, rounds)  # fmt: skip
    seconds |= side_by_side({"ours, from the cache": cached}, rounds)
    print(f"\n| {len(files):,} texts of labelled points to the first batch | s |\n|-|-|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.3f} |", flush=True)


def meshes_to_points(root: Path, folder: Path, repeat: int) -> None:
    """Times the sampling of meshes to KEPT points: trimesh one by one, and ours on all cores into the cache."""
    counts = {name: copies(root, folder / name, times) for name, times in (("few", repeat), ("many", 4 * repeat))}

    def by_trimesh() -> None:
        for path in counts["few"]:
            trimesh.sample.sample_surface(trimesh.load(path, process=False), KEPT, seed=0)

    def ours(name: str = "few") -> None:
        shutil.rmtree(folder / name / ".cache", ignore_errors=True)
        sample_files(counts[name], folder / name, KEPT)

    print(f"\n| {len(counts['few']):,} meshes to {KEPT:,} points | s | meshes/s | times faster |\n|-|-|-|-|")
    seconds = side_by_side({"trimesh, load and sample": by_trimesh, "ours, into the cache": ours}, 3)
    seconds["ours, from the cache"] = side_by_side({"": lambda: sample_files(counts["few"], folder / "few", KEPT)}, 3)[
        ""
    ]
    for name, taken in seconds.items():
        faster = seconds["trimesh, load and sample"] / taken
        print(f"| {name} | {taken:.2f} | {len(counts['few']) / taken:,.0f} | {faster:.1f} |", flush=True)
    for name, files in counts.items():
        took = peak_memory(lambda n=name: ours(n))
        print(f"peak memory over the resting process, workers apart, {len(files):,} meshes: {took:.0f} MiB", flush=True)


def copies(root: Path, folder: Path, times: int) -> list[Path]:
    """`times` copies of every mesh under `root`, as files in `folder`."""
    folder.mkdir(parents=True)
    made = [folder / f"{path.stem}_{i}.off" for i in range(times) for path in sorted(root.rglob("*.off"))]
    for target, path in zip(made, times * sorted(root.rglob("*.off")), strict=True):
        shutil.copy(path, target)
    return made


def loaders(data: LabelledClouds, folder: Path, device: torch.device, rounds: int) -> None:
    """Times an epoch of augmented batches of 32 x 1,024 points by each loader, and training steps on such batches."""
    keep_freed_memory()
    config = TrainConfig(batch_size=32)
    mapped = kept_on_disk(data, folder / "kept.npy")
    sources = {
        "resident": ResidentLoader(data, device),
        "streamed from memory": StreamedLoader(data, device),
        "streamed from a memory map of 4,096 points": StreamedLoader(mapped, device),
    }
    count = min(len(data), 1024)
    print("\n| batches of 32 x 1,024, augmented | clouds/s |\n|-|-|")
    seconds = side_by_side(
        {
            name: lambda s=source: [x.sum() for x, _ in batches(s, config, count, device)]
            for name, source in sources.items()
        },
        rounds,
        str(device),
    )
    for name, taken in seconds.items():
        print(f"| {name} | {count / taken:,.0f} |", flush=True)
    model, _ = pair(str(device))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    start = time.perf_counter()
    for x, labels in batches(sources["resident"], config, min(count, 320), device):
        optimizer.zero_grad()
        loss_of(model, x, labels).backward()
        optimizer.step()
    synchronize(str(device))
    print(f"| the training step itself | {min(count, 320) / (time.perf_counter() - start):,.0f} |")


def batches(source: Loader, config: TrainConfig, count: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    generator = Generator(device).manual_seed(0)
    order = torch.randperm(count, generator=generator, device=device)
    for points, labels in source.batches(cut_batches(order, config.batch_size)):
        yield augment(random_subset(points, 1024, generator), config, False, generator), labels


def kept_on_disk(data: LabelledClouds, path: Path) -> LabelledClouds:
    """The first 1,024 clouds, with their points repeated four times, in a memory-mapped file."""
    some = data.subset(torch.arange(min(len(data), 1024)))
    np.save(path, some.points.repeat(1, 1, 4).numpy())
    return LabelledClouds(torch.from_numpy(np.load(path, mmap_mode="c")), some.labels, data.classes, 1024)


if __name__ == "__main__":
    main()
