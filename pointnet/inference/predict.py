"""The class of each file or array of points: how probable it is, and the runner-up."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.datasets.clouds import UNIT_SPHERE
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import vote
from pointnet.files import AnyPath
from pointnet.models import PointNetClassifier
from pointnet.points.read import PointCloud, PointCloudFileError, check_drawing, named_by_hand
from pointnet.points.sampling import KEPT

from .inputs import Source, Sources, answers_of, as_model, from_source, path_of

AUTO = "auto"  # the up axis whose answer is surer
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
    votes: int = 1,
    num_points: int | None = None,
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> Prediction | list[Prediction]:
    """The prediction for a file or an array of points; a list for several, or for a folder.

    Args:
        source: a file of any format that `read_points` reads, a folder of them, or an array (N, 3), with normals
            (N, 6), or with the channels that the model takes; or a list of these. A mesh is sampled by area. Rows of
            zeros of a file are left out, if there are several; those of an array count.
        model: a run folder, the name of shipped weights, or a model from `load_model`; None for the shipped weights of
            ModelNet40. For a model that labels points, use `label_points`.
        up: the up axis of the source, "z" or "y"; points are rotated to the frame of the weights (z up). "auto": the
            one whose answer is surer. None: y for GLB and glTF, as their standard says, and for all others as in
            training, which is z for the shipped weights; a note says so where the other's answer is clearly surer.
        votes: average the probabilities over so many even rotations about the up axis (Qi et al. 2017: 12).
        num_points: how many points of each cloud the network sees; None for as many as in training. They are drawn as
            in training on files, seeded by the file's name, and repeated where a cloud has fewer.
        columns: the names of the columns of files that are tables, as in `read_cloud`; None: as in training.
        vertices: take the vertices of a mesh as its points, in place of points drawn from its faces.

    Raises:
        PointCloudFileError: a file that cannot be read or lacks what the model takes, the first of several.
        ValueError: an array or an argument outside the values above, or no such model.
    """
    classifier = cast(PointNetClassifier, as_model(model, "classification"))
    how = classifier, up, votes, num_points, columns, vertices
    return answers_of(source, lambda sources: predict_each(sources, *how))


def predict_each(
    sources: Sequence[Source],
    model: PointNetClassifier,
    up: str | None,
    votes: int,
    num_points: int | None,
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> Iterator[Prediction | PointCloudFileError]:
    """The prediction for each source, in order, or the error of its file; one batch is read at a time.

    Raises:
        ValueError: an array or an argument that `predict` refuses.
    """
    contract, network = Contract.of(model), model.fold()
    count = contract.num_points if num_points is None else num_points
    check_drawing(count, None if up == AUTO else up)
    if votes < 1:
        raise ValueError(f"votes must be at least 1, got {votes}")
    axis = None if up == AUTO else up
    of_files = {"extras": contract.features, "vertices": vertices, "up": axis or contract.up}
    of_files["columns"] = named_by_hand(columns or contract.columns)
    of_arrays = {"columns": contract.channels, "up": axis}
    drawing = {"num_points": max(count, KEPT), "repeat": True, "normalize": contract.scale == UNIT_SPHERE}

    def channels(cloud: PointCloud, seed: int) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        return contract.channels_of(cloud)(slice(count)), cloud.notes

    def scored(x: Tensor) -> Tensor:
        """The probabilities (B, classes) of clouds (B, C, N)."""

        def logits(rotated: Tensor) -> Tensor:
            return network.classify_chunks(rotated.split(-(-BATCH_POINTS // len(x)), 2)) / contract.temperature

        return vote(logits, x.to(network.logits.weight.device), votes, contract.normals).exp().cpu()

    def answers(batch: Sequence[Source]) -> Iterator[Prediction | PointCloudFileError]:
        clouds = [from_source(source, channels, of_files, of_arrays, **drawing) for source in batch]
        readable = [cloud for cloud in clouds if not isinstance(cloud, PointCloudFileError)]
        rows: list[list[float]] = []
        if readable:
            rows = scored(torch.from_numpy(np.stack([rows for rows, _ in readable]))).tolist()
        scores = iter(rows)
        for source, cloud in zip(batch, clouds, strict=True):
            if isinstance(cloud, PointCloudFileError):
                yield cloud
            else:
                ranked = sorted(zip(model.classes, next(scores), strict=True), key=lambda pair: -pair[1])
                yield Prediction(path_of(source), dict(ranked), cloud[1])

    size = max(1, BATCH_POINTS // count)
    return chain.from_iterable(answers(sources[start : start + size]) for start in range(0, len(sources), size))
