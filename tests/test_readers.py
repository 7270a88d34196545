"""Files of points: the same shape from every format, drawn by area, or one line that says why not."""

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointnet.datasets import PointCloudFileError
from pointnet.datasets.shape_classes import make_shape
from pointnet.datasets.shapes import shape_generator
from pointnet.datasets.solids import rotated
from pointnet.points import read as readers
from pointnet.points.cloud import drawn_rows
from pointnet.points.formats import scan as scan_module
from pointnet.points.formats import text as text_module
from pointnet.points.formats.columns import as_unit_colors
from pointnet.points.formats.pcd import lzf_decompress
from pointnet.points.formats.scan import numbers_of_lines
from pointnet.points.read import SUFFIXES, read_cloud, read_points
from pointnet.points.sampling import BLOCK, draw_on_surface, interpolate
from tests import mutants, whole_files

ROOT = Path(__file__).parents[1]
FILES = ROOT / "data" / "samples" / "files"
SHARED = Path(__file__).parents[2] / "shared" / "data"


def written(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sample_surface(vertices, faces, count, generator):
    """Points drawn from a mesh, and the face each lies on."""
    face, weights = draw_on_surface(vertices, faces, count, generator)
    return interpolate(vertices, faces[face], weights), face


def sample_mesh(name: str):
    return make_shape(name, shape_generator("test", name, 0))[0]


# One shape, whatever it is kept in.


@pytest.mark.parametrize("name", ["chair.off", "table.obj", "lamp.stl", "bottle.ply", "sofa.glb"])
def test_a_sample_mesh_is_the_shape_it_was_made_of(name):
    mesh = sample_mesh(name.split(".")[0])
    cloud = read_cloud(FILES / name, num_points=500, seed=3)
    points, face = sample_surface(mesh.vertices, mesh.faces, 500, np.random.default_rng(3))
    # Rounded corners change areas by as little, and with them the face a few points fall on.
    assert np.isclose(cloud.points, points, atol=5e-4).all(1).mean() > 0.9
    assert np.isclose(cloud.normals, mesh.face_normals[face], atol=2e-2).all(1).mean() > 0.9
    assert cloud.points.dtype == cloud.normals.dtype == np.float32
    assert cloud.labels is None


@pytest.mark.parametrize("suffix", ["off", "ply", "obj", "stl", "glb", "gltf"])
def test_a_mesh_is_the_same_in_every_format(tmp_path, suffix):
    mesh = trimesh.load(FILES / "chair.off", process=False)
    path = tmp_path / f"chair.{suffix}"
    if suffix == "gltf":
        files = rotated(mesh, -90, "x").export(file_type="gltf")
        tree = json.loads(files["model.gltf"])
        for buffer in tree["buffers"]:
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(files[buffer["uri"]]).decode()
        path.write_text(json.dumps(tree))
    else:
        (rotated(mesh, -90, "x") if suffix == "glb" else mesh).export(path)
    wanted, got = read_cloud(FILES / "chair.off"), read_cloud(path)
    assert got.points.shape == (1024, 3)
    assert np.allclose(got.points, wanted.points, atol=1e-6)
    assert np.allclose(got.normals, wanted.normals, atol=1e-3)


@pytest.mark.parametrize("names", ["xyzw", "zyx", "xwyz", "wxwywz", "yxz", "xyz"])
def test_columns_with_names_may_stand_anywhere(tmp_path, names):
    rows = np.random.default_rng(0).integers(-9, 9, (20, len(names)))
    wanted = rows[:, [names.index(name) for name in "xyz"]]
    header = ",".join(name if name != "w" else f"{name}{i}" for i, name in enumerate(names))
    assert np.array_equal(
        read_points(written(tmp_path, "a.csv", f"{header}\n{whole_files.rows(rows, separator=',')}")), wanted
    )
    table = np.zeros(20, [(name, "<f4") for name in header.split(",")])
    for name, column in zip(header.split(","), rows.T, strict=True):
        table[name] = column
    assert np.array_equal(read_points(written(tmp_path, "a.npy", npy_of(table))), wanted)
    properties = "".join(f"property float {name}\n" for name in table.dtype.names)
    for encoding, body in (("ascii", whole_files.rows(rows).encode()), ("binary_little_endian", table.tobytes())):
        content = ply(f"element vertex 20\n{properties}", body, encoding)
        assert np.array_equal(read_points(written(tmp_path, f"{encoding}.ply", content)), wanted)


def test_a_cloud_is_the_same_in_every_format(tmp_path):
    points, normals = whole_files.vertices(), whole_files.attributes()
    for kind in ("PLY", "PCD"):
        suffix, makers = whole_files.FORMATS[kind]
        for maker in makers[-1:] if kind == "PLY" else makers:
            cloud = read_cloud(written(tmp_path, f"{maker.__name__}{suffix}", maker()))
            assert np.array_equal(cloud.points, points), maker
            assert np.allclose(cloud.normals[:, 1], normals["ny"], atol=1e-6)
            assert np.array_equal(cloud.labels, normals["label"])
            if kind == "PCD":
                assert np.allclose(cloud.colors, np.float32([255, 128, 0]) / 255)
    for maker, name in ((whole_files.npy, "a.npy"), (whole_files.npz, "b.npz"), (whole_files.hdf5, "c.h5")):
        assert np.array_equal(read_points(written(tmp_path, name, maker())), points)
    for name, separator in (("a.xyz", " "), ("a.csv", ","), ("a.txt", ";"), ("a.pts", "\t")):
        text = whole_files.rows(points, separator=separator)
        assert np.allclose(read_points(written(tmp_path, name, text)), points, rtol=1e-5)


@pytest.mark.parametrize("name", ["stool.xyz", "vase.pcd", "cup.npy", "bowl.npz", "bookshelf.csv"])
def test_a_sample_cloud_is_read_whole_and_in_order(name):
    cloud = read_cloud(FILES / name)
    assert cloud.points.shape == (1024, 3)
    assert cloud[1:] == (None, None, None)
    rng = shape_generator("test", name.split(".")[0], 0)
    mesh, _ = make_shape(name.split(".")[0], rng)
    from pointnet.datasets.shapes import sample_cloud

    assert np.allclose(cloud.points, sample_cloud(mesh, rng)[0][:1024], atol=2e-4)


def test_glb_is_y_up_and_up_says_otherwise(tmp_path):
    taken, turned = read_points(FILES / "sofa.glb", up="z"), read_points(FILES / "sofa.glb")
    assert np.array_equal(turned, taken[:, [0, 2, 1]] * np.float32([1, -1, 1]))
    assert np.array_equal(turned, read_points(FILES / "sofa.glb", up="y"))
    cloud = read_cloud(FILES / "chair.off", up="y")
    upright = read_cloud(FILES / "chair.off")
    assert np.array_equal(cloud.points, upright.points[:, [0, 2, 1]] * np.float32([1, -1, 1]))
    assert np.array_equal(cloud.normals, upright.normals[:, [0, 2, 1]] * np.float32([1, -1, 1]))
    assert read_points(FILES / "sofa.glb")[:, 2].min() > -1e-6, "a sofa stands on the floor"


@pytest.mark.parametrize(
    ("kind", "maker"), [(kind, f) for kind, (_, makers) in whole_files.FORMATS.items() for f in makers]
)
def test_every_whole_file_the_mutants_are_made_of_is_read(tmp_path, kind, maker):
    cloud = mutants.read(kind, written(tmp_path, f"whole{whole_files.FORMATS[kind][0]}", maker()))
    assert cloud.points.shape[0] >= 40
    assert cloud.points.shape[1] == 3


# Drawing.


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
    cloud = read_cloud(written(tmp_path, "a.xyz", whole_files.rows(table)), num_points=30, seed=2)
    assert np.allclose(cloud.points, whole_files.vertices()[cloud.labels], atol=1e-5)


def test_colours_of_corners_are_mixed_and_those_of_faces_are_kept(tmp_path):
    corners = "0 0 0 1 0 0\n1 0 0 0 1 0\n0 1 0 0 0 1\n"
    cloud = read_cloud(written(tmp_path, "a.off", f"COFF\n3 1 0\n{corners}3 0 1 2\n"))
    x, y, _ = cloud.points.T
    assert np.allclose(cloud.colors, np.stack([1 - x - y, x, y], 1), atol=1e-6)
    faces = "4 0 1 2 3 255 0 0\n3 4 5 6 0 0 255\n"
    corners = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n0 0 5\n1 0 5\n0 1 5\n"
    cloud = read_cloud(written(tmp_path, "b.off", f"OFF\n7 2 0\n{corners}{faces}"))
    assert np.array_equal(cloud.colors[:, 2] == 1, cloud.points[:, 2] == 5)
    assert np.array_equal(cloud.colors[:, 0] == 1, cloud.points[:, 2] == 0)


# What a file may look like.

TRIANGLE = "0 0 0\n1 0 0\n0 1 0\n"


@pytest.mark.parametrize(
    "text",
    [
        f"OFF\n3 1 0\n{TRIANGLE}3 0 1 2\n",
        f"OFF3 1 0\n{TRIANGLE}3 0 1 2",
        f"OFF 3 1\n{TRIANGLE}3 0 1 2\n\n\n",
        f"\n\toff 3 1 0 # why not\n#\n\n{TRIANGLE}\n\n3 0 1 2 # a face\n",
        f"OFF\r\n3 1 0\r\n{TRIANGLE}3 0 1 2\r\n".replace("0\n", "0\r\n"),
        f"OFF\r3 1 0\r{TRIANGLE}3 0 1 2\r".replace("\n", "\r"),
        f"OFF\n3 1 0\n\n{TRIANGLE}\n3  0 1 2 0.5 0.5 0.5\n",
        "NOFF\n3 1 0\n0 0 0 0 0 1\n1 0 0 0 0 1\n0 1 0 0 0 1\n3 0 1 2\n",
        "STOFF\n3 1 0\n0 0 0 .5 .5\n1 0 0 .5 .5\n0 1 0 .5 .5\n3 0 1 2 255 255 0 0\n",
        f"OFF\n3 3 0\n{TRIANGLE}2 0 1\n1 2\n3 0 1 2\n",
    ],
)
def test_off_is_read_however_it_is_laid_out(tmp_path, text):
    points = read_points(written(tmp_path, "a.off", text), 50)
    assert np.array_equal(points, read_points(written(tmp_path, "b.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 2\n"), 50))


def test_polygons_of_any_size_are_whole_in_every_format(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    rim = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    corners, ring = whole_files.rows(rim), " ".join(map(str, range(7)))
    as_ply = ply(f"element vertex 7\n{XYZ}element face 2\n{LIST}", f"{corners}7 {ring}\n3 0 0 1\n".encode())
    obj = whole_files.rows(rim, "v ") + "f -7 -6 -5/2 -4//3 5 6 7/1/1\nf 1 1 2\n"
    for name, text in (("a.off", f"OFF\n7 2 0\n{corners}7 {ring}\n3 0 0 1\n"), ("a.ply", as_ply), ("a.obj", obj)):
        points = read_points(written(tmp_path, name, text), 4000)
        assert np.allclose(points.mean(0), 0, atol=0.03), name
        assert np.abs(points[:, :2]).max() > 0.9, name


def test_ply_lists_may_have_lengths_and_corners_of_any_width(tmp_path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], ">f4").tobytes()
    faces = b"\0\3\0\1\2" + b"\0\2\0\1" + b"\0\4\0\1\3\2"
    header = f"element vertex 4\n{XYZ}element face 3\nproperty list ushort uchar vertex_index\n"
    contents = readers.contents_of(written(tmp_path, "a.ply", ply(header, corners + faces, "binary_big_endian")))
    assert contents.faces.tolist() == [[0, 1, 2], [0, 1, 3], [0, 3, 2]]


def test_ply_reads_both_byte_orders_and_faces_of_different_sizes(tmp_path):
    wanted = read_cloud(written(tmp_path, "text.ply", whole_files.ply_text()), 200)
    mixed = read_cloud(written(tmp_path, "mixed.ply", whole_files.ply_polygons()), 200)
    table = whole_files.attributes()
    shades = np.stack([table[name][:4] for name in ("red", "green", "blue")], 1) / np.float32(255)
    assert (shades.min(0) - 1e-6 <= mixed.colors).all()
    assert (mixed.colors <= shades.max(0) + 1e-6).all()
    faces = np.zeros(60, [("size", "u1"), ("corners", ">i4", 3)])
    faces["size"], faces["corners"] = 3, whole_files.triangles()
    big = (
        whole_files.ply_header("binary_big_endian", 60).encode() + table.astype(table.dtype.newbyteorder(">")).tobytes()
    )
    little = read_cloud(written(tmp_path, "little.ply", whole_files.ply_bytes()), 200)
    big_endian = read_cloud(written(tmp_path, "big.ply", big + faces.tobytes()), 200)
    for one, other in zip(little[:3], big_endian[:3], strict=True):
        assert np.array_equal(one, other)
    assert wanted.points.shape == mixed.points.shape
    corners = table[["x", "y", "z"]][:4].tolist()
    assert mixed.points.max() <= np.max(corners)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("1 2 3\n4 5 6\n", ""),
        ("# made by hand\n1 2 3\n4 5 6\n", ""),
        ("2\n1 2 3\n4 5 6\n", ""),
        ("\ufeff1\t2\t3\r\n4\t5\t6\r\n", ""),
        ("1,0;2,0;3,0\n4,0;5,0;6,0\n", ""),
        ("1 2 3 7\n4 5 6 8\n", "labels"),
        ("1 2 3 0.7\n4 5 6 0.8\n", ""),
        ("1 2 3 0 0 1\n4 5 6 0 1 0\n", "normals"),
        ("1 2 3 0 0 10\n4 5 6 0 255 0\n", "colors"),
        ("1 2 3 0 0 -10\n4 5 6 0 1 0\n", ""),
        ("1 2 3 0 0 1 7\n4 5 6 0 1 0 8\n", "normals labels"),
        ("1 2 3 0 0 200 0 0 1\n4 5 6 0 1 100 1 0 0\n", "normals colors"),
        ("x y z\n1 2 3\n4 5 6\n", ""),
        ("//X,Y,Z,R,G,B,Label\n1,2,3,9,9,9,7\n4,5,6,9,9,9,8\n", "colors labels"),
        ('"label","z","y","x"\n7,3,2,1\n8,6,5,4\n', "labels"),
        ("x,y,z,name,nx,ny,nz\n1,2,3,wood,0,0,2\n4,5,6,tin,0,2,0\n", "normals"),
        (",x,y,z\n0,1,2,3\n1,4,5,6\n", ""),
        ("point id,x,y,z,intensity\n7,1,2,3,99\n8,4,5,6,98\n", ""),
        ("GPS time\tX\tY\tZ\n0.5\t1\t2\t3\n0.6\t4\t5\t6\n", ""),
        ("x;y;z;note\n1,0;2,0;3,0;\n4,0;5,0;6,0;cut, here\n", ""),
        ("name,x,y,z\na chair,1,2,3\na table,4,5,6\n", ""),
        ("x,y,z\n1 2 3\n4 5 6\n", ""),
        ("x,y,z,x,y,z\n1,2,3,9,9,9\n4,5,6,9,9,9\n", ""),
        ("1,2,3,\n4,5,6,\n", ""),
        ("1\t\t2  3\n4\t5\t6\n", ""),
        ("1\t2\t3\t\n4\t5\t6\t\n", ""),
        ("\t1\t2\t3\n\t4\t5\t6\n", ""),
        ("1\t2\t3\n4 5\t\t6\n", ""),
        ("x\ty\tz\t\n1\t2\t3\t\n4\t5\t6\t\n", ""),
        ("1,2,3\n\n4,5,6\n \n", ""),
        ("//X,Y,Z\n// 2 points\n1,2,3\n4,5,6\n", ""),
        ("# x y z of a chair\n1 2 3\n4 5 6\n", ""),
    ],
)
def test_text_is_read_by_its_names_or_by_what_its_numbers_can_be(tmp_path, text, has):
    cloud = read_cloud(written(tmp_path, "a.txt", text))
    assert np.array_equal(cloud.points, [[1, 2, 3], [4, 5, 6]])
    assert [name for name in ("normals", "colors", "labels") if getattr(cloud, name) is not None] == has.split()
    if cloud.normals is not None:
        assert np.allclose(np.linalg.norm(cloud.normals, axis=1), 1)
    if cloud.labels is not None:
        assert cloud.labels.tolist() == [7, 8]
    if cloud.colors is not None:
        assert 0 <= cloud.colors.min() < cloud.colors.max() <= 1 or cloud.colors.max() == np.float32(9 / 255)


