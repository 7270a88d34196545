"""Data sets: files and meshes in, labelled `(C, N)` clouds out. They know no model."""

from .catalog import DATASETS, open_dataset
from .clouds import LabelledClouds, pad_clouds, split_validation
from .modelnet import ModelNet
from .readers import PointCloudFileError
from .shapes import Shapes

__all__ = [
    "DATASETS",
    "LabelledClouds",
    "ModelNet",
    "PointCloudFileError",
    "Shapes",
    "open_dataset",
    "pad_clouds",
    "split_validation",
]
