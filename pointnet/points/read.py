"""Files of points to arrays, behind one door and one error.

Whatever a file holds, and whatever goes wrong inside a parser or a library, a caller meets `PointCloudFileError` only.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .formats.arrays import parse_npy, parse_npy_table, parse_npz
from .formats.contents import EXTRAS, Array, Contents, Extras, PointCloudFileError, Refusal
from .formats.gltf import parse_glb, parse_gltf
from .formats.hdf5 import hdf5_names, parse_hdf5, read_hdf5
from .formats.obj import parse_obj
from .formats.off import parse_off
from .formats.pcd import parse_pcd
from .formats.ply import parse_ply
from .formats.stl import parse_stl
from .formats.text import parse_table, parse_text
from .frame import check_up, middle_and_half_extent, rotated_y_up_to_z_up, up_of
from .sampling import draw_on_surface, interpolate, normals_of_faces, unit_or_zero

__all__ = [
    "SUFFIXES",
    "DatasetNotFoundError",
    "PointCloud",
    "PointCloudFileError",
    "checked_labels",
    "cloud_of",
    "files_in",
    "hdf5_names",
    "read_cloud",
    "read_hdf5",
    "read_points",
    "read_table",
    "turned",
    "up_of",
]

# Points drawn from a mesh if nobody says how many.
NUM_POINTS = 1024
LONGEST_REASON = 300
BLOCK = 1 << 16  # rows looked at together, so that what is held beside a cloud stays small

Parser = Callable[[Path, Extras], Contents]


def _whole(parse: Callable[[bytes, Extras], Contents]) -> Parser:
    """A parser that is handed all of its file at once."""
    return lambda path, extras: parse(path.read_bytes(), extras)


PARSERS: dict[str, Parser] = {
    ".off": _whole(parse_off),
    ".ply": _whole(parse_ply),
    ".obj": _whole(parse_obj),
    ".stl": _whole(parse_stl),
    ".glb": _whole(parse_glb),
    ".gltf": _whole(parse_gltf),
    ".pcd": _whole(parse_pcd),
    ".xyz": parse_text,
    ".txt": parse_text,
    ".csv": parse_text,
    ".pts": parse_text,
    ".asc": parse_text,
    ".npy": _whole(parse_npy),
    ".npz": _whole(parse_npz),
    ".h5": parse_hdf5,
    ".hdf5": parse_hdf5,
    ".hdf": parse_hdf5,
}
SUFFIXES = tuple(PARSERS)


class DatasetNotFoundError(PointCloudFileError):
    """A folder in which there is nothing of the data set it should hold."""


class PointCloud(NamedTuple):
    """The N points of one file, in the library's frame (z up, right-handed), and what belongs to each of them."""

    points: NDArray[Any]  # (N, 3) float32, or float64 where `read_cloud` was asked for that; in the file's unit
    normals: NDArray[np.float32] | None  # (N, 3), of length 1 or 0
    colors: NDArray[np.float32] | None  # (N, 3), red, green and blue in [0, 1]
    labels: NDArray[np.int64] | None  # (N,)


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
) -> PointCloud:
    """The points of any file, with their normals, colours and labels where it has some.

    Args:
        path: a file whose suffix says what it is, in any case: OFF, PLY, OBJ, STL, GLB, GLTF, PCD, NPY, NPZ, HDF5, or
            text (XYZ, TXT, CSV, PTS, ASC). No other file is opened, whatever it refers to.
        num_points: N. A mesh gives that many, drawn uniformly by area, with the normals of its faces; None:
            `mesh_points`. A cloud gives that many of its rows, drawn without replacement, or all in order if it has no
            more; None: all.
        seed: of both draws.
        up: the file's up axis, "z" or "y" (turned by a quarter about x). None: y for GLB and GLTF, as their
            standard has it, and z for all else.
        repeat: a cloud of fewer points than asked for gives each of them as often as it takes, in shuffled order;
            else it is refused.
        normalize: bring the file's vertices to the middle and to coordinates of at most 1 first, in float64, so that a
            survey's easting of half a million metres leaves the shape its digits.
        extras: what else is wanted, of "normals", "colors" and "labels"; the rest is None, and takes no memory.
        precise: coordinates as float64, with all digits that the file has.
        mesh_points: N of a mesh, where `num_points` is None.

    Rows of a cloud, and faces of a mesh, whose coordinates are not finite are left out.

    Raises:
        PointCloudFileError: the file is missing, damaged, of an unknown kind, empty, or a cloud of fewer points.
        ValueError: an argument outside the values above.
    """
    path = Path(path)
    generator = _generator(num_points, seed, up)
    with _door(path):
        is_turned = up_of(path, up) == "y"
        contents = _contents(path, extras)
        if contents.faces is not None:
            num_points = num_points or mesh_points
        return _made(contents, num_points, generator, is_turned, repeat, normalize, extras, precise)


