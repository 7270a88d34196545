"""The three tasks: one label for a cloud, for each point of an object, for each point of a scene."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from pointnet.datasets import LabelledClouds, LabelledPoints, split_parts
from pointnet.models import MODELS, PointNetEmbedder
from pointnet.models.encoder import ENCODER_WIDTHS
from pointnet.models.own import own_network
from pointnet.models.pointnet import CLASSIFIER_HEAD_WIDTHS
from pointnet.models.segmentation import PART_ENCODER_WIDTHS, PART_HEAD_WIDTHS, SCENE_HEAD_WIDTHS, restricted
from pointnet.names import check_name

from .metrics import ConfusionMatrix, PartScores, SceneScores

Examples = tuple[Tensor, Tensor | None, Tensor, Tensor]  # see `Task.examples`


class Task:
    """All that differs between the tasks. The methods here are those of the tasks that label points.

    name: as of `--task`.
    networks: the names of `--model` -> those in `MODELS`.
    widths, head_widths: of the published layers.
    titles: metric -> how people call it; the first metric chooses the epoch.
    unit: what the metrics' count counts.
    of_class: what is measured of each class.
    """

    name: ClassVar[str]
    networks: ClassVar[dict[str, str]]
    widths: ClassVar[Sequence[Sequence[int]]]
    head_widths: ClassVar[Sequence[int]]
    titles: ClassVar[Mapping[str, str]]
    unit: ClassVar[str]
    of_class: ClassVar[str]

    @property
    def chooser(self) -> str:
        """The metric that the epoch is chosen by, on validation."""
        return next(iter(self.titles))

    def class_names(self, data: LabelledClouds) -> tuple[str, ...]:
        """The names of the logits."""
        return data.part_names if isinstance(data, LabelledPoints) else data.classes

    def arguments(self, data: LabelledClouds) -> dict[str, Any]:
        """The arguments of a network for this data."""
        return {"num_classes": len(self.class_names(data)), "in_channels": data.channels}

    def categories(self, data: LabelledClouds) -> tuple[str, ...]:
        """What the network's second input may be; none if it has no such input."""
        return ()

    def check(self, data: LabelledClouds) -> None:
        """Raises ValueError, in one line, unless a network can learn from the data."""
        if not len(data):
            raise ValueError("there is nothing to train on: all clouds are held out for validation")
        if len(names := self.class_names(data)) < 2:
            raise ValueError(f"points must have at least two different labels, got only '{names[0]}'")

    def examples(self, points: Tensor, labels: Tensor) -> Examples:
        """A batch of `data.batch`, as a network takes it -> points (B, C, N), category, labels, valid.

        category (B,) of objects whose parts are labelled, else None; labels (B,) or (B, N), -100 of a point that has
        none; valid, of the labels' shape: False for such a point and for a repeated (padding) one, which metrics
        leave out.
        """
        points, classes, own = split_parts(points)
        return points, None, classes, own & (classes >= 0)

    def scores(self, data: LabelledClouds, device: torch.device | str, model: nn.Module) -> Any:
        """Empty metric accumulators."""
        return ConfusionMatrix(len(self.class_names(data)), device)

    def parts_of(self, model: nn.Module, data: LabelledClouds, device: torch.device | str) -> Tensor | None:
        """(categories, parts) bool: which parts an object may get, by its category; None where labels are not parts."""
        return None

    def predict(self, logits: Tensor, category: Tensor | None, parts_of: Tensor | None) -> Tensor:
        """Predicted labels, (B,) or (B, N); as published, parts are among those of the object's category."""
        if category is not None and parts_of is not None:
            logits = restricted(logits, category, parts_of)
        return logits.argmax(1)

    def summary(self, result: Mapping[str, float]) -> str:
        """The metrics in one line of text."""
        shares = (f"{result[name]:.2%} {title}" for name, title in self.titles.items())
        return f"{', '.join(shares)}, {result['count']:,} {self.unit}"


class Classification(Task):
    """One label for a cloud."""

    name = "classification"
    networks: ClassVar[dict[str, str]] = {
        name: name for name in ("pointnet", "pointnet2", "pointnet2_msg", "dgcnn", "pointnext_s", "edgenet")
    }
    widths = ENCODER_WIDTHS
    head_widths = CLASSIFIER_HEAD_WIDTHS
    titles = ConfusionMatrix.titles
    unit = "shapes"
    of_class = "accuracy of each class"

    def check(self, data: LabelledClouds) -> None:
        present = data.labels.unique()
        if len(present) < 2:
            found = f"only '{data.classes[int(present[0])]}'" if len(present) else "no shapes"
            raise ValueError(f"a classifier needs shapes of at least two classes to train on, got {found}")

    def examples(self, points: Tensor, labels: Tensor) -> Examples:
        return points, None, labels, torch.ones_like(labels, dtype=torch.bool)


