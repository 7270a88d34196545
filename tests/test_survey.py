"""Clouds far from the origin keep their shape, and points that were not measured are left out and counted."""

import io
import json
import re

import h5py
import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet.inference.label import label_points
from pointnet.inference.predict import predict
from pointnet.points.in_memory import cloud_of
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from pointnet.points.sampling import draw_on_surface, normals_of_faces
from tests import whole_files
from tests.helpers import SHARED_DATA
from tests.pages import views_of
from tests.whole_files import FILES, npy_of, npz_of, written

FAR = np.array([512_345.25, 5_412_345.5, -120.75])  # an easting and a northing in metres
GRID = 2.0**-20  # coordinates on it are exact in float64 near the origin and far from it


def stool() -> np.ndarray:
    """A small thing in metres, in float64, on the grid."""
    return np.rint(read_points(FILES / "stool.xyz").astype(np.float64) / GRID) * GRID


def text_of(rows: np.ndarray, before: str = "", separator: str = " ") -> str:
    return "".join(before + separator.join(map(repr, row)) + "\n" for row in rows.tolist())


def ply_of(rows: np.ndarray, encoding: str, kind: str = "double") -> bytes:
    header = f"element vertex {len(rows)}\n" + "".join(f"property {kind} {axis}\n" for axis in "xyz")
    orders = {"binary_little_endian": "<f8", "binary_big_endian": ">f8"}
    body = text_of(rows).encode() if encoding == "ascii" else rows.astype(orders[encoding]).tobytes()
    return whole_files.ply(header, body, encoding)


def pcd_of(rows: np.ndarray, encoding: str, height: int = 1) -> bytes:
    header = {"FIELDS": "x y z", "SIZE": "8 8 8", "TYPE": "F F F", "WIDTH": f"{len(rows) // height}"}
    header |= {"HEIGHT": f"{height}", "POINTS": f"{len(rows)}", "DATA": encoding}
    body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode() if encoding == "ascii" else rows.tobytes()
    if encoding == "binary_compressed":
        plain = np.ascontiguousarray(rows.T).tobytes()
        packed = whole_files.lzf_compress(plain)
        body = len(packed).to_bytes(4, "little") + len(plain).to_bytes(4, "little") + packed
    return "".join(f"{key} {value}\n" for key, value in header.items()).encode() + body


def hdf5_of(rows: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["points"] = rows
    return stream.getvalue()


# Name -> what writes rows of float64.
CLOUDS = {
    "a.xyz": text_of,
    "b.txt": lambda rows: text_of(rows, separator="\t").replace("\n", "\r\n"),
    "c.csv": lambda rows: "x,y,z\n" + text_of(rows, separator=","),
    "d.csv": lambda rows: "\ufeffX;Y;Z\n" + text_of(rows, separator=";").replace(".", ","),
    "e.pts": lambda rows: f"{len(rows)}\n{text_of(rows)}",
    "f.npy": npy_of,
    "g.npy": lambda rows: npy_of(rows.astype(">f8")),
    "h.npz": lambda rows: npz_of(points=npy_of(rows)),
    "i.h5": hdf5_of,
    "j.ply": lambda rows: ply_of(rows, "ascii"),
    "k.ply": lambda rows: ply_of(rows, "ascii", "float"),
    "l.ply": lambda rows: ply_of(rows, "binary_little_endian"),
    "m.ply": lambda rows: ply_of(rows, "binary_big_endian"),
    "n.pcd": lambda rows: pcd_of(rows, "ascii"),
    "o.pcd": lambda rows: pcd_of(rows, "binary"),
    "p.pcd": lambda rows: pcd_of(rows, "binary_compressed"),
    "q.obj": lambda rows: text_of(rows, "v "),
    "r.off": lambda rows: f"OFF\n{len(rows)} 0 0\n{text_of(rows)}",
}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_far_away_keeps_its_differences_to_a_millionth_of_its_size(tmp_path, name):
    rows = stool() + FAR
    path = written(tmp_path, name, CLOUDS[name](rows))
    points = read_points(path)
    assert points.dtype == np.float64
    size = np.ptp(rows, axis=0).max()
    assert np.abs((points - points[0]) - (rows - rows[0])).max() <= 1e-6 * size
    some = read_points(path, 100, seed=3)
    assert {row.tobytes() for row in (*some, *read_points(path, 1))} <= {row.tobytes() for row in points}
    near = read_points(written(tmp_path, name, CLOUDS[name](stool())))
    assert near.dtype == np.float32
    assert np.abs(near - stool()).max() <= 1e-6 * size


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (np.array([[5e6, 0, 0]]), np.float32),  # one point has no shape
        (np.array([[5e6, 0, 0]] * 3), np.float32),
        (np.array([[8.0, 0, 0], [9.0, 0, 0]]), np.float64),  # two halves of the last bit: 1.07e-6 of the side
        (np.array([[7.0, 0, 0], [8.0, 0, 0]]), np.float32),
        (np.array([[-8.0, 0, 0], [-9.0, 0, 0]]), np.float64),
        (np.array([[5e6, 0, 0], [0, 0, 1]]), np.float32),  # as wide as it is far
        (np.array([[5e6, 1, 0], [5e6, 0, 1]], np.float32), np.float32),  # there is no more in the file
        (np.array([[500_000_001, 1, 0], [500_000_002, 0, 1]]), np.float64),  # whole millimetres
        (np.array([[20_001, 1, 0], [20_002, 0, 1]], np.int16), np.float32),
    ],
)
def test_coordinates_are_float64_only_where_float32_would_lose_the_shape(tmp_path, rows, wanted):
    found = read_points(written(tmp_path, "a.npy", npy_of(rows)))
    assert found.dtype == wanted
    assert np.array_equal(found, rows)


