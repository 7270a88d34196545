"""docs/tour.ipynb, made of docs/tour.md: prose as text, commands and Python as cells.

Run `python -m tools.tour` after each change of the page.
"""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGE, NOTEBOOK = DOCS / "tour.md", DOCS / "tour.ipynb"
GO_UP = """\
import os

if os.path.basename(os.getcwd()) == "docs":  # Jupyter starts where the notebook is; the commands run one folder up
    os.chdir("..")"""


def as_cell(command: str) -> str:
    """A shell command as a notebook runs it."""
    return f"%{command}" if command.startswith("pip ") else f"!{command}"


def sources_of(page: str) -> list[tuple[str, str]]:
    """The cells of a page in order: their type and their text."""
    found = []
    for prose, language, block in re.findall(r"(.*?)(?:^```(\w+)\n(.*?)\n```$|\Z)", page, re.DOTALL | re.MULTILINE):
        if prose.strip():
            found.append(("markdown", prose.strip()))
        if language == "bash":
            found.append(("code", "\n".join(map(as_cell, block.splitlines()))))
        elif language == "python":
            found.append(("code", block))
        elif language:
            found.append(("markdown", f"```{language}\n{block}\n```"))
    first = next(i for i, (kind, _) in enumerate(found) if kind == "code")
    return [*found[:first], ("code", GO_UP), *found[first:]]


def notebook_of(page: str) -> str:
    """The file of a notebook, in Jupyter's format 4.5, not run yet."""
    cells: list[dict[str, Any]] = []
    for i, (kind, text) in enumerate(sources_of(page)):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": text.splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook_of(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
