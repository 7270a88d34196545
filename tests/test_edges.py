"""Identities 11 and 12: a max over neighbours and over groups, without pairs, against their definitions."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pointnet.ops import edges
from pointnet.ops import rows as rows_of
from pointnet.ops.edges import edge_extremes, edge_moments, edges_definition, first_with, pooled_edges, rows_summed
from pointnet.ops.groups import grouped, groups_definition, pooled_groups, through_winners
from pointnet.ops.masked import point_mask
from pointnet.ops.neighbours import gather, interpolate
from tests.forms import forms
from tests.helpers import ACTIVATIONS, NORMS, Largest


class Problem:
    """Inputs of three steps in float64, and a layer after them, to be run in any dtype."""

    def __init__(self, out: int, norm: str, activation: str, seed: int):
        torch.manual_seed(seed)
        self.norm, self.activation = NORMS[norm](out), ACTIVATIONS[activation]
        if self.norm is not None:
            self.norm = self.norm.double()
            if self.norm.affine:
                nn.init.normal_(self.norm.weight)
                nn.init.normal_(self.norm.bias)
            if self.norm.running_var is not None:
                self.norm.running_var.uniform_(0.5, 2.0)
        self.steps: list[tuple[dict[str, Tensor], tuple]] = []  # what has gradients, by name, and what has none

    def run(self, function: Callable, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Outputs and every gradient of each step, then the running statistics after all of them."""
        norm, found = copy.deepcopy(self.norm), {}
        norm = None if norm is None else norm.to(dtype)
        for step, (inputs, fixed) in enumerate(self.steps):
            named = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
            y = self.call(function, named, fixed, norm)
            named |= {} if norm is None else {f"norm.{name}": p for name, p in norm.named_parameters()}
            direction = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
            grads = torch.autograd.grad((y * direction.to(dtype)).sum(), list(named.values()))
            found |= {f"output {step}": y.detach()}
            found |= {f"gradient of {name} {step}": grad for name, grad in zip(named, grads, strict=True)}
        return found | ({} if norm is None else {name: buffer.clone() for name, buffer in norm.named_buffers()})


