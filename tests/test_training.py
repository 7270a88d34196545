"""Training: the same seed gives the same weights, a stopped run ends as an unbroken one, and what it refuses."""

import copy
import dataclasses
import json
import math
import shutil
import sys
from unittest.mock import Mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from pointnet import PointNetClassifier
from pointnet.datasets.transforms import random_cutmix
from pointnet.devices import find_device
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.metrics import ConfusionMatrix
from pointnet.files import write_atomically
from pointnet.models import load_model
from pointnet.training import TrainConfig, fit, run
from pointnet.training.checkpoint import load_checkpoint, save_checkpoint
from pointnet.training.feed import ResidentFeed, count_batches
from pointnet.training.fit import _open_run_folder
from pointnet.training.run import Run, augment, make_optimizer, make_schedule
from tests.helpers import assert_equal_states, quiet, tiny, two_shapes, weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run: (its folder, its config, what fit returned)."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("runs") / "finished"
    config = tiny(out)
    return out, config, fit(config, two_shapes(), two_shapes(seed=1), log=quiet)


def test_a_run_learns_and_leaves_the_files_of_the_contract(finished):
    out, config, result = finished
    names = {"config.yaml", "config.json", "metrics.jsonl", "model.safetensors", "checkpoint.pt", "result.json"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "result.json").read_text()) == result
    assert result["test"]["overall_accuracy"] >= 0.9
    assert result["test"]["count"] == 48
    assert set(result["test"]) == {"overall_accuracy", "mean_class_accuracy", "count"}
    names = {"test", "val", "selected_epoch", "seconds", "samples_per_second", "shares", "environment"}
    assert set(result) == names
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["num_points"] for line in lines] == [16, 16, 32, 32]
    best = max(lines, key=lambda line: (line["val_overall_accuracy"], -line["val_loss"]))
    assert result["selected_epoch"] == best["epoch"]
    assert result["val"]["overall_accuracy"] == best["val_overall_accuracy"]


def test_the_loaded_model_repeats_the_number_exactly(finished):
    out, _, result = finished
    model = load_model(out)
    assert not model.training
    assert model.classes == ("disc", "rod")
    assert model.preprocessing["num_points"] == 32
    scores = evaluate(model, two_shapes(seed=1))
    assert {name: scores[name] for name in result["test"]} == result["test"]


def test_the_same_seed_gives_the_same_weights_bit_for_bit(finished, tmp_path):
    out, config, _ = finished
    torch.manual_seed(123)  # nothing outside the run's own seed matters
    fit(dataclasses.replace(config, out=str(tmp_path / "again")), two_shapes(), log=quiet)
    assert_equal_states(weights(tmp_path / "again"), weights(out))
    fit(dataclasses.replace(config, out=str(tmp_path / "other"), seed=1), two_shapes(), log=quiet)
    assert not torch.equal(weights(tmp_path / "other")["logits.weight"], weights(out)["logits.weight"])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_and_resumed_run_ends_with_the_weights_of_the_unbroken_one(finished, tmp_path, stop_after):
    out, config, result = finished
    config = dataclasses.replace(config, out=str(tmp_path / "run"))

    def stop(metrics):
        if metrics["epoch"] == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        fit(config, two_shapes(), two_shapes(seed=1), log=quiet, after_epoch=stop)
    torch.manual_seed(99)
    resumed = fit(config, two_shapes(), two_shapes(seed=1), resume=True, log=quiet)
    assert_equal_states(weights(tmp_path / "run"), weights(out))
    assert_equal_states(load_model(tmp_path / "run").state_dict(), load_model(out).state_dict())
    assert resumed["test"] == result["test"]
    assert resumed["selected_epoch"] == result["selected_epoch"]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "cosine", "lr": 0.05},
        {"schedule": "constant", "rotate": 180.0, "mirror": True, "jitter": 0.01, "point_dropout": 0.5},
        {"precision": "bf16", "input_transform": True, "feature_transform": True, "epochs": 2},
        {"val_fraction": 0.0, "early_points": 0},
        {"optimizer": "adam", "weight_decay": 0.0, "schedule": "step", "decay_epochs": 1, "norm_momentum": 0.5},
        {"mix": "cutmix_k", "mix_share": 1.0, "precision": "bf16"},
    ],
)
def test_every_setting_trains(tmp_path, changes):
    result = fit(tiny(tmp_path / "run", **changes), two_shapes(), two_shapes(seed=1), log=quiet)
    assert math.isfinite(result["seconds"])
    assert result["test"]["overall_accuracy"] >= 0.5
    if changes.get("val_fraction") == 0:
        assert result["val"] is None
        assert result["selected_epoch"] == 4


