"""What several test files use: small data sets and settings, pages as a parser sees them, and command lines."""

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pointnet import PointNetClassifier, TNet
from pointnet.datasets import LabelledClouds, LabelledPoints, s3dis
from pointnet.datasets.packing import Packed, pack_split
from pointnet.evaluation.analysis import Analysis, analyse
from pointnet.models import load_model
from pointnet.training import TrainConfig, fit
from pointnet.training.checkpoint import load_checkpoint
from pointnet.training.run import Run
from pointnet.world import World

ROOT = Path(__file__).parents[1]
SAMPLES = str(ROOT / "data" / "samples")
QUICK = ["--epochs", "1", "--num_points", "64", "--early_points", "0", "--batch_size", "8", "--device", "cpu"]
QUICK += ["--width", "0.1", "--input_transform", "false", "--feature_transform", "false"]
ON_SAMPLES = ["--dataset", "modelnet40", "--root", SAMPLES, *QUICK]
SPLITS = ("train", "val", "test")
OWN = {"01": "Tree", "02": "Park bench"}  # a set of one's own: each category counts its parts from 0
LIST = "train_test_split/shuffled_train_file_list.json"
CLASSES = ("disc", "rod", "椅子")
SMALL = {"widths": ((8,), (16,)), "input_transform": False, "feature_transform": False}
PARTS = ["plate/left", "plate/right", "rod/low", "rod/high"]
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'`&amp;{{views}}\\u003c",
    "<!--",
    "é漢\n",
)
# What a pooled layer can change places with.
ACTIVATIONS = {
    "none": None,
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "elu": nn.ELU(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
}
NORMS = {
    "none": lambda d: None,
    "batch": nn.BatchNorm1d,
    "cumulative": lambda d: nn.BatchNorm1d(d, momentum=None),
    "without running statistics": lambda d: nn.BatchNorm1d(d, track_running_stats=False),
    "not affine": lambda d: nn.BatchNorm1d(d, affine=False),
    "eval": lambda d: nn.BatchNorm1d(d).eval(),
}
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def error_of(capsys, call, *arguments) -> str:
    """The one line on stderr of a call that must end with exit code 2."""
    try:
        code = call(*arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def assert_near(got: Tensor, wanted: Tensor, share: float = 1e-5) -> None:
    """Equal to a share of the largest value, or of one where all are smaller: what the order of a sum may change."""
    torch.testing.assert_close(got, wanted, rtol=0, atol=share * max(1, float(wanted.detach().abs().max())))


def trained_looking(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """In eval mode, with T-Nets that turn and norms of both signs: a fresh network is too well-behaved to test."""
    for module in model.modules():
        if isinstance(module, TNet):
            nn.init.normal_(module.matrix.weight, std=0.05)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
    return model.to(dtype).eval()


def extremes_flops(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Of `pointnet.ops.pooled.extremes`, which the counter does not look into."""
    return 2 * x_shape[0] * x_shape[2] * weight_shape[0] * weight_shape[1]


def groups_flops(made_of, weight_shape, size, more, *args, out_shape=None, **kwargs) -> int:
    """Of `pointnet.ops.groups`, of all the points that count."""
    rows = math.prod(made_of[2]) if len(made_of) == 3 else made_of[0][0]
    return 2 * rows // size * (size + more) * weight_shape[0] * weight_shape[1]


def pairs_flops(a_shape, b_shape, neighbours_shape, weight_shape, _, more, *args, out_shape=None, **kwargs) -> int:
    """Of `pointnet.ops.relative`, of all the pairs that count."""
    clouds, centres, size = neighbours_shape
    return 2 * clouds * centres * (size + more) * math.prod(weight_shape)


def shared_multiply_adds(*widths: int) -> int:
    """Of a point in the layers of a shared MLP, and of a cloud in dense ones."""
    return sum(c * d for c, d in pairwise(widths))


def count_multiply_adds(model: nn.Module, *given: Tensor) -> int:
    """As PyTorch counts them in a forward pass in eval mode."""
    ops = torch.ops.pointnet
    mapping = {ops.extremes: extremes_flops, ops.group_extremes: groups_flops, ops.pairs_linear: pairs_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, torch.no_grad():
        model.eval()(*given)
    return counter.get_total_flops() // 2


class Largest(TorchDispatchMode):
    """The most numbers that any operator returned in one tensor."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def make_room(size: int = 1500, extent=(2.3, 1.6, 2.5), seed: int = 0) -> np.ndarray:
    """Rows x y z r g b class, in whole millimetres from 0; a third of them chairs, the others walls."""
    generator = np.random.default_rng(seed)
    xyz = (generator.random((size, 3)) * extent).round(3)
    xyz -= xyz.min(0)
    labels = np.where(np.arange(size) % 3 == 0, s3dis.CLASSES.index("chair"), s3dis.CLASSES.index("wall"))
    return np.column_stack([xyz, generator.integers(0, 256, (size, 3)), labels])


def rows(size: int, parts: list[int], seed: int = 0) -> np.ndarray:
    """A shape off the origin and of any size: x y z nx ny nz part."""
    generator = np.random.default_rng(seed)
    points, normals = generator.standard_normal((2, size, 3))
    points = points * generator.uniform(0.1, 9) + generator.uniform(-5, 5, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.column_stack([points, normals, generator.choice(parts, size)])


def write_text(root: Path, categories: dict[str, str], labels: dict[str, list[int]], sizes=(40, 7, 64)) -> Path:
    """The text layout, with a shape of each category and split."""
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (folder / "train_test_split").mkdir(parents=True)
    lines = "".join(f"{name}\t{synset}\n" for synset, name in categories.items())
    (folder / "synsetoffset2category.txt").write_text(lines)
    for at, split in enumerate(SPLITS):
        listed = []
        for seed, synset in enumerate(categories):
            (folder / synset).mkdir(exist_ok=True)
            shape = rows(sizes[at], labels[categories[synset]], 10 * seed + at)
            np.savetxt(folder / synset / f"{split}{seed}.txt", shape, fmt=["%.5f"] * 6 + ["%.6f"])
            listed.append(f"shape_data/{synset}/{split}{seed}")
        (folder / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(listed[::-1]))
    return folder


def write(name: str, content: str | bytes):
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def listed(*names: object):
    return write(LIST, json.dumps(names))


def described(model: PointNetClassifier, num_points: int = 32) -> PointNetClassifier:
    """With names and statistics as after training."""
    model.classes = CLASSES
    model.preprocessing = {"frame": "z up, right-handed", "num_points": num_points, "normals": False}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def halves(task: str, per_class: int = 16, points: int = 40, seed: int = 0) -> LabelledPoints:
    """Plates whose points are of their left or right half and rods of their low or high one; of 40 points 32 are new.

    A fourth channel is the label of the point itself, to be compared with the label that it is trained with.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * per_class, 3, points, generator=generator)
    x[:per_class, 2] *= 0.1
    x[per_class:, :2] *= 0.1
    x = x / x.norm(dim=1).amax(1)[:, None, None]
    labels = torch.arange(2).repeat_interleave(per_class)
    parts = torch.where(labels[:, None] == 0, x[:, 0] > 0, 2 + (x[:, 2] > 0).long())
    stored = torch.cat([x, parts[:, None], parts[:, None]], 1)
    stored[:, :, 32:] = stored[:, :, : points - 32]
    stored[:, -1, 32:] = -1 - stored[:, -1, 32:]
    parts_of = torch.tensor([[True, True, False, False], [False, False, True, True]]) if task == "part" else None
    return LabelledPoints(stored, labels, ["plate", "rod"], PARTS, parts_of, num_points=32)


def small(out, task: str, **changes) -> TrainConfig:
    settings = {"task": task, "dataset": "s3dis" if task == "scene" else "shapes", "width": 0.2, "dropout": 0.1}
    return tiny(out, **(settings | {"lr": 0.02, "label_smoothing": 0.0} | changes))


def two_shapes(per_class: int = 24, points: int = 32, seed: int = 0) -> LabelledClouds:
    """Flat discs and tall rods: two classes that any network can tell apart."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * per_class, 3, points, generator=generator)
    x[:per_class, 2] *= 0.1
    x[per_class:, :2] *= 0.1
    x = x - x.mean(2, keepdim=True)
    labels = torch.arange(2).repeat_interleave(per_class)
    return LabelledClouds(x / x.norm(dim=1).amax(1)[:, None, None], labels, ["disc", "rod"])


def pack(data: LabelledClouds, out: Path, split: str = "train", **how) -> Packed:
    """Packs `two_shapes` as a split of the set in `out`."""
    data.channel_names, data.scale, data.centre = ("x", "y", "z"), "unit sphere", True
    return pack_split(data, out / split, "classification", out.parent, **how)


def tiny(out, **changes) -> TrainConfig:
    """Settings of a short run that learns; a network of an eighth of the widths."""
    settings = {
        "epochs": 4, "min_steps": 1, "batch_size": 3, "num_points": 32, "early_points": 16, "early_share": 0.5,
        "device": "cpu", "scale": 1.1, "shift": 0.05, "val_fraction": 0.25, "input_transform": False,
        "feature_transform": False, "width": 0.125, "tnet_width": 0.125, "lr": 0.01, "norm_momentum": 0.5,
        "out": str(out),
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


def started(data: LabelledClouds, **changes) -> Run:
    """A run before its first step."""
    return Run.start(tiny("unused", **changes), data, torch.device("cpu"), World())


@contextmanager
def before_long(seconds: int = 20) -> Iterator[None]:
    """Fails what takes longer, such as waiting for a pipe that nobody writes to."""

    def fail(*_: object) -> None:
        raise AssertionError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def quiet(line: str) -> None:
    pass


def fit_in_two(config: TrainConfig, *data: LabelledClouds | LabelledPoints, epochs: int = 1) -> dict:
    """What a run returns that was stopped after some epochs and resumed with other random numbers around it."""

    def stop(metrics: dict) -> None:
        if metrics["epoch"] == epochs:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(config, *data, log=quiet, after_epoch=stop)
    torch.manual_seed(99)
    return fit(config, *data, resume=True, log=quiet)


def weights(folder):
    return load_checkpoint(folder / "checkpoint.pt")["model"]


def assert_ends_as(out, unbroken):
    """Two runs ended alike, bit for bit: weights, their average, the kept weights and random numbers."""
    one, other = (load_checkpoint(folder / "checkpoint.pt") for folder in (out, unbroken))
    assert_equal_states(one["model"], other["model"])
    assert_equal_states(one.get("averaged", {}), other.get("averaged", {}))
    assert_equal_states(load_model(out).state_dict(), load_model(unbroken).state_dict())
    for ours, theirs in zip(one["each"], other["each"], strict=True):
        assert_equal_states(ours["random"], theirs["random"])


def assert_equal_states(got, wanted):
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name


def analysed_network(clouds: int, points: int) -> tuple[PointNetClassifier, LabelledClouds, Analysis]:
    """A classifier that looks trained, T-Nets included, labelled clouds that it errs on, and its analysis on them."""
    torch.manual_seed(0)
    model, generator = trained_looking(PointNetClassifier(5)).float(), torch.Generator().manual_seed(1)
    labels = torch.randint(5, (clouds,), generator=generator)
    x = torch.randn(clouds, 3, points, generator=generator)
    x[:, :, 1::2] *= 0.03  # deep within, where few points win a max
    with torch.no_grad():  # as likely to predict one class as another, and right more often than not
        logits = model(x)
        model.logits.bias -= logits.mean(0)
        right = 5 * clouds // 8
        labels[:right] = model(x).argmax(1)[:right]
    data = LabelledClouds(x, labels, [f"class {letter}" for letter in "abcde"])
    return model, data, analyse(model, data)


def metrics_line(epoch: int, **more) -> dict:
    """The metrics of an epoch, without validation unless `more` has it."""
    known = {"epoch": epoch, "num_points": 64, "lr": 1e-3, "train_loss": 3 / epoch, "train_accuracy": 1 - 1 / epoch}
    return {**known, "seconds": 1.5, "samples_per_second": 20.0, **more}


def write_metrics(folder: Path, *lines: dict) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def linked(source: Path, folder: Path) -> Path:
    """A folder of links to what is in `source`: what is kept beside a data set is kept there."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    return folder
