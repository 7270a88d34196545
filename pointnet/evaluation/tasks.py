"""What a network learns: a label for a cloud, or one for each of its points. All else of a run is the same for both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.datasets import LabelledClouds, LabelledPoints, split_parts
from pointnet.models import MODELS, PointNetPartSegmenter
from pointnet.models.encoder import ENCODER_WIDTHS
from pointnet.models.pointnet import CLASSIFIER_HEAD_WIDTHS
from pointnet.models.segmentation import PART_ENCODER_WIDTHS, PART_HEAD_WIDTHS, SCENE_HEAD_WIDTHS

from .metrics import ConfusionMatrix, PartScores, SceneScores

if TYPE_CHECKING:
    from pointnet.training.settings import TrainConfig


PREPROCESSING = {"frame": "z up, right-handed", "normalization": "centred, in the unit sphere"}


class Examples(NamedTuple):
    """A batch: what the network takes, what it should answer, and which of the answers count when it is measured."""

    inputs: tuple[Tensor, ...]
    labels: Tensor
    counted: Tensor


class Classification:
    """A label for a cloud.

    `name` is that of `--task`; `networks` are the zoo's names of those that learn it, by that of `--model`; `widths`
    and `head_widths` the published ones of their layers; `titles` what they are measured by, first of all what chooses
    the epoch; `counted` what is counted.
    """

    name = "classification"
    networks: ClassVar[Mapping[str, str]] = {"pointnet": "pointnet"}
    widths: Sequence[Sequence[int]] = ENCODER_WIDTHS
    head_widths: Sequence[int] = CLASSIFIER_HEAD_WIDTHS
    titles = ConfusionMatrix.titles
    counted = "shapes"

    def answers(self, data: LabelledClouds) -> tuple[str, ...]:
        """What the logits stand for."""
        return data.classes

    def arguments(self, data: LabelledClouds) -> dict[str, Any]:
        """What a network for this data is built with."""
        return {"num_classes": len(self.answers(data)), "in_channels": data.channels}

    def preprocessing(self, data: LabelledClouds) -> dict[str, Any]:
        """What the weights will expect of points."""
        return dict(PREPROCESSING)

    def check(self, data: LabelledClouds) -> None:
        """Raises ValueError, in one line, unless there is something to learn."""
        present = data.labels.unique()
        if len(present) < 2:
            found = f"only '{data.classes[int(present[0])]}'" if len(present) else "no shapes"
            raise ValueError(f"a classifier needs shapes of at least two classes to train on, got {found}")

    def examples(self, points: Tensor, labels: Tensor) -> Examples:
        """A batch of a data set, as it gives it."""
        return Examples((points,), labels, torch.ones_like(labels, dtype=torch.bool))

    def measured(self, data: LabelledClouds) -> int | None:
        """How many of a cloud's points it is measured on, from the first; None for all that the data holds."""
        return data.num_points

    def loss(self, config: TrainConfig, model: nn.Module, logits: Tensor, targets: Tensor, *more: Tensor) -> Tensor:
        """The mean over all labels; `more` is what the network took besides the points."""
        return F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)

    def scores(self, data: LabelledClouds, device: torch.device | str) -> Any:
        """Sums to score answers by, none of them made yet."""
        return ConfusionMatrix(len(data.classes), device)

    def answer(self, model: nn.Module, logits: Tensor, *more: Tensor) -> Tensor:
        """The label that the model gives, (B,) or (B, N)."""
        return logits.argmax(1)

    def add(self, scores: Any, answers: Tensor, examples: Examples) -> None:
        """Adds answers to the scores."""
        scores.update(answers, examples.labels)

    def told(self, result: Mapping[str, float]) -> str:
        """The scores as words."""
        shares = (f"{result[name]:.2%} {title}" for name, title in self.titles.items())
        return f"{', '.join(shares)}, {result['count']:,} {self.counted}"


class SceneSegmentation(Classification):
    """A label for each point of a scene."""

    name = "scene"
    networks: ClassVar[Mapping[str, str]] = {"pointnet": "pointnet_scene"}
    head_widths: Sequence[int] = SCENE_HEAD_WIDTHS
    titles = SceneScores.titles
    counted = "points"

    def answers(self, data: LabelledClouds) -> tuple[str, ...]:
        return cast(LabelledPoints, data).part_names

    def preprocessing(self, data: LabelledClouds) -> dict[str, Any]:
        blocks = "in blocks of a metre: xyz from its middle and floor, rgb, xyz as a share of the room"
        return super().preprocessing(data) | {"normalization": blocks}

    def check(self, data: LabelledClouds) -> None:
        if not len(data):
            raise ValueError("there is nothing to train on: all clouds are held out for validation")

    def measured(self, data: LabelledClouds) -> int | None:
        return None

    def examples(self, points: Tensor, labels: Tensor) -> Examples:
        x, parts, own = split_parts(points)
        return Examples((x,), parts, own)

    def loss(self, config: TrainConfig, model: nn.Module, logits: Tensor, targets: Tensor, *more: Tensor) -> Tensor:
        return point_loss(logits, targets, config.label_smoothing)

    def scores(self, data: LabelledClouds, device: torch.device | str) -> Any:
        return SceneScores(len(self.answers(data)), device)

    def add(self, scores: Any, answers: Tensor, examples: Examples) -> None:
        scores.update(answers, examples.labels, examples.counted)


