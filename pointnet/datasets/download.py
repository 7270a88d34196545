"""Data sets from the network: announced first, verified by their hash, unpacked safely, in place whole or not at all.

    from .download import ARCHIVES, download
    download(ARCHIVES["modelnet40_meshes"], "data")

`--download` does this for the data sets that are read from one of these archives.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pointnet.points.read import PointCloudFileError

from .unpack import MOST_BYTES, unpack

if TYPE_CHECKING:
    from requests import Response


@dataclass(frozen=True)
class Archive:
    """A published zip file of a data set.

    Args:
        file: its name.
        urls: where it may be had, in the order they are tried. The hash makes any mirror safe.
        size: its bytes, or None where they are not known.
        hash: "sha256:..." or "md5:..." of the published file.
        folder: the folder in it that is the data set.
        licence: what may be done with it, in a few words.
    """

    file: str
    urls: tuple[str, ...]
    size: int | None
    hash: str
    folder: str
    licence: str

    @property
    def size_text(self) -> str:
        """The size for people: "415 MiB"."""
        return "size unknown" if self.size is None else f"{max(1, round(self.size / 2**20)):,} MiB"


MODELNET_LICENCE = "for academic use only; the shapes' copyright stays with their authors"

ARCHIVES = {
    "modelnet40": Archive(
        "modelnet40_ply_hdf5_2048.zip",
        (
            "https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip",
            "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
        ),
        435_212_151,
        "sha256:07670e237db72ece0f723b9abb571534c9ad655a6456b389646587dc72bb8bae",
        "modelnet40_ply_hdf5_2048",
        MODELNET_LICENCE,
    ),
    "modelnet40_meshes": Archive(
        "ModelNet40.zip",
        (
            "https://huggingface.co/datasets/Msun/modelnet40/resolve/main/ModelNet40.zip",
            "https://modelnet.cs.princeton.edu/ModelNet40.zip",
        ),
        2_039_180_837,
        "sha256:42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac",
        "ModelNet40",
        MODELNET_LICENCE,
    ),
    "modelnet10_meshes": Archive(
        "ModelNet10.zip",
        (
            "https://huggingface.co/datasets/Msun/modelnet10/resolve/main/ModelNet10.zip",
            "http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
        ),
        473_402_300,
        "sha256:9d8679435fc07d1d26f13009878db164a7aa8ea5e7ea3c8880e42794b7307d51",
        "ModelNet10",
        MODELNET_LICENCE,
    ),
}


class DownloadError(OSError):
    """A data set that could not be fetched or unpacked: one line with the file and, for each mirror, the reason."""


class MirrorError(DownloadError):
    """A mirror that does not give the file, however often it is asked."""

    def __init__(self, url: str, reason: str):
        super().__init__(f"{url} {reason}")


class BrokenError(Exception):
    """A transfer that broke off, and may go on if tried again."""


@dataclass(frozen=True)
class Patience:
    """How long a mirror is waited for.

    Args:
        timeout: seconds without a byte until a connection counts as stalled.
        attempts: tries in a row that bring less than a megabyte, until the next mirror's turn.
        pause: seconds before the second try; doubled from try to try, up to 30.
    """

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0


def download(
    archive: Archive,
    root: str | os.PathLike[str] = "data",
    log: Callable[[str], object] = print,
    patience: Patience = Patience(),
) -> Path:
    """Has the data set of an archive under `root`: -> root / archive.folder. Where that is there, nothing happens.

    Size, host and licence are logged before the first byte comes. A file put by hand at root / archive.file is taken
    if its hash is right. What is unfinished lives in the hidden folder root / .<file>.download: a later call goes on
    from there, the data set appears by one rename, and processes that want the same one wait for each other.

    Args:
        archive: one of `ARCHIVES`.
        root: the folder data sets live in; made if need be.
        log: takes a line at a time.
        patience: when to give a mirror up.

    Raises:
        DownloadError: the extra `download` is not installed, no mirror gives the published bytes, the disk is full or
            cannot be written, or the archive is not safe to unpack.
    """
    root = Path(root)
    target = root / archive.folder
    if target.is_dir():
        return target
    _check_extra()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{archive.file}.lock", log):
            if not target.is_dir():  # or another process has brought it
                _download_alone(archive, root, log, patience)
    except DownloadError:
        raise
    except (PointCloudFileError, OSError) as error:
        raise DownloadError(f"{archive.file} could not be put under {root}: {error}") from error
    return target


def _download_alone(archive: Archive, root: Path, log: Callable[[str], object], patience: Patience) -> None:
    """Fetches and unpacks in a folder that only this process uses, and moves the result into `root`."""
    from tqdm import tqdm

    with (
        _work_folder(root, archive) as work,
        tqdm(desc=archive.file, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None) as bar,
    ):
        path = _found(archive, root, work, log) or _fetch(archive, root, work, log, patience, bar)
        fetched = bar.n

        def show(done: int, of: int) -> None:
            bar.total = fetched + of
            bar.update(fetched + done - bar.n)

        try:
            os.rename(unpack(path, archive.folder, work / "unpacked", show), root / archive.folder)
        finally:
            shutil.rmtree(work / "unpacked", ignore_errors=True)
        (work / archive.file).unlink(missing_ok=True)
        (work / f"{archive.file}.part").unlink(missing_ok=True)


def _check_extra() -> None:
    try:
        import filelock  # noqa: F401
        import pooch  # noqa: F401
        import requests  # noqa: F401
    except ImportError as error:
        raise DownloadError(f"{error.name} is missing: pip install 'pointnet-shared-mlp[download]'") from error


@contextlib.contextmanager
def _alone(path: Path, log: Callable[[str], object]) -> Iterator[None]:
    """Waits until no other process holds the lock file at `path`. A process that dies lets go of it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"another process is downloading ({path}); waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _work_folder(root: Path, archive: Archive) -> Iterator[Path]:
    """The folder of what is unfinished, without what a killed process left in it, except what that had fetched."""
    work = root.resolve() / f".{archive.file}.download"
    work.mkdir(exist_ok=True)
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (archive.file, f"{archive.file}.part"):
            path.unlink()
    try:
        yield work
    finally:
        with contextlib.suppress(OSError):
            work.rmdir()  # unless there is something to go on from


