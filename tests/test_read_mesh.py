"""Meshes: the same surface from every format, however the file is laid out."""

import base64
import json

import numpy as np
import pytest
import trimesh

from pointnet.datasets.solids import rotated
from pointnet.points.read import PointCloudFileError, contents_of, read_cloud, read_points
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
        f"\ufeffOFF\n3 1 0\n{TRIANGLE}3 0 1 2\n",
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


# A square of two triangles with a label, a colour, a normal and an intensity at each corner; a list is among them.
SQUARE = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
SQUARE_LABELS, SQUARE_SHADES = np.array([7, 1, 4, 2]), np.array([0, 51, 204, 255])
SQUARE_FACES = np.array([(0, 1, 2), (0, 2, 3)])
SQUARE_HEADER = (
    f"element vertex 4\n{XYZ}property uchar red\nproperty list uchar short around\nproperty uchar green\n"
    "property uchar blue\nproperty float nx\nproperty float ny\nproperty float nz\nproperty ushort label\n"
    "property float intensity\nelement strip 1\nproperty list uchar int at\nelement face 2\n"
)


def square_ply(encoding: str, lists: list[int]) -> bytes:
    """With so many numbers in the list of each vertex, and with faces that have a list before their corners."""
    header, order = f"{SQUARE_HEADER}property list uchar float uv\n{LIST}", ">" if "big" in encoding else "<"
    body = b""

    def put(kind: str, *values: float) -> bytes:
        numbers = np.array(values, order + kind)
        return " ".join(map(str, numbers.tolist())).encode() + b" " if encoding == "ascii" else numbers.tobytes()

    line = b"\n" if encoding == "ascii" else b""
    for place, label, shade, count in zip(SQUARE, SQUARE_LABELS, SQUARE_SHADES, lists, strict=True):
        body += put("f4", *place) + put("u1", shade) + put("u1", count) + (put("i2", *[9] * count) if count else b"")
        body += put("u1", shade, 0) + put("f4", 0, 3, 4) + put("u2", label) + put("f4", label / 2) + line
    body += put("u1", 2) + put("i4", 0, 1) + line
    for face in SQUARE_FACES:
        body += put("u1", 1) + put("f4", 0.5) + put("u1", 3) + put("i4", *face) + line
    return ply(header, body, encoding)


@pytest.mark.parametrize("lists", [[0, 0, 0, 0], [2, 2, 2, 2], [0, 3, 1, 2]], ids=str)
@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_what_vertices_have_is_taken_to_points_and_vertices_are_to_be_had(tmp_path, encoding, lists):
    path = written(tmp_path, "a.ply", square_ply(encoding, lists))
    cloud = read_cloud(path, vertices=True)
    assert np.array_equal(cloud.points, SQUARE)
    assert np.array_equal(cloud.labels, SQUARE_LABELS)
    assert np.array_equal(cloud.intensity, SQUARE_LABELS / 2)
    assert np.allclose(cloud.colors * 255, np.stack([SQUARE_SHADES, SQUARE_SHADES, 0 * SQUARE_SHADES], 1))
    assert np.allclose(cloud.normals, [0, 0.6, 0.8])
    assert cloud.notes == ("left out: around", "left out: element strip", "left out: uv of faces")
    drawn = read_cloud(path, 500)
    nearest = ((drawn.points[:, None] - SQUARE) ** 2).sum(2)
    assert np.array_equal(drawn.labels, SQUARE_LABELS[nearest.argmin(1)])
    x, y, _ = drawn.points.T
    low = np.minimum(x, y)  # weight of corner 2
    weights = np.stack([1 - np.maximum(x, y), np.maximum(x - y, 0), low, np.maximum(y - x, 0)], 1)
    assert np.allclose(drawn.intensity, weights @ SQUARE_LABELS / 2, atol=1e-5)
    assert np.allclose(drawn.colors[:, 1], weights @ SQUARE_SHADES / 255, atol=1e-5)
    assert (drawn.normals == [0, 0, 1]).all()
    assert drawn.notes[-1] == "each drawn point has the label of the nearest corner of its face"
    assert read_cloud(path, 9, extras=("colors",)).labels is None


