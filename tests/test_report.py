"""A run's page: what it says is what the network does and what the run folder holds, and it opens what it may."""

import dataclasses
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from pointnet import PointNetClassifier, PointNetPartSegmenter
from pointnet import __main__ as command_line
from pointnet.datasets import LabelledClouds, open_dataset
from pointnet.evaluation.evaluate import evaluate
from pointnet.models import load_model
from pointnet.pages import charts, measure, report
from pointnet.pages.charts import Curve, line_chart, ticks
from pointnet.pages.measure import ORDERS, SHARES, Measured
from pointnet.pages.report import read_run, write_report
from pointnet.training import fit
from pointnet.training.curves import read_metrics
from pointnet.training.fit import training_parts
from pointnet.training.recipes import RECIPES
from pointnet.training.seeds import run_seeds
from pointnet.training.settings import TrainConfig, parse_command, to_words
from tests.chromium import DARK, needs_chromium, visit
from tests.helpers import HOSTILE, SAMPLES, Page, error_of, quiet, tiny, trained_looking, two_shapes

CLASSES = ("class a", "class b", "class c", "class d", "class e")


def random_clouds(count: int, points: int) -> LabelledClouds:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(len(CLASSES), (count,), generator=generator)
    clouds = torch.randn(count, 3, points, generator=generator)
    clouds[:, :, 1::2] *= 0.03  # deep within, where few points win a max
    return LabelledClouds(clouds, labels, CLASSES)


@pytest.fixture(scope="module")
def judged() -> tuple[PointNetClassifier, LabelledClouds, Measured]:
    """A network that looks trained, T-Nets included, what it is measured on, more than a batch, and what came of it."""
    torch.manual_seed(0)
    model, data = trained_looking(PointNetClassifier(5)).float(), random_clouds(40, 48)
    with torch.no_grad():  # as likely to say one class as another, and right more often than not
        logits = model(data.points)
        model.logits.bias -= logits.mean(0)
        data.labels[:25] = model(data.points).argmax(1)[:25]
    return model, data, measure.measure(model, data)


# What is measured.


def test_the_confusion_matrix_counts_every_cloud_once(judged):
    _, data, measured = judged
    counts = measured.confusion.counts
    assert torch.equal(counts.sum(1), data.labels.bincount(minlength=5))
    assert torch.equal(counts.sum(0), measured.predicted.bincount(minlength=5))
    assert int(counts.sum()) == len(data)


def test_the_accuracies_are_those_of_evaluate(judged):
    model, data, measured = judged
    wanted = evaluate(model, data)
    assert {name: wanted[name] for name in measured.confusion.result()} == measured.confusion.result()
    assert 0 < wanted["overall_accuracy"] < 1


def test_with_nothing_dropped_every_order_has_the_accuracy_of_the_whole(judged):
    _, data, measured = judged
    whole = measured.confusion.result()["overall_accuracy"]
    assert SHARES[0] == 0
    assert [measured.dropped[order][0] for order in ORDERS] == [whole] * 3


def test_the_critical_points_alone_change_no_answer_and_others_do(judged, monkeypatch):
    model, data, measured = judged
    assert measured.changed == 0
    assert measured.critical.any(1).all()
    assert not measured.critical.all(1).any()
    monkeypatch.setattr(measure, "critical_points", lambda model, x: torch.rand(x.shape[0], x.shape[2]) < 0.1)
    assert measure.measure(model, data).changed > 0


def test_what_is_left_is_what_the_order_leaves(judged):
    """By the definition: the network itself, in float64, on the points that a mask of each cloud lets through."""
    model, data, measured = judged
    exact = PointNetClassifier(5).double().eval()
    exact.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    chance = torch.cat([torch.rand(len(rows), 48, generator=generator) for rows in torch.arange(40).split(32)])
    last = {
        "at random": 0 * measured.critical,
        "critical first": ~measured.critical,
        "critical last": measured.critical,
    }
    for order in ORDERS:
        ranks = [sorted(range(48), key=lambda j, i=i: (int(last[order][i, j]), chance[i, j])) for i in range(40)]
        for share, found in zip(SHARES, measured.dropped[order], strict=True):
            stays = torch.ones(40, 48, dtype=torch.bool)
            for i, rank in enumerate(ranks):
                stays[i, rank[: round(48 * share)]] = False
            left = torch.stack([cloud[:, mask] for cloud, mask in zip(data.points.double(), stays, strict=True)])
            with torch.no_grad():
                right = (exact(left).argmax(1) == data.labels).sum()
            assert found == int(right) / 40, (order, share)
    assert len({tuple(accuracies) for accuracies in measured.dropped.values()}) == 3


