"""Starting from trained weights: what is taken and what is new, what stays as it is, and what is refused."""

import copy
import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from pointnet import load_model, predict
from pointnet.commands.train_flags import parse_command
from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.evaluation.contract import Contract
from pointnet.models import MODELS, PointNetModel
from pointnet.training import TrainConfig, fit
from pointnet.training.network import StartingWeights, set_training
from pointnet.training.optimizer import make_optimizer, make_schedule
from pointnet.training.run import Run
from pointnet.training.run_folder import read_config
from pointnet.world import World
from tests.forms import forms
from tests.helpers import (
    SMALL,
    assert_ends_as,
    assert_equal_states,
    described,
    fit_in_two,
    halves,
    quiet,
    small,
    started,
    tiny,
    two_shapes,
    weights,
)

TASKED = ("pointnet", "pointnet_part", "pointnet_scene")
WITH_TNETS = {"input_transform": True, "feature_transform": True}


def other_shapes(**options) -> LabelledClouds:
    """The same two shapes under other names."""
    data = two_shapes(**options)
    data.classes = ("plate", "stick")
    return data


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """The folder of a short run on discs and rods."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("trained") / "run"
    fit(tiny(out, epochs=3, **WITH_TNETS), two_shapes(), log=quiet)
    return str(out)


@pytest.fixture(scope="module")
def labeller(tmp_path_factory) -> str:
    """The folder of a short run on the parts of plates and rods, which have four channels."""
    out = tmp_path_factory.mktemp("trained") / "parts"
    fit(small(out, "part", epochs=1, **WITH_TNETS), halves("part", 4), log=quiet)
    return str(out)


def part_of(model: PointNetModel, name: str) -> dict[str, Tensor]:
    return dict(model.get_submodule(name).state_dict())


def same(one: PointNetModel, other: PointNetModel, name: str) -> bool:
    """Whether this part of two networks has the same weights."""
    first, second = part_of(one, name), part_of(other, name)
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("kind", TASKED)
def test_another_number_of_classes_is_the_same_network_with_a_new_last_layer(tmp_path, kind):
    model = described(MODELS[kind](3, **SMALL))
    of_answers = {"temperature": 1.5, "familiar": {"limits": {}}, "label_numbers": [2, 6, 11]}
    model.preprocessing |= {"channels": ["x", "y", "z"], **of_answers}
    model.save_pretrained(tmp_path)
    news = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        news.append(load_model(tmp_path, num_classes=5))
    new, again, other = news
    assert_equal_states(new.state_dict(), again.state_dict())
    assert not same(new, other, "logits")
    assert all(same(each, model, part) for each in news for part in ("encoder", "head"))
    assert new.num_outputs == 5
    assert (new.classes, new.training) == ((), False)
    assert all(parameter.requires_grad for parameter in new.parameters())
    assert set(model.preprocessing) - set(new.preprocessing) == set(of_answers)
    assert {**model.preprocessing, **new.preprocessing} == model.preprocessing
    new.classes = tuple("abcde")
    new.save_pretrained(tmp_path / "new")
    assert_equal_states(MODELS[kind].from_pretrained(tmp_path / "new").state_dict(), new.state_dict())
    assert MODELS[kind].from_pretrained(tmp_path, num_classes=2).num_outputs == 2
    new(torch.randn(2, new.arguments["in_channels"], 9)).sum().backward()


def test_a_new_last_layer_is_drawn_as_that_of_any_network_and_must_be_trained_before_it_answers(tmp_path):
    model = load_model("pointnet_shapes", num_classes=7)
    bound = model.logits.in_features**-0.5
    assert 0.9 * bound < model.logits.weight.abs().max() <= bound
    with pytest.raises(ValueError, match="no names for its 7 classes"):
        predict(torch.randn(9, 3).numpy(), model)
    for count in (0, True, "five"):
        with pytest.raises(ValueError, match=f"num_classes must be a whole number of at least 1, got {count!r}"):
            load_model("pointnet_shapes", num_classes=count)


@pytest.mark.parametrize("classes", forms(["same", "other"], "same"))
def test_a_run_takes_encoder_and_head_and_the_last_layer_where_the_classes_are_the_same(tmp_path, trained, classes):
    data = two_shapes() if classes == "same" else other_shapes()
    given, run = load_model(trained), started(data, init=trained, seed=3)
    model, fresh = run.step.model, started(data, seed=3, **WITH_TNETS).step.model
    assert same(model, given, "encoder")
    assert same(model, given, "head")
    assert same(model, given, "logits") == (classes == "same")
    assert same(model, fresh, "logits") == (classes == "other"), "seeded as that of a new network"
    assert model.encoder.input_tnet is not None, "the settings have none, the weights do"
    taken = {"same": "encoder, head, last layer taken, nothing new", "other": "encoder, head taken, last layer new"}
    lines = []
    fit(tiny(tmp_path, epochs=1, init=trained), data, log=lines.append)
    said = f"weights of {trained}: {taken[classes]}; they were trained on clouds z up, right-handed, centred, in the"
    assert lines[1].startswith(said)
    kept = load_model(tmp_path)
    assert kept.arguments == given.arguments
    assert (read_config(tmp_path).init, kept.classes) == (trained, tuple(data.classes))


def with_label_channel(data: LabelledPoints) -> LabelledClouds:
    """The clouds alone, with all their channels."""
    return LabelledClouds(data.points, data.labels, data.classes, num_points=32)


def test_the_encoder_goes_from_any_task_to_any_other(labeller, trained):
    parts, given = halves("part", 4), load_model(labeller)
    for model in (
        started(with_label_channel(parts), init=labeller).step.model,
        Run.start(small("x", "scene", init=labeller), halves("scene", 4), torch.device("cpu"), _world()).step.model,
    ):
        assert type(model) is not type(given)
        assert same(model, given, "encoder")
        model(torch.randn(2, 4, 9))


def test_a_network_for_parts_keeps_its_head_where_the_categories_are_the_same(labeller):
    data, given = halves("part", 4), load_model(labeller)
    renamed = halves("part", 4)
    renamed.part_names = tuple("abcd")
    others = halves("part", 4)
    others.classes = ("plate", "stick")
    for each, head, last in ((data, True, True), (renamed, True, False), (others, False, False)):
        model = Run.start(small("x", "part", init=labeller), each, torch.device("cpu"), _world()).step.model
        assert [same(model, given, part) for part in ("encoder", "head", "logits")] == [True, head, last]


def _world() -> World:
    return World()


@pytest.mark.parametrize("more", forms([{}, {"ema": 0.9, "optimizer": "sgd"}], {}), ids=["plain", "averaged"])
def test_a_frozen_encoder_stays_as_it_is_and_nothing_goes_backward_through_it(tmp_path, trained, more):
    settings = {"init": trained, "freeze": True, "epochs": 2, "weight_decay": 0.1, **more}
    run, seen = started(other_shapes(), **settings), []
    encoder = run.step.model.encoder
    encoder.register_forward_hook(lambda module, given, out: seen.append(out[0].grad_fn))
    before = copy.deepcopy(run.step.model.state_dict())
    for _ in run.steps():
        pass
    after = run.step.model.state_dict()
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head", "logits"}
    assert not torch.equal(before["head.1.norm.running_mean"], after["head.1.norm.running_mean"])
    assert set(seen) == {None}
    fit(tiny(tmp_path, **settings), other_shapes(), log=quiet)
    assert_equal_states(part_of(load_model(tmp_path), "encoder"), part_of(load_model(trained), "encoder"))


def test_the_encoder_learns_at_its_own_rate(trained):
    """The first step of plain SGD: a share of the rate is the same share of the way, and the head's is the whole."""
    ways = {}
    for share in (1.0, 0.25):
        settings = {"optimizer": "sgd", "weight_decay": 0.0, "schedule": "constant", "dropout": 0.0, "init": trained}
        run = started(other_shapes(), trunk_lr=share, **settings)
        before = copy.deepcopy(run.step.model.state_dict())
        run.step(other_shapes().points[:8], torch.tensor([0] * 4 + [1] * 4))
        ways[share] = {name: p.detach() - before[name] for name, p in run.step.model.named_parameters()}
    for name, way in ways[1.0].items():
        wanted = way * (0.25 if name.startswith("encoder.") else 1.0)
        torch.testing.assert_close(ways[0.25][name], wanted, rtol=1e-2, atol=1e-6)
    assert ways[1.0]["encoder.mlp2.layers.2.conv.weight"].abs().max() > 1e-5


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step"])
def test_both_rates_follow_the_schedule(schedule):
    config = TrainConfig(init="x", trunk_lr=0.1, schedule=schedule, epochs=9, decay_epochs=2)
    optimizer = make_optimizer(MODELS["pointnet"](3, **SMALL), config)
    course, found = make_schedule(optimizer, config, 9), []
    for _ in range(9):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        course.step()
    assert len(found[0]) == 4
    for rates in found:
        assert rates == pytest.approx([rates[0]] * 2 + [0.1 * rates[0]] * 2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0] * 2


