"""A hook on any module of a network runs, or a line says why it does not."""

import warnings

import pytest
import torch
from torch import nn

from pointnet import EdgeNetClassifier, PointNetClassifier, PointNetPartSegmenter, PointNetSegmenter, SharedMLP, TNet
from pointnet.models import PointNetEmbedder
from tests.forms import forms
from tests.helpers import trained_looking

SMALL = {"widths": ((4, 5), (6, 7)), "tnet_widths": ((4, 5), (6,))}
NETWORKS = {
    "classifier": PointNetClassifier(3, head_widths=(6, 5), **SMALL),
    "parts": PointNetPartSegmenter(5, 2, head_widths=(6, 5), dropout=0.1, **SMALL),
    "released parts": PointNetPartSegmenter(5, 2, head_widths=(6,), head_takes="released", **SMALL),
    "scenes": PointNetSegmenter(3, 3, head_widths=(6,), **SMALL),
    "encoder": PointNetEmbedder(**SMALL),
    "mlp": SharedMLP([3, 4, 5]),
    "tnet": TNet(3, widths=((4, 5), (6,))),
}


def silent_modules(network, register, run) -> tuple[set[str], set[str]]:
    """Of all modules, those whose hook did not run, and those of which a warning was given."""
    silent, warned = set(), set()
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList):  # PyTorch's own, which is never called
            continue
        ran: list[int] = []
        handle = getattr(module, register)(lambda *given, ran=ran, **named: ran.append(1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        handle.remove()
        silent |= set() if ran else {name}
        warned |= {name} if any("hooks on this" in str(each.message) for each in caught) else set()
    return silent, warned


@pytest.mark.parametrize("training", forms([True, False], True))
@pytest.mark.parametrize("padded", forms([True, False], True))
@pytest.mark.parametrize("kind", forms(NETWORKS, "classifier", "encoder", "mlp", "tnet"))
def test_a_forward_hook_runs_or_a_line_says_why_not(kind, padded, training):
    network, x = trained_looking(NETWORKS[kind], torch.float32).train(training), torch.randn(3, 3, 9)
    lengths = {"lengths": torch.tensor([9, 4, 7])} if padded else {}
    register = "register_forward_pre_hook" if padded else "register_forward_hook"
    silent, warned = silent_modules(network, register, lambda: network(x, **lengths))
    assert silent == warned
    expected = {f"encoder.{name}" for name in ("mlp1", "mlp2") if hasattr(network, "encoder")}
    if padded and training:
        expected |= {name for name in silent if name.endswith("norm")}
    assert silent == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "released parts"])
def test_so_does_a_backward_hook(kind):
    network, x = trained_looking(NETWORKS[kind], torch.float32).train(), torch.randn(3, 3, 9, requires_grad=True)
    for register in ("register_full_backward_hook", "register_full_backward_pre_hook"):
        silent, warned = silent_modules(network, register, lambda: network(x).sum().backward())
        assert silent == warned, register


@pytest.mark.parametrize("kind", forms(["classifier", "parts", "released parts"], "classifier"))
@pytest.mark.parametrize("training", [True, False])
def test_a_hook_changes_no_result(kind, training):
    network, x = trained_looking(NETWORKS[kind], torch.float64).train(training), torch.randn(3, 3, 9).double()
    for dropout in (module for module in network.modules() if isinstance(module, nn.Dropout)):
        dropout.p = 0.0
    plain = network(x)
    for name, module in network.named_modules():
        if name not in ("encoder.mlp1", "encoder.mlp2"):  # of which a warning is given
            handle = module.register_forward_hook(lambda *given: None)
            torch.testing.assert_close(network(x), plain, rtol=0, atol=1e-12)
            handle.remove()


def test_a_hook_sees_the_features_and_may_change_the_pooled_ones():
    network, x, seen = NETWORKS["classifier"].float().eval(), torch.randn(2, 3, 9), []
    with network.encoder.register_forward_hook(lambda module, given, out: seen.append(out)):
        network(x)
    assert torch.equal(seen[0][0], network.encoder(x))
    mlp = SharedMLP([3, 4, 5]).eval()
    with mlp[-1].register_forward_hook(lambda module, given, out: out + 1):
        assert torch.allclose(mlp.max_pool(x), mlp(x).max(2).values)


def test_clouds_in_chunks_say_that_the_encoder_is_not_called():
    network, x = NETWORKS["classifier"].float().eval(), torch.randn(2, 3, 9)
    for module in (network, network.encoder):
        with module.register_forward_hook(lambda *given: None), pytest.warns(match="hooks on this PointNet.* do not"):
            network.classify_chunks(x.split(4, 2)) if module is not network else network.fold().classify_chunks([x])


def test_copies_that_would_lose_a_hook_are_refused():
    def halved(module, given, out):
        return out / 2

    network, mlp = PointNetClassifier(3, widths=((8,), (16,)), head_widths=(4,)), SharedMLP([3, 4])
    for module, copied in (
        (network.head, network.fold),
        (network.head[0], network.fold),
        (mlp[0], mlp.to_linear),
        (mlp, mlp.to_linear),
    ):
        with module.register_forward_hook(halved), pytest.raises(ValueError, match="a hook is on .*remove it first"):
            copied()
        copied()
    with mlp[0].conv.register_forward_hook(halved), pytest.raises(ValueError, match="a hook is on the layer"):
        mlp.to_linear()


@pytest.mark.parametrize("padded", [True, False])
def test_a_hook_on_a_norm_of_edgenet_runs_in_eval_and_changes_no_result(padded):
    network, x, ran = trained_looking(EdgeNetClassifier(3, width=0.1)), torch.randn(2, 3, 9).double(), []
    lengths = torch.tensor([9, 4]) if padded else None
    plain = network(x, lengths)
    for norm in (network.level1.norm, network.within2.norm):
        norm.register_forward_hook(lambda *given: ran.append(1))
    torch.testing.assert_close(network(x, lengths), plain, rtol=0, atol=1e-12)
    assert len(ran) == 2