def test_the_colours_of_pts_stand_behind_the_intensity(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.pts", "2\n1 2 3 40 255 0 51\n4 5 6 40 0 255 0\n"))
    assert np.allclose(cloud.colors, [[1, 0, 0.2], [0, 1, 0]])
    assert cloud.labels is None


def test_colours_are_of_255_of_65535_or_of_1():
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0), (np.float64, 255.0)):
        colors = as_unit_colors(np.array([[most, 0, most / 5]]).astype(dtype))
        assert np.allclose(colors, [[1, 0, 0.2]], atol=1e-6), dtype
    assert as_unit_colors(np.array([[1, 0, 1]], np.uint8)).max() == np.float32(1 / 255)
    assert as_unit_colors(np.array([[np.nan, -3, 0.5]])).tolist() == [[0, 0, 0.5]]


def test_rows_and_faces_that_are_not_finite_are_left_out(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.xyz", "1 2 3 0\nnan 2 3 1\n4 5 6 2\n1 inf 3 3\n1 1e39 1 4\n"))
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.labels.tolist() == [0, 2]
    points = read_points(written(tmp_path, "a.off", f"OFF\n4 2 0\n{TRIANGLE}nan 1 1\n3 0 1 2\n3 0 1 3\n"))
    assert (points[:, 2] == 0).all()


def test_normals_are_columns_beside_the_points(tmp_path):
    both = read_points(FILES / "chair.off", normals=True)
    assert both.shape == (1024, 6)
    assert np.array_equal(both[:, :3], read_points(FILES / "chair.off"))
    assert np.allclose(np.linalg.norm(both[:, 3:], axis=1), 1, atol=1e-6)
    with pytest.raises(PointCloudFileError, match=r"stool\.xyz: has no normals"):
        read_points(FILES / "stool.xyz", normals=True)


def test_the_suffix_may_be_written_in_any_case(tmp_path):
    path = written(tmp_path, "CHAIR.OFF", (FILES / "chair.off").read_bytes())
    assert np.array_equal(read_points(path), read_points(str(FILES / "chair.off")))


def test_a_scene_is_its_meshes_where_its_nodes_put_them(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.glb", whole_files.glb()), 4000, up="z")
    scene = trimesh.load(tmp_path / "a.glb").to_mesh()
    assert np.allclose(cloud.points.mean(0), trimesh.sample.sample_surface(scene, 4000, seed=0)[0].mean(0), atol=0.15)
    assert np.allclose(cloud.colors, 200 / 255)
    assert cloud.points[:, 1].max() > 8, "the second copy is where its parent puts it"


@pytest.mark.parametrize("scale", [[1, 1, 1], [-1, 1, 1], [2, -3, 1], [-1, -1, 1]])
def test_outside_stays_outside_in_a_mirror(tmp_path, scale):
    tree, _ = whole_files.gltf_tree(None)
    tree |= {"scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "scale": scale}]}
    tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}}]}]
    tree["accessors"] = [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}]
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    tree["bufferViews"] = [{"buffer": 0, "byteLength": 36}]
    path = written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), corners))
    assert (read_cloud(path, up="z").normals == [0, 0, 1]).all()


