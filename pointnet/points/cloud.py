"""The points of one file as a caller gets them: rows of a cloud, or points drawn from a mesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import Refusal
from .formats.contents import Array, Contents, EveryRow, Extras, Rows, blocks_of_rows
from .frame import bounds, check_up, lossless_type, middle_and_half_extent, rotated_to_z_up
from .sampling import between_corners, doubled_areas, draw_on_surface, normals_of_faces, unit_or_zero

Chosen = slice | NDArray[np.integer]
COARSE = 1e-3  # share of a cloud's width that neighbouring numbers of its type may be apart without a note
FEW_MISSING = 0.01  # of the points may lack a normal without a note
UNLIKE = 1.5  # times: normals whose lengths differ so much may be something else
BFLOAT16 = "bfloat16"  # float32 without its last 16 bits; NumPy lacks it
COARSE_BFLOAT16 = 1 / 64  # as COARSE; about the origin they are up to 1 / 128 apart
SOME_ROWS = 10_000  # that are looked at for coordinates on no grid, for copies of one row, for lengths of normals


class PointCloud(NamedTuple):
    """The N points of one file, in the library's frame (z up, right-handed), and what belongs to each of them."""

    points: NDArray[Any]  # (N, 3) float32, or float64 where that would lose the shape or was asked for; file's unit
    normals: NDArray[np.float32] | None  # (N, 3), of length 1 or 0
    colors: NDArray[np.float32] | None  # (N, 3), red, green and blue in [0, 1]
    labels: NDArray[np.int64] | None  # (N,)
    intensity: NDArray[np.float32] | None = None  # (N,), as in the file
    notes: tuple[str, ...] = ()  # short sentences: what of the file was guessed, skipped or left out
    points_hash: str = ""  # of all points of the file, as `hash_of` has it; empty where it was not asked for
    # (N,) the row of each point among the file's rows of numbers, from 0; None: all, in order, or drawn from a mesh.
    rows: NDArray[np.integer] | Rows | None = None

    def in_library_frame(self, up: str) -> PointCloud:
        """This cloud with z up: rotated if `up`, its own up axis, is another."""
        if up == "z":
            return self
        normals = None if self.normals is None else rotated_to_z_up(self.normals, up)
        return self._replace(points=rotated_to_z_up(self.points, up), normals=normals)


class Drawing(NamedTuple):
    """Which points of a file are wanted; the fields are arguments of `read_cloud`."""

    num_points: int | None  # None: all rows of a cloud
    generator: np.random.Generator
    repeat: bool
    normalize: bool
    precise: bool
    mapped: bool = False  # the rows of a table that is mapped stay there
    any_zeros: bool = False  # rows of zeros count, however many, as a mesh's vertices do
    came_as: str = ""  # the type that the numbers had before, where that is no type of NumPy's: `BFLOAT16`


def check_drawing(num_points: int | None, up: str | None) -> None:
    """Raises ValueError unless so many points can be drawn, and `up` is an axis."""
    if num_points is not None and not isinstance(num_points, int | np.integer):
        raise ValueError(f"num_points must be a whole number, got {num_points!r}")
    if num_points is not None and num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    check_up(up)


def cloud_from(contents: Contents, drawing: Drawing, extras: Extras) -> PointCloud:
    """The points of a file, in its own frame, and notes of the rows that are left out.

    Raises:
        Refusal: no finite point or face, nothing but zeros, too few points, or coordinates too large for float32.
    """
    if contents.faces is not None:
        return _sampled(_drawable(contents, drawing.normalize), drawing, extras)
    whole: Any = contents.vertices
    finite, zeros = _finite_rows(whole, np.float64 if drawing.normalize else np.float32)
    valid, notes = _valid_rows(whole, finite, 0 if drawing.any_zeros else zeros)
    contents = _of_normals(contents.noted(*notes), valid).noted(*_coarse(whole, valid, drawing.came_as))
    if drawing.mapped and isinstance(whole, Rows):
        return _mapped(contents, valid)
    rows = drawn_rows(valid, drawing.num_points, drawing.generator, drawing.repeat)  # first, as the rest takes memory
    if not isinstance(rows, slice):
        columns = contents._asdict().items()
        drawn: dict[str, Any] = {
            name: column[rows] for name, column in columns if isinstance(column, np.ndarray | Rows)
        }
        contents = contents._replace(**drawn)
    if drawing.normalize:
        contents = _in_box(contents, whole, valid)
    if drawing.precise:
        dtype: type[np.floating] = np.float64
    else:
        dtype = np.float32 if drawing.normalize else lossless_type(whole, valid)
    return _as_cloud(contents, dtype)._replace(rows=None if isinstance(rows, slice) else rows)


