"""What was guessed or left out of a file is in a note; of a data set once for each kind, from the cache too."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.datasets import LabelledClouds, MeshFolder, cache
from pointnet.datasets.cache import DIGEST, Notes, cached_clouds
from pointnet.datasets.lines import MOST_KINDS, all_lines, lines_about
from pointnet.datasets.own_parts import PartFolder
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.points.read import PointCloudFileError, read_cloud
from tests.helpers import QUICK
from tests.own_points import make_object, make_yard, save
from tests.tables import COUNT, LABEL, XYZ, assert_holds, text_of
from tests.whole_files import npy_of, written

GUESSED = "columns taken as _,x,y,z,r,g,b"


def coloured(seed: int, rows_without: int = 0) -> np.ndarray:
    """Rows without names of their number and x y z r g b, of some of which nothing was measured."""
    generator = np.random.default_rng(seed)
    rows = np.hstack([np.arange(80)[:, None], generator.normal(size=(80, 3)), generator.integers(0, 256, (80, 3))])
    rows[:rows_without, 1:4] = 0
    return rows


def write_set(root: Path, count: int = 6) -> Path:
    """Two classes of tables without names: all have their columns guessed, two have rows of zeros."""
    for name in "ab":
        for i in range(count):
            save(root / name / f"{name}{i}.xyz", coloured(99 * ord(name) + i, i if name == "b" and 1 < i < 4 else 0))
    save(root / "a" / "named.txt", coloured(0), "number x y z r g b")
    return root


def open_both(root: Path, kind: Callable[..., LabelledClouds] = MeshFolder, **how) -> list[LabelledClouds]:
    return [kind(root, split, num_points=16, **how) for split in ("train", "test")]


def test_each_kind_of_note_is_one_line_with_its_count_for_all_splits(tmp_path):
    opened = open_both(write_set(tmp_path), features="rgb")
    first, second = lines_about(opened)
    assert first.startswith("12 files, such as a/a")
    assert first.endswith(f".xyz: {GUESSED}")
    assert second in (f"2 files, such as b/b{i}.xyz: {i} rows of zeros left out" for i in (2, 3))
    found = {name: notes for data in opened for name, notes in data.file_notes.items()}
    assert set(found) == {f"{name}/{name}{i}.xyz" for name in "ab" for i in range(6)}
    assert found["b/b2.xyz"] == (GUESSED, "2 rows of zeros left out")
    for data in opened:
        assert set(data.file_notes) <= {file.relative_to(tmp_path).as_posix() for file in data.files}
        assert all_lines(data) == lines_about([data])


def test_numbers_and_quoted_words_alone_make_no_other_kind():
    data = LabelledClouds(np.zeros((1, 3, 4), np.float32), np.zeros(1, np.int64), ["a"])
    data.notes = ["first"]
    data.file_notes = {
        "a.txt": ("1,234 rows of zeros left out", "from 'Höhe' on"),
        "b\n.txt": ("-3.5e-7 rows of zeros left out", "columns taken as x,y,z"),
        "c.txt": ("from 'x' on", "columns taken as x,y,z,intensity"),
        "d.txt": ("7 rows of zeros left out", "8 rows of zeros left out", "1 row that is not finite left out"),
        "e.txt": ("2 rows that are not finite left out",),
    }
    assert lines_about([data, data]) == [
        "first",
        "3 files, such as a.txt: 1,234 rows of zeros left out",
        "2 files, such as a.txt: from 'Höhe' on",
        "2 files, such as d.txt: 1 row that is not finite left out",
        "b�.txt: columns taken as x,y,z",
        "c.txt: columns taken as x,y,z,intensity",
    ]
    data.file_notes = {f"{i}.txt": (f"the {letter} is guessed",) for i, letter in enumerate("abcdefghijk")}
    *_, last = lines_about([data])
    assert len(lines_about([data])) == 1 + MOST_KINDS + 1
    assert last == "3 more kinds of notes; python -m pointnet show FILE prints a file's"


def test_notes_come_from_the_cache_and_no_file_is_read_twice(tmp_path, monkeypatch):
    how = {"features": "rgb", "seed": 3}
    wanted = [data.file_notes for data in open_both(write_set(tmp_path), **how)]
    assert all(wanted)
    log = tmp_path / "log"
    read = cache._make_piece

    def counted(key, files, **other):
        with log.open("a") as stream:
            stream.write(f"{files[key].name}\n")
        return read(key, files, **other)

    monkeypatch.setattr(cache, "_make_piece", counted)
    assert [data.file_notes for data in open_both(tmp_path, **how)] == wanted
    assert not log.exists()
    save(tmp_path / "b" / "new.xyz", coloured(1, 5))
    again = open_both(tmp_path, **how)
    assert log.read_text() == "new.xyz\n"
    notes = {name: its for data in again for name, its in data.file_notes.items()}
    assert notes.pop("b/new.xyz") == (GUESSED, "5 rows of zeros left out")
    assert notes == {name: its for each in wanted for name, its in each.items()}


def noted(file: Path, log: Path | None = None, last: int = 99) -> tuple[np.ndarray, Notes]:
    """Stands for sampling: as many clouds as the file's first byte says, and two notes if it is odd."""
    count = file.read_bytes()[0]
    if count > last:
        raise KeyboardInterrupt
    if log is not None:
        with log.open("a") as stream:
            stream.write(f"{count}\n")
    return np.full((count, 3, 4), count, np.float32), (f"{count}\n'* \0 ü", "odd") if count % 2 else ()


