"""One trial: what is done, with what time, and how it ended."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pointnet import PointNetClassifier
from pointnet.training import fit
from tests.helpers import SMALL, before_long, described, quiet, tiny, two_shapes

Trials = Iterator[str]  # what came of each; the first of the words is FAILED where something did not hold
FORK = multiprocessing.get_context("fork")
FAILED = "FAILED"
SECONDS, PATIENCE = 60, 5  # with one trial, and with a rank whose other was killed


def held(check: Callable[[], object], outcome: str) -> str:
    """The outcome of a trial whose check passes."""
    try:
        check()
        return outcome
    except Exception as error:
        return f"{FAILED}: {' '.join(repr(error).split())[:200]}"


class Read(NamedTuple):
    value: Any


def refused_or(read: Callable[[], Any], named: Path) -> str | Read:
    """What `read` returns; "refused" for an error of one line that names a path; all else has failed."""
    try:
        with before_long(SECONDS):
            return Read(read())
    except (ValueError, OSError) as error:
        said = str(error)
        is_fine = str(named) in said and "\n" not in said and said.isprintable()
        return "refused" if is_fine else f"{FAILED}: said {said!r}"
    except BaseException as error:
        return f"{FAILED}: raised {error!r}"


def whole(path: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, by name."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def model_folder(folder: Path) -> Path:
    described(PointNetClassifier(3, **SMALL)).save_pretrained(folder)
    return folder


def run_folder(folder: Path) -> Path:
    fit(tiny(folder, epochs=2), two_shapes(per_class=6), two_shapes(per_class=2, seed=1), log=quiet)
    return folder
