"""The product that a processor is fastest with is the convolution, in value and in gradient; all layers by rows."""

import pytest
import torch
from torch.nn import functional as F

from pointnet import PointNetClassifier
from pointnet.ops import mlp, products
from pointnet.ops.masked import point_mask
from pointnet.ops.relative import pairs_linear
from tests.helpers import trained_looking
from tests.processors import PROCESSORS

MULTIPLYING = ("Intel", "matrix units", "AMD, AVX2")  # whose products of float32 matrices are the fastest
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(params=PROCESSORS)
def processor(monkeypatch, request):
    monkeypatch.setattr(products, "capabilities", lambda: PROCESSORS[request.param])
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    return request.param


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (1, 1, 1, 1), (4, 16, 33, 8)])
def test_it_is_the_convolution(processor, dtype, shape):
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


@pytest.mark.parametrize("channels", [5, 300])
def test_a_strided_input_is_read_as_it_lies(processor, channels):
    rows, weight = torch.randn(3, 9, channels), torch.randn(4, channels)
    y = products.linear_map(rows.transpose(1, 2), weight)
    assert y.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(y, F.linear(rows, weight).transpose(1, 2))


@pytest.mark.parametrize("channels", [3, 300])
def test_under_autocast_it_is_of_bfloat16(processor, channels):
    x, weight, bias = torch.randn(2, channels, 8), torch.randn(4, channels), torch.randn(4)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear_map(x, weight, bias).dtype == torch.bfloat16
        assert products.map_rows(x.transpose(1, 2), weight, bias).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(0, 40, 30), (7, 40, 0), (1, 40, 30), (7, 1, 3), (128, 40, 30), (33, 16, 64)])
def test_a_map_of_rows_is_that_of_linear(processor, dtype, shape):
    count, channels, out = shape
    rows, weight, bias = torch.randn(2, count, channels), torch.randn(out, channels), torch.randn(out)
    given = [each.to(dtype).requires_grad_() for each in (rows, weight, bias)]
    wanted = [each.detach().double().requires_grad_() for each in given]
    y, z, along = products.map_rows(*given), F.linear(*wanted), torch.randn(2, count, out, dtype=torch.float64)
    grads = torch.autograd.grad((y * along).sum(), given)
    grads2 = torch.autograd.grad((z * along).sum(), wanted)
    flat, times = given[0].detach().flatten(0, 1), along.to(dtype).flatten(0, 1)
    sums = products.sum_of_outer(times, flat), times.double().T @ flat.double()
    of_block = products.multiply(flat, given[1].detach(), None, torch.empty(2 * count, out, dtype=dtype))
    added = products.add_map(times.clone(), flat, given[1].detach(), given[2].detach(), None)
    blocks = ((of_block + given[2], z.flatten(0, 1)), (added, z.flatten(0, 1) + times), sums)
    for mine, other in ((y, z), *zip(grads, grads2, strict=True), *blocks):
        assert mine.dtype == dtype
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= TOLERANCE[dtype] * other.abs().max().clamp(min=1) if mine.numel() else True


@pytest.fixture
def calls(monkeypatch):
    """How often products are taken by each operator."""
    counted = dict.fromkeys(("conv2d", "conv2d_weight", "bmm"), 0)

    def counting(module, name):
        call = getattr(module, name)

        def counts(*given, **named):
            counted[name] += 1
            return call(*given, **named)

        monkeypatch.setattr(module, name, counts)

    counting(F, "conv2d")
    counting(products, "conv2d_weight")
    counting(torch, "bmm")
    return counted


def test_rows_are_convolved_where_products_of_matrices_are_slow(processor, calls, monkeypatch):
    rows, weight = torch.randn(8, 40), torch.randn(30, 40)
    products.map_rows(rows, weight)
    products.multiply(rows, weight, None, torch.empty(8, 30))
    products.add_map(torch.zeros(8, 30), rows, weight, torch.zeros(30), None)
    products.sum_of_outer(torch.randn(8, 30), rows)
    amd = processor == "AMD"
    assert calls == {"conv2d": 3 * amd, "conv2d_weight": 1 * amd, "bmm": 0}
    with torch.autocast("cpu", torch.bfloat16):
        products.map_rows(rows, weight)
    for others, of_others in ((rows.double(), weight.double()), (rows[:, :3], weight[:, :3]), (rows, weight[:3])):
        products.map_rows(others, of_others)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    products.map_rows(rows, weight)
    assert calls["conv2d"] == 3 * amd


