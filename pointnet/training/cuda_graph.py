"""A function of tensors on a GPU, recorded as a CUDA graph for each size of its inputs and replayed from then on."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

WARM_UP = 3  # calls on a side stream before recording, as CUDA graphs ask for
Outputs = tuple[Tensor, ...]


class Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: Outputs
    gradients: list[Tensor | None]


class GraphedGradients:
    """Calls `function(*given, **named)`, which leaves gradients in `parameters`; later calls replay it as one launch.

    A step of PointNet is hundreds of kernels of a few microseconds: launching them takes several times as long as
    running them. What a call returns holds until the next call.

    Args:
        function: starts from gradients of None, never waits for the device, and depends on nothing but its inputs, the
            parameters and buffers, and the device's own random numbers.
    """

    def __init__(self, function: Callable[..., Outputs], parameters: Sequence[nn.Parameter]):
        self.function, self.parameters = function, parameters
        self.calls: dict[tuple[torch.Size, ...], int] = {}
        self.recordings: dict[tuple[torch.Size, ...], Recording] = {}
        self.side = torch.cuda.Stream()

    def __call__(self, *given: Tensor, **named: Tensor) -> Outputs:
        inputs = *given, *named.values()
        size = tuple(each.shape for each in inputs)
        self.calls[size] = self.calls.get(size, 0) + 1
        if self.calls[size] <= WARM_UP:
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                outputs = self.function(*given, **named)
            torch.cuda.current_stream().wait_stream(self.side)
            return outputs
        if size not in self.recordings:
            self.recordings[size] = self.record(given, named)
        recording = self.recordings[size]
        for kept, each in zip(recording.inputs, inputs, strict=True):
            kept.copy_(each)
        recording.graph.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.outputs

    def record(self, given: Outputs, named: Mapping[str, Tensor]) -> Recording:
        kept, by_name = tuple(each.clone() for each in given), {name: each.clone() for name, each in named.items()}
        graph = torch.cuda.CUDAGraph()
        # Meanwhile the thread that pins streamed batches may ask the device for what this one may not.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self.function(*kept, **by_name)
        inputs, gradients = (*kept, *by_name.values()), [parameter.grad for parameter in self.parameters]
        return Recording(graph, inputs, outputs, gradients)
