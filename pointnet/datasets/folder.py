"""A folder of anyone's meshes and clouds, one subfolder per class."""

import hashlib
import os
from collections.abc import Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.files import AnyPath
from pointnet.names import no_folder
from pointnet.points.features import Range, channel_names, feature_names, unit_sphere_channels
from pointnet.points.frame import check_up
from pointnet.points.read import (
    SUFFIXES,
    DatasetNotFoundError,
    PointCloudFileError,
    files_in,
    named_by_hand,
    passed_over,
    read_cloud,
    readable,
)
from pointnet.points.sampling import KEPT, seed_of

from .cache import CachedClouds, cached_clouds, read_note, write_note
from .clouds import UNIT_SPHERE, LabelledClouds
from .releases import check_num_points, check_one_of, errors_name

MOST_POINTS = 1_000_000
SPLITS = ("train", "test")
UNSEEN = "not looked at: files are wanted in root/<class>/, or train/ and test/ in or above that"


class MeshFolder(LabelledClouds):
    """Files under `root/<class>/`, of any format `read_points` knows: `data[i]` -> ((C, N) float32, int).

    Meshes are sampled once, area-weighted and seeded by the file's name. Of a cloud points are drawn, or repeated where
    there are too few. Each is centred and scaled to the unit sphere. The result is cached under `root/.cache/`.

    Args:
        root: holds one folder per class, with the files or with `train/` and `test/`, which hold the files; or holds
            `train/` and `test/`, each with one folder per class. Without such a split the seed chooses the test split,
            class by class. The choice is kept in the cache: files that are added or removed later never move another.
        split: "train" or "test".
        num_points: N, at most a million.
        normals: adds three channels, the normals (a mesh's are its faces'); as "normals" in `features` does.
        up: "z", "y", or None for what the format says (z; y for GLB and glTF).
        test_fraction: the share of each class in the test split, where the folders do not say.
        seed: of that split.
        strict: a file that cannot be read is an error; else it is listed in `data.bad`.
        columns: the names of the columns of files that are tables, as in `read_cloud`; of other files it is an error.
        features: channels beside x y z, of "normals", "rgb" (in [0, 1]) and "intensity", in this order; a list, or
            joined by commas. A file that lacks one cannot be read.
        intensity: what becomes 0 and 1 of the intensity; None: by the clouds of the training split, as
            `points.features.intensity_range` has it, whichever split is opened.

    `data.notes` says how many files were passed over for their suffix, and whether intensity tells nothing.

    Raises:
        PointCloudFileError: no folder, no class with files, or no file that can be read; with `strict` also the first
            file that cannot be read.
        ValueError: an argument has none of the values above.
    """

    scale = UNIT_SPHERE

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        num_points: int = 1024,
        normals: bool = False,
        up: str | None = None,
        test_fraction: float = 0.2,
        seed: int = 0,
        strict: bool = False,
        columns: str | Sequence[str] | None = None,
        features: str | Sequence[str] = "",
        intensity: Range | None = None,
    ):
        check_one_of("split", split, SPLITS)
        check_up(up)
        check_num_points(num_points, MOST_POINTS)
        if not 0 <= test_fraction < 1:
            raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}")
        folder = Path(root)
        classes, found = _find_files(folder, test_fraction, seed)
        by_split = {each: [file for file, (_, its) in found.items() if its == each] for each in SPLITS}
        if not by_split[split]:
            wanted = "a class needs two files or more, or train/ and test/ of its own"
            raise PointCloudFileError(folder, f"has no file for its {split} split: {wanted}")
        chosen = feature_names(features, normals)
        how = folder, num_points, chosen, up, named_by_hand(columns)
        cached = sample_files(by_split[split], *how)
        bad = [*cached.bad, *(PointCloudFileError(file, UNSEEN) for file in files_in(folder) if file not in found)]
        if strict and bad:
            raise bad[0]
        if not cached.files:
            reason = f": {bad[0]}" if bad else ""
            raise PointCloudFileError(folder, f"its {split} split holds no file that can be read{reason}")
        labels = torch.tensor([classes.index(found[file][0]) for file in cached.files])
        super().__init__(torch.from_numpy(cached.points), labels, classes, num_points)
        self.up, self.files = up, cached.files
        self.bad = bad
        self.notes = passed_over(folder, 2)
        self.channel_names = channel_names(chosen)
        if "intensity" in chosen:
            training = split if intensity or not by_split["train"] else "train"
            self.scale_intensity(intensity, sample_files(by_split[training], *how).points)