def _drawable(mesh: Contents, normalize: bool) -> Contents:
    """A mesh whose points can be drawn: finite, and in the box [-1, 1] if wanted."""
    mesh = _without_loose(_finite_mesh(mesh))
    valid, _ = _finite_rows(mesh.vertices, np.float64 if normalize else np.float32)
    mesh = mesh.noted(*_coarse(mesh.vertices, valid, ""))
    return _in_box(mesh, mesh.vertices, valid) if normalize and valid.any() else mesh


def _in_box(contents: Contents, whole: Array, valid: NDArray[np.bool_]) -> Contents:
    """Contents in the box [-1, 1] of the valid ones of all vertices, of which these may be some."""
    middle, half = middle_and_half_extent(np.stack(bounds(whole, valid)))
    return contents._replace(vertices=(contents.vertices.astype(np.float64) - middle) / half)


def _coarse(points: Any, valid: NDArray[np.bool_], came_as: str) -> tuple[str, ...]:
    """A note where the type that the numbers came in, float32 or less, is so far from the origin that it loses the
    shape; none where all coordinates are of a grid that it holds."""
    if not isinstance(points, np.ndarray) or points.dtype.kind != "f" or points.itemsize > 4 or not valid.any():
        return ()
    low, high = bounds(points, valid)
    cut, share = (2**16, COARSE_BFLOAT16) if came_as == BFLOAT16 else (1, COARSE)
    steps = cut * np.spacing(np.abs([low, high]).max(0).astype(points.dtype)).astype(float)
    some, side = points[np.flatnonzero(valid)[:SOME_ROWS]].astype(float), float((high - low).max())
    lost = (side * share < steps) & (some % (2 * steps) != 0).any(0)  # of a coarser grid all are even
    if not side or not lost.any():
        return ()
    step = steps[lost].max()
    return (f"coordinates are in steps of {step:.4g}: {came_as or points.dtype} holds no more so far from the origin",)


def drawn_rows(valid: NDArray[np.bool_], count: int | None, generator: np.random.Generator, repeat: bool) -> Chosen:
    """`count` of the valid rows, or all; with `repeat` always shuffled, so that any of them are a fair sample."""
    there = int(valid.sum())
    if not there:
        raise Refusal("has no point whose coordinates are finite")
    if count is None or (count == there and not repeat):
        return slice(None) if valid.all() else np.flatnonzero(valid)
    if count > there and not repeat:
        raise Refusal(f"has {there} points, fewer than num_points={count}")
    rows = np.empty(count, np.int64)  # at once, so that a count beyond the memory fails before anything is drawn
    for start in range(0, count, there):
        shuffled = np.arange(there, dtype=np.int32 if there < 2**31 else np.int64)
        generator.shuffle(shuffled)
        rows[start : start + there] = shuffled[: count - start]
    return rows if valid.all() else np.flatnonzero(valid)[rows]


def _finite_rows(vertices: Array, dtype: type[np.floating]) -> tuple[NDArray[np.bool_], int]:
    """(N,) whether all coordinates of a row are finite in this type, and how many rows are zeros."""
    finite, zeros = np.empty(len(vertices), bool), 0
    for place, block in zip(blocks_of_rows(finite), blocks_of_rows(vertices), strict=True):
        place[:] = np.isfinite(block.astype(dtype, copy=False)).all(1)
        if not block[:, 0].all():  # which is quick
            zeros += int((~block.any(1)).sum())
    return finite, zeros


