"""The command line: python -m pointnet predict FILE, evaluate RUN, report RUN, show DATA, export RUN, convert FILE."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pointnet.commands import train
from pointnet.commands.parser import OneLineParser, one_line, whole_number
from pointnet.datasets import TASKS, PointCloudFileError, open_dataset
from pointnet.datasets.folder import KEPT
from pointnet.devices import find_device, keep_freed_memory
from pointnet.evaluation.evaluate import check_same_classes, evaluate
from pointnet.evaluation.tasks import PREPROCESSING, task_of
from pointnet.extras import MissingExtraError
from pointnet.inference.export import SUFFIXES, TOLERANCE, export_model
from pointnet.inference.label import FOLDER, ROOM_POINTS, described, label_files
from pointnet.inference.predict import as_model, find_files, predict_each
from pointnet.models import DEFAULTS, load_model
from pointnet.models.ports import load_port
from pointnet.names import check_name, did_you_mean, printable
from pointnet.pages.report import write_report
from pointnet.pages.report_data import SPLIT_NAMES
from pointnet.pages.show import show_data, show_files

DEFAULT = DEFAULTS["classification"]
MOST_SHARES = 8  # labels of a file that are told
# The flags of predict that not every task has.
ONLY_FOR = {
    "category": ("part",),
    "any_rotation": ("classification",),
    "out": ("part", "scene"),
}
EXIT_CODES = """exit codes: 0 done; 1 done, but for what could not be read; 2 refused, in one line on stderr;
130 stopped"""


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["train"]:
        return train.main(words[1:], "python -m pointnet train")
    commands = {
        "predict": (_predict_parser, _predict, "say what files of points are"),
        "evaluate": (_evaluate_parser, _evaluate, "measure a trained model on a data set"),
        "report": (_report_parser, _report, "write a page about a trained run"),
        "show": (_show_parser, _show, "say what a data set or files hold, and draw it"),
        "export": (_export_parser, _export, "write a trained model as ONNX or a PyTorch program"),
        "convert": (_convert_parser, _convert, "read the weights of another PyTorch PointNet"),
    }
    top = OneLineParser(
        prog="python -m pointnet",
        usage="%(prog)s COMMAND ...",
        description="Use a trained point-cloud model, look at data, or take a model elsewhere.",
        epilog=EXIT_CODES,
    )
    listed = top.add_argument_group("commands", "Each explains itself with --help.")
    for name, (_, _, text) in commands.items():
        listed.add_argument(name, nargs="?", help=text)
    listed.add_argument("train", nargs="?", help="train a network, as train.py does")
    if not words:
        top.error(f"name a command, one of {', '.join(commands)}")
    if words[0] not in commands:
        top.parse_args([word for word in words if word in ("-h", "--help")])
        top.error(f"no command '{words[0]}'{did_you_mean(words[0], commands)}")
    parser, run, _ = commands[words[0]]
    try:
        return run(parser().parse_args(words[1:]))
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"python -m pointnet: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _predict_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pointnet predict",
        description="Say what files of points are: for each a line with its class, how probable that is, and the next "
        "class. Meshes are sampled by area; of a cloud as many points are drawn as the network was trained with, "
        "however many it has; both are centred and scaled as in training. With a network for parts or for rooms, say "
        "what each point is of: for each file a line with the share of each label, and its points, all of a cloud's, "
        "as a coloured PLY; for all together a page to turn them. A file that cannot be read is told on "
        "stderr, and the rest go on.",
        epilog="examples: python -m pointnet predict chair.off scans/ 'meshes/*.glb' --model runs/mine; "
        "python -m pointnet predict --task part chair.off --category chair; "
        "python -m pointnet predict --task scene office.ply --model runs/rooms",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of points, folders of them, or patterns")
    text = "classification, part (of an object) or scene (a room in metres, with colours); default: the model's own"
    parser.add_argument("--task", help=text)
    text = f"a run's folder, or the name of shipped weights (default: {DEFAULT}, for parts {DEFAULTS['part']})"
    parser.add_argument("--model", help=text)
    text = "for parts: what the objects are, as the data set calls it; surer than leaving it open"
    parser.add_argument("--category", help=text)
    text = "the files' up axis, y or z, which is turned into that of the weights (default: as known of the format)"
    parser.add_argument("--up", help=text)
    text = "take the mean over 12 rotations about the up axis; of use where training turned clouds too (--rotate 180)"
    parser.add_argument("--any_rotation", action="store_true", help=text)
    text = (
        "points of each file that the network sees, and that are drawn of a mesh (default: as many as it was trained "
        f"with; for parts {KEPT:,}; for a room all, and {ROOM_POINTS:,} of a mesh)"
    )
    parser.add_argument("--num_points", type=whole_number, help=text)
    text = f"for parts and rooms: the folder for the PLY files and the page (default: {FOLDER})"
    parser.add_argument("--out", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON, a list with an object for each file")
    return parser


def _predict(flags: Any) -> int:
    """Prints what each file is; one that cannot be read is a line on stderr and makes the exit code 1."""
    if flags.task is not None:
        check_name("task", flags.task, TASKS)
    files, model = find_files(flags.files), as_model(flags.model, *([flags.task] if flags.task else TASKS))
    task = task_of(model).name
    for flag, tasks in ONLY_FOR.items():
        if getattr(flags, flag) and task not in tasks:
            raise ValueError(f"--{flag} is for the task {' or '.join(tasks)}, not {task}")
    code, answers = 0, []
    for found in _classified(flags, files, model) if task == "classification" else _labelled(flags, files, model):
        if isinstance(found, PointCloudFileError):
            code = 1
            print(printable(str(found)), file=sys.stderr, flush=True)
        elif not flags.json:
            print(printable(found.line), flush=True)
        elif found.data is not None:
            answers.append(found.data)
    if flags.json:
        print(json.dumps(answers, indent=2))
    return code


class Answer(NamedTuple):
    """What is printed: as text, or as JSON if it is of a file."""

    line: str
    data: dict[str, Any] | None = None


def _classified(flags: Any, files: Sequence[Path], model: Any) -> Iterator[Answer | PointCloudFileError]:
    predictions = predict_each(files, model, flags.up, flags.any_rotation, flags.num_points)
    count = flags.num_points or model.preprocessing["num_points"]
    expected = f"{count:,} points of each file, {', '.join(PREPROCESSING.values())}"
    yield Answer(f"{flags.model or DEFAULT}: {len(model.classes)} classes; takes {expected}")
    file_width, class_width = max(len(str(file)) for file in files), max(map(len, model.classes))
    for found in predictions:
        if isinstance(found, PointCloudFileError):
            yield found
            continue
        then = f", then {found.runner_up} {found.runner_up_probability:.1%}" if found.runner_up else ""
        line = f"{found.file!s:{file_width}}  {found.class_name:{class_width}} {found.probability:6.1%}{then}"
        yield Answer(line, found.as_json())


def _labelled(flags: Any, files: Sequence[Path], model: Any) -> Iterator[Answer | PointCloudFileError]:
    task, out = task_of(model).name, FOLDER if flags.out is None else flags.out
    labelled = label_files(files, model, flags.category, flags.up, flags.num_points, out)
    yield Answer(f"{flags.model or DEFAULTS[task]}: labels points by {described(model, flags.category)}")
    if task == "part" and flags.category is None:
        known = ", ".join(model.preprocessing.get("categories", ()))
        yield Answer(f"labels are surer where --category says what the objects are: {known}")
    width = max(len(str(file)) for file in files)
    for found in labelled:
        if isinstance(found, PointCloudFileError):
            yield found
        elif isinstance(found, str):
            yield Answer(found)
        else:
            cloud, ply = found
            shares = [f"{name} {share:.1%}" for name, share in cloud.shares.items()]
            more = [f"{len(shares) - MOST_SHARES} more"] if len(shares) > MOST_SHARES else []
            line = f"{cloud.file!s:{width}}  {len(cloud.points):>9,} points: {', '.join(shares[:MOST_SHARES] + more)}"
            yield Answer(line, {**cloud.as_json(), "ply": str(ply)})


def _datasets() -> list[str]:
    """Those of all tasks."""
    return list(dict.fromkeys(name for known in TASKS.values() for name in known))


def _evaluate_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pointnet evaluate", description="Measure a trained model on one split of a data set."
    )
    parser.add_argument("run", help="the run's folder, or the name of shipped weights")
    parser.add_argument("--dataset", default="shapes", help=", ".join(_datasets()))
    parser.add_argument("--root", default="data", help="the folder the data set is in")
    parser.add_argument("--download", action="store_true", help="fetch the data set if it is not there")
    parser.add_argument("--split", default="test", help="test or train")
    parser.add_argument("--device", default="auto", help="auto (cuda where there is one), cpu, cuda or cuda:N")
    text = "rotations about the up axis to vote over (the paper's 12); of use where training turned clouds too"
    parser.add_argument("--votes", type=whole_number, default=1, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _evaluate(flags: Any) -> int:
    device = find_device(flags.device)
    model = load_model(flags.run)
    task = task_of(model)
    check_name("dataset", flags.dataset, TASKS[task.name])
    keep_freed_memory()
    wanted = model.preprocessing
    data = open_dataset(
        flags.dataset,
        flags.root,
        flags.split,
        wanted["num_points"],
        normals=wanted.get("normals", False),
        download=flags.download,
        task=task.name,
    )
    check_same_classes(model, data, flags.run, f"{flags.dataset} in {flags.root}")
    scores = evaluate(model.to(device), data, device, votes=flags.votes)
    for error in data.bad:
        print(f"left out: {printable(str(error))}", file=sys.stderr)
    if data.bad:
        scores["left_out"] = len(data.bad)
    if flags.json:
        print(json.dumps(scores))
        return 0
    print(task.told(scores))
    return 0


def _report_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pointnet report",
        description="Write a page about a trained run, which any browser shows without a network: how it learned, how "
        "good it is and where it errs, its worst mistakes to turn, accuracy with points dropped, its settings, and how "
        "to make it again. It is measured on the test part if the run was, else on validation; where the data set is "
        "not there, the page has the rest.",
    )
    parser.add_argument("run", help="the run's folder, or that of runs with several seeds")
    parser.add_argument("--out", help="the folder of the page (default: report in the run's)")
    parser.add_argument("--root", help="the folder the data set is in (default: as in training)")
    parser.add_argument("--download", action="store_true", help="fetch the data set if it is not there")
    parser.add_argument("--device", default="auto", help="auto (cuda where there is one), cpu, cuda or cuda:N")
    return parser


def _report(flags: Any) -> int:
    """Says where the page is, and in a line on stderr, with exit code 1, why nothing could be evaluated for it."""
    keep_freed_memory()
    report = write_report(flags.run, flags.out, flags.root, flags.device, flags.download)
    analysis = report.analysis
    if analysis is None:
        print(f"nothing evaluated: {report.missing}", file=sys.stderr)
    else:
        for error in analysis.data.bad:
            print(f"left out: {printable(str(error))}", file=sys.stderr)
        scores = analysis.confusion.result()
        print(
            f"{scores['overall_accuracy']:.2%} of {scores['count']:,} {SPLIT_NAMES[report.split]} shapes right, "
            f"{scores['mean_class_accuracy']:.2%} mean over classes"
        )
    print(f"wrote {report.page}")
    return 0 if analysis else 1


def _show_parser() -> OneLineParser:
    known = _datasets()
    parser = OneLineParser(
        prog="python -m pointnet show",
        description="Say what a data set or files of points hold, and draw samples of it.",
    )
    parser.add_argument("what", nargs="+", help=f"{', '.join(known)}, or files and folders of points")
    parser.add_argument("--root", default="data", help="the folder the data set is in")
    parser.add_argument("--split", default="both", help="train, test or both")
    parser.add_argument("--num_points", type=whole_number, help="points a cloud (default: 1024; files whole)")
    parser.add_argument("--per_class", type=whole_number, default=1, help="samples of each class")
    parser.add_argument("--up", help="the files' up axis, y or z (default: as known of the format)")
    parser.add_argument("--out", default="show", help="the folder for the page")
    return parser


def _show(flags: Any) -> int:
    """Prints what is there; a file that cannot be read is a line on stderr and makes the exit code 1."""
    known = _datasets()
    if len(flags.what) == 1 and flags.what[0] in known:
        count = 1024 if flags.num_points is None else flags.num_points
        for text in show_data(flags.what[0], flags.root, flags.split, count, flags.per_class, flags.out):
            print(text, flush=True)
        return 0
    for word in flags.what:
        if word in known and not Path(word).exists():
            raise ValueError(f"'{word}' is a data set; show it alone")
        if not Path(word).exists():
            near = f"{did_you_mean(word, known)} (data sets: {', '.join(known)})"
            raise ValueError(f"'{word}' is neither a data set nor a file{near}")
    code = 0
    for found in show_files([Path(word) for word in flags.what], flags.num_points, flags.up, flags.out):
        if isinstance(found, PointCloudFileError):
            code = 1
        print(
            printable(str(found)), file=sys.stderr if isinstance(found, PointCloudFileError) else sys.stdout, flush=True
        )
    return code


def _export_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pointnet export",
        description="Write a trained model as one file that runs without this library, for any number of clouds and "
        "points. It is compared with the model at several, and written only if it gives the same logits. The file also "
        "says its classes, and how points must be turned and scaled.",
    )
    parser.add_argument("run", help="the run's folder, or the name of shipped weights")
    parser.add_argument("--format", default="onnx", help="onnx (needs the extra export), or torch for a .pt2")
    parser.add_argument("--out", help="the file to write (default: model.onnx or model.pt2 in the run)")
    return parser


def _export(flags: Any) -> int:
    check_name("format", flags.format, SUFFIXES)
    model = load_model(flags.run)
    folder = Path(flags.run)
    beside = folder / "model" if folder.is_dir() else folder
    written = export_model(model, flags.out or f"{beside}{SUFFIXES[flags.format]}", flags.format)
    sizes = ", ".join(f"({clouds}, {points:,})" for clouds, points in written.errors)
    print(f"{written.path}: {written.bytes / 1e6:.1f} MB, for any number of clouds and points")
    print(f"its logits at {sizes} are the model's: off by {max(written.errors.values()):.0e}, {TOLERANCE:.0e} allowed")
    return 0


def _convert_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pointnet convert",
        description="Read the weights of a classifier trained with a popular PyTorch port of PointNet "
        "(yanx27/Pointnet_Pointnet2_pytorch, fxia22/pointnet.pytorch, and what has their names) into a model folder "
        "that computes the same. No code in the file is run.",
    )
    parser.add_argument("file", help="what the port saved, as best_model.pth")
    parser.add_argument("--out", default="", help="the folder to write; empty for the file's name without its suffix")
    parser.add_argument("--classes", default="", help="a text file of class names, one a line, in label order")
    parser.add_argument(
        "--up", default="z", help="the up axis of the clouds it was trained on: z, or y as in ModelNet's HDF5 and text"
    )
    return parser


def _convert(flags: Any) -> int:
    file = Path(flags.file)
    out = Path(flags.out) if flags.out else file.parent / file.stem
    if out == file:
        raise ValueError(f"{file}: its name has no suffix to leave out; --out must name the folder to write")
    if (out / "config.json").exists():
        raise ValueError(f"{out}: already holds a model; choose another --out")
    model = load_port(file, _read_names(flags.classes) if flags.classes else (), flags.up)
    model.save_pretrained(out, notes=f"Converted from `{printable(file.name)}`.")
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{out}/: a model of {len(model.classes)} classes, {parameters:,} parameters; it takes points with z up")
    if flags.up == "z":
        print("was it trained on clouds with y up, as ModelNet's HDF5 and text have? then convert it with --up y")
    if not flags.classes:
        print(f"its classes are called '{model.classes[0]}' and so on; --classes NAMES.txt gives them their names")
    return 0


def _read_names(path: str) -> list[str]:
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text, class names one a line") from error


if __name__ == "__main__":
    sys.exit(main())
