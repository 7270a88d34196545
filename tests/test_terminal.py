"""What reaches a terminal: no text from outside moves its cursor, and a signal ends a command in one line."""

import ast
import io
import os
import re
import shutil
import signal

import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.names import say
from tests.helpers import ON_SAMPLES, ROOT, two_shapes

ESCAPES = "\x1b]0;mine\x07\x1b[2J\u202e"  # sets the title, wipes the screen, writes from right to left
STOOL = ROOT / "data" / "samples" / "files" / "stool.xyz"


def assert_printable(text: str) -> None:
    assert text.replace("\n", "").isprintable(), text


def test_say_keeps_line_breaks_and_nothing_else_that_moves_the_cursor(capsys):
    say(f"one\ntwo {ESCAPES}\r\tthree\udc80")
    printed = capsys.readouterr().out
    assert printed.startswith("one\ntwo �]0;mine��[2J���three�\n")
    assert_printable(printed)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_what_a_stream_cannot_encode_is_escaped_and_all_else_is_said(encoding):
    """On Windows what is written into a file has the encoding of the country; an answer was lost to a name there."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    say("Gebäude 75.0%, then 椅子\n1 × 2 ± 3\x1b", stream)
    assert stream.buffer.getvalue().decode(encoding) == {
        "ascii": "Geb\\xe4ude 75.0%, then \\u6905\\u5b50\n1 \\xd7 2 \\xb1 3\\ufffd\n",
        "utf-8": "Gebäude 75.0%, then 椅子\n1 × 2 ± 3\ufffd\n",
    }.get(encoding, "Gebäude 75.0%, then \\u6905\\u5b50\n1 × 2 ± 3\\ufffd\n")


def test_nothing_else_prints():
    for path in (ROOT / "pointnet").rglob("*.py"):
        if re.search(r"\bprint\b", source := path.read_text()) and path.name != "names.py":
            assert "print" not in {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}, path


def test_a_file_whose_labels_would_have_too_long_a_name_fails_alone(capsys, tmp_path):
    files = [tmp_path / f"{name}.xyz" for name in ("a", "n" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4), "z")]
    for file in files:
        shutil.copy(STOOL, file)
    assert command_line.main(["predict", "--task", "part", *map(str, files), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith(f"{files[1]}: its labels are not written: ")
    assert printed.err.endswith("File name too long\n")
    assert sorted(os.listdir(tmp_path / "out")) == ["a.xyz.parts.ply", "parts.html", "z.xyz.parts.ply"]


@pytest.mark.parametrize("when", ["open_dataset", "draw_curves", "summary"])
def test_sigterm_before_and_after_training_ends_as_within_it(capsys, monkeypatch, tmp_path, when):
    def end(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    (tmp_path / "x").mkdir()
    if when != "open_dataset":
        (tmp_path / "x" / "checkpoint.pt").touch()
        monkeypatch.setattr(train, "fit", lambda *_: {})
        monkeypatch.setattr(train, "open_dataset", lambda *_, **__: two_shapes(per_class=2))
        monkeypatch.setattr(train, "draw_curves", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(train, when, end)
    assert train.main([*ON_SAMPLES, "--out", str(tmp_path / "x")]) == 143
    following = "nothing was saved yet" if when == "open_dataset" else "to continue: python train.py --resume --out"
    assert f"stopped; {following}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_while_modules_are_loaded_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(command_line.importlib, "import_module", lambda _: signal.raise_signal(signal.SIGTERM))
    assert command_line.main(["train", "--epochs", "1"]) == 143
    assert capsys.readouterr().err == "\nstopped\n"
