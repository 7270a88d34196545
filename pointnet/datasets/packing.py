"""How a data set is packed: the shards of a split, as `shards.py` describes them, and what their index says."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pointnet.files import name_in, read_file, read_json, write_atomically, write_json

from .clouds import AS_GIVEN, LabelledClouds, LabelledPoints
from .extents import brightness_of, extents_of, reach_of
from .given import MOST_LOST
from .shards import FIELDS, FILES, INDEX, SAMPLE, SAMPLES, VERSION
from .stores import Shard, shard_hash
from .workers import WorkerDiedError, on_all_cores

SHARD_BYTES = 32 * 2**20  # of a shard in half precision, about: few requests, and little memory to check one


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
    _, channels, kept = data.batch(torch.arange(1))[0].shape
    if not 0 <= count <= kept or 0 < count < data.num_points:
        raise ValueError(f"points must be {data.num_points} to {kept}, as many as are stored of a cloud, got {count}")
    count = count or kept
    names = names_of(data, root)
    of_rooms = [data.classes[label] for label in data.labels.tolist()] if task == "scene" else names
    keys, order = keys_of(of_objects(of_rooms, data.first_clouds())), keys_of([f"{name}#" for name in names])
    own = torch.zeros(len(data), dtype=torch.bool) if data.validation is None else data.validation
    rows = np.lexsort((order, keys, ~own.numpy()))
    source = f"{data.fingerprint()} {data.channels} {count} {hashlib.sha256(json.dumps(names).encode()).hexdigest()}"
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
        raise OSError(f"{out}: a process died (out of memory?); the same command continues from here") from error
    samples = np.empty(len(rows), SAMPLE)
    samples["label"], samples["key"], samples["validation"] = data.labels.numpy()[rows], keys[rows], own.numpy()[rows]
    buffer = io.BytesIO()
    np.save(buffer, samples)
    write_atomically(out / SAMPLES, buffer.getvalue())
    index = {"version": VERSION, "task": task, "source": source, "shape": [channels, count], **index_of(data)}
    index |= {"samples": [len(rows), buffer.tell(), shard_hash(buffer.getvalue())]}
    index |= {"shards": [shard for _, shard, _, _ in written], "bad": [str(error) for error in data.bad]}
    if hashes := data.file_hashes():
        content = json.dumps(hashes).encode()
        write_atomically(out / FILES, content)
        index |= {"files": shard_hash(content)}
    write_json(out / INDEX, index)
    remove_others(out, {shard.name for _, shard, _, _ in written})
    whole = sum(shard.size for _, shard, _, _ in written)
    return Packed(len(rows), len(parts), whole, sum(w[2] for w in written), max(w[3] for w in written))


def index_of(data: LabelledClouds) -> dict[str, Any]:
    """What the index says of the set, but for its clouds."""
    index = {"classes": data.classes, **{name: getattr(data, name) for name in FIELDS}}
    measured = (extents_of(data), reach_of(data)) if data.scale == AS_GIVEN else (None, None)
    index |= {"columns": data.columns, "extents": measured[0], "reach": measured[1], "colors": brightness_of(data)}
    if isinstance(data, LabelledPoints):
        index |= {"part_names": data.part_names, "parts_of": data.parts_of.int().tolist()}
    return index


def names_of(data: LabelledClouds, root: Path) -> list[str]:
    """A name for each cloud, none twice, that is the same wherever the set is."""
    if not data.files:
        return [f"{data.classes[label]}/{data.name_of(i)}" for i, label in enumerate(data.labels.tolist())]
    seen: dict[Path, int] = {}
    names = []
    for file in data.files:
        seen[file] = seen.get(file, 0) + 1
        name = name_in(file, root if file.is_relative_to(root) else file.parent)
        names.append(f"{name}#{seen[file]}" if seen[file] > 1 else name)
    return names


def of_objects(names: Sequence[str], first: Tensor) -> list[str]:
    """For the name of each cloud the shortest of its object, as a copy's is longer; `first` as of `first_clouds`."""
    shortest: dict[int, str] = {}
    for name, place in zip(names, first.tolist(), strict=True):
        shortest[place] = min(name, shortest.get(place, name), key=lambda each: (len(each), each))
    return [shortest[place] for place in first.tolist()]


def keys_of(names: Sequence[str]) -> NDArray[np.uint64]:
    """A hash of each name."""
    hashes = (hashlib.sha256(name.encode(errors="backslashreplace")).digest()[:8] for name in names)
    return np.frombuffer(b"".join(hashes), "<u8")


def check_same(out: Path, source: str) -> None:
    """Raises ValueError if the folder holds another set."""
    if (out / INDEX).exists():
        try:
            there = read_json(out / INDEX).get("source")
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


def remove_others(out: Path, names: set[str]) -> None:
    """Removes shards without these names, of a call for other clouds that was stopped, but no file that is no shard."""
    for path in out.glob("shard-*.npy"):
        if path.name not in names and held_shard(path, {}) is not None:
            path.unlink()


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
