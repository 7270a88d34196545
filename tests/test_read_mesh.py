"""Meshes: the same surface from every format, however the file is laid out."""

import base64
import json

import numpy as np
import pytest
import trimesh

from pointnet.datasets.solids import rotated
from pointnet.points.read import contents_of, read_cloud, read_points
from tests import whole_files
from tests.helpers import SHARED_DATA
from tests.whole_files import FILES, LIST, TRIANGLE, XYZ, ply, written


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


@pytest.mark.parametrize(
    "text",
    [
        f"OFF\n3 1 0\n{TRIANGLE}3 0 1 2\n",
        f"OFF3 1 0\n{TRIANGLE}3 0 1 2",
        f"\n\toff 3 1 0 # why not\n#\n\n{TRIANGLE}\n\n3 0 1 2 # a face\n",
        f"OFF\r\n3 1 0\r\n{TRIANGLE}3 0 1 2\r\n".replace("0\n", "0\r\n"),
        f"OFF\r3 1 0\r{TRIANGLE}3 0 1 2\r".replace("\n", "\r"),
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
    contents = contents_of(written(tmp_path, "a.ply", ply(header, corners + faces, "binary_big_endian")))
    assert contents.faces.tolist() == [[0, 1, 2], [0, 1, 3], [0, 3, 2]]


def test_ply_is_the_same_in_both_byte_orders(tmp_path):
    table, faces = whole_files.attributes(), np.zeros(60, [("size", "u1"), ("corners", ">i4", 3)])
    faces["size"], faces["corners"] = 3, whole_files.triangles()
    header = whole_files.ply_header("binary_big_endian", 60).encode()
    big = header + table.astype(table.dtype.newbyteorder(">")).tobytes() + faces.tobytes()
    clouds = [
        read_cloud(written(tmp_path, name, content), 200)
        for name, content in (("little.ply", whole_files.ply_bytes()), ("big.ply", big))
    ]
    for one, other in zip(*(cloud[:3] for cloud in clouds), strict=True):
        assert np.array_equal(one, other)


def test_a_scene_is_its_meshes_where_its_nodes_put_them(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.glb", whole_files.glb()), 4000, up="z")
    scene = trimesh.load(tmp_path / "a.glb").to_mesh()
    assert np.allclose(cloud.points.mean(0), trimesh.sample.sample_surface(scene, 4000, seed=0)[0].mean(0), atol=0.15)
    assert np.allclose(cloud.colors, 200 / 255)
    assert cloud.points[:, 1].max() > 8, "the second copy is where its parent puts it"


@pytest.mark.parametrize("scale", [[1, 1, 1], [-1, 1, 1], [2, -3, 1], [-1, -1, 1], [-1, -1, -1]])
def test_outside_stays_outside_in_a_mirror(tmp_path, scale):
    tree, _ = whole_files.gltf_tree(None)
    tree |= {"scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "scale": scale}]}
    tree["accessors"] = [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}]
    tree["bufferViews"] = [{"buffer": 0, "byteLength": 36}]

    def read(corners, primitive):
        tree["meshes"] = [{"primitives": [primitive]}]
        data = whole_files.as_glb(json.dumps(tree).encode(), np.array(corners, "<f4").tobytes())
        return read_cloud(written(tmp_path, "a.glb", data), up="z")

    triangle = read([[0, 0, 0], [1, 0, 0], [0, 1, 0]], {"attributes": {"POSITION": 0}})
    assert (triangle.normals == [0, 0, np.sign(scale[2])]).all()
    sphere = read(np.eye(3), {"attributes": {"POSITION": 0, "NORMAL": 0}, "mode": 0})  # each point is its own normal
    assert np.array_equal(sphere.normals, np.sign(sphere.points))


def test_our_parsers_find_the_surface_trimesh_finds():
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs {SHARED_DATA}")
    paths = [
        path for path in [*FILES.iterdir(), *(SHARED_DATA / "formats").iterdir()] if not path.stem.startswith("empty")
    ]
    compared = 0
    for path in paths:
        contents = contents_of(path)
        if contents.faces is None:
            continue
        mesh = trimesh.load(path, process=False, skip_materials=True)
        mesh = mesh.to_mesh() if isinstance(mesh, trimesh.Scene) else mesh
        ours = trimesh.Trimesh(contents.vertices, contents.faces, process=False)
        assert ours.area == pytest.approx(mesh.area, rel=1e-5), path
        assert np.allclose(ours.bounds, mesh.bounds, rtol=1e-6), path
        compared += 1
    assert compared >= 15
