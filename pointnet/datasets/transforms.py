"""Augmentation of whole batches, on the device they are on: (B, C, N) -> (B, C, N), xyz in the first three channels.

Each function draws from the generator handed in (on the points' device), leaves its input alone, and never waits for
the device.
"""

import math

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


def random_warp(points: Tensor, strength: float, generator: Generator, anchors: int = 4, sigma: float = 0.5) -> Tensor:
    """Bends each cloud smoothly: parts of it are rotated, stretched and moved, and what lies between goes along.

    Each anchor, a point drawn at random, has an affine map about itself: a rotation of up to 10 degrees about each
    axis, a stretch of 1 to 3 along some axes and a shift of up to a quarter of the cloud's radius, each left out half
    of the time and all of them times `strength`. A point moves by the mean of the maps, weighted by a Gaussian of its
    distance to the anchors along some axes. The cloud keeps its mean and radius.

    Source: PointWOLF (Kim et al. 2021, section 3.2; the released code's ranges), whose anchors are farthest points.

    Args:
        strength: 1 as published.
        sigma: of the Gaussian, times the cloud's radius.
    """
    if strength < 0:
        raise ValueError(f"strength must be at least 0, got {strength}")

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return _uniform((len(points), anchors, *shape), low, high, points, generator)

    def some_axes(count: int) -> Tensor:
        """One axis, two or all three, (B, count, 3): each choice as likely."""
        which = torch.randint(1, 8, (len(points), count, 1), device=points.device, generator=generator)
        return which.bitwise_and(torch.tensor([1, 2, 4], device=points.device)) > 0

    centre = points[:, :3].mean(2, keepdim=True)
    xyz = points[:, :3] - centre
    radius = _radius(xyz)
    at = torch.randint(points.shape[2], (len(points), 1, anchors), device=points.device, generator=generator)
    anchor = xyz.gather(2, at.expand(-1, 3, -1)).transpose(1, 2).unsqueeze(3)  # (B, M, 3, 1)
    offset = xyz.unsqueeze(1) - anchor  # (B, M, 3, N)
    kept, axes = uniform(0, 1, 3, 1) < 0.5, some_axes(anchors)
    turn = rotation_by(uniform(-1, 1, 3) * (math.radians(10) * strength) * kept[:, :, 0])
    stretch = 1 + uniform(0, 1, 3) * (2 * strength) * (axes & kept[:, :, 1])
    shift = uniform(-1, 1, 3) * (0.25 * strength) * (axes & kept[:, :, 2]) * radius
    moved = (stretch.unsqueeze(3) * turn) @ offset + anchor + shift.unsqueeze(3)
    near = (offset * some_axes(1).unsqueeze(3)).square().sum(2, keepdim=True)
    weight = (near / (-2 * (sigma * radius.unsqueeze(3)).square().clamp(min=1e-30))).softmax(1)
    warped = (weight * moved).sum(1)
    warped = warped - warped.mean(2, keepdim=True)
    return _moved(points, warped * (radius / _radius(warped).clamp(min=1e-30)) + centre)


def _radius(xyz: Tensor) -> Tensor:
    """The largest distance from the origin, (B, 3, N) -> (B, 1, 1); many times as fast as a norm along the axes."""
    return xyz.square().sum(1, keepdim=True).amax(2, keepdim=True).sqrt()


def rotation_by(turn: Tensor) -> Tensor:
    """Rotation vectors (..., 3), radians -> matrices (..., 3, 3), by Rodrigues' formula."""
    identity = torch.eye(3, dtype=turn.dtype, device=turn.device).expand(*turn.shape, 3)
    cross = torch.linalg.cross(turn.unsqueeze(-1).expand_as(identity), identity, dim=-2)
    half = turn.norm(dim=-1)[..., None, None] / 2
    sine, of_half = (half * 2 / math.pi).sinc(), (half / math.pi).sinc()  # torch's sinc(x) is sin(pi x) / (pi x)
    return identity + sine * cross + 0.5 * of_half.square() * cross @ cross


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
    """The same points at other places (B, 3, N), with other normals (B, 3, N) if those are given.

    ValueError for points that are no floats, which cannot be there.
    """
    if not points.is_floating_point():
        raise ValueError(f"points must be floats to be moved, got {points.dtype}")
    moved = [xyz] if normals is None else [xyz, normals]
    rest = points[:, 3 * len(moved) :]
    return torch.cat([*moved, rest], 1) if rest.shape[1] or normals is not None else xyz
