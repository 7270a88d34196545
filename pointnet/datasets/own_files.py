"""The files of a data set of one's own: which belong to which class and to which split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from pointnet.names import no_folder, printable
from pointnet.points.frame import check_up
from pointnet.points.read import SUFFIXES, DatasetNotFoundError, PointCloudFileError, files_in, passed_over, readable

from .cache import CachedClouds
from .notes import read_note, write_note
from .releases import check_num_points, check_one_of

MOST_POINTS = 1_000_000
SPLITS = ("train", "val", "test")  # folders; "train" of a data set is the first two
OPENED = ("train", "test")
EMPTY: Mapping[Path, PointCloudFileError] = {}


class OwnFiles(NamedTuple):
    """The files under a root that belong to a set, class by class, and those that do not."""

    root: Path
    classes: list[str]
    found: dict[Path, tuple[str, str]]  # the class and the folder's split of each file, one of SPLITS
    is_flat: bool  # whether there are no folders of classes

    def of(self, split: str) -> list[Path]:
        """The files of a split, "train" or "test"."""
        return [file for file, (_, its) in self.found.items() if (its == "test") == (split == "test")]

    def labels(self, files: Sequence[Path]) -> list[int]:
        """The class of each file, an index into `classes`."""
        return [self.classes.index(self.found[file][0]) for file in files]

    def in_validation(self, files: Sequence[Path]) -> list[bool]:
        """Whether each is in a folder val/."""
        return [self.found[file][1] == "val" for file in files]

    def bad(
        self, cached: CachedClouds, split: str, strict: bool, others: Mapping[Path, PointCloudFileError] = EMPTY
    ) -> list[PointCloudFileError]:
        """The files that could not be read, the other bad ones, and those that are where none is looked for.

        Raises:
            PointCloudFileError: there is one, where that is `strict`; or no file of the split could be read.
        """
        wanted = "root/" if self.is_flat else "root/<class>/"
        unseen = f"not looked at: files are wanted in {wanted}, or train/, val/ and test/ in or above that"
        stray = (file for file in files_in(self.root) if file not in self.found)
        bad = [*cached.bad, *others.values(), *(PointCloudFileError(file, unseen) for file in stray)]
        if strict and bad:
            raise bad[0]
        if not set(self.of(split)).intersection(cached.files) - others.keys():
            reason = f": {bad[0]}" if bad else ""
            raise PointCloudFileError(self.root, f"its {split} split holds no file that can be read{reason}")
        return bad

    @property
    def notes(self) -> list[str]:
        """How many files were passed over for their suffix, and which folders hold none to read."""
        places = [] if self.is_flat else [self.root, *(self.root / split for split in SPLITS)]
        folders = {folder.name for place in places for folder in _folders(place)}.difference(self.classes, SPLITS)
        empty = ", ".join(map(printable, sorted(folders)))
        passed = passed_over(self.root, 1 if self.is_flat else 2)
        return [*passed, *([f"no class, as there is no file to read: {empty}"] if empty else [])]


def own_files(
    root: Path, split: str, num_points: int, up: str | None, test_fraction: float, seed: int, flat: bool | None = False
) -> OwnFiles:
    """The files under a root, after a look at the arguments that all sets of one's own have.

    Args:
        flat: there are no folders of classes: files are in the root, or in train/, val/ and test/ in it; None: that is
            so where no folder of a class is found. The one class then has the root's name.

    Raises:
        DatasetNotFoundError: no folder, or no class with files.
        PointCloudFileError: no file for this split.
        ValueError: an argument has another value than `MeshFolder` names.
    """
    check_one_of("split", split, OPENED)
    check_up(up)
    check_num_points(num_points, MOST_POINTS)
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}")
    if not root.is_dir():
        wanted = "the folder of the files" if flat else "one with a folder of files for each class"
        raise DatasetNotFoundError(root, f"{no_folder(root)}; --root must name {wanted}")
    known = cache(_known)
    if flat is None:
        within = [folder for each in SPLITS for folder in _folders(root / each)]
        folders = [folder for folder in _folders(root) if folder.name not in SPLITS]
        flat = not any(known(folder) or _has_split(folder) for folder in (*folders, *within))
    files = OwnFiles(root, *_find_files(root, known, test_fraction, seed, flat), flat)
    if not files.of(split):
        what = "a set" if flat else "a class"
        wanted = f"{what} needs two files or more, or train/ and test/ of its own"
        raise PointCloudFileError(root, f"has no file for its {split} split: {wanted}")
    return files


def _find_files(
    root: Path, known: Callable[[Path], list[Path]], test_fraction: float, seed: int, flat: bool
) -> tuple[list[str], dict[Path, tuple[str, str]]]:
    """The classes, and the class and split of each file, class by class."""
    by_split = not flat and any(known(folder) for folder in _folders(root / "train"))  # root/train/<class>/<files>
    if flat:
        classes = [root.resolve().name]
    elif by_split:
        classes = sorted({folder.name for name in SPLITS for folder in _folders(root / name) if known(folder)})
    else:
        classes = [folder.name for folder in _folders(root) if known(folder) or _has_split(folder)]
    home = {name: root if flat else root / name for name in classes}
    unsplit = {name: known(home[name]) for name in classes if not by_split and not _has_split(home[name])}
    test = _test_files(root, unsplit, test_fraction, seed)
    found: dict[Path, tuple[str, str]] = {}
    for name, split in product(classes, SPLITS):
        files = known(root / split / name if by_split else home[name] / split)
        drawn = [file for file in unsplit.get(name, []) if split == ("test" if file in test else "train")]
        found |= dict.fromkeys([*files, *drawn], (name, split))
    if not found:
        wanted = "; ".join([f"wanted root/{'' if flat else '<class>/'}<files>", *passed_over(root, 1 if flat else 2)])
        what = "no file to read" if flat else "no folder with files to read"
        raise DatasetNotFoundError(root, f"holds {what} ({' '.join(SUFFIXES)}); {wanted}")
    return classes, found


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _has_split(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _known(folder: Path) -> list[Path]:
    """The files of a folder that have a suffix we read, in order of name."""
    files = folder.iterdir() if folder.is_dir() else ()
    return readable(file for file in files if file.name[0] != ".")


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
