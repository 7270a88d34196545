"""Augmentation of whole batches, on the device they are on: (B, C, N) -> (B, C, N), xyz in the first three channels.

Each function draws from the generator handed in (on the points' device), leaves its input alone, and never waits for
the device.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def random_scale(points: Tensor, factor: float, generator: Generator, normals: bool = False) -> Tensor:
    """Stretches each cloud along x, y and z by one factor per axis, drawn from [1 / factor, factor].

    With `normals`, channels 3 to 5 are the points' normals: they are divided by the factors and scaled to length 1.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    scale = _uniform((len(points), 3, 1), 1 / factor, factor, points, generator)
    return _moved(points, points[:, :3] * scale, F.normalize(points[:, 3:6] / scale, dim=1) if normals else None)


def random_shift(points: Tensor, distance: float, generator: Generator) -> Tensor:
    """Moves each cloud along x, y and z by one distance per axis, drawn from [-distance, distance]."""
    return _moved(points, points[:, :3] + _uniform((len(points), 3, 1), -distance, distance, points, generator))


def random_jitter(points: Tensor, sigma: float, generator: Generator, clip: float = 5.0) -> Tensor:
    """Moves each coordinate of each point by normal noise of this sigma, cut at `clip` sigmas."""
    noise = torch.randn(len(points), 3, points.shape[2], device=points.device, generator=generator)
    return _moved(points, points[:, :3] + (noise.clamp(-clip, clip) * sigma).to(points.dtype))


def random_rotation(points: Tensor, degrees: float, generator: Generator, normals: bool = False) -> Tensor:
    """Rotates each cloud about the up axis (z) by an angle drawn from [-degrees, degrees]; `normals` as above."""
    return _rotated(points, _uniform((len(points), 1), -degrees, degrees, points, generator), normals)


def rotation(points: Tensor, degrees: float, normals: bool = False) -> Tensor:
    """Rotates all clouds about the up axis (z) by one angle, anticlockwise seen from above; `normals` as above."""
    return _rotated(points, points.new_full((1, 1), degrees), normals)


def random_mirror(points: Tensor, generator: Generator, normals: bool = False) -> Tensor:
    """Mirrors each cloud in x, in y, in both or in neither, each as likely; up stays up; `normals` as above."""
    signs = torch.ones(len(points), 3, 1, dtype=points.dtype, device=points.device)
    signs[:, :2] -= 2 * torch.randint(2, (len(points), 2, 1), device=points.device, generator=generator)
    return _moved(points, points[:, :3] * signs, points[:, 3:6] * signs if normals else None)


def random_point_dropout(points: Tensor, most: float, generator: Generator) -> Tensor:
    """Replaces a share of each cloud's points, drawn from [0, most], by copies of its first point.

    Source: the input dropout of PointNet++ (section 3.3), where `most` is 0.875.
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


def _rotated(points: Tensor, degrees: Tensor, normals: bool) -> Tensor:
    """Points (B, C, N), rotated about z by angles (B, 1) or one for all (1, 1)."""
    angle = degrees.deg2rad()

    def rotate(vectors: Tensor) -> Tensor:
        x, y, z = vectors.unbind(1)
        return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, z], 1)

    return _moved(points, rotate(points[:, :3]), rotate(points[:, 3:6]) if normals else None)


def _uniform(shape: tuple[int, ...], low: float, high: float, like: Tensor, generator: Generator) -> Tensor:
    drawn = torch.rand(shape, device=like.device, generator=generator)
    return (low + (high - low) * drawn).to(like.dtype)


def _moved(points: Tensor, xyz: Tensor, normals: Tensor | None = None) -> Tensor:
    """The same points at other places (B, 3, N), with other normals (B, 3, N) if those are given."""
    moved = [xyz] if normals is None else [xyz, normals]
    rest = points[:, 3 * len(moved) :]
    return torch.cat([*moved, rest], 1) if rest.shape[1] or normals is not None else xyz
