"""Linear and convolution, there and back bit for bit; what is no such layer; and the page that shows them."""

import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.nn import functional as F

from pointnet.layers import views
from tests.laws import assert_close
from tests.views import linear, numbers
from tools import figures

PAGE = Path(__file__).parents[1] / "docs" / "shared_mlp.md"


@pytest.mark.parametrize("bias", [True, False])
def test_every_conversion_carries_weights_over_and_back_bit_for_bit(bias):
    layer = linear(12, 5, bias).float()
    there_and_back = [
        views.conv1d_to_linear(views.linear_to_conv1d(layer)),
        views.conv2d_to_linear(views.linear_to_pointwise_conv2d(layer)),
        views.conv2d_to_linear(views.linear_to_full_conv2d(layer, (3, 2, 2))),
    ]
    for back in there_and_back:
        assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in layer.state_dict().items())
        assert back.state_dict().keys() == layer.state_dict().keys()
        assert back.weight.dtype == torch.float32
        assert back.weight.data_ptr() != layer.weight.data_ptr()
    conv = nn.Conv2d(3, 5, (2, 4), bias=bias)
    back = views.linear_to_full_conv2d(views.conv2d_to_linear(conv), (3, 2, 4))
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in conv.state_dict().items())


def test_copying_a_layer_draws_no_random_numbers():
    layer, state = linear(4, 5), torch.get_rng_state()
    views.summed_conv2d_to_linear(views.linear_to_pointwise_conv2d(layer), (2, 3))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_stays_frozen_and_the_mode_stays(frozen):
    layer = linear(6, 5).eval()
    getattr(layer, frozen).requires_grad_(False)
    pointwise = views.linear_to_pointwise_conv2d(layer)
    copies = [views.linear_to_conv1d(layer), pointwise, views.linear_to_full_conv2d(layer, (1, 2, 3))]
    for twin in [*copies, views.conv2d_to_linear(pointwise), views.summed_conv2d_to_linear(pointwise, (2, 3))]:
        assert {name for name, tensor in twin.named_parameters() if not tensor.requires_grad} == {frozen}
        assert not twin.training


def test_copies_lie_where_their_source_does():
    layer = nn.Linear(6, 5, device="meta", dtype=torch.float16)
    conv = views.linear_to_full_conv2d(layer, (1, 2, 3))
    for twin in (views.linear_to_conv1d(layer), conv, views.conv2d_to_linear(conv)):
        assert (twin.weight.device.type, twin.weight.dtype) == ("meta", torch.float16)


SUMMED = partial(views.summed_conv2d_to_linear, size=(2, 2))
FULL = partial(views.linear_to_full_conv2d, shape=(1, 2, 2))


@pytest.mark.parametrize("convert", [views.conv1d_to_linear, SUMMED])
@pytest.mark.parametrize(("setting", "settings"), [
    ("kernel_size", {"kernel_size": 3}), ("stride", {"kernel_size": 1, "stride": 2}),
    ("padding", {"kernel_size": 1, "padding": 1}), ("groups", {"kernel_size": 1, "groups": 2}),
])  # fmt: skip
def test_only_what_sees_a_single_position_is_a_linear_on_each(convert, setting, settings):
    kind = nn.Conv1d if convert is views.conv1d_to_linear else nn.Conv2d
    with pytest.raises(ValueError, match=f"conv must have {setting}=.* to be one Linear on each (point|pixel), got"):
        convert(kind(4, 4, **settings))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name_is_none_for_a_kernel_of_one(padding):
    x = numbers(2, 3, 5)
    conv = nn.Conv1d(3, 4, 1, padding=padding, dtype=torch.float64)
    assert_close(views.conv1d_to_linear(conv)(x.mT).mT, conv(x), "points")
    around = nn.Conv2d(3, 4, 3, padding=padding, padding_mode="circular", dtype=torch.float64)
    image = numbers(2, 3, 6, 5)
    padded = F.pad(image, (1, 1, 1, 1), "circular") if padding == "same" else image
    columns = F.unfold(padded, 3)
    assert_close(views.conv2d_to_linear(around)(columns.mT).mT, around(image).flatten(2), "padded first")


