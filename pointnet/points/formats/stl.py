"""STL: a header of 80 bytes, F, and F records of 50 bytes; or text from `solid` to `endsolid`, or several of these.

Source: 3D Systems' StereoLithography Interface Specification, as collected on fabbers.com; colours as on Wikipedia,
"STL (file format)", and as MeshLab writes them.
"""

import re

import numpy as np

from ..errors import Refusal
from .behind import bytes_behind
from .contents import EXTRAS, Array, Contents, Extras
from .names import of_pieces
from .scan import blocks_of_lines, decoded, numbers, unix_lines

HEADER = 84
RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
VALID, MAGICS = 0x8000, b"COLOR="
# What begins and what ends a solid (group 1), up to its first facet: a name may hold any word.
NAME = re.compile(
    rb"(?:^|(?<=endfacet))[ \t]*(end[ \t]*)?solid\b.*?(?=\bfacet[ \t]+normal[ \t]+(?:[-+.\d]|nan|inf)|$)",
    re.IGNORECASE | re.MULTILINE,
)
END = re.compile(rb"^[ \t]*end[ \t]*solid\b.*\n?", re.IGNORECASE | re.MULTILINE)
SOLID = re.compile(rb"^[ \t]*solid[ \t]+(\S[^\n]{0,99})", re.IGNORECASE | re.MULTILINE)
VERTEX = re.compile(rb"\bvertex[ \t]+([^ \t\n]+[ \t]+[^ \t\n]+[ \t]+[^ \t\n]+)", re.IGNORECASE)


def parse_stl(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An STL file's triangles, three vertices each. Both kinds may begin with `solid`; bytes that are 0 tell binary."""
    declared = int.from_bytes(data[80:HEADER], "little")
    there = (len(data) - HEADER) / RECORD.itemsize
    is_text = data.lstrip()[:5].lower() == b"solid" and b"\0" not in data[: HEADER + 20 * RECORD.itemsize]
    notes, colors = list[str](), None
    if is_text and declared != there:
        text = unix_lines(data)
        corners = _text_corners(text)
        if "labels" in extras:
            notes += of_pieces("solids", map(decoded, dict.fromkeys(SOLID.findall(text))))
        if ends := [end.end() for end in END.finditer(text)]:
            notes += bytes_behind(text[ends[-1] :], "solid")
    elif len(data) >= HEADER and declared <= there:
        records = np.frombuffer(data, RECORD, declared, HEADER)
        corners = records["corners"].reshape(-1, 3)
        colors = _colors(records["attribute"], data[:80]) if "colors" in extras else None
        if "colors" in extras and colors is None and records["attribute"].any():
            notes.append("attributes of triangles left out: not all are colours")
        notes += bytes_behind(data[HEADER + declared * RECORD.itemsize :], "triangle")
    else:
        raise Refusal(f"declares {declared} triangles of 50 bytes after its header, holds {max(there, 0):g}")
    if not len(corners):
        raise Refusal("holds no triangle")
    return Contents(corners, np.arange(len(corners)).reshape(-1, 3), face_colors=colors, notes=tuple(notes))


def _colors(attributes: Array, header: bytes) -> Array | None:
    """(F, 3) from 15 bits of each triangle, if all have a colour.

    VisCAM and SolidView set the bit VALID and begin with blue. Magics has the colour of the whole in the header and
    begins with red; a triangle of VALID alone, or all of 0, have that of the whole.
    """
    fifths = np.stack([attributes >> shift & 31 for shift in (10, 5, 0)], axis=1).astype(np.float32) / np.float32(31)
    whole = header.partition(MAGICS)[2][:3]
    if len(whole) == 3:
        is_own = (attributes != VALID) & attributes.any()
        return np.where(is_own[:, None], fifths[:, ::-1], np.frombuffer(whole, np.uint8) / np.float32(255))
    return fifths if (attributes & VALID).all() else None


def _text_corners(data: bytes) -> Array:
    """The vertices of an STL text: (3 F, 3)."""
    blocks, words, facets, is_closed = list[Array](), 0, 0, False
    for block in blocks_of_lines(data):
        lower, end = block.lower(), -1
        if b"solid" in lower:
            end = max((name.end() for name in NAME.finditer(block) if name[1]), default=-1)
            is_closed, block = is_closed or end >= 0, NAME.sub(b"", block)
        if lower.rfind(b"vertex") > end:
            is_closed = False
        found, lower = VERTEX.findall(block), block.lower()
        words += lower.count(b"vertex")
        blocks.append(numbers(b"\n".join(found)).reshape(len(found), 3))
        facets += lower.count(b"endfacet")
    if not is_closed:
        raise Refusal("is cut short: it does not end with endsolid")
    corners = np.concatenate(blocks)
    if len(corners) != words:
        raise Refusal("has a vertex without three numbers")
    if len(corners) % 3 or (facets and len(corners) != 3 * facets):
        facets_too = f" in {facets} facets" if facets else ""
        raise Refusal(f"must have three vertices per triangle, got {len(corners)}{facets_too}")
    return corners
