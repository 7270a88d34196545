"""Which of one's own files are of one object, and which objects are for testing or validation."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pointnet.files import name_in
from pointnet.names import printable
from pointnet.points.hashing import with_copies, without_sketch
from pointnet.points.read import SUFFIXES

from .known import read_known, write_known

NO_GROUPS: Mapping[Path, int] = {}
WORD = r"(?:copy|kopie|copie|copia)"  # as file managers name copies; a number alone may count different objects
SERIES = re.compile(r"^(.*\d.*?[^\d])\d+$")  # a name with a number that ends with another
LABELLED = re.compile(r"\.(?:parts|scene)\.ply$")  # as `pointnet predict --task part` or `scene` names what it writes
COPY = re.compile(
    rf"^{WORD}[ _-](?:\(\d+\)[ _-])?(?:of|von|de|di)[ _-]|"
    rf"(?:[ _-]+\(?|\()(?:another |\d+(?:st|nd|rd|th) )?{WORD}(?:[ _-]?\d+)?\)?(?: ?\(\d+\))?$"
)


def test_files(
    root: Path,
    files: Mapping[str, Sequence[Path]],
    readable: Collection[Path],
    contents: Mapping[Path, str],
    fraction: float,
    seed: int,
) -> set[Path]:
    """Those of undrawn files, class by class, that are for testing, whole objects: all readable.

    What was drawn before stays, but where only files that cannot be read, or twins of files of the other split, were on
    one side: that class is drawn anew.
    """
    settings = f"-{seed}-{fraction:g}"
    known = read_known(root, "split", settings)
    before, test = dict(known), set[Path]()
    for found in files.values():
        opened = [file for file in found if file in readable]
        objects = objects_of(opened, contents)
        if len(objects) == 1:  # of files that share most points, for which lines tell how they were drawn
            objects = objects_of(opened, {file: without_sketch(its) for file, its in contents.items()})
        names = [[name_in(file, root) for file in one] for one in objects]
        in_test = _drawn(names, before, fraction, seed)
        sides = {known[name] for file in found if (name := name_in(file, root)) in known}
        if sides <= set(in_test):
            known = {name: its for one, its in zip(names, in_test, strict=True) for name in one} | known
        else:
            in_test = _drawn(names, {}, fraction, seed)
        test |= {file for one, its in zip(objects, in_test, strict=True) if its for file in one}
    if known != before:  # if it cannot be written, the same files give the same choice
        write_known(known, root, "split", settings)
    return test


def _drawn(objects: Sequence[Sequence[str]], known: Mapping[str, bool], fraction: float, seed: int) -> list[bool]:
    """Whether each object (names of files) is for testing: as known, and of new ones enough chosen at random."""
    before = [[known[name] for name in names if name in known] for names in objects]
    in_test = [bool(sides) and all(sides) for sides in before]
    wanted = round(len(objects) * fraction)
    if fraction and len(objects) > 1:
        wanted = max(1, min(wanted, len(objects) - 1))
    new = [i for i, sides in enumerate(before) if not sides]
    shortest = [min(names, key=lambda name: (len(name), name)) for names in objects]  # a copy's name is longer
    new.sort(key=lambda i: hashlib.sha256(f"{seed}/{shortest[i]}".encode()).digest())
    for i in new[: max(wanted - sum(in_test), 0)]:
        in_test[i] = True
    return in_test


def first_clouds(files: Sequence[Path], contents: Mapping[Path, str], groups: Tensor) -> Tensor:
    """(S,) the first cloud of each cloud's object, an index.

    Args:
        files: of the clouds, S.
        contents: as of `objects_of`.
        groups: (S,); files of one name are of one object within a group.
    """
    of_group = dict(zip(files, groups.tolist(), strict=True))
    rows = {file: row for row, file in reversed([*enumerate(files)])}
    first = {file: rows[one[0]] for one in objects_of(list(of_group), contents, of_group) for file in one}
    return torch.tensor([first[file] for file in files], dtype=torch.int64)


def whole_objects(held_out: Tensor, first: Tensor, groups: Tensor) -> Tensor:
    """A validation split (S,) bool with each object on the side of its first cloud, as of `first_clouds`.

    Args:
        groups: (S,) of which none may be for validation as a whole: it would then be for training.
    """
    joined = held_out[first]
    for group in groups.unique():
        its = groups == group
        joined[its] = joined[its] & ~joined[its].all()
    return joined


def objects_of(
    files: Sequence[Path], contents: Mapping[Path, str], groups: Mapping[Path, int] = NO_GROUPS
) -> list[list[Path]]:
    """The files of each object: of the same content, thinned and cropped copies, or of one name but for its ending, the
    mark of a copy, and what `predict` adds.

    `contents` has of each file a hash of what it holds. A name counts within a group of files: chair/1.off and
    table/1.off are two objects.
    """
    held = with_copies({file: contents[file] for file in files if file in contents})
    leaders: dict[object, object] = {}

    def leader(of: object) -> object:
        while (above := leaders.setdefault(of, of)) != of:
            of = above
        return of

    for file in files:
        made = Path(LABELLED.sub("", file.name))
        is_file = made.name == file.name or made.suffix.lower() in SUFFIXES
        stem = (made.stem if is_file else made.name).casefold()
        for shared in ((COPY.sub("", stem) or stem, groups.get(file)), ("content", held.get(file, file))):
            leaders[leader(file)] = leader(shared)
    objects: dict[object, list[Path]] = {}
    for file in files:
        objects.setdefault(leader(file), []).append(file)
    return list(objects.values())


def series_in(files: Collection[Path], tested: Collection[Path]) -> list[str]:
    """A line where files whose split is drawn are numbered within several series, such as good0_frame_1 and
    good0_frame_2, which have files on both sides: those of one may show one object."""
    series: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        if named := SERIES.match(file.stem):
            series.setdefault((file.parent, named[1]), []).append(file)
    several = [found for found in series.values() if len(found) > 1]
    split = [found for found in several if 0 < len({*found} & {*tested}) < len(found)]
    if len(several) < 2 or 2 * sum(map(len, several)) < len(files) or not split:
        return []
    name, size = printable(SERIES.match(split[0][0].stem)[1]), len(split[0])  # type: ignore[index]
    hint = "if those of one show one object, give them their side: folders train/ and test/"
    return [
        f"series of files that are on both sides of the drawn split: {len(split)}, such as {name}* ({size}); {hint}"
    ]


def twins_in(
    root: Path,
    places: Mapping[Path, tuple[str, str]],
    readable: Collection[Path],
    contents: Mapping[Path, str],
    points_hashes: Mapping[Path, str],
) -> list[str]:
    """A line on files that have the content of files of another class; and a line each for testing and validation, if
    files of it have the content of files of another split in their own class. The same of files that have other bytes,
    but the same points, or a part of them."""
    copies = with_copies(points_hashes)
    alike: dict[str, Mapping[Path, str]] = {
        "with the same content as": contents,
        "with the same points as": {file: without_sketch(its) for file, its in points_hashes.items()},
        "that share points with": copies,
    }
    lines, before = [], list[Mapping[Path, str]]()
    for what, hashes in alike.items():
        known = {file: (hashes[file], name) for file, (name, _) in places.items() if file in hashes}
        first = {its: file for file, (its, _) in reversed(known.items())}
        of_two = [(first[its], file) for file, (its, name) in known.items() if known[first[its]][1] != name]
        found = [(f"files {what} files of another class", of_two)]
        for split, others in (("test", ("train", "val")), ("val", ("train",))):
            twins = {known[file]: file for file in reversed(known) if places[file][1] in others}
            pairs = [(file, twins[its]) for file, its in known.items() if places[file][1] == split and its in twins]
            side = {"test": "testing", "val": "validation"}[split]
            found.append((f"files for {side} {what} files for training", pairs))
        for line, pairs in found:
            kept = [(a, b) for a, b in pairs if all(one.get(a, a) != one.get(b, b) for one in before)]
            remedy = "are both classes meant?" if pairs is of_two and hashes is copies else "remove one of each"
            lines += _of_pairs(line, kept, readable, root, remedy)
        before.append(hashes)
    return lines


def _of_pairs(
    what: str, pairs: Sequence[tuple[Path, Path]], readable: Collection[Path], root: Path, remedy: str
) -> list[str]:
    """A line on pairs of files, if one of some pair can be read."""
    pairs = [pair for pair in pairs if not set(pair).isdisjoint(readable)]
    names = [printable(name_in(file, root)) for pair in pairs[:1] for file in pair]
    return [f"{what}: {len(pairs):,}, such as {' and '.join(names)}; {remedy}"] if pairs else []