def shape() -> tuple[np.ndarray, np.ndarray]:
    """A mesh of small faces, its vertices in float64 on the grid."""
    generator = np.random.default_rng(0)
    vertices = np.rint(generator.uniform(-1, 1, (60, 3)) / GRID) * GRID
    vertices[30:] = vertices[:30] + np.rint(generator.uniform(-1e-3, 1e-3, (30, 3)) / GRID) * GRID
    return vertices, np.array([(i, (i + 7) % 30, i + 30) for i in range(30)])


def gltf_of(vertices: np.ndarray, faces: np.ndarray, far: np.ndarray) -> bytes:
    """A GLB of float32 vertices whose node is far away."""
    tree = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "translation": [*far]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(vertices), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5125, "count": faces.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 12 * len(vertices)},
            {"buffer": 0, "byteOffset": 12 * len(vertices), "byteLength": 4 * faces.size},
        ],
        "buffers": [{"byteLength": 12 * len(vertices) + 4 * faces.size}],
    }  # fmt: skip
    binary = vertices.astype("<f4").tobytes() + faces.astype("<u4").tobytes()
    return whole_files.as_glb(json.dumps(tree).encode(), binary)


def corners_of(name: str, vertices: np.ndarray, faces: np.ndarray, far: np.ndarray) -> bytes | str:
    placed = vertices + far
    if name == "a.glb":
        return gltf_of(vertices, faces, far)
    if name == "a.stl":
        facets = (f"facet\nouter loop\n{text_of(placed[face], 'vertex ')}endloop\nendfacet\n" for face in faces)
        return f"solid a\n{''.join(facets)}endsolid a\n"
    if name == "a.obj":
        return text_of(placed, "v ") + whole_files.rows(faces + 1, "f ")
    if name == "a.off":
        return f"OFF\n{len(placed)} {len(faces)} 0\n{text_of(placed)}{whole_files.rows(faces, '3 ')}"
    header = f"element vertex {len(placed)}\n" + whole_files.XYZ.replace("float", "double")
    body = placed.astype("<f8").tobytes() + b"".join(b"\x03" + face.astype("<i4").tobytes() for face in faces)
    return whole_files.ply(f"{header}element face {len(faces)}\n{whole_files.LIST}", body, "binary_little_endian")


@pytest.mark.parametrize("name", ["a.off", "a.obj", "a.stl", "a.ply", "a.glb"])
def test_a_mesh_far_away_is_drawn_and_lit_as_near_the_origin(tmp_path, name):
    vertices, faces = shape()
    far = FAR if name != "a.glb" else FAR[[0, 2, 1]]
    near, away = (
        read_cloud(written(tmp_path, name, corners_of(name, vertices, faces, place)), 5000, up="z")
        for place in (np.zeros(3), far)
    )
    assert (near.points.dtype, away.points.dtype) == (np.float32, np.float64)
    assert np.abs(away.points - far - near.points).max() <= 1e-6 * np.ptp(vertices, axis=0).max()
    np.testing.assert_allclose(away.normals, near.normals, atol=1e-6)
    assert read_cloud(tmp_path / name, 50, normalize=True).points.dtype == np.float32


