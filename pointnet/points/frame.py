"""The library's frame and unit: axis changes, centring and scaling of rows of points, and points that spoil the scale.

The library's frame has z up and is right-handed. Rows are numpy arrays (..., N, 3), or (..., N, 6) with normals.
Nothing here changes its input.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import comments
from .formats.contents import BLOCK, blocks_of_rows

Points = NDArray[Any]

DOWN = "-y"  # is up where y points down, as a depth camera has it
# By up axis: which coordinates become x, y and z, and their signs. All are rotations.
TO_Z_UP = {
    "z": ((0, 1, 2), (1, 1, 1)),
    "y": ((0, 2, 1), (1, -1, 1)),
    DOWN: ((0, 2, 1), (1, 1, -1)),
    "x": ((2, 1, 0), (-1, 1, 1)),
    "-x": ((2, 1, 0), (1, 1, -1)),
    "-z": ((0, 1, 2), (1, -1, -1)),
}
UPS = (None, *TO_Z_UP)  # what `up=` may be; None: what the format or the data set says
Y_UP_SUFFIXES = (".glb", ".gltf")  # their standard says so; all else is taken as z up
LEAST_SHARE = 1e-6  # of a cloud's longest side: differences between its points are right to that
LEAST_POINTS = 64  # different ones
MOST_STRAY = 0.005  # the largest share of a cloud's points that may be stray
# Stray points are so many times as far from the middle as the next one inwards. On a true part of an object, however
# thin, there are points all the way: none of 2,050 clouds of ModelNet40 and real meshes has so few of them so far out.
GAP = 1.6
SEVERAL = 8192  # points that may be few points repeated: so many are drawn from a file, or fewer


def check_up(up: str | None) -> None:
    """Raises ValueError unless `up` is None or an axis of `TO_Z_UP`."""
    if up not in UPS:
        raise ValueError(f"up must be one of {', '.join(TO_Z_UP)}, got {up!r}")


def up_of(path: Path, up: str | None = None) -> str:
    """The up axis of a file: `up`, or what its format or the header of a PLY says, or z."""
    return up or said_up(path) or "z"


def said_up(path: Path) -> str | None:
    """The up axis that a file's format gives, or a PLY's header; None where neither does."""
    return "y" if path.suffix.lower() in Y_UP_SUFFIXES else comments.up_in_header(path)


def rotated_to_z_up(rows: Points, up: str) -> Points:
    """Rows of a right-handed frame in which another axis is up, rotated; with y up, (x, y, z) -> (x, -z, y)."""
    order, signs = TO_Z_UP[up]
    rotated = _in_order(rows, order)
    for axis, sign in enumerate(signs):
        if sign < 0:
            np.negative(rotated[..., axis::3], out=rotated[..., axis::3])
    return rotated


def swapped_y_and_z(rows: Points) -> Points:
    """Rows mirrored, (x, y, z) -> (x, z, y): what brings ModelNet40's HDF5 and resampled text into the mesh frame."""
    return _in_order(rows, (0, 2, 1))


def _in_order(rows: Points, order: tuple[int, ...]) -> Points:
    ordered = np.empty_like(rows)  # in the memory order of the input, unlike rows[..., order]
    for to, of in enumerate(order):
        ordered[..., to::3] = rows[..., of::3]
    return ordered


def other_ups(up: str) -> list[str]:
    """The axes that are often up where this one is not, the likeliest first."""
    return [axis for axis in ("z", "y", DOWN) if axis != up]


