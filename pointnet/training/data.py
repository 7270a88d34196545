"""What a run asks of its data: kinds, classes and channels that suit, and a validation split."""

import torch

from pointnet.datasets import LabelledClouds, LabelledPoints, split_validation
from pointnet.datasets.clouds import spread
from pointnet.datasets.extents import extents_of, unlike_extents
from pointnet.datasets.own_scenes import SceneFolder
from pointnet.evaluation.contract_of_data import is_centred, scale_of
from pointnet.evaluation.tasks import TASKS
from pointnet.world import World

from .loader import count_batches
from .settings import TrainConfig


def training_parts(train: LabelledClouds, config: TrainConfig) -> tuple[LabelledClouds, LabelledClouds]:
    """The training set in two: what a run trains on, and its validation split."""
    train, val = split_validation(train, config.seed, config.val_fraction)
    if config.overfit_batches:
        train = val = spread(train, config.overfit_batches * config.batch_size)
    return train, val


def check_data(config: TrainConfig, train: LabelledClouds, test: LabelledClouds | None) -> None:
    """Raises ValueError, in one line, unless `train` and `test` are data sets, of the same classes and channels."""
    task = TASKS[config.task]
    for name, data in (("train", train), ("test", test)):
        kind = LabelledClouds if config.task == "classification" else LabelledPoints
        if not isinstance(data, kind) and not (data is None and name == "test"):
            made = f"{kind.__name__}(points, labels, ...) makes one"
            raise ValueError(f"{name} must be a {kind.__name__}, got {type(data).__name__}; {made}")
        if kind is LabelledClouds and isinstance(data, LabelledPoints):
            raise ValueError(f"{name} has a label for each point; set task to part or scene")
        if data is not None and data.channels < 3:
            raise ValueError(f"{name} must have x, y and z as its first channels, got {data.channels} in all")
    if test is not None:
        if config.task == "classification" and test.num_points != train.num_points:
            raise ValueError(f"test must have the num_points of train, {train.num_points}, got {test.num_points}")
        ours, others = ((task.class_names(data), task.categories(data), data.channels) for data in (train, test))
        if ours != others:
            what = "channels" if ours[:2] == others[:2] else "classes"
            raise ValueError(f"test must have the {what} of train, in their order")
        for name in ("channel_names", "scale"):  # what arrays do not say is None
            own, other = getattr(train, name), getattr(test, name)
            if None not in (own, other) and (own != other if isinstance(own, str) else tuple(own) != tuple(other)):
                raise ValueError(f"test must have the {name} of train, {own}, got {other}")
        _check_scale(train, test)
        if train.intensity and test.intensity and tuple(train.intensity) != tuple(test.intensity):
            own, other = ("{:g} to {:g}".format(*data.intensity) for data in (train, test) if data.intensity)
            hint = "make test with intensity=train.intensity"
            raise ValueError(f"test must have the intensity of train, scaled by {own}, got {other}; {hint}")
        sides = [data.block for data in (train, test) if isinstance(data, SceneFolder)]
        if len({*sides}) > 1:
            raise ValueError(f"test must have the block of train, {sides[0]:g}, got {sides[1]:g}")


def _check_scale(train: LabelledClouds, test: LabelledClouds) -> None:
    """Raises ValueError if clouds that do not say their scale are found to be in the unit sphere on one side alone,
    and in another unit. Sizes decide, as clouds in the sphere may look otherwise after points are drawn from them."""
    if train.scale and test.scale:
        return
    taught, found = extents_of(train), extents_of(test)
    note = unlike_extents(taught, found) if taught else None
    if note and (own := scale_of(train)) != (other := scale_of(test)):
        raise ValueError(f"test must have the scale of train, {own}, got {other}: {note}")
    if train.centre is None and test.centre is None and is_centred(train) and not is_centred(test):
        raise ValueError("test must have its clouds about the origin, as train has; centre each in the same way")


def check_trainable(train: LabelledClouds, config: TrainConfig, world: World) -> None:
    """Raises ValueError, in one line, unless the processes can train a network on these clouds."""
    if not torch.is_grad_enabled():
        raise ValueError("training needs gradients; leave torch.no_grad() or torch.inference_mode() before it")
    TASKS[config.task].check(train)
    if train.num_points != config.num_points:
        raise ValueError(f"num_points must be {train.num_points}, as the data has, got {config.num_points}")
    smallest = len(train) // count_batches(len(train), config.batch_size)
    if smallest < world.size:
        needed = f"each of {world.size} processes needs one; more --batch_size"
        raise ValueError(f"a step has {smallest} clouds, and {needed}")
