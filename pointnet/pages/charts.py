"""Charts for a page, as HTML and SVG without a script: they take the page's colours (`page.html`), light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460, 50, 14, 8, 40  # of a chart's box, and of its margins
FEW = 8  # points of a curve, that are drawn as dots too
MATRIX = 880  # pixels, about, that a confusion matrix may take


class Curve(NamedTuple):
    """One line of a chart: its name, its points from left to right, and its style in `page.html`."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    steps: bool = False  # a level for each x, from half before to half after it


def line_chart(
    title: str,
    curves: Sequence[Curve],
    x_name: str,
    x_span: tuple[float, float] | None = None,
    y_span: tuple[float, float] | None = None,
    mark: float | None = None,
    height: int = 250,
) -> str:
    """Curves over one axis, each point with its figures where the pointer rests on it; what is not finite is left out.

    Args:
        x_span, y_span: what the axes show; None: what the curves reach, and a little more upwards and downwards.
        mark: where a dotted line stands.
        height: of the chart, in its own pixels; it is `WIDTH` wide and shrinks with the page.
    """
    points = [
        [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for curve in curves
    ]
    x_low, x_high = x_span or _span([x for each in points for x, _ in each])
    y_low, y_high = y_span or _span([y for each in points for _, y in each], margin=0.06)
    across, down = (WIDTH - LEFT - RIGHT) / (x_high - x_low), (height - TOP - BOTTOM) / (y_high - y_low)

    def at(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + (x - x_low) * across, 1), round(TOP + (y_high - y) * down, 1)

    def line(*ends: tuple[float, float]) -> str:
        return " ".join(f"{right:g},{low:g}" for right, low in (at(*end) for end in ends))

    parts = []
    for y in ticks(y_low, y_high):
        left, level = at(x_low, y)
        parts.append(f'<polyline class="grid" points="{line((x_low, y), (x_high, y))}"/>')
        parts.append(f'<text x="{left - 7:g}" y="{level + 4:g}" text-anchor="end">{y:g}</text>')
    for x in ticks(x_low, x_high, 6, least=all(float(x).is_integer() for each in points for x, _ in each)):
        parts.append(f'<text x="{at(x, y_low)[0]:g}" y="{height - BOTTOM + 17}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<polyline class="axis" points="{line((x_low, y_low), (x_high, y_low))}"/>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{height - 4}" text-anchor="middle">{escape(x_name)}</text>')
    if mark is not None:
        parts.append(f'<polyline class="mark" points="{line((mark, y_low), (mark, y_high))}"/>')
    for curve, each in zip(curves, points, strict=True):
        corners = each
        if curve.steps:
            corners = [(min(max(x + side, x_low), x_high), y) for x, y in each for side in (-0.5, 0.5)]
        parts.append(f'<polyline class="{curve.style}" points="{line(*corners)}"/>')
    for curve, each in zip(curves, points, strict=True):
        shown = f'class="{curve.style} dot" r="3.5"' if len(each) <= FEW else f'class="{curve.style}" r="7"'
        for x, y in each:
            right, low = at(x, y)
            told = escape(f"{curve.name}: {y:.4g} at {x_name} {x:g}")
            parts.append(f'<circle {shown} cx="{right:g}" cy="{low:g}"><title>{told}</title></circle>')
    box = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return f"<figure><figcaption>{escape(title)}</figcaption>{box}{''.join(parts)}</svg></figure>"


def legend(curves: Iterable[Curve]) -> str:
    """The names of curves beside a piece of their lines."""
    line = '<svg viewBox="0 0 28 10" aria-hidden="true"><polyline class="{}" points="1,5 27,5"/></svg>{}'
    entries = (f"<li>{line.format(curve.style, escape(curve.name))}</li>" for curve in curves)
    return f'<ul class="legend">{"".join(entries)}</ul>'


def ticks(low: float, high: float, count: int = 4, least: float = 0) -> list[float]:
    """Round numbers from low to high, about so many, 1, 2 or 5 times a power of ten apart, and at least `least`."""
    wanted = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(wanted))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / wanted)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def table(rows: Sequence[Sequence[str]], style: str) -> str:
    """Rows of HTML, the first of them headings, as a table of a style in `page.html`."""
    heads = "".join(f'<th scope="col">{cell}' for cell in rows[0])
    body = "".join(f'<tr><th scope="row">{row[0]}{"".join(f"<td>{cell}" for cell in row[1:])}' for row in rows[1:])
    return _scrolling(f'<table class="{style}"><thead><tr>{heads}<tbody>{body}</table>')


def matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A confusion matrix, [true][predicted], tinted by the share of each row."""
    heads = "".join(f'<th scope="col"><span>{escape(name)}</span>' for name in names)
    rows = []
    for i, (row, name) in enumerate(zip(counts, names, strict=True)):
        cells = (_cell(count, sum(row), i, j, names) for j, count in enumerate(row))
        rows.append(f'<tr><th scope="row">{escape(name)}{"".join(cells)}')
    size = min(max(MATRIX // len(names), 21), 34)
    return _scrolling(
        f'<table class="matrix" style="--cell:{size}px"><thead><tr><td>{heads}<tbody>{"".join(rows)}</table>'
    )


def _scrolling(content: str) -> str:
    """HTML that scrolls by itself where it is too wide, by the keyboard too."""
    return f'<div class="scrolling" tabindex="0" role="region" aria-label="table">{content}</div>'


def _cell(count: int, total: int, true: int, predicted: int, names: Sequence[str]) -> str:
    if not count:
        return "<td>"
    style = "right" if true == predicted else "wrong"
    told = f"{names[true]}, taken for {names[predicted]}: {count} of {total}"
    return f'<td class="{style}" style="--share:{count / total:.2f}" title="{escape(told)}">{count}'


def _span(values: Sequence[float], margin: float = 0) -> tuple[float, float]:
    """From the least to the largest and this share of it more at both ends; a unit where that is nothing."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    more = (high - low) * margin or 0.5 * (low == high)
    return low - more, high + more