def test_matrices_are_multiplied_where_that_is_faster(processor, calls):
    x, weight = torch.randn(2, 40, 80), torch.randn(30, 40)
    products.linear_map(x, weight)
    products.products_kept()(x, weight)
    products.linear_map(x.double(), weight.double())
    assert calls["bmm"] == 3 * (processor in MULTIPLYING)
    calls["bmm"] = 0
    products.linear_map(x.half(), weight.half())
    with torch.autocast("cpu", torch.float16):
        products.linear_map(x, weight)
    assert calls["bmm"] == 2 * (processor == "matrix units")
    calls["bmm"] = 0
    with torch.autocast("cpu", torch.bfloat16):
        products.linear_map(x, weight)
    products.products_kept()(x.bfloat16(), weight.bfloat16())
    products.linear_map(x.bfloat16(), weight.bfloat16())
    assert calls["bmm"] == 3 * (processor in ("AMD", "matrix units"))


def test_without_mkl_there_are_no_products_of_matrices_but_those_of_matrix_units(processor, calls, monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    products.linear_map(torch.randn(2, 40, 80), torch.randn(30, 40))
    assert calls["bmm"] == (processor == "matrix units")


def test_of_few_points_no_matrix_is_multiplied_for_each_cloud(processor, calls):
    """Its gradient would be a weight for each cloud, more than there are numbers of points."""
    weight = torch.randn(30, 40, requires_grad=True)
    for points, many in ((17, 0), (18, 1)):  # 17 * (30 + 40) < 30 * 40 < 18 * (30 + 40)
        calls["bmm"] = 0
        x = torch.randn(2, 40, points)
        y = products.linear_map(x, weight)
        products.products_kept()(x, weight.detach())
        assert calls["bmm"] == 2 * many * (processor in MULTIPLYING)
        torch.testing.assert_close(y, weight @ x)


def test_the_map_of_one_point_of_each_cloud_is_of_rows(processor, calls, monkeypatch):
    x, weight, bias, taken = torch.randn(4, 40, 1), torch.randn(30, 40), torch.randn(30), []
    map_rows = products.map_rows
    monkeypatch.setattr(products, "map_rows", lambda *given: taken.append(given) or map_rows(*given))
    y = products.linear_map(x, weight, bias)
    assert calls["bmm"] == 0
    assert len(taken) == (processor in MULTIPLYING)
    assert y.is_contiguous()
    torch.testing.assert_close(y, weight @ x + bias.unsqueeze(1))


def error(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(
    ("count", "channels", "out"), [(4096, 64, 64), (4080, 128, 64), (32768, 64, 64), (1000, 512, 40)]
)
def test_of_many_rows_no_digits_are_lost(monkeypatch, count, channels, out):
    """At most twice the error of PyTorch's own product, in value and in each gradient."""
    given = [torch.randn(count, channels).relu(), torch.randn(out, channels), torch.randn(out)]
    given = [each.requires_grad_() for each in given]
    along, exact = torch.randn(count, out), [each.detach().double().requires_grad_() for each in given]

    def all_of(call, given, along):
        y = call(*given)
        return [y, *torch.autograd.grad(y, given, along)]

    wanted = all_of(F.linear, exact, along.double())
    plain = [error(*pair) for pair in zip(all_of(F.linear, given, along), wanted, strict=True)]
    monkeypatch.setattr(products, "capabilities", lambda: PROCESSORS["AMD"])
    ours = [error(*pair) for pair in zip(all_of(products.map_rows, given, along), wanted, strict=True)]
    ours.append(error(products.sum_of_outer(along, given[0].detach()), wanted[2]))
    assert all(mine <= 2 * other for mine, other in zip(ours, [*plain, plain[2]], strict=True)), (ours, plain)


def test_under_autocast_the_gradient_of_pairs_keeps_its_digits(processor):
    a, b, weight = torch.randn(1, 9, 40), torch.randn(1, 20, 40), torch.randn(30, 40)
    given = [each.requires_grad_() for each in (a, b, weight)]
    neighbours = torch.randint(20, (1, 9, 4))
    z = pairs_linear(a, b, neighbours, weight)[0].square().sum()
    wanted = torch.autograd.grad(z, given, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(z, given)
    for mine, other in zip(found, wanted, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_in_kept_memory_are_the_same_at_every_size(processor, dtype):
    product, weight = products.products_kept(), torch.randn(6, 4).to(dtype)
    for shape in ((3, 4, 9), (2, 4, 5), (3, 4, 9), (3, 4, 2), (3, 4, 1)):
        x = torch.randn(shape).to(dtype)
        for given in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            got = product(given, weight)
            assert got.dtype == dtype
            torch.testing.assert_close(got, products.linear_map(given, weight))


@pytest.fixture(params=[(10, 8), (50, 8), (64, 64), (64, 42)])
def tiles(monkeypatch, request):
    for name, value in zip(("NARROW", "TILE", "FEWEST"), (*request.param, 1), strict=True):
        monkeypatch.setattr(mlp, name, value)


@pytest.fixture(params=["matrix units", "AMD"])
def by_rows(monkeypatch, request, tiles):
    monkeypatch.setattr(products, "capabilities", lambda: PROCESSORS[request.param])
    monkeypatch.setattr(products, "LEAST_WEIGHT", 1)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("last", [(40, 5), (3, 40, 5)], ids=["one map", "one per cloud"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_mlp_by_rows_is_that_of_the_definition(by_rows, dtype, last, ragged, relu):
    def whole(*shape):  # so small that bfloat16 holds every sum
        return torch.randint(-2, 3, shape).to(dtype)

    x, weights = whole(3, 3, 21), [whole(3, 4, 3), whole(5, 4), whole(*last)]
    biases, lengths = [whole(4), None, whole(40)], torch.tensor([21, 1, 9])
    mask = point_mask(lengths, x) if ragged else None
    given = (x, weights, biases, mask, relu)
    got, wanted = mlp.mlp_max(*given), mlp.mlp_max_definition(*given, False)[0]
    assert got.dtype == dtype
    assert torch.equal(got, wanted)


def test_by_rows_the_largest_of_negative_numbers_is_the_nearest_to_0(by_rows):
    x, weights = torch.randint(1, 9, (2, 3, 21)).bfloat16(), [torch.randint(-4, 5, (30, 3)).bfloat16()]
    weights[0][:15] = -weights[0][:15].abs() - 1
    got = mlp.mlp_max(x, weights, [None], relu=False)
    assert (got[:, :15] < 0).all()
    assert torch.equal(got, mlp.mlp_max_definition(x, weights, [None], None, False, False)[0])


@pytest.mark.parametrize("bits", [0x7FC0, 0xFFC0])
def test_by_rows_a_point_that_is_not_a_number_shows_in_the_max(by_rows, bits):
    x, weights = torch.ones(2, 64, 9).bfloat16(), [torch.ones(4, 64).bfloat16(), torch.ones(2, 4).bfloat16()]
    x[1, 0, 4] = torch.tensor(bits).to(torch.uint16).view(torch.bfloat16)
    got = mlp.mlp_max(x, weights, [None, None])
    assert got[1].isnan().all()
    assert (got[0] == 256).all()


@torch.no_grad()
@pytest.mark.parametrize("by_rows", [*MULTIPLYING, "AMD"], indirect=True)
def test_a_folded_network_by_rows_is_the_same(by_rows, monkeypatch):
    model = PointNetClassifier(5, widths=((8, 12), (8, 16, 40)), tnet_widths=((8, 24), (16,)), head_widths=(16,))
    folded, x, lengths = trained_looking(model, torch.float32).fold(), torch.randn(2, 3, 30), torch.tensor([30, 9])
    calls, rows = [], mlp._by_rows
    monkeypatch.setattr(mlp, "_by_rows", lambda *given: calls.append(len(given[1])) or rows(*given))
    got = folded(x, lengths=lengths)
    assert calls == [2, 4, 5]
    with torch.autocast("cpu", torch.bfloat16):
        low = folded(x, lengths=lengths)
    monkeypatch.setattr(products, "capabilities", lambda: PROCESSORS["unknown"])
    calls.clear()
    wanted = folded(x, lengths=lengths)
    assert not calls
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert (low - wanted).abs().max() < 0.05 * wanted.abs().max()
