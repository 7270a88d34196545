"""BIN, rows of float32 without a header: x y z intensity as in KITTI, or with a ring number behind as in nuScenes.

Nothing says that a BIN is such a scan, so its numbers must look like one's. Its labels are in a file of their own, as
in SemanticKITTI (Behley et al. 2019; semantic-kitti.org, "Dataset"): a uint32 for each point, whose lower half is the
label and whose upper half is the number of the instance.
"""

from pathlib import Path

import numpy as np

from ..errors import Refusal
from .contents import EXTRAS, Array, Contents, Extras, blocks_of_rows
from .scan import quoted

KITTI, NUSCENES = 4, 5  # numbers of a point
FARTHEST, STRONGEST = 1e5, 65535  # metres from the scanner, and the largest intensity
SMALLEST = 1e-20  # bytes of another kind are numbers below it, seldom exactly 0
MOST_RINGS = 256
SOME_ROWS, FEWEST = 2000, 100  # rows whose distribution is compared


def parse_bin(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A scan's points, intensity and labels; rows of five numbers only where the fifth is a ring's.

    Raises:
        Refusal: no whole rows of four or five, or numbers that no scanner gives; or another number of labels.
    """
    size = path.stat().st_size
    widths = [width for width in (KITTI, NUSCENES) if size % (4 * width) == 0]
    if not widths:
        raise Refusal(f"holds {size} bytes, no whole rows of x y z intensity in float32 (KITTI)")
    numbers = np.memmap(path, "<f4", "r").view(np.ndarray)  # what is no scan is not read to its end
    scans = {width: rows for width in widths if _is_scan(rows := numbers.reshape(-1, width))}
    if not scans:
        raise Refusal("holds numbers that are no scan's x y z intensity in float32 (KITTI)")
    if all(_are_alike(rows[:, :KITTI]) for rows in scans.values()):
        raise Refusal("holds rows whose four numbers are distributed alike, so they are no x y z intensity (KITTI)")
    # Where both fit, what has intensities up to 1 is KITTI's.
    width = KITTI if KITTI in scans and (len(scans) == 1 or np.nanmax(scans[KITTI][:, 3]) <= 1) else max(scans)
    notes = ("rows of five numbers, taken as x y z intensity ring (nuScenes); rings left out",) * (width == NUSCENES)
    rows, labels = scans[width], None
    if "labels" in extras and (file := labels_beside(path)):
        if (held := file.stat().st_size / 4) != len(rows):
            raise Refusal(f"holds {len(rows)} points but {held:.12g} labels in {quoted(file.name)}")
        halves = np.fromfile(file, "<u2")
        labels = halves[::2].astype(np.int64)
        notes += ("numbers of instances in its labels left out",) * bool(halves[1::2].any())
    return Contents(rows[:, :3], intensity=rows[:, 3] if "intensity" in extras else None, labels=labels, notes=notes)


def labels_beside(path: Path) -> Path | None:
    """The file with the labels of a scan, if there is one: beside it, or in `labels/` beside its folder."""
    near = path.with_suffix(".label"), path.absolute().parent.parent / "labels" / f"{path.stem}.label"
    return next((file for file in near if file.is_file()), None)


def _are_alike(rows: Array) -> bool:
    """Whether all columns have the distribution of the first, as rows of another width have: Kolmogorov and Smirnov's
    test at 1 per cent, of some rows."""
    some = np.sort(rows[:: len(rows) // SOME_ROWS + 1], axis=0)
    shares = [np.searchsorted(column, some[:, 0], "right") / len(some) for column in some.T]
    farthest = max(np.abs(share - shares[0]).max() for share in shares)
    return len(some) >= FEWEST and bool(farthest < 1.63 * np.sqrt(2 / len(some)))


def _is_scan(rows: Array) -> bool:
    """Whether rows may be a scan's; some may be not finite, where a beam came back from nothing."""
    is_scan = False
    for block in blocks_of_rows(rows):
        block = block[np.isfinite(block).all(1)]
        size, intensity, whole = np.abs(block[:, :3]), block[:, 3], block == np.rint(block)
        fits = (size < FARTHEST) & ((size > SMALLEST) | (size == 0))
        if not (fits.all() and ((intensity >= 0) & (intensity <= STRONGEST)).all()):
            return False
        ring = block[:, KITTI:]
        if not (whole[:, KITTI:].all() and ((ring >= 0) & (ring < MOST_RINGS)).all()):
            return False
        # Coordinates that are all 0, or with a ring all whole, are something else.
        is_scan = is_scan or bool((~whole[:, :3] if ring.size else size > 0).any())
    return is_scan