def test_critical_points_last_cost_nothing_while_all_of_them_are_there(judged):
    _, data, measured = judged
    least = int(measured.critical.sum(1).max())
    spared = [i for i, share in enumerate(SHARES) if 48 - round(48 * share) >= least]
    assert {measured.dropped["critical last"][i] for i in spared} == {measured.dropped["critical last"][0]}


def test_measuring_is_repeated_exactly_and_leaves_the_model_as_it_was(judged):
    model, data, measured = judged
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = measure.measure(model, data)
    assert again.dropped == measured.dropped
    assert torch.equal(again.probabilities, measured.probabilities)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("points", [1, 2, 7])
def test_clouds_of_few_points_keep_at_least_one(judged, points):
    model, data, _ = judged
    measured = measure.measure(model, LabelledClouds(data.points[:3], data.labels[:3], data.classes, points))
    assert measured.critical.shape == (3, points)
    assert measured.changed == 0
    if points == 1:
        assert len({accuracy for order in ORDERS for accuracy in measured.dropped[order]}) == 1


def test_the_worst_mistakes_come_first(judged):
    _, data, measured = judged
    worst = measured.mistakes
    assert set(worst.tolist()) == set((measured.predicted != data.labels).nonzero()[:, 0].tolist())
    truth = measured.probabilities[worst, data.labels[worst]]
    assert (truth.diff() >= 0).all()


# The page.


class Words(HTMLParser):
    """The words of a page's tables, row by row, and of its sections, by their anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.sections: dict[str, str] = {}
        self.listings: list[str] = []  # what is in <pre>
        self.table = self.section = ""
        self.listing = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "section":
            self.section = named["id"]
            self.sections[self.section] = ""
        elif tag == "table":
            self.table = f"{self.section} {named['class']}"
            self.table += "'" * (self.table in self.tables)
            self.tables[self.table] = []
        elif tag == "pre":
            self.listing = True
            self.listings.append("")
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append("")
        elif tag == "script":
            self.section = ""

    def handle_endtag(self, tag):
        if tag == "table":
            self.table = ""
        elif tag == "pre":
            self.listing = False

    def handle_data(self, data):
        if self.table and self.tables[self.table]:
            self.tables[self.table][-1][-1] += data
        if self.listing:
            self.listings[-1] += data
        if self.section:
            self.sections[self.section] += data


def words(path) -> Words:
    return Words(path.read_text(encoding="utf-8"))


@pytest.fixture
def parts(monkeypatch) -> dict[str, LabelledClouds]:
    """Two shapes in place of a data set, and in "opened" which of its parts were opened."""
    found = {"train": two_shapes(per_class=8), "test": two_shapes(per_class=6, seed=1)}
    found["opened"] = []

    def open_two(name, root, split, *options):
        found["opened"].append(split)
        return found[split]

    monkeypatch.setattr(report, "open_dataset", open_two)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs, one that measured the test part and one that did not open it."""
    out = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    train, test = two_shapes(per_class=8), two_shapes(per_class=6, seed=1)
    fit(tiny(out / "tested", epochs=2, val_fraction=0.5), train, test, log=quiet)
    fit(tiny(out / "untested", epochs=2, val_fraction=0.5, test=False), train, log=quiet)
    return out


@pytest.fixture
def tested(trained, tmp_path):
    shutil.copytree(trained / "tested", tmp_path / "tested")
    return tmp_path / "tested"


def test_a_run_that_was_tested_is_judged_on_the_test_part_and_agrees_with_itself(tested, parts):
    made = write_report(tested, device="cpu")
    assert made.page == tested / "report" / "index.html"
    assert parts["opened"] == ["test"]
    result = json.loads((tested / "result.json").read_text())["test"]
    assert made.measured.confusion.result() == result
    text = words(made.page).sections["result"]
    assert f"{result['overall_accuracy']:.2%}of {result['count']} test shapes right" in text
    assert f"{result['mean_class_accuracy']:.2%}mean over classes" in text
    assert "they are what the run itself found" in text
    assert "It is one run, of seed 0." in text


