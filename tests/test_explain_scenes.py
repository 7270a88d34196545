"""The scenes of the page that explains: each asks first, its figures are computed, and its words hold when tried."""

import ast
import contextlib
import io
import json
import re

import numpy as np
import pytest
import torch

from pointnet import load_model
from pointnet.ops.aligned import align
from pointnet.pages.explain import POINTS, PROOF, SCRIPTS, SIDE, STYLE, WEIGHTS, WORDS
from tests.chromium import computed, needs_chromium
from tests.helpers import ROOT
from tests.laws import LAWS, page_rows
from tests.pages import Page

PAGE = ROOT / "docs" / "explain.html"
SCENES = [*(f"scene-{number}" for number in range(1, 10)), "tnet"]
PIXELS = SIDE**2


def scene(name: str) -> str:
    text = PAGE.read_text(encoding="utf-8").replace("<wbr>", "")
    return re.search(rf'<section class="scene" id="{name}">(.*?)</section>', text, re.DOTALL)[1]


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_asks_first_and_names_a_test_that_exists(name):
    text = scene(name)
    assert text.index('class="ask"') < text.index('class="then"') < text.index('class="proof"')
    assert (text.count("data-right"), text.count('class="lines"')) == (1, 1)
    assert len(re.findall(r'<button[^>]* data-why="[^"]{10,}">', text)) == 3
    named = re.findall(r'<a href="\.\./(tests/\w+\.py)"><code>\1::(\w+)</code>', text.split('class="proof"')[1])
    assert named
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
    assert "<test>" not in text


@pytest.mark.parametrize("name", SCENES)
def test_the_lines_of_a_scene_print_what_they_say(name):
    code = re.search(r'<pre class="lines">(.*?)</pre>', scene(name), re.DOTALL)[1]
    lines, statements = code.splitlines(), ast.parse(code).body
    assert len(lines) == len(statements)  # one a line
    assert len([each for each in statements if not isinstance(each, ast.Import | ast.ImportFrom)]) <= 3
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().strip() == lines[-1].rsplit("  # ", 1)[1]


def test_what_the_page_links_to_is_there_and_on_the_site():
    text = PAGE.read_text(encoding="utf-8")
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGE.parent.glob("*.md"))
    for link in set(Page.read(PAGE).requested()):
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in text, link
        else:
            assert (PAGE.parent / link).is_file(), link
            assert f"]({link})" in pages, link  # the site copies what its pages link to


def test_no_figure_is_typed_into_the_words():
    words = re.sub(r"<(code|pre)\b.*?</\1>|<[^>]*>", " ", WORDS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"[\d,]*\d{3,}", words) == []
    scripts = "".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    assert re.findall(r"\b\d{1,3},\d{3}\b|\b784\b", scripts) == []


def test_the_figures_of_the_words_are_those_of_the_network():
    model = load_model(WEIGHTS)
    matrices = [weight.detach().flatten(1) for weight in model.parameters() if weight.ndim > 1]
    column = sum(weight.numel() for weight in matrices[:5])
    answer = sum(weight.numel() for weight in matrices[5:])
    assert matrices[4].shape[0] == model.encoder(torch.rand(1, 3, 9)).shape[1] == matrices[5].shape[1]
    said = f"{(column + answer) / 1e6:.1f} of {(POINTS * column + answer) / 1e6:.1f} million multiplications"
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(said) == 2
    assert 100 * (column + answer) < POINTS * column + answer  # less than a hundredth
    for part in (matrices[:5], matrices[5:]):
        assert f"{sum(weight.numel() for weight in part) / 1e6:.1f}" in text.split("(column ")[1].split(")")[0]
        assert " → ".join(f"{width:,}" for width in (part[0].shape[1], *(each.shape[0] for each in part))) in text


def test_the_factor_of_the_percentages_is_one_over_the_temperature():
    temperature = load_model(WEIGHTS).preprocessing["temperature"]
    assert re.search(r'id="k">([\d.]+)<', scene("scene-7"))[1] == f"{1 / temperature:.2f}"


def test_the_laws_are_shown_before_the_guess_at_how_many_fail():
    asked = scene("scene-9").split('class="row choices"')[0]
    plain = json.loads(PROOF.read_text(encoding="utf-8"))["plain"]
    assert re.findall(r"<li>(.*?)</li>", asked) == plain


def test_the_table_of_faults_is_the_one_that_was_measured():
    proof = json.loads(PROOF.read_text(encoding="utf-8"))
    names = list(LAWS)
    assert proof["laws"] == [law.__doc__ for law in LAWS.values()]
    assert len(proof["plain"]) == len(names)
    assert [(title, [names[i - 1] for i in caught]) for title, caught, _ in proof["rows"]] == [*page_rows()]
    assert all(why.endswith(".") for *_, why in proof["rows"])
    assert len(set(proof["first"]) & {title for title, *_ in proof["rows"]}) == 6


