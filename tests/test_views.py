"""The nine views of docs/shared_mlp.md, each proven: values and gradients in float64 to 1e-12, weights, multiply-adds.

The number in a test's name is the section of the page that it proves, and the section names the test.
"""

import re
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pointnet import SharedMLP
from pointnet.layers import views
from tests.laws import assert_close
from tests.views import assert_same, bias_as, linear, multiply_adds, numbers, slid, weight_as, weights

PAGE = Path(__file__).parents[1] / "docs" / "shared_mlp.md"
SMALL = st.integers(1, 5)


# 1. A fully connected layer.


@given(SMALL, SMALL, SMALL, st.booleans())
def test_view_1_each_output_of_a_fully_connected_layer_sees_every_pixel(d, h, w, bias):
    layer, x, slope = linear(h * w, d, bias), numbers(h, w), numbers(d)
    pixels = x.flatten().requires_grad_()
    by_hand = [sum(layer.weight[j, i] * pixels[i] for i in range(h * w)) for j in range(d)]
    if bias:
        by_hand = [y + layer.bias[j] for j, y in enumerate(by_hand)]
    assert_close(layer(pixels), torch.stack(by_hand), "output")
    gradients = torch.autograd.grad(layer(pixels), [pixels, *layer.parameters()], slope)
    wanted = [layer.weight.T @ slope, torch.outer(slope, pixels), slope]
    for got, expected in zip(gradients, wanted[: len(gradients)], strict=True):
        assert_close(got, expected, "gradient")


def test_view_1_counts_614656_weights():
    layer = linear(784, 784)
    assert weights(layer) == multiply_adds(layer, 1, 784) == 784 * 784 == 614_656


# 2. A convolution is a small fully connected network slid over the patches.


@given(
    st.tuples(SMALL, SMALL),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
    st.booleans(),
)
@example((3, 4), (2, 3), (2, 1), (1, 0), (1, 2), True)
def test_view_2_a_convolution_is_the_same_linear_on_every_patch(channels, kernel, stride, padding, dilation, bias):
    conv = nn.Conv2d(*channels, kernel, stride, padding, dilation, bias=bias, dtype=torch.float64)
    layer, x = views.conv2d_to_linear(conv), numbers(2, channels[0], 6, 8)
    assert_same(lambda x: slid(layer, conv, x), lambda x: conv(x).flatten(2), x, (layer, conv))
    assert weights(layer) == weights(conv)
    patches = conv(x).shape[2] * conv(x).shape[3]
    assert multiply_adds(conv, 1, *x.shape[1:]) == patches * multiply_adds(layer, 1, layer.in_features)


def test_view_2_one_filter_gives_one_map_because_channels_are_summed():
    conv, x = nn.Conv2d(3, 1, 3, bias=False, dtype=torch.float64), numbers(2, 3, 6, 5)
    by_channel = [F.conv2d(x[:, c : c + 1], conv.weight[:, c : c + 1]) for c in range(3)]
    assert conv(x).shape == (2, 1, 4, 3)
    assert_close(sum(by_channel), conv(x), "sum over channels")


def test_view_2_counts_3456_weights_wherever_the_kernel_is():
    conv = nn.Conv2d(3, 128, 3, dtype=torch.float64)
    layer = views.conv2d_to_linear(conv)
    assert weights(conv) == weights(layer) == 3 * 3 * 3 * 128 == 3_456
    assert multiply_adds(conv, 1, 3, 28, 28) == 26 * 26 * multiply_adds(layer, 1, 27) == 26 * 26 * 3_456


# 3. A fully connected layer is a convolution whose kernel covers the image.


