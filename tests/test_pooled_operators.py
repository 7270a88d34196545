"""What PyTorch can do with a pooled layer: autocast, hooks, pruning, checkpoints, export."""

import copy

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from pointnet import PointNetClassifier, SharedMLP
from pointnet.ops.masked import point_mask
from tests.forms import forms
from tests.helpers import trained_looking


@pytest.mark.parametrize("masked", forms([True, False], True))
@pytest.mark.parametrize("dtype", forms([torch.float32, torch.float64], torch.float32))
def test_the_operators_are_well_formed(masked, dtype):
    x = torch.randn(2, 3, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    mask = point_mask(torch.tensor([6, 3]), x) if masked else None
    torch.library.opcheck(torch.ops.pointnet.extremes.default, (x, weight, mask, True))
    torch.library.opcheck(torch.ops.pointnet.moments.default, (x, mask))
    with torch.no_grad():
        values, winners = torch.ops.pointnet.extremes(x, weight, mask, True)
    torch.library.opcheck(torch.ops.pointnet.extremes_backward.default, (values, x.detach(), weight.detach(), winners))


@pytest.mark.parametrize("training", [True, False])
def test_under_autocast_the_pool_stays_near_the_definition_and_keeps_its_statistics(training):
    mlp = SharedMLP([3, 16, 32]).train(training)
    twin = copy.deepcopy(mlp)
    x = torch.randn(4, 3, 200)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = mlp.max_pool(x), twin(x).max(2).values
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted.float(), rtol=0.05, atol=0.05)
    torch.testing.assert_close(mlp.state_dict(), twin.state_dict(), rtol=0.02, atol=0.02)
    got.sum().backward()
    assert all(p.grad.isfinite().all() for p in mlp.parameters())


@pytest.mark.parametrize("both", [True, False])
def test_winners_are_searched_in_half_and_valued_in_single(both):
    x, weight = torch.randn(2, 64, 500).bfloat16(), torch.randn(32, 64)
    values, winners = torch.ops.pointnet.extremes(x, weight, None, both)
    rough = torch.nn.functional.conv1d(x, weight.bfloat16().unsqueeze(2)).float()
    assert torch.equal(winners[0], rough.max(2).indices)
    single = torch.einsum("dc,bcn->bdn", weight, x.float())
    torch.testing.assert_close(values[0], single.gather(2, winners[0].unsqueeze(2)).squeeze(2))
    if both:
        torch.testing.assert_close(values[1], single.gather(2, winners[1].unsqueeze(2)).squeeze(2))
    assert values.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("points", [30, 1500])
def test_in_half_the_largest_of_negative_numbers_wins_and_padding_never(dtype, points):
    x = torch.randint(1, 5, (2, 3, points)).to(dtype)
    weight = torch.cat([-torch.randint(1, 4, (9, 3)), torch.randint(-3, 4, (9, 3))]).to(torch.float32)
    mask = point_mask(torch.tensor([points, 7]), x)
    got, winners = torch.ops.pointnet.extremes(x, weight, mask, True)
    wanted = torch.ops.pointnet.extremes(x.double(), weight.double(), mask, True)
    assert (got[0, :, :9] < 0).all()
    assert torch.equal(got.double(), wanted[0])
    assert torch.equal(winners, wanted[1])


@pytest.mark.parametrize("bits", [0x7FC0, 0xFFC0])
def test_in_half_a_point_that_is_not_a_number_wins(bits):
    x, weight = torch.ones(2, 64, 9).bfloat16(), torch.ones(4, 64)
    x[1, 0, 5] = torch.tensor(bits).to(torch.uint16).view(torch.bfloat16)
    values, winners = torch.ops.pointnet.extremes(x, weight, None, False)
    assert values[0, 1].isnan().all()
    assert (winners[0, 1] == 5).all()
    assert (values[0, 0] == 64).all()