class Edges(Problem):
    twins = (edges_definition, pooled_edges)

    def __init__(self, clouds=3, out=5, points=30, centres=20, neighbours=7, norm="batch", activation="relu",
                 ragged=False, seed=0):  # fmt: skip
        super().__init__(out, norm, activation, seed)
        for _ in range(3):
            a = torch.randn(clouds, out, centres, dtype=torch.float64)
            b = torch.randn(clouds, out, points, dtype=torch.float64)
            indices = torch.randint(points, (clouds, centres, neighbours))
            indices[:, :, neighbours // 2 :] = indices[:, :, :1]  # copies, as of a ball that is not full
            lengths = torch.randint(1, centres + 1, (clouds,)) if ragged else None
            mask = None if lengths is None else point_mask(lengths, a)
            if mask is not None:
                a = a.masked_fill(~mask, torch.nan)
            self.steps.append(({"a": a, "b": b}, (indices, mask)))

    def call(self, function, named, fixed, norm):
        return function(named["a"], named["b"], fixed[0], norm, self.activation, fixed[1])


class Groups(Problem):
    twins = (groups_definition, pooled_groups)

    def __init__(self, clouds=3, channels=6, out=5, centres=20, neighbours=7, norm="batch", activation="relu",
                 bias=True, seed=0):  # fmt: skip
        super().__init__(out, norm, activation, seed)
        weight = torch.randn(out, channels, dtype=torch.float64) / channels**0.5
        for _ in range(3):
            x = torch.randn(clouds, channels, centres, max(1, neighbours // 2), dtype=torch.float64)
            inputs = {"x": x, "weight": weight}
            self.steps.append((inputs | ({"bias": torch.randn(out, dtype=torch.float64)} if bias else {}), ()))
        # The rest of each group are copies of its first point, as of a ball that is not full.
        self.places = [*range(x.shape[3]), *[0] * (neighbours - x.shape[3])]

    def call(self, function, named, fixed, norm):
        return function(named["x"][..., self.places], named["weight"], named.get("bias"), norm, self.activation)


def error(got: Tensor, wanted: Tensor, floor: float = 1e-3) -> float:
    """The largest difference over the largest entry."""
    return ((got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=floor)).item()


def assert_fast_is_exact(problem: Problem) -> None:
    wanted, got = (problem.run(function) for function in problem.twins)
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        assert error(got[name], tensor, floor=1.0 if "bias" in name else 1e-3) <= 1e-10, name


LAYERS = {
    "clouds": st.integers(1, 3),
    "out": st.integers(1, 9),
    "centres": st.integers(2, 30),
    "neighbours": st.integers(1, 9),
    "norm": st.sampled_from(sorted(NORMS)),
    "activation": st.sampled_from(sorted(ACTIVATIONS)),
    "seed": st.integers(0, 1000),
}


@given(points=st.integers(1, 40), ragged=st.booleans(), **LAYERS)
def test_edges_equal_the_definition_in_value_gradients_and_running_statistics(**settings):
    assert_fast_is_exact(Edges(**settings))


@given(channels=st.integers(1, 9), bias=st.booleans(), **LAYERS)
def test_groups_equal_the_definition_in_value_gradients_and_running_statistics(**settings):
    assert_fast_is_exact(Groups(**settings))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("make", [Edges, Groups])
def test_blocks_change_nothing(make, activation, monkeypatch):
    monkeypatch.setattr(edges, "BLOCK", 200)
    monkeypatch.setattr(rows_of, "ROWS", {"cpu": 25})
    assert_fast_is_exact(make(activation=activation))
    assert_fast_is_exact(make(neighbours=300, centres=3))


@pytest.mark.parametrize("activation", ["relu", "gelu", "none"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("make", [Edges, Groups])
def test_fast_errs_at_most_twice_what_plain_pytorch_does(make, offset, activation):
    problem = make(out=33, centres=200, neighbours=20, activation=activation)
    for inputs, _ in problem.steps:
        for name in set(inputs) & {"a", "b", "x"}:
            inputs[name] = inputs[name] + (-offset if name == "a" else offset)
        inputs |= {name: x.float().double() for name, x in inputs.items()}  # what float32 can hold, for all three
    definition, fast = problem.twins
    truth, plain, ours = problem.run(definition), *(problem.run(f, torch.float32) for f in problem.twins)
    for name, tensor in truth.items():
        if name.startswith("gradient of bias"):  # exactly 0 before a norm
            assert ours[name].abs().max() <= plain[name].abs().max() + 1e-4, name
            continue
        allowed = 2 * error(plain[name], tensor) + 1e-6
        assert error(ours[name], tensor) <= allowed, f"{name}: {error(ours[name], tensor):.1e} > {allowed:.1e}"


@pytest.mark.parametrize("spread", [1e-3, 1e-1])
def test_pairs_whose_halves_cancel_keep_their_variance(spread):
    """As where the first weights are small and neighbours are near: z is a thousandth of a and of b."""
    near, there = torch.randint(300, (1, 300, 8)), torch.arange(300) // 30
    indices = near % 30 + 30 * there[None, :, None]  # ten places; each centre's neighbours are in its own
    b = torch.randn(1, 4, 10)[:, :, there] + spread * torch.randn(1, 4, 300)
    a = -b + spread * torch.randn(1, 4, 300)
    z = a.double().unsqueeze(3) + gather(b.double(), indices)
    mean, squares = edge_moments(a, b, indices)
    torch.testing.assert_close(mean, z.mean((0, 2, 3)), rtol=0, atol=1e-4 * spread)
    torch.testing.assert_close(squares / indices.numel(), z.var((2, 3), correction=0)[0], rtol=1e-5, atol=0)


def test_on_ties_the_first_of_the_neighbours_wins():
    b = torch.tensor([[[1.0, 5.0, 5.0, 5.0]]], requires_grad=True)
    indices = torch.tensor([[[0, 3, 1, 3], [2, 2, 1, 0]]])
    edge_extremes(b, indices).sum().backward()
    assert b.grad.tolist() == [[[0.0, 0.0, 1.0, 1.0]]]
    x = torch.zeros(1, 2, 3, 4, requires_grad=True)
    pooled_groups(x, torch.ones(1, 2), None, None, None).sum().backward()
    assert x.grad[0, 0].tolist() == [[1.0, 0.0, 0.0, 0.0]] * 3


@pytest.mark.parametrize("most", [1, 2, 7, 255, 256, 300])
def test_the_first_row_with_a_value_is_found_among_any_number(most):
    rows = torch.randint(4, (50, most, 33)).float()
    assert torch.equal(first_with(rows, rows.amax(1)).long(), rows.max(1).indices)


@pytest.mark.parametrize("size", [9, 70_000])
def test_rows_are_added_to_their_targets(size):
    rows, targets = torch.randn(40, 3, dtype=torch.float64), torch.randint(size, (40, 5))
    wanted = rows.new_zeros(size, 3).index_add_(0, targets.flatten(), rows.repeat_interleave(5, 0))
    torch.testing.assert_close(rows_summed(rows, targets, size), wanted)


def test_grouped_is_gather_stored_as_rows_in_value_and_both_gradients():
    x, indices = torch.randn(2, 3, 9, dtype=torch.float64, requires_grad=True), torch.randint(9, (2, 5, 4))
    direction = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    values = [function(x, indices) for function in (grouped, gather)]
    assert torch.equal(*values)
    assert values[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*(torch.autograd.grad((y * direction).sum(), x) for y in values))
    assert torch.autograd.gradgradcheck(lambda x: grouped(x, indices).square(), x)


@pytest.mark.parametrize("size", [24, 72_000])
def test_a_gradient_goes_to_the_winners_and_to_the_weights_of_what_they_won(size):
    grad, slots = torch.randn(6, 9, dtype=torch.float64), torch.randint(size // 6, (6, 9), dtype=torch.int16)
    winners = slots + torch.arange(0, size, size // 6).unsqueeze(1)
    weight, x = (torch.randn(n, 5, dtype=torch.float64) for n in (9, size))
    sparse = grad.new_zeros(size, 9).scatter_(0, winners, grad)
    torch.testing.assert_close(through_winners(grad, slots, weight, x), (sparse @ weight, sparse.T @ x))


@pytest.mark.parametrize("make", [Edges, Groups])
def test_what_is_not_a_number_is_not_hidden(make):
    problem = make(norm="none")
    (inputs, fixed), *_ = problem.steps
    name = "b" if make is Edges else "x"
    inputs[name][1] = torch.nan
    y = problem.call(problem.twins[1], inputs, fixed, None)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


def test_points_that_are_nobodys_neighbours_may_be_anything_and_get_no_gradient():
    problem = Edges(points=30, centres=10)
    for inputs, (indices, _) in problem.steps:
        indices.clamp_(max=24)
        inputs["b"][:, :, 25:] = torch.nan
    wanted, got = (problem.run(function) for function in problem.twins)
    for name, tensor in wanted.items():
        assert got[name].isfinite().all(), name
        torch.testing.assert_close(got[name], tensor)
    assert (got["gradient of b 0"][:, :, 25:] == 0).all()


def test_a_cloud_alone_or_padded_in_a_batch_is_the_same():
    problem = Edges(clouds=3, ragged=True, norm="eval")
    (inputs, (indices, mask)), *_ = problem.steps
    together = problem.call(pooled_edges, inputs, (indices, mask), problem.norm)
    assert (together.masked_select(~mask) == 0).all()
    for cloud, there in enumerate(mask[:, 0].sum(1).tolist()):
        alone = {name: x[cloud : cloud + 1] for name, x in inputs.items()}
        alone["a"] = alone["a"][:, :, :there]
        y = problem.call(pooled_edges, alone, (indices[cloud : cloud + 1, :there], None), problem.norm)
        torch.testing.assert_close(together[cloud : cloud + 1, :, :there], y)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("both", forms([True, False], True))
def test_the_gradients_are_right_by_finite_differences(masked, both):
    a, b = (torch.randn(2, 3, n, dtype=torch.float64, requires_grad=True) for n in (5, 6))
    indices, mask = torch.randint(6, (2, 5, 4)), point_mask(torch.tensor([5, 3]), a) if masked else None
    assert torch.autograd.gradcheck(lambda b: edge_extremes(b, indices, both), (b,))
    assert torch.autograd.gradcheck(lambda a, b: edge_moments(a, b, indices, mask), (a, b))
    rows, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((12, 3), (4, 3)))
    extremes = torch.ops.pointnet.group_extremes
    for more in (0, 3):
        assert torch.autograd.gradcheck(
            lambda x, w, m=more: extremes([x], w, 4, m, both, True, True, None, 0.0)[::2][:2], (rows, weight)
        )
        assert torch.autograd.gradcheck(
            lambda x, w, m=more: extremes([x], w, 4, m, both, True, True, None, 0.0)[3], (rows, weight)
        )


def test_gradients_of_gradients_are_refused_in_one_line():
    for problem in (Edges(), Groups()):
        inputs, fixed = problem.steps[0]
        named = {name: x.requires_grad_() for name, x in inputs.items()}
        y = problem.call(problem.twins[1], named, fixed, problem.norm)
        first = torch.autograd.grad(y.square().sum(), list(named.values()), create_graph=True)
        with pytest.raises(RuntimeError, match="^gradients of gradients do not pass .* torch.func.grad has them$"):
            sum(each.square().sum() for each in first).backward()
    x, places = torch.randn(1, 2, 5, requires_grad=True), torch.randn(1, 3, 5)
    (first,) = torch.autograd.grad(interpolate(x, places, places + 1).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="^gradients of gradients do not pass .* torch.func.grad has them$"):
        first.square().sum().backward()


@pytest.mark.parametrize(("make", "most"), [(Edges, 4_000), (Groups, 12_000)])  # a block, or the points that are given
def test_no_tensor_of_pairs_ever_exists(make, most, monkeypatch):
    monkeypatch.setattr(edges, "BLOCK", 400)
    monkeypatch.setattr(rows_of, "ROWS", {"cpu": 64})
    problem = make(clouds=2, out=16, centres=100, neighbours=10)
    numbers = []
    for function in problem.twins:
        with Largest() as largest:
            problem.run(function)
        numbers.append(largest.numel)
    assert numbers[0] == 2 * 16 * 100 * 10
    assert numbers[1] <= most


@pytest.mark.parametrize("batch", [True, False])
def test_the_operators_are_well_formed(batch):
    (inputs, (indices, mask)), *_ = Edges(ragged=True).steps
    a, b = inputs["a"].nan_to_num(), inputs["b"].requires_grad_()
    rows, weight = torch.randn(12, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    tables, wide = [a.mT, b.mT, indices], torch.ones(4, a.shape[1]).double()
    for name, inputs in (
        ("edge_extremes", (b, indices, torch.ones(5).double(), batch, True)),
        ("edge_moments", (a, b, indices, mask if batch else None)),
        ("group_extremes", ([rows], weight, 4, 2, batch, batch, True, None, 0.0)),
        ("group_extremes", (tables, wide, indices.shape[2], 0, batch, True, True, None, 0.0)),
        ("group_extremes", (tables, wide, indices.shape[2], 0, batch, True, True, None, 0.2)),
        ("rows_taken", (b.mT, indices.flatten(1))),
        ("rows_given", (b.mT, indices.flatten(1)[:, :30], 30)),
    ):
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(getattr(torch.ops.pointnet, name).default, inputs, test_utils=tests)


def test_under_autocast_both_stay_near_their_definitions():
    for problem in (Edges(out=16), Groups(channels=16, out=16)):
        with torch.autocast("cpu", torch.bfloat16):
            got, wanted = (problem.run(function, torch.float32) for function in reversed(problem.twins))
        for name in ("output 0", "running_mean", "running_var"):
            torch.testing.assert_close(got[name].float(), wanted[name].float(), rtol=0.05, atol=0.1)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_graph_holds_standard_operators():
    indices, weight = torch.randint(9, (2, 5, 4)), torch.randn(3, 3)
    norm = nn.BatchNorm1d(3).eval().requires_grad_(False)

    def both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        groups = pooled_groups(grouped(b, indices), weight, None, norm, nn.ReLU())
        return pooled_edges(a, b, indices, norm, nn.ReLU()), groups

    inputs = torch.randn(2, 3, 5), torch.randn(2, 3, 9)
    traced = torch.jit.trace(both, inputs)
    assert not [node.kind() for node in traced.inlined_graph.nodes() if not node.kind().startswith(("aten", "prim"))]
    for got, wanted in zip(traced(*inputs), both(*inputs), strict=True):
        torch.testing.assert_close(got, wanted)


def test_one_pair_has_no_variance_to_train_with():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        pooled_edges(torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.zeros(1, 1, 1).long(), nn.BatchNorm1d(2), None)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        pooled_groups(torch.ones(1, 3, 1, 1), torch.ones(2, 3), None, nn.BatchNorm1d(2), None)


@pytest.mark.parametrize("wrong", [-1, 9])
@pytest.mark.parametrize("training", [True, False])
def test_an_index_of_no_point_is_refused_and_reads_no_other_cloud(wrong, training):
    x, neighbours = torch.randn(2, 4, 9).requires_grad_(training), torch.randint(0, 9, (2, 9, 3))
    neighbours[0 if wrong > 0 else 1, 2, 1] = wrong
    for use in (lambda: pooled_edges(x, x, neighbours, None, nn.ReLU()), lambda: grouped(x, neighbours)):
        with pytest.raises(ValueError, match="indices must be of 9 points, from 0 to 8, got"):
            use()
