"""Time of inference, textbook and ours; time and memory of one cloud of any size, streamed in chunks.

python -m benchmarks.inference [--device cuda]
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.common import (
    CLOUD_ADDS,
    POINT_ADDS,
    floor,
    full_precision,
    machine,
    pair,
    parser,
    peak_memory,
    precisions,
    side_by_side,
    widest_product,
)
from pointnet import PointNetClassifier
from pointnet.devices import autocast, keep_freed_memory

CHUNK = 16_384


class RandomCloud:
    """Chunks (1, 3, CHUNK) of a random cloud that is never whole in memory; every iteration yields the same."""

    def __init__(self, points: int):
        self.points = points

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.points, CHUNK):
            yield torch.randn(1, 3, min(CHUNK, self.points - start), generator=generator)


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--batch_size", type=int, default=32)
    flags.add_argument("--num_points", type=int, default=1024)
    flags.add_argument("--stream", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    device = args.device
    ours, textbook = pair(device)
    ours.eval(), textbook.eval()
    folded = ours.fold()

    def streamed(points: int) -> None:
        folded.classify_chunks(RandomCloud(points))

    # Memory first, in processes of their own: memory that an earlier call has freed would hide what this one takes.
    folded.cpu()
    took = {points: peak_memory(partial(streamed, points), first=partial(streamed, 64)) for points in args.stream}
    folded = folded.to(device)
    x = torch.randn(args.batch_size, 3, args.num_points, device=device)
    with full_precision():
        wanted = textbook(x)[0]
        for model in (ours, folded):
            torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    print(f"{machine(device)}; batch {args.batch_size} x {args.num_points:,} points; logits equal")

    stream(folded.cpu(), took)
    folded = folded.to(device)
    print("\n| freed memory | precision | network | ms | clouds/s | floor / time | times faster |")
    print("|-|-|-|-|-|-|-|")
    calls = {"textbook": lambda: textbook(x), "ours": lambda: ours(x), "ours, folded": lambda: folded(x)}
    adds = args.batch_size * (POINT_ADDS * args.num_points + CLOUD_ADDS)
    for phase in ("returned", "kept") if device == "cpu" else ("-",):
        if phase == "kept":
            keep_freed_memory()
        for precision, dtype in precisions(device).items():
            with autocast(torch.device(device), precision):
                seconds = side_by_side(calls | {"product": widest_product(device, dtype)}, args.rounds, device)
            least = floor(adds, seconds.pop("product"))
            for name, taken in seconds.items():
                print(
                    f"| {phase} | {precision} | {name} | {taken * 1e3:.1f} | {args.batch_size / taken:,.0f} | "
                    f"{least / taken:.0%} | {seconds['textbook'] / taken:.1f} |"
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
