"""Files of points to arrays, behind one door and one error.

Whatever a file holds, and whatever goes wrong inside a parser or a library, a caller meets only `PointCloudFileError`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointnet.names import did_you_mean_path, printable

from .cloud import Drawing, cloud_from, vertices_of
from .cloud import PointCloud as PointCloud
from .cloud import check_drawing as check_drawing
from .converters import CONVERTERS
from .errors import DatasetNotFoundError as DatasetNotFoundError
from .errors import PointCloudFileError as PointCloudFileError
from .errors import Refusal, check_file, file_errors
from .errors import errors_name as errors_name
from .formats.arrays import parse_npy, parse_npy_table, parse_npz
from .formats.by_hand import TABLES as TABLES
from .formats.by_hand import TEXTS
from .formats.by_hand import columns_of_table as columns_of_table
from .formats.by_hand import own_columns as own_columns
from .formats.contents import EXTRAS as EXTRAS
from .formats.contents import Array, Contents, Extras
from .formats.contents import Rows as Rows
from .formats.gltf import buffers_of, parse_glb, parse_gltf
from .formats.hdf5 import parse_hdf5
from .formats.hdf5 import read_hdf5 as read_hdf5
from .formats.kitti import labels_beside, parse_bin
from .formats.las import parse_las
from .formats.names import named_by_hand as named_by_hand
from .formats.obj import parse_obj
from .formats.off import parse_off
from .formats.pcd import parse_pcd
from .formats.ply import parse_ply
from .formats.scan import MARK
from .formats.stl import parse_stl
from .formats.text import parse_table, parse_text
from .frame import up_of
from .hashing import HASH as HASH
from .hashing import hash_of

NUM_POINTS = 1024  # drawn from a mesh by default
MOST_SUFFIXES = 5  # that a line names


def _whole(parse: Callable[..., Contents]) -> Callable[..., Contents]:
    """A parser that gets the bytes of the whole file at once, without a mark of UTF-8."""
    return lambda path, *wanted: parse(path.read_bytes().removeprefix(MARK), *wanted)


PARSERS: dict[str, Callable[..., Contents]] = {
    ".off": _whole(parse_off),
    ".ply": _whole(parse_ply),
    ".obj": _whole(parse_obj),
    ".stl": _whole(parse_stl),
    ".glb": parse_glb,
    ".gltf": parse_gltf,
    ".pcd": _whole(parse_pcd),
    **dict.fromkeys(TEXTS, parse_text),
    ".xyzrgb": partial(parse_text, usual=("x", "y", "z", "r", "g", "b")),
    ".xyzn": partial(parse_text, usual=("x", "y", "z", "nx", "ny", "nz")),
    ".npy": _whole(parse_npy),
    ".npz": _whole(parse_npz),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), parse_hdf5),
    **dict.fromkeys((".las", ".laz"), parse_las),
    ".bin": parse_bin,
}
SUFFIXES = tuple(PARSERS)
NAMES_OF_LABELS = ("parts.txt", "classes.txt")  # beside clouds, no clouds


def read_cloud(
    path: str | os.PathLike[str],
    num_points: int | None = None,
    seed: int = 0,
    up: str | None = None,
    repeat: bool = False,
    normalize: bool = False,
    extras: Extras = EXTRAS,
    precise: bool = False,
    mesh_points: int = NUM_POINTS,
    vertices: bool = False,
    mapped: bool = False,
    columns: str | Iterable[str] | None = None,
) -> PointCloud:
    """The points of any file, with their normals, colours, labels and intensity where it has some.

    Args:
        path: a file whose suffix says its format, in any case: OFF, PLY, OBJ, STL, GLB, GLTF, PCD, NPY, NPZ, HDF5,
            LAS, LAZ, BIN (KITTI), or text (XYZ, TXT, CSV, PTS, ASC, XYZRGB, XYZN). No other file is opened, whatever
            this one refers to, but the buffers of a GLB or GLTF in its own folder or below, and SemanticKITTI's labels.
        num_points: N. From a mesh, that many points are drawn uniformly by area, with the normals of their faces, the
            colours and intensity between those of the corners, and the label of the nearest corner; None:
            `mesh_points`. Of a cloud, that many rows are drawn without replacement, or all are returned in order
            if it has no more; None: all.
        seed: of both draws.
        up: the file's up axis: "z", "y" (rotated by a quarter about x), "-y" as of a depth camera, "x", "-x" or "-z".
            None: y for GLB and GLTF, as their standard says, what a PLY of this library says, and z for all else.
        repeat: a cloud of fewer points than asked for repeats them as often as needed, in shuffled order; otherwise it
            is refused.
        normalize: first move the centre of the bounding box to the origin and scale coordinates to at most 1, in
            float64, so that a survey's easting of half a million metres does not cost the shape its digits.
        extras: what else is wanted, of "normals", "colors", "labels", "intensity" and "hash" (`points_hash`, the same
            for files of the same points); the rest is None and takes no memory.
        precise: coordinates as float64 in any case, with all digits that the file has.
        mesh_points: N of a mesh where `num_points` is None.
        vertices: take the vertices of a mesh as they are, as a cloud, in place of points drawn from its faces, with
            the normals, colours, labels and intensity of the vertices themselves.
        mapped: leave the rows of a LAS or LAZ in the file, if `num_points` is None and its up axis is z: points
            (float64), colors, labels, intensity and rows are then `Rows`, which are converted to the types of
            `PointCloud` when they are indexed, and take no memory.
        columns: the names of all columns of a text, NPY or NPZ, in order, where they have none or wrong ones: of x, y,
            z, nx, ny, nz, r, g, b, label and intensity, and _ for one to skip; a list, or joined by commas. None: by
            their names, else by their numbers (`formats.by_numbers.recognised`), which `notes` then says.

    Rows of a cloud and faces of a mesh whose coordinates are not finite are skipped, and so are rows of zeros of a
    cloud, if there are several: points that were not measured. The cloud's notes count them, and its `rows` are those
    that it has: of all rows of numbers, without headers and comments, the place of each point. Coordinates are float32,
    or float64 where that would move points against each other by more than 1e-6 of the cloud's longest side, as at
    survey coordinates.

    Raises:
        PointCloudFileError: the file is missing, damaged, of an unknown kind, empty, or a cloud of fewer points.
        ValueError: an argument outside the values above.
    """
    path, generator, by_hand = Path(path), np.random.default_rng(seed), named_by_hand(columns)
    check_drawing(num_points, up)
    if unknown := [name for name in extras if name not in (*EXTRAS, HASH)]:
        raise ValueError(f"extras must be of {', '.join((*EXTRAS, HASH))}, got {unknown[0]!r}")
    with file_errors(path):
        contents = contents_of(path, [name for name in extras if name != HASH], by_hand)
        is_mesh = contents.faces is not None
        if vertices:
            contents = vertices_of(contents)
        elif is_mesh:
            num_points = num_points or mesh_points
        axis = up_of(path, up)
        points_hash = hash_of(contents, axis) if HASH in extras else ""
        mapped = mapped and axis == "z" and num_points is None and not normalize
        drawing = Drawing(num_points, generator, repeat, normalize, precise, mapped, any_zeros=is_mesh)
        cloud = cloud_from(contents, drawing, extras)._replace(points_hash=points_hash)
        return cloud.in_library_frame(axis)


def read_points(
    path: str | os.PathLike[str],
    num_points: int | None = None,
    seed: int = 0,
    normals: bool = False,
    up: str | None = None,
    columns: str | Iterable[str] | None = None,
) -> NDArray[Any]:
    """`read_cloud`'s points alone, (N, 3) float32 or float64, or with their normals, (N, 6).

    Raises:
        PointCloudFileError: as `read_cloud`, or normals are asked for and the file has none.
        ValueError: an argument outside `read_cloud`'s.
    """
    cloud = read_cloud(path, num_points, seed, up, extras=("normals",) if normals else (), columns=columns)
    if not normals:
        return cloud.points
    if cloud.normals is None:
        raise PointCloudFileError(path, "has no normals")
    return np.hstack([cloud.points, cloud.normals])


def files_in(path: Path) -> list[Path]:
    """The file itself, or all files of points below a folder, sorted by path; hidden files and folders are skipped."""
    if not os.path.isdir(path):  # unlike Path.is_dir, False and no error where the name is too long
        return [path]
    return readable(_below(path))


def _below(root: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones, and what cannot be opened: links that lead nowhere, closed folders.

    Folders that are links are entered, unless they are met elsewhere or hold the root.
    """
    start, met = os.path.realpath(root), set[str]()
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        place = os.path.realpath(folder)
        if place in met or (place != start and start.startswith(os.path.join(place, ""))):
            continue
        met.add(place)
        try:
            shown = [folder / name for name in sorted(os.listdir(folder)) if name[0] != "."]
        except OSError:
            yield folder
            continue
        for path in shown:
            if os.path.isdir(path):
                (links if os.path.islink(path) else folders).append(path)
            else:
                yield path


