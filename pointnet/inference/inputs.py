"""What callers hand in: a model by its name or folder, and points as files, folders or arrays."""

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointnet.evaluation.contract import XYZ, Contract
from pointnet.evaluation.tasks import task_of
from pointnet.files import AnyPath
from pointnet.models import DEFAULTS, load_model, shipped
from pointnet.models.pretrained import Pretrained
from pointnet.models.weights import CONFIG_FILE
from pointnet.points.formats.names import places
from pointnet.points.formats.scan import quoted
from pointnet.points.frame import said_up, up_of
from pointnet.points.in_memory import came_as, cloud_of, rows_of, shown
from pointnet.points.read import (
    TABLES,
    PointCloud,
    PointCloudFileError,
    columns_of_table,
    files_in,
    named_by_hand,
    own_columns,
    passed_over,
    read_cloud,
)
from pointnet.points.sampling import seed_of

T = TypeVar("T")
Source = AnyPath | NDArray[Any] | Tensor
NOT_MARKED = "inputs unlike the training set are not marked: what is usual is not known"
Sources = Source | list[Any] | tuple[Any, ...]


class Reading(NamedTuple):
    """How files and arrays become clouds, as the arguments of `predict` say it; None: as in training."""

    up: str | None = None
    num_points: int | None = None
    columns: str | Iterable[str] | None = None
    vertices: bool = False


class ArrayError(ValueError):
    """An array that is no cloud, or that a network refuses; `answers_of` says which of a list."""

    def __init__(self, source: Any, reason: str):
        super().__init__(reason)
        self.source = source


def as_model(model: Any, *tasks: str) -> Any:
    """The model itself, the one of this name or folder, or for None the shipped one of the first task.

    Raises:
        ValueError: there is none, it was trained for another task than these, its classes are not named, or it is not
            float32.
    """
    name = "the model"
    if isinstance(model, nn.Module) and not isinstance(model, Pretrained):
        inside = getattr(model, "_orig_mod", getattr(model, "module", None))  # of torch.compile, of DataParallel
        known = "register_model makes it known, and load_model loads it"
        hint = "give the network inside it" if isinstance(inside, Pretrained) else known
        raise ValueError(f"a model of the class {type(model).__name__} is not known here; {hint}")
    if not isinstance(model, Pretrained):
        name = DEFAULTS.get(tasks[0], "") if model is None else name_of_model(model)
        if model is None and name not in shipped():
            wanted = "give --model, a run folder that train.py made"
            raise ValueError(f"no weights for the task {tasks[0]} are shipped with this version; {wanted}")
        model = load_model(name)
    if (task := task_of(model).name) not in tasks:
        raise ValueError(f"{name} is for the task {task}, not {' or '.join(tasks)}")
    if not model.classes:
        raise ValueError(f"{name} has no names for its {model.num_outputs} classes; train it, then set model.classes")
    named, outputs = len(model.classes), getattr(model, "num_outputs", None)  # a last layer of one's own may not say
    if outputs not in (named, None):
        raise ValueError(f"model.classes must name the {outputs} outputs of {name}, got {named} names")
    if named > len(set(model.classes)):
        raise ValueError(f"model.classes must be different names, got {', '.join(map(repr, model.classes))}")
    check_float32(model)
    return model


def name_of_model(model: Any) -> str:
    """The name or the folder that is given in place of a network. ValueError if it is neither."""
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        got = "an empty name" if isinstance(model, str) else type(model).__name__
        raise ValueError(f"the model must be a network, a run folder or the name of shipped weights, got {got}")
    return os.fspath(model)


def notes_on(contract: Contract) -> list[str]:
    """A note if inputs unlike those of training are not marked: an answer without another note then means less."""
    return [NOT_MARKED] if contract.familiar is None else []


def check_float32(model: nn.Module) -> None:
    """ValueError unless the weights are float32, as points of files and arrays become."""
    dtype = next(model.parameters()).dtype
    if dtype != torch.float32:
        raise ValueError(f"the model must be float32, got {dtype}; give model.float()")


def answers_of(
    source: Sources,
    answer_each: Callable[[Sequence[Source]], Iterable[Any | PointCloudFileError]],
    *notes: str,
    columns: str | Iterable[str] | None,
) -> Any:
    """The answer for a single source, or the list of answers for a list or a folder; raises the first error.

    Args:
        notes: added to those of each answer.
        columns: the names of files' columns by hand. ValueError if there are some, and no file.

    Raises:
        PointCloudFileError: the first of a file.
        ValueError: an array that is no cloud, with its place in a list.
    """
    several, sources = True, list[Any]()
    if isinstance(source, list | tuple):
        sources = [*source]
    elif isinstance(source, str | os.PathLike) and os.path.isdir(source):
        sources = [*find_files([os.fspath(source)])]
    else:
        several, sources = False, [source]
    if named_by_hand(columns) and all(path_of(each) is None for each in sources):
        raise ValueError("columns name those of files; of an array or a table x, y and z come first, or it names them")
    answers = []
    try:
        for answer in answer_each(sources):
            if isinstance(answer, PointCloudFileError):
                raise answer
            answers.append(replace(answer, notes=(*answer.notes, *notes)) if notes else answer)
    except ArrayError as error:
        place = next(i for i, each in enumerate(sources) if each is error.source)
        where = f"array at [{place}] of the list: " if several else ""
        raise ValueError(f"{where}{error}") from error.__cause__
    return answers if several else answers[0]


