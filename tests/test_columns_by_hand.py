"""Names of columns by hand: for which files they count, and where numbers do not tell which is which."""

import numpy as np

from pointnet.datasets import MeshFolder
from pointnet.points.formats.by_hand import TABLES, columns_of_table
from pointnet.points.read import read_cloud
from tests.tables import (
    RNG,
)
from tests.whole_files import written


def test_names_by_hand_that_move_a_column_which_the_file_names_are_said(tmp_path):
    text = "time,x,y,z\n" + "".join(f"{i},{i + 0.5},{i * i + 0.25},{0.125}\n" for i in range(9))
    path = written(tmp_path, "a.csv", text)
    assert read_cloud(path, columns="_,x,y,z").notes == ()
    moved = read_cloud(path, columns="x,y,z,_")
    assert moved.notes == ("columns taken as x,y,z,_, though the file names them 'time, x, y, z'",)
    assert moved.points[3].tolist() == [3, 3.5, 9.25]
    text = (
        text.replace("time,x,y,z", "x,y,z,label")
        .replace(",0.125", ",1")
        .replace("\n", ",2\n")
        .replace("label,2", "label,class")
    )
    for columns in ("x,y,z,label,_", "x,y,z,_,label"):
        assert read_cloud(written(tmp_path, "b.csv", text), columns=columns).notes == ()
    for names in ("y,x,z", "Northing,Easting,Elevation"):
        path = written(tmp_path, "c.csv", text.replace("x,y,z,label,class", f"{names},label,class"))
        (note,) = read_cloud(path, columns="x,y,z,label,_").notes
        assert note.startswith("columns taken as x,y,z,label,_, though the file names them ")


def test_a_set_whose_columns_are_named_by_hand_may_hold_arrays_with_names(tmp_path):
    rows = RNG.normal(size=(40, 3))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("one", "two"):
        np.savetxt(tmp_path / name / "bare.txt", np.column_stack([np.arange(40), rows[:, ::-1]]))
        np.save(tmp_path / name / "named.npy", np.rec.fromarrays(rows.T, names="x,y,z"))
        np.savez(tmp_path / name / "named.npz", x=rows[:, 0], y=rows[:, 1], z=rows[:, 2])
    data = MeshFolder(tmp_path, num_points=40, columns="_,z,y,x", test_fraction=0.2)
    assert not data.bad
    extents = np.ptp(data.points.numpy(), axis=2)
    assert np.allclose(extents / extents[:, :1], extents[0] / extents[0, 0], rtol=1e-4)


def test_the_second_of_two_columns_like_labels_may_be_one_if_it_has_fewer_values(tmp_path):
    xyz, few, many = RNG.normal(size=(3000, 3)), RNG.integers(0, 4, (3000, 1)), RNG.integers(0, 60, (3000, 1))
    rgb, file = RNG.integers(0, 200, (3000, 1)) + RNG.integers(0, 50, (3000, 3)), tmp_path / "a.npy"
    doubt = (
        "column 5 may be the label, as it has fewer different numbers than column 4; name the columns with --columns"
    )
    for more, named, doubts in (
        ([few, many], "label,_", 0),
        ([few, few], "label,_", 0),
        ([many, 0 * few], "label,_", 0),
        ([many, few], "label,_", 1),
        ([rgb, many, few], "r,g,b,label,_", 0),
    ):
        np.save(file, np.hstack([xyz, *more]))
        taken, *others = read_cloud(file).notes
        assert taken == f"columns taken as x,y,z,{named}"
        assert [other.startswith(doubt) for other in others] == [True] * doubts
        assert read_cloud(file, extras=()).notes == ()


def test_what_names_columns_itself_is_known_before_it_is_read(tmp_path):
    by_hand = ["x", "y", "z", "_"]
    rows = RNG.normal(size=(9, 4))
    np.savez(tmp_path / "both.npz", points=rows, x=rows[:, 0], y=rows[:, 1], z=rows[:, 2])
    np.savez(tmp_path / "own.npz", x=rows[:, 0], y=rows[:, 1], z=rows[:, 2])
    np.savez(tmp_path / "beside.npz", points=rows[:, :3], intensity=rows[:, 3])
    np.savez(tmp_path / "alone.npz", points=rows[:, :3], more=rows[:, 3])
    for name, wanted in (("both.npz", by_hand), ("own.npz", ()), ("beside.npz", ()), ("alone.npz", by_hand)):
        for asked in (TABLES, (".npy", ".npz")):
            assert columns_of_table(tmp_path / name, by_hand, asked) == wanted
    assert columns_of_table(tmp_path / "beside.npz", ["z", "x", "y"]) == ["z", "x", "y"]
    words = written(tmp_path, "words.txt", "measured in the hall\n1 2 3 4\n5 6 7 8\n")
    assert columns_of_table(words, by_hand, TABLES) == by_hand
    assert len(read_cloud(words, columns=by_hand).points) == 2
