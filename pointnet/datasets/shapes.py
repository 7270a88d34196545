"""A data set without a download: 16 classes of furniture and vessels, made from boxes and turned solids.

The class names are ModelNet40's, so a model trained here names real files too. Each recipe below is one class: it draws
its proportions and optional parts from a generator and yields (part, mesh) pairs, z up, in about metres.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import trimesh.sample
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from trimesh import Trimesh, creation

from pointnet.files import write_atomically

from .clouds import LabelledClouds, LabelledPoints

NUM_POINTS = 2048
COUNTS = {"train": 80, "test": 25}  # shapes a class

Point = tuple[float, float, float]
Profile = Sequence[tuple[float, float]]
Recipe = Callable[[Generator], Iterator[tuple[str, Trimesh]]]
RECIPES: dict[str, Recipe] = {}
PART_NAMES: list[str] = []


def recipe(*parts: str) -> Callable[[Recipe], Recipe]:
    """Registers a function as the recipe of the class it is named after, whose shapes have some of these parts."""

    def register(function: Recipe) -> Recipe:
        RECIPES[function.__name__] = function
        PART_NAMES.extend(f"{function.__name__}/{part}" for part in parts)
        return function

    return register


# The vocabulary. Everything stands on `at`, the centre of its base.


def spun(mesh: Trimesh, degrees: float, axis: str) -> Trimesh:
    """The mesh itself, turned about the "x", "y" or "z" axis."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    pose, angle = np.eye(4), np.radians(degrees)
    pose[[i, j], [i, j]] = np.cos(angle)
    pose[[j, i], [i, j]] = np.sin(angle), -np.sin(angle)
    mesh.apply_transform(pose)
    return mesh


def moved(mesh: Trimesh, by: Point) -> Trimesh:
    """The mesh itself, shifted."""
    mesh.apply_translation(by)
    return mesh


def box(wide: float, deep: float, high: float, at: Point = (0, 0, 0), top: float = 1, lean: float = 0) -> Trimesh:
    """A box whose upper face is `top` times as large and `lean` further back (+y)."""
    mesh = creation.box((wide, deep, high))
    upper = mesh.vertices[:, 2] > 0
    mesh.vertices[upper, :2] *= top
    mesh.vertices[upper, 1] += lean
    return moved(mesh, (at[0], at[1], at[2] + high / 2))


def turned(profile: Profile, at: Point = (0, 0, 0), sides: int = 20) -> Trimesh:
    """What a lathe makes of a profile of (radius, height), bottom to top; with four sides, a square one."""
    return moved(spun(creation.revolve(np.array(profile), sections=sides), 180 / sides, "z"), at)


def post(radius: float, high: float, at: Point = (0, 0, 0), top: float = 1) -> Trimesh:
    """A round post, a disc or a cone, `top` times as thick above as below."""
    return turned([(0, 0), (radius, 0), (radius * top, high), (0, high)], at)


def vessel(profile: Profile, wall: float = 0.03, sides: int = 20) -> Trimesh:
    """A turned solid hollowed from above, with walls and a floor of thickness `wall`."""
    inside = [(max(radius - wall, wall / 2), max(height, wall)) for radius, height in reversed(profile)]
    return turned([(0, 0), *profile, *inside, (0, wall)], sides=sides)


def bar(start: Point, end: Point, thick: float) -> Trimesh:
    """A round bar from one point to another."""
    mesh: Trimesh = creation.cylinder(radius=thick / 2, segment=(start, end), sections=8)
    return mesh


def ring(radius: float, thick: float, at: Point = (0, 0, 0), upright: bool = False) -> Trimesh:
    """A ring around the z axis, or around y if `upright`, with its centre at `at`."""
    mesh = creation.torus(radius, thick / 2, major_sections=20, minor_sections=8)
    return moved(spun(mesh, 90 * upright, "x"), at)


def join(meshes: Sequence[Trimesh]) -> Trimesh:
    """Several meshes as one part."""
    return cast(Trimesh, trimesh.util.concatenate(list(meshes)))


def pair(mesh: Trimesh) -> Trimesh:
    """A mesh and its mirror image across x = 0."""
    return join([mesh, mesh.copy().apply_transform(np.diag((-1, 1, 1, 1)))])


def legs(rng: Generator, wide: float, deep: float, high: float) -> Trimesh:
    """Four legs under the corners of a plate, of any thickness, round or square, straight or splayed."""
    thick, splay = high * rng.uniform(0.06, 0.14), rng.choice((1, 1.25))
    x, y = (wide - thick) / 2, (deep - thick) / 2
    if rng.random() < 0.5:
        return pair(join([box(thick, thick, high, at=(x, -y, 0)), box(thick, thick, high, at=(x, y, 0))]))
    return pair(join([bar((x * splay, s * y * splay, 0), (x, s * y, high), thick) for s in (-1, 1)]))


