"""Labelled clouds of one size, whose points may have labels too: what every data set here is; splits and batches."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pointnet.points.features import Range, intensity_range, scaled_intensity
from pointnet.points.read import PointCloudFileError

from .given import as_floats, as_indices, as_names, as_rows, as_tensor, check_belonging, check_repeats
from .point_labels import IGNORED, UNLABELLED, split_parts

# What the unit of clouds may be.
UNIT_SPHERE, AS_GIVEN, IN_BLOCKS, BLOCKS = "unit sphere", "as given", "blocks of a metre", "blocks"
MOST_CHANNELS = 12  # of a point; more of them than points: the points are transposed
MOST_HASHED = 2**30  # bytes of clouds that were handed over
Clouds = TypeVar("Clouds", bound="LabelledClouds")


class LabelledClouds(Dataset[tuple[Tensor, int]]):
    """S clouds of N points with a label each.

    Args:
        points: (S, C, K) float32, in memory or memory-mapped; the first three channels are xyz in the library's frame
            (z up, right-handed). K may be more than N: training draws from all K. Arrays and other numbers are
            converted.
        labels: (S,) int64, indices into `classes`; arrays and other whole numbers are converted.
        classes: the class names, in label order.
        num_points: N; None for K.

    Raises:
        ValueError: another shape, labels that are no indices, classes of one name, or points so far from the origin
            that float32 loses them.

    `data[i]` gives ((C, N) float32, int), the first N points. `data.points` and `data.labels` give everything at once,
    `data.batch(indices)` some of it, with all K. `data.files` are the clouds' files, if each comes from one; `data.bad`
    are errors of files that could not be read, `data.notes` lines on files that were not tried, and `data.file_notes`
    what was guessed or left out of others, by name, as `read_cloud(path).notes`. `data.validation` (S,) bool are clouds
    of the set's own validation split, if any. `data.split_by_chance` are files whose split was drawn.

    These attributes go into a network's contract. Set them where the numbers do not tell; None means that they do:
    `data.channel_names`, such as ("x", "y", "z", "r", ...); `data.scale`, "unit sphere", or "as given" where units
    matter; `data.centre`, whether clouds' means are at the origin; `data.up`, the up axis of files whose format does
    not say, "z" or "y"; `data.columns`, names of tables' columns by hand; `data.intensity`, the two stored that become
    0 and 1, None: as stored; `data.extents` and `data.reach` of clouds "as given" (`datasets.extents`); `data.block`,
    the side of blocks; `data.label_numbers`, the numbers of points' labels in files, if not 0, 1, 2 ...
    """

    channel_names: tuple[str, ...] | None = None
    scale: str | None = None
    centre: bool | None = None
    up: str | None = None
    intensity: Range | None = None
    extents: Range | None = None
    reach: float | None = None
    colors: Range | None = None  # the least and the greatest mean colour of clouds, of a set that is not at hand
    is_at_hand = True  # whether any cloud is read at once
    block: float = 1.0
    label_numbers: tuple[int, ...] = ()
    columns: str = ""
    validation: Tensor | None = None
    split_by_chance: frozenset[Path] = frozenset()
    is_scaled = False  # whether intensity is stored from 0 to 1

    def __init__(
        self,
        points: Tensor | NDArray[Any],
        labels: Tensor | NDArray[Any],
        classes: Sequence[str],
        num_points: int | None = None,
    ):
        points, labels = as_tensor("points", points), as_tensor("labels", labels)
        if points.dim() != 3 or labels.shape != points.shape[:1]:
            got = f"{tuple(points.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"points must be (S, C, K) with labels (S,), got {got}")
        if points.shape[2] <= MOST_CHANNELS < points.shape[1]:
            got = f"{tuple(points.shape)}; points go last: transpose it, with points.swapaxes(1, 2)"
            raise ValueError(f"points must be (S, C, K), got {got}")
        self._hold(as_floats(points), as_indices("labels", labels, len(classes)), classes, num_points)

    def _hold(self, points: Any, labels: Tensor, classes: Sequence[str], num_points: int | None) -> None:
        """Keeps what `__init__` has checked; `points` (S, C, K) may be anything that is indexed as a tensor is."""
        self.num_points = points.shape[2] if num_points is None else num_points
        if not 1 <= self.num_points <= points.shape[2]:
            raise ValueError(f"num_points must be 1 to {points.shape[2]}, got {num_points}")
        self.labels = labels
        self.classes = as_names("classes", classes)
        self.bad: list[PointCloudFileError] = []
        self.notes: list[str] = []
        self.file_notes: dict[str, tuple[str, ...]] = {}
        self.files: list[Path] = []
        self._stored = points
        self._rows: Tensor | None = None  # which of the stored clouds are in this subset; None for all

    @property
    def points(self) -> Tensor:
        """(S, C, K), not to be written to: it may be what was handed over."""
        return self._taken(self._places(slice(None)))

    @property
    def channels(self) -> int:
        """C."""
        return self._stored.shape[1]

    def number_as(self, classes: Sequence[str]) -> None:
        """Numbers the labels by `classes`, all of the data's and maybe more. ValueError where one is missing."""
        self.labels = torch.tensor([classes.index(name) for name in self.classes])[self.labels]
        self.classes = tuple(classes)

    def scale_intensity(self, ends: Range | None, values: NDArray[np.float32]) -> None:
        """Makes 0 and 1 of these two intensities; None: by the stored ones of the training split, (S, K). Notes it
        where they are the same everywhere."""
        self.intensity = ends or intensity_range(values)
        if (values == values[0, 0]).all():
            self.notes.append(f"intensity is {values[0, 0]:g} at every point of the training split: it tells nothing")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._taken(int(self._places(index)))[:, : self.num_points].clone(), int(self.labels[index])

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The clouds at `indices` (B,), with all their points, and their labels: (B, C, K), (B,)."""
        return self._taken(self._places(indices)), self.labels[indices]

    def order(self, generator: torch.Generator) -> Tensor:
        """The clouds in the random order of one pass (S,): it depends on the clouds and on the generator alone."""
        return torch.randperm(len(self), generator=generator)

    def expect(self, indices: Tensor) -> None:
        """Says that the clouds at `indices` will be asked for in about this order; what is far may be fetched now."""

    def fingerprint(self) -> str:
        """A hash that tells data sets apart: of the classes, the labels, and the first point of each cloud; of clouds
        that were handed over as arrays, up to a gigabyte, of all points."""
        of_arrays = type(self).__module__ == __name__ and self._stored[:1].nbytes * len(self) <= MOST_HASHED
        digest = hashlib.sha256("\n".join(self.classes).encode())
        digest.update(self.labels.numpy().tobytes())
        for rows in torch.arange(len(self)).split(1024):
            clouds = self.batch(rows)[0]
            digest.update((clouds if of_arrays else clouds[:, :, 0]).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def file_hashes(self) -> dict[str, list[str]]:
        """Of files of one's own, by their names in the set, the sha256 of each and the hash of its points
        (`points.hashing.hash_of`) if it has one; empty where the clouds are from elsewhere."""
        return {}

    def _places(self, indices: Any) -> Any:
        """Where clouds of this subset, by a tensor, a slice or one index, are among the stored ones."""
        return indices if self._rows is None else self._rows[indices]

    def _taken(self, stored: Tensor | slice | int) -> Tensor:
        """Clouds by their place among the stored ones, a copy of them where their intensity is scaled."""
        clouds = self._stored[stored]
        if self.intensity is None or self.channel_names is None or self.is_scaled:
            return clouds
        at, clouds = self.channel_names.index("intensity"), clouds.clone()
        clouds[..., at, :] = scaled_intensity(clouds[..., at, :], self.intensity)
        return clouds

    def subset(self: Clouds, indices: Tensor) -> Clouds:
        """The clouds at `indices` (S',), in that order, or of a mask (S,) bool, with the same classes; nothing is
        copied. ValueError for what is neither."""
        chosen = copy.copy(self)
        chosen.keep(indices)
        return chosen

    def keep(self, indices: Tensor) -> None:
        """Drops all clouds but those at `indices`; a subclass does the same with whatever else it has of each cloud."""
        indices = as_rows(indices, len(self))
        self._rows = self._places(indices)
        self.labels = self.labels[indices]
        self.files = [self.files[i] for i in indices.tolist()] if self.files else []
        self.validation = None if self.validation is None else self.validation[indices]

    def name_of(self, index: int) -> str:
        """How to find the cloud: its file, or else its number in the whole data set, of which this may be a subset."""
        return str(self.files[index]) if self.files else f"no. {int(self._places(index))}"

    def held_out(self, seed: int, fraction: float) -> Tensor:
        """(S,) bool, the clouds that `split_validation` gives to validation."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.zeros(len(self), dtype=torch.bool)
        for label in self.labels.unique().tolist():
            members = (self.labels == label).nonzero().squeeze(1)
            count = min(max(round(len(members) * fraction), fraction > 0), len(members) - 1)
            chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
        return chosen

    def first_clouds(self) -> Tensor:
        """(S,) the first cloud of each cloud's object, an index; the clouds of an object stay in one split."""
        return torch.arange(len(self))


class LabelledPoints(LabelledClouds):
    """S clouds of N points with a label each, and one for each point: `data[i]` -> ((C, N) float32, (N,) int64, int).

    Args:
        points: (S, C + 1, K) float32, in memory or memory-mapped; the last channel is the label of each point, an index
            into `part_names`; −1 − label marks a repeated (padding) point of a cloud with fewer than K points. A point
            of label `UNLABELLED` has none: the network sees it, and it is neither learned nor scored.
        labels: (S,) int64, indices into `classes`: an object's category, or the room that a block was cut from.
        classes: their names.
        part_names: the names of the points' labels.
        parts_of: (classes, parts) bool, which parts a class may have; None for all.
        num_points: N; None for K.

    Raises:
        ValueError: as of `LabelledClouds`, or a cloud without a labelled point, or with points of a part that its class
            may not have.

    `data.points` (S, C, K) and `data.parts` (S, K) give everything at once, `data.batch(indices)` some of it. There the
    labels are still among the channels, so that code that chooses or repeats points does the same to their labels;
    `split_parts` separates them. The label of a point without one is −100 there, as PyTorch's losses ignore it.
    """

    _numbers: Tensor | None = None  # that labels of points, as they are stored, have since `number_as`

    def __init__(
        self,
        points: Tensor | NDArray[Any],
        labels: Tensor | NDArray[Any],
        classes: Sequence[str],
        part_names: Sequence[str],
        parts_of: Tensor | None = None,
        num_points: int | None = None,
    ):
        super().__init__(points, labels, classes, num_points)
        self.part_names = as_names("part_names", part_names)
        wanted = len(self.classes), len(self.part_names)
        self.parts_of = (torch.ones(wanted) if parts_of is None else as_tensor("parts_of", parts_of)).bool()
        if self.parts_of.shape != wanted:
            raise ValueError(f"parts_of must be (classes, parts), {wanted}, got {tuple(self.parts_of.shape)}")
        if type(self) is LabelledPoints:  # a data set that is read from files has checked its own
            stored = self._stored[:, -1]
            parts = torch.where(stored < 0, -1 - stored, stored)
            has = parts != UNLABELLED
            if self._stored.shape[0] and not has.any(1).all():
                without = int((~has.any(1)).nonzero()[0])
                raise ValueError(f"cloud {without} has no labelled point; leave out such clouds")
            hint = ""
            if (stored == IGNORED).any() and len(self.part_names) <= -1 - IGNORED:
                hint = f"; a point without a label has UNLABELLED, {UNLABELLED}, and not {IGNORED}"
            as_indices("the labels of points", parts[has], len(self.part_names), hint)
            check_belonging(split_parts(self._stored)[1], self.labels, self.parts_of, self.classes, self.part_names)
            check_repeats(self._stored)

    def number_as(self, classes: Sequence[str], part_names: Sequence[str] | None = None) -> None:
        """As of `LabelledClouds`; numbers the labels of points by `part_names` too."""
        part_names = self.part_names if part_names is None else part_names
        rows = torch.tensor([classes.index(name) for name in self.classes])
        columns = torch.tensor([part_names.index(name) for name in self.part_names])
        parts_of = torch.zeros(len(classes), len(part_names), dtype=torch.bool)
        parts_of[rows.unsqueeze(1), columns] = self.parts_of
        self._numbers = columns if self._numbers is None else columns[self._numbers]
        self.part_names, self.parts_of = tuple(part_names), parts_of
        super().number_as(classes)

    def _taken(self, stored: Tensor | slice | int) -> Tensor:
        clouds = super()._taken(stored)
        if self._numbers is None:
            return clouds
        _, labels, own = split_parts(clouds)
        new = torch.where(labels < 0, UNLABELLED, self._numbers[labels.clamp(min=0)])
        return torch.cat([clouds[..., :-1, :], torch.where(own, new, -1 - new).to(clouds.dtype).unsqueeze(-2)], -2)

    @property
    def points(self) -> Tensor:
        """(S, C, K)."""
        return split_parts(super().points)[0]

    def fingerprint(self) -> str:
        """As of `LabelledClouds`, and of the labels of all points, their names and their numbers in files."""
        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update("\n".join([*self.part_names, *map(str, self.label_numbers)]).encode())
        for rows in torch.arange(len(self)).split(256):
            labels = self._stored[self._places(rows), -1]  # no other channel is read
            digest.update(labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def parts(self) -> Tensor:
        """(S, K) int64."""
        return split_parts(super().points)[1]

    @property
    def channels(self) -> int:
        """C."""
        return super().channels - 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:  # type: ignore[override]
        cloud, label = super().__getitem__(index)
        points, parts, _ = split_parts(cloud)
        return points, parts, label


def split_validation(data: Clouds, seed: int, fraction: float = 0.1) -> tuple[Clouds, Clouds]:
    """Splits a training set in two: -> (train, validation).

    Each class gives `fraction` of its clouds, rounded, but at least one, and never its last one; none does where a
    single cloud would be left for training, as norms behind a pooling need two. A data set with a validation split of
    its own gives that instead, and one of rooms gives whole rooms (`held_out`). The same seed gives the same split, and
    a fraction of 0 holds nothing out.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), got {fraction}")
    own = as_rows(data.validation, len(data)) if fraction and data.validation is not None else None
    own = None if own is None or not len(own) else torch.zeros(len(data), dtype=torch.bool).index_fill(0, own, True)
    held_out = data.held_out(seed, fraction) if own is None else own
    if own is None and len(data) - int(held_out.sum()) < 2:
        held_out = torch.zeros_like(held_out)
    return data.subset((~held_out).nonzero().squeeze(1)), data.subset(held_out.nonzero().squeeze(1))


def spread(data: Clouds, count: int) -> Clouds:
    """`count` clouds spread evenly over the classes; all of them if there are no more."""
    by_class = data.labels.argsort(stable=True)
    return data.subset(by_class[torch.linspace(0, len(data) - 1, min(count, len(data))).round().long()])
