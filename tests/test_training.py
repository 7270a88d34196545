"""A run: the files it leaves, the epoch it chooses, how it resumes bit for bit, and what it refuses."""

import dataclasses
import shutil
import sys
from unittest.mock import Mock

import pytest
import torch

from pointnet.commands import train
from pointnet.datasets import LabelledClouds, split_validation
from pointnet.devices import find_device
from pointnet.evaluation.evaluate import evaluate
from pointnet.models import load_model
from pointnet.training import TrainConfig, fit, run
from pointnet.training.checkpoint import load_checkpoint, save_checkpoint
from pointnet.training.fit import create_run_folder
from pointnet.training.run import Run
from pointnet.training.run_folder import read_config, read_metrics, write_config
from pointnet.training.seeds import run_seeds
from pointnet.world import World
from tests.forms import forms
from tests.helpers import (
    QUICK,
    SAMPLES,
    assert_ends_as,
    assert_equal_states,
    error_of,
    quiet,
    tiny,
    two_shapes,
    weights,
)

DATA, TEST = two_shapes(per_class=8), two_shapes(per_class=8, seed=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run: (its folder, its config, what fit returned)."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("runs") / "finished"
    config = tiny(out)
    return out, config, fit(config, DATA, TEST, log=quiet)


def test_the_parts_of_an_epoch_add_up_to_it(finished):
    out, _, result = finished
    assert set(result["shares"]) == {"data", "forward", "backward", "optimizer", "evaluation"}
    rounding = 4 * 6 * 0.0005 / result["seconds"]  # of each epoch's parts and their sum
    assert 0.2 < sum(result["shares"].values()) <= 1 + rounding
    for line in read_metrics(out):
        parts = [line[f"{name}_seconds"] for name in ("data", "forward", "backward", "optimizer")]
        assert sum(parts) == pytest.approx(line["seconds"], abs=0.005)


def test_the_same_seed_gives_the_same_weights_however_they_are_loaded(finished, tmp_path):
    out, config, _ = finished
    torch.manual_seed(123)  # nothing outside the run's own seed matters
    fit(dataclasses.replace(config, out=str(tmp_path / "again"), feed="stream"), DATA, log=quiet)
    assert_equal_states(weights(tmp_path / "again"), weights(out))
    fit(dataclasses.replace(config, out=str(tmp_path / "other"), seed=1, epochs=1), DATA, log=quiet)
    assert not torch.equal(weights(tmp_path / "other")["logits.weight"], weights(out)["logits.weight"])


def test_a_run_stopped_between_its_writes_ends_as_the_unbroken_one(finished, tmp_path, monkeypatch):
    out, config, _ = finished
    config = dataclasses.replace(config, out=str(tmp_path / "run"))

    def stop_at_epoch_3(path, content):
        if content["epoch"] == 3:
            raise InterruptedError
        save_checkpoint(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_checkpoint", stop_at_epoch_3)
        with pytest.raises(InterruptedError):
            fit(config, DATA, log=quiet)
    fit(config, DATA, resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", out)
    assert len(read_metrics(tmp_path / "run")) == 4


def test_a_run_stopped_before_its_first_checkpoint_can_be_started_again(tmp_path):
    config = tiny(tmp_path / "run", epochs=1)
    create_run_folder(Run.start(config, DATA, find_device("cpu"), World()))
    fit(config, DATA, log=quiet)
    assert (tmp_path / "run" / "result.json").exists()


def test_without_validation_the_last_epoch_is_kept_and_with_an_average_it_is_the_network(bfloat16, tmp_path):
    result = fit(tiny(tmp_path, ema=0.9, val_fraction=0.0, epochs=2, precision="bf16"), DATA, log=quiet)
    assert result["val"] is None
    assert result["selected_epoch"] == 2
    kept, last = load_model(tmp_path).state_dict(), weights(tmp_path)
    assert not torch.equal(kept["logits.weight"], last["logits.weight"])
    assert_equal_states(kept, load_checkpoint(tmp_path / "checkpoint.pt")["averaged"])


def test_the_test_split_is_measured_with_the_chosen_epochs_weights(tmp_path, monkeypatch):
    """Even if it is not the last: here the first epoch is made to look best."""
    scores = iter([1.0, 0.2])

    def evaluate_or_pretend(model, data, *rest, **options):
        found = evaluate(model, data, *rest, **options)
        return found if data is TEST else found | {"overall_accuracy": next(scores)}

    monkeypatch.setattr(sys.modules["pointnet.training.fit"], "evaluate", evaluate_or_pretend)
    result = fit(tiny(tmp_path / "run", epochs=2), DATA, TEST, log=quiet)
    assert result["selected_epoch"] == 1
    kept = load_model(tmp_path / "run")
    assert not torch.equal(kept.logits.weight, weights(tmp_path / "run")["logits.weight"])
    wanted = evaluate(kept, TEST)
    assert result["test"] == {name: wanted[name] for name in result["test"]}


def test_training_draws_from_all_points_and_evaluation_takes_the_first(tmp_path):
    base = two_shapes(per_class=8, points=64)
    data = LabelledClouds(base.points, base.labels, base.classes, num_points=32)
    fit(tiny(tmp_path / "all", epochs=1), data, data, log=quiet)
    first = LabelledClouds(base.points[:, :, :32], base.labels, base.classes)
    fit(tiny(tmp_path / "first", epochs=1), first, log=quiet)
    one, other = (weights(tmp_path / name) for name in ("all", "first"))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    model = load_model(tmp_path / "all")
    assert evaluate(model, data) == evaluate(model, first)
    assert evaluate(model, split_validation(data, 0)[1])["count"] == 2


def test_a_run_overfits_a_few_batches_alone(tmp_path):
    """Labels that mean nothing can only be overfitted; other clouds are not seen, and none is augmented."""
    data = LabelledClouds(DATA.points, torch.tensor([0, 0, 1, 0, 1, 1, 1, 0] * 2), DATA.classes)
    config = tiny(tmp_path / "run", overfit_batches=2, batch_size=4, epochs=30, early_points=0, dropout=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "augment", Mock(side_effect=AssertionError))
        result = fit(config, data, TEST, log=quiet)
    assert result["test"] is None
    assert result["val"]["overall_accuracy"] == 1
    line = read_metrics(tmp_path / "run")[0]
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(8, rel=0.1)


def test_data_that_cannot_train_a_classifier_is_one_clear_line(tmp_path):
    for data, message in (
        (DATA.subset(torch.arange(8)), "at least two classes to train on, got only 'disc'"),
        (DATA.subset(torch.arange(0)), "at least two classes to train on, got no shapes"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(tiny(tmp_path / "a"), data, log=quiet)
    with pytest.raises(ValueError, match="num_points must be 32, as the data has, got 64"):
        fit(tiny(tmp_path / "a", num_points=64), DATA, log=quiet)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([1, 2], None, r"train must be a LabelledClouds, got list; LabelledClouds\(points, labels, ...\) makes one"),
        (DATA, (1,), "test must be a LabelledClouds, got tuple"),
        (
            DATA,
            LabelledClouds(DATA.points, DATA.labels, ["disc", "stick"]),
            "test must have the classes of train, in their order",
        ),
    ],
)
def test_what_is_no_data_set_is_one_line(tmp_path, train, test, message):
    with pytest.raises(ValueError, match=message):
        fit(tiny(tmp_path), train, test, log=quiet)


def test_skipped_steps_are_logged_and_too_many_end_the_run(tmp_path):
    data = LabelledClouds(DATA.points.clone(), DATA.labels, DATA.classes)
    data.points[[3, 12], 0, 7] = torch.nan
    lines, config = [], tiny(tmp_path / "run", epochs=2, val_fraction=0.0, early_points=0)
    fit(config, data, log=lines.append)
    assert sum("steps skipped, not finite: samples no. 3 (disc), no. 12 (rod)" in line for line in lines) == 2
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    data.points[:7] = torch.nan
    with pytest.raises(ValueError, match=r"and 3 more; that makes \d, more than --skip_limit 2$"):
        fit(dataclasses.replace(config, out=str(tmp_path / "many"), skip_limit=2), data, log=quiet)
    with pytest.raises(ValueError, match="the loss was not finite; try a lower --lr"):
        fit(tiny(tmp_path / "blown", lr=1e30, optimizer="sgd", schedule="constant", skip_limit=1), DATA, log=quiet)


@pytest.mark.parametrize("whole", forms([0, 1, 2], 1))
def test_samples_that_are_not_finite_are_named_where_few_or_none_are_whole(tmp_path, whole):
    """In short epochs too, where norms are measured on the clouds that are whole."""
    data = LabelledClouds(DATA.points.clone(), DATA.labels, DATA.classes)
    data.points[whole:, :, 5] = torch.nan
    lines, config = [], tiny(tmp_path / "run", epochs=1, val_fraction=0.0, min_steps=40, skip_limit=99)
    fit(config, data, log=lines.append)
    named = ", ".join(f"no. {i} ({DATA.classes[DATA.labels[i]]})" for i in range(whole, whole + 5))
    assert any(f"steps skipped, not finite: samples {named} and {11 - whole} more" in line for line in lines)
    with pytest.raises(ValueError, match=r"not finite: samples no\. .* more than --skip_limit 3$"):
        fit(dataclasses.replace(config, out=str(tmp_path / "few"), skip_limit=3), data, log=quiet)


def test_a_run_prints_a_legend_and_a_row_per_epoch_in_per_cent(tmp_path):
    lines = []
    fit(tiny(tmp_path / "run", epochs=2), DATA, log=lines.append)
    at = next(i for i, line in enumerate(lines) if line.startswith("epoch "))
    legend, *rows = lines[at : at + 3]
    assert legend.split()[:5] == ["epoch", "points", "loss", "train", "val"]
    for number, row in enumerate(rows, 1):
        epoch, points, loss, train, val, speed, left = row.split()
        assert epoch == f"{number}/2"
        assert train[-1] == val.rstrip("*")[-1] == "%"
        assert len(row) <= len(legend) <= 79
        for name, shown in (("points", points), ("loss", loss), ("train", train), ("val", val.rstrip("*"))):
            assert row.index(shown) + len(shown) == legend.index(name) + len(name), (name, row)
        assert row.endswith(left)
        assert float(speed.replace(",", "")) > 0


def test_a_taken_or_missing_run_folder_is_one_clear_line(finished, tmp_path):
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        fit(finished[1], DATA, log=quiet)
    with pytest.raises(ValueError, match="checkpoint.pt: no checkpoint to resume from; a run that was killed in its"):
        fit(tiny(tmp_path / "nothing"), DATA, resume=True, log=quiet)


def test_a_run_without_out_gets_a_folder_of_its_own_and_leaves_the_others_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("mine")
    config, lines = tiny("", epochs=1), []
    fit(config, DATA, log=lines.append)
    run_seeds(config, [3], lambda one, resume: fit(one, DATA, log=quiet, resume=resume), log=quiet)
    assert lines[0].endswith("; runs/shapes-1/")
    assert read_config("runs/shapes-1").out == "runs/shapes-1"
    assert read_config("runs/shapes-2/seed-3").seed == 3
    assert (tmp_path / "config.json").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "runs"}
    with pytest.raises(ValueError, match="resume needs out, the folder of the run to go on with"):
        fit(config, DATA, log=quiet, resume=True)


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "metrics.jsonl", "result.json", "files.json"])
def test_a_folder_with_other_files_of_a_runs_names_is_left_as_it_is(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=f"already holds {name}, which a run would overwrite; choose another --out"):
        fit(tiny(tmp_path), DATA, log=quiet)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"mine": 1}')]


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").touch()
    for resume in (False, True):
        with pytest.raises(ValueError, match="file: is a file; choose a folder as --out"):
            fit(tiny(tmp_path / "file"), DATA, log=quiet, resume=resume)
    with pytest.raises(ValueError, match="file: is a file; choose a folder as --out"):
        run_seeds(tiny(tmp_path / "file"), [0], Mock(), log=quiet)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"schedule": "constant"}, {"schedule": "step", "decay_epochs": 1, "min_steps": 6}])
