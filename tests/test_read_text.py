"""Text: columns by their names or by their numbers, whatever separates them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointnet.points.formats import scan as scan_module
from pointnet.points.formats import text as text_module
from pointnet.points.formats.scan import numbers_of_lines
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from tests import whole_files
from tests.whole_files import written


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("1 2 3\n4 5 6\n", ""),
        ("2\n1 2 3\n4 5 6\n", ""),
        ("\ufeff1\t2\t3\r\n4\t5\t6\r\n", ""),
        ("1,0;2,0;3,0\n4,0;5,0;6,0\n", ""),
        ("1 2 3 7\n4 5 6 8\n", "labels"),
        ("1 2 3 0.7\n4 5 6 0.8\n", ""),
        ("1 2 3 0 0 1\n4 5 6 0 1 0\n", "normals"),
        ("1 2 3 0 0 10\n4 5 6 0 255 0\n", "colors"),
        ("1 2 3 0 0 -10\n4 5 6 0 1 0\n", ""),
        ("1 2 3 0 0 1 7\n4 5 6 0 1 0 8\n", "normals labels"),
        ("x y z\n1 2 3\n4 5 6\n", ""),
        ("//X,Y,Z,R,G,B,Label\n1,2,3,9,9,9,7\n4,5,6,9,9,9,8\n", "colors labels"),
        ('"label","z","y","x"\n7,3,2,1\n8,6,5,4\n', "labels"),
        ("x,y,z,name,nx,ny,nz\n1,2,3,wood,0,0,2\n4,5,6,tin,0,2,0\n", "normals"),
        (",x,y,z\n0,1,2,3\n1,4,5,6\n", ""),
        ("point id,x,y,z,intensity\n7,1,2,3,99\n8,4,5,6,98\n", ""),
        ("x;y;z;note\n1,0;2,0;3,0;\n4,0;5,0;6,0;cut, here\n", ""),
        ("x,y,z,x,y,z\n1,2,3,9,9,9\n4,5,6,9,9,9\n", ""),
        ("1,2,3,\n4,5,6,\n", ""),
        ("1\t2\t3\n4 5\t\t6\n", ""),
        ("1,2,3\n\n4,5,6\n \n", ""),
        ("# x y z of a chair\n1 2 3\n4 5 6\n", ""),
    ],
)
def test_text_is_read_by_its_names_or_by_what_its_numbers_can_be(tmp_path, text, has):
    cloud = read_cloud(written(tmp_path, "a.txt", text))
    assert np.array_equal(cloud.points, [[1, 2, 3], [4, 5, 6]])
    assert [name for name in ("normals", "colors", "labels") if getattr(cloud, name) is not None] == has.split()
    if cloud.normals is not None:
        assert np.allclose(np.linalg.norm(cloud.normals, axis=1), 1)
    if cloud.labels is not None:
        assert cloud.labels.tolist() == [7, 8]
    if cloud.colors is not None:
        assert 0 <= cloud.colors.min() < cloud.colors.max() <= 1 or cloud.colors.max() == np.float32(9 / 255)


def test_the_colours_of_pts_stand_behind_the_intensity(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.pts", "2\n1 2 3 40 255 0 51\n4 5 6 40 0 255 0\n"))
    assert np.allclose(cloud.colors, [[1, 0, 0.2], [0, 1, 0]])
    assert cloud.labels is None


@given(st.lists(st.lists(st.integers(0, 10**6), max_size=5), max_size=30), st.sampled_from(["\n", "\r\n"]), st.data())
def test_lines_are_counted_without_the_blank_ones_in_blocks_of_any_size(rows, ending, data):
    text = ending.join(" ".join(map(str, row)) for row in rows).encode()
    count = data.draw(st.integers(0, len(rows)))
    filled = [i for i, row in enumerate(rows) if row]
    taken = rows[: filled[count - 1] + 1] if 0 < count <= len(filled) else rows if count else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "BLOCK", data.draw(st.integers(1, 50)))
        found, end = numbers_of_lines(b"?" + text, 1, count)
    assert found.tolist() == [number for row in taken for number in row]
    rest = text[end - 1 :].split()
    assert [int(word) for word in rest] == [number for row in rows[len(taken) :] for number in row]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_text_is_the_same_however_many_lines_are_read_at_once(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_module, "BLOCK", block)
    rows = np.random.default_rng(0).normal(size=(10, 6))
    path = written(tmp_path, "a.txt", "# a comment\n" + whole_files.rows(rows) + "\n\n")
    np.testing.assert_allclose(read_points(path), rows[:, :3], rtol=1e-5)
    for name, text, reason in (
        ("b.txt", whole_files.rows(rows) + "1 2 3\n", "the number of columns changed from 6 to 3 at row 11"),
        ("c.txt", whole_files.rows(rows[:, :3]) + "1 2 x\n", "could not convert string 'x' to float64 at row 10"),
    ):
        for extras in ((), ("normals", "colors", "labels")):
            with pytest.raises(PointCloudFileError, match=reason):
                read_cloud(written(tmp_path, name, text), extras=extras)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('name,x,y,z\noak,1,2,3\n"lot, 7",5,6,9\n', [[1, 2, 3], [5, 6, 9]]),
        ('x,y,z,name\n1,2,3,"a, b"\n5,6,7,c\n', [[1, 2, 3], [5, 6, 7]]),
        ('x;y;z;note\n1,5;2;3;ok\n5;6;7;"a;5"\n', [[1.5, 2, 3], [5, 6, 7]]),
        ("x,y,z,i\n1,2,3,\n,,,\n4,5,6,0.5\n", [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_words_in_quotes_are_one_cell_and_empty_cells_are_nan(tmp_path, text, wanted):
    assert np.array_equal(read_points(written(tmp_path, "a.csv", text.encode())), wanted)


def test_a_row_with_a_cell_too_many_is_refused(tmp_path):
    with pytest.raises(PointCloudFileError, match="has a row of 5 columns, not 4: '9,4,5,6,7'"):
        read_points(written(tmp_path, "a.csv", b"name,x,y,z\noak,1,2,3\n9,4,5,6,7\n"))
