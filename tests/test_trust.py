"""How far an answer can be trusted: calibration, what is unusual about a cloud, and what `predict` says of it."""

import json

import numpy as np
import pytest
import torch
import trimesh

from benchmarks import trust as benchmark
from pointnet import __main__ as command_line
from pointnet import load_model, predict
from pointnet.datasets import LabelledClouds
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import (
    SHARES,
    UNUSUAL,
    Familiar,
    best_temperature,
    calibration_error,
    limits_of,
    measure_trust,
    measures,
)
from pointnet.inference.inputs import Reading
from pointnet.inference.judge import Judge, Opinion, Rival
from pointnet.inference.predict import Seen, answer, predict_each
from pointnet.training import TrainConfig, fit
from tests.helpers import quiet, tiny

NAMES = list(UNUSUAL)


def shell(count: int, generator: np.random.Generator, stretch=(1.0, 1.0, 1.0)) -> np.ndarray:
    points = generator.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * stretch


def solids(per_class: int = 80, points: int = 256) -> LabelledClouds:
    """Discs and rods, hollow, in the unit sphere, each of another stretch."""
    generator = np.random.default_rng(0)
    clouds = []
    for stretch in ((1, 1, 0.3), (0.3, 0.3, 1)):
        for _ in range(per_class):
            cloud = shell(points, generator, np.array(stretch) * generator.uniform(0.7, 1.3, 3))
            cloud -= cloud.mean(0)
            clouds.append(cloud.T / np.linalg.norm(cloud, axis=1).max())
    x = torch.tensor(np.array(clouds), dtype=torch.float32)
    return LabelledClouds(x, torch.arange(2).repeat_interleave(per_class), ["disc", "rod"])


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run on solids, whose validation split is large enough to tell what is usual."""
    out = tmp_path_factory.mktemp("runs") / "solids"
    config = TrainConfig(
        epochs=6, batch_size=16, num_points=256, early_points=0, width=0.1, input_transform=False,
        feature_transform=False, val_fraction=0.3, device="cpu", out=str(out),
    )  # fmt: skip
    fit(config, solids(), log=quiet)
    return out


def test_the_temperature_undoes_what_logits_were_multiplied_by():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    for factor in (0.5, 1.0, 3.0):
        assert best_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.06)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    confidence = torch.tensor([0.9] * 10 + [0.6] * 30)
    right = torch.tensor([True] * 7 + [False] * 3 + [True] * 18 + [False] * 12)
    assert calibration_error(confidence, right) == pytest.approx(0.25 * 0.2 + 0.75 * 0.0)
    assert calibration_error(torch.ones(4), torch.tensor([True, True, True, False])) == pytest.approx(0.25)
    assert calibration_error(torch.zeros(4), torch.tensor([False] * 4)) == 0


def measured(points: np.ndarray) -> dict[str, float]:
    x = torch.tensor(points.T[None], dtype=torch.float32)
    values = measures(
        x, torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double(), torch.eye(2).double()
    )
    return dict(zip(NAMES, values[0].tolist(), strict=True))


def test_what_is_measured_of_a_cloud_is_by_hand_and_without_scale():
    generator = np.random.default_rng(0)
    surface, noise = measured(shell(1024, generator)), measured(generator.normal(size=(1024, 3)))
    plane = measured(np.c_[generator.random((1024, 2)), np.zeros(1024)])
    line = measured(np.outer(generator.random(1024), [1, 2, 3]))
    spots = measured(generator.normal(size=(1024, 3)) * 1e-3 + generator.integers(0, 2, (1024, 3)))
    assert surface["distance"] == pytest.approx(2)
    assert surface["energy"] == pytest.approx(-np.log(np.exp(1) + np.exp(3)))
    assert surface["filled"] < 0.1 < 0.4 < noise["filled"]
    assert plane["flat"] == pytest.approx(0, abs=1e-6)
    assert plane["thin"] < -0.5
    assert line["thin"] == pytest.approx(0, abs=1e-6)
    assert spots["dense"] > 5 * surface["dense"]
    for points in (generator.normal(size=(300, 3)), shell(300, generator)):
        assert measured(points * 1000) == pytest.approx(measured(points), rel=1e-3)
    few = measured(np.eye(3).repeat(100, 0))
    assert few["dense"] == few["filled"] == 0


def test_limits_keep_all_but_a_twentieth_and_weigh_each_measure_by_its_share():
    values = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 7)
    limits = limits_of(values)
    beyond = values > limits
    assert 0.95 <= (~beyond).all(1).double().mean() < 0.953
    counts = beyond.sum(0)
    assert counts.tolist() == (counts[0] * SHARES).long().tolist()
    assert counts.min() > 0
    assert (limits_of(values[:3]) == values[:3].amax(0)).all()


def test_training_measures_trust_and_the_folder_keeps_it(taught):
    contract = Contract.of(load_model(taught))
    assert contract.temperature != 1
    familiar = Familiar.from_json(json.loads(json.dumps(contract.familiar)))
    assert familiar.means.shape == familiar.precision.shape == (2, 2)
    generator = np.random.default_rng(9)
    stretches = [(1, 0.9, 0.3), (0.3, 0.3, 1.1)] * 10
    answers = predict([shell(256, generator, each) for each in stretches], taught, up="z")
    assert [answer.class_name for answer in answers] == ["disc", "rod"] * 10
    assert all(answer.sure != bool(answer.notes) for answer in answers)
    assert sum(answer.sure for answer in answers) >= 16


@pytest.mark.parametrize(
    ("junk", "reason"),
    [
        (
            lambda generator: np.c_[generator.random((400, 2)), np.zeros(400)],
            "flatter than nearly all shapes of the training set",
        ),
        (
            lambda generator: np.outer(generator.random(400), [1, 2, 3]) + generator.normal(0, 0.001, (400, 3)),
            "thinner than nearly all shapes of the training set",
        ),
        (lambda generator: np.outer(generator.random(400), [1, 2, 3]), "all points are on one line"),
        (lambda generator: generator.normal(size=(400, 3)), "its points fill space, as noise does"),
        (lambda generator: generator.normal(size=(5, 3)), "only 5 different points"),
        (lambda generator: np.eye(3), "only 3 different points"),
    ],
)
def test_junk_is_unsure_and_the_reason_is_said(taught, junk, reason):
    answer = predict(junk(np.random.default_rng(0)), taught, up="z")
    assert not answer.sure
    assert answer.notes[-1].startswith("unsure: ")
    assert reason in answer.notes[-1]


def test_more_points_than_in_training_are_no_reason_for_doubts(taught):
    generator = np.random.default_rng(0)
    discs = [shell(4096, generator, (1, 1, 0.3)) for _ in range(8)]
    sure = [[answer.sure for answer in predict(discs, taught, num_points=count)] for count in (256, 4096)]
    assert sum(sure[0]) > 5
    assert sum(sure[1]) >= sum(sure[0])


def test_a_cloud_that_lies_is_told_from_one_that_stands(taught, tmp_path):
    """A rod whose file has y up is a rod, and as a disc it would be of another class."""
    generator = np.random.default_rng(1)
    standing = [shell(256, generator, (0.3, 0.3, 1)) for _ in range(5)]
    eager = load_model(taught)
    eager.preprocessing["familiar"]["other_up"] = 0.0
    lying = [cloud[:, [0, 2, 1]] * (1, 1, -1) for cloud in standing]
    for cloud, fallen in zip(standing, lying, strict=True):
        wanted = predict(cloud, taught)
        assert (wanted.up, wanted.notes) == ("z", ())
        found = predict(fallen, taught, up="auto")
        assert (found.class_name, found.up) == ("rod", "y")
        assert "taken with y up, which is more like training" in found.notes
        assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-4)
        of_page = [next(predict_each([each], load_model(taught), Reading("auto")))[1] for each in (cloud, fallen)]
        np.testing.assert_allclose(*of_page, atol=1e-5)
        plain = predict(fallen, eager)
        assert (plain.up, plain.surer_up) == ("z", "y")
        line = "with y up it would be rod 100.0%, more like training: --up y"
        assert any(note.startswith(line) for note in plain.notes)
        assert not any("up it would" in note for note in predict(fallen, taught, up="z").notes)
    trimesh.PointCloud(standing[0]).export(tmp_path / "lying.glb")  # whose format says that y is up
    told, asked = (predict(tmp_path / "lying.glb", taught, up=up) for up in (None, "auto"))
    assert (told.up, asked.up) == ("y", "z")
    assert not any(" up" in note for note in told.notes)
    assert "taken with z up, which is more like training" in asked.notes


def test_a_line_says_where_most_files_would_be_surer_with_the_other_axis_up(taught, tmp_path, capsys):
    generator = np.random.default_rng(3)
    rods = [shell(256, generator, (0.3, 0.3, 1)) for _ in range(3)]
    eager = load_model(taught)
    eager.preprocessing["familiar"]["other_up"] = 0.0
    eager.save_pretrained(tmp_path / "eager")
    for i, cloud in enumerate(rods):
        np.save(tmp_path / f"standing{i}.npy", cloud)
        np.save(tmp_path / f"lying{i}.npy", cloud[:, [0, 2, 1]])
    for kind, is_said in (("lying", True), ("standing", False)):
        assert command_line.main(["predict", str(tmp_path / f"{kind}*"), "--model", str(tmp_path / "eager")]) == 0
        assert ("clouds would be more like training with y up: --up y" in capsys.readouterr().out) == is_said


@pytest.mark.parametrize(
    ("other", "sure"), [(Opinion([0.1, 0.9], [], -9.0), False), (Opinion([0.9, 0.1], [], -9.0), True)]
)
def test_an_answer_is_unsure_where_another_class_is_clearly_surer_with_the_other_axis_up(taught, other, sure):
    cloud, own = Seen(np.zeros((3, 64), np.float32), None, ()), Opinion([0.8, 0.2], [], -2.0)
    rival = Rival("y", other, surer_by=7.0)
    found = answer(None, cloud, "z", own, rival, 0.5, load_model(taught))
    assert (found.sure, found.surer_up) == (sure, "y")
    assert answer(None, cloud, "z", own, rival, 8.0, load_model(taught)).sure  # it is no surer than usual


def test_the_surest_up_axis_has_the_lowest_energy_and_a_downward_one_must_be_clearly_surer(taught):
    judge = Judge(load_model(taught), Contract.of(load_model(taught)), 1)
    judge.familiar, own = judge.familiar._replace(other_up=0.5), Opinion([0.7, 0.3], [], -2.0)

    def rival(**energies: float) -> Rival:
        return judge.rival(own, {up: Opinion([0.4, 0.6], [], energy) for up, energy in energies.items()})

    assert judge.rival(own, {}) is None
    assert rival(y=-2.5)[::2] == ("y", 0.5)
    assert rival(y=-1.5)[::2] == ("y", -0.5)
    assert rival(z=-2.25, y=-2.5)[::2] == ("y", 0.5)
    unknown = Judge(load_model(taught), Contract(256), 1)  # no margin was measured
    assert unknown.rival(own, {"y": Opinion([1.0], [], -3.0), "-y": Opinion([1.0], [], -9.0)}).up == "-y"
    doubted = {"y": Opinion([0.9, 0.1], [], -2.5), "-y": Opinion([0.6, 0.4], ["odd"], -9.0)}
    assert [judge.rival(Opinion([0.9, 0.1], [], -2.0), doubted, None, is_taken).up for is_taken in (True, False)] == [
        "y",
        "-y",
    ]
    assert judge.rival(own, doubted, None, True).up == "-y", "the first has doubts too"
    for energy, up, surer_by in ((-2.75, "y", 0.5), (-3.25, "-y", 0.75)):
        assert rival(**{"y": -2.5, "-y": energy})[::2] == (up, surer_by)


def test_an_answer_is_doubted_for_few_points_what_is_unusual_and_less_than_an_even_chance():
    assert Opinion([0.5, 0.3, 0.1, 0.1], [], 0.0).doubts(None) == []
    assert Opinion([0.49, 0.3, 0.11, 0.1], [], 0.0).doubts(None) == ["no class has a probability of 50 %"]
    assert Opinion([0.4, 0.3, 0.2, 0.1], ["flat"], 0.0).doubts(None) == ["flat", "no class has a probability of 50 %"]
    assert Opinion([0.9, 0.1], ["flat"], 0.0).doubts("only 63 different points") == ["only 63 different points"]


def test_of_few_classes_a_sure_one_is_three_times_as_likely_as_the_others_in_the_mean():
    assert Opinion([1 - 1e-7], [], 0.0).doubts(None) == []
    assert Opinion([0.75, 0.25], [], 0.0).doubts(None) == []
    assert Opinion([0.26, 0.74], [], 0.0).doubts(None) == ["no class has a probability of 75 %"]
    assert Opinion([0.2, 0.6, 0.2], [], 0.0).doubts(None) == []
    assert Opinion([0.3, 0.59, 0.11], [], 0.0).doubts(None) == ["no class has a probability of 60 %"]


def test_clouds_that_are_not_finite_are_left_out_of_what_is_measured(taught):
    model, data, broken = load_model(taught), solids(40), solids(40)
    broken.points[::4, 0, 5] = float("nan")
    kept = torch.arange(80) % 4 > 0
    contract, cpu = Contract.of(model), torch.device("cpu")
    wanted = measure_trust(model, contract, data, data.subset(kept.nonzero()[:, 0]), cpu)
    found = measure_trust(model, contract, data, broken, cpu)
    assert found[0] == wanted[0]
    assert found[1].limits == wanted[1].limits
    torch.nn.init.constant_(model.logits.bias, float("nan"))
    assert measure_trust(model, contract, data, data, cpu) == (1.0, None)
    assert measure_trust(model, contract, data, data.subset(torch.arange(39)), cpu) == (1.0, None)


@pytest.mark.parametrize("damage", [{"means": [[1.0]]}, {"limits": {}}, {"precision": "many"}])
def test_a_damaged_measure_of_trust_is_one_line(taught, damage):
    model = load_model(taught)
    model.preprocessing["familiar"] |= damage
    with pytest.raises(ValueError, match="the model's 'familiar' is damaged"):
        predict(np.eye(9)[:, :3], model)


@pytest.mark.slow
def test_the_benchmark_tells_junk_from_shapes(taught, monkeypatch, capsys):
    monkeypatch.setattr(
        benchmark, "open_dataset", lambda name, root, split, count: solids(40 if split == "test" else 200)
    )
    monkeypatch.setattr(benchmark, "EACH", 4)
    benchmark.main([str(taught)])
    lines = capsys.readouterr().out.splitlines()
    figures = {line[:26].strip(): line[26:].split() for line in lines[1:-2]}
    columns = lines[0].split()
    assert float(figures["a line"][columns.index("thin")]) == float(figures["a plane"][columns.index("flat")]) == 1
    assert figures["five points"][-1] == figures["a line"][-1] == "100%"
    assert int(figures["test"][-1].rstrip("%")) < 30
    assert lines[-1].startswith("test: 100.00% right, calibration error 0.0")


@pytest.mark.slow
def test_the_benchmark_asks_about_clouds_with_other_axes_up(taught, capsys):
    benchmark.say_frames(load_model(taught), solids(40))
    frames = [line.replace("%", "").split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [axis for axis, *_ in frames] == ["z", "y", "-y"]
    assert all(float(of_auto) > 50 for *_, of_auto in frames)
    assert float(frames[0][1]) > 50 > 10 > float(frames[0][2])


@pytest.mark.slow
def test_the_benchmark_asks_about_classes_that_were_held_out(tmp_path, monkeypatch, capsys):
    x = solids(130).points
    data = LabelledClouds(x, torch.arange(len(x)) % 3, ["a", "b", "c"])
    monkeypatch.setattr(benchmark, "open_dataset", lambda name, root, split, count: data)
    monkeypatch.setattr(benchmark, "EACH", 2)
    monkeypatch.setitem(benchmark.RECIPES, "tiny", tiny(tmp_path / "run", num_points=256, epochs=1))
    benchmark.main([str(tmp_path / "run"), "--dataset", "shapes", "--recipe", "tiny", "--hold_out", "b"])
    assert load_model(tmp_path / "run").classes == ("a", "c")
    assert "classes held out" in capsys.readouterr().out


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    usual, other = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])
    pairs = [(b > a) + 0.5 * (b == a) for a in usual for b in other]
    assert benchmark.auroc(usual, other) == pytest.approx(np.mean(pairs))
