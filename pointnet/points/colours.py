"""The colours of labels: one palette for pages and for PLY files."""

import numpy as np
from numpy.typing import NDArray

# One colour per label; after the last one they repeat from the first.
PALETTE = (
    "#2f6fb0", "#e07b28", "#3a9a5b", "#c8423f", "#8459a8", "#d6a419", "#2ba3a8", "#d86a9e", "#7a5c46", "#62aee6",
    "#8c4a12", "#8aa82e", "#8b2635", "#4b3f9e", "#1d6b5f", "#a63a8a",
)  # fmt: skip
PALETTE_BYTES = np.array([tuple(bytes.fromhex(colour[1:])) for colour in PALETTE], np.uint8)


def label_colours(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Red, green and blue of each label, from 0 to 255: (N,) integers -> (N, 3)."""
    return PALETTE_BYTES[labels % len(PALETTE_BYTES)]
