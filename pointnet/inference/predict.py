"""The class of each file or array of points: how probable it is, the runner-up, and whether that is sure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from pointnet.datasets.clouds import UNIT_SPHERE
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import unfit
from pointnet.files import AnyPath
from pointnet.models import PointNetClassifier
from pointnet.points.frame import TO_Z_UP, UPS, Points, few_points, other_ups, said_up, with_other_up
from pointnet.points.read import PointCloud, PointCloudFileError, check_drawing
from pointnet.points.sampling import KEPT

from .inputs import (
    Reading,
    Source,
    Sources,
    answers_of,
    as_model,
    columns_for,
    from_source,
    notes_on,
    notes_on_source,
    path_of,
    up_for,
)
from .judge import AUTO, Judge, Opinion, Rival, clouds_together


@dataclass(frozen=True)
class Prediction:
    """A model's answer for one cloud.

    Args:
        file: the file of the cloud; None for an array.
        probabilities: by class name, the most probable first; their sum is 1. They are calibrated if training had a
            validation split of 40 clouds or more.
        sure: whether the most probable class has a probability of at least 50 % (of two classes 75 %, of three 60 %),
            there are enough points, none is far from all others, the cloud is about as large as those of training (if
            its unit matters) and like them, and no other class is clearly surer with another axis up. For weights
            that were validated on fewer than 40 clouds neither likeness nor another axis counts.
        notes: short sentences: what of the file was guessed or left out, why the answer is not sure, whether another
            up axis would give a surer one, and, from `predict`, that clouds unlike those of training are not marked.
        up: the up axis of the cloud, as it was taken.
        surer_up: another axis, where its answer is clearly surer; else None.
    """

    file: Path | None
    probabilities: dict[str, float]
    sure: bool = True
    notes: tuple[str, ...] = ()
    up: str = "z"
    surer_up: str | None = None

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

    def most_probable(self, top: int) -> list[tuple[str, float]]:
        """So many classes with their probabilities, the most probable first."""
        return [*self.probabilities.items()][:top]

    def as_json(self, top: int | None = None) -> dict[str, Any]:
        """The object that `python -m pointnet predict --json` prints for it, with so many classes for `--top`."""
        classes = [{"class": name, "probability": share} for name, share in self.most_probable(top or 0)]
        return {
            "file": None if self.file is None else str(self.file),
            "class": self.class_name,
            "probability": self.probability,
            "runner_up": self.runner_up,
            "runner_up_probability": self.runner_up_probability,
            **({} if top is None else {"classes": classes}),
            "sure": self.sure,
            "up": self.up,
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
            (N, 6), or with the channels that the model takes; or a list of files and arrays. A mesh is sampled by area.
            Rows of zeros are left out, if there are several.
        model: a run folder, the name of shipped weights, or a model from `load_model`; None for the shipped weights of
            ModelNet40. For a model that labels points, use `label_points`.
        up: the up axis of the source, one of z, y, -y, x, -x and -z; points are rotated to the frame of the weights (z
            up). "auto": the one of z, y and -y with which the cloud is more like training, unless its answer alone is
            unsure, for GLB and glTF too. None: as the files of training were taken, if that was named; else y for
            these, as their standard says, and z for arrays and other files; a note says so where the cloud is clearly
            more like training with another of the three.
        votes: average the probabilities over this many even rotations about the up axis (Qi et al. 2017: 12).
        num_points: how many points of each cloud the network sees; None for as many as in training. They are drawn as
            in training on files, seeded by the file's name, and repeated if a cloud has fewer.
        columns: the names of the columns of files that are tables, as in `read_cloud`; None: as in training.
        vertices: take the vertices of a mesh as its points, in place of points drawn from its faces.

    Raises:
        PointCloudFileError: a file that cannot be read or lacks what the model takes, the first of several.
        ValueError: an array or an argument outside the values above, or no such model.
    """
    classifier = cast(PointNetClassifier, as_model(model, "classification"))
    reading = Reading(up, num_points, columns, vertices)

    def answers(sources: Sequence[Source]) -> Iterator[Prediction | PointCloudFileError]:
        found = predict_each(sources, classifier, reading, votes)
        return (each if isinstance(each, PointCloudFileError) else each[0] for each in found)

    return answers_of(source, answers, *notes_on(Contract.of(classifier)), columns=columns)


