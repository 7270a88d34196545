"""Anyone's labelled scans, of any size, cut into blocks."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointnet.files import AnyPath
from pointnet.points.features import Range, channel_names, feature_names, features_of
from pointnet.points.frame import bounds
from pointnet.points.read import HASH, PointCloud, Rows, columns_of_table, errors_name, read_cloud
from pointnet.points.sampling import seed_of

from .blocks import (
    FEWEST,
    MESH_POINTS,
    POINTS,
    Cells,
    Heights,
    check_extent,
    cut_blocks,
    far_outside,
    frame_of_scene,
    held_out_scenes,
    said_of_stray,
    speck,
)
from .cache import Whole
from .clouds import BLOCKS
from .own_files import own_files
from .own_labels import OwnPoints, labels_of, numbers_without
from .own_objects import first_clouds, whole_objects

WIDER = "is it in another unit? Else train with a larger --block"
MOST_BLOCKS = 2000  # of a file
MOST_SPARSE = 0.01  # of a file's points, in blocks of too few, without a note


class SceneFolder(OwnPoints):
    """Labelled files, cut into square blocks: `data[i]` -> ((C, N) float32, (N,) int64, int).

    The points, the class of each (an index into `data.part_names`) and the file (an index into `data.classes`). A block
    is cut every half side, and has at least 100 points; of these 4,096, or N if that is more, are kept in random order,
    and repeated where there are fewer. Of a file with more than 2,000 blocks so many are drawn. x and y are from the
    middle of the block, z from the lowest point of the file but for a few stray ones, all in sides of a block; features
    follow. The result is cached under `root/.cache/`.

    Args:
        root: holds files, or `train/`, `test/` and perhaps `val/` with files. Without them the seed chooses whole files
            for testing, as `MeshFolder` does. `classes.txt` in it may name the labels, as `parts.txt` of `PartFolder`.
        num_points: N, points of a block.
        block: the side of a block, in the unit of the files.
        up, test_fraction, seed, strict, columns, features, intensity: as of `MeshFolder`.

    `split_validation` holds out the files of `val/`, or whole files, since blocks overlap. `data.label_numbers` are the
    numbers of the classes in files. Points with a negative label have none, as `LabelledPoints` has it; `data.notes`
    has their share. A block in which none was drawn that has a label is left out.

    Raises:
        PointCloudFileError: no folder, no file with labels, or a damaged `classes.txt`; with `strict` also the first
            file that cannot be read.
        ValueError: an argument has none of the values above.
    """

    scale, names_of_labels, by_file = BLOCKS, "classes.txt", True

    def __init__(
        self,
        root: AnyPath,
        split: str = "train",
        num_points: int = POINTS,
        *,
        normals: bool = False,
        up: str | None = None,
        test_fraction: float = 0.2,
        seed: int = 0,
        strict: bool = False,
        columns: str | Sequence[str] | None = None,
        features: str | Sequence[str] = "",
        intensity: Range | None = None,
        block: float = 1.0,
    ):
        if not 0 < block < np.inf:
            raise ValueError(f"block must be a size above 0, in the unit of the files, got {block}")
        files = own_files(Path(root), split, num_points, up, test_fraction, seed, columns, True)
        chosen = feature_names(features, normals)
        shape = len(channel_names(chosen)) + 1, max(num_points, POINTS)
        without = numbers_without(files.root / self.names_of_labels)
        sampler = partial(_cut, shape=shape, side=block, features=chosen, up=up, columns=files.columns, without=without)
        settings = f"own scenes, version 10, {chosen}, up={up}, {' '.join(files.columns)}, {without}, block={block!r}"
        super().__init__(files, split, sampler, shape, settings, chosen, strict, num_points, up, intensity)
        self.block = block
        counts = np.bincount(self.labels.numpy()).tolist()
        full = [self.classes[i] for i, count in enumerate(counts) if count == MOST_BLOCKS]
        self.notes += [f"{name}: {MOST_BLOCKS:,} of its blocks drawn; a larger --block has fewer" for name in full]
        if len(self) == len(self.labels.unique()):
            self.notes.append(
                f"each file is one block of {block:g}, of {shape[1]:,} points; a smaller --block has more"
            )

    def held_out(self, seed: int, fraction: float) -> Tensor:
        """(S,) bool, the blocks that `split_validation` gives to validation: those of some files, never of all."""
        held_out = held_out_scenes(self.labels, seed, fraction)
        return whole_objects(held_out, self.first_clouds(), torch.zeros_like(self.labels))

    def first_clouds(self) -> Tensor:
        """As of `LabelledClouds`: all blocks of a file, and of its copies, are of one scene."""
        return first_clouds(self.files, self.contents, torch.zeros_like(self.labels))


def _cut(
    path: Path,
    shape: tuple[int, int],
    side: float,
    features: Sequence[str],
    up: str | None,
    columns: Sequence[str],
    without: Sequence[int],
) -> Whole:
    """The blocks of one file, the same each time: (n, *shape), its notes, and the hash of its points."""
    seed, extras = seed_of(path.name), (*features, "labels", HASH)
    how: dict[str, Any] = {"mesh_points": MESH_POINTS, "mapped": True, "columns": columns_of_table(path, columns)}
    cloud = read_cloud(path, None, seed, up, extras=extras, precise=True, **how)
    with errors_name(path):
        blocks, lost = scene_blocks(cloud, features, side, shape, np.random.default_rng(seed), without)
    few = f"{lost:.1%} of its points are in blocks of {side:g} with fewer than {FEWEST} points, and left out"
    low, high = bounds(cloud.points)
    far = said_of_stray(Heights.of(cloud.points, side)), far_outside(cloud.points, side, False)
    narrow = speck(float((high - low)[:2].max()), side)
    notes = (*cloud.notes, *filter(None, (*far, narrow, few if lost > MOST_SPARSE else None)))
    return blocks, notes, cloud.points_hash


def scene_blocks(
    cloud: PointCloud,
    features: Sequence[str],
    side: float,
    shape: tuple[int, int],
    generator: np.random.Generator,
    without: Sequence[int] = (),
) -> tuple[NDArray[np.float32], float]:
    """A labelled cloud cut into blocks, as `LabelledPoints` has them, (n, *shape), and the share of its points that is
    in none, as their blocks have too few.

    Raises:
        ValueError: it lacks labels or a feature, is too wide for blocks of this side, or most of its points are in
            blocks of too few.
    """
    of_rows, labels = features_of(cloud, features), labels_of(cloud, without)
    low, extent = frame_of_scene(cloud.points, side)
    check_extent(cloud.points, extent, side, WIDER)
    points = Rows(cloud.points, lambda rows: (rows - low).astype(np.float32))
    cells = Cells.of(points, side)
    dense = cells.counts() >= FEWEST
    grid = cells.grid()
    held = np.zeros(grid.shape, bool)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        held[i : i + dense.shape[0], j : j + dense.shape[1]] |= dense
    lost = 1 - float(grid[held].sum()) / len(points)
    if lost > 0.5:
        few = f"of {side:g} that have fewer than {FEWEST} points"
        raise ValueError(f"has most of its points in blocks {few}; {WIDER}")
    corners = np.argwhere(dense)
    if len(corners) > MOST_BLOCKS:
        corners = corners[np.sort(generator.permutation(len(corners))[:MOST_BLOCKS])]
    how: Any = {"extent": extent, "side": side, "shares": False}
    return cut_blocks(points, of_rows, labels, cells, corners, shape, generator, **how), lost
