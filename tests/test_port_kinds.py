"""Networks of other ports, kinds and names, read as models of ours that compute the same."""

import re
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointnet import __main__ as command_line
from pointnet import label_points, load_model
from pointnet.evaluation.contract import Contract
from pointnet.inference.scenes import label_scene
from pointnet.models import PointNetEmbedder, PointNetPartSegmenter, PointNetSegmenter
from pointnet.models.ports import load_port
from tests.family_ports import PortDGCNN
from tests.helpers import ROOT, SAMPLES, assert_near, error_of
from tests.ports import FiveLayers, Learning3d, OfDGCNN, PortClassifier, PortDense, PortEncoder, PortParts, trained

pytestmark = pytest.mark.slow  # the kinds beside those of test_ports and test_family_ports

PARTS = {"desk": ("top", "leg", "drawer"), "jar": ("lid", "body")}


def one_hot(category, count=16):
    return F.one_hot(category, count).float().unsqueeze(1)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    return trained(PortParts(), 6, (one_hot(torch.arange(16)),))


@pytest.fixture(scope="module")
def scenes():
    torch.manual_seed(0)
    return trained(PortDense(), 9)


def saved(network, path, wrap=lambda state: state):
    torch.save(wrap(network.state_dict()), path)
    return path


@torch.no_grad()
def assert_labels_the_same(model, port, x, *inputs, theirs=None):
    category = [one.argmax(2).squeeze(1) for one in inputs]
    for network in (model, model.fold()):
        ours = network(x, *category).log_softmax(1).transpose(1, 2)
        assert_near(ours, port(x if theirs is None else theirs, *inputs))


def test_yanx27s_network_for_parts_becomes_ours(parts, tmp_path):
    model = load_port(saved(parts, tmp_path / "x.pth"))
    assert (type(model), model.num_categories, model.num_outputs) == (PointNetPartSegmenter, 16, 50)
    category = torch.tensor([3, 15])
    for count in (1, 2, 50):
        assert_labels_the_same(model, parts, torch.randn(2, 6, count), one_hot(category))
    x = torch.randn(2, 6, 300)
    whole = model(x, category)
    chunks = torch.cat([*model.label_chunks(x, x.split(70, 2), category)], 2)
    assert_near(chunks, whole, 1e-4)
    padded = torch.cat([x, torch.full((2, 6, 9), torch.nan)], 2)
    logits = model(padded, category, lengths=torch.tensor([300, 300]))
    assert_near(logits[:, :, :300], whole, 1e-4)
    assert not logits[:, :, 300:].any()
    assert model.preprocessing["needs_category"]
    assert model.parts_of is None


def test_parts_of_named_categories_are_known_and_of_other_numbers_are_not(tmp_path):
    port = trained(PortParts(5, 3, 2), 3, (one_hot(torch.arange(2).repeat(8), 2),))
    path = saved(port, tmp_path / "x.pth")
    model = load_port(path, parts=PARTS)
    assert model.parts_of == [[0, 1, 2], [3, 4]]
    assert model.classes == ("desk/top", "desk/leg", "desk/drawer", "jar/lid", "jar/body")
    assert Contract.of(model).categories == ("desk", "jar")
    x = torch.randn(2, 3, 60)
    model = load_port(path, up="y", parts=PARTS)
    assert_labels_the_same(model, port, x, one_hot(torch.tensor([1, 0]), 2), theirs=x[:, [0, 2, 1]])
    other = load_port(path, list("abcde"), parts={"desk": ("top", "leg"), "jar": ("lid",)})
    assert (other.parts_of, other.classes) == (None, tuple("abcde"))
    assert Contract.of(other).categories == ("category 0", "category 1")


def test_yanx27s_network_for_scenes_becomes_ours_and_labels_a_scene(scenes, tmp_path):
    model = load_port(saved(scenes, tmp_path / "x.pth"))
    assert type(model) is PointNetSegmenter
    for count in (1, 2, 300):
        assert_labels_the_same(model, scenes, torch.randn(2, 9, count))
    contract = Contract.of(model)
    assert (contract.num_points, contract.scale) == (4096, "blocks of a metre")
    assert label_scene(
        model, np.random.default_rng(0).random((50, 3)), np.random.default_rng(0).random((50, 3))
    ).labels.shape == (50,)
    with pytest.raises(ValueError, match="x.pth: is a network of scenes, which have z up; leave out --up y"):
        load_port(tmp_path / "x.pth", up="y")


