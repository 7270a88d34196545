"""What commas and points in the numbers of a text mean: decimals, or thousands."""

import re
from collections.abc import Sequence

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