def test_a_run_that_was_told_to_leave_the_test_part_is_judged_on_its_own_validation_part(trained, tmp_path, parts):
    made = write_report(trained / "untested", tmp_path / "page", device="cpu")
    assert parts["opened"] == ["train"]
    _, val = training_parts(parts["train"], made.run.config)
    assert torch.equal(made.measured.data.points, val.points)
    result = json.loads((trained / "untested" / "result.json").read_text())["val"]
    assert made.measured.confusion.result()["overall_accuracy"] == result["overall_accuracy"]
    page = words(made.page)
    assert "The test part was not opened." in page.sections["result"]
    assert "they are what the run itself found" in page.sections["result"]
    assert "evaluate" not in page.sections["how-to-make-it-again"], "which would open it"


def test_a_run_that_is_not_finished_leaves_the_test_part_unopened_too(tested, parts):
    (tested / "result.json").unlink()
    made = write_report(tested, device="cpu")
    assert (made.part, parts["opened"]) == ("val", ["train"])
    assert "The run is not finished: 2 of its 2 epochs are over." in words(made.page).sections["result"]


def test_a_result_that_is_not_what_is_measured_now_is_told(tested, parts):
    path = tested / "result.json"
    result = json.loads(path.read_text())
    result["test"]["overall_accuracy"] = 0.125
    path.write_text(json.dumps(result))
    text = words(write_report(tested, device="cpu").page).sections["result"]
    assert "The run itself found 12.50%: other data, or other rounding." in text


def test_the_tables_are_what_was_measured(judged, tested, monkeypatch):
    _, data, measured = judged
    monkeypatch.setattr(report, "open_part", lambda *arguments: ("test", data))
    monkeypatch.setattr(report, "measure", lambda *arguments: measured)
    page = words(write_report(tested, device="cpu").page)
    counts = measured.confusion.counts
    heads, *rows = page.tables["confusion matrix"]
    assert heads[1:] == [row[0] for row in rows] == list(data.classes)
    assert [[int(cell or 0) for cell in row[1:]] for row in rows] == counts.tolist()

    _, *rows = page.tables["classes classes"]
    assert sorted(row[0] for row in rows) == sorted(data.classes)
    shares = []
    for name, share, shapes, taken in rows:
        true = data.classes.index(name)
        right, total = map(int, shapes.split(" of "))
        assert (right, total) == (int(counts[true, true]), int(counts[true].sum()))
        assert share == f"{right / total:.0%}"
        shares.append(right / total)
        for other in taken.split(", "):
            assert int(counts[true, data.classes.index(other[:-2])]) == int(other[-1])
    assert shares == sorted(shares)
    assert np.mean(shares) == pytest.approx(measured.confusion.result()["mean_class_accuracy"])

    _, *rows = page.tables["points-dropped figures"]
    assert [row[1:] for row in rows] == [[f"{measured.dropped[o][i]:.2%}" for o in ORDERS] for i in range(len(SHARES))]
    assert f"change 0 of {len(data)} answers" in page.sections["points-dropped"]


def test_the_worst_mistakes_are_there_to_turn_with_their_critical_points(judged, tested, monkeypatch):
    _, data, measured = judged
    monkeypatch.setattr(report, "open_part", lambda *arguments: ("test", data))
    monkeypatch.setattr(report, "measure", lambda *arguments: measured)
    monkeypatch.setattr(report, "MOST_MISTAKES", 8)
    page = write_report(tested, device="cpu").page
    views = Page(page.read_text(encoding="utf-8")).views()
    assert len(views) == 8 < len(measured.mistakes)
    for index, view in zip(measured.mistakes.tolist(), views, strict=False):
        np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), data.points[index].T, atol=1e-3)
        assert view["highlight"] == measured.critical[index].nonzero()[:, 0].tolist()
        true, taken = data.classes[int(data.labels[index])], data.classes[int(measured.predicted[index])]
        assert re.fullmatch(rf"{true} → {taken}: \d+%, not \d+% \(no\. {index}\)", view["name"])
    monkeypatch.setattr(report, "MOST_POINTS", 3 * 48)
    page = write_report(tested, device="cpu").page
    assert len(Page(page.read_text(encoding="utf-8")).views()) == 3


def test_a_run_without_mistakes_says_so(tested, parts):
    parts["test"] = LabelledClouds(parts["test"].points[:1], torch.tensor([0]), ("disc", "rod"))
    sure = load_model(tested)(parts["test"].points).argmax()
    parts["test"].labels[:] = sure
    page = words(write_report(tested, device="cpu").page)
    assert "There are none: all 1 test shapes are right." in page.sections["worst-mistakes"]
    assert f"There is no shape of {('rod', 'disc')[int(sure)]}." in page.sections["classes"]