def _found(archive: Archive, root: Path, work: Path, log: Callable[[str], object]) -> Path | None:
    """The archive where it was put by hand, or fetched earlier, if its hash is right."""
    import pooch

    algorithm, _, digest = archive.hash.partition(":")
    for path in (root / archive.file, work / archive.file):
        if path.is_file():
            if pooch.file_hash(str(path), alg=algorithm) == digest:
                log(f"unpacking {path}, whose {algorithm} is right; {archive.licence}")
                return path
            log(f"{path} is not the published file: its {algorithm} differs; it is not used")
    return None


def _fetch(
    archive: Archive, root: Path, work: Path, log: Callable[[str], object], patience: Patience, bar: Any
) -> Path:
    """The archive from the first mirror that gives the published bytes: -> its path in `work`."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # what it has to say is said here
    fetcher = ResumingDownloader(work / f"{archive.file}.part", archive.size, patience, bar)
    _check_room(archive, work, fetcher.have())
    failures: list[str] = []
    for url in archive.urls:
        bar.clear()
        announced = f"{archive.file}: {archive.size_text} from {urlsplit(url).hostname}; {archive.licence}"
        log(f"{failures[-1]}; trying {urlsplit(url).hostname}" if failures else announced)
        try:
            return _retrieve(url, archive, work, fetcher)
        except MirrorError as error:
            failures.append(str(error))
    raise DownloadError(
        f"no mirror gives {archive.file}: {'; '.join(failures)}; it may be put by hand at {root / archive.file} "
        f"({archive.hash})"
    )


def _check_room(archive: Archive, work: Path, have: int) -> None:
    free = shutil.disk_usage(work).free
    if archive.size is not None and archive.size - have > free:
        raise DownloadError(f"{archive.file} is {archive.size:,} bytes, and {work.parent} has {free:,} free")


def _retrieve(url: str, archive: Archive, work: Path, fetcher: ResumingDownloader) -> Path:
    """The archive from one mirror, verified. A file of the wrong hash is deleted."""
    import pooch

    begun = fetcher.have() > 0
    try:
        return Path(pooch.retrieve(url, archive.hash, archive.file, work, downloader=fetcher))
    except ValueError as error:  # pooch's word for a wrong hash
        if begun:  # the fault may lie in what was there before, from another mirror or another day
            return _retrieve(url, archive, work, fetcher)
        raise MirrorError(url, f"sent {fetcher.sent:,} bytes that are not the published ones") from error


@dataclass
class ResumingDownloader:
    """Fetches a URL and, where a transfer breaks off, goes on from there: a `downloader=` for pooch.

    Args:
        part: where the bytes are kept until they are all there, from one process to the next.
        size: how many there must be; None takes what comes.
        patience: when to give up.
        bar: a tqdm bar that is kept at the bytes there are.

    Raises:
        MirrorError: the server answers with an error, with another size than `size`, has a certificate that does not
            hold, or breaks off again and again.
    """

    part: Path
    size: int | None
    patience: Patience
    bar: Any
    sent: int = 0

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        failures, furthest = 0, self.have()
        while True:
            try:
                self._go_on(url)
                break
            except BrokenError as error:
                failures = failures + 1 if self.have() < furthest + 2**20 else 1
                furthest = max(furthest, self.have())
                if failures >= self.patience.attempts:
                    raise MirrorError(url, f"{error}, at the last of {failures} tries") from error
            time.sleep(min(30.0, self.patience.pause * 2 ** (failures - 1)))
        self.sent = self.have()
        os.replace(self.part, output_file)

    def have(self) -> int:
        """How many bytes there are."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def _go_on(self, url: str) -> None:
        """Asks for what is missing and appends what comes; returns when all is there."""
        if self.size is not None and self.have() > self.size:
            self.part.unlink()
        start = self.have()
        if start and start == self.size:
            return
        with self._ask(url, start) as response:
            self._write(response, url, self._checked_start(response, url, start))

    def _ask(self, url: str, start: int) -> Response:
        import requests

        # Compressed on the way, neither lengths nor ranges would be those of the file.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            return requests.get(url, headers=headers, stream=True, timeout=self.patience.timeout, verify=True)
        except requests.exceptions.SSLError as error:
            why = re.search(r"certificate verify failed: ([^('\"]*[^('\" ])", str(error))
            raise MirrorError(url, f"has no valid certificate ({why[1] if why else 'TLS fails'})") from error
        except requests.Timeout as error:
            raise BrokenError(f"does not answer within {self.patience.timeout:g} s") from error
        except requests.ConnectionError as error:
            why = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))
            raise BrokenError(f"cannot be reached ({why[1] if why else 'no connection'})") from error
        except requests.RequestException as error:
            raise MirrorError(url, f"cannot be asked ({type(error).__name__})") from error

    def _checked_start(self, response: Response, url: str, start: int) -> int:
        """Where in the file the answer begins: at `start`, or at 0 if the server does not know ranges."""
        status = f"{response.status_code} {response.reason}"
        if response.status_code in (408, 425, 429) or response.status_code >= 500:
            raise BrokenError(f"answers {status}")
        if start and response.status_code in (206, 416):
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            sizes = ("*", str(self.size)) if self.size is not None else (span and span[2],)
            if response.status_code == 206 and span and int(span[1]) == start and span[2] in sizes:
                return start
            self.part.unlink()
            raise BrokenError("sends another range than it was asked for")
        if response.status_code != 200:
            raise MirrorError(url, f"answers {status}")
        declared = response.headers.get("Content-Length", "")
        if self.size is not None and declared.isdigit() and int(declared) != self.size:
            raise MirrorError(url, f"offers {int(declared):,} bytes, not the published {self.size:,}")
        return 0

    def _write(self, response: Response, url: str, start: int) -> None:
        """Writes the answer's bytes from `start` on, and never more than there should be."""
        import requests

        most = MOST_BYTES if self.size is None else self.size
        self.bar.reset(self.size)
        self.bar.update(start)
        with self.part.open("ab" if start else "wb") as file:
            try:
                for chunk in response.iter_content(2**16):
                    if start + len(chunk) > most:
                        raise MirrorError(url, f"sends more than the published {most:,} bytes")
                    file.write(chunk)
                    start += len(chunk)
                    self.bar.update(len(chunk))
            except requests.RequestException as error:
                stalled = "timed out" in str(error)
                reason = f"sends nothing for {self.patience.timeout:g} s" if stalled else "breaks off"
                raise BrokenError(f"{reason} after {start:,} bytes") from error
        if self.size is not None and start < self.size:
            raise BrokenError(f"ends after {start:,} of {self.size:,} bytes")
