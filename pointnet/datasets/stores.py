"""Where a packed data set is: a folder, or an object store whose shards are fetched ahead and kept on disk for a while.

The engine of `s3://`, `gs://` and `az://` is obstore, that of `hf://` huggingface_hub. Credentials come by their own
ways: environment variables such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL, the machine's role, `hf auth login`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import queue
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pointnet.extras import MissingExtraError
from pointnet.files import AnyPath, check_regular, read_file, user_cache, write_atomically
from pointnet.world import place_on_machine

SCHEMES = ("s3", "gs", "az", "hf")
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before each further attempt: a store that is away for a minute
SILENCE = 20.0  # seconds without a byte after which a connection is given up
AT_MOST = timedelta(minutes=10)  # for one object
OTHERS_TURN = 60.0  # seconds that a shard which another process of this machine fetches is waited for
GB = 10**9

# Of accidents: who can write a shard can write its hash too. SHA-256 takes several times as long.
shard_hash = zlib.crc32


class Shard(NamedTuple):
    """A file of many clouds: how many, its bytes and their `shard_hash`."""

    name: str
    clouds: int
    size: int
    hash: int

    def is_whole(self, content: bytes) -> bool:
        return len(content) == self.size and shard_hash(content) == self.hash


class Local:
    """Shards in a folder."""

    def __init__(self, root: AnyPath):
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        """A file whole. OSError where it cannot be read; FileNotFoundError where there is none."""
        return read_file(self.root / name)

    def expect(self, shards: Sequence[Shard]) -> None:
        """Nothing is far away."""

    def path(self, shard: Shard) -> Path:
        """The shard's file. OSError where it is none."""
        path = self.root / shard.name
        check_regular(path)
        return path

    def again(self, shard: Shard) -> None:
        """Called where a shard is damaged: OSError, as there is no other."""
        raise OSError(f"{self.root / shard.name}: damaged: it does not match the hash in the index; pack the set again")


