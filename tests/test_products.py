"""The product that a processor is fastest with is the convolution, in value and in gradient."""

import pytest
import torch
from torch.nn import functional as F

from pointnet.ops import products

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (1, 1, 1, 1), (4, 16, 33, 8)])
def test_it_is_the_convolution(monkeypatch, units, dtype, shape):
    monkeypatch.setattr(products, "has_matrix_units", lambda: units)
    clouds, channels, points, out = shape
    x, weight, bias = torch.randn(clouds, channels, points), torch.randn(out, channels), torch.randn(out)
    given = [each.to(dtype).requires_grad_() for each in (x, weight, bias)]
    wanted = [each.detach().double().requires_grad_() for each in given]
    y, z = products.linear_map(*given), F.conv1d(wanted[0], wanted[1].unsqueeze(2), wanted[2])
    without = products.linear_map(*given[:2])
    grads, grads2 = torch.autograd.grad(y.sum(), given), torch.autograd.grad(z.sum(), wanted)
    for mine, other in zip((y, without + given[2].unsqueeze(1), *grads), (z, z, *grads2), strict=True):
        assert mine.dtype == dtype
        assert (mine - other).abs().max() <= TOLERANCE[dtype] * other.abs().max().clamp(min=1)


def test_a_strided_input_is_read_as_it_lies(monkeypatch):
    monkeypatch.setattr(products, "has_matrix_units", lambda: True)
    rows, weight = torch.randn(3, 9, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    y = products.linear_map(rows.transpose(1, 2), weight)
    torch.testing.assert_close(y, F.linear(rows, weight).transpose(1, 2))


def test_under_autocast_it_is_of_bfloat16(monkeypatch):
    for units in (True, False):
        monkeypatch.setattr(products, "has_matrix_units", lambda units=units: units)
        with torch.autocast("cpu", torch.bfloat16):
            assert products.linear_map(torch.randn(2, 3, 8), torch.randn(4, 3), torch.randn(4)).dtype == torch.bfloat16


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_in_kept_memory_are_the_same_at_every_size(monkeypatch, units, dtype):
    monkeypatch.setattr(products, "has_matrix_units", lambda: units)
    product, weight = products.products_kept(torch.float32), torch.randn(6, 4).to(dtype)
    for shape in ((3, 4, 9), (2, 4, 5), (3, 4, 9)):
        x = torch.randn(shape).to(dtype)
        for given in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            got = product(given, weight)
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, products.linear_map(given, weight).float())
