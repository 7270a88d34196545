"""Time of one layer, C to D channels on B x N points, in seven spellings: forward, and forward with backward.

python -m benchmarks.spellings [--device cuda] [--sizes 32x3x64x1024 ...]
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.common import full_precision, machine, parser, side_by_side
from pointnet.devices import keep_freed_memory
from pointnet.layers import linear_to_conv1d, linear_to_full_conv2d, linear_to_pointwise_conv2d
from pointnet.ops.products import map_rows

# PointNet's own layers, narrow to wide; one cloud; a scene; the first layer of a segmentation head.
SIZES = ["32x3x64x1024", "32x64x64x1024", "32x64x128x1024", "32x128x1024x1024", "1x64x128x1024", "2x64x128x16384"]
SIZES += ["8x1088x512x1024"]


class Spelling(NamedTuple):
    """The layer as a call on points in its own layout, with the conversions from (B, C, N) and to (B, D, N)."""

    call: Callable[[Tensor], Tensor]
    weights: list[nn.Parameter]
    lay_out: Callable[[Tensor], Tensor] = lambda x: x
    lay_back: Callable[[Tensor], Tensor] = lambda y: y


def spellings(linear: nn.Linear) -> dict[str, Spelling]:
    """The seven spellings, each with the weights of `linear`."""
    conv1d, pointwise = linear_to_conv1d(linear), linear_to_pointwise_conv2d(linear)
    row = linear_to_full_conv2d(linear, (1, 1, linear.in_features))
    own = list(linear.parameters())
    return {
        "`Conv1d` on (B, C, N)": Spelling(conv1d, list(conv1d.parameters())),
        "`Conv2d` 1×1 on (B, C, N, 1)": Spelling(
            pointwise, list(pointwise.parameters()), lambda x: x.unsqueeze(3), lambda y: y.squeeze(3)
        ),
        "`Conv2d` 1×C on (B, 1, N, C)": Spelling(
            row, list(row.parameters()), lambda x: x.mT.unsqueeze(1), lambda y: y.squeeze(3)
        ),
        "`Linear` on (B, N, C)": Spelling(linear, own, lambda x: x.mT, lambda y: y.mT),
        "`map_rows` on (B, N, C)": Spelling(
            lambda x: map_rows(x, linear.weight, linear.bias), own, lambda x: x.mT, lambda y: y.mT
        ),
        "`Linear` between two transposes": Spelling(lambda x: linear(x.mT).mT, own),
        "`W @ x + b` on (B, C, N)": Spelling(lambda x: linear.weight @ x + linear.bias.unsqueeze(1), own),
    }


def forward_and_backward(
    call: Callable[[Tensor], Tensor], x: Tensor, weights: list[nn.Parameter], slope: Tensor
) -> Any:
    """The output, and the gradients of input and weights for this gradient at the output."""
    x = x.detach().requires_grad_()
    y = call(x)
    return y, *torch.autograd.grad(y, [x, *weights], slope)


def check_equal(layers: dict[str, Spelling], x: Tensor) -> None:
    """Raises AssertionError unless outputs and gradients of points and weights agree; x is (B, C, N)."""
    first, *others = layers.values()
    slope = torch.randn_like(first.call(x))
    wanted = forward_and_backward(first.call, x, first.weights, slope)
    for spelling in others:
        whole = lambda x, s=spelling: s.lay_back(s.call(s.lay_out(x)))  # noqa: E731
        for mine, firsts in zip(forward_and_backward(whole, x, spelling.weights, slope), wanted, strict=True):
            torch.testing.assert_close(
                mine.reshape(firsts.shape), firsts, rtol=1e-3, atol=1e-4 * firsts.abs().max().item()
            )


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--sizes", nargs="+", default=SIZES, metavar="BxCxDxN")
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    columns = []
    for size in args.sizes:
        b, c, d, n = (int(number) for number in size.split("x"))
        layers = spellings(nn.Linear(c, d, device=args.device))
        x = torch.randn(b, c, n, device=args.device)
        with full_precision():
            check_equal(layers, x)
        inputs = {name: each.lay_out(x).contiguous() for name, each in layers.items()}
        with torch.no_grad():
            calls = {name: lambda s=each, x=inputs[name]: s.call(x) for name, each in layers.items()}
            forward = side_by_side(calls, args.rounds, args.device)
            slopes = {name: torch.randn_like(call()) for name, call in calls.items()}
        both = {
            name: lambda s=each, x=inputs[name], g=slopes[name]: forward_and_backward(s.call, x, s.weights, g)
            for name, each in layers.items()
        }
        columns.append((size, forward, side_by_side(both, args.rounds, args.device)))

    print(f"{machine(args.device)}; outputs and gradients equal; ms, forward / with backward")
    print("| spelling | " + " | ".join(size for size, *_ in columns) + " |")
    print("|-" * (len(columns) + 1) + "|")
    for name in columns[0][1]:
        cells = [" / ".join(cell(times, name) for times in pair) for _, *pair in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def cell(times: dict[str, float], name: str) -> str:
    """Milliseconds, bold if within 5 % of the fastest: one run cannot tell less apart."""
    text = f"{times[name] * 1e3:.2f}"
    return f"**{text}**" if times[name] <= 1.05 * min(times.values()) else text


if __name__ == "__main__":
    main()
