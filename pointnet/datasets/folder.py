"""A folder of anyone's meshes and clouds, a class a subfolder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .cache import CachedClouds, cached_clouds
from .clouds import LabelledClouds
from .readers import SUFFIXES, DatasetNotFoundError, PointCloudFileError, read_cloud

KEPT = 4096  # points of each file; training draws from them afresh, and a change of num_points samples nothing again
SPLITS = ("train", "test")


class MeshFolder(LabelledClouds):
    """Files under `root/<class>/`, of any format `read_points` knows: `data[i]` -> ((C, N) float32, int).

    Meshes are sampled once, area-weighted and seeded by the file's name; clouds are drawn from, and repeated where they
    are short. Each is centred and scaled to the unit sphere. The result is cached under `root/.cache/`.

    Args:
        root: holds a folder a class, and those either `train/` and `test/` with the files, or the files themselves.
            In that case the seed picks the test part, class by class; a file added later moves few others.
        split: "train" or "test".
        num_points: N.
        normals: three channels more, the normals (a mesh's are its faces').
        up: "z", "y", or None for what the format says (z; y for GLB and glTF).
        test_fraction: share of each class that is for testing, where the folders do not say.
        seed: of that split.
        strict: raise at the first file that cannot be read, rather than list it in `data.bad`.

    Raises:
        PointCloudFileError: no folder, fewer than one class with files, no file that can be read; with strict, any that
            cannot.
        ValueError: an argument outside the values above.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        num_points: int = 1024,
        normals: bool = False,
        up: str | None = None,
        test_fraction: float = 0.2,
        seed: int = 0,
        strict: bool = False,
    ):
        if split not in SPLITS:
            raise ValueError(f"split must be one of 'train', 'test', got {split!r}")
        if num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        if not 0 <= test_fraction < 1:
            raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}")
        folder = Path(root)
        classes = _classes(folder)
        files = [_files_of(folder / name, split, test_fraction, seed) for name in classes]
        labels = [label for label, found in enumerate(files) for _ in found]
        cached = sample_files([file for found in files for file in found], folder, num_points, normals, up)
        if strict and cached.bad:
            raise cached.bad[0]
        if not cached.files:
            reason = f": {cached.bad[0]}" if cached.bad else ""
            raise PointCloudFileError(folder, f"its {split} part holds no file that can be read{reason}")
        of_file = dict(zip((file for found in files for file in found), labels, strict=True))
        super().__init__(
            torch.from_numpy(cached.points),
            torch.tensor([of_file[file] for file in cached.files]),
            classes,
            num_points,
        )
        self.files = cached.files
        self.bad = cached.bad


def sample_files(files: Sequence[Path], root: Path, num_points: int, normals: bool, up: str | None) -> CachedClouds:
    """Files of any format as clouds in the unit sphere, (S, 3 or 6, K), K >= num_points; made once, on all cores."""
    shape = (6 if normals else 3, max(num_points, KEPT))
    sampler = partial(sample_file, count=shape[1], normals=normals, up=up)
    return cached_clouds(files, sampler, shape, f"unit sphere, up={up}, version 1", root)


def sample_file(path: Path, count: int, normals: bool = False, up: str | None = None) -> NDArray[np.float32]:
    """One file as `count` points, centred and scaled to the unit sphere, the same each time: (3 or 6, count).

    Raises:
        PointCloudFileError: as `read_points`, or it has no normals.
    """
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big")
    cloud = read_cloud(path, count, seed, up, repeat=True)
    points = cloud.points - cloud.points.mean(0, dtype=np.float64).astype(np.float32)
    points /= max(float(np.linalg.norm(points, axis=1).max()), 1e-30)
    if not normals:
        return np.ascontiguousarray(points.T)
    if cloud.normals is None:
        raise PointCloudFileError(path, "has no normals")
    return np.ascontiguousarray(np.hstack([points, cloud.normals]).T)


def _classes(root: Path) -> list[str]:
    if not root.is_dir():
        raise DatasetNotFoundError(root, "no such folder; --root must name one with a folder of files for each class")
    folders = (folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    classes = sorted(folder.name for folder in folders if any(_known(folder)) or _splits_of(folder))
    if not classes:
        known = " ".join(SUFFIXES)
        raise DatasetNotFoundError(root, f"holds no folder with files to read ({known}); wanted root/<class>/<files>")
    return classes


def _splits_of(folder: Path) -> list[Path]:
    return [folder / split for split in SPLITS if (folder / split).is_dir()]


def _known(folder: Path) -> list[Path]:
    """The files of a folder that have a suffix we read, in order of name."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )


def _files_of(folder: Path, split: str, test_fraction: float, seed: int) -> list[Path]:
    if _splits_of(folder):
        return _known(folder / split) if (folder / split).is_dir() else []
    files = _known(folder)
    count = round(len(files) * test_fraction)
    if test_fraction and len(files) > 1:
        count = max(1, min(count, len(files) - 1))
    # By a hash of the name, so that a file added later moves few others from one part to the other.
    by_chance = sorted(files, key=lambda file: hashlib.sha256(f"{seed}/{file.name}".encode()).digest())
    test = set(by_chance[:count])
    return [file for file in files if (file in test) == (split == "test")]
