"""The site that `mkdocs build --strict` wrote to build/site: every public name is in it, and it asks no other host."""

import importlib
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.chromium import DARK, needs_chromium, visit

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PACKAGES = ["pointnet", *(f"pointnet.{path.parent.name}" for path in ROOT.glob("pointnet/*/__init__.py"))]
# What a browser fetches by itself; links are followed by readers.
FETCHED = re.compile(r"""<(?:link|script|img|iframe|source|object)\b[^>]*?\b(?:href|src|data)=["']?([^"'\s>]+)""")
pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="no site is built; mkdocs build --strict builds it")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def address():
    """The address at which the site is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def fetched_elsewhere(text: str) -> list[str]:
    """The addresses of other hosts that a page or a style sheet fetches."""
    styles = re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", text)
    return [link for link in [*FETCHED.findall(text), *styles] if re.match(r"(?:https?:)?//", link)]


def test_every_public_name_has_a_page_of_its_own():
    names = {name for package in PACKAGES for name in getattr(importlib.import_module(package), "__all__", [])}
    pages = {page.stem: page.read_text(encoding="utf-8") for page in SITE.glob("api/pointnet.*.html")}
    assert {page.rpartition(".")[2] for page in pages} == names, "build it again: mkdocs build --strict"
    assert [page for page, text in pages.items() if f'id="{page}"' not in text or "doc-contents" not in text] == []


def test_no_page_fetches_from_another_host():
    pages = [*SITE.rglob("*.html"), *SITE.rglob("*.css")]
    assert len(pages) > 50
    assert {page: links for page in pages if (links := fetched_elsewhere(page.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        '<link rel="stylesheet" href="https://fonts.example/css">',
        "<script async src=//cdn.example/a.js></script>",
        "@import 'https://cdn.example/a.css';",
        "a { background: url(https://cdn.example/a.png) }",
    ],
)
def test_a_fetch_from_another_host_is_noticed(line):
    assert len(fetched_elsewhere(line)) == 1
    assert fetched_elsewhere('<a href="https://arxiv.org">a paper</a><img src="../kernels.svg">') == []


@needs_chromium
@pytest.mark.parametrize("page", ["index.html", "docs/identities.html", "api/pointnet.SharedMLP.html"])
def test_a_browser_shows_a_page_without_complaint_and_asks_the_site_alone(page, address, tmp_path):
    seen = visit(f"{address}{page}", tmp_path, (500, 1000), "", DARK)
    assert seen.console == []
    assert seen.requests
    assert [request for request in seen.requests if not request.startswith(address)] == []
    assert seen.picture.mean() < 0.5  # as dark as the reader's browser
