"""Polygons of any shape: their triangles tile them, whatever corner comes first and whichever way they run."""

import time

import numpy as np
import pytest

from pointnet.points.formats.polygons import MOST_CORNERS, Polygons, triangles_of
from pointnet.points.read import read_cloud
from tests import whole_files
from tests.helpers import SHARED_DATA
from tests.whole_files import LIST, XYZ, ply, written


def star(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    angle = 2 * np.pi * (np.arange(count) + 0.9 * generator.random(count)) / count
    return np.stack([np.cos(angle), np.sin(angle)], 1) * (0.05 + generator.random((count, 1)))


def comb(teeth: int) -> np.ndarray:
    return np.array([(i, 8 * (i % 2)) for i in range(2 * teeth + 1)] + [(2 * teeth, -1), (0, -1)], float)


def spiral(count: int) -> np.ndarray:
    angle = np.linspace(3, 40, count // 2)
    arm = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.concatenate([arm * (angle + 2)[:, None], (arm * angle[:, None])[::-1]])


FRAME = [(0, 0), (9, 0), (9, 9), (0, 9)]
# Simple polygons, and some that touch themselves: the area of each is that of the shoelace formula.
SHAPES = {
    "L": [(0, 0), (4, 0), (4, 1), (1, 1), (1, 4), (0, 4)],
    "dart": [(0, 0), (2, 1), (0, 2), (1, 1)],
    "star of 7": star(7),
    "star of 31": star(31),
    "comb": comb(9),
    "spiral": spiral(30),
    "corners on a line": [(0, 0), (2, 0), (2, 0), (4, 0), (4, 4), (3, 4), (3, 1), (2, 1), (1, 1), (1, 4), (0, 4)],
    "spike": [(0, 0), (4, 0), (4, 4), (4, 7), (4, 4), (0, 4), (1, 2)],
    "a hole behind a bridge": [*FRAME, (0, 0), (2, 2), (2, 6), (6, 6), (6, 2), (2, 2)],
    "two holes": [*FRAME, (0, 0), (1, 5), (1, 8), (4, 8), (1, 5), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)],
    "a hole behind each corner": [
        *((0, 0), (3, 2), (4, 3), (4, 2), (3, 2), (0, 0), (12, 0), (9, 2), (8, 2), (8, 3), (9, 2), (12, 0)),
        *((6, 10), (6, 7), (7, 6), (5, 6), (6, 7), (6, 10)),
    ],
    "a hole that touches a corner": [*FRAME, (0, 0), (2, 6), (6, 6), (6, 2)],
    "a hole that touches a side": [(0, 0), (4, 0), (3, 5), (6, 5), (4, 0), (9, 0), (9, 9), (0, 9)],
    "a tip that touches a side": [(0, 0), (9, 0), (9, 9), (0, 9), (0, 6), (4, 0), (0, 3)],
}


def shoelace(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def winding(outline: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How often an outline goes round each place, by the angles that it sweeps."""
    legs = outline[None] - places[:, None]
    angle = np.arctan2(legs[..., 1], legs[..., 0])
    step = (np.diff(angle, axis=1, append=angle[:, :1]) + np.pi) % (2 * np.pi) - np.pi
    return np.rint(step.sum(1) / (2 * np.pi)).astype(int)


def covering(triangles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How many of the triangles (F, 3, 2) each place is in."""
    side, leg = np.roll(triangles, -1, axis=1) - triangles, places[:, None, None] - triangles
    left = side[..., 0] * leg[..., 1] > side[..., 1] * leg[..., 0]
    return (left == left[..., :1]).all(2).sum(1)


def doubled(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


@pytest.mark.parametrize("name", SHAPES)
def test_triangles_tile_a_polygon_from_any_corner_and_in_both_directions(name):
    outline = np.array(SHAPES[name], float)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    size, places = len(outline), np.random.default_rng(2).random((60, 2)) * np.ptp(outline, axis=0) + outline.min(0)
    inside = np.abs(winding(outline, places))
    vertices = np.insert(outline, 2, 0, axis=1)
    for first in range(size):
        for step in (1, -1):
            ring = np.roll(np.arange(size)[::step], first)
            faces, origins, notes = triangles_of(Polygons(ring, np.array([size])), vertices @ turn.T + 1000)
            assert (len(faces), notes, set(origins)) == (size - 2, (), {0})
            areas = doubled(vertices, faces)[:, 2] / 2
            assert np.abs(areas).sum() == pytest.approx(abs(areas.sum())) == pytest.approx(shoelace(outline))
            assert np.array_equal(covering(outline[faces], places), inside), (first, step)


def test_polygons_of_all_sizes_are_cut_together_each_by_itself():
    shapes = [np.array(SHAPES[name], float) for name in ("L", "star of 31", "dart", "comb")] * 300
    shapes += [star(7, seed) for seed in range(40)]
    shapes[5:5] = [np.eye(3)[:, :2], np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float), np.zeros((2, 2)), star(5)]
    sizes = np.array([len(shape) for shape in shapes])
    vertices = np.insert(np.concatenate(shapes), 2, 0, axis=1)
    faces, origins, notes = triangles_of(Polygons(np.arange(sizes.sum()), sizes), vertices)
    assert np.array_equal(origins, np.repeat(np.arange(len(sizes)), np.maximum(sizes - 2, 0)))
    areas = np.bincount(origins, np.abs(doubled(vertices, faces)[:, 2]) / 2, len(sizes))
    assert np.allclose(areas, [shoelace(shape) for shape in shapes])
    assert notes == ()


def test_a_convex_polygon_stays_a_fan_about_its_first_corner():
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rim = np.stack([np.cos(angle), np.sin(angle), 0.01 * np.sin(2 * angle)], 1).astype(np.float32)
    rim[3] = (rim[2] + rim[4]) / 2  # on a line as well as float32 has it
    for first in range(12):
        ring = np.roll(np.arange(12), first)
        faces = triangles_of(Polygons(ring, np.array([12])), rim)[0]
        assert faces.tolist() == [[ring[0], ring[i], ring[i + 1]] for i in range(1, 11)]


@pytest.mark.parametrize(
    "outline",
    [
        pytest.param([(0, 0), (1, 1), (1, 0), (0, 1)], id="bow-tie"),
        pytest.param([(0, 0), (3, 3), (3, 0), (0, 1)], id="uneven bow-tie"),
        pytest.param(np.random.default_rng(0).random((300, 2)), id="tangle"),
        pytest.param(star(MOST_CORNERS + 1), id="too many corners"),
    ],
)
def test_what_cannot_be_cut_right_stays_within_its_bounds_and_a_note_says_so(tmp_path, outline):
    outline = np.array(outline, float)
    size, body = len(outline), whole_files.rows(np.insert(outline, 2, 0, axis=1))
    header = f"element vertex {size}\n{XYZ}element face 1\nproperty list uint int vertex_indices\n"
    content = ply(header, f"{body}{size} {' '.join(map(str, range(size)))}\n".encode())
    cloud = read_cloud(written(tmp_path, "a.ply", content), 500)
    low, high = outline.min(0), outline.max(0)
    assert ((cloud.points[:, :2] >= low - 1e-5) & (cloud.points[:, :2] <= high + 1e-5)).all()
    assert [note.split(":")[0][:21] for note in cloud.notes] == ["polygons cut roughly,"]


@pytest.mark.parametrize("outline", [star(10_000), comb(5_000), comb(5_000)[:, ::-1], spiral(4_000)])
def test_ten_thousand_corners_take_seconds(outline):
    vertices = np.insert(outline, 2, 0, axis=1)
    begun = time.process_time()
    faces, _, notes = triangles_of(Polygons(np.arange(len(outline)), np.array([len(outline)])), vertices)
    assert time.process_time() - begun < 20
    assert notes == ()
    assert np.abs(doubled(vertices, faces)[:, 2]).sum() / 2 == pytest.approx(shoelace(outline))


@pytest.mark.parametrize("first", range(6))
def test_points_of_a_concave_face_lie_on_it_in_every_format(tmp_path, first):
    corners = np.roll(np.insert(np.array(SHAPES["L"], float), 2, 0, axis=1), first, axis=0)
    lines, ring = whole_files.rows(corners), "6 0 1 2 3 4 5\n"
    faces = bytes([6]) + np.arange(6, dtype="<i4").tobytes() + bytes([3]) + np.arange(3, dtype="<i4").tobytes()
    header = f"element vertex 6\n{XYZ}element face"
    files = {
        "a.obj": whole_files.rows(corners, "v ") + "f 1 2 3 4 5 6\n",
        "a.off": f"OFF\n6 1 0\n{lines}{ring}",
        "a.ply": ply(f"{header} 1\n{LIST}", f"{lines}{ring}".encode()),
        "b.ply": ply(f"{header} 1\n{LIST}", corners.astype("<f4").tobytes() + faces[:25], "binary_little_endian"),
    }
    for name, content in files.items():
        cloud = read_cloud(written(tmp_path, name, content), 3000)
        x, y, _ = cloud.points.T
        assert ((x <= 1) | (y <= 1)).all(), name
        assert (cloud.normals == [0, 0, 1]).all(), name
        assert (x > 1).mean() == pytest.approx(3 / 7, abs=0.03), name


def test_the_face_that_people_bring():
    path = SHARED_DATA / "cases" / "concave0.obj"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    x, y, _ = read_cloud(path, 3000).points.T
    assert ((x <= 1) | (y <= 1)).all()
