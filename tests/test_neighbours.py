"""Sampling, balls, nearest neighbours and interpolation: the fast twins against the definitions, and their laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pointnet.ops import blocked, products
from pointnet.ops.blocked import balls, balls_on_cpu, farthest_on_cpu, nearest, nearest_on_cpu, squared_distances
from pointnet.ops.neighbours import (
    ball_definition,
    ball_query,
    farthest_definition,
    farthest_point_sampling,
    gather,
    interpolate,
    interpolate_definition,
    knn,
    knn_definition,
)
from tests.processors import PROCESSORS

LATTICE = torch.cartesian_prod(*[torch.arange(-2.0, 3)] * 3).T[None]  # (1, 3, 125); its centre is point 62


def batch(clouds: int, size: int, ragged: bool, lattice: bool, dtype=torch.float64) -> tuple[Tensor, Tensor | None]:
    """Points, on a lattice with ties and copies or anywhere, and lengths beyond which nothing is a number."""
    points = torch.randn(clouds, 3, size, dtype=dtype)
    points = (2 * points).round() if lattice else points
    if not ragged:
        return points, None
    lengths = torch.randint(1, size + 1, (clouds,))
    return points.masked_fill(torch.arange(size) >= lengths[:, None, None], torch.nan), lengths


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", {"cpu": 100})
    monkeypatch.setattr(blocked, "NEAREST_BLOCK", 100)
    monkeypatch.setattr(blocked, "FARTHEST_BLOCK", 60)


def assert_fast_is_the_definition(points: Tensor, lengths: Tensor | None, count: int, neighbours: int) -> None:
    first = torch.zeros(len(points), dtype=torch.int64) if lengths is None else lengths - 1
    samples = farthest_definition(points, count, lengths, first)
    assert torch.equal(farthest_on_cpu(points, count, lengths, first), samples)
    centres = gather(points, samples)
    for radius in (0.5, 1.0, 2.0):
        wanted = ball_definition(points, centres, radius, neighbours, lengths)
        for fast in (balls, balls_on_cpu):
            assert torch.equal(fast(points, centres, radius, neighbours, lengths), wanted), fast
    wanted = knn_definition(points, centres, neighbours, lengths)
    for fast in (nearest, nearest_on_cpu):
        assert torch.equal(fast(points, centres, neighbours, lengths), wanted), fast


@given(
    clouds=st.integers(1, 4),
    size=st.integers(1, 300),
    count=st.integers(1, 40),
    neighbours=st.integers(1, 40),
    ragged=st.booleans(),
    lattice=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_fast_twins_find_what_the_definitions_find(clouds, size, count, neighbours, ragged, lattice, seed):
    torch.manual_seed(seed)
    assert_fast_is_the_definition(*batch(clouds, size, ragged, lattice), count, neighbours)


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("size", [1, 2, 33, 257, 1000])
def test_blocks_of_distances_change_nothing(size, ragged, small_blocks):
    assert_fast_is_the_definition(*batch(3, size, ragged, lattice=False), 30, 5)


@pytest.mark.parametrize("ragged", [True, False])
def test_ties_go_to_the_lowest_index_in_single_precision_too(ragged):
    assert_fast_is_the_definition(*batch(3, 700, ragged, lattice=True, dtype=torch.float32), 50, 20)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("channels", [3, 20, 64])
def test_of_equal_points_the_first_is_the_nearer_wherever_they_stand(monkeypatch, channels, processor):
    monkeypatch.setattr(products, "capabilities", lambda: PROCESSORS[processor])
    twice = torch.randn(1, channels, 301).repeat(1, 1, 2)[:, :, torch.randperm(602)]
    for fast in (nearest, nearest_on_cpu):
        found = fast(twice, twice, 12, None)
        first, second = found[:, :, ::2], found[:, :, 1::2]
        assert torch.equal(gather(twice, first), gather(twice, second))
        assert (first < second).all()


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("channels", [3, 64])
def test_in_single_precision_neighbours_are_the_nearest_up_to_its_rounding(channels, offset):
    points = torch.randn(2, channels, 600) + offset
    wanted = squared_distances(points.double(), points.double()).sort(dim=2).values[:, :, :20]
    for fast in (nearest, nearest_on_cpu):
        found = fast(points, points, 20, None)
        assert (found[:, :, 0] == torch.arange(600)).all()
        got = (gather(points, found).double() - points.double().unsqueeze(3)).square().sum(1)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_each_sample_is_the_farthest_from_those_before_it():
    points = torch.randn(2, 3, 200)
    samples = farthest_point_sampling(points, 50, first=torch.tensor([7, 0]))
    assert samples[:, 0].tolist() == [7, 0]
    for at in range(1, 50):
        to_taken = squared_distances(gather(points, samples[:, :at]), points).amin(2)
        assert torch.equal(samples[:, at], to_taken.argmax(1))
    assert torch.equal(farthest_point_sampling(points, 9, first=3)[:, 0], torch.tensor([3, 3]))


def test_a_cloud_that_is_used_up_repeats_its_first_point():
    samples = farthest_point_sampling(LATTICE[:, :, :4], 7, first=2)
    assert samples[0, :4].sort().values.tolist() == [0, 1, 2, 3]
    assert samples[0, 4:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_where_rounding_would_decide_squared_differences_do(monkeypatch, processor):
    monkeypatch.setattr(products, "capabilities", lambda: PROCESSORS[processor])
    points = torch.randn(1, 20, 300)
    points[:, :, 0] += 1e5
    assert (knn(points, 6) == knn_definition(points, points, 6, None)).all(2).sum() > 290


def test_a_ball_is_the_first_points_nearer_than_its_radius_and_then_the_first_of_them():
    centre = torch.zeros(1, 3, 1)
    around = ball_query(LATTICE, centre, 1.0, 4)
    assert around.flatten().tolist() == [62, 62, 62, 62]  # its six neighbours are at the rim, which is outside
    distances = LATTICE[0].norm(dim=0)
    inside = (distances < 1.1).nonzero().flatten().tolist()
    assert len(inside) == 7
    assert ball_query(LATTICE, centre, 1.1, 4).flatten().tolist() == inside[:4]
    assert ball_query(LATTICE, centre, 1.1, 9).flatten().tolist() == [*inside, inside[0], inside[0]]
    assert ball_query(LATTICE, centre, 99.0, 200).flatten().tolist() == [*range(125), *[0] * 75]
    assert ball_query(LATTICE, centre + 9, 1.0, 2).flatten().tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rim_is_where_the_root_reaches_the_radius_to_the_last_bit(dtype):
    for radius in [1e-30, *torch.rand(200).tolist()]:  # the first one has a square of 0 in float32
        rim = torch.full((1, 3, 41), 0.0, dtype=dtype)
        steps = 1 + torch.arange(-20, 21) * torch.finfo(dtype).eps / 2
        rim[0, 0] = radius * steps
        centre = torch.zeros(1, 3, 1, dtype=dtype)
        found = balls_on_cpu(rim, centre, radius, 41, None)
        assert torch.equal(found, ball_definition(rim, centre, radius, 41, None))


def test_a_point_is_its_own_nearest_and_the_nearest_repeats_where_there_are_too_few():
    points = torch.randn(2, 5, 7)
    found = knn(points, 10)
    assert torch.equal(found[:, :, 0], torch.arange(7).expand(2, -1))
    assert torch.equal(found[:, :, 7:], found[:, :, :1].expand(-1, -1, 3))
    assert (found[:, :, :7].sort(2).values == torch.arange(7)).all()


@pytest.mark.parametrize("find", [
    lambda points, lengths: farthest_point_sampling(points, 12, lengths),
    lambda points, lengths: ball_query(points, points[:, :, :5], 1.5, 6, lengths),
    lambda points, lengths: knn(points, 8, points[:, :, :5], lengths),
    lambda points, lengths: knn(points, 8, None, lengths)[:, :5],
    lambda points, lengths: interpolate(points, points, points[:, :, :5].roll(1, 1), lengths),
])  # fmt: skip
def test_padding_is_nobodys_neighbour_and_a_cloud_alone_finds_the_same(find):
    lengths = torch.tensor([40, 9, 5])
    points = torch.randn(3, 3, 40, dtype=torch.float64)
    padded = points.masked_fill(torch.arange(40) >= lengths[:, None, None], torch.nan)
    together = find(padded, lengths)
    for cloud, length in enumerate(lengths):
        alone = find(points[cloud : cloud + 1, :, :length], None)
        torch.testing.assert_close(together[cloud : cloud + 1], alone, rtol=1e-12, atol=1e-12)


def test_queries_that_are_padding_find_points_that_exist():
    points, lengths = torch.full((2, 3, 50), torch.nan), torch.tensor([3, 50])
    points[0, :, :3], points[1] = torch.randn(3, 3), torch.randn(3, 50)
    assert (knn(points, 5, lengths=lengths)[0] < 3).all()


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_interpolation_is_its_definition_in_value_and_gradient(size, ragged):
    points, lengths = batch(3, size, ragged, lattice=False)
    features = torch.randn(3, 4, size, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(3, 3, 20, dtype=torch.float64)
    queries[:, :, 0] = points[:, :, 0]
    found = [function(features, points, queries, lengths) for function in (interpolate, interpolate_definition)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(found[0])
    torch.testing.assert_close(*(torch.autograd.grad((each * direction).sum(), features) for each in found))
    torch.testing.assert_close(found[0][:, :, 0], features[:, :, 0], rtol=1e-7, atol=1e-7)  # what is known
    level = interpolate(torch.ones_like(features), points, queries, lengths)
    torch.testing.assert_close(level, torch.ones_like(level))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cloud_of_few_points_is_interpolated_between_those_it_has(length):
    points, features, queries = torch.randn(1, 3, 9), torch.randn(1, 4, 9), torch.randn(1, 3, 20)
    padded = interpolate(features, points, queries, torch.tensor([length]))
    alone = interpolate(features[:, :, :length], points[:, :, :length], queries)
    torch.testing.assert_close(padded, alone)


def test_weights_are_one_over_squared_distances():
    points = torch.tensor([[[1.0, -2.0, 4.0, 9.0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    value = interpolate(torch.tensor([[[1.0, 10.0, 100.0, 1e6]]]), points, torch.zeros(1, 3, 1))
    torch.testing.assert_close(value.item(), (1 + 10 / 4 + 100 / 16) / (1 + 1 / 4 + 1 / 16))


def test_nothing_of_the_twins_for_other_devices_waits_for_the_device():
    """Tensors without data have nothing to wait for: reading a number from one raises."""
    points, lengths = torch.empty(2, 3, 100, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        points.nonzero()
    samples = farthest_definition(points, 10, lengths, lengths)
    assert samples.shape == (2, 10)
    assert balls(points, points[:, :, :10], 0.2, 5, lengths).shape == (2, 10, 5)
    for dtype in (torch.float32, torch.float64):
        assert nearest(points.to(dtype), points.to(dtype), 5, lengths).shape == (2, 100, 5)


def test_the_operators_are_well_formed_and_take_any_float():
    points, lengths = torch.randn(2, 3, 50), torch.tensor([50, 7])
    centres, first = points[:, :, :4].clone(), torch.zeros(2, dtype=torch.int64)
    for name, inputs in (
        ("farthest_point_sampling", (points, 5, lengths, first)),
        ("ball_query", (points, centres, 0.5, 5, lengths)),
        ("knn", (points, centres, 5, lengths)),
    ):
        operator = getattr(torch.ops.pointnet, name).default
        torch.library.opcheck(operator, inputs, test_utils=("test_schema", "test_faketensor"))
    half = points.bfloat16().requires_grad_()
    assert torch.equal(knn(half, 5, lengths=lengths), knn(half.float(), 5, lengths=lengths))
    assert not ball_query(half, half, 0.5, 4).requires_grad
    assert torch.equal(farthest_point_sampling(half, 5), farthest_point_sampling(half.float(), 5))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_graph_holds_standard_operators():
    def find(points: Tensor) -> tuple[Tensor, ...]:
        centres = gather(points, farthest_point_sampling(points, 4))
        return ball_query(points, centres, 0.5, 5), knn(points, 5, centres)

    points = torch.randn(2, 3, 40)
    traced = torch.jit.trace(find, points)
    assert not [node.kind() for node in traced.inlined_graph.nodes() if not node.kind().startswith(("aten", "prim"))]
    for got, wanted in zip(traced(points), find(points), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize(("call", "message"), [
    (lambda x: farthest_point_sampling(x[0], 3), "points must be (B, C, N) numbers with N >= 1, got (3, 9)"),
    (lambda x: farthest_point_sampling(x[:, :, :0], 3), "N >= 1, got (2, 3, 0)"),
    (lambda x: farthest_point_sampling(x, 0), "count must be at least 1, got 0"),
    (lambda x: farthest_point_sampling(x, 3, first=9), "first must be an index below 9, the number of points, got 9"),
    (lambda x: farthest_point_sampling(x, 3, first=x[:, 0, 0]), "first must be (2,) int64, one per cloud, got (2,)"),
    (lambda x: farthest_point_sampling(x, 3, torch.tensor([9, 4]), torch.tensor([8, 4])), "that exist, got [8, 4]"),
    (lambda x: ball_query(x, x[:, :2], 0.1, 3), "centres must be (2, 3, S) as the points are, got (2, 2, 9)"),
    (lambda x: ball_query(x, x, -0.1, 3), "radius must be above 0, got -0.1"),
    (lambda x: knn(x.long(), 3), "numbers with N >= 1, got (2, 3, 9) torch.int64"),
    (lambda x: knn(x, 0), "neighbours must be at least 1, got 0"),
    (lambda x: knn(x, 3, lengths=torch.tensor([1.0, 2.0])), "lengths must be (2,) integers, one per cloud, got (2,)"),
    (lambda x: interpolate(x[:, :, :4], x, x), "features must be (2, D, 9), one column per point, got (2, 3, 4)"),
])  # fmt: skip
def test_a_wrong_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as refused:
        call(torch.randn(2, 3, 9))
    assert message in str(refused.value)


def test_neighbours_are_as_precise_under_autocast():
    points = torch.randn(2, 3, 300) + 10
    wanted = nearest(points, points, 9, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(points, points, 9, None), wanted)
        assert torch.equal(knn(points, 9), wanted)


def scattered(kind: str) -> Tensor:
    """(1, 3, 700) as they come from files: not centred, and with points far from the others."""
    inside = torch.rand(1, 3, 700)
    if kind == "a stray first point":
        inside[:, :, 0] = 1e4
    if kind == "zeros before survey coordinates":
        inside = inside * 10 + torch.tensor([5e5, 5e6, 100]).view(1, 3, 1)
        inside[:, :, 0] = 0
    if kind == "two things far apart":
        inside[:, :, 350:] += 1000
    if kind == "a scanner, dense about it":
        inside = (inside - 0.5) * 100 * torch.rand(1, 1, 700) ** 3
    return inside


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize(
    "kind",
    ["a stray first point", "zeros before survey coordinates", "two things far apart", "a scanner, dense about it"],
)
def test_neighbours_are_the_nearest_wherever_the_points_are(kind, ragged):
    points = scattered(kind)
    there = torch.arange(700) < (600 if ragged else 700)
    lengths = torch.tensor([600]) if ragged else None
    distances = (points.double().unsqueeze(3) - points.double().unsqueeze(2)).square().sum(1).sqrt()
    distances = distances.where(there, torch.inf)
    wanted = distances.sort(dim=2).values[:, :600, :16]
    found = knn(points, 16, lengths=lengths)[:, :600]
    assert torch.equal(found.sort(2).values.diff(dim=2) > 0, torch.ones(1, 600, 15, dtype=torch.bool))
    got = distances[:, :600].gather(2, found)
    torch.testing.assert_close(got, wanted, rtol=0.011, atol=0)  # as the page of the module says
    # At a point its own value comes back.
    values = torch.randn(1, 4, 700)
    some = torch.randperm(600)[:50]
    back = interpolate(values, points, points[:, :, some], lengths)
    apart = wanted[:, some, 1] > 0.01  # else others have a weight of their own
    torch.testing.assert_close(back.mT[apart], values[:, :, some].mT[apart], rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("size", [9, 3000])
def test_where_points_are_not_finite_neighbours_exist_and_no_finite_cloud_changes(size, value):
    points = torch.randn(3, 3, size)
    spoiled = points.clone()
    spoiled[1, :, 4] = value
    found = knn(spoiled, 5)
    assert 0 <= found.min() <= found.max() < size
    assert torch.equal(found[::2], knn(points, 5)[::2])
    assert 0 <= knn(spoiled * torch.nan, 5).min() <= knn(spoiled * torch.nan, 5).max() < size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_a_point_gets_its_own_value_back(dtype):
    points, values = torch.randn(2, 3, 40).to(dtype), torch.randn(2, 5, 40).to(dtype)
    torch.testing.assert_close(interpolate(values, points, points), values, rtol=0, atol=1e-2)


def test_no_queries_find_nothing():
    points = torch.randn(2, 3, 9)
    assert ball_query(points, points[:, :, :0], 0.5, 4).shape == knn(points, 4, points[:, :, :0]).shape == (2, 0, 4)