def test_without_its_data_the_page_has_the_rest(tested, capsys):
    settings = (tested / "config.yaml").read_text()
    (tested / "config.yaml").write_text(settings.replace("dataset: shapes", "dataset: modelnet40"))
    assert command_line.main(["report", str(tested), "--root", str(tested / "nowhere"), "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"wrote {tested / 'report' / 'index.html'}\n"
    (line,) = printed.err.splitlines()
    assert line.startswith(f"nothing measured: {tested / 'nowhere'}: no such folder; --root must name")
    page = words(tested / "report" / "index.html")
    assert list(page.sections) == ["result", "training", "settings", "how-to-make-it-again"]
    result = json.loads((tested / "result.json").read_text())["test"]
    assert "Nothing was measured for this page: " in page.sections["result"]
    assert f"{result['overall_accuracy']:.2%}right on test, as the run measured it" in page.sections["result"]


def test_other_classes_or_nothing_held_out_are_told(tested, parts, tmp_path):
    parts["test"].classes = ("disc", "pole")
    made = write_report(tested, device="cpu")
    assert made.missing.endswith("its classes are not those of shapes in data: 'pole' is in one alone")
    config = tiny(tmp_path / "all", epochs=1, val_fraction=0, test=False)
    fit(config, parts["train"], log=quiet)
    made = write_report(tmp_path / "all", device="cpu")
    assert "held nothing out to measure it on, and did not open the test part" in made.missing
    assert "test" not in parts["opened"][1:]


def test_several_seeds_are_told_and_the_page_is_of_the_first(tmp_path, parts):
    config = tiny(tmp_path / "four", epochs=1)
    summary = run_seeds(
        config, [12, 3], lambda one, resume: fit(one, parts["train"], parts["test"], resume, quiet), log=quiet
    )
    for folder, seed in ((tmp_path / "four", 3), (tmp_path / "four" / "seed-12", 12)):
        made = write_report(folder, device="cpu")
        assert made.page == folder / "report" / "index.html"
        assert made.run.config.seed == seed
        page = words(made.page)
        text = page.sections["result"]
        assert f"2 runs differ in their seed alone. Everything else on this page is of seed {seed}." in text
        assert "It is one run" not in text
        assert f"{made.measured.confusion.result()['overall_accuracy']:.2%}" in text
        rows = page.tables["result figures"]
        assert [row[0] for row in rows] == ["seed", "3", "12", "mean ± std"]
        mean = summary["test"]["overall_accuracy"]
        assert rows[-1][1] == f"{mean['mean'] * 100:.2f} ± {mean['std']:.2%}"
    (tmp_path / "four" / "seed-3" / "result.json").unlink()
    assert read_run(tmp_path / "four").config.seed == 12, "the first that is finished"


def test_the_settings_are_those_of_the_run(tested, parts):
    page = words(write_report(tested, device="cpu").page)
    changed = {row[0]: row[1:] for row in page.tables["settings words"]}
    assert changed["epochs"] == ["2", "20"]
    assert "seed" not in changed
    assert page.listings[0] == (tested / "config.yaml").read_text()


def test_where_a_run_ran_is_recorded_and_of_an_older_run_it_is_said_that_it_was_not(tested, parts):
    result = json.loads((tested / "result.json").read_text())
    recorded = result["environment"]
    assert {"pointnet", "torch", "python", "system", "processor", "threads", "device", "processes"} == set(recorded)
    assert (recorded["torch"], recorded["device"], recorded["processes"]) == (torch.__version__, "cpu", 1)
    for older in (False, True):
        if older:
            for name in ("environment", "shares", "seconds", "samples_per_second"):
                del result[name]
            (tested / "result.json").write_text(json.dumps(result))
        rows = words(write_report(tested, device="cpu").page).tables["settings words'"]
        there = "not recorded" if older else torch.__version__
        assert ["torch", there, torch.__version__] in rows


def test_the_commands_are_those_of_the_run(tested, parts):
    listing = words(write_report(tested, device="cpu").page).listings[1]
    again, evaluated, reported = map(shlex.split, listing.splitlines())
    assert again[:2] == ["python", "train.py"]
    assert parse_command(again[2:]).config == dataclasses.replace(read_run(tested).config, out="runs/again")
    assert evaluated == "python -m pointnet evaluate runs/again --dataset shapes --root data".split()
    assert reported == "python -m pointnet report runs/again".split()


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "root": st.sampled_from(["my data", "it's", "-"]),
        "lr": st.floats(1e-8, 10),
        "epochs": st.integers(1, 999),
        "test": st.booleans(),
        "compile": st.booleans(),
        "teacher": st.sampled_from([("a",), ("a b", "c")]),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "dataset": st.sampled_from(["folder", "modelnet10"]),
    },
)


