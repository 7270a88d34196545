"""S3DIS (Armeni et al., *3D Semantic Parsing of Large-Scale Indoor Spaces*, CVPR 2016): rooms, cut into blocks."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pointnet.files import AnyPath
from pointnet.points.formats.values import as_unit_colors
from pointnet.points.read import PointCloud, PointCloudFileError, checked_labels, errors_name, read_hdf5, read_table
from pointnet.points.sampling import seed_of

from . import releases
from .blocks import CHANNEL_NAMES, CHANNELS, FEWEST, POINTS, WIDEST, Cells, cut_blocks, first_blocks, held_out_scenes
from .cache import cached_clouds
from .clouds import IN_BLOCKS, LabelledPoints
from .given import check_num_points, check_one_of

# In the published order of the labels.
CLASSES = tuple("ceiling floor wall beam column window door table chair sofa bookcase board clutter".split())

BLOCK = (CHANNELS + 1, POINTS)  # the shape of one, with the labels of its points
MOST_BLOCKS = 2000  # of a room: 328 MB
# The text has a few bytes that lost their sixth bit: "103.0\x100000" is 103.000000, "185\x00187" two numbers.
MENDED = bytes(byte | 0x20 if byte < 0x20 and byte not in b"\t\n\r" else byte for byte in range(256))


class S3DIS(LabelledPoints):
    """S3DIS in blocks of a metre by a metre: `data[i]` -> ((9, N) float32, (N,) int64, int).

    Nine channels, the class of each point (an index into `data.part_names`, the published 13) and the room (an index
    into `data.classes`). The channels are PointNet's (sem_seg/indoor3d_util.py): x and y in metres from the middle of
    the block, z from the room's lowest point; red, green and blue in [0, 1]; x, y and z as shares of the room's extent,
    in [0, 1].

    Args:
        root: the set's own folder, or the folder that holds it.
        split: "test", the rooms of one area, or "train", those of all others.
        num_points: N, at most 4,096: the first points of each block.
        area: the test area, by the name that its rooms' names begin with.
        form: "hdf5", the blocks of `indoor3d_sem_seg_hdf5_data`; "npy", one file per room, `Area_1_office_1.npy`;
            "text", one file per object, `Area_1/office_1/Annotations/chair_1.txt`. None finds one, in that order.

    All is read once and cached. Rooms are cut into blocks as in the release: one every half metre that has at least 100
    points. Of these 4,096 are drawn at random, or repeated where there are fewer. `data.room_files` are the rooms of
    this split, by name, for `read_room`; HDF5 has none. The files are z-up and used as they are.

    `split_validation` holds out whole rooms, since blocks overlap.

    Raises:
        PointCloudFileError: `root` holds nothing of the set or no room of that area, or a file is missing or damaged.
        ValueError: an argument has none of the values above.
    """

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        num_points: int = POINTS,
        *,
        area: str = "Area_5",
        form: str | None = None,
    ):
        check_one_of("split", split, ("train", "test"))
        check_num_points(num_points, POINTS)
        folder, read = releases.find_release("S3DIS", root, FORMS, form)
        points, rooms, names, files = read(folder, split, area)
        wanted = set(_rooms_in(split, names, area, folder))
        rows = [row for row, room in enumerate(rooms) if room in wanted]
        if not rows:
            raise PointCloudFileError(folder, f"its {split} split holds no block, with {area} for testing")
        labels = torch.tensor([names.index(room) for room in rooms])
        super().__init__(torch.from_numpy(points), labels, names, CLASSES, num_points=num_points)
        self.channel_names, self.scale = CHANNEL_NAMES, IN_BLOCKS
        self.room_files = files
        self.keep(torch.tensor(rows))

    def held_out(self, seed: int, fraction: float) -> Tensor:
        """(S,) bool, the blocks that `split_validation` gives to validation: those of some rooms, never of all."""
        return held_out_scenes(self.labels, seed, fraction)

    def first_clouds(self) -> Tensor:
        """As of `LabelledClouds`: all blocks of a room are of one object."""
        return first_blocks(self.labels)


# Of one form: blocks (S, CHANNELS + 1, POINTS), the room of each, the names of all rooms, the split's rooms as files.
Blocks = tuple[NDArray[np.float32], list[str], list[str], dict[str, Path]]


def _rooms_in(split: str, names: Sequence[str], area: str, folder: Path) -> list[str]:
    """The rooms of a split; PointCloudFileError if there is none of the area."""
    test = [name for name in names if name.startswith(f"{area}_")]
    if not test:
        areas = ", ".join(sorted({"_".join(name.split("_")[:2]) for name in names})[:8]) or "none"
        raise PointCloudFileError(folder, f"holds no room of {area}, only of {areas}")
    return test if split == "test" else [name for name in names if name not in test]


def read_room(path: AnyPath) -> PointCloud:
    """The points of one room with colours and classes, its lowest corner at the origin, in metres.

    Args:
        path: an NPY of rows x y z r g b class, or a folder `Annotations` with one text per object, rows x y z r g b,
            whose name begins with its class; any class but the 13 becomes clutter. Colours are from 0 to 255, or from 0
            to 1 where none exceeds that, as in other files.

    Raises:
        PointCloudFileError: a file is missing, damaged or of another shape; a colour or class is out of range; the room
            is more than a kilometre wide.
    """
    path = Path(path)
    with np.errstate(all="ignore"):  # what is too large is refused below
        table = _read_objects(path) if path.is_dir() else read_table(path, 7)
        rows = table.astype(np.float64, copy=False)
        low, high = rows[:, :3].min(0), rows[:, :3].max(0)
        width = (high - low).max()
    releases.check_finite(path, "point", rows, first=1)
    labels = checked_labels(path, "classes", rows[:, 6], len(CLASSES))
    colors = table[:, 3:6]
    if not 0 <= colors.min() <= colors.max() <= 255:
        raise PointCloudFileError(path, f"colours must be 0 to 255, got {colors.min():g} to {colors.max():g}")
    if width > WIDEST:
        raise PointCloudFileError(path, f"must be a room in metres, at most {WIDEST} of them, got {width:g}")
    points = (rows[:, :3] - low).astype(np.float32)
    return PointCloud(points, None, as_unit_colors(colors)[0], labels)


def _read_objects(folder: Path) -> NDArray[np.float64]:
    """The rows x y z r g b class of a room's objects, one text per object."""
    objects = []
    for file in sorted(folder.glob("*.txt")):
        name = file.stem.split("_")[0]
        if file.name.startswith("."):
            continue
        try:
            rows = read_table(file, 6, MENDED)
        except PointCloudFileError as error:
            raise PointCloudFileError(folder, f"{file.name} {error.reason}") from error.__cause__
        label = CLASSES.index(name if name in CLASSES else "clutter")
        objects.append(np.column_stack([rows, np.full(len(rows), label)]))
    if not objects:
        raise PointCloudFileError(folder, "holds no text of an object")
    return np.concatenate(objects)