def cloud_of(
    rows: NDArray[Any],
    num_points: int | None = None,
    seed: int = 0,
    up: str | None = None,
    repeat: bool = False,
    normalize: bool = False,
    precise: bool = False,
) -> PointCloud:
    """What `read_cloud` gives of a file of these rows: points (N, 3), or points and normals (N, 6).

    Raises:
        ValueError: they are of another shape, no numbers, or what a file is refused for; an argument outside
            `read_cloud`'s.
    """
    generator = _generator(num_points, seed, up)
    if rows.ndim != 2 or rows.shape[1] not in (3, 6) or not len(rows) or rows.dtype.kind not in "fiu":
        wanted = "numbers (N, 3), or (N, 6) with normals"
        raise ValueError(f"points must be {wanted}, got {rows.dtype} {tuple(rows.shape)}")
    contents = Contents(rows[:, :3], normals=rows[:, 3:] if rows.shape[1] == 6 else None)
    try:
        with np.errstate(all="ignore"):
            return _made(contents, num_points, generator, up == "y", repeat, normalize, EXTRAS, precise)
    except Refusal as refusal:
        raise ValueError(f"points {tuple(rows.shape)}: {refusal}") from refusal


def _generator(num_points: int | None, seed: int, up: str | None) -> np.random.Generator:
    """What draws, once the arguments are found to be right."""
    if num_points is not None and num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    check_up(up)
    return np.random.default_rng(seed)


def _made(
    contents: Contents,
    num_points: int | None,
    generator: np.random.Generator,
    is_turned: bool,
    repeat: bool,
    normalize: bool,
    extras: Extras,
    precise: bool,
) -> PointCloud:
    """What a file holds as it is asked for; the arguments are those of `read_cloud`."""
    whole, is_mesh = contents.vertices, contents.faces is not None
    finite = _finite_rows(whole, np.float64 if normalize else np.float32)
    if not is_mesh:  # drawn before anything else is done to them, since that takes memory
        contents = _rows(contents, _drawn(finite, num_points, generator, repeat))
    if normalize and finite.any():
        middle, half = middle_and_half_extent(whole if finite.all() else whole[finite])
        contents = contents._replace(vertices=(contents.vertices.astype(np.float64) - middle) / half)
    dtype = np.float64 if precise else np.float32
    count = num_points or NUM_POINTS
    cloud = _sampled(contents, count, generator, extras, dtype) if is_mesh else _as_cloud(contents, dtype)
    return turned(cloud) if is_turned else cloud


def read_points(
    path: str | os.PathLike[str],
    num_points: int | None = None,
    seed: int = 0,
    normals: bool = False,
    up: str | None = None,
) -> NDArray[np.float32]:
    """`read_cloud`'s points alone, (N, 3), or with their normals, (N, 6).

    Raises:
        PointCloudFileError: as `read_cloud`, or the file has no normals and they are asked for.
        ValueError: an argument outside `read_cloud`'s.
    """
    cloud = read_cloud(path, num_points, seed, up, extras=("normals",) if normals else ())
    if not normals:
        return cloud.points
    if cloud.normals is None:
        raise PointCloudFileError(path, "has no normals")
    return np.hstack([cloud.points, cloud.normals])


def files_in(path: Path) -> list[Path]:
    """The file itself, or all files of points below a folder, sorted by path; hidden files and folders are skipped."""
    if not os.path.isdir(path):  # unlike Path.is_dir, False and no error where the name is too long
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(name.startswith(".") for name in file.relative_to(path).parts)
        and file.is_file()
    )


def read_table(path: str | os.PathLike[str], columns: int, mended: bytes | None = None) -> Array:
    """The rows of an NPY file or else a text, of so many numbers each, of which nothing is guessed: (N, columns).

    Args:
        mended: what each of the 256 bytes of a text is read as; None for itself.

    Raises:
        PointCloudFileError: the file is missing, empty, damaged, or not such a table.
    """
    path = Path(path)
    with _door(path):
        _check_file(path)
        data = path.read_bytes()
        is_text = path.suffix.lower() != ".npy"
        table = parse_table(data.translate(mended) if mended else data) if is_text else parse_npy_table(data)
        if not table.size:
            raise Refusal("holds no points")
        if table.shape[1] != columns:
            raise Refusal(f"must have {columns} numbers a row, got {table.shape[1]}")
        return table


def checked_labels(path: Path, what: str, labels: Array, count: int) -> NDArray[np.int64]:
    """Labels of any type and shape, as read from a file, as int64.

    Raises:
        PointCloudFileError: they are not whole numbers from 0 to below `count`.
    """
    right = (labels >= 0) & (labels < count) & (labels == np.rint(labels))
    if not right.all():
        reason = f"{what} must be whole numbers from 0 to {count - 1}, got {labels[~right][0]:g}"
        raise PointCloudFileError(path, reason)
    return labels.astype(np.int64)


