"""Which column or array is what: by its name however it is spelled, or named by hand."""

import io

import h5py
import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet.points.formats.names import counting, places
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from tests import whole_files
from tests.helpers import error_of
from tests.tables import BYTE_INTENSITY, COUNT, LABEL, RGB, RNG, SMALL_INTENSITY, UNIT, XYZ, assert_holds, text_of
from tests.whole_files import npy_of, pcd, ply, written

NAMES = [
    ("Points:0,Points:1,Points:2,Normals:0,Normals:1,Normals:2,RGB:0,RGB:1,RGB:2", "points normals colors"),
    ("Points_0,Points_1,Points_2,Points_Magnitude", "points"),
    ("Points_m_XYZ:0,Points_m_XYZ:1,Points_m_XYZ:2,intensity,laser_id", "points intensity"),
    ("points[0],points[1],points[2]", "points"),
    ("points_1,points_2,points_3", "points"),
    ("X (m),Y (m),Z (m),red (0-255),green (0-255),blue (0-255)", "points colors"),
    ("X_mm,Y_mm,Z_mm", "points"),
    ("x coord,y coord,z coord", "points"),
    ("x_coord,y_coord,z_coord,class_id", "points labels"),
    ("xcoord,ycoord,zcoord,semantic", "points labels"),
    ("Coord. X,Coord. Y,Coord. Z", "points"),
    ("pos_x,pos_y,pos_z,normal_x,normal_y,normal_z", "points normals"),
    ("//X,Y,Z,Rf,Gf,Bf,Scalar_Intensity,Nx,Ny,Nz", "points colors intensity normals"),
    ("x,y,z,r,g,b,sem_class", "points colors labels"),
    ("x,y,z,semantic_label,reflectance", "points labels intensity"),
    ("x,y,z,objectId", "points labels"),
    ("x,y,z,sem_class_id,lidar_intensity", "points labels intensity"),
    ("X,Y,Z,scalar_Nx,scalar_Ny,scalar_Nz,Scalar_field_Intensity", "points normals intensity"),
    ("x,y,z,Scalar_Label", "points labels"),
    ("x,y,z,vertex_red,vertex_green,vertex_blue", "points colors"),
    ("Easting,Northing,Elevation", "points"),
    ("X,Y,Z,I,J,K", "points normals"),
    ("x,y,z,nx,ny,nz,i", "points normals intensity"),
    ("pos_x,pos_y,pos_z,col_r,col_g,col_b,label_id", "points colors labels"),
    ("P[x],P[y],P[z],Cd[r],Cd[g],Cd[b],N[x],N[y],N[z]", "points colors normals"),
    ("X;Y;Z;Reflection".replace(";", ","), "points intensity"),
    ("x,y,z,Intensit\u00e4t", "points intensity"),
    ("x,y,z,Intensit\u00c3\u00a4t", "points intensity"),
    ("x [m],y [m],z [m],point_labels", "points labels"),
    ("x,y,z,col0,col1,col2", "points"),
    ("a,b,c", ""),
    ("x,y", ""),
]


@pytest.mark.parametrize(("names", "has"), NAMES)
def test_a_name_is_known_however_it_is_spelled(names, has):
    found = places(names.split(","))
    assert set(found) == set(has.split())
    in_order = [i for what in has.split() for i in found[what]]
    assert in_order == list(range(len(in_order)))
    assert counting(names.split(",")) is None or found


def test_a_very_long_name_is_not_known_and_the_plainest_names_win():
    assert places(["point" * 20_000 + axis for axis in "xyz"]) == {}
    assert places(["x_world", "y_world", "z_world", "z", "y", "x"])["points"] == (5, 4, 3)
    assert places(["x", "y", "z", "i", "j", "k", "nx", "ny", "nz"])["normals"] == (6, 7, 8)


@pytest.mark.parametrize("kind", ["text.ply", "binary.ply", "text.pcd", "binary.pcd", "csv", "tab.txt"])
def test_of_two_columns_of_one_name_the_first_counts_in_every_format(tmp_path, kind):
    rows = np.array([[1, 2, 3, 9, 7, 8], [4, 5, 6, 9, 7, 8]])
    names, body = "x y z x label label".split(), text_of(rows).encode()
    if kind.startswith("binary"):
        body = rows.astype("<f4").tobytes()
    if kind.endswith("ply"):
        properties = "".join(f"property float {name}\n" for name in names)
        encoding = "ascii" if kind == "text.ply" else "binary_little_endian"
        content = ply(f"element vertex 2\n{properties}", body, encoding)
    elif kind.endswith("pcd"):
        each = {"SIZE": "4 " * 6, "TYPE": "F " * 6, "COUNT": "1 " * 6}
        data = "ascii" if kind == "text.pcd" else "binary"
        content = pcd(FIELDS=" ".join(names), **each, DATA=data)[:-12] + body
    else:
        separator = "," if kind == "csv" else "\t"
        content = separator.join(names).encode() + b"\n" + text_of(rows, separator).encode()
    cloud = read_cloud(written(tmp_path, f"a.{kind}", content))
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.labels.tolist() == [7, 7]
    assert cloud.notes == ("left out: x, label",)


