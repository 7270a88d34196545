"""Zip archives, unpacked without trusting them."""

from __future__ import annotations

import shutil
import stat
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pointnet.points.read import PointCloudFileError

# Limits that no honest archive of a data set comes near: ModelNet40's meshes are 2 GB, 5 times that unpacked.
MOST_BYTES = 64 * 2**30
MOST_TIMES = 100
MOST_MEMBERS = 10**6


def unpack(path: Path, folder: str, into: Path, progress: Callable[[int, int], object] = lambda done, of: None) -> Path:
    """Unpacks what the zip file at `path` holds under `folder`/ into the folder `into`: -> into / folder.

    The whole archive is checked before anything is written. Modes, owners and times are not restored.

    Args:
        progress: told the bytes written so far and the bytes there are to write.

    Raises:
        PointCloudFileError: a damaged archive, one without `folder`, or one that would write elsewhere, make links,
            or be larger than an honest one; or the disk has not the room for it.
        OSError: `into` cannot be written.
    """
    try:
        with ZipFile(path) as archive:
            members = [(info, parts) for info, parts in checked_members(archive, path) if parts[0] == folder]
            if not members:
                raise PointCloudFileError(path, f"holds no folder {folder}/")
            _unpack_members(archive, path, members, into, progress)
    except (BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise PointCloudFileError(path, f"not a readable zip file (damaged or cut short): {error}") from error
    return into / folder


def checked_members(archive: ZipFile, path: Path) -> list[tuple[ZipInfo, tuple[str, ...]]]:
    """Every member of an archive, with the parts of its path, once each is known to be safe to unpack."""
    infos = archive.infolist()
    total, most = sum(info.file_size for info in infos), min(MOST_BYTES, MOST_TIMES * path.stat().st_size)
    if total > most or len(infos) > MOST_MEMBERS:
        raise PointCloudFileError(path, f"would unpack to {len(infos):,} files of {total:,} bytes: a bomb")
    members = [(info, _checked_parts(info, path)) for info in infos]
    # Some disks take names that differ in case alone for one.
    counts = Counter("/".join(parts).casefold() for info, parts in members if not info.is_dir())
    if twice := [name for name, count in counts.items() if count > 1]:
        raise PointCloudFileError(path, f"holds '{twice[0]}' twice")
    return members


def _checked_parts(info: ZipInfo, path: Path) -> tuple[str, ...]:
    """The parts of a member's path, which are names of files or folders and lead down only."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(mark in name for mark in "\\:\0"):
        raise PointCloudFileError(path, f"member {name!r} is not a path within the archive's folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise PointCloudFileError(path, f"member {name!r} is a link or a device, which is not unpacked")
    if info.flag_bits & 1 or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise PointCloudFileError(path, f"member {name!r} is encrypted, or compressed by other means than deflate")
    return parts


def _unpack_members(
    archive: ZipFile,
    path: Path,
    members: list[tuple[ZipInfo, tuple[str, ...]]],
    into: Path,
    progress: Callable[[int, int], object],
) -> None:
    total, done = sum(info.file_size for info, _ in members), 0
    into.mkdir(parents=True, exist_ok=True)
    if total > (free := shutil.disk_usage(into).free):
        raise PointCloudFileError(path, f"unpacks to {total:,} bytes, and {into.absolute()} has {free:,} free")
    for info, parts in members:
        target = into.joinpath(*parts)
        if info.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # A member is never read past its declared size, and its checksum tells if there is more.
        with archive.open(info) as source, target.open("xb") as file:
            while chunk := source.read(2**20):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
