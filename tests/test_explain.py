"""The page that explains: what it says runs, what it names exists, and what it computes is what PyTorch computes."""

import base64
import json
import re
import runpy
import shutil
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
import trimesh

from pointnet import __main__ as command_line
from pointnet import load_model, predict
from pointnet.datasets import Shapes
from pointnet.pages.explain import WEIGHTS
from pointnet.pages.explain_weights import as_on_page, eight_bits
from pointnet.points.frame import stray_points
from pointnet.points.read import read_cloud
from tests.chromium import DARK, computed, needs_chromium, visit
from tests.helpers import ROOT, SAMPLES
from tests.page_files import BROKEN, SPELLED, SPELLINGS
from tests.pages import Page

MOST_BYTES = 1_500_000
FILES = ("chair.off", "table.obj", "bottle.ply", "lamp.stl", "stool.xyz")
BYTES = "const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """What `python -m docs.explain` makes, in another folder."""
    script = shutil.copy(find_spec("docs.explain").origin, tmp_path_factory.mktemp("docs"))
    runpy.run_path(script, run_name="__main__")
    return Path(script).with_suffix(".html")


@pytest.fixture(scope="module")
def network():
    return as_on_page(load_model(WEIGHTS))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def test_the_page_of_the_documentation_is_what_the_command_makes(page):
    assert (ROOT / "docs" / "explain.html").read_bytes() == page.read_bytes()


def test_the_command_writes_the_page_and_opens_it(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["explain"]) == 0
    assert opened == [(tmp_path / "explain.html").as_uri()]
    assert capsys.readouterr().out.startswith("wrote explain.html: 1.2 MB")
    assert command_line.main(["explain", "--out", "other/page.html"]) == 0
    assert len(opened) == 1
    assert (tmp_path / "other" / "page.html").read_bytes() == (tmp_path / "explain.html").read_bytes()
    assert [link for link in Page.read(tmp_path / "explain.html").requested() if link[0] != "#"] == []  # none is dead


def test_the_page_is_small_and_names_no_address(page):
    assert page.stat().st_size < MOST_BYTES
    assert [link for link in Page.read(page).requested() if not re.match(r"#|\.\./tests/\w+\.py$", link)] == []


def test_a_row_of_eight_bits_errs_by_at_most_half_its_scale():
    weight = torch.randn(5, 257) * torch.tensor([1.0, 1e-3, 1e3, 1.0, 1e-30])[:, None]
    weight[3] = 0
    scale, whole = eight_bits(weight)
    assert ((scale[:, None] * whole - weight).abs() <= 0.5001 * scale[:, None]).all()
    assert whole.abs().amax(1).tolist() == [127, 127, 127, 0, 127]


@pytest.mark.slow
def test_the_rounded_network_gives_the_answers_of_the_shipped_one(network, tmp_path):
    shapes = Shapes(tmp_path, split="test")
    with torch.no_grad():
        answers = [
            torch.cat([each(clouds).argmax(1) for clouds in shapes.points.split(50)])
            for each in (network, load_model(WEIGHTS))
        ]
    assert torch.equal(*answers)
    assert (answers[0] == shapes.labels).float().mean() == pytest.approx(0.9825)


# What the page computes, in one visit.


def clouds_of(sizes: range | list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(size, 3)) * rng.uniform(0.2, 1, 3) for size in sizes]
    return [(cloud / np.linalg.norm(cloud, axis=1).max()).astype("<f4") for cloud in clouds]


def logits_script(clouds: list[np.ndarray]) -> str:
    given = json.dumps([encoded(cloud.tobytes()) for cloud in clouds])
    return f"{BYTES} const logits = {given}.map(text => pointnet.classify(new Float32Array(bytes(text))).logits);"


def assert_same_logits(found: list[dict[str, float]], clouds: list[np.ndarray], network) -> None:
    assert len(found) == len(clouds) == 50
    for logits, cloud in zip(found, clouds, strict=True):
        with torch.no_grad():
            wanted = network(torch.from_numpy(cloud.T.copy())[None])[0]
        np.testing.assert_allclose([*logits.values()], wanted, rtol=0, atol=1e-4)


SMALL = clouds_of(range(1, 51))
MOVES = """
  const cloud = new Cloud(network, cloudOf("sofa").slice(0, 3 * 200)), moves = [];
  const places = [[0, 0, 0, 1.1], [cloud.winner[0], 0, 0, 0], [cloud.winner[7], 0, -1, 0], [199, 0, 0, 0]];
  for (const [n, ...point] of places) {
    const before = cloud.computed, changed = cloud.move(n, point).length;
    const whole = pointnet.classify(Float64Array.from(cloud.points.flat())).logits;
    moves.push({columns: cloud.computed - before, changed, logits: [...cloud.logits], whole: [...whole]});
  }
  const alone = cloud.copy();
  alone.keep(cloud.critical());
  const fewer = alone.copy();
  fewer.keep(alone.critical().slice(1));
  const critical = [cloud, alone, fewer].map(each => ({count: each.points.length, logits: [...each.logits]}));