def sample_files(
    files: Sequence[Path],
    root: Path,
    num_points: int,
    features: Sequence[str] = (),
    up: str | None = None,
    columns: Sequence[str] = (),
) -> CachedClouds:
    """Files of any format as clouds in the unit sphere, (S, C, K), K >= num_points; made once, on all cores."""
    shape = (len(channel_names(features)), max(num_points, KEPT))
    sampler = partial(sample_file, count=shape[1], features=features, up=up, columns=columns)
    named = f", columns {','.join(columns)}" if columns else ""
    named += f", with {features}" if set(features) - {"normals"} else ""
    return cached_clouds(files, sampler, shape, f"unit sphere, up={up}, version 3{named}", root)


def sample_file(
    path: Path, count: int, features: Sequence[str] = (), up: str | None = None, columns: Sequence[str] = ()
) -> NDArray[np.float32]:
    """One file as `count` points, centred and scaled to the unit sphere, the same each time: (C, count).

    Raises:
        PointCloudFileError: as `read_points`, or it lacks a feature, or all its points are one.
    """
    cloud = read_cloud(path, count, seed_of(path.name), up, True, True, features, columns=columns)
    with errors_name(path):
        return unit_sphere_channels(cloud, features)


def _find_files(root: Path, test_fraction: float, seed: int) -> tuple[list[str], dict[Path, tuple[str, str]]]:
    """The classes, and the class and split of each file, class by class."""
    if not root.is_dir():
        wanted = "--root must name one with a folder of files for each class"
        raise DatasetNotFoundError(root, f"{no_folder(root)}; {wanted}")
    known = cache(_known)
    by_split = any(known(folder) for folder in _folders(root / "train"))  # root/train/<class>/<files>
    if by_split:
        classes = sorted({folder.name for name in SPLITS for folder in _folders(root / name) if known(folder)})
    else:
        classes = [folder.name for folder in _folders(root) if known(folder) or _has_split(folder)]
    if not classes:
        wanted = "; ".join(["wanted root/<class>/<files>", *passed_over(root, 2)])
        raise DatasetNotFoundError(root, f"holds no folder with files to read ({' '.join(SUFFIXES)}); {wanted}")
    unsplit = {name: known(root / name) for name in classes if not by_split and not _has_split(root / name)}
    test = _test_files(root, unsplit, test_fraction, seed)
    found: dict[Path, tuple[str, str]] = {}
    for name, split in product(classes, SPLITS):
        files = known(root / split / name if by_split else root / name / split)
        drawn = [file for file in unsplit.get(name, []) if (file in test) == (split == "test")]
        found |= dict.fromkeys([*files, *drawn], (name, split))
    return classes, found


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _has_split(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _known(folder: Path) -> list[Path]:
    """The files of a folder that have a suffix we read, in order of name."""
    return readable(file for file in folder.iterdir() if file.name[0] != ".") if folder.is_dir() else []


def _test_files(root: Path, files: dict[str, list[Path]], fraction: float, seed: int) -> set[Path]:
    """The test split of classes without one: unchanged for known files; of new ones enough are chosen at random."""
    settings = f"-{seed}-{fraction:g}"
    known = read_note(root, "split", settings)
    before = dict(known)
    for found in files.values():
        names = {_name(file, root): file for file in found}
        wanted = round(len(names) * fraction)
        if fraction and len(names) > 1:
            wanted = max(1, min(wanted, len(names) - 1))
        new = sorted(names.keys() - known.keys(), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        missing = wanted - sum(bool(known.get(name)) for name in names)
        known |= {name: i < missing for i, name in enumerate(new)}
    if known != before:  # if it cannot be written, the same files give the same choice
        write_note(known, root, "split", settings)
    return {file for found in files.values() for file in found if known[_name(file, root)]}


def _name(file: Path, root: Path) -> str:
    return os.fsencode(file.relative_to(root)).decode(errors="backslashreplace")
