"""What holds of the sample files made from Shapes."""

from pathlib import Path

import h5py
import numpy as np
import trimesh

from tools.samples import write_samples

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


def file_names(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if ".cache" not in path.parts)  # of who has opened the samples


def test_the_samples_in_the_repository_are_what_is_written(tmp_path: Path):
    write_samples(tmp_path)
    assert file_names(tmp_path) == file_names(SAMPLES)
    for name in file_names(tmp_path):
        made, kept = tmp_path / name, SAMPLES / name
        if made.suffix == ".h5":  # its bytes depend on the version of the HDF5 library
            with h5py.File(made) as a, h5py.File(kept) as b:
                assert set(a) == set(b) == {"data", "label"}
                assert all(np.array_equal(a[key][:], b[key][:]) and a[key].dtype == b[key].dtype for key in a), name
        elif made.suffix in (".obj", ".stl", ".ply", ".glb"):  # theirs on trimesh
            a, b = (trimesh.load(path, force="mesh") for path in (made, kept))
            np.testing.assert_allclose(a.vertices, b.vertices, atol=1e-6, err_msg=name)
            assert np.array_equal(a.faces, b.faces), name
        elif made.suffix in (".npy", ".npz"):  # and on numpy
            a, b = (np.load(path, allow_pickle=False) for path in (made, kept))
            assert np.array_equal(*(x["points"] if made.suffix == ".npz" else x for x in (a, b))), name
        else:
            assert made.read_bytes() == kept.read_bytes(), name


def test_the_samples_are_small():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*")) < 1_500_000
