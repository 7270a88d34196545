"""How good a network is on a data set: the scores of its task over every sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pointnet.datasets import LabelledClouds
from pointnet.datasets.transforms import rotation
from pointnet.models import PointNetModel
from pointnet.world import World

from .tasks import task_of

EVALUATION_BATCH = 32


def check_same_classes(model: PointNetModel, data: LabelledClouds, run: object, where: str) -> None:
    """Raises ValueError, in one line, unless the model knows the classes of the data, in their order."""
    names = task_of(model).answers(data)
    if names != model.classes:
        other = sorted(set(names) ^ set(model.classes))
        which = f"'{other[0]}' is in one alone" if other else "they are in another order"
        raise ValueError(f"{run}: its classes are not those of {where}: {which}")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: LabelledClouds,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
    world: World = World(),  # noqa: B008  # it is immutable
    votes: int = 1,
    num_points: int | None = None,
) -> dict[str, float | int]:
    """The scores of the network's task over every sample, the mean cross-entropy loss, and the count; in float32.

    Segmentation is measured on all points that the data holds, each of them once, or on the first `num_points` of each
    cloud.
    `check` is called after each batch and may raise. The processes of `world` share the samples, and each gets the
    figures of all. With several votes the probabilities are the mean of those of the cloud turned about the up axis by
    as many even steps (Qi et al. 2017 vote over 12): of use where training turned clouds too.

    Raises:
        ValueError: fewer than one vote.
    """
    if votes < 1:
        raise ValueError(f"votes must be at least 1, got {votes}")
    was_training = model.training
    model.eval()
    task = task_of(model)
    count = num_points or task.measured(data)
    scores = task.scores(data, device)
    loss, counted = torch.zeros(2, dtype=torch.float64, device=device)
    try:
        for batch in torch.arange(len(data)).split(EVALUATION_BATCH * world.size):
            rows = batch.tensor_split(world.size)[world.rank]
            if len(rows):
                points, labels = (each.to(device) for each in data.batch(rows))
                examples = task.examples(points[:, :, :count], labels)
                x, *more = examples.inputs
                logs = vote(model, x, votes, data.channels == 6, *more)
                task.add(scores, task.answer(model, logs, *more), examples)
                of_labels = logs.gather(1, examples.labels.unsqueeze(1)).squeeze(1)
                loss -= torch.where(examples.counted, of_labels, 0.0).sum(dtype=torch.float64)
                counted += examples.counted.sum()
            check()
    finally:
        model.train(was_training)
    for tensor in (*scores.sums, loss, counted):
        world.add_up([tensor])
    return {"loss": float(loss / counted), **scores.result()}


def vote(model: Callable[..., Tensor], x: Tensor, votes: int, normals: bool, *more: Tensor) -> Tensor:
    """The logarithms (B, classes) or (B, classes, N) of the mean probabilities over so many rotations of x, the first
    of them none; `more` is what else the model takes."""
    logs = model(x, *more).log_softmax(1)
    for vote in range(1, votes):
        logs = logs.logaddexp(model(rotation(x, 360 * vote / votes, normals), *more).log_softmax(1))
    return logs - math.log(votes)