@pytest.mark.parametrize("scale", [[1, 1, 1], [-1, 1, 1], [2, -3, 1], [-1, -1, -1]])
def test_a_clouds_normals_point_outside_in_a_mirror(tmp_path, scale):
    tree, _ = whole_files.gltf_tree(None)
    tree |= {"scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "scale": scale}]}
    tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 0}, "mode": 0}]}]
    tree["accessors"] = [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}]
    tree["bufferViews"] = [{"buffer": 0, "byteLength": 36}]
    outward = np.eye(3, dtype="<f4").tobytes()  # of the unit sphere, each point is its own normal
    cloud = read_cloud(written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), outward)), up="z")
    assert np.array_equal(cloud.normals, np.sign(cloud.points))


def test_our_parsers_find_the_surface_trimesh_finds():
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}")
    paths = [path for path in [*FILES.iterdir(), *(SHARED / "formats").iterdir()] if not path.stem.startswith("empty")]
    compared = 0
    for path in paths:
        contents = readers.contents_of(path)
        if contents.faces is None:
            continue
        mesh = trimesh.load(path, process=False, skip_materials=True)
        mesh = mesh.to_mesh() if isinstance(mesh, trimesh.Scene) else mesh
        ours = trimesh.Trimesh(contents.vertices, contents.faces, process=False)
        assert ours.area == pytest.approx(mesh.area, rel=1e-5), path
        assert np.allclose(ours.bounds, mesh.bounds, rtol=1e-6), path
        compared += 1
    assert compared >= 15


