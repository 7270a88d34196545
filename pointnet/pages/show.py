"""Looking at data: what a data set or files hold, as text, as a picture and as a page to turn the clouds in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.datasets import TASKS, LabelledClouds, LabelledPoints, PointCloudFileError, open_dataset
from pointnet.extras import MissingExtraError
from pointnet.points.read import SUFFIXES, PointCloud, read_cloud

from .pictures import grid_columns, write_grid
from .viewer import View, write_page

SPLITS = {"train": ("train",), "test": ("test",), "both": ("train", "test")}
MOST_POINTS = 20_000  # of a cloud that is drawn
MOST_FILES = 60  # that are drawn


class Measures(NamedTuple):
    """What is measured of one cloud, in the cloud's own units; all but the last over its finite points."""

    points: int
    centroid_distance: float  # from the origin
    radius: float  # the largest distance from the origin
    extent_x: float  # of the bounding box
    extent_y: float
    extent_z: float
    duplicates: float  # share of the points that repeat an earlier one
    not_finite: int  # points with a coordinate that is NaN or infinite


def measure(points: NDArray[Any]) -> Measures:
    """The measures of one cloud, (N, 3)."""
    kept = finite(points).astype(np.float64)
    if len(kept) == 0:
        nan = float("nan")
        return Measures(len(points), nan, nan, nan, nan, nan, nan, len(points))
    extent_x, extent_y, extent_z = np.ptp(kept, axis=0).tolist()
    ordered = kept[np.lexsort(kept.T)]
    return Measures(
        points=len(points),
        centroid_distance=float(np.linalg.norm(kept.mean(0))),
        radius=float(np.linalg.norm(kept, axis=1).max()),
        extent_x=extent_x,
        extent_y=extent_y,
        extent_z=extent_z,
        duplicates=int((ordered[1:] == ordered[:-1]).all(1).sum()) / len(kept),
        not_finite=len(points) - len(kept),
    )


def finite(points: NDArray[Any]) -> NDArray[Any]:
    """Those of (N, 3) points whose coordinates are all finite."""
    return points[np.isfinite(points).all(1)]


# A data set.


def show_data(
    name: str,
    root: str | os.PathLike[str] = "data",
    split: str = "both",
    num_points: int = 1024,
    per_class: int = 1,
    out: str | os.PathLike[str] = "show",
) -> Iterator[str]:
    """Yields what a data set holds, as text, and then draws samples: `out/<name>.png` and `out/<name>.html`.

    Args:
        name: of the data set, in `TASKS`.
        root: the folder it is in.
        split: train, test or both; samples are of the first.
        num_points: points a cloud.
        per_class: samples of each class, the first ones.
        out: the folder for the picture and the page.

    Raises:
        ValueError: an argument outside the values above, or a data set that cannot be read.
        OSError: the picture or the page cannot be written.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be train, test or both, got '{split}'")
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    task = next((task for task, known in TASKS.items() if name in known), "classification")
    parts = {part: open_dataset(name, root, part, num_points, task=task) for part in SPLITS[split]}
    first, data = next(iter(parts.items()))
    total = sum(len(part) for part in parts.values())
    title = f"{name}: {len(data.classes)} classes, {total:,} clouds of {num_points:,} points"
    yield f"{title}\n\n{count_table(parts)}\n"
    yield f"{measure_table(measure(cloud(part, i)) for part in parts.values() for i in range(len(part)))}\n"

    chosen = [i for label in range(len(data.classes)) for i in members(data, label)[:per_class]]
    views = [data_view(data, i, f"{data.classes[int(data.labels[i])]} {i}") for i in chosen]
    captions = [data.classes[int(data.labels[i])] for i in chosen]
    columns = grid_columns(len(chosen))
    notes = f"The first of each class in the {first} part, each with its index there."
    yield from draw(Path(out) / name, views, captions, title, notes, max(per_class, columns // per_class * per_class))


def cloud(data: LabelledClouds, index: int) -> NDArray[Any]:
    """The positions of one cloud of a data set, (N, 3)."""
    return data[index][0][:3].T.numpy()


def members(data: LabelledClouds, label: int) -> list[int]:
    """The indices of a class's clouds."""
    return torch.nonzero(data.labels == label).flatten().tolist()


def data_view(data: LabelledClouds, index: int, name: str) -> View:
    """One cloud of a data set, coloured by its parts where it has them."""
    points = cloud(data, index)
    kept = np.isfinite(points).all(1)
    if isinstance(data, LabelledPoints):
        labels: Tensor | None = data[index][1]
    else:
        parts: Tensor | None = getattr(data, "parts", None)
        labels = None if parts is None else parts[index]
    if labels is None:
        return View(name, points[kept])
    return View(name, points[kept], labels=labels.numpy()[kept], label_names=getattr(data, "part_names", ()))


