"""pointnet.predict and python -m pointnet predict: a file is what evaluation finds it to be, in any company."""

import copy
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, embed, load_model, predict
from pointnet import __main__ as command_line
from pointnet.datasets import MeshFolder, PointCloudFileError, read_points
from pointnet.inference import judge as module
from pointnet.inference.inputs import NOT_MARKED
from pointnet.inference.predict import Prediction
from pointnet.models import DEFAULTS
from pointnet.points.features import unit_sphere_channels
from pointnet.points.in_memory import cloud_of
from tests.helpers import CLASSES, ROOT, described, error_of

SAMPLES = ROOT / "data" / "samples"
FILES = SAMPLES / "files"
CHAIR, STOOL = FILES / "chair.off", FILES / "stool.xyz"


def small(num_points: int = 200, normals: bool = False) -> PointNetClassifier:
    """A network of three classes with both T-Nets, that sees `num_points` of each cloud."""
    narrow = {"widths": ((16,), (32, 64)), "tnet_widths": ((16, 32), (16,)), "head_widths": (16,)}
    model = described(PointNetClassifier(3, in_channels=6 if normals else 3, **narrow), num_points)
    model.preprocessing["normals"] = normals
    for tnet in (model.encoder.input_tnet, model.encoder.feature_tnet):
        torch.nn.init.normal_(tnet.matrix.weight, std=0.1)  # so that they turn each cloud in a way of its own
    with torch.no_grad():  # and so that the classes are all met, each with some certainty
        x = torch.randn(64, model.arguments["in_channels"], 100) * torch.rand(64, model.arguments["in_channels"], 1)
        logits = model(x / x.norm(dim=1, keepdim=True).amax(2, keepdim=True))
        scale = logits.std(0).mean()
        model.logits.weight /= scale
        model.logits.bias.copy_((model.logits.bias - logits.mean(0)) / scale)
    return model


@pytest.fixture(scope="module")
def model() -> PointNetClassifier:
    torch.manual_seed(0)
    return small()


@pytest.fixture
def folder(tmp_path, model) -> str:
    """The folder of a model, for the command line."""
    model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def probabilities(predictions) -> np.ndarray:
    """(B, classes), in the order of the logits."""
    return np.array([[prediction.probabilities[name] for name in CLASSES] for prediction in predictions])


def assert_alike(one, other) -> None:
    np.testing.assert_allclose(probabilities(one), probabilities(other), atol=1e-4)


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


# The answer.


@torch.no_grad()
def test_a_file_is_what_evaluation_finds_it_to_be(tmp_path, model):
    shutil.copytree(SAMPLES / "ModelNet40", tmp_path / "meshes")
    data = MeshFolder(tmp_path / "meshes", "test", num_points=200)
    wanted = model(torch.stack([data[i][0] for i in range(len(data))])).softmax(1)
    assert len(wanted) == 8
    got = predict(list(data.files), model)
    np.testing.assert_allclose(probabilities(got), wanted, atol=1e-4)
    assert [prediction.file for prediction in got] == list(data.files)
    assert wanted.std(0).max() > 0.01, "all alike"


@torch.no_grad()
@pytest.mark.parametrize("normals", [False, True])
def test_an_array_is_centred_scaled_and_classified(normals):
    model = small(num_points=50, normals=normals)
    rows = np.random.default_rng(0).normal(size=(50, 6))
    points = rows[:, :3] - rows[:, :3].mean(0)
    points = points / np.linalg.norm(points, axis=1).max()
    rows[:, 3:] /= np.linalg.norm(rows[:, 3:], axis=1, keepdims=True)
    x = torch.from_numpy(np.hstack([points, rows[:, 3:]]) if normals else points).float().T[None]
    prediction = predict(rows if normals else rows[:, :3], model)
    # Fifty points, repeated to the 4,096 that are drawn of each: their mean is not exactly that of the fifty.
    np.testing.assert_allclose(probabilities([prediction]), model(x).softmax(1), atol=5e-3)
    assert prediction.file is None


