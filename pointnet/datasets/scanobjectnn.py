"""ScanObjectNN (Uy et al., *Revisiting Point Cloud Classification*, ICCV 2019): objects cut out of indoor scans."""

import torch

from pointnet.files import AnyPath
from pointnet.points.frame import in_unit_sphere
from pointnet.points.read import errors_name

from .clouds import UNIT_SPHERE, LabelledClouds
from .given import check_num_points, check_one_of
from .releases import Form, find_release, read_labelled_hdf5, to_channels

# In the published order of the labels.
SCANOBJECTNN = tuple("bag bin box cabinet chair desk display door shelf table bed pillow sink sofa toilet".split())

SUFFIXES = {"objects": "", "pb_t50_rs": "_augmentedrot_scale75"}
PREFIXES = {"train": "training", "test": "test"}
SOURCE = "; its authors give it to those who fill in a form, https://hkust-vgd.github.io/scanobjectnn/"
FORMS = {"hdf5": Form(("h5_files", "*/h5_files"), ("main_split*",), read_labelled_hdf5)}


class ScanObjectNN(LabelledClouds):
    """ScanObjectNN's main split in memory, 15 classes: `data[i]` -> ((3, N) float32, int).

    Args:
        root: the set's own folder (that of `main_split/`), or the folder that holds it, as `h5_files/` or any other.
        split: "train" or "test", as released.
        num_points: N, the first points of each cloud; a file has 2,048 in random order.
        variant: "pb_t50_rs", the hardest one, which most results are for (each object about five times, its box moved
            by up to half its size, rotated about the up axis and scaled), or "objects", the objects as they were found.
        background: whether the points around an object are included: OBJ_BG with them, OBJ_ONLY without, for the
            variant "objects".

    As in the authors' own training code, each cloud is centred and scaled to the unit sphere over all of its points.
    The files are y-up (github.com/hkust-vgd/scanobjectnn, issue 33 and the rotations of its provider.py) and assumed
    right-handed, as scans are: a rotation by 90° about x makes them z-up.

    Raises:
        PointCloudFileError: `root` holds nothing of the set, or the file is missing, damaged or of the wrong shape, or
            holds too few points, wrong labels, or a cloud without extent.
        ValueError: an argument has none of the values above.
    """

    scale = UNIT_SPHERE

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        num_points: int = 1024,
        *,
        variant: str = "pb_t50_rs",
        background: bool = True,
    ):
        check_one_of("split", split, tuple(PREFIXES))
        check_one_of("variant", variant, tuple(SUFFIXES))
        check_num_points(num_points)
        name = f"{PREFIXES[split]}_objectdataset{SUFFIXES[variant]}.h5"
        folder, read = find_release("ScanObjectNN", root, FORMS, source=SOURCE)
        path = folder / ("main_split" if background else "main_split_nobg") / name
        points, labels = read(path, len(SCANOBJECTNN), num_points, whole=True)
        with errors_name(path):
            points = in_unit_sphere(points)
        points = to_channels(points[:, :num_points], "y")
        super().__init__(torch.from_numpy(points), torch.from_numpy(labels), SCANOBJECTNN)
