"""Whole scenes: every point has votes, the cut is that of training, and nothing depends on how the work is dealt."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointnet import PointNetSegmenter
from pointnet.datasets.blocks import SIDE, STRIDE, block_channels
from pointnet.inference import scenes
from pointnet.inference.scenes import label_scene
from tests.helpers import trained_looking


@pytest.fixture(scope="module")
def model() -> PointNetSegmenter:
    torch.manual_seed(0)
    made = PointNetSegmenter(5, input_transform=False, feature_transform=False, widths=[[8], [16]], head_widths=[8])
    made.preprocessing = {"num_points": 64}
    return trained_looking(made).eval()  # float64


def scene(size: int, wide: float, deep: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    points = generator.random((size, 3)) * (wide, deep, 2.5)
    return (points - points.min(0)).astype(np.float32), generator.random((size, 3)).astype(np.float32)


def probabilities(model: PointNetSegmenter, channels: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(channels.T)[None].double()).softmax(1)[0].T


def by_definition(model: PointNetSegmenter, points: np.ndarray, colors: np.ndarray, order: int) -> torch.Tensor:
    """The mean over all blocks that hold a point, one after the other in any order."""
    extent = points.max(0)
    across, along = (max(int(np.ceil((side - SIDE) / STRIDE)) + 1, 1) for side in extent[:2])
    votes, counts = torch.zeros(len(points), 5, dtype=torch.float64), torch.zeros(len(points), 1)
    blocks = [(i, j) for i in range(across) for j in range(along)]
    for index in np.random.default_rng(order).permutation(len(blocks)):
        i, j = blocks[index]
        cell = np.minimum((points[:, :2] / STRIDE).astype(int), (across, along))
        inside = np.flatnonzero((np.abs(cell - (i + 0.5, j + 0.5)) < 1).all(1))
        if len(inside):
            votes[inside] += probabilities(model, block_channels(points[inside], colors[inside], extent))
            counts[inside] += 1
    assert (counts > 0).all()
    return votes / counts


@settings(max_examples=12)
@given(st.integers(1, 60), st.floats(0.1, 3), st.floats(0.1, 3), st.integers(0, 99), st.sampled_from([1, 200, 10**6]))
def test_a_point_gets_the_mean_of_what_all_blocks_that_hold_it_say(model, size, wide, deep, seed, batch):
    points, colors = scene(size, wide, deep, seed)
    wanted = by_definition(model, points, colors, order=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "BATCH", batch)
        found = label_scene(model, points, colors)
    of_label = wanted.gather(1, torch.from_numpy(found.labels)[:, None])[:, 0]
    torch.testing.assert_close(of_label, wanted.max(1).values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(found.probability).double(), of_label, rtol=1e-5, atol=1e-6)


def test_neither_where_the_scene_stands_nor_the_order_of_its_points_matters(model):
    points, colors = scene(200, 3.2, 1.4, 5)
    points = np.round(points * 1024) / 1024  # a shift loses nothing of them
    wanted = label_scene(model, points, colors)
    order = np.random.default_rng(0).permutation(200)
    found = label_scene(model, points.astype(np.float64)[order] + (-300, 500, 12), colors[order])
    assert np.array_equal(found.labels, wanted.labels[order])
    np.testing.assert_allclose(found.probability, wanted.probability[order], rtol=1e-5)


@pytest.mark.parametrize(("size", "longest"), [(64, 64), (65, 33), (1000, 63)])
def test_a_dense_block_is_dealt_out_evenly_and_every_point_once(model, size, longest, monkeypatch):
    points, colors = scene(size, 0.9, 0.9, 1)
    given = []
    parts = scenes._samples

    def look(*arguments):
        for at, channels in parts(*arguments):
            given.append(at)
            yield at, channels

    monkeypatch.setattr(scenes, "_samples", look)
    first, again, other = (label_scene(model, points, colors, seed=seed) for seed in (0, 0, 1))
    dealt = given[: len(given) // 3]
    assert sorted(np.concatenate(dealt).tolist()) == list(range(size))
    assert max(map(len, dealt)) == longest
    assert np.array_equal(first.probability, again.probability)
    assert np.array_equal(first.probability, other.probability) == (size <= 64)


def test_blocks_of_any_size_come_in_few_shapes(model, monkeypatch):
    """On a CPU what is made for a new shape is kept: 2 million points took 2 GB of it."""
    lengths, forward = [], PointNetSegmenter.forward
    monkeypatch.setattr(
        PointNetSegmenter, "forward", lambda self, x, **more: lengths.append(x.shape[2]) or forward(self, x, **more)
    )
    points, colors = scene(900, 6, 5, 2)
    label_scene(model, points, colors)
    assert set(lengths) <= {1, 2, 4, 8, 16, 32, 64}
    assert len(lengths) >= 10


def test_no_more_votes_are_held_than_two_rows_of_cells_need(model, monkeypatch):
    """A corridor of 30 metres in y, of 61 rows of cells."""
    points, colors = scene(3000, 1.2, 30, 0)
    held = []
    concatenate = np.concatenate

    def look(arrays):
        joined = concatenate(arrays)
        if joined.ndim == 2:
            held.append(len(joined))
        return joined

    monkeypatch.setattr(scenes.np, "concatenate", look)
    assert (label_scene(model, points, colors).probability > 0.2 - 1e-6).all()
    assert len(held) == 59
    assert max(held) < 3000 / 59 * 2 * 1.5


def test_what_is_no_scene_is_one_clear_line(model):
    points, colors = scene(9, 1, 1, 0)
    with pytest.raises(ValueError, match=r"need a network of 9 channels \(xyz, rgb, xyz as shares\), got 3"):
        label_scene(PointNetSegmenter(5, 3), points, colors)
    for wrong in (points[:, :2], points[:0], points[0]):
        with pytest.raises(ValueError, match=r"points must be \(\d, 3\) with at least one, got"):
            label_scene(model, wrong, colors)
    with pytest.raises(ValueError, match=r"colors must be \(9, 3\) with at least one, got \(8, 3\)"):
        label_scene(model, points, colors[:8])
    with pytest.raises(ValueError, match="colors must be finite"):
        label_scene(model, points, np.where(colors > 0.5, np.nan, colors))