@pytest.mark.parametrize("kind", ["array", "tensor", "table"])
def test_rows_of_zeros_of_an_array_are_left_out_as_those_of_a_file(tmp_path, model, kind):
    points = np.random.default_rng(0).normal((0, 0, 40), size=(500, 3))
    rows = np.vstack([points, np.zeros((300, 3))])
    np.save(tmp_path / "a.npy", rows)
    kinds = {"array": rows, "tensor": torch.from_numpy(rows), "table": np.rec.fromarrays(rows.T, names="x,y,z")}
    for ask in (predict, embed):
        found, clean, of_file = (ask(source, model) for source in (kinds[kind], points, tmp_path / "a.npy"))
        assert [note for note in found.notes if note not in clean.notes] == ["300 rows of zeros left out"]
        assert "300 rows of zeros left out" in of_file.notes
        assert "left out" not in str(ask(np.vstack([points, np.zeros((1, 3))]), model).notes), "one may be a point"
    assert predict(kinds[kind], model).probabilities == predict(points, model).probabilities
    with pytest.raises(ValueError, match=r"points \(9, 3\): holds no point but rows of zeros"):
        predict(np.zeros((9, 3)), model)


def test_a_prediction_ranks_all_classes(model):
    prediction = predict(CHAIR, model)
    values = list(prediction.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-6)
    assert set(prediction.probabilities) == set(CLASSES)
    assert (prediction.class_name, prediction.runner_up) == tuple(prediction.probabilities)[:2]
    assert (prediction.probability, prediction.runner_up_probability) == tuple(values[:2])
    alone = Prediction(None, {"rod": 1.0})
    assert (alone.class_name, alone.runner_up, alone.runner_up_probability) == ("rod", None, 0.0)


def test_every_sample_file_is_predicted_alike_alone_and_in_company_in_any_batch(model, monkeypatch):
    files = sorted(FILES.iterdir())
    together = predict(files, model)
    assert [prediction.file for prediction in together] == files
    for batch_points, some in ((1, files[:1]), (450, files)):  # in pieces of a point, and two at a time
        monkeypatch.setattr(module, "BATCH_POINTS", batch_points)
        assert_alike(predict(some, model), together[: len(some)])
    assert_alike([predict(str(file), model) for file in files], together)


@torch.no_grad()
def test_a_cloud_of_any_size_is_streamed_and_gives_what_it_gives_whole(model, monkeypatch):
    monkeypatch.setattr(module, "BATCH_POINTS", 1000)
    rows = np.random.default_rng(0).normal(size=(9000, 3))
    seen = []
    monkeypatch.setattr(
        PointNetClassifier,
        "classify_chunks",
        lambda self, chunks, real=PointNetClassifier.classify_chunks: seen.append(len(chunks)) or real(self, chunks),
    )
    prediction = predict(rows, model, "z", num_points=9000)
    channels = unit_sphere_channels(cloud_of(rows, 9000, repeat=True, normalize=True))
    whole = model(torch.from_numpy(channels)[None]).softmax(1)
    np.testing.assert_allclose(probabilities([prediction]), whole, atol=1e-4)
    assert seen == [9]


@pytest.mark.parametrize("count", [1024, 512])
def test_neither_place_nor_scale_nor_order_of_the_points_matters(model, count):
    points = read_points(STOOL)[:count].astype(np.float64)
    wanted = [predict(points, model, num_points=count)]
    shuffled = np.random.default_rng(1).permutation(points)
    for changed in (points * 1e6, points * 1e-6 - 3, points + 5e5, shuffled):
        assert_alike([predict(changed, model, num_points=count)], wanted)
    assert_alike([predict(torch.from_numpy(points), model, num_points=count)], wanted)


def test_up_turns_what_has_y_up_into_the_weights_frame(tmp_path, model):
    points = read_points(STOOL)
    y_up = points[:, [0, 2, 1]] * np.float32([1, 1, -1])
    wanted = [predict(points, model)]
    assert_alike([predict(y_up, model, up="y")], wanted)
    assert abs(probabilities([predict(y_up, model)]) - probabilities(wanted)).max() > 1e-3
    glb = FILES / "sofa.glb"  # y is up in glTF
    assert_alike([predict(glb, model)], [predict(glb, model, up="y")])
    assert abs(probabilities([predict(glb, model)]) - probabilities([predict(glb, model, up="z")])).max() > 1e-3


