"""Data sets by name."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from pointnet.files import AnyPath, name_in
from pointnet.names import check_name, printable, say
from pointnet.points.features import WORDS, Range, feature_names
from pointnet.points.read import DatasetNotFoundError

from . import modelnet, s3dis, scanobjectnn, shapenetpart
from .clouds import LabelledClouds
from .download import ARCHIVES
from .download import download as fetch
from .folder import MeshFolder
from .given import check_one_of
from .modelnet import ModelNet
from .own_layout import first_own_file
from .own_parts import PartFolder
from .own_scenes import SceneFolder
from .packed import open_packed
from .s3dis import S3DIS
from .scanobjectnn import ScanObjectNN
from .shapenetpart import ShapeNetPart
from .shapes import FOLDER, Shapes, is_made, shape_parts
from .shards import INDEX


def _shapenetpart(
    root: AnyPath, split: str, num_points: int, normals: bool = False, up: str | None = None
) -> ShapeNetPart:
    """ "train" is all that is not for testing, as training wants it; `split_validation` holds "val" out."""
    return ShapeNetPart(root, "trainval" if split == "train" else split, num_points, normals=normals, up=up)


DATASETS_OF: dict[str, dict[str, Callable[..., LabelledClouds]]] = {
    "classification": {
        "shapes": Shapes,
        "modelnet40": partial(ModelNet, num_classes=40),
        "modelnet10": partial(ModelNet, num_classes=10),
        "scanobjectnn": ScanObjectNN,
        "scanobjectnn_obj_bg": partial(ScanObjectNN, variant="objects"),
        "scanobjectnn_obj_only": partial(ScanObjectNN, variant="objects", background=False),
        "folder": MeshFolder,
    },
    "part": {"shapes": shape_parts, "shapenetpart": _shapenetpart, "parts": PartFolder},
    "scene": {
        "s3dis": S3DIS,
        **{f"s3dis_area{i}": partial(S3DIS, area=f"Area_{i}") for i in range(1, 7)},
        "scenes": SceneFolder,
    },
}
for _task, _sets in DATASETS_OF.items():
    _sets["packed"] = partial(open_packed, task=_task)
"""The data sets of each task, by name. Each takes root, split and num_points, and some normals or strict."""

OWN_FILES = ("folder", "parts", "scenes")  # whatever files lie in the root
HOME = Path("data")  # the default root, where sets of all kinds are side by side
_forms = (form for module in (modelnet, s3dis, scanobjectnn, shapenetpart) for form in module.FORMS.values())
RELEASED = frozenset(name for form in _forms for name in form.names)  # folders

# What --download fetches. ModelNet10 is read from the same HDF5 release as ModelNet40.
DOWNLOADS = {"modelnet40": ARCHIVES["modelnet40"], "modelnet10": ARCHIVES["modelnet40"]}


LIBRARYS = frozenset(name for names in DATASETS_OF.values() for name in names)


def register_dataset(name: str, open_split: Callable[..., LabelledClouds], task: str = "classification") -> None:
    """Makes a data set of one's own known to `--dataset NAME` of the task, in the process that registers it.

    `open_split(root=..., split="train" or "test", num_points=...)` opens a split, as `LabelledClouds`, or for a task
    that labels points as `LabelledPoints`. It may also take `normals`, `features`, `columns`, `up`, `strict`,
    `intensity` and `block`, which are those of `open_dataset`; flags of what it does not take are refused, but for
    `--strict`.

    Raises:
        ValueError: no such task, not such a function, or a name that the library uses itself.
    """
    check_name("task", task, DATASETS_OF)
    if name in LIBRARYS:
        raise ValueError(f"there is a data set '{name}' already; choose another name")
    if not callable(open_split):
        raise ValueError(f"the data set '{name}' must be opened by a function, got {open_split!r}")
    if missing := {"root", "split", "num_points"} - set(signature(open_split).parameters):
        raise ValueError(f"what opens the data set '{name}' must take {', '.join(sorted(missing))}")
    DATASETS_OF[task][name] = open_split


def open_dataset(
    name: str,
    root: AnyPath,
    split: str,
    num_points: int,
    normals: bool = False,
    strict: bool = False,
    download: bool = False,
    task: str = "classification",
    columns: str = "",
    up: str = "",
    features: str | Sequence[str] = "",
    intensity: Range | None = None,
    block: float = 1.0,
    workers: int = 1,
    cache_gb: float = 50.0,
) -> LabelledClouds:
    """One split of a data set in `DATASETS_OF[task]`; `LabelledPoints` for the tasks "part" and "scene".

    Args:
        normals: adds three channels, the normals, as "normals" in `features` does.
        strict: a file that cannot be read is an error; else a set of many files lists it in `.bad`.
        download: download the set if it is not found and offered.
        columns: the names of the columns of files that are tables, as in `read_cloud`; for folder, parts and scenes.
        up: the up axis of its files, as in `read_cloud`; "": that of the data set or the file format.
        features: channels beside x y z: of "normals", "rgb" and "intensity", as a list or joined by commas; all for
            folder, parts and scenes, normals for some others. S3DIS has nine channels of its own, and takes none.
        intensity: what becomes 0 and 1 of it; None: by the training split.
        block: the side of the blocks of the data set scenes, in the unit of its files.
        workers, cache_gb: of `open_packed`.

    Raises:
        PointCloudFileError: the set is missing (and not to be downloaded) or damaged; or it is shapes, and would be
            made among files of one's own.
        DownloadError, MissingExtraError: the download fails.
        ValueError: the set lacks these features or is not for this task, or there is no such task.
    """
    check_one_of("task", task, tuple(DATASETS_OF))
    check_dataset(name, task)
    options = {"strict": strict, "columns": columns, "up": up or None, "intensity": intensity, "block": block}
    options |= {"workers": workers, "cache_gb": cache_gb}
    chosen = _chosen(name, task, options, feature_names(features, normals))
    open_split = partial(DATASETS_OF[task][name], root=root, split=split, num_points=num_points, **chosen)
    archive = DOWNLOADS.get(name)
    try:
        if name == "shapes":
            _check_place(Path(root))
        return open_split()
    except DatasetNotFoundError as error:
        if archive is None or not download:
            hint = f"; --download fetches it ({archive.size_text})" if archive else ""
            hint += "" if name in (*OWN_FILES, "packed") else _other_set(Path(root), task)
            raise DatasetNotFoundError(error.path, f"{error.reason}{hint}") from error
    parent = Path(root).parent if Path(root).name == archive.folder else Path(root)
    folder = fetch(archive, parent, log=partial(say, file=sys.stderr))  # a command may print its result alone
    try:
        return open_split()
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(folder, "is not the whole set; remove it, and --download fetches it anew") from error


def _check_place(root: Path) -> None:
    """Raises DatasetNotFoundError where the data set shapes would be made among files of one's own."""
    if _is_home(root) or any(map(is_made, root.glob(f"{FOLDER}/*"))):
        return
    if first_own_file(root, RELEASED):
        raise DatasetNotFoundError(root, "holds other files, so that the data set shapes is not made here")


