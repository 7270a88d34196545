"""What lies behind the end that a file declares: padding is nothing, more points are refused, all else is said."""

import re

import numpy as np
import pytest

from pointnet.points.read import PointCloudFileError, read_cloud
from tests import whole_files
from tests.las_files import las, las_new
from tests.whole_files import XYZ, npy_of, npz_of, ply, rows, vertices, written

FILES = {
    "ply_text.ply": whole_files.ply_text(),
    "ply_bytes.ply": whole_files.ply_bytes(),
    "ply_polygons.ply": whole_files.ply_polygons(),
    "ply_cloud.ply": whole_files.ply_cloud(),
    "ply_cloud_text.ply": ply(f"element vertex 40\n{XYZ}", rows(vertices()).encode()),
    "edges.ply": ply(f"element vertex 2\n{XYZ}element edge 1\nproperty int vertex1\n", b"1 2 3\n4 5 6\n0\n"),
    "text.pcd": whole_files.pcd_text(),
    "bytes.pcd": whole_files.pcd_bytes(),
    "compressed.pcd": whole_files.pcd_compressed(),
    "a.npy": whole_files.npy(),
    "by_columns.npy": npy_of(np.asfortranarray(vertices())),
    "a.npz": whole_files.npz(),
    "text.stl": whole_files.stl_text(),
    "bytes.stl": whole_files.stl_bytes(),
    "a.glb": whole_files.glb(),
    "a.h5": whole_files.hdf5(),
    "a.las": las(),
    "new.las": las_new(),
}
ABOUT = r"[\d,]+ bytes? (?:after the last [a-z ]+|before its archive) left out"


@pytest.mark.parametrize("name", FILES)
def test_padding_is_no_loss(tmp_path, name):
    whole = read_cloud(written(tmp_path, name, FILES[name]), vertices=True)
    for padding in (b"\n", b"\r\n\x1a", bytes(1), bytes(4000)):
        cloud = read_cloud(written(tmp_path, name, FILES[name] + padding), vertices=True)
        assert cloud.notes == whole.notes
        assert np.array_equal(cloud.points, whole.points)


@pytest.mark.parametrize(
    ("name", "rest"),
    # An STL text may hold several solids, which are all read.
    [(name, rest) for name in FILES for rest in ("itself", "words", "bytes") if (name, rest) != ("text.stl", "itself")],
)
def test_what_is_no_more_of_the_points_is_said(tmp_path, name, rest):
    whole = read_cloud(written(tmp_path, name, FILES[name]), vertices=True)
    more = {"itself": FILES[name], "words": b"and so on", "bytes": np.random.default_rng(0).bytes(4096)}[rest]
    cloud = read_cloud(written(tmp_path, name, FILES[name] + more), vertices=True)
    said = [note for note in cloud.notes if re.fullmatch(ABOUT, note)]
    assert len(said) == 1
    assert [note for note in cloud.notes if note not in said] == [*whole.notes]
    assert np.array_equal(cloud.points, whole.points)
    assert said[0].startswith(f"{len(more):,} bytes ")


def of_ten(name: str) -> bytes:
    """A file that declares 10 of its 40 points."""
    return re.sub(rb"(WIDTH|POINTS|vertex) 40", rb"\1 10", FILES[name])


POINTS = np.random.default_rng(1).normal(size=(40, 3))
MORE = {
    "text.ply": (of_ten("ply_cloud_text.ply"), "10 of element 'vertex', holds 40"),
    "bytes.ply": (of_ten("ply_cloud.ply"), "10 of element 'vertex', holds 40"),
    "faces.ply": (FILES["ply_text.ply"].replace(b"face 61", b"face 51"), "51 of element 'face', holds 61"),
    "text.pcd": (of_ten("text.pcd"), "10 points, holds 40"),
    "bytes.pcd": (of_ten("bytes.pcd"), "10 points, holds 40"),
    "a.npy": (npy_of(POINTS[:10]) + POINTS[10:].tobytes(), "10 rows, holds 40"),
    "a.npz": (npz_of(points=npy_of(POINTS[:10]) + POINTS[10:].tobytes()), "10 rows, holds 40"),
    "a.off": (f"OFF\n10 0 0\n{rows(POINTS)}".encode(), "10 vertices, holds 40"),
    "faces.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 2 1 0\n", "1 faces, holds 2 lines of them"),
    "a.pts": (f"10\n{rows(POINTS)}".encode(), "10 points, holds 40"),
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("padding", [b"", b"\n", b"\n\n"])
def test_more_points_than_are_declared_are_refused(tmp_path, name, padding):
    content, reason = MORE[name]
    with pytest.raises(PointCloudFileError, match=f": declares {reason}$"):
        read_cloud(written(tmp_path, name, content + padding))


def test_a_ply_with_an_element_twice_is_refused(tmp_path):
    vertex = "element vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    (tmp_path / "a.ply").write_text(f"ply\nformat ascii 1.0\n{vertex}{vertex}end_header\n0 0 0\n9 9 9\n")
    with pytest.raises(PointCloudFileError, match="has the element vertex twice"):
        read_cloud(tmp_path / "a.ply")