def test_the_vertices_of_a_mesh_are_its_points_where_that_is_wanted(tmp_path, model, folder, capsys):
    points = np.random.default_rng(0).integers(-9, 9, (128, 3))
    path = tmp_path / "a.off"
    path.write_text("OFF\n128 1 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in points) + "3 0 1 2\n")
    wanted, found = predict(points, model).probabilities, predict(path, model, vertices=True).probabilities
    assert found == pytest.approx(wanted, abs=1e-5)
    assert predict(path, model).probabilities != pytest.approx(wanted, abs=1e-2)
    assert command_line.main(["predict", str(path), "--model", folder, "--vertices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["probability"] == pytest.approx(max(wanted.values()), abs=1e-5)


def test_votes_are_the_mean_over_even_rotations_and_blind_to_them(model):
    points = read_points(STOOL)
    voted = [predict(points, model, votes=12)]
    singles = probabilities([predict(rotated(points, 30 * step), model) for step in range(12)])
    np.testing.assert_allclose(probabilities(voted)[0], singles.mean(0), atol=1e-4)
    assert singles.std(0).max() > 1e-3
    assert_alike([predict(rotated(points, 90), model, votes=12)], voted)


def test_normals_are_rotated_with_the_points():
    model = small(normals=True)
    rows = np.hstack([read_points(STOOL), np.full((1024, 3), 3**-0.5, np.float32)])
    spun = np.hstack([rotated(rows[:, :3], 30), rotated(rows[:, 3:], 30)])
    assert_alike([predict(spun, model, votes=12)], [predict(rows, model, votes=12)])


def test_weights_that_take_normals_get_those_of_meshes_and_refuse_what_has_none():
    model = small(normals=True)
    assert predict(CHAIR, model).class_name in CLASSES
    with pytest.raises(PointCloudFileError, match="stool.xyz: has no normals, which the model was trained with"):
        predict(STOOL, model)
    with pytest.raises(ValueError, match=r"^points \(9, 3\): has no normals, which the model was trained with$"):
        predict(np.eye(9)[:, :3], model)


def test_a_list_or_a_folder_gives_a_list_and_a_file_or_an_array_does_not(model):
    points = read_points(STOOL)
    assert isinstance(predict(CHAIR, model), Prediction)
    assert isinstance(predict(points, model), Prediction)
    mixed = predict([CHAIR, points, str(STOOL)], model)
    assert [prediction.file for prediction in mixed] == [CHAIR, None, STOOL]
    assert_alike(mixed, [predict(CHAIR, model), predict(points, model), predict(STOOL, model)])
    assert predict([], model) == []
    assert [prediction.file for prediction in predict(FILES, model)] == sorted(FILES.iterdir())


def test_the_model_is_left_as_it_was_and_may_be_in_training(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = [predict(CHAIR, model)]
    model.train()
    try:
        assert_alike([predict(CHAIR, model)], wanted)
        assert model.training
    finally:
        model.eval()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_shipped_weights_are_taken_where_no_model_is_named(tmp_path, monkeypatch, capsys, model):
    monkeypatch.setattr("pointnet.models.weights.WEIGHTS", tmp_path)
    assert "no weights for the task classification are shipped" in error_of(
        capsys, command_line.main, ["predict", str(CHAIR)]
    )
    model.save_pretrained(tmp_path / DEFAULTS["classification"])
    assert_alike([predict(CHAIR), predict(CHAIR, DEFAULTS["classification"])], [predict(CHAIR, model)] * 2)
    assert command_line.main(["predict", str(CHAIR)]) == 0
    assert capsys.readouterr().out.startswith(f"{DEFAULTS['classification']}: 3 classes; ")


def test_classes_that_do_not_name_each_output_are_refused(model):
    few = copy.deepcopy(model)
    few.classes = ("a", "b")
    with pytest.raises(ValueError, match=r"^model\.classes must name the 3 outputs of the model, got 2 names$"):
        predict(CHAIR, few)


def test_a_name_the_system_refuses_is_a_file_that_cannot_be_read(folder, capsys):
    assert command_line.main(["predict", 300 * "x" + ".off", str(CHAIR), "--model", folder]) == 1
    printed = capsys.readouterr()
    assert str(CHAIR) in printed.out
    assert printed.err == f"{300 * 'x'}.off: cannot be read: File name too long\n"


# The command.


def test_each_file_is_a_line_and_one_that_cannot_be_read_is_a_line_on_stderr(capsys, folder, tmp_path):
    broken = tmp_path / "line\nbreak\x1b[31m.off"
    broken.write_text("OFF\n3 1 0\n0 0 zero\n")
    missing = str(FILES / "chiar.off")
    assert command_line.main(["predict", str(CHAIR), str(broken), missing, str(STOOL), "--model", folder]) == 1
    printed = capsys.readouterr()
    header, unmarked, *lines = printed.out.replace("\n  ", " ").splitlines()  # the first in lines that fit a terminal
    assert all(len(line) <= 79 for line in printed.out.splitlines() if line.startswith("  "))
    expected = (
        "200 points of each file, z up, right-handed, centred, in the unit sphere, facing as its training set does"
    )
    assert header.startswith(f"{folder}: 3 classes; takes {expected}; probabilities not calibrated; ")
    assert unmarked == NOT_MARKED
    wanted = predict([CHAIR, STOOL], load_model(folder))
    assert len(lines) == 2
    for line, prediction in zip(lines, wanted, strict=True):
        first, then = line.split(", then ")
        assert first.split() == [str(prediction.file), prediction.class_name, f"{prediction.probability:.1%}"]
        unsure = "" if prediction.sure else "   unsure"
        assert then == f"{prediction.runner_up} {prediction.runner_up_probability:.1%}{unsure}"
    first, second = printed.err.splitlines()
    assert "line\\nbreak�[31m.off: " in first
    assert second.endswith("chiar.off: no such file; did you mean 'chair.off'?")


def test_json_is_a_list_with_an_object_for_each_file(capsys, folder, model):
    arguments = ["predict", str(STOOL), "nowhere.ply", str(CHAIR), "--json", "--model", folder]
    assert command_line.main([*arguments, "--votes", "12", "--up", "y", "--num_points", "99"]) == 1
    printed = capsys.readouterr()
    answers = json.loads(printed.out)
    wanted = predict([STOOL, CHAIR], model, up="y", votes=12, num_points=99)
    for answer, prediction in zip(answers, wanted, strict=True):
        assert answer == {
            "file": str(prediction.file),
            "class": prediction.class_name,
            "probability": pytest.approx(prediction.probability, abs=1e-6),
            "runner_up": prediction.runner_up,
            "runner_up_probability": pytest.approx(prediction.runner_up_probability, abs=1e-6),
            "sure": prediction.sure,
            "up": "y",
            "notes": [*prediction.notes[:-1]],
        }
        assert not prediction.sure
        assert prediction.notes[0] == "unsure: no class has a probability of 60 %"
        assert prediction.notes[-1] == NOT_MARKED  # which the command says once
    assert printed.err == f"{NOT_MARKED}\nnowhere.ply: no such file\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: FILE"),
        ([""], "a file's name must not be empty"),
        ([str(CHAIR), "--vote"], "did you mean '--votes'?"),
        ([str(ROOT / "pointnet" / "ops")], "holds no file of points"),
        ([str(CHAIR), "--device", "cuda:99"], "device 'cuda:99' is not there: "),
        ([str(CHAIR), "--top", "0"], "top must be at least 1, got 0"),
        ([str(CHAIR), "--votes", "0"], "votes must be at least 1, got 0"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(capsys, folder, words, message):
    assert message in error_of(capsys, command_line.main, ["predict", *words, "--model", folder])
    assert not capsys.readouterr().out


# Costs and accuracy.


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read the peak from")
@pytest.mark.skipif(torch.version.cuda is not None, reason="with CUDA torch alone takes more than that")
def test_five_million_points_are_predicted_within_600_mb(tmp_path, folder):
    path = tmp_path / "large.npy"
    np.save(path, np.random.default_rng(0).random((5_000_000, 3), np.float32) * np.float32([1, 2, 3]))
    code = f"""
from pointnet.__main__ import main
assert main(["predict", {str(path)!r}, "--model", {folder!r}]) == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{path}  " in done.stdout
    assert int(done.stdout.split()[-1]) * 1024 < 600e6
