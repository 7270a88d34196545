"""ModelNet40 and ModelNet10 (Wu et al., 2015), read into the library's frame and class order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.points.formats.scan import quoted
from pointnet.points.read import DatasetNotFoundError, PointCloudFileError, read_cloud, read_hdf5

from .cache import cached_clouds
from .clouds import LabelledClouds
from .folder import sample_files

MODELNET40 = tuple(
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot "
    "glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink "
    "sofa stairs stool table tent toilet tv_stand vase wardrobe xbox".split()
)
MODELNET10 = tuple("bathtub bed chair desk dresser monitor night_stand sofa table toilet".split())
HDF5_FOLDER = "modelnet40_ply_hdf5_2048"


class ModelNet(LabelledClouds):
    """ModelNet40, or the ModelNet10 classes of it, in any of its three forms: `data[i]` -> ((C, N) float32, int).

    Args:
        root: the set's own folder, or the folder that holds it (`data` for `data/modelnet40_ply_hdf5_2048`).
        split: "train" or "test", as released. "train" is all of it; `split_validation` carves from it.
        num_classes: 40, or 10 for ModelNet10's classes. Labels index the sorted canonical names, `data.classes`,
            even where a folder holds fewer of them.
        num_points: N: the first rows of each shape as released; of a mesh, points drawn from its surface, seeded by
            its file's name, centred and scaled to the unit sphere.
        form: "hdf5", the public `modelnet40_ply_hdf5_2048`; "text", `modelnet40_normal_resampled` of 10,000 points;
            "off", the original meshes. None finds one, in that order. Text and meshes are read once and cached.
        up: how the file's axes become the library's (z up, right-handed). None: as known of the form (HDF5 and text
            are the mesh frame with y and z swapped, a mirror image, and are swapped back). "z": taken as they are.
            "y": a right-handed y-up frame, turned by a quarter about x.
        normals: three channels more, the normals (a mesh's are its faces').

    Raises:
        PointCloudFileError: nothing of the set under `root`, or a file of it is missing, damaged, of the wrong
            shape, holds fewer points than asked for, or none of the classes.
        ValueError: an argument outside the values above.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        num_classes: int = 40,
        num_points: int = 1024,
        form: str | None = None,
        up: str | None = None,
        normals: bool = False,
    ):
        _one_of("split", split, ("train", "test"))
        _one_of("num_classes", num_classes, (40, 10))
        _one_of("form", form, (None, *FORMS))
        _one_of("up", up, (None, "z", "y"))
        if num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        classes = MODELNET10 if num_classes == 10 else MODELNET40
        folder, form = _find(Path(root), FORMS, form, "ModelNet40")
        points, names = FORMS[form].read(folder, split, classes, num_points, up, normals)
        if not names:
            raise PointCloudFileError(folder, f"its {split} part holds no shape of ModelNet{num_classes}")
        labels = torch.tensor([classes.index(name) for name in names])
        super().__init__(torch.from_numpy(points), labels, classes, num_points)


Clouds = tuple[NDArray[np.float32], list[str]]  # (S, C, K), K >= num_points, and the class of each


def _read_hdf5_release(
    folder: Path, split: str, classes: Sequence[str], num_points: int, up: str | None, normals: bool
) -> Clouds:
    names = _read_lines(folder / "shape_names.txt")
    if unknown := sorted(set(names) - set(MODELNET40)):
        raise PointCloudFileError(folder / "shape_names.txt", f"'{unknown[0]}' is not a class of ModelNet40")
    wanted = np.array([name in classes for name in names])
    clouds, labels = [], []
    for line in _part_names(folder / f"{split}_files.txt", f"ply_data_{split}*.h5"):
        rows, of_rows = _read_part(folder / Path(line).name, len(names), num_points, normals)
        kept = wanted[of_rows]
        clouds.append(_to_library_frame(rows if kept.all() else rows[kept], up))
        labels.append(of_rows[kept])
    return np.concatenate(clouds), [names[label] for label in np.concatenate(labels)]


def _read_text_release(
    folder: Path, split: str, classes: Sequence[str], num_points: int, up: str | None, normals: bool
) -> Clouds:
    listing = _text_listing(folder, split)
    names = [name for name in _read_lines(listing) if name.rpartition("_")[0] in classes]
    if outside := [name for name in names if not _is_plain(name)]:
        raise PointCloudFileError(listing, f"must list '<class>_<number>', got {quoted(outside[0])}")
    files = [folder / name.rpartition("_")[0] / f"{name}.txt" for name in names]
    if missing := [file for file in files if not file.is_file()]:
        raise PointCloudFileError(missing[0], f"no such file; {len(missing)} of {len(files)} listed are missing")
    sampler = partial(_released_rows, num_points=num_points, up=up, normals=normals)
    shape = (6 if normals else 3, num_points)
    cached = cached_clouds(files, sampler, shape, f"first rows, up={up}, version 1", folder)
    if cached.bad:
        raise cached.bad[0]
    return cached.points, [name.rpartition("_")[0] for name in names]


