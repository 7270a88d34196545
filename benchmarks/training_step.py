"""Time of a training step, textbook and ours with the same weights, in turn: forward, backward and AdamW.

python -m benchmarks.training_step [--device cuda]
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.common import (
    CLOUD_ADDS,
    EXACT_STEP,
    POINT_ADDS,
    check_equal,
    floor,
    loss_of,
    machine,
    pair,
    parser,
    precisions,
    side_by_side,
    widest_product,
)  # fmt: skip
from pointnet.devices import autocast, keep_freed_memory
from pointnet.training.cuda_graph import GraphedGradients


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--batch_size", type=int, default=32)
    flags.add_argument("--num_points", type=int, default=1024)
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    device = args.device
    ours, textbook = pair(device)
    x = torch.randn(args.batch_size, 3, args.num_points, device=device)
    labels = torch.randint(0, 40, (args.batch_size,), device=device)
    check_equal(ours, textbook)
    print(f"{machine(device)}; batch {args.batch_size} x {args.num_points} points; gradients equal")

    models: dict[str, nn.Module] = {"textbook": textbook, "ours": ours}
    if device != "cpu":
        models["textbook, compiled"] = torch.compile(pair(device)[1])
        models["ours, replayed"], models["textbook, replayed"] = pair(device)
    optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}

    def gradients(name: str, precision: str, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        with autocast(torch.device(device), precision):
            loss = loss_of(models[name], x, labels)
        optimizers[name].zero_grad()
        loss.backward()
        return (loss.detach(),)

    def stepper(name: str, precision: str) -> Callable[[], None]:
        backward: Callable[..., tuple[Tensor, ...]] = partial(gradients, name, precision)
        if "replayed" in name:  # as `train.py` does on a GPU
            backward = GraphedGradients(backward, list(models[name].parameters()))

        def step() -> None:
            backward(x, labels)
            optimizers[name].step()

        for _ in range(5 if "replayed" in name else 0):
            step()
        return step

    phases = ["returned", "kept"] if device == "cpu" else ["-"]
    print("| freed memory | precision | network | ms per step | clouds/s | floor / time | times faster | than row 1 |")
    print("|-|-|-|-|-|-|-|-|")
    first = 0.0
    for phase in phases:
        if phase == "kept":
            keep_freed_memory()
        for precision, dtype in precisions(device).items():
            steps = {name: stepper(name, precision) for name in models}
            product = widest_product(device, dtype)
            seconds = side_by_side(steps | {"product": product}, args.rounds, device)
            adds = args.batch_size * EXACT_STEP * (POINT_ADDS * args.num_points + CLOUD_ADDS)
            least = floor(adds, seconds.pop("product"))
            first = first or seconds["textbook"]
            for name, taken in seconds.items():
                print(
                    f"| {phase} | {precision} | {name} | {taken * 1e3:.1f} | "
                    f"{args.batch_size / taken:,.0f} | {least / taken:.0%} | "
                    f"{seconds['textbook'] / taken:.1f} | {first / taken:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
