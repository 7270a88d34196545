"""The labels of points of one's own files: numbers in the files, names in a text, indices in a network."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.files import name_in
from pointnet.names import first_of, printable
from pointnet.points.features import Range
from pointnet.points.read import NAMES_OF_LABELS, PointCloud, PointCloudFileError

from .cache import Sampler, cached_clouds
from .clouds import LabelledPoints
from .label_names import Labels
from .own_files import OwnFiles, OwnSet
from .point_labels import UNLABELLED

# What notes of lost labels say.
OF_LABELS = ("not numbers", "left out", "labels of faces", "labels in ", "names of ", "is classified")
# What stands for no label where there are fewer: the largest number of a byte or of two, and what people type.
FILLERS = (99, 100, 254, 255, 999, 1000, 32767, 65535)
NO_LABEL = re.compile(
    r"un-?(?:labell?ed|annotated|classified|assigned|known|defined)|ignored?|void|none|nothing|invalid", re.I
)
# What files of these formats have where nobody classified a point: by the standard of LAS, and in SemanticKITTI.
STANDARDS, NO_CLASS = (".las", ".laz", ".bin"), ("0", "1")
MOST_LABELS = 256  # different ones in a set that has no names for them


def labels_of(cloud: PointCloud, without: Sequence[int] = ()) -> NDArray[np.int64]:
    """The labels of a cloud's points, `UNLABELLED` for a negative one, and for those that are `without` one.

    Raises:
        ValueError: it has none, or they are too large.
    """
    if cloud.labels is None:
        why = "".join(f" ({note})" for note in cloud.notes if any(words in note for words in OF_LABELS))
        raise ValueError(f"has no labels: a label for each point is wanted, as a column or property 'label'{why}")
    labels = cloud.labels[:]
    if labels.max() < 0:
        raise ValueError(f"has no labelled point: all labels are negative, such as {labels[0]}")
    if labels.max() >= UNLABELLED:
        raise ValueError(f"has the label {labels.max():,}; the largest allowed is {UNLABELLED - 1:,}")
    return np.where((labels < 0) | np.isin(labels, without), UNLABELLED, labels)


def numbers_without(names: Path) -> tuple[int, ...]:
    """The numbers of points without a label, by the text of `Labels.named_in`. PointCloudFileError as there."""
    named = Labels.named_in(names)
    return named.without if named else ()


class OwnPoints(OwnSet, LabelledPoints):
    """Clouds of one's own files with a label for each point: what sets of parts and of scenes share.

    All files of all splits are sampled, so that each split has the same labels, and the clouds of one are kept.

    Args:
        files: of the set.
        split: "train" or "test".
        sampler: makes of a file one cloud or several, (C + 1, K), with labels by `labels_of`.
        shape: (C + 1, K).
        settings: whatever else its result depends on.
        features: of the channels.
        strict, num_points, up, intensity: as of the sets.
    """

    names_of_labels: str  # the file that may name labels
    by_file: bool  # a cloud's class is its file, which may have any label; else its folder, with the labels that occur

    def __init__(
        self,
        files: OwnFiles,
        split: str,
        sampler: Sampler,
        shape: tuple[int, int],
        settings: str,
        features: Sequence[str],
        strict: bool,
        num_points: int,
        up: str | None,
        intensity: Range | None,
    ):
        cached = cached_clouds(list(files.found), sampler, shape, settings, files.root)
        placed = place_labels(cached.points, cached.files, files.root / self.names_of_labels)
        files = files.drawn(cached, split, placed.bad)
        bad = files.bad(cached, split, strict, placed.bad)
        classes, labels = files.classes, torch.tensor(files.labels(cached.files))
        if self.by_file:
            classes = [file.relative_to(files.root).as_posix() for file in files.found]
            place = {file: i for i, file in enumerate(files.found)}
            labels = torch.tensor([place[file] for file in cached.files])
        parts_of = torch.full((len(classes), len(placed.labels.names)), self.by_file)
        for row, places in placed.met.items():
            parts_of[labels[row], torch.from_numpy(places)] = True
        super().__init__(torch.from_numpy(cached.points), labels, classes, placed.labels.names, parts_of, num_points)
        self.bad = bad
        self._describe(files, cached, split, up, features)
        of = ["" if self.by_file else f"{classes[label]}: " for label in labels.tolist()]
        self.notes += [*_names_elsewhere(files.root, self.names_of_labels), *placed.notes]
        self.notes += _uneven(placed, cached.files, of, set(files.of("test")), files.root)
        self.label_numbers = placed.labels.numbers if placed.labels.has_own_numbers else ()
        of_train, of_split = (set(files.of(each)) for each in ("train", split))
        if "intensity" in features:
            rows = [row for row in placed.met if cached.files[row] in of_train] or [*placed.met]
            self._scale(intensity, cached.points[:, -2], rows, files)
        self.keep(torch.tensor([row for row in placed.met if cached.files[row] in of_split]))


class Labelled(NamedTuple):
    """Clouds whose labels are places among `labels`."""

    labels: Labels
    bad: dict[Path, PointCloudFileError]  # files with another label than the named ones
    met: dict[int, NDArray[np.int64]]  # the clouds of other files that have a labelled point, and their labels
    notes: list[str]


def place_labels(clouds: NDArray[np.float32], files: Sequence[Path], names: Path) -> Labelled:
    """Changes the labels in stored clouds (S, C + 1, K) from numbers to places, in memory alone.

    Args:
        files: the file of each cloud.
        names: the text of `Labels.named_in`; without it every number that occurs is a label, by `Labels.of_files`.

    Raises:
        PointCloudFileError: too many labels for classes, or `names` cannot be read, or files name them in two ways.
    """
    named = Labels.named_in(names)
    met, each_once = [np.unique(_numbers(cloud[-1])) for cloud in clouds], sorted(set(files))
    labels = _labels_of(named, each_once, sorted({int(i) for each in met for i in each} - {UNLABELLED}), names)
    bad: dict[Path, PointCloudFileError] = {}
    rows, empty, without, total = [], list[Path](), 0, 0
    for row, (cloud, numbers, file) in enumerate(zip(clouds, met, files, strict=True)):
        if unknown := sorted(set(map(int, numbers)) - {*labels.numbers, UNLABELLED}):
            known = ", ".join(map(str, labels.numbers[:8])) + (" ..." if len(labels.numbers) > 8 else "")
            hint = "; a point without a label has -1" if unknown[0] in FILLERS else ""
            reason = f"has label {unknown[0]}, which {names.name} does not name ({known}){hint}"
            bad[file] = PointCloudFileError(file, reason)
            continue
        own, its = cloud[-1] >= 0, _numbers(cloud[-1])
        if numbers[0] == UNLABELLED:
            empty.append(file)
            continue
        without, total = without + int((own & (its == UNLABELLED)).sum()), total + int(own.sum())
        if labels.has_own_numbers:
            places = np.where(its == UNLABELLED, UNLABELLED, np.searchsorted(labels.numbers, its))
            cloud[-1] = np.where(own, places, -1 - places)
        rows.append(row)
    for file in set(files) - bad.keys() - {files[row] for row in rows}:
        bad[file] = PointCloudFileError(file, "none of the points that were drawn has a label")
    share = f"{without / max(total, 1):.1%} of the points drawn have no label (a negative one): "
    share += "the network sees them, and they are neither learned nor scored"
    lost = [file for file in empty if file not in bad]
    blocks = f"{len(lost):,} of {len(lost) + len(rows):,} blocks left out: no point that was drawn has a label"
    notes = [
        *([share] if without else []),
        *([blocks] if lost else []),
        *(labels.other_names(each_once) if named else []),
        *_as_if_none(labels, set(files), names.name),
    ]
    stored = {row: np.unique(_numbers(clouds[row][-1])) for row in rows if files[row] not in bad}
    return Labelled(labels, bad, {row: its[its != UNLABELLED] for row, its in stored.items()}, notes)


def _labels_of(named: Labels | None, files: Sequence[Path], there: Sequence[int], names: Path) -> Labels:
    """Those that the text names, if they may be the labels that are there; without a text, what files say of these."""
    if named and named.names:
        named.check_order(there, names)
        return named
    if len(there) > MOST_LABELS:
        reason = f"its points have {len(there):,} different labels, which are no classes; if they are, name them"
        raise PointCloudFileError(names.parent, f"{reason} in {names.name}")
    return Labels.of_files(files, there, names.name)


def _names_elsewhere(root: Path, name: str) -> list[str]:
    """A line on texts that may name labels, but are not the one of this name in the root."""
    places = ("", "*/", "*/*/")
    found = {path for place in places for each in NAMES_OF_LABELS for path in root.glob(f"{place}{each}")}
    names = sorted(name_in(path, root) for path in found - {root / name})
    return [f"not read: {first_of(names)}; names of labels are in {name} in the root"] if names else []


def _uneven(placed: Labelled, files: Sequence[Path], before: Sequence[str], test: Set[Path], root: Path) -> list[str]:
    """Lines on labels that no file has, or one alone, or none for training or for testing.

    Args:
        files: of each cloud.
        before: of each cloud what precedes the names of its labels.
        test: the files for testing.
    """
    names, have = placed.labels.names, dict[str, set[Path]]()
    for row, places in placed.met.items():
        for place in places:
            have.setdefault(f"{before[row]}{names[place]}", set()).add(files[row])
    somewhere = {int(place) for places in placed.met.values() for place in places}
    sides = {name: {file in test for file in files} for name, files in have.items()}
    both = set().union(*sides.values()) == {True, False}
    lines = [
        ("labels that are named, and drawn from no file", [name for i, name in enumerate(names) if i not in somewhere])
    ]
    if both:
        for what, side in (("training, so never learned", {True}), ("testing", {False})):
            its = [name for name, there in sides.items() if there == side]
            lines.append((f"labels that are drawn from no file for {what}", its))
    if len(set().union(*have.values())) > 2:
        one = {name: min(files).relative_to(root).as_posix() for name, files in have.items() if len(files) == 1}
        lines.append(("labels that are drawn from one file alone", [f"{name} in {file}" for name, file in one.items()]))
    return [f"{what}: {first_of(names)}" for what, names in lines if names]


def _as_if_none(labels: Labels, files: Set[Path], text: str) -> list[str]:
    """A line on labels that often mean that a point has none, by their name or as the last number, beyond a gap, or as
    the number of a LAS or of SemanticKITTI."""
    last, before = ([0, 0, *labels.numbers][i] for i in (-1, -2))
    found = {number: name for number, name in zip(*labels[:2], strict=True) if NO_LABEL.fullmatch(name)}
    if any(file.suffix.lower() in STANDARDS for file in files):
        found |= {number: name for number, name in zip(*labels[:2], strict=True) if str(number) == name in NO_CLASS}
    if labels.names[-1:] == (str(last),) and last in FILLERS and 2 * before < last:
        found[last] = str(last)
    names, lines = (", ".join(each) for each in (map(printable, found.values()), [f"'{i} -'" for i in found]))
    none = f"if it means that a point has none, write -1, or a line into {text}: {lines}"
    return [f"trained like any other label: {names}; {none}"] if found else []


def _numbers(stored: NDArray[np.float32]) -> NDArray[np.int64]:
    """The labels of own and of repeated points, as files have them."""
    numbers = stored.astype(np.int64)
    return np.where(numbers < 0, -1 - numbers, numbers)
