"""Where one's own files are: folders of classes and of splits, and what is said of folders that are neither."""

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from pointnet.files import name_in
from pointnet.names import printable
from pointnet.points.read import SUFFIXES, DatasetNotFoundError, files_in, passed_over, readable

from .shapes import is_made

SPLITS = ("train", "val", "test")  # folders; "train" of a data set is the first two
# What no set has for all of its classes.
OF_SPLITS = {*SPLITS, "training", "valid", "validation", "dev", "testing", "eval", "evaluation"}
UNDRAWN = ""  # the split of a file that no folder says


def layout_of(root: Path, flat: bool | None) -> tuple[list[str], dict[Path, tuple[str, str]], bool]:
    """The classes, the class and the split of each file, class by class, and whether there are no folders of classes.

    A split is one of `SPLITS`, or `UNDRAWN`.

    Args:
        flat: there are no folders of classes: files are in the root, or in train/, val/ and test/ in it; None: that is
            so where no folder of a class is found. The one class then has the root's name.

    Raises:
        DatasetNotFoundError: no class with files.
    """
    known = cache(_known)
    if flat is None:
        within = [folder for each in SPLITS for folder in _folders(root / each)]
        folders = [folder for folder in _folders(root) if folder.name not in SPLITS]
        flat = not any(known(folder) or _has_split(folder) for folder in (*folders, *within))
    return *_find_files(root, known, flat), flat


def first_own_file(root: Path, without: Collection[str]) -> Path | None:
    """The first file of those that a set of one's own may have under a root; None if there is none.

    Args:
        without: the names of folders that belong to other sets.
    """
    if root.resolve().name in without:
        return None
    homes = [root]
    for parent in (root, *(root / split for split in SPLITS)):
        with suppress(OSError):  # a folder that cannot be opened
            homes += _folders(parent)
    for home in (home for home in homes if home.name not in without):
        with suppress(OSError):
            for place in (home, *(home / split for split in SPLITS)):
                if found := _known(place):
                    return found[0]
    return None


def _find_files(
    root: Path, known: Callable[[Path], list[Path]], flat: bool
) -> tuple[list[str], dict[Path, tuple[str, str]]]:
    """The classes, and the class and split of each file, class by class."""
    homes = {home: _class_of(home) for home in _folders(root) if known(home) or _has_split(home)}
    telling = SPLITS[:1] if homes else SPLITS  # root/<split>/<class>/<files>: train/ says so, any where nothing else is
    by_split = not flat and any(known(folder) for its in telling for folder in _folders(root / its))
    if by_split:
        places = [(_class_of(folder), its, folder) for its in SPLITS for folder in _folders(root / its)]
    else:
        homes = {root: _class_of(root.resolve())} if flat else homes
        places = [(name, UNDRAWN, home) for home, name in homes.items() if not _has_split(home)]
        places += [(name, its, home / its) for home, name in homes.items() for its in SPLITS]
    classes = sorted({name for name, _, folder in places if not by_split or known(folder)})
    order = sorted(places, key=lambda place: (place[0], (*SPLITS, UNDRAWN).index(place[1])))
    found = {file: (name, its) for name, its, folder in order for file in known(folder)}
    if not found:
        wanted = "; ".join([f"wanted root/{'' if flat else '<class>/'}<files>", *passed_over(root, 1 if flat else 2)])
        what = "no file to read" if flat else "no folder with files to read"
        raise DatasetNotFoundError(root, f"holds {what} ({' '.join(SUFFIXES)}); {wanted}{elsewhere(root, found)}")
    if not (flat or by_split) and {name.casefold() for name in classes} <= OF_SPLITS:
        what = f"holds files in {' and '.join(classes)}, which are names of splits and no classes"
        raise DatasetNotFoundError(root, f"{what}; wanted root/train/<class>/<files>, and root/test/<class>/<files>")
    return classes, found


def elsewhere(root: Path, found: Collection[Path]) -> str:
    """How many files there are in other folders, and where the first is; empty if there is none."""
    others = [file for file in files_in(root) if file not in found]
    if not others:
        return ""
    folders = others[0].relative_to(root).parts[:-1]
    misnamed = any(name not in SPLITS and name.casefold() in OF_SPLITS for name in folders)
    names = ": folders of splits are named train, val and test" if misnamed else ""
    return f"; {len(others):,} elsewhere, such as {name_in(others[0], root)}{names}"


def lines_on_folders(root: Path, classes: Sequence[str]) -> list[str]:
    """Lines on folders in the places of classes that are none, and on classes that are named like splits."""
    own = {_class_of(folder): folder for folder in _folders(root)}
    within = {_class_of(folder) for split in SPLITS for folder in _folders(root / split)}
    others = within.union(own).difference(classes, SPLITS)
    splits = {name for name in others if name.casefold() in OF_SPLITS}
    beside = {name for name in (others - splits).intersection(own) if _known(own[name])}
    lines = {
        "no class, as there is no file to read": others - splits - beside,
        "no class, as the link leads nowhere": _dead_links(root),
        "not read, as folders of splits are named train, val and test": splits,
        "not read, as it is in none of train, val and test, which hold the classes": beside,
        "a class, though named like a split, as it holds files and no folders of classes": {
            name for name in classes if name.casefold() in OF_SPLITS
        },
    }
    return [f"{what}: {', '.join(map(printable, sorted(names)))}" for what, names in lines.items() if names]


def _dead_links(root: Path) -> set[str]:
    """The names of links in the root that may have been folders of classes."""
    with os.scandir(root) as entries:
        links = [Path(each.path) for each in entries if each.is_symlink() and not each.name.startswith(".")]
    return {link.name for link in links if link.suffix.lower() not in SUFFIXES and not link.exists()}


def named_alike(classes: Sequence[str]) -> list[str]:
    """A line if there are classes whose names are one but for case, spaces, hyphens and underscores."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(re.sub(r"[\s_-]+", " ", name.casefold()).strip(), []).append(repr(printable(name)))
    several = "; ".join(", ".join(names) for names in alike.values() if len(names) > 1)
    line = f"classes of nearly the same name: {several}; give their folders one name if they are one class"
    return [line] if several else []


def _class_of(folder: Path) -> str:
    """The name of a folder's class, in one of the two ways in which Unicode spells a letter with an accent."""
    return unicodedata.normalize("NFC", folder.name)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _has_split(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _known(folder: Path) -> list[Path]:
    """The files of a folder that have a suffix we read, in order of name, but those of the data set shapes."""
    files = folder.iterdir() if folder.is_dir() else ()
    return readable(file for file in files if file.name[0] != "." and not is_made(file))