def test_a_reader_without_scripts_sees_all():
    hiding = [line for line in STYLE.read_text(encoding="utf-8").splitlines() if ".then" in line and "none" in line]
    assert hiding == ["  @media screen { .asks .scene:not(.answered) > .then { display: none; } }"]
    assert "asks" not in re.findall(r'class="([^"]*)"', WORDS.read_text(encoding="utf-8"))


# What a browser shows, in one visit.

CLOUD, MATRIX = (np.random.default_rng(0).normal(size=shape).round(3) for shape in ((5, 3), (3, 3)))
ASKED = """
  const shown = section => getComputedStyle(section.querySelector(".then")).display !== "none";
  const asked = all(".scene").map((section, i) => {
    const buttons = all(".choices button", section), before = shown(section);
    const chosen = [0, 1, 2, 3].find(n => [n === 3, n < 3 && "right" in buttons[n].dataset, n < 3][i % 3]);
    buttons[chosen].click();
    const right = buttons.find(button => "right" in button.dataset);
    return {before, after: shown(section), kind: ["show", "right", "first"][i % 3], hit: buttons[chosen] === right,
            right: right.textContent, reply: section.querySelector(".reply").textContent};
  });
  const sliders = all("input[type=range]").map(({value, nextElementSibling: beside}) => [value, beside.textContent]);
  document.documentElement.style.width = "390px";
  const wide = document.querySelector("main").scrollWidth;
  document.documentElement.style.width = "";"""
