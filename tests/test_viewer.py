"""The page and the grid of point clouds hold what they are given, whatever its names say, and can be looked at."""

import re
import sys

import numpy as np
import pytest

from pointnet.extras import MissingExtraError
from pointnet.pages import pictures, viewer
from pointnet.pages.pictures import CAPTION, ENTRY, MARGIN, PANEL, paint, write_grid
from pointnet.pages.viewer import View, write_html, write_page
from tests.chromium import DARK, needs_chromium, visit
from tests.helpers import HOSTILE, Page, panels, read_picture


def written(path, views, *words) -> Page:
    write_page(path, views, *words)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def clouds(rng) -> list[np.ndarray]:
    return [rng.normal(size=(n, 3)) * scale + far for n, scale, far in ((1, 1, 0), (257, 1e-4, 1e3), (1000, 1e5, 0))]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_page_holds_every_point_of_every_cloud_to_a_ten_thousandth_of_its_size(tmp_path, clouds):
    page = written(tmp_path / "new" / "page.html", [View(f"cloud {i}", cloud) for i, cloud in enumerate(clouds)], "t")
    assert [view["name"] for view in page.views()] == ["cloud 0", "cloud 1", "cloud 2"]
    for view, cloud in zip(page.views(), clouds, strict=True):
        size = np.ptp(cloud, axis=0).max() or np.abs(cloud).max()
        np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), cloud, rtol=0, atol=1e-4 * size)


def test_the_page_holds_what_belongs_to_the_points(tmp_path, rng):
    points, values, labels = rng.normal(size=(6, 3)), np.array([0.5, np.nan, -3, 0, np.inf, 7]), [2, 0, 2, 9, 0, 2]
    lit, colors = np.array([0, 1, 0, 0, 0, 1], bool), np.array([[0, 128, 255]] * 6, np.uint8)
    views = [
        View("values", points, values=values, values_name="loss"),
        View("labels", points, labels=np.array(labels), label_names=("leg", "seat", "back")),
        View("colours", points, colors=colors, highlight=lit, highlight_name="critical"),
        View("the same", points, colors=colors / np.float32(255)),
    ]
    by_value, by_label, by_colour, same = written(tmp_path / "page.html", views, "t").views()
    assert by_value["values"] == [0.5, None, -3, 0, None, 7]
    assert by_value["values_name"] == "loss"
    assert by_label["labels"] == labels
    assert by_label["names"] == {"0": "leg", "2": "back"}
    assert by_colour["rgb"] == same["rgb"] == "0080ff" * 6
    assert (by_colour["highlight"], by_colour["highlight_name"]) == ([1, 5], "critical")


def test_the_page_asks_for_nothing_outside_itself(tmp_path, clouds):
    page = written(tmp_path / "page.html", [View("cloud", clouds[0])], "t")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "form", "a"}
    assert not [attributes for _, attributes in page.elements if {"src", "href", "action"} & set(attributes)]
    (policy,) = (a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    assert re.findall(r"(\w+)-src", policy) == ["default", "script", "style"]


def test_names_are_text_whatever_they_say(tmp_path, clouds):
    harmless = written(tmp_path / "harmless.html", [View("cloud", clouds[0], labels=np.array([0]))] * len(HOSTILE), "t")
    views = [View(name, clouds[0], labels=np.array([0]), label_names=[name]) for name in HOSTILE]
    page = written(tmp_path / "page.html", views, "".join(HOSTILE), "".join(HOSTILE))
    assert page.elements == harmless.elements
    assert [(view["name"], view["names"]["0"]) for view in page.views()] == [(name, name) for name in HOSTILE]
    assert page.texts["h1"] == page.texts["title"] == page.texts["notes"] == "".join(HOSTILE)
    script = viewer.VIEWER.read_text(encoding="utf-8")
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_a_page_of_sixty_clouds_is_under_two_megabytes(tmp_path, rng):
    path = tmp_path / "page.html"
    write_page(path, [View(str(i), rng.uniform(-1, 1, size=(1024, 3))) for i in range(60)], "t")
    assert path.stat().st_size < 2e6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": np.zeros((3, 4))}, r"view 'x': points must be \(N, 3\) with N >= 1, got \(3, 4\)"),
        ({"points": np.zeros((0, 3))}, r"points must be \(N, 3\) with N >= 1, got \(0, 3\)"),
        ({"points": np.full((5, 3), np.nan)}, "view 'x': 5 of 5 points are not finite"),
        ({"labels": np.zeros(4)}, r"labels must be \(5,\), got \(4,\)"),
        ({"colors": np.zeros((5, 4))}, r"colors must be \(5, 3\), got \(5, 4\)"),
        ({"labels": np.zeros(5), "values": np.zeros(5)}, "one of values, labels and colors"),
    ],
)
def test_a_view_that_cannot_be_drawn_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        View("x", **{"points": np.zeros((5, 3)), **fields})


