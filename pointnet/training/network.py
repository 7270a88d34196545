"""The network of a run, from the settings and the data, and the weights that it starts from."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pointnet.datasets import LabelledClouds
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.evaluation.evaluate import evaluating, modes_kept
from pointnet.evaluation.tasks import TASKS, Task
from pointnet.layers import synchronize_norms
from pointnet.layers.shared_mlp import scaled
from pointnet.layers.tnet import TNET_WIDTHS, TNet
from pointnet.models import MODELS, PointNetModel, load_model
from pointnet.models.own import is_own, registered_as
from pointnet.models.pretrained import Pretrained, is_rebuilt
from pointnet.models.weights import check_tensors, digest
from pointnet.world import World

from .recipes import is_chosen
from .settings import TrainConfig

ENCODER_ARGUMENTS = ("input_transform", "feature_transform", "widths", "last_activation", "tnet_widths")
HEAD_ARGUMENTS = ("head_widths", "head_takes")
PARTS = {"encoder": "encoder", "head": "head", "logits": "last layer"}  # of a network, and how people call them
# Arguments of a network, some of which one's own may not take, and the settings that they come from.
OF_NETWORK = {name: name for name in ("input_transform", "feature_transform", "dropout")}
OF_NETWORK |= {"widths": "width", "head_widths": "width", "tnet_widths": "tnet_width"}
PLAIN = (bool, int, float, str, tuple, type(None))  # kinds of values that say what a loss computes
Loss = Callable[[Tensor, Tensor], Tensor]


class Own(NamedTuple):
    """A network and a loss of one's own that a run trains, as of `fit`; None: those of its settings."""

    model: nn.Module | None = None
    loss: Loss | None = None

    @property
    def name(self) -> str | None:
        """Of the network's class."""
        return None if self.model is None else type(self.model).__name__

    def check(self) -> None:
        """Raises ValueError for what is no module or function, and a loss with parameters: no optimizer sees them."""
        for name, value, fits, kind in (
            ("model", self.model, isinstance(self.model, nn.Module), "a module"),
            ("loss", self.loss, callable(self.loss), "a function of logits and labels"),
        ):
            if isinstance(value, type):
                made = f"the class {value.__name__}; make one: {value.__name__}(...)"
                raise ValueError(f"{name} must be {kind}, got {made}")
            if value is not None and not fits:
                given = f"{value!r}; one of the library's is in the settings: TrainConfig(...)"
                raise ValueError(f"{name} must be {kind}, got {given}")
        learns = isinstance(self.loss, nn.Module) and any(each.requires_grad for each in self.loss.parameters())
        if learns:
            raise ValueError("loss has parameters, which would not be trained; make them the network's, or freeze them")

    @property
    def loss_name(self) -> str | None:
        """Of the loss's function or class."""
        return None if self.loss is None else getattr(self.loss, "__name__", type(self.loss).__name__)

    @property
    def loss_values(self) -> str | None:
        """What the loss computes with, as far as its attributes show it: plain values, and a hash of each tensor."""
        if self.loss is None:
            return None
        held: list[Any] = [getattr(self.loss, "keywords", {})]  # of functools.partial
        if isinstance(self.loss, nn.Module):
            held += [
                dict(self.loss.named_parameters()),
                dict(self.loss.named_buffers()),
                *map(vars, self.loss.modules()),
            ]
        else:
            held.append(getattr(self.loss, "__dict__", {}))
        values = [(name, value) for each in held for name, value in each.items() if name[0] != "_"]
        shown = [f"{name}={value!r}" for name, value in values if isinstance(value, PLAIN) and name != "training"]
        tensors = [(name, value.detach().cpu()) for name, value in values if isinstance(value, Tensor)]
        return ", ".join([*shown, *(f"{name}={digest({name: value})[:8]}" for name, value in tensors)])


