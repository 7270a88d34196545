"""Names of columns that are given by hand: for which files they count."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import PointCloudFileError, check_file, file_errors
from . import arrays, text

TEXTS = (".xyz", ".txt", ".csv", ".pts", ".asc")
ARRAYS = (".npy", ".npz")
# The formats of tables, whose columns may be named by hand: these parsers take the names as a third argument.
TABLES = (*TEXTS, ".xyzrgb", ".xyzn", *ARRAYS)


def columns_of_table(path: Path, columns: Sequence[str]) -> Sequence[str]:
    """The names for the columns of a set, where a file is a table; others, and arrays with names, have their own."""
    suffix = path.suffix.lower()
    return () if suffix not in TABLES or (columns and suffix in ARRAYS and _names_columns(path)) else columns


def columns_as_taught(path: Path, columns: Sequence[str]) -> Sequence[str]:
    """The names that a network's training set was given, where a file is a table without names of its own."""
    return () if path.suffix.lower() not in TABLES or (columns and _names_columns(path)) else columns


def _names_columns(path: Path) -> bool:
    """Whether a table names its columns; not if it cannot be read, as whoever reads it will say."""
    kind = arrays if path.suffix.lower() in ARRAYS else text
    try:
        with file_errors(path):
            check_file(path)
            return kind.names_columns(path)
    except PointCloudFileError:
        return False
