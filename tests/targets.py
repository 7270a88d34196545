"""Compiles the kernels for GPUs that need not be there, as their launchers ask for it: a line of JSON for each.

python -m tests.targets
"""

import json
from collections.abc import Iterator

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from pointnet.ops.triton import edges, mlp, pooled, sampling

TARGETS = {80: torch.float32, 90: torch.bfloat16}  # by compute capability, what is compiled for it


class Absent:
    """Stands for the driver of a GPU."""

    def __init__(self, capability: int):
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def launches(dtype: torch.dtype) -> Iterator[None]:
    """Every launch, with the shapes of a published PointNet."""
    x = torch.zeros(2, 3, 1024, dtype=dtype)
    weights = [torch.zeros(d, c, dtype=dtype) for c, d in ((3, 64), (64, 64), (64, 64), (64, 128), (128, 1024))]
    biases = [torch.zeros(len(weight), dtype=dtype) for weight in weights]
    yield mlp.mlp_max(x, [torch.zeros(2, 64, 3, dtype=dtype), *weights[1:]], biases, None, True, False)
    features, mask = torch.zeros(2, 128, 1024, dtype=dtype), torch.ones(2, 1, 1024, dtype=torch.bool)
    yield pooled.extremes(features, weights[-1].float(), mask, True)
    table, neighbours = torch.zeros(2, 64, 1024), torch.zeros(2, 1024, 20, dtype=torch.int64)
    found = edges.edge_extremes(table, neighbours, torch.ones(64), True, True)
    yield edges.edge_extremes_backward(found[0], table, neighbours, found[1])
    mean, squares, *more = edges.edge_moments(table, table, neighbours, mask)
    yield edges.edge_moments_backward(mean, squares, table, table, neighbours, mask, *more)
    yield sampling.lowest(table, 20)
    lengths = torch.ones(2, dtype=torch.int64)
    yield sampling.farthest_point_sampling(torch.zeros(2, 3, 1024), 512, lengths, lengths)


def main() -> None:
    run = JITFunction.run

    def compile_only(kernel, *given, grid, warmup, **options):
        made = run(kernel, *given, grid=grid, warmup=True, **options)
        facts = {
            "module": kernel.__module__.rpartition(".")[2],
            "kernel": kernel.__name__,
            "shared": made.metadata.shared,
            "target": made.metadata.target.arch,
        }
        print(json.dumps(facts), flush=True)

    JITFunction.run = compile_only
    pooled.values_at = lambda winners, x, weight: weight.new_zeros(winners.shape)  # nothing ran, so there are none
    for capability, dtype in TARGETS.items():
        driver.set_active(Absent(capability))
        for _ in launches(dtype):
            pass


if __name__ == "__main__":
    main()
