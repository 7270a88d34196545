"""The settings of a training run, in groups; flags, YAML and help are made from these fields."""

import contextlib
import dataclasses
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from pointnet.datasets.catalog import check_dataset
from pointnet.evaluation.tasks import TASKS
from pointnet.names import check_name, did_you_mean
from pointnet.points.features import WORDS, feature_names


def setting(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its help text and, for a number, the smallest and the largest value allowed."""
    return dataclasses.field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """A group of settings. ValueError, naming the setting, where a value is of another type or out of range."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, low, high = (
                typed(field.name, getattr(self, field.name)),
                field.metadata["low"],
                field.metadata["high"],
            )
            object.__setattr__(self, field.name, value)
            if low is not None and not low <= value <= (float("inf") if high is None else high):
                wanted = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"{field.name} must be {wanted}, got {value}")


@dataclass(frozen=True)
class DataSettings(Settings):
    """Which clouds a network is trained on, and how they are read."""

    task: Literal["classification", "part", "scene"] = setting("classification", "label clouds, or points")
    dataset: str = setting("shapes", "shapes, modelnet40, folder, packed, parts, scenes ...; a wrong name lists all")
    root: str = setting("data", "the folder that holds the data set; of packed also s3://, gs:// or hf://")
    features: str = setting("", "channels beside x y z, of normals,rgb,intensity; needs files that have them")
    normals: bool = setting(False, "short for --features normals; adds normals to other features")
    strict: bool = setting(False, "stop at a file of your own that cannot be read; else skip and list it")
    columns: str = setting(
        "", "the columns of tables in --dataset folder, parts or scenes, such as x,y,z,intensity,_; see predict --help"
    )
    up: Literal["", "z", "y", "-y", "x", "-x", "-z"] = setting(
        "", "the up axis of the files; empty: as their format or data set has it"
    )
    block: float = setting(1.0, "side of the blocks that --dataset scenes is cut into, in the unit of its files", 1e-9)
    download: bool = setting(False, "download a missing data set; ModelNet only, 415 MiB")
    num_points: int = setting(1024, "points per cloud; in evaluation, and in the late epochs of training", 1)
    val_fraction: float = setting(0.1, "share of each class held out to choose the epoch; 0 keeps the last", 0, 0.9)
    choose_by: str = setting("", "the metric that chooses the epoch, such as mean_class_accuracy; empty: the first")
    test: bool = setting(True, "evaluate the chosen epoch on the test split; false while you search for settings")
    feed: Literal["auto", "resident", "stream"] = setting("auto", "where clouds are stored: on the device, or streamed")
    workers: int = setting(1, "threads that read clouds, and as many that fetch shards, ahead of the step", 1, 64)
    cache_gb: float = setting(50.0, "disk that shards fetched from a store may take, in GB; see --dataset packed", 0)

    @property
    def opening(self) -> dict[str, Any]:
        """The arguments of `open_dataset` beside the name, the root and the split."""
        names = "num_points features normals strict download task columns up block workers cache_gb".split()
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Which network is trained."""

    model: str = setting("pointnet", "the network's name")
    init: str = setting(
        "", "start from the weights of a run folder or a shipped name; the encoder's widths and T-Nets are then theirs"
    )
    freeze: bool = setting(False, "keep the encoder of --init as it is; only the rest is trained, which is faster")
    width: float = setting(1.0, "width of shared layers and head, relative to the published; multiples of 8", 0.01, 16)
    tnet_width: float = setting(1.0, "width of the T-Nets, relative to the published; multiples of 8", 0.01, 16)
    dropout: float = setting(0.3, "dropout after each hidden layer of the head", 0, 0.99)
    input_transform: bool = setting(True, "use the T-Net that aligns xyz")
    feature_transform: bool = setting(True, "use the T-Net that aligns the 64 features")
    regularization_weight: float = setting(0.016, "weight of the orthogonality loss, a mean over clouds", 0)


@dataclass(frozen=True)
class Optimization(Settings):
    """How long a network is trained, and by which optimizer."""

    epochs: int = setting(20, "passes over the training split", 1)
    min_steps: int = setting(20, "fewest steps of an epoch; a set that is too small for them is repeated", 1)
    batch_size: int = setting(32, "clouds per step; an epoch is cut into batches of nearly equal size", 2)
    early_points: int = setting(256, "points per cloud in early epochs, drawn anew each step; 0 for num_points", 0)
    early_share: float = setting(0.8, "share of the epochs, from the first, that are early", 0, 1)
    optimizer: Literal["adamw", "adam", "sgd"] = setting("adamw", "sgd has momentum 0.9; norms and biases never decay")
    lr: float = setting(2e-3, "the highest learning rate", 0)
    trunk_lr: float = setting(1.0, "learning rate of the encoder of --init, as a share of --lr", 0, 1)
    weight_decay: float = setting(0.05, "decay of the weights; adam and sgd add it to the gradient", 0)
    schedule: Literal["cosine", "onecycle", "step", "constant"] = setting("onecycle", "course of the learning rate")
    decay_epochs: int = setting(20, "epochs between two decays, of the step schedule and of batch norm's momentum", 1)
    decay_rate: float = setting(0.7, "factor of the step schedule at each decay, down to lr / 100", 0, 1)
    norm_momentum: float = setting(0.1, "batch norm's momentum: the share of a batch in the running statistics", 0, 1)
    norm_decay_rate: float = setting(1.0, "factor of batch norm's momentum at each decay, down to 0.01", 0, 1)
    warmup: float = setting(0.0, "share of the steps in which the rate first rises to lr; onecycle has its own", 0, 1)
    clip: float = setting(0.0, "largest norm of the gradient, to which a larger one is scaled down; 0 for any", 0)
    ema: float = setting(0.0, "decay (0.999) of averaged weights, which are then evaluated and kept; 0 for none", 0, 1)
    skip_limit: int = setting(10, "steps skipped for points, loss or gradient not finite before the run ends", 0)

    def norm_momentum_in_epoch(self, epoch: int) -> float:
        """Batch norm's momentum in the epoch of this index (from 0)."""
        decayed = self.norm_momentum * self.norm_decay_rate ** (epoch // self.decay_epochs)
        return max(decayed, min(self.norm_momentum, 0.01))


@dataclass(frozen=True)
class LossSettings(Settings):
    """What a network is trained to minimize."""

    label_smoothing: float = setting(0.2, "share of the target spread over all classes", 0, 1)
    restrict: bool = setting(True, "parts: only those of the object's category count in the loss; false for all")
    unknown_category: float = setting(0.0, "parts: share of objects whose category is hidden from the network", 0, 1)
    class_weights: Literal["none", "balanced"] = setting(
        "none", "balanced: a rare class counts as much as a common one"
    )
    overlap: float = setting(0.0, "parts: weight of the soft IoU loss; the rest is cross-entropy", 0, 1)
    teacher: tuple[str, ...] = setting((), "run folders to distil from, of the same classes; their mean is learned")
    distill: float = setting(0.5, "weight of the distillation loss; the rest is the loss of the labels", 0, 1)
    temperature: float = setting(2.0, "divides the logits of teacher and student before they are compared", 1)


@dataclass(frozen=True)
class Augmentation(Settings):
    """How clouds are changed at random in training; evaluation sees them as they are."""

    scale: float = setting(1.25, "stretch each axis by a random factor from [1/scale, scale]; 1 for none", 1)
    shift: float = setting(0.1, "move each cloud by up to this much along each axis; the cloud has radius 1", 0)
    warp: float = setting(0.0, "bend each cloud smoothly, 1 as PointWOLF does; 0 for none; not for normals", 0)
    rotate: float = setting(0.0, "rotate each cloud about the up axis by up to this many degrees; 180 for any", 0, 180)
    mirror: bool = setting(False, "mirror each cloud at random: left to right, front to back, both or neither")
    jitter: float = setting(0.0, "standard deviation of the noise on each coordinate", 0)
    point_dropout: float = setting(0.0, "drop up to this share of a cloud's points", 0, 1)


@dataclass(frozen=True)
class RunSettings(Settings):
    """Where and how a run is computed, and what it writes."""

    seed: int = setting(0, "the seed of everything random", 0, 2**43 - 1)  # with the epoch 64 bits
    device: str = setting("auto", "auto (cuda if there is one), cpu, cuda or cuda:N")
    threads: int = setting(0, "CPU threads, 0 for as many as are free", 0)
    precision: Literal["fp32", "bf16"] = setting("fp32", "bf16 is autocast, if the device has it")
    compile: bool = setting(False, "use torch.compile (C++ compiler, or Triton on a GPU); the first steps are slow")
    deterministic: bool = setting(False, "fixed order of sums on a GPU: slower, but a resumed run repeats bit for bit")
    overfit_batches: int = setting(0, "overfit this many batches, without augmentation, as a check; 0 for all", 0)
    tensorboard: bool = setting(False, "also write the metrics to out/tensorboard (extra tensorboard)")
    out: str = setting("", "the run's folder; empty for a new one under runs/")


@dataclass(frozen=True)
class TrainConfig(RunSettings, Augmentation, LossSettings, Optimization, ModelSettings, DataSettings):
    """How a network is trained: all groups as one flat dataclass, the fields of the last group first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        words = [WORDS[name] for name in feature_names(self.features)]
        object.__setattr__(self, "features", ",".join(words))  # in one order, however they were typed
        if self.task != "classification" and self.teacher:
            raise ValueError(f"teacher is for the task classification, not {self.task}; leave it out")
        if not self.init and (self.freeze or self.trunk_lr != 1):
            given = "freeze" if self.freeze else f"trunk_lr {self.trunk_lr}"
            raise ValueError(f"{given} is for the encoder of trained weights; name them: --init")
        if self.dataset != TrainConfig.dataset:  # else data may be handed in; opening it looks again
            check_dataset(self.dataset, self.task)
        check_name("model", self.model, TASKS[self.task].networks)
        if self.choose_by:
            check_name("metric", self.choose_by, TASKS[self.task].titles)

    @property
    def network(self) -> str:
        """The zoo's name of the network."""
        return TASKS[self.task].networks[self.model]

    @property
    def chooser(self) -> str:
        """The metric that the epoch is chosen by, on validation."""
        return self.choose_by or TASKS[self.task].chooser

    def idle(self) -> dict[str, str]:
        """The settings that change nothing beside the others, each with what it is for."""
        task, schedule = f"--task part, not {self.task}", f"--schedule step, not {self.schedule}"
        has_steps = self.schedule == "step"
        aligns_features = self.model == "pointnet" and (self.feature_transform or bool(self.init))
        used_for = {
            **dict.fromkeys(("restrict", "unknown_category", "overlap"), (self.task == "part", task)),
            **dict.fromkeys(("distill", "temperature"), (bool(self.teacher), "--teacher")),
            "warmup": (self.schedule != "onecycle", "the other schedules, as onecycle has its own"),
            "decay_rate": (has_steps, schedule),
            "decay_epochs": (has_steps or self.norm_decay_rate != 1, f"{schedule}, or for --norm_decay_rate"),
            "early_share": (self.early_points > 0, "--early_points above 0"),
            "trunk_lr": (not self.freeze, "an encoder that learns, not --freeze"),
            "regularization_weight": (aligns_features, "--model pointnet with --feature_transform true"),
        }
        return {name: what for name, (is_used, what) in used_for.items() if not is_used}

    def points_in_epoch(self, epoch: int) -> int:
        """Points per cloud in training, in the epoch of this index (from 0)."""
        early = self.early_points and epoch < int(self.epochs * self.early_share)
        return min(self.early_points, self.num_points) if early else self.num_points


GROUPS: dict[str, type[Settings]] = {
    "data": DataSettings, "model": ModelSettings, "optimization": Optimization, "loss": LossSettings,
    "augmentation": Augmentation, "run": RunSettings,
}  # fmt: skip
FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
TYPES: dict[str, Any] = get_type_hints(TrainConfig)
# What a resumed run may be given anew: where things are, and what does not change the result.
MAY_CHANGE = (
    "out", "root", "download", "feed", "workers", "cache_gb", "init", "teacher", "device", "threads", "tensorboard",
)  # fmt: skip

WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", tuple: "a list of words"}
READERS: dict[Any, Any] = {int: int, float: float, bool: lambda word: {"true": True, "false": False}[word.lower()]}


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The settings, changed by values from YAML or by words of flags. ValueError, naming it, where one does not fit."""
    return dataclasses.replace(config, **{name: read_value(name, value) for name, value in values.items()})


def read_value(name: str, value: Any) -> Any:
    """A setting's value in the setting's type, from YAML or from the word of a flag. ValueError if it does not fit."""
    if name not in FIELDS:
        raise ValueError(f"no setting '{name}'{did_you_mean(str(name), FIELDS)}")
    if isinstance(value, str) and TYPES[name] in READERS:
        with contextlib.suppress(ValueError, KeyError):
            value = READERS[TYPES[name]](value)
    return typed(name, value)


def typed(name: str, value: Any) -> Any:
    """A setting's value in the setting's type: a number of NumPy, a path, a list or a whole number becomes it where
    that is exact. ValueError, naming the setting, for another type or word."""
    kind, choices = get_origin(TYPES[name]) or TYPES[name], get_args(TYPES[name])
    given = value
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif kind is tuple and isinstance(value, list | tuple):
        value = tuple(str(word) if isinstance(word, str | os.PathLike) else word for word in value)
    if kind is float and type(value) is int:
        with contextlib.suppress(OverflowError):
            value = float(value)
    if kind is Literal:
        fits = isinstance(value, str) and value in choices
    else:
        fits = type(value) is kind and (kind is not tuple or all(isinstance(word, str) for word in value))
    if not fits:
        wanted = WANTED.get(kind) or " or ".join(choices)
        hint = did_you_mean(given, choices) if kind is Literal and isinstance(given, str) else ""
        raise ValueError(f"{name} must be {wanted}, got {reprlib.repr(given)}{hint}")
    return value
