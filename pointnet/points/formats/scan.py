"""Numbers in text, parsed in large blocks instead of line by line."""

import codecs
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import Refusal
from .contents import Array

BLOCK = 1 << 18
LONGEST_LINE = 1_000_000
MARK = b"\xef\xbb\xbf"  # some editors begin a UTF-8 file with it
# How Windows writes numbers that are not finite, and spreadsheets those that are missing or wrong.
NOT_FINITE = re.compile(
    rb"[-+]?\d[.,]#(?:IND|QNAN|SNAN|INF|IO|QO|SO|J|R)\d*\b|[-+]?nan\(\w*\)"
    rb"|#(?:N/?A\b|DIV/0!|VALUE!|NUM!|REF!|NULL!|NAME\?)",
    re.IGNORECASE,
)

FORTRAN = re.compile(rb"(\d\.?)[dD]([-+]\d{1,3})\b")  # how it writes an exponent of a number of double precision


def numbers(text: bytes, dtype: type[np.generic] = np.float64) -> Array:
    """All numbers of a text, separated by white space: -> (n,).

    Raises:
        Refusal: it holds something else.
    """
    if not text or text.isspace():  # numpy returns -1 for it
        return np.empty(0, dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy before 2.3 warns where it stopped midway
            return np.fromstring(text, dtype=dtype, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        if (mended := FORTRAN.sub(rb"\1e\2", NOT_FINITE.sub(b"nan", text))) != text:
            return numbers(mended, dtype)
        raise Refusal(f"holds something that is not a number{_first_wrong(text, dtype)}") from error


def _first_wrong(text: bytes, dtype: type[np.generic]) -> str:
    """The first word that is not a number, for the message of `numbers`."""
    for word in text[:100_000].split():
        try:
            (int if issubclass(dtype, np.integer) else float)(word)
        except ValueError:
            return f": {quoted(word)}"
    return ""


def quoted(text: bytes | str) -> str:
    """A piece of a file for a message: short, printable, on one line."""
    text = decoded(text) if isinstance(text, bytes) else text
    short = text if len(text) <= 40 else text[:37] + "..."
    return repr(short) if short.isprintable() else ascii(short)


def decoded(text: bytes) -> str:
    """A piece of a file as UTF-8, of which the last letter may be cut, or else as Latin-1."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return text.decode("latin-1")


def numbers_of_lines(text: bytes, start: int, count: int) -> tuple[Array, int]:
    """The numbers on the next `count` lines that are not blank, (n,), and where the last of these lines ends.

    Raises:
        Refusal: they hold something else, or one is longer than a megabyte.
    """
    rows, _, end = columns_of_lines(text, start, count, 1, [0])
    return rows.reshape(-1), end


def columns_of_lines(text: bytes, start: int, count: int, width: int, kept: Sequence[int]) -> tuple[Array, int, int]:
    """The columns `kept` of rows of `width` numbers, on the next `count` lines that are not blank.

    Returns:
        (rows, kept); how many numbers the lines hold, since rows are not matched with lines; where the last line ends.

    Raises:
        Refusal: as `numbers_of_lines`.
    """
    end, begun, total = end_of_lines(text, start, count), np.empty(0), 0
    found = bytearray()  # grows in place
    for block in blocks_of_lines(text, start, end):
        values = numbers(block)
        total += len(values)
        values = np.append(begun, values)
        whole = len(values) - len(values) % width
        found += values[:whole].reshape(-1, width)[:, kept].tobytes()
        begun = values[whole:]
    return np.frombuffer(found).reshape(-1, len(kept)) if found else np.empty((0, len(kept))), total, end


def end_of_lines(text: bytes, start: int, count: int) -> int:
    """Where the last of the next `count` lines that are not blank ends."""
    if not count:
        return start
    for block in blocks_of_lines(text, start):
        lines = _starts_of_lines(block)
        filled = np.flatnonzero(np.maximum.reduceat(np.frombuffer(block, np.uint8), lines) > ord(" "))
        if count <= len(filled):
            return start + int(np.append(lines, len(block))[filled[count - 1] + 1])
        start, count = start + len(block), count - len(filled)
    return start


def blocks_of_lines(text: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The text from start to end in blocks of whole lines, about 256 KB each, so that temporary arrays stay small.

    Raises:
        Refusal: a line longer than a megabyte.
    """
    end = len(text) if end is None else end
    while start < end:
        stop = text.find(b"\n", start + BLOCK, end) + 1 or end
        if stop - start > BLOCK + LONGEST_LINE:
            raise Refusal(f"has a line of more than {LONGEST_LINE} bytes")
        yield text[start:stop]
        start = stop


def unix_lines(text: bytes) -> bytes:
    """The text with `\\n` at the end of every line; unchanged unless it has the lone `\\r` of old Macs."""
    return re.sub(rb"\r\n?", b"\n", text) if re.search(rb"\r(?!\n)", text) else text


def words_per_line(text: bytes) -> Array:
    """How many words each line has: (L,)."""
    letters = np.frombuffer(text, np.uint8) > ord(" ")
    begins = letters.copy()
    begins[1:] &= ~letters[:-1]
    lines = _starts_of_lines(text)
    return np.add.reduceat(begins, lines, dtype=np.int64) if len(lines) else np.empty(0, int)


def cells_per_line(text: bytes, separator: str | None) -> Array:
    """How many cells each line has, (L,): its words, or one more than its separators."""
    if separator is None:
        return words_per_line(text)
    marks = np.frombuffer(text, np.uint8) == ord(separator)
    return np.add.reduceat(marks, _starts_of_lines(text), dtype=np.int64) + 1


def _starts_of_lines(text: bytes) -> Array:
    """Where each line begins: (L,)."""
    starts = np.append(0, np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1)
    return starts[starts < len(text)]