# What is not asked for, and large clouds.


@pytest.mark.parametrize("extras", [(), ("normals",), ("labels", "colors")], ids=str)
def test_what_is_not_wanted_is_left_out_and_the_rest_is_as_it_is(tmp_path, extras):
    kinds = [
        whole_files.FORMATS[kind]
        for kind in ("OFF", "PLY", "OBJ", "STL", "GLB", "PCD", "XYZ", "CSV", "NPY", "NPZ", "HDF5")
    ]
    made = [(f"{maker.__name__}{suffix}", maker) for suffix, makers in kinds for maker in makers]
    files = [written(tmp_path, name, maker()) for name, maker in made]
    left_out = 0
    for path in [*files, *sorted(FILES.iterdir())]:
        whole, some = read_cloud(path), read_cloud(path, extras=extras)
        for name, wanted, got in zip(whole._fields, whole, some, strict=True):
            if wanted is None or name in ("points", *extras):
                np.testing.assert_array_equal(got, wanted, err_msg=f"{path.name} {name}")
            else:
                assert got is None, (path.name, name)
                left_out += 1
    assert left_out > 10


def test_precise_keeps_every_digit_of_a_coordinate(tmp_path):
    rows = np.array([[5e5 + 1 / 3, 4e6 + 1 / 7, 1 / 9], [-1e-9, 1e30, 3.0], [1e300, 0, 0]])
    np.save(tmp_path / "far.npy", rows)
    found = read_cloud(tmp_path / "far.npy", precise=True).points
    assert found.dtype == np.float64
    assert np.array_equal(found, rows[:2]), "what has no float32 is left out as ever"
    assert np.array_equal(
        read_cloud(tmp_path / "far.npy", precise=True, up="y").points, rows[:2, [0, 2, 1]] * (1, -1, 1)
    )
    assert np.array_equal(read_cloud(tmp_path / "far.npy").points, rows[:2].astype(np.float32))
    drawn = read_cloud(FILES / "chair.off", precise=True).points
    assert np.array_equal(drawn.astype(np.float32), read_points(FILES / "chair.off"))
    assert (drawn != drawn.astype(np.float32)).any()


def test_a_mesh_alone_gives_as_many_points_as_are_asked_of_meshes():
    sizes = [len(read_cloud(FILES / name, mesh_points=77).points) for name in ("chair.off", "stool.xyz")]
    assert sizes == [77, 1024]
    assert len(read_cloud(FILES / "chair.off", 5, mesh_points=77).points) == 5


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


LARGE = 200_000
SCANNED = np.dtype([(name, "<f8") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
                   + [(name, "<f4") for name in ("nx", "ny", "nz")])  # fmt: skip


def scan() -> np.ndarray:
    """As a scanner has it: in double precision, far from the origin, with colours and normals."""
    table = np.zeros(LARGE, SCANNED)
    for i, name in enumerate("xyz"):
        table[name] = np.linspace(0, i + 1, LARGE) ** 2 + 5000
    table["nz"] = 1
    return table


def lines(row: bytes, before: bytes = b"") -> bytes:
    return before + row * LARGE


def scanned_ply() -> bytes:
    kinds = {"<f8": "double", "|u1": "uchar", "<f4": "float"}
    properties = "".join(f"property {kinds[SCANNED[name].str]} {name}\n" for name in SCANNED.names)
    return ply(f"element vertex {LARGE}\n{properties}", scan().tobytes(), "binary_little_endian")


def cloud_glb() -> bytes:
    points = np.ones((LARGE, 3), "<f4")
    tree = {
        "asset": {"version": "2.0"},
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": LARGE, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": points.nbytes}],
        "buffers": [{"byteLength": points.nbytes}],
    }
    return whole_files.as_glb(json.dumps(tree).encode(), points.tobytes())


ROW = b"512.125 480.250 101.375\n"
CLOUDS = {
    "double.npy": lambda: npy_of(np.stack([scan()[name] for name in "xyz"], 1)),
    "named.npy": lambda: npy_of(scan()),
    "double.npz": lambda: npz_of(points=npy_of(np.ones((LARGE, 3))), normals=npy_of(np.ones((LARGE, 3)))),
    "scanned.ply": scanned_ply,
    "text.ply": lambda: ply(f"element vertex {LARGE}\n{XYZ}", lines(ROW)),
    "windows.ply": lambda: ply(f"element vertex {LARGE}\n{XYZ}", lines(ROW)).replace(b"\n", b"\r\n"),
    "text.pcd": lambda: pcd(WIDTH=str(LARGE), POINTS=str(LARGE))[:-12] + lines(ROW),
    "cloud.off": lambda: lines(ROW, f"OFF\n{LARGE} 0 0\n".encode()),
    "cloud.obj": lambda: lines(b"v " + ROW),
    "seven.txt": lambda: lines(ROW[:-1] + b" 311 120 33 9\n"),
    "named.csv": lambda: lines(ROW.replace(b" ", b",")[:-1] + b",120,33,9\n", b"x,y,z,r,g,b\n"),
    "cloud.glb": cloud_glb,
}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_few_points_of_five_million_take_less_than_285_mb(tmp_path, name):
    """57 bytes a point, and a little for what is looked at together: read within 600 MB by a process of 315 MB."""
    path = written(tmp_path, name, CLOUDS[name]())
    read_points(FILES / "chair.off", 9)  # which imports what is imported when it is first needed
    tracemalloc.start()
    assert len(read_cloud(path, 100, repeat=True, normalize=True, extras=()).points) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 57 * LARGE + 3_000_000


