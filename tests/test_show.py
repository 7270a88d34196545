"""python -m pointnet show: what it says is what the data set or the files hold, and its page holds the same clouds."""

import re

import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet.datasets import LabelledClouds, ModelNet, ShapeNetPart, open_dataset, read_points, split_parts
from pointnet.pages import show, viewer
from pointnet.pages.show import CloudStatistics, cloud_statistics, show_data
from tests.helpers import OWN, ROOT, error_of, write_text
from tests.own_points import write_yards
from tests.pages import views_of

SAMPLES = ROOT / "data" / "samples"
SET = ["modelnet40", "--root", str(SAMPLES)]
CHAIR, STOOL = SAMPLES / "files" / "chair.off", SAMPLES / "files" / "stool.xyz"


def table(text: str, title: str) -> dict[str, list[str]]:
    """The rows below the one that starts with `title`, up to an empty line, by their first words."""
    lines = text.split(f"\n{title} ")[1].split("\n\n")[0].splitlines()[1:]
    return {cells[0]: cells[1:] for cells in (re.split(" {2,}", line) for line in lines)}


@pytest.fixture
def pair(monkeypatch) -> dict[str, LabelledClouds]:
    """A data set of two classes, with a part a point, a repeated point and one that is not finite; opened by name."""
    points = torch.randn(5, 3, 8)
    points[1, :, 3] = points[1, :, 2]
    points[4, 0, 0] = torch.nan
    parts = {
        "train": LabelledClouds(points[:4], torch.tensor([1, 1, 1, 0]), ("bowl", "<b>cup</b>")),
        "test": LabelledClouds(points[4:], torch.tensor([1]), ("bowl", "<b>cup</b>")),
    }
    for data in parts.values():
        data.parts = torch.arange(8).repeat(len(data), 1) % 3
        data.part_names = ("rim", "foot", "handle")
    monkeypatch.setattr(show, "open_dataset", lambda name, root, split, num_points, **kind: parts[split])
    return parts


def test_the_table_counts_what_the_data_set_has(capsys, tmp_path):
    assert command_line.main(["show", "modelnet40", "--root", str(SAMPLES), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    parts = [ModelNet(SAMPLES, split) for split in ("train", "test")]
    counts = {name: [str(int((data.labels == i).sum())) for data in parts] for i, name in enumerate(parts[0].classes)}
    assert table(printed, "class") == {**counts, "total": [str(len(data)) for data in parts]}
    assert "modelnet40: 40 classes, 24 clouds of 1,024 points" in printed
    views = views_of(tmp_path / "modelnet40.html")
    assert [view["name"].split()[0] for view in views] == ["bottle", "chair", "lamp", "table"]
    for view in views:
        points, label = parts[0][int(view["name"].split()[1])]
        assert parts[0].classes[label] == view["name"].split()[0]
        np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), points.T, atol=2e-4)


def test_one_split_is_one_column_and_samples_of_it(capsys, tmp_path):
    arguments = ["show", "modelnet40", "--root", str(SAMPLES), "--out", str(tmp_path), "--split", "test"]
    assert command_line.main([*arguments, "--per_class", "3", "--num_points", "100"]) == 0
    assert table(capsys.readouterr().out, "class")["total"] == ["8"]
    views = views_of(tmp_path / "modelnet40.html")
    assert len(views) == 8  # there are two of each class
    assert all(len(view["points"]) == 300 for view in views)


def test_the_measures_of_a_cloud_are_what_they_say():
    square = np.array([[1, 1, 2], [3, 1, 2], [1, 5, 2], [3, 5, 2], [3, 5, 2], [np.nan, 0, 0], [np.inf, 9, 9]])
    found = cloud_statistics(square.astype(np.float32))
    mean = np.array([11, 17, 10]) / 5
    assert found == pytest.approx(CloudStatistics(7, np.linalg.norm(mean), np.sqrt(9 + 25 + 4), 2, 4, 0, 1 / 5, 2))
    assert cloud_statistics(np.full((3, 3), np.nan)).not_finite == 3


def test_the_order_of_the_points_does_not_change_the_measures():
    points = np.random.default_rng(0).integers(0, 4, size=(257, 3)).astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(points)
    assert cloud_statistics(points) == pytest.approx(cloud_statistics(shuffled))
    assert cloud_statistics(points).duplicates == pytest.approx(1 - len(np.unique(points, axis=0)) / 257)


def test_least_median_and_largest_are_over_the_clouds_of_all_splits(pair, tmp_path):
    text = "\n".join(show_data("pair", out=tmp_path))
    rows = table(text, "per cloud")
    points = torch.cat([data.points for data in pair.values()])
    radii = sorted(float(cloud.norm(dim=0).max()) for cloud in [*points[:4], points[4, :, 1:]])
    assert rows["radius"] == [f"{radii[i]:.4f}" for i in (0, 2, 4)]
    assert rows["duplicates"] == ["0.00%", "0.00%", "12.50%"]
    assert "points that are not finite: 1\n" in text


def test_the_page_shows_parts_and_leaves_out_what_is_not_finite(pair, tmp_path):
    assert list(show_data("pair", split="test", per_class=2, out=tmp_path))[-1] == f"wrote {tmp_path / 'pair.html'}"
    (view,) = views_of(tmp_path / "pair.html")
    assert view["name"] == "<b>cup</b> 0"
    assert (view["labels"], view["names"]["1"]) == ([1, 2, 0, 1, 2, 0, 1], "foot")
    assert len(view["points"]) == 7 * 3


