"""The flags of the commands. Nothing here loads PyTorch, so help and mistyped words are answered at once.

Every error of the parser is one line on stderr, with the nearest known word for an unknown one.
"""

import platform
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, HelpFormatter, _ArgumentGroup
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pointnet import __version__
from pointnet.names import did_you_mean, printable

from .program import PROG, REFUSED

VERSION = f"pointnet-shared-mlp {__version__}, Python {platform.python_version()}"
EXIT_CODES = (
    "exit codes: 0 done; 1 done, except for files that cannot be read; 2 refused, in one line; 130 stopped; "
    "141 nobody reads the output; 143 ended by SIGTERM. The words of a flag may be joined by - or _"
)
COMMANDS = {
    "train": "train a network on a data set",
    "predict": "classify files of points, or label their points",
    "evaluate": "score a trained model on a data set",
    "report": "write a page about a trained run",
    "show": "describe a data set or files, and draw samples",
    "export": "write a trained model as ONNX or as a PyTorch program",
    "convert": "read the weights of another PyTorch PointNet",
    "embed": "write the features of files of points",
    "pack": "write a data set as few large files, to stream in training",
    "explain": "open a page that explains shared MLPs and PointNet",
}
DATA_SETS = (
    "shapes, modelnet40, modelnet10, scanobjectnn, scanobjectnn_obj_bg, scanobjectnn_obj_only, folder, shapenetpart, "
    "parts, s3dis, s3dis_area1 to s3dis_area6, scenes, packed"
)
AXIS = re.compile("-[xyz]")  # pointing down
WITHOUT_FLAG = {"--model": "run", "--input": "files", "--file": "files", "--dataset": "what", "--data": "what"}
STARTS = ("--pretrained", "--weights", "--checkpoint", "--finetune", "--ckpt")  # what others call --init
RUN = "a run folder, or the name of shipped weights"
VERTICES = "take the vertices of a mesh as its points, in place of points drawn from its faces"
COLUMNS = "the columns of text, NPY and NPZ without names: of x,y,z,nx,ny,nz,r,g,b,label,intensity, and _ to skip one"


class OneLineParser(ArgumentParser):
    """An `ArgumentParser` without abbreviations, whose errors are one line each, with exit code 2.

    A flag may be written with - or _ between its words.
    """

    def __init__(self, **settings: Any):
        super().__init__(**{"allow_abbrev": False, "formatter_class": HelpWithDefaults, **settings})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """All words must be known; the error names the flag that is nearest to an unknown one."""
        words = [*map(self._as_known, sys.argv[1:] if args is None else args)]
        for at in reversed(range(1, len(words))):
            if words[at - 1] == "--up" and AXIS.fullmatch(words[at]):  # argparse would take -y for a flag
                words[at - 1 : at + 1] = [f"--up={words[at]}"]
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown:
            flag = next((word.split("=")[0] for word in unknown if word.startswith("--")), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(flag)}")
        return parsed, unknown

    def _hint(self, flag: str) -> str:
        """What was probably meant by an unknown flag, or, of words without one, by these."""
        known = [each for each in self._option_string_actions if each not in ("--help", "--version")]
        words = {each.dest: str(each.metavar or each.dest).upper() for each in self._get_positional_actions()}
        if {flag[2:], WITHOUT_FLAG.get(flag)} & words.keys():
            return f"; it is given without a flag: {self.prog} {' '.join(words.values())}"
        if not flag and "--root" in known:
            return "; the folder of a data set is given by --root"
        return "; did you mean '--init'?" if flag in STARTS and "--init" in known else did_you_mean(flag, known)

    def _as_known(self, word: str) -> str:
        """A flag with _ where it was written with -, if that is known; any other word as it is."""
        flag, equals, value = word.partition("=")
        other = f"--{flag[2:].replace('-', '_')}"
        known = self._option_string_actions
        return f"{other}{equals}{value}" if flag[:2] == "--" and flag not in known and other in known else word

    def print_help(self, file: Any = None) -> None:
        """As argparse's, but where the reader closed the pipe, that is an error; argparse ignores it."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        line = printable(" ".join(message.removeprefix("argument ").splitlines()))
        self.exit(REFUSED, f"{self.prog}: error: {line}\n")


class HelpWithDefaults(HelpFormatter):
    """Adds to a flag's help its default, where it has one."""

    def _get_help_string(self, action: Action) -> str | None:
        without = any(action.default is none for none in (None, False, SUPPRESS)) or action.default == ""
        return action.help if without or not action.option_strings else f"{action.help} (default: %(default)s)"


def whole_number(word: str) -> int:
    """A type of flag: int, with an error in plain words."""
    try:
        return int(word)
    except ValueError as error:
        raise ArgumentTypeError(f"must be a whole number, got '{word}'") from error


def add_version(parser: ArgumentParser | _ArgumentGroup) -> None:
    parser.add_argument("--version", action="version", version=VERSION, help="print the version")


WHOLE: dict[str, Any] = {"type": whole_number, "metavar": "N"}


