"""S3DIS as blocks and as rooms: which areas, how a room is cut, and its nine channels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointnet.datasets import S3DIS, LabelledPoints, PointCloudFileError, open_dataset, split_parts, split_validation
from pointnet.datasets import s3dis as module
from pointnet.datasets.s3dis import CLASSES, MENDED, POINTS, read_room, room_blocks
from pointnet.points.read import PointCloud
from tests.helpers import make_room
from tests.releases import ROOMS, write_hdf5_blocks, write_npy_rooms, write_text_rooms


@pytest.fixture
def npy(tmp_path) -> Path:
    return write_npy_rooms(tmp_path)


@pytest.fixture
def text(tmp_path) -> Path:
    return write_text_rooms(tmp_path)


@pytest.fixture
def hdf5(tmp_path) -> Path:
    return write_hdf5_blocks(tmp_path)


def as_released(room: np.ndarray) -> list[np.ndarray]:
    """The blocks of a room, as rows of nine channels and a class, in the words of the published code."""
    xyz, rgb, labels = room[:, :3], room[:, 3:6] / 255, room[:, 6]
    limit, millimetres = xyz.max(0), np.rint(xyz[:, :2] * 1000)
    last = np.maximum(np.ceil((millimetres.max(0) - 1000) / 500), 0)
    blocks = []
    for i in range(int(last[0]) + 1):
        for j in range(int(last[1]) + 1):
            corner = np.array([i, j]) * 500
            end = np.where([i, j] == last, np.inf, corner + 1000)  # a point on the line between two is in one of them
            inside = ((millimetres >= corner) & (millimetres < end)).all(1)
            if inside.sum() >= 100:
                low = xyz[inside].min(0)
                centred = xyz[inside] - (low[0] + 0.5, low[1] + 0.5, 0)
                blocks.append(np.column_stack([centred, rgb[inside], xyz[inside] / limit, labels[inside]]))
    return blocks


def rows_of(block: torch.Tensor) -> np.ndarray:
    """A block's own points as rows of nine channels and a class, in order."""
    points, parts, own = split_parts(block)
    return in_order(np.column_stack([points.T[own].double(), parts[own]]))


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.round(3).T)]


def assert_blocks_are(blocks: torch.Tensor, expected: list[np.ndarray]) -> None:
    """Whether the own points of each block are these rows, in any order."""
    for block, rows in zip(blocks, expected, strict=True):
        np.testing.assert_allclose(rows_of(block), in_order(rows), atol=2e-5)


def test_the_classes_are_in_the_published_order():
    assert len(CLASSES) == 13
    assert (
        *("ceiling", "floor", "wall", "beam", "column", "window", "door"),
        *("table", "chair", "sofa", "bookcase", "board", "clutter"),
    ) == CLASSES


def test_rooms_are_cut_into_blocks_of_nine_channels_as_released(npy):
    data = S3DIS(npy, "train")
    assert isinstance(data, LabelledPoints)
    assert data.channels == 9
    assert data.classes == ROOMS
    assert data.part_names == CLASSES
    assert data.parts_of.shape == (4, 13)
    assert data.parts_of.all()
    expected = [(seed, block) for seed in range(3) for block in as_released(make_room(seed=seed))]
    assert data.labels.tolist() == [seed for seed, _ in expected]
    stored, _ = data.batch(slice(None))
    assert stored.shape == (len(expected), 10, POINTS)
    assert_blocks_are(stored, [rows for _, rows in expected])


def as_cloud(room: np.ndarray) -> PointCloud:
    points, colors = (room[:, columns].astype(np.float32) for columns in (slice(3), slice(3, 6)))
    return PointCloud(points, None, colors / 255, room[:, 6].astype(np.int64))


