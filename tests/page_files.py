"""Files that a page is given: the same few shapes in many spellings, and files that cannot be read."""

import struct
from collections.abc import Callable

import numpy as np


def box_as_ply(form: str) -> bytes:
    """The unit cube of quads as PLY with colours, normals, a list among the vertices and an element of no use."""
    end = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    kinds = ["float x", "double y", "float z", "float nx", "uchar red", "list uchar short seen"]
    lines = ["ply", f"format {form} 1.0", "comment a box", "element vertex 8", *(f"property {kind}" for kind in kinds)]
    lines += ["element edge 1", "property int a", "element face 6", "property uchar red"]
    lines += ["property list uchar int vertex_index", "end_header\n"]
    rows = [("fdffBB2h", [*corner, 0.5, 200, 2, 7, 8]) for corner in CORNERS] + [("i", [3])]
    rows += [("BB4i", [9, 4, *quad]) for quad in QUADS]
    if form == "ascii":
        return "\n".join(lines).encode() + "".join(" ".join(map(str, row)) + "\n" for _, row in rows).encode()
    return "\n".join(lines).encode() + b"".join(struct.pack(end + kinds, *row) for kinds, row in rows)


def box_as_obj(face: Callable[[int], str], between: str = " ") -> bytes:
    lines = ["# a box", "mtllib none.mtl", *(f"v {x} {y} {z} 0.5 0.5 1" for x, y, z in CORNERS), "vn 0 0 1"]
    return "\n".join([*lines, "g sides", *(f"f {between.join(map(face, quad))}" for quad in QUADS), ""]).encode()


CORNERS = [(x, y, z) for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
QUADS = [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
HEXAGON = [(round(float(np.cos(a)), 9), round(float(np.sin(a)), 9), 0) for a in np.arange(6) * np.pi / 3]
LINES = "\n".join(f"{x} {y} {z}" for x, y, z in HEXAGON)
STL = np.zeros(2, [("n", "<3f4"), ("v", "<9f4"), ("a", "<u2")])
STL["v"] = [(0, 0, 0, 1, 0, 0, 1, 1, 0), (0, 0, 0, 1, 1, 0, 0, 1, 0)]
# The same few shapes as programs write them: bytes, vertices, area (0 for a cloud).
SPELLINGS = {
    "little.ply": (box_as_ply("binary_little_endian"), 8, 6),
    "large.ply": (box_as_ply("binary_big_endian"), 8, 6),
    "words.ply": (box_as_ply("ascii"), 8, 6),
    "cloud.ply": (box_as_ply("ascii").replace(b"vertex_index", b"ring"), 8, 0),
    "backwards.obj": (box_as_obj(lambda i: f"{i - 8}//-1"), 8, 6),
    "slashes.obj": (box_as_obj(lambda i: f"{i + 1}/7/1"), 8, 6),
    "continued.obj": (box_as_obj(lambda i: str(i + 1), " \\\n"), 8, 6),
    "points.obj": (box_as_obj(str).split(b"g sides")[0] + b"p 1 2\nl 1 2\n", 8, 0),
    "hexagon.off": (f"COFF\n6 1 0\n{LINES}\n6 0 1 2 3 4 5 255 0 0\n".encode(), 6, 1.5 * 3**0.5),
    "hexagon.obj": (LINES.replace("\n", "\nv ").join(("v ", "\nf 1 2 3 4 5 6")).encode(), 6, 1.5 * 3**0.5),
    "points.off": (f"OFF\n6 0 0\n{LINES}\n".encode(), 6, 0),
    "more.stl": (bytes(80) + b"\x02\0\0\0" + STL.tobytes() + b"behind the last", 6, 1),
}
SPELLED = {name: data for name, (data, *_) in SPELLINGS.items()}
BROKEN = {
    "a.off": b"OFF\n3 1 0\n0 0 0\n1 0 0\n", "b.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "c.ply": b"ply\nnonsense",
    "d.stl": b"solid", "e.xyz": b"words only\n", "f.xyz": b"1 2 3\n" * 3, "g.obj": b"v 0 0 0\nv 1 0 x\nv 0 1 0\n",
    "h.glb": b"glTF", "i.off": b"OFF\n9 0 0\n" + LINES.encode(), "j.obj": box_as_obj(lambda i: str(i - 9)),
    "k.ply": box_as_ply("binary_little_endian")[:-9], "l.ply": box_as_ply("ascii").replace(b"ascii", b"binary"),
    "m.ply": b"ply\nformat ascii 1.0\nproperty float x\nelement vertex 999999999999\nend_header\n",
    "n.ply": box_as_ply("ascii").replace(b"double y", b"double v"), "o.obj": b"", "p.stl": bytes(84),
}  # fmt: skip
