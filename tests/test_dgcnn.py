"""DGCNN: the published architecture, counted, equal to the textbook's, and its laws; and EdgeConv by its definition."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from pointnet import DGCNNClassifier, __main__, critical_points, predict
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.analysis import SHARES, analyse
from pointnet.inference import export
from pointnet.inference.export import SUFFIXES, export_model
from pointnet.layers import EdgeConv
from pointnet.layers.folding import fold_norms
from pointnet.models import load_model
from pointnet.training import fit
from pointnet.training.recipes import RECIPES, to_flags
from tests.exported import need, runner, taught
from tests.helpers import count_multiply_adds, described, error_of, tiny, trained_looking, two_shapes
from tests.helpers import shared_multiply_adds as shared
from tests.textbook import TextbookDGCNN, with_state_of

EDGES = (6, 64), (128, 64), (128, 128), (256, 256)
SMALL = {"neighbours": 4, "width": 0.125}


def small(**arguments) -> DGCNNClassifier:
    torch.manual_seed(0)
    return trained_looking(DGCNNClassifier(3, **(SMALL | arguments)))


def learned(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The logits, and the gradients of the points and of every parameter."""
    x = x.clone().requires_grad_()
    logits = model(x)
    return [logits.detach(), *torch.autograd.grad(logits.square().sum(), [x, *model.parameters()])]


