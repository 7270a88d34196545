"""What a trained model says of each point of files and arrays: which part of an object it is of, or what in a room."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.datasets import PointCloud, PointCloudFileError, read_cloud
from pointnet.datasets.folder import KEPT
from pointnet.files import write_atomically
from pointnet.models import PointNetPartSegmenter, PointNetSegmenter
from pointnet.names import check_name, printable
from pointnet.pages.show import MOST_FILES, file_view
from pointnet.pages.viewer import View, write_page
from pointnet.points.colours import label_colours
from pointnet.points.frame import up_of
from pointnet.points.read import cloud_of
from pointnet.points.sampling import seed_of

from .predict import Source, all_read, as_model, check_drawing, rows_of, sources_of, takes_normals, with_nearest
from .scenes import check_is_for_scenes, label_scene

CHUNK = 8192  # points that are scored together
ROOM_POINTS = 100_000  # drawn from the mesh of a room
FOLDER = "labels"  # that labelled files go to


@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """What a model says of each point of one cloud.

    Args:
        file: it was read from; None for an array.
        points: (N, 3) float64, as the file has them, each of a cloud's that is finite; those drawn from a mesh.
        up: the axis that points up in them, "z" or "y".
        labels: (N,) int64, indices into `names`.
        probability: (N,) float32, of that label.
        names: of the labels; those of the model's classes.
    """

    file: Path | None
    points: NDArray[np.float64]
    up: str
    labels: NDArray[np.int64]
    probability: NDArray[np.float32]
    names: tuple[str, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Of the points, the share that has each label, by name, the largest first; none of labels that none has."""
        counts = np.bincount(self.labels, minlength=len(self.names)) / len(self.labels)
        return {self.names[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}

    def as_json(self) -> dict[str, Any]:
        """What `python -m pointnet predict --json` prints of it, but for the file that it writes."""
        return {
            "file": None if self.file is None else str(self.file),
            "points": len(self.points),
            "shares": self.shares,
            "mean_probability": float(self.probability.mean(dtype=np.float64)),
        }

    def write_ply(self, path: str | os.PathLike[str]) -> None:
        """Writes the points, with a colour for each label and the label itself, as a binary PLY; the folder is made.

        Coordinates are float where that holds them, else double. Comments name the labels.

        Raises:
            OSError: the file cannot be written.
        """
        single = self.points.astype(np.float32)
        kind = "float" if np.array_equal(single, self.points) else "double"
        names = (printable(name).encode("ascii", "backslashreplace").decode() for name in self.names)
        header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(self.points)}"]
        header[2:2] = (f"comment label {i} is {name}" for i, name in enumerate(names))
        header += [f"property {kind} {axis}" for axis in "xyz"]
        header += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
        header += ["property int label", "end_header", ""]
        xyz = "<f4" if kind == "float" else "<f8"
        rows = np.empty(len(self.points), [("xyz", xyz, 3), ("rgb", "u1", 3), ("label", "<i4")])
        rows["xyz"], rows["label"] = single if kind == "float" else self.points, self.labels
        rows["rgb"] = label_colours(self.labels)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"".join(["\n".join(header).encode(), rows.view(np.uint8).data]))