class Remote:
    """Shards in an object store, which are fetched ahead of their use and kept in the user's cache.

    Every fetch is checked by size and hash, and repeated after each of `WAITS`; then it is an OSError of one line.
    Processes of one machine share the cache: each fetches its share of what they all expect.

    Args:
        url: of the folder of a split.
        workers: threads that fetch.
        limit: bytes that all shards in the cache may take; the longest unused go first.
        ahead: shards that are fetched before they are asked for.
    """

    def __init__(self, url: str, workers: int, limit: float, ahead: int):
        self.url, self.limit, self.ahead, self.workers = url.rstrip("/"), limit, ahead, workers
        self.get = _getter(self.url)
        self.home = user_cache() / "shards"
        self.folder = self.home / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.rank, self.ranks = place_on_machine()
        self.lock, self.fetching = threading.Lock(), dict[str, Future[None]]()
        self.expected: Sequence[Shard] = ()
        self.place: dict[str, int] = {}
        self.asked = 0  # how many of the expected shards have been given to the threads
        self.wanted: queue.SimpleQueue[tuple[Shard, Future[None]] | None] = queue.SimpleQueue()
        self.started = False

    def __str__(self) -> str:
        return self.url

    def read(self, name: str) -> bytes:
        """An object whole. FileNotFoundError at once where there is none; OSError after some attempts."""
        return self._attempts(name, lambda content: True, WAITS[:2], missing_is_final=True)

    def expect(self, shards: Sequence[Shard]) -> None:
        """The order in which shards will be asked for, each once."""
        with self.lock:
            self.expected, self.asked = shards, 0
            self.place = {shard.name: i for i, shard in enumerate(shards)}

    def path(self, shard: Shard) -> Path:
        """The shard's file in the cache, fetched if need be. OSError where that fails."""
        self._ask_ahead(self.place.get(shard.name, -1))
        path = self._kept(shard)
        if (mine := self.fetching.pop(shard.name, None)) is not None:
            mine.result()
        elif not path.exists() and self.place.get(shard.name, 0) % self.ranks != self.rank:
            until = time.monotonic() + OTHERS_TURN
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.05)
        while True:
            if not path.exists():
                self._fetch(shard)
            with contextlib.suppress(FileNotFoundError):  # another process has just made room
                os.utime(path)
                return path

    def again(self, shard: Shard) -> None:
        """Called where a shard is damaged in the cache: it will be fetched anew."""
        self._kept(shard).unlink(missing_ok=True)

    def _kept(self, shard: Shard) -> Path:
        """Where a shard is kept; the hash in the name tells it from that of a set that was packed before."""
        return self.folder / f"{Path(shard.name).stem}-{shard.hash:08x}.npy"

    def _ask_ahead(self, place: int) -> None:
        """Gives the threads what is expected up to `ahead` shards after this place."""
        with self.lock:
            until = min(place + 1 + self.ahead, len(self.expected)) if place >= 0 else 0
            for i in range(self.asked, until):
                shard = self.expected[i]
                if i % self.ranks == self.rank and not self._kept(shard).exists():
                    self.fetching[shard.name] = future = Future[None]()
                    self.wanted.put((shard, future))
            self.asked = max(self.asked, until)
            if self.fetching and not self.started:
                self.started = True
                for _ in range(self.workers):  # daemons, so that a silent store does not keep the process alive
                    threading.Thread(target=_fetch_all, args=(weakref.ref(self), self.wanted), daemon=True).start()
                weakref.finalize(self, _end_threads, self.wanted, self.workers)

    def _fetch(self, shard: Shard) -> None:
        """Brings a shard into the cache, after room is made for it."""
        content = self._attempts(shard.name, shard.is_whole, WAITS)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock:
            self._make_room(shard.size)
            write_atomically(self._kept(shard), content, durable=False)

    def _make_room(self, size: int) -> None:
        held = []
        for path in self.home.glob("*/*.npy"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                held.append((status.st_mtime_ns, status.st_size, path))
        over = sum(taken for _, taken, _ in held) + size - self.limit
        for _, taken, path in sorted(held):
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= taken

    def _attempts(
        self, name: str, is_whole: Callable[[bytes], bool], waits: Sequence[float], missing_is_final: bool = False
    ) -> bytes:
        """An object that is whole. OSError, with the reason, after an attempt and one more after each wait."""
        reason = ""
        for wait in (*waits, None):
            try:
                content = self.get(name)
                if is_whole(content):
                    return content
                reason = f"{len(content):,} bytes came, which are not those that were packed"
            except FileNotFoundError as error:
                reason = "there is no such object"
                if missing_is_final:
                    raise FileNotFoundError(f"{self.url}/{name}: {reason}") from error
            except PermissionError as error:
                raise PermissionError(f"{self.url}/{name}: {error}") from error
            except OSError as error:
                reason = str(error)
            if wait is not None:
                time.sleep(wait)
        raise OSError(f"{self.url}/{name}: not read in {len(waits) + 1} attempts: {reason}")


def _fetch_all(owner: weakref.ref[Remote], wanted: queue.SimpleQueue[Any]) -> None:
    """What a thread does: fetches what is put into the queue until None comes, or nobody needs it any more."""
    while (item := wanted.get()) is not None and (remote := owner()) is not None:
        shard, future = item
        try:
            if not remote._kept(shard).exists():
                remote._fetch(shard)
            future.set_result(None)
        except Exception as error:  # whoever asks for the shard raises it
            future.set_exception(error)
        del remote


def _end_threads(wanted: queue.SimpleQueue[Any], workers: int) -> None:
    for _ in range(workers):
        wanted.put(None)


def _getter(url: str) -> Callable[[str], bytes]:
    """A function that reads an object of this folder whole, or raises an OSError of one line.

    Raises:
        MissingExtraError: the engine of the URL is not installed.
        ValueError: the URL names no folder of a store.
    """
    scheme = url.partition("://")[0]
    module, engine = ("huggingface_hub",) * 2 if scheme == "hf" else ("obstore.store", "obstore")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"a data set at {scheme}://", engine, "stream") from error
    get = _of_hub(found, url) if scheme == "hf" else _of_bucket(found, url)

    def read(name: str) -> bytes:
        try:
            return get(name)
        except Exception as error:  # engines have errors of their own and of those that they are made of
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds & {"PermissionDeniedError", "UnauthenticatedError", "GatedRepoError"}:
                raise PermissionError(_one_line(error)) from error
            missing = any(kind.endswith("NotFoundError") for kind in kinds)
            raise (FileNotFoundError if missing else OSError)(_one_line(error)) from error

    return read


def _of_bucket(module: Any, url: str) -> Callable[[str], bytes]:
    endpoints = (value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT"))
    client = {
        "timeout": AT_MOST,
        "read_timeout": timedelta(seconds=SILENCE),
        "allow_http": any(each.startswith("http://") for each in endpoints),  # a store of one's own, named so
    }
    try:  # attempts are counted here, for all that can go wrong alike
        store = module.from_url(url, client_options=client, retry_config={"max_retries": 0})
    except Exception as error:  # as above
        raise ValueError(f"{url}: {_one_line(error)}") from error
    return lambda name: bytes(store.get(name).bytes())


def _one_line(error: Exception) -> str:
    """What an engine says, without what it adds for its own developers."""
    return " ".join(str(error).partition("\n\nDebug source")[0].split())[:300] or type(error).__name__


def _of_hub(module: Any, url: str) -> Callable[[str], bytes]:
    files = module.HfFileSystem()

    def get(name: str) -> bytes:
        with files.open(f"{url}/{name}", "rb", block_size=0) as stream:  # 0: one request
            return bytes(stream.read())

    return get


Store = Local | Remote


def is_remote(root: AnyPath) -> bool:
    """Whether it is the URL of a store. ValueError for one of a kind that is not known."""
    scheme, mark, _ = str(root).partition("://")
    if mark and scheme not in SCHEMES:
        raise ValueError(f"{root}: a folder is wanted, or a URL that begins with {'://, '.join(SCHEMES)}://")
    return bool(mark)
