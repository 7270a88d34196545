"""Time and peak memory of part and scene segmentation, textbook and ours: training step and inference.

python -m benchmarks.segmentation [--device cuda]

The textbook's networks join each point's channels with a copy of its cloud's feature. Ours compute the same functions.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.common import (
    check_equal,
    floor,
    full_precision,
    loss_of,
    machine,
    make_alike,
    parser,
    peak_memory,
    side_by_side,
    widest_product,
)  # fmt: skip
from pointnet import PointNetPartSegmenter, PointNetSegmenter
from pointnet.devices import keep_freed_memory
from pointnet.layers.folding import fold_norms
from tests.textbook import TextbookPartSegmenter, TextbookSegmenter


class Task(NamedTuple):
    """Two networks of a task and the multiply-adds of their forward passes (tests/test_segmentation.py counts them).

    Args:
        channels, classes, categories: numbers of channels per point, of labels, of object categories (0: none given).
        pooled: channels in and out of each layer that ours pools.
        point_adds, cloud_adds: ours, per point and per cloud.
        joined_point_adds, joined_cloud_adds: the textbook's, per point and per cloud.
    """

    ours: type[nn.Module]
    textbook: Callable[[], nn.Module]
    channels: int
    classes: int
    categories: int
    pooled: tuple[tuple[int, int], ...]
    point_adds: int
    cloud_adds: int
    joined_point_adds: int
    joined_cloud_adds: int

    def inputs(self, clouds: int, points: int, device: str) -> list[Tensor]:
        inputs = [torch.randn(clouds, self.channels, points), torch.randint(0, self.classes, (clouds, points))]
        inputs += [torch.arange(clouds) % self.categories] if self.categories else []
        return [part.to(device) for part in inputs]

    def step_adds(self, points: int) -> float:
        """Multiply-adds of our training step per cloud: the forward pass and twice that backward. But a pooled layer
        C -> D takes per point C D forward, half of C C for the symmetric scatter, and C C backward."""
        products = sum(c * d for c, d in self.pooled)
        pooled = products + sum(1.5 * c * c for c, _ in self.pooled)
        return points * (3 * (self.point_adds - products) + pooled) + 3 * self.cloud_adds

    def joined_step_adds(self, points: int) -> float:
        return 3 * (points * self.joined_point_adds + self.joined_cloud_adds)


TASKS = {
    "part": Task(
        PointNetPartSegmenter, partial(TextbookPartSegmenter, 50, 16), 3, 50, 16,
        ((128, 1024), (128, 1024), (512, 2048)), 1_743_488, 18_619_200, 2_321_033, 5_507_328,
    ),
    "scene": Task(
        PointNetSegmenter, partial(TextbookSegmenter, 13), 9, 13, 0,
        ((128, 1024),) * 3, 645_888, 5_245_760, 1_174_281, 2_361_600,
    ),
}  # fmt: skip


class Comparison(NamedTuple):
    """The two networks of a task with the same weights, and a batch for them."""

    name: str
    clouds: int
    points: int
    networks: dict[str, nn.Module]
    inputs: list[Tensor]

    @property
    def task(self) -> Task:
        return TASKS[self.name]

    def backward(self, network: str) -> None:
        loss_of(self.networks[network], *self.inputs).backward()

    def check(self) -> None:
        """Raises AssertionError unless loss, gradients and running statistics agree, on fewer points."""
        x, labels, *more = self.inputs
        few = (x[:4, :, :300], labels[:4, :300], *(part[:4] for part in more))
        check_equal(self.networks["ours"], self.networks["textbook"], *few)

    def steps(self) -> dict[str, Callable[[], None]]:
        """A training step of each network: forward, backward and AdamW."""
        optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in self.networks.items()}

        def step(name: str) -> None:
            optimizers[name].zero_grad()
            self.backward(name)
            optimizers[name].step()

        return {name: partial(step, name) for name in self.networks}

    def inferences(self) -> dict[str, Callable[[], Tensor]]:
        """Inference of each network and of ours folded, with the weights as they are now; checked to be equal."""
        still = {name: copy.deepcopy(network).eval() for name, network in self.networks.items()}
        still["ours, folded"] = fold_norms(still["ours"])
        x, _, *more = self.inputs

        @torch.no_grad()
        def infer(name: str) -> Tensor:
            output = still[name](x, *more)
            return output if isinstance(output, Tensor) else output[0]

        with full_precision():
            wanted = infer("textbook")
            for name in ("ours", "ours, folded"):
                torch.testing.assert_close(infer(name), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
        return {name: partial(infer, name) for name in still}


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--part", default="16x2048", help="clouds x points")
    flags.add_argument("--scene", default="8x4096", help="clouds x points")
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    device = args.device
    torch.manual_seed(0)
    comparisons = []
    for name, task in TASKS.items():
        clouds, points = map(int, getattr(args, name).split("x"))
        ours, textbook = make_alike(task.ours(), task.textbook(), device)
        networks = {"textbook": textbook, "ours": ours}
        comparisons.append(Comparison(name, clouds, points, networks, task.inputs(clouds, points, device)))

    print(f"{machine(device)}; forward and backward; memory is the peak over the resting process, one thread on a CPU")
    print("| task | batch x points | textbook MiB | ours MiB | ratio | textbook's arithmetic over ours |")
    print("|-|-|-|-|-|-|")
    for run in comparisons:  # memory first: a process that has used its threads cannot be forked
        joined, pooled = (peak_memory(partial(run.backward, network), device) for network in run.networks)
        arithmetic = run.task.joined_step_adds(run.points) / run.task.step_adds(run.points)
        size = f"{run.clouds} x {run.points:,}"
        print(
            f"| {run.name} | {size} | {joined:,.0f} | {pooled:,.0f} | {pooled / joined:.2f} | {arithmetic:.2f} |",
            flush=True,
        )

    table = []
    for run in comparisons:
        run.check()
        forward = run.points * run.task.point_adds + run.task.cloud_adds
        table.append((run, "step", run.task.step_adds(run.points), run.steps()))
        table.append((run, "inference", forward, run.inferences()))
    print("\nLoss, gradients, running statistics and logits are equal.\n")
    print("| freed memory | task | | network | ms | clouds/s | floor / time | times faster |")
    print("|-|-|-|-|-|-|-|-|")
    for phase in ("returned", "kept") if device == "cpu" else ("-",):
        if phase == "kept":
            keep_freed_memory()
        for run, what, adds, calls in table:
            seconds = side_by_side(calls | {"product": widest_product(device)}, args.rounds, device)
            least = floor(run.clouds * adds, seconds.pop("product"))
            for network, taken in seconds.items():
                print(
                    f"| {phase} | {run.name} | {what} | {network} | {taken * 1e3:,.1f} | {run.clouds / taken:,.1f} | "
                    f"{least / taken:.0%} | {seconds['textbook'] / taken:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