def test_names_that_are_not_used_are_listed_where_all_is_wanted(tmp_path):
    for stem, listed, more in (("feature ", "abcdefghijkl", " and 2 more"), ("feature" * 4, "abcde", " and 9 more")):
        names = ["x", "y", "z", "alpha", *(stem + letter for letter in "abcdefghijklmn")]
        path = written(tmp_path, "a.csv", ",".join(names) + "\n" + ",".join("1" * len(names)) + "\n")
        (note,) = read_cloud(path).notes
        assert note == "left out: " + ", ".join(stem + letter for letter in listed) + more
    assert read_cloud(path, extras=("colors",)).notes == ()


@pytest.mark.parametrize("kind", ["csv", "ply", "npy"])
def test_of_a_label_and_a_class_the_one_with_few_different_numbers_counts(tmp_path, kind):
    many, few = RNG.permutation(200)[:, None], RNG.integers(0, 9, (200, 1))
    for label, classes, taken, left in ((many, few, "class", "label"), (few, many, "label", "class")):
        rows = np.hstack([RNG.normal(size=(200, 3)), label, classes])
        names = ["x", "y", "z", "label", "class"]
        content = ",".join(names) + "\n" + text_of(rows, ",")
        if kind == "ply":
            content = ply(
                "element vertex 200\n" + "".join(f"property float {n}\n" for n in names), text_of(rows).encode()
            )
        elif kind == "npy":
            content = npy_of(np.rec.fromarrays(rows.T, names=names))
        cloud = read_cloud(written(tmp_path, f"a.{kind}", content))
        assert cloud.labels.tolist() == few[:, 0].tolist()
        said = f"{taken} taken as label, since {left} has more than 64 different numbers"
        assert cloud.notes == (*[said] * (taken == "class"), f"left out: {left}")


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_which_of_two_labels_is_taken_is_said_where_labels_alone_are_wanted(tmp_path, kind):
    one, other = RNG.integers(0, 9, (2, 200))
    for second in (other, one):
        rows = np.column_stack([RNG.normal(size=(200, 3)), second, one])
        content = "x,y,z,class,label\n" + text_of(rows, ",")
        if kind == "npz":
            content = npz(points=rows[:, :3], intensity=second, **{"class": second, "label": one})
        path = written(tmp_path, f"a.{kind}", content)
        cloud = read_cloud(path, extras=("labels", "intensity"))
        assert cloud.labels.tolist() == one.tolist()
        said = ("labels are those of label; left out: class",)
        assert cloud.notes == (said if kind == "npz" or second is other else ())
        assert read_cloud(path, extras=("colors",)).notes == ()


