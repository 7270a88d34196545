"""Text for people: the nearest known name, the first of many, and text that is safe to print on one line."""

import difflib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that begins with this one, or is nearest to it; None where none is."""
    others = [other for other in known if other != name]
    begun = [other for other in others if name and other.startswith(name)]
    return next(iter(begun or difflib.get_close_matches(name, others, n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: what `nearest_name` finds; empty where it finds none."""
    near = nearest_name(name, known)
    return "" if near is None else f"; did you mean '{near}'?"


def did_you_mean_path(path: str | os.PathLike[str]) -> str:
    """The same of a path that is not there, by the names of what is in the first folder where it goes wrong."""
    folder, name = os.path.split(os.path.normpath(os.fspath(path)))
    while name and folder and not os.path.lexists(folder):
        folder, name = os.path.split(folder)
    try:
        return did_you_mean(name, sorted(os.listdir(folder or ".")))
    except OSError:
        return ""


def no_folder(path: str | os.PathLike[str]) -> str:
    """Why a path is no folder."""
    return "is a file, not a folder" if os.path.lexists(path) else "no such folder"


def printable(text: str) -> str:
    """The same text for one line of a terminal: � for each character that cannot be printed, such as a line break."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first of several names in a line, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def say(text: str, file: TextIO | None = None) -> None:
    """Prints text, in which anything may be quoted; only its line breaks reach the terminal as they are.

    Letters that the stream cannot encode, as of a file in the encoding of Windows, are escaped: `Geb\\xe4ude`.
    """
    stream = file or sys.stdout
    lines, encoding = "\n".join(map(printable, text.split("\n"))), getattr(stream, "encoding", None) or "utf-8"
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError, with the nearest known name, unless `name` is one of them."""
    known = list(known)
    if name not in known:
        raise ValueError(f"no {what} '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})")


def short_names(files: Sequence[Path]) -> list[str]:
    """A name for each file: its own, or its path below the folder that holds all of them, if several have that name."""
    named = Counter(file.name.casefold() for file in files)  # which are one name on some disks
    if len(named) == len(files):
        return [file.name for file in files]
    above = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return [file.name if named[file.name.casefold()] == 1 else os.path.relpath(file, above) for file in files]