def _is_plain(name: str) -> bool:
    """Whether it leads nowhere else."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _read_meshes(
    folder: Path, split: str, classes: Sequence[str], num_points: int, up: str | None, normals: bool
) -> Clouds:
    files = [file for name in classes for file in sorted((folder / name / split).glob("*.off"))]
    cached = sample_files(files, folder, num_points, normals, up)
    if cached.bad:
        raise cached.bad[0]
    return cached.points, [file.parent.parent.name for file in files]


def _released_rows(path: Path, num_points: int, up: str | None, normals: bool) -> NDArray[np.float32]:
    """The first rows of a file of the text release, in the library's frame: (3 or 6, num_points)."""
    cloud = read_cloud(path, up="z")
    if len(cloud.points) < num_points:
        raise PointCloudFileError(path, f"has {len(cloud.points)} points, fewer than num_points={num_points}")
    rows = cloud.points
    if normals:
        if cloud.normals is None:
            raise PointCloudFileError(path, "has no normals")
        rows = np.hstack([rows, cloud.normals])
    return _to_library_frame(rows[None, :num_points], up)[0]


class Form(NamedTuple):
    """One public form of a data set."""

    names: tuple[str, ...]  # of its folder, as released
    found: Callable[[Path], bool]
    read: Callable[..., Any]


def _is_hdf5(folder: Path) -> bool:
    return (folder / "shape_names.txt").is_file() and any(folder.glob("ply_data_*.h5"))


def _is_text(folder: Path) -> bool:
    return any(_text_listing(folder, split).is_file() for split in ("train", "test"))


def _is_meshes(folder: Path) -> bool:
    return any(any((folder / name).glob("t*/*.off")) for name in MODELNET40)


def _text_listing(folder: Path, split: str) -> Path:
    """The list of a split's shapes; that of the 40 classes holds those of the 10."""
    listing = folder / f"modelnet40_{split}.txt"
    return listing if listing.is_file() else folder / f"modelnet10_{split}.txt"


# In the order they are looked for.
FORMS = {
    "hdf5": Form((HDF5_FOLDER,), _is_hdf5, _read_hdf5_release),
    "text": Form(("modelnet40_normal_resampled",), _is_text, _read_text_release),
    "off": Form(("ModelNet40", "ModelNet10"), _is_meshes, _read_meshes),
}


def _find(root: Path, forms: Mapping[str, Form], form: str | None, name: str) -> tuple[Path, str]:
    """The folder of the set of this name, at or under `root`, and its form."""
    if not root.is_dir():
        raise DatasetNotFoundError(root, "no such folder; --root must name the data set's folder or its parent")
    wanted = forms if form is None else {form: forms[form]}
    for key, kind in wanted.items():
        for folder in (root, *(root / known for known in kind.names), *sorted(root.glob("*/"))):
            if kind.found(folder):
                return folder, key
    names = " or ".join(f"{kind.names[0]}/" for kind in wanted.values())
    raise DatasetNotFoundError(root, f"holds no {name}: looked for {names}, here and one folder down")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PointCloudFileError(path, f"cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _part_names(listing: Path, pattern: str) -> list[str]:
    """The files that a list names or, where there is none, those beside it of this pattern, by their number."""
    found = sorted((path.name for path in listing.parent.glob(pattern)), key=lambda name: (len(name), name))
    names = _read_lines(listing) if listing.is_file() else found
    if not names:
        raise PointCloudFileError(listing, f"names no file, and there is no {pattern} beside it")
    return names


def _read_part(
    path: Path, num_names: int, num_points: int, normals: bool = False, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """One HDF5 file: -> points (S, num_points, 3 or 6) float32, all with `whole`; labels (S,) below num_names."""
    wanted = {"data": (None, None, 3), "label": None} | ({"normal": (None, None, 3)} if normals else {})
    points, labels, *others = read_hdf5(path, wanted, rows=None if whole else num_points)
    labels = labels.reshape(-1)
    if len(points) != len(labels):
        raise PointCloudFileError(path, f"must have a label for each shape, got {len(points)} and {len(labels)}")
    if points.shape[1] < num_points:
        raise PointCloudFileError(path, f"has {points.shape[1]} points a shape, fewer than num_points={num_points}")
    if labels.dtype.kind not in "iu":
        raise PointCloudFileError(path, f"labels must be integers, got {labels.dtype}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_names:
        raise PointCloudFileError(path, f"labels must be 0 to {num_names - 1}, got {labels.min()} to {labels.max()}")
    for normal in others:
        if normal.shape != points.shape:
            raise PointCloudFileError(path, f"must have a normal for each point, got {normal.shape} and {points.shape}")
        points = np.concatenate([points, normal], axis=2)
    with np.errstate(over="ignore"):  # too large for float32 is not finite, which is told next
        points = points.astype(np.float32, copy=False)
    if not np.isfinite(points.sum(dtype=np.float64)):  # of float32 numbers only what is not finite is too much for it
        broken = int(np.flatnonzero(~np.isfinite(points).all((1, 2)))[0])
        raise PointCloudFileError(path, f"shape {broken} has coordinates that are not finite")
    return points, labels.astype(np.int64)


def _to_library_frame(rows: np.ndarray, up: str | None) -> NDArray[np.float32]:
    """(S, N, 3 or 6) in the axes of HDF5 and text -> (S, 3 or 6, N), z up and right-handed."""
    channels = np.empty((rows.shape[0], rows.shape[2], rows.shape[1]), np.float32)
    y, z = (1, 2) if up == "z" else (2, 1)
    for triple in range(0, rows.shape[2], 3):  # points, then normals
        for to, of in enumerate((0, y, z)):
            channels[:, triple + to] = rows[:, :, triple + of]
        if up == "y":
            np.negative(channels[:, triple + 1], out=channels[:, triple + 1])
    return channels