def test_the_last_batch_is_never_a_single_cloud():
    for samples in range(2, 200):
        for batch_size in (2, 3, 8, 32):
            sizes = [len(part) for part in torch.arange(samples).tensor_split(count_batches(samples, batch_size))]
            assert min(sizes) >= 2, (samples, batch_size)
            assert sum(sizes) == samples
            assert max(sizes) <= batch_size + 1


def test_a_batch_size_that_leaves_one_over_trains(tmp_path):
    data = two_shapes().subset(torch.tensor([0, 1, 2, 24, 25]))
    fit(tiny(tmp_path / "run", batch_size=2, epochs=1, val_fraction=0.0), data, log=quiet)


def test_data_that_cannot_train_a_classifier_is_one_clear_line(tmp_path):
    data = two_shapes()
    with pytest.raises(ValueError, match="at least two classes to train on, got only 'disc'"):
        fit(tiny(tmp_path / "a"), data.subset(torch.arange(24)), log=quiet)
    with pytest.raises(ValueError, match="at least two classes to train on, got no shapes"):
        fit(tiny(tmp_path / "a"), data.subset(torch.arange(0)), log=quiet)
    with pytest.raises(ValueError, match="num_points must be 32, as the data has, got 64"):
        fit(tiny(tmp_path / "a", num_points=64), data, log=quiet)
    assert not (tmp_path / "a").exists()


def test_a_taken_or_missing_run_folder_is_one_clear_line(finished, tmp_path):
    out, config, _ = finished
    with pytest.raises(ValueError, match="already holds a run; go on with it by --resume"):
        fit(config, two_shapes(), log=quiet)
    with pytest.raises(ValueError, match="checkpoint.pt: no checkpoint to resume from"):
        fit(tiny(tmp_path / "nothing"), two_shapes(), resume=True, log=quiet)


def test_a_damaged_checkpoint_is_one_clear_line_and_a_failed_write_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 1, "x": torch.arange(3)})
    assert torch.equal(load_checkpoint(path)["x"], torch.arange(3))
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"bad": lambda: 0})
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged or not a checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def edit_config(**changes):
    def edit(out):
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps(config | changes))

    return edit


def swap_two_tensors(out):
    with safe_open(out / "model.safetensors", "pt") as file:
        state, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    first, second = "encoder.mlp1.layers.0.norm.weight", "encoder.mlp1.layers.1.norm.weight"
    state[first], state[second] = state[second], state[first]
    save_file(state, out / "model.safetensors", metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "config.json").unlink(), "no model here; a run folder holds config.json"),
        (lambda out: (out / "config.json").write_text("{"), "not a model's config"),
        (lambda out: (out / "config.json").write_text('{"model": "x"}'), "does not describe a model"),
        (edit_config(preprocessing={}), "does not describe a model"),
        (edit_config(preprocessing={"num_points": "x"}), "num_points must be an integer"),
        (edit_config(arguments={"num_classes": 3}), "must name its 3 classes, each once, got 2 names"),
        (edit_config(arguments={"num_classes": 2, "in_channels": 6}), "does not fit the model in config.json"),
        (swap_two_tensors, "damaged: its content does not match the sha256"),
        (lambda out: (out / "model.safetensors").write_bytes(b"x" * 50), "not a readable safetensors file"),
        (lambda out: (out / "model.safetensors").unlink(), "not a readable safetensors file"),
        ("a flipped bit", "damaged: its content does not match the sha256"),
    ],
)
def test_a_damaged_model_is_one_clear_line(finished, tmp_path, damage, message):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    if damage == "a flipped bit":
        content = bytearray((out / "model.safetensors").read_bytes())
        content[-5] ^= 1
        (out / "model.safetensors").write_bytes(content)
    else:
        damage(out)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(out)
    assert "\n" not in str(caught.value)


