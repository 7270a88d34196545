"""The commands of docs/tour.md, run in the order they stand there.

To be quick, training takes one epoch of few points a cloud (`SHORTER`, all flags of train.py), and Shapes holds two
shapes a class. What installs packages is not run here, but by whoever runs these tests.
"""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

import train
from pointnet import __main__ as command_line
from pointnet.datasets import shapes

ROOT = Path(__file__).parents[1]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
SHORTER = ["--epochs", "1", "--num_points", "64", "--early_points", "0", "--batch_size", "8", "--device", "cpu"]


def steps() -> list[str]:
    """Each line of shell, and each block of Python, in order."""
    found = []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", TOUR, re.DOTALL):
        found += block.splitlines() if language == "bash" else [block]
    return found


def call(step: str) -> int:
    """The exit code of a step of the tour."""
    if step.startswith("python train.py "):
        return train.main([*shlex.split(step)[2:], *SHORTER])
    if step.startswith("python -m pointnet "):
        return command_line.main(shlex.split(step)[3:])
    exec(compile(step, "docs/tour.md", "exec"), {})
    return 0


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """What came of each step, taken one after another where the samples are: its exit code, and what it printed."""
    place, outcomes = tmp_path_factory.mktemp("tour"), {}
    shutil.copytree(ROOT / "data" / "samples", place / "data" / "samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(shapes, "COUNTS", {"train": 2, "test": 2})
        for step in filter(lambda step: not step.startswith("pip "), steps()):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                code = call(step)
            outcomes[step] = code, printed.getvalue()
    return outcomes


@pytest.mark.parametrize("step", steps(), ids=lambda step: step.splitlines()[0])
def test_a_step_of_the_tour_can_be_taken(step, request):
    if step.startswith("pip "):
        folder, extras = re.fullmatch(r"pip install -c constraints.txt -e '(\.)\[([\w,]+)\]'", step).groups()
        described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(f"\n{extra} = [" in described for extra in extras.split(","))
        return
    code, printed = request.getfixturevalue("walked")[step]
    assert code == 0, printed
    assert printed or not step.startswith("python ")


def test_the_tour_goes_all_the_way():
    words = [
        "pip install",
        "pointnet predict",
        "dataset shapes",
        "dataset folder",
        "pointnet report",
        "pointnet export",
    ]
    places = [next(i for i, step in enumerate(steps()) if word in step) for word in words]
    assert places == sorted(places)
    assert len([step for step in steps() if step.startswith("python ")]) >= 9
