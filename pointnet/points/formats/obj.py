"""OBJ: `v` and `vn` lines, and `f` lines that name them. Materials, textures, lines and groups are skipped.

Source: Wavefront's Advanced Visualizer manual, appendix B1; colours after xyz as MeshLab and others write them,
or in comments `#MRGB` of hexadecimal MMRRGGBB as ZBrush does.
"""

import contextlib
import re

import numpy as np

from ..errors import Refusal
from .contents import EXTRAS, Array, Budget, Contents, Extras
from .names import of_pieces
from .polygons import ROW, Polygons, with_faces
from .scan import blocks_of_lines, decoded, numbers, quoted, unix_lines, words_per_line
from .values import as_unit_colors

VERTEX = re.compile(rb"^[ \t]*v[ \t]+(.*)", re.MULTILINE)
NORMAL = re.compile(rb"^[ \t]*vn[ \t]+(.*)", re.MULTILINE)
FACE = re.compile(rb"^[ \t]*f[ \t]+(.*)", re.MULTILINE)
NAMED = re.compile(rb"-?\d+/-?\d*/")  # what precedes the normal of a corner
MATERIAL = re.compile(rb"^[ \t]*(?:usemtl|mtllib)\b", re.MULTILINE)
CURVE = re.compile(rb"^[ \t]*(?:l|curv2?|surf|bzp|bsp|cd[cp])[ \t]", re.MULTILINE)
CALL = re.compile(rb"^[ \t]*call[ \t]+(\S+)", re.MULTILINE)
GROUP = re.compile(rb"^[ \t]*[go][ \t]+(\S[^\n\r]{0,99})", re.MULTILINE)
PAINT = re.compile(rb"^#MRGB[ \t]+([0-9a-fA-F]+)", re.MULTILINE)
PATH = re.compile(rb"(#[^\n]*?)[\\\r]+\n")
NONE = np.empty((0, 3))
KIND = re.compile(rb"^[ \t]*(vn?|f)[ \t]", re.MULTILINE)