def _other_set(root: Path, task: str) -> str:
    """Which data set reads the files in a root that was named by hand; empty where it holds none of one's own."""
    file = None if _is_home(root) else first_own_file(root, RELEASED)
    if file is None:
        return ""
    name = printable(name_in(file, root))
    if any(root.glob(f"*/{INDEX}")):
        return "; --dataset packed reads the packed set in it"
    if task == "part" and (root / shapenetpart.CATEGORIES).is_file():
        return "; --dataset shapenetpart reads the set in it"
    its = next(name for name in OWN_FILES if name in DATASETS_OF[task])
    if its == "folder" and file.parent == root:
        return f"; --dataset folder reads files such as {name} from a folder for each class"
    return f"; --dataset {its} reads files such as {name}"


def _is_home(root: Path) -> bool:
    return root.resolve() == HOME.resolve()


def _chosen(name: str, task: str, options: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """Those of the options that a data set has, and its features; ValueError where one is wanted that it has not."""
    known = signature(DATASETS_OF[task][name]).parameters
    if "features" not in known and (missing := [each for each in features if each not in known]):
        own = " to choose: its nine channels are its own" if name.startswith("s3dis") else ""
        raise ValueError(f"the data set {name} has no {WORDS[missing[0]]}{own}")
    if options["columns"] and "columns" not in known:
        raise ValueError(f"the data set {name} has columns of its own; --columns is for folder, parts and scenes")
    if options["up"] and "up" not in known:
        raise ValueError(f"the up axis of the data set {name} is known; leave out --up")
    if options["block"] != 1 and "block" not in known:
        wanted = f"{options['block']:g}, which --block or the network asks for"
        raise ValueError(f"the data set {name} is not cut into blocks of {wanted}")
    options |= {"features": features} if "features" in known else {"normals": "normals" in features}
    return {option: value for option, value in options.items() if option in known}


def check_dataset(name: str, task: str) -> None:
    """Raises ValueError unless the task has a data set of this name."""
    tasks = [each for each, known in DATASETS_OF.items() if name in known]
    if tasks and task not in tasks:
        known = f"the data set {name} is not for the task {task}, only {', '.join(DATASETS_OF[task])}"
        raise ValueError(f"{known}; it is for the task {' or '.join(tasks)}")
    check_name("dataset", name, DATASETS_OF[task])
