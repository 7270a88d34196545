"""What the command predict prints and writes of answers: the most probable classes, "unsure", the page, the device."""

import json
import re

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet import devices, predict
from pointnet.datasets import read_points
from pointnet.inference.inputs import NOT_MARKED
from pointnet.models import PointNetModel
from pointnet.points.frame import in_unit_sphere, rotated_to_z_up
from tests.helpers import ROOT
from tests.pages import Page
from tests.processors import PROCESSORS

FILES = ROOT / "data" / "samples" / "files"
CHAIR, STOOL = FILES / "chair.off", FILES / "stool.xyz"
MODEL = "pointnet_shapes"


def test_the_most_probable_classes_are_on_the_line_and_in_json(capsys):
    words = ["predict", str(STOOL), "--model", MODEL, "--top"]
    ranked = [*predict(STOOL, MODEL).probabilities.items()]
    for top in (1, 2, 99):
        assert command_line.main([*words, str(top), "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        assert [each["class"] for each in answer["classes"]] == [name for name, _ in ranked[:top]]
        shares = [each["probability"] for each in answer["classes"]]
        assert shares == pytest.approx([share for _, share in ranked[:top]], abs=1e-6)
        assert command_line.main([*words, str(top)]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(str(STOOL)))
        assert re.findall(r"(\S+) +(\S+%)", line) == [(name, f"{share:.1%}") for name, share in ranked[:top]]


def test_an_answer_that_is_not_sure_is_marked_on_its_line_and_on_the_page(capsys, tmp_path):
    junk = tmp_path / "five<b>.xyz"
    np.savetxt(junk, np.random.default_rng(0).normal(size=(5, 3)))
    words = ["predict", str(STOOL), str(junk), "broken.ply", "--up", "y", "--model", MODEL, "--out"]
    assert command_line.main([*words, str(tmp_path / "new" / "page")]) == 1
    lines = re.sub(r"\n  (?! )", " ", capsys.readouterr().out).splitlines()  # the first fits a terminal
    assert lines[-1] == f"wrote {tmp_path / 'new' / 'page' / 'classes.html'}"
    assert NOT_MARKED not in lines, "they are marked"
    noted = lines.index("    unsure: only 5 different points")
    assert lines[noted - 1].startswith(str(junk))
    assert lines[noted - 1].endswith("%   unsure")
    page = Page.read(tmp_path / "new" / "page" / "classes.html")
    assert page.texts["notes"] == lines[0].rsplit("; ", 1)[0]
    views, wanted = page.views(), predict([STOOL, junk], MODEL, up="y")
    for view, each in zip(views, wanted, strict=True):
        then = f"then {each.runner_up} {each.runner_up_probability:.1%}"
        assert view["answer"] == f"{each.class_name} {each.probability:.1%}"
        assert (view["notes"], view["unsure"]) == ([then, *each.notes], not each.sure)
    assert [view["name"] for view in views] == [STOOL.name, junk.name]
    assert views[1]["unsure"]
    shown = {tuple(row) for row in np.reshape(views[0]["points"], (-1, 3)).round(3)}
    cloud = in_unit_sphere(rotated_to_z_up(read_points(STOOL).astype(np.float64), "y"))
    near = np.abs(np.array([*shown])[:, None] - cloud).max(2).min(1)
    assert len(shown) > 1000
    assert near.max() < 1e-3, "upright, and as large as the network saw it"


def test_a_page_holds_the_first_clouds_alone(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("pointnet.commands.predict.MOST_CLOUDS", 1)
    words = ["predict", str(STOOL), str(CHAIR), "--model", MODEL, "--json", "--out", str(tmp_path)]
    for _ in range(2):
        assert command_line.main(words) == 0
        assert len(json.loads(capsys.readouterr().out)) == 2
    assert command_line.main([word for word in words if word != "--json"]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'classes.html'}, over an earlier one\n")
    page = Page.read(tmp_path / "classes.html")
    assert (len(page.views()), page.texts["h1"]) == (1, "2 clouds")
    assert page.texts["notes"].startswith("The first 1. ")


@pytest.mark.parametrize("task", ["classification", "part"])
def test_the_device_is_chosen_by_its_flag(capsys, tmp_path, monkeypatch, task):
    asked, there = [], torch.device("cpu")
    monkeypatch.setattr("pointnet.commands.predict.find_device", lambda name: asked.append(name) or there)
    monkeypatch.setattr(PointNetModel, "to", lambda model, device: asked.append(device) or model)
    words = ["predict", str(STOOL), "--task", task, "--device", "cuda:1", "--out", str(tmp_path)]
    assert command_line.main(words) == 0
    assert asked == ["cuda:1", there]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "part"])
def test_answers_in_bfloat16_are_near_those_in_float32(bfloat16, capsys, tmp_path, task):
    name = "mean_probability" if task == "part" else "probability"
    found = []
    for precision in ("fp32", "bf16"):
        words = ["predict", str(CHAIR), str(STOOL), "--task", task, "--out", str(tmp_path), "--json"]
        assert command_line.main([*words, "--precision", precision]) == 0
        found.append(json.loads(capsys.readouterr().out))
    for exact, rounded in zip(*found, strict=True):
        assert exact.get("class") == rounded.get("class")
        assert exact[name] != rounded[name] == pytest.approx(exact[name], abs=0.02)


def test_without_instructions_for_bfloat16_answers_are_those_in_float32_and_a_line_says_so(capsys, monkeypatch):
    monkeypatch.setattr(devices, "capabilities", lambda: PROCESSORS["Intel"])
    found = []
    for precision in ("fp32", "bf16"):
        assert command_line.main(["predict", str(CHAIR), "--precision", precision]) == 0
        found.append(capsys.readouterr())
    assert found[0].out == found[1].out
    line = "precision: fp32, as this processor has no instructions for bf16\n"
    assert [line in each.err for each in found] == [False, True]
