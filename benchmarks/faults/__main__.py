"""Faults of every kind, at full counts: what was done, how often, and how it ended: docs/reliability.md.

python -m benchmarks.faults [--only kills bits/weights ...] [--count N] [--page docs/reliability.md]

Each row is measured alone, and replaces its line in the page's table, so that an interrupted campaign goes on with
--only. Everything is seeded. The exit code is 1 if anything did not hold.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tests.mutants import read_mutants
from tests.whole_files import FORMATS

from .bits import WRITTEN, bits
from .caches import caches
from .disks import COMMANDS, disk
from .kills import kills
from .names import pages, terminal
from .pickles import pickles
from .trial import FAILED, Trials
from .writers import claiming, claims, fits, writing


class Row(NamedTuple):
    """A line of the table."""

    what: str  # is done in each trial
    count: int  # of trials at full count; 0: one for each write
    trials: Callable[[int, Path], Trials]


def mutants(kind: str, count: int, folder: Path) -> Trials:
    """Damages a file of a format, mostly where it counts, and reads it in ten times its size and 200 MB."""
    found = read_mutants(kind, count)
    yield from ["read"] * found.read + ["refused"] * found.refused
    yield from (f"{FAILED}: {failure}" for failure in found.failures)


ROWS = {
    "kills/resident": Row("`kill -9` of training, at any moment", 200, partial(kills, "resident", 1)),
    "kills/stream": Row("the same, its clouds loaded as they are needed", 200, partial(kills, "stream", 1)),
    "kills/two ranks": Row("the same of one of two processes", 200, partial(kills, "resident", 2)),
    **{f"bits/{kind}": Row("a flipped bit", 1000, partial(bits, kind)) for kind in WRITTEN},
    **{f"disk/{name}": Row(f"`{name}`, the disk full or read-only", 0, partial(disk, name)) for name in COMMANDS},
    **{f"mutants/{kind}": Row("a damaged file", 10_000, partial(mutants, kind)) for kind in FORMATS},
    "names/terminal": Row("control characters in names of files, folders, classes, words", 1000, terminal),
    "names/pages": Row("markup and scripts in the names that pages show", 1000, pages),
    "caches": Row("something else in the place of a cached file", 1000, caches),
    "writers/claims": Row("three processes claim a run folder at once", 200, partial(claiming, claims, 3)),
    "writers/runs": Row("two runs begin in one folder at once", 100, partial(claiming, fits, 2)),
    "writers/files": Row("four processes write a file, or a cache, at once", 200, writing),
    "pickles": Row("a pickle that calls a function, in the place of any file", 1000, pickles),
}
HEADING = "| row | what was done, each time | times | how it ended |"


def measured(name: str, count: int | None = None) -> Counter[str]:
    """What came of the trials of a row, and how often."""
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        return Counter(row.trials(row.count if count is None else count, Path(folder).resolve()))


def line(name: str, found: Counter[str]) -> str:
    """The row as a line of the table."""
    failed = sum(number for outcome, number in found.items() if outcome.startswith(FAILED))
    kinds = {outcome: number for outcome, number in found.items() if not outcome.startswith(FAILED)}
    came = "; ".join(f"{number:,} {outcome}" for outcome, number in sorted(kinds.items()))
    wrong = f"**{failed:,} did not hold**" if failed else ""
    return f"| {name} | {ROWS[name].what} | {found.total():,} | {'; '.join(filter(None, [wrong, came]))} |"


def write_line(page: Path, name: str, text: str) -> None:
    """Replaces the row's line in the page's table, which is in the order of `ROWS`."""
    before, heading, after = page.read_text(encoding="utf-8").partition(f"{HEADING}\n|-|-|-|-|\n")
    assert heading, f"{page} has no table with the heading {HEADING}"
    rows = list(takewhile(lambda each: each.startswith("|"), after.splitlines()))
    lines = {each.split("|")[1].strip(): each for each in rows} | {name: text}
    made = [lines[each] for each in ROWS if each in lines]
    rest = "".join(after.splitlines(keepends=True)[len(rows) :])
    page.write_text(before + heading + "".join(f"{each}\n" for each in made) + rest, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--only", nargs="+", default=[""], help=f"rows, or what they begin with, of: {', '.join(ROWS)}")
    flags.add_argument("--count", type=int, help="trials of each row, in place of its full count")
    flags.add_argument("--page", type=Path, help="the page whose table gets the rows")
    args = flags.parse_args(arguments)
    chosen = [name for name in ROWS if name.startswith(tuple(args.only))]
    failures: list[str] = []
    print(f"{HEADING}\n|-|-|-|-|")
    for name in chosen:
        found = measured(name, args.count)
        failures += [f"{name}: {outcome}" for outcome in found if outcome.startswith(FAILED)]
        print(line(name, found), flush=True)
        if args.page:
            write_line(args.page, name, line(name, found))
    print("\n".join(failures) or "Everything held.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
