"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from .clouds import LabelledClouds
from .modelnet import ModelNet
from .shapes import Shapes

# Each takes root, split and num_points.
DATASETS: dict[str, Callable[..., LabelledClouds]] = {
    "shapes": Shapes,
    "modelnet40": partial(ModelNet, num_classes=40),
    "modelnet10": partial(ModelNet, num_classes=10),
}


def open_dataset(name: str, root: str | os.PathLike[str], split: str, num_points: int) -> LabelledClouds:
    """One split of a data set in `DATASETS`."""
    return DATASETS[name](root=root, split=split, num_points=num_points)
