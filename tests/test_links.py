"""Every relative link of a page leads somewhere: to a file of the repository, and to a heading where it names one."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CARDS = (ROOT / "pointnet" / "models" / "weights").glob("*/README.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data" / "README.md", *CARDS])


def anchors_of(text: str) -> set[str]:
    """The anchors that code hosts, and our site, give to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", without_code(text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeated = (f"{slug}-{i}" for i in range(1, 100))
        found.add(next(repeated) if slug in found else slug)
    return found


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors_in(page: Path) -> set[str]:
    return anchors_of(page.read_text(encoding="utf-8"))


def broken_links(page: Path, text: str) -> list[str]:
    """The links of a page, of pictures too, that lead nowhere in the repository. Addresses of the web are left out."""
    found, prose = [], re.sub(r"`[^`\n]*`", "", without_code(text))
    for link in re.findall(r"\]\(\s*([^)\s]+)", prose) + re.findall(r'(?:href|src|srcset)="([^"]+)"', prose):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        there = not path.startswith("/") and ROOT in target.resolve().parents and target.exists()
        if there and anchor:
            there = anchor in (anchors_of(text) if target == page else anchors_in(target.resolve()))
        if not there and not re.match(r"\w+:", link):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_of_a_page_leads_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("words", "broken"),
    [
        ("[a](records/README.md) ![b](figures/kernels.svg) [c](../tests)", []),
        ("[a](https://example.org/none) [b](#two-words---flag)", []),
        ("[a](training.md#channels---features)", []),
        ("```\n[a](none.md)\n# Heading\n```\n`[a](none.md)`", []),
        ("[a](none.md)", ["none.md"]),
        ("![a](figures/none.svg)", ["figures/none.svg"]),
        ('<img src="none.png">', ["none.png"]),
        ("[`a`](#none)", ["#none"]),
        ("[a](training.md#none)", ["training.md#none"]),
        ("[a](/docs/training.md)", ["/docs/training.md"]),
        ("[a](../../elsewhere)", ["../../elsewhere"]),
        ("[a](#heading)\n```\n# Heading\n```", ["#heading"]),
        ("[a](#two-words---flag-1)", ["#two-words---flag-1"]),
        ("[a](#two-words---flag-1)\n\n## Two words: `--flag`", []),
    ],
)
def test_a_link_that_leads_nowhere_is_found(words, broken):
    assert broken_links(ROOT / "docs" / "tour.md", f"## Two words: `--flag`\n\n{words}\n") == broken
