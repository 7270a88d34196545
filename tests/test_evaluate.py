"""python -m pointnet evaluate: it counts what `predict` and `label_points` answer, on the data of the run."""

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, load_model, predict
from pointnet import __main__ as command_line
from pointnet.commands import evaluate as command
from pointnet.datasets import LabelledClouds, MeshFolder, ShapeNetPart
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import check_taught, evaluate, never_answered
from pointnet.evaluation.tasks import TASKS
from pointnet.evaluation.trust import calibration_error
from pointnet.inference.label import label_points
from pointnet.models import MODELS
from pointnet.training import fit
from tests.forms import forms
from tests.helpers import CLASSES, OWN, SMALL, described, error_of, halves, quiet, tiny, trained_looking, write_text
from tests.own_points import write_objects

FEW = {"epochs": 2, "batch_size": 16, "num_points": 64, "early_points": 0, "val_fraction": 0.5, "rotate": 10.0}


def write_clouds(root: Path) -> Path:
    """A folder of two classes, y up, whose files are of slabs and poles; one in six is in the wrong class."""
    generator = np.random.default_rng(0)
    shapes = {"slab": (1, 0.2, 1.5), "pole": (0.2, 1.5, 0.3)}
    for name in shapes:
        (root / name).mkdir(parents=True)
        for i in range(60):
            other = next(each for each in shapes if (each == name) == (i % 6 > 0))
            points = generator.normal(size=(90, 3))
            points *= np.array(shapes[other]) * generator.uniform(0.5, 1.5, 3) / np.linalg.norm(points, axis=1)[:, None]
            np.savetxt(root / name / f"{i}.xyz", points, fmt="%.5f")
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A run on a folder of files with y up, calibrated, told what is usual."""
    place = tmp_path_factory.mktemp("own")
    config = tiny(place / "run", dataset="folder", root=str(write_clouds(place / "set")), up="y", **FEW)
    fit(config, MeshFolder(place / "set", num_points=64, up="y"), log=quiet)
    return place / "run"


def scores_of(capsys, *words: object) -> dict:
    assert command_line.main(["evaluate", *map(str, words), "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("votes", forms([1, 3], 3))
def test_evaluate_counts_what_predict_answers_for_the_files(own, capsys, votes):
    found = scores_of(capsys, own, "--votes", votes)
    data = MeshFolder(own.parent / "set", "test", num_points=64, up="y")
    answers = predict(data.files, own, votes=votes, up="y")  # a data set says which way is up
    true = np.array([data.classes[label] for label in data.labels])
    right = np.array([answer.class_name for answer in answers]) == true
    assert found["of_class"] == {name: right[true == name].mean() for name in ("pole", "slab")}
    assert found["overall_accuracy"] == pytest.approx(right.mean())
    assert found["count"] == len(answers) == 24
    assert found["sure"] == np.mean([answer.sure for answer in answers])
    assert Contract.of(load_model(own)).temperature != 1
    confidence = torch.tensor([answer.probability for answer in answers])
    assert found["calibration_error"] == pytest.approx(calibration_error(confidence, torch.from_numpy(right)), abs=1e-4)
    assert 0.5 < found["overall_accuracy"] < 1
    assert 0 < found["sure"] < 1


def test_clouds_that_are_not_finite_are_neither_right_nor_sure(own):
    model, data = load_model(own), MeshFolder(own.parent / "set", "test", num_points=64, up="y")
    points = data.points.clone()
    points[[3, 20], [0, 1], 7] = torch.tensor([torch.nan, torch.inf])
    broken = LabelledClouds(points, data.labels, data.classes)
    whole = broken.subset(torch.tensor([i for i in range(24) if i not in (3, 20)]))
    found, kept = (command.all_scores(model, each, rotations=[45]) for each in (broken, whole))
    for name in ("overall_accuracy", "sure"):
        assert found[name] == pytest.approx(kept[name] * 22 / 24)
    assert found["calibration_error"] == kept["calibration_error"]
    points[:] = torch.nan
    found = command.all_scores(model, broken)
    assert (found["overall_accuracy"], found["sure"]) == (0, 0)


def test_the_data_of_the_run_is_meant_unless_other_is_named(own, capsys, tmp_path):
    wanted = scores_of(capsys, own)
    data = MeshFolder(own.parent / "set", "test", num_points=64, up="y")
    assert wanted["loss"] == evaluate(load_model(own), data, contract=Contract.of(load_model(own)))["loss"]
    root = own.parent / "set"
    assert scores_of(capsys, own, "--dataset", "folder", "--root", root) == wanted
    assert scores_of(capsys, own, "--split", "train")["count"] == 96
    assert command_line.main(["evaluate", str(own), "--split", "train"]) == 0
    assert "the network was trained on this split, so its scores say little" in capsys.readouterr().err
    assert scores_of(capsys, own, "--up", "z")["loss"] != wanted["loss"]
    moved = shutil.copytree(root, tmp_path / "moved")
    for words in ((), ("--root", str(moved)), ("--root", str(moved), "--up", "y")):
        assert command_line.main(["evaluate", str(own), *words]) == 0
        said = "files are taken with y up, as in training; --up names another axis"
        assert (said in capsys.readouterr().out.splitlines()) == (len(words) == 2)
    assert str(Contract.of(load_model(own))).startswith("z up, right-handed (files have y up), centred, in the unit")
    assert scores_of(capsys, own, "--root", moved) == wanted
    line = error_of(capsys, command_line.main, ["evaluate", str(own), "--root", str(tmp_path / "none")])
    assert f"{tmp_path}/none: no such folder; --root must name" in line
    line = error_of(capsys, command_line.main, ["evaluate", str(own), "--columns", "x,y,z,r"])
    assert "columns" in line


def test_a_set_may_have_some_of_the_classes(own, capsys, tmp_path):
    wanted = scores_of(capsys, own)
    data = MeshFolder(own.parent / "set", "test", num_points=64, up="y")
    (tmp_path / "set" / "slab").mkdir(parents=True)
    for file in data.files:
        if file.parent.name == "slab":
            shutil.copy(file, tmp_path / "set" / "slab")
    words = ["--dataset", "folder", "--root", str(tmp_path / "set"), "--split", "train"]
    split = MeshFolder(tmp_path / "set", "train", num_points=64, up="y")
    found = scores_of(capsys, own, *words)
    rest = scores_of(capsys, own, *words[:-1], "test")
    assert found["of_class"].keys() == {"slab"}
    right = found["overall_accuracy"] * found["count"] + rest["overall_accuracy"] * rest["count"]
    assert right == pytest.approx(12 * wanted["of_class"]["slab"])
    assert 0 < len(split) == found["count"] == 12 - rest["count"]
    assert command_line.main(["evaluate", str(own), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"folder in {tmp_path / 'set'} has 1 of the network's 2 classes; it may answer any of them" in lines
    assert f"the train split was drawn: {found['count']} of 12 files; --split test has the others" in lines
    (tmp_path / "set" / "slab").rename(tmp_path / "set" / "slabs")
    line = error_of(capsys, command_line.main, ["evaluate", str(own), *words])
    assert line.endswith(
        f"its classes are not those of folder in {tmp_path / 'set'}: it has no 'slabs'; did you mean 'slab'?"
    )


@pytest.mark.slow
def test_a_set_of_parts_may_have_some_of_the_categories(capsys, tmp_path):
    for within in ("train", "test"):
        write_objects(tmp_path / "set", ("pin", "table"), within=within, seed=len(within))
    words = ["--task", "part", "--dataset", "parts", "--root", str(tmp_path / "set"), "--epochs", "2"]
    words += ["--num_points", "64", "--width", "0.125", "--out", str(tmp_path / "x")]
    assert command_line.main(["train", *words]) == 0
    capsys.readouterr()
    wanted = scores_of(capsys, tmp_path / "x")
    shutil.copytree(tmp_path / "set" / "table", tmp_path / "some" / "table")
    words = ["--dataset", "parts", "--root", str(tmp_path / "some")]
    found = scores_of(capsys, tmp_path / "x", *words)
    assert found["of_class"] == {"table": wanted["of_class"]["table"]}
    assert found["instance_miou"] == found["class_miou"] == pytest.approx(found["of_class"]["table"])
    assert found["count"] == wanted["count"] // 2
    assert command_line.main(["evaluate", str(tmp_path / "x"), *words]) == 0
    line = f"parts in {tmp_path / 'some'} has 1 of the network's 2 categories"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("dgcnn_modelnet40", "modelnet40"), ("pointnet_shapes", "shapes"), ("pointnet_shapes_part", "shapes")],
)
def test_weights_without_a_run_ask_for_the_data_set(capsys, tmp_path, name, wanted):
    line = error_of(capsys, command_line.main, ["evaluate", name])
    said = "its folder does not say what it was trained on; name it: --dataset"
    assert line.endswith(f"error: {name}: {said} {wanted} --root FOLDER")
    load_model(name).save_pretrained(tmp_path / "x")
    assert f"{said} NAME --root FOLDER" in error_of(capsys, command_line.main, ["evaluate", str(tmp_path / "x")])


def test_a_category_has_the_iou_of_the_labels_that_label_points_gives(tmp_path, capsys):
    write_text(tmp_path, OWN, {"Tree": [0, 1], "Park bench": [0, 1, 2]}, sizes=(40, 30, 64))
    data = ShapeNetPart(tmp_path, "test", num_points=32)
    config = tiny(tmp_path / "run", task="part", dataset="shapenetpart", root=str(tmp_path), epochs=1)
    fit(config, ShapeNetPart(tmp_path, "trainval", num_points=32), log=quiet)
    found = scores_of(capsys, tmp_path / "run")
    (folder,) = tmp_path.glob("shapenetcore*")
    wanted = {}
    for seed, (synset, category) in enumerate(OWN.items()):
        file = folder / synset / f"test{seed}.txt"
        labelled = label_points(file, tmp_path / "run", category=category)
        parts = data.parts_of[data.classes.index(category)].nonzero()[:, 0]
        true, of_points = np.loadtxt(file)[:, 6].astype(int) + int(parts[0]), labelled.labels
        each = [((true == k) & (of_points == k)).sum() / max(1, ((true == k) | (of_points == k)).sum()) for k in parts]
        wanted[category] = np.mean(each)
    assert found["of_class"] == pytest.approx(wanted)
    assert found["class_miou"] == pytest.approx(np.mean([*wanted.values()]))
    assert 0 < found["class_miou"] < 1
    assert "sure" not in found


def test_parts_are_those_of_the_network_where_the_shapes_here_show_fewer_and_others_are_said():
    data = halves("part")
    model = MODELS["pointnet_part"](**TASKS["part"].arguments(data), **SMALL).eval()
    assert not never_answered(model, data)
    before = evaluate(model, data)
    data.parts_of = torch.zeros_like(data.parts_of)  # as of a set whose objects show none of them
    assert evaluate(model, data) == before
    data.parts_of[0, 3] = True
    part, category = data.part_names[3], data.classes[0]
    (line,) = never_answered(model, data)
    assert line.endswith(f"they count as wrong: 1, such as {part} of {category}")
    model.parts_of = None
    assert not never_answered(model, data)


def test_all_parts_may_stand_for_a_category_that_had_no_shapes():
    data, scores = halves("part"), TASKS["part"].scores
    model = MODELS["pointnet_part"](**TASKS["part"].arguments(data), **SMALL)
    model.parts_of = [[0, 1], [0, 1, 2, 3]]
    assert scores(data, "cpu", model).parts_of.tolist() == data.parts_of.tolist()
    model.parts_of = data.parts_of  # as a network of one's own may keep it
    assert scores(data, "cpu", model).parts_of.tolist() == data.parts_of.tolist()


def test_what_the_network_never_answers_is_on_stderr(own, capsys, monkeypatch):
    monkeypatch.setattr(command, "never_answered", lambda model, data: [f"of {len(data)} clouds"])
    assert command_line.main(["evaluate", str(own), "--device", "cpu"]) == 0
    assert re.search(r"^of \d+ clouds$", capsys.readouterr().err, re.M)


def test_a_class_of_a_scene_has_the_iou_of_all_its_points():
    data = halves("scene")
    model = MODELS["pointnet_scene"](**TASKS["scene"].arguments(data), **SMALL).eval()
    found = evaluate(model, data, by_class=True)
    own = data.parts[:, :32]
    with torch.no_grad():
        labels = model(data.points[:, :, :32]).argmax(1)
    wanted = {name: float(((labels == k) & (own == k)).sum() / ((labels == k) | (own == k)).sum())
              for k, name in enumerate(data.part_names)}  # fmt: skip
    assert found["of_class"] == pytest.approx(wanted)
    assert found["mean_class_iou"] == pytest.approx(np.mean([*wanted.values()]))


def clouds(channels: int = 3, size: float = 1.0) -> LabelledClouds:
    x = torch.randn(6, channels, 40, generator=torch.Generator().manual_seed(0))
    x[:, :3] -= x[:, :3].mean(2, keepdim=True)
    x[:, :3] *= size / x[:, :3].norm(dim=1).amax(1)[:, None, None]
    return LabelledClouds(x, torch.arange(6) % 3, CLASSES)


@pytest.mark.parametrize("normals", [True, False])
def test_rotated_clouds_are_rotated_about_up_with_their_normals_alone(normals):
    data, turn = clouds(6), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rotated = clouds(6)
    x = data.points
    rotated.points[:] = torch.cat([turn @ x[:, :3], turn @ x[:, 3:] if normals else x[:, 3:]], 1)
    model = trained_looking(PointNetClassifier(3, in_channels=6, **SMALL), torch.float32)
    contract = Contract(40, (*"xyz", *(("nx", "ny", "nz") if normals else "rgb")), temperature=2.0)
    found = evaluate(model, data, contract=contract, degrees=90)
    assert found == pytest.approx(evaluate(model, rotated, contract=contract), rel=1e-6)
    assert found["loss"] != pytest.approx(evaluate(model, data, contract=contract)["loss"], rel=1e-4)
    assert found["loss"] != pytest.approx(evaluate(model, data, degrees=90)["loss"], rel=1e-4)


def test_the_answers_are_a_table_and_a_line(own, capsys):
    found = scores_of(capsys, own, "--rotate", 0, 45)
    assert found["rotated"]["0"] == found["overall_accuracy"]
    assert command_line.main(["evaluate", str(own), "--device", "cpu", "--rotate", "0", "45"]) == 0
    _, heading, table, *angles, line = capsys.readouterr().out.splitlines()
    assert heading == "accuracy of each class:"
    assert table == f"pole  {found['of_class']['pole']:6.1%}   slab  {found['of_class']['slab']:6.1%}"
    assert angles == [f"rotated by {angle}°: {share:.2%} overall" for angle, share in found["rotated"].items()]
    assert line.endswith(f"24 shapes; calibration error {found['calibration_error']:.2%}, {found['sure']:.1%} sure")


@pytest.mark.parametrize(
    ("held", "data", "message"),
    [
        ({"scale": "as given"}, clouds(), "it was trained on clouds of scale 'as given'; my set has 'unit sphere'"),
        ({}, clouds(size=70), "it was trained on clouds of scale 'unit sphere'; my set has 'as given'"),
        (
            {"channels": ["x", "y", "z", "nx", "ny", "nz"]},
            clouds(),
            "it was trained on points of x, y, z, nx, ny, nz; my set has x, y, z",
        ),
        ({}, clouds(6), "it was trained on points of x, y, z; my set has x, y, z, channel 3"),
    ],
)
def test_data_that_the_model_was_not_taught_is_one_line_that_says_what(held, data, message):
    contract = Contract(32).as_json() | held
    model = described(PointNetClassifier(3, in_channels=len(contract["channels"]), **SMALL))
    model.preprocessing = contract
    with pytest.raises(ValueError, match=re.escape(f"runs/x: {message}")):
        check_taught(model, data, "runs/x", "my set")


def test_classes_of_the_data_are_those_of_the_network_in_their_order():
    model, data = described(PointNetClassifier(3, **SMALL)), clouds()
    evaluate(model, data)
    for names, which in (([*reversed(data.classes)], "they are in another order"), ("abc", "it has no 'a'")):
        other = LabelledClouds(data.points, data.labels, names)
        with pytest.raises(ValueError, match=f"the network: its classes are not those of the data: {which}"):
            evaluate(model, other)
    other = LabelledClouds(data.points, data.labels, [*reversed(data.classes)])
    other.number_as(model.classes)
    evaluate(model, other)
    own = torch.nn.Sequential(torch.nn.AdaptiveMaxPool1d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    own.classes = 3  # of a network of one's own it may be anything
    evaluate(own, data, task=TASKS["classification"])


def test_categories_are_those_of_the_data_in_their_order():
    data = halves("part")
    model = MODELS["pointnet_part"](**TASKS["part"].arguments(data), widths=[[4], [4]], head_widths=[4])
    model.classes = data.part_names
    model.preprocessing = Contract(32, (*"xyz", "channel 3"), categories=("plate", "rod")).as_json()
    data.channel_names, data.scale = (*"xyz", "channel 3"), "unit sphere"
    check_taught(model, data, "runs/x", "my set")
    model.preprocessing["categories"] = ["rod", "plate"]
    with pytest.raises(ValueError, match="runs/x: its categories are not those of my set: they are in another order"):
        check_taught(model, data, "runs/x", "my set")
    model.preprocessing["categories"] = ["plate", "rod", "slab"]
    with pytest.raises(ValueError, match="runs/x: its categories are not those of my set: those lack 'slab'"):
        check_taught(model, data, "runs/x", "my set")


def test_rooms_are_not_rotated(capsys, tmp_path):
    model = MODELS["pointnet_scene"](num_classes=3, in_channels=9, **SMALL)
    model.classes, model.preprocessing = CLASSES, {"num_points": 32}
    model.save_pretrained(tmp_path / "x")
    line = error_of(capsys, command_line.main, ["evaluate", str(tmp_path / "x"), "--rotate", "90"])
    assert "leave out --rotate" in line


def test_data_that_say_of_themselves_something_else_than_the_contract_are_refused_in_python_too():
    data = LabelledClouds(torch.randn(8, 3, 32), torch.arange(8) % len(CLASSES), CLASSES)
    data.scale = "unit sphere"
    model = trained_looking(PointNetClassifier(len(CLASSES), widths=((8,), (16,)))).float()
    model.classes = tuple(CLASSES)
    for held, said in (
        ({}, None),
        ({"note": "my own"}, None),
        (Contract(32).as_json(), None),
        (Contract(32, scale="as given").as_json(), "trained on clouds of scale 'as given'; the data has 'unit sphere'"),
    ):
        model.preprocessing = held
        with pytest.raises(ValueError, match=said) if said else nullcontext():
            assert evaluate(model, data)["count"] == 8
    data.channel_names = ("x", "z", "y")
    model.preprocessing = Contract(32).as_json()
    with pytest.raises(ValueError, match="the network: it was trained on points of x, y, z; the data has x, z, y"):
        evaluate(model, data)
