"""A data set without a download: 16 classes of furniture and vessels, made from boxes and lathed solids."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pointnet.files import check_regular, write_atomically
from pointnet.points.frame import in_unit_sphere

from .clouds import UNIT_SPHERE, LabelledClouds, LabelledPoints
from .given import check_num_points, check_one_of
from .shape_classes import BUILDERS, PART_NAMES, make_shape

if TYPE_CHECKING:  # trimesh takes half a second to import, and is not needed where the clouds are cached
    from trimesh import Trimesh

NUM_POINTS = 2048
COUNTS = {"train": 80, "test": 25}  # shapes per class
FOLDER, MADE = "shapes", re.compile(r"(?:train|test)-[0-9a-f]{8}\.npz")  # where the clouds are kept


class Shapes(LabelledClouds):
    """The embedded data set, 80 training and 25 test shapes per class: `data[i]` -> ((3, N) float32, int).

    Args:
        root: where data sets live; the clouds are made once, in seconds, and kept in `root/shapes/` if that can be
            written.
        split: "train" or "test".
        num_points: N, at most 2,048: the first of each cloud's points, which are in random order.

    The 2,048 points of a shape are drawn uniformly from its surface, centred and scaled to the unit sphere.
    `data.parts` (S, N) int64 is the part that each point lies on, as an index into `data.part_names`, "chair/leg".
    Where parts touch or overlap it is the last of them, so that points at one place have one label.

    Raises:
        ValueError: another split or number of points.
    """

    scale = UNIT_SPHERE

    def __init__(self, root: str | os.PathLike[str] = "data", split: str = "train", num_points: int = 1024):
        check_one_of("split", split, tuple(COUNTS))
        check_num_points(num_points, NUM_POINTS)
        points, parts = _cached(Path(root) / FOLDER / f"{split}-{_digest()}.npz", split)
        labels = torch.arange(len(BUILDERS)).repeat_interleave(COUNTS[split])
        super().__init__(torch.from_numpy(points[:, :, :num_points].copy()), labels, tuple(BUILDERS))
        self.parts = torch.from_numpy(parts[:, :num_points].astype(np.int64))
        self.part_names = tuple(PART_NAMES)

    def keep(self, indices: Tensor) -> None:
        super().keep(indices)
        self.parts = self.parts[indices]


class ShapeParts(LabelledPoints):
    """What `shape_parts` makes: a data set of the library, whose hash is that of first points, as figures name it."""


def shape_parts(root: str | os.PathLike[str] = "data", split: str = "train", num_points: int = 1024) -> LabelledPoints:
    """`Shapes` for part segmentation: `data[i]` -> ((3, N) float32, (N,) int64, int).

    All 2,048 points of a shape are kept; N are the first of them. Vases and half of the bottles, bowls, cones and cups
    have one part; nearly all other shapes have several.

    Raises:
        ValueError: another split or number of points.
    """
    shapes = Shapes(root, split, NUM_POINTS)
    of_class = [name.split("/")[0] for name in PART_NAMES]
    parts_of = torch.tensor([[name == owner for owner in of_class] for name in shapes.classes])
    points = torch.cat([shapes.points, shapes.parts[:, None].float()], 1)
    return ShapeParts(points, shapes.labels, shapes.classes, PART_NAMES, parts_of, num_points)


def is_made(file: Path) -> bool:
    """Whether a file is one that the clouds are kept in, by its name."""
    return file.parent.name == FOLDER and MADE.fullmatch(file.name) is not None


def shape_generator(split: str, name: str, index: int) -> Generator:
    """A generator for one shape alone, so that no shape depends on which others are made, or in which order."""
    return np.random.default_rng([*f"{split}/{name}/{index}".encode()])


def sample_cloud(mesh: Trimesh, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """2,048 points drawn uniformly from a mesh, centred, scaled to the unit sphere, and their faces: (N, 3), (N,)."""
    points, faces = _sample(mesh, rng)
    return in_unit_sphere(points).astype(np.float32), faces


def _sample(mesh: Trimesh, rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points on a mesh and their faces. By trimesh, whose draws are other than ours and make the set what it is."""
    from trimesh.sample import sample_surface

    points, faces = sample_surface(mesh, NUM_POINTS, seed=rng)
    return np.asarray(points), faces


