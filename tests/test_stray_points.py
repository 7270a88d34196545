"""A few stray points: what they would change without a word is said."""

import re

import numpy as np
import pytest

from pointnet import predict
from pointnet.datasets.blocks import check_extent
from pointnet.evaluation.trust import few_points, stray_points, unfit
from pointnet.points.features import features_of
from pointnet.points.read import PointCloud, read_points
from pointnet.points.sampling import KEPT

from .helpers import ROOT

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
    assert unfit(points, "as given") is None
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
    assert unfit(points, "unit sphere") == few_points(points) == "only 2 different points"


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