TRIED = f"""
  const sizes = [PIXELS, POINTS, WIDTHS[WIDTHS.length - 1], TRIES];
  const lost = [4, 7, 1024].map(misplaced), labels = part("far").textContent;
  const rows = aligned({CLOUD.tolist()}, {MATRIX.tolist()});
  const press = id => part(id).click(), words = id => part(id).textContent;
  const plain = [];
  for (const id of ["swap-points", "add-point"]) {{ press(id); plain.push(words("again")); }}
  const columns = part("columns").querySelectorAll("tbody tr").length - 2;
  plane.runTo(1);
  const cells = all("tbody tr:last-child td", part("columns")).map(td => td.textContent);
  const run = [words("run-in"), words("run-out"), cells];
  const sums = [0, 1, 2].map(c => {{
    const slider = all("#class-weights input")[c], before = words("tied");
    slider.value = 2;
    slider.dispatchEvent(new Event("input"));
    return before !== words("tied");
  }});
  const signs = [-0.04, 0.04, -0.05, -1].map(value => decimals(value, 1));
  const inked = [clearInk, drawSeven].flatMap(ink => {{
    ink();
    changedInk();
    return [1, 2].map(() => {{ press("shuffle-pixels"); return words("tied-status"); }});
  }});
  press("whole");
  const timed = words("live-time");
  performance.now = () => 0;
  press("whole");
  const stopped = words("live-time");
  delete performance.now;
  const [right, up] = live.view.axes();
  live.move(live.view.chosen, right.map((v, i) => 9 * (v + up[i])));
  const {{canvas}} = live.view, [x, y] = live.view.project(live.cloud.points[live.view.chosen]);
  const inside = x > 0 && x < canvas.width && y > 0 && y < canvas.height;
  const bars = all("#live-shares i").map(bar => bar.style.width), scores = all("#live-shares b");
  const drawn = bars.map((bar, i) => [parseFloat(bar), +scores[i].textContent]);
  press("back");
  all("[data-made]")[1].click();
  const mixed = [words("mixed"), words("first-column")];
  const missing = [1, 2, 3].map(() => {{
    press("afresh"); press("half");
    return [critical.cloud.points.length, network.classes[critical.cloud.best]];
  }});
  press("afresh"); press("only");
  const alone = [critical.cloud.points.length, words("critical-words")];
  press("afresh");
  const wrong = [];
  while (wrong.length < 9 && critical.cloud.best === critical.whole.best) {{
    press("far"); wrong.push(critical.cloud.points.length);
  }}
  all("#faults button").find(button => button.textContent === "mean instead of max").click();
  const before = [words("caught"), all("#laws .red, #laws .green").length];
  all("#laws input").forEach((box, i) => {{ box.checked = i === 0 || i === 7; }});
  press("look");
  const after = [words("caught"), words("fault-why"), all("#laws li").map(item => item.className)];
  document.documentElement.style.width = "390px";
  for (let i = 0; i < 10; i++) press("add-point");
  const heads = all("#columns thead th").slice(-2).map(head => head.getBoundingClientRect());
  const [number, gap] = [plane.points.length, heads[1].left - heads[0].right];
  document.documentElement.style.width = "";
  return {{asked, sliders, wide, sizes, lost, labels, rows, plain, columns, run, sums, timed, mixed, missing, alone,
           wrong, before, after, stopped, inside, drawn, signs, inked, ten: [number, gap]}};"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> dict:
    return computed(PAGE, tmp_path_factory.mktemp("tried"), ASKED + TRIED, (500, 800))


@needs_chromium
def test_a_scene_is_hidden_until_it_is_answered(tried):
    assert len(tried["asked"]) == len(SCENES)
    for asked in tried["asked"]:
        assert (asked["before"], asked["after"]) == (False, True)
        start = {"show": "The answer: ", "right": "Yes. ", "first": "Yes. " if asked["hit"] else "Not quite. "}
        assert asked["reply"].startswith(start[asked["kind"]]), asked
        assert asked["hit"] or asked["right"] in asked["reply"]


@needs_chromium
def test_a_slider_shows_its_value_and_no_scene_is_wider_than_a_phone(tried):
    assert len(tried["sliders"]) >= 11
    assert all(value == beside for value, beside in tried["sliders"])
    assert tried["wide"] <= 390


@needs_chromium
def test_the_scripts_have_the_sizes_that_the_words_name(tried):
    assert tried["sizes"] == [PIXELS, POINTS, tried["columns"], int(re.search(r"\d+", tried["labels"])[0])]
    assert f"It has {tried['columns']} numbers" in scene("scene-5")


@needs_chromium
def test_a_reshape_misplaces_as_many_numbers_as_the_page_counts(tried):
    for count, lost in zip((4, 7, 1024), tried["lost"], strict=True):
        places = torch.arange(3 * count).reshape(count, 3)
        assert lost == (places.reshape(3, count) != places.T).sum()
    assert tried["mixed"][0].startswith(f"{lost:,} of {3 * count:,} numbers")
    assert tried["mixed"][1] == "(x1 y2 z3): numbers of three points."


@needs_chromium
def test_the_page_multiplies_points_by_a_t_net_s_matrix_as_align_does(tried):
    cloud, matrix = (torch.from_numpy(each) for each in (CLOUD, MATRIX))
    np.testing.assert_allclose(tried["rows"], align(cloud.T[None], matrix[None])[0].T, atol=1e-12)


@needs_chromium
def test_swapped_points_cost_nothing_and_an_added_one_a_column(tried):
    swapped, added = tried["plain"]
    assert swapped.endswith("0 columns of 5 computed again. No largest number changed.")
    assert "1 column of 6 computed again. " in added
    given, out, cells = tried["run"]
    assert given.startswith(out[-1])
    assert [bool(cell) for cell in cells] == [True, True, False, False, False, False, False]


@needs_chromium
def test_each_weight_of_a_class_map_changes_its_sum(tried):
    assert tried["sums"] == [True] * 3


@needs_chromium
def test_what_is_said_of_shuffled_pixels_is_so_for_an_empty_picture_too(tried):
    empty, _, seven, again = tried["inked"]
    assert empty.startswith("All pixels of this picture are alike")
    assert seven.startswith("The channels and the maps are noise now, yet the sums are what they were.")
    assert again == "The two rows are the same number, made in two ways."


@needs_chromium
def test_no_number_is_a_nought_with_a_minus(tried):
    assert tried["signs"] == ["0.0", "0.0", "-0.1", "-1.0"]


@needs_chromium
def test_one_column_costs_far_less_than_all(tried):
    found = re.search(r"all 1,024 columns.* (\d+) times less\. The scores are the same", tried["timed"])
    assert int(found[1]) > 10, tried["timed"]
    assert not re.search(r"NaN|Infinity|times less", tried["stopped"])  # a clock too coarse gives no ratio


@needs_chromium
def test_a_point_that_is_moved_stays_in_the_frame(tried):
    assert tried["inside"]


@needs_chromium
def test_bars_begin_at_0_and_negative_scores_have_none(tried):
    most = max(score for _, score in tried["drawn"])
    for bar, score in tried["drawn"]:
        assert bar == pytest.approx(100 * max(score, 0) / most, abs=5)
    assert min(bar for bar, _ in tried["drawn"]) == 0


@needs_chromium
def test_of_ten_points_the_new_column_is_beside_the_maximum_on_a_phone(tried):
    points, gap = tried["ten"]
    assert points == 10
    assert gap >= 0  # else the maximum covers it


@needs_chromium
def test_missing_points_leave_the_answer_and_chosen_wrong_ones_change_it(tried):
    assert tried["missing"] == [[POINTS // 2, "chair"]] * 3
    left, words = tried["alone"]
    assert left < POINTS / 2  # more than half can go
    assert words.startswith("no maximum has moved")
    assert 1 <= len(tried["wrong"]) <= 6


@needs_chromium
def test_a_fault_is_guessed_before_it_is_shown(tried):
    words, shown = tried["before"]
    assert (shown, words[:28]) == (0, "Broken: mean instead of max.")
    words, why, classes = tried["after"]
    assert words == "mean instead of max: 3 of 11 laws fail. You marked 2, 1 of them rightly; 2 more fail."
    assert "Law 8 is on the maximum" in why
    assert [number for number, name in enumerate(classes, 1) if name == "red"] == [8, 9, 11]
