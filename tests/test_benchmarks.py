"""The benchmarks run, in small: what they print is for a quiet machine to say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "flags", "row"),
    [
        ("training_step", "--batch_size 4 --num_points 64", r"\| kept \| fp32 \| ours \| [\d.]+ \|"),
        (
            "epoch",
            "--clouds 8 --batch_size 4",
            r"\| \+ freed memory kept, as in `train.py` \| [\d.]+ \| [\d,]+ \| [\d.]+ \|",
        ),
        ("inference", "--stream 20000", r"\| 20,000 \| [\d.]+ \|"),
        ("spellings", "--sizes 2x3x4x5", r"\| `Linear` on \(B, N, C\) \| [*\d.]+ / [*\d.]+ \|"),
        ("data", "--repeat 1", r"\| ours, into the cache \| [\d.]+ \| [\d,]+ \| [\d.]+ \|"),
        ("memory", "--sizes 2x64 2x128", r"\| 2 x 128 \| [\d,]+ \| [\d,]+ \|"),
    ],
)
def test_a_benchmark_checks_equality_and_prints_its_table(module, flags, row):
    command = [sys.executable, "-m", f"benchmarks.{module}", "--rounds", "1", "--threads", "1", *flags.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(row, done.stdout), done.stdout


def test_the_fuzzer_prints_its_table():
    command = [sys.executable, "-m", "benchmarks.fuzz", "--mutants", "5", "--formats", "NPY"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"\| NPY \| 5 \| \d \| \d \| [\d.]+ s \| \d+ MB \|\nNo crash", done.stdout), done.stdout
