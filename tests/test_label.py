"""pointnet.label_points and predict --task part|scene: every point has the network's own answer, in every file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointnet import PointNetPartSegmenter, PointNetSegmenter, label_points, predict
from pointnet import __main__ as command_line
from pointnet.datasets import PointCloudFileError, ShapeNetPart, read_cloud, read_points, split_parts
from pointnet.inference import label as module
from pointnet.inference.inputs import NOT_MARKED
from pointnet.inference.scenes import label_scene
from pointnet.points.colours import label_colours
from tests.helpers import SHARED_DATA, error_of, linked, make_room, trained_looking
from tests.pages import views_of

FILES = Path(__file__).parents[1] / "data" / "samples" / "files"
CHAIR, STOOL, SOFA = FILES / "chair.off", FILES / "stool.xyz", FILES / "sofa.glb"
PARTS = ("chair/seat", "chair/leg", "chair/back", "table/top", "tablé/<leg>\n")


def part_model(normals: bool = False) -> PointNetPartSegmenter:
    """A network of five parts of two categories with both T-Nets, that turn each cloud in a way of its own."""
    torch.manual_seed(0)
    small = {"widths": [[8, 8], [8, 16]], "head_widths": [8], "tnet_widths": [[8, 16], [8]]}
    made = PointNetPartSegmenter(5, 2, 6 if normals else 3, parts_of=[[0, 1, 2], [3, 4]], **small)
    for tnet in (made.encoder.input_tnet, made.encoder.feature_tnet):
        torch.nn.init.normal_(tnet.matrix.weight, std=0.1)
    made = trained_looking(made).float().eval()
    with torch.no_grad():  # so that all parts are met
        x = torch.randn(8, made.arguments["in_channels"], 64)
        logits = made(x / x.norm(dim=1).amax(1)[:, None, None])
        made.logits[0].conv.weight /= logits.std((0, 2))[:, None, None]
        made.logits[0].conv.bias -= logits.mean((0, 2))
        made.logits[0].conv.bias /= logits.std((0, 2))
    made.classes, made.preprocessing = PARTS, {"num_points": 64, "normals": normals, "categories": ["chair", "table"]}
    return made


def scene_model() -> PointNetSegmenter:
    torch.manual_seed(0)
    made = PointNetSegmenter(3, 9, False, False, widths=[[8], [16]], head_widths=[8])
    made = trained_looking(made).float().eval()
    made.classes, made.preprocessing = ("floor", "wall", "chair"), {"num_points": 4096}
    return made


@pytest.fixture(scope="module")
def model() -> PointNetPartSegmenter:
    return part_model()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A model folder of each task, for the command line."""
    made = {"part": part_model(), "scene": scene_model()}
    found = {task: str(tmp_path_factory.mktemp("models") / task) for task in made}
    for task, each in made.items():
        each.save_pretrained(found[task])
    return found


def in_unit_sphere(points: np.ndarray) -> torch.Tensor:
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    return torch.from_numpy(centred / np.linalg.norm(centred, axis=1).max()).float().T[None]


@torch.no_grad()
def shares_of(model, x: torch.Tensor, category: int | None = None) -> torch.Tensor:
    """(N, parts), by the network's forward of the whole cloud."""
    kind = None if category is None else torch.tensor([category])
    return model.restrict(model(x, kind), kind).softmax(1)[0].T


def assert_says(found, wanted: torch.Tensor) -> None:
    """Labels are among the likeliest, within rounding, and as probable as reported."""
    of_label = wanted.gather(1, torch.from_numpy(found.labels)[:, None])[:, 0]
    torch.testing.assert_close(of_label, wanted.max(1).values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(found.probability), of_label, rtol=1e-4, atol=1e-5)


# Parts.


