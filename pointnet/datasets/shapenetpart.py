"""ShapeNet's part annotations (Yi et al., *A Scalable Active Framework for Region Annotation*, SIGGRAPH Asia 2016)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.files import AnyPath, read_file
from pointnet.points.formats.scan import quoted
from pointnet.points.frame import check_up, in_unit_sphere, rotated_to_z_up
from pointnet.points.read import PointCloudFileError, checked_labels, errors_name, read_hdf5, read_table
from pointnet.points.sampling import seed_of, unit_or_zero

from . import releases
from .cache import cached_clouds
from .clouds import UNIT_SPHERE, LabelledPoints
from .given import check_num_points, check_one_of
from .point_labels import draw_labelled

# Folder, category and parts in the order of the published labels: 16 categories, 50 parts. The release numbers the
# parts and does not name them; these are the names in common use.
SHAPENETPART = {
    "02691156": ("Airplane", ("body", "wing", "tail", "engine")),
    "02773838": ("Bag", ("handle", "body")),
    "02954340": ("Cap", ("crown", "peak")),
    "02958343": ("Car", ("roof", "hood", "wheel", "body")),
    "03001627": ("Chair", ("back", "seat", "leg", "arm")),
    "03261776": ("Earphone", ("earcup", "headband", "wire")),
    "03467517": ("Guitar", ("head", "neck", "body")),
    "03624134": ("Knife", ("blade", "handle")),
    "03636649": ("Lamp", ("base", "shade", "canopy", "pole")),
    "03642806": ("Laptop", ("keyboard", "screen")),
    "03790512": ("Motorbike", ("gas tank", "seat", "wheel", "handle", "light", "frame")),
    "03797390": ("Mug", ("handle", "body")),
    "03948459": ("Pistol", ("barrel", "handle", "trigger")),
    "04099429": ("Rocket", ("body", "fin", "nose")),
    "04225987": ("Skateboard", ("wheel", "deck", "belt")),
    "04379243": ("Table", ("top", "leg", "drawer")),
}
SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
KEPT = 3000  # points of each shape, as in the authors' evaluation; none of their shapes has more
MOST_PARTS = 10_000
OLDER = ".pts"  # suffix of the points in the older layout, whose parts are in a file of their own
PUBLISHED = {folder: category for folder, (category, _) in SHAPENETPART.items()}
Part = tuple[str, str, int]  # category, name, label
_named = ((category, part) for category, parts in SHAPENETPART.values() for part in parts)
PUBLISHED_PARTS: list[Part] = [(category, part, label) for label, (category, part) in enumerate(_named)]
CATEGORIES = "synsetoffset2category.txt"  # which folder is which category


class ShapeNetPart(LabelledPoints):
    """ShapeNet's part annotations, or a set of one's own in their layout: `data[i]` -> ((C, N), (N,), int).

    The points (float32), the part of each (int64, an index into `data.part_names`, such as "Airplane/wing") and the
    category (an index into `data.classes`). `data.parts_of` (categories, parts) says which parts a category may have,
    `data.validation` (S,) bool which shapes are of the split "val".

    Args:
        root: the set's own folder, or the folder that holds it.
        split: "train", "val" or "test", as released, or "trainval", both, where `split_validation` holds "val" out.
        num_points: N, the first points of each shape.
        form: "text", `shapenetcore_partanno_segmentation_benchmark_v0_normal`: all points of each shape, with normals;
            read once and cached (a row may also have 4 numbers, x y z part); or the older
            `shapenetcore_partanno_segmentation_benchmark_v0`, without normals: `points/*.pts`, and the parts, counted
            from 1 in each category, in `points_label/*.seg`; categories of one's own then need parts.json, whose labels
            of a category, in order, are those of its parts. "hdf5", `hdf5_data` of PointNet's part_seg: 2,048 points of
            each. None finds one, in that order.
        up: the files' up axis, as in `read_cloud`; None: y, as in both releases.
        normals: adds three channels, the normals; only the text of `..._normal` has them.

    A shape of the text is centred and scaled to the unit sphere over all of its points, as in the released code; the
    HDF5 files are scaled already. All points of a shape are kept (up to 3,000, or N if that is more), in random order,
    and repeated where there are fewer; of HDF5 all 2,048. So training can draw from them afresh, and evaluation can
    count each of them once (`split_parts`), as the released evaluation does.

    If every folder in synsetoffset2category.txt (HDF5: all_object_categories.txt) is one of the published 16, the
    categories and parts are the published 16 and 50, in their order. Else the categories are those of that file. The
    parts are then those of parts.json, `{category: {part: label}}`, or without it the labels that occur (HDF5: those
    of catid_partid_to_overallid.json).

    Raises:
        PointCloudFileError: `root` holds nothing of the set, or a file of it is missing, damaged, or not as above.
        ValueError: an argument has none of the values above.
    """

    scale = UNIT_SPHERE

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        num_points: int = 2048,
        *,
        form: str | None = None,
        up: str | None = None,
        normals: bool = False,
    ):
        check_one_of("split", split, tuple(SPLITS))
        check_up(up)
        check_num_points(num_points)
        folder, read = releases.find_release("ShapeNetPart", root, FORMS, form)
        release: Release = read(folder, SPLITS[split], num_points, up or "y", normals)
        points, names, validation, rows, categories, parts = release
        if not rows:
            raise PointCloudFileError(folder, f"its {split} split holds no shape")
        part_names = {label: f"{category}/{part}" for category, part, label in reversed(parts)}
        parts_of = torch.zeros(len(categories), 1 + max(part_names), dtype=torch.bool)
        for category, _, label in parts:
            parts_of[categories.index(category), label] = True
        in_order = [part_names.get(label, str(label)) for label in range(parts_of.shape[1])]
        labels = torch.tensor([categories.index(name) for name in names])
        super().__init__(torch.from_numpy(points), labels, categories, in_order, parts_of, num_points)
        self.up = up or "y"
        self.validation = torch.tensor(validation)
        self.keep(torch.tensor(rows))


# Of one form: shapes (S, C + 1, K), the category of each, whether it is in "val", which rows are in the split, the
# categories, and the parts.
Release = tuple[NDArray[np.float32], list[str], list[bool], list[int], list[str], list[Part]]


def _read_text(folder: Path, splits: Sequence[str], num_points: int, up: str, normals: bool) -> Release:
    """All listed shapes as one array, whichever split is asked for, so that all splits have the same parts."""
    folders, categories = _read_categories(folder / CATEGORIES)
    listed = {split: _read_listing(folder, split, folders, split in splits) for split in ("train", "val", "test")}
    files = list(dict.fromkeys(file for part in listed.values() for file in part))
    releases.check_files_exist(files)
    older, own = [file for file in files if file.suffix == OLDER], folder / "parts.json"
    if older and normals:
        raise PointCloudFileError(older[0], f"has no normals; {FORMS['text'].names[0]} has them")
    has_parts = older or own.is_file()
    parts = PUBLISHED_PARTS if categories is PUBLISHED else _read_parts(own, folders) if has_parts else []
    num_parts = 1 + max((label for _, _, label in parts), default=MOST_PARTS - 1)
    shape = (7 if normals else 4, max(num_points, KEPT))
    own_labels = {key: sorted({part[2] for part in parts if part[0] == name}) for key, name in categories.items()}
    sampler = partial(_read_shape, count=shape[1], num_parts=num_parts, own_labels=own_labels, up=up, normals=normals)
    settings = f"parts below {num_parts}, up={up}, version 2{_status(older, own_labels)}"
    cached = cached_clouds(files, sampler, shape, settings, folder).strict()
    labels = [categories[_folder_of(file)] for file in files]
    row_of = {file: row for row, file in enumerate(files)}
    rows = [row_of[file] for split in splits for file in listed[split]]
    val = set(listed["val"])
    if not parts:  # those that occur
        met = {(labels[row], int(part)) for row in range(len(labels)) for part in np.unique(cached.points[row, -1])}
        parts = [(category, str(part), part) for category, part in sorted(met) if part >= 0]
    return cached.points, labels, [file in val for file in files], rows, list(categories.values()), parts


def _read_shape(
    path: Path, count: int, num_parts: int, own_labels: Mapping[str, Sequence[int]], up: str, normals: bool
) -> NDArray[np.float32]:
    """One file of rows x y z nx ny nz part or x y z part, centred and in the unit sphere: (4 or 7, count)."""
    is_older = path.suffix == OLDER
    rows = _older_rows(path, own_labels[_folder_of(path)]) if is_older else read_table(path, (7, 4))
    rows = rows.astype(np.float64, copy=False)
    releases.check_finite(path, "row", rows, first=1)
    labels = checked_labels(path, "parts", rows[:, -1], num_parts)
    if normals and rows.shape[1] == 4:
        raise PointCloudFileError(path, "has no normals: 4 numbers a row")
    with errors_name(path):
        points = in_unit_sphere(rows[:, :3])
    channels = np.hstack([points, unit_or_zero(rows[:, 3:6])]) if normals else points
    channels = channels.astype(np.float32)
    if up:
        channels = rotated_to_z_up(channels, up)
    return draw_labelled(channels, labels, count, np.random.default_rng(seed_of(path.name)))


def _older_rows(path: Path, own_labels: Sequence[int]) -> NDArray[Any]:
    """The rows of a shape of the older layout, x y z 0 0 0 part; in the file its parts count from 1, in this order."""
    points, parts = read_table(path, 3), read_table(_parts_of(path), 1)
    if len(points) != len(parts):
        raise PointCloudFileError(path, f"must have a part for each point, got {len(parts)} for {len(points)}")
    counted = checked_labels(path, f"parts in {_parts_of(path).name}", parts, len(own_labels), first=1)
    return np.hstack([points, np.zeros_like(points), np.array(own_labels)[counted - 1]])


def _parts_of(file: Path) -> Path:
    """The file that holds the parts of a shape of the older layout."""
    return file.parents[1] / "points_label" / f"{file.stem}.seg"


def _status(older: Sequence[Path], own_labels: Mapping[str, Sequence[int]]) -> str:
    """What changes when a file with parts, or what they mean, does: the cache knows the files with points."""
    files = [_parts_of(file) for file in older]
    releases.check_files_exist(files)
    status = repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files] + [own_labels])
    return f", {hashlib.sha256(status.encode()).hexdigest()}" if files else ""


def _folder_of(file: Path) -> str:
    """The name of a shape's category folder."""
    return (file.parents[1] if file.suffix == OLDER else file.parent).name


