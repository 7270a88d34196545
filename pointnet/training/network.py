"""The network of a run, from the settings and the data."""

from collections.abc import Sequence
from typing import Any

import torch

from pointnet.datasets import LabelledClouds
from pointnet.evaluation.contract import Contract, contract_of_data
from pointnet.evaluation.tasks import TASKS
from pointnet.layers import synchronize_norms
from pointnet.layers.tnet import TNET_WIDTHS
from pointnet.models import MODELS, PointNetModel
from pointnet.world import World

from .settings import TrainConfig


def model_arguments(config: TrainConfig, data: LabelledClouds) -> dict[str, Any]:
    """The arguments of `MODELS[config.network]` for this data."""
    task = TASKS[config.task]
    return {
        **task.arguments(data),
        "input_transform": config.input_transform,
        "feature_transform": config.feature_transform,
        "regularization_weight": config.regularization_weight,
        "widths": [scaled(widths, config.width) for widths in task.widths],
        "head_widths": scaled(task.head_widths, config.width),
        "tnet_widths": [scaled(widths, config.tnet_width) for widths in TNET_WIDTHS],
        "dropout": config.dropout,
    }


def contract_of(config: TrainConfig, data: LabelledClouds) -> Contract:
    """The contract of the network of a run on this data."""
    categories = TASKS[config.task].categories(data)
    return contract_of_data(
        data,
        num_points=config.num_points,
        columns=config.columns,
        rotations=config.rotate,
        categories=categories,
        needs_category=bool(categories) and config.unknown_category == 0,
    )


def scaled(widths: Sequence[int], share: float) -> list[int]:
    """That share of the widths, in multiples of 8: other widths run slower than their size suggests."""
    return [max(8, 8 * round(width * share / 8)) for width in widths]


def make_model(config: TrainConfig, data: LabelledClouds, device: torch.device, world: World) -> PointNetModel:
    """An untrained network, the same on every process of the world."""
    model = synchronize_norms(MODELS[config.network](**model_arguments(config, data)).to(device))
    world.take_from_first(list(model.state_dict().values()))
    return model
