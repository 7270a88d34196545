"""Makes `data/samples/` from Shapes: one file in each common format, and ModelNet40's three layouts in small.

python -m tools.samples
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from trimesh import Trimesh

from pointnet.datasets.modelnet import HDF5_FOLDER, MODELNET40
from pointnet.datasets.shape_classes import make_shape
from pointnet.datasets.shapes import sample_cloud, shape_generator
from pointnet.datasets.solids import rotated

SAMPLES = Path("data/samples")
MESH_FILES = ("chair.off", "table.obj", "lamp.stl", "bottle.ply", "sofa.glb")
CLOUD_FILES = ("stool.xyz", "vase.pcd", "cup.npy", "bowl.npz", "bookshelf.csv")
PCD_HEADER = (
    "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {count}\nHEIGHT 1\n"
    "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA ascii\n"
)
LAYOUT_CLASSES = ("bottle", "chair", "lamp", "table")


def write_samples(folder: str | os.PathLike[str] = SAMPLES) -> None:
    """Writes small sample files, always the same: one shape per file format, and a tiny ModelNet40 in each layout."""
    _write_formats(Path(folder) / "files")
    _write_layouts(Path(folder))


def _write_formats(folder: Path) -> None:
    """One test shape per file: meshes as they are made, clouds of 1,024 points in the unit sphere."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in MESH_FILES + CLOUD_FILES:
        path, (name, suffix) = folder / file, file.split(".")
        rng = shape_generator("test", name, 0)
        mesh, _ = make_shape(name, rng)
        points = _rounded(sample_cloud(mesh, rng)[0][:1024])
        if suffix == "off":
            _write_off(path, mesh)
        elif suffix in ("obj", "stl", "ply"):
            mesh.export(path)
        elif suffix == "glb":  # y is up in glTF
            rotated(mesh, -90, "x").export(path)
        elif suffix == "npy":
            np.save(path, points)
        elif suffix == "npz":
            np.savez(path, points=points)
        else:
            header = PCD_HEADER.format(count=len(points)) if suffix == "pcd" else ""
            _write_text(path, header + _rows(points, "," if suffix == "csv" else " "))


def _write_layouts(folder: Path) -> None:
    """The same 24 shapes in the three layouts of ModelNet40: HDF5, meshes, and text with normals."""
    import h5py

    hdf5, meshes, text = (folder / n for n in (HDF5_FOLDER, "ModelNet40", "modelnet40_normal_resampled"))
    for split, first, count in (("train", 1, 4), ("test", 5, 2)):
        clouds, labels, names = [], [], []
        for name in LAYOUT_CLASSES:
            for index in range(count):
                rng = shape_generator(split, name, index)
                mesh, _ = make_shape(name, rng)
                mesh.vertices = _rounded(mesh.vertices)
                points, faces = sample_cloud(mesh, rng)
                # Both of these releases have y up, by exchanging y and z: a mirror image of the meshes.
                points, normals = _rounded(points)[:, [0, 2, 1]], mesh.face_normals[faces][:, [0, 2, 1]]
                names.append(f"{name}_{first + index:04d}")
                # Some meshes of the real set lack the line break after OFF.
                _write_off(meshes / name / split / f"{names[-1]}.off", mesh, glued=names[-1] == "bottle_0001")
                _write_text(text / name / f"{names[-1]}.txt", _rows(np.hstack([points, normals])[:256], ","))
                clouds.append(points)
                labels.append([MODELNET40.index(name)])
        _write_text(text / f"modelnet40_{split}.txt", "\n".join([*names, ""]))
        _write_text(hdf5 / f"{split}_files.txt", f"data/{HDF5_FOLDER}/ply_data_{split}0.h5\n")
        with h5py.File(hdf5 / f"ply_data_{split}0.h5", "w") as file:
            file.create_dataset("data", data=np.stack(clouds), compression="gzip", compression_opts=9)
            file.create_dataset("label", data=np.array(labels, np.uint8), compression="gzip")
    for path in (hdf5 / "shape_names.txt", text / "modelnet40_shape_names.txt"):
        _write_text(path, "\n".join([*MODELNET40, ""]))


def _rounded(array: NDArray[np.floating]) -> NDArray[np.floating]:
    """Values rounded to multiples of 2^-12, without -0. It compresses well and drops bits in which machines differ."""
    return np.round(array * 4096) / 4096 + 0.0


def _rows(array: NDArray[np.floating], separator: str) -> str:
    """One line per row, four digits per number."""
    return "".join(separator.join(f"{value:.4f}" for value in row) + "\n" for row in np.round(array, 4) + 0.0)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii", newline="\n")


def _write_off(path: Path, mesh: Trimesh, glued: bool = False) -> None:
    """Writes an OFF file; `glued` leaves out the line break between the magic word and the counts."""
    counts = f"OFF{'' if glued else chr(10)}{len(mesh.vertices)} {len(mesh.faces)} 0\n"
    faces = "".join(f"3 {a} {b} {c}\n" for a, b, c in mesh.faces)
    _write_text(path, counts + _rows(_rounded(mesh.vertices), " ") + faces)


if __name__ == "__main__":
    write_samples()
