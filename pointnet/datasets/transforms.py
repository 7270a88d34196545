"""Augmentation of whole batches, on the device they are on: (B, C, N) -> (B, C, N), xyz in the first three channels.

Each function draws from the generator handed in (on the points' device), leaves its input alone, and waits for nothing.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def random_scale(points: Tensor, factor: float, generator: Generator, normals: bool = False) -> Tensor:
    """Stretches each cloud along x, y and z by factors of their own, drawn from [1 / factor, factor].

    With `normals`, channels 3 to 5 are those of the points: they are divided by the factors and brought to length 1.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    scale = _uniform((len(points), 3, 1), 1 / factor, factor, points, generator)
    scaled = _with_xyz(points, points[:, :3] * scale)
    if normals:
        scaled[:, 3:6] = F.normalize(points[:, 3:6] / scale, dim=1)
    return scaled


def random_shift(points: Tensor, distance: float, generator: Generator) -> Tensor:
    """Moves each cloud along x, y and z by distances of their own, drawn from [-distance, distance]."""
    return _with_xyz(points, points[:, :3] + _uniform((len(points), 3, 1), -distance, distance, points, generator))


def random_jitter(points: Tensor, sigma: float, generator: Generator, clip: float = 5.0) -> Tensor:
    """Moves each coordinate of each point by normal noise of this sigma, cut at `clip` sigmas."""
    noise = torch.randn(len(points), 3, points.shape[2], device=points.device, generator=generator)
    return _with_xyz(points, points[:, :3] + (noise.clamp(-clip, clip) * sigma).to(points.dtype))


def random_rotation(points: Tensor, degrees: float, generator: Generator, normals: bool = False) -> Tensor:
    """Turns each cloud about the up axis (z) by an angle drawn from [-degrees, degrees]; `normals` as above."""
    return _turned(points, _uniform((len(points), 1), -degrees, degrees, points, generator), normals)


def rotation(points: Tensor, degrees: float, normals: bool = False) -> Tensor:
    """Turns all clouds about the up axis (z) by one angle, anticlockwise seen from above; `normals` as above."""
    return _turned(points, points.new_full((1, 1), degrees), normals)


def random_mirror(points: Tensor, generator: Generator, normals: bool = False) -> Tensor:
    """Mirrors each cloud in x, in y, in both or in neither, each as likely; up stays up; `normals` as above."""
    signs = torch.ones(len(points), 3, 1, dtype=points.dtype, device=points.device)
    signs[:, :2] -= 2 * torch.randint(2, (len(points), 2, 1), device=points.device, generator=generator)
    mirrored = _with_xyz(points, points[:, :3] * signs)
    if normals:
        mirrored[:, 3:6] = points[:, 3:6] * signs
    return mirrored


def random_point_dropout(points: Tensor, most: float, generator: Generator) -> Tensor:
    """Drops a share of each cloud's points, the share drawn from [0, most]: they become copies of its first point.

    Source: the input dropout of PointNet++ (section 3.3), with its most of 0.875.
    """
    share = _uniform((len(points), 1, 1), 0, most, points, generator)
    dropped = torch.rand(len(points), 1, points.shape[2], device=points.device, generator=generator) < share
    return torch.where(dropped, points[:, :, :1], points)


def random_subset(points: Tensor, count: int, generator: Generator) -> Tensor:
    """The same `count` randomly chosen rows of every cloud: (B, C, N) -> (B, C, count)."""
    if not 1 <= count <= points.shape[2]:
        raise ValueError(f"count must be 1 to {points.shape[2]}, the points a cloud has, got {count}")
    kept = torch.randperm(points.shape[2], device=points.device, generator=generator)[:count]
    return points[:, :, kept]


def random_cutmix(
    points: Tensor, targets: Tensor, nearest: bool, share: float, beta: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Replaces a part of each cloud by as many points of the cloud before it in the batch, and so its target.

    points (B, C, N), targets (B, K), shares of the classes -> the same of the mixed clouds. A point keeps its further
    channels; those that are not replaced keep their place.

    Args:
        nearest: whether the points that go, and those that come, are the nearest to one of the cloud's own points,
            drawn at random (PointCutMix-K); else both are drawn at random (PointCutMix-R).
        share: the probability that a cloud is mixed.
        beta: the part that is replaced is drawn from Beta(beta, beta), for each cloud, and rounded to whole points.

    Source: Zhang et al. 2021, "PointCutMix: Regularization Strategy for Point Cloud Classification", section 3.
    There an optimal assignment of the two clouds' points says which comes for which; here the points that come are
    chosen as those that go are, which takes a sort.
    """
    batch, _, count = points.shape
    others = points.roll(1, 0)
    part = _beta((batch, 1), beta, points, generator)
    mixed = torch.rand(batch, 1, device=points.device, generator=generator) < share
    replaced = torch.where(mixed, (part * count).round(), 0.0)
    if nearest:
        drawn = torch.randint(count, (batch, 1, 1), device=points.device, generator=generator)
        centre = points[:, :3].gather(2, drawn.expand(-1, 3, -1))
        go, come = ((cloud[:, :3] - centre).square().sum(1).argsort(1) for cloud in (points, others))
    else:
        go, come = torch.rand(2, batch, count, device=points.device, generator=generator).argsort(2)
    go, come = (order.unsqueeze(1).expand_as(points) for order in (go, come))
    first = torch.arange(count, device=points.device) < replaced
    chosen = torch.where(first.unsqueeze(1), others.gather(2, come), points.gather(2, go))
    kept = (1 - replaced / count).to(targets.dtype)
    return points.scatter(2, go, chosen), kept * targets + (1 - kept) * targets.roll(1, 0)


def _turned(points: Tensor, degrees: Tensor, normals: bool) -> Tensor:
    """Points (B, C, N), turned about z by angles (B, 1) or one for all (1, 1)."""
    angle = degrees.deg2rad()

    def turn(vectors: Tensor) -> Tensor:
        x, y, z = vectors.unbind(1)
        return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, z], 1)

    turned = _with_xyz(points, turn(points[:, :3]))
    if normals:
        turned[:, 3:6] = turn(points[:, 3:6])
    return turned


def _uniform(shape: tuple[int, ...], low: float, high: float, like: Tensor, generator: Generator) -> Tensor:
    drawn = torch.rand(shape, device=like.device, generator=generator)
    return (low + (high - low) * drawn).to(like.dtype)


def _beta(shape: tuple[int, ...], beta: float, like: Tensor, generator: Generator) -> Tensor:
    """Draws from Beta(beta, beta); float32. torch.distributions would draw from no generator but its own."""
    one, other = torch._standard_gamma(torch.full((2, *shape), beta, device=like.device), generator)
    return one / (one + other)


def _with_xyz(points: Tensor, xyz: Tensor) -> Tensor:
    return xyz if points.shape[1] == 3 else torch.cat([xyz, points[:, 3:]], 1)