def test_a_run_that_goes_on_to_more_epochs_is_the_run_of_that_many(tmp_path, changes):
    changes |= {"early_points": 0, "optimizer": "adam", "ema": 0.9}
    fit(tiny(tmp_path / "whole", epochs=4, **changes), DATA, log=quiet)
    fit(tiny(tmp_path / "run", epochs=2, **changes), DATA, log=quiet)
    torch.manual_seed(5)
    fit(tiny(tmp_path / "run", epochs=4, **changes), DATA, resume=True, log=quiet)
    assert_ends_as(tmp_path / "run", tmp_path / "whole")
    assert len(read_metrics(tmp_path / "run")) == read_config(tmp_path / "run").epochs == 4


def test_other_epochs_that_cannot_be_are_one_line(tmp_path):
    fit(tiny(tmp_path / "cycle", epochs=2), DATA, log=quiet)
    line = "--epochs 4 differs from the run's own 2; resume cannot change it, as --schedule onecycle was made for that"
    with pytest.raises(ValueError, match=line):
        fit(tiny(tmp_path / "cycle", epochs=4), DATA, resume=True, log=quiet)
    fit(tiny(tmp_path / "run", epochs=2, schedule="constant"), DATA, log=quiet)
    with pytest.raises(ValueError, match="--epochs 1 is less than the 2 that are done"):
        fit(tiny(tmp_path / "run", epochs=1, schedule="constant"), DATA, resume=True, log=quiet)
    assert read_config(tmp_path / "run").epochs == read_config(tmp_path / "cycle").epochs == 2