@given(SMALL, st.tuples(SMALL, SMALL, SMALL), st.booleans())
def test_view_3_a_fully_connected_layer_is_a_convolution_with_a_kernel_of_full_size(d, shape, bias):
    c, h, w = shape
    layer, x = linear(c * h * w, d, bias), numbers(2, *shape)
    conv = views.linear_to_full_conv2d(layer, shape)
    assert conv(x).shape == (2, d, 1, 1)
    assert_same(lambda x: conv(x).flatten(1), lambda x: layer(x.flatten(1)), x, (conv, layer))
    assert weights(conv) == weights(layer) == multiply_adds(conv, 1, *shape) == multiply_adds(layer, 1, c * h * w)


def test_view_3_counts_614656_weights_too():
    conv = views.linear_to_full_conv2d(linear(784, 784), (1, 28, 28))
    assert weights(conv) == multiply_adds(conv, 1, 1, 28, 28) == 614_656


@given(SMALL, st.integers(2, 4), st.integers(2, 4))
def test_view_3_a_classifier_of_crops_slides_over_a_larger_image(c, h, w):
    dense = nn.Sequential(nn.Flatten(), linear(c * h * w, 7), nn.Tanh(), linear(7, 5))
    full, pointwise = views.linear_to_full_conv2d(dense[1], (c, h, w)), views.linear_to_pointwise_conv2d(dense[3])
    sliding, image = nn.Sequential(full, nn.Tanh(), pointwise), numbers(2, c, h + 3, w + 2)

    def crop_by_crop(x):
        rows = [torch.stack([dense(x[:, :, i : i + h, j : j + w]) for j in range(3)], 2) for i in range(4)]
        return torch.stack(rows, 2)

    assert sliding(image).shape == (2, 5, 4, 3)
    assert_same(sliding, crop_by_crop, image, (sliding, dense))


# 4. A 1x1 convolution is a Linear on each pixel's channels.


@given(SMALL, SMALL, SMALL, SMALL, st.booleans())
def test_view_4_a_1x1_convolution_is_a_linear_on_each_pixel(c, d, h, w, bias):
    layer, x = linear(c, d, bias), numbers(2, c, h, w)
    conv = views.linear_to_pointwise_conv2d(layer)
    assert_same(conv, lambda x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), x, (conv, layer))
    assert weights(conv) == weights(layer) == c * d
    assert multiply_adds(conv, 1, c, h, w) == h * w * multiply_adds(layer, 1, c)


def test_view_4_it_changes_depth_and_never_mixes_pixels():
    conv, x = views.linear_to_pointwise_conv2d(linear(3, 10)), numbers(1, 3, 4, 5).requires_grad_()
    assert conv(x).shape == (1, 10, 4, 5)
    (gradient,) = torch.autograd.grad(conv(x)[:, :, 1, 2].sum(), x)
    elsewhere = torch.ones(4, 5, dtype=torch.bool)
    elsewhere[1, 2] = False
    assert (gradient[..., elsewhere] == 0).all()
    assert (gradient[..., 1, 2] != 0).all()
    order = torch.randperm(20)
    shuffled = conv(x.flatten(2)[..., order].view(1, 3, 4, 5))
    assert_close(shuffled.flatten(2), conv(x).flatten(2)[..., order], "shuffled pixels")


# 5. With as many filters as classes it classifies every pixel.


@given(SMALL, SMALL, SMALL)
def test_view_5_ten_filters_are_a_classifier_on_every_pixel(c, h, w):
    layer, image = linear(c, 10), numbers(1, c, h, w)
    conv = views.linear_to_pointwise_conv2d(layer)

    def pixel_by_pixel(x):
        return torch.stack([torch.stack([layer(x[:, :, i, j]) for j in range(w)], 2) for i in range(h)], 2)

    assert conv(image).shape == (1, 10, h, w)
    assert_same(conv, pixel_by_pixel, image, (conv, layer))
    assert torch.equal(conv(image).argmax(1), pixel_by_pixel(image).argmax(1))


