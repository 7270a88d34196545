"""Two processes train as one with both their batches.

The two are started once, as `python -m tests.ranks FOLDER RANK`; each runs everything there on its share. One process
with the whole batch says what they should have found.
"""

import copy
import dataclasses
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pointnet import PointNetClassifier, SharedMLP
from pointnet.layers import synchronize_norms
from tests.helpers import ROOT
from tests.ranks import CASES, MUTATIONS, RANKS, SINGLE, TRAINED, Case, Neighbourhoods, classifier, network, run, train

SECONDS = 60  # a hang fails
pytestmark = pytest.mark.slow  # two processes of PyTorch are started


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks", str(folder), str(rank)],
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


def test_neighbourhoods_on_two_ranks_are_those_of_one_process_and_each_kind_counts(found):
    wanted = run(CASES["unequal shares"], None, Neighbourhoods)
    wrong = errors(together([of_rank["run neighbourhoods"] for of_rank in found]), wanted)
    assert all(value <= 1e-10 for value in wrong.values()), wrong
    for place in ("relative", "groups", "edges"):
        alone = [of_rank[f"pointnet.ops.{place} of each rank"] for of_rank in found]
        buffers = [{name: value for name, value in each.items() if "running" in name} for each in alone]
        assert max(errors(*buffers).values()) > 1e-3


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
    assert list(states[0]) == list(classifier().state_dict())


@pytest.mark.parametrize("title", MUTATIONS)
def test_a_broken_sum_over_ranks_is_caught(found, title):
    try:
        broken = together([of_rank[f"broken {title}"] for of_rank in found])
    except AssertionError:
        return  # the ranks' running statistics differ
    assert max(errors(broken, run(CASES["unequal shares"], None)).values()) > 1e-3


def test_what_travels_is_two_numbers_a_channel_whatever_the_points(found):
    widths = [norm.num_features for norm in PointNetClassifier().modules() if isinstance(norm, nn.BatchNorm1d)]
    for of_rank in found:
        few, many = of_rank["traffic 8"], of_rank["traffic 50"]
        assert few == many
        assert sum(numbers for numbers, _ in few["forward"]) == sum(2 * d + 1 for d in widths)
        assert sorted(few["backward"], key=str) == sorted(few["forward"], key=str)
        assert few["eval"] == []


def test_the_page_quotes_the_bytes_that_travel(found):
    page = (ROOT / "docs" / "identities.md").read_text(encoding="utf-8")
    ours = sum(numbers * dtype.itemsize for numbers, dtype in found[0]["traffic 8"]["forward"])
    model = PointNetClassifier()
    widths = [norm.num_features for norm in model.modules() if isinstance(norm, nn.BatchNorm1d)]
    of_inputs = ours + 3 * 8 * ((128**2 + 128 + 1) - (2 * 1024 + 1))
    synchronized = 4 * sum(2 * d + 1 for d in widths)
    for figure in (ours, of_inputs, synchronized, 4 * sum(p.numel() for p in model.parameters())):
        assert f"| {figure:,} |" in page


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
    with pytest.raises(ValueError, match="1: BatchNorm1d must be of a SharedMLP"):
        synchronize_norms(nn.Sequential(SharedMLP([3, 8]), nn.BatchNorm1d(8)))
    with pytest.raises(ValueError, match="group must be a process group that this process is in, got -100"):
        synchronize_norms(SharedMLP([3, 8]), dist.GroupMember.NON_GROUP_MEMBER)