def test_half_precision_points_far_from_the_origin_do_not_overflow():
    mlp = SharedMLP([3, 8]).half()
    y = mlp.max_pool((torch.randn(8, 3, 4000) + 5).half())
    assert y.isfinite().all()
    assert mlp[0].norm.running_var.isfinite().all()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in mlp.parameters())


class Waving(nn.LeakyReLU):
    def forward(self, x):
        return torch.sin(3 * x)


@pytest.mark.parametrize("threshold", [0.5, 20])
def test_a_softplus_that_falls_at_its_threshold_takes_the_definition(threshold):
    mlp, x = SharedMLP([3, 8], activation=nn.Softplus(threshold=threshold)), torch.randn(2, 3, 50)
    assert mlp[0].is_poolable() == (threshold > 1)
    assert torch.equal(mlp.eval().max_pool(x), mlp(x).amax(2)) or threshold > 1
    torch.testing.assert_close(mlp.max_pool(x), mlp(x).amax(2))


def test_subclasses_and_hooks_take_the_definition():
    mlp = SharedMLP([3, 8], activation=Waving())
    assert not mlp[0].is_poolable()
    x = torch.randn(2, 3, 50)
    hooked = SharedMLP([3, 8])
    seen = {}
    for name in ("conv", "norm", "activation"):
        module = getattr(hooked[0], name)
        module.register_forward_hook(lambda module, _, output, name=name: seen.__setitem__(name, output.clone()))
    hooked.max_pool(x)
    assert set(seen) == {"conv", "norm", "activation"}
    assert seen["norm"].min() < 0 == seen["activation"].min()
    pruned = SharedMLP([3, 8]).eval()
    torch.nn.utils.prune.random_unstructured(pruned[0].conv, "weight", 0.5)
    pruned[0].conv.weight_orig.data += 1
    torch.testing.assert_close(pruned.max_pool(x), pruned(x).max(2).values)


@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 3])], ids=["whole", "padded"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_gradients_of_gradients_are_those_of_the_definition(activation, training, lengths):
    mlp = trained_looking(SharedMLP([3, 4, 5], activation=activation)).train(training)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    inputs = [x, *mlp.parameters()]

    def second(y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), inputs)

    padding = torch.arange(6) >= (x.new_tensor([6, 6]) if lengths is None else lengths)[:, None, None]
    wanted = second(mlp(x, lengths=lengths).masked_fill(padding, -torch.inf).max(2).values)
    for got, right in zip(second(mlp.max_pool(x, lengths=lengths)), wanted, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", forms([True, False], True))
def test_a_classifier_has_gradients_of_gradients(training):
    model = PointNetClassifier(3, widths=((4,), (5,)), tnet_widths=((4, 5), (4,)), head_widths=(4,), dropout=0.0)
    trained_looking(model).train(training)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: model(x).square(), x, nondet_tol=1e-9)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("folded", [True, False])
def test_a_traced_classifier_is_the_model_at_any_size_and_holds_no_operator_of_this_library(folded):
    model = trained_looking(PointNetClassifier(3, widths=((4,), (8,)), tnet_widths=((4, 5), (4,)), head_widths=(4,)))
    traced = torch.jit.trace(model.fold() if folded else model, torch.randn(2, 3, 20, dtype=torch.float64))
    assert not [node.kind() for node in traced.inlined_graph.nodes() if not node.kind().startswith(("aten", "prim"))]
    for clouds, points in ((1, 1), (3, 2000), (5, 64)):
        x = torch.randn(clouds, 3, points, dtype=torch.float64)
        torch.testing.assert_close(traced(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_jit_script_is_refused_in_one_line_that_says_what_to_use():
    mlp = SharedMLP([3, 4, 5])
    for model in (mlp, mlp.to_linear(), PointNetClassifier(3), PointNetClassifier(3).fold()):
        with pytest.raises(TypeError, match=r"^torch.jit.script is not supported; use torch.export.export or "):
            torch.jit.script(model)
