"""Point clouds on paper: a grid of them as one PNG."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pointnet.extras import MissingExtraError
from pointnet.files import write_atomically

from .viewer import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL, CAPTION, MARGIN, ENTRY = 220, 28, 14, 18  # pixels; an entry is a label's name at the foot
AZIMUTH, ELEVATION = 30.0, 23.0  # degrees: from the front (-y), a little to the right (+x) and above
SHADES = ("#12304d", "#1f5f8b", "#4fa0b8", "#bcdcdc")  # of a point, near to far
FADED = 0.35  # how far a label's colour is mixed with white, at the farthest point
MOST_LETTERS = 26  # of a caption


def project(points: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 3) points, z up -> (N, 3): to the right, up, and away from the viewer, orthographic."""
    turn, tilt = math.radians(AZIMUTH), math.radians(ELEVATION)
    x, y, z = np.asarray(points, dtype=np.float64).T
    right, away = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    up, away = z * math.cos(tilt) + away * math.sin(tilt), away * math.cos(tilt) - z * math.sin(tilt)
    return np.stack([right, up, away], axis=1)


def write_grid(
    path: str | os.PathLike[str],
    clouds: Sequence[NDArray[Any]],
    names: Sequence[str],
    columns: int | None = None,
    labels: Sequence[NDArray[Any] | None] = (),
    label_names: Sequence[str] = (),
) -> None:
    """Writes a PNG of clouds (N, 3), z up, a panel of `PANEL` pixels each, row by row, with their names below.

    Each cloud fills its panel, without being stretched; near points are dark, far ones pale. The folder is made.

    Args:
        columns: of panels; None for a picture somewhat wider than high.
        labels: of the clouds' points, (N,) integers; a colour each, named at the foot. None where there are none.
        label_names: the labels' names, by label; a label beyond them is shown as its number.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: no clouds, or not as many names.
        OSError: the file cannot be written.
    """
    if not clouds or len(clouds) != len(names):
        raise ValueError(f"a grid needs clouds and a name for each, got {len(clouds)} and {len(names)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "view") from error

    columns = min(columns or grid_columns(len(clouds)), len(clouds))
    labels = labels or [None] * len(clouds)
    present = sorted({int(label) for each in labels if each is not None for label in np.unique(each)})
    width, foot = columns * PANEL, math.ceil(len(clouds) / columns) * (PANEL + CAPTION)
    height = foot + (math.ceil(len(present) / columns) * ENTRY + MARGIN if present else 0)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    # One drawing surface for all, in pixels from the upper left corner: many times faster than one for each.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for index, (cloud, name, each) in enumerate(zip(clouds, names, labels, strict=True)):
        _draw_panel(axes, cloud, name, each, index % columns * PANEL, index // columns * (PANEL + CAPTION))
    for index, label in enumerate(present):
        at = index % columns * PANEL + MARGIN, foot + (index // columns + 0.5) * ENTRY
        axes.scatter(*at, 60, paint(np.array([label])), marker="s", linewidths=0)
        _write(axes, at[0] + MARGIN, at[1], label_names[label] if label < len(label_names) else str(label), "left")
    stream = io.BytesIO()
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn with boxes
        warnings.filterwarnings("ignore", message=".*Glyph.*")
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


def grid_columns(count: int) -> int:
    """How many columns make a grid of so many panels a page that is somewhat wider than high."""
    return max(1, math.ceil(math.sqrt(1.6 * count)))


def printable(text: str) -> str:
    """Text for one line of a terminal or a picture: what cannot be printed, as line breaks and control codes, is �."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def shortened(name: str) -> str:
    """A caption that fits its panel: the middle of a long one is left out."""
    half = (MOST_LETTERS - 1) // 2
    return printable(name if len(name) <= MOST_LETTERS else f"{name[:half]}…{name[-half:]}")


def paint(labels: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) integers -> (N, 3), red, green and blue in [0, 1]: as on the page."""
    colours = np.array([tuple(bytes.fromhex(colour[1:])) for colour in PALETTE])
    return colours[labels % len(colours)] / 255


def _draw_panel(
    axes: Axes, cloud: NDArray[Any], name: str, labels: NDArray[Any] | None, left: float, top: float
) -> None:
    """Draws one cloud and its caption, far points first; each has a white rim, so that near ones stand out."""
    from matplotlib.colors import LinearSegmentedColormap

    order, dots, depths = _to_pixels(cloud)
    size = min(max(110 / math.sqrt(len(dots)), 1.0), 6.0)
    if labels is None:
        colours = LinearSegmentedColormap.from_list("depth", SHADES)(depths)
    else:
        colours = 1 - (1 - paint(np.asarray(labels)[order])) * (1 - FADED * depths[:, None])
    axes.scatter(left + dots[:, 0], top + dots[:, 1], size**2, colours, edgecolors="white", linewidths=size / 10)
    _write(axes, left + PANEL / 2, top + PANEL + CAPTION / 2 - 3, name, "center")


def _write(axes: Axes, right: float, down: float, text: str, where: Literal["left", "center"]) -> None:
    axes.text(right, down, shortened(text), ha=where, va="center", fontsize=8.5, color="#1f2933", parse_math=False)


def _to_pixels(cloud: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """One cloud: -> its points' order, far ones first; (N, 2) pixels from the panel's upper left corner and depths in
    [0, 1], in that order."""
    flat = project(cloud)
    order = np.argsort(-flat[:, 2], kind="stable")
    flat = flat[order]
    low, high = flat.min(0), flat.max(0)
    scale = (PANEL - 2 * MARGIN) / (max(high[0] - low[0], high[1] - low[1]) or 1.0)
    dots = (flat[:, :2] - (low + high)[:2] / 2) * scale * (1, -1) + PANEL / 2
    return order, dots, (flat[:, 2] - low[2]) / ((high[2] - low[2]) or 1.0)
