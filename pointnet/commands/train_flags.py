"""The flags of `train.py`: one for each setting, and those that say where settings begin and what is run."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pointnet.datasets.catalog import OWN_FILES
from pointnet.evaluation.contract import Contract
from pointnet.models import load_model
from pointnet.names import check_name
from pointnet.points.features import WORDS
from pointnet.training.recipes import RECIPES, defaults_of
from pointnet.training.run_folder import CONFIG, check_epochs, check_kept, read_settings, seed_folders
from pointnet.training.settings import FIELDS, GROUPS, TYPES, TrainConfig, read_value, with_values

from .flags import OneLineParser, add_version, whole_number
from .program import one_line

OF_ENCODER = ("width", "tnet_width", "input_transform", "feature_transform")  # settings that --init takes the place of
PREVIEWS = ("dry_run", "profile")  # checks before the run, in its place
# The settings that --help shows; --help_all shows the others too.
USUAL = "task dataset root download num_points model init freeze epochs batch_size lr seed device threads out".split()


class Command(NamedTuple):
    """What a call of `train.py` asks for; without seeds, one run with `config.seed`."""

    config: TrainConfig
    resume: bool = False
    seeds: Sequence[int] = ()
    preview: str = ""  # one of PREVIEWS
    prog: str = "train.py"
    brought: str = ""  # a line on how files are read because those of `config.init` were, where that is not as usual

    @property
    def call(self) -> str:
        """How to call the program from a shell."""
        return f"python {self.prog}" if self.prog.endswith(".py") else self.prog


def training_parser(prog: str = "train.py", all_flags: bool = False) -> OneLineParser:
    """A parser that returns the flags which are given, settings as words; its help explains the usual ones, or all."""
    texts = {"usage": f"{prog} [--FLAG VALUE ...]", "description": "Train a network on point clouds."}
    texts["epilog"] = "" if all_flags else f"All flags: {prog} --help_all"
    parser = OneLineParser(prog=prog, **texts, argument_default=argparse.SUPPRESS, add_help=False)
    start = parser.add_argument_group("start")
    start.add_argument("--recipe", metavar="NAME", help=f"begin with these settings: {', '.join(RECIPES)}")
    start.add_argument("--config", metavar="FILE", help="begin with the settings in a YAML file")
    start.add_argument("--resume", action="store_true", help="continue the run in --out")
    start.add_argument("--seeds", type=whole_number, nargs="+", metavar="N", help="run once with each of these seeds")
    start.add_argument("--dry_run", action="store_true", help="try everything on a few clouds, and forecast the time")
    start.add_argument("--profile", action="store_true", help="measure where the time of a step goes")
    start.add_argument("-h", "--help", action="help", help="explain the usual flags")
    start.add_argument("--help_all", action="store_true", help="explain all flags")
    add_version(start)
    for title, group in GROUPS.items():
        flags = parser.add_argument_group(title)
        for field in dataclasses.fields(group):
            add_setting(flags, field.name, all_flags)
    return parser


def add_setting(flags: argparse._ArgumentGroup, name: str, all_flags: bool) -> None:
    """Adds the flag of a setting; its short help ends at the first semicolon."""
    default, text, kind = FIELDS[name].default, FIELDS[name].metadata["help"], TYPES[name]
    text = text if all_flags else text.partition(";")[0]
    if default is not False and default not in ("", ()):
        text = f"{text} (default: {default})"
    count: dict[str, Any] = {"nargs": "?", "const": "true"} if default is False else {}  # may stand without a value
    if get_origin(kind) is tuple:
        count = {"nargs": "+"}
    choices = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else "NAME"
    metavar = {int: "N", float: "X", bool: "BOOL"}.get(kind, choices)
    shown = all_flags or name in USUAL
    flags.add_argument(f"--{name}", metavar=metavar, help=text if shown else argparse.SUPPRESS, **count)


def parse_command(words: Sequence[str] | None = None, prog: str = "train.py") -> Command:
    """The words of a command line, or those that the program was called with -> what they ask for.

    The settings begin as those of --recipe, of the file --config, or as the defaults of the model, the task and the
    data set. Flags win over them. With --resume they are those of the run in --out; a flag may repeat one, and change
    those in `MAY_CHANGE` and, where the schedule allows it, the epochs. Seeds may be added to those of the run.
    """
    parser = training_parser(prog)
    given = vars(parser.parse_args(words))
    if "help_all" in given:
        training_parser(prog, all_flags=True).print_help()
        parser.exit()
    resume, values = "resume" in given, {name: given[name] for name in FIELDS if name in given}
    previews = [name for name in PREVIEWS if name in given]
    try:
        start, seeds = resumed(given, values) if resume else beginning(given)
        config = with_values(start, values)
        check_used(config, [name for name in values if getattr(config, name) != getattr(start, name)])
        if previews and (len(previews) > 1 or resume or seeds):
            raise ValueError(f"--{previews[0]} previews one new run; leave out --resume, --seeds and other previews")
        check_seeds(seeds, "seed" in given)
    except (ValueError, OSError) as error:
        parser.error(one_line(error))
    line = "" if resume else brought(config, given)
    return Command(config, resume, seeds, previews[0] if previews else "", prog, line)


def check_used(config: TrainConfig, changed: Sequence[str]) -> None:
    """Raises ValueError where one of these settings changes nothing beside the others."""
    idle = config.idle()
    for name in changed:
        if name in idle:
            raise ValueError(f"--{name} is for {idle[name]}; it would change nothing")


def check_seeds(seeds: Sequence[int], one_given: bool) -> None:
    """Raises ValueError for several seeds that are no seeds or not all different, or that stand beside a --seed."""
    most = FIELDS["seed"].metadata["high"]
    if len(set(seeds)) < len(seeds) or not all(0 <= seed <= most for seed in seeds):
        wanted = f"different whole numbers from 0 to {most}"
        raise ValueError(f"seeds must be {wanted}, got {', '.join(map(str, seeds))}")
    if seeds and one_given:
        raise ValueError("--seed and --seeds exclude each other; leave one out")


def beginning(given: Mapping[str, Any]) -> tuple[TrainConfig, list[int]]:
    """The settings that a new run begins with, and its seeds where there are several."""
    if "recipe" in given and "config" in given:
        raise ValueError("--recipe cannot be given with --config, whose settings are the file's own")
    if "config" in given:
        config, seeds = read_settings(given["config"])
        return config, given.get("seeds", seeds)
    init, task = given.get("init", ""), read_value("task", given.get("task", TrainConfig.task))
    config = defaults_of(task, given.get("dataset", "shapes"), init, given.get("model", TrainConfig.model))
    if "recipe" in given:
        check_name("recipe", given["recipe"], RECIPES)
        config = RECIPES[given["recipe"]]
        if given.get("task", config.task) != config.task:
            raise ValueError(f"the recipe {given['recipe']} is for --task {config.task}, got {given['task']}")
    if init or config.init:
        config = as_taught(config, init or config.init, given)
    return config, given.get("seeds", [])


def as_taught(config: TrainConfig, init: str, given: Mapping[str, Any]) -> TrainConfig:
    """The settings with those that trained weights bring: points per cloud, and how files of one's own are read."""
    if taken := [name for name in OF_ENCODER if name in given]:
        raise ValueError(f"--{taken[0]} is for a new encoder; that of --init has its own; leave it out")
    contract = taught_by(init)
    values: dict[str, Any] = {"num_points": contract.num_points, "rotate": max(config.rotate, contract.rotations)}
    if given.get("dataset") in OWN_FILES:
        features = ",".join(WORDS[name] for name in contract.features)
        values |= {"features": features, "up": contract.up or "", "columns": contract.columns, "block": contract.block}
    return dataclasses.replace(config, init=init, **values)