@settings(max_examples=20)
@given(SETTINGS, st.sampled_from([TrainConfig, *RECIPES.values()]))
def test_the_words_of_settings_are_read_back(changes, recipe):
    try:
        config = dataclasses.replace(recipe(), **changes)
    except ValueError:  # a teacher or another's data set
        reject()
    assert parse_command(to_words(config)).config == config


def test_names_are_text_whatever_they_say(tmp_path, monkeypatch):
    structures = []
    for names in (("a", "b", "c", "d", "e"), HOSTILE):
        data = random_clouds(40, 16)
        data.classes = tuple(names)
        monkeypatch.setattr(report, "open_dataset", lambda *options, data=data: data)
        out = tmp_path / f"{len(structures)} {'<b>&' * bool(structures)}"
        config = tiny(out, epochs=1, num_points=16, early_points=0, root="".join(names).replace("\n", ""))
        fit(config, data, data, log=quiet)
        made = write_report(out, device="cpu")
        page = Page(made.page.read_text(encoding="utf-8"))
        structures.append([tag for tag, _ in page.elements])
        assert page.texts["h1"] == out.name
        assert all(re.search(r" → ", view["name"]) for view in page.views())
    assert structures[0] == structures[1]


def test_the_page_asks_for_nothing_outside_itself(tested, parts):
    page = Page(write_report(tested, device="cpu").page.read_text(encoding="utf-8"))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "form"}
    links = [named["href"] for tag, named in page.elements if "href" in named]
    anchors = [f"#{named['id']}" for tag, named in page.elements if tag == "section"]
    assert links == anchors
    assert not [named for _, named in page.elements if {"src", "action"} & set(named)]


