"""The metrics of a run for TensorBoard: what `metrics.jsonl` holds, as scalars by the epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointnet.extras import MissingExtraError

from .run_folder import read_metrics

TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "val_overall_accuracy": "accuracy/validation",
    "val_mean_class_accuracy": "accuracy/validation, mean over classes",
    "val_point_accuracy": "accuracy/validation, points",
    "val_instance_miou": "mIoU/validation, instances",
    "val_class_miou": "mIoU/validation, classes",
    "val_mean_class_iou": "IoU/validation, mean over classes",
    "lr": "schedule/learning rate",
    "num_points": "schedule/points a cloud",
    "seconds": "speed/seconds an epoch",
    "samples_per_second": "speed/clouds a second",
}


def check_tensorboard() -> None:
    """Raises MissingExtraError unless TensorBoard is installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard") from error


class ScalarLog:
    """Called with each line of `metrics.jsonl` once it is on disk; writes it under `folder`/tensorboard.

    The first call of a process writes all lines that `metrics.jsonl` has, in place of what was there: a run that was
    stopped, wherever that was, and resumed has every epoch once. A TensorBoard that is looking drops what it had.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        check_tensorboard()
        self.folder = Path(folder)
        self.writer: Any = None

    def __call__(self, line: Mapping[str, Any]) -> None:
        lines: list[Any] = [line] if self.writer else read_metrics(self.folder)
        self.writer = self.writer or self.open()
        for each in lines:
            for name, tag in TAGS.items():
                if name in each:
                    self.writer.add_scalar(tag, each[name], each["epoch"])
        self.writer.flush()

    def open(self) -> Any:
        """A writer, in a folder without earlier scalars."""
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = self.folder / "tensorboard"
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        return SummaryWriter(str(folder), purge_step=0)  # tells those who read to forget what they had

    def close(self) -> None:
        if self.writer:
            self.writer.close()
