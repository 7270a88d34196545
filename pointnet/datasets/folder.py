"""A folder of anyone's meshes and clouds, one subfolder per class."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import torch

from pointnet.files import AnyPath
from pointnet.points.features import Range, channel_names, feature_names, unit_sphere_channels
from pointnet.points.frame import notes_on_points
from pointnet.points.read import HASH, columns_of_table, errors_name, read_cloud
from pointnet.points.sampling import KEPT, seed_of

from .cache import CachedClouds, Whole, cached_clouds
from .clouds import UNIT_SPHERE
from .own_files import OwnSet, own_files


class MeshFolder(OwnSet):
    """Files under `root/<class>/`, of any format `read_points` knows: `data[i]` -> ((C, N) float32, int).

    Meshes are sampled once, area-weighted and seeded by the file's name. Of a cloud points are drawn, or repeated where
    there are too few. Each is centred and scaled to the unit sphere. The result is cached under `root/.cache/`.

    Args:
        root: holds one folder per class, with the files or with `train/` and `test/`, which hold the files; or holds
            `train/` and `test/`, each with one folder per class. Beside them `val/` may hold files of the training
            split for validation. Without such a split the seed chooses the test split, class by class. The choice is
            kept in the cache: files that are added or removed later never move another. Only files that can be read are
            chosen, and files of one object (the same points, or one name but for its ending and the mark of a copy)
            are on one side.
        split: "train" (with `val/`, which `split_validation` holds out) or "test".
        num_points: N, at most a million.
        normals: adds three channels, the normals (a mesh's are its faces'); as "normals" in `features` does.
        up: as in `read_cloud`; None for what the format says (z; y for GLB and glTF).
        test_fraction: the share of each class in the test split, where the folders do not say.
        seed: of that split.
        strict: a file that cannot be read is an error; else it is listed in `data.bad`.
        columns: the names of the columns of files that are tables, as in `read_cloud`; others name their own.
        features: channels beside x y z, of "normals", "rgb" (in [0, 1]) and "intensity", in this order; a list, or
            joined by commas. A file that lacks one cannot be read.
        intensity: what becomes 0 and 1 of the intensity; None: by the clouds of the training split, as
            `points.features.intensity_range` has it, whichever split is opened.

    `data.notes` says how many files were passed over for their suffix, and whether intensity tells nothing.

    Raises:
        PointCloudFileError: no folder, no class with files, or no file that can be read; with `strict` also the first
            file that cannot be read.
        ValueError: an argument has none of the values above.
    """

    scale = UNIT_SPHERE

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
        files = own_files(Path(root), split, num_points, up, test_fraction, seed, columns)
        chosen = feature_names(features, normals)
        how = files.root, num_points, chosen, up, files.columns
        whole = files.undrawn or ("intensity" in chosen and intensity is None)  # else the other split is not read
        cached = sample_files(list(files.found) if whole else files.of(split), *how, others=files.found)
        files = files.drawn(cached, split)
        of_split, of_train = set(files.of(split)), set(files.of("train"))
        its_bad = [error for error in cached.bad if error.path in of_split]
        bad = files.bad(cached._replace(bad=its_bad), split, strict)
        labels = torch.tensor(files.labels(cached.files))
        super().__init__(torch.from_numpy(cached.points), labels, files.classes, num_points)
        self.bad = bad
        self._describe(files, cached, split, up, chosen)
        if "intensity" in chosen:
            rows = [row for row, file in enumerate(cached.files) if file in of_train] or slice(None)
            self._scale(intensity, cached.points[:, -1], rows, files)
        if whole:
            self.keep(torch.tensor([row for row, file in enumerate(cached.files) if file in of_split]))


def sample_files(
    files: Sequence[Path],
    root: Path,
    num_points: int,
    features: Sequence[str] = (),
    up: str | None = None,
    columns: Sequence[str] = (),
    others: Collection[Path] = (),
) -> CachedClouds:
    """Files of any format as clouds in the unit sphere, (S, C, K), K >= num_points; made once, on all cores."""
    shape = (len(channel_names(features)), max(num_points, KEPT))
    sampler = partial(sample_file, count=shape[1], features=features, up=up, columns=columns)
    named = f", tables of {','.join(columns)}" if columns else ""
    named += f", with {features}" if set(features) - {"normals"} else ""
    return cached_clouds(files, sampler, shape, f"unit sphere, up={up}, version 10{named}", root, others)


def sample_file(
    path: Path, count: int, features: Sequence[str] = (), up: str | None = None, columns: Sequence[str] = ()
) -> Whole:
    """One file as `count` points, centred and scaled to the unit sphere, the same each time: (C, count), its notes, and
    the hash of its points.

    Raises:
        PointCloudFileError: as `read_points`, or it lacks a feature, or all its points are one.
    """
    seed, extras, by_hand = seed_of(path.name), (*features, HASH), columns_of_table(path, columns)
    cloud = read_cloud(path, count, seed, up, repeat=True, normalize=True, extras=extras, columns=by_hand)
    with errors_name(path):
        channels = unit_sphere_channels(cloud, features)
    return channels, (*cloud.notes, *notes_on_points(cloud.points)), cloud.points_hash
