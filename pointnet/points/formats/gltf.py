"""glTF 2.0, as JSON (GLTF) or with its bytes behind that (GLB): the triangles or points of its scene, nodes posed.

Bytes are read from the file and from buffers in its folder (`beside`); of materials only their plain colour is read.
Source: Khronos' glTF 2.0 specification.
"""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ..errors import PointCloudFileError, Refusal, file_errors
from ..frame import lossless_type
from .accessors import Accessors, tree_of
from .behind import bytes_behind
from .beside import FilesBeside
from .contents import EXTRAS, Array, Budget, Contents, Extras, blocks_of_rows, wants_all
from .names import left_out, of_pieces
from .polygons import check_corners
from .scan import quoted
from .values import as_unit_colors

JSON, BINARY, CHUNK = 0x4E4F534A, 0x004E4942, struct.Struct("<II")
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
# A piece beside its numbers, a vertex, its colour or normal, and a corner of a face, as they are held below.
PIECE_BYTES, VERTEX_BYTES, EXTRA_BYTES, CORNER_BYTES = 1200, 24, 12, 8
# What a required extension may be about without changing where points are.
HARMLESS = re.compile(
    "KHR_(materials|texture|lights|mesh_quantization|node_visibility|xmp)|EXT_(texture|lights|mesh_features|structural)"
)
COPIES, VISIBLE = "EXT_mesh_gpu_instancing", "KHR_node_visibility"
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
SHOWN = re.compile("(TANGENT|TEXCOORD|JOINTS|WEIGHTS)")  # attributes about how a mesh is drawn
PACKED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")


