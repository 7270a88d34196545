"""Clouds: the same rows from every format, with what is asked for beside them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pointnet.points.formats.values import as_unit_colors
from pointnet.points.frame import rotated_to_z_up
from pointnet.points.read import SUFFIXES, PointCloudFileError, files_in, read_cloud, read_points
from tests import whole_files
from tests.helpers import ROOT, SHARED_DATA
from tests.whole_files import FILES, TRIANGLE, npy_of, ply, written

CHAIR = ROOT / "data" / "samples" / "files" / "chair.off"


@pytest.mark.parametrize("names", ["xyzw", "zyx", "xwyz", "wxwywz", "yxz", "xyz"])
def test_columns_with_names_may_stand_anywhere(tmp_path, names):
    rows = np.random.default_rng(0).integers(-9, 9, (20, len(names)))
    wanted = rows[:, [names.index(name) for name in "xyz"]]
    header = ",".join(name if name != "w" else f"{name}{i}" for i, name in enumerate(names))
    assert np.array_equal(
        read_points(written(tmp_path, "a.csv", f"{header}\n{whole_files.rows(rows, separator=',')}")), wanted
    )
    table = np.zeros(20, [(name, "<f4") for name in header.split(",")])
    for name, column in zip(header.split(","), rows.T, strict=True):
        table[name] = column
    assert np.array_equal(read_points(written(tmp_path, "a.npy", npy_of(table))), wanted)
    properties = "".join(f"property float {name}\n" for name in table.dtype.names)
    for encoding, body in (("ascii", whole_files.rows(rows).encode()), ("binary_little_endian", table.tobytes())):
        content = ply(f"element vertex 20\n{properties}", body, encoding)
        assert np.array_equal(read_points(written(tmp_path, f"{encoding}.ply", content)), wanted)


def test_a_cloud_is_the_same_in_every_format(tmp_path):
    points, normals = whole_files.vertices(), whole_files.attributes()
    for kind in ("PLY", "PCD"):
        suffix, makers = whole_files.FORMATS[kind]
        for maker in makers[-1:] if kind == "PLY" else makers:
            cloud = read_cloud(written(tmp_path, f"{maker.__name__}{suffix}", maker()))
            assert np.array_equal(cloud.points, points), maker
            assert np.allclose(cloud.normals[:, 1], normals["ny"], atol=1e-6)
            assert np.array_equal(cloud.labels, normals["label"])
            if kind == "PCD":
                assert np.allclose(cloud.colors, np.float32([255, 128, 0]) / 255)
    for maker, name in ((whole_files.npy, "a.npy"), (whole_files.npz, "b.npz"), (whole_files.hdf5, "c.h5")):
        assert np.array_equal(read_points(written(tmp_path, name, maker())), points)
    for name, separator in (("a.xyz", " "), ("a.csv", ","), ("a.txt", ";"), ("a.pts", "\t")):
        text = whole_files.rows(points, separator=separator)
        assert np.allclose(read_points(written(tmp_path, name, text)), points, rtol=1e-5)


def test_glb_is_y_up_and_up_says_otherwise():
    sofa = read_points(FILES / "sofa.glb")
    assert np.array_equal(sofa, rotated_to_z_up(read_points(FILES / "sofa.glb", up="z"), "y"))
    assert np.array_equal(sofa, read_points(FILES / "sofa.glb", up="y"))
    assert sofa[:, 2].min() > -1e-6, "a sofa stands on the floor"
    upright, cloud = (read_points(FILES / "chair.off", normals=True, up=up) for up in (None, "y"))
    assert np.array_equal(cloud, rotated_to_z_up(upright, "y"))


def test_colours_are_of_255_of_65535_or_of_1():
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0), (np.float64, 255.0)):
        colors, notes = as_unit_colors(np.array([[most, 0, most / 5]]).astype(dtype))
        assert np.allclose(colors, [[1, 0, 0.2]], atol=1e-6), dtype
        assert not notes
    assert as_unit_colors(np.array([[1, 0, 1]], np.uint8))[0].max() == np.float32(1 / 255)


@pytest.mark.parametrize(("full", "dtype"), [(1.0, float), (255, float), (255, int), (1023, int), (4095, int)])
def test_a_stray_colour_does_not_change_the_range_of_the_others(full, dtype):
    rows = np.resize(np.linspace(0, full, 200), (1000, 3)).astype(dtype)
    rows[500] = 1.1 * full + 30
    cut = f"colours outside 0 to {full:g}, cut to that range: 1"
    taken = [f"colours hardly ever exceed {full}, taken as {full.bit_length()} bits"] if full in (1023, 4095) else []
    colors, notes = as_unit_colors(rows)
    np.testing.assert_allclose(np.delete(colors, 500, 0), np.delete(rows, 500, 0) / full, atol=1e-6)
    assert (colors[500].tolist(), [*notes]) == ([1, 1, 1], [*taken, cut])
    few = np.delete(rows, slice(100), 0)  # of which one may not be stray
    assert (as_unit_colors(few)[0][400].tolist() == [1, 1, 1]) == (full == 1)  # fractions may be a little above it


def test_few_points_below_0_do_not_move_the_others():
    rows = np.resize(np.linspace(0, 1, 200), (2000, 3))
    for stray in (-0.5, -5):
        rows[500] = stray
        colors, notes = as_unit_colors(rows)
        np.testing.assert_allclose(np.delete(colors, 500, 0), np.delete(rows, 500, 0), atol=1e-6)
        assert notes == ("colours outside 0 to 1, cut to that range: 1",)
    rows = 2 * rows - 1
    rows[500] = -5
    np.testing.assert_allclose(as_unit_colors(rows)[0][:500], (rows[:500] + 1) / 2, atol=1e-6)


def test_dark_and_black_points_do_not_say_what_the_range_of_colours_is():
    rows = np.zeros((100_000, 3))
    rows[:4] = 200
    assert as_unit_colors(rows)[0].max() == np.float32(200 / 255)
    rows[40:, 0] = 1  # and 40 lamps
    rows[:40] = 200
    assert as_unit_colors(rows)[0].mean() < 0.01
    for black in (np.zeros((5, 3)), np.zeros((5, 3), np.uint8)):
        colors, notes = as_unit_colors(black)
        assert not colors.any()
        assert notes == ("all colours are black",)
    assert as_unit_colors(np.zeros((0, 3)))[1] == ()


def test_colours_that_are_no_colours_are_counted():
    colors, notes = as_unit_colors(np.array([[np.nan, -3, 0.5], [0, 1, np.inf], [0, 1, 0]]))
    assert colors.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert notes == ("colours that are not finite, taken as black: 2",)
    colors, notes = as_unit_colors(np.array([[-1, 1, 0], [np.nan, 1, 1]]), np.array([[0, 0, 0], [0, np.nan, 0]]))
    assert (colors.tolist(), notes) == ([[0, 1, 0.5], [0, 0, 0]], ())  # of a point that is left out
    assert as_unit_colors(np.array([[-3, 0.5, 1]]))[1] == ("colours outside 0 to 1, cut to that range: 1",)
    for dtype in (np.int64, np.float64):
        colors, notes = as_unit_colors(np.array([[-1, -1, 255], [255, 0, 255]]).astype(dtype))
        assert colors.tolist() == [[0, 0, 1], [1, 0, 1]]
        assert notes == ("colours outside 0 to 255, cut to that range: 1",)
    assert as_unit_colors(np.array([[70000, 0, 255]]))[1] == ("colours outside 0 to 65535, cut to that range: 1",)


def test_rows_and_faces_that_are_not_finite_are_left_out(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.xyz", "1 2 3 0\nnan 2 3 1\n4 5 6 2\n1 inf 3 3\n1 1e39 1 4\n"))
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.labels.tolist() == [0, 2]
    points = read_points(written(tmp_path, "a.off", f"OFF\n4 2 0\n{TRIANGLE}nan 1 1\n3 0 1 2\n3 0 1 3\n"))
    assert read_cloud(tmp_path / "a.off").notes == ("1 face with coordinates that are not finite left out",)
    assert (points[:, 2] == 0).all()


def test_normals_are_columns_beside_the_points(tmp_path):
    both = read_points(FILES / "chair.off", normals=True)
    assert both.shape == (1024, 6)
    assert np.array_equal(both[:, :3], read_points(FILES / "chair.off"))
    assert np.allclose(np.linalg.norm(both[:, 3:], axis=1), 1, atol=1e-6)
    with pytest.raises(PointCloudFileError, match=r"stool\.xyz: has no normals"):
        read_points(FILES / "stool.xyz", normals=True)


def test_the_suffix_may_be_written_in_any_case(tmp_path):
    path = written(tmp_path, "CHAIR.OFF", (FILES / "chair.off").read_bytes())
    assert np.array_equal(read_points(path), read_points(str(FILES / "chair.off")))


@pytest.mark.parametrize("extras", [(), ("normals",), ("labels", "colors")], ids=str)
def test_what_is_not_wanted_is_left_out_and_the_rest_is_as_it_is(tmp_path, extras):
    kinds = [form for kind, form in whole_files.FORMATS.items() if kind not in ("PART", "ROOM", "BLOCKS")]
    made = [(f"{maker.__name__}{suffix}", maker) for suffix, makers in kinds for maker in makers]
    for name, make in whole_files.BESIDE.items():
        written(tmp_path, name, make())
    files = [written(tmp_path, name, maker()) for name, maker in made]
    left_out = 0
    for path in [*files, *sorted(FILES.iterdir())]:
        whole, some = read_cloud(path), read_cloud(path, extras=extras)
        for name, wanted, got in zip(whole._fields[: whole._fields.index("notes")], whole, some, strict=False):
            if wanted is None or name in ("points", *extras):
                np.testing.assert_array_equal(got, wanted, err_msg=f"{path.name} {name}")
            else:
                assert got is None, (path.name, name)
                left_out += 1
    assert left_out > 10


POINTS, LABELS = np.arange(12.0).reshape(4, 3), np.array([3, 1, 2, 0])
TABLE = np.zeros(4, [("x", "f4"), ("y", ">f8"), ("z", "f4"), ("label", "u2"), ("kind", "S4")])
NESTED = np.zeros(4, [("label", "i8"), ("pos", "f4", 3), ("name", h5py.string_dtype())])
TABLE["x"], TABLE["y"], TABLE["z"] = POINTS.T
TABLE["label"] = NESTED["label"] = LABELS
NESTED["pos"], NESTED["name"] = POINTS, "oak"


@pytest.mark.parametrize("group", ["", "scan/"])
@pytest.mark.parametrize(
    ("arrays", "note"),
    [
        ({"points": POINTS, "label": LABELS}, ""),
        ({"points": POINTS, "label": LABELS, "name": "oak", "kinds": ["a", "b"]}, "left out: kinds, name, not numbers"),
        ({"x": POINTS[:, 0], "y": POINTS[:, 1], "z": POINTS[:, 2], "label": LABELS}, ""),
        ({"points": TABLE}, "left out: kind, not numbers"),
        ({"trees": TABLE}, "left out: kind, not numbers"),
        ({"cloud": NESTED}, "left out: name, not numbers"),
        ({"trees": TABLE, "info": TABLE[["label"]]}, "left out: info; left out: kind, not numbers"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_hdf5_has_data_sets_or_a_table_in_the_file_or_in_one_group(tmp_path, group, arrays, note):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in arrays.items():
            file[group + name] = array
    cloud = read_cloud(tmp_path / "a.h5")
    assert np.array_equal(cloud.points, POINTS)
    assert np.array_equal(cloud.labels, LABELS)
    assert "; ".join(cloud.notes) == note
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["about/when"] = 2024
    assert any(each.startswith("left out: about") for each in read_cloud(tmp_path / "a.h5").notes)


def packed(tmp_path, x, **attributes):
    with h5py.File(tmp_path / "packed.nc.h5", "w") as file:
        file["x"], file["y"], file["z"] = x, POINTS[:, 1], POINTS[:, 2]
        file["x"].attrs.update(attributes)
        file.attrs["origin_of_scan"], file.attrs["title"] = [1, 2, 3], "a scan"
    return read_cloud(tmp_path / "packed.nc.h5", precise=True)


def test_packed_hdf5_is_what_its_numbers_stand_for(tmp_path):
    """CF conventions, section 8.1, as netCDF and xarray write them."""
    counts = np.array([0, 300, 600, 900], "i2")
    cloud = packed(tmp_path, counts, scale_factor=0.01, add_offset=np.array([5e5]))
    np.testing.assert_allclose(cloud.points, POINTS + np.array([5e5, 0, 0]), rtol=1e-12)
    assert cloud.notes == ("left out: origin_of_scan, an attribute",)
    cloud = packed(tmp_path, counts, scale_factor=0.01, _FillValue=np.int16(300), scaled_by="hand")
    np.testing.assert_allclose(cloud.points, POINTS[[0, 2, 3]], rtol=1e-12)
    assert "1 row that is not finite left out" in cloud.notes
    assert "left out: origin_of_scan, scaled_by of x, an attribute" in cloud.notes
    cloud = packed(tmp_path, np.array([0, 3, 6, 1e20], "f4"), missing_value=np.float32(1e20))
    assert np.array_equal(cloud.points, POINTS[:3])
    for wrong in ({"scale_factor": "one"}, {"add_offset": [1.0, 2.0]}):
        with pytest.raises(PointCloudFileError, match=f"{next(iter(wrong))} of data set 'x' must be a number"):
            packed(tmp_path, counts, **wrong)


def test_an_hdf5_groups_attributes_that_move_points_are_said(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/points"] = POINTS
        file["scan"].attrs["offset"] = [5e5, 4e6, 0]
    assert read_cloud(tmp_path / "a.h5").notes == ("left out: offset of /scan, an attribute",)


def test_hdf5_whose_coordinates_differ_in_units_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column, unit in zip("xyz", POINTS.T, ("mm", "m", "m"), strict=True):
            file[name] = column
            file[name].attrs["units"] = unit
    with pytest.raises(PointCloudFileError, match="x, y and z in different units"):
        read_cloud(tmp_path / "a.h5")


def test_precise_keeps_every_digit_of_a_coordinate(tmp_path):
    rows = np.array([[5e5 + 1 / 3, 4e6 + 1 / 7, 1 / 9], [-1e-9, 1e30, 3.0], [1e300, 0, 0]])
    np.save(tmp_path / "far.npy", rows)
    found = read_cloud(tmp_path / "far.npy", precise=True).points
    assert found.dtype == np.float64
    assert np.array_equal(found, rows[:2]), "what has no float32 is left out as ever"
    assert np.array_equal(
        read_cloud(tmp_path / "far.npy", precise=True, up="y").points, rows[:2, [0, 2, 1]] * (1, -1, 1)
    )
    assert np.array_equal(read_cloud(tmp_path / "far.npy").points, rows[:2].astype(np.float32))
    drawn = read_cloud(FILES / "chair.off", precise=True).points
    assert np.array_equal(drawn.astype(np.float32), read_points(FILES / "chair.off"))
    assert (drawn != drawn.astype(np.float32)).any()


AWKWARD = {
    "ballA.off": (1024, "normals"),
    "comments.off": (1024, "normals colors"),
    "empty.obj": "holds no vertices",
    "empty.ply": "holds no vertices",
    "fandisk.obj": (1024, "normals"),
    "featuretype.STL": (1024, "normals"),
    "monkey.glb": (1024, "normals"),
    "nancolor.obj": (1024, "normals colors"),
    "points_ascii.ply": (5, ""),
    "points_bin.ply": (5, ""),
    "points_cloudcompare.xyz": (101, "colors"),
    "polygonfaces.obj": (1024, "normals"),
    "sphere.ply": (1024, "normals"),
    "teapot.stl": (1024, "normals"),
    "unit_cube.STL": (1024, "normals"),
    "whitespace.off": (1024, "normals colors"),
}


@pytest.fixture
def shared() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs {SHARED_DATA}")
    return SHARED_DATA


@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_file_gives_what_the_table_says(shared, name):
    path, wanted = shared / "formats" / name, AWKWARD[name]
    if isinstance(wanted, str):
        with pytest.raises(PointCloudFileError, match=f"{name}: {wanted}"):
            read_cloud(path)
        return
    cloud = read_cloud(path)
    there = [field for field in ("normals", "colors", "labels") if getattr(cloud, field) is not None]
    assert (len(cloud.points), " ".join(there)) == wanted


def test_the_real_meshes_and_clouds_are_read(shared):
    meshes = list((shared / "modelnet_off_samples").rglob("*.off"))
    clouds = list((shared / "modelnet10_pcd_sample").rglob("*.pcd"))
    assert (len(meshes), len(clouds)) == (13, 40)
    for path in meshes + clouds:
        assert read_points(path).shape == (1024, 3)


def test_the_resampled_text_has_normals_and_the_part_files_labels(shared):
    texts = list((shared / "modelnet40_normal_resampled_sample").rglob("*_0???.txt"))
    assert len(texts) == 39
    for path in texts:
        assert read_points(path, normals=True).shape == (10_000, 6)
    parts = list((shared / "psb_parts_dev").glob("*/*.txt"))
    assert len(parts) == 304
    for path in parts[::16]:
        cloud = read_cloud(path)
        assert cloud.points.shape == cloud.normals.shape == (2500, 3)
        assert cloud.labels.min() >= 0


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".foo"])
def test_what_came_in_place_of_a_file_is_named(tmp_path, suffix):
    for content, reason in (
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS.*; get it with git lfs pull$"),
        ("\n<!DOCTYPE html>\n<title>404</title>", "is a web page, .*; download it again$"),
        ("\ufeff<HTML lang='en'>", "is a web page, .*; download it again$"),
        ("<?xml version='1.0'?><Error>", "is a web page, .*; download it again$"),
    ):
        with pytest.raises(PointCloudFileError, match=reason):
            read_cloud(written(tmp_path, f"a{suffix}", content))


def test_names_of_labels_are_no_clouds_of_a_folder_but_a_file_by_its_name_is(tmp_path):
    for name in ("a.txt", "parts.txt", "below/classes.txt", "below/b.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("0 0 0\n1 1 1\n")
    assert files_in(tmp_path) == [tmp_path / "a.txt", tmp_path / "below/b.xyz"]
    assert files_in(tmp_path / "parts.txt") == [tmp_path / "parts.txt"]


def test_rows_say_which_of_the_file_are_there(tmp_path):
    table = np.random.default_rng(0).normal(size=(50, 3))
    np.save(tmp_path / "whole.npy", table)
    assert read_cloud(tmp_path / "whole.npy").rows is None
    assert read_cloud(CHAIR).rows is None
    assert read_cloud(CHAIR, 5, vertices=True).rows is not None
    table[7], table[[3, 4]] = np.nan, 0
    np.save(tmp_path / "broken.npy", table)
    cloud = read_cloud(tmp_path / "broken.npy", precise=True)
    assert np.array_equal(cloud.rows, np.delete(np.arange(50), [3, 4, 7]))
    drawn = read_cloud(tmp_path / "broken.npy", 100, repeat=True, precise=True)
    assert np.array_equal(drawn.points, table[drawn.rows])