def predict_each(
    sources: Sequence[Source], model: PointNetClassifier, reading: Reading, votes: int = 1
) -> Iterator[tuple[Prediction, Points] | PointCloudFileError]:
    """The prediction for each source and the points (N, 3) that the network saw, in order, or the error of its file;
    one batch is read at a time.

    Raises:
        ValueError: an array or an argument that `predict` refuses.
    """
    contract, up = Contract.of(model), reading.up
    count = contract.num_points if reading.num_points is None else reading.num_points
    axis = None if up == AUTO else up
    if axis not in UPS:
        raise ValueError(f"up must be one of {', '.join(TO_Z_UP)}, {AUTO}, got {up!r}")
    check_drawing(count, axis)
    if votes < 1:
        raise ValueError(f"votes must be at least 1, got {votes}")
    judge = Judge(model, contract, votes)
    read = reader(contract, reading._replace(up=axis), count)

    def answers(batch: Sequence[Source]) -> Iterator[tuple[Prediction, Points] | PointCloudFileError]:
        clouds = [read(source) for source in batch]
        paths = [*map(path_of, batch)]
        ups = [up_for(path, axis, contract) for path in paths]
        there = {i: cloud for i, cloud in enumerate(clouds) if not isinstance(cloud, PointCloudFileError)}
        first = dict(zip(there, judge.opinions([cloud.channels for cloud in there.values()]), strict=True))
        # Where neither the caller nor the file says which axis is up, others are asked too.
        said = [up != AUTO and path is not None and said_up(path) == its for path, its in zip(paths, ups, strict=True)]
        open_ups = [i for i in there if not said[i] and judge.asks_others(up)]
        turned = {
            (i, other): with_other_up(there[i].channels, ups[i], other, contract.normals)
            for i in open_ups
            for other in other_ups(ups[i])
        }
        others = {i: dict[str, Opinion]() for i in there}
        for (i, other), opinion in zip(turned, judge.opinions([*turned.values()]), strict=True):
            others[i][other] = opinion
        for i, cloud in enumerate(clouds):
            if isinstance(cloud, PointCloudFileError):
                yield cloud
                continue
            cloud = cloud._replace(notes=(*cloud.notes, *notes_on_source(batch[i], reading, contract)))
            rival = judge.rival(first[i], others[i], cloud.unfit, up == AUTO)
            clearly = None if up == AUTO else judge.clearly
            found = answer(paths[i], cloud, ups[i], first[i], rival, clearly, model)
            yield found, turned.get((i, found.up), cloud.channels)[:3].T

    size = clouds_together(count)
    return chain.from_iterable(answers(sources[start : start + size]) for start in range(0, len(sources), size))


def answer(
    path: Path | None,
    cloud: Seen,
    up: str,
    first: Opinion,
    rival: Rival | None,
    clearly: float | None,
    model: PointNetClassifier,
) -> Prediction:
    """The prediction from what the model says of a cloud, and of the same with another axis up: the surer one where
    `clearly` is None; else the first, with a note if the other is surer by more than that.
    """
    notes, surer_up, is_another = cloud.notes, None, False
    if rival is not None and rival.surer_by > (clearly or 0.0):
        turned, other, _ = rival
        if clearly is None:
            first, up = other, turned
            notes += (f"taken with {turned} up, which is more like training",)
        elif cloud.unfit is None:  # else another axis is no remedy
            name, share, surer_up = model.classes[other.label], other.probability, turned
            notes += (f"with {turned} up it would be {name} {share:.1%}, more like training: --up {turned}",)
            is_another = other.label != first.label
    reasons = first.doubts(cloud.unfit)
    if reasons:
        notes += (f"unsure: {'; '.join(reasons)}",)
    ranked = sorted(zip(model.classes, first.probabilities, strict=True), key=lambda pair: -pair[1])
    return Prediction(path, dict(ranked), not (reasons or is_another), notes, up, surer_up)


class Seen(NamedTuple):
    """What a network is given of a cloud."""

    channels: NDArray[np.float32]  # (C, N)
    unfit: str | None  # as `evaluation.trust.unfit` has it
    notes: tuple[str, ...]


def reader(contract: Contract, reading: Reading, count: int) -> Callable[[Source], Seen | PointCloudFileError]:
    """A function that brings a source into the contract, with so many points, or gives the error of its file."""
    of_files = {"extras": contract.features, "vertices": reading.vertices, "up": reading.up or contract.up}
    of_arrays = {"columns": contract.channels, "up": reading.up}
    drawing = {"num_points": max(count, KEPT), "repeat": True, "normalize": contract.scale == UNIT_SPHERE}

    def seen(cloud: PointCloud, seed: int) -> Seen:
        unlike = contract.notes_of(cloud)
        few = few_points(cloud.points[:count]) if count < contract.num_points else None
        reason = few or unfit(cloud.points, contract) or next(iter(unlike), None)
        notes = *cloud.notes, *(note for note in unlike if note != reason)
        return Seen(contract.channels_of(cloud)(slice(count)), reason, notes)

    def read(source: Source) -> Seen | PointCloudFileError:
        by_hand = {"columns": columns_for(path_of(source), reading.columns, contract)}
        return from_source(source, seen, of_files | by_hand, of_arrays, **drawing)

    return read
