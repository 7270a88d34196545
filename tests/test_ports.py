"""Weights of popular ports, read as a model of ours that computes the same, and what is refused."""

import os
import pickle
import resource
from zipfile import ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import pytest
import torch

from pointnet import __main__ as command_line
from pointnet import load_model
from pointnet.datasets import ModelNet
from pointnet.evaluation.contract import Contract
from pointnet.models.ports import IGNORED, load_port
from tests.helpers import SAMPLES, assert_near, before_long, error_of
from tests.ports import PortClassifier, trained


@pytest.fixture(scope="module")
def port():
    torch.manual_seed(0)
    return trained(PortClassifier())


@pytest.fixture(scope="module")
def saved(port, tmp_path_factory):
    """What one of the ports saves: its accuracies are NumPy scalars."""
    path = tmp_path_factory.mktemp("port") / "best_model.pth"
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]}
    content = {"epoch": 112, "instance_acc": np.float64(0.906), "model_state_dict": port.state_dict()}
    torch.save(content | {"optimizer_state_dict": optimizer}, path)
    return path


@torch.no_grad()
def assert_same(model, port, x, theirs=None):
    assert_near(model(x).log_softmax(1), port(x if theirs is None else theirs))


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("feature_transform", [True, False])
def test_a_ports_classifier_becomes_ours_and_computes_the_same(tmp_path, channels, feature_transform):
    port = trained(PortClassifier(7, channels, feature_transform), channels)
    path = tmp_path / "cls_model_5.pth"
    torch.save(port.state_dict(), path)
    model = load_port(path)
    assert not model.training
    for count in (1, 2, 50):
        assert_same(model, port, torch.randn(3, channels, count))
    x = torch.randn(2, channels, 300)
    assert_same(model, port, x)
    assert_same(model.fold(), port, x)
    with torch.no_grad():
        matrix = model(x, return_transforms=True)[1].input
        assert_near(matrix, port.feat.stn(x))
        assert (matrix - matrix.transpose(1, 2)).abs().max() > 0.05, "a symmetric matrix hides its direction"
    # What is left of the difference is float32's: the same weights in float64 agree far better.
    model, port, x = model.double(), port.double(), x.double()
    assert_near(model(x).log_softmax(1), port(x), 1e-6)


@pytest.mark.parametrize("scalar", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_numpy_scalars_is_read_in_both_formats(port, tmp_path, scalar, zipped):
    path = tmp_path / "x.pth"
    content = {"instance_acc": scalar(1), "epoch": 3, "model_state_dict": port.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same(load_port(path), port, torch.randn(2, 3, 20))
    assert not set(torch.serialization.get_safe_globals()) & set(IGNORED)


def test_a_numpy_scalar_of_numpy_1_is_read(port, saved, tmp_path):
    """It says `numpy.core`, where NumPy 2 says `numpy._core`."""
    path = tmp_path / "x.pth"
    torch.save({"a": np.float64(1), "model_state_dict": port.state_dict()}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert_same(load_port(path), port, torch.randn(2, 3, 20))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if "num_batches_tracked" not in name},
        lambda state: {name: value.double() if value.is_floating_point() else value for name, value in state.items()},
        lambda state: {"state_dict": state},
    ],
    ids=["DataParallel", "before num_batches_tracked", "float64", "under another name"],
)
def test_what_others_made_of_it_is_read_too(port, tmp_path, change):
    torch.save(change(port.state_dict()), tmp_path / "x.pth")
    model = load_port(tmp_path / "x.pth")
    assert_same(model, port, torch.randn(2, 3, 20))
    assert model.logits.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_converted_as_exactly_as_in_float32(tmp_path, dtype):
    port = PortClassifier(7)
    for layer in (each for each in port.modules() if isinstance(each, torch.nn.Conv1d | torch.nn.Linear)):
        layer.bias.detach().add_(3)  # in half precision what is left of the mean without it would be rounded
    port = trained(port)
    torch.save(port.to(dtype).state_dict(), tmp_path / "x.pth")
    assert_same(load_port(tmp_path / "x.pth"), port.float(), torch.randn(20, 3, 50))


@pytest.mark.slow
def test_weights_of_y_up_clouds_take_the_librarys_frame(tmp_path):
    for channels, order in ((3, [0, 2, 1]), (4, [0, 2, 1, 3]), (6, [0, 2, 1, 3, 5, 4])):
        port = trained(PortClassifier(3, channels), channels)
        torch.save(port.state_dict(), tmp_path / "x.pth")
        x = torch.randn(2, channels, 60)
        model = load_port(tmp_path / "x.pth", up="y")
        assert_same(model, port, x, theirs=x[:, order])
        contract = Contract.of(model)
        assert (contract.num_points, contract.centre, contract.scale) == (1024, True, "unit sphere")
        assert len(contract.channels) == channels
        assert contract.normals == (channels == 6)
    with pytest.raises(ValueError, match="up must be y or z, got 'x'"):
        load_port(tmp_path / "x.pth", up="x")


def test_a_converted_folder_reads_modelnet_as_the_port_did(port, saved, tmp_path, capsys):
    data = ModelNet(SAMPLES, split="test", num_points=1024)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(data.classes) + "\n")
    words = ["convert", str(saved), "--out", str(tmp_path / "x"), "--classes", str(names), "--up", "y"]
    assert command_line.main(words) == 0
    printed = capsys.readouterr()
    assert "40 classes" in printed.out
    assert not printed.err
    model = load_model(tmp_path / "x")
    with h5py.File(f"{SAMPLES}/modelnet40_ply_hdf5_2048/ply_data_test0.h5") as file:
        raw = torch.from_numpy(file["data"][:, :1024]).transpose(1, 2)
    assert_same(model, port, torch.stack([data[i][0] for i in range(len(data))]), theirs=raw)
    assert command_line.main(["evaluate", str(tmp_path / "x"), "--dataset", "modelnet40", "--root", SAMPLES]) == 0


