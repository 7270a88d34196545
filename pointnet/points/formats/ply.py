"""PLY: ascii, and binary of either byte order; meshes with polygons of any size, and clouds.

Source: Greg Turk's "The PLY Polygon File Format", 1994.
"""

import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

import numpy as np

from ..colours import are_of_labels
from ..errors import Refusal
from .behind import bytes_behind, check_behind, lines_behind, rows_behind
from .columns import from_named
from .contents import EXTRAS, Array, Budget, Contents, Extras, blocks_of_rows, wants_all
from .ears import runs
from .names import extra_places, first_of_each, known_columns, left_out
from .polygons import ROW, Polygons, polygons_of_text, whole_corners, with_faces
from .scan import blocks_of_lines, columns_of_lines, decoded, end_of_lines, numbers, quoted, unix_lines, words_per_line

LONGEST_HEADER = 1 << 20
MOST_PROPERTIES = 1000
BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
TYPES |= {"float": "f4", "double": "f8"}
TYPES |= {np.dtype(kind).name: kind for kind in (*TYPES.values(), "i8", "u8")}  # "int8", "float32"
COMMENT = re.compile(  # on what the numbers mean
    r"comment\s+(unit|scale|offset|shift|translation|origin|crs|epsg|srs|texturefile)s?\b", re.IGNORECASE
)
END = re.compile(rb"[\r\n][ \t]*end_header[ \t]*(\r\n|\n|\r)")
CORNERS = ("vertex_indices", "vertex_index", "vertex_indexes")


class Property(NamedTuple):
    name: str
    kind: np.dtype[np.generic]
    length: np.dtype[np.generic] | None  # of a list: how its length is written


class Element(NamedTuple):
    name: str
    rows: int
    properties: list[Property]


# Properties that are not lists, by name: (rows,) each.
Scalars = dict[str, Array]


class Table(NamedTuple):
    columns: Scalars
    polygons: Polygons | None = None


def parse_ply(data: bytes, extras: Extras = EXTRAS) -> Contents:
    """A PLY file's vertices and triangles; lists other than the faces' corners are skipped."""
    order, elements, at = _header(data)
    if order == "=":
        data = unix_lines(data)
        order, elements, at = _header(data)
    _check_size(elements, len(data) - at, order == "=")
    needed = [i for i, element in enumerate(elements) if element.name in ("vertex", "face") and element.rows]
    contents, faces, of_faces, budget = None, Table({}), list[str](), Budget(len(data))
    for element in elements[: max(needed, default=-1) + 1]:
        names = [prop.name for prop in element.properties] if element.name == "vertex" else []
        if any(prop.length for prop in element.properties):
            budget.charge(f"element {quoted(element.name)}", ROW * element.rows)
        table, at = _rows(data, at, element, order, known_columns(names, extras) or names)
        if element.name == "vertex":
            contents = _measured(from_named(table.columns, extras, names), names)
        elif element.name == "face" and element.rows:
            faces, of_faces = table, [prop.name for prop in element.properties]
    if contents is None or not len(contents.vertices):
        raise Refusal("holds no vertices")
    others = [element.name for element in elements if element.rows and element.name not in ("vertex", "face")]
    header = decoded(data[: END.search(data).start()])  # type: ignore[union-attr]  # it ends, as it was read
    comments = [line.strip() for line in header.splitlines() if COMMENT.match(line)]
    contents = contents.noted(*left_out([*(f"element {name}" for name in others), *comments]))
    contents = contents.noted(*_behind(data, at, elements, max(needed) + 1, order, contents.vertices))
    if faces.polygons is None:
        return contents
    colors, labels, notes = _of_faces(of_faces, faces.columns, extras)
    return with_faces(contents.noted(*notes), faces.polygons, extras, budget, colors, labels)


def _measured(contents: Contents, names: list[str]) -> Contents:
    """Without colours that `LabelledCloud.write_ply` gave to labels, perhaps saved by another program since then."""
    if contents.colors is None or not any("probability" in name.lower() for name in names):
        return contents
    if not all(are_of_labels(block) for block in blocks_of_rows(contents.colors)):
        return contents
    return contents._replace(colors=None).noted("colours left out: they are those that predict gave to labels")


