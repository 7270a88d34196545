"""A page of rotatable point clouds: a single HTML file that any browser shows, and that requests nothing.

`page.html` is the frame of every page: head and styles, light and dark. `viewer.html` is the viewer and its script.
"""

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointnet.files import AnyPath, write_atomically
from pointnet.points.cloud import PointCloud
from pointnet.points.colours import PALETTE

from .charts import PAGE, STYLE

VIEWER = Path(__file__).with_name("viewer.html")
DIGITS = 4  # of a coordinate, relative to the size of the cloud: finer than a screen can show
MOST_POINTS, MOST_CLOUDS = 20_000, 60  # of one cloud, and clouds on a page, where both come from files
LEAST_SPREAD = 1e-300  # below it no digit is rounded away


@dataclass(frozen=True, eq=False)
class View:
    """One cloud of a page, and how its points are coloured: by height, unless one of values, labels, colors is given.

    Args:
        name: the caption; any text.
        points: (N, 3) numbers, z up.
        values: (N,) numbers, shown on a ramp; those that are not finite are grey.
        values_name: the name of the values.
        labels: (N,) integers, a colour each.
        label_names: the labels' names, by label; a label beyond them is shown as its number.
        colors: (N, 3), red, green and blue: integers from 0 to 255, or floats from 0 to 1.
        highlight: (N,) bool; these points stand out and the others fade.
        highlight_name: the name of the highlighted points.

    Raises:
        ValueError: another shape, no points, points that are not finite, or more than one way to colour them.
    """

    name: str
    points: NDArray[Any]
    values: NDArray[Any] | None = None
    values_name: str = "value"
    labels: NDArray[Any] | None = None
    label_names: Sequence[str] = ()
    colors: NDArray[Any] | None = None
    highlight: NDArray[Any] | None = None
    highlight_name: str = "highlighted"

    def __post_init__(self) -> None:
        points = np.asarray(self.points)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ValueError(f"view '{self.name}': points must be (N, 3) with N >= 1, got {points.shape}")
        if broken := int((~np.isfinite(points).all(1)).sum()):
            raise ValueError(f"view '{self.name}': {broken:,} of {len(points):,} points are not finite")
        for field, tail in (("values", ()), ("labels", ()), ("colors", (3,)), ("highlight", ())):
            given, wanted = getattr(self, field), (len(points), *tail)
            if given is not None and np.shape(given) != wanted:
                raise ValueError(f"view '{self.name}': {field} must be {wanted}, got {np.shape(given)}")
        if sum(given is not None for given in (self.values, self.labels, self.colors)) > 1:
            raise ValueError(f"view '{self.name}': give one of values, labels and colors, not several")


def file_view(name: str, cloud: PointCloud, label_names: Sequence[str] = ()) -> View:
    """A cloud of a file, thinned to `MOST_POINTS`, coloured by its labels or its colours."""
    count = len(cloud.points)
    kept = np.arange(count)
    if count > MOST_POINTS:
        name += f" ({MOST_POINTS:,} of {count:,} points)"
        kept = np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))
    if cloud.labels is not None:
        return View(name, cloud.points[kept], labels=cloud.labels[kept], label_names=label_names)
    return View(name, cloud.points[kept], colors=None if cloud.colors is None else cloud.colors[kept])


def write_page(path: AnyPath, views: Sequence[View], title: str, notes: str = "") -> None:
    """Writes one HTML file with a large scene of one cloud, and thumbnails to choose it by.

    The file is complete, and its content security policy forbids any request. `page.html#3` opens at the third cloud.
    The folder is made.

    Raises:
        ValueError: no views.
        OSError: the file cannot be written.
    """
    write_html(path, title, notes, viewer(views))


def viewer(views: Sequence[View]) -> str:
    """The scene and its thumbnails as HTML; a page can hold them once. ValueError without views."""
    if not views:
        raise ValueError("a page needs at least one view, got none")
    return _fill(VIEWER, palette=_json(PALETTE), views=_json([_view_data(view) for view in views]))


def write_html(path: AnyPath, title: str, notes: str, body: str) -> None:
    """Writes a page: a title and notes, which are any text, then the body, which is HTML. The folder is made."""
    style = STYLE.read_text(encoding="utf-8")
    page = _fill(PAGE, charts=style, title=html.escape(title), notes=html.escape(notes), body=body)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode("utf-8", "replace"))


def _fill(template: Path, **values: str) -> str:
    """The template with its placeholders replaced, in one pass: no inserted text is searched for placeholders."""
    return re.sub(r"{{(\w+)}}", lambda match: values[match[1]], template.read_text(encoding="utf-8"))


def _json(data: object) -> str:
    """JSON that is safe inside a <script>: without "<", no string can end the element or open another."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _view_data(view: View) -> dict[str, Any]:
    """A view as the object that `viewer.html` reads."""
    data: dict[str, Any] = {"name": str(view.name), "points": _rounded(view.points).reshape(-1).tolist()}
    if view.values is not None:
        values = np.asarray(view.values, dtype=np.float64)
        kept = np.isfinite(values)
        values[kept] = _rounded(values[kept])
        data["values"] = [v if ok else None for v, ok in zip(values.tolist(), kept.tolist(), strict=True)]
        data["values_name"] = view.values_name
    if view.labels is not None:
        data["labels"] = [int(label) for label in view.labels]
        known = range(len(view.label_names))
        data["names"] = {label: str(view.label_names[label]) for label in sorted(set(data["labels"])) if label in known}
    if view.colors is not None:
        colors = np.asarray(view.colors)
        scaled = colors if colors.dtype.kind in "iu" else np.nan_to_num(colors) * 255
        data["rgb"] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).tobytes().hex()
    if view.highlight is not None:
        data["highlight"] = np.flatnonzero(view.highlight).tolist()
        data["highlight_name"] = view.highlight_name
    return data


def _rounded(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers rounded to `DIGITS` digits below their spread along the widest axis, however far the origin is."""
    numbers = np.asarray(numbers, dtype=np.float64)
    if numbers.size == 0:
        return numbers
    spread = float((numbers.max(0) - numbers.min(0)).max()) or float(np.abs(numbers).max())
    return numbers if spread < LEAST_SPREAD else np.round(numbers, DIGITS - math.floor(math.log10(spread)))
