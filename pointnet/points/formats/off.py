"""OFF: the meshes of ModelNet and of the Princeton benchmarks. The one parser here that is optimised for speed.

    OFF                     or [ST][C][N]OFF: normals (N), colours (C), texture coordinates (ST) beside the vertices
    V F E                   on the same line too, or glued to the word: OFF2258 2436 0
    x y z                   V lines
    n i_1 ... i_n [r g b]   F lines: polygons of any size, with or without a colour

Source: Geomview's manual, "OFF files"; the glued counts are ModelNet's own.
"""

import re
from typing import NamedTuple

from ..errors import Refusal
from .columns import as_unit_colors
from .contents import EXTRAS, Array, Contents, Extras
from .polygons import polygons_of_text, with_faces
from .scan import numbers_of_lines, quoted, unix_lines

MAGIC = re.compile(rb"\s*(ST)?(C)?(N)?(4|4n|n)?OFF(\s*BINARY)?", re.IGNORECASE)
COUNTS = re.compile(rb"\s*(\d{1,18})[ \t]+(\d{1,18})(?:[ \t]+-?\d+)?[ \t\r]*(?:\n|$)")


class Header(NamedTuple):
    has_normals: bool
    has_colors: bool
    num_vertices: int
    num_faces: int
    end: int  # where the body begins


def parse_off(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An OFF file's vertices and triangles; polygons are cut into fans."""
    if b"#" in data:
        data = re.sub(rb"#[^\n\r]*", b"", data)
    data = unix_lines(data)
    header = _header(data)
    rows, end = numbers_of_lines(data, header.end, header.num_vertices)
    contents = _vertices(rows, header, extras)
    if not header.num_faces:
        return contents
    polygons = polygons_of_text(data[end:], header.num_faces)
    is_color = polygons.others is not None and polygons.others.shape[1] in (3, 4) and "colors" in extras
    return with_faces(contents, polygons, polygons.others if is_color else None)


def _header(data: bytes) -> Header:
    magic = MAGIC.match(data)
    if not magic:
        raise Refusal(f"does not begin with OFF, but with {quoted(data[:20].strip())}")
    _, colors, normals, dimension, binary = magic.groups()
    if dimension or binary:
        raise Refusal("is OFF of a variant that is not read (binary, or not of three dimensions)")
    counts = COUNTS.match(data, magic.end())
    if not counts:
        after = data[magic.end() : magic.end() + 40].split(b"\n")
        raise Refusal(f"must give its numbers of vertices and faces after OFF, got {quoted(b' '.join(after).strip())}")
    header = Header(bool(normals), bool(colors), int(counts[1]), int(counts[2]), counts.end())
    if not header.num_vertices:
        raise Refusal("declares no vertices")
    # The shortest lines that are possible.
    for name, count, least in (("vertices", header.num_vertices, len("0 0 0\n")), ("faces", header.num_faces, 2)):
        if count * least > len(data) - header.end + 1:
            raise Refusal(f"declares {count} {name}, more than the file holds")
    return header


def _vertices(rows: Array, header: Header, extras: Extras) -> Contents:
    """The vertices from all numbers of their lines: x y z, then a normal, then a colour, then anything else."""
    width, rest = divmod(rows.size, header.num_vertices)
    least = 3 + 3 * header.has_normals + 3 * header.has_colors
    if rest or width < least:
        raise Refusal(
            f"declares {header.num_vertices} vertices of at least {least} numbers, a line each; "
            f"those lines hold {rows.size} numbers"
        )
    rows = rows.reshape(header.num_vertices, width)
    normals = rows[:, 3:6] if header.has_normals and "normals" in extras else None
    colors = as_unit_colors(rows[:, least - 3 : least]) if header.has_colors and "colors" in extras else None
    return Contents(rows[:, :3], normals=normals, colors=colors)
