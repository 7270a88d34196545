"""`python -m pointnet explain`: the page that explains shared MLPs and PointNet."""

import webbrowser
from argparse import Namespace
from pathlib import Path

from pointnet.names import say
from pointnet.pages.explain import write_explanation


def run(flags: Namespace) -> int:
    """Writes the page where --out says, or into this folder and opens it."""
    path = Path(flags.out or "explain.html")
    write_explanation(path)
    say(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB; any browser shows it, offline")
    if not flags.out:
        webbrowser.open(path.resolve().as_uri())
    return 0