def parse_glb(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A GLB file's scene, in its own frame (y up)."""
    data = path.read_bytes()
    if data[:4] != b"glTF":
        raise Refusal(f"does not begin with glTF, but with {quoted(data[:4])}")
    version, length = (int.from_bytes(data[i : i + 4], "little") for i in (4, 8))
    if version != 2 or length > len(data):
        raise Refusal(f"must be of version 2 and whole, got version {version} and {len(data)} of {length} bytes")
    chunks: dict[int, memoryview] = {}
    at = 12
    while at + 8 <= length:
        size, kind = CHUNK.unpack_from(data, at)
        if size > length - at - 8:
            raise Refusal(f"declares a chunk of {size} bytes, more than the file holds")
        if kind in (JSON, BINARY):  # of any other there may be millions
            chunks.setdefault(kind, memoryview(data)[at + 8 : at + 8 + size])
        at += 8 + size
    if JSON not in chunks:
        raise Refusal("has no JSON chunk")
    scene = _Scene(bytes(chunks[JSON]), chunks.get(BINARY), len(data), FilesBeside(path.parent))
    return scene.contents(extras).noted(*bytes_behind(data[length:], "chunk"))


def parse_gltf(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A glTF file's scene, in its own frame (y up); its bytes are within it, as `data:` URIs, or beside it."""
    data = path.read_bytes()
    return _Scene(data, None, len(data), FilesBeside(path.parent)).contents(extras)


def buffers_of(path: Path) -> frozenset[Path]:
    """The files that a GLB or GLTF names as its buffers, with no link left in their paths; none if it is damaged."""
    with suppress(PointCloudFileError), file_errors(path), path.open("rb") as file:
        if path.suffix.lower() == ".glb":
            file.seek(12)
            size, _ = CHUNK.unpack(file.read(CHUNK.size))
        else:
            size = -1
        uris = [str(buffer.get("uri", "data:")) for buffer in tree_of(file.read(size)).get("buffers", [])]
        return frozenset((path.parent / unquote(uri)).resolve() for uri in uris if not uri.startswith("data:"))
    return frozenset()


class _Scene:
    """The tree a glTF file describes, and the bytes it refers to."""

    def __init__(self, text: bytes, binary: memoryview | None, file_size: int, folder: FilesBeside):
        self.tree = tree_of(text)
        if str(self.tree.get("asset", {}).get("version", ""))[:2] != "2.":
            raise Refusal("is not glTF 2")
        if packed := set(PACKED) & set(self.tree.get("extensionsRequired", [])):
            raise Refusal(f"is compressed with {min(packed)}, which is not read")
        if unknown := [name for name in self.tree.get("extensionsRequired", []) if not HARMLESS.match(str(name))]:
            raise Refusal(f"needs the extension {quoted(str(unknown[0]))}, which is not read")
        if not self.tree.get("nodes"):  # then all meshes are the scene
            self.tree |= {"nodes": [{"mesh": i} for i in range(len(self.tree.get("meshes", [])))], "scenes": []}
        self.is_posed = self.is_copied = self.is_hidden = self.is_elsewhere = False  # whether such nodes were met
        self.names = list[str]()  # of the nodes whose meshes were met, or of these
        paints = [_paint(material) for material in self.tree.get("materials", [])]
        self.is_tinted, self.is_textured = any(factor is not None for factor, _ in paints), False
        self.held, self.folder, self.file_size = Accessors(self.tree, binary, folder), folder, file_size

    def contents(self, extras: Extras) -> Contents:
        """The whole scene as one mesh or, without a triangle, as one cloud."""
        needed, placed, notes = 0, list[tuple[dict[str, Any], Array]](), list[str]()
        for primitive, pose in self._placed():
            if primitive.get("mode", TRIANGLES) not in (POINTS, TRIANGLES, STRIP, FAN):
                notes = ["lines left out"]
                continue
            placed.append((primitive, pose))
            self.is_textured |= "colors" in extras and self._paint_of(primitive)[1]
            needed += self._bytes(primitive, extras)
            Budget(self.file_size + self.folder.size).charge("its scene", needed)  # which may repeat its meshes
        notes += ["bones and morphs are not applied: meshes are in their pose at rest"] * self.is_posed
        notes += [f"copies by {COPIES} left out"] * self.is_copied
        notes += ["hidden nodes left out"] * self.is_hidden
        notes += of_pieces("meshes", self.names) if "labels" in extras else ()
        notes += ["meshes outside the default scene left out"] * self.is_elsewhere
        notes += self._unread([primitive for primitive, _ in placed], extras)
        pieces = [self._piece(primitive, pose, extras) for primitive, pose in placed]
        meshes = [piece for piece in pieces if piece.faces is not None]
        if meshes and len(meshes) < len(pieces):
            notes.append("points beside the triangles left out")
        pieces = meshes or pieces
        if not pieces:
            raise Refusal(f"has no triangles or points in its scene{', as its nodes are hidden' * self.is_hidden}")
        first = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
        faces = [piece.faces + start for piece, start in zip(meshes, first, strict=False) if piece.faces is not None]
        vertices = np.concatenate([piece.vertices for piece in pieces])
        normals, more = _joined([piece.normals for piece in pieces], "normals of vertices")
        colors, lost = _joined([piece.colors for piece in pieces], "colours")
        if "colors" in extras and not lost and (self.is_textured if colors is not None else self.tree.get("textures")):
            what = "there are no colours" if colors is None else "colours are without them"
            lost = (f"textures are not read, so {what}",)
        return Contents(
            vertices.astype(lossless_type(vertices)),
            np.concatenate(faces) if faces else None,
            normals=normals,
            colors=colors,
            notes=(*notes, *more, *lost, *dict.fromkeys(note for piece in pieces for note in piece.notes)),
        )

    def _placed(self) -> Iterator[tuple[dict[str, Any], Array]]:
        """Each primitive of the scene with the pose (4, 4) of its node."""
        waiting = [(index, np.eye(4), False) for index in self._roots()]
        met, meshes = set[int](), set[int]()
        while waiting:
            index, above, is_hidden = waiting.pop()
            node = self.held.item("nodes", index)
            if index in met:
                raise Refusal(f"node {index} has two parents, or is its own descendant")
            met.add(index)
            more = node.get("extensions", {})
            is_hidden |= more.get(VISIBLE, {}).get("visible") is False  # with all that is below it
            pose = above @ _pose(node)
            waiting += [(child, pose, is_hidden) for child in node.get("children", [])]
            if "mesh" not in node:
                continue
            meshes.add(node["mesh"])
            self.is_hidden |= is_hidden
            if not is_hidden:
                mesh = self.held.item("meshes", node["mesh"])
                self.is_posed |= "skin" in node or any(node.get("weights", mesh.get("weights", ())))
                self.is_copied |= COPIES in more
                self.names.append(str(node.get("name", mesh.get("name", ""))))
                pose = np.eye(4) if "skin" in node else pose  # as the standard says: its joints move it
                yield from ((primitive, pose) for primitive in mesh["primitives"])
        others = (node for index, node in enumerate(self.tree.get("nodes", [])) if index not in met)
        self.is_elsewhere = any("mesh" in node for node in others) or len(meshes) < len(self.tree.get("meshes", []))

    def _unread(self, primitives: Iterable[dict[str, Any]], extras: Extras) -> tuple[str, ...]:
        """A note of the attributes of vertices that are not read, if all extras are wanted."""
        if not wants_all(extras):
            return ()
        unread = dict[str, None]()
        for primitive in primitives:
            used, attributes = [*self._accessors(primitive, extras).values()], primitive["attributes"]
            unread |= {name: None for name, index in attributes.items() if index not in used and not SHOWN.match(name)}
        return left_out([*unread])

    def _roots(self) -> list[int]:
        if self.tree.get("scenes"):
            return list(self.held.item("scenes", self.tree.get("scene", 0)).get("nodes", []))
        nodes = self.tree.get("nodes", [])
        children = {child for node in nodes for child in node.get("children", [])}
        return [index for index in range(len(nodes)) if index not in children]

    def _accessors(self, primitive: dict[str, Any], extras: Extras) -> dict[str, Any]:
        """The accessors that are read of a primitive: of its positions, normals, colours and corners."""
        attributes, mode = primitive["attributes"], primitive.get("mode", TRIANGLES)
        used, vertices = {"vertices": attributes["POSITION"]}, self.held.count(attributes["POSITION"])
        for what, name in (("normals", "NORMAL"), ("colors", "COLOR_0")):
            if what in extras and name in attributes and self.held.count(attributes[name]) == vertices:
                used[what] = attributes[name]
        if mode != POINTS and "indices" in primitive:
            used["corners"] = primitive["indices"]
        return used

    def _bytes(self, primitive: dict[str, Any], extras: Extras) -> int:
        """What a primitive takes; the buffers that it needs are opened, so that the limit counts them."""
        used, mode = self._accessors(primitive, extras), primitive.get("mode", TRIANGLES)
        for index in used.values():
            self.held.view(index)
        vertices = self.held.count(used["vertices"])
        corners = 0 if mode == POINTS else self.held.count(used.get("corners", used["vertices"]))
        strip = 3 if mode in (STRIP, FAN) else 1
        each = VERTEX_BYTES + EXTRA_BYTES * (("normals" in used) + ("colors" in used or self.is_tinted))
        return PIECE_BYTES + vertices * each + strip * corners * CORNER_BYTES

    def _piece(self, primitive: dict[str, Any], pose: Array, extras: Extras) -> Contents:
        """A primitive, as posed by one node."""
        used, mode = self._accessors(primitive, extras), primitive.get("mode", TRIANGLES)
        vertices = self.held.rows(used["vertices"], 3)
        normals, colors = (self.held.rows(used[name], 3, 4) if name in used else None for name in ("normals", "colors"))
        notes: tuple[str, ...] = ()
        faces, is_mirrored = None, np.linalg.det(pose[:3, :3]) < 0
        if mode != POINTS:
            corners = np.arange(len(vertices))
            if "corners" in used:
                corners = self.held.rows(used["corners"], 1)[:, 0]
            faces = _triangles(corners, mode)
            check_corners(faces, len(vertices))
            if is_mirrored:  # keeps corners counter-clockwise, seen from outside
                faces = faces[:, ::-1]
        if normals is not None:
            # Normals transform by the matrix of cofactors, which a flattened pose has too.
            a, b, c = pose[:3, :3]
            cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
            normals = (normals[:, :3] @ (-cofactors if is_mirrored else cofactors).T).astype(np.float32)
        if colors is not None:
            colors, notes = as_unit_colors(colors)
        elif "colors" in extras and (factor := self._factor(primitive)) is not None:
            colors = np.broadcast_to(as_unit_colors(np.array([factor], np.float64))[0], vertices.shape)
        return Contents(_moved(vertices, pose), faces, normals, colors, notes=notes)

    def _paint_of(self, primitive: dict[str, Any]) -> tuple[list[float] | None, bool]:
        materials, index = self.tree.get("materials", []), primitive.get("material")
        return _paint(materials[index]) if isinstance(index, int) and 0 <= index < len(materials) else (None, False)

    def _factor(self, primitive: dict[str, Any]) -> list[float] | None:
        """The colour of a primitive's material, white where others have one; None where it has a texture."""
        factor, has_texture = self._paint_of(primitive)
        return None if has_texture or not self.is_tinted else factor or [1.0, 1.0, 1.0]


def _paint(material: dict[str, Any]) -> tuple[list[float] | None, bool]:
    """A material's plain colour, if it has one, and whether it has a texture for it."""
    glossy = (material.get("extensions") or {}).get(GLOSSY)
    described = material.get("pbrMetallicRoughness", {}) if glossy is None else glossy
    factor, texture = ("baseColorFactor", "baseColorTexture") if glossy is None else ("diffuseFactor", "diffuseTexture")
    return described.get(factor), texture in described


def _pose(node: dict[str, Any]) -> Array:
    """A node's matrix (4, 4), from the file or from translation, rotation (x, y, z, w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    pose = np.eye(4)
    x, y, z, w = map(float, node.get("rotation", (0, 0, 0, 1)))
    length = math.sqrt(x * x + y * y + z * z + w * w) or 1.0
    x, y, z, w = x / length, y / length, z / length, w / length
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, :3] *= np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    pose[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return pose


def _moved(vertices: Array, pose: Array) -> NDArray[np.float64]:
    """Vertices (V, 3) transformed by the pose (4, 4), block by block."""
    placed = np.empty(vertices.shape, np.float64)
    for place, block in zip(blocks_of_rows(placed), blocks_of_rows(vertices), strict=True):
        place[:] = block.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    return placed


def _triangles(corners: Array, mode: int) -> Array:
    """(F, 3) from a primitive's corners (n,): triangles, a strip of them, or a fan."""
    corners = corners.astype(np.int64)
    if mode == TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode == FAN:
        return np.stack([np.broadcast_to(corners[:1], len(corners[2:])), corners[1:-1], corners[2:]], axis=1)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    faces[1::2] = faces[1::2, [1, 0, 2]]  # every second one has the opposite winding
    return faces


def _joined(columns: list[Array | None], what: str) -> tuple[Array | None, tuple[str, ...]]:
    """The columns of all pieces, if every piece has one; else None, and a note if some have."""
    there = [column for column in columns if column is not None]
    if len(there) == len(columns):
        return np.concatenate(there), ()
    return None, (f"{what} left out, since some of its meshes have none",) * bool(there)
