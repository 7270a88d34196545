"""What is measured of the points of a cloud, whatever a network says of it: whether they are like those of a shape."""

import numpy as np
import torch
from torch import Tensor

LOOKED_AT = 256  # points of a cloud whose neighbours are looked at
NEIGHBOURS = 10
LAYER, LOWEST = 0.02, 0.1  # thickness of a layer of points, to the cloud's radius; how high it may begin, to its height
DIRECTIONS = 16  # horizontal ones, in which points are beyond others

# What is measured of a cloud's points, and what it means if it is larger than in nearly all of validation.
OF_POINTS = {
    "filled": "its points fill space, as noise does",
    "dense": "its points are crowded in few places",
    "flat": "flatter than nearly all shapes of the training set",
    "thin": "thinner than nearly all shapes of the training set",
    "floor": "more of its points are in one layer at the bottom than of nearly all shapes of the training set; "
    "if that is a floor or a table, leave it out",
}


def measures_of_points(x: Tensor) -> Tensor:
    """Each of `OF_POINTS`, of B clouds (B, C, N): (B, 5) float64. They do not depend on the cloud's size.

    floor: the share of points in the fullest horizontal layer near the bottom.
    """
    xyz = x[:, :3].double().cpu()
    centred = xyz - xyz.mean(2, keepdim=True)
    along = torch.linalg.eigvalsh(centred @ centred.transpose(1, 2)).clamp(min=0).sqrt()  # ascending
    along = along / along[:, 2:].clamp(min=1e-12)
    near = torch.tensor(
        [_neighbourhoods(cloud) for cloud in xyz / xyz.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]]
    )
    radius = centred.norm(dim=1).amax(1)
    layers = [_lowest_layer(*each)[1] for each in zip(centred[:, 2], radius.tolist(), strict=True)]
    floor = torch.tensor(layers, dtype=torch.float64)
    return torch.stack([near[:, 0], -near[:, 1], -along[:, 0], -along[:, 1], floor], 1)


def _lowest_layer(z: Tensor, radius: float) -> tuple[float, float]:
    """Of the layers that begin near the lowest of points of heights (N,), the fullest: its beginning and its share."""
    z = z.sort().values
    within = torch.searchsorted(z, z + LAYER * radius, right=True) - torch.arange(len(z))
    most, fullest = within[z <= z[0] + LOWEST * (z[-1] - z[0])].max(0)
    return float(z[fullest]), float(most) / len(z)


def share_beyond(x: Tensor) -> Tensor:
    """Of B clouds (B, C, N), the share of points in the fullest layer near the bottom that lie farther out than all
    points above it, in one of 16 horizontal directions, as those of a floor do: (B,) float64."""
    angles = torch.arange(DIRECTIONS, dtype=torch.float64) * (2 * torch.pi / DIRECTIONS)
    directions = torch.stack([angles.cos(), angles.sin()], 1)

    def of_one(xyz: Tensor) -> float:
        radius = float(xyz.norm(dim=0).max())
        start, _ = _lowest_layer(xyz[2], radius)
        above = xyz[2] > start + 2 * LAYER * radius
        if int(above.sum()) < NEIGHBOURS:
            return 0.0
        along = directions @ xyz[:2]
        is_beyond = (along > along[:, above].amax(1, keepdim=True) + LAYER * radius).any(0)
        return float((is_beyond & (xyz[2] >= start) & (xyz[2] <= start + LAYER * radius)).double().mean())

    xyz = x[:, :3].double().cpu()
    return torch.tensor([of_one(each) for each in xyz - xyz.mean(2, keepdim=True)], dtype=torch.float64)


def _neighbourhoods(points: Tensor) -> tuple[float, float]:
    """Of the neighbours of a point (3, N), the medians: how far they are from being in a plane, 0 to 1; and the
    distance of the nearest, times the root of how many different points there are, as it shrinks on a surface."""
    places = torch.from_numpy(np.unique(points.T.numpy(), axis=0))  # torch's own takes thrice as long
    if len(places) <= NEIGHBOURS:
        return 0.0, 0.0
    some = places[torch.linspace(0, len(places) - 1, min(len(places), LOOKED_AT)).long()]
    apart, nearest = torch.cdist(some, places).topk(NEIGHBOURS + 1, largest=False)
    around = places[nearest]
    around = around - around.mean(1, keepdim=True)
    along = torch.linalg.eigvalsh(around.transpose(1, 2) @ around).clamp(min=0)
    filled = (along[:, 0] / along[:, 1].clamp(min=1e-300)).median()
    return float(filled), float(apart[:, 1].median()) * len(places) ** 0.5
