"""The class of each file or array of points: how probable it is, and the runner-up."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.evaluation.evaluate import vote
from pointnet.files import AnyPath
from pointnet.models import PointNetClassifier
from pointnet.points.read import PointCloud, PointCloudFileError, check_drawing, named_by_hand
from pointnet.points.sampling import KEPT

from .inputs import Source, Sources, answers_of, as_model, from_source, path_of, takes_normals

VOTES = 12  # rotations about the up axis, as Qi et al. 2017 vote over
BATCH_POINTS = 32_768  # that go through the network together: of many small clouds, or of a part of one


@dataclass(frozen=True)
class Prediction:
    """A model's answer for one cloud.

    Args:
        file: the file of the cloud; None for an array.
        probabilities: by class name, the most probable first; their sum is 1.
        notes: what of the file was guessed or left out, in short sentences.
    """

    file: Path | None
    probabilities: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def class_name(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """The probability of `class_name`."""
        return self.probabilities[self.class_name]

    @property
    def runner_up(self) -> str | None:
        """The second class; None if there is only one."""
        return next(iter(list(self.probabilities)[1:]), None)

    @property
    def runner_up_probability(self) -> float:
        """The probability of `runner_up`; 0 if there is none."""
        return self.probabilities.get(self.runner_up or "", 0.0)

    def as_json(self) -> dict[str, Any]:
        """The object that `python -m pointnet predict --json` prints for it."""
        return {
            "file": None if self.file is None else str(self.file),
            "class": self.class_name,
            "probability": self.probability,
            "runner_up": self.runner_up,
            "runner_up_probability": self.runner_up_probability,
            "notes": [*self.notes],
        }


def predict(
    source: Sources,
    model: AnyPath | PointNetClassifier | None = None,
    up: str | None = None,
    any_rotation: bool = False,
    num_points: int | None = None,
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> Prediction | list[Prediction]:
    """The prediction for a file or an array of points; a list for several, or for a folder.

    Args:
        source: a file of any format that `read_points` reads, a folder of them, or an array (N, 3), with normals
            (N, 6); or a list of these. A mesh is sampled by area. Rows of zeros of a file are left out, if there are
            several; those of an array count.
        model: a run folder, the name of shipped weights, or a model from `load_model`; None for the shipped weights of
            ModelNet40. For a model that labels points, use `label_points`.
        up: the up axis of the source, "z" or "y"; points are rotated to the frame of the weights (z up). None: y for
            GLB and glTF, as their standard says, and z for all others.
        any_rotation: average the probabilities over 12 even rotations about the up axis, for clouds that may face
            anywhere.
        num_points: how many points of each cloud the network sees; None for as many as in training. They are drawn as
            in training on files, seeded by the file's name, and repeated where a cloud has fewer.
        vertices: take the vertices of a mesh as its points, in place of points drawn from its faces.

    Raises:
        PointCloudFileError: a file that cannot be read, the first of several.
        ValueError: an array or an argument outside the values above, or no such model.
    """
    classifier = cast(PointNetClassifier, as_model(model, "classification"))
    how = classifier, up, any_rotation, num_points, columns, vertices
    return answers_of(source, lambda sources: predict_each(sources, *how))


def predict_each(
    sources: Sequence[Source],
    model: PointNetClassifier,
    up: str | None,
    any_rotation: bool,
    num_points: int | None,
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> Iterator[Prediction | PointCloudFileError]:
    """The prediction for each source, in order, or the error of its file; one batch is read at a time.

    Raises:
        ValueError: an array or an argument that `predict` refuses.
    """
    count = model.preprocessing["num_points"] if num_points is None else num_points
    check_drawing(count, up)
    normals, network = takes_normals(model), model.fold()
    extras = ("normals",) if normals else ()
    of_files = {"extras": extras, "columns": named_by_hand(columns), "vertices": vertices}
    drawing = {"num_points": max(count, KEPT), "up": up, "repeat": True, "normalize": True}

    def channels(cloud: PointCloud, seed: int) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        return cloud.unit_sphere_channels(normals)[:, :count], cloud.notes

    def answers(batch: Sequence[Source]) -> Iterator[Prediction | PointCloudFileError]:
        clouds = [from_source(source, channels, of_files, **drawing) for source in batch]
        readable = [cloud for cloud in clouds if not isinstance(cloud, PointCloudFileError)]
        rows: list[list[float]] = []
        if readable:
            x = torch.from_numpy(np.stack([rows for rows, _ in readable])).to(network.logits.weight.device)
            chunk, votes = -(-BATCH_POINTS // len(x)), VOTES if any_rotation else 1
            logs = vote(lambda rotated: network.classify_chunks(rotated.split(chunk, 2)), x, votes, normals)
            rows = logs.exp().tolist()
        scores = iter(rows)
        for source, cloud in zip(batch, clouds, strict=True):
            if isinstance(cloud, PointCloudFileError):
                yield cloud
            else:
                ranked = sorted(zip(model.classes, next(scores), strict=True), key=lambda pair: -pair[1])
                yield Prediction(path_of(source), dict(ranked), cloud[1])

    size = max(1, BATCH_POINTS // count)
    return chain.from_iterable(answers(sources[start : start + size]) for start in range(0, len(sources), size))
