"""Packed data sets: many clouds in few files. What a split holds, how it is written, and how its clouds are read.

A folder for each split, train/ and test/:

    index.json        what the set is, and the size and hash of each other file; written last, after a line with its own
                      sha256: without it nothing is packed
    samples.npy       of each cloud its label, the hash of its name, and whether it is of the set's own validation
    shard-00000.npy   clouds (n, C, K), as `np.load` reads them; after the array, as JSON, their names, and the hash
                      of all that

Clouds are in the order of the hashes of their names. So each shard is a fair sample of the set, whatever order its
files had, and the clouds whose hash is small, which are held out for validation, are in the first shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pointnet.files import checked_json, read_file, write_atomically, write_json

from .clouds import AS_GIVEN, MOST_LOST, LabelledClouds, LabelledPoints
from .stores import Shard, Store, shard_hash
from .workers import WorkerDiedError, on_all_cores

INDEX, SAMPLES = "index.json", "samples.npy"
VERSION = 1
NAME = re.compile(r"shard-\d{5,}\.npy")
SHARD_BYTES = 32 * 2**20  # of a shard in half precision, about: few requests, and little memory to check one
SAMPLE = np.dtype([("label", "<i4"), ("key", "<u8"), ("validation", "?")])
WINDOW = 16  # shards whose clouds are mixed with each other
OPEN = 2 * WINDOW + 2  # shards that are open at once
FIELDS = ("channel_names", "scale", "centre", "up", "intensity", "block", "label_numbers")  # of `LabelledClouds`


class Packed(NamedTuple):
    """What was packed: clouds and shards, bytes, how many shards are in half precision, and the largest distance that
    it moved a point, as a share of its cloud's width."""

    clouds: int
    shards: int
    size: int
    half: int
    moved: float


