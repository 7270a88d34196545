"""Recipes: what they hold, how flags, files and runs go with them; what they are made of, which resumes exactly."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st

from pointnet.commands import train
from pointnet.commands.train_flags import check_used, parse_command
from pointnet.models import PointNetClassifier
from pointnet.training import TrainConfig, fit
from pointnet.training.fit import lines_on_idle
from pointnet.training.optimizer import make_optimizer, make_schedule
from pointnet.training.recipes import RECIPES, to_flags
from pointnet.training.run import Run
from pointnet.training.run_folder import read_config, write_config
from pointnet.world import World
from tests.forms import forms
from tests.helpers import ON_SAMPLES, ROOT, SAMPLES, error_of, halves, quiet, tiny, two_shapes

CPU = torch.device("cpu")


def rates(config: TrainConfig, per_epoch: int) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    schedule = make_schedule(optimizer, config, config.epochs * per_epoch)
    found = []
    for _ in range(config.epochs * per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("per_epoch", "decay_epochs"), [(3, 20), (7, 4)])
def test_the_step_schedule_is_the_released_codes(per_epoch, decay_epochs):
    """There max(0.001 * 0.7 ** (step * 32 // decay_step), 0.00001), decay_step in clouds."""
    config = dataclasses.replace(RECIPES["paper"], decay_epochs=decay_epochs)
    decay_step = decay_epochs * per_epoch * 32
    released = [max(0.001 * 0.7 ** (step * 32 // decay_step), 0.00001) for step in range(250 * per_epoch)]
    assert rates(config, per_epoch) == pytest.approx(released, rel=1e-12)
    assert (released[-1] == 0.00001) == (decay_epochs == 4)
    warm = rates(dataclasses.replace(config, warmup=0.1), per_epoch)
    assert warm[25 * per_epoch :] == pytest.approx(released[25 * per_epoch :])


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_a_schedule_peaks_at_lr_and_ends_where_it_should(schedule):
    found = rates(TrainConfig(schedule=schedule, lr=0.1, optimizer="sgd", epochs=10), 10)
    assert max(found) == pytest.approx(0.1, rel=2e-3)
    assert (found[-1] < 1e-3) == (schedule != "constant")


def test_batch_norms_momentum_is_the_released_codes():
    """There 1 - min(0.99, 1 - 0.5 * 0.5 ** (step * 32 // decay_step)) of a batch is taken."""
    config = RECIPES["paper"]
    released = [1 - min(0.99, 1 - 0.5 * 0.5 ** (epoch // 20)) for epoch in range(250)]
    assert [config.norm_momentum_in_epoch(epoch) for epoch in range(250)] == pytest.approx(released, rel=1e-12)
    assert released[0] == 0.5
    assert released[-1] == pytest.approx(0.01)
    assert TrainConfig().norm_momentum_in_epoch(1000) == torch.nn.BatchNorm1d(1).momentum
    assert TrainConfig(norm_momentum=0.001).norm_momentum_in_epoch(1000) == 0.001


def test_running_statistics_take_what_the_epochs_momentum_says(tmp_path):
    """Two epochs of one step each: 0.5 of the first batch, then a quarter of the second."""
    data = two_shapes(per_class=4)
    config = tiny(tmp_path, epochs=2, batch_size=8, early_points=0, scale=1.0, shift=0.0, lr=0.0)
    config = dataclasses.replace(config, norm_momentum=0.5, norm_decay_rate=0.5, decay_epochs=1, weight_decay=0.0)
    one = Run.start(config, data, CPU, World())
    layer = one.step.model.encoder.mlp1[0]
    mean = layer.conv(data.points).mean((0, 2)).detach()
    wanted = torch.zeros_like(mean)
    for momentum in (0.5, 0.25):
        list(one.steps())
        one.end_epoch()
        wanted = wanted.lerp(mean, momentum)
        torch.testing.assert_close(layer.norm.running_mean, wanted)


def test_the_papers_recipe_is_the_published_protocol():
    config = RECIPES["paper"]
    optimizer = make_optimizer(PointNetClassifier(3), config)
    assert type(optimizer) is torch.optim.Adam
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 0.0)
        assert not group["decoupled_weight_decay"]
    assert (config.batch_size, config.epochs, config.label_smoothing, config.clip, config.ema) == (32, 250, 0, 0, 0)
    assert (config.rotate, config.jitter, config.scale, config.shift) == (180.0, 0.01, 1.0, 0.0)
    assert (config.point_dropout, config.teacher) == (0.0, ())
    assert {config.points_in_epoch(epoch) for epoch in range(250)} == {1024}
    assert config.val_fraction > 0


@pytest.mark.parametrize("name", forms(RECIPES, "paper", "modern", "edgenet", "finetune", "part", "scene"))
def test_a_recipe_trains_and_comes_back_from_its_file(name, tmp_path):
    config = RECIPES[name]
    few = two_shapes(per_class=4) if config.task == "classification" else halves(config.task, 4, 32)
    if config.task == "classification":
        config = dataclasses.replace(config, teacher=("runs/a", "runs/b c"))
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    assert parse_command(["--config", str(tmp_path / "config.yaml")]).config == config
    rotate = 180.0 if config.init else config.rotate  # as the weights were taught
    assert dataclasses.replace(config, teacher=(), rotate=rotate) == parse_command(["--recipe", name]).config
    small = tiny(tmp_path / "run", epochs=1)
    names = ("epochs", "min_steps", "batch_size", "num_points", "width", "val_fraction", "out")
    sizes = {key: getattr(small, key) for key in names}
    fit(dataclasses.replace(RECIPES[name], **sizes, device="cpu"), few, log=quiet)


@pytest.mark.parametrize("task", ["part", "scene"])
def test_a_task_begins_with_its_own_recipe(task):
    assert parse_command(["--task", task]).config == RECIPES[task]
    assert parse_command(["--lr", "0.5", f"--task={task}"]).config == dataclasses.replace(RECIPES[task], lr=0.5)
    paper = dataclasses.replace(RECIPES[f"paper_{task}"], seed=3)
    for words in (["--task", task], []):
        assert parse_command([*words, "--recipe", f"paper_{task}", "--seed", "3"]).config == paper


def test_shapes_begin_with_their_own_recipe_and_other_data_sets_with_the_plain_defaults():
    assert parse_command([]).config == parse_command(["--dataset", "shapes"]).config == RECIPES["shapes"]
    assert parse_command(["--tnet_width", "1"]).config == dataclasses.replace(RECIPES["shapes"], tnet_width=1.0)
    assert parse_command(["--dataset", "modelnet40"]).config == TrainConfig(dataset="modelnet40")


def test_flags_win_over_the_recipe_wherever_they_stand_and_the_run_holds_all_settings(tmp_path):
    out = tmp_path / "run"
    words = ["--jitter", "0.02", "--recipe", "paper", *ON_SAMPLES]
    assert train.main([*words, "--out", str(out)]) == 0
    changes = {"num_points": 64, "early_points": 0, "batch_size": 8, "device": "cpu", "out": str(out), "epochs": 1}
    changes |= {"input_transform": False, "feature_transform": False, "dataset": "modelnet40", "root": SAMPLES}
    assert read_config(out) == dataclasses.replace(RECIPES["paper"], jitter=0.02, width=0.1, **changes)
    assert "recipe:" not in (out / "config.yaml").read_text()
    config, resume, *_ = parse_command(["--resume", "--out", str(out)])
    assert resume
    assert config == read_config(out)
    assert parse_command(["--recipe=fast", "--seeds", "4", "2"]).seeds == [4, 2]


def test_a_recipe_that_cannot_be_is_one_line(capsys, tmp_path):
    path = tmp_path / "config.yaml"
    write_config(tmp_path, TrainConfig())
    for words, message in (
        (["--recipe", "papr"], "no recipe 'papr'; did you mean 'paper'? (known: paper, modern, upright, fast, "),
        (["--recipe", "paper", "--task", "part"], "the recipe paper is for --task classification, got part"),
        (["--recipe", "paper", "--config", str(path)], "--recipe cannot be given with --config, whose settings are"),
        (["--recipe", "paper", "--resume", "--out", str(tmp_path)], "leave out --config and --recipe"),
        (["--recipe"], "--recipe"),
    ):
        assert message in error_of(capsys, train.main, words), words


def test_a_resumed_run_takes_words_of_its_own_whatever_its_recipe(tmp_path):
    config = dataclasses.replace(RECIPES["part"], dataset="shapenetpart", out=str(tmp_path))
    write_config(tmp_path, config)
    for words in (["--dataset", "shapenetpart"], ["--task", "part"], ["--overlap", "0.5", "--epochs", "48"]):
        assert parse_command(["--resume", "--out", str(tmp_path), *words]).config == config


def test_the_test_part_is_opened_only_if_wanted(tmp_path, opened, capsys):
    words = [*ON_SAMPLES, "--out", str(tmp_path / "run")]
    assert train.main([*words, "--test", "false"]) == 0
    assert opened == ["train"]
    assert "\nthe test split was not opened\nepoch 1 of 1" in capsys.readouterr().out
    assert '"test": null' in (tmp_path / "run" / "result.json").read_text()
    assert train.main(["--resume", "--out", str(tmp_path / "run")]) == 0
    assert opened == ["train", "train"]
    line = error_of(capsys, train.main, ["--resume", "--out", str(tmp_path / "run"), "--test", "true"])
    assert "--test True differs from the run's own False" in line


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "root": st.sampled_from(["my data", "it's", "-"]),
        "lr": st.floats(1e-8, 10),
        "epochs": st.integers(1, 999),
        "test": st.booleans(),
        "compile": st.booleans(),
        "teacher": st.sampled_from([("a",), ("a b", "c")]),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "dataset": st.sampled_from(["folder", "modelnet10"]),
        "early_points": st.sampled_from([0, 128]),
        "schedule": st.sampled_from(["cosine", "onecycle", "step"]),
    },
)


@given(SETTINGS, st.sampled_from([TrainConfig(), *RECIPES.values()]))
def test_the_words_of_settings_are_read_back(changes, recipe):
    try:
        config = dataclasses.replace(recipe, **changes)
    except ValueError:  # a teacher or another's data set
        reject()
    unused = {name: getattr(config, name) for name in config.idle()}
    assert dataclasses.replace(parse_command(to_flags(config)).config, **unused) == config


# Each setting that may change nothing: where it does not, and where it does.
IDLE = {
    "restrict": ({}, {"task": "part", "dataset": "shapes"}),
    "unknown_category": ({}, {"task": "part", "dataset": "shapes"}),
    "overlap": ({}, {"task": "part", "dataset": "shapes"}),
    "distill": ({}, {"teacher": ("a",)}),
    "temperature": ({}, {"teacher": ("a",)}),
    "warmup": ({}, {"schedule": "cosine"}),
    "decay_rate": ({"norm_decay_rate": 0.5, "decay_epochs": 2}, {"schedule": "step", "decay_epochs": 2}),
    "decay_epochs": ({}, {"norm_decay_rate": 0.5}),
    "early_share": ({"early_points": 0}, {}),
    "trunk_lr": ({"init": "a", "freeze": True}, {"init": "a"}),
    "regularization_weight": ({"feature_transform": False}, {"feature_transform": False, "init": "a"}),
}


def course(config):
    """The learning rates, points and momenta of a run."""
    model = PointNetClassifier(2, widths=((4,), (4,)))
    model.encoder.requires_grad_(not config.freeze)
    optimizer = make_optimizer(model, config)
    schedule, steps = make_schedule(optimizer, config, 40), []
    for epoch in range(config.epochs):
        steps.append((schedule.get_last_lr(), config.points_in_epoch(epoch), config.norm_momentum_in_epoch(epoch)))
        optimizer.step()
        schedule.step()
    return steps


@pytest.mark.parametrize("name", IDLE)
def test_only_a_setting_that_changes_nothing_counts_as_such(name):
    idle, used = (TrainConfig(**changes) for changes in IDLE[name])
    assert name in idle.idle().keys() <= IDLE.keys()
    assert name not in used.idle()
    other = {"restrict": False, "decay_epochs": 3, "temperature": 5.0}.get(name, 0.3)
    assert getattr(idle, name) != other
    assert course(dataclasses.replace(idle, **{name: other})) == course(idle)
    if name in ("warmup", "decay_rate", "decay_epochs", "early_share"):
        assert course(dataclasses.replace(used, **{name: other})) != course(used)
    if name == "regularization_weight":  # of the T-Net that PointNet alone has
        assert name in TrainConfig(model="dgcnn").idle()
    assert [*lines_on_idle(idle)] == [*lines_on_idle(used)] == []
    lines = [*lines_on_idle(dataclasses.replace(idle, **{name: other}))]
    assert lines == [f"{name} changes nothing: it is for {idle.idle()[name]}"]
    check_used(dataclasses.replace(used, **{name: other}), [name])
    with pytest.raises(ValueError, match=f"--{name} is for .*; it would change nothing"):
        check_used(dataclasses.replace(idle, **{name: other}), [name])


def test_a_run_prints_each_setting_that_was_chosen_and_changes_nothing(tmp_path):
    lines = []
    fit(tiny(tmp_path, epochs=1, warmup=0.2, overlap=0.5), two_shapes(), log=lines.append)
    found = [line for line in lines if "changes nothing" in line]
    assert found == [
        "overlap changes nothing: it is for --task part, not classification",
        "warmup changes nothing: it is for the other schedules, as onecycle has its own",
    ]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("optimizer", "adagrad"),
        ("schedule", "linear"),
        ("class_weights", "balance"),
        ("precision", "fp16"),
        ("up", "w"),
    ],
)
def test_an_unknown_word_is_refused_in_python_too(name, word):
    with pytest.raises(ValueError, match=f"{name} must be .*, got '{word}'"):
        TrainConfig(**{name: word})


def test_values_of_other_types_become_the_settings_own_where_that_is_exact(tmp_path):
    values = {"lr": np.float64(1e-3), "seed": np.int64(7), "mirror": np.True_, "clip": 2, "out": tmp_path / "é"}
    values |= {"teacher": [tmp_path, "b"], "optimizer": np.str_("adam")}
    config = TrainConfig(**values)
    own = {"lr": 1e-3, "seed": 7, "mirror": True, "clip": 2.0, "out": str(tmp_path / "é"), "optimizer": "adam"}
    own |= {"teacher": (str(tmp_path), "b")}
    assert {name: (getattr(config, name), type(getattr(config, name))) for name in own} == {
        name: (value, type(value)) for name, value in own.items()
    }
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("input_transform", "false", "true or false, got 'false'"),
        ("mirror", 1, "true or false, got 1"),
        ("epochs", "2", "a whole number, got '2'"),
        ("epochs", 2.5, "a whole number, got 2.5"),
        ("epochs", True, "a whole number, got True"),
        ("lr", "1e-3", "a number, got '1e-3'"),
        ("lr", None, "a number, got None"),
        pytest.param("lr", 10**400, "a number, got 1000", id="lr-huge"),
        ("teacher", "pointnet_shapes", "a list of words, got 'pointnet_shapes'"),
        ("teacher", [1], r"a list of words, got \[1\]"),
        ("out", 5, "a word, got 5"),
        ("optimizer", ["adam"], r"adamw or adam or sgd, got \['adam'\]"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(name, value, wanted):
    with pytest.raises(ValueError, match=f"^{name} must be {wanted}") as caught:
        TrainConfig(**{name: value})
    assert "\n" not in str(caught.value)


def test_the_settings_of_the_records_load_although_some_were_removed_since():
    for path in (ROOT / "docs" / "records").glob("*/config.yaml"):
        assert read_config(path.parent).out.startswith("runs/")


def test_a_removed_setting_that_was_used_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("epochs: 3\nmix: cutmix_r\nmix_share: 0.2\n")
    with pytest.raises(ValueError, match="config.yaml: no setting 'mix'"):
        read_config(tmp_path)
