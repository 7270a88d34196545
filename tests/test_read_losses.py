"""What a mesh or a scan holds beside its points is used, or a note says that it is not."""

import io
import json

import numpy as np
import pytest

from pointnet.datasets.own_labels import labels_of
from pointnet.points.formats import scan
from pointnet.points.read import read_cloud
from tests import whole_files
from tests.las_files import HAS_LASPY, las_header
from tests.whole_files import LIST, XYZ, ply, rows, written

SQUARE = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
SHADES = np.array([(255, 0, 10), (0, 128, 0), (200, 255, 64), (7, 8, 9)], np.uint8)
FACES = np.array([(0, 1, 2), (0, 2, 3)])
OBJ_FACES = rows(FACES + 1, "f ")
PLAIN, COLORED = rows(SQUARE, "v "), rows(np.hstack([SQUARE, SHADES / np.float32(255)]), "v ")
HEXADECIMAL = [bytes([mask, *shade]).hex() for mask, shade in zip((0, 255, 3, 9), SHADES, strict=True)]
LINES, WEIGHTED = COLORED.splitlines(keepends=True), PLAIN.splitlines(keepends=True)
FEW = "colours left out, since there are {} for 4 vertices"
MATERIALS = "materials are not read, so there are no colours"

# What an OBJ holds before its faces, whether it has colours, and the note.
OBJ = {
    "colours": (COLORED, True, None),
    "some with an opacity": ("".join([LINES[0].strip() + " 1\n", *LINES[1:]]), True, None),
    "weights": (PLAIN.replace("\n", " 1\n"), False, None),
    "some weights": (WEIGHTED[0].strip() + " 1\n" + "".join(WEIGHTED[1:]), False, None),
    "one colour lacks": ("".join([*LINES[:3], WEIGHTED[3]]), False, FEW.format(3)),
    "the first colour lacks": ("".join([WEIGHTED[0], *LINES[1:]]), False, FEW.format(3)),
    "ZBrush": (PLAIN + f"#MRGB {''.join(HEXADECIMAL)}\n", True, None),
    "ZBrush, in lines": (
        PLAIN + f"# a\n#MRGB {HEXADECIMAL[0]}\r\n#MRGB {''.join(HEXADECIMAL[1:]).upper()}\n",
        True,
        None,
    ),
    "ZBrush, too few": (PLAIN + f"#MRGB {''.join(HEXADECIMAL[1:])}\n", False, FEW.format(3)),
    "a comment": (f"#MRGBA is not hexadecimal\n# mtllib\n{PLAIN}", False, None),
    "a library": (f"mtllib a.mtl\n{PLAIN}", False, MATERIALS),
    "a material": (f"{PLAIN}\tusemtl a\r\n", False, MATERIALS),
    "lines": (f"{PLAIN} l 1 2 3\n", False, "lines, curves and curved surfaces left out"),
    "a called file": (f"{PLAIN}call lamp.obj 1\n", False, "files that are called left out: 'lamp.obj' (1 in all)"),
    "an older patch": (f"{PLAIN}bzp 1 2 3 1\n", False, "lines, curves and curved surfaces left out"),
    "a curved surface": (f"{PLAIN}surf 0 1 0 1 1 2 3 4\n", False, "lines, curves and curved surfaces left out"),
    "a material and colours": (f"mtllib a.mtl\n{COLORED}usemtl a\n", True, None),
}