def readable(files: Iterable[Path]) -> list[Path]:
    """Those files that have a suffix we read, sorted, without names of labels and the BINs that a GLTF of them names as
    its buffers."""
    read = (file for file in files if file.suffix.lower() in SUFFIXES and file.name not in NAMES_OF_LABELS)
    known = sorted(file for file in read if os.path.isfile(file))
    bins, gltfs = ([file for file in known if file.suffix.lower() == suffix] for suffix in (".bin", ".gltf"))
    named = {buffer for gltf in gltfs for buffer in buffers_of(gltf)} if bins else set()
    buffers = {file for file in bins if named and file.resolve() in named}
    return [file for file in known if file not in buffers]


def read_beside(file: Path) -> list[Path]:
    """The other files that are read with one: the buffers of a GLB or GLTF in its folder or below it, the labels of a
    KITTI scan."""
    suffix = file.suffix.lower()
    if suffix in (".glb", ".gltf") and file.is_file():
        folder = file.parent.resolve()
        return sorted(each for each in buffers_of(file) if each.is_relative_to(folder) and each.is_file())
    labels = labels_beside(file) if suffix == ".bin" else None
    return [] if labels is None else [labels]


def passed_over(root: Path, depth: int = 1) -> list[str]:
    """Lines about what is in a folder and not read: how many files have another suffix, and the commonest suffixes; how
    many cannot be opened. Labels of scans are read.

    Args:
        depth: 1 counts all files below the folder, 2 those in folders below it.
    """
    files = [file for file in _below(root) if len(file.relative_to(root).parts) >= depth]
    labels = {beside.absolute() for file in files if file.suffix.lower() == ".bin" for beside in read_beside(file)}
    files = [file for file in files if file.absolute() not in labels]
    there = [file.suffix.lower() for file in files if os.path.isfile(file)]
    suffixes, lines = Counter(suffix for suffix in there if suffix not in SUFFIXES), list[str]()
    if suffixes:
        ranked = sorted(suffixes.items(), key=lambda pair: (-pair[1], pair[0]))
        kinds = [f"{count:,} {printable(suffix) or 'without'}" for suffix, count in ranked[:MOST_SUFFIXES]]
        more = f" and {len(ranked) - len(kinds)} more kinds" if len(ranked) > len(kinds) else ""
        total = suffixes.total()
        lines.append(f"{total:,} file{'s' * (total > 1)} passed over for the suffix: {', '.join(kinds)}{more}")
    shut = (file for file in files if os.path.isdir(file) or not os.path.exists(file))
    if closed := sorted(file for file in shut if os.path.isdir(file) or file.suffix.lower() in ("", *SUFFIXES)):
        what = "link or folder" if len(closed) == 1 else "links or folders"
        first = printable(closed[0].relative_to(root).as_posix())
        lines.append(f"{len(closed):,} {what} that cannot be opened, such as {first}")
    return lines


