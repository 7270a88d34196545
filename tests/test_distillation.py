"""Learning from trained networks: the loss and its gradient, who teaches, and that a run keeps its teacher."""

import copy
import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from pointnet.commands.train_flags import parse_command
from pointnet.datasets import LabelledClouds
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.models import load_model
from pointnet.training import fit
from pointnet.training.previews import dry_run, profile
from pointnet.training.progress import epoch_order
from pointnet.training.step import Step
from pointnet.training.stopping import Stopped
from pointnet.training.teacher import Teacher, distillation_loss
from tests.helpers import assert_equal_states, quiet, started, tiny, two_shapes, weights

CPU = torch.device("cpu")
SHAPES = contract_of_data(two_shapes(), num_points=32)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> list[str]:
    """The folders of two short runs; one network has a T-Net."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        settings = {"epochs": 2, "batch_size": 4, "schedule": "constant", "seed": seed}
        config = tiny(folder / str(seed), feature_transform=bool(seed), **settings)
        fit(config, two_shapes(per_class=12), log=quiet)
    return [str(folder / "0"), str(folder / "1")]


@given(temperature=st.floats(1, 20), clouds=st.integers(1, 9), classes=st.integers(2, 40), seed=st.integers(0, 1000))
def test_the_losss_gradient_is_the_difference_of_the_probabilities(temperature, clouds, classes, seed):
    """T^2 KL(p || softmax(z / T)), a mean over B clouds, has the gradient T (softmax(z / T) - p) / B."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(clouds, classes, dtype=torch.float64, generator=generator).mul_(5).requires_grad_()
    wanted = torch.randn(clouds, classes, dtype=torch.float64, generator=generator).mul_(5).softmax(1)
    loss = distillation_loss(logits, wanted, temperature)
    student = (logits / temperature).softmax(1)
    direct = temperature**2 * (wanted * (wanted.log() - student.log())).sum(1).mean()
    torch.testing.assert_close(loss, direct, rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, temperature * (student - wanted) / clouds, rtol=1e-10, atol=1e-12)


def test_a_sure_teacher_gives_cross_entropy():
    logits = torch.randn(5, 7, dtype=torch.float64)
    labels = torch.arange(5)
    sure = distillation_loss(logits, F.one_hot(labels, 7).double(), 1.0)
    torch.testing.assert_close(sure, F.cross_entropy(logits, labels))


def test_the_teacher_is_the_mean_of_what_the_trained_networks_say(teachers):
    teacher = Teacher(teachers, ["disc", "rod"], SHAPES, CPU)
    x = two_shapes(seed=3).points
    wanted = torch.stack([(load_model(name)(x) / 3).softmax(1) for name in teachers]).mean(0)
    said = teacher.probabilities(x, 3.0)
    torch.testing.assert_close(said, wanted)
    assert not said.requires_grad
    first, second = (Teacher([name], ["disc", "rod"], SHAPES, CPU) for name in teachers)
    assert len({teacher.digest, first.digest, second.digest}) == 3
    assert (first.probabilities(x, 3.0) - said).abs().max() > 1e-3


