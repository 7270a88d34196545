"""Networks whose modules were replaced: another norm, an adapter, a pruned weight; against calling their modules."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from pointnet import EdgeNetClassifier, PointNetClassifier, SharedMLP, critical_points, load_model
from pointnet.evaluation.trust import UNUSUAL
from pointnet.layers import SetAbstraction
from pointnet.ops import products
from pointnet.training import fit
from tests.helpers import SMALL, quiet, tiny, trained_looking, two_shapes


class Adapter(nn.Conv1d):
    """A convolution and a small one beside it (Hu et al., LoRA)."""

    def __init__(self, c: int, d: int, *given, **named):
        super().__init__(c, d, 1, *given[1:], **named)
        self.low = nn.Conv1d(c, d, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.low(x)


class AdapterLinear(nn.Linear):
    """The same beside a Linear."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.low = nn.Linear(self.in_features, self.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.low(x)


class Tripled(nn.BatchNorm1d):
    def forward(self, z: Tensor) -> Tensor:
        return 3 * super().forward(z)


def with_adapters(mlp: SharedMLP) -> None:
    for layer in mlp:
        adapter = Adapter(layer.conv.in_channels, layer.conv.out_channels, bias=layer.conv.bias is not None)
        adapter.load_state_dict(layer.conv.state_dict(), strict=False)
        layer.conv = adapter


def with_own_forward(mlp: SharedMLP) -> None:
    for layer in mlp:
        plain = layer.conv.forward
        layer.conv.forward = lambda x, plain=plain: 2 * plain(x)


def with_norms(kind):
    def change(mlp: SharedMLP) -> None:
        for layer in mlp:
            layer.norm = kind(layer.conv.out_channels)

    return change


CHANGES = {
    "adapters": with_adapters,
    "a forward of their own": with_own_forward,
    "parametrized": lambda mlp: [parametrizations.weight_norm(layer.conv) for layer in mlp],
    "pruned": lambda mlp: [prune.l1_unstructured(layer.conv, "weight", 0.5) for layer in mlp],
    "group norm": with_norms(lambda d: nn.GroupNorm(2, d)),
    "instance norm": with_norms(lambda d: nn.InstanceNorm1d(d, affine=True)),
    "instance norm with statistics": with_norms(lambda d: nn.InstanceNorm1d(d, track_running_stats=True)),
    "synchronised norm": with_norms(nn.SyncBatchNorm),
    "another batch norm": with_norms(Tripled),
    "no norm": with_norms(lambda d: nn.Identity()),
}


def module_by_module(mlp: SharedMLP, x: Tensor) -> Tensor:
    for layer in mlp:
        for module in (layer.conv, layer.norm, layer.activation):
            x = module(x)
    return x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_replaced_module_is_called(change, rows, training):
    mlp = SharedMLP([3, 4, 6]).double()
    CHANGES[change](mlp)
    mlp.double().train(training)
    x = torch.randn(2, 9, 3).double().mT if rows else torch.randn(2, 3, 9).double()
    wanted = module_by_module(mlp, x.contiguous())
    torch.testing.assert_close(mlp(x), wanted)
    torch.testing.assert_close(mlp.max_pool(x), wanted.max(2).values)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", [each for each in CHANGES if "norm" in each])
def test_a_norm_never_counts_the_padding(change, training):
    mlp, lengths = SharedMLP([3, 4, 6]).double(), torch.tensor([9, 5])
    CHANGES[change](mlp)
    mlp.double().train(training)
    x = torch.randn(2, 3, 9).double()
    if refuses_padding(mlp):
        with pytest.raises(ValueError, match="would count the padding"):
            mlp(x, lengths=lengths)
        return
    padded = mlp(x, lengths=lengths)
    other = torch.where(torch.arange(9) < lengths[:, None, None], x, 1e3)
    torch.testing.assert_close(mlp(other, lengths=lengths), padded)
    torch.testing.assert_close(padded[1:, :, :5], module_by_module(mlp, x[1:, :, :5]))


