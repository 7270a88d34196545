"""The metrics of a run for TensorBoard: the lines of `metrics.jsonl` as scalars by the epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointnet.extras import MissingExtraError
from pointnet.files import AnyPath

from .run_folder import read_metrics


def check_tensorboard() -> None:
    """Raises MissingExtraError unless TensorBoard is installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard") from error


class ScalarLog:
    """Writes each line of `metrics.jsonl` that it is called with, once the line is on disk, to `folder`/tensorboard.

    The first call of a process writes all lines of `metrics.jsonl` and removes what was there: so a resumed run has
    every epoch once, wherever it stopped. A TensorBoard that is open drops what it had read.
    """

    def __init__(self, folder: AnyPath):
        self.folder = Path(folder)
        self.writer: Any = None

    def __call__(self, line: Mapping[str, Any]) -> None:
        lines: list[Any] = [line] if self.writer else read_metrics(self.folder)
        self.writer = self.writer or self.open()
        for each in lines:
            for name, value in each.items():
                split, _, metric = name.partition("_")
                tag = f"{metric}/{split}" if split in ("train", "val") else name  # so that TensorBoard compares them
                if name not in ("epoch", "broken_samples"):
                    self.writer.add_scalar(tag, value, each["epoch"])
        self.writer.flush()

    def open(self) -> Any:
        """A writer, in a folder without earlier scalars."""
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = self.folder / "tensorboard"
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        return SummaryWriter(str(folder), purge_step=0)  # makes readers drop what they had read

    def close(self) -> None:
        if self.writer:
            self.writer.close()
