"""ModelNet40 and ModelNet10 (Wu et al., 2015), read into the library's frame and class order."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from .clouds import LabelledClouds
from .readers import PointCloudFileError, read_hdf5

MODELNET40 = tuple(
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot "
    "glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink "
    "sofa stairs stool table tent toilet tv_stand vase wardrobe xbox".split()
)
MODELNET10 = tuple("bathtub bed chair desk dresser monitor night_stand sofa table toilet".split())
HDF5_FOLDER = "modelnet40_ply_hdf5_2048"


class ModelNet(LabelledClouds):
    """ModelNet40, or the ModelNet10 classes of it, in memory: `data[i]` -> ((3, N) float32, int).

    Args:
        root: the set's own folder, or the folder that holds it (`data` for `data/modelnet40_ply_hdf5_2048`).
        split: "train" or "test", as released. "train" is all of it; `split_validation` carves from it.
        num_classes: 40, or 10 for ModelNet10's classes. Labels index the sorted canonical names, `data.classes`,
            even where a folder holds fewer of them.
        num_points: N, the first rows of each shape as released.
        form: "hdf5", the public `modelnet40_ply_hdf5_2048`; None finds it.
        up: how the file's axes become the library's (z up, right-handed). None: as known of the form (the HDF5
            release is the mesh frame with y and z swapped, a mirror image, and is swapped back). "z": taken as
            they are. "y": a right-handed y-up frame, turned by a quarter about x.

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
    ):
        _one_of("split", split, ("train", "test"))
        _one_of("num_classes", num_classes, (40, 10))
        _one_of("form", form, (None, "hdf5"))
        _one_of("up", up, (None, "z", "y"))
        if num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")

        folder = _find_hdf5(Path(root))
        names = _read_lines(folder / "shape_names.txt")
        if unknown := sorted(set(names) - set(MODELNET40)):
            raise PointCloudFileError(folder / "shape_names.txt", f"'{unknown[0]}' is not a class of ModelNet40")
        parts = [_read_part(folder / Path(line).name, len(names), num_points) for line in _part_names(folder, split)]
        points = np.concatenate([points for points, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])

        classes = MODELNET10 if num_classes == 10 else MODELNET40
        canonical = np.array([classes.index(name) if name in classes else -1 for name in names])
        labels = canonical[labels]
        kept = labels >= 0
        if not kept.any():
            raise PointCloudFileError(folder, f"its {split} part holds no shape of ModelNet{num_classes}")
        points = _to_mesh_frame(points[kept], up)
        super().__init__(
            torch.from_numpy(np.ascontiguousarray(points.transpose(0, 2, 1))),
            torch.from_numpy(labels[kept]).long(),
            classes,
        )


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _find_hdf5(root: Path) -> Path:
    if not root.is_dir():
        raise PointCloudFileError(root, "no such folder; --root must name the data set's folder or its parent")
    for folder in (root, root / HDF5_FOLDER, *sorted(root.glob("*/"))):
        if (folder / "shape_names.txt").is_file() and list(folder.glob("ply_data_*.h5")):
            return folder
    raise PointCloudFileError(root, f"holds no ModelNet40: looked for {HDF5_FOLDER}/ with shape_names.txt and *.h5")


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PointCloudFileError(path, f"cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _part_names(folder: Path, split: str) -> list[str]:
    """The files of one split, as its list names them or, where there is no list, as they are found."""
    listing = folder / f"{split}_files.txt"
    names = _read_lines(listing) if listing.is_file() else sorted(p.name for p in folder.glob(f"ply_data_{split}*.h5"))
    if not names:
        raise PointCloudFileError(listing, f"names no file, and there is no ply_data_{split}*.h5 beside it")
    return names


def _read_part(path: Path, num_names: int, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """One HDF5 file: -> points (S, num_points, 3) float32, labels (S,) into shape_names.txt."""
    points, labels = read_hdf5(path, {"data": (None, None, 3), "label": None}, rows=num_points)
    labels = labels.reshape(-1)
    if len(points) != len(labels):
        raise PointCloudFileError(path, f"must have a label for each shape, got {len(points)} and {len(labels)}")
    if points.shape[1] < num_points:
        raise PointCloudFileError(path, f"has {points.shape[1]} points a shape, fewer than num_points={num_points}")
    if labels.dtype.kind not in "iu":
        raise PointCloudFileError(path, f"labels must be integers, got {labels.dtype}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_names:
        raise PointCloudFileError(path, f"labels must be 0 to {num_names - 1}, got {labels.min()} to {labels.max()}")
    with np.errstate(over="ignore"):  # too large for float32 is not finite, which is told next
        points = points.astype(np.float32, copy=False)
    if not np.isfinite(points).all():
        broken = int(np.flatnonzero(~np.isfinite(points).all((1, 2)))[0])
        raise PointCloudFileError(path, f"shape {broken} has coordinates that are not finite")
    return points, labels.astype(np.int64)


def _to_mesh_frame(points: np.ndarray, up: str | None) -> np.ndarray:
    """(S, N, 3) in the file's axes -> (S, N, 3), z up and right-handed."""
    if up == "z":
        return points
    x, y, z = np.moveaxis(points, 2, 0)
    return np.stack([x, z if up is None else -z, y], axis=2)
