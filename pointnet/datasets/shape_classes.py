"""The 16 classes of the embedded data set, each a function that builds one random shape of it.

A function draws proportions and optional parts from a generator and yields (part, mesh) pairs, z up, in about metres.
The class names are ModelNet40's, so that a model trained on these shapes names real files too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .solids import bar, box, join, lathed, legs, moved, pair, pedestal, post, ring, rotated, vessel

if TYPE_CHECKING:
    from trimesh import Trimesh

Builder = Callable[[Generator], Iterator[tuple[str, "Trimesh"]]]
BUILDERS: dict[str, Builder] = {}
PART_NAMES: list[str] = []


def shape_class(*parts: str) -> Callable[[Builder], Builder]:
    """Registers a function as the builder of the class it is named after; its shapes have some of these parts."""

    def register(function: Builder) -> Builder:
        BUILDERS[function.__name__] = function
        PART_NAMES.extend(f"{function.__name__}/{part}" for part in parts)
        return function

    return register


@shape_class("body", "wing", "tail", "engine")
def airplane(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    long, thick, span, chord, sweep = rng.uniform((1.0, 0.06, 0.4, 0.15, 0.0), (1.4, 0.09, 0.7, 0.25, 0.35))
    nose_up = lathed([(0, 0), (thick / 2, 0.04), (thick, 0.25), (thick, 0.8 * long), (0, long)])
    yield "body", rotated(nose_up, 90, "x")
    blade = box(0.02, chord, span, at=(0, -0.55 * long, 0), top=rng.uniform(0.4, 0.9), lean=sweep * span)
    yield "wing", pair(rotated(blade, 90, "y"))
    fin = box(0.02, 0.7 * chord, 0.4 * span, at=(0, -0.07 * long, 0), top=0.6, lean=0.1)
    yield "tail", fin
    yield "tail", pair(rotated(fin.copy(), 90, "y"))
    if rng.random() < 0.6:
        x, y = span * rng.uniform(0.3, 0.5), -0.55 * long - chord / 2
        yield "engine", pair(bar((x, y, -0.05), (x, y + 0.2, -0.05), thick))


@shape_class("tub", "foot", "tap")
def bathtub(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    long, deep, slope, wall = rng.uniform((0.7, 0.4, 0.7, 0.04), (1.0, 0.7, 1.0, 0.1))
    tub = vessel([(0.5 * slope, 0), (0.5, 0.45)], wall, sides=rng.choice((4, 8, 24)))
    lift = rng.choice((0, 0.1))
    yield "tub", moved(tub.apply_transform(np.diag((2 * long, 2 * deep, 1, 1))), (0, 0, lift))
    if lift:
        yield "foot", legs(rng, long * slope, deep * slope, lift)
    if rng.random() < 0.5:
        yield "tap", bar((0.45 * long, 0, 0.4), (0.45 * long, 0, 0.65), 0.05)


@shape_class("seat", "leg", "back")
def bench(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((1.1, 0.28, 0.36), (1.8, 0.42, 0.5))
    yield "seat", box(wide, deep, rng.uniform(0.03, 0.08), at=(0, 0, high))
    if rng.random() < 0.5:
        yield "leg", pair(box(0.06, deep * 0.9, high, at=(wide * rng.uniform(0.35, 0.45), 0, 0)))
    else:
        yield "leg", legs(rng, wide, deep, high)
    if rng.random() < 0.4:
        rise = rng.uniform(0.25, 0.45)
        for z in np.linspace(high + 0.1, high + rise, rng.integers(2, 4)):
            yield "back", box(wide, 0.03, 0.1, at=(0, deep / 2, z))


@shape_class("frame", "shelf", "book")
def bookshelf(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.6, 0.22, 1.0), (1.1, 0.4, 1.9))
    yield "frame", pair(box(0.03, deep, high, at=(wide / 2, 0, 0)))
    if rng.random() < 0.7:
        yield "frame", box(wide, 0.02, high, at=(0, deep / 2, 0))
    heights = np.linspace(0, high - 0.03, rng.integers(3, 8))
    yield "shelf", join([box(wide, deep, 0.03, at=(0, 0, z)) for z in heights])
    for z in heights[:-1]:
        if rng.random() < 0.4:
            size = wide * rng.uniform(0.2, 0.8)
            yield "book", box(size, deep * 0.7, 0.7 * heights[1], at=((wide - size) / 2 * rng.choice((-1, 1)), 0, z))


@shape_class("body", "cap")
def bottle(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, shoulder, neck, high = rng.uniform((0.12, 0.35, 0.2, 0.5), (0.22, 0.75, 0.7, 0.9))
    neck, top = radius * neck, high * rng.uniform(shoulder + 0.05, 0.95)
    yield "body", lathed([(0, 0), (radius, 0), (radius, high * shoulder), (neck, top), (neck, high), (0, high)])
    if rng.random() < 0.5:
        yield "cap", post(neck * 1.2, 0.06, at=(0, 0, high - 0.02))


@shape_class("body", "foot")
def bowl(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, high, flat = rng.uniform((0.3, 0.16, 0.3), (0.5, 0.4, 0.6))
    angles = np.linspace(np.arcsin(flat), np.pi / 2, 6)
    heights = (np.cos(angles[0]) - np.cos(angles)) / np.cos(angles[0])
    yield "body", vessel([(radius * np.sin(a), high * h) for a, h in zip(angles, heights, strict=True)])
    if rng.random() < 0.4:
        yield "foot", post(radius * flat, 0.06, at=(0, 0, -0.05))


@shape_class("seat", "leg", "back", "arm")
def chair(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high, rise = rng.uniform((0.4, 0.4, 0.36, 0.25), (0.55, 0.5, 0.5, 0.6))
    lean = rng.uniform(0, 0.12)
    yield "seat", box(wide, deep, rng.uniform(0.03, 0.1), at=(0, 0, high))
    yield "leg", legs(rng, wide, deep, high) if rng.random() < 0.8 else pedestal(rng, wide, high)
    if rng.random() < 0.6:
        yield "back", box(wide, 0.04, rise, at=(0, deep / 2, high), top=rng.uniform(0.8, 1), lean=lean)
    else:
        xs = np.linspace(-0.45, 0.45, rng.integers(3, 6)) * wide
        yield "back", join([bar((x, deep / 2, high), (x, deep / 2 + lean, high + rise), 0.03) for x in xs])
        yield "back", box(wide, 0.04, 0.1, at=(0, deep / 2 + lean, high + rise))
    if rng.random() < 0.35:
        yield "arm", pair(box(0.04, deep, 0.03, at=(wide / 2, 0, high + 0.22)))
        yield "arm", pair(box(0.04, 0.04, 0.22, at=(wide / 2, -deep / 2.5, high)))


@shape_class("body", "base")
def cone(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, high, top = rng.uniform((0.15, 0.4, 0.0), (0.4, 0.9, 0.3))
    yield "body", post(radius, high, top=top)
    if rng.random() < 0.5:
        size = 2 * radius * rng.uniform(1.0, 1.4)
        yield "base", box(size, size, 0.04) if rng.random() < 0.5 else post(size / 2, 0.04)


@shape_class("body", "handle")
def cup(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    radius, high, slope = rng.uniform((0.16, 0.3, 0.6), (0.28, 0.5, 1.05))
    yield "body", vessel([(radius * slope, 0), (radius * (1 + slope) / 2, high / 2), (radius, high)])
    if rng.random() < 0.5:
        size = high * rng.uniform(0.2, 0.35)
        yield "handle", ring(size, 0.04, at=(radius * (1 + slope) / 2, 0, high / 2), upright=True)


@shape_class("top", "leg", "drawer", "panel")
def desk(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.9, 0.5, 0.65), (1.6, 0.8, 0.8))
    yield "top", box(wide, deep, 0.04, at=(0, 0, high))
    side = wide * rng.uniform(0.2, 0.33)
    tall = high * rng.choice((0.4, 0.9))
    chest = box(side, deep * 0.9, tall, at=((wide - side) / 2, 0, high - tall))
    yield "drawer", pair(chest) if rng.random() < 0.5 else chest
    if tall < high / 2 or rng.random() < 0.5:
        yield "leg", legs(rng, wide, deep, high)
    if rng.random() < 0.5:
        yield "panel", box(wide * 0.95, 0.02, high * rng.uniform(0.4, 0.9), at=(0, deep * 0.45, high * 0.1))


@shape_class("body", "drawer", "foot")
def dresser(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.7, 0.35, 0.6), (1.3, 0.55, 1.2))
    columns, rows = rng.integers(1, 3), rng.integers(2, 5)
    yield "body", box(wide, deep, high)
    across, up, front = wide / columns, high / rows, -deep / 2
    for x in across * (np.arange(columns) + 0.5) - wide / 2:
        for z in up * np.arange(rows):
            yield "drawer", box(across - 0.04, 0.04, up - 0.04, at=(x, front - 0.02, z + 0.02))
            yield "drawer", bar((x, front, z + up / 2), (x, front - 0.08, z + up / 2), 0.05)  # its knob
    if rng.random() < 0.6:
        yield "foot", moved(legs(rng, wide, deep, 0.15), (0, 0, -0.15))


@shape_class("base", "pole", "shade")
def lamp(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    base, high, shade, top, size = rng.uniform((0.1, 0.3, 0.12, 0.4, 0.15), (0.22, 1.2, 0.3, 1.0, 0.35))
    yield "base", post(base, rng.uniform(0.02, 0.12), top=rng.uniform(0.4, 1))
    reach = rng.choice((0, 0.3))
    yield "pole", bar((0, 0, 0), (0, 0, high), 0.03)
    if reach:
        yield "pole", bar((0, 0, high), (reach, 0, high + 0.1), 0.03)
    outer = [(shade, 0), (shade * top, size)]
    inner = [(radius - 0.01, z) for radius, z in reversed(outer)]
    yield "shade", lathed([*outer, *inner, outer[0]], at=(reach, 0, high + reach / 3 - size / 2))


@shape_class("seat", "back", "arm", "foot")
def sofa(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high, rise, arm = rng.uniform((1.0, 0.6, 0.25, 0.25, 0.08), (2.0, 0.9, 0.42, 0.5, 0.22))
    yield "seat", box(wide, deep, high)
    yield "back", box(wide, 0.2, high + rise, at=(0, deep / 2, 0), lean=rng.uniform(0, 0.1))
    if rng.random() < 0.85:
        yield "arm", pair(box(arm, deep, high + rise * rng.uniform(0.2, 0.8), at=((wide + arm) / 2, 0, 0)))
    if rng.random() < 0.5:
        yield "foot", moved(legs(rng, wide, deep, 0.1), (0, 0, -0.1))


@shape_class("seat", "leg", "rung")
def stool(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, high = rng.uniform((0.28, 0.3), (0.5, 0.75))
    thick = rng.uniform(0.03, 0.1)
    at = (0, 0, high)
    yield "seat", post(wide / 2, thick, at) if rng.random() < 0.6 else box(wide, wide, thick, at)
    yield "leg", legs(rng, wide * 0.8, wide * 0.8, high) if rng.random() < 0.7 else pedestal(rng, wide, high)
    if rng.random() < 0.4:
        yield "rung", ring(wide * 0.45, 0.03, at=(0, 0, high * rng.uniform(0.25, 0.5)))


@shape_class("top", "leg")
def table(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    wide, deep, high = rng.uniform((0.55, 0.5, 0.4), (1.6, 0.9, 0.8))
    thick = rng.uniform(0.03, 0.07)
    if rng.random() < 0.35:
        yield "top", post(wide / 2, thick, at=(0, 0, high))
        deep = wide = wide * 0.75
    else:
        yield "top", box(wide, deep, thick, at=(0, 0, high))
    yield "leg", legs(rng, wide, deep, high) if rng.random() < 0.7 else pedestal(rng, deep, high)


@shape_class("body")
def vase(rng: Generator) -> Iterator[tuple[str, Trimesh]]:
    neck, foot, belly, turns, high = rng.uniform((0.04, 0.0, 0.02, 0.8, 0.4), (0.12, 0.1, 0.12, 1.8, 0.9))
    heights = np.linspace(0, 1, 10)
    radii = neck + foot * (1 - heights) + belly * (1 + np.sin(np.pi * turns * heights))
    yield "body", vessel([(r, high * h) for r, h in zip(radii, heights, strict=True)], 0.02)


def make_shape(name: str, rng: Generator) -> tuple[Trimesh, NDArray[np.int64]]:
    """A random shape of a class: its mesh, z up, and (F,) the part of each face, as an index into `PART_NAMES`.

    Stretched by up to 1.35 along each axis and rotated a little about z, so that no proportion gives the class away.
    """
    names, meshes = zip(*BUILDERS[name](rng), strict=True)
    mesh = join(meshes)
    parts = np.repeat([PART_NAMES.index(f"{name}/{part}") for part in names], [len(mesh.faces) for mesh in meshes])
    mesh.apply_transform(np.diag((*np.exp(rng.uniform(-0.3, 0.3, 3)), 1)))
    return rotated(mesh, rng.normal(0, 10), "z"), parts
