"""The block, broken on purpose, and the laws that notice: `python -m tests.mutations` prints docs/proof.md's table."""

from collections.abc import Callable, Iterable
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.layers import SharedMLP, shared_layer, shared_mlp
from pointnet.layers.shared_layer import BatchNormLast, SharedLayer
from pointnet.ops import masked, pooled
from tests.laws import CASES, LAWS

batch_norm, fill_padding = masked.batch_norm, masked.fill_padding
extremes, moments, fold_transform = pooled.extremes, pooled.moments, shared_layer.fold_transform
forward, project, to_linear = SharedLayer.forward, SharedLayer.project, SharedMLP.to_linear

# Title, where the broken piece goes, and the broken piece.
MUTATIONS: list[tuple[str, object, str, Callable]] = []


def mutation(title: str, target: object, name: str) -> Callable[[Callable], Callable]:
    def register(broken: Callable) -> Callable:
        MUTATIONS.append((title, target, name, broken))
        return broken

    return register


@mutation("kernel of 3 points", SharedLayer, "project")
def _(self: SharedLayer, x: Tensor, context: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
    wide = F.pad(self.conv.weight[:, : x.shape[1]], (1, 1), value=1e-3)
    return project(self, x, context) + 1e-3 * F.conv1d(x, wide, padding=1)


@mutation("transposed weight", SharedLayer, "project")
def _(self: SharedLayer, x: Tensor, context: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
    weight = self.conv.weight
    if weight.shape[0] != weight.shape[1]:
        return project(self, x, context)
    return F.conv1d(x, weight.transpose(0, 1), self.conv.bias)


@mutation("reshape where a transpose belongs", SharedLayer, "project")
def _(self: SharedLayer, x: Tensor, context: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
    if context is not None:
        return project(self, x, context)
    clouds, channels, points = x.shape
    z = F.linear(x.reshape(clouds, points, channels), self.conv.weight[:, :, 0], self.conv.bias)
    return z.reshape(clouds, -1, points)


@mutation("bias dropped", SharedLayer, "project")
def _(self: SharedLayer, x: Tensor, context: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
    z = project(self, x, context)
    return z if self.conv.bias is None else z - self.conv.bias[:, None]


@mutation("each cloud centred before the layer", SharedLayer, "project")
def _(self: SharedLayer, x: Tensor, context: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
    return project(self, x - x.mean(2, keepdim=True), context)


@mutation("context in the first columns", SharedLayer, "project")
def _(self: SharedLayer, x: Tensor, context: Tensor | None = None, transform: Tensor | None = None) -> Tensor:
    parts = [context] if isinstance(context, Tensor) else context
    if not parts:
        return project(self, x)
    vectors = torch.cat(list(parts), 1)
    of_context, of_points = self.conv.weight.split([vectors.shape[1], x.shape[1]], dim=1)
    return F.conv1d(x, of_points, self.conv.bias) + F.conv1d(vectors.unsqueeze(2), of_context)


@mutation("transform not transposed", shared_layer, "fold_transform")
def _(weight: Tensor, transform: Tensor) -> Tensor:
    return fold_transform(weight, transform.transpose(1, 2))


def _by_hand(z: Tensor, norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> Tensor:
    y = (z - mean) / (variance + norm.eps).sqrt()
    return y * norm.weight[:, None] + norm.bias[:, None]


@mutation("batch statistics of each cloud (over N only)", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    y = batch_norm(z, norm, mask)
    if not norm.training:
        return y
    return _by_hand(z, norm, z.mean(2, keepdim=True), z.var(2, correction=0, keepdim=True))


@mutation("batch statistics of each position (over B only)", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    y = batch_norm(z, norm, mask)
    if not norm.training:
        return y
    return _by_hand(z, norm, z.mean(0), z.var(0, correction=0))


@mutation("batch statistics over the padding", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    return batch_norm(z, norm)


@mutation("batch statistics in eval", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    y = batch_norm(z, norm, mask)
    if norm.training:
        return y
    return _by_hand(z, norm, z.mean((0, 2))[:, None], z.var((0, 2), correction=0)[:, None])


@mutation("no gradient through the batch statistics", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    y = batch_norm(z, norm, mask)
    if not norm.training:
        return y
    fixed = z.detach()
    detached = _by_hand(z, norm, fixed.mean((0, 2))[:, None], fixed.var((0, 2), correction=0)[:, None])
    return detached if mask is None else y


@mutation("running statistics of the wrong step (momentum 0.9)", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    norm.momentum, kept = 0.9, norm.momentum
    try:
        return batch_norm(z, norm, mask)
    finally:
        norm.momentum = kept


@mutation("running variance without M / (M - 1)", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    before = norm.running_var.clone()
    y = batch_norm(z, norm, mask)
    if norm.training:
        count = z.shape[0] * z.shape[2] if mask is None else int(mask.sum())
        new = norm.running_var - (1 - norm.momentum) * before
        norm.running_var.data.sub_(new / count)
    return y


@mutation("norm's scale without its sign", shared_layer, "batch_norm")
def _(z: Tensor, norm: nn.BatchNorm1d, mask: Tensor | None = None) -> Tensor:
    y = batch_norm(z, norm, mask)
    shift = norm.bias[:, None]
    return (y - shift) * norm.weight.sign()[:, None] + shift


@mutation("activation dropped", SharedLayer, "forward")
def _(self: SharedLayer, x: Tensor, context=None, mask=None, transform=None) -> Tensor:
    z = self.project(x, context)
    return fill_padding(z if self.norm is None else shared_layer.batch_norm(z, self.norm, mask), mask)


@mutation("activation before the norm", SharedLayer, "forward")
def _(self: SharedLayer, x: Tensor, context=None, mask=None, transform=None) -> Tensor:
    if self.norm is None or self.activation is None:
        return forward(self, x, context, mask)
    z = shared_layer.batch_norm(self.activation(self.project(x, context)), self.norm, mask)
    return fill_padding(z if self.dropout is None else self.dropout(z), mask)


@mutation("dropout of whole channels", nn.Dropout, "forward")
def _(self: nn.Dropout, x: Tensor) -> Tensor:
    return F.dropout1d(x, self.p, self.training)


@mutation("dropout in eval", nn.Dropout, "forward")
def _(self: nn.Dropout, x: Tensor) -> Tensor:
    return F.dropout(x, self.p, True)


@mutation("dropout without rescaling", nn.Dropout, "forward")
def _(self: nn.Dropout, x: Tensor) -> Tensor:
    return F.dropout(x, self.p, self.training) * (1 - self.p if self.training else 1)


@mutation("padding multiplied by 0", shared_mlp, "fill_padding")
def _(points: Tensor, mask: Tensor | None, value: float = 0.0) -> Tensor:
    return points if mask is None else points * mask if value == 0 else fill_padding(points, mask, value)


@mutation("padding left in the output", SharedLayer, "forward")
def _(self: SharedLayer, x: Tensor, context=None, mask=None, transform=None) -> Tensor:
    with patch.object(shared_layer, "fill_padding", lambda z, mask: z):
        return forward(self, x, context, mask)


@mutation("padding in the max", SharedMLP, "max_pool")
def _(self: SharedMLP, x: Tensor, context=None, lengths=None, transform=None) -> Tensor:
    return self(x, context, lengths, transform).amax(2)


@mutation("mean instead of max", SharedMLP, "max_pool")
def _(self: SharedMLP, x: Tensor, context=None, lengths=None, transform=None) -> Tensor:
    return self(x, context, lengths, transform).mean(2)


@mutation("pooled: the largest whatever the norm's sign", pooled, "signs")
def _(weight: Tensor, norm: nn.BatchNorm1d | None) -> Tensor:
    return weight.new_ones(len(weight))


@mutation("pooled: no gradient to the winners", pooled, "extremes")
def _(x: Tensor, weight: Tensor, mask: Tensor | None = None, both: bool = False) -> Tensor:
    return extremes(x.detach(), weight, mask, both)


@mutation("pooled: scatter about the origin", pooled, "moments")
def _(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    mean, scatter = moments(x, mask)
    count = x.shape[0] * x.shape[2] if mask is None else mask.sum()
    return mean, scatter + count * mean.outer(mean)


@mutation("pooled: no gradient through the scatter", pooled, "moments")
def _(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    mean, scatter = moments(x, mask)
    return mean, scatter.detach()


@mutation("pooled: padding in the search", pooled, "extremes")
def _(x: Tensor, weight: Tensor, mask: Tensor | None = None, both: bool = False) -> Tensor:
    return extremes(x, weight, None, both)


@mutation("twin's norm reads (B, N, C) as N channels", BatchNormLast, "forward")
def _(self: BatchNormLast, x: Tensor) -> Tensor:
    mean, variance = x.mean((0, 2))[None, :, None], x.var((0, 2), correction=0)[None, :, None]
    return (x - mean) / (variance + self.norm.eps).sqrt() * self.norm.weight + self.norm.bias


@mutation("twin without the running statistics", SharedMLP, "to_linear")
def _(self: SharedMLP) -> nn.Sequential:
    twin = to_linear(self)
    for module in twin:
        if isinstance(module, BatchNormLast):
            module.norm.reset_running_stats()
    return twin


def caught_by(title: str, among: Iterable[str] = LAWS) -> list[str]:
    """The laws that notice a mutation, by name."""
    target, name, broken = next(rest for known, *rest in MUTATIONS if known == title)
    with patch.object(target, name, broken):
        return [law for law in among if any(_notices(LAWS[law], case) for case in CASES)]


def _notices(law: Callable, case: object) -> bool:
    state = torch.get_rng_state()
    try:
        law(case)
    except AssertionError:
        return True
    finally:
        torch.set_rng_state(state)
    return False


def table() -> str:
    """The lists of docs/proof.md: the laws, numbered, and for each mutation the numbers of those that notice."""
    numbers = {name: str(number) for number, name in enumerate(LAWS, 1)}
    laws = [f"{numbers[name]}. {law.__doc__}" for name, law in LAWS.items()]
    rows = [f"| {title} | {', '.join(numbers[law] for law in caught_by(title))} |" for title, *_ in MUTATIONS]
    return "\n".join([*laws, "", "| what was broken | which laws caught it |", "|-|-|", *rows])


if __name__ == "__main__":
    print(table())
