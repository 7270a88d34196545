"""Polygons as files hold them, cut into triangles."""

import contextlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Refusal
from .columns import as_unit_colors
from .contents import Array, Contents
from .scan import blocks_of_lines, numbers, words_per_line

BLOCK = 1 << 16  # polygons cut at once, so that temporary arrays stay small


class Polygons(NamedTuple):
    """P polygons of any size."""

    corners: Array  # vertex indices, one polygon after another
    sizes: Array  # (P,)
    others: Array | None = None  # (P, K) the other numbers of each, where all have the same count


def polygons_of_text(text: bytes, count: int, before: int = 0) -> Polygons:
    """`count` polygons from lines `n i_1 ... i_n`, with `before` numbers before that and any number behind.

    Raises:
        Refusal: another number of lines, or a line shorter than it declares.
    """
    if before == 0:
        with contextlib.suppress(Refusal):  # the fast path for lines `3 a b c` alone
            flat = numbers(text, np.int64)
            if flat.size == 4 * count and (flat[::4] == 3).all():
                return Polygons(flat.reshape(count, 4)[:, 1:].reshape(-1), np.full(count, 3))
    blocks = [_polygons_of_block(block, before) for block in blocks_of_lines(text)]
    corners, sizes = (np.concatenate([block[i] for block in blocks] or [np.empty(0, int)]) for i in (0, 1))
    if len(sizes) != count:
        raise Refusal(f"declares {count} faces, holds {len(sizes)} lines of them")
    others = [block.others for block in blocks if block.others is not None]
    alike = len(others) == len(blocks) and len({len(rows.T) for rows in others}) == 1
    return Polygons(corners, sizes, np.concatenate(others) if alike else None)


def _polygons_of_block(text: bytes, before: int) -> Polygons:
    text = text if text.endswith(b"\n") else text + b"\n"
    values, words = numbers(text), words_per_line(text)
    words = words[words > 0]
    if (words <= before).any():
        raise Refusal("has a face without its number of corners")
    first = np.cumsum(words) - words
    sizes = values[first + before]
    fits = (sizes >= 0) & (sizes == np.rint(sizes)) & (before + 1 + sizes <= words)
    if not fits.all():
        wrong = int(np.argmin(fits))
        raise Refusal(f"a face declares {sizes[wrong]:g} corners and has {words[wrong] - before - 1} numbers behind")
    sizes = sizes.astype(np.int64)
    position = np.arange(len(values)) - np.repeat(first, words)
    is_corner = (position > before) & (position <= before + np.repeat(sizes, words))
    is_other = ~is_corner & (position != before)
    corners, rest = values[is_corner], words - 1 - sizes
    if (corners != np.rint(corners)).any():
        raise Refusal(f"a face names vertex {corners[corners != np.rint(corners)][0]:g}")
    others = values[is_other].reshape(len(words), rest[0]) if len(rest) and (rest == rest[0]).all() else None
    return Polygons(corners.astype(np.int64), sizes, others)


def with_faces(contents: Contents, polygons: Polygons, colors: Array | None = None) -> Contents:
    """Contents with polygons cut into triangles; `colors` (P, 3 or more) are those of the polygons.

    Raises:
        Refusal: as `fan_triangles`.
    """
    faces, polygon = fan_triangles(polygons, len(contents.vertices))
    if colors is None:
        return contents._replace(faces=faces)
    colors = as_unit_colors(colors)
    return contents._replace(faces=faces, face_colors=colors if polygon is None else colors[polygon])


def fan_triangles(polygons: Polygons, num_vertices: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Polygons cut into fans about their first corner; those of fewer than three corners give no triangle.

    Returns:
        (F, 3) triangles, and (F,) the polygon each comes from, or None where every polygon is a triangle.

    Raises:
        Refusal: a corner is not one of the vertices, which are counted from 0.
    """
    check_indices(polygons.corners, num_vertices)
    corners, sizes = (array.astype(np.int64, copy=False) for array in polygons[:2])
    if (sizes == 3).all():
        return corners.reshape(-1, 3), None
    count = int(np.maximum(sizes - 2, 0).sum())
    faces, origins = np.empty((count, 3), np.int64), np.empty(count, np.int64)
    start = done = 0
    for first in range(0, len(sizes), BLOCK):
        block = sizes[first : first + BLOCK]
        block_faces, origin = _fans(corners[start : start + block.sum()], block)
        start, end = start + block.sum(), done + len(origin)
        faces[done:end], origins[done:end] = block_faces, origin + first
        done = end
    return faces, origins


def _fans(corners: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.maximum(sizes - 2, 0)
    polygon = np.repeat(np.arange(len(sizes)), counts)
    first = (np.cumsum(sizes) - sizes)[polygon]
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(counts) - counts, counts)
    return corners[np.stack([first, first + step + 1, first + step + 2], axis=1)], polygon


def check_indices(indices: Array, num_vertices: int) -> None:
    """Raises Refusal where a face names a vertex that is not there."""
    if indices.size and not 0 <= indices.min() <= indices.max() < num_vertices:
        wrong = int(indices.min()) if indices.min() < 0 else int(indices.max())
        raise Refusal(f"a face names vertex {wrong}, but there are {num_vertices} vertices, counted from 0")
