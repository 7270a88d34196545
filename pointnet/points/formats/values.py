"""Labels and colours as files write them, in the types and ranges of the library."""

import numpy as np
from numpy.typing import NDArray

from .contents import Array

PLAIN_NAN = 0x7FC00000  # the bits of a NaN that was read from text
FULL = (1, 255, 1023, 4095, 65535)  # the largest number of a colour


def unpacked_colors(column: Array) -> tuple[Array | None, tuple[str, ...]]:
    """Red, green and blue (N, 3) of 0xAARRGGBB, the bits of a float32 or a whole number, and notes.

    Bits with the opacity 255 are a NaN, of which a text keeps nothing.
    """
    if column.dtype == np.float32 or not are_whole(column):
        column = column.astype(np.float32).view(np.uint32)
        if (lost := int((column == PLAIN_NAN).sum())) and (column != 0).any():
            return None, (f"colours left out: {lost:,} of them were written as NaN",)
    number = column.astype(np.int64)
    return np.stack([(number >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=1), ()


def as_labels(column: Array) -> NDArray[np.int64] | None:
    """(N,) as int64, −1 where there is none (NaN), or None where they are not whole numbers."""
    if column.dtype.kind in "iub":
        return column.astype(np.int64)
    missing = np.isnan(column)
    column = np.where(missing, -1, column) if missing.any() and not missing.all() else column
    return column.astype(np.int64) if are_whole(column) else None


def are_whole(column: Array) -> bool:
    return bool(np.isfinite(column).all() and (np.abs(column) < 2**53).all() and (column == np.rint(column)).all())


def as_unit_colors(colors: Array, points: Array | None = None) -> tuple[Array, tuple[str, ...]]:
    """(n, 3 or more), in [0, 1], [-1, 1] or from 0 to 255, 1023, 4095, 65535 -> (n, 3) float32 in [0, 1], and notes.

    Bytes are of 255. Of other numbers the least and the largest decide; integers are never of 1. Notes say that colours
    were taken to be of 10 or 12 bits, by their largest number alone, and how many are no numbers or outside the range,
    of rows whose points (n, 3) are finite.
    """
    rgb = np.asarray(colors[:, :3])
    if rgb.dtype == np.int8:  # "char" where "uchar" is meant
        rgb = rgb.view(np.uint8)
    if rgb.dtype == np.uint8 or not rgb.size:
        return rgb.astype(np.float32) / np.float32(255), ()
    notes, is_whole = list[str](), rgb.dtype.kind in "iu"
    lost = None if is_whole else ~np.isfinite(rgb).all(axis=1)
    if lost is not None and lost.any():
        rgb = np.where(lost[:, None], 0, rgb)
        count = (lost if points is None else lost & np.isfinite(points).all(axis=1)).sum()
        notes += [f"colours that are not finite, taken as black: {count:,}"] * bool(count)
    scaled, full = rgb.astype(np.float32), 1
    if is_whole or scaled.max() > 1.01:
        full = _full(float(scaled.max()))
        scaled /= np.float32(full)
        notes += [f"colours never exceed {full}, taken as {full.bit_length()} bits"] * (full in (1023, 4095))
    elif -1.01 <= scaled.min() < -0.01:
        scaled = (scaled + np.float32(1)) / np.float32(2)
    least = -0.01 if full == 1 else -0.5 / full
    if scaled.min() < least or scaled.max() > 1.01:
        others = ((scaled < least) | (scaled > 1.01)).any(axis=1).sum()
        notes.append(f"colours outside 0 to {full}, cut to that range: {others:,}")
    if lost is not None:
        scaled[lost] = 0
    return np.clip(scaled, 0, 1, out=scaled), tuple(notes)


def _full(highest: float) -> int:
    """The smallest number of `FULL` that colours to this number may have, from 255 on."""
    return 255 if highest <= 256 else next((full for full in FULL[2:] if highest <= full), FULL[-1])
