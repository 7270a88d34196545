"""Exported models: the file gives the model's logits at every size, says what it needs to, and is written last."""

import io
import json
import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, TNet
from pointnet import __main__ as command_line
from pointnet.datasets import ModelNet
from pointnet.extras import MissingExtraError
from pointnet.inference import export
from pointnet.inference.export import SIZES, SUFFIXES, compare, export_model
from tests.helpers import CLASSES, SMALL, described, error_of

FORMATS = ("onnx", "torch")


def need(format: str) -> None:
    """Skips, saying why, where what a format takes is not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(package, reason=f"needs {package}, of the extra export")


def live(model: PointNetClassifier) -> PointNetClassifier:
    """As after training: a fresh T-Net is the identity, and a fresh norm next to nothing."""
    for module in model.modules():
        if isinstance(module, TNet):
            torch.nn.init.normal_(module.matrix.weight, std=0.05)
    return described(model)


def small(**arguments) -> PointNetClassifier:
    return live(PointNetClassifier(3, **(SMALL | arguments)))


@pytest.fixture(scope="module")
def published() -> PointNetClassifier:
    torch.manual_seed(0)
    return live(PointNetClassifier(3))


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, published, tmp_path_factory):
    """(the format, the file, what `export_model` returned) of the published architecture."""
    need(request.param)
    path = tmp_path_factory.mktemp("exported") / f"model{SUFFIXES[request.param]}"
    return request.param, path, export_model(published, path, request.param)


def runner(format: str, path):
    """The file as a function of points, by nothing of this library."""
    if format == "torch":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda x: torch.from_numpy(session.run(["logits"], {"points": x.numpy()})[0])


@pytest.fixture(scope="module")
def run(exported):
    format, path, _ = exported
    return runner(format, path)


@torch.no_grad()
def test_the_file_gives_the_models_logits_at_every_size(exported, run, published):
    _, path, told = exported
    assert told.path == path
    assert told.bytes == path.stat().st_size
    assert set(told.errors) == {(1, 1), (1, 50), (7, 2048), (32, 1024)} == set(SIZES)
    assert max(told.errors.values()) <= 1e-4
    for clouds, points in (*SIZES, (2, 1), (3, 16), (5, 257)):
        x = torch.randn(clouds, 3, points)
        torch.testing.assert_close(run(x), published(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_file_gives_the_models_logits_of_real_shapes(run, published, real_modelnet):
    data = ModelNet(real_modelnet, split="test")
    x = torch.stack([data[i][0] for i in range(0, len(data), 60)])
    torch.testing.assert_close(run(x), published(x), rtol=1e-4, atol=1e-4)


def test_what_it_needs_to_say_is_in_the_file(exported):
    format, path, _ = exported
    if format == "onnx":
        import onnxruntime

        said = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    else:
        files = {"metadata.json": ""}
        torch.export.load(path, extra_files=files)
        said = json.loads(files["metadata.json"])
    assert json.loads(said.pop("classes")) == list(CLASSES)
    assert said == {"frame": "z up, right-handed", "num_points": "32", "normals": "false"}


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
def test_a_pytorch_file_runs_where_this_library_is_not(exported, tmp_path):
    code = "import sys; sys.modules['pointnet'] = None; import torch; "
    code += f"print(tuple(torch.export.load({str(exported[1])!r}).module()(torch.randn(4, 3, 77)).shape))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "(4, 3)\n"


def test_the_file_names_no_folder_of_the_machine_it_was_made_on(exported):
    _, path, _ = exported
    content = path.read_bytes()
    assert not [word for word in (b".py", b"/pointnet/", b"stack_trace") if word in content]


@pytest.mark.parametrize(
    ("format", "arguments"),
    [
        ("onnx", {"last_activation": False, "widths": ((4,), (8, 16)), "feature_transform": True}),
        ("torch", {"in_channels": 6}),
    ],
    ids=str,
)
def test_other_architectures_are_exported_too_from_any_mode_and_left_as_they_were(tmp_path, format, arguments):
    need(format)
    model = small(**arguments).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "new" / "folder" / "x"
    export_model(model, path, format)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    x = torch.randn(3, arguments.get("in_channels", 3), 40)
    with torch.no_grad():
        torch.testing.assert_close(runner(format, path)(x), model.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("format", "spoil", "message"),
    [
        (
            "onnx",
            lambda run: lambda x: run(x) + (2e-3 if len(x) == 7 else 0),
            r"at \(7, 2048\) its logits are off by 2",
        ),
        ("torch", lambda run: lambda x: run(x)[:, :2], r"at \(1, 1\) its logits are off by inf"),
        ("torch", lambda run: lambda x: run(x) * float("nan"), r"at \(1, 1\) its logits are off by nan"),
    ],
)
def test_a_file_that_is_not_the_model_is_not_written(tmp_path, monkeypatch, format, spoil, message):
    need(format)
    run = getattr(export, f"_run_{format}")
    monkeypatch.setattr(export, f"_run_{format}", lambda content: spoil(run(content)))
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        export_model(small(), path, format)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_operators_of_this_library_are_refused(tmp_path, monkeypatch):
    """Its own search for the largest value is no standard operator; an export must not meet it."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: False)
    with pytest.raises(ValueError, match=r"pointnet.extremes.default is not one of PyTorch's own operators"):
        export_model(small(), tmp_path / "x", "torch")
    assert not list(tmp_path.iterdir())


