"""The flags of the commands. Nothing here loads PyTorch, so help and mistyped words are answered at once."""

from argparse import ArgumentParser

from .parser import OneLineParser, whole_number

PROG = "python -m pointnet"
EXIT_CODES = "exit codes: 0 done; 1 done, except for files that cannot be read; 2 refused, in one line; 130 stopped"
COMMANDS = {
    "train": "train a network on a data set",
    "predict": "classify files of points, or label their points",
    "evaluate": "score a trained model on a data set",
    "report": "write a page about a trained run",
    "show": "describe a data set or files, and draw samples",
    "export": "write a trained model as ONNX or as a PyTorch program",
    "convert": "read the weights of another PyTorch PointNet",
}
DATA_SETS = (
    "shapes, modelnet40, modelnet10, scanobjectnn, scanobjectnn_obj_bg, scanobjectnn_obj_only, folder, shapenetpart, "
    "s3dis, s3dis_area1 to s3dis_area6"
)
RUN = "a run folder, or the name of shipped weights"


def command_parser() -> OneLineParser:
    """The parser of all commands; `train` is only listed, since its flags are made from the settings of training."""
    about = "Train and use networks on point clouds, look at data, or take a model elsewhere."
    parser = OneLineParser(prog=PROG, description=about, epilog=EXIT_CODES)
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in FLAGS:
            FLAGS[name](command)
    return parser


def predict(parser: ArgumentParser) -> None:
    parser.description = (
        "Classify files of points: each line has a file's class, its probability, and the runner-up. Meshes are "
        "sampled by area; of a cloud, as many points are drawn as the network was trained with. Both are centred and "
        "scaled as in training. A network for parts or rooms labels every point instead: each line has the share of "
        "each label, the labelled points are written as a coloured PLY, and one page shows all clouds. A file that "
        "cannot be read is reported on stderr, and the others are processed."
    )
    parser.epilog = (
        f"examples: {PROG} predict chair.off scans/ 'meshes/*.glb' --model runs/mine; "
        f"{PROG} predict --task part chair.off --category chair; "
        f"{PROG} predict --task scene office.ply --model runs/rooms"
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="files of points, folders of them, or patterns")
    add("--task", help="classification, part (of an object) or scene (a room in metres, with colours)")
    add("--model", help=f"{RUN} (default: pointnet_modelnet40; with --task part: pointnet_shapes_part)")
    add("--category", help="for parts: the category of the objects, by its name in the data set; labels get better")
    add("--up", help="the up axis of the files, y or z (default: by the file format); points are rotated if it is y")
    text = "average over 12 rotations about the up axis; useful for weights trained with --rotate 180"
    add("--any_rotation", action="store_true", help=text)
    text = (
        "points that the network sees of each file, and points drawn from a mesh (default: as many as in training; "
        "for parts 4,096; for rooms all, and 100,000 of a mesh)"
    )
    add("--num_points", type=whole_number, metavar="N", help=text)
    add("--out", help="for parts and rooms: the folder of the PLY files and the page (default: labels)")
    add("--json", action="store_true", help="print a JSON list with one object per file")
    add_threads(parser)


def evaluate(parser: ArgumentParser) -> None:
    parser.description = "Score a trained model on one split of a data set."
    parser.add_argument("run", help=RUN)
    parser.add_argument("--dataset", default="shapes", help=DATA_SETS)
    add_data(parser, "data")
    parser.add_argument("--split", default="test", help="test or train")
    text = "rotations about the up axis to vote over (the paper: 12); useful for weights trained with --rotate 180"
    parser.add_argument("--votes", type=whole_number, metavar="N", default=1, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")


def report(parser: ArgumentParser) -> None:
    parser.description = (
        "Write a page about a trained run, for any browser, offline: learning curves, accuracy and errors by class, "
        "the worst mistakes as rotatable clouds, accuracy with points dropped, the settings, and the commands that "
        "repeat the run. It is evaluated on the test split if the run was, else on validation. Without the data set "
        "the page has the other sections."
    )
    parser.add_argument("run", help="a run folder, or the folder of runs with several seeds")
    parser.add_argument("--out", help="the folder of the page (default: report in the run folder)")
    add_data(parser, None)


def show(parser: ArgumentParser) -> None:
    parser.description = "Describe a data set or files of points, and draw samples of them on a page."
    parser.add_argument("what", nargs="+", help=f"a data set ({DATA_SETS}), or files and folders of points")
    parser.add_argument("--root", default="data", help="the folder that holds the data set")
    parser.add_argument("--split", default="both", help="train, test or both")
    text = "points of each cloud (default: 1,024; of files all, and 1,024 of a mesh)"
    parser.add_argument("--num_points", type=whole_number, metavar="N", help=text)
    parser.add_argument("--per_class", type=whole_number, metavar="N", default=1, help="samples of each class")
    parser.add_argument("--up", help="the up axis of the files, y or z (default: by the file format)")
    parser.add_argument("--out", default="show", help="the folder of the page")


def export(parser: ArgumentParser) -> None:
    parser.description = (
        "Write a trained model as one file that runs without this library, for any number of clouds and points. The "
        "file is written only if its logits equal the model's at several sizes. It names its classes, and says how "
        "points must be oriented and scaled."
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("--format", default="onnx", help="onnx (needs the extra export), or torch for a .pt2")
    parser.add_argument("--out", help="the file to write (default: model.onnx or model.pt2 in the run folder)")


def convert(parser: ArgumentParser) -> None:
    parser.description = (
        "Read the weights of a classifier that was trained with a popular PyTorch port of PointNet "
        "(yanx27/Pointnet_Pointnet2_pytorch, fxia22/pointnet.pytorch, or one with the same names) into a model folder "
        "that computes the same. No code in the file is run."
    )
    parser.add_argument("file", help="the file that the port saved, such as best_model.pth")
    parser.add_argument("--out", help="the folder to write (default: the file's name without its suffix)")
    parser.add_argument("--classes", help="a text file of class names, one a line, in the order of the labels")
    text = "the up axis of the clouds in training: z, or y as in ModelNet's HDF5 and text"
    parser.add_argument("--up", default="z", help=text)


def add_data(parser: ArgumentParser, root: str | None) -> None:
    """Adds where a data set is, and what computes."""
    default = "" if root else " (default: as in training)"
    parser.add_argument("--root", default=root, help=f"the folder that holds the data set{default}")
    parser.add_argument("--download", action="store_true", help="download the data set if it is missing")
    parser.add_argument("--device", default="auto", help="auto (CUDA if available), cpu, cuda or cuda:N")
    add_threads(parser)


def add_threads(parser: ArgumentParser) -> None:
    text = "CPU threads; 0 for OMP_NUM_THREADS if it is set, else as many as there are free cores"
    parser.add_argument("--threads", type=whole_number, metavar="N", default=0, help=text)


FLAGS = {each.__name__: each for each in (predict, evaluate, report, show, export, convert)}
