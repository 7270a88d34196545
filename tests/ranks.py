"""What each of two ranks runs on its share of a batch, and one process on the whole of it, for `test_ranks.py`.

python -m tests.ranks FOLDER RANK      runs everything and saves what it found as FOLDER/RANK.pt
"""

import copy
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet import PointNetClassifier, SharedMLP
from pointnet.layers import EdgeConv, SetAbstraction, synchronize_norms
from pointnet.ops import edges, groups, masked, pooled, ranks, relative

RANKS = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch, and how many of its clouds each rank has."""

    shares: tuple[int, int] = (3, 3)
    points: int = 7
    ragged: bool = False
    offset: float = 0.0
    activation: str = "relu"
    dtype: torch.dtype = torch.float64

    def batch(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Points (B, 3, N), lengths (B,) and labels (B,); the ranks' points differ in where they are, too."""
        generator = torch.Generator().manual_seed(0)
        clouds = sum(self.shares)
        x = torch.randn(clouds, 3, self.points, generator=generator, dtype=torch.float64) + self.offset
        x[self.shares[0] :] += 2
        lengths = torch.randint(1, self.points + 1, (clouds,), generator=generator) if self.ragged else None
        return x.float().to(self.dtype), lengths, torch.arange(clouds) % 5

    def share(self, rank: int | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """What a rank has; None: everything."""
        start = 0 if not rank else self.shares[0]
        mine = slice(start, None if rank is None else start + self.shares[rank])
        x, lengths, labels = self.batch()
        return x[mine].clone(), None if lengths is None else lengths[mine], labels[mine]


CASES = {
    "equal shares": Case(),
    "unequal shares": Case((4, 2)),
    "padded": Case((2, 4), ragged=True),
    "far from the origin": Case(offset=1000.0),
    "either end may win": Case((1, 4), activation="gelu", ragged=True),
    "one point on each": Case((1, 1), points=1),
    "one point on one": Case((1, 3), points=1),
    "nothing on one": Case((3, 0)),
}
SINGLE = Case((2, 4), points=300, offset=1000.0, activation="tanh", ragged=True, dtype=torch.float32)


class Network(nn.Module):
    """Each way a norm is reached: on all points, pooled from many channels and from few, and on a dense head."""

    def __init__(self, activation: str):
        super().__init__()
        self.wide = SharedMLP([3, 8, 16], activation=activation)
        self.narrow = SharedMLP([3, 8], activation=activation)
        self.head = SharedMLP([24, 6, 5]).to_linear()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pooled = [mlp.max_pool(x, lengths=lengths) for mlp in (self.wide, self.narrow)]
        return self.wide(x, lengths=lengths), self.head(torch.cat(pooled, 1))


class Neighbourhoods(nn.Module):
    """The same where points have neighbours: pairs, groups and edges."""

    def __init__(self, activation: str):
        super().__init__()
        self.sets = SetAbstraction(0, [[6, 8, 5]], centres=4, radii=[1.5], neighbours=[6])
        self.edges = EdgeConv(3, 8, neighbours=3)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.edges(x), self.sets(x)[1].amax(2)


def network(case: Case, kind: type[nn.Module] = Network) -> nn.Module:
    torch.manual_seed(1)
    model = kind(case.activation)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)  # scales of both signs
    return model.to(case.dtype)