def test_a_steps_loss_is_shared_between_labels_and_teacher():
    data = two_shapes(seed=2)
    run = started(data, label_smoothing=0.1, distill=0.3, temperature=4.0)
    x, labels, taught = data.points[:8], data.labels[:8], torch.randn(8, 2).softmax(1)
    loss, logits, finite = run.step(x, labels, taught=taught)
    assert finite
    wanted = distillation_loss(logits, taught, 4.0)
    assert wanted > 0.01
    torch.testing.assert_close(loss, 0.7 * F.cross_entropy(logits, labels, label_smoothing=0.1) + 0.3 * wanted)


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_the_teacher_is_asked_once_about_each_cloud_as_it_is_stored(tmp_path, teachers, monkeypatch, feed):
    """Of all points and not augmented; each step learns what was said of its own clouds."""
    asked, learnt = [], []

    def say(self, x, temperature, before=Teacher.probabilities):
        asked.extend(x)
        return before(self, x, temperature)

    def step(self, x, labels, category=None, share=1.0, structure=None, taught=None, before=Step.__call__):
        learnt.append((x.shape[2], labels, taught))
        return before(self, x, labels, category, share, structure, taught)

    monkeypatch.setattr(Teacher, "probabilities", say)
    monkeypatch.setattr(Step, "__call__", step)
    data = two_shapes(per_class=4)
    config = tiny(tmp_path, epochs=2, teacher=tuple(teachers), val_fraction=0.0, feed=feed, batch_size=3, jitter=0.1)
    fit(config, data, log=quiet)
    assert len(asked) == len(data)
    assert all(map(torch.equal, asked, data.points))
    assert {points for points, _, _ in learnt} == {16, 32}
    said = Teacher(teachers, data.classes, SHAPES, CPU).probabilities(data.points, config.temperature)
    order = torch.cat([epoch_order(data, config.seed, epoch) for epoch in (0, 1)])
    assert torch.equal(torch.cat([labels for _, labels, _ in learnt]), data.labels[order])
    torch.testing.assert_close(torch.cat([taught for _, _, taught in learnt]), said[order])


@pytest.mark.slow
def test_a_look_at_a_run_asks_few_or_none(tmp_path, teachers, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Teacher, "probabilities", lambda self, x, t: (asked.append(len(x)), torch.full((len(x), 2), 0.5))[1]
    )
    config = tiny(tmp_path / "run", teacher=tuple(teachers), batch_size=2)
    assert "a step of 2 clouds" in profile(config, two_shapes(per_class=12))
    assert not asked
    dry_run(config, two_shapes(per_class=12))
    assert sum(asked) == 4  # which are trained on; not again when the run goes on


@pytest.mark.slow
def test_a_teacher_that_does_not_count_changes_no_bit(tmp_path, teachers):
    """Neither the weights the student starts from nor its dropout depend on whether it is taught."""
    data = two_shapes(per_class=8)
    fit(tiny(tmp_path / "alone", epochs=1), data, log=quiet)
    fit(tiny(tmp_path / "taught", epochs=1, teacher=tuple(teachers), distill=0.0), data, log=quiet)
    assert_equal_states(weights(tmp_path / "taught"), weights(tmp_path / "alone"))
    for name, more in (("more", {"distill": 0.5}), ("hotter", {"distill": 0.5, "temperature": 8.0})):
        fit(tiny(tmp_path / name, epochs=1, teacher=tuple(teachers), **more), data, log=quiet)
        assert not torch.equal(weights(tmp_path / name)["logits.weight"], weights(tmp_path / "alone")["logits.weight"])
    ends = [weights(tmp_path / name)["logits.weight"] for name in ("more", "hotter")]
    assert not torch.equal(*ends)


def test_a_student_learns_from_a_teacher_alone_and_leaves_it_as_it_was(teachers):
    data = two_shapes(per_class=12)
    run = started(data, teacher=tuple(teachers), distill=1.0, temperature=1.0, schedule="constant", lr=0.005)
    teacher = run.teacher
    before = [copy.deepcopy(network.state_dict()) for network in teacher.networks]
    wrong = 1 - data.labels  # which count for nothing
    for _ in run.ask_teacher():
        pass
    for _ in range(25):
        _, logits, _ = run.step(data.points, wrong, taught=run.taught)
    said = teacher.probabilities(data.points, 1.0).argmax(1)
    assert (said == data.labels).double().mean() > 0.8
    assert (said == logits.argmax(1)).double().mean() > 0.8
    for network, kept in zip(teacher.networks, before, strict=True):
        assert not network.training
        assert all(parameter.grad is None for parameter in network.parameters())
        assert_equal_states(network.state_dict(), kept)


