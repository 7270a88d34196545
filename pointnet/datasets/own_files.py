"""The files of a data set of one's own: the split of each, what is said of them, and what such sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.files import name_in
from pointnet.names import no_folder, printable
from pointnet.points.features import SOME_POINTS, Range, channel_names, lines_on_intensity
from pointnet.points.frame import check_up
from pointnet.points.read import (
    DatasetNotFoundError,
    PointCloudFileError,
    columns_of_table,
    files_in,
    named_by_hand,
    passed_over,
)

from .cache import CachedClouds
from .clouds import LabelledClouds
from .given import check_num_points, check_one_of
from .known import hashes_of
from .lines import lines_on_unused, of_each_kind
from .own_layout import SPLITS, UNDRAWN, elsewhere, layout_of, lines_on_folders, named_alike
from .own_objects import LABELLED, first_clouds, series_in, test_files, twins_in, whole_objects
from .shapes import is_made

MOST_POINTS = 1_000_000
MOST_REASONS = 3  # that an error names
OPENED = ("train", "test")
EMPTY: Mapping[Path, PointCloudFileError] = {}
NO_HASHES: Mapping[Path, str] = {}


class OwnFiles(NamedTuple):
    """The files under a root that belong to a set, class by class, and those that do not."""

    root: Path
    classes: list[str]
    found: dict[Path, tuple[str, str]]  # the class and the split of each file, one of SPLITS, or `UNDRAWN`
    is_flat: bool  # whether there are no folders of classes
    fraction: float  # of each class that is drawn for testing
    seed: int  # of that draw
    columns: tuple[str, ...] = ()  # of the tables among them, by hand
    contents: Mapping[Path, str] = NO_HASHES  # of each file a hash of its points, or else of its bytes
    twins: tuple[str, ...] = ()  # lines on files of the same content in two splits
    split_by_chance: frozenset[Path] = frozenset()  # those that can be read and that no folder gave a split

    @property
    def undrawn(self) -> bool:
        """Whether there are files whose split is to be drawn."""
        return any(split == UNDRAWN for _, split in self.found.values())

    def drawn(self, cached: CachedClouds, split: str, others: Mapping[Path, PointCloudFileError] = EMPTY) -> OwnFiles:
        """The files with the split of each, drawn where no folder says it; unreadable ones are for training.

        Args:
            cached: the clouds of at least all undrawn files.
            split: which is opened.
            others: of these files those that are bad for another reason.

        Raises:
            PointCloudFileError: no file for this split, or for training none but those in val/.
        """
        good, bad = {*cached.files} - others.keys(), [*cached.bad, *others.values()]
        in_bytes = hashes_of(self.found, self.root)
        contents = {**in_bytes, **cached.points_hashes}
        undrawn = {name: [file for file, its in self.found.items() if its == (name, UNDRAWN)] for name in self.classes}
        test = test_files(self.root, undrawn, good, contents, self.fraction, self.seed)
        places = {
            file: (name, its or ("test" if file in test else "train")) for file, (name, its) in self.found.items()
        }
        by_split = sorted(places.items(), key=lambda item: (self.classes.index(item[1][0]), SPLITS.index(item[1][1])))
        chance = good & {file for files in undrawn.values() for file in files}
        twins = (*twins_in(self.root, places, good, in_bytes, cached.points_hashes), *series_in(chance, test))
        files = self._replace(found=dict(by_split), contents=contents, twins=twins, split_by_chance=frozenset(chance))
        if all(split != "test" and files.found[file][1] == "val" for file in files.of(split)):
            what = "a set" if self.is_flat else "a class"
            wanted = f"{what} needs two files or more that can be read, or train/ and test/ of its own"
            hint = "; --test false trains without it, and evaluate takes --split train" if split == "test" else ""
            if any(len(good.intersection(files)) > 1 for files in undrawn.values()):
                hint += "; files that are copies of one count as one"
            hint += f"; {len(bad):,} cannot be read: {self._reasons(bad)}" if bad else ""
            hint += elsewhere(self.root, self.found)
            raise PointCloudFileError(self.root, f"has no file for its {split} split: {wanted}{hint}")
        return files

    def of(self, split: str) -> list[Path]:
        """The files of a split, "train" or "test"."""
        return [file for file, (_, its) in self.found.items() if (its == "test") == (split == "test")]

    def labels(self, files: Sequence[Path]) -> list[int]:
        """The class of each file, an index into `classes`."""
        return [self.classes.index(self.found[file][0]) for file in files]

    def notes_on(self, cached: CachedClouds, split: str) -> dict[str, tuple[str, ...]]:
        """`LabelledClouds.file_notes` of a split."""
        noted = [file for file in self.of(split) if file in cached.notes]
        return dict(zip(self.named(noted), map(cached.notes.__getitem__, noted), strict=True))

    def named(self, files: Sequence[Path]) -> list[str]:
        """Each by its path in the root."""
        return [file.relative_to(self.root).as_posix() for file in files]

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
        unseen = f"not read: files must be in {wanted}, or train/, val/ and test/ in or above that"
        stray = {file: unseen for file in files_in(self.root) if file not in self.found}
        stray |= dict.fromkeys(filter(is_made, stray), "not read: of the data set shapes, which the library makes")
        bad = [*cached.bad, *others.values(), *map(PointCloudFileError, stray, stray.values())]
        if strict and bad:
            raise bad[0]
        its = set(self.of(split))
        if not its.intersection(cached.files) - others.keys():
            reasons = self._reasons([error for error in bad if error.path in its] or bad)
            hint = f": {reasons}" if reasons else ""
            raise PointCloudFileError(self.root, f"its {split} split holds no file that can be read{hint}")
        return bad

    def _reasons(self, bad: Sequence[PointCloudFileError]) -> str:
        """Why files cannot be read, the commonest reasons first, each with how many files have it."""
        lines = of_each_kind([(name_in(error.path, self.root), error.reason) for error in bad])
        return "; ".join(lines[:MOST_REASONS])

    @property
    def notes(self) -> list[str]:
        """Files passed over for their suffix, twins in two splits, folders without any, odd or alike classes."""
        passed = passed_over(self.root, 1 if self.is_flat else 2)
        without = [] if self.is_flat else lines_on_folders(self.root, self.classes)
        lines = [*passed, *self.twins, *without, *self._labelled(), *named_alike(self.classes)]
        if self.columns and not any(columns_of_table(file, self.columns) for file in self.found):
            lines.append(f"no file is a table, so columns {','.join(self.columns)} are not used: each names its own")
        return lines

    def _labelled(self) -> list[str]:
        """Lines on what `predict` wrote, which leaves it in labels/: a class of it alone, or files beside others."""
        made = [file for file in self.found if LABELLED.search(file.name)]
        other = {its for file, (its, _) in self.found.items() if not LABELLED.search(file.name)}
        alone = [printable(name) for name in self.classes if not self.is_flat and name not in other]
        lines = [f"class {name} holds only what predict writes; if it is none, move it out" for name in alone]
        if beside := [name for name in self.named(made) if self.found[self.root / name][0] in other]:
            what = f"files with labels that predict wrote: {len(beside):,}, such as {printable(beside[0])}"
            lines.append(f"{what}; move them out unless they are meant")
        if made and self.is_flat and not other:
            said = "scores on them are of answers, not of the truth"
            lines.append(f"all {len(made):,} files have labels that predict wrote: {said}")
        return lines


class OwnSet(LabelledClouds):
    """What data sets of one's own files share."""

    root: Path
    contents: Mapping[Path, str]  # as of `objects_of`

    def _describe(
        self, files: OwnFiles, cached: CachedClouds, split: str, up: str | None, features: Sequence[str]
    ) -> None:
        """Sets what `LabelledClouds` has, of all clouds, and `root`."""
        self.root, self.up, self.files, self.channel_names = files.root, up, cached.files, channel_names(features)
        self.columns = ",".join(files.columns)
        self.notes, self.file_notes = files.notes, files.notes_on(cached, split)
        if split == "train":
            self.notes += lines_on_unused(cached.files, features, files.columns, files.root)
        self.validation = torch.tensor(files.in_validation(cached.files))
        self.split_by_chance, self.contents = files.split_by_chance, files.contents

    def _scale(
        self, intensity: Range | None, values: NDArray[np.float32], rows: list[int] | slice, files: OwnFiles
    ) -> None:
        """`scale_intensity` of all clouds (S, K) by some rows of them, and lines on files in other units."""
        self.scale_intensity(intensity, values[rows, :SOME_POINTS])
        self.notes += lines_on_intensity(values, files.named(self.files), intensity)

    def file_hashes(self) -> dict[str, list[str]]:
        """As of `LabelledClouds`."""
        in_bytes = hashes_of(list(dict.fromkeys(self.files)), self.root)
        return {
            name_in(file, self.root): list(dict.fromkeys([its, self.contents.get(file, its)]))
            for file, its in in_bytes.items()
        }

    def held_out(self, seed: int, fraction: float) -> Tensor:
        """(S,) bool, the clouds that `split_validation` gives to validation, whole objects."""
        return whole_objects(super().held_out(seed, fraction), self.first_clouds(), self.labels)

    def first_clouds(self) -> Tensor:
        """As of `LabelledClouds`: copies of a file are of one object."""
        return first_clouds(self.files, self.contents, self.labels)


def own_files(
    root: Path,
    split: str,
    num_points: int,
    up: str | None,
    test_fraction: float,
    seed: int,
    columns: str | Sequence[str] | None,
    flat: bool | None = False,
) -> OwnFiles:
    """The files under a root, not yet `drawn`, after a look at the arguments that all sets of one's own have.

    Args:
        flat: as of `layout_of`.

    Raises:
        DatasetNotFoundError: no folder, or no class with files.
        ValueError: an argument has another value than `MeshFolder` names.
    """
    check_one_of("split", split, OPENED)
    check_up(up)
    check_num_points(num_points, MOST_POINTS)
    by_hand = named_by_hand(columns)
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}")
    if not root.is_dir():
        wanted = "the folder of the files" if flat else "one with a folder of files for each class"
        raise DatasetNotFoundError(root, f"{no_folder(root)}; --root must name {wanted}")
    return OwnFiles(root, *layout_of(root, flat), test_fraction, seed, by_hand)