def read_table(path: str | os.PathLike[str], columns: int | Sequence[int], mended: bytes | None = None) -> Array:
    """The rows of an NPY file or a text of exactly so many numbers each; no column is guessed: (N, columns).

    Args:
        columns: how many numbers a row may have.
        mended: a translation table for the bytes of a text (`bytes.maketrans`); None: as they are.

    Raises:
        PointCloudFileError: the file is missing, empty, damaged, or not such a table.
    """
    path = Path(path)
    with file_errors(path):
        check_file(path)
        data = path.read_bytes()
        is_text = path.suffix.lower() != ".npy"
        table = parse_table(data.translate(mended) if mended else data) if is_text else parse_npy_table(data)
        if not table.size:
            raise Refusal("holds no points")
        allowed = [columns] if isinstance(columns, int) else columns
        if table.shape[1] not in allowed:
            raise Refusal(f"must have {' or '.join(map(str, allowed))} numbers a row, got {table.shape[1]}")
        return table


def checked_labels(path: Path, what: str, labels: Array, count: int, first: int = 0) -> NDArray[np.int64]:
    """Labels from a file, of any type and shape, as int64.

    Raises:
        PointCloudFileError: they are not whole numbers, `count` of them from the `first` on.
    """
    right = (labels >= first) & (labels < first + count) & (labels == np.rint(labels))
    if not right.all():
        reason = f"{what} must be whole numbers from {first} to {first + count - 1}, got {labels[~right][0]:g}"
        raise PointCloudFileError(path, reason)
    return labels.astype(np.int64)


def contents_of(path: Path, extras: Extras = EXTRAS, columns: Sequence[str] = ()) -> Contents:
    """What a file's parser makes of it; raises whatever that raises, so call it within `file_errors`."""
    try:
        check_file(path)
    except Refusal as refusal:
        near = "" if os.path.lexists(path) else did_you_mean_path(path)
        raise Refusal(f"{refusal}{near}") from refusal
    suffix = path.suffix.lower()
    if suffix in CONVERTERS:
        raise Refusal(f"{suffix.lstrip('.').upper()} is not read; {CONVERTERS[suffix]}")
    if suffix not in SUFFIXES:
        known = ", ".join(kind.lstrip(".").upper() for kind in SUFFIXES)
        raise Refusal(f"its suffix must be one of {known}, got {path.suffix or 'none'}")
    if columns and suffix not in TABLES:
        raise Refusal(f"names its own columns; columns can be given for {', '.join(TABLES)}")
    contents = PARSERS[suffix](path, extras, *([columns] if columns else []))
    if not len(contents.vertices):
        raise Refusal("holds no points")
    return contents
