"""The contract: what training's evaluation answers for a sample, `predict` and `label_points` answer for its file."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, PointNetSegmenter, embed, load_model, predict
from pointnet.commands.evaluate import all_scores
from pointnet.datasets import LabelledClouds, LabelledPoints, MeshFolder, ShapeNetPart
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.inference.label import label_points
from pointnet.points.read import PointCloudFileError
from pointnet.training import TrainConfig, fit
from tests.forms import forms
from tests.helpers import OWN, SMALL, described, quiet, write_text

COLUMNS = "x,y,z,nx,ny,nz"
XYZ = ("x", "y", "z")


def write_clouds(root: Path, suffix: str = ".xyz", extra: int = 0, size: float = 70.0) -> Path:
    """A folder of two classes, slabs and poles of 40 to 90 points anywhere, with so many more columns."""
    generator = np.random.default_rng(0)
    for name, shape in (("slab", (1, 2, 0.1)), ("pole", (0.1, 0.2, 2))):
        (root / name).mkdir(parents=True)
        for i in range(6):
            count = int(generator.integers(40, 90))
            points = (generator.random((count, 3)) * shape + generator.normal(size=3)) * size
            more = generator.normal(size=(count, extra))
            if extra == 3:
                more /= np.linalg.norm(more, axis=1, keepdims=True)
            np.savetxt(root / name / f"{i}{suffix}", np.hstack([points, more]), fmt="%.7f")
    return root


def trained(data, out: Path, **settings):
    """The model of a run of one epoch."""
    config = TrainConfig(
        epochs=1, min_steps=1, batch_size=4, num_points=32, early_points=0, width=0.1, input_transform=False,
        feature_transform=False, val_fraction=0.25, device="cpu", out=str(out), **settings,
    )  # fmt: skip
    fit(config, data, log=quiet)
    return load_model(out)


def evaluated(model, data, i: int, category=None) -> torch.Tensor:
    """The probabilities that evaluation sees for a sample."""
    cloud = data[i][0][None]
    with torch.no_grad():
        logits = model(cloud) if category is None else model.restrict(model(cloud, category), category)
    return (logits[0] / Contract.of(model).temperature).softmax(0)


SETS = {
    "z up": ({}, 0, {"channels": XYZ, "up": None, "scale": "unit sphere"}),
    "y up": ({"up": "y"}, 0, {"up": "y"}),
    "normals": ({"normals": True}, 3, {"channels": (*XYZ, "nx", "ny", "nz")}),
    "columns by hand": ({"normals": True, "columns": "nx,ny,nz,x,y,z"}, 3, {"columns": "nx,ny,nz,x,y,z"}),
    "normals, y up": ({"up": "y", "normals": True}, 3, {"up": "y"}),
}


@pytest.mark.parametrize("name", forms(SETS, "columns by hand"))
def test_a_file_of_the_training_set_is_answered_as_in_evaluation(tmp_path, name):
    options, extra, contract = SETS[name]
    data = MeshFolder(write_clouds(tmp_path / "set", extra=extra), num_points=32, **options)
    named = {key: value for key, value in options.items() if key != "up"}
    model = trained(data, tmp_path / "run", **named)
    taught = Contract.of(model)
    assert {key: getattr(taught, key) for key in contract} == contract
    assert taught.centre
    for i, file in enumerate(data.files):
        answer = predict(file, tmp_path / "run")
        wanted = evaluated(model, data, i)
        found = torch.tensor([answer.probabilities[name] for name in model.classes])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("boxes", forms([(1, 0), (250, 0), (250, 900)], (250, 900)))
def test_arrays_are_taken_as_training_saw_them(tmp_path, boxes):
    """Boxes that differ in nothing but their size: only a network that sees units can tell them apart."""
    size, move = boxes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 3, 40, generator=generator)
    x -= x.mean(2, keepdim=True)
    x /= x.norm(dim=1).amax(1)[:, None, None]
    if size > 1:
        x *= torch.where(torch.arange(24) < 12, size, 2 * size)[:, None, None]
    data = LabelledClouds(x + move, (torch.arange(24) >= 12).long(), ["small", "large"], 32)
    model = trained(data, tmp_path / "run", scale=1.0, shift=0.0)
    taught = Contract.of(model)
    assert (taught.centre, taught.scale) == (move == 0, "unit sphere" if size == 1 else "as given")
    for i in range(24):
        whole = data.points[i].T.numpy()
        with torch.no_grad():
            wanted = model(data.points[i][None]).softmax(1)[0]
        answer = predict(whole, tmp_path / "run", num_points=40)
        found = torch.tensor([answer.probabilities[name] for name in model.classes])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def boxes(size: float = 40.0, seed: int = 0) -> LabelledClouds:
    """Small boxes, and large ones of twice to four times the size, in units that matter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(24, 3, 80, generator=generator) - 0.5
    x *= size * torch.where(torch.arange(24) < 12, 1, torch.linspace(2, 4, 24))[:, None, None]
    return LabelledClouds(x, (torch.arange(24) >= 12).long(), ["small", "large"], 32)


