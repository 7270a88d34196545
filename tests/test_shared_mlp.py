"""The block as a module: what it takes, what it refuses, and what PyTorch can do with it."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from pointnet import SharedMLP
from pointnet.layers.shared_mlp import ACTIVATIONS, make_activation
from pointnet.ops.masked import batch_norm, point_mask
from tests.forms import forms


def test_its_keys_and_widths_are_those_of_the_contract():
    mlp = SharedMLP([3, 64, 128])
    assert list(mlp.state_dict())[:2] == ["layers.0.conv.weight", "layers.0.norm.weight"]
    assert "layers.1.norm.running_mean" in mlp.state_dict()
    assert mlp.widths == [3, 64, 128]


def test_a_bias_is_there_only_where_no_norm_follows_unless_asked_for():
    assert SharedMLP([3, 4])[0].conv.bias is None
    assert SharedMLP([3, 4], norm=None)[0].conv.bias is not None
    assert SharedMLP([3, 4], bias=True)[0].conv.bias is not None
    assert SharedMLP([3, 4], norm=None, bias=False)[0].conv.bias is None


def test_the_last_layer_can_end_without_activation_and_dropout():
    mlp = SharedMLP([3, 4, 5], last_activation=False, dropout=0.5)
    assert mlp[0].activation is not None
    assert mlp[0].dropout is not None
    assert mlp[1].activation is None
    assert mlp[1].dropout is None
    assert mlp[1].norm is not None


@pytest.mark.parametrize("activation", ["gelu", nn.GELU, nn.GELU(), torch.nn.functional.gelu])
def test_an_activation_is_a_name_a_class_a_module_or_a_function(activation):
    mlp = SharedMLP([3, 4, 5], activation=activation).eval()
    x = torch.randn(2, 3, 6)
    wanted = SharedMLP([3, 4, 5], activation="gelu").eval()
    wanted.load_state_dict(mlp.state_dict())
    assert torch.equal(mlp(x), wanted(x))
    assert torch.equal(SharedMLP.from_linear(mlp.to_linear())(x), wanted(x))


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_named_activation_is_the_function_of_that_name(name):
    x = torch.linspace(-4, 4, 50)
    torch.testing.assert_close(make_activation(name)(x), getattr(torch.nn.functional, name)(x))


@pytest.mark.parametrize("mixing", [nn.Softmax(1), nn.GLU(1), nn.PReLU(4), nn.LayerNorm(4), nn.Conv1d(4, 4, 1)])
def test_what_does_not_treat_each_number_alike_is_no_activation(mixing):
    with pytest.raises(ValueError, match="activation must treat each number alike"):
        SharedMLP([3, 4], activation=mixing)
    with pytest.raises(ValueError, match=f"module 1 is {type(mixing).__name__}"):
        SharedMLP.from_linear(nn.Sequential(nn.Linear(3, 4), mixing))


def test_a_module_given_as_activation_is_copied_for_each_layer():
    mlp = SharedMLP([3, 4, 5], activation=nn.PReLU())
    assert mlp[0].activation is not mlp[1].activation
    assert len(list(mlp.parameters())) == 2 * 3 + 2


def test_indexing_and_slicing_share_the_weights():
    mlp = SharedMLP([3, 4, 5, 6])
    assert len(mlp) == 3
    assert list(mlp) == [mlp[0], mlp[1], mlp[-1]]
    assert isinstance(mlp[1:], SharedMLP)
    assert mlp[1:].widths == [4, 5, 6]
    assert mlp[1:][0].conv.weight is mlp[1].conv.weight
    x = torch.randn(2, 3, 7)
    mlp.eval()
    assert torch.equal(mlp[1:](mlp[:1](x)), mlp(x))
    assert torch.equal(mlp[1:](mlp[0](x)), mlp(x))
    with pytest.raises(ValueError, match="at least one layer"):
        mlp[3:]


def test_it_can_be_copied_and_pickled():
    mlp = SharedMLP([3, 8, 4], dropout=0.1, activation="leaky_relu").eval()
    x = torch.randn(2, 3, 5)
    for other in (copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))):
        assert torch.equal(other(x), mlp(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("training", forms([True, False], False))
@pytest.mark.parametrize("with_lengths", forms([True, False], True))
def test_it_compiles_in_one_piece(training, with_lengths):
    torch.compiler.reset()
    mlp = SharedMLP([3, 8, 4]).train(training)
    lengths = torch.tensor([3, 5]) if with_lengths else None
    x = torch.randn(2, 3, 5)
    reference = copy.deepcopy(mlp)
    # "aot_eager" traces forward and backward as the default backend does, and needs no C++ compiler.
    compiled = torch.compile(partial(mlp.max_pool, lengths=lengths), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), reference.max_pool(x, lengths=lengths))
    torch.testing.assert_close(mlp.state_dict(), reference.state_dict())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(4, 100, 3), ValueError, r"points must be \(B, 3, N\), got \(4, 100, 3\); .*transpose\(1, 2\)"),
        (torch.zeros(4, 5, 100), ValueError, r"points must be \(B, 3, N\), got \(4, 5, 100\)$"),
        (torch.zeros(3, 100), ValueError, r"points must be \(B, 3, N\), got \(3, 100\); add the batch: x\[None\]"),
        (torch.zeros(4, 3, 0), ValueError, r"N >= 1, got \(4, 3, 0\)"),
        (torch.zeros(4, 3, 9).long(), TypeError, "must be torch.float32 like the weights, got torch.int64"),
    ],
)
def test_wrong_points_are_met_with_one_clear_line(x, error, message):
    for call in (SharedMLP([3, 4]), SharedMLP([3, 4]).max_pool, SharedMLP([3, 4])[0]):
        with pytest.raises(error, match=message) as caught:
            call(x)
        assert "\n" not in str(caught.value)


def test_wrong_lengths_and_context_are_met_with_one_clear_line():
    mlp = SharedMLP([5, 4])
    x = torch.zeros(2, 3, 9)
    with pytest.raises(ValueError, match=r"lengths must be \(2,\) integers, .* got \(3,\)"):
        mlp(torch.zeros(2, 5, 9), lengths=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"context must be \(2, E\), one vector per cloud, got \(1, 2\)"):
        mlp(x, context=torch.zeros(1, 2))
    for wrong in (torch.zeros(2, 2, 8), torch.zeros(1, 2, 9), [torch.zeros(2, 1), torch.zeros(2, 1, 1)]):
        with pytest.raises(ValueError, match=r"context must be \(2, E, 9\), one vector per point, got"):
            mlp(x, context=wrong)
    with pytest.raises(ValueError, match=r"E below the 5 channels .*, got \(2, 2\), \(2, 3, 9\)"):
        mlp(x, context=[torch.zeros(2, 2), torch.zeros(2, 3, 9)])
    with pytest.raises(ValueError, match=r"points must be \(B, 1, N\) beside a context of 4 channels, got \(2, 3, 9\)"):
        mlp(x, context=torch.zeros(2, 4))
    for wrong in (torch.eye(4).expand(2, 4, 4), torch.eye(3).expand(3, 3, 3), torch.eye(3).expand(1, 3, 3)):
        with pytest.raises(ValueError, match=r"transform must be \(2, dim, dim\) with dim at most 3"):
            SharedMLP([3, 4])(x, transform=wrong)
    with pytest.raises(TypeError, match="context must be torch.float32 like the weights, got torch.float64"):
        mlp(x, context=torch.zeros(2, 2).double())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="got torch.float64"):
        SharedMLP([3, 4])(x.double())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": [3, 0]}, r"widths must be .*, got \[3, 0\]"),
        ({"widths": [3, 4], "norm": "layer"}, "norm must be 'batch' or None, got 'layer'"),
        ({"widths": [3, 4], "activation": "rule"}, "activation must be one of relu, .*, got 'rule'"),
        ({"widths": [3, 4], "activation": 3}, "activation must be a name, a module, a function or None, got 3"),
        ({"widths": [3, 4], "dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments_are_met_with_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        SharedMLP(**arguments)


def test_from_linear_takes_any_usual_stack_and_refuses_others():
    mlp = SharedMLP.from_linear(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.BatchNorm1d(5)))
    assert mlp.widths == [3, 4, 5]
    assert mlp[1].activation is None
    with pytest.raises(ValueError, match="module 2 is BatchNorm1d"):
        SharedMLP.from_linear(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match="module 0 is ReLU"):
        SharedMLP.from_linear(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="layer 1 must take 4 channels, got 5"):
        SharedMLP.from_linear(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 6)))


def test_twins_share_nothing_and_keep_dtype_mode_and_what_is_frozen():
    mlp = SharedMLP([3, 4, 5]).double().eval()
    mlp[0].conv.weight.requires_grad_(False)
    twin = mlp.to_linear()
    back = SharedMLP.from_linear(twin)
    for first, last in ((twin[0], twin[3]), (back[0].conv, back[1].conv)):
        assert first.weight.dtype == torch.float64
        assert not first.weight.requires_grad
        assert last.weight.requires_grad
    assert not any(module.training for module in (*twin.modules(), *back.modules(), mlp[:1]))
    owners = {tensor.data_ptr() for model in (mlp, twin, back) for tensor in model.parameters()}
    assert len(owners) == 3 * len(list(mlp.parameters()))


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("training", [True, False])
def test_masked_batch_norm_is_batch_norm_of_the_points_that_exist(momentum, settings, training):
    norm = nn.BatchNorm1d(4, momentum=momentum, **settings).double().train(training)
    reference = copy.deepcopy(norm)
    lengths = torch.tensor([5, 1, 3])
    for _ in range(3):
        z = torch.randn(3, 4, 5, dtype=torch.float64)
        mask = point_mask(lengths, z)
        exists = mask.squeeze(1)
        got = batch_norm(z, norm, mask).transpose(1, 2)[exists]
        torch.testing.assert_close(got, reference(z.transpose(1, 2)[exists]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.state_dict(), reference.state_dict(), rtol=1e-12, atol=1e-12)


def test_one_point_in_all_of_a_padded_batch_leaves_everything_finite():
    mlp = SharedMLP([3, 4])
    y = mlp(torch.randn(1, 3, 5), lengths=torch.tensor([1]))
    assert y.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in mlp.buffers())


def test_masked_batch_norm_counts_in_single_precision_under_half():
    mlp, x = SharedMLP([3, 4]), torch.randn(2, 3, 300) + 5
    lengths = torch.tensor([300, 300])
    reference = copy.deepcopy(mlp)
    with torch.autocast("cpu", torch.bfloat16):
        y, wanted = mlp(x, lengths=lengths), reference(x)
    assert y.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(mlp.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_points_stored_as_rows_give_the_same_and_stay_so(training):
    torch.manual_seed(0)
    mlp = SharedMLP([5, 8, 7, 6]).double().train(training)
    found = []
    for rows in (True, False):
        each, x = copy.deepcopy(mlp), torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1)).double()
        x = (x if rows else x.transpose(1, 2).contiguous()).requires_grad_()
        y = each(x.transpose(1, 2) if rows else x)
        assert y.transpose(1, 2).is_contiguous() == rows
        grad, *grads = torch.autograd.grad(y.square().sum(), [x, *each.parameters()])
        found.append([y.detach(), grad.transpose(1, 2) if rows else grad, *grads, *each.buffers()])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
