"""Text, one point per line: XYZ, TXT, CSV, PTS, ASC, as scanners, CloudCompare and the point-cloud data sets write it.

Numbers are separated by spaces, tabs, commas, semicolons or bars; where commas do not separate, they are decimal
points, or stand between thousands. The first lines may name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B`) or count
them (`0,1,2`), or give the number of points (PTS). Lines are read in blocks: by NumPy where all are alike, else one by
one.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import Refusal
from .by_numbers import ENOUGH
from .cells import COMMENT, IN_QUOTES, WITH_COMMA, hint_on, number_of, plain, split, what_commas_mean
from .columns import from_named, from_table
from .contents import EXTRAS, Array, Contents, Extras, blocks_of_rows, wants_all
from .names import SKIPPED, THREE_PATTERNS, check_shape, left_out, places
from .opening import COUNT, LONGEST_LINE, Opening, check_length, opening_of
from .scan import MARK, cells_per_line, quoted, unix_lines

BYTES = 1 << 16  # of lines that are read together


def parse_table(data: bytes) -> Array:
    """A text of nothing but numbers and spaces, the same count on each line: (N, K)."""
    width = len(next((line for line in io.BytesIO(data) if not line.isspace()), b"").split())
    return _table(io.BytesIO(data), Opening(0, 1, None, width, width, [], [], None), range(width), [])


def parse_text(path: Path, extras: Extras = EXTRAS, columns: Sequence[str] = (), usual: Sequence[str] = ()) -> Contents:
    """A text's points; columns are known by the names in its first lines, else recognised by `recognised`.

    Args:
        columns: the names of the columns, by hand; a note says so if the file calls other ones x, y, z or the like.
        usual: what a file of this suffix has, if so many columns have no names.
    """
    with path.open("rb") as file:
        source = _in_lines(file)
        own = own_columns(path)[0] if columns else []
        opening = opening_of(source, columns)
        source.seek(opening.start)
        some = source.read(LONGEST_LINE)
        opening, notes = _with_commas(some, opening)
        notes += opening.notes + _overruled(own, columns, extras)
        words = _of_words(some, opening) - {i for i, name in enumerate(columns) if name != SKIPPED}
        names = opening.names or list(usual if len(usual) == opening.width else [])
        all_columns, asked = set(range(opening.width)), set().union(*places(names, extras).values())
        if lost := words if wants_all(extras) else words & asked:
            known = names or [f"column {i + 1}" for i in range(opening.width)]
            notes += [f"{note}, not numbers" for note in left_out(known, all_columns - lost)]
        names = ["" if i in words else name for i, name in enumerate(names)]
        wanted = [i for i in opening.columns if i not in words]
        if names:
            wanted = list(dict.fromkeys(place for group in places(names, extras).values() for place in group))
        elif not extras:
            wanted = wanted[:ENOUGH]
        counts = [] if opening.declared is None else [opening.declared]
        source.seek(opening.start)
        rows = _table(source, opening, wanted, counts)
    rows, of_counts = _without_counts(rows, opening)
    if opening.width == 1:
        raise Refusal("holds one number per line, not points; labels go into the file of the points, as a column")
    if counts and sum(counts) != len(rows):
        raise Refusal(f"declares {sum(counts)} points, holds {len(rows)}")
    if names:
        contents = from_named({names[i]: rows[:, k] for k, i in enumerate(wanted)}, extras, names)
    else:
        check_shape(len(rows), opening.width)
        is_pts = opening.declared is not None or path.suffix.lower() == ".pts"
        contents = from_table(rows, extras, is_pts=is_pts)
    return contents._replace(notes=(*notes, *of_counts, *contents.notes))


def own_columns(path: Path) -> tuple[list[str], int]:
    """The names that the first lines of a text give its columns, if x, y and z are among them, and how many columns
    it has; 0 where nothing but names by hand would tell."""
    with path.open("rb") as file:
        source = _in_lines(file)
        try:
            opening = opening_of(source, ())
        except Refusal:
            return [], 0
    return opening.names if places(opening.names, ()) else [], opening.width


def _in_lines(file: BinaryIO) -> BinaryIO:
    """The text with line ends that are known, at its first letter."""
    head, source = file.read(LONGEST_LINE), file
    if b"\0" in head:
        raise Refusal("is not text of one byte a letter; save it as UTF-8")
    if re.search(rb"\r[^\n]", head):
        source = io.BytesIO(unix_lines(head + file.read()))
    source.seek(len(MARK) if head.startswith(MARK) else 0)
    return source


def _overruled(own: Sequence[str], columns: Sequence[str], extras: Extras) -> list[str]:
    """A note if the file's own names put a column elsewhere than those by hand."""
    mine, theirs = (places(names, extras) for names in (columns, own))
    elsewhere = any(
        theirs.get(what, group) != group if what in THREE_PATTERNS else set(group) - set(theirs.get(what, group))
        for what, group in mine.items()
    )
    if not elsewhere:
        return []
    return [f"columns taken as {','.join(columns)}, though the file names them {quoted(', '.join(own))}"]