def test_operators_of_another_domain_are_refused(tmp_path, monkeypatch):
    need("onnx")
    real = torch.onnx.export

    def export_with_one(*arguments, **settings):
        program = real(*arguments, **settings)
        program.model.graph[0].domain = "com.microsoft"
        return program

    monkeypatch.setattr(torch.onnx, "export", export_with_one)
    with pytest.raises(ValueError, match="operators of com.microsoft are not standard ones"):
        export_model(small(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exporter", ["torch.onnx", "onnxscript"])
def test_the_exporters_remarks_on_themselves_are_not_shown(recwarn, caplog, exporter):
    log = logging.getLogger(exporter)
    before = log.level
    with export._quiet():
        warnings.warn("of no use", FutureWarning, stacklevel=1)
        logging.getLogger(f"{exporter}.inner").warning("of no use either")
        logging.getLogger(f"{exporter}.inner").error("but this is")
    assert not recwarn.list
    assert [record.message for record in caplog.records] == ["but this is"]
    assert log.level == before


def test_an_error_is_counted_in_logits_and_by_the_largest_where_that_is_above_1():
    model = small()
    model.logits.weight.data.zero_()
    for largest, wanted in ((0.5, 1e-3), (100.0, 1e-5)):
        model.logits.bias.data = torch.tensor([largest, 0.0, 0.0])
        errors = compare(model, lambda x: model(x) + 1e-3)
        assert list(errors.values()) == pytest.approx([wanted] * 4, rel=2e-2)


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


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_writes_beside_the_model_and_says_what_it_compared(tmp_path, capfd, monkeypatch, format):
    need(format)
    monkeypatch.chdir(tmp_path)
    small().save_pretrained("run")
    name = f"model{SUFFIXES[format]}"
    assert command_line.main(["export", "run", "--format", format]) == 0
    printed = capfd.readouterr()
    assert f"run/{name}: 0.6 MB, for any number of clouds and points" in printed.out
    assert "its logits at (1, 1), (1, 50), (7, 2,048), (32, 1,024) differ from the model's by at most " in printed.out
    assert not printed.err
    x = torch.randn(2, 3, 20)
    wanted = runner(format, tmp_path / "run" / name)(x)
    assert wanted.shape == (2, 3)


def test_the_command_writes_where_it_is_told_and_shipped_weights_here(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pointnet.models.weights.WEIGHTS", tmp_path / "weights")
    small().save_pretrained(tmp_path / "weights" / "pointnet_small")
    assert command_line.main(["export", "pointnet_small", "--format", "torch"]) == 0
    assert command_line.main(["export", "pointnet_small", "--format", "torch", "--out", "there/x.pt2"]) == 0
    assert (tmp_path / "pointnet_small.pt2").read_bytes()[:2] == b"PK"
    assert (tmp_path / "there" / "x.pt2").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere/config.json: no model here"),
        (["run", "--format", "onxx"], "no format 'onxx'; did you mean 'onnx'? (known: onnx, torch)"),
        (["run", "--format", "torch", "--out", "run/config.json/x"], "run/config.json"),
        (["run", "--format", "torch", "--out", "run"], "run"),
        (["run", "--ot", "x"], "did you mean '--out'?"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    small().save_pretrained("run")
    files = set(tmp_path.rglob("*"))
    assert message in error_of(capsys, command_line.main, ["export", *words])
    assert set(tmp_path.rglob("*")) == files, "half-written files"


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="format must be onnx or torch, got 'tflite'"):
        export_model(small(), io.BytesIO(), "tflite")
