"""STL: a header of 80 bytes, F, and F records of 50 bytes; or text from `solid` to `endsolid`.

Source: 3D Systems' StereoLithography Interface Specification, as collected on fabbers.com.
"""

import re

import numpy as np

from ..errors import Refusal
from .contents import EXTRAS, Array, Contents, Extras
from .scan import blocks_of_lines, numbers

HEADER = 84
RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
VERTEX = re.compile(rb"\bvertex[ \t]+([^ \t\n]+[ \t]+[^ \t\n]+[ \t]+[^ \t\n]+)", re.IGNORECASE)


def parse_stl(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """An STL file's triangles, three vertices each. The length tells binary from text: both may begin with `solid`."""
    declared = int.from_bytes(data[80:HEADER], "little")
    there = (len(data) - HEADER) / RECORD.itemsize
    if len(data) >= HEADER and declared == there:
        corners = np.frombuffer(data, RECORD, declared, HEADER)["corners"].reshape(-1, 3)
    elif data.lstrip()[:5].lower() == b"solid":
        corners = _text_corners(data)
    else:
        raise Refusal(f"declares {declared} triangles of 50 bytes after its header, holds {max(there, 0):g}")
    if not len(corners):
        raise Refusal("holds no triangle")
    return Contents(corners, np.arange(len(corners)).reshape(-1, 3))


def _text_corners(data: bytes) -> Array:
    """The vertices of an STL text: (3 F, 3)."""
    if b"endsolid" not in data[-1000:].lower():
        raise Refusal("is cut short: it does not end with endsolid")
    blocks = []
    for block in blocks_of_lines(data):
        found = VERTEX.findall(block)
        if len(found) != block.lower().count(b"vertex"):
            raise Refusal("has a vertex without three numbers")
        blocks.append(numbers(b"\n".join(found)).reshape(len(found), 3))
    corners = np.concatenate(blocks)
    if len(corners) % 3:
        raise Refusal(f"must have three vertices a triangle, got {len(corners)}")
    return corners
