"""Points drawn from surfaces, uniformly by area."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Faces whose areas are found at once: what is held beside them stays small, however large the mesh.
BLOCK = 1 << 15


def seed_of(name: str) -> int:
    """The seed of what is drawn from something of this name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4], "big")


def sample_surface(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], count: int, generator: Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points drawn uniformly from the triangles (F, 3) over vertices (V, 3).

    Returns:
        (count, 3) float32, and (count,) the face each lies on; a face without area is never drawn.

    Raises:
        ValueError: no face has an area.
    """
    face, weights = draw_on_surface(vertices, faces, count, generator)
    return interpolate(vertices, faces[face], weights), face


def draw_on_surface(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], count: int, generator: Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places drawn uniformly from a surface: -> (count,) faces, (count, 3) barycentric weights."""
    cumulative = np.cumsum(_doubled_areas(vertices, faces))
    if not len(cumulative) or not cumulative[-1] > 0:
        raise ValueError("no face has an area to draw points from")
    # "right": a face without area adds nothing, so no number falls to it; the whole sum may be met by rounding.
    face = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    face = np.minimum(face, np.searchsorted(cumulative, cumulative[-1]))
    across, along = generator.random((2, count))
    outside = across + along > 1  # the other half of the parallelogram, turned back onto the triangle
    across[outside], along[outside] = 1 - across[outside], 1 - along[outside]
    return face, np.stack([1 - across - along, across, along], axis=1)


def interpolate(
    values: NDArray[np.floating],
    corners: NDArray[np.integer],
    weights: NDArray[np.float64],
    dtype: type[np.floating] = np.float32,
) -> NDArray[Any]:
    """Vertices' values (V, 3) at places given by their corners (n, 3) and weights (n, 3): -> (n, 3)."""
    mixed = np.einsum("nk,nkc->nc", weights, values[corners].astype(np.float64))
    with np.errstate(over="ignore"):  # what is too large for float32 is not finite, and told by whoever asked
        return mixed.astype(dtype)


def normals_of_faces(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float32]:
    """Unit normals (F, 3) of triangles, counter-clockwise seen from outside; 0 where there is no area."""
    corners = vertices[faces].astype(np.float64)
    corners = corners / (np.abs(corners).max(initial=0) or 1.0)
    return unit_or_zero(_crossed(corners.reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)))


def unit_or_zero(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors (n, 3) at length 1; 0 where they have none, or are not finite."""
    vectors = np.where(np.isfinite(vectors).all(1, keepdims=True), vectors, 0).astype(np.float64)
    largest = np.abs(vectors).max(1, keepdims=True, initial=0)
    vectors = np.divide(vectors, largest, out=np.zeros_like(vectors), where=largest > 0)  # so that squares are in range
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=vectors, where=length > 0).astype(np.float32)


def _doubled_areas(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Twice the area of each face, up to one factor for all."""
    # In a unit that keeps products from overflow and underflow.
    vertices = vertices.astype(np.float64) / (float(np.abs(vertices).max(initial=0)) or 1.0)
    blocks = [_crossed(vertices, faces[i : i + BLOCK]) for i in range(0, len(faces), BLOCK)]
    return np.concatenate([np.sqrt(np.einsum("ij,ij->i", block, block)) for block in blocks] or [np.empty(0)])


def _crossed(vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """The cross product of two sides of each face: (F, 3)."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
    return np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], axis=1)
