"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .chunks import critical_points, pool_chunks
from .encoder import PointNetEncoder, PointNetModel, Transforms
from .pointnet import PointNetClassifier
from .pretrained import MODELS
from .segmentation import PointNetPartSegmenter, PointNetSegmenter
from .weights import WEIGHTS, save_config, save_weights, shipped
from .zoo import DEFAULTS, load_model

__all__ = [
    "DEFAULTS",
    "MODELS",
    "WEIGHTS",
    "PointNetClassifier",
    "PointNetEncoder",
    "PointNetModel",
    "PointNetPartSegmenter",
    "PointNetSegmenter",
    "Transforms",
    "critical_points",
    "load_model",
    "pool_chunks",
    "save_config",
    "save_weights",
    "shipped",
]