@given(st.integers(2, 60), st.sampled_from([1, 7, 8192]), st.sampled_from([None, 0, 1]), st.integers(0, 99))
def test_every_point_gets_what_the_network_says_of_the_whole_cloud(model, size, chunk, category, seed):
    points = np.random.default_rng(seed).normal(size=(size, 3)) * (5, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = label_points(points, model, None if category is None else ("chair", "table")[category])
    assert_says(found, shares_of(model, in_unit_sphere(points), category))
    assert np.array_equal(found.points, points)
    assert (found.file, found.names, found.up) == (None, PARTS, "z")


def test_all_points_of_a_large_cloud_are_labelled_by_what_is_seen_of_some_in_chunks(model, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 64)
    points = np.random.default_rng(0).normal(size=(500, 3))
    given_chunks, encode = [], type(model.encoder).encode

    def look(self, x, *arguments, of=None, **named):
        given_chunks.append((x.shape[2], of is None))
        return encode(self, x, *arguments, of=of, **named)

    monkeypatch.setattr(type(model.encoder), "encode", look)
    found = label_points(points, model, "chair", num_points=100)
    assert given_chunks == [(100, True)] + [(64, False)] * 7 + [(52, False)]
    drawn = np.random.default_rng(0).choice(500, 100, replace=False)
    x = in_unit_sphere(points)
    kind = torch.tensor([0])
    logits = torch.cat(list(model.label_chunks(x[:, :, drawn], x.split(50, 2), kind)), 2)
    assert_says(found, model.restrict(logits, kind).softmax(1)[0].T)
    with torch.no_grad():
        assert (logits - model(x, kind)).abs().max() > 1e-3, "the rest was seen too"
    assert np.array_equal(label_points(points, model, "chair", num_points=100).probability, found.probability)


@pytest.mark.slow
@pytest.mark.parametrize("normals", [False, True])
def test_a_shape_of_a_data_set_is_labelled_as_evaluation_labels_it(tmp_path, normals):
    if not (SHARED_DATA / "psb_parts_dev").is_dir():
        pytest.skip(f"needs {SHARED_DATA / 'psb_parts_dev'}")
    data = ShapeNetPart(linked(SHARED_DATA / "psb_parts_dev", tmp_path / "psb"), "val", normals=normals)
    model = part_model(normals)
    listed = tmp_path / "psb" / "train_test_split" / "shuffled_val_file_list.json"
    names = [Path(line) for line in json.loads(listed.read_text())]
    for i in (0, 7):
        file = tmp_path / "psb" / names[i].parent.name / f"{names[i].name}.txt"
        found = label_points(file, model, "table", up="y")
        stored, _ = data.batch(torch.tensor([i]))
        x, _, own = split_parts(stored)
        wanted = shares_of(model, x, 1)[own[0]]
        assert len(wanted) == len(found.labels)
        torch.testing.assert_close(torch.from_numpy(found.probability).sort()[0], wanted.max(1).values.sort()[0])


def test_neither_place_nor_scale_of_the_points_matters_and_no_digit_of_them_is_lost(model, tmp_path):
    points = read_points(STOOL).astype(np.float64)
    wanted = label_points(points, model, "chair")
    for changed in (points * 1e6, points * 1e-6 - 3, points + np.array([5e5, 4e6, 30])):
        found = label_points(changed, model, "chair")
        np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-3)
        np.save(tmp_path / "far.npy", changed)
        for cloud in (found, label_points(tmp_path / "far.npy", model, "chair")):
            assert np.array_equal(cloud.points, changed)
            cloud.write_ply(tmp_path / "new" / "far.ply")
            assert np.array_equal(read_cloud(tmp_path / "new" / "far.ply", precise=True).points, changed)


def test_rows_of_zeros_are_left_out_and_change_no_other_label(model, tmp_path):
    whole = read_points(STOOL) + np.float32([1, 2, 3])
    np.save(tmp_path / "a.npy", np.vstack([np.zeros((30, 3)), whole]))
    found = [label_points(each, model) for each in (whole, np.load(tmp_path / "a.npy"), tmp_path / "a.npy")]
    assert all(np.array_equal(each.rows, np.arange(len(whole)) + 30) for each in found[1:])
    np.testing.assert_allclose(found[1].probability, found[0].probability, atol=1e-4)


def test_the_ply_holds_points_labels_and_the_colours_of_the_page(model, tmp_path):
    points = read_points(STOOL)  # float32
    found = label_points(points, model)
    found.write_ply(tmp_path / "stool.ply")
    header = (tmp_path / "stool.ply").read_bytes().split(b"end_header\n")[0].decode("ascii")
    assert "property float x\n" in header
    assert "comment label 1 is chair/leg\n" in header
    assert "comment label 4 is tabl\\xe9/<leg>\\ufffd\n" in header
    written = read_cloud(tmp_path / "stool.ply")
    assert np.array_equal(written.points, points)
    assert np.array_equal(written.labels, found.labels)
    assert len(set(found.labels.tolist())) == 5
    rows = trimesh.load(tmp_path / "stool.ply").metadata["_ply_raw"]["vertex"]["data"]
    assert np.array_equal(np.column_stack([rows[of] for of in ("red", "green", "blue")]), label_colours(found.labels))
    assert np.array_equal(rows["probability"].ravel(), found.probability)