@pytest.mark.parametrize("block", [8, scan.BLOCK])
@pytest.mark.parametrize("name", OBJ)
def test_colours_of_an_obj_are_used_or_their_loss_is_said(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(scan, "BLOCK", block)
    content, has_colors, note = OBJ[name]
    cloud = read_cloud(written(tmp_path, "a.obj", content + OBJ_FACES), vertices=True)
    assert cloud.notes == ((note,) if note else ())
    assert (cloud.colors is not None) == has_colors
    if has_colors:
        assert np.allclose(cloud.colors * 255, SHADES, atol=1e-3)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("names", ["red green blue", "r g b", "diffuse_red diffuse_green diffuse_blue"])
@pytest.mark.parametrize("of", ["vertices", "faces"])
def test_colours_of_a_ply_may_be_signed_and_of_any_name(tmp_path, encoding, names, of):
    order, kinds = ">" if "big" in encoding else "<", "".join(f"property char {name}\n" for name in names.split())
    of_vertices, of_faces = (kinds, "") if of == "vertices" else ("", kinds)
    header = f"element vertex 4\n{XYZ}{of_vertices}element face 2\n{LIST.replace('indices', 'indexes')}{of_faces}"
    body = b""
    for place, shade in zip(SQUARE, SHADES, strict=True):
        shade = shade if of_vertices else shade[:0]
        body += (
            rows([[*place, *shade]]).encode()
            if encoding == "ascii"
            else place.astype(order + "f4").tobytes() + shade.tobytes()
        )
    for corners, shade in zip(FACES, SHADES[:2], strict=True):
        shade = shade if of_faces else shade[:0]
        face = b"\3" + corners.astype(order + "i4").tobytes() + shade.tobytes()
        body += rows([[3, *corners, *shade]]).encode() if encoding == "ascii" else face
    path = written(tmp_path, "a.ply", ply(header, body, encoding))
    cloud = read_cloud(path, vertices=of == "vertices")
    wanted = SHADES if of_vertices else SHADES[(cloud.points[:, 1] > cloud.points[:, 0]).astype(int)]
    assert np.allclose(cloud.colors * 255, wanted, atol=1e-3)
    assert cloud.notes == ()
    assert read_cloud(path, extras=()).colors is None


def test_other_properties_of_faces_and_vertices_in_no_face_are_said(tmp_path):
    more = "property float quality\nproperty list uchar float texcoord\nproperty int material_index\n"
    header, face = f"element vertex 5\n{XYZ}element face 1\n{LIST}{more}", "3 0 1 2 0.5 2 0 1 7\n"
    path = written(tmp_path, "a.ply", ply(header, f"{rows(SQUARE)}9 9 9\n{face}".encode()))
    lost = ("left out: quality, texcoord, material_index of faces", "vertices that are in no face: 2")
    assert read_cloud(path).notes == lost
    assert read_cloud(path, extras=("normals",)).notes == ()
    for name, text in (("a.off", f"OFF\n4 1 0\n{rows(SQUARE)}3 0 1 2\n"), ("a.obj", f"{PLAIN}f 1 2 3\n")):
        assert read_cloud(written(tmp_path, name, text)).notes == ("vertices that are in no face: 1",)
    colored = f"COFF\n4 2 0\n{rows(np.hstack([SQUARE, SHADES]))}3 0 1 2 9 9 9\n3 0 2 3 8 8 8\n"
    cloud = read_cloud(written(tmp_path, "c.off", colored))
    assert cloud.notes == ("colours of faces left out, since vertices have some",)
    assert cloud.colors.max() > 0.5
    counted = read_cloud(written(tmp_path, "d.off", f"OFF\n4 2 0\n{rows(SQUARE)}3 0 1 2 9\n3 0 2 3 8\n"))
    assert (counted.colors, counted.notes) == (None, ("1 more numbers per face left out, which are no colour",))
    label = "property int label\n"
    both = f"element vertex 4\n{XYZ}{label}element face 1\n{LIST}{label}"
    labelled = ply(both, f"{rows(np.c_[SQUARE, 1:5])}4 0 1 2 3 9\n".encode())
    cloud = read_cloud(written(tmp_path, "e.ply", labelled))
    assert set(cloud.labels) == {1, 2, 3, 4}
    assert cloud.notes[0] == "labels of faces left out, since vertices have some"
    short = ply(
        f"element vertex 4\n{XYZ}element face 2\n{LIST}property uchar r\nproperty uchar g\nproperty uchar b\n",
        f"{rows(SQUARE)}3 0 1 2 9 9 9\n3 0 2 3\n".encode(),
    )
    cloud = read_cloud(written(tmp_path, "b.ply", short))
    assert (cloud.colors, cloud.notes) == (None, ("left out: r, g, b of faces",))


def bits(shades, blue_first: bool) -> list[int]:
    """Five bits of each colour, by hand."""
    return [
        int("".join(f"{c // 8:05b}" for c in (shade if blue_first else shade[::-1])), 2) for shade in shades.tolist()
    ]


STL = {
    "VisCAM": (b"made", [1 << 15 | five for five in bits(SHADES[:2], True)], SHADES[:2] // 8 / 31),
    "VisCAM, one without": (b"made", [1 << 15, 31], None),
    "counts": (b"made", [1, 2], None),
    "Magics": (b"COLOR=\xff\x80\0\xff,MATERIAL=", bits(SHADES[:2], False), SHADES[:2] // 8 / 31),
    "Magics, one of the whole": (b"a COLOR=\xff\x80\0\xff", [1 << 15, 31], [[1, 128 / 255, 0], [1, 0, 0]]),
    "Magics, all of the whole": (b"COLOR=\xff\x80\0\xff", [0, 0], [[1, 128 / 255, 0]] * 2),
    "MeshLab": (b"COLOR=\xff\x80\0\xff", [1 << 15 | 31, 1 << 15 | 31 << 5], [[1, 0, 0], [0, 1, 0]]),
    "none": (b"made", [0, 0], None),
}


@pytest.mark.parametrize("name", STL)
def test_colours_of_a_binary_stl_are_used_if_all_triangles_have_one(tmp_path, name):
    header, attributes, wanted = STL[name]
    records = np.zeros(2, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    records["corners"], records["attribute"] = SQUARE[FACES], attributes
    path = written(tmp_path, "a.stl", header.ljust(80) + (2).to_bytes(4, "little") + records.tobytes())
    cloud = read_cloud(path)
    assert (cloud.colors is None) == (wanted is None)
    if wanted is not None:
        assert np.allclose(cloud.colors, np.array(wanted)[(cloud.points[:, 1] > cloud.points[:, 0]).astype(int)])
    is_lost = wanted is None and any(attributes)
    assert cloud.notes == (("attributes of triangles left out: not all are colours",) if is_lost else ())
    assert read_cloud(path, extras=()).notes == ()


@pytest.mark.parametrize("viewpoint", ["0 0 0 1 0 0 0", "0.0 -0 0 1.0 0 0 0.000", "1 0 0 1 0 0 0", "0 0 0 0.7 0.7 0 0"])
def test_a_viewpoint_of_a_pcd_is_said(tmp_path, viewpoint):
    content = whole_files.pcd_bytes().replace(b"VIEWPOINT 0 0 0 1 0 0 0", f"VIEWPOINT {viewpoint}".encode())
    cloud = read_cloud(written(tmp_path, "a.pcd", content))
    note = f"points are in the sensor's frame, as in the file: VIEWPOINT '{viewpoint}' is not applied"
    assert cloud.notes == ((note,) if "0.7" in viewpoint or viewpoint[0] == "1" else ())
    assert np.array_equal(cloud.points, whole_files.vertices())


GREEN, TEXTURED = {"baseColorFactor": [0, 0.5, 0, 1]}, {"baseColorTexture": {"index": 0}}
# The materials, those of two primitives, and the colours of these, or the note.
SCENES = {
    "one colour": ([GREEN], (0, 0), ([0, 0.5, 0], [0, 0.5, 0])),
    "one without a material": ([GREEN], (0, None), ([0, 0.5, 0], [1, 1, 1])),
    "one of the colour that is usual": ([GREEN, {}], (1, 0), ([1, 1, 1], [0, 0.5, 0])),
    "no colour": ([{}], (0, 0), None),
    "a texture": ([GREEN, TEXTURED], (0, 1), "colours left out, since some of its meshes have none"),
    "textures": ([TEXTURED | GREEN], (0, 0), "textures are not read, so there are no colours"),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_gltf_has_the_plain_colours_of_its_materials(tmp_path, name):
    materials, which, wanted = SCENES[name]
    tree, binary = whole_files.gltf_tree(None)
    plain = {"attributes": {"POSITION": 0}, "indices": 1}
    primitives = [plain if i is None else plain | {"material": i} for i in which]
    tree |= {"materials": [{"pbrMetallicRoughness": each} for each in materials], "textures": [{}]}
    tree |= {"meshes": [{"primitives": [each]} for each in primitives], "scenes": [{"nodes": [0, 1]}]}
    tree["nodes"] = [{"mesh": 0}, {"mesh": 1, "translation": [99, 0, 0]}]
    path = written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), binary))
    for cloud in (read_cloud(path), read_cloud(path, vertices=True)):
        if isinstance(wanted, tuple):
            assert np.allclose(cloud.colors, np.where(cloud.points[:, :1] > 50, wanted[1], wanted[0]))
        else:
            assert cloud.colors is None
    lost = wanted if isinstance(wanted, str) else None if wanted else SCENES["textures"][2]
    assert cloud.notes == ((lost,) if lost else ())


def las_with(kind: int, extra: dict[str, str], **fields) -> bytes:
    import laspy

    header = laspy.LasHeader(point_format=kind, version="1.4" if kind >= 6 else "1.2")
    for name, type_ in extra.items():
        scaled = {"scales": [0.5], "offsets": [0]} if "*" in type_ else {}
        header.add_extra_dim(laspy.ExtraBytesParams(name, type_.strip("*"), **scaled))
    made = laspy.LasData(header)
    made.x, made.y, made.z = np.random.default_rng(0).normal(size=(3, 9))
    for name, values in fields.items():
        made[name] = np.full(9, values) if np.isscalar(values) else np.array(values)
    stream = io.BytesIO()
    made.write(stream)
    return stream.getvalue()


NORMALS = np.random.default_rng(3).normal(size=(9, 3)).astype(np.float32)
NORMAL_FIELDS = dict(zip(("NormalX", "NormalY", "NormalZ"), NORMALS.T, strict=True))
THREE = dict.fromkeys(NORMAL_FIELDS, "f4")
LAS = {
    "nothing": (3, {}, {}, None, ()),
    "zeros": (3, {"height": "f8"}, {"gps_time": 0, "classification": 7}, None, ()),
    "time and returns": (1, {}, {"gps_time": np.arange(9), "number_of_returns": 1}, None, ("returns, gps_time",)),
    "much": (
        7,
        {},
        {"user_data": 1, "point_source_id": 2, "scan_angle": 3, "withheld": 1, "gps_time": -1.0, "return_number": 2},
        None,
        ("returns, flags, user_data, scan_angle, point_source, gps_time",),
    ),
    "old flags": (0, {}, {"synthetic": [1] + [0] * 8, "scan_angle_rank": -5}, None, ("flags, scan_angle",)),
    "infrared": (8, {}, {"nir": 9}, None, ("nir",)),
    "normals": (2, THREE, NORMAL_FIELDS, NORMALS, ()),
    "normals between others": (
        6,
        {"height": "f8", **THREE, "again": "2u2"},
        {"height": 1, **NORMAL_FIELDS, "again": [[0, 1]] * 9},
        NORMALS,
        ("height, again",),
    ),
    "normals of zeros": (2, THREE, {}, None, ()),
    "two of three": (2, {"NormalX": "f4", "NormalY": "f4"}, {"NormalX": 1, "NormalY": 1}, None, ("NormalX, NormalY",)),
    "scaled normals": (2, dict.fromkeys(THREE, "i2*"), NORMAL_FIELDS, None, ("NormalX, NormalY, NormalZ",)),
    "normals of two types": (2, THREE | {"NormalZ": "f8"}, NORMAL_FIELDS, None, ("NormalX, NormalY, NormalZ",)),
}


@pytest.mark.skipif(not HAS_LASPY, reason="needs laspy")
@pytest.mark.parametrize("name", LAS)
def test_extra_bytes_of_a_las_are_normals_or_said(tmp_path, name):
    kind, extra, fields, wanted, lost = LAS[name]
    path = written(tmp_path, "a.las", las_with(kind, extra, **fields))
    whole, mapped = read_cloud(path), read_cloud(path, mapped=True)
    notes = tuple(note for note in whole.notes if note.startswith("left out"))
    assert notes == tuple(f"left out: {names}" for names in lost)
    assert mapped.notes == whole.notes
    assert not any("left out" in note for note in read_cloud(path, extras=("normals",)).notes)
    if wanted is None:
        assert (whole.normals, mapped.normals) == (None, None)
        return
    unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    for normals in (whole.normals, mapped.normals[:], read_cloud(path, 9).normals, read_cloud(path, up="y").normals):
        assert np.allclose(np.sort(np.abs(normals).sum(1)), np.sort(np.abs(unit).sum(1)), atol=1e-6)
    assert np.allclose(whole.normals, unit, atol=1e-6)
    assert np.allclose(mapped.normals[2:5], unit[2:5], atol=1e-6)


@pytest.mark.parametrize("damage", ["a type", "a size", "half a record"])
def test_extra_bytes_that_nothing_describes_are_said(tmp_path, damage):
    described = bytearray(b"\0\0\x09\0" + b"height".ljust(188, b"\0"))
    described = described[:100] if damage == "half a record" else described
    described[2:4] = {"a type": b"\xff\0", "a size": b"\0\xff"}.get(damage, described[2:4])
    between = b"\0\0" + b"LASF_Spec".ljust(16, b"\0") + (4).to_bytes(2, "little") + len(described).to_bytes(2, "little")
    between += bytes(32) + described
    header = bytearray(las_header(1, 2, 2, 30))
    header[96:100] = (227 + len(between)).to_bytes(4, "little")
    path = written(tmp_path, "a.las", bytes(header) + between + bytes(26) + b"\0\0\1\0")
    assert read_cloud(path).notes[::2] == ("colours are all 0, left out", "left out: extra bytes")


def test_colours_of_faces_of_10_bits_are_taken_as_such_and_this_is_said(tmp_path):
    kinds = "".join(f"property ushort {name}\n" for name in ("red", "green", "blue"))
    header = f"element vertex 3\n{XYZ}element face 1\n{LIST}{kinds}"
    cloud = read_cloud(written(tmp_path, "a.ply", ply(header, b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2 1023 0 0\n")))
    assert cloud.colors.tolist() == [[1, 0, 0]] * len(cloud.points)
    assert cloud.notes == ("colours never exceed 1023, taken as 10 bits",)


@pytest.mark.parametrize("size", [3, 4])
def test_labels_of_faces_that_are_not_whole_numbers_are_said(tmp_path, size):
    header = f"element vertex 4\n{XYZ}element face 2\n{LIST}property float label\n"
    faces = [f"{size} {' '.join(map(str, range(size)))} {label}\n" for label in (1, 2.5)]
    note = "labels of faces left out: they are not whole numbers"
    path = written(tmp_path, "a.ply", ply(header, f"{rows(SQUARE)}{''.join(faces)}".encode()))
    for how in ({}, {"extras": ("labels",)}, {"vertices": True}):
        cloud = read_cloud(path, **how)
        assert cloud.labels is None
        assert note in cloud.notes
    with pytest.raises(ValueError, match=rf"column or property 'label' \({note}\)"):
        labels_of(cloud)


def test_names_of_groups_solids_and_meshes_that_could_be_labels_are_said(tmp_path):
    faces = "f 1 2 3\n", "f 1 3 4\n"
    for between, notes in (
        ("g leg\n", ("names of groups left out: seat, leg",)),
        ("g seat\n", ()),
        ("o b\ng seat\n", ("names of groups left out: seat, b",)),
    ):
        path = written(tmp_path, "a.obj", f"{PLAIN}g seat\n{between.join(faces)}")
        assert read_cloud(path).notes == notes
        assert read_cloud(path, extras=("colors", "normals")).notes == ()
    facet = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
    solids = "".join(f"solid {name}\n{facet}endsolid {name}\n" for name in ("seat", "a leg"))
    assert read_cloud(written(tmp_path, "a.stl", solids)).notes == ("names of solids left out: seat, a leg",)
    tree = json.loads(whole_files.gltf())
    tree["nodes"] = [{"mesh": 0, "name": name} for name in ("seat", "leg")]
    tree["scenes"] = [{"nodes": [0, 1]}]
    for names in ("seat", "leg"), ("seat", "seat"):
        tree["nodes"][1]["name"] = names[1]
        cloud = read_cloud(written(tmp_path, "a.gltf", json.dumps(tree).encode()))
        assert sorted(cloud.notes) == (["names of meshes left out: leg, seat"] if names[1] == "leg" else [])
    with pytest.raises(ValueError, match=r"column or property 'label' \(names of groups left out: seat, leg\)"):
        labels_of(read_cloud(written(tmp_path, "b.obj", f"{PLAIN}g seat\n{faces[0]}g leg\n{faces[1]}")))


def test_a_comment_of_an_obj_may_end_with_the_name_of_a_folder(tmp_path):
    text = "# made in C:\\models\\\nv 5 5 5 # of D:\\\nv \\\n0 0 0\nv 0 1 0\n"
    for lines in (text, text.replace("\n", "\r\n")):
        assert read_cloud(written(tmp_path, "a.obj", lines)).points.tolist() == [[5, 5, 5], [0, 0, 0], [0, 1, 0]]