def refuses_padding(mlp: SharedMLP) -> bool:
    """Whether moving one point moves what the layers make of another, and their norm is none that leaves some out."""
    if type(mlp[0].norm) in (nn.BatchNorm1d, nn.Identity):
        return False
    x = torch.randn(2, 3, 9).double()
    moved = torch.cat([x[:, :, :-1], x[:, :, -1:] + 1], 2)
    return not torch.equal(module_by_module(mlp, x)[:, :, :-1], module_by_module(mlp, moved)[:, :, :-1])


def test_other_norms_are_neither_folded_nor_linears_nor_free_of_other_points():
    model, x = PointNetClassifier(3, input_transform=False, feature_transform=False).eval(), torch.randn(1, 3, 9)
    with_norms(lambda d: nn.Identity())(model.encoder.mlp2)
    torch.testing.assert_close(model.fold()(x), model(x))
    assert critical_points(model, x).any()
    with_norms(Tripled)(model.encoder.mlp2)
    with pytest.raises(ValueError, match=r"encoder.mlp2.layers.0: its norm must be BatchNorm1d .* Tripled"):
        model.fold()
    with_norms(lambda d: nn.GroupNorm(2, d))(model.encoder.mlp2)
    for use in (lambda: model.fold(), lambda: critical_points(model, x), lambda: model.classify_chunks([x])):
        with pytest.raises(ValueError, match=r"mlp2.layers.0.* GroupNorm"):
            use()
    with pytest.raises(ValueError, match="norm must be BatchNorm1d for Linears on"):
        model.encoder.mlp2.to_linear()


@pytest.mark.parametrize("change", ["adapters", "pruned", "hooks"])
def test_edge_nets_linears_are_called_where_they_are_more_than_their_weight(change):
    plain = trained_looking(EdgeNetClassifier(3, width=0.25), torch.float64)
    model, x, seen = copy.deepcopy(plain).eval(), torch.randn(2, 3, 40).double(), []
    levels = [model.level1, model.level2, model.within2, model.level3]
    linears = [(level, name) for level in levels for name in ("edge", "skip") if getattr(level, name) is not None]
    for level, name in linears:
        linear = getattr(level, name)
        if change == "hooks":
            linear.register_forward_hook(lambda *given: seen.append(given[0]))
        elif change == "pruned":
            prune.identity(linear, "weight")
            linear.weight_orig.data.mul_(2)  # as a step of an optimizer changes it, which only a call sees
        else:
            adapter = AdapterLinear(linear.in_features, linear.out_features, bias=False).double()
            adapter.load_state_dict(linear.state_dict(), strict=False)
            setattr(level, name, adapter)
    twin = plain.eval()
    for level, name in linears:  # all of it in one weight
        ours, its = getattr(level, name), getattr(getattr(twin, _name_of(model, level)), name)
        if change == "adapters":
            its.weight.data += ours.low.weight.data
        elif change == "pruned":
            its.weight.data *= 2
    torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-9)
    assert change != "hooks" or set(seen) == {getattr(level, name) for level, name in linears}


def _name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, each in model.named_modules() if each is module)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("norm", ["batch", None])
def test_a_weight_that_changes_when_it_is_computed_is_computed_once(norm, pool):
    layer = SharedMLP([3, 200], norm)
    conv = parametrizations.spectral_norm(layer[0].conv)  # in training each computing is a step of its own
    plain, x = copy.deepcopy(conv), torch.randn(2, 3, 200)
    (layer.max_pool if pool else layer)(x)
    plain(x)
    assert torch.equal(conv.parametrizations.weight[0]._u, plain.parametrizations.weight[0]._u)


@pytest.mark.parametrize("channels", [0, 2])
def test_a_layer_of_neighbourhoods_computes_such_a_weight_once_too(channels):
    level, features = SetAbstraction(channels, [[8, 6]], 16, [9.0], [20]), torch.randn(2, channels, 40)
    conv = parametrizations.spectral_norm(level.mlps[0][0].conv)
    plain, points = copy.deepcopy(conv), torch.randn(2, 3, 40)
    level(points, features if channels else None)
    plain(torch.cat([points, features], 1))
    assert torch.equal(conv.parametrizations.weight[0]._u, plain.parametrizations.weight[0]._u)


