"""Time of sampling, balls, nearest neighbours and the max over them, against definitions and what else is exact.

python -m benchmarks.neighbours [--device cuda] [--clouds 32] [--num_points 1024]

The floor of nearest neighbours is the product that gives their distances, one cloud at a time, into kept memory.
`fpsample` is timed where it is installed. A max over neighbours is timed forward and backward, with batch norm and
ReLU.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common import machine, parser, side_by_side
from pointnet.devices import keep_freed_memory
from pointnet.ops import neighbours as ops
from pointnet.ops.edges import edges_definition, pooled_edges
from pointnet.ops.groups import groups_definition, pooled_groups
from pointnet.ops.products import multiply

BIG = 10_000  # points of the cloud that is sampled from alone


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--clouds", type=int, default=32)
    flags.add_argument("--num_points", type=int, default=1024)
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    points = on_sphere(args.clouds, args.num_points, args.device)
    print(f"{machine(args.device)}; {args.clouds} x {args.num_points:,} points; all equal; ms")
    print("| what | of | ms | times ours |\n|-|-|-|-|")
    for what, functions in (jobs(points) | layers(points)).items():
        times = side_by_side(functions, args.rounds, args.device)
        for name, seconds in times.items():
            print(f"| {what} | {name} | {seconds * 1e3:.2f} | {seconds / times['ours']:.2f} |")


def on_sphere(clouds: int, size: int, device: str) -> Tensor:
    """Points on unit spheres, as surfaces are: no plane of a matrix product is 0."""
    return F.normalize(torch.randn(clouds, 3, size, device=device), dim=1)


def jobs(points: Tensor) -> dict[str, dict[str, Callable[[], Any]]]:
    """By title, what is timed side by side; raises AssertionError unless all find the same."""
    size, count = points.shape[2], max(1, points.shape[2] // 2)
    centres = ops.gather(points, ops.farthest_point_sampling(points, count))
    first = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    few, many = min(20, size), min(32, size)
    found: dict[str, dict[str, Callable[[], Any]]] = {
        f"sampling, {size:,} to {count:,}": {
            "ours": lambda: ops.farthest_point_sampling(points, count),
            "the definition": lambda: ops.farthest_definition(points, count, None, first),
        },
        f"balls of 0.2 about {count:,}, K = {many}": {
            "ours": lambda: ops.ball_query(points, centres, 0.2, many),
            "the definition": lambda: ops.ball_definition(points, centres, 0.2, many, None),
        },
        f"nearest, K = {few}": searches(points, few),
        f"nearest of 64 channels, K = {few}": searches(torch.randn(len(points), 64, size, device=points.device), few),
    }
    for functions in found.values():
        ours, other = (function() for function in list(functions.values())[:2])
        same = (ours == other).float().mean().item()
        assert same > 0.999, f"{same:.2%} of the indices are the same"  # near-ties of products differ in rounding
    return found | {f"sampling, {BIG:,} to 1,024": samplers(on_sphere(1, BIG, str(points.device)))}


def searches(points: Tensor, count: int) -> dict[str, Callable[[], Any]]:
    return {
        "ours": lambda: ops.knn(points, count),
        "`topk` of the products": lambda: topk(points, count),
        "the products alone": products(points),
    }


def samplers(cloud: Tensor) -> dict[str, Callable[[], Any]]:
    functions: dict[str, Callable[[], Any]] = {"ours": lambda: ops.farthest_point_sampling(cloud, 1024)}
    if find_spec("fpsample"):
        import fpsample

        rows = cloud[0].T.contiguous().cpu().numpy()
        functions["fpsample"] = lambda: fpsample.fps_sampling(rows, 1024, start_idx=0)
        functions["fpsample, buckets"] = lambda: fpsample.bucket_fps_kdline_sampling(rows, 1024, h=7, start_idx=0)
        assert (functions["ours"]()[0].cpu().numpy() == functions["fpsample"]()).mean() > 0.99
    return functions


def layers(points: Tensor, channels: int = 64) -> dict[str, dict[str, Callable[[], Any]]]:
    """A layer of edges and the last layer of groups, each against its definition; AssertionError unless they agree."""
    clouds, _, size = points.shape
    nearest = ops.knn(points, min(20, size))
    balls = ops.ball_query(points, points[:, :, : max(1, size // 2)], 0.2, min(32, size))
    device = points.device
    a, b = (torch.randn(clouds, size, channels, device=device).transpose(1, 2).requires_grad_() for _ in range(2))
    x = torch.randn(*balls.shape, channels, device=device).permute(0, 3, 1, 2).requires_grad_()
    weight = (torch.randn(2 * channels, channels, device=device) / 8).requires_grad_()
    norms = [nn.BatchNorm1d(n, device=device) for n in (channels, 2 * channels)]

    def edges(function: Callable[..., Tensor], *given: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: step(function(*given, nearest, norms[0], nn.ReLU()), given)

    def groups(function: Callable[..., Tensor], *given: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: step(function(*given, None, norms[1], nn.ReLU()), given)

    # Each as it is fastest: ours with the channels of a point side by side, the definition with those of all points.
    spread = [each.detach().contiguous().requires_grad_() for each in (a, b, x)]
    found: dict[str, dict[str, Callable[[], Any]]] = {
        f"edges, K = {nearest.shape[2]}, {channels} channels": {
            "ours": edges(pooled_edges, a, b), "the definition": edges(edges_definition, *spread[:2]),
        },
        f"groups, {balls.shape[1]} of {balls.shape[2]}, {channels} to {2 * channels} channels": {
            "ours": groups(pooled_groups, x, weight), "the definition": groups(groups_definition, spread[2], weight),
        },
    }  # fmt: skip
    for functions in found.values():
        for mine, theirs in zip(*(function() for function in functions.values()), strict=True):
            off = ((mine - theirs).norm() / theirs.norm()).item()
            assert off < 1e-2, f"{off:.1e} of the norm is different"  # near-ties have another winner in float32
    return found


def step(y: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The output, and the gradients of a sum of its squares."""
    return y.detach(), *torch.autograd.grad(y.square().sum(), inputs)


def topk(points: Tensor, count: int) -> Tensor:
    """As DGCNN's code finds them."""
    inner = -2 * points.transpose(1, 2) @ points
    squares = points.square().sum(1, keepdim=True)
    return (-squares - inner - squares.transpose(1, 2)).topk(count, 2).indices


def products(points: Tensor) -> Callable[[], None]:
    rows, size = points.transpose(1, 2).contiguous(), points.shape[2]
    kept = points.new_empty(size, size)

    def call() -> None:
        for row, cloud in zip(rows, points, strict=True):
            multiply(row, cloud.T, None, kept)

    return call


if __name__ == "__main__":
    main()
