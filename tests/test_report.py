"""A run's page says what the network does and what the run folder holds, and opens only the split that it may."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import PointNetPartSegmenter
from pointnet import __main__ as command_line
from pointnet.commands.train_flags import parse_command
from pointnet.datasets import LabelledClouds
from pointnet.evaluation.analysis import ORDERS, SHARES, Analysis
from pointnet.evaluation.metrics import likely
from pointnet.models import load_model
from pointnet.pages import report, report_sections
from pointnet.pages.report import read_run, write_report
from pointnet.training import fit
from pointnet.training.fit import training_parts
from tests.chromium import DARK, needs_chromium, visit
from tests.helpers import HOSTILE, analysed_network, error_of, quiet, tiny, two_shapes
from tests.pages import Page, views_of, words


@pytest.fixture
def splits(monkeypatch) -> dict:
    """Two shapes in place of a data set, by split, and in "opened" the splits that were opened."""
    found = {"train": two_shapes(per_class=8), "test": two_shapes(per_class=6, seed=1), "opened": []}

    def open_two(name, root, split, **options):
        found["opened"].append(split)
        return found[split]

    monkeypatch.setattr(report, "open_dataset", open_two)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs, one that was tested and one that did not open the test split."""
    out = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    train, test = two_shapes(per_class=8), two_shapes(per_class=6, seed=1)
    fit(tiny(out / "tested", epochs=2, val_fraction=0.5, width=0.2), train, test, log=quiet)
    fit(tiny(out / "untested", epochs=1, val_fraction=0.5, width=0.2, test=False), train, log=quiet)
    return out


@pytest.fixture
def tested(trained, tmp_path):
    shutil.copytree(trained / "tested", tmp_path / "tested")
    return tmp_path / "tested"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysed_network(40, 48)[2]


def show(monkeypatch, analysis: Analysis) -> None:
    """Has each report made of this analysis."""
    monkeypatch.setattr(report, "evaluation_data", lambda *arguments: ("test", analysis.data, []))
    monkeypatch.setattr(report, "analyse", lambda *arguments: analysis)


def change_result(run, change) -> None:
    path = run / "result.json"
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))


def test_a_run_that_was_tested_is_evaluated_on_the_test_split_and_agrees_with_itself(tested, splits):
    made = write_report(tested, device="cpu")
    assert made.page == tested / "report" / "index.html"
    assert splits["opened"] == ["test"]
    result = made.analysis.confusion.result()
    assert result == json.loads((tested / "result.json").read_text())["test"]
    text = words(made.page).sections["result"]
    assert f"{result['overall_accuracy']:.2%}of {result['count']} test shapes right" in text
    assert f"{result['mean_class_accuracy']:.2%}mean over classes" in text
    low, high = likely(result["overall_accuracy"], result["count"])
    assert f"{result['count']} shapes tell no more than that the accuracy is between {low:.1%} and {high:.1%}" in text
    assert "the figures are those that the run reported" in text
    assert "It is one run, of seed 0." in text


def test_a_run_that_left_the_test_split_unopened_is_evaluated_on_its_own_validation_split(trained, tmp_path, splits):
    made = write_report(trained / "untested", tmp_path / "page", device="cpu")
    assert splits["opened"] == ["train"]
    assert torch.equal(made.analysis.data.points, training_parts(splits["train"], made.run.config)[1].points)
    result = json.loads((trained / "untested" / "result.json").read_text())["val"]
    assert made.analysis.confusion.result()["overall_accuracy"] == result["overall_accuracy"]
    page = words(made.page)
    assert "The test split was not opened." in page.sections["result"]
    assert "the figures are those that the run reported" in page.sections["result"]
    assert "evaluate" not in page.sections["how-to-reproduce-it"], "which would open it"


def test_a_run_that_is_not_finished_leaves_the_test_split_unopened_too(tested, splits):
    (tested / "result.json").unlink()
    made = write_report(tested, device="cpu")
    assert (made.split, splits["opened"]) == ("val", ["train"])
    assert "The run is not finished: 2 of its 2 epochs are done." in words(made.page).sections["result"]


def test_files_are_named_from_the_root_of_their_data_set(tested, splits):
    splits["test"].files = [Path("my") / "set" / "disc" / f"{i}.off" for i in range(12)]
    assert report.evaluation_data(read_run(tested), "my/set", False)[1].name_of(3) == str(Path("disc") / "3.off")


