"""Data sets and files of points, shown as text and as one page of clouds: `python -m pointnet show`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.datasets import DATASETS_OF, LabelledClouds, LabelledPoints, open_dataset
from pointnet.datasets.clouds import BLOCKS, IN_BLOCKS
from pointnet.datasets.lines import lines_about, skipped_files
from pointnet.datasets.own_labels import OwnPoints
from pointnet.datasets.point_labels import IGNORED, split_parts
from pointnet.files import AnyPath, replacing
from pointnet.names import short_names
from pointnet.points.frame import bounds, notes_on_points
from pointnet.points.read import EXTRAS, PointCloudFileError, files_in, named_by_hand, passed_over, read_cloud

from .viewer import MOST_CLOUDS, MOST_POINTS, View, file_view, write_page

MOST_ERRORS = 10  # of files of a data set that cannot be read
NO_LABEL = "no label"  # of points without one
SPLITS = {"train": ("train",), "test": ("test",), "both": ("train", "test")}


class CloudStatistics(NamedTuple):
    """Statistics of one cloud in its own units; all but the first and the last are over its finite points."""

    points: int
    centroid_distance: float  # from the origin
    radius: float  # the largest distance from the origin
    extent_x: float  # of the bounding box
    extent_y: float
    extent_z: float
    duplicates: float  # share of the points that repeat an earlier one
    not_finite: int  # points with a coordinate that is NaN or infinite


def cloud_statistics(points: NDArray[Any]) -> CloudStatistics:
    """The statistics of one cloud, (N, 3); NaN where no point is finite."""
    finite = points[np.isfinite(points).all(1)].astype(np.float64)
    not_finite = len(points) - len(finite)
    if len(finite) == 0:
        return CloudStatistics._make([len(points), *[float("nan")] * 6, not_finite])
    ordered = finite[np.lexsort(finite.T)]
    duplicates = int((ordered[1:] == ordered[:-1]).all(1).sum()) / len(finite)
    centroid_distance, radius = float(np.linalg.norm(finite.mean(0))), float(np.linalg.norm(finite, axis=1).max())
    extents = np.ptp(finite, axis=0).tolist()
    return CloudStatistics._make([len(points), centroid_distance, radius, *extents, duplicates, not_finite])


def show_data(
    name: str,
    root: AnyPath = "data",
    split: str = "both",
    num_points: int = 1024,
    per_class: int = 1,
    out: AnyPath = "show",
    columns: str = "",
    download: bool = False,
    up: str = "",
    features: str = "",
    block: float = 1.0,
) -> Iterator[str]:
    """Yields the contents of a data set as text, then writes samples of each class to `out/<name>.html`.

    Args:
        name: of the data set, in `DATASETS_OF`.
        root: the folder it is in.
        split: train, test or both; samples are from the first.
        num_points: points per cloud.
        per_class: samples of each class, the first ones.
        out: the folder for the page.
        download: download the data set where it is missing and allowed.
        columns, up, features, block: of one's own files, as in `open_dataset`.

    Raises:
        ValueError: an argument outside the values above, or a data set that cannot be read.
        OSError: the page cannot be written.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be train, test or both, got '{split}'")
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    task = next((task for task, known in DATASETS_OF.items() if name in known), "classification")
    kind: dict[str, Any] = {"task": task, "columns": columns, "up": up, "features": features, "block": block}
    opened = {each: open_dataset(name, root, each, num_points, download=download, **kind) for each in SPLITS[split]}
    first, data = next(iter(opened.items()))
    title, tables = _described(name, task, num_points, opened)
    yield f"{title}\n\n{tables}\n"
    clouds = (each[i][0][:3].T.numpy() for each in opened.values() for i in range(len(each)))
    yield f"{statistics_table(map(cloud_statistics, clouds))}\n"
    errors = skipped_files([*opened.values()])
    listed = [*lines_about([*opened.values()]), *(f"skipped: {error}" for error in errors[:MOST_ERRORS])]
    listed += [f"skipped: {len(errors) - MOST_ERRORS:,} more"] * (len(errors) > MOST_ERRORS)
    if listed:
        yield "".join(f"{line}\n" for line in listed)
    of_each = (torch.nonzero(data.labels == label)[:per_class, 0].tolist() for label in range(len(data.classes)))
    views = [data_view(data, i) for of_class in of_each for i in of_class]
    page = Path(out) / f"{name}.html"
    replaced = replacing(page)
    write_page(page, views, title, f"The first of each class in the {first} split, with its index there.")
    yield f"wrote {page}{replaced}"


def _described(name: str, task: str, num_points: int, opened: Mapping[str, LabelledClouds]) -> tuple[str, str]:
    """A title, and what there is of each class, or scan, in each split; of scenes of each label too."""
    data = next(iter(opened.values()))
    one, many = ("scan", "scans") if task == "scene" and isinstance(data, OwnPoints) else ("class", "classes")
    count, what = sum(map(len, opened.values())), "blocks" if data.scale in (BLOCKS, IN_BLOCKS) else "clouds"
    counts = [torch.bincount(each.labels, minlength=len(data.classes)).tolist() for each in opened.values()]
    rows = [[each, *(f"{count:,}" for count in row)] for each, *row in zip(data.classes, *counts, strict=True)]
    tables = text_table([[one, *opened], *rows, ["total", *(f"{sum(count):,}" for count in counts)]])
    if task == "scene":
        tables += f"\n\n{text_table([['points of', *opened], *_points_of_labels(opened)])}"
    return f"{name}: {len(data.classes)} {many}, {count:,} {what} of {num_points:,} points", tables


