"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .pointnet import PointNetClassifier, PointNetEncoder, PointNetModel, Transforms, critical_points
from .segmentation import PointNetPartSegmenter, PointNetSegmenter
from .zoo import MODELS, load_model

__all__ = [
    "MODELS",
    "PointNetClassifier",
    "PointNetEncoder",
    "PointNetModel",
    "PointNetPartSegmenter",
    "PointNetSegmenter",
    "Transforms",
    "critical_points",
    "load_model",
]
