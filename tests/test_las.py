"""LAS and LAZ as laspy reads them, and what is refused."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from pointnet import PointNetSegmenter
from pointnet.__main__ import main
from pointnet.datasets import blocks
from pointnet.inference.inputs import Reading
from pointnet.inference.label import label_each
from pointnet.inference.scenes import label_scene
from pointnet.points.formats import contents
from pointnet.points.formats import las as reader
from pointnet.points.formats.contents import BLOCK
from pointnet.points.frame import bounds
from pointnet.points.read import PointCloudFileError, read_cloud, read_points
from pointnet.points.sampling import seed_of
from tests.helpers import SHARED_DATA, trained_looking
from tests.las_files import HAS_LASPY, SIZES, las, las_header, las_new, las_records, laz
from tests.whole_files import written

needs_laspy = pytest.mark.skipif(not HAS_LASPY, reason="needs laspy and lazrs")
COUNT = 300
# By point format: the versions that laspy writes it in.
VERSIONS = {
    **dict.fromkeys(range(4), ("1.2", "1.4")),
    4: ("1.3",),
    5: ("1.3",),
    **dict.fromkeys(range(6, 11), ("1.4",)),
}
# lazrs packs no waveforms.
PACKABLE = (0, 1, 2, 3, 6, 7, 8)


def by_laspy(kind: int, version: str, most: int, packed: bool, seed: int = 0):
    """A file of every dimension that a point format has, as bytes."""
    import laspy

    header, generator = laspy.LasHeader(point_format=kind, version=version), np.random.default_rng(seed)
    header.scales, header.offsets = [0.001, 0.01, 1e-4], [500_000.5, 4_000_000.25, -7]
    made = laspy.LasData(header)
    made.X, made.Y, made.Z = generator.integers(-(2**31), 2**31, (3, COUNT))
    made.intensity = generator.integers(0, 65536, COUNT)
    made.classification = generator.integers(0, 256 if kind >= 6 else 32, COUNT)
    for flag in ("synthetic", "key_point", "withheld"):
        made[flag] = generator.integers(0, 2, COUNT)
    if "red" in made.point_format.dimension_names:
        made.red, made.green, made.blue = generator.integers(0, most + 1, (3, COUNT))
    made.add_extra_dim(laspy.ExtraBytesParams("height", "f8"))
    stream = io.BytesIO()
    made.write(stream, do_compress=packed)
    return stream.getvalue()


DIALECTS = [
    (kind, version, most, packed)
    for kind, versions in VERSIONS.items()
    for version in versions
    for most in ((255, 65535) if kind in reader.COLORS else (0,))
    for packed in ((False, True) if kind in PACKABLE and version == versions[-1] else (False,))
]


@needs_laspy
@pytest.mark.parametrize(("kind", "version", "most", "packed"), DIALECTS)
def test_a_cloud_is_as_laspy_reads_it(tmp_path, kind, version, most, packed):
    import laspy

    path = written(tmp_path, f"a.{'laz' if packed else 'las'}", by_laspy(kind, version, most, packed))
    cloud, wanted = read_cloud(path, precise=True), laspy.read(path)
    assert (wanted.header.are_points_compressed, str(wanted.header.version)) == (packed, version)
    assert np.array_equal(cloud.points, wanted.xyz)
    assert np.array_equal(read_points(path), wanted.xyz.astype(np.float32))
    assert np.array_equal(cloud.labels, wanted.classification)
    assert np.array_equal(cloud.intensity, wanted.intensity)
    assert (cloud.labels.dtype, cloud.intensity.dtype) == (np.int64, np.float32)
    withheld = f"{int(np.sum(wanted.withheld))} points are flagged as withheld (deleted), and are used"
    if kind not in reader.COLORS:
        assert (cloud.colors, cloud.notes) == (None, (withheld, "left out: flags"))
        return
    colors = np.stack([wanted.red, wanted.green, wanted.blue], 1).astype(np.float32) / np.float32(most)
    assert np.array_equal(cloud.colors, colors)
    eight = ("colours never exceed 255, taken as 8 bits",) if most == 255 else ()
    assert cloud.notes == (withheld, *eight, "left out: flags")


@pytest.mark.parametrize("minor", range(6))
@pytest.mark.parametrize("kind", SIZES)
def test_a_file_made_by_hand_is_read_in_any_version_whatever_its_suffix(tmp_path, kind, minor):
    """Also a record that is longer than its format, and what may lie between the header and the points."""
    generator = np.random.default_rng(kind)
    xyz, rgb, classes = generator.integers(-99, 99, (9, 3)), generator.integers(0, 65536, (9, 3)), np.arange(9)
    records = np.frombuffer(las_records(xyz, rgb, classes | 96, kind), np.uint8).reshape(9, -1)
    records = np.hstack([records, np.full((9, 5), 255, np.uint8)])
    header = bytearray(las_header(9, kind, minor, records.shape[1], 0.5, 1e6))
    struct.pack_into("<I", header, 96, len(header) + 54 + 7)
    between = struct.pack("<2x16sHH32x", b"LASF_Projection", 34735, 7) + bytes(7)
    for suffix in (".las", ".LAZ"):
        path = written(tmp_path, f"a{suffix}", bytes(header) + between + records.tobytes())
        cloud = read_cloud(path, precise=True)
        assert np.array_equal(cloud.points, xyz * 0.5 + 1e6)
        assert np.array_equal(cloud.labels, classes | 96 if kind >= 6 else classes)
        assert np.array_equal(cloud.intensity, np.arange(9))
        assert np.array_equal(cloud.colors, rgb.astype(np.float32) / np.float32(65535))


def one_point(**fields: int) -> bytes:
    """A LAS of format 2 and one point, with some bytes of its header replaced: at=(layout, value)."""
    data = bytearray(las_header(1) + las_records(np.ones((1, 3), int), np.ones((1, 3), int), np.ones(1, int)))
    for at, (layout, value) in fields.items():
        struct.pack_into(layout, data, int(at[1:]), value)
    return bytes(data)


REFUSED = [
    (b"LASG" + bytes(400), "does not begin with LASF, but with 'LASG'"),
    (las()[:100], "is cut short in its header, after 100 bytes"),
    (las()[:-1], "declares 40 points of 26 bytes, holds 1039 bytes of them"),
    (one_point(_107=("<I", 2**32 - 1)), "declares 4294967295 points of 26 bytes, holds 26 bytes of them"),
    (one_point(_107=("<I", 0)), "declares 0 points of 26 bytes, holds 26 bytes of them"),
    (las_header(0), "holds no points"),
    (one_point(_24=("B", 2)), "is LAS of version 2.2, which is not known"),
    (one_point(_94=("<H", 100)), "declares a header of 100 bytes and points from 227 on, holds 253 bytes"),
    (one_point(_96=("<I", 2**31)), "declares a header of 227 bytes and points from 2147483648 on, holds 253 bytes"),
    (one_point(_104=("B", 11)), "declares points of format 11 in 26 bytes, which is not known"),
    (one_point(_104=("B", 66)), "declares points of format 66 in 26 bytes, which is not known"),
    (one_point(_105=("<H", 25)), "declares points of format 2 in 25 bytes, which is not known"),
    (one_point(_131=("<d", 0.0)), "must scale coordinates by finite numbers but 0, got [0.0, 0.001, 0.001]"),
    (one_point(_155=("<d", float("nan"))), "must scale coordinates by finite numbers but 0"),
    (one_point(_139=("<d", 1e30)), "must scale coordinates by finite numbers but 0"),
    (one_point(_104=("B", 0x82)), "is packed, but has no record that says how"),
]


@pytest.mark.parametrize(("content", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_a_las_that_cannot_be_used_is_one_line(tmp_path, content, reason):
    path = written(tmp_path, "a.las", content)
    with pytest.raises(PointCloudFileError) as caught:
        read_cloud(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_what_a_las_leaves_out_is_said(tmp_path):
    eight = "colours never exceed 255, taken as 8 bits"
    assert notes_of(tmp_path, las() + bytes(52)) == (eight,)
    assert notes_of(tmp_path, las() + b"\x9d" * 52) == ("52 bytes after the last declared point left out", eight)
    few = bytearray(las())
    struct.pack_into("<I", few, 107, 30)
    with pytest.raises(PointCloudFileError, match="declares 30 points, holds 40$"):
        read_cloud(written(tmp_path, "few.las", bytes(few)))
    many = np.full((3000, 3), 255)
    many[7] = 65535
    painted = las_header(3000) + las_records(np.arange(9000).reshape(3000, 3), many, np.arange(3000) % 9)
    assert notes_of(tmp_path, painted) == ("colours hardly ever exceed 255, taken as 8 bits",)
    assert np.unique(read_cloud(tmp_path / "a.las").colors).tolist() == [1]
    for full, notes in ((5000, ()), (4095, ("colours never exceed 4095, taken as 12 bits",))):
        dark = las_header(1) + las_records(np.ones((1, 3), int), np.array([[full, 0, 9]]), np.full(1, 2))
        assert notes_of(tmp_path, dark) == notes
    old = bytearray(las_new())
    struct.pack_into("<I", old, 107, 40)  # the count where older versions have it, and alone
    struct.pack_into("<Q", old, 247, 0)
    assert len(read_points(written(tmp_path, "a.las", bytes(old)))) == 40
    behind = bytearray(las_new() + bytes(99))
    struct.pack_into("<QI", behind, 235, len(behind) - 99, 1)  # extended records
    assert notes_of(tmp_path, bytes(behind)) == ()
    black = las_header(4) + las_records(np.arange(12).reshape(4, 3), np.zeros((4, 3), int), np.zeros(4, int))
    assert notes_of(tmp_path, black) == ("colours are all 0, left out", reader.UNCLASSIFIED.format(reader.NO_CLASS[0]))
    cloud = read_cloud(tmp_path / "a.las")
    assert (cloud.colors, cloud.labels) == (None, None)


@pytest.mark.parametrize("kind", SIZES)
def test_withheld_points_are_counted_in_a_note_whatever_is_wanted(tmp_path, kind):
    count = BLOCK + 7
    xyz = np.random.default_rng(kind).integers(1, 3001, (count, 3))
    records = np.frombuffer(las_records(xyz, xyz % 256, np.zeros(count, int), kind), np.uint8).reshape(count, -1).copy()
    header = las_header(count, kind, 4)
    others, withheld = (0b1011, 4) if kind >= 6 else (127, 128)
    records[:, 15] = others  # synthetic, key point and, in new formats, overlap; a class in old ones
    assert not withheld_in(tmp_path, header + records.tobytes())
    records[-1, 15] |= withheld
    assert withheld_in(tmp_path, header + records.tobytes()) == "1 point is flagged as withheld (deleted), and is used"
    records[::2, 15] |= withheld
    said = f"{(count + 1) // 2:,} points are flagged as withheld (deleted), and are used"
    assert withheld_in(tmp_path, header + records.tobytes()) == said


def withheld_in(tmp_path, content: bytes) -> str:
    """The note on withheld points, the same for each use."""
    path, said = written(tmp_path, "a.las", content), set[str]()
    for how in ({}, {"mapped": True}, {"extras": ()}, {"extras": ("labels",)}, {"extras": ("colors", "hash")}):
        said.add("".join(note for note in read_cloud(path, **how).notes if "withheld" in note))
    (note,) = said
    return note


def notes_of(tmp_path, content: bytes) -> tuple[str, ...]:
    return read_cloud(written(tmp_path, "a.las", content)).notes


@needs_laspy
def test_a_laz_that_is_damaged_or_greedy_is_one_line(tmp_path):
    path, whole = tmp_path / "a.laz", laz()
    for content, reason in (
        (
            whole[: len(whole) // 2 + 100],
            "is not a readable LAZ file (damaged, cut short or of another format): LazrsError",
        ),
        (whole[:107] + b"\xff\xff\xff\x7f" + whole[111:], "2147483647 points of 26 bytes, packed into"),
        (whole[:107] + b"\xff\xff\xff\x7f" + whole[111:], "more than is allowed here"),
        (whole[:105] + b"\x1b" + whole[106:], "its records are of 27 bytes, but 26 are packed"),
    ):
        path.write_bytes(content)
        with pytest.raises(PointCloudFileError, match="a.laz: ") as caught:
            read_cloud(path)
        assert reason in str(caught.value)


@needs_laspy
def test_without_lazrs_a_laz_says_how_to_install_it_and_a_las_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    with pytest.raises(PointCloudFileError, match=r"a.laz: LAZ needs lazrs: pip install lazrs$"):
        read_cloud(written(tmp_path, "a.laz", laz()))
    assert len(read_points(written(tmp_path, "a.las", las()))) == 40


def large(path, count: int = 500_000):
    """Three metres each way, at survey coordinates."""
    generator = np.random.default_rng(0)
    xyz, rgb = generator.integers(0, 3001, (count, 3)), generator.integers(0, 256, (count, 3))
    xyz[:2] = [[0] * 3, [3000] * 3]
    path.write_bytes(las_header(count, offset=5e6) + las_records(xyz, rgb, np.arange(count) % 13))
    return path


def test_the_rows_of_a_las_may_stay_in_the_file(tmp_path):
    """100 million points are shown with a byte each, 100 MB."""
    path = large(tmp_path / "large.las")
    whole = read_cloud(path, precise=True)
    tracemalloc.start()
    mapped = read_cloud(path, mapped=True)
    low, high = bounds(mapped.points)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2.1 * 500_000 + 6_000_000, taken
    assert np.array_equal(low, whole.points.min(0))
    assert np.array_equal(high, whole.points.max(0))
    some = np.random.default_rng(1).integers(0, 500_000, 99)
    for name in ("points", "colors", "labels", "intensity"):
        assert np.array_equal(getattr(mapped, name)[some], getattr(whole, name)[some]), name
        assert getattr(mapped, name)[:9].dtype == getattr(whole, name).dtype
    for changed in ({"up": "y"}, {"normalize": True}, {"num_points": 9}):
        assert isinstance(read_cloud(path, mapped=True, **changed).points, np.ndarray)


@pytest.mark.parametrize("zeros", [[0, 1], [5, 9, 10, 11, 69_999], [*range(2, 70_000, 3)]])
def test_rows_of_zeros_of_a_las_that_stays_in_its_file_are_left_out(tmp_path, zeros):
    xyz = np.random.default_rng(0).integers(1, 3001, (70_000, 3))
    xyz[zeros] = 0
    records = las_records(xyz, xyz % 256, np.arange(70_000) % 13)
    path = written(tmp_path, "a.las", las_header(70_000) + records)
    whole, mapped = read_cloud(path, precise=True), read_cloud(path, mapped=True)
    assert not isinstance(mapped.points, np.ndarray)
    assert mapped.notes == whole.notes
    assert len(mapped.points) == len(whole.points) == 70_000 - len(zeros)
    some = np.random.default_rng(1).integers(0, len(whole.points), 99)
    for name in ("points", "colors", "labels", "intensity"):
        found, wanted = getattr(mapped, name), getattr(whole, name)
        assert np.array_equal(found.astype(wanted.dtype), wanted), name
        assert np.array_equal(found[some], wanted[some]), name
    assert np.array_equal(whole.rows, np.delete(np.arange(70_000), zeros))
    assert np.array_equal(mapped.rows.astype(np.int64), whole.rows)
    assert np.array_equal(mapped.rows[some], whole.rows[some])


def test_a_las_is_labelled_and_shown_as_the_same_points_in_arrays(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    model = PointNetSegmenter(3, 9, False, False, widths=[[8], [16]], head_widths=[8])
    model = trained_looking(model).float()
    model.classes, model.preprocessing = ("floor", "wall", "chair"), {"num_points": 64}
    model.save_pretrained(tmp_path / "network")
    path = large(tmp_path / "hall.las", 3000)
    whole, mapped = read_cloud(path, precise=True), read_cloud(path, mapped=True)
    for module in (blocks, contents):
        monkeypatch.setattr(module, "BLOCK", 700)
    wanted = label_scene(model, whole.points, whole.colors, seed_of("hall.las"))
    found = label_scene(model, mapped.points, mapped.colors, seed_of("hall.las"))
    assert len(np.unique(wanted.labels)) > 1
    assert np.array_equal(found.labels, wanted.labels)
    assert np.array_equal(found.probability, wanted.probability)
    out = ["--out", str(tmp_path / "out")]
    assert main(["predict", str(path), "--model", str(tmp_path / "network"), "--threads", "1", *out]) == 0
    said = read_cloud(tmp_path / "out" / "hall.las.scene.ply", precise=True)
    assert np.array_equal(said.labels, wanted.labels)
    assert np.array_equal(said.points, whole.points)
    assert main(["show", str(path), *out]) == 0
    assert "3,000 points  extents 3 × 3 × 3  colors, labels" in capsys.readouterr().out
    turned = label_each([path], model, Reading("y"), mapped=True)
    assert isinstance(next(turned).points, np.ndarray)


def test_the_case_has_its_right_values():
    cases = SHARED_DATA / "cases"
    if not cases.is_dir():
        pytest.skip(f"needs {cases}")
    cloud = read_cloud(cases / "a.las", precise=True)
    assert (cloud.points.shape, set(cloud.labels)) == ((1024, 3), {6})
    raw = np.fromfile(cases / "a.las", np.uint8)
    start, record = int(raw[96:100].view("<u4")[0]), int(raw[105:107].view("<u2")[0])
    scale, offset = raw[131:179].view("<f8").reshape(2, 3)
    xyz = np.ascontiguousarray(raw[start:].reshape(1024, record)[:, :12]).view("<i4")
    assert np.array_equal(cloud.points, xyz * scale + offset)
