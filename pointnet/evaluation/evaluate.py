"""How good a network is on a data set: the metrics of its task over every sample."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.datasets.clouds import BLOCKS
from pointnet.datasets.given import check_num_points
from pointnet.datasets.own_labels import FILLERS, OwnPoints
from pointnet.datasets.transforms import rotation
from pointnet.layers.shared_layer import is_whole
from pointnet.models import PartLabels, Pretrained
from pointnet.models.chunks import points_are_independent
from pointnet.models.own import has_own_forward
from pointnet.names import did_you_mean, first_of, printable
from pointnet.world import World

from .contract import NORMALS, Contract
from .contract_of_data import contract_of_data
from .structures import Structures
from .tasks import Task, parts_taught, task_of

EVALUATION_BATCH = 32


def check_taught(model: Pretrained, data: LabelledClouds, run: object, where: str) -> None:
    """Raises ValueError, in one line, unless the data fits what the model was trained on: classes and categories, in
    their order, channels and scale."""
    task, contract = task_of(model), Contract.of(model)
    check_names(model.classes, task.class_names(data), run, where, data)
    if contract.categories:
        check_names(contract.categories, task.categories(data), run, where, data, "categories")
    contract.check_met(contract_of_data(data, num_points=contract.num_points), run, where)


def numbered_as_taught(model: Pretrained, data: LabelledClouds) -> str:
    """Numbers the labels of data as a network does, if all of their names are the network's: -> how many of its names
    they have, "" if all. Data with other names stays as it is, for `check_taught` to refuse."""
    task, categories = task_of(model), Contract.of(model).categories
    names, kinds = task.class_names(data), task.categories(data)
    if not set(names) <= set(model.classes) or not set(kinds) <= set(categories):
        return ""
    if isinstance(data, LabelledPoints):
        data.number_as(categories or data.classes, model.classes)
    else:
        data.number_as(model.classes)
    pairs = ((kinds, categories, "categories"), (names, model.classes, "classes; it may answer any of them"))
    fewer = (
        f"{len(own)} of the network's {len(taught)} {what}" for own, taught, what in pairs if len(own) < len(taught)
    )
    return next(fewer, "")


def check_said(model: Pretrained, data: LabelledClouds, run: object, where: str) -> None:
    """Raises ValueError, in one line, for data that says of itself other channels, another scale, intensity or side of
    blocks than a network's contract has, if it has one. What only clouds would tell is not looked at."""
    if "num_points" not in model.preprocessing:
        return
    contract = Contract.of(model)
    said: dict[str, Any] = {"channels": data.channel_names and tuple(data.channel_names), "scale": data.scale}
    said |= {"intensity": data.intensity, "block": data.block if data.scale == BLOCKS else None}
    given = {name: value for name, value in said.items() if value is not None}
    contract.check_met(replace(contract, **given), run, where)


def check_names(
    own: Sequence[str],
    names: Sequence[str],
    run: object,
    where: str,
    data: LabelledClouds | None = None,
    kind: str = "classes",
) -> None:
    """Raises ValueError, in one line, unless a network's names, if it has any, are those of the data in their order."""
    if own and tuple(names) != tuple(own):
        more, fewer = (sorted(set(a) - set(b)) for a, b in ((names, own), (own, names)))
        which = f"those lack '{fewer[0]}'" if fewer else "they are in another order"
        which = f"it has no '{more[0]}'{did_you_mean(more[0], own)}" if more else which
        if kind == "classes" and isinstance(data, OwnPoints):
            which += "; classes.txt (of parts, parts.txt) in its folder names labels, also those of no point"
            if more and more[0] in map(str, FILLERS):
                which += f". If {more[0]} means that a point has none, a line '{more[0]} -' there says so"
        raise ValueError(f"{run}: its {kind} are not those of {where}: {which}")


def never_answered(model: nn.Module, data: LabelledClouds) -> list[str]:
    """A line on parts that objects have here, and that the network does not answer of their category."""
    if not isinstance(data, LabelledPoints) or getattr(model, "parts_of", None) is None:
        return []
    pairs = (data.parts_of & ~parts_taught(model, data)).nonzero().tolist()
    named = [f"{data.part_names[part]} of {data.classes[category]}" for category, part in pairs]
    such = printable("".join(named[:1]))
    return [
        f"parts that the network did not see in their category; they count as wrong: {len(named)}, such as {such}"
    ] * bool(named)


def of_single_parts(task: Task, data: LabelledClouds, model: nn.Module | None = None) -> list[str]:
    """A line on categories of objects here that have a single part, in the network too."""
    if not isinstance(data, LabelledPoints) or not task.categories(data):
        return []
    parts_of = data.parts_of if model is None else data.parts_of | parts_taught(model, data)
    there = data.labels.bincount(minlength=len(data.classes)) > 0
    single = [data.classes[i] for i in (there & (parts_of.sum(1) == 1)).nonzero()[:, 0].tolist()]
    return [f"categories of a single part: {first_of(single)}; their IoU is 100 % whatever is answered"] * bool(single)


