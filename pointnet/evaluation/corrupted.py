"""Clouds with the fifteen corruptions of ModelNet40-C, at five severities.

Sun et al. 2022, "Benchmarking Robustness of 3D Point Cloud Recognition Against Common Corruptions", arXiv 2201.12296;
the strengths are those of the released code, github.com/jiachens/ModelNet40-C (`data/generate_c.py`). The generators
are written anew and take clouds of any size. Departures:

- occlusion and lidar render meshes there; a data set has points, so here a point is hidden if another one, of about the
  same direction from the camera, is nearer. So fewer points are left, of all that are stored; there it is always 1,024
  and 768, the latter drawn with repetition.
- Nothing is drawn with repetition here, so density_inc needs twice its points, else it has half of those stored.
- Small clouds lose smaller parts, so that points are left.
- z is up.

As released, noise (but for gaussian) and transformations are followed by a scaling to the box [-1, 1].
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pointnet.points.frame import middle_and_half_extent

Points = NDArray[np.float64]  # (N, 3), in the unit sphere, z up
Generator = np.random.Generator
POINTS = 1024  # of a clean cloud
PUBLISHED = (0.093, 0.283)  # error rates of PointNet, clean and corrupted: the released code's README
SEVERITIES = (1, 2, 3, 4, 5)
LATTICE = 5  # control points along each side of the box


def in_box(points: Points) -> Points:
    """The longest side of the bounding box becomes 2, its middle the origin."""
    middle, half = middle_and_half_extent(points)
    return (points - middle) / half


# Density.


def viewpoint(sector: int, elevation: float, distance: float, generator: Generator) -> Points:
    """A camera (3,) at an azimuth of the sector, a fifth of all; the elevation is in radians."""
    azimuth = 2 * np.pi * sector / len(SEVERITIES) + generator.uniform(-np.pi / 5, np.pi / 5)
    flat = distance * np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)])


def visible(points: Points, camera: Points) -> NDArray[np.bool_]:
    """Which points (N,) no other one hides: those little behind the nearest of their cell and the eight around it.

    Nine cells are a square of directions from the camera, so wide that nine points of the near side would be in it,
    were all spread over a sphere of radius 1: 0.17 at the origin for 2,048 points. "Little" is 1.5 times that, so that
    a slanted surface does not hide its own points; what is thinner hides nothing.
    """
    distance = float(np.linalg.norm(camera))
    ahead = -camera / distance
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    across, down, far = np.stack([right, np.cross(right, ahead), ahead]) @ (points - camera).T
    side = math.sqrt(18 * np.pi / len(points))
    column, row = (np.floor(each / far * (distance / (side / 3))).astype(np.int64) for each in (across, down))
    at = (column - column.min() + 1, row - row.min() + 1)
    depth = np.full((at[0].max() + 2, at[1].max() + 2), np.inf)
    np.minimum.at(depth, at, far)
    nearest = np.lib.stride_tricks.sliding_window_view(depth, (3, 3)).min((2, 3))
    return np.asarray(far <= nearest[at[0] - 1, at[1] - 1] + 1.5 * side)


def occlusion(points: Points, sector: int, generator: Generator) -> Points:
    """What a camera sees from a distance of 3, 30° to 60° above; a severity is a sector of azimuths."""
    points = in_box(points)
    camera = viewpoint(sector, generator.uniform(np.pi / 6, np.pi / 3), 3.0, generator)
    return some(in_box(points[visible(points, camera)]), POINTS, generator)


def lidar(points: Points, sector: int, generator: Generator) -> Points:
    """What a scanner sees from a distance of 5, 22.5° above, in lines a degree apart; at most 768 points."""
    points = in_box(points)
    camera = viewpoint(sector, np.pi / 8, 5.0, generator)
    rays = points[visible(points, camera)] - camera
    reach = np.linalg.norm(rays, axis=1)
    polar, azimuth = np.arccos(rays[:, 2] / reach), np.arctan2(rays[:, 1], rays[:, 0])
    line, offset = np.divmod(np.degrees(polar - polar.min()), 1)
    on_line = (offset >= 0.25) & (offset < 0.75)
    on_line |= ~on_line.any()  # of very few points, none may be near a line
    polar = polar.min() + np.radians(line + 0.5)
    flat = reach * np.sin(polar)
    scanned = np.column_stack([flat * np.cos(azimuth), flat * np.sin(azimuth), reach * np.cos(polar)]) + camera
    return some(scanned[on_line], 3 * POINTS // 4, generator)


def some(points: Points, count: int, generator: Generator) -> Points:
    """At most so many of the points, each once."""
    return points[generator.permutation(len(points))[:count]]


def regions(points: Points, count: int, size: int, generator: Generator) -> Iterator[tuple[Points, Points]]:
    """One after another, a random point's nearest ones (n, 3), and what is then left without them (N - n, 3)."""
    for _ in range(count):
        distances = ((points - points[generator.integers(len(points))]) ** 2).sum(1)
        order = np.argsort(distances, kind="stable")
        near, points = points[order[:size]], points[order[size:]]
        yield near, points
        if not len(points):
            return


