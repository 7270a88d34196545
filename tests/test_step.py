"""A training step: what it computes, what it changes, and that it never waits for the device."""

import copy
from contextlib import closing

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pointnet.devices import deterministic_algorithms
from pointnet.evaluation.evaluate import evaluate
from pointnet.models import PointNetClassifier
from pointnet.training import TrainConfig
from pointnet.training.augment import augment
from pointnet.training.optimizer import MovingAverage, make_optimizer
from tests.forms import forms
from tests.helpers import assert_equal_states, started, two_shapes

DATA = two_shapes(per_class=8)
BATCH = DATA.points[4:12], DATA.labels[4:12]
AUGMENTED = {"warp": 1.0, "rotate": 10.0, "mirror": True, "jitter": 0.01, "point_dropout": 0.5}
TNETS = {"input_transform": True, "feature_transform": True}


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def train_epoch(run) -> None:
    with closing(run.steps()) as steps:
        for _ in steps:
            pass


def test_the_loss_is_smoothed_cross_entropy_and_the_regularization():
    run = started(DATA, label_smoothing=0.3, feature_transform=True, regularization_weight=0.5)
    without_dropout(run.step.model)
    torch.nn.init.normal_(run.step.model.encoder.feature_tnet.matrix.weight, std=0.1)
    twin = copy.deepcopy(run.step.model)
    loss, _, finite = run.step(*BATCH)
    assert finite
    logits, transforms = twin(BATCH[0], return_transforms=True)
    wanted = F.cross_entropy(logits, BATCH[1], label_smoothing=0.3) + twin.regularization(transforms)
    torch.testing.assert_close(loss, wanted)
    assert twin.regularization(transforms) > 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_skipped_step_changes_nothing(optimizer):
    """Neither weights, running statistics nor the optimizer, even if it is the first; the next step is as without."""
    broken, ends = BATCH[0].clone(), []
    broken[3, 1] = torch.nan
    for skip in (False, True):
        run = started(DATA, optimizer=optimizer, schedule="constant")
        for x in (BATCH[0].flip(0), BATCH[0]):
            generator = torch.get_rng_state()
            if skip:
                before = copy.deepcopy(run.step.model.state_dict())
                assert not run.step(broken, BATCH[1]).finite
                assert_equal_states(run.step.model.state_dict(), before)
            torch.set_rng_state(generator)
            assert run.step(x, BATCH[1]).finite
        ends.append(run.step)
    assert_equal_states(ends[1].model.state_dict(), ends[0].model.state_dict())
    states = [step.optimizer.state_dict()["state"] for step in ends]
    for index, state in states[1].items():
        assert_equal_states(state, states[0][index])


def test_a_gradient_is_clipped_to_its_norm():
    norms = []
    for clip in (0.0, 1e-3):
        run = started(DATA, clip=clip, optimizer="sgd", schedule="constant", lr=1.0, weight_decay=0.0)
        before = [p.detach().clone() for p in run.step.model.parameters()]
        run.step(*BATCH)
        moved = [(p - b).norm() for p, b in zip(run.step.model.parameters(), before, strict=True)]
        norms.append(float(torch.stack(moved).norm().detach()))
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


def test_the_average_follows_the_first_weights_faster():
    run = started(DATA, ema=0.4)
    average, model = run.step.average.model, run.step.model
    wanted = model.logits.weight.detach().clone()
    for step in range(1, 7):
        run.step(*BATCH)
        kept = min(0.4, (1 + step) / (10 + step))
        wanted = kept * wanted + (1 - kept) * model.logits.weight.detach()
        torch.testing.assert_close(average.logits.weight, wanted)
    assert int(average.encoder.mlp1[0].norm.num_batches_tracked) == 6
    assert run.evaluated is average


def test_the_average_moves_shared_weights_once():
    """A weight of two layers and a running mean of two norms, both twice in the state dict."""
    first, second, norm = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
    second.weight = first.weight
    model = torch.nn.Sequential(first, norm, second, torch.nn.BatchNorm1d(4))
    model[3].running_mean = norm.running_mean
    average = MovingAverage(model, 0.5)
    wanted = [each.clone() for each in (first.weight.detach(), norm.running_mean)]
    for step in (100, 101):  # late enough to keep a half
        for mean, now in zip(wanted, (first.weight.detach(), norm.running_mean), strict=True):
            now.add_(torch.randn_like(now))
            mean.lerp_(now, 0.5)
        average.update(step)
    assert average.model[0].weight is average.model[2].weight
    torch.testing.assert_close([average.model[0].weight.detach(), average.model[3].running_mean], wanted)