class PartSegmentation(SceneSegmentation):
    """A label for each point of an object, whose category is known."""

    name = "part"
    networks: ClassVar[Mapping[str, str]] = {"pointnet": "pointnet_part"}
    widths = PART_ENCODER_WIDTHS
    head_widths = PART_HEAD_WIDTHS
    titles = PartScores.titles
    counted = "shapes"

    def arguments(self, data: LabelledClouds) -> dict[str, Any]:
        every = range(len(self.answers(data)))
        # A category that has no part is one without shapes.
        parts_of = [row.nonzero()[:, 0].tolist() or list(every) for row in cast(LabelledPoints, data).parts_of]
        return {
            "num_parts": len(every),
            "num_categories": len(data.classes),
            "in_channels": data.channels,
            "parts_of": parts_of,
        }

    def preprocessing(self, data: LabelledClouds) -> dict[str, Any]:
        return Classification.preprocessing(self, data) | {"categories": list(data.classes)}

    def examples(self, points: Tensor, labels: Tensor) -> Examples:
        (x,), parts, own = super().examples(points, labels)
        return Examples((x, labels), parts, own)

    def loss(self, config: TrainConfig, model: nn.Module, logits: Tensor, targets: Tensor, *more: Tensor) -> Tensor:
        if config.restrict:
            logits = cast(PointNetPartSegmenter, model).restrict(logits, more[0])
        loss = super().loss(config, model, logits, targets)
        if config.overlap:
            loss = torch.lerp(loss, 1 - soft_iou(logits, targets), config.overlap)
        return loss

    def scores(self, data: LabelledClouds, device: torch.device | str) -> Any:
        return PartScores(cast(LabelledPoints, data).parts_of, device)

    def answer(self, model: nn.Module, logits: Tensor, *more: Tensor) -> Tensor:
        """Among the parts of the object's category."""
        return cast(PointNetPartSegmenter, model).restrict(logits, more[0]).argmax(1)

    def add(self, scores: Any, answers: Tensor, examples: Examples) -> None:
        scores.update(answers, examples.labels, examples.inputs[1], examples.counted)


TASKS = {task.name: task for task in (Classification(), PartSegmentation(), SceneSegmentation())}


def point_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each point's logits (B, K, N) with its label (B, N), the mean over all points.

    Labels whose logit is -inf are left out, from the share that is spread over labels too. Unlike
    `torch.nn.functional.cross_entropy` of these shapes it has a deterministic gradient on a GPU.
    """
    logs = logits.log_softmax(1)
    loss = -logs.gather(1, targets.unsqueeze(1)).mean()
    if smoothing:
        there = logits > -torch.inf
        evenly = -(torch.where(there, logs, 0.0).sum(1) / there.sum(1)).mean()
        loss = torch.lerp(loss, evenly, smoothing)
    return loss


def soft_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """The IoU of each label (B, N) with its probability by the logits (B, K, N), the mean over labels, then clouds.

    As if each label had one point more, which is right: it is 1, and has a gradient, where a cloud has none of a label.
    Labels whose logits are -inf are left out.
    """
    probabilities = logits.softmax(1)
    true = F.one_hot(targets, logits.shape[1]).transpose(1, 2)
    both = (probabilities * true).sum(2)
    either = probabilities.sum(2) + true.sum(2) - both
    there = logits[:, :, 0] > -torch.inf
    return (torch.where(there, (both + 1) / (either + 1), 0.0).sum(1) / there.sum(1)).mean()


def titles_of(names: Collection[str], prefix: str = "") -> Mapping[str, str]:
    """The titles of the task whose scores have these names. KeyError where it is none's."""
    for task in TASKS.values():
        if all(f"{prefix}{name}" in names for name in task.titles):
            return task.titles
    raise KeyError("scores of no task")


def task_of(model: nn.Module) -> Classification:
    """The task that a network was made for; classification, where it is none of the zoo's."""
    kinds = ((MODELS[name], task) for task in TASKS.values() for name in task.networks.values())
    return next((task for kind, task in kinds if isinstance(model, kind)), TASKS["classification"])
