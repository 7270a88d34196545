"""Line charts as SVG without a script: parts of a page (`page.html`), or a file of their own."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import NamedTuple

STYLE, PAGE = (Path(__file__).with_name(name) for name in ("charts.css", "page.html"))
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460, 50, 14, 8, 40  # pixels of a chart and of its margins
GAP, HEADER, CAPTION = 30, 74, 30  # pixels of a picture: around its charts, above all of them, above each
FEW = 8  # a curve of at most so many points is drawn with dots

Span = tuple[float, float]


class Curve(NamedTuple):
    """One line of a chart: its name, its points from left to right, and its class in `charts.css`."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    steps: bool = False  # a level for each x, from half before to half after it

    @property
    def points(self) -> list[tuple[float, float]]:
        """The finite ones."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(x) and math.isfinite(y)]

    def corners(self, low: float, high: float) -> list[tuple[float, float]]:
        """Where its line runs, between these x."""
        sides = (-0.5, 0.5) if self.steps else (0,)
        return [(min(max(x + side, low), high), y) for x, y in self.points for side in sides]


@dataclass(frozen=True)
class Chart:
    """Curves over one axis; the figures of a point show where the pointer rests on it.

    Args:
        x_span, y_span: the ranges of the axes; None: the range of the curves, with a small margin above and below.
        mark: where a dotted line stands, and a ring on each curve of class `one`.
        height: in pixels; the width is `WIDTH`, and a page may scale both.
    """

    title: str
    curves: Sequence[Curve]
    x_name: str
    x_span: Span | None = None
    y_span: Span | None = None
    mark: float | None = None
    height: int = 250

    @cached_property
    def spans(self) -> tuple[Span, Span]:
        """The ranges of x and y."""
        points = [point for curve in self.curves for point in curve.points]
        return self.x_span or _span([x for x, _ in points]), self.y_span or _span([y for _, y in points], margin=0.06)

    def figure(self) -> str:
        """The chart as a figure of a page."""
        box = f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return f"<figure><figcaption>{escape(self.title)}</figcaption>{box}{self.drawing()}</svg></figure>"

    def drawing(self) -> str:
        """The chart as elements of an SVG, `WIDTH` by `height` pixels from the origin."""
        lines = (self._polyline(curve.style, *curve.corners(*self.spans[0])) for curve in self.curves)
        return "".join([*self._axes(), *lines, *self._dots()])

    def _axes(self) -> Iterable[str]:
        (x_low, x_high), (y_low, y_high) = self.spans
        for y in ticks(y_low, y_high):
            left, level = self._at(x_low, y)
            yield self._polyline("grid", (x_low, y), (x_high, y))
            yield _text(left - 7, level + 4, f"{y:g}", "end")
        whole = all(float(x).is_integer() for curve in self.curves for x, _ in curve.points)
        for x in ticks(x_low, x_high, 6, least=float(whole)):
            yield _text(self._at(x, y_low)[0], self.height - BOTTOM + 17, f"{x:g}", "middle")
        yield self._polyline("axis", (x_low, y_low), (x_high, y_low))
        yield _text((WIDTH + LEFT - RIGHT) / 2, self.height - 4, self.x_name, "middle")
        if self.mark is not None:
            yield self._polyline("mark", (self.mark, y_low), (self.mark, y_high))

    def _dots(self) -> Iterable[str]:
        for curve in self.curves:
            few = len(curve.points) <= FEW
            for x, y in curve.points:
                kind, radius = (" dot", 3.5) if few else ("", 7)
                if x == self.mark and curve.style == "one":
                    kind, radius = " ring", 4.5
                right, down = self._at(x, y)
                hint = escape(f"{curve.name}: {y:.4g} at {self.x_name} {x:g}")
                place = f'class="{curve.style}{kind}" r="{radius}" cx="{right:g}" cy="{down:g}"'
                yield f"<circle {place}><title>{hint}</title></circle>"

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """From the axes to pixels."""
        (x_low, x_high), (y_low, y_high) = self.spans
        right = LEFT + (x - x_low) * (WIDTH - LEFT - RIGHT) / (x_high - x_low)
        return round(right, 1), round(TOP + (y_high - y) * (self.height - TOP - BOTTOM) / (y_high - y_low), 1)

    def _polyline(self, style: str, *ends: tuple[float, float]) -> str:
        pixels = " ".join(f"{right:g},{down:g}" for right, down in (self._at(*end) for end in ends))
        return f'<polyline class="{style}" points="{pixels}"/>'


def _text(right: float, down: float, text: str, anchor: str = "start", style: str = "") -> str:
    more = f' class="{style}"' if style else ""
    return f'<text x="{right:g}" y="{down:g}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def picture(title: str, headline: str, charts: Sequence[Chart]) -> str:
    """Charts as an SVG file on white, two in a row, below a title, a line of text and the names of the first's curves.

    Not every program that reads SVG knows the variables of CSS: the light colours of the page take their place.
    """
    width, top = GAP + 2 * (WIDTH + GAP), HEADER
    parts = [_text(GAP, 38, title, style="title"), _text(GAP, 60, headline, style="words")]
    right = float(width - GAP)
    for curve in reversed(charts[0].curves):
        right -= 58 + 6.6 * len(curve.name)
        parts.append(f'<polyline class="{curve.style}" points="{right:g},34 {right + 28:g},34"/>')
        parts.append(_text(right + 36, 38, curve.name, style="words"))
    for first in range(0, len(charts), 2):
        row = charts[first : first + 2]
        for i, chart in enumerate(row):
            caption = _text(0, -6, chart.title, style="words")
            place = f"translate({GAP + i * (WIDTH + GAP)} {top + CAPTION})"
            parts.append(f'<g transform="{place}">{caption}{chart.drawing()}</g>')
        top += CAPTION + max(chart.height for chart in row)
    height = top + GAP // 2
    light = dict(re.findall(r"--(\w+): (#\w+);", PAGE.read_text(encoding="utf-8").split("@media")[0]))
    style = re.sub(r"var\(--(\w+)\)", lambda name: light[name[1]], STYLE.read_text(encoding="utf-8"))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    return "\n".join([*lines, *parts, "</svg>\n"])


def legend(curves: Iterable[Curve]) -> str:
    """The names of curves beside a piece of their lines, for a page."""
    line = '<svg viewBox="0 0 28 10" aria-hidden="true"><polyline class="{}" points="1,5 27,5"/></svg>{}'
    entries = (f"<li>{line.format(curve.style, escape(curve.name))}</li>" for curve in curves)
    return f'<ul class="legend">{"".join(entries)}</ul>'


def ticks(low: float, high: float, count: int = 4, least: float = 0) -> list[float]:
    """About `count` round numbers from low to high, 1, 2 or 5 times a power of ten apart, and at least `least`."""
    wanted = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(wanted))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / wanted)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _span(values: Sequence[float], margin: float = 0) -> Span:
    """The range of values, wider by this share at both ends; a range of 1 where they are all equal."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    more = (high - low) * margin or 0.5 * (low == high)
    return low - more, high + more
