"""BIN as KITTI and nuScenes write it: which rows are taken, and what is no scan."""

import numpy as np
import pytest

from pointnet.datasets import SceneFolder
from pointnet.datasets.own_labels import labels_of
from pointnet.points.read import PointCloudFileError, files_in, passed_over, read_cloud, read_points
from tests.helpers import SHARED_DATA
from tests.las_files import kitti, nuscenes
from tests.whole_files import written

SCAN = np.frombuffer(kitti(), "<f4").reshape(-1, 4)
RINGED = np.frombuffer(nuscenes(), "<f4").reshape(-1, 5)
RINGS = ("rows of five numbers, taken as x y z intensity ring (nuScenes); rings left out",)


def with_one(rows: np.ndarray, column: int, value: float) -> np.ndarray:
    changed = rows.copy()
    changed[0, column] = value
    return changed


def either_way() -> np.ndarray:
    """KITTI's rows that may be read in fives, too: every fifth number is whole."""
    numbers = np.abs(SCAN[:5]).reshape(-1)
    numbers[4::5] = 1
    return numbers.reshape(-1, 4)


@pytest.mark.parametrize(
    ("rows", "notes"),
    [
        (SCAN[:39], ()),  # no multiple of 20 bytes
        (SCAN, ()),
        (np.round(SCAN * (1, 1, 1, 255)).astype("<f4"), ()),
        (RINGED, RINGS),  # no multiple of 16 bytes
        (RINGED[:40], RINGS),
        (RINGED[:40] * np.float32([1, 1, 1, 0, 1]), RINGS),
        (np.abs(RINGED[:40]), RINGS),  # which may be read in fours, too
        (either_way(), ()),
    ],
)
def test_a_scan_has_four_numbers_a_row_or_five_with_a_ring(tmp_path, rows, notes):
    cloud = read_cloud(written(tmp_path, "a.bin", rows.tobytes()))
    assert np.array_equal(cloud.points, rows[:, :3])
    assert np.array_equal(cloud.intensity, rows[:, 3])
    assert (cloud.labels, cloud.notes) == (None, notes)


def test_labels_of_a_scan_are_in_a_file_of_their_own(tmp_path, monkeypatch):
    """As SemanticKITTI has them: beside the scan, or in a folder beside its folder."""
    labels, instances = np.arange(40) % 260, np.arange(40) * 100
    path = written(tmp_path, "0.bin", with_one(SCAN, 1, np.nan).tobytes())
    assert np.array_equal(read_points(path), SCAN[1:, :3])
    written(tmp_path, "0.label", (labels + (instances << 16)).astype("<u4").tobytes())
    cloud = read_cloud(path)
    assert np.array_equal(cloud.labels, labels[1:])  # of the points that are left
    assert "numbers of instances in its labels left out" in cloud.notes
    assert read_cloud(path, extras=("intensity",)).labels is None
    (tmp_path / "velodyne").mkdir()
    (tmp_path / "labels").mkdir()
    scan = written(tmp_path / "velodyne", "1.bin", SCAN.tobytes())
    with pytest.raises(ValueError, match="has no labels"):
        labels_of(read_cloud(scan))
    written(tmp_path / "labels", "1.label", labels.astype("<u4").tobytes())
    cloud = read_cloud(scan)
    assert np.array_equal(cloud.labels, labels)
    assert cloud.notes == ()
    assert passed_over(tmp_path) == []
    (tmp_path / "velodyne" / "labels").mkdir()
    wrong = written(tmp_path / "velodyne" / "labels", "1.label", bytes(160))
    monkeypatch.chdir(tmp_path / "velodyne")
    assert np.array_equal(read_cloud("1.bin").labels, labels)  # as by its whole path
    assert passed_over(tmp_path) == ["1 file passed over for the suffix: 1 .label"]
    wrong.unlink()
    written(tmp_path / "labels", "1.label", bytes(150))
    with pytest.raises(PointCloudFileError, match=r"holds 40 points but 37.5 labels in '1.label'"):
        read_cloud(scan)