def test_view_5_counts_ten_weights_a_channel():
    layer = linear(3, 10)
    conv = views.linear_to_pointwise_conv2d(layer)
    assert weights(conv) == weights(layer) == 30
    assert multiply_adds(conv, 1, 3, 28, 28) == multiply_adds(layer, 784, 3) == 784 * 30


# 6. The fully connected layer of 1 as a 1x1 convolution.


@given(SMALL, SMALL, SMALL, st.booleans())
def test_view_6_flattened_first_a_fully_connected_layer_is_a_1x1_convolution(d, h, w, bias):
    layer, x = linear(h * w, d, bias), numbers(2, 1, h, w)
    conv = views.linear_to_pointwise_conv2d(layer)
    flattened = lambda x: conv(x.reshape(2, h * w, 1, 1)).flatten(1)  # noqa: E731
    assert_same(flattened, lambda x: layer(x.flatten(1)), x, (conv, layer))
    assert weights(conv) == weights(layer) == multiply_adds(conv, 1, h * w, 1, 1) == multiply_adds(layer, 1, h * w)


def test_view_6_swapped_in_place_it_is_another_layer():
    conv = views.linear_to_pointwise_conv2d(linear(784, 784))
    assert weights(conv) == multiply_adds(conv, 1, 784, 1, 1) == 614_656
    image = numbers(1, 1, 28, 28)
    with pytest.raises(RuntimeError, match="expected input.* to have 784 channels, but got 1 channels"):
        conv(image)
    in_place = nn.Conv2d(1, 784, 1, dtype=torch.float64)
    assert weights(in_place) == 784
    assert in_place(image).shape == (1, 784, 28, 28)
    for d in (0, 783):  # each map is the image itself, scaled and shifted: no output has seen two pixels
        assert_close(in_place(image)[0, d], in_place.weight[d].item() * image[0, 0] + in_place.bias[d], "a map")


# 7. Class maps summed over space.


@given(SMALL, SMALL, SMALL, SMALL, st.booleans())
def test_view_7_summed_class_maps_are_a_fully_connected_layer_with_tied_weights(c, d, h, w, bias):
    conv, x = views.linear_to_pointwise_conv2d(linear(c, d, bias)), numbers(2, c, h, w).requires_grad_()
    layer = views.summed_conv2d_to_linear(conv, (h, w))
    summed, dense = conv(x).sum((2, 3)), layer(x.flatten(1))
    assert_close(dense, summed, "output")
    by_hand = x.sum((2, 3)) @ conv.weight[:, :, 0, 0].T + (h * w * conv.bias if bias else 0)
    assert_close(summed, by_hand, "W sum(x) + H W b")
    slope = numbers(2, d)
    (of_input,), (wanted,) = (torch.autograd.grad(y, x, slope) for y in (dense, summed))
    assert_close(of_input, wanted, "input's gradient")
    tied = torch.autograd.grad(conv(x).sum((2, 3)), list(conv.parameters()), slope)
    free = torch.autograd.grad(layer(x.flatten(1)), list(layer.parameters()), slope)
    assert_close(free[0].view(d, c, h * w).sum(2), tied[0].view(d, c), "weight's gradient, summed over positions")
    if bias:
        assert_close(h * w * free[1], tied[1], "bias's gradient")
    assert weights(layer) == h * w * weights(conv)
    assert multiply_adds(layer, 1, c * h * w) == multiply_adds(conv, 1, c, h, w)


def test_view_7_no_tied_layer_is_an_ordinary_fully_connected_one():
    ordinary, x = linear(3 * 28 * 28, 10), numbers(4, 3, 28, 28)
    tied = views.summed_conv2d_to_linear(nn.Conv2d(3, 10, 1, dtype=torch.float64), (28, 28))
    shuffled = x.flatten(2)[..., torch.randperm(784)]
    # Whatever its weights, a tied layer cannot tell an image from its shuffled pixels ...
    assert_close(tied(shuffled.flatten(1)), tied(x.flatten(1)), "shuffled pixels")
    # ... which an ordinary one does,
    assert (ordinary(shuffled.flatten(1)) - ordinary(x.flatten(1))).abs().max() > 0.1
    # and so the nearest tied layer is far from it: the mean weight of each channel leaves nearly all of the rest.
    by_position = ordinary.weight.detach().view(10, 3, 784)
    left = by_position - by_position.mean(2, keepdim=True)
    assert left.norm() > 0.9 * by_position.norm()


