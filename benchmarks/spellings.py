"""One layer, C to D channels on each of B x N points, in six spellings: forward alone, and forward with backward.

python -m benchmarks.spellings [--device cuda] [--sizes 32x3x64x1024 ...]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.common import machine, parser, side_by_side
from pointnet.layers import linear_to_conv1d, linear_to_full_conv2d, linear_to_pointwise_conv2d
from pointnet.training import keep_freed_memory

# PointNet's own layers, narrow to wide; one cloud; a scene; a segmentation head's first layer.
SIZES = ["32x3x64x1024", "32x64x64x1024", "32x64x128x1024", "32x128x1024x1024", "1x64x128x1024", "2x64x128x16384"]
SIZES += ["8x1088x512x1024"]


class Spelling(NamedTuple):
    """The layer as a call, its weights, an input in the layout it takes, and its output turned into (B, D, N)."""

    call: Callable[[Tensor], Tensor]
    weights: list[nn.Parameter]
    x: Tensor
    turned: Callable[[Tensor], Tensor] = lambda y: y


def spellings(linear: nn.Linear, x: Tensor) -> dict[str, Spelling]:
    """Each with the numbers of `linear`; x is (B, C, N)."""
    last = x.transpose(1, 2).contiguous()
    conv1d, pointwise = linear_to_conv1d(linear), linear_to_pointwise_conv2d(linear)
    row = linear_to_full_conv2d(linear, (1, 1, linear.in_features))
    own = list(linear.parameters())
    return {
        "`Conv1d` on (B, C, N)": Spelling(conv1d, list(conv1d.parameters()), x),
        "`Conv2d` 1x1 on (B, C, N, 1)": Spelling(
            pointwise, list(pointwise.parameters()), x.unsqueeze(3), lambda y: y.squeeze(3)
        ),
        "`Conv2d` 1xC on (B, 1, N, C)": Spelling(
            row, list(row.parameters()), last.unsqueeze(1), lambda y: y.squeeze(3)
        ),
        "`Linear` on (B, N, C)": Spelling(linear, own, last, lambda y: y.transpose(1, 2)),
        "`Linear` between two transposes": Spelling(lambda x: linear(x.transpose(1, 2)).transpose(1, 2), own, x),
        "`W @ x + b` on (B, C, N)": Spelling(lambda x: linear.weight @ x + linear.bias.unsqueeze(1), own, x),
    }


def forward_and_backward(spelling: Spelling, slope: Tensor | None = None) -> list[Tensor]:
    """The output and the gradients of its sum, each weighted by `slope` where one is given."""
    x = spelling.x.detach().requires_grad_()
    y = spelling.call(x)
    return [y, *torch.autograd.grad(y, [x, *spelling.weights], torch.ones_like(y) if slope is None else slope)]


def check_equal(layers: dict[str, Spelling]) -> None:
    """The same outputs and weight gradients, before anything is timed."""
    wanted: list[Tensor] = []
    for spelling in layers.values():
        y, _, *gradients = forward_and_backward(spelling)
        got = [spelling.turned(y), *(gradient.flatten(1) if gradient.dim() > 1 else gradient for gradient in gradients)]
        wanted = wanted or got
        for mine, first in zip(got, wanted, strict=True):
            torch.testing.assert_close(mine, first, rtol=1e-3, atol=1e-4 * first.abs().max().item())


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--sizes", nargs="+", default=SIZES, metavar="BxCxDxN")
    args = flags.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    columns = []
    for size in args.sizes:
        b, c, d, n = (int(number) for number in size.split("x"))
        layers = spellings(nn.Linear(c, d, device=args.device), torch.randn(b, c, n, device=args.device))
        check_equal(layers)
        with torch.no_grad():
            forward = side_by_side(
                {name: lambda s=s: s.call(s.x) for name, s in layers.items()}, args.rounds, args.device
            )
        slopes = {name: torch.randn_like(s.call(s.x)) for name, s in layers.items()}
        both = {name: lambda s=s, g=slopes[name]: forward_and_backward(s, g) for name, s in layers.items()}
        columns.append((size, forward, side_by_side(both, args.rounds, args.device)))

    print(f"{machine(args.device)}; outputs and gradients equal; ms, forward / with backward")
    print("| spelling | " + " | ".join(size for size, *_ in columns) + " |")
    print("|-" * (len(columns) + 1) + "|")
    for name in columns[0][1]:
        cells = [" / ".join(cell(times, name) for times in pair) for _, *pair in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def cell(times: dict[str, float], name: str) -> str:
    """Milliseconds, bold where no spelling is faster by more than what one run tells apart, 5 %."""
    text = f"{times[name] * 1e3:.2f}"
    return f"**{text}**" if times[name] <= 1.05 * min(times.values()) else text


if __name__ == "__main__":
    main()
