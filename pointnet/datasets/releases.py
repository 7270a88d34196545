"""What the published data sets share: where a release is found, its lists and its HDF5 files."""

import codecs
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointnet.files import AnyPath, read_file
from pointnet.names import no_folder
from pointnet.points.frame import rotated_to_z_up, swapped_y_and_z
from pointnet.points.read import DatasetNotFoundError, PointCloudFileError, checked_labels, read_hdf5

from .given import check_one_of


class Form(NamedTuple):
    """One of the forms that a data set is published in."""

    names: tuple[str, ...]  # patterns of its folder, as released first
    marks: tuple[str, ...]  # patterns: the folder that holds it has something that matches each of them
    read: Callable[..., Any]


def find_release(
    name: str, root: AnyPath, forms: Mapping[str, Form], form: str | None = None, source: str = ""
) -> tuple[Path, Callable[..., Any]]:
    """The folder of a data set, at or directly under `root`, and the `read` of its form: `form`, or the first found.

    Raises:
        DatasetNotFoundError: there is none; the message ends with its `source`.
        ValueError: no such form.
    """
    check_one_of("form", form, (None, *forms))
    root = Path(root)
    if not root.is_dir():
        raise DatasetNotFoundError(root, f"{no_folder(root)}; --root must name the set's folder or its parent{source}")
    wanted = list(forms.values()) if form is None else [forms[form]]
    for kind in wanted:
        for folder in (root, *(path for names in (*kind.names, "*/") for path in sorted(root.glob(names)))):
            if all(any(folder.glob(mark)) for mark in kind.marks):
                return folder, kind.read
    names = " or ".join(f"{name if name in kind.names else kind.names[0]}/" for kind in wanted)
    raise DatasetNotFoundError(root, f"holds no {name}: looked for {names}, here and one folder down{source}")


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8, or in UTF-16 with its mark, stripped, without blank ones."""
    try:
        text = read_file(path)
        is_wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        lines = text.decode("utf-16" if is_wide else "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PointCloudFileError(path, f"cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def listed_files(listing: Path, pattern: str) -> list[Path]:
    """The files beside a list that it names; without a list, those that match the pattern, by their numbers."""
    folder = listing.parent
    if listing.is_file():
        files = [folder / Path(line).name for line in read_lines(listing)]
    else:
        files = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
    if not files:
        raise PointCloudFileError(listing, f"names no file, and there is no {pattern} beside it")
    return files


def check_files_exist(files: Sequence[Path]) -> None:
    """Raises PointCloudFileError for the first of the files that is missing, with how many are."""
    if missing := [file for file in files if not file.is_file()]:
        raise PointCloudFileError(missing[0], f"no such file; {len(missing)} of {len(files)} listed are missing")


def is_plain_name(name: str) -> bool:
    """Whether a name from a list is that of one file or folder: no path that leads elsewhere."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def read_labelled_hdf5(
    path: Path, num_classes: int, num_points: int, normals: bool = False, whole: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first points of the shapes of one HDF5 file and their classes: (S, num_points, 3 or with normals 6), (S,).

    `whole` gives all points of each shape, of which there must be `num_points`. Labels must be below `num_classes`.

    Raises:
        PointCloudFileError: the file is missing, damaged, or not such a file.
    """
    wanted = {"data": (None, None, 3), "label": None} | ({"normal": (None, None, 3)} if normals else {})
    points, labels, *others = read_hdf5(path, wanted, rows=None if whole else num_points)
    labels = checked_labels(path, "labels", labels.reshape(-1), num_classes)
    if len(points) != len(labels):
        raise PointCloudFileError(path, f"must have a label for each shape, got {len(points)} and {len(labels)}")
    if points.shape[1] < num_points:
        raise PointCloudFileError(path, f"has {points.shape[1]} points per shape, fewer than num_points={num_points}")
    for normal in others:
        if normal.shape != points.shape:
            raise PointCloudFileError(path, f"must have a normal for each point, got {normal.shape} and {points.shape}")
        points = np.concatenate([points, normal], axis=2)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is refused below
        points = points.astype(np.float32, copy=False)
    check_finite(path, "shape", points)
    return points, labels


def check_finite(path: Path, what: str, clouds: NDArray[np.floating], first: int = 0) -> None:
    """Raises PointCloudFileError if a cloud or row (S, ...) is not finite, with its number, counted from `first`."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = clouds.sum(dtype=np.float64)  # of finite numbers it is finite, unless they are huge
    if not np.isfinite(total):
        finite = np.isfinite(clouds).reshape(len(clouds), -1).all(1)
        if not finite.all():
            raise PointCloudFileError(path, f"{what} {finite.argmin() + first} holds a number that is not finite")


def to_channels(rows: NDArray[Any], up: str | None) -> NDArray[np.float32]:
    """Rows (S, N, 3 or 6) of HDF5 or text as channels (S, 3 or 6, N) in the library's frame; `up` as in `ModelNet`."""
    channels = np.ascontiguousarray(rows.swapaxes(1, 2), np.float32)
    if up == "z":
        return channels
    rows = channels.swapaxes(1, 2)
    return (rotated_to_z_up(rows, up) if up else swapped_y_and_z(rows)).swapaxes(1, 2)