def cutout(points: Points, holes: int, generator: Generator) -> Points:
    """Without the 30 nearest points of each of some."""
    for _, left in regions(points, holes, min(30, len(points) // 11), generator):
        points = left
    return points


def density(points: Points, places: int, generator: Generator) -> Points:
    """Fewer points at some places: a quarter of 100 neighbours stays."""
    kept: list[Points] = []
    size = min(100, len(points) // 6)
    for near, left in regions(points, places, size, generator):
        kept.append(some(near, size - 3 * size // 4, generator))
        points = left
    return np.concatenate([*kept, points])


def density_inc(points: Points, places: int, generator: Generator) -> Points:
    """Of a denser cloud, all of 100 neighbours at some places, and of the others as many as make up the number."""
    total = min(POINTS, (len(points) + 1) // 2)
    kept: list[Points] = []
    for near, left in regions(points, places, min(100, total // 6), generator):
        kept.append(near)
        points = left
    return np.concatenate([*kept, some(points, total - sum(map(len, kept)), generator)])


# Noise.


def uniform(points: Points, most: float, generator: Generator) -> Points:
    """Each coordinate moves by up to so much."""
    return points + generator.uniform(-most, most, points.shape)


def gaussian(points: Points, deviation: float, generator: Generator) -> Points:
    """Each coordinate moves by a normal deviate, and stays within [-1, 1]."""
    return np.clip(points + deviation * generator.normal(size=points.shape), -1, 1)


def impulse(points: Points, share: float, generator: Generator) -> Points:
    """A share of the points moves by 0.1 along each axis, up or down."""
    points, count = points.copy(), int(share * len(points))
    points[generator.permutation(len(points))[:count]] += 0.1 * generator.choice([-1, 1], (count, 3))
    return points


def upsampling(points: Points, share: float, generator: Generator) -> Points:
    """New points, a share of all, each within 0.05 of another one in every coordinate."""
    more = some(points, int(share * len(points)), generator)
    return np.concatenate([points, more + generator.uniform(-0.05, 0.05, more.shape)])


def background(points: Points, share: float, generator: Generator) -> Points:
    """New points, a share of all, anywhere in the box [-1, 1]."""
    return np.concatenate([points, generator.uniform(-1, 1, (int(share * len(points)), 3))])


# Transformation.


def either_way(low: float, high: float, shape: int, generator: Generator) -> Points:
    """Numbers between these, of either sign."""
    return generator.uniform(low, high, shape) * generator.choice([-1, 1], shape)


def rotation(points: Points, degrees: tuple[float, float], generator: Generator) -> Points:
    """By an angle of that range about each axis, one after another."""
    for axis, angle in enumerate(np.radians(either_way(*degrees, 3, generator))):
        matrix, (i, j) = np.eye(3), [(1, 2), (2, 0), (0, 1)][axis]
        matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        points = points @ matrix
    return points


def shear(points: Points, factors: tuple[float, float], generator: Generator) -> Points:
    """To x and to y a share of both other coordinates is added; heights stay."""
    matrix = np.eye(3)
    matrix[[1, 2, 0, 2], [0, 0, 1, 1]] = either_way(*factors, 4, generator)
    return points @ matrix


def ffd(points: Points, most: float, generator: Generator) -> Points:
    """Free-form deformation: 5 x 5 x 5 control points of Bernstein polynomials over the box [-1, 1] move.

    Along each axis by up to so much of the box's side, which is 2; points outside of the box stay.
    """
    moves = 2 * generator.uniform(-most, most, (3, LATTICE, LATTICE, LATTICE))
    power = np.arange(LATTICE)
    choose = np.array([math.comb(LATTICE - 1, k) for k in power])
    along = np.clip((points[..., None] + 1) / 2, 0, 1)
    x, y, z = (choose * along**power * (1 - along) ** (LATTICE - 1 - power)).swapaxes(0, 1)
    inside = (np.abs(points) <= 1).all(1, keepdims=True)
    return points + inside * np.einsum("ni,nj,nk,dijk->nd", x, y, z, moves, optimize=True)


def radial(squares: Points, inverse: bool) -> Points:
    """The multiquadric of radius 1/2, or its inverse, of squared distances."""
    values = np.sqrt(squares + 0.25)
    return 1 / values if inverse else values


def basis_of(points: Points, inverse: bool) -> Points:
    """What the weights of radial functions and of an affine map are multiplied by: (N, 125 + 4)."""
    squares = ((points[:, None] - lattice()) ** 2).sum(2)
    return np.column_stack([radial(squares, inverse), np.ones(len(points)), points])


@cache
def lattice() -> Points:
    """The control points (125, 3) over the box [-1, 1]."""
    axis = np.linspace(-1, 1, LATTICE)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


@cache
def interpolation(inverse: bool) -> Points:
    """(129, 125): moves of the control points -> weights whose map moves them so."""
    rows = basis_of(lattice(), inverse)
    whole = np.zeros((len(rows) + 4, len(rows) + 4))
    whole[: len(rows)], whole[len(rows) :, : len(rows)] = rows, rows[:, len(rows) :].T
    return np.asarray(np.linalg.inv(whole)[:, : len(rows)])


def _rbf(points: Points, far: float, generator: Generator, inverse: bool) -> Points:
    alpha, gamma = generator.uniform(-np.pi, np.pi, (2, LATTICE**3))
    moves = np.column_stack([np.cos(alpha) * np.sin(gamma), np.sin(alpha) * np.sin(gamma), np.cos(gamma)])
    return points + basis_of(points, inverse) @ (interpolation(inverse) @ (far * moves))


def rbf(points: Points, far: float, generator: Generator) -> Points:
    """5 x 5 x 5 control points move so far, in any direction; between them multiquadrics interpolate."""
    return _rbf(points, far, generator, inverse=False)


def rbf_inv(points: Points, far: float, generator: Generator) -> Points:
    """The same with inverse multiquadrics."""
    return _rbf(points, far, generator, inverse=True)


# Each corruption with its five strengths. Of occlusion and lidar a severity is a place to look from, and is no harder
# than the one before. A strength of 0, or (0, 0), of another one but density_inc leaves a cloud as it is.
STRENGTHS: Mapping[Callable[..., Points], Sequence[object]] = {
    occlusion: SEVERITIES,
    lidar: SEVERITIES,
    density_inc: (1, 2, 3, 4, 5),
    density: (1, 2, 3, 4, 5),
    cutout: (2, 3, 5, 7, 10),
    uniform: (0.01, 0.02, 0.03, 0.04, 0.05),
    gaussian: (0.01, 0.015, 0.02, 0.025, 0.03),
    impulse: (1 / 30, 1 / 25, 1 / 20, 1 / 15, 1 / 10),
    upsampling: (1 / 5, 1 / 4, 1 / 3, 1 / 2, 1),
    background: (1 / 45, 1 / 40, 1 / 35, 1 / 30, 1 / 20),
    rotation: ((0, 5), (2.5, 7.5), (5, 10), (7.5, 12.5), (12.5, 17.5)),
    shear: ((0, 0.1), (0.05, 0.15), (0.1, 0.2), (0.15, 0.25), (0.2, 0.3)),
    ffd: (0.1, 0.2, 0.3, 0.4, 0.5),
    rbf: (0.025, 0.05, 0.075, 0.1, 0.125),
    rbf_inv: (0.025, 0.05, 0.075, 0.1, 0.125),
}
CORRUPTIONS = {corruption.__name__: corruption for corruption in STRENGTHS}
DENSER = (occlusion, lidar, density_inc)  # begin with all points that are stored
AS_THEY_ARE = (occlusion, lidar, density_inc, density, cutout, gaussian)  # are not scaled to the box afterwards


def corrupted(points: Points, name: str, severity: int, generator: Generator) -> Points:
    """A cloud (N, 3) in the unit sphere with this corruption, (N', 3); severity 0 is the clean cloud.

    Raises:
        ValueError: no such corruption or severity.
    """
    if name not in CORRUPTIONS or severity not in (0, *SEVERITIES):
        raise ValueError(f"wanted severity 0 to 5 of {', '.join(CORRUPTIONS)}; got {severity} of {name}")
    corruption = CORRUPTIONS[name]
    clean = points if severity and corruption in DENSER else points[:POINTS]
    if not severity:
        return clean
    points = corruption(clean, STRENGTHS[corruption][severity - 1], generator)
    return points if corruption in AS_THEY_ARE else in_box(points)
