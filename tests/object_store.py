"""An object store on this machine that speaks S3 (moto's server), and a door before it where requests go wrong."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
KEYS |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "bucket"
SILENT = 1.5  # seconds without a byte


class Silent(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class Door:
    """Passes requests on; `faults` are what happens to the next GETs of objects whose name ends so, in order, and the
    last of them for ever if it is "...". `asked` are the GETs that came."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.faults: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "GET":
            return self.app(environ, start)
        with self.lock:
            self.asked.append(path)
            waiting = next((faults for end, faults in self.faults.items() if path.endswith(end) and faults), None)
            fault = "" if waiting is None else waiting[0] if waiting[-1] == "..." else waiting.pop(0)
        return getattr(self, f"_{fault}")(environ, start) if fault else self.app(environ, start)

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        """What the store would have said."""
        said: list[Any] = []
        body = b"".join(self.app(environ, lambda status, headers, *_: said.extend((status, headers))))
        return said[0], said[1], body

    def _missing(self, environ, start):
        start("404 Not Found", [("Content-Type", "application/xml")])
        return [b"<Error><Code>NoSuchKey</Code></Error>"]

    def _busy(self, environ, start):
        start("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code></Error>"]

    def _denied(self, environ, start):
        start("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code></Error>"]

    def _cut(self, environ, start):
        status, headers, body = self._answer(environ)
        start(status, headers)
        return [body[: len(body) // 2]]

    def _short(self, environ, start):
        status, headers, body = self._answer(environ)
        kept = [each for each in headers if each[0].lower() != "content-length"]
        start(status, [*kept, ("Content-Length", str(len(body) // 2))])
        return [body[: len(body) // 2]]

    def _flipped(self, environ, start):
        status, headers, body = self._answer(environ)
        start(status, headers)
        return [body[:-200] + bytes([body[-200] ^ 4]) + body[-199:]]

    def _silent(self, environ, start):
        time.sleep(SILENT)
        return self.app(environ, start)

    def count(self, end: str) -> int:
        """How often an object whose name ends so was asked for."""
        return sum(path.endswith(end) for path in self.asked)


class ObjectStore:
    """The store: `open` and `close` its port, which stays the same; `door` is before it."""

    def __init__(self) -> None:
        self.door, self.port = Door(), 0
        self.open()

    def open(self) -> None:
        self.server = make_server("127.0.0.1", self.port, self.door, threaded=True, request_handler=Silent)
        self.server.daemon_threads = True
        self.port = self.server.port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def upload(self, folder: Path, prefix: str) -> str:
        """Copies a folder there -> its URL."""
        client = boto3.client("s3")
        if BUCKET not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")
        client.close()
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store that the environment names, as it would name a real one."""
    store, before = ObjectStore(), dict(os.environ)
    os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{store.port}")
    try:
        yield store
    finally:
        os.environ.clear()
        os.environ.update(before)
        store.close()