def show_forty_classes(monkeypatch, count: int) -> None:
    """Has the page made of so many clouds of 1,024 points in 40 classes, most of them taken for another."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(40, (count,), generator=generator)
    data = LabelledClouds(torch.rand(count, 3, 1024, generator=generator), labels, [f"class_{i}" for i in range(40)])
    probabilities = torch.rand(count, 40, generator=generator).softmax(1)
    dropped = {order: [share + i / 10 for share in SHARES[::-1]] for i, order in enumerate(ORDERS)}
    measured = Measured(data, probabilities, torch.rand(count, 1024, generator=generator) < 0.5, 0, dropped)
    monkeypatch.setattr(report, "open_part", lambda *arguments: ("test", data))
    monkeypatch.setattr(report, "measure", lambda *arguments: measured)


def test_a_page_of_modelnet40s_size_is_under_a_megabyte(tested, monkeypatch):
    show_forty_classes(monkeypatch, 2468)
    assert write_report(tested, device="cpu").page.stat().st_size < 1e6


@needs_chromium
@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 500])
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
    assert (bands > 0.01).all(), "no part of the page is blank"


SLOW = '{"test": null, "val": null, "seconds": "many"}'


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
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl: no metrics here"),
        (lambda run: (run / "metrics.jsonl").write_text("{"), "metrics.jsonl: damaged"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml: no settings of a run here"),
        (lambda run: (run / "config.yaml").write_text("epoch: 3"), "did you mean '--epochs'?"),
        (
            lambda run: (run / "config.yaml").write_text("epochs: x"),
            "config.yaml: epochs must be a whole number",
        ),
        (lambda run: (run / "config.yaml").write_text("lr: null"), "config.yaml: lr must have a value, got none"),
        (lambda run: (run / "config.yaml").write_text("epochs: 0"), "config.yaml: epochs must be at least 1, got 0"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe"), "config.yaml: "),
        (lambda run: (run / "config.yaml").write_text("a: &a [*a]"), "config.yaml: "),
        (lambda run: (run / "config.json").unlink(), "config.json: no model here"),
        (lambda run: (run / "model.safetensors").write_bytes(b"PK"), "model.safetensors: "),
        (
            lambda run: (run / "model.safetensors").unlink(),
            "not a readable safetensors file: No such file or directory",
        ),
        (lambda run: (run / "result.json").write_text("[]"), "result.json: damaged"),
        (lambda run: (run / "result.json").write_text(SLOW), "result.json: damaged"),
        (put_a_segmenter, "a report is of a classifier, got a PointNetPartSegmenter"),
        (lambda run: (run / "report").touch(), "report"),
    ],
)
def test_a_folder_that_is_no_run_or_a_damaged_one_is_one_line(tested, parts, capsys, spoil, message):
    spoil(tested)
    assert message in error_of(capsys, command_line.main, ["report", str(tested), "--device", "cpu"])
    assert not (tested / "report" / "index.html").exists()


def test_a_wrong_call_is_one_line(tested, capsys):
    assert "device must be auto" in error_of(capsys, command_line.main, ["report", str(tested), "--device", "gpu"])
    assert "did you mean '--out'?" in error_of(capsys, command_line.main, ["report", str(tested), "--ouT", "x"])


def test_the_command_says_how_good_it_is_and_where_the_page_is(tmp_path, capsys):
    data = {split: open_dataset("modelnet40", SAMPLES, split, 64) for split in ("train", "test")}
    config = tiny(tmp_path / "run", dataset="modelnet40", root=SAMPLES, epochs=1, num_points=64, early_points=0)
    fit(config, data["train"], data["test"], log=quiet)
    out = tmp_path / "page"
    assert command_line.main(["report", str(tmp_path / "run"), "--out", str(out), "--device", "cpu"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    result = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    share, mean = f"{result['overall_accuracy']:.2%}", f"{result['mean_class_accuracy']:.2%}"
    assert first == f"{share} of 8 test shapes right, {mean} mean over classes"
    assert second == f"wrote {out / 'index.html'}"
    assert [path.name for path in out.iterdir()] == ["index.html"]


# Charts.


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_evenly_apart_and_within(low, span, count):
    high = low + span
    found = ticks(low, high, count)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert 1 <= len(found) <= 3 * count
    assert all(low - slack <= tick <= high + slack for tick in found)
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[:1].repeat(len(steps)), rtol=1e-6, atol=slack)
    if len(steps) and span > 1e-3 * abs(low):
        mantissa = float(f"{steps[0]:e}".split("e")[0])
        assert min(abs(mantissa - round_one) for round_one in (1, 2, 5, 10)) < 1e-3
    assert all(tick == int(tick) for tick in ticks(low, high, count, least=1))


def circles(chart: str) -> list[tuple[float, float, str]]:
    return [(float(x), float(y), told) for x, y, told in re.findall(r'cx="(.*?)" cy="(.*?)"><title>(.*?)<', chart)]


def test_a_chart_shows_every_point_where_it_belongs():
    x, y = [1, 2, 3, 4], [0.5, 2.5, 1.5, float("nan")]
    chart = line_chart("t <1>", [Curve("a & b", x, y, "one")], "epoch", mark=2)
    assert "t &lt;1&gt;" in chart
    assert [told for *_, told in circles(chart)] == [
        f"a &amp; b: {value} at epoch {epoch}" for epoch, value in ((1, 0.5), (2, 2.5), (3, 1.5))
    ]
    (x1, y1, _), (x2, y2, _), (x3, y3, _) = circles(chart)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 > y3 > y2, "up is up"
    assert (y1 - y3) == pytest.approx(y3 - y2, abs=0.2)
    assert charts.LEFT <= x1 < x3 <= charts.WIDTH - charts.RIGHT
    marked = re.search(r'class="mark" points="(.*?),', chart)[1]
    assert float(marked) == x2


@pytest.mark.parametrize("y", [[], [float("nan")], [3.0], [3.0, 3.0], [0.0, float("inf")]])
def test_a_chart_of_little_or_nothing_is_drawn(y):
    chart = line_chart("t", [Curve("a", list(range(len(y))), y, "one")], "epoch")
    assert "nan" not in chart
    assert "inf" not in chart
    assert len(circles(chart)) == sum(map(np.isfinite, y))


def test_the_curves_of_the_page_are_the_lines_of_the_metrics(tested, parts):
    page = write_report(tested, device="cpu").page.read_text(encoding="utf-8")
    told = [told for *_, told in circles(page)]
    for line in read_metrics(tested):
        for name, key, scale in (
            ("training part, while learning", "train_loss", 1),
            ("validation part", "val_loss", 1),
            ("training part, while learning", "train_accuracy", 100),
            ("validation part", "val_overall_accuracy", 100),
            ("points a cloud, in training", "num_points", 1),
        ):
            assert f"{name}: {line[key] * scale:.4g} at epoch {line['epoch']}" in told
