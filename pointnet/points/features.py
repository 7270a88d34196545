"""What points have beside their places, as channels of a network: names, order and scale; the one place for them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointnet.names import check_name, first_of

from .cloud import PointCloud
from .formats.contents import blocks_of_rows
from .formats.names import COLUMNS
from .frame import in_unit_sphere

# Attributes of `PointCloud` in the order of their channels: how people call them, and the word of --features.
FEATURES = {"normals": "normals", "colors": "colours", "intensity": "intensity"}
WORDS = {"normals": "normals", "colors": "rgb", "intensity": "intensity"}
FARTHEST = 10.0  # a scaled intensity is cut at this, to either side
ENDS = (0.01, 0.99)  # of all intensities, these shares are below what becomes 0, and below what becomes 1
APART = 8.0  # where intensity goes so many times farther, it is in another unit: 8 bits beside 11, or beside 0 to 1
SOME_POINTS = 256  # of a cloud, whose points are in random order, that are looked at
Range = tuple[float, float]


def feature_names(features: str | Iterable[str], normals: bool = False) -> tuple[str, ...]:
    """The `FEATURES` that are named by words of --features, joined by commas or as a list, each once, in their order.

    Raises:
        ValueError: another word.
    """
    words = [word.strip() for word in (features.split(",") if isinstance(features, str) else features)]
    attributes = {word: name for name, word in WORDS.items()}
    for word in filter(None, words):
        check_name("feature", word, attributes.keys() | FEATURES.keys() if word in FEATURES else attributes)
    wanted = {attributes.get(word, word) for word in words} | ({"normals"} if normals else set())
    return tuple(name for name in FEATURES if name in wanted)


def channel_names(features: Sequence[str]) -> tuple[str, ...]:
    """The names of a network's channels: x, y, z, and those of the features."""
    return tuple(name for group in ("points", *features) for name in COLUMNS[group])


def features_of(
    cloud: PointCloud, features: Sequence[str], intensity: Range | None = None, taught: str = ""
) -> Callable[[Any], NDArray[np.float32]]:
    """A function that gives the features of rows of a cloud, (n, F) float32; colours are in [0, 1].

    Args:
        intensity: what becomes 0 and 1, as `scaled_intensity` has it; None: intensity is as in the file.
        taught: the end of the message, which says who needs them.

    Raises:
        ValueError: the cloud lacks one; or, when rows are taken, one is not finite.
    """
    for name in features:
        if getattr(cloud, name) is None:
            why = "".join(f" ({note})" for note in cloud.notes if note.startswith(f"{FEATURES[name]} left out"))
            raise ValueError(f"has no {FEATURES[name]}{taught}{why}")

    def of_rows(rows: Any) -> NDArray[np.float32]:
        columns = []
        for name in features:
            taken = np.asarray(getattr(cloud, name)[rows], np.float32)
            if not np.isfinite(taken).all():
                are = "is" if name == "intensity" else "are"
                share = _broken_share(getattr(cloud, name))
                shown = f"{share:.2g}%" if share < 99 else f"{share:.4g}%"
                found = f"has {FEATURES[name]} that {are} not finite at {shown} of its points"
                raise ValueError(f"{found}; leave these points out")
            if name == "colors":
                check_colors(taken)
            taken = scaled_intensity(taken, intensity) if name == "intensity" and intensity else taken
            columns.append(taken.reshape(len(taken), -1))
        count = len(range(*rows.indices(len(cloud.points)))) if isinstance(rows, slice) else len(rows)
        return np.hstack([np.empty((count, 0), np.float32), *columns])

    return of_rows


