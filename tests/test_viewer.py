"""The page of point clouds holds what it is given, whatever its names say, and a browser can show it."""

import re

import numpy as np
import pytest

from pointnet.pages import viewer
from pointnet.pages.viewer import View, write_html, write_page
from pointnet.points.colours import PALETTE, label_colours
from tests.chromium import DARK, needs_chromium, visit
from tests.helpers import HOSTILE
from tests.pages import Page


def written(path, views, *words) -> Page:
    write_page(path, views, *words)
    return Page.read(path)


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


def test_the_page_holds_the_labels_colours_and_critical_points_of_the_points(tmp_path, rng):
    points, labels = rng.normal(size=(6, 3)), [2, 0, 2, 9, 0, 2]
    lit, colors = np.array([0, 1, 0, 0, 0, 1], bool), np.array([[0, 128, 255]] * 6) / np.float32(255)
    points[2, 1] = np.nan  # and left out
    views = [
        View("labels", points, np.array(labels), ("leg", "seat", "back")),
        View("colours", points, colors=colors, critical=lit),
    ]
    by_label, by_colour = written(tmp_path / "page.html", views, "t").views()
    assert by_label["labels"] == labels[:2] + labels[3:]
    assert by_label["names"] == {"0": "leg", "2": "back"}
    assert (by_colour["rgb"], by_colour["critical"]) == ("0080ff" * 5, [1, 4])
    assert len(by_colour["points"]) == 15
    with pytest.raises(ValueError, match="broken: has no point whose coordinates are finite"):
        write_page(tmp_path / "other.html", [View("broken", np.full((5, 3), np.nan))], "t")


def test_what_is_said_of_a_cloud_is_on_the_page(tmp_path):
    said = View("one", np.eye(3), answer="chair 43.1%", notes=("then sofa 20.0%", "unsure: </script>"), sure=False)
    one, plain = written(tmp_path / "page.html", [said, View("two", np.eye(3))], "t").views()
    assert (one["answer"], one["notes"], one["unsure"]) == (said.answer, [*said.notes], True)
    assert not {"answer", "notes", "unsure"} & set(plain)


def test_a_label_has_the_colour_of_the_page_everywhere_and_any_integer_has_one(tmp_path):
    page = written(tmp_path / "page.html", [View("cloud", np.eye(3))], "t")
    (script,) = (text for text in page.texts.values() if "const PALETTE" in text)
    assert len(set(PALETTE)) == len(PALETTE) == 50
    labels = np.array([0, 1, len(PALETTE) + 1, -1])
    found = ["#" + bytes(colour).hex() for colour in label_colours(labels)]
    assert found == [PALETTE[0], PALETTE[1], PALETTE[1], PALETTE[-1]]
    assert all(f'"{colour}"' in script for colour in found)


def test_the_page_requests_nothing(tmp_path, clouds):
    page = written(tmp_path / "page.html", [View("cloud", clouds[0])], "t")
    assert page.requested() == []
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


@needs_chromium
@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_a_browser_draws_the_page_without_complaint(tmp_path, rng, flags):
    cube = rng.uniform(-1, 1, size=(800, 3))
    views = [View(name, cube, labels=np.arange(800) % 3, label_names=HOSTILE[:3]) for name in HOSTILE]
    said = View("said", cube, answer=HOSTILE[0], notes=HOSTILE, sure=False)
    write_page(tmp_path / "page.html", [*views, said, View("lit", cube, critical=cube[:, 2] > 0)], "a title")
    seen = visit(tmp_path / "page.html", tmp_path, (1000, 800), "#2", *flags)
    assert seen.console == []
    assert seen.requests == []
    assert (seen.picture[-1, 0] > 0.5).all() == (not flags)  # the paper
    scene, thumbnails = seen.picture[150:600, 20:600], seen.picture[100:, 640:]
    for region in (scene, thumbnails):  # points in all three of the labels' colours
        for colour in label_colours(np.arange(3)) / 255:
            near = np.abs(region - colour).max(2) < 0.02
            assert near.sum() > 100, colour


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
def test_a_page_that_errs_or_requests_something_is_noticed(tmp_path):
    """The checks of pages can fail: both faults are seen, and a page's security policy blocks one of them."""
    faults = '<img src="http://example.invalid/a.png"><script>nothingOfThatName();</script>'
    (tmp_path / "bare.html").write_text(f"<p>{faults}", encoding="utf-8")
    bare = visit(tmp_path / "bare.html", tmp_path)
    assert bare.requests == ["http://example.invalid/a.png"]
    assert any("nothingOfThatName is not defined" in line for line in bare.console)
    write_html(tmp_path / "page.html", "t", "", faults)
    kept = visit(tmp_path / "page.html", tmp_path)
    assert kept.requests == []
    assert any("violates" in line for line in kept.console)