def test_a_cloud_in_another_unit_than_those_of_training_is_unsure(tmp_path):
    data = boxes()
    model = trained(data, tmp_path / "run")
    least, most = model.preprocessing["extents"]
    assert 35 < least < 40
    assert 140 < most < 160
    whole = data.points[0].T.numpy() / np.ptp(data.points[0].numpy(), axis=1).max()
    for size, note in [
        (0.51 * least, None),
        (1.99 * most, None),
        (
            least / 1000,
            r"extent is 0\.0\d+, 1,000 times smaller than in training \(3\S+ to 1\S+\); is the unit the same\?",
        ),
        (3 * most, r"extent is \S+, 3 times larger than in training .*"),
    ]:
        answer, found = (ask(size * whole + 7, model) for ask in (predict, embed))
        notes = [each for each in (*answer.notes, *found.notes) if "extent" in each]
        assert bool(notes) == bool(note)
        assert not notes or (len(notes) == 2 and not answer.sure)
        assert all(re.fullmatch(f"unsure: {note}", each) for each in notes)
    assert all_scores(model, boxes(0.04))["sure"] == 0
    del model.preprocessing["extents"]  # of an older folder
    assert not any("extent" in each for each in predict(whole / 1000, model).notes)


def test_objects_in_another_unit_are_said_where_their_parts_are_labelled(tmp_path):
    clouds = boxes()
    stored = torch.cat([clouds.points, (clouds.points[:, 2:] > 0).float()], 1)
    data = LabelledPoints(stored, clouds.labels, clouds.classes, ["low", "high"], num_points=32)
    model, whole = trained(data, tmp_path / "run", task="part"), clouds.points[0].T.numpy()
    said, none = (label_points(size * whole, model, category="small").notes for size in (1e-3, 1))
    assert [note for note in said if "times smaller than in training" in note]
    assert not [note for note in none if "than in training" in note]


def test_a_set_in_another_unit_is_a_line_and_the_unit_sphere_needs_none():
    contract = contract_of_data(boxes(), num_points=32)
    assert contract.lines_on_clouds(boxes(seed=1), "test") == []
    (line,) = contract.lines_on_clouds(boxes(40_000), "test")
    assert re.fullmatch(
        r"test: extents are \S+ to \S+, 1,0\d\d times larger than in training .*; is the unit the same\?", line
    )
    sphere = boxes()
    sphere.points[:] /= sphere.points.norm(dim=1).amax(1)[:, None, None]
    sphere.points[:] -= sphere.points.mean(2, keepdim=True)
    assert contract_of_data(sphere, num_points=32).extents is None
    sphere.points[:] *= 0
    assert contract.lines_on_clouds(sphere, "test") == []


def test_what_the_caller_says_counts_before_what_the_numbers_tell():
    x = torch.randn(4, 6, 40)
    data = LabelledClouds(x / x.norm(dim=1).amax(1)[:, None, None], torch.tensor([0, 1, 0, 1]), ["a", "b"])
    told = contract_of_data(data, num_points=40)
    assert told.channels == (*XYZ, "channel 3", "channel 4", "channel 5")
    data.channel_names, data.scale, data.up = (*XYZ, "r", "g", "b"), "as given", "y"
    with_colors = LabelledClouds(data.points.clamp(0, 1), data.labels, data.classes)
    with_colors.channel_names, with_colors.scale, with_colors.up = data.channel_names, data.scale, data.up
    said = contract_of_data(with_colors, num_points=40)
    assert (said.channels, said.scale, said.up) == ((*XYZ, "r", "g", "b"), "as given", "y")
    assert said.features == ("colors",)
    with pytest.raises(ValueError, match=r"colours must be in \[0, 1\], as files give them, got -"):
        contract_of_data(data, num_points=40)
    data.channel_names = XYZ
    with pytest.raises(ValueError, match="channel_names must name 6 channels, got x, y, z"):
        contract_of_data(data, num_points=40)


