"""What PyTorch can do with a pooled layer: autocast, hooks, pruning, checkpoints, export."""

import copy

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from pointnet import SharedMLP
from pointnet.ops.masked import point_mask
from pointnet.ops.pooled import pooled


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
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


def test_gradients_of_gradients_are_refused_clearly():
    x = torch.randn(2, 3, 6, requires_grad=True)
    gradient = torch.autograd.grad(pooled(x, torch.randn(4, 3), None, None, None).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="extremes_backward"):
        torch.autograd.grad(gradient[0].sum(), x)