def test_a_mesh_is_sampled_and_rotated_for_the_network_alone(model):
    chair, sofa = label_points([CHAIR, SOFA], model, num_points=300)
    for found, file, up in ((chair, CHAIR, "z"), (sofa, SOFA, "y")):
        assert (len(found.labels), found.up, found.file) == (300, up, file)
    assert len(label_points(CHAIR, model).labels) == 4096
    assert_says(sofa, shares_of(model, in_unit_sphere(sofa.points[:, [0, 2, 1]] * (1, -1, 1))))
    vertices = label_points(CHAIR, model, vertices=True)
    assert np.array_equal(vertices.points, read_cloud(CHAIR, vertices=True, precise=True).points)
    points = read_points(STOOL)
    y_up = points[:, [0, 2, 1]] * np.float32([1, 1, -1])
    lying = label_points(y_up, model, up="y")
    np.testing.assert_allclose(lying.probability, label_points(points, model).probability, atol=1e-5)
    assert np.array_equal(lying.points, y_up)


def test_few_points_and_an_unknown_category_are_said(model, tmp_path):
    few = np.random.default_rng(0).normal(size=(63, 3)).repeat(3, 0)
    found = label_points([few, few[2:4], np.vstack([few, few + 1]).repeat(2, 0)], model, "chair")
    assert [each.notes[:-1] for each in found] == [("only 63 different points",), ("only 2 different points",), ()]
    found = label_points(STOOL, model)
    shares = {"chair": np.isin(found.labels, (0, 1, 2)).mean(), "table": np.isin(found.labels, (3, 4)).mean()}
    words = ", ".join(f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda each: -each[1]))
    assert found.notes == (f"category unknown: labels are of {words}", NOT_MARKED)
    assert found.as_json()["notes"] == [*found.notes]
    network, of_chair = part_model(), label_points(STOOL, model, "chair").labels
    network.preprocessing["categories"] = ["canap\u00e9", "table"]
    assert np.array_equal(label_points(STOOL, network, "canape\u0301").labels, of_chair)  # its accent spelled apart
    room = make_room(200)
    np.save(tmp_path / "room.npy", room[:10])
    assert label_points(tmp_path / "room.npy", scene_model()).notes[-2:] == ("only 10 different points", NOT_MARKED)


def test_shares_are_those_of_the_points_the_largest_first(model):
    found = label_points(STOOL, model)
    counts = {name: int((found.labels == i).sum()) for i, name in enumerate(PARTS)}
    assert found.shares == {name: count / 1024 for name, count in counts.items() if count}
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(label_points(STOOL, model, "table").shares) <= set(PARTS[3:])


# Rooms.


@pytest.mark.parametrize("suffix", ["npy", "txt"])
def test_a_rooms_file_is_labelled_as_its_arrays_are(tmp_path, suffix):
    model, room = scene_model(), make_room(300)
    room[:, :3] += (5e5, 4e6, 30)  # a survey's
    path = tmp_path / f"room.{suffix}"
    if suffix == "npy":
        np.save(path, room)
    else:
        np.savetxt(path, room[:, :6], fmt="%.3f")
    found = label_points(path, model)
    wanted = label_scene(model, room[:, :3], room[:, 3:6] / 255)
    assert np.array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)
    np.testing.assert_allclose(found.points, room[:, :3], rtol=0, atol=1e-9)
    assert found.names == ("floor", "wall", "chair")
    fewer = label_points(path, model, num_points=100)
    assert np.array_equal(fewer.labels, found.labels)
    assert fewer.notes == (*found.notes[:-1], "all 300 points are labelled: num_points is for meshes", NOT_MARKED)
    assert label_points(path, model, num_points=300).notes == found.notes


# Errors.


def test_what_cannot_be_labelled_is_one_line(model, tmp_path):
    room, parts = scene_model(), label_points
    with pytest.raises(ValueError, match=r"no category 'chiar'; did you mean 'chair'\? \(known: chair, table\)"):
        parts(STOOL, model, "chiar")
    with pytest.raises(ValueError, match="a room has no category, got 'chair'"):
        parts(STOOL, room, "chair")
    with pytest.raises(PointCloudFileError, match="stool.xyz: has no colours, which the model was trained with"):
        parts(STOOL, room)
    with pytest.raises(ValueError, match="arrays of a room, points and colours, are for"):
        parts(np.zeros((5, 6)), room)
    with pytest.raises(ValueError, match=r"^points \(5, 3\): has no extent: all its points are one$"):
        parts(np.ones((5, 3)), model)
    with pytest.raises(ValueError, match="num_points must be at least 1, got 0"):
        parts(STOOL, model, num_points=0)
    with pytest.raises(ValueError, match="the model is for the task part, not classification"):
        predict(STOOL, model)
    np.savetxt(tmp_path / "millimetres.txt", np.hstack([make_room(50)[:, :3] * 1000, np.full((50, 3), 9)]))
    with pytest.raises(
        PointCloudFileError,
        match=r"txt: must be at most 1,000 blocks of 1 wide, got 2,\d\d\d of them; is it in metres\?",
    ):
        parts(tmp_path / "millimetres.txt", room)


