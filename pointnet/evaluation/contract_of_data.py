"""The contract of a network that is trained on some data: what the data says of itself, else what its clouds tell."""

from collections.abc import Sequence
from statistics import median_low
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointnet.datasets import LabelledClouds
from pointnet.datasets.clouds import AS_GIVEN, BLOCKS, IN_BLOCKS, UNIT_SPHERE
from pointnet.datasets.extents import brightness_of, extents_of, heights_of_scenes, reach_of
from pointnet.points.features import check_colors
from pointnet.points.formats.names import COLUMNS

from .contract import NORMALS, XYZ, Contract

BATCH = 256  # clouds that are measured together
SOME_SCENES = 16  # scenes of training whose heights are looked at
USUAL = 0.98  # of a scene's blocks have their ground below that of the scene


def contract_of_data(data: LabelledClouds, **fields: Any) -> Contract:
    """The contract of a network that is trained on this data: what the data says of itself, else what its clouds tell.

    Args:
        fields: of `Contract`, all that clouds do not tell.

    Raises:
        ValueError: `data.channel_names` are not as many as its channels, colours are not in [0, 1], as files give them,
            or what the data says cannot be (`Contract.check`).
    """
    if data.channel_names and len(data.channel_names) != data.channels:
        raise ValueError(f"channel_names must name {data.channels} channels, got {', '.join(data.channel_names)}")
    channels, scale, centre = said_by(data) or _measured(data)
    of_data: dict[str, Any] = {
        "intensity": data.intensity,
        "colors": brightness_of(data),
        "up": data.up,
        **(_usual_heights(data) if scale in (IN_BLOCKS, BLOCKS) else {}),
        "extents": extents_of(data) if scale == AS_GIVEN else None,
        "reach": reach_of(data) if scale == AS_GIVEN and not centre else None,
        "block": data.block,
        "label_numbers": data.label_numbers,
    }
    contract = Contract(channels=tuple(channels), centre=centre, scale=scale, **of_data, **fields)
    contract.check()
    return contract


def scale_of(data: LabelledClouds) -> str:
    """`Contract.scale` of clouds: what the data says of itself, else what its clouds tell."""
    return data.scale or _measured(data)[1]


def is_centred(data: LabelledClouds) -> bool:
    """`Contract.centre` of clouds: what the data says of itself, else what its clouds tell."""
    return _measured(data)[2] if data.centre is None else data.centre


def _usual_heights(data: LabelledClouds) -> dict[str, Any]:
    """`heights` and `ground` of a contract; nothing where there are none. Heights are medians over scenes, and the
    ground is the highest but that of one scene, as a few may be in another unit, or have z down."""
    found = heights_of_scenes(data, SOME_SCENES).values()
    half, top = (median_low(each) if each else 0.0 for each in ([h.half for h in found], [h.top for h in found]))
    if top <= 0:
        return {}
    grounds = sorted(float(np.quantile(each.grounds, USUAL)) for each in found if len(each.grounds))
    return {"heights": (half, top), "ground": grounds[-2 if len(grounds) > 2 else -1] if grounds else None}


def said_by(data: LabelledClouds) -> tuple[tuple[str, ...], str, bool] | None:
    """The channels, the scale and whether the clouds are centred, as the data says; None where numbers must tell."""
    tells = data.centre is not None or data.scale in (UNIT_SPHERE, IN_BLOCKS, BLOCKS)
    if not (data.channel_names and data.scale and tells):
        return None
    return data.channel_names, data.scale, data.scale == UNIT_SPHERE if data.centre is None else data.centre


def _measured(data: LabelledClouds) -> tuple[tuple[str, ...], str, bool]:
    """The same, from the numbers of all clouds."""
    means, radii, lengths = [], [], []
    for rows in torch.arange(len(data)).split(BATCH):
        points = data.batch(rows)[0].double()
        points = points[points.isfinite().flatten(1).all(1)]
        means.append(points[:, :3].mean(2).norm(dim=1))
        radii.append(points[:, :3].norm(dim=1).amax(1))
        _check_colors(points, data.channel_names or ())
        if data.channels == 6:
            lengths.append((points[:, 3:6].norm(dim=1) - 1).abs().amax(1))
    mean, radius = torch.cat(means), torch.cat(radii)
    # Of points that were scaled and then drawn from, the mean is not exactly 0, nor the radius 1.
    in_sphere = bool(((radius > 0.8) & (radius < 1.1)).all()) and abs(float(radius.median()) - 1) < 0.05
    in_sphere &= float(mean.median()) < 0.1
    are_normals = bool(lengths) and float(torch.cat(lengths).median()) < 0.01
    names = data.channel_names or (*XYZ, *(NORMALS if are_normals else ()))
    names = (*names, *(f"channel {i}" for i in range(len(names), data.channels)))
    scale = data.scale or (UNIT_SPHERE if in_sphere else AS_GIVEN)
    centred = scale == UNIT_SPHERE or bool((mean <= 1e-3 * radius).all())
    return names, scale, centred if data.centre is None else data.centre


def _check_colors(points: Tensor, names: Sequence[str]) -> None:
    colors = [names.index(name) for name in COLUMNS["colors"] if name in names]
    if colors:
        check_colors(points[:, colors])
