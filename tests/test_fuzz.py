"""Damaged files of every format are read or refused: no crash, no hang, no other error, no greed."""

import subprocess

import pytest

from pointnet.points.read import PointCloudFileError
from tests import mutants
from tests.forms import forms
from tests.mutants import WITH_TORCH, mutant, outcome_of, read_mutants
from tests.whole_files import FORMATS


@pytest.mark.parametrize("count", forms([10, 400], 10))
@pytest.mark.parametrize("kind", forms(FORMATS, *(FORMATS.keys() - {*WITH_TORCH, "LAZ"})))
def test_every_mutant_is_read_or_refused(kind, count):
    report = read_mutants(kind, count)
    assert not report.failures
    assert report.read + report.refused == count
    assert min(report.read, report.refused) >= 3 * count // 120, "mutants that are all alike test nothing"


def test_a_reader_that_errs_is_greedy_or_kills_its_process_is_a_failure(tmp_path, monkeypatch):
    def greedy(kind, path):
        try:
            raise MemoryError
        except MemoryError as error:
            raise PointCloudFileError(path, "greedy") from error

    monkeypatch.setattr(mutants, "read", lambda kind, path: [][1])
    assert outcome_of("NPY", tmp_path).startswith("raised IndexError")
    monkeypatch.setattr(mutants, "read", greedy)
    assert outcome_of("NPY", tmp_path).startswith("took too much memory")
    died = subprocess.CompletedProcess([], -14, '"read"\n', "")
    monkeypatch.setattr(mutants.subprocess, "run", lambda command, **settings: died)
    assert read_mutants("NPY", 2).failures == ["NPY mutant 1: child ended with -14 "]


def test_a_mutant_is_always_the_same():
    assert mutant("PLY", 7) == mutant("PLY", 7) != mutant("PLY", 11)
