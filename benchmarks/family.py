"""Time and memory of the family's networks, ours and the textbook's with the same weights, in turn.

python -m benchmarks.family [NAME ...] [--device cuda] [--rounds 9] [--precision bf16]

A step is forward and backward; inference is of our folded network and of the textbook's in eval mode. The floor is the
multiply-adds that ours takes, at the rate of a product of rows. *Neighbours* is sampling and finding neighbours alone,
as a share of our time. In bf16 both run under autocast, and the product is of bfloat16. Another network joins by one
entry of `FAMILY`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import check_equal, loss_of, machine, make_alike, parser, peak_memory, side_by_side
from pointnet import DGCNNClassifier, DGCNNPartSegmenter, PointNet2Classifier, PointNextClassifier
from pointnet.datasets.shapes import Shapes
from pointnet.devices import autocast, keep_freed_memory, precision_in_words, precision_on
from pointnet.layers import EdgeConv, SetAbstraction
from pointnet.models import pointnext
from pointnet.models.pointnet2 import ALL_WIDTHS, HEAD_WIDTHS, LEVELS
from pointnet.ops.neighbours import ball_query, gather, knn
from pointnet.ops.products import multiply
from tests.textbook import TextbookDGCNN, TextbookDGCNNPart, TextbookPointNet2, TextbookPointNext

ROWS = (2048, 128, 256)  # rows, channels in and out of the product that gives the machine's rate


class Entry(NamedTuple):
    """A network of the family.

    ours, textbook: make one with 40 classes.
    clouds: of 1,024 points in a batch.
    searches: all sampling and finding of neighbours that ours does for a batch.
    parts: whether it labels points, of 50 parts and 16 categories, and not clouds, of 40 classes.
    """

    ours: Callable[[], Any]
    textbook: Callable[[], nn.Module]
    clouds: int
    searches: Callable[[Any, Tensor], object]
    parts: bool = False

    def labels(self, clouds: int, points: int, device: str) -> list[Tensor]:
        """Some, and the categories where it takes these."""
        every = [torch.arange(clouds) % 40]
        if self.parts:
            every = [torch.arange(clouds * points).view(clouds, points) % 50, torch.arange(clouds) % 16]
        return [each.to(device) for each in every]


def of_abstractions(model: PointNet2Classifier | PointNextClassifier, x: Tensor) -> None:
    for layer in list(model.abstractions)[:-1]:
        assert isinstance(layer, SetAbstraction)
        centres = gather(x, layer.chosen(x))
        for radius, most in zip(layer.radii, layer.neighbours, strict=True):
            ball_query(x, centres, radius, most)
        x = centres


def pointnet2(scales: str) -> Entry:
    textbook = partial(TextbookPointNet2, 40, LEVELS[scales], ALL_WIDTHS, HEAD_WIDTHS)
    return Entry(partial(PointNet2Classifier, 40, scales=scales), textbook, 16, of_abstractions)


def pointnext_s(stem: int) -> Entry:
    textbook = partial(TextbookPointNext, 40, pointnext.LEVELS, stem, pointnext.HEAD_WIDTHS)
    return Entry(partial(PointNextClassifier, width=stem / pointnext.STEM_WIDTH), textbook, 16, of_abstractions)


def of_dgcnn(model: DGCNNClassifier | DGCNNPartSegmenter, x: Tensor) -> None:
    for layer in (each for each in model.modules() if isinstance(each, EdgeConv)):
        channels = (layer.hidden or layer.layer).conv.in_channels // 2  # which numbers they hold matters little
        knn(x.repeat(1, channels // 3 + 1, 1)[:, :channels], layer.neighbours)


FAMILY = {
    "pointnet2": pointnet2("single"),
    "pointnet2_msg": pointnet2("multi"),
    "dgcnn": Entry(DGCNNClassifier, partial(TextbookDGCNN, 40), 8, of_dgcnn),
    "dgcnn_part": Entry(DGCNNPartSegmenter, partial(TextbookDGCNNPart, 50, 16), 4, of_dgcnn, parts=True),
    "pointnext_s": pointnext_s(32),
    "pointnext_s64": pointnext_s(64),
}


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FAMILY)}; all")
    flags.add_argument("--num_points", type=int, default=1024)
    flags.add_argument("--clouds", type=int, help="in a batch; as in FAMILY")
    flags.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = flags.parse_args(arguments)
    if unknown := set(args.names) - set(FAMILY):
        flags.error(f"names must be of {', '.join(FAMILY)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(args.threads)
    precision = precision_in_words(torch.device(args.device), args.precision)
    print(f"{machine(args.device)}; clouds of {args.num_points:,} points; {precision}; gradients and logits equal")
    print(
        "| freed memory | network | what | ms | textbook | times faster | floor / time | neighbours | MiB | textbook |"
    )
    print("|-|-|-|-|-|-|-|-|-|-|")
    entries = {name: FAMILY[name] for name in args.names or FAMILY}
    jobs = {
        name: Job(entry, args.clouds or entry.clouds, args.num_points, args.device, args.precision)
        for name, entry in entries.items()
    }
    for phase in ("returned", "kept") if args.device == "cpu" else ("-",):
        if phase == "kept":
            keep_freed_memory()
        for name, job in jobs.items():
            for row in job.rows(args.rounds):
                print(f"| {phase} | {name}, {len(job.x)} clouds | {row} |", flush=True)


class Job:
    """A network and the textbook's, equal, with a batch; AssertionError if they are not equal."""

    def __init__(self, entry: Entry, clouds: int, points: int, device: str, precision: str = "fp32"):
        torch.manual_seed(0)
        self.entry, self.device, self.precision = entry, device, precision
        self.ours, self.textbook = make_alike(entry.ours(), entry.textbook(), device)
        self.x = shapes(clouds, points, device)
        self.labels, *self.more = entry.labels(clouds, points, device)
        # Of fewer clouds the head's norms, which see two values a channel then, pass on little but rounding.
        check_equal(self.ours, self.textbook, shapes(6, points, device), *entry.labels(6, points, device))
        self.folded = self.ours.fold()
        self.adds = {"step": multiply_adds(self.step(self.ours)), "inference": multiply_adds(self.infer(self.folded))}
        step, infer = (
            (self.step(self.ours), self.step(self.textbook)),
            (self.infer(self.folded), self.infer(self.textbook)),
        )
        self.calls = {"step": step, "inference": infer}
        self.took = {what: [peak_memory(call, device) for call in calls] for what, calls in self.calls.items()}

    def step(self, model: nn.Module) -> Callable[[], None]:
        def step() -> None:
            model.train().zero_grad()
            with autocast(self.x.device, self.precision):
                loss = loss_of(model, self.x, self.labels, *self.more)
            loss.backward()

        return step

    def infer(self, model: nn.Module) -> Callable[[], None]:
        def infer() -> None:
            model.eval()
            with torch.no_grad(), autocast(self.x.device, self.precision):
                model(self.x, *self.more)

        return infer

    def rows(self, rounds: int) -> list[str]:
        rows = []
        for what, (ours, textbook) in self.calls.items():
            functions = {"ours": ours, "textbook": textbook, "product": product(self.x.device, self.precision)}
            functions["neighbours"] = lambda: self.entry.searches(self.ours, self.x)
            seconds = side_by_side(functions, rounds, self.device)
            taken, theirs = seconds["ours"], seconds["textbook"]
            floor, memory = self.adds[what] / math.prod(ROWS) * seconds["product"], self.took[what]
            rows.append(
                f"{what} | {taken * 1e3:,.0f} | {theirs * 1e3:,.0f} | {theirs / taken:.1f} | {floor / taken:.0%} | "
                f"{seconds['neighbours'] / taken:.0%} | {memory[0]:,.0f} | {memory[1]:,.0f}"
            )
        return rows


