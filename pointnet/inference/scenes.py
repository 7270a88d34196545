"""Scenes of any size: the label of a point is the mean over all blocks that hold it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pointnet.datasets.blocks import (
    CHANNEL_NAMES,
    CHANNELS,
    POINTS,
    Cells,
    block_channels,
    check_extent,
    frame_of_scene,
)
from pointnet.datasets.given import pad_clouds
from pointnet.evaluation.contract import Contract
from pointnet.models import SceneSegmenter
from pointnet.points.features import features_of
from pointnet.points.frame import bounds
from pointnet.points.read import PointCloud, Rows

BATCH = 8 * POINTS  # points that go through the network at once

Array = NDArray[Any]
Sample = tuple[NDArray[np.int64], NDArray[np.float32]]  # places of n points in the order of cells; (n, C)


class LabelledScene(NamedTuple):
    """The label of each of N points, an index into `model.classes`, and its probability, the mean over blocks."""

    labels: NDArray[np.int64]
    probability: NDArray[np.float32]


@torch.no_grad()
def label_scene(
    model: SceneSegmenter, points: NDArray[np.floating] | Rows, colors: NDArray[np.floating] | Rows, seed: int = 0
) -> LabelledScene:
    """The labels of all points of a scene, any number N of them, by a network of S3DIS's channels: `label_blocks`.

    Args:
        points: (N, 3), xyz in metres, z up, with any origin; an array or `Rows`.
        colors: (N, 3), red, green and blue in [0, 1]; an array or `Rows`.
        seed: of the division of blocks.

    Raises:
        ValueError: a network for other channels, points or colours that are not as above, or a scene wider than a
            kilometre.
    """
    if (channels := model.arguments["in_channels"]) != CHANNELS:
        raise ValueError(f"scenes need a network of {CHANNELS} channels (xyz, rgb, xyz as shares), got {channels}")
    for name, array in (("points", points), ("colors", colors)):
        if array.ndim != 2 or array.shape != (len(points), 3) or not len(array):
            raise ValueError(f"{name} must be ({len(points)}, 3) with at least one, got {array.shape}")
        if not np.isfinite(bounds(array)).all():
            raise ValueError(f"{name} must be finite, got a number that is not")
    arrays: Any = points, None, colors, None
    return label_blocks(model, PointCloud(*arrays), seed)


@torch.no_grad()
def label_blocks(model: SceneSegmenter, cloud: PointCloud, seed: int = 0) -> LabelledScene:
    """The labels of all points of a cloud of any size, z up, whose points and features may be `Rows`.

    The scene is cut as in training, into blocks of the contract's side, one every half side, so that up to four blocks
    hold a point. Each block votes for the labels of its points; the probabilities are averaged. A block of more points
    than in training is divided at random into as few samples as possible. Votes are held for two rows of cells only.
    Beside the cloud and the result it takes 4 bytes per point.

    Raises:
        ValueError: the network takes no blocks; or the cloud lacks a channel that it takes, or is wider than a
            thousand blocks.
    """
    contract, points = Contract.of(model), cloud.points
    if not contract.in_blocks:
        channels = ", ".join(contract.channels)
        raise ValueError(
            f"scenes need a network that was trained on blocks of scenes, got one of {channels}, {contract.scale}"
        )
    features = features_of(cloud, contract.features, contract.intensity, ", which the model was trained with")
    shares = contract.channels == CHANNEL_NAMES
    low, extent = frame_of_scene(points, contract.block, shares)
    width, depth, _ = extent
    hint = "is it in metres?" if shares else "is it in the unit of the training set?"
    check_extent(points, extent, contract.block, hint)
    moved = Rows(points, lambda rows: (rows - low).astype(np.float32))
    # Rows of cells run along y. They are short, and so are the votes, if the longer side is x.
    cells = Cells.of(moved if width >= depth else Rows(moved, lambda rows: rows[:, [1, 0, 2]]), contract.block)
    network = model.fold()

    def channels_of(rows: NDArray[np.integer]) -> NDArray[np.float32]:
        return block_channels(moved[rows], features(rows), extent, contract.block, shares)

    labels, probability = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    votes = np.zeros((0, model.num_outputs + 1), np.float32)  # the sum of probabilities, and the number of blocks
    for i in range(cells.across):
        first, done, end = cells.row(i), cells.row(i + 1), cells.row(i + 2)
        votes = np.concatenate([votes, np.zeros((end - first - len(votes), votes.shape[1]), np.float32)])
        samples = _samples(channels_of, cells, i, contract.num_points, seed)
        for at, probabilities in _scores(network, _batches(samples), contract.temperature):
            votes[at - first, :-1] += probabilities
            votes[at - first, -1] += 1
        if i == cells.across - 1:
            done = end
        rows, final, votes = cells.order[first:done], votes[: done - first], votes[done - first :]
        labels[rows] = final[:, :-1].argmax(1)
        probability[rows] = final[:, :-1].max(1) / final[:, -1]
    return LabelledScene(labels, probability)


def _samples(
    channels_of: Callable[[Array], NDArray[np.float32]], cells: Cells, i: int, most: int, seed: int
) -> Iterator[Sample]:
    """The blocks of row i, each divided into samples of at most `most` points."""
    for j in range(cells.along):
        at = np.concatenate([np.arange(part.start, part.stop) for part in cells.block(i, j)])
        if len(at):
            channels = channels_of(cells.order[at])
            shuffled = np.random.default_rng([seed, i, j]).permutation(len(at))
            for sample in np.array_split(shuffled, -(-len(at) // most)):
                yield at[sample], channels[sample]


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Batches of at most `BATCH` points, padding included."""
    batch: list[Sample] = []
    for sample in samples:
        longest = max(len(at) for at, _ in (*batch, sample))
        if batch and _padded(longest) * (len(batch) + 1) > BATCH:
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _scores(network: SceneSegmenter, batches: Iterable[list[Sample]], temperature: float) -> Iterator[Sample]:
    """The places of each sample, and the probabilities (n, classes) of its points."""
    weight = next(network.parameters())
    for batch in batches:
        x, lengths = pad_clouds([torch.from_numpy(channels.T) for _, channels in batch])
        x = functional.pad(x, (0, _padded(x.shape[2]) - x.shape[2]))
        logits = network(x.to(weight), lengths=lengths.to(weight.device)).float()
        probabilities = (logits / temperature).softmax(1).cpu().numpy()
        yield from ((at, row[:, : len(at)].T) for (at, _), row in zip(batch, probabilities, strict=True))


def _padded(count: int) -> int:
    """The next power of two: on a CPU each new shape costs time, and memory that is never returned."""
    return 1 << (count - 1).bit_length()
