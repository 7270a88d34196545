"""Plain SVG, written number by number, so that every machine writes the same bytes."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

INK, FAINT = "#1f2933", "#6b7680"
ORANGE = ("#cf7a1c", "#ffe6c4")  # of what is learned

Colour = tuple[str, str]  # of the line, and of the area that it encloses


class Drawing:
    """An SVG on a white background, so that it is visible on a dark page."""

    def __init__(self, width: int, height: int, title: str):
        self.width = width
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif" role="img">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>',
        ]
        self.box(0, 0, width, height, ("none", "#ffffff"))

    def box(self, x: float, y: float, w: float, h: float, colour: Colour, line: float = 1, round: float = 0) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{round:g}" fill="{colour[1]}" '
            f'stroke="{colour[0]}" stroke-width="{line:g}"/>'
        )

    def polygon(self, corners: Sequence[tuple[float, float]], colour: str) -> None:
        points = " ".join(f"{x:g},{y:g}" for x, y in corners)
        self.parts.append(f'<polygon points="{points}" fill="{colour}" stroke="#ffffff"/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 14,
        anchor: str = "middle",
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{escape(words)}</text>"
        )

    def caption(self, y: float, words: str) -> None:
        self.text(self.width / 2, y, words, 13.5)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str = INK, width: float = 1, dash: str = ""
    ) -> None:
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{INK}" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
        )

    def grid(
        self, x: float, y: float, rows: int, columns: int, cell: float, colour: Colour | Callable[[int, int], Colour]
    ) -> None:
        for i in range(rows):
            for j in range(columns):
                filled = colour(i, j) if callable(colour) else colour
                self.box(x + j * cell, y + i * cell, cell, cell, filled, 0.8)

    def layer(self, x: float, y: float, words: str, w: float = 130, h: float = 44) -> None:
        """Draws the small network, centred at (x, y)."""
        self.box(x - w / 2, y - h / 2, w, h, ORANGE, 2, 8)
        self.text(x, y + 5, words, 14, bold=True)

    def save(self, path: Path) -> None:
        path.write_bytes("\n".join([*self.parts, "</svg>", ""]).encode())
