"""Exported models: the file gives the model's logits at every size and the library's answers, and is written last."""

import contextlib
import io
import re
import sys
import types

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, PointNetPartSegmenter, PointNetSegmenter, predict
from pointnet import __main__ as command_line
from pointnet.datasets.blocks import CHANNEL_NAMES
from pointnet.evaluation.contract import Contract
from pointnet.extras import MissingExtraError
from pointnet.inference import cases, export
from pointnet.inference.export import SIZES, SUFFIXES, export_model
from pointnet.inference.label import label_points
from pointnet.models import load_model, weights
from tests.exported import metadata_of, need, runner, shares_by_hand, taught
from tests.forms import forms
from tests.helpers import CLASSES, ROOT, SMALL, assert_near, described, error_of, make_room

FORMATS = ("onnx", "torch")


def small(**arguments) -> PointNetClassifier:
    model = PointNetClassifier(3, **(SMALL | {"tnet_widths": ((8, 16), (8,)), "head_widths": (16,)} | arguments))
    return taught(described(model))


@pytest.fixture(scope="module")
def model() -> PointNetClassifier:
    """Both T-Nets, and values of any sign before the max."""
    torch.manual_seed(0)
    widths = ((8, 8), (16, 16, 32))
    network = small(widths=widths, input_transform=True, feature_transform=True, last_activation=False)
    network.preprocessing = Contract(32, up="y", temperature=0.7).as_json()
    return network


@pytest.fixture(scope="module", params=[pytest.param("onnx", marks=pytest.mark.slow), "torch"])
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


of_onnx = pytest.mark.parametrize("exported", [pytest.param("onnx", marks=pytest.mark.slow)], indirect=True)


@torch.no_grad()
def test_the_file_gives_the_models_logits_at_every_size(exported, model):
    format, path, returned = exported
    assert SIZES == ((1, 1), (1, 50), (7, 2048), (32, 1024))
    assert returned <= 1e-4
    run = runner(format, path)
    for clouds, points in (*SIZES, (2, 1), (3, 16), (5, 257)):
        x = torch.randn(clouds, 3, points)
        wanted = model(x)
        assert_near(run(x), wanted, 1e-4)


def test_the_file_holds_its_classes_and_its_contract_and_no_folder_of_the_machine(exported, model):
    format, path, _ = exported
    assert metadata_of(format, path) == {"classes": list(CLASSES), **Contract.of(model).as_json()}
    content = path.read_bytes()
    assert not [word for word in (b".py", b"/pointnet/", b"stack_trace") if word in content]


@of_onnx
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
        (lambda y: y * (1.002 if len(y) == 7 else 1), r"at \(7, 2048\) its logits are off by 2"),
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
    with pytest.raises(MissingExtraError, match=rf"needs {package}: pip install onnx onnxscript onnxruntime$"):
        export_model(small(), tmp_path / "x")
    small().save_pretrained(tmp_path / "run")
    assert "pip install onnx onnxscript" in error_of(capsys, command_line.main, ["export", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "model.onnx").exists()


# The answers.


def assert_same(labels, probability, shares) -> None:
    """Answers for points are those of shares (K, N)."""
    assert (labels == shares.argmax(0).numpy()).mean() > 0.99
    np.testing.assert_allclose(probability, shares.amax(0), atol=1e-4)
    assert np.ptp(probability) > 0.01, "the points make no difference"


def write_cloud(path, count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3)) * (30, 10, 60) + (5, -90, 7)
    np.savetxt(path, points)
    return points


def test_an_exported_classifier_answers_for_a_file_as_predict_does(exported, model, tmp_path):
    for seed in range(3):
        points = write_cloud(tmp_path / "a.xyz", 512, seed)
        answer = predict(tmp_path / "a.xyz", model, num_points=512)
        wanted = torch.tensor([answer.probabilities[name] for name in CLASSES])
        torch.testing.assert_close(shares_by_hand(*exported[:2], points), wanted, atol=1e-4, rtol=0)
        other = predict(points, model, up="z", num_points=512).probability
        assert abs(answer.probability - other) > 0.01, "up makes no difference"


PARTS_OF = {"chair": [0, 1, 2], "lamp": [3, 4]}


def for_parts(**contract) -> PointNetPartSegmenter:
    parts_of = [*PARTS_OF.values()]
    model = taught(PointNetPartSegmenter(6, 2, parts_of=parts_of, head_widths=(16,), **SMALL))
    model.classes = tuple("abcdef")
    model.preprocessing = Contract(32, categories=tuple(PARTS_OF), **contract).as_json()
    return model


