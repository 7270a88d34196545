"""PointNet as published, built on shared MLPs: one small network applied to every point alike.

Points are (B, C, N) everywhere. Importing this package pulls in torch and numpy, nothing heavier; data sets are in
`pointnet.datasets`, training in `pointnet.training`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pointnet.layers import SharedMLP, TNet, orthogonality_loss
from pointnet.models import (
    PointNetClassifier,
    PointNetEncoder,
    PointNetPartSegmenter,
    PointNetSegmenter,
    critical_points,
    load_model,
)

if TYPE_CHECKING:
    from pointnet.inference.label import label_points
    from pointnet.inference.predict import predict

__all__ = [
    "PointNetClassifier",
    "PointNetEncoder",
    "PointNetPartSegmenter",
    "PointNetSegmenter",
    "SharedMLP",
    "TNet",
    "critical_points",
    "label_points",
    "load_model",
    "orthogonality_loss",
    "predict",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What brings the readers of files, when it is first asked for."""
    if name == "predict":
        from pointnet.inference.predict import predict

        return predict
    if name == "label_points":
        from pointnet.inference.label import label_points

        return label_points
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