def _points_of_labels(opened: Mapping[str, Any]) -> list[list[str]]:
    """By label, how many points of each split have it, those that repeat others left out; without one, if any are."""
    names = next(iter(opened.values())).part_names
    counts = []
    for data in opened.values():
        of_split = torch.zeros(len(names) + 1, dtype=torch.int64)
        for rows in torch.arange(len(data)).split(64):
            _, labels, own = split_parts(data.batch(rows)[0])
            labels = labels[own].where(labels[own] != IGNORED, len(names))
            of_split += labels.bincount(minlength=len(names) + 1)
        counts.append(of_split.tolist())
    table = [[name, *(f"{count:,}" for count in row)] for name, *row in zip([*names, NO_LABEL], *counts, strict=True)]
    return table if any(row[-1] for row in counts) else table[:-1]


def data_view(data: LabelledClouds, index: int) -> View:
    """One cloud of a data set with its class and index, coloured by its parts where it has them."""
    parts: NDArray[np.integer] | None = None
    if isinstance(data, LabelledPoints):
        labels = data[index][1]
        parts = labels.where(labels != IGNORED, len(data.part_names)).numpy()
    elif hasattr(data, "parts"):
        parts = data.parts[index].numpy()
    name = f"{data.classes[int(data.labels[index])]} {index}"
    return View(name, data[index][0][:3].T.numpy(), parts, (*getattr(data, "part_names", ()), NO_LABEL))


def statistics_table(statistics: Iterable[CloudStatistics]) -> str:
    """The least, the median and the largest of each statistic over clouds, and the number of points not finite."""
    columns = np.array(list(statistics), dtype=np.float64).T
    rows = [["per cloud", "least", "median", "largest"]]
    for name, column in zip(CloudStatistics._fields[:-1], columns, strict=False):
        finite = column[np.isfinite(column)]
        figures = (finite.min(), np.median(finite), finite.max()) if len(finite) else (np.nan,) * 3
        style = {"points": "{:,.0f}", "duplicates": "{:.2%}"}.get(name, "{:,.4f}")
        rows.append([name.replace("_", " "), *(style.format(figure) for figure in figures)])
    return f"{text_table(rows)}\npoints that are not finite: {int(columns[-1].sum()):,}"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as aligned columns, the first to the left and the others to the right."""
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join("  ".join([row[0].ljust(first), *map(str.rjust, row[1:], widths)]) for row in rows)


def show_files(
    paths: Sequence[Path],
    num_points: int | None = None,
    up: str | None = None,
    out: AnyPath = "show",
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> Iterator[str | PointCloudFileError]:
    """Yields a line for each file and each note on it, or its error, then writes the clouds to a page. A line before
    them counts the files of a folder that are passed over for their suffix.

    Args:
        paths: files and folders; a folder stands for all files of points below it.
        num_points: points per cloud; None: clouds whole, and 1,024 samples of a mesh.
        up: the files' axis that points up, as in `read_cloud`; None: as known of the format.
        out: the folder for `files.html`, which is named after the file or folder if there is only one.
        columns: the names of the columns of tables, as in `read_cloud`.
        vertices: the vertices of a mesh, in place of samples.

    Raises:
        ValueError: no file of points in the folders, or an argument outside the values above.
        OSError: the page cannot be written.
    """
    files, by_hand = [file for path in paths for file in files_in(path)], named_by_hand(columns)
    over = {path: passed_over(path) for path in paths if path.is_dir()}
    if not files:
        raise ValueError("; ".join([f"{paths[0]}: holds no file of points", *over.get(paths[0], [])]))
    yield from (f"{path}: {line}" for path, lines in over.items() for line in lines)
    views, readable, width = list[View](), 0, max(len(str(file)) for file in files)
    for file, name in zip(files, short_names(files), strict=True):
        try:
            cloud = read_cloud(file, num_points, up=up, mapped=True, columns=by_hand, vertices=vertices)
            notes = (*cloud.notes, *notes_on_points(cloud.points))
        except PointCloudFileError as error:
            yield error
            continue
        low, high = bounds(cloud.points)
        extents = " × ".join(f"{extent:.4g}" for extent in high - low)
        extras = [name for name in EXTRAS if getattr(cloud, name) is not None]
        words = f"{len(cloud.points):>7,} points  extents {extents}  {', '.join(extras) or 'positions only'}"
        thinned = f"  {MOST_POINTS:,} drawn" if len(cloud.points) > MOST_POINTS else ""
        yield f"{file!s:{width}}  {words}{thinned}"
        yield from (f"    {note}" for note in notes)
        readable += 1
        if len(views) < MOST_CLOUDS:
            views.append(file_view(name, cloud, notes=notes))
    if views:
        stem = paths[0].resolve().stem if len(paths) == 1 else "files"
        page = Path(out) / f"{stem}.html"
        replaced = replacing(page)
        write_page(page, views, f"{stem}: {len(views)} of {readable} clouds" if len(views) < readable else stem)
        yield f"wrote {page}{replaced}"