def check_colors(values: Any) -> None:
    """Raises ValueError unless all numbers, of an array or a tensor, are in [0, 1], as colours of files are."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"colours must be in [0, 1], as files give them, got {low:g} to {high:g}")


def _broken_share(values: Any) -> float:
    """Of the rows of an array or `Rows`, per cent with a number that is not finite in float32."""
    blocks = (np.asarray(block, np.float32) for block in blocks_of_rows(values))
    return 100 / len(values) * sum(int((~np.isfinite(each.reshape(len(each), -1)).all(1)).sum()) for each in blocks)


def unit_sphere_channels(cloud: PointCloud, features: Sequence[str] = ()) -> NDArray[np.float32]:
    """The points in the unit sphere, and their features as in the file: (C, N) float32.

    Raises:
        ValueError: the cloud lacks a feature, or one is not finite, or all its points are equal.
    """
    of_rows = features_of(cloud, features)
    points = in_unit_sphere(cloud.points).astype(np.float32, copy=False)
    return np.ascontiguousarray(np.hstack([points, of_rows(slice(None))]).T)


def scaled_intensity(values: Any, ends: Range) -> Any:
    """Intensities, an array or a tensor of float32, so that the two ends become 0 and 1; cut at `FARTHEST`."""
    low, high = ends
    return ((values - low) / (high - low)).clip(-FARTHEST, FARTHEST)


def intensity_range(values: NDArray[np.float32]) -> Range:
    """The ends for `scaled_intensity` of clouds (S, K): all but the least and the greatest hundredth is between them.

    Where that is one number, they are the least and the greatest, and one apart if these are equal too.
    """
    some = np.sort(values[:, :SOME_POINTS], axis=None)
    low, high = (float(some[round(share * (len(some) - 1))]) for share in ENDS)
    if low == high:
        low, high = float(some[0]), float(some[-1])
    return low, high if high > low else low + 1


def mostly_outside(values: NDArray[np.float32], ends: Range) -> bool:
    """Whether more than half of some intensities are outside those of training."""
    return 2 * int(((values < ends[0]) | (values > ends[1])).sum()) > values.size


def said_of_intensity(values: NDArray[np.float32], ends: Range) -> str:
    """Where some intensities are, and where those of training were."""
    return f"intensity is {values.min():g} to {values.max():g}, and was {ends[0]:g} to {ends[1]:g} in training"


def unlike_intensity(values: NDArray[np.float32], files: Sequence[str], ends: Range) -> list[str]:
    """A line on files most of whose intensities are outside those of a network's training; none if there are none.

    Args:
        values: of clouds, (S, K).
        files: the name of the file of each cloud, S.
        ends: of the network.
    """
    some = values[:, :SOME_POINTS]
    rows = [row for row in range(len(files)) if mostly_outside(some[row], ends)]
    if not rows:
        return []
    names = list(dict.fromkeys(files[row] for row in rows))
    return [f"{said_of_intensity(some[rows], ends)}: {first_of(names)}"]


def lines_on_intensity(values: NDArray[np.float32], files: Sequence[str], taught: Range | None) -> list[str]:
    """Lines of `intensity_scales`, and of `unlike_intensity` if a network's range is given."""
    return intensity_scales(values, files) + (unlike_intensity(values, files, taught) if taught else [])


def intensity_scales(values: NDArray[np.float32], files: Sequence[str]) -> list[str]:
    """A line on files whose intensity is in other units than that of most; none where all are in one.

    Args:
        values: of clouds, (S, K).
        files: the name of the file of each cloud, S.
    """
    rows: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        rows.setdefault(file, []).append(row)
    level = {file: intensity_range(np.abs(values[its, :SOME_POINTS]))[1] for file, its in rows.items()}
    level = {file: high if values[rows[file]].any() else 0.0 for file, high in level.items()}
    scales: list[list[str]] = []
    for file in sorted(level, key=lambda file: level[file]):
        if not scales or level[file] > APART * level[scales[-1][-1]]:
            scales.append([])
        scales[-1].append(file)
    if len(scales) < 2:
        return []
    most = max(reversed(scales), key=len)
    words: list[str] = []
    for scale in [*(scale for scale in scales if scale is not most), most]:
        its = [file for file in rows if file in scale]
        farthest = max(float(np.abs(values[rows[file]]).max()) for file in its)
        verb = "" if words else "goes "
        words.append(f"of {'others' if scale is most else first_of(its)} {verb}to {farthest:,.6g}")
    return [f"intensity {', '.join(words)}; bring all files to one scale"]