"""
SHOWN = """
  const shapes = Object.keys(SHAPES).map(name => [name, network.classes[new Cloud(network, cloudOf(name)).best]]);
  const classes = pointnet.classify(new Float32Array(3)).classes;
"""


def files_script(files: dict[str, bytes]) -> str:
    given = json.dumps({name: encoded(data) for name, data in files.items()})
    return f"""
  const files = {{}};
  for (const [name, text] of Object.entries({given}))
    try {{
      const points = readPoints(name, bytes(text), 1024);
      const answer = {json.dumps(FILES)}.includes(name) && network.classes[new Cloud(network, points).best];
      const {{vertices, faces}} = READERS[name.split(".").pop()](bytes(text));
      const stray = strayPoints(points);
      files[name] = {{vertices, faces, points: [...points], answer, stray}};
    }} catch (error) {{ files[name] = {{error: error.message}}; }}"""


def files() -> dict[str, bytes]:
    found = {name: (Path(SAMPLES) / "files" / name).read_bytes() for name in FILES}
    mesh = trimesh.load(Path(SAMPLES) / "files" / "chair.off", process=False)
    found["ascii.ply"] = mesh.export(file_type="ply", encoding="ascii")
    found["ascii.stl"] = mesh.export(file_type="stl_ascii").encode()
    corners = b"".join(np.array(values, ">f4").tobytes() for values in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)))
    header = (
        "ply\nformat binary_big_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    )
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    found["big.ply"] = header.encode() + corners + b"\x04" + np.array([0, 1, 2, 3], ">i4").tobytes()
    return found


def strays() -> dict[str, bytes]:
    """Clouds with far points, of which those of the first three are stray."""
    ball = np.random.default_rng(0).normal(size=(1000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    added = ([[9.0, 0, 0]], [[0, 3, 0], [9, 0, 0]], [[9, 0, 0]] * 7, [[9, 0, i / 9] for i in range(20)], [[1.3, 0, 0]])
    return {
        f"stray{i}.xyz": "".join(f"{x} {y} {z}\n" for x, y, z in [*ball, *far]).encode() for i, far in enumerate(added)
    }


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory) -> dict:
    script = logits_script(SMALL) + MOVES + SHOWN + files_script(files() | SPELLED | BROKEN | strays())
    script += "return {logits, moves, critical, shapes, classes, files};"
    return computed(page, tmp_path_factory.mktemp("seen"), script, (500, 800))


@needs_chromium
def test_the_logits_of_the_page_are_those_of_pytorch(seen, network):
    assert_same_logits(seen["logits"], SMALL, network)
    assert seen["classes"] == [*network.classes]


@needs_chromium
def test_a_moved_point_costs_one_column_and_the_answer_is_that_of_the_new_cloud(seen):
    for move in seen["moves"]:
        assert move["columns"] == 1
        assert move["logits"] == move["whole"]
    assert [bool(move["changed"]) for move in seen["moves"]] == [True, True, True, False]


@needs_chromium
def test_the_critical_points_alone_have_the_logits_of_the_cloud(seen):
    whole, alone, fewer = seen["critical"]
    assert alone["count"] < whole["count"]
    assert alone["logits"] == whole["logits"] != fewer["logits"]


@needs_chromium
def test_the_shapes_of_the_page_are_answered_by_their_names(seen):
    assert [name for name, _ in seen["shapes"]] == [answer for _, answer in seen["shapes"]]


@needs_chromium
def test_files_are_read_as_predict_reads_them(seen, network):
    answers = iter(predict([Path(SAMPLES) / "files" / name for name in FILES], network))
    for name in files():
        found = seen["files"][name]
        assert "error" not in found, (name, found)
        points = np.reshape(found["points"], (-1, 3))
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
        assert abs(points.mean(0)).max() < 1e-6
        if name in FILES:
            cloud = read_cloud(Path(SAMPLES) / "files" / name, vertices=True)
            np.testing.assert_allclose(found["vertices"], cloud.points, atol=1e-6)
            assert found["answer"] == next(answers).class_name
        if found["faces"]:
            corners = np.array(found["vertices"])[np.array(found["faces"])]
            source = "chair.off" if name.startswith("ascii") else name
            mesh = trimesh.load(Path(SAMPLES) / "files" / source, process=False) if name != "big.ply" else None
            area = 1.0 if mesh is None else mesh.area
            assert trimesh.triangles.area(corners).sum() == pytest.approx(area, rel=1e-4), name


@needs_chromium
def test_stray_points_of_a_file_are_said_as_predict_says_them(seen):
    said = []
    for name in [*strays(), *files(), *SPELLINGS]:
        found = seen["files"][name]
        wanted = stray_points(np.reshape(np.float32(found["points"]), (-1, 3)))
        assert found["stray"] == (f"{wanted}." if wanted else ""), name
        said.append(bool(wanted))
    assert said[:5] == [True, True, True, False, False]


@needs_chromium
@pytest.mark.parametrize("name", SPELLINGS)
def test_colours_normals_polygons_and_counts_from_the_end_change_no_point(seen, name):
    found, (_, vertices, area) = seen["files"][name], SPELLINGS[name]
    assert "error" not in found, found
    assert len(found["vertices"]) == vertices
    assert len(found["points"]) == 3 * (1024 if area else vertices)
    corners = np.array(found["vertices"])[np.array(found["faces"], int).reshape(-1, 3)]
    assert trimesh.triangles.area(corners).sum() == pytest.approx(area, abs=1e-6)


@needs_chromium
def test_a_file_that_cannot_be_read_is_refused_in_words(seen):
    refused = {name: seen["files"][name] for name in BROKEN}
    assert {name: found for name, found in refused.items() if list(found) != ["error"]} == {}
    assert not [found for found in refused.values() if re.search(r"undefined|Cannot read|\n", found["error"])]
    assert refused["b.obj"] == refused["j.obj"] == {"error": "a face names a vertex that is not there"}
    assert refused["f.xyz"]["error"] == "all its points are one"
    assert "pointnet predict reads others too" in refused["h.glb"]["error"]
    assert refused["i.off"]["error"] == "it ends before its last face"
    assert refused["l.ply"]["error"] == "its header names a format binary"


@needs_chromium
@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_a_browser_shows_the_page_without_complaint_and_without_a_request(page, tmp_path, flags):
    shown = visit(page, tmp_path, (1000, 800), "", *flags)
    assert shown.console == []
    assert shown.requests == []
    assert (shown.picture[-1, 0] > 0.5).all() == (not flags)  # the paper


@needs_chromium
def test_the_logits_of_whole_clouds_are_those_of_pytorch(page, tmp_path, network):
    clouds = clouds_of([1024] * 50)
    assert_same_logits(computed(page, tmp_path, f"{logits_script(clouds)} return logits;"), clouds, network)


@needs_chromium
def test_a_point_of_1024_is_dragged_at_more_than_30_frames_a_second(page, tmp_path):
    script = """
      all("main > nav button").forEach(button => button.click());  // what is hidden has no size
      const times = [], clock = work => { const start = performance.now(); work(); return performance.now() - start; };
      for (let i = 0; i < 90; i++) times.push(clock(() => live.move(5, [0, i / 90, 0.5])));
      const pixels = clock(() => ["live", "live-column"].map(id => part(id).getContext("2d").getImageData(0, 0, 1, 1)));
      times.push(...times.splice(0).map(time => time + pixels / 90));  // all that was drawn is drawn now
      return {times, points: live.cloud.points.length};"""
    found = computed(page, tmp_path, script)
    assert found["points"] == 1024
    frame = median(found["times"][30:])  # once the browser has compiled the scripts
    print(f"{1000 / frame:.0f} frames a second, {frame:.1f} ms each, at best {min(found['times']):.1f} ms")
    assert min(found["times"]) < 1000 / 30  # the best, as other processes may be busy