def parse_obj(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An OBJ file's vertices and triangles; a vertex has the sum of the normals that faces give it."""
    data = unix_lines(data)
    if b"\\" in data:  # a line goes on in the next, but for comments, which may end with the name of a folder
        data = re.sub(rb"\\\r?\n", b" ", PATH.sub(rb"\1\n", data))
    points, paint, count, given, colored = bytearray(), bytearray(), 0, 0, 0  # a bytearray grows in place
    normals, colors, corners, sizes, named, budget = [NONE], [NONE], [], [], [], Budget(len(data))
    for block in blocks_of_lines(data):
        if b"#" in block:
            paint += b"".join(PAINT.findall(block))
            block = re.sub(rb"#.*", b"", block)
        vertices, with_color = _rows(VERTEX.findall(block), "vertex")
        points += vertices[:, :3].tobytes()
        if "colors" in extras and with_color:
            colors.append(vertices[:, 3:6])
            colored += with_color
        if "normals" in extras:
            normals.append(_rows(NORMAL.findall(block), "normal")[0][:, :3])
        block_corners, block_sizes, names = _faces(block, count, given, "normals" in extras)
        budget.charge("its faces", ROW * len(block_sizes))
        corners.append(block_corners)
        sizes.append(block_sizes)
        named.append(names)
        count += len(vertices)
        given += len(normals[-1])
    if not count:
        raise Refusal("holds no vertices")
    contents = Contents(np.frombuffer(points).reshape(count, 3))
    if colored == count:  # a fourth number alone is a weight
        unit, notes = as_unit_colors(np.concatenate(colors))
        contents = contents._replace(colors=unit).noted(*notes)
    elif "colors" in extras:
        contents = _painted(contents, paint, colored, MATERIAL.search(data) is not None)
    polygons = Polygons(np.concatenate(corners), np.concatenate(sizes))
    is_mesh = len(polygons.corners) > 0
    contents = contents.noted(*_others(data, extras))
    if given:
        contents = _with_normals(contents, np.concatenate(normals), np.concatenate(named), polygons.corners)
    return with_faces(contents, polygons, extras, budget, counted_from=1) if is_mesh else contents


def _others(data: bytes, extras: Extras) -> list[str]:
    """Notes of the lines that are no vertices, normals or polygons."""
    notes = ["lines, curves and curved surfaces left out"] if CURVE.search(data) else []
    if called := CALL.findall(data):
        notes.append(f"files that are called left out: {quoted(called[0])} ({len(called)} in all)")
    return notes + [*of_pieces("groups", map(decoded, dict.fromkeys(GROUP.findall(data))))] * ("labels" in extras)


def _painted(contents: Contents, paint: bytearray, colored: int, has_materials: bool) -> Contents:
    """Contents with ZBrush's colours, or with a note of the colours that are lost."""
    count = len(contents.vertices)
    if len(paint) == 8 * count:
        mask_and_color = np.frombuffer(bytes.fromhex(paint.decode()), np.uint8).reshape(count, 4)
        return contents._replace(colors=as_unit_colors(mask_and_color[:, 1:])[0])
    if paint or colored:
        return contents.noted(
            f"colours left out, since there are {colored or len(paint) // 8:,} for {count:,} vertices"
        )
    return contents.noted(*["materials are not read, so there are no colours"] * has_materials)


def _with_normals(contents: Contents, normals: Array, names: Array, corners: Array) -> Contents:
    """Contents with normals of vertices: of a mesh the sum of those that the corners of its faces name, if all name
    one, of a cloud the normals in order; or with a note of their loss."""
    count, given = len(contents.vertices), len(normals)
    if not len(corners):
        if given == count:
            return contents._replace(normals=normals)
        why = f"there are {given} for {count} vertices"
    elif len(names) == len(corners) and 1 <= names.min() <= names.max() <= given and corners.max() < count:
        columns = [np.bincount(corners, axis[names - 1], count) for axis in normals.T]
        return contents._replace(normals=np.stack(columns, axis=1))
    else:
        why = "not every corner of a face names one"
    return contents.noted(f"normals of vertices left out, since {why}")


def _rows(lines: list[bytes], kind: str) -> tuple[Array, int]:
    """The numbers of these lines: (n, K), K at least 3, and 3 or 6 where the lines differ in length; and how many of
    them have six."""
    text = b"".join(line + b"\n" for line in lines)
    widths = words_per_line(text)
    if not lines:
        return NONE, 0
    if widths.min() < 3:
        raise Refusal(f"has a {kind} of fewer than three numbers: {quoted(lines[int(widths.argmin())].strip())}")
    if widths.min() < widths.max():
        width = 6 if widths.min() >= 6 else 3
        text = b"\n".join(b" ".join(line.split()[:width]) for line in lines)
    return numbers(text).reshape(len(lines), -1), int((widths >= 6).sum())


def _faces(block: bytes, before: int, given: int, normals: bool) -> tuple[Array, Array, Array]:
    """The polygons of a block that `before` vertices and `given` normals precede: corners counted from 0, and sizes; if
    wanted, and if all name one, the normals of the corners, counted from 1 (0: one that cannot be)."""
    lines = FACE.findall(block)
    text = b"".join(line + b"\n" for line in lines)
    sizes = words_per_line(text)
    corners = numbers(re.sub(rb"/[^ \t\n]*", b"", text) if b"/" in text else text, np.int64)
    if len(corners) != sizes.sum():
        raise Refusal("has a face whose corners do not begin with a vertex")
    if (corners == 0).any():
        raise Refusal("a face names vertex 0, but OBJ counts from 1")

    def latest(kind: bytes, before: int) -> Array:  # how many there are at a corner's line, which negatives count from
        kinds = np.array(KIND.findall(block))
        return np.repeat(before + np.cumsum(kinds == kind)[kinds == b"f"], sizes)

    if (corners < 0).any():
        there = latest(b"v", before)
        if (wrong := corners + there < 0).any():
            raise Refusal(f"a face names vertex {corners[wrong][0]}, but {there[wrong][0]} vertices precede it")
        corners = np.where(corners < 0, corners + 1 + there, corners)
    names = np.empty(0, np.int32)
    if normals and text.count(b"/") == 2 * len(corners):
        with contextlib.suppress(Refusal):
            names = numbers(NAMED.sub(b"", text), np.int64)
            if len(names) == len(corners) and (names < 0).any():
                names = np.where(names < 0, names + 1 + latest(b"vn", given), names)
            names = names.clip(0, np.iinfo(np.int32).max).astype(np.int32)
    return corners - 1, sizes, names
