"""PointNet++: the published architecture, counted, equal to the textbook's, and its laws."""

import copy
import dataclasses
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointnet import PointNet2Classifier, load_model, predict
from pointnet.commands.train_flags import parse_command
from pointnet.inference.export import export_model
from pointnet.layers import FeaturePropagation, SetAbstraction, SharedMLP
from pointnet.layers.neighbourhoods import is_fast, neighbourhoods_definition, pooled_neighbourhoods
from pointnet.layers.set_abstraction import WHOLE
from pointnet.models.pointnet2 import ALL_WIDTHS, HEAD_WIDTHS, LEVELS, PointNet2MultiScale
from pointnet.ops.neighbours import ball_query, farthest_point_sampling, gather, interpolate_definition
from pointnet.training import fit
from tests.helpers import count_multiply_adds, described, quiet, tiny, trained_looking, two_shapes
from tests.helpers import shared_multiply_adds as shared
from tests.textbook import TextbookPointNet2, with_state_of

SMALL = 1 / 8  # of the published widths


@pytest.fixture
def few(monkeypatch):
    """Few centres and neighbours, so that a small cloud is enough: those of SSG and of two scales."""
    single = [(12, [(0.5, 5, [64, 64, 128])]), (4, [(1.0, 8, [128, 128, 256])])]
    multi = [
        (12, [(0.3, 3, [32, 32, 64]), (0.9, 9, [64, 96, 128])]),
        (4, [(0.6, 4, [64, 64, 128]), (2.0, 6, [128, 256])]),
    ]
    for name, levels in (("single", single), ("multi", multi)):
        monkeypatch.setitem(LEVELS, name, levels)


