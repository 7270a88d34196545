"""What mkdocs.yml makes the site of: the repository's pages, each where it lies, and one page per public name.

A page's relative links work on the site as on a code host, since pages and linked files lie in the same place on both.
Sources are read, not imported, so that PyTorch need not be installed.
"""

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CARDS = "pointnet/models/weights/*/README.md"
PAGES = ("*.md", "docs/**/*.md", "data/README.md", CARDS)
EXPLAINED = "docs/explain.html"  # a page of its own, where it has been made
LINK = re.compile(r"\]\(([^)\s#:]+)[^)\s]*\)")
log = logging.getLogger("mkdocs.hooks.site_pages")  # mkdocs counts its warnings


class SettingsExplained(griffe.Extension):
    """A setting of training has the help text of its field as its docstring."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: object) -> None:
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) == "setting":
            default, text, *_rest = call.arguments
            attr.value, attr.docstring = default, griffe.Docstring(ast.literal_eval(str(text)), parent=attr)


def found(*patterns: str) -> list[str]:
    """The repository's files that match, as paths from its root."""
    return sorted({str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)})


def linked_from(page: str) -> Iterator[str]:
    """The files, no pages, that a page links to or shows."""
    for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        target = (ROOT / page).parent.joinpath(link).resolve()
        if target.is_file() and target.suffix != ".md" and ROOT in target.parents:
            yield str(target.relative_to(ROOT))


def public_names() -> dict[str, list[griffe.Object | griffe.Alias]]:
    """By package, what its `__all__` lists; a name of several packages belongs to the first."""
    package = griffe.load("pointnet", search_paths=[str(ROOT)], resolve_aliases=True, allow_inspection=False)
    names, seen = {}, set()
    for module in (package, *(package.modules[name] for name in sorted(package.modules))):
        listed = [module[name] for name in sorted(map(str, module.exports or []), key=str.lower)]
        own = [each for each in listed if each.canonical_path not in seen]
        seen |= {each.canonical_path for each in own}
        if own:
            names[module.path] = own
    return names


def summary_of(name: griffe.Object | griffe.Alias) -> str:
    """The first sentence of what a public name says of itself."""
    if name.docstring is None:
        log.warning("%s has no docstring", name.path)
        return ""
    return name.docstring.value.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def reference() -> tuple[dict[str, str], list]:
    """The pages of public names and one that lists them, text by path; and their part of the navigation."""
    index = "api/index.md"
    texts, nav = {index: "# Public names\n\nPoints are `(B, C, N)`: B clouds, C channels, N points.\n"}, [index]
    for package, listed in public_names().items():
        pages = {each.name: f"api/{each.path}.md" for each in listed}
        rows = [f"| [`{each.name}`]({each.path}.md) | {summary_of(each)} |" for each in listed]
        texts[index] += "\n".join(["", f"## {package}", "", "| name | what it is |", "|-|-|", *rows, ""])
        texts |= {pages[each.name]: f"::: {each.path}\n" for each in listed}
        nav.append({package: [{name: path} for name, path in pages.items()]})
    return texts, nav


def named(nav: list | dict | str) -> Iterator[str]:
    """The paths in a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from named(part)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces the files of docs_dir by the site's, and adds them to the navigation."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages, explained = found(*PAGES), found(EXPLAINED)
    copied = {link for page in pages for link in linked_from(page)} | {*explained}
    for path in [*pages, *sorted(copied)]:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "site.css", abs_src_path=str(ROOT / "docs" / "site.css")))
    texts, api = reference()
    for path, text in texts.items():
        files.append(File.generated(config, path, content=text))
    cards = [{Path(path).parent.name: path} for path in found(CARDS)]
    nav = [
        config.nav[0],
        *({"See it": path} for path in explained),
        *config.nav[1:],
        {"Trained networks": cards},
        {"API": api},
    ]
    left = [path for path in pages if path not in {*named(nav)}]
    config.nav = [*nav, {"More": left}] if left else nav
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to folders are their words alone: a site has no view of a folder."""

    def unlinked(link: re.Match[str]) -> str:
        return link[1] if (ROOT / page.file.src_uri).parent.joinpath(link[2]).is_dir() else link[0]

    return re.sub(r"\[([^]]*)\]\(([^)\s#:]+)\)", unlinked, markdown)
