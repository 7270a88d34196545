"""Data sets: files and meshes in, labelled `(C, N)` clouds out. They know no model."""

from .catalog import DATASETS, open_dataset
from .clouds import LabelledClouds, pad_clouds, split_validation
from .folder import MeshFolder
from .modelnet import ModelNet
from .readers import PointCloud, PointCloudFileError, read_cloud, read_points
from .scanobjectnn import ScanObjectNN
from .shapes import Shapes

__all__ = [
    "DATASETS",
    "LabelledClouds",
    "MeshFolder",
    "ModelNet",
    "PointCloud",
    "PointCloudFileError",
    "ScanObjectNN",
    "Shapes",
    "open_dataset",
    "pad_clouds",
    "read_cloud",
    "read_points",
    "split_validation",
]
