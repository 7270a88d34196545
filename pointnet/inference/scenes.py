"""Scenes of any size: each point labelled by the mean of what all blocks that hold it say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.datasets.s3dis import CHANNELS, POINTS, WIDEST, Cells, block_channels
from pointnet.models import PointNetSegmenter

BATCH = 8 * POINTS  # points that go through the network at once


class LabelledScene(NamedTuple):
    """For each of N points its label, an index into `model.classes`, and how probable the blocks find it, together."""

    labels: NDArray[np.int64]
    probability: NDArray[np.float32]


@torch.no_grad()
def label_scene(
    model: PointNetSegmenter,
    points: NDArray[np.floating],
    colors: NDArray[np.floating],
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> LabelledScene:
    """Labels every point of a scene, N points of any number.

    The scene is cut as training was: blocks of a metre by a metre, one every half metre, so that a point is in up to
    four. What the network says of it in each is a vote; probabilities are averaged. A block of more points than the
    network was trained with is dealt out at random in so many parts. Row of blocks follows on row, so that beside the
    points and their labels there are never more votes than two rows of cells have points, and no more memory is taken
    for a longer scene.

    Args:
        points: (N, 3), xyz in metres, z up, wherever the origin is.
        colors: (N, 3), red, green and blue in [0, 1].
        seed: of the dealing out.

    Raises:
        ValueError: a network for other channels, points or colours that are not as above, or more than a kilometre.
    """
    check_is_for_scenes(model)
    for name, array in (("points", points), ("colors", colors)):
        if array.ndim != 2 or array.shape != (len(points), 3) or not len(array):
            raise ValueError(f"{name} must be ({len(points)}, 3) with at least one, got {array.shape}")
        if not np.isfinite(array.sum(dtype=np.float64)):
            raise ValueError(f"{name} must be finite, got a number that is not")
    most = int(model.preprocessing.get("num_points", POINTS))
    network = model.fold().to(device)
    dtype = next(network.parameters()).dtype
    points = (points - points.min(0)).astype(np.float32)
    extent = points.max(0)
    if extent.max() > WIDEST:
        raise ValueError(f"must be a scene in metres, at most {WIDEST:,} of them, got {extent.max():,.0f}")
    # Rows go along the longer side: they are short, and so are the votes that are held.
    turned = points if extent[0] >= extent[1] else points[:, [1, 0, 2]]
    cells = Cells.of(turned)
    labels, probability = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    votes = np.zeros((0, model.num_outputs + 1), np.float32)  # of each class, and how many
    for i in range(cells.across):
        first, done, end = cells.row(i), cells.row(i + 1), cells.row(i + 2)
        votes = np.concatenate([votes, np.zeros((end - first - len(votes), votes.shape[1]), np.float32)])
        for batch in _batches(_parts(cells, i, points, colors, extent, most, seed)):
            x = torch.zeros(len(batch), CHANNELS, _padded(max(len(at) for at, _ in batch)))
            for row, (at, channels) in zip(x, batch, strict=True):
                row[:, : len(at)] = torch.from_numpy(channels.T)
            lengths = torch.tensor([len(at) for at, _ in batch], device=device)
            said = network(x.to(device, dtype), lengths=lengths).softmax(1).float().cpu().numpy()
            for (at, _), shares in zip(batch, said, strict=True):
                votes[at - first, :-1] += shares[:, : len(at)].T
                votes[at - first, -1] += 1
        if i == cells.across - 1:
            done = end
        rows, final, votes = cells.order[first:done], votes[: done - first], votes[done - first :]
        labels[rows] = final[:, :-1].argmax(1)
        probability[rows] = final[:, :-1].max(1) / final[:, -1]
    return LabelledScene(labels, probability)


def check_is_for_scenes(model: PointNetSegmenter) -> None:
    """Raises ValueError unless a network takes the channels of scenes."""
    channels = model.encoder.mlp1.widths[0]
    if channels != CHANNELS:
        raise ValueError(f"scenes need a network of {CHANNELS} channels (xyz, rgb, xyz as shares), got {channels}")


Part = tuple[NDArray[np.int64], NDArray[np.float32]]  # where in the order of cells its points are, and their channels


def _parts(
    cells: Cells,
    i: int,
    points: NDArray[np.float32],
    colors: NDArray[np.floating],
    extent: NDArray[np.float32],
    most: int,
    seed: int,
) -> Iterator[Part]:
    """The blocks of a row, in parts of at most so many points."""
    for j in range(cells.along):
        at = np.concatenate([np.arange(part.start, part.stop) for part in cells.block(i, j)])
        if len(at):
            rows = cells.order[at]
            channels = block_channels(points[rows], colors[rows].astype(np.float32), extent)
            dealt = np.random.default_rng([seed, i, j]).permutation(len(at))
            for part in np.array_split(dealt, -(-len(at) // most)):
                yield at[part], channels[part]


def _padded(count: int) -> int:
    """The power of two from there on: on a CPU each new shape costs time, and memory that is not given back."""
    return 1 << (count - 1).bit_length()


def _batches(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """As many at once as take `BATCH` points when all are padded alike."""
    batch: list[Part] = []
    for part in parts:
        longest = max(len(at) for at, _ in (*batch, part))
        if batch and _padded(longest) * (len(batch) + 1) > BATCH:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch
