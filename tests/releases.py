"""Small data sets in the layouts that the real ones are published in, and ways to damage them."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pointnet.datasets.modelnet import HDF5_FOLDER
from pointnet.datasets.s3dis import CLASSES, POINTS
from pointnet.datasets.shapenetpart import PUBLISHED
from tests.helpers import OWN, SPLITS, make_room, write_text


def edit_hdf5(name: str = "", **arrays: np.ndarray | None) -> Callable[[Path], None]:
    """Puts arrays in place of those of an HDF5 file, or removes them: of `path / name`, or of the path itself."""

    def change(path: Path) -> None:
        with h5py.File(path / name if name else path, "r+") as file:
            for key, array in arrays.items():
                del file[key]
                if array is not None:
                    file[key] = array

    return change


def write_release(root: Path, names: list[str] = ["chair", "lamp", "sofa"], points: int = 8) -> Path:  # noqa: B006
    """A folder in the release's layout; shape i of split s holds a recognisable cloud."""
    folder = root / HDF5_FOLDER
    folder.mkdir(parents=True)
    (folder / "shape_names.txt").write_text("\n".join(names))
    generator = np.random.default_rng(0)
    for split, files in (("train", 2), ("test", 1)):
        listed = [f"ply_data_{split}{i}.h5" for i in range(files)]
        (folder / f"{split}_files.txt").write_text("\n".join(f"data/{HDF5_FOLDER}/{name}" for name in listed))
        for name in listed:
            with h5py.File(folder / name, "w") as file:
                file["data"] = generator.standard_normal((len(names), points, 3)).astype(np.float32)
                file["label"] = np.arange(len(names), dtype=np.uint8)[:, None]
    return folder


ROOMS = ("Area_1_office_1", "Area_1_office_2", "Area_2_hallway_1", "Area_5_office_1")


def write_npy_rooms(root: Path) -> Path:
    """Four rooms of S3DIS, an array each."""
    folder = root / "stanford_indoor3d"
    folder.mkdir()
    for seed, name in enumerate(ROOMS):
        np.save(folder / f"{name}.npy", make_room(seed=seed))
    return folder


def write_objects(room: np.ndarray, folder: Path, low=(-12.345, 3.21, -0.5)) -> None:
    """A room as its annotations: a text for each object, where the building has it."""
    folder.mkdir(parents=True)
    for label in np.unique(room[:, 6]).astype(int):
        objects = room[room[:, 6] == label][:, :6] + (*low, 0, 0, 0)
        np.savetxt(folder / f"{CLASSES[label]}_1.txt", objects, fmt=["%.3f"] * 3 + ["%d"] * 3)


def write_text_rooms(root: Path) -> Path:
    """The same four rooms, a text for each object."""
    folder = root / "Stanford3dDataset_v1.2_Aligned_Version"
    for seed, name in enumerate(ROOMS):
        area, room = name[:6], name[7:]
        write_objects(make_room(seed=seed), folder / area / room / "Annotations")
        (folder / area / room / f"{room}.txt").write_text("the room without classes")
    return folder


def write_hdf5_blocks(root: Path) -> Path:
    """Eleven blocks in three files; block i is full of i."""
    folder = root / "indoor3d_sem_seg_hdf5_data"
    folder.mkdir()
    rooms = [ROOMS[0]] * 4 + [ROOMS[1]] * 2 + [ROOMS[3]] * 3 + [ROOMS[2]] * 2
    (folder / "room_filelist.txt").write_text("\n".join(rooms))
    names = ["ply_data_all_0.h5", "ply_data_all_2.h5", "ply_data_all_10.h5"]
    (folder / "all_files.txt").write_text("".join(f"indoor3d_sem_seg_hdf5_data/{name}\n" for name in names))
    for name, numbers in zip(names, (range(5), range(5, 7), range(7, 11)), strict=True):
        i = np.array(numbers)
        data = np.broadcast_to(i[:, None, None] + np.arange(9) / 10, (len(i), POINTS, 9))
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("data", data=data.astype(np.float32), compression="gzip")
            file.create_dataset("label", data=np.broadcast_to(i[:, None], data.shape[:2]).astype(np.uint8))
    return folder


# As every public reader of the set has it.
PUBLISHED_LABELS = {
    "Earphone": [16, 17, 18], "Motorbike": [30, 31, 32, 33, 34, 35], "Rocket": [41, 42, 43], "Car": [8, 9, 10, 11],
    "Laptop": [28, 29], "Cap": [6, 7], "Skateboard": [44, 45, 46], "Mug": [36, 37], "Guitar": [19, 20, 21],
    "Bag": [4, 5], "Lamp": [24, 25, 26, 27], "Table": [47, 48, 49], "Airplane": [0, 1, 2, 3], "Pistol": [38, 39, 40],
    "Chair": [12, 13, 14, 15], "Knife": [22, 23],
}  # fmt: skip


def write_hdf5_parts(root: Path, categories: dict[str, str], labels: dict[str, list[int]], points: int = 32) -> Path:
    """The HDF5 layout, with two shapes of each category and split, in two files for training."""
    folder = root / "hdf5_data"
    folder.mkdir(parents=True)
    lines = "".join(f"{name}\t{synset}\n" for synset, name in categories.items())
    (folder / "all_object_categories.txt").write_text(lines)
    generator = np.random.default_rng(0)
    for split in SPLITS:
        names = [f"ply_data_{split}{i}.h5" for i in range(1 + (split == "train"))]
        (folder / f"{split}_hdf5_file_list.txt").write_text("\n".join(names))
        for name in names:
            of = np.arange(2 * len(categories)) % len(categories)
            with h5py.File(folder / name, "w") as file:
                file["data"] = generator.standard_normal((len(of), points, 3)).astype(np.float32)
                file["label"] = of.astype(np.uint8)[:, None]
                ids = [generator.choice(labels[list(categories.values())[i]], points) for i in of]
                file["pid"] = np.array(ids, np.uint8)
    return folder


def write_published_parts(root: Path) -> Path:
    return write_hdf5_parts(root, PUBLISHED, PUBLISHED_LABELS)


def write_own_parts(root: Path) -> Path:
    """The text layout with categories of one's own."""
    return write_text(root, OWN, {"Tree": [0, 1], "Park bench": [0, 1, 2]})


def write_scans(root: Path) -> Path:
    """ScanObjectNN's layout, with 17 clouds for training and 5 for testing, far from the origin and of many sizes."""
    generator = np.random.default_rng(0)
    for folder in ("main_split", "main_split_nobg"):
        (root / "h5_files" / folder).mkdir(parents=True)
        for prefix, count in (("training", 17), ("test", 5)):
            for suffix in ("", "_augmentedrot_scale75"):
                points = generator.standard_normal((count, 32, 3)) * generator.uniform(0.1, 9, (count, 1, 1)) + 5
                with h5py.File(root / "h5_files" / folder / f"{prefix}_objectdataset{suffix}.h5", "w") as file:
                    file["data"] = points.astype(np.float32)
                    file["label"] = (np.arange(count) % 15).astype(np.int32)
    return root / "h5_files"