def test_a_run_stopped_before_its_first_checkpoint_can_be_started_again(tmp_path):
    config = tiny(tmp_path / "run", epochs=1)
    _open_run_folder(tmp_path / "run", config, two_shapes())
    fit(config, two_shapes(), log=quiet)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_run_stopped_between_its_writes_ends_as_the_unbroken_one(finished, tmp_path, monkeypatch):
    out, config, _ = finished
    config = dataclasses.replace(config, out=str(tmp_path / "run"))

    def stop_at_epoch_3(path, content):
        if content["epoch"] == 3:
            raise Stopped
        save_checkpoint(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_checkpoint", stop_at_epoch_3)
        with pytest.raises(Stopped):
            fit(config, two_shapes(), log=quiet)
    fit(config, two_shapes(), resume=True, log=quiet)
    assert_equal_states(weights(tmp_path / "run"), weights(out))
    assert_equal_states(load_model(tmp_path / "run").state_dict(), load_model(out).state_dict())
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"device": "cuda"}, "the run had device cuda, got cpu"),
        (lambda state: state | {"samples": 7}, "the run had samples 7, got 36"),
        (lambda state: state | {"processes": 2}, "the run had processes 2, got 1"),
        (
            lambda state: {name: state[name] for name in ("device", "samples", "data", "processes")},
            "does not fit this run",
        ),
        (lambda state: state | {"model": {}}, "does not fit this run"),
    ],
)
def test_a_checkpoint_of_another_run_is_one_clear_line(finished, tmp_path, change, message):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    save_checkpoint(out / "checkpoint.pt", change(load_checkpoint(out / "checkpoint.pt")))
    with pytest.raises(ValueError, match=message) as caught:
        fit(dataclasses.replace(finished[1], out=str(out)), two_shapes(), resume=True, log=quiet)
    assert "\n" not in str(caught.value)


def test_the_test_part_is_measured_with_the_chosen_epochs_weights(tmp_path, monkeypatch):
    """Even if it is not the last: here the first epoch is made to look best."""
    looks = iter([1.0, 0.2, 0.1, 0.0])

    def evaluate_or_pretend(model, data, *rest, **options):
        scores = evaluate(model, data, *rest, **options)
        return scores if data is test else scores | {"overall_accuracy": next(looks)}

    test = two_shapes(seed=1)
    monkeypatch.setattr(sys.modules["pointnet.training.fit"], "evaluate", evaluate_or_pretend)
    result = fit(tiny(tmp_path / "run"), two_shapes(), test, log=quiet)
    assert result["selected_epoch"] == 1
    kept = load_model(tmp_path / "run")
    assert not torch.equal(kept.logits.weight, weights(tmp_path / "run")["logits.weight"])
    wanted = evaluate(kept, test)
    assert result["test"] == {name: wanted[name] for name in result["test"]}


def test_a_step_that_is_not_finite_changes_nothing_and_names_its_samples(tmp_path):
    data = two_shapes()
    data.points[3, 0, 7] = torch.nan
    data.points[40, 2, 1] = torch.inf
    lines = []
    fit(tiny(tmp_path / "run", val_fraction=0.0, early_points=0), data, log=lines.append)
    told = [line for line in lines if "skipped" in line]
    assert len(told) == 4
    assert "epoch 1: 2 of 16 steps skipped, not finite: samples no. 3 (disc), no. 40 (rod)" in told
    state = weights(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert int(state["encoder.mlp1.layers.0.norm.num_batches_tracked"]) == 4 * 14
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["broken_samples"] for epoch in metrics] == [[3, 40]] * 4
    assert all(0 < epoch["train_loss"] < 10 for epoch in metrics)


