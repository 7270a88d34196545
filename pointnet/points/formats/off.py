"""OFF: the meshes of ModelNet and of the Princeton benchmarks. The one parser here that is optimised for speed.

    OFF                     or [ST][C][N]OFF: normals (N), colours (C), texture coordinates (ST) beside the vertices;
                            MeshLab's NCOFF has the colour, of four numbers, before the normal
    V F E                   on the same line too, or glued to the word: OFF2258 2436 0
    x y z                   V lines
    n i_1 ... i_n [r g b]   F lines: polygons of any size, with or without a colour

Source: Geomview's manual, "OFF files"; the glued counts are ModelNet's own.
"""

import re

from ..errors import Refusal
from .behind import PADDING, lines_behind
from .contents import EXTRAS, Budget, Contents, Extras
from .polygons import ROW, polygons_of_text, with_faces
from .scan import numbers_of_lines, quoted, unix_lines
from .values import as_unit_colors

MAGIC = re.compile(rb"\s*((?:ST|C|N)*)(4n?)?OFF(\s*BINARY)?", re.IGNORECASE)
COUNTS = re.compile(rb"\s*(\d{1,18})[ \t]+(\d{1,18})(?:[ \t]+-?\d+)?[ \t\r]*(?:\n|$)")


def parse_off(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An OFF file's vertices and triangles; polygons are cut into fans."""
    if b"#" in data:
        data = re.sub(rb"#[^\n\r]*", b"", data)
    data = unix_lines(data)
    letters, num_vertices, num_faces, start = _header(data)
    has_colors, has_normals = b"C" in letters, b"N" in letters
    color_first = has_colors and has_normals and letters.index(b"N") < letters.index(b"C")
    rows, end = numbers_of_lines(data, start, num_vertices)
    # On a vertex's line: x y z, then a normal, then a colour, then anything else.
    width, rest = divmod(rows.size, num_vertices)
    least = 3 + 3 * has_normals + 3 * has_colors + color_first
    if rest or width < least:
        wanted = f"{num_vertices} vertices of at least {least} numbers, a line each"
        raise Refusal(f"declares {wanted}; those lines hold {rows.size} numbers")
    rows = rows.reshape(num_vertices, width)
    normal, color = (7, 3) if color_first else (3, least - 3)
    normals = rows[:, normal : normal + 3] if has_normals and "normals" in extras else None
    colors, of_colors = None, tuple[str, ...]()
    if has_colors and "colors" in extras:
        colors, of_colors = as_unit_colors(rows[:, color : color + 3])
    more = width - least - (has_colors and not color_first and width == least + 1)  # the opacity
    notes = (f"{more} more numbers per vertex left out, which the first word does not name",) if more else ()
    contents = Contents(rows[:, :3], normals=normals, colors=colors, notes=(*notes, *of_colors))
    if not num_faces:
        return contents.noted(*lines_behind(data[end:], "vertices", num_vertices, width))
    budget = Budget(len(data))
    budget.charge("its faces", ROW * num_faces)
    polygons = polygons_of_text(data[end:].rstrip(PADDING), num_faces)
    more = 0 if polygons.others is None else polygons.others.shape[1]
    if polygons.is_mixed:
        contents = contents.noted("colours of faces left out: not every face has one")
    elif more not in (0, 3, 4):
        contents = contents.noted(f"{more} more numbers per face left out, which are no colour")
    colors = polygons.others if more in (3, 4) and "colors" in extras else None
    return with_faces(contents, polygons, extras, budget, colors)


def _header(data: bytes) -> tuple[bytes, int, int, int]:
    """What vertices have, as letters; the numbers of vertices and of faces; where the body begins."""
    magic = MAGIC.match(data)
    if not magic:
        raise Refusal(f"does not begin with OFF, but with {quoted(data[:20].strip())}")
    letters, dimension, binary = magic.groups()
    if dimension or binary:
        raise Refusal("is OFF of a variant that is not read (binary, or not of three dimensions)")
    counts = COUNTS.match(data, magic.end())
    if not counts:
        after = data[magic.end() : magic.end() + 40].split(b"\n")
        raise Refusal(f"must give its numbers of vertices and faces after OFF, got {quoted(b' '.join(after).strip())}")
    num_vertices, num_faces, start = int(counts[1]), int(counts[2]), counts.end()
    if not num_vertices:
        raise Refusal("declares no vertices")
    # The shortest lines that are possible.
    for name, count, least in (("vertices", num_vertices, len("0 0 0\n")), ("faces", num_faces, 2)):
        if count * least > len(data) - start + 1:
            raise Refusal(f"declares {count} {name}, more than the file holds")
    return letters.upper().replace(b"ST", b""), num_vertices, num_faces, start
