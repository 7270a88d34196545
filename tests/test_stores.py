"""Packed sets in an object store that speaks S3: the same clouds and weights, whatever goes wrong on the way."""

import contextlib
import json
import os
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch

from pointnet.commands import train
from pointnet.datasets import packed, packing, shards, stores
from pointnet.datasets.packed import open_packed
from pointnet.datasets.stores import Local, Remote
from pointnet.extras import MissingExtraError
from pointnet.points.read import PointCloudFileError
from pointnet.training import fit
from pointnet.training.loader import StreamedLoader
from tests.forms import forms
from tests.helpers import QUICK, assert_ends_as, error_of, pack, quiet, tiny, two_shapes

pytest.importorskip("obstore")
pytest.importorskip("moto")
from tests.object_store import ObjectStore, object_store

CPU, EACH = torch.device("cpu"), 3 * 32 * 2
TRANSIENT = ["missing", "busy", "cut", "short", "flipped", "silent"]


@pytest.fixture(scope="module")
def store():
    with object_store() as there:
        yield there


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Few clouds a shard, short waits, a cache of its own."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 5 * EACH)
    monkeypatch.setattr(packed, "WINDOW", 2)
    monkeypatch.setattr(packed, "OPEN", 4)
    monkeypatch.setattr(shards, "OPEN", 4)
    monkeypatch.setattr(stores, "WAITS", (0.01, 0.02, 0.04))
    monkeypatch.setattr(stores, "SILENCE", 0.4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def url(store: ObjectStore, tmp_path):
    """Both splits of `two_shapes`, in a folder and there."""
    for seed, split in enumerate(("train", "test")):
        pack(two_shapes(per_class=12, seed=seed), tmp_path / "out", split)
    store.door.faults, store.door.asked = {}, []
    where = store.upload(tmp_path / "out", tmp_path.name)
    store.door.asked.clear()
    return where


def test_a_set_in_a_store_is_the_set_in_a_folder_and_trains_alike(store, url, tmp_path):
    here, there = ([open_packed(root, split, 32) for split in ("train", "test")] for root in (tmp_path / "out", url))
    assert torch.equal(here[0].points, there[0].points)
    assert here[0].fingerprint() == there[0].fingerprint()
    assert [there[0].name_of(i) for i in range(24)] == [here[0].name_of(i) for i in range(24)]
    for name, data, workers in (("here", here, 1), ("there", there, 3)):
        fit(tiny(tmp_path / name, epochs=2, feed="stream", workers=workers), *data, log=quiet)
    assert_ends_as(tmp_path / "there", tmp_path / "here")
    assert [store.door.count(f"train/shard-0000{i}.npy") for i in range(5)] == [1] * 5, "kept after that"
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 10


@pytest.mark.parametrize("fault", forms(TRANSIENT, *[*TRANSIENT][:2]))
def test_what_goes_wrong_for_a_while_is_tried_again(store, url, tmp_path, fault):
    times = 1 if fault == "silent" else 3
    store.door.faults = {"train/shard-00001.npy": [fault] * times}
    data = open_packed(url, "train", 32)
    assert torch.equal(data.points, open_packed(tmp_path / "out", "train", 32).points)
    assert store.door.count("train/shard-00001.npy") == times + 1


@pytest.mark.parametrize("fault", forms(TRANSIENT, *[*TRANSIENT][:2]))
def test_what_goes_wrong_for_ever_is_one_line_after_a_few_attempts(store, url, fault, monkeypatch):
    monkeypatch.setattr(stores, "WAITS", (0.01,) if fault == "silent" else (0.01, 0.01))
    store.door.faults = {"train/shard-00001.npy": [fault, "..."]}
    data = open_packed(url, "train", 32)
    with pytest.raises(
        OSError, match=f"{url}/train/shard-00001.npy: not read in {len(stores.WAITS) + 1} attempts: "
    ) as e:
        data.batch(torch.arange(24))
    assert len(str(e.value).splitlines()) == 1
    assert store.door.count("train/shard-00001.npy") == len(stores.WAITS) + 1
    assert "Debug" not in str(e.value)


def test_what_is_not_there_and_what_is_forbidden_is_said_at_once(store, url, tmp_path, capsys):
    with pytest.raises(PointCloudFileError, match=r"none: holds no train/index.json"):
        open_packed(f"{url}/none", "train", 32)
    assert len(store.door.asked) == 1
    store.door.faults = {"index.json": ["denied", "..."]}
    words = ["--dataset", "packed", "--root", url, *QUICK, "--num_points", "32", "--out", str(tmp_path / "run")]
    assert "403" in error_of(capsys, train.main, words)
    assert store.door.count("index.json") == 2
    store.door.faults = {"index.json": ["flipped", "..."]}
    assert "index.json: damaged: index.json: does not match its sha256" in error_of(capsys, train.main, words)
    store.door.faults = {"samples.npy": ["short", "..."]}
    assert "samples.npy does not match the hash in the index" in error_of(capsys, train.main, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_loses_the_store_is_resumed_when_it_is_back_to_the_same_weights(store, url, tmp_path, capsys):
    words = ["--dataset", "packed", "--root", url, *QUICK, "--num_points", "32", "--epochs", "2", "--feed", "stream"]
    words += ["--min_steps", "1", "--batch_size", "4"]
    assert train.main([*words, "--out", str(tmp_path / "unbroken")]) == 0
    asked = []

    def lose(line):
        if "1/2" in line:  # after the first epoch nothing is kept, and nobody answers
            for path in (tmp_path / "cache").rglob("*.npy"):
                path.unlink()
            store.close()
        asked.append(line)

    out = tmp_path / "run"
    config_words = [*words, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "say", lambda line, file=None: lose(line) if file is None else print(line, file=file))
        try:
            line = error_of(capsys, train.main, config_words)
        finally:
            store.open()
    assert "could not be read: " in line
    assert "attempts: " in line
    assert (out / "checkpoint.pt").exists()
    assert not (out / "result.json").exists()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    assert train.main(["--resume", "--out", str(out), "--workers", "3"]) == 0
    assert_ends_as(out, tmp_path / "unbroken")
    results = [json.loads((folder / "result.json").read_text())["test"] for folder in (out, tmp_path / "unbroken")]
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_store_that_comes_back_is_waited_for(store, url, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "WAITS", (0.2,) * 20)
    data = open_packed(url, "train", 32)
    store.close()
    threading.Timer(0.5, store.open).start()
    assert torch.equal(data.points, open_packed(tmp_path / "out", "train", 32).points)


def test_the_cache_stays_within_its_limit_and_what_is_unused_longest_goes(store, url, tmp_path):
    largest = max(path.stat().st_size for path in (tmp_path / "out").rglob("shard-*"))
    limit = 4.2 * largest / 1e9
    data, sizes = open_packed(url, "train", 32, cache_gb=limit), []
    for _ in range(3):
        for points, _ in StreamedLoader(data, CPU, 2).batches(torch.arange(24).split(5)):
            sizes.append(_size(tmp_path / "cache"))
            assert points.isfinite().all()
    assert max(sizes) <= limit * 1e9
    assert store.door.count("train/shard-00000.npy") > 1
    with pytest.raises(ValueError, match=r"cache_gb must be \S+ or more for the shards in use at once, got 1e-06"):
        open_packed(url, "train", 32, cache_gb=1e-6)


def _size(folder):
    """Bytes of the shards in a cache, from which a loader's threads may take one away meanwhile."""
    total = 0
    for path in folder.rglob("*.npy"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_of_two_cached_shards_the_one_that_was_used_earlier_goes(url):
    index = packed.Index.of(Remote(f"{url}/train", 1, 1e9, 0))
    largest = max(shard.size for shard in index.shards)
    cache = Remote(f"{url}/train", 1, 3 * largest, 0)
    paths = [cache.path(shard) for shard in index.shards[:3]]
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    cache.path(index.shards[0])
    cache.path(index.shards[3])
    assert [path.exists() for path in paths] == [True, False, True]


def test_a_cached_shard_that_was_changed_is_fetched_again_and_another_set_is_not_taken_for_it(store, url, tmp_path):
    wanted = open_packed(url, "train", 32).points
    for path in (tmp_path / "cache").rglob("*.npy"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 8
        path.write_bytes(content)
    assert torch.equal(open_packed(url, "train", 32).points, wanted)
    assert store.door.count("train/shard-00000.npy") == 2
    pack(two_shapes(per_class=12, seed=5), tmp_path / "other")
    store.upload(tmp_path / "other", tmp_path.name)
    other = open_packed(tmp_path / "other", "train", 32).points
    assert torch.equal(open_packed(url, "train", 32).points, other)
    assert not torch.equal(other, wanted)


def test_shards_are_fetched_before_they_are_asked_for(store, url):
    data = open_packed(url, "train", 32, workers=2)
    loaded = StreamedLoader(data, CPU).batches(torch.arange(24).split(2))
    next(loaded)
    until = time.monotonic() + 20
    while store.door.count("train/shard-00002.npy") == 0:  # two after the first
        assert time.monotonic() < until
        time.sleep(0.01)
    assert store.door.count("train/shard-00004.npy") == 0
    loaded.close()


def test_processes_of_a_machine_fetch_each_shard_once(store, url, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    ranks = []
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        ranks.append(open_packed(url, "train", 32))
    order = torch.arange(24)
    seen: list[torch.Tensor] = [torch.empty(0)] * 2

    def read(rank: int) -> None:
        batches = StreamedLoader(ranks[rank], CPU).batches(order.split(4))
        seen[rank] = torch.cat([points for points, _ in batches])

    threads = [threading.Thread(target=read, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert torch.equal(*seen)
    assert [store.door.count(f"train/shard-0000{i}.npy") for i in range(5)] == [1] * 5


@pytest.mark.slow
def test_a_process_does_not_wait_for_ever_for_the_shard_of_another(store, url, monkeypatch):
    monkeypatch.setattr(stores, "OTHERS_TURN", 0.2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    data = open_packed(url, "train", 32)  # the other process never starts
    assert len(list(StreamedLoader(data, CPU).batches(torch.arange(24).split(4)))) == 6


def test_no_thread_outlives_the_set(store, url):
    before = threading.active_count()
    data = open_packed(url, "train", 32, workers=3)
    list(StreamedLoader(data, CPU).batches(torch.arange(24).split(4)))
    del data
    until = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < until
        time.sleep(0.01)


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for one data set, whose files are in `folder`."""

    folder = Path()

    def do_GET(self) -> None:
        path = self.folder / self.path.partition("/resolve/main/")[2]
        body, found = json.dumps({"id": "user/set", "sha": "0" * 40, "siblings": []}).encode(), "other" not in self.path
        if "/resolve/" in self.path:
            found &= path.is_file()
            body = path.read_bytes() if found else b""
        elif "/tree/" in self.path:
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
            listed = [{"type": "file", "path": name, "size": n, "oid": "0" * 40} for name, n in sizes.items()]
            body = json.dumps(listed).encode()
            found &= "/none" not in self.path
        self.send_response(200 if found else 404)
        if not found:
            body = b"{}"
            self.send_header("X-Error-Code", "RepoNotFound" if "other" in self.path else "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_set_on_the_hub_is_read_by_its_own_library(tmp_path, monkeypatch):
    pack(two_shapes(per_class=12), tmp_path / "out")
    monkeypatch.setattr(Hub, "folder", tmp_path / "out")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    files = partial(huggingface_hub.HfFileSystem, endpoint=f"http://127.0.0.1:{server.server_port}", token=False)
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", files)
    try:
        there = open_packed("hf://datasets/user/set", "train", 32)
        assert torch.equal(there.points, open_packed(tmp_path / "out", "train", 32).points)
        for missing in ("hf://datasets/user/set/none", "hf://datasets/user/other"):
            with pytest.raises(PointCloudFileError, match="holds no train/index.json"):
                open_packed(missing, "train", 32)
    finally:
        server.shutdown()
        server.server_close()


def test_a_store_of_another_kind_and_a_missing_library_are_said(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"ftp://x: a folder is wanted, or a URL that begins with s3://, gs://"):
        open_packed("ftp://x", "train", 32)
    assert not stores.is_remote(tmp_path)
    assert str(Local(tmp_path)) == str(tmp_path)
    monkeypatch.setattr(stores.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(
        MissingExtraError, match="a data set at s3:// needs obstore: pip install obstore huggingface_hub"
    ):
        open_packed("s3://bucket/x", "train", 32)


def test_without_keys_the_store_says_so_in_one_line(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(ValueError, match="s3://bucket/x/train: Generic S3 error: Missing AccessKeyId") as raised:
        open_packed("s3://bucket/x", "train", 32)
    assert len(str(raised.value).splitlines()) == 1
