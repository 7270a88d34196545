"""Makes the development split of ModelNet40 from the public HDF5 release.

    python -m tools.development_split --download

Only the release's training files are read. The shapes that `tools/development_split.txt` lists (1,231, drawn by class)
become the test split, all others the training split; the first 1,024 points of each are kept. The official test split
is not touched, so settings can be chosen on this one.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pointnet.commands.program import whole_program
from pointnet.datasets.download import ARCHIVES, DownloadError, download
from pointnet.datasets.modelnet import HDF5_FOLDER, MODELNET40
from pointnet.datasets.releases import listed_files, read_labelled_hdf5
from pointnet.extras import MissingExtraError
from pointnet.points.read import PointCloudFileError

LISTED = Path(__file__).with_suffix(".txt")
NUM_POINTS = 1024
Shapes = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_]]  # (S, 1024, 3), (S,), (S,) class_NNNN


def listed_names(listed: Path = LISTED) -> set[str]:
    """The names of the test shapes, as `chair_0017`."""
    rows = (line.split() for line in listed.read_text(encoding="utf-8").splitlines())
    return {f"{name}_{int(number):04d}" for name, *numbers in rows for number in numbers}


def read_shapes(path: Path) -> Shapes:
    """The shapes of one file of the release, with their names from the list beside it."""
    points, labels = read_labelled_hdf5(path, len(MODELNET40), NUM_POINTS)
    names = path.with_name(re.sub(r"(\d+)\.h5$", r"_\1_id2file.json", path.name))
    try:
        listed = [Path(file).stem for file in json.loads(names.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise PointCloudFileError(names, f"must be a list of the shapes' names: {error}") from error
    if len(listed) != len(points):
        raise PointCloudFileError(names, f"must name {len(points)} shapes, got {len(listed)}")
    return points, labels, np.array(listed)


def write_file(folder: Path, split: str, number: int, shapes: Shapes) -> None:
    points, labels, names = shapes
    with h5py.File(folder / f"ply_data_{split}{number}.h5", "w") as file:
        file.create_dataset("data", data=points, compression="gzip")
        file.create_dataset("label", data=labels.astype(np.uint8)[:, None])
    files = [f"{MODELNET40[label]}/{name}.ply" for label, name in zip(labels, names, strict=True)]
    (folder / f"ply_data_{split}_{number}_id2file.json").write_text(json.dumps(files))


def make_split(release: Path, out: Path) -> tuple[int, int]:
    """Writes `out`, in the release's layout and by one rename; returns how many shapes are in train and test.

    Raises:
        PointCloudFileError: `out` exists, or the release is damaged or holds no shape of the test split.
    """
    if out.exists():
        raise PointCloudFileError(out, "exists; delete it to make it again")
    for_test, making = listed_names(), out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    files, held, count = listed_files(release / "train_files.txt", "ply_data_train*.h5"), [], 0
    for number, path in enumerate(files):
        shapes = read_shapes(path)
        is_test = np.isin(shapes[2], list(for_test))
        held.append([part[is_test] for part in shapes])
        write_file(making, "train", number, (shapes[0][~is_test], shapes[1][~is_test], shapes[2][~is_test]))
        count += int((~is_test).sum())
    points, labels, names = (np.concatenate(parts) for parts in zip(*held, strict=True))
    if not len(names):
        raise PointCloudFileError(release, "holds no shape of the test split; is it the release of ModelNet40?")
    write_file(making, "test", 0, (points, labels, names))
    (making / "shape_names.txt").write_text("".join(f"{name}\n" for name in MODELNET40))
    for split, many in (("train", len(files)), ("test", 1)):
        lines = (f"data/{HDF5_FOLDER}/ply_data_{split}{number}.h5\n" for number in range(many))
        (making / f"{split}_files.txt").write_text("".join(lines))
    os.replace(making, out)
    return count, len(names)


@whole_program
def main(arguments: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--root", type=Path, default=Path("data"), help="the folder that holds the release")
    parser.add_argument("--out", type=Path, default=Path("../shared/data/modelnet40_dev"), help="where the split goes")
    parser.add_argument("--download", action="store_true", help="download the release if it is not there (415 MiB)")
    args = parser.parse_args(arguments)
    try:
        release = download(ARCHIVES["modelnet40"], args.root) if args.download else args.root / HDF5_FOLDER
        train, test = make_split(release, args.out / HDF5_FOLDER)
    except (PointCloudFileError, DownloadError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {train:,} shapes to train on, {test:,} of the {len(listed_names()):,} test shapes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
