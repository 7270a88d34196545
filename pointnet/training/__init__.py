"""Training: settings, the loop, metrics, checkpoints."""

from .config import TrainConfig, parse_config
from .loop import evaluate, fit

__all__ = ["TrainConfig", "evaluate", "fit", "parse_config"]