def test_faces_are_drawn_by_the_same_areas_wherever_the_mesh_is():
    vertices, faces = shape()
    near, away = (draw_on_surface(vertices + far, faces, 5000, np.random.default_rng(0)) for far in (0, FAR))
    assert np.array_equal(near[0], away[0])
    sides = vertices[faces] - vertices[faces[:, :1]]
    crossed = np.cross(sides[:, 1], sides[:, 2])
    wanted = crossed / np.linalg.norm(crossed, axis=1, keepdims=True)
    np.testing.assert_allclose(normals_of_faces(vertices + FAR, faces), wanted, atol=1e-6)


def test_the_smallest_faces_keep_their_normals_far_away():
    corners = np.random.default_rng(0).integers(-9, 10, (300, 3)) * GRID
    faces = np.arange(300).reshape(-1, 3)
    near, away = (normals_of_faces(corners + far, faces) for far in (0, FAR))
    np.testing.assert_allclose(away, near, atol=1e-6)
    drawn = [draw_on_surface(corners + far, faces, 5000, np.random.default_rng(0))[0] for far in (0, FAR)]
    assert np.array_equal(*drawn)


def test_what_is_left_out_does_not_make_a_cloud_wide(tmp_path):
    rows = np.vstack([np.zeros((2, 3)), stool() + FAR, [[np.nan, 0, 0]]])
    points = read_points(written(tmp_path, "a.npy", npy_of(rows)))
    assert points.dtype == np.float64
    assert np.array_equal(points, stool() + FAR)
    lone = f"OFF\n4 1 0\n9000 0 0\n{whole_files.TRIANGLE}3 1 2 3\n"  # a vertex of no face
    assert read_cloud(written(tmp_path, "a.off", lone), normalize=True).points.dtype == np.float32


def test_an_answer_does_not_depend_on_where_the_cloud_is(tmp_path):
    near, far = predict([stool(), stool() + FAR])
    assert list(near.probabilities) == list(far.probabilities)
    assert near.probability == pytest.approx(far.probability, abs=1e-4)
    labelled = [label_points(points, category="chair") for points in (stool(), stool() + FAR)]
    assert np.array_equal(labelled[0].labels, labelled[1].labels)
    labelled[1].write_ply(tmp_path / "far.ply")
    found = read_cloud(tmp_path / "far.ply")
    assert np.array_equal(found.points, stool() + FAR)
    assert np.array_equal(found.labels, labelled[1].labels)


def test_show_says_and_draws_the_extents_wherever_the_cloud_is(capsys, tmp_path):
    extents = " × ".join(f"{extent:.4g}" for extent in np.ptp(stool(), axis=0))
    path = written(tmp_path, "far.csv", CLOUDS["c.csv"](stool() + FAR))
    assert command_line.main(["show", str(path), "--out", str(tmp_path)]) == 0
    assert f"extents {extents}  " in capsys.readouterr().out
    (view,) = views_of(tmp_path / "far.html")
    points = np.reshape(view["points"], (-1, 3))
    np.testing.assert_allclose(points - FAR, stool(), atol=2e-4)