def test_a_converted_folder_is_named_after_its_file(saved, tmp_path, capsys):
    path = tmp_path / "best_model.pth"
    path.write_bytes(saved.read_bytes())
    assert command_line.main(["convert", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "its classes are named 'class 0'" in printed
    assert "--up y" in printed
    assert load_model(tmp_path / "best_model").classes[39] == "class 39"
    assert "Converted from `best_model.pth`." in (tmp_path / "best_model" / "README.md").read_text()
    assert "already holds a model; choose another --out" in error_of(capsys, command_line.main, ["convert", str(path)])
    path.rename(tmp_path / "best")
    assert "--out must name" in error_of(capsys, command_line.main, ["convert", str(tmp_path / "best")])


class Malice:
    """A pickle of it makes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"conv4.weight": torch.zeros(13, 128, 1)}, "no network of theirs has conv4.weight"),
        (lambda state: {"layer1.weight": torch.zeros(3)}, "not a PointNet of a known port: its encoder has 0 shared"),
        (lambda state: state | {"feat.conv4.weight": torch.zeros(3)}, "its encoder has 4 shared layers"),
        (lambda state: state | {"fc1.weight": torch.zeros(512, 2048)}, "size mismatch for head.0.weight"),
        (lambda state: state | {"feat.stn.fc3.bias": torch.zeros(8)}, "not a PointNet of a known port"),
        (lambda state: list(state.values()), "holds no state dict"),
        (lambda state: trained(PortClassifier()), "holds tests.ports.PortClassifier, which is code"),
    ],
)
def test_another_network_is_one_clear_line(port, tmp_path, capsys, change, message):
    path = tmp_path / "x.pth"
    torch.save(change(port.state_dict()), path)
    with pytest.raises(ValueError, match=message) as caught:
        load_port(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert str(path) in error_of(capsys, command_line.main, ["convert", str(path)])
    assert list(tmp_path.iterdir()) == [path], "half-written files"


def test_code_in_a_file_is_never_run(port, tmp_path):
    for name, content in (("a", Malice(tmp_path / "ran")), ("b", {"x": Malice(tmp_path / "ran")})):
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=r"holds (posix|nt).mkdir, which is code; only weights are read|damaged"):
            load_port(tmp_path / f"{name}.pth")
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Malice(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"c.pth: "):
        load_port(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_or_missing_file_is_one_clear_line(saved, tmp_path):
    content, path = saved.read_bytes(), tmp_path / "x.pth"
    for size in (0, 1, 10, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="damaged, or not a file that torch.save writes") as caught:
            load_port(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="nowhere.pth: cannot be read: No such file"):
        load_port(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        load_port(tmp_path)


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_file_that_stands_for_far_more_than_its_size_is_refused_before_it_is_made(port, tmp_path):
    state, path, before = port.state_dict(), tmp_path / "x.pth", peak()
    wide = torch.zeros(1, 1, 1).expand(40_000, 20_000, 1)  # 3.2 GB
    torch.save({"feat.conv1.weight": torch.zeros(8, 3, 1), "feat.conv2.weight": wide}, path)
    with pytest.raises(ValueError, match=r"x.pth: its [\d,]+ bytes stand for 3,200,000,096, as its tensors repeat"):
        load_port(path)
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 20_000_000)
    with pytest.raises(ValueError, match=r"x.pth: cannot be read: its [\d,]+ bytes unpack to 20,000,000"):
        load_port(path)
    tall = torch.zeros(30_000, 1, 1)  # whose network has layers of 30,000 x 30,000
    torch.save(state | {f"feat.conv{i}.weight": tall for i in (2, 3)}, path)
    with pytest.raises(ValueError, match="x.pth: not a PointNet of a known port: it asks for more wide layers than"):
        load_port(path)
    assert peak() - before < 500e6


def test_a_pipe_is_no_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with before_long(), pytest.raises(ValueError, match="x.pth: cannot be read: is a pipe, not a file"):
        load_port(tmp_path / "x.pth")


def test_names_for_the_classes_must_be_as_many(saved, tmp_path, capsys):
    with pytest.raises(ValueError, match="has 40 classes, got 2 names"):
        load_port(saved, ["a", "b"])
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xff\xfe\x00")
    words = ["convert", str(saved), "--out", str(tmp_path / "x"), "--classes"]
    assert "must be UTF-8 text" in error_of(capsys, command_line.main, [*words, str(names)])
    assert "nowhere.txt" in error_of(capsys, command_line.main, [*words, "nowhere.txt"])
    assert not (tmp_path / "x").exists()


def test_a_byte_order_mark_is_no_letter_of_the_first_class(tmp_path):
    torch.save(PortClassifier(2).state_dict(), tmp_path / "x.pth")
    (tmp_path / "names.txt").write_text("desk\r\nThéière\r\n", encoding="utf-8-sig")
    words = ["convert", str(tmp_path / "x.pth"), "--classes", str(tmp_path / "names.txt")]
    assert command_line.main(words) == 0
    assert load_model(tmp_path / "x").classes == ("desk", "Théière")


def test_files_of_points_are_no_weights(tmp_path, capsys):
    chair = tmp_path / "chair.off"
    chair.write_text("OFF\n")
    for path in (chair, tmp_path):
        line = error_of(capsys, command_line.main, ["convert", str(path), "--out", str(tmp_path / "x")])
        assert f"{path}: " in line
        assert "show and predict take files of points" in line
