"""What the JSON of a glTF refers to: its items by their number, and the rows of its accessors."""

import base64
import json
from typing import Any

import numpy as np

from ..errors import Refusal
from .beside import FilesBeside
from .contents import Array
from .scan import MARK, quoted

# JSON takes far more memory than its text, so its values are counted before they are made.
MOST_VALUES = 500_000
TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def tree_of(text: bytes) -> dict[str, Any]:
    """What the JSON of a glTF says."""
    if sum(text.count(mark) for mark in b"{[,") > MOST_VALUES:
        raise Refusal(f"describes more than {MOST_VALUES} things in its JSON")
    tree = json.loads(text.removeprefix(MARK).decode("utf-8"))
    if not isinstance(tree, dict):
        raise Refusal("is not glTF 2")
    return tree


class Accessors:
    """The rows of a glTF's accessors, from its own bytes and from buffers in its folder."""

    def __init__(self, tree: dict[str, Any], binary: memoryview | None, folder: FilesBeside):
        self.tree, self.binary, self.folder = tree, binary, folder
        self.buffers: dict[int, bytes] = {}

    def item(self, name: str, index: object) -> dict[str, Any]:
        values = self.tree.get(name, [])
        if not isinstance(index, int) or not 0 <= index < len(values):
            raise Refusal(f"refers to {name} {quoted(str(index))}, but has {len(values)}")
        return values[index]

    def count(self, index: object) -> int:
        """An accessor's rows, as it declares them."""
        count = self.item("accessors", index)["count"]
        if type(count) is not int or count < 0:
            raise Refusal(f"accessor {index} declares {quoted(str(count))} rows")
        return count

    def rows(self, index: object, *widths: int) -> Array:
        """An accessor's rows (n, K), K one of `widths`; normalised integers as the fractions they mean."""
        accessor = self.item("accessors", index)
        count, width, kind = self.count(index), WIDTHS[accessor["type"]], np.dtype(TYPES[accessor["componentType"]])
        if width not in widths:
            raise Refusal(f"accessor {index} must be of {widths[0]} numbers a row, got {accessor['type']}")
        view, data = self.view(index)
        row = width * kind.itemsize
        stride = view.get("byteStride", row)
        offset, inner = view.get("byteOffset", 0), accessor.get("byteOffset", 0)
        used = inner + (stride * (count - 1) + row if count else 0)
        if min(offset, inner) < 0 or stride < row or used > view["byteLength"] or offset + used > len(data):
            raise Refusal(f"accessor {index} declares {count} rows, more than its buffer holds")
        rows = np.ndarray((count, width), kind, data, offset + inner, (stride, kind.itemsize))
        if not accessor.get("normalized") or kind.kind == "f":
            return rows
        return np.maximum(rows.astype(np.float32) / np.iinfo(kind).max, -1)

    def view(self, index: object) -> tuple[dict[str, Any], bytes | memoryview]:
        """Where an accessor's rows are: the view, and its buffer's bytes."""
        accessor = self.item("accessors", index)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise Refusal(f"accessor {index} is sparse or without data, which is not read")
        view = self.item("bufferViews", accessor["bufferView"])
        return view, self._buffer(view["buffer"])

    def _buffer(self, index: int) -> bytes | memoryview:
        if index in self.buffers:
            return self.buffers[index]
        buffer = self.item("buffers", index)
        uri = buffer.get("uri")
        if uri is None and index == 0 and self.binary is not None:
            return self.binary
        if uri is None:
            raise Refusal(f"buffer {index} has no bytes")
        kind, _, packed = str(uri).partition(",")
        if not kind.startswith("data:"):
            return self.folder.bytes_of(str(uri), buffer.get("byteLength"))
        if not kind.endswith(";base64"):
            raise Refusal(f"has a buffer that is not base64, but {quoted(kind)}")
        self.buffers[index] = base64.b64decode(packed)
        return self.buffers[index]