# 8. Channels first and channels last.


@given(SMALL, SMALL, SMALL)
def test_view_8_channels_first_and_last_are_the_same_numbers_with_other_strides(c, h, w):
    x = numbers(2, c, h, w)
    last = x.permute(0, 2, 3, 1)
    assert last.data_ptr() == x.data_ptr()
    assert last.stride() == (c * h * w, w, 1, h * w)
    for i, j, channel in ((0, 0, 0), (h - 1, w - 1, c - 1)):
        assert (last[:, i, j, channel] == x[:, channel, i, j]).all()
    stored_last = x.to(memory_format=torch.channels_last)
    assert torch.equal(stored_last, x)
    if c > 1 and h > 1 and w > 1:
        assert stored_last.stride() == (c * h * w, 1, w * c, c)
    layer = linear(c, 4)
    conv = views.linear_to_pointwise_conv2d(layer)
    assert_same(conv, lambda x: conv(x.to(memory_format=torch.channels_last)), x, (conv, conv))
    assert_same(conv, lambda x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), x, (conv, layer))
    assert multiply_adds(conv, 1, c, h, w) == multiply_adds(layer, 1, h, w, c)


def test_view_8_a_reshape_is_not_a_transpose():
    layer, points = linear(3, 4), numbers(2, 3, 5)
    wanted = views.linear_to_conv1d(layer)(points)
    assert_close(layer(points.transpose(1, 2)).transpose(1, 2), wanted, "transpose")
    assert not torch.allclose(layer(points.reshape(2, 5, 3)).reshape(2, 4, 5), wanted, atol=0.1)


# 9. PointNet's shared MLP, in four spellings.


@given(SMALL, SMALL, st.integers(1, 9), st.booleans())
@example(3, 64, 9, False)
def test_view_9_one_layer_in_four_spellings(c, d, n, bias):
    layer, x = linear(c, d, bias), numbers(2, c, n)
    conv1d, pointwise = views.linear_to_conv1d(layer), views.linear_to_pointwise_conv2d(layer)
    row = views.linear_to_full_conv2d(layer, (1, 1, c))  # a kernel of (1, C), as in the original TensorFlow code
    block = SharedMLP.from_linear(nn.Sequential(layer))
    spellings = [
        (lambda x: pointwise(x.unsqueeze(3)).squeeze(3), pointwise, (1, c, n, 1)),
        (lambda x: row(x.transpose(1, 2).unsqueeze(1)).squeeze(3), row, (1, 1, n, c)),
        (lambda x: layer(x.transpose(1, 2)).transpose(1, 2), layer, (1, n, c)),
        (block, block[0].conv, (1, c, n)),
    ]
    for spelling, held, shape in spellings:
        assert_same(spelling, conv1d, x, (held, conv1d))
        assert weights(held) == weights(conv1d) == c * d
        assert multiply_adds(held, *shape) == multiply_adds(conv1d, 1, c, n) == n * c * d


# Broken on purpose: the tests above must notice. The page shows the table.


def held_to(test, *arguments):
    return lambda: test.hypothesis.inner_test(*arguments)


def there_and_back():
    layer = linear(4, 4)
    back = views.conv1d_to_linear(views.linear_to_conv1d(layer))
    assert_close(back.weight, layer.weight, "weight")