def test_the_stool_at_survey_coordinates_has_its_extents():
    path = SHARED_DATA / "cases" / "utm.xyz"
    if not path.exists():
        pytest.skip(f"needs {path}")
    np.testing.assert_allclose(np.ptp(read_points(path), axis=0), np.ptp(np.loadtxt(path), axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.ptp(read_points(path), axis=0), [1.142, 0.9143, 1.257], rtol=5e-4)


# Points that were not measured.


def depth_image() -> tuple[np.ndarray, np.ndarray]:
    """A wall, and which of its 4 x 6 pixels were measured."""
    rows = np.random.default_rng(0).uniform(1, 2, (24, 3)).round(3)
    there = np.ones(24, bool)
    there[[0, 5, 11, 12, 23]] = False
    return rows, there


HOLES = ["a.xyz", "c.csv", "f.npy", "h.npz", "i.h5", "j.ply", "l.ply", "n.pcd", "o.pcd", "p.pcd", "q.obj", "r.off"]


@pytest.mark.parametrize("name", HOLES)
def test_rows_of_zeros_are_left_out_and_counted(tmp_path, name):
    rows, there = depth_image()
    rows[~there] = 0
    if name in ("f.npy", "l.ply", "o.pcd"):
        rows[5] = -0.0
    cloud = read_cloud(written(tmp_path, name, CLOUDS[name](rows)))
    assert np.array_equal(cloud.points, rows[there].astype(np.float32))
    assert cloud.notes[-1:] == ("5 rows of zeros left out",)
    with pytest.raises(PointCloudFileError, match="has 19 points, fewer than num_points=20"):
        read_cloud(tmp_path / name, 20)
    assert len(read_cloud(tmp_path / name, 19).points) == 19


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_an_organised_pcd_says_what_of_each_kind_was_not_measured(tmp_path, encoding):
    rows, there = depth_image()
    rows[[0, 5]] = 0
    rows[[11, 12, 23]] = np.nan
    cloud = read_cloud(written(tmp_path, "a.pcd", pcd_of(rows, encoding, height=4)))
    assert np.array_equal(cloud.points, rows[there].astype(np.float32))
    assert cloud.notes == ("3 rows that are not finite left out", "2 rows of zeros left out")


def test_what_belongs_to_a_row_goes_with_it_and_one_origin_stays(tmp_path):
    rows, there = depth_image()
    rows[~there] = 0
    labels, colors = np.arange(24), np.full((24, 3), 7, np.uint8) + np.arange(24, dtype=np.uint8)[:, None]
    path = written(tmp_path, "a.npz", npz_of(points=npy_of(rows), labels=npy_of(labels), colors=npy_of(colors)))
    cloud = read_cloud(path)
    assert cloud.labels.tolist() == labels[there].tolist()
    np.testing.assert_allclose(cloud.colors[:, 0] * 255, colors[there, 0], atol=1e-4)
    found = read_cloud(path, normalize=True)
    assert (len(found.points), np.abs(found.points).max()) == (19, 1)
    assert np.array_equal(cloud_of(rows).points, cloud.points)
    for one in (rows[4:11], np.vstack([rows[there], [[0, 1e-9, 0], [0, 0, 0]]])):  # which hold one row of zeros
        assert (one == 0).all(1).sum() == 1
        kept = read_cloud(written(tmp_path, "b.npy", npy_of(one)))
        assert np.array_equal(kept.points, one.astype(np.float32))
        assert kept.notes == ()


def test_the_vertices_of_a_mesh_at_the_origin_stay(tmp_path):
    facets = "facet\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n" * 2
    path = written(tmp_path, "a.stl", f"solid a\n{facets}endsolid a\n")
    assert len(read_cloud(path, vertices=True).points) == 6
    assert read_cloud(path).notes == ()


@pytest.mark.parametrize("count", [2, 300, 25_000])
def test_a_cloud_of_zeros_is_refused_and_one_of_copies_says_so(tmp_path, count):
    with pytest.raises(PointCloudFileError, match=r"a\.npy: holds no point but rows of zeros$"):
        read_cloud(written(tmp_path, "a.npy", npy_of(np.zeros((count, 3)))))
    rows = np.random.default_rng(0).normal(size=(count, 3))
    half = np.random.default_rng(1).permutation(count)[: count // 2]
    rows[half] = [5e6, 0.5, -1]
    assert not [note for note in cloud_of(rows).notes if "copies" in note], "half of them are not most"
    more = np.concatenate([rows, np.tile([[5e6, 0.5, -1]], (count // 9 + 1, 1)), np.zeros((9, 3)), [[np.nan] * 3]])
    notes = read_cloud(written(tmp_path, "a.npy", npy_of(more))).notes
    copies = (
        f"{count // 2 + count // 9 + 1:,} of {count + count // 9 + 1:,} points are copies of one, (5000000, 0.5, -1)"
    )
    assert notes == ("1 row that is not finite left out", "9 rows of zeros left out", copies)


def test_read_points_of_a_thousand_rows_says_nothing_of_ordinary_clouds():
    for path in sorted(FILES.iterdir()):
        assert not re.search("left out|copies", " ".join(read_cloud(path).notes)), path.name
