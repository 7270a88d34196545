"""The page that explains shared MLPs and PointNet: nine scenes, one file, computed by the scripts in it.

`explain.html` holds the words, each `explain_*.js` a piece of what the page computes, `explain_proof.json` the table of
docs/proof.md. `python -m docs.explain` makes the page of the documentation.
"""

import json
from pathlib import Path
from typing import cast

from pointnet.files import AnyPath
from pointnet.models import PointNetClassifier, load_model

from .explain_weights import packed
from .viewer import fill, script_json, write_html

WEIGHTS = "pointnet_shapes"
FOLDER = Path(__file__).parent
WORDS, STYLE, PROOF = (FOLDER / f"explain{end}" for end in (".html", ".css", "_proof.json"))
SCRIPTS = [FOLDER / f"explain_{name}.js" for name in "maths page files network cloud layers points pointnet".split()]
TITLE = "See it: shared MLPs and PointNet"
NOTES = (
    "What slides in a convolution, why a 1×1 convolution is a small network used at every pixel, "
    "and how PointNet is made of it.\nNine scenes; each asks first. Everything is computed in this page, offline."
)
FIGURES = {"outputs": "784", "dense": "614,656", "in_place": "784", "seen": "9"}


def write_explanation(path: AnyPath) -> None:
    """Writes the page, one HTML file that requests nothing. The folder is made.

    Raises:
        OSError: the file cannot be written.
    """
    proof = json.loads(PROOF.read_text(encoding="utf-8"))
    body = fill(
        WORDS,
        network=script_json(packed(cast(PointNetClassifier, load_model(WEIGHTS)))),
        proof=script_json(proof),
        faults=str(len(proof["rows"])),
        script="".join(script.read_text(encoding="utf-8") for script in SCRIPTS),
        **FIGURES,
    )
    write_html(path, TITLE, NOTES, f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n{body}")
