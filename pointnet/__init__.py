"""PointNet as published, built on shared MLPs: one small network applied to every point alike.

Points are (B, C, N) everywhere. Data sets are in `pointnet.datasets`, training is in `pointnet.training`.

The names below are imported when they are first used. So `import pointnet` costs nothing, and `python -m pointnet` can
set how threads wait before PyTorch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.label import label_points as label_points
    from .inference.predict import predict as predict
    from .layers import SharedMLP as SharedMLP
    from .layers import TNet as TNet
    from .layers import orthogonality_loss as orthogonality_loss
    from .models import PointNetClassifier as PointNetClassifier
    from .models import PointNetEncoder as PointNetEncoder
    from .models import PointNetPartSegmenter as PointNetPartSegmenter
    from .models import PointNetSegmenter as PointNetSegmenter
    from .models import critical_points as critical_points
    from .models import load_model as load_model

__version__ = "0.1.0"

_HOMES = {
    "PointNetClassifier": "models",
    "PointNetEncoder": "models",
    "PointNetPartSegmenter": "models",
    "PointNetSegmenter": "models",
    "SharedMLP": "layers",
    "TNet": "layers",
    "critical_points": "models",
    "label_points": "inference.label",
    "load_model": "models",
    "orthogonality_loss": "layers",
    "predict": "inference.predict",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
