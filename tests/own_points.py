"""Easy labelled files of one's own: objects of two parts, and yards with a floor, walls and poles."""

from pathlib import Path

import numpy as np
import torch

from pointnet.datasets import UNLABELLED, LabelledPoints, MeshFolder, split_parts

FLOOR, WALL, POLE = 2, 6, 11  # as a surveyor numbers them
CLASSES = "2 floor\n6 wall\n11 pole\n"


def make_object(category: str, seed: int, size: int = 200) -> np.ndarray:
    """Rows x y z label off the origin: a pin has a ball (1) on a stick (0), a table a plate (3) on a leg (0)."""
    generator = np.random.default_rng([seed, len(category)])
    label = generator.random(size) < 0.5
    top = generator.normal(size=(size, 3))
    top /= np.linalg.norm(top, axis=1, keepdims=True)
    top *= (0.3, 0.3, 0.3) if category == "pin" else (0.9, 0.9, 0.02)
    stick = np.column_stack([*generator.normal(size=(2, size)) * 0.02, generator.uniform(-1.6, -0.35, size)])
    points = np.where(label[:, None], top, stick) * generator.uniform(0.5, 20) + generator.uniform(-9, 9, 3)
    return np.column_stack([points, np.where(label, 1 if category == "pin" else 3, 0)])


def make_yard(seed: int, size: int = 6000, unit: float = 1.0) -> np.ndarray:
    """Rows x y z intensity label of a yard of about 4 by 3, walled on one side, with poles."""
    generator = np.random.default_rng(seed)
    wide, deep = generator.uniform(3, 4.5, 2)
    kind = generator.choice([FLOOR, WALL, POLE], size, p=[0.5, 0.25, 0.25])
    x, y, z = generator.random((3, size)) * [[wide], [deep], [2.5]]
    which = generator.integers(0, 4, size)
    poles = generator.uniform(0.6, 2.6, (4, 2))
    noise = generator.normal(size=(3, size)) * 0.01
    z = np.where(kind == FLOOR, 0, z) + noise[2]
    y = np.where(kind == WALL, 0, np.where(kind == POLE, poles[which, 1] + 4 * noise[1], y)) + noise[1]
    x = np.where(kind == POLE, poles[which, 0] + 4 * noise[0], x)
    intensity = generator.integers(100, 900, size)
    return np.column_stack([np.stack([x, y, z], 1) * unit + (1000, -500, 30), intensity, kind])


def save(path: Path, rows: np.ndarray, names: str = "") -> Path:
    """A table as text, as NPY, or with names of columns as CloudCompare exports it, or as binary PLY."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".ply":
        kind = np.dtype([(name, "<f8") for name in names.split()])
        header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
        header += [*(f"property double {name}" for name in kind.names), "end_header\n"]
        table = np.ascontiguousarray(rows, "<f8")
        path.write_bytes("\n".join(header).encode() + table.tobytes())
    else:
        np.savetxt(path, rows, "%.6f", header=f"//{names}" if names else "", comments="")
    if path.suffix not in (".npy", ".ply") and not names:
        path.write_text(path.read_text().lstrip("\n"))
    return path


def write_objects(root: Path, categories=("pin", "table"), count: int = 6, within: str = "", seed: int = 0) -> Path:
    """`root/<category>/<within>/<i>`, in three formats."""
    for category in categories:
        for i in range(count):
            suffix, names = ((".txt", ""), (".npy", ""), (".ply", "x y z label"))[i % 3]
            save(root / category / within / f"{i}{suffix}", make_object(category, seed + i), names)
    return root


def write_yards(root: Path, count: int = 4, seed: int = 0, unit: float = 1.0, size: int = 6000) -> Path:
    """`root/yard_<i>.txt` as CloudCompare exports clouds with scalar fields, and `root/classes.txt`."""
    for i in range(count):
        save(root / f"yard_{i}.txt", make_yard(seed + i, size, unit), "X Y Z Intensity Classification")
    (root / "classes.txt").write_text(CLASSES)
    return root


def write_clouds(root: Path, classes=("a", "b"), count: int = 6) -> Path:
    """`root/<class>/<class>_<i>.xyz`, each of its own content."""
    for name in classes:
        for i in range(count):
            save(root / name / f"{name}_{i}.xyz", make_object("pin", 99 * ord(name) + i, 20)[:, :3])
    return root


def both(root: Path, kind=MeshFolder, **how) -> tuple[set[str], set[str]]:
    """The files in training and in testing, as paths in the root."""
    opened = (kind(root, split, num_points=16, **how) for split in ("train", "test"))
    train, test = ({file.relative_to(root).as_posix() for file in data.files} for data in opened)
    assert not train & test
    return train, test


def own_points(data, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one cloud its own points (n, C) and their labels (n,)."""
    points, parts, own = (each[0] for each in split_parts(data.batch(torch.tensor([i]))[0]))
    return points.T[own].numpy(), parts[own].numpy()


def in_order(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.column_stack([points, labels])
    return rows[np.lexsort(rows.round(3).T)]


def some_labels(data: LabelledPoints) -> LabelledPoints:
    """`halves` with no label of most points of the first clouds, and of every third point of the others."""
    stored = data.batch(slice(None))[0].clone()
    stored[:2, -1, 4:32], stored[2:, -1, :32:3] = UNLABELLED, UNLABELLED
    stored[:, -1, 32:] = -1 - stored[:, -1, : stored.shape[2] - 32]
    return LabelledPoints(stored, data.labels, data.classes, data.part_names, data.parts_of, data.num_points)
