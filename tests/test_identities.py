"""Identities 5 to 12 where they are used; 1 is proven in test_proof.py, 2 to 4 in test_pooled.py, 13 in
test_nested_sampling.py."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from pointnet import PointNetClassifier, PointNetEncoder, SharedMLP, critical_points
from pointnet.layers import EdgeConv, SetAbstraction, align
from pointnet.layers.folding import fold_norms
from pointnet.models import pool_chunks
from pointnet.ops.aligned import fold_transform
from tests.forms import forms
from tests.helpers import trained_looking

# Identity 5: W [x; g] = W1 x + W2 g.


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("hooked", [True, False])
def test_identity_5_any_number_of_tensors_are_their_concatenation(training, turned, hooked):
    mlp = trained_looking(SharedMLP([3 + 2 + 5 + 3 + 4, 6, 5], bias=True)).train(training)
    twin = copy.deepcopy(mlp)
    for pruned in (mlp, twin) if hooked else ():  # a hook computes the weight from this at the next call, not before
        torch.nn.utils.prune.l1_unstructured(pruned[0].conv, "weight", 0.5)
        pruned[0].conv.weight_orig.data += 1
    x, more, vector, last = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((4, 3, 20), (4, 2, 20), (4, 5), (4, 4))
    )
    matrix = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    y = mlp(x, (more, vector, x, last), transform=matrix if turned else None)
    parts = [align(x, matrix) if turned else x, more, vector[:, :, None], x, last[:, :, None]]
    wanted = twin(torch.cat([part.expand(-1, -1, 20) for part in parts], 1))
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    sources = [x, more, vector, last, *([matrix] if turned else [])]
    grads = torch.autograd.grad(y.square().sum(), [*sources, *mlp.parameters()])
    grads2 = torch.autograd.grad(wanted.square().sum(), [*sources, *twin.parameters()])
    torch.testing.assert_close(grads, grads2, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mlp.state_dict(), twin.state_dict(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mlp.max_pool(x, [more, vector, x, last]), mlp(x, [more, vector, x, last]).amax(2))


# Identity 6: W (T^T x) = (W T^T) x.


@pytest.mark.parametrize("channels", [3, 6])
def test_identity_6_a_transform_folds_into_the_next_weight(channels):
    x = torch.randn(4, channels, 20, dtype=torch.float64)
    transform = torch.randn(4, 3, 3, dtype=torch.float64)
    weight = torch.randn(7, channels, dtype=torch.float64)
    torch.testing.assert_close(fold_transform(weight, transform) @ x, weight @ align(x, transform))
    mlp = SharedMLP([channels, 6, 5], bias=True).double()
    twin = copy.deepcopy(mlp)
    torch.testing.assert_close(mlp(x, transform=transform), twin(align(x, transform)))


# Identity 8: in eval, batch norm folds into the weights.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_8_a_folded_network_is_the_network(dtype):
    model = trained_looking(PointNetClassifier(7), dtype)
    folded = model.fold()
    x = torch.randn(3, 3, 50, dtype=dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(folded(x), model(x), rtol=tolerance, atol=tolerance)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    assert isinstance(folded, PointNetClassifier)
    lengths = torch.tensor([50, 20, 1])
    torch.testing.assert_close(folded(x, lengths), model(x, lengths), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_a_folded_block_is_the_block(bias, affine):
    mlp = SharedMLP([3, 6, 5], bias=bias).double().eval()
    for layer in mlp:
        layer.norm = nn.BatchNorm1d(layer.conv.out_channels, affine=affine).double().eval()
    if affine:
        trained_looking(mlp)
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    torch.testing.assert_close(fold_norms(mlp)(x), mlp(x), rtol=1e-12, atol=1e-12)


def test_a_norm_without_running_statistics_cannot_be_folded():
    model = PointNetClassifier(3)
    model.encoder.mlp1[0].norm = nn.BatchNorm1d(64, track_running_stats=False)
    with pytest.raises(ValueError, match=r"encoder.mlp1.layers.0: its norm has no running statistics to fold"):
        model.fold()


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)),
        nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.BatchNorm1d(4)),
        nn.Sequential(nn.Linear(9, 9), nn.LayerNorm(9), nn.Linear(9, 9), nn.LayerNorm(9), nn.BatchNorm1d(4)),
    ],
)
def test_norms_that_follow_no_linear_stay_as_they_are(other):
    network, x = nn.Sequential(SharedMLP([4, 4]), other).double(), torch.randn(5, 4, 9, dtype=torch.float64)
    network(x)
    network.eval()
    folded = fold_norms(network)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-12, atol=1e-12)
    assert sum(isinstance(each, nn.BatchNorm1d) for each in folded.modules()) == 1, "that of the shared MLP is folded"


def test_each_norm_that_follows_a_linear_is_folded_whatever_is_beside_them():
    layers = nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)
    network, x = nn.Sequential(*layers).double(), torch.randn(9, 4, dtype=torch.float64)
    network(x)
    folded = fold_norms(network.eval())
    assert [type(each) for each in folded] == [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(folded(x), network(x), rtol=1e-12, atol=1e-12)


def test_what_is_not_a_plain_weight_is_refused_and_a_shared_one_is_folded_for_each():
    mlp = SharedMLP([3, 4]).eval()
    torch.nn.utils.parametrizations.weight_norm(mlp[0].conv)
    with pytest.raises(ValueError, match="computed by a hook, a parametrization or a layer"):
        fold_norms(mlp)
    shared = trained_looking(SharedMLP([4, 4, 4]))
    shared[1].conv = shared[0].conv
    x = torch.randn(2, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(fold_norms(shared)(x), shared(x), rtol=1e-12, atol=1e-12)
    linears = shared.to_linear()
    folded = fold_norms(linears)
    assert len(folded) < len(linears)
    chain = nn.Sequential(SharedMLP([4, 4]), shared).double().eval()
    folded_chain = fold_norms(chain)
    assert not any(isinstance(part, nn.BatchNorm1d) for part in folded_chain.modules())
    torch.testing.assert_close(folded_chain(x), chain(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(folded(x.transpose(1, 2)), linears(x.transpose(1, 2)), rtol=1e-12, atol=1e-12)


# Identity 9: the max over a cloud is the max over its chunks.


@pytest.mark.parametrize("transforms", [True, False])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_identity_9_a_cloud_in_chunks_is_the_cloud(transforms, size):
    model = trained_looking(PointNetClassifier(5, 3, transforms, transforms))
    x = torch.randn(2, 3, 50, dtype=torch.float64)
    chunks = x.split(size, dim=2)
    torch.testing.assert_close(pool_chunks(model.encoder, chunks), model.encoder(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model.classify_chunks(chunks), model(x), rtol=1e-11, atol=1e-11)


def test_chunks_that_can_be_read_once_are_refused_where_more_passes_are_needed():
    chunks = torch.randn(1, 3, 20).split(6, dim=2)
    with pytest.raises(ValueError, match="chunks must be readable more than once"):
        pool_chunks(PointNetEncoder().eval(), iter(chunks))
    plain = PointNetEncoder(3, False, False).eval()
    torch.testing.assert_close(pool_chunks(plain, iter(chunks)), pool_chunks(plain, chunks))
    with pytest.raises(ValueError, match="at least one chunk"):
        pool_chunks(plain, [])
    with pytest.raises(ValueError, match="needs a network in eval mode"):
        pool_chunks(PointNetEncoder(), chunks)
    with pytest.raises(ValueError, match="every chunk must be of the same 2 clouds, got 1"):
        pool_chunks(plain, [torch.randn(2, 3, 5), torch.randn(1, 3, 5)])
    assert not pool_chunks(plain, chunks).requires_grad


def test_norms_that_use_the_batch_even_in_eval_are_refused():
    encoder = PointNetEncoder().eval()
    encoder.mlp1[1].norm = nn.BatchNorm1d(64, track_running_stats=False).eval()
    x = torch.randn(1, 3, 20)
    for call in (lambda: pool_chunks(encoder, x.split(5, 2)), lambda: critical_points(encoder, x)):
        with pytest.raises(ValueError, match=r"mlp1.layers.1.norm takes its statistics from the batch"):
            call()


# Identity 10: in eval the output depends on the critical points alone.


@pytest.mark.parametrize("activation", forms(["relu", "gelu"], "relu"))
@pytest.mark.parametrize("transforms", [True, False])
def test_identity_10_any_subset_with_the_critical_points_has_the_same_logits(transforms, activation):
    model = trained_looking(PointNetClassifier(5, 3, transforms, transforms))
    if activation == "gelu":
        for module in model.modules():
            if hasattr(module, "conv"):
                module.activation = nn.GELU()
    x = torch.randn(2, 3, 3000, dtype=torch.float64)
    critical = critical_points(model, x)
    assert critical.shape == (2, 3000)
    assert 0 < critical.sum() < 0.9 * critical.numel()
    wanted = model(x)
    for b in range(2):
        for share in (0.0, 0.3):
            kept = critical[b] | (torch.rand(3000) < share)
            torch.testing.assert_close(model(x[b : b + 1, :, kept]), wanted[b : b + 1], rtol=1e-10, atol=1e-10)
    # And it is needed: without it the logits change.
    assert not torch.allclose(model(x[:1, :, ~critical[0]]), wanted[:1], rtol=1e-6, atol=1e-6)


def test_padding_is_never_critical():
    model = trained_looking(PointNetClassifier(5))
    lengths = torch.tensor([10, 40])
    x = torch.randn(2, 3, 40, dtype=torch.float64)
    x[0, :, 10:] = torch.nan
    critical = critical_points(model, x, lengths)
    assert not critical[0, 10:].any()
    assert torch.equal(critical[0, :10], critical_points(model, x[:1, :, :10])[0])
    with pytest.raises(ValueError, match="eval mode"):
        critical_points(model.train(), x)


# Identities 7, 11 and 12: neighbourhoods. All pairs of the batch, in a loop, are what is compared with.


def check_neighbourhoods(mlp, forward, pairs, x):
    """That what `forward` gives is the max over each neighbourhood's K pairs, (P, C, K), of an MLP of all pairs
    together, also in gradients and running statistics."""
    twin = copy.deepcopy(mlp).train(mlp.training)
    y = forward(x)
    small_clouds = pairs(x)
    every = small_clouds.transpose(0, 1).flatten(1).unsqueeze(0)
    wanted = twin(every)[0].unflatten(1, (len(small_clouds), -1)).amax(2)
    wanted = wanted.unflatten(1, (len(y), -1)).transpose(0, 1)
    torch.testing.assert_close(y, wanted, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(mlp.state_dict(), twin.state_dict(), rtol=1e-11, atol=1e-11)
    weights = torch.randn_like(y)
    ours = torch.autograd.grad((y * weights).sum(), [x, *mlp.parameters()])
    theirs = torch.autograd.grad((wanted * weights).sum(), [x, *twin.parameters()])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def balls(x, centres, radius, most):
    """[p_j - c_i; f_j] of the first K points j in a ball about each of the farthest points; the first repeats."""
    found = []
    for cloud in x.transpose(1, 2):
        taken = [0]
        while len(taken) < centres:
            distances = (cloud[:, None, :3] - cloud[taken, :3]).norm(dim=2)
            taken.append(int(distances.amin(1).argmax()))
        for i in taken:
            inside = [j for j in range(len(cloud)) if (cloud[j, :3] - cloud[i, :3]).norm() < radius][:most]
            near = cloud[inside + inside[:1] * (most - len(inside))]
            found.append(torch.cat([near[:, :3] - cloud[i, :3], near[:, 3:]], 1).T)
    return torch.stack(found)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("widths", [[6], [8, 6], [8, 7, 6]])
def test_identities_7_and_11_a_set_abstraction_is_a_small_network_at_each_centre(widths, training):
    layer = trained_looking(SetAbstraction(2, [widths], 5, [1.1], [6])).train(training)
    x = torch.randn(3, 5, 20, dtype=torch.float64, requires_grad=True)
    pairs = partial(balls, centres=5, radius=1.1, most=6)
    check_neighbourhoods(layer.mlps[0], lambda x: layer(x[:, :3], x[:, 3:])[1], pairs, x)


def edges(x, most):
    """[x_i; x_j - x_i] of the K points j nearest to each point i."""
    found = []
    for cloud in x.transpose(1, 2):
        for point in cloud:
            near = cloud[(cloud - point).square().sum(1).argsort(stable=True)[:most]]
            found.append(torch.cat([point.expand_as(near), near - point], 1).T)
    return torch.stack(found)


@pytest.mark.parametrize("training", [True, False])
def test_identity_12_an_edge_convolution_is_a_layer_on_each_edge(training):
    layer = trained_looking(EdgeConv(3, 6, 4)).train(training)
    x = torch.randn(2, 3, 12, dtype=torch.float64, requires_grad=True)
    check_neighbourhoods(layer.layer, layer, partial(edges, most=4), x)
