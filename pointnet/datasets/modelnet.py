"""ModelNet40 and ModelNet10 (Wu et al., 2015), in the library's frame and class order."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pointnet.files import AnyPath
from pointnet.points.formats.scan import quoted
from pointnet.points.frame import check_up
from pointnet.points.read import PointCloudFileError, read_points

from . import releases
from .cache import cached_clouds
from .clouds import UNIT_SPHERE, LabelledClouds
from .folder import sample_files
from .given import check_num_points, check_one_of

MODELNET40 = tuple(
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot "
    "glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink "
    "sofa stairs stool table tent toilet tv_stand vase wardrobe xbox".split()
)
MODELNET10 = tuple("bathtub bed chair desk dresser monitor night_stand sofa table toilet".split())
HDF5_FOLDER = "modelnet40_ply_hdf5_2048"


class ModelNet(LabelledClouds):
    """ModelNet40, or the ModelNet10 classes of it, in any of its three forms: `data[i]` -> ((C, N) float32, int).

    Args:
        root: the set's own folder, or the folder that holds it (`data` for `data/modelnet40_ply_hdf5_2048`).
        split: "train" or "test", as released. "train" is all of it; `split_validation` carves from it.
        num_classes: 40, or 10 for ModelNet10's classes. Labels index the sorted canonical names, `data.classes`,
            even where a folder holds fewer of them.
        num_points: N: the first rows of each shape as released; of a mesh, points drawn from its surface, seeded by
            its file's name, centred and scaled to the unit sphere.
        form: "hdf5", the public `modelnet40_ply_hdf5_2048`; "text", `modelnet40_normal_resampled` of 10,000 points;
            "off", the original meshes. None finds one, in that order. Text and meshes are read once and cached.
        up: how the file's axes become the library's (z up, right-handed). None: as known of the form (HDF5 and text
            are the mesh frame with y and z swapped, a mirror image; they are swapped back). "z": unchanged.
            Others: a right-handed frame with that axis up, as in `read_cloud`.
        normals: adds three channels, the normals (a mesh's are its faces').

    Raises:
        PointCloudFileError: `root` holds nothing of the set, or a file of it is missing, damaged or of the wrong
            shape, or holds too few points or none of the classes.
        ValueError: an argument has none of the values above.
    """

    scale = UNIT_SPHERE

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        *,
        num_classes: int = 40,
        num_points: int = 1024,
        form: str | None = None,
        up: str | None = None,
        normals: bool = False,
    ):
        check_one_of("split", split, ("train", "test"))
        check_one_of("num_classes", num_classes, (40, 10))
        check_up(up)
        check_num_points(num_points)
        classes = MODELNET10 if num_classes == 10 else MODELNET40
        folder, read = releases.find_release(f"ModelNet{num_classes}", root, FORMS, form)
        points, names = read(folder, split, classes, num_points, up, normals)
        if not names:
            raise PointCloudFileError(folder, f"its {split} split holds no shape of ModelNet{num_classes}")
        labels = torch.tensor([classes.index(name) for name in names])
        super().__init__(torch.from_numpy(points), labels, classes, num_points)
        self.up = up


Names = tuple[str, ...]
NamedClouds = tuple[NDArray[np.float32], list[str]]  # (S, C, K), K >= num_points, and the class of each


def _read_hdf5(folder: Path, split: str, classes: Names, num_points: int, up: str | None, normals: bool) -> NamedClouds:
    names = releases.read_lines(folder / "shape_names.txt")
    if unknown := sorted(set(names) - set(MODELNET40)):
        raise PointCloudFileError(folder / "shape_names.txt", f"'{unknown[0]}' is not a class of ModelNet40")
    wanted = np.array([name in classes for name in names])
    clouds, labels = [], []
    for path in releases.listed_files(folder / f"{split}_files.txt", f"ply_data_{split}*.h5"):
        rows, of_rows = releases.read_labelled_hdf5(path, len(names), num_points, normals)
        kept = wanted[of_rows]
        clouds.append(releases.to_channels(rows if kept.all() else rows[kept], up))
        labels.append(of_rows[kept])
    return np.concatenate(clouds), [names[label] for label in np.concatenate(labels)]


def _read_text(folder: Path, split: str, classes: Names, num_points: int, up: str | None, normals: bool) -> NamedClouds:
    listing = folder / f"modelnet40_{split}.txt"  # of the 40 classes, and so of the 10
    if not listing.is_file():
        listing = folder / f"modelnet10_{split}.txt"
    names = [name for name in releases.read_lines(listing) if name.rpartition("_")[0] in classes]
    if outside := [name for name in names if not releases.is_plain_name(name)]:
        raise PointCloudFileError(listing, f"must list '<class>_<number>', got {quoted(outside[0])}")
    files = [folder / name.rpartition("_")[0] / f"{name}.txt" for name in names]
    releases.check_files_exist(files)
    sampler = partial(released_rows, num_points=num_points, up=up, normals=normals)
    shape = (6 if normals else 3, num_points)
    cached = cached_clouds(files, sampler, shape, f"first rows, up={up}, version 1", folder).strict()
    return cached.points, [name.rpartition("_")[0] for name in names]


def _read_off(folder: Path, split: str, classes: Names, num_points: int, up: str | None, normals: bool) -> NamedClouds:
    files = [file for name in classes for file in sorted((folder / name / split).glob("*.off"))]
    cached = sample_files(files, folder, num_points, ("normals",) if normals else (), up).strict()
    return cached.points, [file.parent.parent.name for file in files]


def released_rows(path: Path, num_points: int, up: str | None, normals: bool) -> NDArray[np.float32]:
    """The first rows of a file of the text release, in the library's frame: (3 or 6, num_points)."""
    rows = read_points(path, normals=normals, up="z")
    if len(rows) < num_points:
        raise PointCloudFileError(path, f"has {len(rows)} points, fewer than num_points={num_points}")
    return releases.to_channels(rows[None, :num_points], up)[0]


# In the order they are looked for.
FORMS = {
    "hdf5": releases.Form((HDF5_FOLDER,), ("shape_names.txt", "ply_data_*.h5"), _read_hdf5),
    "text": releases.Form(("modelnet40_normal_resampled",), ("modelnet[14]0_t*.txt",), _read_text),
    "off": releases.Form(("ModelNet40", "ModelNet10"), ("*/t[re][as]*/*.off",), _read_off),
}
