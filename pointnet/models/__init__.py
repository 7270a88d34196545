"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .pointnet import PointNetClassifier, PointNetEncoder, PointNetModel, Transforms, critical_points
from .zoo import MODELS, load_model

__all__ = [
    "MODELS",
    "PointNetClassifier",
    "PointNetEncoder",
    "PointNetModel",
    "Transforms",
    "critical_points",
    "load_model",
]
