"""Lines on data sets before they are used: on each set, and on its files, each kind of note once."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointnet.files import name_in
from pointnet.names import printable
from pointnet.points.errors import file_errors
from pointnet.points.features import FEATURES, WORDS
from pointnet.points.read import PointCloudFileError, columns_of_table, contents_of

from .clouds import LabelledClouds

FEW_FILES = 16  # of a format, of which the smallest is read to see what they hold
SMALL_FILE = 2**23  # bytes; larger files are not read for that
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


def all_lines(data: LabelledClouds) -> list[str]:
    """What `lines_about` says of a data set, and its files that could not be read, as lines to print."""
    return [*lines_about([data]), *(f"skipped: {error}" for error in skipped_files([data]))]


def lines_on_unused(files: Sequence[Path], features: Sequence[str], columns: Sequence[str], root: Path) -> list[str]:
    """A line on what files give their points that a set does not take.

    A small file of each format is looked at, if there is one. What is the same at all points tells nothing, and normals
    of a mesh follow from its faces.
    """
    of_format: dict[str, list[Path]] = {}
    for file in files:
        of_format.setdefault(file.suffix.lower(), []).append(file)
    found: dict[str, str] = {}
    for some in of_format.values():
        size, file = min((file.stat().st_size, file) for file in some[:FEW_FILES])
        if size > SMALL_FILE:
            continue
        with suppress(PointCloudFileError), file_errors(file):
            contents = contents_of(file, tuple(FEATURES), columns_of_table(file, columns))
            colours = contents.face_colors if contents.colors is None else contents.colors
            normals = contents.normals if contents.faces is None else None
            for name, rows in {"normals": normals, "colors": colours, "intensity": contents.intensity}.items():
                if name not in features and rows is not None and _differ(np.asarray(rows[:], float)):
                    found.setdefault(name, name_in(file, root))
    if not found:
        return []
    kinds = " and ".join(FEATURES[name] for name in found)
    wanted = ",".join(WORDS[name] for name in FEATURES if name in {*features, *found})
    return [f"not used: {kinds} of points, such as in {next(iter(found.values()))}; --features {wanted} uses them"]


def _differ(rows: NDArray[np.floating]) -> bool:
    """Whether rows, (N,) or (N, 3), without those that are not finite, are not all the same."""
    whole = rows[np.isfinite(rows).reshape(len(rows), -1).all(1)]
    return bool((whole != whole[:1]).any())
