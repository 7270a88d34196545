"""What a shared MLP is, as laws: functions that assert it of any block a `Case` describes.

The reference, `point_by_point`, is a plain Python loop: it takes one point at a time, applies the same Linear to it,
and does batch norm by hand. It calls nothing of the block but its numbers and its activation function.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pointnet import SharedMLP

PAGE = Path(__file__).parents[1] / "docs" / "proof.md"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@dataclass(frozen=True)
class Case:
    """A block and a batch for it, both made from the seed."""

    widths: tuple[int, ...] = (4, 5, 5, 6)
    clouds: int = 3
    points: int = 7
    norm: str | None = "batch"
    bias: bool | None = None
    activation: str | None = "relu"
    last_activation: bool = True
    dropout: float = 0.0
    layout: str = "contiguous"
    dtype: torch.dtype = torch.float64
    seed: int = 0

    def block(self) -> SharedMLP:
        """With norms that have something to say: scales of both signs, shifts, running statistics of their own."""
        torch.manual_seed(self.seed)
        mlp = SharedMLP(
            self.widths, self.norm, self.activation, self.last_activation, dropout=self.dropout, bias=self.bias
        )
        for layer in mlp.layers if self.norm else ():
            layer.norm.weight.data.uniform_(0.5, 1.5).mul_(torch.randn_like(layer.norm.weight).sign())
            layer.norm.bias.data.normal_()
            layer.norm.running_mean.normal_()
            layer.norm.running_var.uniform_(0.5, 2.0)
        return mlp.to(self.dtype)

    def batch(self, batch: int = 0, channels: int | None = None) -> Tensor:
        """(B, C, N), each channel with a spread and an offset of its own, in the layout asked for."""
        generator = torch.Generator().manual_seed(1000 * self.seed + batch)
        shape = (self.clouds, channels or self.widths[0], self.points)
        spread, offset = torch.rand(2, 1, shape[1], 1, generator=generator, dtype=self.dtype)
        x = torch.randn(shape, generator=generator, dtype=self.dtype) * (0.1 + spread) + offset
        if self.layout == "channels last":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        if self.layout == "every second point":
            return torch.stack([x, x + 1], dim=-1).flatten(2)[:, :, ::2]
        return x

    def lengths(self) -> Tensor:
        """(B,) how many points of each cloud exist: 1 to N, not all of them N if that can be."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(1, self.points + 1, (self.clouds,), generator=generator)

    def trains(self) -> bool:
        """Batch norm needs two values of a channel to train."""
        return self.norm is None or (self.clouds * self.points > 1 and int(self.lengths().sum()) > 1)


def point_by_point(mlp: SharedMLP, x: Tensor, masks: list[Tensor] | None = None) -> Tensor:
    """The same small network applied to every point, one at a time; batch norm by hand, over all of them."""
    clouds = [[x[b, :, n] for n in range(x.shape[2])] for b in range(x.shape[0])]
    for i, layer in enumerate(mlp.layers):
        weight, bias = layer.conv.weight[:, :, 0], layer.conv.bias
        clouds = [[F.linear(point, weight, bias) for point in cloud] for cloud in clouds]
        if layer.norm is not None:
            clouds = normalize_by_hand(layer.norm, clouds)
        if layer.activation is not None:
            clouds = [[layer.activation(point) for point in cloud] for cloud in clouds]
        if masks is not None and layer.dropout is not None:
            clouds = [[point * masks[i][b, :, n] for n, point in enumerate(cloud)] for b, cloud in enumerate(clouds)]
    return torch.stack([torch.stack(cloud, dim=1) for cloud in clouds])


