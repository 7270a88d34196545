"""PointNet as published, built on shared MLPs: one small network applied to every point alike.

Points are (B, C, N) everywhere. Importing this package pulls in torch and numpy, nothing heavier; data sets are in
`pointnet.datasets`, training in `pointnet.training`.
"""

from .layers import SharedMLP, TNet, orthogonality_loss
from .models import (
    PointNetClassifier,
    PointNetEncoder,
    PointNetPartSegmenter,
    PointNetSegmenter,
    critical_points,
    load_model,
)

__all__ = [
    "PointNetClassifier",
    "PointNetEncoder",
    "PointNetPartSegmenter",
    "PointNetSegmenter",
    "SharedMLP",
    "TNet",
    "critical_points",
    "load_model",
    "orthogonality_loss",
]
__version__ = "0.1.0"