@pytest.mark.parametrize("feature_transform", [True, False])
@pytest.mark.parametrize("up", ["z", "y"])
def test_fxia22s_dense_classifier_is_one_of_parts_without_a_category(tmp_path, feature_transform, up):
    port = trained(PortDense(4, 3, feature_transform), 3)
    model = load_port(saved(port, tmp_path / "x.pth"), up=up)
    assert (type(model), model.num_categories) == (PointNetPartSegmenter, 1)
    x = torch.randn(2, 3, 300)
    theirs = x if up == "z" else x[:, [0, 2, 1]]
    assert_labels_the_same(model, port, x, theirs=theirs)
    with torch.no_grad():
        assert_near(model(x, torch.tensor([0, -1])), model(x))
    assert label_points(np.random.default_rng(0).random((30, 3)), model).labels.shape == (30,)


@pytest.mark.parametrize("port", [Learning3d(7), Learning3d(7, use_bn=False), OfDGCNN(7)], ids=["3d", "plain", "dgcnn"])
def test_classifiers_of_five_layers_with_other_names_become_ours(tmp_path, port):
    port = trained(port)
    model = load_port(saved(port, tmp_path / "x.t7", lambda state: {"epoch": 3, "model": state, "optimizer": {}}))
    assert model.encoder.mlp2[-1].activation is not None, "theirs have a ReLU before the max"
    for count in (1, 2, 300):
        x = torch.randn(3, 3, count)
        with torch.no_grad():
            assert_near(model(x), port(x))
            assert_near(model.fold()(x), port(x))


