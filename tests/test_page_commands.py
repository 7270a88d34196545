"""The commands of README.md and of docs/, run in the order they stand there, in a folder with small data.

They are shortened: training takes one epoch of few points per cloud, narrow networks and few steps, and Shapes has two
shapes per class. Nothing is installed here.
"""

import shlex
import shutil
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.datasets import shapes
from tests.helpers import ROOT
from tests.readers import PAGES, commands_of, reader_folder
from tools import ablation

SHORT = ["--epochs", "1", "--num_points", "32", "--early_points", "0", "--batch_size", "8", "--min_steps", "1"]
SHORT += ["--device", "cpu"]
NARROW = ["--width", "0.1", "--tnet_width", "0.1"]
ELSEWHERE = {  # what other tests run
    "pip install ": ".ci/run",
    "python -m benchmarks.": "tests/test_benchmarks.py",
    "python -m pytest ": "the tests themselves",
    "python -m tools.development_split ": "tests/test_development_split.py",
    "python my_": "tests/test_extending.py",
    "OMP_NUM_THREADS=1 KILLS=200 ": "tests/test_stopping.py",
    "python -m tests.mutations": "tests/test_proof.py, law by law",
    "python -m tools.accuracy": "tests/test_accuracy_figure.py",
    "python -m tools.figures": "tests/test_conversions.py",
    "torchrun ": "tests/test_world.py, two processes",
    "tensorboard ": "nothing: it is TensorBoard's server",
}
OWN_TESTS = {"docs/labels.md": "tests/test_labels_page.py", "docs/tour.md": "tests/test_tour.py"}


def commands(page: str) -> list[str]:
    return [line for line in commands_of(page) if not line.startswith(tuple(ELSEWHERE))]


HERE = [page for page in PAGES if page not in OWN_TESTS and commands(page)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    folder = reader_folder(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(shapes, "COUNTS", {"train": 2, "test": 2})
    return folder


def shortened(words: list[str]) -> list[str]:
    """The words of a training command, without --tensorboard where that is not installed, and without teachers that no
    section of the page has trained before."""
    kept = [word for word in words if word != "--tensorboard" or find_spec("tensorboard")]
    taught, alone = with_and_without(kept, "--teacher")
    if not all(Path(teacher).is_dir() for teacher in taught):
        kept = with_and_without(alone, "--distill")[1]
    kept = with_and_without(kept, "--early_share")[1]  # there are no early points
    return [*kept, *([] if "--resume" in words else SHORT if "--init" in words else SHORT + NARROW)]


def with_and_without(words: list[str], flag: str) -> tuple[list[str], list[str]]:
    """The values of a flag, and the words without both."""
    if flag not in words:
        return [], words
    at = words.index(flag)
    values = list(takewhile(lambda word: not word.startswith("-"), words[at + 1 :]))
    return values, words[:at] + words[at + 1 + len(values) :]


def run(line: str) -> int:
    """The exit code of a command; what an earlier section of the page left at --out makes way."""
    _, *words = shlex.split(line)
    if "train.py" in words and "--out" in words and "--resume" not in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    if words[0] == "train.py":
        return train.main(shortened(words[1:]))
    if words[1] == "tools.ablation":
        return ablation.main([*shortened(words[2:]), "--seeds", "0"])
    assert words[:2] == ["-m", "pointnet"], line
    return command_line.main(words[2:])


def test_the_commands_that_are_quick(place, capsys):
    lines = [*commands("README.md"), *commands("docs/files.md")]
    quick = [line for line in lines if "data/samples/files" in line or "scan.txt" in line]
    assert len(quick) >= 4
    for line in quick:
        assert run(line) == 0, line
    printed = capsys.readouterr().out
    assert "unsure: its points fill space, as noise does" in printed
    assert (place / "labels" / "parts.html").is_file()


def test_what_runs_elsewhere_is_there():
    files = [text for text in (*ELSEWHERE.values(), *OWN_TESTS.values()) if " " not in text]
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert len(HERE) >= 6  # README.md, benchmarks, extending, files, records, training


def test_the_tests_that_a_page_runs_are_there():
    lines = [line.split() for page in PAGES for line in commands_of(page) if " -m pytest " in line]
    assert len(lines) >= 2
    for words in lines:
        (file,) = (word for word in words if word.startswith("tests/"))
        text = (ROOT / file).read_text(encoding="utf-8")
        assert words[-1] == file or f"def test_{words[-1]}" in text


@pytest.mark.parametrize("page", HERE)
def test_the_training_commands_of_a_page_are_accepted(page):
    lines = [line.partition(" train.py ")[2] for line in commands_of(page) if " train.py " in line]
    for words in map(shlex.split, lines):
        assert "--resume" in words or parse_command(words).config


@pytest.mark.slow
@pytest.mark.parametrize("page", HERE)
def test_the_commands_of_a_page_run_in_order(page, place):
    for line in commands(page):
        assert run(line) == 0, line
