"""How good a network is on a data set: the metrics of its task over every sample."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.datasets.transforms import rotation
from pointnet.models import PointNetModel
from pointnet.world import World

from .tasks import task_of

EVALUATION_BATCH = 32


def check_same_classes(model: PointNetModel, data: LabelledClouds, run: object, where: str) -> None:
    """Raises ValueError, in one line, unless the model has the classes of the data, in their order."""
    names = task_of(model).class_names(data)
    if names != model.classes:
        other = sorted(set(names) ^ set(model.classes))
        which = f"'{other[0]}' is in one alone" if other else "they are in another order"
        raise ValueError(f"{run}: its classes are not those of {where}: {which}")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: LabelledClouds,
    device: torch.device | str = "cpu",
    after_batch: Callable[[], None] = lambda: None,
    world: World = World(),  # noqa: B008  # it is immutable
    votes: int = 1,
    num_points: int | None = None,
) -> dict[str, float | int]:
    """The metrics of the network's task over every sample, in float32, with the mean cross-entropy loss and the count.

    Args:
        after_batch: called after each batch; it may raise, to stop.
        world: the processes that share the samples; each returns the metrics of all samples.
        votes: predict by the mean probability over so many even rotations about the up axis (Qi et al. 2017: 12), at
            least 1, else ValueError. Useful where training rotated the clouds too.
        num_points: of each cloud the first so many; None for all that the task evaluates. Segmentation evaluates all
            points that are stored, each of them once.
    """
    if votes < 1:
        raise ValueError(f"votes must be at least 1, got {votes}")
    was_training = model.training
    model.eval()
    task = task_of(model)
    count = num_points or (None if isinstance(data, LabelledPoints) else data.num_points)
    scores = task.scores(data, device)
    loss, labels = torch.zeros(2, dtype=torch.float64, device=device)
    try:
        for batch in torch.arange(len(data)).split(EVALUATION_BATCH * world.size):
            rows = batch.tensor_split(world.size)[world.rank]
            if len(rows):
                points, clouds = (each.to(device) for each in data.batch(rows))
                x, category, true, valid = task.examples(points[:, :, :count], clouds)
                more = () if category is None else (category,)
                logs = vote(model, x, votes, data.channels == 6, *more)
                scores.update(task.predict(model, logs, category), true, valid, *more)
                loss -= torch.where(valid, logs.gather(1, true.unsqueeze(1)).squeeze(1), 0.0).sum(dtype=torch.float64)
                labels += valid.sum()
            after_batch()
    finally:
        model.train(was_training)
    for tensor in (*scores.sums, loss, labels):
        world.add_up([tensor])
    return {"loss": float(loss / labels), **scores.result()}


def vote(model: Callable[..., Tensor], x: Tensor, votes: int, normals: bool, *category: Tensor) -> Tensor:
    """The logarithms of the mean probabilities over so many rotations of x (B, C, N), the first by 0 degrees.

    -> (B, classes) or (B, classes, N). category (B,): for a network that takes it.
    """
    logs = model(x, *category).log_softmax(1)
    for number in range(1, votes):
        logs = logs.logaddexp(model(rotation(x, 360 * number / votes, normals), *category).log_softmax(1))
    return logs - math.log(votes)
