"""PLY: ascii, and binary of either byte order; meshes with polygons of any size, and clouds.

Source: Greg Turk's "The PLY Polygon File Format", 1994.
"""

import re
from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np

from ..errors import Refusal
from .columns import from_named
from .contents import EXTRAS, Array, Contents, Extras
from .names import first_of_each, known_columns
from .polygons import Polygons, polygons_of_text, with_faces
from .scan import columns_of_lines, end_of_lines, quoted, unix_lines

LONGEST_HEADER = 1 << 20
MOST_PROPERTIES = 1000
BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
TYPES |= {"float": "f4", "double": "f8"}
TYPES |= {np.dtype(kind).name: kind for kind in (*TYPES.values(), "i8", "u8")}  # "int8", "float32"
END = re.compile(rb"[\r\n][ \t]*end_header[ \t]*(\r\n|\n|\r)")
CORNERS = ("vertex_indices", "vertex_index")


class Property(NamedTuple):
    name: str
    kind: np.dtype[np.generic]
    length: np.dtype[np.generic] | None  # of a list: how its length is written


class Element(NamedTuple):
    name: str
    rows: int
    properties: list[Property]


# The properties of the faces that are not lists, by name: (P,) each.
Scalars = dict[str, Array]


def parse_ply(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """A PLY file's vertices and triangles; polygons are cut into fans."""
    order, elements, at = _header(data)
    if order == "=":
        data = unix_lines(data)
        order, elements, at = _header(data)
    _check_size(elements, len(data) - at, order == "=")
    needed = [i for i, element in enumerate(elements) if element.name in ("vertex", "face") and element.rows]
    contents, polygons, scalars = None, None, Scalars()
    for element in elements[: max(needed, default=-1) + 1]:
        if element.name == "face" and element.rows:
            polygons, scalars, at = (_text_polygons if order == "=" else _byte_polygons)(data, at, element)
            continue
        names = [prop.name for prop in element.properties] if element.name == "vertex" else []
        table, at = _table(data, at, element, order, known_columns(names, extras) or names)
        if element.name == "vertex":
            contents = from_named(table, extras, names)
    if contents is None or not len(contents.vertices):
        raise Refusal("holds no vertices")
    if polygons is None:
        return contents
    rgb = [scalars[name] for name in ("red", "green", "blue") if name in scalars]
    is_color = len(rgb) == 3 and "colors" in extras
    return with_faces(contents, polygons, np.stack(rgb, axis=1) if is_color else None)


def _header(data: bytes) -> tuple[str, list[Element], int]:
    """The byte order ("=" for text), the elements, and where the body begins."""
    end = END.search(data, 0, LONGEST_HEADER)
    if not re.match(rb"ply[ \t]*[\r\n]", data):
        raise Refusal(f"does not begin with ply, but with {quoted(data[:20])}")
    if not end:
        raise Refusal("has no end_header")
    order, elements = "", list[Element]()
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in BYTE_ORDERS:
            order = BYTE_ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and re.fullmatch(r"\d{1,18}", words[2], re.ASCII):
            elements.append(Element(words[1], int(words[2]), []))
        elif words[0] == "property" and elements and len(elements[-1].properties) < MOST_PROPERTIES:
            elements[-1].properties.append(_property(words, order))
        else:
            raise Refusal(f"has in its header {quoted(line.strip())}")
    if not order:
        raise Refusal("does not say its format")
    return order, elements, end.end()


def _property(words: list[str], order: str) -> Property:
    kinds = words[2:4] if words[1:2] == ["list"] else words[1:2]
    if len(words) != len(kinds) + (3 if len(kinds) == 2 else 2) or not set(kinds) <= TYPES.keys():
        raise Refusal(f"has in its header {quoted(' '.join(words))}")
    kind, *length = (np.dtype((order or "=") + TYPES[kind]) for kind in reversed(kinds))
    if length and length[0].kind not in "iu":
        raise Refusal(f"has in its header {quoted(' '.join(words))}, a list whose length is no integer")
    return Property(words[-1], kind, length[0] if length else None)


def _check_size(elements: list[Element], size: int, text: bool) -> None:
    """Raises Refusal where the body is shorter than the counts need: a list needs its length, text two bytes."""
    for element in elements:
        row = sum(2 if text else (prop.length or prop.kind).itemsize for prop in element.properties)
        if element.rows and (not row or element.rows * row > size + text):
            raise Refusal(f"declares {element.rows} of element {quoted(element.name)}, more than the file holds")


def _table(body: bytes, at: int, element: Element, order: str, known: Collection[str]) -> tuple[dict[str, Array], int]:
    """The columns of an element without lists (of a text only those with `known` names), and where it ends."""
    if any(prop.length for prop in element.properties):
        raise Refusal(f"has lists in its element {quoted(element.name)}, which are not read")
    if order == "=":
        width = len(element.properties)
        kept = [i for i, prop in enumerate(element.properties) if prop.name in known]
        values, total, end = columns_of_lines(body, at, element.rows, width, kept)
        if total != element.rows * width:
            wanted = f"{element.rows} of element {quoted(element.name)} with {width} numbers, a line each"
            raise Refusal(f"declares {wanted}; those lines hold {total} numbers")
        columns = zip((element.properties[i] for i in kept), values.T, strict=True)
        return first_of_each((p.name, c if p.kind.kind == "f" else c.astype(p.kind)) for p, c in columns), end
    row = np.dtype([(f"{i}", prop.kind) for i, prop in enumerate(element.properties)])
    end = at + element.rows * row.itemsize
    if end > len(body):
        raise Refusal(f"is cut short in its element {quoted(element.name)}")
    table = np.frombuffer(body, row, element.rows, at) if element.rows else np.empty(0, row)
    return first_of_each((prop.name, table[f"{i}"]) for i, prop in enumerate(element.properties)), end


def _corner_list(element: Element) -> int:
    """The index of the property that holds the corners."""
    named = [i for i, prop in enumerate(element.properties) if prop.name in CORNERS and prop.length]
    if not named or element.properties[named[0]].kind.kind not in "iu":
        raise Refusal("has faces without a list vertex_indices of integers")
    return named[0]


def _text_polygons(body: bytes, at: int, element: Element) -> tuple[Polygons, Scalars, int]:
    end = end_of_lines(body, at, element.rows)
    before, properties = _corner_list(element), element.properties
    if any(prop.length for prop in properties[:before]):
        raise Refusal("has faces with a list before their corners, which are not read")
    polygons = polygons_of_text(body[at:end], element.rows, before)
    scalars = [prop for prop in properties if not prop.length]
    if polygons.others is None or len(scalars) != len(properties) - 1 or len(polygons.others.T) != len(scalars):
        return polygons, {}, end
    columns = zip(scalars, polygons.others.T, strict=True)
    return polygons, {prop.name: column.astype(prop.kind) for prop, column in columns}, end


def _byte_polygons(body: bytes, at: int, element: Element) -> tuple[Polygons, Scalars, int]:
    corner_list = _corner_list(element)
    if uniform := _uniform_polygons(body, at, element, corner_list):
        return uniform
    sizes, corners = np.empty(element.rows, np.int64), bytearray()
    # Rows of different lengths: each begins where the one before ends, so they are visited one by one.
    for row in range(element.rows):
        for i, prop in enumerate(element.properties):
            start, size, at = _span(body, at, prop, row)
            if i == corner_list:
                sizes[row] = size
                corners += body[start:at]
    return Polygons(np.frombuffer(corners, element.properties[corner_list].kind), sizes), {}, at


def _span(body: bytes, at: int, prop: Property, row: int) -> tuple[int, int, int]:
    """Where a face's numbers of a property begin, how many they are, and where they end."""
    start, size = at, 1
    if prop.length:
        start += prop.length.itemsize
        order: Literal["big", "little"] = "big" if prop.length.byteorder == ">" else "little"
        size = int.from_bytes(body[at:start], order, signed=prop.length.kind == "i")
    end = start + size * prop.kind.itemsize
    if size < 0 or end > len(body):
        raise Refusal(f"is cut short in face {row}")
    return start, size, end


def _uniform_polygons(body: bytes, at: int, element: Element, corner_list: int) -> tuple[Polygons, Scalars, int] | None:
    """The faces, if all have list lengths like the first; otherwise None."""
    fields, end = list[tuple[str, np.dtype[np.generic], tuple[int, ...]]](), at
    for i, prop in enumerate(element.properties):
        _, size, end = _span(body, end, prop, 0)
        if prop.length:
            fields.append((f"length {i}", prop.length, ()))
        fields.append((f"{i}", prop.kind, (size,) if prop.length else ()))
    row = np.dtype(fields)
    end = at + element.rows * row.itemsize
    if end > len(body):
        return None
    table = np.frombuffer(body, row, element.rows, at)
    lengths = [table[name] for name, _, _ in fields if name.startswith("length")]
    if any((length != length[0]).any() for length in lengths):
        return None
    corners = table[f"{corner_list}"]
    columns = {prop.name: table[f"{i}"] for i, prop in enumerate(element.properties) if not prop.length}
    return Polygons(corners.reshape(-1), np.full(element.rows, corners.shape[1])), columns, end