def _read_hdf5_data(folder: Path, splits: Sequence[str], num_points: int, up: str, normals: bool) -> Release:
    folders, categories = _read_categories(folder / "all_object_categories.txt")
    names = [categories[name] for name in folders]
    own = next(iter(sorted(folder.glob("catid_partid_to_overall*.json"))), folder / "catid_partid_to_overallid.json")
    parts = PUBLISHED_PARTS if categories is PUBLISHED else _read_parts(own, folders)
    num_parts = 1 + max(label for _, _, label in parts)
    clouds: list[NDArray[np.float32]] = []
    labels: list[str] = []
    validation: list[bool] = []
    for split in splits:
        for path in releases.listed_files(folder / f"{split}_hdf5_file_list.txt", f"ply_data_{split}*.h5"):
            points, of_category = releases.read_labelled_hdf5(path, len(names), num_points, normals, whole=True)
            if clouds and clouds[0].shape[2] != points.shape[1]:
                wanted = f"{clouds[0].shape[2]} points per shape, as the others have"
                raise PointCloudFileError(path, f"must have {wanted}, got {points.shape[1]}")
            ids = checked_labels(path, "'pid'", read_hdf5(path, {"pid": points.shape[:2]})[0], num_parts)
            clouds.append(np.concatenate([releases.to_channels(points, up), ids[:, None]], 1, dtype=np.float32))
            labels += [names[category] for category in of_category]
            validation += [split == "val"] * len(points)
    rows = list(range(len(labels)))
    return np.concatenate(clouds), labels, validation, rows, list(categories.values()), parts


