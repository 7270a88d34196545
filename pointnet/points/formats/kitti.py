"""BIN, rows of float32 without a header: x y z intensity as in KITTI, or with a ring number behind as in nuScenes.

Nothing says that a BIN is such a scan, so its numbers must look like one's.
"""

from pathlib import Path

import numpy as np

from ..errors import Refusal
from .contents import EXTRAS, Array, Contents, Extras

KITTI, NUSCENES = 4, 5  # numbers of a point
FARTHEST, STRONGEST = 1e5, 65535  # metres from the scanner, and the largest intensity
SMALLEST = 1e-20  # bytes of another kind are numbers below it, seldom exactly 0
MOST_RINGS = 256


def parse_bin(path: Path, extras: Extras = EXTRAS) -> Contents:
    """A scan's points and intensity; rows of five numbers only where the fifth is a ring's.

    Raises:
        Refusal: no whole rows of four or five, or numbers that no scanner gives.
    """
    data = path.read_bytes()
    tables = {width: _rows(data, width) for width in (KITTI, NUSCENES) if len(data) % (4 * width) == 0}
    if not tables:
        raise Refusal(f"holds {len(data)} bytes, no whole rows of x y z intensity in float32 (KITTI)")
    scans = {width: rows for width, rows in tables.items() if _is_scan(rows)}
    if not scans:
        raise Refusal("holds numbers that are no scan's x y z intensity in float32 (KITTI)")
    # Where both fit, what has intensities up to 1 is KITTI's.
    width = KITTI if KITTI in scans and (len(scans) == 1 or scans[KITTI][:, 3].max() <= 1) else max(scans)
    notes = ("rows of five numbers, taken as x y z intensity ring (nuScenes); rings left out",) * (width == NUSCENES)
    near = (path.with_suffix(".label"), path.parent.parent / "labels" / f"{path.stem}.label")
    if labels := next((file for file in near if "labels" in extras and file.is_file()), None):
        notes += (f"labels in {labels.name} are not read: no file but this one is",)
    rows = scans[width]
    return Contents(rows[:, :3], intensity=rows[:, 3] if "intensity" in extras else None, notes=notes)


def _rows(data: bytes, width: int) -> Array:
    return np.frombuffer(data, "<f4").reshape(-1, width)


def _is_scan(rows: Array) -> bool:
    """Whether rows may be a scan's; a minority may be not finite, where a beam came back from nothing."""
    rows = rows[np.isfinite(rows).all(1)]
    size = np.abs(rows)
    fits = bool(len(rows)) and bool(
        (size[:, :3] < FARTHEST).all()
        and ((rows[:, 3] >= 0) & (rows[:, 3] <= STRONGEST)).all()
        and ((size[:, :3] > SMALLEST) | (size[:, :3] == 0)).all()
        and size[:, :3].any()
    )
    if not fits or rows.shape[1] == KITTI:
        return fits
    ring = rows[:, 4]
    whole = (rows == np.rint(rows)).all(0)
    return bool(whole[4] and not whole[:3].all() and ((ring >= 0) & (ring < MOST_RINGS)).all())