def check_read(*sets: Any) -> None:
    """Raises ValueError for what is no data set of the library, and for one whose `__getitem__` is its own: clouds are
    read by its `batch`."""
    for data in sets:
        if not isinstance(data, LabelledClouds):
            made = "LabelledClouds(points, labels, ...) makes one, data.subset(indices) a part of it"
            raise ValueError(f"data must be LabelledClouds or LabelledPoints, got {type(data).__name__}; {made}")
        kind = type(data)
        known = kind.__getitem__ in (LabelledClouds.__getitem__, LabelledPoints.__getitem__)
        if not known and kind.batch is LabelledClouds.batch:
            own = f"{kind.__name__} has a __getitem__ of its own, which is never called, as clouds are read by batch()"
            ways = "change them before you make the data set; augment by the settings, or in your network's forward"
            raise ValueError(f"{own}; {ways}")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: LabelledClouds,
    device: torch.device | str = "cpu",
    *,
    after_batch: Callable[[], None] = lambda: None,
    world: World = World(),  # noqa: B008  # it is immutable
    votes: int = 1,
    num_points: int | None = None,
    contract: Contract | None = None,
    degrees: float = 0.0,
    by_class: bool = False,
    smoothing: float = 0.0,
    look: Callable[[Tensor, Tensor, Tensor, Tensor], None] = lambda *batch: None,
    task: Task | None = None,
    structures: Structures | None = None,
) -> dict[str, Any]:
    """The metrics of the network's task over every sample, in float32, with the mean cross-entropy loss and the count.

    An answer of NaN is wrong, and the loss is then NaN. ValueError for no clouds or for an argument outside the values
    below; if the network scores fewer classes than the data has; if one of the library names other classes than the
    data; or, without `task`, if the data says of itself another input than the network was trained on.

    Args:
        after_batch: called after each batch; it may raise, to stop.
        world: the processes that share the samples; each returns the metrics of all samples.
        votes: predict by the mean probability over this many even rotations about the up axis (Qi et al. 2017: 12), at
            least 1. Useful if training rotated the clouds too.
        num_points: the number of points per cloud, the first ones; None for all that the task evaluates. Segmentation
            evaluates all stored points, each of them once; a network that needs the density of training (DGCNN) sees
            as many as then, the first ones, and labels all, as `label_points` has it.
        contract: the model's, which says which channels rotate with the points and holds the temperature of the
            probabilities; None: of six channels that `data` does not name the last three are normals, and the
            temperature is 1.
        degrees: the angle by which all clouds are rotated about the up axis, finite.
        by_class: add "of_class", the accuracy or IoU of each class that occurs (of parts, of each category) by name.
        smoothing: the share of the loss's targets, from 0 to below 1, that is spread over all classes; above 0 the loss
            without it is added as "cross_entropy".
        look: called with each batch: its points with all that are stored, logits of temperature 1, logarithms of
            probabilities, and labels.
        task: what a network of one's own is for, if it does not classify clouds.
        structures: those of the clouds, for a network that takes them; None: the network finds them itself.
    """
    task = _checked(task, model, data, num_points, degrees, smoothing)
    count = num_points or (None if isinstance(data, LabelledPoints) else data.num_points)
    scores, parts_of = task.scores(data, device, model), task.parts_of(model, data, device)
    normals, temperature = (contract.normals, contract.temperature) if contract else (_has_normals(data), 1.0)
    losses = torch.zeros(3, dtype=torch.float64, device=device)
    data.expect(torch.arange(len(data)))
    with evaluating(model):
        asks = model if num_points else _at_density(model)
        for batch in torch.arange(len(data)).split(EVALUATION_BATCH * world.size):
            if len(rows := batch.tensor_split(world.size)[world.rank]):
                points, clouds = (each.to(device) for each in data.batch(rows))
                x, category, true, valid = task.examples(points[:, :, :count], clouds)
                asked = partial(model, structure=structures.of(x, rows, x.shape[2])[1]) if structures else asks
                x = rotation(x, degrees, normals) if degrees else x
                more = () if category is None else (category,)
                logits, logs = vote(asked, x, votes, normals, temperature, *more)
                scores.update(_answers(task, data, logs, category, true, parts_of), true, valid, *more)
                look(points, logits, logs, true)
                losses += _losses(logs, true, valid, smoothing)
            after_batch()
    for tensor in (*scores.sums, losses):
        world.add_up([tensor])
    return {**_means(losses, smoothing), **scores.result(), **(_of_class(task, data, scores) if by_class else {})}