def test_a_result_that_differs_from_what_the_run_reported_is_named(tested, splits):
    change_result(tested, lambda result: result["test"].update(overall_accuracy=0.125))
    text = words(write_report(tested, device="cpu").page).sections["result"]
    assert "The run itself reported 12.50%" in text


def test_the_tables_are_those_of_the_analysis(analysis, tested, monkeypatch):
    show(monkeypatch, analysis)
    page = words(write_report(tested, device="cpu").page)
    counts, classes = analysis.confusion.counts, analysis.data.classes
    heads, *rows = page.tables["confusion matrix"]
    assert heads[1:] == [row[0] for row in rows] == list(classes)
    assert [[int(cell or 0) for cell in row[1:]] for row in rows] == counts.tolist()

    _, *rows = page.tables["classes classes"]
    assert sorted(row[0] for row in rows) == sorted(classes)
    shares = []
    for name, share, shapes, predicted in rows:
        true = classes.index(name)
        right, total = map(int, shapes.split(" of "))
        assert (right, total) == (int(counts[true, true]), int(counts[true].sum()))
        assert share == f"{right / total:.0%}"
        shares.append(right / total)
        for other in predicted.split(", "):
            assert int(counts[true, classes.index(other[:-2])]) == int(other[-1])
    assert shares == sorted(shares)
    assert np.mean(shares) == pytest.approx(analysis.confusion.result()["mean_class_accuracy"])

    _, *rows = page.tables["points-dropped figures"]
    assert [row[1:] for row in rows] == [[f"{analysis.dropped[o][i]:.2%}" for o in ORDERS] for i in range(len(SHARES))]
    assert "0 of 40 answers change" in page.sections["points-dropped"]


def test_the_worst_mistakes_are_clouds_with_their_critical_points(analysis, tested, monkeypatch):
    show(monkeypatch, analysis)
    monkeypatch.setattr(report_sections, "MOST_MISTAKES", 8)
    data = analysis.data

    shown = views_of(write_report(tested, device="cpu").page)
    assert len(shown) == 8 < len(analysis.mistakes)
    for index, view in zip(analysis.mistakes.tolist(), shown, strict=False):
        np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), data.points[index].T, atol=1e-3)
        assert view["critical"] == analysis.critical[index].nonzero()[:, 0].tolist()
        true, predicted = data.classes[int(data.labels[index])], data.classes[int(analysis.predicted[index])]
        assert re.fullmatch(rf"{true} → {predicted}: \d+%, not \d+% \(no\. {index}\)", view["name"])
    monkeypatch.setattr(report_sections, "MOST_POINTS", 3 * 48)
    assert len(views_of(write_report(tested, device="cpu").page)) == 3


def test_errors_on_corrupted_clouds_are_shown_where_they_are_asked_for(tested, splits, capsys):
    made = write_report(tested, device="cpu", corruptions=6)
    page, found = words(made.page), made.analysis.corrupted
    _, clean, *rows = page.tables["corrupted-clouds classes"]
    assert clean[:2] == ["clean", f"{found['clean'].mean():.0%}"]
    for row, (name, wrong) in zip(rows, list(found.items())[1:], strict=True):
        assert row == [name, *(f"{share:.0%}" for share in (wrong.mean(), *wrong.mean(1)))]
    assert "6 of the 12 test shapes" in page.sections["corrupted-clouds"]
    assert page.listings[1].endswith("report runs/again --corruptions 6")
    command = ["report", str(tested), "--device", "cpu", "--corruptions"]
    assert "must be at least 0, got -1" in error_of(capsys, command_line.main, [*command, "-1"])
    config = (tested / "config.json").read_text()
    (tested / "config.json").write_text(config.replace("unit sphere", "as given"))
    assert "its network takes others" in error_of(capsys, command_line.main, command)


def test_a_run_without_mistakes_says_so(tested, splits):
    splits["test"] = LabelledClouds(splits["test"].points[:1], torch.tensor([0]), ("disc", "rod"))
    predicted = load_model(tested)(splits["test"].points).argmax()
    splits["test"].labels[:] = predicted
    page = words(write_report(tested, device="cpu").page)
    assert "There are none: all 1 test shapes are right." in page.sections["worst-mistakes"]
    assert f"There is no shape of {('rod', 'disc')[int(predicted)]}." in page.sections["classes"]


