"""Points drawn from a surface fall by area, and rows of a cloud are drawn without replacement."""

import numpy as np
import pytest

from pointnet.points.cloud import drawn_rows
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from pointnet.points.sampling import BLOCK, between_corners, draw_on_surface
from tests import whole_files
from tests.whole_files import FILES, written


def sample_surface(vertices, faces, count, generator):
    """Points drawn from a mesh, and the face each lies on."""
    face, weights = draw_on_surface(vertices, faces, count, generator)
    return between_corners(vertices, faces[face], weights), face


def two_triangles():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [5, 0, 0], [8, 0, 0], [5, 2, 0], [9, 9, 9]], float)
    return corners, np.array([[6, 6, 6], [0, 1, 2], [0, 1, 1], [3, 4, 5], [2, 2, 2]])


def test_points_fall_on_faces_by_their_area_and_evenly_within():
    corners, faces = two_triangles()
    points, face = sample_surface(corners, faces, 40_000, np.random.default_rng(0))
    assert set(face) == {1, 3}
    assert (face == 3).mean() == pytest.approx(0.75, abs=0.01)
    for which in (1, 3):
        triangle = corners[faces[which]]
        inside = points[face == which]
        assert np.allclose(inside.mean(0), triangle.mean(0), atol=0.02)
        # The covariance of a uniform triangle is a twelfth of its corners'.
        assert np.allclose(np.cov(inside.T), np.cov(triangle.T, bias=True) / 4, atol=0.02)


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1, 1e30, 1e160])
def test_faces_are_drawn_alike_at_any_scale(scale):
    corners, faces = two_triangles()
    face = sample_surface(corners * scale, faces, 100, np.random.default_rng(0))[1]
    assert np.array_equal(face, sample_surface(corners, faces, 100, np.random.default_rng(0))[1])


def test_a_mesh_of_more_than_a_block_is_drawn_by_area_too():
    corners, faces = two_triangles()
    many = np.concatenate([np.repeat(faces[:1], BLOCK + 5, 0), faces, np.repeat(faces[:1], 7, 0)])
    face = sample_surface(corners, many, 100, np.random.default_rng(0))[1]
    assert np.array_equal(face - (BLOCK + 5), sample_surface(corners, faces, 100, np.random.default_rng(0))[1])


def test_the_same_seed_draws_the_same_points_and_another_one_others():
    for name in ("chair.off", "stool.xyz"):
        first, again, other = (read_points(FILES / name, 100, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


class Always:
    """A generator that draws one number."""

    def __init__(self, number: float):
        self.number = number

    def random(self, size):
        return np.full(size, self.number)


def test_not_even_the_outermost_draws_fall_on_a_face_without_area():
    corners, faces = two_triangles()
    for number, face in ((0.0, 1), (1.0, 3)):
        assert sample_surface(corners, faces, 1, Always(number))[1] == face


def test_a_surface_without_area_is_a_value_error():
    with pytest.raises(ValueError, match="no face has an area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no face has an area"):
        sample_surface(np.zeros((3, 3)), np.empty((0, 3), int), 5, np.random.default_rng(0))


def test_num_points_draws_rows_of_a_cloud_without_replacement():
    whole = read_points(FILES / "stool.xyz")
    some = read_points(FILES / "stool.xyz", 1000, seed=5)
    assert len(np.unique(some, axis=0)) == len(some) == 1000
    assert {tuple(row) for row in some} <= {tuple(row) for row in whole}
    assert np.array_equal(read_points(FILES / "stool.xyz", 1024), whole)
    with pytest.raises(PointCloudFileError, match=r"stool\.xyz: has 1024 points, fewer than num_points=1025"):
        read_points(FILES / "stool.xyz", 1025)


def test_more_points_than_memory_holds_are_refused_before_any_is_drawn():
    class Never:
        def permutation(self, count):
            raise AssertionError("drawn")

    with pytest.raises(MemoryError):
        drawn_rows(np.ones(2, bool), 10**15, Never(), repeat=True)


def test_rows_that_belong_together_stay_together(tmp_path):
    table = np.hstack([whole_files.vertices(), np.arange(40)[:, None]])
    path = written(tmp_path, "a.xyz", whole_files.rows(table))
    cloud = read_cloud(path, num_points=30, seed=2, columns="x,y,z,label")
    assert np.allclose(cloud.points, whole_files.vertices()[cloud.labels], atol=1e-5)


@pytest.mark.parametrize("count", [1, 30, 500])
def test_a_few_rows_of_a_normalized_cloud_are_rows_of_it_normalized_whole(tmp_path, count):
    rows = np.random.default_rng(0).normal(size=(500, 3)) + 5e5
    rows[7] += 1000  # alone, far off: the box is that of the whole cloud, whether it is drawn or not
    rows[::9, 1] = np.nan
    path = tmp_path / "a.npy"
    np.save(path, rows)
    whole = read_cloud(path, normalize=True).points
    assert len(whole) == 500 - 56
    assert np.abs(whole).max() == 1
    drawn = read_cloud(path, count, seed=5, repeat=True, normalize=True).points
    assert drawn.shape == (count, 3)
    assert {row.tobytes() for row in drawn} <= {row.tobytes() for row in whole}
    assert len({row.tobytes() for row in drawn}) == min(count, len(whole))


def test_a_mesh_alone_gives_as_many_points_as_are_asked_of_meshes():
    sizes = [len(read_cloud(FILES / name, mesh_points=77).points) for name in ("chair.off", "stool.xyz")]
    assert sizes == [77, 1024]
    assert len(read_cloud(FILES / "chair.off", 5, mesh_points=77).points) == 5


@pytest.mark.parametrize("far", [1e7, 1e38])
def test_where_no_point_is_drawn_nothing_sets_the_scale(tmp_path, far):
    plain = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n"
    wanted = read_cloud(written(tmp_path, "a.obj", plain), normalize=True).points
    for more in ("", "f 5 5 1\n", "f 5 6 7\n"):  # in no face, or in faces without area
        path = written(tmp_path, "b.obj", f"{plain}v {far:g} 0 0\n{more}v {-far:g} 0 0\nv 0 0 0\n")
        np.testing.assert_allclose(read_cloud(path, normalize=True).points, wanted, atol=1e-6)
        np.testing.assert_allclose(read_cloud(path).points, read_cloud(tmp_path / "a.obj").points, atol=1e-6)
