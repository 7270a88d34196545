"""Forward and backward as one CUDA graph: recorded once for each size of batch, then replayed without launching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Outputs = tuple[Tensor, ...]
WARM_UP = 3  # steps on a side stream before recording, as CUDA graphs ask for


class Graph(Protocol):
    def replay(self) -> None: ...


@dataclass
class _Recording:
    graph: Graph
    inputs: tuple[Tensor, ...]
    outputs: Outputs
    gradients: list[Tensor | None]


def record_on_gpu(function: Callable[[], Outputs]) -> tuple[Graph, Outputs]:
    """What `function` launches, without running it, and the tensors that each replay fills."""
    graph = torch.cuda.CUDAGraph()
    # Meanwhile the thread that pins streamed batches may ask the device for what this one may not.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function()
    return graph, outputs


class CapturedGradients:
    """Calls `function(*inputs)`, which leaves gradients in `parameters`: for real at first, as a replay from then on.

    Inputs of a new size are taken for real again. What a call returns holds until the next.

    Args:
        function: fills the gradients from None, never waits for the device, and depends on its inputs alone besides
            the parameters, buffers and the device's own generator.
        record: how to record it.
    """

    def __init__(
        self,
        function: Callable[..., Outputs],
        parameters: Sequence[nn.Parameter],
        record: Callable[[Callable[[], Outputs]], tuple[Graph, Outputs]] = record_on_gpu,
    ):
        self.function, self.parameters, self.record = function, parameters, record
        self.taken: dict[Any, int] = {}
        self.recordings: dict[Any, _Recording] = {}
        self.aside: torch.cuda.Stream | None = None

    def __call__(self, *inputs: Tensor) -> Outputs:
        size = tuple(each.shape for each in inputs)
        if size not in self.recordings:
            self.taken[size] = self.taken.get(size, 0) + 1
            if self.taken[size] <= WARM_UP:
                return self._for_real(inputs)
            self.recordings[size] = self._recorded(inputs)
        recording = self.recordings[size]
        for kept, given in zip(recording.inputs, inputs, strict=True):
            kept.copy_(given)
        recording.graph.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.outputs

    def _for_real(self, inputs: tuple[Tensor, ...]) -> Outputs:
        if not inputs[0].is_cuda:
            return self.function(*inputs)
        aside = self.aside = self.aside or torch.cuda.Stream()  # one for all: memory is kept for each stream apart
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            outputs = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        return outputs

    def _recorded(self, inputs: tuple[Tensor, ...]) -> _Recording:
        kept = tuple(each.clone() for each in inputs)
        for parameter in self.parameters:
            parameter.grad = None
        graph, outputs = self.record(lambda: self.function(*kept))
        return _Recording(graph, kept, outputs, [parameter.grad for parameter in self.parameters])
