"""The page that explains shared MLPs and PointNet: nine scenes, one file, computed by the scripts in it.

`explain.html` holds the words, each `explain_*.js` a piece of what the page computes, `explain_proof.json` the table of
docs/proof.md. `python -m docs.explain` makes the page of the documentation.
"""

import json
import re
from pathlib import Path
from typing import Any, cast

from pointnet.files import AnyPath
from pointnet.models import PointNetClassifier, load_model

from .explain_weights import packed
from .viewer import fill, script_json, write_html

WEIGHTS = "pointnet_shapes"
FOLDER = Path(__file__).parent
WORDS, STYLE, PROOF = (FOLDER / f"explain{end}" for end in (".html", ".css", "_proof.json"))
PARTS = "maths page draw files network cloud layers points tnet pointnet faults"
SCRIPTS = [FOLDER / f"explain_{name}.js" for name in PARTS.split()]
TITLE = "See it: shared MLPs and PointNet"
NOTES = (
    "What slides in a convolution, why a 1×1 convolution is a small network used at every pixel, "
    "and how PointNet is made of it.\nMLP: multi-layer perceptron, a few dense layers. Nine scenes; each asks first, "
    "and shows when you have guessed. Scenes 1 to 8 are computed in this page, offline, 7 and 8 with weights trained "
    "before; scene 9 shows a stored table."
)
SIDE, POINTS = 28, 1024  # of the picture in pixels, and of a cloud; the scripts have them too


def write_explanation(path: AnyPath, linked: bool = False) -> None:
    """Writes the page, one HTML file that requests nothing. The folder is made.

    linked: the tests it names are links to their files, which are right in docs/ only.

    Raises:
        OSError: the file cannot be written.
    """
    proof = json.loads(PROOF.read_text(encoding="utf-8"))
    network = packed(cast(PointNetClassifier, load_model(WEIGHTS)))
    body = fill(
        WORDS,
        network=script_json(network),
        proof=script_json(proof),
        script="".join(script.read_text(encoding="utf-8") for script in SCRIPTS),
        **_figures(network, proof),
    )
    body = re.sub(r"<test>(tests/\w+\.py)::(\w+)</test>", _linked if linked else _named, body)
    write_html(path, TITLE, NOTES, f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n{body}")


def _named(test: re.Match[str]) -> str:
    """A test's name; it may be broken at underscores."""
    file, name = test.groups()
    return f"<code>{file}::{name.replace('_', '_<wbr>')}</code>"


def _linked(test: re.Match[str]) -> str:
    """A test's name as a link to its file, from docs/."""
    return f'<a href="../{test[1]}">{_named(test)}</a>'


def _figures(network: dict[str, Any], proof: dict[str, Any]) -> dict[str, str]:
    """The numbers of the words, by the name they have there."""
    pixels, layers, shared = SIDE**2, network["layers"], network["shared"]
    column, answer = (sum(rows * columns for rows, columns in part) for part in (layers[:shared], layers[shared:]))
    widths = [layers[0][1], *(rows for rows, _ in layers)]
    caught = {title: laws for title, laws, _ in proof["rows"]}
    figures = {
        "pixels": pixels, "patches": 3**2 * pixels, "dense": pixels**2, "seen": 1 + 4 * 2,
        "points": POINTS, "width": widths[shared], "classes": widths[-1], "features": widths[2],
        "laws": len(proof["laws"]), "faults": len(caught), "kernel_caught": len(caught["kernel of 3 points"]),
    }  # fmt: skip
    work = {"again": column + answer, "whole": POINTS * column + answer, "column": column, "answer": answer}
    chains = {"shared": widths[: shared + 1], "head": widths[shared:]}
    return (
        {name: f"{number:,}" for name, number in figures.items()}
        | {name: f"{number / 1e6:.1f}" for name, number in work.items()}
        | {"k": f"{1 / network['temperature']:.2f}", "plain": "".join(f"<li>{law}</li>" for law in proof["plain"])}
        | {name: " → ".join(f"{width:,}" for width in chain) for name, chain in chains.items()}
    )