def find_files(words: Sequence[str]) -> list[Path]:
    """The files that words of the command line name, each once: files, folders (their readable files), and patterns.

    Raises:
        ValueError: an empty word, a folder without a file of points, or a pattern without a match.
    """
    files: dict[Path, None] = {}
    for word in words:
        if not word:
            raise ValueError("a file's name must not be empty")
        matches = _matches(word)
        found = [file for match in matches for file in files_in(Path(match))]
        if not found:
            over = [line for match in matches if os.path.isdir(match) for line in passed_over(Path(match))]
            run = [f"it holds a model: --model {word}"] * os.path.isfile(os.path.join(word, CONFIG_FILE))
            empty = "; ".join([f"{word}: holds no file of points", *(run or over)])
            raise ValueError(empty if matches else f"{word}: matches no file")
        files |= dict.fromkeys(found)
    return list(files)


def lines_of_folders(words: Sequence[str]) -> list[str]:
    """Lines about the files that were passed over in the folders among what words of the command line name."""
    folders = {Path(match): None for word in words for match in _matches(word) if os.path.isdir(match)}
    outer = [folder for folder in folders if folders.keys().isdisjoint(folder.parents)]
    return [f"{folder}: {line}" for folder in outer for line in passed_over(folder)]


def _matches(word: str) -> list[str]:
    if not glob.has_magic(word) or os.path.exists(word):
        return [word]
    in_names = word.replace("[", "[[]")  # brackets that belong to a name
    return sorted(glob.glob(word, recursive=True) or glob.glob(in_names, recursive=True))


def path_of(source: Source) -> Path | None:
    """The file of a source; None for an array."""
    return Path(source) if isinstance(source, str | os.PathLike) else None


def up_for(path: Path | None, up: str | None, contract: Contract) -> str:
    """The up axis of a source: as it is given, or of a file as in training, or as its format says; z of an array."""
    return (up or "z") if path is None else up_of(path, up or contract.up)


def notes_on_source(source: Source, reading: Reading, contract: Contract) -> tuple[str, ...]:
    """Notes on a source that is not read as the files of training were, or not as it says itself, where nobody says
    how: which axis is up, and which columns are x, y and z."""
    if (path := path_of(source)) is not None:
        return _notes_on_file(path, reading, contract)
    axis, columns = contract.up or "z", contract.columns.split(",")
    said = []
    if reading.up is None and axis != "z":
        said += [f'taken with z up, as arrays are; the files of training had {axis} up: up="{axis}"']
    fields = getattr(getattr(source, "dtype", None), "names", None)
    has_names = isinstance(source, Mapping) or hasattr(source, "columns") or fields
    if contract.columns and tuple(columns[:3]) != XYZ and not has_names:
        said += [f"columns taken as {', '.join(contract.channels)}; the tables of training had {contract.columns}"]
    return tuple(said)


def _notes_on_file(path: Path, reading: Reading, contract: Contract) -> tuple[str, ...]:
    said, taught = [], named_by_hand(contract.columns)
    its = said_up(path) if reading.up is None and contract.up else None
    if its not in (None, contract.up):
        said += [f"taken with {contract.up} up, as the files of training were; it says {its} itself: --up {its}"]
    own = own_columns(path)[0] if taught and not named_by_hand(reading.columns) else []
    if own and places(own, ()) != places(taught, ()):
        named = quoted(",".join(own))
        said += [f"columns taken as it names them, {named}; the tables of training had {contract.columns}"]
    return tuple(said)


def columns_for(path: Path | None, columns: str | Iterable[str] | None, contract: Contract) -> tuple[str, ...]:
    """The names of a file's columns by hand, as in `read_cloud`; None: those of training, if a table has no names, or
    the first of them, x, y and z among these, if it has fewer columns: it may lack labels."""
    if (by_hand := named_by_hand(columns)) or path is None:
        return by_hand
    taught = tuple(columns_of_table(path, named_by_hand(contract.columns), TABLES))
    first = taught[: own_columns(path)[1]] if taught else ()
    return first if places(first, ()) else taught


def from_source(
    source: Source,
    use: Callable[[PointCloud, int], T],
    of_files: Mapping[str, Any],
    of_arrays: Mapping[str, Any],
    **drawing: Any,
) -> T | PointCloudFileError:
    """What `use` makes of a source's cloud and seed (made from the file's name; 0 for an array), or a file's error.

    Args:
        use: raises ValueError with a reason if it refuses the cloud.
        of_files, of_arrays: arguments of `read_cloud` and of `cloud_of`.
        drawing: arguments of both.

    Raises:
        ArrayError: an array that is no cloud, or that `use` refuses.
    """
    path = path_of(source)
    if path is None:
        what = ""
        try:
            rows = rows_of(source)
            cloud = cloud_of(rows, **of_arrays, **drawing, came_as=came_as(source))
            what = f"points {shown(rows)}: "
            return use(cloud, 0)
        except ValueError as error:
            raise ArrayError(source, f"{what}{error}") from error
    seed = seed_of(path.name)
    try:
        return use(read_cloud(path, seed=seed, **of_files, **drawing), seed)
    except PointCloudFileError as error:
        return error
    except ValueError as error:
        return PointCloudFileError(path, str(error))
