"""glTF: its buffers lie in its folder, and no other file is opened."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pointnet.datasets import MeshFolder
from pointnet.datasets.known import hashes_of
from pointnet.points.read import PointCloudFileError, read_beside, read_cloud, read_points
from tests import whole_files
from tests.helpers import SHARED_DATA
from tests.whole_files import written


def beside(tmp_path, uri: str, as_glb: bool = False) -> tuple[bytes, Path]:
    """A glTF of two buffers, of which the second is named so, in a folder of its own."""
    tree, binary = whole_files.gltf_tree(uri)
    folder = tmp_path / "scenes"
    folder.mkdir(exist_ok=True)
    tree["buffers"].insert(0, {"byteLength": 480, "uri": "first.bin"})
    for view in tree["bufferViews"][1:]:
        view["buffer"] = 1
    written(folder, "first.bin", binary[:480] + b"more")
    text = json.dumps(tree).encode()
    return binary, written(folder, "a.glb" if as_glb else "a.gltf", whole_files.as_glb(text, b"") if as_glb else text)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("a.bin", "a.bin"),
        ("./a.bin", "a.bin"),
        ("below/a%20b.bin", "below/a b.bin"),
        ("caf%C3%A9%23.bin", "café#.bin"),
        ("né.bin", "né.bin"),
    ],
)
@pytest.mark.parametrize("as_glb", [False, True])
def test_buffers_beside_a_gltf_are_its_bytes(tmp_path, uri, name, as_glb):
    binary, path = beside(tmp_path, uri, as_glb)
    (path.parent / name).parent.mkdir(exist_ok=True)
    written(path.parent, name, binary)
    whole = read_cloud(written(tmp_path, "a.gltf", whole_files.gltf()), 500)
    for one, other in zip(read_cloud(path, 500), whole, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("as_glb", [False, True])
def test_a_cache_follows_the_buffers_beside_a_gltf(tmp_path, as_glb):
    """Where the GLTF itself does not change with them; and two with other buffers are no copies."""
    binary, path = beside(tmp_path, "below/a.bin", as_glb)
    (path.parent / "below").mkdir()
    written(path.parent / "below", "a.bin", binary)
    root = tmp_path / "set"
    shutil.copytree(path.parent, root / "chair")
    shutil.copytree(path.parent, root / "bed")

    def opened() -> tuple[np.ndarray, int]:
        data = MeshFolder(root, num_points=16, test_fraction=0)
        return data.points[data.classes.index("chair")].numpy().copy(), len({*hashes_of(data.files, root).values()})

    points, contents = opened()
    assert contents == 1
    flat = np.frombuffer(binary[:480], "<f4").reshape(-1, 3) * np.float32([1, 1, 0.1])
    written(root / "chair", "first.bin", flat.tobytes())
    changed, contents = opened()
    assert contents == 2
    assert not np.allclose(points, changed, atol=0.01)


OUTSIDE = "keeps its bytes outside its folder, where no file is opened: "


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("gone.bin", "needs the file 'gone.bin' beside it, which is not there"),
        ("below", "needs the file 'below' beside it, which is not there"),
        ("short.bin", "its buffer 'short.bin' holds 3 bytes, not the '1000' that it declares"),
        ("inside.bin", None),
        *(
            (uri, OUTSIDE)
            for uri in ("../out.bin", "below/../../out.bin", "%2e%2e/out.bin", "..%2Fout.bin", "link.bin")
        ),
        *((uri, OUTSIDE) for uri in ("..\\out.bin", "..%5cout.bin", "/out.bin", "\\out.bin", "link/out.bin")),
        *((uri, OUTSIDE) for uri in ("C:out.bin", "c:\\out.bin", "file:out.bin", "http://localhost/out.bin", "a%00b")),
    ],
)
def test_nothing_outside_the_folder_of_a_gltf_is_opened(tmp_path, uri, reason):
    binary, path = beside(tmp_path, uri)
    folder = path.parent
    (folder / "below").mkdir()
    for name in ("out.bin", "scenes/short.bin", "scenes/real.bin", "scenes/..\\out.bin", "scenes/C:out.bin"):
        written(tmp_path, name, b"few" if "short" in name else binary)
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    (folder / "link").symlink_to(tmp_path)
    (folder / "inside.bin").symlink_to(folder / "real.bin")
    if reason is None:
        assert len(read_cloud(path).points) == 1024
        assert read_beside(path) == [folder / "first.bin", folder / "real.bin"]
        return
    assert all(file.is_relative_to(folder) for file in read_beside(path))
    with pytest.raises(PointCloudFileError) as caught:
        read_cloud(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_what_of_a_scene_is_not_taken_is_said(tmp_path):
    tree, binary = whole_files.gltf_tree(None)
    plain = {"attributes": {"POSITION": 0}, "indices": 1}
    lit = {"attributes": {"POSITION": 0, "NORMAL": 0}}
    tree["meshes"][0]["primitives"] += [plain, lit, plain | {"mode": 0}, plain | {"mode": 1}]
    cloud = read_cloud(written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), binary)))
    lost = (
        "lines left out",
        "points beside the triangles left out",
        "normals of vertices left out, since some of its meshes have none",
        "colours left out, since some of its meshes have none",
    )
    assert cloud.notes == lost
    tree["meshes"][0]["primitives"] = [plain]
    tree["textures"] = [{}]
    cloud = read_cloud(written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), binary)))
    assert cloud.notes == ("textures are not read, so there are no colours",)


def test_attributes_textures_and_meshes_that_are_not_taken_are_said(tmp_path):
    def notes_of(change, **wanted) -> tuple[str, ...]:
        tree, binary = whole_files.gltf_tree(None)
        change(tree, tree["meshes"][0]["primitives"][0])
        return read_cloud(
            written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), binary)), **wanted
        ).notes

    def with_attributes(tree, primitive):
        tree["accessors"].append(tree["accessors"][2])
        primitive["attributes"] |= dict.fromkeys(("COLOR_1", "_LABEL", "TEXCOORD_0", "TANGENT", "JOINTS_0"), 3)

    def with_texture(tree, primitive):
        primitive["material"], tree["textures"] = 0, [{}]
        tree["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]

    assert notes_of(with_attributes) == ("left out: COLOR_1, _LABEL",)
    assert notes_of(with_attributes, extras=("colors",)) == ()
    assert notes_of(with_texture) == ("textures are not read, so colours are without them",)
    assert notes_of(with_texture, extras=("normals",)) == ()
    of_no_node = ("meshes outside the default scene left out",)
    assert notes_of(lambda tree, _: tree["meshes"].append(tree["meshes"][0])) == of_no_node
    assert notes_of(lambda tree, _: tree["nodes"].append({"mesh": 0})) == of_no_node


def test_colours_of_glossy_materials_are_read(tmp_path):
    tree, binary = whole_files.gltf_tree(None)
    tree["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0, 0.5, 1, 1]}}}]
    tree["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]
    cloud = read_cloud(written(tmp_path, "a.glb", whole_files.as_glb(json.dumps(tree).encode(), binary)), 20)
    assert (cloud.colors.tolist(), cloud.notes) == ([[0, 0.5, 1]] * 20, ())


def test_the_scene_that_people_bring():
    path = SHARED_DATA / "cases" / "b.gltf"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    points = read_points(path, 4000)
    assert np.allclose(np.ptp(points, axis=0), [1, 3, 2], atol=0.01)
    assert (np.isclose(np.abs(points), [0.5, 1.5, 1], atol=1e-6).sum(1) >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["points", "triangles"])
def test_the_limit_of_a_scene_counts_all_buffers(tmp_path, kind):
    count = 6_000_000 if kind == "points" else 1_100_000
    columns = [np.zeros((count, 3), "<f4"), np.zeros(6 * count if kind == "triangles" else 0, "<u4")]
    columns[0][:3] = np.eye(3)
    columns[1][:3] = np.arange(3)[: len(columns[1])]
    for i, column in enumerate(columns):
        written(tmp_path, f"{i}.bin", column.tobytes())
    primitive = {"attributes": {"POSITION": 0}} | ({"mode": 0} if kind == "points" else {"indices": 1})
    tree = {
        "asset": {"version": "2.0"},
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"uri": f"{i}.bin", "byteLength": part.nbytes} for i, part in enumerate(columns)],
        "bufferViews": [{"buffer": i, "byteLength": part.nbytes} for i, part in enumerate(columns)],
        "accessors": [
            {"bufferView": 0, "count": count, "type": "VEC3", "componentType": 5126},
            {"bufferView": 1, "count": columns[1].size, "type": "SCALAR", "componentType": 5125},
        ],
    }
    assert len(read_cloud(written(tmp_path, "a.gltf", json.dumps(tree).encode()), 10, repeat=True).points) == 10


def test_a_buffer_ends_where_the_gltf_says(tmp_path):
    binary, path = beside(tmp_path, "a.bin")
    written(path.parent, "a.bin", binary)
    path.write_text(path.read_text().replace('"byteLength": 1000', '"byteLength": 900'))
    with pytest.raises(PointCloudFileError, match="accessor 2 declares 40 rows, more than its buffer holds"):
        read_cloud(path)


def test_hidden_nodes_and_other_scenes_are_left_out_and_said(tmp_path):
    tree = json.loads(whole_files.gltf()) | {"extensionsRequired": ["KHR_node_visibility"]}
    tree["nodes"] = [{"mesh": 0}, {"children": [2]}, {"mesh": 0, "translation": [500, 0, 0]}]
    hidden = {"KHR_node_visibility": {"visible": False}}
    for scenes, node, reach, notes in (
        ([[0, 1]], {}, True, ()),
        ([[0, 1]], {"extensions": {"KHR_node_visibility": {"visible": True}}}, True, ()),
        ([[0, 1]], {"extensions": hidden}, False, ("hidden nodes left out",)),
        ([[0], [1, 0]], {}, False, ("meshes outside the default scene left out",)),
        ([[0], [0]], {}, False, ("meshes outside the default scene left out",)),
    ):
        tree["nodes"][1] = {"children": [2], **node}
        tree["scenes"] = [{"nodes": nodes} for nodes in scenes]
        cloud = read_cloud(written(tmp_path, "a.gltf", json.dumps(tree).encode()))
        assert (bool((cloud.points[:, 0] > 400).any()), cloud.notes) == (reach, notes)
    tree["nodes"][1:] = [{"camera": 0}]  # of another scene, which holds nothing that is read
    tree["scenes"] = [{"nodes": [0]}, {"nodes": [1]}]
    assert read_cloud(written(tmp_path, "a.gltf", json.dumps(tree).encode())).notes == ()
    tree["nodes"][0] |= {"extensions": hidden}
    with pytest.raises(PointCloudFileError, match="no triangles or points in its scene, as its nodes are hidden"):
        read_cloud(written(tmp_path, "a.gltf", json.dumps(tree).encode()))


def test_what_moves_or_repeats_a_mesh_is_applied_or_said(tmp_path):
    def changed(**node) -> Path:
        tree = json.loads(whole_files.gltf())
        tree["nodes"] = [{"mesh": 0, "translation": [100, 0, 0], **node}]
        tree["scenes"] = [{"nodes": [0]}]
        return written(tmp_path, "a.gltf", json.dumps(tree).encode())

    plain = read_cloud(changed(), vertices=True)
    bent = read_cloud(changed(skin=0), vertices=True)
    np.testing.assert_allclose(plain.points[:, 0] - bent.points[:, 0], 100, atol=1e-4)
    assert bent.notes == ("bones and morphs are not applied: meshes are in their pose at rest",)
    for node, of_mesh, said in (([0.5], [0], True), ([0], [0.5], False), (None, [0.5], True), (None, [0], False)):
        tree = json.loads(whole_files.gltf())
        tree["meshes"][0]["weights"] = of_mesh
        tree["nodes"] = [{"mesh": 0, **({"weights": node} if node else {})}]
        tree["scenes"] = [{"nodes": [0]}]
        for of_tree in (tree, {key: value for key, value in tree.items() if key not in ("nodes", "scenes")}):
            cloud = read_cloud(written(tmp_path, "c.gltf", json.dumps(of_tree).encode()))
            assert bool(cloud.notes) == (any(of_mesh) if "nodes" not in of_tree else said)
    copied = read_cloud(changed(extensions={"EXT_mesh_gpu_instancing": {}}))
    assert copied.notes == ("copies by EXT_mesh_gpu_instancing left out",)
    tree = json.loads(whole_files.gltf()) | {"extensionsRequired": ["KHR_materials_unlit", "FOO_bar"]}
    with pytest.raises(PointCloudFileError, match="needs the extension 'FOO_bar', which is not read"):
        read_cloud(written(tmp_path, "b.gltf", json.dumps(tree).encode()))