def pedestal(rng: Generator, wide: float, high: float) -> Trimesh:
    """One post in the middle, on a disc."""
    return join([post(wide * rng.uniform(0.05, 0.1), high), post(wide * rng.uniform(0.3, 0.45), 0.03, top=0.8)])


# The recipes.


@recipe("body", "wing", "tail", "engine")
def airplane(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    long, thick, span, chord, sweep = rng.uniform((1.0, 0.06, 0.4, 0.15, 0.0), (1.4, 0.09, 0.7, 0.25, 0.35))
    nose_up = turned([(0, 0), (thick / 2, 0.04), (thick, 0.25), (thick, 0.8 * long), (0, long)])
    yield "body", spun(nose_up, 90, "x")
    blade = box(0.02, chord, span, at=(0, -0.55 * long, 0), top=rng.uniform(0.4, 0.9), lean=sweep * span)
    yield "wing", pair(spun(blade, 90, "y"))
    fin = box(0.02, 0.7 * chord, 0.4 * span, at=(0, -0.07 * long, 0), top=0.6, lean=0.1)
    yield "tail", fin
    yield "tail", pair(spun(fin.copy(), 90, "y"))
    if rng.random() < 0.6:
        x, y = span * rng.uniform(0.3, 0.5), -0.55 * long - chord / 2
        yield "engine", pair(bar((x, y, -0.05), (x, y + 0.2, -0.05), thick))


@recipe("tub", "foot", "tap")
def bathtub(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    long, deep, slope, wall = rng.uniform((0.7, 0.4, 0.7, 0.04), (1.0, 0.7, 1.0, 0.1))
    tub = vessel([(0.5 * slope, 0), (0.5, 0.45)], wall, sides=rng.choice((4, 8, 24)))
    lift = rng.choice((0, 0.1))
    yield "tub", moved(tub.apply_transform(np.diag((2 * long, 2 * deep, 1, 1))), (0, 0, lift))
    if lift:
        yield "foot", legs(rng, long * slope, deep * slope, lift)
    if rng.random() < 0.5:
        yield "tap", bar((0.45 * long, 0, 0.4), (0.45 * long, 0, 0.65), 0.05)


@recipe("seat", "leg", "back")
def bench(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((1.1, 0.28, 0.36), (1.8, 0.42, 0.5))
    yield "seat", box(wide, deep, rng.uniform(0.03, 0.08), at=(0, 0, high))
    if rng.random() < 0.5:
        yield "leg", pair(box(0.06, deep * 0.9, high, at=(wide * rng.uniform(0.35, 0.45), 0, 0)))
    else:
        yield "leg", legs(rng, wide, deep, high)
    if rng.random() < 0.4:
        rise = rng.uniform(0.25, 0.45)
        for z in np.linspace(high + 0.1, high + rise, rng.integers(2, 4)):
            yield "back", box(wide, 0.03, 0.1, at=(0, deep / 2, z))


@recipe("frame", "shelf", "book")
def bookshelf(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.6, 0.22, 1.0), (1.1, 0.4, 1.9))
    yield "frame", pair(box(0.03, deep, high, at=(wide / 2, 0, 0)))
    if rng.random() < 0.7:
        yield "frame", box(wide, 0.02, high, at=(0, deep / 2, 0))
    heights = np.linspace(0, high - 0.03, rng.integers(3, 8))
    yield "shelf", join([box(wide, deep, 0.03, at=(0, 0, z)) for z in heights])
    for z in heights[:-1]:
        if rng.random() < 0.4:
            size = wide * rng.uniform(0.2, 0.8)
            yield "book", box(size, deep * 0.7, 0.7 * heights[1], at=((wide - size) / 2 * rng.choice((-1, 1)), 0, z))


@recipe("body", "cap")
def bottle(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, shoulder, neck, high = rng.uniform((0.12, 0.35, 0.2, 0.5), (0.22, 0.75, 0.7, 0.9))
    neck, top = radius * neck, high * rng.uniform(shoulder + 0.05, 0.95)
    yield "body", turned([(0, 0), (radius, 0), (radius, high * shoulder), (neck, top), (neck, high), (0, high)])
    if rng.random() < 0.5:
        yield "cap", post(neck * 1.2, 0.06, at=(0, 0, high - 0.02))


@recipe("body", "foot")
def bowl(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, high, flat = rng.uniform((0.3, 0.16, 0.3), (0.5, 0.4, 0.6))
    angles = np.linspace(np.arcsin(flat), np.pi / 2, 6)
    heights = (np.cos(angles[0]) - np.cos(angles)) / np.cos(angles[0])
    yield "body", vessel([(radius * np.sin(a), high * h) for a, h in zip(angles, heights, strict=True)])
    if rng.random() < 0.4:
        yield "foot", post(radius * flat, 0.06, at=(0, 0, -0.05))


@recipe("seat", "leg", "back", "arm")
def chair(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high, rise = rng.uniform((0.4, 0.4, 0.36, 0.25), (0.55, 0.5, 0.5, 0.6))
    lean = rng.uniform(0, 0.12)
    yield "seat", box(wide, deep, rng.uniform(0.03, 0.1), at=(0, 0, high))
    yield "leg", legs(rng, wide, deep, high) if rng.random() < 0.8 else pedestal(rng, wide, high)
    if rng.random() < 0.6:
        yield "back", box(wide, 0.04, rise, at=(0, deep / 2, high), top=rng.uniform(0.8, 1), lean=lean)
    else:
        xs = np.linspace(-0.45, 0.45, rng.integers(3, 6)) * wide
        yield "back", join([bar((x, deep / 2, high), (x, deep / 2 + lean, high + rise), 0.03) for x in xs])
        yield "back", box(wide, 0.04, 0.1, at=(0, deep / 2 + lean, high + rise))
    if rng.random() < 0.35:
        yield "arm", pair(box(0.04, deep, 0.03, at=(wide / 2, 0, high + 0.22)))
        yield "arm", pair(box(0.04, 0.04, 0.22, at=(wide / 2, -deep / 2.5, high)))


@recipe("body", "base")
def cone(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, high, top = rng.uniform((0.15, 0.4, 0.0), (0.4, 0.9, 0.3))
    yield "body", post(radius, high, top=top)
    if rng.random() < 0.5:
        size = 2 * radius * rng.uniform(1.0, 1.4)
        yield "base", box(size, size, 0.04) if rng.random() < 0.5 else post(size / 2, 0.04)


@recipe("body", "handle")
def cup(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, high, slope = rng.uniform((0.16, 0.3, 0.6), (0.28, 0.5, 1.05))
    yield "body", vessel([(radius * slope, 0), (radius * (1 + slope) / 2, high / 2), (radius, high)])
    if rng.random() < 0.5:
        size = high * rng.uniform(0.2, 0.35)
        yield "handle", ring(size, 0.04, at=(radius * (1 + slope) / 2, 0, high / 2), upright=True)


@recipe("top", "leg", "drawer", "panel")
def desk(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.9, 0.5, 0.65), (1.6, 0.8, 0.8))
    yield "top", box(wide, deep, 0.04, at=(0, 0, high))
    side = wide * rng.uniform(0.2, 0.33)
    tall = high * rng.choice((0.4, 0.9))
    chest = box(side, deep * 0.9, tall, at=((wide - side) / 2, 0, high - tall))
    yield "drawer", pair(chest) if rng.random() < 0.5 else chest
    if tall < high / 2 or rng.random() < 0.5:
        yield "leg", legs(rng, wide, deep, high)
    if rng.random() < 0.5:
        yield "panel", box(wide * 0.95, 0.02, high * rng.uniform(0.4, 0.9), at=(0, deep * 0.45, high * 0.1))


@recipe("body", "drawer", "foot")
def dresser(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.7, 0.35, 0.6), (1.3, 0.55, 1.2))
    columns, rows = rng.integers(1, 3), rng.integers(2, 5)
    yield "body", box(wide, deep, high)
    across, up, front = wide / columns, high / rows, -deep / 2
    for x in across * (np.arange(columns) + 0.5) - wide / 2:
        for z in up * np.arange(rows):
            yield "drawer", box(across - 0.04, 0.04, up - 0.04, at=(x, front - 0.02, z + 0.02))
            yield "drawer", bar((x, front, z + up / 2), (x, front - 0.08, z + up / 2), 0.05)  # its knob
    if rng.random() < 0.6:
        yield "foot", moved(legs(rng, wide, deep, 0.15), (0, 0, -0.15))


@recipe("base", "pole", "shade")
def lamp(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    base, high, shade, top, size = rng.uniform((0.1, 0.3, 0.12, 0.4, 0.15), (0.22, 1.2, 0.3, 1.0, 0.35))
    yield "base", post(base, rng.uniform(0.02, 0.12), top=rng.uniform(0.4, 1))
    reach = rng.choice((0, 0.3))
    yield "pole", bar((0, 0, 0), (0, 0, high), 0.03)
    if reach:
        yield "pole", bar((0, 0, high), (reach, 0, high + 0.1), 0.03)
    outer = [(shade, 0), (shade * top, size)]
    inner = [(radius - 0.01, z) for radius, z in reversed(outer)]
    yield "shade", turned([*outer, *inner, outer[0]], at=(reach, 0, high + reach / 3 - size / 2))


@recipe("seat", "back", "arm", "foot")
def sofa(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high, rise, arm = rng.uniform((1.0, 0.6, 0.25, 0.25, 0.08), (2.0, 0.9, 0.42, 0.5, 0.22))
    yield "seat", box(wide, deep, high)
    yield "back", box(wide, 0.2, high + rise, at=(0, deep / 2, 0), lean=rng.uniform(0, 0.1))
    if rng.random() < 0.85:
        yield "arm", pair(box(arm, deep, high + rise * rng.uniform(0.2, 0.8), at=((wide + arm) / 2, 0, 0)))
    if rng.random() < 0.5:
        yield "foot", moved(legs(rng, wide, deep, 0.1), (0, 0, -0.1))


@recipe("seat", "leg", "rung")
def stool(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, high = rng.uniform((0.28, 0.3), (0.5, 0.75))
    thick = rng.uniform(0.03, 0.1)
    at = (0, 0, high)
    yield "seat", post(wide / 2, thick, at) if rng.random() < 0.6 else box(wide, wide, thick, at)
    yield "leg", legs(rng, wide * 0.8, wide * 0.8, high) if rng.random() < 0.7 else pedestal(rng, wide, high)
    if rng.random() < 0.4:
        yield "rung", ring(wide * 0.45, 0.03, at=(0, 0, high * rng.uniform(0.25, 0.5)))


@recipe("top", "leg")
def table(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.55, 0.5, 0.4), (1.6, 0.9, 0.8))
    thick = rng.uniform(0.03, 0.07)
    if rng.random() < 0.35:
        yield "top", post(wide / 2, thick, at=(0, 0, high))
        deep = wide = wide * 0.75
    else:
        yield "top", box(wide, deep, thick, at=(0, 0, high))
    yield "leg", legs(rng, wide, deep, high) if rng.random() < 0.7 else pedestal(rng, deep, high)


@recipe("body")
def vase(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    neck, foot, belly, turns, high = rng.uniform((0.04, 0.0, 0.02, 0.8, 0.4), (0.12, 0.1, 0.12, 1.8, 0.9))
    heights = np.linspace(0, 1, 10)
    radii = neck + foot * (1 - heights) + belly * (1 + np.sin(np.pi * turns * heights))
    yield "body", vessel([(r, high * h) for r, h in zip(radii, heights, strict=True)], 0.02)


def make_shape(name: str, rng: Generator) -> tuple[Trimesh, NDArray[np.int64]]:
    """A random shape of a class: its mesh, z up, and (F,) the part of each face, as an index into `PART_NAMES`.

    Stretched by up to 1.35 along each axis and turned a little about z, so that no proportion tells the class.
    """
    names, meshes = zip(*RECIPES[name](rng), strict=True)
    mesh = join(meshes)
    parts = np.repeat([PART_NAMES.index(f"{name}/{part}") for part in names], [len(mesh.faces) for mesh in meshes])
    mesh.apply_transform(np.diag((*np.exp(rng.uniform(-0.3, 0.3, 3)), 1)))
    return spun(mesh, rng.normal(0, 10), "z"), parts


class Shapes(LabelledClouds):
    """The embedded data set, 80 training and 25 test shapes a class: `data[i]` -> ((3, N) float32, int).

    Args:
        root: where data sets live; made once in seconds, the clouds are kept in `root/shapes/`, if that can be written.
        split: "train" or "test".
        num_points: N, at most 2,048: the first of each cloud's points, which are in random order.

    The 2,048 points of a shape are drawn uniformly from its surface, centred and scaled to the unit sphere.
    `data.parts` (S, N) int64 says which part each point lies on, as an index into `data.part_names`, "chair/leg"; where
    parts touch or one reaches into another, the last of them, so that points at one place have one label.

    Raises:
        ValueError: another split or number of points.
    """

    def __init__(self, root: str | os.PathLike[str] = "data", split: str = "train", num_points: int = 1024):
        if split not in COUNTS:
            raise ValueError(f'split must be "train" or "test", got {split!r}')
        if not 1 <= num_points <= NUM_POINTS:
            raise ValueError(f"num_points must be from 1 to {NUM_POINTS}, got {num_points}")
        points, parts = _cached(Path(root) / "shapes" / f"{split}-{_digest()}.npz", split)
        labels = torch.arange(len(RECIPES)).repeat_interleave(COUNTS[split])
        super().__init__(torch.from_numpy(points[:, :, :num_points].copy()), labels, tuple(RECIPES))
        self.parts = torch.from_numpy(parts[:, :num_points].astype(np.int64))
        self.part_names = tuple(PART_NAMES)

    def _keep(self, indices: Tensor) -> None:
        super()._keep(indices)
        self.parts = self.parts[indices]


def shape_parts(root: str | os.PathLike[str] = "data", split: str = "train", num_points: int = 1024) -> LabelledPoints:
    """`Shapes` for part segmentation: `data[i]` -> ((3, N) float32, (N,) int64, int).

    All 2,048 points of a shape are kept; N are the first of them. A vase has one part, as half of the bottles, bowls,
    cones and cups have; nearly all other shapes have several.

    Raises:
        ValueError: another split or number of points.
    """
    shapes = Shapes(root, split, NUM_POINTS)
    of_class = [name.split("/")[0] for name in PART_NAMES]
    parts_of = torch.tensor([[name == owner for owner in of_class] for name in shapes.classes])
    points = torch.cat([shapes.points, shapes.parts[:, None].float()], 1)
    return LabelledPoints(points, shapes.labels, shapes.classes, PART_NAMES, parts_of, num_points)


def shape_generator(split: str, name: str, index: int) -> Generator:
    """A generator for one shape alone, so that no shape depends on which others are made, or in which order."""
    return np.random.default_rng([*f"{split}/{name}/{index}".encode()])


def sample_cloud(mesh: Trimesh, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """2,048 points drawn uniformly from a mesh, centred, scaled to the unit sphere, and their faces: (N, 3), (N,)."""
    points, faces = trimesh.sample.sample_surface(mesh, NUM_POINTS, seed=rng)
    return _in_unit_sphere(points), faces


def _in_unit_sphere(points: NDArray[np.float64]) -> NDArray[np.float32]:
    points = points - points.mean(0)
    return (points / np.linalg.norm(points, axis=1).max()).astype(np.float32)


def parts_at(
    points: NDArray[np.float64], faces: NDArray[np.integer], mesh: Trimesh, parts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The part of each point (N, 3) on the faces (N,) of a mesh whose faces (F,) are of these parts: (N,).

    That of its face, or of the last part that is on either side of it, a hair's breadth off.
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
    """Whether points (n, 3) are within closed surfaces that face outwards (F, 3, 3), of which some may overlap: (n,).

    A ray upwards leaves every solid that it enters, and those that it starts in once more.
    """
    slant = (0.31, 0.49)  # so that the ray runs along no edge of a box
    x, y = (points[:, :2] - points[:, 2:] * slant).T[:, :, None]
    corners = triangles[:, :, :2] - triangles[:, :, 2:] * slant
    areas = []  # of the triangles between the ray and each side, seen along the ray, twice and with a sign
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
    for name in RECIPES:
        for index in range(COUNTS[split]):
            rng = shape_generator(split, name, index)
            mesh, face_parts = make_shape(name, rng)
            points, faces = trimesh.sample.sample_surface(mesh, NUM_POINTS, seed=rng)
            clouds.append(_in_unit_sphere(points).T)
            parts.append(parts_at(points, faces, mesh, face_parts).astype(np.uint8))
    return np.stack(clouds), np.stack(parts)


def _digest() -> str:
    """Names what is generated: it changes with this file, and with the library that makes the meshes."""
    return hashlib.sha256(Path(__file__).read_bytes() + str(trimesh.__version__).encode()).hexdigest()[:8]


def _cached(path: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """`_generate(split)`, from the file at `path` if it holds that, and otherwise made and left there."""
    try:
        # Opened here because np.load leaves a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            points, parts = file["points"], file["parts"]
        if points.shape == (len(RECIPES) * COUNTS[split], 3, NUM_POINTS) and parts.shape == points[:, 0].shape:
            return points, parts
    except Exception:  # absent or damaged, in any of the ways an archive can be: the remedy is the same
        pass
    points, parts = _generate(split)
    buffer = io.BytesIO()
    np.savez(buffer, points=points, parts=parts)
    with contextlib.suppress(OSError):  # a disk that is full or read-only costs the next run seconds, this one nothing
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    return points, parts