def pack_split(data: LabelledClouds, out: Path, task: str, root: Path, count: int = 0) -> Packed:
    """Writes a split as shards, on all cores; what an earlier call for the same clouds has written is kept.

    A shard is in half precision if that moves no point by more than a thousandth of its cloud's width (what is lost of
    clouds far from the origin in single precision, too), changes no other channel by more than a thousandth of its
    range, and no label of a point.

    Args:
        out: the split's folder.
        task: what the clouds are for.
        root: the data set's folder; names are relative to it.
        count: points that are kept of each cloud; 0 for all that are stored.

    Raises:
        OSError: it cannot be written, or the disk is full; what is written stays, and the same call goes on.
        ValueError: the folder holds another set, or `count` is more than there are.
    """
    kept = data.batch(torch.arange(1))[0].shape[2]
    if not 0 <= count <= kept or 0 < count < data.num_points:
        raise ValueError(f"points must be {data.num_points} to {kept}, as many as are stored of a cloud, got {count}")
    count = count or kept
    names = names_of(data, root)
    of_rooms = [data.classes[label] for label in data.labels.tolist()] if task == "scene" else names
    keys, order = keys_of(of_rooms), keys_of([f"{name}#" for name in names])
    own = torch.zeros(len(data), dtype=torch.bool) if data.validation is None else data.validation
    rows = np.lexsort((order, keys, ~own.numpy()))
    source = f"{data.fingerprint()} {data.channels} {count} {hashlib.sha256(json.dumps(names).encode()).hexdigest()}"
    channels = data.batch(torch.arange(1))[0].shape[1]
    size = max(1, SHARD_BYTES // (2 * channels * count))
    parts = np.array_split(rows, -(-len(rows) // size))
    out.mkdir(parents=True, exist_ok=True)
    check_same(out, source)
    write = partial(write_shard, data=data, names=names, out=out, parts=parts, count=count, source=source)
    try:
        bar = tqdm(
            on_all_cores(write, range(len(parts))), f"packing {out.name}", len(parts), unit=" shards", disable=None
        )
        written = sorted(bar)
    except WorkerDiedError as error:
        raise OSError(f"{out}: a process died (out of memory?); the same command goes on from here") from error
    samples = np.empty(len(rows), SAMPLE)
    samples["label"], samples["key"], samples["validation"] = data.labels.numpy()[rows], keys[rows], own.numpy()[rows]
    buffer = io.BytesIO()
    np.save(buffer, samples)
    write_atomically(out / SAMPLES, buffer.getvalue())
    index = {"version": VERSION, "task": task, "source": source, "classes": data.classes, "shape": [channels, count]}
    index |= {name: getattr(data, name) for name in FIELDS}
    if isinstance(data, LabelledPoints):
        index |= {"part_names": data.part_names, "parts_of": data.parts_of.int().tolist()}
    index |= {"samples": [len(rows), buffer.tell(), shard_hash(buffer.getvalue())]}
    index |= {"shards": [shard for _, shard, _, _ in written], "bad": [str(error) for error in data.bad]}
    write_json(out / INDEX, index)
    for path in set(out.glob("shard-*.npy")) - {out / shard.name for _, shard, _, _ in written}:
        path.unlink()  # of a call that was stopped, for other clouds
    whole = sum(shard.size for _, shard, _, _ in written)
    return Packed(len(rows), len(parts), whole, sum(w[2] for w in written), max(w[3] for w in written))


def names_of(data: LabelledClouds, root: Path) -> list[str]:
    """A name for each cloud, none twice, that is the same wherever the set is."""
    if not data.files:
        return [f"{data.classes[label]}/{data.name_of(i)}" for i, label in enumerate(data.labels.tolist())]
    seen: dict[Path, int] = {}
    names = []
    for file in data.files:
        seen[file] = seen.get(file, 0) + 1
        name = os.fsencode(file.relative_to(root) if file.is_relative_to(root) else file.name)
        names.append(name.decode(errors="backslashreplace") + (f"#{seen[file]}" if seen[file] > 1 else ""))
    return names


def keys_of(names: Sequence[str]) -> NDArray[np.uint64]:
    """A hash of each name."""
    hashes = (hashlib.sha256(name.encode(errors="backslashreplace")).digest()[:8] for name in names)
    return np.frombuffer(b"".join(hashes), "<u8")


def check_same(out: Path, source: str) -> None:
    """Raises ValueError if the folder holds another set."""
    if (out / INDEX).exists():
        try:
            there = checked_json(read_file(out / INDEX), out / INDEX).get("source")
        except (OSError, ValueError, TypeError):
            return  # damaged: it is written again
        if there != source:
            raise ValueError(f"{out}: already holds another packed set; choose another folder, or remove it")


def write_shard(
    number: int, data: LabelledClouds, names: list[str], out: Path, parts: list[NDArray[Any]], count: int, source: str
) -> tuple[int, Shard, bool, float]:
    """Writes one shard, unless it is there -> its number, what the index says of it, whether it is in half precision,
    and how far that moves points."""
    torch.set_num_threads(1)  # each core has a process; and threads do not survive a fork
    rows, path = parts[number], out / f"shard-{number:05d}.npy"
    tail: dict[str, Any] = {"names": [names[row] for row in rows.tolist()], "source": source}
    if (held := held_shard(path, tail)) is None:
        clouds = data.batch(torch.from_numpy(rows))[0][:, :, :count].numpy()
        halved, moved = halved_clouds(clouds, isinstance(data, LabelledPoints))
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(clouds if halved is None else halved))
        tail |= {"half": halved is not None, "moved": moved}
        buffer.write(json.dumps(tail).encode())
        held = buffer.getvalue() + f"\n{shard_hash(buffer.getvalue())}".encode(), tail
        write_atomically(path, held[0])
    content, tail = held
    return number, Shard(path.name, len(rows), len(content), shard_hash(content)), tail["half"], tail["moved"]


def held_shard(path: Path, wanted: dict[str, Any]) -> tuple[bytes, dict[str, Any]] | None:
    """A shard with these names and this source that an earlier call has written, and its tail; None where there is
    none, or it is damaged."""
    try:
        content = read_file(path)
        written, _, digest = content.rpartition(b"\n")
        if f"{shard_hash(written)}".encode() != digest:  # before it is parsed
            return None
        stream = io.BytesIO(written)
        np.load(stream)
        tail = json.loads(stream.read())
        return (content, tail) if {name: tail[name] for name in wanted} == wanted else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def halved_clouds(clouds: NDArray[np.float32], labelled: bool) -> tuple[NDArray[np.float16] | None, float]:
    """Clouds (n, C, K) in half precision, and the largest distance that this moves a point, as a share of its cloud's
    width; None and 0 where single precision is needed. `labelled`: the last channel is labels."""
    with np.errstate(over="ignore"):  # becomes infinite, and is then refused
        halved = clouds.astype(np.float16)
    with np.errstate(invalid="ignore"):  # of clouds with points that are not finite
        lost = np.abs(halved.astype(np.float32) - clouds)
    features = slice(3, clouds.shape[1] - labelled)
    widths = np.ptp(clouds[:, :3], axis=2).max(1, initial=0)
    moved = np.linalg.norm(lost[:, :3], axis=1).max(1)
    ranges = np.ptp(clouds[:, features], axis=(0, 2))
    enough = (moved <= MOST_LOST * widths).all() and (lost[:, features].max((0, 2)) <= MOST_LOST * ranges).all()
    if not enough or (labelled and lost[:, -1].any()):
        return None, 0.0
    return halved, float((moved / np.where(widths > 0, widths, 1)).max())


class Index(NamedTuple):
    """What the index of a split says, and its samples."""

    held: dict[str, Any]
    samples: NDArray[Any]
    shards: list[Shard]

    @classmethod
    def of(cls, store: Store) -> Index:
        """Reads it. OSError where it is missing or damaged; the message names it."""
        try:
            held = checked_json(store.read(INDEX), INDEX)
            if held["version"] != VERSION:
                raise ValueError(f"of version {held['version']}; known here is {VERSION}")
            shards = [Shard(*entry) for entry in held["shards"]]
            count, size, digest = held["samples"]
            written = store.read(SAMPLES)
            if not Shard(SAMPLES, count, size, digest).is_whole(written):
                raise ValueError(f"{SAMPLES} does not match the hash in the index")
            samples = np.load(io.BytesIO(written), allow_pickle=False)
            if samples.dtype != SAMPLE or not len(samples) == count == sum(shard.clouds for shard in shards):
                raise ValueError(f"{SAMPLES} does not match the index")
            if not all(NAME.fullmatch(shard.name) and min(shard[1:]) >= 0 for shard in shards):
                raise ValueError("its shards are not such as are packed")
        except FileNotFoundError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise OSError(f"{store}/{INDEX}: damaged: {error}") from error
        return cls(held, samples, shards)


class Shards:
    """All clouds of a split, indexed as a tensor (S, C, K) float32 is; each is read when it is asked for.

    Threads may ask at once. A shard's size and hash are checked when it is first opened.
    """

    def __init__(self, store: Store, shards: Sequence[Shard], shape: Sequence[int]):
        self.store, self.shards, self.cloud = store, shards, tuple(shape)
        self.ends = np.cumsum([shard.clouds for shard in shards])
        self.shape = (int(self.ends[-1]) if len(shards) else 0, *self.cloud)
        self.lock, self.checked = threading.Lock(), set[int]()
        self.open: OrderedDict[int, OpenShard] = OrderedDict()
        weakref.finalize(self, _close_all, self.open)

    def __getitem__(self, stored: Tensor | slice | int) -> Tensor:
        if isinstance(stored, int):
            return self[torch.tensor([stored])][0]
        rows = torch.arange(self.shape[0])[stored] if isinstance(stored, slice) else stored
        if not len(rows):
            return torch.empty(0, *self.cloud)
        places = rows.numpy()
        order = places.argsort(kind="stable")
        places = places[order]
        numbers = self.numbers_of(places)
        ends = [*np.flatnonzero(np.diff(numbers)).tolist(), len(rows) - 1]  # the last of each shard
        read, start = [], 0
        for end in ends:
            number = int(numbers[end])
            first = int(self.ends[number]) - self.shards[number].clouds
            read.append(self._read(number, places[start : end + 1] - first))
            start = end + 1
        # Half precision becomes single here, many clouds at once.
        clouds = torch.from_numpy(np.concatenate(read)).to(torch.get_default_dtype())
        return clouds[torch.from_numpy(order).argsort()]

    def numbers_of(self, places: NDArray[Any]) -> NDArray[Any]:
        """The shard of each cloud."""
        return np.searchsorted(self.ends, places, "right")

    def expect(self, places: Tensor) -> None:
        """As of `LabelledClouds`."""
        numbers = self.numbers_of(places.numpy())
        _, first = np.unique(numbers, return_index=True)
        self.store.expect([self.shards[number] for number in numbers[np.sort(first)].tolist()])

    def name(self, place: int) -> str:
        """The name of a cloud."""
        (number,) = self.numbers_of(np.array([place])).tolist()
        with self.store.path(self.shards[number]).open("rb") as file:
            np.load(file)
            names = json.loads(file.readline())["names"]
            return str(names[place - int(self.ends[number]) + self.shards[number].clouds])

    def _read(self, number: int, rows: NDArray[Any]) -> NDArray[Any]:
        """Clouds of one shard, by their places in it."""
        while True:
            with self.lock:
                held = self.open.setdefault(number, OpenShard())
                self.open.move_to_end(number)
                unused = [self.open.popitem(last=False)[1] for _ in range(len(self.open) - OPEN)]
            for other in unused:
                other.close()
            with held.lock:
                if not held.closed:
                    return held.read(rows) if held.file else self._opened(number, held).read(rows)

    def _opened(self, number: int, held: OpenShard) -> OpenShard:
        """Opens a shard. OSError where it is damaged and there is no other."""
        shard, path = self.shards[number], self.store.path(self.shards[number])
        if number not in self.checked and not shard.is_whole(read_file(path)):
            self.store.again(shard)
            path = self.store.path(shard)
            if not shard.is_whole(read_file(path)):
                raise OSError(f"{path}: does not keep what is written to it")
        self.checked.add(number)
        file = open(path, "rb", buffering=0)  # noqa: SIM115  # `OpenShard.close` closes it
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("its header is not of this version")
            array, by_columns, kind = np.lib.format.read_array_header_1_0(file)
            if array != (shard.clouds, *self.cloud) or by_columns or kind not in (np.float16, np.float32):
                raise ValueError(f"it holds {array} {kind}, which is not what the index says")
            if file.tell() + kind.itemsize * math.prod(array) > shard.size:
                raise ValueError(f"it is too short for {array} {kind}")
        except ValueError as error:
            file.close()
            raise OSError(f"{path}: damaged: {error}") from error
        held.file, held.offset, held.clouds = file, file.tell(), np.empty((0, *self.cloud), kind)
        return held


class OpenShard:
    """A shard that is open, or about to be; who uses it holds its lock."""

    def __init__(self) -> None:
        self.lock, self.closed = threading.Lock(), False
        self.file: io.FileIO | None = None
        self.offset = 0  # of the first cloud in the file
        self.clouds: NDArray[Any] = np.empty(0)  # none, in the shape and type of those in the file

    def read(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Clouds by their places: read, not mapped, as mapped pages count as memory in use, and a file that is cut
        short while it is mapped ends the process. OSError where it ends too early."""
        assert self.file is not None
        clouds = np.empty((len(rows), *self.clouds.shape[1:]), self.clouds.dtype)
        size = clouds[:1].nbytes
        into: Any = clouds.reshape(-1).view(np.uint8)
        wanted, start = rows.tolist(), 0
        while start < len(wanted):
            end = start + 1
            while end < len(wanted) and wanted[end] == wanted[end - 1] + 1:
                end += 1  # neighbours are read at once
            self.file.seek(self.offset + wanted[start] * size)
            if self.file.readinto(into[start * size : end * size]) != (end - start) * size:
                raise OSError(f"{self.file.name!s}: ends too early; it was cut short after it was opened")
            start = end
        return clouds

    def close(self) -> None:
        """Waits for who reads from it."""
        with self.lock:
            self.closed = True
            if self.file:
                self.file.close()


def _close_all(shards: OrderedDict[int, OpenShard]) -> None:
    for held in shards.values():
        held.close()


def is_unnamed(data: LabelledClouds) -> bool:
    """Whether the contract of a set must be measured before it is packed."""
    return not data.channel_names or not data.scale or (data.scale == AS_GIVEN and data.centre is None)
