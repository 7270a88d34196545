"""Rows of groups that are made a block at a time, where they are needed, and again in the backward pass: none is kept.

A group is K rows in turn. A block of rows is in the cache while it is worked on. The mean of all rows and their squares
about it come from those of the blocks.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .neighbours import of_all_clouds

# Rows that are worked on together: on a CPU a block of floats nearly fits a core's cache; a GPU needs more.
ROWS = {"cpu": 4096}
SUMMED = 2048  # rows that are summed in their own type; the sums of more are added in float64


class Made:
    """Blocks of G groups of so many rows with C channels, on the device of `like`, and memory for one."""

    def __init__(self, like: Tensor, size: int, groups: int):
        self.size, self.groups, self.channels = size, groups, like.shape[-1]
        self.step = max(1, ROWS.get(like.device.type, 2**18) // size)
        self.kept = like.new_empty(min(self.step, groups) * size, self.channels)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Some groups, and their rows; on a CPU of few sizes, as oneDNN compiles products for each, and keeps them."""
        first = 0
        while left := self.groups - first:
            rest = 1 << left.bit_length() - 1 if self.kept.device.type == "cpu" else left
            last = first + (self.step if left >= self.step else rest)
            yield slice(first, last), slice(first * self.size, last * self.size)
            first = last

    def make(self, groups: slice, rows: slice) -> Tensor:
        """The rows of some groups, (R, C), in memory that the next call takes."""
        raise NotImplementedError

    def start(self) -> None:
        """Before gradients come."""
        raise NotImplementedError

    def give(self, groups: slice, rows: slice, x: Tensor, grad: Tensor) -> None:
        """Takes the gradient of the rows x of some groups, which it may overwrite; each group comes once."""
        raise NotImplementedError

    def gradients(self) -> list[Tensor]:
        """Those of what the rows are made of, as far as it has any."""
        raise NotImplementedError


