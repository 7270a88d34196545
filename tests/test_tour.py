"""The cells of docs/tour.ipynb, which are the commands of docs/tour.md, run in the order they stand there.

To be quick, training takes one epoch of few points per cloud (`QUICK`, all flags of train.py), Shapes has two shapes
per class, and the export waits for --slow. Packages are not installed here. Python runs in one set of names, as in a
notebook, and commands in this process.
"""

import contextlib
import io
import json
import shlex
import shutil
import traceback

import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.datasets import shapes
from tests.helpers import QUICK, ROOT
from tools import tour

CELLS = json.loads(tour.NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def steps() -> list[str]:
    """Each shell command and each cell of Python, in order."""
    found = []
    for cell in CELLS:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found += text.splitlines() if text[0] in "!%" else [text]
    return found


def is_pip(step: str) -> bool:
    return step.startswith("%pip ")


def is_slow(step: str) -> bool:
    """Whether the step exports a model or runs one; tests/test_export.py does both with a smaller one."""
    return "onnx" in step and not is_pip(step)


def call(step: str, names: dict) -> int:
    """The exit code of a step of the tour, whose Python sees these names and adds to them."""
    if step.startswith("!python train.py "):
        of_encoder = QUICK.index("--width")  # from there on; that of --init has its own
        return train.main([*shlex.split(step)[2:], *(QUICK[:of_encoder] if "--init" in step else QUICK)])
    if step.startswith("!python -m pointnet "):
        return command_line.main(shlex.split(step)[3:])
    exec(compile(step, "docs/tour.ipynb", "exec"), names)
    return 0


@pytest.fixture(scope="module")
def walked(tmp_path_factory, request) -> dict[str, tuple[int, str]]:
    """Exit code and output of each step, run one after another in a folder with the samples."""
    place, outcomes, names = tmp_path_factory.mktemp("tour"), {}, {}
    shutil.copytree(ROOT / "data" / "samples", place / "data" / "samples")
    (place / "docs").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "docs")  # where Jupyter starts
        patch.setattr(shapes, "COUNTS", {"train": 2, "test": 2})
        for step in steps():
            if is_pip(step) or (is_slow(step) and not request.config.getoption("--slow")):
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                try:
                    code = call(step, names)
                except (Exception, SystemExit):  # the steps behind it are taken all the same
                    code = 1
                    traceback.print_exc()
            outcomes[step] = code, printed.getvalue()
    return outcomes


TAKEN = [pytest.param(step, marks=pytest.mark.slow) if is_slow(step) else step for step in steps() if not is_pip(step)]


@pytest.mark.parametrize("step", TAKEN, ids=lambda step: step.splitlines()[0])
def test_a_step_of_the_tour_can_be_taken(step, walked):
    code, printed = walked[step]
    assert code == 0, printed
    assert printed or not step.startswith("!")


def test_the_notebook_is_the_page():
    page = tour.PAGE.read_text(encoding="utf-8")
    assert tour.NOTEBOOK.read_text(encoding="utf-8") == tour.notebook_of(page), "run python -m tools.tour"
    text = "".join("".join(cell["source"]) for cell in CELLS).replace("!python ", "python ").replace("%pip ", "pip ")
    lost = [line for line in page.splitlines() if line not in text and line not in ("```", "```bash", "```python")]
    assert lost == []
