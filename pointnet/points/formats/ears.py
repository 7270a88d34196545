"""Polygons of any shape, cut into triangles at their ears: corners whose triangle holds nothing else of the polygon.

All polygons are cut together, in rounds: each takes every second ear of a run, so that rounds are few.

Source: Meisters, "Polygons have ears", 1975.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

FLAT = 1e-14  # a doubled area that counts as none, of polygons that reach 1 from their first corner
THICK = 0.25  # in the same unit: beyond that no one view shows which way an outline goes
ROUND = 4  # tests that take as long as a round takes for one corner
PAIRS = 1 << 16  # corners and triangles tested together, so that temporary arrays stay small


def runs(starts: Indices, lengths: Indices) -> Indices:
    """The indices of runs, one after another: start, start + 1, ... of each."""
    return np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)


def cut_ears(points: Floats, sizes: Indices, normals: Floats, most_tests: int) -> tuple[Indices, int]:
    """Triangles of polygons of `sizes` (P,) corners, counter-clockwise about their normals (P, 3).

    What has no ear, as polygons that cross themselves or are not flat, is cut into a fan; so is all that is left after
    `most_tests` of a corner against a triangle.

    Returns:
        (F, 3) rows of `points` (C, 3): n - 2 triangles of each polygon, in order; and how many tests were made.
    """
    outlines = _Outlines(points, sizes, normals, most_tests)
    triangles, origins = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)]
    while len(outlines.corner):
        for three in outlines.cut():
            triangles.append(outlines.corner[np.stack(three, axis=1)])
            origins.append(outlines.polygon[three[1]])
        outlines.drop()
    return np.concatenate(triangles)[np.argsort(np.concatenate(origins), kind="stable")], most_tests - outlines.tests


class _Outlines:
    """What is left of the polygons: K corners, those of a polygon side by side."""

    def __init__(self, points: Floats, sizes: Indices, normals: Floats, tests: int):
        self.tests = tests  # that may still be made
        self.points = _in_plane(points, sizes, normals)  # (2, C)
        self.witness = np.full(len(points), -1)  # (C,) a corner that was last seen in the triangle of each
        self.corner, self.polygon = np.arange(len(points)), np.repeat(np.arange(len(sizes)), sizes)  # (K,) each
        self._arrange()

    def _arrange(self) -> None:
        count = len(self.corner)
        self.first = np.flatnonzero(np.diff(self.polygon, prepend=-1))  # of each polygon that is left
        self.sizes = np.diff(self.first, append=count)
        self.before, self.after = np.arange(count) - 1, np.arange(count) + 1
        last = self.first + self.sizes - 1
        self.before[self.first], self.after[last] = last, self.first
        self.x, self.y = self.points[:, self.corner]

    def cut(self) -> list[tuple[Indices, Indices, Indices]]:
        """The triangles of this round, by their corners' places: ears, and fans of the polygons that have none."""
        ear, here = self._ears(), np.arange(len(self.corner))
        first = np.repeat(self.first, self.sizes)
        # No two side by side: the even ones of a run, and the last of an odd polygon stands beside the first.
        rank = np.where(ear, (here - first) % 2, 3)
        last = (self.first + self.sizes - 1)[self.sizes % 2 == 1]
        rank[last] += ear[last] * 2
        gone = rank < np.minimum(rank[self.before], rank[self.after])
        stuck = np.repeat(np.add.reduceat(gone, self.first) == 0, self.sizes)
        fan = here[stuck & (here > first) & (self.after > here)]
        self.kept = ~gone & ~stuck
        return [(self.before[gone], here[gone], self.after[gone]), (first[fan], fan, fan + 1)]

    def drop(self) -> None:
        """Removes the corners that `cut` has cut, and polygons of two corners."""
        kept = self.kept & np.repeat(np.add.reduceat(self.kept, self.first) > 2, self.sizes)
        self.corner, self.polygon = self.corner[kept], self.polygon[kept]
        self._arrange()

    def _turn(self, a: Indices, b: Indices, c: Indices) -> Floats:
        """Twice the area of triangles, positive where they are counter-clockwise."""
        x, y = self.x, self.y
        return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])

    def _ears(self) -> Flags:
        """(K,) whether a corner can be cut; False for all if it takes too many tests to say."""
        turns = self._turn(self.before, np.arange(len(self.corner)), self.after)
        ear = turns >= -FLAT  # a flat corner can always go
        tips, blockers = np.flatnonzero(turns > FLAT), np.flatnonzero(turns <= FLAT)
        ear[tips] = ~self._has_witness(tips)
        tips = tips[ear[tips]]
        # Only corners of the same polygon within the triangle's width can be in it.
        keys = self.x + 4 * self.polygon
        blockers = blockers[np.argsort(keys[blockers], kind="stable")]
        three = np.stack([self.before[tips], tips, self.after[tips]])
        low = np.searchsorted(keys[blockers], keys[three].min(0) - 1e-9)
        counts = np.searchsorted(keys[blockers], keys[three].max(0) + 1e-9) - low
        done = np.cumsum(counts)
        self.tests -= int(counts.sum()) + ROUND * len(ear)
        if self.tests < 0:
            return np.zeros(len(ear), bool)
        begin = 0
        while begin < len(tips):
            end = max(begin + 1, int(np.searchsorted(done, done[begin] + PAIRS)))
            part = slice(begin, end)
            ear[self._blocked(three[:, part], counts[part], blockers[runs(low[part], counts[part])])] = False
            begin = end
        return ear

    def _has_witness(self, tips: Indices) -> Flags:
        """(n,) whether what was in the triangle of a tip still is; most tips that are no ears are known by that."""
        place = np.full(self.points.shape[1] + 1, -1)
        place[self.corner] = np.arange(len(self.corner))
        witness = place[self.witness[self.corner[tips]]]
        a, c = self.before[tips], self.after[tips]
        sides = [self._turn(*side, witness) for side in ((a, tips), (tips, c), (c, a))]
        return (witness >= 0) & (np.min(sides, axis=0) > FLAT)

    def _blocked(self, three: Indices, counts: Indices, p: Indices) -> Indices:
        """The tips of triangles (3, n) that one of their `counts` corners p, one triangle's after another's, is in."""
        heights = self.y[three]
        low, high = (np.repeat(bound, counts) for bound in (heights.min(0) - FLAT, heights.max(0) + FLAT))
        near = (self.y[p] >= low) & (self.y[p] <= high)
        p = p[near]
        a, b, c = np.repeat(three, counts, axis=1)[:, near]
        sides = self._turn(a, b, p), self._turn(b, c, p)
        inside = (np.minimum(*sides) >= -FLAT) & (self._turn(c, a, p) > FLAT)  # on the last side it is in nobody's way
        self.witness[self.corner[b[inside]]] = self.corner[p[inside]]
        return b[inside]


def _in_plane(points: Floats, sizes: Indices, normals: Floats) -> Floats:
    """The corners (2, C) in a plane across each polygon's normal, in a unit in which they reach 1 from the first; NaN,
    which has no ears, where a polygon is far from flat."""
    first = np.cumsum(sizes) - sizes
    points = points - np.repeat(points[first], sizes, axis=0)
    points /= np.repeat(np.maximum.reduceat(np.abs(points).max(1), first), sizes)[:, None]
    normals = normals / np.abs(normals).max(1, keepdims=True)
    across = np.cross(normals, np.eye(3)[np.abs(normals).argmin(1)])
    axes = [axis / np.linalg.norm(axis, axis=1, keepdims=True) for axis in (across, np.cross(normals, across), normals)]
    x, y, z = (np.einsum("ci,ci->c", points, np.repeat(axis, sizes, axis=0)) for axis in axes)
    thickness = np.maximum.reduceat(z, first) - np.minimum.reduceat(z, first)
    return np.where(np.repeat(thickness < THICK, sizes), (x, y), np.nan)
