"""Points drawn from surfaces, uniformly by area."""

import hashlib
import math
import os
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .frame import middle_and_half_extent

KEPT = 4096  # points drawn from each file; training resamples them, and another num_points draws no file again
# Faces whose areas are computed at once, and vectors, so that temporary arrays stay small, however large the mesh.
BLOCK = 1 << 15
FAR = 16  # from the origin, in half the longest side of the box


def seed_of(name: str) -> int:
    """A seed made from a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4], "big")


def draw_on_surface(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], count: int, generator: Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places drawn uniformly by area from the triangles (F, 3) over vertices (V, 3).

    Returns:
        (count,) the face of each place, never one without area, and (count, 3) its barycentric weights.

    Raises:
        ValueError: no face has an area.
    """
    cumulative = np.cumsum(doubled_areas(vertices, faces))
    if not len(cumulative) or not cumulative[-1] > 0:
        raise ValueError("no face has an area to draw points from")
    # "right", so that no number falls to a face without area; rounding may reach the whole sum.
    face = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    face = np.minimum(face, np.searchsorted(cumulative, cumulative[-1]))
    across, along = generator.random((2, count))
    outside = across + along > 1  # the other half of the parallelogram, rotated back onto the triangle
    across[outside], along[outside] = 1 - across[outside], 1 - along[outside]
    return face, np.stack([1 - across - along, across, along], axis=1)


def between_corners(
    values: NDArray[np.floating],
    corners: NDArray[np.integer],
    weights: NDArray[np.float64],
    dtype: type[np.floating] = np.float32,
) -> NDArray[Any]:
    """Vertices' values (V, 3) at places with these corners (n, 3) and weights (n, 3): (n, 3)."""
    mixed = np.einsum("nk,nkc->nc", weights, values[corners].astype(np.float64))
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the caller checks
        return mixed.astype(dtype)


def normals_of_faces(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float32]:
    """Unit normals (F, 3) of triangles, counter-clockwise seen from outside; 0 where a triangle has no area."""
    corners = _scaled(vertices[faces].reshape(-1, 3))
    return unit_or_zero(crossed(corners, np.arange(3 * len(faces)).reshape(-1, 3)))


def unit_or_zero(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors (n, 3) scaled to length 1; 0 where the length is 0 or not finite."""
    units = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), BLOCK):
        some = vectors[start : start + BLOCK]
        some = np.where(np.isfinite(some).all(1, keepdims=True), some, 0).astype(np.float64)
        largest = np.abs(some).max(1, keepdims=True, initial=0)
        some = np.divide(some, largest, out=np.zeros_like(some), where=largest > 0)  # keeps squares in range
        length = np.linalg.norm(some, axis=1, keepdims=True)
        units[start : start + BLOCK] = np.divide(some, length, out=some, where=length > 0)
    return units


def doubled_areas(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Twice the area of each face, times one factor common to all: (F,)."""
    vertices = _scaled(vertices)
    blocks = [crossed(vertices, faces[i : i + BLOCK]) for i in range(0, len(faces), BLOCK)]
    return np.concatenate([np.sqrt(np.einsum("ij,ij->i", block, block)) for block in blocks] or [np.empty(0)])


def _scaled(vertices: NDArray[np.floating]) -> NDArray[np.float64]:
    """Vertices in a unit in which products neither overflow nor underflow.

    Far from the origin it is a power of two: no digit is lost, and faces have the sides that they have near it.
    Near it any unit is exact enough, and the largest coordinate stays, so that the same points as ever are drawn.
    """
    unit = float(np.abs(vertices).max(initial=0)) or 1.0
    if len(vertices) and unit > FAR * middle_and_half_extent(vertices)[1]:
        unit = math.ldexp(1.0, math.frexp(unit)[1] - 1)
    return vertices.astype(np.float64) / unit


def crossed(vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """The cross product of two sides of each face: (F, 3)."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
    return np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], axis=1)
