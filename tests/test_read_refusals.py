"""Files that cannot be used: one line with the path and the reason."""

import io
import json
import os
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from pointnet.points import read as readers
from pointnet.points.converters import CONVERTERS
from pointnet.points.formats.pcd import lzf_decompress
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from tests import whole_files
from tests.helpers import ROOT
from tests.whole_files import FILES, LIST, TRIANGLE, XYZ, npy_of, npz_of, pcd, ply, written


def npy_claim(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


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
    ("a.off", "OFF\nmany few\n", "must give its numbers of vertices and faces after OFF, got 'many few'"),
    ("a.off", f"OFF\n4000000000 1 0\n{TRIANGLE}", "declares 4000000000 vertices, more than the file holds"),
    ("a.off", f"OFF\n4 1 0\n{TRIANGLE}3 0 1 2\n", "declares 4 vertices of at least 3 numbers, a line each"),
    ("a.off", f"OFF\n3 2 0\n{TRIANGLE}3 0 1 2\n", "declares 2 faces, holds 1 lines of them"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 3\n", "a face names vertex 3, but there are 3 vertices, counted from 0"),
    ("a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 -1\n", "a face names vertex -1, but there are 3 vertices"),
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
    ("a.ply", ply("element vertex 0\n" + XYZ), "holds no vertices"),
    ("a.ply", ply("element face 1\nproperty list float int vertex_indices\n", b"3 0 1 2\n"), "length is no integer"),
    ("a.ply", ply("element vertex 9000000\n" + XYZ, b"1 2 3\n"), "declares 9000000 of element 'vertex', more than"),
    ("a.ply", ply("element vertex 2\n" + XYZ, b"10 20 30\n40 50\n"), "those lines hold 5 numbers"),
    ("a.ply", ply("element vertex 1\nproperty float x\n", b"1\n"), "names no columns x, y and z, only x"),
    ("a.ply", ply("element vertex 1\n" + LIST, b"1 2\n"), "names no columns x, y and z, only none"),
    (
        "a.ply",
        ply(f"element vertex 1\n{LIST}{XYZ}", b"5 1 2 3\n"),
        "a list declares 5 numbers, and 3 follow on its line",
    ),
    (
        "a.ply",
        ply(f"element vertex 1\n{LIST}{XYZ}", b"1 9 2 3\n"),
        "has a line of element 'vertex' that ends before its 'z'",
    ),
    (
        "a.ply",
        ply(f"element vertex 2\n{LIST}{XYZ}", b"0 1.25 2.5 3.25\n"),
        "2 of element 'vertex', holds 1 lines of them",
    ),
    (
        "a.ply",
        ply(f"element vertex 2\n{LIST}{XYZ}", bytes(13) + b"\1" + bytes(15), "binary_little_endian"),
        "is cut short in vertex 1",
    ),
    (
        "a.ply",
        ply(f"element vertex 1\n{XYZ}element face 2\n{LIST}", bytes(12) + b"\3\0\0\0\0\xff", "binary_little_endian"),
        "is cut short in face 0",
    ),
    ("a.obj", "# nothing\n", "holds no vertices"),
    ("a.obj", "v 1 2\n", "has a vertex of fewer than three numbers: '1 2'"),
    ("a.obj", "v 0 0 0\nf 1 1 2\n", "a face names vertex 2, but there are 1 vertices, counted from 1"),
    ("a.obj", "v 0 0 0\nf 1 1 -1\nv 1 0 0\nf 1 -1 -3\n", "a face names vertex -3, but 2 vertices precede it"),
    ("a.obj", "v 0 0 0\nf 0 1 1\n", "a face names vertex 0, but OBJ counts from 1"),
    ("a.stl", bytes(80) + (7).to_bytes(4, "little") + bytes(50), "declares 7 triangles of 50 bytes after its header"),
    ("a.stl", "solid a\nvertex 0 0 0\n", "is cut short: it does not end with endsolid"),
    ("a.stl", "solid a\nvertex 0 0 0\nvertex 0 0\nendsolid\n", "has a vertex without three numbers"),
    ("a.stl", "solid a\nvertex 0 0 0\nvertex 0 0 1\nendsolid\n", "must have three vertices per triangle, got 2"),
    ("a.stl", "solid a\nendsolid\n".ljust(90), "holds no triangle"),
    ("a.glb", b"PK\3\4" + bytes(40), r"does not begin with glTF, but with 'PK\x03\x04'"),
    ("a.glb", whole_files.glb()[:-20], "must be of version 2 and whole, got version 2 and "),
    ("a.gltf", gltf(buffers=[{"uri": "far.bin"}]), "needs the file 'far.bin' beside it, which is not there"),
    ("a.gltf", gltf(), "accessor 0 declares 40 rows, more than its buffer holds"),
    ("a.gltf", gltf(asset={"version": "1.0"}), "is not glTF 2"),
    ("a.gltf", gltf(nodes=[{"children": [1]}, {"children": [0]}]), "has two parents, or is its own descendant"),
    ("a.gltf", gltf(nodes=[{"mesh": 4}, {}]), "refers to meshes '4', but has 1"),
    ("a.gltf", gltf(extensionsRequired=["KHR_draco_mesh_compression"]), "compressed with KHR_draco_mesh_compression"),
    ("a.gltf", gltf(nodes=[{}] * 600_000), "describes more than 500000 things in its JSON"),
    ("a.gltf", b'{"asset":' + b"[" * 100_000, "is not a readable GLTF file"),
    ("a.glb", many_copies(), "more than a file of its size may ask for"),
    ("a.glb", a_count_of("-9"), "accessor 0 declares '-9' rows"),
    ("a.glb", a_count_of("true"), "accessor 0 declares 'True' rows"),
    ("a.xyz", "\n\n \n", "holds no points"),
    ("a.xyz", "1 2\n3 4\n", "must have at least 3 columns, x, y and z, got 2"),
    ("a.xyz", "1 2 3\n4 five 6\n", "line 2 has 'five' in column 2, not a number"),
    ("a.xyz", "404: not found\n", "begins with '404: not found', neither numbers nor names of columns"),
    ("a.xyz", "1 2 3\n".encode("utf-16"), "is not text of one byte a letter"),
    ("a.pts", "3\n1 2 3\n4 5 6\n", "declares 3 points, holds 2"),
    ("a.csv", "x,y,z\n0,10,20,30\n", "names 3 columns, but its first row has 4"),
    ("a.csv", "x,y,z,r,g,b\n10,20,,1,2,3\n", "has no point whose coordinates are finite"),
    ("a.xyz", "nan nan nan\n", "has no point whose coordinates are finite"),
    ("a.pcd", b"VERSION 0.7\n", "has no FIELDS in its header"),
    ("a.pcd", pcd(POINTS="3"), "declares 3 points, but WIDTH x HEIGHT is 2"),
    ("a.pcd", pcd(WIDTH="9000000", POINTS="9000000"), "declares 9000000 points of 3 values, more than the file holds"),
    ("a.pcd", pcd(DATA="binary"), "declares 2 points of 12 bytes, holds 12 bytes of them"),
    ("a.pcd", pcd(DATA="xml"), "DATA must be ascii, binary or binary_compressed, got 'xml'"),
    ("a.pcd", pcd(SIZE="4 4 3"), "TYPE and SIZE must be I or U of 1, 2, 4 or 8, or F of 4 or 8, got 'F3'"),
    ("a.pcd", pcd(COUNT="1 1 9000000"), "declares 9000002 values per point"),
    ("a.pcd", pcd(DATA="binary_compressed"), "declares 2 points of 12 bytes, but "),
    ("a.npy", npy_of(np.array([{"a": 1}], object)), "holds Python objects, which are not loaded"),
    ("a.npy", npy_claim("(1000000000, 3)"), "declares an array of (1000000000, 3), 12000000000 bytes, but holds 64"),
    ("a.npy", npy_claim("(3,)"), "the array must be (N, 3) or a little wider, got (3,)"),
    ("a.npy", npy_claim("(2, 3)", "'<U2'"), "the array must be numbers, got <U2"),
    ("a.npz", npz_of(stuff=npy_of(np.zeros(3))), "holds no array named points, xyz, pos, data, only 'stuff'"),
    ("a.npz", npz_of(points=npy_of(np.zeros((10_000_000, 3)))), "'points.npy' takes 240000128 bytes, more than a file"),
    ("a.npz", npz_of(**{f"a{i}": b"" for i in range(1001)}), "holds more than 1000 members"),
    ("a.npz", npz_of(zipfile.ZIP_LZMA, points=npy_of(np.zeros((4, 3)))), "is packed in a way numpy does not write"),
    ("a.npz", npz_of(points=npy_of(np.zeros((4, 3))), labels=npy_of(np.zeros(5))), "holds 4 points but 5 labels"),
    ("a.h5", "404: not found", "is not a readable HDF5 file (damaged, cut short or of another format)"),
    ("a.csv", "name,x,y,z\noak,1,2,3\n9,4,5,6,7\n", "line 3 has 5 columns, not 4: '9,4,5,6,7'"),
    ("a.h5", hdf5_of(**{"a/points": np.ones((4, 3)), "b/xyz": np.ones((4, 3))}), "holds points in the groups 'a, b'"),
    ("a.h5", hdf5_of(**{"a/b/points": np.ones((4, 3))}), "holds no array named points, xyz, pos, data, only 'a'"),
    ("a.h5", hdf5_of(points=["one", "two"]), "'points' must be a data set of numbers"),
    ("a.h5", hdf5_of(stuff=[1]), "holds no array named points, xyz, pos, data, only 'stuff'"),
    (
        "a.h5",
        hdf5_of(data=np.zeros((2, 8, 3))),
        "points must be (N, 3) or a little wider, got (2, 8, 3): 2 clouds, as in",
    ),
    (
        "a.h5",
        hdf5_of(data=np.zeros((2, 8, 9)), label=np.zeros((2, 8))),
        "2 clouds, as in a file of a data set; give the",
    ),
    (
        "a.npz",
        npz_of(points=npy_of(np.zeros((1200, 3, 8)))),
        "got (1200, 3, 8): 1,200 clouds, as in a file of a data set",
    ),
    ("a.npy", npy_of(np.zeros((2, 8, 3))), "save one of them as NPY; if it is one cloud, save array.reshape(-1, 3)"),
    ("a.npy", npy_of(np.zeros((1, 8, 3))), "or a little wider, got (1, 8, 3); save array.reshape(-1, 3)"),
    ("a.npy", npy_of(np.zeros((1, 3, 80))), "or a little wider, got (1, 3, 80); save array[0].T"),
    ("a.npy", npy_of(np.zeros((48, 64))), "or a little wider, got (48, 64)"),
    ("a.npy", npy_of(np.zeros((3, 300))), "got (3, 300); give array.T if it is transposed"),
    ("a.npz", npz_of(points=npy_of(np.zeros((4, 60)))), "got (4, 60); give array.T if it is transposed"),
    ("a.h5", hdf5_of(data=np.zeros((3, 50))), "got (3, 50); give array.T if it is transposed"),
    ("a.txt", "1 2.5 3 " * 15 + "\n" + "4 5 6 " * 15 + "\n", "is no table of points, with 2 rows and 45 columns"),
    ("a.txt", ("1 2.5 3 " * 15 + "\n") * 3, "with 3 rows and 45 columns; give array.T if it is transposed"),
    ("a.h5", hdf5_of(points=h5py.ExternalLink("b.h5", "a")), "'points' is a link, which is not followed"),
    ("a.h5", hdf5_bomb(), "data set 'points' takes 120000000 bytes, more than a file of its size may ask for"),
    ("a.h5", hdf5_with_a_plugin(), "data set 'points' is packed with filter 32015, which is not read"),
    ("a.foo", "?", "its suffix must be one of OFF, PLY, OBJ, STL, GLB, GLTF, PCD, XYZ, TXT"),
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


def test_what_is_no_file_is_refused_in_one_line_whatever_its_name(tmp_path):
    with pytest.raises(PointCloudFileError, match=r"nowhere\\nb.off: no such file$"):
        read_points(tmp_path / "nowhere\nb.off")
    for name in ("folder.off", "folder"):
        (tmp_path / name).mkdir()
        with pytest.raises(PointCloudFileError, match="is a folder, not a file$"):
            read_points(tmp_path / name)
    for missing, near in (("scna.las", "scan.las"), ("other/room.e57", "others")):  # whatever its suffix
        (tmp_path / near).write_bytes(b"points")
        with pytest.raises(PointCloudFileError, match=rf"{missing}: no such file; did you mean '{near}'\?$"):
            read_points(tmp_path / missing)
    with pytest.raises(PointCloudFileError, match=r"tables\.xls: no such file$"):
        read_points(tmp_path / "tables.xls")


@pytest.mark.parametrize(
    "suffix", [".e57", ".STEP", ".fbx", ".splat", ".pcap", ".rcp", ".dae", ".usdz", ".zip", ".mat"]
)
def test_a_format_that_is_not_read_names_a_tool(tmp_path, suffix):
    path = written(tmp_path, f"a{suffix}", b"?")
    with pytest.raises(PointCloudFileError) as caught:
        read_cloud(path)
    assert str(caught.value) == f"{path}: {suffix[1:].upper()} is not read; {CONVERTERS[suffix.lower()]}"


def test_what_is_read_has_no_converter():
    assert not CONVERTERS.keys() & set(readers.SUFFIXES)


def test_wrong_arguments_are_value_errors_that_name_no_file():
    for arguments, reason in (
        ({"num_points": 0}, "num_points must be at least 1, got 0"),
        ({"seed": -1}, "non-negative"),
        ({"up": "w"}, "up must be one of z, y, -y, x, -x, -z, got 'w'"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            read_points(FILES / "chair.off", **arguments)
        assert not isinstance(caught.value, PointCloudFileError)


@pytest.mark.parametrize("error", [ValueError("two\nlines"), RecursionError("deep"), MemoryError(), KeyError("\x1b")])
def test_whatever_a_parser_raises_leaves_by_one_door(monkeypatch, error):
    def fail(path, extras):
        raise error

    monkeypatch.setitem(readers.PARSERS, ".off", fail)
    with pytest.raises(PointCloudFileError) as caught:
        read_points(FILES / "chair.off")
    assert caught.value.__cause__ is error
    assert str(caught.value).isprintable()
    assert "two lines" in str(caught.value) or str(error) != "two\nlines"


def test_lzf_refuses_what_is_not_packed_with_it():
    for data in (b"abcabcabcabc" * 30, bytes(1000), np.random.default_rng(0).bytes(999), b"x"):
        packed = whole_files.lzf_compress(data)
        assert lzf_decompress(packed, len(data)) == data
        for wrong, size in ((packed, len(data) + 1), (packed, len(data) - 1), (packed[:-1], len(data))):
            with pytest.raises(ValueError, match="packed data"):
                lzf_decompress(wrong, size)
    with pytest.raises(ValueError, match="before their beginning"):
        lzf_decompress(b"\x20\x05", 3)


OPENED = """
import sys, json
from pointnet.points.read import PointCloudFileError, read_points
import encodings.utf_8, encodings.latin_1, encodings.ascii, encodings.idna
read_points(sys.argv[1]), read_points(sys.argv[2])  # which starts the process for HDF5
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "socket.connect") else None)
for path in sys.argv[3:]:
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
    plain = written(tmp_path, "a.h5", hdf5_of(points=np.ones((4, 3))))
    paths = [str(written(tmp_path, name, content)) for name, content in files.items()]
    paths += [str(tmp_path / name) for name in ("link.h5", "store.h5", "virtual.h5")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPENED, str(FILES / "chair.off"), str(plain), *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert outcomes[:3] == [1024, 1024, 1024]
    assert all("needs the file 'secret.bin' beside it, which is not there" in outcome for outcome in outcomes[3:5])
    assert "'points' is a link, which is not followed" in outcomes[5]
    assert all("stored in other files, which are not opened" in outcome for outcome in outcomes[6:])
