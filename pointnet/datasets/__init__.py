"""Data sets: files and meshes in, labelled `(C, N)` clouds out. They know no model."""

from pointnet.points.read import PointCloud, PointCloudFileError, read_cloud, read_points

from .catalog import DATASETS, TASKS, open_dataset
from .clouds import LabelledClouds, LabelledPoints, pad_clouds, split_parts, split_validation
from .folder import MeshFolder
from .modelnet import ModelNet
from .s3dis import S3DIS
from .scanobjectnn import ScanObjectNN
from .shapenetpart import ShapeNetPart
from .shapes import Shapes

__all__ = [
    "DATASETS",
    "S3DIS",
    "TASKS",
    "LabelledClouds",
    "LabelledPoints",
    "MeshFolder",
    "ModelNet",
    "PointCloud",
    "PointCloudFileError",
    "ScanObjectNN",
    "ShapeNetPart",
    "Shapes",
    "open_dataset",
    "pad_clouds",
    "read_cloud",
    "read_points",
    "split_parts",
    "split_validation",
]
