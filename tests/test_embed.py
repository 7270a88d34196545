"""Features of files and arrays: embed() and python -m pointnet embed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointnet import PointNetClassifier, PointNetSegmenter, embed, load_model, predict
from pointnet import __main__ as command_line
from pointnet.datasets import read_points
from pointnet.models import PointNetEmbedder
from tests.helpers import SAMPLES, described, error_of

FILES = f"{SAMPLES}/files"
MODEL = "pointnet_modelnet40"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return described(PointNetClassifier(3, widths=((8,), (16, 24)), head_widths=(12, 6), input_transform=False))


def test_the_features_are_those_that_the_logits_are_made_of(model):
    cloud = np.random.default_rng(0).normal(size=(40, 3))
    found = embed(cloud, model, num_points=40)
    assert (found.file, found.feature.shape, found.hidden.shape) == (None, (24,), (6,))
    unit = cloud - cloud.mean(0)
    x = torch.from_numpy((unit / np.linalg.norm(unit, axis=1).max()).T[None]).float()
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found.feature), model.encoder(x)[0], rtol=1e-4, atol=1e-5)
        logits = model.logits(torch.from_numpy(found.hidden))
        torch.testing.assert_close(logits, model(x)[0], rtol=1e-4, atol=1e-5)
    several = embed([cloud, 2 * cloud + 5], model, num_points=40)
    np.testing.assert_allclose(several[1].feature, found.feature, atol=1e-4)  # moved and scaled: the same cloud


def test_an_encoder_alone_has_features_and_a_network_of_scenes_has_none_of_whole_clouds(model):
    alone = PointNetEmbedder(widths=((8,), (16, 24)), input_transform=False)
    alone.preprocessing = dict(model.preprocessing)
    assert embed(np.eye(3), alone.eval()).hidden.shape == (0,)
    scenes = PointNetSegmenter(3, 3, widths=((8,), (16,)))
    scenes.preprocessing = {"num_points": 9, "channels": ["x", "y", "z"], "scale": "blocks", "block": 2.0}
    with pytest.raises(ValueError, match="a network of scenes sees blocks of them, so it has no feature of a whole"):
        embed(np.random.default_rng(0).random((20, 3)), scenes.eval())
    with pytest.raises(ValueError, match="a Linear has no encoder whose features could be taken"):
        embed(np.eye(3), torch.nn.Linear(3, 3))


def test_the_command_writes_one_npz_and_reports_what_it_cannot_read(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "broken.off").write_text("OFF")
    out = tmp_path / "new" / "emb.npz"
    np.savetxt(tmp_path / "holes.xyz", np.vstack([np.random.default_rng(0).normal(size=(500, 3)), [[np.nan] * 3]]))
    given = [FILES, str(tmp_path / "holes.xyz"), str(tmp_path / "broken.off")]
    words = ["embed", *given, "--model", str(tmp_path / "run"), "--out", str(out)]
    assert command_line.main(words) == 1
    printed = capsys.readouterr()
    assert "broken.off: " in printed.err
    assert f"wrote {out}: files (" in printed.out
    with np.load(out) as held:
        files, feature, hidden = held["files"], held["feature"], held["hidden"]
        assert str(held["model"]) == str(tmp_path / "run")
        (noted,) = (notes for file, notes in zip(files, held["notes"], strict=True) if file.endswith("holes.xyz"))
        assert "1 row that is not finite left out" in noted
    assert (feature.shape, hidden.shape) == ((len(files), 24), (len(files), 6))
    again = embed(files[0], load_model(tmp_path / "run"))
    np.testing.assert_allclose(again.feature, feature[0], atol=1e-5)
    assert len({tuple(row) for row in feature.round(4).tolist()}) == len(files)
    line = error_of(capsys, command_line.main, ["embed", FILES, "--out", str(tmp_path / "x.npy")])
    assert line.endswith("x.npy: --out must end in .npz")
    assert command_line.main(["embed", str(tmp_path / "broken.off"), "--out", str(tmp_path / "x.npz")]) == 2
    assert "x.npz: not written: no file could be read" in capsys.readouterr().err


def test_what_makes_predict_unsure_is_said_of_features_too():
    chair = read_points(Path(FILES) / "chair.off", 1024)
    far = chair.max(0) + 9 * np.ptp(chair)
    noise = np.random.default_rng(0).uniform(-1, 1, (1024, 3))
    clouds = [chair, np.vstack([chair, far]), noise, np.resize(chair[:9], (1024, 3))]
    of_features = [found.notes for found in embed(clouds, MODEL)]
    assert of_features[0] == ()
    assert of_features[1] == (f"unsure: {stray_said(chair, far)}",)
    assert "its points fill space, as noise does" in of_features[2][0]
    assert of_features[3] == ("unsure: only 9 different points",)
    for notes, found in zip(of_features, predict(clouds, MODEL, up="z"), strict=True):
        assert notes == tuple(note.removesuffix("; no class has a probability of 50 %") for note in found.notes)


def test_clouds_of_more_points_than_in_training_get_the_doubts_of_predict():
    files = [f"{SAMPLES}/ModelNet40/{name}" for name in ("chair/train/chair_0004.off", "lamp/test/lamp_0005.off")]
    for answers in (embed(files, MODEL, num_points=4096), predict(files, MODEL, num_points=4096)):
        # Of all 4,096 points: none, and "its points are crowded in few places".
        assert [found.notes for found in answers] == [("unsure: its points fill space, as noise does",), ()]


def stray_said(points: np.ndarray, far: np.ndarray) -> str:
    middle = np.median(np.vstack([points, far]), axis=0)
    times = np.linalg.norm(far - middle) / np.linalg.norm(points - middle, axis=1).max()
    return f"1 of 1,025 points is {times:.1f} times as far out as all others and sets the scale"


def test_an_encoder_alone_says_stray_points_and_marks_no_unusual_inputs(model):
    alone = PointNetEmbedder(widths=((8,), (16, 24)), input_transform=False)
    alone.preprocessing = dict(model.preprocessing)
    generator = np.random.default_rng(0)
    near, noise = np.vstack([generator.normal(size=(300, 3)), [[50, 0, 0]]]), generator.uniform(-1, 1, (300, 3))
    strays, none = (found.notes for found in embed([near, noise], alone.eval()))
    assert strays[0].startswith("unsure: 1 of 301 points is ")
    assert none == ()
    assert embed(near, model).notes == strays
