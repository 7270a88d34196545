"""EdgeNet: counted, equal to itself on pairs, and its laws."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from pointnet import EdgeNetClassifier, predict
from pointnet.commands.train_flags import parse_command
from pointnet.inference.export import export_model
from pointnet.models import edgenet, load_model
from pointnet.models.edgenet import CENTRES, EdgeMax, Structure, structure_of
from pointnet.ops.neighbours import gather
from pointnet.training import fit
from pointnet.training.recipes import RECIPES
from tests.helpers import Largest, assert_near, count_multiply_adds, described, quiet, tiny, trained_looking, two_shapes


def small(**arguments) -> EdgeNetClassifier:
    torch.manual_seed(0)
    return trained_looking(EdgeNetClassifier(3, **({"width": 0.125} | arguments)))


def clouds(points: int, channels: int = 3, count: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, channels, points, dtype=torch.float64) / 2


def on_pairs(layer: EdgeMax, points, features, centres, neighbours) -> torch.Tensor:
    """What an EdgeMax says of itself, of all pairs."""
    centres = torch.arange(neighbours.shape[1]).expand(len(points), -1) if centres is None else centres
    relative = (gather(points, neighbours) - gather(points, centres).unsqueeze(3)) / layer.radius
    near, own = gather(features, neighbours), gather(features, centres)
    near = near - own.unsqueeze(3) if layer.residual else near
    pairs = torch.cat([relative, near], 1).permute(0, 2, 3, 1)
    z = layer.edge(pairs).amax(2)
    z = z if layer.skip is None else z + layer.skip(own.transpose(1, 2))
    y = layer.norm(z).transpose(1, 2)
    return (y + own if layer.residual else y).relu()


def test_its_parameters_and_multiply_adds_are_an_eighteenth_of_pointnets():
    model = EdgeNetClassifier()
    assert sum(p.numel() for p in model.parameters()) == 906_696
    counted = count_multiply_adds(WithStructure(model), torch.randn(1, 3, 1024))
    of_points = 1024 * 3 * 32 + 512 * 35 * 96 + 128 * (99 * 96 + 2 * 96 * 192 + 99 * 256)
    of_centres = 512 * 3 * 32 + 128 * 35 * 96 + 32 * 99 * 256
    of_cloud = 32 * (2 * 256 * 512 + 259 * 512) + 512 * 512 + 512 * 256 + 256 * 40
    assert counted == of_points + of_centres + of_cloud == 25_323_520


class WithStructure(nn.Module):
    """The model without the search for its structure, whose products are not the network's."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.structure = model.find_structure(torch.randn(1, 3, 1024))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, structure=self.structure)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [0, 4])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("some", [True, False])  # of the points are centres, or the first are
def test_an_edge_max_is_what_it_says_of_all_pairs(some, residual, channels, training):
    if residual and not channels:
        return
    torch.manual_seed(2)
    layer = trained_looking(EdgeMax(channels, channels or 5, 0.3, residual)).train(training)
    plain, found = copy.deepcopy(layer), []
    centres, neighbours = torch.randint(20, (2, 9)) if some else None, torch.randint(20, (2, 9, 6))
    for each, function in (
        (layer, lambda *given: layer(*given, None)),
        (plain, lambda *given: on_pairs(plain, *given)),
    ):
        points, features = clouds(20, 3, 2).requires_grad_(), clouds(20, channels, 2).requires_grad_()
        y = function(points, features, centres, neighbours)
        inputs = [points, *([features] if channels else []), *each.parameters()]
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), inputs), *each.buffers()])
    for got, wanted in zip(*found, strict=True):
        assert_near(got, wanted, 1e-10)


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_maps_with_a_bias_keep_it(residual, called):
    layer = EdgeMax(5, 5, 0.3, residual).double().eval()
    layer.edge = nn.Linear(8, 5, dtype=torch.float64)
    if layer.skip is not None:
        layer.skip = nn.Linear(5, 5, dtype=torch.float64)
    if called:
        layer.edge.register_forward_hook(lambda *given: None)
    given = clouds(20, 3, 2), clouds(20, 5, 2), None, torch.randint(20, (2, 9, 6))
    assert_near(layer(*given, None), on_pairs(layer, *given), 1e-10)


@pytest.mark.parametrize("points", [1, 20, 600])
@pytest.mark.parametrize("training", [True, False])
def test_the_order_of_the_points_changes_nothing(training, points):
    model = small(in_channels=4, dropout=0.0).train(training)
    x, order = clouds(points, 4), torch.randperm(points)
    wanted = model(x)
    torch.testing.assert_close(model(x[:, :, order]), wanted, rtol=0, atol=1e-9)


