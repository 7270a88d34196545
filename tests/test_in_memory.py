"""Points in memory: a table that names its columns is read as the same table in a file."""

import numpy as np
import pytest

from pointnet.points.features import features_of
from pointnet.points.in_memory import cloud_of, rows_of
from pointnet.points.read import read_cloud

RNG = np.random.default_rng(0)
NAMES = ("z", "Red", "Green", "Blue", "y", "x", "Classification")
ROWS = np.column_stack([RNG.normal(size=(50, 1)), RNG.integers(0, 256, (50, 3)), RNG.normal(size=(50, 2)), [3] * 50])


class Frame:
    """As a table of pandas or polars, which tests do without."""

    def __init__(self, names, rows):
        self.columns, self.rows = names, rows

    def __getitem__(self, name):
        return Frame([], self.rows[:, [*self.columns].index(name)])

    def to_numpy(self):
        return self.rows


def structured(names, rows):
    return np.rec.fromarrays([*rows.T, ["a"] * len(rows)], names=[*names, "who"])


@pytest.mark.parametrize("table", [Frame(NAMES, ROWS), structured(NAMES, ROWS)], ids=["frame", "structured"])
def test_columns_go_by_their_names_in_any_order(tmp_path, table):
    np.savetxt(tmp_path / "a.csv", ROWS, delimiter=",", header=",".join(NAMES), comments="")
    wanted, found = read_cloud(tmp_path / "a.csv"), cloud_of(rows_of(table))
    assert np.allclose(wanted.points, ROWS[:, [5, 4, 0]])
    for name in ("points", "colors", "labels"):
        assert np.allclose(getattr(found, name), getattr(wanted, name), atol=1e-6), name
    assert found.notes == (("left out: who, not numbers",) if isinstance(table, np.ndarray) else ())


def test_a_masked_number_is_none_and_a_table_without_names_is_an_array():
    rows = ROWS[:, :3] + 1
    masked = np.ma.masked_array(structured("xyz", rows), [(True, False, False, False)] + [(False,) * 4] * 49)
    assert len(cloud_of(rows_of(masked)).points) == 49
    assert np.allclose(cloud_of(rows_of(Frame(range(3), rows))).points, rows)
    with pytest.raises(ValueError, match="points of columns 'a, b, c, who': names no columns x, y and z"):
        cloud_of(rows_of(structured("abc", rows)))


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_colours_that_are_none_of_files_are_refused(scale):
    rows = np.hstack([ROWS[:, [5, 4, 0]], ROWS[:, 1:4] / 255])
    names = ("x", "y", "z", "r", "g", "b")
    assert features_of(cloud_of(rows, columns=names), ["colors"])(slice(None)).max() <= 1
    rows[:, 3:] *= scale
    with pytest.raises(ValueError, match=r"colours must be in \[0, 1\], as files give them, got "):
        features_of(cloud_of(rows, columns=names), ["colors"])(slice(None))


def test_normals_that_are_missing_or_may_be_others_are_said(tmp_path):
    points, normals = RNG.normal(size=(400, 3)), RNG.normal(size=(400, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)

    def notes(normals):
        np.savetxt(tmp_path / "a.csv", np.hstack([points, normals]), "%.6f", ",", header="x,y,z,nx,ny,nz", comments="")
        of_file, of_array = read_cloud(tmp_path / "a.csv").notes, cloud_of(np.hstack([points, normals])).notes
        assert of_file == of_array
        return of_array

    assert notes(normals) == notes(127 * normals) == ()
    some = normals.copy()
    some[:3] = 0
    assert notes(some) == ()
    some[:90] = np.nan
    assert notes(some) == ("normals of 90 of 400 points are 0 or not finite, and 0 to a network",)
    assert notes(0 * some) == ("normals are all 0 or not finite, left out",)
    (said,) = notes(RNG.integers(0, 256, (400, 3)))
    assert said.startswith("normals have lengths of ")
    assert said.endswith(", and none is negative: are they colours?")
    assert notes(normals * RNG.uniform(1, 9, (400, 1))) == ()  # by the areas of faces, say


@pytest.mark.parametrize("names", [("column_0", "column_1", "column_2"), ("0", "1", "2"), (7, 8, 9)])
def test_a_table_whose_columns_are_numbered_is_an_array(names):
    rows = ROWS[:, :3] + 1
    assert np.allclose(cloud_of(rows_of(Frame(names, rows))).points, rows)


@pytest.mark.parametrize("names", [("height", "east", "north"), ("depth", "x", "y"), ("5", "17", "3")])
def test_a_table_of_other_names_is_refused_and_not_read_by_place(names):
    with pytest.raises(ValueError, match="points of columns '" + ", ".join(names) + "': not x, y and z; rename them"):
        rows_of(Frame(names, ROWS[:, : len(names)]))


def test_columns_of_points_that_hold_no_numbers_are_said():
    with pytest.raises(ValueError, match="points of columns 'x, y, z': columns of x, y and z must hold numbers"):
        cloud_of(rows_of(Frame(list("xyz"), ROWS[:, :3].astype(object))))


def test_columns_that_are_none_are_refused_in_one_line():
    with pytest.raises(ValueError, match="points of columns 'x, y, z, x': two have one name"):
        rows_of(Frame(["x", "y", "z", "x"], ROWS[:, :4]))
    with pytest.raises(ValueError, match="each column must be one number for each point"):
        cloud_of(dict.fromkeys("xyz", ROWS))
