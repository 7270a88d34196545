"""Damaged files of every format are read or refused: no crash, no hang, no other error, no greed."""

import subprocess
import sys

import pytest

from tests import mutants
from tests.mutants import mutant, read_mutants
from tests.whole_files import FORMATS


@pytest.mark.parametrize("count", [120, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_mutant_is_read_or_refused(kind, count):
    report = read_mutants(kind, count)
    assert not report.failures
    assert report.read + report.refused == count
    assert min(report.read, report.refused) >= 3 * count // 120, "mutants that are all alike test nothing"


@pytest.mark.parametrize(
    ("sabotage", "seen"),
    [
        ("os.abort()", "child ended with -6"),
        ("signal.alarm(1), time.sleep(9)", "child ended with -14"),
        ("[][1]", "raised IndexError"),
        ("np.zeros(210_000_000, np.uint8).sum()", "took too much memory"),
        ("open('/dev/null').close()", "opened {'/dev/null'}"),
    ],
)
def test_the_child_tells_what_a_reader_does_wrong(monkeypatch, sabotage, seen):
    """The reader of NPY is replaced, in the child, once the whole files have been read."""
    code = f"""
import os, signal, sys, time
import numpy as np
from pointnet.points import read as points
from tests import mutants

whole, calls = points.read_cloud, []

def read_cloud(path):
    calls.append(path)
    if len(calls) == 3:
        try:
            {sabotage}
        except MemoryError as error:
            raise points.PointCloudFileError(path, "greedy") from error
    return whole(path)

points.read_cloud = read_cloud
mutants.main("NPY", *map(int, sys.argv[-2:]))
"""
    start = subprocess.run

    def run(command, **settings):
        return start([sys.executable, "-c", code, *command[-2:]], **settings)

    monkeypatch.setattr(mutants.subprocess, "run", run)
    report = read_mutants("NPY", 4)
    assert any(seen in failure for failure in report.failures), report


def test_a_mutant_is_always_the_same():
    assert mutant("PLY", 7) == mutant("PLY", 7) != mutant("PLY", 11)