@pytest.mark.parametrize("learns", ["bias", "transform", "first weight", "last weight"])
def test_whatever_learns_alone_gets_its_gradient(learns, monkeypatch):
    monkeypatch.setattr(products, "capabilities", lambda: {"amx_bf16": True})
    mlp, x = SharedMLP([3, 4, 6], norm=None).requires_grad_(False), torch.randn(2, 3, 200)
    transform = torch.eye(3).repeat(2, 1, 1) + 0.1
    learned = {"bias": mlp[0].conv.bias, "first weight": mlp[0].conv.weight, "last weight": mlp[1].conv.weight}
    learned = {**learned, "transform": transform}[learns].requires_grad_()
    (fast,) = torch.autograd.grad(mlp.max_pool(x, transform=transform).square().sum(), learned)
    (wanted,) = torch.autograd.grad(mlp(transform.mT @ x).max(2).values.square().sum(), learned)
    torch.testing.assert_close(fast, wanted)


def test_a_transform_of_other_clouds_is_refused_wherever_it_is_folded(monkeypatch):
    monkeypatch.setattr(products, "capabilities", lambda: {"amx_bf16": True})
    mlp = SharedMLP([3, 4, 6], norm=None).requires_grad_(False)
    for clouds in (1, 3, 8):
        with pytest.raises(ValueError, match=r"transform must be \(4, dim, dim\)"):
            mlp.max_pool(torch.randn(4, 3, 200), transform=torch.eye(3).repeat(clouds, 1, 1))


def test_a_parametrized_weight_is_that_of_the_moment():
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    mlp, x = SharedMLP([3, 4, 6]).double(), torch.randn(2, 3, 9).double()
    wanted = copy.deepcopy(mlp)
    for layer, other in zip(mlp, wanted, strict=True):
        parametrize.register_parametrization(layer.conv, "weight", Doubled())
        other.conv.weight.data.mul_(2)
    assert torch.equal(mlp.max_pool(x), wanted.max_pool(x))


def test_a_network_with_another_norm_in_its_head_trains_to_its_end(tmp_path):
    model = PointNetClassifier(2, **SMALL)
    model.head[1] = nn.GroupNorm(1, model.head[0].out_features)
    x = torch.randn(3, 3, 9)
    torch.testing.assert_close(model.eval().fold()(x), model(x))
    data = two_shapes(per_class=50)
    result = fit(tiny(tmp_path, epochs=1, val_fraction=0.45), data, data, model=model, log=quiet)
    assert result["test"]["count"] == 100
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["preprocessing"]["familiar"]["limits"].keys() == UNUSUAL.keys()


def negated(model):
    model.logits.register_forward_hook(lambda module, given, output: -output)


def pruned(model):
    prune.random_unstructured(model.logits, "weight", 0.5)


@pytest.mark.parametrize("change", [negated, pruned])
def test_a_changed_network_of_the_library_is_loaded_into_itself_alone(tmp_path, change):
    model, lines = PointNetClassifier(2, **SMALL), []
    change(model)
    fit(tiny(tmp_path / "run", val_fraction=0.0), two_shapes(per_class=8), None, model=model, log=lines.append)
    assert any('load_model("' in line and ", model=PointNetClassifier(...))" in line for line in lines)
    with pytest.raises(ValueError, match=r"got 'PointNetClassifier'; .* load_model\(..., model=...\) fills it"):
        load_model(tmp_path / "run")


def test_a_network_has_after_training_the_contract_that_its_folder_has(tmp_path):
    model, data = PointNetClassifier(2, **SMALL), two_shapes(per_class=200)
    fit(tiny(tmp_path / "run", val_fraction=0.25, epochs=1), data, None, model=model, log=quiet)
    assert model.preprocessing == load_model(tmp_path / "run").preprocessing
    assert model.preprocessing["familiar"] is not None