@pytest.mark.parametrize("binary", [False, True])
def test_faces_of_mixed_sizes_keep_their_colours_and_labels(tmp_path, binary):
    corners = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 5), (1, 0, 5), (0, 1, 5)], "<f4")
    colours = "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty int category_id\n"
    header = f"element vertex 7\n{XYZ}element face 2\n{LIST}{colours}"
    body = whole_files.rows(corners).encode() + b"4 0 1 2 3 255 0 0 8\n3 4 5 6 0 0 255 3\n"
    if binary:
        square, triangle = np.arange(4, dtype="<i4").tobytes(), np.arange(4, 7, dtype="<i4").tobytes()
        body = corners.tobytes() + b"\4" + square + b"\xff\0\0\10\0\0\0\3" + triangle + b"\0\0\xff\3\0\0\0"
    path = written(tmp_path, "a.ply", ply(header, body, "binary_little_endian" if binary else "ascii"))
    cloud, high = read_cloud(path), read_cloud(path).points[:, 2] == 5
    assert np.array_equal(cloud.colors, np.where(high[:, None], [0, 0, 1], [1, 0, 0]))
    assert np.array_equal(cloud.labels, np.where(high, 3, 8))
    assert read_cloud(path, vertices=True).notes == ("colours of faces left out", "labels of faces left out")


def test_the_labelled_mesh_that_people_bring():
    path = SHARED_DATA / "cases" / "scannet_labels.ply"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    corners = read_cloud(path, vertices=True)
    assert corners.labels.tolist() == list(range(8))
    drawn = read_cloud(path, 2000)
    nearest = ((drawn.points[:, None] - corners.points) ** 2).sum(2).argmin(1)
    assert (drawn.labels == nearest).mean() > 0.9, "but for those that are nearer to a corner of another face"
    assert drawn.colors is not None


def test_vertices_of_an_obj_have_the_sum_of_the_normals_that_faces_give_them(tmp_path):
    lines = whole_files.rows(SQUARE, "v ") + "vn 0 0 1\nvn 0 1 0\nvn 1 0 0\n"
    cloud = read_cloud(written(tmp_path, "a.obj", f"{lines}f 1//1 2/7/1 3//2\nf 1//1 3//1 4//3\n"), vertices=True)
    assert np.allclose(cloud.normals, [[0, 0, 1], [0, 0, 1], [0, 0.5**0.5, 0.5**0.5], [1, 0, 0]])
    back = f"{lines}f -4//-3 2//-3 -2//-2\nvn 0 0 1\nf -4//-4 3//-4 -1//-2\n"
    assert np.allclose(read_cloud(written(tmp_path, "d.obj", back), vertices=True).normals, cloud.normals)
    lost = "normals of vertices left out, since "
    for faces in ("f 1//1 2 3//2\n", "f 1//1 2//9 3//2\n", "f 1/1 2/1 3/1\n", "f 1//1 2//-4 3//2\n"):
        cloud = read_cloud(written(tmp_path, "b.obj", f"{lines}f 1//1 3//1 4//3\n{faces}"), vertices=True)
        assert cloud.normals is None, faces
        assert cloud.notes == (f"{lost}not every corner of a face names one",)
    assert read_cloud(written(tmp_path, "e.obj", lines)).notes == (f"{lost}there are 3 for 4 vertices",)
    materials = f"mtllib a.mtl\n{whole_files.rows(SQUARE, 'v ')}usemtl b\nf 1 2 3 4\n"
    notes = read_cloud(written(tmp_path, "c.obj", materials)).notes
    assert notes == ("materials are not read, so there are no colours",)


FACET = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
FACETS = FACET + FACET.replace("0 0 0", "1 1 0")