def test_a_part_of_a_file_of_the_training_set_is_labelled_as_in_evaluation(tmp_path):
    write_text(tmp_path, OWN, {"Tree": [0, 1], "Park bench": [0, 1, 2]}, sizes=(40, 30, 64))
    data = ShapeNetPart(tmp_path, "train", num_points=64)
    model = trained(ShapeNetPart(tmp_path, "trainval", num_points=32), tmp_path / "run", task="part")
    assert Contract.of(model).up == "y"
    assert Contract.of(model).needs_category
    (folder,) = tmp_path.glob("shapenetcore*")
    for seed, synset in enumerate(OWN):
        category = torch.tensor([data.classes.index(OWN[synset])])
        file = folder / synset / f"train{seed}.txt"
        found = label_points(file, tmp_path / "run", category=OWN[synset])
        own = np.loadtxt(file)[:, :3]
        turned = own[:, [0, 2, 1]] * (1, -1, 1)
        centred = turned - turned.mean(0)
        seen = torch.from_numpy((centred / np.linalg.norm(centred, axis=1).max()).T.astype(np.float32))[None]
        with torch.no_grad():
            wanted = model.restrict(model(seen, category), category)[0].softmax(0)
        assert (found.labels == wanted.argmax(0).numpy()).mean() > 0.99
        np.testing.assert_allclose(found.probability, wanted.amax(0).numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="the model needs each object's category; give --category, one of Tree"):
        label_points(file, tmp_path / "run")


@pytest.mark.parametrize(
    ("held", "implied"),
    [
        ({"frame": "z up, right-handed", "normalization": "centred, in the unit sphere", "normals": False}, {}),
        ({"categories": ["chair", "table"], "normals": False}, {"categories": ("chair", "table")}),
        ({}, {"channels": XYZ, "centre": True, "scale": "unit sphere", "temperature": 1.0, "needs_category": False}),
    ],
)
def test_an_older_folder_has_the_contract_that_it_implied(held, implied):
    model = described(PointNetClassifier(3, **SMALL))
    model.preprocessing = {"num_points": 32, **held}
    contract = Contract.of(model)
    assert contract == Contract(**{"num_points": 32, "channels": XYZ, **implied})
    model.preprocessing = contract.as_json()
    assert Contract.of(model) == contract
    rooms = PointNetSegmenter(3, **SMALL)
    rooms.preprocessing = {"num_points": 64}
    assert Contract.of(rooms).scale == "blocks of a metre"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": [*XYZ, "r", "g", "b"]}, "has no colours, which the model was trained with"),
        ({"channels": [*XYZ, "nx", "ny", "nz"]}, "has no normals, which the model was trained with"),
        ({"channels": [*XYZ, "a", "b", "c"]}, "the model was trained on a channel 'a', which no file gives"),
    ],
)
def test_a_contract_that_a_file_cannot_meet_is_one_line_that_names_what_is_missing(tmp_path, change, message):
    np.savetxt(tmp_path / "a.xyz", np.random.default_rng(0).random((50, 3)))
    model = described(PointNetClassifier(3, in_channels=6, **SMALL))
    model.preprocessing = Contract(32).as_json() | change
    with pytest.raises(PointCloudFileError, match=f"a.xyz: {message}"):
        predict(tmp_path / "a.xyz", model)


@pytest.mark.parametrize(
    ("rotations", "words"),
    [(0.0, "facing as its training set does"), (45.0, "set does within 45°"), (180.0, "facing any way about up")],
)
def test_a_contract_says_how_clouds_faced(rotations, words):
    assert str(Contract(10, rotations=rotations)).endswith(words)


def moved(data: LabelledClouds, by: float) -> LabelledClouds:
    points = data.points + torch.tensor([by, 0, 0])[None, :, None]
    return LabelledClouds(points, data.labels, data.classes, data.num_points)


def test_a_cloud_elsewhere_than_those_of_training_is_unsure_where_they_were_not_centred(tmp_path):
    data = boxes()
    model = trained(data, tmp_path / "run")
    assert model.preprocessing["centre"] is False
    assert 0 < model.preprocessing["reach"] < 20
    whole = data.points[0].T.numpy()
    for by, note in [
        (200.0, None),
        (3000.0, r"unsure: it lies 3,?\S+ from the origin, in training at most \S+; is .*"),
    ]:
        answer, found = (ask(whole + np.array([by, 0, 0]), model) for ask in (predict, embed))
        notes = [each for each in (*answer.notes, *found.notes) if "origin" in each]
        assert len(notes) == (2 if note else 0)
        assert note is None or (not answer.sure and all(re.fullmatch(note, each) for each in notes))
        assert not any("--up" in each for each in answer.notes)
    assert all_scores(model, moved(data, 3000.0))["sure"] == 0
    contract = Contract.of(model)
    (line,) = contract.lines_on_clouds(moved(data, 3000.0), "test")
    assert line.startswith("test: it lies 3")
    assert contract.lines_on_clouds(moved(data, 200.0), "test") == []
    del model.preprocessing["reach"]  # of an older folder
    assert not any("origin" in each for each in predict(whole + np.array([3000.0, 0, 0]), model).notes)


def test_of_centred_clouds_the_place_is_not_measured():
    data = boxes()
    centred = LabelledClouds(data.points - data.points.mean(2, keepdim=True), data.labels, data.classes, 32)
    contract = contract_of_data(centred, num_points=32)
    assert (contract.centre, contract.reach) == (True, None)
    assert contract.lines_on_clouds(moved(centred, 3000.0), "test") == []