@given(st.lists(st.lists(st.integers(0, 10**6), max_size=5), max_size=30), st.sampled_from(["\n", "\r\n"]), st.data())
def test_lines_are_counted_without_the_blank_ones_in_blocks_of_any_size(rows, ending, data):
    text = ending.join(" ".join(map(str, row)) for row in rows).encode()
    count = data.draw(st.integers(0, len(rows)))
    filled = [i for i, row in enumerate(rows) if row]
    taken = rows[: filled[count - 1] + 1] if 0 < count <= len(filled) else rows if count else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "BLOCK", data.draw(st.integers(1, 50)))
        found, end = numbers_of_lines(b"?" + text, 1, count)
    assert found.tolist() == [number for row in taken for number in row]
    rest = text[end - 1 :].split()
    assert [int(word) for word in rest] == [number for row in rows[len(taken) :] for number in row]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_text_is_the_same_however_many_lines_are_read_at_once(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_module, "BLOCK", block)
    rows = np.random.default_rng(0).normal(size=(10, 6))
    path = written(tmp_path, "a.txt", "# a comment\n" + whole_files.rows(rows) + "\n\n")
    np.testing.assert_allclose(read_points(path), rows[:, :3], rtol=1e-5)
    for name, text, reason in (
        ("b.txt", whole_files.rows(rows) + "1 2 3\n", "the number of columns changed from 6 to 3 at row 11"),
        ("c.txt", whole_files.rows(rows[:, :3]) + "1 2 x\n", "could not convert string 'x' to float64 at row 10"),
    ):
        for extras in ((), ("normals", "colors", "labels")):
            with pytest.raises(PointCloudFileError, match=reason):
                read_cloud(written(tmp_path, name, text), extras=extras)


