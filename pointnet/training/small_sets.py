"""Lines on sets that are too small, too uneven or too far away to learn from, or to judge by, each with what to do."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from pointnet.datasets import LabelledClouds, LabelledPoints, split_parts
from pointnet.datasets.clouds import AS_GIVEN, spread
from pointnet.datasets.own_labels import OwnPoints
from pointnet.datasets.point_labels import IGNORED
from pointnet.evaluation.evaluate import of_single_parts
from pointnet.evaluation.tasks import TASKS, Task
from pointnet.evaluation.trust import LEAST_CLOUDS
from pointnet.names import first_of, nearest_name

from .settings import TrainConfig

FEW = 8  # clouds of a class to learn from: what ten files leave where a fifth of them is for testing
LOOKED_AT = 256  # clouds at a time
SOME_CLOUDS = 64  # whose distance from the origin is measured
FAR = 3.0  # radii of a cloud from the origin: stretching by 1.25 moves it by 3/4 of its radius
LEARNED = 0.95  # accuracy in training,
GAP = 0.1  # and how much less it is in validation, at least, where that is as guessing would be


def lines_on_data(
    config: TrainConfig, train: LabelledClouds, val: LabelledClouds, test: LabelledClouds | None = None
) -> list[str]:
    """Lines on classes with few clouds, one or none, on a validation split that cannot tell epochs apart, and on clouds
    to judge by that are not finite or that augmentation moves too far."""
    if config.overfit_batches:
        return []
    lines = lines_on_distance(config, train)
    if config.task != "scene":  # there a cloud has points of many classes
        both = torch.cat([train.labels, val.labels])
        counts = torch.bincount(both, minlength=len(train.classes)).tolist()
        of_class = dict(zip(train.classes, counts, strict=True))
        if few := [f"{name} {n}" for name, n in of_class.items() if 1 < n < FEW]:
            then = "--rotate and --jitter" if config.init else "--init, or --rotate and --jitter"
            lines.append(f"fewer than {FEW} clouds to learn from: {first_of(few)}. More files help most, then {then}")
        if one := [name for name, n in of_class.items() if n == 1]:
            lines.append(f"a single cloud to learn from: {first_of(one)}. None is left to validate on; add files")
        if empty := [name for name, n in of_class.items() if n == 0]:
            learned = [name for name, n in of_class.items() if n]
            near = {name: other for name in empty if (other := nearest_name(name, learned)) is not None}
            named = [f"{name} (nearly '{near[name]}')" if name in near else name for name in empty]
            remedy = "add files, remove it, or give both folders one name" if near else "add files or remove it"
            lines.append(f"no cloud to learn from: {first_of(named)}. An answer of it tells nothing; {remedy}")
        if test is not None:
            tested = set(test.labels.tolist())
            if missing := [name for i, name in enumerate(train.classes) if of_class[name] and i not in tested]:
                lines.append(f"no cloud to test on: {first_of(missing)}. The test score says nothing of it; add files")
    lines += of_single_parts(TASKS[config.task], train)
    lines += _lines_on_held_out(config, train, val)
    for use, data in (("validate", val), ("test", test)):
        if broken := _not_finite(data):
            lines.append(f"clouds to {use} on that are not finite, and count as wrong: {first_of(broken)}")
    return lines


def _lines_on_held_out(config: TrainConfig, train: LabelledClouds, val: LabelledClouds) -> list[str]:
    lines = []
    if lost := _only_in(val, train):
        lines.append(f"labels that only clouds of validation have, so never learned: {first_of(lost)}. Add files")
    if len(val) and config.task == "scene" and (lost := _only_in(train, val)):
        lines.append(f"labels that no cloud of validation has, so the epoch is chosen without them: {first_of(lost)}")
    if config.val_fraction and not len(val):
        lines.append("no cloud to validate on: the last epoch is kept. Add files")
    if 0 < len(val) < LEAST_CLOUDS:
        clouds = "1 cloud" if len(val) == 1 else f"{len(val)} clouds"
        if config.task == "scene" and val.files:  # whose blocks overlap
            clouds = f"{clouds} (blocks of {len({*val.files})} scan{'s' * (len({*val.files}) > 1)})"
        cannot = f"{clouds} to validate on: each is {1 / len(val):.0%} of {config.chooser.replace('_', ' ')}"
        lines.append(f"{cannot}. See --seeds 0 1 2 for chance, --val_fraction 0.3, or 0 to keep the last epoch")
    return lines


def _only_in(some: LabelledClouds, others: LabelledClouds) -> list[str]:
    """The names of the labels that points of some clouds have, and none of the others, in files and arrays."""
    if not isinstance(some, LabelledPoints) or not (isinstance(some, OwnPoints) or type(some) is LabelledPoints):
        return []
    wanted = set[int]()
    for rows in torch.arange(len(some)).split(LOOKED_AT):
        wanted.update(split_parts(some.batch(rows)[0])[1].unique().tolist())
    for rows in torch.arange(len(others)).split(LOOKED_AT):
        if not wanted:
            break
        wanted.difference_update(split_parts(others.batch(rows)[0])[1].unique().tolist())
    return [some.part_names[label] for label in sorted(wanted - {IGNORED})]


def _not_finite(data: LabelledClouds | None) -> list[str]:
    """The clouds of arrays in which a number is not finite, by name; of files and shards, no such cloud was read."""
    if type(data) not in (LabelledClouds, LabelledPoints):
        return []
    assert data is not None
    parts = torch.arange(len(data)).split(LOOKED_AT)
    broken = torch.cat([~data.batch(rows)[0].isfinite().flatten(1).all(1) for rows in parts])
    return [f"{data.name_of(i)} ({data.classes[int(data.labels[i])]})" for i in broken.nonzero()[:, 0].tolist()]


def lines_on_distance(config: TrainConfig, train: LabelledClouds) -> list[str]:
    """A line where clouds are far from the origin, about which augmentation stretches, rotates and mirrors them."""
    used = {"--scale": config.scale > 1, "--rotate": config.rotate > 0, "--mirror": config.mirror}
    if train.scale not in (None, AS_GIVEN) or not any(used.values()):
        return []
    points = spread(train, SOME_CLOUDS).batch(slice(None))[0][:, :3].double()
    points = points[points.isfinite().flatten(1).all(1)]
    centre = points.mean(2, keepdim=True)
    radii = (centre.norm(dim=1)[:, 0] / (points - centre).norm(dim=1).amax(1)).median()
    if not FAR <= float(radii) < math.inf:  # NaN of no clouds, infinite where each is a single point
        return []
    found = f"clouds are {float(radii):,.0f} times their radius from the origin"
    moved = f"{', '.join(name for name in used if used[name])} would move them about it"
    return [f"{found}: {moved}. Centre each: points - points.mean(2, keepdims=True)"]


def lines_on_result(
    config: TrainConfig,
    val: LabelledClouds,
    last: Mapping[str, Any],
    chosen: Mapping[str, Any],
    test: LabelledClouds | None = None,
    scores: Mapping[str, Any] | None = None,
) -> list[str]:
    """A line if the last epoch trained near 100 %, and validation is at chance even in the chosen one; and what
    `lines_on_test` says."""
    return [*_lines_on_validation(config, val, last, chosen), *lines_on_test(config, test, scores)]


def _lines_on_validation(
    config: TrainConfig, val: LabelledClouds, last: Mapping[str, Any], chosen: Mapping[str, Any]
) -> list[str]:
    task = TASKS[config.task]
    name = next(name for name in ("overall_accuracy", "point_accuracy") if name in task.titles)
    accuracy = chosen.get(f"val_{name}")
    if accuracy is None or not last["train_accuracy"] >= LEARNED:  # NaN where every step was skipped
        return []
    chance = accuracy_by_chance(task, val)
    if accuracy > min(chance + math.sqrt(chance * (1 - chance) / len(val)), last["train_accuracy"] - GAP):
        return []
    found = f"training reaches {last['train_accuracy']:.0%}, but validation only {accuracy:.0%}, as guessing would"
    return [f"{found}: are its clouds like those of training, labelled, up and scaled alike? python -m pointnet show"]


def lines_on_test(config: TrainConfig, test: LabelledClouds | None, scores: Mapping[str, Any] | None) -> list[str]:
    """A line if the test score is no better than one answer for all; of points where they are one's own."""
    known = config.task == "classification" or isinstance(test, OwnPoints) or type(test) is LabelledPoints
    if test is None or not len(test) or not scores or config.overfit_batches or not known:
        return []
    task = TASKS[config.task]
    name = next(name for name in ("overall_accuracy", "point_accuracy") if name in task.titles)
    chance = accuracy_by_chance(task, test)
    if scores[name] > chance or chance == 1:
        return []
    found = f"test: {scores[name]:.2%} {task.titles[name]} is no more than one answer for all"
    return [f"{found}, the commonest, would reach ({chance:.2%})"]


def accuracy_by_chance(task: Task, data: LabelledClouds) -> float:
    """The accuracy of one answer for all: the commonest label; of parts, that of each category."""
    if not isinstance(data, LabelledPoints):
        return float(data.labels.bincount().max()) / len(data)
    parts, groups = data.parts, data.labels if task.categories(data) else torch.zeros_like(data.labels)
    its = (parts[groups == group] for group in groups.unique())
    return sum(int(each[each >= 0].bincount().max()) for each in its) / int((parts >= 0).sum())
