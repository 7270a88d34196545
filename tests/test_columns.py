"""Which column is what: by its numbers, however the table is written."""

import numpy as np
import pytest

from pointnet.points.formats.values import as_unit_colors
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from tests import whole_files
from tests.helpers import SHARED_DATA
from tests.tables import (
    BYTE_INTENSITY,
    COUNT,
    LABEL,
    NEGATIVE,
    ONES,
    RETURNS,
    RGB,
    RNG,
    SMALL_INTENSITY,
    TABLES,
    UNIT,
    XYZ,
    assert_holds,
    table_of,
    text_of,
)
from tests.whole_files import npy_of, pcd, ply, written


@pytest.mark.parametrize("name", TABLES)
def test_columns_without_names_are_known_by_their_numbers(tmp_path, name):
    rows, wanted = table_of(name)
    text = text_of(rows)
    files = {"a.txt": text, "a.npy": npy_of(rows), "a.csv": text.replace(" ", ","), "a.asc": text.replace(" ", "\t")}
    for file, content in files.items():
        cloud = read_cloud(written(tmp_path, file, content))
        assert_holds(cloud, wanted)
        taken = ",".join(["x", "y", "z", *filter(None, [TABLES[name][1]])])
        assert cloud.notes == ((f"columns taken as {taken}",) if len(rows.T) > 3 else ()), file
    bare = read_cloud(tmp_path / "a.txt", extras=())
    assert (bare.colors, bare.intensity, bare.notes) == (None, None, ())
    by_hand = read_cloud(tmp_path / "a.npy", columns=taken)
    assert_holds(by_hand, wanted)
    assert by_hand.notes == ()


def test_the_whole_table_decides(tmp_path):
    rows = np.hstack([np.resize(XYZ, (30_001, 3)), np.resize(RGB, (30_001, 3)) % 2])
    for value, has in ((1, True), (200, True), (0.5, True), (-1, False), (70_000, False)):
        rows[25_001, 4] = value  # which no even choice of a few rows meets
        assert (read_cloud(written(tmp_path, "a.npy", npy_of(rows))).colors is not None) == has, value
    normals = np.resize(UNIT, (30_001, 3))
    normals[25_001] = 0.9
    assert read_cloud(written(tmp_path, "a.npy", npy_of(np.hstack([rows[:, :3], normals])))).normals is None


@pytest.mark.parametrize(
    ("behind", "taken"),
    [
        ("90 200 0 255, 8 10 90 3, 9 77 20 100", "intensity,r,g,b"),
        ("200 0 255 39, 10 90 3 39, 77 20 100 2", "r,g,b,label"),
        ("200 0 255 1, 10 90 3 2, 77 20 100 3", "r,g,b,label"),
        ("200 0 255 255, 10 90 3 255, 77 20 100 255", "r,g,b,_"),
        ("200 10 20, 100 5 9, 60 7 0", "r,g,b"),
        ("200 1 20, 100 1 9, 60 2 9", "intensity,_,label"),
        ("39, 39, 2", "label"),
        ("39, 40, 2", "intensity"),
        ("1, 2, 3", "label"),
        ("90 200 0 255 39, 8 10 90 3 39, 9 77 20 100 2", "intensity,r,g,b,label"),
    ],
)
def test_few_rows_are_recognised_too(tmp_path, behind, taken):
    rows = zip(("5 2 3", "1 0.5 7", "1 9 8"), behind.split(","), strict=True)
    path = written(tmp_path, "a.txt", "\n".join(" ".join(row) for row in rows))
    assert read_cloud(path).notes == (f"columns taken as x,y,z,{taken}",)


