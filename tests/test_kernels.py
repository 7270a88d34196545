"""The kernels in Triton against the definitions of their operators: on a GPU where there is one, else interpreted.

Whole numbers make products exact, so that values and winners must be the same to the bit; ties are everywhere then.
"""

import json
import os
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from pointnet import PointNetClassifier, SharedMLP
from pointnet.layers import chain
from pointnet.ops import kernels
from pointnet.ops.masked import point_mask
from pointnet.ops.mlp import mlp_max_definition
from pointnet.ops.neighbours import farthest_definition
from pointnet.ops.operators import DEFINITIONS
from tests.helpers import ROOT, trained_looking

pytest.importorskip("triton", reason="needs triton, of the extra triton")
from pointnet.ops.triton import edges, mlp, pooled, sampling

KERNELS = {("mlp", "_mlp_max"), ("pooled", "_extremes"), ("sampling", "_farthest"), ("sampling", "_lowest")}
KERNELS |= {("edges", name) for name in ("_extremes", "_to_points", "_moments")}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|All-NaN slice):RuntimeWarning")  # of NumPy


@pytest.fixture
def asked(monkeypatch):
    """Kernels run, as with POINTNET_KERNELS=triton."""
    monkeypatch.setattr(kernels, "CHOICE", "triton")


@pytest.fixture
def full_precision(monkeypatch):
    """Convolutions in float32 throughout: PyTorch's own choice on a GPU is TF32, of 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def spied(monkeypatch, name: str) -> list[str]:
    """The name, as often as its kernel runs from now on."""
    ran, kernel = [], kernels.KERNELS[name]
    counted = kernel._replace(run=lambda *given: ran.append(name) or kernel.run(*given))
    monkeypatch.setitem(kernels.KERNELS, name, counted)
    return ran


def whole(*shape: int) -> torch.Tensor:
    return torch.randint(-2, 3, shape, device=DEVICE).float()


def same(got, wanted) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one.nan_to_num(123.0), other.nan_to_num(123.0))


@pytest.mark.parametrize("relu", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("clouds", "points", "widths", "ragged"),
    [
        (2, 37, (3, 16, 20, 65), False), (1, 1, (3, 128, 30), False), (2, 65, (5, 7), True),
        pytest.param(3, 130, (3, 16, 65), True, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_whole_mlp_and_its_max_are_those_of_the_definition(clouds, points, widths, ragged, relu):
    x = whole(clouds, points, widths[0]).transpose(1, 2)
    weights = [whole(d, c) for c, d in pairwise(widths)]
    weights[0] = whole(clouds, widths[1], widths[0])  # one per cloud, as with a transform
    biases = [None if i == 1 else whole(d) for i, d in enumerate(widths[1:])]
    mask = point_mask(torch.tensor([points, 1, 70])[:clouds], x) if ragged else None
    x = x if mask is None else x.masked_fill(~mask, torch.nan)
    given = (x, weights, biases, mask, relu, True)
    same(mlp.mlp_max(*given), mlp_max_definition(*given))


def test_a_point_that_is_not_a_number_shows_in_the_max():
    x = whole(2, 3, 70)
    x[1, 0, 69] = torch.nan
    given = (x, [whole(16, 3), whole(20, 16)], [None, None], None, True, True)
    got = mlp.mlp_max(*given)
    assert got[0][1].isnan().all()
    assert (got[1][1] == 69).all()
    same(got, mlp_max_definition(*given))


@pytest.mark.parametrize("both", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("clouds", "points", "width", "channels", "ragged", "dtype", "programs"),
    [
        (3, 37, 3, 7, True, torch.float16, 512), (1, 1, 16, 20, False, torch.float32, 512),
        pytest.param(2, 130, 70, 65, True, torch.float32, 1, marks=pytest.mark.slow),
        pytest.param(2, 130, 70, 65, False, torch.float32, 512, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_extremes_are_those_of_the_definition(
    monkeypatch, clouds, points, width, channels, ragged, dtype, both, programs
):
    monkeypatch.setattr(pooled, "PROGRAMS", programs)
    x, weight = whole(clouds, points, width).to(dtype).transpose(1, 2), whole(channels, width)
    mask = point_mask(torch.tensor([points, 1, 20], device=DEVICE)[:clouds], x) if ragged else None
    held = x if mask is None else x.masked_fill(~mask, torch.nan)
    given = (held, weight, mask, both)
    same(pooled.extremes(*given), DEFINITIONS["extremes"](*given))


EDGES = [
    (2, 20, 9, 4, 18, True),
    (1, 1, 1, 1, 20, False),
    pytest.param(2, 50, 33, 20, 130, True, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("both", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("falling", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("clouds", "points", "centres", "most", "channels", "ragged"), EDGES)
def test_extremes_over_neighbours_are_those_of_the_definition(
    clouds, points, centres, most, channels, ragged, falling, both
):
    b, rising = whole(clouds, channels, points), whole(channels).ge(0) * 2.0 - 1 if falling else None
    neighbours = torch.randint(points, (clouds, centres, most), device=DEVICE)
    got = edges.edge_extremes(b, neighbours, rising, both, True)
    same(got, DEFINITIONS["edge_extremes"](b, neighbours, rising, both, True))
    same(edges.edge_extremes(b, neighbours, rising, both, False)[:1], got[:1])
    given = (whole(*got[0].shape), b, neighbours, got[1])
    same([edges.edge_extremes_backward(*given)], [DEFINITIONS["edge_extremes_backward"](*given)])


@pytest.mark.parametrize(("clouds", "points", "centres", "most", "channels", "ragged"), EDGES)
def test_moments_of_pairs_hold_what_cancels(clouds, points, centres, most, channels, ragged):
    a = 100 + torch.randn(clouds, channels, centres, device=DEVICE)
    b = 1e-3 * torch.randn(clouds, channels, points, device=DEVICE) - 300
    neighbours = torch.randint(points, (clouds, centres, most), device=DEVICE)
    mask = torch.arange(centres, device=DEVICE) < torch.tensor([[[centres]], [[3]]], device=DEVICE)[:clouds]
    held = a.masked_fill(~mask, torch.nan) if ragged else a
    mask = mask if ragged else None
    got = edges.edge_moments(held, b, neighbours, mask)
    wanted = DEFINITIONS["edge_moments"](held, b, neighbours, mask)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-9, atol=1e-9)
    given = (torch.randn_like(got[0]), torch.randn_like(got[1]), held, b, neighbours, mask, *wanted[2:])
    mine, right = edges.edge_moments_backward(*given), DEFINITIONS["edge_moments_backward"](*given)
    for one, other in zip(mine, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("points", "count"), [(70, 9), (1, 3), (5, 9)])
@pytest.mark.parametrize("ragged", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_farthest_points_are_those_of_the_definition(points, count, ragged):
    x = torch.randn(2, points, 3, device=DEVICE).transpose(1, 2) + 100
    x[:, :, : points // 2] = x[:, :, : points // 2].round()  # with ties and copies
    lengths, first = (torch.tensor(each, device=DEVICE) for each in ([points, max(1, points - 30)], [points - 1, 0]))
    x[1, :, int(lengths[1]) :] = torch.nan if ragged else 7.0
    strided = torch.stack([lengths, lengths - 1], 1)[:, 0]
    given = (x, count, strided if ragged else None, first)
    same([sampling.farthest_point_sampling(*given)], [farthest_definition(*given)])


@pytest.mark.parametrize(
    ("shape", "count"),
    [((2, 3, 70), 9), ((1, 1, 1), 1), ((5, 4), 4), pytest.param((3, 40, 257), 20, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("last", [torch.inf, torch.nan, -0.0])
def test_the_lowest_of_rows_are_those_of_the_definition(shape, count, last):
    values = whole(*shape)
    values[..., shape[-1] // 2 :] = last
    same([sampling.lowest(values, count)], [DEFINITIONS["lowest"](values, count)])
    assert not sampling.fits_lowest(values.double(), count)
    assert not sampling.fits_lowest(values, 33)


@pytest.mark.parametrize("ragged", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_training_step_by_kernels_is_the_same(asked, full_precision, monkeypatch, ragged):
    model = PointNetClassifier(5, widths=((8,), (16, 40)), tnet_widths=((8, 24), (16,)), head_widths=(16,), dropout=0.0)
    trained_looking(model, torch.float32).train().to(DEVICE)
    x = torch.randn(4, 3, 33, device=DEVICE, requires_grad=True)
    lengths = torch.tensor([33, 9, 20, 1], device=DEVICE) if ragged else None

    def gradients():
        return torch.autograd.grad(model(x, lengths=lengths).square().sum(), [x, *model.parameters()])

    ran = spied(monkeypatch, "extremes")
    got = gradients()
    assert len(ran) == 3  # the two T-Nets, and the network
    monkeypatch.setattr(kernels, "CHOICE", "none")
    for mine, right in zip(got, gradients(), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-4 * right.abs().max().item() + 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("ragged", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_folded_classifier_is_three_kernels_and_the_same(asked, monkeypatch, ragged):
    model = PointNetClassifier(5, widths=((8, 12), (8, 16, 40)), tnet_widths=((8, 24), (16,)), head_widths=(16,))
    folded = trained_looking(model, torch.float32).to(DEVICE).fold()
    x, lengths = torch.randn(2, 3, 70, device=DEVICE), torch.tensor([70, 9], device=DEVICE) if ragged else None
    calls, whole_mlp = [], chain.mlp_max
    monkeypatch.setattr(chain, "mlp_max", lambda *given: calls.append(len(given[1])) or whole_mlp(*given))
    got = folded(x, lengths=lengths)
    assert calls == [2, 4, 5]  # layers of each: the input T-Net, the feature T-Net behind two, and all
    monkeypatch.setattr(kernels, "CHOICE", "none")
    tolerance = 1e-4 if DEVICE == "cpu" else 5e-3  # TF32 there
    torch.testing.assert_close(got, folded(x, lengths=lengths), rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_what_one_kernel_cannot_take_runs_layer_by_layer(asked, monkeypatch):
    monkeypatch.setattr(chain, "mlp_max", None)
    tolerance = 1e-5 if DEVICE == "cpu" else 1e-2  # TF32 there
    x = torch.randn(2, 3, 9, device=DEVICE)
    hooked = SharedMLP([3, 4, 5], norm=None)
    hooked[0].activation.register_forward_hook(lambda *given: None)
    hooked[1].activation.register_forward_hook(lambda *given: None)
    wide, normed = SharedMLP([3, 200, 5], norm=None), SharedMLP([3, 4, 5]).eval()
    for layers in (hooked, normed, SharedMLP([3, 4, 5], norm=None, activation="gelu"), wide):
        block = layers.to(DEVICE)
        if layers is wide:  # by rows it would be taken
            monkeypatch.setattr("pointnet.ops.mlp.goes_by_rows", lambda *given: False)
        torch.testing.assert_close(block.max_pool(x), block(x).max(2).values, rtol=tolerance, atol=tolerance)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        SharedMLP([3, 4, 5], norm=None).to(DEVICE).max_pool(x)
    with torch.enable_grad():
        SharedMLP([3, 4, 5], norm=None).to(DEVICE).max_pool(x).sum().backward()


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (True, {}), (False, {"CHOICE": "none"}), (False, {"HAS_TRITON": False}), (False, {"HAS_COMPILER": False}),
        (True, {"HAS_COMPILER": False, "CHOICE": "triton"}), (False, {"hip": "7.0"}), (False, {"capability": (7, 5)}),
    ],
)  # fmt: skip
def test_kernels_run_on_gpus_that_are_able_to_unless_told_not_to(monkeypatch, wanted, changes):
    settings = {"CHOICE": "", "HAS_TRITON": True, "HAS_COMPILER": True, "hip": None, "capability": (8, 0)} | changes
    monkeypatch.setattr(torch.version, "hip", settings.pop("hip"))
    capability = settings.pop("capability")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for name, value in settings.items():
        monkeypatch.setattr(kernels, name, value)
    assert kernels.run_on(SimpleNamespace(is_cuda=True, device=None)) == wanted
    monkeypatch.setattr(kernels, "CHOICE", "")
    assert not kernels.run_on(torch.ones(1))


@pytest.mark.slow
@torch.no_grad()
def test_a_folded_network_with_kernels_is_one_graph(asked):
    model, graphs = SharedMLP([3, 8, 16], norm=None).to(DEVICE), []
    x = torch.randn(2, 3, 20, device=DEVICE)
    compiled = torch.compile(model.max_pool, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph)
    tolerance = 1e-5 if DEVICE == "cpu" else 5e-3  # TF32 there
    torch.testing.assert_close(compiled(x), model.max_pool(x), rtol=tolerance, atol=tolerance)
    assert [node.target for node in graphs[0].graph.nodes].count(torch.ops.pointnet.mlp_max) == 1


@pytest.mark.slow
def test_a_choice_of_kernels_that_is_none_is_refused():
    command = [sys.executable, "-c", "import pointnet.ops"]
    environment = os.environ | {"POINTNET_KERNELS": "cuda"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stderr.endswith("ValueError: POINTNET_KERNELS must be none, triton or empty, got cuda\n")


@pytest.mark.slow
def test_every_kernel_compiles_for_gpus_that_are_not_here(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.targets"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(each["module"], each["kernel"]) for each in compiled} == KERNELS
    assert all(each["shared"] <= 99 * 1024 for each in compiled), compiled  # bytes of a block, of the least of GPUs
