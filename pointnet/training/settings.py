"""The settings of a training run: each named and explained once; flags, YAML and help are made from them."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from pointnet import datasets
from pointnet.evaluation.tasks import TASKS
from pointnet.files import write_atomically
from pointnet.names import did_you_mean

Look = Literal["", "dry_run", "profile"]
LOOKS: tuple[Look, ...] = ("dry_run", "profile")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Args:
        task: classification, part (a label for each point of an object: shapes, shapenetpart) or scene (for each point
            of a room: s3dis, s3dis_area1 to s3dis_area6).
        dataset: shapes (embedded, made on first use), modelnet40, modelnet10, scanobjectnn, scanobjectnn_obj_bg,
            scanobjectnn_obj_only, or folder (your own files: root/<class>/<files>); of parts, of scenes: see task.
        root: the folder the data set is in, or is made in.
        normals: whether points have three channels more, their normals (not in shapes).
        strict: whether a file of --dataset folder that cannot be read ends the run; else it is listed at the end.
        download: whether a data set that is not there is fetched (ModelNet, 415 MiB), its licence printed first.
        model: the network's name.
        width: channels of its shared layers and its head, as a share of the published ones, rounded to multiples of 8.
        tnet_width: likewise, channels of the T-Nets.
        dropout: after each hidden layer of the head.
        input_transform: whether the T-Net that turns xyz is there.
        feature_transform: whether the T-Net that turns the 64 features is there.
        regularization_weight: of the feature transform's orthogonality loss, as a mean over clouds.
        epochs: passes over the training part.
        batch_size: clouds a step; batches are cut evenly, so that none is much smaller.
        num_points: points a cloud, in evaluation and in the late epochs of training.
        early_points: points a cloud in the early epochs, drawn afresh each step; 0 for num_points throughout.
        early_share: the share of the epochs, from the first, that are early.
        optimizer: adamw, adam or sgd (with momentum 0.9); norms and biases are not decayed.
        lr: the highest learning rate.
        weight_decay: of the optimizer; adam and sgd add it to the gradient.
        schedule: cosine (from lr to 0), onecycle (up to lr, then down), step (down every decay_epochs) or constant; by
            the step.
        decay_epochs: how many epochs the step schedule, and batch norm's, keep what they have.
        decay_rate: by which the step schedule multiplies the rate then, down to a hundredth of lr.
        norm_momentum: how much of a batch's statistics batch norm's running ones take at a step.
        norm_decay_rate: by which that is multiplied every decay_epochs, down to 0.01; 1 leaves it.
        warmup: share of the steps, from the first, in which the rate rises to lr (onecycle has its own).
        clip: the largest norm of a step's gradient; a larger one is scaled down to it. 0 for any.
        ema: how much of the moving average of the weights is kept at a step; it is what is measured and kept.
            0 for none; 0.999 averages the last thousand steps or so, and early on a shorter past.
        skip_limit: how many steps may be skipped, because points, loss or gradient were not finite, before the run
            ends; a skipped step changes nothing.
        label_smoothing: share of the target spread over all classes.
        restrict: whether the loss of a point's part is among the parts of the object's category; else among all, as
            published.
        unknown_category: the share of objects whose category is kept from the network of parts at a step, so that it
            learns to do without; its loss is then among all parts.
        overlap: the weight, in the loss of parts, of one less their overlap with what is predicted, an IoU of
            probabilities; the rest is cross-entropy.
        teacher: trained networks to learn from too, run folders of the same classes; the mean of their probabilities.
        distill: the weight of what the teacher says in the loss; the rest is that of the labels.
        temperature: by which the logits of teacher and student are divided before they are compared.
        scale: each axis is stretched by a factor from [1/scale, scale]; 1 for none.
        shift: each cloud is moved by up to this much along each axis; the cloud has radius 1.
        rotate: each cloud is turned about the up axis by up to this many degrees; 180 for any.
        mirror: whether each cloud is mirrored left to right, front to back, both or neither, as chance has it.
        jitter: standard deviation of the noise on each coordinate.
        point_dropout: up to this share of a cloud's points is dropped.
        mix: none, or what part of a cloud another of its batch replaces, and so its target: cutmix_r points at random,
            cutmix_k the nearest to one of them. In the training accuracy it is of the class most of it comes from.
        mix_share: the probability that a cloud is mixed.
        mix_beta: the part that is replaced is drawn from Beta(mix_beta, mix_beta); 1 for any alike.
        val_fraction: share of each training class held out to choose the epoch; 0 takes the last epoch.
        test: whether train.py opens the test part, to measure the chosen epoch; false while settings are searched for.
        feed: resident (all clouds on the device), stream (read ahead by workers), or auto (resident where it fits);
            the same batches either way.
        seed: of everything random.
        device: auto (cuda where there is one), cpu, cuda or cuda:N.
        precision: fp32, or bf16 (autocast).
        compile: whether torch.compile makes kernels for the network (needs a C++ compiler, or Triton on a GPU; the
            first steps of each size of batch wait for it).
        cuda_graph: whether forward and backward are recorded as CUDA graphs (one GPU).
        deterministic: whether a GPU adds in one order, so that a run resumes bit for bit there too, if more slowly; a
            CPU always does.
        overfit_batches: train on so many batches alone, without augmentation, and validate on them too: a network that
            does not learn them by heart has a fault. 0 for the whole training part.
        tensorboard: whether train.py also writes the metrics for TensorBoard, in out/tensorboard (extra tensorboard).
        out: the run's folder; empty for a new one under runs/.
    """

    task: Literal["classification", "part", "scene"] = "classification"
    dataset: str = "shapes"
    root: str = "data"
    normals: bool = False
    strict: bool = False
    download: bool = False
    model: str = "pointnet"
    width: float = 1.0
    tnet_width: float = 1.0
    dropout: float = 0.3
    input_transform: bool = True
    feature_transform: bool = True
    regularization_weight: float = 0.016
    epochs: int = 20
    batch_size: int = 32
    num_points: int = 1024
    early_points: int = 256
    early_share: float = 0.8
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    schedule: Literal["cosine", "onecycle", "step", "constant"] = "onecycle"
    decay_epochs: int = 20
    decay_rate: float = 0.7
    norm_momentum: float = 0.1
    norm_decay_rate: float = 1.0
    warmup: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    skip_limit: int = 10
    label_smoothing: float = 0.2
    restrict: bool = True
    unknown_category: float = 0.0
    overlap: float = 0.0
    teacher: tuple[str, ...] = ()
    distill: float = 0.5
    temperature: float = 2.0
    scale: float = 1.25
    shift: float = 0.1
    rotate: float = 0.0
    mirror: bool = False
    jitter: float = 0.0
    point_dropout: float = 0.0
    mix: Literal["none", "cutmix_r", "cutmix_k"] = "none"
    mix_share: float = 0.5
    mix_beta: float = 1.0
    val_fraction: float = 0.1
    test: bool = True
    feed: Literal["auto", "resident", "stream"] = "auto"
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    cuda_graph: bool = False
    deterministic: bool = False
    overfit_batches: int = 0
    tensorboard: bool = False
    out: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is None:
                raise ValueError(f"{field.name} must have a value, got none")
        for name, low, high in (
            ("epochs", 1, None),
            ("batch_size", 2, None),
            ("num_points", 1, None),
            ("early_points", 0, None),
            ("early_share", 0, 1),
            ("lr", 0, None),
            ("weight_decay", 0, None),
            ("decay_epochs", 1, None),
            ("decay_rate", 0, 1),
            ("norm_momentum", 0, 1),
            ("norm_decay_rate", 0, 1),
            ("warmup", 0, 1),
            ("clip", 0, None),
            ("ema", 0, 1),
            ("skip_limit", 0, None),
            ("label_smoothing", 0, 1),
            ("unknown_category", 0, 1),
            ("overlap", 0, 1),
            ("distill", 0, 1),
            ("temperature", 1, None),
            ("scale", 1, None),
            ("shift", 0, None),
            ("rotate", 0, 180),
            ("jitter", 0, None),
            ("point_dropout", 0, 1),
            ("mix_share", 0, 1),
            ("mix_beta", 0.01, None),
            ("val_fraction", 0, 0.9),
            ("regularization_weight", 0, None),
            ("width", 0.01, 16),
            ("tnet_width", 0.01, 16),
            ("dropout", 0, 0.99),
            ("overfit_batches", 0, None),
            ("seed", 0, MOST_SEED),
        ):
            value = getattr(self, name)
            if not low <= value or (high is not None and value > high):
                wanted = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"{name} must be {wanted}, got {value}")
        if self.compile and self.cuda_graph:
            raise ValueError("compile makes CUDA graphs itself; leave out compile or cuda_graph")
        if self.task != "classification" and (self.mix != "none" or self.teacher):
            raise ValueError(f"mix and teacher are for the task classification, not {self.task}; leave them out")
        check_name("dataset", self.dataset, datasets.TASKS[self.task])
        check_name("model", self.model, TASKS[self.task].networks)

    @property
    def network(self) -> str:
        """The zoo's name of the network."""
        return TASKS[self.task].networks[self.model]

    def points_in_epoch(self, epoch: int) -> int:
        """How many points a cloud has in training, in the epoch of this index (from 0)."""
        early = self.early_points and epoch < int(self.epochs * self.early_share)
        return min(self.early_points, self.num_points) if early else self.num_points

    def norm_momentum_in_epoch(self, epoch: int) -> float:
        """Batch norm's momentum in the epoch of this index (from 0)."""
        decayed = self.norm_momentum * self.norm_decay_rate ** (epoch // self.decay_epochs)
        return max(decayed, min(self.norm_momentum, 0.01))


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError, with the nearest known name, unless `name` is one of them."""
    known = list(known)
    if name not in known:
        raise ValueError(f"no {what} '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})")


MOST_SEED = 2**43 - 1  # beside it, an epoch's number fits into the 64 bits of a generator's seed


class PlainHelp(DefaultHelpFormatter):
    """Says of each flag what is written of it and, where it has one, its default."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        has_none = any(action.default is none for none in (None, False, SUPPRESS)) or action.default == ""
        return text if has_none or not action.option_strings else f"{text} (default: %(default)s)"


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}  # of values, in words