@pytest.mark.parametrize("changes", [{"lr": 0.5}, {"rotate": 90.0}, {"label_smoothing": 0.0}, {"seed": 3}], ids=str)
def test_a_resumed_run_keeps_its_settings(finished, changes):
    out, config, _ = finished
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ((name, value),) = changes.items()
    line = f"--{name} {value} differs from the run's own {getattr(config, name)}; resume cannot change it"
    with pytest.raises(ValueError, match=line):
        fit(dataclasses.replace(config, **changes), DATA, resume=True, log=quiet)
    (seeds := out.parent / "seeds").mkdir(exist_ok=True)
    write_config(seeds, config, [0])
    with pytest.raises(ValueError, match=line):
        run_seeds(dataclasses.replace(config, **changes, out=str(seeds)), [0], Mock(), resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.slow
def test_the_command_goes_on_to_more_epochs_of_all_seeds(tmp_path, capsys):
    out = str(tmp_path / "runs")
    words = ["--dataset", "modelnet40", "--root", SAMPLES, *QUICK, "--min_steps", "1"]
    assert train.main([*words, "--seeds", "0", "1", "--schedule", "constant", "--out", out]) == 0
    assert train.main(["--resume", "--out", out, "--epochs", "2"]) == 0
    assert [len(read_metrics(tmp_path / "runs" / f"seed-{seed}")) for seed in (0, 1)] == [2, 2]
    assert read_config(tmp_path / "runs").epochs == 2
    line = error_of(capsys, train.main, ["--resume", "--out", out, "--epochs", "1"])
    assert "--epochs 1 is less than the 2 that are done" in line


SWAPPED = LabelledClouds(DATA.points, 1 - DATA.labels, DATA.classes)
RENAMED = LabelledClouds(DATA.points, DATA.labels, ["disc", "stick"])


@pytest.mark.parametrize(
    ("change", "data", "message"),
    [
        (lambda state: state | {"device": "cuda"}, DATA, "the run had device cuda, got cpu"),
        (lambda state: state | {"processes": 2}, DATA, "the run had processes 2, got 1"),
        (lambda state: {name: state[name] for name in state if name != "optimizer"}, DATA, "does not fit this run"),
        (dict, SWAPPED, "the run had other data to train on"),
        (dict, RENAMED, "the run had other data"),
    ],
)
def test_a_checkpoint_of_another_run_is_one_clear_line(finished, tmp_path, change, data, message):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    save_checkpoint(out / "checkpoint.pt", change(load_checkpoint(out / "checkpoint.pt")))
    with pytest.raises(ValueError, match=message) as caught:
        fit(dataclasses.replace(finished[1], out=str(out)), data, resume=True, log=quiet)
    assert "\n" not in str(caught.value)


def test_early_epochs_have_few_points_and_the_last_ones_all():
    config = TrainConfig(epochs=10, early_points=256, early_share=0.8)
    assert [config.points_in_epoch(epoch) for epoch in (0, 7, 8, 9)] == [256, 256, 1024, 1024]
    assert TrainConfig(epochs=1).points_in_epoch(0) == 1024
    assert TrainConfig(num_points=128).points_in_epoch(0) == 128


def test_devices_are_found_or_refused():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == torch.device("cpu")
    for other in ("gpu", "mps", "meta", "xpu"):
        with pytest.raises(ValueError, match=f"device must be auto, cpu, cuda or cuda:N, got '{other}'"):
            find_device(other)
    with pytest.raises(ValueError, match="device 'cuda:99' is not there"):
        find_device("cuda:99")