def command_parser() -> OneLineParser:
    """The parser of all commands; `train` is only listed, since its flags are made from the settings of training."""
    parser = OneLineParser(prog=PROG, description="Train and use networks on point clouds.", epilog=EXIT_CODES)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in FLAGS:
            command.description = FLAGS[name].__doc__
            FLAGS[name](command)
    return parser


def predict_flags(parser: ArgumentParser) -> None:
    """Classify files of points: each line has a file's class, its probability, and the runner-up, and "unsure" where
    it cannot be trusted. Meshes are sampled by area; points are centred and scaled as in training. A network for
    parts or rooms labels every point instead: each line has the share of each label, the labelled points are written as
    a coloured PLY, and one page shows all clouds.
    Files that cannot be read are reported on stderr."""
    parser.epilog = (
        f"examples: {PROG} predict chair.off scans/ 'meshes/*.glb' --model runs/mine; "
        f"{PROG} predict --task part chair.off --category chair; "
        f"{PROG} predict --task scene office.ply --model runs/rooms"
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="files of points, folders of them, or patterns")
    add = parser.add_argument_group("what is asked").add_argument
    add("--task", help="classification, part (of an object) or scene (a room or another scan)")
    add("--model", help=f"{RUN} (default: pointnet_modelnet40_upright; with --task part: pointnet_shapes_part)")
    add("--category", help="for parts: the category of the objects, by its name in the data set; labels get better")
    add("--votes", **WHOLE, help="average over N rotations about the up axis (the paper: 12; default: 1)")
    add("--top", **WHOLE, help="print the N most probable classes (default: the first and the runner-up)")
    add = parser.add_argument_group("how files are read").add_argument
    text = "the up axis of the files, z, y, -y, x, -x or -z; auto: the surest (default: by format, or as in training)"
    add("--up", help=text)
    text = "points used of each file (default: as in training; for parts 4,096, unless DGCNN; of a room's mesh 100,000)"
    add("--num_points", **WHOLE, help=text)
    add("--columns", metavar="X,Y,...", help=COLUMNS)
    add("--vertices", action="store_true", help=VERTICES)
    add = parser.add_argument_group("what is written").add_argument
    text = "the folder of a page of the clouds and answers (default: none), or of the PLY files and the page (labels)"
    add("--out", help=text)
    add("--json", action="store_true", help="print a JSON list with one object per file that can be read")
    add_device(parser, precision=True)


def evaluate_flags(parser: ArgumentParser) -> None:
    """Score a trained model on one split of a data set."""
    parser.add_argument("run", help=RUN)
    add = parser.add_argument_group("what it is scored on").add_argument
    add("--dataset", help=f"{DATA_SETS} (default: the run's own)")
    add_data(add, "as in training; with --dataset: data")
    add("--split", default="test", help="test or train")
    text = "the columns of tables of your own files (default: as in training)"
    add("--columns", metavar="X,Y,...", default="", help=text)
    add("--up", default="", help="the up axis of the files, z, y, -y, x, -x or -z (default: as in training)")
    add = parser.add_argument_group("how it is scored").add_argument
    text = "score objects also with all clouds rotated about the up axis by each of these angles, such as 0 45 90 180"
    add("--rotate", type=whole_number, nargs="+", metavar="DEGREES", help=text)
    text = "rotations about the up axis to vote over (the paper: 12); for weights trained with --rotate 180"
    add("--votes", **WHOLE, default=1, help=text)
    add("--json", action="store_true", help="print JSON")
    add_device(parser, precision=True)


def report_flags(parser: ArgumentParser) -> None:
    """Write a page about a trained run, for any browser, offline: learning curves, accuracy and errors by class, the
    worst mistakes as rotatable clouds, accuracy with points dropped, and the commands that repeat the run. It is
    evaluated on the test split if the run was, else on validation."""
    parser.add_argument("run", help="a run folder, or the folder of runs with several seeds")
    parser.add_argument("--out", help="the folder of the page (default: report in the run folder)")
    add_data(parser.add_argument, "as in training")
    text = "also measure error rates on N clouds with each of fifteen corruptions; 100 if N is left out"
    parser.add_argument("--corruptions", **WHOLE, nargs="?", default=0, const=100, help=text)
    add_device(parser)


def show_flags(parser: ArgumentParser) -> None:
    """Describe a data set or files of points, and draw samples of them on a page."""
    add = parser.add_argument
    add("what", nargs="+", help=f"a data set ({DATA_SETS}), or files and folders of points")
    add("--num_points", **WHOLE, help="points per cloud (default: 1,024; for files all, for meshes 1,024)")
    add("--columns", metavar="X,Y,...", help=COLUMNS)
    add("--up", help="the up axis of the files, z, y, -y, x, -x or -z (default: by the file format)")
    add("--out", default="show", help="the folder of the page")
    add = parser.add_argument_group("data sets").add_argument
    add("--root", default="data", help="the folder that holds the data set")
    add("--download", action="store_true", help="download the data set if it is missing")
    add("--split", default="both", help="train, test or both")
    add("--per_class", **WHOLE, default=1, help="samples of each class")
    add("--features", metavar="A,B,...", default="", help="channels beside x y z: normals, rgb, intensity")
    add("--block", type=float, default=1.0, metavar="SIDE", help="the side of the blocks of scenes, in their unit")
    add = parser.add_argument_group("files").add_argument
    add("--vertices", action="store_true", help=VERTICES)