class OneLineParser(ArgumentParser):
    """A parser whose every complaint is one line, with the nearest known word for an unknown.

    It goes to stderr, and the program ends with exit code 2; with `exit_on_error=False` it is a ValueError.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{"formatter_class": PlainHelp, "allow_abbrev": False, **settings})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        reason = " ".join(line.strip().removeprefix("- ") for line in str(message).splitlines())
        reason = re.sub(r"(are required: )\w+\.", r"\1", reason)  # a subcommand's name, which was given
        flags = [flag for action in self._actions for flag in action.option_strings]
        if 'expected "subcommand"' in reason:
            commands = next(action.choices for action in self._actions if isinstance(action.choices, dict))
            reason = f"name a command, one of {', '.join(commands)}"
        unknown = [word.split("=")[0].rstrip(":,") for word in str(message).split() if word.startswith("--")]
        unknown += [f"--{key}" for key in re.findall(r"(?<!class )[\"'](\w+)[\"']", str(message))]
        hint = next((did_you_mean(word, flags) for word in unknown if word not in flags), "")
        choice = re.search(r"invalid choice: '(?P<word>.*?)' \(choose from (?P<known>.*)\)", reason)
        choice = choice or re.search(r"Literal\[(?P<known>.*)\]\. Got value: (?P<word>.*)", reason)
        hint = did_you_mean(choice["word"], re.findall(r"\w+", choice["known"])) if choice else hint
        hint = "" if "did you mean" in reason else hint
        wrong = re.search(r"key \"(\w+)\".*?<class '(\w+)'>.*(?:Got|Given) value: (.*)", reason)
        if wrong and wrong[2] in KINDS:
            reason = f"{wrong[1]} must be {KINDS[wrong[2]]}, got '{wrong[3]}'"
        if not self.exit_on_error:
            raise ValueError(f"{reason}{hint}") from ex
        sys.stderr.write(f"{self.prog}: error: {reason}{hint}\n")
        sys.exit(2)


def training_parser(exit_on_error: bool = True) -> OneLineParser:
    """The flags of `train.py`, read off `TrainConfig`, with --recipe, --config (a YAML file), --seeds and --resume."""
    about = "Train a network on point clouds."
    parser = OneLineParser(prog="train.py", description=about, exit_on_error=exit_on_error)
    parser.add_argument("--config", action="config", help="a YAML file of settings; later flags win")
    text = f"the settings to begin with: {', '.join(_recipes())} (pointnet.training.recipes); flags win"
    parser.add_argument("--recipe", type=str, metavar="NAME", help=text)
    parser.add_class_arguments(TrainConfig)
    switches = {field.name for field in dataclasses.fields(TrainConfig) if field.default is False}
    for action in parser._actions:
        if action.dest in switches:  # may be given without a value
            action.nargs, action.const = "?", True
        if action.dest == "teacher":  # words, not a list written in one
            action.nargs, action.metavar = "+", "RUN"
            action._typehint = str  # type: ignore[attr-defined]
    text = "train once with each of these seeds, in out/seed-0 and so on, and sum up: mean and standard deviation"
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help=text)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own settings")
    text = "do all that the run would do on a few clouds, leave nothing behind, and say how long the run should take"
    parser.add_argument("--dry_run", action="store_true", help=text)
    parser.add_argument(
        "--profile", action="store_true", help="say where the time of a step goes, and leave nothing behind"
    )
    return parser


class Command(NamedTuple):
    """What a call of `train.py` asks for; without seeds, one run with `config.seed`."""

    config: TrainConfig
    resume: bool
    seeds: list[int]
    look: Look = ""  # a look at the run instead of the run


def parse_command(arguments: list[str] | None = None) -> Command:
    """Command-line words -> the settings, whether to resume, and the seeds to run, if several are.

    The settings begin as those of the recipe, where one is named, or where the task has one of its own; words win over
    it wherever they stand.
    With --resume the settings are those of the run in --out; a flag may repeat one, and change where the data set is
    (root), whether it is fetched (download), how it is fed (feed), where its teacher is (teacher), which device of the
    same kind is used, and whether TensorBoard is written for (tensorboard). Seeds may be added to those of the run.
    """
    parser = training_parser()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = parser.parse_args(arguments)
        recipe, saved = _recipe(parsed), _saved_config(parsed) if parsed.resume else None
        if begun := saved or recipe:
            parser.set_defaults(_as_settings(begun))
            parsed = parser.parse_args(arguments)
        if saved:
            _check_unchanged(saved, parsed)
        if recipe and parsed.task != recipe.task:
            raise ValueError(f"the recipe {parsed.recipe} is for --task {recipe.task}, got {parsed.task}")
        resume, seeds = parsed.pop("resume"), parsed.pop("seeds") or []
        looks = [name for name in LOOKS if parsed.pop(name)]
        if len(looks) > 1 or (looks and (resume or seeds)):
            raise ValueError(f"--{looks[0]} is of one run to come: not with --resume, --seeds or another such flag")
        config = _to_config(parsed)
        if saved:
            seeds = _saved_seeds(config, seeds)
        if seeds:
            check_seeds(seeds)
            _check_no_seed(words)
    except UnicodeDecodeError as error:
        parser.error(f"a settings file must be UTF-8 text: {error}")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return Command(config, resume, seeds, looks[0] if looks else "")


def parse_config(arguments: list[str] | None = None) -> tuple[TrainConfig, bool]:
    """The settings and whether to resume, as `parse_command` reads them."""
    config, resume, *_ = parse_command(arguments)
    return config, resume


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError, in one line, unless these are different seeds of 0 or more."""
    if not seeds:
        raise ValueError("seeds must be at least one number, got none")
    for seed in seeds:
        if not 0 <= seed <= MOST_SEED:
            raise ValueError(f"seeds must be from 0 to {MOST_SEED}, got {seed}")
        if seeds.count(seed) > 1:
            raise ValueError(f"seeds must all be different, got {seed} more than once")


