"""Training: settings, the loop, metrics, checkpoints."""

from .config import TrainConfig, parse_config
from .loop import Stopped, evaluate, find_device, fit, keep_freed_memory

__all__ = ["Stopped", "TrainConfig", "evaluate", "find_device", "fit", "keep_freed_memory", "parse_config"]
