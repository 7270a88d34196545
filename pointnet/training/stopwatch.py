"""Where the time of an epoch goes, measured without waiting for the device."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Seconds by name. On a GPU events in its queue measure them, so that only `stop` waits for the device."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.laps: list[tuple[str, float | torch.cuda.Event]] = []

    def start(self) -> None:
        self.lap("")

    def lap(self, name: str) -> None:
        """The time since the last lap belongs to `name`."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.laps.append((name, event))
        else:
            self.laps.append((name, time.perf_counter()))

    def stop(self) -> dict[str, float]:
        """Seconds by name, since the start."""
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, before), (name, now) in zip(self.laps, self.laps[1:], strict=False):
            if isinstance(now, float) and isinstance(before, float):
                passed = now - before
            else:
                passed = before.elapsed_time(now) / 1000  # type: ignore[union-attr, arg-type]
            seconds[name] = seconds.get(name, 0.0) + passed
        self.laps = []
        return seconds
