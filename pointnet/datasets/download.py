"""Data sets from the Hugging Face Hub: announced first, verified by their hash, in place whole or not at all."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from filelock import FileLock, Timeout
from tqdm import tqdm

from pointnet.extras import MissingExtraError
from pointnet.files import AnyPath, content_hash
from pointnet.names import say

Log = Callable[[str], object]


@dataclass(frozen=True)
class Archive:
    """A published zip file of a data set."""

    repo: str  # the data set on the Hugging Face Hub that holds the file
    file: str  # its name there
    size: int  # its bytes
    sha256: str  # of the whole file
    folder: str  # the folder in it that is the data set
    licence: str  # what may be done with it, in a few words

    @property
    def size_text(self) -> str:
        """The size for people: "415 MiB"."""
        return f"{max(1, round(self.size / 2**20)):,} MiB"


def _modelnet(number: int, folder: str, size: int, sha256: str) -> Archive:
    licence = "for academic use only; the shapes' copyright stays with their authors"
    return Archive(f"Msun/modelnet{number}", f"{folder}.zip", size, sha256, folder, licence)


ARCHIVES = {
    "modelnet40": _modelnet(
        40, "modelnet40_ply_hdf5_2048", 435_212_151, "07670e237db72ece0f723b9abb571534c9ad655a6456b389646587dc72bb8bae"
    ),
    "modelnet40_meshes": _modelnet(
        40, "ModelNet40", 2_039_180_837, "42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac"
    ),
    "modelnet10_meshes": _modelnet(
        10, "ModelNet10", 473_402_300, "9d8679435fc07d1d26f13009878db164a7aa8ea5e7ea3c8880e42794b7307d51"
    ),
}


class DownloadError(OSError):
    """A data set that could not be downloaded or unpacked; one line that names the file and the reason."""


def download(archive: Archive, root: AnyPath = "data", log: Log = say) -> Path:
    """The folder of an archive's data set, root / archive.folder, downloaded if it is not there.

    Size, source and licence are logged before the first byte comes. A file put by hand at root / archive.file is used
    if its hash is right. Unfinished work is in the hidden folder root / .<file>.download: a later call resumes it. The
    data set appears by one rename, and processes that want the same one wait for each other.

    Args:
        archive: one of `ARCHIVES`.
        root: the folder that data sets are in; made if it does not exist.
        log: called with one line at a time.

    Raises:
        MissingExtraError: the extra `download` is not installed.
        DownloadError: the Hub does not give the published bytes, the disk is full or cannot be written, or the
            archive is not safe to unpack.
    """
    root = Path(root)
    target = root / archive.folder
    if target.is_dir():
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{archive.file}.lock", log):
            if not target.is_dir():  # or another process has put it there
                _put_in_place(archive, root, log)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"{archive.file} could not be put under {root}: {error}") from error
    return target


def _locked(path: Path, log: Log) -> AbstractContextManager[object]:
    """Takes the lock file at `path`, once no other process has it; a process that dies releases it."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log(f"another process is downloading ({path}); waiting for it")
        return lock.acquire()


def _put_in_place(archive: Archive, root: Path, log: Log) -> None:
    path, work = root / archive.file, root / f".{archive.file}.download"
    if path.is_file() and content_hash(path) == archive.sha256:
        log(f"unpacking {path} (sha256 verified); {archive.licence}")
    else:
        if path.is_file():
            log(f"{path} is not used: its sha256 is not that of the published file")
        path = _fetch(archive, root, work, log)
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
    try:
        os.rename(unpack(path, archive.folder, unpacked), root / archive.folder)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def _fetch(archive: Archive, root: Path, work: Path, log: Log) -> Path:
    """The archive from the Hub, verified: -> its path in `work`. The Hub's client resumes what is there in part."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("--download", "huggingface_hub", "download") from error
    if not work.exists() and archive.size > (free := shutil.disk_usage(root).free):
        raise DownloadError(f"{archive.file} is {archive.size:,} bytes, and {root} has {free:,} free")
    log(f"{archive.file}: {archive.size_text} from huggingface.co/datasets/{archive.repo}; {archive.licence}")
    by_hand = f"it may be put by hand at {root / archive.file} (sha256 {archive.sha256})"
    try:
        path = Path(huggingface_hub.hf_hub_download(archive.repo, archive.file, repo_type="dataset", local_dir=work))
    except Exception as error:  # an HTTP library's, which differs between versions of the Hub's client
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        reasons = [str(each).strip().partition("\n")[0] for each in (error, error.__cause__) if each is not None]
        raise DownloadError(f"{archive.file} could not be downloaded: {': '.join(reasons)}; {by_hand}") from error
    if content_hash(path) != archive.sha256:
        size = path.stat().st_size
        path.unlink()
        raise DownloadError(
            f"{archive.file} from {archive.repo} is not the published file: {size:,} bytes of another sha256; {by_hand}"
        )
    return path


def unpack(path: Path, folder: str, into: Path) -> Path:
    """Unpacks the members of the zip file at `path` under `folder`/ into the folder `into`: -> into / folder.

    Raises:
        DownloadError: not a zip file, one without `folder`, or one with a member that is a link or leads elsewhere.
        OSError: `into` cannot be written.
    """
    try:
        with ZipFile(path) as archive:
            members = [info for info in archive.infolist() if PurePosixPath(info.filename).parts[:1] == (folder,)]
            if not members:
                raise DownloadError(f"{path}: holds no folder {folder}/")
            for info in members:
                if ".." in PurePosixPath(info.filename).parts or stat.S_ISLNK(info.external_attr >> 16):
                    raise DownloadError(f"{path}: member {info.filename!r} leads out of its folder or is a link")
            for info in tqdm(members, desc="unpacking", unit=" files", disable=None, leave=False):
                archive.extract(info, into)
    except BadZipFile as error:
        raise DownloadError(f"{path}: not a readable zip file: {error}") from error
    return into / folder
