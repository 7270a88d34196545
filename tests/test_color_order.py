"""x y z r g b intensity and x y z intensity r g b without names: which is which, or that it is not clear."""

import numpy as np
import pytest

from pointnet.points.errors import Refusal
from pointnet.points.formats.by_numbers import recognised
from pointnet.points.read import PointCloudFileError, read_cloud
from tests.tables import text_of
from tests.whole_files import written

ORDERS = ("r,g,b,intensity", "intensity,r,g,b")


def tables(rows: int, spread: float, follows: float, seed: int = 0, labels: bool = False) -> list[np.ndarray]:
    """Both orders: colours as bright as one another but for `spread`, and an intensity that follows the brightness,
    with that correlation, or a label that does."""
    generator = np.random.default_rng(seed)
    shade, own = generator.uniform(40, 215, rows), generator.normal(size=rows)
    colors = (shade[:, None] * (1, 0.93, 0.87) + spread * generator.normal(size=(rows, 3))).clip(0, 255).round()
    normal = (shade - shade.mean()) / shade.std()
    other = (110 + 40 * (follows * normal + np.sqrt(1 - follows**2) * own)).clip(0, 255).round()
    if labels:
        other = np.digitize(other, np.quantile(other, np.linspace(0, 1, 9)[1:-1])) + 0.0
    xyz = generator.normal(size=(rows, 3)).round(3)
    return [np.column_stack([xyz, colors, other]), np.column_stack([xyz, other, colors])]


def taken(rows: np.ndarray) -> str:
    try:
        return ",".join(recognised(rows).names[3:])
    except Refusal:
        return "open"


@pytest.mark.parametrize("follows", [0, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize(("spread", "rows"), [(0, 20), (0, 4000), (3, 100), (3, 4000), (8, 4000)])
def test_colours_that_go_together_are_found_beside_an_intensity_that_follows_them(spread, rows, follows):
    for seed in range(3):
        assert tuple(map(taken, tables(rows, spread, follows, seed))) == ORDERS


@pytest.mark.parametrize("rows", [100, 1000, 4000])
@pytest.mark.parametrize("spread", [3, 8, 15, 25, 40])
def test_an_intensity_as_close_to_the_colours_as_they_are_is_taken_for_none_of_them(rows, spread):
    for seed in range(5):
        apart, close = (tuple(map(taken, tables(rows, spread, follows, seed))) for follows in (0, 0.999))
        assert (
            apart == ORDERS if rows > 100 else all(one in ("open", *ORDERS[i : i + 1]) for i, one in enumerate(apart))
        )
        assert close == ("open", "open")


@pytest.mark.parametrize("full", [255, 65535])
@pytest.mark.parametrize("rows", [100, 4000])
def test_colours_behind_an_intensity_and_a_label_are_found_where_they_go_together(full, rows):
    """LAStools' xyzicRGB."""
    for seed in range(3):
        both, generator = tables(rows, 8, 0, seed)[0], np.random.default_rng(seed)
        both[:, 3:] *= full / 255
        label, alone = generator.choice([1, 2, 6], rows), generator.integers(0, full, (rows, 3))
        for colors, names in ((both[:, 3:6], "intensity,label,r,g,b"), (alone, None)):
            found = taken(np.column_stack([both[:, :3], both[:, 6], label, colors]))
            assert found == names or (names is None and "r,g,b" not in found)


def test_four_columns_that_are_the_same_are_an_intensity_and_its_grey():
    same = tables(500, 0, 1)[0][:, [0, 1, 2, 3, 3, 3, 3]]
    assert taken(same) == "intensity,r,g,b"


def test_a_label_that_follows_the_brightness_is_no_colour():
    for rows in (200, 4000):
        for spread in (0, 3):
            assert taken(tables(rows, spread, 0.8, labels=True)[0]) == "r,g,b,label"


def test_what_is_open_is_refused_where_colours_are_wanted_and_read_where_they_are_not(tmp_path):
    path = written(tmp_path, "a.txt", text_of(tables(500, 10, 0.99)[0]))
    with pytest.raises(PointCloudFileError, match="it is not clear which of them are colours; name the columns"):
        read_cloud(path)
    assert len(read_cloud(path, extras=()).points) == 500
    assert read_cloud(path, columns="x,y,z,r,g,b,intensity").colors is not None
