"""Training: settings, the loop, metrics, checkpoints."""

from .config import TrainConfig, parse_config
from .loop import evaluate, find_device, fit, keep_freed_memory

__all__ = ["TrainConfig", "evaluate", "find_device", "fit", "keep_freed_memory", "parse_config"]
