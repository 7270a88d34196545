"""Downloads from a Hub that is a function of the test: announced, verified, in place whole or not at all."""

import errno
import hashlib
import inspect
import io
import shutil
import stat
import sys
import threading
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from pointnet import __main__ as command_line
from pointnet.commands import train
from pointnet.datasets import catalog, open_dataset
from pointnet.datasets.download import ARCHIVES, Archive, DownloadError, download, unpack
from pointnet.datasets.modelnet import HDF5_FOLDER
from pointnet.extras import MissingExtraError
from pointnet.points.read import DatasetNotFoundError
from tests.helpers import ROOT, quiet

SAMPLES = ROOT / "data" / "samples"
NOISE = bytes(range(256)) * 1000


def make_zip(*members) -> bytes:
    """A zip file of (name or ZipInfo, bytes) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


BLOB = make_zip(("set/", b""), ("set/noise.bin", NOISE), ("set/deep/note.txt", b"note"), ("__MACOSX/x", b"junk"))


def archive_of(blob: bytes, file: str = "set.zip", folder: str = "set") -> Archive:
    return Archive("who/what", file, len(blob), hashlib.sha256(blob).hexdigest(), folder, "for tests only")


class Hub:
    """Stands for `hf_hub_download`: writes `blob`, or raises `error`; counts how often it is asked."""

    signature = inspect.signature(huggingface_hub.hf_hub_download)

    def __init__(self):
        self.blob, self.error, self.asked = BLOB, None, []

    def __call__(self, repo_id, filename, **settings):
        self.signature.bind(repo_id, filename, **settings)
        self.asked.append((repo_id, filename, settings["repo_type"]))
        local_dir = settings["local_dir"]
        Path(local_dir, ".cache").mkdir(parents=True, exist_ok=True)
        if self.error:
            raise self.error
        path = Path(local_dir) / filename
        path.write_bytes(self.blob)
        return str(path)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    return hub


def visible(root) -> list[str]:
    return sorted(path.name for path in Path(root).iterdir() if not path.name.startswith("."))


def refused(archive, root) -> str:
    """The one line of a download that must fail and leave no data set behind."""
    with pytest.raises(DownloadError) as caught:
        download(archive, root, quiet)
    assert "\n" not in str(caught.value)
    assert visible(root) == []
    return str(caught.value)


def test_size_source_and_licence_are_logged_before_the_first_byte_and_nothing_is_downloaded_twice(hub, tmp_path):
    lines, root = [], tmp_path / "new" / "data"
    folder = download(archive_of(BLOB), root, lambda line: (lines.append(line), hub.asked.clear()))
    assert lines == ["set.zip: 1 MiB from huggingface.co/datasets/who/what; for tests only"]
    assert hub.asked == [("who/what", "set.zip", "dataset")]
    assert folder == root / "set"
    assert (folder / "noise.bin").read_bytes() == NOISE
    assert (folder / "deep" / "note.txt").read_bytes() == b"note"
    assert visible(root) == ["set"]
    assert not (root / ".set.zip.download").exists()
    assert download(archive_of(BLOB), root) == folder
    assert len(hub.asked) == 1


def test_what_is_offered_is_what_the_pages_say():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for archive in ARCHIVES.values():
        assert f"| `{archive.file}` | {archive.size:,} | `{archive.sha256}` |" in page
        assert archive.repo in page
        assert archive.licence
    assert ARCHIVES["modelnet40"].size_text == "415 MiB"


def test_bytes_that_are_not_the_published_ones_are_deleted(hub, tmp_path):
    hub.blob = BLOB[:-1] + b"x"
    line = refused(archive_of(BLOB), tmp_path)
    assert f"set.zip from who/what is not the published file: {len(BLOB):,} bytes of another sha256" in line
    assert str(tmp_path / "set.zip") in line
    assert archive_of(BLOB).sha256 in line
    assert not (tmp_path / ".set.zip.download" / "set.zip").exists()
    hub.blob = BLOB
    assert download(archive_of(BLOB), tmp_path, quiet).is_dir()


def test_what_the_hub_says_is_one_line_that_names_the_way_by_hand(hub, tmp_path):
    hub.error = huggingface_hub.errors.LocalEntryNotFoundError("cannot locate the file\nat length")
    hub.error.__cause__ = RuntimeError("Connection refused")
    line = refused(archive_of(BLOB), tmp_path)
    assert line.startswith("set.zip could not be downloaded: cannot locate the file: Connection refused; ")
    assert str(tmp_path / "set.zip") in line


def test_a_full_disk_is_one_line_before_during_and_after_the_download(hub, tmp_path, monkeypatch):
    usage, no_room = shutil.disk_usage(tmp_path), OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5))
    assert refused(archive_of(BLOB), tmp_path) == f"set.zip is {len(BLOB):,} bytes, and {tmp_path} has 5 free"
    assert not hub.asked
    monkeypatch.undo()
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    hub.error = no_room
    wanted = f"set.zip could not be put under {tmp_path}: [Errno 28] No space left on device"
    assert refused(archive_of(BLOB), tmp_path) == wanted
    hub.error = None

    def full(*arguments):
        raise no_room

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    assert refused(archive_of(BLOB), tmp_path) == wanted


def test_a_file_put_by_hand_is_used_if_it_is_the_published_one(hub, tmp_path):
    by_hand, lines = tmp_path / "set.zip", []
    by_hand.write_bytes(BLOB)
    assert download(archive_of(BLOB), tmp_path, lines.append).is_dir()
    assert lines == [f"unpacking {by_hand} (sha256 verified); for tests only"]
    assert not hub.asked
    assert by_hand.read_bytes() == BLOB, "the user's file is the user's"

    shutil.rmtree(tmp_path / "set")
    by_hand.write_bytes(BLOB[:-1])
    assert download(archive_of(BLOB), tmp_path, lines.append).is_dir()
    assert f"{by_hand} is not used: " in lines[1]
    assert len(hub.asked) == 1
    assert by_hand.read_bytes() == BLOB[:-1]


def test_an_interrupted_extraction_leaves_no_data_set_and_keeps_what_was_downloaded(hub, tmp_path, monkeypatch):
    work, extract = tmp_path / ".set.zip.download", zipfile.ZipFile.extract

    def interrupted(self, info, into):
        if info.filename == "set/deep/note.txt":
            raise KeyboardInterrupt
        return extract(self, info, into)

    monkeypatch.setattr(zipfile.ZipFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(archive_of(BLOB), tmp_path, quiet)
    assert visible(tmp_path) == []
    assert sorted(path.name for path in work.iterdir()) == [".cache", "set.zip"]
    monkeypatch.setattr(zipfile.ZipFile, "extract", extract)
    (work / "unpacked" / "set").mkdir(parents=True)  # of a process that was killed
    (work / "unpacked" / "set" / "half").touch()
    assert visible(download(archive_of(BLOB), tmp_path, quiet)) == ["deep", "noise.bin"]


def test_two_at_once_share_one_download(hub, tmp_path, monkeypatch):
    arrived, go = threading.Event(), threading.Event()

    def hold(*arguments, **settings):
        arrived.set()
        assert go.wait(60)
        return hub(*arguments, **settings)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hold)
    lines, waiting = [], threading.Event()
    first = threading.Thread(target=download, args=(archive_of(BLOB), tmp_path, quiet))
    first.start()
    assert arrived.wait(60)
    log = lambda line: (lines.append(line), waiting.set())  # noqa: E731
    other = threading.Thread(target=download, args=(archive_of(BLOB), tmp_path, log))
    other.start()
    assert waiting.wait(60)
    assert visible(tmp_path) == []
    go.set()
    first.join()
    other.join()
    assert "another process is downloading" in lines[0]
    assert visible(tmp_path) == ["set"]
    assert len(hub.asked) == 1


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"huggingface_hub: pip install huggingface_hub$"):
        download(archive_of(BLOB), tmp_path, quiet)
    (tmp_path / "set").mkdir()
    assert download(archive_of(BLOB), tmp_path) == tmp_path / "set"


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("name", ["set/../../out.txt", "set/..", link("set/link")], ids=str)
def test_a_member_that_leads_out_or_is_a_link_is_refused_before_anything_is_written(hub, tmp_path, name):
    hub.blob = make_zip(("set/noise.bin", NOISE), (name, b"harm"))
    (tmp_path / "data").mkdir()
    line = refused(archive_of(hub.blob), tmp_path / "data")
    assert "set.zip: member 'set/" in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_members_beside_the_sets_folder_are_not_unpacked(tmp_path):
    outside = ("../out.txt", "/out.txt", "__MACOSX/../../out.txt", "other/a")
    (tmp_path / "set.zip").write_bytes(make_zip(("set/a", b"a"), *((name, b"harm") for name in outside)))
    assert unpack(tmp_path / "set.zip", "set", tmp_path / "into") == tmp_path / "into" / "set"
    assert [path.name for path in (tmp_path / "into").rglob("*")] == ["set", "a"]
    assert visible(tmp_path) == ["into", "set.zip"]


def test_an_archive_that_is_none_or_lacks_the_folder_is_one_line(tmp_path):
    path = tmp_path / "set.zip"
    for content, reason in (
        (b"<html>", "not a readable zip file"),
        (BLOB[:-100], "not a readable zip file"),
        (make_zip(("other/a", b"a")), "holds no folder set/"),
    ):
        path.write_bytes(content)
        with pytest.raises(DownloadError, match=reason):
            unpack(path, "set", tmp_path / "into")


@pytest.fixture
def offered(hub, monkeypatch) -> Hub:
    """The sample of ModelNet40, offered as if it were the release."""
    files = sorted((SAMPLES / HDF5_FOLDER).iterdir())
    hub.blob = make_zip(*((f"{HDF5_FOLDER}/{path.name}", path.read_bytes()) for path in files))
    archive = archive_of(hub.blob, f"{HDF5_FOLDER}.zip", HDF5_FOLDER)
    monkeypatch.setattr(catalog, "DOWNLOADS", {"modelnet40": archive, "modelnet10": archive})
    return hub


def test_a_data_set_that_is_missing_is_downloaded_when_asked_for(offered, tmp_path, capsys):
    with pytest.raises(DatasetNotFoundError, match=r"looked for .*; --download fetches it \(1 MiB\)$"):
        open_dataset("modelnet40", tmp_path, "test", 64)
    assert not offered.asked
    data = open_dataset("modelnet40", tmp_path, "test", 64, download=True)
    assert len(data) == 8
    assert "1 MiB from huggingface.co/datasets/who/what; for tests only" in capsys.readouterr().err
    # The other split and data set are there by now; so is the folder itself, named as root.
    assert len(open_dataset("modelnet40", tmp_path, "train", 64, download=True)) == 16
    assert len(open_dataset("modelnet10", tmp_path / HDF5_FOLDER, "train", 64, download=True)) == 8
    assert len(offered.asked) == 1
    shutil.rmtree(tmp_path / HDF5_FOLDER)
    assert len(open_dataset("modelnet40", tmp_path / HDF5_FOLDER, "test", 64, download=True)) == 8
    assert visible(tmp_path) == [HDF5_FOLDER]


def test_a_folder_that_is_not_the_set_is_not_overwritten(offered, tmp_path):
    (tmp_path / HDF5_FOLDER).mkdir()
    with pytest.raises(DatasetNotFoundError, match="is not the whole set; remove it, and --download fetches it anew"):
        open_dataset("modelnet40", tmp_path, "test", 64, download=True)
    assert not offered.asked


def test_a_set_that_its_authors_give_out_is_not_downloaded(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="its authors give it to those who fill in a form, https://"):
        open_dataset("scanobjectnn", tmp_path, "test", 8, download=True)


def test_the_command_lines_take_download(offered, tmp_path, monkeypatch, capsys):
    def fit(config, train, test, *rest):
        raise ValueError(f"{len(train)} and {len(test)} shapes, download {config.download}")

    monkeypatch.setattr(train, "fit", fit)
    arguments = ["--dataset", "modelnet40", "--num_points", "64", "--out", str(tmp_path / "run")]
    assert train.main([*arguments, "--root", str(tmp_path)]) == 2
    assert "; --download fetches it (1 MiB)" in capsys.readouterr().err
    assert train.main([*arguments, "--root", str(tmp_path), "--download"]) == 2
    assert "16 and 8 shapes, download True" in capsys.readouterr().err

    shutil.rmtree(tmp_path / HDF5_FOLDER)
    arguments = ["evaluate", "pointnet_modelnet40", "--dataset", "modelnet40", "--root", str(tmp_path)]
    assert command_line.main([*arguments, "--download", "--json"]) == 0
    assert '"count": 8' in capsys.readouterr().out
