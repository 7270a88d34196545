"""Names of columns that are given by hand: for which files they count."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import PointCloudFileError, check_file, file_errors
from . import arrays, text

TEXTS = (".xyz", ".txt", ".csv", ".pts", ".asc")
ARRAYS = (".npy", ".npz")
# The formats of tables, whose columns may be named by hand: these parsers take the names as a third argument.
TABLES = (*TEXTS, ".xyzrgb", ".xyzn", *ARRAYS)


def columns_of_table(path: Path, columns: Sequence[str], asked: Sequence[str] = ARRAYS) -> Sequence[str]:
    """The names by hand for the columns of a file; none where it is no table, or one of the formats `asked` that names
    its columns itself. Names that a network was taught are for tables without names: there all formats are asked."""
    suffix = path.suffix.lower()
    is_named = columns and suffix in asked and _names_columns(path, len(columns))
    return () if suffix not in TABLES or is_named else columns


def own_columns(path: Path) -> tuple[list[str], int]:
    """The names that a table gives its columns, if x, y and z are among them, and how many columns it has; none of what
    is no table or cannot be read, as whoever reads it will say."""
    if path.suffix.lower() not in TABLES:
        return [], 0
    try:
        with file_errors(path):
            check_file(path)
            return (arrays if path.suffix.lower() in ARRAYS else text).own_columns(path)
    except PointCloudFileError:
        return [], 0


def _names_columns(path: Path, count: int) -> bool:
    """Whether a table names its columns itself, where so many are named by hand; not if it cannot be read."""
    if path.suffix.lower() not in ARRAYS:
        return bool(own_columns(path)[0])
    try:
        with file_errors(path):
            check_file(path)
            return arrays.names_columns(path, count)
    except PointCloudFileError:
        return False
