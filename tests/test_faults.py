"""The campaign of faults in small: all that docs/reliability.md counts still holds."""

import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faults import bits
from benchmarks.faults.__main__ import HEADING, ROWS, line, main, measured, write_line
from benchmarks.faults.pickles import payloads
from benchmarks.faults.trial import FAILED
from tests.helpers import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
# Trials in the quick form and in the long one; mutants have tests of their own.
COUNTS = {"kills": (3, 30), "bits": (20, 200), "disk": (3, 40), "names/terminal": (13, 100), "names/pages": (4, 40)}
COUNTS |= {"caches": (22, 200), "writers": (4, 40), "pickles": (30, 200)}
LONG = (
    "kills/two ranks",
    "disk/train",
    "names/pages",
    "kills/resident",
    "disk/pack",
    "disk/explain",
    "disk/show",
    "disk/report",
    "disk/export",
    "disk/convert",
    "disk/embed",
    "disk/predict",
    "bits/result",
    "bits/metrics",
    "names/terminal",
    "writers/runs",
    "writers/claims",
    "writers/files",
    "kills/stream",
)


pytestmark = pytest.mark.usefixtures("one_thread")


def cases():
    for name in ROWS:
        for begins, (quick, long) in COUNTS.items():
            if name.startswith(begins):
                marks = [pytest.mark.slow] * name.startswith(LONG)
                yield pytest.param(name, quick, marks=marks, id=name)
                yield pytest.param(name, long, marks=pytest.mark.slow, id=f"{name}, long")


@pytest.mark.parametrize(("name", "count"), list(cases()))
def test_every_fault_is_refused_or_mended(name, count):
    found = measured(name, count)
    assert not [outcome for outcome in found if outcome.startswith(FAILED)]
    least = min(count, 16) if name.startswith("disk/") else count  # a command has so many writes at least
    assert least <= found.total() < count + 10


def test_what_does_not_hold_is_counted_and_named(monkeypatch, capsys):
    monkeypatch.setattr(bits, "load_checkpoint", lambda path: path.read_bytes())
    assert main(["--only", "bits/checkpoint.pt", "--count", "3"]) == 1
    said = capsys.readouterr().out
    assert "| bits/checkpoint.pt | a flipped bit | 3 | **3 did not hold** |" in said
    assert len(re.findall(r"^bits/checkpoint.pt: FAILED: bit \d of byte \d+ goes through$", said, re.MULTILINE)) == 3


def test_every_pickle_of_the_campaign_does_what_it_would(tmp_path):
    ran = tmp_path / "ran"
    for malice in payloads(ran):
        pickle.loads(pickle.dumps(malice))
        assert ran.is_dir(), malice.call
        shutil.rmtree(ran)


@pytest.mark.slow
def test_a_command_that_leaves_half_a_file_on_a_full_disk_is_found_out(monkeypatch):
    def write(path: Path, data: bytes, durable: bool = True) -> None:
        path.write_bytes(data)

    monkeypatch.setattr("pointnet.pages.viewer.write_atomically", write)
    assert any("left ['page.html']" in outcome for outcome in measured("disk/explain", 12))


def test_a_row_replaces_its_line_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{HEADING}\n|-|-|-|-|\n\nAfter.\n")
    names = [*ROWS]
    for name in (names[3], names[1], names[3]):
        write_line(page, name, line(name, Counter(fine=1000)))
    lines = page.read_text().splitlines()
    assert [each.split(" | ")[0] for each in lines[4:6]] == [f"| {names[1]}", f"| {names[3]}"]
    assert lines[4].endswith(" | 1,000 | 1,000 fine |")
    assert lines[6:] == ["", "After."]


def test_the_page_has_every_row_as_it_is_measured_today():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.partition(f"{HEADING}\n|-|-|-|-|\n")[2].partition("\n\n")[0]
    shown = [each.strip("| ").split(" | ")[:2] for each in table.splitlines()]
    assert shown == [[name, row.what] for name, row in ROWS.items()]
    assert "did not hold" not in table