def clouds(count: int, points: int, channels: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """On the unit sphere, with other channels."""
    xyz = F.normalize(torch.randn(count, 3, points, dtype=dtype), dim=1)
    return torch.cat([xyz, torch.randn(count, channels - 3, points, dtype=dtype)], 1)


def textbook(model: PointNet2Classifier, scales: str) -> TextbookPointNet2:
    def narrow(widths):
        return [max(8, 8 * round(width * SMALL / 8)) for width in widths]

    levels = [(s, [(r, k, narrow(widths)) for r, k, widths in each]) for s, each in LEVELS[scales]]
    return TextbookPointNet2(
        model.num_outputs, levels, narrow(ALL_WIDTHS), narrow(HEAD_WIDTHS), model.arguments["in_channels"]
    )


@pytest.mark.parametrize("scales", ["single", "multi"])
@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_textbook_in_outputs_gradients_and_running_statistics(few, scales, training):
    model = trained_looking(PointNet2Classifier(5, 4, scales, dropout=0.0, width=SMALL)).train(training)
    theirs = with_state_of(model, textbook(model, scales))
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


def test_in_single_precision_it_errs_at_most_twice_as_much_as_the_textbook():
    layer, x = SetAbstraction(3, [[32, 32, 64]], 64, [0.4], [16]), clouds(4, 256, 6)
    trained_looking(layer).train()
    points, features = x[:, :3].contiguous(), x[:, 3:].contiguous()
    centres = gather(points, farthest_point_sampling(points, 64))
    given = points, features, centres
    neighbours = ball_query(points, centres, 0.4, 16)
    truth = neighbourhoods_definition(copy.deepcopy(layer).mlps[0], *given, neighbours)
    single = [each.float() for each in given]
    errors = [
        (function(copy.deepcopy(layer).float().mlps[0], *single, neighbours) - truth).abs().max().item()
        for function in (pooled_neighbourhoods, neighbourhoods_definition)
    ]
    assert errors[0] <= 2 * errors[1] + 1e-6, errors


@pytest.mark.parametrize("widths", [[8], [8, 16], [8, 12, 16], [8, 12, 8, 16]], ids=len)
@pytest.mark.parametrize("mode", ["training", "eval", "folded", "biased"])
def test_neighbourhoods_are_their_definition(widths, mode):
    layer = trained_looking(SetAbstraction(2, [widths], 6, [0.9], [5])).train(mode in ("training", "biased"))
    mlp = layer.mlps[0]
    for each in mlp if mode == "biased" else ():
        each.conv.bias = nn.Parameter(torch.randn(each.conv.out_channels, dtype=torch.float64))
    for each in mlp if mode == "folded" else ():
        each.norm, each.conv.bias = None, nn.Parameter(torch.randn(each.conv.out_channels, dtype=torch.float64))
    assert is_fast(mlp)
    points, features = torch.randn(3, 3, 20, dtype=torch.float64), torch.randn(3, 2, 20, dtype=torch.float64)
    given = [each.requires_grad_() for each in (points, features, points[:, :, :6].detach())]
    neighbours, twin = ball_query(points, given[2], 0.9, 5), copy.deepcopy(mlp)
    results = []
    for pool, block in ((pooled_neighbourhoods, mlp), (neighbourhoods_definition, twin)):
        y = pool(block, *given, neighbours)
        grads = torch.autograd.grad(y.square().sum(), [*given, *block.parameters()])
        with torch.no_grad():
            others = [pool(copy.deepcopy(block).train(mode), *given, neighbours) for mode in (block.training, False)]
            results.append([y, *grads, *block.state_dict().values(), *others])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_under_autocast_neighbourhoods_err_no_more_than_twice_the_definition():
    """Against float64, in value, running statistics and every gradient; with products of bfloat16."""
    given, direction = [torch.randn(4, size, 200, dtype=torch.float64) for size in (3, 2)], torch.randn(4, 64, 50)
    given.append(given[0][:, :, :50])
    neighbours = ball_query(given[0], given[2], 0.9, 12)

    def results(mlp, pool, dtype: torch.dtype, autocast: bool) -> dict[str, torch.Tensor]:
        block, inputs = copy.deepcopy(mlp).to(dtype), [each.to(dtype).requires_grad_() for each in given]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = pool(block, *inputs, neighbours)
        names = ["points", "features", "centres", *dict(block.named_parameters())]
        grads = torch.autograd.grad((y.to(dtype) * direction).sum(), [*inputs, *block.parameters()])
        named = {"output": y.detach(), **dict(zip(names, grads, strict=True)), **dict(block.named_buffers())}
        return {name: each.double() for name, each in named.items()}

    errors = {"plain": Counter(), "ours": Counter(), "exact": Counter()}
    for _ in range(4):  # which point wins is chance where rounding decides it
        mlp = trained_looking(SharedMLP([5, 16, 32, 64])).train()
        truth = results(mlp, neighbourhoods_definition, torch.float64, False)
        for name, got in (
            ("plain", results(mlp, neighbourhoods_definition, torch.float32, True)),
            ("ours", results(mlp, pooled_neighbourhoods, torch.float32, True)),
            ("exact", results(mlp, pooled_neighbourhoods, torch.float32, False)),
        ):
            errors[name].update({key: ((got[key] - each).norm() / each.norm()).item() for key, each in truth.items()})
    for name, error in errors["ours"].items():
        assert error <= 2 * errors["plain"][name] + 1e-6, f"{name}: {error:.1e}, definition {errors['plain'][name]:.1e}"
    for name in ("output", "layers.1.conv.weight", "layers.2.conv.weight", "points"):
        assert errors["ours"][name] > 100 * errors["exact"][name], name
    double = results(mlp, pooled_neighbourhoods, torch.float64, True)
    torch.testing.assert_close(double, truth, rtol=1e-9, atol=1e-9)  # which autocast leaves


@pytest.mark.parametrize("points", [2, 5, 17, 60, WHOLE + 1])
def test_all_points_are_one_neighbourhood_however_few_they_are(points):
    layer = trained_looking(SetAbstraction(2, [[40, 8]])).train()
    given = [torch.randn(3, size, points, dtype=torch.float64, requires_grad=True) for size in (3, 2)]
    twin, results = copy.deepcopy(layer), []
    for mine, whole in (
        (layer, lambda: layer(*given)[1].squeeze(2)),
        (twin, lambda: twin.mlps[0](torch.cat(given, 1)).max(2).values),
    ):
        y = whole()
        grads = torch.autograd.grad(y.square().sum(), [*given, *mine.parameters()])
        results.append([y, *grads, *mine.state_dict().values()])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    single, x = layer.float(), [each.detach().float() for each in given]
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = single(*x)[1].squeeze(2), single.mlps[0](torch.cat(x, 1)).max(2).values
    torch.testing.assert_close(got.float(), wanted.float(), rtol=0.05, atol=0.05)


def test_what_the_fast_path_does_not_know_takes_the_definition():
    layer = SetAbstraction(0, [[8, 8, 8]], 4, [1.0], [4])
    for spoil in (
        lambda mlp: setattr(mlp[0], "activation", nn.GELU()),
        lambda mlp: setattr(mlp[1], "dropout", nn.Dropout(0.1)),
        lambda mlp: setattr(mlp[2], "norm", nn.GroupNorm(1, 8)),
        lambda mlp: mlp[1].conv.register_forward_hook(lambda *given: None),
        lambda mlp: mlp.register_forward_hook(lambda *given: None),
    ):
        other = copy.deepcopy(layer)
        assert is_fast(other.mlps[0])
        spoil(other.mlps[0])
        assert not is_fast(other.mlps[0])
        assert other(torch.randn(2, 3, 9))[1].shape == (2, 8, 4)


@pytest.mark.parametrize(
    ("scales", "parameters", "published"), [("single", 1_472_360, 837_527_552), ("multi", 1_742_856, 3_915_622_400)]
)
def test_parameters_and_multiply_adds_are_the_published_architectures(scales, parameters, published):
    model = PointNet2Classifier(40, scales=scales)
    assert sum(p.numel() for p in model.parameters()) == parameters
    channels, points, by_pairs, ours = 0, 1024, 0, 0
    for centres, each in LEVELS[scales]:
        for _, most, widths in each:
            first, rest = shared(3 + channels, widths[0]), shared(*widths)
            by_pairs += centres * most * (first + rest)
            ours += centres * most * rest + points * first + centres * shared(3, widths[0])
        channels, points = sum(widths[-1] for _, _, widths in each), centres
    end = points * shared(3 + channels, *ALL_WIDTHS) + shared(1024, *HEAD_WIDTHS, 40)
    assert by_pairs + end == published
    assert count_multiply_adds(model, clouds(1, 1024, dtype=torch.float32)) == ours + end


@pytest.mark.parametrize("scales", ["single", "multi"])
def test_permuting_all_but_the_first_point_changes_nothing_where_balls_are_not_full(few, scales, monkeypatch):
    """A ball of more than K points takes the first K of them: K is all points here."""
    levels = [(s, [(radius, 40, widths) for radius, _, widths in each]) for s, each in LEVELS[scales]]
    monkeypatch.setitem(LEVELS, scales, levels)
    model, x = trained_looking(PointNet2Classifier(5, scales=scales, width=SMALL)), clouds(2, 40)
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(39)])
    torch.testing.assert_close(model(x[:, :, order]), model(x), rtol=1e-11, atol=1e-11)
    assert (model(x.roll(1, 2)) - model(x)).abs().max() > 1e-6  # another start takes other centres