@pytest.mark.parametrize("freeze", forms([False, True], True))
def test_stopped_and_resumed_it_ends_as_if_it_never_was(tmp_path, trained, freeze):
    config = tiny(tmp_path / "one", init=trained, freeze=freeze, trunk_lr=0.3, ema=0.9, epochs=3)
    fit(config, other_shapes(), log=quiet)
    fit_in_two(dataclasses.replace(config, out=str(tmp_path / "two")), other_shapes())
    assert_ends_as(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_run_goes_on_only_with_the_weights_that_it_began_with_wherever_they_are(tmp_path, trained):
    def stop(metrics):
        raise InterruptedError

    config, data = tiny(tmp_path / "run", epochs=2, init=trained), other_shapes(per_class=8)
    with pytest.raises(InterruptedError):
        fit(config, data, log=quiet, after_epoch=stop)
    fit(tiny(tmp_path / "others", epochs=1, seed=5), two_shapes(), log=quiet)
    for other in ("", str(tmp_path / "others")):
        with pytest.raises(ValueError, match="the run had init [0-9a-f]{16}, got .*; it cannot resume with that"):
            fit(dataclasses.replace(config, init=other, width=0.125), data, resume=True, log=quiet)
    moved = shutil.copytree(trained, tmp_path / "moved")
    resumed = parse_command(["--resume", "--out", config.out, "--init", str(moved)]).config
    lines = []
    fit(resumed, data, resume=True, log=lines.append)
    assert not any(line.startswith("weights of") for line in lines), "the checkpoint's own are taken"
    fit(dataclasses.replace(config, out=str(tmp_path / "unbroken")), data, log=quiet)
    assert_equal_states(weights(tmp_path / "run"), weights(tmp_path / "unbroken"))


def test_clouds_unlike_those_that_the_weights_were_taught_are_refused_in_one_line(tmp_path, trained):
    data = two_shapes()
    large = LabelledClouds(data.points * torch.linspace(3, 9, len(data))[:, None, None], data.labels, data.classes)
    wide = LabelledClouds(data.points.repeat(1, 2, 1), data.labels, data.classes)
    wide.channel_names = ("x", "y", "z", "nx", "ny", "nz")
    for clouds, message in (
        (large, f"init {trained}: it was trained on clouds of scale 'unit sphere'; the data set has 'as given'"),
        (wide, f"init {trained}: it was trained on points of x, y, z; the data set has x, y, z, nx, ny, nz"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fit(tiny(tmp_path / "run", init=trained), clouds, log=quiet)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_encoder_alone_is_taken_and_has_no_last_layer_to_replace(tmp_path):
    model = described(MODELS["pointnet_encoder"](**SMALL, last_activation=False))
    model.classes = ()
    model.save_pretrained(tmp_path)
    run = started(two_shapes(), init=str(tmp_path))
    assert same(run.step.model, model, "encoder")
    assert run.origin.startswith(f"weights of {tmp_path}: encoder taken, head, last layer new")
    with pytest.raises(ValueError, match="PointNetEmbedder has no last layer called `logits` to replace"):
        load_model(tmp_path, num_classes=5)


def test_a_network_of_ones_own_takes_no_encoder(tmp_path, trained):
    class Net(torch.nn.Module):
        def __init__(self, num_classes: int):
            super().__init__()
            self.last = torch.nn.Linear(3, num_classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x.amax(2))

    with pytest.raises(ValueError, match="init is for a network that is made here; load weights into your model"):
        fit(tiny(tmp_path, init=trained), two_shapes(), log=quiet, model=Net(2))
    with pytest.raises(ValueError, match=f"init {trained}: Net cannot take its encoder; load weights into it"):
        StartingWeights(trained, Net, Contract(32))


def test_only_what_has_weights_of_its_own_is_put_into_eval(trained):
    model = load_model(trained)
    set_training(model)
    assert all(part.training for part in model.modules())
    model.encoder.requires_grad_(False)
    set_training(model)
    assert not any(part.training for part in model.encoder.modules())
    assert all(part.training for part in (model, *model.head.modules(), model.logits))


def test_a_line_says_how_files_are_read_because_those_of_the_weights_were(tmp_path):
    fit(tiny(tmp_path / "run", epochs=1), two_shapes(), log=quiet)
    model = load_model(tmp_path / "run")
    model.preprocessing |= {"up": "y", "columns": "z,y,x"}
    model.save_pretrained(tmp_path / "taught")
    start = ["--init", str(tmp_path / "taught"), "--out", str(tmp_path / "new")]
    own = [*start, "--dataset", "folder", "--root", str(tmp_path)]
    said = f"files are read as those that {tmp_path / 'taught'} was trained on: {{}}; flags say it otherwise"
    assert parse_command(own).brought == said.format("y up, columns z,y,x")
    assert parse_command([*own, "--up", "-y"]).brought == said.format("columns z,y,x")
    assert parse_command([*own, "--up", "-y"]).config.up == "-y"
    assert parse_command([*own, "--up", "z", "--columns", "x,y,z"]).brought == ""
    assert parse_command([*start, "--dataset", "modelnet40"]).brought == ""
    assert parse_command(own[2:]).brought == ""


@pytest.mark.parametrize("change", ["trained", "replaced"])
def test_what_was_measured_of_other_weights_is_not_said_of_new_ones(tmp_path, change):
    model = load_model("pointnet_shapes")
    before = Contract.of(model)
    assert before.familiar is not None
    assert before.temperature != 1
    for same in (copy.deepcopy(model), model.half().float(), model.bfloat16().float(), model.fold()):
        assert Contract.of(same) == before
    model = load_model("pointnet_shapes")
    if change == "trained":
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        torch.nn.functional.cross_entropy(model.train()(torch.randn(4, 3, 64)), torch.arange(4)).backward()
        optimizer.step()
    else:
        model.logits = torch.nn.Linear(model.logits.in_features, model.logits.out_features)
    wanted = dataclasses.replace(before, familiar=None, temperature=1.0)
    assert Contract.of(model.eval()) == wanted
    assert (
        predict(np.random.default_rng(0).random((99, 3)), model).notes[-1].startswith("inputs unlike the training set")
    )
    model.save_pretrained(tmp_path)
    assert Contract.of(load_model(tmp_path)) == wanted
    model.preprocessing |= {"temperature": 1.5, "familiar": None}
    assert Contract.of(model).temperature == 1.5  # measured anew