@pytest.mark.parametrize(("network", "lacking"), [
    (PortClassifier(3), r"feat\.bn1\.weight"),
    (PortClassifier(3), r"feat\.bn\d\.(weight|bias)"),  # as of BatchNorm1d(affine=False)
    (PortClassifier(3), r"feat\.bn\d\."),
    (Learning3d(3), r"feature_model\.bn1\."),
    (Learning3d(3), r"feature_model\.bn\d\.(weight|bias)"),
    (OfDGCNN(3), r"bn1\."),
    (OfDGCNN(3), r"bn[1-5]\."),
    (PortEncoder(3, False), r"bn1\."),
])  # fmt: skip
def test_a_norm_that_a_file_lacks_is_missed_by_name(tmp_path, network, lacking):
    state = {name: tensor for name, tensor in network.state_dict().items() if not re.match(lacking, name)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth: not a PointNet of a known port: no 'feat\.bn1\.\w+'$"):
        load_port(tmp_path / "x.pth")


@pytest.mark.parametrize("network", [PortEncoder(3, True), PortEncoder(6, False), FiveLayers(), FiveLayers(False)])
def test_an_encoder_alone_becomes_one_that_gives_its_features(tmp_path, network, capsys):
    channels = network.conv1.in_channels
    port = trained(network, channels)
    model = load_port(saved(port, tmp_path / "x.pth"))
    x = torch.randn(2, channels, 200)
    with torch.no_grad():
        assert_near(model(x), port(x))
    assert type(model) is PointNetEmbedder
    assert command_line.main(["convert", str(tmp_path / "x.pth")]) == 0
    assert "an encoder alone, without classes" in capsys.readouterr().out
    loaded = PointNetEmbedder.from_pretrained(tmp_path / "x")
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert "(B, features)" in (tmp_path / "x" / "README.md").read_text()
    for words in (
        ["predict", f"{SAMPLES}/files/chair.off", "--model"],
        ["evaluate", "--dataset", "shapes"],
        ["export"],
    ):
        line = error_of(capsys, command_line.main, [*words, str(tmp_path / "x")])
        assert "an encoder alone, which gives features and no classes or labels" in line


@pytest.mark.parametrize("wrap", [
    lambda state: {"model": state, "args": Namespace(lr=1), "best": np.float64(0.9)},
    lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
    lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    lambda state: {"net": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    lambda state: {"state_dict": {f"model_ema.module.{name}": value for name, value in state.items()}},
], ids=["model", "DataParallel", "Lightning", "compiled", "averaged"])  # fmt: skip
def test_wrappers_of_the_state_dict_are_seen_through(scenes, tmp_path, wrap):
    assert_labels_the_same(load_port(saved(scenes, tmp_path / "x.pth", wrap)), scenes, torch.randn(2, 9, 20))


@pytest.mark.parametrize("names", [("model", "model_ema"), ("state_dict", "model_state_dict"), ("model", "ema")])
def test_a_checkpoint_of_two_networks_is_refused_by_both_names(scenes, tmp_path, names):
    optimizer = torch.optim.SGD(scenes.parameters(), 0.1).state_dict()
    path = saved(scenes, tmp_path / "x.pth", lambda state: {"optimizer": optimizer, **dict.fromkeys(names, state)})
    with pytest.raises(ValueError, match=f"holds the networks {', '.join(names)}; save the one that is meant"):
        load_port(path)
    path = saved(scenes, tmp_path / "x.pth", lambda state: {"optimizer": optimizer, names[0]: state})
    assert len(load_port(path).state_dict())


@pytest.mark.parametrize(("first", "second"), [
    ("model.feat.conv1.weight", "net.feat.conv1.weight"),
    ("feat.conv1.weight", "module.feat.conv1.weight"),
    ("model.feat.conv1.weight", "model_ema.feat.conv1.weight"),
    ("ema.feat.conv1.weight", "feat.conv1.weight"),
    ("fc1.weight", "linear1.weight"),
    ("feat.conv1.weight", "feature_model.conv1.weight"),
])  # fmt: skip
def test_two_weights_for_one_name_are_refused_by_both(tmp_path, first, second):
    state = {first: torch.ones(64, 3, 1), second: torch.zeros(64, 3, 1)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match=f"holds {first} and {second}, two weights for (feat.conv1|fc1).weight; save one"
    ):
        load_port(tmp_path / "x.pth")


def test_convert_says_what_it_took_and_the_folder_labels(parts, tmp_path, capsys):
    path = saved(parts, tmp_path / "best.pth")
    assert command_line.main(["convert", str(path), "--up", "y"]) == 0
    printed = capsys.readouterr().out
    assert "50 parts of 16 categories" in printed
    assert "it takes x, y, z, nx, ny, nz, with z up" in printed
    assert "each object's category, as its place in this list: Airplane, Bag, Cap" in printed
    assert "'Airplane/body' and so on" in printed
    model = load_model(tmp_path / "best")
    rows = np.random.default_rng(0).random((40, 6))
    answer = label_points(rows, model, category="Mug")
    assert {answer.names[i] for i in answer.labels} <= {"Mug/handle", "Mug/body"}
    with pytest.raises(ValueError, match="give --category, one of Airplane"):
        label_points(rows, model)


def test_the_commands_of_the_page_convert_and_predict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").partition("## Weights of another")[2]
    convert, predict = (line.split()[3:] for line in re.findall(r"^python -m pointnet .*", text, re.MULTILINE)[:2])
    saved(trained(PortClassifier(2)), tmp_path / "best_model.pth")
    (tmp_path / "names.txt").write_text("desk\njar\n")
    (tmp_path / "scans").symlink_to(f"{SAMPLES}/files")
    assert command_line.main(convert) == command_line.main(predict) == 0
    assert "theirs: 2 classes" in capsys.readouterr().out


def zeros(*names, dims=3):
    return {name: torch.zeros((2,) * dims) for name in names}


@pytest.mark.parametrize(("content", "message"), [
    (zeros("sa1.mlp_convs.0.weight", "sa2.mlp_convs.0.weight"), "a PointNet++ that is no classifier of yanx27"),
    (zeros("sa1.conv_blocks.0.0.weight"), "a PointNet++"),
    (zeros("module.SA_modules.0.mlps.0.layer0.conv.weight"), "a PointNet++"),
    (zeros("sa3.mlp_convs.0.weight", "fc3.weight", "fp1.mlp_convs.0.weight"), "a PointNet++ that labels points"),
    (zeros("conv1.0.weight", "bn1.weight", dims=4), "a DGCNN that is no classifier"),
    ({"model": zeros("encoder.encoder.0.0.convs.0.0.weight")}, "a PointNeXt"),
    (zeros("pre_blocks_list.0.operation.0.net1.0.weight"), "a PointMLP"),
    (zeros("pt_last.sa1.q_conv.weight"), "a transformer of points"),
    (zeros("encoder.mlp1.layers.0.conv.weight"), "this library's own network"),
    ({"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}, "that of an optimizer"),
    ({"epoch": 3, "loss": 0.5}, "holds no state dict, tensors by their names, but epoch, loss"),
    (zeros("conv1.weight", "conv2.weight", "conv3.weight"), "do not tell whether a ReLU"),
    (zeros("feature_model.conv1.weight"), "a feature_model of theirs has five layers"),
    (zeros("backbone.layer1.weight"), "its first tensors are backbone.layer1.weight"),
], ids=str)  # fmt: skip
def test_what_is_not_known_is_called_by_what_it_is(tmp_path, capsys, content, message):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    line = error_of(capsys, command_line.main, ["convert", str(path)])
    assert f"{path}: " in line
    assert message in line
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize(("network", "name"), [
    (PortClassifier(3), "feat.fstn.conv2.weight"), (OfDGCNN(3), "bn2.running_var"), (PortDGCNN(3), "linear3.bias"),
], ids=["yanx27", "of dgcnn", "dgcnn"])  # fmt: skip
def test_weights_of_no_floating_point_type_are_refused_by_name_and_type(tmp_path, network, name, dtype):
    state = {f"module.{each}": tensor for each, tensor in network.state_dict().items()}
    torch.save(state | {f"module.{name}": state[f"module.{name}"].to(dtype)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=f"x.pth: {name} is {dtype}; save the weights in a floating-point type"):
        load_port(tmp_path / "x.pth")


@pytest.mark.parametrize(("name", "change", "reason"), [
    ("bn2.running_var", lambda x: -x, "holds variances below 0"),
    ("feat.bn1.running_var", lambda x: x / 0, "holds numbers that are not finite"),
    ("feat.stn.fc3.bias", lambda x: x * torch.nan, "holds numbers that are not finite"),
    ("fc1.weight", lambda x: x.double() * 1e300, "holds numbers that are not finite"),
    ("fc1.weight", lambda x: x.to_sparse(), "is torch.sparse_coo on cpu; save the weights as dense tensors"),
    ("fc1.weight", lambda x: x.to("meta"), "is torch.strided on meta; save the weights as dense tensors"),
])  # fmt: skip
def test_numbers_that_no_network_computes_with_are_refused_by_name(tmp_path, capsys, name, change, reason):
    state = PortClassifier(3).state_dict()
    torch.save(state | {name: change(state[name])}, tmp_path / "x.pth")
    assert f"x.pth: {name} {reason}" in error_of(capsys, command_line.main, ["convert", str(tmp_path / "x.pth")])
    assert not (tmp_path / "x").exists()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_program_and_t_nets_of_two_widths_are_refused_by_name(tmp_path):
    torch.jit.save(torch.jit.trace(nn.ReLU(), torch.zeros(1)), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="holds a TorchScript program; only weights are read"):
        load_port(tmp_path / "x.pt")
    state = PortClassifier(3).state_dict()
    narrow = {"feat.fstn.fc1.weight": torch.zeros(128, 1024)}
    torch.save(state | narrow, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"its T-Nets have different widths, .*512, 256.* and .*128, 256"):
        load_port(tmp_path / "x.pth")


def test_t_nets_of_other_widths_are_taken_as_they_are(tmp_path):
    port = PortClassifier(3)
    for tnet in (port.feat.stn, port.feat.fstn):
        tnet.fc1, tnet.bn4 = nn.Linear(1024, 96), nn.BatchNorm1d(96)
        tnet.fc2, tnet.bn5 = nn.Linear(96, 40), nn.BatchNorm1d(40)
        tnet.fc3 = nn.Linear(40, tnet.k * tnet.k)
    port = trained(port)
    model, x = load_port(saved(port, tmp_path / "x.pth")), torch.randn(2, 3, 50)
    with torch.no_grad():
        assert_near(model(x).log_softmax(1), port(x))