def test_without_its_data_the_page_has_the_rest(tested, capsys):
    config = (tested / "config.yaml").read_text()
    (tested / "config.yaml").write_text(config.replace("dataset: shapes", "dataset: modelnet40"))
    assert command_line.main(["report", str(tested), "--root", str(tested / "nowhere"), "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"wrote {tested / 'report' / 'index.html'}\n"
    (line,) = printed.err.splitlines()
    assert line.startswith(f"nothing evaluated: {tested / 'nowhere'}: no such folder; --root must name")
    page = words(tested / "report" / "index.html")
    assert list(page.sections) == ["result", "training", "settings", "how-to-reproduce-it"]
    result = json.loads((tested / "result.json").read_text())["test"]
    assert "Nothing was evaluated for this page: " in page.sections["result"]
    assert f"{result['overall_accuracy']:.2%}right on test, as the run reported" in page.sections["result"]


def test_other_classes_or_nothing_held_out_are_named(tested, splits):
    splits["test"].classes = ("disc", "pole")
    assert "its classes are not those of shapes in data: it has no 'pole'" in write_report(tested, device="cpu").missing
    config = (tested / "config.yaml").read_text()
    (tested / "config.yaml").write_text(config.replace("val_fraction: 0.5", "val_fraction: 0"))
    change_result(tested, lambda result: result.update(test=None))
    assert "the run held out no validation split" in write_report(tested, device="cpu").missing
    assert splits["opened"] == ["test", "train"]


def test_the_page_of_several_seeds_is_of_the_first_with_the_accuracies_of_all(tested, tmp_path, splits):
    accuracies = {3: 0.25, 12: 0.75}
    for seed, accuracy in accuracies.items():
        folder = tmp_path / "both" / f"seed-{seed}"
        shutil.copytree(tested, folder)
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("seed: 0", f"seed: {seed}"))
        change_result(folder, lambda result, accuracy=accuracy: result["test"].update(overall_accuracy=accuracy))
    for folder, seed in ((tmp_path / "both", 3), (tmp_path / "both" / "seed-12", 12)):
        made = write_report(folder, device="cpu")
        assert made.page == folder / "report" / "index.html"
        assert made.run.config.seed == seed
        page = words(made.page)
        text = page.sections["result"]
        assert f"2 runs differ in their seed alone. Everything else on this page is of seed {seed}." in text
        assert "It is one run" not in text
        rows = page.tables["result figures"]
        assert [row[0] for row in rows] == ["seed", "3", "12", "mean ± std"]
        assert rows[-1][1] == f"50.00 ± {np.std([25, 75], ddof=1):.2f}%"
    (tmp_path / "both" / "seed-3" / "result.json").unlink()
    assert read_run(tmp_path / "both").config.seed == 12, "the first that is finished"


def test_settings_environment_and_commands_are_those_of_the_run(tested, splits):
    page = words(write_report(tested, device="cpu").page)
    changed = {row[0]: row[1:] for row in page.tables["settings words"]}
    assert (changed["epochs"], "seed" in changed) == (["2", "20"], False)
    assert page.listings[0] == (tested / "config.yaml").read_text()
    for row in (["torch", torch.__version__, torch.__version__], ["precision", "fp32", "fp32"]):
        assert row in page.tables["settings words'"]
    change_result(tested, lambda result: [result.pop(name) for name in ("environment", "seconds")])  # an older run
    again = words(write_report(tested, device="cpu").page)
    assert ["torch", "not recorded", torch.__version__] in again.tables["settings words'"]

    again, evaluated, reported = map(shlex.split, page.listings[1].splitlines())
    assert again[:2] == ["python", "train.py"]
    assert parse_command(again[2:]).config == dataclasses.replace(read_run(tested).config, out="runs/again")
    assert evaluated == "python -m pointnet evaluate runs/again".split()
    assert reported == "python -m pointnet report runs/again".split()


def test_names_are_text_whatever_they_say(analysis, tested, monkeypatch):
    structures = []
    for names, folder in (("abcde", "plain"), (HOSTILE, "<b>&")):
        data = LabelledClouds(analysis.data.points, analysis.data.labels, tuple(names))
        show(monkeypatch, analysis._replace(data=data))
        run = shutil.copytree(tested, tested.parent / folder)
        root = json.dumps("".join(names).replace("\n", ""))
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("root: data", f"root: {root}"))
        page = Page.read(write_report(run, device="cpu").page)
        structures.append([tag for tag, _ in page.elements])
        assert page.texts["h1"] == folder
        assert all(re.search(r" → ", view["name"]) for view in page.views())
    assert structures[0] == structures[1]


