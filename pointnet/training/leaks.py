"""Lines on clouds to test on that were trained on: a score on them says nothing of new ones."""

import torch

from pointnet.datasets import LabelledClouds, LabelledPoints
from pointnet.files import AnyPath
from pointnet.names import printable

from .run_folder import trained_on, was_tested_on
from .settings import TrainConfig

LOOKED_AT = 256  # clouds at a time


def lines_on_leaks(
    config: TrainConfig, train: LabelledClouds, val: LabelledClouds, test: LabelledClouds | None
) -> list[str]:
    """Lines on clouds to test on that are also among those of training or validation, and on files of the network that
    training begins from, or of a teacher. `datasets.own_objects.twins_in` says the same of one's own files."""
    if test is None or config.overfit_batches:
        return []
    lines, are_arrays = [], all(map(of_arrays, (train, test)))
    if are_arrays and (count := same_clouds(test, train, val)):
        what = f"clouds to test on that are also among those of training: {count:,} of {len(test):,}"
        lines.append(f"{what}; the test score says nothing of others")
    for flag, names in (("--init", [config.init] * bool(config.init)), ("--teacher", config.teacher)):
        for name in names:
            if seen := trained_on(name, test):
                what = f"files to test on that {flag} {name} was trained on: {len(seen):,}, such as {seen[0]}"
                lines.append(printable(f"{what}; the test score says less of others"))
    return lines


def lines_on_test_set(out: AnyPath, data: LabelledClouds, is_its_own: bool = True) -> list[str]:
    """Lines where files of a test split were trained on, and where the run's own is not what it was tested on."""
    lines, seen = [], trained_on(out, data)
    if seen:
        lines.append(f"files that the network was trained on: {len(seen):,}, such as {printable(seen[0])}")
    if is_its_own and not was_tested_on(out, data):
        lines.append("the test set differs from that at the end of training")
    return lines


def of_arrays(data: LabelledClouds) -> bool:
    """Whether the clouds are arrays of the caller's, and no release or files, which are known by other means."""
    return type(data) in (LabelledClouds, LabelledPoints)


def same_clouds(test: LabelledClouds, *others: LabelledClouds) -> int:
    """How many clouds of `test` are among others too, in any order of their points."""
    boxes = _boxes(test)
    wanted = set(boxes)
    known = {_content(data, i) for data in others for i, box in enumerate(_boxes(data)) if box in wanted}
    return sum(_content(test, i) in known for i in range(len(test))) if known else 0


def _boxes(data: LabelledClouds) -> list[bytes]:
    """The least and largest coordinates of each cloud, which the order of its points does not change."""
    boxes = []
    for rows in torch.arange(len(data)).split(LOOKED_AT):
        points = data.batch(rows)[0][:, :3]
        boxes += [box.numpy().tobytes() for box in torch.cat([points.amin(2), points.amax(2)], 1)]
    return boxes


def _content(data: LabelledClouds, i: int) -> bytes:
    """The coordinates of a cloud, those of each axis in order."""
    return data.batch(torch.tensor([i]))[0][0, :3].sort(1).values.numpy().tobytes()
