"""Hostile names: control characters in a terminal, markup on a page."""

import contextlib
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pointnet import __main__ as command_line
from pointnet.pages.viewer import View, write_page
from pointnet.points.read import read_cloud
from tests.helpers import HOSTILE
from tests.pages import Page
from tests.whole_files import FILES

from .disks import ended, prepared
from .trial import FAILED, Trials

CONTROLS = ("\x1b]0;mine\x07", "\x1b[2J", "\x1b]8;;a:b\x1b\\", "\x1b]52;c;YQ==\x07", "\x1bP", "\x9b31m", "\u202e")
CONTROLS += ("\r", "\b\b", "\x7f", "\t", "\v", "\x0e", "\u2028", "\u200b", "\ufeff", "\udcff", "\n")
SAYING = (
    "show folder --root {root} --out {out}",
    "show {root} --out {out}",
    "show folder --root {out} --out {out}",
    "evaluate pointnet_shapes --dataset folder --root {root}",
    "predict {root} --model pointnet_shapes",
    "predict nowhere{name} --model {name}",
    "{name}",
    "show --{name} shapes",
    "convert nowhere{name}",
    "train --dataset folder --root {root} --out {out} --{name} 1",
    "train --dataset {name} --root {root} --out {out}",
    "embed {root} --model pointnet_shapes --out {out}.npz",
    "report {root}",
)


def hostile_set(root: Path, name: str) -> Path:
    """A set of one's own whose classes, files and root have hostile names."""
    for kind in "ab":
        folder = root / f"root{name}" / f"{kind}{name}"
        folder.mkdir(parents=True)
        for i in range(3):
            shutil.copy(FILES / "stool.xyz", folder / f"{i}{name}.xyz")
        (folder / f"broken{name}.xyz").write_text(name, errors="replace")
        (folder / f"other.{name}").touch()
    return root / f"root{name}"


def terminal(count: int, folder: Path) -> Trials:
    """Runs commands on files and words with control characters in their names."""
    choice = random.Random(0)
    for i in range(count):
        name = "".join(choice.sample(CONTROLS, choice.randint(1, 4)))
        root, out_folder = hostile_set(folder / str(i), name), folder / str(i) / f"out{name}"
        known = {"root": str(root), "out": str(out_folder), "name": name}
        words = [word.format(**known) for word in SAYING[i % len(SAYING)].split(" ")]
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = command_line.main(words)
        except SystemExit as error:  # of argparse
            code = error.code
        except BaseException as error:
            code = f"raised {error!r}"
        said = (out.getvalue() + err.getvalue()).replace("\n", "")
        yield "printable" if code in (0, 1, 2) and said.isprintable() else f"{FAILED}: {words}: {code} {said!r}"
        shutil.rmtree(folder / str(i))


SCRIPTS = (*HOSTILE, "<svg onload=alert(1)>", "javascript:alert(1)", "'><script>alert(1)</script>", "${alert(1)}")
SCRIPTS += ("]]><script>alert(1)</script>", "--><script>alert(1)</script>", "</title><script>alert(1)</script>")
SCRIPTS += ("<style>*{display:none}</style>", "&lt;script&gt;", "</textarea><img src=x onerror=alert(1)>", "\u2028")


def kinds_of(page: Path) -> set[Any]:
    """The elements of a page, each with the names of its attributes, and the words of its scripts and styles."""
    read = Page.read(page)
    texts = {read.texts.get(tag) for tag in ("script", "style")}
    return {(tag, *sorted(named)) for tag, named in read.elements} | texts


def pages_of(folder: Path, source: Path, name: str) -> dict[str, Path]:
    """The pages of a run, a set, its files and clouds, all of whose names have `name` in them."""
    as_file = name.replace("/", "\N{DIVISION SLASH}")
    shutil.copytree(source / "run", folder / f"run{as_file}")
    classes = [f"a{as_file}", f"b{as_file}"]
    for kind, renamed in zip("ab", classes, strict=True):
        shutil.copytree(source / "set" / kind, folder / f"set{as_file}" / renamed)
    config = folder / f"run{as_file}" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"classes": classes}))
    run, data = config.parent, folder / f"set{as_file}"
    cloud = read_cloud(data / classes[0] / "0.xyz").points
    for words in (
        ["report", str(run), "--root", str(data), "--out", str(folder / "report"), "--device", "cpu"],
        ["show", "folder", "--root", str(data), "--out", str(folder / "show")],
        ["predict", str(data / classes[0]), "--task", "part", "--out", str(folder / "parts")],
    ):
        assert (found := ended(words, folder)).code == 0, found
    views = [View(name, cloud, labels=np.zeros(len(cloud), int), label_names=[name], answer=name, notes=(name,))]
    write_page(folder / "views.html", views, name, name)
    made = {"report": folder / "report" / "index.html", "parts": folder / "parts" / "parts.html"}
    return made | {"show": folder / "show" / "folder.html", "views": folder / "views.html"}


def pages(count: int, folder: Path) -> Trials:
    """Writes pages about what has markup and scripts in its names."""
    source, choice = prepared(folder / "source"), random.Random(0)
    harmless = set().union(*map(kinds_of, pages_of(folder / "harmless", source, "x").values()))
    for i in range(-(-count // 4)):
        name = "".join(choice.sample(SCRIPTS, choice.randint(1, 3)))
        for page, path in pages_of(folder / str(i), source, name).items():
            more = kinds_of(path) - harmless
            yield f"{FAILED}: {page} of {name!r} has {more}" if more else "text"
        shutil.rmtree(folder / str(i))
