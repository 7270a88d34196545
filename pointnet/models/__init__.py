"""Networks, `(B, C, N)` clouds in. They know no data set."""

from .chunks import critical_points, pool_chunks
from .encoder import PointNetEncoder, PointNetModel, Transforms
from .pointnet import PointNetClassifier
from .pretrained import DEFAULTS, MODELS, load_model
from .segmentation import PointNetPartSegmenter, PointNetSegmenter
from .weights import WEIGHTS, save_config, save_weights, shipped

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
