"""Exported models: the file gives the model's logits at every size, names what it needs, and is written last."""

import json
import sys
import types

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, TNet
from pointnet import __main__ as command_line
from pointnet.extras import MissingExtraError
from pointnet.inference import export
from pointnet.inference.export import SIZES, SUFFIXES, export_model
from pointnet.models import load_model, weights
from tests.helpers import CLASSES, SMALL, described, error_of

FORMATS = ("onnx", "torch")


def need(format: str) -> None:
    """Skips, with the reason, if the packages of a format are not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(package, reason=f"needs {package}, of the extra export")


def small(**arguments) -> PointNetClassifier:
    """A network as after training: a new T-Net returns the identity."""
    model = PointNetClassifier(3, **(SMALL | {"tnet_widths": ((8, 16), (8,)), "head_widths": (8,)} | arguments))
    for module in model.modules():
        if isinstance(module, TNet):
            torch.nn.init.normal_(module.matrix.weight, std=0.05)
    return described(model)


@pytest.fixture(scope="module")
def model() -> PointNetClassifier:
    """Both T-Nets, and values of any sign before the max."""
    torch.manual_seed(0)
    widths = ((8, 8), (8, 16, 32))
    return small(widths=widths, input_transform=True, feature_transform=True, last_activation=False)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, model, tmp_path_factory):
    """(the format, the file, what `export_model` returned)."""
    need(request.param)
    path = tmp_path_factory.mktemp("exported") / "new" / f"model{SUFFIXES[request.param]}"
    model.train()  # any mode will do
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    returned = export_model(model, path, request.param)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()
    return request.param, path, returned


def runner(format: str, path):
    """The file as a function of points, without this library."""
    if format == "torch":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda x: torch.from_numpy(session.run(["logits"], {"points": x.numpy()})[0])


@torch.no_grad()
def test_the_file_gives_the_models_logits_at_every_size(exported, model):
    format, path, returned = exported
    assert SIZES == ((1, 1), (1, 50), (7, 2048), (32, 1024))
    assert returned <= 1e-4
    run = runner(format, path)
    for clouds, points in (*SIZES, (2, 1), (3, 16), (5, 257)):
        x = torch.randn(clouds, 3, points)
        torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-4)


def test_the_file_names_its_classes_and_preprocessing_and_no_folder_of_the_machine(exported):
    format, path, _ = exported
    if format == "onnx":
        import onnxruntime

        metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    else:
        files = {"metadata.json": ""}
        torch.export.load(path, extra_files=files)
        metadata = json.loads(files["metadata.json"])
    assert json.loads(metadata.pop("classes")) == list(CLASSES)
    assert metadata == {"frame": "z up, right-handed", "num_points": "32", "normals": "false"}
    content = path.read_bytes()
    assert not [word for word in (b".py", b"/pointnet/", b"stack_trace") if word in content]


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_an_onnx_file_has_standard_operators_and_named_free_sizes(exported):
    import onnx

    model = onnx.load(exported[1])
    onnx.checker.check_model(model, full_check=True)
    assert [opset.domain for opset in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert not [node.op_type for node in model.graph.node if "Norm" in node.op_type], "it is folded"
    sizes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert sizes == [["batch", 3, "points"], ["batch", 3]]


@pytest.mark.parametrize("exported", ["torch"], indirect=True)
def test_a_pytorch_file_runs_where_this_library_is_not(exported, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pointnet"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert runner("torch", exported[1])(torch.randn(4, 3, 77)).shape == (4, 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: y + (2e-3 if len(y) == 7 else 0), r"at \(7, 2048\) its logits are off by 2"),
        (lambda y: y[:, :2], r"at \(1, 1\) its logits are off by inf"),
        (lambda y: y * float("nan"), r"at \(1, 1\) its logits are off by nan"),
    ],
)
def test_a_file_that_is_not_the_model_is_not_written(tmp_path, monkeypatch, model, spoil, message):
    monkeypatch.setattr(export, "_to_torch", lambda model, metadata: b"new")
    monkeypatch.setattr(export, "_run_torch", lambda content: lambda x: spoil(model(x)))
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        export_model(model, path, "torch")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_operators_of_this_library_are_refused(tmp_path, monkeypatch):
    """Its own search for the largest value is no standard operator; an export must not meet it."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: False)
    with pytest.raises(ValueError, match=r"pointnet.extremes.default is not one of PyTorch's own operators"):
        export_model(small(), tmp_path / "x", "torch")
    assert not list(tmp_path.iterdir())


def test_operators_of_another_domain_are_refused(tmp_path, monkeypatch, model):
    need("onnx")
    import onnx

    node = onnx.helper.make_node("Gelu", ["points"], ["logits"], domain="com.microsoft")
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **settings: types.SimpleNamespace(model_proto=proto))
    with pytest.raises(ValueError, match="operators of com.microsoft are not standard ones"):
        export_model(model, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_onnx_is_one_line_on_how_to_get_it(tmp_path, monkeypatch, capsys, package):
    for other in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, other, np)  # there, as far as is looked
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}: pip install 'pointnet-shared-mlp\[export\]'"):
        export_model(small(), tmp_path / "x")
    small().save_pretrained(tmp_path / "run")
    assert "[export]" in error_of(capsys, command_line.main, ["export", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "model.onnx").exists()


# The command.


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "torch"])
def test_the_command_writes_beside_the_model_and_prints_what_it_compared(tmp_path, capfd, monkeypatch, format):
    need(format)
    monkeypatch.chdir(tmp_path)
    model = small(in_channels=6)
    model.save_pretrained("run")
    name = f"model{SUFFIXES[format]}"
    assert command_line.main(["export", "run", "--format", format]) == 0
    printed = capfd.readouterr()
    assert f"run/{name}: 0.0 MB" in printed.out
    assert "(1, 1), (1, 50), (7, 2,048), (32, 1,024)" in printed.out
    assert not printed.err
    x = torch.randn(2, 6, 20)
    with torch.no_grad():
        torch.testing.assert_close(runner(format, tmp_path / "run" / name)(x), model(x), rtol=1e-4, atol=1e-4)


def test_the_command_writes_to_out_and_shipped_weights_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(export, "_to_torch", lambda model, metadata: b"new")
    monkeypatch.setattr(export, "_run_torch", lambda content: load_model("pointnet_small"))
    small().save_pretrained(tmp_path / "weights" / "pointnet_small")
    assert command_line.main(["export", "pointnet_small", "--format", "torch"]) == 0
    assert command_line.main(["export", "pointnet_small", "--format", "torch", "--out", "there/x.pt2"]) == 0
    assert (tmp_path / "pointnet_small.pt2").read_bytes() == (tmp_path / "there" / "x.pt2").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere/config.json: no model here"),
        (["run", "--format", "onxx"], "no format 'onxx'; did you mean 'onnx'? (known: onnx, torch)"),
        (["run", "--format", "torch", "--out", "run/config.json/x"], "run/config.json"),
        (["run", "--format", "torch", "--out", "run"], "run"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    model = small()
    model.save_pretrained("run")
    monkeypatch.setattr(export, "_to_torch", lambda model, metadata: b"new")
    monkeypatch.setattr(export, "_run_torch", lambda content: model)
    files = set(tmp_path.rglob("*"))
    assert message in error_of(capsys, command_line.main, ["export", *words])
    assert set(tmp_path.rglob("*")) == files, "half-written files"
