"""The colours of labels: one palette for pages and for PLY files."""

import numpy as np
from numpy.typing import NDArray

# One colour per label, as many as ShapeNetPart has parts; after the last one they repeat from the first. The first 16
# were chosen by eye, each later one as the farthest in CIELAB from all before it, neither too dark nor too light.
PALETTE = (
    "#2f6fb0", "#e07b28", "#3a9a5b", "#c8423f", "#8459a8", "#d6a419", "#2ba3a8", "#d86a9e", "#7a5c46", "#62aee6",
    "#8c4a12", "#8aa82e", "#8b2635", "#4b3f9e", "#1d6b5f", "#a63a8a", "#0000ff", "#ff1eff", "#00d200", "#ff0000",
    "#965aff", "#c3c396", "#ff0078", "#ffa596", "#ff87ff", "#2d4b00", "#d2b4d2", "#f000b4", "#00d269", "#4b3c5a",
    "#3c87ff", "#9600a5", "#008700", "#786900", "#96d200", "#00d2b4", "#c3a5ff", "#a50fff", "#1e1ed2", "#ff1e4b",
    "#c3965a", "#b4005a", "#c3c300", "#78874b", "#b47887", "#c32d00", "#003cc3", "#87d278", "#ff6987", "#005a78",
)  # fmt: skip
PALETTE_BYTES = np.array([tuple(bytes.fromhex(colour[1:])) for colour in PALETTE], np.uint8)


def label_colours(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Red, green and blue of each label, from 0 to 255: (N,) integers -> (N, 3)."""
    return PALETTE_BYTES[labels % len(PALETTE_BYTES)]


def are_of_labels(colors: NDArray[np.floating]) -> bool:
    """Whether all colours (N, 3) in [0, 1] are of the palette."""
    place = np.array([1 << 16, 1 << 8, 1])
    return bool(np.isin(np.rint(colors * 255).astype(np.int64) @ place, PALETTE_BYTES @ place).all())