def test_a_teacher_that_cannot_be_is_one_clear_line(tmp_path, teachers):
    data = two_shapes()
    renamed = LabelledClouds(data.points, data.labels, ["disc", "stick"])
    large = LabelledClouds(data.points * torch.rand(len(data), 1, 1), data.labels, data.classes)
    shutil.copytree(teachers[0], tmp_path / "normals")
    config = json.loads((tmp_path / "normals" / "config.json").read_text())
    config["preprocessing"]["channels"] = ["x", "y", "z", "nx", "ny", "nz"]
    (tmp_path / "normals" / "config.json").write_text(json.dumps(config))
    for names, clouds, message in (
        ((str(tmp_path / "nobody"),), data, "no model here"),
        ((teachers[0],), renamed, f"teacher {teachers[0]}: its classes are not those of the data set: it has no"),
        (
            (teachers[0],),
            large,
            f"teacher {teachers[0]}: it was trained on clouds of scale 'unit sphere'",
        ),
        (
            (teachers[0], str(tmp_path / "normals")),
            data,
            "the model takes 3 channels per point, not x, y, z, nx, ny, nz",
        ),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fit(tiny(tmp_path / "run", teacher=names), clouds, log=quiet)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("points", "is_fewer"), [(31, True), (32, False), (64, False)])
def test_a_teacher_of_larger_clouds_is_named_with_both_numbers(tmp_path, teachers, points, is_fewer):
    data, lines = two_shapes(points=points), []
    fit(tiny(tmp_path, epochs=1, num_points=points, teacher=(teachers[0],)), data, log=lines.append)
    found = [line for line in lines if line.startswith("teacher ")]
    said = f"it was trained on clouds of 32 points, and is asked about {points}, from which it may know less"
    assert found == [f"teacher {teachers[0]}: {said}; see --num_points"] * is_fewer


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_teacher_wherever_that_is_now(tmp_path, teachers, monkeypatch):
    def stop(metrics):
        raise InterruptedError

    config, data = tiny(tmp_path / "run", epochs=2, teacher=tuple(teachers)), two_shapes(per_class=8)
    with pytest.raises(InterruptedError):
        fit(config, data, log=quiet, after_epoch=stop)
    for other in ((), (teachers[0],), tuple(reversed(teachers))):
        with pytest.raises(ValueError, match="the run had teacher [0-9a-f]{16}, got .*; it cannot resume with that"):
            fit(dataclasses.replace(config, teacher=other), data, resume=True, log=quiet)
    moved = [shutil.copytree(name, tmp_path / f"moved {i}") for i, name in enumerate(teachers)]
    words = ["--resume", "--out", config.out, "--teacher", *map(str, moved)]
    resumed = parse_command(words).config
    assert resumed == dataclasses.replace(config, teacher=tuple(map(str, moved)))
    with monkeypatch.context() as context:  # what they said is kept
        context.setattr(Teacher, "probabilities", lambda *_: pytest.fail("the teacher was asked again"))
        fit(resumed, data, resume=True, log=quiet)
    fit(dataclasses.replace(config, out=str(tmp_path / "unbroken")), data, log=quiet)
    assert_equal_states(weights(tmp_path / "run"), weights(tmp_path / "unbroken"))


@pytest.mark.slow
def test_a_run_that_is_stopped_while_its_teacher_is_asked_can_go_on(tmp_path, teachers, monkeypatch):
    def stop(self, x, temperature, before=Teacher.probabilities):
        os.kill(os.getpid(), signal.SIGTERM)
        return before(self, x, temperature)

    config, data = tiny(tmp_path / "run", epochs=1, teacher=tuple(teachers)), two_shapes(per_class=8)
    with monkeypatch.context() as context:
        context.setattr(Teacher, "probabilities", stop)
        with pytest.raises(Stopped, match="saved"):
            fit(config, data, log=quiet)
    fit(config, data, resume=True, log=quiet)
    fit(dataclasses.replace(config, out=str(tmp_path / "unbroken")), data, log=quiet)
    assert_equal_states(weights(tmp_path / "run"), weights(tmp_path / "unbroken"))
