"""What a trained model says of files and arrays of points: the class of each, how probable it is, and the next one."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.datasets import PointCloudFileError
from pointnet.datasets.folder import KEPT, sample_array, sample_file
from pointnet.evaluation.evaluate import vote
from pointnet.evaluation.tasks import PREPROCESSING, task_of
from pointnet.models import DEFAULTS, PointNetClassifier, PointNetModel, load_model, shipped
from pointnet.names import did_you_mean_path
from pointnet.points.read import files_in

VOTES = 12  # rotations about the up axis, as Qi et al. 2017 vote over
BATCH_POINTS = 32_768  # that go through the network together: of many small clouds, or of a part of one
Answer = TypeVar("Answer")
Source = str | os.PathLike[str] | NDArray[Any] | Tensor


@dataclass(frozen=True)
class Prediction:
    """What a model says of one cloud.

    Args:
        file: it was read from; None for an array.
        probabilities: of every class by its name, the most probable first; their sum is 1.
    """

    file: Path | None
    probabilities: dict[str, float]

    @property
    def class_name(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """That of `class_name`."""
        return self.probabilities[self.class_name]

    @property
    def runner_up(self) -> str | None:
        """The next class; None where there is but one."""
        return next(iter(list(self.probabilities)[1:]), None)

    @property
    def runner_up_probability(self) -> float:
        """That of `runner_up`; 0 where there is none."""
        return self.probabilities.get(self.runner_up or "", 0.0)

    def as_json(self) -> dict[str, Any]:
        """What `python -m pointnet predict --json` prints of it."""
        return {
            "file": None if self.file is None else str(self.file),
            "class": self.class_name,
            "probability": self.probability,
            "runner_up": self.runner_up,
            "runner_up_probability": self.runner_up_probability,
        }


def predict(
    source: Source | list[Any] | tuple[Any, ...],
    model: str | os.PathLike[str] | PointNetClassifier | None = None,
    up: str | None = None,
    any_rotation: bool = False,
    num_points: int | None = None,
) -> Prediction | list[Prediction]:
    """Classifies a file or an array of points; several, or a folder, give a list.

    Args:
        source: a file of any format that `read_points` knows, a folder of them, or an array (N, 3), with normals
            (N, 6); or a list of these. A mesh is sampled by area.
        model: a run folder, the name of shipped weights, or a model that `load_model` gave; None for the shipped
            weights of ModelNet40. One that labels points is for `label_points`.
        up: the axis that points up in the source, "z" or "y", which is turned into the weights' frame (z up). None: y
            for GLB and glTF, as their standard has it, and z for all else.
        any_rotation: the probabilities are the mean of those of the cloud turned about its up axis by 12 even steps:
            for clouds that may face anywhere.
        num_points: how many points of each the network sees; None for as many as it was trained with. They are drawn
            as in training on files, with a seed that is the file's name; repeated where a cloud has fewer.

    Raises:
        PointCloudFileError: a file that cannot be read, the first one of several.
        ValueError: an array or an argument outside the values above, or no such model.
    """
    several, sources = sources_of(source)
    predictions = all_read(predict_each(sources, as_classifier(model), up, any_rotation, num_points))
    return predictions if several else predictions[0]


def predict_each(
    sources: Sequence[Source],
    model: PointNetClassifier,
    up: str | None = None,
    any_rotation: bool = False,
    num_points: int | None = None,
) -> Iterator[Prediction | PointCloudFileError]:
    """What `predict` says of each source, in order, or why it cannot be read; a batch is read at a time.

    Raises:
        ValueError: an array or an argument that `predict` refuses.
    """
    count = model.preprocessing["num_points"] if num_points is None else num_points
    check_drawing(count, up)
    normals, network = takes_normals(model), model.fold()

    def answers() -> Iterator[Prediction | PointCloudFileError]:
        batch = max(1, BATCH_POINTS // count)
        for start in range(0, len(sources), batch):
            some = sources[start : start + batch]
            read = [_read(source, count, normals, up) for source in some]
            clouds = [cloud for cloud in read if not isinstance(cloud, PointCloudFileError)]
            probabilities = iter(_probabilities(network, clouds, any_rotation, normals))
            for source, cloud in zip(some, read, strict=True):
                if isinstance(cloud, PointCloudFileError):
                    yield cloud
                    continue
                ranked = sorted(zip(model.classes, next(probabilities), strict=True), key=lambda pair: -pair[1])
                yield Prediction(Path(source) if isinstance(source, str | os.PathLike) else None, dict(ranked))

    return answers()


def all_read(answers: Iterable[Answer | PointCloudFileError]) -> list[Answer]:
    """The answers; the first that is an error is raised."""
    read = []
    for answer in answers:
        if isinstance(answer, PointCloudFileError):
            raise answer
        read.append(answer)
    return read


def check_drawing(num_points: int, up: str | None) -> None:
    """Raises ValueError unless points can be drawn so."""
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    if up not in (None, "z", "y"):
        raise ValueError(f"up must be z or y, got '{up}'")


def sources_of(source: Source | list[Any] | tuple[Any, ...]) -> tuple[bool, list[Source]]:
    """Whether there may be several, and which."""
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        return True, [*find_files([os.fspath(source)])]
    if isinstance(source, list | tuple):
        return True, [*source]
    return False, [source]


def as_model(model: str | os.PathLike[str] | PointNetModel | None, *tasks: str) -> PointNetModel:
    """The model itself, the one of this name or folder, or for None that of the first task that is shipped.

    Raises:
        ValueError: there is none, or it was trained for a task that is not among these.
    """
    name = "the model"
    if not isinstance(model, PointNetModel):
        name = os.fspath(model or DEFAULTS.get(tasks[0], ""))
        if model is None and name not in shipped():
            wanted = "give --model, a run folder that train.py made"
            raise ValueError(f"no weights for the task {tasks[0]} are shipped with this version; {wanted}")
        model = load_model(name)
    if (task := task_of(model).name) not in tasks:
        raise ValueError(f"{name} is for the task {task}, not {' or '.join(tasks)}")
    return model


def as_classifier(model: str | os.PathLike[str] | PointNetClassifier | None) -> PointNetClassifier:
    """`as_model` of a task that has one kind of model."""
    return cast(PointNetClassifier, as_model(model, "classification"))


def takes_normals(model: PointNetModel) -> bool:
    """Whether the model takes normals beside points.

    Raises:
        ValueError: it expects points that are not made here.
    """
    wanted, channels = model.preprocessing, model.arguments["in_channels"]
    for name, known in PREPROCESSING.items():
        if wanted.get(name, known) != known:
            raise ValueError(f"the model expects points of {name} '{wanted[name]}', known here is '{known}'")
    normals = bool(wanted.get("normals", False))
    if channels != (6 if normals else 3):
        raise ValueError(f"the model takes {channels} channels a point, known here are 3, and 6 with normals")
    return normals


def find_files(words: Sequence[str]) -> list[Path]:
    """The files that words of the command line name: files, folders (what of theirs can be read), and patterns.

    Raises:
        ValueError: an empty word, a folder without a file of points, or a pattern that nothing matches.
    """
    files: dict[Path, None] = {}
    for word in words:
        if not word:
            raise ValueError("a file's name must not be empty")
        is_pattern = glob.has_magic(word) and not os.path.exists(word)
        matches = sorted(glob.glob(word, recursive=True)) if is_pattern else [word]
        found = [file for match in matches for file in files_in(Path(match))]
        if not found:
            raise ValueError(f"{word}: holds no file of points" if matches else f"{word}: matches no file")
        files |= dict.fromkeys(found)
    return list(files)


def _read(source: Source, count: int, normals: bool, up: str | None) -> NDArray[np.float32] | PointCloudFileError:
    """A source as the points it is evaluated with where it is of a data set's files: (C, count)."""
    drawn = max(count, KEPT)
    if not isinstance(source, str | os.PathLike):
        return sample_array(rows_of(source), drawn, normals, up)[:, :count]
    try:
        return sample_file(Path(source), drawn, normals, up)[:, :count]
    except PointCloudFileError as error:
        return with_nearest(error)


def rows_of(source: NDArray[Any] | Tensor) -> NDArray[Any]:
    return source.numpy(force=True) if isinstance(source, Tensor) else np.asarray(source)


def with_nearest(error: PointCloudFileError) -> PointCloudFileError:
    """The error; of a file that is not there, with the name of the one that may be meant."""
    path = error.path
    return error if os.path.lexists(path) else PointCloudFileError(path, f"{error.reason}{did_you_mean_path(path)}")


def _probabilities(
    network: PointNetClassifier, clouds: Sequence[NDArray[np.float32]], any_rotation: bool, normals: bool
) -> list[list[float]]:
    """(B, classes) of clouds of one size."""
    if not clouds:
        return []
    x = torch.from_numpy(np.stack(clouds)).to(network.logits.weight.device)
    chunk = -(-BATCH_POINTS // len(x))

    def classify(x: Tensor) -> Tensor:
        return network.classify_chunks(x.split(chunk, 2))

    return vote(classify, x, VOTES if any_rotation else 1, normals).exp().tolist()
