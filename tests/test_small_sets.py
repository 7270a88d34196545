"""Small and uneven sets: repeated until an epoch has its steps, measured as they are, never short without a word."""

import copy
import dataclasses
import re
import shlex
import sys
from contextlib import closing

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pointnet.commands import train as command
from pointnet.datasets import split_validation
from pointnet.evaluation.tasks import TASKS
from pointnet.models import load_model
from pointnet.training import TrainConfig, fit
from pointnet.training import run as run_module
from pointnet.training.losses import balanced_weights, label_loss
from pointnet.training.previews import dry_run
from pointnet.training.run_folder import read_metrics, read_result
from pointnet.training.small_sets import accuracy_by_chance, lines_on_data, lines_on_result
from tests.helpers import (
    QUICK,
    ROOT,
    assert_ends_as,
    assert_equal_states,
    halves,
    quiet,
    small,
    started,
    tiny,
    two_shapes,
)

DATA, TEST = two_shapes(per_class=8), two_shapes(per_class=8, seed=1)


def train_epoch(run) -> int:
    with closing(run.steps()) as steps:
        return len([*steps])


def norms_of(model) -> list[torch.nn.BatchNorm1d]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]


# Steps and statistics.


def test_an_epoch_has_its_steps_and_counts_what_it_trained_on():
    run = started(DATA, min_steps=14, epochs=2)  # a pass is 6 steps
    assert train_epoch(run) == 14
    assert int(run.progress.seen) == 16 + 16 + 6  # and 2 of the 6 batches, of 3 and 3
    line = run.end_epoch()
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(16 * 14 / 6, rel=0.1)
    assert train_epoch(run) == 14
    assert run.step.schedule.last_epoch == 2 * 14


def test_a_set_with_enough_steps_is_passed_once_in_the_order_of_seed_and_epoch():
    run = started(DATA, min_steps=6, seed=5)
    run.epoch = 3
    assert train_epoch(run) == 6
    assert torch.equal(run.progress.order, torch.randperm(16, generator=torch.Generator().manual_seed((5 << 20) + 3)))
    before = copy.deepcopy(run.step.model.state_dict())
    run.measure_norms(lambda: None)
    assert_equal_states(run.step.model.state_dict(), before)


def off_centre(model, points) -> float:
    """How far the norms' outputs are from mean beta on these points in evaluation, where their deviation is gamma."""
    model, means = copy.deepcopy(model).eval(), []
    for norm in norms_of(model):
        norm.register_forward_hook(
            lambda norm, _, y: means.append((y.transpose(1, -1).flatten(0, -2).mean(0) - norm.bias).abs().max())
        )
    with torch.no_grad():
        model(points)
    assert len(means) == len(norms_of(model))
    return float(torch.stack(means).max())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_norms_are_measured_on_the_training_split_as_evaluation_sees_it(ema):
    """That of the first layer by its definition (identity 3), all others by what they make of the split."""
    data = two_shapes(per_class=32)
    run = started(data, min_steps=3, batch_size=64, ema=ema, dropout=0.5)
    train_epoch(run)
    model, momentum = run.evaluated, norms_of(run.evaluated)[0].momentum
    trained, random = copy.deepcopy(run.step.model.state_dict()), torch.get_rng_state()
    before = off_centre(model, data.points)
    run.measure_norms(lambda: None)
    first = model.encoder.mlp1[0]
    torch.testing.assert_close(first.norm.running_mean, first.conv.weight[:, :, 0] @ data.points.mean((0, 2)))
    assert off_centre(model, data.points) < 0.05 < before  # variances are those of a sample
    assert {norm.momentum for norm in norms_of(model)} == {momentum}
    assert torch.equal(torch.get_rng_state(), random)
    if ema:  # the network that goes on training is left as it was
        assert_equal_states(run.step.model.state_dict(), trained)


