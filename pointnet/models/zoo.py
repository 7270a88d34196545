"""Trained models by name."""

from typing import Any, TypeVar, overload

from torch import nn

from pointnet.files import AnyPath

from .encoder import PointNetModel
from .pointnet2_segmentation import PointNet2Segmenter
from .pretrained import load_folder
from .segmentation import PointNetSegmenter

M = TypeVar("M", bound=nn.Module)

SceneSegmenter = PointNetSegmenter | PointNet2Segmenter  # networks that see the blocks of a scene

# The shipped weights that predict where no model is named, by task.
DEFAULTS = {"classification": "pointnet_modelnet40_upright", "part": "pointnet_shapes_part"}


@overload
def load_model(path: AnyPath, num_classes: int | None = None) -> PointNetModel: ...
@overload
def load_model(path: AnyPath, num_classes: int | None = None, *, model: M | None) -> M: ...
def load_model(path: AnyPath, num_classes: int | None = None, model: nn.Module | None = None) -> Any:
    """The model of a run folder, or of shipped weights by their name; in eval mode, in float32, on the CPU.

    It has `.classes`, a tuple of names in the order of its logits, and `.preprocessing`, what it expects of points.

    Args:
        num_classes: replace the last layer by an untrained one for this many classes (or parts), initialised from
            torch's global random numbers as in any new network; `.classes` is empty until you set it.
        model: a network of your own that `fit(model=...)` trained: it gets the weights, `.classes` and `.preprocessing`
            in place, and is returned in eval mode.

    Raises:
        ValueError: the folder holds no model, or a file of it is damaged; the message names the file. A `num_classes`
            below 1, or of a network without a last layer `logits`.
    """
    return load_folder(path, num_classes=num_classes, own=model)