def label_points(
    source: Source | list[Any] | tuple[Any, ...],
    model: str | os.PathLike[str] | PointNetPartSegmenter | PointNetSegmenter | None = None,
    category: str | None = None,
    up: str | None = None,
    num_points: int | None = None,
) -> LabelledCloud | list[LabelledCloud]:
    """Labels each point of a file or an array, by its part of an object or by what it is of in a room, as the model is.

    Several, or a folder, give a list.

    Args:
        source: a file of any format that `read_points` knows, a folder of them, or, for parts, an array (N, 3), with
            normals (N, 6); or a list of these. All points of a cloud are labelled, however many; a mesh is sampled by
            area. A room must be in metres, and have colours (`label_scene` takes arrays).
        model: a run folder, the name of shipped weights, or a model that `load_model` gave; None for the shipped
            weights for parts.
        category: what the object is, one of `model.preprocessing["categories"]`; its points are of the parts that such
            objects have. None: not known, and parts of any are told; less surely, and hardly at all by a network that
            always knew it in training (`--unknown_category 0`).
        up: as of `predict`.
        num_points: how many points of an object the network sees before it labels all, drawn with a seed that is the
            file's name, and how many are drawn of a mesh; None for 4,096. Where a cloud has no more, it sees all, as
            in evaluation.

    Raises:
        PointCloudFileError: a file that cannot be read, or a room without colours, the first one of several.
        ValueError: an array or an argument outside the values above, or no such model.
    """
    several, sources = sources_of(source)
    labelled = all_read(label_each(sources, as_labeller(model), category, up, num_points))
    return labelled if several else labelled[0]


def as_labeller(
    model: str | os.PathLike[str] | PointNetPartSegmenter | PointNetSegmenter | None,
) -> PointNetPartSegmenter | PointNetSegmenter:
    """`as_model` of the tasks whose models label points."""
    return cast("PointNetPartSegmenter | PointNetSegmenter", as_model(model, "part", "scene"))


def label_each(
    sources: Sequence[Source],
    model: PointNetPartSegmenter | PointNetSegmenter,
    category: str | None = None,
    up: str | None = None,
    num_points: int | None = None,
) -> Iterator[LabelledCloud | PointCloudFileError]:
    """What `label_points` says of each source, in order, or why it cannot be read; one is read at a time.

    Raises:
        ValueError: an array or an argument that `label_points` refuses.
    """
    check_drawing(1 if num_points is None else num_points, up)
    if isinstance(model, PointNetPartSegmenter):
        count, extras = num_points or KEPT, ("normals",) if takes_normals(model) else ()
        label = _part_labels(model, category, count)
    else:
        count, extras = num_points or ROOM_POINTS, ("colors",)
        label = _scene_labels(model)
        if category is not None:
            raise ValueError(f"a room is of no category, got '{category}'")
        if any(not isinstance(source, str | os.PathLike) for source in sources):
            raise ValueError("arrays of a room, points and colours, are for pointnet.inference.scenes.label_scene")
    return (_labelled(source, label, count, up, extras, model.classes) for source in sources)


def label_files(
    files: Sequence[Path],
    model: PointNetPartSegmenter | PointNetSegmenter,
    category: str | None = None,
    up: str | None = None,
    num_points: int | None = None,
    out: str | os.PathLike[str] = FOLDER,
) -> Iterator[tuple[LabelledCloud, Path] | PointCloudFileError | str]:
    """Labels files and writes them to `out`: yields each with its PLY or its error, then the line of the page.

    A file's PLY has its name, with `.parts.ply` or `.scene.ply` added; those of files of one name stand below `out` as
    the files do below the folder that all are in. The first `MOST_FILES` are drawn: `out/parts.html`,
    or `scene.html`.

    Raises:
        ValueError: an argument that `label_points` refuses.
        OSError: a file cannot be written.
    """
    name = "parts" if isinstance(model, PointNetPartSegmenter) else "scene"
    labelled = label_each(files, model, category, up, num_points)
    above = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    called = Counter(file.name for file in files)

    def written() -> Iterator[tuple[LabelledCloud, Path] | PointCloudFileError | str]:
        views: list[View] = []
        count = 0
        for file, found in zip(files, labelled, strict=True):
            if isinstance(found, PointCloudFileError):
                yield found
                continue
            place = file.name if called[file.name] == 1 else os.path.relpath(file, above)
            ply = Path(out) / f"{place}.{name}.ply"
            found.write_ply(ply)
            yield found, ply
            count += 1
            if len(views) < MOST_FILES:
                cloud = PointCloud(found.points, None, None, found.labels)
                views.append(file_view(file.name, cloud.in_library_frame(found.up), found.names))
        if views:
            title = views[0].name if count == 1 else f"{count:,} clouds"
            notes = f"Their first {len(views)}. " if len(views) < count else ""
            notes += f"Points are labelled by {described(model, category)}."
            page = Path(out) / f"{name}.html"
            write_page(page, views, title, notes)
            yield f"wrote {page}"

    return written()