def test_i_j_and_k_are_a_normal_unless_they_are_longer_than_1(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.csv", "X,Y,Z,I,J,K\n" + text_of(np.hstack([XYZ, UNIT]), ",")))
    assert_holds(cloud, {"normals": UNIT})
    assert cloud.notes == ()
    for extras in (("intensity",), ("normals", "intensity")):
        cloud = read_cloud(written(tmp_path, "b.csv", "X,Y,Z,I,J,K\n1,2,3,0,5,1\n4,5,6,0,0,1\n"), extras=extras)
        assert (cloud.normals, cloud.intensity) == (None, None)
    assert read_cloud(tmp_path / "b.csv").notes == ("left out: I, J, K",)


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def hdf5(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


ARRAYS = {
    "positions": {"positions": XYZ, "normals": UNIT},
    "locations": {"location": XYZ, "norms": UNIT},
    "pointcept": {"coord": XYZ, "color": RGB.astype(np.uint8), "normal": UNIT, "segment": LABEL.astype(int)},
    "coords": {"coords": XYZ, "semantic_gt": LABEL[:, 0], "strength": SMALL_INTENSITY},
    "capitals": {"Points": XYZ, "Colors": RGB / 255, "Labels": LABEL},
    "columns": {"X": XYZ[:, 0], "Y": XYZ[:, 1], "Z": XYZ[:, 2], "intensity": SMALL_INTENSITY[:, 0]},
    "a table": {"points": np.hstack([XYZ, RGB, LABEL])},
    "one label of all": {"data": XYZ, "label": np.array([[3]])},
    "labels of points": {"points": XYZ, "point_labels": LABEL[:, 0]},
    "a mask": {"points": XYZ, "pts_semantic_mask": LABEL[:, 0].astype(int)},
    "one label, and those of points": {"data": XYZ, "label": np.array([3]), "seg": LABEL[:, 0]},
}


LABELS = {"segment", "semantic_gt", "Labels", "point_labels", "pts_semantic_mask", "seg"}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("made", [npz, hdf5])
def test_arrays_are_known_by_their_names(tmp_path, made, name):
    arrays = ARRAYS[name]
    cloud = read_cloud(written(tmp_path, "a.npz" if made is npz else "a.h5", made(**arrays)))
    has = {
        "normals": UNIT if {"normals", "normal", "norms"} & set(arrays) else None,
        "colors": RGB / 255 if {"color", "Colors"} & set(arrays) or name == "a table" else None,
        "labels": LABEL[:, 0] if LABELS & set(arrays) or name == "a table" else None,
        "intensity": SMALL_INTENSITY[:, 0] if {"strength", "intensity"} & set(arrays) else None,
    }
    assert_holds(cloud, {what: part for what, part in has.items() if part is not None})
    assert cloud.notes == {
        "a table": ("columns taken as x,y,z,r,g,b,label",),
        "one label of all": ("left out: label, one for all points",),
        "one label, and those of points": ("left out: label, one for all points",),
    }.get(name, ())


def test_structured_arrays_are_read_alike_from_npy_and_npz(tmp_path):
    table = whole_files.attributes()
    with_words = np.zeros(COUNT, [*table.dtype.descr, ("class", "U5")])
    for name in table.dtype.names:
        with_words[name] = table[name]
    nested = np.zeros(COUNT, [("xyz", "<f8", 3), ("rgb", "u1", 3), ("label", "<i4")])
    nested["xyz"], nested["rgb"], nested["label"] = XYZ, RGB, LABEL[:, 0]
    packed = np.zeros(COUNT, [("x", ">f4"), ("y", ">f4"), ("z", ">f4"), ("rgb", ">f4")])
    for i, name in enumerate("xyz"):
        packed[name] = XYZ[:, i]
    packed["rgb"] = (RGB @ [65536, 256, 1]).astype(np.uint32).view(np.float32)
    for array, points, colors in (
        (with_words, whole_files.vertices(), np.stack([table[name] for name in ("red", "green", "blue")], 1)),
        (nested, XYZ, RGB),
        (packed, XYZ, RGB),
    ):
        for name, content in (
            ("a.npy", npy_of(array)),
            ("a.npz", npz(arr_0=array)),
            ("b.npz", npz(points=array)),
            ("c.npz", npz(scan=array)),
        ):
            cloud = read_cloud(written(tmp_path, name, content))
            np.testing.assert_allclose(cloud.points, points, rtol=1e-6)
            np.testing.assert_allclose(cloud.colors * 255, colors, atol=1e-3)
            assert (cloud.labels is None) == (array is packed)
            assert cloud.notes == (("left out: class, not numbers",) if array is with_words else ())


def test_labels_of_words_are_left_out(tmp_path):
    words = np.array(["tree", "car"] * (COUNT // 2))
    table = np.zeros(COUNT, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("class", "U4"), ("name", "S2")])
    for i, name in enumerate("xyz"):
        table[name] = XYZ[:, i]
    table["class"] = words
    for name, content, more in (
        ("a.npy", npy_of(table), ["left out: class, name, not numbers"]),
        ("a.npz", npz(points=XYZ, labels=words, name=words), ["left out: labels, not numbers", "left out: name"]),
    ):
        cloud = read_cloud(written(tmp_path, name, content))
        assert_holds(cloud, {})
        assert list(cloud.notes) == more
        assert read_cloud(tmp_path / name, extras=("colors",)).notes == ()
    both = read_cloud(written(tmp_path, "b.npz", npz(points=XYZ, labels=words, sem=LABEL)))
    assert_holds(both, {"labels": LABEL[:, 0]})
    assert both.notes == ("left out: labels, not numbers",)


def test_a_packed_colour_of_a_text_is_unpacked(tmp_path):
    cloud = read_cloud(written(tmp_path, "a.csv", "x,y,z,rgb\n1,2,3,16711701\n4,5,6,255\n"))
    np.testing.assert_allclose(cloud.colors * 255, [[255, 0, 21], [0, 0, 255]], atol=1e-4)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("x,y,z,red", "no column 'red' .known: x, y, z, nx"),
        ("x,y", "columns must name x, y, z, got x,y"),
        ("x,y,z,x", "columns names x twice"),
        (["x", "y", "z", "r"], "columns must name r, g, b, got x,y,z,r"),
    ],
)
def test_wrong_names_by_hand_are_refused(tmp_path, columns, reason):
    with pytest.raises(ValueError, match=reason):
        read_cloud(written(tmp_path, "a.xyz", "1 2 3\n"), columns=columns)


def test_names_by_hand_win_over_all_else(tmp_path):
    text = "x,y,z,name,0\n9,1,2,oak wood,3\n9,4,5,tin,6\n"
    assert read_points(written(tmp_path, "a.csv", text), columns=["_", "x", "y", "_", "z"]).tolist() == [
        [1, 2, 3],
        [4, 5, 6],
    ]
    with pytest.raises(PointCloudFileError, match="has 5 columns, but columns names 4: x,y,z,_"):
        read_points(tmp_path / "a.csv", columns="x,y,z,_")
    with pytest.raises(PointCloudFileError, match="has 3 columns, but columns names 4: x,y,z,_"):
        read_points(written(tmp_path, "a.npy", npy_of(XYZ)), columns="x,y,z,_")
    with pytest.raises(PointCloudFileError, match="names its own columns; columns can be given for .xyz, .txt"):
        read_points(whole_files.FILES / "chair.off", columns="x,y,z")
    assert np.allclose(read_points(written(tmp_path, "a.npz", npz(points=XYZ)), columns="z,y,x"), XYZ[:, ::-1])
    words = written(tmp_path, "a.txt", "x y z label\n1 2 3 chair\n4 5 6 7\n")
    with pytest.raises(PointCloudFileError, match="line 2 has 'chair' in column 4, not a number"):
        read_cloud(words, columns="x,y,z,label")
    fields = np.zeros(2, [(name, "f4") for name in "xyz"])
    for name, content in (("b.npy", npy_of(fields)), ("b.npz", npz(x=XYZ[:, 0], y=XYZ[:, 1], z=XYZ[:, 2]))):
        with pytest.raises(PointCloudFileError, match="has names of its own, 'x, y, z'; leave out --columns"):
            read_points(written(tmp_path, name, content), columns="z,y,x")


def test_only_extras_without_an_array_of_their_own_are_looked_for_in_the_columns_of_the_points(tmp_path):
    rows = np.hstack([XYZ, BYTE_INTENSITY, RGB, BYTE_INTENSITY[::-1]])
    cloud = read_cloud(written(tmp_path, "a.npz", npz(points=rows, colors=RGB.astype(np.uint8))))
    assert np.allclose(cloud.colors * 255, RGB)
    assert cloud.notes == ("columns taken as x,y,z,_,_,_,_,_",)


def test_commands_say_what_was_taken_for_what_and_take_columns(capsys, tmp_path):
    path = written(tmp_path, "a.csv", text_of(np.hstack([np.arange(COUNT)[:, None], XYZ, RGB]), ","))
    assert command_line.main(["show", str(path), "--out", str(tmp_path)]) == 0
    line, *notes, _ = capsys.readouterr().out.splitlines()
    assert line.endswith("  colors")
    assert notes == ["    columns taken as _,x,y,z,r,g,b", f"    only {COUNT} different points"]
    assert command_line.main(["predict", str(path)]) == 0
    assert "    columns taken as _,x,y,z" in capsys.readouterr().out.splitlines()
    assert command_line.main(["predict", str(path), "--json"]) == 0
    assert '"notes": [\n      "columns taken as _,x,y,z",\n' in capsys.readouterr().out
    by_hand = ["--columns", "_,x,y,z,r,g,b"]
    assert command_line.main(["predict", str(path), *by_hand]) == 0
    assert "columns taken" not in capsys.readouterr().out
    assert command_line.main(["show", str(path), "--out", str(tmp_path), *by_hand]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    for command in ("predict", "show"):
        assert "no column 'q'" in error_of(capsys, command_line.main, [command, str(path), "--columns", "x,y,z,q"])


def test_x_y_and_z_in_different_units_are_refused(tmp_path):
    rows = text_of(XYZ, ",")
    for names in ("X [m],Y (meters),Z_m", "X(East),Y(North),Z(Up)", "x (m),y (m),z"):
        assert_holds(read_cloud(written(tmp_path, "a.csv", f"{names}\n{rows}")), {})
    for names in ("X [mm],Y [mm],Z [m]", "x_cm,y_cm,z_m", "Easting (m),Northing (m),Elevation (ft)"):
        with pytest.raises(PointCloudFileError, match=r"has x, y and z in different units \('.*' and '.*'\); give"):
            read_cloud(written(tmp_path, "a.csv", f"{names}\n{rows}"))
    with pytest.raises(PointCloudFileError, match="has x, y and z in different units"):
        read_cloud(written(tmp_path, "a.csv", f"\uff38\uff08\uff4d\uff09,Y(mm),Z(mm)\n{rows}"))
    for units in ("mm,mm,m", "[mm],[mm],[m]", "\u00b5m,mm,mm", "in,in,mm"):
        with pytest.raises(PointCloudFileError, match=r"has x, y and z in different units \('x .*' and '.*'\); give"):
            read_cloud(written(tmp_path, "a.csv", f"x,y,z\n{units}\n{rows}"))