def shapes(clouds: int, points: int, device: str) -> Tensor:
    """Clouds of the embedded data set: a ball of theirs holds as many points as one of ModelNet40's."""
    data = Shapes(split="test", num_points=points)
    return data.points[torch.randperm(len(data))[:clouds]].to(device)


def product(device: torch.device, precision: str) -> Callable[[], object]:
    rows, channels, width = ROWS
    dtype = torch.bfloat16 if precision_on(device, precision) == "bf16" else torch.float32
    x = torch.randn(rows, channels, device=device, dtype=dtype)
    weight = torch.randn(width, channels, device=device, dtype=dtype)
    return partial(multiply, x, weight, None, x.new_empty(rows, width))


def multiply_adds(call: Callable[[], object]) -> int:
    """Those of a call, with those within the package's operators."""

    def rows_of(made_of: Sequence[Sequence[int]]) -> int:
        return math.prod(made_of[2]) if len(made_of) == 3 else made_of[0][0]

    def of_rows(made_of: Any, weight: Sequence[int], *given: Any, **more: Any) -> int:
        return 2 * rows_of(made_of) * math.prod(weight)

    def of_rows_backward(*given: Any, **more: Any) -> int:  # the affine term and the scatter
        made_of, weight = given[3:5]
        return 2 * 2 * rows_of(made_of) * weight[1] * weight[1]

    def of_pairs(a: Any, b: Any, neighbours: Sequence[int], weight: Sequence[int], *given: Any, **more: Any) -> int:
        return 2 * math.prod((*neighbours, *weight))

    def of_pairs_backward(*given: Any, **more: Any) -> int:
        return 2 * of_pairs(*given[3:7])

    def of_clouds(x: Sequence[int], weight: Sequence[int], *given: Any, **more: Any) -> int:
        return 2 * x[0] * x[2] * math.prod(weight)

    def of_moments(x: Sequence[int], *given: Any, **more: Any) -> int:
        return 2 * x[0] * x[2] * x[1] * x[1]

    ops = torch.ops.pointnet
    mapping = {
        ops.extremes: of_clouds, ops.moments: of_moments, ops.group_extremes: of_rows, ops.pairs_linear: of_pairs,
        ops.group_extremes_backward: of_rows_backward, ops.pairs_linear_backward: of_pairs_backward,
    }  # fmt: skip
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return counter.get_total_flops() // 2


if __name__ == "__main__":
    main()
