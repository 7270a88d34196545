"""Data sets: files and meshes in, labelled `(C, N)` clouds out. They know no model.

The names below are imported when they are first used, so that reading one file loads no data set.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointnet.points.read import PointCloud, PointCloudFileError, read_cloud, read_points

    from .catalog import DATASETS_OF, open_dataset, register_dataset
    from .clouds import LabelledClouds, LabelledPoints, split_validation
    from .folder import MeshFolder
    from .given import pad_clouds
    from .modelnet import ModelNet
    from .own_parts import PartFolder
    from .own_scenes import SceneFolder
    from .point_labels import UNLABELLED, split_parts
    from .s3dis import S3DIS
    from .scanobjectnn import ScanObjectNN
    from .shapenetpart import ShapeNetPart
    from .shapes import Shapes

__all__ = ["DATASETS_OF", "S3DIS", "MeshFolder", "ModelNet", "ScanObjectNN", "ShapeNetPart", "Shapes", "open_dataset"]
__all__ += ["UNLABELLED", "LabelledClouds", "LabelledPoints", "pad_clouds", "split_parts", "split_validation"]
__all__ += ["PartFolder", "SceneFolder", "register_dataset"]
__all__ += ["PointCloud", "PointCloudFileError", "read_cloud", "read_points"]
_HOMES = dict.fromkeys(("LabelledClouds", "LabelledPoints", "split_validation"), ".clouds")
_HOMES |= dict.fromkeys(("UNLABELLED", "split_parts"), ".point_labels")
_HOMES |= dict.fromkeys(("PointCloud", "PointCloudFileError", "read_cloud", "read_points"), "pointnet.points.read")
_HOMES["pad_clouds"] = ".given"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES.get(name, ".catalog"), __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