@pytest.mark.parametrize("needs", forms([False, True], True))
@pytest.mark.parametrize("format", forms(FORMATS, "torch"))
def test_a_file_for_parts_has_no_answer_for_a_category_that_the_network_cannot_take(tmp_path, format, needs):
    need(format)
    path = tmp_path / f"x{SUFFIXES[format]}"
    export_model(for_parts(needs_category=needs), path, format)
    logits = runner(format, path)(torch.randn(4, 3, 50), torch.tensor([-2, -1, 0, 1]))
    assert logits.isnan().all(2).all(1).tolist() == [True, needs, False, False]
    assert not logits[2:].isnan().any()


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_network_for_parts_answers_for_a_file_as_label_points_does(tmp_path, format):
    need(format)
    model, parts_of, categories = for_parts(up="y", temperature=0.5), [*PARTS_OF.values()], [*PARTS_OF]
    path = tmp_path / f"x{SUFFIXES[format]}"
    export_model(model, path, format)
    points = write_cloud(tmp_path / "a.xyz", 300)
    for category in (*categories, None):
        found = label_points(tmp_path / "a.xyz", model, category=category)
        number = -1 if category is None else categories.index(category)
        shares = shares_by_hand(format, path, points, torch.tensor([number]))
        assert_same(found.labels, found.probability, shares)
        assert not shares[[part for part in range(6) if number >= 0 and part not in parts_of[number]]].any()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_network_for_scenes_answers_for_a_file_as_label_points_does(tmp_path, format):
    need(format)
    model = taught(PointNetSegmenter(4, head_widths=(16,), **SMALL))
    model.classes = tuple("abcd")
    model.preprocessing = Contract(4096, channels=CHANNEL_NAMES, scale="blocks of a metre", centre=False).as_json()
    path = tmp_path / f"x{SUFFIXES[format]}"
    export_model(model, path, format)
    room = make_room(300, extent=(0.9, 0.8, 0.7))[:, :6]
    np.savetxt(tmp_path / "a.xyzrgb", room)
    found = label_points(tmp_path / "a.xyzrgb", model)
    xyz = room[:, :3]
    x = np.hstack([xyz - (0.5, 0.5, 0), room[:, 3:] / 255, xyz / xyz.max(0)]).T[None].astype(np.float32)
    shares = runner(format, path)(torch.from_numpy(x))[0].softmax(0).detach()
    assert_same(found.labels, found.probability, shares)


def test_a_file_that_answers_otherwise_than_the_library_is_not_written(tmp_path, monkeypatch, model):
    monkeypatch.setattr(export, "_to_torch", lambda model, metadata: b"new")
    monkeypatch.setattr(export, "_run_torch", lambda content: model)
    export_model(model, tmp_path / "x", "torch")
    monkeypatch.setattr(cases, "predict", lambda rows, model: predict(rows, model, up="y"))
    with pytest.raises(ValueError, match=r"y: not written: at \(1, 32\) its answer is not the library's"):
        export_model(model, tmp_path / "y", "torch")
    assert not (tmp_path / "y").exists()


def test_a_model_that_does_not_say_what_it_was_taught_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the model does not say what input it expects: preprocessing has no"):
        export_model(PointNetClassifier(3), tmp_path / "x", "torch")


@of_onnx
@pytest.mark.parametrize(("page", "up"), [("docs/tour.md", None), ("README.md", "z")])  # None: as in training, y
def test_the_example_of_a_page_answers_as_predict_does(exported, model, tmp_path, monkeypatch, page, up):
    text = (ROOT / page).read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "onnxruntime" in code)
    for path, content in (
        (re.search(r'"(\S*model\.onnx)"', example)[1], exported[1].read_bytes()),
        (re.search(r"data/\S+xyz", example)[0], b"".join(b"%d %d %d\n" % (i, i % 7, i % 5) for i in range(512))),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, page, "exec"), {})
    answer = predict(path, model, up, num_points=512)
    assert printed.getvalue() == f"{answer.class_name} {answer.probability:.1%}\n"


# The command.


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "torch"])
def test_the_command_writes_beside_the_model_and_prints_what_it_compared(tmp_path, capfd, monkeypatch, format):
    need(format)
    monkeypatch.chdir(tmp_path)
    model = small(in_channels=6)
    model.preprocessing["normals"] = True
    model.save_pretrained("run")
    name = f"model{SUFFIXES[format]}"
    assert command_line.main(["export", "run", "--format", format]) == 0
    printed = capfd.readouterr()
    assert f"run/{name}: 0.0 MB" in printed.out
    assert "(1, 1), (1, 50), (7, 2,048), (32, 1,024)" in printed.out
    assert "it takes points (B, 6, N) float32: x, y, z, nx, ny, nz; z up, right-handed, centred, in" in printed.out
    assert "for 8 solids it answers as the library does: the same labels, logits within 1e-04" in printed.out
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
        (["run", "--format", "torch", "--out", "run/config.json/x.pt2"], "run/config.json"),
        (["run", "--format", "torch", "--out", "folder.pt2"], "folder.pt2"),
        (["run", "--format", "torch", "--out", "x.onnx"], "x.onnx: --out must end in .pt2 with --format torch"),
        (["run", "--out", "run/model.safetensors"], "model.safetensors: --out must end in .onnx with --format onnx"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    model = small()
    model.save_pretrained("run")
    (tmp_path / "folder.pt2").mkdir()
    monkeypatch.setattr(export, "_to_torch", lambda model, metadata: b"new")
    monkeypatch.setattr(export, "_run_torch", lambda content: model)
    files = set(tmp_path.rglob("*"))
    assert message in error_of(capsys, command_line.main, ["export", *words])
    assert set(tmp_path.rglob("*")) == files, "half-written files"
