"""Tables of a page, as HTML in the styles of `page.html`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MATRIX = 880  # pixels that a confusion matrix may take, about


def table(rows: Sequence[Sequence[str]], style: str) -> str:
    """Rows of HTML as a table, the first of them headings."""
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


def _cell(count: int, total: int, true: int, predicted: int, names: Sequence[str]) -> str:
    if not count:
        return "<td>"
    style = "right" if true == predicted else "wrong"
    hint = f"{names[true]}, predicted as {names[predicted]}: {count} of {total}"
    return f'<td class="{style}" style="--share:{count / total:.2f}" title="{escape(hint)}">{count}'


def _scrolling(content: str) -> str:
    """HTML that scrolls by itself where it is too wide, by the keyboard too."""
    return f'<div class="scrolling" tabindex="0" role="region" aria-label="table">{content}</div>'
