"""Boxes, lathed solids and bars, z up, to build shapes from; every one stands on `at`, the centre of its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.random import Generator

if TYPE_CHECKING:  # trimesh takes half a second to import: the functions that need it do so
    from trimesh import Trimesh

Point = tuple[float, float, float]
Profile = Sequence[tuple[float, float]]  # (radius, height), bottom to top


def rotated(mesh: Trimesh, degrees: float, axis: str) -> Trimesh:
    """The mesh itself, rotated about the "x", "y" or "z" axis."""
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
    from trimesh import creation

    mesh = creation.box((wide, deep, high))
    upper = mesh.vertices[:, 2] > 0
    mesh.vertices[upper, :2] *= top
    mesh.vertices[upper, 1] += lean
    return moved(mesh, (at[0], at[1], at[2] + high / 2))


def lathed(profile: Profile, at: Point = (0, 0, 0), sides: int = 20) -> Trimesh:
    """What a lathe makes of a profile of (radius, height), bottom to top; with four sides, a square one."""
    from trimesh import creation

    return moved(rotated(creation.revolve(np.array(profile), sections=sides), 180 / sides, "z"), at)


def post(radius: float, high: float, at: Point = (0, 0, 0), top: float = 1) -> Trimesh:
    """A round post, a disc or a cone, `top` times as thick above as below."""
    return lathed([(0, 0), (radius, 0), (radius * top, high), (0, high)], at)


def vessel(profile: Profile, wall: float = 0.03, sides: int = 20) -> Trimesh:
    """A lathed solid hollowed from above, with walls and a floor of thickness `wall`."""
    inside = [(max(radius - wall, wall / 2), max(height, wall)) for radius, height in reversed(profile)]
    return lathed([(0, 0), *profile, *inside, (0, wall)], sides=sides)


def bar(start: Point, end: Point, thick: float) -> Trimesh:
    """A round bar from one point to another."""
    from trimesh import creation

    mesh: Trimesh = creation.cylinder(radius=thick / 2, segment=(start, end), sections=8)
    return mesh


def ring(radius: float, thick: float, at: Point = (0, 0, 0), upright: bool = False) -> Trimesh:
    """A ring around the z axis, or around y if `upright`, with its centre at `at`."""
    from trimesh import creation

    mesh = creation.torus(radius, thick / 2, major_sections=20, minor_sections=8)
    return moved(rotated(mesh, 90 * upright, "x"), at)


def join(meshes: Sequence[Trimesh]) -> Trimesh:
    """Several meshes as one part."""
    import trimesh.util

    return cast("Trimesh", trimesh.util.concatenate(list(meshes)))


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