@pytest.mark.parametrize("training", [True, False])
def test_padding_of_any_content_changes_nothing(few, training):
    model = trained_looking(PointNet2Classifier(5, 4, "multi", dropout=0.0, width=SMALL)).train(training)
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moving_a_cloud_moves_the_centres_and_leaves_their_features(dtype):
    layer = trained_looking(SetAbstraction(0, [[8, 16], [8, 8, 16]], 9, [0.5, 1.0], [4, 8]), dtype)
    x, shift = clouds(2, 40, dtype=dtype), torch.tensor([4.0, -8.0, 16.0], dtype=dtype).unsqueeze(1)
    x = (x * 1024).round() / 1024  # so that nothing is rounded when it moves
    centres, features = layer(x)
    moved, same = layer(x + shift)
    torch.testing.assert_close(moved, centres + shift, rtol=0, atol=0)
    torch.testing.assert_close(same, features, rtol=1e-5, atol=1e-5)


def test_a_folded_network_answers_alike(few):
    model, x = trained_looking(PointNet2Classifier(5, scales="multi", width=SMALL)), clouds(2, 40)
    folded = model.fold()
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.classify_chunks(x.split(16, 2)), model(x))


def test_features_go_back_to_the_points():
    layer, x = trained_looking(FeaturePropagation(5 + 2, [8, 6])), torch.randn(2, 3, 12, dtype=torch.float64)
    own, of_centres = (torch.randn(2, c, n, dtype=torch.float64) for c, n in ((2, 12), (5, 4)))
    centres, lengths = x[:, :, :4], torch.tensor([12, 7])
    wanted = layer.mlp(torch.cat([interpolate_definition(of_centres, centres, x), own], 1), lengths=lengths)
    x[1, :, 7:], own[1, :, 7:] = torch.nan, torch.nan
    torch.testing.assert_close(layer(x, own, centres, of_centres, lengths), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
def test_it_is_trained_saved_and_asked_like_any_classifier(few, tmp_path):
    fit(tiny(tmp_path, model="pointnet2", width=SMALL), two_shapes(), log=quiet)
    model = load_model(tmp_path)
    assert type(model) is PointNet2Classifier
    assert predict(torch.randn(50, 3).numpy(), model).class_name in model.classes
    assert PointNet2Classifier.from_pretrained(tmp_path)(clouds(2, 9).float()).shape == (2, 2)


@pytest.mark.slow
def test_both_kinds_go_to_a_folder_and_come_back(few, tmp_path):
    for kind in (PointNet2Classifier, PointNet2MultiScale):
        described(model := kind(3, width=SMALL)).save_pretrained(tmp_path / kind.model_name)
        again = load_model(tmp_path / kind.model_name)
        assert type(again) is kind
        x = clouds(2, 30, dtype=torch.float32)
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_it_is_not_exported_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="PointNet2Classifier is not exported: its centres are found one after"):
        export_model(described(PointNet2Classifier(3, width=SMALL)), tmp_path / "model.onnx")


