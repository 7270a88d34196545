"""Random changes to a training batch, as the settings say."""

from torch import Generator, Tensor, rand

from pointnet.datasets.transforms import (
    random_jitter,
    random_mirror,
    random_point_dropout,
    random_rotation,
    random_scale,
    random_shift,
    random_warp,
)

from .settings import Augmentation


def augment(points: Tensor, settings: Augmentation, normals: bool, generator: Generator) -> Tensor:
    """An augmented batch (B, C, N); `normals`: whether channels 3 to 5 are normals, which rotate and stretch too.

    Raises:
        ValueError: `warp` with normals.
    """
    if settings.point_dropout:
        points = random_point_dropout(points, settings.point_dropout, generator)
    if settings.warp:
        if normals:
            raise ValueError("warp is for points without normals, which it cannot bend along; leave out one of them")
        points = random_warp(points, settings.warp, generator)
    if settings.rotate:
        points = random_rotation(points, settings.rotate, generator, normals)
    if settings.mirror:
        points = random_mirror(points, generator, normals)
    if settings.scale > 1:
        points = random_scale(points, settings.scale, generator, normals)
    if settings.shift:
        points = random_shift(points, settings.shift, generator)
    if settings.jitter:
        points = random_jitter(points, settings.jitter, generator)
    return points


def hide_categories(category: Tensor, share: float, generator: Generator) -> Tensor:
    """The categories (B,), each replaced by -1 (unknown) with this probability."""
    if not share:
        return category
    drawn = rand(category.shape, generator=generator, device=category.device)
    return category.masked_fill(drawn < share, -1)
