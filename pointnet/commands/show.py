"""`python -m pointnet show`: what a data set or files of points hold, as text and as a page of samples."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointnet.datasets import DATASETS_OF, PointCloudFileError
from pointnet.names import did_you_mean, did_you_mean_path, printable, say
from pointnet.pages.show import show_data, show_files

# The flags of `show` that are for data sets, and those for files, with their defaults.
OF_SETS = {"root": "data", "download": False, "split": "both", "per_class": 1, "features": "", "block": 1.0}
OF_FILES = {"vertices": False}


def run(flags: Namespace) -> int:
    """Prints the contents; a file that cannot be read is a line on stderr, and makes the exit code 1."""
    known = list(dict.fromkeys(name for names in DATASETS_OF.values() for name in names))
    if len(flags.what) == 1 and flags.what[0] in known:
        check_flags(flags, OF_FILES, f"files, not for the data set {flags.what[0]}")
        count = 1024 if flags.num_points is None else flags.num_points
        how = flags.root, flags.split, count, flags.per_class, flags.out, flags.columns or "", flags.download
        for text in show_data(flags.what[0], *how, flags.up or "", flags.features, flags.block):
            say(text)
        return 0
    for word in flags.what:
        if not Path(word).exists():
            if word in known:
                raise ValueError(f"'{word}' is a data set; show it alone, with its folder as --root")
            near = did_you_mean(word, known) or did_you_mean_path(word)
            raise ValueError(f"'{word}' is neither a data set nor a file{near} (data sets: {', '.join(known)})")
    as_one = f"; show folder --root {flags.what[0]} opens one" if Path(flags.what[0]).is_dir() else ""
    check_flags(flags, OF_SETS, f"data sets, not for files{as_one}")
    code = 0
    paths = [Path(word) for word in flags.what]
    for found in show_files(paths, flags.num_points, flags.up, flags.out, flags.columns, flags.vertices):
        is_error = isinstance(found, PointCloudFileError)
        say(printable(str(found)), sys.stderr if is_error else sys.stdout)
        code |= is_error
    return code


def check_flags(flags: Namespace, others: Mapping[str, Any], where: str) -> None:
    """Raises ValueError where one of the other flags is given, which would change nothing."""
    if given := [name for name, default in others.items() if getattr(flags, name) != default]:
        raise ValueError(f"--{given[0]} is for {where}")