class StartingWeights:
    """A trained network that a run starts from: its encoder, and of a network of the same kind also the head.

    Args:
        name: a run folder, or the name of shipped weights.
        kind: the run's network, one of the library's or one that is made with an encoder like theirs.
        contract: of the run; its clouds must have the channels and the scale that the weights were taught.

    `digest` is a hash of the weights, `line` says what the run took. ValueError, naming the weights, where there
    are none or they do not suit.
    """

    def __init__(self, name: str, kind: type[nn.Module], contract: Contract):
        self.name, self.network = name, load_model(name)
        if not isinstance(self.network, PointNetModel):
            raise ValueError(f"init {name}: {type(self.network).__name__} has no encoder to start from")
        if not (issubclass(kind, PointNetModel) and {*ENCODER_ARGUMENTS} <= {*inspect.signature(kind).parameters}):
            raise ValueError(f"init {name}: {kind.__name__} cannot take its encoder; load weights into it in Python")
        self.taught = Contract.of(self.network)
        self.taught.check_met(contract, f"init {name}", "the data set")
        self.same_kind = type(self.network) is kind and self.taught.categories == contract.categories
        self.digest = digest(self.network.state_dict())[:16]
        # With these a network of this kind has the same encoder and, where it is taken, the same head.
        wanted = {*ENCODER_ARGUMENTS, *(HEAD_ARGUMENTS if self.same_kind else [])}
        self.arguments = {key: value for key, value in self.network.arguments.items() if key in wanted}

    def put_into(self, model: PointNetModel, classes: Sequence[str], freeze: bool) -> None:
        """Copies what fits into a network made with `arguments`; the last layer only if it is for the same classes.
        `freeze` leaves the encoder without gradients."""
        last = self.network.classes == tuple(classes)
        taken = ["encoder", *(["head", *(["logits"] if last else [])] if self.same_kind else [])]
        for part in taken:  # in order: where there is no dropout, the layers of a head have other numbers
            mine, given = (network.get_submodule(part).state_dict().values() for network in (model, self.network))
            for tensor, new in zip(mine, given, strict=True):
                tensor.copy_(new)
        model.encoder.requires_grad_(not freeze)
        names = [PARTS[part] for part in taken]
        new = [words for words in PARTS.values() if words not in names] or ["nothing"]
        names[0] += " (frozen)" if freeze else ""
        said = f"{', '.join(names)} taken, {', '.join(new)} new"
        self.line = f"weights of {self.name}: {said}; they were trained on clouds {self.taught}"


def model_arguments(config: TrainConfig, data: LabelledClouds) -> dict[str, Any]:
    """The arguments of `MODELS[config.network]` for this data."""
    task = TASKS[config.task]
    arguments = {
        **task.arguments(data),
        "input_transform": config.input_transform,
        "feature_transform": config.feature_transform,
        "regularization_weight": config.regularization_weight,
        "widths": [scaled(widths, config.width) for widths in task.widths],
        "head_widths": scaled(task.head_widths, config.width),
        "tnet_widths": [scaled(widths, config.tnet_width) for widths in TNET_WIDTHS],
        "dropout": config.dropout,
        "width": config.width,
    }
    taken = inspect.signature(MODELS[config.network]).parameters  # a network of one's own may take fewer
    return {name: value for name, value in arguments.items() if name in taken}


def contract_of(config: TrainConfig, data: LabelledClouds) -> Contract:
    """The contract of the network of a run on this data."""
    categories = TASKS[config.task].categories(data)
    return contract_of_data(
        data,
        num_points=config.num_points,
        columns=config.columns or data.columns,
        rotations=config.rotate,
        categories=categories,
        needs_category=bool(categories) and config.unknown_category == 0,
    )


def make_model(
    config: TrainConfig,
    data: LabelledClouds,
    device: torch.device,
    world: World,
    start: StartingWeights | None = None,
    own: nn.Module | None = None,
) -> Any:
    """A network, the same on every process of the world: untrained, but for what it takes from `start`; or `own`."""
    arguments = model_arguments(config, data) | (start.arguments if start else {})
    model: Any = (MODELS[config.network](**arguments) if own is None else own).to(device)
    if own is not None or is_own(model):
        check_scores(model, TASKS[config.task], data, device)
    if world.size > 1 or not is_own(model):
        synchronize_norms(model)
    if start:
        start.put_into(model, TASKS[config.task].class_names(data), config.freeze)
    if len(data) == 1:
        check_trains_alone(model, TASKS[config.task], data, device, has_tnets_to_choose=start is None and own is None)
    world.take_from_first(list(model.state_dict().values()))
    return model


@torch.no_grad()
def check_scores(model: nn.Module, task: Task, data: LabelledClouds, device: torch.device) -> None:
    """Raises ValueError, in one line, unless the network scores each class, for two clouds of the data in eval mode,
    and its state can be saved."""
    name = type(model).__name__
    check_tensors(model.state_dict())
    given, labels = first_examples(task, data, 2, device)
    shapes = " and ".join(str(tuple(each.shape)) for each in given)
    try:
        with evaluating(model):
            logits = model(*given)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} does not take {shapes}: {' '.join(str(error).split())[:200]}") from error
    wanted = (len(labels), len(task.class_names(data)), *labels.shape[1:])
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if got != wanted:
        raise ValueError(f"{name} must make {wanted} logits of {shapes}, got {got}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{name} has no parameter to train")


def has_name(model: nn.Module, own: Own) -> bool:
    """Whether `load_model` can build the network; not one of the library's that was changed by hand."""
    is_known = isinstance(model, Pretrained) and bool(model.model_name)
    return is_known and (own.model is None or is_own(model) or is_rebuilt(model))  # type: ignore[arg-type]


