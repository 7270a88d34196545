"""The buffers of a glTF, which are opened in its own folder or below it."""

import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import Refusal
from .scan import quoted

MOST_BYTES = 1 << 32  # of all buffers of a file
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")  # a drive's letter too


class FilesBeside:
    """The files of a folder and those below it."""

    def __init__(self, path: Path):
        self.path = path
        self.read: dict[Path, bytes] = {}

    @property
    def size(self) -> int:
        """How many bytes were read so far."""
        return sum(map(len, self.read.values()))

    def bytes_of(self, uri: str, size: object) -> memoryview:
        """The first `size` bytes of the file that a relative URI names.

        Raises:
            Refusal: it names none, or one elsewhere, or one that holds fewer.
        """
        path = self._path(uri)
        there = path.stat().st_size
        if type(size) is not int or not 0 <= size <= there:
            raise Refusal(f"its buffer {quoted(uri)} holds {there} bytes, not the {quoted(str(size))} that it declares")
        if path not in self.read:
            if self.size + there > MOST_BYTES:
                raise Refusal(f"its buffers hold more than {MOST_BYTES} bytes")
            self.read[path] = path.read_bytes()
        return memoryview(self.read[path])[:size]

    def _path(self, uri: str) -> Path:
        """The file that a URI names, with no link left in its path."""
        name = unquote(uri)
        parts = re.split(r"[/\\]", name)
        is_within = parts[0] and ".." not in parts and "\0" not in name and not SCHEME.match(name)
        path = (self.path / name).resolve() if is_within else None
        if path is None or not path.is_relative_to(self.path.resolve()):
            raise Refusal(f"keeps its bytes outside its folder, where no file is opened: {quoted(uri)}")
        if not path.is_file():
            raise Refusal(f"needs the file {quoted(uri)} beside it, which is not there")
        return path
