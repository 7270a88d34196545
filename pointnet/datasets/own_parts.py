"""A folder of anyone's objects whose points have labels: parts, category by category."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pointnet.files import AnyPath
from pointnet.points.features import Range, channel_names, feature_names, unit_sphere_channels
from pointnet.points.frame import notes_on_points
from pointnet.points.read import HASH, columns_of_table, errors_name, read_cloud
from pointnet.points.sampling import KEPT, seed_of

from .cache import Whole
from .clouds import UNIT_SPHERE
from .own_files import own_files
from .own_labels import OwnPoints, labels_of, numbers_without
from .point_labels import draw_labelled


class PartFolder(OwnPoints):
    """Labelled files under `root/<category>/`, of any format that has labels: `data[i]` -> ((C, N), (N,), int).

    The points (float32), the part of each (int64, an index into `data.part_names`) and the category (an index into
    `data.classes`). A cloud is centred and scaled to the unit sphere over all of its points; of these 4,096, or N if
    that is more, are kept in random order, and repeated where there are fewer. The result is cached under
    `root/.cache/`.

    Args:
        root: holds a folder per category, split as `MeshFolder` has it; or files, or `train/`, `val/` and `test/` with
            files, all of one category of the root's name. `parts.txt` in it may name the labels: a line each, of label
            0, 1, 2 and so on, or after its number and a space. Without it the labels are the numbers that occur.
        up, test_fraction, seed, strict, columns, features, intensity: as of `MeshFolder`.

    A category may have the parts that occur in it, in any split. `data.label_numbers` are the numbers of the parts in
    files. Points with a negative label have none, as `LabelledPoints` has it; `data.notes` has their share.

    Raises:
        PointCloudFileError: no folder, no file with labels, or a damaged `parts.txt`; with `strict` also the first file
            that cannot be read.
        ValueError: an argument has none of the values above.
    """

    scale, names_of_labels, by_file = UNIT_SPHERE, "parts.txt", False

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        num_points: int = 1024,
        *,
        normals: bool = False,
        up: str | None = None,
        test_fraction: float = 0.2,
        seed: int = 0,
        strict: bool = False,
        columns: str | Sequence[str] | None = None,
        features: str | Sequence[str] = "",
        intensity: Range | None = None,
    ):
        files = own_files(Path(root), split, num_points, up, test_fraction, seed, columns, None)
        chosen = feature_names(features, normals)
        shape = len(channel_names(chosen)) + 1, max(num_points, KEPT)
        without = numbers_without(files.root / self.names_of_labels)
        sampler = partial(_sample, count=shape[1], features=chosen, up=up, columns=files.columns, without=without)
        settings = f"own parts, version 9, {chosen}, up={up}, {' '.join(files.columns)}, {without}"
        super().__init__(files, split, sampler, shape, settings, chosen, strict, num_points, up, intensity)


def _sample(
    path: Path, count: int, features: Sequence[str], up: str | None, columns: Sequence[str], without: Sequence[int]
) -> Whole:
    """One file as `count` of its points with their labels, the same each time: (C + 1, count), its notes, and the hash
    of its points."""
    seed, extras, by_hand = seed_of(path.name), (*features, "labels", HASH), columns_of_table(path, columns)
    cloud = read_cloud(path, None, seed, up, extras=extras, precise=True, mesh_points=count, columns=by_hand)
    with errors_name(path):
        channels = unit_sphere_channels(cloud, features)
        clouds = draw_labelled(channels.T, labels_of(cloud, without), count, np.random.default_rng(seed))
    return clouds, (*cloud.notes, *notes_on_points(cloud.points)), cloud.points_hash