def export_flags(parser: ArgumentParser) -> None:
    """Write a trained model as one file that runs without this library, for any number of clouds and points, if its
    logits equal the model's at several sizes. The file contains its classes and how its points are prepared."""
    parser.add_argument("run", help=RUN)
    parser.add_argument("--format", default="onnx", help="onnx (needs the extra export), or torch for a .pt2")
    parser.add_argument("--out", help="the file to write (default: model.onnx or model.pt2 in the run folder)")


def convert_flags(parser: ArgumentParser) -> None:
    """Read the weights of a network that was trained with a popular PyTorch port of PointNet into a model folder that
    computes the same: of yanx27/Pointnet_Pointnet2_pytorch and fxia22/pointnet.pytorch the classifiers, PointNet++ too,
    the networks for parts and for scenes; the classifiers of vinits5/learning3d, WangYueFt/dgcnn (DGCNN too) and
    guochengqian/PointNeXt (S); their encoders alone; and networks with the same names. No code in the file is run."""
    parser.add_argument("file", help="the file that the port saved, such as best_model.pth")
    parser.add_argument("--out", help="the folder to write (default: the file's name without its suffix)")
    parser.add_argument("--classes", help="a text file of class names, one per line, in the order of the labels")
    parser.add_argument("--up", default="z", help="the up axis in training: z, or y as in ModelNet's HDF5 and text")
    text = "for a PointNeXt: whether its settings divide coordinates in a ball by the radius"
    parser.add_argument("--normalize_dp", default="true", choices=("true", "false"), help=text)


def embed_flags(parser: ArgumentParser) -> None:
    """Write the features of files of points as one NPZ: "files" (S,), "feature" (S, 1024) of the encoder, and "hidden"
    (S, 256) of a classifier's last hidden layer; also "notes" (S,), and "model". Files are read as predict reads them;
    those that cannot be read are reported on stderr."""
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="files of points, folders of them, or patterns")
    add("--out", required=True, metavar="NPZ", help="the file to write")
    add("--model", help=f"{RUN} (default: pointnet_modelnet40_upright)")
    add("--up", help="the up axis of the files, z, y, -y, x, -x or -z (default: by their format, or as in training)")
    add("--num_points", **WHOLE, help="points used of each file (default: as in training)")
    add("--columns", metavar="X,Y,...", help=COLUMNS)
    add("--vertices", action="store_true", help=VERTICES)
    add_device(parser)


def pack_flags(parser: ArgumentParser) -> None:
    """Write the training and test splits of a data set as shards, few large files that train.py --dataset packed
    streams from a folder or an object store. A command that was stopped continues there."""
    add = parser.add_argument
    add("root", help="the folder that holds the data set")
    add("out", help="the folder to write")
    add("--dataset", default="folder", help=DATA_SETS)
    add("--task", default="classification", help="classification, part (of an object) or scene")
    add("--num_points", **WHOLE, default=1024, help="the most points per cloud that training will take")
    add("--keep", **WHOLE, default=0, help="points packed per cloud; 0 for all that the set stores, such as 2,048")
    add("--download", action="store_true", help="download the data set if it is missing")
    add = parser.add_argument_group("how files of your own are read").add_argument
    add("--features", default="", help="channels beside x y z, of normals,rgb,intensity")
    add("--up", default="", help="the up axis of the files, z, y, -y, x, -x or -z (default: by the file format)")
    add("--columns", metavar="X,Y,...", default="", help=COLUMNS)
    add("--block", type=float, default=1.0, help="side of the blocks that scenes are cut into")
    add("--strict", action="store_true", help="stop at a file that cannot be read; else skip and list it")


def explain_flags(parser: ArgumentParser) -> None:
    """Write a page of nine scenes that explain shared MLPs and PointNet, for any browser, offline, and open it."""
    parser.add_argument("--out", metavar="FILE", help="the file to write, not opened (default: explain.html, opened)")


def add_data(add: Callable[..., Action], default: str) -> None:
    """Adds where a data set is, by default as this text says."""
    add("--root", help=f"the folder that holds the data set (default: {default})")
    add("--download", action="store_true", help="download the data set if it is missing")


def add_device(parser: ArgumentParser, precision: bool = False) -> None:
    add = parser.add_argument_group("device").add_argument
    add("--device", default="auto", help="auto (CUDA if available), cpu, cuda or cuda:N")
    if precision:
        add("--precision", default="fp32", choices=("fp32", "bf16"), help="of products; bf16 if the device has it")
    text = "CPU threads; 0 for OMP_NUM_THREADS if it is set, else as many as there are free cores"
    add("--threads", **WHOLE, default=0, help=text)


FLAGS = {
    "predict": predict_flags,
    "evaluate": evaluate_flags,
    "report": report_flags,
    "show": show_flags,
    "export": export_flags,
    "convert": convert_flags,
    "embed": embed_flags,
    "pack": pack_flags,
    "explain": explain_flags,
}