def _behind(body: bytes, at: int, elements: list[Element], read: int, order: str, vertices: Array) -> tuple[str, ...]:
    """A note of what lies behind the last element, of which those from `read` on are passed over from `at` on.

    Raises:
        Refusal: it is more of the vertices, or more lines of faces.
    """
    for element in elements[read:]:
        if order == "=":
            at = end_of_lines(body, at, element.rows)
        elif any(prop.length for prop in element.properties):
            return ()  # where it ends is not known without reading it
        else:
            at += element.rows * sum(prop.kind.itemsize for prop in element.properties)
    last = next(element for element in reversed(elements) if element.rows)
    rest, what = body[at:], f"of element {quoted(last.name)}"
    is_list = any(prop.length for prop in last.properties)
    if order == "=" and last.name in ("vertex", "face"):
        return lines_behind(rest, what, last.rows, len(last.properties), not is_list)
    if order != "=" and last.name == "vertex" and not is_list:
        kinds = [(f"{i}", prop.kind) for i, prop in enumerate(last.properties)]
        more = rows_behind(rest, row := np.dtype(kinds))
        check_behind(from_named(_columns(last, more), ()).vertices, vertices, what, len(rest) // row.itemsize)
    return bytes_behind(rest, quoted(last.name)[1:-1])


def _of_faces(names: list[str], columns: Scalars, extras: Extras) -> tuple[Array | None, Array | None, tuple[str, ...]]:
    """Colours (P, 3) and labels (P,) of faces, named as those of vertices may be, and a note of what is left out."""
    values, used = dict[str, Array](), [i for i, name in enumerate(names) if name in CORNERS]
    for what, group in extra_places(names, ("colors", "labels")).items():
        group = group[: 1 if what == "labels" else 3]
        if columns.keys() >= {names[i] for i in group}:
            values[what] = np.stack([columns[names[i]] for i in group], axis=1)
            used += group
    notes = left_out(names, used) if wants_all(extras) else ()
    colors = values["colors"] if "colors" in values and "colors" in extras else None
    labels = values["labels"][:, 0] if "labels" in values and "labels" in extras else None
    return colors, labels, tuple(f"{note} of faces" for note in notes)


def _header(data: bytes) -> tuple[str, list[Element], int]:
    """The byte order ("=" for text), the elements, and where the body begins."""
    end = END.search(data, 0, LONGEST_HEADER)
    if not re.match(rb"ply[ \t]*[\r\n]", data):
        raise Refusal(f"does not begin with ply, but with {quoted(data[:20])}")
    if not end:
        raise Refusal("has no end_header")
    order, elements = "", list[Element]()
    for line in decoded(data[: end.start()]).splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in BYTE_ORDERS:
            order = BYTE_ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and re.fullmatch(r"\d{1,18}", words[2], re.ASCII):
            if words[1] in ("vertex", "face") and any(element.name == words[1] for element in elements):
                raise Refusal(f"has the element {words[1]} twice")
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


def _rows(body: bytes, at: int, element: Element, order: str, known: Collection[str]) -> tuple[Table, int]:
    """The columns of an element, of a text only those with `known` names, a face's corners, and where it ends."""
    if not element.rows:
        return Table({}), at
    kept = _corner_list(element) if element.name == "face" else None
    if order != "=":
        return _uniform_bytes(body, at, element, kept) or _bytes(body, at, element, kept)
    if any(prop.length for prop in element.properties):
        return _text_lists(body, at, element, kept)
    width = len(element.properties)
    places = [i for i, prop in enumerate(element.properties) if prop.name in known]
    values, total, end = columns_of_lines(body, at, element.rows, width, places)
    if total != element.rows * width:
        wanted = f"{element.rows} of element {quoted(element.name)} with {width} numbers, a line each"
        raise Refusal(f"declares {wanted}; those lines hold {total} numbers")
    return Table(_typed((element.properties[i] for i in places), values.T)), end


def _columns(element: Element, table: Array) -> Scalars:
    """The properties that are no lists, by name, of a table whose fields are their numbers."""
    return first_of_each((prop.name, table[f"{i}"]) for i, prop in enumerate(element.properties) if not prop.length)


def _typed(properties: Iterable[Property], columns: Iterable[Array]) -> Scalars:
    """Columns of a text in the types of their properties, by name; decimals stay float64."""
    pairs = zip(properties, columns, strict=True)
    return first_of_each((p.name, c if p.kind.kind == "f" else c.astype(np.int64).astype(p.kind)) for p, c in pairs)


def _corner_list(element: Element) -> int:
    """The index of the property that holds the corners."""
    named = [i for i, prop in enumerate(element.properties) if prop.name in CORNERS and prop.length]
    if not named or element.properties[named[0]].kind.kind not in "iu":
        raise Refusal("has faces without a list vertex_indices of integers")
    return named[0]


def _text_lists(body: bytes, at: int, element: Element, kept: int | None) -> tuple[Table, int]:
    """The rows of an element with lists, a line each; of the lists only the one at `kept` is read."""
    end, scalars = end_of_lines(body, at, element.rows), [prop for prop in element.properties if not prop.length]
    if kept == 0 and len(scalars) == len(element.properties) - 1:
        polygons = polygons_of_text(body[at:end], element.rows)
        others = polygons.others if polygons.others is not None else np.empty((0, 0))
        return Table(_typed(scalars, others.T) if len(others.T) == len(scalars) else {}, polygons), end
    blocks = [_text_block(block, element, kept) for block in blocks_of_lines(body, at, end)]
    columns, sizes, corners = (np.concatenate(parts, axis=-1) for parts in zip(*blocks, strict=True))
    if columns.shape[1] != element.rows:
        raise Refusal(
            f"declares {element.rows} of element {quoted(element.name)}, holds {columns.shape[1]} lines of them"
        )
    return Table(_typed(scalars, columns), None if kept is None else Polygons(corners, sizes)), end


def _text_block(text: bytes, element: Element, kept: int | None) -> tuple[Array, Array, Array]:
    """The scalars of some lines (K, n), and of the list at `kept` its lengths (n,) and its numbers."""
    values, words = numbers(text), words_per_line(text)
    words = words[words > 0]
    end = np.cumsum(words)
    at, columns = end - words, list[Array]()
    sizes, corners = np.empty(0, np.int64), np.empty(0, np.int64)
    for i, prop in enumerate(element.properties):
        if (at >= end).any():
            raise Refusal(f"has a line of element {quoted(element.name)} that ends before its {quoted(prop.name)}")
        if not prop.length:
            columns.append(values[at])
            at = at + 1
            continue
        length, left = values[at], end - at - 1
        fits = (length >= 0) & (length <= left) & (length == np.rint(length))
        if not fits.all():
            wrong = int(np.argmin(fits))
            raise Refusal(f"a list declares {length[wrong]:g} numbers, and {left[wrong]} follow on its line")
        length = length.astype(np.int64)
        if i == kept:
            sizes, corners = length, whole_corners(values[runs(at + 1, length)])
        at = at + 1 + length
    return np.array(columns).reshape(len(columns), len(words)), sizes, corners


def _bytes(body: bytes, at: int, element: Element, kept: int | None) -> tuple[Table, int]:
    """The rows of an element; of its lists only the one at `kept` is read.

    Each row begins where the one before ends, so they are visited one by one.
    """
    sizes, corners, scalars = np.empty(element.rows, np.int64), bytearray(), bytearray()
    for row in range(element.rows):
        for i, prop in enumerate(element.properties):
            start, size, at = _span(body, at, prop, row, element.name)
            if i == kept:
                sizes[row] = size
                corners += body[start:at]
            elif not prop.length:
                scalars += body[start:at]
    fields = [(f"{i}", prop.kind) for i, prop in enumerate(element.properties) if not prop.length]
    columns = _columns(element, np.frombuffer(scalars, fields)) if fields else {}
    polygons = Polygons(np.frombuffer(corners, element.properties[kept].kind), sizes) if kept is not None else None
    return Table(columns, polygons), at


def _span(body: bytes, at: int, prop: Property, row: int, element: str) -> tuple[int, int, int]:
    """Where a row's numbers of a property begin, how many they are, and where they end."""
    start, size = at, 1
    if prop.length:
        start += prop.length.itemsize
        order: Literal["big", "little"] = "big" if prop.length.byteorder == ">" else "little"
        size = int.from_bytes(body[at:start], order, signed=prop.length.kind == "i")
    end = start + size * prop.kind.itemsize
    if size < 0 or end > len(body):
        raise Refusal(f"is cut short in {quoted(element)[1:-1]} {row}")
    return start, size, end


def _uniform_bytes(body: bytes, at: int, element: Element, kept: int | None) -> tuple[Table, int] | None:
    """The rows, if all have lists as long as those of the first, or none; otherwise None."""
    fields, end = list[tuple[str, np.dtype[np.generic], tuple[int, ...]]](), at
    for i, prop in enumerate(element.properties):
        _, size, end = _span(body, end, prop, 0, element.name)
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
    corners = table[f"{kept}"] if kept is not None else None
    polygons = None if corners is None else Polygons(corners.reshape(-1), np.full(element.rows, corners.shape[1]))
    return Table(_columns(element, table), polygons), end
