"""Two processes train as one with both their batches.

The two are started once, as `python -m tests.test_ranks FOLDER RANK`; each runs everything below on its share and
leaves what it found in a file. One process with the whole batch says what they should have found.
"""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet import PointNetClassifier, SharedMLP
from pointnet.layers import synchronize_norms
from pointnet.ops import masked, pooled, ranks

ROOT = Path(__file__).parents[1]
RANKS = 2
SECONDS = 60  # a hang fails


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


def network(case: Case) -> Network:
    torch.manual_seed(1)
    model = Network(case.activation)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)  # scales of both signs
    return model.to(case.dtype)


def run(case: Case, rank: int | None) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics after two steps."""
    x, lengths, _ = case.share(rank)
    x.requires_grad_()
    model = synchronize_norms(network(case))
    for _ in range(2):
        per_point, per_cloud = model(x, lengths)
        (per_point.sin().sum() + per_cloud.sin().sum()).backward()
    found = {"per point": per_point.detach(), "per cloud": per_cloud.detach(), "gradient of x": x.grad}
    found |= {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return found | {f"buffer {name}": buffer for name, buffer in model.named_buffers()}


def train(case: Case, rank: int | None) -> dict[str, Tensor]:
    """The state of a classifier with both T-Nets after three steps, on ranks under DistributedDataParallel."""
    torch.manual_seed(2)
    model = PointNetClassifier(num_classes=5).to(case.dtype)
    for name, parameter in model.named_parameters():
        if "matrix" in name:
            parameter.data += 0.01 * torch.randn_like(parameter)  # they start at 0, where nothing moves before them
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
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


def steps_traffic(make: Callable[[], nn.Module], points: int) -> dict[str, list[tuple[int, torch.dtype]]]:
    model = synchronize_norms(make())
    x = torch.randn(4, 3, points, requires_grad=True)
    with traffic() as forward:
        y = model(x)
    with traffic() as backward:
        y.sin().sum().backward()
    with traffic() as in_eval:
        model.eval()(x).sin().sum().backward()
    return {"forward": forward, "backward": backward, "eval": in_eval}


class Pool(nn.Module):
    def __init__(self, widths: list[int]):
        super().__init__()
        self.mlp = SharedMLP(widths)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp.max_pool(x)


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "classifier": lambda: PointNetClassifier(num_classes=5),
    "pool of few channels": lambda: Pool([3, 64]),
    "pool of many channels": lambda: Pool([3, 8, 16]),
}


def refusals(rank: int) -> list[str]:
    """What a plain and a pooled layer say of one point in all, which the first rank has."""
    x, said = Case((1, 0), points=1).share(rank)[0].float(), []
    for model in (SharedMLP([3, 8]), Pool([3, 8])):
        try:
            synchronize_norms(model)(x)
        except ValueError as error:
            said.append(str(error))
    return said


def copied(rank: int) -> Tensor:
    """The running mean of a copy of a network whose norms have a group of their own."""
    model = copy.deepcopy(synchronize_norms(network(Case()), dist.new_group([0, 1])))
    model(Case().share(rank)[0])
    model.eval()
    return model.narrow[0].norm.running_mean


MUTATIONS: dict[str, list[tuple[object, str, Callable]]] = {
    "statistics of each rank": [(place, "group_of", lambda norm: None) for place in (masked, pooled)],
    "of the pooled layers of each rank": [(pooled, "group_of", lambda norm: None)],
    "of the dense head of each rank": [
        (masked, "group_of", lambda norm: None if norm.num_features < 7 else ranks.group_of(norm))
    ],
    "gradients of each rank": [(ranks._Total, "backward", staticmethod(lambda ctx, *grads: (grads[0], None)))],
    "the means of ranks not weighted": [
        (pooled, "moments_over_ranks", lambda group, n, m, s: unweighted(group, n, m, s, shifted=True))
    ],
    "the ranks' means taken for one": [
        (pooled, "moments_over_ranks", lambda group, n, m, s: unweighted(group, n, m, s, shifted=False))
    ],
    "the counts of each rank": [(masked, "totals", lambda group, *parts: [parts[0], *totals(group, *parts)[1:]])],
}
totals, moments_over_ranks = ranks.totals, ranks.moments_over_ranks


def unweighted(group: dist.ProcessGroup, count: Tensor, mean: Tensor, scatter: Tensor, shifted: bool) -> tuple:
    everyone, overall, spread = moments_over_ranks(group, count, mean, scatter)
    if not shifted:
        return everyone, overall, totals(group, scatter)[0]
    return everyone, totals(group, mean)[0] / RANKS, spread


def work(folder: Path, rank: int) -> None:
    """Everything, on this rank's share."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS)
    found: dict[str, object] = {f"run {name}": run(case, rank) for name, case in CASES.items()}
    found["run single"] = run(SINGLE, rank)
    found |= {f"train {name}": train(case, rank) for name, case in TRAINED.items()}
    found |= {f"traffic {name} {n}": steps_traffic(make, n) for name, make in MAKERS.items() for n in (8, 50)}
    found |= {"refusals": refusals(rank), "copied": copied(rank)}
    for title, broken in MUTATIONS.items():
        with patches(broken):
            found[f"broken {title}"] = run(CASES["unequal shares"], rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@contextmanager
def patches(broken: list[tuple[object, str, Callable]]) -> Iterator[None]:
    if not broken:
        yield
        return
    with patch.object(*broken[0]), patches(broken[1:]):
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.test_ranks", str(folder), str(rank)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    try:
        said = [worker.communicate(timeout=SECONDS)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0] * RANKS, "\n".join(said)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def together(of_ranks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What one process would have found: the ranks' clouds one after the other, the sums of their gradients."""
    whole = {}
    for name, first in of_ranks[0].items():
        parts = [of_rank[name] for of_rank in of_ranks]
        if name.startswith("buffer"):
            assert torch.equal(*parts), name
            whole[name] = first
        else:
            by_cloud = name in ("per point", "per cloud", "gradient of x")
            whole[name] = torch.cat(parts) if by_cloud else torch.stack(parts).sum(0)
    return whole


def errors(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """The largest differences over the largest entries."""
    assert list(got) == list(wanted)
    scale = {name: tensor.abs().max().clamp(min=1e-3) for name, tensor in wanted.items()}
    return {name: ((got[name] - wanted[name]).abs().max() / scale[name]).item() for name in got}


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one_process_with_both_batches(found, name):
    wrong = errors(together([of_rank[f"run {name}"] for of_rank in found]), run(CASES[name], None))
    assert all(value <= 1e-10 for value in wrong.values()), wrong


def test_two_ranks_err_at_most_twice_what_one_process_does(found):
    truth = run(dataclasses.replace(SINGLE, dtype=torch.float64), None)
    one = errors(run(SINGLE, None), truth)
    two = errors(together([of_rank["run single"] for of_rank in found]), truth)
    noise = max(one.values())  # the rounding of points far from the origin, which lands on one tensor or another
    allowed = {name: 2 * (one[name] if name.startswith("buffer") else noise) + 1e-6 for name in one}
    assert all(two[name] <= allowed[name] for name in two), (one, two)


@pytest.mark.parametrize("name", TRAINED)
def test_two_ranks_train_the_classifier_of_one_process(found, name):
    states = [of_rank[f"train {name}"] for of_rank in found]
    wanted = train(TRAINED[name], None)
    for key, value in wanted.items():
        assert torch.equal(states[0][key], states[1][key]), key
        assert (states[0][key] - value).abs().max() <= 1e-9 * max(1, value.abs().max()), key
    untrained = PointNetClassifier(num_classes=5).state_dict()
    assert list(states[0]) == list(untrained)


@pytest.mark.parametrize("title", MUTATIONS)
def test_a_broken_sum_over_ranks_is_caught(found, title):
    try:
        broken = together([of_rank[f"broken {title}"] for of_rank in found])
    except AssertionError:
        return  # the ranks' running statistics differ
    assert max(errors(broken, run(CASES["unequal shares"], None)).values()) > 1e-3


def norms_traffic(widths: list[int], pooled_last: bool = False, dtype: torch.dtype = torch.float32) -> list:
    """Of a shared MLP: the count and D sums, then D squares; of a pooled layer the same in float64."""
    kinds = [dtype] * (len(widths) - 2) + [torch.float64 if pooled_last else dtype]
    return [(n, kind) for d, kind in zip(widths[1:], kinds, strict=True) for n in (d + 1, d)]


@pytest.mark.parametrize("points", [8, 50])
def test_what_travels_is_two_numbers_a_channel_whatever_the_points(found, points):
    wanted = []
    for dim in (3, 64):
        wanted += norms_traffic([dim, 64, 128, 1024], True) + norms_traffic([1024, 512, 256])
        wanted += norms_traffic([3, 64, 64]) if dim == 3 else norms_traffic([64, 64, 128, 1024], True)
    wanted += norms_traffic([1024, 512, 256])
    for of_rank in found:
        seen = of_rank[f"traffic classifier {points}"]
        assert seen["forward"] == wanted
        assert sorted(seen["backward"], key=str) == sorted(wanted, key=str)
        assert seen["eval"] == []


def test_the_page_quotes_the_bytes_that_travel(found):
    page = (ROOT / "docs" / "identities.md").read_text(encoding="utf-8")
    ours = sum(numbers * dtype.itemsize for numbers, dtype in found[0]["traffic classifier 8"]["forward"])
    model = PointNetClassifier()
    widths = [norm.num_features for norm in model.modules() if isinstance(norm, nn.BatchNorm1d)]
    of_inputs = ours + 3 * 8 * ((128**2 + 128 + 1) - (2 * 1024 + 1))
    synchronized = 4 * sum(2 * d + 1 for d in widths)
    for figure in (ours, of_inputs, synchronized, 4 * sum(p.numel() for p in model.parameters())):
        assert f"| {figure:,} |" in page


@pytest.mark.parametrize("points", [8, 50])
def test_a_pool_sends_the_moments_of_its_input_where_those_are_fewer(found, points):
    for of_rank in found:
        few, many = (of_rank[f"traffic pool of {kind} channels {points}"] for kind in ("few", "many"))
        assert few["forward"] == few["backward"][::-1] == [(3 + 1, torch.float64), (3 * 3, torch.float64)]
        assert many["forward"][2:] == many["backward"][1::-1] == [(16 + 1, torch.float64), (16, torch.float64)]
        assert few["eval"] == many["eval"] == []


def test_one_point_on_all_ranks_together_is_refused_on_each(found):
    for of_rank in found:
        assert len(of_rank["refusals"]) == 2
        assert all(said.startswith("Expected more than 1 value per channel") for said in of_rank["refusals"])


def test_a_copied_network_keeps_its_group(found):
    model = network(Case())
    model(Case().batch()[0])
    for of_rank in found:
        torch.testing.assert_close(of_rank["copied"], model.narrow[0].norm.running_mean)


def test_without_ranks_nothing_changes():
    x = torch.randn(4, 3, 9)
    plain = SharedMLP([3, 8, 16])
    marked = synchronize_norms(copy.deepcopy(plain))
    for _ in range(2):
        assert torch.equal(marked(x), plain(x))
        assert torch.equal(marked.max_pool(x), plain.max_pool(x))
    torch.testing.assert_close(marked.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert type(marked[0].norm) is nn.BatchNorm1d


def test_norms_and_groups_it_cannot_synchronize_are_refused():
    with pytest.raises(ValueError, match="1: BatchNorm1d must be part of a SharedMLP"):
        synchronize_norms(nn.Sequential(SharedMLP([3, 8]), nn.BatchNorm1d(8)))
    with pytest.raises(ValueError, match="group must be a process group that this process is in, got -100"):
        synchronize_norms(SharedMLP([3, 8]), dist.GroupMember.NON_GROUP_MEMBER)


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*barrier.*")
    work(Path(sys.argv[1]), int(sys.argv[2]))
