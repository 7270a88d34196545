"""Numbers in text, found at once and not line by line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import numpy as np

from .contents import Array, Refusal

BLOCK = 1 << 18
LONGEST_LINE = 1_000_000


def numbers(text: bytes, dtype: type[np.generic] = np.float64) -> Array:
    """All numbers of a text, separated by white space: -> (n,).

    Raises:
        Refusal: it holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how numpy before 2.3 says that it stopped midway
            return np.fromstring(text, dtype=dtype, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        raise Refusal(f"holds something that is not a number{_first_wrong(text, dtype)}") from error


def _first_wrong(text: bytes, dtype: type[np.generic]) -> str:
    """The first word that stopped `numbers`, for its message."""
    for word in text[:100_000].split():
        try:
            (int if issubclass(dtype, np.integer) else float)(word)
        except ValueError:
            return f": {quoted(word)}"
    return ""


def quoted(text: bytes | str) -> str:
    """A piece of a file for a message: short, printable, on one line."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def end_of_lines(text: bytes, count: int) -> int:
    """Where the first `count` lines end: what follows them begins there."""
    breaks = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    if count == 0:
        return 0
    return int(breaks[count - 1]) + 1 if len(breaks) >= count else len(text)


def blocks_of_lines(text: bytes) -> Iterator[bytes]:
    """The text in pieces of about 256 KB, whole lines each, so that what is held of it beside stays small.

    Raises:
        Refusal: a line of more than a megabyte.
    """
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + BLOCK) + 1 or len(text)
        if end - start > BLOCK + LONGEST_LINE:
            raise Refusal(f"has a line of more than {LONGEST_LINE} bytes")
        yield text[start:end]
        start = end


def unix_lines(text: bytes) -> bytes:
    """The text with `\\n` for whatever ends its lines."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def without_blank_lines(text: bytes) -> bytes:
    """The text without lines of white space, and without white space before the others."""
    return re.sub(rb"\n\s+", b"\n", text.lstrip())


def words_per_line(text: bytes) -> Array:
    """How many words each line has: (L,); the last line must end."""
    letters = np.frombuffer(text, np.uint8) > ord(" ")
    begins = letters.copy()
    begins[1:] &= ~letters[:-1]
    breaks = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    return np.add.reduceat(begins, np.append(0, breaks[:-1] + 1), dtype=np.int64) if len(breaks) else np.empty(0, int)