@contextmanager
def _door(path: Path) -> Iterator[None]:
    """Turns whatever is raised inside into one line with the path, and warnings into nothing."""
    try:
        # Libraries warn of what they mend or leave out; what matters here is what comes out.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except PointCloudFileError:
        raise
    except Refusal as refusal:
        raise PointCloudFileError(path, _one_line(str(refusal))) from (refusal.__cause__ or refusal)
    except Exception as error:  # a parser's, a library's: which ones they raise is not theirs to promise
        raise PointCloudFileError(path, _one_line(_reason(error, path))) from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    kind = path.suffix.lstrip(".").upper()
    return f"is not a readable {kind} file (damaged, cut short or of another format): {type(error).__name__}: {error}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."


def _contents(path: Path, extras: Extras = EXTRAS) -> Contents:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(kind.lstrip(".").upper() for kind in SUFFIXES)
        raise Refusal(f"its suffix must be one of {known}, got {path.suffix or 'none'}")
    _check_file(path)
    contents = PARSERS[suffix](path, extras)
    if not len(contents.vertices):
        raise Refusal("holds no points")
    return contents


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise Refusal("is a folder, not a file" if path.is_dir() else "no such file")
    if path.stat().st_size == 0:
        raise Refusal("is empty")


def _sampled(
    mesh: Contents, count: int, generator: np.random.Generator, extras: Extras, dtype: type[np.floating]
) -> PointCloud:
    """Points drawn from a mesh by area, each with its face's normal if those are wanted."""
    faces, face_colors = mesh.faces, mesh.face_colors
    assert faces is not None
    vertices, finite = mesh.vertices, np.all(np.isfinite(mesh.vertices), axis=1)
    if not finite.all():
        kept = np.all(finite[faces], axis=1)
        faces, face_colors = faces[kept], face_colors if face_colors is None else face_colors[kept]
        vertices = np.where(finite[:, None], vertices, 0)
        if not len(faces):
            raise Refusal("has no face with coordinates that are finite")
    try:
        face, weights = draw_on_surface(vertices, faces, count, generator)
    except ValueError as error:
        raise Refusal(str(error)) from error
    corners = faces[face]
    colors = mesh.colors
    if colors is not None:
        colors = interpolate(colors, corners, weights)
    elif face_colors is not None:
        colors = face_colors[face].astype(np.float32)
    points = _checked(interpolate(vertices, corners, weights, dtype))
    return PointCloud(points, normals_of_faces(vertices, corners) if "normals" in extras else None, colors, None)


def _finite_rows(vertices: Array, dtype: type[np.floating]) -> NDArray[np.bool_]:
    """(N,) whether all coordinates of a row are finite in this type."""
    blocks = (vertices[start : start + BLOCK] for start in range(0, len(vertices), BLOCK))
    return np.concatenate([np.isfinite(block.astype(dtype, copy=False)).all(1) for block in blocks])


def _drawn(
    finite: NDArray[np.bool_], count: int | None, generator: np.random.Generator, repeat: bool
) -> slice | NDArray[np.integer]:
    """`count` of the finite rows, or all; with `repeat` always shuffled, so that any of them are a fair sample."""
    there = int(finite.sum())
    if not there:
        raise Refusal("has no point whose coordinates are finite")
    if count is None or (count == there and not repeat):
        return slice(None) if finite.all() else np.flatnonzero(finite)
    if count > there and not repeat:
        raise Refusal(f"has {there} points, fewer than num_points={count}")
    rows = np.empty(count, np.int64)  # at once: a count that memory does not hold is refused, and not approached
    for start in range(0, count, there):
        rows[start : start + there] = generator.permutation(there)[: count - start]
    return rows if finite.all() else np.flatnonzero(finite)[rows]


def _rows(cloud: Contents, kept: slice | NDArray[np.integer]) -> Contents:
    normals, colors, labels = cloud.normals, cloud.colors, cloud.labels
    return Contents(
        cloud.vertices[kept],
        normals=None if normals is None else normals[kept],
        colors=None if colors is None else colors[kept],
        labels=None if labels is None else labels[kept],
    )


def _as_cloud(contents: Contents, dtype: type[np.floating]) -> PointCloud:
    """A cloud in the types of the library, its coordinates in this one."""
    normals, colors, labels = contents.normals, contents.colors, contents.labels
    return PointCloud(
        contents.vertices.astype(dtype),
        None if normals is None else unit_or_zero(normals),
        None if colors is None else colors.astype(np.float32),
        None if labels is None else labels.astype(np.int64),
    )


def _checked(points: NDArray[np.floating]) -> NDArray[np.floating]:
    if not _finite_rows(points, np.float32).all():
        raise Refusal("has coordinates too large for 32 bits")
    return points


def turned(cloud: PointCloud) -> PointCloud:
    """A cloud with y up, rotated into the library's frame."""
    normals = None if cloud.normals is None else rotated_y_up_to_z_up(cloud.normals)
    return cloud._replace(points=rotated_y_up_to_z_up(cloud.points), normals=normals)