def lines_on_network(config: TrainConfig, model: nn.Module, own: Own, data: LabelledClouds) -> Iterator[str]:
    """Lines on a network or a loss that is not PointNet's: how it is loaded, and which settings that were chosen change
    nothing."""
    task, kind = TASKS[config.task], type(model).__name__
    taken: Any = getattr(model, "arguments", {}) if own.model is None else {}
    if own.model is not None or is_own(model):
        again = f'load_model("{config.out}"{"" if has_name(model, own) else f", model={kind}(...)"})'
        yield f"a network of your own, {kind}: it is loaded by {again}"
        if named := registered_as(model):
            yield f'one that TrainConfig(model="{named}") makes is loaded without model=, and predict takes it'
        if mixes_clouds(model, task, data):
            yield f"{kind} does not score a cloud alone as beside others: figures here are of batches, predict's of one"
        if own.loss is None and gives_probabilities(model, task, data):
            yield f"the scores of {kind} are probabilities; the loss expects logits, as before a softmax"
    if own.model is not None or not isinstance(model, PointNetModel):
        used = {OF_NETWORK.get(name, name) for name in taken}
        for name in sorted(set(OF_NETWORK.values()) - used):
            if is_chosen(config, name):
                yield f"{name} changes nothing: {kind} does not take it"
    if own.loss is not None:
        yield "a loss of your own: those of the settings change nothing, but for distillation"


@torch.no_grad()
def mixes_clouds(model: nn.Module, task: Task, data: LabelledClouds) -> bool:
    """Whether the logits of a cloud of the data in eval mode are others beside another than alone, or there are none
    alone."""
    device = next(model.parameters()).device
    given, _ = first_examples(task, data, 2, device)
    with evaluating(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
        both = model(*given)[:1]
        try:
            alone = model(*(each[:1] for each in given))
        except (RuntimeError, TypeError, ValueError, IndexError):
            return True
    near = {"rtol": 1e-2, "atol": 1e-2 * float(both.abs().max())}
    return both.shape != alone.shape or not torch.allclose(both, alone, **near, equal_nan=True)


@torch.no_grad()
def gives_probabilities(model: nn.Module, task: Task, data: LabelledClouds) -> bool:
    """Whether the scores of clouds of the data in training are at least 0 and add up to 1, as those of a softmax."""
    given, _ = first_examples(task, data, 2, next(model.parameters()).device)
    try:
        with as_in_training(model):
            scores = model(*given).float()
    except ValueError:  # of a norm, as there is a single cloud
        return False
    total = scores.sum(1)
    adds_up = torch.allclose(total, torch.ones_like(total), atol=1e-2)
    return adds_up and scores.shape[1] > 1 and bool((scores >= 0).all())


@torch.no_grad()
def check_trains_alone(
    model: nn.Module, task: Task, data: LabelledClouds, device: torch.device, has_tnets_to_choose: bool
) -> None:
    """Raises ValueError, in one line, where the network cannot train on the only cloud of the data: a norm behind a
    pooling has one value per channel, whose variance is 0. The network stays as it is.

    Args:
        has_tnets_to_choose: whether settings can leave out its T-Nets, where it has some.
    """
    given, _ = first_examples(task, data, 1, device)
    try:
        with as_in_training(model):
            model(*given)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # PyTorch's words
            raise
        ways = ["add files", *["take a smaller --block"] * isinstance(data, SceneFolder)]
        if has_tnets_to_choose and any(isinstance(part, TNet) for part in model.modules()):
            ways.append("leave out its T-Nets: --input_transform false --feature_transform false")
        needed = f"the norms behind the pooling of {type(model).__name__} need two"
        raise ValueError(f"there is a single cloud to train on, and {needed}; {', or '.join(ways)}") from error


def first_examples(
    task: Task, data: LabelledClouds, count: int, device: torch.device
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What a network takes of the first clouds, at most so many, and their labels."""
    points, clouds = (each.to(device) for each in data.batch(torch.arange(min(count, len(data)))))
    x, category, labels, _ = task.examples(points[:, :, : data.num_points], clouds)
    return (x,) if category is None else (x, category), labels


@contextmanager
def as_in_training(model: nn.Module) -> Iterator[None]:
    """The model as it trains; afterwards its modes, its buffers and PyTorch's random numbers are as before."""
    device = next(model.parameters()).device
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        # Dropout draws.
        with modes_kept(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
            set_training(model)
            yield
    finally:
        for buffer, old in zip(model.buffers(), before, strict=True):
            buffer.copy_(old)


def set_training(model: nn.Module) -> None:
    """Training mode; eval for a part that is frozen, so that its running statistics stay."""
    model.train()
    parts = [*model.children()]
    while parts:
        part = parts.pop()
        learns = [p.requires_grad for p in part.parameters()]
        if learns and not any(learns):
            part.eval()
        else:
            parts += part.children()
