"""Polygons as files hold them, cut into triangles."""

import contextlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Refusal
from ..sampling import crossed
from .contents import Array, Budget, Contents, Extras, wants_all
from .ears import cut_ears, runs
from .scan import blocks_of_lines, numbers, words_per_line
from .values import as_labels, as_unit_colors

Indices = NDArray[np.int64]

ROW = 24  # bytes that a polygon counts for, and a triangle
BLOCK = 1 << 14  # corners of polygons that are cut together, so that temporary arrays stay small
FOLDED = 1e-6  # the share of a polygon's area that its triangles may cover twice, as rounded coordinates make them
# Polygons of more corners stay fans, and all do after so many tests of ears, which take a few seconds.
MOST_CORNERS, MOST_TESTS = 1 << 15, 60_000_000


class Polygons(NamedTuple):
    """P polygons of any size."""

    corners: Array  # vertex indices, one polygon after another
    sizes: Array  # (P,)
    others: Array | None = None  # (P, K) the other numbers of each, where all have the same count
    is_mixed: bool = False  # whether they have not


def polygons_of_text(text: bytes, count: int) -> Polygons:
    """`count` polygons from lines `n i_1 ... i_n`, with any number of numbers behind.

    Raises:
        Refusal: another number of lines, or a line shorter than it declares.
    """
    with contextlib.suppress(Refusal):  # the fast path for lines `3 a b c` alone
        flat = numbers(text, np.int64)
        if flat.size == 4 * count and (flat[::4] == 3).all():
            return Polygons(flat.reshape(count, 4)[:, 1:].reshape(-1), np.full(count, 3))
    blocks = [_polygons_of_block(block) for block in blocks_of_lines(text)]
    corners, sizes = (np.concatenate([block[i] for block in blocks] or [np.empty(0, int)]) for i in (0, 1))
    if len(sizes) != count:
        raise Refusal(f"declares {count} faces, holds {len(sizes)} lines of them")
    others = [block.others for block in blocks if block.others is not None]
    alike = len(others) == len(blocks) and len({len(rows.T) for rows in others}) == 1
    return Polygons(corners, sizes, np.concatenate(others) if alike else None, not alike)


def _polygons_of_block(text: bytes) -> Polygons:
    values, words = numbers(text), words_per_line(text)
    words = words[words > 0]
    first = np.cumsum(words) - words
    sizes = values[first]
    fits = (sizes >= 0) & (sizes == np.rint(sizes)) & (1 + sizes <= words)
    if not fits.all():
        wrong = int(np.argmin(fits))
        raise Refusal(f"a face declares {sizes[wrong]:g} corners and has {words[wrong] - 1} numbers behind")
    sizes = sizes.astype(np.int64)
    place = np.arange(len(values)) - np.repeat(first, words)
    is_corner = (place > 0) & (place <= np.repeat(sizes, words))
    rest = words - 1 - sizes
    alike = len(rest) and (rest == rest[0]).all()
    others = values[~is_corner & (place > 0)].reshape(len(words), rest[0]) if alike else None
    return Polygons(whole_corners(values[is_corner]), sizes, others)


def whole_corners(values: Array) -> Indices:
    """The vertices that faces name, as int64. Raises Refusal where one is no whole number."""
    wrong = values != np.rint(values)
    if wrong.any():
        raise Refusal(f"a face names vertex {values[wrong][0]:g}")
    return values.astype(np.int64)


def with_faces(
    contents: Contents,
    polygons: Polygons,
    extras: Extras,
    budget: Budget,
    colors: Array | None = None,
    labels: Array | None = None,
    counted_from: int = 0,
) -> Contents:
    """Contents with polygons cut into triangles; `colors` (P, 3 or more) and `labels` (P,) are the file's for these.

    What vertices have of them counts, which a note says; and if all extras are wanted, one counts the vertices in no
    triangle, on which no point is drawn.

    Raises:
        Refusal: as `check_corners`, or more triangles than the budget allows.
    """
    check_corners(polygons.corners, len(contents.vertices), counted_from)
    budget.charge("the triangles of its faces", ROW * int(np.maximum(polygons.sizes - 2, 0).sum()))
    faces, polygon, notes = triangles_of(polygons, contents.vertices)
    if contents.colors is not None and colors is not None:
        colors, notes = None, (*notes, "colours of faces left out, since vertices have some")
    if contents.labels is not None and labels is not None:
        labels, notes = None, (*notes, "labels of faces left out, since vertices have some")
    if colors is not None:
        colors, of_colors = as_unit_colors(colors)
        notes = (*notes, *of_colors)
    if labels is not None and (labels := as_labels(labels)) is None:
        notes = (*notes, "labels of faces left out: they are not whole numbers")
    if polygon is not None:
        colors, labels = (None if values is None else values[polygon] for values in (colors, labels))
    if wants_all(extras):
        is_loose = np.ones(len(contents.vertices), bool)
        is_loose[faces] = False
        notes += (f"vertices that are in no face: {is_loose.sum():,}",) * bool(is_loose.any())
    return contents._replace(faces=faces, face_colors=colors, face_labels=labels).noted(*notes)