def binary_stl(header: bytes, after: bytes = b"") -> bytes:
    corners = np.array([[(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(1, 1, 0), (1, 0, 0), (0, 1, 0)]], "<f4")
    records = b"".join(bytes(12) + three.tobytes() + bytes(2) for three in corners)
    return header.ljust(80) + (2).to_bytes(4, "little") + records + after


STL = {
    "plain": f"solid a\n{FACETS}endsolid a\n",
    "no name": f"solid\n{FACETS}endsolid",
    "end solid": f"solid a\n{FACETS}end solid a\n",
    "a name of words": f"solid two words\n{FACETS}endsolid two words",
    "a long name": f"solid {'x ' * 5000}\n{FACETS}endsolid {'x ' * 5000}\n",
    "a name with vertex": f"solid vertex 1 facet\n{FACETS}endsolid vertex 1 facet\n",
    "a name with endsolid": f"solid the endsolid solid\n{FACETS}endsolid the endsolid solid\n",
    "a name with endfacet": f"solid endfacet endloop\n{FACETS}endsolid endfacet endloop\n",
    "upper case": f"solid a\n{FACETS}endsolid a\n".upper(),
    "CRLF": f"solid a\n{FACETS}endsolid a\n".replace("\n", "\r\n"),
    "CR": f"solid a\n{FACETS}endsolid a\n".replace("\n", "\r"),
    "a mark": f"\ufeffsolid a\n{FACETS}endsolid a\n",
    "tabs and blank lines": f"\n\tsolid a\n\n{FACETS}\tendsolid a\n\n\n".replace(" ", "\t"),
    "two solids": f"solid a\n{FACET}endsolid a\nsolid vertex\n{FACETS[len(FACET) :]}endsolid vertex\n",
    "one line": f"solid a {FACETS}endsolid a".replace("\n", " "),
    "two solids on a line": f"solid a {FACET}endsolid a solid b {FACETS[len(FACET) :]}endsolid b".replace("\n", " "),
    "binary": binary_stl(b"made"),
    "binary that begins with solid": binary_stl(b"solid facet normal endsolid"),
    "binary with bytes behind": binary_stl(b"made", b"\r\n and more"),
    "binary that begins with solid and has bytes behind": binary_stl(b"solid", b"endsolid\n"),
}


@pytest.mark.parametrize("name", STL)
def test_stl_is_read_however_it_is_written(tmp_path, name):
    cloud, contents = (read(written(tmp_path, "a.stl", STL[name])) for read in (read_cloud, contents_of))
    wanted = [[(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(1, 1, 0), (1, 0, 0), (0, 1, 0)]]
    assert contents.vertices[contents.faces].tolist() == np.array(wanted).tolist()
    note = {
        "binary with bytes behind": "11 bytes after the last triangle left out",
        "binary that begins with solid and has bytes behind": "9 bytes after the last triangle left out",
        "two solids": "names of solids left out: a, vertex",
    }.get(name)
    assert cloud.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (STL["plain"][:-12], "is cut short: it does not end with endsolid"),
        (STL["plain"][:-60], "is cut short: it does not end with endsolid"),
        (STL["two solids"][:-20], "is cut short: it does not end with endsolid"),
        (f"solid a endsolid\n{FACETS}", "is cut short: it does not end with endsolid"),
        (STL["binary that begins with solid"][:-1], "declares 2 triangles of 50 bytes after its header, holds 1.98"),
        (
            STL["plain"].replace("vertex 1 1 0\n", "vertex 1 1 0\n" * 4),
            "three vertices per triangle, got 9 in 2 facets",
        ),
    ],
)
def test_an_stl_that_is_not_whole_is_refused(tmp_path, content, reason):
    with pytest.raises(PointCloudFileError, match=reason):
        read_cloud(written(tmp_path, "a.stl", content))


@pytest.mark.parametrize("kind", ["ply", "off", "obj", "npy"])
def test_normals_that_are_all_zero_are_none(tmp_path, kind):
    rows, points = np.hstack([SQUARE, 0 * SQUARE]), "property float nx\nproperty float ny\nproperty float nz\n"
    text = whole_files.rows(rows)
    content = {
        "ply": ply(f"element vertex 4\n{XYZ}{points}", text.encode()),
        "off": f"NOFF\n4 0 0\n{text}",
        "obj": whole_files.rows(SQUARE, "v ") + whole_files.rows(0 * SQUARE, "vn "),
        "npy": whole_files.npy_of(np.rec.fromarrays(rows.T, names="x y z nx ny nz".split())),
    }[kind]
    cloud = read_cloud(written(tmp_path, f"a.{kind}", content))
    assert cloud.normals is None
    assert cloud.notes == ("normals are all 0 or not finite, left out",)
    one = rows.copy()
    one[3, 5] = 1
    cloud = read_cloud(
        written(tmp_path, "b.npy", whole_files.npy_of(np.rec.fromarrays(one.T, names="x y z nx ny nz".split()))), 1
    )
    said = ("normals of 3 of 4 points are 0 or not finite, and 0 to a network",)
    assert (cloud.normals is not None, cloud.notes) == (True, said)


def test_an_off_of_meshlab_has_the_colour_before_the_normal_and_what_no_word_names_is_said(tmp_path):
    corners, faces = "0 0 0 255 0 0 255 0 0 1\n1 0 0 0 255 0 255 0 0 1\n0 1 0 0 0 255 255 0 0 1\n", "3 0 1 2\n"
    cloud = read_cloud(written(tmp_path, "a.off", f"NCOFF\n3 1 0\n{corners}{faces}".encode()), vertices=True)
    assert np.array_equal(cloud.colors, np.eye(3))
    assert np.array_equal(cloud.normals, [[0, 0, 1]] * 3)
    plain = read_cloud(written(tmp_path, "b.off", f"OFF\n3 1 0\n{corners}{faces}".encode()))
    assert plain.notes == ("7 more numbers per vertex left out, which the first word does not name",)
    some = f"OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n{faces.strip()} 255 0 0\n{faces}"
    assert read_cloud(written(tmp_path, "c.off", some.encode())).notes == (
        "colours of faces left out: not every face has one",
    )