def test_a_run_on_a_gpu_named_by_number_makes_it_the_current_one(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setitem(run.MODELS, "pointnet", Mock(side_effect=StopIteration))  # and no further, without one
    with pytest.raises(StopIteration):
        Run.start(tiny(tmp_path), two_shapes(), torch.device("cuda:1"))
    assert chosen == [torch.device("cuda:1")]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_run_whose_first_step_is_skipped_goes_on_as_one_that_begins_with_the_second(tmp_path, optimizer):
    data, ends = two_shapes(), []
    for skip in (False, True):
        one = Run.start(tiny(tmp_path, optimizer=optimizer, schedule="constant"), data, torch.device("cpu"))
        generator = torch.get_rng_state()
        if skip:
            one.step(data.points[:8] * torch.nan, data.labels[:8])
        torch.set_rng_state(generator)
        one.step(data.points[:8], data.labels[:8])
        ends.append(one)
    assert_equal_states(ends[1].model.state_dict(), ends[0].model.state_dict())
    states = [one.optimizer.state_dict()["state"] for one in ends]
    for index, state in states[1].items():
        assert_equal_states(state, states[0][index])


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_skipped_step_leaves_weights_statistics_and_optimizer_as_they_were(tmp_path, optimizer):
    data = two_shapes()
    one = Run.start(tiny(tmp_path, optimizer=optimizer, schedule="constant"), data, torch.device("cpu"))
    one.step(data.points[:8], data.labels[:8])
    before = copy.deepcopy((one.model.state_dict(), one.optimizer.state_dict()["state"]))
    broken = data.points[:8].clone()
    broken[3, 1] = torch.nan
    _, _, good = one.step(broken, data.labels[:8])
    assert not good
    assert_equal_states(one.model.state_dict(), before[0])
    for index, state in one.optimizer.state_dict()["state"].items():
        assert_equal_states(state, before[1][index])
    _, _, good = one.step(data.points[:8], data.labels[:8])
    assert good
    assert not torch.equal(one.model.logits.weight, before[0]["logits.weight"])


def test_too_many_skipped_steps_end_the_run(tmp_path):
    data = two_shapes()
    data.points[:20] = torch.nan
    with pytest.raises(ValueError, match=r"more than --skip_limit 3$") as caught:
        fit(tiny(tmp_path / "run", skip_limit=3), data, log=quiet)
    assert "not finite: samples no. 0 (disc), no. 1 (disc)" in str(caught.value)
    assert " more; that makes" in str(caught.value)


def test_a_rate_that_blows_up_is_told_as_such(tmp_path):
    with pytest.raises(ValueError, match="the loss was not finite; try a lower --lr"):
        fit(tiny(tmp_path / "run", lr=1e30, optimizer="sgd", schedule="constant"), two_shapes(), log=quiet)


def test_the_average_is_what_is_measured_and_kept(tmp_path):
    config = tiny(tmp_path / "run", ema=0.9, val_fraction=0.0, epochs=2)
    fit(config, two_shapes(), log=quiet)
    kept, last = load_model(tmp_path / "run").state_dict(), weights(tmp_path / "run")
    assert not torch.equal(kept["logits.weight"], last["logits.weight"])
    assert_equal_states(kept, load_checkpoint(tmp_path / "run" / "checkpoint.pt")["averaged"])


def test_the_average_follows_the_first_weights_faster(tmp_path):
    data = two_shapes()
    one = Run.start(tiny(tmp_path, ema=0.4), data, torch.device("cpu"))
    wanted = one.model.logits.weight.detach().clone()
    for step in range(1, 7):
        one.step(data.points[:8], data.labels[:8])
        kept = min(0.4, (1 + step) / (10 + step))
        wanted = kept * wanted + (1 - kept) * one.model.logits.weight.detach()
        torch.testing.assert_close(one.averaged.logits.weight, wanted)
    assert int(one.averaged.encoder.mlp1[0].norm.num_batches_tracked) == 6


def test_the_average_of_a_short_run_is_a_network_as_good_as_the_last(tmp_path):
    """Its statistics of batch norm too: a mean with those of the first steps would fit no network."""
    data, test = two_shapes(), two_shapes(seed=1)
    fit(tiny(tmp_path / "run", ema=0.999, val_fraction=0.0, early_points=0), data, log=quiet)
    averaged = load_model(tmp_path / "run")
    last = copy.deepcopy(averaged)
    last.load_state_dict(weights(tmp_path / "run"))
    accuracy, wanted = (evaluate(model.eval(), test)["overall_accuracy"] for model in (averaged, last))
    assert wanted >= 0.9
    assert accuracy >= wanted - 0.05


def test_a_gradient_is_cut_to_its_norm(tmp_path):
    data = two_shapes()
    norms = []
    for clip in (0.0, 1e-3):
        config = tiny(tmp_path, clip=clip, optimizer="sgd", schedule="constant", lr=1.0, weight_decay=0.0)
        one = Run.start(config, data, torch.device("cpu"))
        before = [p.detach().clone() for p in one.model.parameters()]
        one.step(data.points[:8], data.labels[:8])
        moved = torch.stack([(p - b).norm() for p, b in zip(one.model.parameters(), before, strict=True)]).norm()
        norms.append(float(moved.detach()))
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_steps_loss_is_smoothed_cross_entropy_and_the_regularization(tmp_path, mixed):
    config = tiny(tmp_path / "run", label_smoothing=0.3, feature_transform=True, regularization_weight=0.5)
    data = two_shapes()
    one = Run.start(config, data, torch.device("cpu"))
    for module in one.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.nn.init.normal_(one.model.encoder.feature_tnet.matrix.weight, std=0.1)
    twin = copy.deepcopy(one.model)
    share = torch.rand(30, 1) if mixed else torch.ones(30, 1)
    shares = share * F.one_hot(data.labels[:30], 2) + (1 - share) * F.one_hot(1 - data.labels[:30], 2)
    loss, _, good = one.step(data.points[:30], shares if mixed else data.labels[:30])
    assert good
    logits, transforms = twin(data.points[:30], return_transforms=True)
    log_probabilities = logits.log_softmax(1)
    picked = (shares * log_probabilities).sum(1)
    wanted = -(0.7 * picked + 0.3 * log_probabilities.mean(1)).mean() + twin.regularization(transforms)
    torch.testing.assert_close(loss, wanted)
    assert twin.regularization(transforms) > 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 0.0},
        {"precision": "bf16"},
        {"scale": 1.3},
        {"shift": 0.1},
        {"rotate": 90.0},
        {"jitter": 0.05},
        {"point_dropout": 0.5},
        {"weight_decay": 1.0},
        {"lr": 1e-3},
        {"early_points": 8},
        {"batch_size": 6},
        {"schedule": "cosine"},
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"schedule": "step", "decay_epochs": 1},
        {"mix": "cutmix_r"},
        {"mix": "cutmix_k"},
    ],
    ids=str,
)
def test_every_setting_makes_a_difference(tmp_path, change):
    data = two_shapes(per_class=6)
    for name, changes in (("one", {}), ("other", change)):
        fit(tiny(tmp_path / name, epochs=2, **changes), data, log=quiet)
    one, other = (weights(tmp_path / name)["logits.weight"] for name in ("one", "other"))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("kind", "nearest"), [("cutmix_r", False), ("cutmix_k", True)])