def run(case: Case, rank: int | None, kind: type[nn.Module] = Network) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics after two steps."""
    x, lengths, _ = case.share(rank)
    x.requires_grad_()
    model = synchronize_norms(network(case, kind))
    for _ in range(2):
        per_point, per_cloud = model(x, lengths)
        (per_point.sin().sum() + per_cloud.sin().sum()).backward()
    found = {"per point": per_point.detach(), "per cloud": per_cloud.detach(), "gradient of x": x.grad}
    found |= {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return found | {f"buffer {name}": buffer for name, buffer in model.named_buffers()}


def classifier() -> PointNetClassifier:
    """A small one, with both T-Nets."""
    widths = {"widths": ((8, 8), (8, 16, 32)), "tnet_widths": ((8, 16, 32), (16, 8)), "head_widths": (16, 8)}
    return PointNetClassifier(num_classes=5, dropout=0.0, **widths)


def train(case: Case, rank: int | None) -> dict[str, Tensor]:
    """The state of a classifier after three steps, on ranks under DistributedDataParallel."""
    torch.manual_seed(2)
    model = classifier().to(case.dtype)
    for name, parameter in model.named_parameters():
        if "matrix" in name:
            parameter.data += 0.01 * torch.randn_like(parameter)  # they start at 0, where nothing moves before them
    synchronize_norms(model)
    wrapped = model if rank is None else nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, lengths, labels = case.share(rank)
    weight = 1.0 if rank is None else RANKS * len(x) / sum(case.shares)
    for _ in range(3):
        logits, transforms = wrapped(x, lengths, return_transforms=True)
        loss = F.cross_entropy(logits, labels) + model.regularization(transforms)
        optimizer.zero_grad()
        (weight * loss).backward()
        optimizer.step()
    return model.state_dict()


TRAINED = {"equal shares": Case(points=20), "unequal and padded": Case((4, 2), points=20, ragged=True)}


@contextmanager
def traffic() -> Iterator[list[tuple[int, torch.dtype]]]:
    """What is summed over ranks meanwhile: how many numbers of what kind, in order."""
    seen: list[tuple[int, torch.dtype]] = []
    all_reduce = dist.all_reduce

    def counted(values: Tensor, **settings: object) -> None:
        seen.append((values.numel(), values.dtype))
        all_reduce(values, **settings)

    with patch.object(dist, "all_reduce", counted):
        yield seen


def steps_traffic(points: int) -> dict[str, list[tuple[int, torch.dtype]]]:
    model = synchronize_norms(PointNetClassifier(num_classes=5))
    x = torch.randn(4, 3, points, requires_grad=True)
    with traffic() as forward:
        y = model(x)
    with traffic() as backward:
        y.sin().sum().backward()
    with traffic() as in_eval:
        model.eval()(x).sin().sum().backward()
    return {"forward": forward, "backward": backward, "eval": in_eval}


def refusals(rank: int) -> list[str]:
    """What a plain and a pooled layer say of one point in all, which the first rank has."""
    x, said = Case((1, 0), points=1).share(rank)[0].float(), []
    mlp = synchronize_norms(SharedMLP([3, 8]))
    for call in (mlp, mlp.max_pool):
        try:
            call(x)
        except ValueError as error:
            said.append(str(error))
    return said


def copied(rank: int) -> Tensor:
    """The running mean of a copy of a network whose norms have a group of their own."""
    model = copy.deepcopy(synchronize_norms(network(Case()), dist.new_group([0, 1])))
    model(Case().share(rank)[0])
    model.eval()
    return model.narrow[0].norm.running_mean


def own(norm: nn.Module, *moments: Tensor) -> tuple[Tensor, ...]:
    """In place of `moments_over_ranks`: those of the rank's own points."""
    return moments


MUTATIONS: dict[str, list[tuple[object, str, Callable]]] = {
    "statistics of each rank": [(masked, "group_of", lambda norm: None), (pooled, "moments_over_ranks", own)],
    "of the pooled layers of each rank": [(pooled, "moments_over_ranks", own)],
    "of the dense head of each rank": [
        (masked, "group_of", lambda norm: None if norm.num_features < 7 else ranks.group_of(norm))
    ],
    "gradients of each rank": [(ranks._Total, "backward", staticmethod(lambda ctx, *grads: (grads[0], None)))],
    "the means of ranks not weighted": [
        (pooled, "moments_over_ranks", lambda norm, n, m, s: unweighted(norm, n, m, s, shifted=True))
    ],
    "the ranks' means taken for one": [
        (pooled, "moments_over_ranks", lambda norm, n, m, s: unweighted(norm, n, m, s, shifted=False))
    ],
    "the counts of each rank": [(masked, "totals", lambda group, *parts: [parts[0], *totals(group, *parts)[1:]])],
}
totals, moments_over_ranks = ranks.totals, ranks.moments_over_ranks


def unweighted(norm: nn.BatchNorm1d, count: Tensor, mean: Tensor, scatter: Tensor, shifted: bool) -> tuple:
    everyone, overall, spread = moments_over_ranks(norm, count, mean, scatter)
    group = ranks.group_of(norm)
    if not shifted:
        return everyone, overall, totals(group, scatter)[0]
    return everyone, totals(group, mean)[0] / RANKS, spread


def work(folder: Path, rank: int) -> None:
    """Everything, on this rank's share."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS)
    found: dict[str, object] = {f"run {name}": run(case, rank) for name, case in CASES.items()}
    found["run single"] = run(SINGLE, rank)
    found["run neighbourhoods"] = run(CASES["unequal shares"], rank, Neighbourhoods)
    for place in (relative, groups, edges):
        with patch.object(place, "moments_over_ranks", own):
            found[f"{place.__name__} of each rank"] = run(CASES["unequal shares"], rank, Neighbourhoods)
    found |= {f"train {name}": train(case, rank) for name, case in TRAINED.items()}
    found |= {f"traffic {points}": steps_traffic(points) for points in (8, 50)}
    found |= {"refusals": refusals(rank), "copied": copied(rank)}
    for title, broken in MUTATIONS.items():
        with ExitStack() as stack:
            for place in broken:
                stack.enter_context(patch.object(*place))
            found[f"broken {title}"] = run(CASES["unequal shares"], rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*barrier.*")
    work(Path(sys.argv[1]), int(sys.argv[2]))
