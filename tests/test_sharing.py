"""Sharing a model: to a folder and back bit for bit, from shipped weights and from the Hub; and what is refused."""

import copy
import inspect
import pickle
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from torch import nn
from torch.nn.utils import prune

from pointnet import (
    DGCNNClassifier,
    EdgeNetClassifier,
    PointNet2Classifier,
    PointNetClassifier,
    PointNextClassifier,
    load_model,
)
from pointnet import __main__ as command_line
from pointnet.models import MODELS, PointNetEmbedder, shipped
from pointnet.models.pointnet2 import PointNet2MultiScale
from tests.helpers import ROOT, SMALL, assert_equal_states, described, error_of


def small() -> PointNetClassifier:
    return described(PointNetClassifier(3, **SMALL))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A shared model."""
    small().save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("pointnet", {}),
        ("pointnet", SMALL | {"input_transform": True, "in_channels": 4, "regularization_weight": 0.5}),
        ("pointnet", {"widths": ((64,), (128, 1024)), "last_activation": False, "input_transform": False}),
        ("pointnet_part", {"num_categories": 2, "parts_of": [[0, 2], [1]], "widths": [[4, 6], [5, 7, 8]]}),
        ("pointnet_scene", {"in_channels": 3, "head_widths": [9, 3], "feature_transform": False, "dropout": 0.2}),
    ],
    ids=str,
)
def test_a_model_comes_back_as_it_was_bit_for_bit(tmp_path, kind, arguments):
    model = described(MODELS[kind](3, **arguments))
    model.save_pretrained(tmp_path / "a" / "b")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    random_state = torch.get_rng_state()
    loaded = MODELS[kind].from_pretrained(tmp_path / "a" / "b")
    assert torch.equal(torch.get_rng_state(), random_state), "reading draws no numbers"
    assert not loaded.training
    assert (loaded.classes, loaded.preprocessing) == (model.classes, model.preprocessing)
    assert loaded.arguments == model.arguments
    assert repr(loaded) == repr(model)
    assert_equal_states(loaded.state_dict(), model.state_dict())
    assert all(p.requires_grad for p in loaded.parameters())
    assert all(tensor.is_contiguous() for tensor in loaded.state_dict().values())
    x = torch.randn(2, model.arguments["in_channels"], 9)
    assert torch.equal(loaded(x), model(x))
    loaded.train()(x).sum().backward()


@pytest.mark.slow
def test_a_model_is_loaded_and_run_without_the_heavy_parts_of_pytorch(tmp_path):
    """The meta device can import sympy, and a custom operator torch._dynamo: seconds and 70 MB in each process."""
    described(PointNetClassifier(3)).save_pretrained(tmp_path)
    code = f"import sys, torch, pointnet; pointnet.load_model({str(tmp_path)!r}).fold()(torch.zeros(1, 3, 9)); "
    code += "print({'sympy', 'torch._dynamo'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("kind", MODELS.values())
def test_the_arguments_are_all_that_the_constructor_takes(kind):
    assert set(kind(4).arguments) == set(kind.__init__.__annotations__) == set(inspect.signature(kind).parameters)
    given = {"widths": ((4, 6), (8,))} if "widths" in inspect.signature(kind).parameters else {"width": 0.1}
    model = kind(5, **given)
    assert model.arguments["widths" if "widths" in given else "width"] in ([[4, 6], [8]], 0.1)
    for other in (kind(**model.arguments), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.fold()):
        assert other.arguments == model.arguments


def test_saved_over_an_older_model_the_new_one_is_there_and_the_card_is_left_as_written(folder):
    (folder / "README.md").write_text("my own words")
    other = small()
    other.save_pretrained(folder, notes="not these")
    assert_equal_states(load_model(folder).state_dict(), other.state_dict())
    assert (folder / "README.md").read_text() == "my own words"


def test_stopped_between_its_files_a_save_leaves_no_model_that_looks_whole(folder, tmp_path, monkeypatch):
    def stop(*arguments, **described):
        raise KeyboardInterrupt

    monkeypatch.setattr("pointnet.models.weights.save_config", stop)
    for where, message in ((folder, "damaged: it does not match the sha256"), (tmp_path / "new", "no model here")):
        with pytest.raises(KeyboardInterrupt):
            small().save_pretrained(where)
        with pytest.raises(ValueError, match=message):
            load_model(where)


def test_half_precision_keeps_vectors_whole_and_is_restored_to_float32(tmp_path):
    model = described(PointNetClassifier(3))
    sizes = []
    for half in (False, True):
        model.save_pretrained(tmp_path / str(half), half=half)
        sizes.append((tmp_path / str(half) / "model.safetensors").stat().st_size)
    assert 0.5 < sizes[1] / sizes[0] < 0.52
    with safe_open(tmp_path / "True" / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert stored["encoder.mlp1.layers.0.conv.weight"] == torch.float16
    assert stored["encoder.mlp1.layers.0.norm.running_var"] == torch.float32
    assert stored["encoder.mlp1.layers.0.norm.num_batches_tracked"] == torch.int64
    loaded = load_model(tmp_path / "True")
    for name, tensor in loaded.state_dict().items():
        whole = model.state_dict()[name]
        assert tensor.dtype == whole.dtype
        assert torch.equal(tensor, whole.half().float() if whole.dim() > 1 else whole), name
    x = torch.rand(2, 3, 50)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=2e-2)


def test_weights_too_large_for_half_precision_are_refused_and_nothing_is_written(tmp_path):
    model = small()
    model.logits.weight.data[0, 0] = 1e5
    with pytest.raises(ValueError, match="too large for half precision"):
        model.save_pretrained(tmp_path / "x", half=True)
    assert not (tmp_path / "x").exists()


class Other(PointNetClassifier):
    pass


def test_a_model_that_could_not_be_rebuilt_is_not_saved(tmp_path):
    nameless, without_size, changed = small(), small(), small()
    nameless.classes, without_size.preprocessing = (), {}
    changed.encoder.mlp1[0].activation = nn.GELU()
    pruned, lost, negative = small(), small(), small()
    prune.l1_unstructured(pruned.logits, "weight", 0.5)
    lost.logits.bias.data[0] = torch.nan
    negative.encoder.mlp1[0].norm.running_var[0] = -1
    for model, message in (
        (small().fold(), "the model is not as its arguments make it"),
        (changed, "the model is not as its arguments make it.*num_classes=N"),
        (nameless, "classes must name its 3 classes, each once, got 0 names"),
        (without_size, "num_points in preprocessing must be an integer"),
        (Other(3), "Other is not one of pointnet"),
        (pruned, "its weights do not fit the model as its arguments make it: .*logits.weight"),
        (lost, "logits.bias holds numbers that are not finite"),
        (negative, "encoder.mlp1.layers.0.norm.running_var holds variances below 0"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            model.save_pretrained(tmp_path / "x")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (EdgeNetClassifier, lambda network: vars(network.level1).update(radius=0.5)),
        (DGCNNClassifier, lambda network: vars(network.get_submodule("edges.0")).update(neighbours=3)),
        (PointNet2Classifier, lambda network: vars(network.get_submodule("abstractions.1")).update(radii=(0.5,))),
        (PointNet2Classifier, lambda network: vars(network.get_submodule("abstractions.1")).update(centres=9)),
        (PointNextClassifier, lambda network: vars(network.get_submodule("abstractions.1")).update(by_radius=False)),
    ],
)
def test_a_network_of_other_neighbourhoods_is_not_saved_as_the_usual_one(tmp_path, kind, change):
    network = described(kind(3, width=0.125) if kind is not DGCNNClassifier else kind(3))
    network.save_pretrained(tmp_path / "usual")
    change(network)
    with pytest.raises(ValueError, match="the model is not as its arguments make it"):
        network.save_pretrained(tmp_path / "other")


@pytest.mark.parametrize("kind", [PointNetClassifier, EdgeNetClassifier])
def test_hooks_that_read_alone_are_no_obstacle_and_others_are_said(tmp_path, kind):
    model, seen = described(kind(3, **(SMALL if kind is PointNetClassifier else {"width": 0.125}))), []
    reading = model.logits.register_forward_hook(lambda module, given, output: seen.append(output))
    model.save_pretrained(tmp_path / "read")
    reading.remove()
    changing = model.logits.register_forward_hook(lambda module, given, output: -output)
    with pytest.raises(ValueError, match="not written: a hook or a forward of one of its modules changes what it comp"):
        model.save_pretrained(tmp_path / "changed")
    changing.remove()
    forward = model.forward
    model.forward = lambda *given, **named: 2 * forward(*given, **named)
    with pytest.raises(ValueError, match="not written: a hook or a forward of one of its modules changes what it comp"):
        model.save_pretrained(tmp_path / "changed")


def test_no_model_is_written_in_the_place_of_a_file(tmp_path):
    (tmp_path / "plain").write_text("mine")
    with pytest.raises(ValueError, match="plain: not written: it is a file, not a folder"):
        small().save_pretrained(tmp_path / "plain")
    assert (tmp_path / "plain").read_text() == "mine"


def test_the_model_card_is_in_the_hubs_layout(folder, tmp_path):
    model = described(PointNetClassifier(3))
    model.save_pretrained(tmp_path / "x", notes="## Training\n\nOn discs and rods; 99 %.")
    card = (tmp_path / "x" / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "pointnet-shared-mlp"
    assert "point-cloud" in yaml.safe_load(head)["tags"]
    for words in ("3,464,", "disc, rod, 椅子", "- frame: z up", "- num_points: 32", "On discs and rods; 99 %."):
        assert words in body
    code = body.split("```python\n")[1].split("```")[0].replace('"..."', repr(str(tmp_path / "x")))
    exec(compile(code, "README.md", "exec"), {"points": torch.randn(2, 3, 9)})
    assert (folder / "README.md").read_text().endswith("rod, 椅子.\n")
    # `pointnet` has no names for these.
    encoder = PointNetEmbedder(widths=((8,), (16,)), input_transform=False)
    encoder.preprocessing = {"num_points": 32}
    for other in (described(PointNet2MultiScale(3, width=0.125)), encoder):
        other.save_pretrained(tmp_path / "y")
        code = (tmp_path / "y" / "README.md").read_text().split("```python\n")[1].split("```")[0]
        exec(compile(code.replace('"..."', repr(str(tmp_path / "y"))), "", "exec"), {"points": torch.randn(2, 3, 9)})


# Shipped weights.


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The place of shipped weights, with two of them."""
    monkeypatch.setattr("pointnet.models.weights.WEIGHTS", tmp_path / "weights")
    models = {name: small() for name in ("pointnet_a", "pointnet_b")}
    for name, model in models.items():
        model.save_pretrained(tmp_path / "weights" / name, half=True)
    (tmp_path / "weights" / "unfinished").mkdir()
    monkeypatch.chdir(tmp_path)
    return models