def test_a_batch_is_mixed_as_the_config_says(kind, nearest):
    data = two_shapes(per_class=4)
    config = tiny("unused", mix=kind, mix_share=0.9, mix_beta=0.3)
    points, targets = run.mix(data.points, data.labels, 2, config, torch.Generator().manual_seed(5))
    labels = F.one_hot(data.labels, 2).float()
    wanted = random_cutmix(data.points, labels, nearest, 0.9, 0.3, torch.Generator().manual_seed(5))
    assert torch.equal(points, wanted[0])
    assert torch.equal(targets, wanted[1])


@pytest.mark.parametrize(("kept", "wanted"), [(0.7, 1.0), (0.3, 0.0)])
def test_a_mixed_cloud_is_of_the_class_that_most_of_it_comes_from(tmp_path, monkeypatch, kept, wanted):
    """In the training accuracy; here a network that knows the labels is right where most of a cloud is its own."""

    def with_the_other_class(points, labels, classes, config, generator):
        own = F.one_hot(labels, classes).float()
        known.append(own)
        return points, kept * own + (1 - kept) * (1 - own)

    def guess(self, x, targets, share):
        return torch.ones(()), known[-1], torch.tensor(True)

    known = []
    monkeypatch.setattr(run, "mix", with_the_other_class)
    monkeypatch.setattr(Run, "step", guess)
    data = two_shapes(per_class=6)
    one = Run.start(tiny(tmp_path), data, torch.device("cpu"))
    one.train_epoch(ResidentFeed(data, torch.device("cpu")), lambda: None)
    assert one.end_epoch()["train_accuracy"] == wanted


