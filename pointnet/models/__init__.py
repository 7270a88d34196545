"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .pointnet import PointNetClassifier, PointNetEncoder, Transforms
from .zoo import MODELS, load_model

__all__ = ["MODELS", "PointNetClassifier", "PointNetEncoder", "Transforms", "load_model"]
