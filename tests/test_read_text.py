"""Text: columns by their names or by their numbers, whatever separates them."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointnet.points.formats import scan as scan_module
from pointnet.points.formats import text as text_module
from pointnet.points.formats.scan import numbers_of_lines
from pointnet.points.read import EXTRAS, PointCloudFileError, read_cloud, read_points
from tests import whole_files
from tests.whole_files import XYZ, ply, written


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


@pytest.mark.parametrize("block", [1, 300, 1 << 16])
def test_text_is_the_same_however_many_lines_are_read_at_once(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_module, "BYTES", block)
    rows = np.random.default_rng(0).normal(size=(10, 6))
    path = written(tmp_path, "a.txt", "# a comment\n" + whole_files.rows(rows) + "\n\n")
    np.testing.assert_allclose(read_points(path), rows[:, :3], rtol=1e-5)
    for name, text, reason in (
        ("b.txt", whole_files.rows(rows) + "1 2 3\n", "line 11 has 3 columns, not 6: '1 2 3'"),
        ("c.txt", whole_files.rows(rows[:, :3]) + "1 2 x\n", "line 11 has 'x' in column 3, not a number"),
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


MISSING = ["", "NA", "na", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "NaN", "nan", "-", "?", "1.#QNAN"]
MISSING += ["#DIV/0!", "#VALUE!"]


@pytest.mark.parametrize("word", MISSING)
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t", "|"])
def test_cells_without_a_value_are_nan_and_labels_minus_one(tmp_path, word, separator):
    word = word or ('""' if separator == " " else "")
    rows = [["1.5", "2", "3", "4"], ["5", "6", "7", word], [word, word, word, "9"], ["8", "9.5", "1", "2"]]
    for header in (["x", "y", "z", "label"], []):
        text = "".join(separator.join(row) + "\n" for row in [header, *rows] if row)
        cloud = read_cloud(written(tmp_path, "a.csv", text))
        assert cloud.points.tolist() == [[1.5, 2, 3], [5, 6, 7], [8, 9.5, 1]]
        assert cloud.labels.tolist() == [4, -1, 2]
        assert cloud.notes[-1] == "1 row that is not finite left out"


@pytest.mark.parametrize(
    ("text", "labels", "note"),
    [
        ("x,y,z,class\n1,2,3,tree\n4,5,6,car\n", None, "left out: class, not numbers"),
        ("x,y,z,class\n1,2,3,\n4,5,6,car\n", None, "left out: class, not numbers"),
        ("x y z class\n1 2 3 tree\n4 5 6 7\n", None, "left out: class, not numbers"),
        ("class;class_id;x;y;z\ncar;7;1,0;2;3\ntree;8;4;5;6\n", [7, 8], "left out: class, not numbers"),
        ('name x y z label\n"big tree" 1 2 3 7\noak 4 5 6 8\n', [7, 8], "left out: name, not numbers"),
        ("name\tx\ty\tz\tlabel\nbig tree\t1\t2\t3\t7\noak\t4\t5\t6\t8\n", [7, 8], "left out: name, not numbers"),
        ("x,y,z,tag,label\n1,2,3,#a,7\n4,5,6,#b,8\n", [7, 8], "left out: tag, not numbers"),
        ("1 2 3 tree\n4 5 6 car\n", None, "left out: column 4, not numbers"),
        ("1,2,3,tree,7\n4,5,6,car,8\n", [7, 8], "left out: column 4, not numbers"),
        ("x,y,z,label\n1,2,3,True\n4,5,6,false\n", [1, 0], None),
        ("1 2 3 FALSE\n4 5 6 TRUE\n", [0, 1], None),
    ],
)
def test_columns_of_words_are_left_out_with_a_note(tmp_path, text, labels, note):
    cloud = read_cloud(written(tmp_path, "a.csv", text))
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (labels if cloud.labels is None else cloud.labels.tolist()) == labels
    assert note is None or note in cloud.notes


@pytest.mark.parametrize("mark", ["#", "##", "//", "%", "%%", "!", ";", "; "])
@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_comments_of_every_style_are_skipped_and_may_name_the_columns(tmp_path, mark, separator):
    names, rows = separator.join(["label", "z", "y", "x"]), [[7, 3, 2, 1], [8, 6, 5, 4]]
    first, last = (separator.join(map(str, row)) for row in rows)
    comments = f"{mark} made by 3 of us\n", f"{mark}{names}\n", f"{mark}{first}\n", f"{mark} end\n"
    text = "{0}{1}{2}{first}\n{2}{3}{2}{last}\n{3}".format(*comments, first=first, last=last)
    cloud = read_cloud(written(tmp_path, "a.txt", text))
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.labels.tolist() == [7, 8]
    unnamed = read_cloud(written(tmp_path, "b.txt", f"{comments[0]}{first}\n{comments[2]}{last}\n"))
    assert unnamed.points.tolist() == [[7, 3, 2], [8, 6, 5]]


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3 # a, b\n4 5 6# c\n",
        "1,2,3 # a\n4,5,6,# b, c\n",
        "x;y;z;i\n1;2;3;0,5 # a\n4;5;6;0,5\n",
        "id,x,y,z\n7,1,2,3\n#8,9,9,9\n  ;8,9,9,9\n9,4,5,6\n",
    ],
)
def test_comments_behind_rows_and_rows_that_are_comments_do_not_count(tmp_path, text):
    assert read_points(written(tmp_path, "a.txt", text)).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "x", "note"),
    [
        ("1,234,567.25\t2,345\t3\n1,234,568.25\t2\t3\n", [1234567.25, 1234568.25], ""),
        ('"1,234.5","2,345","3"\n"2,234.5","2","3"\n', [1234.5, 2234.5], ""),
        ("1,234,567;2,345;3\n7;2,345;3\n", [1234567, 7], ""),
        ("1,234 2,345 0,5\n2,345 2 3\n", [1.234, 2.345], ""),
        ("1234,567 2,345 3\n1,234 2 3\n", [1234.567, 1.234], ""),
        ("1,5|2|3\n2,5|2|3\n", [1.5, 2.5], ""),
        ("1,234\t2,345\t3.25\n2,345\t2\t3\n", [1234, 2345], "numbers such as 1,234 taken as 1234"),
        ("1,234\t2,345\t3\n2,345\t2\t3\n", [1.234, 2.345], "numbers such as 1,234 taken as 1.234"),
        ("1.234.567,25;2;3\n-8;2;3\n", [1234567.25, -8], ""),
        ("-4.808,818;944,086;3\n944,086;-4.808,818;0.25\n", [-4808.818, 944.086], ""),
        ("1.234,567 2.345,678 3.456,789\n2.345 2.345,678 3.456,789\n", [1234.567, 2345], ""),
        ('"1.234,5","2,5","3"\n"944,086","2","3"\n', [1234.5, 944.086], ""),
        ("x\ty\tz\n1.234,567\t2.345,678\t3.456,789\n7,5\t2.345\t3\n", [1234.567, 7.5], ""),
        ("sep=;\r\nx;y;z\r\n1,5;2;3\r\n2,5;2;3\r\n", [1.5, 2.5], ""),
        ("1.5,2,3\r\r\n4,5,6\r\r\n", [1.5, 4], ""),
        ("1.5 2 3\r\n4 5 6\r7 8 9\n", [1.5, 4, 7], ""),
    ],
)
def test_commas_between_thousands_and_lines_of_any_ending(tmp_path, text, x, note):
    cloud = read_cloud(written(tmp_path, "a.txt", text), precise=True)
    assert cloud.points[:, 0].tolist() == x
    assert cloud.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x y z label\n1 2 3 4\n\n5 6 7 8 9\n", "line 4 has 5 columns, not 4: '5 6 7 8 9'"),
        ("x y z\n1 2 3\n5 6\n", "line 3 has 2 columns, not 3: '5 6'"),
        ("1 2 3\n4 5 6 7\n", "line 2 has 4 columns, not 3: '4 5 6 7'"),
        ("# a\n\n1;2;3;4\n\n# b\n5;6;7\n", "line 6 has 3 columns, not 4: '5;6;7'"),
        ("1 2 3\n" * 30_000 + "1 2 three\n", "line 30001 has 'three' in column 3, not a number"),
        ("x,y,z,label\n1,2,3,4\n4,5,6,tree\n", "line 3 has 'tree' in column 4, not a number"),
        ("1 2 3\n" * 30_000 + "1,234 2 3\n", "line 30001 has '1,234' in column 1, not a number"),
        ("1.234.567;2;3\n", "line 1 has '1.234.567' in column 1, not a number"),
        ("1.234,5;2;3\n1,234.5;2;3\n", "line 2 has '1.234.5' in column 1, not a number"),
        (b"1 2 3 4\n1\xa02 3 4 5\n", r"line 2 has '1\xa02' in column 1, not a number"),
        ("1 2 3 " * 20_000, "line 1 is longer than 100,000 characters"),
        ("1 2 3\n" * 9 + "1 2 3 " * 40_000, "line 10 is longer than 100,000 characters"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_number_in_the_file(tmp_path, text, reason):
    for extras in (("labels",), EXTRAS):
        with pytest.raises(PointCloudFileError, match=f": {re.escape(reason)}$"):
            read_cloud(written(tmp_path, "a.txt", text), extras=extras)


@pytest.mark.parametrize("exponent", ["D+00", "d+0", "D-00", "E+00", "d+000"])
@pytest.mark.parametrize("separator", [" ", ",", ";"])
def test_exponents_as_fortran_writes_them_are_read(tmp_path, exponent, separator):
    text = "".join(
        separator.join(f"{number}{exponent}" for number in row) + "\n" for row in (("1.5", "2.", ".3"), "468")
    )
    assert read_points(written(tmp_path, "a.txt", text)).tolist() == np.float32([[1.5, 2, 0.3], [4, 6, 8]]).tolist()
    body = "0.1D+01 2d+00 3\n4 5 60.D-01\n"
    assert read_points(written(tmp_path, "a.ply", ply(f"element vertex 2\n{XYZ}", body.encode()))).tolist() == [
        [1, 2, 3],
        [4, 5, 6],
    ]


def test_lines_above_the_names_of_columns_are_passed_over_and_this_is_said(tmp_path):
    above = "Project: Foo\nDate: 2024-01-02\n\n"
    note = "lines above the names of columns left out: 2, from 'Project: Foo' on"
    for names, row in (("label,z,y,x", "7,3,2,1"), ("label z y x", "7 3 2 1"), ("# label z y x", "7 3 2 1")):
        cloud = read_cloud(written(tmp_path, "a.csv", f"{above}{names}\n{row}\n"))
        assert (cloud.points.tolist(), cloud.labels.tolist(), cloud.notes) == ([[1, 2, 3]], [7], (note,))
    assert read_points(written(tmp_path, "a.csv", "a: b\n" * 20 + "x,y,z\n1,2,3\n")).tolist() == [[1, 2, 3]]
    without = written(tmp_path, "b.csv", f"{above}1,2,3\n")
    assert read_points(without, columns="x,y,z").tolist() == [[1, 2, 3]]
    hint = "; name the columns with --columns"
    for text, last in (
        (f"{above}1,2,3\n", hint),
        (f"{above}# made by x, y and z\n1,2,3\n", hint),
        ("Project: Foo\n" * 21 + "x,y,z\n1,2,3\n", hint),
        (above, "with x, y and z$"),
    ):
        with pytest.raises(PointCloudFileError, match=f"begins with 'Project: Foo', neither numbers nor .*{last}"):
            read_cloud(written(tmp_path, "a.csv", text))


@pytest.mark.parametrize("columns", [None, "x,y,z"])
def test_rows_that_are_not_numbers_are_quoted(tmp_path, columns):
    path = written(tmp_path, "a.csv", "x;y;z\n1.2 m;0.5 m;0.0 m\n1.3 m;0.5 m;0.0 m\n")
    with pytest.raises(PointCloudFileError, match=": line 2 is '1.2 m;0.5 m;0.0 m', not a row of numbers$"):
        read_cloud(path, columns=columns)


@pytest.mark.parametrize("names", ["", "x,y,z\n"])
@pytest.mark.parametrize("text", ["[1, 2, 3]\n[4, 5, 6]\n", "[[1. 2. 3.]\n [4. 5. 6.]]", "(1;2;3)\n(4;5;6)"])
def test_rows_in_brackets_are_refused_with_what_to_do(tmp_path, names, text):
    path = written(tmp_path, "a.txt", names + text)
    for columns in (None, "x,y,z"):
        with pytest.raises(
            PointCloudFileError, match="; write the numbers of one point on each line, without brackets$"
        ):
            read_cloud(path, columns=columns)
    bare = text.translate(str.maketrans("", "", "[]()"))
    assert read_points(written(tmp_path, "a.txt", names + bare)).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_words_are_quoted_as_they_are_written(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        with pytest.raises(PointCloudFileError, match="begins with 'Höhe;Länge', neither"):
            read_cloud(written(tmp_path, "a.csv", "Höhe;Länge\n1;2;3\n".encode(encoding)))
        named = written(tmp_path, "b.csv", "x;y;z;Intensität;Höhenlage\n1;2;3;4;5\n5;6;7;9;8\n".encode(encoding))
        assert read_cloud(named).notes == ("left out: Höhenlage",)
        assert read_cloud(named).intensity.tolist() == [4, 9]
    for text, wanted in (
        ("é".encode() * 20 + b"\xc3", repr("é" * 20)),
        (b"\x89\xff\n", r"'\x89\xff\n'"),
        ("a\u202eb", r"'a\u202eb'"),
        ("日本", "'日本'"),
    ):
        assert scan_module.quoted(text) == wanted


def test_lines_below_the_names_are_units_or_said(tmp_path):
    for below, said in (
        ("m,m,m", ""),
        (",,\n" * 30 + "-,-,-\n?,NA,", ""),
        ("a,b,c\na,b,c", "a,b,c"),
        ("[m];[m];[m]", ""),
        ("-,-,m", ""),
        ("a,b,c", "a,b,c"),
        ("day three", "day three"),
    ):
        notes = read_cloud(written(tmp_path, "a.csv", f"x,y,z\n{below}\n1,2,3\n")).notes
        assert notes == (
            (f"lines below the names of columns left out: {below.count(said)}, from '{said}' on",) if said else ()
        )
    notes = read_cloud(written(tmp_path, "a.csv", "x,y,z,t\nm,m,m,counts\n1,2,3,4\n"), extras=()).notes
    assert notes == ()
