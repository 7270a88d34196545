"""A label for each point of files and arrays: the part of an object, or the class in a room."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.datasets.blocks import CHANNEL_NAMES, MESH_POINTS
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.trust import Usual, unfit
from pointnet.files import AnyPath, write_atomically
from pointnet.models import PartLabels, SceneSegmenter
from pointnet.models.own import has_own_forward
from pointnet.names import check_name
from pointnet.points import comments
from pointnet.points.colours import label_colours
from pointnet.points.formats.contents import blocks_of_rows
from pointnet.points.read import PointCloud, PointCloudFileError, Rows, check_drawing
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
from .judge import NO_NUMBERS
from .scenes import LabelledScene, label_blocks

CHUNK = 8192  # points that are scored together

Segmenter = PartLabels | SceneSegmenter
Label = Callable[[PointCloud, int], LabelledScene]  # from a cloud with z up, and a seed


@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """A model's label for each point of one cloud.

    Args:
        file: the file of the cloud; None for an array.
        points: (N, 3) float64, as in the file or the array, without those that are not finite, or zeros if there are
            several; of a mesh, the points drawn. From `label_each(mapped=True)`
            they may be `Rows`, which are still in the file.
        up: the up axis of the points, one of z, y, -y, x, -x and -z.
        labels: (N,) int64, indices into `names`.
        probability: (N,) float32, of that label.
        names: the names of the labels; the model's classes.
        numbers: of the labels in files, as the training set had them; () for 0, 1, 2 ...
        rows: (N,) integers, the row of each point among those of the array or the rows of numbers of the file, where
            some are left out; None: all, in order, or points drawn from a mesh.
        notes: short sentences: what of the file was guessed or left out; few points, points far from all others, and
            what else is unlike the objects of the training set, such as a floor below; and the categories of the
            labels, if the object's is not known; from `label_points`, that unlike inputs are not marked.
    """

    file: Path | None
    points: NDArray[np.float64]
    up: str
    labels: NDArray[np.int64]
    probability: NDArray[np.float32]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    rows: NDArray[np.integer] | Rows | None = None

    @property
    def shares(self) -> dict[str, float]:
        """The share of points with each label that occurs, by name, the largest first."""
        counts = np.bincount(self.labels, minlength=len(self.names)) / len(self.labels)
        return {self.names[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}

    def as_json(self) -> dict[str, Any]:
        """The object that `python -m pointnet predict --json` prints for it, without the name of the PLY."""
        return {
            "file": None if self.file is None else str(self.file),
            "points": len(self.points),
            "shares": self.shares,
            "mean_probability": float(self.probability.mean(dtype=np.float64)),
            "notes": [*self.notes],
        }

    def write_ply(self, path: AnyPath) -> None:
        """Writes points, colours by label, labels and their probabilities as a binary PLY, and creates the folder.

        Coordinates are as in the file, float if that is exact, else double; a comment says which axis is up, if not z,
        and `read_cloud` goes by it. Labels are `numbers`; comments name them, for sets of labelled files too. `row` is
        that of each point, where some were left out.

        Raises:
            OSError: the file cannot be written.
        """
        is_single = all((block == block.astype(np.float32)).all() for block in blocks_of_rows(self.points))
        numbers = np.array(self.numbers or range(len(self.names)), np.int64)
        header = [
            "ply",
            "format binary_little_endian 1.0",
            *comments.of_up(self.up),
            *comments.of_labels(numbers, self.names),
            f"element vertex {len(self.points)}",
            *(f"property {'float' if is_single else 'double'} {axis}" for axis in "xyz"),
            *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
            "property int label",
            "property float probability",
            *["property int row"] * (self.rows is not None),
            "end_header\n",
        ]
        coordinate = "<f4" if is_single else "<f8"
        fields = [("xyz", coordinate, 3), ("rgb", "u1", 3), ("label", "<i4"), ("probability", "<f4")]
        kind = np.dtype([*fields, *[("row", "<i4")] * (self.rows is not None)])

        def rows_of(points: Any, labels: NDArray[np.int64], probability: NDArray[np.float32], *row: Any) -> bytes:
            rows = np.empty(len(labels), kind)
            rows["xyz"], rows["rgb"], rows["label"] = points, label_colours(labels), numbers[labels]
            rows["probability"] = probability
            for each in row:
                rows["row"] = each
            return rows.tobytes()

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        columns = [self.points, self.labels, self.probability, *[self.rows] * (self.rows is not None)]
        blocks = map(rows_of, *map(blocks_of_rows, columns))
        write_atomically(path, chain(["\n".join(header).encode()], blocks))


def label_points(
    source: Sources,
    model: AnyPath | Segmenter | None = None,
    category: str | None = None,
    up: str | None = None,
    num_points: int | None = None,
    columns: str | Iterable[str] | None = None,
    vertices: bool = False,
) -> LabelledCloud | list[LabelledCloud]:
    """The labels of all points of a file or an array; a list for several, or for a folder.

    Args:
        source: a file of any format that `read_points` reads, a folder of them, or, for parts, an array (N, 3), with
            normals (N, 6), or with the channels that the model takes; or a list of files and arrays. A cloud may have
            any number of points; a mesh is sampled by area. A room of S3DIS must be in metres and have colours
            (`label_scene` takes arrays); another scan must have the channels and unit of the model's training. Rows of
            zeros are left out, if there are several, and so are rows that are not finite: `rows` says which are
            labelled.
        model: a run folder, the name of shipped weights, or a model from `load_model`; None for the shipped weights
            for parts.
        category: the category of the objects, one of `model.preprocessing["categories"]`; points get the labels of its
            parts only. None: unknown, and points get labels of any category, which are less certain; a network that
            always had the category in training (`--unknown_category 0`) refuses that.
        up: as in `predict`, without "auto".
        num_points: how many points of an object the network sees before it labels all, drawn with a seed made from
            the file's name, and how many are drawn from a mesh; None for 4,096, of a DGCNN for as many as in training.
            It sees all points of a smaller cloud, as in evaluation. Of a scene only how many are drawn from a mesh;
            None for 100,000.
        columns: the names of the columns of files that are tables, as in `read_cloud`; None: as in training.
        vertices: label the vertices of a mesh, in place of points drawn from its faces.

    Raises:
        PointCloudFileError: a file that cannot be read, or a room without colours, the first of several.
        ValueError: an array or an argument outside the values above, or no such model.
    """
    segmenter = cast(Segmenter, as_model(model, "part", "scene"))
    reading, notes = Reading(up, num_points, columns, vertices), notes_on(Contract.of(segmenter))
    return answers_of(
        source, lambda sources: label_each(sources, segmenter, reading, category), *notes, columns=columns
    )


def label_each(
    sources: Sequence[Source], model: Segmenter, reading: Reading, category: str | None = None, mapped: bool = False
) -> Iterator[LabelledCloud | PointCloudFileError]:
    """The labelled cloud of each source, in order, or the error of its file; one file is read at a time.

    Args:
        mapped: as `read_cloud` has it, for rooms.

    Raises:
        ValueError: an array or an argument that `label_points` refuses.
    """
    if not isinstance(model, Segmenter) or (isinstance(model, PartLabels) and has_own_forward(model)):
        raise ValueError(f"a {type(model).__name__} is of your own; files are labelled by the library's networks alone")
    num_points = reading.num_points
    check_drawing(num_points, reading.up)
    contract = Contract.of(model)
    usual = None if contract.familiar is None else Usual.from_json(contract.familiar)
    if isinstance(model, PartLabels):
        count, mapped = num_points or (contract.num_points if model.needs_density else KEPT), False
        label = _part_labels(model, contract, category, count)
    else:
        count = num_points or MESH_POINTS
        label = partial(label_blocks, model)
        if category is not None:
            raise ValueError(f"a room has no category, got '{category}'")
        if contract.channels == CHANNEL_NAMES and any(path_of(source) is None for source in sources):
            raise ValueError("arrays of a room, points and colours, are for pointnet.inference.scenes.label_scene")

    of_arrays = {"columns": contract.channels}

    def whole(cloud: PointCloud) -> str:
        if num_points is None or isinstance(model, PartLabels) or len(cloud.points) == num_points:
            return ""
        return f"all {len(cloud.points):,} points are labelled: num_points is for meshes"

    def labelled(source: Source) -> LabelledCloud | PointCloudFileError:
        path = path_of(source)
        axis = up_for(path, reading.up, contract)

        def answer(cloud: PointCloud, seed: int) -> LabelledCloud:
            turned = cloud.in_library_frame(axis)
            labels, probability = label(turned, seed)
            if wrong := int(np.isnan(probability).sum()):
                raise ValueError(f"{NO_NUMBERS} at {wrong:,} of {len(labels):,} points")
            doubts = unfit(cloud.points, contract) or (usual and _unusual(usual, turned, contract, seed))
            said = doubts, None if category else _guess(labels, model, contract.categories), whole(cloud)
            notes = *cloud.notes, *contract.notes_of(turned), *(note for note in said if note)
            notes += notes_on_source(source, reading, contract)
            how = axis, labels, probability, model.classes, notes, contract.label_numbers, cloud.rows
            return LabelledCloud(path, cloud.points, *how)

        # Not rotated on reading: the labelled points are as in the file.
        of_files = {"extras": contract.features, "mesh_points": count, "vertices": reading.vertices}
        of_files |= {"columns": columns_for(path, reading.columns, contract), "mapped": mapped and axis == "z"}
        return from_source(source, answer, of_files, of_arrays, up="z", precise=True)

    return map(labelled, sources)


def _part_labels(model: PartLabels, contract: Contract, category: str | None, count: int) -> Label:
    """A function that labels all points of an object, by what the network sees of `count` of them."""
    categories = contract.categories
    if category is not None:
        category = unicodedata.normalize("NFC", str(category))  # as the names of folders are spelled
        check_name("category", category, categories)
    elif contract.needs_category:
        raise ValueError(f"the model needs each object's category; give --category, one of {', '.join(categories)}")
    network, device = model.fold(), next(model.parameters()).device
    kind = None if category is None else torch.tensor([categories.index(category)], device=device)

    def label(cloud: PointCloud, seed: int) -> LabelledScene:
        size, rows_of = len(cloud.points), contract.channels_of(cloud)

        def channels(rows: slice | NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(rows_of(rows))[None].to(device)

        drawn = np.random.default_rng(seed).choice(size, count, replace=False) if size > count else slice(None)
        chunks = [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]
        labels, probability = np.empty(size, np.int64), np.empty(size, np.float32)
        scored = network.label_chunks(channels(drawn), map(channels, chunks), kind)
        for chunk, logits in zip(chunks, scored, strict=True):
            likeliest = (network.restrict(logits, kind)[0].float() / contract.temperature).softmax(0).max(0)
            labels[chunk], probability[chunk] = (each.cpu().numpy() for each in (likeliest.indices, likeliest.values))
        return LabelledScene(labels, probability)

    return label


def _unusual(usual: Usual, cloud: PointCloud, contract: Contract, seed: int) -> str:
    """What is unusual about the points of a cloud, z up; "" where that is nothing."""
    drawn = np.random.default_rng(seed).permutation(len(cloud.points))[: contract.num_points]
    return "; ".join(usual.reasons(torch.from_numpy(contract.channels_of(cloud)(drawn))[None])[0])


def _guess(labels: NDArray[np.int64], model: Segmenter, categories: Sequence[str]) -> str | None:
    """Of which categories the labels are, if there are several."""
    parts_of = getattr(model, "parts_of", None)
    if not parts_of or len(categories) < 2:
        return None
    counts = np.bincount(labels, minlength=len(model.classes)) / len(labels)
    shares = {name: float(counts[parts].sum()) for name, parts in zip(categories, parts_of, strict=True)}
    likely = [f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda each: -each[1]) if share]
    return f"category unknown: labels are of {', '.join(likely[:3])}"
