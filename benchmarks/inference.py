"""Inference, textbook and ours, and a cloud of any size streamed.

python -m benchmarks.inference [--device cuda]
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.common import (
    CLOUD_ADDS,
    POINT_ADDS,
    PRODUCT_ADDS,
    machine,
    pair,
    parser,
    peak_memory,
    side_by_side,
    widest_product,
)
from pointnet import PointNetClassifier
from pointnet.devices import keep_freed_memory

CHUNK = 16_384


class RandomCloud:
    """A cloud of N points that is never whole in memory: chunks of (1, 3, CHUNK), the same on every reading."""

    def __init__(self, points: int):
        self.points = points

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.points, CHUNK):
            yield torch.randn(1, 3, min(CHUNK, self.points - start), generator=generator)


@torch.no_grad()
def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--stream", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    args = flags.parse_args()
    torch.set_num_threads(args.threads)
    device = args.device
    ours, textbook = pair(device)
    ours.eval(), textbook.eval()
    folded = ours.fold()

    def streamed(points: int) -> None:
        folded.classify_chunks(RandomCloud(points))

    # Memory before all else, in processes of their own: what an earlier call has freed would hide what this one takes.
    folded.cpu()
    took = {points: peak_memory(partial(streamed, points), first=partial(streamed, 64)) for points in args.stream}
    folded = folded.to(device)
    x = torch.randn(32, 3, 1024, device=device)
    wanted = textbook(x)[0]
    for model in (ours, folded):
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    print(f"{machine(device)}; batch 32 x 1,024 points; logits equal")

    stream(folded.cpu(), took)
    folded = folded.to(device)
    print("\n| memory freed is | network | ms | clouds/s | of the arithmetic floor | times faster |")
    print("|-|-|-|-|-|-|")
    for phase in ("as it is", "kept") if device == "cpu" else ("-",):
        if phase == "kept":
            keep_freed_memory()
        calls = {"textbook": lambda: textbook(x), "ours": lambda: ours(x), "ours, folded": lambda: folded(x)}
        seconds = side_by_side(calls | {"product": widest_product(device)}, args.rounds, device)
        floor = 32 * (POINT_ADDS * 1024 + CLOUD_ADDS) / PRODUCT_ADDS * seconds.pop("product")
        for name, taken in seconds.items():
            print(
                f"| {phase} | {name} | {taken * 1e3:.1f} | {32 / taken:,.0f} | {floor / taken:.0%} | "
                f"{seconds['textbook'] / taken:.1f} |"
            )


def stream(model: PointNetClassifier, took: dict[int, float]) -> None:
    print("| points streamed | s | points/s | MiB over the resting process, one thread |")
    print("|-|-|-|-|")
    short = RandomCloud(3 * CHUNK)
    whole = model(torch.cat(list(short), 2))
    torch.testing.assert_close(model.classify_chunks(short), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())
    for points, memory in took.items():
        start = time.perf_counter()
        model.classify_chunks(RandomCloud(points))
        taken = time.perf_counter() - start
        print(f"| {points:,} | {taken:.2f} | {points / taken:,.0f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
