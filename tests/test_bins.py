"""Neighbourhoods in bins: all of them, and what is left out counts."""

import copy

import pytest
import torch
from torch.nn import BatchNorm1d

from pointnet.layers import neighbourhoods, set_abstraction
from pointnet.ops import rows as rows_of
from pointnet.ops.bins import BINS, binned
from pointnet.ops.groups import Lot, groups_definition, pooled_rows
from pointnet.ops.neighbours import ball_query
from pointnet.ops.relative import near_mean, pairs_definition, pairs_linear


def clouds(count: int, points: int) -> torch.Tensor:
    return torch.randn(count, 3, points, dtype=torch.float64) / 2


@pytest.mark.parametrize("most", [1, 5, 16, 20])
def test_bins_hold_each_neighbourhood_once_with_what_they_leave_out(most):
    x = clouds(3, 40)
    neighbours = ball_query(x, x[:, :, :15], 0.7, most)
    order, bins = binned(neighbours, 40)
    assert order.sort().values.tolist() == list(range(45))
    assert len(bins) <= BINS
    whole = torch.cat([torch.cat([rows, rows[..., :1].expand(-1, -1, more)], 2) for rows, more in bins], 1)[0]
    starts = torch.arange(3).view(-1, 1, 1) * 40
    assert torch.equal(whole, (neighbours + starts).flatten(0, 1)[order])
    step = -(-most // BINS)
    for rows, more in bins:
        assert rows.shape[2] + more == most
        different = torch.tensor([len(row.unique()) for row in rows[0]])
        assert (different > rows.shape[2] - step).all()  # none would fit a smaller one


@pytest.mark.parametrize("size", [1, 4, 12])
def test_blocks_of_rows_have_few_sizes_on_a_cpu(monkeypatch, size):
    """The numbers of points in balls differ from step to step; a product is compiled for each number anew, and kept."""
    monkeypatch.setattr(rows_of, "ROWS", {"cpu": 100, "meta": 100})
    met = set()
    for groups in range(120):
        made = rows_of.made_of([torch.zeros(groups * size, 2)], size)
        blocks = [*made.blocks()]
        for of_groups, rows in blocks:
            assert (rows.start, rows.stop) == (of_groups.start * size, of_groups.stop * size)
            assert len(made.make(of_groups, rows)) <= max(100, size)
        assert [i for some, _ in blocks for i in range(some.start, some.stop)] == [*range(groups)]
        met |= {some.stop - some.start for some, _ in blocks}
        elsewhere = rows_of.made_of([torch.zeros(groups * size, 2, device="meta")], size)
        assert len([*elsewhere.blocks()]) == -(-groups // (100 // size))  # where each takes a launch
    assert len(met) <= 8


def pairs(size: int = 4) -> list[torch.Tensor]:
    a, b, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 5, 3), (2, 9, 3), (6, 3)))
    return [a.requires_grad_(), b.requires_grad_(), torch.randint(9, (2, 5, size)), weight.requires_grad_()]


@pytest.mark.parametrize("more", [0, 3])
def test_pairs_are_as_defined_with_all_gradients(more, monkeypatch):
    monkeypatch.setattr(rows_of, "ROWS", {"cpu": 8})
    a, b, neighbours, weight = pairs()
    given = a, b, neighbours, weight, near_mean(a, b, neighbours, weight), more
    wanted, got = pairs_definition(*given), pairs_linear(*given)
    torch.testing.assert_close(got, wanted)
    directions = [torch.randn_like(each) for each in wanted]
    of = [torch.autograd.grad(each, [a, b, weight], directions) for each in (wanted, got)]
    torch.testing.assert_close(of[1], of[0])


@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("of_pairs", [True, False])
def test_rows_that_are_made_block_by_block_are_as_rows_that_are_given(of_pairs, more, monkeypatch):
    monkeypatch.setattr(rows_of, "ROWS", {"cpu": 8})
    if of_pairs:
        *tables, neighbours, _ = pairs()
        made_of = [*tables, neighbours]
        rows = pairs_definition(*made_of, torch.eye(3, dtype=torch.float64))[0]
    else:
        affine = torch.tensor([[0.2, -0.4, 0.3], [1, -2, 0.5], [0.3, 0.2, -0.1]], dtype=torch.float64)
        made_of = [each.requires_grad_() for each in (torch.randn(40, 3, dtype=torch.float64), *affine.unbind())]
        z, mean, gain, shift = made_of
        rows = ((z - mean) * gain + shift).relu()
    learned, weight, norm = made_of[: 2 if of_pairs else 4], torch.randn(5, 3, dtype=torch.float64), BatchNorm1d(5)
    found, share = [], torch.randn(10, 5, dtype=torch.float64)
    for each in ([rows], made_of):
        y = pooled_rows([Lot(each, 4, more)], weight, None, copy.deepcopy(norm).double(), torch.nn.ReLU())
        found.append((y, *torch.autograd.grad((y * share).sum(), learned)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("activation", [torch.nn.ReLU(), torch.nn.GELU()], ids=["ReLU", "GELU"])
def test_groups_of_several_sizes_are_one_layer_s(activation):
    """As the whole groups, with what is left out written out."""
    weight, norm = torch.randn(5, 3, dtype=torch.float64), torch.nn.BatchNorm1d(5).double()
    torch.nn.init.normal_(norm.weight)
    lots = [
        Lot([torch.randn(12, 3, dtype=torch.float64, requires_grad=True)], *how) for how in ((3, 2), (4, 1), (1, 4))
    ]
    whole = []
    for (x,), size, more, _ in lots:
        groups = x.unflatten(0, (-1, size))
        whole.append(torch.cat([groups, groups[:, :1].expand(-1, more, -1)], 1))
    whole = torch.cat(whole).permute(2, 0, 1).unsqueeze(0)
    calls = (
        lambda norm: groups_definition(whole, weight, None, norm, activation)[0].T,
        lambda norm: pooled_rows(lots, weight, None, norm, activation),
    )
    found, share = [], torch.randn(19, 5, dtype=torch.float64)
    for call in calls:
        own = copy.deepcopy(norm)
        y = call(own)
        grads = torch.autograd.grad((y * share).sum(), [*(lot.parts[0] for lot in lots), own.weight])
        found.append((y, own.running_mean, own.running_var, *grads))
    torch.testing.assert_close(*found)


def test_moments_of_lots_are_those_of_all_rows():
    lots = [torch.randn(n, 4, dtype=torch.float64) + n for n in (1, 5, 30)]
    found = [(len(x), x.mean(0), (x - x.mean(0)).square().sum(0)) for x in lots]
    mean, squares = rows_of.moments_of_all(*zip(*found, strict=True))
    every = torch.cat(lots)
    torch.testing.assert_close(mean, every.mean(0))
    torch.testing.assert_close(squares, (every - every.mean(0)).square().sum(0))


def test_what_a_ball_repeats_is_hardly_computed(monkeypatch):
    """Of 15 balls with one point each, of 16 slots, a set abstraction computes no pair 16 times."""
    rows = []

    def counted(lots, *given):
        rows.extend(len(lot.parts[0]) for lot in lots)
        return pooled_rows(lots, *given)

    monkeypatch.setattr(neighbourhoods, "pooled_rows", counted)
    layer = set_abstraction.SetAbstraction(2, [[8, 8, 8]], 15, [1e-3], [16]).double()
    layer(clouds(2, 40), torch.randn(2, 2, 40, dtype=torch.float64))
    assert sum(rows) == 2 * 15 * 2  # bins of 2, 4, ... points
