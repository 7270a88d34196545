"""Packed sets in small, and what they must hold."""

from pathlib import Path

import torch

from pointnet.datasets import LabelledClouds, packing
from pointnet.datasets.packed import open_packed
from tests.helpers import pack, two_shapes

EACH = 3 * 32 * 2  # bytes of a cloud of `two_shapes` in half precision


def packed_pair(out: Path, **options) -> tuple[LabelledClouds, LabelledClouds]:
    """Training and test split of `two_shapes`, from shards."""
    pack(two_shapes(**options), out)
    pack(two_shapes(**options, seed=1), out, "test")
    return open_packed(out, "train", 32), open_packed(out, "test", 32)


def assert_same_clouds(got: LabelledClouds, data: LabelledClouds, lost: float = 1e-3) -> None:
    """Each cloud once, with its own label, and its points where they were, but for a share of its width."""
    assert len(got) == len(data)
    names = [got.name_of(i) for i in range(len(got))]
    place = {name: i for i, name in enumerate(packing.names_of(data, Path("/")))}
    assert sorted(names) == sorted(place)
    rows = torch.tensor([place[name] for name in names])
    points, labels = got.batch(torch.arange(len(got)))
    wanted, wanted_labels = data.batch(rows)
    assert torch.equal(labels, wanted_labels)
    assert (points - wanted).abs().max() <= lost * wanted.abs().max()
    assert got.classes == data.classes