@pytest.mark.parametrize("of_earlier", [b"", b"+", b"*"])
def test_notes_of_an_unfinished_cache_stay_but_pieces_of_earlier_versions_are_made_again(tmp_path, of_earlier):
    files, log = [tmp_path / f"{i}.bin" for i in range(1, 7)], tmp_path / "log"
    for i, file in enumerate(files, 1):
        file.write_bytes(bytes([i]))
    with pytest.raises(KeyboardInterrupt):
        cached_clouds(files, partial(noted, last=5), (3, 4), "a", tmp_path)
    pieces = [*(tmp_path / ".cache").glob("*.pieces/*")]
    assert len(pieces) == 5
    for piece in pieces if of_earlier else []:
        clouds = of_earlier + piece.read_bytes()[:-DIGEST].partition(b"\n")[2]
        piece.write_bytes(clouds + hashlib.sha256(clouds).digest())
    whole = cached_clouds(files, partial(noted, log=log), (3, 4), "a", tmp_path)
    assert log.read_text().split() == (["1", "2", "3", "4", "5", "6"] if of_earlier else ["6"])
    assert whole.points[:, 0, 0].tolist() == [i for i in range(1, 7) for _ in range(i)]
    assert whole.notes == {file: noted(file)[1] for file in files[::2]}
    again = cached_clouds(files, noted, (3, 4), "a", tmp_path)
    assert (again.notes, again.files) == (whole.notes, whole.files)


def test_parts_and_scenes_have_their_notes(tmp_path):
    for i in range(4):
        save(tmp_path / "parts" / "pin" / f"{i}.txt", make_object("pin", i))
        save(tmp_path / "scenes" / f"{i}.txt", make_yard(i, 2000))
    (line,) = lines_about(open_both(tmp_path / "parts", PartFolder))
    assert line.startswith("4 files, such as pin/")
    assert line.endswith(".txt: columns taken as x,y,z,label")
    lines = lines_about(open_both(tmp_path / "scenes", SceneFolder, features="intensity"))
    (line,) = (each for each in lines if "columns taken" in each)
    assert line.startswith("4 files, such as ")
    assert line.endswith(".txt: columns taken as x,y,z,intensity,label")


