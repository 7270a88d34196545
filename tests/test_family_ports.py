"""Weights of the PyTorch forms of PointNet++, DGCNN and PointNeXt, read as models of ours that compute the same."""

import pytest
import torch

from pointnet import DGCNNClassifier, PointNet2Classifier, PointNextClassifier, load_model
from pointnet import __main__ as command_line
from pointnet.models import pointnext
from pointnet.models.pointnet2 import LEVELS
from pointnet.models.ports import load_port
from tests.family_ports import PortDGCNN, PortPointNet2, PortPointNext
from tests.forms import forms
from tests.helpers import error_of
from tests.ports import trained

FEW = {
    "single": [(12, [(0.9, 5, [8, 16, 24])]), (4, [(2.0, 8, [16, 16, 32])])],
    "multi": [(12, [(0.5, 3, [8, 16]), (1.5, 9, [8, 8, 16])]), (4, [(1.0, 4, [16, 8]), (3.0, 6, [24])])],
}


FEW_OF_NEXT = [(0.8, 6), (1.2, 6), (1.8, 6), (2.7, 6)]
KINDS = {"dgcnn": DGCNNClassifier, "next": PointNextClassifier, "next, as they lie": PointNextClassifier}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few centres, neighbours and channels."""
    for name, levels in FEW.items():
        monkeypatch.setitem(LEVELS, name, levels)
    monkeypatch.setattr(pointnext, "LEVELS", FEW_OF_NEXT)


def network(name: str, channels: int = 3):
    torch.manual_seed(0)
    if name == "dgcnn":
        return trained(PortDGCNN(5, channels), channels)
    if name in KINDS:
        port = PortPointNext(FEW_OF_NEXT, 5, channels, normalize_dp=name == "next")
        for norm in (each for each in port.modules() if isinstance(each, torch.nn.BatchNorm2d)):
            torch.nn.init.normal_(norm.weight, 1, 0.5)
        torch.nn.init.normal_(port.prediction.head[4][0].weight)  # else all clouds get about the same logits
        return trained(port, channels)
    return trained(PortPointNet2(FEW[name], 5, channels), channels)


def saved(port, path, wrap=lambda state: state):
    torch.save(wrap(port.state_dict()), path)
    return path


@pytest.mark.parametrize("up", forms(["z", "y"], "y"))
@pytest.mark.parametrize(("name", "channels"), [
    ("single", 3), ("single", 6), ("multi", 3), ("multi", 6), ("dgcnn", 3), ("next", 3),
    ("next", 6), ("next, as they lie", 3),
])  # fmt: skip
def test_a_ports_classifier_becomes_ours_and_computes_the_same(tmp_path, name, channels, up):
    port = network(name, channels)
    path = saved(port, tmp_path / "x.pth", lambda state: {"epoch": 3, "model_state_dict": state})
    model = load_port(path, up=up, normalize_dp=name != "next, as they lie")
    assert (type(model), model.training) == (KINDS.get(name, PointNet2Classifier), False)
    assert model.classes == tuple(f"class {i}" for i in range(5))
    x = torch.randn(3, channels, 40)
    theirs = x if up == "z" else x[:, [0, 2, 1, 3, 5, 4][:channels]]
    with torch.no_grad():
        for ours in (model, model.fold()):
            torch.testing.assert_close(ours(x).log_softmax(1), port(theirs).log_softmax(1), rtol=0, atol=1e-4)
        # What is left of the difference is float32's: the same weights in float64 agree far better.
        x, theirs = x.double(), theirs.double()
        logits = model.double()(x)
        torch.testing.assert_close(logits.log_softmax(1), port.double()(theirs).log_softmax(1), rtol=0, atol=1e-6)
    assert logits.std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_converted_as_exactly_as_in_float32(tmp_path, dtype):
    port = network("single")
    model = load_port(saved(port.to(dtype), tmp_path / "x.pth"))
    x = torch.randn(3, 3, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(x).log_softmax(1), port.float()(x), rtol=0, atol=1e-4)


def test_the_published_widths_are_theirs(monkeypatch, tmp_path):
    monkeypatch.undo()
    for width in (32, 64):
        port = PortPointNext(pointnext.LEVELS, 40, 4, width)
        model = load_port(saved(port, tmp_path / f"{width}.pth"))
        assert model.arguments["in_channels"] == 4
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in port.parameters())
    for scales in ("single", "multi"):
        port = PortPointNet2(LEVELS[scales], 40, 6)
        model = load_port(saved(port, tmp_path / f"{scales}.pth"))
        assert model.arguments["scales"] == scales
        biases = sum(p.numel() for name, p in port.named_parameters() if name.endswith("bias") and "bn" not in name)
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in port.parameters()) - biases + 40


def test_a_state_without_the_second_names_of_its_norms_is_read(tmp_path):
    def once(state):
        return {f"module.{name}": each for name, each in state.items() if ".1." not in name}

    port, x = network("dgcnn"), torch.randn(2, 3, 30)
    with torch.no_grad():
        torch.testing.assert_close(load_port(saved(port, tmp_path / "x.t7", once))(x), port(x), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_convert_writes_a_folder_and_says_what_it_supposed(tmp_path, capsys):
    kinds = (("single", "a PointNet++ of 5 classes"), ("dgcnn", "a DGCNN of 5 classes"), ("next", "a PointNeXt of 5 c"))
    for name, said in kinds:
        path = saved(network(name), tmp_path / f"{name}.pth")
        assert command_line.main(["convert", str(path)]) == 0
        printed = capsys.readouterr().out
        assert said in printed
        assert ("its graphs have 20 neighbours, the port's --k where it is not given" in printed) == (name == "dgcnn")
        assert ("its radii and neighbours are those of pointnext-s.yaml" in printed) == (name == "next")
        assert ("add --normalize_dp false" in printed) == (name == "next")
        x = torch.randn(2, 3, 30)
        assert torch.equal(load_model(tmp_path / name)(x), load_port(path)(x))


@pytest.mark.parametrize(("name", "changed", "message"), [
    ("single", {"sa2.mlp_convs.0.weight": torch.zeros(16, 9, 1, 1)}, r"sa2.mlp_convs.0.weight must be \(16, 27\), got"),
    ("multi", {"sa4.conv_blocks.0.0.weight": torch.zeros(3)}, "no network of theirs has sa4.conv_blocks.0.0.weight"),
    ("next", {"encoder.encoder.1.1.convs.convs.0.0.weight": torch.zeros(3)}, "no network of theirs has encoder"),
    ("next", {"encoder.encoder.2.0.convs.0.0.weight": torch.zeros(64, 64, 1, 1)}, r"enc.*2.0.*\(64, 67\)"),
    ("dgcnn", {"conv5.0.weight": torch.zeros(512, 512, 1)}, r"conv5.0.weight must be \(1024, 512\), got \(512"),
    ("dgcnn", {"conv2.1.bias": torch.full((64,), 9.0)}, "conv2.1.bias and bn2.bias are the same tensor in theirs, and"),
])  # fmt: skip
def test_networks_of_other_layers_are_refused_by_the_layer(tmp_path, capsys, name, changed, message):
    path = saved(network(name), tmp_path / "x.pth", lambda state: state | changed)
    with pytest.raises(ValueError, match=f"not a PointNet, DGCNN or PointNeXt of a known port: {message}"):
        load_port(path)
    assert str(path) in error_of(capsys, command_line.main, ["convert", str(path)])


@pytest.mark.parametrize(("name", "last", "message"), [
    ("single", "fc3.", "holds a PointNet"), ("dgcnn", "linear3.", "holds a DGCNN that is no classifier"),
    ("next", "prediction.head.4.", "prediction.head has 2 layers, a known port's has 3"),
    ("next", "prediction.head.4.0.bias", "no 'prediction.head.4.0.bias'"),
])  # fmt: skip
def test_a_file_without_the_last_layer_is_one_clear_line(tmp_path, capsys, name, last, message):
    def without(state):
        return {each: tensor for each, tensor in state.items() if not each.startswith(last)}

    path = saved(network(name), tmp_path / "x.pth", without)
    line = error_of(capsys, command_line.main, ["convert", str(path)])
    assert f"{path}: " in line
    assert message in line
