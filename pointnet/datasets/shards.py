"""Packed data sets: many clouds in few files. What a split holds, and how its clouds are read.

A folder for each split, train/ and test/:

    index.json        what the set is, and the size and hash of each other file; written last, after a line with its own
                      sha256: without it nothing is packed
    files.json        of files of one's own, their names and hashes
    samples.npy       of each cloud its label, the hash of its name, and whether it is of the set's own validation
    shard-00000.npy   clouds (n, C, K), as `np.load` reads them; after the array, as JSON, their names, and the hash
                      of all that

Clouds are in the order of the hashes of their names. So each shard is a fair sample of the set, whatever order its
files had, and the clouds whose hash is small, which are held out for validation, are in the first shards.
"""

from __future__ import annotations

import io
import json
import math
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.files import checked_json, read_file

from .stores import Shard, Store

INDEX, SAMPLES = "index.json", "samples.npy"
FILES = "files.json"  # `LabelledClouds.file_hashes` of what was packed; older sets have none
VERSION = 1
NAME = re.compile(r"shard-\d{5,}\.npy")
SAMPLE = np.dtype([("label", "<i4"), ("key", "<u8"), ("validation", "?")])
WINDOW = 16  # shards whose clouds are mixed with each other
OPEN = 2 * WINDOW + 2  # shards that are open at once
FIELDS = ("channel_names", "scale", "centre", "up", "intensity", "block", "label_numbers")  # of `LabelledClouds`


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