VIEW_2 = held_to(
    test_view_2_a_convolution_is_the_same_linear_on_every_patch, (3, 4), (3, 3), (1, 1), (0, 0), (1, 1), True
)
VIEW_3 = held_to(test_view_3_a_fully_connected_layer_is_a_convolution_with_a_kernel_of_full_size, 4, (2, 3, 3), True)
SLIDING = held_to(test_view_3_a_classifier_of_crops_slides_over_a_larger_image, 2, 3, 3)
VIEW_4 = held_to(test_view_4_a_1x1_convolution_is_a_linear_on_each_pixel, 3, 4, 2, 5, True)
VIEW_6 = held_to(test_view_6_flattened_first_a_fully_connected_layer_is_a_1x1_convolution, 4, 3, 2, True)
VIEW_7 = held_to(test_view_7_summed_class_maps_are_a_fully_connected_layer_with_tied_weights, 3, 4, 2, 3, True)
VIEW_9 = held_to(test_view_9_one_layer_in_four_spellings, 3, 4, 5, True)

BROKEN = {
    "view 2: the kernel's rows and columns exchanged": (
        "conv2d_to_linear", weight_as(lambda w: w.view(4, 3, 3, 3).transpose(2, 3)), VIEW_2),
    "view 2: the patch unfolded pixel by pixel, not channel by channel": (
        "conv2d_to_linear", weight_as(lambda w: w.view(4, 3, 3, 3).permute(0, 2, 3, 1)), VIEW_2),
    "view 2: the bias left behind": (
        "conv2d_to_linear", bias_as(torch.zeros_like), VIEW_2),
    "view 3: the kernel turned by half a turn, as a mathematician's convolution": (
        "linear_to_full_conv2d", weight_as(lambda w: w.flip(2, 3)), VIEW_3),
    "view 3: an image flattened with channels last": (
        "linear_to_full_conv2d", weight_as(lambda w: w.view(4, 3, 3, 2).permute(0, 3, 1, 2)), VIEW_3),
    "view 3: the sliding kernel's rows and columns exchanged": (
        "linear_to_full_conv2d", weight_as(lambda w: w.transpose(2, 3)), SLIDING),
    "view 4: the weight transposed": (
        "linear_to_pointwise_conv2d", weight_as(lambda w: w.transpose(0, 1)), VIEW_4),
    "view 6: the weight transposed": (
        "linear_to_pointwise_conv2d", weight_as(lambda w: w.transpose(0, 1)), VIEW_6),
    "view 7: the mean in place of the sum": (
        "summed_conv2d_to_linear", weight_as(lambda w: w / 6), VIEW_7),
    "view 7: the bias added once, not at each of H W positions": (
        "summed_conv2d_to_linear", bias_as(lambda b: b / 6), VIEW_7),
    "view 7: the weights laid out position by position": (
        "summed_conv2d_to_linear", weight_as(lambda w: w.view(4, 3, 6).transpose(1, 2)), VIEW_7),
    "view 9: the kernel transposed": (
        "linear_to_conv1d", weight_as(lambda w: w.transpose(0, 1)), VIEW_9),
    "view 9: the weight transposed on the way back": (
        "conv1d_to_linear", weight_as(lambda w: w.T), there_and_back),
    "view 9: the (1, C) kernel read from its far end": (
        "linear_to_full_conv2d", weight_as(lambda w: w.flip(3)), VIEW_9),
}  # fmt: skip


@pytest.mark.parametrize("title", BROKEN)
def test_a_broken_view_is_caught(title):
    name, broken, test = BROKEN[title]
    test()
    correct = getattr(views, name)
    with (
        patch.object(views, name, lambda *shape: broken(correct(*shape))),
        pytest.raises(AssertionError, match="off by"),
    ):
        test()


def test_the_page_lists_what_was_broken():
    _, table = PAGE.read_text(encoding="utf-8").split("| what was broken |\n|-|\n")
    assert re.findall(r"^\| (.+) \|$", table, re.MULTILINE) == list(BROKEN)