def parts_at(
    points: NDArray[np.float64], faces: NDArray[np.integer], mesh: Trimesh, parts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The part of each point (N, 3) that lies on the faces (N,) of a mesh whose faces (F,) have these parts: (N,).

    It is the part of its face, or the last part that contains a place just off the point on either side of the face.
    """
    chosen = parts[faces]
    off = 1e-4 * mesh.face_normals[faces]
    for part in np.unique(parts):
        triangles = mesh.triangles[parts == part]
        low, high = triangles.min((0, 1)) - 1e-3, triangles.max((0, 1)) + 1e-3
        near = np.flatnonzero((chosen < part) & ((points > low) & (points < high)).all(1))
        touched = inside(points[near] + off[near], triangles) | inside(points[near] - off[near], triangles)
        chosen[near[touched]] = part
    return chosen


def inside(points: NDArray[np.float64], triangles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points (n, 3) are inside closed surfaces (F, 3, 3) that face outwards and may overlap: (n,).

    A ray upwards leaves every solid that it enters, and once more each solid that it starts in.
    """
    slant = (0.31, 0.49)  # so that the ray runs along no edge of a box
    x, y = (points[:, :2] - points[:, 2:] * slant).T[:, :, None]
    corners = triangles[:, :, :2] - triangles[:, :, 2:] * slant
    areas = []  # twice the signed areas of the triangles between the ray and each side, seen along the ray
    for i in range(3):
        (ax, ay), (bx, by) = corners[:, i].T, corners[:, (i + 1) % 3].T
        areas.append((bx - ax) * (y - ay) - (by - ay) * (x - ax))
    point, face = np.nonzero(np.all(np.greater(areas, 0), 0) | np.all(np.less(areas, 0), 0))
    weights = np.stack([area[point, face] for area in areas])
    heights = (weights[[1, 2, 0]] * triangles[face, :, 2].T).sum(0) / weights.sum(0)
    leaves = np.sign(weights[0]) * (heights > points[point, 2])
    return np.bincount(point, leaves, len(points)) > 0.5


def _generate(split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """All clouds of a split and their parts: (S, 3, N), (S, N)."""
    clouds, parts = [], []
    for name in BUILDERS:
        for index in range(COUNTS[split]):
            rng = shape_generator(split, name, index)
            mesh, face_parts = make_shape(name, rng)
            points, faces = _sample(mesh, rng)
            clouds.append(in_unit_sphere(points).astype(np.float32).T)
            parts.append(parts_at(points, faces, mesh, face_parts).astype(np.uint8))
    return np.stack(clouds), np.stack(parts)


def _digest() -> str:
    """Names what is generated: it changes with the code, and with the library that makes the meshes."""
    files = (Path(__file__).with_name(f"{name}.py") for name in ("solids", "shape_classes", "shapes"))
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(code + version("trimesh").encode()).hexdigest()[:8]


def _cached(path: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """`_generate(split)`, from the file at `path` if it holds that; else made and written there."""
    try:
        # Opened here because np.load leaves a damaged archive open.
        check_regular(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            points, parts = file["points"], file["parts"]
        if points.shape == (len(BUILDERS) * COUNTS[split], 3, NUM_POINTS) and parts.shape == points[:, 0].shape:
            return points, parts
    except Exception:  # absent or damaged, in any of the ways an archive can be: the remedy is the same
        pass
    points, parts = _generate(split)
    buffer = io.BytesIO()
    np.savez(buffer, points=points, parts=parts)
    with contextlib.suppress(OSError):  # on a full or read-only disk the next run makes them again, in seconds
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    return points, parts
