"""Lines on data sets before they are used: on each set, and on its files, each kind of note once."""

import re
from collections.abc import Sequence

from pointnet.names import printable

from .clouds import LabelledClouds

MOST_KINDS = 8  # of notes on files that are listed
# What notes of one kind differ in: what they quote, numbers, and singular and plural.
OF_ONE_FILE = re.compile(r"'.*'|\".*\"|[-+]?\d[\d.,]*(?:e[-+]?\d+)?|s\b|\b(?:is|are)\b|\bup to ")


def lines_about(opened: Sequence[LabelledClouds]) -> list[str]:
    """The notes of data sets, such as the splits of one, each once, and a line on each kind of note on their files.

    Notes are of one kind if they differ in numbers and quoted words alone; the line has the first as an example.
    """
    found = [(name, note) for data in opened for name, notes in data.file_notes.items() for note in notes]
    return [*dict.fromkeys(note for data in opened for note in data.notes), *of_each_kind(found)]


def of_each_kind(found: Sequence[tuple[str, str]]) -> list[str]:
    """A line on each kind of note on files, which are given by name."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, note in dict.fromkeys(found):
        kinds.setdefault(OF_ONE_FILE.sub("", note), []).append((name, note))
    ranked = sorted(kinds.values(), key=lambda of_kind: -len({name for name, _ in of_kind}))
    lines = list[str]()
    for of_kind in ranked[:MOST_KINDS]:
        (name, note), count = of_kind[0], len({name for name, _ in of_kind})
        lines.append(printable(f"{name}: {note}" if count == 1 else f"{count:,} files, such as {name}: {note}"))
    if len(ranked) > MOST_KINDS:
        lines.append(f"{len(ranked) - MOST_KINDS:,} more kinds of notes; python -m pointnet show FILE prints a file's")
    return lines


def skipped_files(opened: Sequence[LabelledClouds]) -> list[str]:
    """The errors of the files that could not be read, each once, as lines to print."""
    return list(dict.fromkeys(printable(str(error)) for data in opened for error in data.bad))


def left_out(data: LabelledClouds) -> list[str]:
    """What `lines_about` says of a data set, and its files that could not be read, as lines to print."""
    return [*lines_about([data]), *(f"skipped: {error}" for error in skipped_files([data]))]
