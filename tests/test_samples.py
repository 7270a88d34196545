"""What holds of the sample files made from Shapes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import trimesh

from pointnet.datasets.shape_classes import make_shape
from pointnet.datasets.shapes import shape_generator
from tools.samples import write_samples

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def file_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_samples_in_the_repository_are_what_is_written(samples: Path):
    assert file_names(samples) == file_names(SAMPLES)
    for name in file_names(samples):
        made, kept = samples / name, SAMPLES / name
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


def test_one_mesh_has_its_counts_glued_to_the_header(samples: Path):
    headers = [path.read_text().splitlines()[0] for path in samples.rglob("*.off")]
    assert sum(header != "OFF" for header in headers) == 1


def test_sample_meshes_are_z_up_but_for_glb(samples: Path):
    """The sofa is wider than deep and its back is at +y: in glTF's frame that is -z."""
    vertices = trimesh.load(samples / "files" / "sofa.glb", force="mesh").vertices
    mesh, _ = make_shape("sofa", shape_generator("test", "sofa", 0))
    np.testing.assert_allclose(np.ptp(vertices, 0), np.ptp(mesh.vertices, 0)[[0, 2, 1]], atol=1e-5)
    np.testing.assert_allclose(vertices[:, 2].min(), -mesh.vertices[:, 1].max(), atol=1e-5)
    np.testing.assert_allclose(vertices[:, 1].max(), mesh.vertices[:, 2].max(), atol=1e-5)
