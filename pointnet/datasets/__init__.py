"""Data sets: files and meshes in, labelled `(C, N)` clouds out. They know no model.

The names below are imported when they are first used, so that reading one file loads no data set.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointnet.points.read import PointCloud, PointCloudFileError, read_cloud, read_points

    from .catalog import DATASETS_OF, open_dataset
    from .clouds import LabelledClouds, LabelledPoints, pad_clouds, split_parts, split_validation
    from .folder import MeshFolder
    from .modelnet import ModelNet
    from .s3dis import S3DIS
    from .scanobjectnn import ScanObjectNN
    from .shapenetpart import ShapeNetPart
    from .shapes import Shapes

__all__ = [
    "DATASETS_OF",
    "S3DIS",
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
_HOMES = {
    "pointnet.points.read": ("PointCloud", "PointCloudFileError", "read_cloud", "read_points"),
    ".catalog": ("DATASETS_OF", "open_dataset"),
    ".clouds": ("LabelledClouds", "LabelledPoints", "pad_clouds", "split_parts", "split_validation"),
    ".folder": ("MeshFolder",),
    ".modelnet": ("ModelNet",),
    ".s3dis": ("S3DIS",),
    ".scanobjectnn": ("ScanObjectNN",),
    ".shapenetpart": ("ShapeNetPart",),
    ".shapes": ("Shapes",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
