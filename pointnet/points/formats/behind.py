"""Bytes behind the end that a file declares: padding is skipped, more points are refused, other bytes get a note.

Zero bytes and white space are padding, in every format.
"""

import numpy as np

from ..errors import Refusal
from .contents import BLOCK, Array
from .scan import blocks_of_lines, words_per_line

PADDING = b"\0 \t\r\n\x1a"
# Columns that are like those of the points; how far from these, and how much spread, in extents of theirs.
FEWEST, FARTHEST, LEAST = 3, 10, 1e-4


def bytes_behind(rest: bytes, what: str, size: int | None = None) -> tuple[str, ...]:
    """A note of the `size` bytes behind the last `what`, which begin so; none where they are padding."""
    size = len(rest) if size is None else size
    return (f"{size:,} byte{'s' * (size > 1)} after the last {what} left out",) if rest.strip(PADDING) else ()


def lines_behind(rest: bytes, what: str, count: int, width: int, same_width: bool = True) -> tuple[str, ...]:
    """`bytes_behind` of a text whose `count` lines of at least `width` numbers have been read, or of just so many.

    Raises:
        Refusal: the next line is of the same kind.
    """
    lines = rest.strip(PADDING)
    first = lines.partition(b"\n")[0].split()
    if _are_numbers(first) and (len(first) == width or (len(first) > width and not same_width)):
        words = np.concatenate([words_per_line(block) for block in blocks_of_lines(lines)])
        more = int(((words == width) if same_width else (words >= width)).sum())
        raise Refusal(f"declares {count} {what}, holds {count + more}")
    return bytes_behind(rest, "declared line")


def rows_behind(rest: bytes, kind: np.dtype[np.generic]) -> Array:
    """The rows of a type that these bytes are, at most `BLOCK` of them; none where they are none and padding."""
    whole = len(rest) // kind.itemsize
    is_whole = not rest[whole * kind.itemsize :].strip(PADDING)
    return np.frombuffer(rest, kind, min(whole, BLOCK) if is_whole and rest.strip(PADDING) else 0)


def check_behind(more: Array, rows: Array, what: str, behind: int) -> None:
    """Raises Refusal if the `behind` rows after the end are points like `rows` (N, K); `more` (n, K) are some of them.

    They are if three columns, as x y z, vary, and no number is far from those of the rows: read as numbers, bytes of
    another kind are of any size, or next to nothing.
    """
    if not len(more):
        return
    extent, middle = _extent(rows)
    own, _ = _extent(more)
    with np.errstate(invalid="ignore"):
        is_far = (np.abs(more - middle) > FARTHEST * extent).any(0)
    if (~is_far & (own > LEAST * extent) & (extent > 0)).sum() >= FEWEST:
        raise Refusal(f"declares {len(rows)} {what}, holds {len(rows) + behind}")


def _extent(rows: Array) -> tuple[Array, Array]:
    """From the least to the largest finite number of each column, and the middle of these, by some of the rows."""
    some = np.asarray(rows[:: len(rows) // BLOCK + 1], np.float64)
    low = np.min(some, axis=0, where=np.isfinite(some), initial=np.inf)
    high = np.max(some, axis=0, where=np.isfinite(some), initial=-np.inf)
    return high - low, (high + low) / 2


def _are_numbers(words: list[bytes]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False
