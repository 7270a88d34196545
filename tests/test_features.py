"""Normals, colours and intensity as channels: chosen by --features, to predict exactly what they were in training."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from pointnet import PointNetClassifier, load_model, predict
from pointnet import __main__ as command_line
from pointnet.datasets import LabelledClouds, MeshFolder, SceneFolder, open_dataset
from pointnet.datasets.lines import lines_on_unused
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.evaluation.evaluate import check_taught, evaluate
from pointnet.inference.judge import Opinion, Trust
from pointnet.points.features import FARTHEST, feature_names, intensity_range, scaled_intensity
from pointnet.points.read import PointCloud, PointCloudFileError, read_cloud
from pointnet.training import TrainConfig, fit
from pointnet.training.augment import augment
from pointnet.training.run_folder import read_settings
from pointnet.training.settings import Augmentation
from tests.forms import forms
from tests.helpers import QUICK, SMALL, described, error_of, quiet, tiny
from tests.own_points import make_yard, save

ALL = ("x", "y", "z", "nx", "ny", "nz", "r", "g", "b", "intensity")


def write_tables(root: Path, features="normals,rgb,intensity", count: int = 6, size: int = 80) -> Path:
    """`root/<class>/*.csv` with names of columns: classes dark and bright, which differ in intensity alone."""
    generator = np.random.default_rng(0)
    names = [name for name in ALL if name in ALL[:3] + tuple(c for f in feature_names(features) for c in OF[f])]
    for level, kind in enumerate(("dark", "bright")):
        (root / kind).mkdir(parents=True)
        for i in range(count):
            normals = generator.normal(size=(size, 3))
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            intensity = 3000 + 1000 * level + generator.integers(0, 300, (size, 1))
            rows = np.hstack([generator.normal(size=(size, 3)), normals, generator.random((size, 3)), intensity])
            kept = rows[:, [ALL.index(name) for name in names]]
            np.savetxt(root / kind / f"{i}.csv", kept, "%.6f", ",", header=",".join(names), comments="")
    return root


OF = {"normals": ALL[3:6], "colors": ALL[6:9], "intensity": ALL[9:]}


@pytest.mark.parametrize(
    "words", ["intensity,normals,rgb", "rgb , normals,intensity,rgb", ["colors", "intensity", "normals"]]
)
def test_features_have_one_order_however_they_are_typed(tmp_path, words):
    assert feature_names(words) == ("normals", "colors", "intensity")
    text = words if isinstance(words, str) else ",".join(words)
    assert TrainConfig(features=text).features == "normals,rgb,intensity"
    assert feature_names("rgb", normals=True) == ("normals", "colors")
    assert feature_names("") == feature_names(()) == ()
    with pytest.raises(ValueError, match="no feature 'rbg'; did you mean 'rgb'"):
        TrainConfig(features="rbg")
    assert MeshFolder(write_tables(tmp_path), num_points=8, features=words).channel_names == ALL


def test_normals_is_short_for_the_feature_in_old_settings_too(tmp_path):
    (tmp_path / "config.yaml").write_text("dataset: folder\nnormals: true\n")
    root = write_tables(tmp_path / "set", "normals")
    contracts = []
    for config in (read_settings(tmp_path / "config.yaml")[0], TrainConfig(dataset="folder", features="normals")):
        data = open_dataset("folder", root, "train", **config.opening)
        contracts.append(contract_of_data(data, num_points=8))
    assert contracts[0] == contracts[1]
    assert contracts[0].channels == ALL[:6]


@pytest.mark.parametrize(
    "features", forms(["rgb", "intensity", "normals,intensity", "normals,rgb,intensity"], "normals,intensity")
)
def test_a_file_is_to_predict_what_it_was_in_training(tmp_path, features):
    data = MeshFolder(write_tables(tmp_path / "set"), num_points=32, features=features)
    fit(tiny(tmp_path / "run", epochs=1), data, log=quiet)
    model, contract = load_model(tmp_path / "run"), Contract.of(load_model(tmp_path / "run"))
    assert contract.channels == ALL[:3] + tuple(name for f in feature_names(features) for name in OF[f])
    assert (contract.intensity is None) == ("intensity" not in features)
    for i, file in enumerate(data.files):
        with torch.no_grad():
            logits = model(data[i][0][None])[0]
        wanted = (logits / contract.temperature).softmax(0)
        answer = predict(file, model)
        found = torch.tensor([answer.probabilities[name] for name in model.classes])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        assert not [note for note in answer.notes if "intensity" in note]


def test_intensity_has_the_scale_of_the_training_split_in_every_split(tmp_path):
    root = write_tables(tmp_path)
    train, test = (MeshFolder(root, split, 32, features="rgb,intensity") for split in ("train", "test"))
    assert train.intensity == test.intensity
    raw = train._stored[train._rows, 6]
    assert 3000 <= raw.min() <= raw.max() < 4300
    assert train.intensity == intensity_range(raw.numpy())
    scaled = train.points[:, 6]
    assert torch.equal(scaled, scaled_intensity(raw, train.intensity))
    assert ((scaled >= 0) & (scaled <= 1)).double().mean() > 0.97
    assert torch.equal(train.batch(torch.tensor([3]))[0][0], train.points[3])
    assert torch.equal(train[3][0], train.points[3, :, :32])
    assert torch.equal(train.subset(torch.tensor([3])).points[0], train.points[3])
    other = MeshFolder(root, "test", 32, features="rgb,intensity", intensity=(0, 1000))
    torch.testing.assert_close(other.points[:, 6], test._stored[test._rows, 6] / 1000)
    fit(tiny(tmp_path / "run", epochs=1), train, log=quiet)
    check_taught(load_model(tmp_path / "run"), test, "run", "the set")
    with pytest.raises(ValueError, match=r"run: its intensity is scaled by \(3\d\d\d"):
        check_taught(load_model(tmp_path / "run"), other, "run", "the set")


def test_the_ends_of_intensity_are_those_of_most_points():
    values = np.random.default_rng(0).random((50, 300), np.float32) * 255
    values[7, :20] = 4e9  # a scanner's mistake
    low, high = intensity_range(values)
    assert 0 < low < 10 < 240 < high < 255
    assert float(scaled_intensity(values, (low, high)).max()) == FARTHEST
    rare = np.zeros((50, 300), np.float32)
    rare[3, 5] = 7
    assert intensity_range(rare) == (0, 7)
    assert intensity_range(rare[:3] + 5) == (5, 6)


def test_intensity_that_tells_nothing_is_said(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for i in range(2):
            rows = np.hstack([np.random.default_rng([ord(kind), i]).random((40, 3)), np.full((40, 1), 7.5)])
            np.savetxt(tmp_path / kind / f"{i}.csv", rows, delimiter=",", header="x,y,z,intensity", comments="")
    data = MeshFolder(tmp_path, num_points=16, features="intensity")
    assert data.notes == ["intensity is 7.5 at every point of the training split: it tells nothing"]


def test_what_points_have_and_a_set_does_not_take_is_said_with_the_flag_that_takes_it(tmp_path):
    root = write_tables(tmp_path / "set")
    words = ("normals", "rgb", "intensity")
    for taken in ([], ["normals", "intensity"], [*words]):
        data = MeshFolder(root, num_points=32, features=",".join(taken))
        kinds = " and ".join({"rgb": "colours"}.get(word, word) for word in words if word not in taken)
        (line,) = [line for line in data.notes if line.startswith("not used: ")] or [""]
        wanted = rf"not used: {kinds} of points, such as in \S+; --features normals,rgb,intensity uses them"
        assert re.fullmatch(wanted if kinds else "", line), line
    assert not any("not used" in line for line in MeshFolder(root, "test", 32).notes)
    trimesh.creation.icosphere().export(tmp_path / "mesh.ply", vertex_normal=True)
    assert read_cloud(tmp_path / "mesh.ply", vertices=True).normals is not None
    meshes = [tmp_path / "mesh.ply"]
    assert lines_on_unused(meshes, (), (), tmp_path) == [], "normals of a mesh follow from its faces"
    np.savez(tmp_path / "none.npz", points=np.random.default_rng(0).random((50, 3)), normals=np.full((50, 3), np.nan))
    assert lines_on_unused([tmp_path / "none.npz"], (), (), tmp_path) == []
    grey = trimesh.creation.box()
    grey.visual.vertex_colors = (9, 9, 9, 255)
    grey.export(tmp_path / "mesh.ply")
    assert lines_on_unused(meshes, (), (), tmp_path) == [], "one colour tells nothing"
    grey.visual.vertex_colors[0] = (200, 9, 9, 255)
    grey.export(tmp_path / "mesh.ply")
    assert lines_on_unused(meshes, (), (), tmp_path) == [
        "not used: colours of points, such as in mesh.ply; --features rgb uses them"
    ]


def test_augmentation_moves_normals_with_the_points_and_leaves_the_rest_alone():
    x = torch.randn(4, 10, 20)
    x[:, 3:6] = torch.nn.functional.normalize(x[:, :3], dim=1)
    settings = Augmentation(scale=1.0, rotate=180.0, mirror=True, shift=0.0)
    moved = augment(x, settings, True, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved[:, 3:6], torch.nn.functional.normalize(moved[:, :3], dim=1))
    assert (moved[:, :2] - x[:, :2]).abs().amax() > 0.1
    assert torch.equal(moved[:, 6:], x[:, 6:])
    colours = torch.cat([x[:, :3], x[:, 6:9]], 1)
    every = Augmentation(rotate=180.0, mirror=True, jitter=0.1)
    assert torch.equal(augment(colours, every, False, torch.Generator().manual_seed(0))[:, 3:], colours[:, 3:])


def test_colours_are_not_rotated_by_votes(tmp_path):
    data = MeshFolder(write_tables(tmp_path / "set"), num_points=32, features="rgb")
    fit(tiny(tmp_path / "run", epochs=1), data, log=quiet)
    model, seen = load_model(tmp_path / "run"), []
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    evaluate(model, data.subset(torch.tensor([0])), votes=3)
    assert len(seen) == 3
    assert (seen[0] - seen[1])[:, :2].abs().max() > 0.1
    assert torch.equal(seen[0][:, 3:], seen[1][:, 3:])


def test_what_a_file_or_a_set_lacks_is_one_line_that_names_it(tmp_path, capsys):
    root = write_tables(tmp_path / "set", "rgb,intensity")
    write_tables(tmp_path / "bare", "rgb", count=1)
    (tmp_path / "bare" / "dark" / "0.csv").rename(root / "dark" / "bare.csv")
    rows = np.random.default_rng(0).random((40, 7))
    rows[7, 6] = np.nan
    np.savetxt(root / "dark" / "nan.csv", rows, delimiter=",", header="x,y,z,r,g,b,intensity", comments="")
    data = MeshFolder(root, num_points=32, features="intensity", test_fraction=0)
    assert [str(error) for error in data.bad] == [
        f"{root}/dark/bare.csv: has no intensity",
        f"{root}/dark/nan.csv: has intensity that is not finite at 2.5% of its points; leave these points out",
    ]
    fit(tiny(tmp_path / "run", epochs=1), data, log=quiet)
    with pytest.raises(PointCloudFileError, match=r"bare.csv: has no intensity, which the model was trained with"):
        predict(root / "dark" / "bare.csv", tmp_path / "run")
    for dataset, words, message in (
        ("shapes", "rgb", "the data set shapes has no rgb"),
        ("modelnet40", "normals,intensity", "the data set modelnet40 has no intensity"),
        ("s3dis", "rgb", "the data set s3dis has no rgb to choose: its nine channels are its own"),
        ("shapenetpart", "rgb", "the data set shapenetpart has no rgb"),
    ):
        task = {"s3dis": "scene", "shapenetpart": "part"}.get(dataset, "classification")
        given = ["train", "--task", task, "--dataset", dataset, "--features", words, "--root", str(tmp_path)]
        assert message in error_of(capsys, command_line.main, given)


def test_a_file_of_another_scale_of_intensity_is_said(tmp_path):
    data = MeshFolder(write_tables(tmp_path / "set"), num_points=32, features="intensity")
    fit(tiny(tmp_path / "run", epochs=1), data, log=quiet)
    rows = np.hstack([np.random.default_rng(0).random((90, 3)), np.linspace(0, 255, 90)[:, None]])
    found = predict(rows, tmp_path / "run")
    assert not found.sure
    assert [note for note in found.notes if note.startswith("unsure: intensity is 0 to 255, and was 30")]
    contract = Contract.of(load_model(tmp_path / "run"))
    assert "with intensity (30" in str(contract)
    assert contract.unlike_channels(data.points[0].numpy()) is None
    far = data.points[0].numpy() + np.float32([[0], [0], [0], [2]])
    assert contract.unlike_channels(far).startswith("intensity is ")


def test_colours_far_darker_or_brighter_than_in_training_are_said(tmp_path):
    data = MeshFolder(write_tables(tmp_path / "set"), num_points=32, features="rgb")
    fit(tiny(tmp_path / "run", epochs=1), data, log=quiet)
    model, generator = load_model(tmp_path / "run"), np.random.default_rng(0)
    dark, bright = Contract.of(model).colors
    assert 0.4 < dark < bright < 0.6
    points, colors = generator.random((90, 3)), generator.random((90, 3))
    for light, how in ((colors, None), (colors / 4, "darker"), (1 - colors / 4, "brighter"), (colors / 1.5, None)):
        found = predict(np.hstack([points, light]), model)
        notes = [note for note in found.notes if "colour" in note]
        said = rf"unsure: the mean colour is \S+ of 1, {how} than in training \({dark:.2g} to {bright:.2g}\)"
        assert len(notes) == (how is not None)
        assert all(re.fullmatch(said, note) for note in notes)
        clouds = data.points.clone()
        clouds[0, 3:] = torch.from_numpy(light.mean(keepdims=True)).float()
        other = LabelledClouds(clouds, data.labels, data.classes)
        other.channel_names, other.scale = data.channel_names, data.scale
        lines = Contract.of(model).lines_on_clouds(other, "test")
        assert [line.split(" than ")[0].split(", ")[1] for line in lines] == ([how] if how else [])
    day, night = data.points[:1], data.points[:1].clone()
    night[:, 3:] /= 4
    sure = Opinion([0.99, 0.01], (), 0.0)
    for cloud, wanted in ((day, True), (night, False)):  # as `evaluate` counts them
        trust = Trust(SimpleNamespace(contract=Contract.of(model), opinions_of=lambda *batch: [sure]))
        trust.look(cloud, torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1))
        assert trust.sure == [wanted]
    older = Contract.of(model)
    assert dataclasses.replace(older, colors=None).notes_of(PointCloud(points, None, colors / 9, None)) == ()
    assert contract_of_data(MeshFolder(tmp_path / "set", num_points=32), num_points=32).colors is None


@pytest.mark.parametrize("light", [1.0, 0.1])
def test_a_scene_in_another_light_is_said(tmp_path, light):
    """The mean of all blocks of a scene, of which one may be dark."""
    for i in range(2):
        yard, colors = make_yard(i, 3000), np.random.default_rng(i).random((3000, 3))
        colors[yard[:, 0] < 1001] /= 4
        save(
            tmp_path / f"{i}.txt",
            np.column_stack([yard[:, :3], np.rint(255 * colors), yard[:, 4]]),
            "x y z r g b label",
        )
    data = SceneFolder(tmp_path, num_points=64, features="rgb", block=2.0, test_fraction=0)
    contract = contract_of_data(data, num_points=64)
    dark, bright = contract.colors
    assert 0.25 < dark < bright < 0.5
    notes = contract.notes_of(PointCloud(yard[:, :3], None, light * colors, None))
    said = [note for note in notes if "colour" in note]
    assert len(said) == (light < 1)
    wanted = rf"the mean colour is 0\.04\S* of 1, darker than in training \({dark:.2g} to {bright:.2g}\)"
    assert all(re.fullmatch(wanted, note) for note in said)


@pytest.mark.slow
def test_two_classes_that_differ_by_intensity_alone_are_told_apart(tmp_path, capsys):
    root, new = write_tables(tmp_path / "set", count=16), write_tables(tmp_path / "new", count=3)
    out = tmp_path / "run"
    learn = [*QUICK, "--epochs", "12", "--lr", "0.01", "--batch_size", "6", "--val_fraction", "0.25"]
    given = ["--dataset", "folder", "--root", str(root), "--features", "intensity", *learn, "--out", str(out)]
    assert command_line.main(["train", *given]) == 0
    assert json.loads((out / "result.json").read_text())["test"]["overall_accuracy"] == 1.0
    capsys.readouterr()
    assert command_line.main(["evaluate", str(out), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overall_accuracy"] == 1.0
    assert command_line.main(["predict", str(new), "--model", str(out), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [Path(each["file"]).parent.name == each["class"] for each in answers] == [True] * 6
    assert command_line.main(["report", str(out), "--device", "cpu"]) == 0
    assert "with intensity" in (out / "report" / "index.html").read_text(encoding="utf-8")


def test_points_become_what_the_page_on_exported_networks_says():
    model = described(PointNetClassifier(3, in_channels=len(ALL), **SMALL), num_points=300)
    contract = {"channels": ALL, "intensity": (100.0, 500.0), "num_points": 300}
    model.preprocessing = Contract.of(described(PointNetClassifier(3, **SMALL))).as_json() | contract
    generator = np.random.default_rng(0)
    points, normals = generator.normal(size=(300, 3)) + 5, generator.normal(size=(300, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors, intensity = generator.random((300, 3)), generator.uniform(0, 9000, (300, 1))
    found = predict(np.hstack([points, normals, colors, intensity]), model)
    moved = points - points.mean(0)
    moved /= np.linalg.norm(moved, axis=1).max()
    low, high = contract["intensity"]
    rows = np.hstack([moved, normals, colors, ((intensity - low) / (high - low)).clip(-10, 10)])
    with torch.no_grad():
        wanted = model(torch.from_numpy(rows.T[None].astype(np.float32)))[0].softmax(0)
    torch.testing.assert_close(
        torch.tensor([found.probabilities[name] for name in model.classes]), wanted, atol=1e-4, rtol=0
    )