def _valid_rows(vertices: Array, finite: NDArray[np.bool_], zeros: int) -> tuple[NDArray[np.bool_], list[str]]:
    """(N,) the rows that count as points, and notes of the others.

    Zeros that repeat are what depth cameras and scanners write where they measured nothing.
    """
    notes = list[str]()
    if wrong := len(finite) - int(finite.sum()):
        notes.append(f"{wrong:,} row{'s that are' if wrong > 1 else ' that is'} not finite left out")
    if zeros > 1:
        notes.append(f"{zeros:,} rows of zeros left out")
        for place, block in zip(blocks_of_rows(finite), blocks_of_rows(vertices), strict=True):
            place &= block.any(1)
        if not finite.any():
            raise Refusal("holds no point but rows of zeros")
    return finite, notes + _copies(vertices, finite)


def _copies(vertices: Array, valid: NDArray[np.bool_]) -> list[str]:
    """A note if more than half of the valid rows are one point."""
    count, size = int(valid.sum()), len(valid)
    some = np.random.default_rng(0).integers(size, size=SOME_ROWS) if size > SOME_ROWS else np.arange(size)
    drawn = vertices[some[valid[some]]]
    if count < 2 or not len(drawn):
        return []
    likeliest = np.partition(drawn, len(drawn) // 2, axis=0)[len(drawn) // 2]  # if more than half are one, this one
    if (drawn == likeliest).all(1).mean() < 0.4:
        return []
    same = sum(int((block == likeliest).all(1).sum()) for block in blocks_of_rows(vertices))
    place = ", ".join(f"{float(coordinate):.7g}" for coordinate in likeliest)
    return [f"{same:,} of {count:,} points are copies of one, ({place})"] if same > count / 2 else []


def _mapped(contents: Contents, valid: NDArray[np.bool_]) -> PointCloud:
    """A cloud whose valid rows stay in the file and get the types of the library when they are taken."""
    left_out = np.flatnonzero(~valid)

    def rows(name: str, dtype: type[np.generic]) -> Any:
        column = getattr(contents, name)
        return None if column is None else Rows(column, lambda taken: taken.astype(dtype, copy=False), left_out)

    points, normals, colors = rows("vertices", np.float64), rows("normals", np.float32), rows("colors", np.float32)
    labels, intensity = rows("labels", np.int64), rows("intensity", np.float32)
    kept = Rows(EveryRow(len(valid)), lambda taken: taken, left_out) if len(left_out) else None
    return PointCloud(points, normals, colors, labels, intensity, contents.notes, rows=kept)


def _as_cloud(contents: Contents, dtype: type[np.floating]) -> PointCloud:
    """A cloud in the types of the library, its coordinates in this one."""
    normals, colors, labels = contents.normals, contents.colors, contents.labels
    return PointCloud(
        contents.vertices.astype(dtype),
        None if normals is None else unit_or_zero(normals[:]),
        None if colors is None else colors.astype(np.float32),
        None if labels is None else labels.astype(np.int64),
        None if contents.intensity is None else contents.intensity.astype(np.float32),
        contents.notes,
    )


def _sampled(mesh: Contents, drawing: Drawing, extras: Extras) -> PointCloud:
    """Points drawn from a mesh by area, each with its face's normal if those are wanted; what vertices have is mixed by
    their nearness, but the label is the nearest one's."""
    assert drawing.num_points is not None
    assert mesh.faces is not None
    try:
        face, weights = draw_on_surface(mesh.vertices, mesh.faces, drawing.num_points, drawing.generator)
    except ValueError as error:
        raise Refusal(str(error)) from error
    corners, notes = mesh.faces[face], mesh.notes
    drawn = between_corners(mesh.vertices, corners, weights, np.float64)
    with np.errstate(over="ignore"):  # too large becomes infinite
        kept = drawing.precise or not (drawing.normalize or lossless_type(drawn) is np.float32)
        points = drawn.astype(np.float64 if kept else np.float32)
    if not _finite_rows(points, np.float32)[0].all():
        raise Refusal("has coordinates too large for 32 bits")
    normals = normals_of_faces(mesh.vertices, corners) if "normals" in extras else None
    colors = labels = intensity = None
    if mesh.colors is not None:
        colors = between_corners(mesh.colors, corners, weights)
    elif mesh.face_colors is not None:
        colors = mesh.face_colors[face].astype(np.float32)
    if mesh.labels is not None:
        nearest = np.linalg.norm(mesh.vertices[corners] - drawn[:, None], axis=2).argmin(1)[:, None]
        labels = mesh.labels[np.take_along_axis(corners, nearest, axis=1)[:, 0]].astype(np.int64)
        notes += ("each drawn point has the label of the nearest corner of its face",)
    elif mesh.face_labels is not None:
        labels = mesh.face_labels[face].astype(np.int64)
    if mesh.intensity is not None:
        intensity = between_corners(mesh.intensity[:, None], corners, weights)[:, 0]
    return PointCloud(points, normals, colors, labels, intensity, notes)


def _finite_mesh(mesh: Contents) -> Contents:
    """The mesh without the faces whose corners are not all finite."""
    assert mesh.faces is not None
    finite = np.all(np.isfinite(mesh.vertices), axis=1)
    if finite.all():
        return mesh
    kept = np.all(finite[mesh.faces], axis=1)
    if not kept.any():
        raise Refusal("has no face with coordinates that are finite")
    of_faces = {name: getattr(mesh, name) for name in ("faces", "face_colors", "face_labels")}
    if not kept.all():
        wrong = int((~kept).sum())
        note = f"{wrong:,} face{'s' * (wrong > 1)} with coordinates that are not finite left out"
        mesh = mesh.noted(note)
    return mesh._replace(
        vertices=np.where(finite[:, None], mesh.vertices, 0),
        **{name: values[kept] for name, values in of_faces.items() if values is not None},
    )


def _without_loose(mesh: Contents) -> Contents:
    """The mesh with the vertices of no face that has an area moved to one of such a face: no point is drawn on them, so
    that they must not set the box by which points are scaled."""
    vertices, faces = mesh.vertices, mesh.faces
    assert faces is not None
    for has_area in (False, True):  # a far one in no face would hide the areas of the others
        named = faces[doubled_areas(vertices, faces) > 0] if has_area else faces
        used = np.zeros(len(vertices), bool)
        used[named] = True
        if used.any() and not used.all():
            vertices = np.where(used[:, None], vertices, vertices[used.argmax()])
    return mesh._replace(vertices=vertices)


def vertices_of(mesh: Contents) -> Contents:
    """The vertices of a mesh as a cloud; a cloud as it is."""
    of_faces = {"colours": mesh.face_colors, "labels": mesh.face_labels}
    notes = tuple(f"{name} of faces left out" for name, values in of_faces.items() if values is not None)
    return mesh._replace(faces=None, face_colors=None, face_labels=None).noted(*notes)


def _of_normals(contents: Contents, valid: NDArray[np.bool_]) -> Contents:
    """Without normals where all are 0 or not finite; else with notes of those, and of what may be colours."""
    normals = contents.normals
    if normals is None:
        return contents
    missing = 0
    for block, wanted in zip(blocks_of_rows(normals), blocks_of_rows(valid), strict=True):
        missing += int((wanted & ~(np.isfinite(block).all(1) & block.any(1))).sum())
    count = int(valid.sum())
    if missing == count:
        return contents._replace(normals=None).noted("normals are all 0 or not finite, left out")
    if missing > FEW_MISSING * count:
        contents = contents.noted(f"normals of {missing:,} of {count:,} points are 0 or not finite, and 0 to a network")
    step = len(normals) // SOME_ROWS + 1
    some = np.asarray(normals[::step], np.float64)[valid[::step]]
    some = some[np.isfinite(some).all(1) & some.any(1)]
    if not len(some) or some.min() < 0:
        return contents
    lengths = np.sort(np.linalg.norm(some, axis=1))
    low, high = (lengths[int(share * len(lengths))] for share in (0.05, 0.95))
    said = f"normals have lengths of {low:.3g} to {high:.3g}, and none is negative: are they colours?"
    return contents.noted(said) if high > UNLIKE * low else contents