def _checked(
    task: Task | None,
    model: nn.Module,
    data: LabelledClouds,
    num_points: int | None,
    degrees: float,
    smoothing: float,
) -> Task:
    """The task, if the data can be read, and have so many points and the classes that a network of the library names,
    if it names any; if no task was given, also if the data says of itself what the network was trained on."""
    if not (math.isfinite(degrees) and 0 <= smoothing < 1):
        raise ValueError(f"degrees must be a number and smoothing from 0 to below 1, got {degrees} and {smoothing}")
    check_read(data)
    if len(data) == 0:
        raise ValueError("there are no clouds to evaluate on")
    if num_points is not None:
        check_num_points(num_points, data.batch(torch.arange(1))[0].shape[2])
    own = task or task_of(model)
    if isinstance(model, Pretrained):
        check_names(model.classes, own.class_names(data), "the network", "the data", data)
        if task is None:
            check_said(model, data, "the network", "the data")
    return own


def _at_density(model: nn.Module) -> Callable[..., Tensor]:
    """The network; of one that needs the density of training and can label points that it does not see, a function that
    lets it see as many points as then."""
    if not isinstance(model, PartLabels) or not model.needs_density or has_own_forward(model):
        return model
    if not (size := model.preprocessing.get("num_points")) or not points_are_independent(model):
        return model
    return lambda x, *category: next(model.label_chunks(x[:, :, :size], [x], *category))


def _has_normals(data: LabelledClouds) -> bool:
    return data.channels == 6 if data.channel_names is None else data.channel_names[3:6] == NORMALS


def _answers(
    task: Task, data: LabelledClouds, logs: Tensor, category: Tensor | None, true: Tensor, parts_of: Tensor | None
) -> Tensor:
    """The predicted labels; a wrong one where a probability is NaN, which counts as the largest.

    Raises:
        ValueError: probabilities of fewer classes, or parts, than the data has.
    """
    if logs.shape[1] < (wanted := len(task.class_names(data))):
        raise ValueError(f"the network gives {logs.shape[1]} scores, fewer than the {wanted} that the data names")
    return torch.where(logs.isnan().any(1), (true + 1) % logs.shape[1], task.predict(logs, category, parts_of))


def _of_class(task: Task, data: LabelledClouds, scores: Any) -> dict[str, Any]:
    """As "of_class" the accuracy or IoU of each class that occurs, by its name."""
    shares = zip(task.categories(data) or task.class_names(data), scores.of_class().tolist(), strict=True)
    return {"of_class": {name: share for name, share in shares if not math.isnan(share)}}


def _losses(logs: Tensor, true: Tensor, valid: Tensor, smoothing: float) -> Tensor:
    """(3,) float64: over the valid labels the sum of the loss, that of the loss without smoothing, and their number."""
    targets = (of_targets(logs, true.clamp(min=0), share) for share in (smoothing, 0.0))
    sums = [torch.where(valid, -logarithm, 0.0).sum(dtype=torch.float64) for logarithm in targets]
    return torch.stack([*sums, valid.sum(dtype=torch.float64)])


def _means(losses: Tensor, smoothing: float) -> dict[str, float]:
    """By name, from the sums of `_losses`."""
    names = ("loss", "cross_entropy") if smoothing else ("loss",)
    return dict(zip(names, (losses[:2] / losses[2]).tolist(), strict=False))


def of_targets(logs: Tensor, true: Tensor, smoothing: float) -> Tensor:
    """The logarithms of probabilities (B, K) or (B, K, N) at the targets, a share of which is spread over all."""
    right = logs.gather(1, true.unsqueeze(1)).squeeze(1)
    return torch.lerp(right, logs.mean(1), smoothing) if smoothing else right


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in eval mode; afterwards each of its modules is in the mode that it was in."""
    with modes_kept(model):
        model.eval()
        yield


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards each of the model's modules is in the mode that it was in: training or eval."""
    was, modes = model.training, [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.train(was)  # which a network may do more in
        for module, was_training in modes:
            module.training = was_training


def vote(
    model: Callable[..., Tensor], x: Tensor, votes: int, normals: bool, temperature: float, *category: Tensor
) -> tuple[Tensor, Tensor]:
    """The logits of x (B, C, N), and the logarithms of the mean probabilities over so many rotations of it, the first
    by 0 degrees.

    -> (B, classes) or (B, classes, N), twice. category (B,): for a network that takes it.
    """
    if not is_whole(votes):
        raise ValueError(f"votes must be a whole number of at least 1, got {votes}")
    logits = model(x, *category)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # under autocast of half as many bits
    logs = (logits / temperature).log_softmax(1)
    for number in range(1, votes):
        rotated = model(rotation(x, 360 * number / votes, normals), *category)
        logs = logs.logaddexp((rotated / temperature).log_softmax(1))
    return logits, logs - math.log(votes)
