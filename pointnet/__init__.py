"""PointNet as published, built on shared MLPs: one small network applied to every point alike.

Points are (B, C, N) everywhere. Data sets are in `pointnet.datasets`, training is in `pointnet.training`.

The names below are imported when they are first used. So `import pointnet` costs nothing, and `python -m pointnet` can
set how threads wait before PyTorch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.embed import embed
    from .inference.label import label_points
    from .inference.predict import predict
    from .layers import SharedMLP, TNet, orthogonality_loss
    from .models.chunks import critical_points
    from .models.dgcnn import DGCNNClassifier, DGCNNPartSegmenter
    from .models.edgenet import EdgeNetClassifier
    from .models.encoder import PointNetEncoder
    from .models.pointnet import PointNetClassifier
    from .models.pointnet2 import PointNet2Classifier
    from .models.pointnet2_segmentation import PointNet2PartSegmenter, PointNet2Segmenter
    from .models.pointnext import PointNextClassifier
    from .models.segmentation import PointNetPartSegmenter, PointNetSegmenter
    from .models.zoo import load_model

__version__ = "0.1.0"
__all__ = ["PointNetClassifier", "PointNetEncoder", "PointNetPartSegmenter", "PointNetSegmenter", "SharedMLP", "TNet"]
__all__ += ["DGCNNClassifier", "DGCNNPartSegmenter", "EdgeNetClassifier"]
__all__ += ["PointNet2Classifier", "PointNet2PartSegmenter", "PointNet2Segmenter", "PointNextClassifier"]
__all__ += ["critical_points", "embed", "label_points", "load_model", "orthogonality_loss", "predict"]
_HOMES = {"embed": "inference.embed", "label_points": "inference.label", "predict": "inference.predict"}
_HOMES |= dict.fromkeys(("SharedMLP", "TNet", "orthogonality_loss"), "layers")  # the others are of models


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'models')}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
