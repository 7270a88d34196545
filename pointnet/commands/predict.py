"""`python -m pointnet predict`: the class of each file, or the labels of its points as a PLY and a page."""

import errno
import sys
import textwrap
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from pointnet.devices import autocast, find_device, lines_on_precision, use_threads
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.tasks import TASKS, task_of
from pointnet.files import check_apart, replacing, strict_json
from pointnet.inference.inputs import Reading, as_model, find_files, lines_of_folders, notes_on
from pointnet.inference.judge import AUTO
from pointnet.inference.label import Segmenter, label_each
from pointnet.inference.predict import predict_each
from pointnet.models import DEFAULTS, PointNetClassifier, PointNetModel
from pointnet.names import check_name, printable, say, short_names
from pointnet.pages.viewer import MOST_CLOUDS, View, file_view, write_page
from pointnet.points.read import PointCloud, PointCloudFileError

from .program import one_line

FOLDER = "labels"  # of the PLY files and the page
MOST_SHARES = 8  # labels that the line of a file shows
WIDTH = 79  # of lines that are no tables
# The flags that not every task has.
ONLY_FOR = {"category": ("part",), "votes": ("classification",), "top": ("classification",)}


class Line(NamedTuple):
    """A line to print; with --json the object of its file is printed in its place, if there is one."""

    text: str
    as_json: dict[str, Any] | None = None
    beside_json: bool = False  # with --json it is printed on stderr; other lines are then not printed


Lines = Iterator[Line | PointCloudFileError]  # with the errors of files


def run(flags: Namespace) -> int:
    """Prints a line for each file; one that cannot be read is a line on stderr, and makes the exit code 1."""
    if flags.task is not None:
        check_name("task", flags.task, TASKS)
    if flags.top is not None and flags.top < 1:
        raise ValueError(f"top must be at least 1, got {flags.top}")
    device, threads = find_device(flags.device), use_threads(flags.threads)
    files, model = find_files(flags.files), as_model(flags.model, *([flags.task] if flags.task else TASKS))
    task = task_of(model).name
    for flag, tasks in ONLY_FOR.items():
        if getattr(flags, flag) is not None and task not in tasks:
            raise ValueError(f"--{flag} is for the task {' or '.join(tasks)}, not {task}")
    for line in [*lines_of_folders(flags.files), *lines_on_precision(device, flags.precision)]:
        say(printable(line), sys.stderr)
    answer = classified if task == "classification" else labelled
    with autocast(device, flags.precision):
        code, answers = say_all(answer(flags, files, model.to(device), threads), flags.json)
    if flags.json:
        say(strict_json(answers, 2))
    return code


def say_all(lines: Lines, as_json: bool) -> tuple[int, list[dict[str, Any]]]:
    """Prints the lines, or, `as_json`, those that go beside the objects: -> the exit code, and the objects."""
    code, answers = 0, []
    for found in lines:
        if isinstance(found, PointCloudFileError):
            code = 1
            say(printable(str(found)), sys.stderr)
        elif not as_json:
            say(printable(found.text))
        elif found.as_json is not None:
            answers.append(found.as_json)
        elif found.beside_json:
            say(printable(found.text), sys.stderr)
    return code, answers


def reading_of(flags: Namespace) -> Reading:
    return Reading(flags.up, flags.num_points, flags.columns, flags.vertices)