def table_of_bytes(columns: int) -> bytes:
    return npy_of(np.ones((4_000_000 // columns, columns), np.int8))


# Files that take the most memory for their size: the shortest lines and the smallest numbers there can be.
GREEDY = {
    "polygons.off": lambda: "OFF\n300000 500000 0\n" + "0 0 0\n" * 300_000 + "1 0\n" * 500_000,
    "triangles.off": lambda: "OFF\n3 500000 0\n0 0 0\n1 0 0\n0 1 0\n" + "3 0 1 2\n" * 500_000,
    "coloured.off": lambda: "OFF\n3 300000 0\n0 0 0\n1 0 0\n0 1 0\n" + "3 0 1 2 1 1 1\n" * 300_000,
    "blank.off": lambda: "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n" + "\n" * 4_000_000 + "3 0 1 2\n",
    "vertices.obj": lambda: "v 0 0 0\n" * 500_000,
    "faces.obj": lambda: "v 0 0 0\nv 1 0 0\nv 0 1 0\n" + "f 1 2 3\n" * 500_000,
    "back.obj": lambda: "v 0 0 0\nv 1 0 0\nv 0 1 0\n" + "f -1 -2 -3 -1\n" * 300_000,
    "facets.stl": lambda: "solid\n" + "vertex 0 1 0\nvertex 1 0 0\nvertex 0 0 0\n" * 100_000 + "endsolid",
    "short.ply": lambda: ply(
        f"element vertex 600000\n{XYZ}element face 9\n{LIST}", b"0 0 0\n" * 600_000 + b"1 0\n" * 9
    ),
    "mixed.ply": lambda: ply(
        f"element vertex 3\n{XYZ}element face 300001\n{LIST}",
        np.eye(3, dtype="<f4").tobytes() + b"\2" + bytes(8) + (b"\3" + np.arange(3, dtype="<i4").tobytes()) * 300_000,
        "binary_little_endian",
    ),
    "zeros.xyz": lambda: "0 0 0\n" * 600_000,
    "six.xyz": lambda: "0 0 0 0 0 1\n" * 300_000,
    "named.csv": lambda: "x,y,z,nx,ny,nz,r,g,b,label\n" + "0,0,0,0,0,1,0,0,0,1\n" * 200_000,
    "zeros.pcd": lambda: pcd(WIDTH="500000", POINTS="500000")[:-12] + b"0 0 0\n" * 500_000,
    "three.npy": lambda: table_of_bytes(3),
    "nine.npy": lambda: table_of_bytes(9),
}


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_all_arrays_of_a_file_share_what_it_may_ask_for(tmp_path, suffix):
    path, rows = tmp_path / f"a{suffix}", np.ones((1_000_000, 3))
    names = ("points", "normals", "colors")
    if suffix == ".npz":
        np.savez_compressed(path, **dict.fromkeys(names, rows))
    else:
        with h5py.File(path, "w") as file:
            for name in names:
                file.create_dataset(name, data=rows, compression="gzip")
    assert len(read_cloud(path, 9, extras=("normals",)).points) == 9
    with pytest.raises(PointCloudFileError, match="24000(128|000) bytes, more than"):
        read_cloud(path, 9)


@pytest.mark.parametrize("name", GREEDY)
def test_no_file_takes_more_than_ten_times_its_size(tmp_path, name):
    content = GREEDY[name]()
    path = written(tmp_path, name, content)
    tracemalloc.start()
    with contextlib.suppress(PointCloudFileError):
        read_points(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2_000_000 < len(content) < peak < 10 * len(content) + 20_000_000


# What is refused.


def ply(elements: str, body: bytes = b"", encoding: str = "ascii") -> bytes:
    return f"ply\nformat {encoding} 1.0\n{elements}end_header\n".encode() + body


XYZ = "property float x\nproperty float y\nproperty float z\n"
LIST = "property list uchar int vertex_indices\n"


def npy_claim(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


def npz_of(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def npy_of(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def pcd(**changes: str) -> bytes:
    header = {"FIELDS": "x y z", "SIZE": "4 4 4", "TYPE": "F F F", "COUNT": "1 1 1", "WIDTH": "2", "HEIGHT": "1"}
    header |= {"POINTS": "2", "DATA": "ascii"} | changes
    return "".join(f"{key} {value}\n" for key, value in header.items()).encode() + b"1 2 3\n4 5 6\n"


def gltf(**changes: object) -> bytes:
    return json.dumps(whole_files.gltf_tree("data:;base64,AAAA")[0] | changes).encode()


def many_copies() -> bytes:
    tree, binary = whole_files.gltf_tree(None)
    tree["nodes"] = [{"mesh": 0}] * 40_000
    tree["scenes"][0]["nodes"] = list(range(40_000))
    big = np.zeros((300_000, 3), np.float32).tobytes()
    tree["accessors"][0] = {"bufferView": 0, "componentType": 5126, "count": 300_000, "type": "VEC3"}
    tree["bufferViews"][0] = {"buffer": 0, "byteLength": len(big)}
    return whole_files.as_glb(json.dumps(tree).encode(), big)


def a_count_of(count: str) -> bytes:
    tree, binary = whole_files.gltf_tree(None)
    tree["accessors"][0]["count"] = "how many"
    return whole_files.as_glb(json.dumps(tree).replace('"how many"', count).encode(), binary)


def hdf5_of(**arrays: object) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


def hdf5_bomb() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("points", data=np.zeros((10_000_000, 3), "f4"), chunks=(10_000_000, 3), compression="gzip")
    return stream.getvalue()


def hdf5_with_a_plugin() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((4, 3))
        settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((4, 3))
        h5py.h5d.create(file.id, b"points", h5py.h5t.NATIVE_FLOAT, space, settings).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((4, 3), "f4")
        )
    return stream.getvalue()


REFUSED = [
    ("a.off", b"", "is empty"),
    ("a.off", b"solid\n", "does not begin with OFF, but with 'solid'"),
    ("a.off", "OFF BINARY\n3 1 0\n", "is OFF of a variant that is not read"),
    ("a.off", "4OFF\n3 1 0\n", "is OFF of a variant that is not read"),
    ("a.off", "OFF\nmany few\n", "must give its numbers of vertices and faces after OFF, got 'many few'"),
    ("a.off", "OFF\n0 0 0\n", "declares no vertices"),
    ("a.off", f"OFF\n4000000000 1 0\n{TRIANGLE}", "declares 4000000000 vertices, more than the file holds"),
    ("a.off", f"OFF\n3 4000000000 0\n{TRIANGLE}", "declares 4000000000 faces, more than the file holds"),
    ("a.off", f"OFF\n4 1 0\n{TRIANGLE}3 0 1 2\n", "declares 4 vertices of at least 3 numbers, a line each"),
    ("a.off", f"OFF\n2 1 0\n{TRIANGLE}3 0 1 2\n", "declares 1 faces, holds 2 lines of them"),
    ("a.off", f"OFF\n3 2 0\n{TRIANGLE}3 0 1 2\n", "declares 2 faces, holds 1 lines of them"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 3\n", "a face names vertex 3, but there are 3 vertices, counted from 0"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 -1\n", "a face names vertex -1, but there are 3 vertices"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 99999999999999999999\n", "a face names vertex 9223372036854775807"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}5 0 1 2\n", "a face declares 5 corners and has 3 numbers behind"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}700000" + " 0" * 700_000 + "\n", "has a line of more than 1000000 bytes"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 1.5\n", "a face names vertex 1.5"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 two\n", "holds something that is not a number: 'two'"),
    ("a.off", "OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n", "no face has an area to draw points from"),
    ("a.off", "OFF\n3 1 0\n0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n", "has no face with coordinates that are finite"),
    ("a.off", "OFF\n3 1 0\n0 0 0\n1e39 0 0\n0 1e39 0\n3 0 1 2\n", "has coordinates too large for 32 bits"),
    ("a.ply", "OFF\n", "does not begin with ply, but with 'OFF"),
    ("a.ply", "ply\nformat ascii 1.0\n", "has no end_header"),
    ("a.ply", "ply\nelement vertex 1\nproperty float x\nend_header\n1\n", "does not say its format"),
    ("a.ply", ply("element vertex many\n"), "has in its header 'element vertex many'"),
    ("a.ply", ply("element vertex 1\nproperty quad x\n", b"1\n"), "has in its header 'property quad x'"),
    ("a.ply", ply("element vertex 0\n" + XYZ), "holds no vertices"),
    ("a.ply", ply("element face 1\nproperty list float int vertex_indices\n", b"3 0 1 2\n"), "length is no integer"),
    ("a.ply", ply("element vertex 9000000\n" + XYZ, b"1 2 3\n"), "declares 9000000 of element 'vertex', more than"),
    ("a.ply", ply("element vertex 5\n" + XYZ, bytes(48), "binary_big_endian"), "declares 5 of element 'vertex', more"),
    ("a.ply", ply("element vertex 2\n" + XYZ, b"10 20 30\n40 50\n"), "those lines hold 5 numbers"),
    ("a.ply", ply("element vertex 1\nproperty float x\n", b"1\n"), "names no columns x, y and z, only x"),
    ("a.ply", ply("element vertex 1\n" + LIST, b"1 2 3\n"), "has lists in its element 'vertex'"),
    ("a.ply", ply(f"element vertex 1\n{XYZ}element face 1\n{LIST}", b"1 2 3\n3 0 0 7\n"), "a face names vertex 7"),
    (
        "a.ply",
        ply(f"element vertex 1\n{XYZ}element face 2\n{LIST}", bytes(12) + b"\3\0\0\0\0\xff", "binary_little_endian"),
        "is cut short in face 0",
    ),
    ("a.obj", "# nothing\n", "holds no vertices"),
    ("a.obj", "v 1 2\n", "has a vertex of fewer than three numbers: '1 2'"),
    ("a.obj", "v 0 0 0\nf 1 1 2\n", "a face names vertex 1, but there are 1 vertices, counted from 0"),
    ("a.obj", "v 0 0 0\nf 0 1 1\n", "a face names vertex 0, but OBJ counts from 1"),
    ("a.obj", "v 0 0 0\nf -1 -2 -1\n", "a face names vertex 9223372036854775806"),
    ("a.stl", bytes(80) + (7).to_bytes(4, "little") + bytes(50), "declares 7 triangles of 50 bytes after its header"),
    ("a.stl", bytes(80) + (1).to_bytes(4, "little") + bytes(90), "declares 1 triangles of 50 bytes after its header"),
    ("a.stl", "solid a\nvertex 0 0 0\n", "is cut short: it does not end with endsolid"),
    ("a.stl", "solid a\nvertex 0 0 0\nvertex 0 0\nendsolid\n", "has a vertex without three numbers"),
    ("a.stl", "solid a\nvertex 0 0 0\nvertex 0 0 1\nendsolid\n", "must have three vertices a triangle, got 2"),
    ("a.stl", "solid a\nendsolid\n".ljust(90), "holds no triangle"),
    ("a.glb", b"PK\3\4" + bytes(40), r"does not begin with glTF, but with 'PK\x03\x04'"),
    ("a.glb", whole_files.glb()[:-20], "must be of version 2 and whole, got version 2 and "),
    (
        "a.gltf",
        gltf(buffers=[{"uri": "far.bin"}]),
        "bytes in another file, which is not opened: 'far.bin'",
    ),
    ("a.gltf", gltf(), "accessor 0 declares 40 rows, more than its buffer holds"),
    ("a.gltf", gltf(asset={"version": "1.0"}), "is not glTF 2"),
    ("a.gltf", gltf(nodes=[{"children": [1]}, {"children": [0]}]), "has two parents, or is its own descendant"),
    ("a.gltf", gltf(nodes=[{"mesh": 4}, {}]), "refers to meshes '4', but has 1"),
    ("a.gltf", gltf(extensionsRequired=["KHR_draco_mesh_compression"]), "compressed with KHR_draco_mesh_compression"),
    ("a.gltf", gltf(nodes=[{}] * 600_000), "describes more than 500000 things in its JSON"),
    (
        "a.gltf",
        b'{"asset":' + b"[" * 100_000,
        "is not a readable GLTF file (damaged, cut short or of another format)",
    ),
    ("a.glb", many_copies(), "more than a file of its size may ask for"),
    ("a.glb", a_count_of("-9"), "accessor 0 declares '-9' rows"),
    ("a.glb", a_count_of("NaN"), "accessor 0 declares 'nan' rows"),
    ("a.glb", a_count_of("3.5"), "accessor 0 declares '3.5' rows"),
    ("a.glb", a_count_of("true"), "accessor 0 declares 'True' rows"),
    ("a.xyz", "\n\n \n", "holds no points"),
    ("a.xyz", "1 2\n3 4\n", "must have at least 3 columns, x, y and z, got 2"),
    ("a.xyz", "1 2 3\n4 5\n6 7 8 9\n", "is not a table of numbers: the number of columns changed from 3 to 2"),
    ("a.xyz", "1 2 3\n4 five 6\n", "is not a table of numbers: could not convert string 'five' to float64"),
    ("a.xyz", "<html>404</html>\n", "begins with '<html>404</html>', neither numbers nor names of columns"),
    ("a.xyz", "1 2 3\n".encode("utf-16"), "is not text of one byte a letter"),
    ("a.pts", "3\n1 2 3\n4 5 6\n", "declares 3 points, holds 2"),
    ("a.csv", "x,y,z\n0,10,20,30\n", "names 3 columns, but its first row has 4"),
    ("a.csv", "x,y,z,r,g,b\n10,20,,1,2,3\n", "could not convert string '' to float64 at row 0, column 3"),
    ("a.csv", "10,20,30\n10,,30\n", "could not convert string '' to float64 at row 1, column 2"),
    ("a.csv", "10,,20,30\n", "begins with '10,,20,30', neither numbers nor names of columns"),
    ("a.txt", "1,5 2,5 3,5\n", "begins with '1,5 2,5 3,5', neither numbers nor names of columns"),
    ("a.xyz", "nan nan nan\n", "has no point whose coordinates are finite"),
    ("a.pcd", b"VERSION 0.7\n", "has no FIELDS in its header"),
    ("a.pcd", pcd(POINTS="3"), "declares 3 points, but WIDTH x HEIGHT is 2"),
    ("a.pcd", pcd(WIDTH="9000000", POINTS="9000000"), "declares 9000000 points of 3 values, more than the file holds"),
    ("a.pcd", pcd(WIDTH="1", POINTS="1"), "declares 1 points of 3 values, a line each, holds 6 values"),
    ("a.pcd", pcd(DATA="binary"), "declares 2 points of 12 bytes, holds 12 bytes of them"),
    ("a.pcd", pcd(DATA="xml"), "DATA must be ascii, binary or binary_compressed, got 'xml'"),
    ("a.pcd", pcd(SIZE="4 4 3"), "TYPE and SIZE must be I or U of 1, 2, 4 or 8, or F of 4 or 8, got 'F3'"),
    ("a.pcd", pcd(COUNT="1 1 9000000"), "declares 9000002 values a point"),
    ("a.pcd", pcd(FIELDS="a b c"), "names no columns x, y and z, only a, b, c"),
    ("a.pcd", pcd(DATA="binary_compressed"), "declares 2 points of 12 bytes, but "),
    ("a.npy", npy_of(np.array([{"a": 1}], object)), "holds Python objects, which are not loaded"),
    ("a.npy", npy_claim("(1000000000, 3)"), "declares an array of (1000000000, 3), 12000000000 bytes, but holds 64"),
    ("a.npy", npy_claim("(3,)"), "the array must be (N, 3) or a little wider, got (3,)"),
    ("a.npy", npy_claim("(4, 1)"), "the array must be (N, 3) or a little wider, got (4, 1)"),
    ("a.npy", npy_claim("(2, 3)", "'<U2'"), "the array must be numbers, got <U2"),
    ("a.npz", npz_of(stuff=npy_of(np.zeros(3))), "holds no array named points, xyz, pos, data, only 'stuff'"),
    ("a.npz", npz_of(points=npy_of(np.zeros((10_000_000, 3)))), "unpacks to 240000128 bytes, more than is allowed"),
    ("a.npz", npz_of(**{f"a{i}": b"" for i in range(1001)}), "holds more than 1000 members"),
    ("a.npz", npz_of(zipfile.ZIP_LZMA, points=npy_of(np.zeros((4, 3)))), "is packed in a way numpy does not write"),
    ("a.npz", npz_of(points=npy_of(np.zeros((4, 3))), labels=npy_of(np.zeros(5))), "holds 4 points but 5 labels"),
    ("a.h5", "<html>404</html>", "is not a readable HDF5 file (damaged, cut short or of another format)"),
    ("a.h5", hdf5_of(stuff=[1]), "holds no array named points, xyz, pos, data, only 'stuff'"),
    ("a.h5", hdf5_of(data=np.zeros((2, 8, 3))), "points must be (N, 3) or a little wider, got (2, 8, 3)"),
    ("a.h5", hdf5_of(points=h5py.SoftLink("/other")), "'points' is a link, which is not followed"),
    ("a.h5", hdf5_of(points=h5py.ExternalLink("b.h5", "a")), "'points' is a link, which is not followed"),
    ("a.h5", hdf5_bomb(), "data set 'points' takes 120000000 bytes, more than its file may declare"),
    ("a.h5", hdf5_with_a_plugin(), "data set 'points' is packed with filter 32015, which is not read"),
    (
        "a.step",
        "ISO-10303-21;",
        "its suffix must be one of OFF, PLY, OBJ, STL, GLB, GLTF, PCD, XYZ, TXT, CSV, PTS",
    ),
    ("a", "1 2 3", "its suffix must be one of"),
]


@pytest.mark.parametrize(
    ("name", "content", "reason"), REFUSED, ids=[f"{name} {reason[:40]}" for name, _, reason in REFUSED]
)
def test_what_cannot_be_used_is_one_line_with_the_path_and_the_reason(tmp_path, name, content, reason):
    path = written(tmp_path, name, content)
    with pytest.raises(PointCloudFileError) as caught:
        read_cloud(path)
    message = str(caught.value)
    assert reason in message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 320
    assert caught.value.path == path


def test_a_line_break_in_the_path_leaves_the_message_one_line(tmp_path):
    with pytest.raises(PointCloudFileError) as caught:
        read_points(tmp_path / "a\nb.off")
    assert str(caught.value).endswith("a\\nb.off: no such file")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(PointCloudFileError, match="no such file"):
        read_points(tmp_path / "nowhere.off")
    (tmp_path / "folder.off").mkdir()
    with pytest.raises(PointCloudFileError, match="is a folder, not a file"):
        read_points(tmp_path / "folder.off")


def test_wrong_arguments_are_value_errors_that_name_no_file():
    for arguments, reason in (
        ({"num_points": 0}, "num_points must be at least 1, got 0"),
        ({"seed": -1}, "non-negative"),
        ({"up": "x"}, "up must be one of None, 'z', 'y', got 'x'"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            read_points(FILES / "chair.off", **arguments)
        assert not isinstance(caught.value, PointCloudFileError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\nlines"),
        KeyError("a\nb"),
        RecursionError("deep"),
        MemoryError(),
        AssertionError("\x1b"),
        OSError("x"),
    ],
)
def test_whatever_a_parser_raises_leaves_by_one_door(monkeypatch, error):
    def fail(path, extras):
        raise error

    monkeypatch.setitem(readers.PARSERS, ".off", fail)
    with pytest.raises(PointCloudFileError) as caught:
        read_points(FILES / "chair.off")
    assert caught.value.__cause__ is error
    assert str(caught.value).isprintable()
    assert "two lines" in str(caught.value) or str(error) != "two\nlines"


def test_a_refusal_is_chained_to_its_cause(tmp_path):
    with pytest.raises(PointCloudFileError) as caught:
        read_points(written(tmp_path, "a.xyz", "1 2 3\n4 five 6\n"))
    assert isinstance(caught.value.__cause__, ValueError)
    assert "five" in str(caught.value.__cause__)


def test_lzf_refuses_what_is_not_packed_with_it():
    for data in (b"abcabcabcabc" * 30, bytes(1000), np.random.default_rng(0).bytes(999), b"x"):
        packed = whole_files.lzf_compress(data)
        assert lzf_decompress(packed, len(data)) == data
        for wrong, size in ((packed, len(data) + 1), (packed, len(data) - 1), (packed[:-1], len(data))):
            with pytest.raises(ValueError, match="packed data"):
                lzf_decompress(wrong, size)
    with pytest.raises(ValueError, match="before their beginning"):
        lzf_decompress(b"\x20\x05", 3)


# Nothing but the file that was named.

OPENED = """
import sys, json
from pointnet.datasets import PointCloudFileError, read_points
import h5py, encodings.utf_8, encodings.latin_1, encodings.ascii, encodings.idna
read_points(sys.argv[1])
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "socket.connect") else None)
for path in sys.argv[2:]:
    opened.clear()
    try:
        outcome = len(read_points(path))
    except PointCloudFileError as error:
        outcome = error.reason
    assert set(opened) <= {path}, (path, opened)
    print(json.dumps(outcome))
"""


def test_no_file_but_the_one_named_is_opened(tmp_path):
    # Whoever opens one of these to read, in Python or below it, waits for ever.
    for name in ("secret.bin", "secret.mtl", "secret.png", "other.h5"):
        os.mkfifo(tmp_path / name)
    texture = whole_files.ply_bytes().replace(b"comment made", b"comment TextureFile secret.png")
    elsewhere = [{"byteLength": 1000, "uri": "secret.bin"}]
    picture = {"images": [{"uri": "secret.png"}], "textures": [{"source": 0}]}
    whole = json.loads(whole_files.gltf()) | picture
    files = {
        "a.obj": b"mtllib secret.mtl\nusemtl a\n" + whole_files.obj(),
        "a.ply": texture,
        "b.gltf": json.dumps(whole).encode(),
        "a.gltf": gltf(buffers=elsewhere),
        "a.glb": whole_files.as_glb(gltf(buffers=elsewhere), b""),
    }
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["points"] = h5py.ExternalLink("other.h5", "points")
    with h5py.File(tmp_path / "store.h5", "w") as file:
        file.create_dataset("points", (4, 3), "f4", external=[("secret.bin", 0, 400)])
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "points", shape=(4, 3))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("points", layout)
    paths = [str(written(tmp_path, name, content)) for name, content in files.items()]
    paths += [str(tmp_path / name) for name in ("link.h5", "store.h5", "virtual.h5")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPENED, str(FILES / "chair.off"), *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert outcomes[:3] == [1024, 1024, 1024]
    assert all("in another file, which is not opened: 'secret.bin'" in outcome for outcome in outcomes[3:5])
    assert "'points' is a link, which is not followed" in outcomes[5]
    assert all("stored in other files, which are not opened" in outcome for outcome in outcomes[6:])


# The real and the awkward.

AWKWARD = {
    "ballA.off": (1024, "normals"),
    "comments.off": (1024, "normals colors"),
    "empty.obj": "holds no vertices",
    "empty.ply": "holds no vertices",
    "fandisk.obj": (1024, "normals"),
    "featuretype.STL": (1024, "normals"),
    "monkey.glb": (1024, "normals"),
    "nancolor.obj": (1024, "normals colors"),
    "points_ascii.ply": (5, ""),
    "points_bin.ply": (5, ""),
    "points_cloudcompare.xyz": (101, "colors"),
    "polygonfaces.obj": (1024, "normals"),
    "sphere.ply": (1024, "normals"),
    "teapot.stl": (1024, "normals"),
    "unit_cube.STL": (1024, "normals"),
    "whitespace.off": (1024, "normals colors"),
}


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}")
    return SHARED


def test_each_awkward_file_is_in_the_table(shared):
    assert sorted(path.name for path in (shared / "formats").iterdir()) == sorted(AWKWARD)


@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_file_gives_what_the_table_says(shared, name):
    path, wanted = shared / "formats" / name, AWKWARD[name]
    if isinstance(wanted, str):
        with pytest.raises(PointCloudFileError, match=f"{name}: {wanted}"):
            read_cloud(path)
        return
    cloud = read_cloud(path)
    there = [field for field in ("normals", "colors", "labels") if getattr(cloud, field) is not None]
    assert (len(cloud.points), " ".join(there)) == wanted


def test_the_real_meshes_and_clouds_are_read(shared):
    meshes = list((shared / "modelnet_off_samples").rglob("*.off"))
    clouds = list((shared / "modelnet10_pcd_sample").rglob("*.pcd"))
    assert (len(meshes), len(clouds)) == (13, 40)
    for path in meshes + clouds:
        assert read_points(path).shape == (1024, 3)


def test_the_resampled_text_has_normals_and_the_part_files_labels(shared):
    texts = list((shared / "modelnet40_normal_resampled_sample").rglob("*_0???.txt"))
    assert len(texts) == 39
    for path in texts:
        assert read_points(path, normals=True).shape == (10_000, 6)
    parts = list((shared / "psb_parts_dev").glob("*/*.txt"))
    assert len(parts) == 304
    for path in parts[::16]:
        cloud = read_cloud(path)
        assert cloud.points.shape == cloud.normals.shape == (2500, 3)
        assert cloud.labels.min() >= 0


def test_everything_shared_is_read_or_refused_in_one_line(shared):
    for path in shared.rglob("*"):
        if path.suffix.lower() in SUFFIXES and "psb" not in str(path) and path.stat().st_size < 10_000_000:
            try:
                assert len(read_points(path))
            except PointCloudFileError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
