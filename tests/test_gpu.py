"""On a CUDA device: the same answers as on the CPU, epochs that never wait for it, and runs that repeat."""

import copy
import json

import pytest
import torch
from torch import nn

from pointnet import PointNetClassifier, PointNetPartSegmenter, PointNetSegmenter, critical_points
from pointnet.__main__ import main
from pointnet.ops.edges import pooled_edges
from pointnet.ops.groups import grouped, pooled_groups
from pointnet.ops.masked import point_mask
from pointnet.ops.neighbours import ball_query, farthest_point_sampling, gather, knn
from pointnet.ops.pooled import pooled, pooled_definition
from pointnet.training import cuda_graph, fit
from pointnet.training.run import Run
from pointnet.world import World
from tests.helpers import SAMPLES, assert_ends_as, fit_in_two, quiet, tiny, trained_looking, two_shapes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DATA = two_shapes(per_class=6)
FAMILY = [{"model": name, "early_points": 0} for name in ("pointnet2", "pointnext_s", "dgcnn", "edgenet")]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Convolutions in float32 throughout: PyTorch's own choice on a GPU is TF32, of 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize(("clouds", "points", "ragged"), [(3, 257, False), (3, 257, True), (2, 40_000, False)])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()])
def test_the_pooled_layer_on_a_gpu_errs_no_more_than_twice_its_definition(clouds, points, ragged, activation):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(clouds, 64, points), torch.randn(96, 64) / 8, torch.randn(96)
    norm = nn.BatchNorm1d(96)
    nn.init.normal_(norm.weight)
    lengths, direction = torch.randint(1, points + 1, (clouds,)), torch.randn(clouds, 96)

    def results(function, device, dtype):
        own = copy.deepcopy(norm).to(device, dtype)
        inputs = [each.to(device, dtype).requires_grad_() for each in (x, weight, bias)]
        mask = point_mask(lengths.to(device), inputs[0]) if ragged else None
        y = function(*inputs, own, activation, mask)
        gradients = torch.autograd.grad((y * direction.to(device, dtype)).sum(), [*inputs, *own.parameters()])
        return [each.double().cpu() for each in (y, *gradients, own.running_mean, own.running_var)]

    truth = results(pooled_definition, "cpu", torch.float64)
    definition, fast = (results(function, "cuda", torch.float32) for function in (pooled_definition, pooled))
    for wanted, plain, ours in zip(truth, definition, fast, strict=True):
        size = wanted.abs().max()
        assert (ours - wanted).abs().max() <= 2 * (plain - wanted).abs().max() + 1e-5 * size


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_neighbours_and_maxima_over_them_are_the_cpu_s_and_never_wait():
    def find(points, lengths, weight, norm):
        centres = gather(points, farthest_point_sampling(points, 16, lengths))
        balls, nearest = ball_query(points, centres, 1.5, 8, lengths), knn(points, 8, centres, lengths)
        edges = pooled_edges(centres, points, nearest, norm, nn.ReLU())
        groups = pooled_groups(grouped(points, balls), weight, None, norm, nn.GELU())
        gradients = torch.autograd.grad((edges * groups).sum(), (points, weight))
        return centres, balls, nearest, edges, groups, *gradients

    torch.manual_seed(0)
    points = (2 * torch.randn(3, 3, 500, dtype=torch.float64)).round()  # with ties and copies, which float32 holds
    weight, lengths = torch.randn(3, 3, dtype=torch.float64), torch.tensor([500, 20, 100])
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        results = []
        for device in ("cpu", "cuda", "cuda"):  # the first call on a GPU loads kernels
            inputs = [each.to(device, dtype).requires_grad_() for each in (points, weight)]
            given = (inputs[0], lengths.to(device), inputs[1], nn.BatchNorm1d(3).to(device, dtype))
            torch.cuda.set_sync_debug_mode("error" if results[1:] else "default")
            try:
                results.append(find(*given))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        for got, wanted in zip(results[2], results[0], strict=True):
            torch.testing.assert_close(got.cpu(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("network", "arguments", "channels"),
    [(PointNetClassifier, (7,), 3), (PointNetPartSegmenter, (7, 2), 3), (PointNetSegmenter, (7,), 9)],
)
def test_networks_give_the_cpu_s_answers(network, arguments, channels):
    torch.manual_seed(0)
    model = trained_looking(network(*arguments), torch.float32)
    x, lengths = torch.randn(3, channels, 500), torch.tensor([500, 20, 1])
    on_gpu = copy.deepcopy(model).cuda()
    for ours in (on_gpu, on_gpu.fold()):
        torch.testing.assert_close(
            ours(x.cuda(), lengths=lengths.cuda()).cpu(), model(x, lengths=lengths), rtol=1e-3, atol=1e-3
        )
    if network is PointNetClassifier:
        assert torch.equal(critical_points(on_gpu, x.cuda()).cpu(), critical_points(model, x))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("feed", ["resident", "stream"])
@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "clip": 1.0, "precision": "bf16"}, *FAMILY], ids=str)
def test_an_epoch_on_a_gpu_never_waits_for_it(tmp_path, feed, changes):
    augmented = {"jitter": 0.01, "rotate": 180.0}
    config = tiny(tmp_path, device="cuda", feed=feed, feature_transform=True, **augmented, **changes)
    run = Run.start(config, DATA, torch.device("cuda"), World())
    for _ in run.steps():  # the first epoch loads kernels
        pass
    run.end_epoch()
    steps = run.steps()
    next(steps)  # copies the epoch's order
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(steps)
        next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    steps.close()


