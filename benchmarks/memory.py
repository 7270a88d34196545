"""Peak memory and time of forward and backward, textbook and ours, against the number of points.

python -m benchmarks.memory [--device cuda] [--plot docs/memory.svg]
"""

from collections.abc import Sequence

import torch

from benchmarks.common import check_equal, loss_of, machine, pair, parser, peak_memory, side_by_side

# The first is the usual batch; the others, of two clouds each, make the plot.
SIZES = ["32x1024", "2x256", "2x1024", "2x4096", "2x16384", "2x65536"]


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--sizes", nargs="+", default=SIZES, help="clouds x points")
    flags.add_argument("--plot", help="an SVG or PNG to draw (needs matplotlib: pip install matplotlib)")
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    device = args.device
    ours, textbook = pair(device)
    print(f"{machine(device)}; forward and backward; memory is the peak over the resting process, one thread on a CPU")
    print("| batch x points | textbook MiB | ours MiB | ratio | textbook ms | ours ms | ratio |")
    print("|-|-|-|-|-|-|-|")
    rows = []
    for batch, points in (map(int, size.split("x")) for size in args.sizes):
        x = torch.randn(batch, 3, points, device=device)
        labels = torch.randint(0, 40, (batch,), device=device)
        steps = {
            name: (lambda model=model, x=x, labels=labels: loss_of(model, x, labels).backward())
            for name, model in (("textbook", textbook), ("ours", ours))
        }
        # Memory first: a process that has used its threads cannot be forked.
        memory = {name: peak_memory(function, device) for name, function in steps.items()}
        rows.append((batch, points, memory, steps))
    check_equal(ours, textbook)
    results = []
    for batch, points, memory, steps in rows:
        seconds = side_by_side(steps, 3 if points > 10_000 else args.rounds, device)
        print(
            f"| {batch} x {points:,} | {memory['textbook']:,.0f} | {memory['ours']:,.0f} | "
            f"{memory['ours'] / memory['textbook']:.2f} | {seconds['textbook'] * 1e3:,.0f} | "
            f"{seconds['ours'] * 1e3:,.0f} | {seconds['textbook'] / seconds['ours']:.1f} |",
            flush=True,
        )
        results.append((points, memory, seconds))
    if args.plot:
        draw(results[1:], args.plot)


def draw(results: list[tuple[int, dict[str, float], dict[str, float]]], path: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    points = [row[0] for row in results]
    for axis, part, scale, label in ((axes[0], 1, 1, "peak memory, MiB"), (axes[1], 2, 1e3, "ms per step")):
        for name, colour in (("textbook", "#b0542e"), ("ours", "#2e6fb0")):
            axis.loglog(points, [row[part][name] * scale for row in results], "o-", color=colour, label=name)  # type: ignore[index]
        axis.set_xlabel("points per cloud")
        axis.set_title(f"{label}, two clouds", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
