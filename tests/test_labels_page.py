"""The commands of docs/labels.md, run on easy files: a new file comes back labelled right, with its own numbers.

Training takes small steps of few points too (`QUICKLY`), beside the page's own settings.
"""

import json
import re
import shlex

import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.points.read import read_cloud
from tests.helpers import QUICK, ROOT, error_of
from tests.own_points import make_object, make_yard, save, write_objects, write_yards

PAGE = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
SCANS, OBJECTS = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)]
QUICKLY = (
    "--batch_size 4 --num_points 512 --early_points 128 --lr 0.005 --input_transform false --feature_transform false"
)
CLASSES = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0]


def run(lines: list[str], capsys, *more: str) -> dict:
    """Runs the three lines of the page; returns the scores of the second."""
    scores = {}
    for line in lines:
        words = shlex.split(line)
        if words[1] == "train.py":
            assert train.main([*words[2:], "--device", "cpu", *more]) == 0
        else:
            as_json = ["--json"] if words[3] == "evaluate" else []
            capsys.readouterr()
            assert command_line.main([*words[3:], *as_json, "--device", "cpu"]) == 0
            scores = json.loads(capsys.readouterr().out) if as_json else scores
    return scores


FORMS = [shlex.split(f"{QUICKLY} --epochs 10"), []]


@pytest.mark.slow
@pytest.mark.parametrize("more", FORMS, ids=["quick", "as on the page"])
def test_a_scan_comes_back_labelled(tmp_path, monkeypatch, capsys, more):
    monkeypatch.chdir(tmp_path)
    write_yards(tmp_path / "my_scans", 6, size=3000)
    (tmp_path / "my_scans" / "classes.txt").write_text(CLASSES)
    rows = make_yard(99, 3000)
    save(tmp_path / "new_scan.txt", rows[:, :3], "X Y Z")
    scores = run(SCANS, capsys, *more)
    assert {name: share > 0.8 for name, share in scores["of_class"].items()} == {
        "ground": True, "building": True, "pole": True,
    }  # fmt: skip
    found = read_cloud(tmp_path / "labelled" / "new_scan.txt.scene.ply", precise=True)
    np.testing.assert_allclose(found.points, rows[:, :3], atol=1e-6)
    assert (found.labels == rows[:, 4]).mean() >= 0.95
    assert (tmp_path / "labelled" / "scene.html").exists()


@pytest.mark.slow
def test_an_object_comes_back_with_its_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_objects(tmp_path / "my_objects", count=10)
    rows = make_object("pin", 99)
    save(tmp_path / "new_pin.ply", rows[:, :3], "x y z")
    scores = run(OBJECTS, capsys)
    assert {name: share > 0.9 for name, share in scores["of_class"].items()} == {"pin": True, "table": True}
    found = read_cloud(tmp_path / "labelled" / "new_pin.ply.parts.ply", precise=True)
    assert (found.labels == rows[:, 3]).mean() >= 0.95
    assert set(found.labels.tolist()) <= {0, 1, 3}


@pytest.mark.slow
def test_one_or_two_labelled_files_are_trained_on_or_refused_with_what_to_do(tmp_path, capsys):
    one, yard, three = tmp_path / "one", tmp_path / "yard", tmp_path / "three"
    save(one / "pin" / "0.txt", make_object("pin", 0))
    save(yard / "0.txt", make_yard(0, 1500), "X Y Z Intensity Classification")
    write_objects(three, ["pin"], 3)
    how, plain = (
        [*QUICK[:-4], "--min_steps", "1", "--out", str(tmp_path / "out")],
        "--input_transform false --feature_transform false",
    )
    of_parts = ["--task", "part", "--dataset", "parts", *how, "--root"]
    of_scenes = ["--task", "scene", "--dataset", "scenes", "--block", "50", *how, "--root"]
    for words, more in (([*of_parts, str(one)], ""), ([*of_scenes, str(yard)], "take a smaller --block, or ")):
        line = error_of(capsys, train.main, [*words, "--test", "false"])
        assert "there is a single cloud to train on, and the norms behind the pooling of PointNet" in line
        assert line.endswith(f" need two; add files, or {more}leave out its T-Nets: {plain}")
    assert not (tmp_path / "out").exists()
    assert f"`{plain}`" in PAGE
    assert train.main([*of_parts, str(one), "--test", "false", *plain.split()]) == 0
    capsys.readouterr()
    assert train.main([*of_parts, str(three), "--dry_run", "--out", str(tmp_path / "dry")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"parts in {three}; ")
    assert "fewer than 8 clouds to learn from: pin 2" in said