def test_data_whose_points_have_labels_is_drawn_in_their_colours(capsys, tmp_path):
    written = write_text(tmp_path, OWN, {"Tree": [0, 1], "Park bench": [2]}).parent
    words = ["show", "shapenetpart", "--root", str(written), "--num_points", "30", "--out", str(tmp_path / "out")]
    assert command_line.main(words) == 0
    assert table(capsys.readouterr().out, "class")["total"] == ["4", "2"]
    data = ShapeNetPart(written, "trainval", 30)
    views = views_of(tmp_path / "out" / "shapenetpart.html")
    assert [view["name"].rsplit(" ", 1)[0] for view in views] == list(data.classes)
    for view in views:
        points, parts, _ = data[int(view["name"].split()[-1])]
        np.testing.assert_allclose(np.reshape(view["points"], (-1, 3)), points.T, atol=2e-4)
        assert view["labels"] == parts.tolist()
        assert {view["names"][str(part)] for part in view["labels"]} <= set(data.part_names)


def test_files_are_a_line_each_and_those_that_cannot_be_read_are_told(capsys, tmp_path):
    broken, empty = tmp_path / "broken.off", tmp_path / "line\nbreak\x1b[31m.xyz"
    broken.write_text("OFF\n3 1 0\n0 0 zero\n")
    empty.touch()
    files = [str(CHAIR), str(broken), str(empty), str(STOOL)]
    assert command_line.main(["show", *files, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    chair, stool, wrote = printed.out.splitlines()
    assert re.match(rf"{re.escape(str(CHAIR))} +1,024 points  extents [\d.]+ × [\d.]+ × [\d.]+  normals$", chair)
    assert re.match(rf"{re.escape(str(STOOL))} +1,024 points  .*  positions only$", stool)
    assert wrote == f"wrote {tmp_path / 'out' / 'files.html'}"
    first, second = printed.err.splitlines()
    assert first.startswith(f"{broken}: ")
    assert "line\\nbreak�[31m.xyz: " in second
    views = views_of(tmp_path / "out" / "files.html")
    assert [view["name"] for view in views] == ["chair.off", "stool.xyz"]
    np.testing.assert_allclose(np.reshape(views[1]["points"], (-1, 3)), read_points(STOOL), atol=2e-4)


def test_up_turns_the_files(tmp_path):
    for up in ("z", "y"):
        assert command_line.main(["show", str(STOOL), "--up", up, "--out", str(tmp_path / up)]) == 0
    as_z, as_y = (np.reshape(views_of(tmp_path / up / "stool.html")[0]["points"], (-1, 3)) for up in ("z", "y"))
    np.testing.assert_allclose(as_y, as_z[:, [0, 2, 1]] * (1, -1, 1), atol=2e-4)


def test_the_vertices_of_a_mesh_are_shown_where_that_is_wanted(capsys, tmp_path):
    assert command_line.main(["show", str(CHAIR), "--vertices", "--out", str(tmp_path)]) == 0
    count = int(CHAIR.read_text().split()[1])
    assert f"{count:,} points  " in capsys.readouterr().out
    assert len(views_of(tmp_path / "chair.html")[0]["points"]) == 3 * count


def test_a_large_cloud_is_thinned_and_a_long_list_is_cut_and_both_are_said(capsys, tmp_path, monkeypatch):
    for module in (show, viewer):
        monkeypatch.setattr(module, "MOST_POINTS", 500)
    monkeypatch.setattr(show, "MOST_CLOUDS", 1)
    np.save(tmp_path / "large.npy", np.random.default_rng(0).normal(size=(501, 3)).astype(np.float32))
    assert command_line.main(["show", str(tmp_path / "large.npy"), str(STOOL), "--out", str(tmp_path)]) == 0
    large, *_ = capsys.readouterr().out.splitlines()
    assert "501 points  " in large
    assert large.endswith("500 drawn")
    (view,) = views_of(tmp_path / "files.html")
    assert view["name"] == "large.npy (500 of 501 points)"
    assert len(np.unique(np.reshape(view["points"], (-1, 3)), axis=0)) == 500
    assert "files: 1 of 2 clouds" in (tmp_path / "files.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shape"], "'shape' is neither a data set nor a file; did you mean 'shapes'? (data sets: shapes, "),
        ([*SET, "--split", "val"], "split must be train, test or both, got 'val'"),
        ([*SET, "--per_class", "0"], "per_class must be at least 1, got 0"),
        ([*SET, "--num_points", "9999"], "fewer than num_points=9999"),
        ([str(CHAIR), "--up", "w"], "up must be"),
        ([*SET, "--vertices"], "--vertices is for files, not for the data set modelnet40"),
        ([str(CHAIR), "--per_class", "2"], "--per_class is for data sets, not for files"),
        ([str(CHAIR.parent), "--features", "rgb"], f"files; show folder --root {CHAIR.parent} opens one"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(capsys, tmp_path, arguments, message):
    words = ["show", "--out", str(tmp_path / "out"), *arguments]
    assert message in error_of(capsys, command_line.main, words)
    assert not list(tmp_path.iterdir())


def test_scans_are_called_scans_and_their_labels_are_counted(tmp_path, capsys):
    write_yards(tmp_path / "yards", 3)
    assert command_line.main(["show", "scenes", "--root", str(tmp_path / "yards"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert re.match(r"scenes: 3 scans, \d+ blocks of 1,024 points\n\nscan +train +test\n", printed)
    (table,) = re.findall(r"^points of +train +test\n((?:.+\n)+)", printed, re.MULTILINE)
    counts = {row.split()[0]: [int(each.replace(",", "")) for each in row.split()[1:]] for row in table.splitlines()}
    opened = [open_dataset("scenes", tmp_path / "yards", split, 1024, task="scene") for split in ("train", "test")]
    for split, data in enumerate(opened):
        labels, own = split_parts(data.batch(torch.arange(len(data)))[0])[1:]
        for number, name in enumerate(data.part_names):
            assert counts[name][split] == int((own & (labels == number)).sum())