def normalize_by_hand(norm: torch.nn.BatchNorm1d, clouds: list[list[Tensor]]) -> list[list[Tensor]]:
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        everyone = torch.stack([point for cloud in clouds for point in cloud])
        mean, variance = everyone.mean(0), everyone.var(0, correction=0)
        with torch.no_grad():
            norm.running_mean += norm.momentum * (mean - norm.running_mean)
            norm.running_var += norm.momentum * (everyone.var(0, correction=1) - norm.running_var)
            norm.num_batches_tracked += 1
    return [
        [(point - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias for point in cloud] for cloud in clouds
    ]


def assert_close(got: Tensor, wanted: Tensor, what: str, at_least: float = 1e-3) -> None:
    """Equal to the dtype's tolerance, relative to the largest entry or to `at_least`.

    The inputs are of size 1; an output of a single number can be anything, the sum of terms that cancel included.
    """
    assert got.shape == wanted.shape, f"{what}: {tuple(got.shape)} is not {tuple(wanted.shape)}"
    assert bool(got.isfinite().all()), f"{what}: not finite"
    error = (got - wanted).abs().max().item()
    allowed = TOLERANCE[wanted.dtype] * max(wanted.abs().max().item(), at_least)
    assert error <= allowed, f"{what}: off by {error:.1e}, allowed {allowed:.1e}"


def assert_same_learning(got: SharedMLP, wanted: SharedMLP, x: Tensor, y: Tensor, x2: Tensor, y2: Tensor) -> None:
    """Outputs y = got(x), y2 = wanted(x2) are equal, and so are the gradients of one random projection of them."""
    assert_close(y, y2, "output")
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    grads = torch.autograd.grad((y * direction).sum(), [x, *got.parameters()])
    grads2 = torch.autograd.grad((y2 * direction).sum(), [x2, *wanted.parameters()])
    # A bias before batch norm has gradient 0, so it is measured against the other parameters' gradients.
    largest = max(grad.abs().max().item() for grad in grads2[1:])
    few = x.shape[0] * x.shape[2] <= 4  # batch norm then cancels nearly all of what reaches the points
    assert_close(grads[0], grads2[0], "gradient of the points", at_least=largest if few else 1e-2)
    for (name, _), grad, grad2 in zip(wanted.named_parameters(), grads[1:], grads2[1:], strict=True):
        assert_close(grad.view_as(grad2), grad2, f"gradient of {name}", at_least=largest)


def assert_same_state(got: SharedMLP, wanted: SharedMLP) -> None:
    for name, tensor in wanted.state_dict().items():
        if tensor.is_floating_point():
            assert_close(got.state_dict()[name], tensor, name)
        else:
            assert torch.equal(got.state_dict()[name], tensor), name


# The laws. -----------------------------------------------------------------------------------------------------------


def one_linear_on_each_point_training(case: Case) -> None:
    """In training it is the same Linear on each point: outputs, gradients, statistics after three steps."""
    if not case.trains():
        return
    mlp = case.block()
    reference = copy.deepcopy(mlp)
    for step in range(3):
        x, x2 = (case.batch(step).requires_grad_() for _ in range(2))
        assert_same_learning(mlp, reference, x, mlp(x), x2, point_by_point(reference, x2))
    assert_same_state(mlp, reference)


def one_linear_on_each_point_eval(case: Case) -> None:
    """In eval it is the same Linear on each point: outputs and gradients; nothing is counted."""
    mlp = case.block().eval()
    reference = copy.deepcopy(mlp)
    x, x2 = (case.batch().requires_grad_() for _ in range(2))
    assert_same_learning(mlp, reference, x, mlp(x), x2, point_by_point(reference, x2))
    assert_same_state(mlp, reference)


def linear_twin(case: Case) -> None:
    """to_linear() is the same network on (B, N, C): outputs, gradients, statistics, and bit for bit back."""
    if not case.trains():
        return
    mlp = case.block()
    twin = mlp.to_linear()
    for step in range(3):
        x, x2 = (case.batch(step).requires_grad_() for _ in range(2))
        assert_same_learning(mlp, twin, x, mlp(x), x2, twin(x2.transpose(1, 2)).transpose(1, 2))
    assert_same_state(SharedMLP.from_linear(twin), mlp)
    for mode in (True, False):
        again = SharedMLP.from_linear(mlp.train(mode).to_linear())
        assert list(again.state_dict()) == list(mlp.state_dict())
        assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in mlp.state_dict().items())
        assert_close(again(case.batch(9)), copy.deepcopy(mlp)(case.batch(9)), "output of the round trip")