def test_a_set_of_such_scans_follows_its_labels(tmp_path):
    """Of which 0 and 1 mean that a point has none; their line says so. A label that changes is read again."""
    rng = np.random.default_rng(0)
    for folder in ("velodyne", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        rows = np.c_[rng.uniform(0, 4, (600, 2)), rng.uniform(0, 1, (600, 2))].astype("<f4")
        written(tmp_path / "velodyne", f"{i}.bin", rows.tobytes())
        written(tmp_path / "labels", f"{i}.label", np.where(rows[:, 2] < 0.5, 40, 50).astype("<u4").tobytes())
    data = SceneFolder(tmp_path / "velodyne", block=4, test_fraction=0)
    assert data.part_names == ("40", "50")
    assert not [note for note in data.notes if "trained like any other" in note]
    written(tmp_path / "labels", "1.label", np.zeros(600, "<u4").tobytes())
    data = SceneFolder(tmp_path / "velodyne", block=4, test_fraction=0)
    assert data.part_names == ("0", "40", "50")
    assert [note for note in data.notes if note.startswith("trained like any other label: 0; ")]


NO_SCAN = "holds numbers that are no scan's x y z intensity in float32 (KITTI)"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SCAN.tobytes()[:-2], "holds 638 bytes, no whole rows of x y z intensity in float32 (KITTI)"),
        (SCAN.astype(np.float64)[:39].tobytes(), NO_SCAN),
        (np.arange(64, dtype="<i4").tobytes(), NO_SCAN),
        (np.arange(64, dtype="<u2").tobytes(), NO_SCAN),
        (np.random.default_rng(0).bytes(1600), NO_SCAN),
        (bytes(160), NO_SCAN),
        (with_one(SCAN, 3, -0.5)[:39].tobytes(), NO_SCAN),
        (with_one(SCAN, 0, 1e6)[:39].tobytes(), NO_SCAN),
        (np.full((8, 4), np.nan, "<f4").tobytes(), NO_SCAN),
        (with_one(RINGED, 4, 0.5).tobytes(), NO_SCAN),
        (with_one(RINGED, 4, 256).tobytes(), NO_SCAN),
        (np.rint(RINGED).tobytes(), NO_SCAN),
        (b"PK\3\4" + bytes(60), NO_SCAN),
    ],
)
def test_a_bin_that_is_no_scan_is_refused(tmp_path, content, reason):
    path = written(tmp_path, "a.bin", content)
    with pytest.raises(PointCloudFileError) as caught:
        read_cloud(path)
    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("width", [3, 7, 64])
def test_rows_of_another_width_are_no_scan(tmp_path, width):
    rows = np.random.default_rng(0).random((1024, width)).astype("<f4")
    with pytest.raises(PointCloudFileError, match="distributed alike"):
        read_cloud(written(tmp_path, "a.bin", rows.tobytes()))


def test_a_bin_that_a_gltf_names_is_its_buffer(tmp_path):
    for name in ("1", "a b", "below/b", "scene_1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path, f"{name}.bin", kitti())
    models = {
        "a.gltf": b'{"buffers": [{"uri": "a%20b.bin"}, {"uri": "./below/b.bin"}, {}], "name": "1.bin"}',
        "b.gltf": b'{"buffers": [{"uri": "scene_1.bin"}]}',
        "c.gltf": b"{",
        "d.gltf": b'{"buffers": [{"uri": "%00"}]}',
    }
    paths = [written(tmp_path, name, text) for name, text in models.items()]
    assert files_in(tmp_path) == [tmp_path / "1.bin", *paths]


def test_the_case_has_its_right_values():
    case = SHARED_DATA / "cases" / "k.bin"
    if not case.is_file():
        pytest.skip(f"needs {case}")
    scan, cloud = np.fromfile(case, "<f4").reshape(6, 4), read_cloud(case)
    assert np.array_equal(cloud.points, scan[:, :3])
    assert np.array_equal(cloud.intensity, scan[:, 3])
