"""The development split of ModelNet40, made from a small release."""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import h5py
import huggingface_hub
import numpy as np
import pytest

from pointnet.datasets import ModelNet
from pointnet.datasets.download import ARCHIVES
from pointnet.datasets.modelnet import HDF5_FOLDER, MODELNET40
from tests.helpers import SHARED_DATA, error_of
from tools import development_split

PUBLIC = ARCHIVES["modelnet40"]


def write_release(root, *files: list[str]):
    """A release in the public one's layout: files of training shapes, one of test shapes; -> its folder.

    The first coordinate of a shape is its number.
    """
    folder, count = root / HDF5_FOLDER, 0
    folder.mkdir(parents=True)
    for split, number, names in [*(("train", i, names) for i, names in enumerate(files)), ("test", 0, ["sofa_0681"])]:
        points = np.random.default_rng(number).random((len(names), 2048, 3), np.float32)
        points[:, 0, 0] = np.arange(count, count + len(names))
        count += len(names)
        labels = [[MODELNET40.index(name.rpartition("_")[0])] for name in names]
        with h5py.File(folder / f"ply_data_{split}{number}.h5", "w") as file:
            for key, array in (("data", points), ("normal", points), ("faceId", np.zeros(points.shape[:2], np.int32))):
                file.create_dataset(key, data=array, compression="gzip", compression_opts=1)
            file["label"] = np.array(labels, np.uint8)
        listed = [f"{name.rpartition('_')[0]}/{name}.ply" for name in names]
        (folder / f"ply_data_{split}_{number}_id2file.json").write_text(json.dumps(listed))
    for split, many in (("train", len(files)), ("test", 1)):
        lines = (f"data/{HDF5_FOLDER}/ply_data_{split}{i}.h5\n" for i in range(many))
        (folder / f"{split}_files.txt").write_text("".join(lines))
    (folder / "shape_names.txt").write_text("".join(f"{name}\n" for name in MODELNET40))
    return folder


def test_listed_shapes_are_the_test_split_and_all_others_are_for_training(tmp_path, capsys):
    listed = sorted(development_split.listed_names())
    others = [f"{name}_9999" for name in ("night_stand", "chair")]
    write_release(tmp_path / "data", [listed[0], others[0]], [others[1], listed[700], listed[-1]])
    words = ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "dev")]
    assert development_split.main(words) == 0
    assert capsys.readouterr().out.endswith("dev: 2 shapes to train on, 3 of the 1,231 test shapes\n")
    for split, numbers in (("train", [1, 2]), ("test", [0, 3, 4])):
        data = ModelNet(tmp_path / "dev", split=split)
        assert [int(points[0, 0]) for points, _ in data] == numbers
        names = [[listed[0], *others, listed[700], listed[-1]][i] for i in numbers]
        assert [data.classes[label] for _, label in data] == [name.rpartition("_")[0] for name in names]
        assert data[0][0].shape == (3, 1024)
    assert error_of(capsys, development_split.main, words).endswith("exists; delete it to make it again")


class LocalHub(BaseHTTPRequestHandler):
    """Gives one file to the Hub's own client, at the address that the Hub has it at."""

    blob, address = b"", f"/datasets/{PUBLIC.repo}/resolve/main/{PUBLIC.file}"

    def do_HEAD(self):
        self.send_response(200 if self.path == self.address else 404)
        for name, value in (("X-Repo-Commit", "0" * 40), ("ETag", '"1"'), ("Content-Length", len(self.blob))):
            self.send_header(name, str(value))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.blob)

    def log_message(self, *words):
        pass


def test_the_split_is_made_of_the_archive_that_the_hub_gives(tmp_path, monkeypatch, capsys):
    listed, others = sorted(development_split.listed_names()), [f"{name}_9999" for name in MODELNET40]
    write_release(
        tmp_path, listed[:2] + others[:6], others[6:30], listed[600:601] + others[30:], others[:1], listed[-2:]
    )
    archive = shutil.make_archive(str(tmp_path / "release"), "zip", tmp_path, HDF5_FOLDER)
    blob = Path(archive).read_bytes()
    published = replace(PUBLIC, size=len(blob), sha256=hashlib.sha256(blob).hexdigest())
    monkeypatch.setitem(development_split.ARCHIVES, "modelnet40", published)
    monkeypatch.setattr(LocalHub, "blob", blob)
    monkeypatch.chdir(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), LocalHub) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_port}"
        asked = partial(huggingface_hub.hf_hub_download, endpoint=address)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", asked)
        assert development_split.main(["--download", "--out", "dev"]) == 0
        hub.shutdown()
    printed = capsys.readouterr().out
    assert printed.startswith(f"{PUBLIC.file}: {published.size_text} from huggingface.co/datasets/{PUBLIC.repo}; ")
    assert printed.endswith("dev: 41 shapes to train on, 5 of the 1,231 test shapes\n")
    train, test = (ModelNet(tmp_path / "dev", split=split) for split in ("train", "test"))
    assert [train.classes[label] for _, label in train] == [*MODELNET40, MODELNET40[0]]
    names = [*listed[:2], listed[600], *listed[-2:]]
    assert [test.classes[label] for _, label in test] == [name.rpartition("_")[0] for name in names]
    assert ModelNet(tmp_path / "data", split="test").points[0, 0, 0] == 46  # the official test split is not touched


def test_a_list_of_another_length_is_refused_and_nothing_is_written(tmp_path, capsys):
    folder = write_release(tmp_path / "data", ["chair_0001", "bed_0002"], ["bed_0003"])
    (folder / "ply_data_train_0_id2file.json").write_text('["chair/chair_0001.ply"]')
    said = error_of(capsys, development_split.main, ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "dev")])
    assert said.endswith("ply_data_train_0_id2file.json: must name 2 shapes, got 1")
    assert not (tmp_path / "dev" / HDF5_FOLDER).exists()


def test_a_release_without_listed_shapes_is_refused(tmp_path, capsys):
    write_release(tmp_path / "data", ["chair_9998"], ["bed_9999"])
    said = error_of(capsys, development_split.main, ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "dev")])
    assert "holds no shape of the test split" in said


def test_the_listed_shapes_are_those_of_the_split_that_the_figures_are_of():
    listing = SHARED_DATA / "modelnet40_dev" / HDF5_FOLDER / "ply_data_test_0_id2file.json"
    if not listing.is_file():
        pytest.skip(f"needs {listing}")
    names = {file.rpartition("/")[2].removesuffix(".ply") for file in json.loads(listing.read_text())}
    assert names == development_split.listed_names()
    assert len(names) == 1231
