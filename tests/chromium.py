"""A page as a browser shows it: what it looks like, what it says to the console, and what it asks the network for."""

import html
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Nothing is fetched, not even by the browser for itself, and nothing is left behind.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-features=AutofillServerCommunication --disable-sync --enable-logging=stderr "
    "--virtual-time-budget=4000 --hide-scrollbars"
).split()
NO_HOST = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
DARK = "--blink-settings=preferredColorScheme=0"


def needs_chromium(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test in a browser, which is a long form: a page takes seconds."""
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")(test))


class Visit(NamedTuple):
    """What came of opening a page."""

    picture: np.ndarray  # (height, width, 3), in [0, 1]
    console: list[str]
    requests: list[str]  # of the page, to anywhere but its own file


def visit(page: Path | str, folder: Path, size: tuple[int, int] = (1000, 800), anchor: str = "", *flags: str) -> Visit:
    """Opens a page, a file or an address of this machine, in a window of that size, and writes to `folder`."""
    image = pytest.importorskip("PIL.Image")
    shot, log = folder / "shot.png", folder / "net.json"
    words = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}", f"--log-net-log={log}"]
    words += [f"--window-size={size[0]},{size[1]}", f"--host-resolver-rules={NO_HOST}", *flags]
    address = page if isinstance(page, str) else page.as_uri()
    command = [str(CHROMIUM), *FLAGS, *words, f"{address}{anchor}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    events = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    keys = ("file:", "http:")  # of pages; the browser's own requests have none
    own = [event["url"] for event in events if str(event.get("network_isolation_key")).startswith(keys)]
    picture = np.asarray(image.open(shot).convert("RGB")) / np.float32(255)
    return Visit(picture, console, own)


def computed(page: Path, folder: Path, script: str, size: tuple[int, int] = (1000, 800), *flags: str) -> Any:
    """What a script returns that runs in a page after the page's own, by the real clock; no error is allowed."""
    ending = f'<pre id="computed"></pre><script>part("computed").textContent = JSON.stringify((() => {{{script}}})());'
    copy = folder / "computed.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{ending}</script></body>"), encoding="utf-8")
    own = [flag for flag in FLAGS if "virtual-time" not in flag]
    words = [f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"--window-size={size[0]},{size[1]}", *flags]
    command = [str(CHROMIUM), *own, *words, copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return json.loads(html.unescape(done.stdout.split('<pre id="computed">')[1].split("</pre>")[0]))
