"""A few stray points: what they would change without a word is said."""

import dataclasses
import re

import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet import predict
from pointnet.datasets import SceneFolder, open_dataset
from pointnet.datasets.blocks import check_extent, far_outside, sparse
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.evaluation.trust import unfit
from pointnet.points.features import features_of
from pointnet.points.frame import few_points, stray_points
from pointnet.points.read import PointCloud, Rows, read_points
from pointnet.points.sampling import KEPT
from pointnet.training import fit

from .forms import forms
from .helpers import ROOT, small
from .own_points import make_yard, save, write_yards

FILES = ROOT / "data" / "samples" / "files"
MODEL = "pointnet_modelnet40"


def ball(count: int, seed: int = 0) -> np.ndarray:
    """Points of a sphere about the origin, each with its opposite."""
    directions = np.random.default_rng(seed).normal(size=(-(-count // 2), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.vstack([directions, -directions])[:count]


@pytest.mark.parametrize(
    ("strays", "said"),
    [
        ([[5, 0, 0]], "1 of 2,000 points is 5.0 times as far out as all others and sets the scale"),
        ([[0, 2, 0], [9, 0, 0]], "2 of 2,000 points are up to 9.0 times as far out as all others and set the scale"),
        ([[1.5, 0, 0]], None),
        ([[9, 0, 0]] * 11, "1 of 1,990 points is 9.0 times as far out as all others and sets the scale"),
        ([[9, 0, i / 9] for i in range(30)], None),  # too many to be stray: another part
        (np.c_[np.linspace(1, 9, 30), np.zeros((30, 2))], None),  # an antenna has points all the way
    ],
)
def test_stray_points_are_those_beyond_an_empty_shell(strays, said):
    points = np.vstack([ball(2000 - len(strays)), strays])
    assert stray_points(points) == said
    assert unfit(points, Contract(num_points=64, scale="as given")) is None
    moved = np.float32(np.random.default_rng(1).permutation(points) * 7 + 1)
    assert stray_points(moved) == said


@pytest.mark.parametrize("count", [65, 257, 100_001])
def test_a_cloud_of_any_size_and_one_repeated_says_the_same(count):
    points = np.vstack([ball(count - 1), [[0, 0, 8]]])
    found = re.fullmatch(rf"1 of {count:,} points is (.*) times as far out as all others .*", stray_points(points))
    assert 7 < float(found[1]) < 9
    if count < KEPT:
        assert stray_points(np.resize(points, (KEPT, 3))) == stray_points(points)
    assert stray_points(points[:-1]) is None


def test_points_that_are_nearly_all_one_are_few():
    points = np.vstack([np.ones((500, 3)), [[2, 2, 2]]])
    assert stray_points(points) is None
    assert unfit(points, Contract(num_points=64)) == few_points(points) == "only 2 different points"


def test_no_sample_is_taken_to_have_stray_points():
    for file in FILES.iterdir():
        assert stray_points(read_points(file, 1024)) is None, file.name


def test_an_answer_on_a_cloud_with_a_stray_point_is_unsure_and_no_other_axis_is_advised():
    points = read_points(FILES / "chair.off", 1024)
    assert predict(points, MODEL).sure
    found = predict(np.vstack([points, points.max(0) + 9 * np.ptp(points)]), MODEL)
    assert not found.sure
    assert found.surer_up is None
    assert "1 of 1,025 points is" in found.notes[-1]
    assert not any("--up" in note for note in found.notes)


def test_a_wide_scene_names_its_far_points_only_where_they_are_few():
    points = np.random.default_rng(0).random((3000, 3))
    wide = np.float32([5000, 5000, 1])
    for count, hint in ((1, "1 point is far from the other 2,999"), (15, "15 points are far from the other 2,985")):
        points[:count] = 5000
        with pytest.raises(ValueError, match=f"blocks of 1 wide, got 5,000 of them; {hint}: leave out what is stray$"):
            check_extent(points, wide, 1.0, "is it in metres?")
    points[:16] = 5000
    with pytest.raises(ValueError, match=r"is it in metres\?$"):
        check_extent(points, wide, 1.0, "is it in metres?")


def test_features_that_are_not_finite_are_counted():
    intensity = np.ones(300, np.float32)
    intensity[[7, 9]] = np.nan, np.inf
    of_rows = features_of(PointCloud(np.zeros((300, 3)), None, None, None, intensity), ["intensity"])
    assert of_rows(slice(0, 5)).shape == (5, 1)
    with pytest.raises(
        ValueError, match=r"has intensity that is not finite at 0\.67% of its points; leave these points out"
    ):
        of_rows(slice(0, 8))
    intensity[:] = np.nan
    with pytest.raises(ValueError, match=r"not finite at 100% of its points"):
        of_rows(slice(0, 8))


def heights_said(points, contract):
    """What is said of points, as an array and as rows of a file, but for how few a block has."""
    cloud = PointCloud(points, None, None, None)
    notes = contract.notes_of(cloud)
    assert contract.notes_of(cloud._replace(points=Rows(points, lambda rows: rows))) == notes
    return tuple(note for note in notes if note != sparse(points, contract.block))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_heights_unlike_those_of_training_are_said(tmp_path, unit):
    data = SceneFolder(write_yards(tmp_path, 3, unit=unit, size=1500), num_points=64, block=2 * unit)
    contract = contract_of_data(data, num_points=64)
    assert contract.as_json()["heights"] == [*contract.heights]
    half, top = contract.heights
    assert 0 < half < top / 2
    yard = np.loadtxt(tmp_path / "yard_0.txt", skiprows=1)[:, :3]
    assert heights_said(yard, contract) == heights_said(yard + 500 * unit, contract) == ()
    for changed in (yard * 100, yard * 3.28084, yard / 3.28084):
        (note,) = heights_said(changed, contract)
        assert re.fullmatch(rf"heights are 0 to \S+, and were usually 0 to {re.escape(f'{top:.3g}')} in training", note)
    (note,) = heights_said(yard * (1, 1, -1), contract)
    assert re.fullmatch(r"half of the points are below a height of \S+, in training usually below \S+; is z up\?", note)
    older = Contract(num_points=64, scale="blocks", block=2 * unit)
    assert heights_said(yard * 100, older) == ()


@pytest.mark.slow
def test_files_of_a_set_whose_heights_are_unlike_those_of_training_are_said(tmp_path, capsys):
    root, out = tmp_path / "yards", tmp_path / "run"
    for i in range(6):
        yard = make_yard(i, 1500)
        yard[:, :3] *= (1, 1, -1) if i == 1 else (1, 1, 3.28084) if i == 5 else 1
        save(root / ("train" if i < 4 else "test") / f"{i}.txt", yard, "X Y Z I label")
    config = small(out, "scene", dataset="scenes", root=str(root), block=2.0, epochs=1, min_steps=1)
    train, test = (open_dataset("scenes", root, split, **config.opening) for split in ("train", "test"))
    said = list[str]()
    fit(config, train, test, log=said.append)
    down = r"train/1\.txt: half of the points are below a height of \S+, in training usually below \S+; is z up\?"
    high = r"test/5\.txt: heights are 0 to \S+, and were usually 0 to \S+ in training"
    found = [[line for line in said if re.fullmatch(wanted, line)] for wanted in (down, high)]
    assert [len(lines) for lines in found] == [1, 1]
    assert not any("heights" in line and "4.txt" in line for line in said)
    assert command_line.main(["evaluate", str(out)]) == 0
    assert found[1][0] in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("height", "said"),
    [
        (-300, r"1 point is \d{3} below the other 1,499; heights count from these"),
        pytest.param(300, "1 point is far above the other 1,499", marks=pytest.mark.slow),
    ],
)
def test_a_stray_point_is_said_of_its_file_alone_in_training_evaluation_and_show(tmp_path, capsys, height, said):
    root, out = tmp_path / "yards", str(tmp_path / "run")
    for i in range(4):
        yard = make_yard(i, 1500)
        yard[7, 2] += height if i == 1 else 0
        save(root / ("train" if i < 3 else "test") / f"{i}.txt", yard, "X Y Z I label")
    scenes = ["scenes", "--root", str(root), "--block", "2", "--out"]
    short = "--task scene --epochs 1 --num_points 64 --width 0.1 --tnet_width 0.1 --min_steps 1".split()
    for words in (
        ["train", *short, "--dataset", *scenes, out],
        ["evaluate", out, "--split", "train"],
        ["show", *scenes, str(tmp_path)],
    ):
        assert command_line.main(words) == 0
        printed = "".join(capsys.readouterr()).splitlines()
        (line,) = [line for line in printed if ".txt: 1 point" in line]
        assert re.fullmatch(rf"train/1\.txt: {said}", line)
        assert not any("heights are" in line or "is z up" in line for line in printed)


@pytest.mark.parametrize("change", ["stray", "feet", "centimetres", "down"])
def test_one_scan_does_not_set_the_heights_of_training(tmp_path, change):
    yards = [make_yard(i, 1500) for i in range(3)]
    for i, yard in enumerate(yards):
        save(tmp_path / "even" / f"{i}.txt", yard, "X Y Z I label")
    odd = yards[1]
    if change == "stray":
        odd[7, 2] -= 300
    else:
        odd[:, 2] *= {"feet": 3.28084, "centimetres": 100, "down": -1}[change]
    for i, yard in enumerate(yards):
        save(tmp_path / "odd" / f"{i}.txt", yard, "X Y Z I label")
    even, data = (SceneFolder(tmp_path / each, num_points=64, block=2.0, test_fraction=0) for each in ("even", "odd"))
    wanted, found = (contract_of_data(each, num_points=64) for each in (even, data))
    assert found.heights == pytest.approx(wanted.heights, abs=0.1)
    names = [name for name, _ in found.notes_on_files(data)]
    assert names == ([] if change == "stray" else ["1.txt"])


@pytest.mark.slow
def test_a_pit_in_one_corner_counts_for_the_heights_of_training(tmp_path):
    generator, yards = np.random.default_rng(0), []
    for i in range(3):
        x, y, z = generator.random((3, 20_000)) * [[20], [20], [3]]
        z -= np.where((x < 2) & (y < 2), 6, 0)
        yards.append(np.column_stack([x, y, z, np.ones(20_000), z > 1]))
        save(tmp_path / f"{i}.txt", yards[-1], "X Y Z I label")
    contract = contract_of_data(SceneFolder(tmp_path, num_points=64, block=2.0, test_fraction=0), num_points=64)
    assert contract.heights == pytest.approx((7.5, 9), abs=0.3)
    for yard in yards:
        assert heights_said(yard[:, :3], contract) == ()


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_points_far_below_a_scene_are_counted_and_its_heights_taken_without_them(unit):
    room = np.random.default_rng(0).random((3000, 3)) * (8, 8, 3)
    room[:1500, 2] *= 0.01
    contract = Contract(num_points=64, scale="blocks", block=2 * unit, heights=(0.03 * unit, 3 * unit))
    for depths, said in (
        ([-2], f"1 point is {2 * unit:.3g} below the other 2,999; heights count from these"),
        (
            [-2, -9, -9],
            f"3 points are up to {9 * unit:.3g} below the other 2,997; heights count from these",
        ),
        (np.linspace(-3, 0, 15), None),  # a pit has points all the way
        ([-2 - i / 9 for i in range(16)], None),  # too many to be stray
        ([40], "1 point is far above the other 2,999"),
        ([-0.1], None),
    ):
        points = room.copy()
        points[: len(depths), 2] = depths
        taught = contract if said else dataclasses.replace(contract, heights=None)
        notes = heights_said(np.random.default_rng(1).permutation(points) * unit, taught)
        assert notes == ((said,) if said else ()), notes


def scene(seed: int = 0, width: float = 40, size: int = 6000) -> np.ndarray:
    """A lawn with a house of 8 metres."""
    generator = np.random.default_rng(seed)
    points = generator.random((size, 3)) * (width, width, 0.1)
    points[: size // 3] = generator.random((size // 3, 3)) * (10, 8, 8) + (5, 5, 0)
    return points


def outside(points: np.ndarray, unit: float = 1.0, shares: bool = False) -> str | None:
    """What is said of points, in any order, as an array and as rows of a file."""
    points = np.random.default_rng(1).permutation(points) * unit + (4e5, 5e6, 200)
    found = far_outside(points, unit, shares)
    assert far_outside(Rows(points, lambda rows: rows), unit, shares) == found
    return found


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_points_far_above_or_beside_a_scene_are_counted_in_one_line(unit):
    sky, mirrored = [[10, 10, 90], [30, 5, 95], [3, 3, 400]], [[-70, 20, 1], [20, 150, 1]]
    for far, said in (
        (sky[:1], "1 point is far above the other 6,000"),
        (sky, "3 points are far above the other 6,000"),
        (mirrored, "2 points are far beside the other 6,000"),
        (sky + mirrored, "5 points are far above or beside the other 6,000"),
        ([[500, 500, 500]] * 7, "7 points are far above or beside the other 6,000"),
        ([[20, 20, -90]], None),  # which another note counts
    ):
        assert outside(np.vstack([scene(), far]), unit) == said
    assert outside(np.vstack([scene(), [[20, 20, 90]] * 31]), unit) is None  # too many to be stray
    counted = "1 point is far above the other 6,000; places in the room are shares of its sides, which reach to there"
    assert outside(np.vstack([scene(), [[20, 20, 20]]]), unit, shares=True) == counted
    assert outside(np.vstack([scene(), [[20, 20, 20]]]), unit) is None


@pytest.mark.parametrize("shares", [False, True])
def test_a_tower_a_tree_apart_and_a_scene_without_height_are_no_stray_points(shares):
    generator = np.random.default_rng(2)
    tower = generator.random((25, 3)) * (2, 2, 150) + (20, 20, 0)
    tower[:, 2] = np.linspace(0, 150, 25)
    tree = generator.normal(size=(20, 3)) * (1, 1, 2) + (75, 20, 4)
    field = scene() * (1, 1, 0)
    for points in ([scene()], [scene(), tower], [scene(), tree], [field]):
        assert outside(np.vstack(points), shares=shares) is None


def test_a_power_line_over_a_field_is_none_but_for_a_network_of_shares():
    line = np.column_stack([np.linspace(0, 40, 20), np.full(20, 20), np.full(20, 14)])
    points = np.vstack([scene() * (1, 1, 0.02), line])
    assert outside(points) is None
    assert outside(points, shares=True).startswith("20 points are far above the other 6,000; places in the room")


def test_predict_says_them_of_scenes():
    contract = Contract(num_points=64, scale="blocks", block=2.0, heights=None)
    cloud = PointCloud(np.vstack([scene(), [[5, 5, 300], [5, 5, -30]]]), None, None, None)
    assert contract.notes_of(cloud) == (
        "1 point is 30 below the other 6,001; heights count from these",
        "1 point is far above the other 6,001",
        "most of its points are in blocks of 2 with fewer than 100 points, as were none of training",
    )
    assert Contract(num_points=64).notes_of(cloud) == ()


@pytest.mark.parametrize("kind", forms(["folder", "parts"], "parts"))
def test_stray_points_and_too_few_in_files_of_a_set_are_one_line_each_wherever_it_is_opened(tmp_path, capsys, kind):
    root, out = tmp_path / "set", str(tmp_path / "run")
    for i in range(9):
        for j, name in enumerate("ab"):
            rows = np.c_[ball(400, 9 * i + j) * (1, 1, 1 + j), np.arange(400) % 2]
            rows = rows[:5] if i in (0, 5) and name == "a" else rows
            rows[: 1 + i % 2, :3] *= 1000 if i in (3, 4, 6) and name == "b" else 1
            save(root / ("train" if i < 6 else "test") / name / f"{i}.txt", rows, "x y z label")
    few = "2 files, such as train/a/0.txt: only 5 different points"
    far = r"3 files, such as train/b/3\.txt: 2 of 400 points are up to \S+ times as far out as all others and set .*"
    task = "classification" if kind == "folder" else "part"
    short = f"--task {task} --epochs 1 --num_points 16 --width 0.1 --tnet_width 0.1 --min_steps 1".split()
    for words in (
        ["train", *short, "--dataset", kind, "--root", str(root), "--out", out],
        ["show", kind, "--root", str(root), "--out", str(tmp_path)],
    ):
        assert command_line.main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert few in lines
        assert len([line for line in lines if re.fullmatch(far, line)]) == 1
    assert command_line.main(["evaluate", out]) == 0
    said = "test/b/6.txt: 1 of 400 points is "
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith(said)]
    assert command_line.main(["show", str(root / "train" / "a" / "0.txt"), "--out", str(tmp_path)]) == 0
    assert "    only 5 different points" in capsys.readouterr().out.splitlines()
