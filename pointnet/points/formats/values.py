"""Labels and colours as files write them, in the types and ranges of the library."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .contents import Array

PLAIN_NAN = 0x7FC00000  # the bits of a NaN that was read from text
FULL = (1, 255, 1023, 4095, 65535)  # the largest number of a colour
BOUNDS = (1.01, 256, 1023, 4095, 65535)  # what colours of these ranges do not exceed, as they are rounded
# One of so many points that are not black may have a colour beyond the range of the others, and so many in all.
STRAY, MOST_STRAY = 1000, 10
# Of fractions one of so many may be outside 0 to 1, as resampling and exposure make them; of 255 all others were black.
OVERSHOOT = 10


def unpacked_colors(column: Array) -> tuple[Array | None, tuple[str, ...]]:
    """Red, green and blue (N, 3) of 0xAARRGGBB, the bits of a float32 or a whole number, and notes.

    Bits with the opacity 255 are a NaN, of which a text keeps nothing.
    """
    if column.dtype == np.float32 and are_whole(column) and column.any():  # bits of colours are no whole numbers
        column = column.astype(np.float64)
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

    Bytes are of 255. Of other numbers the least and the largest decide, but for stray ones (`range_of`); integers are
    never of 1. Notes say that all are black, or were taken to be of 10 or 12 bits, by their numbers alone, and how many
    are no numbers or outside the range, of rows whose points (n, 3) are finite.
    """
    found, notes = _in_range(colors, points)
    return found, notes if found.any() or not found.size else (*notes, "all colours are black")


def _in_range(colors: Array, points: Array | None) -> tuple[Array, tuple[str, ...]]:
    """`as_unit_colors`, without a word on black ones."""
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
    scaled = rgb.astype(np.float32)
    full, of_range = range_of([scaled], 255 if is_whole else 1)
    if full > 1:
        scaled /= np.float32(full)
        notes += [of_range] * (full in (1023, 4095))
    elif _begins_at_minus_one(scaled):
        scaled = (scaled + np.float32(1)) / np.float32(2)
    least = -0.01 if full == 1 else -0.5 / full
    if scaled.min() < least or scaled.max() > 1.01:
        others = ((scaled < least) | (scaled > 1.01)).any(axis=1).sum()
        notes.append(f"colours outside 0 to {full}, cut to that range: {others:,}")
    if lost is not None:
        scaled[lost] = 0
    return np.clip(scaled, 0, 1, out=scaled), tuple(notes)


def _begins_at_minus_one(colors: Array) -> bool:
    """Whether colours (n, 3) to 1 are from -1 on, but for stray ones."""
    lows = colors.min(axis=1)
    below, far = (int(np.count_nonzero(lows < bound)) for bound in (-0.01, -1.01))
    return below > len(lows) // OVERSHOOT and far <= _most_stray(len(lows))


def _most_stray(count: int) -> int:
    return min(MOST_STRAY, count // STRAY)


def range_of(blocks: Iterable[Array], least: int) -> tuple[int, str]:
    """The smallest number of `FULL`, from the least on, that colours (n, 3) have, block by block, and a note of it.

    A few may be beyond it, as where points are painted by hand: one in `STRAY` of those that are not black, and at most
    `MOST_STRAY`, so that the lamps of a dark scan count.
    """
    colored, beyond, has_fractions = 0, [0] * len(FULL), False
    for block in (block for block in blocks if len(block)):
        tops, has_fractions = block.max(axis=1), has_fractions or (least == 1 and bool((block % 1).any()))
        colored += int(np.count_nonzero(tops > 0))
        for i, bound in enumerate(BOUNDS):
            if not (count := int(np.count_nonzero(tops > bound))):
                break
            beyond[i] += count
    if has_fractions and beyond[0] <= colored // OVERSHOOT:
        return 1, ""
    pairs = ((full, count) for full, count in zip(FULL, beyond, strict=True) if full >= least)
    full, count = next((each for each in pairs if each[1] <= _most_stray(colored)), (FULL[-1], beyond[-1]))
    return full, f"colours {'hardly ever' if count else 'never'} exceed {full}, taken as {full.bit_length()} bits"