def test_shipped_weights_are_loaded_by_name(weights):
    assert shipped() == ["pointnet_a", "pointnet_b"]
    for name, model in weights.items():
        for loaded in (load_model(name), PointNetClassifier.from_pretrained(name)):
            torch.testing.assert_close(loaded.logits.weight, model.logits.weight, rtol=1e-3, atol=1e-4)
            assert loaded.logits.weight.dtype == torch.float32


def test_a_folder_of_that_name_comes_first(weights, tmp_path):
    small().save_pretrained(tmp_path / "pointnet_a")
    wanted = load_model(tmp_path / "pointnet_a").logits.weight
    assert torch.equal(load_model("pointnet_a").logits.weight, wanted)
    assert not torch.equal(load_model(tmp_path / "weights" / "pointnet_a").logits.weight, wanted)


def test_an_unknown_name_is_one_line_that_lists_the_known(weights, capsys, tmp_path):
    known = r"no model here; a run folder holds .*; shipped weights: pointnet_a, pointnet_b"
    for name in ("pointnet", "unfinished", str(tmp_path / "weights" / "unfinished"), "..", "a/b/c"):
        for load in (load_model, PointNetClassifier.from_pretrained):
            with pytest.raises(ValueError, match=known):
                load(name)
    small().save_pretrained(tmp_path / "runs" / "mine")
    for name, near in (("pointnet", "pointnet_a"), ("pointnet_bb", "pointnet_b"), ("runs/mne", "mine")):
        line = error_of(capsys, command_line.main, ["evaluate", name])
        assert line.endswith(f"pointnet_a, pointnet_b; did you mean '{near}'?")
    line = error_of(capsys, command_line.main, ["evaluate", "runs"])  # as of several seeds
    assert line.endswith(f"pointnet_a, pointnet_b; {Path('runs') / 'mine'} holds one")