def with_other_up(channels: Points, up: str, other: str, normals: bool) -> Points:
    """A cloud (C, N) that was taken with one axis up as if it had been taken with another."""
    width = 6 if normals else 3
    rows, (order, signs) = channels[:width].T, TO_Z_UP[up]
    signed = rows * np.array(signs * (width // 3), rows.dtype)
    as_given = _in_order(signed, order)  # each exchanges two axes at most, so it is its own way back
    return np.vstack([rotated_to_z_up(as_given, other).T, channels[width:]])


def in_unit_sphere(points: Points) -> Points:
    """Clouds (..., N, 3) of floats, each with its mean at the origin and its farthest point at distance 1.

    Raises:
        ValueError: as `centre_and_radius`.
    """
    centre, radius = centre_and_radius(points)
    points = points - centre
    points /= radius
    return points


def centre_and_radius(points: Points) -> tuple[Points, Points]:
    """The mean of each cloud (..., N, 3) and the distance of its farthest point from it: (..., 1, 3), (..., 1, 1).

    The mean is summed in float64; both have the type of the points.

    Raises:
        ValueError: all points of a cloud are equal, or too far apart for their type. Of several clouds it names one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        centre = points.mean(-2, keepdims=True, dtype=np.float64).astype(points.dtype)
        blocks = (points[..., start : start + BLOCK, :] for start in range(0, points.shape[-2], BLOCK))
        farthest = [np.linalg.norm(block - centre, axis=-1).max(-1) for block in blocks]
    radius: Points = np.max(farthest, axis=0)
    if not ((radius > 0) & (radius < np.inf)).all():
        broken = np.argwhere(~((radius > 0) & (radius < np.inf)))[0]
        cloud = f"cloud {', '.join(map(str, broken))} " if len(broken) else ""
        is_flat = radius[tuple(broken)] == 0
        raise ValueError(f"{cloud}has no extent: all its points are one" if is_flat else f"{cloud}is too wide to scale")
    return centre, radius[..., None, None]


def bounds(points: Any, valid: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest corner of a bounding box, (3,) each; not finite where a point is not.

    Args:
        points: (N, 3), an array or `Rows`, looked at block by block.
        valid: (N,), which of them count, at least one; None for all.
    """
    corners = []
    valid = np.broadcast_to(True, len(points)) if valid is None else valid
    for block, counts in zip(blocks_of_rows(points), blocks_of_rows(valid), strict=True):
        block = block if counts.all() else block[counts]
        if len(block):
            # A column at a time: numpy takes ten times as long for all three at once.
            corners.append([[column.min() for column in block.T], [column.max() for column in block.T]])
    low, high = np.array(corners, np.float64).swapaxes(0, 1)
    return low.min(0), high.max(0)


def middle_and_half_extent(vertices: Points) -> tuple[NDArray[np.float64], float]:
    """The middle of a bounding box (3,), and half its longest side, or 1 where that is 0; no overflow on the way."""
    low, high = bounds(vertices)
    middle = low / 2 + high / 2
    return middle, float(np.max([middle - low, high - middle])) or 1.0


def lossless_type(points: Any, valid: NDArray[np.bool_] | None = None) -> type[np.floating]:
    """The type for finite points (N, 3), the valid ones: float32, or float64 where that would lose their shape.

    It would where the distance of two points could change by more than 1e-6 of the longest side of the bounding box,
    since the cloud is far from the origin, as at survey coordinates. Types that float32 holds exactly stay in it.
    """
    if not len(points) or (isinstance(points, np.ndarray) and np.can_cast(points.dtype, np.float32)):
        return np.float32
    low, high = bounds(points, valid)
    lost = np.maximum(np.abs(low), np.abs(high)).max() * np.finfo(np.float32).eps  # two points, half of it each
    side = (high - low).max()
    return np.float64 if 0 < side * LEAST_SHARE < lost else np.float32


def notes_on_points(points: Any) -> tuple[str, ...]:
    """The note of `few_points`, or else of `stray_points` or `on_a_line`, on a cloud that is for the unit sphere; none
    on most."""
    note = few_points(points) or stray_points(points) or on_a_line(points)
    return (note,) if note else ()


def few_points(points: Any) -> str | None:
    """A note if fewer than `LEAST_POINTS` of the points (N, 3), an array or `Rows`, are different; else None."""
    places, block = np.empty((0, 3)), 4 * LEAST_POINTS
    for start in range(0, len(points), block):
        places = np.unique(np.vstack([places, points[start : start + block]]), axis=0)
        if len(places) >= LEAST_POINTS:
            return None
    return f"only {len(places)} different points"


def on_a_line(points: Any) -> str | None:
    """A note if all points (N, 3), an array or `Rows`, are on one line, as where digits were lost; else None."""
    for some in (points[:SEVERAL], points[:]):  # seldom all
        from_first = np.asarray(some, np.float64) - np.asarray(some[:1], np.float64)
        sizes = np.linalg.svd(from_first, compute_uv=False)
        if len(sizes) > 1 and sizes[1] > LEAST_SHARE * sizes[0]:
            return None
    return "all points are on one line"


def stray_points(points: Any) -> str | None:
    """A note if a few of the points (N, 3), an array or `Rows`, are far from all others, beyond an empty shell, and so
    set the scale of the unit sphere; else None."""
    far = _from_the_middle(points)
    if far.max() <= GAP * np.quantile(far, 0.9):  # most clouds: no need to look closer
        return None
    if len(points) <= SEVERAL:
        far = _from_the_middle(np.unique(points[:], axis=0))
    most = max(1, int(MOST_STRAY * len(far)))
    last = np.sort(np.partition(far, -most - 1)[-most - 1 :])
    beyond = np.flatnonzero(last[1:] > GAP * last[:-1])
    if not len(beyond) or not last[beyond[0]]:
        return None
    count, times = most - int(beyond[0]), last[-1] / last[beyond[0]]
    are, set_ = ("is", "sets") if count == 1 else ("are", "set")
    reach = "" if count == 1 else "up to "
    return (
        f"{count:,} of {len(far):,} points {are} {reach}{times:.1f} times as far out as all others and {set_} the scale"
    )


def _from_the_middle(points: Any) -> NDArray[np.float64]:
    """How far each of points (N, 3) is from the median point, which a few points do not move."""
    middle = np.median(points[:: len(points) // SEVERAL + 1], axis=0)
    far = [np.linalg.norm(block.astype(np.float64) - middle, axis=1) for block in blocks_of_rows(points)]
    return np.concatenate(far)