def described(model: PointNetPartSegmenter | PointNetSegmenter, category: str | None) -> str:
    """What a model labels points by, in words."""
    count = len(model.classes)
    if not isinstance(model, PointNetPartSegmenter):
        return f"{count} classes"
    return f"the parts of {category}" if category else f"{count} parts of {model.num_categories} categories"


Labels = tuple[NDArray[np.int64], NDArray[np.float32]]  # of each point, and how probable they are
Label = Callable[[PointCloud, int], Labels]  # from a cloud with z up, and a seed


def _labelled(
    source: Source, label: Label, mesh_points: int, up: str | None, extras: Sequence[str], names: tuple[str, ...]
) -> LabelledCloud | PointCloudFileError:
    if not isinstance(source, str | os.PathLike):
        rows, upward = rows_of(source), up or "z"
        cloud = cloud_of(rows, precise=True)
        try:
            labels, probability = label(cloud.in_library_frame(upward), 0)
        except ValueError as error:
            raise ValueError(f"points {rows.shape}: {error}") from error
        return LabelledCloud(None, cloud.points, upward, labels, probability, names)
    path = Path(source)
    seed, upward = seed_of(path.name), up_of(path, up)
    try:
        cloud = read_cloud(path, seed=seed, up="z", extras=extras, precise=True, mesh_points=mesh_points)
        labels, probability = label(cloud.in_library_frame(upward), seed)
    except PointCloudFileError as error:
        return with_nearest(error)
    except ValueError as error:
        return PointCloudFileError(path, str(error))
    return LabelledCloud(path, cloud.points, upward, labels, probability, names)


def _part_labels(model: PointNetPartSegmenter, category: str | None, count: int) -> Label:
    """What labels an object by what the network makes of `count` of its points."""
    categories = model.preprocessing.get("categories", ())
    if category is not None:
        check_name("category", category, categories)
    normals, network, device = takes_normals(model), model.fold(), next(model.parameters()).device
    kind = None if category is None else torch.tensor([categories.index(category)], device=device)

    def label(cloud: PointCloud, seed: int) -> Labels:
        points, size = cloud.points, len(cloud.points)
        if normals and cloud.normals is None:
            raise ValueError("has no normals")
        chunks = [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]
        centre = points.mean(0)
        radius = max(float(np.linalg.norm(points[chunk] - centre, axis=1).max()) for chunk in chunks)
        if not radius:
            raise ValueError("has no extent: all its points are one")

        def channels(rows: slice | NDArray[np.int64]) -> Tensor:
            columns = [(points[rows] - centre) / radius]
            if normals and cloud.normals is not None:
                columns.append(cloud.normals[rows])
            return torch.from_numpy(np.hstack(columns).T.astype(np.float32))[None].to(device)

        drawn = np.random.default_rng(seed).choice(size, count, replace=False) if size > count else slice(None)
        labels, probability = np.empty(size, np.int64), np.empty(size, np.float32)
        scored = network.label_chunks(channels(drawn), map(channels, chunks), kind)
        for chunk, logits in zip(chunks, scored, strict=True):
            likeliest = network.restrict(logits, kind)[0].softmax(0).max(0)
            labels[chunk], probability[chunk] = likeliest.indices.cpu(), likeliest.values.cpu()
        return labels, probability

    return label


def _scene_labels(model: PointNetSegmenter) -> Label:
    check_is_for_scenes(model)
    device = next(model.parameters()).device

    def label(cloud: PointCloud, seed: int) -> Labels:
        if cloud.colors is None:
            raise ValueError("has no colours, which a room needs: x y z and red green blue of each point")
        return label_scene(model, cloud.points, cloud.colors, device, seed)

    return label
