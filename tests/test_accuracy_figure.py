"""The figure of accuracy against cost and the tables beside it show the records as they are."""

import json
import re
import shutil
from xml.etree import ElementTree

import pytest

from pointnet.training.run_folder import read_result
from tests.helpers import ROOT
from tools import accuracy
from tools.accuracy_table import END, PAGE, START, with_tables

RECORDS = ROOT / "docs" / "records"
NETWORKS = [(name, words) for name, (words, _) in accuracy.NETWORKS.items()]
COMMAND = "python train.py --dataset modelnet40 --root ../shared/data/modelnet40_dev {}\n"


@pytest.fixture(scope="module")
def runs() -> list[accuracy.Record]:
    return accuracy.records(RECORDS)


def test_the_figure_is_that_of_the_records(runs, tmp_path):
    accuracy.draw(runs).save(tmp_path / "drawn.svg")
    drawn = (tmp_path / "drawn.svg").read_bytes()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert (ROOT / "docs" / "accuracy.svg").read_bytes() == drawn, "python -m tools.accuracy makes it again"


def test_the_tables_are_those_of_the_records(runs, tmp_path):
    (tmp_path / "records").mkdir()
    for name in (PAGE, "records/README.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path / name)
    accuracy.write_tables(tmp_path, runs, NETWORKS)
    made, shown = ((folder / PAGE).read_text(encoding="utf-8") for folder in (tmp_path, ROOT / "docs"))
    assert made == shown, "python -m tools.accuracy makes them again"


def test_a_row_is_a_command_with_its_seeds_and_what_they_reached(runs):
    records = "# Records\n\n## a_seed0, a_seed1\n\n" + COMMAND.format("--epochs 3 --seeds 0 1 --out runs/a")
    records += "\n## b\n\nThe same again.\n\n## c, d\n\n" + "".join(map(COMMAND.format, ("--lr 1", "--lr 2")))
    made = [
        runs[0]._replace(name=name, network="dgcnn", accuracy=at, seconds=at, mean_class=80.0, machine=f"on {name[0]}")
        for name, at in (("a_seed0", 91.0), ("a_seed1", 92.0), ("b", 90.0), ("c", 240.0), ("d", 60.0))
    ]
    page = with_tables(f"before\n{START}\nold\n{END}\nafter", records, made, [("dgcnn", "DGCNN"), ("edgenet", "E")])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| **")]
    assert [[row[0], *row[3:]] for row in rows] == [
        ["**240.00 %**", "[4 min, on c](records/README.md#c-d)", "`--lr 1`"],
        [
            "**91.00 %**, **92.00 %** (91.50 ± 0.71)",
            "[91 to 92 s, on a](records/README.md#a_seed0-a_seed1)",
            "`--epochs 3`",
        ],
        ["**90.00 %**", "[90 s, on b](records/README.md#b)", "`--epochs 3`"],
        ["**60.00 %**", "[60 s, on d](records/README.md#c-d)", "`--lr 2`"],
    ]
    assert page.startswith(f"before\n{START}\n\n#### DGCNN\n")
    assert page.endswith(f"\n\n{END}\nafter")
    with pytest.raises(ValueError, match="README.md does not name e"):
        with_tables(page, records, [made[0]._replace(name="e")], [])
    with pytest.raises(ValueError, match="benchmarks.md has no lines"):
        with_tables("a page", records, made, [])


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
