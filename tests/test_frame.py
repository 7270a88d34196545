"""Axis changes keep what they must, and a centred and scaled cloud touches the unit sphere."""

from pathlib import Path

import numpy as np
import pytest

from pointnet import predict
from pointnet.points import frame
from pointnet.points.frame import (
    SEVERAL,
    TO_Z_UP,
    in_unit_sphere,
    notes_on_points,
    on_a_line,
    rotated_to_z_up,
    swapped_y_and_z,
    with_other_up,
)


def cloud(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(0).normal((5, -20, 300), size=(*shape, 3)).astype(dtype)


@pytest.mark.parametrize("up", [*TO_Z_UP, None])
def test_what_is_up_becomes_z_and_normals_go_along(up):
    def change(rows: np.ndarray) -> np.ndarray:
        return rotated_to_z_up(rows, up) if up else swapped_y_and_z(rows)

    points, axis = cloud(4, 10), "xyz".index((up or "y")[-1])
    both = np.concatenate([points, points * 2], -1)
    before = both.copy()
    changed = change(both)
    assert np.array_equal(both, before), "the input is left alone"
    assert np.array_equal(changed[..., 2], points[..., axis] * (-1 if up and up[0] == "-" else 1))
    assert np.array_equal(changed[..., 3:], change(points) * 2)
    assert changed.flags.c_contiguous
    handedness = np.linalg.det(change(np.eye(3)))
    assert handedness == pytest.approx(1 if up else -1)


def test_four_quarter_turns_and_two_swaps_change_nothing():
    rows = rotated = cloud(7)
    for _ in range(4):
        rotated = rotated_to_z_up(rotated, "y")
    assert np.array_equal(rotated, rows)
    assert np.array_equal(swapped_y_and_z(swapped_y_and_z(rows)), rows)


@pytest.mark.parametrize("up", TO_Z_UP)
@pytest.mark.parametrize("other", TO_Z_UP)
@pytest.mark.parametrize("normals", [False, True])
def test_a_cloud_taken_with_one_axis_up_is_taken_with_another(up, other, normals):
    rows = np.random.default_rng(1).normal(size=(20, 7 if normals else 4)).astype(np.float32)
    width = 6 if normals else 3

    def taken(axis: str) -> np.ndarray:
        return np.hstack([rotated_to_z_up(rows[:, :width], axis), rows[:, width:]]).T

    turned = with_other_up(taken(up), up, other, normals)
    assert np.array_equal(turned, taken(other))
    assert turned.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [2, 257])
def test_each_cloud_is_centred_and_touches_the_unit_sphere(dtype, count):
    clouds = cloud(3, count, dtype=dtype)
    scaled = in_unit_sphere(clouds)
    assert scaled.dtype == dtype
    assert np.abs(scaled.mean(1)).max() < 1e-4
    assert np.linalg.norm(scaled, axis=-1).max(-1) == pytest.approx(1, abs=1e-6)
    for one, alone in zip(clouds, scaled, strict=True):
        assert np.array_equal(in_unit_sphere(one), alone)


def test_a_cloud_of_several_blocks_is_scaled_by_its_farthest_point(monkeypatch):
    points = cloud(500)
    whole = in_unit_sphere(points)
    monkeypatch.setattr(frame, "BLOCK", 7)
    assert np.array_equal(in_unit_sphere(points), whole)


def test_a_cloud_without_extent_is_named_and_one_too_wide_refused():
    clouds = cloud(3, 9)
    clouds[1] = 4
    with pytest.raises(ValueError, match="^cloud 1 has no extent"):
        in_unit_sphere(clouds)
    with pytest.raises(ValueError, match="^has no extent"):
        in_unit_sphere(clouds[1])
    with pytest.raises(ValueError, match="too wide"):
        in_unit_sphere(np.array([[1e308, 0, 0], [-1e308, 0, 0]]))


def test_a_bounding_box_overflows_nowhere_and_is_never_empty():
    middle, half = frame.middle_and_half_extent(np.array([[-1.5e308, 0, 2], [1.5e308, 4, 2]]))
    assert middle.tolist() == [0, 2, 2]
    assert half == 1.5e308
    assert frame.middle_and_half_extent(np.full((3, 3), 7.0))[1] == 1


def test_up_is_what_is_asked_or_what_the_format_says():
    ups = [frame.up_of(Path(name), up) for name, up in (("A.GLB", None), ("a.gltf", "z"), ("a.ply", None), ("a", "y"))]
    assert ups == ["y", "z", "z", "y"]
    with pytest.raises(ValueError, match="up must be one of z, y, -y, x, -x, -z, got '\\+y'"):
        frame.check_up("+y")


def test_points_on_one_line_are_not_sure_and_said_of_files_of_a_set():
    points = np.zeros((200, 3))
    points[:, 2] = np.random.default_rng(0).random(200)
    assert on_a_line(points) == "all points are on one line"
    assert notes_on_points(points) == ("all points are on one line",)
    found = predict(points, "pointnet_modelnet40")
    assert "unsure: all points are on one line" in found.notes[-1]
    assert not found.sure
    for slope in ((1, 0, 2), (1, -3, 2)):
        assert on_a_line(points[:, 2:] * slope + (5, 6, 7)) == "all points are on one line"
    points[:, 0] = 0.01 * np.random.default_rng(1).random(200)
    assert on_a_line(points) is None
    many = np.zeros((3 * SEVERAL, 3))
    many[:, 1] = np.arange(len(many))
    assert on_a_line(many) == "all points are on one line"
    many[-1, 0] = 1000.0
    assert on_a_line(many) is None