@pytest.mark.parametrize(("convert", "name", "other"), [
    (views.linear_to_conv1d, "linear must be a Linear", nn.Conv1d(4, 4, 1)),
    (FULL, "linear must be a Linear", nn.Bilinear(4, 4, 4)),
    (views.conv1d_to_linear, "conv must be a Conv1d", nn.Conv2d(4, 4, 1)),
    (views.conv2d_to_linear, "conv must be a Conv2d", nn.ConvTranspose2d(4, 4, 3)),
])  # fmt: skip
def test_another_kind_of_layer_is_refused(convert, name, other):
    with pytest.raises(TypeError, match=f"^{name}, got {type(other).__name__}$"):
        convert(other)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_buffer():
    layer = nn.Linear(4, 4)
    weight = layer.weight.detach().clone()
    del layer.weight
    layer.register_buffer("weight", weight)
    return layer


def with_hook():
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, arguments, y: 2 * y)
    return layer


@pytest.mark.parametrize("make", [
    lambda: Doubled(4, 4), with_buffer, with_hook,
    lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    lambda: torch.nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "bias", 0.5),
    lambda: nn.LazyLinear(4),
])  # fmt: skip
@pytest.mark.parametrize("convert", [views.linear_to_conv1d, views.linear_to_pointwise_conv2d, FULL])
def test_a_layer_that_is_more_than_its_weight_and_bias_is_refused(make, convert):
    with pytest.raises(
        ValueError, match="linear must be a plain Linear, with weight and bias its parameters and no hook"
    ):
        convert(make())


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 4), (1, -3, -4), (3.0, 2, 2), 12])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape must be \(C, H, W\).*, got"):
        views.linear_to_full_conv2d(nn.Linear(12, 4), shape)
    with pytest.raises(ValueError, match=r"size must be \(H, W\), 2 integers of at least 1, got"):
        views.summed_conv2d_to_linear(nn.Conv2d(3, 4, 1), (0, 4) if shape == 12 else shape[:1])


def test_groups_are_several_linears():
    with pytest.raises(ValueError, match="conv must have groups=1 to be one Linear on each patch, got 2"):
        views.conv2d_to_linear(nn.Conv2d(4, 4, 3, groups=2))


# The page itself.


def sections() -> dict[int, str]:
    parts = re.split(r"^## (\d)\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {int(number): text.split("\n## ")[0] for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_each_view_has_a_section_that_names_its_tests_and_each_test_its_section():
    tests = set(re.findall(r"def (test_view_\w+)", (PAGE.parents[1] / "tests" / "test_views.py").read_text()))
    found = sections()
    assert sorted(found) == list(range(1, 10))
    for number, text in found.items():
        named = set(re.findall(r"`(test_view_\d_\w+)`", text))
        assert named == {name for name in tests if name.startswith(f"test_view_{number}_")}, number
        assert re.search(r"^!\[.+\]\(figures/\w+\.svg\)$", text, re.MULTILINE), number
        assert "```python" in text, number


def test_the_pages_code_runs():
    names = {"__name__": "docs.shared_mlp"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_the_figures_are_those_that_the_code_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    for figure in figures.FIGURES:
        figure()
    folder = PAGE.parent / "figures"
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in folder.iterdir()}, (
        "python -m tools.figures makes them again"
    )
    assert set(re.findall(r"\(figures/(\w+\.svg)\)", PAGE.read_text(encoding="utf-8"))) == drawn.keys()
    numbers_of_the_page = set(re.findall(r"\d+,\d{3}", PAGE.read_text(encoding="utf-8")))
    for svg in drawn.values():
        assert set(re.findall(r"\d+,\d{3}", svg.decode())) <= numbers_of_the_page
        assert ElementTree.fromstring(svg).tag.endswith("svg")