@given(
    st.sampled_from([0.05, 0.999, 1, 1.001, 1.5, 2.25, 3]),
    st.floats(0.05, 3.1),
    st.integers(100, 1500),
    st.integers(0, 9),
)
def test_a_room_of_any_size_is_cut_as_released(wide, deep, size, seed):
    room = make_room(size, (wide, deep, 2), seed)
    blocks = torch.from_numpy(room_blocks(as_cloud(room), np.random.default_rng(0)))
    assert_blocks_are(blocks, as_released(room))


def test_a_flat_room_of_one_wall_has_no_channel_that_is_not_finite():
    room = make_room(300, (2, 0, 2))
    blocks = room_blocks(as_cloud(room), np.random.default_rng(0))
    assert len(blocks) == 3
    assert np.isfinite(blocks).all()


def test_a_dense_block_gives_4096_of_its_points_and_none_twice():
    room = make_room(20_000, (0.9, 0.8, 2))
    room[:, 6] = np.arange(20_000) % 13
    (block,) = torch.from_numpy(room_blocks(as_cloud(room), np.random.default_rng(0)))
    points, parts, own = split_parts(block)
    assert own.all()
    placed = torch.stack([points[0] + 0.5, points[1] + 0.5, points[2]], 1).double().numpy()
    labels: dict[tuple[int, ...], set[int]] = {}
    for i, place in enumerate(np.rint(room[:, :3] * 1000).astype(int).tolist()):
        labels.setdefault(tuple(place), set()).add(i % 13)
    found = np.rint(placed * 1000).astype(int).tolist()
    assert all(part in labels[tuple(place)] for part, place in zip(parts.tolist(), found, strict=True))
    assert len(set(map(tuple, found))) > 4090


def test_objects_as_text_are_the_same_room(npy, text):
    from_text, from_npy = S3DIS(text, "test"), S3DIS(npy, "test")
    assert from_text.classes == from_npy.classes
    for a, b in zip(from_text.batch(slice(None))[0], from_npy.batch(slice(None))[0], strict=True):
        np.testing.assert_allclose(rows_of(a), rows_of(b), atol=2e-5)