def test_the_average_of_a_short_run_is_a_network_as_good_as_the_last():
    """Its statistics of batch norm too: a mean with those of the first steps would fit no network."""
    data = two_shapes(per_class=20)
    run = started(data, ema=0.999, early_points=0, seed=1)
    for _ in range(4):
        train_epoch(run)
        run.end_epoch()
    accuracy, wanted = (
        evaluate(model, two_shapes(seed=1))["overall_accuracy"] for model in (run.evaluated, run.step.model)
    )
    assert wanted >= 0.9
    assert accuracy >= wanted - 0.05


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 0.0},
        {"precision": "bf16"},
        {"scale": 1.3},
        {"shift": 0.1},
        {"rotate": 90.0},
        {"mirror": True},
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
        {"clip": 0.01},
    ],
    ids=str,
)
def test_every_setting_makes_a_difference(bfloat16, change):
    ends = []
    for changes in ({}, change):
        run = started(DATA, **{"epochs": 2, "batch_size": 8, "early_share": 1.0} | changes)
        for _ in range(2):
            train_epoch(run)
            run.end_epoch()
        ends.append(run.step.model.logits.weight)
    assert not torch.equal(*ends)


def test_only_matrices_are_decayed():
    model = PointNetClassifier(3)
    decayed, kept = make_optimizer(model, TrainConfig()).param_groups
    assert decayed["weight_decay"] == 0.05
    assert all(p.dim() > 1 for p in decayed["params"])
    assert kept["weight_decay"] == 0
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_the_points_are_left_as_they_are_unless_augmented_with_their_normals():
    x = torch.randn(4, 3, 20)
    assert augment(x, TrainConfig(scale=1.0, shift=0.0), False, torch.Generator()) is x
    assert augment(x, TrainConfig(**AUGMENTED), False, torch.Generator().manual_seed(0)).shape == x.shape
    moved = augment(x.repeat(1, 2, 1), TrainConfig(rotate=180.0, scale=1.0, shift=0.0), True, torch.Generator())
    torch.testing.assert_close(moved[:, 3:], moved[:, :3])  # normals rotate with their points
    assert not torch.equal(moved[:, :3], x)


@pytest.mark.slow
def test_compiled_it_learns_the_same(monkeypatch):
    """One graph, no break; the compiler's own kernels are left out, as they take most of a minute to make."""
    compiled = []

    def compile(model, dynamic, compile=torch.compile):
        compiled.append(model)
        return compile(model, dynamic=dynamic, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile)
    ends = []
    for changes in ({}, {"compile": True}):
        # By SGD: where a later norm leaves no gradient (of the last norm's bias) AdamW makes whole steps of rounding.
        run = started(DATA, input_transform=True, optimizer="sgd", lr=0.1, **changes)
        for _ in range(2):
            run.step(*BATCH)
        ends.append(run.step.model.state_dict())
    assert len(compiled) == 1
    for name, tensor in ends[1].items():
        torch.testing.assert_close(tensor, ends[0][name], rtol=1e-3, atol=1e-4)


class Refused(TorchDispatchMode):
    """Fails at some operators."""

    def __init__(self, names, why):
        super().__init__()
        self.operators, self.why = {getattr(torch.ops.aten, name) for name in names}, why

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        refused = operator.overloadpacket in self.operators
        if operator.overloadpacket is torch.ops.aten.cumsum and "order" in self.why:
            refused = arguments[0].is_floating_point()
        assert not refused, f"{operator} {self.why}"
        return operator(*arguments, **(keywords or {}))


SYNCS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "is_nonzero")
# Of those in the list of torch.use_deterministic_algorithms what a network on points could come to call.
UNORDERED = ("nll_loss2d_forward", "put_", "histc", "bincount", "median", "nanmedian", "kthvalue", "scatter_reduce",
             "max_unpool2d", "_adaptive_avg_pool2d_backward", "grid_sampler_2d_backward",
             "_embedding_bag_backward")  # fmt: skip


AVERAGED = {"ema": 0.9, "clip": 1.0, "precision": "bf16"}


@pytest.mark.parametrize("changes", forms([{}, AVERAGED, {"optimizer": "sgd"}], AVERAGED))
def test_an_epoch_of_steps_never_waits_for_the_device(bfloat16, changes):
    run = started(DATA, **TNETS, **AUGMENTED, **changes)
    with Refused(SYNCS, "waits for the device"):
        train_epoch(run)
        with pytest.raises(AssertionError, match="waits for the device"):
            run.end_epoch()


def test_a_deterministic_epoch_adds_nothing_up_in_no_fixed_order_on_a_gpu():
    run = started(DATA, **TNETS, **AUGMENTED, ema=0.9, clip=1.0)
    with deterministic_algorithms(), Refused(UNORDERED, "is in no fixed order on a GPU"):
        assert torch.are_deterministic_algorithms_enabled()
        train_epoch(run)
        evaluate(run.evaluated, DATA, votes=3)
    assert not torch.are_deterministic_algorithms_enabled()