class PartSegmentation(Task):
    """One label for each point of an object whose category is known."""

    name = "part"
    networks: ClassVar[dict[str, str]] = {
        "pointnet": "pointnet_part",
        "pointnet2": "pointnet2_part",
        "dgcnn": "dgcnn_part",
    }
    widths = PART_ENCODER_WIDTHS
    head_widths = PART_HEAD_WIDTHS
    titles = PartScores.titles
    unit = "shapes"
    of_class = "mIoU of each category"

    def arguments(self, data: LabelledClouds) -> dict[str, Any]:
        names, parts_of = self.class_names(data), cast(LabelledPoints, data).parts_of
        return {
            "num_parts": len(names),
            "num_categories": len(data.classes),
            "in_channels": data.channels,
            # A category without shapes has no parts in the table; the network wants some.
            "parts_of": [row.nonzero()[:, 0].tolist() or list(range(len(names))) for row in parts_of],
        }

    def categories(self, data: LabelledClouds) -> tuple[str, ...]:
        return data.classes

    def examples(self, points: Tensor, labels: Tensor) -> Examples:
        points, parts, own = split_parts(points)
        return points, labels, parts, own & (parts >= 0)

    def parts_of(self, model: nn.Module, data: LabelledClouds, device: torch.device | str) -> Tensor:
        """By the network; of a category that it says nothing of, by the data, and any part where they have no shape."""
        taught, given = parts_taught(model, data), cast(LabelledPoints, data).parts_of
        known = torch.where(taught.any(1, keepdim=True), taught, given)
        return (known | ~known.any(1, keepdim=True)).to(device)

    def scores(self, data: LabelledClouds, device: torch.device | str, model: nn.Module) -> PartScores:
        """Of the parts that a category has here or in the network, as those of few shapes may be fewer."""
        taught = parts_taught(model, data)
        if len(taught) > 1:  # where all parts may also be those of a category that had no shapes
            taught &= ~taught.all(1, keepdim=True)
        return PartScores(cast(LabelledPoints, data).parts_of | taught, device)


class SceneSegmentation(Task):
    """One label for each point of a scene."""

    name = "scene"
    networks: ClassVar[dict[str, str]] = {name: f"{name}_scene" for name in ("pointnet", "pointnet2")}
    widths = ENCODER_WIDTHS
    head_widths = SCENE_HEAD_WIDTHS
    titles = SceneScores.titles
    unit = "points"
    of_class = "IoU of each class"

    def scores(self, data: LabelledClouds, device: torch.device | str, model: nn.Module) -> SceneScores:
        return SceneScores(len(self.class_names(data)), device)


def parts_taught(model: nn.Module, data: LabelledClouds) -> Tensor:
    """(categories, parts) bool: which parts of the data's a network may answer of each category of the data's; none of
    a network of one's own that does not say."""
    taught, own = torch.zeros_like(cast(LabelledPoints, data).parts_of), getattr(model, "parts_of", None)
    if isinstance(own, Tensor) and own.shape == taught.shape:
        return own.to(taught)
    for row, parts in zip(taught, own if isinstance(own, list | tuple) else (), strict=False):
        row[list(parts)] = True
    return taught


TASKS: Mapping[str, Task] = {task.name: task for task in (Classification(), PartSegmentation(), SceneSegmentation())}


def titles_of(names: Collection[str], prefix: str = "") -> Mapping[str, str]:
    """The titles of the task whose metrics have these names. KeyError where they are no task's."""
    for task in TASKS.values():
        if all(f"{prefix}{name}" in names for name in task.titles):
            return task.titles
    raise KeyError("metrics of no task")


def register_model(name: str, kind: type[nn.Module], task: str = "classification") -> None:
    """Makes a class of networks of one's own known: to `--model NAME` of the task, and to `load_model` of its runs.

    `kind(num_classes=..., in_channels=...)` makes one, which maps (B, C, N) -> (B, num_classes), or for a task that
    labels points (B, num_classes, N). For parts the first argument is `num_parts`, and the network takes a second
    input, category (B,). The constructor may also have `num_categories` and `parts_of` of `PointNetPartSegmenter`, and
    settings of a network: `widths`, `head_widths`, `tnet_widths`, `dropout`, `input_transform`, `feature_transform`.
    A name is known to the process that registers it.

    Raises:
        ValueError: no such task, no such class, or a name that the library uses itself.
    """
    check_name("task", task, TASKS)
    if any(name in other.networks for other in TASKS.values() if other.name != task):
        raise ValueError(f"there is a network '{name}' already; choose another name")
    own_network(name, kind, "num_parts" if task == "part" else "num_classes")
    TASKS[task].networks[name] = name


def task_of(model: nn.Module) -> Task:
    """The task of a network of `MODELS`; classification for any other module.

    Raises:
        ValueError: an encoder alone.
    """
    if isinstance(model, PointNetEmbedder):
        raise ValueError("the model is an encoder alone, which gives features and no classes or labels")
    names = ((name, task) for task in TASKS.values() for name in task.networks.values())
    own = getattr(model, "model_name", None)  # a class of one's own may have been registered anew since
    return next(
        (task for name, task in names if name == own or isinstance(model, MODELS[name])), TASKS["classification"]
    )