def classified(flags: Namespace, files: Sequence[Path], model: PointNetModel, threads: str) -> Lines:
    """What the model expects, then the class of each file, then the page if it is asked for."""
    votes = 1 if flags.votes is None else flags.votes
    predictions = predict_each(files, cast(PointNetClassifier, model), reading_of(flags), votes)
    name, contract = flags.model or DEFAULTS["classification"], Contract.of(model)
    up, columns = None if flags.up == AUTO else flags.up or contract.up, flags.columns or contract.columns
    as_taken = replace(contract, up=up, columns=columns)
    expected = f"{flags.num_points or contract.num_points:,} points of each file, {as_taken}"
    calibrated = "" if contract.is_calibrated else "not "
    known = f"{name}: {len(model.classes)} classes; takes {expected}; probabilities {calibrated}calibrated"
    yield from opening(f"{known}; {threads}", contract)
    views, count, surer = list[View](), 0, Counter[str | None]()
    file_width, class_width = max(len(str(file)) for file in files), max(map(len, model.classes))
    for shown, each in zip(short_names(files), predictions, strict=True):
        if isinstance(each, PointCloudFileError):
            yield each
            continue
        (found, points), count = each, count + 1
        (first, share), *others = found.most_probable(flags.top or 2)
        then = f", then {', '.join(f'{other} {less:.1%}' for other, less in others)}" if others else ""
        unsure = "" if found.sure else "   unsure"
        text = f"{found.file!s:{file_width}}  {first:{class_width}} {share:6.1%}{then}{unsure}"
        yield Line(text, found.as_json(flags.top))
        yield from (Line(f"    {note}") for note in found.notes)
        surer[found.surer_up] += 1
        if flags.out and len(views) < MOST_CLOUDS:
            notes = [*([then.removeprefix(", ")] if then else []), *found.notes]
            view = file_view(shown, PointCloud(points, None, None, None), notes=notes)
            views.append(view._replace(answer=f"{first} {share:.1%}", sure=found.sure))
    axis, often = surer.most_common(1)[0] if surer else (None, 0)
    if axis is not None and 2 * often > count > 1:
        yield Line(f"{often} of {count} clouds would be more like training with {axis} up: --up {axis}")
    yield from page_of(Path(flags.out or FOLDER) / "classes.html", views, count, known)


def labelled(flags: Namespace, files: Sequence[Path], model: PointNetModel, threads: str) -> Lines:
    """What the model labels, then the labels of each file, which are written as a PLY, then the page."""
    task, out, views, count = task_of(model).name, Path(flags.out or FOLDER), list[View](), 0
    if out.is_file():
        raise ValueError(f"{out}: is a file; --out must name a folder")
    clouds = label_each(files, cast(Segmenter, model), reading_of(flags), flags.category, mapped=True)
    width, kind, names = max(len(str(file)) for file in files), "parts" if task == "part" else task, short_names(files)
    written = [out / f"{name}.{kind}.ply" for name in names]
    check_apart(written, files)
    classes, contract = len(model.classes), Contract.of(model)
    categories = contract.categories
    labels = f"{classes} parts of {len(categories)} categories" if categories else f"{classes} classes"
    if categories and flags.category:
        labels = f"the parts of {flags.category}"
    yield from opening(f"{flags.model or DEFAULTS[task]}: labels points by {labels}; {threads}", contract)
    if task == "part" and flags.category is None:
        known = ", ".join(categories)
        yield from wrapped(f"labels are more certain if --category gives the objects' category: {known}")
    for file, name, ply, found in zip(files, names, written, clouds, strict=True):
        if isinstance(found, PointCloudFileError):
            yield found
            continue
        try:
            found.write_ply(ply)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            yield PointCloudFileError(file, f"its labels are not written: {one_line(error)}")
            continue
        shares = [f"{label} {share:.1%}" for label, share in found.shares.items()]
        more = [f"{len(shares) - MOST_SHARES} more"] if len(shares) > MOST_SHARES else []
        text = f"{found.file!s:{width}}  {len(found.points):>9,} points: {', '.join(shares[:MOST_SHARES] + more)}"
        yield Line(text, {**found.as_json(), "ply": str(ply)})
        yield from (Line(f"    {note}") for note in found.notes)
        count += 1
        if len(views) < MOST_CLOUDS:
            cloud = PointCloud(found.points, None, None, found.labels).in_library_frame(found.up)
            views.append(file_view(name, cloud, found.names, found.notes))
    yield from page_of(out / f"{kind}.html", views, count, f"Points are labelled by {labels}.")


def opening(text: str, contract: Contract) -> Lines:
    """What a model does, and a line if unusual inputs are not marked, as what is usual was not measured."""
    yield from wrapped(text)
    yield from (Line(note, beside_json=True) for note in notes_on(contract))


def wrapped(text: str) -> Lines:
    """A sentence in lines that fit a terminal, those after the first indented."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    yield from map(Line, lines)


def page_of(page: Path, views: Sequence[View], count: int, notes: str) -> Lines:
    """Writes a page of the first of so many clouds, if there are any, and says so."""
    if views:
        title = views[0].name if count == 1 else f"{count:,} clouds"
        first = f"The first {len(views)}. " if len(views) < count else ""
        replaced = replacing(page)
        write_page(page, views, title, first + notes)
        yield Line(f"wrote {page}{replaced}", beside_json=True)
