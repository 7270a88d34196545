"""The figure of accuracy against cost shows the records as they are."""

import json
import re
import shutil
from xml.etree import ElementTree

import pytest

from pointnet.training.run_folder import read_result
from tests.helpers import ROOT
from tools import accuracy

RECORDS = ROOT / "docs" / "records"


@pytest.fixture(scope="module")
def runs() -> list[accuracy.Record]:
    return accuracy.records(RECORDS)


def test_the_figure_is_that_of_the_records(runs, tmp_path):
    accuracy.draw(runs).save(tmp_path / "drawn.svg")
    drawn = (tmp_path / "drawn.svg").read_bytes()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert (ROOT / "docs" / "accuracy.svg").read_bytes() == drawn, "python -m tools.accuracy makes it again"


def test_every_measured_run_has_a_mark_in_both_panels_at_what_it_reached(runs):
    results = [read_result(folder) for folder in sorted(RECORDS.glob("modelnet40_dev_*"))]
    tested = [result for result in results if result["test"]]
    assert [run.accuracy for run in runs] == [100 * result["test"]["overall_accuracy"] for result in tested]
    assert [run.seconds for run in runs] == [result["seconds"] for result in tested]
    svg = "\n".join(accuracy.draw(runs).parts)
    marks = len(re.findall(r"<polygon", svg)) + len(re.findall(r'<rect [^>]*stroke="#ffffff"', svg))
    assert marks == 2 * len(runs) + len({run.network for run in runs}) + len(accuracy.MACHINES)
    panel = accuracy.Panel(100, 10, 1000, 88, 92)
    ends = [panel.at(10, 88), panel.at(1000, 92), panel.at(100, 90)]
    corners = [(100, accuracy.TOP + accuracy.HEIGHT), (100 + accuracy.WIDTH, accuracy.TOP)]
    assert ends == [*corners, (100 + accuracy.WIDTH / 2, accuracy.TOP + accuracy.HEIGHT / 2)]


def test_multiply_adds_are_those_of_the_table_of_models(runs):
    found = {(run.network, f"{run.multiply_adds / 1e6:,.0f} M") for run in runs}
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\| ([^|]* M) \|", page, re.MULTILINE)
    assert {row for row in shown if row[0] != "pointnet2_msg"} <= found


def test_a_run_whose_machine_has_no_mark_is_named(tmp_path):
    run = shutil.copytree(RECORDS / "modelnet40_dev_fast_seed0", tmp_path / "modelnet40_dev_fast_seed0")
    result = json.loads((run / "result.json").read_text())
    result["environment"]["threads"] = 3
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="modelnet40_dev_fast_seed0: no mark for cpu with 3 threads"):
        accuracy.records(tmp_path)