def count_table(parts: Mapping[str, LabelledClouds]) -> str:
    """How many clouds of each class each split has."""
    classes = next(iter(parts.values())).classes
    counts = [torch.bincount(part.labels, minlength=len(classes)).tolist() for part in parts.values()]
    rows = [[name, *(f"{count:,}" for count in row)] for name, *row in zip(classes, *counts, strict=True)]
    return table([["class", *parts], *rows, ["total", *(f"{sum(count):,}" for count in counts)]])


def measure_table(measures: Iterable[Measures]) -> str:
    """The least, the median and the largest of each measure over clouds, and how many points are not finite."""
    columns = np.array(list(measures), dtype=np.float64).T
    rows = [["of a cloud", "least", "median", "largest"]]
    for name, column in zip(Measures._fields[:-1], columns, strict=False):
        kept = column[np.isfinite(column)]
        figures = (kept.min(), np.median(kept), kept.max()) if len(kept) else (np.nan,) * 3
        style = {"points": "{:,.0f}", "duplicates": "{:.2%}"}.get(name, "{:,.4f}")
        rows.append([name.replace("_", " "), *(style.format(figure) for figure in figures)])
    return f"{table(rows)}\npoints that are not finite: {int(columns[-1].sum()):,}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as aligned columns, the first to the left and the others to the right."""
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join("  ".join([row[0].ljust(first), *map(str.rjust, row[1:], widths)]) for row in rows)


# Files.


def show_files(
    paths: Sequence[Path],
    num_points: int | None = None,
    up: str | None = None,
    out: str | os.PathLike[str] = "show",
) -> Iterator[str | PointCloudFileError]:
    """Yields a line for each file, or the error of one that cannot be read, and then draws the clouds.

    Args:
        paths: of files, and of folders, whose files of point clouds are taken, those in folders within them too.
        num_points: points a cloud; None: clouds whole, and 1,024 samples of a mesh.
        up: the files' axis that points up, "y" or "z"; None: as known of the format.
        out: the folder for `files.png` and `files.html`, named after the file or folder if there is only one.

    Raises:
        ValueError: no file of points in the folders, or an argument outside the values above.
        OSError: the picture or the page cannot be written.
    """
    files = [file for path in paths for file in files_in(path)]
    if not files:
        raise ValueError(f"{paths[0]}: holds no file of points")
    views: list[View] = []
    readable = 0
    width = max(len(str(file)) for file in files)
    for file in files:
        try:
            found = read_cloud(file, num_points, up=up)
        except PointCloudFileError as error:
            yield error
            continue
        yield f"{file!s:{width}}  {describe(found)}"
        readable += 1
        if len(views) < MOST_FILES:
            views.append(file_view(file.name, found))
    if views:
        stem = paths[0].resolve().stem if len(paths) == 1 else "files"
        title = f"{stem}: {len(views)} of {readable} clouds" if len(views) < readable else stem
        yield from draw(Path(out) / stem, views, [view.name for view in views], title)


def files_in(path: Path) -> list[Path]:
    """The file itself, or the files of points in a folder, sorted by name; hidden ones are passed over."""
    if not os.path.isdir(path):  # which is False, and no error, of a name too long
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    )


def describe(found: PointCloud) -> str:
    """A cloud in a line: points, extents, and what else is known of each."""
    sizes = measure(found.points)
    extents = " × ".join(f"{extent:.4g}" for extent in (sizes.extent_x, sizes.extent_y, sizes.extent_z))
    extras = [name for name in ("normals", "colors", "labels") if getattr(found, name) is not None]
    words = [f"{sizes.points:>7,} points", f"extents {extents}", ", ".join(extras) or "positions only"]
    if sizes.points > MOST_POINTS:
        words.append(f"{MOST_POINTS:,} drawn")
    return "  ".join(words)


def file_view(name: str, found: PointCloud, label_names: Sequence[str] = ()) -> View:
    """A file's cloud, thinned to what can be drawn, coloured by its labels or its colours."""
    count = len(found.points)
    kept = np.arange(count)
    if count > MOST_POINTS:
        name += f" ({MOST_POINTS:,} of {count:,} points)"
        kept = np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))
    if found.labels is not None:
        return View(name, found.points[kept], labels=found.labels[kept], label_names=label_names)
    return View(name, found.points[kept], colors=None if found.colors is None else found.colors[kept])


# Both.


def draw(
    stem: Path, views: Sequence[View], captions: Sequence[str], title: str, notes: str = "", columns: int | None = None
) -> Iterator[str]:
    """Writes `<stem>.png` and `<stem>.html`; yields their names, or which package the picture needs."""
    picture, page = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.html")
    try:
        label_names = max((view.label_names for view in views), key=len)
        labels = [view.labels for view in views]
        write_grid(picture, [view.points for view in views], captions, columns, labels, label_names)
        yield f"wrote {picture}"
    except MissingExtraError as error:
        yield str(error)
    write_page(page, views, title, notes)
    yield f"wrote {page}"