def same_dropout_mask(case: Case) -> None:
    """Dropout drops single numbers, point by point, in training only, and rescales the rest."""
    case = Case(**{**vars(case), "dropout": 0.4})
    if not case.trains():
        return
    mlp = case.block()
    reference = copy.deepcopy(mlp)
    x, x2 = (case.batch().requires_grad_() for _ in range(2))
    torch.manual_seed(case.seed)
    y = mlp(x)
    torch.manual_seed(case.seed)
    ones = [torch.ones(case.clouds, width, case.points, dtype=case.dtype) for width in case.widths[1:]]
    masks = [
        F.dropout(one, 0.4) if layer.dropout is not None else one for one, layer in zip(ones, mlp.layers, strict=True)
    ]
    assert_same_learning(mlp, reference, x, y, x2, point_by_point(reference, x2, masks))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x)), "dropout in eval"
    assert_close(mlp(x), point_by_point(mlp, x), "output in eval")


def permuting_points(case: Case) -> None:
    """Permuting the points permutes the outputs, in training and in eval."""
    mlp = case.block()
    x = case.batch()
    order = torch.randperm(case.points, generator=torch.Generator().manual_seed(case.seed))
    for mode in (True, False):
        if mode and not case.trains():
            continue
        mlp.train(mode)
        assert_close(mlp(x[:, :, order]), mlp(x)[:, :, order], "output")


def no_point_sees_another(case: Case) -> None:
    """In eval the gradient of one point's output to any other point's input is exactly 0."""
    mlp = case.block().eval()
    x = case.batch().requires_grad_()
    cloud, point = case.clouds // 2, case.points // 2
    y = mlp(x)
    gradient = torch.autograd.grad((y[cloud, :, point] * torch.arange(1.0, y.shape[1] + 1)).sum(), x)[0].clone()
    gradient[cloud, :, point] = 0
    assert not gradient.any(), "another point's input moved this point's output"


def adding_points(case: Case) -> None:
    """In eval, points and clouds added or removed leave the outputs of the rest unchanged."""
    mlp = case.block().eval()
    x, more = case.batch(), case.batch(1)
    assert_close(mlp(torch.cat([x, more], 2))[:, :, : case.points], mlp(x), "output beside more points")
    assert_close(mlp(torch.cat([x, more], 0))[: case.clouds], mlp(x), "output beside more clouds")
    assert_close(mlp(x[:, :, :1]), mlp(x)[:, :, :1], "output alone")


def max_pool_is_the_max(case: Case) -> None:
    """max_pool is the largest value of each channel, gradients included, whatever the points' order and repetition."""
    mlp = case.block()
    x = case.batch()
    order = torch.randperm(case.points, generator=torch.Generator().manual_seed(case.seed))
    for mode in (True, False):
        if mode and not case.trains():
            continue
        mlp.train(mode)
        reference = copy.deepcopy(mlp)
        x2, x3 = (case.batch().requires_grad_() for _ in range(2))
        wanted = torch.stack([torch.stack([row.max() for row in cloud]) for cloud in point_by_point(reference, x3)])
        assert_same_learning(mlp, reference, x2, mlp.max_pool(x2), x3, wanted)
        assert_same_state(mlp, reference)
        assert_close(mlp.max_pool(x[:, :, order]), wanted, "max_pool of permuted points")
    assert_close(mlp.max_pool(torch.cat([x, x[:, :, :2]], 2)), wanted, "max_pool of repeated points")