def triangles_of(polygons: Polygons, vertices: Array) -> tuple[Indices, Indices | None, tuple[str, ...]]:
    """Polygons cut into triangles: fans about their first corner, and where such a fan would fold over itself, ears.

    Returns:
        (F, 3) triangles, n - 2 for each polygon of n corners; (F,) the polygon each comes from, or None where every
        polygon is a triangle; and a note if some are cut otherwise than they should be.
    """
    corners, sizes = polygons[:2]  # of the file's type: as int64 small ones would take eight times as much
    if (sizes == 3).all():
        return corners.reshape(-1, 3).astype(np.int64, copy=False), None, ()
    counts = np.maximum(sizes - 2, 0)
    first_corner, first_face = np.cumsum(sizes) - sizes, np.cumsum(counts) - counts
    faces, origins = np.empty((counts.sum(), 3), np.int64), np.repeat(np.arange(len(sizes)), counts)
    for start in range(0, len(faces), BLOCK):
        polygon = origins[start : start + BLOCK]
        first, step = first_corner[polygon], np.arange(start, start + len(polygon)) - first_face[polygon]
        faces[start : start + BLOCK] = corners[np.stack([first, first + step + 1, first + step + 2], 1)]
    tests, rough = MOST_TESTS, int((sizes > MOST_CORNERS).sum())
    for some in _blocks((sizes > 3) & (sizes <= MOST_CORNERS), sizes):
        folded, normals = _folded(vertices, faces[runs(first_face[some], counts[some])], counts[some])
        if folded.any():
            some = some[folded]
            place, triangles = runs(first_corner[some], sizes[some]), runs(first_face[some], counts[some])
            points = vertices[corners[place]].astype(np.float64)
            cut, made = cut_ears(points, sizes[some], normals[folded], tests)
            faces[triangles] = corners[place[cut]]
            rough += int(_folded(vertices, faces[triangles], counts[some])[0].sum())
            tests -= made
    note = f"polygons cut roughly, since they cross themselves, are not flat or have too many corners: {rough}"
    return faces, origins, (note,) if rough else ()


def _blocks(chosen: NDArray[np.bool_], sizes: Indices) -> list[Indices]:
    """The chosen polygons in blocks of few corners."""
    polygons = np.flatnonzero(chosen)
    return np.split(polygons, np.flatnonzero(np.diff(np.cumsum(sizes[polygons]) // BLOCK)) + 1)


def _folded(vertices: Array, faces: Indices, counts: Indices) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(P,) whether `counts` triangles of a polygon cover more than its area, and (P, 3) its normals, by Newell."""
    polygon = np.repeat(np.arange(len(counts)), counts)
    doubled = crossed(vertices[faces].astype(np.float64).reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))

    def total(values: Array) -> Array:
        return np.bincount(polygon, values, len(counts))

    normals = np.stack([total(axis) for axis in doubled.T], axis=1)
    along = np.einsum("fk,fk->f", doubled, normals[polygon])
    area, covered = np.linalg.norm(normals, axis=1), total(np.linalg.norm(doubled, axis=1))
    return (total(np.abs(along) - along) > FOLDED * area**2) | (area < FOLDED * covered), normals


def check_corners(indices: Array, num_vertices: int, counted_from: int = 0) -> None:
    """Raises Refusal where a face names a vertex that is not there; the message counts as the file does."""
    if indices.size and not 0 <= indices.min() <= indices.max() < num_vertices:
        wrong = int(indices.min() if indices.min() < 0 else indices.max()) + counted_from
        there = f"there are {num_vertices} vertices, counted from {counted_from}"
        raise Refusal(f"a face names vertex {wrong}, but {there}")
