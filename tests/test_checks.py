"""Looks at a run before it is long, and ways to make its step faster that change nothing it computes."""

import dataclasses
import json
import os
import re
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pointnet.commands import train
from pointnet.commands.train_flags import parse_command
from pointnet.evaluation.evaluate import evaluate
from pointnet.training import checks, fit
from pointnet.training.capture import WARM_UP, CapturedGradients
from pointnet.training.checks import dry_run, profile
from pointnet.training.feed import cut_batches, make_feed
from pointnet.training.fit import training_parts
from pointnet.training.run import Run, augment
from pointnet.training.settings import TrainConfig
from pointnet.training.stopwatch import Stopwatch
from tests.helpers import quiet, tiny, two_shapes, weights


def test_a_dry_run_does_everything_and_leaves_nothing(tmp_path, monkeypatch):
    done = []
    for name in ("train_epoch", "finish_epoch", "restore"):
        original = getattr(Run, name)
        monkeypatch.setattr(
            Run, name, lambda *a, name=name, original=original, **k: (done.append(name), original(*a, **k))[1]
        )
    said = dry_run(tiny(tmp_path / "new" / "run"), two_shapes(), two_shapes(seed=1))
    assert done == 2 * ["train_epoch", "finish_epoch"] + ["restore"] + 2 * ["train_epoch", "finish_epoch"]
    assert re.search(r"4 epochs of 36 clouds should train in about \d+ s$", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "wanted"), [({}, "44 clouds .* 90 s"), ({"overfit_batches": 2}, "8 clouds .* 20 s")]
)
def test_the_forecast_counts_what_each_epoch_trains_and_validates_on(tmp_path, changes, wanted):
    config = tiny(tmp_path, epochs=4, early_points=8, early_share=0.75, val_fraction=0.1, batch_size=4, **changes)
    each = {"early": 0.5, "late": 0.5, "validated": 0.125}  # seconds a cloud
    assert re.search(f"4 epochs of {wanted}$", checks._forecast(config, two_shapes(), each, on_cuda=False))


def test_a_dry_run_has_steps_enough_to_record_one(tmp_path, monkeypatch):
    """Of two sizes of batches at most; recording itself needs a GPU."""
    monkeypatch.setattr(checks, "check_trainable", lambda *_: None)
    sizes, epochs = [], []

    def look(config, train, *_, after_epoch, **__):
        part, _ = training_parts(train, config)
        sizes.extend(map(len, cut_batches(torch.arange(len(part)), config.batch_size)))
        for _ in range(4 - len(epochs)):
            epochs.append(len(epochs))
            after_epoch({"samples_per_second": 1.0, "evaluation_seconds": 1.0})

    monkeypatch.setattr(checks, "fit", look)
    dry_run(dataclasses.replace(tiny(tmp_path / "run", val_fraction=0.3), cuda_graph=True), two_shapes())
    assert max(map(sizes.count, set(sizes))) > WARM_UP


def test_a_dry_run_fails_as_the_run_would_and_leaves_nothing(tmp_path):
    broken = two_shapes()
    broken.points[:] = torch.nan
    with pytest.raises(ValueError, match="not finite: samples"):
        dry_run(tiny(tmp_path / "run"), broken)
    with pytest.raises(ValueError, match="num_points must be 16, as the data has"):
        dry_run(tiny(tmp_path / "run"), two_shapes(points=16))
    assert list(tmp_path.iterdir()) == []
    fit(tiny(tmp_path / "run", epochs=1), two_shapes(), log=quiet)
    with pytest.raises(ValueError, match="already holds a run"):
        dry_run(tiny(tmp_path / "run"), two_shapes())


def test_a_profile_adds_up_and_leaves_nothing(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(Run, "step", lambda *a, step=Run.step, **k: (steps.append(1), step(*a, **k))[1])
    said = profile(tiny(tmp_path / "run", batch_size=40), two_shapes())  # an epoch is a step
    said = said.replace(",", "")  # of thousands
    whole = float(re.search(r"40 clouds of 32 points: ([\d.]+) ms", said)[1])
    assert len(steps) == checks.WARM_UP + checks.MEASURED + checks.RECORDED
    parts = {name: float(ms) for name, ms in re.findall(r"^ +(\w+) +([\d.]+) ms", said, re.MULTILINE)}
    assert list(parts) == ["data", "forward", "backward", "optimizer"]
    assert sum(parts.values()) == pytest.approx(whole, abs=0.3)
    shares = [float(share) for share in re.findall(r"([\d.]+)% +\d+  \w", said)]
    assert len(shares) == 12
    assert sorted(shares, reverse=True) == shares
    assert sum(shares) <= 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--dry_run"], "dry run: trained, stopped, resumed, measured and loaded"),
        (["--profile"], "a step of 16 clouds"),
    ],
)
def test_the_command_looks_instead_of_training(tmp_path, capsys, flags, wanted):
    command = [
        "--dataset",
        "modelnet40",
        "--root",
        "data/samples",
        "--num_points",
        "64",
        "--out",
        str(tmp_path / "run"),
    ]
    assert train.main([*command, *flags]) == 0
    assert wanted in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_the_command_tells_of_a_few_batches_learnt_by_heart(tmp_path, capsys):
    words = ["--dataset", "modelnet40", "--root", "data/samples", "--num_points", "16", "--early_points", "0"]
    words += ["--input_transform", "false", "--feature_transform", "false", "--out", str(tmp_path / "run")]
    assert train.main([*words, "--overfit_batches", "2", "--batch_size", "4", "--epochs", "2"]) == 0
    assert "not tested: the network was trained to overfit 2 batches" in capsys.readouterr().out


