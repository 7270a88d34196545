"""What a caller says of data or a network is used, or refused in a line before the first step."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from pointnet import EdgeNetClassifier, PointNetClassifier, PointNetSegmenter, PointNextClassifier, predict
from pointnet.datasets import LabelledClouds, LabelledPoints, split_validation
from pointnet.evaluation.contract import Contract
from pointnet.evaluation.contract_of_data import contract_of_data
from pointnet.evaluation.evaluate import evaluate
from pointnet.evaluation.tasks import TASKS, register_model, task_of
from pointnet.layers import EdgeConv, SetAbstraction, SharedMLP
from pointnet.models import load_model, pretrained
from pointnet.ops.neighbours import knn
from pointnet.pages.report import write_report
from pointnet.training import fit
from tests.forms import forms
from tests.helpers import described, halves, quiet, small, tiny, two_shapes


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray, list])
def test_a_mask_is_the_clouds_that_it_marks(kind):
    data = two_shapes(per_class=5)
    data.files = [f"{i}.xyz" for i in range(10)]
    mask = data.labels == 1
    for chosen in (mask.tolist() if kind is list else mask, mask.nonzero()[:, 0].tolist()):
        found = data.subset(kind(chosen))
        assert torch.equal(found.points, data.points[5:])
        assert found.labels.tolist() == [1] * 5
        assert found.files == data.files[5:]
        points, labels = next(iter(DataLoader(found, batch_size=5)))
        assert torch.equal(points, data.points[5:])
        assert labels.tolist() == [1] * 5
    assert len(data.subset(kind([]))) == 0


@pytest.mark.parametrize("indices", [torch.ones(9, dtype=torch.bool), [0.5], [[0]], [10], [-11], torch.ones(10)])
def test_what_is_neither_a_mask_nor_indices_is_refused(indices):
    with pytest.raises(ValueError, match=r"indices must be whole numbers below 10, or a mask \(10,\)|must be a tensor"):
        two_shapes(per_class=5).subset(indices)


def test_a_validation_split_may_be_an_array():
    data = two_shapes(per_class=5)
    data.validation = np.arange(10) % 5 == 0
    assert [len(each) for each in split_validation(data, 0)] == [8, 2]


def far_shapes(**said) -> LabelledClouds:
    data = two_shapes()
    data = LabelledClouds(40 * data.points, data.labels, data.classes)
    for name, value in said.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("names", [None, ("x", "y", "z")])
def test_whether_clouds_are_centred_is_as_the_data_says(names, centre):
    contract = contract_of_data(far_shapes(scale="as given", centre=centre, channel_names=names), num_points=32)
    assert (contract.centre, contract.scale) == (centre, "as given")
    assert (contract.reach is None) == centre


@pytest.mark.parametrize(("said", "message"), [
    ({"scale": "unit_sphere"}, "points of scale 'unit_sphere' are not known here"),
    ({"up": "Y"}, "up must be one of None, 'z', .*got 'Y'"),
    ({"channel_names": ("x", "z", "y")}, "channels must be x, y, z and others, each once, got x, z, y"),
    ({"channel_names": ("x", "y", "y")}, "channels must be x, y, z"),
    ({"intensity": (0.0, 255.0)}, "the scale of intensity is given, and no channel has its name"),
    ({"extents": (2.0, 1.0)}, r"extents must be two numbers, the smaller first, got \(2.0, 1.0\)"),
    ({"block": 0.0}, "block must be a number above 0, got 0.0"),
])  # fmt: skip
def test_what_data_cannot_be_is_refused_before_a_step(tmp_path, said, message):
    scale = {} if "extents" not in said else {"scale": "as given"}
    with pytest.raises(ValueError, match=message):
        fit(tiny(tmp_path / "run"), far_shapes(**scale, **said), log=quiet)


@pytest.mark.parametrize(("change", "message"), [
    ({"temperature": -1.0}, r"of config.json\): temperature must be a number above 0, got -1.0"),
    ({"temperature": 0}, "temperature must be a number above 0"),
    ({"temperature": None}, "temperature must be a number above 0, got None"),
    ({"temperature": "2"}, "temperature must be a number above 0, got '2'"),
    ({"num_points": True}, "num_points"),
    ({"channels": ["x", "x", "x"]}, "channels must be x, y, z"),
    ({"up": "q"}, "up must be one of"),
    ({"centre": "yes"}, "centre must be true or false, got 'yes'"),
    ({"needs_category": None}, "needs_category must be true or false, got None"),
    ({"ground": "low"}, "ground must be a number, got 'low'"),
    ({"ground": ""}, "ground must be a number, got ''"),
    ({"rotations": "180"}, "rotations must be a number, got '180'"),
    ({"colors": [0.5]}, r"colors must be two numbers, the smaller first, got \(0.5,\)"),
    ({"whiten": True}, "the model expects 'whiten', which is not known here"),
    ({"scael": "unit sphere"}, "the model expects 'scael', which is not known here"),
])  # fmt: skip
def test_a_contract_that_cannot_be_met_is_refused(tmp_path, change, message):
    load_model("pointnet_shapes").save_pretrained(tmp_path)
    held = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(held | {"preprocessing": held["preprocessing"] | change}))
    with pytest.raises(ValueError, match=message):
        predict(two_shapes().points[0].T.numpy(), tmp_path)


def test_a_setting_beside_the_contract_is_refused(tmp_path):
    load_model("pointnet_shapes").save_pretrained(tmp_path)
    held = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(held | {"up": "y", "licence": "MIT"}))
    with pytest.raises(ValueError, match=r"config.json: .*: 'up' stands outside preprocessing, where nothing reads it"):
        load_model(tmp_path)


def test_a_misspelt_scale_is_not_taken_for_a_contract_of_old():
    model = described(PointNetClassifier(3), num_points=9)
    held = Contract(num_points=9, temperature=2.0).as_json()
    model.preprocessing = held | {"scael": held.pop("scale")}
    with pytest.raises(ValueError, match="the model expects 'scael', which is not known here"):
        Contract.of(model)


def test_clouds_to_test_on_have_the_points_of_those_to_train_on(tmp_path):
    data = two_shapes()
    few = LabelledClouds(data.points, data.labels, data.classes, 2)
    with pytest.raises(ValueError, match="test must have the num_points of train, 32, got 2"):
        fit(tiny(tmp_path / "run"), data, few, log=quiet)


def test_points_with_labels_are_no_clouds_to_classify(tmp_path):
    with pytest.raises(ValueError, match="train has a label for each point; set task to part or scene"):
        fit(tiny(tmp_path / "run"), halves("part"), log=quiet)
    assert not (tmp_path / "run").exists()


def test_arrays_of_which_any_point_changed_are_other_data(tmp_path):
    data, other = two_shapes(), two_shapes()
    other.points[:, 0, 20] += 0.1
    assert data.fingerprint() == two_shapes().fingerprint() != other.fingerprint()
    fit(tiny(tmp_path / "run", epochs=1, schedule="constant"), data, log=quiet)
    with pytest.raises(ValueError, match="data"):
        fit(tiny(tmp_path / "run", epochs=2, schedule="constant"), other, resume=True, log=quiet)


@pytest.mark.parametrize(("given", "message"), [
    ({"num_points": -5}, "num_points must be 1 to 32, got -5"),
    ({"num_points": 0}, "num_points must be 1 to 32, got 0"),
    ({"num_points": 1000}, "num_points must be 1 to 32, got 1000"),
])  # fmt: skip
def test_points_that_clouds_do_not_have_are_not_evaluated(given, message):
    with pytest.raises(ValueError, match=message):
        evaluate(PointNetClassifier(2), two_shapes(), **given)


@pytest.mark.parametrize("make", [lambda data: Subset(data, [0, 1]), list, lambda data: data.points])
def test_only_data_sets_of_the_library_are_evaluated(make):
    with pytest.raises(ValueError, match=r"data must be LabelledClouds or LabelledPoints, got \w+; .*data.subset"):
        evaluate(PointNetClassifier(2), make(two_shapes()))


def test_a_network_that_is_handed_over_keeps_the_momentum_of_its_norms(tmp_path):
    for momentum, wanted in ((0.1, 0.01), (0.5, 0.5)):  # 0.1: the setting's default, which nobody chose
        model = PointNetClassifier(2, widths=((4,), (8, 8)), input_transform=False, feature_transform=False)
        norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm1d)]
        for each in norms:
            each.momentum = 0.01
        config = tiny(tmp_path / str(momentum), epochs=1, norm_momentum=momentum)
        fit(config, two_shapes(), log=quiet, model=model)
        assert {each.momentum for each in norms} == {wanted}


def of_points(scale: float) -> type[nn.Module]:
    class Of(nn.Module):
        def __init__(self, num_classes, in_channels):
            super().__init__()
            self.map = nn.Conv1d(in_channels, num_classes, 1)

        def forward(self, x):
            return scale * self.map(x)

    return Of


def test_a_name_means_one_network_and_its_task_is_known_when_a_cell_runs_twice(tmp_path, monkeypatch):
    for known in (pretrained.MODELS, *(task.networks for task in TASKS.values())):
        for name in [*known]:
            monkeypatch.setitem(known, name, known[name])
    register_model("of points", of_points(1.0), task="scene")
    fit(small(tmp_path / "run", "scene", model="of points", epochs=1), halves("scene"), log=quiet)
    model = load_model(tmp_path / "run")
    register_model("of points", of_points(1.0), task="scene")
    try:
        assert task_of(model) is TASKS["scene"]
        with pytest.raises(ValueError, match="there is a network 'of points' already"):
            register_model("of points", of_points(1.0))

        class Other(nn.Conv1d):
            def __init__(self, num_classes, in_channels):
                super().__init__(in_channels, num_classes, 1)

        with pytest.raises(ValueError, match="there is a network 'of points' already; choose another name"):
            register_model("of points", Other, task="scene")
        for name in ("", 5):
            with pytest.raises(ValueError, match="the name of a network must be a word"):
                register_model(name, Other)
    finally:
        del pretrained.MODELS["of points"], TASKS["scene"].networks["of points"]


def test_the_task_of_the_librarys_networks_is_theirs():
    assert task_of(PointNetSegmenter(3, 3)) is TASKS["scene"]
    assert task_of(nn.Linear(3, 2)) is TASKS["classification"]
    assert Contract.of(described(PointNetClassifier(3), num_points=9)).num_points == 9


def test_points_in_memory_with_labels_are_told_from_clouds():
    with pytest.raises(ValueError, match="train must be a LabelledPoints"):
        fit(small("unused", "scene"), two_shapes(), log=quiet)
    assert isinstance(halves("scene"), LabelledPoints)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda x: SharedMLP([3, 8])(x.numpy()), TypeError, "points must be a tensor, got ndarray; torch.from_numpy(poi"),
    (lambda x: SharedMLP([3, 8])(x.tolist()), TypeError, "points must be a tensor, got list"),
    (lambda x: SharedMLP([5, 8])(x, np.zeros((2, 2))), TypeError, "context must be a tensor, got ndarray"),
    (lambda x: SharedMLP(3, [8]), ValueError, "two or more positive integers, got 3"),
    (lambda x: PointNetClassifier(4)(x.numpy()), TypeError, "points must be a tensor, got ndarray"),
    (lambda x: EdgeConv(3, 8, 4)(x.numpy()), TypeError, "points must be a tensor, got ndarray"),
    (lambda x: knn(x.numpy(), 2), TypeError, "points must be a tensor, got ndarray"),
    (lambda x: knn(x, 2.0), TypeError, "neighbours must be a whole number, got 2.0"),
    (lambda x: SetAbstraction(0, [8], 4, [0.2], [4]), ValueError, "widths must be a list of lists, one for each MLP"),
    (lambda x: SetAbstraction(0, [[8]], 4, 0.2, [4]), ValueError, "radii must be a list with an entry for each MLP"),
    (lambda x: SetAbstraction(2, [[8]], 4, [0.2], [4])(x, x.numpy()), TypeError, "features must be a tensor, got nd"),
])  # fmt: skip
def test_what_is_no_tensor_or_no_list_is_refused_in_one_line(call, error, message):
    with pytest.raises(error, match="^[^\n]*$") as refused:
        call(torch.randn(2, 3, 9))
    assert message in str(refused.value)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert torch.equal(knn(torch.arange(27.0).view(1, 3, 9), np.int64(2)), knn(torch.arange(27.0).view(1, 3, 9), 2))


def test_a_report_on_data_that_is_not_there_leaves_the_page_that_is(tmp_path):
    fit(tiny(tmp_path / "run", dataset="modelnet40", epochs=1), two_shapes(), log=quiet)
    (tmp_path / "run" / "report").mkdir()
    page = tmp_path / "run" / "report" / "index.html"
    page.write_text("of today")
    with pytest.raises(ValueError, match="nowhere: no such folder.*; the page is left as it is: "):
        write_report(tmp_path / "run", root=tmp_path / "nowhere", device="cpu")
    assert page.read_text() == "of today"


def strided() -> SetAbstraction:
    return SetAbstraction(0, [[8]], radii=[0.4], neighbours=[4], stride=2)


class Half(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return knn(x, x.shape[2] // 2)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("make", forms([Half, strided, EdgeNetClassifier, PointNextClassifier], Half))
def test_numbers_that_follow_from_the_points_are_traced(make):
    torch.manual_seed(0)
    module, x = (make(3) if "Classifier" in make.__name__ else make()).eval(), torch.randn(2, 3, 64)
    torch.testing.assert_close(torch.jit.trace(module, x)(x), module(x))