class Given(Made):
    """Rows x, or x - near, and the gradient of x: (G * K, C), (C,) -> (G * K, C)."""

    def __init__(self, size: int, rows: Tensor, near: Tensor | None = None):
        super().__init__(rows, size, len(rows) // size)
        self.rows, self.near = rows, near

    def make(self, groups: slice, rows: slice) -> Tensor:
        x = self.rows[rows]
        return x if self.near is None else torch.sub(x, self.near, out=self.kept[: len(x)])

    def start(self) -> None:
        self.grad = torch.empty_like(self.rows)

    def give(self, groups: slice, rows: slice, x: Tensor, grad: Tensor) -> None:
        self.grad[rows] = grad

    def gradients(self) -> list[Tensor]:
        return [self.grad]


class Rectified(Given):
    """relu((z - mean) * gain + shift) of rows z, and the gradients of all four: (G * K, C), 3 of (C,) -> (G * K, C)."""

    def __init__(self, size: int, z: Tensor, mean: Tensor, gain: Tensor, shift: Tensor):
        super().__init__(size, z)
        self.mean, self.gain, self.constant = mean, gain, shift - mean * gain

    def make(self, groups: slice, rows: slice) -> Tensor:
        z = self.rows[rows]
        return torch.addcmul(self.constant, z, self.gain, out=self.kept[: len(z)]).relu_()

    def start(self) -> None:
        super().start()
        self.sums, self.products = self.mean.new_zeros(2, self.channels, dtype=torch.float64)

    def give(self, groups: slice, rows: slice, x: Tensor, grad: Tensor) -> None:
        through_relu(grad, x)
        self.sums += grad.sum(0)
        self.products += dots(self.rows[rows], grad)
        torch.mul(grad, self.gain, out=self.grad[rows])

    def gradients(self) -> list[Tensor]:
        of_shift, of_gain = self.sums.to(self.gain.dtype), self.products - self.mean * self.sums
        return [self.grad, -self.gain * of_shift, of_gain.to(self.gain.dtype), of_shift]


class Pairs(Made):
    """relu(a_i + b_j), j = neighbours[i, k], and the gradients of both tables: (B, S, C), (B, N, C), (B, S, K) ->
    (B * S * K, C). With a slope above 0, which numbers below 0 are multiplied by, a LeakyReLU."""

    def __init__(self, a: Tensor, b: Tensor, neighbours: Tensor, slope: float = 0.0):
        self.slope = slope
        self.a, self.b, self.neighbours = a.flatten(0, 1), b.flatten(0, 1), of_all_clouds(neighbours, b.shape[1])
        self.shapes = a.shape, b.shape
        super().__init__(self.a, neighbours.shape[2], len(self.a))

    def make(self, groups: slice, rows: slice) -> Tensor:
        indices = self.neighbours[groups].flatten()
        x = torch.index_select(self.b, 0, indices, out=self.kept[: len(indices)])
        x.view(-1, self.size, self.channels).add_(self.a[groups].unsqueeze(1))
        return F.leaky_relu_(x, self.slope) if self.slope else x.relu_()

    def start(self) -> None:
        self.grad_a, self.grad_b = torch.empty_like(self.a), torch.zeros_like(self.b)

    def give(self, groups: slice, rows: slice, x: Tensor, grad: Tensor) -> None:
        if self.slope:
            torch.ops.aten.leaky_relu_backward(grad, x, self.slope, True, grad_input=grad)
        else:
            through_relu(grad, x)
        torch.sum(grad.view(-1, self.size, self.channels), 1, out=self.grad_a[groups])
        self.grad_b.index_add_(0, self.neighbours[groups].flatten(), grad)

    def gradients(self) -> list[Tensor]:
        return [self.grad_a.view(self.shapes[0]), self.grad_b.view(self.shapes[1])]


def made_of(parts: Sequence[Tensor], size: int, slope: float = 0.0) -> Made:
    """Rows in groups of so many, of x; x and near; a, b and neighbours, by the slope; or z, mean, gain and shift."""
    if len(parts) == 3:
        a, b, neighbours = parts
        return Pairs(a, b, neighbours, slope)
    return (Given if len(parts) < 3 else Rectified)(size, *parts)


def through_relu(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient, in place, where y, what is given to a ReLU or what it gives, is above 0, else 0."""
    return torch.ops.aten.threshold_backward(grad, y, 0, grad_input=grad)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """The sum over rows of a * b: (R, D), (R, D) -> (D,)."""
    if a.device.type != "cpu":
        return (a * b).sum(0)
    return torch.from_numpy(np.einsum("rd,rd->d", a.numpy(), b.numpy()))  # without the products in memory


class Moments:
    """The mean of rows and the sum of squares about it, of rows that come a block at a time."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.means: list[Tensor] = []
        self.squares: list[Tensor] = []

    def add(self, rows: Tensor, times: int = 1) -> None:
        """Rows (R, D) that count so many times each."""
        for some in rows.split(SUMMED if rows.device.type == "cpu" else max(1, len(rows))):
            if rows.device.type == "cpu":  # two passes, in place of the slower one of `var_mean`
                mean, variance = torch.batch_norm_update_stats(some, None, None, 0.0)
            else:
                variance, mean = torch.var_mean(some, 0, correction=0)
            self.counts.append(times * len(some))
            self.means.append(mean)
            self.squares.append(variance * self.counts[-1])

    def of_all(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(D,) and (D,) in float64; 0 of no rows."""
        if not self.counts:
            zero = torch.zeros(width, dtype=torch.float64, device=device)
            return zero, zero.clone()
        return moments_of_all(self.counts, self.means, self.squares)


def moments_of_all(counts: Sequence[int], means: Sequence[Tensor], squares: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean (D,) of several lots of rows and the squares about it (D,) in float64, from those of each."""
    mean = torch.stack([*means]).double()
    count = torch.cat([mean.new_full((1, 1), each) for each in counts])  # of a list a GPU would be waited for
    overall = (count * mean).sum(0) / count.sum()
    return overall, torch.stack([*squares]).double().sum(0) + (count * (mean - overall).square()).sum(0)