def test_early_epochs_have_few_points_and_the_last_ones_all():
    config = TrainConfig(epochs=10, early_points=256, early_share=0.8)
    assert [config.points_in_epoch(epoch) for epoch in (0, 7, 8, 9)] == [256, 256, 1024, 1024]
    assert TrainConfig(epochs=1).points_in_epoch(0) == 1024
    assert TrainConfig(num_points=128).points_in_epoch(0) == 128


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"early_points": -1}, "early_points must be at least 0, got -1"),
        ({"val_fraction": 1.0}, "val_fraction must be from 0 to 0.9, got 1.0"),
        ({"scale": 0.5}, "scale must be at least 1, got 0.5"),
        ({"mix_beta": 0.0}, "mix_beta must be at least 0.01, got 0.0"),
        ({"mix_share": 1.5}, "mix_share must be from 0 to 1, got 1.5"),
        ({"temperature": 0.5}, "temperature must be at least 1, got 0.5"),
        ({"distill": -0.1}, "distill must be from 0 to 1, got -0.1"),
        ({"decay_epochs": 0}, "decay_epochs must be at least 1, got 0"),
        ({"dataset": "modelnet4"}, r"no dataset 'modelnet4'; did you mean 'modelnet40'\? \(known: shapes, "),
        ({"model": "pointnett"}, r"no model 'pointnett'; did you mean 'pointnet'\?"),
        ({"model": "pointnet_part"}, r"no model 'pointnet_part'; .* \(known: pointnet\)"),
    ],
)
def test_a_setting_out_of_range_is_one_clear_line(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_devices_are_found_or_refused():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, got 'gpu'"):
        find_device("gpu")
    for other in ("mps", "meta", "xpu"):
        with pytest.raises(ValueError, match=f"device must be auto, cpu, cuda or cuda:N, got '{other}'"):
            find_device(other)
    with pytest.raises(ValueError, match="device 'cuda:99' is not there"):
        find_device("cuda:99")


def test_only_matrices_are_decayed():
    model = PointNetClassifier(3)
    decayed, kept = make_optimizer(model, TrainConfig()).param_groups
    assert decayed["weight_decay"] == 0.05
    assert all(p.dim() > 1 for p in decayed["params"])
    assert kept["weight_decay"] == 0
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_a_schedule_peaks_at_lr_and_ends_where_it_should(schedule):
    config = TrainConfig(schedule=schedule, lr=0.1, optimizer="sgd")
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    steps = make_schedule(optimizer, config, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    assert max(rates) == pytest.approx(0.1, rel=2e-3)
    assert (rates[-1] < 1e-3) == (schedule != "constant")


def test_without_augmentation_the_points_are_left_as_they_are():
    x = torch.randn(4, 3, 20)
    off = TrainConfig(scale=1.0, shift=0.0)
    assert augment(x, off, torch.Generator()) is x
    everything = TrainConfig(rotate=10.0, mirror=True, jitter=0.01, point_dropout=0.5)
    assert augment(x, everything, torch.Generator().manual_seed(0)).shape == x.shape


def test_accuracies_count_every_sample_once_and_every_occurring_class_alike():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]))
    confusion.update(torch.tensor([1]), torch.tensor([1]))
    assert confusion.result() == {
        "overall_accuracy": 0.75,
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
        "count": 4,
    }


def test_evaluation_leaves_the_model_in_its_mode_and_does_not_depend_on_the_batch():
    model = PointNetClassifier(2, input_transform=False, feature_transform=False).train()
    data = two_shapes(per_class=20)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = evaluate(model, data)
    assert model.training
    assert_equal_states(model.state_dict(), state)
    model.eval()
    alone = sum(int(model(points[None]).argmax()) == label for points, label in (data[i] for i in range(len(data))))
    assert scores["overall_accuracy"] == alone / len(data)


class Compass(torch.nn.Module):
    """Scores two classes by which way the mean point lies, east or west; it is as sure as it is far out."""

    def forward(self, x):
        east = x[:, 0].mean(1)
        return torch.stack([4 * east, -4 * east], 1)


def test_votes_are_the_mean_probability_over_even_rotations():
    data = two_shapes()
    data.points[:, 0] += 0.3
    x, y = data.points[:, 0].mean(1), data.points[:, 1].mean(1)
    degrees = torch.tensor([0.0, 120.0, 240.0]).deg2rad()
    easts = degrees.cos()[:, None] * x - degrees.sin()[:, None] * y
    wanted = torch.stack([4 * easts, -4 * easts], -1).softmax(-1).mean(0)
    scores = evaluate(Compass(), data, votes=3)
    right = wanted.argmax(1) == data.labels
    assert scores["overall_accuracy"] == pytest.approx(float(right.float().mean()))
    picked = wanted[torch.arange(len(data)), data.labels]
    assert scores["loss"] == pytest.approx(float(-picked.log().mean()), rel=1e-5)
    assert evaluate(Compass(), data)["loss"] != pytest.approx(scores["loss"], rel=1e-2)
    with pytest.raises(ValueError, match="votes must be at least 1, got 0"):
        evaluate(Compass(), data, votes=0)
