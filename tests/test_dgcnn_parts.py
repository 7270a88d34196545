"""DGCNN for parts: the published architecture, counted, equal to the textbook's, and its laws; two layers on edges."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pointnet import DGCNNPartSegmenter, label_points, load_model
from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.datasets import LabelledPoints
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.tasks import TASKS
from pointnet.inference.cases import cases_of
from pointnet.inference.export import NEAR_TIE, SUFFIXES, export_model
from pointnet.layers import EdgeConv
from pointnet.training import fit
from tests.exported import need, runner
from tests.forms import forms
from tests.helpers import count_multiply_adds, described, halves, quiet, small, trained_looking
from tests.helpers import shared_multiply_adds as shared
from tests.own_points import write_objects
from tests.textbook import TextbookDGCNNPart, with_state_of

NEAR = 5
KINDS = torch.tensor([0, 2, 1, 2])


def network(channels: int = 3, width: float = 0.125) -> DGCNNPartSegmenter:
    return trained_looking(DGCNNPartSegmenter(6, 3, channels, neighbours=NEAR, dropout=0.0, width=width))


def clouds(count: int, points: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, points, dtype=torch.float64) / 2


def assert_near(got, wanted, share: float = 1e-10) -> None:
    for mine, other in zip(got, wanted, strict=True):
        assert (mine.reshape(other.shape) - other).abs().max() <= share * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", forms([3, 6], 6))
def test_it_equals_the_textbook_in_outputs_gradients_and_running_statistics(channels, training):
    model = network(channels, 1.0).train(training)
    theirs = with_state_of(model, TextbookDGCNNPart(6, 3, channels, NEAR))
    for _ in range(3):
        x = clouds(4, 30, channels).requires_grad_()
        found = []
        for each in (model, theirs):
            logits = each(x, KINDS)
            found.append([logits, *torch.autograd.grad(logits.square().sum(), [x, *each.parameters()])])
        assert_near(*found)
    assert_near(*([each.double() for each in m.state_dict().values()] for m in (model, theirs)))


def test_in_single_precision_it_errs_at_most_twice_as_much_as_the_textbook():
    model, x = network(width=1.0), clouds(4, 60)
    theirs, truth = with_state_of(model, TextbookDGCNNPart(6, 3, 3, NEAR)), model(x, KINDS)
    errors = [(each.float().eval()(x.float(), KINDS) - truth).abs().max().item() for each in (model, theirs)]
    assert errors[0] <= 2 * errors[1] + 1e-7, errors


def test_parameters_and_multiply_adds_are_the_published_architecture():
    """Of the code in PyTorch, DGCNN_partseg, whose layers are written down here once more."""
    maps = [(6, 64), (64, 128), (128, 1024), (1024, 512), (512, 256)]  # of its Transform_Net, before the last
    maps += [(6, 64), (64, 64), (128, 64), (64, 64), (128, 64), (192, 1024), (16, 64)]
    maps += [(1280, 256), (256, 256), (256, 128)]
    norms = 2 * sum(out for _, out in maps)
    model = DGCNNPartSegmenter()
    wanted = sum(c * d for c, d in maps) + norms + 256 * 9 + 9 + 128 * 50
    assert sum(p.numel() for p in model.parameters()) == wanted == 1_460_361


def test_the_multiply_adds_of_a_first_layer_are_those_of_points_and_not_of_edges():
    own, of_cloud = shared(192, 256), shared(1024, 512, 256, 9) + shared(16, 64) + 1088 * 256
    of_point = shared(128, 1024) + shared(192, 1024) + own + shared(256, 256, 128, 50)
    first, second = 2 * shared(6, 64) + 2 * shared(128, 64), shared(64, 128) + 2 * shared(64, 64)
    assert 1024 * (of_point + first + 40 * second) + of_cloud == 1_182_682_368
    usual = of_point - own + shared(1280, 256) + 40 * (first + second)
    assert 1024 * usual + of_cloud - 1088 * 256 == 2_152_598_784
    counted = count_multiply_adds(DGCNNPartSegmenter(), torch.randn(1, 3, 64))
    found = counted - 64 * (of_point + first + 40 * second) - of_cloud
    assert found - 64 * 9 in (0, 64**2 * (3 + 3 + 64 + 64 + 4))  # to align, and to find neighbours


def test_padding_of_any_content_changes_nothing():
    model, x, lengths = network(), clouds(4, 40), torch.tensor([33, 12, 40, 7])
    for b, length in enumerate(lengths):
        x[b, :, length:] = torch.nan
    logits = model(x, KINDS, lengths)
    for b, length in enumerate(lengths):
        alone = model(x[b : b + 1, :, :length], KINDS[b : b + 1])
        torch.testing.assert_close(logits[b : b + 1, :, :length], alone, rtol=1e-10, atol=1e-10)
        assert not logits[b, :, length:].any()
    model.train()(x, KINDS, lengths).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_in_training_a_padded_batch_is_the_batch_without_padding():
    model, x = network().train(), clouds(4, 30)
    clean, x[:, :, 20:] = copy.deepcopy(model), torch.nan
    logits = model(x, KINDS, torch.full((4,), 20))
    torch.testing.assert_close(logits[:, :, :20], clean(x[:, :, :20], KINDS), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.state_dict(), clean.state_dict(), rtol=1e-10, atol=1e-10)


def test_permuting_the_points_permutes_the_logits():
    model, x, order = network(), clouds(4, 40), torch.randperm(40)
    torch.testing.assert_close(model(x[:, :, order], KINDS), model(x, KINDS)[:, :, order], rtol=1e-10, atol=1e-10)


def test_points_are_labelled_in_chunks_as_they_are_whole():
    model, x, category = network(4), clouds(2, 40, 4), torch.tensor([2, -1])
    chunks = torch.cat([*model.label_chunks(x, x.split(9, 2), category)], 2)
    torch.testing.assert_close(chunks, model(x, category), rtol=1e-12, atol=1e-12)
    assert (model(x, None) - model(x, category)).abs().amax((1, 2))[0] > 1e-6
    with pytest.raises(ValueError, match="eval mode"):
        next(model.train().label_chunks(x, [x]))


def test_a_folded_network_answers_alike():
    model, x = network(), clouds(4, 40)
    folded = model.fold()
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
    torch.testing.assert_close(folded(x, KINDS), model(x, KINDS), rtol=1e-10, atol=1e-10)


def definition(layer: EdgeConv) -> EdgeConv:
    """A copy that takes the edges, as a hook is on it."""
    copied = copy.deepcopy(layer)
    copied.layer.register_forward_hook(lambda module, inputs, output: None)
    return copied


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.ReLU(), nn.LeakyReLU(0.0), "gelu"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
def test_two_layers_on_edges_are_their_definition(activation, training, ragged):
    layer = trained_looking(EdgeConv(4, 6, 5, activation, hidden_channels=8)).train(training)
    other, lengths = definition(layer), torch.tensor([30, 17, 5]) if ragged else None
    found = []
    x = clouds(3, 30, 4).requires_grad_()
    along = torch.randn(3, 6, 30, dtype=torch.float64)
    for each in (layer, other):
        y = each(x, lengths)
        found.append([y, *torch.autograd.grad((y * along).sum(), [x, *each.parameters()])])
    assert_near(*found)
    assert_near(*([each.double() for each in m.state_dict().values()] for m in (layer, other)))


def test_no_tensor_of_edges_is_held_by_two_layers():
    layer, x = EdgeConv(8, 16, 10, hidden_channels=32), torch.randn(2, 8, 400, requires_grad=True)
    edges, held = 2 * 400 * 10, []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: held.append(saved.numel()) or saved, lambda saved: saved
    ):
        layer(x)
    assert held
    assert max(held) <= max(edges, 2 * 400 * 64)  # the graph, and numbers of each point
    held.clear()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: held.append(saved.numel()) or saved, lambda saved: saved
    ):
        definition(layer)(x)
    assert max(held) >= edges * 32


def test_under_autocast_it_is_near_that_in_single_precision():
    layer, x = trained_looking(EdgeConv(4, 6, 5, hidden_channels=8)).float(), clouds(3, 30, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    assert rounded.dtype == torch.float32
    exact = layer(x)
    assert 0 < (rounded - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.slow
def test_parts_are_trained_saved_and_labelled_like_any(tmp_path):
    every = halves("part")
    stored = every.batch(slice(None))[0][:, [0, 1, 2, 4]]  # without the channel that tells the label
    data = LabelledPoints(stored, every.labels, every.classes, every.part_names, every.parts_of, every.num_points)
    fit(small(tmp_path, "part", model="dgcnn", dropout=0.0), data, data, log=quiet)
    model = load_model(tmp_path)
    assert type(model) is DGCNNPartSegmenter
    cloud = label_points(np.random.default_rng(0).normal(size=(70, 3)), model, category=data.classes[0])
    assert cloud.labels.shape == (70,)
    assert set(cloud.labels) <= {0, 1}  # of the category alone
    wider = load_model(tmp_path, num_classes=9)
    assert wider(torch.randn(1, 3, 50)).shape == (1, 9, 50)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_file_answers_alike(format, tmp_path):
    need(format)
    model = described(trained_looking(DGCNNPartSegmenter(3, 2, neighbours=4, width=0.125)).float())
    path = tmp_path / f"model{SUFFIXES[format]}"
    assert export_model(model, path, format) <= NEAR_TIE
    for clouds, points in ((1, 5), (3, 77)):
        x, category = torch.randn(clouds, 3, points), torch.arange(clouds) % 3 - 1
        torch.testing.assert_close(runner(format, path)(x, category), model(x, category), rtol=0, atol=1e-4)


def test_what_an_exported_file_is_compared_with_saw_all_that_the_file_does():
    parts_of = [[0], [1], [2]]
    model = trained_looking(DGCNNPartSegmenter(3, 3, 3, parts_of, neighbours=4, width=0.125)).float()
    model.classes = tuple("abc")
    model.preprocessing = Contract(48, categories=("one", "two", "three")).as_json()
    for case in cases_of(model):
        x, category = case.inputs
        with torch.no_grad():
            shares = model.restrict(model(x, category), category).softmax(1)
        torch.testing.assert_close(shares.amax(1), case.probability, rtol=0, atol=1e-4)


def test_of_a_large_cloud_it_sees_as_many_points_as_in_training(monkeypatch):
    model, seen = described(network().float(), num_points=48), []
    model.classes, see = tuple("abcdef"), DGCNNPartSegmenter.see
    monkeypatch.setattr(DGCNNPartSegmenter, "see", lambda self, x: seen.append(x.shape[2]) or see(self, x))
    for more in ({}, {"num_points": 64}):
        label_points(np.random.default_rng(0).normal(size=(300, 3)), model, **more)
    assert seen == [48, 64]


@pytest.mark.slow
def test_the_command_trains_and_saves_it(tmp_path):
    words = "--task part --model dgcnn --dataset parts --num_points 64 --width 0.125 --epochs 2 --device cpu"
    data, out = write_objects(tmp_path / "data"), tmp_path / "run"
    assert train.main([*words.split(), "--root", str(data), "--out", str(out)]) == 0
    model = load_model(out)
    assert type(model) is DGCNNPartSegmenter
    assert (model.arguments["dropout"], model.arguments["neighbours"]) == (0.5, 40)


def test_train_begins_with_the_published_dropout_widths_and_points():
    config = parse_command(["--task", "part", "--model", "dgcnn"]).config
    assert (config.task, config.model, config.dropout, config.width) == ("part", "dgcnn", 0.5, 1.0)
    assert (config.num_points, config.early_points) == (2048, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DGCNNPartSegmenter(0), "num_parts must be at least 1, got 0"),
        (lambda: DGCNNPartSegmenter(2, 1, 2), "in_channels must be 3"),
        (lambda: DGCNNPartSegmenter(2, neighbours=0), "neighbours must be a whole number of at least 1, got 0"),
        (lambda: DGCNNPartSegmenter()(torch.zeros(2, 30, 3)), "points go last: transpose"),
        (lambda: EdgeConv(3, 4)(torch.zeros(1, 3, 9), torch.tensor([4]), torch.zeros(1, 3, 9)), "give no lengths"),
    ],
)
def test_wrong_input_is_met_with_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def objects() -> LabelledPoints:
    points, parts = torch.randn(6, 3, 60), torch.randint(6, (6, 60))
    points /= points.norm(dim=1, keepdim=True).amax(2, keepdim=True)
    stored = torch.cat([points, parts[:, None]], 1)
    return LabelledPoints(stored, torch.arange(6) % 3, tuple("abc"), tuple("uvwxyz"))


def loss_of(model, data: LabelledPoints, num_points: int) -> float:
    model.preprocessing = {"num_points": num_points}
    return evaluate(model, data, task=TASKS["part"])["loss"]


def test_all_points_are_evaluated_at_the_density_of_training():
    data, model, losses = objects(), network().float(), []
    model.logits[0].conv.weight.data *= 100  # so that answers differ
    for i in range(6):
        points, parts, kind = data[i]
        found = next(model.label_chunks(points[None, :, :20], [points[None]], torch.tensor([kind])))
        losses.append(nn.functional.cross_entropy(found, parts[None]))
    loss = loss_of(model, data, 20)
    assert loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert abs(loss_of(model, data, 60) - loss) > 1e-3


def test_a_network_whose_points_see_each_other_or_with_its_own_forward_is_asked_as_it_is():
    class Constant(DGCNNPartSegmenter):
        def forward(self, x, category=None, lengths=None):
            return super().forward(x, category, lengths) * 0

    data, model = objects(), network().float()
    model.logits[0].conv.weight.data *= 100
    model.head[0].norm = nn.GroupNorm(2, model.head[0].norm.num_features)
    assert loss_of(model, data, 20) == loss_of(model, data, 60)
    assert loss_of(Constant(6, 3, neighbours=NEAR, width=0.125), data, 20) == pytest.approx(np.log(6), rel=1e-5)