def test_nothing_to_draw_is_refused_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="at least one view"):
        write_page(tmp_path / "page.html", [], "t")
    with pytest.raises(ValueError, match="a name for each, got 1 and 2"):
        write_grid(tmp_path / "grid.png", [np.zeros((1, 3))], ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib: pip install 'pointnet-shared-mlp\[view\]'"):
        write_grid(tmp_path / "new" / "grid.png", [np.zeros((1, 3))], ["x"])
    assert not list(tmp_path.iterdir())


def test_the_grid_has_a_panel_for_each_cloud_and_no_more(tmp_path, rng):
    clouds = [rng.normal(size=(200, 3)) * shape for shape in ((1, 1, 1), (3, 1, 1), (1, 1, 5), (1, 1, 1e-9), (0, 0, 0))]
    write_grid(tmp_path / "grid.png", clouds, ["a", "b $^{_$", "漢字", "x" * 90, "line\nbreak"], columns=3)
    drawn = panels(tmp_path / "grid.png", columns=3, rows=2)
    assert [bool((panel < 0.9).any()) for panel in drawn] == [True] * 5 + [False]
    assert all((a != b).any() for i, a in enumerate(drawn) for b in drawn[:i])
    for panel in drawn:  # no cloud leaves its panel
        assert (panel[[0, -1]] == 1).all()
        assert (panel[:, [0, -1]] == 1).all()


def test_up_is_up_and_near_points_are_dark(tmp_path):
    pole = np.array([[0, 0, z] for z in np.linspace(0, 1, 50)] + [[x, 0, 1] for x in np.linspace(-0.2, 0.2, 50)])
    write_grid(tmp_path / "grid.png", [pole, np.array([[-1.0, -9, 0], [1, 9, 0]])], ["T", "near left, far right"])
    letter, two = (panel.min(2) < 0.9 for panel in panels(tmp_path / "grid.png", columns=2, rows=1))
    assert letter[:30].sum() > 2 * letter[-30:].sum()
    rows, across = np.nonzero(two)
    near, far = (
        panels(tmp_path / "grid.png", 2, 1)[1][rows[at], across[at]].min() for at in (across < 60, across > 160)
    )
    assert near < far
    assert rows[across < 60].mean() > rows[across > 160].mean()  # seen from above, what is near is lower


def test_labels_are_the_colours_of_their_points_and_are_named_at_the_foot(tmp_path, rng):
    cloud = rng.uniform(-1, 1, size=(400, 3)) * (0.3, 1, 0.3)
    right = rng.permutation(400) < 200
    cloud[:, 0] += np.where(right, 2, -2)

    def drawn(*names: str) -> np.ndarray:
        write_grid(tmp_path / "grid.png", [cloud, cloud], ["x", "y"], labels=[right * 2, None], label_names=names)
        return read_picture(tmp_path / "grid.png")

    picture = drawn("left", "none", "right")
    for side, (red, green, blue) in (
        (picture[:PANEL, :80], paint(np.array([0]))[0]),
        (picture[:PANEL, 140:PANEL], paint(np.array([2]))[0]),
    ):
        inked = side[side.min(2) < 0.6]
        assert len(inked) > 50
        assert (np.sign(inked[:, 0] - inked[:, 2]) == np.sign(red - blue)).mean() > 0.9
        assert (np.sign(inked[:, 1] - inked[:, 2]) == np.sign(green - blue)).mean() > 0.9
    assert np.ptp(picture[:PANEL, PANEL:], axis=2).max() < 0.6, "what has no labels is drawn as ever"
    foot = picture[PANEL + CAPTION :]
    assert foot.shape[0] == ENTRY + MARGIN
    other, beyond = (drawn(*names)[PANEL + CAPTION :] != foot for names in (("left", "?", "up"), ("left",)))
    for changed in (other, beyond):
        assert changed[:, PANEL:].any()
        assert not changed[:, :PANEL].any()


def test_the_projection_keeps_lengths(rng):
    points = rng.normal(size=(50, 3))
    np.testing.assert_allclose(np.linalg.norm(pictures.project(points), axis=1), np.linalg.norm(points, axis=1))
    assert (pictures.project(np.array([[0, 0, 1.0]])) * [0, 1, 0]).sum() > 0.8


def test_the_page_and_the_grid_look_from_one_direction():
    start = re.search(r"const START = {turn: ([\d.]+), tilt: ([\d.]+),", viewer.VIEWER.read_text(encoding="utf-8"))
    assert (float(start[1]), float(start[2])) == (pictures.AZIMUTH, pictures.ELEVATION)


@needs_chromium
@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_a_browser_draws_the_page_without_complaint(tmp_path, rng, flags):
    cube = rng.uniform(-1, 1, size=(800, 3))
    views = [View(name, cube, labels=np.arange(800) % 3, label_names=HOSTILE[:3]) for name in HOSTILE]
    write_page(tmp_path / "page.html", [*views, View("lit", cube, highlight=cube[:, 2] > 0)], "a title")
    seen = visit(tmp_path / "page.html", tmp_path, (1000, 800), "#2", *flags)
    assert seen.console == []
    assert seen.requests == []
    assert (seen.picture[-1, 0] > 0.5).all() == (not flags)  # the paper
    scene, thumbnails = seen.picture[150:600, 20:600], seen.picture[100:, 640:]
    for region in (scene, thumbnails):  # points in all three of the labels' colours
        for colour in ("#2f6fb0", "#e07b28", "#3a9a5b"):
            assert count_near(region, colour) > 100, colour


@needs_chromium
def test_keys_turn_the_scene_and_bring_it_back(tmp_path, rng):
    views = [View("one", rng.uniform(-1, 1, size=(300, 3))), View("two", rng.normal(size=(300, 3)))]
    write_page(tmp_path / "page.html", views, "a title")
    whole = (tmp_path / "page.html").read_text(encoding="utf-8")

    def scene(*keys: str) -> np.ndarray:
        events = "".join(
            f'part("scene").dispatchEvent(new KeyboardEvent("keydown", {{key: "{key}"}}));' for key in keys
        )
        page = tmp_path / "pressed.html"
        page.write_text(whole.replace("</body>", f"<script>{events}</script></body>"), encoding="utf-8")
        seen = visit(page, tmp_path)
        assert seen.console == []
        return seen.picture[130:720, :620]

    before = scene()
    pressed = [scene(key) for key in ("ArrowLeft", "+")]
    assert all((one != other).any() for i, one in enumerate([before, *pressed]) for other in pressed[i:])
    assert (scene("ArrowLeft", "ArrowUp", "+", "Home") == before).all()


@needs_chromium
def test_a_page_that_errs_or_asks_for_something_is_noticed(tmp_path):
    """What holds the pages to account can fail: each fault is seen, and the policy of a page keeps one of them back."""
    faults = '<img src="http://example.invalid/a.png"><script>nothingOfThatName();</script>'
    (tmp_path / "bare.html").write_text(f"<p>{faults}", encoding="utf-8")
    bare = visit(tmp_path / "bare.html", tmp_path)
    assert bare.requests == ["http://example.invalid/a.png"]
    assert any("nothingOfThatName is not defined" in line for line in bare.console)
    write_html(tmp_path / "page.html", "t", "", faults)
    kept = visit(tmp_path / "page.html", tmp_path)
    assert kept.requests == []
    assert any("violates" in line for line in kept.console)


def count_near(picture: np.ndarray, colour: str) -> int:
    """How many pixels have this colour, within a fiftieth of each channel."""
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return int((np.abs(picture - wanted).max(2) < 0.02).sum())
