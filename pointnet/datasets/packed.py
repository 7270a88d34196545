"""The data set `packed`: what `pointnet pack` wrote, read from a folder or straight from an object store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointnet.files import AnyPath
from pointnet.names import no_folder
from pointnet.points.features import channel_names
from pointnet.points.read import DatasetNotFoundError, PointCloudFileError

from .clouds import LabelledClouds, LabelledPoints
from .given import as_indices, check_num_points, check_one_of
from .shards import FIELDS, FILES, INDEX, OPEN, WINDOW, Index, Shards
from .stores import GB, Local, Remote, Store, is_remote, shard_hash


class _Packed(LabelledClouds):
    """What clouds and points of shards share."""

    _stored: Any  # `Shards`
    is_scaled = True
    is_at_hand = False

    def _take(self, index: Index, store: Store, num_points: int) -> None:
        """Sets what `LabelledClouds` has, by the index."""
        held, samples = index.held, index.samples
        shards = Shards(store, index.shards, held["shape"])
        if not 1 <= num_points <= shards.shape[2]:
            raise ValueError(f"num_points must be 1 to {shards.shape[2]}, as many as were packed, got {num_points}")
        labels = as_indices("labels", torch.from_numpy(samples["label"].astype(np.int64)), len(held["classes"]))
        self._hold(shards, labels, held["classes"], num_points)
        self._keys = samples["key"]
        self.validation = torch.from_numpy(samples["validation"].copy())
        for name in FIELDS:
            setattr(self, name, tuple(held[name]) if isinstance(held[name], list) else held[name])
        self.columns = str(held.get("columns", ""))  # older sets do not say
        extents = held.get("extents")  # nor these
        self.extents = (float(extents[0]), float(extents[1])) if extents else None
        self.reach = None if (reach := held.get("reach")) is None else float(reach)
        colors = held.get("colors")
        self.colors = (float(colors[0]), float(colors[1])) if colors else None
        self._files_hash = held.get("files")
        self._digest = hashlib.sha256(json.dumps(held).encode()).hexdigest()

    def order(self, generator: torch.Generator) -> Tensor:
        """As of `LabelledClouds`: shards in random order, and the clouds of `WINDOW` shards at a time mixed."""
        shards = torch.randperm(len(self._stored.shards), generator=generator)
        window = shards // WINDOW  # of each shard
        mixed = torch.randperm(len(self), generator=generator)
        numbers = torch.from_numpy(self._stored.numbers_of(self._places(mixed).numpy()))
        return mixed[window[numbers].argsort(stable=True)]

    def expect(self, indices: Tensor) -> None:
        self._stored.expect(self._places(indices))

    def fingerprint(self) -> str:
        """A hash of the index and of which clouds are in this subset: no shard is read."""
        places = self._places(torch.arange(len(self)))
        return hashlib.sha256(self._digest.encode() + places.numpy().tobytes()).hexdigest()[:16]

    def file_hashes(self) -> dict[str, list[str]]:
        """As of `LabelledClouds`, of all files that were packed; empty for a set that was packed before. OSError where
        they are damaged, or the store does not answer."""
        if self._files_hash is None:
            return {}
        content = self._stored.store.read(FILES)
        if shard_hash(content) != self._files_hash:
            raise OSError(f"{self._stored.store}/{FILES}: damaged: it does not match the hash in the index")
        return dict(json.loads(content))

    def held_out(self, seed: int, fraction: float) -> Tensor:
        """(S,) bool, by the hash of each object's name (of the room, for scenes), whatever the seed: those below the
        fraction. At least one object, that of the least hash, and never all: that of the largest stays."""
        keys = self._keys[self._places(torch.arange(len(self))).numpy()]
        below = keys < np.array(fraction * 2.0**64).astype(np.uint64)
        if fraction and len(keys) and keys.min() < keys.max():
            below = (below | (keys == keys.min())) & (keys != keys.max())
        return torch.from_numpy(below)

    def name_of(self, index: int) -> str:
        """The name it was packed with."""
        return str(self._stored.name(int(self._places(index))))


class PackedClouds(_Packed):
    """Clouds that `pointnet pack` wrote: `data[i]` -> ((C, N) float32, int). `open_packed` opens them."""

    def __init__(self, index: Index, store: Store, num_points: int):
        self._take(index, store, num_points)


class PackedPoints(_Packed, LabelledPoints):
    """The same with a label for each point: `data[i]` -> ((C, N) float32, (N,) int64, int)."""

    def __init__(self, index: Index, store: Store, num_points: int):
        self._take(index, store, num_points)
        self.part_names = tuple(index.held["part_names"])
        self.parts_of = torch.tensor(index.held["parts_of"], dtype=torch.bool)


def open_packed(
    root: AnyPath,
    split: str = "train",
    num_points: int = 1024,
    task: str = "classification",
    workers: int = 1,
    cache_gb: float = 50.0,
    features: Sequence[str] = (),
    block: float = 1.0,
) -> PackedClouds | PackedPoints:
    """A split of a set that `pointnet pack` wrote.

    Args:
        root: its folder, or the URL of one: s3://, gs://, az:// or hf://.
        num_points: N, at most as many as were packed.
        task: what it is for, as when it was packed.
        workers: threads that fetch shards from a store.
        cache_gb: disk that fetched shards may take, in GB; those of all sets together.
        features, block: none and 1, or as when it was packed.

    Raises:
        DatasetNotFoundError: nothing is packed there.
        PointCloudFileError: it is damaged, or the store does not answer.
        MissingExtraError: the library that reads from such a store is not installed.
        ValueError: the set is for another task, has fewer points or other channels, or does not fit into the cache.
    """
    check_one_of("split", split, ("train", "test"))
    check_num_points(num_points)
    url = f"{str(root).rstrip('/')}/{split}"
    store: Store = Remote(url, workers, cache_gb * GB, WINDOW) if is_remote(root) else Local(Path(root) / split)
    try:
        index = Index.of(store)
    except FileNotFoundError as error:
        if isinstance(store, Local) and not Path(root).is_dir():
            reason = f"{no_folder(root)}; --root must name what pointnet pack wrote"
        else:
            reason = f"holds no {split}/{INDEX}: no {split} split was packed here, or not to its end"
        raise DatasetNotFoundError(Path(root) if isinstance(store, Local) else str(root), reason) from error
    except OSError as error:
        raise PointCloudFileError(str(root), str(error)) from error
    held = index.held
    if held.get("task") != task:
        raise ValueError(f"{root}: was packed for the task {held.get('task')}; give --task {held.get('task')}")
    try:
        return _opened(index, store, num_points, cache_gb, features, block)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:  # of a set that others made
        raise PointCloudFileError(str(root), f"{split}/{INDEX} is not what pointnet pack writes: {error!r}") from error


def _opened(
    index: Index, store: Store, num_points: int, cache_gb: float, features: Sequence[str], block: float
) -> PackedClouds | PackedPoints:
    """The set of an index. ValueError where it does not suit, any error where the index lacks something."""
    held = index.held
    if features and channel_names(features) != tuple(held["channel_names"]):
        raise ValueError(f"{store}: was packed with {', '.join(held['channel_names'])}; leave out the features")
    if block not in (1.0, held["block"]):
        raise ValueError(f"{store}: was packed with blocks of {held['block']:g}, not of {block:g}; pack it anew")
    needed = min(len(index.shards), OPEN) * max(shard.size for shard in index.shards)
    if isinstance(store, Remote) and store.limit < needed:
        raise ValueError(f"cache_gb must be {needed / GB:.3g} or more for the shards in use at once, got {cache_gb:g}")
    return (PackedPoints if "part_names" in held else PackedClouds)(index, store, num_points)
