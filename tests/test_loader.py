"""Batches: the same ones from either loader, every sample once, and no thread left behind."""

import math
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointnet import devices
from pointnet.datasets import LabelledClouds
from pointnet.training import loader
from pointnet.training.loader import (
    ResidentLoader,
    StreamedLoader,
    count_batches,
    count_steps,
    cut_batches,
    cut_epoch,
    make_loader,
)

CPU = torch.device("cpu")
LOADERS = pytest.mark.parametrize("make", [ResidentLoader, StreamedLoader])


def mapped(tmp_path: Path, samples: int = 11, kept: int = 20) -> LabelledClouds:
    """Clouds in a memory-mapped file, more points kept than used; cloud i is full of i."""
    points = np.lib.format.open_memmap(tmp_path / "points.npy", "w+", np.float32, (samples, 3, kept))
    points[:] = np.arange(samples)[:, None, None]
    return LabelledClouds(torch.from_numpy(points), torch.arange(samples) % 2, ["even", "odd"], num_points=8)


def test_more_points_may_be_kept_than_are_used(tmp_path):
    data = mapped(tmp_path)
    assert data[3][0].shape == (3, 8)
    part = data.subset(torch.tensor([7, 2, 5]))
    assert [float(part[i][0].mean()) for i in range(3)] == [7, 2, 5]
    assert part.subset(torch.tensor([1])).points.mean() == 2
    points, labels = part.batch(torch.tensor([0, 2]))
    assert points.shape == (2, 3, 20)
    assert (points[:, 0, 0].tolist(), labels.tolist()) == ([7, 5], [1, 1])
    assert part.num_points == 8
    with pytest.raises(ValueError, match="num_points must be 1 to 20, got 21"):
        LabelledClouds(data.points, data.labels, data.classes, num_points=21)


@LOADERS
@pytest.mark.parametrize("batch_size", [4, 2])
def test_a_loader_gives_the_batches_asked_for_epoch_after_epoch(tmp_path, make, batch_size):
    data = mapped(tmp_path).subset(torch.arange(10, -1, -1))
    loaded = make(data, CPU)
    for seed in range(3):
        order = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
        wanted = cut_batches(order, batch_size)
        batches = list(loaded.batches(wanted))
        assert [len(labels) for _, labels in batches] == [len(rows) for rows in wanted]
        assert [int(x) for points, _ in batches for x in points[:, 0, 0]] == (10 - order).tolist()
        assert [int(y) for _, labels in batches for y in labels] == ((10 - order) % 2).tolist()


class Unreadable(LabelledClouds):
    """Its sample 5 cannot be read; `reads` are the batches that were."""

    def batch(self, indices):
        if 5 in indices.tolist():
            raise OSError("a broken disk")
        self.reads.append(indices.tolist())
        return super().batch(indices)


def unreadable() -> Unreadable:
    data = Unreadable(torch.zeros(40, 3, 4), torch.arange(40) % 2, ["even", "odd"])
    data.reads = []
    return data


def test_what_cannot_be_read_is_raised_where_it_is_asked_for_and_names_the_samples():
    data, batches = unreadable(), [torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([4, 5, 6])]
    with closing(StreamedLoader(data, CPU).batches(batches)) as loaded:
        assert len(next(loaded)[1]) == 2
        assert len(next(loaded)[1]) == 1
        with pytest.raises(ValueError, match=r"samples \[4, 5, 6\] could not be read: a broken disk"):
            next(loaded)


def test_a_few_batches_are_read_ahead_and_no_thread_is_left_when_the_consumer_stops():
    before, data = threading.active_count(), unreadable()
    loaded = StreamedLoader(data, CPU).batches(torch.arange(10, 40).split(2))
    next(loaded)
    assert threading.active_count() == before + 1
    loaded.close()
    assert threading.active_count() == before
    assert len(data.reads) <= loader.AHEAD


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("samples", "batch_size"), [(11, 4), (64, 32), (2, 2), (65, 32)])
def test_ranks_share_every_batch_and_take_each_sample_once(samples, batch_size, ranks):
    order = torch.randperm(samples)
    shares = [cut_batches(order, batch_size, rank, ranks) for rank in range(ranks)]
    assert torch.cat([torch.cat(list(share)) for share in shares]).sort().values.tolist() == list(range(samples))
    for parts in zip(*shares, strict=True):  # a step's parts are its global batch, and as even as can be
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    whole = cut_batches(order, batch_size)
    assert [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)] == [batch.tolist() for batch in whole]


@given(st.integers(2, 90), st.integers(2, 40), st.integers(1, 30), st.integers(1, 3))
def test_an_epoch_is_a_pass_and_as_much_of_further_ones_as_its_steps_ask(samples, batch_size, least, ranks):
    one, steps = count_batches(samples, batch_size), count_steps(samples, batch_size, least)
    assert steps == max(one, least)
    passes = [torch.randperm(samples) for _ in range(math.ceil(steps / one))]
    batches = cut_epoch(passes, batch_size, least)
    assert len(batches) == steps
    for order, start in zip(passes, range(0, steps, one), strict=True):
        mine = torch.cat(batches[start : start + one])
        assert torch.equal(mine, order[: len(mine)])
        assert len(mine) == samples or start + one > steps  # whole, but the last
    shares = [cut_epoch(passes, batch_size, least, rank, ranks) for rank in range(ranks)]
    assert [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)] == [batch.tolist() for batch in batches]


def test_the_last_batch_is_never_a_single_cloud():
    for samples in range(2, 200):
        for batch_size in (2, 3, 8, 32):
            sizes = [len(part) for part in torch.arange(samples).tensor_split(count_batches(samples, batch_size))]
            assert min(sizes) >= 2, (samples, batch_size)
            assert sum(sizes) == samples
            assert max(sizes) <= batch_size + 1


def test_what_fits_is_resident_and_what_does_not_is_streamed(tmp_path, monkeypatch):
    data = mapped(tmp_path)
    size = data.points.nbytes
    for free, kind in ((2 * size, ResidentLoader), (2 * size - 1, StreamedLoader)):
        monkeypatch.setattr(loader, "free_memory", lambda device, free=free: free)
        assert type(make_loader(data, CPU)) is kind
        assert type(make_loader(data, CPU, "resident")) is ResidentLoader
        assert type(make_loader(data, CPU, "stream")) is StreamedLoader


def test_free_memory_is_read_or_taken_to_be_there(tmp_path, monkeypatch):
    assert devices.free_memory(CPU) > 0
    for name, size in (("memory.max", 5000), ("memory.current", 3000)):
        (tmp_path / name).write_text(f"{size}\n")
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    assert devices.free_memory(CPU) == 2000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert devices.free_memory(CPU) == 500
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(CPU) > 2000
    monkeypatch.setattr(devices.Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert devices.free_memory(CPU) == float("inf")
