"""The tables of accuracy in docs/benchmarks.md, from the records: `python -m tools.accuracy` writes them."""

import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

PAGE = "benchmarks.md"
# Each table is between these lines of the page; what is there is replaced.
START, END = "<!-- made by python -m tools.accuracy -->", "<!-- until here -->"
COMMAND, DATA = "python train.py ", "--dataset modelnet40 --root ../shared/data/modelnet40_dev"
HEADS = "| overall | mean class | multiply-adds | training | flags |"


class Record(NamedTuple):
    """A run: its name, what it is called, what it is, and what it reached."""

    name: str
    words: str
    network: str
    machine: str
    multiply_adds: int
    seconds: float
    accuracy: float  # per cent
    mean_class: float  # per cent


class Runs(NamedTuple):
    """What one command made: its flags but for the data set's, the title of its section, and a run for each seed."""

    flags: str
    title: str
    records: list[Record]

    @property
    def mean(self) -> float:
        return statistics.fmean(run.accuracy for run in self.records)


def sections(page: str) -> Iterator[tuple[str, list[str], str]]:
    """The title of each section of the page of records, the runs that it names, and the command of each. One without a
    command is of the command before."""
    commands = list[str]()
    for section in page.split("\n## ")[1:]:
        title, text = section.split("\n", 1)
        names = title.split(", ")
        commands = re.findall(rf"^{re.escape(COMMAND)}.*$", text, re.MULTILINE) or commands
        for i, command in enumerate(commands):
            # Several commands are of a run each.
            yield title, names if len(commands) == 1 else names[i : i + 1], command


def runs_of_commands(page: str, records: Sequence[Record]) -> list[Runs]:
    """All of these records by the command that made them. ValueError for one that the page does not name."""
    left, found = {record.name: record for record in records}, []
    for title, names, command in sections(page):
        some = [left.pop(name) for name in names if name in left]
        flags = re.sub(r" --(out|seeds?|test)( (?!--)\S+)+", "", command.removeprefix(COMMAND).replace(DATA, ""))
        if some:
            found.append(Runs(" ".join(flags.split()), title, some))
    if left:
        raise ValueError(f"docs/records/README.md does not name {', '.join(left)}")
    return found


def table(runs: Sequence[Runs]) -> list[str]:
    """Of one network, the best first."""
    rows = []
    for made in sorted(runs, key=lambda each: -each.mean):
        overall = ", ".join(f"**{run.accuracy:.2f} %**" for run in made.records)
        if len(made.records) > 1:
            overall += f" ({made.mean:.2f} ± {statistics.stdev(run.accuracy for run in made.records):.2f})"
        mean_class = ", ".join(f"{run.mean_class:.2f} %" for run in made.records)
        adds = f"{made.records[0].multiply_adds / 1e6:,.0f} M"
        link = f"[{times(made.records)}](records/README.md#{made.title.replace(', ', '-')})"
        rows.append(f"| {overall} | {mean_class} | {adds} | {link} | `{made.flags}` |")
    return [HEADS, "|-|-|-|-|-|", *rows]


def times(records: Sequence[Record]) -> str:
    """The shortest and the longest time of runs on each machine."""
    by_machine: dict[str, list[float]] = {}
    for run in records:
        by_machine.setdefault(run.machine, []).append(run.seconds)
    return "; ".join(f"{span(sorted(seconds))}, {machine}" for machine, seconds in by_machine.items())


def span(seconds: Sequence[float]) -> str:
    unit, name = (1, "s") if seconds[-1] < 100 else (60, "min")
    ends = dict.fromkeys(f"{each / unit:.0f}" for each in (seconds[0], seconds[-1]))
    return f"{' to '.join(ends)} {name}"


def with_tables(page: str, of_records: str, records: Sequence[Record], networks: Sequence[tuple[str, str]]) -> str:
    """The page with the tables of these networks, (name, name in words), from the page of records.

    Raises:
        ValueError: the page has no place for them, or the page of records does not name one.
    """
    if page.count(START) != 1 or END not in page.split(START)[1]:
        raise ValueError(f"docs/{PAGE} has no lines {START} and {END}")
    runs = runs_of_commands(of_records, records)
    by_network = [(words, [each for each in runs if each.records[0].network == name]) for name, words in networks]
    parts = [[f"#### {words}", "", *table(some), ""] for words, some in by_network if some]
    before, rest = page.split(START)
    return "\n".join([f"{before}{START}", "", *chain(*parts), f"{END}{rest.split(END, 1)[1]}"])


def write_tables(docs: Path, records: Sequence[Record], networks: Sequence[tuple[str, str]]) -> None:
    page = docs / PAGE
    of_records = (docs / "records" / "README.md").read_text(encoding="utf-8")
    page.write_text(with_tables(page.read_text(encoding="utf-8"), of_records, records, networks), encoding="utf-8")