def test_commands_say_them_once(tmp_path, capsys, monkeypatch):
    root = write_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    how = ["--dataset", "folder", "--root", str(root), "--features", "rgb"]
    assert train.main([*how, *QUICK, "--out", "run"]) == 0
    assert capsys.readouterr().out.count(GUESSED) == 1
    assert command_line.main(["show", "folder", "--root", str(root), "--features", "rgb", "--out", "page"]) == 0
    assert capsys.readouterr().out.count(GUESSED) == 1
    assert command_line.main(["evaluate", "run", "--root", str(root)]) == 0
    assert capsys.readouterr().err.count(GUESSED) == 1
    assert command_line.main(["pack", str(root), "packed", "--dataset", "folder", "--features", "rgb"]) == 0
    assert capsys.readouterr().out.count(GUESSED) == 1


@pytest.mark.parametrize(
    ("extra", "behind", "taken"),
    [
        ("intensity", "ii", "intensity,_"),
        ("intensity", "i", "intensity"),
        ("colors", "rgb", "r,g,b"),
        ("labels", "l", "label"),
        ("normals", "n", None),
        ("normals", "i", None),
    ],
)
def test_columns_that_are_used_are_in_a_note_whoever_wants_them(tmp_path, extra, behind, taken):
    rng = np.random.default_rng(0)
    parts = {
        "ii": rng.normal(50, 9, (300, 2)),
        "i": rng.normal(50, 9, (300, 1)),
        "rgb": rng.integers(0, 256, (300, 3)),
        "l": rng.integers(0, 5, (300, 1)),
        "n": np.tile([0.6, 0, 0.8], (300, 1)),
    }
    rows = np.hstack([rng.normal(size=(300, 3)), parts[behind]])
    for path in (written(tmp_path, "a.txt", text_of(rows)), written(tmp_path, "a.npy", npy_of(rows))):
        wanted = (f"columns taken as x,y,z,{taken}",) if taken else ()
        assert read_cloud(path, extras=(extra,)).notes == wanted
        assert read_cloud(path, extras=()).notes == ()


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)


def save_hdf5(path: Path, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


@pytest.mark.parametrize("points", [{"points": XYZ}, dict(zip("xyz", XYZ.T, strict=True))], ids="_".join)
@pytest.mark.parametrize("save_arrays", [save_npz, save_hdf5])
def test_arrays_whose_shape_is_not_that_of_points_are_left_out_and_those_of_another_length_refused(
    tmp_path, points, save_arrays
):
    path = tmp_path / ("a.npz" if save_arrays is save_npz else "a.h5")
    for name, shape in (
        ("rgb", (60, 80, 3)),
        ("points_gt", (COUNT, 3)),
        ("target", (COUNT, 3)),
        ("segmentation", (60, 80)),
        ("intensity", (60, 80)),
        ("color", (3,)),
        ("normal", (3,)),
        ("color", (80, 60)),
    ):
        save_arrays(path, **points, **{name: np.ones(shape, np.uint8)})
        cloud = read_cloud(path)
        assert_holds(cloud, {})
        (note,) = cloud.notes
        assert note.startswith(f"left out: {name}"), shape
    save_arrays(path, **points, target=np.ones((COUNT, 3)), labels=LABEL[:, 0])
    assert_holds(read_cloud(path), {"labels": LABEL[:, 0]})
    save_arrays(path, **points, labels=LABEL[:, 0], sem=LABEL[:5, 0])
    assert_holds(read_cloud(path), {"labels": LABEL[:, 0]})
    for name, shape in (("labels", (COUNT - 1,)), ("labels", (COUNT - 1, 1)), ("intensity", (COUNT + 1,))):
        save_arrays(path, **points, **{name: np.ones(shape)})
        with pytest.raises(PointCloudFileError, match=f"holds {COUNT} points but {shape[0]} "):
            read_cloud(path)
    if "points" in points:
        for shape in ((COUNT - 1, 3), (COUNT - 1, 4), (2, 3)):
            save_arrays(path, **points, colors=np.ones(shape))
            with pytest.raises(PointCloudFileError, match=f"holds {COUNT} points but {shape[0]} colors"):
                read_cloud(path)
    else:
        save_arrays(path, **points | {"z": XYZ[1:, 2]})
        with pytest.raises(PointCloudFileError, match=f"x, y and z must be of one length, got .*{COUNT - 1} of z"):
            read_cloud(path)