def _check_no_seed(words: Iterable[str]) -> None:
    if "--seed" in {word.split("=")[0] for word in words}:
        raise ValueError("--seed cannot be given where there are several seeds; leave it out, or --seeds")


def _recipes() -> dict[str, Callable[[], TrainConfig]]:
    from .recipes import RECIPES  # they are made of what is defined here

    return RECIPES


def _recipe(parsed: Any) -> TrainConfig | None:
    """The settings to begin with: of the recipe that is asked for, or of the task's own; None for the defaults."""
    if not parsed.recipe:
        own = parsed.task in _recipes() and not (parsed.config or parsed.resume)
        return _recipes()[parsed.task]() if own else None
    check_name("recipe", parsed.recipe, _recipes())
    for other, which in (("config", "the file's"), ("resume", "the run's")):
        if parsed[other]:
            raise ValueError(f"--recipe cannot be given with --{other}, whose settings are {which} own")
    return _recipes()[parsed.recipe]()


MAY_CHANGE = ("out", "root", "download", "feed", "teacher", "device", "tensorboard")  # where a run goes on


def _to_config(parsed: Any) -> TrainConfig:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: value for name, value in parsed.items() if name in names}
    return TrainConfig(**settings | {"teacher": tuple(settings["teacher"])})


def _as_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings as the parser takes them; undoes `_to_config`."""
    return dataclasses.asdict(config) | {"teacher": list(config.teacher)}


def _saved_config(parsed: Any) -> TrainConfig:
    """The settings of the run in --out."""
    if not parsed.out:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    path = Path(parsed.out) / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{path}: no run to resume here")
    if parsed.config:
        raise ValueError("--resume takes the run's own settings, so --config cannot be given with it")
    return load_config(path)


def _check_unchanged(saved: TrainConfig, parsed: Any) -> None:
    """Raises ValueError if a setting that decides what the run computes is no longer the saved one."""
    for name, was in _as_settings(saved).items():
        if parsed[name] != was and name not in MAY_CHANGE:
            raise ValueError(f"--{name} {parsed[name]} differs from the run's own {was}; resume cannot change it")


def _saved_seeds(config: TrainConfig, given: list[int]) -> list[int]:
    """The seeds of the run in `config.out`, and those given that it has not."""
    saved = training_parser(False).parse_path(os.fspath(Path(config.out) / "config.yaml")).get("seeds") or []
    if given and not saved:
        raise ValueError(f"{config.out}: holds one run, of seed {config.seed}; it cannot go on with --seeds")
    missing = [str(seed) for seed in saved if seed not in given]
    if given and missing:
        raise ValueError(f"--seeds leaves out {', '.join(missing)} of the run; resume can add seeds, not drop them")
    return given or saved


def save_config_yaml(config: TrainConfig, path: str | os.PathLike[str], seeds: Sequence[int] = ()) -> None:
    """Writes the settings as YAML that --config reads, and the seeds where there are several."""
    parser = training_parser()
    namespace = parser.parse_object(_as_settings(config))
    for name in ("recipe", "resume", "seeds", *LOOKS):
        namespace.pop(name)
    if seeds:
        namespace["seeds"] = list(seeds)
    write_atomically(path, parser.dump(namespace, skip_validation=True).encode())


def to_words(config: TrainConfig) -> list[str]:
    """The words of `train.py` for the settings it would not begin with; `parse_command` reads them back."""
    begun = _recipes().get(config.task, TrainConfig)()
    words = [] if config.task == TrainConfig.task else ["--task", config.task]
    for field in dataclasses.fields(TrainConfig):
        value = getattr(config, field.name)
        if value != getattr(begun, field.name):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += [f"--{field.name}", *(value if isinstance(value, tuple) else [text])]
    return words


def load_config(path: str | os.PathLike[str]) -> TrainConfig:
    """Reads settings that `save_config_yaml` wrote; a complaint begins with the path.

    Raises:
        ValueError: they are not text, or hold a value that cannot be.
    """
    try:
        return _to_config(training_parser(exit_on_error=False).parse_path(os.fspath(path)))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