def brought(config: TrainConfig, given: Mapping[str, Any]) -> str:
    """A line on the settings of files of one's own that `as_taught` took from the weights and no flag gave; "" where
    those are as without weights."""
    if not config.init or given.get("dataset") not in OWN_FILES:
        return ""
    said = {"up": "{} up", "columns": "columns {}", "features": "with {}", "block": "in blocks of {:g}"}
    values = {name: getattr(config, name) for name in said if name not in given}
    how = ", ".join(said[name].format(value) for name, value in values.items() if value != getattr(TrainConfig, name))
    return how and f"files are read as those that {config.init} was trained on: {how}; flags say it otherwise"


def taught_by(init: str) -> Contract:
    """The contract of trained weights."""
    return Contract.of(load_model(init))


def resumed(given: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[TrainConfig, list[int]]:
    """The settings of the run in --out, and its seeds with those that are added."""
    out = given.get("out")
    if not out:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    if "config" in given or "recipe" in given:
        raise ValueError("--resume takes the run's own settings; leave out --config and --recipe")
    if not (Path(out) / CONFIG).is_file():
        raise ValueError(f"{Path(out) / CONFIG}: no run to resume here")
    config, saved = read_settings(Path(out) / CONFIG)
    now = with_values(config, values)
    check_kept(config, now)
    if now.epochs != config.epochs:
        for folder in seed_folders(out).values() or [out]:
            check_epochs(folder, now.epochs)
    seeds = given.get("seeds", saved)
    if seeds and not saved:
        raise ValueError(f"{out}: holds one run, of seed {config.seed}; it cannot resume with --seeds")
    if missing := [str(seed) for seed in saved if seed not in seeds]:
        raise ValueError(f"--seeds leaves out {', '.join(missing)} of the run; resume can add seeds, not drop them")
    return config, seeds