def test_train_begins_with_the_published_dropout():
    for name, dropout in (("pointnet2", 0.5), ("pointnet2_msg", 0.6)):
        config = parse_command(["--model", name, "--dataset", "modelnet40"]).config
        assert (config.model, config.dropout) == (name, dropout)
        assert dataclasses.replace(config, dropout=0.1).dropout == 0.1


def test_wrong_input_is_met_with_one_clear_line():
    message = r"points must be \(B, 3, N\) with N >= 1, got \(4, 100, 3\); points go last: transpose"
    with pytest.raises(ValueError, match=message):
        PointNet2Classifier(5)(torch.zeros(4, 100, 3))
    for given, message in (
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 2}, r"in_channels must be 3 \(xyz\) or more, got 2"),
        ({"scales": "two"}, "scales must be single or multi, got 'two'"),
    ):
        with pytest.raises(ValueError, match=message):
            PointNet2Classifier(**given)
    with pytest.raises(ValueError, match="each MLP must have a radius and a number of neighbours"):
        SetAbstraction(0, [[8], [8]], 4, [0.1], [4])
    with pytest.raises(ValueError, match=r"points must be \(B, 3, N\) with N >= 1, got \(2, 4, 9\)"):
        SetAbstraction(0, [[8]], 4, [0.1], [4])(torch.zeros(2, 4, 9))
    for some in ([], [4, [0.1], [4]]):  # one neighbourhood of all points, and balls
        with pytest.raises(ValueError, match=r"features must be \(2, 5, 9\), one column per point, got \(2, 5, 8\)"):
            SetAbstraction(5, [[8]], *some)(torch.zeros(2, 3, 9), torch.zeros(2, 5, 8))
