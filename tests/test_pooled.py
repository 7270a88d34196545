"""Identities 2, 3 and 4: linear, norm, activation and max, fast and by definition."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pointnet import SharedMLP
from pointnet.ops import winners
from pointnet.ops.edges import edges_definition, pooled_edges
from pointnet.ops.groups import groups_definition, pooled_groups
from pointnet.ops.masked import point_mask
from pointnet.ops.neighbours import gather
from pointnet.ops.pooled import extremes, moments, moments_at_once, pooled, pooled_definition
from tests.helpers import ACTIVATIONS, NORMS, Largest


class Problem:
    """One layer and the batches for it, in float64, to be run in any dtype."""

    def __init__(self, clouds, channels, out, points, norm="batch", activation="relu", bias=True, ragged=False, seed=0):
        torch.manual_seed(seed)
        self.batches = [torch.randn(clouds, channels, points, dtype=torch.float64) for _ in range(3)]
        self.weight = torch.randn(out, channels, dtype=torch.float64) / channels**0.5
        self.bias = torch.randn(out, dtype=torch.float64) if bias else None
        self.norm = NORMS[norm](out)
        if self.norm is not None:
            self.norm = self.norm.double()
            if self.norm.affine:
                nn.init.normal_(self.norm.weight)
                nn.init.normal_(self.norm.bias)
            if self.norm.running_var is not None:
                self.norm.running_var.uniform_(0.5, 2.0)
        self.activation = ACTIVATIONS[activation]
        self.lengths = torch.randint(1, points + 1, (clouds,)) if ragged else None
        self.direction = torch.randn(clouds, out, dtype=torch.float64)

    def run(self, function, dtype=torch.float64) -> dict[str, Tensor]:
        """Outputs and every gradient of each batch, then the running statistics after all of them."""
        norm = copy.deepcopy(self.norm)
        if norm is not None:
            norm.to(dtype)
        found = {}
        for step, batch in enumerate(self.batches):
            x = batch.to(dtype).requires_grad_()
            weight = self.weight.to(dtype).requires_grad_()
            bias = None if self.bias is None else self.bias.to(dtype).requires_grad_()
            mask = None if self.lengths is None else point_mask(self.lengths, x)
            y = function(x, weight, bias, norm, self.activation, mask)
            named = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
            named |= {} if norm is None else {f"norm.{name}": p for name, p in norm.named_parameters()}
            grads = torch.autograd.grad((y * self.direction.to(dtype)).sum(), list(named.values()))
            found |= {f"output {step}": y.detach()}
            found |= {f"gradient of {name} {step}": grad for name, grad in zip(named, grads, strict=True)}
        if norm is not None:
            found |= {name: buffer.clone() for name, buffer in norm.named_buffers()}
        return found


def error(got: Tensor, wanted: Tensor, floor: float = 1e-3) -> float:
    """The largest difference over the largest entry."""
    return ((got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=floor)).item()


def assert_fast_is_exact(problem: Problem) -> None:
    wanted, got = problem.run(pooled_definition), problem.run(pooled)
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        assert error(got[name], tensor, floor=1.0 if "bias" in name else 1e-3) <= 1e-10, name


@given(
    clouds=st.integers(1, 4),
    channels=st.integers(1, 9),
    out=st.integers(1, 9),
    points=st.integers(2, 40),
    norm=st.sampled_from(sorted(NORMS)),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.booleans(),
    ragged=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_fast_equals_the_definition_in_value_gradients_and_running_statistics(**settings):
    problem = Problem(**settings)
    if problem.lengths is None or problem.lengths.sum() >= 2:
        assert_fast_is_exact(problem)


@pytest.mark.parametrize("points", [1, 2, 257, 1024, 1500])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_blocks_of_points_change_nothing(points, ragged, activation):
    assert_fast_is_exact(Problem(3, 5, 7, points, activation=activation, ragged=ragged))


@pytest.mark.parametrize("channels", [1, 64, 65, 200])
@pytest.mark.parametrize("ragged", [True, False])
def test_strips_of_the_scatter_make_the_whole_of_it(channels, ragged):
    x = torch.randn(3, channels, 30, dtype=torch.float64) + 5
    mask = point_mask(torch.tensor([30, 7, 12]), x) if ragged else None
    rows = x.transpose(1, 2)[slice(None) if mask is None else mask.squeeze(1)].reshape(-1, channels)
    mean, scatter = moments(x, mask)
    torch.testing.assert_close(scatter, scatter.T, rtol=1e-14, atol=1e-12)
    torch.testing.assert_close(mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    centred = rows - rows.mean(0)
    torch.testing.assert_close(scatter, centred.T @ centred, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_clouds_that_are_worked_on_alone_change_nothing(monkeypatch, ragged, activation):
    monkeypatch.setattr(winners, "LARGE", 1)
    assert_fast_is_exact(Problem(3, 5, 7, 11, activation=activation, ragged=ragged))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_winners_of_a_cloud_alone_give_what_those_of_many_give(monkeypatch, dtype):
    x, weight = torch.randn(3, 5, 11).to(dtype), torch.randn(7, 5)
    grad, won = torch.randn(2, 3, 7), torch.randint(11, (2, 3, 7))
    found = []
    for large in (1, 10_000):
        monkeypatch.setattr(winners, "LARGE", large)
        found.append((winners.values_at(won, x, weight), *winners.through_extremes(grad, x, weight, won)))
    for alone, together in zip(*found, strict=True):
        assert alone.dtype == together.dtype
        torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("tile", [7, 64])
@pytest.mark.parametrize("ragged", [True, False])
def test_moments_at_once_are_those_in_strips(monkeypatch, tile, ragged):
    """As a GPU takes them; far from the origin too, in as many tiles as there are."""
    monkeypatch.setitem(winners.TILE, "cpu", tile)
    x = torch.randn(3, 5, 30) + 1000 * torch.randn(5, 1)
    mask = point_mask(torch.tensor([30, 7, 12]), x) if ragged else None
    given = (x if mask is None else x.masked_fill(~mask, torch.nan), mask)
    for got, wanted in zip(moments_at_once(*given), moments(*given), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_a_thread_alone_computes_the_same(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    problem = Problem(2, 64, 33, 257)
    truth = problem.run(pooled_definition)
    eager, fast = (problem.run(function, torch.float32) for function in (pooled_definition, pooled))
    for name, tensor in truth.items():
        assert error(fast[name], tensor) <= 2 * error(eager[name], tensor) + 1e-6, name


def ordinary(x: Tensor, weight: Tensor) -> None:
    pass


def far_from_the_origin(x: Tensor, weight: Tensor) -> None:
    x += 1000


def one_dominant_direction(x: Tensor, weight: Tensor) -> None:
    direction = torch.nn.functional.normalize(torch.randn(x.shape[1], dtype=x.dtype), dim=0)
    x += 1000 * torch.randn(x.shape[0], 1, x.shape[2], dtype=x.dtype) * direction[:, None]


def channels_orthogonal_to_it(x: Tensor, weight: Tensor) -> None:
    x[:, 0] += 1000 * torch.randn(x.shape[0], x.shape[2], dtype=x.dtype)
    weight[::2, 0] = 0


def the_last_point_wins(x: Tensor, weight: Tensor) -> None:
    x[..., -1] *= 100


@pytest.mark.parametrize("points", [257, 1500])
@pytest.mark.parametrize("activation", ["relu", "gelu", "none"])
@pytest.mark.parametrize(
    "bend", [ordinary, far_from_the_origin, one_dominant_direction, channels_orthogonal_to_it, the_last_point_wins]
)
def test_fast_errs_at_most_twice_what_plain_pytorch_does(bend, activation, points):
    problem = Problem(4, 64, 33, points, activation=activation)
    for batch in problem.batches:
        bend(batch, problem.weight)
    # The same inputs for all three: what float32 can hold.
    problem.batches = [batch.float().double() for batch in problem.batches]
    problem.weight = problem.weight.float().double()
    problem.bias = problem.bias.float().double()
    truth = problem.run(pooled_definition)
    eager, fast = (problem.run(function, torch.float32) for function in (pooled_definition, pooled))
    for name, tensor in truth.items():
        if name.startswith("gradient of bias"):  # exactly 0 before a norm
            assert fast[name].abs().max() <= eager[name].abs().max() + 1e-6, name
            continue
        allowed = 2 * error(eager[name], tensor) + 1e-6
        assert error(fast[name], tensor) <= allowed, f"{name}: {error(fast[name], tensor):.1e} > {allowed:.1e}"
    # Channel by channel: the variances orthogonal to a dominant direction are small beside the others.
    off = {name: (run["running_var"].double() / truth["running_var"] - 1).abs() for name, run in
           (("eager", eager), ("fast", fast))}  # fmt: skip
    assert off["fast"].max() <= 2 * off["eager"].max() + 1e-6


def test_scatter_in_single_precision_would_be_useless():
    """Why the moments are float64: a channel orthogonal to a dominant direction loses its variance in float32."""
    x = torch.randn(8, 16, 500)
    direction = torch.nn.functional.normalize(torch.randn(16), dim=0)
    x = x + 1e4 * torch.randn(8, 1, 500) * direction[:, None]
    orthogonal = torch.randn(16)
    orthogonal -= (orthogonal @ direction) * direction
    z = torch.einsum("c,bcn->bn", orthogonal.double(), x.double())
    true = z.var(correction=0)
    _, scatter = moments(x)
    w = orthogonal.double()
    assert (w @ scatter @ w / z.numel() / true - 1).abs() < 1e-6
    centred = x - x.mean((0, 2), keepdim=True)
    single = torch.einsum("bcn,bdn->cd", centred, centred)
    assert (orthogonal @ single @ orthogonal / z.numel() / true - 1).abs() > 0.1


@pytest.mark.parametrize("dominant", [10, 100, 1000])
def test_a_scatter_of_bfloat16_points_loses_less_than_these_have_lost(dominant):
    x = torch.randn(8, 16, 2000, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
    x = x + dominant * torch.randn(8, 1, 2000, dtype=torch.float64) * direction[:, None]
    w = torch.randn(16, dtype=torch.float64)
    w -= (w @ direction) * direction

    def variance(points):
        return torch.einsum("c,bcn->bn", w, points.double()).var(correction=0)

    of_rounded = variance(x.bfloat16())
    ours = w @ moments(x.bfloat16())[1] @ w / (8 * 2000)
    assert (ours - of_rounded).abs() <= 0.1 * (of_rounded - variance(x)).abs()


def test_on_ties_the_lowest_index_wins():
    x = torch.tensor([[[1.0, 5.0, 5.0, 0.0, 5.0]]], requires_grad=True)
    pooled(x, torch.ones(1, 1), None, None, None).sum().backward()
    assert x.grad.tolist() == [[[0.0, 1.0, 0.0, 0.0, 0.0]]]
    for points in (3000, 4096):
        level = torch.zeros(1, 1, points, requires_grad=True)
        pooled(level, torch.ones(1, 1), None, None, None).sum().backward()
        assert level.grad.nonzero().tolist() == [[0, 0, 0]]


def test_a_norm_of_scale_zero_counts_as_rising():
    problem = Problem(3, 5, 4, 20)
    problem.norm.weight.data[:2] = 0.0
    wanted, got = problem.run(pooled_definition), problem.run(pooled)
    for name, tensor in wanted.items():
        # There every point ties: the definition's gradient is the first point's, ours is that of the largest z.
        kept = slice(2, None) if "norm.weight" in name else ...
        assert error(got[name][kept], tensor[kept], floor=1.0 if "bias" in name else 1e-3) <= 1e-10, name
    problem.norm.weight.data[:2] = 1e-9
    name = "gradient of norm.weight 0"
    torch.testing.assert_close(got[name], problem.run(pooled_definition)[name], rtol=1e-4, atol=1e-6)


def test_a_point_that_is_not_a_number_is_not_hidden():
    for points in (5, 3000):
        x = torch.randn(2, 3, points)
        x[1, 0, 1] = torch.nan
        y = pooled(x, torch.randn(4, 3), None, None, nn.ReLU())
        assert y[0].isfinite().all()
        assert y[1].isnan().all()


@pytest.mark.parametrize(
    "activation", [nn.PReLU(init=-0.5), torch.sin, nn.LeakyReLU(-0.1), nn.ELU(-1.0), nn.Softshrink()]
)
def test_any_other_activation_takes_the_definition(activation):
    mlp = SharedMLP([3, 4, 5], activation=activation)
    twin = copy.deepcopy(mlp)
    x = torch.randn(2, 3, 9)
    torch.testing.assert_close(mlp.max_pool(x), twin(x).max(2).values)
    activation, weight, neighbours = mlp[0].activation, torch.randn(4, 3), torch.randint(0, 9, (2, 9, 4))
    pairs = gather(x, neighbours)
    for fast, definition, inputs in (
        (pooled, pooled_definition, (x, weight, None)),
        (pooled_edges, edges_definition, (x, x, neighbours)),
        (pooled_groups, groups_definition, (pairs, weight, None)),
    ):
        torch.testing.assert_close(fast(*inputs, None, activation), definition(*inputs, None, activation))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_the_gradients_are_right_by_finite_differences(masked, both):
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    mask = point_mask(torch.tensor([6, 3]), x) if masked else None
    assert torch.autograd.gradcheck(lambda x, w: extremes(x, w, mask, both), (x, weight))
    assert torch.autograd.gradcheck(lambda x: moments(x, mask), (x,))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_widest_layers_output_never_exists(activation):
    clouds, channels, out, points = 4, 8, 64, 2048
    mlp = SharedMLP([3, channels, out], activation=activation)
    x = torch.randn(clouds, 3, points)
    with Largest() as fast:
        mlp.max_pool(x).sum().backward()
    with Largest() as plain:
        mlp(x).max(2).values.sum().backward()
    assert plain.numel == clouds * out * points
    assert fast.numel <= max(clouds * channels * points, out * points)


def test_an_empty_batch_spoils_no_running_statistics():
    mlp = SharedMLP([3, 8])
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        mlp.max_pool(torch.zeros(0, 3, 5))
    assert all(buffer.isfinite().all() for buffer in mlp.buffers())
