"""All networks on what a batch may be: of half precision, empty, not a number; against the same in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from pointnet import (
    DGCNNClassifier,
    DGCNNPartSegmenter,
    EdgeNetClassifier,
    PointNet2Classifier,
    PointNet2PartSegmenter,
    PointNet2Segmenter,
    PointNetClassifier,
    PointNetPartSegmenter,
    PointNetSegmenter,
    PointNextClassifier,
)
from tests.forms import forms

NARROW = {"widths": ((8, 8), (8, 16)), "tnet_widths": ((8, 16), (8,))}
FAMILY = {
    "pointnet": lambda: PointNetClassifier(5, head_widths=(8,), dropout=0.0, **NARROW),
    "dgcnn": lambda: DGCNNClassifier(5, dropout=0.0, width=0.125),
    "edgenet": lambda: EdgeNetClassifier(5, dropout=0.0, width=0.25),
    "pointnext": lambda: PointNextClassifier(5, dropout=0.0, width=0.25),
    "pointnet2": lambda: PointNet2Classifier(5, dropout=0.0, width=0.25),
    "parts": lambda: PointNetPartSegmenter(5, 2, head_widths=(8,), **NARROW),
    "scenes": lambda: PointNetSegmenter(5, 3, head_widths=(8,), **NARROW),
    "pointnet2 parts": lambda: PointNet2PartSegmenter(5, 2, dropout=0.0, width=0.25),
    "dgcnn parts": lambda: DGCNNPartSegmenter(5, 2, dropout=0.0, width=0.25),
    "pointnet2 scenes": lambda: PointNet2Segmenter(5, 3, dropout=0.0, width=0.25),
}

SOME = forms(FAMILY, "pointnet", "edgenet", "dgcnn parts")


def gradients(network: nn.Module, x: Tensor) -> Tensor:
    network.zero_grad()
    network(x).double().square().mean().backward()
    return torch.cat([each.grad.double().flatten() for each in network.parameters()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", SOME)
def test_in_half_precision_logits_and_gradients_are_near_those_of_the_same_weights(kind, dtype):
    half = FAMILY[kind]().to(dtype)
    x, whole = torch.randn(4, 3, 150).to(dtype), copy.deepcopy(half).double()
    wanted, got = whole.eval()(x.double()), half.eval()(x)
    assert got.dtype == dtype
    assert (got.double() - wanted).abs().max() <= (0.02 if dtype == torch.float16 else 0.15) * wanted.abs().max()
    if "dgcnn" in kind or dtype == torch.float16:  # its graphs are those of features; too few exponents
        return
    likeness = torch.cosine_similarity(gradients(half.train(), x), gradients(whole.train(), x.double()), dim=0)
    assert likeness > 0.5


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", SOME)
def test_without_values_shapes_are_those_of_a_cpu(kind, training):
    network, x = FAMILY[kind]().train(training), torch.randn(2, 3, 150)
    wanted = network(x)
    bare = network.to("meta")
    got = bare(x.to("meta"))
    assert (got.shape, got.dtype, got.device.type) == (wanted.shape, wanted.dtype, "meta")
    got.sum().backward()
    assert all(each.grad is not None and each.grad.shape == each.shape for each in bare.parameters())


@pytest.mark.parametrize("kind", FAMILY)
def test_no_cloud_has_no_logits(kind):
    network, x = FAMILY[kind]().eval(), torch.randn(1, 3, 60)
    assert network(x[:0]).shape == (0, *network(x).shape[1:])


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_number_that_is_not_finite_shows_in_its_cloud_and_in_no_other(kind, value):
    network, x = FAMILY[kind]().eval(), torch.randn(3, 3, 60)
    spoiled = x.clone()
    spoiled[1, :, 7] = value
    logits = network(spoiled)
    assert not logits[1].isfinite().all()
    torch.testing.assert_close(logits[::2], network(x)[::2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("lengths", [[9, 0, 5], [9, -1, 5], [9, 61, 5]])
def test_a_cloud_of_no_points_or_of_more_than_there_are_is_refused(kind, lengths):
    with pytest.raises(ValueError, match=r"lengths must be from 1 to 60, got"):
        FAMILY[kind]().eval()(torch.randn(3, 3, 60), lengths=torch.tensor(lengths))
    with pytest.raises(ValueError, match=r"lengths must be a tensor \(3,\) of integers, got list"):
        FAMILY[kind]().eval()(torch.randn(3, 3, 60), lengths=[9, 8, 7])


@pytest.mark.filterwarnings("ignore:There is a performance drop", "ignore:.*jit.script")
@pytest.mark.parametrize("kind", SOME)
def test_the_transforms_of_torch_func_give_what_cloud_after_cloud_gives(kind):
    network, x = FAMILY[kind]().double().eval(), torch.randn(2, 3, 40).double()
    weights = dict(network.named_parameters())
    for name, weight in weights.items():
        if name.endswith("norm.bias"):  # else a centre, 0 from itself, is where a ReLU has two slopes
            nn.init.normal_(weight, std=0.1)

    def loss(weights: dict[str, Tensor], cloud: Tensor) -> Tensor:
        return functional_call(network, weights, cloud[None]).square().sum()

    torch.testing.assert_close(vmap(lambda cloud: network(cloud[None])[0])(x), network(x))
    of_each = vmap(grad(loss), (None, 0))(weights, x)
    for i, cloud in enumerate(x):
        wanted = torch.autograd.grad(loss(weights, cloud), [*weights.values()])
        for name, its in zip(weights, wanted, strict=True):
            torch.testing.assert_close(of_each[name][i], its, rtol=0, atol=1e-9 * float(1 + its.abs().max()))
    _, turned = jvp(lambda x: network(x).sum(), (x,), (torch.ones_like(x),))
    points = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(network(points).sum(), points)
    torch.testing.assert_close(turned, wanted.sum())


@pytest.mark.filterwarnings("ignore:.*jit.script")
@pytest.mark.parametrize("kind", SOME)
def test_dual_numbers_have_the_tangents_of_the_transforms_of_a_frozen_network_too(kind):
    network, x = FAMILY[kind]().double().eval(), torch.randn(2, 3, 40).double()
    _, wanted = jvp(network, (x,), (torch.ones_like(x),))
    for frozen in (False, True):
        network.requires_grad_(not frozen)
        with torch.set_grad_enabled(not frozen), forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
        torch.testing.assert_close(tangent, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_may_be_in_single_precision_where_all_else_is_half(dtype):
    network, x = FAMILY["pointnet"]().to(dtype), torch.randn(4, 3, 60).to(dtype)
    for norm in (each for each in network.modules() if isinstance(each, nn.BatchNorm1d)):
        norm.float()
    for layers in (network.encoder.mlp2[:1], network.encoder.feature_tnet.mlp):
        features = torch.randn(4, 8, 60).to(dtype)
        pooled, wanted = layers.max_pool(features), layers(features).max(2).values
        assert pooled.dtype == wanted.dtype == dtype
        torch.testing.assert_close(pooled, wanted, rtol=0, atol=0.05)
    assert network(x).dtype == dtype
