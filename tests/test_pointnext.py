"""PointNeXt-S: the published architecture, counted, equal to the textbook's, and its laws."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointnet import PointNextClassifier, load_model, predict
from pointnet.commands.train_flags import parse_command
from pointnet.inference.export import export_model
from pointnet.layers import SetAbstraction
from pointnet.models import pointnext
from pointnet.models.pointnext import HEAD_WIDTHS, LEVELS
from pointnet.training import fit
from pointnet.training.recipes import RECIPES, to_flags
from tests.helpers import Largest, count_multiply_adds, described, quiet, tiny, trained_looking, two_shapes
from tests.helpers import shared_multiply_adds as shared
from tests.textbook import TextbookPointNext, with_state_of

SMALL = 1 / 4  # of the published widths
FEW = [(0.5, 5), (0.9, 6), (1.5, 4)]  # levels for which a small cloud is enough


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(pointnext, "LEVELS", FEW)


def clouds(count: int, points: int, channels: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """On the unit sphere, with other channels."""
    xyz = F.normalize(torch.randn(count, 3, points, dtype=dtype), dim=1)
    return torch.cat([xyz, torch.randn(count, channels - 3, points, dtype=dtype)], 1)


@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_textbook_in_outputs_gradients_and_running_statistics(few, training):
    model = trained_looking(PointNextClassifier(5, 4, dropout=0.0, width=SMALL)).train(training)
    theirs = with_state_of(model, TextbookPointNext(5, FEW, 8, [128, 64], 4))
    for _ in range(3):
        x = clouds(4, 40, 4).requires_grad_()
        logits, logits2 = model(x), theirs(x)
        grads, grads2 = (
            torch.autograd.grad(y.square().sum(), [x, *m.parameters()]) for y, m in ((logits, model), (logits2, theirs))
        )
        torch.testing.assert_close(logits, logits2, rtol=1e-10, atol=1e-10)
        for grad, grad2 in zip(grads, grads2, strict=True):
            assert (grad.view_as(grad2) - grad2).abs().max() <= 1e-10 * max(1, grad2.abs().max())
    for mine, other in zip(model.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine.view_as(other), other, rtol=1e-10, atol=1e-10)


def by_definition(layer: SetAbstraction) -> SetAbstraction:
    """A copy whose MLPs are called: a hook on them forbids all else."""
    layer = copy.deepcopy(layer)
    for mlp in layer.mlps:
        mlp.register_forward_hook(lambda *given: None)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "widths"), [(4, [[6, 9]]), (9, [[9]]), (3, [[6, 5, 4], [8]])])
def test_a_residual_set_abstraction_is_its_definition(training, channels, widths):
    scales = len(widths)
    layer = SetAbstraction(channels, widths, 7, [0.7, 1.3][:scales], [5, 6][:scales], by_radius=True, residual=True)
    trained_looking(layer).train(training)
    assert (type(layer.skip) is nn.Identity) == (channels == layer.out_channels)
    points, features = clouds(3, 25), torch.randn(3, channels, 25, dtype=torch.float64)
    results = []
    for each in (layer, by_definition(layer)):
        given = [points.clone().requires_grad_(), features.clone().requires_grad_()]
        centres, y = each(*given)
        grads = torch.autograd.grad(y.square().sum(), [*given, *each.parameters()])
        results.append([centres, y, *grads, *each.state_dict().values()])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("far", [0.0, 100.0])
def test_in_single_precision_it_errs_at_most_twice_as_much_as_the_definition(far):
    layer = SetAbstraction(3, [[16, 32]], 64, [0.3], [16], by_radius=True, residual=True)
    trained_looking(layer).train()
    x = clouds(4, 256, 6, torch.float32)
    points, features = x[:, :3] + far, x[:, 3:]
    truth = by_definition(layer)(points.double(), features.double())[1]
    single = copy.deepcopy(layer).float()
    errors = [(each(points, features)[1] - truth).abs().max().item() for each in (single, by_definition(single))]
    assert errors[0] <= 2 * errors[1] + 1e-6, errors


def test_the_output_of_the_last_layer_over_all_pairs_is_never_held():
    layer = SetAbstraction(8, [[8, 64]], 32, [0.5], [16], by_radius=True, residual=True).train()
    points, features = clouds(2, 64, dtype=torch.float32), torch.randn(2, 8, 64, requires_grad=True)
    with Largest() as largest:
        layer(points, features)[1].sum().backward()
    assert largest.numel < 2 * 64 * 32 * 16 / 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moving_the_points_moves_the_centres_and_leaves_their_features(dtype):
    layer = SetAbstraction(2, [[8, 16]], 9, [0.6], [4], by_radius=True, residual=True)
    trained_looking(layer, dtype)
    x, shift = clouds(2, 40, 5, dtype), torch.tensor([4.0, -8.0, 16.0], dtype=dtype).unsqueeze(1)
    points, features = (x[:, :3] * 1024).round() / 1024, x[:, 3:]  # so that nothing is rounded when they move
    centres, found = layer(points, features)
    moved, same = layer(points + shift, features)
    torch.testing.assert_close(moved, centres + shift, rtol=0, atol=0)
    torch.testing.assert_close(same, found, rtol=1e-5, atol=1e-5)


def test_by_the_radius_means_that_clouds_of_any_size_have_the_same_features():
    one, large = (SetAbstraction(2, [[8, 16]], 9, [0.5 * s], [4], by_radius=True, residual=True) for s in (1, 8))
    large.load_state_dict(trained_looking(one).state_dict())
    large.double().eval()
    points, features = clouds(2, 40), torch.randn(2, 2, 40, dtype=torch.float64)
    torch.testing.assert_close(large(8 * points, features)[1], one(points, features)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("width", "parameters", "published"), [(1, 1_373_512, 811_149_312), (2, 4_523_112, 3_230_672_896)]
)
def test_parameters_and_multiply_adds_are_the_published_architectures(width, parameters, published):
    """The released settings say 1.374 M and 0.81 G, and of the wider stem 4.523 M and 3.23 G."""
    model = PointNextClassifier(40, width=width)
    assert sum(p.numel() for p in model.parameters()) == parameters
    channels, points = 32 * width, 1024
    by_pairs = ours = points * shared(3, channels)
    for _, most in LEVELS:
        centres = points // 2
        first, second = shared(3 + channels, channels), shared(channels, 2 * channels)
        by_pairs += centres * (most * (first + second) + second)
        ours += points * first + centres * (3 * channels + most * second + second)
        channels, points = 2 * channels, centres
    end = points * shared(3 + channels, channels, channels) + shared(channels, *HEAD_WIDTHS, 40)
    assert by_pairs + end == published
    if width == 1:
        assert count_multiply_adds(model, clouds(1, 1024, dtype=torch.float32)) == ours + end


def test_radii_grow_by_half_and_each_level_has_half_the_centres():
    for (radius, most), (larger, same) in pairwise(LEVELS):
        assert (larger, same) == (pytest.approx(1.5 * radius), most)
    assert LEVELS[0] == (0.15, 32)
    layers = PointNextClassifier(width=SMALL).abstractions[:-1]
    sizes = zip(layers, (1024, 512, 9, 1), strict=True)
    assert [layer.number_of_centres(points) for layer, points in sizes] == [512, 256, 4, 1]


@pytest.mark.parametrize("training", [True, False])
def test_padding_of_any_content_changes_nothing_and_a_cloud_alone_is_as_in_a_batch(few, training):
    model = trained_looking(PointNextClassifier(5, 4, dropout=0.0, width=SMALL)).train(training)
    clean = copy.deepcopy(model)
    x, lengths = clouds(4, 40, 4) / 2, torch.tensor([33, 12, 40, 5])  # so near that balls reach the padding, at 0
    for b, length in enumerate(lengths):
        x[b, :, length:] = torch.nan
    logits, wider = model(x, lengths), F.pad(x.nan_to_num(), (0, 9))
    torch.testing.assert_close(logits, clean(wider, lengths), rtol=1e-10, atol=1e-10)
    if not training:
        alone = torch.cat([clean(x[b : b + 1, :, :length]) for b, length in enumerate(lengths)])
        torch.testing.assert_close(logits, alone, rtol=1e-11, atol=1e-11)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(model.state_dict(), clean.state_dict(), rtol=1e-10, atol=1e-10)


def test_in_training_a_padded_batch_is_the_batch_without_padding(few):
    """Clouds of fewer points than centres, whose first point is a centre again, and counts again."""
    model, x = trained_looking(PointNextClassifier(5, dropout=0.0, width=SMALL)).train(), clouds(6, 20)
    clean, x[:, :, 5:] = copy.deepcopy(model), torch.nan
    logits = model(x, torch.full((6,), 5))
    torch.testing.assert_close(logits, clean(x[:, :, :5]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.state_dict(), clean.state_dict(), rtol=1e-10, atol=1e-10)


def test_permuting_all_but_the_first_point_changes_nothing_where_balls_are_not_full(monkeypatch):
    monkeypatch.setattr(pointnext, "LEVELS", [(radius, 40) for radius, _ in FEW])
    model, x = trained_looking(PointNextClassifier(5, width=SMALL)), clouds(2, 40)
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(39)])
    torch.testing.assert_close(model(x[:, :, order]), model(x), rtol=1e-11, atol=1e-11)


def test_a_folded_network_answers_alike(few):
    model, x = trained_looking(PointNextClassifier(5, width=SMALL)), clouds(2, 40)
    folded = model.fold()
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.classify_chunks(x.split(16, 2)), model(x))
    with pytest.raises(ValueError, match=r"this needs a network in eval mode; call model.eval\(\) first"):
        model.train().classify_chunks(x.split(16, 2))
    for width in (0, -1.0):
        with pytest.raises(ValueError, match=f"width must be above 0, got {width:g}"):
            PointNextClassifier(3, width=width)


@pytest.mark.slow
def test_it_is_trained_saved_and_asked_like_any_classifier(few, tmp_path):
    fit(tiny(tmp_path, model="pointnext_s", width=SMALL, epochs=1), two_shapes(), log=quiet)
    model = load_model(tmp_path)
    assert type(model) is PointNextClassifier
    assert predict(torch.randn(50, 3).numpy(), model).class_name in model.classes
    assert PointNextClassifier.from_pretrained(tmp_path)(clouds(2, 9).float()).shape == (2, 2)


def test_both_widths_go_to_a_folder_and_come_back(few, tmp_path):
    for width in (0.25, 0.5):
        described(model := PointNextClassifier(3, width=width)).save_pretrained(tmp_path / str(width))
        again, x = load_model(tmp_path / str(width)), clouds(2, 30, dtype=torch.float32)
        assert again.stem.widths == [3, 32 * width]
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_it_is_not_exported_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="PointNextClassifier is not exported: its centres are found one after"):
        export_model(described(PointNextClassifier(3, width=SMALL)), tmp_path / "model.onnx")


def test_train_begins_with_the_published_dropout_and_a_recipe_has_the_published_protocol():
    assert parse_command(["--model", "pointnext_s", "--dataset", "modelnet40"]).config == dataclasses.replace(
        RECIPES["pointnext_s"], dataset="modelnet40"
    )
    config = RECIPES["pointnext"]
    assert parse_command(to_flags(config)).config == config
    published = {
        "model": "pointnext_s", "dropout": 0.5, "epochs": 600, "batch_size": 32, "optimizer": "adamw", "lr": 1e-3,
        "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.0, "clip": 1.0, "label_smoothing": 0.2, "scale": 1.5,
        "shift": 0.2, "rotate": 0.0, "jitter": 0.0, "num_points": 1024, "early_points": 0, "ema": 0.0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in published} == published


def test_wrong_input_is_met_with_one_clear_line():
    message = r"points must be \(B, 3, N\), got \(4, 100, 3\); points go last: transpose"
    with pytest.raises(ValueError, match=message):
        PointNextClassifier(5, width=SMALL)(torch.zeros(4, 100, 3))
    for given, message in (
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 2}, r"in_channels must be 3 \(xyz\) or more, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            PointNextClassifier(**given)
    for given in ((0, [[8]], 4, [0.1], [4]), (2, [[8]])):
        with pytest.raises(ValueError, match="residual must have features of centres, got in_channels"):
            SetAbstraction(*given, residual=True)
    with pytest.raises(ValueError, match=r"features must be \(2, 2, 9\), one column per point, got None"):
        SetAbstraction(2, [[8]], 4, [0.1], [4], residual=True)(torch.zeros(2, 3, 9))
