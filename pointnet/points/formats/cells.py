"""The cells of a text's lines: what separates them, numbers as Python writes them, and what commas in them mean."""

import re
from collections.abc import Sequence

import numpy as np

from .scan import FORTRAN, NOT_FINITE

# A line that begins so is no row; behind a semicolon there is no other, which would separate cells.
COMMENT = re.compile(rb'^[ \t]*(?:#|//|%|!|"?sep=|;(?=[^;\n]*$))', re.IGNORECASE | re.MULTILINE)
IN_QUOTES = re.compile(rb'"([^"\n]*)"')
WORDS = {
    **dict.fromkeys((b"", b"-", b"--", b"?", b".", b"na", b"n/a", b"<na>", b"null", b"none"), np.nan),
    b"true": 1.0,
    b"false": 0.0,
}
# Numbers with commas, which are decimal points, or stand between thousands, or may be either.
DECIMAL = rb"[-+]?(?:(?:\d{4,}|0\d*),\d+|\d+,(?:\d{1,2}|\d{4,}))(?:[eEdD][-+]?\d+)?"
POINTED = rb"[-+]?[1-9]\d{0,2}(?:\.\d{3})+,\d+"  # decimal, with points between thousands
THOUSANDS = rb"[-+]?\d{1,3}(?:(?:,\d{3})+\.\d*|(?:,\d{3}){2,})"
WITH_COMMA = re.compile(rb"%b|%b|%b|[-+]?\d{1,3},\d{3}(?:[eEdD][-+]?\d+)?" % (DECIMAL, POINTED, THOUSANDS))
GROUPED = re.compile(rb"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.eEdD])")  # a number to its decimal comma, if any


def what_commas_mean(cells: Sequence[bytes], else_comma: bytes) -> tuple[bytes, bool, bool]:
    """What stands for a comma in numbers `WITH_COMMA`; whether points stand between thousands; whether this is sure."""
    for kind, comma in ((POINTED, b"."), (DECIMAL, b"."), (THOUSANDS, b"")):
        if any(re.fullmatch(kind, cell) for cell in cells):
            return comma, kind == POINTED, True
    return else_comma, False, False


def is_number(cell: bytes) -> bool:
    """Whether a cell is a number or says that there is none; points may stand for commas between thousands."""
    return number_of(cell.replace(b".", b"", cell.count(b".") - 1)) is not None


def number_of(cell: bytes) -> float | None:
    """A cell's number, NaN for one that is missing, or None for a word."""
    try:
        return None if b"_" in cell else float(cell)
    except ValueError:
        return WORDS.get(cell.lower())


def hint_on(line: bytes) -> str:
    """What to do about a line of numbers in brackets, as Python prints a list; "" for all else."""
    bare = line.translate(None, b"[](){}")
    are_numbers = len(bare) < len(line) and all(map(is_number, re.split(rb"[\s,;|]+", bare)))
    return "; write the numbers of one point on each line, without brackets" if are_numbers else ""


def plain(lines: bytes, separator: str | None, comma: bytes, grouped: bool = False) -> bytes:
    """The lines with numbers as Python writes them, and words without quotes and separators."""
    if grouped:
        lines = GROUPED.sub(lambda number: number[0].replace(b".", b""), lines)
    if b"#" in lines or b"(" in lines:
        lines = NOT_FINITE.sub(b"nan", lines)
    if b"D" in lines or b"d" in lines:
        lines = FORTRAN.sub(rb"\1e\2", lines)
    if b'"' in lines:
        mark = (separator or " ").encode()

        def bare(quotes: re.Match[bytes]) -> bytes:
            word = quotes[1].strip()
            return word.replace(b",", comma) if WITH_COMMA.fullmatch(word) else word.replace(mark, b"_") or b"-"

        lines = IN_QUOTES.sub(bare, lines).replace(b'"', b" ")
    return (lines if separator == "," else lines.replace(b",", comma)).replace(b"\r", b" ")


def split(line: bytes, separator: str | None) -> list[bytes]:
    return [cell.strip() for cell in line.split(separator.encode())] if separator else line.split()