def room_blocks(room: PointCloud, generator: Generator) -> NDArray[np.float32]:
    """A room cut into blocks: -> (n, CHANNELS + 1, POINTS), as `LabelledPoints` has them.

    Raises:
        ValueError: more blocks than a room has.
    """
    colors, labels = room.colors, room.labels
    assert colors is not None
    assert labels is not None
    extent, cells = room.points.max(0), Cells.of(room.points)
    corners = np.argwhere(cells.counts() >= FEWEST)
    if len(corners) > MOST_BLOCKS:
        raise ValueError(f"must cut into at most {MOST_BLOCKS} blocks, got {len(corners)}")
    return cut_blocks(room.points, colors.__getitem__, labels, cells, corners, BLOCK, generator, extent=extent)


def _read_hdf5_blocks(folder: Path, split: str, area: str) -> Blocks:
    """All blocks, whichever split is asked for."""
    listing = folder / "room_filelist.txt"
    rooms = releases.read_lines(listing)
    files = list(dict.fromkeys(releases.listed_files(folder / "all_files.txt", "ply_data_all*.h5")))
    cached = cached_clouds(files, _read_blocks, BLOCK, "blocks, version 1", folder).strict()
    if len(cached.points) != len(rooms):
        reason = f"must name the room of each of {len(cached.points)} blocks, got {len(rooms)}"
        raise PointCloudFileError(listing, reason)
    return cached.points, rooms, list(dict.fromkeys(rooms)), {}


def _read_blocks(path: Path) -> NDArray[np.float32]:
    """The blocks of one file of the release."""
    data, labels = read_hdf5(path, {"data": (None, POINTS, CHANNELS), "label": (None, POINTS)})
    if len(data) != len(labels):
        raise PointCloudFileError(path, f"must have labels for each block, got {len(data)} and {len(labels)}")
    blocks = np.empty((len(data), *BLOCK), np.float32)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is refused below
        blocks[:, :-1] = data.transpose(0, 2, 1)
    blocks[:, -1] = checked_labels(path, "labels", labels, len(CLASSES))
    releases.check_finite(path, "block", blocks)
    return blocks


def _read_rooms(folder: Path, split: str, area: str, pattern: str) -> Blocks:
    """The blocks of the split's rooms."""
    rooms = {_room_name(path): path for path in sorted(folder.glob(pattern))}
    files = {name: rooms[name] for name in _rooms_in(split, list(rooms), area, folder)}
    cached = cached_clouds(list(files.values()), _cut, BLOCK, "blocks of 1 m every 0.5 m, version 2", folder).strict()
    return cached.points, [_room_name(path) for path in cached.files], list(rooms), files


def _cut(path: Path) -> NDArray[np.float32]:
    room = read_room(path)
    with errors_name(path):
        return room_blocks(room, np.random.default_rng(seed_of(_room_name(path))))


def _room_name(path: Path) -> str:
    return path.stem if path.suffix else f"{path.parents[1].name}_{path.parent.name}"


# In the order they are looked for.
NPY, TEXT = "Area_*_*.npy", "Area_*/*/Annotations"
HDF5 = "room_filelist.txt", "ply_data_*.h5"
FORMS = {
    "hdf5": releases.Form(("indoor3d_sem_seg_hdf5_data",), HDF5, _read_hdf5_blocks),
    "npy": releases.Form(("stanford_indoor3d",), (NPY,), partial(_read_rooms, pattern=NPY)),
    "text": releases.Form(("Stanford3dDataset_v1.2_Aligned_Version",), (TEXT,), partial(_read_rooms, pattern=TEXT)),
}
