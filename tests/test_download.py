"""Downloads against a server that misbehaves in every way servers do, and archives that mean harm."""

import hashlib
import io
import shutil
import ssl
import stat
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

import train
from pointnet import __main__ as command_line
from pointnet.datasets import catalog, download, open_dataset, unpack
from pointnet.datasets.download import ARCHIVES, Archive, DownloadError, Patience
from pointnet.datasets.modelnet import HDF5_FOLDER
from pointnet.points.read import DatasetNotFoundError, PointCloudFileError

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data" / "samples"
QUICK = Patience(timeout=20, attempts=3, pause=0)
CHUNK = 2**16


def make_zip(members, **settings) -> bytes:
    """A zip file of (name or ZipInfo, bytes) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **settings) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(300_000)
BLOB = make_zip([("set/", b""), ("set/noise.bin", NOISE), ("set/deep/note.txt", b"note"), ("__MACOSX/x", b"junk")])


# What the server does with a request: it is given the handler, the file's bytes, and the first of them asked for.
def good(handler, body, start):
    handler.head(206 if start else 200, len(body) - start, f"bytes {start}-{len(body) - 1}/{len(body)}")
    handler.wfile.write(body[start:])


def cut(count):
    def behave(handler, body, start):
        handler.head(206 if start else 200, len(body) - start, f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.wfile.write(body[start : start + count])

    return behave


def stall(handler, body, start):
    cut(3 * CHUNK)(handler, body, start)
    handler.wfile.flush()
    handler.server.over.wait(20)


def mute(handler, body, start):
    handler.head(200, len(body))
    handler.server.over.wait(20)


def hold(handler, body, start):
    handler.server.arrived.set()
    handler.server.go.wait(60)
    good(handler, body, start)


def cut_unannounced(handler, body, start):
    handler.head(200, None)
    handler.wfile.write(body[:100_000])


def status(code):
    return lambda handler, body, start: handler.head(code, 0)


def declares(count):
    def behave(handler, body, start):
        handler.head(200, count)
        handler.wfile.write(body[:count])

    return behave


def ignores_range(handler, body, start):
    handler.head(200, len(body))
    handler.wfile.write(body)


def another_range(handler, body, start):
    handler.head(206 if start else 200, len(body), f"bytes 0-{len(body) - 1}/{len(body)}")
    handler.wfile.write(body)


def endless(handler, body, start):
    handler.head(200, None)
    for _ in range(50):
        handler.wfile.write(body)


def wrong_bytes(handler, body, start):
    good(handler, bytes(len(body)), start)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        span = self.headers.get("Range", "bytes=0-")
        self.server.requests.append((self.path, span))
        behaviours = self.server.behaviours[self.path]
        behave = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        behave(self, self.server.body, int(span.removeprefix("bytes=").removesuffix("-")))
        self.close_connection = True

    def head(self, code, length, span=None):
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if code == 206:
            self.send_header("Content-Range", span)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.requests, self.behaviours = BLOB, [], {}
        self.over, self.arrived, self.go = threading.Event(), threading.Event(), threading.Event()
        self.scheme = "http"

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what is tested

    def archive(self, *mirrors, size="right", body=BLOB) -> Archive:
        """An archive on as many mirrors as there are lists of behaviours, one for each request in turn."""
        self.body = body
        self.behaviours = {f"/{i}/set.zip": list(mirror) for i, mirror in enumerate(mirrors)}
        urls = tuple(f"{self.scheme}://127.0.0.1:{self.server_port}{path}" for path in self.behaviours)
        known = "sha256:" + hashlib.sha256(body).hexdigest()
        return Archive("set.zip", urls, len(body) if size == "right" else size, known, "set", "for tests only")


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.go.set()
        server.shutdown()
        thread.join()


def fetch(archive, root, log=lambda line: None, patience=QUICK) -> Path:
    folder = download.download(archive, root, log, patience)
    assert folder == Path(root) / "set"
    assert (folder / "noise.bin").read_bytes() == NOISE
    assert (folder / "deep" / "note.txt").read_bytes() == b"note"
    assert visible(root) == ["set"]
    assert not (Path(root) / ".set.zip.download").exists()
    return folder


def visible(root) -> list[str]:
    return sorted(path.name for path in Path(root).iterdir() if not path.name.startswith("."))


def refused(archive, root, patience=QUICK) -> str:
    """The one line of a download that must fail and leave no data set behind."""
    with pytest.raises(DownloadError) as caught:
        download.download(archive, root, lambda line: None, patience)
    assert "\n" not in str(caught.value)
    assert visible(root) == []
    return str(caught.value)


def spans(server) -> list[str]:
    return [span for _, span in server.requests]


def test_a_download_says_size_host_and_licence_before_the_first_byte_and_happens_once(server, tmp_path):
    lines = []

    def log(line):
        assert not server.requests
        lines.append(line)

    archive = server.archive([good])
    fetch(archive, tmp_path / "new" / "data", log)
    assert lines == ["set.zip: 1 MiB from 127.0.0.1; for tests only"]
    assert download.download(archive, tmp_path / "new" / "data") == tmp_path / "new" / "data" / "set"
    assert spans(server) == ["bytes=0-"]


def test_on_a_terminal_one_bar_runs_through_download_and_unpacking(server, tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    states, close = [], tqdm.close
    monkeypatch.setattr(tqdm, "close", lambda bar: (states.append((bar.n, bar.total)), close(bar)))
    fetch(server.archive([cut(100_000), ignores_range]), tmp_path)
    unpacked = len(NOISE) + len(b"note")
    assert states[0] == (len(BLOB) + unpacked, len(BLOB) + unpacked)
    assert "\rset.zip:   0%" in terminal.getvalue()


def test_what_is_offered_is_what_the_pages_say():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for archive in ARCHIVES.values():
        assert f"| `{archive.file}` | {archive.size:,} | `{archive.hash.removeprefix('sha256:')}` |" in page
        assert archive.licence
        assert all(url.endswith(archive.file) for url in archive.urls)
    assert ARCHIVES["modelnet40"].size_text == "415 MiB"


def test_a_transfer_that_breaks_off_goes_on_from_there(server, tmp_path):
    fetch(server.archive([cut(100_000), cut(100_000), good]), tmp_path)
    # What had come of a block that was cut is asked for again.
    assert spans(server) == ["bytes=0-", f"bytes={CHUNK}-", f"bytes={2 * CHUNK}-"]


def test_a_transfer_of_unannounced_length_that_ends_early_goes_on(server, tmp_path):
    fetch(server.archive([cut_unannounced, good]), tmp_path)
    assert spans(server) == ["bytes=0-", "bytes=100000-"]


def test_a_later_call_goes_on_from_what_an_earlier_one_left(server, tmp_path):
    line = refused(server.archive([cut(100_000), status(503)]), tmp_path)
    assert "answers 503 Service Unavailable" in line
    server.requests.clear()
    fetch(server.archive([good]), tmp_path)
    assert spans(server) == [f"bytes={CHUNK}-"]


def test_a_mirror_that_stalls_is_asked_again(server, tmp_path):
    fetch(server.archive([stall, good]), tmp_path, patience=Patience(timeout=0.5, attempts=5, pause=0))
    assert spans(server)[:2] == ["bytes=0-", f"bytes={3 * CHUNK}-"]
    shutil.rmtree(tmp_path / "set")
    line = refused(server.archive([mute]), tmp_path, Patience(timeout=0.2, attempts=2, pause=0))
    assert "sends nothing for 0.2 s after 0 bytes, at the last of 2 tries" in line


def test_tries_that_bring_a_megabyte_do_not_count_against_a_mirror(server, tmp_path):
    body = make_zip([("set/noise.bin", NOISE * 20), ("set/deep/note.txt", b"note")])
    steady = server.archive([*[cut(2**20 + CHUNK)] * 5, good], body=body)
    assert download.download(steady, tmp_path / "steady", print, Patience(20, 2, 0)).is_dir()
    assert len(server.requests) == 6


def test_the_pauses_between_tries_double(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    refused(server.archive([status(500)]), tmp_path, Patience(timeout=20, attempts=8, pause=1))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("behave", [ignores_range, another_range], ids=lambda behave: behave.__name__)
def test_a_server_that_does_not_know_ranges_starts_anew(server, tmp_path, behave):
    fetch(server.archive([cut(100_000), behave]), tmp_path)
    assert spans(server)[1] == f"bytes={CHUNK}-"


@pytest.mark.parametrize(
    ("first", "size", "reason"),
    [
        (declares(1000), "right", f"offers 1,000 bytes, not the published {len(BLOB):,}"),
        (declares(2 * len(BLOB)), "right", f"offers {2 * len(BLOB):,} bytes"),
        (endless, "right", f"sends more than the published {len(BLOB):,} bytes"),
        (declares(1000), None, "sent 1,000 bytes that are not the published ones"),
        (wrong_bytes, "right", f"sent {len(BLOB):,} bytes that are not the published ones"),
        (status(404), "right", "answers 404 Not Found"),
        (status(206), "right", "answers 206 Partial Content"),
        (status(503), "right", "answers 503 Service Unavailable, at the last of 3 tries"),
    ],
)
def test_a_mirror_that_does_not_give_the_file_is_left_for_the_next(server, tmp_path, first, size, reason):
    lines = []
    fetch(server.archive([first], [good], size=size), tmp_path, lines.append)
    assert len(lines) == 2
    assert lines[1].startswith(f"http://127.0.0.1:{server.server_port}/0/set.zip ")
    assert lines[1].endswith("; trying 127.0.0.1")
    assert reason in lines[1]


def test_a_wrong_file_is_deleted_and_spoils_no_later_try(server, tmp_path):
    refused(server.archive([wrong_bytes]), tmp_path)
    assert not (tmp_path / ".set.zip.download").exists()

    def wrong_then_cut(handler, body, start):
        cut(100_000)(handler, bytes(len(body)), start)

    # The first mirror leaves wrong bytes to go on from; the second is right, and is not blamed for them.
    fetch(server.archive([wrong_then_cut, status(404)], [good]), tmp_path)
    assert spans(server)[-2:] == [f"bytes={CHUNK}-", "bytes=0-"]


def test_the_size_is_checked_before_a_byte_is_read(server, tmp_path):
    sent = []

    def too_long(handler, body, start):
        handler.head(200, 10**12)
        try:
            while True:
                handler.wfile.write(bytes(CHUNK))
                sent.append(CHUNK)
        except OSError:
            pass

    refused(server.archive([too_long]), tmp_path)
    assert sum(sent) < 2**26  # what the sockets' buffers take


def test_when_all_mirrors_fail_the_message_lists_them_and_how_to_go_on_by_hand(server, tmp_path):
    archive = server.archive([status(404)], [wrong_bytes])
    line = refused(archive, tmp_path)
    assert line.startswith(f"no mirror gives set.zip: {archive.urls[0]} answers 404 Not Found; {archive.urls[1]} sent")
    assert line.endswith(f"; it may be put by hand at {tmp_path / 'set.zip'} ({archive.hash})")


def test_a_host_that_cannot_be_reached_is_one_clear_reason(server, tmp_path):
    archive = server.archive([good])
    port = archive.urls[0].replace(str(server.server_port), "1")
    away = Archive("set.zip", (port, "nonsense://x/set.zip"), archive.size, archive.hash, "set", "for tests only")
    line = refused(away, tmp_path)
    assert f"{port} cannot be reached (Connection refused), at the last of 3 tries" in line
    assert "nonsense://x/set.zip cannot be asked (InvalidSchema)" in line


def test_a_bad_certificate_is_refused(server, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost "
    command += f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    root = tmp_path / "data"
    root.mkdir()
    assert "has no valid certificate (self" in refused(server.archive([good]), root)
    assert not server.requests
    # Nothing but the certificate was wrong.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    fetch(server.archive([good]), root)


def test_a_file_put_by_hand_is_taken_if_it_is_the_published_one(server, tmp_path):
    archive = server.archive([good])
    by_hand = tmp_path / "set.zip"
    by_hand.write_bytes(BLOB)
    lines = []
    assert download.download(archive, tmp_path, lines.append).is_dir()
    assert lines == [f"unpacking {by_hand}, whose sha256 is right; for tests only"]
    assert not server.requests
    assert by_hand.read_bytes() == BLOB, "the user's file is the user's"

    shutil.rmtree(tmp_path / "set")
    by_hand.write_bytes(BLOB[:-1])
    assert download.download(archive, tmp_path, lines.append, QUICK).is_dir()
    assert f"{by_hand} is not the published file: its sha256 differs; it is not used" in lines
    assert len(server.requests) == 1
    assert by_hand.read_bytes() == BLOB[:-1]


def test_an_md5_will_do(server, tmp_path):
    archive = server.archive([good])
    known = "md5:" + hashlib.md5(BLOB).hexdigest()
    fetch(Archive("set.zip", archive.urls, None, known, "set", "for tests only"), tmp_path)


def test_a_full_disk_is_met_before_the_download_and_before_unpacking(server, tmp_path, monkeypatch):
    body = make_zip([("set/zeros.bin", bytes(50_000)), ("set/noise.bin", NOISE)], compression=zipfile.ZIP_DEFLATED)
    archive = server.archive([good], body=body)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(body) - 1))
    line = refused(archive, tmp_path)
    assert line == f"set.zip is {len(body):,} bytes, and {tmp_path} has {len(body) - 1:,} free"
    assert not server.requests
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(body)))
    line = refused(archive, tmp_path)
    assert line.endswith(f"unpacks to 350,000 bytes, and {tmp_path}/.set.zip.download/unpacked has {len(body):,} free")
    monkeypatch.undo()
    assert download.download(archive, tmp_path, lambda line: None).is_dir()
    assert len(server.requests) == 1, "what was fetched and verified is not fetched again"


def test_a_disk_that_fills_during_the_download_is_no_fault_of_the_mirror(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.ResumingDownloader, "_write", full)
    line = refused(server.archive([good], [good]), tmp_path)
    assert line == f"set.zip could not be put under {tmp_path}: [Errno 28] No space left on device"
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"set.zip could not be put under .*file: "):
        download.download(server.archive([good]), tmp_path / "file")


def test_an_interrupted_extraction_leaves_no_folder(server, tmp_path, monkeypatch):
    archive, copies = server.archive([good]), []

    def interrupted(self, name, *arguments):
        if copies:
            raise KeyboardInterrupt
        copies.append(name)
        return opened(self, name, *arguments)

    opened = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.download(archive, tmp_path, lambda line: None)
    assert visible(tmp_path) == []
    assert [path.name for path in (tmp_path / ".set.zip.download").iterdir()] == ["set.zip"]
    monkeypatch.undo()
    fetch(archive, tmp_path)
    assert len(server.requests) == 1


def test_what_a_killed_process_left_is_no_data_set_and_is_cleared_away(server, tmp_path):
    work = tmp_path / f".{ARCHIVES['modelnet40'].file}.download"
    shutil.copytree(SAMPLES / HDF5_FOLDER, work / "unpacked" / HDF5_FOLDER)
    with pytest.raises(DatasetNotFoundError):
        open_dataset("modelnet40", tmp_path, "test", 8)

    work.rename(tmp_path / ".set.zip.download")
    (tmp_path / ".set.zip.download" / "tmpx1").touch()
    (tmp_path / ".set.zip.download" / "unpacked" / "set").mkdir()
    (tmp_path / ".set.zip.download" / "unpacked" / "set" / "noise.bin").touch()
    (tmp_path / ".set.zip.download" / "set.zip.part").write_bytes(BLOB[:1000])
    folder = fetch(server.archive([good]), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "noise.bin"]
    assert spans(server) == ["bytes=1000-"]


def test_two_processes_at_once_share_one_download(server, tmp_path):
    archive = server.archive([hold])
    here = threading.Thread(target=fetch, args=(archive, tmp_path))
    here.start()
    assert server.arrived.wait(60)
    code = f"from pointnet.datasets.download import *; download({archive!r}, {str(tmp_path)!r})"
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        line, early = other.stdout.readline(), visible(tmp_path)
        server.go.set()
        assert other.wait(60) == 0
    here.join()
    assert "another process is downloading" in line
    assert early == []
    assert len(server.requests) == 1
    fetch(archive, tmp_path)


def member(name, kind=stat.S_IFREG, **fields) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out.txt", "member '../out.txt' is not a path within the archive's folder"),
        ("set/../../out.txt", "is not a path within"),
        ("set/..", "is not a path within"),
        ("/out.txt", "is not a path within"),
        ("C:/out.txt", "is not a path within"),
        ("set\\..\\..\\out.txt", "is not a path within"),
        ("__MACOSX/../../out.txt", "is not a path within"),
        (".", "is not a path within"),
        (member("set/link", stat.S_IFLNK), "member 'set/link' is a link or a device, which is not unpacked"),
        (member("set/pipe", stat.S_IFIFO), "is a link or a device"),
        (member("set/device", stat.S_IFBLK), "is a link or a device"),
        ("set/NOISE.bin", "holds 'set/noise.bin' twice"),
        (member("set/packed", compress_type=zipfile.ZIP_LZMA), "encrypted, or compressed by other means than deflate"),
    ],
    ids=str,
)
def test_a_member_that_would_do_harm_is_refused_before_anything_is_written(server, tmp_path, name, reason):
    (tmp_path / "data").mkdir()
    body = make_zip([("set/noise.bin", NOISE), (name, b"harm")])
    assert reason in refused(server.archive([good], body=body), tmp_path / "data")
    assert list((tmp_path / "data" / ".set.zip.download").iterdir()) == [
        tmp_path / "data" / ".set.zip.download" / "set.zip"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_encrypted_member_is_refused(tmp_path):
    blob = bytearray(make_zip([("set/secret", b"secret")]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        blob[blob.index(signature) + offset] |= 1
    (tmp_path / "set.zip").write_bytes(blob)
    with pytest.raises(PointCloudFileError, match="member 'set/secret' is encrypted"):
        unpack.unpack(tmp_path / "set.zip", "set", tmp_path / "into")


@pytest.mark.parametrize("limit", ["times", "bytes", "members"])
def test_a_bomb_is_refused(tmp_path, monkeypatch, limit):
    path = tmp_path / "set.zip"
    zeros = bytes(10**7) if limit == "times" else bytes(1000)
    path.write_bytes(make_zip([("set/a", zeros), ("set/b", b"b")], compression=zipfile.ZIP_DEFLATED))
    if limit == "bytes":
        monkeypatch.setattr(unpack, "MOST_BYTES", 1000)
    if limit == "members":
        monkeypatch.setattr(unpack, "MOST_MEMBERS", 1)
    with pytest.raises(PointCloudFileError, match=r"would unpack to 2 files of [\d,]+ bytes: a bomb"):
        unpack.unpack(path, "set", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_member_longer_than_it_declares_is_not_unpacked_whole(tmp_path):
    path, content = tmp_path / "set.zip", bytes(10**6)
    blob = bytearray(make_zip([("set/a", content)], compression=zipfile.ZIP_DEFLATED))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = blob.index(signature) + offset
        assert int.from_bytes(blob[at : at + 4], "little") == len(content)
        blob[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(blob)
    with pytest.raises(PointCloudFileError, match="not a readable zip file .* Bad CRC-32"):
        unpack.unpack(path, "set", tmp_path / "into")
    assert (tmp_path / "into" / "set" / "a").stat().st_size <= 1000


def test_an_archive_that_is_none_or_lacks_the_folder_is_one_line(tmp_path):
    path = tmp_path / "set.zip"
    for content, reason in (
        (b"<html>", "not a readable zip file"),
        (BLOB[:-100], "not a readable zip file"),
        (make_zip([("other/a", b"a")]), "holds no folder set/"),
    ):
        path.write_bytes(content)
        with pytest.raises(PointCloudFileError, match=reason):
            unpack.unpack(path, "set", tmp_path / "into")


def test_without_the_extra_it_says_what_to_install(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    line = refused(server.archive([good]), tmp_path)
    assert line == "pooch is missing: pip install 'pointnet-shared-mlp[download]'"
    (tmp_path / "set").mkdir()
    assert download.download(server.archive([good]), tmp_path) == tmp_path / "set"


@pytest.fixture
def offered(server, monkeypatch) -> Archive:
    """The sample of ModelNet40, offered by the local server as if it were the release."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted((SAMPLES / HDF5_FOLDER).iterdir()):
            file.write(path, f"{HDF5_FOLDER}/{path.name}")
    archive = server.archive([good], body=buffer.getvalue())
    archive = Archive(f"{HDF5_FOLDER}.zip", archive.urls, archive.size, archive.hash, HDF5_FOLDER, "for tests only")
    monkeypatch.setattr(catalog, "DOWNLOADS", {"modelnet40": archive, "modelnet10": archive})
    return archive