def test_bytes_that_lost_a_bit_are_read_as_they_were(text):
    folder = text / "Area_1" / "office_1" / "Annotations"
    whole = read_room(folder)
    chair = folder / "chair_1.txt"
    content = chair.read_bytes()
    number = content.index(b"0", 1)
    broken = bytearray(content)
    broken[number] ^= 0x20
    broken[content.index(b" ")] ^= 0x20
    chair.write_bytes(bytes(broken))
    for found, expected in zip(read_room(folder), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert b"103.0\x100000 185\x00187 -9.1\x160".translate(MENDED) == b"103.000000 185 187 -9.160"


@pytest.mark.parametrize("form", ["npy", "text"])
def test_colours_from_0_to_1_are_those_from_0_to_255(tmp_path, form):
    root = (write_npy_rooms if form == "npy" else write_text_rooms)(tmp_path)
    path = root / "Area_1_office_1.npy" if form == "npy" else root / "Area_1" / "office_1" / "Annotations"
    wanted = read_room(path)
    for file in [path] if form == "npy" else path.glob("*.txt"):
        rows = np.load(file) if form == "npy" else np.loadtxt(file)
        rows[:, 3:6] /= 255
        np.save(file, rows) if form == "npy" else np.savetxt(file, rows)
    found = read_room(path)
    np.testing.assert_allclose(found.colors, wanted.colors, atol=1e-6)
    assert found.colors.max() > 0.9


def test_colours_in_whole_numbers_are_never_from_0_to_1(tmp_path):
    room = np.rint(make_room(400)).astype(np.int32)
    room[:, 3:6] %= 2
    np.save(tmp_path / "Area_1_dark_1.npy", room)
    np.testing.assert_allclose(read_room(tmp_path / "Area_1_dark_1.npy").colors, room[:, 3:6] / 255, atol=1e-7)


def test_an_object_of_another_class_is_clutter_and_hidden_files_are_not_looked_at(text):
    folder = text / "Area_1" / "office_1" / "Annotations"
    (folder / "chair_1.txt").rename(folder / "stairs_1.txt")
    (folder / "._chair_1.txt").write_bytes(b"\0\5\x16\7")
    assert set(read_room(folder).labels) == {CLASSES.index("wall"), CLASSES.index("clutter")}


def test_the_test_area_is_chosen_by_name_and_rooms_are_told(npy):
    data = S3DIS(npy, "test", area="Area_2")
    assert {data.classes[label] for label in data.labels} == {"Area_2_hallway_1"}
    assert data.room_files == {"Area_2_hallway_1": npy / "Area_2_hallway_1.npy"}
    train = S3DIS(npy, "train", area="Area_2")
    assert list(train.room_files) == [name for name in ROOMS if not name.startswith("Area_2")]
    assert train.classes == data.classes
    assert torch.equal(open_dataset("s3dis_area2", npy.parent, "test", 64, task="scene").points, data.points)
    default = open_dataset("s3dis", npy, "test", 64, task="scene")
    assert list(default.room_files) == ["Area_5_office_1"]
    assert default[0][0].shape == (9, 64)
    with pytest.raises(ValueError, match="the data set s3dis has no normals"):
        open_dataset("s3dis", npy, "test", 64, normals=True, task="scene")


def test_rooms_are_cut_once_and_each_by_itself(npy, monkeypatch):
    first = S3DIS(npy, "test").points.clone()
    shutil.rmtree(npy / ".cache")
    (npy / "Area_5_office_0.npy").write_bytes((npy / "Area_1_office_1.npy").read_bytes())
    data = S3DIS(npy, "test")
    assert torch.equal(data.points[data.labels == data.classes.index("Area_5_office_1")], first)
    monkeypatch.setattr(module, "read_room", None)
    assert torch.equal(S3DIS(npy, "test").points, data.points)


def test_validation_is_of_whole_rooms(npy):
    data = S3DIS(npy, "train")
    for fraction, rooms in ((0.1, 1), (0.6, 2), (0.9, 2), (0, 0)):
        train, val = split_validation(data, seed=1, fraction=fraction)
        assert len(val.labels.unique()) == rooms
        assert not set(train.labels.tolist()) & set(val.labels.tolist())
        assert len(train) + len(val) == len(data)
    assert len({split_validation(data, seed, 0.1)[1].labels[0].item() for seed in range(9)}) > 1


def test_blocks_of_the_release_are_taken_as_they_are(hdf5):
    train, test = S3DIS(hdf5, "train"), S3DIS(hdf5, "test")
    assert train.classes == test.classes == (ROOMS[0], ROOMS[1], ROOMS[3], ROOMS[2])
    assert test.parts[:, 0].tolist() == [6, 7, 8]
    assert train.parts[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 9, 10]
    assert [train.classes[label] for label in train.labels] == [ROOMS[0]] * 4 + [ROOMS[1]] * 2 + [ROOMS[2]] * 2
    torch.testing.assert_close(test[1][0], (7 + torch.arange(9)[:, None] / 10).expand(9, POINTS))
    assert test.classes[test[1][2]] == ROOMS[3]
    assert train.room_files == {}
    assert torch.equal(S3DIS(hdf5.parent, "train", form="hdf5").labels, train.labels)
    (hdf5 / "all_files.txt").unlink()  # then by their numbers
    assert S3DIS(hdf5, "test").parts[:, 0].tolist() == [6, 7, 8]


def test_where_an_area_is_missing_the_error_says_which_are_there(npy, tmp_path):
    for split in ("train", "test"):
        with pytest.raises(PointCloudFileError, match="holds no room of Area_6, only of Area_1, Area_2, Area_5"):
            S3DIS(npy, split, area="Area_6")
    np.save(tmp_path / "Area_5_hallway_9.npy", make_room(99))
    with pytest.raises(PointCloudFileError, match="its test split holds no block, with Area_5 for testing"):
        S3DIS(tmp_path, "test", form="npy")
