"""Short looks at a run: a dry run does everything and leaves nothing; a profile adds up."""

import re

import pytest
import torch

from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.training import fit, previews, run
from pointnet.training.previews import dry_run, forecast, profile
from tests.helpers import error_of, halves, quiet, small, tiny, two_shapes

DATA, TEST = two_shapes(per_class=8), two_shapes(per_class=8, seed=1)
TASKS = ["classification", "part", "scene"]


def of_task(task, out):
    """Settings and data of a task."""
    return (tiny(out), DATA, TEST) if task == "classification" else (small(out, task), halves(task), halves(task))


@pytest.mark.parametrize("task", TASKS)
def test_a_dry_run_does_everything_and_leaves_nothing(tmp_path, monkeypatch, task):
    done = []
    for name in ("steps", "finish_epoch", "restore"):
        original = getattr(run.Run, name)
        monkeypatch.setattr(
            run.Run, name, lambda *a, name=name, original=original: (done.append(name), original(*a))[1]
        )
    config, data, test = of_task(task, tmp_path / "new" / "run")
    said = dry_run(config, data, test)
    assert done == 2 * ["steps", "finish_epoch"] + ["restore"] + 2 * ["steps", "finish_epoch"]
    assert re.search(r"4 epochs of \d\d clouds should train in about \d+ s$", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "wanted"), [({}, "14 clouds .* 29 s"), ({"overfit_batches": 2}, "8 clouds .* 20 s")]
)
def test_the_forecast_counts_what_each_epoch_trains_and_validates_on(tmp_path, changes, wanted):
    config = tiny(tmp_path, early_points=8, early_share=0.75, val_fraction=0.1, batch_size=4, **changes)
    seconds = {"early": 0.5, "late": 0.5, "validation": 0.125}
    assert re.search(f"4 epochs of {wanted}$", forecast(config, DATA, **seconds))
    clouds, without = map(int, re.findall(r"\d+", wanted))
    assert forecast(config, DATA, **seconds, teacher=1.0).endswith(f" {without + clouds} s")


def test_a_dry_run_fails_as_the_run_would_and_leaves_nothing(tmp_path):
    broken = two_shapes(per_class=8)
    broken.points[:] = torch.nan
    with pytest.raises(ValueError, match="not finite: samples"):
        dry_run(tiny(tmp_path / "run"), broken)
    with pytest.raises(ValueError, match="num_points must be 16, as the data has"):
        dry_run(tiny(tmp_path / "run"), two_shapes(points=16))
    assert list(tmp_path.iterdir()) == []
    fit(tiny(tmp_path / "run", epochs=1), DATA, log=quiet)
    with pytest.raises(ValueError, match="already holds a run"):
        dry_run(tiny(tmp_path / "run"), DATA)


def test_a_profile_adds_up_and_leaves_nothing(tmp_path, monkeypatch):
    steps = []
    train_on = run.Run._train_on
    monkeypatch.setattr(run.Run, "_train_on", lambda *a: (steps.append(1), train_on(*a))[1])
    said = profile(tiny(tmp_path / "run", batch_size=14), DATA)  # an epoch is a step
    said = said.replace(",", "")  # of thousands
    whole = float(re.search(r"14 clouds of 32 points: ([\d.]+) ms", said)[1])
    assert len(steps) == previews.WARM_UP + previews.MEASURED + previews.RECORDED
    parts = {name: float(ms) for name, ms in re.findall(r"^ +(\w+) +([\d.]+) ms", said, re.MULTILINE)}
    assert list(parts) == ["data", "forward", "backward", "optimizer"]
    assert sum(parts.values()) == pytest.approx(whole, abs=0.3)
    shares = [float(share) for share in re.findall(r"([\d.]+)% +\d+  \w", said)]
    assert len(shares) == 12
    assert sorted(shares, reverse=True) == shares
    assert sum(shares) <= 100
    assert list(tmp_path.iterdir()) == []


def test_a_profile_says_how_many_points_its_steps_had(tmp_path):
    every_epoch_is_early = {"early_points": 8, "early_share": 1.0}
    assert "14 clouds of 8 points: " in profile(tiny(tmp_path / "run", batch_size=14, **every_epoch_is_early), DATA)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--dry_run"], "dry run: trained, stopped, resumed, measured and loaded"),
        pytest.param(["--profile"], "a step of 16 clouds", marks=pytest.mark.slow),
        pytest.param(
            ["--overfit_batches", "2"],
            "not tested: the network was trained to overfit 2 batches",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_command_looks_at_a_run(tmp_path, capsys, flags, wanted):
    words = ["--dataset", "modelnet40", "--root", "data/samples", "--num_points", "32", "--out", str(tmp_path / "run")]
    assert train.main([*words, "--width", "0.1", "--epochs", "1", *flags]) == 0
    assert wanted in capsys.readouterr().out
    assert (tmp_path / "run").exists() == (flags[0] == "--overfit_batches")


@pytest.mark.parametrize("other", [["--profile"], ["--seeds", "0", "1"]])
def test_a_look_is_of_one_run(other, capsys):
    assert "--dry_run" in error_of(capsys, parse_command, ["--dry_run", *other])
