"""The contract of a model: what input it was trained on, and how a cloud is brought into that form.

Training writes it from the data it really saw, and `config.json` keeps it as `preprocessing`. Whole clouds go through
`Contract.channels_of`, blocks of scenes through `datasets.blocks.block_channels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointnet.datasets import LabelledClouds
from pointnet.datasets.blocks import CHANNEL_NAMES, Heights, far_outside, grounds_of, said_of_stray, sparse
from pointnet.datasets.clouds import AS_GIVEN, BLOCKS, IN_BLOCKS, UNIT_SPHERE
from pointnet.datasets.extents import (
    brightness_of,
    extents_of,
    heights_of_scenes,
    place_of,
    raised_ground,
    reach_of,
    unlike_colors,
    unlike_heights,
    unlike_place,
)
from pointnet.datasets.given import check_one_of
from pointnet.models import Pretrained
from pointnet.models.pretrained import preprocessing_of
from pointnet.names import printable
from pointnet.points.cloud import Chosen
from pointnet.points.features import (
    FEATURES,
    SOME_POINTS,
    Range,
    channel_names,
    features_of,
    mostly_outside,
    said_of_intensity,
)
from pointnet.points.formats.names import COLUMNS
from pointnet.points.frame import UPS, bounds, centre_and_radius
from pointnet.points.read import PointCloud

FRAME = "z up, right-handed"  # the library's, of all that a network sees
XYZ, NORMALS = COLUMNS["points"], COLUMNS["normals"]
OLDER = {"num_points", "categories", "normals", "normalization"}  # all that contracts had at first


@dataclass(frozen=True)
class Contract:
    """The input that a model was trained on.

    Args:
        num_points: points of a cloud.
        channels: the names of the input's channels. Colours are in [0, 1], as `read_cloud` has them.
        intensity: the two intensities of files that are 0 and 1 to the network (`points.features.scaled_intensity`);
            None: they are as in the file.
        colors: the least and the greatest mean colour of clouds in training (`brightness_of`); None: not measured.
        up: how the files of training were turned, `up=` of `read_cloud`; None: by their format.
        columns: the names of the columns of tables that training was given, joined by commas; "" for none.
        centre: whether the mean of a cloud was at the origin.
        scale: "unit sphere": a cloud's farthest point was at distance 1; "as given": units that matter; or, of scenes,
            "blocks of a metre" (S3DIS) or "blocks" of any size.
        heights: of scenes, as was usual in training: half of a scene's points are below the first, 99 % below the
            second, both above its lowest point but for stray ones, in the unit of files; None: not measured.
        ground: of scenes, how far above that point the ground of 98 % of the blocks (`Heights.grounds`) was at most, in
            each scene of training but one; None: not measured.
        extents: of clouds as given, the smallest and the largest in training (`extents_of`); None: not measured.
        reach: of those that are not centred, how far from the origin they lay at most (`reach_of`).
        block: the side of blocks, which is 1 to the network, in the unit of files.
        label_numbers: of a network that labels points, what files had for its classes; () for 0, 1, 2 ...
        rotations: clouds were rotated at random about the up axis, by up to so many degrees; 0: they all faced the way
            of their set.
        categories: of a network for parts: what its second input may be.
        needs_category: whether each object in training came with its category.
        temperature: divides the logits, so that the probabilities are as often right as they say.
        familiar: of a classifier, what it was shown (`evaluation.trust.Familiar.as_json`), of a network for parts, what
            is usual of its points (`evaluation.trust.Usual`); None: not measured.
    """

    num_points: int
    channels: tuple[str, ...] = XYZ
    intensity: Range | None = None
    colors: Range | None = None
    heights: Range | None = None
    ground: float | None = None
    extents: Range | None = None
    reach: float | None = None
    up: str | None = None
    columns: str = ""
    centre: bool = True
    scale: str = UNIT_SPHERE
    block: float = 1.0
    label_numbers: tuple[int, ...] = ()
    rotations: float = 0.0
    categories: tuple[str, ...] = ()
    needs_category: bool = False
    temperature: float = 1.0
    familiar: dict[str, Any] | None = None

    @classmethod
    def of(cls, model: Pretrained) -> Contract:
        """The contract that a model carries, or that an older folder implied.

        Raises:
            ValueError: it expects what this library cannot make; the message names it.
        """
        held = preprocessing_of(model)
        if (frame := held.pop("frame", FRAME)) != FRAME:
            raise ValueError(f"the model expects points of frame '{frame}', known here is '{FRAME}'")
        if "num_points" not in held:
            raise ValueError("the model does not say what input it expects: preprocessing has no num_points")
        held = held if held.keys() - OLDER else _of_older(held, model.arguments["in_channels"])
        if unknown := sorted(map(str, held.keys() - set(cls.__dataclass_fields__))):
            raise ValueError(f"the model expects '{printable(unknown[0])}', which is not known here")
        fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()}
        contract = cls(**fields)
        try:
            contract.check()
        except ValueError as error:
            raise ValueError(f"model.preprocessing (in a folder that of config.json): {error}") from None
        if len(contract.channels) != model.arguments["in_channels"]:
            channels = ", ".join(contract.channels)
            raise ValueError(f"the model takes {model.arguments['in_channels']} channels per point, not {channels}")
        return contract

    def check(self) -> None:
        """Raises ValueError, in one line, for a value that no input can have."""
        numbers: Any = {"temperature": self.temperature, "block": self.block, "num_points": self.num_points}
        if wrong := [name for name, value in numbers.items() if not _is_number(value) or value <= 0]:
            raise ValueError(f"{wrong[0]} must be a number above 0, got {numbers[wrong[0]]!r}")
        for name, value in (("ground", 0 if self.ground is None else self.ground), ("rotations", self.rotations)):
            if not _is_number(value):
                raise ValueError(f"{name} must be a number, got {value!r}")
        for name in ("centre", "needs_category"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        names = "intensity", "colors", "heights", "extents"
        ranges: Any = {name: getattr(self, name) for name in names}
        for name, ends in ranges.items():
            two = isinstance(ends, tuple | list) and len(ends) == 2 and all(map(_is_number, ends))
            if ends is not None and not (two and ends[0] <= ends[1]):
                raise ValueError(f"{name} must be two numbers, the smaller first, got {ends!r}")
        if self.scale not in (UNIT_SPHERE, AS_GIVEN, IN_BLOCKS, BLOCKS):
            raise ValueError(f"points of scale '{printable(str(self.scale))}' are not known here")
        check_one_of("up", self.up, UPS)
        if self.channels[:3] != XYZ or len(set(self.channels)) < len(self.channels):
            raise ValueError(
                f"channels must be x, y, z and others, each once, got {', '.join(map(str, self.channels))}"
            )
        if self.intensity is not None and "intensity" not in self.channels:
            raise ValueError("the scale of intensity is given, and no channel has its name")

    def as_json(self) -> dict[str, Any]:
        """As `model.preprocessing` and `config.json` have it."""
        held = {name: [*value] if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"frame": FRAME, **held}

    @property
    def features(self) -> tuple[str, ...]:
        """What is needed of a cloud beside its points: attributes of `PointCloud`, the `extras` of `read_cloud`."""
        return tuple(name for name in FEATURES if set(COLUMNS[name]) <= set(self.channels))

    @property
    def is_calibrated(self) -> bool:
        """Whether the temperature of a classifier was measured."""
        return self.temperature != 1 or self.familiar is not None

    @property
    def normals(self) -> bool:
        """Whether channels 3 to 5 are normals, which turn with the points."""
        return self.channels[3:6] == NORMALS

    def check_met(self, found: Contract, name: object, where: str) -> None:
        """Raises ValueError, in one line, unless data with the contract `found` has the channels and scales of this
        one; it names the model and where the data is."""
        if found.channels != self.channels:
            taught, has = (", ".join(each.channels) for each in (self, found))
            raise ValueError(f"{name}: it was trained on points of {taught}; {where} has {has}")
        if found.scale != self.scale:
            raise ValueError(f"{name}: it was trained on clouds of scale '{self.scale}'; {where} has '{found.scale}'")
        for what in ("intensity", "block"):
            own, other = getattr(self, what), getattr(found, what)
            if own != other:
                raise ValueError(f"{name}: its {what} is scaled by {own}, that of {where} by {other}")

    @property
    def in_blocks(self) -> bool:
        """Whether scenes were cut into blocks whose channels files give: S3DIS's, or x y z and features."""
        return self.scale in (IN_BLOCKS, BLOCKS) and self.channels in (CHANNEL_NAMES, channel_names(self.features))

    def channels_of(self, cloud: PointCloud) -> Callable[[Chosen], NDArray[np.float32]]:
        """A function that gives a cloud's chosen rows as (C, n), as in training.

        Raises:
            ValueError: the cloud lacks a channel, has no extent, or the model takes channels without known names.
        """
        features_of_rows = features_of(cloud, self.features, self.intensity, ", which the model was trained with")
        there = channel_names(self.features)
        if unknown := [name for name in self.channels if name not in there]:
            raise ValueError(f"the model was trained on a channel '{unknown[0]}', which no file gives")
        order = [there.index(name) - len(XYZ) for name in self.channels[len(XYZ) :]]
        centre, radius = self._frame_of(cloud.points)

        def channels(rows: Chosen) -> NDArray[np.float32]:
            seen = (cloud.points[rows] - centre) / radius
            return np.vstack([seen.T.astype(np.float32), features_of_rows(rows)[:, order].T])

        return channels

    def notes_of(self, cloud: PointCloud) -> tuple[str, ...]:
        """Short sentences if a cloud, z up, is unlike the training set: most of its intensities, its colours, or a
        scene's heights or blocks; and where a few points are far outside all others."""
        notes = self._notes_of_intensity(cloud) + self._notes_of_colors(cloud)
        if self.in_blocks:
            heights, few = Heights.of(cloud.points, self.block), sparse(cloud.points, self.block)
            shares = self.channels == CHANNEL_NAMES
            if self.ground is not None:
                floor = float(bounds(cloud.points)[0][2]) if shares else heights.floor
                heights = heights._replace(grounds=grounds_of(cloud.points, self.block, floor))
            stray, far = said_of_stray(heights, shares), far_outside(cloud.points, self.block, shares)
            notes = *notes, *filter(None, [stray, self._unlike(heights), far, few])
        return notes

    def unlike_channels(self, channels: NDArray[np.floating]) -> str | None:
        """What `notes_of` says of the intensity or the colours of a cloud, by its channels (C, N), as the network has
        them."""
        names = self.channels
        if self.intensity is not None and mostly_outside(values := channels[names.index("intensity")], (0.0, 1.0)):
            low, high = self.intensity
            return said_of_intensity(low + (high - low) * values, self.intensity)
        if not (places := [names.index(name) for name in COLUMNS["colors"] if name in names]):
            return None
        mean = float(np.mean(channels[places], dtype=np.float64))
        return unlike_colors(self.colors, (mean, mean))

    def _unlike(self, found: Heights) -> str | None:
        """A note on a scene of these heights; None if they are like those of training."""
        note = unlike_heights(self.heights, found) if self.heights else None
        return note or (None if self.ground is None else raised_ground(self.ground, found))

    def unlike_place(self, points: Any) -> str | None:
        """A note on a cloud (N, 3), an array or `Rows`, if its extent or place is far from those of training."""
        return unlike_place(self.extents, self.reach, *place_of(points)) if self.extents else None

    def lines_on_clouds(self, data: LabelledClouds, name: str) -> list[str]:
        """Lines on a data set of this name, if some of its clouds have another extent, place or colour than in
        training."""
        notes = [unlike_colors(self.colors, brightness_of(data))]
        if self.extents is not None:
            far = None if self.reach is None else reach_of(data)
            notes.append(unlike_place(self.extents, self.reach, extents_of(data), far))
        return [f"{name}: {note}" for note in notes if note]

    def notes_on_files(self, data: LabelledClouds) -> list[tuple[str, str]]:
        """Files of scenes of a data set, by name, whose heights are not those of training, each with a note."""
        found = heights_of_scenes(data) if self.heights and data.files else {}
        notes = ((data.classes[scene], self._unlike(heights)) for scene, heights in found.items())
        return [(name, note) for name, note in notes if note]

    def _notes_of_intensity(self, cloud: PointCloud) -> tuple[str, ...]:
        if self.intensity is None or cloud.intensity is None:
            return ()
        some = cloud.intensity[:: len(cloud.intensity) // SOME_POINTS + 1]
        return (said_of_intensity(some, self.intensity),) if mostly_outside(some, self.intensity) else ()

    def _notes_of_colors(self, cloud: PointCloud) -> tuple[str, ...]:
        if self.colors is None or cloud.colors is None:
            return ()
        mean = float(np.mean(cloud.colors[:: len(cloud.colors) // SOME_POINTS + 1], dtype=np.float64))
        return tuple(filter(None, [unlike_colors(self.colors, (mean, mean))]))

    def _frame_of(self, points: NDArray[np.floating]) -> tuple[Any, Any]:
        """What is taken from points, and what they are then divided by, in their type."""
        if self.scale == UNIT_SPHERE:
            return centre_and_radius(points)
        kind = points.dtype.type
        centre = points.mean(0, keepdims=True, dtype=np.float64).astype(kind) if self.centre else kind(0)
        return centre, kind(1)

    def __str__(self) -> str:
        """In one line, for people."""
        if self.scale == UNIT_SPHERE:
            how = "centred, in the unit sphere"
        elif self.scale == IN_BLOCKS:
            how = "in metres"
        elif self.scale == BLOCKS:
            how = f"in blocks of {self.block:g}"
        else:
            how = f"{'centred' if self.centre else 'where they are'}, in the units of the training set"
        files = [f"files have {self.up} up"] if self.up else []
        files += [f"tables have the columns {self.columns}"] if self.columns else []
        frame = f"{FRAME} ({'; '.join(files)})" if files else FRAME
        return ", ".join([frame, how, self.facing, *(f"with {self._called(name)}" for name in self.features)])

    def _called(self, feature: str) -> str:
        """A feature in words, with its scale where a file has another."""
        scaled = feature == "intensity" and self.intensity
        return f"{FEATURES[feature]}{' ({:g} to {:g} become 0 to 1)'.format(*scaled) if scaled else ''}"

    @property
    def facing(self) -> str:
        """How the clouds of training faced, in words."""
        if self.rotations >= 180:
            return "facing any way about up"
        within = f" within {self.rotations:g}°" if self.rotations else ""
        return f"facing as its training set does{within}"


def _of_older(held: Mapping[str, Any], in_channels: int) -> dict[str, Any]:
    """What `preprocessing` implied before it named channels and scale."""
    known = "centred, in the unit sphere"
    in_blocks = in_channels == len(CHANNEL_NAMES)
    if not in_blocks and (normalization := held.get("normalization", known)) != known:
        raise ValueError(f"the model expects points of normalization '{normalization}', known here is '{known}'")
    channels = (*XYZ, *NORMALS) if held.get("normals", False) else XYZ
    here = {"channels": CHANNEL_NAMES, "scale": IN_BLOCKS} if in_blocks else {"channels": channels}
    return {"num_points": held["num_points"], "categories": held.get("categories", ()), **here}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