def test_a_data_set_that_is_missing_is_fetched_when_asked_for(offered, server, tmp_path, capsys):
    with pytest.raises(DatasetNotFoundError, match=r"looked for .*; --download fetches it \(1 MiB\)$"):
        open_dataset("modelnet40", tmp_path, "test", 64)
    assert not server.requests
    data = open_dataset("modelnet40", tmp_path, "test", 64, download=True)
    assert len(data) == 8
    assert "1 MiB from 127.0.0.1; for tests only" in capsys.readouterr().err
    # The other split and data set are there by now; so is the folder itself, named as root.
    assert len(open_dataset("modelnet40", tmp_path, "train", 64, download=True)) == 16
    assert len(open_dataset("modelnet10", tmp_path / HDF5_FOLDER, "train", 64, download=True)) == 8
    assert len(server.requests) == 1
    shutil.rmtree(tmp_path / HDF5_FOLDER)
    assert len(open_dataset("modelnet40", tmp_path / HDF5_FOLDER, "test", 64, download=True)) == 8
    assert visible(tmp_path) == [HDF5_FOLDER]
    assert (tmp_path / HDF5_FOLDER / "shape_names.txt").is_file()


def test_a_folder_that_is_not_the_set_is_not_fetched_over(offered, server, tmp_path):
    (tmp_path / HDF5_FOLDER).mkdir()
    with pytest.raises(DatasetNotFoundError, match="is not the whole set; remove it, and --download fetches it anew"):
        open_dataset("modelnet40", tmp_path, "test", 64, download=True)
    assert not server.requests


def test_download_is_ignored_where_nothing_is_to_be_fetched_and_cannot_be_where_a_form_is_asked_for(tmp_path):
    assert len(open_dataset("shapes", tmp_path, "test", 8, download=True)) == 400
    with pytest.raises(DatasetNotFoundError, match="its authors give it to those who fill in a form, https://"):
        open_dataset("scanobjectnn", tmp_path, "test", 8, download=True)


def test_the_command_lines_take_download(offered, server, tmp_path, monkeypatch, capsys):
    def fit(config, train, test, *rest):
        raise ValueError(f"{len(train)} and {len(test)} shapes, download {config.download}")

    monkeypatch.setattr(train, "fit", fit)
    arguments = ["--dataset", "modelnet40", "--num_points", "64", "--out", str(tmp_path / "run")]
    assert train.main([*arguments, "--root", str(tmp_path)]) == 2
    assert "; --download fetches it (1 MiB)" in capsys.readouterr().err
    assert train.main([*arguments, "--root", str(tmp_path), "--download"]) == 2
    assert "16 and 8 shapes, download True" in capsys.readouterr().err

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "load_model", stop)
    assert command_line.main(["evaluate", "run", "--download"]) == 130
    assert capsys.readouterr().err.endswith("stopped\n")