def _read_categories(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The folders and names of the categories, in the order of the file, and those of the set: these or the 16."""
    categories: dict[str, str] = {}
    for line in releases.read_lines(path):
        *words, folder = line.split()
        name = " ".join(words)
        if not words or not releases.is_plain_name(folder) or folder in categories or name in categories.values():
            reason = "each line must name a category and its folder, neither of them twice"
            raise PointCloudFileError(path, f"{reason}, got {quoted(line)}")
        categories[folder] = name
    if not categories:
        raise PointCloudFileError(path, "names no category")
    return categories, PUBLISHED if categories.keys() <= PUBLISHED.keys() else categories


def _read_listing(folder: Path, split: str, folders: Mapping[str, str], needed: bool) -> list[Path]:
    """The files of a split in those categories; none if there is no list and none is needed."""
    path = folder / "train_test_split" / f"shuffled_{split}_file_list.json"
    if not needed and not path.is_file():
        return []
    names = _read_json(path)
    if not isinstance(names, list):
        raise PointCloudFileError(path, "must be a list of shapes")
    files = []
    for name in names:
        *_, category, shape = ("", "", *name.split("/")) if isinstance(name, str) else ("", "")
        if not releases.is_plain_name(category) or not releases.is_plain_name(shape):
            raise PointCloudFileError(path, f"must list 'shape_data/<folder>/<shape>', got {quoted(str(name))}")
        if category in folders:
            within = folder / category
            older = within / "points" / f"{shape}{OLDER}"
            files.append(older if (within / "points").is_dir() else within / f"{shape}.txt")
    return files


def _read_parts(path: Path, folders: Mapping[str, str]) -> list[Part]:
    """The parts, of `{category: {part: label}}` or `{"<folder>_<part>": label}`, of the categories in `folders`."""
    held = _read_json(path)
    if not isinstance(held, dict):
        raise PointCloudFileError(path, "must hold the parts of each category and their labels")
    parts: list[tuple[str, str, object]] = []
    for key, value in held.items():
        if isinstance(value, dict):
            parts += [(key, part, label) for part, label in value.items()]
        else:
            category, _, part = key.rpartition("_")
            parts.append((folders.get(category, category), part, value))
    checked: list[Part] = []
    for category, part, label in parts:
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < MOST_PARTS:
            wanted = f"labels must be whole numbers from 0 to {MOST_PARTS - 1}"
            raise PointCloudFileError(path, f"{wanted}, got {quoted(str(label))} for {quoted(part)}")
        if category in folders.values():
            checked.append((category, part, label))
    if missing := set(folders.values()) - {category for category, _, _ in checked}:
        raise PointCloudFileError(path, f"names no part of {quoted(min(missing))}")
    return checked


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise PointCloudFileError(path, f"cannot be read: {error}") from error


# In the order they are looked for.
FORMS = {
    "text": releases.Form(
        ("shapenetcore_partanno_segmentation_benchmark_v0_normal", "shapenetcore_partanno_segmentation_benchmark_v0"),
        (CATEGORIES, "train_test_split"),
        _read_text,
    ),
    "hdf5": releases.Form(
        ("hdf5_data", "shapenet_part_seg_hdf5_data"), ("all_object_categories.txt", "ply_data_*.h5"), _read_hdf5_data
    ),
}
