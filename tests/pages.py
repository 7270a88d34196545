"""Pages as a parser sees them: their elements, their clouds, their words."""

import json
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """A page's elements, the text of its scripts by their id, and its title."""

    @classmethod
    def read(cls, path: Path) -> "Page":
        return cls(path.read_text(encoding="utf-8"))

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = dict(attributes).get("id") or tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.texts[self.inside] = self.texts.get(self.inside, "") + data

    def requested(self) -> list[str]:
        """What the elements name as addresses; a page without requests names at most its own sections."""
        assert not {tag for tag, _ in self.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not [named for _, named in self.elements if {"src", "action"} & set(named)]
        return [named["href"] for _, named in self.elements if "href" in named]

    def views(self) -> list[dict]:
        return json.loads(self.texts["views"])


def views_of(path: Path) -> list[dict]:
    """The clouds of a page."""
    return Page.read(path).views()


class Words(HTMLParser):
    """The words of a page's sections and tables, by anchor and row, and of its listings."""

    def __init__(self, text: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.sections: dict[str, str] = {}
        self.listings: list[str] = []  # what is in <pre>
        self.table = self.section = ""
        self.listing = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "section":
            self.section = named["id"]
            self.sections[self.section] = ""
        elif tag == "table":
            self.table = f"{self.section} {named['class']}"
            self.table += "'" * (self.table in self.tables)
            self.tables[self.table] = []
        elif tag == "pre":
            self.listing = True
            self.listings.append("")
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append("")
        elif tag == "script":
            self.section = ""

    def handle_endtag(self, tag):
        if tag == "table":
            self.table = ""
        elif tag == "pre":
            self.listing = False

    def handle_data(self, data):
        if self.table and self.tables[self.table]:
            self.tables[self.table][-1][-1] += data
        if self.listing:
            self.listings[-1] += data
        if self.section:
            self.sections[self.section] += data


def words(path: Path) -> Words:
    return Words(path.read_text(encoding="utf-8"))
