"""The names of labels: in a text beside the files, or in the comments of PLY files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pointnet.points.comments import names_of_labels
from pointnet.points.formats.scan import quoted
from pointnet.points.read import PointCloudFileError

from .releases import read_lines

WITHOUT = ("-", "\u2013", "\u2014")  # as the name of a number: points with it have no label

# A line of names, "0 ground", "0: ground" or "0 - ground"; one with its number behind, perhaps after a mark.
NUMBERED = re.compile(r"(-?\d+)\.?(?:\s*=\s*(?!>)|[\s,;:|)]+)(?:[-=\u2013\u2014]+>?\s+)?(\S.*)")
BEHIND = re.compile(r"(\S.*?)(?:\s*([,;:=|(\[])\s*|\s+[-\u2013\u2014]\s+|\s+)(\d+)\s*[)\]]?")
IN_QUOTES = re.compile(r'(^|[,;:|\t]\s*)"([^"]*)"(?=\s*(?:$|[,;:|\t]))')  # a whole cell
NO_NAME = re.compile(r"\W*|.*[,:;{[]|(- |//).*")  # a line of JSON, of YAML or of a program
OF_COLUMN = re.compile(r"\b(?:id|label|number|index|code|value)s?$", re.I)  # that ends a line above the names


def _numbered_behind(lines: Sequence[str]) -> str:
    """The first of the lines that end with the number of their label: of most, behind a mark; or of all but names of
    columns, from 0 or 1 on."""
    found = {line: match for line in lines if (match := BEHIND.fullmatch(line))}
    numbers = {int(match[3]) for match in found.values()}
    counted = numbers in (set(range(len(found))), set(range(1, len(found) + 1)))
    counted &= len(found) == len(lines) - sum(bool(OF_COLUMN.search(line)) for line in lines[:1])
    are_names = len({match[1] for match in found.values()}) == len(numbers) == len(found) > max(1, len(lines) / 2)
    return next(iter(found)) if are_names and (counted or all(match[2] for match in found.values())) else ""


class Labels(NamedTuple):
    """The labels of a set, in the order of a network's classes."""

    numbers: tuple[int, ...]  # as files have them, ascending
    names: tuple[str, ...]
    without: tuple[int, ...] = ()  # numbers that files have for points without a label
    is_numbered: bool = True  # whether each name came with its number

    @classmethod
    def named_in(cls, path: Path) -> Labels | None:
        """Those that a text names, a line each: of label 0, 1, 2 ..., or each after its number; None: no such file.

        A line that begins with # is a comment; a negative number is that of points without a label, and so is one whose
        name is one of `WITHOUT`. Where there are only such, the others have no names here.

        Raises:
            PointCloudFileError: it cannot be read, has a name or a number twice, or is empty; or most lines, but not
                all, begin with a number; or most end with one.
        """
        if not path.is_file():
            return None
        lines = [IN_QUOTES.sub(r"\1\2", line) for line in read_lines(path) if line[0] != "#"]
        matches = [NUMBERED.fullmatch(line) for line in lines]
        numbered = [(int(match[1]), match[2]) for match in matches if match]
        if len(lines) > len(numbered) > len(lines) / 2:
            line = next(line for line, match in zip(lines, matches, strict=True) if not match)
            raise PointCloudFileError(path, f"most lines begin with the label's number, {quoted(line)} does not")
        if not numbered and (line := _numbered_behind(lines)):
            raise PointCloudFileError(path, f"has numbers behind its names, as in {quoted(line)}; put them in front")
        is_numbered = bool(numbered) and all(matches)
        found = sorted([each for each in numbered if each[0] >= 0] if is_numbered else enumerate(lines))
        named = [each for each in found if not (is_numbered and each[1] in WITHOUT)]
        for what, values in (("number", [str(number) for number, _ in found]), ("name", [name for _, name in named])):
            if twice := [value for value in values if values.count(value) > 1]:
                raise PointCloudFileError(path, f"has the {what} {quoted(twice[0])} twice")
        if odd := [name for _, name in named if NO_NAME.fullmatch(name) and name not in WITHOUT]:
            raise PointCloudFileError(path, f"has {quoted(odd[0])} as a name; write one name per line, no JSON or YAML")
        if not found:
            raise PointCloudFileError(path, "names no label; a name is wanted in each line")
        without = tuple(number for number, name in found if (number, name) not in named)
        return cls(tuple(number for number, _ in named), tuple(name for _, name in named), without, is_numbered)

    def check_order(self, there: Iterable[int], path: Path) -> None:
        """Raises PointCloudFileError where names of label 0, 1, 2 ... end with the labels that are there, in another
        order."""
        ends = {name: int(match[3]) for name in self.names if (match := BEHIND.fullmatch(name))}
        in_order = self.is_numbered or [*ends.values()] == [*range(len(self.names))]
        if not in_order and len(ends) == len(self.names) and {*there} and {*there} <= {*ends.values()}:
            line = quoted(next(iter(ends)))
            reason = f"has numbers behind its names, as in {line}, which are the labels of the files"
            raise PointCloudFileError(path, f"{reason}; put them in front")

    @classmethod
    def of_files(cls, files: Iterable[Path], there: Iterable[int], text: str) -> Labels:
        """Those that the comments of PLY files name, and all others that are `there`, whose names are their numbers.

        Args:
            text: where a user may name them.

        Raises:
            PointCloudFileError: a label with two names, or a name of two labels.
        """
        by_number: dict[int, str] = {}
        by_name = {str(number): number for number in there}
        for file in files:
            for number, name in _names_in(file).items():
                named, numbered = by_number.setdefault(number, name), by_name.setdefault(name.casefold(), number)
                if named.casefold() != name.casefold() or numbered != number:
                    is_other = named.casefold() != name.casefold()
                    other = f"calls it {quoted(named)}" if is_other else f"gives this name to label {numbered}"
                    reason = f"calls label {number} {quoted(name)}, another file {other}"
                    raise PointCloudFileError(file, f"{reason}; name them in {text}")
        numbers = sorted({*there, *by_number})
        return cls(tuple(numbers), tuple(by_number.get(number, str(number)) for number in numbers))

    def other_names(self, files: Iterable[Path]) -> list[str]:
        """A line on labels that the comments of PLY files name otherwise."""
        names = dict(zip(self.numbers, self.names, strict=True))
        for file in files:
            for number, name in _names_in(file).items():
                if number in names and names[number].casefold() != name.casefold():
                    return [f"label {number} is taken as {quoted(names[number])}; {file.name} calls it {quoted(name)}"]
        return []

    @property
    def has_own_numbers(self) -> bool:
        """Whether a label's number is not its place."""
        return self.numbers != tuple(range(len(self.numbers)))


def _names_in(file: Path) -> dict[int, str]:
    """Those of the comments of a PLY that are more than the label's number."""
    return {number: name for number, name in names_of_labels(file).items() if name != str(number)}