# The Hub.


def test_without_the_extra_folders_are_read_and_the_hub_is_one_line_on_how_to_get_it(folder, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    PointNetClassifier.from_pretrained(folder)
    with pytest.raises(ImportError, match=r"someone/pointnet: no such folder, .* pip install huggingface_hub$"):
        PointNetClassifier.from_pretrained("someone/pointnet")
    with pytest.raises(ValueError, match="runs/x/config.json: no model here"):
        load_model("runs/x")  # never asks the Hub


def test_a_name_on_the_hub_is_fetched_with_no_more_than_its_two_files(folder, monkeypatch):
    asked = []

    def snapshot_download(name, **settings):
        asked.append((name, settings))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    model = PointNetClassifier.from_pretrained("some-one/point.net", revision="v1")
    assert_equal_states(model.state_dict(), load_model(folder).state_dict())
    files = ["config.json", "model.safetensors"]
    assert asked == [("some-one/point.net", {"revision": "v1", "allow_patterns": files})]
    with pytest.raises(ValueError, match="a PointNetClassifier, not a Other"):
        Other.from_pretrained("some-one/point.net")


def test_what_the_hub_has_kept_is_read_without_a_network_and_what_not_is_one_line(folder, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub, of the extra hub")
    from huggingface_hub import constants

    kept = tmp_path / "hub" / "models--someone--pointnet"
    shutil.copytree(folder, kept / "snapshots" / ("0" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = PointNetClassifier.from_pretrained("someone/pointnet")
    assert_equal_states(model.state_dict(), load_model(folder).state_dict())
    for name in ("someone/else", "some--one/..x"):
        with pytest.raises(ValueError, match=f"{name}: no such folder, and not available from") as caught:
            PointNetClassifier.from_pretrained(name)
        assert "\n" not in str(caught.value)