def test_only_relative_coordinates_count_but_for_the_last_layers():
    model = small()
    with torch.no_grad():
        model.mlp[0].conv.weight[:, -3:] = 0  # which sees where the last centres are
    x, far = clouds(100), torch.randn(3, 3, 1, dtype=torch.float64)
    torch.testing.assert_close(model(x + far), model(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("filling", [0.0, 1e6, torch.inf, torch.nan])
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_no_centre_and_nobodys_neighbour(training, filling):
    model, lengths = small(dropout=0.0).train(training), torch.tensor([600, 2, 90])
    clean, there = copy.deepcopy(model), torch.arange(600) < lengths[:, None, None]
    x = clouds(600)
    given = x.where(there, filling).requires_grad_()
    logits = model(given, lengths=lengths)
    (gradient,) = torch.autograd.grad(logits.square().sum(), given)
    assert bool(gradient.isfinite().all())
    assert not gradient.masked_select(~there).any()
    torch.testing.assert_close(logits, clean(x.where(there, 7.0), lengths=lengths), rtol=0, atol=1e-12)
    for got, wanted in zip(model.state_dict().values(), clean.state_dict().values(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    if not training:  # a cloud alone or in a batch
        alone = torch.cat([clean(cloud[None, :, :n]) for cloud, n in zip(x, lengths.tolist(), strict=True)])
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-12)


def test_in_training_a_padded_batch_is_the_batch_without_padding():
    model, x = small(dropout=0.0).train(), clouds(600)
    clean, x[:, :, 90:] = copy.deepcopy(model), torch.nan
    got, wanted = model(x, lengths=torch.full((3,), 90)), clean(x[:, :, :90])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    for got, wanted in zip(model.state_dict().values(), clean.state_dict().values(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_the_structure_of_a_cloud_may_be_found_beforehand():
    model, x = small(), clouds(600)
    structure, found = structure_of(x), model.find_structure(x)
    assert structure.centres.shape == (3, CENTRES[0])
    assert [each.shape[1:] for each in structure.neighbours] == [(512, 16), (128, 24), (128, 16), (32, 24)]
    for count, kind in ((600, torch.int16), (2**15 + 1, torch.int32)):
        assert structure.packed(count).dtype == kind
    again = Structure.unpacked(found, 600)
    for got, wanted in zip((again[0], *again[1]), (structure[0], *structure[1]), strict=True):
        assert torch.equal(got, wanted)
    torch.testing.assert_close(model(x, structure=found), model(x), rtol=0, atol=0)
    stretched = x * torch.tensor([1.1, 0.9, 1.0]).double()[None, :, None]
    assert bool(model(stretched, structure=found).isfinite().all())


def test_no_tensor_of_pairs_exists():
    model, x = EdgeNetClassifier().train(), torch.randn(4, 3, 1024)
    structure = model.find_structure(x)
    with Largest() as largest:
        model(x, structure=structure).square().sum().backward()
    assert largest.numel < 4 * 128 * 24 * 96  # the pairs of level 2, whose points' numbers are 4 * 512 * 96


def test_in_single_precision_it_is_the_same_network():
    model, x = small(), clouds(300)
    single = copy.deepcopy(model).float()
    structure = model.find_structure(x)
    torch.testing.assert_close(single(x.float(), structure=structure).double(), model(x), rtol=0, atol=1e-4)


def test_folded_it_is_the_same_and_norms_after_a_max_stay():
    model, x = small(in_channels=5), clouds(40, 5)
    folded = model.fold()
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-10)
    assert sum(isinstance(each, nn.BatchNorm1d) for each in folded.modules()) == 4


def test_what_it_cannot_take_is_one_line():
    for x, hint in ((torch.zeros(2, 9, 3), "points go last: transpose"), (torch.zeros(3, 9), "add the batch")):
        with pytest.raises(ValueError, match=rf"points must be \(B, 3, N\) with N >= 1, got \(.*\); {hint}"):
            EdgeNetClassifier(width=0.1)(x)
    with pytest.raises(ValueError, match=r"points must be \(B, 3, N\) with N >= 1, got \(2, 3, 0\)"):
        EdgeNetClassifier(width=0.1)(torch.zeros(2, 3, 0))
    found = small().find_structure(clouds(20))
    with pytest.raises(ValueError, match=r"structure must be \(B, 1620\) for 20 points, got \(3, 1619\)"):
        small()(clouds(20), structure=found[:, 1:])
    with pytest.raises(ValueError, match="in_channels must be 3"):
        EdgeNetClassifier(in_channels=2)


def test_it_is_not_exported_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="not written: EdgeNetClassifier is not exported: its centres are found one"):
        export_model(described(EdgeNetClassifier(3, width=0.1)), tmp_path / "model.onnx")


def test_train_py_trains_it_by_its_own_recipe_and_it_predicts(tmp_path):
    assert parse_command(["--model", "edgenet"]).config == RECIPES["edgenet"]
    config = tiny(tmp_path / "run", model="edgenet", epochs=1, early_points=0)
    fit(config, two_shapes(per_class=8), two_shapes(per_class=4, seed=1), log=quiet)
    model = load_model(tmp_path / "run")
    assert type(model) is EdgeNetClassifier
    assert predict(torch.randn(40, 3).numpy(), model).class_name in model.classes
    described(model).classes = ("a", "b")
    model.save_pretrained(tmp_path / "again")
    x = torch.randn(2, 3, 50)
    assert torch.equal(load_model(tmp_path / "again")(x), model(x))
    assert dataclasses.asdict(config)["model"] == "edgenet"
    assert edgenet.WIDTHS == (32, 96, 256)


def test_a_structure_of_larger_clouds_is_refused():
    model = EdgeNetClassifier(3, width=0.25).eval()
    structure = model.find_structure(torch.randn(2, 3, 900))  # as long as that of 600 points: both have 512 centres
    with pytest.raises(ValueError, match="indices must be of 600 points"):
        model(torch.randn(2, 3, 600), structure=structure)


@pytest.mark.filterwarnings("ignore:.*quanti[sz]")
def test_quantized_linear_maps_are_called():
    torch.manual_seed(0)
    model = trained_looking(EdgeNetClassifier(3, width=0.25)).eval().float()
    x = torch.randn(2, 3, 600)
    exact = model(x)
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})(x)
    assert 0 < (quantized - exact).abs().max() < 0.2 * exact.abs().max()


def test_the_last_layer_may_be_any_module():
    model = EdgeNetClassifier(3, width=0.25).eval()
    x, logits = torch.randn(2, 3, 600), model.logits
    exact = model(x)
    model.logits = torch.nn.Sequential(logits, torch.nn.ReLU())
    assert torch.equal(model(x), exact.relu())
