"""A page of rotatable point clouds: a single HTML file that any browser shows, and that requests nothing.

`page.html` is the frame of every page: head and styles, light and dark. `viewer.html` is the viewer and its script.
"""

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointnet.files import AnyPath, write_atomically
from pointnet.points.cloud import PointCloud
from pointnet.points.colours import PALETTE

from .charts import PAGE, STYLE

VIEWER = Path(__file__).with_name("viewer.html")
DIGITS = 4  # of a coordinate, below the size of the cloud: finer than a screen can show
MOST_POINTS, MOST_CLOUDS = 20_000, 60  # of one cloud, and clouds on a page, where both come from files
LEAST_SPREAD = 1e-300  # below it no digit is rounded away


class View(NamedTuple):
    """One cloud of a page, coloured by its labels, else by its colors, else by height.

    name, the caption, label_names, answer and notes may be any text; a label beyond its names is shown as its number.
    """

    name: str
    points: NDArray[Any]  # (N, 3), z up; those that are not finite are left out
    labels: NDArray[Any] | None = None  # (N,) integers
    label_names: Sequence[str] = ()
    colors: NDArray[Any] | None = None  # (N, 3), red, green and blue from 0 to 1
    critical: NDArray[Any] | None = None  # (N,) bool; these points stand out and the others fade
    answer: str = ""  # the model's answer, also shown beneath the thumbnail
    notes: Sequence[str] = ()  # lines beneath that
    sure: bool = True  # else the answer is marked


def file_view(name: str, cloud: PointCloud, label_names: Sequence[str] = (), notes: Sequence[str] = ()) -> View:
    """A cloud of a file, thinned to `MOST_POINTS`."""
    count = len(cloud.points)
    kept: slice | NDArray[np.int64] = slice(None)
    if count > MOST_POINTS:
        name += f" ({MOST_POINTS:,} of {count:,} points)"
        kept = np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))
    labels, colors = (None if column is None else column[kept] for column in (cloud.labels, cloud.colors))
    return View(name, cloud.points[kept], labels, label_names, colors, notes=notes)


def write_page(path: AnyPath, views: Sequence[View], title: str, notes: str = "") -> None:
    """Writes one HTML file with a large scene of one cloud, and thumbnails to choose it by.

    The file is complete, and its content security policy forbids any request. `page.html#3` opens at the third cloud.
    The folder is made.

    Raises:
        ValueError: a view without a finite point.
        OSError: the file cannot be written.
    """
    write_html(path, title, notes, viewer(views))


def viewer(views: Sequence[View]) -> str:
    """The scene and its thumbnails as HTML; a page can hold them once."""
    return fill(VIEWER, palette=script_json(PALETTE), views=script_json([_view_data(view) for view in views]))


def write_html(path: AnyPath, title: str, notes: str, body: str) -> None:
    """Writes a page: a title and notes, which are any text, then the body, which is HTML. The folder is made."""
    style = STYLE.read_text(encoding="utf-8")
    page = fill(PAGE, charts=style, title=html.escape(title), notes=html.escape(notes), body=body)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode("utf-8", "replace"))


def fill(template: Path, **values: str) -> str:
    """The template with its placeholders replaced, in one pass: no inserted text is searched for placeholders."""
    return re.sub(r"{{(\w+)}}", lambda match: values[match[1]], template.read_text(encoding="utf-8"))


def script_json(data: object) -> str:
    """JSON that is safe inside a <script>: without "<", no string can end the element or open another."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _view_data(view: View) -> dict[str, Any]:
    """A view as the object that `viewer.html` reads."""
    finite = np.isfinite(view.points).all(1)
    if not finite.any():
        raise ValueError(f"{view.name}: has no point whose coordinates are finite")
    points = view.points[finite].astype(np.float64)
    spread = float(np.ptp(points, axis=0).max()) or float(np.abs(points).max())
    if spread >= LEAST_SPREAD:  # along the widest axis, however far the origin is
        points = np.round(points, DIGITS - math.floor(math.log10(spread)))
    data: dict[str, Any] = {"name": view.name, "points": points.reshape(-1).tolist()}
    if view.answer or view.notes:
        data |= {"answer": view.answer, "notes": [*view.notes], "unsure": not view.sure}
    if view.labels is not None:
        data["labels"] = view.labels[finite].tolist()
        known = range(len(view.label_names))
        data["names"] = {label: view.label_names[label] for label in sorted(set(data["labels"])) if label in known}
    elif view.colors is not None:
        scaled = np.rint(np.nan_to_num(view.colors[finite]) * 255)
        data["rgb"] = scaled.clip(0, 255).astype(np.uint8).tobytes().hex()
    if view.critical is not None:
        data["critical"] = np.flatnonzero(view.critical[finite]).tolist()
    return data