# The command.


def test_each_file_is_a_line_and_a_ply_and_all_are_a_page(capsys, folders, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("stool.xyz", "b/stool.xyz"):
        (tmp_path / "a" / name).write_bytes(STOOL.read_bytes())
    (tmp_path / "a" / "broken.off").write_text("OFF\n3 1 0\n0 0 zero\n")
    out = tmp_path / "new" / "out"
    words = ["predict", "--task", "part", str(tmp_path / "a"), "--category", "chair"]
    assert command_line.main([*words, "--model", folders["part"], "--out", str(out)]) == 1
    printed = capsys.readouterr()
    header, unmarked, *lines, page = printed.out.replace("\n  ", " ").splitlines()
    assert header.startswith(f"{folders['part']}: labels points by the parts of chair; ")
    assert (unmarked, page) == (NOT_MARKED, f"wrote {out / 'parts.html'}")
    wanted = label_points(STOOL, folders["part"], "chair")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in wanted.shares.items())
    assert [re.sub(" +", " ", line) for line in lines] == [
        f"{tmp_path / 'a' / name} 1,024 points: {shares}" for name in ("b/stool.xyz", "stool.xyz")
    ]
    assert "broken.off: " in printed.err
    for ply in ("stool.xyz.parts.ply", "b/stool.xyz.parts.ply"):
        assert np.array_equal(read_cloud(out / ply).labels, wanted.labels)
    views = views_of(out / "parts.html")
    for view, name in zip(views, ("b/stool.xyz", "stool.xyz"), strict=True):
        assert view["name"] == name
        assert np.array_equal(view["labels"], wanted.labels)
        assert set(view["names"].values()) == set(wanted.shares)
        np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), read_points(STOOL), atol=2e-4)


def test_json_is_a_list_with_an_object_for_each_file(capsys, folders, tmp_path):
    np.save(tmp_path / "room.npy", make_room(200))
    words = ["predict", str(tmp_path / "room.npy"), str(STOOL), "--model", folders["scene"], "--json"]
    assert command_line.main([*words, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    found = label_points(tmp_path / "room.npy", folders["scene"])
    (answer,) = json.loads(printed.out)
    assert answer == {
        "file": str(tmp_path / "room.npy"),
        "points": 200,
        "shares": found.shares,
        "mean_probability": pytest.approx(float(found.probability.mean()), abs=1e-5),
        "notes": ["columns taken as x,y,z,r,g,b,label", found.notes[1]],
        "ply": str(tmp_path / "out" / "room.npy.scene.ply"),
    }
    unmarked, error, page = printed.err.splitlines()
    assert (unmarked, page) == (NOT_MARKED, f"wrote {tmp_path / 'out' / 'scene.html'}")
    assert "stool.xyz: has no colours" in error
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"room.npy.scene.ply", "scene.html"}


def test_the_page_stands_upright_and_the_ply_as_the_file_does(folders, tmp_path):
    words = ["predict", str(STOOL), "--model", folders["part"], "--up", "y", "--out", str(tmp_path)]
    assert command_line.main(words) == 0
    points = read_points(STOOL)
    (view,) = views_of(tmp_path / "parts.html")
    np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), points[:, [0, 2, 1]] * (1, -1, 1), atol=2e-4)
    assert np.array_equal(read_points(tmp_path / "stool.xyz.parts.ply", up="z"), points)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "scene"], "part is for the task part, not scene"),
        (["--votes", "12"], "--votes is for the task classification, not part"),
        (["--model", "pointnet_shapes", "--category", "table"], "--category is for the task part, not classification"),
        (["--top", "3"], "--top is for the task classification, not part"),
        (["--model", "pointnet_shapes", "--task", "part"], "pointnet_shapes is for the task classification, not part"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(capsys, folders, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in words else ["--model", folders["part"]]
    assert message in error_of(capsys, command_line.main, ["predict", str(STOOL), *model, *words])
    assert not capsys.readouterr().out
    assert not list(tmp_path.iterdir())
