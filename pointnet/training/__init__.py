"""Training: settings, the loop, checkpoints."""

from pointnet.devices import find_device, keep_freed_memory
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.tasks import register_model

from .fit import fit
from .settings import TrainConfig
from .stopping import Stopped

__all__ = ["Stopped", "TrainConfig", "evaluate", "find_device", "fit", "keep_freed_memory"]
__all__ += ["register_model"]