def _with_commas(lines: bytes, opening: Opening) -> tuple[Opening, list[str]]:
    """What commas in numbers mean, by the first lines, and a note if they might mean either.

    With no comma in a number there, a later one is refused.
    """
    if b"," not in lines:
        return opening, []
    cells = IN_QUOTES.findall(lines) if opening.separator == "," else re.split(rb'[\s;|"]+', lines)
    found = [cell for cell in map(bytes.strip, cells) if WITH_COMMA.fullmatch(cell)]
    if not found:
        return opening, []
    comma, is_grouped, is_sure = what_commas_mean(found, b"" if re.search(rb"\d\.\d", lines) else b".")
    note = f"numbers such as {found[0].decode()} taken as {found[0].replace(b',', comma).decode()}"
    return opening._replace(comma=comma, grouped=is_grouped), [] if is_sure else [note]


def _of_words(lines: bytes, opening: Opening) -> set[int]:
    """The columns whose first cell that holds something is a word; those of the coordinates are read nevertheless."""
    words, unknown = set[int](), set(range(opening.width)) - set(places(opening.names, ()).get("points", (0, 1, 2)))
    for line in plain(lines, opening.separator, opening.comma, opening.grouped).split(b"\n"):
        cells = split(line, opening.separator)
        if len(cells) < opening.width or COMMENT.match(line):
            continue
        known = {i for i in unknown if (value := number_of(cells[i])) is None or value == value}
        words |= {i for i in known if number_of(cells[i]) is None}
        unknown -= known
        if not unknown:
            break
    return words


def _table(file: BinaryIO, opening: Opening, wanted: Sequence[int], counts: list[int]) -> Array:
    """The numbers of these columns, from the current position of the file: (N, K).

    Later numbers of points are added to the counts, if there are any.
    """
    found, line = bytearray(), opening.line  # a bytearray grows in place
    while block := file.read(BYTES) + (rest := file.readline(LONGEST_LINE)):
        check_length(rest, line + block.count(b"\n"))
        lines = plain(block, opening.separator, opening.comma, opening.grouped)
        rows = _alike(lines, opening, wanted)
        found += (_one_by_one(lines, line, opening, wanted, counts) if rows is None else rows).tobytes()
        line += block.count(b"\n")
    return np.frombuffer(found).reshape(-1, len(wanted)) if found else np.empty((0, 3))


def _alike(lines: bytes, opening: Opening, wanted: Sequence[int]) -> Array | None:
    """The numbers of lines that are rows or blank, or None if any is something else."""
    cells = cells_per_line(lines, opening.separator)
    if not ((cells == opening.cells) | (cells <= 1)).all() or (0 not in wanted and COMMENT.search(lines)):
        return None
    rows = [line for line in lines.split(b"\n") if line.strip()]
    try:
        return np.loadtxt(rows, float, None, opening.separator, usecols=wanted, ndmin=2, encoding="ascii")
    except ValueError:
        return None


def _one_by_one(lines: bytes, first: int, opening: Opening, wanted: Sequence[int], counts: list[int]) -> Array:
    """The numbers of lines, whose first has this number in the file.

    Raises:
        Refusal: one has another number of cells, or a word.
    """
    rows = list[Sequence[float | None]]()
    for number, line in enumerate(lines.split(b"\n"), first):
        if not line.strip() or COMMENT.match(line):
            continue
        if counts and COUNT.fullmatch(line):
            counts.append(int(line))
            continue
        for text in (line, line.partition(b"#")[0]):
            cells = split(text, opening.separator)
            if opening.separator is None and len(cells) < opening.width == text.count(b"\t") + 1:
                cells = split(text, "\t")  # some are empty
            fits = len(cells) == opening.width or (len(cells) == opening.width + 1 and not cells[-1])
            values = [number_of(cells[i]) for i in wanted] if fits else [None]
            if None not in values:
                break
        else:
            if not fits:
                raise Refusal(f"line {number} has {len(cells)} columns, not {opening.width}: {quoted(line.strip())}")
            wrong = wanted[values.index(None)]
            where = f"line {number} has {quoted(cells[wrong])} in column {wrong + 1}"
            raise Refusal(f"{where}, not a number{hint_on(line)}")
        rows.append(values)
    return np.array(rows, float).reshape(len(rows), len(wanted))


def _without_counts(rows: Array, opening: Opening) -> tuple[Array, tuple[str, ...]]:
    """The rows without a first one that counts the columns, as pandas writes a table without names.

    Where the first three columns, the coordinates, hold nothing but whole numbers, it stays a point.
    """
    if not opening.counts or len(rows) < 2:
        return rows, ()
    line = f"its first line, {' '.join(map(str, range(opening.width)))},"
    if all((block == np.rint(block)).all() for block in blocks_of_rows(rows[1:, :3])):
        return rows, (f"{line} taken as a point, since all coordinates are whole numbers",)
    return rows[1:], (f"{line} taken as a header that counts the columns",)