@pytest.mark.parametrize("changes", [{"feature_transform": True}, *FAMILY], ids=str)
def test_a_deterministic_run_on_a_gpu_resumes_bit_for_bit(tmp_path, changes):
    settings = {"device": "cuda", "deterministic": True, "ema": 0.9, **changes}
    fit(tiny(tmp_path / "whole", **settings), DATA, log=quiet)
    fit_in_two(tiny(tmp_path / "broken", **settings), DATA, epochs=2)
    assert_ends_as(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16", "ema": 0.9}, {"schedule": "step", "decay_epochs": 1}, {"optimizer": "sgd"}, *FAMILY],
    ids=str,
)
def test_replayed_steps_are_the_launched_ones_bit_for_bit(tmp_path, monkeypatch, changes):
    settings = {"device": "cuda", "deterministic": True, "epochs": 6, "norm_decay_rate": 0.5, **changes}
    fit(tiny(tmp_path / "replayed", **settings), DATA, log=quiet)
    monkeypatch.setattr(cuda_graph, "WARM_UP", 10_000)
    fit(tiny(tmp_path / "launched", **settings), DATA, log=quiet)
    assert_ends_as(tmp_path / "replayed", tmp_path / "launched")


def test_a_function_recorded_at_several_sizes_replays_the_right_one():
    weight = torch.randn(3, device="cuda", requires_grad=True)

    def scaled(x, shift=None):
        weight.grad = None
        y = (x * weight).sum(1) + (0 if shift is None else shift)
        y.square().sum().backward()
        return (y.detach(),)

    recorded = cuda_graph.GraphedGradients(scaled, [weight])
    for number in range(6 * (cuda_graph.WARM_UP + 2)):
        x = torch.randn(2 + number % 2, 3, device="cuda")
        named = {"shift": torch.randn(len(x), device="cuda")} if number % 3 == 0 else {}
        got = recorded(x, **named)[0].clone(), weight.grad.clone()
        torch.testing.assert_close(got, (scaled(x, **named)[0], weight.grad))
        with torch.no_grad():
            weight.mul_(0.99)  # in place, so a recording follows
    assert len(recorded.recordings) == 4  # two sizes, each with a shift and without


@torch.no_grad()
def test_distances_of_neighbours_keep_their_precision_under_autocast():
    torch.manual_seed(0)
    points = torch.randn(2, 3, 500, device="cuda") + 10  # whose distances half precision could not tell apart
    wanted = knn(points, 8), ball_query(points, points[:, :, :40], 0.5, 8), farthest_point_sampling(points, 40)
    with torch.autocast("cuda", torch.bfloat16):
        got = knn(points, 8), ball_query(points, points[:, :, :40], 0.5, 8), farthest_point_sampling(points, 40)
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)
    order = (points.double().unsqueeze(3) - points.double().unsqueeze(2)).square().sum(1).argsort(2)[:, :, :8]
    assert (wanted[0] == order).float().mean() > 0.99


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:TensorFloat32:UserWarning")
def test_a_compiled_run_on_a_gpu_learns_as_the_eager_one(tmp_path):
    losses = {True: [], False: []}
    for compiled, seen in losses.items():
        config = tiny(tmp_path / str(compiled), device="cuda", compile=compiled, epochs=2, dropout=0.0)
        fit(config, DATA, log=quiet, after_epoch=lambda metrics, seen=seen: seen.append(metrics["train_loss"]))
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)


def test_the_commands_answers_on_the_gpu_are_those_of_the_cpu(capsys, tmp_path):
    for task in ("classification", "part"):
        said = []
        for device in ("cpu", "cuda"):
            how = f"--task {task} --device {device} --json --out".split()
            assert main(["predict", f"{SAMPLES}/files", *how, str(tmp_path)]) == 0
            said.append(json.loads(capsys.readouterr().out))
        for one, other in zip(*said, strict=True):
            name = "probability" if task == "classification" else "mean_probability"
            assert one.get("class") == other.get("class")
            assert one[name] == pytest.approx(other[name], abs=1e-3)
