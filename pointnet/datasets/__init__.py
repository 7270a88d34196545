"""Data sets: files and meshes in, labelled `(C, N)` clouds out. They know no model.

The names below are imported when they are first used, so that reading one file loads no data set.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointnet.points.read import PointCloud as PointCloud
    from pointnet.points.read import PointCloudFileError as PointCloudFileError
    from pointnet.points.read import read_cloud as read_cloud
    from pointnet.points.read import read_points as read_points

    from .catalog import DATASETS_OF as DATASETS_OF
    from .catalog import open_dataset as open_dataset
    from .clouds import LabelledClouds as LabelledClouds
    from .clouds import LabelledPoints as LabelledPoints
    from .clouds import pad_clouds as pad_clouds
    from .clouds import split_parts as split_parts
    from .clouds import split_validation as split_validation
    from .folder import MeshFolder as MeshFolder
    from .modelnet import ModelNet as ModelNet
    from .s3dis import S3DIS as S3DIS
    from .scanobjectnn import ScanObjectNN as ScanObjectNN
    from .shapenetpart import ShapeNetPart as ShapeNetPart
    from .shapes import Shapes as Shapes

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
__all__ = sorted(name for names in _HOMES.values() for name in names)
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