def test_the_page_requests_nothing(tested, splits):
    page = Page.read(write_report(tested, device="cpu").page)
    assert page.requested() == [f"#{named['id']}" for tag, named in page.elements if tag == "section"]


def show_forty_classes(monkeypatch, count: int) -> None:
    """Has the page made of so many clouds of 1,024 points in 40 classes, most of them misclassified."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(40, (count,), generator=generator)
    data = LabelledClouds(torch.rand(count, 3, 1024, generator=generator), labels, [f"class_{i}" for i in range(40)])
    probabilities = torch.rand(count, 40, generator=generator).softmax(1)
    dropped = {order: [share + i / 10 for share in SHARES[::-1]] for i, order in enumerate(ORDERS)}
    critical = torch.rand(count, 1024, generator=generator) < 0.5
    show(monkeypatch, Analysis(data, probabilities, critical, 0, dropped))


def test_a_page_of_modelnet40s_size_is_under_a_megabyte(tested, monkeypatch):
    show_forty_classes(monkeypatch, 2468)
    assert write_report(tested, device="cpu").page.stat().st_size < 1e6


@needs_chromium
@pytest.mark.parametrize(
    ("width", "flags"),
    [(1200, ()), (500, (DARK,))],
    ids=["wide-light", "narrow-dark"],
)
def test_a_browser_shows_the_page_without_complaint(tested, tmp_path, monkeypatch, width, flags):
    show_forty_classes(monkeypatch, 200)
    page = write_report(tested, device="cpu").page
    asked = "if (document.documentElement.scrollWidth > innerWidth) console.log('too wide');"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{asked}</script></body>"))
    seen = visit(page, tmp_path, (width, 5000), "", *flags)
    assert seen.console == []
    assert seen.requests == []
    paper = seen.picture[0, 0]
    assert (paper > 0.9).all() == (not flags)
    drawn = (np.abs(seen.picture - paper).max(2) > 0.1).mean(1)  # of each row of pixels
    bands = drawn[:4000].reshape(-1, 250).max(1)
    assert (bands > 0.01).all(), "a part of the page is blank"


def put_a_segmenter(run):
    model = PointNetPartSegmenter(num_parts=4, num_categories=2)
    model.classes, model.preprocessing = ("a", "b", "c", "d"), {"num_points": 32}
    for name in ("config.json", "model.safetensors"):
        (run / name).unlink()
    model.save_pretrained(run)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), ": no such folder; a report is of a run folder"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl: no "),
        (lambda run: (run / "config.yaml").write_text("epochs: 0"), "config.yaml: epochs must be at least 1, got 0"),
        (lambda run: (run / "config.json").unlink(), "config.json: no model here"),
        (lambda run: (run / "model.safetensors").write_bytes(b"PK"), "model.safetensors: "),
        (lambda run: (run / "result.json").write_text('{"test": null, "seconds": "many"}'), "result.json: damaged"),
        (lambda run: (run / "result.json").write_text("[" * 100_000), "result.json: damaged"),
        (put_a_segmenter, "a report is of a classifier, got a PointNetPartSegmenter"),
        (lambda run: (run / "report").touch(), "report"),
    ],
)
def test_a_folder_that_is_no_run_or_a_damaged_one_is_one_line(tested, splits, capsys, spoil, message):
    spoil(tested)
    assert message in error_of(capsys, command_line.main, ["report", str(tested), "--device", "cpu"])
    assert not (tested / "report" / "index.html").exists()


def test_the_command_says_how_good_it_is_and_where_the_page_is(tested, tmp_path, splits, capsys):
    out = tmp_path / "page"
    assert command_line.main(["report", str(tested), "--out", str(out), "--device", "cpu"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    result = json.loads((tested / "result.json").read_text())["test"]
    assert first.startswith(f"{result['overall_accuracy']:.2%} of 12 test shapes right")
    assert second == f"wrote {out / 'index.html'}"
    assert [path.name for path in out.iterdir()] == ["index.html"]