def largest_error(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    pairs = zip(got, wanted, strict=True)
    return max(float((a.reshape(b.shape) - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)


@pytest.mark.parametrize("training", [True, False])
def test_it_equals_the_textbook_in_outputs_gradients_and_running_statistics(training):
    torch.manual_seed(1)
    model = trained_looking(DGCNNClassifier(5, 4, neighbours=6, dropout=0.0)).train(training)
    textbook = with_state_of(model, TextbookDGCNN(5, 4, neighbours=6))
    for step in range(3):
        x = torch.randn(4, 4, 30, dtype=torch.float64)
        wanted = learned(textbook, x)
        assert largest_error(learned(model, x), wanted) <= 1e-10, step
    states = [[*each.state_dict().values()] for each in (model, textbook)]
    assert largest_error(*[[tensor.double() for tensor in state] for state in states]) <= 1e-10


def test_in_single_precision_it_errs_at_most_twice_as_much_as_the_textbook():
    torch.manual_seed(2)
    model = trained_looking(DGCNNClassifier(5, neighbours=6, dropout=0.0)).train()
    textbook = with_state_of(model, TextbookDGCNN(5, neighbours=6))
    singles = copy.deepcopy(model).float(), copy.deepcopy(textbook).float()
    x = torch.randn(8, 3, 40)
    wanted = learned(textbook, x.double())
    ours, theirs = ([each.double() for each in learned(single, x)] for single in singles)
    for a, b, exact in zip(ours, theirs, wanted, strict=True):
        ours_off, theirs_off = ((each.reshape(exact.shape) - exact).norm() for each in (a, b))
        assert ours_off <= 2 * theirs_off + 1e-6 * exact.norm()


def test_the_parameters_are_the_released_codes_but_for_a_bias_that_a_norm_cancels():
    released = 1_809_576
    assert sum(p.numel() for p in DGCNNClassifier(40).parameters()) == released - 256
    assert [tuple(each.layer.conv.weight.shape[:2][::-1]) for each in DGCNNClassifier().edges] == [*EDGES]


def test_the_multiply_adds_are_those_of_points_and_not_of_edges():
    of_edge, of_cloud = sum(c * d for c, d in EDGES), shared(2048, 512, 256, 40)
    assert 1024 * (of_edge + 512 * 1024) + of_cloud == 630_728_704
    assert 1024 * (20 * of_edge + 512 * 1024) + of_cloud == 2_391_418_880
    assert [sum(1024**2 * (c // 2 + own) for c, _ in EDGES) for own in (1, 0)] == [275_775_488, 271_581_184]
    counted = count_multiply_adds(DGCNNClassifier(), torch.randn(1, 3, 32))
    assert counted - 32 * (of_edge + 512 * 1024) - of_cloud in (0, 32**2 * sum(c // 2 + 1 for c, _ in EDGES))


@pytest.mark.parametrize("training", [True, False])
def test_permuting_the_points_or_moving_the_edges_changes_nothing_but_the_order(training):
    layer = trained_looking(EdgeConv(3, 7, 5)).train(training)
    x, order = torch.randn(3, 3, 20, dtype=torch.float64), torch.randperm(20)
    y = layer(x)
    torch.testing.assert_close(layer(x[:, :, order]), y[:, :, order], rtol=0, atol=1e-12)
    model = small().train(training)
    torch.manual_seed(3)
    logits = model(x)
    torch.manual_seed(3)
    torch.testing.assert_close(model(x[:, :, order]), logits, rtol=0, atol=1e-10)


def test_of_an_edge_alone_translation_changes_nothing():
    layer = EdgeConv(3, 7, 5).double()
    with torch.no_grad():
        layer.layer.conv.weight[:, :3] = 0
    x, far = torch.randn(3, 3, 20, dtype=torch.float64), torch.randn(3, 3, 1, dtype=torch.float64)
    torch.testing.assert_close(layer(x + far), layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("filling", [0.0, 1e6, torch.inf, torch.nan])
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_nobodys_neighbour(training, filling):
    model, lengths = small(dropout=0.0).train(training), torch.tensor([20, 2, 9])
    clean = copy.deepcopy(model)
    there = torch.arange(20) < lengths[:, None, None]
    x = torch.randn(3, 3, 20, dtype=torch.float64)
    given = x.where(there, filling).requires_grad_()
    logits = model(given, lengths=lengths)
    (gradient,) = torch.autograd.grad(logits.square().sum(), given)
    assert bool(gradient.isfinite().all())
    assert not gradient.masked_select(~there).any()
    torch.testing.assert_close(logits, clean(x.where(there, 7.0), lengths=lengths), rtol=0, atol=1e-12)
    for got, wanted in zip(model.state_dict().values(), clean.state_dict().values(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    if not training:  # a cloud alone or in a batch
        alone = torch.cat([clean(cloud[None, :, :n]) for cloud, n in zip(x, lengths.tolist(), strict=True)])
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-12)


def test_in_training_a_padded_batch_is_the_batch_without_padding():
    model, x = small(dropout=0.0).train(), torch.randn(3, 3, 20, dtype=torch.float64)
    clean, x[:, :, 9:] = copy.deepcopy(model), torch.nan
    got, wanted = model(x, lengths=torch.full((3,), 9)), clean(x[:, :, :9])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    for got, wanted in zip(model.state_dict().values(), clean.state_dict().values(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
def test_the_edges_are_the_definition(training, ragged):
    lengths = torch.tensor([12, 3, 1]) if ragged else None
    fast = trained_looking(EdgeConv(4, 6, 5)).train(training)
    plain = copy.deepcopy(fast)
    plain.layer.conv.register_forward_hook(lambda *_: None)  # which takes the definition
    x = torch.randn(3, 4, 12, dtype=torch.float64)
    results = []
    for layer in (fast, plain):
        given = x.clone().requires_grad_()
        y = layer(given, lengths)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), [given, *layer.parameters()])])
    assert largest_error(*results) <= 1e-10
    assert largest_error(*[[b.double() for b in layer.buffers()] for layer in (fast, plain)]) <= 1e-10


def test_folded_it_is_the_same_without_norms():
    model = small(in_channels=5)
    folded = model.fold()
    assert not [each for each in folded.modules() if isinstance(each, nn.BatchNorm1d)]
    x = torch.randn(2, 5, 17, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-11)
    assert type(fold_norms(model.edges[0])) is EdgeConv


def test_it_has_no_critical_points():
    with pytest.raises(ValueError, match="a DGCNNClassifier has no critical points"):
        critical_points(small(), torch.randn(1, 3, 20, dtype=torch.float64))


def test_what_an_edge_conv_cannot_take_is_one_line():
    layer = EdgeConv(3, 4)
    for x, message in (
        (torch.zeros(2, 7, 3), r"points must be \(B, 3, N\) with N >= 1, got \(2, 7, 3\); points go last"),
        (torch.zeros(3, 9), r"points must be \(B, 3, N\) with N >= 1, got \(3, 9\); add the batch: x\[None\]"),
        (torch.zeros(2, 3, 0), "with N >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(x)
    with pytest.raises(TypeError, match="like the weights"):
        layer(torch.zeros(2, 3, 5).double())
    with pytest.raises(ValueError, match="neighbours must be a whole number of at least 1"):
        EdgeConv(3, 4, 0)


def test_it_is_saved_loaded_and_predicts(tmp_path):
    model = described(DGCNNClassifier(3, **SMALL))
    model.save_pretrained(tmp_path)
    loaded = DGCNNClassifier.from_pretrained(tmp_path)
    assert "DGCNN (Wang et al., ACM Transactions on Graphics 2019) with" in (tmp_path / "README.md").read_text()
    x = torch.randn(2, 3, 32)
    assert torch.equal(loaded(x), model(x))
    assert predict(torch.randn(40, 3).numpy(), loaded).class_name in model.classes


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_file_takes_any_number_of_points_above_the_neighbours(format, tmp_path):
    need(format)
    model, path = taught(described(DGCNNClassifier(3, **SMALL))), tmp_path / f"model{SUFFIXES[format]}"
    assert export_model(model, path, format) <= export.NEAR_TIE
    for clouds, points in ((1, 5), (3, 77)):
        x = torch.randn(clouds, 3, points)
        torch.testing.assert_close(runner(format, path)(x), model(x), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_trained_network_is_exported(tmp_path):
    need("onnx")
    onnx, model = pytest.importorskip("onnx"), load_model("dgcnn_modelnet40")
    assert export_model(model, tmp_path / "x") <= export.NEAR_TIE
    assert len(onnx.load(tmp_path / "x").graph.node) < 200  # not one for each channel of the features
    x = torch.rand(2, 3, 100)
    torch.testing.assert_close(runner("onnx", tmp_path / "x")(x), model(x), rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("spoiled", "by", "message"), [
    (9, 0.02, None),
    (24, 0.02, r"for 24 of 49 clouds its logits are off, by 2"),
    (1, 0.06, r"at \(1, 21\) its logits are off by 6"),
])  # fmt: skip
def test_a_few_clouds_of_a_file_may_be_off_as_near_ties_are(tmp_path, monkeypatch, spoiled, by, message):
    model, left = taught(described(DGCNNClassifier(3, width=0.1))), [spoiled]

    def off(x):
        some = min(left[0], len(x))
        left[0] -= some
        logits = model(x)
        return logits + by * logits.abs().amax(1, keepdim=True).clamp(min=1) * (torch.arange(len(x)) < some)[:, None]

    monkeypatch.setattr(export, "SIZES", ((1, 1), (1, 50), (7, 64), (32, 32)))
    monkeypatch.setattr(export, "_to_torch", lambda model, metadata: b"new")
    monkeypatch.setattr(export, "_run_torch", lambda content: off)
    if message is None:
        assert export_model(model, tmp_path / "x", "torch") == pytest.approx(by, rel=1e-3)
    else:
        with pytest.raises(ValueError, match=message):
            export_model(model, tmp_path / "x", "torch")
    assert (tmp_path / "x").exists() == (message is None)


def test_train_py_trains_it_by_its_own_defaults_and_reports_it(tmp_path, capsys):
    command = parse_command(["--model", "dgcnn", "--epochs", "3"])
    assert command.config == dataclasses.replace(RECIPES["dgcnn"], epochs=3)
    assert parse_command(to_flags(command.config)).config == command.config
    data, lines = two_shapes(per_class=8), []
    config = tiny(tmp_path / "run", model="dgcnn", epochs=1, early_points=0, dropout=0.5)
    fit(config, data, two_shapes(per_class=4, seed=1), log=lines.append)
    idle = [line.split()[0] for line in lines if line.endswith(" changes nothing: DGCNNClassifier does not take it")]
    assert idle == ["feature_transform", "input_transform", "tnet_width"]
    lines.clear()
    chosen = {"input_transform": True, "feature_transform": True, "tnet_width": 1.0}
    fit(dataclasses.replace(config, out=str(tmp_path / "usual"), **chosen), data, log=lines.append)
    assert not [line for line in lines if "does not take it" in line]
    model = load_model(tmp_path / "run")
    assert type(model) is DGCNNClassifier
    found = analyse(model, data)
    assert found.critical is None
    assert list(found.dropped) == ["at random"]
    assert len(found.dropped["at random"]) == len(SHARES)
    line = error_of(capsys, __main__.main, ["train", "--model", "dgcn"])
    assert "did you mean 'dgcnn'" in line