def test_broken_clouds_and_frozen_norms_are_left_out_of_it_and_a_few_batches_do(monkeypatch):
    data = two_shapes(per_class=8)
    data.points[[3, 12], 0, 7] = torch.nan
    run = started(data, min_steps=8, batch_size=8)
    train_epoch(run)
    frozen, *others = norms_of(run.step.model)
    frozen.eval()
    kept = frozen.running_mean.clone()
    run.measure_norms(lambda: None)
    assert torch.equal(frozen.running_mean, kept)
    assert all(norm.running_mean.isfinite().all() for norm in others)
    assert all(int(norm.num_batches_tracked) == 2 for norm in others)
    monkeypatch.setattr(run_module, "NORM_BATCHES", 1)
    run.step.model.train()
    run.measure_norms(lambda: None)
    assert all(int(norm.num_batches_tracked) == 1 for norm in others)


def test_a_repeated_run_stopped_in_validation_ends_as_the_unbroken_one(tmp_path, monkeypatch):
    config = tiny(tmp_path / "unbroken", min_steps=7, epochs=3)
    fit(config, DATA, log=quiet)
    module, calls = sys.modules["pointnet.training.fit"], []

    def stop(*given, call=module.evaluate, **options):
        calls.append(1)
        if len(calls) == 2:
            raise module.Stopped(15)
        return call(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", stop)
        with pytest.raises(module.Stopped):
            fit(dataclasses.replace(config, out=str(tmp_path / "run")), DATA, log=quiet)
    fit(dataclasses.replace(config, out=str(tmp_path / "run")), DATA, resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", tmp_path / "unbroken")


def test_a_run_of_shorter_epochs_is_not_gone_on_with(tmp_path):
    config = tiny(tmp_path / "run", epochs=2)
    fit(config, DATA, log=quiet)
    with pytest.raises(ValueError, match="--min_steps 9 differs from the run's own 1; resume cannot change it"):
        fit(dataclasses.replace(config, min_steps=9), DATA, resume=True, log=quiet)


# What is chosen.


def test_another_metric_chooses_the_epoch_and_then_the_loss_and_then_the_later(tmp_path, monkeypatch):
    module = sys.modules["pointnet.training.fit"]
    found = iter([(0.9, 0.5, 1.0), (0.5, 0.8, 0.7), (0.6, 0.8, 0.6), (0.7, 0.8, 0.6), (0.8, 0.8, 0.9)])

    def pretend(*given, **options):
        overall, mean, loss = next(found)
        return {"overall_accuracy": overall, "mean_class_accuracy": mean, "loss": loss, "count": 4}

    monkeypatch.setattr(module, "evaluate", pretend)
    config = tiny(tmp_path / "run", epochs=5, choose_by="mean_class_accuracy")
    assert fit(config, DATA, log=quiet)["selected_epoch"] == 4
    assert command.draw_curves(tmp_path / "run").read_text().count("epoch 4, the best on validation, 80.00% mean class")
    assert "chosen on validation (80.00% mean class there)" in command.summary(
        config, read_result(tmp_path / "run"), "train.py"
    )


def test_a_metric_of_another_task_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no metric 'class_miou' \(known: overall_accuracy, mean_class_accuracy\)"):
        TrainConfig(choose_by="class_miou")
    assert TrainConfig(task="part", choose_by="class_miou").chooser == "class_miou"


@pytest.mark.parametrize(("least", "loss"), [(1, None), (20, None), (20, F.cross_entropy)])  # one's own has none
def test_the_loss_that_decides_has_the_targets_of_training_where_clouds_are_repeated(tmp_path, least, loss):
    fit(tiny(tmp_path / "run", epochs=1, min_steps=least, label_smoothing=0.3), DATA, log=quiet, loss=loss)
    val = split_validation(DATA, 0, 0.25)[1]
    logits = load_model(tmp_path / "run")(val.points).detach()
    smoothed, line = least > 1 and loss is None, read_metrics(tmp_path / "run")[0]
    for name, share in {"val_loss": 0.3 * smoothed, "val_cross_entropy" if smoothed else "val_loss": 0.0}.items():
        assert line[name] == pytest.approx(float(F.cross_entropy(logits, val.labels, label_smoothing=share)), rel=1e-4)


# Imbalance.


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_with_balanced_weights_the_loss_is_the_mean_of_the_classes_own(smoothing):
    config = TrainConfig(class_weights="balanced", label_smoothing=smoothing)
    data = two_shapes(per_class=12).subset(torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 20]))
    weights, logits = balanced_weights(data), torch.randn(10, 2)
    torch.testing.assert_close(weights, torch.tensor([10 / (2 * 9), 10 / (2 * 1)]))
    each = F.cross_entropy(logits, data.labels, label_smoothing=smoothing, reduction="none")
    wanted = (each[:9].mean() + each[9:].mean()) / 2
    torch.testing.assert_close(label_loss(config, logits, data.labels, None, weights=weights), wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_of_points_it_is_the_mean_of_the_labels_own(smoothing):
    """Each point counted once; two of the four parts are never there."""
    data = halves("part", per_class=3).subset(torch.tensor([0, 1, 2]))
    parts, weights = data.parts[:, :32], balanced_weights(data)  # of 40 stored points 8 are repeated
    config, logits = TrainConfig(label_smoothing=smoothing), torch.randn(3, 4, 32)

    def loss(weights):
        return label_loss(config, logits, parts, data.labels, data.parts_of, weights)

    assert (weights > 0).tolist() == [True, True, False, False]
    of_part = [loss(torch.eye(4)[part]) * parts.numel() / (parts == part).sum() for part in (0, 1)]
    torch.testing.assert_close(loss(weights), (of_part[0] + of_part[1]) / 2)
    assert not torch.isclose(loss(weights), loss(None))


@pytest.mark.parametrize("task", TASKS)
def test_weights_are_used_by_every_task(tmp_path, task):
    data = (two_shapes(per_class=8) if task == "classification" else halves(task, 8)).subset(torch.tensor([*range(9)]))
    changes, ends = {"epochs": 1, "val_fraction": 0.0}, []
    for kind in ("none", "balanced"):
        make = tiny(tmp_path / kind, **changes) if task == "classification" else small(tmp_path / kind, task, **changes)
        fit(dataclasses.replace(make, class_weights=kind), data, log=quiet)
        ends.append([*load_model(tmp_path / kind).parameters()][-1])
    assert not torch.equal(*ends)


# What is said.


def of_counts(*counts: int):
    rows = [i for label, count in enumerate(counts) for i in range(100 * label, 100 * label + count)]
    data = two_shapes(per_class=100 * len(counts) // 2, points=4).subset(torch.tensor(rows))
    data.labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    data.classes = tuple("abcdefgh"[: len(counts)])
    return data


def said(*counts: int, **changes) -> list[str]:
    config = TrainConfig(**changes)
    return lines_on_data(config, *split_validation(of_counts(*counts), 0, config.val_fraction))


def test_each_shortage_is_a_line_with_what_to_do_and_enough_is_none():
    assert said(200, 200, 8) == []
    assert said(8, 8, val_fraction=0.0) == []
    lines = said(80, 7, 2, 1, 0, 1)
    assert [line.partition(". ")[0] for line in lines] == [
        "fewer than 8 clouds to learn from: b 7, c 2",
        "a single cloud to learn from: d, f",
        "no cloud to learn from: e",
        "10 clouds to validate on: each is 10% of overall accuracy",
    ]
    assert all(len(line.partition(". ")[2]) > 20 for line in lines)
    assert said(*[3] * 8, val_fraction=0.0)[0].startswith(
        "fewer than 8 clouds to learn from: a 3, b 3, c 3, d 3, e 3 and 3"
    )
    assert said(80, 1, overfit_batches=2) == []


def test_training_at_its_best_and_validation_at_chance_is_said():
    config, val = TrainConfig(), of_counts(10, 10)
    learned, guessed = {"train_accuracy": 0.97}, {"val_overall_accuracy": 0.55}
    (line,) = lines_on_result(config, val, learned, guessed)
    assert line.startswith("training reaches 97%, but validation only 55%, as guessing would: ")
    for last, chosen in (
        ({"train_accuracy": 0.9}, guessed),
        (learned, {"val_overall_accuracy": 0.65}),
        (learned, {}),  # nothing was held out
    ):
        assert lines_on_result(config, val, last, chosen) == []
    parts = halves("part", 4)
    assert accuracy_by_chance(TASKS["part"], parts) == pytest.approx(0.5, abs=0.05)  # two parts of each category
    assert accuracy_by_chance(TASKS["scene"], parts) == pytest.approx(0.25, abs=0.05)


def test_a_run_and_a_dry_run_say_it(tmp_path, monkeypatch):
    data = DATA.subset(torch.tensor([0, 1, 2, 3, 4, 5, 8]))
    lines, wanted = [], "a single cloud to learn from: rod. "
    monkeypatch.setattr(sys.modules["pointnet.training.fit"], "lines_on_result", lambda *given: ["as guessing would"])
    fit(tiny(tmp_path / "run", epochs=1), data, log=lines.append)
    assert any(line.startswith(wanted) for line in lines[:3])
    assert lines[-1] == "as guessing would"
    assert wanted in dry_run(tiny(tmp_path / "dry", min_steps=20), data)


# Ten files a class, as the README has it.


def easy_cloud(kind: str, generator: np.random.Generator, points: int = 500) -> np.ndarray:
    """Points on a box, a ball or a rod, stretched along each axis and where files are: anywhere, in any unit."""
    x = generator.standard_normal((points, 3))
    if kind == "box":
        x /= np.abs(x).max(1, keepdims=True)
    elif kind == "ball":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    else:
        x = x / np.linalg.norm(x[:, :2], axis=1, keepdims=True) * (0.2, 0.2, 0) + (0, 0, 1) * generator.uniform(
            -1, 1, (points, 1)
        )
    return (x * generator.uniform(0.8, 1.25, 3) + generator.uniform(-9, 9, 3)) * 10 ** generator.uniform(-2, 2)


def write_files(root, **counts: int):
    """`root/<class>/<i>.npy`."""
    generator = np.random.default_rng(0)
    for kind, count in counts.items():
        (root / kind).mkdir(parents=True)
        for i in range(count):
            np.save(root / kind / f"{kind}_{i}.npy", easy_cloud(kind.rstrip("s"), generator))


def readmes_words() -> list[str]:
    """What the README trains own files with."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^python train.py (--dataset folder .*)$", text, re.MULTILINE)
    return shlex.split(line)


FASTER = ["--epochs", "6", "--width", "0.25", "--num_points", "128", "--early_points", "0", "--device", "cpu"]
FASTER += ["--input_transform", "false", "--feature_transform", "false"]


@pytest.mark.parametrize("more", [FASTER, pytest.param([], marks=pytest.mark.slow)], ids=["faster", "as it is"])
def test_three_easy_classes_of_ten_files_are_learned_by_the_readmes_command(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "my_meshes", box=10, ball=10, rod=10)
    for seed in range(1 if more else 3):
        assert command.main([*readmes_words(), *more, "--seed", str(seed), "--out", f"run{seed}"]) == 0
        result = read_result(tmp_path / f"run{seed}")
        assert result["test"]["overall_accuracy"] >= 0.95, seed
        assert result["test"]["count"] == 6


def test_uneven_files_are_never_short_without_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "my_meshes", box=80, ball=6, rod=3, balls=1)
    (tmp_path / "my_meshes" / "cone").mkdir()
    (tmp_path / "my_meshes" / "ring").mkdir()
    (tmp_path / "my_meshes" / "ring" / "scan.npy").write_bytes(b"not an array")
    words = [*readmes_words(), *QUICK, "--class_weights", "balanced", "--choose_by", "mean_class_accuracy"]
    assert command.main(words) == 0
    printed = capsys.readouterr().out
    for line in (
        "no class, as there is no file to read: cone",
        "fewer than 8 clouds to learn from: ball 5, rod 2. More files",
        "a single cloud to learn from: balls. None is left",
        "no cloud to learn from: ring. An answer",
        "8 clouds to validate on: each is 12% of mean class accuracy. See --seeds",
        "1 file skipped",
    ):
        assert line in printed, printed
