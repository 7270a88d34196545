"""Clouds on which an exported network is compared with the library, and what the library answers for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.datasets.blocks import CHANNEL_NAMES, block_channels, frame_of_scene
from pointnet.datasets.clouds import UNIT_SPHERE
from pointnet.datasets.shape_classes import make_shape
from pointnet.datasets.shapes import shape_generator
from pointnet.evaluation.contract import XYZ, Contract
from pointnet.evaluation.tasks import task_of
from pointnet.models import PartLabels, PointNetModel, SceneSegmenter
from pointnet.points.features import channel_names, features_of
from pointnet.points.formats.names import COLUMNS
from pointnet.points.in_memory import cloud_of
from pointnet.points.sampling import KEPT, between_corners, draw_on_surface, normals_of_faces

from .label import label_points
from .predict import Prediction, predict
from .scenes import label_blocks

SOLIDS = ("chair", "bottle", "lamp", "table", "cup", "sofa", "vase", "stool")  # of `datasets.shape_classes`
POINTS = 512  # of an object or a scene whose points are labelled
WIDTH = 0.9  # blocks, of a scene that is one block


class Case(NamedTuple):
    """What a network is given, and for some what the library answers.

    Args:
        inputs: points (B, C, N), and of networks for parts category (B,).
        labels, probability: of one cloud or of its points: (1,) or (1, N).
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None
    probability: Tensor | None = None


def kinds_of(model: PointNetModel) -> list[tuple[str, int]]:
    """The solid and the category (-1: not known) of each case; none if no cloud can have the model's channels."""
    contract = Contract.of(model)
    if isinstance(model, SceneSegmenter):
        return [(name, -1) for name in SOLIDS[:2] if contract.in_blocks]
    if not {name for group in COLUMNS.values() for name in group}.issuperset(contract.channels):
        return []
    if not isinstance(model, PartLabels):
        return [(name, -1) for name in SOLIDS]
    categories = [*range(len(contract.categories)), *([] if contract.needs_category else [-1])]
    return [(SOLIDS[i % len(SOLIDS)], category) for i, category in enumerate(categories)]


def cases_of(model: PointNetModel) -> Iterator[Case]:
    """Each of `kinds_of`, with the answer of `predict`, `label_points` or `label_blocks`."""
    contract = Contract.of(model)
    for name, category in kinds_of(model):
        if isinstance(model, SceneSegmenter):
            yield _scene(model, contract, name)
        elif isinstance(model, PartLabels):
            rows = _rows(name, contract.channels, POINTS)
            known = None if category < 0 else contract.categories[category]
            x = contract.channels_of(cloud_of(rows, precise=True, columns=contract.channels))(slice(None))
            yield _case(x, label_points(rows, model, known, num_points=POINTS), torch.tensor([category]))
        elif task_of(model).name == "classification":
            size = max(contract.num_points, KEPT)
            rows = _rows(name, contract.channels, size)
            drawing: Any = {"num_points": size, "repeat": True, "normalize": contract.scale == UNIT_SPHERE}
            cloud, answer = (
                cloud_of(rows, columns=contract.channels, **drawing),
                cast(Prediction, predict(rows, cast(Any, model))),
            )
            x = contract.channels_of(cloud)(slice(contract.num_points))
            label, probability = model.classes.index(answer.class_name), answer.probability
            yield Case((torch.from_numpy(x)[None],), torch.tensor([label]), torch.tensor([probability]))


def _case(channels: NDArray[np.float32], answer: Any, *category: Tensor) -> Case:
    labels, probability = torch.from_numpy(answer.labels), torch.from_numpy(answer.probability)
    return Case((torch.from_numpy(channels)[None], *category), labels[None], probability[None])


def _scene(model: SceneSegmenter, contract: Contract, name: str) -> Case:
    """A solid in the space of one block, as a scene."""
    columns = channel_names(contract.features)
    rows = _rows(name, columns, min(POINTS, contract.num_points))  # of more, a block is divided
    rows[:, :3] *= WIDTH * contract.block / np.ptp(rows[:, :3], axis=0).max()
    cloud = cloud_of(rows, precise=True, columns=columns)
    shares = contract.channels == CHANNEL_NAMES
    low, extent = frame_of_scene(cloud.points, contract.block, shares)
    moved = (cloud.points - low).astype(np.float32)
    features = features_of(cloud, contract.features, contract.intensity)(slice(None))
    x = block_channels(moved, features, extent, contract.block, shares).T
    return _case(np.ascontiguousarray(x), label_blocks(model, cloud))


def _rows(name: str, channels: tuple[str, ...], count: int) -> NDArray[np.float64]:
    """Points drawn from a solid off the origin, with these channels: (count, C)."""
    generator = shape_generator("export", name, 0)
    mesh, _ = make_shape(name, generator)
    face, weights = draw_on_surface(mesh.vertices, mesh.faces, count, generator)
    points = 2 * between_corners(mesh.vertices, mesh.faces[face], weights, np.float64) + (3, -2, 5)
    normals = normals_of_faces(mesh.vertices, mesh.faces[face])
    known = dict(zip((*XYZ, *COLUMNS["normals"]), (*points.T, *normals.T), strict=True))
    return np.stack([known[name] if name in known else generator.random(count) for name in channels], 1)