@pytest.mark.parametrize("other", [["--profile"], ["--seeds", "0", "1"]])
def test_a_look_is_of_one_run(other, capsys):
    with pytest.raises(SystemExit):
        parse_command(["--dry_run", *other])
    assert "--dry_run is of one run to come" in capsys.readouterr().err


def test_a_few_batches_are_learnt_by_heart(tmp_path):
    """Labels that mean nothing can only be learnt so; clouds beyond those batches are not seen."""
    data = two_shapes()
    data.labels = torch.randint(2, (len(data),), generator=torch.Generator().manual_seed(0))
    config = tiny(tmp_path / "run", overfit_batches=2, batch_size=4, epochs=60, early_points=0, lr=0.003)
    result = fit(config, data, two_shapes(seed=1), log=quiet)
    assert result["test"] is None
    assert augment(data.points, config, torch.Generator()) is data.points
    assert result["val"]["overall_accuracy"] == 1
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(8, rel=0.1)


def test_the_parts_of_an_epoch_add_up_to_it(tmp_path):
    result = fit(tiny(tmp_path / "run"), two_shapes(), log=quiet)
    assert set(result["shares"]) == {"data", "forward", "backward", "optimizer", "evaluation"}
    rounding = 4 * 6 * 0.0005 / result["seconds"]  # of each epoch's parts and their sum
    assert 0.5 < sum(result["shares"].values()) <= 1 + rounding
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        epoch = json.loads(line)
        parts = [epoch[f"{name}_seconds"] for name in ("data", "forward", "backward", "optimizer")]
        assert sum(parts) == pytest.approx(epoch["seconds"], abs=0.005)


def test_a_stopwatch_gives_each_lap_to_its_name(monkeypatch):
    times = iter([10.0, 11.0, 13.0, 13.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    for name in ("data", "step", "data"):
        watch.lap(name)
    assert watch.stop() == {"data": 1.5, "step": 2.0}
    assert watch.stop() == {}


def test_compiled_it_learns_the_same(tmp_path, monkeypatch):
    """One graph, no break; the compiler's own kernels are left out, as they take most of a minute to make."""
    compiled = []

    def compile(model, dynamic, mode, compile=torch.compile):
        compiled.append(model)
        return compile(model, dynamic=dynamic, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile)
    settings = {"epochs": 1, "input_transform": True, "early_points": 0}
    fit(tiny(tmp_path / "plain", **settings), two_shapes(), log=quiet)
    assert not compiled
    fit(tiny(tmp_path / "compiled", **settings, compile=True), two_shapes(), log=quiet)
    assert len(compiled) == 1
    wanted = weights(tmp_path / "plain")
    for name, tensor in weights(tmp_path / "compiled").items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-4)


class NothingIsAsked(TorchDispatchMode):
    """Refuses what makes the host wait for the device: reading a number, or a size that depends on values."""

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        assert operator.overloadpacket not in ASKING, f"{operator} waits for the device"
        return operator(*arguments, **(keywords or {}))


ASKING = {
    getattr(torch.ops.aten, name)
    for name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "is_nonzero")
}


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "clip": 1.0, "precision": "bf16"}, {"optimizer": "sgd"}])
def test_an_epoch_of_steps_never_waits_for_the_device(tmp_path, changes):
    data, everything = two_shapes(), {"rotate": 10.0, "mirror": True, "jitter": 0.01, "point_dropout": 0.5}
    config = tiny(tmp_path, input_transform=True, feature_transform=True, **everything, **changes)
    run = Run.start(config, data, torch.device("cpu"))
    feed = make_feed(data, torch.device("cpu"))
    with NothingIsAsked():
        run.train_epoch(feed, lambda: None)
        with pytest.raises(AssertionError, match="waits for the device"):
            run.end_epoch()


class NothingUnordered(TorchDispatchMode):
    """Refuses what PyTorch can add up on a GPU in no fixed order, and so raises for in deterministic mode."""

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        unordered = operator.overloadpacket in UNORDERED
        if operator.overloadpacket is torch.ops.aten.cumsum:
            unordered = arguments[0].is_floating_point()
        assert not unordered, f"{operator} is in no fixed order on a GPU"
        assert torch.are_deterministic_algorithms_enabled()
        return operator(*arguments, **(keywords or {}))


