"""What the header of a PLY says in comments that this library writes: which axis is up, and what its labels mean."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pointnet.names import printable

LONGEST_HEADER = 1 << 16
UP = re.compile(rb"comment up (-?[xyz])")
LABEL = re.compile(rb"comment label (\d{1,9}) is (\S.*)")
ESCAPED = re.compile(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")


def of_labels(numbers: Iterable[int], names: Iterable[str]) -> list[str]:
    """The lines that name labels, in ASCII."""
    plain = (printable(name).encode("ascii", "backslashreplace").decode() for name in names)
    return [f"comment label {number} is {name}" for number, name in zip(numbers, plain, strict=True)]


def of_up(up: str) -> list[str]:
    """The line that says which axis is up; none where that is z."""
    return [] if up == "z" else [f"comment up {up}"]


def up_in_header(path: Path) -> str | None:
    """The up axis that the header of a PLY gives; None of another file."""
    found = (UP.fullmatch(line.rstrip()) for line in _header(path))
    return next((match[1].decode() for match in found if match), None)


def names_of_labels(path: Path) -> dict[int, str]:
    """The names by number that the header of a PLY gives labels; none of another file."""
    found = (LABEL.fullmatch(line.rstrip()) for line in _header(path))
    return {int(match[1]): _unescaped(match[2].decode("utf-8", "replace")) for match in found if match}


def _unescaped(name: str) -> str:
    return ESCAPED.sub(lambda match: match[0].encode().decode("unicode_escape"), name)


def _header(path: Path) -> list[bytes]:
    if path.suffix.lower() != ".ply" or not os.path.isfile(path):
        return []
    with suppress(OSError), path.open("rb") as file:
        lines = file.read(LONGEST_HEADER).partition(b"end_header")[0].splitlines()
        return lines if lines[:1] == [b"ply"] else []
    return []