def padding_changes_nothing(case: Case) -> None:
    """With lengths, padding of any content is as if it were not there: outputs, gradients, statistics, max."""
    if not case.trains():
        return
    lengths = case.lengths()
    exists = torch.arange(case.points) < lengths[:, None]

    def pack(x: Tensor) -> Tensor:  # every point that exists, as one cloud
        return x.transpose(1, 2)[exists].T[None]

    for filling in (0.0, 1e6, torch.inf, torch.nan):
        mlp, clean = case.block(), case.block()
        x = torch.where(exists[:, None], case.batch(), filling).requires_grad_()
        alone, alone2 = (pack(case.batch()).requires_grad_() for _ in range(2))
        padded = torch.full((case.clouds, case.points, case.widths[0]), filling, dtype=case.dtype)
        padded[exists] = alone[0].T
        y = mlp(padded.transpose(1, 2), lengths=lengths)
        assert not y.transpose(1, 2)[~exists].any(), "outputs in the padding are not 0"
        assert_same_learning(mlp, clean, alone, pack(y), alone2, clean(alone2))
        assert_same_state(mlp, clean)

        gradient = torch.autograd.grad(case.block()(x, lengths=lengths).square().sum(), x)[0].transpose(1, 2)
        assert not gradient[~exists].any(), "gradients in the padding are not 0"
        pooled = case.block().max_pool(x, lengths=lengths)
        assert_close(pooled, torch.stack([c.max(1).values for c in pack(y)[0].split(lengths.tolist(), 1)]), "max_pool")
        mlp.eval(), clean.eval()
        assert_close(pack(mlp(x, lengths=lengths)), clean(alone2), "output in eval")


def context_is_concatenation(case: Case) -> None:
    """context gives every point its cloud's vector as further channels: the same as concatenating it."""
    if not case.trains():
        return
    wide = Case(**{**vars(case), "widths": (case.widths[0] + 3, *case.widths[1:])})
    mlp, reference = wide.block(), wide.block()
    x, x2 = (case.batch().requires_grad_() for _ in range(2))
    context = case.batch(1, channels=3)[:, :, 0]
    repeated = context[:, :, None].expand(-1, -1, case.points)
    y, y2 = mlp(x, context), point_by_point(reference, torch.cat([x2, repeated], 1))
    assert_same_learning(mlp, reference, x, y, x2, y2)
    assert_same_state(mlp, reference)


def transform_is_turning_the_points(case: Case) -> None:
    """transform multiplies each point, as a row, by its cloud's matrix before the first layer."""
    if not case.trains():
        return
    for dim in {case.widths[0], 1}:
        mlp, reference = case.block(), case.block()
        x, x2 = (case.batch().requires_grad_() for _ in range(2))
        matrix = case.batch(1, channels=dim * dim)[:, :, 0].reshape(-1, dim, dim)
        turned = torch.stack(
            [torch.stack([torch.cat([p[:dim] @ matrix[b], p[dim:]]) for p in cloud.T], 1) for b, cloud in enumerate(x2)]
        )
        y, y2 = mlp(x, transform=matrix), point_by_point(reference, turned)
        assert_same_learning(mlp, reference, x, y, x2, y2)
        assert_same_state(mlp, reference)
        assert_close(case.block().max_pool(x, transform=matrix), y2.amax(2), "max_pool")


LAWS: dict[str, Callable[[Case], None]] = {
    law.__name__: law
    for law in (
        one_linear_on_each_point_training,
        one_linear_on_each_point_eval,
        linear_twin,
        same_dropout_mask,
        permuting_points,
        no_point_sees_another,
        adding_points,
        max_pool_is_the_max,
        padding_changes_nothing,
        context_is_concatenation,
        transform_is_turning_the_points,
    )
}

# Small blocks that between them have every feature; what the mutations are tried on.
CASES = (
    Case(),
    Case(widths=(4, 4, 5), norm=None, activation="tanh", seed=1),
    Case(widths=(3, 6), bias=True, activation="gelu", last_activation=False, seed=2),
    Case(widths=(5, 5), clouds=1, points=9, norm=None, activation=None, layout="channels last", seed=3),
    Case(widths=(2, 4, 4), clouds=4, points=1, seed=4),
)


def page_rows() -> Iterator[tuple[str, list[str]]]:
    """(title, the laws that caught it) of the mutation table of docs/proof.md."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| what was broken | which laws caught it |") + 2
    names = list(LAWS)
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        title, numbers = (cell.strip() for cell in line.strip("|").rsplit("|", 1))
        yield title, [names[int(number) - 1] for number in numbers.split(",")]