def test_an_intensity_a_dim_blue_and_a_label_are_taken_for_each_other_nowhere(tmp_path):
    xyz, byte, shade = RNG.normal(size=(3000, 3)), RNG.integers(0, 256, (3000, 1)), RNG.random((3000, 1))
    brick = (shade * [200, 120, 55] + RNG.random((3000, 3)) * [50, 30, 9]).round()
    tint, label = np.hstack([byte, 0 * byte, 0 * byte]), RNG.integers(0, 10, (3000, 1))
    for table, taken in (
        ([byte, brick], "intensity,r,g,b"),
        ([byte, brick, label], "intensity,r,g,b,label"),
        ([byte, brick.round(-1) // 10 * 4], "intensity,r,g,b"),
        ([brick, label], "r,g,b,label"),
        ([tint, 0 * byte], "intensity,r,g,b"),
        ([tint, label], ""),
        ([byte, RNG.integers(0, [256, 256, 65], (3000, 3))], ""),
        ([brick[:, :1], brick], ""),
    ):
        path = written(tmp_path, "a.npy", npy_of(np.hstack([xyz, *table]).astype(float)))
        if taken:
            assert read_cloud(path).notes[0] == f"columns taken as x,y,z,{taken}"
        else:
            with pytest.raises(PointCloudFileError, match="it is not clear which of them are colours; name the col"):
                read_cloud(path)


def test_colours_that_go_together_are_distinguished_from_an_intensity_behind_them(tmp_path):
    grey = RNG.integers(0, 200, (3000, 1))
    rgb, xyz = grey + RNG.integers(0, 50, (3000, 3)), RNG.normal(size=(3000, 3))
    intensity = RNG.integers(0, 256, (3000, 1))
    for table in ([xyz, rgb, intensity], [xyz, intensity, rgb]):
        cloud = read_cloud(written(tmp_path, "a.txt", text_of(np.hstack(table))))
        np.testing.assert_allclose(cloud.colors * 255, rgb, atol=1e-3)
        assert np.array_equal(cloud.intensity, intensity[:, 0])


def test_what_is_not_clear_is_refused_with_the_flag_that_settles_it(tmp_path):
    rows = np.hstack([XYZ, BYTE_INTENSITY, RGB, BYTE_INTENSITY[::-1]])
    path = written(tmp_path, "a.txt", text_of(rows))
    with pytest.raises(PointCloudFileError, match=r"has 8 columns, .*colours; name the columns with --columns"):
        read_cloud(path)
    assert np.allclose(read_points(path), XYZ)
    cloud = read_cloud(path, columns="x,y,z,intensity,r,g,b,_")
    assert_holds(cloud, {"intensity": BYTE_INTENSITY[:, 0], "colors": RGB / 255})


def test_small_numbers_are_no_colours_and_refused_where_they_might_be(tmp_path):
    few = np.random.default_rng(2).integers(0, 8, (COUNT, 3))
    for table, taken in (
        ([few], ""),
        ([few, LABEL], ""),
        ([few * 2, SMALL_INTENSITY], ""),
        ([BYTE_INTENSITY, few], "intensity,_,_,label"),
        ([few % 2], "r,g,b"),
    ):
        path = written(tmp_path, "a.txt", text_of(np.hstack([XYZ, *table])))
        if taken:
            assert read_cloud(path).notes == (f"columns taken as x,y,z,{taken}",)
        else:
            with pytest.raises(PointCloudFileError, match="not clear which of them are colours; name the columns"):
                read_cloud(path)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("0,1,2\n1.5,2,3\n4,5.5,6\n", True),
        ("0;1;2\n1,5;2;3\n4;5,5;6\n", True),
        (",0,1,2\n0,1.5,2,3\n1,4,5.5,6\n", True),
        (",x,y,z\n0,1.5,2,3\n1,4,5.5,6\n", True),
        ("Unnamed: 0,0,1,2\n0,1.5,2,3\n1,4,5.5,6\n", True),
        ("V1 V2 V3\n1.5 2 3\n4 5.5 6\n", True),
        ('"V1","V2","V3"\n1.5,2,3\n4,5.5,6\n', True),
        ("col0\tcol1\tcol2\n1.5\t2\t3\n4\t5.5\t6\n", True),
        ("\ufeffX [m]\tY [m]\tZ [m]\r\n1,5\t2\t3\r\n4\t5,5\t6\r\n", True),
        ("1,5\t2,0\t3,0\n4,0\t5,5\t6,0\n", True),
        ("1,5 2,0 3,0\n4,0 5,5 6,0\n", True),
        ("1.5\t2\t3\n4,0\t5,5\t6,0\n", True),
        ('"1,5","2,0","3,0"\n"4,0","5,5","6,0"\n', True),
        ("1.5, 2, 3\n4, 5.5, 6\n", True),
        ("1.5 2 3\r4 5.5 6\r", True),
        ("1.5|2|3\n4|5.5|6\n", True),
        ("X,Y,Z\nm,m,m\n1.5,2,3\n4,5.5,6\n", True),
        ("//X Y Z\n2\n1.5 2 3\n4 5.5 6\n", True),
        ("1\n1.5 2 3\n1\n4 5.5 6\n", True),
        ("1.5 2 3\n-1.#IND 0 0\n4 5.5 6\n1.#QNAN00 0 1\nnan(ind) 0 0\n0 0 1.#INF\n0 0 -1.#J\n", True),
        ("-1,#IND\t0\t0\n1,5\t2\t3\n4\t5,5\t6\n", True),
        ("X (m) Y (m) Z (m)\n1.5 2 3\n4 5.5 6\n", True),
        ("0 1 2\n3 4 5\n6 7 8\n", False),
    ],
)
def test_however_a_table_is_written_its_points_are_the_same(tmp_path, text, right):
    cloud = read_cloud(written(tmp_path, "a.txt", text))
    assert cloud.points.tolist() == ([[1.5, 2, 3], [4, 5.5, 6]] if right else [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    notes = [note for note in cloud.notes if "not finite" not in note]
    assert not right or len(notes) == text.startswith(("0,1,2", "0;1;2"))
    if not right:
        assert cloud.notes == ("its first line, 0 1 2, taken as a point, since all coordinates are whole numbers",)


def test_a_first_row_that_only_looks_like_a_header_stays_a_point(tmp_path):
    path = written(tmp_path, "a.pts", "3\n0 1 2\n0.5 .1 .2\n.3 .4 .5\n")
    assert read_points(path).tolist() == np.float32([[0, 1, 2], [0.5, 0.1, 0.2], [0.3, 0.4, 0.5]]).tolist()
    voxels = "0 1 2 3\n5 4 2 3\n5 4 3 0\n"
    assert read_cloud(written(tmp_path, "a.txt", voxels)).labels.tolist() == [3, 3, 0]
    for text, columns, count in (
        (voxels, None, 3),
        (voxels, "x,y,z,label", 3),
        ("0 1 2 3\n4 1 2 3.5\n4 3 3 4\n", "label,x,y,z", 2),
    ):
        path = written(tmp_path, "a.txt", text)
        for extras in ((), ("labels",)):
            assert len(read_cloud(path, columns=columns, extras=extras).points) == count, (columns, extras)


def test_numbers_that_are_not_finite_are_so_in_every_text(tmp_path):
    body = b"-1.#IND 1.#QNAN 0\n1 2 3\n"
    for name, content in (("a.pcd", pcd()[:-12] + body), ("a.ply", ply(f"element vertex 2\n{whole_files.XYZ}", body))):
        assert read_points(written(tmp_path, name, content)).tolist() == [[1, 2, 3]]
    cloud = read_cloud(written(tmp_path, "a.txt", "1 2 3 7\nnan nan nan nan\n4 5 6 7\n7 8 9 nan\n"))
    assert cloud.labels.tolist() == [7, 7, -1]


def test_colours_are_scaled_by_their_largest_number():
    for most in (1, 255, 1023, 4095, 65535):
        for given in (np.uint16, np.int64, ">f8", np.float32)[2 * (most == 1) :]:
            colors, _ = as_unit_colors(np.array([[most, 0, most]]).astype(given))
            assert colors.tolist() == [[1, 0, 1]], (most, given)


@pytest.mark.parametrize(("bits", "note"), [(8, 0), (10, "10 bits"), (12, "12 bits"), (16, 0)])
def test_colours_of_10_and_12_bits_are_taken_as_such_and_this_is_said(tmp_path, bits, note):
    colors, said = (
        np.minimum(RGB * 2 ** (bits - 8), 2**bits - 1),
        f"colours never exceed {2**bits - 1}, taken as {note}",
    )
    for name, content, taken in (
        ("a.txt", text_of(np.hstack([XYZ, colors])), ("columns taken as x,y,z,r,g,b",)),
        ("a.csv", "x,y,z,r,g,b\n" + text_of(np.hstack([XYZ, colors]), ","), ()),
    ):
        cloud = read_cloud(written(tmp_path, name, content))
        np.testing.assert_allclose(cloud.colors, colors / (2**bits - 1) if note else RGB / 255, atol=4e-3)
        assert cloud.notes == (*taken, *[said] * bool(note))


def test_the_suffix_names_the_columns(tmp_path):
    short = UNIT * 0.5
    for name, rows, wanted in (
        ("a.xyzn", np.hstack([XYZ, short]), {"normals": UNIT}),
        ("a.xyzrgb", np.hstack([XYZ, RGB / 255]), {"colors": RGB / 255}),
        ("b.XYZRGB", np.hstack([XYZ, RGB]), {"colors": RGB / 255}),
        ("c.xyzrgb", np.hstack([XYZ, RGB, LABEL]), {"colors": RGB / 255, "labels": LABEL[:, 0]}),
    ):
        assert_holds(read_cloud(written(tmp_path, name, text_of(rows))), wanted)


@pytest.mark.parametrize("count", ["", "40\n"])
def test_the_seven_columns_of_pts_are_known_with_and_without_a_count(tmp_path, count):
    for intensity in (SMALL_INTENSITY, BYTE_INTENSITY, NEGATIVE, LABEL, 0 * ONES):
        for rgb in (RGB, RGB % 10):  # dark colours look like labels
            rows = np.hstack([XYZ, intensity, rgb])
            cloud = read_cloud(written(tmp_path, "a.pts", count + text_of(rows)))
            assert_holds(cloud, {"intensity": intensity[:, 0], "colors": rgb / 255})
            assert not read_cloud(tmp_path / "a.pts", extras=("colors",)).notes
    survey = np.hstack([XYZ, BYTE_INTENSITY, RETURNS, LABEL])
    wanted = {"intensity": BYTE_INTENSITY[:, 0], "labels": LABEL[:, 0]}
    assert_holds(read_cloud(written(tmp_path, "c.pts", count + text_of(survey))), wanted)
    for behind, what in ((UNIT, {"normals": UNIT}), (RGB, {"colors": RGB / 255})):
        labelled = text_of(np.hstack([XYZ, behind, LABEL]))
        for name in ("b.pts", "b.txt"):
            assert_holds(read_cloud(written(tmp_path, name, count + labelled)), {**what, "labels": LABEL[:, 0]})
    few = text_of(np.column_stack([XYZ, RGB, np.arange(COUNT)])[:6])  # labels that are all different
    cloud = read_cloud(written(tmp_path, "d.pts", f"6\n{few}" if count else few))
    assert_holds(cloud, {"colors": RGB[:6] / 255, "labels": np.arange(6)}, XYZ[:6])


CASES = SHARED_DATA / "cases"
FIRST = [1.535465, 2.851391, 0.432479]


@pytest.mark.skipif(not CASES.is_dir(), reason=f"needs {CASES}")
def test_the_cases_are_read_right():
    for name, intensity in (("xyz_i255_rgb.txt", 10), ("xyz_i01_rgb.txt", 0.1), ("recap_nocount.pts", 0.1)):
        cloud = read_cloud(CASES / name)
        np.testing.assert_allclose(cloud.colors[0] * 255, [231, 52, 128], atol=1e-3)
        np.testing.assert_allclose(cloud.intensity, np.arange(1, 7) * intensity, rtol=1e-6)
        assert cloud.labels is None
    rooms = read_cloud(CASES / "xyzrgb_label.txt")
    assert rooms.labels.tolist() == [0, 3, 3, 7, 12, 1]
    np.testing.assert_allclose(rooms.colors[0] * 255, [231, 52, 128], atol=1e-3)
    assert np.array_equal(read_points(CASES / "pandas.csv"), read_points(CASES / "pandas_ok.csv"))
    assert len(read_points(CASES / "pandas.csv")) == 1024
    for name in ("paraview.csv", "units.csv"):
        np.testing.assert_allclose(read_points(CASES / name)[0], FIRST, rtol=1e-6)


def packed_of(colors: np.ndarray) -> np.ndarray:
    return colors.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32) | np.uint32(0xFF000000)


def text_with_packed(points: np.ndarray, packed: np.ndarray) -> bytes:
    rows = [f"{x:.6f},{y:.6f},{z:.6f},{number}" for (x, y, z), number in zip(points, packed, strict=True)]
    return "\n".join(["x,y,z,rgb", *rows]).encode()


def test_a_packed_colour_is_its_bits_or_its_number_whatever_its_opacity(tmp_path):
    points, colors = np.random.default_rng(0).random((40, 3)), np.random.default_rng(1).integers(0, 256, (40, 3))
    packed = packed_of(colors)
    signed = written(tmp_path, "a.csv", text_with_packed(points, packed.view(np.int32)))
    blue = written(tmp_path, "b.csv", text_with_packed(points, colors[:, 2]))
    lost = written(tmp_path, "c.csv", text_with_packed(points, packed.view(np.float32)))
    np.testing.assert_allclose(read_cloud(signed).colors, colors / 255, atol=1e-6)
    np.testing.assert_allclose(read_cloud(blue).colors, colors / 255 * [0, 0, 1], atol=1e-6)
    cloud = read_cloud(lost)
    assert cloud.colors is None
    assert "written as NaN" in cloud.notes[0]


def test_colours_from_minus_one_to_one_are_moved(tmp_path):
    colors = np.random.default_rng(1).integers(0, 256, (40, 3))
    np.savez(tmp_path / "a.npz", coords=np.ones((40, 3)) * colors, colors=colors / 127.5 - 1)
    np.testing.assert_allclose(read_cloud(tmp_path / "a.npz").colors, colors / 255, atol=1e-6)