# of those in the list of torch.use_deterministic_algorithms that a network on points could come to call
UNORDERED = {
    getattr(torch.ops.aten, name)
    for name in ("nll_loss2d_forward", "put_", "histc", "bincount", "median", "nanmedian", "kthvalue", "scatter_reduce",
                 "max_unpool2d", "_adaptive_avg_pool2d_backward", "grid_sampler_2d_backward", "_embedding_bag_backward")
}  # fmt: skip


@pytest.mark.parametrize("mix", ["none", "cutmix_r", "cutmix_k"])
def test_a_deterministic_run_calls_nothing_that_is_in_no_fixed_order_on_a_gpu(tmp_path, mix):
    everything = {"rotate": 10.0, "mirror": True, "jitter": 0.01, "point_dropout": 0.5, "ema": 0.9, "clip": 1.0}
    settings = {"epochs": 2, "input_transform": True, "feature_transform": True, "deterministic": True}
    config = tiny(tmp_path, **settings, **everything, mix=mix)
    seen = []

    def epoch(run, *arguments, train_epoch=Run.train_epoch):
        with NothingUnordered():
            train_epoch(run, *arguments)
            evaluate(run.evaluated, two_shapes(), votes=3)
        seen.append(os.environ["CUBLAS_WORKSPACE_CONFIG"])

    with patch.object(Run, "train_epoch", epoch):
        fit(config, two_shapes(), log=quiet)
    assert seen == [":4096:8"] * 2
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_deterministic_run_on_a_gpu_resumes_bit_for_bit(tmp_path, cuda_graph):
    settings = {"device": "cuda", "deterministic": True, "feature_transform": True, "ema": 0.9}
    settings |= {"epochs": 4, "cuda_graph": cuda_graph}
    fit(tiny(tmp_path / "whole", **settings), two_shapes(), log=quiet)

    def stop(line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    broken = tiny(tmp_path / "broken", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, two_shapes(), log=quiet, after_epoch=stop)
    fit(broken, two_shapes(), resume=True, log=quiet)
    wanted = weights(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "broken").items():
        assert torch.equal(tensor, wanted[name]), name


class PretendGraph:
    """Does again, with the same tensors, what was recorded, as a CUDA graph does."""

    def __init__(self, function, parameters):
        self.function, self.parameters = function, parameters
        self.outputs = function()
        self.gradients = [parameter.grad for parameter in parameters]

    def replay(self):
        held = [parameter.grad for parameter in self.parameters]
        for kept, now in zip(self.outputs, self.function(), strict=True):
            kept.copy_(now)
        for kept, parameter, before in zip(self.gradients, self.parameters, held, strict=True):
            kept.copy_(parameter.grad)
            parameter.grad = before  # a replay fills memory and knows no parameter


def test_replayed_steps_are_the_steps(tmp_path):
    """Batches of two sizes, points of two; what a recording alone would do to the statistics is undone."""
    runs = []
    for replayed in (False, True):
        config = tiny(tmp_path, optimizer="sgd", ema=0.9, clip=1.0)
        torch.manual_seed(0)
        run = Run.start(config, two_shapes(), torch.device("cpu"))
        for part in run.model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        recorded = []

        def record(function, run=run, recorded=recorded):
            kept = [buffer.clone() for buffer in run.model.buffers()]
            graph = PretendGraph(function, list(run.model.parameters()))
            for buffer, before in zip(run.model.buffers(), kept, strict=True):
                buffer.copy_(before)
            recorded.append(graph)
            return graph, graph.outputs

        if replayed:
            run.captured = CapturedGradients(run._find_gradients, list(run.model.parameters()), record)
        run.model.train()
        generator = torch.Generator().manual_seed(1)
        losses = []
        for step in range(4 * (WARM_UP + 3)):
            x = torch.randn((3, 4)[step % 2], 3, (16, 32)[step // 2 % 2], generator=generator)
            loss, logits, good = run.step(x, torch.arange(len(x)) % 2)
            losses.append((loss.clone(), logits.clone(), bool(good)))
        runs.append((run, losses))
        assert len(recorded) == (4 if replayed else 0)
    (one, wanted), (other, found) = runs
    for (loss, logits, good), (was, were, fine) in zip(found, wanted, strict=True):
        torch.testing.assert_close(loss, was)
        torch.testing.assert_close(logits, were)
        assert good
        assert fine
    for name in ("model", "averaged"):
        for tensor, before in zip(
            getattr(other, name).state_dict().values(), getattr(one, name).state_dict().values(), strict=True
        ):
            torch.testing.assert_close(tensor, before)


def test_graphs_are_for_one_gpu_and_not_for_what_is_compiled(tmp_path):
    with pytest.raises(ValueError, match="cuda_graph is for a run of one process on a CUDA device"):
        fit(tiny(tmp_path / "run", cuda_graph=True), two_shapes(), log=quiet)
    with pytest.raises(ValueError, match="leave out compile or cuda_graph"):
        TrainConfig(compile=True, cuda_graph=True)
    assert dataclasses.replace(tiny(tmp_path), compile=True).compile
